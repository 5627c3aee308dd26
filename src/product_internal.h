/*
 * product_internal.h
 *		Between deciding what is computed (product.c), the records of it (product_keep.c) and what a statement was told
 *		(product_memo.c).
 *
 * Process:  backends and refreshers.
 * Locks:    the registry lock, shared, for a moment.
 * Memory:   CurrentMemoryContext; what decodes and encodes lives with the table's definition.
 * Errors:   as pending.h, and 22023, 23502, 23514 where a result is no row of the table.
 * Waits:    kcf_product_keep.
 */
#ifndef KCF_PRODUCT_INTERNAL_H
#define KCF_PRODUCT_INTERNAL_H

#include "product.h"

#include "registry.h"
#include "sendq.h"

/* What is there of a key in the newest state. */
typedef enum KcfPresence
{
	KCF_ABSENT, /* never computed, or purged */
	KCF_BAD,    /* its newest record could not be decoded */
	KCF_NOTHING,
	KCF_PRESENT
} KcfPresence;

typedef struct KcfNewest
{
	KcfPresence presence;
	int32 partition; /* of the record; -1 where it is absent */
	int64 offset;
	int64 timestamp;
	KcfSlice raw_key; /* as it is spelled there; data NULL: as we spell it */
} KcfNewest;

/* One key of one product. */
typedef struct KcfProductKey
{
	KcfTableDef *def;
	KcfTable *table; /* NULL: no consumer has met it yet */
	Datum values[KCF_MAX_KEYS];
	uint64 hash;
	KcfSlice bytes; /* as we write it */
} KcfProductKey;

extern void kcf_product_key(KcfTableDef *def, const Datum *values, KcfProductKey *key);
/* answer: its columns, where there are some; may be NULL. */
extern void kcf_product_newest(const KcfProductKey *key, KcfNewest *newest, KcfAnswer *answer);
/* Is it good for a statement that began at this time? */
extern bool kcf_product_is_good(const KcfProductKey *key, const KcfNewest *newest,
								TimestampTz since);

/* Has the transaction written nothing but what computations have? Else what it computes is for itself alone. */
extern bool kcf_product_is_clean(void);
/* The row that a record with this document is; what the table cannot take is an error. */
extern void kcf_product_decode(const KcfProductKey *key, const KcfSlice *document, int64 timestamp,
							   KcfAnswer *answer);
/* Where its record has come to lie. */
extern void kcf_product_place(const KcfProductKey *key, KcfAnswer *answer, int32 partition,
							  int64 offset);

typedef enum KcfKeeping
{
	KCF_KEEP_OWN,    /* the session's own write: errors, and the session waits to see it */
	KCF_KEEP_SURELY, /* a computed row: errors */
	KCF_KEEP_GLADLY  /* a computed row: nothing but a warning */
} KcfKeeping;

/*
 * Send a record of the key (newest: what is there of it) and wait for the cache to pass it. false: it could not be
 * kept. *passed: the cache has it.
 */
extern bool kcf_product_keep(const KcfProductKey *key, const KcfNewest *newest, Oid userid,
							 const KcfSlice *document, int64 timestamp, KcfKeeping keeping,
							 KcfWritten *written, bool *passed);
/* Would it be in vain to try? Kafka has not been there a moment ago. */
extern bool kcf_product_keeps_nothing(const KcfProductKey *key);
/* A WARNING that a row was not kept, once for a statement and a table. why: a sentence. */
extern void kcf_product_warn(const KcfProductKey *key, const char *why);

#endif /* KCF_PRODUCT_INTERNAL_H */
