/*
 * fdw_scan.h
 *		A running scan, as EXPLAIN sees it.
 *
 * Process:  backends and parallel workers.
 * Locks:    none.
 * Memory:   the executor's query context.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_FDW_SCAN_H
#define KCF_FDW_SCAN_H

#include "fdw_key.h"
#include "fmgr.h"
#include "keytype.h"
#include "nodes/execnodes.h"
#include "snapshot.h"
#include "store.h"

/* In the dynamic shared memory of a parallel query. */
typedef struct KcfParallelScan
{
	pg_atomic_uint32 next_slab; /* each participant takes the next one */
} KcfParallelScan;

/* Addresses of user space. */
#define KCF_ROW_PLACE_MASK UINT64CONST(0x0000ffffffffffff)

typedef struct KcfScanState
{
	int flags; /* KCF_PLAN_* */
	KcfSnapshot *snapshot;
	const volatile bool *lost;
	KcfView view;
	HeapTupleData tuple; /* of the row in the slot */

	/* all rows */
	KcfStoreScan scan;
	uint32 next_slab;
	KcfParallelScan *shared; /* NULL: not parallel */

	/* by key */
	const KcfKeyType *key;
	int nvalues;
	ExprState *values[KCF_MAX_KEYS];
	Oid types[KCF_MAX_KEYS];
	bool done; /* looked up since the last rescan */

	/* by an array of keys */
	int16 typlen; /* of the elements */
	bool typbyval;
	char typalign;
	MemoryContext found_cxt;
	KcfRow **found;
	int nfound;
	int next_found;

	struct KcfProductScan *product; /* of fdw_product_scan.c; NULL: no keys are computed */
} KcfScanState;

/* A row of the scan's snapshot into the slot. */
extern TupleTableSlot *kcf_scan_emit(KcfScanState *st, ForeignScanState *node, KcfRow *row);

/* A value of an expression as the key's type has it; false: nothing is equal to it. */
static inline bool
kcf_scan_key_value(const KcfScanState *st, int column, Datum *value, bool isnull)
{
	const KcfKeyColumn *col = &st->key->keys[column];

	if (isnull || !kcf_key_convert(st->types[column], col->typid, value))
		return false;
	if (col->typlen == -1)
		*value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(*value));
	return true;
}

/*
 * A row's place as a ctid, as a heap's row has one: its address, which is nobody's business and so is veiled: UPDATE
 * can name ctid in its expressions. Valid as long as the snapshot that the row was found in.
 */
static inline void
kcf_row_to_tid(const KcfRow *row, ItemPointer tid)
{
	uint64 place = ((uint64) (uintptr_t) row ^ kcf_keytype_veil()) & KCF_ROW_PLACE_MASK;

	ItemPointerSet(tid, (BlockNumber) (place >> 16), (OffsetNumber) place);
}

static inline KcfRow *
kcf_row_of_tid(ItemPointer tid)
{
	uint64 place = (uint64) ItemPointerGetBlockNumberNoCheck(tid) << 16 |
				   ItemPointerGetOffsetNumberNoCheck(tid);

	return (KcfRow *) (uintptr_t) (place ^ (kcf_keytype_veil() & KCF_ROW_PLACE_MASK));
}

#endif /* KCF_FDW_SCAN_H */
