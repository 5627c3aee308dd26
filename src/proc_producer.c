/*
 * proc_producer.c
 *		What a producer does all day: the turns of its lanes and senders.
 *
 * Whoever writes hands over a flush on a lane and waits; its records go to the library, whose reports make up the
 * reply. Nothing here waits but for the latch, which backends set, and for the file descriptor, to which the library
 * writes. A process that is to end takes back what has not left, waits a moment for what has, and tells everybody
 * what is known.
 */
#include "postgres.h"

#include "proc_producer.h"

#include "guc.h"
#include "kafka.h"
#include "proc.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Pieces of one lane in one turn, so that a long flush does not hold up short ones. */
#define PIECES_AT_ONCE 8
/* What a process that ends waits for: acknowledgements under way, then reports of what was purged. */
#define LAST_ACKS_MS 250
#define LAST_REPORTS_MS 250
#define LAST_REPLIES_MS 100

static int database;

/* The lanes that are attached, and the flush on each, by number. */
static int *lanes;
static int nlanes = 0;
static bool *attached;
static KcfFlush **flushes;

static TimestampTz flushed_at; /* last */

/* ---- lanes --------------------------------------------------------------------------------- */

static bool
attach_lanes(void)
{
	bool any = false;
	int lane;

	while ((lane = kcf_lane_attach(database)) >= 0)
	{
		any = true;
		flushed_at = GetCurrentTimestamp();
		if (!attached[lane])
			lanes[nlanes++] = lane;
		attached[lane] = true;
	}
	return any;
}

/* The backend has left; what the library has of its flush takes its course. */
static void
lane_is_gone(int lane)
{
	if (flushes[lane])
		kcf_flush_leave(flushes[lane]);
	flushes[lane] = NULL;
	kcf_lane_detach(lane);
	attached[lane] = false;
}

static KcfFlush *
begin_flush(int lane, const KcfRoute *route, const KcfTarget *targets, int ntargets)
{
	KcfFlush *flush;
	KcfKafkaFault fault;

	kcf_senders_hear();
	flush = kcf_flush_begin(lane, route, targets, ntargets);
	flushes[lane] = flush;
	if (route->atomic)
	{
		kcf_atomic_begin(flush);
		return flush;
	}
	flush->sender = kcf_sender_for(flush, &fault);
	if (flush->sender)
		flush->sender->nflushes++;
	else
		kcf_flush_fail(flush, &fault);
	return flush;
}

/* Can it take more of what is in its lane? What has failed can, to find its end. */
static bool
may_take(const KcfFlush *flush)
{
	if (flush->fault.error != KCF_KAFKA_OK)
		return true;
	if (flush->route.atomic && !kcf_atomic_is_open(flush))
		return false;
	return !flush->sender->full;
}

static int
count_frames(const char *frames, Size len)
{
	int n = 0;

	for (Size at = 0; at < len; n++)
		at += ((const KcfFrame *) (frames + at))->size;
	return n;
}

/* Those of a transaction have not left before its commit. false: the backend has given up. */
static bool
take_frames(KcfFlush *flush, const char *frames, Size len)
{
	if (flush->route.atomic)
		flush->give_up_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), flush->route.timeout_ms);
	else if (flush->fault.error == KCF_KAFKA_OK &&
			 !kcf_lane_take(flush->lane, count_frames(frames, len)))
		return false;
	kcf_flush_frames(flush, frames, len);
	return true;
}

/* One step of a lane; false: there is nothing it could do now. */
static bool
step_lane(int lane)
{
	KcfFlush *flush = flushes[lane];
	KcfRoute route;
	const KcfTarget *targets;
	int ntargets;
	const char *frames;
	Size len;

	if (flush && !flush->reply && !flush->route.atomic && kcf_flush_is_settled(flush))
		kcf_flush_reply_counts(flush);
	if (flush && flush->reply && kcf_lane_reply(lane, flush->reply))
	{
		kcf_flush_leave(flush);
		flushes[lane] = NULL;
		flushed_at = GetCurrentTimestamp();
		return true;
	}
	if (flush && !flush->ended && !may_take(flush))
	{
		/* Nothing can be taken, but has it left? */
		if (kcf_lane_take(lane, 0))
			return false;
		lane_is_gone(lane);
		return true;
	}
	if (flush && flush->left > 0)
		return kcf_flush_send(flush);

	switch (kcf_lane_next(lane, &route, &targets, &ntargets, &frames, &len))
	{
		case KCF_LANE_NOTHING:
			return false;
		case KCF_LANE_BEGIN:
			(void) begin_flush(lane, &route, targets, ntargets);
			return true;
		case KCF_LANE_FRAMES:
			if (take_frames(flush, frames, len))
				(void) kcf_flush_send(flush);
			else
				lane_is_gone(lane);
			return true;
		case KCF_LANE_END:
			flush->ended = true;
			if (flush->route.atomic)
				flush->give_up_at =
					TimestampTzPlusMilliseconds(GetCurrentTimestamp(), flush->route.timeout_ms);
			return true;
		case KCF_LANE_GONE:
			lane_is_gone(lane);
			return true;
	}
	pg_unreachable();
}

static bool
serve_lanes(void)
{
	bool busy = false;
	int kept = 0;

	for (int i = 0; i < nlanes; i++)
	{
		for (int n = 0; n < PIECES_AT_ONCE && attached[lanes[i]] && step_lane(lanes[i]); n++)
			busy = true;
		if (attached[lanes[i]])
			lanes[kept++] = lanes[i];
	}
	nlanes = kept;
	return busy;
}

/* ---- the process --------------------------------------------------------------------------- */

/* true: there may be more to do at once. */
static bool
turn(void)
{
	bool busy = kcf_senders_serve();

	busy |= attach_lanes();
	busy |= serve_lanes();
	busy |= kcf_atomic_turn();
	kcf_flushes_sweep();
	return busy;
}

static void
take_reports(int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	while (kcf_senders_outstanding() > 0 && GetCurrentTimestamp() < until)
	{
		if (!kcf_senders_serve())
			pg_usleep(1000);
	}
}

static void
purge(bool in_flight)
{
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
		kcf_kafka_producer_purge(dlist_container(KcfSender, link, iter.cur)->kafka, in_flight);
}

/*
 * However this process leaves: whoever waits hears what became of its records. Called while it still has shared
 * memory; the clients end after that.
 */
static void
seal(int code, Datum arg)
{
	KcfKafkaFault fault = { KCF_KAFKA_OTHER, "the producer process has ended" };
	TimestampTz until;
	bool waiting;
	dlist_iter iter;

	LWLockReleaseAll();
	if (dlist_is_empty(&kcf_flushes))
		return;
	dlist_foreach(iter, &kcf_flushes)
		kcf_flush_fail(dlist_container(KcfFlush, link, iter.cur), &fault);
	purge(false);
	take_reports(LAST_ACKS_MS);
	kcf_atomic_finish();
	purge(true);
	take_reports(LAST_REPORTS_MS);

	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAST_REPLIES_MS);
	do
	{
		waiting = false;
		for (int i = 0; i < nlanes; i++)
		{
			KcfFlush *flush = flushes[lanes[i]];

			if (flush == NULL)
				continue;
			(void) kcf_flush_send(flush); /* what has come counts as refused */
			if (!flush->reply)
				kcf_flush_reply_counts(flush);
			if (kcf_lane_reply(lanes[i], flush->reply) || !kcf_lane_take(lanes[i], 0))
				flushes[lanes[i]] = NULL;
			else
				waiting = true;
		}
		if (waiting)
			pg_usleep(1000);
	} while (waiting && GetCurrentTimestamp() < until);
}

static TimestampTz
idle_since(void)
{
	return TimestampTzPlusMilliseconds(flushed_at,
									   kcf_guc_producer_idle_timeout * INT64CONST(1000));
}

static void
leave_if_idle(void)
{
	if (!dlist_is_empty(&kcf_flushes) || kcf_senders_outstanding() > 0 ||
		GetCurrentTimestamp() < idle_since())
		return;
	if (kcf_lane_close_all(database))
		proc_exit(0);
	flushed_at = GetCurrentTimestamp();
}

static long
sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

/* Milliseconds that may be slept. */
static long
time_to_sleep(void)
{
	long wait = sooner(kcf_senders_wait(), kcf_atomic_wait());

	if (dlist_is_empty(&kcf_flushes))
		wait =
			sooner(wait, 1 + TimestampDifferenceMilliseconds(GetCurrentTimestamp(), idle_since()));
	return wait;
}

void
kcf_producer_main(Datum arg)
{
	MemoryContext loop;

	database = DatumGetInt32(arg) >> 8;
	kcf_proc_start("producer");
	kcf_proc_connect(database);
	kcf_kafka_init_exit();
	lanes = MemoryContextAlloc(TopMemoryContext, kcf_lane_count() * sizeof(int));
	attached = MemoryContextAllocZero(TopMemoryContext, kcf_lane_count() * sizeof(bool));
	flushes = MemoryContextAllocZero(TopMemoryContext, kcf_lane_count() * sizeof(KcfFlush *));
	before_shmem_exit(seal, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);
	kcf_worker_say("running", "no connected clients");
	flushed_at = GetCurrentTimestamp();
	loop = AllocSetContextCreate(TopMemoryContext, "kafka_cache producer", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		bool busy;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		busy = turn();
		if (!busy)
			leave_if_idle();
		kcf_proc_wait(busy ? 0 : time_to_sleep());
	}
}
