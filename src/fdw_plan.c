/*
 * fdw_plan.c
 *		Planning: a scan of all rows (also in parallel), and lookups by key.
 */
#include "postgres.h"

#include "fdw.h"

#include "catalog.h"
#include "compat.h"
#include "fdw_key.h"
#include "fdw_product.h"
#include "fdw_sources.h"

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

void
kafkaCacheGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	kcf_fdw_set_size(root, baserel, foreigntableid);
}

/* Products are read where they may be computed. */
bool
kafkaCacheIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	return !kcf_is_product(kcf_catalog_cached(rte->relid));
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
add_lookup_path(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, Relids outer, int flags,
				Cost penalty)
{
	ParamPathInfo *param = get_baserel_parampathinfo(root, rel, outer);
	List *clauses = rel->baserestrictinfo;
	List *left = NIL;
	double rows = param ? param->ppi_rows : rel->rows;
	double lookups = 1;
	ForeignPath *path;
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
	/* For what is computed there is no other way. */
	path = make_path(root, rel, rows, enable_indexscan || (flags & KCF_PLAN_COMPUTE), startup, run,
					 outer, list_make1(makeInteger(flags)));
	if (penalty > 0)
		kcf_path_penalize(&path->path, penalty);
	add_path(rel, (Path *) path);
}

/*
 * Of a product whose key the query gives: lookups, and nothing else. What has its key from other relations has it from
 * all those that decide which keys are asked for, however they were joined before; with some of them only, where the
 * planner finds no other way. Every search for joins needs a path that asks for nothing: it has one that is not to be
 * run.
 */
static void
add_computed_paths(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key,
				   const KcfProductPlan *product)
{
	int flags = KCF_PLAN_LOOKUP | KCF_PLAN_COMPUTE;
	Relids lateral = rel->lateral_relids;
	ForeignPath *path;
	ListCell *lc;

	if (product->mode == KCF_PRODUCT_BOUND)
	{
		add_lookup_path(root, rel, key, lateral, flags, 0);
		return;
	}
	if (product->outer)
		add_lookup_path(root, rel, key, bms_union(product->outer, lateral), flags, 0);
	foreach (lc, product->ways)
	{
		Relids way = lfirst(lc);

		if (product->outer == NULL || !bms_equal(way, product->outer))
			add_lookup_path(root, rel, key, bms_union(way, lateral), flags,
							product->outer ? KCF_COST_DETOUR : 0);
	}
	path = make_path(root, rel, rel->rows, true, 0, 0, lateral,
					 list_make1(makeInteger(KCF_PLAN_IMPOSSIBLE)));
	kcf_path_penalize(&path->path, KCF_COST_IMPOSSIBLE);
	add_path(rel, (Path *) path);
}

void
kafkaCacheGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	KcfTableDef *def = kcf_catalog_cached(foreigntableid);
	const KcfProductPlan *product = kcf_product_plan(root, baserel, def);
	bool single;
	ListCell *lc;

	if (product && product->mode != KCF_PRODUCT_TARGET)
	{
		if (product->mode == KCF_PRODUCT_CACHED)
			add_scan_paths(root, baserel);
		else
			add_computed_paths(root, baserel, &def->key, product);
		return;
	}
	foreach (lc, kcf_key_sources(root, baserel, &def->key, &single))
		add_lookup_path(root, baserel, &def->key, bms_union(lfirst(lc), baserel->lateral_relids),
						KCF_PLAN_LOOKUP, 0);
	if (!single)
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
take_key(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key, Relids outer, List **clauses,
		 List **values, List **types, List **taken, bool *array)
{
	KcfKeyMatch found[KCF_MAX_KEYS];
	RestrictInfo *source[KCF_MAX_KEYS] = { NULL };
	List *left = NIL;
	ListCell *lc;

	foreach (lc, *clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		KcfKeyMatch match;
		bool matches = kcf_key_match(root, key, rel, rinfo, &match);

		if (matches && source[match.column] != NULL && found[match.column].array && !match.array)
			left = lappend(left, source[match.column]); /* a single value is better than many */
		else if (!matches || source[match.column] != NULL)
		{
			left = lappend(left, rinfo);
			continue;
		}
		found[match.column] = match;
		source[match.column] = rinfo;
	}
	for (int i = 0; i < key->nkeys; i++)
	{
		if (source[i] == NULL &&
			(source[i] = kcf_key_implied(root, rel, key, i, outer, &found[i])) == NULL)
			return false;
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
		flags = intVal(linitial(best_path->fdw_private));
	if (flags & KCF_PLAN_LOOKUP)
	{
		if (!take_key(root, baserel, &kcf_catalog_cached(foreigntableid)->key,
					  PATH_REQ_OUTER(&best_path->path), &scan_clauses, &values, &types, &taken,
					  &array))
			elog(ERROR, "no value for the key of relation %u", foreigntableid);
		flags |= array ? KCF_PLAN_ARRAY : 0;
	}
	scan_clauses = extract_actual_clauses(scan_clauses, false);
	flags |= system_flags(root, baserel, list_concat_copy(baserel->reltarget->exprs, scan_clauses));

	return make_foreignscan(tlist, scan_clauses, baserel->relid, values,
							list_make2(makeInteger(flags), types), NIL, taken, outer_plan);
}
