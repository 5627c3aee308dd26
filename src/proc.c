/*
 * proc.c
 *		What every worker process has in common: signals, latch and file descriptor wait, reload,
 * orderly exit.
 *
 * SIGTERM is handled as in a backend (die): the process leaves at its next CHECK_FOR_INTERRUPTS,
 * through the exit callbacks, which is where clients are destroyed and the registry is told.
 */
#include "postgres.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "proc.h"

#include "compat.h"
#include "registry.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

static WaitEventSet *wait_set = NULL;
static int event_fd = -1;
static bool event_fd_in_set = false;

/* As in a backend; and whoever looks for the reason of our end finds it. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	kcf_worker_told_to_leave = true;
	die(postgres_signal_arg);
}

void
kcf_proc_start(const char *kind)
{
	int database = -1;
	int number = 0;
	Oid dboid = InvalidOid;

	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);

	if (strcmp(kind, "launcher") != 0)
	{
		int32 arg = DatumGetInt32(MyBgworkerEntry->bgw_main_arg);

		database = arg >> 8;
		number = arg & 0xff;
		/* The slot may have gone to another database since the launcher asked for us. */
		memcpy(&dboid, MyBgworkerEntry->bgw_extra, sizeof(Oid));
	}
	if (!kcf_worker_enter(database, number, dboid))
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
}

void
kcf_proc_connect(int database)
{
	BackgroundWorkerInitializeConnectionByOid(kcf_database(database)->dboid, InvalidOid, 0);
	/* A worker is nobody's session: what a role or a user set for itself must not stop it. */
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
}

int
kcf_proc_eventfd(void)
{
	if (event_fd < 0)
	{
		event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (event_fd < 0)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not create an event file descriptor: %m")));
	}
	return event_fd;
}

static WaitEventSet *
wait_event_set(void)
{
	if (wait_set == NULL)
	{
		wait_set = kcf_create_wait_event_set(3);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	}
	if (event_fd >= 0 && !event_fd_in_set)
	{
		AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, event_fd, NULL, NULL);
		event_fd_in_set = true;
	}
	return wait_set;
}

/*
 * A worker that is told to leave while it has nothing to do, the usual case, leaves without a FATAL
 * in the log: DROP DATABASE and a shutdown are no accidents. (With 0 the postmaster forgets a worker,
 * which it must not do with the launcher.)
 */
static void
serve_interrupts(void)
{
	if (ProcDiePending && InterruptHoldoffCount == 0 && CritSectionCount == 0)
		proc_exit(MyBgworkerEntry->bgw_restart_time == BGW_NEVER_RESTART ? 0 : 1);
	CHECK_FOR_INTERRUPTS();
}

void
kcf_proc_wait(long timeout_ms)
{
	WaitEvent event;

	serve_interrupts();
	(void) WaitEventSetWait(wait_event_set(), timeout_ms, &event, 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	if (event_fd >= 0)
	{
		uint64 count;

		/* Emptied before the queues are looked at: what arrives from now on wakes us again. */
		if (read(event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not read an event file descriptor: %m")));
	}
	serve_interrupts();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}
