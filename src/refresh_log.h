/*
 * refresh_log.h
 *		Requests for refreshes that are a part of the transaction which made them necessary: kafka_cache.refresh_log.
 *
 * Process:  backends write, the coordinator reads, refreshers delete; each in a transaction of its own.
 * Locks:    RowExclusiveLock on the table.
 * Memory:   CurrentMemoryContext.
 * Errors:   ereport.
 * Waits:    never for each other: rows are only added, and deleted by who holds the key's claim.
 */
#ifndef KCF_REFRESH_LOG_H
#define KCF_REFRESH_LOG_H

#include "record.h"

/*
 * Refresher, in the transaction that refreshes this key and before it computes: what asked for it up to this row is
 * settled. When the transaction fails, it is not.
 */
extern void kcf_refresh_log_settle(Oid relid, KcfSlice key, int64 logged);

#endif /* KCF_REFRESH_LOG_H */
