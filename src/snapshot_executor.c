/*
 * snapshot_executor.c
 *		The executor's part in snapshots: while one runs, the pin is not taken away behind its back; its
 *		parallel workers see what it sees; and what it kept for its functions goes with it.
 */
#include "postgres.h"

#include "snapshot_internal.h"

#include "compat.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/syscache.h"

/* An executor on the stack. */
typedef struct Run
{
	Snapshot snapshot;
	struct Run *outer;
} Run;

static int depth = 0;              /* of executor calls */
static Run *runs = NULL;           /* the innermost */
static bool shown = false;         /* a parallel statement's vector is shown to its workers */
static Snapshot worker_key = NULL; /* parallel worker: the snapshot of the leader's statement */

static bool afresh = false; /* a state of the transaction does not count */

static ExecutorRun_hook_type prev_ExecutorRun = NULL;
static ExecutorFinish_hook_type prev_ExecutorFinish = NULL;
static ExecutorEnd_hook_type prev_ExecutorEnd = NULL;

bool
kcf_executor_uses(Snapshot snapshot)
{
	for (Run *run = runs; run; run = run->outer)
	{
		if (snapshot == NULL || run->snapshot == snapshot)
			return true;
	}
	return false;
}

bool
kcf_snapshot_set_afresh(bool to)
{
	bool was = afresh;

	afresh = to;
	return was;
}

bool
kcf_executor_uses_fixed(void)
{
	return IsolationUsesXactSnapshot() && !afresh;
}

bool
kcf_executor_is_leaders(Snapshot snapshot)
{
	/* Outside of any executor it is being started. */
	return depth == 0 || snapshot == worker_key;
}

void
kcf_executor_reset(void)
{
	depth = 0;
	runs = NULL;
	shown = afresh = false;
}

void
kcf_snapshot_enter(void)
{
	depth++;
	kcf_states_hold();
}

void
kcf_snapshot_leave(void)
{
	depth--;
	kcf_pin_leave();
}

/*
 * Functions of users may read cached tables, also in a worker: then the statement's state must be taken before
 * the workers start. The functions of a plan are among what invalidates it, but for those of PostgreSQL itself.
 */
static bool
calls_functions(const PlannedStmt *stmt)
{
	ListCell *lc;

	foreach (lc, stmt->invalItems)
	{
		if (lfirst_node(PlanInvalItem, lc)->cacheId == PROCOID)
			return true;
	}
	return false;
}

static void
leave_run(const Run *this)
{
	runs = this->outer;
	kcf_states_executor_left();
	kcf_snapshot_leave();
}

static void
run(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	Run this = { query->estate->es_snapshot, runs };

	runs = &this;
	kcf_snapshot_enter();
	PG_TRY();
	{
		kcf_states_check_resumed(query->estate);
		if (prev_ExecutorRun)
			kcf_call_executor_run(prev_ExecutorRun, query, direction, count, execute_once);
		else
			kcf_call_executor_run(standard_ExecutorRun, query, direction, count, execute_once);
	}
	PG_FINALLY();
	{
		leave_run(&this);
	}
	PG_END_TRY();
}

static void
run_showing(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	KcfSnapshot *volatile ref = kcf_states_show(query, calls_functions(query->plannedstmt), &shown);

	PG_TRY();
	{
		run(query, direction, count, execute_once);
	}
	PG_FINALLY();
	{
		kcf_pin_show(NULL);
		shown = false;
	}
	PG_END_TRY();
	if (ref)
		kcf_snapshot_release(ref);
}

/*
 * Within a parallel statement, in a function that its leader runs, the workers of another would not know whose
 * workers they are. So it gets none. The executor reads in the plan whether it may have some; what it makes of
 * execute_once is not the same in all minor versions.
 */
static void
run_alone(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	PlannedStmt *stmt = query->plannedstmt;

	stmt->parallelModeNeeded = false;
	PG_TRY();
	{
		run(query, direction, count, execute_once);
	}
	PG_FINALLY();
	{
		stmt->parallelModeNeeded = true;
	}
	PG_END_TRY();
}

static void
executor_run(KCF_EXECUTOR_RUN_PARAMETERS)
{
	bool parallel = query->plannedstmt->parallelModeNeeded && !IsParallelWorker();

	if (depth == 0 && IsParallelWorker())
		worker_key = query->estate->es_snapshot;

	if (parallel && !IsInParallelMode())
		run_showing(query, direction, count, KCF_EXECUTE_ONCE);
	else if (parallel && shown)
		run_alone(query, direction, count, KCF_EXECUTE_ONCE);
	else
		run(query, direction, count, KCF_EXECUTE_ONCE);
}

/* Data-modifying WITH queries are run to their end here. */
static void
executor_finish(QueryDesc *query)
{
	Run this = { query->estate->es_snapshot, runs };

	runs = &this;
	kcf_snapshot_enter();
	PG_TRY();
	{
		/* Else there is nothing left to run but triggers. */
		if (query->estate->es_auxmodifytables != NIL)
			kcf_states_check_resumed(query->estate);
		if (prev_ExecutorFinish)
			prev_ExecutorFinish(query);
		else
			standard_ExecutorFinish(query);
	}
	PG_FINALLY();
	{
		leave_run(&this);
	}
	PG_END_TRY();
}

static void
executor_end(QueryDesc *query)
{
	Snapshot key = query->snapshot;

	if (prev_ExecutorEnd)
		prev_ExecutorEnd(query);
	else
		standard_ExecutorEnd(query);

	kcf_states_executor_ended(key);
}

void
kcf_executor_init(void)
{
	prev_ExecutorRun = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	prev_ExecutorFinish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
	prev_ExecutorEnd = ExecutorEnd_hook;
	ExecutorEnd_hook = executor_end;
}
