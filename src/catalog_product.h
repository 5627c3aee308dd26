/*
 * catalog_product.h
 *		What makes a table a data product: the function behind it, and what its result is to the columns.
 *
 * Process:  backends and refreshers, in a transaction.
 * Locks:    AccessShareLock on what the domain's query reads, when a definition is checked.
 * Memory:   a product lives with the definition it belongs to.
 * Errors:   42883, 42704, 42P01 what is not there, 42P17 and HV024 what does not fit, 42501 EXECUTE.
 * Waits:    on relation locks, when a definition is checked.
 */
#ifndef KCF_CATALOG_PRODUCT_H
#define KCF_CATALOG_PRODUCT_H

#include "catalog.h"

/* Names in options and in functions called for a product are looked up here, whoever asks. */
#define KCF_PRODUCT_SEARCH_PATH "pg_catalog, pg_temp"

typedef enum KcfProductShape
{
	KCF_SHAPE_SET,   /* rows: a JSON array in the value column */
	KCF_SHAPE_ROW,   /* one row: mapped columns, and the value column for the rest */
	KCF_SHAPE_SCALAR /* one value: the document */
} KcfProductShape;

/* A column of the function's result. */
typedef struct KcfProductField
{
	char *name;
	Oid type;
	AttrNumber column; /* of the table, which it fills; 0: a member of the document */
} KcfProductField;

typedef struct KcfProduct
{
	Oid function;
	char *function_name; /* with its schema and its arguments' types, for messages */
	KcfProductShape shape;
	bool bare;       /* a set of values without a name: no objects around them */
	bool of_members; /* columns are members of the document: it is an object, or null */
	bool reads_only; /* the function is STABLE or IMMUTABLE */
	int nfields;
	KcfProductField *fields;
	char *call; /* the query whose rows are the result; its parameters are the key columns */

	Oid augment; /* InvalidOid: there is none */
	char *augment_name;
	char *augment_call; /* parameters: the key columns, the old value and the hints, both jsonb */
	bool augment_reads_only;

	struct KcfProductRun *run; /* of product_compute.c: what is prepared; NULL: nothing yet */
} KcfProduct;

#define kcf_is_product(def) ((def)->options->compute != NULL)

/* Resolved and checked; kept in the definition. */
extern KcfProduct *kcf_catalog_product(KcfTableDef *def);
/* ... and what is looked at when the table is defined only: rights, and the domain's query. */
extern void kcf_catalog_check_product(KcfTableDef *def);

/*
 * The settings on which the meaning of options and the result of functions depend, until kcf_product_settings_restore
 * gets what this returns; an error restores them too.
 */
extern int kcf_product_settings_fix(void);
extern void kcf_product_settings_restore(int level);

/*
 * For an error callback's list while a query of a product is parsed: positions are those of that query, not of what
 * the user has sent.
 */
extern void kcf_product_query_position(const char *query);

#endif /* KCF_CATALOG_PRODUCT_H */
