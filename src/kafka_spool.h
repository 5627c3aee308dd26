/*
 * kafka_spool.h
 *		Records between the Kafka library and the cache: copied together, in order of arrival.
 *
 * Process:  one consumer worker, on its own.
 * Locks:    none.
 * Memory:   a memory context of its own; chunks are reused, and given back when the spool runs
 *           empty.
 * Errors:   kcf_spool_add returns NULL when there is no memory; nothing throws.
 * Waits:    never.
 *
 * Why copy: the library keeps some 350 bytes beside every record and a reference to the whole fetch
 * response, and it cannot be shut down while one record is held. Copied, a second's worth of
 * loading fits in a few hundred megabytes, lies in the order in which it is decoded, and may be
 * kept while the client comes and goes. And the library's own queue stays short, which is what
 * keeps it fetching: past its limit it stops for a second.
 */
#ifndef KCF_KAFKA_SPOOL_H
#define KCF_KAFKA_SPOOL_H

#include "record.h"

typedef enum KcfSpoolKind
{
	KCF_SPOOL_RECORD,
	KCF_SPOOL_TOO_LARGE, /* a record over the limit: no bytes, value.len tells its size, key where
							it was small */
	KCF_SPOOL_EOF,       /* the end of the partition is record.offset, for now */
	KCF_SPOOL_FAULT      /* the partition has an error; record.value is its text */
} KcfSpoolKind;

typedef struct KcfSpooled
{
	KcfRecord record;
	uint32 size;  /* of the whole, in its chunk */
	uint16 epoch; /* of the partition's start, see kcf_kafka_current */
	uint8 kind;   /* KcfSpoolKind */
	uint8 error;  /* KCF_SPOOL_FAULT: KcfKafkaError */
} KcfSpooled;

typedef struct KcfSpool KcfSpool;

extern KcfSpool *kcf_spool_create(MemoryContext parent);
extern void kcf_spool_destroy(KcfSpool *spool);
extern void kcf_spool_clear(KcfSpool *spool);
/* Now and then while there is nothing to do: gives memory back when it is empty. */
extern void kcf_spool_trim(KcfSpool *spool);
/* Room at the end for one of this many bytes beyond the struct, its size set and the rest zeroed.
 * NULL: no memory */
extern KcfSpooled *kcf_spool_add(KcfSpool *spool, Size extra);
/* Bytes that lie in it. */
extern Size kcf_spool_bytes(const KcfSpool *spool);
/*
 * The next ones from the front, without taking them: at most max, and no more than about max_bytes
 * together (but at least one). Number of them; they stay where they are until consumed.
 */
extern int kcf_spool_peek(KcfSpool *spool, KcfSpooled **out, int max, Size max_bytes);
/* The first n are done with. */
extern void kcf_spool_consume(KcfSpool *spool, int n);

static inline bool
kcf_spool_empty(const KcfSpool *spool)
{
	return kcf_spool_bytes(spool) == 0;
}

#endif /* KCF_KAFKA_SPOOL_H */
