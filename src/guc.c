/*
 * guc.c
 *		The settings: kafka_cache.*
 */
#include "postgres.h"

#include <limits.h>

#include "guc.h"

#include "utils/guc.h"
#include "utils/varlena.h"

int kcf_guc_memory = 1024;
int kcf_guc_max_tables = 256;
char *kcf_guc_databases = NULL;
int kcf_guc_consumers_per_database = 1;
int kcf_guc_max_pin_age = 600;
int kcf_guc_max_errors = 10000;
int kcf_guc_load_queue = 256;
int kcf_guc_deletion_memory = 16384;
int kcf_guc_when_not_ready = KCF_NOT_READY_WAIT;
int kcf_guc_wait_timeout = 10000;
int kcf_guc_max_staleness = 0;
int kcf_guc_produce_timeout = 30000;
bool kcf_guc_read_your_writes = true;
int kcf_guc_producer_idle_timeout = 60;
int kcf_guc_notify_interval = 100;
int kcf_guc_refresh_workers = 1;
int kcf_guc_refresh_load = 50;

static const struct config_enum_entry when_not_ready_values[] = {
	{ "wait", KCF_NOT_READY_WAIT, false },
	{ "error", KCF_NOT_READY_ERROR, false },
	{ "partial", KCF_NOT_READY_PARTIAL, false },
	{ NULL, 0, false }
};

static bool check_databases(char **newval, void **extra, GucSource source);

void
kcf_guc_init(void)
{
	DefineCustomIntVariable(
		"kafka_cache.memory", "Shared memory for all cached tables of this server.",
		"It is reserved when the server starts. A table that finds no room stops and says so.",
		&kcf_guc_memory, 1024, 16, 1 << 20, PGC_POSTMASTER, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.max_tables", "Most cached tables in all databases of this server.", NULL,
		&kcf_guc_max_tables, 256, 1, 10000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"kafka_cache.databases",
		"Databases whose cached tables are kept: a comma-separated list, or * for all.", NULL,
		&kcf_guc_databases, "*", PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.consumers_per_database",
		"Consumer processes of each database; its tables are dealt out among them.", NULL,
		&kcf_guc_consumers_per_database, 1, 1, 8, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.max_pin_age",
		"Age from which a snapshot that keeps memory from being freed may be canceled.",
		"Its statement then fails with \"snapshot too old\".", &kcf_guc_max_pin_age, 600, 1,
		INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("kafka_cache.max_errors",
							"Most rows of kafka_cache.errors for each table.",
							"Beyond it bad records are only counted.", &kcf_guc_max_errors, 10000,
							0, 1000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.load_queue", "Records that a consumer may hold ahead of its loading tables.",
		"Of all its tables together, in memory of its own; about a second's worth keeps Kafka's "
		"client from pausing.",
		&kcf_guc_load_queue, 256, 1, 2047, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.deletion_memory",
		"Memory for each table's deleted keys, which catching up by position needs.", NULL,
		&kcf_guc_deletion_memory, 16384, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomEnumVariable(
		"kafka_cache.when_not_ready", "What a query does with a table that is not loaded yet.",
		"wait: up to kafka_cache.wait_timeout; error: fail at once; partial: read what is there.",
		&kcf_guc_when_not_ready, KCF_NOT_READY_WAIT, when_not_ready_values, PGC_USERSET, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.wait_timeout", "Longest time that a query waits for its tables to be ready.",
		NULL, &kcf_guc_wait_timeout, 10000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.max_staleness",
		"Queries fail rather than read a table that has been cut off for longer; 0 turns this off.",
		NULL, &kcf_guc_max_staleness, 0, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.produce_timeout", "Longest time that a write waits for the brokers.",
		"It then fails, and says whether anything may have been written.", &kcf_guc_produce_timeout,
		30000, 1000, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"kafka_cache.read_your_writes",
		"Whether a query waits until its tables have what this session has written to them.",
		"Up to kafka_cache.wait_timeout, then it fails.", &kcf_guc_read_your_writes, true,
		PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("kafka_cache.producer_idle_timeout",
							"Time without a write after which a database's producer leaves.", NULL,
							&kcf_guc_producer_idle_timeout, 60, 1, INT_MAX / 1000, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.notify_interval", "Shortest time between two notifications of one table.",
		"A change is told at once when the last notification is older; what changes until then "
		"is told together.",
		&kcf_guc_notify_interval, 100, 0, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"kafka_cache.refresh_workers",
		"Most processes of each database that compute data products anew.",
		"They are started when there is something to do; 0: nothing is refreshed.",
		&kcf_guc_refresh_workers, 1, 0, 8, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("kafka_cache.refresh_load",
							"Most of its time that a refresher computes, in percent.",
							"It rests after each refresh, in proportion.", &kcf_guc_refresh_load,
							50, 1, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("kafka_cache");
}

/* Is name in the list? The list is changed by splitting, so it is the caller's copy. */
static bool
in_list(char *list, const char *name, bool *valid)
{
	List *names;
	ListCell *lc;
	bool found = false;

	*valid = SplitIdentifierString(list, ',', &names);
	if (*valid)
	{
		foreach (lc, names)
		{
			const char *one = (const char *) lfirst(lc);

			if (strcmp(one, "*") == 0 || (name && strcmp(one, name) == 0))
				found = true;
		}
	}
	list_free(names);
	return found;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	bool valid;

	(void) in_list(copy, NULL, &valid);
	pfree(copy);
	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	return valid;
}

bool
kcf_guc_database_listed(const char *name)
{
	char *copy = pstrdup(kcf_guc_databases);
	bool valid;
	bool found = in_list(copy, name, &valid);

	pfree(copy);
	return found;
}
