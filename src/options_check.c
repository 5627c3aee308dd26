/*
 * options_check.c
 *		What one object's options must satisfy together, and who may give them.
 *
 * The validator sees the options of one object only, as they would be after the command. What it has let pass
 * is checked once more when it is used, because ALTER ... OWNER does not call it and the rights that some options
 * need are those of the owner.
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "options_internal.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/* The kinds a column can be, by the name of the option that says so. */
static const struct
{
	const char *option;
	KcfColumnKind kind;
} column_kinds[] = {
	{ "key", KCF_COLUMN_KEY },
	{ "value", KCF_COLUMN_VALUE },
	{ "partition", KCF_COLUMN_PARTITION },
	{ "offset", KCF_COLUMN_OFFSET },
	{ "timestamp", KCF_COLUMN_TIMESTAMP },
	{ "headers", KCF_COLUMN_HEADERS },
};

/* A mechanism that exists in Kafka but not here deserves a better answer than "expected is ...". */
static void
refuse_mechanism(const KcfOption *option, const char *value)
{
	if (option->property == NULL || strcmp(option->property, "sasl.mechanisms") != 0)
		return;
	if (pg_strcasecmp(value, "GSSAPI") == 0 || pg_strcasecmp(value, "OAUTHBEARER") == 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("SASL mechanism %s is not supported", value),
						errhint("Use %s, or a client certificate.", kcf_option_expected(option))));
}

/* What the owner of the object must be allowed to. */
static void
check_right(const KcfOption *option, const char *value, Oid owner)
{
	if (superuser_arg(owner))
		return;
	if (option->right == KCF_RIGHT_READ_FILES &&
		has_privs_of_role(owner, ROLE_PG_READ_SERVER_FILES))
		return;
	if (option->right != KCF_RIGHT_NONE)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to set option \"%s\"", option->name),
						option->right == KCF_RIGHT_READ_FILES
							? errdetail("Only a server owned by a superuser or by a member of "
										"pg_read_server_files may name files of the database "
										"server.")
							: errdetail("Only a server owned by a superuser may have this option."),
						option->right == KCF_RIGHT_READ_FILES
							? errhint("Give certificates as text: ssl_ca_pem on the server, "
									  "ssl_certificate_pem and ssl_key_pem in the user mapping.")
							: 0));
	if (option->property && strcmp(option->property, "security.protocol") == 0 &&
		strcmp(value, "sasl_plaintext") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\" to \"%s\"", option->name, value),
				 errdetail("It sends passwords over an open connection; only a server owned by a "
						   "superuser may."),
				 errhint("Use sasl_ssl.")));
}

/* May the owner send out what these variables stand for? Asked before anything is said of their values. */
static void
check_variables(const KcfOption *option, const char *value, Oid owner)
{
	const char *variable;

	if (option->type == KCF_VALUE_IDENTITY && !superuser_arg(owner) &&
		kcf_option_is_foreign_variable(value, &variable))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to use environment variable \"%s\" in option \"%s\"",
						variable, option->name),
				 errdetail("Only a server owned by a superuser may send it to brokers."),
				 errhint("Free to use are POD_*, NODE_*, KAFKA_CACHE_*, HOSTNAME, cluster_name and "
						 "system_identifier.")));
}

const char *
kcf_setting_of(List *settings, const char *name)
{
	ListCell *lc;

	foreach (lc, settings)
	{
		KcfSetting *setting = lfirst(lc);

		if (strcmp(setting->option->name, name) == 0)
			return setting->value;
	}
	return NULL;
}

static void
require_setting(List *settings, const char *name, const char *because)
{
	if (kcf_setting_of(settings, name) == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
						errmsg("missing option \"%s\"", name), errdetail("%s", because)));
}

static void
check_server(List *settings)
{
	const char *protocol = kcf_setting_of(settings, "security_protocol");
	ListCell *lc;

	if (protocol == NULL)
	{
		/* Without it the connection is open: never by mistake. */
		foreach (lc, settings)
		{
			const KcfOption *option = ((KcfSetting *) lfirst(lc))->option;

			if (strncmp(option->name, "ssl_", 4) == 0 ||
				strcmp(option->name, "sasl_mechanism") == 0)
				require_setting(settings, "security_protocol",
								psprintf("Option \"%s\" has no effect without it.", option->name));
		}
	}
	else if (strncmp(protocol, "sasl_", 5) == 0)
		require_setting(settings, "sasl_mechanism",
						psprintf("Option \"security_protocol\" is \"%s\".", protocol));
}

static void
check_mapping(List *settings)
{
	if (kcf_setting_of(settings, "username"))
		require_setting(settings, "password", "A user mapping with a username needs a password.");
	if (kcf_setting_of(settings, "password"))
		require_setting(settings, "username", "A user mapping with a password needs a username.");
}

static bool
is_true(List *settings, const char *name)
{
	const char *value = kcf_setting_of(settings, name);

	return value != NULL && strcmp(value, "true") == 0;
}

static void
check_table(List *settings)
{
	const char *delivery = kcf_setting_of(settings, "delivery");

	if (is_true(settings, "atomic") && delivery && strcmp(delivery, "immediate") == 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"atomic\" contradicts option \"delivery\""),
						errdetail("The records of an atomic transaction are sent at commit."),
						errhint("Set delivery to commit, or drop atomic.")));
}

/* A data product: a table whose records are computed. */
static void
check_product(List *settings)
{
	static const char *const dependents[] = { "soft_ttl",      "hard_ttl",      "negative_ttl",
											  "prime_on_miss", "refresh_every", "domain",
											  "augment" };
	const char *format = kcf_setting_of(settings, "format");
	const char *soft = kcf_setting_of(settings, "soft_ttl");
	const char *hard = kcf_setting_of(settings, "hard_ttl");

	if (kcf_setting_of(settings, "compute") == NULL)
	{
		for (int i = 0; i < (int) lengthof(dependents); i++)
			if (kcf_setting_of(settings, dependents[i]))
				require_setting(settings, "compute",
								psprintf("Option \"%s\" has no effect without it.", dependents[i]));
		return;
	}
	if (format != NULL && strcmp(format, "json") != 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"compute\" contradicts option \"format\""),
						errdetail("What is computed is kept as JSON."),
						errhint("Set format to json, or drop it.")));
	if (is_true(settings, "atomic"))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"compute\" contradicts option \"atomic\""),
						errdetail("What is computed is kept at once, whatever becomes of the "
								  "transaction."),
						errhint("Drop atomic.")));
	if (soft != NULL && hard != NULL && pg_strtoint64(hard) < pg_strtoint64(soft))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"hard_ttl\" is less than option \"soft_ttl\""),
						errdetail("A row would be computed anew before it is stale."),
						errhint("Make hard_ttl the longer one.")));
}

static void
check_column(List *settings)
{
	const char *kind = NULL;

	for (int i = 0; i < (int) lengthof(column_kinds); i++)
	{
		const char *value = kcf_setting_of(settings, column_kinds[i].option);

		if (value == NULL || strcmp(value, "true") != 0)
			continue;
		if (kind != NULL)
			ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
							errmsg("options \"%s\" and \"%s\" exclude each other", kind,
								   column_kinds[i].option),
							errhint("Give the column one of them.")));
		kind = column_kinds[i].option;
	}
	if (kind != NULL && strcmp(kind, "key") != 0 && kcf_setting_of(settings, "json"))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("options \"%s\" and \"json\" exclude each other", kind),
						errhint("Only a key column can also be a member of the document.")));
}

/* PostgreSQL takes care of a name given twice; two names of one option are ours to see. */
static void
refuse_repetition(List *settings, const KcfSetting *setting)
{
	ListCell *lc;

	foreach (lc, settings)
	{
		KcfSetting *other = lfirst(lc);

		if (other->option == setting->option)
			ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
							errmsg("options \"%s\" and \"%s\" are the same", other->given->name,
								   setting->given->name),
							errhint("Give one of them.")));
	}
}

/*
 * All checks of one object's options; what they mean comes back, as Settings. The owner's rights
 * count; an InvalidOid is for objects whose options need none.
 */
List *
kcf_options_check(List *options, Oid catalog, Oid owner)
{
	List *settings = NIL;
	int noptions;
	const KcfOption *table = kcf_option_table(&noptions);
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *def = lfirst_node(DefElem, lc);
		const KcfOption *option = kcf_option_find(def->defname, catalog);
		const char *raw = def->arg ? defGetString(def) : "";
		KcfSetting *setting;

		if (option == NULL)
			kcf_option_refuse(def->defname, catalog);
		refuse_mechanism(option, raw);
		if (OidIsValid(owner))
			check_variables(option, raw, owner);

		setting = palloc(sizeof(KcfSetting));
		setting->value = kcf_option_check_value(option, raw);
		setting->option = option->alias_of ? kcf_option_find(option->alias_of, catalog) : option;
		if (OidIsValid(owner))
			check_right(option, setting->value, owner);
		setting->given = option;
		refuse_repetition(settings, setting);
		settings = lappend(settings, setting);
	}

	for (int i = 0; i < noptions; i++)
		if (table[i].required && table[i].catalog == catalog &&
			!kcf_setting_of(settings, table[i].name))
			ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
							errmsg("missing option \"%s\"", table[i].name),
							errhint("The value must be %s.", kcf_option_expected(&table[i]))));

	if (catalog == ForeignServerRelationId)
		check_server(settings);
	else if (catalog == UserMappingRelationId)
		check_mapping(settings);
	else if (catalog == ForeignTableRelationId)
	{
		check_table(settings);
		check_product(settings);
	}
	else if (catalog == AttributeRelationId)
		check_column(settings);
	return settings;
}

void
kcf_options_validate(List *options, Oid catalog)
{
	List *settings = kcf_options_check(options, catalog, GetUserId());
	ListCell *lc;

	foreach (lc, settings)
	{
		KcfSetting *setting = lfirst(lc);
		const char *unset;

		/* The variable may well be set where a standby or a restored copy runs. */
		if (setting->option->type == KCF_VALUE_IDENTITY &&
			kcf_option_expand(setting->value, &unset) == NULL && unset != NULL)
			ereport(
				WARNING,
				(errmsg("variable \"%s\" in option \"%s\" has no value in this server", unset,
						setting->option->name),
				 errdetail("Nothing is consumed through this foreign server before it has one."),
				 errhint("Set it in the environment of the database server and restart that.")));
	}
}

/* Of settings that were checked: what kind of column they make. */
KcfColumnKind
kcf_settings_column_kind(List *settings)
{
	for (int i = 0; i < (int) lengthof(column_kinds); i++)
	{
		const char *value = kcf_setting_of(settings, column_kinds[i].option);

		if (value != NULL && strcmp(value, "true") == 0)
			return column_kinds[i].kind;
	}
	return KCF_COLUMN_JSON;
}
