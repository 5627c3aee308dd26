/*
 * feed_client.c
 *		A feed's client: made and ended, asked for the topic's partitions, listened to.
 */
#include "postgres.h"

#include "feed_internal.h"

#include "proc.h"

#include "utils/memutils.h"

/* Longest wait for a broker to tell the partitions of a topic. */
#define DISCOVER_MS 100
/* A server whose brokers did not answer that is not waited for again so soon. */
#define SERVER_DOWN SECONDS(5)
/* Refused: tried again now and then, without setting off any lock-out. */
#define AUTH_RETRY SECONDS(60)
/* A topic that is not there is asked for again after 1 s, 2 s … */
#define MISSING_MAX_MS 10000
/* A new client may take so long to learn of the partitions that it was told to fetch. */
#define KNOWN_PATIENCE SECONDS(5)
/* So long undisturbed, and statistics of a partition are of its present start. */
#define SETTLED SECONDS(3)
/* Unreadable data is fetched again after that. */
#define BAD_DATA_RETRY SECONDS(1)
#define BAD_DATA_MAX_RETRY SECONDS(60)

/* Servers that did not answer lately, of all feeds of this process. */
typedef struct DownServer
{
	Oid serverid;
	KcfMoment until;
} DownServer;

static List *down_servers = NIL;

static DownServer *
down_server(Oid serverid)
{
	ListCell *lc;

	foreach (lc, down_servers)
		if (((DownServer *) lfirst(lc))->serverid == serverid)
			return lfirst(lc);
	return NULL;
}

static bool
is_down(const KcfFeed *feed)
{
	DownServer *server = down_server(feed->def->serverid);

	return server && server->until > feed->now;
}

static void
note_down(const KcfFeed *feed)
{
	DownServer *server = down_server(feed->def->serverid);

	if (server == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		server = palloc(sizeof(DownServer));
		server->serverid = feed->def->serverid;
		down_servers = lappend(down_servers, server);
		MemoryContextSwitchTo(old);
	}
	server->until = feed->now + SERVER_DOWN;
}

void
kcf_feed_spoil(KcfFeed *feed, const char *fmt, ...)
{
	va_list args;

	if (feed->spoilt[0])
		return;
	va_start(args, fmt);
	vsnprintf(feed->spoilt, sizeof(feed->spoilt), fmt, args);
	va_end(args);
}

/* ---- making and ending --------------------------------------------------------------------- */

/* For those who watch how often something goes wrong. */
static void
count_fault(KcfFeed *feed, KcfKafkaError error)
{
	pg_atomic_fetch_add_u64(&feed->table->totals.faults[error], 1);
}

static void
set_fault(KcfFeed *feed, const KcfKafkaFault *fault)
{
	count_fault(feed, fault->error);
	if (feed->fault.error == KCF_KAFKA_OK)
		feed->fault_since = feed->now;
	if (fault->error == KCF_KAFKA_UNREACHABLE && feed->fault.error == KCF_KAFKA_UNREACHABLE &&
		fault->vague)
		return;
	feed->fault = *fault;
}

/* Refused: end this client, so that nobody is locked out by its trying, and come back later. */
static void
refused(KcfFeed *feed, const KcfKafkaFault *fault)
{
	set_fault(feed, fault);
	kcf_feed_disconnect(feed);
	feed->retry_at = feed->now + AUTH_RETRY;
}

/* Somebody answers. */
static void
contact(KcfFeed *feed, int32 partition)
{
	feed->partitions[partition].contact = feed->now;
	if (feed->fault.error == KCF_KAFKA_UNREACHABLE || feed->fault.error == KCF_KAFKA_OTHER)
		feed->fault.error = KCF_KAFKA_OK;
}

void
kcf_feed_start(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];
	int64 next = feed->progress.next[partition];

	kcf_kafka_start(feed->kafka, partition, next);
	p->started = true;
	p->moved = feed->now;
	p->retry_at = 0;
	p->probe = -1;
	p->beyond_since = 0;
}

static void
start_partitions(KcfFeed *feed)
{
	for (int i = 0; i < feed->progress.npartitions; i++)
		if (!feed->partitions[i].started && !feed->partitions[i].missing && !feed->spoilt[0])
			kcf_feed_start(feed, i);
}

static void
discover(KcfFeed *feed)
{
	KcfKafkaFault fault;
	int n;

	if (feed->now < feed->discover_at || is_down(feed))
		return;
	n = kcf_kafka_partitions(feed->kafka, DISCOVER_MS, &fault);
	if (n > 0)
	{
		feed->fault.error = KCF_KAFKA_OK;
		feed->topic_missing = false;
		feed->discover_ms = 0;
		if (kcf_feed_set_count(feed, n))
			start_partitions(feed);
		else
			feed->discover_at = feed->now + SECONDS(1);
		return;
	}

	feed->discover_ms = Min(Max(feed->discover_ms * 2, 1000), MISSING_MAX_MS);
	feed->discover_at = feed->now + feed->discover_ms * INT64CONST(1000);
	if (fault.error == KCF_KAFKA_NO_TOPIC)
	{
		count_fault(feed, fault.error);
		feed->topic_missing = true;
	}
	else if (fault.error == KCF_KAFKA_AUTH)
		refused(feed, &fault);
	else
	{
		if (fault.error == KCF_KAFKA_UNREACHABLE)
			note_down(feed);
		if (feed->fault.error != KCF_KAFKA_AUTH)
			set_fault(feed, &fault);
	}
}

void
kcf_feed_connect(KcfFeed *feed)
{
	if (feed->kafka == NULL)
	{
		KcfKafkaFault fault;

		if (feed->server == NULL || feed->now < feed->retry_at)
			return;
		feed->kafka =
			kcf_kafka_create(feed->def->options->topic, feed->server, kcf_proc_eventfd(), &fault);
		if (feed->kafka == NULL)
		{
			set_fault(feed, &fault);
			feed->retry_at = feed->now + AUTH_RETRY;
			return;
		}
		kcf_kafka_set_limits(feed->kafka, kcf_ingest_wants_headers(feed->ingest),
							 feed->def->options->max_record_bytes);
		pg_atomic_fetch_add_u64(&feed->table->totals.clients, 1);
		feed->connected_at = feed->now;
		feed->cut_off =
			CUT_OFF + INT64CONST(1000) * kcf_kafka_setting(feed->server, "fetch.wait.max.ms",
														   DEFAULT_FETCH_WAIT_MS);
		feed->discover_at = 0;
		/* Where we were already, nobody needs to be asked first. */
		start_partitions(feed);
	}
	if (feed->progress.npartitions == 0)
		discover(feed);
}

void
kcf_feed_disconnect(KcfFeed *feed)
{
	kcf_spool_clear(feed->spool);
	if (feed->kafka)
		kcf_kafka_destroy(feed->kafka);
	feed->kafka = NULL;
	feed->pulling = false;
	for (int i = 0; i < feed->progress.npartitions; i++)
	{
		feed->partitions[i].started = feed->partitions[i].known = false;
		feed->partitions[i].fetches = -1;
	}
}

/* ---- what comes with the records ----------------------------------------------------------- */

void
kcf_feed_moved(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];
	int64 low;
	int64 high;

	contact(feed, partition);
	if (feed->progress.next[partition] != p->seen_next)
	{
		p->seen_next = feed->progress.next[partition];
		p->moved = feed->now;
		p->bad_tries = 0;
		feed->stuck_tries = feed->down_tries = 0;
		if (feed->fault.error == KCF_KAFKA_BAD_DATA || feed->fault.error == KCF_KAFKA_UNREADABLE)
			feed->fault.error = KCF_KAFKA_OK;
		feed->moved = true;
	}
	/* known before the first record or end of a partition comes: both are from a fetch response */
	if (feed->kafka && kcf_kafka_watermarks(feed->kafka, partition, &low, &high))
	{
		p->low = low;
		p->high = high;
		if (p->target < 0)
		{
			KcfPartitions *shared = feed->load ? &feed->table->load : &feed->table->followed;

			p->target = high;
			pg_atomic_write_u64(&shared->array[partition].start, Max(low, 0));
		}
		if (p->seen_next >= high)
			p->at_end = feed->now;
	}
}

/*
 * A batch that cannot be read: damaged on its way, perhaps, so it is fetched again, and the more
 * patiently the more often that failed. Everything behind it waits: order forbids to go on.
 */
static void
bad_data(KcfFeed *feed, const KcfSpooled *spooled, const KcfKafkaFault *fault)
{
	int32 partition = spooled->record.partition;
	FeedPartition *p = &feed->partitions[partition];

	if (p->bad_base == spooled->record.offset)
		p->bad_tries++;
	else
		p->bad_tries = 1;
	p->bad_base = spooled->record.offset;
	set_fault(feed, fault);
	kcf_kafka_stop(feed->kafka, partition);
	p->retry_at = feed->now + Min(BAD_DATA_RETRY << Min(p->bad_tries - 1, 6), BAD_DATA_MAX_RETRY);
}

/*
 * It is not our position that is out of range: the library's was, behind markers, or anywhere after a batch that
 * it could not read. What is the matter with ours is seen when it is asked for.
 */
static void
look_again(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];

	if (p->retry_at != 0)
		return;
	kcf_kafka_stop(feed->kafka, partition);
	p->retry_at = feed->now;
}

static void
partition_fault(KcfFeed *feed, const KcfSpooled *spooled)
{
	int32 partition = spooled->record.partition;
	FeedPartition *p = &feed->partitions[partition];
	KcfKafkaFault fault = { .error = spooled->error };

	strlcpy(fault.text, spooled->record.value.data, sizeof(fault.text));
	p->erred = true;
	switch (fault.error)
	{
		case KCF_KAFKA_OUT_OF_RANGE:
			/* Before anything was passed nothing can be missed: begin where the log begins. */
			if (feed->progress.next[partition] == 0)
			{
				kcf_kafka_start(feed->kafka, partition, KCF_OFFSET_BEGINNING);
				break;
			}
			if (p->probe < 0 && spooled->record.offset != feed->progress.next[partition])
			{
				look_again(feed, partition);
				break;
			}
			count_fault(feed, fault.error);
			kcf_feed_spoil(feed, "offset " INT64_FORMAT " of partition %d is no longer in the log",
						   feed->progress.next[partition], partition);
			break;
		case KCF_KAFKA_NO_TOPIC:
		case KCF_KAFKA_NO_PARTITION:
			/* Seen with the statistics: look_missing(). */
			break;
		case KCF_KAFKA_AUTH:
			refused(feed, &fault);
			break;
		case KCF_KAFKA_UNREADABLE:
			set_fault(feed, &fault);
			if (!kcf_feed_unreadable(feed, spooled, &fault))
				bad_data(feed, spooled, &fault);
			break;
		case KCF_KAFKA_BAD_DATA:
			bad_data(feed, spooled, &fault);
			break;
		default:
			/* The library tries again by itself. */
			set_fault(feed, &fault);
			break;
	}
}

void
kcf_feed_event(KcfFeed *feed, const KcfSpooled *spooled)
{
	int32 partition = spooled->record.partition;

	if (partition < 0 || partition >= feed->progress.npartitions)
		return;
	if (spooled->kind == KCF_SPOOL_FAULT)
	{
		partition_fault(feed, spooled);
		return;
	}
	if (spooled->kind == KCF_SPOOL_EOF)
	{
		FeedPartition *p = &feed->partitions[partition];

		if (p->probe >= 0 && !kcf_feed_readable(feed, partition))
			return;
		/* Markers, aborted and compacted records lie between the last record and the end. */
		if (spooled->record.offset > feed->progress.next[partition])
			feed->progress.next[partition] = spooled->record.offset;
		p->stable = spooled->record.offset;
		p->at_end = feed->now;
		kcf_feed_moved(feed, partition);
		feed->moved = true;
	}
}

/* ---- what comes once a second -------------------------------------------------------------- */

/* The log ends before our position, and does so for a while: it is not the log that we have read. */
static void
look_beyond(KcfFeed *feed, int32 partition, const KcfPartitionStats *stats)
{
	FeedPartition *p = &feed->partitions[partition];

	if (!stats->active || stats->high < 0 || stats->high >= feed->progress.next[partition] ||
		stats->leader_idle < 0)
		p->beyond_since = 0;
	else if (p->beyond_since == 0)
		p->beyond_since = feed->now;
	else if (feed->now - p->beyond_since > SECONDS(10))
		kcf_feed_spoil(feed,
					   "partition %d ends at " INT64_FORMAT ", before our position " INT64_FORMAT,
					   partition, stats->high, feed->progress.next[partition]);
}

/*
 * The cluster does not have this partition. The library reports that in no other way, and would go on
 * by itself in whatever comes by this name: so the fetching is ended.
 */
static void
look_missing(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];

	if (p->missing || (!p->known && feed->now - feed->connected_at < KNOWN_PATIENCE) ||
		kcf_kafka_stats(feed->kafka)->brokers_up == 0)
		return;
	p->missing = true;
	count_fault(feed, KCF_KAFKA_NO_PARTITION);
	kcf_kafka_stop(feed->kafka, partition);
}

/*
 * Was a request for this partition's records answered since the last look? The library sends the next one when
 * it has the answer to the one before: so two of a connection since we met it, and one each time after. Other
 * answers prove nothing: who knows the cluster's members need not know the log's end.
 */
static bool
was_fetched(FeedPartition *p, const KcfPartitionStats *stats)
{
	bool answered = p->fetches >= 0 && stats->active && stats->leader_idle >= 0 &&
					stats->leader == p->leader && stats->connection == p->connection;

	if (!answered)
		p->fetches = stats->active && stats->leader_idle >= 0 ? stats->fetches + 1 : -1;
	else if (stats->fetches > p->fetches)
		p->fetches = stats->fetches;
	else
		answered = false;
	p->leader = stats->leader;
	p->connection = stats->connection;
	return answered;
}

static void
partition_stats(KcfFeed *feed, int32 partition, const KcfPartitionStats *stats)
{
	FeedPartition *p = &feed->partitions[partition];
	KcfMoment at = kcf_kafka_stats(feed->kafka)->at;
	bool again = stats->connection != p->connection;
	bool fetched = was_fetched(p, stats) && !p->erred;
	bool drained = stats->queued == 0 && kcf_spool_empty(feed->spool) && !feed->pulling;

	p->erred = false;
	if (!stats->known)
	{
		look_missing(feed, partition);
		return;
	}
	p->known = true;
	if (p->missing)
	{
		/* A topic does not come back, another one by its name does. */
		p->missing = false;
		if (feed->progress.next[partition] > 0)
			kcf_feed_spoil(feed, "the topic was deleted and created again");
		else
			kcf_feed_start(feed, partition);
	}
	if (stats->leader_idle < 0)
		p->up_since = 0;
	else
	{
		KcfMoment heard = at - stats->leader_idle * INT64CONST(1000);

		/* With much to be worked off, the library need not ask for more. */
		if (fetched || !drained)
			p->contact = Max(p->contact, heard);
		if (p->up_since == 0 || again)
			p->up_since = at;
		if (fetched && drained && stats->stable >= 0 &&
			feed->progress.next[partition] >= stats->stable)
			p->at_end = Max(p->at_end, heard);
	}
	/* Until the library has looked at a new start, what it tells of the partition is of the old one. */
	if (!stats->active || stats->high < 0 || p->up_since == 0 ||
		at - Max(p->moved, p->up_since) < SETTLED)
		return;
	p->low = stats->low >= 0 ? stats->low : p->low;
	p->high = stats->high;
	p->stable = stats->stable;
	if (p->target < 0)
		p->target = p->high;
	/* Everything before has been handed over and applied: markers and aborted records lie between. */
	if (drained && p->bad_tries == 0 && p->probe < 0 &&
		stats->next > feed->progress.next[partition])
	{
		feed->progress.next[partition] = stats->next;
		kcf_feed_moved(feed, partition);
	}
	look_beyond(feed, partition, stats);
}

/* A topic that we may not describe is not shown to us either, but who asks for it is told. */
static bool
is_hidden(KcfFeed *feed)
{
	KcfKafkaFault fault;

	if (kcf_kafka_partitions(feed->kafka, DISCOVER_MS, &fault) > 0 || fault.error != KCF_KAFKA_AUTH)
		return false;
	for (int i = 0; i < feed->progress.npartitions; i++)
		feed->partitions[i].missing = false;
	refused(feed, &fault);
	return true;
}

static void
read_stats(KcfFeed *feed)
{
	const KcfKafkaStats *stats = kcf_kafka_stats(feed->kafka);
	int n = feed->progress.npartitions;
	bool missing = false;

	if (stats->brokers_up > 0 && feed->fault.error == KCF_KAFKA_UNREACHABLE)
		feed->fault.error = KCF_KAFKA_OK;
	for (int i = 0; i < n; i++)
	{
		if (i < stats->npartitions)
			partition_stats(feed, i, &stats->partitions[i]);
		else
			look_missing(feed, i);
	}
	for (int i = 0; i < feed->progress.npartitions; i++)
		missing |= feed->partitions[i].missing;
	if (missing && !feed->topic_missing && is_hidden(feed))
		return;
	if (feed->progress.npartitions > 0)
		feed->topic_missing = missing;

	/* Partitions that were added; but not to those of a topic that is gone. */
	if (stats->known > feed->progress.npartitions && !missing && !feed->spoilt[0] &&
		kcf_feed_set_count(feed, stats->known))
		start_partitions(feed);
	if (feed->progress.npartitions == 0 && stats->brokers_up > 0)
		feed->discover_at = Min(feed->discover_at, feed->now + SECONDS(1));
}

void
kcf_feed_listen(KcfFeed *feed)
{
	KcfKafkaFault fault;
	bool news = kcf_kafka_serve(feed->kafka, &fault);

	if (fault.error == KCF_KAFKA_AUTH)
	{
		refused(feed, &fault);
		return;
	}
	if (fault.error == KCF_KAFKA_UNREACHABLE &&
		(feed->fault.error == KCF_KAFKA_OK || feed->fault.error == KCF_KAFKA_UNREACHABLE))
		set_fault(feed, &fault);
	if (news)
		read_stats(feed);
}
