/*
 * catalog.h
 *		Which foreign tables of this database are ours, and what each of them is.
 *
 * Process:  consumers and backends (in a transaction).
 * Locks:    AccessShareLock on relations, released at once.
 * Memory:   a definition owns a memory context of its own, child of the one given.
 * Errors:   ereport; kcf_catalog_table names what is wrong with the table.
 * Waits:    backends on relation locks; a worker gets 55P03 instead and tries again later.
 */
#ifndef KCF_CATALOG_H
#define KCF_CATALOG_H

#include "keytype.h"
#include "options.h"

typedef struct KcfTableDef
{
	MemoryContext mcxt;
	Oid relid;
	Oid serverid;
	Oid owner;
	char *name;     /* schema-qualified, for logs */
	TupleDesc desc; /* with constraints */
	KcfTableOptions *options;
	KcfColumnOptions *columns; /* [desc->natts] */
	KcfKeyType key;
	/*
	 * Hash of all that decides what the rows are: columns and their types (composite types down to their
	 * attributes), NOT NULL and CHECK, topic, formats, on_error, brokers. A reader trusts stored tuples
	 * only when this is equal to its own.
	 */
	uint64 fingerprint;
	/* Hash of all that decides how a client is built (server and mapping options), passwords too. */
	uint64 client_fingerprint;
	struct KcfProduct *product; /* what kcf_catalog_product has found, NULL: nobody has asked yet */
	struct KcfProductCodec *product_codec; /* product_keep.c's own; NULL: not needed yet */
} KcfTableDef;

/* OIDs of our foreign tables in this database (partitions included); NIL when the extension is absent. */
extern List *kcf_catalog_tables(void);
extern bool kcf_catalog_has_extension(void);
extern bool kcf_catalog_is_ours(Oid relid);
/* A fresh definition; ereports 42P01 etc. when it is not there or broken. */
extern KcfTableDef *kcf_catalog_table(Oid relid, MemoryContext parent);
extern void kcf_catalog_free(KcfTableDef *def);
/* The same checks, for CREATE and ALTER to refuse what cannot work. */
extern void kcf_catalog_check_table(Oid relid);

/*
 * Backend-local cache of definitions, thrown away by invalidations (relation, type, server, mapping,
 * foreign table). The result is valid until the end of the transaction.
 */
extern KcfTableDef *kcf_catalog_cached(Oid relid);
/* Consumers: counts up at each invalidation that may concern us; compare to notice changes. */
extern uint64 kcf_catalog_changes(void);

#endif /* KCF_CATALOG_H */
