/*
 * product.h
 *		Data products: how old a row is, what is done where it is missing, and how what was computed is kept.
 *
 * Process:  backends and refreshers.
 * Locks:    a heavyweight lock for each key that is being computed; the registry lock, shared, for a moment.
 * Memory:   answers in CurrentMemoryContext but where said.
 * Errors:   what the product's function raises; P0002 where nothing is computed on a miss; those of pending.h where a
 *           row has to be kept.
 * Waits:    for others that compute the same key, as for any lock; for the broker and the cache, a few seconds.
 *
 * A key is computed once, however many sessions of the server ask: a flight. Who leads it holds its lock exclusively,
 * the others wait for it and then look at what has come of it. Where a leader ends without a word, one of them leads.
 */
#ifndef KCF_PRODUCT_H
#define KCF_PRODUCT_H

#include "catalog_product.h"
#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "store.h"

/* ---- age ---- */

typedef enum KcfAge
{
	KCF_AGE_FRESH,
	KCF_AGE_STALE,  /* shown, and refreshed meanwhile */
	KCF_AGE_EXPIRED /* as good as none */
} KcfAge;

#define KCF_UNIX_TO_POSTGRES_MS                                                                    \
	(((int64) POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

/* Milliseconds of the time of day, as records have it. */
static inline int64
kcf_product_millis(TimestampTz time)
{
	return time / 1000 + KCF_UNIX_TO_POSTGRES_MS;
}

/* Of what was computed at this time, to a statement that began at this one. */
static inline KcfAge
kcf_product_age_at(const KcfTableOptions *options, bool nothing, int64 computed_ms, int64 now_ms)
{
	int64 age = now_ms - computed_ms;

	if (unlikely(nothing) && age > options->negative_ttl)
		return KCF_AGE_EXPIRED;
	if (options->hard_ttl != 0 && age > options->hard_ttl)
		return KCF_AGE_EXPIRED;
	return options->soft_ttl != 0 && age > options->soft_ttl ? KCF_AGE_STALE : KCF_AGE_FRESH;
}

/* now: GetCurrentStatementStartTimestamp() */
static inline KcfAge
kcf_product_age(const KcfTableDef *def, const KcfRow *row, TimestampTz now)
{
	uint64 flags = kcf_row_flags(row) & KCF_ROW_NOTHING;

	/* One that could not be decoded is computed anew. */
	if (unlikely(flags == KCF_ROW_ERROR || flags == KCF_ROW_TOMBSTONE))
		return KCF_AGE_EXPIRED;
	return kcf_product_age_at(def->options, flags == KCF_ROW_NOTHING, row->timestamp,
							  kcf_product_millis(now));
}

/* ---- answers ---- */

typedef struct KcfAnswer
{
	bool found;    /* false: the function has nothing for the key */
	Datum *values; /* [desc->natts] where found, else NULL */
	bool *isnull;
	int32 partition; /* -1: it is in no record, or not known in which */
	int64 offset;
	int64 timestamp; /* when it was computed, milliseconds */
	bool computed;   /* by us, for this answer */
	bool kept;       /* it is in the topic */
} KcfAnswer;

/*
 * A miss: what somebody else has computed meanwhile, or what we compute. since: the start of the statement, to which
 * the answer is not too old. Where it cannot be kept the answer is as good, and there is a WARNING.
 */
extern void kcf_product_prime(KcfTableDef *def, const Datum *key, TimestampTz since,
							  KcfAnswer *answer);
/*
 * The same for a statement, which gets the same answer each time that it asks (in a transaction with a fixed snapshot:
 * that transaction). Its memory is work_mem; beyond it keys are asked for anew. The answer is good until the statement
 * ends, or until CurrentMemoryContext is reset: whichever is first.
 */
extern void kcf_product_answer(EState *estate, KcfTableDef *def, const Datum *key, uint64 hash,
							   TimestampTz since, KcfAnswer *answer);
/*
 * What is there of a key now, however old; false: nothing, it was never computed or was purged. A row of "nothing" is
 * there and is not found.
 */
extern bool kcf_product_look(KcfTableDef *def, const Datum *key, KcfAnswer *answer);

/* ---- refreshing ---- */

/*
 * Compute anew and keep it, or an error. false: not done, as there is a row that was computed later than this
 * (milliseconds; PG_INT64_MAX: whatever is there), by whomever.
 */
extern bool kcf_product_refresh(KcfTableDef *def, const Datum *key, int64 unless_newer_than_ms);
/*
 * Replace the row of a key, which may not be missing nor nothing (then: false), by what the function makes of it. It
 * stays as old as it was: a refresh that is due remains due.
 */
typedef KcfSlice (*KcfProductChange)(KcfTableDef *def, const Datum *key, const KcfAnswer *old,
									 void *arg);
extern bool kcf_product_change(KcfTableDef *def, const Datum *key, KcfProductChange change,
							   void *arg);

/* ---- keeping ---- */

/*
 * Nobody else computes or puts this key in between, on this server; waits for who does. Taken away with the resource
 * owner where an error comes between. May be nested.
 */
extern void kcf_product_lock(KcfTableDef *def, const Datum *key);
extern void kcf_product_unlock(KcfTableDef *def, const Datum *key);

/*
 * A record of this key, sent as this user: a value, or (data NULL) a tombstone. Waits until the cache has passed it, a
 * second at most. Its offset. kept NULL: it is the session's own write, errors as pending.h has them; else it is a
 * computed row, of which nothing but *kept tells that it could not be kept (then the offset is -1).
 */
extern int64 kcf_product_put(KcfTableDef *def, Oid userid, const Datum *key, KcfSlice value,
							 int64 timestamp, bool *kept);

/* ---- figures ---- */

/* Microseconds that this process has waited for computed rows to be kept. */
extern int64 kcf_product_kept_us;
/* After an error of kcf_product_refresh: it was about that, and not the product's function's. */
extern bool kcf_product_keeping;
/* What a scan has seen of a product, added to its counters. */
extern void kcf_product_count(Oid relid, int64 hits, int64 misses, int64 stale);

#endif /* KCF_PRODUCT_H */
