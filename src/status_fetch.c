/*
 * status_fetch.c
 *		kafka_cache.fetch and fetch_many: a data product's value with its version and age, by key.
 *
 * What SELECT by key does, in one call: fresh and stale values from memory, a refresh asked for where it is stale,
 * computed where there is none. Nothing is a value too: it is NULL, and has a version.
 */
#include "postgres.h"

#include "status.h"

#include "catalog.h"
#include "catalog_product.h"
#include "compat.h"
#include "product.h"
#include "product_key.h"
#include "refreshq.h"
#include "rowmap.h"
#include "rowmap_write.h"
#include "snapshot.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(kafka_cache_fetch);
PG_FUNCTION_INFO_V1(kafka_cache_fetch_many);

/* The answers of one call. */
typedef struct Fetch
{
	KcfTableDef *def;
	TimestampTz now; /* ages are judged as of then */
	EState *estate;  /* of the statement, which gets one answer for one key; may be NULL */
	KcfSnapshot *snapshot;
	const volatile bool *lost;
	KcfView view;
	KcfRowWriter *writer;
	int value; /* index of a jsonb column that is all of the document, or -1 */
	Datum *values;
	bool *isnull;
	int64 hits;
	int64 misses;
	int64 stale;
} Fetch;

/* In CurrentMemoryContext. */
typedef struct Fetched
{
	Datum value;
	bool nothing;
	int64 offset; /* -1: it was not kept */
	int64 timestamp;
	bool stale;
} Fetched;

/* ---- what is asked ---- */

/* The document's column, where it is all that there is to say and is what we are asked for. */
static int
value_column(const KcfTableDef *def)
{
	int column = -1;

	for (int i = 0; i < def->desc->natts; i++)
	{
		const KcfColumnOptions *options = &def->columns[i];

		if (options->kind == KCF_COLUMN_JSON ||
			(options->kind == KCF_COLUMN_KEY && options->json_path))
			return -1;
		if (options->kind == KCF_COLUMN_VALUE && TupleDescAttr(def->desc, i)->atttypid == JSONBOID)
			column = i;
	}
	return column;
}

static void
check(Oid relid)
{
	kcf_status_check(relid, false);
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(relid));
}

static void
begin(Fetch *fetch, Oid relid, ReturnSetInfo *rsinfo)
{
	check(relid);
	/* As a scan has it: the definition stays what it is. */
	LockRelationOid(relid, AccessShareLock);
	check(relid);
	memset(fetch, 0, sizeof(*fetch));
	fetch->def = kcf_product_def(relid);
	fetch->estate = rsinfo->econtext->ecxt_estate;
	fetch->now = GetCurrentStatementStartTimestamp();
	fetch->value = value_column(fetch->def);
	fetch->writer = kcf_row_writer_create(fetch->def, CurrentMemoryContext);
	fetch->values = palloc(sizeof(Datum) * fetch->def->desc->natts);
	fetch->isnull = palloc(sizeof(bool) * fetch->def->desc->natts);
}

/* The newest state, unless the transaction has one. */
static void
acquire(Fetch *fetch)
{
	Oid relid = fetch->def->relid;

	if (IsolationUsesXactSnapshot() && fetch->estate)
		fetch->snapshot = kcf_snapshot_acquire_for(fetch->estate, relid);
	else
		fetch->snapshot = kcf_snapshot_acquire_relation(relid);
	fetch->lost = kcf_snapshot_lost_flag(fetch->snapshot);
	kcf_snapshot_view(fetch->snapshot, relid, &fetch->view);
}

static void
release(Fetch *fetch)
{
	kcf_snapshot_release(fetch->snapshot);
	fetch->snapshot = NULL;
	kcf_product_count(fetch->def->relid, fetch->hits, fetch->misses, fetch->stale);
}

/* ---- values ---- */

/* A document, in UTF-8, as jsonb. */
static Datum
jsonb_of(KcfSlice document)
{
	size_t len;
	const char *text = kcf_server_text(document.data, document.len, &len);

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text, len)));
}

/* The document of a row, of whose columns it is made. */
static Datum
document_of(Fetch *fetch, const Datum *values, const bool *isnull)
{
	const KcfTableDef *def = fetch->def;
	bool *given;
	KcfRecord rec;

	if (fetch->value >= 0 && !isnull[fetch->value])
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(values[fetch->value]));
	given = palloc(sizeof(bool) * def->desc->natts);
	for (int i = 0; i < def->desc->natts; i++)
		given[i] = isnull[i] || kcf_column_is_metadata(def->columns[i].kind);
	kcf_row_write(fetch->writer, values, given, &rec);
	return jsonb_of(rec.value);
}

static void
take_row(Fetch *fetch, const KcfRow *row, Fetched *fetched)
{
	KcfSlice raw = kcf_row_raw_value(row);
	HeapTupleData tuple = { .t_tableOid = fetch->def->relid };

	fetched->nothing = kcf_row_is_nothing(row);
	fetched->offset = row->offset;
	fetched->timestamp = row->timestamp;
	if (fetched->nothing)
		return;
	if (raw.data)
	{
		fetched->value = jsonb_of(raw);
		return;
	}
	tuple.t_len = row->tuple_len;
	tuple.t_data = kcf_row_tuple(row);
	heap_deform_tuple(&tuple, fetch->def->desc, fetch->values, fetch->isnull);
	fetched->value = document_of(fetch, fetch->values, fetch->isnull);
}

static void
take_answer(Fetch *fetch, const KcfAnswer *answer, Fetched *fetched)
{
	fetched->nothing = !answer->found;
	fetched->offset = answer->kept ? answer->offset : -1;
	fetched->timestamp = answer->timestamp;
	fetched->stale = false;
	if (answer->found)
		fetched->value = document_of(fetch, answer->values, answer->isnull);
}

/* ---- one key ---- */

/* From memory; false: it has to be computed. */
static bool
look_up(Fetch *fetch, const Datum *key, Fetched *fetched)
{
	const KcfKeyType *type = &fetch->def->key;
	uint64 hash = kcf_key_hash(type, key);
	const KcfRow *row = NULL;
	KcfAge age;

	kcf_snapshot_check(fetch->snapshot, fetch->lost);
	if (fetch->view.store)
		row = kcf_store_find_any(fetch->view.store, type, hash, key, fetch->view.seq);
	age = row ? kcf_product_age(fetch->def, row, fetch->now) : KCF_AGE_EXPIRED;
	if (age == KCF_AGE_EXPIRED)
	{
		fetch->misses++;
		return false;
	}
	take_row(fetch, row, fetched);
	fetch->hits++;
	fetched->stale = age == KCF_AGE_STALE;
	if (fetched->stale)
	{
		fetch->stale++;
		(void) kcf_refreshq_request(fetch->def->relid, kcf_product_key_bytes(fetch->def, key),
									KCF_REFRESH_READ, 0);
	}
	return true;
}

static void
compute(Fetch *fetch, const Datum *key, Fetched *fetched)
{
	KcfAnswer answer;

	if (fetch->estate)
		kcf_product_answer(fetch->estate, fetch->def, key, kcf_key_hash(&fetch->def->key, key),
						   fetch->now, &answer);
	else
		kcf_product_prime(fetch->def, key, fetch->now, &answer);
	take_answer(fetch, &answer, fetched);
}

static void
put_fetched(const Fetched *fetched, Datum *values, bool *nulls)
{
	nulls[0] = fetched->nothing;
	values[0] = fetched->value;
	nulls[1] = fetched->offset < 0;
	values[1] = Int64GetDatum(fetched->offset);
	nulls[2] = !kcf_rowmap_time(fetched->timestamp, &values[2]);
	nulls[3] = false;
	values[3] = BoolGetDatum(fetched->stale);
}

/* ---- fetch ---- */

/* fetch(relation regclass, VARIADIC key text[]) -> (value jsonb, "offset" bigint, computed_at timestamptz, stale bool) */
Datum
kafka_cache_fetch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Fetch fetch;
	Fetched fetched = { 0 };
	Datum key[KCF_MAX_KEYS];
	Datum values[4];
	bool nulls[4];
	bool found;

	begin(&fetch, PG_GETARG_OID(0), rsinfo);
	kcf_product_key_read(fetch.def, PG_GETARG_ARRAYTYPE_P(1), key);
	InitMaterializedSRF(fcinfo, 0);
	acquire(&fetch);
	found = look_up(&fetch, key, &fetched);
	release(&fetch);
	if (!found)
		compute(&fetch, key, &fetched);
	put_fetched(&fetched, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

/* ---- fetch_many ---- */

/* A key of several, and what became of it. */
typedef struct Asked
{
	char *text;
	Datum key;
	bool found;
	Fetched fetched;
	ErrorData *error; /* NULL: none */
} Asked;

typedef struct Many
{
	Fetch *fetch;
	Asked *asked;
	int n;
	int next;
} Many;

/* Run this in a subtransaction. The error that it has raised, unless it ends the statement. */
static ErrorData *
attempt(void (*work)(Many *), Many *many)
{
	MemoryContext mcxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(mcxt);
	PG_TRY();
	{
		work(many);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(mcxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	CurrentResourceOwner = owner;
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

/* To the first that cannot be read. */
static void
read_keys(Many *many)
{
	for (; many->next < many->n; many->next++)
	{
		Asked *asked = &many->asked[many->next];

		kcf_product_key_read_one(many->fetch->def, asked->text, &asked->key);
	}
}

static void
compute_next(Many *many)
{
	Asked *asked = &many->asked[many->next];

	compute(many->fetch, &asked->key, &asked->fetched);
}

static void
read_all(Many *many)
{
	for (many->next = 0; many->next < many->n; many->next++)
	{
		ErrorData *error = attempt(read_keys, many);

		if (error == NULL)
			break;
		many->asked[many->next].error = error;
	}
}

/* All that is in memory is of one state, and nothing is pinned while others are computed. */
static void
look_up_all(Many *many)
{
	acquire(many->fetch);
	for (int i = 0; i < many->n; i++)
	{
		Asked *asked = &many->asked[i];

		CHECK_FOR_INTERRUPTS();
		if (asked->error == NULL)
			asked->found = look_up(many->fetch, &asked->key, &asked->fetched);
	}
	release(many->fetch);
}

static void
compute_all(Many *many)
{
	for (many->next = 0; many->next < many->n; many->next++)
	{
		Asked *asked = &many->asked[many->next];

		CHECK_FOR_INTERRUPTS();
		if (asked->error == NULL && !asked->found)
			asked->error = attempt(compute_next, many);
	}
}

static void
put_asked(const Asked *asked, ReturnSetInfo *rsinfo)
{
	Datum values[7];
	bool nulls[7];

	memset(nulls, true, sizeof(nulls));
	nulls[0] = asked->text == NULL;
	if (asked->text)
		values[0] = CStringGetTextDatum(asked->text);
	if (asked->error)
	{
		values[5] = CStringGetTextDatum(unpack_sql_state(asked->error->sqlerrcode));
		values[6] = CStringGetTextDatum(asked->error->message ? asked->error->message : "");
		nulls[5] = nulls[6] = false;
	}
	else
		put_fetched(&asked->fetched, &values[1], &nulls[1]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * fetch_many(relation regclass, keys text[])
 *		-> (key text, value jsonb, "offset" bigint, computed_at timestamptz, stale bool, sqlstate text, message text)
 */
Datum
kafka_cache_fetch_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Fetch fetch;
	Many many = { .fetch = &fetch };
	Datum *texts;
	bool *nulls;

	begin(&fetch, PG_GETARG_OID(0), rsinfo);
	kcf_product_key_check_one(fetch.def);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls,
					  &many.n);
	many.asked = palloc0(sizeof(Asked) * Max(many.n, 1));
	for (int i = 0; i < many.n; i++)
		many.asked[i].text = nulls[i] ? NULL : TextDatumGetCString(texts[i]);
	InitMaterializedSRF(fcinfo, 0);
	read_all(&many);
	look_up_all(&many);
	compute_all(&many);
	for (int i = 0; i < many.n; i++)
		put_asked(&many.asked[i], rsinfo);
	return (Datum) 0;
}
