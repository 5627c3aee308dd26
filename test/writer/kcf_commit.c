/*
 * kcf_commit.c
 *		Commits that fail late: another extension's callback, for tests.
 *
 * Listed before kafka_cache_fdw in shared_preload_libraries its callback is registered first and
 * therefore called last: when the records of the transaction are in Kafka, and its commit record is
 * not written yet.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include <signal.h>

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

typedef enum Fault
{
	NONE,
	RAISE,
	CRASH, /* as if killed by kill -9 */
	WAIT   /* until it is cancelled, terminated or killed */
} Fault;

static const struct config_enum_entry faults[] = {
	{ "none", NONE, false }, { "raise", RAISE, false }, { "crash", CRASH, false },
	{ "wait", WAIT, false }, { NULL, 0, false },
};

static int fault = NONE;

static void
at_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT)
		return;
	switch ((Fault) fault)
	{
		case NONE:
			break;
		case RAISE:
			ereport(ERROR, (errcode(ERRCODE_RAISE_EXCEPTION), errmsg("this commit was to fail")));
			break;
		case CRASH:
			kill(MyProcPid, SIGKILL);
			break;
		case WAIT:
			pgstat_report_appname("the end of the commit");
			for (;;)
			{
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0, PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				CHECK_FOR_INTERRUPTS();
			}
	}
}

void
_PG_init(void)
{
	DefineCustomEnumVariable("kcf_commit.fault", "What happens when everything else is done.", NULL,
							 &fault, NONE, faults, PGC_USERSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("kcf_commit");
	RegisterXactCallback(at_end, NULL);
}
