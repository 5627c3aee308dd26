/*
 * kcf_echo.c
 *		A producer without Kafka, for tests of the send queue: a session that takes the lanes and answers in the
 *		way it is told, and one that sends records which both sides count.
 */
#include "postgres.h"

#include "frame.h"
#include "registry.h"
#include "sendq.h"

#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(kcf_echo_hold);
PG_FUNCTION_INFO_V1(kcf_echo_release);
PG_FUNCTION_INFO_V1(kcf_echo_produce);
PG_FUNCTION_INFO_V1(kcf_echo_flush);
PG_FUNCTION_INFO_V1(kcf_echo_begin);

/* A flush as both sides have seen it; the hash does not depend on how frames were put together. */
typedef struct Sum
{
	int64 records;
	int64 hash;
} Sum;

static int
add_frames(Sum *sum, const char *frames, Size len)
{
	const char *end = frames + len;
	int n = 0;

	while (frames < end)
	{
		uint32 size = ((const KcfFrame *) frames)->size;

		sum->hash += hash_bytes((const unsigned char *) frames, (int) size) ^ (sum->records << 20);
		sum->records++;
		frames += size;
		n++;
	}
	return n;
}

static int
held_database(void)
{
	int database = kcf_my_database();

	if (database < 0 || kcf_database(database)->withdrawals == 0)
		elog(ERROR, "not held");
	return database;
}

/* As if a command held all workers of the database off for ever, so that no producer comes. */
Datum
kcf_echo_hold(PG_FUNCTION_ARGS)
{
	int database = kcf_database_withdraw(MyDatabaseId, get_database_name(MyDatabaseId));

	while (!kcf_database_left(database))
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000);
	}
	PG_RETURN_VOID();
}

Datum
kcf_echo_release(PG_FUNCTION_ARGS)
{
	kcf_database_restore(held_database(), MyDatabaseId);
	PG_RETURN_VOID();
}

typedef struct Flush
{
	bool begun;
	bool ended;
	int ntargets;
	Sum sum;
} Flush;

static void
answer(int lane, const Flush *flush, int64 records)
{
	Size size = offsetof(KcfReply, written) + flush->ntargets * sizeof(KcfWritten);
	KcfReply *reply = palloc0(size);

	reply->delivered = records;
	reply->nwritten = flush->ntargets;
	for (int i = 0; i < flush->ntargets; i++)
	{
		reply->written[i].target = i;
		reply->written[i].offset = flush->sum.hash;
	}
	while (!kcf_lane_reply(lane, reply))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(reply);
}

/* A piece of a lane; true: the flush is over. */
static bool
serve_piece(int lane, Flush *flush, const char *how, bool *idle, bool *mine)
{
	KcfRoute route;
	const KcfTarget *targets;
	const char *frames;
	Size len;
	int n;

	*idle = false;
	switch (kcf_lane_next(lane, &route, &targets, &flush->ntargets, &frames, &len))
	{
		case KCF_LANE_NOTHING:
			*idle = true;
			return false;
		case KCF_LANE_BEGIN:
			if (flush->begun || route.serverid != 4711 || flush->ntargets < 1)
				elog(ERROR, "not a beginning");
			for (int i = 0; i < flush->ntargets; i++)
				if (strcmp(targets[i].topic, psprintf("topic %d", i)) != 0)
					elog(ERROR, "target %d is \"%s\"", i, targets[i].topic);
			flush->begun = true;
			if (strcmp(how, "leave before") != 0)
				return false;
			kcf_lane_detach(lane);
			return true;
		case KCF_LANE_FRAMES:
			if (!flush->begun)
				elog(ERROR, "frames without a beginning");
			n = add_frames(&flush->sum, frames, len);
			if (strcmp(how, "cancel before") == 0)
			{
				kill(GetPGProcByNumber(lane)->pid, SIGINT);
				return false;
			}
			if (!kcf_lane_take(lane, n))
				elog(ERROR, "the backend has left");
			if (strcmp(how, "cancel after") == 0)
				kill(GetPGProcByNumber(lane)->pid, SIGINT);
			else if (strcmp(how, "terminate") == 0)
				kill(GetPGProcByNumber(lane)->pid, SIGTERM);
			else if (strcmp(how, "last word") == 0)
			{
				answer(lane, flush, flush->sum.records - 1);
				kcf_lane_detach(lane);
				return true;
			}
			else if (strcmp(how, "leave after") == 0)
			{
				kcf_lane_detach(lane);
				return true;
			}
			return false;
		case KCF_LANE_END:
			if (!flush->begun || flush->ended)
				elog(ERROR, "not an end");
			flush->ended = true;
			if (strcmp(how, "answer") != 0 && strcmp(how, "leave idle") != 0)
				return false;
			answer(lane, flush, flush->sum.records);
			return true;
		case KCF_LANE_GONE:
			/* A take must be refused now, whatever has been taken before. */
			if (kcf_lane_take(lane, 1))
				elog(ERROR, "taken from a backend that has left");
			kcf_lane_detach(lane);
			*mine = false;
			return flush->begun;
	}
	pg_unreachable();
}

static void
leave(void)
{
	for (int lane = 0; lane < kcf_lane_count(); lane++)
		kcf_lane_detach(lane);
}

static int64
produce(int database, const char *how, int wanted)
{
	Flush *flushes = palloc0(kcf_lane_count() * sizeof(Flush));
	bool *mine = palloc0(kcf_lane_count() * sizeof(bool));
	int64 records = 0;
	int over = 0;

	while (over < wanted)
	{
		int lane;
		bool idle = true;

		while ((lane = kcf_lane_attach(database)) >= 0)
		{
			mine[lane] = true;
			memset(&flushes[lane], 0, sizeof(Flush));
		}
		for (lane = 0; lane < kcf_lane_count() && over < wanted; lane++)
		{
			bool nothing = false;

			while (mine[lane] && !nothing && over < wanted && strcmp(how, "deaf") != 0)
			{
				if (serve_piece(lane, &flushes[lane], how, &nothing, &mine[lane]))
				{
					records += flushes[lane].sum.records;
					memset(&flushes[lane], 0, sizeof(Flush));
					over++;
				}
				else if (!nothing)
					idle = false;
				CHECK_FOR_INTERRUPTS();
			}
		}
		if (idle && strcmp(how, "leave idle") == 0)
			(void) kcf_lane_close_all(database);
		if (idle && over < wanted)
		{
			/* The registry does not know us as a producer, so it does not wake us. */
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	return records;
}

/*
 * Be the producer until this many flushes are over, then leave. how: "answer" each, "leave idle": the same, and
 * leave whenever there is nothing to do, "deaf": look at nothing, "silent": take all and answer nothing, "leave
 * before" or "leave after" records are taken, "last word": leave with an answer on all taken but one, "cancel
 * before", "cancel after", "terminate" the backend. How many records there were.
 */
Datum
kcf_echo_produce(PG_FUNCTION_ARGS)
{
	const char *how = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int database = held_database();
	int64 records = 0;

	/* Unlike a real producer this process goes on living after an error. */
	PG_TRY();
	{
		records = produce(database, how, PG_GETARG_INT32(1));
	}
	PG_FINALLY();
	{
		leave();
	}
	PG_END_TRY();
	PG_RETURN_INT64(records);
}

static void
begin(int ntargets)
{
	KcfRoute route = { .serverid = 4711 };
	KcfTarget *targets = palloc0(ntargets * sizeof(KcfTarget));

	for (int i = 0; i < ntargets; i++)
		snprintf(targets[i].topic, sizeof(targets[i].topic), "topic %d", i);
	kcf_sendq_begin(&route, targets, ntargets);
}

/* Send this many records, of 0 to size bytes, to some topics; what the reply says. */
Datum
kcf_echo_flush(PG_FUNCTION_ARGS)
{
	int records = PG_GETARG_INT32(0);
	int size = PG_GETARG_INT32(1);
	int ntargets = PG_GETARG_INT32(2);
	char *value = palloc(size + 1);
	StringInfoData buf;
	Sum sum = { 0 };
	KcfReply *reply;

	initStringInfo(&buf);
	memset(value, 'x', size);
	begin(ntargets);
	for (int i = 0; i < records; i++)
	{
		char key[20];
		KcfRecord rec = { .partition = KCF_ANY_PARTITION };

		rec.key.data = key;
		rec.key.len = snprintf(key, sizeof(key), "%d", i);
		rec.value.data = value;
		rec.value.len = i + 1 == records ? size : (uint64) i * 7919 % (size + 1);
		kcf_frame_append(&buf, i % ntargets, i, &rec);
		if (buf.len > 100000 || i + 1 == records)
		{
			add_frames(&sum, buf.data, buf.len);
			kcf_sendq_send(buf.data, buf.len);
			resetStringInfo(&buf);
		}
	}
	reply = kcf_sendq_finish();
	for (int i = 0; i < reply->nwritten && reply->delivered == records; i++)
	{
		if (reply->written[i].target != i || reply->written[i].offset != sum.hash)
			elog(ERROR, "the producer has got something else");
	}
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(
		"%d delivered, %d refused, %d unknown%s%s", (int) reply->delivered, (int) reply->refused,
		(int) reply->unknown, reply->fault.error == KCF_KAFKA_OK ? "" : ": ", reply->fault.text)));
}

/* Begin a flush and leave it to an error. */
Datum
kcf_echo_begin(PG_FUNCTION_ARGS)
{
	begin(1);
	PG_RETURN_VOID();
}
