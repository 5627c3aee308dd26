/*
 * rules_drop.c
 *		What becomes of a rule when its product or its source is dropped: it goes with it.
 *
 * The rules are rows of a table that no dependency leads to. So the drop of a relation deletes its rules, in the same
 * transaction; the triggers of sources that are none any more go when the command is over.
 */
#include "postgres.h"

#include "rules_internal.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static object_access_hook_type prev_object_access = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;

/* Sources of rules that went, in the command that runs. */
static List *left = NIL;
static bool deleting = false;

static bool
is_in_rules(Oid relid)
{
	ListCell *lc;

	foreach (lc, kcf_rules_cached())
	{
		const KcfRule *rule = lfirst(lc);

		if (rule->product == relid || rule->source == relid)
			return true;
	}
	return false;
}

/* Both tables begin with product and source. */
static void
delete_rows(const char *table, Oid relid, bool note_sources)
{
	Oid rules = kcf_rules_table(table);
	Relation rel = OidIsValid(rules) ? try_relation_open(rules, RowExclusiveLock) : NULL;
	TableScanDesc scan;
	Snapshot snapshot;
	HeapTuple tuple;

	if (rel == NULL)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool isnull;
		Oid product = DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
		Oid source = DatumGetObjectId(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));

		if (product != relid && source != relid)
			continue;
		simple_heap_delete(rel, &tuple->t_self);
		if (note_sources && source != relid)
		{
			MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

			left = list_append_unique_oid(left, source);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (note_sources)
		CacheInvalidateRelcache(rel);
	table_close(rel, RowExclusiveLock);
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, sub, arg);
	if (access != OAT_DROP || class != RelationRelationId || sub != 0 || deleting ||
		!OidIsValid(MyDatabaseId) || !is_in_rules(object))
		return;
	deleting = true;
	PG_TRY();
	{
		delete_rows("refresh_rules", object, true);
		delete_rows("refresh_positions", object, false);
	}
	PG_FINALLY();
	{
		deleting = false;
	}
	PG_END_TRY();
	kcf_rules_tell_at_commit();
}

static void
tidy_triggers(void)
{
	List *sources = left;
	ListCell *lc;

	left = NIL;
	CommandCounterIncrement();
	foreach (lc, sources)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != '\0')
			kcf_rules_drop_triggers(lfirst_oid(lc));
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
				DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	if (left != NIL)
	{
		if (IsTransactionState())
			tidy_triggers();
		left = NIL;
	}
}

/* It was the transaction's memory. An error may have left it. */
static void
at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		left = NIL;
}

void
kcf_rules_drop_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
