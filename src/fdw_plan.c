/*
 * fdw_plan.c
 *		Planning: a scan of all rows (also in parallel), and lookups by key.
 */
#include "postgres.h"

#include "fdw.h"

#include "catalog.h"
#include "compat.h"
#include "fdw_key.h"

#include "access/sysattr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/selfuncs.h"

/* Measured against a heap's costs, in units of cpu_tuple_cost: bench/read. */
#define LOOKUP_COST 0.8
#define SCAN_COST 0.6

/* Ways to get the key from other relations that are tried for a key of several columns. */
#define MAX_PARAMETERIZATIONS 32

void
kafkaCacheGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	kcf_fdw_set_size(root, baserel, foreigntableid);
}

bool
kafkaCacheIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	return true;
}

/* ---- all rows ---- */

static ForeignPath *
make_path(PlannerInfo *root, RelOptInfo *rel, double rows, bool enabled, Cost startup, Cost run,
		  Relids outer, List *private)
{
	startup += rel->reltarget->cost.startup;
	run += rel->reltarget->cost.per_tuple * rows;
	return kcf_create_foreignscan_path(root, rel, rows, enabled, startup, startup + run, outer,
									   private);
}

/* How many processes share the rows: the leader takes part as far as its workers leave it time. */
static double
parallel_divisor(int workers)
{
	double leader = 1.0 - 0.3 * workers;

	return workers + (parallel_leader_participation && leader > 0 ? leader : 0);
}

static void
add_scan_paths(PlannerInfo *root, RelOptInfo *rel)
{
	Cost startup = rel->baserestrictcost.startup;
	Cost run = rel->tuples * (SCAN_COST * cpu_tuple_cost + rel->baserestrictcost.per_tuple);
	ParamPathInfo *param = NULL;
	double rows = rel->rows;

	if (rel->lateral_relids)
	{
		QualCost cost;

		param = get_baserel_parampathinfo(root, rel, rel->lateral_relids);
		rows = param->ppi_rows;
		cost_qual_eval(&cost, param->ppi_clauses, root);
		startup += cost.startup;
		run += rel->tuples * cost.per_tuple;
	}
	add_path(rel, (Path *) make_path(root, rel, rows, enable_seqscan, startup, run,
									 rel->lateral_relids, NIL));

	if (rel->consider_parallel && rel->lateral_relids == NULL)
	{
		int workers = compute_parallel_worker(rel, rel->pages, -1, max_parallel_workers_per_gather);
		ForeignPath *path;
		double divisor;

		if (workers <= 0)
			return;
		divisor = parallel_divisor(workers);
		path = make_path(root, rel, clamp_row_est(rows / divisor), enable_seqscan, startup,
						 run / divisor, NULL, NIL);
		path->path.parallel_aware = true;
		path->path.parallel_workers = workers;
		add_partial_path(rel, (Path *) path);
	}
}

/* ---- by key ---- */

/* Cost of looking keys up and of testing what is found with the clauses that are left. */
static void
add_lookup_path(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, Relids outer)
{
	ParamPathInfo *param = get_baserel_parampathinfo(root, rel, outer);
	List *clauses = rel->baserestrictinfo;
	List *left = NIL;
	double rows = param ? param->ppi_rows : rel->rows;
	double lookups = 1;
	bool bound[KCF_MAX_KEYS] = { false };
	QualCost cost;
	Cost startup = 0;
	Cost run;
	ListCell *lc;

	if (param)
		clauses = list_concat_copy(clauses, param->ppi_clauses);
	foreach (lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		KcfKeyMatch match;

		if (!kcf_key_match(root, key, rel, rinfo, &match) || bound[match.column])
		{
			left = lappend(left, rinfo);
			continue;
		}
		bound[match.column] = true;
		if (match.array)
			lookups = kcf_estimate_array_length(root, (Node *) match.value);
		cost_qual_eval_node(&cost, (Node *) match.value, root);
		startup += cost.startup + cost.per_tuple;
	}
	cost_qual_eval(&cost, left, root);
	startup += cost.startup;
	run =
		lookups * LOOKUP_COST * cpu_tuple_cost + Min(lookups, Max(rel->tuples, 1)) * cost.per_tuple;
	add_path(rel, (Path *) make_path(root, rel, rows, enable_indexscan, startup, run, outer,
									 list_make1(makeInteger(KCF_PLAN_LOOKUP))));
}

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
			if (list_length(result) < MAX_PARAMETERIZATIONS)
				result = add_relids(result, bms_union(lfirst(lc1), lfirst(lc2)));
		}
	}
	return result;
}

/* false: scans of all rows need not be considered. */
static bool
add_lookup_paths(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key)
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
	foreach (lc, sets)
		add_lookup_path(root, rel, key, bms_union(lfirst(lc), rel->lateral_relids));
	return array || nbound < key->nkeys;
}

void
kafkaCacheGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	if (add_lookup_paths(root, baserel, &kcf_catalog_cached(foreigntableid)->key))
		add_scan_paths(root, baserel);
}

/* ---- plan ---- */

/* What is asked for of system columns. A ctid means something only to UPDATE and DELETE of this relation. */
static int
system_flags(PlannerInfo *root, RelOptInfo *rel, List *exprs)
{
	static const AttrNumber header[] = { MinTransactionIdAttributeNumber,
										 MinCommandIdAttributeNumber,
										 MaxTransactionIdAttributeNumber,
										 MaxCommandIdAttributeNumber };
	Bitmapset *attrs = NULL;
	int flags = 0;

	pull_varattnos((Node *) exprs, rel->relid, &attrs);
	for (int i = 0; i < (int) lengthof(header); i++)
	{
		if (bms_is_member(header[i] - FirstLowInvalidHeapAttributeNumber, attrs))
			flags |= KCF_PLAN_SYSTEM;
	}
	if (bms_is_member(SelfItemPointerAttributeNumber - FirstLowInvalidHeapAttributeNumber, attrs))
		flags |=
			bms_is_member(rel->relid, root->all_result_relids) ? KCF_PLAN_PLACE : KCF_PLAN_SYSTEM;
	return flags;
}

/* As EXPLAIN shows the conditions of indexes. */
static Expr *
key_on_left(Expr *clause, bool commuted)
{
	if (commuted)
	{
		clause = copyObject(clause);
		CommuteOpExpr((OpExpr *) clause);
	}
	return clause;
}

/* The key's values out of the clauses. false: they do not bind the whole key. */
static bool
take_key(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, List **clauses, List **values,
		 List **types, List **taken, bool *array)
{
	KcfKeyMatch found[KCF_MAX_KEYS];
	RestrictInfo *source[KCF_MAX_KEYS] = { NULL };
	List *left = NIL;
	int n = 0;
	ListCell *lc;

	foreach (lc, *clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		KcfKeyMatch match;
		bool matches = kcf_key_match(root, key, rel, rinfo, &match);

		if (matches && source[match.column] == NULL)
			n++;
		else if (matches && found[match.column].array && !match.array)
			left = lappend(left, source[match.column]); /* a single value is better than many */
		else
		{
			left = lappend(left, rinfo);
			continue;
		}
		found[match.column] = match;
		source[match.column] = rinfo;
	}
	if (n < key->nkeys)
		return false;
	for (int i = 0; i < key->nkeys; i++)
	{
		*values = lappend(*values, found[i].value);
		*types = lappend_oid(*types, found[i].type);
		*taken = lappend(*taken, key_on_left(source[i]->clause, found[i].commuted));
		*array = found[i].array;
	}
	*clauses = left;
	return true;
}

ForeignScan *
kafkaCacheGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid,
						 ForeignPath *best_path, List *tlist, List *scan_clauses, Plan *outer_plan)
{
	List *values = NIL;
	List *types = NIL;
	List *taken = NIL;
	bool array = false;
	int flags = 0;

	/*
	 * The clauses are not the same objects as those that the path was made for, so they are looked for again.
	 */
	if (best_path->fdw_private != NIL)
	{
		if (!take_key(root, baserel, &kcf_catalog_cached(foreigntableid)->key, &scan_clauses,
					  &values, &types, &taken, &array))
			elog(ERROR, "no value for the key of relation %u", foreigntableid);
		flags |= KCF_PLAN_LOOKUP | (array ? KCF_PLAN_ARRAY : 0);
	}
	scan_clauses = extract_actual_clauses(scan_clauses, false);
	flags |= system_flags(root, baserel, list_concat_copy(baserel->reltarget->exprs, scan_clauses));

	return make_foreignscan(tlist, scan_clauses, baserel->relid, values,
							list_make2(makeInteger(flags), types), NIL, taken, outer_plan);
}
