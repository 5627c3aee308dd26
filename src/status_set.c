/*
 * status_set.c
 *		kafka_cache.set and purge: a data product's row put or taken away by hand, if it is the one that is expected.
 *
 * Both hold the key against others of this server that compute or put it, and compare with the newest state of the
 * cache, which has what they have written. Kafka has no such comparison, so another server can come between. They
 * take effect at once: what is sent is not taken back with the transaction.
 */
#include "postgres.h"

#include "status.h"

#include "catalog.h"
#include "catalog_product.h"
#include "codec_write.h"
#include "compat.h"
#include "guc.h"
#include "product.h"
#include "product_key.h"
#include "rowmap.h"
#include "rowmap_write.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(kafka_cache_set);
PG_FUNCTION_INFO_V1(kafka_cache_purge);

/* Of set's argument: there is to be no record. */
#define EXPECT_NONE (-1)

/* ---- rights and arguments ---- */

static void
check(Oid relid, AclMode right)
{
	char *name = get_rel_name(relid);

	kcf_registry_check();
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if (pg_class_aclcheck(relid, GetUserId(), right) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)), name);
	if (!kcf_catalog_is_ours(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a cached table", name),
				 errdetail("It is not a foreign table of the wrapper kafka_cache_fdw.")));
}

/* The table, locked as by a statement that writes to it. */
static KcfTableDef *
open_product(FunctionCallInfo fcinfo, AclMode right, const char *function)
{
	Oid relid;

	PreventCommandIfReadOnly(function);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("relation and key must not be null")));
	relid = PG_GETARG_OID(0);
	check(relid, right);
	LockRelationOid(relid, RowExclusiveLock);
	check(relid, right);
	return kcf_product_def(relid);
}

static int64
expectation(FunctionCallInfo fcinfo, int arg)
{
	int64 expected = PG_GETARG_INT64(arg);

	if (expected < EXPECT_NONE)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("expected offset must not be less than -1"),
						errhint("-1 expects that there is no record.")));
	return expected;
}

/* ---- versions ---- */

static bool
shows_written(Oid relid, void *arg)
{
	KcfTable *table = kcf_status_readable(relid);
	bool shows;

	if (table == NULL)
		return false;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	shows = kcf_table_shows_written(table);
	LWLockRelease(kcf_registry_lock);
	return shows;
}

/* Until the cache has what any session has written, INSERT and DELETE included. */
static void
wait_for_written(Oid relid)
{
	if (!shows_written(relid, NULL) &&
		!kcf_status_wait(relid, shows_written, NULL, kcf_guc_wait_timeout))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("present record of data product \"%s\" is not known", get_rel_name(relid)),
				 errdetail("The cache has not reached what was written to it within "
						   "\"kafka_cache.wait_timeout\"."),
				 errhint("See kafka_cache.tables for its state, and try again.")));
}

/* The key's record, in the newest state; -1: there is none. */
static int64
present_offset(KcfTableDef *def, const Datum *key)
{
	KcfAnswer answer;

	wait_for_written(def->relid);
	return kcf_product_look(def, key, &answer) ? answer.offset : -1;
}

static void
check_expected(const KcfTableDef *def, int64 present, int64 expected)
{
	if (present == expected)
		return;
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("record of data product \"%s\" is not the one that was expected",
						   get_rel_name(def->relid)),
					present < 0 ? errdetail("There is none.")
								: errdetail("Its offset is " INT64_FORMAT ".", present),
					errhint("Fetch it again, and decide anew.")));
}

/* ---- values ---- */

static KcfSlice
print_value(Datum value)
{
	StringInfoData buf;

	initStringInfo(&buf);
	kcf_print_document(value, &buf);
	return (KcfSlice){ buf.data, buf.len };
}

pg_noreturn static void
report_fault(const KcfTableDef *def, const KcfFault *fault)
{
	const char *column =
		fault->column > 0 ? NameStr(TupleDescAttr(def->desc, fault->column - 1)->attname) : NULL;
	int code = fault->reason == KCF_REASON_NOT_NULL  ? ERRCODE_NOT_NULL_VIOLATION
			   : fault->reason == KCF_REASON_CHECK   ? ERRCODE_CHECK_VIOLATION
			   : fault->reason == KCF_REASON_RANGE   ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE
			   : fault->reason == KCF_REASON_CONVERT ? ERRCODE_INVALID_TEXT_REPRESENTATION
													 : ERRCODE_INVALID_PARAMETER_VALUE;

	ereport(ERROR, (errcode(code),
					errmsg("value does not fit data product \"%s\"", get_rel_name(def->relid)),
					column ? errdetail("Column \"%s\": %s.", column, fault->message)
						   : errdetail("The value: %s.", fault->message)));
}

/* Would the record be a bad one? */
static void
check_value(KcfTableDef *def, const Datum *key, KcfSlice value)
{
	KcfRowmap *map;
	KcfDecodedKey decoded = { .canonical = true };
	KcfRecord rec = {
		.value = value, .offset = -1, .timestamp = KCF_NO_TIMESTAMP, .partition = -1
	};
	KcfFault fault;
	KcfRowWriter *writer;
	Datum *values = palloc0(sizeof(Datum) * def->desc->natts);
	bool *isnull = palloc(sizeof(bool) * def->desc->natts);
	int level;
	bool good;

	if (value.len == 4 && memcmp(value.data, "null", 4) == 0)
		return;
	memset(isnull, true, sizeof(bool) * def->desc->natts);
	for (int i = 0; i < def->key.nkeys; i++)
	{
		values[def->key.keys[i].attnum - 1] = key[i];
		isnull[def->key.keys[i].attnum - 1] = false;
	}
	writer = kcf_row_writer_create(def, CurrentMemoryContext);
	kcf_row_write_key(writer, values, isnull, &rec.key);
	if ((int64) (rec.key.len + value.len) > def->options->max_record_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("record of %zu bytes for cached table \"%s\" is too large, the limit "
						"is " INT64_FORMAT,
						rec.key.len + value.len, get_rel_name(def->relid),
						def->options->max_record_bytes),
				 errhint("The limit is the table's option \"max_record_bytes\".")));
	map = kcf_rowmap_create(def, CurrentMemoryContext);
	/* As whoever reads the topic takes it, not as this session's settings would have it. */
	level = kcf_product_settings_fix();
	good = kcf_rowmap_key(map, &rec, &decoded, &fault) == KCF_OK &&
		   kcf_rowmap_row(map, &rec, &decoded, values, isnull, &fault) == KCF_OK;
	kcf_product_settings_restore(level);
	if (!good)
		report_fault(def, &fault);
}

/* ---- functions ---- */

/* set(relation regclass, key text[], value jsonb, expect_offset bigint DEFAULT NULL): its offset */
Datum
kafka_cache_set(PG_FUNCTION_ARGS)
{
	KcfTableDef *def = open_product(fcinfo, ACL_INSERT, "kafka_cache.set()");
	Datum key[KCF_MAX_KEYS];
	KcfSlice value;
	int64 offset;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("value must not be null"),
				 errhint("JSON null says that there is nothing; kafka_cache.purge() forgets what "
						 "there is.")));
	kcf_product_key_read(def, PG_GETARG_ARRAYTYPE_P(1), key);
	value = print_value(PG_GETARG_DATUM(2));
	check_value(def, key, value);

	kcf_product_lock(def, key);
	if (!PG_ARGISNULL(3))
		check_expected(def, present_offset(def, key), expectation(fcinfo, 3));
	offset = kcf_product_put(def, GetUserId(), key, value,
							 kcf_product_millis(GetCurrentTimestamp()), NULL);
	kcf_product_unlock(def, key);
	PG_RETURN_INT64(offset);
}

/* purge(relation regclass, key text[], expect_offset bigint DEFAULT NULL): was there one? */
Datum
kafka_cache_purge(PG_FUNCTION_ARGS)
{
	KcfTableDef *def = open_product(fcinfo, ACL_DELETE, "kafka_cache.purge()");
	Datum key[KCF_MAX_KEYS];
	KcfSlice tombstone = { NULL, 0 };
	int64 present;

	kcf_product_key_read(def, PG_GETARG_ARRAYTYPE_P(1), key);
	kcf_product_lock(def, key);
	present = present_offset(def, key);
	if (!PG_ARGISNULL(2))
		check_expected(def, present, expectation(fcinfo, 2));
	if (present >= 0)
		(void) kcf_product_put(def, GetUserId(), key, tombstone,
							   kcf_product_millis(GetCurrentTimestamp()), NULL);
	kcf_product_unlock(def, key);
	PG_RETURN_BOOL(present >= 0);
}
