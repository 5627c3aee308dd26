/*
 * snapshot_wait.c
 *		Can the tables of a statement be read? Waiting until they can, and saying why not.
 *
 * A join waits for all of its tables before its state is fixed: a table that became ready after the state was
 * taken has nothing in it.
 */
#include "postgres.h"

#include "snapshot_wait.h"

#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "registry.h"
#include "written.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

typedef bool (*Visit)(Oid relid, void *arg);

typedef struct Walk
{
	const KcfScope *scope;
	KcfScopeVisit visit;
	void *arg;
	Oid stopped_at;
} Walk;

static bool visit_plan(Walk *walk, Plan *plan);

static bool
visit_plans(Walk *walk, List *plans)
{
	ListCell *lc;

	foreach (lc, plans)
	{
		if (!visit_plan(walk, lfirst(lc)))
			return false;
	}
	return true;
}

static bool
visit_scan(Walk *walk, ForeignScan *scan)
{
	Oid relid;

	if (scan->scan.scanrelid == 0)
		return true;
	relid = rt_fetch(scan->scan.scanrelid, walk->scope->estate->es_range_table)->relid;
	if (!kcf_catalog_is_ours(relid) || walk->visit(relid, walk->arg))
		return true;
	walk->stopped_at = relid;
	return false;
}

/*
 * The scans of the plan, not the tables of the query: one whose join was removed is not read, nor is
 * the target of an INSERT.
 */
static bool
visit_plan(Walk *walk, Plan *plan)
{
	if (plan == NULL)
		return true;
	switch (nodeTag(plan))
	{
		case T_ForeignScan:
			if (!visit_scan(walk, (ForeignScan *) plan))
				return false;
			break;
		case T_Append:
			return visit_plans(walk, ((Append *) plan)->appendplans);
		case T_MergeAppend:
			return visit_plans(walk, ((MergeAppend *) plan)->mergeplans);
		case T_SubqueryScan:
			return visit_plan(walk, ((SubqueryScan *) plan)->subplan);
		case T_CustomScan:
			if (!visit_plans(walk, ((CustomScan *) plan)->custom_plans))
				return false;
			break;
		default:
			break;
	}
	return visit_plan(walk, plan->lefttree) && visit_plan(walk, plan->righttree);
}

Oid
kcf_scope_visit(const KcfScope *scope, KcfScopeVisit visit, void *arg)
{
	Walk walk = { scope, visit, arg, InvalidOid };

	if (OidIsValid(scope->relid) && !visit(scope->relid, arg))
		return scope->relid;
	if (scope->estate && visit_plan(&walk, scope->estate->es_plannedstmt->planTree))
		(void) visit_plans(&walk, scope->estate->es_plannedstmt->subplans);
	return walk.stopped_at;
}

/* ---- what is there ---- */

static KcfTable *
find_table(Oid relid)
{
	return kcf_table_find(MyDatabaseId, relid);
}

/* What a load in progress has so far, for kafka_cache.when_not_ready = partial. */
static KcfStore *
loading_store(KcfTable *table, uint64 fingerprint)
{
	KcfStore *store = NULL;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (table->loading_fingerprint == fingerprint)
		store = table->loading;
	LWLockRelease(kcf_registry_lock);
	return store;
}

bool
kcf_relation_view(Oid relid, const KcfSeq *seqs, KcfView *view)
{
	KcfTable *table = find_table(relid);
	uint64 fingerprint = kcf_catalog_cached(relid)->fingerprint;

	view->store = NULL;
	view->seq = 0;
	view->partial = false;
	if (table)
	{
		view->seq = seqs[table->clock];
		view->store = kcf_table_store(table, fingerprint, view->seq);
	}
	if (view->store)
		return true;
	if (kcf_guc_when_not_ready != KCF_NOT_READY_PARTIAL)
		return false;
	view->partial = true;
	if (table)
		view->store = loading_store(table, fingerprint);
	return true;
}

static bool
is_readable(Oid relid, void *seqs)
{
	KcfView view;

	return kcf_relation_view(relid, seqs, &view);
}

/* As if the state were taken now. */
static bool
is_served(Oid relid, void *unused)
{
	KcfTable *table = find_table(relid);

	return table && kcf_table_store(table, kcf_catalog_cached(relid)->fingerprint,
									kcf_clock_published(table->database, table->clock));
}

/* ... or will be, when it is loaded: the consumer knows its definition. */
static bool
is_known(Oid relid, void *unused)
{
	KcfTable *table = find_table(relid);

	return is_served(relid, NULL) ||
		   (table && loading_store(table, kcf_catalog_cached(relid)->fingerprint));
}

char *
kcf_relation_position(Oid relid)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, relid);
	KcfPartition *partitions;
	StringInfoData buf;
	bool served;
	int n;

	if (table == NULL)
		return NULL;
	partitions = kcf_table_partitions(table, relid, &served, &n);
	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s\"%d\": " INT64_FORMAT, i > 0 ? ", " : "", i,
						 (int64) pg_atomic_read_u64(&partitions[i].next) - 1);
	appendStringInfoChar(&buf, '}');
	pfree(partitions);
	return buf.data;
}

/* ---- staleness ---- */

static bool
is_fresh(Oid relid, void *unused)
{
	KcfTable *table = find_table(relid);
	int64 staleness = table ? kcf_table_staleness(table) : -1;

	return staleness >= 0 && staleness / 1000 <= kcf_guc_max_staleness;
}

static void
check_staleness(const KcfScope *scope)
{
	int64 staleness;
	Oid relid;

	if (kcf_guc_max_staleness <= 0)
		return;
	relid = kcf_scope_visit(scope, is_fresh, NULL);
	if (!OidIsValid(relid))
		return;
	staleness = find_table(relid) ? kcf_table_staleness(find_table(relid)) : -1;
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("cached table \"%s\" is too stale", get_rel_name(relid)),
					staleness < 0 ? errdetail("It has not reached the end of its topic yet.")
								  : errdetail("It was last known to be at the end of its topic %ld "
											  "ms ago, \"kafka_cache.max_staleness\" is %d ms.",
											  (long) (staleness / 1000), kcf_guc_max_staleness),
					errhint("See kafka_cache.tables for its state.")));
}

/* ---- why not ---- */

static bool
created_here(Oid relid)
{
	Relation rel = relation_open(relid, NoLock);
	bool here = rel->rd_createSubid != InvalidSubTransactionId;

	relation_close(rel, NoLock);
	return here;
}

/*
 * Served, but not as we see it, since this transaction has altered it: nobody else sees that before it commits. Who
 * has not altered it does not have this lock.
 */
static bool
altered_here(Oid relid, KcfTable *table)
{
	Relation rel;
	bool here;

	if (pg_atomic_read_u32(&table->state) != KCF_TABLE_READY)
		return false;
	rel = relation_open(relid, NoLock);
	here = CheckRelationLockedByMe(rel, AccessExclusiveLock, false);
	relation_close(rel, NoLock);
	return here;
}

/* How much of the load in progress is done, in percent; -1: not known. */
static int
percent_loaded(KcfTable *table)
{
	double done = 0;
	double all = 0;
	bool known = true;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	for (int i = 0; i < table->load.n; i++)
	{
		KcfPartition *p = &table->load.array[i];
		uint64 start = pg_atomic_read_u64(&p->start);
		uint64 next = Max(pg_atomic_read_u64(&p->next), start);
		uint64 target = pg_atomic_read_u64(&p->target);

		if (target == PG_UINT64_MAX)
			known = false;
		else if (target > start)
		{
			done += Min(next, target) - start;
			all += target - start;
		}
	}
	LWLockRelease(kcf_registry_lock);
	return known && all > 0 ? (int) (100 * done / all) : -1;
}

static const char *
hint_for(KcfTableState state)
{
	switch (state)
	{
		case KCF_TABLE_CONNECTING:
			return "Check the server's option \"brokers\" and that the brokers can be reached.";
		case KCF_TABLE_TOPIC_MISSING:
			return "Create the topic, or correct the table's option \"topic\".";
		case KCF_TABLE_AUTH_FAILED:
			return "Correct the credentials in the user mapping of the table's owner, or the "
				   "rights of that user.";
		case KCF_TABLE_WAITING_FOR_TRANSACTION:
			return "The topic ends in a Kafka transaction that is still open.";
		case KCF_TABLE_FULL:
			return "Raise \"kafka_cache.memory\", or the table's option \"max_bytes\".";
		case KCF_TABLE_FAILED:
		case KCF_TABLE_STOPPED:
			return "See kafka_cache.tables, kafka_cache.workers and the server's log.";
		default:
			return "Wait with kafka_cache.wait_ready(), raise \"kafka_cache.wait_timeout\", "
				   "or set \"kafka_cache.when_not_ready\" to read what is there.";
	}
}

pg_noreturn static void
report_not_ready(Oid relid)
{
	KcfTable *table = find_table(relid);
	const char *name = get_rel_name(relid);
	KcfTableState state;
	char text[sizeof(table->text)];
	int percent;

	if (table == NULL)
	{
		if (created_here(relid))
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("cached table \"%s\" is not ready", name),
							errdetail("It was created in this transaction."),
							errhint("Loading begins when the transaction is committed.")));
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cached table \"%s\" is not ready", name),
						errdetail("No process has begun to load it."),
						errhint("Check that \"kafka_cache.databases\" includes this database, and "
								"see kafka_cache.workers and the server's log.")));
	}

	if (altered_here(relid, table))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cached table \"%s\" is not ready", name),
						errdetail("It was altered in this transaction."),
						errhint("It can be read again when the transaction is committed.")));
	state = pg_atomic_read_u32(&table->state);
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	strlcpy(text, table->text, sizeof(text));
	LWLockRelease(kcf_registry_lock);
	/* Words may name brokers: as in the views, they are for the owner and for monitors. */
	if (!kcf_owns_relation(relid, GetUserId()) && !has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		text[0] = '\0';
	/* They may end with a detail, which is a sentence: its full stop is ours to write. */
	if (text[0] && text[strlen(text) - 1] == '.')
		text[strlen(text) - 1] = '\0';
	percent = state == KCF_TABLE_LOADING ? percent_loaded(table) : -1;
	ereport(ERROR,
			(errcode(state == KCF_TABLE_FULL ? ERRCODE_OUT_OF_MEMORY
											 : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 state == KCF_TABLE_FULL ? errmsg("cached table \"%s\" did not fit into memory", name)
									 : errmsg("cached table \"%s\" is not ready", name),
			 percent >= 0 ? errdetail("Its state is \"%s\": %d%% of its records are loaded.",
									  kcf_table_state_name(state), percent)
			 : text[0]    ? errdetail("Its state is \"%s\": %s.", kcf_table_state_name(state), text)
			 : state == KCF_TABLE_READY
				 ? errdetail("Its definition has changed, and it is not loaded anew yet.")
				 : errdetail("Its state is \"%s\".", kcf_table_state_name(state)),
			 errhint("%s", hint_for(state))));
}

/* ---- waiting ---- */

/* Would waiting be in vain? */
static bool
is_hopeless(Oid relid)
{
	KcfTable *table = find_table(relid);

	if (table == NULL)
		return created_here(relid);
	return pg_atomic_read_u32(&table->state) == KCF_TABLE_FULL || altered_here(relid, table);
}

static void
wait_for_tables(const KcfScope *scope, Oid relid, TimestampTz *deadline)
{
	int database = kcf_my_database();
	bool in_time = true;

	if (*deadline == 0)
		*deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kcf_guc_wait_timeout);
	if (OidIsValid(kcf_scope_visit(scope, is_known, NULL)))
		kcf_database_look(MyDatabaseId);
	kcf_wait_prepare(database);
	while (OidIsValid(relid = kcf_scope_visit(scope, is_served, NULL)))
	{
		if (!in_time || is_hopeless(relid))
			report_not_ready(relid);
		if (kcf_my_database() != database)
		{
			/* Its place is new, or another one by now: looked at again before any sleep. */
			kcf_wait_cancel(database);
			database = kcf_my_database();
			kcf_wait_prepare(database);
		}
		else
			in_time = kcf_wait_sleep(
				database, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), *deadline));
		/* A server's options may have been altered: our locks do not cover them. */
		AcceptInvalidationMessages();
	}
	kcf_wait_cancel(database);
}

/* ---- what this session has written ---- */

/* Tables that a statement does not read itself are waited for no longer than this. */
#define OTHERS_WAIT_MS 1000

static const char *
topic_of(Oid relid)
{
	return kcf_catalog_cached(relid)->options->topic;
}

/* One that is not served is somebody else's business: it has been waited for, or is read as it is. */
static bool
has_written(Oid relid, void *unused)
{
	return kcf_written_passed(relid, topic_of(relid)) || !is_served(relid, NULL);
}

pg_noreturn static void
report_behind(Oid relid)
{
	int32 partition;
	int64 written;
	int64 position;

	if (!kcf_written_behind(relid, topic_of(relid), &partition, &written, &position))
		position = written = partition = -1;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cached table \"%s\" has not caught up with what this session has written",
					get_rel_name(relid)),
			 partition >= 0 ? errdetail("Partition %d is at offset %lld, this session has written "
										"offset %lld.",
										partition, (long long) position, (long long) written)
							: 0,
			 errhint("Raise \"kafka_cache.wait_timeout\", or turn \"kafka_cache.read_your_writes\" "
					 "off to read what is there.")));
}

typedef struct Held
{
	uint64 taken;
	bool fixed;
} Held;

static bool
is_held(Oid relid, void *arg)
{
	const Held *held = arg;

	return kcf_written_held(relid, topic_of(relid), held->taken, !held->fixed);
}

/* May code of a statement's functions read from its state? Those of the server itself do not. */
static bool
calls_functions(const KcfScope *scope)
{
	const PlannedStmt *stmt = scope->estate ? scope->estate->es_plannedstmt : scope->caller;
	ListCell *lc;

	if (stmt == NULL)
		return false;
	foreach (lc, stmt->invalItems)
	{
		if (((PlanInvalItem *) lfirst(lc))->cacheId == PROCOID)
			return true;
	}
	return false;
}

/*
 * The tables of the scope must have it, within the time given. Those that are not in it but may be read from the same
 * state later get a moment: it is better spent than in an error then, but they must not hold up who does not read
 * them.
 */
static void
wait_for_writes(const KcfScope *scope, bool shared, TimestampTz *deadline)
{
	bool others = shared && (IsolationUsesXactSnapshot() || calls_functions(scope));
	Oid relid = kcf_scope_visit(scope, has_written, NULL);
	TimestampTz now;
	TimestampTz others_deadline;
	int database;

	if (!OidIsValid(relid) && !(others && kcf_written_any_behind()))
		return;
	now = GetCurrentTimestamp();
	if (*deadline == 0)
		*deadline = TimestampTzPlusMilliseconds(now, kcf_guc_wait_timeout);
	others_deadline = Min(*deadline, TimestampTzPlusMilliseconds(now, OTHERS_WAIT_MS));
	database = kcf_my_database();
	kcf_wait_prepare(database);
	for (;;)
	{
		relid = kcf_scope_visit(scope, has_written, NULL);
		others = others && kcf_written_any_behind();
		if (!OidIsValid(relid) && !others)
			break;
		now = GetCurrentTimestamp();
		if (OidIsValid(relid) && (now >= *deadline || is_hopeless(relid)))
			report_behind(relid);
		if (others && now >= others_deadline)
		{
			kcf_written_give_up();
			others = false;
			continue;
		}
		if (kcf_my_database() != database)
		{
			kcf_wait_cancel(database);
			database = kcf_my_database();
			kcf_wait_prepare(database);
		}
		else
			(void) kcf_wait_sleep(
				database, TimestampDifferenceMilliseconds(
							  now, OidIsValid(relid) && !others ? *deadline : others_deadline));
		AcceptInvalidationMessages();
	}
	kcf_wait_cancel(database);
}

void
kcf_scope_check_written(const KcfScope *scope, uint64 taken, bool fixed)
{
	Held held = { .taken = taken, .fixed = fixed };
	Oid relid;

	if (!kcf_guc_read_your_writes)
		return;
	relid = kcf_scope_visit(scope, is_held, &held);
	if (!OidIsValid(relid))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("what this session has written to cached table \"%s\" is not part of this "
				"snapshot",
				get_rel_name(relid)),
		 errdetail("The snapshot of the cached tables had been taken before it came back."),
		 fixed ? errhint("Use READ COMMITTED, or turn \"kafka_cache.read_your_writes\" off to read "
						 "what the snapshot has.")
			   : errhint("Run the statement again, or turn \"kafka_cache.read_your_writes\" off to "
						 "read what the snapshot has.")));
}

/* ---- all of it ---- */

int
kcf_scope_wait(const KcfScope *scope, bool shared, TimestampTz *deadline)
{
	Oid relid;

	kcf_registry_check();
	relid = kcf_scope_visit(scope, is_served, NULL);
	if (OidIsValid(relid))
	{
		if (kcf_guc_when_not_ready == KCF_NOT_READY_ERROR)
			report_not_ready(relid);
		if (kcf_guc_when_not_ready == KCF_NOT_READY_WAIT)
			wait_for_tables(scope, relid, deadline);
	}
	if (unlikely(kcf_written_any) && kcf_guc_read_your_writes)
		wait_for_writes(scope, shared, deadline);
	check_staleness(scope);
	return kcf_my_database();
}

bool
kcf_scope_readable(const KcfScope *scope, const KcfSeq *seqs)
{
	return !OidIsValid(kcf_scope_visit(scope, is_readable, (void *) seqs));
}

void
kcf_scope_check(const KcfScope *scope, const KcfSeq *seqs)
{
	Oid relid = kcf_scope_visit(scope, is_readable, (void *) seqs);

	if (OidIsValid(relid))
	{
		if (!is_served(relid, NULL))
			report_not_ready(relid);
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cached table \"%s\" is not part of this snapshot", get_rel_name(relid)),
				 errdetail("It was loaded after the snapshot of the cached tables had been taken."),
				 errhint("Run the transaction again.")));
	}
	check_staleness(scope);
}
