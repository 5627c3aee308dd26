/*
 * store_write.c
 *		Applying a record: insert, replace, delete, and one row per key over all partitions.
 *
 * A key's slot leads to its newest row, visible or a tombstone. A key met in one partition only
 * has nothing else. A key met in several has, in LOSER slots of the same hash, the last records
 * of its other partitions: rows that no reader sees (their birth is "never"). Of all these the
 * newest by (timestamp, partition) is the one in the key's slot. Within a partition the later
 * offset replaces the earlier one whatever its timestamp, so a new record can also end the newest
 * one and bring another partition's back to light.
 *
 * Each call first looks (which may raise an error, when a key type's own function does), then
 * makes sure of the memory, then changes: what returns KCF_PUT_FULL has changed nothing that
 * anybody can see.
 *
 * The chain of versions. A row's prev is the row that died when it was born: death(prev) =
 * birth(row). A reader follows prev only while birth(row) is above its pin, so death(prev) is
 * too, and a slab with such a death is not unlinked, let alone freed, while that pin is held.
 * When the previous version was born at the very sequence that is being written, nobody will ever
 * see it; its own prev takes its place, which died at the same sequence.
 */
#include "postgres.h"

#include "store_internal.h"

/* A slice of the index's growth for each new key: enough to be done long before it is full. */
#define WORK_ZERO 1024
#define WORK_SLOTS 8

/* A record on its way into a row. */
typedef struct Incoming
{
	const KcfRowMeta *meta;
	uint64 h36;
	uint64 flags; /* KCF_ROW_* but MULTI */
	Datum *values;
	bool *isnull;
	Size data_size;
	uint32 tuple_len;
	uint8 hoff;
	bool hasnull;
	Size trailer; /* bytes of its data */
	Size size;    /* of the whole row */
} Incoming;

static Size
trailer_size(const KcfSlice *bytes)
{
	return bytes->data != NULL ? (Size) bytes->len + 1 : 0;
}

static void
incoming_measure(const KcfStoreWriter *writer, Incoming *in)
{
	TupleDesc desc = writer->key->desc;
	int hoff = SizeofHeapTupleHeader;
	Size size;

	in->hasnull = false;
	for (int i = 0; i < desc->natts; i++)
		in->hasnull |= in->isnull[i];
	if (in->hasnull)
		hoff += BITMAPLEN(desc->natts);
	in->hoff = MAXALIGN(hoff);
	in->data_size = heap_compute_data_size(desc, in->values, in->isnull);
	in->tuple_len = in->hoff + in->data_size;
	size = sizeof(KcfRow) + in->tuple_len;
	in->trailer = trailer_size(&in->meta->raw_key) + trailer_size(&in->meta->raw_value);
	if (in->meta->value_hash != 0)
		in->trailer += sizeof(uint64);
	if (in->trailer > 0)
	{
		in->flags |= KCF_ROW_TRAILER;
		size = INTALIGN(size) + offsetof(KcfRowTrailer, data) + in->trailer;
	}
	in->size = MAXALIGN(size);
}

/* Write the row where it will be, not yet visible to anyone. */
static void
incoming_write(const KcfStoreWriter *writer, const Incoming *in, KcfRow *row, uint64 page,
			   uint64 flags, const KcfRow *prev, KcfSeq birth)
{
	TupleDesc desc = writer->key->desc;
	HeapTupleHeader tuple = kcf_row_tuple(row);

	/* padding between attributes must be zero, and nothing of another table's row may shine through
	 */
	memset(row, 0, in->size);
	row->prev_flags = page << 56 | ((in->h36 >> 16) & 0x0f) << 52 | (in->flags | flags) << 48 |
					  (uint64) (uintptr_t) prev;
	row->offset = in->meta->offset;
	row->timestamp = in->meta->timestamp;
	row->partition = in->meta->partition;
	row->tuple_len = in->tuple_len;

	HeapTupleHeaderSetNatts(tuple, desc->natts);
	tuple->t_hoff = in->hoff;
	heap_fill_tuple(desc, in->values, in->isnull, (char *) tuple + in->hoff, in->data_size,
					&tuple->t_infomask, in->hasnull ? tuple->t_bits : NULL);
	Assert((tuple->t_infomask & ~(HEAP_HASNULL | HEAP_HASVARWIDTH)) == 0);
	tuple->t_ctid.ip_posid = in->h36 & 0xffff;
	if (in->trailer > 0)
	{
		KcfRowTrailer *trailer = kcf_row_trailer(row);

		trailer->key_size = trailer_size(&in->meta->raw_key);
		trailer->value_size = trailer_size(&in->meta->raw_value);
		if (trailer->key_size > 0)
			memcpy(trailer->data, in->meta->raw_key.data, in->meta->raw_key.len);
		if (trailer->value_size > 0)
			memcpy(trailer->data + trailer->key_size, in->meta->raw_value.data,
				   in->meta->raw_value.len);
		if (in->meta->value_hash != 0)
		{
			Assert(in->meta->raw_value.data == NULL);
			trailer->value_size = KCF_VALUE_HASHED;
			memcpy(trailer->data + trailer->key_size, &in->meta->value_hash, sizeof(uint64));
		}
	}
	kcf_row_set_death(row, KCF_SEQ_NEVER);
	kcf_row_set_birth(row, in->h36, birth);
}

/* ---- counting ---- */

static void
count_newest(KcfStore *store, const KcfRow *row, int sign)
{
	uint64 flags = kcf_row_flags(row);

	if (flags & KCF_ROW_TOMBSTONE)
		return;
	if (flags & KCF_ROW_ERROR)
		store->error_rows += sign;
	else
	{
		store->entries += sign;
		store->tuple_bytes += sign * (int64) row->tuple_len;
	}
}

static bool
same_spelling(const KcfRow *row, const KcfRowMeta *meta)
{
	KcfSlice there = kcf_row_raw_key(row);

	/* canonical is one spelling, so two of those are the same */
	if (there.data == NULL || meta->raw_key.data == NULL)
		return there.data == meta->raw_key.data;
	return there.len == meta->raw_key.len && memcmp(there.data, meta->raw_key.data, there.len) == 0;
}

/* Did the row that is replaced have a value of the same bytes? Where that is not known: no. */
static bool
same_value(const KcfRow *row, const KcfRowMeta *meta)
{
	const KcfRowTrailer *trailer = kcf_row_trailer(row);

	if (!(kcf_row_flags(row) & KCF_ROW_TRAILER) || trailer->value_size == 0)
		return false;
	if (trailer->value_size == KCF_VALUE_HASHED)
		return memcmp(trailer->data + trailer->key_size, &meta->value_hash, sizeof(uint64)) == 0;
	return meta->raw_value.data != NULL &&
		   trailer->value_size == (uint32) meta->raw_value.len + 1 &&
		   memcmp(trailer->data + trailer->key_size, meta->raw_value.data, meta->raw_value.len) ==
			   0;
}

/* ---- changing ---- */

/* What the next version of this one has as prev. */
static const KcfRow *
version_before(const KcfRow *row, KcfSeq seq)
{
	return kcf_row_birth(row) == seq ? kcf_row_prev(row) : row;
}

/* Room for the record's row, counted in once it is written. */
static KcfRow *
append(KcfStoreWriter *writer, const Incoming *in, KcfSeq seq, KcfUse use, uint64 flags,
	   const KcfRow *prev, KcfSeq birth)
{
	KcfStore *store = writer->store;
	uint64 page;
	KcfRow *row = kcf_slab_reserve(writer, in->size, seq, use, &page);

	if (row == NULL)
		return NULL;
	incoming_write(writer, in, row, page, flags, prev, birth);
	kcf_slab_commit(store, row, in->size);
	if (in->flags & KCF_ROW_TOMBSTONE)
	{
		store->tombstones++;
		if (!(flags & KCF_ROW_MULTI))
			kcf_slab_tomb_add(store, row);
	}
	return row;
}

/* The record becomes the key's newest row in place of the one that was. */
static KcfPut
replace(KcfStoreWriter *writer, const Incoming *in, KcfSeq seq, volatile uint64 *slot, KcfRow *head,
		uint64 flags)
{
	KcfStore *store = writer->store;
	bool was = !(kcf_row_flags(head) & KCF_ROW_TOMBSTONE);
	/* what ends a row makes more room than it takes */
	KcfUse use = was && (in->flags & KCF_ROW_TOMBSTONE) ? KCF_USE_DELETE : KCF_USE_PUT;
	KcfRow *row = append(writer, in, seq, use, flags, version_before(head, seq), seq);

	if (row == NULL)
		return KCF_PUT_FULL;
	kcf_index_replace(slot, row, 0);
	count_newest(store, head, -1);
	count_newest(store, row, 1);
	kcf_slab_row_dead(store, head, seq);
	if (in->flags & KCF_ROW_TOMBSTONE)
		return was ? KCF_PUT_DELETED : KCF_PUT_ABSENT;
	if (was && in->meta->tell_same && same_value(head, in->meta))
		return KCF_PUT_SAME;
	return was ? KCF_PUT_REPLACED : KCF_PUT_INSERTED;
}

/* The key is now one of several partitions. */
static void
mark_multi(KcfStore *store, KcfRow *head)
{
	if (kcf_row_flags(head) & KCF_ROW_MULTI)
		return;
	if (kcf_row_flags(head) & KCF_ROW_TOMBSTONE)
		kcf_slab_tomb_remove(store, head);
	*(volatile uint64 *) &head->prev_flags = head->prev_flags | KCF_ROW_MULTI << 48;
	store->cross_partition_keys++;
}

/* Copy of a row as a loser, in a slot of its own. NULL: no room. */
static volatile uint64 *
demote(KcfStoreWriter *writer, const KcfRow *head, KcfSeq seq)
{
	KcfStore *store = writer->store;
	uint64 h36 = kcf_row_hash36(head);
	Size size = kcf_row_size(head);
	uint64 page;
	KcfRow *row;

	if (!kcf_index_room(store))
		return NULL;
	row = kcf_slab_reserve(writer, size, seq, KCF_USE_PUT, &page);
	if (row == NULL)
		return NULL;
	memcpy(row, head, size);
	row->prev_flags =
		page << 56 | (head->prev_flags & (UINT64CONST(0x00ff) << 48)) | KCF_ROW_MULTI << 48;
	kcf_row_set_death(row, KCF_SEQ_NEVER);
	kcf_row_set_birth(row, h36, KCF_ROW_NEVER);
	kcf_slab_commit(store, row, size);
	if (kcf_row_flags(row) & KCF_ROW_TOMBSTONE)
		store->tombstones++;
	kcf_index_add(store, row, KCF_SLOT_LOSER);
	return kcf_index_slot_of(store, row);
}

static void
drop_loser(KcfStore *store, volatile uint64 *slot, KcfSeq seq)
{
	KcfRow *row = kcf_slot_row(*slot);

	kcf_index_remove(store, slot);
	kcf_slab_row_dead(store, row, seq);
}

/* Is the first newer than the second, over partitions? */
static bool
newer(int64 timestamp1, int32 partition1, int64 timestamp2, int32 partition2)
{
	return timestamp1 != timestamp2 ? timestamp1 > timestamp2 : partition1 > partition2;
}

/* A record of a key that is, or is about to be, in several partitions. */
static KcfPut
apply_multi(KcfStoreWriter *writer, const Incoming *in, KcfSeq seq, uint64 hash, const Datum *key,
			const KcfSeek *seek)
{
	KcfStore *store = writer->store;
	const KcfRowMeta *meta = in->meta;
	KcfRow *head = seek->row;
	volatile uint64 *same = NULL; /* loser of the record's own partition */
	volatile uint64 *best = NULL; /* newest loser of the others */
	KcfRow *row;

	if (kcf_row_flags(head) & KCF_ROW_MULTI)
	{
		volatile uint64 *slot;
		uint64 pos = 0;

		while ((slot = kcf_index_next_loser(store, writer->key, hash, key, &pos)) != NULL)
		{
			const KcfRow *loser = kcf_slot_row(*slot);

			if (loser->partition == meta->partition)
				same = slot;
			else if (best == NULL ||
					 newer(loser->timestamp, loser->partition, kcf_slot_row(*best)->timestamp,
						   kcf_slot_row(*best)->partition))
				best = slot;
		}
	}

	if (head->partition == meta->partition)
	{
		if (meta->offset <= head->offset)
			return KCF_PUT_STALE;
		if (best == NULL || newer(meta->timestamp, meta->partition, kcf_slot_row(*best)->timestamp,
								  kcf_slot_row(*best)->partition))
			return replace(writer, in, seq, seek->slot, head, KCF_ROW_MULTI);

		/* the newest one's own partition took it back: another partition's comes to light */
		row = append(writer, in, seq, KCF_USE_PUT, KCF_ROW_MULTI, NULL, KCF_ROW_NEVER);
		if (row == NULL)
			return KCF_PUT_FULL;
		{
			KcfRow *revealed = kcf_slot_row(*best);

			*(volatile uint64 *) &revealed->prev_flags =
				(revealed->prev_flags & ~KCF_ROW_SEQ_MASK) |
				(uint64) (uintptr_t) version_before(head, seq);
			/* whoever sees its birth sees its prev */
			pg_write_barrier();
			kcf_row_set_birth(revealed, in->h36, seq);
			kcf_row_slab(revealed)->youngest = seq;
			kcf_index_replace(seek->slot, revealed, 0);
			kcf_index_replace(best, row, KCF_SLOT_LOSER);
			count_newest(store, head, -1);
			count_newest(store, revealed, 1);
			kcf_slab_row_dead(store, head, seq);
		}
		return KCF_PUT_REVEALED;
	}

	if (same != NULL && meta->offset <= kcf_slot_row(*same)->offset)
		return KCF_PUT_STALE;

	if (newer(meta->timestamp, meta->partition, head->timestamp, head->partition))
	{
		/* the newest until now is kept as its partition's last */
		volatile uint64 *demoted = demote(writer, head, seq);
		KcfPut result;

		if (demoted == NULL)
			return KCF_PUT_FULL;
		result = replace(writer, in, seq, seek->slot, head, KCF_ROW_MULTI);
		if (result == KCF_PUT_FULL)
		{
			drop_loser(store, demoted, seq);
			return KCF_PUT_FULL;
		}
		if (!(kcf_row_flags(head) & KCF_ROW_MULTI))
			store->cross_partition_keys++;
		if (same != NULL)
			drop_loser(store, same, seq);
		return result;
	}

	/* kept, unseen */
	if (same == NULL && !kcf_index_room(store))
		return KCF_PUT_FULL;
	row = append(writer, in, seq, KCF_USE_PUT, KCF_ROW_MULTI, NULL, KCF_ROW_NEVER);
	if (row == NULL)
		return KCF_PUT_FULL;
	if (same != NULL)
	{
		KcfRow *before = kcf_slot_row(*same);

		kcf_index_replace(same, row, KCF_SLOT_LOSER);
		kcf_slab_row_dead(store, before, seq);
	}
	else
	{
		kcf_index_add(store, row, KCF_SLOT_LOSER);
		mark_multi(store, head);
	}
	return KCF_PUT_LOST;
}

static KcfPut
apply(KcfStoreWriter *writer, KcfSeq seq, uint64 hash, const Datum *key, Incoming *in)
{
	KcfStore *store = writer->store;
	KcfSeek seek;
	KcfPut result;

	in->h36 = kcf_hash36(hash);
	incoming_measure(writer, in);
	kcf_index_seek(store, writer->key, hash, key, &seek);
	if (seek.row == NULL)
	{
		KcfRow *row;

		if (kcf_index_work(writer, seq, WORK_ZERO, WORK_SLOTS))
			kcf_index_seek(store, writer->key, hash, key, &seek);
		if (!kcf_index_room(store) ||
			(row = append(writer, in, seq, KCF_USE_PUT, 0, NULL, seq)) == NULL)
			result = KCF_PUT_FULL;
		else
		{
			kcf_index_insert(store, seek.vacant, row, 0);
			count_newest(store, row, 1);
			result = (in->flags & KCF_ROW_TOMBSTONE) ? KCF_PUT_ABSENT : KCF_PUT_INSERTED;
		}
	}
	else
	{
		bool respelled = !same_spelling(seek.row, in->meta);

		if ((kcf_row_flags(seek.row) & KCF_ROW_MULTI) || seek.row->partition != in->meta->partition)
			result = apply_multi(writer, in, seq, hash, key, &seek);
		else if (in->meta->offset <= seek.row->offset)
			return KCF_PUT_STALE;
		else
			result = replace(writer, in, seq, seek.slot, seek.row, 0);
		if (respelled && result != KCF_PUT_FULL && result != KCF_PUT_STALE)
			store->key_spellings++;
	}
	if (result != KCF_PUT_STALE)
		store->full = (result == KCF_PUT_FULL);
	return result;
}

KcfPut
kcf_store_put(KcfStoreWriter *writer, KcfSeq seq, const KcfRowMeta *meta, uint64 hash,
			  const Datum *key, Datum *values, bool *isnull)
{
	Incoming in = { .meta = meta, .flags = meta->flags, .values = values, .isnull = isnull };

	Assert((meta->flags & ~KCF_ROW_ERROR) == 0);
	return apply(writer, seq, hash, key, &in);
}

KcfPut
kcf_store_delete(KcfStoreWriter *writer, KcfSeq seq, const KcfRowMeta *meta, uint64 hash,
				 const Datum *key)
{
	Incoming in = { .meta = meta,
					.flags = KCF_ROW_TOMBSTONE | meta->flags,
					.values = writer->values,
					.isnull = writer->isnull };

	Assert(meta->flags == 0 || meta->flags == KCF_ROW_NOTHING);

	for (int i = 0; i < writer->key->nkeys; i++)
		writer->values[writer->key->keys[i].attnum - 1] = key[i];
	return apply(writer, seq, hash, key, &in);
}

void
kcf_store_prefetch_slot(KcfStoreWriter *writer, uint64 hash)
{
	const KcfIndex *index = writer->store->index;
	uint64 pos = kcf_hash36(hash) & index->mask;

	__builtin_prefetch((void *) &index->segments[pos >> index->shift]
												[pos & ((UINT64CONST(1) << index->shift) - 1)]);
}

void
kcf_store_prefetch_row(KcfStoreWriter *writer, uint64 hash)
{
	const KcfIndex *index = writer->store->index;
	uint64 h36 = kcf_hash36(hash);
	uint64 pos = h36 & index->mask;
	volatile uint64 *slot =
		&index->segments[pos >> index->shift][pos & ((UINT64CONST(1) << index->shift) - 1)];
	volatile uint64 *line = (volatile uint64 *) (TYPEALIGN_DOWN(64, (uintptr_t) slot) + 64);

	/* the rest of the slot's line: it nearly always is there */
	for (; slot < line; slot++)
	{
		if (*slot == KCF_SLOT_EMPTY)
			return;
		if (kcf_slot_tag(*slot) == kcf_hash_tag(h36))
		{
			const char *row = (const char *) kcf_slot_row(*slot);

			__builtin_prefetch(row, 1);
			__builtin_prefetch(row + 64, 1);
			return;
		}
	}
}
