/*
 * store_index.c
 *		From a key to its newest row: open addressing that grows without a pause.
 *
 * A larger (or, full of deleted slots, an equal, or a smaller) index is allocated and zeroed
 * segment by segment in slices, then published with the present one as its `old`. From then on
 * every slice moves some slots: the pointer is written to the new index first, then the old slot
 * is marked MOVED, and stays. A reader looks in the new index, then in the old one. It never
 * follows a MOVED slot (what it points to may be freed one day while the slot stays), but looks
 * in the new index again, where it must be, if it is anywhere. Meeting a MOVED slot in what it
 * took for the newest index tells a reader that there is a newer one.
 *
 * The consumer never changes anything in the old index but by moving: before it looks for a key
 * it moves all slots of the key's tag from the run in which the key could be. So each key is in
 * one index only, for it.
 *
 * Why a reader may follow a slot that is not MOVED: at the moment of reading it the row was the
 * newest of its key and partition. If it is replaced later, it dies at a sequence that is not yet
 * published, above the reader's pin, so its slab stays. A LOSER slot is not followed by readers
 * at all.
 *
 * Keys that the reader's pin can see are always found: their slots were written before their
 * birth was published, are moved but never lost, and are removed only when no pin can see their
 * row.
 */
#include "postgres.h"

#include "store_internal.h"

/* Begin to grow when this share of slots is used, refuse new ones beyond the other. */
#define INDEX_GROW(nslots) ((nslots) / 10 * 7)
#define INDEX_FULL(nslots) ((nslots) / 10 * 9)
/* After memory was refused, ask again after so many attempts. */
#define INDEX_RETRY 64
/* How far ahead of the cursor rows are fetched while slots are moved. */
#define INDEX_AHEAD 8

typedef struct Probe
{
	const KcfIndex *index;
	uint64 pos;
	volatile uint64 *slot;
	volatile uint64 *end; /* of the segment */
} Probe;

static inline void
probe_load(Probe *probe)
{
	uint64 in_segment = probe->pos & ((UINT64CONST(1) << probe->index->shift) - 1);
	volatile uint64 *segment = probe->index->segments[probe->pos >> probe->index->shift];

	probe->slot = segment + in_segment;
	probe->end = segment + (UINT64CONST(1) << probe->index->shift);
}

static inline void
probe_begin(Probe *probe, const KcfIndex *index, uint64 h36)
{
	probe->index = index;
	probe->pos = h36 & index->mask;
	probe_load(probe);
}

static inline void
probe_next(Probe *probe)
{
	probe->pos = (probe->pos + 1) & probe->index->mask;
	if (unlikely(++probe->slot == probe->end))
		probe_load(probe);
}

static inline uint64
slot_value(const KcfRow *row, uint64 h36, uint64 marks)
{
	return kcf_hash_tag(h36) << 48 | (uint64) (uintptr_t) row | marks;
}

/* ---- readers ---- */

/* The newest row of the key in this index. *moved: a slot that may be the key's is on in the next
 * one. */
static inline KcfRow *
find_in(const KcfIndex *index, const KcfKeyType *key, uint64 h36, const Datum *values, bool *moved)
{
	uint64 tag = kcf_hash_tag(h36);
	Probe probe;

	*moved = false;
	for (probe_begin(&probe, index, h36);; probe_next(&probe))
	{
		uint64 slot = *probe.slot;

		if (slot == KCF_SLOT_EMPTY)
			return NULL;
		if (kcf_slot_tag(slot) != tag || slot == KCF_SLOT_DELETED || (slot & KCF_SLOT_LOSER))
			continue;
		if (slot & KCF_SLOT_MOVED)
			*moved = true;
		else if (likely(kcf_key_equals(key, values, kcf_row_tuple(kcf_slot_row(slot)))))
			return kcf_slot_row(slot);
	}
}

KcfRow *
kcf_index_find(const KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values)
{
	uint64 h36 = kcf_hash36(hash);

	for (;;)
	{
		const KcfIndex *index = store->index;
		const KcfIndex *old;
		KcfRow *row;
		bool moved;

		pg_read_barrier();
		/* before the look in the new one: what is not in the old one any more by now, is there */
		old = index->old;
		pg_read_barrier();
		row = find_in(index, key, h36, values, &moved);
		if (likely(row != NULL))
			return row;
		pg_read_barrier();
		if (unlikely(moved))
			continue; /* there is a newer one */
		if (likely(old == NULL))
			return NULL;
		row = find_in(old, key, h36, values, &moved);
		if (row != NULL || !moved)
			return row;
		pg_read_barrier();
		row = find_in(index, key, h36, values, &moved);
		if (row != NULL || !moved)
			return row;
		pg_read_barrier();
	}
}

/* ---- life ---- */

static inline Size
segment_bytes(const KcfIndex *index)
{
	return sizeof(uint64) << index->shift;
}

static inline Size
header_bytes(uint32 nsegments)
{
	return offsetof(KcfIndex, segments) + nsegments * sizeof(uint64 *);
}

/* The header only; NULL: no room. */
static KcfIndex *
index_alloc(KcfStore *store, KcfAccount *account, uint64 nslots)
{
	uint32 nsegments = Max(nslots >> KCF_SEGMENT_SHIFT, 1);
	KcfIndex *index = kcf_arena_alloc(account, header_bytes(nsegments));

	if (index == NULL)
		return NULL;
	memset(index, 0, header_bytes(nsegments));
	index->mask = nslots - 1;
	index->nsegments = nsegments;
	while (nslots / nsegments > UINT64CONST(1) << index->shift)
		index->shift++;
	store->index_bytes += header_bytes(nsegments);
	return index;
}

/* Allocate and zero up to `bytes` of it. false: no room; go on later. */
static bool
index_build(KcfStore *store, KcfAccount *account, KcfIndex *index, Size bytes)
{
	while (index->nbuilt < index->nsegments && bytes > 0)
	{
		Size left = segment_bytes(index) - index->nzeroed;
		Size slice = Min(bytes, left);

		if (index->segments[index->nbuilt] == NULL)
		{
			index->segments[index->nbuilt] = kcf_arena_alloc(account, segment_bytes(index));
			if (index->segments[index->nbuilt] == NULL)
				return false;
			store->index_bytes += segment_bytes(index);
		}
		memset((char *) index->segments[index->nbuilt] + index->nzeroed, 0, slice);
		index->nzeroed += slice;
		bytes -= slice;
		if (index->nzeroed == segment_bytes(index))
		{
			index->nbuilt++;
			index->nzeroed = 0;
		}
	}
	return true;
}

KcfIndex *
kcf_index_create(KcfStore *store, KcfAccount *account, uint64 nslots)
{
	KcfIndex *index = index_alloc(store, account, nslots);

	if (index != NULL && !index_build(store, account, index, nslots * sizeof(uint64)))
	{
		int all = INT_MAX;

		kcf_index_free(store, account, index, &all);
		return NULL;
	}
	return index;
}

bool
kcf_index_free(KcfStore *store, KcfAccount *account, KcfIndex *index, int *blocks)
{
	/* from the last one, so that it can be gone on with */
	for (int i = (int) index->nsegments - 1; i >= 0; i--)
	{
		if (index->segments[i] == NULL)
			continue;
		if ((*blocks)-- <= 0)
			return false;
		store->index_bytes -= segment_bytes(index);
		kcf_arena_free(account, (void *) index->segments[i], segment_bytes(index));
		index->segments[i] = NULL;
	}
	store->index_bytes -= header_bytes(index->nsegments);
	kcf_arena_free(account, index, header_bytes(index->nsegments));
	return true;
}

/* ---- the consumer ---- */

static volatile uint64 *
vacant_slot(const KcfIndex *index, uint64 h36)
{
	Probe probe;

	probe_begin(&probe, index, h36);
	while (*probe.slot != KCF_SLOT_EMPTY && *probe.slot != KCF_SLOT_DELETED)
		probe_next(&probe);
	return probe.slot;
}

void
kcf_index_insert(KcfStore *store, volatile uint64 *vacant, const KcfRow *row, uint64 marks)
{
	KcfIndex *index = store->index;

	if (*vacant == KCF_SLOT_EMPTY)
		index->used++;
	index->live++;
	store->slots_live++;
	kcf_index_replace(vacant, row, marks);
}

void
kcf_index_add(KcfStore *store, const KcfRow *row, uint64 marks)
{
	kcf_index_insert(store, vacant_slot(store->index, kcf_row_hash36(row)), row, marks);
}

void
kcf_index_replace(volatile uint64 *slot, const KcfRow *row, uint64 marks)
{
	/* the row is whole before it can be found */
	pg_write_barrier();
	*slot = slot_value(row, kcf_row_hash36(row), marks);
}

void
kcf_index_remove(KcfStore *store, volatile uint64 *slot)
{
	KcfIndex *index = store->index;
	Probe probe;

	index->live--;
	store->slots_live--;
	/* nothing was ever probed for beyond an empty neighbor, so this one may end the run too */
	probe_begin(&probe, index, kcf_row_hash36(kcf_slot_row(*slot)));
	while (probe.slot != slot)
		probe_next(&probe);
	probe_next(&probe);
	if (*probe.slot == KCF_SLOT_EMPTY)
	{
		*slot = KCF_SLOT_EMPTY;
		index->used--;
	}
	else
		*slot = KCF_SLOT_DELETED;
}

/* One slot of the old index goes to the present one. */
static void
move_slot(KcfIndex *index, volatile uint64 *slot)
{
	uint64 value = *slot;
	const KcfRow *row = kcf_slot_row(value);
	volatile uint64 *to = vacant_slot(index, kcf_row_hash36(row));

	if (*to == KCF_SLOT_EMPTY)
		index->used++;
	index->live++;
	index->old->live--;
	*to = value;
	/* first here, then gone there */
	pg_write_barrier();
	*slot = value | KCF_SLOT_MOVED;
}

/* All slots of the old index that may belong to a key of this hash. */
static void
move_run(KcfStore *store, uint64 h36)
{
	KcfIndex *index = store->index;
	uint64 tag = kcf_hash_tag(h36);
	Probe probe;

	for (probe_begin(&probe, index->old, h36); *probe.slot != KCF_SLOT_EMPTY; probe_next(&probe))
	{
		uint64 slot = *probe.slot;

		if (kcf_slot_tag(slot) == tag && slot != KCF_SLOT_DELETED && !(slot & KCF_SLOT_MOVED))
			move_slot(index, probe.slot);
	}
}

void
kcf_index_seek(KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
			   KcfSeek *seek)
{
	KcfIndex *index = store->index;
	uint64 h36 = kcf_hash36(hash);
	uint64 tag = kcf_hash_tag(h36);
	Probe probe;

	if (unlikely(index->old != NULL))
		move_run(store, h36);
	seek->vacant = NULL;
	for (probe_begin(&probe, index, h36);; probe_next(&probe))
	{
		uint64 slot = *probe.slot;

		if (slot == KCF_SLOT_EMPTY)
			break;
		if (slot == KCF_SLOT_DELETED)
		{
			if (seek->vacant == NULL)
				seek->vacant = probe.slot;
			continue;
		}
		if (kcf_slot_tag(slot) == tag && !(slot & KCF_SLOT_LOSER) &&
			likely(kcf_key_equals(key, values, kcf_row_tuple(kcf_slot_row(slot)))))
		{
			seek->slot = probe.slot;
			seek->row = kcf_slot_row(slot);
			return;
		}
	}
	if (seek->vacant == NULL)
		seek->vacant = probe.slot;
	seek->slot = NULL;
	seek->row = NULL;
}

volatile uint64 *
kcf_index_next_loser(KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
					 uint64 *pos)
{
	KcfIndex *index = store->index;
	uint64 h36 = kcf_hash36(hash);
	Probe probe;

	probe_begin(&probe, index, h36);
	for (uint64 i = 0; *probe.slot != KCF_SLOT_EMPTY; i++, probe_next(&probe))
	{
		uint64 slot = *probe.slot;

		if (i >= *pos && kcf_slot_tag(slot) == kcf_hash_tag(h36) && (slot & KCF_SLOT_LOSER) &&
			kcf_key_equals(key, values, kcf_row_tuple(kcf_slot_row(slot))))
		{
			*pos = i + 1;
			return probe.slot;
		}
	}
	return NULL;
}

volatile uint64 *
kcf_index_slot_of(KcfStore *store, const KcfRow *row)
{
	KcfIndex *index = store->index;
	uint64 h36 = kcf_row_hash36(row);
	Probe probe;

	if (unlikely(index->old != NULL))
		move_run(store, h36);
	for (probe_begin(&probe, index, h36); *probe.slot != KCF_SLOT_EMPTY; probe_next(&probe))
	{
		if (kcf_slot_row(*probe.slot) == row)
			return probe.slot;
	}
	Assert(false);
	return NULL;
}

bool
kcf_index_room(const KcfStore *store)
{
	const KcfIndex *index = store->index;
	uint64 coming = store->slots_live - index->live;

	return index->used + coming < INDEX_FULL(index->mask + 1);
}

/* What size should the next index have, if there should be one? 0: none. */
static uint64
next_size(const KcfStore *store)
{
	const KcfIndex *index = store->index;
	uint64 nslots = index->mask + 1;

	if (index->used >= INDEX_GROW(nslots))
		return store->slots_live > nslots * 3 / 10 ? nslots * 2 : nslots;
	/* by halves only: what is put meanwhile must find room too */
	if (nslots > KCF_INDEX_MIN && store->slots_live < nslots / 8)
		return nslots / 2;
	return 0;
}

static bool
refused(KcfStore *store)
{
	store->build_retry = INDEX_RETRY;
	return false;
}

bool
kcf_index_work(KcfStoreWriter *writer, KcfSeq seq, Size zero_bytes, uint32 slots)
{
	KcfStore *store = writer->store;
	KcfIndex *index = store->index;
	KcfIndex *old = index->old;

	if (old != NULL)
	{
		uint64 end = Min(index->cursor + slots, old->mask + 1);
		uint64 in_segment = (UINT64CONST(1) << old->shift) - 1;

		for (uint64 i = index->cursor; i < end; i++)
		{
			volatile uint64 *slot = &old->segments[i >> old->shift][i & in_segment];
			uint64 ahead = (i + INDEX_AHEAD) & old->mask;

			ahead = old->segments[ahead >> old->shift][ahead & in_segment];
			if (!(ahead & KCF_SLOT_MOVED))
				__builtin_prefetch(kcf_row_tuple(kcf_slot_row(ahead)));
			if (*slot != KCF_SLOT_EMPTY && *slot != KCF_SLOT_DELETED && !(*slot & KCF_SLOT_MOVED))
				move_slot(index, slot);
		}
		index->cursor = end;
		if (end <= old->mask)
			return true;
		Assert(old->live == 0 && index->live == store->slots_live);
		index->old = NULL;
		kcf_limbo_push(store, &old->limbo, KCF_LIMBO_INDEX, seq);
		return true;
	}

	if (store->building == NULL)
	{
		uint64 nslots = next_size(store);

		if (likely(nslots == 0))
			return false;
		if (store->build_retry > 0)
		{
			store->build_retry--;
			return false;
		}
		store->building = index_alloc(store, writer->account, nslots);
		if (store->building == NULL)
			return refused(store);
	}
	else if (store->build_retry > 0)
	{
		store->build_retry--;
		return false;
	}
	if (!index_build(store, writer->account, store->building, zero_bytes))
		return refused(store);
	if (store->building->nbuilt == store->building->nsegments)
	{
		/* what is in the present one stays visible through it */
		store->building->old = index;
		pg_write_barrier();
		store->index = store->building;
		store->building = NULL;
	}
	return true;
}
