/*
 * rowmap_write.h
 *		Row to record: key, value and headers from the Datums of a table's columns.
 *
 * Process:  backends, in a statement.
 * Locks:    none.
 * Memory:   a record's key and value are the writer's until its next call, or point into the row or the document; the
 *           rest of it, and what is needed on the way, is in CurrentMemoryContext: reset it per row.
 * Errors:   ereport: 23502 a NULL key, 22023 what JSON cannot say (NaN, infinities, JSON null, arrays that begin
 *           elsewhere than at 1), 22P02 a document that is no JSON, 54000 beyond a palloc, 428C9 an offset given.
 * Waits:    never.
 *
 * What is written is what our own decoding takes for the same row, whatever the session's settings are. Of several
 * columns with one path, the first that is written says what the member is.
 */
#ifndef KCF_ROWMAP_WRITE_H
#define KCF_ROWMAP_WRITE_H

#include "catalog.h"
#include "nodes/bitmapset.h"
#include "record.h"

typedef struct KcfRowWriter KcfRowWriter;

extern KcfRowWriter *kcf_row_writer_create(KcfTableDef *def, MemoryContext mcxt);

/*
 * A row that is put: rec gets key, value, headers, timestamp and partition (-1 where no column says it). A value
 * column that is not NULL is the document, and the other columns override its members where they are not NULL.
 */
extern void kcf_row_write(KcfRowWriter *writer, const Datum *values, const bool *isnull,
						  KcfRecord *rec);
/*
 * A row that replaces another: document is the old value's bytes, or the new one's where the value column is among
 * the changed ones; members of columns that are not changed stay as they are, byte for byte; one that is changed to
 * NULL goes. The time and the partition are set where they are changed, headers are those of the row. changed: attribute numbers offset by FirstLowInvalidHeapAttributeNumber. The key is not touched: the
 * caller sets rec->key.
 */
extern void kcf_row_rewrite(KcfRowWriter *writer, const KcfSlice *document, const Datum *values,
							const bool *isnull, const Bitmapset *changed, KcfRecord *rec);
/* The old value's bytes from the value column of its row; false: the table has none, or it is NULL. */
extern bool kcf_row_document(KcfRowWriter *writer, const Datum *values, const bool *isnull,
							 KcfSlice *document);
/* The key alone, as we write it. values and isnull as for a row. */
extern void kcf_row_write_key(KcfRowWriter *writer, const Datum *values, const bool *isnull,
							  KcfSlice *key);
/* Values of the key columns in their order, to its hash. */
extern uint64 kcf_row_key_hash(KcfRowWriter *writer, const Datum *values);

#endif /* KCF_ROWMAP_WRITE_H */
