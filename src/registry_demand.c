/*
 * registry_demand.c
 *		Workers that are there on demand: wanting them, and no more.
 *
 * A wish is written down before the workers are looked for, and one who leaves takes it back before it looks at what
 * there is to do for the last time. So whoever wishes finds a worker that will look, or the launcher starts one.
 */
#include "postgres.h"

#include "registry.h"

#include "storage/latch.h"

/* ---- the producer ---- */

void
kcf_producer_want(int database)
{
	KcfDatabase *db = kcf_database(database);
	bool there = false;

	/* A full barrier: what it is wanted for is there when it looks, see kcf_lane_close_all. */
	(void) pg_atomic_exchange_u32(&db->producer_wanted, 1);
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (db->workers[KCF_WORKER_PRODUCER].pid != 0)
	{
		SetLatch(db->workers[KCF_WORKER_PRODUCER].latch);
		there = true;
	}
	LWLockRelease(kcf_registry_lock);
	/* One that is about to leave wakes the launcher when it is gone. */
	if (!there)
		kcf_launcher_wake();
}

void
kcf_producer_unwant(int database)
{
	(void) pg_atomic_exchange_u32(&kcf_database(database)->producer_wanted, 0);
}

bool
kcf_producer_wanted(int database)
{
	return pg_atomic_read_u32(&kcf_database(database)->producer_wanted) != 0;
}

/* ---- refreshers ---- */

void
kcf_refreshers_want(int database, int n)
{
	KcfDatabase *db = kcf_database(database);
	uint32 wanted = pg_atomic_read_u32(&db->refreshers_wanted);
	int missing = n;

	/* As for the producer: exchanged at least once, for the sake of the barrier. */
	while (
		!pg_atomic_compare_exchange_u32(&db->refreshers_wanted, &wanted, Max(wanted, (uint32) n)))
		;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	for (int i = KCF_WORKER_REFRESHER; i < KCF_MAX_WORKERS; i++)
	{
		if (db->workers[i].pid != 0)
		{
			SetLatch(db->workers[i].latch);
			missing--;
		}
	}
	LWLockRelease(kcf_registry_lock);
	if (missing > 0)
		kcf_launcher_wake();
}

int
kcf_refreshers_wanted(int database)
{
	return (int) pg_atomic_read_u32(&kcf_database(database)->refreshers_wanted);
}

bool
kcf_refresher_unwant(int database, int number)
{
	uint32 wanted = (uint32) number + 1;

	return pg_atomic_compare_exchange_u32(&kcf_database(database)->refreshers_wanted, &wanted,
										  (uint32) number) ||
		   wanted <= (uint32) number;
}
