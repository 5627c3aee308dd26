/*
 * status_wait.c
 *		kafka_cache.wait_ready, wait_for and reload: a table's readiness, and positions that are waited for.
 *
 * Whoever waits sleeps on the condition variable of the table; its consumer broadcasts when it has published something
 * of it, but only while somebody sleeps. No lock on the table is held meanwhile, so it can be altered or
 * dropped; its definition is looked at again each time.
 */
#include "postgres.h"

#include <math.h>

#include "status.h"

#include "catalog.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(kafka_cache_wait_ready);
PG_FUNCTION_INFO_V1(kafka_cache_wait_for);
PG_FUNCTION_INFO_V1(kafka_cache_reload);

#define FOREVER_MS ((int64) 100 * 365 * 24 * 3600 * 1000)

/* ---- waiting ---- */

KcfTable *
kcf_status_readable(Oid relid)
{
	KcfTable *table;
	KcfTableDef *def;
	KcfSeq seq;

	AcceptInvalidationMessages();
	def = kcf_catalog_cached(relid);
	table = kcf_table_find(MyDatabaseId, relid);
	if (table == NULL)
		return NULL;
	seq = kcf_clock_published(table->database, table->clock);
	return kcf_table_store(table, def->fingerprint, seq) ? table : NULL;
}

static bool
is_readable(Oid relid, void *arg)
{
	return kcf_status_readable(relid) != NULL;
}

/* Has the table passed this position? */
static bool
is_reached(Oid relid, void *arg)
{
	const KcfPosition *wanted = arg;
	KcfTable *table = kcf_status_readable(relid);
	bool reached;

	if (table == NULL)
		return false;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	reached = kcf_table_shows_followed(table);
	for (int i = 0; i < wanted->n && reached; i++)
	{
		int32 partition = wanted->parts[i].partition;

		reached = partition < table->followed.n &&
				  (int64) pg_atomic_read_u64(&table->followed.array[partition].next) >
					  wanted->parts[i].offset;
	}
	LWLockRelease(kcf_registry_lock);
	return reached;
}

static void
check_listed(void)
{
	if (!kcf_status_is_listed())
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cached tables of this database are not kept"),
			 errhint("Add the database to kafka_cache.databases and reload the configuration.")));
}

/* What is slept on: the table, or its database where no consumer has met it yet. */
typedef struct Bed
{
	KcfTable *table;
	int database;
} Bed;

static Bed
prepare(Oid relid)
{
	Bed bed = { kcf_table_find(MyDatabaseId, relid), kcf_my_database() };

	if (bed.table)
		kcf_wait_prepare_table(bed.table);
	else
		kcf_wait_prepare(bed.database);
	return bed;
}

/* Is it still the one that tells of this table? */
static bool
is_right(const Bed *bed, Oid relid)
{
	return kcf_table_find(MyDatabaseId, relid) == bed->table &&
		   (bed->table || kcf_my_database() == bed->database);
}

bool
kcf_status_wait(Oid relid, KcfStatusFact fact, void *arg, int64 timeout_ms)
{
	instr_time start;
	Bed bed;
	bool in_time = true;
	bool true_now;

	check_listed();
	INSTR_TIME_SET_CURRENT(start);
	if (kcf_status_readable(relid) == NULL)
		kcf_database_look(MyDatabaseId);
	bed = prepare(relid);
	/* What became true with the last tick counts. */
	while (!(true_now = fact(relid, arg)) && in_time)
	{
		instr_time now;
		int64 left;
		long ms;

		if (!is_right(&bed, relid))
		{
			kcf_wait_cancel(bed.database);
			bed = prepare(relid);
			continue;
		}
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = timeout_ms - (int64) INSTR_TIME_GET_MILLISEC(now);
		ms = (long) Min(left, PG_INT32_MAX);
		in_time =
			bed.table ? kcf_wait_sleep_table(bed.table, ms) : kcf_wait_sleep(bed.database, ms);
		in_time |= left > PG_INT32_MAX;
	}
	kcf_wait_cancel(bed.database);
	return true_now;
}

int64
kcf_status_timeout(const Interval *interval)
{
	double ms = interval->time / 1000.0 +
				(interval->day + (double) interval->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

	return ms <= 0 ? 0 : ms >= (double) FOREVER_MS ? FOREVER_MS : (int64) ceil(ms);
}

bool
kcf_status_wait_position(Oid relid, const KcfPosition *position, int64 timeout_ms)
{
	return kcf_status_wait(relid, is_reached, (void *) position, timeout_ms);
}

/* wait_ready(relation regclass, timeout interval) */
Datum
kafka_cache_wait_ready(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);

	kcf_status_check(relid, false);
	PG_RETURN_BOOL(
		kcf_status_wait(relid, is_readable, NULL, kcf_status_timeout(PG_GETARG_INTERVAL_P(1))));
}

/* wait_for(relation regclass, position jsonb, timeout interval) */
Datum
kafka_cache_wait_for(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);

	kcf_status_check(relid, false);
	PG_RETURN_BOOL(kcf_status_wait_position(relid, kcf_status_read_position(PG_GETARG_JSONB_P(1)),
											kcf_status_timeout(PG_GETARG_INTERVAL_P(2))));
}

/* reload(relation regclass): again from the log; what is there serves meanwhile. */
Datum
kafka_cache_reload(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	KcfTable *table;

	kcf_status_check(relid, true);
	table = kcf_table_find(MyDatabaseId, relid);
	/* One that the consumer has not met yet will be read from the start anyway. */
	if (table)
		pg_atomic_fetch_add_u32(&table->reload_wanted, 1);
	kcf_database_wake(MyDatabaseId);
	PG_RETURN_VOID();
}
