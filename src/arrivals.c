/*
 * arrivals.c
 *		How long records take from their timestamps to being visible.
 */
#include "postgres.h"

#include "arrivals.h"

#include "utils/timestamp.h"

#define EPOCH_US ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

void
kcf_arrivals_run(KcfArrivals *arrivals, int64 timestamp)
{
	/* So many times in one turn: they are not of the last milliseconds, and the rest of the turn does not matter. */
	if (arrivals->n == KCF_ARRIVAL_RUNS)
		kcf_arrivals_visible(arrivals);
	arrivals->runs[arrivals->n].timestamp = timestamp;
	arrivals->runs[arrivals->n].records = 1;
	arrivals->n++;
}

void
kcf_arrivals_visible(KcfArrivals *arrivals)
{
	int64 now;

	if (arrivals->n == 0)
		return;
	now = GetCurrentTimestamp() + EPOCH_US;
	for (int i = 0; i < arrivals->n; i++)
	{
		int64 timestamp = arrivals->runs[i].timestamp;

		/* Without one, or from a clock that is ahead of ours. */
		if (timestamp < 0)
			continue;
		kcf_histogram_add(arrivals->histogram, timestamp < now / 1000 ? now - timestamp * 1000 : 0,
						  arrivals->runs[i].records);
	}
	arrivals->n = 0;
}
