/*
 * codec_json.c
 *		JSON to Datum, exactly as PostgreSQL's jsonb would have it.
 *
 * A value is taken as (document ->> 'member')::type takes it where the type is a scalar, and as
 * jsonb_populate_record takes it where it is an array or a composite type. The ways below are short
 * cuts to the same results; what they do not cover goes to the server's functions.
 */
#include "postgres.h"

#include "codec_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/execnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* More digits than this are numeric's to judge. */
#define MAX_DIGITS 1000

/* ---- taking text out of a document ---- */

KcfReason
kcf_json_string(const KcfJsonSlice *slice, const char **text, size_t *len)
{
	*text = slice->start;
	*len = slice->len;
	if (likely((slice->flags & (KCF_JSON_ESCAPED | KCF_JSON_NONASCII)) == 0))
		return KCF_OK;
	if (slice->flags & KCF_JSON_NUL)
		return KCF_REASON_ENCODING;
	if (slice->flags & KCF_JSON_ESCAPED)
	{
		char *plain = palloc(slice->len + 1);

		*len = kcf_json_unescape(slice->start, slice->len, plain);
		*text = plain;
		/* the server refuses to guess what a character would be in an unknown encoding */
		if ((slice->flags & KCF_JSON_UNICODE) && GetDatabaseEncoding() == PG_SQL_ASCII)
			return KCF_REASON_ENCODING;
	}
	*text = kcf_server_text(*text, *len, len);
	return KCF_OK;
}

const char *
kcf_json_source(const KcfJsonSlice *slice, size_t *len)
{
	const char *text = slice->start;

	*len = slice->len;
	if (slice->kind == KCF_JSON_STRING)
	{
		text--;
		*len += 2;
	}
	if (slice->flags & KCF_JSON_NONASCII)
		text = kcf_server_text(text, *len, len);
	return text;
}

/* ---- numbers ---- */

/* Only zeros, with a minus sign: as numeric that is zero without a sign. */
static inline bool
is_negative_zero(const KcfJsonSlice *slice)
{
	if (slice->start[0] != '-' || slice->start[1] != '0')
		return false;
	for (uint32 i = 2; i < slice->len; i++)
	{
		if (slice->start[i] >= '1' && slice->start[i] <= '9')
			return false;
	}
	return true;
}

Datum
kcf_json_numeric(const KcfJsonSlice *slice)
{
	const char *p = slice->start;
	const char *end = p + slice->len;

	if ((slice->flags & (KCF_JSON_FRACTION | KCF_JSON_EXPONENT)) == 0 && slice->len <= 18)
	{
		int64 n = 0;
		bool negative = *p == '-';

		if (negative)
			p++;
		while (p < end)
			n = n * 10 + (*p++ - '0');
		return NumericGetDatum(int64_to_numeric(negative ? -n : n));
	}
	return DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(slice->start, slice->len)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* A number's text as jsonb gives it: numeric's, so without exponent, and zero without a sign. */
static const char *
number_text(const KcfJsonSlice *slice, size_t *len)
{
	char *text;

	if ((slice->flags & KCF_JSON_EXPONENT) == 0 && slice->len <= MAX_DIGITS &&
		!is_negative_zero(slice))
	{
		*len = slice->len;
		return slice->start;
	}
	text = DatumGetCString(DirectFunctionCall1(numeric_out, kcf_json_numeric(slice)));
	*len = strlen(text);
	return text;
}

/*
 * A float8 without strtod, where one operation on exact operands gives the exact result: up to 15
 * digits, times or by a power of ten that a double holds exactly.
 */
static bool
exact_float8(const KcfJsonSlice *slice, float8 *result)
{
	static const float8 powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
									 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
									 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
	const char *p = slice->start;
	const char *end = p + slice->len;
	bool negative = *p == '-';
	int64 digits = 0;
	int ndigits = 0;
	int power = 0;
	bool fraction = false;

	if (negative)
		p++;
	for (; p < end && (*p | 0x20) != 'e'; p++)
	{
		if (*p == '.')
		{
			fraction = true;
			continue;
		}
		if (digits != 0 || *p != '0')
			ndigits++;
		if (ndigits > 15)
			return false;
		digits = digits * 10 + (*p - '0');
		power -= fraction;
	}
	if (p < end)
	{
		bool minus = p[1] == '-';
		int n = 0;

		p += 1 + (p[1] == '-' || p[1] == '+');
		if (end - p > 3)
			return false;
		while (p < end)
			n = n * 10 + (*p++ - '0');
		power += minus ? -n : n;
	}
	if (power < -22 || power > 22)
		return false;
	*result = power < 0 ? (float8) digits / powers[-power] : (float8) digits * powers[power];
	/* zero has no sign in numeric */
	if (negative && digits != 0)
		*result = -*result;
	return true;
}

/* ---- types that are no scalars ---- */

/* jsonb_to_record of {"f": value} AS (f type): the very code of the server. */
static KcfReason
populate(KcfConverter *conv, const KcfJsonSlice *slice, Datum *value)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo;
	StringInfoData json;
	const char *text;
	size_t len;
	HeapTupleHeader row;
	HeapTupleData tuple;
	Datum result;
	bool isnull;

	if (slice->flags & KCF_JSON_NUL)
		return KCF_REASON_ENCODING;
	if (conv->populate_desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(conv->mcxt);
		TupleDesc desc = CreateTemplateTupleDesc(1);

		TupleDescInitEntry(desc, 1, "f", conv->typid, conv->typmod, 0);
		desc = BlessTupleDesc(desc);
		fmgr_info(F_JSONB_TO_RECORD, &conv->populate);
		conv->populate_desc = desc;
		MemoryContextSwitchTo(old);
	}

	text = kcf_json_source(slice, &len);
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"f\":");
	appendBinaryStringInfo(&json, text, (int) len);
	appendStringInfoChar(&json, '}');

	memset(&rsinfo, 0, sizeof(rsinfo));
	rsinfo.type = T_ReturnSetInfo;
	rsinfo.expectedDesc = conv->populate_desc;
	InitFunctionCallInfoData(*fcinfo, &conv->populate, 1, InvalidOid, NULL, (Node *) &rsinfo);
	fcinfo->args[0].value = DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
	fcinfo->args[0].isnull = false;
	result = FunctionCallInvoke(fcinfo);

	row = DatumGetHeapTupleHeader(result);
	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	*value = heap_getattr(&tuple, 1, conv->populate_desc, &isnull);
	/* only JSON null becomes NULL, and that does not come here */
	return isnull ? KCF_REASON_CONVERT : KCF_OK;
}

static KcfReason json_datum(KcfConverter *conv, const KcfJsonSlice *slice, Datum *value);

#define FEW 32

/* text[] without NULLs: the elements go right where they belong. */
static KcfReason
text_array(const KcfJsonSlice *elems, int n, Oid typid, Datum *value)
{
	const char *text;
	size_t len;
	Size size = ARR_OVERHEAD_NONULLS(1);
	ArrayType *array;
	char *p;

	/* a string is nowhere longer than in the document */
	for (int i = 0; i < n; i++)
		size += INTALIGN(VARHDRSZ + (Size) elems[i].len);
	array = palloc(size);
	p = (char *) array + ARR_OVERHEAD_NONULLS(1);
	for (int i = 0; i < n; i++)
	{
		KcfReason reason = kcf_json_string(&elems[i], &text, &len);
		Size used;

		if (reason != KCF_OK)
			return reason;
		used = VARHDRSZ + len;
		SET_VARSIZE(p, used);
		memcpy(p + VARHDRSZ, text, len);
		p += used;
		for (; used != INTALIGN(used); used++)
			*p++ = 0;
	}
	SET_VARSIZE(array, p - (char *) array);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = typid;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	*value = PointerGetDatum(array);
	return KCF_OK;
}

/* An array of one dimension; more dimensions are populate's. */
static KcfReason
array_datum(KcfConverter *conv, const KcfJsonSlice *slice, Datum *value)
{
	KcfConverter *base = conv->base;
	KcfJsonSlice few[FEW];
	KcfJsonSlice *elems = few;
	Datum *values;
	bool *nulls;
	int room = FEW;
	int n = 0;
	int lower = 1;
	bool any_null = false;
	bool all_strings = true;
	const char *p = slice->start + 1;
	const char *end = slice->start + slice->len;

	if (!conv->direct)
		return populate(conv, slice, value);
	for (;; n++)
	{
		KcfJsonSlice *elem;

		if (n == room)
		{
			KcfJsonSlice *more = palloc(2 * room * sizeof(KcfJsonSlice));

			memcpy(more, elems, n * sizeof(KcfJsonSlice));
			elems = more;
			room *= 2;
		}
		elem = &elems[n];
		kcf_json_next(&p, end, elem);
		if (elem->kind == KCF_JSON_END_ARRAY)
			break;
		if (elem->kind == KCF_JSON_ARRAY)
			return populate(conv, slice, value);
		if (elem->kind == KCF_JSON_OBJECT)
			kcf_json_skip(&p, end, elem);
		if (elem->kind == KCF_JSON_NULL)
			any_null = true;
		if (elem->kind != KCF_JSON_STRING)
			all_strings = false;
	}
	/* a text in another encoding may grow */
	if (base->kind == KCF_CONVERT_TEXT && all_strings && n > 0 && GetDatabaseEncoding() == PG_UTF8)
		return text_array(elems, n, base->typid, value);

	values = palloc(n * sizeof(Datum) + n * sizeof(bool));
	nulls = (bool *) (values + n);
	for (int i = 0; i < n; i++)
	{
		nulls[i] = elems[i].kind == KCF_JSON_NULL;
		if (nulls[i])
		{
			values[i] = (Datum) 0;
			kcf_convert_null(base);
		}
		else
		{
			KcfReason reason = json_datum(base, &elems[i], &values[i]);

			if (reason != KCF_OK)
				return reason;
		}
	}
	*value = PointerGetDatum(construct_md_array(values, any_null ? nulls : NULL, 1, &n, &lower,
												base->typid, base->typlen, base->typbyval,
												base->typalign));
	return KCF_OK;
}

/* ---- all types ---- */

static KcfReason
json_datum(KcfConverter *conv, const KcfJsonSlice *slice, Datum *value)
{
	const char *text;
	size_t len;
	KcfReason reason;
	float8 number;
	bool odd;

	switch (conv->kind)
	{
		case KCF_CONVERT_BOOL:
			if (slice->kind == KCF_JSON_TRUE || slice->kind == KCF_JSON_FALSE)
			{
				*value = BoolGetDatum(slice->kind == KCF_JSON_TRUE);
				return KCF_OK;
			}
			break;

		case KCF_CONVERT_INT2:
		case KCF_CONVERT_INT4:
		case KCF_CONVERT_INT8:
			if (slice->kind == KCF_JSON_NUMBER && (slice->flags & KCF_JSON_EXPONENT) == 0)
				return kcf_integer(conv->kind, slice->start, slice->len, value, &odd);
			break;

		case KCF_CONVERT_FLOAT8:
			if (slice->kind == KCF_JSON_NUMBER && exact_float8(slice, &number))
			{
				*value = Float8GetDatum(number);
				return KCF_OK;
			}
			break;

		case KCF_CONVERT_NUMERIC:
			if (slice->kind == KCF_JSON_NUMBER)
			{
				*value = kcf_json_numeric(slice);
				if (conv->typmod >= 0)
					*value = DirectFunctionCall2(numeric, *value, Int32GetDatum(conv->typmod));
				return KCF_OK;
			}
			break;

		case KCF_CONVERT_TEXT:
			if (slice->kind != KCF_JSON_STRING)
				break;
			if (slice->flags & (KCF_JSON_ESCAPED | KCF_JSON_NONASCII))
				break;
			*value = PointerGetDatum(cstring_to_text_with_len(slice->start, slice->len));
			return KCF_OK;

		case KCF_CONVERT_JSON:
			text = kcf_json_source(slice, &len);
			*value = PointerGetDatum(cstring_to_text_with_len(text, (int) len));
			return KCF_OK;

		case KCF_CONVERT_JSONB:
			return kcf_jsonb(slice, value);

		case KCF_CONVERT_ARRAY:
			if (slice->kind == KCF_JSON_ARRAY)
				return array_datum(conv, slice, value);
			if (slice->kind != KCF_JSON_STRING)
				return KCF_REASON_CONVERT;
			break;

		case KCF_CONVERT_DOMAIN:
			reason = json_datum(conv->base, slice, value);
			if (reason == KCF_OK)
				domain_check(*value, false, conv->typid, &conv->domain, conv->mcxt);
			return reason;

		case KCF_CONVERT_POPULATE:
			return populate(conv, slice, value);

		default:
			break;
	}

	/* by way of the text that ->> gives */
	switch (slice->kind)
	{
		case KCF_JSON_TRUE:
			text = "true";
			len = 4;
			break;
		case KCF_JSON_FALSE:
			text = "false";
			len = 5;
			break;
		case KCF_JSON_NUMBER:
			text = number_text(slice, &len);
			break;
		case KCF_JSON_STRING:
			reason = kcf_json_string(slice, &text, &len);
			if (reason != KCF_OK)
				return reason;
			break;
		default:
			if (conv->kind < KCF_CONVERT_TEXT)
				return KCF_REASON_CONVERT;
			else
			{
				Datum jsonb;
				Jsonb *jb;

				reason = kcf_jsonb(slice, &jsonb);
				if (reason != KCF_OK)
					return reason;
				jb = DatumGetJsonbP(jsonb);
				text = JsonbToCString(NULL, &jb->root, VARSIZE(jb));
				len = strlen(text);
			}
	}
	return kcf_convert_text(conv, text, len, value);
}

/* Write what the tail names of each element into a JSON array of its own. */
static KcfReason
collect(StringInfo json, const KcfJsonSlice *array, const char *tail)
{
	const char *p = array->start + 1;
	const char *end = array->start + array->len;
	size_t names = strcspn(tail, "[");

	if (array->kind != KCF_JSON_ARRAY)
		return KCF_REASON_CONVERT;
	for (;;)
	{
		KcfJsonSlice elem;
		const char *name = tail;

		kcf_json_next(&p, end, &elem);
		if (elem.kind == KCF_JSON_END_ARRAY)
			return KCF_OK;
		if (elem.kind == KCF_JSON_ARRAY || elem.kind == KCF_JSON_OBJECT)
			kcf_json_skip(&p, end, &elem);
		/* like ->: what is not there is NULL, also where there is no object to have it */
		while (name < tail + names && elem.kind != KCF_JSON_NULL)
		{
			size_t len = strcspn(name, ".[");

			if (!kcf_json_member(&elem, name, len, &elem))
				elem.kind = KCF_JSON_NULL;
			name += len + (name[len] == '.');
		}
		if (tail[names] == '[')
		{
			/* arrays in arrays become one; where there is none, nothing is added */
			const char *rest = tail + names + 2;
			KcfReason reason;

			if (elem.kind == KCF_JSON_NULL)
				continue;
			reason = collect(json, &elem, *rest == '.' ? rest + 1 : rest);
			if (reason != KCF_OK)
				return reason;
			continue;
		}
		if (json->len > 1)
			appendStringInfoChar(json, ',');
		if (elem.kind == KCF_JSON_NULL)
			appendStringInfoString(json, "null");
		else if (elem.kind == KCF_JSON_STRING)
			appendBinaryStringInfo(json, elem.start - 1, (int) elem.len + 2);
		else
			appendBinaryStringInfo(json, elem.start, (int) elem.len);
	}
}

KcfReason
kcf_convert_json(KcfConverter *conv, const KcfJsonSlice *slice, const char *tail, Datum *value,
				 bool *isnull)
{
	*isnull = slice->kind == KCF_JSON_MISSING || slice->kind == KCF_JSON_NULL;
	if (*isnull)
	{
		*value = (Datum) 0;
		kcf_convert_null(conv);
		return KCF_OK;
	}
	if (tail != NULL && *tail != '\0')
	{
		StringInfoData json;
		KcfJsonSlice array;
		const char *text;
		KcfReason reason;

		initStringInfo(&json);
		appendStringInfoChar(&json, '[');
		reason = collect(&json, slice, tail);
		if (reason != KCF_OK)
			return reason;
		appendStringInfoChar(&json, ']');
		array.start = text = json.data;
		array.kind = KCF_JSON_ARRAY;
		array.flags = 0;
		text++;
		kcf_json_skip(&text, json.data + json.len, &array);
		return json_datum(conv, &array, value);
	}
	if (tail != NULL && slice->kind != KCF_JSON_ARRAY)
		return KCF_REASON_CONVERT;
	return json_datum(conv, slice, value);
}
