/*
 * arena.h
 *		The memory of all caches: one area in the main shared memory segment, hard-limited and accounted.
 *
 * Process:  consumers allocate and free; backends only follow pointers.
 * Locks:    the area's own; callers need none.
 * Memory:   shared, at one address in every process, so plain pointers may be stored in it.
 * Errors:   kcf_arena_alloc returns NULL when there is no room; nothing throws.
 * Waits:    on the area's lock, briefly.
 */
#ifndef KCF_ARENA_H
#define KCF_ARENA_H

#include "port/atomics.h"

/* Bytes charged to one cached table. Writer: its consumer. Anyone may read. */
typedef struct KcfAccount
{
	pg_atomic_uint64 bytes;
	pg_atomic_uint64 limit; /* max_bytes; 0: only the arena's own limit */
} KcfAccount;

extern Size kcf_arena_shmem_size(void);
extern void kcf_arena_shmem_init(void);
/* Attach this process (idempotent; the first use does it too). */
extern void kcf_arena_attach(void);
/*
 * NULL: over the account's limit, or the arena is full. Contents are undefined. A block of more
 * than 8 kB lies at a multiple of 4 kB.
 */
extern void *kcf_arena_alloc(KcfAccount *account, Size size);
extern void kcf_arena_free(KcfAccount *account, void *ptr, Size size);
/*
 * Touch the pages of a part of a block at once, which is cheaper than one by one. For what is
 * going to be filled anyway; ptr lies at a multiple of 4 kB.
 */
extern void kcf_arena_populate(void *ptr, Size size);
/* For views: total size of the arena and bytes handed out. */
extern Size kcf_arena_size(void);
extern Size kcf_arena_used(void);

#endif /* KCF_ARENA_H */
