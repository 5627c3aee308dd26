/*
 * changes.h
 *		What a store tells of a position: the keys that were changed or deleted since.
 *
 * Process:  backends under a pin, and the consumer of the table.
 * Locks:    kcf_changes_complete: the registry lock, shared, for a moment.
 * Memory:   CurrentMemoryContext, while it runs; some bytes for each changed key that was met in several partitions.
 * Errors:   none of its own; the receiver may throw.
 * Waits:    never; interruptible.
 */
#ifndef KCF_CHANGES_H
#define KCF_CHANGES_H

#include "registry.h"

/* A position, as offsets after the last record known, by partition. */
typedef struct KcfSince
{
	int n;
	int64 *next; /* -1: this partition is not asked for, and so are those from n on */
} KcfSince;

/* Of a key, the row that a reader finds now; a KCF_ROW_TOMBSTONE has only its key. */
typedef void (*KcfChangeReceiver)(void *arg, const KcfRow *row);

/*
 * Are all deletions since then remembered by what is served? Deletions are forgotten in the order of sequences, so
 * who asks after pinning a state of the served store may trust a yes for that state.
 */
extern bool kcf_changes_complete(KcfTable *table, const KcfSince *since);
/*
 * Each key once, in no order, of which a record at or after since was applied at seq. Under a pin of seq, or by the
 * consumer. Keys may be among them whose row is the same as before, never the other way round.
 */
extern void kcf_changes_scan(const KcfStore *store, KcfSeq seq, const KcfSince *since,
							 KcfChangeReceiver receiver, void *arg);

#endif /* KCF_CHANGES_H */
