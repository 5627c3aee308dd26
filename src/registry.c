/*
 * registry.c
 *		Databases and workers: who is where, who may be, and how to wake or to send away.
 */
#include "postgres.h"

#include <limits.h>

#include "registry.h"

#include "guc.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define MAX_VISITS 64

typedef struct KcfRegistry
{
	LWLock lock;
	int tranche;
	KcfWorker launcher;        /* registry lock */
	pg_atomic_uint32 looks;    /* anybody counts up, the launcher compares */
	ConditionVariable claimed; /* broadcast when a database gets a slot */
	int nvisits;               /* registry lock; > MAX_VISITS: too many, all are meant */
	Oid visits[MAX_VISITS];
	KcfDatabase databases[KCF_MAX_DATABASES];
} KcfRegistry;

LWLock *kcf_registry_lock = NULL;
volatile sig_atomic_t kcf_worker_told_to_leave = false;

static KcfRegistry *registry = NULL;

/* This process as a worker. */
static KcfWorker *my_worker = NULL;
static int my_worker_database = -1;
static bool my_worker_refreshes = false;

/* Where this backend is counted as one that waits, NULL: nowhere. */
static pg_atomic_uint32 *counted_in = NULL;

Size
kcf_registry_shmem_size(void)
{
	return MAXALIGN(sizeof(KcfRegistry));
}

static void
init_produced(KcfProduced *produced)
{
	pg_atomic_init_u64(&produced->delivered, 0);
	pg_atomic_init_u64(&produced->refused, 0);
	pg_atomic_init_u64(&produced->unknown, 0);
	for (int i = 0; i < KCF_NFAULT_SLOTS; i++)
		pg_atomic_init_u64(&produced->faults[i], 0);
	pg_atomic_init_u64(&produced->given_up, 0);
	kcf_histogram_init(&produced->wait);
}

void
kcf_registry_shmem_init(void)
{
	bool found;

	registry = ShmemInitStruct("kafka_cache registry", kcf_registry_shmem_size(), &found);
	if (!found)
	{
		memset(registry, 0, sizeof(KcfRegistry));
		registry->tranche = LWLockNewTrancheId();
		LWLockInitialize(&registry->lock, registry->tranche);
		pg_atomic_init_u32(&registry->looks, 1);
		ConditionVariableInit(&registry->claimed);
		for (int i = 0; i < KCF_MAX_DATABASES; i++)
		{
			KcfDatabase *db = &registry->databases[i];

			pg_atomic_init_u32(&db->producer_wanted, 0);
			pg_atomic_init_u32(&db->refreshers_wanted, 0);
			pg_atomic_init_u32(&db->rules_news, 0);
			pg_atomic_init_u32(&db->publish_watched, 0);
			pg_atomic_init_u32(&db->ddl, 0);
			pg_atomic_init_u32(&db->waiters, 0);
			for (int clock = 0; clock < KCF_MAX_CLOCKS; clock++)
				pg_atomic_init_u64(&db->turned_at[clock], 0);
			ConditionVariableInit(&db->changed);
			ConditionVariableInit(&db->exited);
			init_produced(&db->produced);
		}
	}
	LWLockRegisterTranche(registry->tranche, "kafka_cache_registry");
	kcf_registry_lock = &registry->lock;
}

/* ---- databases ---- */

void
kcf_registry_check(void)
{
	if (registry == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("this server keeps no cached tables"),
						errdetail("It was started for a binary upgrade.")));
	/* The consumer would wait for itself, and all tables for it. */
	if (my_worker && !my_worker_refreshes)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cached tables cannot be used while a record is decoded"),
			 errhint("Constraints and types of a cached table must not read or write others.")));
}

int
kcf_database_find(Oid dboid)
{
	for (int i = 0; registry && i < KCF_MAX_DATABASES; i++)
	{
		if (*(volatile Oid *) &registry->databases[i].dboid == dboid)
			return i;
	}
	return -1;
}

KcfDatabase *
kcf_database(int database)
{
	Assert(database >= 0 && database < KCF_MAX_DATABASES);
	return &registry->databases[database];
}

int
kcf_my_database(void)
{
	static int cached = -1;

	if (cached < 0 || registry->databases[cached].dboid != MyDatabaseId)
		cached = OidIsValid(MyDatabaseId) ? kcf_database_find(MyDatabaseId) : -1;
	return cached;
}

/* Under the exclusive lock. The counters of waiters live on: somebody may still be leaving. */
static int
take_slot(Oid dboid, const char *name)
{
	int slot = kcf_database_find(InvalidOid);
	KcfDatabase *db;

	if (slot < 0)
		return -1;
	db = &registry->databases[slot];
	strlcpy(db->name, name, NAMEDATALEN);
	db->state = KCF_DATABASE_NEW;
	db->withdrawals = 0;
	db->visited = false;
	memset(db->workers, 0, sizeof(db->workers));
	pg_atomic_write_u32(&db->producer_wanted, 0);
	pg_atomic_write_u32(&db->refreshers_wanted, 0);
	init_produced(&db->produced);
	pg_write_barrier();
	db->dboid = dboid;
	return slot;
}

int
kcf_database_claim(Oid dboid, const char *name)
{
	int slot;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	slot = kcf_database_find(dboid);
	if (slot < 0)
		slot = take_slot(dboid, name);
	else
		strlcpy(registry->databases[slot].name, name, NAMEDATALEN);
	LWLockRelease(kcf_registry_lock);
	ConditionVariableBroadcast(&registry->claimed);
	return slot;
}

bool
kcf_database_free(int database)
{
	KcfDatabase *db = kcf_database(database);
	Oid dboid = db->dboid;
	bool left = false;

	/* No lock of a reader holds us off, as it does where a table is dropped: two steps. */
	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *table = kcf_table_at(i);

		if (table->dboid == dboid && OidIsValid(table->relid))
		{
			kcf_arena_attach();
			kcf_table_withdraw(table, kcf_clock_published(database, table->clock) + 1);
			kcf_table_load(table, NULL, 0);
		}
	}
	for (int clock = 0; clock < KCF_MAX_CLOCKS; clock++)
		(void) kcf_clock_publish(database, clock);
	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *table = kcf_table_at(i);

		if (table->dboid != dboid || !OidIsValid(table->relid))
			continue;
		if (kcf_table_sweep(table, kcf_pins_min(database, table->clock)))
			left = true;
		else
			kcf_table_drop(table);
	}
	if (left)
		return false;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	/* A command may have come to hold it: it gives the slot back itself. */
	if (db->withdrawals > 0)
		db->visited = false;
	else
		db->dboid = InvalidOid;
	LWLockRelease(kcf_registry_lock);
	ConditionVariableBroadcast(&db->changed);
	return true;
}

void
kcf_database_report(int database, bool has_extension)
{
	KcfDatabase *db = kcf_database(database);

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	db->visited = true;
	if (db->withdrawals == 0)
		db->state = has_extension ? KCF_DATABASE_RUNNING : KCF_DATABASE_ABSENT;
	/* The slot is given back only when nobody of ours is there. */
	for (int i = KCF_MAX_CLOCKS; !has_extension && i < KCF_MAX_WORKERS; i++)
	{
		if (db->workers[i].pid != 0)
			kill(db->workers[i].pid, SIGTERM);
	}
	LWLockRelease(kcf_registry_lock);
	/* Others of its consumers are started now, or the slot is freed. */
	kcf_launcher_wake();
}

void
kcf_database_wake(Oid dboid)
{
	int slot = kcf_database_find(dboid);
	int woken = 0;

	if (slot >= 0)
	{
		KcfDatabase *db = &registry->databases[slot];

		LWLockAcquire(kcf_registry_lock, LW_SHARED);
		for (int i = 0; i < KCF_MAX_CLOCKS && db->dboid == dboid; i++)
		{
			if (db->workers[i].pid != 0)
			{
				SetLatch(db->workers[i].latch);
				woken++;
			}
		}
		LWLockRelease(kcf_registry_lock);
	}
	if (woken == 0)
		kcf_launcher_wake();
}

void
kcf_database_ddl(Oid dboid)
{
	int slot = kcf_database_find(dboid);

	if (slot < 0)
		return;
	pg_atomic_fetch_add_u32(&registry->databases[slot].ddl, 1);
	kcf_database_wake(dboid);
}

void
kcf_database_look(Oid dboid)
{
	int slot;

	if (!RecoveryInProgress())
		return;
	slot = kcf_database_find(dboid);
	/* Its consumer may have read the catalogs already and not have said so yet. */
	if (slot >= 0)
		kcf_database_ddl(dboid);
	if (slot < 0 || registry->databases[slot].state != KCF_DATABASE_RUNNING)
		kcf_launcher_visit(dboid);
}

/* ---- withdrawal ---- */

int
kcf_database_withdraw(Oid dboid, const char *name)
{
	int slot;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	slot = kcf_database_find(dboid);
	/* A database that nobody has visited yet is held as well, or the visit might come right now. */
	if (slot < 0)
		slot = take_slot(dboid, name);
	if (slot >= 0)
	{
		KcfDatabase *db = &registry->databases[slot];

		db->withdrawals++;
		db->state = KCF_DATABASE_WITHDRAWN;

		/*
		 * Their pids are good: a worker takes its own away, under this lock, before it ends. One
		 * that is being started finds the withdrawal when it enters.
		 */
		for (int i = 0; i < KCF_MAX_WORKERS; i++)
		{
			if (db->workers[i].pid != 0)
				kill(db->workers[i].pid, SIGTERM);
		}
	}
	LWLockRelease(kcf_registry_lock);
	return slot;
}

bool
kcf_database_left(int database)
{
	KcfDatabase *db = kcf_database(database);
	bool left = true;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	for (int i = 0; i < KCF_MAX_WORKERS; i++)
	{
		if (db->workers[i].pid != 0)
			left = false;
	}
	LWLockRelease(kcf_registry_lock);
	return left;
}

void
kcf_database_restore(int database, Oid dboid)
{
	KcfDatabase *db = kcf_database(database);

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (db->dboid == dboid && db->withdrawals > 0 && --db->withdrawals == 0)
	{
		if (db->visited)
		{
			db->state = KCF_DATABASE_NEW;
			for (int i = 0; i < KCF_MAX_WORKERS; i++)
				db->workers[i].retry_at = 0;
		}
		else
			db->dboid = InvalidOid; /* taken for the command only, no process was ever there */
	}
	LWLockRelease(kcf_registry_lock);
	kcf_launcher_look();
}

/* ---- workers ---- */

KcfWorker *
kcf_launcher_worker(void)
{
	return &registry->launcher;
}

void
kcf_launcher_wake(void)
{
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (registry->launcher.pid != 0)
		SetLatch(registry->launcher.latch);
	LWLockRelease(kcf_registry_lock);
}

void
kcf_launcher_look(void)
{
	pg_atomic_fetch_add_u32(&registry->looks, 1);
	kcf_launcher_wake();
}

uint32
kcf_launcher_looks(void)
{
	return pg_atomic_read_u32(&registry->looks);
}

void
kcf_launcher_visit(Oid dboid)
{
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (registry->nvisits < MAX_VISITS)
		registry->visits[registry->nvisits++] = dboid;
	else
		registry->nvisits = MAX_VISITS + 1;
	LWLockRelease(kcf_registry_lock);
	kcf_launcher_look();
}

bool
kcf_launcher_next_visit(Oid *dboid, bool *all)
{
	bool more = false;

	*all = false;
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (registry->nvisits > MAX_VISITS)
	{
		registry->nvisits = 0;
		*dboid = InvalidOid;
		*all = more = true;
	}
	else if (registry->nvisits > 0)
	{
		*dboid = registry->visits[--registry->nvisits];
		more = true;
	}
	LWLockRelease(kcf_registry_lock);
	return more;
}

/* The worker has left its database and cannot be sent away any more. */
static void
worker_leave(int code, Datum arg)
{
	KcfWorker *worker = my_worker;
	KcfDatabase *db = my_worker_database >= 0 ? kcf_database(my_worker_database) : NULL;

	if (worker == NULL)
		return;
	my_worker = NULL;
	/* An error outside of any transaction may have left locks to us. */
	LWLockReleaseAll();
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	worker->pid = 0;
	worker->latch = NULL;
	worker->text[0] = '\0';
	worker->left = db && db->withdrawals > 0               ? KCF_LEFT_WITHDRAWN
				   : code == 0 || kcf_worker_told_to_leave ? KCF_LEFT_QUIETLY
														   : KCF_LEFT_FAILED;
	strlcpy(worker->state, worker->left == KCF_LEFT_FAILED ? "failed" : "stopped",
			sizeof(worker->state));
	LWLockRelease(kcf_registry_lock);
	if (db)
	{
		ConditionVariableBroadcast(&db->exited);
		kcf_launcher_wake();
	}
}

bool
kcf_worker_enter(int database, int number, Oid dboid)
{
	bool welcome = true;

	Assert(my_worker == NULL);
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (database < 0)
		my_worker = &registry->launcher;
	else
	{
		KcfDatabase *db = kcf_database(database);

		my_worker = &db->workers[number];
		if (db->dboid == dboid && db->withdrawals > 0)
			my_worker->left = KCF_LEFT_WITHDRAWN;
		welcome = db->dboid == dboid && db->withdrawals == 0 && my_worker->pid == 0;
	}
	if (welcome)
	{
		if (database >= 0 && number < KCF_MAX_CLOCKS)
			pg_atomic_write_u64(&kcf_database(database)->turned_at[number], kcf_moment_now());
		my_worker_database = database;
		my_worker_refreshes = number >= KCF_WORKER_REFRESHER;
		my_worker->pid = MyProcPid;
		my_worker->latch = MyLatch;
		my_worker->started_at = GetCurrentTimestamp();
		my_worker->left = KCF_LEFT_UNKNOWN;
		strlcpy(my_worker->state, "running", sizeof(my_worker->state));
		my_worker->text[0] = '\0';
	}
	else
		my_worker = NULL;
	LWLockRelease(kcf_registry_lock);

	/*
	 * Not before_shmem_exit: these run while the process still counts as connected to the database.
	 * This one, registered before the connection is made, runs when the process has left the array
	 * of running ones, so that a command which waits for it finds the database free at its first
	 * look.
	 */
	if (welcome)
		on_shmem_exit(worker_leave, (Datum) 0);
	return welcome;
}

void
kcf_worker_say(const char *state, const char *fmt, ...)
{
	char text[sizeof(my_worker->text)];

	text[0] = '\0';
	if (fmt)
	{
		va_list args;

		va_start(args, fmt);
		vsnprintf(text, sizeof(text), fmt, args);
		va_end(args);
	}
	if (my_worker == NULL)
		return;
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	strlcpy(my_worker->state, state, sizeof(my_worker->state));
	strlcpy(my_worker->text, text, sizeof(my_worker->text));
	LWLockRelease(kcf_registry_lock);
}

/* ---- waiting ---- */

static void
forget_wait(void)
{
	if (counted_in)
		pg_atomic_fetch_sub_u32(counted_in, 1);
	counted_in = NULL;
}

static void
forget_wait_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		forget_wait();
}

static void
forget_wait_at_subxact_end(SubXactEvent event, SubTransactionId mySubid,
						   SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_wait();
}

static void
forget_wait_at_exit(int code, Datum arg)
{
	forget_wait();
}

/* waiters NULL: who broadcasts does so whether somebody waits or not. */
static void
prepare(ConditionVariable *cv, pg_atomic_uint32 *waiters)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(forget_wait_at_xact_end, NULL);
		RegisterSubXactCallback(forget_wait_at_subxact_end, NULL);
		before_shmem_exit(forget_wait_at_exit, (Datum) 0);
		registered = true;
	}
	forget_wait();
	/* A full barrier: who publishes after this sees the waiter, or the waiter sees what was published. */
	if (waiters)
		pg_atomic_fetch_add_u32(waiters, 1);
	counted_in = waiters;
	ConditionVariablePrepareToSleep(cv);
}

static bool
sleep_on(ConditionVariable *cv, long timeout_ms)
{
	if (timeout_ms <= 0)
	{
		CHECK_FOR_INTERRUPTS();
		return false;
	}
	return !ConditionVariableTimedSleep(cv, Min(timeout_ms, INT_MAX), PG_WAIT_EXTENSION);
}

static void
broadcast(ConditionVariable *cv, pg_atomic_uint32 *waiters)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(waiters) > 0)
		ConditionVariableBroadcast(cv);
}

void
kcf_wait_prepare(int database)
{
	if (database < 0)
		prepare(&registry->claimed, NULL);
	else
		prepare(&kcf_database(database)->changed, &kcf_database(database)->waiters);
}

bool
kcf_wait_sleep(int database, long timeout_ms)
{
	ConditionVariable *cv = database < 0 ? &registry->claimed : &kcf_database(database)->changed;

	Assert(counted_in == (database < 0 ? NULL : &kcf_database(database)->waiters));
	return sleep_on(cv, timeout_ms);
}

void
kcf_wait_cancel(int database)
{
	ConditionVariableCancelSleep();
	forget_wait();
}

void
kcf_wait_broadcast(int database)
{
	broadcast(&kcf_database(database)->changed, &kcf_database(database)->waiters);
}

void
kcf_wait_prepare_table(KcfTable *table)
{
	prepare(&table->changed, &table->waiters);
}

bool
kcf_wait_sleep_table(KcfTable *table, long timeout_ms)
{
	Assert(counted_in == &table->waiters);
	return sleep_on(&table->changed, timeout_ms);
}

void
kcf_wait_broadcast_table(KcfTable *table)
{
	broadcast(&table->changed, &table->waiters);
}
