/*
 * proc_launcher.c
 *		The one static worker: which databases there are, and their consumers and producers.
 *
 * A database is visited once, by starting its first consumer: where the extension is not, that one
 * says so and leaves, and the database's slot is free again. CREATE EXTENSION asks for another
 * visit. On a standby nobody can ask, so databases are visited again every minute, and consumers that
 * are there look at their catalogs.
 *
 * A producer is started where the extension is, when a backend has asked for one; it takes the wish
 * back when it leaves because nobody writes any more. On a standby too: what is computed there is
 * kept in Kafka, where all servers may write. So it is with refreshers.
 *
 * What is known of processes comes from two sides. The registry tells who is there (the worker
 * itself takes its pid away); the postmaster tells, through our handle, when a started worker is
 * really gone, or never came. A launcher that was restarted has no handles: then the registry alone
 * counts, and workers wake it as they leave.
 */
#include "postgres.h"

#include "proc_launcher.h"

#include "guc.h"
#include "proc.h"
#include "refreshq.h"
#include "registry.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define BACKOFF_MIN_MS 1000
#define BACKOFF_MAX_MS 60000
#define NO_SLOT_MS 50 /* the postmaster tells of an end a moment before it frees the slot */
#define LINGER_MS                                                                                  \
	250 /* who has left its database may take so long to end; then it is not waited for */
#define HEALTHY_MS 60000 /* who lived so long starts at the beginning of the back-off again */
#define STANDBY_LOOK_MS 60000
#define STANDBY_TURN_MS 5000 /* nobody tells of a promotion */
#define LOG_INTERVAL_MS 60000
#define STILL_READ_MS 1000
#define VISITS_AT_ONCE 2 /* of databases not known yet: do not take all of max_worker_processes */
#define VISIT_PATIENCE_MS 10000 /* one that takes longer does not hold up the others */

#define OF_KIND(k, consumer, producer, refresher)                                                  \
	((k) >= KCF_WORKER_REFRESHER  ? (refresher)                                                    \
	 : (k) == KCF_WORKER_PRODUCER ? (producer)                                                     \
								  : (consumer))

/* What the postmaster can tell us of a worker. */
typedef struct Child
{
	Oid dboid;                      /* it was started for */
	BackgroundWorkerHandle *handle; /* NULL: none, or not ours */
	bool running;                   /* as of our last look */
	TimestampTz left_at;            /* seen to have left while its process is still there; 0: no */
} Child;

/* A database that was visited in vain. */
typedef struct Visited
{
	Oid dboid; /* hash key */
	bool seen; /* in the present reading of pg_database */
} Visited;

static Child children[KCF_MAX_DATABASES][KCF_MAX_WORKERS];
static Oid visit_again[KCF_MAX_DATABASES]; /* asked for while the slot's consumer was there */
static HTAB *visited = NULL;
static bool look_again = false;         /* pg_database should be read at the next turn */
static bool unserved = false;           /* there was no slot for a database */
static bool still_read = false;         /* what a database has left cannot be freed yet */
static bool leaving[KCF_MAX_DATABASES]; /* no more wanted: nothing is started there */

void
kcf_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, KCF_LAUNCHER, BGW_MAXLEN);
	strlcpy(worker.bgw_type, KCF_LAUNCHER, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "kafka_cache_fdw", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "kcf_launcher_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	/* Not RecoveryFinished: a hot standby serves reads of its own cache. */
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

/* ---- databases ---- */

typedef struct DatabaseRow
{
	Oid oid;
	NameData name;
	bool wanted;
} DatabaseRow;

/* pg_database, in the present memory context. */
static List *
read_databases(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List *rows = NIL;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(caller);
		DatabaseRow *row = palloc(sizeof(DatabaseRow));

		row->oid = form->oid;
		row->name = form->datname;
		/* datconnlimit -2 is the mark of a DROP DATABASE that was cut off */
		row->wanted = !form->datistemplate && form->datallowconn && form->datconnlimit > -2 &&
					  kcf_guc_database_listed(NameStr(form->datname));
		rows = lappend(rows, row);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return rows;
}

/* Is this worker there, or about to come? */
static bool
is_running(int slot, int k)
{
	return children[slot][k].handle || kcf_database(slot)->workers[k].pid != 0;
}

/* Nobody runs in this slot, or is about to. */
static bool
slot_is_empty(int slot)
{
	for (int k = 0; k < KCF_MAX_WORKERS; k++)
	{
		if (is_running(slot, k))
			return false;
	}
	return true;
}

/* Ask a database's workers to leave, for good. */
static void
send_away(int slot)
{
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	for (int k = 0; k < KCF_MAX_WORKERS; k++)
	{
		if (kcf_database(slot)->workers[k].pid != 0)
			kill(kcf_database(slot)->workers[k].pid, SIGTERM);
	}
	LWLockRelease(kcf_registry_lock);
}

/* With what was to be refreshed there. */
static bool
free_slot(int slot)
{
	kcf_refreshq_forget(kcf_database(slot)->dboid, InvalidOid);
	return kcf_database_free(slot);
}

/* Bring the slots in line with pg_database and the settings. */
static void
look_at_databases(bool visit_all)
{
	List *rows = read_databases();
	ListCell *lc;
	HASH_SEQ_STATUS scan;
	Visited *known;
	bool wanted[KCF_MAX_DATABASES] = { false };
	int nserved = 0;
	static TimestampTz last_logged = 0;

	look_again = false;
	unserved = false;
	still_read = false;
	hash_seq_init(&scan, visited);
	while ((known = hash_seq_search(&scan)) != NULL)
		known->seen = false;
	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
		nserved += kcf_database(slot)->visited ? 1 : 0;

	foreach (lc, rows)
	{
		DatabaseRow *row = (DatabaseRow *) lfirst(lc);
		int slot = kcf_database_find(row->oid);

		known = hash_search(visited, &row->oid, HASH_FIND, NULL);
		if (known && (visit_all || !row->wanted))
		{
			hash_search(visited, &row->oid, HASH_REMOVE, NULL);
			known = NULL;
		}
		if (known)
			known->seen = true;
		else if (row->wanted || slot >= 0)
		{
			if (row->wanted)
				slot = kcf_database_claim(row->oid, NameStr(row->name));
			if (slot >= 0)
				wanted[slot] = row->wanted;
			else
				unserved = true;
			if (slot < 0 && nserved == KCF_MAX_DATABASES &&
				(last_logged == 0 ||
				 TimestampDifferenceExceeds(last_logged, GetCurrentTimestamp(), LOG_INTERVAL_MS)))
			{
				last_logged = GetCurrentTimestamp();
				ereport(LOG, (errmsg("kafka_cache serves at most %d databases of a server",
									 KCF_MAX_DATABASES),
							  errhint("Name those with cached tables in kafka_cache.databases.")));
			}
		}
	}

	hash_seq_init(&scan, visited);
	while ((known = hash_seq_search(&scan)) != NULL)
	{
		if (!known->seen)
			hash_search(visited, &known->dboid, HASH_REMOVE, NULL);
	}

	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
	{
		KcfDatabase *db = kcf_database(slot);

		leaving[slot] = OidIsValid(db->dboid) && !wanted[slot];
		if (!leaving[slot] || db->withdrawals > 0)
			continue;
		/* Dropped, or no more in the list. */
		if (!slot_is_empty(slot))
			send_away(slot);
		else if (!free_slot(slot))
			still_read = true;
		else
			continue;
		look_again = true;
	}
	list_free_deep(rows);
}

/* ---- workers ---- */

static const char *
worker_name(int k)
{
	return OF_KIND(k, KCF_CONSUMER, KCF_PRODUCER, KCF_REFRESHER);
}

/* false: the server has no room for another worker. */
static bool
start_worker(int slot, int k)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool started;
	Oid dboid = kcf_database(slot)->dboid;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, worker_name(k), BGW_MAXLEN);
	strlcpy(worker.bgw_type, worker_name(k), BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "kafka_cache_fdw", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name,
			OF_KIND(k, "kcf_consumer_main", "kcf_producer_main", "kcf_refresher_main"), BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(slot << 8 | k);
	memcpy(worker.bgw_extra, &dboid, sizeof(Oid));
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &children[slot][k].handle);
	MemoryContextSwitchTo(old);
	if (!started)
		children[slot][k].handle = NULL;
	children[slot][k].dboid = dboid;
	children[slot][k].running = started;
	children[slot][k].left_at = 0;
	return started;
}

/* Milliseconds from now until then, at least 0. */
static long
ms_until(TimestampTz then, TimestampTz now)
{
	return then <= now ? 0 : TimestampDifferenceMilliseconds(now, then);
}

/* Under the exclusive lock: when may it be tried again? */
static void
back_off(KcfWorker *worker, TimestampTz now)
{
	worker->backoff_ms =
		worker->backoff_ms == 0 ? BACKOFF_MIN_MS : Min(worker->backoff_ms * 2, BACKOFF_MAX_MS);
	worker->retry_at = TimestampTzPlusMilliseconds(now, worker->backoff_ms);
}

/* A worker that is there on demand. */
static bool
is_wanted(KcfDatabase *db, int k)
{
	if (k == KCF_WORKER_PRODUCER)
		return pg_atomic_read_u32(&db->producer_wanted) != 0;
	return k - KCF_WORKER_REFRESHER <
		   Min((int) pg_atomic_read_u32(&db->refreshers_wanted), kcf_guc_refresh_workers);
}

/* Under the exclusive lock: a worker has ended. */
static void
note_end(KcfDatabase *db, int k, TimestampTz now)
{
	KcfWorker *worker = &db->workers[k];
	bool came = worker->started_at != 0;

	if (worker->left == KCF_LEFT_WITHDRAWN || db->withdrawals > 0 ||
		db->state == KCF_DATABASE_ABSENT)
		return;
	/* Nobody needed it any more. */
	if (k >= KCF_MAX_CLOCKS && worker->left == KCF_LEFT_QUIETLY && !is_wanted(db, k))
		return;
	worker->restarts++;
	look_again = true; /* is the database still there? */
	if (came && TimestampDifferenceExceeds(worker->started_at, now, HEALTHY_MS))
		worker->backoff_ms = 0;
	/*
	 * Whoever was sent away by an administrator comes back at once, if only not for ever: after a
	 * second where it had just come.
	 */
	if (worker->left != KCF_LEFT_QUIETLY)
		back_off(worker, now);
	else if (TimestampDifferenceExceeds(worker->started_at, now, BACKOFF_MIN_MS))
		return;
	else
		worker->retry_at = TimestampTzPlusMilliseconds(now, BACKOFF_MIN_MS);
	strlcpy(worker->state, "backoff", sizeof(worker->state));
}

/* Until the earlier of two; -1: none. */
static long
sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

/*
 * Has it left its database, though its process has not ended? Clients that wait for brokers can hold that up for
 * seconds, which is nobody's concern any more. Returns the milliseconds after which it is: then 0.
 */
static long
lingers(const KcfDatabase *db, int k, Child *child, TimestampTz now)
{
	const KcfWorker *worker = &db->workers[k];

	if (db->dboid != child->dboid || worker->pid != 0 || worker->left == KCF_LEFT_UNKNOWN)
		return -1;
	if (child->left_at == 0)
		child->left_at = now;
	return ms_until(TimestampTzPlusMilliseconds(child->left_at, LINGER_MS), now);
}

/* Who has ended since? Returns the milliseconds until another look is due, -1: none. */
static long
reap(TimestampTz now)
{
	long wait = -1;

	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
	{
		KcfDatabase *db = kcf_database(slot);

		for (int k = 0; k < KCF_MAX_WORKERS; k++)
		{
			Child *child = &children[slot][k];
			pid_t pid;

			if (child->handle)
			{
				BgwHandleStatus status = GetBackgroundWorkerPid(child->handle, &pid);

				if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
				{
					long ms = lingers(db, k, child, now);

					if (ms != 0)
					{
						wait = sooner(wait, ms);
						continue;
					}
				}
				pfree(child->handle);
				child->handle = NULL;
			}
			/* Also where we have asked for another: it has left at once. */
			if (db->workers[k].pid != 0)
			{
				child->running = true; /* of an earlier launcher */
				child->dboid = db->dboid;
				continue;
			}
			if (!child->running)
				continue;
			child->running = false;
			LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
			if (OidIsValid(db->dboid) && child->dboid == db->dboid)
				note_end(db, k, now);
			LWLockRelease(kcf_registry_lock);
		}
	}
	return wait;
}

/* A first consumer from its start until it stays, or has gone because there is nothing for it. */
static bool
is_visit(int slot, TimestampTz now)
{
	KcfDatabase *db = kcf_database(slot);

	return children[slot][0].running && db->state != KCF_DATABASE_RUNNING &&
		   !TimestampDifferenceExceeds(db->workers[0].retry_at, now, VISIT_PATIENCE_MS);
}

/*
 * Start it. Where the server has no slot, milliseconds until the next try; else -1. A visit while
 * others are under way (modest) waits for their end, which wakes us.
 */
static long
start_or_wait(int slot, int k, bool modest, TimestampTz now)
{
	static TimestampTz last_logged = 0;
	KcfDatabase *db = kcf_database(slot);
	KcfWorker *worker = &db->workers[k];
	bool started = start_worker(slot, k);
	bool again = false;
	long ms = -1;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (started)
	{
		if (worker->no_slot)
			worker->backoff_ms = 0;
		worker->no_slot = false;
	}
	else if (modest)
		ms = -1;
	else if (!worker->no_slot)
	{
		worker->no_slot = true;
		ms = NO_SLOT_MS;
		worker->retry_at = TimestampTzPlusMilliseconds(now, ms);
	}
	else
	{
		again = true;
		back_off(worker, now);
		ms = worker->backoff_ms;
		strlcpy(worker->state, "no_slot", sizeof(worker->state));
		strlcpy(worker->text, "no free background worker slot: increase max_worker_processes",
				sizeof(worker->text));
	}
	LWLockRelease(kcf_registry_lock);

	if (again &&
		(last_logged == 0 || TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS)))
	{
		last_logged = now;
		ereport(LOG, (errmsg("no free background worker slot for a %s of database \"%s\"",
							 worker_name(k), db->name),
					  errhint("Increase \"max_worker_processes\".")));
	}
	return ms;
}

/* Under the exclusive lock: should this worker of a database that is not withdrawn run? */
static bool
should_run(KcfDatabase *db, int k)
{
	if (k >= KCF_MAX_CLOCKS)
		return db->state == KCF_DATABASE_RUNNING && is_wanted(db, k);
	return db->state != KCF_DATABASE_ABSENT && (k == 0 || db->visited);
}

/*
 * Start this worker if it should run and does not. visits: first consumers of databases not known
 * yet that are under way. Returns as tend_workers.
 */
static long
tend_worker(int slot, int k, int *visits, TimestampTz now)
{
	KcfDatabase *db = kcf_database(slot);
	KcfWorker *worker = &db->workers[k];
	bool start = false;
	long wait = -1;

	if (is_running(slot, k) || leaving[slot])
		return -1;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (db->withdrawals > 0)
		strlcpy(worker->state, "withdrawn", sizeof(worker->state));
	else if (should_run(db, k))
	{
		if (worker->retry_at > now)
			wait = ms_until(worker->retry_at, now) + 1;
		else if (db->visited || *visits < VISITS_AT_ONCE)
		{
			start = true;
			if (!db->visited)
				(*visits)++;
			if (db->state != KCF_DATABASE_RUNNING)
				db->state = KCF_DATABASE_STARTING;
			worker->retry_at = now;
			worker->started_at = 0;
			worker->left = KCF_LEFT_UNKNOWN;
			if (!worker->no_slot)
				strlcpy(worker->state, "starting", sizeof(worker->state));
		}
	}
	LWLockRelease(kcf_registry_lock);

	if (start)
		wait = start_or_wait(slot, k, !db->visited && *visits > 1, now);
	return wait;
}

/*
 * Start what should run and does not. Returns the milliseconds until there is something to do
 * again, -1: nothing but what will wake us.
 */
static long
tend_workers(void)
{
	long wait = -1;
	int visits = 0;
	TimestampTz now = GetCurrentTimestamp();

	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
		visits += is_visit(slot, now) ? 1 : 0;

	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
	{
		KcfDatabase *db = kcf_database(slot);
		Oid dboid = db->dboid;

		if (!OidIsValid(dboid))
			continue;
		for (int k = 0; k < kcf_guc_consumers_per_database; k++)
			wait = sooner(wait, tend_worker(slot, k, &visits, now));
		for (int k = KCF_MAX_CLOCKS; k < KCF_MAX_WORKERS; k++)
			wait = sooner(wait, tend_worker(slot, k, &visits, now));

		/* The slot is freed when the databases are looked at. */
		if (leaving[slot])
			continue;

		/* Visited in vain: remember that, and let another database have the slot. */
		if (db->state == KCF_DATABASE_ABSENT && db->withdrawals == 0 && slot_is_empty(slot))
		{
			if (!free_slot(slot))
			{
				wait = sooner(wait, STILL_READ_MS);
				continue;
			}
			if (visit_again[slot] == dboid)
				look_again = true;
			else
				hash_search(visited, &dboid, HASH_ENTER, NULL);
			visit_again[slot] = InvalidOid;
			if (unserved || look_again)
			{
				look_again = true;
				wait = 0;
			}
		}
	}

	/* Those that wait for their turn to be visited. */
	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
	{
		if (is_visit(slot, now))
			wait = sooner(wait, VISIT_PATIENCE_MS);
	}
	return wait;
}

/*
 * Nobody tells of DDL on a standby, so consumers are told that there may have been some. One that was promoted has
 * products' rules to watch over.
 */
static void
tell_workers(bool promoted)
{
	for (int slot = 0; slot < KCF_MAX_DATABASES; slot++)
	{
		if (!OidIsValid(kcf_database(slot)->dboid))
			continue;
		kcf_database_ddl(kcf_database(slot)->dboid);
		if (promoted)
			kcf_refreshers_want(slot, 1);
	}
}

/* CREATE EXTENSION somewhere; true: visit all. */
static bool
take_visits(void)
{
	Oid dboid;
	bool all;
	bool visit_all = false;

	while (kcf_launcher_next_visit(&dboid, &all))
	{
		int slot = all ? -1 : kcf_database_find(dboid);

		visit_all |= all;
		if (all)
			continue;
		hash_search(visited, &dboid, HASH_REMOVE, NULL);
		/* A visit under way may have come too early. */
		if (slot >= 0)
			visit_again[slot] = dboid;
	}
	return visit_all;
}

void
kcf_launcher_main(Datum arg)
{
	HASHCTL ctl = { .keysize = sizeof(Oid), .entrysize = sizeof(Visited) };
	uint32 looked = 0;
	TimestampTz last_look = 0;
	bool was_standby = false;
	char *databases;

	kcf_proc_start("launcher");
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	visited = hash_create("kafka_cache visited databases", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	databases = MemoryContextStrdup(TopMemoryContext, kcf_guc_databases);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		uint32 looks = kcf_launcher_looks();
		bool standby = RecoveryInProgress();
		/* The last look at what replay has brought comes after it. */
		bool again =
			standby ? TimestampDifferenceExceeds(last_look, now, STANDBY_LOOK_MS) : was_standby;
		bool visit_all = take_visits();
		long wait = reap(now);

		if (looks != looked || again || visit_all || look_again ||
			strcmp(databases, kcf_guc_databases) != 0)
		{
			pfree(databases);
			databases = MemoryContextStrdup(TopMemoryContext, kcf_guc_databases);
			look_at_databases(again || visit_all);
			if (again)
				tell_workers(!standby);
			looked = looks;
			last_look = now;
		}
		wait = sooner(wait, tend_workers());
		if (still_read)
			wait = sooner(wait, STILL_READ_MS);
		if (standby)
		{
			long ms = ms_until(TimestampTzPlusMilliseconds(last_look, STANDBY_LOOK_MS), now) + 1;

			wait = sooner(wait, Min(ms, STANDBY_TURN_MS));
		}
		was_standby = standby;
		pgstat_report_activity(STATE_IDLE, NULL);
		kcf_proc_wait(wait);
	}
}
