/*
 * catalog_internal.h
 *		What the files of the catalog share.
 *
 * Process:  as catalog.h.
 * Locks:    none beyond those of catalog lookups.
 * Memory:   CurrentMemoryContext for what is built, the backend's life for what is watched.
 * Errors:   ereport.
 * Waits:    never.
 */
#ifndef KCF_CATALOG_INTERNAL_H
#define KCF_CATALOG_INTERNAL_H

#include "catalog.h"
#include "foreign/foreign.h"

/* catalog.c: from now on a change of it counts. A relation is a table of ours or the composite type of a column. */
extern void kcf_catalog_watch_relation(Oid relid, bool is_table);
/* A row of the catalog behind this cache, by OID. */
extern void kcf_catalog_watch_row(int cacheid, Oid oid);
/* InvalidOid: not a foreign table */
extern Oid kcf_catalog_server(Oid relid);

/* catalog_fingerprint.c */
extern uint64 kcf_catalog_row_fingerprint(KcfTableDef *def, ForeignServer *server);
extern uint64 kcf_catalog_client_fingerprint(KcfTableDef *def, ForeignServer *server);

#endif /* KCF_CATALOG_INTERNAL_H */
