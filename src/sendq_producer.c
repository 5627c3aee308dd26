/*
 * sendq_producer.c
 *		The send queue's side of the producer: lanes.
 */
#include "postgres.h"

#include "sendq_internal.h"

#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What this process has of a lane. */
typedef struct Attachment
{
	bool attached;
	shm_mq_handle *to; /* towards us; NULL: not that far */
	shm_mq_handle *from;

	/* The message being told piece by piece; NULL: none. */
	const KcfLaneMessage *message;
	Size len;
	bool begun;   /* its beginning has been told */
	Size at;      /* what has been told */
	bool replies; /* the flush has been told to its end: a reply is due */
} Attachment;

static Attachment *attachments = NULL;

static void
detach_at_exit(int code, Datum arg)
{
	for (int lane = 0; lane < kcf_lane_count(); lane++)
	{
		if (attachments[lane].attached)
			kcf_lane_detach(lane);
	}
}

/* Has this lane been offered to a producer of this database? It is ours then. */
static bool
take_offer(int lane, Oid dboid)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	bool mine = false;

	/* A first look without the lock: who offers wakes us afterwards. */
	if (!*(volatile bool *) &shared->offered)
		return false;
	SpinLockAcquire(&shared->mutex);
	if (shared->offered && shared->dboid == dboid)
	{
		Assert(!shared->attached);
		shared->offered = false;
		shared->attached = true;
		pg_atomic_fetch_sub_u32(kcf_lane_offers(), 1);
		mine = true;
	}
	SpinLockRelease(&shared->mutex);
	return mine;
}

int
kcf_lane_attach(int database)
{
	Oid dboid = kcf_database(database)->dboid;

	if (attachments == NULL)
	{
		attachments =
			MemoryContextAllocZero(TopMemoryContext, kcf_lane_count() * sizeof(Attachment));
		/*
		 * Late: whoever destroys clients at exit may still have something to reply, and the worker's
		 * place in the registry is given up after this.
		 */
		on_shmem_exit(detach_at_exit, (Datum) 0);
	}
	if (pg_atomic_read_u32(kcf_lane_offers()) == 0)
		return -1;
	for (int lane = 0; lane < kcf_lane_count(); lane++)
	{
		Attachment *a = &attachments[lane];
		shm_mq *to;
		shm_mq *from;
		MemoryContext old;

		if (!take_offer(lane, dboid))
			continue;
		memset(a, 0, sizeof(Attachment));
		a->attached = true;
		to = kcf_lane_memory_to(lane);
		from = kcf_lane_memory_from(lane);
		old = MemoryContextSwitchTo(TopMemoryContext);
		/* In this order: the backend goes by the first queue, which wakes it. */
		shm_mq_set_sender(from, MyProc);
		a->from = shm_mq_attach(from, NULL, NULL);
		shm_mq_set_receiver(to, MyProc);
		a->to = shm_mq_attach(to, NULL, NULL);
		MemoryContextSwitchTo(old);
		return lane;
	}
	return -1;
}

KcfLanePiece
kcf_lane_next(int lane, KcfRoute *route, const KcfTarget **targets, int *ntargets,
			  const char **frames, Size *len)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	Attachment *a = &attachments[lane];
	const KcfLaneMessage *message;

	if (!a->attached || *(volatile bool *) &shared->abandoned)
		return KCF_LANE_GONE;
	if (a->replies)
		return KCF_LANE_NOTHING;

	if (a->message && a->begun && a->at == a->len && !a->message->ends)
		a->message = NULL;
	if (a->message == NULL)
	{
		void *data;
		shm_mq_result result = shm_mq_receive(a->to, &a->len, &data, true);

		pg_atomic_write_u64(&shared->looked_at, (uint64) GetCurrentTimestamp());
		if (result == SHM_MQ_WOULD_BLOCK)
			return KCF_LANE_NOTHING;
		if (result == SHM_MQ_DETACHED)
			return KCF_LANE_GONE;
		a->message = data;
		a->begun = !a->message->begins;
		a->at = KCF_MESSAGE_HEAD;
	}
	message = a->message;

	if (!a->begun)
	{
		a->begun = true;
		*route = message->route;
		*targets = (const KcfTarget *) ((const char *) message + a->at);
		*ntargets = message->ntargets;
		a->at += KCF_MESSAGE_TARGETS(message->ntargets);
		return KCF_LANE_BEGIN;
	}
	if (a->at < a->len)
	{
		*frames = (const char *) message + a->at;
		*len = a->len - a->at;
		a->at = a->len;
		return KCF_LANE_FRAMES;
	}
	/* A message without a beginning has frames, or an end. */
	Assert(message->ends);
	a->replies = true;
	return KCF_LANE_END;
}

bool
kcf_lane_take(int lane, int nrecords)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	bool may;

	if (!attachments[lane].attached)
		return false;
	SpinLockAcquire(&shared->mutex);
	may = !shared->abandoned;
	if (may)
		shared->taken += nrecords;
	SpinLockRelease(&shared->mutex);
	return may;
}

bool
kcf_lane_reply(int lane, const KcfReply *reply)
{
	Attachment *a = &attachments[lane];
	Size size = offsetof(KcfReply, written) + reply->nwritten * sizeof(KcfWritten);

	Assert(a->attached);
	if (shm_mq_send(a->from, size, reply, true /* do not wait */, true) == SHM_MQ_WOULD_BLOCK)
		return false;
	/* If the backend has left, that is its next piece. */
	a->replies = false;
	a->message = NULL;
	return true;
}

void
kcf_lane_detach(int lane)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	Attachment *a = &attachments[lane];

	if (!a->attached)
		return;
	if (a->to)
		shm_mq_detach(a->to);
	if (a->from)
		shm_mq_detach(a->from);
	memset(a, 0, sizeof(Attachment));

	/* From now on the backend may make the queues anew, and may be waiting for that. */
	SpinLockAcquire(&shared->mutex);
	shared->attached = false;
	shared->closing = false;
	SpinLockRelease(&shared->mutex);
	SetLatch(&GetPGProcByNumber(lane)->procLatch);
}

/* Detach a lane on which no flush is under way; false: one is. */
static bool
close_lane(int lane)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	bool busy;

	/* Whoever begins a flush here has said so before this, or sees that it must offer the lane anew. */
	SpinLockAcquire(&shared->mutex);
	busy = shared->flushing && !shared->abandoned;
	if (!busy)
		shared->closing = true;
	SpinLockRelease(&shared->mutex);
	if (!busy)
		kcf_lane_detach(lane);
	return !busy;
}

static bool
is_offered(int lane, Oid dboid)
{
	KcfSharedLane *shared = kcf_shared_lane(lane);
	bool offered;

	SpinLockAcquire(&shared->mutex);
	offered = shared->offered && shared->dboid == dboid;
	SpinLockRelease(&shared->mutex);
	return offered;
}

bool
kcf_lane_close_all(int database)
{
	Oid dboid = kcf_database(database)->dboid;
	bool all = true;

	/* Who offers a lane wishes for a producer afterwards: we see the offer, or the launcher the wish. */
	kcf_producer_unwant(database);
	for (int lane = 0; lane < kcf_lane_count(); lane++)
	{
		if (attachments && attachments[lane].attached ? !close_lane(lane) : is_offered(lane, dboid))
			all = false;
	}
	if (!all)
		kcf_producer_want(database);
	return all;
}
