/*
 * codec_write.c
 *		Datum to text and to JSON: the common types at once, everything else by its output function.
 *
 * A scalar is written so that (document ->> 'member')::type gives it back: numbers and booleans as JSON has them, the
 * rest as strings. Times are those of ISO 8601 and in UTC, numbers have all their digits, whatever the session wants
 * to see.
 */
#include "postgres.h"

#include <math.h>

#include "codec_write_internal.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

/* ---- which printer a type gets ---- */

static KcfPrintKind
kind_of(Oid typid)
{
	switch (typid)
	{
		case BOOLOID:
			return KCF_PRINT_BOOL;
		case INT2OID:
			return KCF_PRINT_INT2;
		case INT4OID:
			return KCF_PRINT_INT4;
		case INT8OID:
			return KCF_PRINT_INT8;
		case FLOAT4OID:
			return KCF_PRINT_FLOAT4;
		case FLOAT8OID:
			return KCF_PRINT_FLOAT8;
		case NUMERICOID:
			return KCF_PRINT_NUMERIC;
		case UUIDOID:
			return KCF_PRINT_UUID;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return KCF_PRINT_TEXT;
		case DATEOID:
			return KCF_PRINT_DATE;
		case TIMEOID:
			return KCF_PRINT_TIME;
		case TIMETZOID:
			return KCF_PRINT_TIMETZ;
		case TIMESTAMPOID:
			return KCF_PRINT_TIMESTAMP;
		case TIMESTAMPTZOID:
			return KCF_PRINT_TIMESTAMPTZ;
		case BYTEAOID:
			return KCF_PRINT_BYTEA;
		case JSONOID:
			return KCF_PRINT_JSON;
		case JSONBOID:
			return KCF_PRINT_JSONB;
		case INT2VECTOROID:
		case OIDVECTOROID:
			/* arrays that begin at 0, so their text it is */
			return KCF_PRINT_OUTPUT;
		default:
			break;
	}
	if (get_typtype(typid) == TYPTYPE_COMPOSITE)
		return KCF_PRINT_COMPOSITE;
	if (OidIsValid(get_element_type(typid)))
		return KCF_PRINT_ARRAY;
	return KCF_PRINT_OUTPUT;
}

KcfPrinter *
kcf_printer_create(Oid typid)
{
	KcfPrinter *printer = palloc0(sizeof(KcfPrinter));
	Oid output;
	bool varlena;

	/* types that contain types end somewhere, but that may be far away */
	check_stack_depth();
	typid = getBaseType(typid);
	printer->kind = kind_of(typid);
	printer->typid = typid;
	getTypeOutputInfo(typid, &output, &varlena);
	fmgr_info(output, &printer->output);
	switch (printer->kind)
	{
		case KCF_PRINT_ARRAY:
			kcf_printer_create_array(printer);
			break;
		case KCF_PRINT_COMPOSITE:
			kcf_printer_create_composite(printer);
			break;
		case KCF_PRINT_OUTPUT:
			printer->json_settings = kcf_output_settings(typid);
			break;
		default:
			break;
	}
	/* text is what the output function says, but for what is printed here whatever the settings are */
	if (printer->kind >= KCF_PRINT_ARRAY)
		printer->text_settings = kcf_output_settings(typid);
	return printer;
}

int
kcf_printer_settings(const KcfPrinter *printer, bool json)
{
	return json ? printer->json_settings : printer->text_settings;
}

/* ---- strings ---- */

#define ONES UINT64CONST(0x0101010101010101)
#define HIGHS UINT64CONST(0x8080808080808080)

/* Has one of these 8 bytes to be escaped: a control character, a quote, a backslash? */
static inline bool
needs_escape(uint64 w)
{
	uint64 quote = w ^ (ONES * '"');
	uint64 backslash = w ^ (ONES * '\\');

	return (((w - ONES * 0x20) & ~w) | ((quote - ONES) & ~quote) |
			((backslash - ONES) & ~backslash)) &
		   HIGHS;
}

/* One character escaped as escape_json does it. Returns behind it. */
static char *
escape_char(char *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	*out++ = '\\';
	switch (c)
	{
		case '\b':
			*out++ = 'b';
			break;
		case '\f':
			*out++ = 'f';
			break;
		case '\n':
			*out++ = 'n';
			break;
		case '\r':
			*out++ = 'r';
			break;
		case '\t':
			*out++ = 't';
			break;
		case '"':
		case '\\':
			*out++ = (char) c;
			break;
		default:
			*out++ = 'u';
			*out++ = '0';
			*out++ = '0';
			*out++ = hex[c >> 4];
			*out++ = hex[c & 15];
			break;
	}
	return out;
}

void
kcf_print_utf8_string(const char *text, size_t len, StringInfo buf)
{
	const char *end = text + len;
	char *out;

	if (unlikely(len > MaxAllocSize / 2))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a value of %zu bytes cannot be written as JSON", len)));
	/* the quotes, and 8 bytes that may be copied too many */
	out = kcf_reserve(buf, (int) len + 10);
	*out++ = '"';
	while (text < end)
	{
		uint64 word;

		if (likely(end - text >= 8))
		{
			memcpy(&word, text, 8);
			if (likely(!needs_escape(word)))
			{
				memcpy(out, &word, 8);
				text += 8;
				out += 8;
				continue;
			}
		}
		for (const char *stop = text + Min(8, end - text); text < stop; text++)
		{
			unsigned char c = (unsigned char) *text;

			if (likely(c >= ' ' && c != '"' && c != '\\'))
				*out++ = (char) c;
			else
			{
				out = escape_char(out, c);
				/* it is longer than there was room for */
				buf->len = (int) (out - buf->data);
				out = kcf_reserve(buf, (int) (end - text) + 10);
			}
		}
	}
	*out++ = '"';
	*out = '\0';
	buf->len = (int) (out - buf->data);
}

/* What has been appended in the server's encoding since start, in UTF-8. */
static inline void
to_utf8(StringInfo buf, int start)
{
	char *converted;

	if (likely(GetDatabaseEncoding() == PG_UTF8))
		return;
	converted = pg_server_to_any(buf->data + start, buf->len - start, PG_UTF8);
	if (converted != buf->data + start)
	{
		buf->len = start;
		appendStringInfoString(buf, converted);
		pfree(converted);
	}
}

void
kcf_print_string(const char *text, size_t len, StringInfo buf)
{
	int start = buf->len;

	kcf_print_utf8_string(text, len, buf);
	to_utf8(buf, start);
}

/* ---- numbers ---- */

pg_noreturn static void
refuse_number(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s cannot be written as JSON", what),
			 errhint("JSON has no such number; write NULL instead.")));
}

static void
print_float(KcfPrinter *printer, Datum value, bool json, StringInfo buf)
{
	float8 number =
		printer->kind == KCF_PRINT_FLOAT4 ? DatumGetFloat4(value) : DatumGetFloat8(value);
	char *out = kcf_reserve(buf, DOUBLE_SHORTEST_DECIMAL_LEN);

	if (json && unlikely(isnan(number)))
		refuse_number("NaN");
	if (json && unlikely(isinf(number)))
		refuse_number("infinity");
	if (printer->kind == KCF_PRINT_FLOAT4)
		buf->len += float_to_shortest_decimal_buf(DatumGetFloat4(value), out);
	else
		buf->len += double_to_shortest_decimal_buf(number, out);
}

static void
print_numeric(Datum value, bool json, StringInfo buf)
{
	Numeric number = DatumGetNumeric(value);

	if (json && unlikely(numeric_is_nan(number)))
		refuse_number("NaN");
	if (json && unlikely(numeric_is_inf(number)))
		refuse_number("infinity");
	appendStringInfoString(
		buf, DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number))));
}

/* ---- bytes ---- */

static inline char *
print_hex(const unsigned char *bytes, size_t len, char *out)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++)
	{
		*out++ = hex[bytes[i] >> 4];
		*out++ = hex[bytes[i] & 15];
	}
	return out;
}

static void
print_uuid(Datum value, StringInfo buf)
{
	const unsigned char *bytes = DatumGetUUIDP(value)->data;
	char *out = kcf_reserve(buf, 36);

	out = print_hex(bytes, 4, out);
	*out++ = '-';
	out = print_hex(bytes + 4, 2, out);
	*out++ = '-';
	out = print_hex(bytes + 6, 2, out);
	*out++ = '-';
	out = print_hex(bytes + 8, 2, out);
	*out++ = '-';
	print_hex(bytes + 10, 6, out);
	buf->len += 36;
}

static void
print_bytea(Datum value, bool json, StringInfo buf)
{
	bytea *bytes = DatumGetByteaPP(value);
	size_t len = VARSIZE_ANY_EXHDR(bytes);
	char *out;

	if (unlikely(len > MaxAllocSize / 2 - 8))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a value of %zu bytes cannot be written", len)));
	out = kcf_reserve(buf, (int) (2 * len) + 3);
	/* in JSON the backslash of \x is doubled */
	if (json)
		*out++ = '\\';
	*out++ = '\\';
	*out++ = 'x';
	out = print_hex((unsigned char *) VARDATA_ANY(bytes), len, out);
	buf->len = (int) (out - buf->data);
}

/* ---- all types ---- */

/* Text of what is no container, in the server's encoding; for strings of JSON it holds nothing to be escaped but the
 * backslash of bytea, which is. */
static void
print_scalar(KcfPrinter *printer, Datum value, bool json, StringInfo buf)
{
	switch (printer->kind)
	{
		case KCF_PRINT_INT2:
			buf->len += pg_ltoa(DatumGetInt16(value), kcf_reserve(buf, 12));
			break;
		case KCF_PRINT_INT4:
			buf->len += pg_ltoa(DatumGetInt32(value), kcf_reserve(buf, 12));
			break;
		case KCF_PRINT_INT8:
			buf->len += pg_lltoa(DatumGetInt64(value), kcf_reserve(buf, MAXINT8LEN + 1));
			break;
		case KCF_PRINT_FLOAT4:
		case KCF_PRINT_FLOAT8:
			print_float(printer, value, json, buf);
			break;
		case KCF_PRINT_NUMERIC:
			print_numeric(value, json, buf);
			break;
		case KCF_PRINT_UUID:
			print_uuid(value, buf);
			break;
		case KCF_PRINT_DATE:
			kcf_print_date(DatumGetDateADT(value), buf);
			break;
		case KCF_PRINT_TIME:
		case KCF_PRINT_TIMETZ:
			kcf_print_time(value, printer->kind == KCF_PRINT_TIMETZ, json, buf);
			break;
		case KCF_PRINT_TIMESTAMP:
		case KCF_PRINT_TIMESTAMPTZ:
			kcf_print_timestamp(DatumGetTimestamp(value), printer->kind == KCF_PRINT_TIMESTAMPTZ,
								json, buf);
			break;
		case KCF_PRINT_BYTEA:
			print_bytea(value, json, buf);
			break;
		default:
			Assert(false);
	}
}

void
kcf_print_raw_json(KcfPrinter *printer, Datum value, StringInfo buf)
{
	switch (printer->kind)
	{
		case KCF_PRINT_BOOL:
			if (DatumGetBool(value))
				appendBinaryStringInfo(buf, "true", 4);
			else
				appendBinaryStringInfo(buf, "false", 5);
			break;
		case KCF_PRINT_INT2:
		case KCF_PRINT_INT4:
		case KCF_PRINT_INT8:
		case KCF_PRINT_FLOAT4:
		case KCF_PRINT_FLOAT8:
		case KCF_PRINT_NUMERIC:
			print_scalar(printer, value, true, buf);
			break;
		case KCF_PRINT_UUID:
		case KCF_PRINT_DATE:
		case KCF_PRINT_TIME:
		case KCF_PRINT_TIMETZ:
		case KCF_PRINT_TIMESTAMP:
		case KCF_PRINT_TIMESTAMPTZ:
		case KCF_PRINT_BYTEA:
			appendStringInfoCharMacro(buf, '"');
			print_scalar(printer, value, true, buf);
			appendStringInfoCharMacro(buf, '"');
			break;
		case KCF_PRINT_TEXT:
		{
			text *t = DatumGetTextPP(value);

			kcf_print_utf8_string(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), buf);
			break;
		}
		case KCF_PRINT_JSON:
			kcf_print_raw_source(value, printer->nested, buf);
			break;
		case KCF_PRINT_JSONB:
			kcf_print_raw_jsonb(value, true, buf);
			break;
		case KCF_PRINT_ARRAY:
			kcf_print_raw_array(printer, value, buf);
			break;
		case KCF_PRINT_COMPOSITE:
			kcf_print_raw_composite(printer, value, buf);
			break;
		case KCF_PRINT_OUTPUT:
		{
			char *text = OutputFunctionCall(&printer->output, value);

			kcf_print_utf8_string(text, strlen(text), buf);
			break;
		}
	}
}

void
kcf_print_json(KcfPrinter *printer, Datum value, StringInfo buf)
{
	int start = buf->len;

	kcf_print_raw_json(printer, value, buf);
	to_utf8(buf, start);
}

void
kcf_print_text(KcfPrinter *printer, Datum value, StringInfo buf)
{
	int start = buf->len;

	switch (printer->kind)
	{
		case KCF_PRINT_TEXT:
		case KCF_PRINT_JSON:
		{
			text *t = DatumGetTextPP(value);

			appendBinaryStringInfo(buf, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
			break;
		}
		case KCF_PRINT_BOOL:
			appendStringInfoCharMacro(buf, DatumGetBool(value) ? 't' : 'f');
			break;
		case KCF_PRINT_JSONB:
		case KCF_PRINT_ARRAY:
		case KCF_PRINT_COMPOSITE:
		case KCF_PRINT_OUTPUT:
			appendStringInfoString(buf, OutputFunctionCall(&printer->output, value));
			break;
		default:
			print_scalar(printer, value, false, buf);
			break;
	}
	to_utf8(buf, start);
}

void
kcf_print_document(Datum jsonb, StringInfo buf)
{
	int start = buf->len;

	kcf_print_raw_jsonb(jsonb, false, buf);
	to_utf8(buf, start);
}
