/*
 * shmem.h
 *		Reserving the main shared memory that the modules need, and setting it up.
 *
 * Process:  postmaster (and single-user backend) at start.
 * Locks:    AddinShmemInitLock is held around every part's init: it must not take it itself.
 * Memory:   main shared memory segment.
 * Errors:   FATAL when the server cannot start with what is asked for.
 * Waits:    never.
 */
#ifndef KCF_SHMEM_H
#define KCF_SHMEM_H

/*
 * A part: how much it needs, asked once all settings are known, and its set-up with
 * ShmemInitStruct. Parts are set up in the order in which they were added.
 */
extern void kcf_shmem_add(Size (*size)(void), void (*init)(void));
/* From _PG_init, after the last part. */
extern void kcf_shmem_init(void);

#endif /* KCF_SHMEM_H */
