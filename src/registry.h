/*
 * registry.h
 *		What the processes know of each other: databases, cached tables, workers; states, positions, counters.
 *
 * Process:  all. Each field names its writer.
 * Locks:    kcf_registry_lock (an LWLock) for slots, texts and partition arrays; hot fields are atomics.
 * Memory:   fixed, main shared memory; partition arrays in the arena.
 * Errors:   lookups return NULL; nothing throws but where said.
 * Waits:    kcf_table_wait only, on a condition variable, interruptible.
 */
#ifndef KCF_REGISTRY_H
#define KCF_REGISTRY_H

#include "datatype/timestamp.h"
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

#define KCF_NREASON_SLOTS 16 /* >= KCF_NREASONS of rowmap.h */

/* Written by the consumer at publish under a sequence count; read whole (kcf_table_counters). */
typedef struct KcfCounters
{
	int64		records; /* = upserts + tombstones + errors + ignored */
	int64		upserts;
	int64		tombstones;
	int64		errors;
	int64		ignored;
	int64		errors_by_reason[KCF_NREASON_SLOTS];
	int64		reloads;
	int64		timestamps_out_of_range;
} KcfCounters;

/* Writer: the consumer. Offsets are those of a record; "next" is the offset after the last one passed. */
typedef struct KcfPartition
{
	pg_atomic_uint64 next;	 /* position + 1; valid after a publish */
	pg_atomic_uint64 low;	 /* log start, as far as known */
	pg_atomic_uint64 target; /* end at the start of this load; PG_UINT64_MAX: not yet known */
	pg_atomic_uint64 high;	 /* high watermark, as far as known; PG_UINT64_MAX: not yet */
} KcfPartition;

/* A loaded store and the first sequence at which it is whole and served. */
typedef struct KcfGeneration
{
	KcfStore   *store; /* NULL: none */
	KcfSeq		since;
	uint64		fingerprint; /* of the definition its tuples were formed by */
} KcfGeneration;

#define KCF_GENERATIONS 3

typedef struct KcfTable
{
	/* identity: registry lock; relid InvalidOid = free slot */
	Oid			dboid;
	Oid			relid;
	int			database; /* slot of its database */
	int			clock;	  /* of the consumer that owns it */
	Oid			owner;
	char		topic[250];

	pg_atomic_uint32 state;			/* KcfTableState; consumer */
	pg_atomic_uint32 reload_wanted; /* backends count up; the consumer compares with what it has done */
	pg_atomic_uint64 at_end;		/* TimestampTz when last known to be at the end of every partition; 0: never */
	pg_atomic_uint64 loaded_at;		/* TimestampTz of the present generation's readiness; 0: never */
	char		text[256];			/* the state in words; registry lock */

	/* newest first; consumer, under gen_version (odd while being changed) */
	pg_atomic_uint32 gen_version;
	KcfGeneration gens[KCF_GENERATIONS];

	/*
	 * The consumer's own: survive its restart, nobody else looks at them. A store that is being filled and not yet
	 * served ("loading"), retired ones that wait for pins, where the load stands.
	 */
	KcfStore   *loading;
	uint64		loading_fingerprint;
	struct
	{
		KcfStore   *store;
		KcfSeq		until; /* free when every pin is beyond */
	}			retired[KCF_GENERATIONS + 1];

	/* partitions of the load in progress or, once ready, of the served generation; registry lock to follow the pointer */
	KcfPartition *partitions;
	int			npartitions;
	int			partition_capacity;

	pg_atomic_uint32 counters_version; /* odd while being changed */
	KcfCounters counters;
	KcfAccount	account;
	struct KcfErrorLog *errors; /* errlog.h; arena */
} KcfTable;

typedef enum KcfDatabaseState
{
	KCF_DATABASE_NEW,	   /* to be visited */
	KCF_DATABASE_STARTING, /* its consumers are being started */
	KCF_DATABASE_ABSENT,   /* visited: the extension is not there */
	KCF_DATABASE_RUNNING,
	KCF_DATABASE_WITHDRAWN, /* a command needs the database without our workers */
	KCF_DATABASE_BACKOFF	/* failed, to be started again at retry_at */
} KcfDatabaseState;

typedef struct KcfWorker
{
	int			pid; /* 0: not running; the worker itself */
	Latch	   *latch;
	TimestampTz started_at;
	int			restarts; /* launcher */
	TimestampTz retry_at; /* launcher */
	int			backoff_ms; /* launcher */
	char		state[32];
	char		text[256];
} KcfWorker;

typedef struct KcfDatabase
{
	Oid			dboid; /* InvalidOid: free slot. Launcher, registry lock */
	char		name[NAMEDATALEN];
	KcfDatabaseState state; /* launcher and the visiting consumer, registry lock */
	int			withdrawals; /* commands that hold our workers off; registry lock */
	KcfWorker	consumers[KCF_MAX_CLOCKS]; /* registry lock */
	pg_atomic_uint32 ddl;		/* counted up at commit of DDL that may concern us */
	ConditionVariable changed;	/* broadcast when a table's state or, with waiters, its position changed */
	pg_atomic_uint32 waiters;	/* backends that sleep on it: publish broadcasts only then */
} KcfDatabase;

extern LWLock *kcf_registry_lock;

extern Size kcf_registry_shmem_size(void);
extern void kcf_registry_shmem_init(void);

/* ---- databases ---- */
extern int	kcf_database_find(Oid dboid); /* slot number or -1; no lock needed */
extern KcfDatabase *kcf_database(int database);
/* This backend's database slot (cached), -1 when no consumer was ever there. */
extern int	kcf_my_database(void);
extern KcfWorker *kcf_launcher_worker(void);
/* Wake the consumers of a database, or the launcher when there is none. */
extern void kcf_database_wake(Oid dboid);
extern void kcf_launcher_wake(void);

/* ---- tables ---- */
extern KcfTable *kcf_table_find(Oid dboid, Oid relid); /* cached per backend; stable while the relation is locked */
extern KcfTable *kcf_table_create(Oid dboid, Oid relid, int database, int clock); /* consumer; NULL: kafka_cache.max_tables reached */
extern void kcf_table_drop(KcfTable *table); /* consumer or launcher; nothing of it may be pinned */
extern KcfTable *kcf_table_at(int i); /* i < kcf_guc_max_tables; check relid under the lock */
extern const char *kcf_table_state_name(KcfTableState state);
extern void kcf_table_set_state(KcfTable *table, KcfTableState state, const char *fmt,...) pg_attribute_printf(3, 4);
/* The store that a reader of this definition sees at seq, NULL: none. Under a pin. */
extern KcfStore *kcf_table_store(KcfTable *table, uint64 fingerprint, KcfSeq seq);
/* Consumer: serve this store from sequence since on; the previous ones stay for older pins. */
extern void kcf_table_serve(KcfTable *table, KcfStore *store, KcfSeq since, uint64 fingerprint);
/* Consumer: forget served generations (definition changed), keep them for pins only. */
extern void kcf_table_withdraw(KcfTable *table, KcfSeq since);
extern void kcf_table_counters(KcfTable *table, KcfCounters *counters);
extern void kcf_table_set_counters(KcfTable *table, const KcfCounters *counters);
/* Sleep until something of the database may have changed, at most timeout ms; in a loop with a test of the fact:
 * kcf_table_wait_prepare(); while (!fact) if (!kcf_table_wait(db, left)) …; kcf_table_wait_cancel(). */
extern void kcf_wait_prepare(int database);
extern bool kcf_wait_sleep(int database, long timeout_ms); /* false: time is over */
extern void kcf_wait_cancel(int database);
extern void kcf_wait_broadcast(int database);

#endif /* KCF_REGISTRY_H */
