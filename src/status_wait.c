/*
 * status_wait.c
 *		kafka_cache.wait_ready, position, wait_for and reload: a table's readiness and positions as SQL values.
 *
 * Whoever waits sleeps on the condition variable of the database; consumers broadcast when they have published
 * something, but only while somebody sleeps. No lock on the table is held meanwhile, so it can be altered or
 * dropped; its definition is looked at again each time.
 */
#include "postgres.h"

#include <math.h>

#include "status.h"

#include "catalog.h"
#include "compat.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(kafka_cache_wait_ready);
PG_FUNCTION_INFO_V1(kafka_cache_position);
PG_FUNCTION_INFO_V1(kafka_cache_wait_for);
PG_FUNCTION_INFO_V1(kafka_cache_reload);

#define FOREVER_MS ((int64) 100 * 365 * 24 * 3600 * 1000)

/* A position to wait for: partitions in any order, each once. */
typedef struct Wanted
{
	int n;
	struct
	{
		int32 partition;
		int64 offset;
	} parts[FLEXIBLE_ARRAY_MEMBER];
} Wanted;

/* ---- waiting ---- */

/* The table as a reader would find it now, NULL: nothing that it could read. */
static KcfTable *
readable_table(Oid relid)
{
	KcfTable *table;
	KcfTableDef *def;
	KcfSeq seq;

	AcceptInvalidationMessages();
	def = kcf_catalog_cached(relid);
	table = kcf_table_find(MyDatabaseId, relid);
	if (table == NULL)
		return NULL;
	seq = kcf_clock_published(table->database, table->clock);
	return kcf_table_store(table, def->fingerprint, seq) ? table : NULL;
}

/* Has the table passed this position? wanted NULL: just be readable. */
static bool
is_reached(Oid relid, const Wanted *wanted)
{
	KcfTable *table = readable_table(relid);
	bool reached = table != NULL;

	if (table == NULL || wanted == NULL)
		return reached;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	reached = kcf_table_shows_followed(table);
	for (int i = 0; i < wanted->n && reached; i++)
	{
		int32 partition = wanted->parts[i].partition;

		reached = partition < table->followed.n &&
				  (int64) pg_atomic_read_u64(&table->followed.array[partition].next) >
					  wanted->parts[i].offset;
	}
	LWLockRelease(kcf_registry_lock);
	return reached;
}

static int64
interval_ms(const Interval *interval)
{
	double ms = interval->time / 1000.0 +
				(interval->day + (double) interval->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

	return ms <= 0 ? 0 : ms >= (double) FOREVER_MS ? FOREVER_MS : (int64) ceil(ms);
}

static bool
wait_until_reached(Oid relid, const Wanted *wanted, const Interval *timeout)
{
	int64 timeout_ms = interval_ms(timeout);
	instr_time start;
	int database;
	bool reached;

	if (!kcf_status_is_listed())
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cached tables of this database are not kept"),
			 errhint("Add the database to kafka_cache.databases and reload the configuration.")));

	INSTR_TIME_SET_CURRENT(start);
	if (readable_table(relid) == NULL)
		kcf_database_look(MyDatabaseId);
	database = kcf_my_database();
	kcf_wait_prepare(database);
	while (!(reached = is_reached(relid, wanted)))
	{
		instr_time now;
		int64 left;

		/* The database's place may be new, or another one by now. */
		if (kcf_my_database() != database)
		{
			kcf_wait_cancel(database);
			database = kcf_my_database();
			kcf_wait_prepare(database);
			continue;
		}
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = timeout_ms - (int64) INSTR_TIME_GET_MILLISEC(now);
		if (!kcf_wait_sleep(database, (long) Min(left, PG_INT32_MAX)) && left <= PG_INT32_MAX)
			break;
	}
	kcf_wait_cancel(database);
	/* What became true with the last tick counts. */
	return reached || is_reached(relid, wanted);
}

/* wait_ready(relation regclass, timeout interval) */
Datum
kafka_cache_wait_ready(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);

	kcf_status_check(relid, false);
	PG_RETURN_BOOL(wait_until_reached(relid, NULL, PG_GETARG_INTERVAL_P(1)));
}

/* ---- positions ---- */

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

static Wanted *
read_position(Jsonb *jsonb)
{
	Wanted *wanted;
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		bad_position("It is not an object.");
	wanted = palloc(offsetof(Wanted, parts) + JB_ROOT_COUNT(jsonb) * sizeof(wanted->parts[0]));
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

/* wait_for(relation regclass, position jsonb, timeout interval) */
Datum
kafka_cache_wait_for(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);

	kcf_status_check(relid, false);
	PG_RETURN_BOOL(
		wait_until_reached(relid, read_position(PG_GETARG_JSONB_P(1)), PG_GETARG_INTERVAL_P(2)));
}

/* position(relation regclass): what a statement that starts now sees at least. */
Datum
kafka_cache_position(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	KcfTable *table;
	KcfPartition *partitions = NULL;
	bool served = false;
	int n = 0;
	JsonbParseState *state = NULL;

	kcf_status_check(relid, false);
	table = readable_table(relid);
	if (table)
		partitions = kcf_table_partitions(table, &served, &n);
	if (!served)
	{
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
		value.val.numeric = int64_to_numeric((int64) pg_atomic_read_u64(&partitions[i].next) - 1);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* reload(relation regclass): again from the log; what is there serves meanwhile. */
Datum
kafka_cache_reload(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	KcfTable *table;

	kcf_status_check(relid, true);
	table = kcf_table_find(MyDatabaseId, relid);
	/* One that the consumer has not met yet will be read from the start anyway. */
	if (table)
		pg_atomic_fetch_add_u32(&table->reload_wanted, 1);
	kcf_database_wake(MyDatabaseId);
	PG_RETURN_VOID();
}
