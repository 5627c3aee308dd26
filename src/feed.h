/*
 * feed.h
 *		The consumption of one table: a client, its partitions, and the store that they fill.
 *
 * Process:  a consumer worker.
 * Locks:    the registry's, briefly, where shared things change.
 * Memory:   a context of its own; positions, counters and states go to shared memory.
 * Errors:   what concerns the topic or the brokers becomes a state; kcf_feed_open and
 *           kcf_feed_redefine throw what is wrong with the definition.
 * Waits:    up to 100 ms for a broker to say how many partitions there are, and not again for some
 *           seconds when it did not; else never.
 *
 * A table has one feed; while it is loaded again beside what is served it has two. A feed either
 * fills the store that is "loading" in the registry, or follows the one that is served.
 */
#ifndef KCF_FEED_H
#define KCF_FEED_H

#include "catalog.h"
#include "moment.h"
#include "notify.h"
#include "registry.h"

typedef struct KcfFeed KcfFeed;

/* What kafka_cache.tables shows. */
typedef struct KcfFeedState
{
	KcfTableState state;
	char text[256];
} KcfFeedState;

/*
 * Go on with the table's loading store (load) or its served one, from the positions in the registry.
 * In a transaction. def and server must live as long, or until redefined.
 */
extern KcfFeed *kcf_feed_open(KcfTable *table, KcfTableDef *def, const KcfServerOptions *server,
							  bool load);
/* Other definition of the same rows, other way to the brokers (new_client). In a transaction. */
extern void kcf_feed_redefine(KcfFeed *feed, KcfTableDef *def, const KcfServerOptions *server,
							  bool new_client);
extern void kcf_feed_close(KcfFeed *feed);

/*
 * A turn: take in what has arrived, apply a slice of it, react to the rest. seq is the next one to
 * be published. true: rows were changed, so publish.
 */
extern bool kcf_feed_turn(KcfFeed *feed, KcfSeq seq, int slice_us, Size spool_bytes);
/* Is there something left to do that need not be waited for? */
extern bool kcf_feed_busy(const KcfFeed *feed);
/* Did its last turn find anything to do, so that its state may be another one? */
extern bool kcf_feed_news(const KcfFeed *feed);
/* After the publish: positions and counters become visible. true: they have changed. */
extern bool kcf_feed_settle(KcfFeed *feed);
/*
 * A slice of the store's housekeeping, if it needs any (or may need some, after a tick); true:
 * publish, and there is more to do.
 */
extern bool kcf_feed_housekeep(KcfFeed *feed, KcfSeq published, KcfSeq min_pinned);
/* Once a second: time-outs, watchdogs. */
extern void kcf_feed_tick(KcfFeed *feed);

/* All partitions have reached their targets. */
extern bool kcf_feed_complete(const KcfFeed *feed);
/* Its store is (or is not any more) filled for the first time: less care of readers, more speed. */
extern void kcf_feed_set_loading(KcfFeed *feed, bool loading);
/*
 * Before its store is served: deletions that the log has lost already cannot be told of, so what is remembered of them
 * begins at the present position.
 */
extern void kcf_feed_remember_from_here(KcfFeed *feed);
/* The registry serves its store now (again: in place of another one). */
extern void kcf_feed_served(KcfFeed *feed, bool again);
/* Has it not passed all that the other one has? */
extern bool kcf_feed_is_behind(const KcfFeed *feed, const KcfFeed *other);
extern KcfStore *kcf_feed_store(const KcfFeed *feed);
/* What there is to be told of it; NULL: nothing ever. */
extern KcfNotify *kcf_feed_notify(const KcfFeed *feed);
/* Stopped for want of memory, since when (0: it is not). */
extern KcfMoment kcf_feed_full_since(const KcfFeed *feed);
/* The contents can no longer be trusted or completed, and why; NULL: they can. */
extern const char *kcf_feed_spoilt(const KcfFeed *feed);
extern void kcf_feed_state(const KcfFeed *feed, KcfFeedState *state);

#endif /* KCF_FEED_H */
