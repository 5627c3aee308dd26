/*
 * proc_consumer_load.c
 *		Loads of a table: begun, given up, finished; and what an earlier process has left of them.
 *
 * A table without contents is loaded for all to wait for. One with contents goes on serving and
 * following them, while a second feed fills another store beside; when that is complete it takes the
 * first one's place.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "errlog.h"
#include "registry.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

/* Beside a served table: a load that finds no memory for so long is given up. */
#define FULL_PATIENCE SECONDS(5)
/* So long the old contents may stand still for the new ones; then they go on for some time. */
#define HOLD_PATIENCE SECONDS(1)
#define HOLD_PAUSE SECONDS(10)
#define RELOAD_RETRY_MIN SECONDS(10)
#define RELOAD_RETRY_MAX SECONDS(600)

static void
open_load(KcfConsumerTable *table)
{
	table->load = kcf_feed_open(table->shared, table->def, table->server, true);
}

static void
open_follow(KcfConsumerTable *table)
{
	table->follow = kcf_feed_open(table->shared, table->def, table->server, false);
}

void
kcf_consumer_close_feed(KcfFeed **feed)
{
	if (*feed)
		kcf_feed_close(*feed);
	*feed = NULL;
}

/* End a load, and what it has brought. */
void
kcf_consumer_drop_load(KcfConsumerTable *table)
{
	KcfErrorLog *errors;

	kcf_consumer_close_feed(&table->load);
	table->finishing = table->finished = table->crowded = false;
	kcf_consumer.publish_wanted |= table->shared->loading != NULL;
	kcf_table_load(table->shared, NULL, 0);
	kcf_table_set_partitions(table->shared, &table->shared->load, 0);
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	errors = table->shared->load_errors;
	table->shared->load_errors = NULL;
	LWLockRelease(kcf_registry_lock);
	if (errors)
		kcf_errlog_destroy(errors, &table->shared->account);
}

/* Counters and errors of a load begin anew: those in view when nothing is served, else others. */
static void
reset_account_of_load(KcfConsumerTable *table)
{
	KcfTable *shared = table->shared;
	KcfCounters counters = { .reloads = shared->counters.reloads };
	KcfErrorLog *errors;

	if (kcf_table_is_served(shared))
	{
		shared->load_counters = counters;
		errors = kcf_errlog_create(&shared->account);
		LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
		shared->load_errors = errors;
		LWLockRelease(kcf_registry_lock);
		return;
	}
	kcf_table_set_counters(shared, &counters);
	if (shared->errors)
		kcf_errlog_clear(shared->errors);
	else
	{
		errors = kcf_errlog_create(&shared->account);
		LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
		shared->errors = errors;
		LWLockRelease(kcf_registry_lock);
	}
}

static void
begin_load(KcfConsumerTable *table, KcfMoment now)
{
	KcfTable *shared = table->shared;
	bool beside = kcf_table_is_served(shared);
	KcfStore *store;
	ErrorData *edata;

	kcf_consumer_drop_load(table);
	store = kcf_store_create(&shared->account);
	if (store == NULL)
	{
		table->load_at = now + SECONDS(1);
		if (!beside)
			kcf_table_set_state(
				shared, KCF_TABLE_FULL,
				"no memory to begin with: max_bytes or kafka_cache.memory is used up");
		return;
	}
	reset_account_of_load(table);
	kcf_table_load(shared, store, table->def->fingerprint);
	if (!beside)
		pg_atomic_write_u64(&shared->fresh_at, 0);
	edata = kcf_consumer_attempt(open_load, table);
	if (edata)
	{
		kcf_consumer_set_problem(table, edata);
		kcf_consumer_drop_load(table);
		return;
	}
	kcf_feed_set_loading(table->load, true);
	table->show = true;
}

/* The served contents go, a load begins; readers wait as for a new table. */
void
kcf_consumer_start_over(KcfConsumerTable *table)
{
	if (table->follow && kcf_feed_notify(table->follow))
		kcf_notify_afresh(table->shared);
	kcf_consumer_close_feed(&table->follow);
	if (kcf_table_is_served(table->shared))
	{
		kcf_table_withdraw(table->shared, kcf_consumer_next_seq());
		kcf_consumer.publish_wanted = true;
	}
	kcf_consumer_drop_load(table);
	table->reload_delay = 0;
	table->load_at = 0;
	table->load_note = NULL;
}

bool
kcf_consumer_load_is_behind(const KcfConsumerTable *table)
{
	/* of positions that cannot be trusted nobody asks */
	return table->load && table->follow && !kcf_feed_spoilt(table->follow) &&
		   kcf_feed_is_behind(table->load, table->follow);
}

bool
kcf_consumer_holds(KcfConsumerTable *table, KcfMoment now)
{
	if (!table->finished || !kcf_consumer_load_is_behind(table))
	{
		table->held_since = 0;
		return false;
	}
	if (table->held_since == 0 || now - table->held_since > HOLD_PAUSE)
		table->held_since = now;
	return now - table->held_since <= HOLD_PATIENCE;
}

/* The load is complete and its store ready: from this sequence on it is what readers see. */
void
kcf_consumer_serve_load(KcfConsumerTable *table, KcfSeq seq)
{
	KcfTable *shared = table->shared;
	bool beside = kcf_table_is_served(shared);

	kcf_feed_remember_from_here(table->load);
	if (!kcf_table_serve(shared, kcf_feed_store(table->load), seq, table->def->fingerprint))
	{
		/* Old contents are still being read: later. Who has kept them for too long gives way. */
		kcf_consumer_revoke_old_pins();
		table->show |= !table->crowded;
		table->crowded = true;
		return;
	}
	table->crowded = false;
	kcf_consumer_close_feed(&table->follow);
	if (beside)
	{
		KcfErrorLog *old;

		LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
		old = shared->errors;
		shared->errors = shared->load_errors;
		shared->load_errors = NULL;
		LWLockRelease(kcf_registry_lock);
		if (old)
			kcf_errlog_destroy(old, &shared->account);
	}
	table->follow = table->load;
	table->load = NULL;
	table->finishing = table->finished = false;
	table->reload_delay = 0;
	table->load_note = NULL;
	table->show = true;
	kcf_feed_served(table->follow, beside);
	pg_atomic_write_u64(&shared->loaded_at, GetCurrentTimestamp());
	kcf_consumer.publish_wanted = true;
}

/* A load beside what is served has to be done, or done again: what for? NULL: none. */
static const char *
reload_reason(KcfConsumerTable *table)
{
	if (pg_atomic_read_u32(&table->shared->reload_wanted) != table->shared->reload_done)
		return "reload() was called";
	return kcf_feed_spoilt(table->follow);
}

/* See whether a load is to begin, to be given up, or to be served. */
void
kcf_consumer_tend_load(KcfConsumerTable *table, KcfMoment now)
{
	const char *reason;

	if (table->load && kcf_feed_spoilt(table->load))
	{
		ereport(LOG, (errmsg("loading cached table %s begins anew: %s", table->def->name,
							 kcf_feed_spoilt(table->load))));
		kcf_consumer_drop_load(table);
		table->load_at = now + SECONDS(1);
	}
	if (table->load && table->follow && kcf_feed_full_since(table->load) != 0 &&
		now - kcf_feed_full_since(table->load) > FULL_PATIENCE)
	{
		kcf_consumer_drop_load(table);
		table->reload_delay = Min(Max(table->reload_delay * 2, RELOAD_RETRY_MIN), RELOAD_RETRY_MAX);
		table->load_at = now + table->reload_delay;
		table->load_note = "a reload found no memory and is tried again";
	}
	if (table->load == NULL && now >= table->load_at && table->def)
	{
		if (table->follow == NULL)
			begin_load(table, now);
		else if ((reason = reload_reason(table)) != NULL)
		{
			uint32 wanted = pg_atomic_read_u32(&table->shared->reload_wanted);

			ereport(LOG, (errmsg("cached table %s is loaded again: %s", table->def->name, reason)));
			begin_load(table, now);
			if (table->load)
				table->shared->reload_done = wanted;
		}
	}
	if (table->load && !table->finishing && kcf_feed_complete(table->load))
	{
		kcf_feed_set_loading(table->load, false);
		table->finishing = true;
		table->finishing_since = now;
		kcf_consumer.publish_wanted = true;
	}
}

/* Take over what an earlier process of ours has left of this table. */
void
kcf_consumer_take_over(KcfConsumerTable *table)
{
	KcfTable *shared = table->shared;
	ErrorData *edata = NULL;

	if (kcf_table_is_served(shared))
	{
		if (shared->gens[0].fingerprint == table->def->fingerprint)
			edata = kcf_consumer_attempt(open_follow, table);
		else
		{
			if (table->def->options->notify)
				kcf_notify_afresh(shared);
			kcf_table_withdraw(shared, kcf_consumer_next_seq());
			kcf_consumer.publish_wanted = true;
		}
	}
	if (shared->loading && edata == NULL)
	{
		if (shared->loading_fingerprint == table->def->fingerprint)
		{
			edata = kcf_consumer_attempt(open_load, table);
			if (edata == NULL)
				kcf_feed_set_loading(table->load, true);
		}
		else
			kcf_consumer_drop_load(table);
	}
	if (edata)
	{
		kcf_consumer_set_problem(table, edata);
	}
}
