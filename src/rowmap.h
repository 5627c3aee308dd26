/*
 * rowmap.h
 *		Record to row: from bytes to the Datums of a table's columns.
 *
 * Process:  consumer, in a transaction, as the table's owner (the caller switches).
 * Locks:    none.
 * Memory:   Datums in CurrentMemoryContext, or pointing into the record; the caller resets it per batch.
 * Errors:   what our code finds is a reason; what PostgreSQL's functions raise propagates by ereport
 *           and is turned into a reason by kcf_rowmap_classify.
 * Waits:    never.
 */
#ifndef KCF_ROWMAP_H
#define KCF_ROWMAP_H

#include "catalog.h"
#include "codec.h"
#include "record.h"

typedef struct KcfRowmap KcfRowmap;

typedef struct KcfDecodedKey
{
	Datum values[KCF_MAX_KEYS];
	uint64 hash;
	bool canonical; /* the raw bytes are what we would write for this key */
} KcfDecodedKey;

extern KcfRowmap *kcf_rowmap_create(KcfTableDef *def, MemoryContext mcxt);
extern bool kcf_rowmap_wants_headers(const KcfRowmap *map);
extern void kcf_rowmap_free(KcfRowmap *map);
/* Key columns and their hash. */
extern KcfReason kcf_rowmap_key(KcfRowmap *map, const KcfRecord *rec, KcfDecodedKey *key,
								KcfFault *fault);
/*
 * All columns of the row ([desc->natts]), NOT NULL and CHECK enforced; rec->value is not null. Of a record that is
 * not in the topic yet partition, offset and time are what they are, or negative: then they are NULL.
 */
extern KcfReason kcf_rowmap_row(KcfRowmap *map, const KcfRecord *rec, const KcfDecodedKey *key,
								Datum *values, bool *isnull, KcfFault *fault);
/* Is this the JSON document null? */
extern bool kcf_document_is_null(const KcfSlice *document);
/* A record's time; false: it has none, or PostgreSQL has no such time. */
extern bool kcf_rowmap_time(int64 millis, Datum *value);
/* An error caught around one of the two calls above. false: not the record's fault, rethrow. */
extern bool kcf_rowmap_classify(KcfRowmap *map, const ErrorData *edata, KcfFault *fault);

#endif /* KCF_ROWMAP_H */
