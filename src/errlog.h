/*
 * errlog.h
 *		The bad records of one cached table: newest of each key, until a good record or a tombstone
 *		heals it.
 *
 * Process:  the consumer writes, any backend reads.
 * Locks:    an LWLock of its own (tranche kafka_cache_errors); readers copy under it.
 * Memory:   arena, charged to the table; bounded by kafka_cache.max_errors. No value and no key of
 *           a record is kept, only a 128-bit hash of the key's identity.
 * Errors:   none; beyond the bound only the counters go on.
 * Waits:    on its lock, briefly.
 */
#ifndef KCF_ERRLOG_H
#define KCF_ERRLOG_H

#include "registry.h"

typedef struct KcfErrorLog KcfErrorLog;

extern Size kcf_errlog_shmem_size(void);
extern void kcf_errlog_shmem_init(void);

typedef struct KcfErrorEntry
{
	uint64 identity[2]; /* of the decoded key, or of the raw bytes where it cannot be decoded; 0,0:
						   none */
	int64 offset;
	int64 timestamp;
	TimestampTz noticed_at;
	int32 partition;
	int16 column; /* attribute number, 0: none */
	int16 reason; /* KcfReason of rowmap.h */
	bool bad_key; /* identity is that of raw bytes, or none */
	char text[160];
} KcfErrorEntry;

extern KcfErrorLog *kcf_errlog_create(KcfAccount *account); /* NULL: no memory */
extern void kcf_errlog_destroy(KcfErrorLog *log, KcfAccount *account);
extern void kcf_errlog_clear(KcfErrorLog *log);
/* false: not listed, the bound is reached */
extern bool kcf_errlog_add(KcfErrorLog *log, const KcfErrorEntry *entry);
/* Cheap when the log is empty. true: an entry was healed */
extern bool kcf_errlog_heal(KcfErrorLog *log, const uint64 identity[2]);
extern int kcf_errlog_count(const KcfErrorLog *log);
/* Copy all entries, if there is room for so many; how many they are. */
extern int kcf_errlog_read(KcfErrorLog *log, KcfErrorEntry *entries, int room);

#endif /* KCF_ERRLOG_H */
