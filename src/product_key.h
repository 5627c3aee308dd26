/*
 * product_key.h
 *		A key as functions of SQL are given it: its parts as text, in the order of the key columns. And as records have
 *		it.
 *
 * Process:  backends and refreshers.
 * Locks:    none.
 * Memory:   CurrentMemoryContext.
 * Errors:   42809 the table is no data product, 22023 another number of parts than there are key columns, 22004 a part that is NULL, and what the types'
 *           input functions raise.
 * Waits:    never.
 */
#ifndef KCF_PRODUCT_KEY_H
#define KCF_PRODUCT_KEY_H

#include "catalog.h"
#include "record.h"

#include "utils/array.h"

/* The table's definition; 42809: it is no data product. */
extern KcfTableDef *kcf_product_def(Oid relid);
/* key: room for KCF_MAX_KEYS. */
extern void kcf_product_key_read(const KcfTableDef *def, ArrayType *parts, Datum *key);
/* Where a key is one part: the table must have one key column only. NULL: the part is NULL. */
extern void kcf_product_key_check_one(const KcfTableDef *def);
extern void kcf_product_key_read_one(const KcfTableDef *def, const char *part, Datum *key);

/* The bytes of the key of a record, as we write them. */
extern KcfSlice kcf_product_key_bytes(KcfTableDef *def, const Datum *key);
/* The inverse; types' functions run as the table's owner. false: these are no key of the table (any more). */
extern bool kcf_product_key_decode(KcfTableDef *def, KcfSlice bytes, Datum *key);
/* Those bytes as text, as changes() shows keys; NULL: they are no key of the table. */
extern char *kcf_product_key_show(KcfTableDef *def, KcfSlice bytes);

#endif /* KCF_PRODUCT_KEY_H */
