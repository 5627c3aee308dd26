/*
 * fdw_explain.c
 *		What EXPLAIN says of a scan.
 */
#include "postgres.h"

#include "fdw.h"
#include "fdw_product.h"
#include "fdw_scan.h"

#include "catalog.h"
#include "compat.h"
#include "pending.h"

#include "commands/explain.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* ---- the condition on the key ---- */

/*
 * A condition names columns of other relations by parameters; what these stand for is found by way of the plan
 * nodes above, which EXPLAIN does not hand us.
 */
typedef struct Search
{
	PlannedStmt *stmt;
	Plan *target;
	List *ancestors; /* of the target, nearest first: Plans and SubPlans */
} Search;

static bool search_plan(Search *search, Plan *plan);

static bool
search_subplan(Search *search, SubPlan *subplan)
{
	Plan *plan = list_nth(search->stmt->subplans, subplan->plan_id - 1);

	if (!search_plan(search, plan))
		return false;
	search->ancestors = lappend(search->ancestors, subplan);
	return true;
}

static bool
search_expression(Node *node, Search *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) && search_subplan(search, (SubPlan *) node))
		return true;
	return expression_tree_walker(node, search_expression, search);
}

static bool
search_list(Search *search, List *plans)
{
	ListCell *lc;

	foreach (lc, plans)
	{
		if (search_plan(search, lfirst(lc)))
			return true;
	}
	return false;
}

static bool
search_children(Search *search, Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Append:
			return search_list(search, ((Append *) plan)->appendplans);
		case T_MergeAppend:
			return search_list(search, ((MergeAppend *) plan)->mergeplans);
		case T_SubqueryScan:
			return search_plan(search, ((SubqueryScan *) plan)->subplan);
		case T_CustomScan:
			return search_list(search, ((CustomScan *) plan)->custom_plans);
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
			return search_expression((Node *) ((Join *) plan)->joinqual, search);
		case T_Result:
			return search_expression(((Result *) plan)->resconstantqual, search);
		default:
			return false;
	}
}

static bool
search_plan(Search *search, Plan *plan)
{
	if (plan == NULL)
		return false;
	if (plan == search->target)
		return true;
	if (search_plan(search, plan->lefttree) || search_plan(search, plan->righttree) ||
		search_children(search, plan) || search_expression((Node *) plan->initPlan, search) ||
		search_expression((Node *) plan->targetlist, search) ||
		search_expression((Node *) plan->qual, search))
	{
		search->ancestors = lappend(search->ancestors, plan);
		return true;
	}
	return false;
}

static void
explain_condition(ForeignScan *plan, ExplainState *es)
{
	Search search = { .stmt = es->pstmt, .target = (Plan *) plan };
	bool prefix = list_length(es->rtable) > 1 || es->verbose;
	List *context;
	ListCell *lc;

	if (!search_plan(&search, es->pstmt->planTree))
	{
		foreach (lc, es->pstmt->subplans)
		{
			if (search_plan(&search, lfirst(lc)))
				break;
		}
	}
	context = set_deparse_context_plan(es->deparse_cxt, (Plan *) plan, search.ancestors);
	ExplainPropertyText("Key Cond",
						deparse_expression((Node *) make_ands_explicit(plan->fdw_recheck_quals),
										   context, prefix, false),
						es);
}

/* What this transaction has written and this scan will not see. */
static void
explain_unsent(Oid relid, ExplainState *es)
{
	uint64 records = kcf_pending_count(relid);

	if (records == 0)
		return;
	if (es->format == EXPLAIN_FORMAT_TEXT)
		ExplainPropertyText("Unsent Records",
							psprintf(UINT64_FORMAT " (not visible before commit)", records), es);
	else
		ExplainPropertyUInteger("Unsent Records", NULL, records, es);
}

/* ---- all of it ---- */

static const char *
access_name(const KcfTableDef *def, int flags)
{
	if (flags & KCF_PLAN_COMPUTE)
		return "Computed Lookup";
	if (flags & KCF_PLAN_IMPOSSIBLE)
		return "Impossible";
	if (flags & KCF_PLAN_LOOKUP)
		return "Key Lookup";
	return kcf_is_product(def) ? "Cached Scan" : "Full Scan";
}

void
kafkaCacheExplainForeignScan(ForeignScanState *node, ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Oid relid = RelationGetRelid(node->ss.ss_currentRelation);
	KcfScanState *st = node->fdw_state;
	int flags = intVal(list_nth(plan->fdw_private, KCF_PLAN_FLAGS));
	bool lookup = (flags & KCF_PLAN_LOOKUP) != 0;
	Instrumentation *instrument = node->ss.ps.instrument;

	ExplainPropertyText("Kafka Topic", kcf_catalog_cached(relid)->options->topic, es);
	ExplainPropertyText("Cache Access", access_name(kcf_catalog_cached(relid), flags), es);
	if (lookup)
		explain_condition(plan, es);
	if (es->verbose)
	{
		const char *position =
			st ? kcf_snapshot_position(st->snapshot, relid) : kcf_relation_position(relid);

		if (position)
			ExplainPropertyText("Cache Position", position, es);
	}
	if (st && st->view.partial)
		ExplainPropertyBool("Cache Partial", true, es);
	explain_unsent(relid, es);

	if (flags & KCF_PLAN_COMPUTE)
	{
		if (es->analyze && instrument)
			kcf_product_explain(node, es);
		return;
	}
	/* Counted where lookups run, also in workers: misses by nfiltered2, which nothing else of a scan uses. */
	if (lookup && es->analyze && instrument)
	{
		ExplainPropertyFloat("Key Lookups", NULL, instrument->ntuples2, 0, es);
		ExplainPropertyFloat("Key Hits", NULL, instrument->ntuples2 - instrument->nfiltered2, 0,
							 es);
	}
}

void
kafkaCacheExplainForeignModify(ModifyTableState *mtstate, ResultRelInfo *rinfo, List *fdw_private,
							   int subplan_index, ExplainState *es)
{
	KcfTableOptions *options =
		kcf_catalog_cached(RelationGetRelid(rinfo->ri_RelationDesc))->options;

	ExplainPropertyText("Kafka Topic", options->topic, es);
	ExplainPropertyText("Delivery",
						options->delivery == KCF_DELIVERY_IMMEDIATE ? "immediate" : "commit", es);
	if (options->atomic)
		ExplainPropertyBool("Atomic", true, es);
}
