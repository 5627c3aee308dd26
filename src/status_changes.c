/*
 * status_changes.c
 *		kafka_cache.changes and wait_for_change: what has become of a table since a position.
 *
 * An answer is complete or there is none. Deletions are forgotten some time, and a load knows only those that the log
 * still had: positions from before that are too old (72000). A position that the table has not reached speaks of records
 * that may never come, where the topic was made anew: it is waited for, and then refused likewise.
 */
#include "postgres.h"

#include "status.h"

#include "catalog.h"
#include "changes.h"
#include "compat.h"
#include "guc.h"
#include "rowmap.h"
#include "rowmap_keytext.h"
#include "snapshot.h"

#include "access/sysattr.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(kafka_cache_changes);
PG_FUNCTION_INFO_V1(kafka_cache_wait_for_change);

#define NCOLUMNS 5

typedef struct Changes
{
	Tuplestorestate *store;
	TupleDesc desc;
	KcfRowWriter *writer;
	MemoryContext per_row;
	KcfSnapshot *snapshot;
	const volatile bool *lost;
} Changes;

/* ---- positions ---- */

/* Has the table not come so far? Of a partition that is not there nothing has been passed. */
static bool
is_ahead(KcfTable *table, const KcfPosition *position)
{
	bool ahead;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	ahead = !kcf_table_shows_followed(table);
	for (int i = 0; i < position->n && !ahead; i++)
	{
		int32 partition = position->parts[i].partition;
		int64 passed = -1;

		if (partition < table->followed.n)
			passed = (int64) pg_atomic_read_u64(&table->followed.array[partition].next) - 1;
		ahead = position->parts[i].offset > passed;
	}
	LWLockRelease(kcf_registry_lock);
	return ahead;
}

/* Also where there is nothing to read any more: that is said by who reads. */
static bool
has_come(Oid relid, void *position)
{
	KcfTable *table = kcf_status_readable(relid);

	return table == NULL || !is_ahead(table, position);
}

/* Has a record of one of its partitions come after it? */
static bool
has_moved(Oid relid, void *arg)
{
	const KcfPosition *position = arg;
	KcfTable *table = kcf_status_readable(relid);
	bool moved = false;

	if (table == NULL)
		return false;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (kcf_table_shows_followed(table))
	{
		for (int i = 0; i < position->n && !moved; i++)
		{
			int32 partition = position->parts[i].partition;

			moved = partition < table->followed.n &&
					(int64) pg_atomic_read_u64(&table->followed.array[partition].next) - 1 >
						position->parts[i].offset;
		}
	}
	LWLockRelease(kcf_registry_lock);
	return moved;
}

/* Partitions that are not there hold nothing, and their numbers may be large: none is left beyond what is known. */
static void
read_since(KcfTable *table, const KcfPosition *position, KcfSince *since)
{
	int n;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	n = table->followed.n;
	LWLockRelease(kcf_registry_lock);
	since->n = n;
	since->next = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		since->next[i] = -1;
	for (int i = 0; i < position->n; i++)
	{
		if (position->parts[i].partition < n)
			since->next[position->parts[i].partition] =
				Min(position->parts[i].offset, PG_INT64_MAX - 1) + 1;
	}
}

#define READ_AFRESH                                                                                \
	"Read the table afresh, and go on from what kafka_cache.position() said before that."

pg_noreturn static void
report_ahead(Oid relid)
{
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE('7', '2', '0', '0', '0')),
			 errmsg("position is ahead of cached table \"%s\"", get_rel_name(relid)),
			 errdetail(
				 "The table has not reached it within \"kafka_cache.wait_timeout\": it is behind, "
				 "or its topic was made anew."),
			 errhint(READ_AFRESH)));
}

pg_noreturn static void
report_too_old(Oid relid)
{
	ereport(ERROR, (errcode(MAKE_SQLSTATE('7', '2', '0', '0', '0')),
					errmsg("position of cached table \"%s\" is too old", get_rel_name(relid)),
					errdetail("What was deleted since then is not remembered completely."),
					errhint(READ_AFRESH)));
}

/* ---- changes ---- */

static void
receive(void *arg, const KcfRow *row)
{
	Changes *changes = arg;
	MemoryContext old;
	Datum values[NCOLUMNS];
	bool nulls[NCOLUMNS] = { false };

	kcf_snapshot_check(changes->snapshot, changes->lost);
	old = MemoryContextSwitchTo(changes->per_row);
	values[0] = CStringGetTextDatum(
		kcf_tuple_key_text(changes->writer, kcf_row_tuple(row), row->tuple_len));
	values[1] = BoolGetDatum((kcf_row_flags(row) & KCF_ROW_TOMBSTONE) != 0);
	values[2] = Int32GetDatum(row->partition);
	values[3] = Int64GetDatum(row->offset);
	nulls[4] = !kcf_rowmap_time(row->timestamp, &values[4]);
	tuplestore_putvalues(changes->store, changes->desc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(changes->per_row);
}

/* The state that the rest of the statement sees. */
static KcfSnapshot *
acquire_state(EState *estate, Oid relid)
{
	return estate ? kcf_snapshot_acquire_for(estate, relid) : kcf_snapshot_acquire_relation(relid);
}

/* ... and that is not before the position, unless it stands already. */
static KcfSnapshot *
acquire(EState *estate, Oid relid, KcfPosition *position)
{
	KcfSnapshot *snapshot = acquire_state(estate, relid);

	if (has_come(relid, position))
		return snapshot;
	/* Nothing is held while we wait, so that what is found then can be read. */
	kcf_snapshot_release(snapshot);
	if (!kcf_status_wait(relid, has_come, position, kcf_guc_wait_timeout))
		report_ahead(relid);
	return acquire_state(estate, relid);
}

/* Does the store answer completely for a state of it that has been pinned? */
static bool
is_complete(KcfTable *table, uint64 fingerprint, const KcfStore *store, const KcfSince *since)
{
	/* What is known of deletions is known of the contents served now. */
	return kcf_changes_complete(table, since) &&
		   kcf_table_store(table, fingerprint,
						   kcf_clock_published(table->database, table->clock)) == store;
}

/* changes(relation regclass, since jsonb) -> (key text, deleted bool, partition int, "offset" bigint, record_time timestamptz) */
Datum
kafka_cache_changes(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KcfPosition *position;
	KcfTableDef *def;
	KcfTable *table;
	KcfSince since;
	KcfView view;
	Changes changes;

	kcf_status_check(relid, false);
	/* As a scan has it: the definition stays what it is. */
	LockRelationOid(relid, AccessShareLock);
	kcf_status_check(relid, false);
	position = kcf_status_read_position(PG_GETARG_JSONB_P(1));
	kcf_status_check_keys(kcf_catalog_cached(relid));
	InitMaterializedSRF(fcinfo, 0);

	changes.snapshot = acquire(rsinfo->econtext->ecxt_estate, relid, position);
	changes.lost = kcf_snapshot_lost_flag(changes.snapshot);
	kcf_snapshot_view(changes.snapshot, relid, &view);
	table = kcf_table_find(MyDatabaseId, relid);
	if (view.store == NULL || view.partial || table == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cached table \"%s\" is not ready", get_rel_name(relid)),
						errdetail("Changes are known of what is loaded completely."),
						errhint("Wait for it with kafka_cache.wait_ready().")));
	def = kcf_catalog_cached(relid);
	read_since(table, position, &since);
	if (!is_complete(table, def->fingerprint, view.store, &since))
		report_too_old(relid);

	changes.store = rsinfo->setResult;
	changes.desc = rsinfo->setDesc;
	changes.writer = kcf_row_writer_create(def, CurrentMemoryContext);
	changes.per_row =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache changes", ALLOCSET_SMALL_SIZES);
	kcf_changes_scan(view.store, view.seq, &since, receive, &changes);
	kcf_snapshot_check(changes.snapshot, changes.lost);
	kcf_snapshot_release(changes.snapshot);
	return (Datum) 0;
}

/* wait_for_change(relation regclass, since jsonb, timeout interval): the position then, NULL: time is over. */
Datum
kafka_cache_wait_for_change(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	KcfPosition *since;
	Jsonb *position = NULL;

	kcf_status_check(relid, false);
	since = kcf_status_read_position(PG_GETARG_JSONB_P(1));
	if (kcf_status_wait(relid, has_moved, since, kcf_status_timeout(PG_GETARG_INTERVAL_P(2))))
		position = kcf_status_position(relid);
	if (position == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(position);
}
