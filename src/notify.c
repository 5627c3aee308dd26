/*
 * notify.c
 *		What those who listen to a table are to be told.
 */
#include "postgres.h"

#include "notify_internal.h"

#include "changes.h"
#include "guc.h"

#include "utils/json.h"
#include "utils/memutils.h"

/* ---- life ---------------------------------------------------------------------------------- */

static void
make_writer(KcfNotify *notify, KcfTableDef *def)
{
	MemoryContext mcxt =
		AllocSetContextCreate(notify->mcxt, "kafka_cache key writer", ALLOCSET_SMALL_SIZES);

	notify->writer = kcf_row_writer_create(def, mcxt);
	if (notify->writer_mcxt)
		MemoryContextDelete(notify->writer_mcxt);
	notify->writer_mcxt = mcxt;
	notify->def = def;
}

KcfNotify *
kcf_notify_create(KcfTable *table, KcfTableDef *def, MemoryContext parent)
{
	/* it goes where it belongs when it is complete, so that an error leaves nothing behind */
	MemoryContext mcxt =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache notify", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	KcfNotify *notify = palloc0(sizeof(KcfNotify));

	notify->mcxt = mcxt;
	notify->table = table;
	kcf_notes_init(&notify->notes, mcxt);
	initStringInfo(&notify->quoted);
	make_writer(notify, def);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(mcxt, parent);
	return notify;
}

void
kcf_notify_redefine(KcfNotify *notify, KcfTableDef *def)
{
	bool other = notify->def->options->notify_payload != def->options->notify_payload;

	make_writer(notify, def);
	/* what was noted without names cannot be told with them */
	if (other && notify->any)
		kcf_notify_lose(notify);
}

void
kcf_notify_destroy(KcfNotify *notify)
{
	MemoryContextDelete(notify->mcxt);
}

Oid
kcf_notify_owner(const KcfNotify *notify)
{
	return notify->def->owner;
}

/* ---- noting -------------------------------------------------------------------------------- */

/* Nobody else writes it. */
static void
count(pg_atomic_uint64 *counter, uint64 n)
{
	if (n > 0)
		pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + n);
}

void
kcf_notify_silent(KcfNotify *notify, KcfSilence silence, int64 n)
{
	count(&notify->table->told.suppressed[silence], n);
}

void
kcf_notify_begin(KcfNotify *notify)
{
	notify->applying = true;
}

void
kcf_notify_end(KcfNotify *notify)
{
	notify->applying = false;
}

/* A place for each of so many partitions. */
static void
make_room(KcfNotify *notify, int n)
{
	bool *touched;

	if (n <= notify->ntouched)
		return;
	touched = MemoryContextAllocZero(notify->mcxt, sizeof(bool) * n);
	if (notify->touched)
	{
		memcpy(touched, notify->touched, sizeof(bool) * notify->ntouched);
		pfree(notify->touched);
	}
	notify->touched = touched;
	notify->ntouched = n;
}

static void
touch(KcfNotify *notify, int32 partition)
{
	make_room(notify, partition + 1);
	notify->touched[partition] = true;
	notify->any = true;
}

void
kcf_notify_lose(KcfNotify *notify)
{
	notify->more = true;
	notify->behind = false;
	kcf_notes_clear(&notify->notes, notify->mcxt);
}

static void
note(KcfNotify *notify, const char *text, int32 partition, int64 offset, bool deleted)
{
	resetStringInfo(&notify->quoted);
	escape_json(&notify->quoted, text);
	if (!kcf_notes_add(&notify->notes, notify->mcxt, notify->quoted.data, notify->quoted.len,
					   partition, offset, deleted))
		kcf_notify_lose(notify);
	/* what one long key has needed is not kept */
	if (notify->quoted.maxlen > 1024 * 1024)
	{
		MemoryContext old = MemoryContextSwitchTo(notify->mcxt);

		pfree(notify->quoted.data);
		initStringInfo(&notify->quoted);
		MemoryContextSwitchTo(old);
	}
}

/* Are keys of any use to what will be said? */
static bool
names_keys(const KcfNotify *notify)
{
	return !notify->more && notify->def->options->notify_payload == KCF_NOTIFY_KEYS;
}

void
kcf_notify_changed(KcfNotify *notify, const Datum *key, int32 partition, int64 offset, bool deleted)
{
	touch(notify, partition);
	if (names_keys(notify))
		note(notify, kcf_key_text(notify->writer, key), partition, offset, deleted);
}

void
kcf_notify_afresh(KcfTable *table)
{
	pg_atomic_write_u32(&table->told.afresh, 1);
}

/* ---- after a restart ----------------------------------------------------------------------- */

bool
kcf_notify_behind(const KcfNotify *notify)
{
	return notify->behind;
}

/* Is it told less than is served? Then catching up comes before telling. */
void
kcf_notify_look_behind(KcfNotify *notify)
{
	KcfPartitions *followed = &notify->table->followed;

	for (int i = 0; i < followed->n; i++)
		if (pg_atomic_read_u64(&followed->array[i].announced) <
			pg_atomic_read_u64(&followed->array[i].next))
			notify->behind = true;
}

/* Nothing up to the present positions is left to be told. */
static void
announce(KcfNotify *notify)
{
	KcfPartitions *followed = &notify->table->followed;

	for (int i = 0; i < followed->n; i++)
		pg_atomic_write_u64(&followed->array[i].announced,
							pg_atomic_read_u64(&followed->array[i].next));
}

typedef struct CatchUp
{
	KcfNotify *notify;
	const KcfSince *since;
	MemoryContext row; /* reset for each */
} CatchUp;

static void
receive(void *arg, const KcfRow *row)
{
	CatchUp *c = arg;
	MemoryContext old = MemoryContextSwitchTo(c->row);

	touch(c->notify, row->partition);
	if (names_keys(c->notify))
		note(c->notify, kcf_tuple_key_text(c->notify->writer, kcf_row_tuple(row), row->tuple_len),
			 row->partition, Max(row->offset, c->since->next[row->partition]),
			 (kcf_row_flags(row) & KCF_ROW_TOMBSTONE) != 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(c->row);
}

void
kcf_notify_catch_up(KcfNotify *notify, const KcfStore *store, KcfSeq published)
{
	KcfPartitions *followed = &notify->table->followed;
	KcfSince since = { .n = followed->n, .next = palloc(sizeof(int64) * Max(followed->n, 1)) };
	CatchUp c = { .notify = notify, .since = &since };

	for (int i = 0; i < followed->n; i++)
		since.next[i] = (int64) pg_atomic_read_u64(&followed->array[i].announced);
	if (kcf_changes_complete(notify->table, &since))
	{
		c.row =
			AllocSetContextCreate(CurrentMemoryContext, "kafka_cache row", ALLOCSET_DEFAULT_SIZES);
		kcf_changes_scan(store, published, &since, receive, &c);
		MemoryContextDelete(c.row);
	}
	else
		kcf_notify_lose(notify);
	notify->behind = false;
	if (!kcf_notify_owes(notify))
		announce(notify);
}

/* ---- telling ------------------------------------------------------------------------------- */

bool
kcf_notify_owes(const KcfNotify *notify)
{
	return notify->any || notify->more || notify->behind || notify->applying ||
		   pg_atomic_read_u32(&notify->table->told.afresh) != 0;
}

KcfMoment
kcf_notify_due(const KcfNotify *notify)
{
	return notify->last == 0 ? 0 : notify->last + kcf_guc_notify_interval * INT64CONST(1000);
}

void
kcf_notify_write(KcfNotify *notify)
{
	make_room(notify, notify->table->followed.n);
	kcf_payloads_write(notify);
}

void
kcf_notify_told(KcfNotify *notify, KcfMoment now)
{
	KcfTold *told = &notify->table->told;

	count(&told->notifications, notify->payloads);
	count(&told->keys, notify->keys);
	count(&told->incomplete, notify->incomplete);
	announce(notify);
	pg_atomic_write_u32(&told->afresh, 0);
	kcf_notes_clear(&notify->notes, notify->mcxt);
	if (notify->ntouched > 0)
		memset(notify->touched, 0, sizeof(bool) * notify->ntouched);
	notify->any = notify->more = false;
	notify->last = now;
}

void
kcf_notify_failed(KcfNotify *notify)
{
	count(&notify->table->told.failures, 1);
}
