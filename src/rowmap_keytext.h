/*
 * rowmap_keytext.h
 *		A key as text, for those who are told of it.
 *
 * Process:  backends, and consumers (in a transaction).
 * Locks:    none.
 * Memory:   the result is in CurrentMemoryContext, and what is needed on the way.
 * Errors:   what output functions of types raise; 54000 beyond a palloc.
 * Waits:    never.
 *
 * What is printed depends on the value alone, not on the session's settings.
 */
#ifndef KCF_ROWMAP_KEYTEXT_H
#define KCF_ROWMAP_KEYTEXT_H

#include "rowmap_write.h"

/*
 * Values of the key columns in their order, in the server's encoding. One column: what its type prints. Several: the
 * compact JSON object that key_format 'json' writes; what JSON cannot say is a string in it.
 */
extern char *kcf_key_text(KcfRowWriter *writer, const Datum *key);
/* The same of a stored row, a tombstone too. */
extern char *kcf_tuple_key_text(KcfRowWriter *writer, HeapTupleHeader tuple, uint32 tuple_len);

#endif /* KCF_ROWMAP_KEYTEXT_H */
