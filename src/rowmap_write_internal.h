/*
 * rowmap_write_internal.h
 *		What the files of writing rows share: the members of a document and who writes them.
 *
 * Process:  see rowmap_write.h.
 * Locks:    none.
 * Memory:   see rowmap_write.h.
 * Errors:   see rowmap_write.h.
 * Waits:    never.
 */
#ifndef KCF_ROWMAP_WRITE_INTERNAL_H
#define KCF_ROWMAP_WRITE_INTERNAL_H

#include "compat.h"
#include "rowmap_internal.h"
#include "rowmap_write.h"

typedef struct KcfMember KcfMember;

/* A column that is a member of the document. */
typedef struct KcfMemberColumn
{
	int column; /* its index in the row */
	KcfPrinter *printer;
	KcfMember *member;
	const char *tail; /* as KcfJsonPath has it */
	bool is_array;    /* the path has a [] */
	KcfMember *split; /* of whose array each element has one of the value's; NULL: none */
	KcfConverter *conv;

	/* of the row at hand, where split */
	uint64 printed; /* row for which text and elems are */
	StringInfoData text;
	KcfJsonSlice *elems;
	int nelems;
	int room;
	int at; /* the element to be written */
} KcfMemberColumn;

/*
 * The document as a tree of names, members in the order of the columns. A member may be a value of a column itself and
 * have members that are others': then these override what the column says.
 */
struct KcfMember
{
	const char *name; /* UTF-8 */
	int name_len;
	const char *quoted; /* ,"name": */
	int quoted_len;
	KcfMember *parent;
	int ncolumns;
	KcfMemberColumn **columns;
	int nchildren;
	KcfMember **children;
	KcfMember **sorted; /* the same by name */
	KcfMember *element; /* what each element of an array is, of paths with [] */
	int npassing;       /* columns below the element */
	KcfMemberColumn **passing;

	uint64 changed;   /* row for which something at it or below it changes */
	uint64 taken;     /* ... to something that is not NULL */
	const char *last; /* in the object at hand: the last value of this name */
};

/* A column that is no member. */
typedef struct KcfMetaColumns
{
	int value; /* indexes in the row, -1: there is none */
	int partition;
	int offset;
	int timestamp;
	int headers;
} KcfMetaColumns;

struct KcfRowWriter
{
	MemoryContext mcxt;
	KcfTableDef *def;
	KcfKeyWriter *keys;
	KcfMetaColumns meta;
	KcfPrinter *value_printer; /* format text */
	int ncolumns;
	KcfMemberColumn *columns; /* the members */
	KcfMember root;
	bool flat; /* every member is one column's, and that is all */
	int key_settings;
	int value_settings;
	StringInfoData key;
	StringInfoData value;

	/* of the row at hand */
	uint64 row;
	const Datum *values;
	const bool *isnull;
	const bool *changed; /* NULL: what is not NULL */
	bool *changes;       /* room for it */
	bool new_document;   /* which columns that do not change know nothing of */
	int column;          /* for messages; -1: none */
};

/* Is this column to be written at all: to its value, or (where it is NULL) away? */
static inline bool
kcf_column_changes(const KcfRowWriter *writer, const KcfMemberColumn *column)
{
	return writer->changed != NULL ? writer->changed[column->column]
								   : !writer->isnull[column->column];
}

/* ---- rowmap_members.c ---- */

extern void kcf_member_add(KcfMember *root, KcfMemberColumn *column, const char *path, bool plain);
/* When all are added. */
extern void kcf_member_sort(KcfMember *member);
extern int kcf_member_compare(const char *name, int len, const KcfMember *member);
/* A new row: which members does it change? */
extern void kcf_member_mark(KcfRowWriter *writer);
extern bool kcf_children_change(const KcfRowWriter *writer, const KcfMember *member);
extern bool kcf_element_changes(const KcfRowWriter *writer, const KcfMember *member);
/* Append the member's value from the columns that change; false: there is nothing to say. */
extern bool kcf_member_write(KcfRowWriter *writer, KcfMember *member, StringInfo out);
/* The members of an object, without braces. *first: nothing stands before them. */
extern void kcf_member_write_children(KcfRowWriter *writer, KcfMember *member, bool *first,
									  StringInfo out);

/* Of columns that are split: the value's elements, in JSON. */
extern void kcf_column_print(KcfRowWriter *writer, KcfMemberColumn *column);
extern bool kcf_column_slices(KcfMemberColumn *column, const char *json, int len);
pg_noreturn extern void kcf_lengths_differ(const KcfRowWriter *writer, const KcfMemberColumn *a,
										   const KcfMemberColumn *b);
/* Turn to one of the elements of this member's array; write it anew. */
extern void kcf_element_set(KcfMember *member, int at);
extern void kcf_element_write(KcfRowWriter *writer, KcfMember *member, int at, StringInfo out);

/* ---- rowmap_splice.c ---- */

/*
 * Append a value of a document that has been judged, with the changes of the member's members. false: nothing is left
 * of it.
 */
extern bool kcf_splice(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old,
					   StringInfo out);

/* ---- rowmap_headers.c ---- */

/* The inverse of what the headers column shows. */
extern void kcf_headers_write(Datum headers, KcfRecord *rec);

#endif /* KCF_ROWMAP_WRITE_INTERNAL_H */
