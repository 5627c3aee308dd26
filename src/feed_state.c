/*
 * feed_state.c
 *		How a feed does, in a word and in a sentence; and what is done when it does not do well.
 */
#include "postgres.h"

#include "feed_internal.h"

#include "guc.h"

#include "utils/timestamp.h"

/* Connected, behind, and nothing moves: the library has lost its way. */
#define STALL_LIMIT SECONDS(30)
/* ... and twice as long each time that a new client did not help, up to eight minutes. */
#define STALL_DOUBLINGS 4
/* A younger connection has not been tried yet. The library itself ends one that does not answer after ten. */
#define STALL_CONNECTED SECONDS(5)
/* No broker for so long: their addresses may be others by now, and only a new client asks for them. */
#define DOWN_LIMIT SECONDS(60)

/* When was the partition heard of last of which we have not heard for the longest time? */
static KcfMoment
last_contact(const KcfFeed *feed)
{
	KcfMoment oldest = PG_INT64_MAX;

	for (int i = 0; i < feed->progress.npartitions; i++)
		oldest = Min(oldest, feed->partitions[i].contact);
	return oldest == PG_INT64_MAX ? 0 : oldest;
}

/* ... and when any of them? */
static KcfMoment
newest_contact(const KcfFeed *feed)
{
	KcfMoment newest = 0;

	for (int i = 0; i < feed->progress.npartitions; i++)
		newest = Max(newest, feed->partitions[i].contact);
	return newest;
}

/* In the log with the first try in a row, the second, the fourth … */
static void
reconnect(KcfFeed *feed, pg_atomic_uint64 *counter, int tries, const char *why)
{
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + 1);
	if ((tries & (tries - 1)) == 0)
		ereport(LOG, (errmsg("cached table %s gets a new Kafka client: %s", feed->def->name, why)));
	kcf_feed_disconnect(feed);
}

/*
 * Its broker is connected, but brings nothing: not the records that it says there are, or no answers to requests
 * for any. What lasts is met with patience.
 */
static bool
is_stuck(const KcfFeed *feed)
{
	const KcfKafkaStats *stats = kcf_kafka_stats(feed->kafka);
	int n = Min(stats->npartitions, feed->progress.npartitions);
	KcfMoment limit = STALL_LIMIT << Min(feed->stuck_tries, STALL_DOUBLINGS);

	if (feed->full_since || feed->spoilt[0] || !kcf_spool_empty(feed->spool))
		return false;
	for (int i = 0; i < n; i++)
	{
		const FeedPartition *p = &feed->partitions[i];
		bool behind = stats->partitions[i].stable > feed->progress.next[i];
		bool fetched = feed->now - p->contact < feed->cut_off;

		if (p->started && p->retry_at == 0 && p->probe < 0 && !p->missing && p->up_since != 0 &&
			feed->now - p->up_since > STALL_CONNECTED && feed->now - p->moved > limit &&
			(fetched ? behind : feed->now - p->contact > limit))
			return true;
	}
	return false;
}

void
kcf_feed_tick(KcfFeed *feed)
{
	feed->now = kcf_moment_now();
	if (feed->silent != last_contact(feed))
	{
		feed->silent = last_contact(feed);
		feed->silent_since = GetCurrentTimestamp() - (feed->now - feed->silent);
	}
	/* A pin that stood in the way may be gone. */
	if (kcf_store_hindered(kcf_ingest_writer(feed->ingest)))
		feed->untidy = true;
	if (!feed->load)
		kcf_store_set_tombstone_limit(kcf_ingest_writer(feed->ingest),
									  (Size) kcf_guc_deletion_memory * 1024);
	if (feed->kafka == NULL)
		return;
	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		FeedPartition *p = &feed->partitions[i];

		if (p->retry_at != 0 && p->retry_at <= feed->now)
			kcf_feed_start(feed, i);
	}
	kcf_spool_trim(feed->spool);
	kcf_kafka_set_patient(feed->kafka, !feed->load);

	if (is_stuck(feed))
		reconnect(feed, &feed->table->clients.stuck, ++feed->stuck_tries,
				  "it is connected, but makes no progress");
	else if ((feed->progress.npartitions > 0 || feed->fault.error == KCF_KAFKA_UNREACHABLE) &&
			 kcf_kafka_stats(feed->kafka)->brokers_up == 0 && !feed->topic_missing &&
			 !feed->spoilt[0] &&
			 feed->now - Max(feed->connected_at, newest_contact(feed)) > DOWN_LIMIT)
		reconnect(feed, &feed->table->clients.cut_off, ++feed->down_tries,
				  "no broker has answered it for a minute");
}

static void say(KcfFeedState *state, KcfTableState what, const char *fmt, ...)
	pg_attribute_printf(3, 4);

static void
say(KcfFeedState *state, KcfTableState what, const char *fmt, ...)
{
	va_list args;

	state->state = what;
	va_start(args, fmt);
	vsnprintf(state->text, sizeof(state->text), fmt, args);
	va_end(args);
}

/* How far a load is: offsets passed of those there were at its beginning. */
static void
say_loading(const KcfFeed *feed, KcfFeedState *state)
{
	int64 passed = 0;
	int64 total = 0;
	int ready = 0;
	int loading = 0;
	int held = -1; /* a partition that waits at its last stable offset */

	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		const FeedPartition *p = &feed->partitions[i];
		int64 next = feed->progress.next[i];

		if (p->target < 0)
		{
			loading++;
			continue;
		}
		total += p->target - Max(p->low, 0);
		passed += Max(Min(next, p->target) - Max(p->low, 0), 0);
		if (next >= p->target)
			ready++;
		else if (p->stable >= 0 && p->stable < p->target && next >= p->stable)
			held = i;
		else
			loading++;
	}
	if (held >= 0 && loading == 0)
		say(state, KCF_TABLE_WAITING_FOR_TRANSACTION,
			"partition %d is read up to offset " INT64_FORMAT
			", where a transaction is still open; the load ends at offset " INT64_FORMAT,
			held, feed->progress.next[held], feed->partitions[held].target);
	else
		say(state, KCF_TABLE_LOADING,
			"%d of %d partitions loaded, " INT64_FORMAT " of " INT64_FORMAT " offsets", ready,
			feed->progress.npartitions, passed, total);
}

void
kcf_feed_state(const KcfFeed *feed, KcfFeedState *state)
{
	const char *topic = feed->def->options->topic;
	const KcfKafkaFault *fault = &feed->fault;
	KcfMoment last = last_contact(feed);
	int missing = 0;
	int added = 0;

	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		const FeedPartition *p = &feed->partitions[i];

		missing += p->missing ? 1 : 0;
		added += feed->progress.next[i] < p->target || p->target < 0 ? 1 : 0;
	}

	if (feed->server == NULL)
		say(state, KCF_TABLE_FAILED, "the server's options are not valid");
	else if (feed->full_since)
		say(state, KCF_TABLE_FULL,
			"no memory for the next record: max_bytes or kafka_cache.memory is used up");
	else if (fault->error == KCF_KAFKA_AUTH)
		say(state, KCF_TABLE_AUTH_FAILED, "%s", fault->text);
	else if (fault->error == KCF_KAFKA_CONFIG || fault->error == KCF_KAFKA_BAD_DATA ||
			 fault->error == KCF_KAFKA_UNREADABLE)
		say(state, KCF_TABLE_FAILED, "%s", fault->text);
	else if (feed->topic_missing && missing > 0 && missing < feed->progress.npartitions)
		say(state, KCF_TABLE_TOPIC_MISSING, "%d of %d partitions of topic \"%s\" do not exist",
			missing, feed->progress.npartitions, topic);
	else if (feed->topic_missing)
		say(state, KCF_TABLE_TOPIC_MISSING, "topic \"%s\" does not exist", topic);
	else if (feed->now - last > feed->cut_off)
	{
		KcfTableState what = feed->load ? KCF_TABLE_CONNECTING : KCF_TABLE_STALLED;

		/* A table that goes on after a restart of its worker is not cut off yet. */
		if (!feed->load && last == 0 && feed->now - feed->connected_at < feed->cut_off)
			say(state, KCF_TABLE_READY, "%s", "");
		else if (fault->error != KCF_KAFKA_OK)
			say(state, what, "%s", fault->text);
		else if (last == 0)
			say(state, what, "waiting for the first answer of the brokers");
		else
			say(state, what, "no answer of the brokers since %s",
				timestamptz_to_str(feed->silent_since));
	}
	else if (feed->load)
		say_loading(feed, state);
	else if (added > 0)
		say(state, KCF_TABLE_READY, "%d of %d partitions are being loaded", added,
			feed->progress.npartitions);
	else if (feed->table->errors && kcf_errlog_count(feed->table->errors) >= kcf_guc_max_errors)
		say(state, KCF_TABLE_READY,
			"kafka_cache.errors lists as many bad records as kafka_cache.max_errors allows");
	else
		say(state, KCF_TABLE_READY, "%s", "");
}
