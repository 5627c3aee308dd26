/*
 * metrics.c
 *		The metrics: their names, kinds, labels and meanings, once for the view, the text and the manual.
 *
 * The names follow Prometheus: counters end in _total, times are seconds. What a counter counts begins
 * with the server, goes on over loads and restarts of workers, and is there from the start.
 */
#include "postgres.h"

#include "metrics.h"

#define LIBRARY(field) KCF_OF_LIBRARY, offsetof(KcfLibraryFigures, field)
#define SERVER(field) KCF_OF_SERVER, offsetof(KcfServerFigures, field)
#define WORKER(field) KCF_OF_WORKER, offsetof(KcfWorkerFigures, field)
#define DATABASE(field) KCF_OF_DATABASE, offsetof(KcfDatabaseFigures, field)
#define TABLE(field) KCF_OF_TABLE, offsetof(KcfTableFigures, field)
#define PRODUCT(field) KCF_OF_PRODUCT, offsetof(KcfProductFigures, field)
#define PARTITION(field) KCF_OF_PARTITION, offsetof(KcfPartitionFigures, field)

#define COUNTER KCF_METRIC_COUNTER
#define GAUGE KCF_METRIC_GAUGE
#define HISTOGRAM KCF_METRIC_HISTOGRAM

static const char *
state(int i)
{
	return i <= KCF_TABLE_STOPPED ? kcf_table_state_name(i) : NULL;
}

static const char *
outcome_of_record(int i)
{
	static const char *const names[] = { "upsert", "tombstone", "error", "ignored", NULL };

	return names[i];
}

static const char *
reason(int i)
{
	return i + 1 < KCF_NREASONS ? kcf_reason_name(i + 1) : NULL;
}

const KcfKafkaError kcf_stream_faults[KCF_NSTREAM_FAULTS] = {
	KCF_KAFKA_UNREACHABLE,  KCF_KAFKA_AUTH,         KCF_KAFKA_NO_TOPIC,
	KCF_KAFKA_NO_PARTITION, KCF_KAFKA_OUT_OF_RANGE, KCF_KAFKA_UNREADABLE,
	KCF_KAFKA_BAD_DATA,     KCF_KAFKA_CONFIG,       KCF_KAFKA_OTHER,
};

static const char *
stream_fault(int i)
{
	return i < KCF_NSTREAM_FAULTS ? kcf_kafka_error_name(kcf_stream_faults[i]) : NULL;
}

static const char *
why_given_up(int i)
{
	static const char *const names[] = { "stuck", "cut_off", NULL };

	return names[i];
}

static const char *
silence(int i)
{
	return i < KCF_NSILENCES ? kcf_silence_name(i) : NULL;
}

static const char *
outcome_of_write(int i)
{
	static const char *const names[] = { "delivered", "refused", "unknown", NULL };

	return names[i];
}

static const char *
produce_error(int i)
{
	if (i < KCF_KAFKA_OTHER)
		return kcf_kafka_error_name(i + 1);
	return i == KCF_KAFKA_OTHER ? "given_up" : NULL;
}

static const char *
outcome_of_read(int i)
{
	static const char *const names[] = { "fresh", "stale", "miss", NULL };

	return names[i];
}

static const char *
outcome_of_refresh(int i)
{
	static const char *const names[] = { "done", "failed", "lapsed", NULL };

	return names[i];
}

const KcfMetric kcf_metrics[] = {
	/* clang-format off: a table */
	{ "kafka_cache_info", GAUGE, LIBRARY(one), NULL, NULL,
	  "Always 1; the labels are the versions of the extension, the server and librdkafka." },

	{ "kafka_cache_memory_used_bytes", GAUGE, SERVER(memory_used), NULL, NULL,
	  "Shared memory that the cached tables of all databases use." },
	{ "kafka_cache_memory_limit_bytes", GAUGE, SERVER(memory_limit), NULL, NULL,
	  "Shared memory reserved for cached tables (kafka_cache.memory)." },
	{ "kafka_cache_tables", GAUGE, SERVER(tables), NULL, NULL, "Cached tables of all databases." },
	{ "kafka_cache_tables_limit", GAUGE, SERVER(tables_limit), NULL, NULL,
	  "Most cached tables of the server (kafka_cache.max_tables)." },

	{ "kafka_cache_worker_up", GAUGE, WORKER(up), NULL, NULL,
	  "Whether the process is there: 1 or 0. Producers and refreshers are there only while they "
	  "have "
	  "something to do." },
	{ "kafka_cache_worker_restarts_total", COUNTER, WORKER(restarts), NULL, NULL,
	  "How often the process was started again after it had ended by itself or failed." },
	{ "kafka_cache_worker_started_timestamp_seconds", GAUGE, WORKER(started), NULL, NULL,
	  "When the process was last started, as Unix time." },

	{ "kafka_cache_produce_total", COUNTER, DATABASE(produced), "outcome", outcome_of_write,
	  "Records that sessions wrote, by what they were told of them: delivered, refused (nothing is "
	  "in the topic), unknown." },
	{ "kafka_cache_produce_errors_total", COUNTER, DATABASE(produce_errors), "error", produce_error,
	  "Writes that were not delivered as a whole, by the first reason; given_up: left by their "
	  "session, by a cancel or a time-out." },
	{ "kafka_cache_produce_latency_seconds", HISTOGRAM, DATABASE(produce_latency), NULL, NULL,
	  "How long a write waited for Kafka, from its last record until the fate of all of them was "
	  "known." },
	{ "kafka_cache_pins", GAUGE, DATABASE(pins), NULL, NULL,
	  "Sessions that hold a state of the cached tables." },
	{ "kafka_cache_oldest_pin_seconds", GAUGE, DATABASE(oldest_pin), NULL, NULL,
	  "Age of the oldest state that a session holds; memory of rows replaced since is not free "
	  "before." },
	{ "kafka_cache_refreshes_total", COUNTER, DATABASE(refreshes), "outcome", outcome_of_refresh,
	  "Keys of data products that refreshers took from the queue, by what became of them: done, "
	  "failed (and tried again later), lapsed (the process ended)." },
	{ "kafka_cache_refresh_requests_dropped_total", COUNTER, DATABASE(refreshes_dropped), NULL,
	  NULL,
	  "Requests by readers of stale rows that found the queue full; the next reader asks again." },

	{ "kafka_cache_state", GAUGE, TABLE(state), "state", state,
	  "1 for the state that the table is in, 0 for the others." },
	{ "kafka_cache_ready", GAUGE, TABLE(ready), NULL, NULL,
	  "Whether complete contents are served: 1 or 0." },
	{ "kafka_cache_load_progress", GAUGE, TABLE(progress), NULL, NULL,
	  "How far the load is, from 0 to 1." },
	{ "kafka_cache_staleness_seconds", GAUGE, TABLE(staleness), NULL, NULL,
	  "Time since the contents were last known to be at the end of every partition; infinite: "
	  "never yet." },
	{ "kafka_cache_loaded_timestamp_seconds", GAUGE, TABLE(loaded), NULL, NULL,
	  "When the present contents became ready, as Unix time; 0: not yet." },
	{ "kafka_cache_entries", GAUGE, TABLE(entries), NULL, NULL, "Rows." },
	{ "kafka_cache_bytes", GAUGE, TABLE(bytes), NULL, NULL, "Shared memory that the table uses." },
	{ "kafka_cache_limit_bytes", GAUGE, TABLE(bytes_limit), NULL, NULL,
	  "Most shared memory that the table may use (max_bytes, else kafka_cache.memory)." },
	{ "kafka_cache_dead_bytes", GAUGE, TABLE(dead_bytes), NULL, NULL,
	  "Memory of rows that were replaced or deleted and not recycled yet." },
	{ "kafka_cache_index_bytes", GAUGE, TABLE(index_bytes), NULL, NULL,
	  "Memory of the index by key." },
	{ "kafka_cache_tombstones", GAUGE, TABLE(tombstones), NULL, NULL,
	  "Deletions that are remembered (kafka_cache.deletion_memory)." },
	{ "kafka_cache_listed_errors", GAUGE, TABLE(listed_errors), NULL, NULL,
	  "Bad records in kafka_cache.errors: not healed yet." },
	{ "kafka_cache_cross_partition_keys", GAUGE, TABLE(cross_partition_keys), NULL, NULL,
	  "Keys of the present contents that were met in several partitions." },
	{ "kafka_cache_key_spellings", GAUGE, TABLE(key_spellings), NULL, NULL,
	  "Keys of the present contents that were met in several spellings." },
	{ "kafka_cache_records_total", COUNTER, TABLE(records), "outcome", outcome_of_record,
	  "Records read, also by loads, by what became of them." },
	{ "kafka_cache_rejected_total", COUNTER, TABLE(rejected), "reason", reason,
	  "Bad records, by what is wrong with them." },
	{ "kafka_cache_timestamps_out_of_range_total", COUNTER, TABLE(timestamps_out_of_range), NULL,
	  NULL, "Records whose timestamp no timestamptz can be." },
	{ "kafka_cache_reloads_total", COUNTER, TABLE(reloads), NULL, NULL,
	  "How often the contents were replaced by a new load." },
	{ "kafka_cache_stream_errors_total", COUNTER, TABLE(faults), "error", stream_fault,
	  "What stood in the way of reading the topic, by what it was." },
	{ "kafka_cache_clients_total", COUNTER, TABLE(clients), NULL, NULL,
	  "Kafka clients made for the table; a new one after the first means that there was a reason "
	  "to begin anew." },
	{ "kafka_cache_clients_given_up_total", COUNTER, TABLE(clients_given_up), "reason",
	  why_given_up,
	  "Kafka clients that were replaced: connected, but without progress for half a minute "
	  "(stuck); without any broker for a minute (cut_off)." },
	{ "kafka_cache_visible_latency_seconds", HISTOGRAM, TABLE(latency), NULL, NULL,
	  "From a record's own timestamp to its being visible to queries; records of loads are not "
	  "counted." },
	{ "kafka_cache_notifications_total", COUNTER, TABLE(notifications), NULL, NULL,
	  "Notifications sent (NOTIFY)." },
	{ "kafka_cache_notified_keys_total", COUNTER, TABLE(notified_keys), NULL, NULL,
	  "Keys named in notifications." },
	{ "kafka_cache_notifications_incomplete_total", COUNTER, TABLE(notifications_incomplete), NULL,
	  NULL, "Notifications that say that there is more than they name." },
	{ "kafka_cache_notifications_suppressed_total", COUNTER, TABLE(notifications_suppressed),
	  "reason", silence, "Records that were not told to listeners, by why." },
	{ "kafka_cache_notification_failures_total", COUNTER, TABLE(notification_failures), NULL, NULL,
	  "Attempts to notify that failed; what they had is told later." },
	{ "kafka_cache_group_commits_total", COUNTER, TABLE(group_commits), NULL, NULL,
	  "How often positions of the table were shown under the server's group_id." },
	{ "kafka_cache_group_commit_failures_total", COUNTER, TABLE(group_failures), NULL, NULL,
	  "Attempts to show positions of the table that failed; reading does not depend on it." },

	{ "kafka_cache_product_reads_total", COUNTER, PRODUCT(reads), "outcome", outcome_of_read,
	  "Keys of the data product that were read, by what was there: a fresh row, a stale one, none "
	  "that may be shown." },
	{ "kafka_cache_product_computed_total", COUNTER, PRODUCT(computed), NULL, NULL,
	  "Calls of the product's function that gave an answer." },
	{ "kafka_cache_product_refreshes_total", COUNTER, PRODUCT(refreshes), NULL, NULL,
	  "Calls of the product's function by refreshers." },
	{ "kafka_cache_product_shared_total", COUNTER, PRODUCT(shared), NULL, NULL,
	  "Misses that were answered by what another session was computing." },
	{ "kafka_cache_product_failures_total", COUNTER, PRODUCT(failures), NULL, NULL,
	  "Calls of the product's function that raised an error." },
	{ "kafka_cache_product_not_kept_total", COUNTER, PRODUCT(not_kept), NULL, NULL,
	  "Computed rows that are not in the topic, as Kafka could not be written to." },
	{ "kafka_cache_refresh_queue_keys", GAUGE, PRODUCT(queued), NULL, NULL,
	  "Keys of the product that are to be computed anew, or are right now." },
	{ "kafka_cache_refresh_queue_failing", GAUGE, PRODUCT(failing), NULL, NULL,
	  "Keys among them whose last attempt failed." },
	{ "kafka_cache_refresh_queue_oldest_seconds", GAUGE, PRODUCT(oldest), NULL, NULL,
	  "Age of the oldest request among them; 0: there is none." },

	{ "kafka_cache_consumer_lag", GAUGE, PARTITION(lag), NULL, NULL,
	  "Offsets between the position and the end of the partition, as far as known." },
	{ "kafka_cache_last_seen_offset", GAUGE, PARTITION(last_seen), NULL, NULL,
	  "The last offset that has been passed; -1: none." },
	{ "kafka_cache_log_start_offset", GAUGE, PARTITION(log_start), NULL, NULL,
	  "The first offset that the log still has." },
	{ "kafka_cache_log_end_offset", GAUGE, PARTITION(log_end), NULL, NULL,
	  "The offset after the last one that the broker is known to have." },
	/* clang-format on */
};

const int kcf_nmetrics = lengthof(kcf_metrics);
