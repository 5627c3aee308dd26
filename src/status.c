/*
 * status.c
 *		The views kafka_cache.tables, partitions and errors.
 *
 * Their rows are the tables of the catalog, so one that no consumer has met yet is there too. Rows are left out
 * for those who have no right on the table. A row is copied under the shared registry lock, which keeps slots,
 * stores and arrays where they are; counters are read whole.
 */
#include "postgres.h"

#include "status.h"

#include "compat.h"
#include "errlog.h"
#include "guc.h"
#include "rowmap.h"

#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A consumer with tables turns once a second, or something has stopped it. */
#define CONSUMER_SILENT INT64CONST(5000000)

PG_FUNCTION_INFO_V1(kafka_cache_tables);
PG_FUNCTION_INFO_V1(kafka_cache_partitions);
PG_FUNCTION_INFO_V1(kafka_cache_errors);

/* ---- rights ---- */

bool
kcf_status_is_monitor(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/* Any column will do: what is shown is not about columns. */
static bool
may_select(Oid relid)
{
	Oid user = GetUserId();

	return pg_class_aclcheck(relid, user, ACL_SELECT) == ACLCHECK_OK ||
		   pg_attribute_aclcheck_all(relid, user, ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK;
}

KcfSight
kcf_status_sight(Oid relid)
{
	/* Dropped since the list of tables was made: the questions below would be errors. */
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return KCF_SEE_NOTHING;
	if (kcf_status_is_monitor() || kcf_owns_relation(relid, GetUserId()))
		return KCF_SEE_ALL;
	return may_select(relid) ? KCF_SEE_NUMBERS : KCF_SEE_NOTHING;
}

void
kcf_status_check(Oid relid, bool owner)
{
	char *name = get_rel_name(relid);

	kcf_registry_check();
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if (owner ? !kcf_owns_relation(relid, GetUserId()) : !may_select(relid))
		aclcheck_error(owner ? ACLCHECK_NOT_OWNER : ACLCHECK_NO_PRIV,
					   get_relkind_objtype(get_rel_relkind(relid)), name);
	if (!kcf_catalog_is_ours(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a cached table", name),
				 errdetail("It is not a foreign table of the wrapper kafka_cache_fdw.")));
}

AttrNumber
kcf_status_hidden_key(const KcfTableDef *def)
{
	if (pg_class_aclcheck(def->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		return InvalidAttrNumber;
	for (int i = 0; i < def->key.nkeys; i++)
	{
		AttrNumber attnum = def->key.keys[i].attnum;

		if (pg_attribute_aclcheck(def->relid, attnum, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			return attnum;
	}
	return InvalidAttrNumber;
}

void
kcf_status_check_keys(const KcfTableDef *def)
{
	AttrNumber hidden = kcf_status_hidden_key(def);

	if (hidden != InvalidAttrNumber)
		aclcheck_error_col(ACLCHECK_NO_PRIV, OBJECT_COLUMN, get_rel_name(def->relid),
						   get_attname(def->relid, hidden, false));
}

/* ---- kafka_cache.tables ---- */

bool
kcf_status_is_listed(void)
{
	return kcf_guc_database_listed(get_database_name(MyDatabaseId));
}

const char *
kcf_status_state(const KcfTable *table, bool listed, const char **text)
{
	int database = kcf_my_database();
	const KcfWorker *worker = NULL;
	KcfTableState state;

	if (database >= 0)
		worker = &kcf_database(database)->workers[table ? table->clock : 0];
	if (table == NULL)
	{
		if (!listed)
			*text = "the database is not in kafka_cache.databases";
		else if (worker && worker->pid == 0 && worker->text[0])
			*text = worker->text;
		else if (kcf_table_count() == kcf_guc_max_tables)
			*text = "kafka_cache.max_tables is reached";
		else if (worker == NULL || worker->pid == 0)
			*text = "waiting for the database's consumer to start";
		else
			*text = "waiting for the consumer to notice the table";
		return kcf_table_state_name(KCF_TABLE_STARTING);
	}

	state = pg_atomic_read_u32(&((KcfTable *) table)->state);
	*text = table->text;
	/* The process that would know better is not there, or does not get round to saying it. */
	if (worker == NULL || worker->pid == 0)
	{
		state = KCF_TABLE_STOPPED;
		*text = worker && worker->text[0] ? worker->text : "the consumer is not running";
	}
	else if (kcf_moment_now() -
				 (KcfMoment) pg_atomic_read_u64(&kcf_database(database)->turned_at[table->clock]) >
			 CONSUMER_SILENT)
	{
		if (state == KCF_TABLE_READY)
			state = KCF_TABLE_STALLED;
		*text = "its consumer process is there, but has done nothing for some seconds";
	}
	return kcf_table_state_name(state);
}

/* Sum of the offsets between position and end; false: the end of a partition is not known. */
static bool
get_lag(const KcfPartitions *partitions, int64 *lag)
{
	*lag = 0;
	for (int i = 0; i < partitions->n; i++)
	{
		KcfPartition *p = &partitions->array[i];
		uint64 high = pg_atomic_read_u64(&p->high);
		uint64 next = pg_atomic_read_u64(&p->next);

		if (high == PG_UINT64_MAX)
			return false;
		if (high > next)
			*lag += high - next;
	}
	return partitions->n > 0;
}

/* How much of the way from start to target has been gone, in offsets over all partitions. */
static double
get_progress(const KcfPartitions *partitions)
{
	double done = 0;
	double all = 0;

	for (int i = 0; i < partitions->n; i++)
	{
		KcfPartition *p = &partitions->array[i];
		uint64 start = pg_atomic_read_u64(&p->start);
		uint64 target = pg_atomic_read_u64(&p->target);
		uint64 next = Max(pg_atomic_read_u64(&p->next), start);

		if (target == PG_UINT64_MAX)
			return 0;
		if (target > start)
		{
			all += target - start;
			done += Min(next, target) - start;
		}
	}
	return partitions->n == 0 ? 0 : all == 0 ? 1 : done / all;
}

double
kcf_status_progress(KcfTable *table)
{
	return kcf_table_is_served(table) && table->load.n == 0 ? 1 : get_progress(&table->load);
}

static Datum
interval_of(int64 us)
{
	Interval *span = palloc0(sizeof(Interval));

	span->time = us;
	return IntervalPGetDatum(span);
}

typedef struct TableRow
{
	char topic[sizeof(((KcfTable *) 0)->topic)];
	char text[sizeof(((KcfTable *) 0)->text)];
	const char *state;
	bool ready;
	bool lag_known;
	int64 lag;
	int64 bytes;
	double progress;
	int64 staleness; /* -1: unknown */
	uint64 loaded_at;
	KcfCounters counters;
	KcfStoreStats stats;
} TableRow;

static void
copy_table(Oid relid, bool listed, TableRow *row)
{
	KcfTable *table;
	const char *text;

	memset(row, 0, sizeof(TableRow));
	row->staleness = -1;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	table = kcf_table_find(MyDatabaseId, relid);
	row->state = kcf_status_state(table, listed, &text);
	strlcpy(row->text, text, sizeof(row->text));
	if (table)
	{
		KcfStore *store = table->gens[0].store ? table->gens[0].store : table->loading;

		strlcpy(row->topic, table->topic, sizeof(row->topic));
		row->ready = kcf_table_is_served(table);
		row->lag_known = get_lag(row->ready ? &table->followed : &table->load, &row->lag);
		row->progress = kcf_status_progress(table);
		row->bytes = pg_atomic_read_u64(&table->account.bytes);
		row->staleness = kcf_table_staleness(table);
		row->loaded_at = pg_atomic_read_u64(&table->loaded_at);
		kcf_table_counters(table, &row->counters);
		if (store)
			kcf_store_stats(store, &row->stats);
	}
	LWLockRelease(kcf_registry_lock);
}

Datum
kafka_cache_tables(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool listed = kcf_status_is_listed();
	ListCell *lc;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, kcf_catalog_tables())
	{
		Oid relid = lfirst_oid(lc);
		KcfSight sight = kcf_status_sight(relid);
		TableRow row;
		Datum values[19];
		bool nulls[19] = { false };
		int i = 0;

		if (sight == KCF_SEE_NOTHING)
			continue;
		copy_table(relid, listed, &row);

		values[i++] = ObjectIdGetDatum(relid);
		nulls[i] = row.topic[0] == '\0';
		values[i++] = CStringGetTextDatum(row.topic);
		values[i++] = CStringGetTextDatum(row.state);
		values[i++] = BoolGetDatum(row.ready);
		values[i++] = Int64GetDatum(row.stats.entries);
		values[i++] = Int64GetDatum(row.bytes);
		values[i++] = Int64GetDatum(row.counters.records);
		values[i++] = Int64GetDatum(row.counters.upserts);
		values[i++] = Int64GetDatum(row.counters.tombstones);
		values[i++] = Int64GetDatum(row.counters.errors);
		values[i++] = Int64GetDatum(row.counters.ignored);
		nulls[i] = !row.lag_known;
		values[i++] = Int64GetDatum(row.lag);
		nulls[i] = row.staleness < 0;
		values[i++] = interval_of(row.staleness);
		values[i++] = Float8GetDatum(row.progress);
		nulls[i] = row.loaded_at == 0;
		values[i++] = TimestampTzGetDatum((TimestampTz) row.loaded_at);
		values[i++] = Int64GetDatum(row.stats.cross_partition_keys);
		values[i++] = Int64GetDatum(row.stats.key_spellings);
		values[i++] = Int64GetDatum(row.counters.reloads);
		nulls[i] = sight != KCF_SEE_ALL || row.text[0] == '\0';
		values[i++] = CStringGetTextDatum(row.text);
		Assert(i == lengthof(values));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- kafka_cache.partitions ---- */

/* An end as Kafka gives it is the offset after the last record; ours are those of records. */
static void
put_end(Datum *value, bool *isnull, uint64 end)
{
	*isnull = end == PG_UINT64_MAX;
	*value = Int64GetDatum((int64) end - 1);
}

Datum
kafka_cache_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *lc;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, kcf_catalog_tables())
	{
		Oid relid = lfirst_oid(lc);
		KcfTable *table;
		KcfPartition *copy;
		bool served;
		int n;

		if (kcf_status_sight(relid) == KCF_SEE_NOTHING)
			continue;
		table = kcf_table_find(MyDatabaseId, relid);
		if (table == NULL)
			continue;
		copy = kcf_table_partitions(table, relid, &served, &n);

		for (int i = 0; i < n; i++)
		{
			Datum values[7];
			bool nulls[7] = { false };
			uint64 next = pg_atomic_read_u64(&copy[i].next);
			uint64 high = pg_atomic_read_u64(&copy[i].high);

			values[0] = ObjectIdGetDatum(relid);
			values[1] = Int32GetDatum(i);
			values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&copy[i].low));
			put_end(&values[3], &nulls[3], next);
			put_end(&values[4], &nulls[4], pg_atomic_read_u64(&copy[i].target));
			put_end(&values[5], &nulls[5], high);
			nulls[6] = nulls[5];
			values[6] = Int64GetDatum(high > next ? (int64) (high - next) : 0);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
		pfree(copy);
		CHECK_FOR_INTERRUPTS();
	}
	return (Datum) 0;
}

/* ---- kafka_cache.errors ---- */

/* Kafka's milliseconds; false: none, or beyond what we can show. */
static bool
record_time(int64 ms, TimestampTz *time)
{
	const int64 epoch_ms = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;

	if (ms < 0 || ms > (PG_INT64_MAX / 1000))
		return false;
	*time = (ms - epoch_ms) * 1000;
	return IS_VALID_TIMESTAMP(*time);
}

/* Nothing is allocated under the lock: there may be a million of them. */
static KcfErrorEntry *
copy_errors(Oid relid, int *n)
{
	KcfErrorEntry *entries = NULL;
	int room = 0;

	for (;;)
	{
		KcfTable *table;

		LWLockAcquire(kcf_registry_lock, LW_SHARED);
		table = kcf_table_find(MyDatabaseId, relid);
		*n = table && table->errors ? kcf_errlog_read(table->errors, entries, room) : 0;
		LWLockRelease(kcf_registry_lock);
		if (*n <= room)
			return entries;
		CHECK_FOR_INTERRUPTS();
		if (entries)
			pfree(entries);
		room = *n + *n / 8; /* more may come meanwhile */
		entries = palloc(room * sizeof(KcfErrorEntry));
	}
}

Datum
kafka_cache_errors(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *lc;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, kcf_catalog_tables())
	{
		Oid relid = lfirst_oid(lc);
		KcfSight sight = kcf_status_sight(relid);
		KcfErrorEntry *entries;
		int n;

		if (sight == KCF_SEE_NOTHING)
			continue;
		entries = copy_errors(relid, &n);

		for (int i = 0; i < n; i++)
		{
			const KcfErrorEntry *entry = &entries[i];
			Datum values[8];
			bool nulls[8] = { false };
			TimestampTz time = 0;
			char *column = entry->column > 0 ? get_attname(relid, entry->column, true) : NULL;
			NameData name;

			values[0] = ObjectIdGetDatum(relid);
			values[1] = Int32GetDatum(entry->partition);
			values[2] = Int64GetDatum(entry->offset);
			nulls[3] = !record_time(entry->timestamp, &time);
			values[3] = TimestampTzGetDatum(time);
			values[4] = CStringGetTextDatum(kcf_reason_name(entry->reason));
			nulls[5] = column == NULL;
			namestrcpy(&name, column ? column : "");
			values[5] = NameGetDatum(&name);
			nulls[6] = sight != KCF_SEE_ALL || entry->text[0] == '\0';
			values[6] = CStringGetTextDatum(entry->text);
			values[7] = TimestampTzGetDatum(entry->noticed_at);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
		if (entries)
			pfree(entries);
		CHECK_FOR_INTERRUPTS();
	}
	return (Datum) 0;
}
