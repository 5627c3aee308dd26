/*
 * shmem.c
 *		Reserving the main shared memory that the modules need, and setting it up.
 *
 * Nothing is known here of what lies in the parts, so this file stands below all of them.
 */
#include "postgres.h"

#include "shmem.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define MAX_PARTS 16

typedef struct Part
{
	Size (*size)(void);
	void (*init)(void);
} Part;

static Part parts[MAX_PARTS];
static int nparts;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

void
kcf_shmem_add(Size (*size)(void), void (*init)(void))
{
	if (nparts == MAX_PARTS)
		elog(FATAL, "too many parts of shared memory");
	parts[nparts].size = size;
	parts[nparts].init = init;
	nparts++;
}

static void
request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	for (int i = 0; i < nparts; i++)
		RequestAddinShmemSpace(parts[i].size());
}

static void
startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nparts; i++)
		parts[i].init();
	LWLockRelease(AddinShmemInitLock);
}

void
kcf_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}
