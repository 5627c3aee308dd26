/*
 * json_internal.h
 *		What the files of the JSON scanner share: compiled paths and the smallest pieces of grammar.
 *
 * Process:  any.
 * Locks:    none.
 * Memory:   none of its own.
 * Errors:   return values.
 * Waits:    never.
 */
#ifndef KCF_JSON_INTERNAL_H
#define KCF_JSON_INTERNAL_H

#include "json_scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef unsigned char uchar;

/* A name in the tree of paths. Node 0 is the document itself, so 0 also means "none". */
typedef struct KcfJsonNode
{
	char pattern[16] __attribute__((aligned(16))); /* the name in its quotes */
	const char *text;
	uint32_t len;
	uint16_t mask; /* which bytes of pattern count, 0: too long for it */
	bool raw;      /* can stand in a document without escapes */
	uint16_t next; /* the sibling that followed it last time */

	uint16_t nchildren;
	uint16_t first; /* the child that came first last time */
	uint16_t child; /* list of the children */
	uint16_t sibling;
	uint16_t *table;     /* of the children by hash, when there are many */
	uint32_t table_mask; /* 0: few */

	int32_t slot;       /* -1: the value itself is not mapped */
	int32_t first_slot; /* slots of everything below, to forget a duplicate's members */
	int32_t end_slot;
} KcfJsonNode;

struct KcfJsonPaths
{
	KcfJsonNode *nodes;
	int nnodes;
	int nslots;
	size_t max_name;
	char *scratch; /* 6 * max_name: room to resolve an escaped name */
};

/* The child of this name, 0: none. */
extern int kcf_json_find(const KcfJsonPaths *paths, const KcfJsonNode *node, const char *text,
						 size_t len);
/* The same for a name with escapes. */
extern int kcf_json_find_escaped(const KcfJsonPaths *paths, const KcfJsonNode *node,
								 const char *text, size_t len);

/* The byte sequence of one character beyond ASCII: its length, 0 when it is not UTF-8. */
static inline int
utf8_length(const uchar *p, const uchar *end)
{
	ptrdiff_t left = end - p;

	if (p[0] < 0xc2)
		return 0;
	if (p[0] < 0xe0)
		return left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
	if (p[0] < 0xf0)
	{
		if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
			return 0;
		if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
			return 0;
		return 3;
	}
	if (p[0] > 0xf4 || left < 4)
		return 0;
	if ((p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
		return 0;
	if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return 4;
}

/* Four hexadecimal digits, -1 when they are not. */
static inline int
hex4(const uchar *p, const uchar *end)
{
	int v = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		uchar c = p[i];

		if (c >= '0' && c <= '9')
			c -= '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			c = (c | 0x20) - 'a' + 10;
		else
			return -1;
		v = v << 4 | c;
	}
	return v;
}

#define AT(p) (!bounded || (p) < end)

/* A number. Without bounded, something that is no part of one must follow before the end. */
static inline const uchar *
scan_number(const uchar *p, const uchar *end, bool bounded, uint8_t *flags)
{
	*flags = 0;
	if (*p == '-')
		p++;
	if (!AT(p))
		return NULL;
	if (*p == '0')
		p++;
	else if (*p >= '1' && *p <= '9')
	{
		do
			p++;
		while (AT(p) && (unsigned) (*p - '0') <= 9);
	}
	else
		return NULL;
	if (AT(p) && *p == '.')
	{
		*flags |= KCF_JSON_FRACTION;
		p++;
		if (!AT(p) || (unsigned) (*p - '0') > 9)
			return NULL;
		do
			p++;
		while (AT(p) && (unsigned) (*p - '0') <= 9);
	}
	if (AT(p) && (*p | 0x20) == 'e')
	{
		*flags |= KCF_JSON_EXPONENT;
		p++;
		if (AT(p) && (*p == '+' || *p == '-'))
			p++;
		if (!AT(p) || (unsigned) (*p - '0') > 9)
			return NULL;
		do
			p++;
		while (AT(p) && (unsigned) (*p - '0') <= 9);
	}
	return p;
}

#undef AT

#endif /* KCF_JSON_INTERNAL_H */
