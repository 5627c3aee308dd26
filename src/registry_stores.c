/*
 * registry_stores.c
 *		Which of a table's stores a reader sees.
 *
 * A store is reachable from three places: the generations (what readers look up), "loading" (what
 * the consumer fills) and "retired" (no more served, perhaps pinned). One that is retired may still
 * be found among the generations by readers of older sequences; when the last pin is gone it leaves
 * both. Pointers change under the exclusive registry lock, so who holds it shared may follow them
 * without a pin, as the views do.
 */
#include "postgres.h"

#include "registry.h"

#include "miscadmin.h"

KcfStore *
kcf_table_store(KcfTable *table, uint64 fingerprint, KcfSeq seq)
{
	for (;;)
	{
		uint32 before = pg_atomic_read_u32(&table->gen_version);
		KcfStore *store = NULL;

		pg_read_barrier();
		for (int i = 0; i < KCF_GENERATIONS; i++)
		{
			KcfGeneration gen = table->gens[i];

			/* since 0 is the unused end of the array */
			if (gen.since != 0 && gen.since <= seq)
			{
				if (gen.fingerprint == fingerprint)
					store = gen.store;
				break;
			}
		}
		pg_read_barrier();
		if ((before & 1) == 0 && pg_atomic_read_u32(&table->gen_version) == before)
			return store;
		CHECK_FOR_INTERRUPTS();
		pg_spin_delay();
	}
}

void
kcf_table_load(KcfTable *table, KcfStore *store, uint64 fingerprint)
{
	KcfStore *old;

	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	old = table->loading;
	table->loading = store;
	table->loading_fingerprint = fingerprint;
	LWLockRelease(kcf_registry_lock);
	if (old == NULL || old == store)
		return;
	kcf_table_set_partitions(table, &table->load, 0);
	if (kcf_pins_any(table->database))
	{
		KcfDiscarded *discarded = kcf_store_discarded(old);

		discarded->until = kcf_clock_published(table->database, table->clock) + 1;
		discarded->next = table->discarded;
		table->discarded = old;
	}
	else
		kcf_store_destroy(old, &table->account);
}

/* Under the exclusive lock. */
static int
retired_places(const KcfTable *table)
{
	int places = 0;

	for (int i = 0; i < (int) KCF_NRETIRED; i++)
		places += table->retired[i].store == NULL ? 1 : 0;
	return places;
}

/* Under the exclusive lock, with a place: the newest generation is served until then only. */
static void
retire_newest(KcfTable *table, KcfSeq until)
{
	for (int i = 0; i < (int) KCF_NRETIRED && table->gens[0].store; i++)
	{
		if (table->retired[i].store == NULL)
		{
			table->retired[i].store = table->gens[0].store;
			table->retired[i].until = until;
			break;
		}
	}
}

/* Under the exclusive lock and an odd gen_version. */
static void
push(KcfTable *table, KcfStore *store, KcfSeq since, uint64 fingerprint)
{
	/* What never could be seen takes no place. */
	if (table->gens[0].since != since)
		memmove(&table->gens[1], &table->gens[0], (KCF_GENERATIONS - 1) * sizeof(KcfGeneration));
	table->gens[0].store = store;
	table->gens[0].since = since;
	table->gens[0].fingerprint = fingerprint;
}

bool
kcf_table_serve(KcfTable *table, KcfStore *store, KcfSeq since, uint64 fingerprint)
{
	bool done = false;
	KcfPartitions old = { 0 };

	Assert(since > 0 && store != NULL);
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	/* A served store has a place among the retired reserved: withdrawing cannot wait. */
	if (table->gens[KCF_GENERATIONS - 1].store == NULL &&
		retired_places(table) >= (table->gens[0].store ? 2 : 1))
	{
		retire_newest(table, since);
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
		push(table, store, since, fingerprint);
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
		if (table->loading == store)
		{
			table->loading = NULL;
			old = table->followed;
			table->followed = table->load;
			memset(&table->load, 0, sizeof(KcfPartitions));
		}
		done = true;
	}
	LWLockRelease(kcf_registry_lock);
	kcf_table_free_partitions(table, &old);
	return done;
}

void
kcf_table_withdraw(KcfTable *table, KcfSeq since)
{
	LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
	if (table->gens[0].store != NULL)
	{
		retire_newest(table, since);
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
		push(table, NULL, since, 0);
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
	}
	LWLockRelease(kcf_registry_lock);
	kcf_table_set_partitions(table, &table->followed, 0);
}

bool
kcf_table_shows_followed(KcfTable *table)
{
	return table->gens[0].since <= kcf_clock_published(table->database, table->clock);
}

bool
kcf_table_is_served(KcfTable *table)
{
	/* Its newest generation is published, or the consumer would not have told anybody of it. */
	return *(KcfStore *volatile *) &table->gens[0].store != NULL;
}

bool
kcf_table_sweep(KcfTable *table, KcfSeq min_pinned)
{
	bool left = false;

	for (int i = 0; i < (int) KCF_NRETIRED; i++)
	{
		KcfStore *store = table->retired[i].store;

		if (store == NULL)
			continue;
		if (table->retired[i].until > min_pinned)
		{
			left = true;
			continue;
		}
		LWLockAcquire(kcf_registry_lock, LW_EXCLUSIVE);
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
		for (int g = 0; g < KCF_GENERATIONS; g++)
		{
			if (table->gens[g].store == store)
				memset(&table->gens[g], 0, sizeof(KcfGeneration));
		}
		pg_atomic_fetch_add_u32(&table->gen_version, 1);
		table->retired[i].store = NULL;
		LWLockRelease(kcf_registry_lock);
		kcf_store_destroy(store, &table->account);
	}
	for (KcfStore **link = &table->discarded; *link != NULL;)
	{
		KcfStore *store = *link;
		KcfDiscarded *discarded = kcf_store_discarded(store);

		if (discarded->until > min_pinned)
		{
			left = true;
			link = &discarded->next;
			continue;
		}
		*link = discarded->next;
		kcf_store_destroy(store, &table->account);
	}
	return left;
}
