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
#include "product.h"
#include "product_key.h"
#include "refresh_log.h"
#include "refreshq.h"
#include "rules.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define IDLE_MS 10000 /* without work, after which it leaves */
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 10000
#define LOG_INTERVAL_MS 60000
#define RULES_AFTER_ERROR_MS 5000
#define REST_MIN_US 2000 /* shorter rests are taken together */

static int database;
static int number;
static MemoryContext loop;

static int64 debt_us = 0;        /* of rest */
static KcfMoment rest_until = 0; /* 0: not at all */
static long pause_ms = 0;        /* the last one for want of Kafka */
static KcfMoment worked_at;      /* last */
static KcfMoment rules_at;       /* not to be called before, after an error; 0: any time */

/* Milliseconds from now until then, at least 0. */
static long
ms_until(KcfMoment then)
{
	KcfMoment now = kcf_moment_now();

	return then <= now ? 0 : (long) ((then - now) / 1000 + 1);
}

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
	*stay = rules_at > kcf_moment_now();
	if (*stay)
		return ms_until(rules_at);
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
		rules_at = kcf_moment_now() + RULES_AFTER_ERROR_MS * INT64CONST(1000);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(loop);
	return ms;
}

/* ---- refreshing ---------------------------------------------------------------------------- */

typedef enum Outcome
{
	REFRESHED,
	FAILED,
	NOT_KEPT, /* for want of Kafka */
	NO_PRODUCT,
	NO_KEY /* of the product, as it is now */
} Outcome;

/* How far the present refresh has come, to judge its errors by. */
typedef enum Stage
{
	DEFINING,
	DECODING,
	COMPUTING
} Stage;

static volatile Stage stage;
static char name[2 * NAMEDATALEN + 8]; /* of the product, for the log */

/*
 * A row that was computed later is as good (PG_INT64_MAX: none is). Readers have asked for a stale row, whoever may
 * have renewed it. What was asked for because something has changed is computed here, after it has changed: another
 * server that computes the same key may not know of it yet.
 */
static int64
as_good(const KcfTableDef *def, const KcfRefreshClaim *claim)
{
	int64 than = 0;

	if (claim->reasons & (1U << KCF_REFRESH_ASKED | 1U << KCF_REFRESH_RULE))
		return PG_INT64_MAX;
	if (claim->reasons & 1U << KCF_REFRESH_PERIOD)
		than = kcf_product_millis(claim->first_requested);
	if (claim->reasons & 1U << KCF_REFRESH_READ && def->options->soft_ttl != 0)
		than = Max(than, kcf_product_millis(GetCurrentTimestamp()) - def->options->soft_ttl);
	return than;
}

/* In a transaction. */
static Outcome
refresh_it(const KcfRefreshClaim *claim)
{
	KcfTableDef *def;
	char *seen = NULL;
	Datum key[KCF_MAX_KEYS];
	KcfAnswer present;

	stage = DEFINING;
	snprintf(name, sizeof(name), "%u", claim->relid);
	kcf_product_keeping = false;
	def = kcf_catalog_cached(claim->relid);
	if (!kcf_is_product(def))
		return NO_PRODUCT;
	strlcpy(name, def->name, sizeof(name));
	pgstat_report_activity(STATE_RUNNING, psprintf("refreshing %s", name));
	stage = DECODING;
	if (!kcf_product_key_decode(def, claim->key, key))
		return NO_KEY;
	stage = COMPUTING;
	/* Purged since it was read: whoever reads it next has it computed. */
	if (claim->reasons == 1U << KCF_REFRESH_READ && !kcf_product_look(def, key, &present))
		return REFRESHED;
	if (claim->logged != 0)
		seen = kcf_refresh_log_seen();
	(void) kcf_product_refresh(def, key, as_good(def, claim));
	if (seen)
		kcf_refresh_log_settle(claim->relid, claim->key, claim->logged, seen);
	return REFRESHED;
}

static Outcome
judge(const ErrorData *edata)
{
	int category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);

	if (stage == DEFINING && (edata->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
							  edata->sqlerrcode == ERRCODE_WRONG_OBJECT_TYPE))
		return NO_PRODUCT;
	if (stage == DECODING &&
		(category == ERRCODE_DATA_EXCEPTION || category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION))
		return NO_KEY;
	return category == ERRCODE_CONNECTION_EXCEPTION && kcf_product_keeping ? NOT_KEPT : FAILED;
}

/* A product that fails may have a million keys. */
static void
log_failure(const ErrorData *edata)
{
	static TimestampTz last_logged = 0;

	if (last_logged != 0 &&
		!TimestampDifferenceExceeds(last_logged, GetCurrentTimestamp(), LOG_INTERVAL_MS))
		return;
	last_logged = GetCurrentTimestamp();
	ereport(LOG, (errmsg("could not refresh a key of data product %s: SQLSTATE %s", name,
						 unpack_sql_state(edata->sqlerrcode)),
				  errhint("See kafka_cache.refresh_queue for keys and reasons.")));
}

/* What has asked for a key that is none is done. */
static void
settle(const KcfRefreshClaim *claim)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	kcf_refresh_log_settle(claim->relid, claim->key, claim->logged, kcf_refresh_log_seen());
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(loop);
}

static Outcome
refresh(const KcfRefreshClaim *claim)
{
	volatile Outcome result;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		result = refresh_it(claim);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(loop);
	}
	PG_CATCH();
	{
		ErrorData *edata;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(loop);
		edata = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		MemoryContextSwitchTo(loop);
		RESUME_INTERRUPTS();
		result = judge(edata);
		if (result == FAILED || result == NOT_KEPT)
		{
			kcf_refreshq_failed(claim, edata->message, result == NOT_KEPT);
			log_failure(edata);
		}
	}
	PG_END_TRY();

	if (result == NO_KEY && claim->logged != 0)
		settle(claim);
	if (result == REFRESHED || result == NO_KEY)
		kcf_refreshq_done(claim);
	else if (result == NO_PRODUCT)
		kcf_refreshq_forget(MyDatabaseId, claim->relid);
	return result;
}

/* What it is to rest after so many microseconds, of which it has waited for Kafka for these: that is a rest, too. */
static int64
rest_of(int64 us, int64 waited_us)
{
	int64 rest = (us - waited_us) * (100 - kcf_guc_refresh_load) / kcf_guc_refresh_load;

	return Max(rest - waited_us, 0);
}

/* Claim something and do it. false: nothing is due; *next: when something is, 0: the queue is empty. */
static bool
work(TimestampTz *next)
{
	KcfRefreshClaim claim;
	KcfMoment start;
	int64 kept_us = kcf_product_kept_us;

	if (!kcf_refreshq_claim(number, &claim, next))
		return false;
	/* One who finds more than it can do calls the next. */
	if (kcf_refreshq_more() && number + 2 <= kcf_guc_refresh_workers &&
		kcf_refreshers_wanted(database) < number + 2)
		kcf_refreshers_want(database, number + 2);

	start = kcf_moment_now();
	switch (refresh(&claim))
	{
		case NOT_KEPT:
			/* All others would fare the same. */
			pause_ms = Min(pause_ms == 0 ? PAUSE_MIN_MS : pause_ms * 2, PAUSE_MAX_MS);
			rest_until = kcf_moment_now() + pause_ms * INT64CONST(1000);
			break;
		case REFRESHED:
			pause_ms = 0;
			break;
		case FAILED:
		case NO_PRODUCT:
		case NO_KEY:
			break;
	}
	worked_at = kcf_moment_now();
	debt_us += rest_of(worked_at - start, kcf_product_kept_us - kept_us);
	if (debt_us >= REST_MIN_US)
	{
		rest_until = Max(rest_until, worked_at + debt_us);
		debt_us = 0;
	}
	return true;
}

/* ---- the process --------------------------------------------------------------------------- */

static long
sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

/* Nothing to do for a while. next: when something of the queue is due, 0: it has nothing. */
static void
leave_if_idle(TimestampTz next, bool stay)
{
	if (next != 0 || stay || ms_until(worked_at + IDLE_MS * INT64CONST(1000)) > 0)
		return;
	worked_at = kcf_moment_now();
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
	worked_at = kcf_moment_now();
	loop = AllocSetContextCreate(TopMemoryContext, "kafka_cache refresher", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz next = 0;
		bool stay;
		bool resting;
		long wait;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		if (number >= kcf_guc_refresh_workers)
			proc_exit(0);
		wait = rules_turn(&stay);
		resting = ms_until(rest_until) > 0;
		if (resting)
			wait = sooner(wait, ms_until(rest_until));
		else if (work(&next))
			wait = 0;
		else
		{
			pgstat_report_activity(STATE_IDLE, NULL);
			pgstat_report_stat(true);
			leave_if_idle(next, stay);
			if (next != 0)
				wait =
					sooner(wait, 1 + TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next));
			else if (!stay)
				wait = sooner(wait, ms_until(worked_at + IDLE_MS * INT64CONST(1000)));
		}
		kcf_proc_wait(wait);
	}
}
