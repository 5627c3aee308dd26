/*
 * errlog.c
 *		The bad records of one cached table: slots in the arena, found by the identity of their key.
 *
 * The consumer is the only writer, so it looks things up without the lock and takes it only for a
 * change. Records without a usable key have nothing that could heal them: the oldest of those make
 * room when the bound is reached.
 */
#include "postgres.h"

#include "errlog.h"

#include "guc.h"

#include "storage/shmem.h"

#define MIN_CAPACITY 16
#define NONE (-1)

typedef struct Slot
{
	KcfErrorEntry entry;
	int32 older; /* among those without a usable key; in a free slot: the next free one */
	int32 newer;
	bool used;
	bool keyless;
} Slot;

struct KcfErrorLog
{
	LWLock lock;
	KcfAccount *account;
	pg_atomic_uint32 count;
	int capacity; /* slots; the index has twice as many places */
	Slot *slots;
	int32 *index; /* open addressing by identity; NONE: empty */
	int32 free;
	int32 oldest; /* without a usable key */
	int32 newest;
};

typedef struct Shared
{
	int tranche;
} Shared;

static Shared *shared = NULL;

Size
kcf_errlog_shmem_size(void)
{
	return MAXALIGN(sizeof(Shared));
}

void
kcf_errlog_shmem_init(void)
{
	bool found;

	shared = ShmemInitStruct("kafka_cache errors", kcf_errlog_shmem_size(), &found);
	if (!found)
		shared->tranche = LWLockNewTrancheId();
	LWLockRegisterTranche(shared->tranche, "kafka_cache_errors");
}

/* ---- slots and index ----------------------------------------------------------------------- */

static Size
slots_size(int capacity)
{
	return capacity * sizeof(Slot);
}

static Size
index_size(int capacity)
{
	return capacity * 2 * sizeof(int32);
}

static inline bool
has_identity(const uint64 identity[2])
{
	return identity[0] != 0 || identity[1] != 0;
}

static inline uint32
place_of(const KcfErrorLog *log, const uint64 identity[2])
{
	return (uint32) (identity[0] ^ (identity[1] >> 7)) & (log->capacity * 2 - 1);
}

static inline uint32
next_place(const KcfErrorLog *log, uint32 place)
{
	return (place + 1) & (log->capacity * 2 - 1);
}

/* Where this identity is in the index, or the empty place where it would be. */
static uint32
find_place(const KcfErrorLog *log, const uint64 identity[2])
{
	uint32 place = place_of(log, identity);

	while (log->index[place] != NONE)
	{
		const uint64 *other = log->slots[log->index[place]].entry.identity;

		if (other[0] == identity[0] && other[1] == identity[1])
			break;
		place = next_place(log, place);
	}
	return place;
}

/* Take one out, and close the gap for those behind it. */
static void
clear_place(KcfErrorLog *log, uint32 place)
{
	uint32 gap = place;

	log->index[gap] = NONE;
	for (;;)
	{
		uint32 home;

		place = next_place(log, place);
		if (log->index[place] == NONE)
			return;
		home = place_of(log, log->slots[log->index[place]].entry.identity);
		/* may it not move to the gap, because its home lies between the two? */
		if (gap <= place ? (gap < home && home <= place) : (gap < home || home <= place))
			continue;
		log->index[gap] = log->index[place];
		log->index[place] = NONE;
		gap = place;
	}
}

static void
link_newest(KcfErrorLog *log, int32 i)
{
	log->slots[i].older = log->newest;
	log->slots[i].newer = NONE;
	if (log->newest != NONE)
		log->slots[log->newest].newer = i;
	else
		log->oldest = i;
	log->newest = i;
}

static void
unlink_slot(KcfErrorLog *log, int32 i)
{
	Slot *slot = &log->slots[i];

	if (slot->older != NONE)
		log->slots[slot->older].newer = slot->newer;
	else
		log->oldest = slot->newer;
	if (slot->newer != NONE)
		log->slots[slot->newer].older = slot->older;
	else
		log->newest = slot->older;
}

static void
remove_slot(KcfErrorLog *log, int32 i)
{
	Slot *slot = &log->slots[i];

	if (has_identity(slot->entry.identity))
		clear_place(log, find_place(log, slot->entry.identity));
	if (slot->keyless)
		unlink_slot(log, i);
	slot->used = false;
	slot->older = log->free;
	log->free = i;
	pg_atomic_fetch_sub_u32(&log->count, 1);
}

/* Room for twice as many; false: no memory. */
static bool
grow(KcfErrorLog *log)
{
	int capacity = log->capacity ? log->capacity * 2 : MIN_CAPACITY;
	Slot *slots = kcf_arena_alloc(log->account, slots_size(capacity));
	int32 *index = slots ? kcf_arena_alloc(log->account, index_size(capacity)) : NULL;
	Slot *old_slots = log->slots;
	int32 *old_index = log->index;
	int old_capacity = log->capacity;

	if (index == NULL)
	{
		if (slots)
			kcf_arena_free(log->account, slots, slots_size(capacity));
		return false;
	}
	if (old_slots)
		memcpy(slots, old_slots, slots_size(old_capacity));

	LWLockAcquire(&log->lock, LW_EXCLUSIVE);
	log->slots = slots;
	log->index = index;
	log->capacity = capacity;
	for (int i = 0; i < capacity * 2; i++)
		index[i] = NONE;
	for (int i = 0; i < old_capacity; i++)
		if (slots[i].used && has_identity(slots[i].entry.identity))
			index[find_place(log, slots[i].entry.identity)] = i;
	for (int i = capacity - 1; i >= old_capacity; i--)
	{
		slots[i].used = false;
		slots[i].older = log->free;
		log->free = i;
	}
	LWLockRelease(&log->lock);

	if (old_slots)
	{
		kcf_arena_free(log->account, old_slots, slots_size(old_capacity));
		kcf_arena_free(log->account, old_index, index_size(old_capacity));
	}
	return true;
}

/* ---- what others call ---------------------------------------------------------------------- */

KcfErrorLog *
kcf_errlog_create(KcfAccount *account)
{
	KcfErrorLog *log = kcf_arena_alloc(account, sizeof(KcfErrorLog));

	if (log == NULL)
		return NULL;
	memset(log, 0, sizeof(KcfErrorLog));
	LWLockInitialize(&log->lock, shared->tranche);
	pg_atomic_init_u32(&log->count, 0);
	log->account = account;
	log->free = log->oldest = log->newest = NONE;
	return log;
}

void
kcf_errlog_destroy(KcfErrorLog *log, KcfAccount *account)
{
	if (log->slots)
	{
		kcf_arena_free(account, log->slots, slots_size(log->capacity));
		kcf_arena_free(account, log->index, index_size(log->capacity));
	}
	kcf_arena_free(account, log, sizeof(KcfErrorLog));
}

void
kcf_errlog_clear(KcfErrorLog *log)
{
	LWLockAcquire(&log->lock, LW_EXCLUSIVE);
	for (int i = 0; i < log->capacity; i++)
		if (log->slots[i].used)
			remove_slot(log, i);
	LWLockRelease(&log->lock);
}

bool
kcf_errlog_add(KcfErrorLog *log, const KcfErrorEntry *entry)
{
	int32 i = NONE;
	bool full;

	if (log->capacity > 0 && has_identity(entry->identity))
		i = log->index[find_place(log, entry->identity)];
	full = i == NONE && kcf_errlog_count(log) >= kcf_guc_max_errors;
	if (full && log->oldest == NONE)
		return false;
	if (i == NONE && !full && log->free == NONE && !grow(log))
		return false;

	LWLockAcquire(&log->lock, LW_EXCLUSIVE);
	if (i != NONE)
		remove_slot(log, i);
	else if (full)
		remove_slot(log, log->oldest);
	i = log->free;
	log->free = log->slots[i].older;
	log->slots[i].entry = *entry;
	log->slots[i].used = true;
	log->slots[i].keyless = entry->bad_key;
	if (has_identity(entry->identity))
		log->index[find_place(log, entry->identity)] = i;
	if (entry->bad_key)
		link_newest(log, i);
	pg_atomic_fetch_add_u32(&log->count, 1);
	LWLockRelease(&log->lock);
	return true;
}

bool
kcf_errlog_heal(KcfErrorLog *log, const uint64 identity[2])
{
	int32 i;

	if (kcf_errlog_count(log) == 0 || !has_identity(identity))
		return false;
	i = log->index[find_place(log, identity)];
	if (i == NONE)
		return false;
	LWLockAcquire(&log->lock, LW_EXCLUSIVE);
	remove_slot(log, i);
	LWLockRelease(&log->lock);
	return true;
}

int
kcf_errlog_count(const KcfErrorLog *log)
{
	return (int) pg_atomic_read_u32((pg_atomic_uint32 *) &log->count);
}

int
kcf_errlog_read(KcfErrorLog *log, KcfErrorEntry *entries, int room)
{
	int n;
	int k = 0;

	LWLockAcquire(&log->lock, LW_SHARED);
	n = kcf_errlog_count(log);
	for (int i = 0; i < log->capacity && n <= room; i++)
		if (log->slots[i].used)
			entries[k++] = log->slots[i].entry;
	LWLockRelease(&log->lock);
	return n;
}
