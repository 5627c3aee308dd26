/*
 * refreshq_internal.h
 *		How the queue of refreshes lies in shared memory.
 *
 * Process:  any.
 * Locks:    each part's.
 * Memory:   control data fixed, in main shared memory; records in the arena.
 * Errors:   none.
 * Waits:    on a part's lock, briefly.
 */
#ifndef KCF_REFRESHQ_INTERNAL_H
#define KCF_REFRESHQ_INTERNAL_H

#include "arena.h"
#include "refreshq.h"
#include "storage/lwlock.h"

#define KCF_REFRESHQ_PARTS 16
#define KCF_REFRESHQ_BUCKETS 1024 /* of each part */

/* A key that is asked for. Identity is set once. */
typedef struct KcfRefreshEntry
{
	struct KcfRefreshEntry *next; /* in its bucket; the part's lock */
	uint64 id;
	uint64 hash;
	Oid dboid;
	Oid relid;
	Size key_len;

	/* Not claimed yet. Anybody, under the part's lock in any mode. */
	pg_atomic_uint64 requests;
	pg_atomic_uint64 first_requested; /* TimestampTz, 0: none */
	pg_atomic_uint64 last_requested;
	pg_atomic_uint32 reasons; /* 1 << KcfRefreshReason */

	/* The part's lock, exclusive; so all below */
	uint64 ticket; /* the first one that was not claimed; 0: only readers have asked */
	int64 logged;
	int attempts;
	TimestampTz not_before;
	char message[200];

	/* What is claimed, and is there again when the claim lapses or fails. */
	int claimed_by; /* number of a refresher + 1; 0: nobody */
	uint64 claimed_requests;
	TimestampTz claimed_first;
	TimestampTz claimed_last;
	uint32 claimed_reasons;
	uint64 claimed_ticket;
	int64 claimed_logged;

	char key[FLEXIBLE_ARRAY_MEMBER];
} KcfRefreshEntry;

typedef struct KcfRefreshPart
{
	LWLock lock;
	KcfRefreshEntry *buckets[KCF_REFRESHQ_BUCKETS]; /* the lock */
} KcfRefreshPart;

/* Of a database, by its slot. Writers: anybody. */
typedef struct KcfRefreshCounters
{
	pg_atomic_uint64 done;
	pg_atomic_uint64 failed;
	pg_atomic_uint64 dropped;
	pg_atomic_uint64 lapsed;
} KcfRefreshCounters;

typedef struct KcfRefreshQueue
{
	int tranche;
	KcfAccount account;      /* of the records */
	pg_atomic_uint64 id;     /* the last one given */
	pg_atomic_uint64 ticket; /* the next one */
	KcfRefreshCounters totals[KCF_MAX_DATABASES];
	KcfRefreshPart parts[KCF_REFRESHQ_PARTS];
} KcfRefreshQueue;

extern KcfRefreshQueue *kcf_refreshq;

/*
 * Calls what for each record of the database's, under its part's lock; relid InvalidOid: of all products. It may take
 * the record away, where the mode is exclusive.
 */
extern void kcf_refreshq_walk(Oid dboid, Oid relid, LWLockMode mode,
							  void (*what)(KcfRefreshEntry *entry, void *arg), void *arg);

#endif /* KCF_REFRESHQ_INTERNAL_H */
