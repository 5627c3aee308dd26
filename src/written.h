/*
 * written.h
 *		How far this session has written to each topic, so that it can read its own writes.
 *
 * Process:  backends.
 * Locks:    the registry lock, shared, to look at a table's positions.
 * Memory:   TopMemoryContext; what the cache has passed is forgotten.
 * Errors:   none but for want of memory in kcf_written_reserve.
 * Waits:    never: snapshot_wait does.
 *
 * Kept for each table, since each reads its topic at its own pace, and for each topic that it has been given. What a state of the tables holds is told by a
 * count of what happened here: a write is noted, a table is seen to have passed it. A state holds what had been
 * passed when it was taken.
 */
#ifndef KCF_WRITTEN_H
#define KCF_WRITTEN_H

#include "registry.h"

/* Whether there is anything here to be looked at. */
extern bool kcf_written_any;
/* Counts what happened; that of a state is read before its pin is taken. */
extern uint64 kcf_written_now;

/* The tables that show a topic. */
typedef struct KcfWrittenTables
{
	uint64 topic;
	int n;
	Oid relids[FLEXIBLE_ARRAY_MEMBER];
} KcfWrittenTables;

/* Before records are sent through this table: makes room, so that noting cannot fail. palloc'd. */
extern KcfWrittenTables *kcf_written_reserve(Oid relid, Oid serverid, const char *topic);
/* A record of ours is at this offset. */
extern void kcf_written_note(const KcfWrittenTables *tables, int32 partition, int64 offset);

/* Is what is served of this table beyond all that the session has written to its topic? */
extern bool kcf_written_passed(Oid relid, const char *topic);
/*
 * Does a state that was taken then hold it? One of a single statement need not hold what that statement itself has
 * written since.
 */
extern bool kcf_written_held(Oid relid, const char *topic, uint64 at, bool of_statement);
/* Is there a table, this session's reading apart, that will soon have passed what it has not yet? */
extern bool kcf_written_any_behind(void);
/* It was waited for and did not come: no more until something else is written. */
extern void kcf_written_give_up(void);
/* No state is there that could lack it: forget what was passed. */
extern void kcf_written_forget(void);
/* For an error's detail: the first partition that is behind. false: none is any more. */
extern bool kcf_written_behind(Oid relid, const char *topic, int32 *partition, int64 *written,
							   int64 *position);

#endif /* KCF_WRITTEN_H */
