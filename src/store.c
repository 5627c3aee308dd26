/*
 * store.c
 *		Life of a store, and reading it.
 */
#include "postgres.h"

#include "store_internal.h"

#define DIRECTORY_MIN 8

/* ---- life ---- */

KcfStore *
kcf_store_create(KcfAccount *account)
{
	KcfStore *store = kcf_arena_alloc(account, sizeof(KcfStore));
	KcfDirectory *dir;
	int all = INT_MAX;

	if (store == NULL)
		return NULL;
	memset(store, 0, sizeof(KcfStore));
	store->tombstone_limit = KCF_TOMBSTONES_ALL;
	store->index = kcf_index_create(store, account, KCF_INDEX_MIN);
	if (store->index == NULL)
	{
		kcf_arena_free(account, store, sizeof(KcfStore));
		return NULL;
	}
	dir = kcf_arena_alloc(account, kcf_directory_size(DIRECTORY_MIN));
	if (dir == NULL)
	{
		kcf_index_free(store, account, store->index, &all);
		kcf_arena_free(account, store, sizeof(KcfStore));
		return NULL;
	}
	memset(dir, 0, kcf_directory_size(DIRECTORY_MIN));
	dir->capacity = DIRECTORY_MIN;
	dir->free_list = (uint32 *) &dir->slabs[DIRECTORY_MIN];
	store->directory = dir;
	return store;
}

void
kcf_store_destroy(KcfStore *store, KcfAccount *account)
{
	KcfDirectory *dir = store->directory;
	int all = INT_MAX;

	for (uint32 i = 0; i < store->nslabs; i++)
	{
		KcfSlab *slab = (KcfSlab *) dir->slabs[i];

		if (slab != NULL)
			kcf_arena_free(account, slab, slab->size);
	}
	while (store->limbo_head != NULL)
	{
		KcfLimbo *item = store->limbo_head;

		store->limbo_head = item->next;
		kcf_limbo_free(store, account, item, &all);
	}
	for (int i = 0; i < KCF_SPARES; i++)
	{
		if (store->spares[i] != NULL)
			kcf_arena_free(account, store->spares[i], store->spares[i]->size);
	}
	/* an index that is being left is not in limbo yet */
	if (store->index->old != NULL)
		kcf_index_free(store, account, store->index->old, &all);
	kcf_index_free(store, account, store->index, &all);
	if (store->building != NULL)
		kcf_index_free(store, account, store->building, &all);
	kcf_arena_free(account, dir, kcf_directory_size(dir->capacity));
	kcf_arena_free(account, store, sizeof(KcfStore));
}

KcfStoreWriter *
kcf_store_attach(KcfStore *store, KcfAccount *account, const KcfKeyType *key, MemoryContext mcxt)
{
	KcfStoreWriter *writer = MemoryContextAllocZero(mcxt, sizeof(KcfStoreWriter));
	int natts = key->desc->natts;

	/*
	 * Nothing to rebuild: every call leaves the shared state whole, so a consumer can die between
	 * any two.
	 */
	writer->store = store;
	writer->account = account;
	writer->key = key;
	writer->values = MemoryContextAllocZero(mcxt, natts * sizeof(Datum));
	writer->isnull = MemoryContextAllocZero(mcxt, natts * sizeof(bool));
	for (int i = 0; i < natts; i++)
		writer->isnull[i] = true;
	for (int i = 0; i < key->nkeys; i++)
		writer->isnull[key->keys[i].attnum - 1] = false;
	return writer;
}

void
kcf_store_detach(KcfStoreWriter *writer)
{
	pfree(writer->values);
	pfree(writer->isnull);
	pfree(writer);
}

KcfDiscarded *
kcf_store_discarded(KcfStore *store)
{
	return &store->discarded;
}

/* ---- reading ---- */

KcfSlice
kcf_row_raw_key(const KcfRow *row)
{
	KcfSlice slice = { NULL, 0 };

	if ((kcf_row_flags(row) & KCF_ROW_TRAILER) && kcf_row_trailer(row)->key_size > 0)
	{
		const KcfRowTrailer *trailer = kcf_row_trailer(row);

		slice.data = trailer->data;
		slice.len = trailer->key_size - 1;
	}
	return slice;
}

KcfSlice
kcf_row_raw_value(const KcfRow *row)
{
	KcfSlice slice = { NULL, 0 };

	if ((kcf_row_flags(row) & KCF_ROW_TRAILER) && kcf_row_trailer(row)->value_size > 0 &&
		kcf_row_trailer(row)->value_size != KCF_VALUE_HASHED)
	{
		const KcfRowTrailer *trailer = kcf_row_trailer(row);

		slice.data = trailer->data + trailer->key_size;
		slice.len = trailer->value_size - 1;
	}
	return slice;
}

uint64
kcf_row_hash(const KcfRow *row)
{
	return kcf_row_hash36(row);
}

/* The key's version at seq, perhaps a tombstone. */
static inline KcfRow *
version_at(const KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
		   KcfSeq seq)
{
	KcfRow *row = kcf_index_find(store, key, hash, values);

	/* see store_write.c for why what is followed here is there */
	while (row != NULL && kcf_row_birth(row) > seq)
		row = kcf_row_prev(row);
	return row != NULL && kcf_row_visible(row, seq) ? row : NULL;
}

KcfRow *
kcf_store_find(const KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
			   KcfSeq seq)
{
	KcfRow *row = version_at(store, key, hash, values, seq);

	return row == NULL || (kcf_row_flags(row) & KCF_ROW_TOMBSTONE) ? NULL : row;
}

KcfRow *
kcf_store_find_any(const KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
				   KcfSeq seq)
{
	KcfRow *row = version_at(store, key, hash, values, seq);

	return row == NULL || (kcf_row_flags(row) & KCF_ROW_NOTHING) == KCF_ROW_TOMBSTONE ? NULL : row;
}

void
kcf_store_stats(const KcfStore *store, KcfStoreStats *stats)
{
	const volatile KcfStore *s = store;

	stats->entries = s->entries;
	stats->tombstones_kept = s->tombstones;
	stats->error_rows = s->error_rows;
	stats->cross_partition_keys = s->cross_partition_keys;
	stats->key_spellings = s->key_spellings;
	stats->live_bytes = s->live_bytes;
	stats->dead_bytes = s->dead_bytes;
	stats->slab_bytes = s->slab_bytes;
	stats->index_bytes = s->index_bytes;
	stats->avg_tuple_len = stats->entries > 0 ? (double) s->tuple_bytes / stats->entries : 0;
	stats->nslabs = s->nslabs;
}

void
kcf_store_scan_begin(KcfStoreScan *scan, const KcfStore *store, KcfSeq seq)
{
	scan->store = store;
	scan->seq = seq;
	/* the number first: a directory is replaced by one that holds more */
	scan->nslabs = store->nslabs;
	pg_read_barrier();
	scan->slabs = store->directory->slabs;
	scan->pos = scan->end = NULL;
}

bool
kcf_store_scan_slab(KcfStoreScan *scan, uint32 number)
{
	KcfSlab *slab;

	if (number >= scan->nslabs)
		return false;
	slab = *(KcfSlab *volatile *) &scan->slabs[number];
	scan->pos = scan->end = NULL;
	if (slab != NULL)
	{
		scan->pos = (char *) slab + KCF_SLAB_HEADER;
		scan->end = (char *) slab + slab->used;
		/* rows below that are whole */
		pg_read_barrier();
	}
	return true;
}
