/*
 * rowmap_internal.h
 *		What the two halves of the row map share: the value's columns and the key's.
 *
 * Process:  consumer.
 * Locks:    none.
 * Memory:   see rowmap.h.
 * Errors:   see rowmap.h.
 * Waits:    never.
 */
#ifndef KCF_ROWMAP_INTERNAL_H
#define KCF_ROWMAP_INTERNAL_H

#include "codec_write.h"
#include "rowmap.h"

#include "lib/stringinfo.h"
#include "nodes/execnodes.h"

typedef struct KcfColumn
{
	KcfColumnKind kind;
	bool not_null;
	int slot; /* of the document, -1: none */
	int key;  /* index among the key columns */
	const char *tail;
	KcfConverter *conv; /* NULL: dropped */
} KcfColumn;

typedef struct KcfCheck
{
	const char *name;
	ExprState *state;
} KcfCheck;

/* How a key column's value is written, and whether everybody would write it so. */
typedef enum KcfKeySpelling
{
	KCF_SPELLING_TEXT, /* as it is */
	KCF_SPELLING_INTEGER,
	KCF_SPELLING_UUID,
	KCF_SPELLING_OUTPUT,  /* by the output function, which heeds no setting */
	KCF_SPELLING_DOUBTFUL /* by one that does, or may */
} KcfKeySpelling;

typedef struct KcfKeyWriter
{
	KcfKeySpelling spelling;
	bool certain_in_json;
	KcfPrinter *printer;
	const char *name; /* "name": as JSON has it, in UTF-8 */
	int name_len;
} KcfKeyWriter;

struct KcfRowmap
{
	MemoryContext mcxt;
	KcfTableDef *def;
	KcfColumn *columns; /* [natts] */
	bool wants_headers;
	bool wants_object; /* some column is a member of the document */
	KcfJsonPaths *paths;
	KcfJsonSlice *slots;

	KcfJsonPaths *key_paths; /* key_format json */
	KcfJsonSlice *key_slots;
	KcfJsonPath *key_members;  /* [nkeys] */
	KcfKeyWriter *key_writers; /* [nkeys] */
	StringInfoData key_text;   /* what we would write */

	int nchecks;
	KcfCheck *checks;
	ExprContext *econtext;
	TupleTableSlot *slot;

	/* where we are, for kcf_rowmap_classify */
	bool in_key;
	AttrNumber column;
	const char *check;
};

extern KcfJsonPaths *kcf_rowmap_paths(KcfJsonPath *paths, int npaths, KcfJsonSlice **slots);
extern KcfReason kcf_rowmap_fault(KcfFault *fault, KcfReason reason, AttrNumber column,
								  const char *format, ...) pg_attribute_printf(4, 5);
extern KcfReason kcf_rowmap_convert_fault(KcfFault *fault, KcfReason reason, AttrNumber column,
										  const KcfConverter *conv);
extern KcfReason kcf_rowmap_json_fault(KcfFault *fault, KcfJsonStatus status, const KcfSlice *bytes,
									   size_t at);

/* Of the headers of one record, together: with more it is a bad record. */
#define KCF_MAX_HEADERS 1000
#define KCF_MAX_HEADER_BYTES (1024 * 1024)

/* A column's path as the scanner wants it: in UTF-8. */
extern const char *kcf_rowmap_utf8(const char *path);

/* rowmap_key.c */
extern void kcf_rowmap_create_key(KcfRowmap *map);
/* What the key columns' values are as a record's key, appended: the one spelling that we write. */
extern KcfKeyWriter *kcf_key_writers_create(const KcfTableDef *def);
extern void kcf_key_print(const KcfTableDef *def, const KcfKeyWriter *writers, const Datum *values,
						  StringInfo buf);

#endif /* KCF_ROWMAP_INTERNAL_H */
