/*
 * histogram.c
 *		Durations, counted by how long they were.
 */
#include "postgres.h"

#include "histogram.h"

#define MS(n) ((n) *INT64CONST(1000))
#define S(n) MS((n) *INT64CONST(1000))

const int64 kcf_histogram_bounds[KCF_HISTOGRAM_BOUNDS] = {
	MS(1),   MS(2), MS(5), MS(10), MS(20), MS(50), MS(100), MS(200),
	MS(500), S(1),  S(2),  S(5),   S(10),  S(30),  S(60),   S(300),
};

void
kcf_histogram_init(KcfHistogram *histogram)
{
	for (int i = 0; i <= KCF_HISTOGRAM_BOUNDS; i++)
		pg_atomic_init_u64(&histogram->counts[i], 0);
	pg_atomic_init_u64(&histogram->sum, 0);
}

void
kcf_histogram_add(KcfHistogram *histogram, int64 us, uint64 n)
{
	int i = 0;

	us = Max(us, 0);
	while (i < KCF_HISTOGRAM_BOUNDS && us > kcf_histogram_bounds[i])
		i++;
	pg_atomic_fetch_add_u64(&histogram->counts[i], n);
	pg_atomic_fetch_add_u64(&histogram->sum, us * n);
}
