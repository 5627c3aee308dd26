/*
 * store.h
 *		The rows of one generation of one cached table, in shared memory: slabs of immutable row versions
 *		and a hash index of their newest ones.
 *
 * Process:  one consumer writes; any backend that holds a pin reads.
 * Locks:    none. Readers are protected by their pin (pins.h): nothing a pinned sequence can see is freed.
 * Memory:   arena, charged to the table's account.
 * Errors:   writers return a result, never throw (but: kcf_key_equals of a generic key type may). Readers likewise.
 * Waits:    never.
 */
#ifndef KCF_STORE_H
#define KCF_STORE_H

#include "arena.h"
#include "keytype.h"
#include "record.h"

typedef uint64 KcfSeq;
#define KCF_SEQ_NEVER PG_UINT64_MAX

/*
 * A row version. Lies in a slab, MAXALIGNed, followed by a heap tuple (and, with KCF_ROW_TRAILER,
 * by a KcfRowTrailer, INTALIGNed). The tuple's t_choice and t_ctid, which an executor slot never
 * reads, hold birth, death and a part of the key's hash.
 */
typedef struct KcfRow
{
	uint64 prev_flags; /* older version of the key (lower 48 bits), KCF_ROW_*, the store's own */
	int64 offset;
	int64 timestamp; /* Kafka's, milliseconds; KCF_NO_TIMESTAMP */
	int32 partition;
	uint32 tuple_len;
} KcfRow;

#define KCF_ROW_TOMBSTONE UINT64CONST(0x0001) /* key deleted; only the key columns are not null */
#define KCF_ROW_ERROR UINT64CONST(0x0002)   /* on_error 'fail': a scan that meets it raises 22000 */
#define KCF_ROW_TRAILER UINT64CONST(0x0004) /* raw bytes follow the tuple */
#define KCF_ROW_MULTI UINT64CONST(0x0008)   /* the key was met in several partitions */

/*
 * A product's key for which its function has nothing: kept as a deletion is, and as long, and no row to anybody but who
 * asks for it by kcf_store_find_any.
 */
#define KCF_ROW_NOTHING (KCF_ROW_TOMBSTONE | KCF_ROW_ERROR)
#define kcf_row_is_nothing(row) ((kcf_row_flags(row) & KCF_ROW_NOTHING) == KCF_ROW_NOTHING)

#define kcf_row_flags(row) ((*(const volatile uint64 *) &(row)->prev_flags >> 48) & 0x0f)
#define kcf_row_tuple(row) ((HeapTupleHeader) ((char *) (row) + sizeof(KcfRow)))
/* visible to seq: birth <= seq < death. Sequences have 48 bits; the most is "never". */
#define KCF_ROW_SEQ_MASK UINT64CONST(0x0000ffffffffffff)
#define kcf_row_birth(row) (*(const volatile uint64 *) kcf_row_tuple(row) & KCF_ROW_SEQ_MASK)
#define kcf_row_death(row) (*((const volatile uint64 *) kcf_row_tuple(row) + 1))

/*
 * Bytes of the record that the tuple does not have. Sizes count a zero byte behind them; 0: there
 * are none. Instead of the value there may be a hash of it, to know the same value again.
 */
typedef struct KcfRowTrailer
{
	uint32 key_size;
	uint32 value_size;                /* or KCF_VALUE_HASHED */
	char data[FLEXIBLE_ARRAY_MEMBER]; /* the key, the value */
} KcfRowTrailer;

#define KCF_VALUE_HASHED (UINT32_C(0x80000000) | (uint32) sizeof(uint64))
#define kcf_trailer_value_size(trailer) ((trailer)->value_size & UINT32_C(0x7fffffff))

#define kcf_row_trailer(row)                                                                       \
	((KcfRowTrailer *) ((char *) (row) + INTALIGN(sizeof(KcfRow) + (row)->tuple_len)))
extern KcfSlice kcf_row_raw_key(const KcfRow *row);   /* data NULL: canonical */
extern KcfSlice kcf_row_raw_value(const KcfRow *row); /* data NULL: not kept */
/* The part of its key's hash that is kept with it. */
extern uint64 kcf_row_hash(const KcfRow *row);

typedef struct KcfStore KcfStore; /* shared: slab directory, index, totals */
typedef struct KcfStoreWriter
	KcfStoreWriter; /* consumer-local handle; all that matters is in shared memory */

/* What comes with a record besides its columns. */
typedef struct KcfRowMeta
{
	int32 partition;
	int64 offset;
	int64 timestamp;
	uint64 flags;       /* KCF_ROW_ERROR or 0; of a deletion KCF_ROW_NOTHING or 0 */
	KcfSlice raw_key;   /* data NULL: canonical */
	KcfSlice raw_value; /* data NULL: not to be kept */
	KcfSlice seen_key;  /* raw bytes as received, to count spellings; may be NULL */
	bool tell_same;     /* KCF_PUT_SAME is wanted, for which raw_value or value_hash is needed */
	uint64 value_hash;  /* of a value that is not kept, to know it again; 0: not to be kept */
} KcfRowMeta;

typedef enum KcfPut
{
	KCF_PUT_INSERTED, /* a key without a visible row got one */
	KCF_PUT_REPLACED,
	KCF_PUT_SAME,    /* replaced, and the value has the same bytes as the one before */
	KCF_PUT_DELETED, /* tombstone removed a visible row */
	KCF_PUT_ABSENT,  /* tombstone of a key without a visible row (remembered) */
	KCF_PUT_LOST, /* kept as its partition's last, another partition's record is newer and stays visible */
	KCF_PUT_REVEALED, /* ended its partition's older record; another partition's is the newest now, and was made
					   * visible (or its tombstone, and the row is gone) */
	KCF_PUT_STALE, /* offset not after the last one of this key and partition: nothing done */
	KCF_PUT_FULL   /* no memory: nothing done; the same record may be tried again */
} KcfPut;

typedef struct KcfStoreStats
{
	int64 entries; /* visible rows at the newest state, error rows not counted */
	int64 tombstones_kept;
	int64 error_rows;
	int64 cross_partition_keys;
	int64 key_spellings;
	Size live_bytes;
	Size dead_bytes;
	Size slab_bytes;
	Size index_bytes;
	double avg_tuple_len;
	uint32 nslabs;
} KcfStoreStats;

/* ---- life ---- */
extern KcfStore *kcf_store_create(KcfAccount *account); /* NULL: no room */
/* Frees everything at once: the caller knows that no pin can see it. */
extern void kcf_store_destroy(KcfStore *store, KcfAccount *account);
/* A restarted consumer attaches to what the previous one left, in whatever state. May palloc/ereport. */
extern KcfStoreWriter *kcf_store_attach(KcfStore *store, KcfAccount *account, const KcfKeyType *key,
										MemoryContext mcxt);
extern void kcf_store_detach(KcfStoreWriter *writer);
/* For whoever keeps a list of stores until no pin sees them any more. */
typedef struct KcfDiscarded
{
	KcfStore *next;
	KcfSeq until; /* free when every pin is beyond */
} KcfDiscarded;
extern KcfDiscarded *kcf_store_discarded(KcfStore *store);

/* ---- writing; seq is the sequence that the next publish will make visible ---- */
extern void kcf_store_prefetch_slot(KcfStoreWriter *writer, uint64 hash);
extern void kcf_store_prefetch_row(KcfStoreWriter *writer, uint64 hash);
extern KcfPut kcf_store_put(KcfStoreWriter *writer, KcfSeq seq, const KcfRowMeta *meta, uint64 hash,
							const Datum *key, Datum *values, bool *isnull);
extern KcfPut kcf_store_delete(KcfStoreWriter *writer, KcfSeq seq, const KcfRowMeta *meta,
							   uint64 hash, const Datum *key);
/*
 * A slice of housekeeping after a publish (index growth, slab recycling, freeing what min_pinned
 * no longer sees), at most about budget rows moved; never longer than a millisecond. May write
 * versions with birth seq = published + 1. Returns true when there is more to do that a pin does
 * not hinder: publish and call again before going idle. Dead rows stay within their bound under
 * any load if calls with budgets of four rows for each row applied follow; one call does not use
 * more than KCF_HOUSEKEEP_ROWS of it, so after a large batch call several times (no publish is
 * needed between).
 */
#define KCF_HOUSEKEEP_ROWS 1000
extern bool kcf_store_housekeep(KcfStoreWriter *writer, KcfSeq published, KcfSeq min_pinned,
								int budget);
/* Does something wait for a pin to go? Then call housekeep again some time, even if nothing else happens. */
extern bool kcf_store_hindered(const KcfStoreWriter *writer);
/*
 * A first load: more dead rows are borne for its speed. Set false before the table is served and
 * housekeep until it returns false. A new store is not loading.
 */
extern void kcf_store_set_loading(KcfStoreWriter *writer, bool loading);
/*
 * After loading: the oldest tombstones beyond this may be forgotten, except of keys met in
 * several partitions. KCF_TOMBSTONES_ALL (how a store begins): none.
 */
#define KCF_TOMBSTONES_ALL ((Size) -1)
extern void kcf_store_set_tombstone_limit(KcfStoreWriter *writer, Size bytes);
/* Told before a tombstone is forgotten, where that record lay. Must not throw. */
typedef void (*KcfForgotten)(void *arg, int32 partition, int64 offset);
extern void kcf_store_set_forgotten(KcfStoreWriter *writer, KcfForgotten forgotten, void *arg);

/* ---- reading, under a pin of seq ---- */
extern KcfRow *kcf_store_find(const KcfStore *store, const KcfKeyType *key, uint64 hash,
							  const Datum *values, KcfSeq seq);
/* The same, and rows of nothing. */
extern KcfRow *kcf_store_find_any(const KcfStore *store, const KcfKeyType *key, uint64 hash,
								  const Datum *values, KcfSeq seq);
extern void kcf_store_stats(const KcfStore *store, KcfStoreStats *stats);

/*
 * Scanning: claim slabs 0, 1, 2 … (in a parallel scan from a shared counter) and walk each. The
 * number of slabs is taken at begin, after the pin.
 */
typedef struct KcfStoreScan
{
	const KcfStore *store;
	KcfSeq seq;
	char **slabs; /* the directory as it was at begin; stays valid under the pin */
	uint32 nslabs;
	char *pos;
	char *end;
} KcfStoreScan;

extern void kcf_store_scan_begin(KcfStoreScan *scan, const KcfStore *store, KcfSeq seq);
extern bool kcf_store_scan_slab(KcfStoreScan *scan, uint32 slab); /* false: beyond the last */
/* From one row of a slab to the next. */
static inline Size
kcf_row_size(const KcfRow *row)
{
	Size size = sizeof(KcfRow) + row->tuple_len;

	if (unlikely(kcf_row_flags(row) & KCF_ROW_TRAILER))
	{
		const KcfRowTrailer *trailer = kcf_row_trailer(row);

		size = INTALIGN(size) + offsetof(KcfRowTrailer, data);
		size += (Size) trailer->key_size + kcf_trailer_value_size(trailer);
	}
	return MAXALIGN(size);
}

static inline bool
kcf_row_visible(const KcfRow *row, KcfSeq seq)
{
	return kcf_row_birth(row) <= seq && seq < kcf_row_death(row);
}

/* How far ahead of a scan memory is fetched. */
#define KCF_SCAN_AHEAD 1024

/*
 * Next visible row of the claimed slab or NULL; tombstones are skipped, KCF_ROW_ERROR rows are
 * returned. Here because a scan does little else.
 */
static inline KcfRow *
kcf_store_scan_next(KcfStoreScan *scan)
{
	char *pos = scan->pos;

	while (pos < scan->end)
	{
		KcfRow *row = (KcfRow *) pos;
		uint64 flags = kcf_row_flags(row);

		pos += likely(!(flags & KCF_ROW_TRAILER)) ? MAXALIGN(sizeof(KcfRow) + row->tuple_len)
												  : kcf_row_size(row);
		__builtin_prefetch(pos + KCF_SCAN_AHEAD);
		if (kcf_row_visible(row, scan->seq) && !(flags & KCF_ROW_TOMBSTONE))
		{
			scan->pos = pos;
			return row;
		}
	}
	scan->pos = pos;
	return NULL;
}

/*
 * Comparing, under a pin of the earlier state: each key whose row differs, once, in no order. Before or after is NULL
 * where there was none; a row in error is one. Costs what has changed, and a look at each slab. The
 * receiver may throw.
 */
typedef void (*KcfDifference)(void *arg, const KcfRow *before, const KcfRow *after);
extern void kcf_store_compare(const KcfStore *store, KcfSeq before, KcfSeq after,
							  KcfDifference receiver, void *arg);

#endif /* KCF_STORE_H */
