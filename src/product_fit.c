/*
 * product_fit.c
 *		A key that a comparison has brought, as the key columns have it.
 *
 * Lengths and domains are what casts make of a value, but they may raise an error, where a condition that nothing
 * fulfills is meant to give no row. So they are asked within a subtransaction; columns that have neither cost nothing.
 */
#include "postgres.h"

#include "product_fit.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

static bool
is_bounded(const KcfTableDef *def, int i)
{
	Form_pg_attribute attr = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1);

	return attr->atttypmod >= 0 || get_typtype(attr->atttypid) == TYPTYPE_DOMAIN;
}

/* As an explicit cast to the column's type, which cuts off and rounds. */
static Datum
cast_value(const KcfTableDef *def, int i, Datum value)
{
	Form_pg_attribute attr = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1);
	int32 typmod = attr->atttypmod;
	Oid base = getBaseTypeAndTypmod(attr->atttypid, &typmod);
	Oid function;

	if (typmod >= 0 && find_typmod_coercion_function(base, &function) == COERCION_PATH_FUNC)
		value = OidFunctionCall3Coll(function, attr->attcollation, value, Int32GetDatum(typmod),
									 BoolGetDatum(true));
	if (base != attr->atttypid)
		domain_check(value, false, attr->atttypid, NULL, NULL);
	return value;
}

static bool
is_equal(const KcfKeyColumn *column, Datum a, Datum b)
{
	return DatumGetBool(OidFunctionCall2Coll(get_opcode(column->eq_opr), column->collation, a, b));
}

static bool
fits(const KcfTableDef *def, const Datum *values, Datum *fitting)
{
	bool result = true;

	for (int i = 0; i < def->key.nkeys && result; i++)
	{
		if (!is_bounded(def, i))
			continue;
		fitting[i] = cast_value(def, i, values[i]);
		result = is_equal(&def->key.keys[i], values[i], fitting[i]);
	}
	return result;
}

/* Is it the value that is wrong? */
static bool
is_of_value(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		   ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
}

bool
kcf_product_key_fits(const KcfTableDef *def, const Datum *values, Datum *fitting)
{
	MemoryContext mcxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = false;
	bool bounded = false;

	for (int i = 0; i < def->key.nkeys; i++)
	{
		fitting[i] = values[i];
		bounded |= is_bounded(def, i);
	}
	if (!bounded)
		return true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(mcxt);
	PG_TRY();
	{
		result = fits(def, values, fitting);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(mcxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(mcxt);
		CurrentResourceOwner = owner;
		if (!is_of_value(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	CurrentResourceOwner = owner;
	return result;
}
