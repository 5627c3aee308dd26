/*
 * store_bench.c
 *		The store alone, in one process: what it costs to write, find and scan rows.
 *
 * Rows are as long as those of the notes on limits: 168 bytes of tuple on average, with a key of
 * 16 bytes. Memory is shared memory of 4 kB pages, touched for the first time by the load. One
 * line per figure; nothing is judged here.
 */
#include "../test/unit/store_stubs.h"

#include <sys/mman.h>
#include <time.h>

/* ---- memory: blocks of powers of two ---- */

static char *memory;
static char *memory_end;
static void *blocks[32];

static int
class_of(Size size)
{
	int class = 12;

	while ((Size) 1 << class < size)
		class ++;
	return class;
}

void *
kcf_arena_alloc(KcfAccount *account, Size size)
{
	int class = class_of(size);
	void *block = blocks[class];

	if (block != NULL)
		blocks[class] = *(void **) block;
	else
	{
		if (memory + ((Size) 1 << class) > memory_end)
			return NULL;
		block = memory;
		memory += (Size) 1 << class;
	}
	pg_atomic_fetch_add_u64(&account->bytes, size);
	return block;
}

void
kcf_arena_populate(void *ptr, Size size)
{
	madvise(ptr, size, 23 /* MADV_POPULATE_WRITE */);
}

void
kcf_arena_free(KcfAccount *account, void *ptr, Size size)
{
	int class = class_of(size);

	*(void **) ptr = blocks[class];
	blocks[class] = ptr;
	pg_atomic_fetch_sub_u64(&account->bytes, size);
}

/* ---- time: of the processor, so that what else the machine does matters less ---- */

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* ---- rows ---- */

#define BATCH 1000

static struct TupleDescData desc;
static KcfKeyType keytype;
static KcfAccount account;
static KcfStore *store;
static KcfStoreWriter *writer;
static KcfSeq published = 1;
static int64 offset;
static double longest_put;
static double longest_housekeep;

static Datum
key_datum(uint64 key, char *buffer)
{
	uint64 spread = key * UINT64CONST(0x9e3779b97f4a7c15);

	SET_VARSIZE(buffer, 16 + VARHDRSZ);
	memcpy(buffer + VARHDRSZ, &key, 8);
	memcpy(buffer + VARHDRSZ + 8, &spread, 8);
	return PointerGetDatum(buffer);
}

static uint64
hash_of(uint64 key)
{
	uint64 h = (key + 1) * UINT64CONST(0xff51afd7ed558ccd);

	h ^= h >> 32;
	h *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return h ^ (h >> 29);
}

static void
put(uint64 key, uint64 value, bool timed)
{
	static char filler[512];
	char buffer[32];
	Datum datum = key_datum(key, buffer);
	KcfRowMeta meta = { .offset = offset++ };
	/* 16 + 1 key, 8 value at 24, then the rest: 24 to 248 bytes of data */
	Size len = 40 + hash_of(value) % 136;
	Datum values[NATTS] = { datum, (Datum) value, PointerGetDatum(filler) };
	bool isnull[NATTS] = { false, false, false };
	double start = timed ? now() : 0;

	SET_VARSIZE(filler, len + VARHDRSZ);
	if (kcf_store_put(writer, published + 1, &meta, hash_of(key), &datum, values, isnull) ==
		KCF_PUT_FULL)
	{
		printf("full\n");
		exit(1);
	}
	if (timed)
		longest_put = Max(longest_put, now() - start);
}

static void
publish(int budget)
{
	bool more = true;

	published++;
	for (; more && budget > 0; budget -= 1000)
	{
		double start = now();

		more = kcf_store_housekeep(writer, published, published, Min(budget, 1000));
		longest_housekeep = Max(longest_housekeep, now() - start);
	}
}

static void
settle(void)
{
	do
		published++;
	while (kcf_store_housekeep(writer, published, published, 100000));
	published++;
}

static double
scan_ns(int64 *rows)
{
	double best = 1e9;

	for (int i = 0; i < 7; i++)
	{
		KcfStoreScan scan;
		KcfRow *row;
		int64 n = 0;
		volatile uint64 sum = 0;
		double start = now();

		kcf_store_scan_begin(&scan, store, published);
		for (uint32 slab = 0; kcf_store_scan_slab(&scan, slab); slab++)
		{
			while ((row = kcf_store_scan_next(&scan)) != NULL)
			{
				n++;
				sum += row->tuple_len;
			}
		}
		best = Min(best, (now() - start) / n * 1e9);
		*rows = n;
	}
	return best;
}

static double
find_ns(uint64 nkeys, int n)
{
	double start = now();
	volatile int64 sum = 0;

	for (int i = 0; i < n; i++)
	{
		char buffer[32];
		uint64 key = stub_random() % nkeys;
		Datum datum = key_datum(key, buffer);
		KcfRow *row = kcf_store_find(store, &keytype, hash_of(key), &datum, published);

		if (row == NULL)
			abort();
		sum += row->tuple_len;
	}
	return (now() - start) / n * 1e9;
}

static void
figure(const char *what, double value, const char *unit)
{
	printf("%-60s %12.1f %s\n", what, value, unit);
	fflush(stdout);
}

/* All records of n, keys by random or in order; with the next ones' slots and rows fetched ahead. */
static double
replace_rate(uint64 nkeys, uint64 n, int budget, bool timed)
{
	enum
	{
		AHEAD = 16
	};
	uint64 keys[2 * AHEAD];
	double start;

	for (int i = 0; i < 2 * AHEAD; i++)
		keys[i] = stub_random() % nkeys;
	start = now();
	for (uint64 i = 0; i < n; i++)
	{
		uint64 key = keys[i % (2 * AHEAD)];

		kcf_store_prefetch_slot(writer, hash_of(keys[(i + 2 * AHEAD - 1) % (2 * AHEAD)]));
		kcf_store_prefetch_row(writer, hash_of(keys[(i + AHEAD) % (2 * AHEAD)]));
		keys[i % (2 * AHEAD)] = stub_random() % nkeys;
		put(key, nkeys + i, timed);
		if (i % BATCH == BATCH - 1)
			publish(budget);
	}
	return n / (now() - start);
}

int
main(int argc, char **argv)
{
	uint64 nkeys = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
	Size size = nkeys * 1200 + ((Size) 256 << 20);
	double start;
	int64 rows;
	double fresh;
	KcfStoreStats stats;

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memory_end = memory + size;
	memory = (char *) TYPEALIGN(1 << 20, memory);
	stub_key_type(&keytype, &desc, KCF_KEY_VARLENA);
	store = kcf_store_create(&account);
	writer = kcf_store_attach(store, &account, &keytype, NULL);

	start = now();
	for (uint64 i = 0; i < nkeys; i++)
	{
		put(i, i, false);
		if (i % BATCH == BATCH - 1)
			publish(BATCH);
	}
	figure("insert, fresh memory, publish every 1000", nkeys / (now() - start), "rows/s");
	figure("longest housekeeping of the load", longest_housekeep * 1e6, "us");
	settle();
	kcf_store_stats(store, &stats);
	figure("bytes of tuple", stats.avg_tuple_len, "B/row");
	figure("bytes in all", (double) pg_atomic_read_u64(&account.bytes) / nkeys, "B/row");
	figure("  slabs", (double) stats.slab_bytes / nkeys, "B/row");
	figure("  index", (double) stats.index_bytes / nkeys, "B/row");
	fresh = scan_ns(&rows);
	figure("scan, fresh", fresh, "ns/row");
	figure("find, random", find_ns(nkeys, 2000000), "ns");

	for (int round = 0; round < 3; round++)
	{
		double rate;

		longest_housekeep = 0;
		rate = replace_rate(nkeys, nkeys * 2, 4 * BATCH, false);
		kcf_store_stats(store, &stats);
		figure("replace, random, with recycling", rate, "rows/s");
		figure("  longest housekeeping", longest_housekeep * 1e6, "us");
		figure("  dead bytes", 100.0 * stats.dead_bytes / stats.live_bytes, "% of living");
		figure("  slabs", (double) stats.slab_bytes / nkeys, "B/row");
		figure("  scan", scan_ns(&rows) / fresh, "times fresh");
	}
	settle();
	figure("scan after that and a rest", scan_ns(&rows) / fresh, "times fresh");
	figure("find, random", find_ns(nkeys, 2000000), "ns");

	/* without recycling, to see what it costs */
	figure("replace, random, nothing recycled", replace_rate(nkeys, nkeys / 2, 0, false), "rows/s");
	settle();

	longest_put = 0;
	replace_rate(nkeys, nkeys, 4 * BATCH, true);
	figure("longest put while replacing", longest_put * 1e6, "us");
	longest_put = longest_housekeep = 0;
	for (uint64 i = 0; i < nkeys; i++)
	{
		put(nkeys + i, i, true);
		if (i % BATCH == BATCH - 1)
			publish(BATCH);
	}
	figure("longest put while growing to twice the rows", longest_put * 1e6, "us");
	figure("longest housekeeping meanwhile", longest_housekeep * 1e6, "us");
	settle();
	start = now();
	kcf_store_destroy(store, &account);
	figure("destroy", (now() - start) * 1e6, "us");
	return 0;
}
