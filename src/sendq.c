/*
 * sendq.c
 *		The send queue's memory, and the side of the backends.
 *
 * What decides between "nothing has left" and "something may have" is a handshake in the lane: the producer counts
 * records as taken before it gives them to the library, a backend that gives up says so, and both look at the
 * other's word under the lane's spinlock. So after a backend has given up, the number of records taken does not
 * change any more.
 */
#include "postgres.h"

#include "sendq_internal.h"

#include "compat.h"
#include "guc.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* A launcher that is told of our wish while it is being restarted is told again. */
#define ASK_AGAIN_MS 1000

typedef union LanePadded
{
	KcfSharedLane lane;
	char pad[PG_CACHE_LINE_SIZE];
} LanePadded;

typedef struct SendQueue
{
	pg_atomic_uint32 offers;
	LanePadded lanes[FLEXIBLE_ARRAY_MEMBER];
} SendQueue;

static SendQueue *queue = NULL;
static char *rings = NULL;

/* This backend's lane, and its flush. */
static KcfSharedLane *mine = NULL;
static shm_mq_handle *to_producer = NULL;   /* NULL: not attached and not offered */
static shm_mq_handle *from_producer = NULL; /* likewise */
static bool flushing = false;
static uint64 nrecords = 0;
static int patience_ms = 0; /* of its route */
static TimestampTz deadline = 0;
static StringInfoData message = { 0 }; /* being put together */
static KcfReply *last_word = NULL;     /* of a producer that has gone; top memory context */

typedef enum Waiting
{
	FOR_PRODUCER,
	FOR_ROOM,
	FOR_REPLY
} Waiting;

/* ---- shared memory ---- */

static int
lane_count(void)
{
	return MaxBackends;
}

static Size
lanes_size(void)
{
	return add_size(offsetof(SendQueue, lanes), mul_size(lane_count(), sizeof(LanePadded)));
}

static Size
rings_size(void)
{
	return mul_size(lane_count(), KCF_LANE_TO_BYTES + KCF_LANE_FROM_BYTES);
}

Size
kcf_sendq_shmem_size(void)
{
	return add_size(add_size(lanes_size(), rings_size()), 2 * PG_CACHE_LINE_SIZE);
}

void
kcf_sendq_shmem_init(void)
{
	bool found;

	mine = NULL;
	queue = ShmemInitStruct("kafka_cache send queue", lanes_size(), &found);
	if (!found)
	{
		memset(queue, 0, lanes_size());
		pg_atomic_init_u32(&queue->offers, 0);
		for (int i = 0; i < lane_count(); i++)
		{
			SpinLockInit(&queue->lanes[i].lane.mutex);
			pg_atomic_init_u64(&queue->lanes[i].lane.looked_at, 0);
		}
	}
	rings = ShmemInitStruct("kafka_cache send queue rings", rings_size(), &found);
}

KcfSharedLane *
kcf_shared_lane(int lane)
{
	Assert(lane >= 0 && lane < lane_count());
	return &queue->lanes[lane].lane;
}

void *
kcf_lane_memory_to(int lane)
{
	return rings + (Size) lane * (KCF_LANE_TO_BYTES + KCF_LANE_FROM_BYTES);
}

void *
kcf_lane_memory_from(int lane)
{
	return (char *) kcf_lane_memory_to(lane) + KCF_LANE_TO_BYTES;
}

pg_atomic_uint32 *
kcf_lane_offers(void)
{
	return &queue->offers;
}

int
kcf_lane_count(void)
{
	return lane_count();
}

/* ---- leaving ---- */

/*
 * Give the lane back; what is left of a flush must not go out any more. The number of its records that may have
 * left.
 */
static uint64
leave_lane(void)
{
	uint64 taken;

	if (to_producer == NULL)
		return 0;

	SpinLockAcquire(&mine->mutex);
	mine->abandoned = true;
	mine->flushing = false;
	taken = mine->taken;
	if (mine->offered)
	{
		mine->offered = false;
		pg_atomic_fetch_sub_u32(&queue->offers, 1);
	}
	SpinLockRelease(&mine->mutex);

	/* This wakes the producer, which then leaves the lane as well. */
	shm_mq_detach(to_producer);
	shm_mq_detach(from_producer);
	to_producer = from_producer = NULL;
	return taken;
}

/* The flush is over, however that came. */
static void
forget_flush(void)
{
	flushing = false;
	if (last_word)
		pfree(last_word);
	last_word = NULL;
	/* A frame or targets of unusual size do not stay. */
	if (message.data && message.maxlen > 4 * KCF_LANE_MESSAGE_BYTES)
	{
		pfree(message.data);
		message.data = NULL;
	}
}

/* Leave a flush that does not come to its end. */
static uint64
give_up(void)
{
	uint64 taken = leave_lane();

	kcf_sendq_count_given_up(taken, nrecords);
	forget_flush();
	return taken;
}

void
kcf_sendq_abandon(void)
{
	if (flushing)
		(void) give_up();
}

static void
abandon_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		kcf_sendq_abandon();
}

/* No code of a user runs during a flush: what is rolled back here is what an error has left. */
static void
abandon_at_subxact_end(SubXactEvent event, SubTransactionId mySubid, SubTransactionId parentSubid,
					   void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		kcf_sendq_abandon();
}

static void
leave_at_exit(int code, Datum arg)
{
	kcf_sendq_abandon();
	(void) leave_lane();
}

/* ---- errors ---- */

pg_noreturn static void
outcome_unknown(uint64 taken, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("outcome of a write to Kafka is unknown"),
			 errdetail("%llu of %llu records may have been written: %s.",
					   (unsigned long long) taken, (unsigned long long) nrecords, why),
			 errhint("Read the topic to find out, or write the same again: a later record of a key "
					 "replaces the earlier one.")));
}

/* What kafka_cache.workers would say of it; "": nothing. */
static void
producer_text(char *text, Size size)
{
	int database = kcf_my_database();

	text[0] = '\0';
	if (database < 0)
	{
		if (!kcf_guc_database_listed(get_database_name(MyDatabaseId)))
			strlcpy(text, "The database is not in kafka_cache.databases.", size);
		return;
	}
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (kcf_database(database)->withdrawals > 0)
		strlcpy(text, "It has left for a command that needs the database.", size);
	else
	{
		const KcfWorker *worker = &kcf_database(database)->workers[KCF_WORKER_PRODUCER];

		if (worker->pid == 0 && worker->text[0])
			snprintf(text, size, "There is %s.", worker->text);
		else if (worker->pid == 0 && worker->state[0])
			snprintf(text, size, "Its state is \"%s\".", worker->state);
	}
	LWLockRelease(kcf_registry_lock);
}

static int
longest_wait(void)
{
	return patience_ms > 0 ? patience_ms : kcf_guc_produce_timeout;
}

pg_noreturn static void
no_producer(void)
{
	char text[300];

	(void) give_up();
	producer_text(text, sizeof(text));
	ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("no answer from the database's producer within %d ms", longest_wait()),
					text[0] ? errdetail_internal("%s", text) : 0,
					errhint("See kafka_cache.workers and the server's log.")));
}

pg_noreturn static void
out_of_time(void)
{
	uint64 taken = give_up();
	const char *limit =
		psprintf(patience_ms > 0 ? "%d ms" : "kafka_cache.produce_timeout (%d ms)", longest_wait());

	if (taken > 0)
		outcome_unknown(taken, psprintf("no answer within %s", limit));
	ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("could not write to Kafka within %s", limit),
					errdetail("Nothing has been sent."),
					errhint("See whether the brokers can be reached.")));
}

pg_noreturn static void
producer_gone(void)
{
	uint64 taken = give_up();

	if (taken > 0)
		outcome_unknown(taken, "the producer process has ended");
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE), errmsg("the database's producer has ended"),
			 errdetail("Nothing has been sent."), errhint("Try again.")));
}

/*
 * Cancelled while something may have left: not what cancelling promises, so it is told as what it is. A FATAL does
 * not come back here.
 */
static void
serve_interrupts(void)
{
	MemoryContext caller = CurrentMemoryContext;

	if (!INTERRUPTS_PENDING_CONDITION())
		return;
	PG_TRY();
	{
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		uint64 taken = give_up();
		ErrorData *edata;

		if (taken == 0 || patience_ms > 0)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		outcome_unknown(taken, edata->message);
	}
	PG_END_TRY();
}

/* ---- waiting ---- */

static void
set_deadline(void)
{
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), longest_wait());
}

/*
 * Sleep until the latch is set. Time runs while nothing happens: a producer that looks into the queue makes room
 * there, or would have found what it waits for. It does not look any more when it has seen the end of the flush.
 */
static void
nap(Waiting what)
{
	long left;

	if (what != FOR_PRODUCER)
	{
		TimestampTz looked_at = (TimestampTz) pg_atomic_read_u64(&mine->looked_at);

		deadline = Max(deadline, TimestampTzPlusMilliseconds(looked_at, longest_wait()));
	}
	left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	if (left <= 0)
	{
		if (what == FOR_PRODUCER)
			no_producer();
		out_of_time();
	}
	if (what == FOR_PRODUCER)
		left = Min(left, ASK_AGAIN_MS);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	serve_interrupts();
}

/* ---- attaching ---- */

static bool
is_attached(bool *offered)
{
	bool attached;

	SpinLockAcquire(&mine->mutex);
	attached = mine->attached;
	*offered = mine->offered;
	SpinLockRelease(&mine->mutex);
	return attached;
}

/* Begin on the lane as the last flush has left it; false: there is nobody at its other end any more. */
static bool
resume_lane(void)
{
	bool attached;

	if (to_producer == NULL)
		return false;
	SpinLockAcquire(&mine->mutex);
	attached = mine->attached && !mine->closing;
	mine->taken = 0;
	if (attached)
		mine->flushing = true;
	SpinLockRelease(&mine->mutex);
	if (!attached)
		(void) leave_lane();
	return attached;
}

static void
offer_lane(void)
{
	int lane = kcf_my_proc_number();
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	shm_mq *to = shm_mq_create(kcf_lane_memory_to(lane), KCF_LANE_TO_BYTES);
	shm_mq *from = shm_mq_create(kcf_lane_memory_from(lane), KCF_LANE_FROM_BYTES);
	shm_mq_handle *handle;

	shm_mq_set_sender(to, MyProc);
	shm_mq_set_receiver(from, MyProc);
	handle = shm_mq_attach(to, NULL, NULL);
	from_producer = shm_mq_attach(from, NULL, NULL);
	to_producer = handle;
	MemoryContextSwitchTo(old);

	SpinLockAcquire(&mine->mutex);
	mine->dboid = MyDatabaseId;
	mine->flushing = true;
	mine->abandoned = false;
	mine->taken = 0;
	mine->offered = true;
	pg_atomic_fetch_add_u32(&queue->offers, 1);
	SpinLockRelease(&mine->mutex);
}

/* This database's place in the registry: it has none yet in the first moments of the extension. */
static int
wait_for_database(void)
{
	int database;

	while ((database = kcf_my_database()) < 0)
	{
		kcf_wait_prepare(-1);
		if (kcf_my_database() < 0)
			nap(FOR_PRODUCER);
		kcf_wait_cancel(-1);
	}
	return database;
}

/* Wait until a producer has this lane. */
static void
attach_lane(void)
{
	bool offered;

	/* One that still has the lane as we, or the backend before us, have left it. */
	while (is_attached(&offered))
		nap(FOR_PRODUCER);

	for (;;)
	{
		int database = wait_for_database();

		if (to_producer == NULL)
			offer_lane();
		if (is_attached(&offered))
		{
			/* Nothing is sent before: shm_mq would keep it back from a receiver that comes later. */
			if (shm_mq_get_receiver(shm_mq_get_queue(to_producer)) != NULL)
				return;
		}
		else if (!offered)
		{
			/* It came, and left. */
			(void) leave_lane();
			continue;
		}
		/* After the offer: a producer that is about to leave sees one of the two. */
		kcf_producer_want(database);
		nap(FOR_PRODUCER);
	}
}

/* ---- a flush ---- */

static KcfLaneMessage *
new_message(void)
{
	KcfLaneMessage *head;

	resetStringInfo(&message);
	enlargeStringInfo(&message, KCF_MESSAGE_HEAD);
	head = (KcfLaneMessage *) message.data;
	memset(head, 0, KCF_MESSAGE_HEAD);
	message.len = KCF_MESSAGE_HEAD;
	return head;
}

void
kcf_sendq_begin(const KcfRoute *route, const KcfTarget *targets, int ntargets)
{
	KcfLaneMessage *head;

	if (flushing)
		elog(ERROR, "a flush is under way already");
	kcf_registry_check();
	if (mine == NULL)
	{
		Assert(kcf_my_proc_number() < lane_count());
		RegisterXactCallback(abandon_at_xact_end, NULL);
		RegisterSubXactCallback(abandon_at_subxact_end, NULL);
		before_shmem_exit(leave_at_exit, (Datum) 0);
		mine = kcf_shared_lane(kcf_my_proc_number());
	}
	if (message.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&message);
		enlargeStringInfo(&message, KCF_LANE_MESSAGE_BYTES);
		MemoryContextSwitchTo(old);
	}
	enlargeStringInfo(&message, (int) (KCF_MESSAGE_HEAD + KCF_MESSAGE_TARGETS(ntargets)));
	head = new_message();
	head->begins = true;
	head->ntargets = ntargets;
	head->route = *route;
	memset(message.data + message.len, 0, KCF_MESSAGE_TARGETS(ntargets));
	memcpy(message.data + message.len, targets, ntargets * sizeof(KcfTarget));
	message.len += (int) KCF_MESSAGE_TARGETS(ntargets);

	flushing = true;
	nrecords = 0;
	patience_ms = route->patience_ms;
	set_deadline();
	if (!resume_lane())
	{
		attach_lane();
		set_deadline();
	}
}

/* Its reply, if it has given one; NULL: not yet, or *gone. In the present memory context. */
static KcfReply *
receive_reply(bool *gone)
{
	Size len;
	void *data;
	KcfReply *reply;

	*gone = false;
	switch (shm_mq_receive(from_producer, &len, &data, true))
	{
		case SHM_MQ_SUCCESS:
			reply = palloc(len);
			memcpy(reply, data, len);
			return reply;
		case SHM_MQ_WOULD_BLOCK:
			return NULL;
		case SHM_MQ_DETACHED:
			*gone = true;
			return NULL;
	}
	pg_unreachable();
}

/* Hand the message over, with this frame at its end, and begin another one. */
static void
post(const char *frame, Size len, bool ends)
{
	shm_mq_iovec iov[2] = { { message.data, message.len }, { frame, len } };

	((KcfLaneMessage *) message.data)->ends = ends;
	while (last_word == NULL)
	{
		shm_mq_result result =
			shm_mq_sendv(to_producer, iov, frame ? 2 : 1, true /* do not wait */, ends);

		if (result == SHM_MQ_SUCCESS)
		{
			set_deadline();
			break;
		}
		else if (result == SHM_MQ_DETACHED)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
			bool gone;

			/* It may have said what became of the records before it left. */
			last_word = receive_reply(&gone);
			MemoryContextSwitchTo(old);
			if (last_word == NULL)
				producer_gone();
		}
		else
			nap(FOR_ROOM);
	}
	(void) new_message();
}

void
kcf_sendq_send(const char *frames, Size len)
{
	const char *end = frames + len;
	const char *at = frames;

	Assert(flushing);
	while (at < end)
	{
		const char *from = at;
		Size full = message.len;

		while (at < end && full + ((const KcfFrame *) at)->size <= KCF_LANE_MESSAGE_BYTES)
		{
			full += ((const KcfFrame *) at)->size;
			at += ((const KcfFrame *) at)->size;
			nrecords++;
		}
		if (at > from)
			appendBinaryStringInfo(&message, from, (int) (at - from));
		if (at == end)
			break;
		/* The next one does not fit, or never would. */
		if (((const KcfFrame *) at)->size <= KCF_LANE_MESSAGE_BYTES / 2)
			post(NULL, 0, false);
		else
		{
			Size size = ((const KcfFrame *) at)->size;

			nrecords++;
			post(at, size, false);
			at += size;
		}
	}
}

KcfReply *
kcf_sendq_finish(void)
{
	TimestampTz ended_at = GetCurrentTimestamp();
	KcfReply *reply;
	uint64 taken;
	uint64 counted;
	bool gone;

	Assert(flushing);
	post(NULL, 0, true);
	if (last_word)
	{
		Size size = offsetof(KcfReply, written) + last_word->nwritten * sizeof(KcfWritten);

		reply = palloc(size);
		memcpy(reply, last_word, size);
	}
	else
	{
		while ((reply = receive_reply(&gone)) == NULL)
		{
			if (gone)
				producer_gone();
			nap(FOR_REPLY);
		}
	}

	SpinLockAcquire(&mine->mutex);
	mine->flushing = false;
	taken = mine->taken;
	SpinLockRelease(&mine->mutex);

	/* A producer that ends does not speak of those that it has not seen. */
	counted = reply->delivered + reply->refused + reply->unknown;
	if (counted < nrecords)
	{
		uint64 refused = Min(nrecords - counted, nrecords - Min(taken, nrecords));

		reply->refused += refused;
		reply->unknown += nrecords - counted - refused;
		if (reply->fault.error == KCF_KAFKA_OK)
		{
			reply->fault.error = KCF_KAFKA_OTHER;
			strlcpy(reply->fault.text, "the producer process has ended", sizeof(reply->fault.text));
		}
	}
	kcf_sendq_count_reply(reply, ended_at);
	forget_flush();
	return reply;
}
