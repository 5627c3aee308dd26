/*
 * registry_tables.c
 *		The cached tables: their slots, states, positions and counters.
 */
#include "postgres.h"

#include "registry.h"

#include "errlog.h"
#include "guc.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

static KcfTable *tables = NULL;

static const char *const state_names[] = {
	[KCF_TABLE_STARTING] = "starting",
	[KCF_TABLE_CONNECTING] = "connecting",
	[KCF_TABLE_LOADING] = "loading",
	[KCF_TABLE_READY] = "ready",
	[KCF_TABLE_STALLED] = "stalled",
	[KCF_TABLE_TOPIC_MISSING] = "topic_missing",
	[KCF_TABLE_AUTH_FAILED] = "auth_failed",
	[KCF_TABLE_WAITING_FOR_TRANSACTION] = "waiting_for_transaction",
	[KCF_TABLE_FULL] = "full",
	[KCF_TABLE_FAILED] = "failed",
	[KCF_TABLE_STOPPED] = "stopped",
};

Size
kcf_tables_shmem_size(void)
{
	return mul_size(kcf_guc_max_tables, sizeof(KcfTable));
}

static void
reset_clients(KcfNewClients *clients)
{
	pg_atomic_init_u64(&clients->stuck, 0);
	pg_atomic_init_u64(&clients->cut_off, 0);
}

static void
reset_told(KcfTold *told)
{
	pg_atomic_init_u64(&told->notifications, 0);
	pg_atomic_init_u64(&told->keys, 0);
	pg_atomic_init_u64(&told->incomplete, 0);
	pg_atomic_init_u64(&told->failures, 0);
	for (int i = 0; i < KCF_NSILENCES; i++)
		pg_atomic_init_u64(&told->suppressed[i], 0);
	pg_atomic_init_u32(&told->afresh, 0);
}

static void
reset_product(KcfTable *table)
{
	KcfProductCounters *product = &table->product;

	pg_atomic_init_u64(&product->hits, 0);
	pg_atomic_init_u64(&product->stale, 0);
	pg_atomic_init_u64(&product->misses, 0);
	pg_atomic_init_u64(&product->computed, 0);
	pg_atomic_init_u64(&product->waited, 0);
	pg_atomic_init_u64(&product->failed, 0);
	pg_atomic_init_u64(&product->not_kept, 0);
	pg_atomic_init_u64(&product->refreshes, 0);
	pg_atomic_init_u64(&table->put_failed_at, 0);
	pg_atomic_init_u64(&table->refresh_until, 0);
}

static void
init_totals(KcfTotals *totals)
{
	memset(&totals->counters, 0, sizeof(KcfCounters));
	for (int i = 0; i < KCF_NFAULT_SLOTS; i++)
		pg_atomic_init_u64(&totals->faults[i], 0);
	pg_atomic_init_u64(&totals->clients, 0);
	kcf_histogram_init(&totals->latency);
}

void
kcf_tables_shmem_init(void)
{
	bool found;

	tables = ShmemInitStruct("kafka_cache tables", kcf_tables_shmem_size(), &found);
	if (found)
		return;
	memset(tables, 0, kcf_tables_shmem_size());
	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *table = &tables[i];

		pg_atomic_init_u32(&table->state, KCF_TABLE_STARTING);
		pg_atomic_init_u32(&table->reload_wanted, 0);
		pg_atomic_init_u64(&table->fresh_at, 0);
		pg_atomic_init_u64(&table->loaded_at, 0);
		pg_atomic_init_u32(&table->gen_version, 0);
		pg_atomic_init_u32(&table->counters_version, 0);
		pg_atomic_init_u64(&table->account.bytes, 0);
		pg_atomic_init_u64(&table->account.limit, 0);
		init_totals(&table->totals);
		reset_told(&table->told);
		ConditionVariableInit(&table->changed);
		pg_atomic_init_u32(&table->waiters, 0);
		pg_atomic_init_u64(&table->group_commits, 0);
		pg_atomic_init_u64(&table->group_failures, 0);
		reset_clients(&table->clients);
		reset_product(table);
	}
}

KcfTable *
kcf_table_at(int i)
{
	Assert(i >= 0 && i < kcf_guc_max_tables);
	return &tables[i];
}

int
kcf_table_count(void)
{
	int count = 0;

	for (int i = 0; i < kcf_guc_max_tables; i++)
		count += OidIsValid(tables[i].relid) ? 1 : 0;
	return count;
}

const char *
kcf_table_state_name(KcfTableState state)
{
	return (int) state < (int) lengthof(state_names) ? state_names[state] : "unknown";
}

const char *
kcf_silence_name(KcfSilence silence)
{
	static const char *const names[KCF_NSILENCES] = {
		[KCF_SILENT_NULL_KEY] = "null_key",     [KCF_SILENT_SAME_VALUE] = "value_deduplication",
		[KCF_SILENT_ABSENT_KEY] = "absent_key", [KCF_SILENT_BAD_RECORD] = "bad_record",
		[KCF_SILENT_OLDER] = "older",
	};

	return names[silence];
}

/* ---- slots ---- */

static inline bool
is_table(const KcfTable *table, Oid dboid, Oid relid)
{
	return *(volatile const Oid *) &table->relid == relid && table->dboid == dboid;
}

static KcfTable *
search(Oid dboid, Oid relid)
{
	/* None in a server that was started for a binary upgrade. */
	for (int i = 0; tables && i < kcf_guc_max_tables; i++)
	{
		if (is_table(&tables[i], dboid, relid))
		{
			pg_read_barrier();
			return &tables[i];
		}
	}
	return NULL;
}

KcfTable *
kcf_table_find(Oid dboid, Oid relid)
{
	typedef struct Known
	{
		Oid relid;
		KcfTable *table;
	} Known;
	static HTAB *known = NULL;
	static Known *recent = NULL; /* entries stay where they are */
	Known *entry;
	KcfTable *table;

	if (dboid != MyDatabaseId)
		return search(dboid, relid);

	if (recent && recent->relid == relid && is_table(recent->table, dboid, relid))
		return recent->table;
	if (known)
	{
		entry = hash_search(known, &relid, HASH_FIND, NULL);
		if (entry && is_table(entry->table, dboid, relid))
		{
			recent = entry;
			return entry->table;
		}
	}
	table = search(dboid, relid);
	if (table)
	{
		if (known == NULL)
		{
			HASHCTL ctl = { .keysize = sizeof(Oid), .entrysize = sizeof(Known) };

			known = hash_create("kafka_cache tables", 16, &ctl, HASH_ELEM | HASH_BLOBS);
		}
		entry = hash_search(known, &relid, HASH_ENTER, NULL);
		entry->table = table;
	}
	return table;
}

KcfTable *
kcf_table_create(Oid dboid, Oid relid, int database, int clock)
{
	KcfTable *table;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	table = search(dboid, relid);
	if (table == NULL && (table = search(InvalidOid, InvalidOid)) != NULL)
	{
		table->database = database;
		table->clock = clock;
		table->owner = InvalidOid;
		table->topic[0] = '\0';
		table->text[0] = '\0';
		pg_atomic_write_u32(&table->state, KCF_TABLE_STARTING);
		pg_atomic_write_u32(&table->reload_wanted, 0);
		pg_atomic_write_u64(&table->fresh_at, 0);
		pg_atomic_write_u64(&table->loaded_at, 0);
		memset(table->gens, 0, sizeof(table->gens));
		table->loading = NULL;
		table->loading_fingerprint = 0;
		memset(table->retired, 0, sizeof(table->retired));
		table->discarded = NULL;
		memset(&table->followed, 0, sizeof(KcfPartitions));
		memset(&table->load, 0, sizeof(KcfPartitions));
		memset(&table->counters, 0, sizeof(table->counters));
		init_totals(&table->totals);
		pg_atomic_write_u64(&table->account.bytes, 0);
		pg_atomic_write_u64(&table->account.limit, 0);
		pg_atomic_write_u64(&table->group_commits, 0);
		pg_atomic_write_u64(&table->group_failures, 0);
		table->errors = NULL;
		reset_told(&table->told);
		reset_clients(&table->clients);
		reset_product(table);
		memset(&table->load_counters, 0, sizeof(KcfCounters));
		table->load_errors = NULL;
		table->reload_done = 0;
		table->dboid = dboid;
		pg_write_barrier();
		table->relid = relid;
	}
	LWLockRelease(kcf_registry_lock);
	return table;
}

/* Add to a list without duplicates: a store may be reachable twice. */
static int
collect(KcfStore **stores, int n, KcfStore *store)
{
	if (store == NULL)
		return n;
	for (int i = 0; i < n; i++)
	{
		if (stores[i] == store)
			return n;
	}
	stores[n] = store;
	return n + 1;
}

void
kcf_table_free_partitions(KcfTable *table, const KcfPartitions *partitions)
{
	if (partitions->array)
		kcf_arena_free(&table->account, partitions->array,
					   partitions->capacity * sizeof(KcfPartition));
}

void
kcf_table_drop(KcfTable *table)
{
	KcfStore *stores[KCF_GENERATIONS + KCF_NRETIRED + 1];
	int n = 0;
	KcfPartitions followed;
	KcfPartitions load;
	struct KcfErrorLog *errors;
	struct KcfErrorLog *load_errors;
	KcfStore *discarded;
	uint64 left;

	/* Hide it first. The slot stays taken, by its dboid, until all is freed: the account lies in
	 * it. */
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	table->relid = InvalidOid;
	for (int i = 0; i < KCF_GENERATIONS; i++)
		n = collect(stores, n, table->gens[i].store);
	for (int i = 0; i < (int) KCF_NRETIRED; i++)
		n = collect(stores, n, table->retired[i].store);
	n = collect(stores, n, table->loading);
	memset(table->gens, 0, sizeof(table->gens));
	memset(table->retired, 0, sizeof(table->retired));
	table->loading = NULL;
	discarded = table->discarded;
	table->discarded = NULL;
	followed = table->followed;
	load = table->load;
	memset(&table->followed, 0, sizeof(KcfPartitions));
	memset(&table->load, 0, sizeof(KcfPartitions));
	errors = table->errors;
	table->errors = NULL;
	load_errors = table->load_errors;
	table->load_errors = NULL;
	LWLockRelease(kcf_registry_lock);

	kcf_arena_attach();
	for (int i = 0; i < n; i++)
		kcf_store_destroy(stores[i], &table->account);
	while (discarded)
	{
		KcfStore *store = discarded;

		discarded = kcf_store_discarded(store)->next;
		kcf_store_destroy(store, &table->account);
	}
	if (errors)
		kcf_errlog_destroy(errors, &table->account);
	if (load_errors)
		kcf_errlog_destroy(load_errors, &table->account);
	kcf_table_free_partitions(table, &followed);
	kcf_table_free_partitions(table, &load);
	left = pg_atomic_read_u64(&table->account.bytes);
	if (left != 0)
		elog(LOG, "kafka_cache: a dropped table left " UINT64_FORMAT " bytes behind", left);

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	table->dboid = InvalidOid;
	LWLockRelease(kcf_registry_lock);
	kcf_wait_broadcast_table(table);
}

/* ---- what it is and how it does ---- */

void
kcf_table_set_state(KcfTable *table, KcfTableState state, const char *fmt, ...)
{
	char text[sizeof(table->text)];
	bool changed;

	text[0] = '\0';
	if (fmt)
	{
		va_list args;

		va_start(args, fmt);
		vsnprintf(text, sizeof(text), fmt, args);
		va_end(args);
	}
	/* Its only writer asks, so a look without the lock is good. */
	changed = pg_atomic_read_u32(&table->state) != (uint32) state || strcmp(table->text, text) != 0;
	if (changed)
	{
		LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
		strlcpy(table->text, text, sizeof(table->text));
		pg_atomic_write_u32(&table->state, state);
		LWLockRelease(kcf_registry_lock);
		kcf_wait_broadcast(table->database);
		kcf_wait_broadcast_table(table);
	}
}

void
kcf_table_set_identity(KcfTable *table, Oid owner, const char *topic)
{
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	table->owner = owner;
	strlcpy(table->topic, topic, sizeof(table->topic));
	LWLockRelease(kcf_registry_lock);
}

bool
kcf_table_set_partitions(KcfTable *table, KcfPartitions *partitions, int n)
{
	KcfPartitions old = *partitions;
	KcfPartition *array = old.array;

	if (n > old.capacity)
	{
		array = kcf_arena_alloc(&table->account, n * sizeof(KcfPartition));
		if (array == NULL)
			return false;
	}
	else if (n == 0)
		array = NULL;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (array != old.array)
	{
		if (array && old.array)
			memcpy(array, old.array, old.n * sizeof(KcfPartition));
		partitions->array = array;
		partitions->capacity = n;
	}
	for (int i = old.n; i < n; i++)
	{
		KcfPartition *p = &array[i];

		pg_atomic_init_u64(&p->next, 0);
		pg_atomic_init_u64(&p->low, 0);
		pg_atomic_init_u64(&p->target, PG_UINT64_MAX);
		pg_atomic_init_u64(&p->high, PG_UINT64_MAX);
		pg_atomic_init_u64(&p->start, 0);
		pg_atomic_init_u64(&p->complete_from, 0);
		pg_atomic_init_u64(&p->announced, 0);
		pg_atomic_init_u64(&p->written, 0);
	}
	partitions->n = n;
	LWLockRelease(kcf_registry_lock);
	if (array != old.array)
		kcf_table_free_partitions(table, &old);
	return true;
}

/* What is loaded beside what is served may take its place at any time. */
static void
note_written(KcfPartitions *partitions, int32 partition, uint64 next)
{
	pg_atomic_uint64 *written;
	uint64 before;

	if (partition >= partitions->n)
		return;
	written = &partitions->array[partition].written;
	before = pg_atomic_read_u64(written);
	while (before < next && !pg_atomic_compare_exchange_u64(written, &before, next))
		continue;
}

void
kcf_table_note_written(Oid relid, int32 partition, int64 offset)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, relid);

	if (table == NULL)
		return;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (table->dboid == MyDatabaseId && table->relid == relid)
	{
		note_written(&table->followed, partition, offset + 1);
		note_written(&table->load, partition, offset + 1);
	}
	LWLockRelease(kcf_registry_lock);
}

bool
kcf_table_shows_written(KcfTable *table)
{
	if (!kcf_table_shows_followed(table))
		return false;
	for (int i = 0; i < table->followed.n; i++)
	{
		KcfPartition *p = &table->followed.array[i];

		if (pg_atomic_read_u64(&p->next) < pg_atomic_read_u64(&p->written))
			return false;
	}
	return true;
}

KcfPartition *
kcf_table_partitions(KcfTable *table, Oid relid, bool *served, int *n)
{
	KcfPartition *copy = NULL;
	int room = 0;

	/* Nothing is allocated under the lock. */
	for (;;)
	{
		const KcfPartitions *shown;
		bool is;

		LWLockAcquire(kcf_registry_lock, LW_SHARED);
		/* It may have been dropped, and be another's by now. */
		is = is_table(table, MyDatabaseId, relid);
		*served = is && kcf_table_is_served(table);
		shown = *served ? &table->followed : &table->load;
		*n = is ? shown->n : 0;
		if (copy && *n <= room)
		{
			if (*n > 0)
				memcpy(copy, shown->array, *n * sizeof(KcfPartition));
			for (int i = 0; i < Min(*n, table->load.n); i++)
				copy[i].target = table->load.array[i].target;
			LWLockRelease(kcf_registry_lock);
			return copy;
		}
		LWLockRelease(kcf_registry_lock);
		if (copy)
			pfree(copy);
		room = Max(*n, 1);
		copy = palloc(room * sizeof(KcfPartition));
	}
}

static void
read_counters(KcfTable *table, const KcfCounters *from, KcfCounters *counters)
{
	for (;;)
	{
		uint32 before = pg_atomic_read_u32(&table->counters_version);

		pg_read_barrier();
		*counters = *from;
		pg_read_barrier();
		if ((before & 1) == 0 && pg_atomic_read_u32(&table->counters_version) == before)
			return;
		CHECK_FOR_INTERRUPTS();
		pg_spin_delay();
	}
}

void
kcf_table_counters(KcfTable *table, KcfCounters *counters)
{
	read_counters(table, &table->counters, counters);
}

void
kcf_table_totals(KcfTable *table, KcfCounters *totals)
{
	read_counters(table, &table->totals.counters, totals);
}

void
kcf_table_set_counters(KcfTable *table, const KcfCounters *counters)
{
	/* Full barriers on both sides: the copy may not slip out. Nothing between them can throw. */
	pg_atomic_fetch_add_u32(&table->counters_version, 1);
	table->counters = *counters;
	pg_atomic_fetch_add_u32(&table->counters_version, 1);
}

void
kcf_table_add_up(KcfTable *table, const KcfCounters *counters, KcfCounters *counted)
{
	/* Nothing but numbers of one size: added as an array. */
	int64 *totals = (int64 *) &table->totals.counters;
	const int64 *now = (const int64 *) counters;
	const int64 *before = (const int64 *) counted;

	StaticAssertStmt(sizeof(KcfCounters) % sizeof(int64) == 0, "counters are int64");
	pg_atomic_fetch_add_u32(&table->counters_version, 1);
	for (int i = 0; i < (int) (sizeof(KcfCounters) / sizeof(int64)); i++)
		totals[i] += now[i] - before[i];
	pg_atomic_fetch_add_u32(&table->counters_version, 1);
	*counted = *counters;
}

/* ---- what a reader finds ---- */

bool
kcf_table_has_passed(KcfTable *table, Oid relid, int32 partition, int64 offset)
{
	bool passed = false;

	if (table == NULL || partition < 0)
		return false;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (table->relid == relid && kcf_table_shows_followed(table) && partition < table->followed.n)
		passed = (int64) pg_atomic_read_u64(&table->followed.array[partition].next) > offset;
	LWLockRelease(kcf_registry_lock);
	/* What is read next was published before its position was shown. */
	pg_read_barrier();
	return passed;
}

bool
kcf_table_wait_passed(KcfTable *table, Oid relid, int32 partition, int64 offset, long timeout_ms)
{
	TimestampTz deadline;
	bool passed = kcf_table_has_passed(table, relid, partition, offset);

	if (passed || table == NULL || timeout_ms <= 0)
		return passed;
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	kcf_wait_prepare_table(table);
	while (!(passed = kcf_table_has_passed(table, relid, partition, offset)))
	{
		if (!kcf_wait_sleep_table(table,
								  TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline)))
			break;
	}
	kcf_wait_cancel(table->database);
	return passed;
}
