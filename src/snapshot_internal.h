/*
 * snapshot_internal.h
 *		Between the states of a backend and the executors that read from them. For snapshot*.c.
 *
 * Process:  backends and parallel workers.
 * Locks:    none.
 * Memory:   none kept.
 * Errors:   72000 from kcf_states_check_resumed.
 * Waits:    never.
 */
#ifndef KCF_SNAPSHOT_INTERNAL_H
#define KCF_SNAPSHOT_INTERNAL_H

#include "executor/execdesc.h"
#include "snapshot.h"

/* ---- snapshot_executor.c ---- */

extern void kcf_executor_init(void);
/* The transaction has failed. */
extern void kcf_executor_reset(void);
/* Is one on the stack that runs under this snapshot? NULL: under any. */
extern bool kcf_executor_uses(Snapshot snapshot);
/* In a parallel worker: is this the snapshot of the leader's statement? */
extern bool kcf_executor_is_leaders(Snapshot snapshot);

/* ---- snapshot.c ---- */

/*
 * A statement that may start parallel workers: show them its state. Their own pin cannot be had from
 * ours, which may be older. take: if it has none yet, take one; returns what to release afterwards.
 */
extern KcfSnapshot *kcf_states_show(const QueryDesc *query, bool take, bool *shown);
/* A plan that goes on after a rest may have rows in its slots that are gone: then an error. */
extern void kcf_states_check_resumed(const EState *estate);
/* From here to kcf_pin_leave the pin is not taken away. */
extern void kcf_states_hold(void);
/* An executor has left: what was held for it alone is let go. */
extern void kcf_states_executor_left(void);
/* The executor of a query with this snapshot has ended: so does what was kept for its functions. */
extern void kcf_states_executor_ended(Snapshot key);

#endif /* KCF_SNAPSHOT_INTERNAL_H */
