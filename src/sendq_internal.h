/*
 * sendq_internal.h
 *		What lies in shared memory for the send queue, for sendq*.c alone.
 *
 * Process:  backends and producers.
 * Locks:    a spinlock in each lane, for a few instructions.
 * Memory:   fixed, main shared memory.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_SENDQ_INTERNAL_H
#define KCF_SENDQ_INTERNAL_H

#include "sendq.h"

#include "port/atomics.h"
#include "storage/shm_mq.h"
#include "storage/spin.h"

/* Towards the producer, and back. A message may be larger: then it goes through in pieces. */
#define KCF_LANE_TO_BYTES (64 * 1024)
#define KCF_LANE_FROM_BYTES (8 * 1024)
/* Frames are put together to messages of this size. */
#define KCF_LANE_MESSAGE_BYTES (16 * 1024)

/*
 * A lane belongs to the backend of its number. That one makes the queues anew for each attachment, and
 * may do so while the lane is not attached: no producer knows their memory then.
 *
 *		free ── backend: makes the queues ──► offered ── producer: attaches ──► attached
 *		  ▲                                     │                                 │
 *		  ├────── backend: takes it back ───────┘                                 │
 *		  └────── producer: detaches, as soon as either side wants an end ────────┘
 *
 * It stays attached from flush to flush, so that a flush costs no more than one wake-up each way.
 */
typedef struct KcfSharedLane
{
	slock_t mutex;
	Oid dboid;                  /* of the backend; backend, before it offers */
	bool offered;               /* mutex */
	bool attached;              /* mutex; set and cleared by the producer */
	bool flushing;              /* mutex; backend: the producer must not leave for being idle */
	bool closing;               /* mutex; producer: it leaves, no flush may begin here */
	bool abandoned;             /* mutex; backend: it has left, nothing of it may go out any more */
	uint64 taken;               /* mutex; producer: records of this flush that may have left */
	pg_atomic_uint64 looked_at; /* TimestampTz; producer: when it last looked into the queue */
} KcfSharedLane;

/* What the queue to the producer transports; ntargets KcfTargets and frames follow. */
typedef struct KcfLaneMessage
{
	bool begins; /* a flush */
	bool ends;
	int ntargets;
	KcfRoute route; /* where it begins */
} KcfLaneMessage;

#define KCF_MESSAGE_HEAD MAXALIGN(sizeof(KcfLaneMessage))
#define KCF_MESSAGE_TARGETS(n) MAXALIGN((n) * sizeof(KcfTarget))

extern KcfSharedLane *kcf_shared_lane(int lane);
extern void *kcf_lane_memory_to(int lane);
extern void *kcf_lane_memory_from(int lane);
/* How many lanes are offered, in all databases. */
extern pg_atomic_uint32 *kcf_lane_offers(void);

/* ---- sendq_outcome.c ---- */
extern void kcf_sendq_count_reply(const KcfReply *reply, TimestampTz ended_at);
/* Of a flush that its backend leaves: so many of its records may have left. */
extern void kcf_sendq_count_given_up(uint64 taken, uint64 records);

#endif /* KCF_SENDQ_INTERNAL_H */
