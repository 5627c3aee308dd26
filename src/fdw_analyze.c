/*
 * fdw_analyze.c
 *		ANALYZE: a random sample of the rows, and their exact number.
 */
#include "postgres.h"

#include "fdw.h"

#include "catalog.h"
#include "compat.h"
#include "registry.h"
#include "snapshot.h"
#include "store.h"

#include "commands/vacuum.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/sampling.h"

/* Each row has the same chance to be among those taken. The whole table is walked: that gives the exact number. */
static int
sample(const KcfView *view, const KcfSnapshot *snapshot, HeapTuple *rows, int nwanted,
	   double *nrows)
{
	const volatile bool *lost = kcf_snapshot_lost_flag(snapshot);
	ReservoirStateData reservoir;
	double to_skip = -1;
	int n = 0;
	KcfStoreScan scan;
	KcfRow *row;

	*nrows = 0;
	if (view->store == NULL)
		return 0;
	reservoir_init_selection_state(&reservoir, nwanted);
	kcf_store_scan_begin(&scan, view->store, view->seq);
	for (uint32 slab = 0; kcf_store_scan_slab(&scan, slab); slab++)
	{
		kcf_vacuum_delay_point();
		while ((row = kcf_store_scan_next(&scan)) != NULL)
		{
			HeapTupleData tuple;
			int place = n;

			kcf_snapshot_check(snapshot, lost);
			if (kcf_row_flags(row) & KCF_ROW_ERROR)
				continue;
			(*nrows)++;
			if (n == nwanted)
			{
				if (to_skip < 0)
					to_skip = reservoir_get_next_S(&reservoir, *nrows - 1, nwanted);
				if (to_skip-- > 0)
					continue;
				to_skip = -1;
				place = (int) (nwanted * sampler_random_fract(&reservoir.randstate));
				heap_freetuple(rows[place]);
			}
			else
				n++;
			tuple.t_len = row->tuple_len;
			tuple.t_data = kcf_row_tuple(row);
			tuple.t_tableOid = InvalidOid;
			ItemPointerSetInvalid(&tuple.t_self);
			rows[place] = heap_copytuple(&tuple);
		}
	}
	return n;
}

static int
acquire_sample(Relation relation, int elevel, HeapTuple *rows, int nwanted, double *nrows,
			   double *ndead)
{
	volatile int n = 0;

	kcf_snapshot_enter();
	PG_TRY();
	{
		KcfSnapshot *snapshot = kcf_snapshot_acquire_relation(RelationGetRelid(relation));
		KcfView view;

		kcf_snapshot_view(snapshot, RelationGetRelid(relation), &view);
		n = sample(&view, snapshot, rows, nwanted, nrows);
		kcf_snapshot_release(snapshot);
	}
	PG_FINALLY();
	{
		kcf_snapshot_leave();
	}
	PG_END_TRY();

	*ndead = 0;
	ereport(elevel, (errcode(ERRCODE_SUCCESSFUL_COMPLETION),
					 errmsg("\"%s\": cached table contains %.0f rows; %d rows in sample",
							RelationGetRelationName(relation), *nrows, n)));
	return n;
}

bool
kafkaCacheAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func,
							  BlockNumber *totalpages)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, RelationGetRelid(relation));

	*func = acquire_sample;
	*totalpages = table ? Max(1, pg_atomic_read_u64(&table->account.bytes) / BLCKSZ) : 1;
	return true;
}
