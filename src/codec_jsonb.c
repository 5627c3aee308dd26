/*
 * codec_jsonb.c
 *		jsonb of a value in a scanned document, written at once in its binary form.
 *
 * The scanner has judged the text, so the only questions left are jsonb's own: order and duplicates
 * of members, and sizes. Members are collected and sorted before they are written, for which nested
 * values are passed over first; what is nested deeper than MAX_LEVELS, and what is very large, goes
 * to jsonb_in. The result is the same to the bit: the tests compare it.
 */
#include "postgres.h"

#include "codec_internal.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#define MAX_LEVELS 16
/* Not a fault: the server shall see it. */
#define TO_SERVER KCF_REASON_TOO_LARGE
/* Keeps every length and count within jsonb's limits without looking at them. */
#define MAX_BYTES (8 * 1024 * 1024)

typedef struct Writer
{
	char *data;
	Size len;
	Size room;
} Writer;

typedef struct Member
{
	const char *key;
	uint32 keylen;
	KcfJsonSlice value;
} Member;

static inline void
reserve(Writer *buf, Size n)
{
	if (buf->len + n > buf->room)
	{
		buf->room = 2 * (buf->len + n);
		buf->data = repalloc(buf->data, buf->room);
	}
}

static inline void
append(Writer *buf, const char *data, Size n)
{
	reserve(buf, n);
	memcpy(buf->data + buf->len, data, n);
	buf->len += n;
}

/* Numbers and containers lie on multiples of four; the padding counts as theirs. */
static inline void
pad(Writer *buf)
{
	reserve(buf, 4);
	while (buf->len % 4 != 0)
		buf->data[buf->len++] = 0;
}

static inline void
set_entry(Writer *buf, Size at, int i, uint32 type, Size len, Size total)
{
	JEntry entry =
		i % JB_OFFSET_STRIDE == 0 ? type | JENTRY_HAS_OFF | (uint32) total : type | (uint32) len;

	memcpy(buf->data + at + i * sizeof(JEntry), &entry, sizeof(JEntry));
}

/* jsonb's order of members: by length first. */
static inline int
compare_keys(const Member *a, const Member *b)
{
	if (a->keylen != b->keylen)
		return a->keylen < b->keylen ? -1 : 1;
	return memcmp(a->key, b->key, a->keylen);
}

static int
compare_members(const void *a, const void *b)
{
	return compare_keys(a, b);
}

/* Into jsonb's order. false: there are duplicates. */
static bool
sort_members(Member *members, int n)
{
	bool sorted = true;

	for (int i = 1; i < n && sorted; i++)
		sorted = compare_keys(&members[i - 1], &members[i]) < 0;
	if (sorted)
		return true;
	if (n <= 16)
	{
		for (int i = 1; i < n; i++)
		{
			Member m = members[i];
			int k = i;

			for (; k > 0 && compare_keys(&members[k - 1], &m) > 0; k--)
				members[k] = members[k - 1];
			members[k] = m;
		}
	}
	else
		qsort(members, n, sizeof(Member), compare_members);
	for (int i = 1; i < n; i++)
	{
		if (compare_keys(&members[i - 1], &members[i]) == 0)
			return false;
	}
	return true;
}

static KcfReason write_container(Writer *buf, const KcfJsonSlice *slice, int level);

/* The value, padding included, and its type for the entry. */
static KcfReason
write_value(Writer *buf, const KcfJsonSlice *slice, int level, uint32 *type)
{
	const char *text;
	size_t len;
	KcfReason reason;
	Numeric number;

	switch (slice->kind)
	{
		case KCF_JSON_NULL:
			*type = JENTRY_ISNULL;
			return KCF_OK;
		case KCF_JSON_TRUE:
			*type = JENTRY_ISBOOL_TRUE;
			return KCF_OK;
		case KCF_JSON_FALSE:
			*type = JENTRY_ISBOOL_FALSE;
			return KCF_OK;
		case KCF_JSON_STRING:
			reason = kcf_json_string(slice, &text, &len);
			if (reason == KCF_OK)
				append(buf, text, len);
			*type = JENTRY_ISSTRING;
			return reason;
		case KCF_JSON_NUMBER:
			number = DatumGetNumeric(kcf_json_numeric(slice));
			pad(buf);
			append(buf, (char *) number, VARSIZE_ANY(number));
			*type = JENTRY_ISNUMERIC;
			return KCF_OK;
		default:
			*type = JENTRY_ISCONTAINER;
			return write_container(buf, slice, level);
	}
}

static KcfReason
write_array(Writer *buf, const KcfJsonSlice *elems, int n, uint32 flags, int level)
{
	uint32 header = n | JB_FARRAY | flags;
	Size entries;
	Size start;

	pad(buf);
	append(buf, (char *) &header, sizeof(header));
	entries = buf->len;
	reserve(buf, n * sizeof(JEntry));
	buf->len += n * sizeof(JEntry);
	start = buf->len;
	for (int i = 0; i < n; i++)
	{
		Size before = buf->len;
		uint32 type;
		KcfReason reason = write_value(buf, &elems[i], level + 1, &type);

		if (reason != KCF_OK)
			return reason;
		set_entry(buf, entries, i, type, buf->len - before, buf->len - start);
	}
	return KCF_OK;
}

static KcfReason
write_object(Writer *buf, const Member *members, int n, int level)
{
	uint32 header = n | JB_FOBJECT;
	Size entries;
	Size start;

	pad(buf);
	append(buf, (char *) &header, sizeof(header));
	entries = buf->len;
	reserve(buf, 2 * n * sizeof(JEntry));
	buf->len += 2 * n * sizeof(JEntry);
	start = buf->len;
	for (int i = 0; i < n; i++)
	{
		append(buf, members[i].key, members[i].keylen);
		set_entry(buf, entries, i, JENTRY_ISSTRING, members[i].keylen, buf->len - start);
	}
	for (int i = 0; i < n; i++)
	{
		Size before = buf->len;
		uint32 type;
		KcfReason reason = write_value(buf, &members[i].value, level + 1, &type);

		if (reason != KCF_OK)
			return reason;
		set_entry(buf, entries, n + i, type, buf->len - before, buf->len - start);
	}
	return KCF_OK;
}

#define FEW 32

static KcfReason
write_container(Writer *buf, const KcfJsonSlice *slice, int level)
{
	const char *p = slice->start + 1;
	const char *end = slice->start + slice->len;
	bool object = slice->kind == KCF_JSON_OBJECT;
	int n = 0;
	int room = FEW;
	KcfReason reason;

	/* deeper levels would be passed over once for each level above them */
	if (level >= MAX_LEVELS)
		return TO_SERVER;
	if (object)
	{
		Member few[FEW];
		Member *members = few;

		for (;;)
		{
			KcfJsonSlice key;
			Member *m;
			const char *text;
			size_t len;

			kcf_json_next(&p, end, &key);
			if (key.kind == KCF_JSON_END_OBJECT)
				break;
			if (n == room)
			{
				Member *more = palloc(2 * room * sizeof(Member));

				memcpy(more, members, n * sizeof(Member));
				members = more;
				room *= 2;
			}
			m = &members[n];
			reason = kcf_json_string(&key, &text, &len);
			if (reason != KCF_OK)
				return reason;
			m->key = text;
			m->keylen = (uint32) len;
			n++;
			kcf_json_next(&p, end, &m->value);
			if (m->value.kind == KCF_JSON_ARRAY || m->value.kind == KCF_JSON_OBJECT)
				kcf_json_skip(&p, end, &m->value);
		}
		/* of duplicates the last counts, but jsonb_in looks at the numbers of all of them */
		if (!sort_members(members, n))
			return TO_SERVER;
		return write_object(buf, members, n, level);
	}
	else
	{
		KcfJsonSlice few[FEW];
		KcfJsonSlice *elems = few;

		for (;;)
		{
			KcfJsonSlice elem;

			kcf_json_next(&p, end, &elem);
			if (elem.kind == KCF_JSON_END_ARRAY)
				break;
			if (elem.kind == KCF_JSON_ARRAY || elem.kind == KCF_JSON_OBJECT)
				kcf_json_skip(&p, end, &elem);
			if (n == room)
			{
				KcfJsonSlice *more = palloc(2 * room * sizeof(KcfJsonSlice));

				memcpy(more, elems, n * sizeof(KcfJsonSlice));
				elems = more;
				room *= 2;
			}
			elems[n++] = elem;
		}
		return write_array(buf, elems, n, 0, level);
	}
}

KcfReason
kcf_jsonb(const KcfJsonSlice *slice, Datum *value)
{
	Writer buf;
	KcfReason reason;
	const char *text;
	size_t len;

	if (slice->flags & KCF_JSON_NUL)
		return KCF_REASON_ENCODING;
	if (slice->len <= MAX_BYTES)
	{
		/* most often enough: an entry of 4 bytes for each value and key, numbers of 8 */
		buf.room = 64 + 4 * (Size) slice->len;
		buf.data = palloc(buf.room);
		buf.len = VARHDRSZ;
		if (slice->kind == KCF_JSON_ARRAY || slice->kind == KCF_JSON_OBJECT)
			reason = write_container(&buf, slice, 0);
		else
			reason = write_array(&buf, slice, 1, JB_FSCALAR, 0);
		if (reason != TO_SERVER)
		{
			SET_VARSIZE(buf.data, buf.len);
			*value = PointerGetDatum(buf.data);
			return reason;
		}
	}
	text = kcf_json_source(slice, &len);
	*value = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text, len)));
	return KCF_OK;
}
