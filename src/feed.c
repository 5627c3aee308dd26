/*
 * feed.c
 *		The consumption of one table: its life and its turns.
 */
#include "postgres.h"

#include "feed_internal.h"

#include "guc.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"

/* Taken over from the library in one turn at most. */
#define PULL_RECORDS 60000
/*
 * Tombstones are kept for delete.retention.ms, a day by default. Who was not at the end for half of that may have
 * missed some.
 */
#define MOST_HOURS_AWAY 12
/* What a feed that is full may hold back for when there is room. */
#define FULL_SPOOL_BYTES ((Size) 1024 * 1024)
#define FULL_RETRY SECONDS(1)

/* ---- life ---------------------------------------------------------------------------------- */

/* The array of the registry that this feed writes. */
static KcfPartitions *
shared_partitions(const KcfFeed *feed)
{
	return feed->load ? &feed->table->load : &feed->table->followed;
}

static void
read_partition(KcfFeed *feed, int i)
{
	KcfPartition *shared = &shared_partitions(feed)->array[i];
	FeedPartition *partition = &feed->partitions[i];
	uint64 target = pg_atomic_read_u64(&shared->target);

	memset(partition, 0, sizeof(FeedPartition));
	partition->target = target == PG_UINT64_MAX ? -1 : (int64) target;
	partition->low = partition->high = partition->stable = -1;
	partition->bad_base = partition->probe = -1;
	partition->leader = partition->fetches = -1;
	partition->seen_next = feed->progress.next[i] = pg_atomic_read_u64(&shared->next);
}

/* Local room for n partitions, the new ones as the registry has them. */
static void
grow(KcfFeed *feed, int n)
{
	int old = feed->progress.npartitions;

	if (n > feed->capacity)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(feed->mcxt);
		int capacity = Max(n, feed->capacity * 2);

		if (feed->capacity == 0)
		{
			feed->partitions = palloc(sizeof(FeedPartition) * capacity);
			feed->progress.next = palloc(sizeof(int64) * capacity);
		}
		else
		{
			feed->partitions = repalloc(feed->partitions, sizeof(FeedPartition) * capacity);
			feed->progress.next = repalloc(feed->progress.next, sizeof(int64) * capacity);
		}
		feed->capacity = capacity;
		MemoryContextSwitchTo(oldcxt);
	}
	for (int i = old; i < n; i++)
		read_partition(feed, i);
	feed->progress.npartitions = n;
}

bool
kcf_feed_set_count(KcfFeed *feed, int n)
{
	if (n <= feed->progress.npartitions)
		return true;
	if (!kcf_table_set_partitions(feed->table, shared_partitions(feed), n))
	{
		kcf_feed_set_full(feed, true);
		return false;
	}
	grow(feed, n);
	return true;
}

/*
 * The store is about to forget a deletion: who asks for what came before it gets no answer any more. Said before the
 * sequence is published at which it is gone.
 */
static void
deletion_forgotten(void *arg, int32 partition, int64 offset)
{
	const KcfPartitions *shared = shared_partitions(arg);
	pg_atomic_uint64 *from;

	if (partition >= shared->n)
		return;
	from = &shared->array[partition].complete_from;
	if (pg_atomic_read_u64(from) <= (uint64) offset)
		pg_atomic_write_u64(from, offset + 1);
}

static KcfIngest *
create_ingest(KcfFeed *feed, KcfTableDef *def)
{
	KcfTable *table = feed->table;
	KcfIngest *ingest = kcf_ingest_create(def, feed->store, &table->account,
										  feed->beside ? table->load_errors : table->errors,
										  &feed->progress, feed->mcxt);

	kcf_store_set_forgotten(kcf_ingest_writer(ingest), deletion_forgotten, feed);
	return ingest;
}

/* From now on it matters how long a record takes to be visible. */
static void
watch_arrivals(KcfFeed *feed)
{
	KcfArrivals *arrivals = MemoryContextAlloc(feed->mcxt, sizeof(KcfArrivals));

	arrivals->histogram = &feed->table->totals.latency;
	arrivals->n = 0;
	feed->progress.arrivals = arrivals;
}

KcfFeed *
kcf_feed_open(KcfTable *table, KcfTableDef *def, const KcfServerOptions *server, bool load)
{
	MemoryContext mcxt =
		AllocSetContextCreate(TopMemoryContext, "kafka_cache feed", ALLOCSET_SMALL_SIZES);
	KcfFeed *feed = MemoryContextAllocZero(mcxt, sizeof(KcfFeed));

	feed->mcxt = mcxt;
	feed->table = table;
	feed->def = def;
	feed->server = server;
	feed->load = load;
	feed->beside = load && kcf_table_is_served(table);
	feed->store = load ? table->loading : table->gens[0].store;
	feed->progress.counters = feed->beside ? table->load_counters : table->counters;
	feed->now = kcf_moment_now();
	feed->counted = feed->progress.counters;
	if (!load)
		watch_arrivals(feed);
	PG_TRY();
	{
		feed->ingest = create_ingest(feed, def);
		if (def->options->notify)
			feed->notify = kcf_notify_create(table, def, mcxt);
	}
	PG_CATCH();
	{
		MemoryContextDelete(mcxt);
		PG_RE_THROW();
	}
	PG_END_TRY();
	feed->spool = kcf_spool_create(mcxt);
	grow(feed, shared_partitions(feed)->n);
	if (feed->notify && !load)
		kcf_notify_look_behind(feed->notify);
	return feed;
}

void
kcf_feed_redefine(KcfFeed *feed, KcfTableDef *def, const KcfServerOptions *server, bool new_client)
{
	KcfIngest *ingest = create_ingest(feed, def);

	if (def->options->notify == NULL)
	{
		if (feed->notify)
			kcf_notify_destroy(feed->notify);
		feed->notify = NULL;
		feed->moved = true;
	}
	else if (feed->notify)
		kcf_notify_redefine(feed->notify, def);
	else
		feed->notify = kcf_notify_create(feed->table, def, feed->mcxt);
	kcf_ingest_destroy(feed->ingest);
	feed->ingest = ingest;
	feed->def = def;
	feed->server = server;
	if (new_client)
	{
		kcf_feed_disconnect(feed);
		feed->fault.error = KCF_KAFKA_OK;
		feed->retry_at = 0;
	}
}

void
kcf_feed_close(KcfFeed *feed)
{
	kcf_table_add_up(feed->table, &feed->progress.counters, &feed->counted);
	kcf_feed_disconnect(feed);
	kcf_ingest_destroy(feed->ingest);
	MemoryContextDelete(feed->mcxt);
}

/* ---- turns --------------------------------------------------------------------------------- */

/*
 * No room, or room again. A feed without room keeps the record that does not fit, and what came with
 * it as long as that is little: its positions are the truth, and the rest can be fetched again.
 */
void
kcf_feed_set_full(KcfFeed *feed, bool full)
{
	if (!full)
	{
		feed->full_since = 0;
		return;
	}
	feed->full_retry = feed->now + FULL_RETRY;
	feed->untidy = true;
	if (feed->full_since != 0)
		return;
	feed->full_since = feed->now;
	ereport(LOG,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("cached table %s is full and stops where it is", feed->def->name),
			 errhint("Raise max_bytes of the table or kafka_cache.memory, or make room otherwise; "
					 "it then goes on by itself.")));
	if (kcf_spool_bytes(feed->spool) > FULL_SPOOL_BYTES * 8 && feed->kafka)
	{
		kcf_spool_clear(feed->spool);
		for (int i = 0; i < feed->progress.npartitions; i++)
			if (feed->partitions[i].started)
				kcf_feed_start(feed, i);
	}
}

static bool
is_record(const KcfSpooled *spooled)
{
	return spooled->kind == KCF_SPOOL_RECORD || spooled->kind == KCF_SPOOL_TOO_LARGE;
}

static bool
is_to_be_applied(const KcfFeed *feed, const KcfSpooled *spooled)
{
	return is_record(spooled) && kcf_kafka_current(feed->kafka, spooled) &&
		   feed->partitions[spooled->record.partition].probe < 0;
}

/*
 * Apply from the front of the spool until the slice of time is over. Records go in runs; ends and
 * errors of partitions stand between them, in their place.
 */
static void
apply_slice(KcfFeed *feed, KcfSeq seq, int slice_us)
{
	KcfSpooled *batch[KCF_INGEST_BATCH];
	bool transaction = false;
	instr_time start;
	instr_time spent;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		int n = kcf_spool_peek(feed->spool, batch, KCF_INGEST_BATCH, KCF_INGEST_BATCH_BYTES);
		int run = 0;

		if (n == 0)
			break;
		while (run < n && is_to_be_applied(feed, batch[run]))
			run++;
		if (run > 0)
		{
			int done;

			if (!transaction)
				kcf_ingest_begin(feed->ingest);
			transaction = true;
			feed->applied = feed->moved = true;
			done = kcf_ingest_apply(feed->ingest, seq, batch, run);
			kcf_spool_consume(feed->spool, done);
			feed->rows_since_housekeeping += done;
			feed->untidy = true;
			if (done < run)
			{
				kcf_feed_set_full(feed, true);
				break;
			}
			kcf_feed_set_full(feed, false);
		}
		else
		{
			if (kcf_kafka_current(feed->kafka, batch[0]))
			{
				/* what a search has brought stays if it is what was searched for */
				if (is_record(batch[0]) && kcf_feed_readable(feed, batch[0]->record.partition))
					continue;
				if (!is_record(batch[0]))
					kcf_feed_event(feed, batch[0]);
			}
			/* It may have ended the client, and all that the spool held with it. */
			if (feed->kafka == NULL)
				break;
			kcf_spool_consume(feed->spool, 1);
		}
		CHECK_FOR_INTERRUPTS();
		INSTR_TIME_SET_CURRENT(spent);
		INSTR_TIME_SUBTRACT(spent, start);
		if ((int64) INSTR_TIME_GET_MICROSEC(spent) >= slice_us)
			break;
	}
	if (transaction)
		kcf_ingest_end(feed->ingest);
}

bool
kcf_feed_turn(KcfFeed *feed, KcfSeq seq, int slice_us, Size spool_bytes)
{
	KcfNotify *tell;

	feed->news = false;
	if (feed->kafka && feed->progress.npartitions > 0 && !kcf_feed_busy(feed) &&
		feed->full_since == 0 && !kcf_kafka_pending(feed->kafka))
		return false;

	feed->now = kcf_moment_now();
	feed->news = true;
	/* Before its first contents are complete there is nobody to be told. */
	tell = feed->load ? NULL : feed->notify;
	if (tell && RecoveryInProgress())
	{
		/*
		 * A standby cannot tell. Whoever listens as soon as it is promoted may do so before this turn is published,
		 * and the old primary need not have told of what came last: something has changed, will be said then.
		 */
		kcf_notify_afresh(feed->table);
		tell = NULL;
	}
	kcf_ingest_set_notify(feed->ingest, tell);
	kcf_feed_connect(feed);
	if (feed->kafka == NULL)
		return false;
	kcf_feed_listen(feed);
	if (feed->kafka == NULL)
		return false;

	feed->pulling = false;
	if (feed->full_since == 0 || kcf_spool_bytes(feed->spool) < FULL_SPOOL_BYTES)
	{
		int n = kcf_kafka_pull(feed->kafka, feed->spool, PULL_RECORDS,
							   feed->full_since ? FULL_SPOOL_BYTES : spool_bytes);

		if (n < 0)
		{
			feed->fault.error = KCF_KAFKA_OTHER;
			strlcpy(feed->fault.text, "the consumer process has no memory left for records",
					sizeof(feed->fault.text));
			feed->fault_since = feed->now;
			kcf_feed_disconnect(feed);
			feed->retry_at = feed->now + SECONDS(10);
			return false;
		}
		feed->pulling = n >= PULL_RECORDS;
	}
	if (!kcf_spool_empty(feed->spool) && (feed->full_since == 0 || feed->now >= feed->full_retry))
		apply_slice(feed, seq, slice_us);
	for (int i = 0; i < feed->progress.npartitions; i++)
		if (feed->progress.next[i] != feed->partitions[i].seen_next)
			kcf_feed_moved(feed, i);
	return feed->applied;
}

bool
kcf_feed_busy(const KcfFeed *feed)
{
	return feed->full_since == 0 && (feed->pulling || !kcf_spool_empty(feed->spool));
}

bool
kcf_feed_news(const KcfFeed *feed)
{
	return feed->news;
}

static void
set_shared(pg_atomic_uint64 *to, int64 value)
{
	if (value >= 0 && pg_atomic_read_u64(to) != (uint64) value)
		pg_atomic_write_u64(to, value);
}

/* At the end of every partition then. */
static void
set_fresh(KcfFeed *feed, KcfMoment at_end)
{
	KcfMoment before = (KcfMoment) pg_atomic_read_u64(&feed->table->fresh_at);

	if (at_end <= before)
		return;
	if (!feed->load && before != 0 && at_end - before > SECONDS(MOST_HOURS_AWAY * 3600))
		kcf_feed_spoil(feed,
					   "it was cut off for more than %d hours, in which deletions may have been "
					   "compacted away",
					   MOST_HOURS_AWAY);
	pg_atomic_write_u64(&feed->table->fresh_at, at_end);
}

bool
kcf_feed_settle(KcfFeed *feed)
{
	KcfTable *table = feed->table;
	KcfPartitions *shared = shared_partitions(feed);
	KcfMoment at_end = PG_INT64_MAX;
	bool moved = feed->moved;
	bool owes;

	if (!feed->news && !moved)
		return false;
	feed->applied = false;
	feed->moved = false;
	/* who has waited for a position finds its records counted */
	if (moved)
	{
		if (feed->beside)
			table->load_counters = feed->progress.counters;
		else
			kcf_table_set_counters(table, &feed->progress.counters);
		kcf_table_add_up(table, &feed->progress.counters, &feed->counted);
		if (feed->progress.arrivals)
			kcf_arrivals_visible(feed->progress.arrivals);
	}
	owes = feed->notify && !feed->load && kcf_notify_owes(feed->notify);
	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		FeedPartition *partition = &feed->partitions[i];
		KcfPartition *to = &shared->array[i];

		/* what a reader compares with the position comes first */
		set_shared(&to->low, partition->low);
		if (partition->high >= 0)
			set_shared(&to->high, Max(partition->high, feed->progress.next[i]));
		set_shared(&to->target, partition->target);
		set_shared(&to->next, feed->progress.next[i]);
		if (!owes)
			set_shared(&to->announced, feed->progress.next[i]);
		at_end = Min(at_end, partition->at_end);
	}
	if (!feed->beside && feed->progress.npartitions > 0)
		set_fresh(feed, at_end);
	if (moved && !feed->load)
		kcf_wait_broadcast_table(table);
	return moved;
}

bool
kcf_feed_housekeep(KcfFeed *feed, KcfSeq published, KcfSeq min_pinned)
{
	/* four for each row applied bounds dead space under any load; some when there was none */
	int64 budget = Max((int64) feed->rows_since_housekeeping * 4, KCF_HOUSEKEEP_ROWS);
	bool more = true;

	if (!feed->untidy)
		return false;
	feed->rows_since_housekeeping = 0;
	for (; more && budget > 0; budget -= KCF_HOUSEKEEP_ROWS)
	{
		more = kcf_store_housekeep(kcf_ingest_writer(feed->ingest), published, min_pinned,
								   KCF_HOUSEKEEP_ROWS);
		CHECK_FOR_INTERRUPTS();
	}
	feed->untidy = more;
	return more;
}

/* ---- what the table needs to know ---------------------------------------------------------- */

bool
kcf_feed_complete(const KcfFeed *feed)
{
	if (feed->progress.npartitions == 0 || feed->topic_missing || feed->spoilt[0])
		return false;
	for (int i = 0; i < feed->progress.npartitions; i++)
		if (feed->partitions[i].target < 0 || feed->progress.next[i] < feed->partitions[i].target)
			return false;
	return true;
}

void
kcf_feed_set_loading(KcfFeed *feed, bool loading)
{
	kcf_store_set_loading(kcf_ingest_writer(feed->ingest), loading);
	feed->untidy = true;
}

void
kcf_feed_remember_from_here(KcfFeed *feed)
{
	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		KcfPartition *to = &shared_partitions(feed)->array[i];

		pg_atomic_write_u64(&to->complete_from, feed->progress.next[i]);
		/* From the publish on it is the table's position, which nobody may see going back. */
		set_shared(&to->next, feed->progress.next[i]);
	}
}

void
kcf_feed_served(KcfFeed *feed, bool again)
{
	feed->load = feed->beside = false;
	feed->moved = true;
	if (again)
		feed->progress.counters.reloads++;
	watch_arrivals(feed);
	if (again && feed->notify)
		kcf_notify_afresh(feed->table);
	kcf_store_set_tombstone_limit(kcf_ingest_writer(feed->ingest),
								  (Size) kcf_guc_deletion_memory * 1024);
}

bool
kcf_feed_is_behind(const KcfFeed *feed, const KcfFeed *other)
{
	for (int i = 0; i < other->progress.npartitions; i++)
	{
		/* what the topic does not have any more cannot be passed again */
		if (other->partitions[i].missing)
			continue;
		if (i >= feed->progress.npartitions || feed->progress.next[i] < other->progress.next[i])
			return true;
	}
	return false;
}

KcfStore *
kcf_feed_store(const KcfFeed *feed)
{
	return feed->store;
}

KcfNotify *
kcf_feed_notify(const KcfFeed *feed)
{
	return feed->notify;
}

KcfMoment
kcf_feed_full_since(const KcfFeed *feed)
{
	return feed->full_since;
}

const char *
kcf_feed_spoilt(const KcfFeed *feed)
{
	return feed->spoilt[0] ? feed->spoilt : NULL;
}
