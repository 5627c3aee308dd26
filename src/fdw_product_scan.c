/*
 * fdw_product_scan.c
 *		Running lookups of data products: what is there and not too old, else what is computed.
 */
#include "postgres.h"

#include "fdw_product.h"

#include "compat.h"
#include "fdw.h"
#include "fdw_scan.h"
#include "product.h"
#include "refreshq.h"
#include "rowmap_write.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A computed row of an array's keys. */
typedef struct Computed
{
	HeapTuple tuple;
	struct Computed *next;
	struct Computed *same_hash;
} Computed;

typedef struct ComputedKey
{
	uint64 hash;
	Computed *first;
	char status; /* of the hash table */
} ComputedKey;

#define SH_PREFIX computed
#define SH_ELEMENT_TYPE ComputedKey
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(tb, key) ((uint32) (key) ^ (uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct KcfProductScan
{
	KcfTableDef *def;
	TimestampTz since;  /* the statement's start */
	int64 fresh;        /* rows of this time and later need no second look */
	MemoryContext cxt;  /* of what one key brings, or one array */
	Computed *computed; /* what the array has brought, and was not returned yet */
	Computed *last;
	KcfRowWriter *writer;  /* NULL: no request has been made yet */
	MemoryContext request; /* of one */
	Datum *values;         /* [natts], of a key that is to be refreshed */
	bool *isnull;
	int64 hits; /* "nothing" and stale rows among them */
	int64 stale;
	int64 misses;
	int64 ncomputed;
} KcfProductScan;

/* ---- what is cached ---- */

/* Refreshers are asked to compute it anew. */
static void
request_refresh(KcfProductScan *ps, const KcfKeyType *key, const Datum *values)
{
	int natts = ps->def->desc->natts;
	MemoryContext old;
	KcfSlice bytes;

	if (ps->writer == NULL)
	{
		old = MemoryContextSwitchTo(GetMemoryChunkContext(ps));
		ps->writer = kcf_row_writer_create(ps->def, CurrentMemoryContext);
		ps->request = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache refresh request",
											ALLOCSET_SMALL_SIZES);
		ps->values = palloc0(natts * sizeof(Datum));
		ps->isnull = palloc(natts * sizeof(bool));
		memset(ps->isnull, true, natts * sizeof(bool));
		MemoryContextSwitchTo(old);
	}
	for (int i = 0; i < key->nkeys; i++)
	{
		ps->values[key->keys[i].attnum - 1] = values[i];
		ps->isnull[key->keys[i].attnum - 1] = false;
	}
	MemoryContextReset(ps->request);
	old = MemoryContextSwitchTo(ps->request);
	kcf_row_write_key(ps->writer, ps->values, ps->isnull, &bytes);
	(void) kcf_refreshq_request(ps->def->relid, bytes, KCF_REFRESH_READ, 0);
	MemoryContextSwitchTo(old);
}

/* A row that is not simply fresh. false: as good as none. *row NULL: there is nothing, and that is known. */
static pg_noinline bool
judge(KcfScanState *st, const Datum *values, KcfRow **row)
{
	KcfProductScan *ps = st->product;

	switch (kcf_product_age(ps->def, *row, ps->since))
	{
		case KCF_AGE_EXPIRED:
			return false;
		case KCF_AGE_STALE:
			ps->stale++;
			request_refresh(ps, st->key, values);
			break;
		case KCF_AGE_FRESH:
			break;
	}
	if (kcf_row_is_nothing(*row))
		*row = NULL;
	return true;
}

static inline bool
look_up(KcfScanState *st, const Datum *values, uint64 hash, KcfRow **row)
{
	KcfProductScan *ps = st->product;

	*row = NULL;
	if (likely(st->view.store))
		*row = kcf_store_find_any(st->view.store, st->key, hash, values, st->view.seq);
	if (likely(*row && (*row)->timestamp >= ps->fresh &&
			   !(kcf_row_flags(*row) & (KCF_ROW_TOMBSTONE | KCF_ROW_ERROR))) ||
		(*row && judge(st, values, row)))
	{
		ps->hits++;
		return true;
	}
	ps->misses++;
	return false;
}

/* ---- what is computed ---- */

/* NULL: there is nothing. In CurrentMemoryContext. */
static pg_noinline HeapTuple
compute(KcfScanState *st, ForeignScanState *node, const Datum *values, uint64 hash)
{
	KcfProductScan *ps = st->product;
	KcfAnswer answer;
	HeapTuple tuple;

	kcf_product_answer(node->ss.ps.state, ps->def, values, hash, ps->since, &answer);
	ps->ncomputed += answer.computed;
	if (!answer.found)
		return NULL;
	tuple = heap_form_tuple(ps->def->desc, answer.values, answer.isnull);
	HeapTupleHeaderSetXmin(tuple->t_data, InvalidTransactionId);
	HeapTupleHeaderSetXmax(tuple->t_data, InvalidTransactionId);
	HeapTupleHeaderSetCmin(tuple->t_data, FirstCommandId);
	ItemPointerSetInvalid(&tuple->t_data->t_ctid);
	tuple->t_tableOid = ps->def->relid;
	return tuple;
}

static TupleTableSlot *
by_key(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	Datum values[KCF_MAX_KEYS];
	MemoryContext old;
	HeapTuple tuple;
	uint64 hash;
	KcfRow *row;

	kcf_snapshot_check(st->snapshot, st->lost);
	if (st->done)
		return ExecClearTuple(slot);
	st->done = true;
	for (int i = 0; i < st->nvalues; i++)
	{
		bool isnull;

		values[i] = ExecEvalExpr(st->values[i], node->ss.ps.ps_ExprContext, &isnull);
		if (!kcf_scan_key_value(st, i, &values[i], isnull))
			return ExecClearTuple(slot);
	}
	hash = kcf_key_hash(st->key, values);
	if (likely(look_up(st, values, hash, &row)))
		return row ? kcf_scan_emit(st, node, row) : ExecClearTuple(slot);

	ExecClearTuple(slot); /* it may have the row computed before */
	MemoryContextReset(st->product->cxt);
	old = MemoryContextSwitchTo(st->product->cxt);
	tuple = compute(st, node, values, hash);
	MemoryContextSwitchTo(old);
	return tuple ? ExecStoreHeapTuple(tuple, slot, false) : slot;
}

/* ---- arrays ---- */

static int
compare_rows(const void *a, const void *b)
{
	uintptr_t left = (uintptr_t) * (KcfRow *const *) a;
	uintptr_t right = (uintptr_t) * (KcfRow *const *) b;

	return left < right ? -1 : left > right;
}

/* A key given twice gives one row. */
static void
drop_repeated(KcfScanState *st)
{
	int n = 1;

	if (st->nfound < 2)
		return;
	qsort(st->found, st->nfound, sizeof(KcfRow *), compare_rows);
	for (int i = 1; i < st->nfound; i++)
	{
		if (st->found[i] != st->found[n - 1])
			st->found[n++] = st->found[i];
	}
	st->nfound = n;
}

/* Has an earlier element given this row? */
static bool
is_computed(const KcfScanState *st, const ComputedKey *entry, const Datum *key)
{
	for (const Computed *row = entry->first; row; row = row->same_hash)
	{
		if (kcf_key_equals(st->key, key, row->tuple->t_data))
			return true;
	}
	return false;
}

static void
add_computed(KcfScanState *st, ForeignScanState *node, struct computed_hash *keys, Datum *key,
			 uint64 hash)
{
	KcfProductScan *ps = st->product;
	ComputedKey *entry;
	HeapTuple tuple;
	Computed *row;
	bool found;

	entry = computed_lookup(keys, hash);
	if (entry && is_computed(st, entry, key))
		return;
	tuple = compute(st, node, key, hash);
	if (tuple == NULL)
		return;
	entry = computed_insert(keys, hash, &found);
	row = palloc(sizeof(Computed));
	row->tuple = tuple;
	row->next = NULL;
	row->same_hash = found ? entry->first : NULL;
	entry->first = row;
	if (ps->last)
		ps->last->next = row;
	else
		ps->computed = row;
	ps->last = row;
}

static void
find_array(KcfScanState *st, ForeignScanState *node)
{
	KcfProductScan *ps = st->product;
	struct computed_hash *keys = NULL;
	MemoryContext old;
	Datum array;
	Datum *elements;
	bool *nulls;
	bool isnull;
	int n;

	st->nfound = st->next_found = 0;
	ps->computed = ps->last = NULL;
	MemoryContextReset(ps->cxt);
	array = ExecEvalExpr(st->values[0], node->ss.ps.ps_ExprContext, &isnull);
	if (isnull)
		return;
	old = MemoryContextSwitchTo(ps->cxt);
	deconstruct_array(DatumGetArrayTypeP(array), st->types[0], st->typlen, st->typbyval,
					  st->typalign, &elements, &nulls, &n);
	st->found = palloc(Max(n, 1) * sizeof(KcfRow *));
	for (int i = 0; i < n; i++)
	{
		uint64 hash;
		KcfRow *row;

		if ((i & 1023) == 1023)
			CHECK_FOR_INTERRUPTS();
		if (!kcf_scan_key_value(st, 0, &elements[i], nulls[i]))
			continue;
		hash = kcf_key_hash(st->key, &elements[i]);
		if (look_up(st, &elements[i], hash, &row))
		{
			if (row)
				st->found[st->nfound++] = row;
			continue;
		}
		if (keys == NULL)
			keys = computed_create(ps->cxt, 64, NULL);
		add_computed(st, node, keys, &elements[i], hash);
	}
	MemoryContextSwitchTo(old);
	drop_repeated(st);
}

static TupleTableSlot *
by_array(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;
	KcfProductScan *ps = st->product;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	Computed *row;

	kcf_snapshot_check(st->snapshot, st->lost);
	if (!st->done)
	{
		ExecClearTuple(slot); /* it may have a row of the array before */
		find_array(st, node);
		st->done = true;
	}
	if (st->next_found < st->nfound)
		return kcf_scan_emit(st, node, st->found[st->next_found++]);
	row = ps->computed;
	if (row == NULL)
		return ExecClearTuple(slot);
	ps->computed = row->next;
	return ExecStoreHeapTuple(row->tuple, slot, false);
}

/* ---- begin and end ---- */

pg_noreturn static void
report_impossible(ForeignScanState *node)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("the keys of data product \"%s\" cannot be known in this query",
				RelationGetRelationName(node->ss.ss_currentRelation)),
		 errdetail("Its rows are computed by key, and there is no order of the joins in which the "
				   "rows that bring the keys come first."),
		 errhint("Write what brings the keys as a join, or as key IN (SELECT ...), or select it "
				 "in a CTE that is MATERIALIZED.")));
}

void
kcf_product_begin_scan(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;
	const KcfTableOptions *options;
	KcfProductScan *ps;
	int64 ttl;

	/* Also where it would not be come to: that depends on what is there. */
	if (st->flags & KCF_PLAN_IMPOSSIBLE)
		report_impossible(node);
	ps = palloc0(sizeof(KcfProductScan));
	ps->def = kcf_catalog_cached(RelationGetRelid(node->ss.ss_currentRelation));
	ps->since = GetCurrentStatementStartTimestamp();
	options = ps->def->options;
	ttl = options->soft_ttl != 0 ? options->soft_ttl : options->hard_ttl;
	ps->fresh = ttl != 0 ? kcf_product_millis(ps->since) - ttl : PG_INT64_MIN;
	ps->cxt = st->found_cxt ? st->found_cxt
							: AllocSetContextCreate(CurrentMemoryContext, "kafka_cache product",
													ALLOCSET_SMALL_SIZES);
	st->product = ps;
	node->fdwroutine->IterateForeignScan = st->flags & KCF_PLAN_ARRAY ? by_array : by_key;
}

void
kcf_product_end_scan(ForeignScanState *node)
{
	KcfProductScan *ps = ((KcfScanState *) node->fdw_state)->product;

	if (ps->hits || ps->misses)
		kcf_product_count(ps->def->relid, ps->hits, ps->misses, ps->stale);
	ps->hits = ps->misses = ps->stale = 0;
}

void
kcf_product_explain(ForeignScanState *node, ExplainState *es)
{
	KcfScanState *st = node->fdw_state;
	KcfProductScan *ps = st ? st->product : NULL;

	if (ps == NULL)
		return;
	ExplainPropertyInteger("Hits", NULL, ps->hits, es);
	ExplainPropertyInteger("Misses", NULL, ps->misses, es);
	ExplainPropertyInteger("Computed", NULL, ps->ncomputed, es);
	ExplainPropertyInteger("Stale", NULL, ps->stale, es);
}
