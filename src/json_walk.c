/*
 * json_walk.c
 *		Walking through JSON text that the scanner has accepted, and taking strings out of it.
 *
 * Nothing is checked here again: every function relies on the text being good.
 */
#include "json_internal.h"

#include <string.h>

/* From behind the opening quote to the closing one; the text is known to be good. */
static inline const char *
walk_string(const char *p, const char *end, uint8_t *flags)
{
	for (;; p++)
	{
#ifdef __SSE2__
		while (end - p >= 16)
		{
			__m128i v = _mm_loadu_si128((const __m128i *) p);
			__m128i hit = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
									   _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
			unsigned int mask = _mm_movemask_epi8(hit);
			unsigned int high = _mm_movemask_epi8(v);

			if (mask != 0)
			{
				int n = __builtin_ctz(mask);

				if (high & ((1u << n) - 1))
					*flags |= KCF_JSON_NONASCII;
				p += n;
				break;
			}
			if (high != 0)
				*flags |= KCF_JSON_NONASCII;
			p += 16;
		}
#endif
		if (*p == '"')
			return p;
		if (*p == '\\')
		{
			*flags |= KCF_JSON_ESCAPED;
			p++;
			if (*p == 'u')
			{
				int code = hex4((const uchar *) p + 1, (const uchar *) end);

				*flags |= code == 0 ? KCF_JSON_NUL : code >= 0x80 ? KCF_JSON_UNICODE : 0;
				p += 4;
			}
		}
		else if ((uchar) *p >= 0x80)
			*flags |= KCF_JSON_NONASCII;
	}
}

void
kcf_json_next(const char **pos, const char *end, KcfJsonSlice *token)
{
	const char *p = *pos;

	while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t' || *p == ',' || *p == ':')
		p++;
	token->start = p;
	token->flags = 0;
	switch (*p)
	{
		case '"':
			token->kind = KCF_JSON_STRING;
			token->start = ++p;
			p = walk_string(p, end, &token->flags);
			token->len = (uint32_t) (p - token->start);
			*pos = p + 1;
			return;
		case '{':
			token->kind = KCF_JSON_OBJECT;
			p++;
			break;
		case '[':
			token->kind = KCF_JSON_ARRAY;
			p++;
			break;
		case '}':
			token->kind = KCF_JSON_END_OBJECT;
			p++;
			break;
		case ']':
			token->kind = KCF_JSON_END_ARRAY;
			p++;
			break;
		case 't':
			token->kind = KCF_JSON_TRUE;
			p += 4;
			break;
		case 'f':
			token->kind = KCF_JSON_FALSE;
			p += 5;
			break;
		case 'n':
			token->kind = KCF_JSON_NULL;
			p += 4;
			break;
		default:
			/* in a container, so that something else follows */
			token->kind = KCF_JSON_NUMBER;
			p = (const char *) scan_number((const uchar *) p, NULL, false, &token->flags);
			break;
	}
	token->len = (uint32_t) (p - token->start);
	*pos = p;
}

void
kcf_json_skip(const char **pos, const char *end, KcfJsonSlice *token)
{
	const char *p = *pos;
	uint32_t depth = 1;

	while (depth > 0)
	{
		char c = *p++;

		if (c == '"')
			p = walk_string(p, end, &token->flags) + 1;
		else if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
	}
	token->len = (uint32_t) (p - token->start);
	*pos = p;
}

/* Is this raw name (between its quotes) the one asked for? */
static bool
same_name(const KcfJsonSlice *raw, const char *name, size_t len)
{
	const char *p = raw->start;
	const char *end = p + raw->len;
	size_t at = 0;

	if (!(raw->flags & KCF_JSON_ESCAPED))
		return raw->len == len && memcmp(p, name, len) == 0;
	while (p < end)
	{
		char buf[4];
		const char *from = p;
		size_t n;

		/* one character or escape at a time */
		if (*p != '\\')
			p++;
		else if (p[1] != 'u')
			p += 2;
		else
			p += (hex4((const uchar *) p + 2, (const uchar *) end) & 0xf800) == 0xd800 ? 12 : 6;
		if (p == from + 1)
		{
			buf[0] = *from;
			n = 1;
		}
		else
		{
			char big[12];

			n = kcf_json_unescape(from, p - from, big);
			if (n == SIZE_MAX)
				return false;
			memcpy(buf, big, n);
		}
		if (len - at < n || memcmp(name + at, buf, n) != 0)
			return false;
		at += n;
	}
	return at == len;
}

bool
kcf_json_member(const KcfJsonSlice *object, const char *name, size_t len, KcfJsonSlice *value)
{
	const char *p = object->start + 1;
	const char *end = object->start + object->len;
	bool found = false;

	if (object->kind != KCF_JSON_OBJECT)
		return false;
	for (;;)
	{
		KcfJsonSlice key;
		KcfJsonSlice here;

		kcf_json_next(&p, end, &key);
		if (key.kind == KCF_JSON_END_OBJECT)
			return found;
		kcf_json_next(&p, end, &here);
		if (here.kind == KCF_JSON_OBJECT || here.kind == KCF_JSON_ARRAY)
			kcf_json_skip(&p, end, &here);
		if (same_name(&key, name, len))
		{
			*value = here;
			found = true;
		}
	}
}

size_t
kcf_json_unescape(const char *src, size_t len, char *dst)
{
	const char *p = src;
	const char *end = src + len;
	char *d = dst;

	while (p < end)
	{
		const char *run = memchr(p, '\\', end - p);
		uint32_t code;

		if (run == NULL)
			run = end;
		memcpy(d, p, run - p);
		d += run - p;
		p = run;
		if (p == end)
			break;
		switch (p[1])
		{
			case 'b':
				*d++ = '\b';
				break;
			case 'f':
				*d++ = '\f';
				break;
			case 'n':
				*d++ = '\n';
				break;
			case 'r':
				*d++ = '\r';
				break;
			case 't':
				*d++ = '\t';
				break;
			case 'u':
				code = hex4((const uchar *) p + 2, (const uchar *) end);
				p += 6;
				if ((code & 0xf800) == 0xd800)
				{
					code = 0x10000 + ((code & 0x3ff) << 10) +
						   (hex4((const uchar *) p + 2, (const uchar *) end) & 0x3ff);
					p += 6;
				}
				if (code == 0)
					return SIZE_MAX;
				if (code < 0x80)
					*d++ = code;
				else if (code < 0x800)
				{
					*d++ = 0xc0 | code >> 6;
					*d++ = 0x80 | (code & 0x3f);
				}
				else if (code < 0x10000)
				{
					*d++ = 0xe0 | code >> 12;
					*d++ = 0x80 | (code >> 6 & 0x3f);
					*d++ = 0x80 | (code & 0x3f);
				}
				else
				{
					*d++ = 0xf0 | code >> 18;
					*d++ = 0x80 | (code >> 12 & 0x3f);
					*d++ = 0x80 | (code >> 6 & 0x3f);
					*d++ = 0x80 | (code & 0x3f);
				}
				continue;
			default:
				*d++ = p[1];
		}
		p += 2;
	}
	return d - dst;
}

bool
kcf_utf8_valid(const char *str, size_t len)
{
	const uchar *p = (const uchar *) str;
	const uchar *end = p + len;

	while (p < end)
	{
		int n;

#ifdef __SSE2__
		while (end - p >= 16)
		{
			__m128i v = _mm_loadu_si128((const __m128i *) p);

			/* as signed: zero and bytes beyond ASCII are below one */
			if (_mm_movemask_epi8(_mm_cmplt_epi8(v, _mm_set1_epi8(1))) != 0)
				break;
			p += 16;
		}
		if (p == end)
			break;
#endif
		if (*p == 0)
			return false;
		n = *p < 0x80 ? 1 : utf8_length(p, end);
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}
