/*
 * fdw_product_join.c
 *		Joins with data products: the planner is kept from other orders than those that were decided on.
 */
#include "postgres.h"

#include "fdw_product.h"

#include "compat.h"
#include "fdw.h"

#include "jit/jit.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/geqo.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/planner.h"

static set_join_pathlist_hook_type prev_join_pathlist = NULL;
static planner_hook_type prev_planner = NULL;
static bool with_products = false; /* is a query with products being planned? */

/* ---- joins ---- */

/* Of each part all or none. */
static bool
are_whole_parts(const KcfProductPlan *plan, Relids relids)
{
	ListCell *lc;

	foreach (lc, plan->parts)
	{
		if (bms_overlap(lfirst(lc), relids) && !bms_is_subset(lfirst(lc), relids))
			return false;
	}
	return true;
}

/*
 * Is a product in this join asked for other keys than was decided? It is to be joined with its sources, after they
 * have been joined with each other. (What has no condition in common with them does no harm.) On the inner side of an
 * outer join it may be joined with others before, for each row of the sources: but as the one that comes first.
 */
static bool
is_detour(PlannerInfo *root, const JoinPath *join, int relid, const KcfProductPlan *plan)
{
	Relids outer = kcf_base_relids(root, join->outerjoinpath->parent->relids);
	bool within = bms_is_member(relid, outer);
	RelOptInfo *side = within ? join->outerjoinpath->parent : join->innerjoinpath->parent;

	if (bms_is_subset(plan->sources, side->relids))
		return false; /* that has been decided further down */
	return !IsA(join, NestPath) || (!within && !are_whole_parts(plan, outer));
}

/* Is it a product that has to come after others? */
static bool
has_sources(PlannerInfo *root, int relid, const KcfProductPlan **plan)
{
	RelOptInfo *rel = relid < root->simple_rel_array_size ? root->simple_rel_array[relid] : NULL;

	if (rel == NULL || rel->fdw_private == NULL || kcf_product_definition(root, rel) == NULL)
		return false;
	*plan = rel->fdw_private;
	return (*plan)->sources != NULL;
}

static bool
has_detour(PlannerInfo *root, const RelOptInfo *joinrel, const Path *path)
{
	const KcfProductPlan *plan;
	int relid = -1;

	if (!IsA(path, NestPath) && !IsA(path, MergePath) && !IsA(path, HashPath))
		return false;
	while ((relid = bms_next_member(joinrel->relids, relid)) >= 0)
	{
		if (has_sources(root, relid, &plan) &&
			is_detour(root, (const JoinPath *) path, relid, plan))
			return true;
	}
	return false;
}

/* Are there products whose sources are not all in the join yet? */
static bool
has_waiting(PlannerInfo *root, const RelOptInfo *joinrel)
{
	const KcfProductPlan *plan;
	int relid = -1;

	while ((relid = bms_next_member(joinrel->relids, relid)) >= 0)
	{
		if (has_sources(root, relid, &plan) && !bms_is_subset(plan->sources, joinrel->relids))
			return true;
	}
	return false;
}

static Path *
copy_nestloop(const Path *path)
{
	NestPath *copy = makeNode(NestPath);

	*copy = *(const NestPath *) path;
	return (Path *) copy;
}

/* May what waits be the outer side here, with nothing of the other side being needed before? */
static bool
can_lead(JoinType jointype)
{
	return jointype == JOIN_INNER || jointype == JOIN_LEFT || jointype == JOIN_SEMI ||
		   jointype == JOIN_ANTI;
}

/*
 * A detour that seemed to be cheaper may have thrown out what is none. Where that may be what this call was about, it
 * is made again: nested loops with the products that wait on their outer side.
 */
static void
add_nestloops(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outerrel, RelOptInfo *innerrel,
			  JoinType jointype, JoinPathExtraData *extra)
{
	Path *inner = innerrel->cheapest_total_path;
	ListCell *lc;

	if (!can_lead(jointype) || !has_waiting(root, outerrel) || inner == NULL ||
		inner->total_cost >= KCF_COST_DETOUR)
		return;
	foreach (lc, outerrel->pathlist)
	{
		Path *outer = lfirst(lc);
		JoinCostWorkspace workspace;
		Relids required;

		if (outer->total_cost >= KCF_COST_DETOUR || PATH_REQ_OUTER(outer) == NULL ||
			bms_overlap(PATH_REQ_OUTER(outer), innerrel->relids))
			continue;
		required = calc_nestloop_required_outer(outerrel->relids, PATH_REQ_OUTER(outer),
												innerrel->relids, PATH_REQ_OUTER(inner));
		initial_cost_nestloop(root, &workspace, jointype, outer, inner, extra);
		add_path(joinrel,
				 (Path *) create_nestloop_path(root, joinrel, jointype, &workspace, extra, outer,
											   inner, extra->restrictlist, NIL, required));
	}
}

/*
 * And where it was an earlier call for the same join: so these paths are noted with the join, where nobody else keeps
 * anything, and offered again.
 */
static void
restore(RelOptInfo *joinrel)
{
	List *noted = NIL;
	ListCell *lc;

	foreach (lc, (List *) joinrel->fdw_private)
		add_path(joinrel, lfirst(lc));
	foreach (lc, joinrel->pathlist)
	{
		Path *path = lfirst(lc);

		if (IsA(path, NestPath) && path->total_cost < KCF_COST_DETOUR)
			noted = lappend(noted, copy_nestloop(path));
	}
	list_free(joinrel->fdw_private);
	joinrel->fdw_private = noted;
}

static void
join_pathlist(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outerrel, RelOptInfo *innerrel,
			  JoinType jointype, JoinPathExtraData *extra)
{
	List *detours = NIL;
	ListCell *lc;

	if (prev_join_pathlist)
		prev_join_pathlist(root, joinrel, outerrel, innerrel, jointype, extra);
	if (!with_products || joinrel->reloptkind != RELOPT_JOINREL)
		return;
	foreach (lc, joinrel->pathlist)
	{
		Path *path = lfirst(lc);

		if (path->total_cost >= KCF_COST_DETOUR || !has_detour(root, joinrel, path))
			continue;
		detours = lappend(detours, path);
		joinrel->pathlist = foreach_delete_current(joinrel->pathlist, lc);
	}
	foreach (lc, detours)
	{
		kcf_path_penalize((Path *) lfirst(lc), KCF_COST_DETOUR);
		add_path(joinrel, lfirst(lc));
	}
	if (has_waiting(root, joinrel))
	{
		add_nestloops(root, joinrel, outerrel, innerrel, jointype, extra);
		restore(joinrel);
	}
}

/* ---- the planner's settings ---- */

static bool
reads_product(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_product, arg, QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		return rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE &&
			   kcf_catalog_is_ours(rte->relid) && kcf_is_product(kcf_catalog_cached(rte->relid));
	}
	return expression_tree_walker(node, reads_product, arg);
}

static PlannedStmt *
call_planner(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	if (prev_planner)
		return prev_planner(parse, query_string, cursorOptions, boundParams);
	return standard_planner(parse, query_string, cursorOptions, boundParams);
}

/* Queries with fewer relations are planned by looking at all orders of joins. */
#define ALL_ORDERS 12
#define MAX_TRIES 5

/*
 * A query with products is planned with all orders of joins before it, whatever the limits say, or else the order that
 * was decided on could be out of reach; with nested loops, which is what a lookup for each row is; and without workers,
 * since functions run that may not run beside them.
 */
static PlannedStmt *
plan_with_products(Query *parse, const char *query_string, int cursorOptions,
				   ParamListInfo boundParams, int try)
{
	int from_limit = from_collapse_limit;
	int join_limit = join_collapse_limit;
	bool geqo = enable_geqo;
	bool nestloop = enable_nestloop;
	int threshold = geqo_threshold;
	double seed = Geqo_seed;
	bool nested = with_products;
	PlannedStmt *plan = NULL;

	PG_TRY();
	{
		with_products = true;
		enable_geqo = enable_nestloop = true;
		geqo_threshold = Max(geqo ? threshold : from_limit, ALL_ORDERS);
		from_collapse_limit = join_collapse_limit = INT_MAX;
		if (try > 0)
			Geqo_seed = (double) try / MAX_TRIES;
		plan =
			call_planner(parse, query_string, cursorOptions & ~CURSOR_OPT_PARALLEL_OK, boundParams);
	}
	PG_FINALLY();
	{
		from_collapse_limit = from_limit;
		join_collapse_limit = join_limit;
		enable_geqo = geqo;
		enable_nestloop = nestloop;
		geqo_threshold = threshold;
		Geqo_seed = seed;
		with_products = nested;
	}
	PG_END_TRY();
	return plan;
}

static PlannedStmt *
plan_statement(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	PlannedStmt *best = NULL;

	if (!reads_product((Node *) parse, NULL))
		return call_planner(parse, query_string, cursorOptions, boundParams);

	/* Where not all orders are looked at, it may take luck to find the right one. */
	for (int i = 0; i < MAX_TRIES; i++)
	{
		bool again = i + 1 < MAX_TRIES && list_length(parse->rtable) >= ALL_ORDERS;
		Query *copy = again ? copyObject(parse) : parse;
		PlannedStmt *plan = plan_with_products(copy, query_string, cursorOptions, boundParams, i);

		if (best == NULL || plan->planTree->total_cost < best->planTree->total_cost)
			best = plan;
		if (!again || best->planTree->total_cost < KCF_COST_DETOUR)
			break;
	}
	/* These costs are not of the work to be done. */
	if (best->planTree->total_cost >= KCF_COST_DETOUR)
		best->jitFlags = PGJIT_NONE;
	return best;
}

void
kcf_fdw_product_init(void)
{
	prev_join_pathlist = set_join_pathlist_hook;
	set_join_pathlist_hook = join_pathlist;
	prev_planner = planner_hook;
	planner_hook = plan_statement;
}
