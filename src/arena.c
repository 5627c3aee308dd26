/*
 * arena.c
 *		The memory of all caches: a DSA in place in the main shared memory segment.
 *
 * The area is created over memory that the postmaster reserved and is limited to exactly that, so
 * it never makes a DSM segment: nothing grows into /dev/shm, huge pages apply, and the server
 * either starts with the whole budget or not at all. An area of one segment has a pleasant
 * property: a dsa_pointer is the distance from the segment's start. So blocks are known by plain
 * pointers, valid in every process, and only those who allocate or free attach.
 */
#include "postgres.h"

#include <sys/mman.h>

#include "arena.h"
#include "guc.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/dsa.h"
#include "utils/memutils.h"

/* DSA hands out blocks above this as whole pages of 4 kB. */
#define ARENA_SMALL 8192
#define ARENA_PAGE 4096
/* The area starts at a huge page's boundary, whether or not there are huge pages. */
#define ARENA_ALIGNMENT (2 * 1024 * 1024)

typedef struct KcfArena
{
	int tranche;           /* set once */
	Size size;             /* set once */
	char *base;            /* set once; the main segment has one address in all processes */
	pg_atomic_uint64 used; /* whoever allocates or frees */
} KcfArena;

static KcfArena *arena = NULL;
static dsa_area *area = NULL; /* this process' */

static Size
arena_bytes(void)
{
	return (Size) kcf_guc_memory * 1024 * 1024;
}

Size
kcf_arena_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(KcfArena)), add_size(arena_bytes(), 2 * ARENA_ALIGNMENT));
}

void
kcf_arena_shmem_init(void)
{
	bool found;
	char *memory;

	/* after a crash the postmaster comes here again, with what it had attached to gone */
	area = NULL;
	arena = ShmemInitStruct("kafka_cache arena control", sizeof(KcfArena), &found);
	memory = ShmemInitStruct("kafka_cache arena", arena_bytes() + ARENA_ALIGNMENT, &found);
	if (!found)
	{
		dsa_area *first;

		arena->tranche = LWLockNewTrancheId();
		arena->size = arena_bytes();
		arena->base = (char *) TYPEALIGN(ARENA_ALIGNMENT, memory);
		pg_atomic_init_u64(&arena->used, 0);
		first = dsa_create_in_place(arena->base, arena->size, arena->tranche, NULL);
		dsa_pin(first);
		dsa_set_size_limit(first, arena->size);
		/* the postmaster itself never allocates */
		dsa_detach(first);
	}
}

void
kcf_arena_attach(void)
{
	MemoryContext old;

	if (area != NULL)
		return;
	LWLockRegisterTranche(arena->tranche, "kafka_cache_arena");
	old = MemoryContextSwitchTo(TopMemoryContext);
	area = dsa_attach_in_place(arena->base, NULL);
	MemoryContextSwitchTo(old);
	dsa_pin_mapping(area);
}

/* What a block really takes, as far as we can know. */
static inline Size
charged(Size size)
{
	return size > ARENA_SMALL ? TYPEALIGN(ARENA_PAGE, size) : MAXALIGN(size);
}

void *
kcf_arena_alloc(KcfAccount *account, Size size)
{
	Size bytes = charged(size);
	uint64 limit = pg_atomic_read_u64(&account->limit);
	dsa_pointer ptr;

	kcf_arena_attach();
	if (limit != 0 && pg_atomic_read_u64(&account->bytes) + bytes > limit)
		return NULL;
	ptr = dsa_allocate_extended(area, size, DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(ptr))
		return NULL;
	pg_atomic_fetch_add_u64(&account->bytes, bytes);
	pg_atomic_fetch_add_u64(&arena->used, bytes);
	return arena->base + ptr;
}

void
kcf_arena_free(KcfAccount *account, void *ptr, Size size)
{
	Size bytes = charged(size);

	kcf_arena_attach();
	Assert((char *) ptr > arena->base && (char *) ptr < arena->base + arena->size);
	dsa_free(area, (dsa_pointer) ((char *) ptr - arena->base));
	pg_atomic_fetch_sub_u64(&account->bytes, bytes);
	pg_atomic_fetch_sub_u64(&arena->used, bytes);
}

void
kcf_arena_populate(void *ptr, Size size)
{
#ifdef MADV_POPULATE_WRITE
	/* a hint: kernels before 5.14 do not know it */
	(void) madvise(ptr, size, MADV_POPULATE_WRITE);
#endif
}

Size
kcf_arena_size(void)
{
	return arena->size;
}

Size
kcf_arena_used(void)
{
	return pg_atomic_read_u64(&arena->used);
}
