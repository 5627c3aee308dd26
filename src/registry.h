/*
 * registry.h
 *		What the processes know of each other: databases, cached tables, workers; their states,
 *		positions and counters.
 *
 * Process:  all. Each field names its writer.
 * Locks:    kcf_registry_lock (an LWLock) for slots, texts, and to follow the pointers to stores
 *           and partitions; hot fields are atomics.
 * Memory:   fixed, main shared memory; partition arrays in the arena.
 * Errors:   lookups return NULL; nothing throws but where said.
 * Waits:    kcf_wait_sleep only, on a condition variable, interruptible.
 */
#ifndef KCF_REGISTRY_H
#define KCF_REGISTRY_H

#include <signal.h>

#include "datatype/timestamp.h"
#include "histogram.h"
#include "moment.h"
#include "pins.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

/* The states of kafka_cache.tables, in the order of their names there. */
typedef enum KcfTableState
{
	KCF_TABLE_STARTING,
	KCF_TABLE_CONNECTING,
	KCF_TABLE_LOADING,
	KCF_TABLE_READY,
	KCF_TABLE_STALLED, /* at the end once, now cut off */
	KCF_TABLE_TOPIC_MISSING,
	KCF_TABLE_AUTH_FAILED,
	KCF_TABLE_WAITING_FOR_TRANSACTION,
	KCF_TABLE_FULL,
	KCF_TABLE_FAILED,
	KCF_TABLE_STOPPED
} KcfTableState;

/* The processes of ours in a database: its consumers, by their clocks, its producer, its refreshers. */
#define KCF_MAX_REFRESHERS 8
#define KCF_WORKER_PRODUCER KCF_MAX_CLOCKS
#define KCF_WORKER_REFRESHER (KCF_WORKER_PRODUCER + 1) /* the first */
#define KCF_MAX_WORKERS (KCF_WORKER_REFRESHER + KCF_MAX_REFRESHERS)

#define KCF_NREASON_SLOTS 16 /* >= KCF_NREASONS of rowmap.h */

/* Written by the consumer at publish under a sequence count; read whole (kcf_table_counters). */
typedef struct KcfCounters
{
	int64 records; /* = upserts + tombstones + errors + ignored */
	int64 upserts;
	int64 tombstones;
	int64 errors;
	int64 ignored;
	int64 errors_by_reason[KCF_NREASON_SLOTS];
	int64 reloads;
	int64 timestamps_out_of_range;
} KcfCounters;

#define KCF_NFAULT_SLOTS 16 /* more than there are in KcfKafkaError of kafka.h */

/* Over all loads since the table has its slot: they only grow. Writer: the consumer. */
typedef struct KcfTotals
{
	KcfCounters counters;                      /* under the table's counters_version */
	pg_atomic_uint64 faults[KCF_NFAULT_SLOTS]; /* what stood in the way, by KcfKafkaError */
	pg_atomic_uint64 clients;                  /* of the Kafka library, that were made */
	KcfHistogram latency; /* from a record's timestamp to its being visible; not of loads */
} KcfTotals;

/* What became of the records that a database's sessions have written. Writers: backends. */
typedef struct KcfProduced
{
	pg_atomic_uint64 delivered;
	pg_atomic_uint64 refused; /* nothing of them is in the topic */
	pg_atomic_uint64 unknown;
	pg_atomic_uint64 faults[KCF_NFAULT_SLOTS]; /* flushes that failed, by KcfKafkaError */
	pg_atomic_uint64 given_up;                 /* ... or were left by their backends */
	KcfHistogram wait; /* of flushes: from their last record's handing over to the reply */
} KcfProduced;

/* Writer: the consumer. Offsets are those of a record; "next" is the offset after the last one
 * passed. */
typedef struct KcfPartition
{
	pg_atomic_uint64 next;   /* position + 1; valid after a publish */
	pg_atomic_uint64 low;    /* log start, as far as known */
	pg_atomic_uint64 target; /* end at the start of this load; PG_UINT64_MAX: not yet known */
	pg_atomic_uint64 high;   /* high watermark, as far as known; PG_UINT64_MAX: not yet */
	pg_atomic_uint64 start;  /* where this load began: progress is counted from here */
	pg_atomic_uint64
		complete_from; /* deletions before this offset may be forgotten, or were never seen */
	pg_atomic_uint64
		announced; /* the offset after the last one that listeners were told of, or needed not be */
	pg_atomic_uint64
		written; /* the offset after the last one that a session of this database has been told
							   * of as written; writers: backends */
} KcfPartition;

/* Why a record was not told to those who listen. */
typedef enum KcfSilence
{
	KCF_SILENT_NULL_KEY,
	KCF_SILENT_SAME_VALUE, /* byte for byte that of the row it replaces */
	KCF_SILENT_ABSENT_KEY, /* a tombstone of a key without a row */
	KCF_SILENT_BAD_RECORD, /* the row stays as it was */
	KCF_SILENT_OLDER       /* another partition's record of that key is newer */
} KcfSilence;

#define KCF_NSILENCES (KCF_SILENT_OLDER + 1)

/* What listeners were told since the table is known here. Writer: the consumer; read one by one. */
typedef struct KcfTold
{
	pg_atomic_uint64 notifications; /* payloads */
	pg_atomic_uint64 keys;          /* named in them */
	pg_atomic_uint64 incomplete;    /* payloads that say "more" instead */
	pg_atomic_uint64 failures; /* attempts to notify that failed; what they had is told later */
	pg_atomic_uint64 suppressed[KCF_NSILENCES];
	pg_atomic_uint32 afresh; /* 1: the contents were exchanged, and nobody was told yet */
} KcfTold;

/* New clients of a table's, because the one before had lost its way. Writer: the consumer. */
typedef struct KcfNewClients
{
	pg_atomic_uint64 stuck;   /* connected, but without progress */
	pg_atomic_uint64 cut_off; /* without any broker for a minute */
} KcfNewClients;

/* Of a data product, since the table is known here. Writers: backends and refreshers. */
typedef struct KcfProductCounters
{
	pg_atomic_uint64 hits;     /* rows that were there, and not too old */
	pg_atomic_uint64 stale;    /* of these: shown, though old enough to be refreshed */
	pg_atomic_uint64 misses;   /* rows that were missing or too old */
	pg_atomic_uint64 computed; /* calls of the function that gave an answer, refreshes among them */
	pg_atomic_uint64 waited;   /* misses that were answered by the computation of somebody else */
	pg_atomic_uint64 failed;   /* calls of the function that raised an error */
	pg_atomic_uint64 not_kept; /* computed, and not in the topic: Kafka could not be written to */
	pg_atomic_uint64 refreshes; /* calls of the function by refreshers */
} KcfProductCounters;

typedef struct KcfPartitions
{
	KcfPartition *array; /* by number; arena */
	int n;
	int capacity;
} KcfPartitions;

/* A loaded store and the first sequence at which it is whole and served. */
typedef struct KcfGeneration
{
	KcfStore *store; /* NULL: none */
	KcfSeq since;
	uint64 fingerprint; /* of the definition its tuples were formed by */
} KcfGeneration;

#define KCF_GENERATIONS 3
#define KCF_NRETIRED (KCF_GENERATIONS + 1)

typedef struct KcfTable
{
	/* identity: registry lock; relid InvalidOid = free slot */
	Oid dboid;
	Oid relid;
	int database; /* slot of its database */
	int clock;    /* of the consumer that owns it */
	Oid owner;
	char topic[250];

	pg_atomic_uint32 state; /* KcfTableState; consumer */
	pg_atomic_uint32
		reload_wanted;          /* backends count up; the consumer compares with what it has done */
	pg_atomic_uint64 fresh_at;  /* KcfMoment when last known to be at the end of every partition */
	pg_atomic_uint64 loaded_at; /* TimestampTz of the present generation's readiness; 0: never */
	char text[256];             /* the state in words; registry lock */

	/* newest first; consumer, under gen_version (odd while being changed); a store NULL: nothing
	 * served since */
	pg_atomic_uint32 gen_version;
	KcfGeneration gens[KCF_GENERATIONS];

	/*
	 * The consumer's own: survive its restart. A store that is being filled and not yet served
	 * ("loading"), retired ones that wait for pins.
	 */
	KcfStore *loading;
	uint64 loading_fingerprint;
	struct
	{
		KcfStore *store;
		KcfSeq until; /* free when every pin is beyond */
	} retired[KCF_NRETIRED];
	KcfStore *discarded; /* loads that were given up while somebody read them; a list */

	/*
	 * Partitions of the served generation, and of the load in progress, which become the served
	 * ones with their store. Consumer; registry lock to follow the pointer.
	 */
	KcfPartitions followed;
	KcfPartitions load;

	/* Of the served generation, or of the first load. */
	pg_atomic_uint32 counters_version; /* odd while being changed */
	KcfCounters counters;
	KcfAccount account;
	struct KcfErrorLog *errors; /* errlog.h; arena. Registry lock to follow the pointer */

	/* As those of its database, for who waits for this table alone. They outlive the slot's use. */
	ConditionVariable changed;
	pg_atomic_uint32 waiters;
	KcfTold told;
	KcfNewClients clients;

	KcfTotals totals;

	/* Its positions shown to lag tools, as often as that was done and as it failed; consumer */
	pg_atomic_uint64 group_commits;
	pg_atomic_uint64 group_failures;

	KcfProductCounters product;
	pg_atomic_uint64 put_failed_at; /* KcfMoment when a computed row could not be kept; 0: never */
	/* What was computed until then, in milliseconds, was to be refreshed; the coordinator's. 0: never */
	pg_atomic_uint64 refresh_until;

	/* The consumer's own: those of a load beside a served generation, and the reload done last. */
	KcfCounters load_counters;
	struct KcfErrorLog *load_errors;
	uint32 reload_done;
} KcfTable;

typedef enum KcfDatabaseState
{
	KCF_DATABASE_NEW,      /* to be visited */
	KCF_DATABASE_STARTING, /* its consumers are being started */
	KCF_DATABASE_ABSENT,   /* visited: the extension is not there */
	KCF_DATABASE_RUNNING,
	KCF_DATABASE_WITHDRAWN /* a command needs the database without our workers */
} KcfDatabaseState;

typedef enum KcfLeft
{
	KCF_LEFT_UNKNOWN, /* it is there, or never came */
	KCF_LEFT_QUIETLY, /* exit code 0, or it was told to leave */
	KCF_LEFT_FAILED,
	KCF_LEFT_WITHDRAWN /* a command needed the database */
} KcfLeft;

/* All under the registry lock. */
typedef struct KcfWorker
{
	int pid; /* 0: not running; the worker itself */
	Latch *latch;
	TimestampTz started_at; /* kept after its exit; 0: it has not come yet */
	KcfLeft left;           /* how; the worker itself */
	int restarts;           /* after it had left by itself or failed; launcher */
	TimestampTz retry_at;   /* not to be started before; launcher */
	int backoff_ms;         /* launcher */
	bool no_slot;           /* the server had no room for it; launcher */
	char state[32];         /* in a word; worker while it runs, else launcher */
	char text[256];         /* what there is to say about it, or empty */
} KcfWorker;

typedef struct KcfDatabase
{
	Oid dboid; /* InvalidOid: free slot. Launcher, registry lock */
	char name[NAMEDATALEN];
	KcfDatabaseState state; /* launcher and the visiting consumer, registry lock */
	int withdrawals;        /* commands that hold our workers off; registry lock */
	bool visited;           /* a consumer has been there and said what it found; registry lock */
	KcfWorker workers[KCF_MAX_WORKERS]; /* registry lock */
	ConditionVariable exited;           /* broadcast when one of the workers is gone */
	pg_atomic_uint32 producer_wanted; /* backends set it, the producer clears it before it leaves */
	/* How many refreshers there should be; backends raise it, refreshers that have nothing to do lower it */
	pg_atomic_uint32 refreshers_wanted;
	pg_atomic_uint32 rules_news; /* counted up at commit of what the coordinator has to look at */
	pg_atomic_uint32
		publish_watched;  /* the coordinator sets it, the next to publish takes it and wakes */
	pg_atomic_uint32 ddl; /* counted up at commit of DDL that may concern us */
	ConditionVariable
		changed; /* broadcast when a table's state or, with waiters, its position changed */
	pg_atomic_uint32 waiters; /* backends that sleep on it: publish broadcasts only then */
	pg_atomic_uint64 turned_at[KCF_MAX_CLOCKS]; /* KcfMoment of each consumer's last turn; itself */
	KcfProduced produced;
} KcfDatabase;

extern LWLock *kcf_registry_lock;

extern Size kcf_registry_shmem_size(void);
extern void kcf_registry_shmem_init(void);
extern Size kcf_tables_shmem_size(void);
extern void kcf_tables_shmem_init(void);

/*
 * Before cached tables are used: 55000 where there is none, in a server that was started for a binary upgrade;
 * 0A000 in consumers and producers, where only code of a table's owner asks.
 */
extern void kcf_registry_check(void);

/* ---- databases ---- */
extern int kcf_database_find(Oid dboid); /* slot number or -1; no lock needed */
extern KcfDatabase *kcf_database(int database);
/* This backend's database slot (cached), -1 when no consumer was ever there. */
extern int kcf_my_database(void);
/* Consumer: what it found when it came. Where the extension is not (or no more), it then exits with
 * 0. */
extern void kcf_database_report(int database, bool has_extension);
/* Wake the consumers of a database, or the launcher when there is none. */
extern void kcf_database_wake(Oid dboid);
/* DDL that may concern the cached tables of a database was committed. */
extern void kcf_database_ddl(Oid dboid);
/*
 * Somebody misses a table there. On a standby nobody tells of DDL, which comes by replay; anywhere else this does
 * nothing.
 */
extern void kcf_database_look(Oid dboid);

/* Launcher: a slot for a database (-1: all taken), and giving it and what is left of its tables
 * back. */
extern int kcf_database_claim(Oid dboid, const char *name);
/* Its tables are withdrawn; false: some are still being read, so try again a little later. */
extern bool kcf_database_free(int database);

/*
 * Withdrawal: while a command needs the database for itself no process of ours is there. Counted,
 * so that several commands may ask. Returns the slot, -1 when there is nobody to hold off; tells
 * the workers to leave.
 */
extern int kcf_database_withdraw(Oid dboid, const char *name);
extern bool kcf_database_left(int database); /* are they all gone? */
extern void kcf_database_restore(int database, Oid dboid);

/* ---- workers ---- */
extern KcfWorker *kcf_launcher_worker(void);
extern void kcf_launcher_wake(void);
/* The launcher should read pg_database again. */
extern void kcf_launcher_look(void);
extern uint32 kcf_launcher_looks(void); /* counts them up */
/* ... and visit this database again, where it had found nothing. */
extern void kcf_launcher_visit(Oid dboid);
/* Launcher: next of these; *all: they were too many to remember. false: no more. */
extern bool kcf_launcher_next_visit(Oid *dboid, bool *all);
/*
 * A worker comes (database -1: the launcher); false: it must not run now and exits with 0. Its pid
 * and latch are taken away when it has left its database.
 */
extern bool kcf_worker_enter(int database, int number, Oid dboid);
/*
 * Set by the signal handler of a worker: somebody wants it to end, so that its end is no failure,
 * whatever it was doing.
 */
extern volatile sig_atomic_t kcf_worker_told_to_leave;
/*
 * The database should have a producer: one that is there is woken, else the launcher starts one. It
 * is wanted until it takes that back itself (kcf_producer_unwant), when it has nothing to do.
 */
extern void kcf_producer_want(int database);
extern void kcf_producer_unwant(int database); /* a full barrier */
extern bool kcf_producer_wanted(int database);
/*
 * The database should have so many refreshers, if kafka_cache.refresh_workers allows that: those that are there are
 * woken, the launcher starts the others. Each takes its own wish back when it has nothing to do
 * (kcf_refresher_unwant, from the last one on): false where it is not the last one wanted.
 */
extern void kcf_refreshers_want(int database, int n); /* a full barrier */
extern int kcf_refreshers_wanted(int database);
extern bool kcf_refresher_unwant(int database, int number); /* a full barrier */
/* What kafka_cache.workers shows of this process. */
extern void kcf_worker_say(const char *state, const char *fmt, ...) pg_attribute_printf(2, 3);

/* ---- tables ---- */
extern KcfTable *
kcf_table_find(Oid dboid, Oid relid); /* cached per backend; stable while the relation is locked */
/* Consumer; NULL: kafka_cache.max_tables reached. */
extern KcfTable *kcf_table_create(Oid dboid, Oid relid, int database, int clock);
/* Consumer or launcher; nothing of it may be pinned. */
extern void kcf_table_drop(KcfTable *table);
extern KcfTable *kcf_table_at(int i); /* i < kcf_guc_max_tables; check relid under the lock */
extern int kcf_table_count(void);     /* those in use */
extern const char *kcf_table_state_name(KcfTableState state);
extern const char *kcf_silence_name(KcfSilence silence);
/* fmt NULL: nothing to say about it. Wakes those who wait for it when something changed. */
extern void kcf_table_set_state(KcfTable *table, KcfTableState state, const char *fmt, ...)
	pg_attribute_printf(3, 4);
extern void kcf_table_set_identity(KcfTable *table, Oid owner, const char *topic);
/*
 * Consumer: room for n partitions in table->followed or table->load, new ones zeroed with target
 * and high unknown; 0 forgets them all. false: no memory. The array may move.
 */
extern bool kcf_table_set_partitions(KcfTable *table, KcfPartitions *partitions, int n);
/* A session has written this record to the table's topic. */
extern void kcf_table_note_written(Oid relid, int32 partition, int64 offset);
/* Has what is served passed all that sessions have noted there? Under the registry lock. */
extern bool kcf_table_shows_written(KcfTable *table);
/* ... and give back an array that nobody can find any more. */
extern void kcf_table_free_partitions(KcfTable *table, const KcfPartitions *partitions);

/* Microseconds since it was last known to be at the end of every partition; -1: it never was. */
static inline int64
kcf_table_staleness(KcfTable *table)
{
	KcfMoment fresh_at = pg_atomic_read_u64(&table->fresh_at);

	return fresh_at == 0 ? -1 : Max(kcf_moment_now() - fresh_at, 0);
}

/* The store that a reader of this definition sees at seq, NULL: none. Under a pin. */
extern KcfStore *kcf_table_store(KcfTable *table, uint64 fingerprint, KcfSeq seq);
/*
 * Consumer: the store being filled, not served yet; replaces a previous one and forgets its
 * partitions. NULL: none. Who reads what is there ("partial") may be reading that one, so it goes
 * only now if there is no pin, else by a sweep after the next publish.
 */
extern void kcf_table_load(KcfTable *table, KcfStore *store, uint64 fingerprint);
/*
 * Consumer: serve this store from sequence since on; the previous ones stay for older pins. When it
 * is the one being loaded, that becomes none and its partitions the followed ones. false, and
 * nothing is done: so many older ones are still pinned that there is no place; sweep and try again.
 */
extern bool kcf_table_serve(KcfTable *table, KcfStore *store, KcfSeq since, uint64 fingerprint);
/* Consumer: forget the served generation and its partitions (definition changed), keep it for pins
 * only. */
extern void kcf_table_withdraw(KcfTable *table, KcfSeq since);
/*
 * Under the registry lock: do the followed positions speak of what a reader would find now? For a moment they are
 * those of a generation that is to be served from the next publish on.
 */
extern bool kcf_table_shows_followed(KcfTable *table);
/* Is a generation served? (Of whatever definition.) */
extern bool kcf_table_is_served(KcfTable *table);
/* Consumer: destroy the stores that no pin needs any more; true: some are still needed. */
extern bool kcf_table_sweep(KcfTable *table, KcfSeq min_pinned);
/*
 * A palloc'd copy of the partitions of what is served, else of the load, with the targets of a load in
 * progress; none, where the table is not this relation's any more.
 */
extern KcfPartition *kcf_table_partitions(KcfTable *table, Oid relid, bool *served, int *n);
extern void kcf_table_counters(KcfTable *table, KcfCounters *counters);
extern void kcf_table_set_counters(KcfTable *table, const KcfCounters *counters);
/* Consumer: what has come to these counters since it was last counted goes to the totals. */
extern void kcf_table_add_up(KcfTable *table, const KcfCounters *counters, KcfCounters *counted);
extern void kcf_table_totals(KcfTable *table, KcfCounters *totals);

/*
 * Sleep until something of the database may have changed: kcf_wait_prepare(db); while (!fact) if
 * (!kcf_wait_sleep(db, left)) break; kcf_wait_cancel(db). An error on the way cancels it too.
 * Database -1: until a database gets a slot, for those whose own has none yet.
 */
extern void kcf_wait_prepare(int database);
extern bool kcf_wait_sleep(int database, long timeout_ms); /* false: time is over */
extern void kcf_wait_cancel(int database);
/* Consumer, after a publish or a change of state: nearly free when nobody waits. */
extern void kcf_wait_broadcast(int database);
/*
 * The same for one table: until its state or its position may have changed. The slot may come to be another table's
 * meanwhile: look before each sleep. kcf_wait_cancel ends it, with whatever argument.
 */
extern void kcf_wait_prepare_table(KcfTable *table);
extern bool kcf_wait_sleep_table(KcfTable *table, long timeout_ms);
extern void kcf_wait_broadcast_table(KcfTable *table);
/*
 * Does this relation show what is at this place of its topic, or what came after it? Then what is read next has it.
 * The other waits for that, so long; false: it takes longer. A table NULL has passed nothing.
 */
extern bool kcf_table_has_passed(KcfTable *table, Oid relid, int32 partition, int64 offset);
extern bool kcf_table_wait_passed(KcfTable *table, Oid relid, int32 partition, int64 offset,
								  long timeout_ms);

#endif /* KCF_REGISTRY_H */
