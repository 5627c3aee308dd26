/*
 * proc_consumer.c
 *		What a consumer does all day: its tables' turns, and the publishing of what they did.
 *
 * All that must survive this process lies in shared memory: stores, positions, counters. A consumer
 * that comes takes over what it finds there; one that goes, however it goes, first publishes what it
 * has applied and the positions that belong to it, so that nothing is loaded twice.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "guc.h"
#include "kafka.h"
#include "proc.h"
#include "registry.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Time for applying, of one feed in one turn; shared when many have something to apply. */
#define SLICE_US 10000
#define MIN_SLICE_US 2000
/* What one feed may hold back at least, however many share kafka_cache.load_queue. */
#define MIN_SPOOL_BYTES ((Size) 4 * 1024 * 1024)
/* A definition is locked by somebody: looked at again after that. */
#define DEFINE_RETRY_MS 100
/* A store that is being written all the time may never be quite tidy. */
#define FINISH_PATIENCE SECONDS(2)

KcfConsumer kcf_consumer;

static KcfMoment last_tick = 0;

void
kcf_consumer_say(void)
{
	const char *trouble = kcf_consumer_group_trouble();
	int tables = list_length(kcf_consumer.tables);

	kcf_worker_say("running", trouble ? "%d table%s; not shown to lag tools: %s" : "%d table%s",
				   tables, tables == 1 ? "" : "s", trouble);
}

/* The sequence that the next publish makes visible. */
KcfSeq
kcf_consumer_next_seq(void)
{
	return kcf_clock_published(kcf_consumer.database, kcf_consumer.clock) + 1;
}

void
kcf_consumer_revoke_old_pins(void)
{
	kcf_pins_revoke_older(kcf_consumer.database, kcf_consumer.clock,
						  kcf_clock_published(kcf_consumer.database, kcf_consumer.clock),
						  GetCurrentTimestamp() - SECONDS(1) * kcf_guc_max_pin_age);
}

/* ---- turns --------------------------------------------------------------------------------- */

static void
show_state(KcfConsumerTable *table, bool texts)
{
	KcfFeedState state;

	if (table->follow)
	{
		kcf_feed_state(table->follow, &state);
		if (state.text[0] == '\0' && table->load)
		{
			KcfFeedState load;

			kcf_feed_state(table->load, &load);
			snprintf(state.text, sizeof(state.text), "being loaded again: %.200s",
					 load.text[0] ? load.text : kcf_table_state_name(load.state));
		}
		else if (state.text[0] == '\0' && table->load_note)
			strlcpy(state.text, table->load_note, sizeof(state.text));
	}
	else if (table->load)
		kcf_feed_state(table->load, &state);
	else if (table->problem[0] == '\0')
		return; /* begin_load has said it */

	if (table->crowded)
		strlcpy(state.text, "what was loaded waits until older contents are not read any more",
				sizeof(state.text));
	if (table->problem[0])
	{
		state.state = KCF_TABLE_FAILED;
		strlcpy(state.text, table->problem, sizeof(state.text));
	}
	if (texts || table->show || pg_atomic_read_u32(&table->shared->state) != state.state)
		kcf_table_set_state(table->shared, state.state, state.text[0] ? "%s" : NULL, state.text);
	table->show = false;
}

static void
for_each_feed(void (*what)(KcfFeed *feed))
{
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		if (table->follow)
			what(table->follow);
		if (table->load)
			what(table->load);
	}
}

static int nbusy;
static bool any_settled;

static void
count_busy(KcfFeed *feed)
{
	if (kcf_feed_busy(feed))
		nbusy++;
}

static void
settle(KcfFeed *feed)
{
	any_settled |= kcf_feed_settle(feed);
}

/* Once a second with all there is to say, and at once when the state itself is another one. */
static void
show_changed(bool all)
{
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		if (all || table->show || (table->follow && kcf_feed_news(table->follow)) ||
			(table->load && kcf_feed_news(table->load)))
			show_state(table, all);
	}
}

/* Make visible what was applied, then say so, and where that is. */
static void
publish(bool applied)
{
	if (applied || kcf_consumer.publish_wanted)
		kcf_clock_publish(kcf_consumer.database, kcf_consumer.clock);
	kcf_consumer.publish_wanted = false;
	show_changed(false);
	any_settled = false;
	for_each_feed(settle);
	if (any_settled || applied)
	{
		pg_atomic_uint32 *watched = &kcf_database(kcf_consumer.database)->publish_watched;

		kcf_wait_broadcast(kcf_consumer.database);
		if (unlikely(pg_atomic_read_u32(watched) != 0) && pg_atomic_exchange_u32(watched, 0) != 0)
			kcf_refreshers_want(kcf_consumer.database, 1);
	}
}

/* Housekeeping of one feed's store, and what depends on its being done. */
static void
tidy(KcfConsumerTable *table, KcfFeed *feed, KcfSeq published, KcfSeq min_pinned, KcfMoment now)
{
	bool more;

	if (kcf_feed_full_since(feed) != 0)
		kcf_consumer_revoke_old_pins();
	more = kcf_feed_housekeep(feed, published, min_pinned);
	kcf_consumer.publish_wanted |= more;
	if (feed == table->load && table->finishing &&
		(!more || now - table->finishing_since > FINISH_PATIENCE))
	{
		table->finished = true;
		kcf_consumer.publish_wanted = true;
	}
}

/* true: there is more to do at once. */
static bool
turn(void)
{
	KcfMoment now = kcf_moment_now();
	bool tick = now - last_tick >= SECONDS(1);
	bool applied = false;
	bool before;
	KcfSeq published;
	KcfSeq min_pinned;
	Size spool_bytes;
	int slice_us;
	ListCell *lc;

	pg_atomic_write_u64(&kcf_database(kcf_consumer.database)->turned_at[kcf_consumer.clock], now);
	nbusy = 0;
	for_each_feed(count_busy);
	slice_us = Max(SLICE_US * 2 / Max(nbusy, 2), MIN_SLICE_US);
	spool_bytes = Max((Size) kcf_guc_load_queue * 1024 * 1024 / Max(nbusy, 1), MIN_SPOOL_BYTES);

	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		kcf_consumer_tend_load(table, now);
		if (table->follow && !kcf_consumer_holds(table, now))
			applied |= kcf_feed_turn(table->follow, kcf_consumer_next_seq(), slice_us, spool_bytes);
		if (table->load)
			applied |= kcf_feed_turn(table->load, kcf_consumer_next_seq(), slice_us, spool_bytes);
		if (table->load && table->finished && !kcf_consumer_load_is_behind(table))
			kcf_consumer_serve_load(table, kcf_consumer_next_seq());
		CHECK_FOR_INTERRUPTS();
	}
	before = kcf_consumer.publish_wanted || applied;
	publish(applied);
	kcf_consumer_notify();
	kcf_consumer_tend_groups(now);

	if (before || tick)
	{
		published = kcf_clock_published(kcf_consumer.database, kcf_consumer.clock);
		min_pinned = kcf_pins_min(kcf_consumer.database, kcf_consumer.clock);
		foreach (lc, kcf_consumer.tables)
		{
			KcfConsumerTable *table = lfirst(lc);

			if (table->follow)
				tidy(table, table->follow, published, min_pinned, now);
			if (table->load)
				tidy(table, table->load, published, min_pinned, now);
			if (tick)
			{
				kcf_table_sweep(table->shared, min_pinned);
				kcf_consumer_tell_planners(table);
			}
		}
	}

	if (tick)
	{
		last_tick = now;
		if (kcf_consumer.leftovers)
			kcf_consumer_drop_leftovers();
		for_each_feed(kcf_feed_tick);
		kcf_consumer_call_coordinator();
		kcf_kafka_tick();
		show_changed(true);
	}
	nbusy = 0;
	for_each_feed(count_busy);
	return nbusy > 0 || kcf_consumer.publish_wanted;
}

/* ---- the process --------------------------------------------------------------------------- */

static void
stop_table(KcfConsumerTable *table)
{
	kcf_table_set_state(table->shared, KCF_TABLE_STOPPED, "its consumer process is not running");
}

/*
 * However this process leaves: what was applied becomes visible, and the positions say so. Called
 * while it still has shared memory; the clients end after that.
 */
static void
seal(int code, Datum arg)
{
	ListCell *lc;

	LWLockReleaseAll();
	publish(true);
	foreach (lc, kcf_consumer.tables)
		stop_table(lfirst(lc));
}

/*
 * Invalidations come with transactions; where nobody tells us of DDL, on a standby, they are all we
 * hear of it.
 */
static void
hear_of_changes(void)
{
	static KcfMoment last = 0;
	KcfMoment now = kcf_moment_now();

	if (now - last >= SECONDS(1))
	{
		last = now;
		StartTransactionCommand();
		CommitTransactionCommand();
	}
}

/* Milliseconds that may be slept. */
static long
time_to_sleep(bool busy)
{
	int64 notify_in;

	if (busy)
		return 0;
	if (kcf_consumer.define_again)
		return DEFINE_RETRY_MS;
	/* On a standby nobody tells of a first table. */
	if (kcf_consumer.tables == NIL && !kcf_consumer.leftovers && !RecoveryInProgress())
		return -1;
	notify_in = kcf_consumer_notify_in();
	return notify_in < 0 ? 1000 : Min((notify_in + 999) / 1000, 1000);
}

void
kcf_consumer_main(Datum arg)
{
	MemoryContext loop;
	uint64 changes = 0;
	uint32 ddl = 0;
	bool first = true;

	kcf_consumer.database = DatumGetInt32(arg) >> 8;
	kcf_consumer.clock = DatumGetInt32(arg) & 0xff;
	kcf_proc_start("consumer");
	kcf_proc_connect(kcf_consumer.database);
	kcf_arena_attach();
	kcf_kafka_init_exit();
	before_shmem_exit(seal, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);
	loop = AllocSetContextCreate(TopMemoryContext, "kafka_cache consumer", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		bool busy;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		if (first || kcf_consumer.define_again ||
			ddl != pg_atomic_read_u32(&kcf_database(kcf_consumer.database)->ddl) ||
			changes != kcf_catalog_changes())
		{
			/* Noted first: what changes while we read is read again. */
			ddl = pg_atomic_read_u32(&kcf_database(kcf_consumer.database)->ddl);
			changes = kcf_catalog_changes();
			kcf_consumer_read_catalogs();
			first = false;
		}
		busy = turn();
		kcf_proc_wait(time_to_sleep(busy));
		hear_of_changes();
	}
}
