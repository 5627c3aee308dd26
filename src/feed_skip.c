/*
 * feed_skip.c
 *		Over a batch that the library can never read.
 *
 * A batch that decompresses to more than librdkafka is ready to hold ("invalid compressed data", for
 * ever) stands in the way of everything behind it. Its records are given up, as bad ones: counted,
 * listed, logged. Where it ends the library does not tell; but fetching from an offset within it fails
 * with the batch's base offset, and fetching from behind it does not. So the end is searched for, in
 * growing steps first, by halves then.
 */
#include "postgres.h"

#include "feed_internal.h"

/* Failures in a row before a batch is given up: one may be damage on the way. */
#define TRIES 3

static void
probe(KcfFeed *feed, int32 partition, int64 offset)
{
	feed->partitions[partition].probe = offset;
	kcf_kafka_start(feed->kafka, partition, offset);
}

/* All from its base offset up to here is the batch; before it nothing is left of the log. */
static void
skip_to(KcfFeed *feed, int32 partition, int64 end)
{
	FeedPartition *p = &feed->partitions[partition];
	int64 begin = Max(p->bad_base, feed->progress.next[partition]);
	char why[160];

	snprintf(why, sizeof(why),
			 "offsets " INT64_FORMAT " to " INT64_FORMAT
			 " cannot be decompressed: a batch too large for librdkafka",
			 begin, end - 1);
	ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
				  errmsg("cached table %s: partition %d: %s", feed->def->name, partition, why)));
	kcf_ingest_skip(feed->ingest, partition, begin, end, why);
	p->probe = -1;
	p->bad_base = -1;
	p->bad_tries = 0;
	feed->applied = feed->moved = true;
}

/* The next offset to try, between what is known of the batch. */
static void
go_on(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];
	int64 offset;
	int64 low;
	int64 high;

	if (p->probe_good >= 0)
		offset = p->probe_bad + (p->probe_good - p->probe_bad) / 2;
	else
	{
		offset = p->probe_bad + Max(p->probe_bad - p->probe_begin, 1);
		/* behind the end of the log there is nothing, and that is another error */
		if (kcf_kafka_watermarks(feed->kafka, partition, &low, &high) && offset > high)
			offset = Max(high, p->probe_bad + 1);
	}
	probe(feed, partition, offset);
}

bool
kcf_feed_unreadable(KcfFeed *feed, const KcfSpooled *spooled, const KcfKafkaFault *fault)
{
	int32 partition = spooled->record.partition;
	FeedPartition *p = &feed->partitions[partition];

	if (p->probe >= 0 && spooled->record.offset == p->bad_base)
	{
		p->probe_bad = p->probe;
		if (p->probe_bad + 1 == p->probe_good)
		{
			skip_to(feed, partition, p->probe_good);
			kcf_feed_start(feed, partition);
		}
		else
			go_on(feed, partition);
		return true;
	}
	if (p->probe >= 0)
	{
		/* Another batch that cannot be read is behind this one, too. */
		if (kcf_feed_readable(feed, partition))
			kcf_feed_start(feed, partition);
		return true;
	}
	if (p->bad_base != spooled->record.offset || p->bad_tries + 1 < TRIES)
		return false;
	p->probe_bad = p->probe_begin = Max(p->bad_base, feed->progress.next[partition]);
	p->probe_good = -1;
	go_on(feed, partition);
	return true;
}

bool
kcf_feed_readable(KcfFeed *feed, int32 partition)
{
	FeedPartition *p = &feed->partitions[partition];

	p->probe_good = p->probe;
	if (p->probe_bad + 1 == p->probe_good)
	{
		skip_to(feed, partition, p->probe_good);
		return true;
	}
	go_on(feed, partition);
	return false;
}
