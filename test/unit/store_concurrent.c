/*
 * store_concurrent.c
 *		The store and the pins at work: one process writes, others read at the same time.
 *
 * Keys come in pairs whose values add up to the same in every published state, and a row of its
 * own says how many keys there are. Readers pin, scan, look up, keep their pins for long or have
 * them taken away, and check both, and every byte of what they see. What the store frees is
 * overwritten at once.
 */
#include "cases.h"
#include "store_stubs.h"

#include "pins_stubs.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define READERS 3
#define PAIRS 4000
#define PAIR_SUM 1000000
#define COUNT_KEY (2 * PAIRS)
/* Keys of value 0 that come and go by thousands, so that the index grows and shrinks. */
#define TIDE_KEY (COUNT_KEY + 1)
#define TIDE 30000

/* ---- memory: blocks of powers of two, used again at once ---- */

typedef struct Block
{
	struct Block *next;
} Block;

static Block *blocks[32];

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
	char *block;

	if (blocks[class] != NULL)
	{
		block = (char *) blocks[class];
		blocks[class] = blocks[class]->next;
	}
	else
	{
		if (shared_free + ((Size) 1 << class) > shared_end)
			return NULL;
		block = shared_free;
		shared_free += (Size) 1 << class;
	}
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
	int class = class_of(size);

	memset(ptr, 0xdd, size);
	((Block *) ptr)->next = blocks[class];
	blocks[class] = ptr;
	pg_atomic_fetch_sub_u64(&account->bytes, size);
}

/* ---- the table ---- */

typedef struct Shared
{
	KcfAccount account;
	KcfStore *store;
	pg_atomic_uint32 over;
	pg_atomic_uint64 now; /* a clock for ages of pins */
	pg_atomic_uint64 checks;
	pg_atomic_uint64 failures;
	pg_atomic_uint64 scans;
	pg_atomic_uint64 revoked;
	pg_atomic_uint64 doomed;
} Shared;

static Shared *common;
static struct TupleDescData desc;
static KcfKeyType keytype;

static void
check(bool good, const char *what, int64 a, int64 b)
{
	pg_atomic_fetch_add_u64(&common->checks, 1);
	if (!good && pg_atomic_fetch_add_u64(&common->failures, 1) < 10)
	{
		fprintf(stderr, "FAILED: %s: %lld, %lld\n", what, (long long) a, (long long) b);
	}
}

static Datum
key_datum(int key, char *buffer)
{
	int len = sprintf(buffer + VARHDRSZ, "%d", key);

	SET_VARSIZE(buffer, len + VARHDRSZ);
	return PointerGetDatum(buffer);
}

static uint64
hash_of(Datum key)
{
	return stub_hash(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/* Its value; any wrong byte is a failure. */
static int64
value_of(const KcfRow *row, int *key)
{
	StubRow columns;

	stub_deform(kcf_row_tuple(row), &columns);
	*key = 0;
	for (Size i = 0; i < columns.key_len; i++)
		*key = *key * 10 + columns.key[i] - '0';
	check(columns.filler_len == (Size) (columns.value * 7 + *key) % 200, "a row's length", *key,
		  columns.filler_len);
	for (Size i = 0; i < columns.filler_len; i++)
	{
		if (columns.filler[i] != (char) (columns.value + i))
		{
			check(false, "a row's bytes", *key, i);
			break;
		}
	}
	return columns.value;
}

/* ---- the writer ---- */

static int64 values[TIDE_KEY + TIDE]; /* -1: not there */
static int64 count;
static int64 offset;

static void
write_key(KcfStoreWriter *writer, KcfSeq seq, int key, int64 value)
{
	char key_buffer[32];
	char filler[256];
	Datum datum = key_datum(key, key_buffer);
	KcfRowMeta meta = { .offset = offset++ };

	if (value < 0)
	{
		if (kcf_store_delete(writer, seq, &meta, hash_of(datum), &datum) == KCF_PUT_FULL)
			abort();
	}
	else
	{
		Size len = (value * 7 + key) % 200;
		Datum columns[NATTS] = { datum, (Datum) value, PointerGetDatum(filler) };
		bool isnull[NATTS] = { false, false, false };

		for (Size i = 0; i < len; i++)
			filler[VARHDRSZ + i] = (char) (value + i);
		SET_VARSIZE(filler, len + VARHDRSZ);
		if (kcf_store_put(writer, seq, &meta, hash_of(datum), &datum, columns, isnull) ==
			KCF_PUT_FULL)
			abort();
	}
	values[key] = value;
}

static void
change_pair(KcfStoreWriter *writer, KcfSeq seq, int pair)
{
	int key = 2 * pair + stub_below(2);
	int other = key ^ 1;
	bool was = values[key] >= 0;
	bool other_was = values[other] >= 0;

	if (stub_below(4) == 0 && other_was)
	{
		/* one takes all */
		write_key(writer, seq, other, -1);
		write_key(writer, seq, key, PAIR_SUM);
	}
	else
	{
		int64 value = 1 + stub_below(PAIR_SUM - 1);

		write_key(writer, seq, key, value);
		write_key(writer, seq, other, PAIR_SUM - value);
	}
	count += (values[key] >= 0) - was + (values[other] >= 0) - other_was;
}

static void
run_writer(long batches)
{
	KcfStoreWriter *writer = kcf_store_attach(common->store, &common->account, &keytype, NULL);
	KcfSeq published = kcf_clock_published(0, 0);

	for (int i = 0; i < TIDE_KEY + TIDE; i++)
		values[i] = -1;
	kcf_store_set_tombstone_limit(writer, 10000);
	/* on, until the readers have seen something too */
	for (long batch = 0; batch < batches || pg_atomic_read_u64(&common->scans) < 200; batch++)
	{
		KcfSeq seq = published + 1;
		int budget = 4 * 2 * 16;

		/* the whole table at first, later a phase with few keys */
		if (batch == 0)
		{
			for (int pair = 0; pair < PAIRS; pair++)
				change_pair(writer, seq, pair);
		}
		else
		{
			int n = 1 + stub_below(16);
			int span = batch / 5000 % 2 ? 50 : PAIRS;

			while (n-- > 0)
				change_pair(writer, seq, stub_below(span));
		}
		for (int i = 0; i < 20; i++)
		{
			int key = TIDE_KEY + (batch * 20 + i) % TIDE;
			int64 value = (batch * 20 + i) / TIDE % 2 ? -1 : 0;

			count += (value >= 0) - (values[key] >= 0);
			write_key(writer, seq, key, value);
		}
		write_key(writer, seq, COUNT_KEY, count);
		published = kcf_clock_publish(0, 0);
		pg_atomic_write_u64(&common->now, batch);
		do
		{
			KcfSeq min = kcf_pins_min(0, 0);

			if (!kcf_store_housekeep(writer, published, min, budget))
				break;
			published = kcf_clock_publish(0, 0);
			budget /= 2;
		} while (budget > 10);
		if (batch % 50 == 0)
			kcf_pins_revoke_older(0, 0, published, batch - 200);
	}
	pg_atomic_write_u32(&common->over, 1);
	kcf_store_detach(writer);
}

/* ---- readers ---- */

static KcfRow *
find_row(KcfSeq seq, int key)
{
	char buffer[32];
	Datum datum = key_datum(key, buffer);

	return kcf_store_find(common->store, &keytype, hash_of(datum), &datum, seq);
}

static int64
find(KcfSeq seq, int key)
{
	KcfRow *row = find_row(seq, key);
	int64 value = 0;
	int found;

	if (row != NULL)
	{
		if (stub_below(64) == 0)
			sched_yield();
		value = value_of(row, &found);
		check(found == key, "the key that was found", found, key);
	}
	return value;
}

static void
scan(KcfSeq seq)
{
	KcfStoreScan scan;
	KcfRow *row;
	int64 sum = 0;
	int64 n = 0;
	int64 said = -1;

	kcf_store_scan_begin(&scan, common->store, seq);
	for (uint32 slab = 0; kcf_store_scan_slab(&scan, slab); slab++)
	{
		/* let the writer go on between what was loaded and its use */
		if (stub_below(8) == 0)
			sched_yield();
		while ((row = kcf_store_scan_next(&scan)) != NULL)
		{
			int key;
			int64 value = value_of(row, &key);

			/* what a scan sees a lookup finds */
			if (stub_below(16) == 0)
				check(find(seq, key) == value && find_row(seq, key) == row,
					  "a lookup of what was seen", key, value);
			if (key == COUNT_KEY)
			{
				check(said == -1, "the count's row twice", said, value);
				said = value;
			}
			else
			{
				sum += value;
				n++;
			}
		}
	}
	check(n == said, "number of keys", n, said);
	check(sum == (int64) PAIRS * PAIR_SUM, "sum", sum, n);
	pg_atomic_fetch_add_u64(&common->scans, 1);
}

static void
find_pairs(KcfSeq seq, int n)
{
	while (n-- > 0)
	{
		int pair = stub_below(stub_below(2) ? PAIRS : 50);
		int64 sum = find(seq, 2 * pair) + find(seq, 2 * pair + 1);

		check(sum == PAIR_SUM, "sum of a pair", sum, pair);
	}
}

static void
run_reader(void)
{
	while (pg_atomic_read_u32(&common->over) == 0)
	{
		KcfSeq seqs[KCF_MAX_CLOCKS];
		int turns = stub_below(10) == 0 ? 200 : 1 + stub_below(3);

		if (!kcf_pin_enter())
			abort(); /* nothing was held */
		kcf_pin_set(0, seqs, pg_atomic_read_u64(&common->now));
		while (turns-- > 0)
		{
			if (stub_below(3) == 0)
				scan(seqs[0]);
			find_pairs(seqs[0], 100);
			if (kcf_pin_doomed())
			{
				pg_atomic_fetch_add_u64(&common->doomed, 1);
				break;
			}
			if (stub_below(2) == 0)
			{
				/* out of the executor, now and then until the pin is old */
				uint64 then = pg_atomic_read_u64(&common->now);

				kcf_pin_leave();
				while (turns % 16 == 0 && pg_atomic_read_u64(&common->now) < then + 300 &&
					   pg_atomic_read_u32(&common->over) == 0)
					sched_yield();
				if (!kcf_pin_enter())
				{
					pg_atomic_fetch_add_u64(&common->revoked, 1);
					break;
				}
			}
			if (stub_below(50) == 0)
			{
				/* a newer state under the same pin, which then moves up to it */
				KcfSeq newer[KCF_MAX_CLOCKS];
				TimestampTz now = pg_atomic_read_u64(&common->now);

				kcf_pin_set(0, newer, now);
				find_pairs(newer[0], 100);
				find_pairs(seqs[0], 100);
				kcf_pin_move(newer, now);
				memcpy(seqs, newer, sizeof(seqs));
			}
		}
		kcf_pin_release();
		kcf_pin_leave();
	}
}

/* The writer here, readers in processes of their own. */
static void
run_together(long batches)
{
	pid_t children[READERS];

	/* the first batch is there before anyone reads */
	for (int i = 0; i < READERS; i++)
	{
		children[i] = fork();
		if (children[i] == 0)
		{
			MyProc = &procs[i];
			stub_random_state = i + 1;
			while (kcf_clock_published(0, 0) == 1)
				usleep(1000);
			run_reader();
			_exit(0);
		}
	}
	run_writer(batches);
	for (int i = 0; i < READERS; i++)
	{
		int status;

		waitpid(children[i], &status, 0);
		check(status == 0, "a reader ended badly", i, status);
	}
	check(pg_atomic_read_u64(&common->scans) > 10, "scans", 0, 0);
}

static void
nothing_is_left(void)
{
	check(kcf_pins_min(0, 0) == kcf_clock_published(0, 0), "a pin was left", 0, 0);
	kcf_store_destroy(common->store, &common->account);
	check(pg_atomic_read_u64(&common->account.bytes) == 0, "bytes are left",
		  pg_atomic_read_u64(&common->account.bytes), 0);
}

int
main(int argc, char **argv)
{
	long batches = argc > 1 ? atol(argv[1]) : 60000;
	bool found;

	stub_shared_memory((Size) 512 * 1024 * 1024);
	common = ShmemInitStruct("common", sizeof(Shared), &found);
	kcf_pins_shmem_init();
	stub_key_type(&keytype, &desc, KCF_KEY_VARLENA);
	common->store = kcf_store_create(&common->account);

	MyProc = &procs[READERS];
	CASE(run_together(batches), pg_atomic_read_u64(&common->failures));
	CASE(nothing_is_left(), pg_atomic_read_u64(&common->failures));
	printf("%lu scans, %lu pins revoked, %lu doomed\n",
		   (unsigned long) pg_atomic_read_u64(&common->scans),
		   (unsigned long) pg_atomic_read_u64(&common->revoked),
		   (unsigned long) pg_atomic_read_u64(&common->doomed));
	return cases_report("store_concurrent", (long) pg_atomic_read_u64(&common->checks));
}
