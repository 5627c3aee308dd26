/*
 * sendq.h
 *		The send queue: from backends to the database's producer and back, through shared memory.
 *
 * Process:  backends (kcf_sendq_*) and the producer (kcf_lane_*).
 * Locks:    the registry lock, for a moment, to find the producer; a spinlock in each lane.
 * Memory:   fixed, main shared memory: a lane for each backend; local state in TopMemoryContext.
 * Errors:   backends: 08006 where nothing can have left, 08007 where something may have; the producer: none.
 * Waits:    backends on their latch, for room and for the reply, interruptible, kafka_cache.produce_timeout at
 *           most; the producer never.
 *
 * A lane is a pair of the server's own message queues (shm_mq), one each way. A flush is what a backend hands over
 * at once: BEGIN, its targets, frames, END; the reply comes when every record's fate is known. A backend that
 * leaves a flush early detaches, and so does a producer that leaves; the other side notices at once.
 */
#ifndef KCF_SENDQ_H
#define KCF_SENDQ_H

#include "frame.h"
#include "kafka.h"
#include "registry.h"

/* ---- what travels ---- */

/* The way to the brokers: one client of the producer (or, where atomic, one at a time of a few). */
typedef struct KcfRoute
{
	Oid serverid;
	Oid userid;     /* whose user mapping produces */
	int timeout_ms; /* of each record: kafka_cache.produce_timeout of the session, a little less */
	bool atomic;    /* one Kafka transaction */
	bool bulk;      /* many records: large batches matter more than the time of each */
	/*
	 * How long the backend waits at most; 0: kafka_cache.produce_timeout. Who gives it does not care what becomes of
	 * the records: when it is cancelled, that is all there is to say.
	 */
	int patience_ms;
} KcfRoute;

/* A table's topic, numbered within a flush by frame->target. */
typedef struct KcfTarget
{
	char topic[250];
	char compression[8]; /* empty: the server's */
} KcfTarget;

/* How far a partition was written by the flush. */
typedef struct KcfWritten
{
	uint16 target;
	int32 partition;
	int64 offset;    /* the last one */
	int64 timestamp; /* that record's, as the broker has it; KCF_NO_TIMESTAMP: not known */
} KcfWritten;

/* delivered + refused + unknown = the records of the flush */
typedef struct KcfReply
{
	uint64 delivered; /* acknowledged, and visible: not in a transaction that was aborted */
	uint64 refused;   /* certainly not in the log, or never visible there */
	uint64 unknown;
	KcfKafkaFault fault; /* the first one; KCF_KAFKA_OK: all delivered */
	int nwritten;
	KcfWritten written[FLEXIBLE_ARRAY_MEMBER];
} KcfReply;

/* ---- shared memory ---- */
extern Size kcf_sendq_shmem_size(void);
extern void kcf_sendq_shmem_init(void);

/* ---- backend ---- */

/* Begin a flush: has the producer started if it is not there, and waits for that. */
extern void kcf_sendq_begin(const KcfRoute *route, const KcfTarget *targets, int ntargets);
/* Whole frames; waits while the queue is full. */
extern void kcf_sendq_send(const char *frames, Size len);
/*
 * Waits until the fate of every record is known. The reply is palloc'd in the current context; what it says is for
 * the caller to judge. Cancelled or out of time: an error that says whether anything may have left.
 */
extern KcfReply *kcf_sendq_finish(void);
/* At the transaction's abort, harmless at any time: leave a flush that has not come to its end. */
extern void kcf_sendq_abandon(void);

/* ---- producer ---- */

typedef struct KcfLane KcfLane;

/* What a lane's next piece is. */
typedef enum KcfLanePiece
{
	KCF_LANE_NOTHING, /* (yet) */
	KCF_LANE_BEGIN,   /* route and targets */
	KCF_LANE_FRAMES,
	KCF_LANE_END,
	KCF_LANE_GONE /* the backend has left; what it left of a flush is of no interest to anybody */
} KcfLanePiece;

/*
 * Take the lanes of this database that wait for a producer: a number from 0 to kcf_lane_count() - 1 each; -1: none.
 * Lanes are detached when the process exits, after its before_shmem_exit callbacks, which may still reply.
 */
extern int kcf_lane_count(void);
extern int kcf_lane_attach(int database);
/*
 * What it points to is good until the next call for this lane. After the end it finds nothing until there was a
 * reply. Each call counts as progress for a backend that waits for room: ask only where frames could be taken.
 */
extern KcfLanePiece kcf_lane_next(int lane, KcfRoute *route, const KcfTarget **targets,
								  int *ntargets, const char **frames, Size *len);
/*
 * Before these records are given to the library (of a Kafka transaction: before it is committed): they count as
 * having left from now on. false: the backend has given up, and nothing of it may leave any more.
 */
extern bool kcf_lane_take(int lane, int nrecords);
/*
 * Never waits: false when the queue is full; call again with the same reply when the latch is set. A producer that
 * ends may reply before the end of a flush; what it does not count it has not taken.
 */
extern bool kcf_lane_reply(int lane, const KcfReply *reply);
extern void kcf_lane_detach(int lane);
/*
 * May the producer leave? true: no flush is under way, and none begins with this producer any more (all lanes are
 * detached). false: those without a flush are detached, and gone when asked for their next piece.
 */
extern bool kcf_lane_close_all(int database);

#endif /* KCF_SENDQ_H */
