/*
 * written.h
 *		How far this session has written to each topic, so that it can read its own writes.
 *
 * Process:  backends.
 * Locks:    the registry lock, shared, to look at a table's positions.
 * Memory:   TopMemoryContext; what the cache has passed is forgotten.
 * Errors:   none.
 * Waits:    never: snapshot_wait does.
 */
#ifndef KCF_WRITTEN_H
#define KCF_WRITTEN_H

#include "registry.h"

/* Has this session written anything that some table has not passed yet, as far as is known? */
extern bool kcf_written_any;

/* A record of ours is at this offset. Must not fail: there is room, or the oldest partitions are merged. */
extern void kcf_written_note(Oid serverid, const char *topic, int32 partition, int64 offset);
/* Has this table passed all that the session has written to its topic? Call only when kcf_written_any. */
extern bool kcf_written_passed(Oid relid, KcfTable *table);

#endif /* KCF_WRITTEN_H */
