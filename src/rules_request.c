/*
 * rules_request.c
 *		What the coordinator puts into the queue: a key, or all that is cached of a product.
 *
 * The queue has a limit, and nothing of what a rule asks for may be lost. So who finds it full asks for all that is
 * cached instead, which needs no memory: as long as rows are there that were computed before it was asked, they are put
 * into the queue as it has room. A key without a row is not among them, but neither is there anything old to be read.
 */
#include "postgres.h"

#include "rules_coordinator.h"

#include "catalog_product.h"
#include "product.h"
#include "product_compute.h"
#include "product_key.h"
#include "refresh_log.h"
#include "rowmap_write.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* All that is cached of a product. */
typedef struct All
{
	Oid product;
	int64 until_ms;    /* rows that were computed later are not meant */
	bool requested;    /* all are in the queue */
	uint64 ticket;     /* of the queue, when they were */
	List *logged;      /* int64 *: rows of the log that wait for it */
	TimestampTz retry; /* not before */
	TimestampTz complained;
} All;

static List *alls = NIL;

/* ---- rows ---------------------------------------------------------------------------------- */

static void
key_of_row(const KcfTableDef *def, const KcfRow *row, Datum *key)
{
	HeapTupleData tuple = { .t_len = row->tuple_len, .t_data = kcf_row_tuple(row) };

	for (int i = 0; i < def->key.nkeys; i++)
	{
		bool isnull;

		key[i] = heap_getattr(&tuple, def->key.keys[i].attnum, def->desc, &isnull);
	}
}

static bool
walk(KcfTableDef *def, const KcfView *view, KcfRulesRow receiver, void *arg)
{
	KcfStoreScan scan;

	kcf_store_scan_begin(&scan, view->store, view->seq);
	for (uint32 slab = 0; kcf_store_scan_slab(&scan, slab); slab++)
	{
		CHECK_FOR_INTERRUPTS();
		for (char *pos = scan.pos; pos < scan.end;)
		{
			const KcfRow *row = (const KcfRow *) pos;
			Datum key[KCF_MAX_KEYS];

			pos += kcf_row_size(row);
			if (!kcf_row_visible(row, view->seq) ||
				(kcf_row_flags(row) & KCF_ROW_NOTHING) == KCF_ROW_TOMBSTONE)
				continue;
			key_of_row(def, row, key);
			if (!receiver(arg, def, row, key))
				return false;
		}
	}
	return true;
}

bool
kcf_rules_each_row(KcfSnapshot *state, Oid product, KcfRulesRow receiver, void *arg)
{
	KcfTableDef *def = kcf_catalog_cached(product);
	KcfView view;
	bool done = false;

	kcf_snapshot_enter();
	PG_TRY();
	{
		if (kcf_snapshot_peek(state, product, &view))
		{
			(void) walk(def, &view, receiver, arg);
			done = true;
		}
	}
	PG_FINALLY();
	{
		kcf_snapshot_leave();
	}
	PG_END_TRY();
	return done;
}

/* ---- all that is cached -------------------------------------------------------------------- */

static All *
find_all(Oid product)
{
	ListCell *lc;

	foreach (lc, alls)
	{
		All *all = lfirst(lc);

		if (all->product == product)
			return all;
	}
	return NULL;
}

void
kcf_rules_request_all(Oid product, int64 logged)
{
	All *all = find_all(product);
	KcfTable *table = kcf_table_find(MyDatabaseId, product);
	MemoryContext old = MemoryContextSwitchTo(kcf_rules_cxt);

	if (all == NULL)
	{
		all = palloc0(sizeof(All));
		all->product = product;
		alls = lappend(alls, all);
	}
	all->until_ms = kcf_product_millis(GetCurrentTimestamp());
	all->requested = false;
	/* What is being computed is not there yet, and is asked for by who computes it. */
	if (table)
		(void) pg_atomic_exchange_u64(&table->refresh_until, all->until_ms);
	if (logged != 0)
	{
		int64 *id = palloc(sizeof(int64));

		*id = logged;
		all->logged = lappend(all->logged, id);
	}
	MemoryContextSwitchTo(old);
}

typedef struct AllScan
{
	All *all;
	KcfSnapshot *state;
	int64 now_ms; /* when it was held */
	MemoryContext per_row;
	bool read;
	bool full;
} AllScan;

static bool
request_row(void *arg, KcfTableDef *def, const KcfRow *row, const Datum *key)
{
	AllScan *scan = arg;
	MemoryContext old;

	/* A row from the future is of another clock, or of this one before it was set: nobody knows how old it is. */
	if (row->timestamp > scan->all->until_ms && row->timestamp <= scan->now_ms)
		return true;
	old = MemoryContextSwitchTo(scan->per_row);
	scan->full =
		!kcf_refreshq_request(def->relid, kcf_product_key_bytes(def, key), KCF_REFRESH_RULE, 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(scan->per_row);
	return !scan->full;
}

static void
request_rows(void *arg)
{
	AllScan *scan = arg;

	scan->per_row =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache key", ALLOCSET_SMALL_SIZES);
	scan->read = kcf_rules_each_row(scan->state, scan->all->product, request_row, scan);
}

static void
settle(void *arg)
{
	All *all = arg;
	ListCell *lc;

	SPI_connect();
	foreach (lc, all->logged)
		kcf_refresh_log_settle_one(*(int64 *) lfirst(lc));
	SPI_finish();
}

static void
drop_all(All *all)
{
	alls = list_delete_ptr(alls, all);
	list_free_deep(all->logged);
	pfree(all);
}

/* Put what there is into the queue. */
static void
request(All *all)
{
	AllScan scan = { .all = all,
					 .state = kcf_snapshot_hold(),
					 .now_ms = kcf_product_millis(GetCurrentTimestamp()) };
	ErrorData *edata;

	all->retry = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KCF_RULES_RETRY_MS);
	if (scan.state == NULL)
		return;
	edata = kcf_rules_attempt(request_rows, &scan);
	kcf_snapshot_release(scan.state);
	if (edata)
		kcf_rules_complain(&all->complained, edata,
						   "could not ask for refreshes of the data product %s",
						   kcf_rules_name(all->product));
	else if (scan.read && !scan.full)
	{
		all->requested = true;
		all->ticket = kcf_refreshq_ticket();
	}
}

long
kcf_rules_request_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long wait = -1;
	List *copy = list_copy(alls);
	ListCell *lc;

	foreach (lc, copy)
	{
		All *all = lfirst(lc);

		if (all->retry > now)
		{
			wait = KCF_RULES_RETRY_MS;
			continue;
		}
		if (!all->requested)
			request(all);
		if (!all->requested)
			wait = KCF_RULES_RETRY_MS;
		else if (all->logged == NIL)
			drop_all(all);
		else if (kcf_refreshq_outstanding(all->product) < all->ticket)
		{
			all->retry = TimestampTzPlusMilliseconds(now, KCF_RULES_RETRY_MS);
			wait = KCF_RULES_RETRY_MS;
		}
		else
		{
			ErrorData *edata = kcf_rules_attempt(settle, all);

			if (edata)
				kcf_rules_complain(&all->complained, edata,
								   "could not delete from kafka_cache.refresh_log");
			drop_all(all);
		}
	}
	list_free(copy);
	return wait;
}

bool
kcf_rules_requested(Oid product)
{
	const All *all = find_all(product);

	return all == NULL || all->requested;
}

static void
prune(void *unused)
{
	List *copy = list_copy(alls);
	ListCell *lc;

	foreach (lc, copy)
	{
		All *all = lfirst(lc);

		if (get_rel_relkind(all->product) != RELKIND_FOREIGN_TABLE)
			drop_all(all);
	}
}

void
kcf_rules_request_prune(void)
{
	if (alls != NIL)
		(void) kcf_rules_attempt(prune, NULL);
}

/* ---- a key --------------------------------------------------------------------------------- */

typedef struct Augment
{
	Oid product;
	KcfSlice key;
	Jsonb *hints;
} Augment;

/* The row as a document, as our own writing of it would have it. */
static Datum
document_of(KcfTableDef *def, const KcfAnswer *answer)
{
	KcfRowWriter *writer = kcf_row_writer_create(def, CurrentMemoryContext);
	bool *isnull = palloc(def->desc->natts * sizeof(bool));
	KcfRecord record;

	for (int i = 0; i < def->desc->natts; i++)
	{
		KcfColumnKind kind = def->columns[i].kind;

		isnull[i] = answer->isnull[i] || kind == KCF_COLUMN_PARTITION ||
					kind == KCF_COLUMN_OFFSET || kind == KCF_COLUMN_TIMESTAMP ||
					kind == KCF_COLUMN_HEADERS;
	}
	memset(&record, 0, sizeof(record));
	kcf_row_write(writer, answer->values, isnull, &record);
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(pnstrdup(record.value.data, record.value.len)));
}

static KcfSlice
augment_row(KcfTableDef *def, const Datum *key, const KcfAnswer *old, void *arg)
{
	return kcf_product_augment(def, key, document_of(def, old), JsonbPGetDatum((Jsonb *) arg));
}

static void
augment(void *arg)
{
	const Augment *augment = arg;
	KcfTableDef *def = kcf_catalog_cached(augment->product);
	Datum key[KCF_MAX_KEYS];

	if (!kcf_is_product(def) || !OidIsValid(kcf_catalog_product(def)->augment) ||
		!kcf_product_key_decode(def, augment->key, key))
		return;
	(void) kcf_product_change(def, key, augment_row, augment->hints);
}

void
kcf_rules_request(Oid product, KcfSlice key, int64 logged, Jsonb *hints)
{
	static TimestampTz complained = 0;

	/* Before the refresh is asked for, so that it comes after this. */
	if (hints)
	{
		Augment arg = { product, key, hints };
		ErrorData *edata = kcf_rules_attempt(augment, &arg);

		if (edata)
			kcf_rules_complain(&complained, edata, "could not augment a row of the data product %s",
							   kcf_rules_name(product));
	}
	if (!kcf_refreshq_request(product, key, KCF_REFRESH_RULE, logged))
		kcf_rules_request_all(product, logged);
}
