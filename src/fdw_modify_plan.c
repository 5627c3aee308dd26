/*
 * fdw_modify_plan.c
 *		Planning INSERT, UPDATE and DELETE: what can be written at all, and what must be known of the old row.
 *
 * What can be refused is refused here, before anything runs. Options may change between planning and running only
 * by way of an invalidation, which has the statement planned again.
 */
#include "postgres.h"

#include "fdw.h"

#include "catalog_product.h"

#include "access/sysattr.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static planner_hook_type prev_planner = NULL;

/* ---- refusals ---- */

void
kcf_fdw_refuse_readonly(const KcfTableDef *def)
{
	if (def->options->readonly && !kcf_is_product(def))
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cached table \"%s\" is read-only", get_rel_name(def->relid)),
			 errhint(
				 "The table's option \"readonly\" must be \"false\" for it to be written to.")));
}

void
kcf_fdw_refuse_conflict(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("INSERT into cached table \"%s\" cannot have ON CONFLICT", get_rel_name(relid)),
			 errhint("INSERT overwrites the row of its key; leave the clause out.")));
}

/* The new value is the old document with changes, so that must be at hand. */
static bool
knows_documents(const KcfTableOptions *options, const KcfColumnOptions *columns, int natts)
{
	if (options->keep_value)
		return true;
	for (int i = 0; i < natts; i++)
	{
		if (columns[i].kind == KCF_COLUMN_VALUE)
			return true;
	}
	return false;
}

static void
check_update(const KcfTableDef *def)
{
	if (kcf_is_product(def))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot update data product \"%s\"", get_rel_name(def->relid)),
			 errhint(
				 "INSERT sets the row of a key, DELETE has it computed anew when it is read.")));
	if (!knows_documents(def->options, def->columns, def->desc->natts))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot update cached table \"%s\"", get_rel_name(def->relid)),
			 errdetail("The records may have members that no column shows, which an update would "
					   "lose."),
			 errhint("Set the table's option \"keep_value\" to \"true\", or give it a column with "
					 "OPTIONS (value 'true'). INSERT overwrites a row as a whole.")));
}

/*
 * The executor asks before it begins, also for COPY and for partitions; who is about to write has locked the table
 * for it. It is told that all is well, since its own words would not say what to do: what UPDATE needs was looked at
 * when it was planned, and a read-only table is refused, in ours, there and when the writing begins. Others ask for
 * the sake of information_schema, which must not fail, neither for a server whose options are no longer right nor
 * where the transaction has such a lock from before.
 */
int
kafkaCacheIsForeignRelUpdatable(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	TupleDesc desc = RelationGetDescr(rel);
	const KcfTableOptions *options;
	int events = 1 << CMD_INSERT | 1 << CMD_DELETE;

	if (CheckRelationLockedByMe(rel, RowExclusiveLock, false))
		return events | 1 << CMD_UPDATE;
	options = kcf_options_table(relid);
	if (options->compute)
		return events;
	if (options->readonly)
		return 0;
	if (knows_documents(options, kcf_options_columns(relid, desc->natts), desc->natts))
		events |= 1 << CMD_UPDATE;
	return events;
}

/* ---- callbacks ---- */

/* The row's place, by which its partition, its key's bytes and its document are found. */
void
kafkaCacheAddForeignUpdateTargets(PlannerInfo *root, Index rtindex, RangeTblEntry *target_rte,
								  Relation target_relation)
{
	Var *var = makeVar(rtindex, SelfItemPointerAttributeNumber, TIDOID, -1, InvalidOid, 0);

	add_row_identity_var(root, var, rtindex, "ctid");
}

List *
kafkaCachePlanForeignModify(PlannerInfo *root, ModifyTable *plan, Index resultRelation,
							int subplan_index)
{
	KcfTableDef *def = kcf_catalog_cached(planner_rt_fetch(resultRelation, root)->relid);

	kcf_fdw_refuse_readonly(def);
	if (plan->onConflictAction != ONCONFLICT_NONE)
		kcf_fdw_refuse_conflict(def->relid);
	if (plan->operation == CMD_UPDATE)
		check_update(def);
	return NIL;
}

/* ---- ON CONFLICT ---- */

static void
check_insert(const Query *query)
{
	const RangeTblEntry *rte;

	if (query->commandType != CMD_INSERT || query->onConflict == NULL)
		return;
	rte = rt_fetch(query->resultRelation, query->rtable);
	if (rte->relkind != RELKIND_FOREIGN_TABLE || !kcf_catalog_is_ours(rte->relid))
		return;
	kcf_fdw_refuse_readonly(kcf_catalog_cached(rte->relid));
	kcf_fdw_refuse_conflict(rte->relid);
}

/*
 * The planner looks for the unique index of an ON CONFLICT (…) before it asks us anything, and what it then says
 * would send people looking for an index.
 */
static PlannedStmt *
plan_statement(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	ListCell *lc;

	check_insert(parse);
	if (parse->hasModifyingCTE)
	{
		foreach (lc, parse->cteList)
			check_insert(castNode(Query, lfirst_node(CommonTableExpr, lc)->ctequery));
	}
	if (prev_planner)
		return prev_planner(parse, query_string, cursorOptions, boundParams);
	return standard_planner(parse, query_string, cursorOptions, boundParams);
}

void
kcf_fdw_modify_init(void)
{
	prev_planner = planner_hook;
	planner_hook = plan_statement;
}
