/*
 * json_scan.c
 *		A validating, single-pass JSON scanner that finds the members a table maps, and little else.
 *
 * The mapped paths form a tree of names. The scanner follows a document and that tree in step:
 * where a member has a node in the tree it descends or notes the value, everything else is checked
 * and passed over by a loop with one bit of stack per level.
 *
 * Two observations keep it fast. Documents of one topic tend to have their members in one order, so
 * each name remembers which name followed it last time, and that one is tried first, with one
 * comparison of 16 bytes. And a document that is an object or an array must end in a closing
 * bracket, which is neither white space nor part of a number, a literal or a comma: checking that
 * once means that outside strings only what follows a closing bracket needs a bounds check.
 */
#include "json_internal.h"

#include <string.h>

#define likely_(x) __builtin_expect((x) != 0, 1)
#define unlikely_(x) __builtin_expect((x) != 0, 0)

/* An object that is being followed in the tree. */
typedef struct Frame
{
	KcfJsonNode *node;
	const uchar *start;
	uint16_t expect; /* the child tried first */
	uint8_t flags;   /* those of the enclosing value so far */
} Frame;

typedef struct Scan
{
	const uchar *end;
	const uchar *error_at;
	KcfJsonStatus status;
	uint8_t flags;  /* of the strings since somebody cleared it */
	uint32_t depth; /* of the frames */
	uint32_t max_depth;
	Frame frames[KCF_JSON_MAX_NAMES + 1];
	uint64_t bits[KCF_JSON_MAX_DEPTH / 64]; /* of containers passed over: 1 for an object */
} Scan;

static const uchar *
fail(Scan *s, const uchar *at)
{
	s->status = KCF_JSON_SYNTAX;
	s->error_at = at;
	return NULL;
}

/* In a string, at a byte that is not plain and not the closing quote. Returns behind it. */
static __attribute__((noinline)) const uchar *
string_special(Scan *s, const uchar *p)
{
	int code;

	if (*p >= 0x80)
	{
		s->flags |= KCF_JSON_NONASCII;
		do
		{
			int n = utf8_length(p, s->end);

			if (n == 0)
				return fail(s, p);
			p += n;
		} while (p < s->end && *p >= 0x80);
		return p;
	}
	if (*p != '\\')
		return fail(s, p);

	s->flags |= KCF_JSON_ESCAPED;
	if (s->end - p < 2)
		return fail(s, p);
	switch (p[1])
	{
		case '"':
		case '\\':
		case '/':
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			return p + 2;
		case 'u':
			break;
		default:
			return fail(s, p);
	}

	code = hex4(p + 2, s->end);
	if (code < 0)
		return fail(s, p);
	if (code == 0)
		s->flags |= KCF_JSON_NUL;
	else if (code >= 0x80)
		s->flags |= KCF_JSON_UNICODE;
	if ((code & 0xf800) != 0xd800)
		return p + 6;

	/* a surrogate: a high one, and a low one at once */
	if (code >= 0xdc00 || s->end - p < 8 || p[6] != '\\' || p[7] != 'u')
		return fail(s, p);
	code = hex4(p + 8, s->end);
	if (code < 0xdc00 || code > 0xdfff)
		return fail(s, p);
	return p + 12;
}

#ifndef __SSE2__
#define ONES UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)
#define HAS_ZERO(w) (((w) -ONES) & ~(w) &HIGHS)

/* Does one of these 8 bytes need a look: control, quote, backslash, beyond ASCII? */
static inline bool
word_special(const uchar *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return (w & HIGHS) || HAS_ZERO(w ^ (ONES * '"')) || HAS_ZERO(w ^ (ONES * '\\')) ||
		   (((w - ONES * 0x20) & ~w) & HIGHS);
}
#endif

/* From behind the opening quote of a string to its closing quote. NULL: an error. */
static inline const uchar *
scan_string(Scan *s, const uchar *p)
{
	for (;;)
	{
#ifdef __SSE2__
		const __m128i quote = _mm_set1_epi8('"');
		const __m128i backslash = _mm_set1_epi8('\\');
		const __m128i space = _mm_set1_epi8(' ');

		while (likely_(s->end - p >= 16))
		{
			__m128i v = _mm_loadu_si128((const __m128i *) p);
			/* compared as signed: bytes beyond ASCII are below the space too */
			__m128i hit =
				_mm_or_si128(_mm_cmplt_epi8(v, space),
							 _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)));
			unsigned int mask = _mm_movemask_epi8(hit);

			if (mask != 0)
			{
				p += __builtin_ctz(mask);
				goto found;
			}
			p += 16;
		}
#else
		while (s->end - p >= 8 && !word_special(p))
			p += 8;
#endif
		for (;; p++)
		{
			if (unlikely_(p >= s->end))
				return fail(s, s->end);
			if (*p == '"' || *p == '\\' || *p < ' ' || *p >= 0x80)
				break;
		}
#ifdef __SSE2__
	found:
#endif
		if (likely_(*p == '"'))
			return p;
		p = string_special(s, p);
		if (unlikely_(p == NULL))
			return NULL;
	}
}

static inline const uchar *
scan_space(const uchar *p)
{
	while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
		p++;
	return p;
}

#define SKIP_SPACE(p)                                                                              \
	do                                                                                             \
	{                                                                                              \
		if (*(p) <= ' ')                                                                           \
			(p) = scan_space(p);                                                                   \
	} while (0)

/* true, false or null; *kind says which. */
static inline const uchar *
scan_literal(const uchar *p, const uchar *end, uint8_t *kind)
{
	if (end - p >= 4)
	{
		if (memcmp(p, "true", 4) == 0)
		{
			*kind = KCF_JSON_TRUE;
			return p + 4;
		}
		if (memcmp(p, "null", 4) == 0)
		{
			*kind = KCF_JSON_NULL;
			return p + 4;
		}
		if (end - p >= 5 && memcmp(p, "false", 5) == 0)
		{
			*kind = KCF_JSON_FALSE;
			return p + 5;
		}
	}
	return NULL;
}

/* Check a container and move behind it. A closing bracket ends the document, so p is never at its
 * end. */
static const uchar *
scan_container(Scan *s, const uchar *p)
{
	uint32_t depth = s->depth;
	uint64_t bits = 0; /* of the current word's levels; full words are in s->bits */
	bool object;
	const uchar *q;
	uint8_t ignored;

open:
	if (unlikely_((depth - s->depth) % 64 == 0) && depth != s->depth)
	{
		if (depth + 64 > KCF_JSON_MAX_DEPTH)
		{
			fail(s, p);
			s->status = KCF_JSON_DEEP;
			return NULL;
		}
		s->bits[(depth - s->depth) / 64 - 1] = bits;
	}
	object = *p == '{';
	bits = bits << 1 | object;
	depth++;
	if (depth > s->max_depth)
		s->max_depth = depth;
	p++;
	SKIP_SPACE(p);
	if (*p == (object ? '}' : ']'))
		goto close;
	if (!object)
		goto value;

key:
	if (unlikely_(*p != '"'))
		return fail(s, p);
	p = scan_string(s, p + 1);
	if (unlikely_(p == NULL))
		return NULL;
	p++;
	SKIP_SPACE(p);
	if (unlikely_(*p != ':'))
		return fail(s, p);
	p++;
	SKIP_SPACE(p);

value:
	switch (*p)
	{
		case '"':
			p = scan_string(s, p + 1);
			if (unlikely_(p == NULL))
				return NULL;
			p++;
			break;
		case '{':
		case '[':
			goto open;
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			q = scan_number(p, s->end, false, &ignored);
			if (unlikely_(q == NULL))
				return fail(s, p);
			p = q;
			break;
		default:
			q = scan_literal(p, s->end, &ignored);
			if (unlikely_(q == NULL))
				return fail(s, p);
			p = q;
			break;
	}

after:
	SKIP_SPACE(p);
	if (likely_(*p == ','))
	{
		p++;
		SKIP_SPACE(p);
		if (object)
			goto key;
		goto value;
	}
	if (unlikely_(*p != (object ? '}' : ']')))
		return fail(s, p);

close:
	p++;
	depth--;
	if (depth == s->depth)
		return p;
	if (unlikely_(p >= s->end))
		return fail(s, p);
	bits >>= 1;
	if (unlikely_((depth - s->depth) % 64 == 0))
		bits = s->bits[(depth - s->depth) / 64 - 1];
	object = bits & 1;
	goto after;
}

/* Is the member at p (at its opening quote) the one expected? */
static inline bool
name_matches(const KcfJsonNode *name, const uchar *p, const uchar *end)
{
#ifdef __SSE2__
	if (likely_(name->mask != 0 && end - p >= 16))
	{
		__m128i eq = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *) p),
									_mm_load_si128((const __m128i *) name->pattern));

		return (_mm_movemask_epi8(eq) & name->mask) == name->mask;
	}
#endif
	return name->raw && (size_t) (end - p) >= (size_t) name->len + 2 &&
		   memcmp(p + 1, name->text, name->len) == 0 && p[0] == '"' && p[name->len + 1] == '"';
}

/* ---- the scan ---- */

static inline void
set_slot(KcfJsonSlice *slot, const uchar *start, const uchar *end, uint8_t kind, uint8_t flags)
{
	slot->start = (const char *) start;
	slot->len = (uint32_t) (end - start);
	slot->kind = kind;
	slot->flags = flags;
}

/* The document is an object: follow it and the tree of paths in step. */
static const uchar *
scan_mapped(Scan *s, KcfJsonPaths *paths, const uchar *p, KcfJsonSlice *slots)
{
	Frame *frame = s->frames;
	KcfJsonNode *nodes = paths->nodes;
	KcfJsonNode *node = nodes;

	frame->node = node;
	frame->start = p;
	frame->flags = 0;

object:
	s->depth++;
	if (s->depth > s->max_depth)
		s->max_depth = s->depth;
	frame->expect = node->first;
	{
		/* where to note which name came next: at first, which one came first */
		uint16_t *order = &node->first;

		p++;
		SKIP_SPACE(p);
		if (*p == '}')
			goto close;
		goto member;

	next:
		node = frame->node;
		order = &nodes[frame->expect].next;
		frame->expect = *order;

	member:;
		KcfJsonNode *child = &nodes[frame->expect];
		uint8_t flags;
		uint8_t kind;
		const uchar *q;

		if (likely_(name_matches(child, p, s->end)))
			p += child->len + 2;
		else
		{
			int i;

			if (unlikely_(*p != '"'))
				return fail(s, p);
			flags = s->flags;
			s->flags = 0;
			q = scan_string(s, p + 1);
			if (unlikely_(q == NULL))
				return NULL;
			if (unlikely_(s->flags & KCF_JSON_ESCAPED))
				i = kcf_json_find_escaped(paths, node, (const char *) p + 1, q - p - 1);
			else
				i = kcf_json_find(paths, node, (const char *) p + 1, q - p - 1);
			s->flags |= flags;
			p = q + 1;
			if (i > 0)
			{
				child = &nodes[i];
				*order = (uint16_t) i;
				frame->expect = (uint16_t) i;
			}
			else
				child = NULL;
		}
		SKIP_SPACE(p);
		if (unlikely_(*p != ':'))
			return fail(s, p);
		p++;
		SKIP_SPACE(p);

		if (child == NULL)
		{
			/* not mapped; the expectation stays as it is, so it is not to be read as passed */
			switch (*p)
			{
				case '"':
					p = scan_string(s, p + 1);
					if (unlikely_(p == NULL))
						return NULL;
					p++;
					break;
				case '{':
				case '[':
					p = scan_container(s, p);
					if (unlikely_(p == NULL))
						return NULL;
					break;
				default:
					q = (*p == '-' || (unsigned) (*p - '0') <= 9)
							? scan_number(p, s->end, false, &kind)
							: scan_literal(p, s->end, &kind);
					if (unlikely_(q == NULL))
						return fail(s, p);
					p = q;
			}
			if (unlikely_(p >= s->end))
				return fail(s, p);
			SKIP_SPACE(p);
			if (*p == ',')
			{
				p++;
				SKIP_SPACE(p);
				goto member;
			}
			if (unlikely_(*p != '}'))
				return fail(s, p);
			goto close;
		}

		if (child->nchildren > 0)
		{
			/* a duplicate replaces the members of the one before it as well */
			for (int i = child->first_slot; i < child->end_slot; i++)
				slots[i].kind = KCF_JSON_MISSING;
			if (*p == '{')
			{
				frame++;
				frame->node = node = child;
				frame->start = p;
				frame->flags = s->flags;
				s->flags = 0;
				goto object;
			}
		}
		flags = s->flags;
		s->flags = 0;
		switch (*p)
		{
			case '"':
				q = scan_string(s, p + 1);
				if (unlikely_(q == NULL))
					return NULL;
				if (child->slot >= 0)
					set_slot(&slots[child->slot], p + 1, q, KCF_JSON_STRING, s->flags);
				p = q + 1;
				break;
			case '{':
			case '[':
				kind = *p == '{' ? KCF_JSON_OBJECT : KCF_JSON_ARRAY;
				q = scan_container(s, p);
				if (unlikely_(q == NULL))
					return NULL;
				if (unlikely_(q >= s->end))
					return fail(s, q);
				if (child->slot >= 0)
					set_slot(&slots[child->slot], p, q, kind, s->flags);
				p = q;
				break;
			case '-':
			case '0':
			case '1':
			case '2':
			case '3':
			case '4':
			case '5':
			case '6':
			case '7':
			case '8':
			case '9':
				q = scan_number(p, s->end, false, &kind);
				if (unlikely_(q == NULL))
					return fail(s, p);
				if (child->slot >= 0)
					set_slot(&slots[child->slot], p, q, KCF_JSON_NUMBER, kind);
				p = q;
				break;
			default:
				q = scan_literal(p, s->end, &kind);
				if (unlikely_(q == NULL))
					return fail(s, p);
				if (child->slot >= 0)
					set_slot(&slots[child->slot], p, q, kind, 0);
				p = q;
		}
		s->flags |= flags;
	}

after:
	SKIP_SPACE(p);
	if (likely_(*p == ','))
	{
		p++;
		SKIP_SPACE(p);
		goto next;
	}
	if (unlikely_(*p != '}'))
		return fail(s, p);

close:
	p++;
	s->depth--;
	if (frame == s->frames)
		return p;
	if (unlikely_(p >= s->end))
		return fail(s, p);
	node = frame->node;
	if (node->slot >= 0)
		set_slot(&slots[node->slot], frame->start, p, KCF_JSON_OBJECT, s->flags);
	s->flags |= frame->flags;
	frame--;
	goto after;
}

KcfJsonStatus
kcf_json_scan(KcfJsonPaths *paths, const char *doc, size_t len, KcfJsonSlice *slots,
			  KcfJsonResult *result)
{
	Scan s;
	const uchar *start = (const uchar *) doc;
	const uchar *p = start;
	const uchar *end = start + len;
	const uchar *q = NULL;
	uint8_t kind = KCF_JSON_MISSING;
	uint8_t number_flags = 0;

	for (int i = 0; i < paths->nslots; i++)
		slots[i].kind = KCF_JSON_MISSING;

	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\r' || end[-1] == '\t'))
		end--;

	s.end = end;
	s.error_at = p;
	s.status = KCF_JSON_VALID;
	s.flags = 0;
	s.depth = 0;
	s.max_depth = 0;

	if (p == end || len > UINT32_MAX)
		fail(&s, p);
	else if (*p == '{' || *p == '[')
	{
		kind = *p == '{' ? KCF_JSON_OBJECT : KCF_JSON_ARRAY;
		if (end[-1] != (kind == KCF_JSON_OBJECT ? '}' : ']'))
			fail(&s, end);
		else if (kind == KCF_JSON_OBJECT && paths->nodes[0].nchildren > 0)
			q = scan_mapped(&s, paths, p, slots);
		else
			q = scan_container(&s, p);
	}
	else if (*p == '"')
	{
		kind = KCF_JSON_STRING;
		q = scan_string(&s, p + 1);
		if (q != NULL)
			q++;
	}
	else
	{
		if (*p == '-' || (unsigned) (*p - '0') <= 9)
		{
			kind = KCF_JSON_NUMBER;
			q = scan_number(p, end, true, &number_flags);
		}
		else
			q = scan_literal(p, end, &kind);
		if (q == NULL)
			fail(&s, p);
	}

	if (q != NULL && q != end)
		fail(&s, q);
	/* PostgreSQL checks the encoding first, so a document with both faults has that one */
	if (s.status == KCF_JSON_SYNTAX && !kcf_utf8_valid(doc, len))
		s.status = KCF_JSON_ENCODING;
	if (s.status == KCF_JSON_VALID && kind == KCF_JSON_STRING)
		set_slot(&result->root, p + 1, end - 1, kind, s.flags);
	else
		set_slot(&result->root, p, end, kind, s.flags | number_flags);
	result->error_at = s.error_at - start;
	result->max_depth = s.max_depth;
	return s.status;
}
