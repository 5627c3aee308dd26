/*
 * snapshot.h
 *		One statement, one state of all cached tables: the backend's live cache snapshots and its pin.
 *
 * Process:  backends and parallel workers.
 * Locks:    none.
 * Memory:   TopMemoryContext; freed at transaction end at the latest.
 * Errors:   72000 when the pin was revoked; 55000/40001/53200 when a table of the statement cannot be read.
 * Waits:    until the statement's cached tables are ready (kafka_cache.when_not_ready, wait_timeout), interruptible.
 *
 * A cache snapshot belongs to a PostgreSQL snapshot (es_snapshot): all scans of a statement, and of the STABLE
 * functions it calls, share it; a transaction with a fixed snapshot (REPEATABLE READ) has one for its whole life.
 */
#ifndef KCF_SNAPSHOT_H
#define KCF_SNAPSHOT_H

#include "nodes/execnodes.h"
#include "pins.h"

/* A reference to a state; belongs to the resource owner that was current. */
typedef struct KcfSnapshot KcfSnapshot;

/* What a scan reads of one table. */
typedef struct KcfView
{
	const struct KcfStore
		*store; /* NULL: nothing is there (kafka_cache.when_not_ready = partial) */
	KcfSeq seq;
	bool partial;
} KcfView;

/* Waits for all cached tables of the statement's plan, then pins. Reference counted. */
extern KcfSnapshot *kcf_snapshot_acquire(EState *estate);
/* And for this table, which a function called by the statement reads. */
extern KcfSnapshot *kcf_snapshot_acquire_for(EState *estate, Oid relid);
/* The same outside of a statement, for one table; never shared. */
extern KcfSnapshot *kcf_snapshot_acquire_relation(Oid relid);
/*
 * While this is set, statements get states of their own also in a transaction with a fixed snapshot: what they compute
 * is for everybody. Who sets it gets what it was, and sets it back, also where an error comes.
 */
extern bool kcf_snapshot_set_afresh(bool afresh);
/* Have all statements that begin now one state, that of their transaction? */
extern bool kcf_executor_uses_fixed(void);
extern void kcf_snapshot_release(KcfSnapshot *snapshot);
/*
 * The present state, whatever can be read in it, for longer than a transaction: for who compares it with a later one.
 * NULL: the database has no cache. It may be lost at any time, as others are, but within enter and leave below.
 */
extern KcfSnapshot *kcf_snapshot_hold(void);
extern bool kcf_snapshot_is_lost(const KcfSnapshot *snapshot);
/* In a transaction: what it holds of a table. false: nothing that could be read. */
extern bool kcf_snapshot_peek(const KcfSnapshot *snapshot, Oid relid, KcfView *view);
/* Was nothing published since? Then a position that was read after it was taken is its own. */
extern bool kcf_snapshot_is_newest(const KcfSnapshot *snapshot);
/* If so: it is as young as one that were taken now. */
extern void kcf_snapshot_renew(KcfSnapshot *snapshot);
/* What this state holds of a table; ereports when that is nothing. */
extern void kcf_snapshot_view(const KcfSnapshot *snapshot, Oid relid, KcfView *view);

/* How far a table's served rows go, as kafka_cache.position() has it; NULL: not known. Now, and at the
 * time of this state: known for statements under EXPLAIN ANALYZE only. */
extern char *kcf_relation_position(Oid relid);
extern const char *kcf_snapshot_position(const KcfSnapshot *snapshot, Oid relid);

/* When each row is read: is the state still there? The flag is the state's own, see kcf_snapshot_check. */
extern const volatile bool *kcf_snapshot_lost_flag(const KcfSnapshot *snapshot);
extern void kcf_snapshot_lost(const KcfSnapshot *snapshot);
#define kcf_snapshot_check(snapshot, lost_flag)                                                    \
	do                                                                                             \
	{                                                                                              \
		if (unlikely(*(lost_flag)) || kcf_pin_doomed())                                            \
			kcf_snapshot_lost(snapshot);                                                           \
	} while (0)

/* Rows are read between these two only; the executor hooks call them, who reads outside of the executor must. */
extern void kcf_snapshot_enter(void);
extern void kcf_snapshot_leave(void);

/* Transaction and executor hooks; from _PG_init. */
extern void kcf_snapshot_init(void);

#endif /* KCF_SNAPSHOT_H */
