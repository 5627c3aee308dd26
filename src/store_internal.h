/*
 * store_internal.h
 *		How a store lies in shared memory. For the store's own files.
 *
 * Process:  one consumer writes; any backend that holds a pin reads what is marked so.
 * Locks:    none.
 * Memory:   all of it in the arena, by plain pointers.
 * Errors:   none.
 * Waits:    never.
 *
 * What may be freed when. Everything a reader can reach is taken away in two steps: at sequence s
 * (the next to be published) it is unlinked, and when no pin is below s it is freed. A reader
 * that pinned s or later began after s was published, so after the unlinking, and never had it.
 * "Limbo" is the queue between the two.
 */
#ifndef KCF_STORE_INTERNAL_H
#define KCF_STORE_INTERNAL_H

#include "store.h"

/* ---- rows ---- */

/*
 * A row's own bits, all in words that exist anyway:
 *
 *		prev_flags		 8 number of the page of its slab in which it begins
 *						 4 hash, 4 KCF_ROW_*, 48 pointer to the previous version
 *		birth			16 hash (the tag of its slot), 48 sequence
 *		death			64 sequence
 *		t_ctid's offset	16 hash
 *
 * The page leads to its slab, the 36 bits of hash to its slot, without a look at the key.
 */
#define KCF_PAGE 4096
#define KCF_POINTER_MASK UINT64CONST(0x0000fffffffffff8)
#define KCF_ROW_NEVER KCF_ROW_SEQ_MASK

StaticAssertDecl(sizeof(KcfRow) == 32, "a row's header is 32 bytes");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_choice) == 0, "birth lies in t_choice");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_ctid) == 12, "death ends in t_ctid");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_ctid) + offsetof(ItemPointerData, ip_posid) == 16,
				 "hash bits lie behind death");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_infomask2) == 18,
				 "what a slot reads begins at 18");
StaticAssertDecl(MAXIMUM_ALIGNOF == 8, "rows and their words are aligned to 8 bytes");

/* Of a 64-bit hash the store uses the upper 36 bits: tag 16, middle 4, low 16. */
#define kcf_hash36(hash) ((uint64) (hash) >> 28)
#define kcf_hash_tag(h36) ((h36) >> 20)

static inline void
kcf_row_set_birth(KcfRow *row, uint64 h36, KcfSeq seq)
{
	*(volatile uint64 *) kcf_row_tuple(row) = kcf_hash_tag(h36) << 48 | (seq & KCF_ROW_SEQ_MASK);
}

static inline void
kcf_row_set_death(KcfRow *row, KcfSeq seq)
{
	*((volatile uint64 *) kcf_row_tuple(row) + 1) = seq;
}

static inline KcfRow *
kcf_row_prev(const KcfRow *row)
{
	return (KcfRow *) (*(const volatile uint64 *) &row->prev_flags & KCF_POINTER_MASK);
}

static inline uint64
kcf_row_hash36(const KcfRow *row)
{
	return (*(const volatile uint64 *) kcf_row_tuple(row) >> 48) << 20 |
		   ((row->prev_flags >> 52) & 0x0f) << 16 | kcf_row_tuple(row)->t_ctid.ip_posid;
}

/* ---- limbo ---- */

typedef enum KcfLimboKind
{
	KCF_LIMBO_SLAB,
	KCF_LIMBO_DIRECTORY,
	KCF_LIMBO_INDEX
} KcfLimboKind;

/* Begins everything that passes through it. Consumer only. */
typedef struct KcfLimbo
{
	struct KcfLimbo *next;
	KcfSeq stamp; /* free when no pin is below */
	KcfLimboKind kind;
} KcfLimbo;

/* ---- slabs ---- */

#define KCF_SLAB_MIN (16 * 1024)
#define KCF_SLAB_MAX (1024 * 1024)
/* A row larger than this gets a slab of its own. */
#define KCF_ROW_OWN_SLAB (32 * 1024)
#define KCF_BUCKETS 64
#define KCF_SPARES 2

typedef enum KcfSlabState
{
	KCF_SLAB_OPEN,   /* the one that rows are appended to */
	KCF_SLAB_CLOSED, /* in a bucket by its share of dead bytes */
	KCF_SLAB_OWN,    /* of one large row */
	KCF_SLAB_DEAD    /* nothing lives: waits in the queue of the dead until no pin sees its rows */
} KcfSlabState;

/* Readers use `used` and `youngest` only; all else is the consumer's. */
typedef struct KcfSlab
{
	KcfLimbo limbo;
	Size size;
	volatile Size used;       /* rows lie between the header and here; grows after a row is whole */
	volatile KcfSeq youngest; /* the last birth in it */
	Size live;                /* bytes of rows that are the newest of their key and partition */
	Size dead;
	Size tombs; /* bytes of tombstones that may be forgotten, among live */
	KcfSeq max_death;
	uint32 entry; /* in the directory */
	KcfSlabState state;
	int bucket;
	struct KcfSlab *prev; /* in its bucket or the queue of the dead */
	struct KcfSlab *next;
	struct KcfSlab *tomb_prev; /* among slabs with tombs, oldest first */
	struct KcfSlab *tomb_next;
} KcfSlab;

#define KCF_SLAB_HEADER MAXALIGN(sizeof(KcfSlab))

static inline KcfSlab *
kcf_row_slab(const KcfRow *row)
{
	return (KcfSlab *) (TYPEALIGN_DOWN(KCF_PAGE, (uintptr_t) row) -
						(row->prev_flags >> 56) * KCF_PAGE);
}

typedef struct KcfSlabList
{
	KcfSlab *head;
	KcfSlab *tail;
} KcfSlabList;

/* Replaced by a larger one when full. Readers: slabs only; free entries are NULL there. */
typedef struct KcfDirectory
{
	KcfLimbo limbo;
	uint32 capacity;
	uint32 nfree;      /* consumer */
	uint32 *free_list; /* consumer; behind slabs in the same block */
	char *slabs[FLEXIBLE_ARRAY_MEMBER];
} KcfDirectory;

#define kcf_directory_size(capacity)                                                               \
	(offsetof(KcfDirectory, slabs) + (Size) (capacity) * (sizeof(char *) + sizeof(uint32)))

/* ---- the index ---- */

/* slots of one segment at most: a block of 1 MB */
#define KCF_SEGMENT_SHIFT 17
#define KCF_INDEX_MIN 256

/*
 * Open addressing, linear probing. A slot is EMPTY, DELETED, or tag << 48 | pointer | marks.
 * Readers use mask, shift, old and the segments.
 */
typedef struct KcfIndex
{
	KcfLimbo limbo;
	uint64 mask; /* number of slots - 1 */
	int shift;   /* log2 of the slots of a segment */
	uint32 nsegments;
	struct KcfIndex *volatile old; /* its slots are on their way here; NULL: none */
	uint64 used;                   /* slots that are not EMPTY. This and all below: consumer */
	uint64 live;                   /* slots that hold a row and are not MOVED */
	uint64 cursor;                 /* of old: slots below were moved */
	uint32 nbuilt;                 /* segments that are allocated and zeroed */
	Size nzeroed;                  /* bytes of the next one that are zeroed */
	volatile uint64 *segments[FLEXIBLE_ARRAY_MEMBER];
} KcfIndex;

#define KCF_SLOT_EMPTY UINT64CONST(0)
#define KCF_SLOT_DELETED UINT64CONST(4)
/* in an index that is being left: the slot lives on in the next one; readers must not follow it */
#define KCF_SLOT_MOVED UINT64CONST(1)
/* the last record of its partition, not the newest of its key; readers pass over it */
#define KCF_SLOT_LOSER UINT64CONST(2)

#define kcf_slot_tag(slot) ((slot) >> 48)
#define kcf_slot_row(slot) ((KcfRow *) ((slot) &KCF_POINTER_MASK))

/* ---- the store ---- */

struct KcfStore
{
	/* readers: pointers that the consumer replaces */
	KcfIndex *volatile index;
	KcfDirectory *volatile directory;
	volatile uint32 nslabs; /* entries of the directory that were ever used */

	/* all below: consumer; the numbers are read by kcf_store_stats, each for itself */
	KcfIndex *building;   /* the next index, not yet published; NULL: none */
	uint32 build_retry;   /* counts down after memory was refused */
	KcfLimbo *limbo_head; /* oldest stamp first */
	KcfLimbo *limbo_tail;
	Size limbo_bytes; /* of slabs in limbo and in the queue of the dead */
	KcfSlab *open;
	KcfSlab *spares[KCF_SPARES]; /* the reserve; NULL: in use */
	KcfSlabList buckets[KCF_BUCKETS];
	KcfSlabList dead;
	KcfSlabList tombs;
	KcfSlab *victim; /* is being emptied, this far; NULL: none */
	char *victim_pos;
	Size tombstone_limit;
	bool loading;
	bool full; /* a put was refused since the last that was not */

	uint64 slots_live; /* of both indexes while one is left */
	int64 entries;
	int64 error_rows;
	int64 tombstones;
	int64 cross_partition_keys;
	int64 key_spellings;
	Size tuple_bytes; /* of entries */
	Size tomb_bytes;  /* sum of tombs */
	Size live_bytes;
	Size dead_bytes;
	Size hole_bytes; /* dead bytes in slabs in which something lives */
	Size slab_bytes;
	Size index_bytes;

	KcfDiscarded discarded; /* whoever discards it */
};

/* Consumer-local. Nothing here is missed when its process dies. */
struct KcfStoreWriter
{
	KcfStore *store;
	KcfAccount *account;
	const KcfKeyType *key;
	/* of a tombstone's tuple */
	Datum *values;
	bool *isnull;
	KcfForgotten forgotten; /* NULL: nobody wants to know */
	void *forgotten_arg;
};

/* ---- store_index.c ---- */

typedef struct KcfSeek
{
	volatile uint64 *slot; /* of the key's newest row, NULL: the key is not there */
	KcfRow *row;
	volatile uint64 *vacant; /* where a slot of this hash can go */
} KcfSeek;

extern KcfIndex *kcf_index_create(KcfStore *store, KcfAccount *account, uint64 nslots);
/* At most so many blocks, which are counted down; false: there are more. */
extern bool kcf_index_free(KcfStore *store, KcfAccount *account, KcfIndex *index, int *blocks);
extern KcfRow *kcf_index_find(const KcfStore *store, const KcfKeyType *key, uint64 hash,
							  const Datum *values);
/* May ereport as kcf_key_equals may; moves slots of an index that is being left first. */
extern void kcf_index_seek(KcfStore *store, const KcfKeyType *key, uint64 hash, const Datum *values,
						   KcfSeek *seek);
/* The key's next LOSER slot: begin with slot NULL. Likewise. */
extern volatile uint64 *kcf_index_next_loser(KcfStore *store, const KcfKeyType *key, uint64 hash,
											 const Datum *values, uint64 *pos);
/* The slot that points to this row; it must be there. */
extern volatile uint64 *kcf_index_slot_of(KcfStore *store, const KcfRow *row);
/* Is there room for one more slot? */
extern bool kcf_index_room(const KcfStore *store);
extern void kcf_index_insert(KcfStore *store, volatile uint64 *vacant, const KcfRow *row,
							 uint64 marks);
extern void kcf_index_add(KcfStore *store, const KcfRow *row, uint64 marks);
extern void kcf_index_replace(volatile uint64 *slot, const KcfRow *row, uint64 marks);
extern void kcf_index_remove(KcfStore *store, volatile uint64 *slot);
/* A slice of growing or leaving. true: slots or indexes changed (seek again), and there may be more to do. */
extern bool kcf_index_work(KcfStoreWriter *writer, KcfSeq seq, Size zero_bytes, uint32 slots);

/* ---- store_slab.c ---- */

extern void kcf_limbo_push(KcfStore *store, KcfLimbo *item, KcfLimboKind kind, KcfSeq seq);
/* Likewise. */
extern bool kcf_limbo_free(KcfStore *store, KcfAccount *account, KcfLimbo *item, int *blocks);
/* What for? Not all may use the reserve. */
typedef enum KcfUse
{
	KCF_USE_PUT,
	KCF_USE_DELETE, /* a tombstone of a row that is there */
	KCF_USE_MOVE
} KcfUse;

/* Where a row of this size can be written; NULL: no room. */
extern KcfRow *kcf_slab_reserve(KcfStoreWriter *writer, Size size, KcfSeq seq, KcfUse use,
								uint64 *page);
/* Complete the reserve; false: no room. */
extern bool kcf_slab_reserve_fill(KcfStoreWriter *writer, Size size);
/* What was right for a larger table is too large for this one. */
extern void kcf_slab_reserve_shrink(KcfStoreWriter *writer);
extern int kcf_slab_spares(const KcfStore *store);
/* The row written there is whole. */
extern void kcf_slab_commit(KcfStore *store, KcfRow *row, Size size);
extern void kcf_slab_row_dead(KcfStore *store, KcfRow *row, KcfSeq seq);
/* A tombstone of one partition's key came to be, or became one of several. */
extern void kcf_slab_tomb_add(KcfStore *store, KcfRow *row);
extern void kcf_slab_tomb_remove(KcfStore *store, KcfRow *row);
extern void kcf_slab_unlink(KcfStore *store, KcfSlab *slab, KcfSeq seq);
extern Size kcf_slab_next_size(const KcfStore *store);

#endif /* KCF_STORE_INTERNAL_H */
