/*
 * fdw_sources.c
 *		The ways to have the values of a table's whole key: from its own conditions, or from other relations.
 */
#include "postgres.h"

#include "fdw_sources.h"

#include "fdw_key.h"

#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"

/* Ways to get the key from other relations that are tried for a key of several columns. */
#define MAX_WAYS 32

typedef struct EcTarget
{
	const KcfKeyType *key;
	int column;
} EcTarget;

static bool
is_ec_target(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em,
			 void *arg)
{
	EcTarget *target = arg;
	const KcfKeyColumn *column = &target->key->keys[target->column];
	Expr *expr = em->em_expr;

	while (expr && IsA(expr, RelabelType))
		expr = ((RelabelType *) expr)->arg;
	return expr && IsA(expr, Var) && (Index) ((Var *) expr)->varno == rel->relid &&
		   ((Var *) expr)->varattno == column->attnum;
}

/* Add a set of relations unless it is there. */
static List *
add_relids(List *sets, Relids set)
{
	ListCell *lc;

	foreach (lc, sets)
	{
		if (bms_equal(lfirst(lc), set))
			return sets;
	}
	return lappend(sets, set);
}

/* From which sets of other relations can a value for this key column be had? */
static List *
column_sources(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, int column)
{
	EcTarget target = { key, column };
	List *clauses = list_copy(rel->joininfo);
	List *sources = NIL;
	ListCell *lc;

	if (rel->has_eclass_joins)
		clauses =
			list_concat(clauses, generate_implied_equalities_for_column(
									 root, rel, is_ec_target, &target, rel->lateral_referencers));
	foreach (lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		KcfKeyMatch match;

		if (join_clause_is_movable_to(rinfo, rel) && kcf_key_match(root, key, rel, rinfo, &match) &&
			match.column == column)
			sources =
				add_relids(sources, bms_del_member(bms_copy(rinfo->clause_relids), rel->relid));
	}
	return sources;
}

/* Every combination of a set of each list, as their unions. */
static List *
combine(List *sets, List *sources)
{
	List *result = NIL;
	ListCell *lc1;
	ListCell *lc2;

	foreach (lc1, sets)
	{
		foreach (lc2, sources)
		{
			if (list_length(result) < MAX_WAYS)
				result = add_relids(result, bms_union(lfirst(lc1), lfirst(lc2)));
		}
	}
	return result;
}

List *
kcf_key_sources(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, bool *single)
{
	bool bound[KCF_MAX_KEYS] = { false };
	bool array = false;
	int nbound = 0;
	List *sets = list_make1(NULL);
	ListCell *lc;

	foreach (lc, rel->baserestrictinfo)
	{
		KcfKeyMatch match;

		if (kcf_key_match(root, key, rel, lfirst_node(RestrictInfo, lc), &match) &&
			!bound[match.column])
		{
			bound[match.column] = true;
			array |= match.array;
			nbound++;
		}
	}
	for (int i = 0; i < key->nkeys && sets != NIL; i++)
	{
		if (!bound[i])
			sets = combine(sets, column_sources(root, rel, key, i));
	}
	*single = !array && nbound == key->nkeys;
	return sets;
}

RestrictInfo *
kcf_key_implied(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, int column, Relids outer,
				KcfKeyMatch *match)
{
	EcTarget target = { key, column };
	List *clauses = NIL;
	ListCell *lc;

	if (rel->has_eclass_joins)
		clauses = generate_implied_equalities_for_column(root, rel, is_ec_target, &target, NULL);
	foreach (lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		Relids others = bms_del_member(bms_copy(rinfo->clause_relids), rel->relid);

		if (bms_is_subset(others, outer) && kcf_key_match(root, key, rel, rinfo, match) &&
			match->column == column)
			return rinfo;
	}
	return NULL;
}
