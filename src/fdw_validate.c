/*
 * fdw_validate.c
 *		The wrapper's validator, and the option table as SQL can see it.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "fmgr.h"
#include "funcapi.h"
#include "options.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(kafka_cache_fdw_validator);
PG_FUNCTION_INFO_V1(kafka_cache_option_table);
PG_FUNCTION_INFO_V1(kafka_cache_property_table);

/* kafka_cache_fdw_validator(options text[], catalog oid) */
Datum
kafka_cache_fdw_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid catalog = PG_GETARG_OID(1);

	kcf_options_validate(options, catalog);
	PG_RETURN_VOID();
}

/*
 * The option table. The extension's script does not declare it: tests and the check of the
 * documentation do. Columns: level, name, expected, default, required, secret, right, alias of,
 * property, newer, doc.
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
		Datum values[11];
		bool nulls[11] = { false };

		values[0] = CStringGetTextDatum(kcf_option_level(option->catalog));
		values[1] = CStringGetTextDatum(option->name);
		values[2] = CStringGetTextDatum(kcf_option_expected(option));
		nulls[3] = (option->value == NULL);
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(option->value);
		values[4] = BoolGetDatum(option->required);
		values[5] = BoolGetDatum(option->secret);
		nulls[6] = (option->right == KCF_RIGHT_NONE);
		values[6] = CStringGetTextDatum(
			option->right == KCF_RIGHT_READ_FILES ? "pg_read_server_files" : "superuser");
		nulls[7] = (option->alias_of == NULL);
		values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(option->alias_of);
		nulls[8] = (option->property == NULL);
		values[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(option->property);
		values[9] = BoolGetDatum(option->newer);
		nulls[10] = (option->doc == NULL);
		values[10] = nulls[10] ? (Datum) 0 : CStringGetTextDatum(option->doc);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Every librdkafka property, for the same tests. Columns: name, class, alias of, newer, why. */
Datum
kafka_cache_property_table(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
	{
		Datum values[5];
		bool nulls[5] = { false };
		char class[2] = { rule->class, '\0' };

		values[0] = CStringGetTextDatum(rule->name);
		values[1] = CStringGetTextDatum(class);
		nulls[2] = (rule->alias_of == NULL);
		values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(rule->alias_of);
		values[3] = BoolGetDatum(rule->newer);
		nulls[4] = (rule->why == NULL);
		values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(rule->why);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
