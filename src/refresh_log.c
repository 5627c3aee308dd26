/*
 * refresh_log.c
 *		Requests for refreshes that are a part of the transaction which made them necessary.
 *
 * The table belongs to the extension's owner, and whoever's transaction it is reads and writes it as that one. Rows are
 * found by product and a hash of the key, whose bytes may be too long for an index.
 */
#include "postgres.h"

#include "refresh_log.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

/* Which does not depend on the server's life or machine. */
static int64
hash_of(KcfSlice key)
{
	return (int64) hash_bytes_extended((const unsigned char *) key.data, (int) key.len, 0);
}

static Datum
bytea_of(KcfSlice key)
{
	bytea *result = palloc(key.len + VARHDRSZ);

	SET_VARSIZE(result, key.len + VARHDRSZ);
	memcpy(VARDATA(result), key.data, key.len);
	return PointerGetDatum(result);
}

static SPIPlanPtr
prepare(SPIPlanPtr *plan, const char *command, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr made = SPI_prepare(command, nargs, types);

		if (made == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(made);
		*plan = made;
	}
	return *plan;
}

static void
execute(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
}

/* The active snapshot, as text. */
static char *
current_snapshot(void)
{
	return OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, OidFunctionCall0(F_PG_CURRENT_SNAPSHOT));
}

char *
kcf_refresh_log_seen(void)
{
	return current_snapshot();
}

void
kcf_refresh_log_settle(Oid relid, KcfSlice key, int64 logged, const char *seen)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = { OIDOID, INT8OID, BYTEAOID, INT8OID, TEXTOID };
	Datum values[] = { ObjectIdGetDatum(relid), Int64GetDatum(hash_of(key)), bytea_of(key),
					   Int64GetDatum(logged), CStringGetTextDatum(seen) };

	SPI_connect();
	execute(prepare(&plan,
					"DELETE FROM kafka_cache.refresh_log"
					" WHERE product = $1 AND hash = $2 AND key = $3 AND id <= $4"
					" AND pg_visible_in_snapshot(xid, $5::pg_snapshot)",
					5, types),
			values, NULL);
	SPI_finish();
}

void
kcf_refresh_log_settle_one(int64 id)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = { INT8OID };
	Datum values[] = { Int64GetDatum(id) };

	execute(prepare(&plan, "DELETE FROM kafka_cache.refresh_log WHERE id = $1", 1, types), values,
			NULL);
}

void
kcf_refresh_log_add(Oid relid, const KcfSlice *key, Jsonb *hints)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = { OIDOID, INT8OID, BYTEAOID, JSONBOID };
	Datum values[] = { ObjectIdGetDatum(relid), key ? Int64GetDatum(hash_of(*key)) : (Datum) 0,
					   key ? bytea_of(*key) : (Datum) 0,
					   hints ? JsonbPGetDatum(hints) : (Datum) 0 };
	char nulls[] = { ' ', key ? ' ' : 'n', key ? ' ' : 'n', hints ? ' ' : 'n' };

	execute(prepare(&plan,
					"INSERT INTO kafka_cache.refresh_log (product, hash, key, hints)"
					" VALUES ($1, $2, $3, $4)",
					4, types),
			values, nulls);
}

/* ---- reading ------------------------------------------------------------------------------- */

#define READ_AT_ONCE 1000
/* Of no transaction at all. */
#define FIRST_SNAPSHOT "3:3:"

static void
read_row(HeapTuple tuple, TupleDesc desc, KcfLogged *logged)
{
	bool isnull;
	Datum datum;

	memset(logged, 0, sizeof(*logged));
	logged->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	logged->product = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	datum = SPI_getbinval(tuple, desc, 3, &isnull);
	if (!isnull)
	{
		bytea *bytes = DatumGetByteaPP(datum);

		logged->key.data = VARDATA_ANY(bytes);
		logged->key.len = VARSIZE_ANY_EXHDR(bytes);
	}
	datum = SPI_getbinval(tuple, desc, 4, &isnull);
	if (!isnull)
		logged->hints = DatumGetJsonbP(datum);
}

char *
kcf_refresh_log_read(const char *snapshot, KcfLoggedReceiver receiver, void *arg)
{
	Oid types[] = { TEXTOID };
	Datum values[] = { CStringGetTextDatum(snapshot ? snapshot : FIRST_SNAPSHOT) };
	char *now = current_snapshot();
	bool go_on = true;
	Portal portal;

	/* All under one snapshot: the transactions that it does not see are those of the next time. */
	portal = SPI_cursor_open_with_args(
		NULL,
		"SELECT id, product, key, hints FROM kafka_cache.refresh_log"
		" WHERE xid >= pg_snapshot_xmin($1::pg_snapshot)"
		" AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot) ORDER BY id",
		1, types, values, NULL, true, 0);
	while (go_on)
	{
		SPI_cursor_fetch(portal, true, READ_AT_ONCE);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed && go_on; i++)
		{
			KcfLogged logged;

			CHECK_FOR_INTERRUPTS();
			read_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &logged);
			go_on = receiver(arg, &logged);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	return go_on ? now : NULL;
}
