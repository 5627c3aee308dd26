/*
 * rules_domain.c
 *		refresh_every and domain: products that are computed though nobody asks and nothing has changed.
 *
 * A look at a product asks for the keys of its domain that have no row, and for those that are about as old as the
 * interval: the domain's, or without one all that are cached. The next look is due when the next of them is, but not
 * so soon that looking would be all there is to do.
 */
#include "postgres.h"

#include "rules_coordinator.h"

#include "guc.h"
#include "product.h"
#include "product_key.h"
#include "rowmap_write.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What is due within that part of the interval is taken along; looks are at least that far apart. */
#define PART 20
/* ... and that many times as far as one takes. */
#define COST 20
#define LOOK_MIN_MS 100
#define KEYS_AT_ONCE 1000

typedef struct Domain
{
	Oid product;
	bool seen;
	int64 every_ms;   /* 0: once */
	char *query;      /* NULL: what is cached */
	List *sources;    /* cached tables on which it is refreshed: they have to be there first */
	TimestampTz next; /* look; DT_NOEND: never again */
	TimestampTz complained;
} Domain;

static List *domains = NIL;

/* ---- definition ---------------------------------------------------------------------------- */

static Domain *
find(Oid product)
{
	ListCell *lc;

	foreach (lc, domains)
	{
		Domain *domain = lfirst(lc);

		if (domain->product == product)
			return domain;
	}
	return NULL;
}

static void
drop(Domain *domain)
{
	domains = list_delete_ptr(domains, domain);
	list_free(domain->sources);
	if (domain->query)
		pfree(domain->query);
	pfree(domain);
}

static List *
cached_sources(Oid product, List *rules)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, rules)
	{
		const KcfRule *rule = lfirst(lc);

		if (rule->product == product && get_rel_relkind(rule->source) == RELKIND_FOREIGN_TABLE)
			result = lappend_oid(result, rule->source);
	}
	return result;
}

static bool
same_query(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

typedef struct Definition
{
	Oid relid;
	List *rules;
} Definition;

static void
define(void *arg)
{
	const Definition *definition = arg;
	KcfTableDef *def = kcf_catalog_cached(definition->relid);
	const KcfTableOptions *options = def->options;
	Domain *domain = find(definition->relid);
	MemoryContext old;

	if (!kcf_is_product(def) || (options->refresh_every == 0 && options->domain == NULL))
		return;
	if (domain &&
		(domain->every_ms != options->refresh_every || !same_query(domain->query, options->domain)))
	{
		drop(domain);
		domain = NULL;
	}
	old = MemoryContextSwitchTo(kcf_rules_cxt);
	if (domain == NULL)
	{
		domain = palloc0(sizeof(Domain));
		domain->product = definition->relid;
		domain->every_ms = options->refresh_every;
		domain->query = options->domain ? pstrdup(options->domain) : NULL;
		domains = lappend(domains, domain);
	}
	list_free(domain->sources);
	domain->sources = cached_sources(domain->product, definition->rules);
	domain->seen = true;
	MemoryContextSwitchTo(old);
}

void
kcf_rules_domains_define(List *tables, List *rules)
{
	List *copy;
	ListCell *lc;

	foreach (lc, domains)
		((Domain *) lfirst(lc))->seen = false;
	foreach (lc, tables)
	{
		Definition definition = { lfirst_oid(lc), rules };
		ErrorData *edata = kcf_rules_attempt(define, &definition);
		Domain *domain = find(lfirst_oid(lc));

		/* What is wrong with a definition is said by its consumer. */
		if (edata && domain)
			domain->seen = true;
	}
	copy = list_copy(domains);
	foreach (lc, copy)
	{
		Domain *domain = lfirst(lc);

		if (!domain->seen)
			drop(domain);
	}
	list_free(copy);
}

/* ---- a look -------------------------------------------------------------------------------- */

typedef struct Look
{
	Domain *domain;
	KcfTableDef *def;
	KcfRowWriter *writer;
	KcfSnapshot *state;
	int64 now_ms;
	int64 next_ms; /* when the next row is due */
	bool ready;
	bool full;
	MemoryContext per_key;
} Look;

/* A row of then is due, or when it is. */
static bool
is_old(Look *look, int64 timestamp)
{
	int64 every = look->domain->every_ms;

	if (every == 0)
		return false;
	if (timestamp <= look->now_ms - every + every / PART)
		return true;
	look->next_ms = Min(look->next_ms, timestamp + every);
	return false;
}

static bool
request(Look *look, const Datum *key)
{
	MemoryContext old = MemoryContextSwitchTo(look->per_key);

	look->full = !kcf_refreshq_request(look->domain->product, kcf_product_key_bytes(look->def, key),
									   KCF_REFRESH_PERIOD, 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(look->per_key);
	return !look->full;
}

static bool
look_at_row(void *arg, KcfTableDef *def, const KcfRow *row, const Datum *key)
{
	Look *look = arg;

	return !is_old(look, row->timestamp) || request(look, key);
}

/* The keys that were fetched; under the pin only what lies in memory is read. */
static void
look_at_keys(Look *look)
{
	TupleDesc desc = SPI_tuptable->tupdesc;
	uint64 n = SPI_processed;
	int nkeys = look->def->key.nkeys;
	Datum(*keys)[KCF_MAX_KEYS] = palloc(n * sizeof(*keys));
	uint64 nwanted = 0;
	KcfView view;

	kcf_snapshot_enter();
	PG_TRY();
	{
		look->ready = kcf_snapshot_peek(look->state, look->domain->product, &view);
		for (uint64 i = 0; look->ready && i < n; i++)
		{
			Datum *key = keys[nwanted];
			bool isnull = false;
			const KcfRow *row;

			for (int k = 0; k < nkeys && !isnull; k++)
				key[k] = SPI_getbinval(SPI_tuptable->vals[i], desc, k + 1, &isnull);
			if (isnull)
				continue;
			row = kcf_store_find_any(view.store, &look->def->key,
									 kcf_row_key_hash(look->writer, key), key, view.seq);
			if (row == NULL || is_old(look, row->timestamp))
				nwanted++;
		}
	}
	PG_FINALLY();
	{
		kcf_snapshot_leave();
	}
	PG_END_TRY();
	for (uint64 i = 0; i < nwanted && !look->full; i++)
		(void) request(look, keys[i]);
	pfree(keys);
}

/* The domain's query with its columns as the key's types. */
static char *
query_of(const Look *look)
{
	StringInfoData buf;
	char *query = pstrdup(look->domain->query);
	Size len = strlen(query);

	while (len > 0 && (query[len - 1] == ';' || isspace((unsigned char) query[len - 1])))
		query[--len] = '\0';
	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT ");
	for (int i = 0; i < look->def->key.nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(look->def->desc, look->def->key.keys[i].attnum - 1);

		appendStringInfo(&buf, "%sd.k%d::%s", i > 0 ? ", " : "", i + 1,
						 format_type_be_qualified(att->atttypid));
	}
	/* It may end with a comment. */
	appendStringInfo(&buf, " FROM (%s\n) d(", query);
	for (int i = 0; i < look->def->key.nkeys; i++)
		appendStringInfo(&buf, "%sk%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static void
look_at_domain(Look *look)
{
	KcfRulesUser before;
	SPIPlanPtr plan;
	Portal portal;

	SPI_connect();
	kcf_rules_as_owner(look->def->owner, &before);
	/* Nobody else's rules wait for a table that is not there yet: this one comes again. */
	(void) set_config_option("kafka_cache.when_not_ready", "error", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	plan = SPI_prepare(query_of(look), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	while (look->ready && !look->full)
	{
		SPI_cursor_fetch(portal, true, KEYS_AT_ONCE);
		if (SPI_processed == 0)
			break;
		look_at_keys(look);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	kcf_rules_as_before(&before);
	SPI_finish();
}

static bool
sources_are_ready(const Look *look)
{
	KcfView view;
	ListCell *lc;

	foreach (lc, look->domain->sources)
	{
		if (!kcf_snapshot_peek(look->state, lfirst_oid(lc), &view))
			return false;
	}
	return kcf_snapshot_peek(look->state, look->domain->product, &view);
}

static void
look_at(void *arg)
{
	Look *look = arg;

	look->def = kcf_catalog_cached(look->domain->product);
	look->writer = kcf_row_writer_create(look->def, CurrentMemoryContext);
	look->per_key =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache key", ALLOCSET_SMALL_SIZES);
	look->ready = sources_are_ready(look);
	if (!look->ready)
		return;
	if (look->domain->query)
		look_at_domain(look);
	else
		look->ready = kcf_rules_each_row(look->state, look->domain->product, look_at_row, look);
}

static void
turn(Domain *domain)
{
	TimestampTz start = GetCurrentTimestamp();
	Look look = { .domain = domain,
				  .now_ms = kcf_product_millis(start),
				  .next_ms = PG_INT64_MAX,
				  .state = kcf_snapshot_hold() };
	ErrorData *edata = NULL;
	long took_ms;
	int64 wait_ms;

	domain->next = TimestampTzPlusMilliseconds(start, KCF_RULES_RETRY_MS);
	if (look.state == NULL)
		return;
	edata = kcf_rules_attempt(look_at, &look);
	kcf_snapshot_release(look.state);
	if (edata)
	{
		/* A table that is not ready becomes so. */
		if (edata->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		{
			domain->next = TimestampTzPlusMilliseconds(start, 10 * KCF_RULES_RETRY_MS);
			kcf_rules_complain(&domain->complained, edata,
							   "could not read the domain of the data product %s",
							   kcf_rules_name(domain->product));
		}
		return;
	}
	if (!look.ready || look.full)
		return;
	if (domain->every_ms == 0)
	{
		domain->next = DT_NOEND;
		return;
	}
	took_ms = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
	wait_ms = Min(look.next_ms - look.now_ms, domain->every_ms);
	wait_ms = Max(wait_ms, Max(domain->every_ms / PART, (int64) took_ms * COST));
	domain->next = TimestampTzPlusMilliseconds(start, Max(wait_ms, LOOK_MIN_MS));
}

long
kcf_rules_domains_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long wait = -1;
	ListCell *lc;

	foreach (lc, domains)
	{
		Domain *domain = lfirst(lc);
		int64 ms;

		if (domain->next <= now)
			turn(domain);
		if (domain->next == DT_NOEND)
			continue;
		ms = domain->next <= now ? 0 : 1 + TimestampDifferenceMilliseconds(now, domain->next);
		wait = kcf_rules_sooner(wait, (long) ms);
	}
	return wait;
}
