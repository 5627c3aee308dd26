/*
 * status.h
 *		What the views and functions of schema kafka_cache share: who may see what, and when a table is ready.
 *
 * Process:  backends.
 * Locks:    registry lock, shared, while values are copied.
 * Memory:   CurrentMemoryContext.
 * Errors:   42501 without the right, 42809 for a relation that is not ours; 22023 for what is no position; 55000 where
 *           waiting would be in vain.
 * Waits:    never, but kcf_status_wait*: until something of the table changes, interruptible.
 */
#ifndef KCF_STATUS_H
#define KCF_STATUS_H

#include "catalog.h"
#include "registry.h"

#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef enum KcfSight
{
	KCF_SEE_NOTHING,
	KCF_SEE_NUMBERS, /* who may read the table */
	KCF_SEE_ALL      /* its owner, and members of pg_monitor: texts too, which may name brokers */
} KcfSight;

extern bool kcf_status_is_monitor(void);
extern KcfSight kcf_status_sight(Oid relid);
/* A cached table that the user may read, or (owner) that is the user's. Else an error. */
extern void kcf_status_check(Oid relid, bool owner);
/* May the user see its keys, by reading those columns? InvalidAttrNumber, or one of which that is not so. */
extern AttrNumber kcf_status_hidden_key(const KcfTableDef *def);
/* Else an error. */
extern void kcf_status_check_keys(const KcfTableDef *def);
/* Does kafka_cache.databases name this one? */
extern bool kcf_status_is_listed(void);
/*
 * The state of a table in a word and in words, by what is known of its processes too. Under the registry lock.
 * table NULL: no consumer has met it yet.
 */
extern const char *kcf_status_state(const KcfTable *table, bool listed, const char **text);

/* How far the load of a table is, from 0 to 1. Under the registry lock. */
extern double kcf_status_progress(KcfTable *table);

/* ---- positions ---- */

/* As a user gives it: partitions in any order, each once; the offset of the last record known, -1: none. */
typedef struct KcfPosition
{
	int n;
	struct
	{
		int32 partition;
		int64 offset;
	} parts[FLEXIBLE_ARRAY_MEMBER];
} KcfPosition;

extern KcfPosition *kcf_status_read_position(Jsonb *jsonb);
/* What a statement that starts now sees at least; NULL: nothing is served. */
extern Jsonb *kcf_status_position(Oid relid);

/* ---- waiting ---- */

/* The table as a reader would find it now, NULL: nothing that it could read. */
extern KcfTable *kcf_status_readable(Oid relid);
extern int64 kcf_status_timeout(const Interval *interval);
/*
 * Until the fact is true, which is looked at after each change of the table; false: time is over. No lock is held
 * meanwhile, so the table may be altered or dropped.
 */
typedef bool (*KcfStatusFact)(Oid relid, void *arg);
extern bool kcf_status_wait(Oid relid, KcfStatusFact fact, void *arg, int64 timeout_ms);
/* Until the table has passed this position. */
extern bool kcf_status_wait_position(Oid relid, const KcfPosition *position, int64 timeout_ms);

#endif /* KCF_STATUS_H */
