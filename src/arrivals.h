/*
 * arrivals.h
 *		How long records take from their timestamps to being visible.
 *
 * Process:  a consumer worker.
 * Locks:    none.
 * Memory:   the caller's; about 16 kB.
 * Errors:   none.
 * Waits:    never.
 *
 * When a record is passed nobody knows yet when it becomes visible: its timestamp is kept until the
 * next publish. Kafka's timestamps are milliseconds, so those of neighbors are mostly equal, and are
 * kept once.
 */
#ifndef KCF_ARRIVALS_H
#define KCF_ARRIVALS_H

#include "histogram.h"

#define KCF_ARRIVAL_RUNS 1000

typedef struct KcfArrivals
{
	KcfHistogram *histogram;
	int n;
	struct
	{
		int64 timestamp; /* Kafka's, milliseconds */
		int64 records;
	} runs[KCF_ARRIVAL_RUNS];
} KcfArrivals;

/* The first record with this timestamp. */
extern void kcf_arrivals_run(KcfArrivals *arrivals, int64 timestamp);
/* All that was passed is visible now. */
extern void kcf_arrivals_visible(KcfArrivals *arrivals);

/* A record was passed. */
static inline void
kcf_arrivals_pass(KcfArrivals *arrivals, int64 timestamp)
{
	if (likely(arrivals->n > 0 && arrivals->runs[arrivals->n - 1].timestamp == timestamp))
		arrivals->runs[arrivals->n - 1].records++;
	else
		kcf_arrivals_run(arrivals, timestamp);
}

#endif /* KCF_ARRIVALS_H */
