/*
 * rules_source.c
 *		Cached tables and products as sources: what has changed in them, and which keys that concerns.
 *
 * The coordinator holds the state of the database's cached tables that it has worked off. When something is published it
 * takes the present one, compares the two table by table, asks each rule's function with the old and the new rows, and
 * holds the present state from then on. So a key that has changed a thousand times in between has changed once. The
 * function's keys are put into the queue, which is what "worked off" means.
 *
 * Where the old state is not to be had (this process is new, the pin was taken away, the table was loaded again) or the
 * function has failed, all that is cached of the product is refreshed. Only a source whose position is still the one
 * that was written down when nothing was outstanding needs nothing.
 */
#include "postgres.h"

#include "rules_coordinator.h"

#include "product_key.h"
#include "registry.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Between two looks while there is something new, and how much longer each time while it goes on. */
#define LOOK_MIN_MS 50
#define LOOK_MAX_MS 500
#define CALM_MS 1000
/* Nobody has woken us. */
#define IDLE_MS 10000
#define NOTE_MS 5000
#define BACKOFF_MAX_MS 60000

typedef struct Source
{
	KcfRule rule;
	bool seen;
	bool synced;      /* the held state is worked off */
	bool ever;        /* ... or was, in this process */
	TimestampTz next; /* after a failure: not before; all is refreshed then */
	int failures;
	TimestampTz complained;
	char *reached; /* its position at the held state; NULL: not known */
	uint64 ticket; /* of the queue, when that was reached */
	char *noted;   /* in kafka_cache.refresh_positions; NULL: not known */
	TimestampTz noted_at;
	bool behind; /* the last look at it has found something */
} Source;

static List *sources = NIL;
static KcfSnapshot *held = NULL;
static TimestampTz looked_at = 0;
static long pause_ms = LOOK_MIN_MS;

/* ---- definition ---------------------------------------------------------------------------- */

static bool
is_cached(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE;
}

static Source *
find(const KcfRule *rule)
{
	ListCell *lc;

	foreach (lc, sources)
	{
		Source *source = lfirst(lc);

		if (source->rule.product == rule->product && source->rule.source == rule->source)
			return source;
	}
	return NULL;
}

static void
forget_text(char **text)
{
	if (*text)
		pfree(*text);
	*text = NULL;
}

static void
drop(Source *source)
{
	sources = list_delete_ptr(sources, source);
	forget_text(&source->reached);
	forget_text(&source->noted);
	pfree(source->rule.keys);
	pfree(source);
}

void
kcf_rules_sources_define(List *rules)
{
	MemoryContext old = MemoryContextSwitchTo(kcf_rules_cxt);
	List *copy;
	ListCell *lc;

	foreach (lc, sources)
		((Source *) lfirst(lc))->seen = false;
	foreach (lc, rules)
	{
		const KcfRule *rule = lfirst(lc);
		Source *source;

		if (!is_cached(rule->source))
			continue;
		source = find(rule);
		/* Another function: whatever it would have told before is refreshed. */
		if (source && strcmp(source->rule.keys, rule->keys) != 0)
		{
			drop(source);
			source = NULL;
		}
		if (source == NULL)
		{
			source = palloc0(sizeof(Source));
			source->rule = *rule;
			source->rule.keys = pstrdup(rule->keys);
			sources = lappend(sources, source);
		}
		source->seen = true;
	}
	copy = list_copy(sources);
	foreach (lc, copy)
	{
		Source *source = lfirst(lc);

		if (!source->seen)
			drop(source);
	}
	list_free(copy);
	MemoryContextSwitchTo(old);
	if (sources == NIL && held)
	{
		kcf_snapshot_release(held);
		held = NULL;
	}
	/* At once: there may be new ones. */
	looked_at = 0;
}

/* ---- what has changed ---------------------------------------------------------------------- */

typedef struct Changes
{
	KcfTableDef *def; /* of the source */
	TupleDesc row;    /* its row type */
	TupleDesc pair;   /* (old, new) */
	Tuplestorestate *rows;
	int64 n;
	MemoryContext per_row;
	/* of the two rows */
	Datum *values[2];
	bool *isnull[2];
} Changes;

static void
deform(const Changes *changes, const KcfRow *row, int which)
{
	HeapTupleData tuple = { .t_len = row->tuple_len, .t_data = kcf_row_tuple(row) };

	heap_deform_tuple(&tuple, changes->def->desc, changes->values[which], changes->isnull[which]);
}

/*
 * A record that says again what is there differs in its place only. Its time may be what somebody computes with; but a
 * product is computed again and again, with the same result.
 */
static bool
says_the_same(const Changes *changes)
{
	TupleDesc desc = changes->def->desc;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		KcfColumnKind kind = changes->def->columns[i].kind;

		if (kind == KCF_COLUMN_PARTITION || kind == KCF_COLUMN_OFFSET ||
			(kind == KCF_COLUMN_TIMESTAMP && kcf_is_product(changes->def)))
			continue;
		if (changes->isnull[0][i] != changes->isnull[1][i])
			return false;
		if (!changes->isnull[0][i] &&
			!datumIsEqual(changes->values[0][i], changes->values[1][i], att->attbyval, att->attlen))
			return false;
	}
	return true;
}

static Datum
form(const Changes *changes, int which)
{
	HeapTuple tuple = heap_form_tuple(changes->row, changes->values[which], changes->isnull[which]);

	return HeapTupleGetDatum(tuple);
}

static void
note_change(void *arg, const KcfRow *before, const KcfRow *after)
{
	Changes *changes = arg;
	MemoryContext old;
	Datum pair[2] = { 0, 0 };
	bool isnull[2];

	CHECK_FOR_INTERRUPTS();
	/* What cannot be read is no row. */
	if (before && (kcf_row_flags(before) & KCF_ROW_ERROR))
		before = NULL;
	if (after && (kcf_row_flags(after) & KCF_ROW_ERROR))
		after = NULL;
	isnull[0] = before == NULL;
	isnull[1] = after == NULL;
	if (isnull[0] && isnull[1])
		return;
	old = MemoryContextSwitchTo(changes->per_row);
	if (before)
		deform(changes, before, 0);
	if (after)
		deform(changes, after, 1);
	if (!before || !after || !says_the_same(changes))
	{
		if (before)
			pair[0] = form(changes, 0);
		if (after)
			pair[1] = form(changes, 1);
		tuplestore_putvalues(changes->rows, changes->pair, pair, isnull);
		changes->n++;
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(changes->per_row);
}

static void
begin_changes(Changes *changes, KcfTableDef *def)
{
	Oid row = get_rel_type_id(def->relid);

	memset(changes, 0, sizeof(*changes));
	changes->def = def;
	changes->row = CreateTupleDescCopy(def->desc);
	changes->row->tdtypeid = row;
	changes->row->tdtypmod = -1;
	changes->pair = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(changes->pair, 1, "old", row, -1, 0);
	TupleDescInitEntry(changes->pair, 2, "new", row, -1, 0);
	changes->rows = tuplestore_begin_heap(false, false, work_mem);
	changes->per_row =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache row", ALLOCSET_SMALL_SIZES);
	for (int i = 0; i < 2; i++)
	{
		changes->values[i] = palloc(def->desc->natts * sizeof(Datum));
		changes->isnull[i] = palloc(def->desc->natts * sizeof(bool));
	}
}

/* ---- which keys that concerns -------------------------------------------------------------- */

typedef struct Request
{
	KcfSlice key;
	Jsonb *hints;
} Request;

typedef struct Look
{
	Source *source;
	KcfSnapshot *now;
	MemoryContext kept; /* for what outlives the transaction */
	List *requests;     /* of Request */
	bool readable;
	bool all;     /* it cannot be told what has changed */
	bool changed; /* something has */
	char *position;
} Look;

static void
keep_key(void *arg, KcfTableDef *product, const Datum *key, Jsonb *hints)
{
	Look *look = arg;
	KcfSlice bytes = kcf_product_key_bytes(product, key);
	MemoryContext old = MemoryContextSwitchTo(look->kept);
	Request *request = palloc(sizeof(Request));
	char *data = palloc(Max(bytes.len, 1));

	memcpy(data, bytes.data, bytes.len);
	request->key.data = data;
	request->key.len = bytes.len;
	request->hints =
		hints ? (Jsonb *) DatumGetPointer(datumCopy(JsonbPGetDatum(hints), false, -1)) : NULL;
	look->requests = lappend(look->requests, request);
	MemoryContextSwitchTo(old);
}

typedef struct KeyReceiver
{
	Look *look;
	KcfTableDef *product;
} KeyReceiver;

static void
receive_key(void *arg, const Datum *key, Jsonb *hints)
{
	KeyReceiver *receiver = arg;

	keep_key(receiver->look, receiver->product, key, hints);
}

static void
check_rights(const KcfTableDef *product, Oid source)
{
	if (pg_class_aclcheck(source, product->owner, ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(source));
}

static void
ask_function(Look *look, Changes *changes)
{
	const KcfRule *rule = &look->source->rule;
	KcfTableDef *product = kcf_catalog_cached(rule->product);
	Oid function = kcf_rule_function(rule);
	KeyReceiver receiver = { look, product };
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	KcfRulesUser before;
	SPIPlanPtr plan;
	char *query;

	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s does not exist", rule->keys)));
	check_rights(product, rule->source);
	enr->md.name = KCF_RULE_CHANGES_NAME;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = changes->pair;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = (double) changes->n;
	enr->reldata = changes->rows;

	SPI_connect();
	kcf_rules_as_owner(product->owner, &before);
	if (SPI_register_relation(enr) < 0)
		elog(ERROR, "could not register the changes");
	query = kcf_rule_query(rule, product, function, KCF_RULE_CHANGES);
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	kcf_rule_keys(plan, product, receive_key, &receiver);
	kcf_rules_as_before(&before);
	SPI_finish();
}

/* The rows of both states are copied before anybody's code runs: that may move our pin. */
static bool
collect(Look *look, Changes *changes)
{
	KcfView before;
	KcfView after;
	volatile bool known = false;

	kcf_snapshot_enter();
	PG_TRY();
	{
		Oid relid = look->source->rule.source;

		look->readable = kcf_snapshot_peek(look->now, relid, &after);
		if (look->readable && look->source->synced && held &&
			kcf_snapshot_peek(held, relid, &before) && before.store == after.store)
		{
			kcf_store_compare(after.store, before.seq, after.seq, note_change, changes);
			known = true;
		}
	}
	PG_FINALLY();
	{
		kcf_snapshot_leave();
	}
	PG_END_TRY();
	return known;
}

static void
look_at(void *arg)
{
	Look *look = arg;
	const KcfRule *rule = &look->source->rule;
	Changes changes;
	char *position;

	begin_changes(&changes, kcf_catalog_cached(rule->source));
	if (collect(look, &changes))
	{
		look->changed = changes.n > 0;
		if (look->changed)
			ask_function(look, &changes);
	}
	else
		look->all = look->readable;
	tuplestore_end(changes.rows);
	/* Where more has been published meanwhile it would not be that of this state. */
	position = kcf_relation_position(rule->source);
	if (position && kcf_snapshot_is_newest(look->now))
		look->position = MemoryContextStrdup(look->kept, position);
}

/* ---- positions ----------------------------------------------------------------------------- */

typedef struct Noted
{
	Source *source;
	MemoryContext kept;
	const char *text; /* in or out */
} Noted;

static void
noted_args(const Source *source, const char *text, Datum *values)
{
	values[0] = ObjectIdGetDatum(source->rule.product);
	values[1] = ObjectIdGetDatum(source->rule.source);
	values[2] = text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
read_noted(void *arg)
{
	Noted *noted = arg;
	Oid types[] = { OIDOID, OIDOID };
	Datum values[3];

	noted_args(noted->source, NULL, values);
	SPI_connect();
	if (SPI_execute_with_args("SELECT position::text FROM kafka_cache.refresh_positions"
							  " WHERE product = $1 AND source = $2",
							  2, types, values, NULL, true, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
		noted->text = MemoryContextStrdup(
			noted->kept, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
}

static void
write_noted(void *arg)
{
	Noted *noted = arg;
	Oid types[] = { OIDOID, OIDOID, TEXTOID };
	Datum values[3];

	noted_args(noted->source, noted->text, values);
	SPI_connect();
	SPI_execute_with_args(
		"INSERT INTO kafka_cache.refresh_positions (product, source, position)"
		" SELECT $1, $2, $3::jsonb WHERE EXISTS (SELECT FROM kafka_cache.refresh_rules r"
		" WHERE r.product = $1 AND r.source = $2)"
		" ON CONFLICT (product, source) DO UPDATE SET position = excluded.position",
		3, types, values, NULL, false, 0);
	SPI_finish();
}

/* As jsonb prints it. */
static bool
same_position(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

/* All that it has asked for is done: how far that is may be written down. Is there something to wait for? */
static bool
note_position(Source *source)
{
	TimestampTz now = GetCurrentTimestamp();
	Noted noted = { source, NULL, source->reached };
	ErrorData *edata;

	if (!source->synced || source->reached == NULL || same_position(source->reached, source->noted))
		return false;
	if (!kcf_rules_requested(source->rule.product) ||
		kcf_refreshq_outstanding(source->rule.product) < source->ticket ||
		!TimestampDifferenceExceeds(source->noted_at, now, NOTE_MS))
		return true;
	source->noted_at = now;
	edata = kcf_rules_attempt(write_noted, &noted);
	if (edata)
	{
		kcf_rules_complain(&source->complained, edata,
						   "could not write down how far the source %s was worked off",
						   kcf_rules_name(source->rule.source));
		return true;
	}
	forget_text(&source->noted);
	source->noted = MemoryContextStrdup(kcf_rules_cxt, source->reached);
	return false;
}

/* ---- a look at all of them ----------------------------------------------------------------- */

static void
fail(Source *source, const ErrorData *edata)
{
	long ms = KCF_RULES_RETRY_MS;

	for (int i = 0; i < source->failures && ms < BACKOFF_MAX_MS; i++)
		ms *= 3;
	source->failures++;
	source->synced = false;
	source->next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(ms, BACKOFF_MAX_MS));
	kcf_rules_complain(&source->complained, edata,
					   "could not tell which keys of the data product %s to refresh "
					   "when the table %s changes",
					   kcf_rules_name(source->rule.product), kcf_rules_name(source->rule.source));
	/* Some of them for sure. */
	kcf_rules_request_all(source->rule.product, 0);
}

/* Is what a source without a known state stands at what was worked off when it was written down? */
static bool
is_where_noted(Source *source, const Look *look)
{
	Noted noted = { source, look->kept, NULL };
	ErrorData *edata = kcf_rules_attempt(read_noted, &noted);

	if (edata || !same_position(noted.text, look->position))
		return false;
	forget_text(&source->noted);
	source->noted = MemoryContextStrdup(kcf_rules_cxt, noted.text);
	return true;
}

static void
look_at_source(Source *source, KcfSnapshot *now)
{
	Look look = { .source = source, .now = now, .kept = CurrentMemoryContext };
	ErrorData *edata;
	ListCell *lc;

	source->behind = false;
	if (source->next > GetCurrentTimestamp())
		return;
	edata = kcf_rules_attempt(look_at, &look);
	if (edata)
	{
		fail(source, edata);
		return;
	}
	if (!look.readable)
	{
		source->synced = false;
		return;
	}
	if (look.all && (source->ever || !is_where_noted(source, &look)))
		kcf_rules_request_all(source->rule.product, 0);
	foreach (lc, look.requests)
	{
		const Request *request = lfirst(lc);

		kcf_rules_request(source->rule.product, request->key, 0, request->hints);
	}
	if (look.changed)
		source->failures = 0;
	source->synced = true;
	source->ever = true;
	source->next = 0;
	source->behind = look.changed;
	forget_text(&source->reached);
	if (look.position)
		source->reached = MemoryContextStrdup(kcf_rules_cxt, look.position);
	source->ticket = kcf_refreshq_ticket();
}

/* Has anything been published? Then a wish to be woken is fulfilled by now. */
static bool
is_due(void)
{
	ListCell *lc;

	if (held == NULL || kcf_snapshot_is_lost(held) || !kcf_snapshot_is_newest(held))
		return true;
	/* There may be one that could not be read or has failed. */
	if (!TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), KCF_RULES_RETRY_MS))
		return false;
	foreach (lc, sources)
	{
		if (!((Source *) lfirst(lc))->synced)
			return true;
	}
	return false;
}

static void
look_at_all(void)
{
	static KcfSnapshot *now = NULL;
	bool any = false;
	ListCell *lc;

	/* An error came between. */
	if (now)
		kcf_snapshot_release(now);
	now = kcf_snapshot_hold();
	if (now == NULL)
		return;
	foreach (lc, sources)
	{
		look_at_source(lfirst(lc), now);
		any |= ((Source *) lfirst(lc))->behind;
	}
	if (held)
		kcf_snapshot_release(held);
	held = now;
	now = NULL;
	pause_ms = any ? Min(pause_ms * 2, LOOK_MAX_MS) : LOOK_MIN_MS;
}

int
kcf_rules_sources_unknown(void)
{
	int n = 0;
	ListCell *lc;

	foreach (lc, sources)
		n += !((Source *) lfirst(lc))->synced;
	return n;
}

long
kcf_rules_sources_turn(void)
{
	pg_atomic_uint32 *watched;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;
	bool waiting = false;
	bool unsynced = false;
	ListCell *lc;

	if (sources == NIL || kcf_my_database() < 0)
		return -1;
	if (TimestampDifferenceExceeds(looked_at, now, CALM_MS))
		pause_ms = LOOK_MIN_MS;
	due = TimestampTzPlusMilliseconds(looked_at, pause_ms);
	if (due > now)
		return 1 + TimestampDifferenceMilliseconds(now, due);
	if (is_due())
	{
		look_at_all();
		looked_at = GetCurrentTimestamp();
	}
	/* Nothing to compare: what is held is no older than the cache. */
	else if (held)
		kcf_snapshot_renew(held);
	foreach (lc, sources)
	{
		waiting |= note_position(lfirst(lc));
		unsynced |= !((Source *) lfirst(lc))->synced;
	}

	/* First the wish, then the last look: who publishes in between has one of them. */
	watched = &kcf_database(kcf_my_database())->publish_watched;
	(void) pg_atomic_exchange_u32(watched, 1);
	if (held && !kcf_snapshot_is_newest(held))
		return pause_ms;
	return waiting || unsynced ? KCF_RULES_RETRY_MS : IDLE_MS;
}
