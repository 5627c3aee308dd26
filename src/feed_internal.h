/*
 * feed_internal.h
 *		A feed's insides, for feed.c, feed_client.c and feed_state.c alone.
 *
 * Process:  a consumer worker.
 * Locks:    none.
 * Memory:   the feed's own.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_FEED_INTERNAL_H
#define KCF_FEED_INTERNAL_H

#include "datatype/timestamp.h"
#include "feed.h"
#include "ingest.h"
#include "kafka.h"

#define SECONDS(n) (INT64CONST(1000000) * (n))

/*
 * So long without an answer to a request for records, beyond what the broker may take for it while there are
 * none, and a partition counts as cut off. With the second that passes until that is looked at, less than five.
 */
#define CUT_OFF SECONDS(3)
#define DEFAULT_FETCH_WAIT_MS 500

typedef struct FeedPartition
{
	int64 target; /* high watermark when the load met it first; -1: not met yet */
	int64 low;    /* log start, high watermark, last stable offset; -1: unknown */
	int64 high;
	int64 stable;
	int64 seen_next;   /* position when last looked at */
	KcfMoment at_end;  /* when last known to be at the end */
	KcfMoment contact; /* when its broker was last heard of */
	int64 leader;      /* where it was fetched from when statistics were read last; -1: nowhere */
	int64 connection;  /* ... over which connection */
	int64 fetches;     /* ... and how many requests for records there were then; -1: none counts */
	bool erred;        /* an error of the partition has come since then */
	KcfMoment moved;   /* when the position last changed, or the fetching was started */
	bool started;
	bool known;             /* the cluster has had it since the client was made */
	bool missing;           /* the cluster says that there is no such partition */
	int bad_tries;          /* in a row, at the same offset */
	int64 bad_base;         /* where the unreadable batch begins */
	int64 probe;            /* feed_skip.c: where fetching was started to look; -1: not looking */
	int64 probe_begin;      /* ... the first one in doubt */
	int64 probe_bad;        /* ... an offset that is in the unreadable batch */
	int64 probe_good;       /* ... and one that is behind it; -1: not known yet */
	KcfMoment retry_at;     /* fetching is to be started anew then; 0: not */
	KcfMoment up_since;     /* its broker is connected since; 0: it is not */
	KcfMoment beyond_since; /* our position has been behind the end of the log since */
} FeedPartition;

struct KcfFeed
{
	MemoryContext mcxt;
	KcfTable *table;
	KcfTableDef *def;
	const KcfServerOptions *server;
	bool load;   /* fills table->loading */
	bool beside; /* ... while another store is served */
	KcfStore *store;
	KcfIngest *ingest;
	KcfNotify *notify; /* NULL: the table has no channel */
	KcfSpool *spool;
	KcfProgress progress;
	KcfCounters counted;       /* of progress.counters, in the table's totals */
	FeedPartition *partitions; /* [progress.npartitions] */
	int capacity;

	/* the client */
	KcfKafka *kafka;
	KcfMoment connected_at;
	KcfMoment cut_off;     /* CUT_OFF with this client's settings */
	int stuck_tries;       /* clients in a row that made no progress */
	int down_tries;        /* ... that found no broker */
	KcfMoment retry_at;    /* without a client: when to make one */
	KcfMoment discover_at; /* without partitions: when to ask for them */
	int discover_ms;       /* back-off of asking */
	KcfKafkaFault fault;   /* what stands in the way of the client; error KCF_KAFKA_OK: nothing */
	KcfMoment fault_since;
	bool topic_missing;

	bool pulling; /* the library may have more for us */
	bool applied; /* rows changed since the last settle */
	bool moved;   /* positions or counters did */
	bool news;    /* this turn found something to do */
	bool untidy;  /* the store may need housekeeping */
	int rows_since_housekeeping;

	KcfMoment full_since; /* 0: there is room */
	KcfMoment full_retry;
	char spoilt[160];
	KcfMoment now; /* of this turn */

	/* for people: when the partition was heard of that was not for the longest time */
	KcfMoment silent;
	TimestampTz silent_since;
};

/* ---- feed_client.c: the client and what it tells ---- */
extern void kcf_feed_connect(KcfFeed *feed);
extern void kcf_feed_disconnect(KcfFeed *feed);
extern void kcf_feed_listen(KcfFeed *feed);
extern void kcf_feed_event(KcfFeed *feed, const KcfSpooled *spooled);
/* Fetch this partition from its position on. */
extern void kcf_feed_start(KcfFeed *feed, int32 partition);
/* Its position has changed, or it was heard of otherwise. */
extern void kcf_feed_moved(KcfFeed *feed, int32 partition);
extern void kcf_feed_spoil(KcfFeed *feed, const char *fmt, ...) pg_attribute_printf(2, 3);
/* ---- feed_skip.c: over a batch that cannot be read ---- */
/* It could not, once more; true: the search for its end has been begun or goes on. */
extern bool kcf_feed_unreadable(KcfFeed *feed, const KcfSpooled *spooled,
								const KcfKafkaFault *fault);
/* While searching something readable has come; true: it is the next after the batch. */
extern bool kcf_feed_readable(KcfFeed *feed, int32 partition);
/* ---- feed.c ---- */
/* The topic has so many partitions; false: no memory for them. */
extern bool kcf_feed_set_count(KcfFeed *feed, int n);
extern void kcf_feed_set_full(KcfFeed *feed, bool full);

#endif /* KCF_FEED_INTERNAL_H */
