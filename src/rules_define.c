/*
 * rules_define.c
 *		kafka_cache.refresh_on and refresh_off.
 *
 * What refers to what is one graph, and it must not have a cycle: so the table of rules is locked against others who
 * define while it is looked at.
 */
#include "postgres.h"

#include "rules_internal.h"

#include "compat.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(kafka_cache_refresh_on);
PG_FUNCTION_INFO_V1(kafka_cache_refresh_on_named);
PG_FUNCTION_INFO_V1(kafka_cache_refresh_off);

static bool
is_product(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE && kcf_catalog_is_ours(relid) &&
		   kcf_is_product(kcf_catalog_cached(relid));
}

/* It stays there until the transaction's end. */
static void
lock_relation(Oid relid)
{
	LockRelationOid(relid, AccessShareLock);
	if (get_rel_relkind(relid) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
}

static void
check_product(Oid product)
{
	lock_relation(product);
	if (!kcf_owns_relation(product, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE, get_rel_name(product));
	if (!is_product(product))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a data product", get_rel_name(product)),
						errhint("A data product is a cached table with the option \"compute\".")));
}

/* The product's owner gets to see the source's rows, and whoever defines this may let it. Is it an ordinary table? */
static bool
check_source(Oid source, Oid owner)
{
	char relkind;
	bool ordinary;
	AclMode mode;
	Oid whose[] = { owner, GetUserId() };

	lock_relation(source);
	relkind = get_rel_relkind(source);
	ordinary = relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
	if ((!ordinary && !(relkind == RELKIND_FOREIGN_TABLE && kcf_catalog_is_ours(source))) ||
		get_rel_namespace(source) == get_namespace_oid("kafka_cache", false))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("products cannot be refreshed on changes of \"%s\"", get_rel_name(source)),
				 errdetail("A source is a cached table, a data product or an ordinary table.")));
	mode = ordinary ? ACL_TRIGGER : ACL_SELECT;
	for (int i = 0; i < (int) lengthof(whose); i++)
	{
		AclResult result = pg_class_aclcheck(source, whose[i], mode);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, ordinary ? OBJECT_TABLE : OBJECT_FOREIGN_TABLE,
						   get_rel_name(source));
	}
	return ordinary;
}

static Oid
find_function(const char *name, Oid source)
{
	Oid row = get_rel_type_id(source);
	Oid types[] = { row, row };
	List *names;
	Oid function;

	if (strchr(name, '(') != NULL)
		return DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(name)));
	names = textToQualifiedNameList(cstring_to_text(name));
	function = LookupFuncName(names, 2, types, true);
	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s(%s, %s) does not exist", NameListToString(names),
							   format_type_be(row), format_type_be(row)),
						errhint("Its arguments are the source's old row and its new one; it gives "
								"the product's keys.")));
	return function;
}

static void
check_function(Oid function, Oid product, Oid source, Oid owner)
{
	Oid row = get_rel_type_id(source);
	AclResult result;
	Oid *types;
	int ntypes;

	if (!OidIsValid(function) || get_func_name(function) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with OID %u does not exist", function)));
	(void) get_func_signature(function, &types, &ntypes);
	if (ntypes != 2 || types[0] != row || types[1] != row)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("function %s does not take an old and a new row of \"%s\"",
							   format_procedure(function), get_rel_name(source)),
						errhint("Its arguments must be (%s, %s).", format_type_be(row),
								format_type_be(row))));
	kcf_rule_check_function(kcf_catalog_cached(product), function);
	result = kcf_function_aclcheck(function, owner);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
}

/* Do both show the records of one topic? */
static bool
same_topic(Oid a, Oid b)
{
	const KcfTableDef *one;
	const KcfTableDef *other;

	if (a == b)
		return true;
	if (get_rel_relkind(a) != RELKIND_FOREIGN_TABLE || get_rel_relkind(b) != RELKIND_FOREIGN_TABLE)
		return false;
	one = kcf_catalog_cached(a);
	other = kcf_catalog_cached(b);
	return one->serverid == other->serverid &&
		   strcmp(one->options->topic, other->options->topic) == 0;
}

/* Is the first refreshed on changes of the second, be it by way of others? */
static bool
depends_on(List *rules, Oid product, Oid source, List *visited)
{
	ListCell *lc;

	if (same_topic(product, source))
		return true;
	if (list_member_oid(visited, product))
		return false;
	visited = lappend_oid(list_copy(visited), product);
	foreach (lc, rules)
	{
		const KcfRule *rule = lfirst(lc);

		if (same_topic(rule->product, product) && depends_on(rules, rule->source, source, visited))
			return true;
	}
	return false;
}

static void
check_cycles(Oid product, Oid source)
{
	if (depends_on(kcf_rules_read(), source, product, NIL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("data product \"%s\" would be refreshed on changes of itself",
						get_rel_name(product)),
				 product == source
					 ? 0
					 : errdetail("\"%s\" is refreshed on changes of it, be it by way of others.",
								 get_rel_name(source))));
}

/* ---- writing ------------------------------------------------------------------------------- */

static uint64
run(const char *command, Oid product, Oid source, const char *keys)
{
	Oid types[] = { OIDOID, OIDOID, TEXTOID };
	Datum values[] = { ObjectIdGetDatum(product), ObjectIdGetDatum(source),
					   keys ? CStringGetTextDatum(keys) : (Datum) 0 };
	KcfRulesUser before;
	uint64 n;
	int result;

	kcf_rules_as_extension(&before);
	SPI_connect();
	result = SPI_execute_with_args(command, keys ? 3 : 2, types, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	n = SPI_processed;
	SPI_finish();
	kcf_rules_as_before(&before);
	return n;
}

static void
refresh_on(Oid product, Oid source, const char *name, Oid function)
{
	Oid rules = kcf_rules_table("refresh_rules");
	Oid owner;
	bool ordinary;
	char *keys;

	check_product(product);
	owner = kcf_catalog_cached(product)->owner;
	ordinary = check_source(source, owner);
	if (!OidIsValid(function))
		function = find_function(name, source);
	check_function(function, product, source, owner);
	keys = quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
									  get_func_name(function));

	LockRelationOid(rules, ShareRowExclusiveLock);
	check_cycles(product, source);
	(void) run("INSERT INTO kafka_cache.refresh_rules (product, source, keys) VALUES ($1, $2, $3)"
			   " ON CONFLICT (product, source) DO UPDATE SET keys = excluded.keys",
			   product, source, keys);
	(void) run("DELETE FROM kafka_cache.refresh_positions WHERE product = $1 AND source = $2",
			   product, source, NULL);
	if (ordinary)
		kcf_rules_make_triggers(source);
}

Datum
kafka_cache_refresh_on(PG_FUNCTION_ARGS)
{
	refresh_on(PG_GETARG_OID(0), PG_GETARG_OID(1), NULL, PG_GETARG_OID(2));
	PG_RETURN_VOID();
}

Datum
kafka_cache_refresh_on_named(PG_FUNCTION_ARGS)
{
	refresh_on(PG_GETARG_OID(0), PG_GETARG_OID(1), text_to_cstring(PG_GETARG_TEXT_PP(2)),
			   InvalidOid);
	PG_RETURN_VOID();
}

Datum
kafka_cache_refresh_off(PG_FUNCTION_ARGS)
{
	Oid product = PG_GETARG_OID(0);
	Oid source = PG_GETARG_OID(1);

	check_product(product);
	lock_relation(source);
	LockRelationOid(kcf_rules_table("refresh_rules"), ShareRowExclusiveLock);
	if (run("DELETE FROM kafka_cache.refresh_rules WHERE product = $1 AND source = $2", product,
			source, NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("data product \"%s\" is not refreshed on changes of \"%s\"",
							   get_rel_name(product), get_rel_name(source))));
	(void) run("DELETE FROM kafka_cache.refresh_positions WHERE product = $1 AND source = $2",
			   product, source, NULL);
	kcf_rules_drop_triggers(source);
	PG_RETURN_VOID();
}
