/*
 * codec_text.c
 *		Text to Datum: the usual forms of common types at once, everything else by the input
 * function.
 */
#include "postgres.h"

#include "codec_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* An ASCII character that input functions skip around numbers. */
static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * An integer. *odd: it is not written with digits alone, but might be one all the same (white
 * space, or the other bases of newer servers), so the input function has to see it.
 */
KcfReason
kcf_integer(KcfConvertKind kind, const char *p, size_t len, Datum *value, bool *odd)
{
	const char *end = p + len;
	bool negative = false;
	uint64 n = 0;
	bool overflow = false;

	*odd = false;
	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	if (p == end || (unsigned char) (*p - '0') > 9)
	{
		*odd = p < end && is_space(*p);
		return KCF_REASON_CONVERT;
	}
	for (; p < end; p++)
	{
		unsigned int digit = (unsigned char) (*p - '0');

		if (digit > 9)
		{
			*odd = is_space(*p) || strchr("_xXoObB", *p) != NULL;
			return KCF_REASON_CONVERT;
		}
		/* one more digit than this would not fit 64 bits */
		if (n > (PG_UINT64_MAX - 9) / 10)
			overflow = true;
		n = n * 10 + digit;
	}
	if (overflow || n > (uint64) PG_INT64_MAX + negative)
		return KCF_REASON_RANGE;
	else
	{
		int64 v = (int64) (negative ? 0 - n : n);

		switch (kind)
		{
			case KCF_CONVERT_INT2:
				if (v < PG_INT16_MIN || v > PG_INT16_MAX)
					return KCF_REASON_RANGE;
				*value = Int16GetDatum((int16) v);
				break;
			case KCF_CONVERT_INT4:
				if (v < PG_INT32_MIN || v > PG_INT32_MAX)
					return KCF_REASON_RANGE;
				*value = Int32GetDatum((int32) v);
				break;
			default:
				*value = Int64GetDatum(v);
		}
	}
	return KCF_OK;
}

/* One more than the value of a hexadecimal digit, 0 for anything else. */
static const uint8 hex_digits[256] = {
	['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
	['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* 0 to 15, more: not a hexadecimal digit. */
#define HEX(c) ((unsigned int) hex_digits[(unsigned char) (c)] - 1)

/* 32 hexadecimal digits, aligned, to 16 bytes; false: they are not. */
static inline bool
unhex(const char *digits, unsigned char *bytes)
{
#ifdef __SSE2__
	__m128i half[2];
	__m128i good = _mm_set1_epi8(-1);

	for (int i = 0; i < 2; i++)
	{
		__m128i v = _mm_load_si128((const __m128i *) digits + i);
		__m128i number = _mm_sub_epi8(v, _mm_set1_epi8('0'));
		__m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
		/* unsigned comparisons by way of the minimum */
		__m128i is_number = _mm_cmpeq_epi8(_mm_min_epu8(number, _mm_set1_epi8(9)), number);
		__m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(5)), letter);

		good = _mm_and_si128(good, _mm_or_si128(is_number, is_letter));
		v = _mm_or_si128(_mm_and_si128(is_number, number),
						 _mm_andnot_si128(is_number, _mm_add_epi8(letter, _mm_set1_epi8(10))));
		/* of each pair, the first digit is the upper half */
		half[i] = _mm_and_si128(_mm_or_si128(_mm_slli_epi16(v, 4), _mm_srli_epi16(v, 8)),
								_mm_set1_epi16(0xff));
	}
	_mm_storeu_si128((__m128i *) bytes, _mm_packus_epi16(half[0], half[1]));
	return _mm_movemask_epi8(good) == 0xffff;
#else
	unsigned int wrong = 0;

	for (int i = 0; i < UUID_LEN; i++)
	{
		unsigned int high = HEX(digits[2 * i]);
		unsigned int low = HEX(digits[2 * i + 1]);

		wrong |= high | low;
		bytes[i] = (unsigned char) (high << 4 | low);
	}
	return wrong <= 15;
#endif
}

/* A uuid in all the forms PostgreSQL reads: hyphens after any group of four digits, braces around
 * it. */
static KcfReason
parse_uuid(const char *p, size_t len, Datum *value)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));
	const char *end = p + len;
	bool braces = false;

	*value = UUIDPGetDatum(uuid);
	if (len == 36 && p[8] == '-' && p[13] == '-' && p[18] == '-' && p[23] == '-')
	{
		char digits[32] pg_attribute_aligned(16);

		memcpy(digits, p, 8);
		memcpy(digits + 8, p + 9, 4);
		memcpy(digits + 12, p + 14, 4);
		memcpy(digits + 16, p + 19, 4);
		memcpy(digits + 20, p + 24, 12);
		return unhex(digits, uuid->data) ? KCF_OK : KCF_REASON_CONVERT;
	}

	if (p < end && *p == '{')
	{
		braces = true;
		p++;
	}
	for (int i = 0; i < UUID_LEN; i++)
	{
		unsigned int high;
		unsigned int low;

		if (end - p < 2)
			return KCF_REASON_CONVERT;
		high = HEX(p[0]);
		low = HEX(p[1]);
		if (high > 15 || low > 15)
			return KCF_REASON_CONVERT;
		uuid->data[i] = high << 4 | low;
		p += 2;
		if (p < end && *p == '-' && i % 2 == 1 && i < UUID_LEN - 1)
			p++;
	}
	if (braces)
	{
		if (p == end || *p != '}')
			return KCF_REASON_CONVERT;
		p++;
	}
	return p == end ? KCF_OK : KCF_REASON_CONVERT;
}

/* ---- enums: all labels of the type, until pg_enum changes ---- */

typedef struct EnumLabel
{
	Oid oid;
	uint32 len;
	NameData name;
} EnumLabel;

struct KcfEnumLabels
{
	uint64 generation;
	int n;
	EnumLabel label[FLEXIBLE_ARRAY_MEMBER];
};

static uint64 enum_generation = 0;

static void
enum_changed(Datum arg, int cacheid, uint32 hash)
{
	if (enum_generation != 0)
		enum_generation++;
}

static void
load_labels(KcfConverter *conv)
{
	CatCList *list;
	KcfEnumLabels *labels;
	uint64 generation;

	if (enum_generation == 0)
	{
		CacheRegisterSyscacheCallback(ENUMOID, enum_changed, (Datum) 0);
		enum_generation = 1;
	}
	if (conv->labels != NULL)
	{
		pfree(conv->labels);
		conv->labels = NULL;
	}
	/* taken before the catalog is read: a change meanwhile makes these labels old at once */
	generation = enum_generation;
	list = SearchSysCacheList1(ENUMTYPOIDNAME, ObjectIdGetDatum(conv->typid));
	labels = MemoryContextAlloc(conv->mcxt, offsetof(KcfEnumLabels, label) +
												list->n_members * sizeof(EnumLabel));
	labels->generation = generation;
	labels->n = list->n_members;
	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_enum form = (Form_pg_enum) GETSTRUCT(&list->members[i]->tuple);

		labels->label[i].oid = form->oid;
		labels->label[i].name = form->enumlabel;
		labels->label[i].len = strlen(NameStr(form->enumlabel));
	}
	ReleaseSysCacheList(list);
	conv->labels = labels;
}

static KcfReason
find_label(KcfConverter *conv, const char *text, size_t len, Datum *value)
{
	if (conv->labels == NULL || conv->labels->generation != enum_generation)
		load_labels(conv);
	for (int i = 0; i < conv->labels->n; i++)
	{
		EnumLabel *label = &conv->labels->label[i];

		if (label->len == len && memcmp(NameStr(label->name), text, len) == 0)
		{
			*value = ObjectIdGetDatum(label->oid);
			return KCF_OK;
		}
	}
	return KCF_REASON_CONVERT;
}

/* ---- all types ---- */

#ifdef KCF_NO_SOFT_ERRORS
/* Can no number, infinity or NaN begin like this? */
static bool
is_no_number(const char *text, size_t len)
{
	while (len > 0 && is_space(*text))
		text++, len--;
	return len == 0 || strchr("0123456789.+-iInN", *text) == NULL;
}
#endif

/* By the input function. */
static KcfReason
convert_by_input(KcfConverter *conv, const char *text, size_t len, Datum *value)
{
	char *string = pnstrdup(text, len);
	int sqlstate;

#ifdef KCF_NO_SOFT_ERRORS
	switch (conv->kind)
	{
		case KCF_CONVERT_DATE:
		case KCF_CONVERT_TIMESTAMP:
		case KCF_CONVERT_TIMESTAMPTZ:
			if (kcf_time_is_refused(string, conv->kind == KCF_CONVERT_DATE))
				return KCF_REASON_CONVERT;
			break;
		case KCF_CONVERT_NUMERIC:
		case KCF_CONVERT_FLOAT8:
			if (is_no_number(text, len))
				return KCF_REASON_CONVERT;
			break;
		default:
			break;
	}
#endif
	sqlstate = kcf_soft_input(&conv->input, string, conv->ioparam, conv->typmod, value);
	return sqlstate == 0 ? KCF_OK : kcf_reason_of_sqlstate(sqlstate);
}

KcfReason
kcf_convert_text(KcfConverter *conv, const char *text, size_t len, Datum *value)
{
	KcfReason reason;
	bool flag;

	switch (conv->kind)
	{
		case KCF_CONVERT_TEXT:
			*value = PointerGetDatum(cstring_to_text_with_len(text, (int) len));
			return KCF_OK;

		case KCF_CONVERT_VARCHAR:
			/* as many bytes as characters are allowed can be no more characters */
			if (len <= (size_t) (conv->typmod - VARHDRSZ))
			{
				*value = PointerGetDatum(cstring_to_text_with_len(text, (int) len));
				return KCF_OK;
			}
			break;

		case KCF_CONVERT_BOOL:
			while (len > 0 && is_space(*text))
				text++, len--;
			while (len > 0 && is_space(text[len - 1]))
				len--;
			if (!parse_bool_with_len(text, len, &flag))
				return KCF_REASON_CONVERT;
			*value = BoolGetDatum(flag);
			return KCF_OK;

		case KCF_CONVERT_INT2:
		case KCF_CONVERT_INT4:
		case KCF_CONVERT_INT8:
			reason = kcf_integer(conv->kind, text, len, value, &flag);
			if (reason == KCF_OK || !flag)
				return reason;
			break;

		case KCF_CONVERT_UUID:
			return parse_uuid(text, len, value);

		case KCF_CONVERT_DATE:
			if (kcf_parse_date(text, len, value))
				return KCF_OK;
			break;

		case KCF_CONVERT_TIMESTAMP:
		case KCF_CONVERT_TIMESTAMPTZ:
			if (kcf_parse_timestamp(text, len, conv->kind == KCF_CONVERT_TIMESTAMPTZ, value))
				return KCF_OK;
			break;

		case KCF_CONVERT_ENUM:
			return find_label(conv, text, len, value);

		case KCF_CONVERT_DOMAIN:
			reason = kcf_convert_text(conv->base, text, len, value);
			if (reason == KCF_OK)
				domain_check(*value, false, conv->typid, &conv->domain, conv->mcxt);
			return reason;

		default:
			break;
	}
	return convert_by_input(conv, text, len, value);
}
