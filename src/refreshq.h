/*
 * refreshq.h
 *		The queue of refreshes: which keys of which products are to be computed anew.
 *
 * Process:  any backend asks, on standbys and in read-only transactions too; refreshers claim and settle.
 * Locks:    the queue's own, of a part each, for a moment.
 * Memory:   records of the queue in the arena, within a limit of their own; fixed control data.
 * Errors:   none where asked; full is told by the result, and counted.
 * Waits:    never for a refresher.
 *
 * A request is for a key of a product; more of them for the same key count up. Who claims it takes the requests that
 * there are; those that come while it is computed stay. A claim lapses when its refresher ends, however it does.
 */
#ifndef KCF_REFRESHQ_H
#define KCF_REFRESHQ_H

#include "record.h"
#include "registry.h"

typedef enum KcfRefreshReason
{
	KCF_REFRESH_READ,  /* a stale row was read; lost where the queue is full: it is read again */
	KCF_REFRESH_ASKED, /* kafka_cache.refresh() */
	KCF_REFRESH_RULE,  /* a source has changed */
	KCF_REFRESH_PERIOD /* refresh_every, domain */
} KcfRefreshReason;

/*
 * Ask for this key of a table of this database; key: its bytes as kcf_row_write_key has them. logged: the number of
 * the row of kafka_cache.refresh_log that asks for it, 0: none. false: the queue is full; the caller may try again
 * later. A key that was asked for is computed with what is committed by now, at least once.
 */
extern bool kcf_refreshq_request(Oid relid, KcfSlice key, KcfRefreshReason why, int64 logged);

/* The memory that a request for a new key takes, and whether there is so much; for now. */
extern Size kcf_refreshq_size(KcfSlice key);
extern bool kcf_refreshq_has_room(Size bytes);

/*
 * To know when what was asked for by others than readers is done: the number that the next request gets, and the
 * least one of this product's that is not done yet (PG_UINT64_MAX: none is outstanding).
 */
extern uint64 kcf_refreshq_ticket(void);
extern uint64 kcf_refreshq_outstanding(Oid relid);

/* ---- refreshers ---- */

typedef struct KcfRefreshClaim
{
	uint64 id; /* the queue's */
	uint64 hash;
	Oid relid;
	KcfSlice key; /* palloc'd */
	uint64 requests;
	TimestampTz first_requested;
	TimestampTz last_requested;
	uint32 reasons; /* 1 << KcfRefreshReason, of all requests */
	int attempts;   /* that have failed */
	int64 logged;   /* the last row of kafka_cache.refresh_log, 0: none */
} KcfRefreshClaim;

/*
 * Claim for this refresher (its number) what is asked for most and longest. false: nothing is due; *next is when
 * something may be, 0: nothing waits.
 */
extern bool kcf_refreshq_claim(int number, KcfRefreshClaim *claim, TimestampTz *next);
/* Was there more when this refresher last looked? */
extern bool kcf_refreshq_more(void);
extern void kcf_refreshq_done(const KcfRefreshClaim *claim);
/*
 * It stays in the queue, and is not tried for a while: min(1 s * 3^n, 60 s). blameless: the reason is none of the
 * key's, so a second will do.
 */
extern void kcf_refreshq_failed(const KcfRefreshClaim *claim, const char *message, bool blameless);
/* What this refresher of the database has claimed is free again; no attempt is counted. */
extern void kcf_refreshq_lapse(Oid dboid, int number);
/* How many keys of this database could be claimed now; *next as above. */
extern int kcf_refreshq_due(TimestampTz *next);
/* Nothing of this product is wanted any more; InvalidOid: of the whole database. */
extern void kcf_refreshq_forget(Oid dboid, Oid relid);

/* ---- views ---- */

typedef struct KcfRefreshRow
{
	Oid relid;
	KcfSlice key;
	uint64 requests;
	TimestampTz first_requested;
	int attempts;
	TimestampTz not_before; /* 0: at once */
	char message[200];      /* of the last attempt; empty: it did not fail */
} KcfRefreshRow;

/* Of this database, palloc'd. relid InvalidOid: of all products. */
extern KcfRefreshRow *kcf_refreshq_rows(Oid relid, int *n);

/* Of a product of this database. */
typedef struct KcfRefreshFigures
{
	int64 keys;         /* in the queue, claimed ones too */
	int64 failing;      /* ... whose last attempt failed */
	TimestampTz oldest; /* first request of those; 0: none */
} KcfRefreshFigures;

extern void kcf_refreshq_figures(Oid relid, KcfRefreshFigures *figures);

/* Of a database, since it has its slot. */
typedef struct KcfRefreshTotals
{
	uint64 done;
	uint64 failed;
	uint64 dropped; /* requests of readers that found no room */
	uint64 lapsed;  /* claims of refreshers that ended */
} KcfRefreshTotals;

extern void kcf_refreshq_totals(int database, KcfRefreshTotals *totals);

/* ---- shared memory ---- */
extern Size kcf_refreshq_shmem_size(void);
extern void kcf_refreshq_shmem_init(void);

#endif /* KCF_REFRESHQ_H */
