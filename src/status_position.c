/*
 * status_position.c
 *		Positions as SQL values: kafka_cache.position, and reading one.
 */
#include "postgres.h"

#include "status.h"

#include "compat.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(kafka_cache_position);

/* ---- reading ---- */

pg_noreturn static void
bad_position(const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid position"),
					errdetail_internal("%s", detail),
					errhint("A position is an object from partition to offset, as in {\"0\": "
							"28262, \"1\": -1}.")));
}

/* An integer from a jsonb number, without its being rounded. */
static int64
jsonb_int64(const JsonbValue *value)
{
	Datum number;
	Datum whole;

	if (value->type != jbvNumeric)
		bad_position("An offset is not a number.");
	number = NumericGetDatum(value->val.numeric);
	whole = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, number, whole)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))) ||
		DatumGetBool(
			DirectFunctionCall2(numeric_lt, number, NumericGetDatum(int64_to_numeric(-1)))))
		bad_position("An offset is not an integer from -1 to 9223372036854775807.");
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

/* A partition's number; its only spelling is digits without a leading zero. */
static int32
key_partition(const char *text, int len)
{
	int64 number = 0;
	bool good = len > 0 && len <= 10 && (len == 1 || text[0] != '0');

	for (int i = 0; i < len && good; i++)
	{
		good = text[i] >= '0' && text[i] <= '9';
		number = number * 10 + (text[i] - '0');
	}
	if (!good || number > PG_INT32_MAX)
		bad_position("A member's name is not the number of a partition.");
	return (int32) number;
}

KcfPosition *
kcf_status_read_position(Jsonb *jsonb)
{
	KcfPosition *wanted;
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		bad_position("It is not an object.");
	wanted = palloc(offsetof(KcfPosition, parts) + JB_ROOT_COUNT(jsonb) * sizeof(wanted->parts[0]));
	wanted->n = 0;
	it = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			wanted->parts[wanted->n].partition =
				key_partition(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			wanted->parts[wanted->n++].offset = jsonb_int64(&value);
	}
	return wanted;
}

/* ---- printing ---- */

static Jsonb *
print_position(const KcfPartition *partitions, int n)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue key;
		JsonbValue value;

		key.type = jbvString;
		key.val.string.val = psprintf("%d", i);
		key.val.string.len = strlen(key.val.string.val);
		pushJsonbValue(&state, WJB_KEY, &key);
		value.type = jbvNumeric;
		value.val.numeric = int64_to_numeric(
			(int64) pg_atomic_read_u64((pg_atomic_uint64 *) &partitions[i].next) - 1);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

Jsonb *
kcf_status_position(Oid relid)
{
	KcfTable *table = kcf_status_readable(relid);
	KcfPartition *partitions;
	bool served;
	int n;

	if (table == NULL)
		return NULL;
	for (;;)
	{
		bool shown;

		partitions = kcf_table_partitions(table, relid, &served, &n);
		LWLockAcquire(kcf_registry_lock, LW_SHARED);
		shown = kcf_table_shows_followed(table);
		LWLockRelease(kcf_registry_lock);
		if (shown || !served)
			break;
		/* They were those of contents about to be published: a matter of microseconds. */
		CHECK_FOR_INTERRUPTS();
		pg_usleep(100);
		pfree(partitions);
	}
	return served ? print_position(partitions, n) : NULL;
}

pg_noreturn static void
report_no_position(Oid relid)
{
	KcfTable *table;
	const char *word;
	const char *text;
	char detail[sizeof(table->text)];
	bool listed = kcf_status_is_listed();
	bool all = kcf_status_sight(relid) == KCF_SEE_ALL;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	word = kcf_status_state(kcf_table_find(MyDatabaseId, relid), listed, &text);
	strlcpy(detail, all ? text : "", sizeof(detail));
	LWLockRelease(kcf_registry_lock);
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cached table \"%s\" has no position yet", get_rel_name(relid)),
					detail[0] ? errdetail("Its state is \"%s\": %s.", word, detail)
							  : errdetail("Its state is \"%s\".", word),
					errhint("Wait for it with kafka_cache.wait_ready().")));
}

/* position(relation regclass): what a statement that starts now sees at least. */
Datum
kafka_cache_position(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Jsonb *position;

	kcf_status_check(relid, false);
	position = kcf_status_position(relid);
	if (position == NULL)
		report_no_position(relid);
	PG_RETURN_JSONB_P(position);
}
