/*
 * status.h
 *		What the views and functions of schema kafka_cache share: who may see what, and when a table is ready.
 *
 * Process:  backends.
 * Locks:    registry lock, shared, while values are copied.
 * Memory:   CurrentMemoryContext.
 * Errors:   42501 without the right, 42809 for a relation that is not ours.
 * Waits:    never, but status_wait.c: until something of the database changes, interruptible.
 */
#ifndef KCF_STATUS_H
#define KCF_STATUS_H

#include "registry.h"

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
/* Does kafka_cache.databases name this one? */
extern bool kcf_status_is_listed(void);
/*
 * The state of a table in a word and in words, by what is known of its processes too. Under the registry lock.
 * table NULL: no consumer has met it yet.
 */
extern const char *kcf_status_state(const KcfTable *table, bool listed, const char **text);

/* How far the load of a table is, from 0 to 1. Under the registry lock. */
extern double kcf_status_progress(KcfTable *table);

#endif /* KCF_STATUS_H */
