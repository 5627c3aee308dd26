/*
 * rules_trigger.c
 *		Ordinary tables as sources: their triggers, which write down what is to be refreshed.
 *
 * A request is a row of kafka_cache.refresh_log, written by the transaction that has changed the source: so it is there
 * when that commits, and only then, whatever happens next. A rule's function runs as the product's owner. What is wrong
 * with a rule's definition must not stop those who write to the source: then all that is cached of the product is
 * refreshed, with a warning; what the function raises is theirs to see, as with any trigger.
 */
#include "postgres.h"

#include "rules_internal.h"

#include "product_key.h"
#include "refresh_log.h"
#include "registry.h"

#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(kafka_cache_log_changes);
PG_FUNCTION_INFO_V1(kafka_cache_rules_changed);

/* ---- telling the coordinator --------------------------------------------------------------- */

static bool tell = false;

void
kcf_rules_tell_at_commit(void)
{
	tell = true;
}

/* Others see what was committed by now. */
static void
at_xact_end(XactEvent event, void *arg)
{
	int database;

	if (!tell)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			tell = false;
			database = kcf_my_database();
			if (database >= 0)
			{
				(void) pg_atomic_fetch_add_u32(&kcf_database(database)->rules_news, 1);
				kcf_refreshers_want(database, 1);
			}
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			tell = false;
			break;
		default:
			break;
	}
}

void
kcf_rules_trigger_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
}

/* AFTER STATEMENT trigger of kafka_cache.refresh_rules, whoever writes to it: pg_restore does. */
Datum
kafka_cache_rules_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by the trigger manager")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	kcf_rules_tell_at_commit();
	return PointerGetDatum(NULL); /* a trigger never returns SQL NULL */
}

/* ---- the triggers -------------------------------------------------------------------------- */

static const struct
{
	const char *event;
	int16 type;
	const char *referencing;
} triggers[] = {
	{ "insert", TRIGGER_TYPE_INSERT, "REFERENCING NEW TABLE AS " KCF_RULE_NEW_NAME },
	{ "update", TRIGGER_TYPE_UPDATE,
	  "REFERENCING OLD TABLE AS " KCF_RULE_OLD_NAME " NEW TABLE AS " KCF_RULE_NEW_NAME },
	{ "delete", TRIGGER_TYPE_DELETE, "REFERENCING OLD TABLE AS " KCF_RULE_OLD_NAME },
	{ "truncate", TRIGGER_TYPE_TRUNCATE, "" },
};

static char *
name_of(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static void
run(const char *command)
{
	int result;

	SPI_connect();
	result = SPI_execute(command, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	SPI_finish();
}

/* As the user, who needs the right to. */
bool
kcf_rules_make_triggers(Oid source)
{
	bool made = false;

	for (int i = 0; i < (int) lengthof(triggers); i++)
	{
		char *name = psprintf("kafka_cache_refresh_%s", triggers[i].event);

		if (OidIsValid(get_trigger_oid(source, name, true)))
			continue;
		run(psprintf("CREATE TRIGGER %s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION "
					 "kafka_cache.log_changes()",
					 name, triggers[i].event, name_of(source), triggers[i].referencing));
		made = true;
	}
	return made;
}

/* As the extension's owner: they are its own, and who ends a rule need not own the source. */
void
kcf_rules_drop_triggers(Oid source)
{
	KcfRulesUser before;
	ListCell *lc;

	foreach (lc, kcf_rules_read())
	{
		if (((KcfRule *) lfirst(lc))->source == source)
			return;
	}
	for (int i = 0; i < (int) lengthof(triggers); i++)
	{
		char *name = psprintf("kafka_cache_refresh_%s", triggers[i].event);

		if (!OidIsValid(get_trigger_oid(source, name, true)))
			continue;
		kcf_rules_as_extension(&before);
		run(psprintf("DROP TRIGGER %s ON %s", name, name_of(source)));
		kcf_rules_as_before(&before);
	}
}

/* ---- what they do -------------------------------------------------------------------------- */

/* Plans of this session, by rule and kind of rows. */
typedef struct RulePlan
{
	Oid product; /* the key: these three */
	Oid source;
	KcfRuleRows rows;
	uint64 changes; /* of rules and of definitions, when it was made */
	uint64 catalogs;
	SPIPlanPtr plan;
} RulePlan;

#define PLAN_KEY_SIZE offsetof(RulePlan, changes)

static HTAB *plans = NULL;

static RulePlan *
plan_for(const KcfRule *rule, KcfRuleRows rows)
{
	RulePlan key;
	RulePlan *plan;
	bool found;

	if (plans == NULL)
	{
		HASHCTL ctl = { .keysize = PLAN_KEY_SIZE, .entrysize = sizeof(RulePlan) };

		plans = hash_create("kafka_cache rules' plans", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	memset(&key, 0, sizeof(key));
	key.product = rule->product;
	key.source = rule->source;
	key.rows = rows;
	plan = hash_search(plans, &key, HASH_ENTER, &found);
	if (!found)
		plan->plan = NULL;
	return plan;
}

typedef struct Log
{
	KcfTableDef *product;
	List *requests; /* of Request */
} Log;

typedef struct Request
{
	KcfSlice key;
	Jsonb *hints;
} Request;

static void
note_key(void *arg, const Datum *key, Jsonb *hints)
{
	Log *log = arg;
	Request *request = palloc(sizeof(Request));

	request->key = kcf_product_key_bytes(log->product, key);
	request->hints = hints ? DatumGetJsonbPCopy(JsonbPGetDatum(hints)) : NULL;
	log->requests = lappend(log->requests, request);
}

/* The keys, by the rule's function. */
static void
collect(const KcfRule *rule, Oid function, TriggerData *trigger, Log *log)
{
	KcfRuleRows rows = TRIGGER_FIRED_BY_INSERT(trigger->tg_event)   ? KCF_RULE_NEW
					   : TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? KCF_RULE_OLD
																	: KCF_RULE_BOTH;
	RulePlan *plan = plan_for(rule, rows);
	MemoryContext caller = CurrentMemoryContext;
	KcfRulesUser before;

	SPI_connect();
	if (SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "could not register the transition tables");
	kcf_rules_as_owner(log->product->owner, &before);
	if (plan->plan == NULL || plan->changes != kcf_rules_changes() ||
		plan->catalogs != kcf_catalog_changes())
	{
		char *query = kcf_rule_query(rule, log->product, function, rows);

		if (plan->plan)
			SPI_freeplan(plan->plan);
		plan->plan = NULL;
		plan->changes = kcf_rules_changes();
		plan->catalogs = kcf_catalog_changes();
		plan->plan = SPI_prepare(query, 0, NULL);
		if (plan->plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan->plan);
	}
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);

		kcf_rule_keys(plan->plan, log->product, note_key, log);
		MemoryContextSwitchTo(spi);
	}
	kcf_rules_as_before(&before);
	SPI_finish();
}

static void
log_rule(const KcfRule *rule, TriggerData *trigger)
{
	Log log = { .product = kcf_catalog_cached(rule->product) };
	bool all = TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event);
	KcfRulesUser before;
	ListCell *lc;

	if (!all)
	{
		Oid function = kcf_rule_function(rule);

		if (OidIsValid(function))
			collect(rule, function, trigger, &log);
		else
		{
			ereport(WARNING, (errcode(ERRCODE_UNDEFINED_FUNCTION),
							  errmsg("function %s of data product \"%s\" does not exist",
									 rule->keys, get_rel_name(rule->product)),
							  errdetail("All that is cached of the product is refreshed."),
							  errhint("Name another one with kafka_cache.refresh_on().")));
			all = true;
		}
	}
	if (!all && log.requests == NIL)
		return;
	kcf_rules_as_extension(&before);
	SPI_connect();
	if (all)
		kcf_refresh_log_add(rule->product, NULL, NULL);
	foreach (lc, log.requests)
	{
		Request *request = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		kcf_refresh_log_add(rule->product, &request->key, request->hints);
	}
	SPI_finish();
	kcf_rules_as_before(&before);
	kcf_rules_tell_at_commit();
}

static void
context_of_rule(void *arg)
{
	const KcfRule *rule = arg;

	errcontext("function %s that tells the keys of data product \"%s\"", rule->keys,
			   get_rel_name(rule->product));
}

/* AFTER STATEMENT trigger of a source. */
Datum
kafka_cache_log_changes(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MemoryContext cxt;
	MemoryContext old;
	List *rules = NIL;
	ListCell *lc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function was not called by a trigger of kafka_cache.refresh_on()")));
	cxt = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache rules' trigger",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	/* Copied: a function of a rule may do what throws the kept list away. */
	foreach (lc, kcf_rules_cached())
	{
		const KcfRule *rule = lfirst(lc);

		if (rule->source == RelationGetRelid(trigger->tg_relation))
			rules = lappend(rules, kcf_rule_copy(rule));
	}
	foreach (lc, rules)
	{
		ErrorContextCallback callback = { error_context_stack, context_of_rule, lfirst(lc) };

		error_context_stack = &callback;
		log_rule(lfirst(lc), trigger);
		error_context_stack = callback.previous;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return PointerGetDatum(NULL); /* a trigger never returns SQL NULL */
}
