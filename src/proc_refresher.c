/*
 * proc_refresher.c
 *		What a refresher does all day: claim, compute, rest.
 *
 * Each refresh is a transaction of its own. What fails stays in the queue and is tried again later; the process goes
 * on with the next key. Between two refreshes it rests in proportion to kafka_cache.refresh_load, so that a long
 * queue does not take all of the server.
 */
#include "postgres.h"

#include "proc.h"

#include "guc.h"
#include "refreshq.h"
#include "rules.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define IDLE_MS 10000 /* without work, after which it leaves */
#define RULES_AFTER_ERROR_MS 5000
#define REST_MIN_US 2000 /* shorter rests are taken together */

static int database;
static int number;
static MemoryContext loop;

static TimestampTz worked_at; /* last */
static TimestampTz rules_at;  /* not to be called before, after an error; 0: any time */

/* However this process leaves. A crash empties the queue. */
static void
let_lapse(int code, Datum arg)
{
	LWLockReleaseAll();
	kcf_refreshq_lapse(MyDatabaseId, number);
}

/* ---- rules --------------------------------------------------------------------------------- */

/* Milliseconds until the next turn, -1: not before we are woken. stay: there are rules to watch over. */
static long
rules_turn(bool *stay)
{
	volatile long ms = -1;

	*stay = false;
	if (number != 0 || RecoveryInProgress())
		return -1;
	*stay = rules_at > GetCurrentTimestamp();
	if (*stay)
		return 1 + TimestampDifferenceMilliseconds(GetCurrentTimestamp(), rules_at);
	PG_TRY();
	{
		ms = kcf_rules_turn(stay);
		Assert(!IsTransactionState());
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		*stay = true;
		ms = RULES_AFTER_ERROR_MS;
		rules_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(loop);
	return ms;
}

/* ---- the process --------------------------------------------------------------------------- */

static long
sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

static long
ms_until(TimestampTz then)
{
	TimestampTz now = GetCurrentTimestamp();

	return then <= now ? 0 : 1 + TimestampDifferenceMilliseconds(now, then);
}

/* Nothing to do for a while. next: when something of the queue is due, 0: it has nothing. */
static void
leave_if_idle(TimestampTz next, bool stay)
{
	if (next != 0 || stay || ms_until(TimestampTzPlusMilliseconds(worked_at, IDLE_MS)) > 0)
		return;
	worked_at = GetCurrentTimestamp();
	/* Those with higher numbers leave first. */
	if (!kcf_refresher_unwant(database, number))
		return;
	/* Whoever came before that has counted on us. */
	(void) rules_turn(&stay);
	if (kcf_refreshq_due(&next) == 0 && next == 0 && !stay)
		proc_exit(0);
	kcf_refreshers_want(database, number + 1);
}

void
kcf_refresher_main(Datum arg)
{
	database = DatumGetInt32(arg) >> 8;
	number = (DatumGetInt32(arg) & 0xff) - KCF_WORKER_REFRESHER;
	kcf_proc_start("refresher");
	kcf_proc_connect(database);
	before_shmem_exit(let_lapse, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);
	worked_at = GetCurrentTimestamp();
	loop = AllocSetContextCreate(TopMemoryContext, "kafka_cache refresher", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz next = 0;
		bool stay;
		long wait;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		if (number >= kcf_guc_refresh_workers)
			proc_exit(0);
		wait = rules_turn(&stay);
		leave_if_idle(next, stay);
		if (next == 0 && !stay)
			wait = sooner(wait, ms_until(TimestampTzPlusMilliseconds(worked_at, IDLE_MS)));
		kcf_proc_wait(wait);
	}
}
