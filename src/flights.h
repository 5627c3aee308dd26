/*
 * flights.h
 *		What has come of computations that others had been waiting for and that the cache cannot tell them.
 *
 * Process:  backends and refreshers.
 * Locks:    one LWLock of its own.
 * Memory:   fixed, main shared memory; the bytes in the arena, a bounded part of it. Results in CurrentMemoryContext.
 * Errors:   none of its own; what does not fit is not told.
 * Waits:    never.
 *
 * Whoever has computed a key leaves a note where somebody waits and the row is not in the cache: it could not be kept,
 * it is not there yet, or the function has failed. The last few notes are remembered, for moments.
 */
#ifndef KCF_FLIGHTS_H
#define KCF_FLIGHTS_H

#include "datatype/timestamp.h"
#include "moment.h"
#include "record.h"

typedef struct KcfFlight
{
	/* the function has failed; 0: it has not */
	int sqlstate;
	const char *message;
	const char *detail; /* NULL: none */
	const char *hint;   /* likewise */

	KcfSlice document;
	int64 timestamp;
	bool kept; /* it is in the topic, at this place */
	int32 partition;
	int64 offset;
} KcfFlight;

extern Size kcf_flights_shmem_size(void);
extern void kcf_flights_shmem_init(void);

/* key: its bytes, as we write them. */
extern void kcf_flights_tell(Oid relid, uint64 hash, const KcfSlice *key, const KcfFlight *flight);
/* The last one of this key that was told after this moment. */
extern bool kcf_flights_find(Oid relid, uint64 hash, const KcfSlice *key, KcfMoment since,
							 KcfFlight *flight);

#endif /* KCF_FLIGHTS_H */
