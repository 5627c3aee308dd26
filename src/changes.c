/*
 * changes.c
 *		The keys that were changed or deleted since a position, by a scan of the store.
 *
 * A row has its record's offset and the store remembers deletions, so what was changed since is what has such an
 * offset. A key met in several partitions can change otherwise too: a record of its newest one's own partition may
 * bring another partition's older record back to light. That record is then among the unseen rows of the key, each of
 * which is its partition's last: any of them since the position is a witness that the key may have changed.
 */
#include "postgres.h"

#include "changes.h"

#include "miscadmin.h"

/* Hashes of the keys that have a witness. Two keys with one hash do no harm. */
typedef struct Witnesses
{
	uint64 *hashes;
	Size n;
	Size room;
} Witnesses;

typedef struct Scan
{
	KcfStoreScan rows;
	const KcfSince *since;
	Witnesses witnesses;
	bool undecided; /* there are rows that only a witness could tell of */
	KcfChangeReceiver receiver;
	void *arg;
} Scan;

bool
kcf_changes_complete(KcfTable *table, const KcfSince *since)
{
	bool complete;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	complete = kcf_table_shows_followed(table);
	for (int i = 0; i < since->n && complete; i++)
	{
		/* Before its first record nothing can have been deleted. */
		if (since->next[i] < 0 || (i >= table->followed.n && since->next[i] == 0))
			continue;
		complete =
			i < table->followed.n &&
			since->next[i] >= (int64) pg_atomic_read_u64(&table->followed.array[i].complete_from);
	}
	LWLockRelease(kcf_registry_lock);
	return complete;
}

static inline bool
is_since(const KcfSince *since, const KcfRow *row)
{
	int partition = row->partition;

	return partition < since->n && since->next[partition] >= 0 &&
		   row->offset >= since->next[partition];
}

static void
add_witness(Witnesses *witnesses, uint64 hash)
{
	if (witnesses->n == witnesses->room)
	{
		witnesses->room = Max(witnesses->room * 2, 1024);
		witnesses->hashes =
			witnesses->hashes == NULL
				? palloc(witnesses->room * sizeof(uint64))
				: repalloc_huge(witnesses->hashes, witnesses->room * sizeof(uint64));
	}
	witnesses->hashes[witnesses->n++] = hash;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64 left = *(const uint64 *) a;
	uint64 right = *(const uint64 *) b;

	return left < right ? -1 : left > right;
}

static bool
has_witness(const Witnesses *witnesses, const KcfRow *row)
{
	uint64 hash = kcf_row_hash(row);

	return bsearch(&hash, witnesses->hashes, witnesses->n, sizeof(uint64), compare_hashes) != NULL;
}

static void
look(Scan *scan, const KcfRow *row)
{
	bool multi = (kcf_row_flags(row) & KCF_ROW_MULTI) != 0;

	if (!is_since(scan->since, row))
	{
		if (unlikely(multi) && kcf_row_visible(row, scan->rows.seq))
			scan->undecided = true;
	}
	else if (kcf_row_visible(row, scan->rows.seq))
		scan->receiver(scan->arg, row);
	else if (unlikely(multi))
		add_witness(&scan->witnesses, kcf_row_hash(row));
}

static void
look_for_witness(Scan *scan, const KcfRow *row)
{
	if ((kcf_row_flags(row) & KCF_ROW_MULTI) && kcf_row_visible(row, scan->rows.seq) &&
		!is_since(scan->since, row) && has_witness(&scan->witnesses, row))
		scan->receiver(scan->arg, row);
}

/* All rows that a state at or before the pinned one has, and some younger ones. */
static inline void
for_each_row(Scan *scan, void (*what)(Scan *scan, const KcfRow *row))
{
	for (uint32 slab = 0; kcf_store_scan_slab(&scan->rows, slab); slab++)
	{
		char *end = scan->rows.end;

		CHECK_FOR_INTERRUPTS();
		for (char *pos = scan->rows.pos; pos < end;)
		{
			const KcfRow *row = (const KcfRow *) pos;

			pos += kcf_row_size(row);
			__builtin_prefetch(pos + KCF_SCAN_AHEAD);
			what(scan, row);
		}
	}
}

void
kcf_changes_scan(const KcfStore *store, KcfSeq seq, const KcfSince *since,
				 KcfChangeReceiver receiver, void *arg)
{
	Scan scan = { .since = since, .receiver = receiver, .arg = arg };

	kcf_store_scan_begin(&scan.rows, store, seq);
	for_each_row(&scan, look);
	if (scan.undecided && scan.witnesses.n > 0)
	{
		qsort(scan.witnesses.hashes, scan.witnesses.n, sizeof(uint64), compare_hashes);
		for_each_row(&scan, look_for_witness);
	}
	if (scan.witnesses.hashes)
		pfree(scan.witnesses.hashes);
}
