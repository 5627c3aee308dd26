/*
 * proc_consumer_catalog.c
 *		Which tables a consumer has, and by which definitions.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "catalog_product.h"
#include "guc.h"
#include "registry.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* Run this in a transaction of its own; NULL, or the error that ended it. */
ErrorData *
kcf_consumer_attempt(void (*what)(KcfConsumerTable *table), KcfConsumerTable *table)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData *volatile edata = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PG_TRY();
	{
		what(table);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		/* An order to us, not a fault of the table. */
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return edata;
}

void
kcf_consumer_set_problem(KcfConsumerTable *table, ErrorData *edata)
{
	snprintf(table->problem, sizeof(table->problem), "%s%s%s", edata->message,
			 edata->detail ? ": " : "", edata->detail ? edata->detail : "");
	FreeErrorData(edata);
}

static KcfTableDef *new_def;
static KcfServerOptions *new_server;

static void
read_definition(KcfConsumerTable *table)
{
	new_def = kcf_catalog_table(table->relid, TopMemoryContext);
}

static void
read_server(KcfConsumerTable *table)
{
	MemoryContext old = MemoryContextSwitchTo(new_def->mcxt);

	new_server = kcf_options_server(new_def->serverid, new_def->owner);
	MemoryContextSwitchTo(old);
}

static KcfConsumerTable *
find_table(Oid relid)
{
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
		if (((KcfConsumerTable *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

static bool
is_mine(Oid relid)
{
	return kcf_guc_consumers_per_database == 1 ||
		   hash_bytes_uint32(relid) % kcf_guc_consumers_per_database == (uint32) kcf_consumer.clock;
}

static void
drop_definition(KcfConsumerTable *table)
{
	if (table->def)
		kcf_catalog_free(table->def);
	table->def = NULL;
	table->server = NULL;
}

/* What is left of it in shared memory is a leftover from now on. */
static void
forget_table(KcfConsumerTable *table)
{
	kcf_consumer_close_feed(&table->follow);
	kcf_consumer_close_feed(&table->load);
	drop_definition(table);
	kcf_consumer.tables = list_delete_ptr(kcf_consumer.tables, table);
	pfree(table);
}

static void
redefine_follow(KcfConsumerTable *table)
{
	kcf_feed_redefine(table->follow, new_def, new_server,
					  table->def->client_fingerprint != new_def->client_fingerprint ||
						  (table->server == NULL) != (new_server == NULL));
}

static void
redefine_load(KcfConsumerTable *table)
{
	kcf_feed_redefine(table->load, new_def, new_server,
					  table->def->client_fingerprint != new_def->client_fingerprint ||
						  (table->server == NULL) != (new_server == NULL));
}

/* The same rows by a new definition: feeds keep their stores and positions. */
static ErrorData *
exchange_definition(KcfConsumerTable *table)
{
	ErrorData *edata = NULL;

	if (table->follow)
		edata = kcf_consumer_attempt(redefine_follow, table);
	if (table->load && edata == NULL)
		edata = kcf_consumer_attempt(redefine_load, table);
	if (edata == NULL)
	{
		kcf_catalog_free(table->def);
		table->def = new_def;
		table->server = new_server;
	}
	return edata;
}

static bool
differ(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") != 0;
}

/* Whether, where and how listeners are told. */
static bool
notifies_otherwise(const KcfTableOptions *a, const KcfTableOptions *b)
{
	return a->notify_payload != b->notify_payload || differ(a->notify, b->notify);
}

/*
 * A product may have rules that a refresher is to watch over, and nobody but us is there to say so when the server
 * has started.
 */
static void
call_refresher(const KcfTableDef *old, const KcfTableDef *new)
{
	if (!kcf_is_product(new))
		return;
	if (old == NULL || differ(old->options->compute, new->options->compute) ||
		old->options->refresh_every != new->options->refresh_every ||
		differ(old->options->domain, new->options->domain))
		kcf_refreshers_want(kcf_consumer.database, 1);
}

/* Bring what we know of a table in line with the catalogs. */
static void
define(Oid relid)
{
	KcfConsumerTable *table = find_table(relid);
	KcfConsumerTable probe = { .relid = relid };
	ErrorData *edata;
	MemoryContext old;

	new_def = NULL;
	new_server = NULL;
	edata = kcf_consumer_attempt(read_definition, &probe);
	if (edata && edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		kcf_consumer.define_again = true;
		if (table)
			table->seen = true;
		FreeErrorData(edata);
		return;
	}
	if (edata && edata->sqlerrcode == ERRCODE_UNDEFINED_TABLE)
	{
		FreeErrorData(edata);
		return;
	}
	if (table == NULL)
	{
		KcfTable *shared =
			kcf_table_create(MyDatabaseId, relid, kcf_consumer.database, kcf_consumer.clock);

		if (shared == NULL)
		{
			ereport(LOG, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("no room for another cached table: kafka_cache.max_tables is %d",
								 kcf_guc_max_tables),
						  errhint("Raise kafka_cache.max_tables and restart the server.")));
			if (new_def)
				kcf_catalog_free(new_def);
			return;
		}
		old = MemoryContextSwitchTo(TopMemoryContext);
		table = palloc0(sizeof(KcfConsumerTable));
		table->relid = relid;
		table->rows_told = -1;
		table->shared = shared;
		kcf_consumer.tables = lappend(kcf_consumer.tables, table);
		MemoryContextSwitchTo(old);
	}
	table->seen = true;
	table->problem[0] = '\0';
	if (edata)
	{
		/* Nobody can read it by a definition that is broken. */
		kcf_consumer_set_problem(table, edata);
		kcf_consumer_start_over(table);
		drop_definition(table);
		return;
	}

	edata = kcf_consumer_attempt(read_server, table);
	if (edata)
	{
		new_server = NULL;
		kcf_consumer_set_problem(table, edata);
	}
	if (pg_atomic_read_u64(&table->shared->account.limit) != (uint64) new_def->options->max_bytes)
		table->load_at = 0; /* what had no room may have it now */
	pg_atomic_write_u64(&table->shared->account.limit, new_def->options->max_bytes);
	kcf_table_set_identity(table->shared, new_def->owner, new_def->options->topic);

	call_refresher(table->def, new_def);
	if (table->def == NULL)
	{
		table->def = new_def;
		table->server = new_server;
		kcf_consumer_take_over(table);
	}
	else if (table->def->fingerprint != new_def->fingerprint)
	{
		kcf_consumer_start_over(table);
		drop_definition(table);
		table->def = new_def;
		table->server = new_server;
	}
	else if (table->def->client_fingerprint != new_def->client_fingerprint ||
			 table->def->owner != new_def->owner ||
			 (table->server == NULL) != (new_server == NULL) ||
			 notifies_otherwise(table->def->options, new_def->options))
	{
		edata = exchange_definition(table);
		if (edata)
		{
			kcf_consumer_set_problem(table, edata);
			kcf_consumer_start_over(table);
			drop_definition(table);
			table->def = new_def;
			table->server = new_server;
		}
	}
	else
		kcf_catalog_free(new_def);
}

static List *found_tables = NIL; /* by the last reading of the catalogs */
static bool found_extension;

static void
read_tables(KcfConsumerTable *unused)
{
	found_extension = kcf_catalog_has_extension();
	if (found_extension)
	{
		List *oids = kcf_catalog_tables();
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		found_tables = list_copy(oids);
		MemoryContextSwitchTo(old);
	}
}

/* In shared memory, from us or an earlier process of ours, and not in the catalogs any more? */
static bool
is_leftover(const KcfTable *shared)
{
	return OidIsValid(shared->relid) && shared->dboid == MyDatabaseId &&
		   shared->clock == kcf_consumer.clock && find_table(shared->relid) == NULL &&
		   !list_member_oid(found_tables, shared->relid); /* one that is locked is still read */
}

/*
 * Nobody need have locked the tables that ceased to be ours: their wrapper lost its handler, or the
 * extension its wrapper. So their readers are waited for, as in kcf_database_free.
 */
void
kcf_consumer_drop_leftovers(void)
{
	bool withdrawn = false;
	bool crowded = kcf_table_count() >= kcf_guc_max_tables;
	KcfSeq min_pinned;

	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *shared = kcf_table_at(i);

		if (is_leftover(shared) && (kcf_table_is_served(shared) || shared->loading))
		{
			kcf_table_withdraw(shared, kcf_consumer_next_seq());
			kcf_table_load(shared, NULL, 0);
			withdrawn = true;
		}
	}
	if (withdrawn)
		(void) kcf_clock_publish(kcf_consumer.database, kcf_consumer.clock);

	kcf_consumer.leftovers = false;
	min_pinned = kcf_pins_min(kcf_consumer.database, kcf_consumer.clock);
	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *shared = kcf_table_at(i);

		if (!is_leftover(shared))
			continue;
		if (kcf_table_sweep(shared, min_pinned))
			kcf_consumer.leftovers = true;
		else
		{
			kcf_table_drop(shared);
			/* Whoever has found no place for a table, maybe we ourselves a moment ago, looks again. */
			if (crowded)
				kcf_database_ddl(MyDatabaseId);
			crowded = false;
		}
	}
}

/* Where there are products somebody has to look at their rules and intervals, and again when they may have changed. */
static bool coordinator_called = false;

void
kcf_consumer_call_coordinator(void)
{
	ListCell *lc;

	/* Until it is promoted a standby needs none. */
	if (coordinator_called || RecoveryInProgress())
		return;
	coordinator_called = true;
	foreach (lc, kcf_consumer.tables)
	{
		const KcfTableDef *def = ((KcfConsumerTable *) lfirst(lc))->def;

		if (def && def->options->compute)
		{
			pg_atomic_fetch_add_u32(&kcf_database(kcf_consumer.database)->rules_news, 1);
			kcf_refreshers_want(kcf_consumer.database, 1);
			break;
		}
	}
}

void
kcf_consumer_read_catalogs(void)
{
	ErrorData *edata;
	ListCell *lc;
	List *gone = NIL;

	kcf_consumer.define_again = false;
	list_free(found_tables);
	found_tables = NIL;
	found_extension = false;
	edata = kcf_consumer_attempt(read_tables, NULL);
	if (edata)
		ReThrowError(edata);

	foreach (lc, kcf_consumer.tables)
		((KcfConsumerTable *) lfirst(lc))->seen = false;
	foreach (lc, found_tables)
		if (is_mine(lfirst_oid(lc)))
			define(lfirst_oid(lc));
	foreach (lc, kcf_consumer.tables)
		if (!((KcfConsumerTable *) lfirst(lc))->seen)
			gone = lappend(gone, lfirst(lc));
	foreach (lc, gone)
		forget_table(lfirst(lc));
	list_free(gone);
	kcf_consumer_drop_leftovers();

	kcf_database_report(kcf_consumer.database, found_extension);
	if (!found_extension)
		proc_exit(0);
	kcf_consumer_define_groups();
	kcf_consumer_say();
	coordinator_called = false;
	kcf_consumer_call_coordinator();
}
