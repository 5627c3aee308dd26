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
#include "utils/jsonb.h"

/*
 * Refresher, in the transaction that refreshes this key: what asked for it up to this row is settled, as far as it was
 * committed when it began to compute (kcf_refresh_log_seen, palloc'd, before that). When the transaction fails, it is
 * not.
 */
extern char *kcf_refresh_log_seen(void);
extern void kcf_refresh_log_settle(Oid relid, KcfSlice key, int64 logged, const char *seen);

/*
 * The rest: within an SPI connection, as the extension's owner and with "pg_catalog" as search path. A request; key
 * NULL: all that is cached.
 */
extern void kcf_refresh_log_add(Oid relid, const KcfSlice *key, Jsonb *hints);

typedef struct KcfLogged
{
	int64 id;
	Oid product;
	KcfSlice key; /* data NULL: all that is cached */
	Jsonb *hints; /* or NULL */
} KcfLogged;

/*
 * Those that were committed after the reading that has returned this snapshot, under the active one; what it returns is
 * for the next (palloc'd where we were called). NULL: all there are. The receiver says whether to go on; when it does
 * not, NULL is returned.
 */
typedef bool (*KcfLoggedReceiver)(void *arg, const KcfLogged *logged);
extern char *kcf_refresh_log_read(const char *snapshot, KcfLoggedReceiver receiver, void *arg);
/* These are settled, and nothing else. */
extern void kcf_refresh_log_settle_one(int64 id);

#endif /* KCF_REFRESH_LOG_H */
