/*
 * status_workers.c
 *		The view kafka_cache.workers and the function kafka_cache.settings().
 */
#include "postgres.h"

#include "status.h"

#include "compat.h"
#include "guc.h"
#include "kafka.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(kafka_cache_workers);
PG_FUNCTION_INFO_V1(kafka_cache_settings);

typedef struct WorkerRow
{
	KcfWorker worker;
	NameData database; /* empty: none */
	const char *kind;
} WorkerRow;

static void
put_worker(ReturnSetInfo *rsinfo, const WorkerRow *row, bool monitor)
{
	const KcfWorker *worker = &row->worker;
	Datum values[7];
	bool nulls[7] = { false };

	nulls[0] = worker->pid == 0;
	values[0] = Int32GetDatum(worker->pid);
	values[1] = CStringGetTextDatum(row->kind);
	nulls[2] = NameStr(row->database)[0] == '\0';
	values[2] = NameGetDatum(&row->database);
	values[3] = CStringGetTextDatum(worker->state[0] ? worker->state : "starting");
	nulls[4] = worker->started_at == 0;
	values[4] = TimestampTzGetDatum(worker->started_at);
	values[5] = Int64GetDatum(worker->restarts);
	nulls[6] = !monitor || worker->text[0] == '\0';
	values[6] = CStringGetTextDatum(worker->text);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Everyone sees the launcher and the workers of the own database; what is said of them and the rest, monitors. */
Datum
kafka_cache_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool monitor = kcf_status_is_monitor();
	WorkerRow *rows = palloc0((1 + KCF_MAX_DATABASES * KCF_MAX_WORKERS) * sizeof(WorkerRow));
	int n = 1;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	rows[0].worker = *kcf_launcher_worker();
	rows[0].kind = "launcher";
	for (int i = 0; i < KCF_MAX_DATABASES; i++)
	{
		KcfDatabase *db = kcf_database(i);

		/* A first visit is no worker of the database yet, unless it cannot be made. */
		if (!OidIsValid(db->dboid) || db->state == KCF_DATABASE_ABSENT ||
			(!db->visited && db->workers[0].backoff_ms == 0) ||
			(!monitor && db->dboid != MyDatabaseId))
			continue;
		for (int k = 0; k < kcf_guc_consumers_per_database; k++)
		{
			rows[n].worker = db->workers[k];
			namestrcpy(&rows[n].database, db->name);
			rows[n].kind = "consumer";
			n++;
		}
		/* Where nobody writes there is none, and none is missing. */
		if (db->workers[KCF_WORKER_PRODUCER].pid != 0 || kcf_producer_wanted(i))
		{
			rows[n].worker = db->workers[KCF_WORKER_PRODUCER];
			namestrcpy(&rows[n].database, db->name);
			rows[n].kind = "producer";
			n++;
		}
		for (int k = 0; k < KCF_MAX_REFRESHERS; k++)
		{
			const KcfWorker *worker = &db->workers[KCF_WORKER_REFRESHER + k];

			if (worker->pid == 0 && k >= Min(kcf_refreshers_wanted(i), kcf_guc_refresh_workers))
				continue;
			rows[n].worker = *worker;
			namestrcpy(&rows[n].database, db->name);
			rows[n].kind = "refresher";
			n++;
		}
	}
	LWLockRelease(kcf_registry_lock);

	for (int i = 0; i < n; i++)
		put_worker(rsinfo, &rows[i], monitor);
	return (Datum) 0;
}

static void
put_setting(ReturnSetInfo *rsinfo, const char *name, const char *setting, const char *meaning)
{
	Datum values[3];
	bool nulls[3] = { false };

	values[0] = CStringGetTextDatum(name);
	nulls[1] = setting == NULL;
	values[1] = setting ? CStringGetTextDatum(setting) : (Datum) 0;
	values[2] = CStringGetTextDatum(meaning);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Versions of everything, limits, and what is configured, for bug reports. Nothing of servers or mappings. */
Datum
kafka_cache_settings(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *name;
		const char *meaning;
	} gucs[] = {
		{ "kafka_cache.memory", "shared memory for all cached tables" },
		{ "kafka_cache.max_tables", "most cached tables of the server" },
		{ "kafka_cache.databases", "databases whose cached tables are kept" },
		{ "kafka_cache.consumers_per_database", "consumer processes of each database" },
		{ "kafka_cache.max_pin_age", "age from which a snapshot may be canceled for its memory" },
		{ "kafka_cache.max_errors", "most rows of kafka_cache.errors for each table" },
		{ "kafka_cache.load_queue", "what a consumer may hold ahead of its loading tables" },
		{ "kafka_cache.deletion_memory", "memory for each table's deleted keys" },
		{ "kafka_cache.when_not_ready", "what a query does with a table that is not loaded" },
		{ "kafka_cache.wait_timeout", "longest time that a query waits for its tables" },
		{ "kafka_cache.max_staleness", "oldest contents that a query accepts; 0: any" },
		{ "kafka_cache.read_your_writes",
		  "whether a query waits for what its session has written" },
		{ "kafka_cache.produce_timeout", "longest wait of a write" },
		{ "kafka_cache.producer_idle_timeout", "when a producer without work leaves" },
		{ "kafka_cache.notify_interval", "shortest time between notifications of a table" },
		{ "kafka_cache.refresh_workers", "most processes that compute data products anew" },
		{ "kafka_cache.refresh_load", "most of their time that they compute, in percent" },
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);
	put_setting(rsinfo, "postgresql", GetConfigOption("server_version", false, false),
				"version of the server");
	put_setting(rsinfo, "kafka_cache_fdw", KCF_VERSION, "version of the loaded library");
	put_setting(rsinfo, "librdkafka", kcf_kafka_version(), "version of the Kafka client library");
	put_setting(rsinfo, "jansson", kcf_jansson_version(),
				"version of the library for control data in JSON");
	put_setting(rsinfo, "recovery", RecoveryInProgress() ? "on" : "off",
				"is the server a standby?");
	for (int i = 0; i < (int) lengthof(gucs); i++)
		put_setting(rsinfo, gucs[i].name, GetConfigOptionByName(gucs[i].name, NULL, false),
					gucs[i].meaning);
	put_setting(rsinfo, "memory_size", psprintf(UINT64_FORMAT, (uint64) kcf_arena_size()),
				"bytes reserved for cached tables");
	put_setting(rsinfo, "memory_used", psprintf(UINT64_FORMAT, (uint64) kcf_arena_used()),
				"bytes of them in use");
	put_setting(rsinfo, "tables", psprintf("%d", kcf_table_count()),
				"cached tables in all databases");
	put_setting(rsinfo, "limit_databases", psprintf("%d", KCF_MAX_DATABASES),
				"most databases of a server that have cached tables");
	put_setting(rsinfo, "limit_key_columns", psprintf("%d", KCF_MAX_KEYS),
				"most key columns of a table");
	return (Datum) 0;
}
