/*
 * pending_product.c
 *		Own writes to data products, between which and the computations of the same keys one comes first.
 *
 * A computation that began before the write must not be kept after it: so the write waits for it, as others who want the
 * key do, and is in the cache before anybody computes again.
 */
#include "postgres.h"

#include "pending_internal.h"

#include "flights.h"
#include "written.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

/* Who writes more keys at once is not protected: the server's lock table has other uses. */
#define MAX_KEYS 1000
/* The cache is given so long to show them. */
#define PASSING_MS 1000

/* Frames of products; too many: 0. */
static int
count_keys(const KcfPending *log)
{
	uint64 count = 0;

	for (int i = 0; i < log->ntargets; i++)
		count += log->targets[i].product ? log->targets[i].records : 0;
	return count > MAX_KEYS ? 0 : (int) count;
}

static int
compare_keys(const void *a, const void *b)
{
	const KcfPendingKey *left = a;
	const KcfPendingKey *right = b;

	if (left->relid != right->relid)
		return left->relid < right->relid ? -1 : 1;
	return left->hash < right->hash ? -1 : left->hash > right->hash;
}

KcfPendingKey *
kcf_pending_lead(KcfPending *log, int *nkeys)
{
	KcfPendingReader reader;
	KcfPendingKey *keys;
	const char *piece;
	Size len;
	int n = 0;

	*nkeys = 0;
	if (log->patience_ms > 0)
		return NULL;
	kcf_pending_recount(log);
	if (count_keys(log) == 0)
		return NULL;
	keys = palloc(count_keys(log) * sizeof(KcfPendingKey));
	kcf_pending_reader_begin(&reader, log);
	while ((piece = kcf_pending_reader_next(&reader, &len)) != NULL)
	{
		for (Size at = 0; at < len;)
		{
			const KcfFrame *frame = (const KcfFrame *) (piece + at);
			const KcfPendingTarget *target = &log->targets[frame->target];

			if (target->product)
				keys[n++] = (KcfPendingKey){ target->relid, frame->key_hash };
			at += frame->size;
		}
	}
	kcf_pending_reader_end(&reader);
	/* In one order, so that two who write the same keys do not wait for each other. */
	qsort(keys, n, sizeof(KcfPendingKey), compare_keys);
	for (int i = 0; i < n; i++)
		kcf_flight_lead(keys[i].relid, keys[i].hash);
	*nkeys = n;
	return keys;
}

void
kcf_pending_land(const KcfPendingKey *keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
		kcf_flight_land(keys[i].relid, keys[i].hash);
}

/* What was written is, and cannot be cancelled any more. */
void
kcf_pending_show(const KcfPending *log)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PASSING_MS);

	HOLD_INTERRUPTS();
	for (int i = 0; i < log->ntargets; i++)
	{
		const KcfPendingTarget *target = &log->targets[i];
		KcfTable *table = kcf_table_find(MyDatabaseId, target->relid);
		int32 partition;
		int64 offset;
		int64 position;

		if (!target->product || target->records == 0 || table == NULL)
			continue;
		while (
			kcf_written_behind(target->relid, target->wire.topic, &partition, &offset, &position) &&
			kcf_table_wait_passed(table, target->relid, partition, offset,
								  TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline)))
			;
	}
	RESUME_INTERRUPTS();
}
