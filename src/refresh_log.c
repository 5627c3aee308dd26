/*
 * refresh_log.c
 *		Requests for refreshes that are a part of the transaction which made them necessary.
 *
 * The table belongs to the extension's owner, and whoever's transaction it is reads and writes it as that one. Rows are
 * found by product and a hash of the key, whose bytes may be too long for an index.
 */
#include "postgres.h"

#include "refresh_log.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

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

void
kcf_refresh_log_settle(Oid relid, KcfSlice key, int64 logged)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = { OIDOID, INT8OID, BYTEAOID, INT8OID };
	Datum values[] = { ObjectIdGetDatum(relid), Int64GetDatum(hash_of(key)), bytea_of(key),
					   Int64GetDatum(logged) };

	SPI_connect();
	if (plan == NULL)
	{
		plan = SPI_prepare(
			"DELETE FROM kafka_cache.refresh_log"
			" WHERE product OPERATOR(pg_catalog.=) $1 AND hash OPERATOR(pg_catalog.=) $2"
			" AND key OPERATOR(pg_catalog.=) $3 AND id OPERATOR(pg_catalog.<=) $4",
			4, types);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from kafka_cache.refresh_log");
	SPI_finish();
}
