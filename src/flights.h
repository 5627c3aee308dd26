/*
 * flights.h
 *		Flights: at most one session of the server computes or puts a key of a product; what comes of it is told.
 *
 * Process:  backends and refreshers.
 * Locks:    a heavyweight lock for each flight; one LWLock of its own for the notes.
 * Memory:   fixed, main shared memory; the bytes in the arena, a bounded part of it. Results in CurrentMemoryContext.
 * Errors:   those of waiting for a lock; none of its own, what does not fit is not told.
 * Waits:    as for any lock: deadlocks are found, lock_timeout and cancelling end it.
 *
 * A flight's lock is one of the server's own, of the kind that users' advisory locks are of, but none of theirs.
 * It goes with the resource owner where an error comes. Whoever has computed a key leaves a note where somebody waits and the row is not in the cache: it could not be kept,
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

/* ---- who leads ---- */

/* hash: of the key. false: somebody leads, or waits to. */
extern bool kcf_flight_try_lead(Oid relid, uint64 hash);
extern void kcf_flight_lead(Oid relid, uint64 hash);
/* Who leads has landed. */
extern void kcf_flight_land(Oid relid, uint64 hash);
/* Until whoever leads has landed. All who wait so are woken at once. */
extern void kcf_flight_await(Oid relid, uint64 hash);
/* Who leads asks: does anybody wait? */
extern bool kcf_flight_is_awaited(Oid relid, uint64 hash);

/* ---- notes ---- */

/* key: its bytes, as we write them. */
extern void kcf_flights_tell(Oid relid, uint64 hash, const KcfSlice *key, const KcfFlight *flight);
/* The last one of this key that was told after this moment. */
extern bool kcf_flights_find(Oid relid, uint64 hash, const KcfSlice *key, KcfMoment since,
							 KcfFlight *flight);

#endif /* KCF_FLIGHTS_H */
