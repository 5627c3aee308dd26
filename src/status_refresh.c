/*
 * status_refresh.c
 *		The view kafka_cache.refresh_queue and the function kafka_cache.refresh().
 */
#include "postgres.h"

#include "status.h"

#include "catalog_product.h"
#include "product_key.h"
#include "refreshq.h"

#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(kafka_cache_refresh);
PG_FUNCTION_INFO_V1(kafka_cache_refresh_queue);

/* ---- kafka_cache.refresh() ---- */

/* What this transaction asks for. It is heard of at its commit, so that what is computed has seen what it has done. */
typedef struct Asked
{
	SubTransactionId subid;
	Oid relid;
	KcfSlice key;
} Asked;

static Asked *asked = NULL; /* TopTransactionContext */
static int nasked = 0;
static int room = 0;
static Size asked_bytes = 0;

static void
forget_all(void)
{
	asked = NULL;
	nasked = room = 0;
	asked_bytes = 0;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	int refused = 0;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			/* Who commits it is not told what it has asked for. */
			if (nasked > 0)
				ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
								errmsg("cannot PREPARE a transaction that has asked for refreshes"),
								errhint("Call kafka_cache.refresh() after COMMIT PREPARED.")));
			break;
		case XACT_EVENT_COMMIT:
			for (int i = 0; i < nasked; i++)
			{
				if (!kcf_refreshq_request(asked[i].relid, asked[i].key, KCF_REFRESH_ASKED, 0))
					refused++;
			}
			if (refused > 0)
				ereport(WARNING,
						(errmsg("the queue of refreshes is full: %d keys are not in it", refused)));
			forget_all();
			break;
		case XACT_EVENT_ABORT:
			forget_all();
			break;
		default:
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mySubid, SubTransactionId parentSubid,
			   void *arg)
{
	int kept = 0;

	if (nasked == 0 || (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	for (int i = 0; i < nasked; i++)
	{
		if (asked[i].subid == mySubid && event == SUBXACT_EVENT_ABORT_SUB)
			continue;
		asked[kept] = asked[i];
		if (asked[kept].subid == mySubid)
			asked[kept].subid = parentSubid;
		kept++;
	}
	nasked = kept;
}

static void
ask_at_commit(Oid relid, KcfSlice key)
{
	static bool registered = false;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	char *copy;

	if (!registered)
	{
		RegisterXactCallback(at_xact_end, NULL);
		RegisterSubXactCallback(at_subxact_end, NULL);
		registered = true;
	}
	if (nasked == room)
	{
		int more = Max(room * 2, 16);

		asked = asked ? repalloc_huge(asked, more * sizeof(Asked)) : palloc(more * sizeof(Asked));
		room = more;
	}
	copy = palloc(key.len + 1);
	memcpy(copy, key.data, key.len);
	asked[nasked].subid = GetCurrentSubTransactionId();
	asked[nasked].relid = relid;
	asked[nasked].key.data = copy;
	asked[nasked].key.len = key.len;
	nasked++;
	asked_bytes += kcf_refreshq_size(key);
	MemoryContextSwitchTo(old);
}

/* Who may read the product's keys may have it computed: by reading a key that is missing they do. */
Datum
kafka_cache_refresh(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Datum key[KCF_MAX_KEYS];
	KcfTableDef *def;
	KcfSlice bytes;

	kcf_status_check(relid, false);
	def = kcf_catalog_cached(relid);
	kcf_status_check_keys(def);
	if (!kcf_is_product(def))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a data product", get_rel_name(relid)),
						errdetail("The table has no option \"compute\".")));
	kcf_product_key_read(def, PG_GETARG_ARRAYTYPE_P(1), key);
	bytes = kcf_product_key_bytes(def, key);
	if (kcf_my_database() < 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("no refreshers serve this database"),
						errhint("See kafka_cache.databases and kafka_cache.workers.")));
	if (!kcf_refreshq_has_room(asked_bytes + kcf_refreshq_size(bytes)))
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("the queue of refreshes is full"),
						errhint("Raise kafka_cache.refresh_workers or kafka_cache.refresh_load, or "
								"try again later.")));
	ask_at_commit(relid, bytes);
	PG_RETURN_VOID();
}

/* ---- kafka_cache.refresh_queue ---- */

/* Rows of tables that the user may read, keys by the rights on them; what went wrong, for the owner and monitors. */
Datum
kafka_cache_refresh_queue(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext per_row;
	MemoryContext old;
	KcfRefreshRow *rows;
	int n;

	kcf_registry_check();
	InitMaterializedSRF(fcinfo, 0);
	per_row = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache refresh queue",
									ALLOCSET_DEFAULT_SIZES);
	rows = kcf_refreshq_rows(InvalidOid, &n);
	for (int i = 0; i < n; i++)
	{
		const KcfRefreshRow *row = &rows[i];
		KcfSight sight = kcf_status_sight(row->relid);
		Datum values[7];
		bool nulls[7] = { false };
		KcfTableDef *def;
		char *key;

		CHECK_FOR_INTERRUPTS();
		if (sight == KCF_SEE_NOTHING || !kcf_catalog_is_ours(row->relid))
			continue;
		MemoryContextReset(per_row);
		old = MemoryContextSwitchTo(per_row);
		def = kcf_catalog_cached(row->relid);
		key = kcf_status_hidden_key(def) == InvalidAttrNumber ? kcf_product_key_show(def, row->key)
															  : NULL;
		values[0] = ObjectIdGetDatum(row->relid);
		nulls[1] = key == NULL;
		values[1] = key ? CStringGetTextDatum(key) : (Datum) 0;
		values[2] = Int64GetDatum((int64) row->requests);
		nulls[3] = row->first_requested == 0;
		values[3] = TimestampTzGetDatum(row->first_requested);
		values[4] = Int32GetDatum(row->attempts);
		nulls[5] = row->not_before == 0;
		values[5] = TimestampTzGetDatum(row->not_before);
		nulls[6] = row->message[0] == '\0' || sight != KCF_SEE_ALL;
		values[6] = CStringGetTextDatum(row->message);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
	}
	MemoryContextDelete(per_row);
	return (Datum) 0;
}
