/*
 * rowmap_splice.c
 *		A document with some of its members changed, the rest of it byte for byte.
 *
 * Whoever writes to a topic may put members into its documents that our table does not know: they stay as they are,
 * with their spelling and their white space. Of members that change only the value is replaced; what was there twice
 * is there once afterwards, at the place of the last, which is the one that counted. The elements of an array that a
 * path like groups[].id leads through keep what else they have where their value remains.
 *
 * An object is walked twice: once to find the last member of each name, once to write. So the time is linear in the
 * document, times the names of the longest path.
 */
#include "postgres.h"

#include "rowmap_write_internal.h"

#include "common/hashfn.h"
#include "miscadmin.h"

static inline const char *
skip_space(const char *p)
{
	while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
		p++;
	return p;
}

/* Where a value begins in the document, quote included. */
static inline const char *
value_start(const KcfJsonSlice *value)
{
	return value->kind == KCF_JSON_STRING ? value->start - 1 : value->start;
}

static inline void
append_value(StringInfo out, const KcfJsonSlice *value)
{
	int quotes = value->kind == KCF_JSON_STRING ? 2 : 0;

	appendBinaryStringInfo(out, value_start(value), (int) value->len + quotes);
}

/* The changing member of this name, NULL: none. */
static KcfMember *
find_child(const KcfRowWriter *writer, const KcfMember *member, const KcfJsonSlice *key)
{
	const char *name = key->start;
	char *plain = NULL;
	size_t len = key->len;
	int low = 0;
	int high = member->nchildren;
	KcfMember *found = NULL;

	if (key->flags & KCF_JSON_ESCAPED)
	{
		plain = palloc(len + 1);
		len = kcf_json_unescape(name, len, plain);
		name = plain;
	}
	while (low < high && len != SIZE_MAX)
	{
		int middle = (low + high) / 2;
		int order = kcf_member_compare(name, (int) len, member->sorted[middle]);

		if (order == 0)
		{
			if (member->sorted[middle]->changed == writer->row)
				found = member->sorted[middle];
			break;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	if (plain != NULL)
		pfree(plain);
	return found;
}

/* One member of an object, from behind the brace or comma before it; false: there is none. */
static bool
next_member(const char **pos, const char *end, KcfJsonSlice *key, KcfJsonSlice *value)
{
	if (*skip_space(*pos) == '}')
		return false;
	kcf_json_next(pos, end, key);
	kcf_json_next(pos, end, value);
	if (value->kind == KCF_JSON_OBJECT || value->kind == KCF_JSON_ARRAY)
		kcf_json_skip(pos, end, value);
	return true;
}

/* ---- objects ---- */

static bool splice_member(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old,
						  StringInfo out);

static void
find_last(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *object)
{
	const char *p = object->start + 1;
	const char *end = object->start + object->len;
	KcfJsonSlice key;
	KcfJsonSlice value;

	for (int i = 0; i < member->nchildren; i++)
		member->children[i]->last = NULL;
	while (next_member(&p, end, &key, &value))
	{
		KcfMember *child = find_child(writer, member, &key);

		CHECK_FOR_INTERRUPTS();
		if (child != NULL)
			child->last = value.start;
	}
}

static void
splice_object(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *object, StringInfo out)
{
	const char *p = object->start + 1;
	const char *end = object->start + object->len;
	const char *rest = p; /* white space behind the last value that is not written yet */
	int rest_len = 0;
	bool first = true;
	KcfJsonSlice key;
	KcfJsonSlice value;

	find_last(writer, member, object);
	appendStringInfoChar(out, '{');
	for (;;)
	{
		const char *start = p;
		const char *behind;
		KcfMember *child;
		int written = out->len;

		CHECK_FOR_INTERRUPTS();
		if (!next_member(&p, end, &key, &value))
		{
			/* an object without members */
			if (rest_len == 0 && first)
				rest_len = (int) (skip_space(rest) - rest);
			break;
		}
		behind = skip_space(p);
		child = find_child(writer, member, &key);
		if (child == NULL || child->last == value.start)
		{
			appendBinaryStringInfo(out, rest, rest_len);
			if (!first)
				appendStringInfoChar(out, ',');
			if (child == NULL)
				appendBinaryStringInfo(out, start, (int) (p - start));
			else
				appendBinaryStringInfo(out, start, (int) (value_start(&value) - start));
			if (child == NULL || splice_member(writer, child, &value, out))
			{
				first = false;
				rest = p;
				rest_len = (int) (behind - p);
			}
			else
				out->len = written;
		}
		p = behind;
		if (*p != ',')
			break;
		p++;
	}
	/* what it did not have, in the order of the columns */
	for (int i = 0; i < member->nchildren; i++)
	{
		KcfMember *child = member->children[i];
		int written = out->len;

		if (child->last != NULL || child->taken != writer->row)
			continue;
		appendBinaryStringInfo(out, child->quoted + first, child->quoted_len - first);
		if (kcf_member_write(writer, child, out))
			first = false;
		else
			out->len = written;
	}
	appendBinaryStringInfo(out, rest, rest_len);
	appendStringInfoChar(out, '}');
}

/* ---- arrays ---- */

/* What an array's elements have for the columns that change, to be found by it. */
typedef struct Elements
{
	int n;
	uint32 *hashes;
	int *begins; /* [n + 1], in text */
	StringInfoData text;
} Elements;

static void
begin_elements(Elements *elements, int n)
{
	elements->n = n;
	elements->hashes = palloc(sizeof(uint32) * (n + 1));
	elements->begins = palloc(sizeof(int) * (n + 1));
	initStringInfo(&elements->text);
}

/* Those of the columns as they stand in elems. */
static void
fill_elements(KcfRowWriter *writer, KcfMember *member, KcfJsonSlice **elems, Elements *elements)
{
	StringInfo text = &elements->text;

	for (int at = 0; at < elements->n; at++)
	{
		elements->begins[at] = text->len;
		for (int i = 0; i < member->npassing; i++)
		{
			if (elems[i] == NULL)
				continue;
			appendBinaryStringInfo(text, elems[i][at].start, (int) elems[i][at].len);
			/* no JSON has this between two values */
			appendStringInfoChar(text, '\1');
		}
		elements->hashes[at] = hash_bytes((unsigned char *) text->data + elements->begins[at],
										  text->len - elements->begins[at]);
	}
	elements->begins[elements->n] = text->len;
}

static bool
same_element(const Elements *a, int i, const Elements *b, int k)
{
	int len = a->begins[i + 1] - a->begins[i];

	return a->hashes[i] == b->hashes[k] && b->begins[k + 1] - b->begins[k] == len &&
		   memcmp(a->text.data + a->begins[i], b->text.data + b->begins[k], len) == 0;
}

/*
 * What the old document has for a column, written as we write it, so that another spelling is no other value. NULL
 * where its elements cannot be told.
 */
static KcfJsonSlice *
old_elements(KcfRowWriter *writer, KcfMemberColumn *column, const KcfJsonSlice *old, int n)
{
	Form_pg_attribute attr = TupleDescAttr(writer->def->desc, column->column);
	KcfMemberColumn reread = *column;
	Datum value;
	bool isnull;

	if (column->conv == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(writer->mcxt);

		column->conv = kcf_converter_create(attr->atttypid, attr->atttypmod);
		MemoryContextSwitchTo(outer);
	}
	if (kcf_convert_json(column->conv, old, column->tail, &value, &isnull) != KCF_OK || isnull)
		return NULL;
	initStringInfo(&reread.text);
	reread.elems = NULL;
	reread.room = 0;
	kcf_print_json(column->printer, value, &reread.text);
	if (!kcf_column_slices(&reread, reread.text.data, reread.text.len) || reread.nelems != n)
		return NULL;
	return reread.elems;
}

/*
 * For each new element the old one that has the same values, -1 where there is none; an old one serves once, and of
 * equal ones the first. *mates[n].
 */
static void
match_elements(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old, int nold, int n,
			   int *mates)
{
	KcfJsonSlice **old_elems = palloc0(sizeof(KcfJsonSlice *) * member->npassing);
	KcfJsonSlice **new_elems = palloc0(sizeof(KcfJsonSlice *) * member->npassing);
	Elements olds;
	Elements news;
	uint32 mask = 16;
	int *heads;
	int *next;

	for (int i = 0; i < n; i++)
		mates[i] = -1;
	for (int i = 0; i < member->npassing; i++)
	{
		KcfMemberColumn *column = member->passing[i];

		if (!kcf_column_changes(writer, column) || writer->isnull[column->column])
			continue;
		new_elems[i] = column->elems;
		old_elems[i] = old_elements(writer, column, old, nold);
		if (old_elems[i] == NULL)
			return;
	}
	begin_elements(&olds, nold);
	begin_elements(&news, n);
	fill_elements(writer, member, old_elems, &olds);
	fill_elements(writer, member, new_elems, &news);

	while (mask < 2 * (uint32) nold)
		mask *= 2;
	mask--;
	heads = palloc(sizeof(int) * ((Size) mask + 1));
	next = palloc(sizeof(int) * (nold + 1));
	memset(heads, -1, sizeof(int) * ((Size) mask + 1));
	/* from behind, so that a chain begins with the first */
	for (int i = nold - 1; i >= 0; i--)
	{
		next[i] = heads[olds.hashes[i] & mask];
		heads[olds.hashes[i] & mask] = i;
	}
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int *link = &heads[news.hashes[i] & mask]; *link >= 0; link = &next[*link])
		{
			if (same_element(&olds, *link, &news, i))
			{
				mates[i] = *link;
				*link = next[*link];
				break;
			}
		}
	}
}

/* The elements of the old array. */
static KcfJsonSlice *
elements_of(const KcfJsonSlice *array, int *n)
{
	const char *p = array->start + 1;
	const char *end = array->start + array->len;
	int room = 16;
	KcfJsonSlice *elems = palloc(sizeof(KcfJsonSlice) * room);

	for (*n = 0;; (*n)++)
	{
		CHECK_FOR_INTERRUPTS();
		if (*n == room)
		{
			room *= 2;
			elems = repalloc_huge(elems, sizeof(KcfJsonSlice) * room);
		}
		kcf_json_next(&p, end, &elems[*n]);
		if (elems[*n].kind == KCF_JSON_END_ARRAY)
			return elems;
		if (elems[*n].kind == KCF_JSON_OBJECT || elems[*n].kind == KCF_JSON_ARRAY)
			kcf_json_skip(&p, end, &elems[*n]);
	}
}

static bool
has_values(const KcfMemberColumn *column)
{
	for (int i = 0; i < column->nelems; i++)
	{
		if (column->elems[i].kind != KCF_JSON_NULL)
			return true;
	}
	return false;
}

/* Has no column that changes a value for the element that they are at? */
static bool
is_null_at(const KcfRowWriter *writer, const KcfMember *member)
{
	for (int i = 0; i < member->npassing; i++)
	{
		const KcfMemberColumn *column = member->passing[i];

		if (kcf_column_changes(writer, column) && !writer->isnull[column->column] &&
			column->elems[column->at].kind != KCF_JSON_NULL)
			return false;
	}
	return true;
}

/*
 * Whose elements are to be found by their values, and whose by their place? Where a column of the array does not
 * change, its values keep their places, so all must be as long as it is.
 */
static bool
splice_array(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old, StringInfo out)
{
	KcfMemberColumn *fixed = NULL;
	KcfMemberColumn *taken = NULL;
	bool removes = false;
	int nold;
	int n;
	int *mates;
	KcfJsonSlice *olds = elements_of(old, &nold);

	for (int i = 0; i < member->npassing; i++)
	{
		KcfMemberColumn *column = member->passing[i];
		bool changes = kcf_column_changes(writer, column);

		if (changes && writer->isnull[column->column])
			removes = true;
		if (writer->isnull[column->column])
			continue;
		kcf_column_print(writer, column);
		if (changes)
		{
			if (taken != NULL && taken->nelems != column->nelems)
				kcf_lengths_differ(writer, taken, column);
			taken = column;
		}
		else if (!writer->new_document && has_values(column))
			fixed = column;
	}
	if (taken == NULL && fixed == NULL)
		return false;
	if (taken != NULL && fixed != NULL && taken->nelems != fixed->nelems)
		kcf_lengths_differ(writer, taken, fixed);
	n = taken != NULL ? taken->nelems : nold;
	mates = palloc(sizeof(int) * (n + 1));
	if (fixed != NULL)
	{
		for (int i = 0; i < n; i++)
			mates[i] = i < nold ? i : -1;
	}
	else
		match_elements(writer, member, old, nold, n, mates);

	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
	{
		KcfJsonSlice *mate = mates[i] >= 0 ? &olds[mates[i]] : NULL;

		CHECK_FOR_INTERRUPTS();
		if (i > 0)
			appendStringInfoChar(out, ',');
		kcf_element_set(member, i);
		if (mate != NULL && mate->kind == KCF_JSON_OBJECT && (fixed != NULL || removes))
			splice_object(writer, member->element, mate, out);
		else if (mate != NULL && (fixed == NULL || is_null_at(writer, member)))
			append_value(out, mate);
		else
			kcf_element_write(writer, member, i, out);
	}
	appendStringInfoChar(out, ']');
	return true;
}

/* ---- values ---- */

/* A value with the changes of what is below it. false: nothing is left. */
bool
kcf_splice(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old, StringInfo out)
{
	int start = out->len;

	if (old->kind == KCF_JSON_OBJECT && kcf_children_change(writer, member))
	{
		splice_object(writer, member, old, out);
		return true;
	}
	if (old->kind == KCF_JSON_ARRAY && kcf_element_changes(writer, member))
		return splice_array(writer, member, old, out);
	/* not what the paths want: it makes way for what is, where there is something */
	if (kcf_member_write(writer, member, out))
		return true;
	out->len = start;
	append_value(out, old);
	return true;
}

static bool
splice_member(KcfRowWriter *writer, KcfMember *member, const KcfJsonSlice *old, StringInfo out)
{
	for (int i = 0; i < member->ncolumns; i++)
	{
		/* a column has the say; NULL does away with the old value */
		if (kcf_column_changes(writer, member->columns[i]))
			return kcf_member_write(writer, member, out);
	}
	return kcf_splice(writer, member, old, out);
}
