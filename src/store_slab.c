/*
 * store_slab.c
 *		Slabs: where rows lie, what in them lives, and how they go.
 *
 * A slab is open (rows are appended), then closed. Each closed one is in a bucket by its share of
 * dead bytes, so that recycling finds the most rewarding without looking. When nothing lives in
 * it, it joins the queue of the dead; when no pin sees its rows it is unlinked from the
 * directory, and when no scanner can hold it, freed (or kept as the spare).
 *
 * The size of the next slab grows with the table, from 16 kB to 1 MB: a tiny table is cheap, and
 * what one slab holds beyond the bound on dead rows is a small part of any table.
 *
 * The reserve: two spare slabs. No put opens a slab, or goes on in an open one, unless both are
 * there (so that is when a store is full). A tombstone that ends a row may take one, and
 * recycling, which makes room in the end, the other. So a full store can always note deletions
 * and empty a slab in which something is dead.
 */
#include "postgres.h"

#include "store_internal.h"

/* Memory is touched for the first time in parts of this. */
#define POPULATE_BYTES ((Size) 64 * 1024)

/* ---- lists ---- */

static void
list_append(KcfSlabList *list, KcfSlab *slab)
{
	slab->next = NULL;
	slab->prev = list->tail;
	if (list->tail)
		list->tail->next = slab;
	else
		list->head = slab;
	list->tail = slab;
}

static void
list_remove(KcfSlabList *list, KcfSlab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		list->head = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
	else
		list->tail = slab->prev;
	slab->prev = slab->next = NULL;
}

static void
tombs_append(KcfStore *store, KcfSlab *slab)
{
	slab->tomb_next = NULL;
	slab->tomb_prev = store->tombs.tail;
	if (store->tombs.tail)
		store->tombs.tail->tomb_next = slab;
	else
		store->tombs.head = slab;
	store->tombs.tail = slab;
}

static void
tombs_remove(KcfStore *store, KcfSlab *slab)
{
	if (slab->tomb_prev)
		slab->tomb_prev->tomb_next = slab->tomb_next;
	else
		store->tombs.head = slab->tomb_next;
	if (slab->tomb_next)
		slab->tomb_next->tomb_prev = slab->tomb_prev;
	else
		store->tombs.tail = slab->tomb_prev;
	slab->tomb_prev = slab->tomb_next = NULL;
}

static int
bucket_of(const KcfSlab *slab)
{
	return slab->dead * KCF_BUCKETS / (slab->used - KCF_SLAB_HEADER + 1);
}

/* After closing or a death: to the list in which it belongs now. */
static void
slab_file(KcfStore *store, KcfSlab *slab, KcfSeq seq)
{
	if (slab->live == 0)
	{
		if (slab->state == KCF_SLAB_CLOSED && slab->bucket >= 0)
			list_remove(&store->buckets[slab->bucket], slab);
		if (slab->state != KCF_SLAB_OWN)
			store->hole_bytes -= slab->dead;
		slab->state = KCF_SLAB_DEAD;
		if (store->victim == slab)
			store->victim = NULL;
		/* in the queue's order, even if its last row died long before it was closed */
		slab->max_death = Max(slab->max_death, seq);
		store->limbo_bytes += slab->size;
		list_append(&store->dead, slab);
	}
	else if (slab->state == KCF_SLAB_CLOSED)
	{
		int bucket = bucket_of(slab);

		if (bucket == slab->bucket)
			return;
		if (slab->bucket >= 0)
			list_remove(&store->buckets[slab->bucket], slab);
		slab->bucket = bucket;
		list_append(&store->buckets[bucket], slab);
	}
}

/* ---- limbo ---- */

void
kcf_limbo_push(KcfStore *store, KcfLimbo *item, KcfLimboKind kind, KcfSeq seq)
{
	item->next = NULL;
	item->stamp = seq;
	item->kind = kind;
	if (store->limbo_tail)
		store->limbo_tail->next = item;
	else
		store->limbo_head = item;
	store->limbo_tail = item;
}

/* Back to the arena, or into the reserve. */
static void
slab_free(KcfStore *store, KcfAccount *account, KcfSlab *slab)
{
	Size size = kcf_slab_next_size(store);

	for (int i = 0; i < KCF_SPARES && slab->size <= KCF_SLAB_MAX; i++)
	{
		KcfSlab *spare = store->spares[i];

		if (spare != NULL && (spare->size >= size || spare->size >= slab->size))
			continue;
		store->spares[i] = slab;
		if (spare == NULL)
			return;
		slab = spare;
	}
	store->slab_bytes -= slab->size;
	kcf_arena_free(account, slab, slab->size);
}

bool
kcf_limbo_free(KcfStore *store, KcfAccount *account, KcfLimbo *item, int *blocks)
{
	switch (item->kind)
	{
		case KCF_LIMBO_SLAB:
			store->limbo_bytes -= ((KcfSlab *) item)->size;
			store->dead_bytes -= ((KcfSlab *) item)->dead;
			slab_free(store, account, (KcfSlab *) item);
			break;
		case KCF_LIMBO_DIRECTORY:
			kcf_arena_free(account, item, kcf_directory_size(((KcfDirectory *) item)->capacity));
			break;
		case KCF_LIMBO_INDEX:
			return kcf_index_free(store, account, (KcfIndex *) item, blocks);
	}
	--*blocks;
	return true;
}

/* ---- the directory ---- */

/* Make sure that one more slab can be entered. */
static bool
directory_room(KcfStoreWriter *writer, KcfSeq seq)
{
	KcfStore *store = writer->store;
	KcfDirectory *dir = store->directory;
	KcfDirectory *larger;
	uint32 capacity;

	if (dir->nfree > 0 || store->nslabs < dir->capacity)
		return true;
	capacity = dir->capacity * 2;
	larger = kcf_arena_alloc(writer->account, kcf_directory_size(capacity));
	if (larger == NULL)
		return false;
	larger->capacity = capacity;
	larger->nfree = 0;
	larger->free_list = (uint32 *) &larger->slabs[capacity];
	memcpy(larger->slabs, dir->slabs, store->nslabs * sizeof(char *));
	memset(&larger->slabs[store->nslabs], 0, (capacity - store->nslabs) * sizeof(char *));
	pg_write_barrier();
	store->directory = larger;
	kcf_limbo_push(store, &dir->limbo, KCF_LIMBO_DIRECTORY, seq);
	return true;
}

/*
 * A new slab may take the entry of an unlinked one: a scanner that comes to the entry late finds
 * rows born above its pin, and all that was in the old slab was dead to it.
 */
static void
directory_enter(KcfStore *store, KcfSlab *slab)
{
	KcfDirectory *dir = store->directory;

	/* the header is whole before anyone finds it */
	pg_write_barrier();
	if (dir->nfree > 0)
	{
		slab->entry = dir->free_list[--dir->nfree];
		*(char *volatile *) &dir->slabs[slab->entry] = (char *) slab;
	}
	else
	{
		slab->entry = store->nslabs;
		*(char *volatile *) &dir->slabs[slab->entry] = (char *) slab;
		pg_write_barrier();
		store->nslabs++;
	}
}

void
kcf_slab_unlink(KcfStore *store, KcfSlab *slab, KcfSeq seq)
{
	KcfDirectory *dir = store->directory;

	Assert(slab->state == KCF_SLAB_DEAD && slab->live == 0);
	list_remove(&store->dead, slab);
	*(char *volatile *) &dir->slabs[slab->entry] = NULL;
	dir->free_list[dir->nfree++] = slab->entry;
	kcf_limbo_push(store, &slab->limbo, KCF_LIMBO_SLAB, seq);
}

/* ---- room for rows ---- */

Size
kcf_slab_next_size(const KcfStore *store)
{
	Size size = KCF_SLAB_MIN;

	while (size < KCF_SLAB_MAX && size * 32 < store->slab_bytes)
		size *= 2;
	return size;
}

static KcfSlab *
slab_alloc(KcfStoreWriter *writer, Size size)
{
	KcfSlab *slab = kcf_arena_alloc(writer->account, size);

	if (slab != NULL)
	{
		slab->size = size;
		writer->store->slab_bytes += size;
	}
	return slab;
}

bool
kcf_slab_reserve_fill(KcfStoreWriter *writer, Size size)
{
	KcfStore *store = writer->store;

	for (int i = 0; i < KCF_SPARES; i++)
	{
		KcfSlab *smaller = store->spares[i];
		KcfSlab *spare;

		if (likely(smaller != NULL && smaller->size >= size))
			continue;
		spare = slab_alloc(writer, size);
		if (spare == NULL)
			return false;
		store->spares[i] = spare;
		if (smaller != NULL)
		{
			store->slab_bytes -= smaller->size;
			kcf_arena_free(writer->account, smaller, smaller->size);
		}
	}
	return true;
}

void
kcf_slab_reserve_shrink(KcfStoreWriter *writer)
{
	KcfStore *store = writer->store;
	Size size = kcf_slab_next_size(store);

	/* of wide rows slabs are larger */
	if (store->open != NULL)
		size = Max(size, store->open->size);
	for (int i = 0; i < KCF_SPARES; i++)
	{
		KcfSlab *larger = store->spares[i];
		KcfSlab *spare;

		if (likely(larger == NULL || larger->size <= 2 * size))
			continue;
		spare = slab_alloc(writer, size);
		if (spare == NULL)
			return;
		store->spares[i] = spare;
		store->slab_bytes -= larger->size;
		kcf_arena_free(writer->account, larger, larger->size);
	}
}

int
kcf_slab_spares(const KcfStore *store)
{
	int n = 0;

	for (int i = 0; i < KCF_SPARES; i++)
		n += store->spares[i] != NULL;
	return n;
}

/* A spare in which this many bytes fit. */
static KcfSlab *
take_spare(KcfStore *store, Size size)
{
	for (int i = 0; i < KCF_SPARES; i++)
	{
		KcfSlab *slab = store->spares[i];

		if (slab != NULL && slab->size >= size)
		{
			store->spares[i] = NULL;
			return slab;
		}
	}
	return NULL;
}

/* What must be left of the reserve. */
static inline int
spares_left(KcfUse use)
{
	return use == KCF_USE_PUT ? KCF_SPARES : use == KCF_USE_DELETE ? 1 : 0;
}

static void
slab_begin(KcfStore *store, KcfSlab *slab, KcfSlabState state)
{
	Size size = slab->size;

	memset(slab, 0, sizeof(KcfSlab));
	slab->size = size;
	slab->used = KCF_SLAB_HEADER;
	slab->state = state;
	slab->bucket = -1;
	kcf_arena_populate(slab, Min(size, POPULATE_BYTES));
	directory_enter(store, slab);
}

/* A slab to append to, for a row of this size at least. */
static bool
slab_open(KcfStoreWriter *writer, Size need, KcfSeq seq, KcfUse use)
{
	KcfStore *store = writer->store;
	KcfSlab *closing = store->open;
	Size size = kcf_slab_next_size(store);
	KcfSlab *slab;

	/* what does not fit at a slab's end is wasted: at most an eighth */
	while (size < KCF_SLAB_MAX && size < need * 8)
		size *= 2;
	if (!directory_room(writer, seq))
		return false;
	slab = slab_alloc(writer, size);
	if (slab != NULL && !kcf_slab_reserve_fill(writer, size) && use == KCF_USE_PUT)
	{
		store->slab_bytes -= slab->size;
		kcf_arena_free(writer->account, slab, slab->size);
		return false;
	}
	if (slab == NULL && kcf_slab_spares(store) > spares_left(use))
		slab = take_spare(store, KCF_SLAB_HEADER + need);
	if (slab == NULL)
		return false;

	slab_begin(store, slab, KCF_SLAB_OPEN);
	store->open = slab;
	if (closing != NULL)
	{
		closing->state = KCF_SLAB_CLOSED;
		slab_file(store, closing, seq);
	}
	return true;
}

KcfRow *
kcf_slab_reserve(KcfStoreWriter *writer, Size size, KcfSeq seq, KcfUse use, uint64 *page)
{
	KcfStore *store = writer->store;
	KcfSlab *slab = store->open;
	KcfRow *row;

	/* while the reserve is in use what is left of an open slab is not for everyone */
	if (unlikely(slab != NULL && kcf_slab_spares(store) < spares_left(use)) &&
		!kcf_slab_reserve_fill(writer, kcf_slab_next_size(store)))
		return NULL;
	if (likely(slab != NULL && slab->used + size <= slab->size))
		;
	else if (size > KCF_ROW_OWN_SLAB)
	{
		/* behind its row nothing more goes in; the page of the row is the first */
		if (!directory_room(writer, seq))
			return NULL;
		slab = slab_alloc(writer, TYPEALIGN(KCF_PAGE, KCF_SLAB_HEADER + size));
		if (slab == NULL)
			return NULL;
		slab_begin(store, slab, KCF_SLAB_OWN);
	}
	else if (!slab_open(writer, size, seq, use))
		return NULL;
	else
		slab = store->open;
	row = (KcfRow *) ((char *) slab + slab->used);
	*page = slab->used / KCF_PAGE;
	return row;
}

void
kcf_slab_commit(KcfStore *store, KcfRow *row, Size size)
{
	KcfSlab *slab = kcf_row_slab(row);
	Size used;

	slab->live += size;
	store->live_bytes += size;
	if (kcf_row_birth(row) != KCF_ROW_NEVER)
		slab->youngest = kcf_row_birth(row);
	used = slab->used + size;
	if (unlikely((used ^ slab->used) & ~(Size) (POPULATE_BYTES - 1)))
	{
		/* the part that is begun, and never a large one at once */
		Size begin = TYPEALIGN_DOWN(POPULATE_BYTES, used);

		if (begin < slab->size && slab->state == KCF_SLAB_OPEN)
			kcf_arena_populate((char *) slab + begin, Min(POPULATE_BYTES, slab->size - begin));
	}
	/* scanners walk up to here */
	pg_write_barrier();
	slab->used = used;
}

void
kcf_slab_row_dead(KcfStore *store, KcfRow *row, KcfSeq seq)
{
	KcfSlab *slab = kcf_row_slab(row);
	Size size = kcf_row_size(row);

	if (kcf_row_flags(row) & KCF_ROW_TOMBSTONE)
	{
		store->tombstones--;
		if (!(kcf_row_flags(row) & KCF_ROW_MULTI))
			kcf_slab_tomb_remove(store, row);
	}
	kcf_row_set_death(row, seq);
	slab->live -= size;
	slab->dead += size;
	slab->max_death = seq;
	store->live_bytes -= size;
	store->dead_bytes += size;
	if (slab->state != KCF_SLAB_OWN)
		store->hole_bytes += size;
	if (slab->state != KCF_SLAB_OPEN)
		slab_file(store, slab, seq);
}

void
kcf_slab_tomb_add(KcfStore *store, KcfRow *row)
{
	KcfSlab *slab = kcf_row_slab(row);
	Size size = kcf_row_size(row);

	if (slab->tombs == 0)
		tombs_append(store, slab);
	slab->tombs += size;
	store->tomb_bytes += size;
}

void
kcf_slab_tomb_remove(KcfStore *store, KcfRow *row)
{
	KcfSlab *slab = kcf_row_slab(row);
	Size size = kcf_row_size(row);

	slab->tombs -= size;
	store->tomb_bytes -= size;
	if (slab->tombs == 0)
		tombs_remove(store, slab);
}
