/*
 * product_key.h
 *		A key as functions of SQL are given it: its parts as text, in the order of the key columns.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   CurrentMemoryContext.
 * Errors:   22023 another number of parts than there are key columns, 22004 a part that is NULL, and what the types'
 *           input functions raise.
 * Waits:    never.
 */
#ifndef KCF_PRODUCT_KEY_H
#define KCF_PRODUCT_KEY_H

#include "catalog.h"

#include "utils/array.h"

/* key: room for KCF_MAX_KEYS. */
extern void kcf_product_key_read(const KcfTableDef *def, ArrayType *parts, Datum *key);
/* Of a key of one column; NULL: the part is NULL. */
extern void kcf_product_key_read_one(const KcfTableDef *def, const char *part, Datum *key);

#endif /* KCF_PRODUCT_KEY_H */
