/*
 * pins.c
 *		Published sequences and pins.
 *
 * The protocol, and why nothing is freed under a reader. A reader sets its pin:
 *
 *		R1	e = published				W1	change things, stamp what is no longer needed with P
 *		R2	pin = e						W2	published = P
 *		R3	full barrier				W3	full barrier
 *		R4	published == e? else R1		W4	m = min(published, all pins)
 *										W5	free what is stamped <= m
 *
 * Take a reader that passed R4 with e and a writer whose W4 did not see that pin. R2 then came
 * after W4 in the order of the slot's memory, so by the two barriers R4 came after W2 of that
 * writer and saw at least its P: e >= P >= m. What W5 frees was stamped at or before m, and
 * something stamped s is needed by pins below s only: the reader does not need it. It cannot find
 * it either: unlinking came before the publication of s <= e, which R1 read. And a W4 that did
 * see the pin gives m <= e, the same. A pin only moves upward while it is held, and each single
 * clock of a vector follows this protocol by itself.
 *
 * Revocation takes a pin from its backend by compare-and-exchange on the slot's state, which
 * counts every change that the backend makes. An idle backend must win the same exchange before
 * it reads again, so either it runs (and the pin stays, doomed) or it learns that it lost.
 *
 * A parallel worker pins what its leader shows: it sets its own pin, full barrier, and then finds
 * that the leader still shows the same under a pin of its own. A writer that missed the worker's
 * pin looked at the leader's before that, and that one is not younger: leaders stop showing
 * before they let go.
 */
#include "postgres.h"

#include "pins.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"

typedef enum PinState
{
	PIN_FREE,
	PIN_IDLE,    /* held, its backend is outside the executor */
	PIN_RUNNING, /* held, its backend may be reading */
	PIN_REVOKED  /* protects no more */
} PinState;

/*
 * A state word: the lower half is 1 for a doomed pin (it still protects, its backend is to give
 * it up), the upper half a PinState and a count of changes.
 */
#define PIN_DOOM UINT64CONST(1)
#define pin_state(word) ((PinState) (((word) >> 32) & 0xff))
/* the next word of a slot: another state, not doomed, one more change */
#define pin_next(word, state) ((((word) >> 40) + 1) << 40 | (uint64) (state) << 32)
#ifdef WORDS_BIGENDIAN
#define PIN_DOOM_OFFSET 4
#else
#define PIN_DOOM_OFFSET 0
#endif

/* All fields: written by the slot's backend; state also by consumers, by compare-and-exchange. */
typedef struct KcfPin
{
	pg_atomic_uint64 state;
	pg_atomic_uint64 database;
	pg_atomic_uint64 since;                /* TimestampTz of the oldest snapshot protected */
	pg_atomic_uint64 seqs[KCF_MAX_CLOCKS]; /* 0: none */
	char pad[PG_CACHE_LINE_SIZE - (3 + KCF_MAX_CLOCKS) * sizeof(uint64)];
	/* what workers of a parallel query read; odd while being changed, 0 modulo 4: nothing */
	pg_atomic_uint64 shown_version;
	pg_atomic_uint64 shown[KCF_MAX_CLOCKS];
} KcfPin;

typedef union KcfPinPadded
{
	KcfPin pin;
	char pad[2 * PG_CACHE_LINE_SIZE];
} KcfPinPadded;

typedef union KcfClocksPadded
{
	KcfClocks clocks;
	char pad[PG_CACHE_LINE_SIZE];
} KcfClocksPadded;

StaticAssertDecl(offsetof(KcfPin, shown_version) == PG_CACHE_LINE_SIZE,
				 "what writers look at is one line");

static KcfClocksPadded *clocks = NULL;
static KcfPinPadded *pins = NULL;

/* This backend's slot, and how deep it is in executors. */
static KcfPin *mine = NULL;
static int depth = 0;

static pg_atomic_uint32 no_doom = { 0 };
pg_atomic_uint32 *kcf_pin_doom = &no_doom;

static int
pin_slots(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

Size
kcf_pins_shmem_size(void)
{
	return add_size(mul_size(KCF_MAX_DATABASES, sizeof(KcfClocksPadded)),
					add_size(mul_size(pin_slots(), sizeof(KcfPinPadded)), 2 * PG_CACHE_LINE_SIZE));
}

void
kcf_pins_shmem_init(void)
{
	bool found;

	mine = NULL;
	depth = 0;
	clocks =
		ShmemInitStruct("kafka_cache clocks", KCF_MAX_DATABASES * sizeof(KcfClocksPadded), &found);
	if (!found)
	{
		/* for the hashes of this life of shared memory */
		kcf_keytype_seed();
		for (int i = 0; i < KCF_MAX_DATABASES; i++)
			for (int j = 0; j < KCF_MAX_CLOCKS; j++)
				pg_atomic_init_u64(&clocks[i].clocks.published[j], 1);
	}
	pins = ShmemInitStruct("kafka_cache pins", pin_slots() * sizeof(KcfPinPadded), &found);
	if (!found)
	{
		for (int i = 0; i < pin_slots(); i++)
		{
			KcfPin *pin = &pins[i].pin;

			pg_atomic_init_u64(&pin->state, PIN_FREE);
			pg_atomic_init_u64(&pin->database, 0);
			pg_atomic_init_u64(&pin->since, 0);
			pg_atomic_init_u64(&pin->shown_version, 0);
			for (int j = 0; j < KCF_MAX_CLOCKS; j++)
			{
				pg_atomic_init_u64(&pin->seqs[j], 0);
				pg_atomic_init_u64(&pin->shown[j], 0);
			}
		}
	}
}

KcfClocks *
kcf_clocks(int database)
{
	return &clocks[database].clocks;
}

/* ---- writer ---- */

KcfSeq
kcf_clock_published(int database, int clock)
{
	return pg_atomic_read_u64(&clocks[database].clocks.published[clock]);
}

KcfSeq
kcf_clock_publish(int database, int clock)
{
	/* a full barrier: what was written is seen by whoever reads the new sequence */
	return pg_atomic_add_fetch_u64(&clocks[database].clocks.published[clock], 1);
}

KcfSeq
kcf_pins_min(int database, int clock)
{
	KcfSeq min = kcf_clock_published(database, clock);
	int n = pin_slots();

	pg_memory_barrier();
	for (int i = 0; i < n; i++)
	{
		KcfPin *pin = &pins[i].pin;
		KcfSeq seq = pg_atomic_read_u64(&pin->seqs[clock]);

		if (seq == 0 || seq >= min)
			continue;
		/* set before the sequences were; if they are of a pin that is just being let go, no harm */
		pg_read_barrier();
		if (pg_atomic_read_u64(&pin->database) == (uint64) database &&
			pin_state(pg_atomic_read_u64(&pin->state)) != PIN_REVOKED)
			min = seq;
	}
	/* what is freed now was read by others before they let go */
	pg_memory_barrier();
	return min;
}

bool
kcf_pins_any(int database)
{
	int n = pin_slots();
	bool any = false;

	pg_memory_barrier();
	for (int i = 0; i < n && !any; i++)
	{
		KcfPin *pin = &pins[i].pin;
		PinState state;

		/* A pin counts from its first sequence on: that is what a reader sets before it looks. */
		for (int j = 0; j < KCF_MAX_CLOCKS && !any; j++)
			any = pg_atomic_read_u64(&pin->seqs[j]) != 0;
		if (!any)
			continue;
		pg_read_barrier();
		state = pin_state(pg_atomic_read_u64(&pin->state));
		any = pg_atomic_read_u64(&pin->database) == (uint64) database && state != PIN_REVOKED;
	}
	pg_memory_barrier();
	return any;
}

int
kcf_pins_count(int database, TimestampTz *oldest)
{
	int count = 0;

	*oldest = PG_INT64_MAX;
	for (int i = 0; i < pin_slots(); i++)
	{
		KcfPin *pin = &pins[i].pin;
		PinState state = pin_state(pg_atomic_read_u64(&pin->state));

		if ((state != PIN_IDLE && state != PIN_RUNNING) ||
			pg_atomic_read_u64(&pin->database) != (uint64) database)
			continue;
		count++;
		*oldest = Min(*oldest, (TimestampTz) pg_atomic_read_u64(&pin->since));
	}
	return count;
}

int
kcf_pins_revoke_older(int database, int clock, KcfSeq seq, TimestampTz older_than)
{
	int found = 0;
	int n = pin_slots();

	for (int i = 0; i < n; i++)
	{
		KcfPin *pin = &pins[i].pin;
		uint64 word = pg_atomic_read_u64(&pin->state);
		PinState state = pin_state(word);
		KcfSeq pinned;

		if (state == PIN_FREE || state == PIN_REVOKED)
			continue;
		/* the fields below are of this state: if they change, the count does, and the exchange
		 * fails */
		pg_memory_barrier();
		pinned = pg_atomic_read_u64(&pin->seqs[clock]);
		if (pinned == 0 || pinned >= seq ||
			pg_atomic_read_u64(&pin->database) != (uint64) database ||
			(TimestampTz) pg_atomic_read_u64(&pin->since) >= older_than)
			continue;
		found++;
		if (state == PIN_IDLE)
			pg_atomic_compare_exchange_u64(&pin->state, &word, pin_next(word, PIN_REVOKED));
		else if (state == PIN_RUNNING)
			pg_atomic_compare_exchange_u64(&pin->state, &word, word | PIN_DOOM);
	}
	return found;
}

/* ---- reader ---- */

static inline uint64
my_word(void)
{
	return mine ? pg_atomic_read_u64(&mine->state) : 0;
}

static inline PinState
my_state(void)
{
	return pin_state(my_word());
}

/* The slot's next state, whatever a consumer does to it at the same moment. */
static void
my_next(PinState state)
{
	uint64 word = my_word();

	while (!pg_atomic_compare_exchange_u64(&mine->state, &word, pin_next(word, state)))
		;
}

static void
pin_clear(void)
{
	/* all that was read under the pin was read before it goes */
	pg_memory_barrier();
	for (int i = 0; i < KCF_MAX_CLOCKS; i++)
		pg_atomic_write_u64(&mine->seqs[i], 0);
	my_next(PIN_FREE);
}

/* A backend that goes leaves no pin. */
static void
pin_exit(int code, Datum arg)
{
	if (mine == NULL)
		return;
	kcf_pin_show(NULL);
	pin_clear();
	mine = NULL;
	kcf_pin_doom = &no_doom;
}

static KcfPin *
pin_of(const PGPROC *proc)
{
	/* the number of a PGPROC, by whatever name the version knows it */
	return &pins[proc - ProcGlobal->allProcs].pin;
}

/* A fresh pin in a free slot; its sequences follow. */
static void
pin_begin(int database, TimestampTz now)
{
	if (mine == NULL)
	{
		mine = pin_of(MyProc);
		kcf_pin_doom = (pg_atomic_uint32 *) ((char *) &mine->state + PIN_DOOM_OFFSET);
		on_shmem_exit(pin_exit, 0);
	}
	if (my_state() != PIN_FREE)
		pin_clear();
	pg_atomic_write_u64(&mine->database, (uint64) database);
	pg_atomic_write_u64(&mine->since, (uint64) now);
	my_next(depth > 0 ? PIN_RUNNING : PIN_IDLE);
	pg_write_barrier();
}

void
kcf_pin_set(int database, KcfSeq *seqs, TimestampTz now)
{
	KcfClocks *c = kcf_clocks(database);

	if (my_state() == PIN_IDLE || my_state() == PIN_RUNNING)
	{
		/* The older pin that is held protects the present state too. */
		for (int i = 0; i < KCF_MAX_CLOCKS; i++)
			seqs[i] = pg_atomic_read_u64(&c->published[i]);
		pg_memory_barrier();
		return;
	}

	pin_begin(database, now);
	for (;;)
	{
		bool same = true;

		for (int i = 0; i < KCF_MAX_CLOCKS; i++)
		{
			seqs[i] = pg_atomic_read_u64(&c->published[i]);
			pg_atomic_write_u64(&mine->seqs[i], seqs[i]);
		}
		pg_memory_barrier();
		for (int i = 0; i < KCF_MAX_CLOCKS; i++)
			same &= pg_atomic_read_u64(&c->published[i]) == seqs[i];
		if (same)
			break;
	}
	pg_memory_barrier();
}

void
kcf_pin_move(const KcfSeq *seqs, TimestampTz since)
{
	uint64 word = my_word();

	/* what was read in the states that are given up was read before */
	pg_memory_barrier();
	if (pin_state(word) != PIN_IDLE && pin_state(word) != PIN_RUNNING)
		return;
	for (int i = 0; i < KCF_MAX_CLOCKS; i++)
	{
		Assert(seqs[i] >= pg_atomic_read_u64(&mine->seqs[i]));
		pg_atomic_write_u64(&mine->seqs[i], seqs[i]);
	}
	pg_atomic_write_u64(&mine->since, (uint64) since);
	/*
	 * Younger now, and no longer doomed: one more change, so that a consumer which looked at the
	 * older pin fails. One that was faster in taking it away stands.
	 */
	while (pin_state(word) != PIN_REVOKED &&
		   !pg_atomic_compare_exchange_u64(&mine->state, &word, pin_next(word, pin_state(word))))
		;
}

void
kcf_pin_release(void)
{
	if (my_state() != PIN_FREE)
		pin_clear();
}

void
kcf_pin_reset(bool keep)
{
	kcf_pin_show(NULL);
	if (keep && depth > 0)
	{
		depth = 1;
		kcf_pin_leave();
	}
	else if (!keep)
		kcf_pin_release();
	depth = 0;
}

void
kcf_pin_show(const KcfSeq *seqs)
{
	uint64 version;

	if (mine == NULL)
		return;
	version = pg_atomic_read_u64(&mine->shown_version);
	if (seqs == NULL && (version & 3) == 0)
		return;
	pg_atomic_write_u64(&mine->shown_version, version | 1);
	pg_memory_barrier();
	for (int i = 0; i < KCF_MAX_CLOCKS; i++)
		pg_atomic_write_u64(&mine->shown[i], seqs ? seqs[i] : 0);
	pg_memory_barrier();
	/* counts up by four; two when something is shown */
	pg_atomic_write_u64(&mine->shown_version, ((version >> 2) + 1) << 2 | (seqs ? 2 : 0));
	pg_memory_barrier();
}

bool
kcf_pin_of_leader(KcfSeq *seqs, TimestampTz now)
{
	KcfPin *leader;

	if (MyProc->lockGroupLeader == NULL || MyProc->lockGroupLeader == MyProc)
		return false;
	leader = pin_of(MyProc->lockGroupLeader);
	for (;;)
	{
		uint64 version = pg_atomic_read_u64(&leader->shown_version);
		uint64 word;

		if (version & 1)
			continue; /* a few stores long */
		if ((version & 2) == 0)
			return false;
		pg_memory_barrier();
		pin_begin((int) pg_atomic_read_u64(&leader->database), now);
		for (int i = 0; i < KCF_MAX_CLOCKS; i++)
		{
			seqs[i] = pg_atomic_read_u64(&leader->shown[i]);
			pg_atomic_write_u64(&mine->seqs[i], seqs[i]);
		}
		pg_memory_barrier();
		word = pg_atomic_read_u64(&leader->state);
		if (pg_atomic_read_u64(&leader->shown_version) != version)
		{
			pin_clear();
			continue;
		}
		/* No sequence is 0, but of a vector that says that there is none any more. */
		if (seqs[0] == 0 || (pin_state(word) != PIN_IDLE && pin_state(word) != PIN_RUNNING) ||
			(word & PIN_DOOM))
		{
			pin_clear();
			ereport(
				ERROR,
				(errcode(MAKE_SQLSTATE('7', '2', '0', '0', '0')),
				 errmsg("snapshot of the cached tables is too old"),
				 errdetail("The parallel query's leader lost it before this process took part.")));
		}
		pg_memory_barrier();
		return true;
	}
}

bool
kcf_pin_enter(void)
{
	uint64 word = my_word();

	if (depth++ > 0)
		return true;
	while (pin_state(word) == PIN_IDLE)
	{
		if (pg_atomic_compare_exchange_u64(&mine->state, &word, pin_next(word, PIN_RUNNING)))
			return true;
	}
	if (pin_state(word) == PIN_REVOKED)
	{
		pin_clear();
		return false;
	}
	return true;
}

void
kcf_pin_leave(void)
{
	uint64 word;

	Assert(depth > 0);
	if (--depth > 0)
		return;
	/* the reads of this run are over before the pin may be taken */
	pg_memory_barrier();
	word = my_word();
	while (pin_state(word) == PIN_RUNNING)
	{
		PinState next = (word & PIN_DOOM) ? PIN_REVOKED : PIN_IDLE;

		if (pg_atomic_compare_exchange_u64(&mine->state, &word, pin_next(word, next)))
			return;
	}
}
