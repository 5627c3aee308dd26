/*
 * options_resolve.c
 *		From what the catalogs say to what tables, columns and clients are made of.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "options_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Store a value in the field of KcfTableOptions that its row names. */
static void
store_table_option(KcfTableOptions *result, const KcfOption *option, const char *value)
{
	char *field = (char *) result + option->offset;

	switch (option->type)
	{
		case KCF_VALUE_BOOL:
			*(bool *) field = strcmp(value, "true") == 0;
			break;
		case KCF_VALUE_SIZE:
		case KCF_VALUE_INTERVAL:
			*(int64 *) field = pg_strtoint64(value);
			break;
		case KCF_VALUE_ENUM:
			if (option->offset == offsetof(KcfTableOptions, compression))
				*(char **) field = pstrdup(value);
			else
			{
				int n = 0;

				for (const char *p = option->values; strncmp(p, value, strlen(value)) != 0; n++)
					p = strchr(p, ',') + 1;
				*(int *) field = n;
			}
			break;
		default:
			*(char **) field = pstrdup(value);
			break;
	}
}

StaticAssertDecl(sizeof(KcfFormat) == sizeof(int), "enums are stored as int");

KcfTableOptions *
kcf_options_table(Oid relid)
{
	ForeignTable *table = GetForeignTable(relid);
	KcfTableOptions *result = palloc0(sizeof(KcfTableOptions));
	List *settings = kcf_options_check(table->options, ForeignTableRelationId, InvalidOid);
	int noptions;
	const KcfOption *options = kcf_option_table(&noptions);
	ListCell *lc;

	for (int i = 0; i < noptions; i++)
	{
		const KcfOption *option = &options[i];

		if (option->catalog == ForeignTableRelationId && option->value != NULL)
			store_table_option(result, option, kcf_option_check_value(option, option->value));
	}
	foreach (lc, settings)
	{
		KcfSetting *setting = lfirst(lc);

		store_table_option(result, setting->option, setting->value);
	}
	if (result->topic == NULL)
	{
		result->topic = get_rel_name(relid);
		if (result->topic == NULL || !kcf_option_topic_is_legal(result->topic))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND), errmsg("missing option \"topic\""),
					 errdetail("The table's name is not the name of a Kafka topic."),
					 errhint("Give the table the option topic.")));
	}
	return result;
}

static KcfColumnOptions
resolve_column(Form_pg_attribute attr, List *options)
{
	KcfColumnOptions result = { KCF_COLUMN_JSON, NULL };
	List *settings = kcf_options_check(options, AttributeRelationId, InvalidOid);
	const char *path = kcf_setting_of(settings, "json");

	result.kind = kcf_settings_column_kind(settings);
	if (path)
		result.json_path = pstrdup(path);
	else if (result.kind == KCF_COLUMN_JSON)
		result.json_path = pstrdup(NameStr(attr->attname));
	return result;
}

KcfColumnOptions *
kcf_options_columns(Oid relid, int natts)
{
	KcfColumnOptions *result = palloc0(natts * sizeof(KcfColumnOptions));

	for (int i = 0; i < natts; i++)
	{
		HeapTuple tup = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(i + 1));
		Form_pg_attribute attr;

		if (!HeapTupleIsValid(tup))
			elog(ERROR, "cache lookup failed for attribute %d of relation %u", i + 1, relid);
		attr = (Form_pg_attribute) GETSTRUCT(tup);
		if (attr->attisdropped ||
			(attr->attgenerated && attr->attgenerated != ATTRIBUTE_GENERATED_STORED))
			result[i].kind = KCF_COLUMN_DROPPED;
		else
		{
			bool isnull;
			Datum options = SysCacheGetAttr(ATTNUM, tup, Anum_pg_attribute_attfdwoptions, &isnull);

			result[i] = resolve_column(attr, isnull ? NIL : untransformRelOptions(options));
		}
		ReleaseSysCache(tup);
	}
	return result;
}

static void
add_property(KcfServerOptions *server, const char *name, const char *value, bool secret)
{
	KcfProperty *property = palloc(sizeof(KcfProperty));

	property->name = name;
	property->value = value;
	property->secret = secret;
	server->properties = lappend(server->properties, property);
}

static void
add_settings(KcfServerOptions *server, List *settings)
{
	ListCell *lc;

	foreach (lc, settings)
	{
		KcfSetting *setting = lfirst(lc);
		const char *value = setting->value;

		if (setting->option->type == KCF_VALUE_IDENTITY)
		{
			const char *unset;

			value = kcf_option_expand(setting->value, &unset);
			if (unset != NULL)
				ereport(
					ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("variable \"%s\" in option \"%s\" of server \"%s\" has no value", unset,
							setting->option->name, server->server_name),
					 errhint(
						 "Set it in the environment of the database server and restart that.")));
		}
		add_property(server, setting->option->property, value, setting->option->secret);
	}
}

/* The options of the user's mapping, or of PUBLIC's; having none is fine. */
static List *
mapping_options(Oid serverid, Oid userid)
{
	List *result = NIL;
	HeapTuple tup;
	Datum options;
	bool isnull;

	tup = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
						  ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tup))
		tup = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							  ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tup))
		return NIL;
	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tup, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		result = untransformRelOptions(options);
	ReleaseSysCache(tup);
	return result;
}

KcfServerOptions *
kcf_options_server(Oid serverid, Oid userid)
{
	ForeignServer *fs = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	KcfServerOptions *result;
	List *server;
	List *mapping;
	const char *protocol;

	/* Ours are the options that are committed. */
	if (fs == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("there is no server with OID %u", serverid),
						errdetail("It is not committed yet, or was dropped.")));
	result = palloc0(sizeof(KcfServerOptions));
	server = kcf_options_check(fs->options, ForeignServerRelationId, fs->owner);
	mapping =
		kcf_options_check(mapping_options(serverid, userid), UserMappingRelationId, InvalidOid);
	protocol = kcf_setting_of(server, "security_protocol");

	result->server_name = pstrdup(fs->servername);
	if (protocol == NULL && mapping != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
			 errmsg("missing option \"security_protocol\" of server \"%s\"", fs->servername),
			 errdetail("The user mapping has credentials, which an open connection would not use."),
			 errhint("Set it to ssl or sasl_ssl.")));
	if (protocol && strncmp(protocol, "sasl_", 5) == 0 && !kcf_setting_of(mapping, "username"))
		ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
						errmsg("no username and password for server \"%s\"", fs->servername),
						errdetail("Its security_protocol is \"%s\".", protocol),
						errhint("Put them in a user mapping of role \"%s\", or of PUBLIC.",
								GetUserNameFromId(userid, true))));

	add_settings(result, server);
	if (protocol && strcmp(protocol, "plaintext") != 0)
		add_settings(result, mapping);

	/* Where neither the user nor the library has a good value. */
	for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
	{
		bool given = false;
		ListCell *lc;

		foreach (lc, result->properties)
			if (strcmp(((KcfProperty *) lfirst(lc))->name, rule->name) == 0)
				given = true;
		if (rule->value && !given)
			add_property(result, rule->name, rule->value, false);
	}
	return result;
}
