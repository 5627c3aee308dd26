/*
 * fdw_scan.c
 *		Running scans: all rows, slab by slab, or rows by their keys.
 *
 * Rows are handed to the executor as they lie in shared memory. They stay there as long as the scan's snapshot
 * is referred to, which is until EndForeignScan; whatever outlives that was copied by the executor.
 */
#include "postgres.h"

#include "fdw.h"
#include "compat.h"
#include "fdw_scan.h"

#include "catalog.h"
#include "fdw_key.h"
#include "fdw_product.h"

#include "access/parallel.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* ---- begin and end ---- */

static void
begin_lookup(KcfScanState *st, ForeignScanState *node, KcfTableDef *def)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	List *types = list_nth(plan->fdw_private, KCF_PLAN_TYPES);
	ListCell *lc;

	st->key = &def->key;
	foreach (lc, plan->fdw_exprs)
	{
		st->values[st->nvalues] = ExecInitExpr(lfirst(lc), (PlanState *) node);
		st->types[st->nvalues] = list_nth_oid(types, st->nvalues);
		st->nvalues++;
	}
	if (st->flags & KCF_PLAN_ARRAY)
	{
		get_typlenbyvalalign(st->types[0], &st->typlen, &st->typbyval, &st->typalign);
		st->found_cxt =
			AllocSetContextCreate(CurrentMemoryContext, "kafka_cache keys", ALLOCSET_SMALL_SIZES);
	}
}

static TupleTableSlot *iterate_all(ForeignScanState *node);

void
kafkaCacheBeginForeignScan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	EState *estate = node->ss.ps.state;
	Oid relid = RelationGetRelid(node->ss.ss_currentRelation);
	KcfScanState *st;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	st = palloc0(sizeof(KcfScanState));
	st->flags = intVal(list_nth(plan->fdw_private, KCF_PLAN_FLAGS));
	st->snapshot = kcf_snapshot_acquire(estate);
	st->lost = kcf_snapshot_lost_flag(st->snapshot);
	kcf_snapshot_view(st->snapshot, relid, &st->view);
	ItemPointerSetInvalid(&st->tuple.t_self);
	st->tuple.t_tableOid = relid;

	if (st->flags & KCF_PLAN_LOOKUP)
		begin_lookup(st, node, kcf_catalog_cached(relid));
	else
	{
		if (st->view.store)
			kcf_store_scan_begin(&st->scan, st->view.store, st->view.seq);
		/* the scan's own copy */
		node->fdwroutine->IterateForeignScan = iterate_all;
	}
	node->fdw_state = st;
	if (st->flags & (KCF_PLAN_COMPUTE | KCF_PLAN_IMPOSSIBLE))
		kcf_product_begin_scan(node);
}

void
kafkaCacheReScanForeignScan(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;

	st->done = false;
	st->next_slab = 0;
	if (st->view.store && !(st->flags & KCF_PLAN_LOOKUP))
		kcf_store_scan_begin(&st->scan, st->view.store, st->view.seq);
}

void
kafkaCacheEndForeignScan(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;

	if (st == NULL)
		return;
	if (st->product)
		kcf_product_end_scan(node);
	/* The slot must not point into what may be freed now. */
	ExecClearTuple(node->ss.ss_ScanTupleSlot);
	kcf_snapshot_release(st->snapshot);
	node->fdw_state = NULL;
}

/* ---- rows ---- */

pg_noreturn static void
report_bad_row(ForeignScanState *node, const KcfRow *row)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("the newest record of a key of cached table \"%s\" could not be decoded",
					RelationGetRelationName(node->ss.ss_currentRelation)),
			 errdetail("It is in partition %d at offset " INT64_FORMAT ".", row->partition,
					   row->offset),
			 errhint("See kafka_cache.errors. The table's option \"on_error\" is \"fail\".")));
}

/*
 * With system columns. The header of a row's tuple is used for other things: who asks for it gets a clean copy. A
 * ctid is not of the header, but of the slot.
 */
static pg_noinline TupleTableSlot *
emit_with_system(KcfScanState *st, TupleTableSlot *slot, const KcfRow *row)
{
	MemoryContext oldcontext;
	HeapTuple copy;

	if (st->flags & KCF_PLAN_PLACE)
		kcf_row_to_tid(row, &st->tuple.t_self);
	if (!(st->flags & KCF_PLAN_SYSTEM))
		return ExecStoreHeapTuple(&st->tuple, slot, false);

	oldcontext = MemoryContextSwitchTo(slot->tts_mcxt);
	copy = heap_copytuple(&st->tuple);
	HeapTupleHeaderSetXmin(copy->t_data, InvalidTransactionId);
	HeapTupleHeaderSetXmax(copy->t_data, InvalidTransactionId);
	HeapTupleHeaderSetCmin(copy->t_data, FirstCommandId);
	ItemPointerSetInvalid(&copy->t_data->t_ctid);
	MemoryContextSwitchTo(oldcontext);
	return ExecStoreHeapTuple(copy, slot, true);
}

static pg_attribute_always_inline TupleTableSlot *
emit(KcfScanState *st, ForeignScanState *node, KcfRow *row)
{
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	HeapTupleTableSlot *hslot = (HeapTupleTableSlot *) slot;

	Assert(TTS_IS_HEAPTUPLE(slot));
	if (unlikely(kcf_row_flags(row) & KCF_ROW_ERROR))
		report_bad_row(node, row);
	st->tuple.t_len = row->tuple_len;
	st->tuple.t_data = kcf_row_tuple(row);
	if (unlikely(st->flags & (KCF_PLAN_SYSTEM | KCF_PLAN_PLACE)))
		return emit_with_system(st, slot, row);
	/*
	 * Row after row the slot holds the same HeapTupleData, of which nothing is to be freed: then all that
	 * storing would do is to forget what was deformed. It may have been cleared or materialized meanwhile.
	 */
	if (likely(hslot->tuple == &st->tuple && !TTS_EMPTY(slot)))
	{
		slot->tts_nvalid = 0;
		hslot->off = 0;
		return slot;
	}
	return ExecStoreHeapTuple(&st->tuple, slot, false);
}

TupleTableSlot *
kcf_scan_emit(KcfScanState *st, ForeignScanState *node, KcfRow *row)
{
	return emit(st, node, row);
}

/* ---- by key ---- */

static KcfRow *
look_up(KcfScanState *st, ForeignScanState *node, const Datum *values)
{
	KcfRow *row = NULL;

	InstrCountTuples2(node, 1);
	if (st->view.store)
		row = kcf_store_find(st->view.store, st->key, kcf_key_hash(st->key, values), values,
							 st->view.seq);
	if (row == NULL)
		InstrCountFiltered2(node, 1);
	return row;
}

/* (What needs much of the stack is kept out of line, for the sake of scans.) */
static pg_noinline TupleTableSlot *
next_by_key(KcfScanState *st, ForeignScanState *node)
{
	Datum values[KCF_MAX_KEYS];
	KcfRow *row;

	if (st->done)
		return ExecClearTuple(node->ss.ss_ScanTupleSlot);
	st->done = true;
	for (int i = 0; i < st->nvalues; i++)
	{
		bool isnull;

		values[i] = ExecEvalExpr(st->values[i], node->ss.ps.ps_ExprContext, &isnull);
		if (!kcf_scan_key_value(st, i, &values[i], isnull))
			return ExecClearTuple(node->ss.ss_ScanTupleSlot);
	}
	row = look_up(st, node, values);
	return row ? emit(st, node, row) : ExecClearTuple(node->ss.ss_ScanTupleSlot);
}

static int
compare_rows(const void *a, const void *b)
{
	uintptr_t left = (uintptr_t) * (KcfRow *const *) a;
	uintptr_t right = (uintptr_t) * (KcfRow *const *) b;

	return left < right ? -1 : left > right;
}

/*
 * All rows of the array's keys at once. The same row found twice is the same key given twice, which gives one
 * row.
 */
static void
find_array(KcfScanState *st, ForeignScanState *node)
{
	MemoryContext oldcontext;
	Datum array;
	Datum *elements;
	bool *nulls;
	bool isnull;
	int n;

	st->nfound = st->next_found = 0;
	MemoryContextReset(st->found_cxt);
	array = ExecEvalExpr(st->values[0], node->ss.ps.ps_ExprContext, &isnull);
	if (isnull)
		return;
	oldcontext = MemoryContextSwitchTo(st->found_cxt);
	deconstruct_array(DatumGetArrayTypeP(array), st->types[0], st->typlen, st->typbyval,
					  st->typalign, &elements, &nulls, &n);
	st->found = palloc(Max(n, 1) * sizeof(KcfRow *));
	for (int i = 0; i < n; i++)
	{
		KcfRow *row;

		if ((i & 1023) == 1023)
			CHECK_FOR_INTERRUPTS();
		if (!kcf_scan_key_value(st, 0, &elements[i], nulls[i]))
			continue;
		row = look_up(st, node, &elements[i]);
		if (row)
			st->found[st->nfound++] = row;
	}
	MemoryContextSwitchTo(oldcontext);

	if (st->nfound > 1)
	{
		n = 1;
		qsort(st->found, st->nfound, sizeof(KcfRow *), compare_rows);
		for (int i = 1; i < st->nfound; i++)
		{
			if (st->found[i] != st->found[n - 1])
				st->found[n++] = st->found[i];
		}
		st->nfound = n;
	}
}

static pg_noinline TupleTableSlot *
next_of_array(KcfScanState *st, ForeignScanState *node)
{
	if (!st->done)
	{
		find_array(st, node);
		st->done = true;
	}
	if (st->next_found >= st->nfound)
		return ExecClearTuple(node->ss.ss_ScanTupleSlot);
	return emit(st, node, st->found[st->next_found++]);
}

/* ---- all rows ---- */

static inline uint32
claim_slab(KcfScanState *st)
{
	return st->shared ? pg_atomic_fetch_add_u32(&st->shared->next_slab, 1) : st->next_slab++;
}

/* The next slab that has rows to show; NULL: that was the last. Apart, so that next_of_all stays small. */
static pg_noinline KcfRow *
next_slab(KcfScanState *st)
{
	KcfRow *row = NULL;

	if (st->view.store == NULL)
		return NULL;
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!kcf_store_scan_slab(&st->scan, claim_slab(st)))
			return NULL;
	} while ((row = kcf_store_scan_next(&st->scan)) == NULL);
	return row;
}

static pg_attribute_always_inline TupleTableSlot *
next_of_all(KcfScanState *st, ForeignScanState *node)
{
	KcfRow *row = kcf_store_scan_next(&st->scan);

	if (unlikely(row == NULL) && (row = next_slab(st)) == NULL)
		return ExecClearTuple(node->ss.ss_ScanTupleSlot);
	return emit(st, node, row);
}

TupleTableSlot *
kafkaCacheIterateForeignScan(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;

	kcf_snapshot_check(st->snapshot, st->lost);
	if (st->flags & KCF_PLAN_ARRAY)
		return next_of_array(st, node);
	if (st->flags & KCF_PLAN_LOOKUP)
		return next_by_key(st, node);
	return next_of_all(st, node);
}

/* What most scans take for each row, with nothing else in its way. */
static TupleTableSlot *
iterate_all(ForeignScanState *node)
{
	KcfScanState *st = node->fdw_state;

	kcf_snapshot_check(st->snapshot, st->lost);
	return next_of_all(st, node);
}

/* ---- parallel scan of all rows ---- */

Size
kafkaCacheEstimateDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt)
{
	return sizeof(KcfParallelScan);
}

void
kafkaCacheInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt, void *coordinate)
{
	KcfScanState *st = node->fdw_state;

	st->shared = coordinate;
	pg_atomic_init_u32(&st->shared->next_slab, 0);
}

void
kafkaCacheReInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt,
									 void *coordinate)
{
	pg_atomic_write_u32(&((KcfParallelScan *) coordinate)->next_slab, 0);
}

void
kafkaCacheInitializeWorkerForeignScan(ForeignScanState *node, shm_toc *toc, void *coordinate)
{
	KcfScanState *st = node->fdw_state;

	st->shared = coordinate;
}
