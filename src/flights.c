/*
 * flights.c
 *		Flights: at most one session of the server computes or puts a key of a product; what comes of it is told.
 */
#include "postgres.h"

#include "flights.h"

#include "arena.h"
#include "guc.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

/* Notes at a time: more keys than this are seldom waited for at one moment. */
#define NOTES 64
/* A larger answer is computed by each who wants it. */
#define MAX_BYTES (1024 * 1024)
/* Of the arena, all notes together. */
#define ARENA_SHARE 32
#define LEAST_BYTES (256 * 1024)

/* All under the lock. */
typedef struct Note
{
	Oid dboid;
	Oid relid; /* InvalidOid: free */
	uint64 hash;
	KcfMoment told_at;
	int sqlstate;
	bool kept;
	int32 partition;
	int64 offset;
	int64 timestamp;
	Size size; /* of the block */
	char *
		bytes; /* arena: the key, the document, message, detail and hint, these with a zero behind */
	Size key_len;
	Size document_len;
	bool has_detail;
	bool has_hint;
} Note;

typedef struct Flights
{
	LWLock lock;
	int tranche;
	KcfAccount account;
	Note notes[NOTES];
} Flights;

static Flights *flights = NULL;

Size
kcf_flights_shmem_size(void)
{
	return MAXALIGN(sizeof(Flights));
}

void
kcf_flights_shmem_init(void)
{
	bool found;

	flights = ShmemInitStruct("kafka_cache flights", kcf_flights_shmem_size(), &found);
	if (!found)
	{
		memset(flights, 0, sizeof(Flights));
		flights->tranche = LWLockNewTrancheId();
		LWLockInitialize(&flights->lock, flights->tranche);
		pg_atomic_init_u64(&flights->account.bytes, 0);
		pg_atomic_init_u64(&flights->account.limit,
						   Max((uint64) kcf_guc_memory * 1024 * 1024 / ARENA_SHARE, LEAST_BYTES));
	}
	LWLockRegisterTranche(flights->tranche, "kafka_cache_flights");
}

/* ---- who leads ---- */

/* The last field of our lock tags; users' advisory locks have 1 or 2 there. */
#define FLIGHT_LOCK 0x4b43

/* Keys may share one: then they are computed one after the other. */
static LOCKTAG
tag_of(Oid relid, uint64 hash)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, relid, (uint32) (hash ^ (hash >> 32)), FLIGHT_LOCK);
	return tag;
}

bool
kcf_flight_try_lead(Oid relid, uint64 hash)
{
	LOCKTAG tag = tag_of(relid, hash);

	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
kcf_flight_lead(Oid relid, uint64 hash)
{
	LOCKTAG tag = tag_of(relid, hash);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
kcf_flight_land(Oid relid, uint64 hash)
{
	LOCKTAG tag = tag_of(relid, hash);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

void
kcf_flight_await(Oid relid, uint64 hash)
{
	LOCKTAG tag = tag_of(relid, hash);

	(void) LockAcquire(&tag, ShareLock, false, false);
	(void) LockRelease(&tag, ShareLock, false);
}

bool
kcf_flight_is_awaited(Oid relid, uint64 hash)
{
	LOCKTAG tag = tag_of(relid, hash);

	return LockHasWaiters(&tag, ExclusiveLock, false);
}

/* ---- notes ---- */

static void
clear(Note *note)
{
	if (note->bytes)
		kcf_arena_free(&flights->account, note->bytes, note->size);
	memset(note, 0, sizeof(*note));
}

static bool
is_of(const Note *note, Oid relid, uint64 hash, const KcfSlice *key)
{
	return note->relid == relid && note->dboid == MyDatabaseId && note->hash == hash &&
		   note->key_len == key->len && memcmp(note->bytes, key->data, key->len) == 0;
}

/* The place of the last note of this key, or of the oldest one. */
static Note *
place_for(Oid relid, uint64 hash, const KcfSlice *key)
{
	Note *oldest = &flights->notes[0];

	for (int i = 0; i < NOTES; i++)
	{
		Note *note = &flights->notes[i];

		if (OidIsValid(note->relid) && is_of(note, relid, hash, key))
			return note;
		if (note->told_at < oldest->told_at)
			oldest = note;
	}
	return oldest;
}

static char *
put_bytes(char *at, const void *data, Size len)
{
	if (len > 0)
		memcpy(at, data, len);
	return at + len;
}

static Size
text_size(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

void
kcf_flights_tell(Oid relid, uint64 hash, const KcfSlice *key, const KcfFlight *flight)
{
	Size document_len = flight->sqlstate == 0 ? flight->document.len : 0;
	Size size = key->len + document_len;
	Note *note;
	char *at;

	if (flight->sqlstate != 0)
		size += strlen(flight->message) + 1 + text_size(flight->detail) + text_size(flight->hint);
	if (size > MAX_BYTES)
		return;
	kcf_arena_attach();
	LWLockAcquire(&flights->lock, LW_EXCLUSIVE);
	note = place_for(relid, hash, key);
	clear(note);
	/* What lies there for nobody any more makes room. */
	while ((note->bytes = kcf_arena_alloc(&flights->account, Max(size, 1))) == NULL)
	{
		Note *other = NULL;

		for (int i = 0; i < NOTES; i++)
		{
			Note *candidate = &flights->notes[i];

			if (candidate->bytes && (other == NULL || candidate->told_at < other->told_at))
				other = candidate;
		}
		if (other == NULL)
			break;
		clear(other);
	}
	if (note->bytes)
	{
		note->size = Max(size, 1);
		note->dboid = MyDatabaseId;
		note->relid = relid;
		note->hash = hash;
		note->told_at = kcf_moment_now();
		note->sqlstate = flight->sqlstate;
		note->kept = flight->kept;
		note->partition = flight->partition;
		note->offset = flight->offset;
		note->timestamp = flight->timestamp;
		note->key_len = key->len;
		note->document_len = document_len;
		at = put_bytes(note->bytes, key->data, key->len);
		at = put_bytes(at, flight->document.data, document_len);
		if (flight->sqlstate != 0)
		{
			note->has_detail = flight->detail != NULL;
			note->has_hint = flight->hint != NULL;
			at = put_bytes(at, flight->message, strlen(flight->message) + 1);
			at = put_bytes(at, flight->detail, text_size(flight->detail));
			(void) put_bytes(at, flight->hint, text_size(flight->hint));
		}
	}
	LWLockRelease(&flights->lock);
}

bool
kcf_flights_find(Oid relid, uint64 hash, const KcfSlice *key, KcfMoment since, KcfFlight *flight)
{
	bool found = false;

	LWLockAcquire(&flights->lock, LW_SHARED);
	for (int i = 0; i < NOTES && !found; i++)
	{
		const Note *note = &flights->notes[i];
		Size len;
		char *at;

		if (!OidIsValid(note->relid) || note->told_at < since || !is_of(note, relid, hash, key))
			continue;
		found = true;
		memset(flight, 0, sizeof(*flight));
		len = note->size - note->key_len;
		at = palloc(len + 1);
		memcpy(at, note->bytes + note->key_len, len);
		flight->sqlstate = note->sqlstate;
		flight->kept = note->kept;
		flight->partition = note->partition;
		flight->offset = note->offset;
		flight->timestamp = note->timestamp;
		flight->document = (KcfSlice){ at, note->document_len };
		if (note->sqlstate != 0)
		{
			flight->message = at;
			at += strlen(at) + 1;
			if (note->has_detail)
			{
				flight->detail = at;
				at += strlen(at) + 1;
			}
			if (note->has_hint)
				flight->hint = at;
		}
	}
	LWLockRelease(&flights->lock);
	return found;
}
