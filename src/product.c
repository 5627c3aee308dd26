/*
 * product.c
 *		Data products: who computes a key, and what becomes of it.
 *
 * A flight has a heavyweight lock. So whoever waits for a computation is seen by the deadlock detector, heeds
 * statement_timeout and lock_timeout, can be cancelled, and goes on when the leader is gone, however that came. Waiters
 * ask for it in share mode: when the leader is done all of them are woken at once and look into the newest state of the
 * cache. Only who finds nothing there asks for the exclusive lock, to lead.
 *
 * A record's time is that of the moment when its computation began: no change before it is missing in it. So the row
 * of a computation that took long does not replace one that began after it.
 */
#include "postgres.h"

#include "product_internal.h"

#include "compat.h"
#include "flights.h"
#include "product_compute.h"
#include "product_fit.h"
#include "refreshq.h"
#include "rowmap.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A note of a record that the cache does not show is good for so long: by then the topic may be another one. */
#define NOTE_US (60 * INT64CONST(1000000))
/* Clocks of servers differ: a record is not from a later time than this. */
#define FUTURE_MS 60000

/* ---- the lock of a flight ---- */

static void
lead(const KcfProductKey *key)
{
	kcf_flight_lead(key->def->relid, key->hash);
}

static void
land(const KcfProductKey *key)
{
	kcf_flight_land(key->def->relid, key->hash);
}

static bool
somebody_waits(const KcfProductKey *key)
{
	return kcf_flight_is_awaited(key->def->relid, key->hash);
}

void
kcf_product_lock(KcfTableDef *def, const Datum *values)
{
	KcfProductKey key;

	kcf_product_key(def, values, &key);
	lead(&key);
}

void
kcf_product_unlock(KcfTableDef *def, const Datum *values)
{
	KcfProductKey key;

	kcf_product_key(def, values, &key);
	land(&key);
}

/* ---- what others have to say ---- */

/* Would it be the same in any session? Not what concerns this backend, its transaction, or its luck. */
static bool
is_of_function(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'): /* connections */
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'): /* states of transactions */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'): /* rollbacks */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'): /* resources */
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'): /* limits */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'): /* locks, and what is not ready */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'): /* interventions */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'): /* errors of the system */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'): /* snapshots */
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return false;
		default:
			return sqlstate != ERRCODE_INVALID_RECURSION;
	}
}

static void
tell_failure(const KcfProductKey *key, const ErrorData *error)
{
	KcfFlight flight = { .sqlstate = error->sqlerrcode,
						 .message = error->message ? error->message : "",
						 .detail = error->detail,
						 .hint = error->hint };

	kcf_flights_tell(key->def->relid, key->hash, &key->bytes, &flight);
}

static void
tell_answer(const KcfProductKey *key, const KcfSlice *document, const KcfAnswer *answer)
{
	KcfFlight flight = { .document = *document,
						 .timestamp = answer->timestamp,
						 .kept = answer->kept,
						 .partition = answer->partition,
						 .offset = answer->offset };

	kcf_flights_tell(key->def->relid, key->hash, &key->bytes, &flight);
}

pg_noreturn static void
report_failure(const KcfFlight *flight)
{
	ereport(ERROR, (errcode(flight->sqlstate), errmsg_internal("%s", flight->message),
					flight->detail ? errdetail_internal("%s", flight->detail) : 0,
					flight->hint ? errhint("%s", flight->hint) : 0,
					errcontext("computation of the same key by another session")));
}

/*
 * Something was told since we began to wait: an answer, or an error. Or (when we have not waited) there is a note of a
 * record that is in the topic, and that the cache does not show yet, as it is busy.
 */
static bool
heard(const KcfProductKey *key, KcfMoment since, TimestampTz statement, KcfAnswer *answer)
{
	KcfFlight flight;

	if (!kcf_flights_find(key->def->relid, key->hash, &key->bytes,
						  since != 0 ? since : kcf_moment_now() - NOTE_US, &flight))
		return false;
	if (since == 0 &&
		(flight.sqlstate != 0 || !flight.kept ||
		 kcf_table_has_passed(key->table, key->def->relid, flight.partition, flight.offset)))
		return false;
	if (flight.sqlstate != 0)
		report_failure(&flight);
	if (kcf_product_age_at(key->def->options, kcf_document_is_null(&flight.document),
						   flight.timestamp, kcf_product_millis(statement)) == KCF_AGE_EXPIRED)
		return false;
	kcf_product_decode(key, &flight.document, flight.timestamp, answer);
	if (flight.kept)
		kcf_product_place(key, answer, flight.partition, flight.offset);
	else
		kcf_product_warn(key, "Kafka could not be written to.");
	return true;
}

/* ---- computing ---- */

static void
count(const KcfProductKey *key, size_t counter)
{
	if (key->table)
		pg_atomic_fetch_add_u64((pg_atomic_uint64 *) ((char *) &key->table->product + counter), 1);
}

#define COUNT(key, what) count(key, offsetof(KcfProductCounters, what))

/*
 * What the transaction has written shows in what it computes, and may never be committed: then it is nobody else's
 * answer. What functions write that compute is theirs.
 */
static struct
{
	LocalTransactionId transaction;
	CommandId command; /* up to here nothing was written but by computations */
} clean;

/* What the present command has written is seen by the next one, which the computation may be. */
bool
kcf_product_is_clean(void)
{
	CommandId command = clean.transaction == kcf_my_transaction() ? clean.command : FirstCommandId;

	if (GetCurrentCommandId(false) != command)
		return false;
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return true;
	if (IsInParallelMode())
		return false;
	/* It counts only where something was written. */
	CommandCounterIncrement();
	return GetCurrentCommandId(false) == command;
}

static void
stay_clean(void)
{
	CommandCounterIncrement();
	clean.transaction = kcf_my_transaction();
	clean.command = GetCurrentCommandId(false);
}

/*
 * Of when is what is computed now? A function that only reads gets a snapshot of its own, unless there are parallel
 * workers; one that writes has the transaction's, and a fixed one is as old as that.
 */
static int64
moment_of_computing(const KcfProductKey *key)
{
	bool old = IsInParallelMode() ||
			   (IsolationUsesXactSnapshot() && !kcf_catalog_product(key->def)->reads_only);

	return kcf_product_millis(old ? GetCurrentTransactionStartTimestamp() : GetCurrentTimestamp());
}

/* May what is computed now be kept, and shown to others? */
static bool
may_keep(const KcfProductKey *key)
{
	int64 now = kcf_product_millis(GetCurrentTimestamp());

	return kcf_product_is_clean() &&
		   kcf_product_age_at(key->def->options, false, moment_of_computing(key), now) ==
			   KCF_AGE_FRESH;
}

/* The function's answer, as a document and as a row. Others are told of an error where we lead. */
static void
compute(const KcfProductKey *key, bool leads, KcfSlice *document, KcfAnswer *answer)
{
	MemoryContext mcxt = CurrentMemoryContext;
	bool was_clean = kcf_product_is_clean();

	PG_TRY();
	{
		int64 began = moment_of_computing(key);

		*document = kcf_product_compute(key->def, key->values);
		kcf_product_decode(key, document, began, answer);
	}
	PG_CATCH();
	{
		COUNT(key, failed);
		if (leads && is_of_function(geterrcode()) && somebody_waits(key))
		{
			ErrorData *error;

			MemoryContextSwitchTo(mcxt);
			error = CopyErrorData();
			tell_failure(key, error);
			FreeErrorData(error);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (was_clean)
		stay_clean();
	COUNT(key, computed);
	answer->computed = true;
}

/*
 * Has somebody on another server written or purged the key while we computed? Who has only missed it takes what is
 * there, who refreshes it takes only what is newer.
 */
static bool
is_overtaken(const KcfProductKey *key, const KcfNewest *before, const KcfNewest *after,
			 TimestampTz since, int64 began)
{
	if (after->presence == KCF_ABSENT)
		return before->presence != KCF_ABSENT;
	if (after->offset == before->offset && after->partition == before->partition)
		return false;
	if (since != 0)
		return kcf_product_is_good(key, after, since);
	return after->timestamp > began &&
		   after->timestamp <= kcf_product_millis(GetCurrentTimestamp()) + FUTURE_MS;
}

/*
 * All that is cached was to be refreshed, after we had begun: then who asked for that has not seen our row, which is
 * to be refreshed, too. seen: when it was asked for last. false: it cannot be.
 */
static bool
follow_others(const KcfProductKey *key, int64 began, int64 *seen)
{
	int64 until = key->table ? (int64) pg_atomic_read_u64(&key->table->refresh_until) : 0;
	bool news = until != *seen;

	*seen = until;
	return !news || began > until ||
		   kcf_refreshq_request(key->def->relid, key->bytes, KCF_REFRESH_RULE, 0);
}

/* We lead: compute, keep, tell. before: what there is. since: of the statement that has missed it; 0: it is refreshed. */
static void
fly(const KcfProductKey *key, const KcfNewest *before, TimestampTz since, KcfAnswer *answer)
{
	KcfWritten written = { .partition = -1, .offset = -1 };
	KcfSlice document;
	KcfNewest after;
	KcfAnswer other;
	int64 until = 0;
	bool kept;
	bool passed = false;

	compute(key, true, &document, answer);
	kcf_product_newest(key, &after, &other);
	if (is_overtaken(key, before, &after, since, answer->timestamp))
	{
		/* What was purged is not to come back; what was put is newer than what we know. */
		if (after.presence == KCF_PRESENT || after.presence == KCF_NOTHING)
			*answer = other;
		answer->computed = true;
		return;
	}
	/* Before it can be read, since we may be cancelled; and again, when it is seen. */
	kept = (follow_others(key, answer->timestamp, &until) || since == 0) &&
		   kcf_product_keep(key, &after, key->def->owner, &document, answer->timestamp,
							since != 0 ? KCF_KEEP_GLADLY : KCF_KEEP_SURELY, &written, &passed);
	if (kept)
	{
		(void) follow_others(key, answer->timestamp, &until);
		kcf_product_place(key, answer, written.partition, written.offset);
	}
	else
		COUNT(key, not_kept);
	if (answer->kept ? !passed : somebody_waits(key))
		tell_answer(key, &document, answer);
}

/* ---- a miss ---- */

pg_noreturn static void
report_miss(const KcfProductKey *key)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
					errmsg("cached table \"%s\" has no current row for a key, and computes none "
						   "when it is read",
						   get_rel_name(key->def->relid)),
					errhint("Have it computed with kafka_cache.refresh(), or set the table's "
							"option \"prime_on_miss\" to \"true\".")));
}

/* What somebody has put meanwhile. */
static bool
found(const KcfProductKey *key, TimestampTz since, KcfNewest *newest, KcfAnswer *answer)
{
	kcf_product_newest(key, newest, answer);
	return kcf_product_is_good(key, newest, since);
}

void
kcf_product_prime(KcfTableDef *def, const Datum *values, TimestampTz since, KcfAnswer *answer)
{
	KcfProductKey key;
	KcfNewest newest;
	KcfMoment began_to_wait = 0;
	Datum fitting[KCF_MAX_KEYS];

	if (!kcf_product_key_fits(def, values, fitting))
	{
		memset(answer, 0, sizeof(*answer));
		answer->partition = -1;
		answer->offset = -1;
		answer->timestamp = kcf_product_millis(since);
		return;
	}
	kcf_product_key(def, fitting, &key);
	if (found(&key, since, &newest, answer))
	{
		COUNT(&key, waited);
		return;
	}
	if (!def->options->prime_on_miss)
		report_miss(&key);
	if (!may_keep(&key))
	{
		KcfSlice document;

		compute(&key, false, &document, answer);
		return;
	}

	if (!kcf_flight_try_lead(def->relid, key.hash))
	{
		began_to_wait = kcf_moment_now();
		kcf_flight_await(def->relid, key.hash);
		if (heard(&key, began_to_wait, since, answer) || found(&key, since, &newest, answer))
		{
			COUNT(&key, waited);
			return;
		}
		/* It was not for us. Of all who have found that, one leads, and the others go on waiting. */
		lead(&key);
	}
	/* Somebody may have landed since we looked, and the cache not have it yet. */
	if (heard(&key, began_to_wait, since, answer) || found(&key, since, &newest, answer))
		COUNT(&key, waited);
	else
		fly(&key, &newest, since, answer);
	land(&key);
}

bool
kcf_product_look(KcfTableDef *def, const Datum *values, KcfAnswer *answer)
{
	KcfProductKey key;
	KcfNewest newest;

	kcf_product_key(def, values, &key);
	kcf_product_newest(&key, &newest, answer);
	return newest.presence == KCF_PRESENT || newest.presence == KCF_NOTHING;
}

/* ---- refreshing ---- */

/* A refresh that cannot be kept is worth nothing. */
static void
check_keeping(const KcfProductKey *key)
{
	if (!kcf_product_is_clean())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot refresh cached table \"%s\" in a transaction that has written",
						get_rel_name(key->def->relid))));
	kcf_product_keeping = kcf_product_keeps_nothing(key);
	if (kcf_product_keeping)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("cached table \"%s\" cannot be written to", get_rel_name(key->def->relid)),
				 errdetail("It is cut off from its brokers, or writing has failed a moment "
						   "ago.")));
}

bool
kcf_product_refresh(KcfTableDef *def, const Datum *values, int64 unless_newer_than_ms)
{
	KcfProductKey key;
	KcfNewest newest;
	KcfAnswer answer;
	bool due;

	kcf_product_key(def, values, &key);
	lead(&key);
	kcf_product_newest(&key, &newest, NULL);
	due = (newest.presence != KCF_PRESENT && newest.presence != KCF_NOTHING) ||
		  newest.timestamp <= unless_newer_than_ms ||
		  newest.timestamp > kcf_product_millis(GetCurrentTimestamp()) + FUTURE_MS;
	if (due)
	{
		check_keeping(&key);
		COUNT(&key, refreshes);
		fly(&key, &newest, 0, &answer);
	}
	land(&key);
	return due;
}

bool
kcf_product_change(KcfTableDef *def, const Datum *values, KcfProductChange change, void *arg)
{
	KcfProductKey key;
	KcfNewest newest;
	KcfNewest after;
	KcfAnswer old;
	KcfAnswer row;
	KcfWritten written;
	KcfSlice document;
	bool passed;
	bool changed = false;

	kcf_product_key(def, values, &key);
	lead(&key);
	kcf_product_newest(&key, &newest, &old);
	if (newest.presence == KCF_PRESENT)
	{
		check_keeping(&key);
		document = change(def, values, &old, arg);
		stay_clean();
		kcf_product_decode(&key, &document, newest.timestamp, &row);
		kcf_product_newest(&key, &after, NULL);
		changed = after.presence == KCF_PRESENT && after.partition == newest.partition &&
				  after.offset == newest.offset;
		if (changed)
			(void) kcf_product_keep(&key, &after, def->owner, &document, newest.timestamp,
									KCF_KEEP_SURELY, &written, &passed);
	}
	land(&key);
	return changed;
}

/* ---- setting ---- */

int64
kcf_product_put(KcfTableDef *def, Oid userid, const Datum *values, KcfSlice value, int64 timestamp,
				bool *kept)
{
	KcfProductKey key;
	KcfNewest newest;
	KcfWritten written = { .partition = -1, .offset = -1 };
	bool passed;
	bool done;

	kcf_product_key(def, values, &key);
	kcf_product_newest(&key, &newest, NULL);
	done = kcf_product_keep(&key, &newest, userid, &value, timestamp,
							kept ? KCF_KEEP_GLADLY : KCF_KEEP_OWN, &written, &passed);
	if (kept)
		*kept = done;
	return done ? written.offset : -1;
}

/* ---- figures ---- */

void
kcf_product_count(Oid relid, int64 hits, int64 misses, int64 stale)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, relid);

	if (table == NULL)
		return;
	if (hits > 0)
		pg_atomic_fetch_add_u64(&table->product.hits, hits);
	if (misses > 0)
		pg_atomic_fetch_add_u64(&table->product.misses, misses);
	if (stale > 0)
		pg_atomic_fetch_add_u64(&table->product.stale, stale);
}
