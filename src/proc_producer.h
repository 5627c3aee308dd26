/*
 * proc_producer.h
 *		The producer's flushes and senders, for proc_producer*.c alone.
 *
 * Process:  a producer worker.
 * Locks:    none held while waiting.
 * Memory:   TopMemoryContext; a flush has a context of its own.
 * Errors:   what is wrong with a flush becomes its reply; anything else is thrown.
 * Waits:    never.
 */
#ifndef KCF_PROC_PRODUCER_H
#define KCF_PROC_PRODUCER_H

#include "kafka_producer.h"
#include "sendq.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"

typedef struct KcfFlush KcfFlush;
typedef struct KcfSender KcfSender;

/* ---- senders: clients of the library, and what they were made of ---- */

/* Of a sender with transactions. */
typedef enum KcfSenderState
{
	KCF_SENDER_INIT, /* not ready yet */
	KCF_SENDER_OPEN, /* a transaction is open; without a flush nothing is in it */
	KCF_SENDER_COMMIT,
	KCF_SENDER_ABORT
} KcfSenderState;

struct KcfSender
{
	dlist_node link;
	Oid serverid;
	Oid userid;
	int timeout_ms; /* of records; 0 with transactions */
	bool bulk;
	int slot; /* of the transactional ids; -1: without transactions */
	KcfKafkaProducer *kafka;
	uint64 options;      /* hash of what it was made of */
	bool checked;        /* ... and that is still so, as far as the catalogs' changes were heard */
	bool retired;        /* no flush is begun with it any more */
	bool broken;         /* it has failed, fault says why */
	bool full;           /* the library's queue, as we last saw it */
	int nflushes;        /* that use it, or await reports of it */
	TimestampTz used_at; /* last */
	TimestampTz gone_at; /* broken: ended then even if reports are missing */
	KcfKafkaFault fault;

	/* with transactions */
	KcfSenderState state;
	KcfFlush *flush; /* whose transaction it is; NULL: nobody's, or one that is being aborted */
	TimestampTz give_up_at; /* the present step */
};

extern dlist_head kcf_senders;

/* Hear of changes in the catalogs: before a flush is begun. */
extern void kcf_senders_hear(void);
/* For a flush without transactions; NULL: the flush's fault says why. */
extern KcfSender *kcf_sender_for(const KcfFlush *flush, KcfKafkaFault *fault);
/* One that is made for these, whose options are still what they were; NULL: fault says why. */
extern KcfSender *kcf_sender_create(Oid serverid, Oid userid, int timeout_ms, bool bulk, int slot,
									KcfKafkaFault *fault);
/*
 * false: it is retired now, its options are others. Looks into the catalogs only where they have changed; an error
 * there is in fault.
 */
extern bool kcf_sender_check(KcfSender *sender, KcfKafkaFault *fault);
/* Can it send all of the flush, as compressed as wanted? */
extern bool kcf_sender_fits(const KcfSender *sender, const KcfFlush *flush);
/* It has failed: records that are outstanding get their reports, and it ends after that. */
extern void kcf_sender_break(KcfSender *sender, const KcfKafkaFault *fault);
/* Take reports and errors of all senders; end those that have no more to do. true: there was something. */
extern bool kcf_senders_serve(void);
/* Milliseconds until there is something to do for them, -1: never. */
extern long kcf_senders_wait(void);
extern int64 kcf_senders_outstanding(void);

/* ---- flushes ---- */

/* How far a partition was written. */
typedef struct KcfFlushPartition
{
	int32 partition;
	int64 offset; /* -1: of none so far */
	int64 timestamp;
	uint64 lost; /* records written after that one, nobody knows where */
} KcfFlushPartition;

typedef struct KcfFlushTarget
{
	KcfFlush *flush;
	uint16 number;
	const KcfTarget *wanted;
	KcfKafkaTopic *topic; /* NULL: not asked for yet */
	KcfFlushPartition *partitions;
	int npartitions;
	int room;
	int last; /* reports of a partition come in a row */
} KcfFlushTarget;

struct KcfFlush
{
	dlist_node link;
	MemoryContext mcxt;
	KcfRoute route;
	int lane; /* -1: nobody waits for a reply, the backend has left or has got it */
	KcfSender *sender;
	bool waiting;           /* for a sender with transactions */
	bool ended;             /* its records are all here */
	TimestampTz give_up_at; /* atomic: it is not committed any more after that */

	/* of what lies in the lane */
	const char *frames;
	Size left;

	/* sent + refused before that = records that were seen */
	uint64 sent;
	int64 outstanding; /* of those sent */
	uint64 delivered;
	uint64 refused;
	uint64 unknown;
	KcfKafkaFault fault; /* the first */
	bool vague;          /* ... is only a consequence: any other says more */

	KcfReply *reply; /* NULL: not known yet */
	int ntargets;
	KcfFlushTarget targets[FLEXIBLE_ARRAY_MEMBER];
};

extern dlist_head kcf_flushes;

extern KcfFlush *kcf_flush_begin(int lane, const KcfRoute *route, const KcfTarget *targets,
								 int ntargets);
/* Nothing more of it is sent. A fault that is KCF_KAFKA_OK has its cause in another one. */
extern void kcf_flush_fail(KcfFlush *flush, const KcfKafkaFault *fault);
/* These have come; kcf_flush_send until nothing is left of them. */
extern void kcf_flush_frames(KcfFlush *flush, const char *frames, Size len);
/* false: the library's queue is full */
extern bool kcf_flush_send(KcfFlush *flush);
/* Is everything known that there will be, of the sender's reports? */
extern bool kcf_flush_is_settled(const KcfFlush *flush);
/*
 * Its reply is what has been counted; or, of a transaction, that nothing of it was or will be committed (refused), or
 * that this is not known.
 */
extern void kcf_flush_reply_counts(KcfFlush *flush);
extern void kcf_flush_reply_all(KcfFlush *flush, bool unknown, const KcfKafkaFault *fault);
/* Nobody waits for it any more: it goes with its last report. */
extern void kcf_flush_leave(KcfFlush *flush);
/* Free those whose reports have come and for which nobody waits. */
extern void kcf_flushes_sweep(void);
/* Its sender ends, and owes reports: nothing is known of those records. */
extern void kcf_flush_forget_sender(KcfFlush *flush);
/* A KcfReportReceiver */
extern void kcf_flush_report(const KcfDeliveryReport *report);

/* ---- flushes that are Kafka transactions ---- */

/* Get a sender for it, or a place in the line. */
extern void kcf_atomic_begin(KcfFlush *flush);
/* May its records be sent? */
extern bool kcf_atomic_is_open(const KcfFlush *flush);
/* Bring transactions forward. true: one has come further, so there may be more to do. */
extern bool kcf_atomic_turn(void);
/* Milliseconds until there is something to do for them, -1: never. */
extern long kcf_atomic_wait(void);
/* The process ends: commits that are under way get a moment, then every flush has its reply. */
extern void kcf_atomic_finish(void);

#endif /* KCF_PROC_PRODUCER_H */
