/*
 * fdw_inspect.c
 *		The option table and what options come to, as rows, for tests and for the check of the documentation.
 *
 * The extension's script does not declare these functions: who wants them declares them, which takes a superuser.
 */
#include "postgres.h"

#include "catalog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "options.h"
#include "product_compute.h"
#include "product_key.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(kafka_cache_option_table);
PG_FUNCTION_INFO_V1(kafka_cache_property_table);
PG_FUNCTION_INFO_V1(kafka_cache_server_properties);
PG_FUNCTION_INFO_V1(kafka_cache_definition);
PG_FUNCTION_INFO_V1(kafka_cache_product);
PG_FUNCTION_INFO_V1(kafka_cache_compute);
PG_FUNCTION_INFO_V1(kafka_cache_augment);

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = (text == NULL);
	*value = text ? CStringGetTextDatum(text) : (Datum) 0;
}

/*
 * (level text, name text, expected text, "default" text, required bool, secret bool, "right" text, alias_of text,
 *	property text, newer bool, doc text)
 */
Datum
kafka_cache_option_table(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int noptions;
	const KcfOption *table = kcf_option_table(&noptions);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < noptions; i++)
	{
		const KcfOption *option = &table[i];
		const char *right = NULL;
		Datum values[11];
		bool nulls[11] = { false };

		if (option->right == KCF_RIGHT_SUPERUSER)
			right = "superuser";
		else if (option->right == KCF_RIGHT_READ_FILES)
			right = "pg_read_server_files";
		put_text(&values[0], &nulls[0], kcf_option_level(option->catalog));
		put_text(&values[1], &nulls[1], option->name);
		put_text(&values[2], &nulls[2], kcf_option_expected(option));
		put_text(&values[3], &nulls[3], option->value);
		values[4] = BoolGetDatum(option->required);
		values[5] = BoolGetDatum(option->secret);
		put_text(&values[6], &nulls[6], right);
		put_text(&values[7], &nulls[7], option->alias_of);
		put_text(&values[8], &nulls[8], option->property);
		values[9] = BoolGetDatum(option->newer);
		put_text(&values[10], &nulls[10], option->doc);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* (name text, class text, alias_of text, newer bool, why text) */
Datum
kafka_cache_property_table(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
	{
		char class[2] = { rule->class, '\0' };
		Datum values[5];
		bool nulls[5] = { false };

		put_text(&values[0], &nulls[0], rule->name);
		put_text(&values[1], &nulls[1], class);
		put_text(&values[2], &nulls[2], rule->alias_of);
		values[3] = BoolGetDatum(rule->newer);
		put_text(&values[4], &nulls[4], rule->why);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* (server oid, role oid) -> (name text, value text): what a client would be built from; secrets are not shown. */
Datum
kafka_cache_server_properties(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KcfServerOptions *server = kcf_options_server(PG_GETARG_OID(0), PG_GETARG_OID(1));
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);
		Datum values[2];
		bool nulls[2];

		put_text(&values[0], &nulls[0], property->name);
		put_text(&values[1], &nulls[1], property->secret ? "********" : property->value);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * (relation regclass) -> (topic text, columns text, nkeys int, rows bigint, client bigint, changes bigint): the cached
 * definition, with its two fingerprints.
 */
Datum
kafka_cache_definition(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = { "json",   "key",       "value",   "partition",
										 "offset", "timestamp", "headers", "dropped" };
	KcfTableDef *def = kcf_catalog_cached(PG_GETARG_OID(0));
	TupleDesc desc;
	StringInfoData columns;
	Datum values[6];
	bool nulls[6] = { false };

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	initStringInfo(&columns);
	for (int i = 0; i < def->desc->natts; i++)
		appendStringInfo(&columns, "%s%s%s%s", i ? " " : "", kinds[def->columns[i].kind],
						 def->columns[i].json_path ? ":" : "",
						 def->columns[i].json_path ? def->columns[i].json_path : "");
	put_text(&values[0], &nulls[0], def->options->topic);
	put_text(&values[1], &nulls[1], columns.data);
	values[2] = Int32GetDatum(def->key.nkeys);
	values[3] = Int64GetDatum((int64) def->fingerprint);
	values[4] = Int64GetDatum((int64) def->client_fingerprint);
	values[5] = Int64GetDatum((int64) kcf_catalog_changes());
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* (relation regclass) -> (shape text, fields text, call text, augment text): what the table's function is to it. */
Datum
kafka_cache_product(PG_FUNCTION_ARGS)
{
	static const char *const shapes[] = { "set", "row", "scalar" };
	KcfTableDef *def = kcf_catalog_cached(PG_GETARG_OID(0));
	const KcfProduct *product = kcf_catalog_product(def);
	TupleDesc desc;
	StringInfoData fields;
	Datum values[4];
	bool nulls[4] = { false };

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	initStringInfo(&fields);
	for (int i = 0; i < product->nfields; i++)
		appendStringInfo(&fields, "%s%s:%s", i ? " " : "", product->fields[i].name,
						 product->fields[i].column > 0 ? "column" : "document");
	put_text(&values[0], &nulls[0],
			 psprintf("%s%s%s", product->bare ? "bare " : "", shapes[product->shape],
					  product->reads_only ? "" : ", volatile"));
	put_text(&values[1], &nulls[1], fields.data);
	put_text(&values[2], &nulls[2], product->call);
	put_text(&values[3], &nulls[3], product->augment_call);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

static text *
text_of(const KcfSlice *document)
{
	char *server = pg_any_to_server(document->data, (int) document->len, PG_UTF8);

	return cstring_to_text_with_len(server, server == document->data ? (int) document->len
																	 : (int) strlen(server));
}

/* (relation regclass, key text[]) -> text: the document that would be put. */
Datum
kafka_cache_compute(PG_FUNCTION_ARGS)
{
	KcfTableDef *def = kcf_catalog_cached(PG_GETARG_OID(0));
	Datum key[KCF_MAX_KEYS];
	KcfSlice document;

	kcf_product_key_read(def, PG_GETARG_ARRAYTYPE_P(1), key);
	document = kcf_product_compute(def, key);
	PG_RETURN_TEXT_P(text_of(&document));
}

/* (relation regclass, key text[], old jsonb, hints jsonb) -> text */
Datum
kafka_cache_augment(PG_FUNCTION_ARGS)
{
	KcfTableDef *def = kcf_catalog_cached(PG_GETARG_OID(0));
	Datum key[KCF_MAX_KEYS];
	KcfSlice document;

	kcf_product_key_read(def, PG_GETARG_ARRAYTYPE_P(1), key);
	document = kcf_product_augment(def, key, PG_GETARG_DATUM(2), PG_GETARG_DATUM(3));
	PG_RETURN_TEXT_P(text_of(&document));
}
