/*
 * fdw_validate.c
 *		The wrapper's validator. The work is in options.c; what takes a whole table is in catalog.c.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "fmgr.h"
#include "options.h"

PG_FUNCTION_INFO_V1(kafka_cache_fdw_validator);

/* kafka_cache_fdw_validator(options text[], catalog oid) */
Datum
kafka_cache_fdw_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid catalog = PG_GETARG_OID(1);

	kcf_options_validate(options, catalog);
	PG_RETURN_VOID();
}
