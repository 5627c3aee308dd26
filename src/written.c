/*
 * written.c
 *		How far this session has written to each topic, so that it can read its own writes.
 */
#include "postgres.h"

#include "written.h"

#include "guc.h"

#include "catalog/pg_foreign_table.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Partitions for which there is room though nothing is known of them yet. */
#define PARTITIONS_AT_LEAST 64

typedef struct Id
{
	uint64 topic; /* hash */
	uint64 relid; /* without padding */
} Id;

/* The last record of ours in a partition. */
typedef struct Last
{
	int64 offset; /* -1: none */
	int64 before; /* what the table had read when it was sent ends here */
} Last;

typedef struct Written
{
	Id id;
	bool any;  /* else there is only room */
	bool lost; /* there was no room after all: something was written, and it is not known where */
	bool given_up; /* not to be waited for by those who do not read it */
	uint64 since;  /* when the first record was noted that had not been passed */
	uint64 passed; /* when all of it was seen to be passed; 0: not yet */
	bool anew;     /* the topic is another one than the table has read: it has to be loaded again */
	uint32 reload; /* ... by the load that was asked for as the so manieth */
	TimestampTz anew_at;
	int n;
	Last *last; /* [n] by partition */
} Written;

bool kcf_written_any = false;
uint64 kcf_written_now = 1;

static HTAB *all_written = NULL; /* Written by id */

static uint64
topic_hash(const char *topic)
{
	return hash_bytes_extended((const unsigned char *) topic, (int) strlen(topic), 0);
}

static Written *
find(Oid relid, uint64 topic)
{
	Id id = { .topic = topic, .relid = relid };

	return all_written ? hash_search(all_written, &id, HASH_FIND, NULL) : NULL;
}

static void
drop(Written *written)
{
	Id id = written->id;

	if (written->last)
		pfree(written->last);
	hash_search(all_written, &id, HASH_REMOVE, NULL);
}

/* Room for the partitions below n; false: no memory. */
static bool
grow(Written *written, int n, int flags)
{
	Last *last;

	if (n <= written->n)
		return true;
	last = MemoryContextAllocExtended(TopMemoryContext, n * sizeof(Last), flags);
	if (last == NULL)
		return false;
	for (int i = 0; i < n; i++)
		last[i] = i < written->n ? written->last[i] : (Last){ .offset = -1 };
	if (written->last)
		pfree(written->last);
	written->last = last;
	written->n = n;
	return true;
}

/* ---- writing ---- */

/* Where the table is, as far as that is known of this topic. */
static void
note_positions(Written *written)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, (Oid) written->id.relid);
	int n = 0;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (table && topic_hash(table->topic) == written->id.topic && kcf_table_shows_followed(table))
		n = table->followed.n;
	for (int i = 0; i < written->n; i++)
		written->last[i].before =
			i < n ? (int64) pg_atomic_read_u64(&table->followed.array[i].next) : 0;
	LWLockRelease(kcf_registry_lock);
}

static void
make_room(Oid relid, uint64 topic, int npartitions)
{
	Id id = { .topic = topic, .relid = relid };
	Written *written;
	bool found;

	if (all_written == NULL)
	{
		HASHCTL ctl = { .keysize = sizeof(Id), .entrysize = sizeof(Written) };

		all_written = hash_create("kafka_cache written", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	written = hash_search(all_written, &id, HASH_ENTER, &found);
	if (!found)
	{
		memset(written, 0, sizeof(*written));
		written->id = id;
	}
	(void) grow(written, Max(npartitions, PARTITIONS_AT_LEAST), 0);
	note_positions(written);
}

/*
 * A record got an offset that the table had passed before it was sent: the topic was deleted and created again. The
 * consumer may not know of it yet, and what it serves is another topic's.
 */
static void
note_anew(Written *written)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, (Oid) written->id.relid);

	for (int i = 0; i < written->n; i++)
		written->last[i].offset = -1;
	if (table == NULL)
		return;
	written->anew = true;
	written->anew_at = GetCurrentTimestamp();
	written->reload = pg_atomic_add_fetch_u32(&table->reload_wanted, 1);
	kcf_database_wake(MyDatabaseId);
}

/* Has the table been loaded again since? The consumer counts a load as done when it begins it. */
static bool
is_loaded_anew(const Written *written, KcfTable *table)
{
	return table->loading == NULL &&
		   (TimestampTz) pg_atomic_read_u64(&table->loaded_at) > written->anew_at &&
		   (pg_atomic_read_u32(&table->reload_wanted) < written->reload ||
			*(const volatile uint32 *) &table->reload_done >= written->reload);
}

/* Gone, or of another server: topics of the same name there are others. */
static bool
is_of_server(Oid relid, Oid serverid)
{
	HeapTuple tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	bool is;

	if (!HeapTupleIsValid(tuple))
		return false;
	is = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftserver == serverid;
	ReleaseSysCache(tuple);
	return is;
}

KcfWrittenTables *
kcf_written_reserve(Oid relid, Oid serverid, const char *topic)
{
	int max = kcf_guc_max_tables + 1;
	int npartitions = 0;
	KcfWrittenTables *tables =
		palloc(offsetof(KcfWrittenTables, relids) + max * sizeof(tables->relids[0]));
	int n = 0;

	/* The table itself, which no consumer may have met yet, and others with the same topic. */
	tables->relids[n++] = relid;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	for (int i = 0; i < kcf_guc_max_tables; i++)
	{
		KcfTable *table = kcf_table_at(i);

		if (!OidIsValid(table->relid) || table->dboid != MyDatabaseId ||
			strcmp(table->topic, topic) != 0)
			continue;
		npartitions = Max(npartitions, table->followed.n);
		if (table->relid != relid && n < max)
			tables->relids[n++] = table->relid;
	}
	LWLockRelease(kcf_registry_lock);

	tables->topic = topic_hash(topic);
	tables->n = 0;
	for (int i = 0; i < n; i++)
	{
		Oid other = tables->relids[i];

		if (i > 0 && !is_of_server(other, serverid))
			continue;
		make_room(other, tables->topic, npartitions);
		tables->relids[tables->n++] = other;
	}
	return tables;
}

void
kcf_written_note(const KcfWrittenTables *tables, int32 partition, int64 offset)
{
	kcf_written_now++;
	for (int i = 0; i < tables->n; i++)
	{
		Written *written = find(tables->relids[i], tables->topic);

		Assert(written && partition >= 0);
		if (written->passed != 0 || !written->any)
			written->since = kcf_written_now;
		written->passed = 0;
		written->any = true;
		written->given_up = false;
		/* The topic may have got more partitions since there was room made. */
		if (partition < written->n || grow(written, partition + 1, MCXT_ALLOC_NO_OOM))
		{
			Last *last = &written->last[partition];

			if (offset < last->before)
				note_anew(written);
			last->offset = Max(last->offset, offset);
		}
		else
			written->lost = true;
		kcf_table_note_written(tables->relids[i], partition, offset);
	}
	kcf_written_any = true;
}

/* ---- reading ---- */

static bool
is_behind(const Written *written, int32 *partition, int64 *offset, int64 *position)
{
	KcfTable *table = kcf_table_find(MyDatabaseId, (Oid) written->id.relid);
	bool behind = false;

	*partition = -1;
	*offset = *position = -1;
	if (table == NULL || written->lost)
		return true;
	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	behind = !kcf_table_shows_followed(table) || (written->anew && !is_loaded_anew(written, table));
	for (int i = 0; i < written->n && !behind; i++)
	{
		if (written->last[i].offset < 0)
			continue;
		*partition = i;
		*offset = written->last[i].offset;
		*position = i < table->followed.n
						? (int64) pg_atomic_read_u64(&table->followed.array[i].next) - 1
						: -1;
		behind = *position < *offset;
	}
	LWLockRelease(kcf_registry_lock);
	return behind;
}

static bool
look(Written *written)
{
	int32 partition;
	int64 offset;
	int64 position;

	if (written->passed == 0 && !is_behind(written, &partition, &offset, &position))
	{
		written->passed = ++kcf_written_now;
		written->anew = false;
		/* What is read next was published before its position was shown. */
		pg_read_barrier();
	}
	return written->passed != 0;
}

bool
kcf_written_behind(Oid relid, const char *topic, int32 *partition, int64 *offset, int64 *position)
{
	const Written *written = find(relid, topic_hash(topic));

	return written && written->any && is_behind(written, partition, offset, position);
}

bool
kcf_written_passed(Oid relid, const char *topic)
{
	Written *written = find(relid, topic_hash(topic));

	return written == NULL || !written->any || look(written);
}

bool
kcf_written_held(Oid relid, const char *topic, uint64 at, bool of_statement)
{
	Written *written = find(relid, topic_hash(topic));

	return written == NULL || !written->any || (written->passed != 0 && written->passed <= at) ||
		   (of_statement && written->since > at);
}

bool
kcf_written_any_behind(void)
{
	HASH_SEQ_STATUS scan;
	Written *written;
	bool behind = false;

	hash_seq_init(&scan, all_written);
	while ((written = hash_seq_search(&scan)) != NULL)
	{
		KcfTable *table;

		if (!written->any || look(written) || written->given_up)
			continue;
		table = kcf_table_find(MyDatabaseId, (Oid) written->id.relid);
		behind |= table && pg_atomic_read_u32(&table->state) == KCF_TABLE_READY;
	}
	return behind;
}

void
kcf_written_give_up(void)
{
	HASH_SEQ_STATUS scan;
	Written *written;

	hash_seq_init(&scan, all_written);
	while ((written = hash_seq_search(&scan)) != NULL)
		written->given_up = true;
}

void
kcf_written_forget(void)
{
	HASH_SEQ_STATUS scan;
	Written *written;

	kcf_written_any = false;
	hash_seq_init(&scan, all_written);
	while ((written = hash_seq_search(&scan)) != NULL)
	{
		Oid relid = (Oid) written->id.relid;

		/* A table that is no more will not come. */
		if (!written->any || written->passed != 0 ||
			(kcf_table_find(MyDatabaseId, relid) == NULL &&
			 !SearchSysCacheExists1(FOREIGNTABLEREL, ObjectIdGetDatum(relid))))
			drop(written);
		else
			kcf_written_any = true;
	}
}
