/*
 * proc_consumer_notify.c
 *		Listeners are told of what has become visible.
 *
 * One transaction for all tables that are due, after the turn in which they were published. It may fail: the queue of
 * notifications is full because a listener does not read, or its lock is held by somebody whose commit takes long.
 * Nothing of that may stop the cache. So the lock is waited for only briefly, and what could not be told is kept,
 * goes on growing by what changes meanwhile, and is tried again.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "notify.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/timeout.h"

/*
 * So long the lock on the queue is waited for, the longer the more often that was in vain; and then not again for many
 * times as long, so that the tables go on.
 */
#define LOCK_WAIT_MIN_MS 20
#define LOCK_WAIT_MAX_MS 200
#define RETRY_FACTOR 10
/* In the log not more often than this. */
#define LOG_INTERVAL SECONDS(60)

static int failures; /* in a row */
static KcfMoment retry_at;
static KcfMoment logged_at;
static List *due = NIL; /* KcfNotify */

static KcfNotify *
notify_of(const KcfConsumerTable *table)
{
	return table->follow ? kcf_feed_notify(table->follow) : NULL;
}

/* What listeners have missed while no consumer was there. */
static void
catch_up(KcfConsumerTable *table)
{
	Oid userid;
	int sec_context;
	int nestlevel;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(table->def->owner, sec_context | SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	kcf_notify_catch_up(notify_of(table), kcf_feed_store(table->follow),
						kcf_clock_published(kcf_consumer.database, kcf_consumer.clock));
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
}

static void
write_all(KcfConsumerTable *unused)
{
	ListCell *lc;

	foreach (lc, due)
		kcf_notify_write(lfirst(lc));
}

/* As a list that lives as long as the turn. */
static void
collect(KcfMoment now)
{
	ListCell *lc;

	due = NIL;
	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);
		KcfNotify *notify = notify_of(table);

		if (notify == NULL)
			continue;
		if (kcf_notify_behind(notify))
		{
			ErrorData *edata = kcf_consumer_attempt(catch_up, table);

			if (edata)
			{
				kcf_notify_lose(notify);
				FreeErrorData(edata);
			}
		}
		if (kcf_notify_owes(notify) && kcf_notify_due(notify) <= now)
			due = lappend(due, notify);
	}
}

static void
set_lock_timeout(int ms)
{
	char value[16];

	snprintf(value, sizeof(value), "%d", ms);
	SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_OVERRIDE);
}

static int
lock_wait_ms(void)
{
	return Min(LOCK_WAIT_MIN_MS << Min(failures, 8), LOCK_WAIT_MAX_MS);
}

/*
 * Of a full queue nobody takes away what has been read, as long as all who would notify fail; but to tell how full it
 * is, the server does.
 */
static void
trim_queue(KcfConsumerTable *unused)
{
	(void) OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE);
}

static void
note_failure(ErrorData *edata, KcfMoment now)
{
	retry_at = now + (int64) RETRY_FACTOR * lock_wait_ms() * 1000;
	if (logged_at == 0 || now - logged_at >= LOG_INTERVAL)
	{
		logged_at = now;
		ereport(LOG, (errcode(edata->sqlerrcode),
					  errmsg("could not notify listeners of cached tables: %s", edata->message),
					  errdetail("The tables go on; what changes is told when that is possible.")));
	}
	failures++;
	if (edata->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
	{
		ErrorData *other = kcf_consumer_attempt(trim_queue, NULL);

		if (other)
			FreeErrorData(other);
	}
	FreeErrorData(edata);
}

void
kcf_consumer_notify(void)
{
	ErrorData *edata;
	KcfMoment now;
	ListCell *lc;

	if (kcf_consumer_notify_in() != 0)
		return;
	now = kcf_moment_now();
	collect(now);
	if (due == NIL)
		return;

	set_lock_timeout(lock_wait_ms());
	edata = kcf_consumer_attempt(write_all, NULL);
	set_lock_timeout(0);
	/* It may have been over at the last moment: then it is not to end anything else. */
	if (get_timeout_indicator(LOCK_TIMEOUT, true))
		QueryCancelPending = false;

	if (edata == NULL)
	{
		failures = 0;
		retry_at = 0;
		foreach (lc, due)
			kcf_notify_told(lfirst(lc), now);
	}
	else
	{
		foreach (lc, due)
			kcf_notify_failed(lfirst(lc));
		note_failure(edata, kcf_moment_now());
	}
	due = NIL;
}

int64
kcf_consumer_notify_in(void)
{
	KcfMoment earliest = PG_INT64_MAX;
	KcfMoment now;
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
	{
		KcfNotify *notify = notify_of(lfirst(lc));

		if (notify && kcf_notify_owes(notify))
			earliest = Min(earliest, kcf_notify_due(notify));
	}
	/* It is told by the primary; a standby begins when it is promoted. */
	if (earliest == PG_INT64_MAX || RecoveryInProgress())
		return -1;
	earliest = Max(earliest, retry_at);
	now = kcf_moment_now();
	return Max(earliest - now, 0);
}
