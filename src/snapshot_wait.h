/*
 * snapshot_wait.h
 *		Can the tables of a statement be read? Waiting until they can, and saying why not.
 *
 * Process:  backends and parallel workers.
 * Locks:    the registry lock, shared, for a moment.
 * Memory:   none kept.
 * Errors:   55000 not ready or without what this session has written, 53200 full, 40001 too stale or not in this
 *           snapshot.
 * Waits:    kcf_scope_wait: on the database's condition variable, interruptible.
 */
#ifndef KCF_SNAPSHOT_WAIT_H
#define KCF_SNAPSHOT_WAIT_H

#include "snapshot.h"

/* The tables that have to be readable together: those of a statement, or one. Neither is given: none. */
typedef struct KcfScope
{
	EState *estate;
	Oid relid;
	const PlannedStmt
		*caller; /* whose functions may read from the state, where there is no estate */
} KcfScope;

/* Visit the tables until a visit is false; that one, or InvalidOid. */
typedef bool (*KcfScopeVisit)(Oid relid, void *arg);
extern Oid kcf_scope_visit(const KcfScope *scope, KcfScopeVisit visit, void *arg);
/*
 * Until all can be read, as kafka_cache.when_not_ready says, and have what this session has written to them, or an
 * error. *deadline: 0 at the first call. shared: others will read from the same state, of whatever tables. The
 * database slot, or -1 when no process of ours was ever there (only where nothing has to be read).
 */
extern int kcf_scope_wait(const KcfScope *scope, bool shared, TimestampTz *deadline);
/* Under a pin: can all be read at these sequences? */
extern bool kcf_scope_readable(const KcfScope *scope, const KcfSeq *seqs);
/* The same, ereports. For a state that stands already: waiting would not help. */
extern void kcf_scope_check(const KcfScope *scope, const KcfSeq *seqs);
/*
 * Does a state, taken when kcf_written_now was this, hold what this session has written to these tables? Else an
 * error. fixed: it is its transaction's only one. Call only when kcf_written_any.
 */
extern void kcf_scope_check_written(const KcfScope *scope, uint64 taken, bool fixed);
/* What is there of a table at these sequences; false: nothing that could be read. */
extern bool kcf_relation_view(Oid relid, const KcfSeq *seqs, KcfView *view);

#endif /* KCF_SNAPSHOT_WAIT_H */
