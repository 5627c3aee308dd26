/*
 * rowmap_keytext.c
 *		A key as text, for those who are told of it.
 */
#include "postgres.h"

#include "rowmap_keytext.h"

#include "rowmap_write_internal.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"

/* Does a finite number stand here? */
static bool
is_number(const char *text)
{
	return (*text >= '0' && *text <= '9') || (*text == '-' && text[1] >= '0' && text[1] <= '9');
}

/* As a string what no number of JSON can say. */
static void
print_number(KcfPrinter *printer, Datum value, StringInfo buf)
{
	StringInfoData text;

	initStringInfo(&text);
	kcf_print_text(printer, value, &text);
	if (is_number(text.data))
		appendBinaryStringInfo(buf, text.data, text.len);
	else
		kcf_print_utf8_string(text.data, text.len, buf);
	pfree(text.data);
}

/*
 * Values inside of this one may be such that JSON cannot say them. Nothing but memory is held while it is printed, so
 * that this error can be caught without more ado.
 */
static void
print_container(KcfPrinter *printer, Datum value, StringInfo buf)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool said = true;
	int start = buf->len;
	StringInfoData text;

	PG_TRY();
	{
		kcf_print_json(printer, value, buf);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_INVALID_PARAMETER_VALUE)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		said = false;
	}
	PG_END_TRY();
	if (said)
		return;
	buf->len = start;
	initStringInfo(&text);
	kcf_print_text(printer, value, &text);
	kcf_print_utf8_string(text.data, text.len, buf);
	pfree(text.data);
}

static void
print_member(const KcfTableDef *def, const KcfKeyWriter *writer, int i, Datum value, StringInfo buf)
{
	switch (def->key.keys[i].typid)
	{
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			print_number(writer->printer, value, buf);
			break;
		default:
			if (writer->certain_in_json)
				kcf_print_json(writer->printer, value, buf);
			else
				print_container(writer->printer, value, buf);
			break;
	}
}

static char *
in_server_encoding(StringInfo buf)
{
	/* what is printed has no end of its own */
	*kcf_reserve(buf, 0) = '\0';
	return pg_any_to_server(buf->data, buf->len, PG_UTF8);
}

char *
kcf_key_text(KcfRowWriter *writer, const Datum *key)
{
	const KcfTableDef *def = writer->def;
	const KcfKeyWriter *keys = writer->keys;
	int nkeys = def->key.nkeys;
	StringInfoData buf;
	int settings = 0;
	int level;

	initStringInfo(&buf);
	for (int i = 0; i < nkeys; i++)
	{
		settings |= kcf_printer_settings(keys[i].printer, false);
		settings |= kcf_printer_settings(keys[i].printer, true);
	}
	level = kcf_settings_fix(settings);
	if (nkeys == 1)
		kcf_print_text(keys[0].printer, key[0], &buf);
	else
	{
		for (int i = 0; i < nkeys; i++)
		{
			appendStringInfoChar(&buf, i == 0 ? '{' : ',');
			appendBinaryStringInfo(&buf, keys[i].name, keys[i].name_len);
			print_member(def, &keys[i], i, key[i], &buf);
		}
		appendStringInfoChar(&buf, '}');
	}
	kcf_settings_restore(level);
	return in_server_encoding(&buf);
}

char *
kcf_tuple_key_text(KcfRowWriter *writer, HeapTupleHeader header, uint32 tuple_len)
{
	const KcfKeyType *type = &writer->def->key;
	HeapTupleData tuple = { .t_len = tuple_len, .t_data = header };
	Datum key[KCF_MAX_KEYS];

	for (int i = 0; i < type->nkeys; i++)
	{
		bool isnull;

		key[i] = heap_getattr(&tuple, type->keys[i].attnum, writer->def->desc, &isnull);
		Assert(!isnull);
	}
	return kcf_key_text(writer, key);
}
