/*
 * rowmap_members.c
 *		The document of a row as a tree of members, and writing it anew.
 *
 * Columns whose paths share names share objects: user.id and user.name are members of one user, which lies where the
 * first of them does. Columns with a path through [] share the elements of one array, so their values have to be of
 * one length. What is NULL is left out, and so is an object of which nothing is left.
 */
#include "postgres.h"

#include "rowmap_write_internal.h"

#include "compat.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* ---- the tree ---- */

static KcfMember *
new_member(KcfMember *parent, const char *name, int len)
{
	KcfMember *member = palloc0(sizeof(KcfMember));
	StringInfoData quoted;

	member->parent = parent;
	if (name == NULL)
		return member;
	member->name = name;
	member->name_len = len;
	initStringInfo(&quoted);
	appendStringInfoChar(&quoted, ',');
	kcf_print_utf8_string(name, len, &quoted);
	appendStringInfoChar(&quoted, ':');
	member->quoted = quoted.data;
	member->quoted_len = quoted.len;
	return member;
}

static KcfMember *
child_of(KcfMember *member, const char *name, int len)
{
	KcfMember *child;

	for (int i = 0; i < member->nchildren; i++)
	{
		child = member->children[i];
		if (child->name_len == len && memcmp(child->name, name, len) == 0)
			return child;
	}
	child = new_member(member, name, len);
	if (member->children == NULL)
		member->children = palloc(sizeof(KcfMember *));
	else
		member->children =
			repalloc(member->children, sizeof(KcfMember *) * (member->nchildren + 1));
	member->children[member->nchildren++] = child;
	return child;
}

static void
add_column(KcfMemberColumn ***columns, int *n, KcfMemberColumn *column)
{
	if (*n == 0)
		*columns = palloc(sizeof(KcfMemberColumn *));
	else
		*columns = repalloc(*columns, sizeof(KcfMemberColumn *) * (*n + 1));
	(*columns)[(*n)++] = column;
}

/* Follow a column's path, which options and row map have found to be good: it has one [] at most. */
void
kcf_member_add(KcfMember *root, KcfMemberColumn *column, const char *path, bool plain)
{
	KcfMember *member = root;
	const char *p = kcf_rowmap_utf8(path);

	if (plain)
		member = child_of(member, p, (int) strlen(p));
	while (!plain && *p != '\0')
	{
		int len = (int) strcspn(p, ".[");

		member = child_of(member, p, len);
		p += len;
		if (*p == '[')
		{
			p += 2;
			if (*p == '.')
				p++;
			column->is_array = true;
			column->tail = p;
			if (*p != '\0')
			{
				if (member->element == NULL)
					member->element = new_member(member, NULL, 0);
				add_column(&member->passing, &member->npassing, column);
				column->split = member;
				member = member->element;
			}
		}
		else if (*p == '.')
			p++;
	}
	add_column(&member->columns, &member->ncolumns, column);
	column->member = member;
}

int
kcf_member_compare(const char *name, int len, const KcfMember *member)
{
	if (len != member->name_len)
		return len < member->name_len ? -1 : 1;
	return memcmp(name, member->name, len);
}

static int
compare_members(const void *a, const void *b)
{
	const KcfMember *left = *(KcfMember *const *) a;

	return kcf_member_compare(left->name, left->name_len, *(KcfMember *const *) b);
}

void
kcf_member_sort(KcfMember *member)
{
	if (member->nchildren > 0)
	{
		member->sorted = palloc(sizeof(KcfMember *) * member->nchildren);
		memcpy(member->sorted, member->children, sizeof(KcfMember *) * member->nchildren);
		qsort(member->sorted, member->nchildren, sizeof(KcfMember *), compare_members);
	}
	for (int i = 0; i < member->nchildren; i++)
		kcf_member_sort(member->children[i]);
	if (member->element != NULL)
		kcf_member_sort(member->element);
}

/* ---- which members this row has something to say on ---- */

void
kcf_member_mark(KcfRowWriter *writer)
{
	writer->row++;
	for (int i = 0; i < writer->ncolumns; i++)
	{
		KcfMemberColumn *column = &writer->columns[i];

		if (!kcf_column_changes(writer, column))
			continue;
		for (KcfMember *m = column->member; m != NULL; m = m->parent)
		{
			m->changed = writer->row;
			if (!writer->isnull[column->column])
				m->taken = writer->row;
		}
	}
}

/* The column that says what a member is: of several with one path the first that says something. */
static KcfMemberColumn *
member_column(KcfRowWriter *writer, const KcfMember *member)
{
	for (int i = 0; i < member->ncolumns; i++)
	{
		KcfMemberColumn *column = member->columns[i];

		if (kcf_column_changes(writer, column) && !writer->isnull[column->column] &&
			(column->split == NULL ||
			 (column->at < column->nelems && column->elems[column->at].kind != KCF_JSON_NULL)))
			return column;
	}
	return NULL;
}

bool
kcf_children_change(const KcfRowWriter *writer, const KcfMember *member)
{
	for (int i = 0; i < member->nchildren; i++)
	{
		if (member->children[i]->changed == writer->row)
			return true;
	}
	return false;
}

bool
kcf_element_changes(const KcfRowWriter *writer, const KcfMember *member)
{
	return member->element != NULL && member->element->changed == writer->row;
}

/* ---- values ---- */

static const char *
column_name(const KcfRowWriter *writer, const KcfMemberColumn *column)
{
	return NameStr(TupleDescAttr(writer->def->desc, column->column)->attname);
}

/* A JSON array's elements, as the column's; false: it is none. json is followed by a NUL. */
bool
kcf_column_slices(KcfMemberColumn *column, const char *json, int len)
{
	const char *p = json + 1;
	const char *end = json + len;

	column->nelems = 0;
	if (*json != '[')
		return false;
	for (;;)
	{
		KcfJsonSlice *elem;

		CHECK_FOR_INTERRUPTS();
		if (column->nelems == column->room)
		{
			int room = column->room == 0 ? 16 : 2 * column->room;

			/* grows where the writer is */
			if (column->elems == NULL)
				column->elems = MemoryContextAlloc(GetMemoryChunkContext(column->text.data),
												   sizeof(KcfJsonSlice) * room);
			else
				column->elems = repalloc_huge(column->elems, sizeof(KcfJsonSlice) * room);
			column->room = room;
		}
		elem = &column->elems[column->nelems];
		kcf_json_next(&p, end, elem);
		if (elem->kind == KCF_JSON_END_ARRAY)
			return true;
		if (elem->kind == KCF_JSON_ARRAY || elem->kind == KCF_JSON_OBJECT)
			kcf_json_skip(&p, end, elem);
		/* with its quotes */
		if (elem->kind == KCF_JSON_STRING)
		{
			elem->start--;
			elem->len += 2;
		}
		column->nelems++;
	}
}

pg_noreturn static void
not_an_array(const KcfRowWriter *writer, const KcfMemberColumn *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("value of column \"%s\" is not a JSON array", column_name(writer, column)),
			 errdetail("The column's path says that each element is a value of its own.")));
}

void
kcf_column_print(KcfRowWriter *writer, KcfMemberColumn *column)
{
	if (column->printed == writer->row)
		return;
	writer->column = column->column;
	resetStringInfo(&column->text);
	kcf_print_json(column->printer, writer->values[column->column], &column->text);
	if (!kcf_column_slices(column, column->text.data, column->text.len))
		not_an_array(writer, column);
	writer->column = -1;
	column->printed = writer->row;
}

static void
print_column(KcfRowWriter *writer, KcfMemberColumn *column, StringInfo out)
{
	int start = out->len;

	if (column->split != NULL)
	{
		KcfJsonSlice *elem = &column->elems[column->at];

		appendBinaryStringInfo(out, elem->start, (int) elem->len);
		return;
	}
	writer->column = column->column;
	kcf_print_json(column->printer, writer->values[column->column], out);
	if (column->is_array && out->data[start] != '[')
		not_an_array(writer, column);
	writer->column = -1;
}

/* ---- writing anew ---- */

void
kcf_lengths_differ(const KcfRowWriter *writer, const KcfMemberColumn *a, const KcfMemberColumn *b)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("values of columns \"%s\" and \"%s\" differ in length",
						   column_name(writer, a), column_name(writer, b)),
					errdetail("Their paths lead to members of the elements of one array.")));
}

static bool
write_array(KcfRowWriter *writer, KcfMember *member, StringInfo out)
{
	KcfMemberColumn *first = NULL;
	int n = 0;

	for (int i = 0; i < member->npassing; i++)
	{
		KcfMemberColumn *column = member->passing[i];

		if (!kcf_column_changes(writer, column) || writer->isnull[column->column])
			continue;
		kcf_column_print(writer, column);
		if (first == NULL)
		{
			first = column;
			n = column->nelems;
		}
		else if (column->nelems != n)
			kcf_lengths_differ(writer, first, column);
	}
	if (first == NULL)
		return false;
	appendStringInfoChar(out, '[');
	for (int at = 0; at < n; at++)
	{
		if (at > 0)
			appendStringInfoChar(out, ',');
		kcf_element_write(writer, member, at, out);
	}
	appendStringInfoChar(out, ']');
	return true;
}

void
kcf_element_set(KcfMember *member, int at)
{
	for (int i = 0; i < member->npassing; i++)
		member->passing[i]->at = at;
}

void
kcf_element_write(KcfRowWriter *writer, KcfMember *member, int at, StringInfo out)
{
	bool first = true;

	kcf_element_set(member, at);
	appendStringInfoChar(out, '{');
	kcf_member_write_children(writer, member->element, &first, out);
	appendStringInfoChar(out, '}');
}

void
kcf_member_write_children(KcfRowWriter *writer, KcfMember *member, bool *first, StringInfo out)
{
	for (int i = 0; i < member->nchildren; i++)
	{
		KcfMember *child = member->children[i];
		int start = out->len;

		if (child->taken != writer->row)
			continue;
		appendBinaryStringInfo(out, child->quoted + *first, child->quoted_len - *first);
		if (kcf_member_write(writer, child, out))
			*first = false;
		else
			out->len = start;
	}
}

static bool
children_taken(const KcfRowWriter *writer, const KcfMember *member)
{
	for (int i = 0; i < member->nchildren; i++)
	{
		if (member->children[i]->taken == writer->row)
			return true;
	}
	return false;
}

static inline bool
element_taken(const KcfRowWriter *writer, const KcfMember *member)
{
	return member->element != NULL && member->element->taken == writer->row;
}

bool
kcf_member_write(KcfRowWriter *writer, KcfMember *member, StringInfo out)
{
	KcfMemberColumn *column = member_column(writer, member);
	int start = out->len;
	bool first = true;

	if (column != NULL)
	{
		KcfJsonSlice base;

		print_column(writer, column, out);
		base.kind = out->data[start] == '{'   ? KCF_JSON_OBJECT
					: out->data[start] == '[' ? KCF_JSON_ARRAY
											  : KCF_JSON_MISSING;
		if ((base.kind != KCF_JSON_OBJECT && children_taken(writer, member)) ||
			(base.kind != KCF_JSON_ARRAY && element_taken(writer, member)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("value of column \"%s\" cannot hold what other columns are "
							"members of",
							column_name(writer, column)),
					 errhint("Give it an object or an array, as the paths of the others say, "
							 "or leave it NULL.")));
		if (!(base.kind == KCF_JSON_OBJECT && kcf_children_change(writer, member)) &&
			!(base.kind == KCF_JSON_ARRAY && kcf_element_changes(writer, member)))
			return true;
		/* others override its members */
		base.flags = 0;
		base.len = out->len - start;
		base.start = pnstrdup(out->data + start, base.len);
		out->len = start;
		return kcf_splice(writer, member, &base, out);
	}

	if (member->nchildren > 0)
	{
		appendStringInfoChar(out, '{');
		kcf_member_write_children(writer, member, &first, out);
		if (!first)
		{
			appendStringInfoChar(out, '}');
			if (element_taken(writer, member))
				ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
								errmsg("member %.*s cannot be an object and an array at once",
									   member->quoted_len - 2, member->quoted + 1),
								errhint("Leave the columns whose paths say one of the two NULL.")));
			return true;
		}
		out->len = start;
	}
	return element_taken(writer, member) && write_array(writer, member, out);
}
