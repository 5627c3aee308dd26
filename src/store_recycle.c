/*
 * store_recycle.c
 *		Housekeeping: freeing what no pin sees, forgetting tombstones, emptying slabs in which too
 *little lives.
 *
 * Emptying a slab moves its living rows to the open slab, each as an ordinary new version of the
 * same record, so readers need no rule of their own. It begins when dead rows exceed a share of
 * the living ones, takes the slab with most dead bytes first, and stops while more than a bounded
 * amount waits for pins: moving then would only use memory, not win any.
 */
#include "postgres.h"

#include "store_internal.h"

/*
 * Dead bytes, in percent of living ones, beyond which slabs are emptied. A dead row costs a scan
 * about half of what a living one does, so this keeps scans well within 1.2 times of a fresh
 * table's. Less would mean more moving: at 20 percent and random keys about two rows for each one
 * replaced.
 */
#define DEAD_SHARE 20
#define DEAD_SHARE_LOADING 100
/* Bytes moved by one call at most, and tombstones forgotten. */
#define MOVE_BYTES (512 * 1024)
#define FORGET_ROWS 1000
#define FORGET_VISITS 20000
/* Slots of this many rows are fetched together. */
#define MOVE_BATCH 16
/* Blocks given back by one call, and slabs taken out of the directory. */
#define FREE_BLOCKS 32
#define UNLINK_SLABS 256
/* The index's share. */
#define WORK_ZERO (128 * 1024)
#define WORK_SLOTS 2048

/* ---- freeing ---- */

static void
free_unseen(KcfStoreWriter *writer, KcfSeq seq, KcfSeq min_pinned)
{
	KcfStore *store = writer->store;
	int blocks = FREE_BLOCKS;

	while (store->limbo_head != NULL && store->limbo_head->stamp <= min_pinned && blocks > 0)
	{
		KcfLimbo *item = store->limbo_head;
		KcfLimbo *next = item->next;

		if (!kcf_limbo_free(store, writer->account, item, &blocks))
			break;
		store->limbo_head = next;
		if (next == NULL)
			store->limbo_tail = NULL;
	}
	blocks = UNLINK_SLABS;
	while (store->dead.head != NULL && store->dead.head->max_death <= min_pinned && blocks-- > 0)
		kcf_slab_unlink(store, store->dead.head, seq);
}

/* ---- tombstones ---- */

static bool
forgettable(const KcfStore *store, const KcfRow *row, KcfSeq min_pinned)
{
	/* a pin below its birth needs what it leads to */
	return store->tomb_bytes > store->tombstone_limit &&
		   (kcf_row_flags(row) & (KCF_ROW_TOMBSTONE | KCF_ROW_MULTI)) == KCF_ROW_TOMBSTONE &&
		   kcf_row_death(row) == KCF_SEQ_NEVER && kcf_row_birth(row) <= min_pinned;
}

static void
forget(KcfStoreWriter *writer, KcfRow *row, KcfSeq seq)
{
	KcfStore *store = writer->store;

	if (writer->forgotten)
		writer->forgotten(writer->forgotten_arg, row->partition, row->offset);
	kcf_index_remove(store, kcf_index_slot_of(store, row));
	kcf_slab_row_dead(store, row, seq);
}

/* true: there is more to forget now */
static bool
forget_tombstones(KcfStoreWriter *writer, KcfSeq seq, KcfSeq min_pinned)
{
	KcfStore *store = writer->store;
	int left = FORGET_ROWS;
	int visits = FORGET_VISITS;

	while (store->tomb_bytes > store->tombstone_limit)
	{
		KcfSlab *slab = store->tombs.head;
		char *end = (char *) slab + slab->used;

		for (char *pos = (char *) slab + KCF_SLAB_HEADER; pos < end && slab->tombs > 0;)
		{
			KcfRow *row = (KcfRow *) pos;

			pos += kcf_row_size(row);
			visits--;
			if (!forgettable(store, row, min_pinned))
				continue;
			if (left-- == 0)
				return true;
			forget(writer, row, seq);
		}
		if (store->tombs.head == slab)
			return false; /* all others are younger still */
		if (visits <= 0)
			return true;
	}
	return false;
}

/* ---- moving ---- */

/* The same record at another place. false: no room. */
static bool
move_row(KcfStoreWriter *writer, KcfRow *row, volatile uint64 *slot, KcfSeq seq)
{
	KcfStore *store = writer->store;
	uint64 marks = *slot & KCF_SLOT_LOSER;
	uint64 h36 = kcf_row_hash36(row);
	Size size = kcf_row_size(row);
	const KcfRow *prev = NULL;
	uint64 page;
	KcfRow *copy = kcf_slab_reserve(writer, size, seq, KCF_USE_MOVE, &page);

	if (copy == NULL)
		return false;
	if (!marks)
		prev = kcf_row_birth(row) == seq ? kcf_row_prev(row) : row;
	memcpy(copy, row, size);
	copy->prev_flags =
		page << 56 | (row->prev_flags & (UINT64CONST(0x00ff) << 48)) | (uint64) (uintptr_t) prev;
	kcf_row_set_death(copy, KCF_SEQ_NEVER);
	kcf_row_set_birth(copy, h36, marks ? KCF_ROW_NEVER : seq);
	kcf_slab_commit(store, copy, size);
	if (kcf_row_flags(copy) & KCF_ROW_TOMBSTONE)
	{
		store->tombstones++;
		if (!(kcf_row_flags(copy) & KCF_ROW_MULTI))
			kcf_slab_tomb_add(store, copy);
	}
	kcf_index_replace(slot, copy, marks);
	kcf_slab_row_dead(store, row, seq);
	return true;
}

static bool
too_much_dead(const KcfStore *store)
{
	Size share = store->loading ? DEAD_SHARE_LOADING : DEAD_SHARE;

	return store->full || (kcf_slab_spares(store) < KCF_SPARES && store->open != NULL) ||
		   store->hole_bytes > store->live_bytes / 100 * share + kcf_slab_next_size(store);
}

static KcfSlab *
best_victim(const KcfStore *store)
{
	for (int i = KCF_BUCKETS - 1; i > 0; i--)
	{
		if (store->buckets[i].head != NULL)
			return store->buckets[i].head;
	}
	return NULL;
}

static bool
too_much_waits(const KcfStore *store)
{
	return store->limbo_bytes > Max(4 * kcf_slab_next_size(store), store->live_bytes / 8);
}

/* true: there is more to move, and room for it */
static bool
recycle(KcfStoreWriter *writer, KcfSeq seq, KcfSeq min_pinned, int budget)
{
	KcfStore *store = writer->store;
	int moves = Max(Min(budget, KCF_HOUSEKEEP_ROWS), MOVE_BATCH);
	int visits = 4 * moves;
	int64 bytes = MOVE_BYTES;

	while (too_much_dead(store) && !too_much_waits(store))
	{
		KcfRow *batch[MOVE_BATCH];
		int n = 0;
		char *end;

		if (store->victim == NULL)
		{
			store->victim = best_victim(store);
			if (store->victim == NULL)
				return false;
			store->victim_pos = (char *) store->victim + KCF_SLAB_HEADER;
		}
		if (moves <= 0 || visits <= 0 || bytes <= 0)
			return true;

		end = (char *) store->victim + store->victim->used;
		while (store->victim_pos < end && n < MOVE_BATCH && visits-- > 0)
		{
			KcfRow *row = (KcfRow *) store->victim_pos;

			store->victim_pos += kcf_row_size(row);
			__builtin_prefetch(store->victim_pos + 512);
			if (kcf_row_death(row) != KCF_SEQ_NEVER)
				continue;
			kcf_store_prefetch_slot(writer, kcf_row_hash36(row) << 28);
			batch[n++] = row;
		}
		for (int i = 0; i < n; i++)
		{
			if (forgettable(store, batch[i], min_pinned))
				forget(writer, batch[i], seq);
			else if (!move_row(writer, batch[i], kcf_index_slot_of(store, batch[i]), seq))
			{
				store->victim_pos = (char *) batch[i];
				return false;
			}
			else
			{
				moves--;
				bytes -= kcf_row_size(batch[i]);
			}
		}
	}
	return false;
}

bool
kcf_store_housekeep(KcfStoreWriter *writer, KcfSeq published, KcfSeq min_pinned, int budget)
{
	KcfStore *store = writer->store;
	KcfSeq seq = published + 1;
	bool more;

	free_unseen(writer, seq, min_pinned);
	if (kcf_slab_spares(store) < KCF_SPARES && store->open != NULL)
		(void) kcf_slab_reserve_fill(writer, kcf_slab_next_size(store));
	kcf_slab_reserve_shrink(writer);
	more = kcf_index_work(writer, seq, WORK_ZERO, WORK_SLOTS);
	if (store->tomb_bytes > store->tombstone_limit)
		more |= forget_tombstones(writer, seq, min_pinned);
	more |= recycle(writer, seq, min_pinned, budget);
	/* what waits for the next publish only */
	if (min_pinned >= published)
		more |= kcf_store_hindered(writer);
	return more;
}

bool
kcf_store_hindered(const KcfStoreWriter *writer)
{
	const KcfStore *store = writer->store;

	return store->limbo_head != NULL || store->dead.head != NULL ||
		   store->tomb_bytes > store->tombstone_limit;
}

void
kcf_store_set_loading(KcfStoreWriter *writer, bool loading)
{
	writer->store->loading = loading;
}

void
kcf_store_set_tombstone_limit(KcfStoreWriter *writer, Size bytes)
{
	writer->store->tombstone_limit = bytes;
}

void
kcf_store_set_forgotten(KcfStoreWriter *writer, KcfForgotten forgotten, void *arg)
{
	writer->forgotten = forgotten;
	writer->forgotten_arg = arg;
}
