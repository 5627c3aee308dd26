/*
 * refreshq.c
 *		The queue of refreshes: a hash table in shared memory, by product and key.
 *
 * The common request repeats one that is there already, of a stale row that many read: it counts up atomically under
 * a shared lock, and so readers do not stand in each other's way. Choosing looks at the whole queue and remembers
 * the best few, since what is best does not change much from one refresh to the next.
 */
#include "postgres.h"

#include "refreshq.h"

#include "guc.h"
#include "refreshq_internal.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* The queue's share of the memory of all caches. */
#define MEMORY_SHARE 32
#define MEMORY_LEAST (1024 * 1024)
#define BACKOFF_MIN_MS INT64CONST(1000)
#define BACKOFF_MAX_MS INT64CONST(60000)
/* Those chosen at one look at the queue, and for how long they are good. */
#define NCHOSEN 64
#define CHOICE_MS 1000
#define WEIGHTED_ATTEMPTS 8
/* Failures after which a row is left to those who read it, if nobody else has asked, and nobody since. */
#define ATTEMPTS_FOR_READERS 10

typedef struct Chosen
{
	uint64 id;
	uint64 hash;
	double weight;
} Chosen;

KcfRefreshQueue *kcf_refreshq = NULL;

/* A refresher's own. The best one is the last. */
static Chosen chosen[NCHOSEN];
static int nchosen = 0;
static TimestampTz chosen_at = 0;

Size
kcf_refreshq_shmem_size(void)
{
	return MAXALIGN(sizeof(KcfRefreshQueue));
}

static void
init_totals(KcfRefreshCounters *totals)
{
	pg_atomic_init_u64(&totals->done, 0);
	pg_atomic_init_u64(&totals->failed, 0);
	pg_atomic_init_u64(&totals->dropped, 0);
	pg_atomic_init_u64(&totals->lapsed, 0);
}

void
kcf_refreshq_shmem_init(void)
{
	bool found;

	kcf_refreshq = ShmemInitStruct("kafka_cache refreshes", kcf_refreshq_shmem_size(), &found);
	if (!found)
	{
		Size limit = Max((Size) kcf_guc_memory * 1024 * 1024 / MEMORY_SHARE, MEMORY_LEAST);

		memset(kcf_refreshq, 0, sizeof(KcfRefreshQueue));
		kcf_refreshq->tranche = LWLockNewTrancheId();
		pg_atomic_init_u64(&kcf_refreshq->account.bytes, 0);
		pg_atomic_init_u64(&kcf_refreshq->account.limit, limit);
		pg_atomic_init_u64(&kcf_refreshq->id, 0);
		pg_atomic_init_u64(&kcf_refreshq->ticket, 1);
		for (int i = 0; i < KCF_MAX_DATABASES; i++)
			init_totals(&kcf_refreshq->totals[i]);
		for (int i = 0; i < KCF_REFRESHQ_PARTS; i++)
			LWLockInitialize(&kcf_refreshq->parts[i].lock, kcf_refreshq->tranche);
	}
	LWLockRegisterTranche(kcf_refreshq->tranche, "kafka_cache_refreshes");
}

/* ---- places -------------------------------------------------------------------------------- */

static uint64
hash_of(Oid dboid, Oid relid, KcfSlice key)
{
	return hash_bytes_extended((const unsigned char *) key.data, (int) key.len,
							   (uint64) dboid << 32 | relid);
}

static inline KcfRefreshPart *
part_of(uint64 hash)
{
	return &kcf_refreshq->parts[hash % KCF_REFRESHQ_PARTS];
}

static inline KcfRefreshEntry **
bucket_of(uint64 hash)
{
	return &part_of(hash)->buckets[hash / KCF_REFRESHQ_PARTS % KCF_REFRESHQ_BUCKETS];
}

static KcfRefreshEntry *
find(uint64 hash, Oid dboid, Oid relid, KcfSlice key)
{
	for (KcfRefreshEntry *entry = *bucket_of(hash); entry; entry = entry->next)
	{
		if (entry->hash == hash && entry->relid == relid && entry->dboid == dboid &&
			entry->key_len == key.len && memcmp(entry->key, key.data, key.len) == 0)
			return entry;
	}
	return NULL;
}

static KcfRefreshEntry *
find_id(uint64 hash, uint64 id)
{
	for (KcfRefreshEntry *entry = *bucket_of(hash); entry; entry = entry->next)
	{
		if (entry->id == id)
			return entry;
	}
	return NULL;
}

static inline Size
size_of(Size key_len)
{
	return offsetof(KcfRefreshEntry, key) + key_len;
}

/* Under the exclusive lock. NULL: there is no room. */
static KcfRefreshEntry *
add(uint64 hash, Oid dboid, Oid relid, KcfSlice key)
{
	KcfRefreshEntry *entry = kcf_arena_alloc(&kcf_refreshq->account, size_of(key.len));

	if (entry == NULL)
		return NULL;
	memset(entry, 0, offsetof(KcfRefreshEntry, key));
	memcpy(entry->key, key.data, key.len);
	entry->key_len = key.len;
	entry->id = pg_atomic_add_fetch_u64(&kcf_refreshq->id, 1);
	entry->hash = hash;
	entry->dboid = dboid;
	entry->relid = relid;
	pg_atomic_init_u64(&entry->requests, 0);
	pg_atomic_init_u64(&entry->first_requested, 0);
	pg_atomic_init_u64(&entry->last_requested, 0);
	pg_atomic_init_u32(&entry->reasons, 0);
	entry->next = *bucket_of(hash);
	*bucket_of(hash) = entry;
	return entry;
}

/* Under the exclusive lock. */
static void
take_away(KcfRefreshEntry *entry)
{
	KcfRefreshEntry **link = bucket_of(entry->hash);

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	kcf_arena_free(&kcf_refreshq->account, entry, size_of(entry->key_len));
}

/* ---- asking -------------------------------------------------------------------------------- */

/* Under the part's lock, in any mode. */
static void
count(KcfRefreshEntry *entry, KcfRefreshReason why, TimestampTz now)
{
	uint64 none = 0;

	(void) pg_atomic_compare_exchange_u64(&entry->first_requested, &none, now);
	pg_atomic_write_u64(&entry->last_requested, now);
	pg_atomic_fetch_or_u32(&entry->reasons, 1U << why);
	pg_atomic_fetch_add_u64(&entry->requests, 1);
}

bool
kcf_refreshq_request(Oid relid, KcfSlice key, KcfRefreshReason why, int64 logged)
{
	uint64 hash = hash_of(MyDatabaseId, relid, key);
	KcfRefreshPart *part = part_of(hash);
	int database = kcf_my_database();
	TimestampTz now = GetCurrentTimestamp();
	bool is_new = false;
	KcfRefreshEntry *entry;

	if (database < 0)
		return false;
	if (why == KCF_REFRESH_READ)
	{
		LWLockAcquire(&part->lock, LW_SHARED);
		entry = find(hash, MyDatabaseId, relid, key);
		if (entry)
			count(entry, why, now);
		LWLockRelease(&part->lock);
		if (entry)
			return true;
	}

	/* Who attaches needs memory of its own; not under a lock. */
	kcf_arena_attach();
	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	entry = find(hash, MyDatabaseId, relid, key);
	if (entry == NULL)
	{
		entry = add(hash, MyDatabaseId, relid, key);
		is_new = true;
	}
	if (entry)
	{
		if (why != KCF_REFRESH_READ)
		{
			uint64 ticket = pg_atomic_fetch_add_u64(&kcf_refreshq->ticket, 1);

			if (entry->ticket == 0)
				entry->ticket = ticket;
		}
		entry->logged = Max(entry->logged, logged);
		count(entry, why, now);
	}
	LWLockRelease(&part->lock);

	if (entry == NULL && why == KCF_REFRESH_READ)
		pg_atomic_fetch_add_u64(&kcf_refreshq->totals[database].dropped, 1);
	if (entry && is_new)
		kcf_refreshers_want(database, 1);
	return entry != NULL;
}

Size
kcf_refreshq_size(KcfSlice key)
{
	return MAXALIGN(size_of(key.len));
}

bool
kcf_refreshq_has_room(Size bytes)
{
	KcfAccount *account = &kcf_refreshq->account;

	return pg_atomic_read_u64(&account->bytes) + bytes <= pg_atomic_read_u64(&account->limit);
}

uint64
kcf_refreshq_ticket(void)
{
	return pg_atomic_read_u64(&kcf_refreshq->ticket);
}

void
kcf_refreshq_walk(Oid dboid, Oid relid, LWLockMode mode,
				  void (*what)(KcfRefreshEntry *entry, void *arg), void *arg)
{
	for (int i = 0; i < KCF_REFRESHQ_PARTS; i++)
	{
		KcfRefreshPart *part = &kcf_refreshq->parts[i];

		LWLockAcquire(&part->lock, mode);
		for (int b = 0; b < KCF_REFRESHQ_BUCKETS; b++)
		{
			KcfRefreshEntry *next;

			for (KcfRefreshEntry *entry = part->buckets[b]; entry; entry = next)
			{
				next = entry->next; /* it may be taken away */
				if (entry->dboid == dboid && (!OidIsValid(relid) || entry->relid == relid))
					what(entry, arg);
			}
		}
		LWLockRelease(&part->lock);
	}
}

static void
least_ticket(KcfRefreshEntry *entry, void *arg)
{
	uint64 *least = arg;

	if (entry->ticket != 0)
		*least = Min(*least, entry->ticket);
	if (entry->claimed_ticket != 0)
		*least = Min(*least, entry->claimed_ticket);
}

uint64
kcf_refreshq_outstanding(Oid relid)
{
	uint64 least = PG_UINT64_MAX;

	kcf_refreshq_walk(MyDatabaseId, relid, LW_SHARED, least_ticket, &least);
	return least;
}

/* ---- choosing ------------------------------------------------------------------------------ */

typedef struct Choice
{
	TimestampTz now;
	TimestampTz next;
	int due;
	bool choose;
} Choice;

/* Who fails does not wait longer because the clock was set back. */
static bool
is_due(const KcfRefreshEntry *entry, TimestampTz now)
{
	return entry->claimed_by == 0 && pg_atomic_read_u64((void *) &entry->requests) > 0 &&
		   (entry->not_before <= now ||
			entry->not_before > TimestampTzPlusMilliseconds(now, BACKOFF_MAX_MS));
}

/*
 * Requests times waiting time: so what was asked for once has its turn, too. Of a key that fails only what the others
 * leave, the less the more often it has failed: a product that fails must not hold up those that do not.
 */
static double
weight(KcfRefreshEntry *entry, TimestampTz now)
{
	TimestampTz first = (TimestampTz) pg_atomic_read_u64(&entry->first_requested);
	double weight = (double) pg_atomic_read_u64(&entry->requests) * (double) Max(now - first, 1);

	for (int i = 0; i < Min(entry->attempts, WEIGHTED_ATTEMPTS); i++)
		weight /= 3;
	return weight;
}

static void
weigh(KcfRefreshEntry *entry, void *arg)
{
	Choice *choice = arg;
	Chosen candidate = { entry->id, entry->hash, 0 };
	int i;

	if (!is_due(entry, choice->now))
	{
		if (entry->claimed_by == 0 && entry->not_before > choice->now &&
			(choice->next == 0 || entry->not_before < choice->next))
			choice->next = entry->not_before;
		return;
	}
	choice->due++;
	if (!choice->choose)
		return;
	candidate.weight = weight(entry, choice->now);
	if (nchosen == NCHOSEN)
	{
		if (candidate.weight <= chosen[0].weight)
			return;
		nchosen--;
		memmove(&chosen[0], &chosen[1], nchosen * sizeof(Chosen));
	}
	for (i = nchosen; i > 0 && chosen[i - 1].weight > candidate.weight; i--)
		chosen[i] = chosen[i - 1];
	chosen[i] = candidate;
	nchosen++;
}

/* Under the exclusive lock: its requests are the claim's now. */
static void
claim_it(KcfRefreshEntry *entry, int number, KcfRefreshClaim *claim)
{
	entry->claimed_by = number + 1;
	entry->claimed_requests = pg_atomic_exchange_u64(&entry->requests, 0);
	entry->claimed_first = (TimestampTz) pg_atomic_exchange_u64(&entry->first_requested, 0);
	entry->claimed_last = (TimestampTz) pg_atomic_read_u64(&entry->last_requested);
	entry->claimed_reasons = pg_atomic_exchange_u32(&entry->reasons, 0);
	entry->claimed_ticket = entry->ticket;
	entry->claimed_logged = entry->logged;
	entry->ticket = 0;
	entry->logged = 0;

	claim->id = entry->id;
	claim->hash = entry->hash;
	claim->relid = entry->relid;
	claim->requests = entry->claimed_requests;
	claim->first_requested = entry->claimed_first;
	claim->last_requested = entry->claimed_last;
	claim->reasons = entry->claimed_reasons;
	claim->attempts = entry->attempts;
	claim->logged = entry->claimed_logged;
}

/* Room for the key is made outside of the lock, so another look may be needed. */
static bool
try_claim(const Chosen *one, int number, TimestampTz now, KcfRefreshClaim *claim)
{
	KcfRefreshPart *part = part_of(one->hash);
	Size room = 256;
	char *key = palloc(room);

	for (;;)
	{
		KcfRefreshEntry *entry;
		Size needed = 0;
		bool claimed = false;

		LWLockAcquire(&part->lock, LW_EXCLUSIVE);
		entry = find_id(one->hash, one->id);
		if (entry && is_due(entry, now))
		{
			needed = entry->key_len;
			if (needed <= room)
			{
				memcpy(key, entry->key, needed);
				claim->key.data = key;
				claim->key.len = needed;
				claim_it(entry, number, claim);
				claimed = true;
			}
		}
		LWLockRelease(&part->lock);
		if (claimed)
			return true;
		pfree(key);
		if (needed == 0)
			return false;
		room = needed;
		key = palloc_extended(room, MCXT_ALLOC_HUGE);
	}
}

bool
kcf_refreshq_claim(int number, KcfRefreshClaim *claim, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	bool fresh = false;

	*next = 0;
	for (;;)
	{
		if (nchosen == 0 || TimestampDifferenceExceeds(chosen_at, now, CHOICE_MS))
		{
			Choice choice = { .now = now, .choose = true };

			if (fresh)
			{
				/* All those just seen have gone to others: there may be more. */
				now = GetCurrentTimestamp();
				choice.now = now;
			}
			nchosen = 0;
			chosen_at = now;
			kcf_refreshq_walk(MyDatabaseId, InvalidOid, LW_SHARED, weigh, &choice);
			*next = choice.next;
			if (nchosen == 0)
				return false;
			fresh = true;
		}
		if (try_claim(&chosen[--nchosen], number, now, claim))
			return true;
	}
}

bool
kcf_refreshq_more(void)
{
	return nchosen > 0;
}

int
kcf_refreshq_due(TimestampTz *next)
{
	Choice choice = { .now = GetCurrentTimestamp() };

	kcf_refreshq_walk(MyDatabaseId, InvalidOid, LW_SHARED, weigh, &choice);
	*next = choice.next;
	return choice.due;
}

/* ---- settling ------------------------------------------------------------------------------ */

/* Under the exclusive lock: what was claimed waits again, with what has come since. */
static void
give_back(KcfRefreshEntry *entry)
{
	pg_atomic_fetch_add_u64(&entry->requests, entry->claimed_requests);
	pg_atomic_write_u64(&entry->first_requested, entry->claimed_first);
	pg_atomic_fetch_or_u32(&entry->reasons, entry->claimed_reasons);
	if (entry->claimed_ticket != 0)
		entry->ticket = entry->claimed_ticket;
	entry->logged = Max(entry->logged, entry->claimed_logged);
	entry->claimed_by = 0;
	entry->claimed_ticket = 0;
	entry->claimed_logged = 0;
}

/* The claim's record, under the lock, which is held then; NULL: it was forgotten. */
static KcfRefreshEntry *
lock_claimed(const KcfRefreshClaim *claim)
{
	KcfRefreshPart *part = part_of(claim->hash);
	KcfRefreshEntry *entry;

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	entry = find_id(claim->hash, claim->id);
	if (entry == NULL || entry->claimed_by == 0)
	{
		LWLockRelease(&part->lock);
		return NULL;
	}
	return entry;
}

static void
add_to_total(pg_atomic_uint64 *(*which)(KcfRefreshCounters *totals))
{
	int database = kcf_my_database();

	if (database >= 0)
		pg_atomic_fetch_add_u64(which(&kcf_refreshq->totals[database]), 1);
}

static pg_atomic_uint64 *
done_of(KcfRefreshCounters *totals)
{
	return &totals->done;
}

static pg_atomic_uint64 *
failed_of(KcfRefreshCounters *totals)
{
	return &totals->failed;
}

void
kcf_refreshq_done(const KcfRefreshClaim *claim)
{
	KcfRefreshEntry *entry = lock_claimed(claim);

	add_to_total(done_of);
	if (entry == NULL)
		return;
	/*
	 * A reader that has asked meanwhile has read the row that was just replaced. All others mean what has changed
	 * since the computation began.
	 */
	if ((pg_atomic_read_u32(&entry->reasons) & ~(1U << KCF_REFRESH_READ)) == 0)
		take_away(entry);
	else
	{
		entry->claimed_by = 0;
		entry->claimed_ticket = 0;
		entry->claimed_logged = 0;
		entry->attempts = 0;
		entry->not_before = 0;
		entry->message[0] = '\0';
	}
	LWLockRelease(&part_of(claim->hash)->lock);
}

void
kcf_refreshq_failed(const KcfRefreshClaim *claim, const char *message, bool blameless)
{
	KcfRefreshEntry *entry = lock_claimed(claim);
	int64 ms = BACKOFF_MIN_MS;

	add_to_total(failed_of);
	if (entry == NULL)
		return;
	if (entry->attempts + 1 >= ATTEMPTS_FOR_READERS && claim->reasons == 1U << KCF_REFRESH_READ &&
		pg_atomic_read_u64(&entry->requests) == 0)
	{
		take_away(entry);
		LWLockRelease(&part_of(claim->hash)->lock);
		return;
	}
	give_back(entry);
	for (int i = 0; i < entry->attempts && ms < BACKOFF_MAX_MS && !blameless; i++)
		ms *= 3;
	entry->attempts++;
	entry->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(ms, BACKOFF_MAX_MS));
	strlcpy(entry->message, message, sizeof(entry->message));
	LWLockRelease(&part_of(claim->hash)->lock);
}

typedef struct Lapse
{
	int number;
	int n;
} Lapse;

static void
lapse(KcfRefreshEntry *entry, void *arg)
{
	Lapse *lapsed = arg;

	if (entry->claimed_by != lapsed->number + 1)
		return;
	give_back(entry);
	lapsed->n++;
}

void
kcf_refreshq_lapse(Oid dboid, int number)
{
	Lapse lapsed = { number, 0 };
	int database = kcf_database_find(dboid);

	kcf_refreshq_walk(dboid, InvalidOid, LW_EXCLUSIVE, lapse, &lapsed);
	if (database >= 0)
		pg_atomic_fetch_add_u64(&kcf_refreshq->totals[database].lapsed, lapsed.n);
}

static void
forget(KcfRefreshEntry *entry, void *arg)
{
	take_away(entry);
}

void
kcf_refreshq_forget(Oid dboid, Oid relid)
{
	int database = kcf_database_find(dboid);

	kcf_arena_attach();
	kcf_refreshq_walk(dboid, relid, LW_EXCLUSIVE, forget, NULL);
	if (database >= 0 && !OidIsValid(relid))
		init_totals(&kcf_refreshq->totals[database]);
}
