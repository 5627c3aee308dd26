/*
 * codec.c
 *		What converters are made of: which types are converted here and which by the server's
 * functions.
 */
#include "postgres.h"

#include "codec_internal.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static const char *const reason_names[KCF_NREASONS] = {
	[KCF_OK] = "ok",
	[KCF_REASON_ENCODING] = "encoding",
	[KCF_REASON_JSON] = "json",
	[KCF_REASON_JSON_SHAPE] = "json_shape",
	[KCF_REASON_CONVERT] = "convert",
	[KCF_REASON_RANGE] = "range",
	[KCF_REASON_NOT_NULL] = "not_null",
	[KCF_REASON_CHECK] = "check",
	[KCF_REASON_KEY] = "key",
	[KCF_REASON_KEY_MISMATCH] = "key_mismatch",
	[KCF_REASON_NULL_KEY] = "null_key",
	[KCF_REASON_TOO_LARGE] = "too_large",
	[KCF_REASON_HEADERS] = "headers",
};

const char *
kcf_reason_name(KcfReason reason)
{
	return reason_names[reason];
}

KcfReason
kcf_reason_of_sqlstate(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE:
			return KCF_REASON_RANGE;
		case ERRCODE_CHARACTER_NOT_IN_REPERTOIRE:
		case ERRCODE_UNTRANSLATABLE_CHARACTER:
			return KCF_REASON_ENCODING;
		case ERRCODE_CHECK_VIOLATION:
			return KCF_REASON_CHECK;
		case ERRCODE_NOT_NULL_VIOLATION:
			return KCF_REASON_NOT_NULL;
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return KCF_REASON_TOO_LARGE;
		default:
			return KCF_REASON_CONVERT;
	}
}

static KcfConvertKind
kind_of(Oid typid, int32 typmod)
{
	char typtype;

	switch (typid)
	{
		case BOOLOID:
			return KCF_CONVERT_BOOL;
		case INT2OID:
			return KCF_CONVERT_INT2;
		case INT4OID:
			return KCF_CONVERT_INT4;
		case INT8OID:
			return KCF_CONVERT_INT8;
		case FLOAT8OID:
			return KCF_CONVERT_FLOAT8;
		case NUMERICOID:
			return KCF_CONVERT_NUMERIC;
		case UUIDOID:
			return KCF_CONVERT_UUID;
		case DATEOID:
			return KCF_CONVERT_DATE;
		case TIMESTAMPOID:
			return typmod < 0 ? KCF_CONVERT_TIMESTAMP : KCF_CONVERT_INPUT;
		case TIMESTAMPTZOID:
			return typmod < 0 ? KCF_CONVERT_TIMESTAMPTZ : KCF_CONVERT_INPUT;
		case TEXTOID:
			return KCF_CONVERT_TEXT;
		case VARCHAROID:
			return typmod < 0 ? KCF_CONVERT_TEXT : KCF_CONVERT_VARCHAR;
		case JSONOID:
			return KCF_CONVERT_JSON;
		case JSONBOID:
			return KCF_CONVERT_JSONB;
		default:
			break;
	}
	typtype = get_typtype(typid);
	if (typtype == TYPTYPE_DOMAIN)
		return KCF_CONVERT_DOMAIN;
	if (typtype == TYPTYPE_COMPOSITE)
		return KCF_CONVERT_POPULATE;
	if (typtype == TYPTYPE_ENUM)
		return KCF_CONVERT_ENUM;
	if (OidIsValid(get_element_type(typid)))
		return KCF_CONVERT_ARRAY;
	return KCF_CONVERT_INPUT;
}

KcfConverter *
kcf_converter_create(Oid typid, int32 typmod)
{
	KcfConverter *conv = palloc0(sizeof(KcfConverter));
	Oid input;

	conv->kind = kind_of(typid, typmod);
	conv->typid = typid;
	conv->typmod = typmod;
	conv->mcxt = CurrentMemoryContext;
	conv->type_name = format_type_with_typemod(typid, typmod);
	get_typlenbyvalalign(typid, &conv->typlen, &conv->typbyval, &conv->typalign);
	getTypeInputInfo(typid, &input, &conv->ioparam);
	fmgr_info(input, &conv->input);

	if (conv->kind == KCF_CONVERT_DOMAIN)
	{
		Oid base = getBaseTypeAndTypmod(typid, &typmod);

		conv->base = kcf_converter_create(base, typmod);
	}
	else if (conv->kind == KCF_CONVERT_ARRAY)
	{
		KcfConverter *base = kcf_converter_create(get_element_type(typid), typmod);

		conv->base = base;
		while (base->kind == KCF_CONVERT_DOMAIN)
			base = base->base;
		/* in an array even json is written anew, from jsonb */
		conv->direct = base->kind <= KCF_CONVERT_INPUT && base->kind != KCF_CONVERT_JSON;
	}
	return conv;
}

const char *
kcf_converter_type(const KcfConverter *conv)
{
	return conv->type_name;
}

void
kcf_convert_null(KcfConverter *conv)
{
	if (conv->kind == KCF_CONVERT_DOMAIN)
		domain_check((Datum) 0, true, conv->typid, &conv->domain, conv->mcxt);
}

const char *
kcf_server_text(const char *utf8, size_t len, size_t *server_len)
{
	int encoding = GetDatabaseEncoding();
	unsigned char *converted;

	*server_len = len;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII || len == 0)
		return utf8;
	converted = pg_do_encoding_conversion((unsigned char *) utf8, (int) len, PG_UTF8, encoding);
	if (converted != (unsigned char *) utf8)
		*server_len = strlen((char *) converted);
	return (char *) converted;
}
