/*
 * product_compute.h
 *		Running a product's function for one key: the document that its record is to have.
 *
 * Process:  backends and refreshers, in a transaction.
 * Locks:    what the function takes.
 * Memory:   the document in CurrentMemoryContext; a prepared plan for each product lives with its definition.
 * Errors:   what the function raises, with a line of context that has no data; 42P19 a product that needs itself,
 *           54001 products nested too deeply, 22023 what JSON cannot say, 54000 beyond a palloc.
 * Waits:    as long as the function does.
 */
#ifndef KCF_PRODUCT_COMPUTE_H
#define KCF_PRODUCT_COMPUTE_H

#include "catalog_product.h"
#include "record.h"

/* Products whose functions read products, and so on. */
#define KCF_PRODUCT_MAX_DEPTH 16

/*
 * The function's result for this key as JSON in UTF-8; "null" for nothing (kcf_document_is_null). Computed as the table's owner, with a
 * snapshot of now, in UTC and with the search path KCF_PRODUCT_SEARCH_PATH. key: values of the key columns in their
 * order.
 */
extern KcfSlice kcf_product_compute(KcfTableDef *def, const Datum *key);

/* The same by the function of the option augment: from the old document and the hints, both jsonb. */
extern KcfSlice kcf_product_augment(KcfTableDef *def, const Datum *key, Datum old, Datum hints);

#endif /* KCF_PRODUCT_COMPUTE_H */
