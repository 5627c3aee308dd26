/*
 * rules_keys.c
 *		From rows that have changed to the keys of a product: the function of a rule, and the query around it.
 *
 * The function stands in FROM, so one in SQL is planned together with the query, and all changes are one statement. It is
 * known by its name alone; the types of its arguments are those of the source's rows, whatever the source is called now.
 */
#include "postgres.h"

#include "rules_internal.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

Oid
kcf_rule_function(const KcfRule *rule)
{
	Oid row = get_rel_type_id(rule->source);
	Oid types[] = { row, row };

	if (!OidIsValid(row))
		return InvalidOid;
	return LookupFuncName(textToQualifiedNameList(cstring_to_text(rule->keys)), 2, types, true);
}

void
kcf_rule_check_function(KcfTableDef *product, Oid function)
{
	TupleDesc desc;
	Oid type;
	Oid types[KCF_MAX_KEYS];
	int ncolumns = 0;

	if (get_func_prokind(function) != PROKIND_FUNCTION)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("%s is not a function that could be called in FROM",
							   format_procedure(function))));
	switch (get_func_result_type(function, &type, &desc))
	{
		case TYPEFUNC_SCALAR:
			ncolumns = type == VOIDOID ? 0 : 1;
			types[0] = type;
			break;
		case TYPEFUNC_COMPOSITE:
		case TYPEFUNC_COMPOSITE_DOMAIN:
			for (int i = 0; i < desc->natts; i++)
			{
				if (TupleDescAttr(desc, i)->attisdropped)
					continue;
				if (ncolumns < KCF_MAX_KEYS)
					types[ncolumns] = TupleDescAttr(desc, i)->atttypid;
				ncolumns++;
			}
			break;
		default:
			break;
	}
	if (ncolumns != product->key.nkeys)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("function %s does not return keys of data product \"%s\"",
							   format_procedure(function), get_rel_name(product->relid)),
						errdetail_plural("The product has %d key column.",
										 "The product has %d key columns.", product->key.nkeys,
										 product->key.nkeys),
						errhint("Let it return a set of their types, in their order.")));
	/* Else it would be the source's writers who hear of it. */
	for (int i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(product->desc, product->key.keys[i].attnum - 1);

		if (!can_coerce_type(1, &types[i], &att->atttypid, COERCION_EXPLICIT))
			ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
							errmsg("function %s does not return keys of data product \"%s\"",
								   format_procedure(function), get_rel_name(product->relid)),
							errdetail("Column \"%s\" has type %s, the function's is of type %s.",
									  NameStr(att->attname), format_type_be(att->atttypid),
									  format_type_be(types[i])),
							errhint("Let it return a set of their types, in their order.")));
	}
}

/* Old and new rows, as two columns of the source's row type. */
static void
add_rows(StringInfo buf, const KcfRule *rule, KcfRuleRows rows)
{
	char *type = format_type_be_qualified(get_rel_type_id(rule->source));

	if (rows == KCF_RULE_CHANGES)
	{
		appendStringInfoString(buf, KCF_RULE_CHANGES_NAME);
		return;
	}
	appendStringInfoChar(buf, '(');
	if (rows != KCF_RULE_OLD)
		appendStringInfo(buf,
						 "SELECT NULL::%s AS old, ROW(n.*)::%s AS new FROM " KCF_RULE_NEW_NAME " n",
						 type, type);
	if (rows == KCF_RULE_BOTH)
		appendStringInfoString(buf, " UNION ALL ");
	if (rows != KCF_RULE_NEW)
		appendStringInfo(buf,
						 "SELECT ROW(o.*)::%s AS old, NULL::%s AS new FROM " KCF_RULE_OLD_NAME " o",
						 type, type);
	appendStringInfoChar(buf, ')');
}

static void
add_key_names(StringInfo buf, const KcfTableDef *product, const char *table, bool types)
{
	for (int i = 0; i < product->key.nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(product->desc, product->key.keys[i].attnum - 1);

		appendStringInfo(buf, "%s%sk%d", i > 0 ? ", " : "", table, i + 1);
		if (types)
			appendStringInfo(buf, "::%s AS k%d", format_type_be_qualified(att->atttypid), i + 1);
	}
}

/* What a change is about, each key once. */
static void
add_keys_of_change(StringInfo buf, KcfTableDef *product, Oid function)
{
	appendStringInfoString(buf, "(SELECT DISTINCT ");
	add_key_names(buf, product, "f.", true);
	appendStringInfo(buf, " FROM %s(c.old, c.new) f(",
					 quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
												get_func_name(function)));
	add_key_names(buf, product, "", false);
	appendStringInfoString(buf, "))");
}

char *
kcf_rule_query(const KcfRule *rule, KcfTableDef *product, Oid function, KcfRuleRows rows)
{
	StringInfoData buf;
	bool hints = OidIsValid(kcf_catalog_product(product)->augment);

	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT ");
	add_key_names(&buf, product, "k.", false);
	if (hints)
		appendStringInfo(
			&buf,
			", jsonb_agg(jsonb_build_object('source', %s, 'old', to_jsonb(c.old),"
			" 'new', to_jsonb(c.new)))",
			quote_literal_cstr(quote_qualified_identifier(
				get_namespace_name(get_rel_namespace(rule->source)), get_rel_name(rule->source))));
	appendStringInfoString(&buf, " FROM ");
	add_rows(&buf, rule, rows);
	appendStringInfoString(&buf, " c CROSS JOIN LATERAL ");
	add_keys_of_change(&buf, product, function);
	appendStringInfoString(&buf, " k GROUP BY ");
	add_key_names(&buf, product, "k.", false);
	return buf.data;
}

void
kcf_rule_keys(SPIPlanPtr plan, KcfTableDef *product, KcfRuleKey receiver, void *arg)
{
	int nkeys = product->key.nkeys;
	MemoryContext caller = CurrentMemoryContext;
	int result = SPI_execute_plan(plan, NULL, NULL, false, 0);

	/* SPI has changed it. */
	MemoryContextSwitchTo(caller);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	for (uint64 n = 0; n < SPI_processed; n++)
	{
		HeapTuple tuple = SPI_tuptable->vals[n];
		TupleDesc desc = SPI_tuptable->tupdesc;
		Datum key[KCF_MAX_KEYS];
		bool isnull = false;
		Datum hints = (Datum) 0;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < nkeys && !isnull; i++)
			key[i] = SPI_getbinval(tuple, desc, i + 1, &isnull);
		if (isnull)
			continue;
		if (desc->natts > nkeys)
			hints = SPI_getbinval(tuple, desc, nkeys + 1, &isnull);
		receiver(arg, key, desc->natts > nkeys ? DatumGetJsonbP(hints) : NULL);
	}
	SPI_freetuptable(SPI_tuptable);
}
