/*
 * rowmap.h
 *		Record to row: from bytes to the Datums of a table's columns.
 *
 * Process:  consumer, in a transaction, as the table's owner (the caller switches).
 * Locks:    none.
 * Memory:   Datums in CurrentMemoryContext, which the caller resets per record or small batch; or pointing into the record.
 * Errors:   what our code finds is returned as a reason; what PostgreSQL's functions raise propagates by
 *           ereport and is turned into a reason by kcf_rowmap_classify.
 * Waits:    never.
 */
#ifndef KCF_ROWMAP_H
#define KCF_ROWMAP_H

#include "catalog.h"
#include "record.h"

/* The reasons of kafka_cache.errors, in the order of their names there. */
typedef enum KcfReason
{
	KCF_OK = 0,
	KCF_REASON_ENCODING,
	KCF_REASON_JSON,
	KCF_REASON_JSON_SHAPE,
	KCF_REASON_CONVERT,
	KCF_REASON_RANGE,
	KCF_REASON_NOT_NULL,
	KCF_REASON_CHECK,
	KCF_REASON_KEY,
	KCF_REASON_KEY_MISMATCH,
	KCF_REASON_NULL_KEY,
	KCF_REASON_TOO_LARGE,
	KCF_REASON_HEADERS,
	KCF_NREASONS
} KcfReason;

typedef struct KcfRowmap KcfRowmap;

/* What went wrong: column 0 when it is not about one. message never contains data of the record. */
typedef struct KcfFault
{
	KcfReason	reason;
	AttrNumber	column;
	char		message[160];
} KcfFault;

typedef struct KcfDecodedKey
{
	Datum		values[KCF_MAX_KEYS];
	uint64		hash;
	bool		canonical; /* the raw bytes are what we would write for this key */
} KcfDecodedKey;

extern KcfRowmap *kcf_rowmap_create(KcfTableDef *def, MemoryContext mcxt);
extern bool kcf_rowmap_wants_headers(const KcfRowmap *map);
extern void kcf_rowmap_free(KcfRowmap *map);
/* Key columns and their hash. */
extern KcfReason kcf_rowmap_key(KcfRowmap *map, const KcfRecord *rec, KcfDecodedKey *key, KcfFault *fault);
/* All columns of the row ([desc->natts]), NOT NULL and CHECK enforced; rec->value is not null. */
extern KcfReason kcf_rowmap_row(KcfRowmap *map, const KcfRecord *rec, const KcfDecodedKey *key, Datum *values,
								bool *isnull, KcfFault *fault);
/* An error caught around one of the two calls above. false: not the record's fault, rethrow. */
extern bool kcf_rowmap_classify(KcfRowmap *map, const ErrorData *edata, KcfFault *fault);
extern const char *kcf_reason_name(KcfReason reason);

#endif /* KCF_ROWMAP_H */
