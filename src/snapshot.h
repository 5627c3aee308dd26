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

typedef struct KcfSnapshot KcfSnapshot;

/* Waits for all cached tables of the statement's range table, then pins. Reference counted. */
extern KcfSnapshot *kcf_snapshot_acquire(EState *estate);
extern void kcf_snapshot_release(KcfSnapshot *snapshot);
extern KcfSeq kcf_snapshot_seq(const KcfSnapshot *snapshot, int clock);
/* Transaction and executor hooks; from _PG_init. */
extern void kcf_snapshot_init(void);

#endif /* KCF_SNAPSHOT_H */
