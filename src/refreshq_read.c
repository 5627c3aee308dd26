/*
 * refreshq_read.c
 *		What the queue of refreshes holds, for views and metrics.
 */
#include "postgres.h"

#include "refreshq_internal.h"

#include "miscadmin.h"

typedef struct Copies
{
	char *rows; /* KcfRefreshRow, its key, and so on; NULL: only the size is wanted */
	Size size;
	Size used;
	int n;
} Copies;

static Size
copy_size(const KcfRefreshEntry *entry)
{
	return MAXALIGN(sizeof(KcfRefreshRow)) + MAXALIGN(entry->key_len);
}

static void
measure(KcfRefreshEntry *entry, void *arg)
{
	((Copies *) arg)->size += copy_size(entry);
}

static void
copy(KcfRefreshEntry *entry, void *arg)
{
	Copies *copies = arg;
	KcfRefreshRow *row = (KcfRefreshRow *) (copies->rows + copies->used);
	char *key = (char *) row + MAXALIGN(sizeof(KcfRefreshRow));
	TimestampTz first = (TimestampTz) pg_atomic_read_u64(&entry->first_requested);

	/* What has come since it was measured is of no importance. */
	if (copies->used + copy_size(entry) > copies->size)
		return;
	row->relid = entry->relid;
	memcpy(key, entry->key, entry->key_len);
	row->key.data = key;
	row->key.len = entry->key_len;
	row->requests = pg_atomic_read_u64(&entry->requests);
	row->first_requested = first;
	if (entry->claimed_by != 0)
	{
		row->requests += entry->claimed_requests;
		row->first_requested = entry->claimed_first;
	}
	row->attempts = entry->attempts;
	row->not_before = entry->not_before;
	strlcpy(row->message, entry->message, sizeof(row->message));
	copies->used += copy_size(entry);
	copies->n++;
}

KcfRefreshRow *
kcf_refreshq_rows(Oid relid, int *n)
{
	Copies copies = { 0 };
	KcfRefreshRow *rows;
	char *from;

	kcf_refreshq_walk(MyDatabaseId, relid, LW_SHARED, measure, &copies);
	copies.rows = palloc_extended(copies.size + 1, MCXT_ALLOC_HUGE);
	kcf_refreshq_walk(MyDatabaseId, relid, LW_SHARED, copy, &copies);
	rows = palloc_extended((copies.n + 1) * sizeof(KcfRefreshRow), MCXT_ALLOC_HUGE);
	from = copies.rows;
	for (int i = 0; i < copies.n; i++)
	{
		rows[i] = *(KcfRefreshRow *) from;
		from += MAXALIGN(sizeof(KcfRefreshRow)) + MAXALIGN(rows[i].key.len);
	}
	*n = copies.n;
	return rows;
}

static void
sum(KcfRefreshEntry *entry, void *arg)
{
	KcfRefreshFigures *figures = arg;
	TimestampTz first = entry->claimed_by != 0
							? entry->claimed_first
							: (TimestampTz) pg_atomic_read_u64(&entry->first_requested);

	figures->keys++;
	if (entry->attempts > 0)
		figures->failing++;
	if (figures->oldest == 0 || first < figures->oldest)
		figures->oldest = first;
}

void
kcf_refreshq_figures(Oid relid, KcfRefreshFigures *figures)
{
	memset(figures, 0, sizeof(KcfRefreshFigures));
	kcf_refreshq_walk(MyDatabaseId, relid, LW_SHARED, sum, figures);
}

void
kcf_refreshq_totals(int database, KcfRefreshTotals *totals)
{
	KcfRefreshCounters *counters = &kcf_refreshq->totals[database];

	totals->done = pg_atomic_read_u64(&counters->done);
	totals->failed = pg_atomic_read_u64(&counters->failed);
	totals->dropped = pg_atomic_read_u64(&counters->dropped);
	totals->lapsed = pg_atomic_read_u64(&counters->lapsed);
}
