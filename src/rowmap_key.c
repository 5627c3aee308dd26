/*
 * rowmap_key.c
 *		The key columns of a record, and what we would have written for them.
 *
 * A key is its decoded value: two spellings are one key. Where the bytes received are not what we
 * would write ourselves, they are not canonical, and the row keeps them for later writes of that
 * key. In doubt they are not: then a row costs a few bytes more, while a wrong yes would write to
 * another key of the topic.
 */
#include "postgres.h"

#include "rowmap_internal.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

static KcfKeySpelling
spelling_of(Oid basetype)
{
	switch (basetype)
	{
		case TEXTOID:
			return KCF_SPELLING_TEXT;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return KCF_SPELLING_INTEGER;
		case UUIDOID:
			return KCF_SPELLING_UUID;
		case BOOLOID:
		case NUMERICOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case OIDOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
			return KCF_SPELLING_OUTPUT;
		default:
			return get_typtype(basetype) == TYPTYPE_ENUM ? KCF_SPELLING_OUTPUT
														 : KCF_SPELLING_DOUBTFUL;
	}
}

/* Does no setting, and nobody's taste, have a say in how it looks in JSON? */
static bool
certain_in_json(Oid basetype)
{
	switch (basetype)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case TEXTOID:
		case VARCHAROID:
		case UUIDOID:
			return true;
		default:
			return false;
	}
}

KcfKeyWriter *
kcf_key_writers_create(const KcfTableDef *def)
{
	const KcfKeyType *key = &def->key;
	KcfKeyWriter *writers = palloc0(sizeof(KcfKeyWriter) * key->nkeys);

	for (int i = 0; i < key->nkeys; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(def->desc, key->keys[i].attnum - 1);
		Oid basetype = getBaseType(attr->atttypid);
		StringInfoData name;

		initStringInfo(&name);
		kcf_print_string(NameStr(attr->attname), strlen(NameStr(attr->attname)), &name);
		appendStringInfoChar(&name, ':');
		writers[i].name = name.data;
		writers[i].name_len = name.len;
		writers[i].printer = kcf_printer_create(attr->atttypid);
		writers[i].spelling = spelling_of(basetype);
		writers[i].certain_in_json = certain_in_json(basetype);
	}
	return writers;
}

void
kcf_key_print(const KcfTableDef *def, const KcfKeyWriter *writers, const Datum *values,
			  StringInfo buf)
{
	bytea *bytes;

	switch (def->options->key_format)
	{
		case KCF_FORMAT_TEXT:
			kcf_print_text(writers[0].printer, values[0], buf);
			break;
		case KCF_FORMAT_BYTEA:
			bytes = DatumGetByteaPP(values[0]);
			appendBinaryStringInfo(buf, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			break;
		case KCF_FORMAT_JSON:
			/* compact, in the order of the columns */
			appendStringInfoChar(buf, '{');
			for (int i = 0; i < def->key.nkeys; i++)
			{
				if (i > 0)
					appendStringInfoChar(buf, ',');
				appendBinaryStringInfo(buf, writers[i].name, writers[i].name_len);
				kcf_print_json(writers[i].printer, values[i], buf);
			}
			appendStringInfoChar(buf, '}');
			break;
	}
}

void
kcf_rowmap_create_key(KcfRowmap *map)
{
	KcfKeyType *key = &map->def->key;

	map->key_writers = kcf_key_writers_create(map->def);
	initStringInfo(&map->key_text);
	map->key_members = palloc0(sizeof(KcfJsonPath) * key->nkeys);
	for (int i = 0; i < key->nkeys; i++)
	{
		map->key_members[i].text =
			NameStr(TupleDescAttr(map->def->desc, key->keys[i].attnum - 1)->attname);
		map->key_members[i].plain = true;
	}
	map->key_paths = kcf_rowmap_paths(map->key_members, key->nkeys, &map->key_slots);
}

static bool
is_ascii(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(p[i]))
			return false;
	}
	return true;
}

/* An integer with digits and a minus sign only, without leading zeros. */
static bool
canonical_integer(const char *p, size_t len)
{
	const char *end = p + len;

	if (len == 1 && *p == '0')
		return true;
	if (p < end && *p == '-')
		p++;
	if (p == end || *p < '1')
		return false;
	for (; p < end; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
	}
	return true;
}

/* Of bytes that have been read as a uuid: small letters and the usual hyphens? */
static inline bool
is_written_uuid(const char *p)
{
	uint64 word;
	uint64 all = ~UINT64CONST(0);

	/* of what a uuid consists of, only capitals lack this bit (a brace does not fit in) */
	for (int i = 0; i < 32; i += 8)
	{
		memcpy(&word, p + i, 8);
		all &= word;
	}
	memcpy(&word, p + 28, 8);
	all &= word;
	return (all & UINT64CONST(0x2020202020202020)) == UINT64CONST(0x2020202020202020) &&
		   p[8] == '-' && p[13] == '-' && p[18] == '-' && p[23] == '-';
}

static bool
is_what_we_write(KcfRowmap *map, const Datum *values, const KcfSlice *raw)
{
	StringInfo buf = &map->key_text;

	resetStringInfo(buf);
	kcf_key_print(map->def, map->key_writers, values, buf);
	return buf->len == (int) raw->len && memcmp(buf->data, raw->data, raw->len) == 0;
}

/* Are these bytes what everybody would write for the value? */
static bool
canonical_text(KcfRowmap *map, Datum value, const KcfSlice *raw)
{
	KcfKeyWriter *writer = &map->key_writers[0];

	switch (writer->spelling)
	{
		case KCF_SPELLING_TEXT:
			return true;
		case KCF_SPELLING_INTEGER:
			return canonical_integer(raw->data, raw->len);
		case KCF_SPELLING_UUID:
			return raw->len == 36 && is_written_uuid(raw->data);
		case KCF_SPELLING_OUTPUT:
			return is_what_we_write(map, &value, raw);
		case KCF_SPELLING_DOUBTFUL:
			break;
	}
	return false;
}

/* One column, from text in the database's encoding. */
static KcfReason
decode_text_key(KcfRowmap *map, const KcfRecord *rec, KcfDecodedKey *key, KcfFault *fault)
{
	AttrNumber attnum = map->def->key.keys[0].attnum;
	KcfConverter *conv = map->columns[attnum - 1].conv;
	const char *text;
	size_t len;
	KcfReason reason;

	if (!kcf_utf8_valid(rec->key.data, rec->key.len))
		return kcf_rowmap_fault(fault, KCF_REASON_ENCODING, attnum, "the key is not valid UTF-8");
	map->column = attnum;
	text = kcf_server_text(rec->key.data, rec->key.len, &len);
	reason = kcf_convert_text(conv, text, len, &key->values[0]);
	if (reason != KCF_OK)
		return kcf_rowmap_fault(fault, KCF_REASON_KEY, attnum, "the key is not valid as type %s",
								kcf_converter_type(conv));
	/* what was converted between encodings is taken for doubtful */
	key->canonical = text == rec->key.data && canonical_text(map, key->values[0], &rec->key);
	return KCF_OK;
}

static KcfReason
decode_json_key(KcfRowmap *map, const KcfRecord *rec, KcfDecodedKey *key, KcfFault *fault)
{
	KcfKeyType *type = &map->def->key;
	KcfJsonResult result;
	KcfJsonStatus status =
		kcf_json_scan(map->key_paths, rec->key.data, rec->key.len, map->key_slots, &result);

	if (status == KCF_JSON_ENCODING)
		return kcf_rowmap_fault(fault, KCF_REASON_ENCODING, 0, "the key is not valid UTF-8");
	if (status != KCF_JSON_VALID)
		return kcf_rowmap_fault(fault, KCF_REASON_KEY, 0, "the key is not valid JSON");
	/* one column takes a bare scalar too */
	if (type->nkeys == 1 && result.root.kind != KCF_JSON_OBJECT &&
		result.root.kind != KCF_JSON_ARRAY)
		map->key_slots[map->key_members[0].slot] = result.root;
	else if (result.root.kind != KCF_JSON_OBJECT)
		return kcf_rowmap_fault(fault, KCF_REASON_KEY, 0, "the key is not a JSON object");

	for (int i = 0; i < type->nkeys; i++)
	{
		AttrNumber attnum = type->keys[i].attnum;
		KcfConverter *conv = map->columns[attnum - 1].conv;
		KcfReason reason;
		bool isnull;

		map->column = attnum;
		reason = kcf_convert_json(conv, &map->key_slots[map->key_members[i].slot], NULL,
								  &key->values[i], &isnull);
		if (reason != KCF_OK)
			return kcf_rowmap_fault(fault, KCF_REASON_KEY, attnum,
									"the key's member is not valid as type %s",
									kcf_converter_type(conv));
		if (isnull)
			return kcf_rowmap_fault(fault, KCF_REASON_KEY, attnum,
									"the key lacks this member, or it is null");
	}

	key->canonical = result.root.kind == KCF_JSON_OBJECT &&
					 (GetDatabaseEncoding() == PG_UTF8 || is_ascii(rec->key.data, rec->key.len));
	for (int i = 0; i < type->nkeys; i++)
		key->canonical &= map->key_writers[i].certain_in_json;
	key->canonical = key->canonical && is_what_we_write(map, key->values, &rec->key);
	return KCF_OK;
}

KcfReason
kcf_rowmap_key(KcfRowmap *map, const KcfRecord *rec, KcfDecodedKey *key, KcfFault *fault)
{
	KcfTableOptions *options = map->def->options;
	KcfReason reason = KCF_OK;

	map->in_key = true;
	map->column = 0;
	map->check = NULL;
	if (rec->key.data == NULL)
		return kcf_rowmap_fault(fault, KCF_REASON_NULL_KEY, 0, "the record has no key");
	if (options->max_record_bytes > 0 && rec->key.len > (uint64) options->max_record_bytes)
		return kcf_rowmap_fault(fault, KCF_REASON_TOO_LARGE, 0,
								"the key has %zu bytes, the limit is " INT64_FORMAT, rec->key.len,
								options->max_record_bytes);
	switch (options->key_format)
	{
		case KCF_FORMAT_TEXT:
			reason = decode_text_key(map, rec, key, fault);
			break;
		case KCF_FORMAT_JSON:
			reason = decode_json_key(map, rec, key, fault);
			break;
		case KCF_FORMAT_BYTEA:
			key->values[0] =
				PointerGetDatum(cstring_to_text_with_len(rec->key.data, (int) rec->key.len));
			key->canonical = true;
			break;
	}
	if (reason == KCF_OK)
		key->hash = kcf_key_hash(&map->def->key, key->values);
	return reason;
}
