/*
 * metrics_read.c
 *		The figures behind the metrics, read for one user at one moment.
 *
 * As in the views, tables on which the user has no right are left out. Everybody sees the server's
 * figures and those of the own database.
 */
#include "postgres.h"

#include <math.h>

#include "metrics.h"

#include "arena.h"
#include "catalog.h"
#include "compat.h"
#include "errlog.h"
#include "guc.h"
#include "refreshq.h"
#include "status.h"

#include "commands/dbcommands.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

StaticAssertDecl(KCF_KAFKA_OTHER < KCF_NFAULT_SLOTS, "every fault can be counted");

static const Size sizes[KCF_NSUBJECTS] = {
	[KCF_OF_LIBRARY] = sizeof(KcfLibraryFigures),
	[KCF_OF_SERVER] = sizeof(KcfServerFigures),
	[KCF_OF_WORKER] = sizeof(KcfWorkerFigures),
	[KCF_OF_DATABASE] = sizeof(KcfDatabaseFigures),
	[KCF_OF_TABLE] = sizeof(KcfTableFigures),
	[KCF_OF_PRODUCT] = sizeof(KcfProductFigures),
	[KCF_OF_PARTITION] = sizeof(KcfPartitionFigures),
};

/* Figures of one more subject, zero; good until the next one of its kind. */
static void *
add_subject(KcfReading *reading, KcfMetricSubject of)
{
	Size size = sizes[of];

	if (reading->of[of].n == reading->of[of].room)
	{
		int room = Max(reading->of[of].room * 2, 8);

		reading->of[of].figures = reading->of[of].figures
									  ? repalloc_huge(reading->of[of].figures, room * size)
									  : palloc(room * size);
		reading->of[of].room = room;
		reading->of[of].size = size;
	}
	return memset(reading->of[of].figures + reading->of[of].n++ * size, 0, size);
}

static double
number(pg_atomic_uint64 *counter)
{
	return (double) pg_atomic_read_u64(counter);
}

static void
read_durations(KcfDurations *to, KcfHistogram *from)
{
	for (int i = 0; i <= KCF_HISTOGRAM_BOUNDS; i++)
		to->counts[i] = pg_atomic_read_u64(&from->counts[i]);
	to->sum = pg_atomic_read_u64(&from->sum);
}

static double
unix_time(TimestampTz time)
{
	const double epoch = (double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

	return time == 0 ? 0 : epoch + (double) time / USECS_PER_SEC;
}

/* ---- server, workers, database ------------------------------------------------------------- */

static void
read_server(KcfReading *reading)
{
	KcfLibraryFigures *library = add_subject(reading, KCF_OF_LIBRARY);
	KcfServerFigures *server = add_subject(reading, KCF_OF_SERVER);

	library->head.labels[0] = (KcfMetricLabel){ "version", KCF_VERSION };
	library->head.labels[1] = (KcfMetricLabel){ "postgresql", KCF_SERVER_VERSION };
	library->head.labels[2] = (KcfMetricLabel){ "librdkafka", kcf_kafka_version() };
	library->one = 1;

	server->memory_used = (double) kcf_arena_used();
	server->memory_limit = (double) kcf_arena_size();
	server->tables = kcf_table_count();
	server->tables_limit = kcf_guc_max_tables;
}

/* worker NULL: it never was there. */
static void
read_worker(KcfReading *reading, const KcfWorker *worker, const char *kind, const char *database,
			const char *number)
{
	KcfWorkerFigures *figures = add_subject(reading, KCF_OF_WORKER);
	KcfMetricLabel *label = figures->head.labels;

	*label++ = (KcfMetricLabel){ "kind", kind };
	if (database)
		*label++ = (KcfMetricLabel){ "database", database };
	if (number)
		*label++ = (KcfMetricLabel){ "number", number };
	if (worker == NULL)
		return;
	figures->up = worker->pid != 0;
	figures->restarts = worker->restarts;
	figures->started = unix_time(worker->started_at);
}

static void
read_workers(KcfReading *reading, const char *database)
{
	int slot = kcf_my_database();
	KcfWorker launcher;
	KcfWorker workers[KCF_MAX_WORKERS];
	bool known;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	launcher = *kcf_launcher_worker();
	known = slot >= 0 && kcf_database(slot)->dboid == MyDatabaseId;
	if (known)
		memcpy(workers, kcf_database(slot)->workers, sizeof(workers));
	LWLockRelease(kcf_registry_lock);

	read_worker(reading, &launcher, "launcher", NULL, NULL);
	for (int i = 0; i < kcf_guc_consumers_per_database; i++)
		read_worker(reading, known ? &workers[i] : NULL, "consumer", database, psprintf("%d", i));
	read_worker(reading, known ? &workers[KCF_WORKER_PRODUCER] : NULL, "producer", database, NULL);
	for (int i = 0; i < kcf_guc_refresh_workers; i++)
		read_worker(reading, known ? &workers[KCF_WORKER_REFRESHER + i] : NULL, "refresher",
					database, psprintf("%d", i));
}

static void
read_database(KcfReading *reading, const char *database)
{
	KcfDatabaseFigures *figures = add_subject(reading, KCF_OF_DATABASE);
	int slot = kcf_my_database();
	KcfProduced *produced;
	KcfRefreshTotals refreshes;
	TimestampTz oldest;

	figures->head.labels[0] = (KcfMetricLabel){ "database", database };
	if (slot < 0)
		return;
	kcf_refreshq_totals(slot, &refreshes);
	figures->refreshes[0] = (double) refreshes.done;
	figures->refreshes[1] = (double) refreshes.failed;
	figures->refreshes[2] = (double) refreshes.lapsed;
	figures->refreshes_dropped = (double) refreshes.dropped;
	produced = &kcf_database(slot)->produced;
	figures->produced[0] = number(&produced->delivered);
	figures->produced[1] = number(&produced->refused);
	figures->produced[2] = number(&produced->unknown);
	for (int i = 0; i < KCF_KAFKA_OTHER; i++)
		figures->produce_errors[i] = number(&produced->faults[i + 1]);
	figures->produce_errors[KCF_KAFKA_OTHER] = number(&produced->given_up);
	read_durations(&figures->produce_latency, &produced->wait);
	figures->pins = kcf_pins_count(slot, &oldest);
	if (figures->pins > 0)
		figures->oldest_pin = (double) Max(GetCurrentTimestamp() - oldest, 0) / USECS_PER_SEC;
}

/* ---- tables -------------------------------------------------------------------------------- */

static void
read_counters(KcfTableFigures *figures, const KcfCounters *totals)
{
	figures->records[0] = (double) totals->upserts;
	figures->records[1] = (double) totals->tombstones;
	figures->records[2] = (double) totals->errors;
	figures->records[3] = (double) totals->ignored;
	for (int i = 0; i < KCF_NREASONS - 1; i++)
		figures->rejected[i] = (double) totals->errors_by_reason[i + 1];
	figures->timestamps_out_of_range = (double) totals->timestamps_out_of_range;
	figures->reloads = (double) totals->reloads;
}

static void
read_faults(KcfTableFigures *figures, KcfTotals *totals)
{
	for (int error = KCF_KAFKA_OK + 1; error <= KCF_KAFKA_OTHER; error++)
	{
		int i = 0;

		while (i < KCF_NSTREAM_FAULTS - 1 && kcf_stream_faults[i] != (KcfKafkaError) error)
			i++;
		figures->faults[i] += number(&totals->faults[error]);
	}
}

static void
read_told(KcfTableFigures *figures, KcfTold *told)
{
	figures->notifications = number(&told->notifications);
	figures->notified_keys = number(&told->keys);
	figures->notifications_incomplete = number(&told->incomplete);
	figures->notification_failures = number(&told->failures);
	for (int i = 0; i < KCF_NSILENCES; i++)
		figures->notifications_suppressed[i] = number(&told->suppressed[i]);
}

static void
read_store(KcfTableFigures *figures, const KcfStore *store)
{
	KcfStoreStats stats;

	kcf_store_stats(store, &stats);
	figures->entries = (double) stats.entries;
	figures->dead_bytes = (double) stats.dead_bytes;
	figures->index_bytes = (double) stats.index_bytes;
	figures->tombstones = (double) stats.tombstones_kept;
	figures->cross_partition_keys = (double) stats.cross_partition_keys;
	figures->key_spellings = (double) stats.key_spellings;
}

/* Under the registry lock, so without allocating anything. */
static void
read_shared(KcfTableFigures *figures, KcfTable *table)
{
	KcfStore *store = table->gens[0].store ? table->gens[0].store : table->loading;
	uint64 limit = pg_atomic_read_u64(&table->account.limit);
	int64 staleness = kcf_table_staleness(table);
	KcfCounters totals;

	figures->ready = kcf_table_is_served(table);
	figures->progress = kcf_status_progress(table);
	if (staleness >= 0)
		figures->staleness = (double) staleness / USECS_PER_SEC;
	figures->loaded = unix_time((TimestampTz) pg_atomic_read_u64(&table->loaded_at));
	figures->bytes = number(&table->account.bytes);
	if (limit > 0)
		figures->bytes_limit = Min((double) limit, figures->bytes_limit);
	if (table->errors)
		figures->listed_errors = kcf_errlog_count(table->errors);
	if (store)
		read_store(figures, store);
	kcf_table_totals(table, &totals);
	read_counters(figures, &totals);
	read_faults(figures, &table->totals);
	figures->clients = number(&table->totals.clients);
	read_durations(&figures->latency, &table->totals.latency);
	read_told(figures, &table->told);
	figures->clients_given_up[0] = number(&table->clients.stuck);
	figures->clients_given_up[1] = number(&table->clients.cut_off);
	figures->group_commits = number(&table->group_commits);
	figures->group_failures = number(&table->group_failures);
}

static void
read_partitions(KcfReading *reading, KcfTable *table, Oid relid, const KcfFigures *head,
				const char *topic)
{
	bool served;
	int n;
	KcfPartition *partitions = kcf_table_partitions(table, relid, &served, &n);

	for (int i = 0; i < n; i++)
	{
		KcfPartitionFigures *figures = add_subject(reading, KCF_OF_PARTITION);
		uint64 next = pg_atomic_read_u64(&partitions[i].next);
		uint64 high = pg_atomic_read_u64(&partitions[i].high);

		figures->head = *head;
		figures->head.labels[2] = (KcfMetricLabel){ "topic", topic };
		figures->head.labels[3] = (KcfMetricLabel){ "partition", psprintf("%d", i) };
		figures->last_seen = (double) next - 1;
		figures->log_start = number(&partitions[i].low);
		figures->log_end = high == PG_UINT64_MAX ? NAN : (double) high;
		figures->lag = high == PG_UINT64_MAX ? NAN : high > next ? (double) (high - next) : 0;
	}
	pfree(partitions);
}

/* Tables whose options make no sense are here, too. */
static bool
is_product(Oid relid)
{
	ListCell *lc;

	/* dropped in this moment */
	if (!SearchSysCacheExists1(FOREIGNTABLEREL, ObjectIdGetDatum(relid)))
		return false;
	foreach (lc, GetForeignTable(relid)->options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "compute") == 0)
			return true;
	}
	return false;
}

static void
read_product(KcfReading *reading, KcfTable *table, Oid relid, const KcfFigures *head)
{
	KcfProductFigures *figures = add_subject(reading, KCF_OF_PRODUCT);
	KcfRefreshFigures queue;

	figures->head = *head;
	if (table)
	{
		KcfProductCounters *counters = &table->product;
		double stale = number(&counters->stale);

		figures->reads[0] = Max(number(&counters->hits) - stale, 0);
		figures->reads[1] = stale;
		figures->reads[2] = number(&counters->misses);
		figures->computed = number(&counters->computed);
		figures->refreshes = number(&counters->refreshes);
		figures->shared = number(&counters->waited);
		figures->failures = number(&counters->failed);
		figures->not_kept = number(&counters->not_kept);
	}
	kcf_refreshq_figures(relid, &queue);
	figures->queued = (double) queue.keys;
	figures->failing = (double) queue.failing;
	if (queue.keys > 0)
		figures->oldest = (double) Max(GetCurrentTimestamp() - queue.oldest, 0) / USECS_PER_SEC;
}

static void
read_table(KcfReading *reading, Oid relid, const char *database, bool listed)
{
	char *name = get_rel_name(relid);
	char *schema = get_namespace_name(get_rel_namespace(relid));
	char topic[sizeof(((KcfTable *) 0)->topic)] = "";
	KcfTableFigures *figures;
	KcfTable *table;
	const char *state;
	const char *text;

	if (name == NULL || schema == NULL)
		return;
	figures = add_subject(reading, KCF_OF_TABLE);
	figures->head.labels[0] = (KcfMetricLabel){ "database", database };
	figures->head.labels[1] =
		(KcfMetricLabel){ "relation", quote_qualified_identifier(schema, name) };
	figures->staleness = INFINITY;
	figures->bytes_limit = (double) kcf_arena_size();

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	table = kcf_table_find(MyDatabaseId, relid);
	state = kcf_status_state(table, listed, &text);
	if (table)
	{
		strlcpy(topic, table->topic, sizeof(topic));
		read_shared(figures, table);
	}
	LWLockRelease(kcf_registry_lock);

	for (int i = 0; i <= KCF_TABLE_STOPPED; i++)
		figures->state[i] = state == kcf_table_state_name(i);
	if (is_product(relid))
		read_product(reading, table, relid, &figures->head);
	if (table)
		read_partitions(reading, table, relid, &figures->head, pstrdup(topic));
}

KcfReading *
kcf_metrics_read(void)
{
	KcfReading *reading = palloc0(sizeof(KcfReading));
	const char *database = get_database_name(MyDatabaseId);
	bool listed = kcf_status_is_listed();
	ListCell *lc;

	kcf_registry_check();
	read_server(reading);
	read_workers(reading, database);
	read_database(reading, database);
	foreach (lc, kcf_catalog_tables())
	{
		if (kcf_status_sight(lfirst_oid(lc)) != KCF_SEE_NOTHING)
			read_table(reading, lfirst_oid(lc), database, listed);
		CHECK_FOR_INTERRUPTS();
	}
	return reading;
}
