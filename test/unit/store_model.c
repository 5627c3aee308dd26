/*
 * store_model.c
 *		The store against a plain dictionary: random records, readers with pins, failing memory.
 *
 * Every put's result, every lookup and every scan of every pinned state is compared with what a
 * dictionary says; what lies in shared memory is checked against itself; in the end the account
 * is zero.
 */
#include "cases.h"
#include "store_stubs.h"

#include <setjmp.h>
#include <unistd.h>

/* records of each phase */
#ifndef STEPS
#define STEPS 200000
#endif

static long passed = 0;
static long failed = 0;
static uint64 seed;
static long step;

#define CHECK(condition, ...)                                                                      \
	do                                                                                             \
	{                                                                                              \
		if (condition)                                                                             \
			passed++;                                                                              \
		else                                                                                       \
			fail(#condition, __LINE__, __VA_ARGS__);                                               \
	} while (0)

static void
fail(const char *what, int line, const char *fmt, ...)
{
	va_list args;

	printf("FAILED seed %llu step %ld line %d: %s: ", (unsigned long long) seed, step, line, what);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	if (++failed > 20)
	{
		case_done("too many failures", false);
		exit(cases_report("store_model", passed + failed));
	}
}

/* ---- memory ---- */

static int fail_one_in = 0;

void *
kcf_arena_alloc(KcfAccount *account, Size size)
{
	uint64 limit = pg_atomic_read_u64(&account->limit);
	char *block;

	if (limit != 0 && pg_atomic_read_u64(&account->bytes) + size > limit)
		return NULL;
	if (fail_one_in > 0 && stub_below(fail_one_in) == 0)
		return NULL;
	block = size > 8192 ? aligned_alloc(4096, TYPEALIGN(4096, size)) : malloc(size);
	memset(block, 0xab, size);
	pg_atomic_fetch_add_u64(&account->bytes, size);
	return block;
}

void
kcf_arena_populate(void *ptr, Size size)
{
}

void
kcf_arena_free(KcfAccount *account, void *ptr, Size size)
{
	memset(ptr, 0xdd, size);
	free(ptr);
	pg_atomic_fetch_sub_u64(&account->bytes, size);
}

/* ---- the dictionary ---- */

#define MAX_KEYS 4000
#define MAX_PARTITIONS 4
#define MAX_READERS 6
#define NONE (-1)

typedef struct Record
{
	bool present;
	bool tombstone;
	bool error;
	bool nothing; /* a tombstone that says so */
	int64 offset;
	int64 timestamp;
	int64 value;
	int spelling;
} Record;

/* What a reader sees of a key. */
typedef struct State
{
	int64 value; /* NONE: nothing */
	bool error;
	bool nothing; /* ... which is known, unless tombstones are forgotten */
} State;

typedef struct Reader
{
	bool pinned;
	bool scanning;
	KcfSeq seq;
	State *states;
	KcfStoreScan scan;
	uint32 slab;
	bool *seen;
	int nseen;
	KcfRow *held; /* a row it has found, and what it was */
	int held_key;
	int64 held_value;
} Reader;

static Record records[MAX_KEYS][MAX_PARTITIONS];
static State newest[MAX_KEYS];
static State published_states[MAX_KEYS];
static int dirty[MAX_KEYS];
static bool is_dirty[MAX_KEYS];
static int ndirty;
static Reader readers[MAX_READERS];
static int64 next_offset[MAX_PARTITIONS];
static int64 next_value;
static bool may_forget; /* tombstones */

static int nkeys;
static int npartitions;
static bool big_rows;
static bool keep_values;
static bool hash_values; /* instead */

static struct TupleDescData desc;
static KcfKeyType keytype;
static KcfAccount account;
static KcfStore *store;
static KcfStoreWriter *writer;
static KcfSeq published = 1;

/* ---- keys and values as bytes ---- */

static char key_buffer[1024];

/* Key 0 is empty, some are long. */
static Datum
key_datum(int key)
{
	char *p = key_buffer;
	int len = 0;

	if (key > 0)
		len = sprintf(p + VARHDRSZ, "key-%d", key);
	if (key % 97 == 96)
	{
		memset(p + VARHDRSZ + len, 'x', 300);
		len += 300;
	}
	SET_VARSIZE(p, len + VARHDRSZ);
	return PointerGetDatum(p);
}

static uint64
key_hash(int key)
{
	Datum datum = key_datum(key);
	uint64 hash = stub_hash(VARDATA_ANY(datum), VARSIZE_ANY_EXHDR(datum));

	/* some keys share a hash, some only a home, some only a tag */
	if (key % 50 == 7)
		hash = stub_hash("same", 4);
	else if (key % 50 == 8)
		hash = (stub_hash("same", 4) & UINT64CONST(0x0000ffffffffffff)) | hash << 48;
	else if (key % 50 == 9)
		hash = (stub_hash("same", 4) & (UINT64CONST(0xffff) << 48)) | hash >> 16;
	return hash;
}

static Size
filler_len(int key, int64 value)
{
	uint64 h = stub_hash((const char *) &value, 8) ^ key;

	if (h % 100 < 90)
		return h / 100 % 120;
	if (h % 1000 < 998 || !big_rows)
		return h / 1000 % 3000;
	return h / 1000 % 300000;
}

static int
key_of(const StubRow *row)
{
	int key = 0;

	for (Size i = 4; i < row->key_len && row->key[i] != 'x'; i++)
		key = key * 10 + row->key[i] - '0';
	return key;
}

/*
 * The record's own bytes, where they are kept: none, few or many, by its value. A row of an error
 * has none.
 */
static KcfSlice
raw_value(int64 value, bool error)
{
	static char bytes[40000];
	KcfSlice slice = { NULL, 0 };
	uint64 h = stub_hash((const char *) &value, 8) >> 7;

	if (!keep_values || error || h % 5 == 0)
		return slice;
	slice.data = bytes;
	slice.len = h % 5 == 1 ? 0 : h % 500 == 2 ? h / 500 % sizeof(bytes) : h / 500 % 200;
	for (Size i = 0; i < slice.len; i++)
		bytes[i] = (char) (value * 7 + i);
	return slice;
}

static bool
raw_value_is(KcfSlice there, int64 value, bool error)
{
	KcfSlice expected = raw_value(value, error);

	if (there.data == NULL || expected.data == NULL)
		return there.data == expected.data;
	return there.len == expected.len && memcmp(there.data, expected.data, there.len) == 0 &&
		   there.data[there.len] == '\0';
}

static uint64
value_hash(int64 value)
{
	return stub_hash((const char *) &value, 8) | 1;
}

/* Can the store tell, and is it so, that the second value has the bytes of the first? */
static bool
is_same_value(const Record *before, const Record *record)
{
	KcfSlice slice;
	char bytes[40000];
	Size len;

	if (before->error || record->error)
		return false;
	if (hash_values)
		return before->value == record->value;
	slice = raw_value(before->value, false);
	if (slice.data == NULL)
		return false;
	len = slice.len;
	memcpy(bytes, slice.data, len);
	slice = raw_value(record->value, false);
	return slice.data != NULL && slice.len == len && memcmp(bytes, slice.data, len) == 0;
}

static const char *spellings[] = { NULL, "KEY", "Key" };
static int64 spellings_seen;

static bool
is_spelling(KcfSlice key)
{
	if (key.data == NULL)
		return true;
	return key.len == 3 &&
		   (strcmp(key.data, spellings[1]) == 0 || strcmp(key.data, spellings[2]) == 0);
}

/* Is this the row of that key and value? */
static bool
row_is(const KcfRow *row, int key, int64 value, bool error)
{
	StubRow columns;
	Datum datum = key_datum(key);

	stub_deform(kcf_row_tuple(row), &columns);
	if (columns.key_len != VARSIZE_ANY_EXHDR(datum) ||
		memcmp(columns.key, VARDATA_ANY(datum), columns.key_len) != 0)
		return false;
	if (!columns.has_value || columns.value != value)
		return false;
	if (((kcf_row_flags(row) & KCF_ROW_ERROR) != 0) != error)
		return false;
	if (!raw_value_is(kcf_row_raw_value(row), value, error) || !is_spelling(kcf_row_raw_key(row)))
		return false;
	if (error)
		return columns.filler == NULL;
	if (columns.filler == NULL || columns.filler_len != filler_len(key, value))
		return false;
	for (Size i = 0; i < columns.filler_len; i++)
	{
		if (columns.filler[i] != (char) ('a' + (value + i) % 26))
			return false;
	}
	return true;
}

/* ---- the model of a put ---- */

static Record *
winner(int key)
{
	Record *best = NULL;

	for (int p = 0; p < npartitions; p++)
	{
		Record *r = &records[key][p];

		/* partitions in order: of equal timestamps the later partition is newer */
		if (r->present && (best == NULL || r->timestamp >= best->timestamp))
			best = r;
	}
	return best;
}

static KcfPut
model_apply(int key, int partition, const Record *record)
{
	Record *before = winner(key);
	Record *after;
	Record *own = &records[key][partition];
	bool visible_before;

	if (own->present && record->offset <= own->offset)
		return KCF_PUT_STALE;
	visible_before = before != NULL && !before->tombstone;
	*own = *record;
	after = winner(key);
	newest[key].value = after->tombstone ? NONE : after->value;
	newest[key].error = after->error && !after->tombstone;
	newest[key].nothing = after->nothing;
	if (!is_dirty[key])
	{
		is_dirty[key] = true;
		dirty[ndirty++] = key;
	}
	if (after == own)
	{
		if (record->tombstone)
			return visible_before ? KCF_PUT_DELETED : KCF_PUT_ABSENT;
		return visible_before ? KCF_PUT_REPLACED : KCF_PUT_INSERTED;
	}
	return before == own ? KCF_PUT_REVEALED : KCF_PUT_LOST;
}

/* ---- what lies in memory, against itself ---- */

static int
compare_pointers(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *) a;
	uintptr_t y = *(const uintptr_t *) b;

	return x < y ? -1 : x > y;
}

static void
collect_slots(const KcfIndex *index, uintptr_t *slots, int *n)
{
	for (uint64 i = 0; i <= index->mask; i++)
	{
		uint64 slot =
			index->segments[i >> index->shift][i & ((UINT64CONST(1) << index->shift) - 1)];

		if (slot == KCF_SLOT_EMPTY || slot == KCF_SLOT_DELETED || (slot & KCF_SLOT_MOVED))
			continue;
		slots[(*n)++] = slot & (KCF_POINTER_MASK | KCF_SLOT_LOSER);
	}
}

static void
check_store(void)
{
	static uintptr_t slots[MAX_KEYS * MAX_PARTITIONS + 100000];
	static uintptr_t rows[MAX_KEYS * MAX_PARTITIONS + 100000];
	int nslots = 0;
	int nrows = 0;
	Size live = 0;
	Size dead = 0;
	Size holes = 0;
	Size tombs = 0;
	Size bytes = 0;
	int64 tombstones = 0;

	collect_slots(store->index, slots, &nslots);
	if (store->index->old)
		collect_slots(store->index->old, slots, &nslots);
	for (uint32 i = 0; i < store->nslabs; i++)
	{
		KcfSlab *slab = (KcfSlab *) store->directory->slabs[i];
		Size slab_live = 0;
		Size slab_dead = 0;
		Size slab_tombs = 0;

		if (slab == NULL)
			continue;
		bytes += slab->size;
		CHECK(slab->entry == i, "entry");
		for (char *p = (char *) slab + KCF_SLAB_HEADER; p < (char *) slab + slab->used;)
		{
			KcfRow *row = (KcfRow *) p;
			Size size = kcf_row_size(row);

			if (kcf_row_slab(row) != slab)
				CHECK(false, "row %p does not know its slab", p);
			if (kcf_row_death(row) == KCF_SEQ_NEVER)
			{
				slab_live += size;
				rows[nrows++] =
					(uintptr_t) row | (kcf_row_birth(row) == KCF_ROW_NEVER ? KCF_SLOT_LOSER : 0);
				if (kcf_row_flags(row) & KCF_ROW_TOMBSTONE)
				{
					tombstones++;
					if (!(kcf_row_flags(row) & KCF_ROW_MULTI))
						slab_tombs += size;
				}
			}
			else
				slab_dead += size;
			p += size;
		}
		CHECK(slab->live == slab_live, "live %zu, really %zu", slab->live, slab_live);
		CHECK(slab->dead == slab_dead, "dead");
		CHECK(slab->tombs == slab_tombs, "tombs");
		CHECK((slab->state == KCF_SLAB_DEAD) == (slab_live == 0 && slab != store->open), "state");
		live += slab_live;
		dead += slab_dead;
		tombs += slab_tombs;
		if (slab->state == KCF_SLAB_OPEN || slab->state == KCF_SLAB_CLOSED)
			holes += slab_dead;
	}
	for (KcfLimbo *item = store->limbo_head; item; item = item->next)
	{
		if (item->kind == KCF_LIMBO_SLAB)
		{
			dead += ((KcfSlab *) item)->dead;
			bytes += ((KcfSlab *) item)->size;
		}
	}
	for (int i = 0; i < KCF_SPARES; i++)
		bytes += store->spares[i] ? store->spares[i]->size : 0;
	qsort(slots, nslots, sizeof(uintptr_t), compare_pointers);
	qsort(rows, nrows, sizeof(uintptr_t), compare_pointers);
	CHECK(nslots == nrows, "%d slots, %d living rows", nslots, nrows);
	CHECK(nslots == nrows && memcmp(slots, rows, nslots * sizeof(uintptr_t)) == 0,
		  "slots and living rows differ");
	CHECK(store->slots_live == (uint64) nslots, "slots_live");
	CHECK(store->live_bytes == live, "live_bytes");
	CHECK(store->dead_bytes == dead, "dead_bytes %zu, really %zu", store->dead_bytes, dead);
	CHECK(store->hole_bytes == holes, "hole_bytes %zu, really %zu", store->hole_bytes, holes);
	CHECK(store->tomb_bytes == tombs, "tomb_bytes");
	CHECK(store->slab_bytes == bytes, "slab_bytes");
	CHECK(store->tombstones == tombstones, "tombstones");
}

static void
check_stats(bool tombstones_known)
{
	KcfStoreStats stats;
	int64 entries = 0;
	int64 errors = 0;
	int64 multi = 0;
	int64 tombstones = 0;

	for (int k = 0; k < nkeys; k++)
	{
		int n = 0;

		for (int p = 0; p < npartitions; p++)
		{
			n += records[k][p].present;
			tombstones += records[k][p].present && records[k][p].tombstone;
		}
		multi += n > 1;
		if (newest[k].value != NONE)
			*(newest[k].error ? &errors : &entries) += 1;
	}
	kcf_store_stats(store, &stats);
	CHECK(stats.entries == entries, "%ld entries, not %ld", (long) stats.entries, (long) entries);
	CHECK(stats.error_rows == errors, "error_rows");
	CHECK(stats.cross_partition_keys == multi, "cross_partition_keys %ld, not %ld",
		  (long) stats.cross_partition_keys, (long) multi);
	if (tombstones_known)
		CHECK(stats.tombstones_kept == tombstones, "tombstones_kept");
}

/* ---- readers ---- */

static KcfSeq
min_pinned(void)
{
	KcfSeq min = published;

	for (int i = 0; i < MAX_READERS; i++)
	{
		if (readers[i].pinned && readers[i].seq < min)
			min = readers[i].seq;
	}
	return min;
}

static void
reader_pin(Reader *r)
{
	r->pinned = true;
	r->scanning = false;
	r->seq = published;
	r->held = NULL;
	memcpy(r->states, published_states, nkeys * sizeof(State));
}

static void
check_find(KcfSeq seq, int key, const State *state, Reader *holder)
{
	Datum datum = key_datum(key);
	KcfRow *row = kcf_store_find(store, &keytype, key_hash(key), &datum, seq);
	KcfRow *any = kcf_store_find_any(store, &keytype, key_hash(key), &datum, seq);

	if (state->nothing && (any != NULL || !may_forget))
		CHECK(any != NULL && kcf_row_is_nothing(any), "key %d is not known to be nothing", key);
	else
		CHECK(any == row, "key %d is found by one alone", key);
	if (state->value == NONE)
		CHECK(row == NULL, "key %d is there at %lu", key, (unsigned long) seq);
	else
	{
		CHECK(row != NULL && row_is(row, key, state->value, state->error), "key %d at %lu: %s", key,
			  (unsigned long) seq, row ? "another row" : "no row");
		if (holder && row)
		{
			holder->held = row;
			holder->held_key = key;
			holder->held_value = state->value;
		}
	}
}

static void
reader_find(Reader *r)
{
	int key = stub_below(nkeys);

	check_find(r->seq, key, &r->states[key], r->states[key].error ? NULL : r);
}

/* Go on with the reader's scan: so many rows, wherever in a slab that ends. */
static void
reader_scan_some(Reader *r, int nrows)
{
	if (!r->scanning)
	{
		kcf_store_scan_begin(&r->scan, store, r->seq);
		r->scanning = true;
		r->slab = 0;
		r->nseen = 0;
		memset(r->seen, 0, nkeys * sizeof(bool));
	}
	for (;;)
	{
		KcfRow *row;

		while (r->slab > 0 && (row = kcf_store_scan_next(&r->scan)) != NULL)
		{
			StubRow columns;
			int key;

			stub_deform(kcf_row_tuple(row), &columns);
			key = key_of(&columns);
			CHECK(!r->seen[key], "key %d twice in one scan", key);
			CHECK(row_is(row, key, r->states[key].value, r->states[key].error),
				  "key %d in a scan: another row", key);
			r->seen[key] = true;
			r->nseen++;
			if (--nrows <= 0)
				return;
		}
		if (!kcf_store_scan_slab(&r->scan, r->slab))
		{
			int n = 0;

			for (int k = 0; k < nkeys; k++)
				n += r->states[k].value != NONE;
			CHECK(r->nseen == n, "a scan saw %d keys of %d", r->nseen, n);
			r->scanning = false;
			return;
		}
		r->slab++;
		if (stub_below(4) == 0 && nrows < INT_MAX)
			return;
	}
}

typedef struct Difference
{
	const Reader *reader;
	bool told[MAX_KEYS];
} Difference;

static void
check_difference(void *arg, const KcfRow *before, const KcfRow *after)
{
	Difference *difference = arg;
	StubRow columns;
	const State *was;
	const State *is;
	int key;

	stub_deform(kcf_row_tuple(before ? before : after), &columns);
	key = key_of(&columns);
	was = &difference->reader->states[key];
	is = &published_states[key];
	CHECK(!difference->told[key], "key %d twice in one comparison", key);
	difference->told[key] = true;
	CHECK(before ? row_is(before, key, was->value, was->error) : was->value == NONE,
		  "key %d in a comparison: another row before", key);
	CHECK(after ? row_is(after, key, is->value, is->error) : is->value == NONE,
		  "key %d in a comparison: another row after", key);
}

/* What has become of the store since the reader's state. */
static void
reader_compare(const Reader *r)
{
	static Difference difference;
	bool all = true;

	memset(&difference, 0, sizeof(difference));
	difference.reader = r;
	kcf_store_compare(store, r->seq, published, check_difference, &difference);
	for (int k = 0; k < nkeys; k++)
		all &= difference.told[k] || (r->states[k].value == published_states[k].value &&
									  r->states[k].error == published_states[k].error);
	CHECK(all, "a comparison has missed a key");
}

static void
reader_unpin(Reader *r)
{
	if (r->held)
		CHECK(row_is(r->held, r->held_key, r->held_value, false), "a held row changed");
	r->pinned = false;
}

static void
publish(void)
{
	published++;
	for (int i = 0; i < ndirty; i++)
	{
		published_states[dirty[i]] = newest[dirty[i]];
		is_dirty[dirty[i]] = false;
	}
	ndirty = 0;
}

/* ---- the writer ---- */

static jmp_buf thrown;
static int throw_one_in = 0;

static void
compare_hook(void)
{
	if (throw_one_in > 0 && stub_below(throw_one_in) == 0)
		longjmp(thrown, 1);
}

static KcfPut
store_apply(int key, int partition, const Record *record)
{
	static char filler[300000 + 64];
	KcfRowMeta meta = { .partition = partition,
						.offset = record->offset,
						.timestamp = record->timestamp };
	uint64 hash = key_hash(key);
	Datum values[NATTS];
	bool isnull[NATTS] = { false, false, false };
	Datum key_value = key_datum(key);
	Size len = filler_len(key, record->value);

	if (record->spelling)
	{
		meta.raw_key.data = spellings[record->spelling];
		meta.raw_key.len = strlen(meta.raw_key.data);
	}
	if (record->nothing)
		meta.flags = KCF_ROW_NOTHING;
	if (record->tombstone)
		return kcf_store_delete(writer, published + 1, &meta, hash, &key_value);
	meta.raw_value = raw_value(record->value, record->error);
	meta.tell_same = keep_values || hash_values;
	if (hash_values && !record->error)
		meta.value_hash = value_hash(record->value);
	values[0] = key_value;
	values[1] = (Datum) record->value;
	if (record->error)
	{
		meta.flags = KCF_ROW_ERROR;
		isnull[2] = true;
		values[2] = 0;
	}
	else
	{
		for (Size i = 0; i < len; i++)
			filler[VARHDRSZ + i] = 'a' + (record->value + i) % 26;
		SET_VARSIZE(filler, len + VARHDRSZ);
		values[2] = PointerGetDatum(filler);
	}
	return kcf_store_put(writer, published + 1, &meta, hash, &key_value, values, isnull);
}

/* false: the key type's function raised an error */
static bool
store_apply_or_throw(int key, int partition, const Record *record, KcfPut *put)
{
	volatile bool done = false;

	if (setjmp(thrown) == 0)
	{
		throw_one_in = keytype.keys[0].kind == KCF_KEY_GENERIC ? 300 : 0;
		*put = store_apply(key, partition, record);
		done = true;
	}
	throw_one_in = 0;
	return done;
}

static void
one_record(bool forgetting)
{
	int key = stub_below(4) ? (int) stub_below(nkeys) : (int) stub_below(nkeys / 10 + 1);
	/* two thirds of the keys stay in one partition */
	int partition = key % 3 == 0 ? (int) stub_below(npartitions) : key % npartitions;
	Record record = { .present = true };
	Record head;
	KcfPut put;
	KcfPut expected;
	State state = newest[key];
	bool was_dirty = is_dirty[key];
	uint32 what = stub_below(100);

	if (forgetting)
	{
		int present = 0;
		int only = 0;

		/* a tombstone may be forgotten, and with it that the key was in another partition */
		for (int p = 0; p < npartitions; p++)
		{
			if (records[key][p].present)
			{
				present++;
				only = p;
			}
		}
		if (present == 1 && records[key][only].tombstone)
			partition = only;
	}
	record.offset = next_offset[partition]++;
	if (!forgetting && stub_below(20) == 0)
		record.offset -= stub_below(30); /* something applied already, perhaps */
	record.timestamp = stub_below(10) ? 1000 + step / 100 + stub_below(50) : stub_below(3000);
	head = winner(key) ? *winner(key) : (Record){ 0 };
	record.value = head.present && stub_below(5) == 0 ? head.value : next_value++;
	record.tombstone = what < 20;
	record.nothing = what < 7;
	record.error = what >= 97;
	record.spelling = !forgetting && stub_below(10) == 0 ? 1 + stub_below(2) : 0;

	if (!store_apply_or_throw(key, partition, &record, &put))
	{
		check_find(published + 1, key, &state, NULL);
		return;
	}
	if (put == KCF_PUT_FULL)
	{
		CHECK(fail_one_in > 0 || pg_atomic_read_u64(&account.limit) > 0, "full without a reason");
		check_find(published + 1, key, &state, NULL);
		next_offset[partition]--;
		return;
	}
	expected = model_apply(key, partition, &record);
	if (expected == KCF_PUT_REPLACED && is_same_value(&head, &record))
		expected = KCF_PUT_SAME;
	CHECK(put == expected, "key %d partition %d: put gave %d, expected %d", key, partition, put,
		  expected);
	if (put == KCF_PUT_STALE)
	{
		newest[key] = state;
		is_dirty[key] = was_dirty;
	}
	else if (head.present && head.spelling != record.spelling)
		spellings_seen++;
	check_find(published + 1, key, &newest[key], NULL);
}

static void
settle(void)
{
	int n = 0;

	publish();
	while (kcf_store_housekeep(writer, published, min_pinned(), 1000))
	{
		publish();
		if (++n > 100000)
		{
			CHECK(false, "housekeeping does not end");
			break;
		}
	}
	publish();
}

typedef struct Phase
{
	int nkeys;
	int npartitions;
	long steps;
	int readers;     /* that hold pins now and then */
	int fail_one_in; /* allocations */
	Size limit;      /* of the account */
	Size tombstones; /* limit; 0: all are kept */
	KcfKeyKind kind;
	bool big_rows;
	bool loading;
	bool keep_values;
	bool hash_values;
} Phase;

static void
run(const Phase *phase)
{
	KcfStoreStats stats;
	Size open;

	stub_random_state = seed;
	nkeys = phase->nkeys;
	npartitions = phase->npartitions;
	big_rows = phase->big_rows;
	keep_values = phase->keep_values;
	hash_values = phase->hash_values;
	memset(records, 0, sizeof(records));
	memset(next_offset, 0, sizeof(next_offset));
	memset(is_dirty, 0, sizeof(is_dirty));
	ndirty = 0;
	next_value = 0;
	spellings_seen = 0;
	for (int k = 0; k < nkeys; k++)
		newest[k] = published_states[k] = (State){ NONE, false };
	for (int i = 0; i < MAX_READERS; i++)
	{
		readers[i].pinned = false;
		readers[i].states = calloc(nkeys, sizeof(State));
		readers[i].seen = calloc(nkeys, sizeof(bool));
	}
	for (int p = 0; p < npartitions; p++)
		next_offset[p] = 1000;

	stub_key_type(&keytype, &desc, phase->kind);
	pg_atomic_init_u64(&account.bytes, 0);
	pg_atomic_init_u64(&account.limit, phase->limit);
	fail_one_in = phase->fail_one_in;
	while ((store = kcf_store_create(&account)) == NULL)
		CHECK(pg_atomic_read_u64(&account.bytes) == 0, "a store that was not made took memory");
	writer = kcf_store_attach(store, &account, &keytype, NULL);
	may_forget = phase->tombstones != 0;
	kcf_store_set_loading(writer, phase->loading);
	if (phase->tombstones)
		kcf_store_set_tombstone_limit(writer, phase->tombstones);

	for (step = 0; step < phase->steps; step++)
	{
		uint32 what = stub_below(1000);

		one_record(phase->tombstones != 0);
		if (what < 60)
		{
			publish();
			kcf_store_housekeep(writer, published, min_pinned(), stub_below(200));
		}
		else if (what < 80 && phase->readers > 0)
		{
			Reader *r = &readers[stub_below(phase->readers)];

			if (!r->pinned)
				reader_pin(r);
			else if (stub_below(2))
				reader_unpin(r);
		}
		else if (what < 200 && phase->readers > 0)
		{
			Reader *r = &readers[stub_below(phase->readers)];

			if (r->pinned)
				reader_find(r);
			if (r->pinned && stub_below(10) == 0)
				reader_compare(r);
		}
		else if (what < 210 && phase->readers > 0)
		{
			Reader *r = &readers[stub_below(phase->readers)];

			if (r->pinned)
				reader_scan_some(r, 1 + stub_below(2) * stub_below(1000));
		}
		else if (what == 999)
		{
			/* another process takes over */
			kcf_store_detach(writer);
			writer = kcf_store_attach(store, &account, &keytype, NULL);
		}
		if (step % 5000 == 0)
		{
			check_store();
			check_stats(phase->tombstones == 0);
		}
	}

	/* every pin's whole state once more */
	for (int i = 0; i < phase->readers; i++)
	{
		Reader *r = &readers[i];

		if (!r->pinned)
			continue;
		if (r->scanning)
			reader_scan_some(r, INT_MAX);
		for (int k = 0; k < nkeys; k++)
			check_find(r->seq, k, &r->states[k], NULL);
		reader_scan_some(r, INT_MAX);
		reader_unpin(r);
	}
	fail_one_in = 0;
	kcf_store_set_loading(writer, false);
	settle();
	check_store();
	check_stats(phase->tombstones == 0);
	reader_pin(&readers[0]);
	for (int k = 0; k < nkeys; k++)
		check_find(published, k, &newest[k], NULL);
	reader_scan_some(&readers[0], INT_MAX);
	reader_unpin(&readers[0]);

	kcf_store_stats(store, &stats);
	/* what is dead in the slab that is being filled stays until it is */
	open = store->open ? store->open->dead : 0;
	CHECK(stats.key_spellings == spellings_seen, "key_spellings %ld, not %ld",
		  (long) stats.key_spellings, (long) spellings_seen);
	CHECK(!kcf_store_hindered(writer), "something waits though nobody holds a pin");
	CHECK(stats.dead_bytes <= stats.live_bytes / 5 + 2 * kcf_slab_next_size(store) + open ||
			  phase->limit,
		  "%zu dead bytes beside %zu living", stats.dead_bytes, stats.live_bytes);
	if (phase->tombstones)
		CHECK(store->tomb_bytes <= phase->tombstones, "tombstones");
	kcf_store_detach(writer);
	kcf_store_destroy(store, &account);
	CHECK(pg_atomic_read_u64(&account.bytes) == 0, "%lu bytes are left",
		  (unsigned long) pg_atomic_read_u64(&account.bytes));
	for (int i = 0; i < MAX_READERS; i++)
	{
		free(readers[i].states);
		free(readers[i].seen);
	}
}

/* ---- every order of small logs ---- */

/*
 * All logs of so many partitions and records each, with timestamps 0 .. ntimes - 1 and any of
 * them a tombstone, in all orders that keep each partition's own: the result is the same, and the
 * right one.
 */
static void
all_orders(int parts, int each, int ntimes)
{
	int n = parts * each;
	int64 times[16];
	bool tombs[16];
	long logs = 1;
	int key = 0;

	nkeys = MAX_KEYS;
	npartitions = parts;
	big_rows = false;
	keep_values = hash_values = false;
	stub_key_type(&keytype, &desc, KCF_KEY_VARLENA);
	pg_atomic_init_u64(&account.bytes, 0);
	pg_atomic_init_u64(&account.limit, 0);
	fail_one_in = 0;
	store = kcf_store_create(&account);
	writer = kcf_store_attach(store, &account, &keytype, NULL);
	memset(records, 0, sizeof(records));
	memset(is_dirty, 0, sizeof(is_dirty));
	ndirty = 0;

	for (int i = 0; i < n; i++)
		logs *= 2 * ntimes;
	for (long log = 0; log < logs; log++)
	{
		long code = log;
		int order[16]; /* partitions, in a permutation of a multiset */

		for (int i = 0; i < n; i++)
		{
			tombs[i] = code % 2;
			code /= 2;
			times[i] = code % ntimes;
			code /= ntimes;
			order[i] = i / each;
		}
		for (;;)
		{
			int at[MAX_PARTITIONS] = { 0 };
			int i;
			int j;

			key++;
			if (key == MAX_KEYS)
			{
				/* another store, so that keys are new again */
				kcf_store_detach(writer);
				kcf_store_destroy(store, &account);
				store = kcf_store_create(&account);
				writer = kcf_store_attach(store, &account, &keytype, NULL);
				memset(records, 0, sizeof(records));
				memset(is_dirty, 0, sizeof(is_dirty));
				ndirty = 0;
				key = 0;
			}
			newest[key] = (State){ NONE, false };
			for (i = 0; i < n; i++)
			{
				int p = order[i];
				int which = p * each + at[p];
				Record record = { .present = true,
								  .tombstone = tombs[which],
								  .offset = 10 + at[p],
								  .timestamp = times[which],
								  .value = which };
				KcfPut put = store_apply(key, p, &record);
				KcfPut expected = model_apply(key, p, &record);

				at[p]++;
				if (put != expected)
					CHECK(false, "log %ld: put gave %d, expected %d", log, put, expected);
			}
			check_find(published + 1, key, &newest[key], NULL);

			/* the next order */
			for (i = n - 2; i >= 0 && order[i] >= order[i + 1]; i--)
				;
			if (i < 0)
				break;
			for (j = n - 1; order[j] <= order[i]; j--)
				;
			{
				int swap = order[i];

				order[i] = order[j];
				order[j] = swap;
			}
			for (i++, j = n - 1; i < j; i++, j--)
			{
				int swap = order[i];

				order[i] = order[j];
				order[j] = swap;
			}
		}
	}
	check_store();
	kcf_store_detach(writer);
	kcf_store_destroy(store, &account);
	CHECK(pg_atomic_read_u64(&account.bytes) == 0, "bytes are left");
}

/* ---- full, and room again ---- */

static KcfPut
put_settling(int key, const Record *record)
{
	KcfPut put = store_apply(key, 0, record);

	if (put != KCF_PUT_FULL)
		return put;
	settle();
	return store_apply(key, 0, record);
}

/*
 * A table that fills its limit: most of the memory holds rows; rows can be replaced as long as
 * there is something to win, and deleted in any case; after that, or with a higher limit, it goes
 * on.
 */
static void
full_and_room(Size limit)
{
	KcfStoreStats stats;
	Record record = { .present = true };
	int n = 0;
	int deleted = 0;

	nkeys = MAX_KEYS;
	npartitions = 1;
	big_rows = false;
	keep_values = hash_values = false;
	published = 1;
	stub_key_type(&keytype, &desc, KCF_KEY_VARLENA);
	pg_atomic_init_u64(&account.bytes, 0);
	pg_atomic_init_u64(&account.limit, limit);
	store = kcf_store_create(&account);
	writer = kcf_store_attach(store, &account, &keytype, NULL);
	memset(is_dirty, 0, sizeof(is_dirty));
	ndirty = 0;

	/* the same few keys again and again never fill it */
	for (int i = 0; i < 100000; i++)
	{
		record.offset++;
		record.value = i;
		CHECK(put_settling(i % 50, &record) != KCF_PUT_FULL, "full of replaced rows, limit %zu",
			  limit);
		if (i % 10 == 0)
		{
			publish();
			kcf_store_housekeep(writer, published, published, 40);
		}
	}
	for (n = 50;; n++)
	{
		record.offset++;
		if (put_settling(n, &record) == KCF_PUT_FULL)
			break;
	}
	kcf_store_stats(store, &stats);
	if (getenv("SHOW"))
		printf("limit %zu: %d rows, %zu bytes living, %.0f%%\n", limit, n, stats.live_bytes,
			   100.0 * stats.live_bytes / limit);
	CHECK(stats.live_bytes > limit * 6 / 10, "%zu bytes living of %zu", stats.live_bytes, limit);

	record.tombstone = true;
	for (int i = 0; i < n; i += 2)
	{
		record.offset++;
		if (put_settling(i, &record) == KCF_PUT_DELETED)
			deleted++;
		else
			CHECK(false, "row %d of %d cannot be deleted, limit %zu", i, n, limit);
	}
	record.tombstone = false;
	for (int i = 0; i < deleted / 2; i++)
	{
		record.offset++;
		CHECK(put_settling(2 * i, &record) == KCF_PUT_INSERTED, "no room after deleting, limit %zu",
			  limit);
	}
	pg_atomic_write_u64(&account.limit, limit * 2);
	for (int i = n; i < n * 3 / 2; i++)
	{
		record.offset++;
		CHECK(put_settling(i, &record) == KCF_PUT_INSERTED, "no room after the limit was raised");
	}
	settle();
	check_store();
	kcf_store_detach(writer);
	kcf_store_destroy(store, &account);
	CHECK(pg_atomic_read_u64(&account.bytes) == 0, "bytes are left");
}

int
main(int argc, char **argv)
{
	long steps = argc > 1 ? atol(argv[1]) : STEPS;
	const Phase phases[] = {
		{ 1000, 3, steps, 4, 0, 0, 0, KCF_KEY_VARLENA, true, false, false },
		{ 4000, 4, steps, 6, 0, 0, 0, KCF_KEY_VARLENA, false, true, false },
		{ 3000, 2, steps, 3, 4, 0, 0, KCF_KEY_VARLENA, true, false, false },
		{ 3000, 3, steps, 3, 0, 700 * 1024, 0, KCF_KEY_VARLENA, false, false, false },
		{ 20, 2, steps, 2, 0, 0, 0, KCF_KEY_VARLENA, false, false, false },
		{ 2000, 3, steps, 4, 10, 0, 8192, KCF_KEY_GENERIC, false, false, false },
		{ 2000, 1, steps, 0, 0, 0, 0, KCF_KEY_GENERIC, true, false, false },
		{ 2000, 3, steps, 4, 0, 0, 0, KCF_KEY_VARLENA, true, true, true },
		{ 3000, 3, steps, 3, 5, 900 * 1024, 0, KCF_KEY_VARLENA, false, false, true },
		{ 2000, 3, steps, 4, 6, 0, 0, KCF_KEY_VARLENA, true, false, false, true },
		{ 500, 1, steps, 2, 0, 0, 8192, KCF_KEY_VARLENA, false, false, false, true },
	};

	stub_compare_hook = compare_hook;
	for (int i = 0; i < lengthof(phases); i++)
	{
		seed = 20260101 + i;
		CASE(run(&phases[i]), failed);
	}
	seed = 0;
	for (Size limit = 256 * 1024; limit <= 8 * 1024 * 1024; limit *= 2)
		CASE(full_and_room(limit), failed);
	CASE(all_orders(2, 3, 3), failed);
	CASE(all_orders(3, 2, 2), failed);
	return cases_report("store_model", passed + failed);
}
