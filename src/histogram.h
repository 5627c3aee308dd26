/*
 * histogram.h
 *		Durations, counted by how long they were.
 *
 * Process:  any.
 * Locks:    none; atomics. A reader may find a duration counted that is not in the sum yet.
 * Memory:   the caller's, in shared memory.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_HISTOGRAM_H
#define KCF_HISTOGRAM_H

#include "port/atomics.h"

#define KCF_HISTOGRAM_BOUNDS 16

typedef struct KcfHistogram
{
	/* by the first bound that is not less; the last one: beyond all of them */
	pg_atomic_uint64 counts[KCF_HISTOGRAM_BOUNDS + 1];
	pg_atomic_uint64 sum; /* microseconds */
} KcfHistogram;

/* Microseconds, rising. */
extern const int64 kcf_histogram_bounds[KCF_HISTOGRAM_BOUNDS];

extern void kcf_histogram_init(KcfHistogram *histogram);
/* n durations of so many microseconds; what is negative counts as none. */
extern void kcf_histogram_add(KcfHistogram *histogram, int64 us, uint64 n);

#endif /* KCF_HISTOGRAM_H */
