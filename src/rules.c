/*
 * rules.c
 *		The coordinator's turn: what has changed, and what of that it has to look at.
 *
 * Nothing here is lost by an error or by the end of this process. What is known of sources and intervals is made anew;
 * what transactions have asked for lies in kafka_cache.refresh_log until it is done.
 */
#include "postgres.h"

#include "rules.h"

#include "rules_coordinator.h"

#include "refresh_log.h"
#include "registry.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define COMPLAIN_MS 60000
/* Prepared transactions of others may have been committed, of which nobody tells us. */
#define LOG_MS 10000

MemoryContext kcf_rules_cxt = NULL;

static bool ordinary = false; /* there are rules on ordinary tables */
static int nrules = 0;
static bool defined = false;
static uint32 news = 0;
static uint32 ddl = 0;
static char *log_snapshot = NULL; /* of the last reading of the log */
static bool log_wanted = true;
static TimestampTz log_read_at = 0;
static TimestampTz complained = 0;

/* ---- transactions -------------------------------------------------------------------------- */

ErrorData *
kcf_rules_attempt(void (*what)(void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData *volatile edata = NULL;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		what(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return edata;
}

typedef struct Naming
{
	Oid relid;
	MemoryContext kept;
	char *text;
} Naming;

static void
read_name(void *arg)
{
	Naming *name = arg;
	char *table = get_rel_name(name->relid);

	if (table)
		name->text = MemoryContextStrdup(
			name->kept,
			quote_qualified_identifier(get_namespace_name(get_rel_namespace(name->relid)), table));
}

char *
kcf_rules_name(Oid relid)
{
	Naming name = { relid, CurrentMemoryContext, NULL };

	(void) kcf_rules_attempt(read_name, &name);
	return name.text ? name.text : psprintf("with OID %u", relid);
}

void
kcf_rules_complain(TimestampTz *last, const ErrorData *edata, const char *fmt, ...)
{
	TimestampTz now = GetCurrentTimestamp();
	StringInfoData buf;
	int needed;

	if (*last != 0 && !TimestampDifferenceExceeds(*last, now, COMPLAIN_MS))
		return;
	*last = now;
	initStringInfo(&buf);
	for (;;)
	{
		va_list args;

		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	/* What a function says may tell what it was called for. */
	ereport(LOG, (errmsg("%s: SQLSTATE %s", buf.data, unpack_sql_state(edata->sqlerrcode)),
				  errhint("Run its function or query by hand to see what it says.")));
}

/* ---- definitions --------------------------------------------------------------------------- */

typedef struct Definitions
{
	MemoryContext kept;
	List *rules;
	List *tables;
} Definitions;

static void
read_definitions(void *arg)
{
	Definitions *definitions = arg;
	MemoryContext old = MemoryContextSwitchTo(definitions->kept);
	ListCell *lc;

	foreach (lc, kcf_rules_read())
	{
		KcfRule *rule = lfirst(lc);

		if (get_rel_relkind(rule->product) != RELKIND_FOREIGN_TABLE ||
			get_rel_relkind(rule->source) == '\0')
			continue;
		definitions->rules = lappend(definitions->rules, rule);
		ordinary |= get_rel_relkind(rule->source) != RELKIND_FOREIGN_TABLE;
	}
	definitions->tables = kcf_catalog_tables();
	MemoryContextSwitchTo(old);
}

static void
define_sources(void *arg)
{
	kcf_rules_sources_define(arg);
}

static void
define(void)
{
	Definitions definitions = { .kept = CurrentMemoryContext };
	ErrorData *edata;

	ordinary = false;
	edata = kcf_rules_attempt(read_definitions, &definitions);
	if (edata == NULL)
		edata = kcf_rules_attempt(define_sources, definitions.rules);
	if (edata)
	{
		kcf_rules_complain(&complained, edata, "could not read the rules of data products");
		return;
	}
	kcf_rules_domains_define(definitions.tables, definitions.rules);
	kcf_rules_request_prune();
	nrules = list_length(definitions.rules);
	defined = true;
}

/* ---- the log ------------------------------------------------------------------------------- */

typedef struct LogReading
{
	MemoryContext kept;
	List *logged; /* of KcfLogged */
	char *snapshot;
} LogReading;

static bool
keep_logged(void *arg, const KcfLogged *logged)
{
	LogReading *reading = arg;
	MemoryContext old = MemoryContextSwitchTo(reading->kept);
	KcfLogged *copy = palloc(sizeof(KcfLogged));

	*copy = *logged;
	if (logged->key.data)
	{
		char *data = palloc(Max(logged->key.len, 1));

		memcpy(data, logged->key.data, logged->key.len);
		copy->key.data = data;
	}
	if (logged->hints)
		copy->hints =
			(Jsonb *) DatumGetPointer(datumCopy(JsonbPGetDatum(logged->hints), false, -1));
	reading->logged = lappend(reading->logged, copy);
	MemoryContextSwitchTo(old);
	return true;
}

static void
read_log(void *arg)
{
	LogReading *reading = arg;
	char *snapshot;

	/* The extension's objects may be of an older version. */
	if (!OidIsValid(kcf_rules_table("refresh_log")))
		return;
	SPI_connect();
	snapshot = kcf_refresh_log_read(log_snapshot, keep_logged, reading);
	if (snapshot)
		reading->snapshot = MemoryContextStrdup(reading->kept, snapshot);
	SPI_finish();
}

/* Of a product that is none any more. */
static void
drop_logged(void *arg)
{
	const KcfLogged *logged = arg;

	SPI_connect();
	kcf_refresh_log_settle_one(logged->id);
	SPI_finish();
}

typedef struct ProductTest
{
	Oid relid;
	bool is_product;
} ProductTest;

static void
test_product(void *arg)
{
	ProductTest *test = arg;

	test->is_product = get_rel_relkind(test->relid) == RELKIND_FOREIGN_TABLE &&
					   kcf_catalog_is_ours(test->relid) &&
					   kcf_is_product(kcf_catalog_cached(test->relid));
}

static void
work_off(List *all)
{
	ProductTest test = { InvalidOid, false };
	ListCell *lc;

	foreach (lc, all)
	{
		KcfLogged *logged = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (test.relid != logged->product)
		{
			test.relid = logged->product;
			test.is_product = false;
			/* What is broken now may be mended: it stays in the log. */
			if (kcf_rules_attempt(test_product, &test) != NULL)
				continue;
		}
		if (!test.is_product)
			(void) kcf_rules_attempt(drop_logged, logged);
		else if (logged->key.data == NULL)
			kcf_rules_request_all(logged->product, logged->id);
		else
			kcf_rules_request(logged->product, logged->key, logged->id, logged->hints);
	}
}

static void
look_at_log(void)
{
	LogReading reading = { .kept = CurrentMemoryContext };
	ErrorData *edata = kcf_rules_attempt(read_log, &reading);

	log_read_at = GetCurrentTimestamp();
	if (edata)
	{
		kcf_rules_complain(&complained, edata, "could not read kafka_cache.refresh_log");
		return;
	}
	log_wanted = false;
	if (log_snapshot)
		pfree(log_snapshot);
	log_snapshot = reading.snapshot ? MemoryContextStrdup(kcf_rules_cxt, reading.snapshot) : NULL;
	work_off(reading.logged);
}

/* ---- the turn ------------------------------------------------------------------------------ */

static void
hear_news(void)
{
	KcfDatabase *db = kcf_database(kcf_my_database());
	uint32 news_now = pg_atomic_read_u32(&db->rules_news);
	uint32 ddl_now = pg_atomic_read_u32(&db->ddl);

	/* Noted first: what comes while we look is looked at again. */
	if (!defined || news != news_now || ddl != ddl_now)
	{
		news = news_now;
		ddl = ddl_now;
		define();
		log_wanted = true;
	}
	if (ordinary && TimestampDifferenceExceeds(log_read_at, GetCurrentTimestamp(), LOG_MS))
		log_wanted = true;
	if (log_wanted)
		look_at_log();
}

/* For kafka_cache.workers. */
static void
say(void)
{
	static int rules_said = 0;
	static int unknown_said = 0;
	int unknown = kcf_rules_sources_unknown();

	if (nrules == rules_said && unknown == unknown_said)
		return;
	rules_said = nrules;
	unknown_said = unknown;
	if (unknown > 0)
		kcf_worker_say("running", "%d rule%s, of which %d cannot be followed now", nrules,
					   nrules == 1 ? "" : "s", unknown);
	else
		kcf_worker_say("running", "%d rule%s", nrules, nrules == 1 ? "" : "s");
}

long
kcf_rules_turn(bool *stay)
{
	static MemoryContext turn_cxt = NULL;
	MemoryContext old = CurrentMemoryContext;
	long wait;
	long domains;

	if (kcf_rules_cxt == NULL)
	{
		kcf_rules_cxt =
			AllocSetContextCreate(TopMemoryContext, "kafka_cache rules", ALLOCSET_SMALL_SIZES);
		turn_cxt =
			AllocSetContextCreate(kcf_rules_cxt, "kafka_cache rules' turn", ALLOCSET_DEFAULT_SIZES);
	}
	*stay = false;
	if (kcf_my_database() < 0)
		return -1;
	MemoryContextReset(turn_cxt);
	MemoryContextSwitchTo(turn_cxt);
	hear_news();
	wait = kcf_rules_sources_turn();
	domains = kcf_rules_domains_turn();
	wait = kcf_rules_sooner(wait, domains);
	wait = kcf_rules_sooner(wait, kcf_rules_request_turn());
	if (!defined || log_wanted)
		wait = kcf_rules_sooner(wait, KCF_RULES_RETRY_MS);
	if (ordinary)
		wait = kcf_rules_sooner(wait, LOG_MS);
	*stay = nrules > 0 || wait >= 0;
	say();
	MemoryContextSwitchTo(old);
	MemoryContextReset(turn_cxt);
	return wait;
}

void
kcf_rules_init(void)
{
	kcf_rules_list_init();
	kcf_rules_trigger_init();
	kcf_rules_drop_init();
}
