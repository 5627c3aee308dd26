/*
 * rules_list.c
 *		Reading kafka_cache.refresh_rules, and as whom that is done.
 */
#include "postgres.h"

#include "rules_internal.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

enum
{
	RULE_PRODUCT = 1,
	RULE_SOURCE,
	RULE_KEYS
};

static MemoryContext cached_cxt = NULL;
static List *cached = NIL;
static Oid cached_table = InvalidOid; /* of which these are */
static bool valid = false;
static uint64 changes = 1;

Oid
kcf_rules_table(const char *name)
{
	Oid namespace = get_namespace_oid("kafka_cache", true);

	return OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
}

static KcfRule *
rule_of(HeapTuple tuple, TupleDesc desc)
{
	KcfRule *rule = palloc(sizeof(KcfRule));
	bool isnull;

	rule->product = DatumGetObjectId(heap_getattr(tuple, RULE_PRODUCT, desc, &isnull));
	rule->source = DatumGetObjectId(heap_getattr(tuple, RULE_SOURCE, desc, &isnull));
	rule->keys = TextDatumGetCString(heap_getattr(tuple, RULE_KEYS, desc, &isnull));
	return rule;
}

List *
kcf_rules_read(void)
{
	Oid relid = kcf_rules_table("refresh_rules");
	List *rules = NIL;
	Relation rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	TableScanDesc scan;
	HeapTuple tuple;
	Snapshot snapshot;

	if (rel == NULL)
		return NIL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		rules = lappend(rules, rule_of(tuple, RelationGetDescr(rel)));
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return rules;
}

List *
kcf_rules_cached(void)
{
	MemoryContext old;
	uint64 before = changes;

	if (valid)
		return cached;
	if (cached_cxt == NULL)
		cached_cxt =
			AllocSetContextCreate(TopMemoryContext, "kafka_cache rules", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(cached_cxt);
	cached = NIL;
	cached_table = kcf_rules_table("refresh_rules");
	old = MemoryContextSwitchTo(cached_cxt);
	cached = kcf_rules_read();
	MemoryContextSwitchTo(old);
	/* What is invalidated while it is read is read again. */
	valid = before == changes;
	return cached;
}

KcfRule *
kcf_rule_copy(const KcfRule *rule)
{
	KcfRule *copy = palloc(sizeof(KcfRule));

	*copy = *rule;
	copy->keys = pstrdup(rule->keys);
	return copy;
}

uint64
kcf_rules_changes(void)
{
	return changes;
}

static void
forget(Datum arg, Oid relid)
{
	/* One that is not there may come to be by any invalidation. */
	if (OidIsValid(relid) && OidIsValid(cached_table) && relid != cached_table)
		return;
	valid = false;
	changes++;
}

void
kcf_rules_list_init(void)
{
	CacheRegisterRelcacheCallback(forget, (Datum) 0);
}

/* ---- somebody else ------------------------------------------------------------------------- */

static void
become(Oid userid, int sec_context, KcfRulesUser *before)
{
	GetUserIdAndSecContext(&before->userid, &before->sec_context);
	before->nestlevel = kcf_product_settings_fix();
	SetUserIdAndSecContext(userid, before->sec_context | sec_context);
}

void
kcf_rules_as_owner(Oid owner, KcfRulesUser *before)
{
	become(owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION, before);
}

void
kcf_rules_as_extension(KcfRulesUser *before)
{
	Oid relid = kcf_rules_table("refresh_rules");
	Relation rel;
	Oid owner;

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation \"kafka_cache.refresh_rules\" does not exist"),
						errhint("Update the extension: ALTER EXTENSION kafka_cache_fdw UPDATE;")));
	rel = table_open(relid, AccessShareLock);
	owner = rel->rd_rel->relowner;
	table_close(rel, AccessShareLock);
	become(owner, SECURITY_LOCAL_USERID_CHANGE, before);
}

void
kcf_rules_as_before(const KcfRulesUser *before)
{
	kcf_product_settings_restore(before->nestlevel);
	SetUserIdAndSecContext(before->userid, before->sec_context);
}
