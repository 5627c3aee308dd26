/*
 * product_fit.h
 *		A key that a comparison has brought, as the key columns have it.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   CurrentMemoryContext.
 * Errors:   what functions of types and domains raise that has nothing to do with the value.
 * Waits:    never.
 */
#ifndef KCF_PRODUCT_FIT_H
#define KCF_PRODUCT_FIT_H

#include "catalog.h"

/*
 * A condition compares by the type alone: 1.555 with a numeric(6,2), a long text with a varchar(3), -1 with a domain of
 * positive numbers. No row can have such a key, so none is computed: false. Else fitting (room for KCF_MAX_KEYS) gets the
 * values as a row has them, 1.50 for 1.5.
 */
extern bool kcf_product_key_fits(const KcfTableDef *def, const Datum *values, Datum *fitting);

#endif /* KCF_PRODUCT_FIT_H */
