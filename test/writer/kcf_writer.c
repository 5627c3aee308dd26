/*
 * kcf_writer.c
 *		A writer without Kafka, for tests and measurements of reading.
 *
 * Does in a backend, by SQL, what a consumer does to the store: the same functions in the same order. The
 * database has no consumer (kafka_cache.databases), so these are its only writer; they exclude each other by an
 * advisory lock.
 */
#include "postgres.h"

#include "arena.h"
#include "catalog.h"
#include "guc.h"
#include "registry.h"
#include "store.h"

#include "access/htup_details.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(kcf_writer_fill);
PG_FUNCTION_INFO_V1(kcf_writer_begin_load);
PG_FUNCTION_INFO_V1(kcf_writer_put);
PG_FUNCTION_INFO_V1(kcf_writer_del);
PG_FUNCTION_INFO_V1(kcf_writer_spoil);
PG_FUNCTION_INFO_V1(kcf_writer_churn);
PG_FUNCTION_INFO_V1(kcf_writer_withdraw);
PG_FUNCTION_INFO_V1(kcf_writer_set_state);
PG_FUNCTION_INFO_V1(kcf_writer_set_at_end);
PG_FUNCTION_INFO_V1(kcf_writer_clean);
PG_FUNCTION_INFO_V1(kcf_writer_stats);
PG_FUNCTION_INFO_V1(kcf_writer_finish);

typedef enum What
{
	PUT,
	DEL,
	SPOIL
} What;

typedef struct Writer
{
	KcfTable *table;
	KcfTableDef *def;
	KcfStore *store;
	KcfStoreWriter *handle;
	KcfPartition *partition;
	int64 offset;
	int in_batch;
} Writer;

static KcfTable *
open_table(Oid relid)
{
	int database = kcf_my_database();
	LOCKTAG tag;
	KcfTable *table;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 4711, 2);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	/* As if a command held the consumers off for ever; finish() gives the database back. */
	if (database < 0)
		database = kcf_database_withdraw(MyDatabaseId, get_database_name(MyDatabaseId));
	if (database < 0 || kcf_database(database)->withdrawals == 0)
		elog(ERROR, "this database has a consumer");
	table = kcf_table_find(MyDatabaseId, relid);
	if (table == NULL)
	{
		KcfTableDef *def = kcf_catalog_cached(relid);

		table = kcf_table_create(MyDatabaseId, relid, database, 0);
		if (table == NULL)
			elog(ERROR, "too many tables");
		kcf_table_set_identity(table, def->owner, def->options->topic);
	}
	kcf_arena_attach();
	return table;
}

static KcfSeq
published(const Writer *w)
{
	return kcf_clock_published(w->table->database, w->table->clock);
}

static void
open_writer(Writer *w, Oid relid, bool new)
{
	w->table = open_table(relid);
	w->def = kcf_catalog_cached(relid);
	w->in_batch = 0;
	if (new)
	{
		w->store = kcf_store_create(&w->table->account);
		if (w->store == NULL)
			elog(ERROR, "no room for a store");
		kcf_table_load(w->table, w->store, w->def->fingerprint);
		if (!kcf_table_set_partitions(w->table, &w->table->load, 1))
			elog(ERROR, "no room for partitions");
		w->partition = &w->table->load.array[0];
		kcf_table_set_state(w->table, KCF_TABLE_LOADING, NULL);
	}
	else
	{
		w->store = kcf_table_store(w->table, w->def->fingerprint, published(w));
		if (w->store == NULL)
			elog(ERROR, "nothing is served");
		w->partition = &w->table->followed.array[0];
	}
	w->offset = (int64) pg_atomic_read_u64(&w->partition->next);
	w->handle = kcf_store_attach(w->store, &w->table->account, &w->def->key, CurrentMemoryContext);
	if (new)
		kcf_store_set_loading(w->handle, true);
}

static void
publish(Writer *w)
{
	int database = w->table->database;
	int clock = w->table->clock;
	KcfSeq seq = kcf_clock_publish(database, clock);

	pg_atomic_write_u64(&w->partition->next, w->offset);
	pg_atomic_write_u64(&w->partition->high, w->offset);
	(void) kcf_store_housekeep(w->handle, seq, kcf_pins_min(database, clock), 4 * w->in_batch);
	w->in_batch = 0;
	kcf_wait_broadcast(database);
}

static void
write_row(Writer *w, What what, Datum *values, bool *isnull)
{
	KcfSeq seq = published(w) + 1;
	KcfRowMeta meta = { .partition = 0, .offset = w->offset++, .timestamp = KCF_NO_TIMESTAMP };
	Datum key[KCF_MAX_KEYS];
	uint64 hash;
	KcfPut put;

	for (int i = 0; i < w->def->key.nkeys; i++)
		key[i] = values[w->def->key.keys[i].attnum - 1];
	hash = kcf_key_hash(&w->def->key, key);
	meta.flags = what == SPOIL ? KCF_ROW_ERROR : 0;
	if (what == DEL)
		put = kcf_store_delete(w->handle, seq, &meta, hash, key);
	else
		put = kcf_store_put(w->handle, seq, &meta, hash, key, values, isnull);
	if (put == KCF_PUT_FULL)
		elog(ERROR, "the table is full");
	w->in_batch++;
}

/* Each row of the query into the store, published every batch rows; 0: by the caller. */
static int64
write_query(Writer *w, What what, const char *query, int batch)
{
	TupleDesc desc = w->def->desc;
	Datum *values = palloc(desc->natts * sizeof(Datum));
	bool *isnull = palloc(desc->natts * sizeof(bool));
	MemoryContext row_cxt =
		AllocSetContextCreate(CurrentMemoryContext, "row", ALLOCSET_DEFAULT_SIZES);
	int64 n = 0;
	SPIPlanPtr plan;
	Portal portal;

	SPI_connect();
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "cannot prepare");
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, 1000);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old;

			CHECK_FOR_INTERRUPTS();
			heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, isnull);
			old = MemoryContextSwitchTo(row_cxt);
			for (int j = 0; j < desc->natts; j++)
			{
				if (!isnull[j] && TupleDescAttr(desc, j)->attlen == -1)
					values[j] = PointerGetDatum(PG_DETOAST_DATUM(values[j]));
			}
			write_row(w, what, values, isnull);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row_cxt);
			n++;
			if (batch > 0 && w->in_batch >= batch)
				publish(w);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	return n;
}

static void
serve(Writer *w)
{
	KcfSeq seq;

	kcf_store_set_loading(w->handle, false);
	for (;;)
	{
		publish(w);
		seq = published(w);
		if (!kcf_store_housekeep(w->handle, seq, kcf_pins_min(w->table->database, w->table->clock),
								 10000))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	while (!kcf_table_serve(w->table, w->store, published(w) + 1, w->def->fingerprint))
	{
		CHECK_FOR_INTERRUPTS();
		(void) kcf_table_sweep(w->table, kcf_pins_min(w->table->database, w->table->clock));
	}
	pg_atomic_write_u64(&w->table->loaded_at, GetCurrentTimestamp());
	pg_atomic_write_u64(&w->table->fresh_at, kcf_moment_now());
	kcf_clock_publish(w->table->database, w->table->clock);
	kcf_table_set_state(w->table, KCF_TABLE_READY, NULL);
	kcf_wait_broadcast(w->table->database);
	(void) kcf_table_sweep(w->table, kcf_pins_min(w->table->database, w->table->clock));
}

Datum
kcf_writer_fill(PG_FUNCTION_ARGS)
{
	Writer w;
	int64 n;

	open_writer(&w, PG_GETARG_OID(0), true);
	n = write_query(&w, PUT, text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT32(2));
	serve(&w);
	kcf_store_detach(w.handle);
	PG_RETURN_INT64(n);
}

Datum
kcf_writer_begin_load(PG_FUNCTION_ARGS)
{
	Writer w;
	int64 n;

	open_writer(&w, PG_GETARG_OID(0), true);
	n = write_query(&w, PUT, text_to_cstring(PG_GETARG_TEXT_PP(1)), 0);
	publish(&w);
	kcf_store_detach(w.handle);
	PG_RETURN_INT64(n);
}

static Datum
write_batch(FunctionCallInfo fcinfo, What what)
{
	Writer w;
	int64 n;

	open_writer(&w, PG_GETARG_OID(0), false);
	n = write_query(&w, what, text_to_cstring(PG_GETARG_TEXT_PP(1)), 0);
	publish(&w);
	kcf_store_detach(w.handle);
	PG_RETURN_INT64(n);
}

Datum
kcf_writer_put(PG_FUNCTION_ARGS)
{
	return write_batch(fcinfo, PUT);
}

Datum
kcf_writer_del(PG_FUNCTION_ARGS)
{
	return write_batch(fcinfo, DEL);
}

Datum
kcf_writer_spoil(PG_FUNCTION_ARGS)
{
	return write_batch(fcinfo, SPOIL);
}

/* Rows are kept as tuples, so that what is measured is the store and not the query. */
Datum
kcf_writer_churn(PG_FUNCTION_ARGS)
{
	Writer w;
	int batch = PG_GETARG_INT32(2);
	double rate = PG_GETARG_FLOAT8(3);
	TimestampTz start;
	TimestampTz end;
	TupleDesc desc;
	Datum *values;
	bool *isnull;
	int64 n = 0;
	uint64 nrows;

	open_writer(&w, PG_GETARG_OID(0), false);
	desc = w.def->desc;
	values = palloc(desc->natts * sizeof(Datum));
	isnull = palloc(desc->natts * sizeof(bool));
	SPI_connect();
	if (SPI_execute(text_to_cstring(PG_GETARG_TEXT_PP(1)), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "not a query");
	nrows = SPI_processed;
	start = GetCurrentTimestamp();
	end = start + (TimestampTz) (PG_GETARG_FLOAT8(4) * USECS_PER_SEC);
	for (TimestampTz now = start; now < end && nrows > 0; now = GetCurrentTimestamp())
	{
		CHECK_FOR_INTERRUPTS();
		if (rate > 0 && n > (now - start) * rate / USECS_PER_SEC)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			continue;
		}
		for (int i = 0; i < batch; i++, n++)
		{
			heap_deform_tuple(SPI_tuptable->vals[n % nrows], SPI_tuptable->tupdesc, values, isnull);
			write_row(&w, PUT, values, isnull);
		}
		pg_atomic_write_u64(&w.table->fresh_at, kcf_moment_now());
		publish(&w);
	}
	kcf_store_detach(w.handle);
	SPI_finish();
	PG_RETURN_INT64(n);
}

Datum
kcf_writer_withdraw(PG_FUNCTION_ARGS)
{
	KcfTable *table = open_table(PG_GETARG_OID(0));

	kcf_table_withdraw(table, kcf_clock_published(table->database, table->clock) + 1);
	kcf_clock_publish(table->database, table->clock);
	kcf_table_set_state(table, KCF_TABLE_STARTING, NULL);
	PG_RETURN_VOID();
}

Datum
kcf_writer_set_state(PG_FUNCTION_ARGS)
{
	KcfTable *table = open_table(PG_GETARG_OID(0));
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *message = text_to_cstring(PG_GETARG_TEXT_PP(2));

	for (int state = KCF_TABLE_STARTING; state <= KCF_TABLE_STOPPED; state++)
	{
		if (strcmp(name, kcf_table_state_name(state)) == 0)
			kcf_table_set_state(table, state, "%s", message);
	}
	PG_RETURN_VOID();
}

Datum
kcf_writer_set_at_end(PG_FUNCTION_ARGS)
{
	TimestampTz at_end = PG_GETARG_TIMESTAMPTZ(1); /* 0: never */

	pg_atomic_write_u64(&open_table(PG_GETARG_OID(0))->fresh_at,
						at_end == 0 ? 0 : kcf_moment_now() - (GetCurrentTimestamp() - at_end));
	PG_RETURN_VOID();
}

Datum
kcf_writer_clean(PG_FUNCTION_ARGS)
{
	Writer w;
	bool left;

	open_writer(&w, PG_GETARG_OID(0), false);
	if (!PG_ARGISNULL(1))
	{
		Interval *age = PG_GETARG_INTERVAL_P(1);

		(void) kcf_pins_revoke_older(w.table->database, w.table->clock, published(&w),
									 GetCurrentTimestamp() - age->time);
	}
	publish(&w);
	while (kcf_store_housekeep(w.handle, published(&w),
							   kcf_pins_min(w.table->database, w.table->clock), 10000))
	{
		CHECK_FOR_INTERRUPTS();
		publish(&w);
	}
	left = kcf_table_sweep(w.table, kcf_pins_min(w.table->database, w.table->clock));
	left |= kcf_store_hindered(w.handle);
	kcf_store_detach(w.handle);
	PG_RETURN_BOOL(left);
}

Datum
kcf_writer_stats(PG_FUNCTION_ARGS)
{
	KcfTable *table = open_table(PG_GETARG_OID(0));
	KcfStore *store = kcf_table_store(table, kcf_catalog_cached(PG_GETARG_OID(0))->fingerprint,
									  kcf_clock_published(table->database, table->clock));
	KcfStoreStats stats;
	Datum values[6];
	bool nulls[6] = { false };
	TupleDesc desc;

	if (store == NULL)
		elog(ERROR, "nothing is served");
	kcf_store_stats(store, &stats);
	values[0] = Int64GetDatum(stats.entries);
	values[1] = Int64GetDatum(stats.live_bytes);
	values[2] = Int64GetDatum(stats.dead_bytes);
	values[3] = Int64GetDatum(stats.slab_bytes);
	values[4] = Int64GetDatum(stats.index_bytes);
	values[5] = Int64GetDatum(pg_atomic_read_u64(&table->account.bytes));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "not a row");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
kcf_writer_finish(PG_FUNCTION_ARGS)
{
	int database = kcf_my_database();

	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *table = kcf_table_at(i);

		if (table->dboid == MyDatabaseId && OidIsValid(table->relid))
			kcf_table_drop(table);
	}
	if (database >= 0)
		kcf_database_restore(database, MyDatabaseId);
	PG_RETURN_VOID();
}
