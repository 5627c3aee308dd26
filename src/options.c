/*
 * options.c
 *		The option table, and what walks it: validator and resolver.
 *
 * The validator sees the options of one object only, as they would be after the command. What it
 *has let pass is checked once more by the resolver, because ALTER ... OWNER does not call it and
 *the rights that some options need are those of the owner.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "options.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#define KB (INT64CONST(1) << 10)
#define MB (INT64CONST(1) << 20)
#define TB (INT64CONST(1) << 40)

#define SERVER ForeignServerRelationId
#define MAPPING UserMappingRelationId
#define TABLE ForeignTableRelationId
#define COLUMN AttributeRelationId
#define TABLE_FIELD(field) .offset = offsetof(KcfTableOptions, field)

/* clang-format off */
static const KcfOption own_options[] = {
	{ "brokers", SERVER, KCF_VALUE_BROKERS, .required = true, .property = "bootstrap.servers", .offset = -1,
	  .doc = "Where to find the Kafka cluster." },
	{ "client_id", SERVER, KCF_VALUE_IDENTITY, .value = "kafka_cache_fdw", .property = "client.id", .offset = -1,
	  .doc = "How this server names itself to the brokers." },
	{ "group_id", SERVER, KCF_VALUE_IDENTITY, .property = "group.id", .offset = -1,
	  .doc = "Group under which positions are shown to lag tools; it is never joined nor read back." },
	{ "security_protocol", SERVER, KCF_VALUE_ENUM, .values = "plaintext,ssl,sasl_plaintext,sasl_ssl",
	  .value = "plaintext", .property = "security.protocol", .offset = -1,
	  .doc = "How to talk to the brokers; `sasl_plaintext` needs a superuser as owner." },
	{ "sasl_mechanism", SERVER, KCF_VALUE_ENUM, .values = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
	  .property = "sasl.mechanisms", .offset = -1,
	  .doc = "How to prove who we are; needed where `security_protocol` has SASL." },

	{ "username", MAPPING, KCF_VALUE_TEXT, .secret = true, .property = "sasl.username", .offset = -1,
	  .doc = "SASL user." },
	{ "password", MAPPING, KCF_VALUE_TEXT, .secret = true, .property = "sasl.password", .offset = -1,
	  .doc = "SASL password." },

	{ "topic", TABLE, KCF_VALUE_TOPIC, TABLE_FIELD(topic),
	  .doc = "The topic; the table's name where it is not given." },
	{ "format", TABLE, KCF_VALUE_ENUM, .values = "json,text,bytea", .value = "json", TABLE_FIELD(format),
	  .doc = "What a record's value is." },
	{ "key_format", TABLE, KCF_VALUE_ENUM, .values = "json,text,bytea", .value = "text", TABLE_FIELD(key_format),
	  .doc = "What a record's key is." },
	{ "readonly", TABLE, KCF_VALUE_BOOL, .value = "true", TABLE_FIELD(readonly),
	  .doc = "Whether INSERT, UPDATE and DELETE are refused." },
	{ "notify", TABLE, KCF_VALUE_CHANNEL, TABLE_FIELD(notify),
	  .doc = "The channel on which LISTEN hears of changes." },
	{ "notify_payload", TABLE, KCF_VALUE_ENUM, .values = "keys,none", .value = "keys", TABLE_FIELD(notify_payload),
	  .doc = "Whether a notification names the changed keys; every role can listen." },
	{ "on_error", TABLE, KCF_VALUE_ENUM, .values = "keep,remove,fail", .value = "keep", TABLE_FIELD(on_error),
	  .doc = "What a record that cannot be decoded does to its key's row." },
	{ "delivery", TABLE, KCF_VALUE_ENUM, .values = "commit,immediate", .value = "commit", TABLE_FIELD(delivery),
	  .doc = "When written records are sent." },
	{ "atomic", TABLE, KCF_VALUE_BOOL, .value = "false", TABLE_FIELD(atomic),
	  .doc = "Whether the records of a transaction are one Kafka transaction." },
	{ "keep_value", TABLE, KCF_VALUE_BOOL, .value = "false", TABLE_FIELD(keep_value),
	  .doc = "Whether the whole document is kept, so that UPDATE preserves members that have no column." },
	{ "max_bytes", TABLE, KCF_VALUE_SIZE, .min = 64 * KB, .max = 16 * TB, TABLE_FIELD(max_bytes),
	  .doc = "Memory this table may use; without it, what the server has." },
	{ "max_record_bytes", TABLE, KCF_VALUE_SIZE, .min = 1, .max = 512 * MB, .value = "16MB",
	  TABLE_FIELD(max_record_bytes), .doc = "A larger record is a bad record." },
	{ "compression", TABLE, KCF_VALUE_ENUM, .values = "none,gzip,snappy,lz4,zstd", TABLE_FIELD(compression),
	  .doc = "Compression of written records." },

	{ "key", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's key, or a part of it." },
	{ "value", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's whole value: `text`, `json`, `jsonb` or `bytea`." },
	{ "partition", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's partition: `integer`." },
	{ "offset", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's offset: `bigint`." },
	{ "timestamp", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's time: `timestamptz`." },
	{ "headers", COLUMN, KCF_VALUE_BOOL, .value = "false", .offset = -1,
	  .doc = "The record's headers: `jsonb`, an array of `[name, text-or-null]`." },
	{ "json", COLUMN, KCF_VALUE_JSON_PATH, .offset = -1,
	  .doc = "Where in the document the column is; the column's name where nothing else is said." },
};
/* clang-format on */

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

static const Oid levels[] = { SERVER, MAPPING, TABLE, COLUMN };

/* An option given, and what it means. */
typedef struct Setting
{
	const KcfOption *option; /* never an alias */
	const KcfOption *given;  /* perhaps an alias */
	char *value;             /* canonical */
} Setting;

const char *
kcf_option_level(Oid catalog)
{
	switch (catalog)
	{
		case SERVER:
			return "server";
		case MAPPING:
			return "user mapping";
		case TABLE:
			return "table";
		case COLUMN:
			return "column";
		case ForeignDataWrapperRelationId:
			return "foreign-data wrapper";
	}
	return "object";
}

/* --- the table ------------------------------------------------------------------------------- */

static char *
underscored(const char *name)
{
	char *result = pstrdup(name);

	for (char *p = result; *p; p++)
		if (*p == '.' || *p == '-')
			*p = '_';
	return result;
}

static const KcfOption *
own_option_of(const char *property)
{
	for (int i = 0; i < lengthof(own_options); i++)
		if (own_options[i].property && strcmp(own_options[i].property, property) == 0)
			return &own_options[i];
	return NULL;
}

/* The row of a property that may be set; false when it has a row already, or none. */
static bool
option_of_property(const KcfPropertyRule *rule, KcfOption *option)
{
	const char *property = rule->alias_of ? rule->alias_of : rule->name;
	const KcfOption *own = own_option_of(property);

	if (rule->class == KCF_PROPERTY_NEVER || rule->why != NULL)
		return false;
	if (own != NULL)
	{
		*option = *own;
		option->name = underscored(rule->name);
		option->alias_of = own->name;
		option->required = false;
		return strcmp(option->name, own->name) != 0;
	}
	memset(option, 0, sizeof(KcfOption));
	option->name = underscored(rule->name);
	option->catalog = (rule->class == KCF_PROPERTY_USER) ? MAPPING : SERVER;
	option->type = rule->type;
	option->secret = (rule->class == KCF_PROPERTY_USER);
	option->right = rule->right;
	option->values = rule->values;
	option->min = rule->min;
	option->max = rule->max;
	option->value = rule->value;
	option->alias_of = rule->alias_of ? underscored(rule->alias_of) : NULL;
	option->property = property;
	option->newer = rule->newer;
	option->offset = -1;
	return true;
}

const KcfOption *
kcf_option_table(int *noptions)
{
	static KcfOption *table = NULL;
	static int n = 0;

	if (table == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		KcfOption *rows;
		int nrows = lengthof(own_options);

		for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
			nrows++;
		rows = palloc(nrows * sizeof(KcfOption));
		memcpy(rows, own_options, sizeof(own_options));
		n = lengthof(own_options);
		for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
			if (option_of_property(rule, &rows[n]))
				n++;
		table = rows;
		MemoryContextSwitchTo(old);
	}
	*noptions = n;
	return table;
}

static const KcfOption *
find_option(const char *name, Oid catalog)
{
	int noptions;
	const KcfOption *table = kcf_option_table(&noptions);

	for (int i = 0; i < noptions; i++)
		if (table[i].catalog == catalog && strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

static const KcfPropertyRule *
find_property(const char *name)
{
	char *wanted = underscored(name);

	for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
		if (strcmp(underscored(rule->name), wanted) == 0)
			return rule;
	return NULL;
}

/* --- hints ----------------------------------------------------------------------------------- */

/*
 * Up to three names near to this one, nearest first; else all names of the level. Names of the same
 * object only: an option of another level has been looked for before.
 */
static char *
hint_of_names(const char *name, Oid catalog)
{
	const char *near[3];
	int distances[3];
	int nnear = 0;
	int noptions;
	const KcfOption *table = kcf_option_table(&noptions);
	int len = strlen(name);
	int max = Min(len / 2, 4);
	StringInfoData buf;
	bool first = true;

	for (int i = 0; i < noptions && len < NAMEDATALEN; i++)
	{
		int distance;
		int at;

		if (table[i].catalog != catalog || table[i].alias_of != NULL)
			continue;
		distance = varstr_levenshtein_less_equal(name, len, table[i].name, strlen(table[i].name), 1,
												 1, 1, max, true);
		if (distance > max)
			continue;
		at = nnear;
		while (at > 0 && distances[at - 1] > distance)
			at--;
		if (at == lengthof(near))
			continue;
		if (nnear < (int) lengthof(near))
			nnear++;
		for (int j = nnear - 1; j > at; j--)
		{
			near[j] = near[j - 1];
			distances[j] = distances[j - 1];
		}
		near[at] = table[i].name;
		distances[at] = distance;
	}

	initStringInfo(&buf);
	if (nnear > 0)
	{
		appendStringInfoString(&buf, "Perhaps you meant ");
		for (int i = 0; i < nnear; i++)
			appendStringInfo(&buf, "%s\"%s\"", i == 0 ? "" : (i == nnear - 1 ? " or " : ", "),
							 near[i]);
		appendStringInfoChar(&buf, '.');
		return buf.data;
	}

	for (int i = 0; i < noptions; i++)
	{
		if (table[i].catalog != catalog || table[i].alias_of != NULL)
			continue;
		if (first)
			appendStringInfo(&buf, "Options of a %s are: ", kcf_option_level(catalog));
		appendStringInfo(&buf, "%s%s", first ? "" : ", ", table[i].name);
		first = false;
	}
	if (first)
		appendStringInfo(&buf, "A %s has no options.", kcf_option_level(catalog));
	else
		appendStringInfoChar(&buf, '.');
	return buf.data;
}

/* This name is no option here: say why, and what to do. Does not return. */
static void
refuse_option(const char *name, Oid catalog)
{
	const KcfPropertyRule *rule = find_property(name);
	char *spelled = underscored(name);
	const KcfOption *option;
	char *hint = NULL;

	for (char *p = spelled; *p; p++)
		*p = pg_tolower((unsigned char) *p);
	option = find_option(spelled, catalog);
	if (option != NULL)
		hint = psprintf("The option is spelled \"%s\".", option->name);
	else if (rule != NULL && rule->class == KCF_PROPERTY_NEVER &&
			 find_option(spelled, SERVER) == NULL)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("librdkafka property \"%s\" cannot be set", rule->name),
						errdetail("%s", rule->why)));
	else if (rule != NULL && rule->why != NULL && rule->class != KCF_PROPERTY_NEVER)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("librdkafka property \"%s\" cannot be set", rule->name),
						errdetail("It belongs to %s, which is not supported.", rule->why),
						errhint("Use sasl_mechanism %s, or a client certificate.",
								kcf_option_expected(find_option("sasl_mechanism", SERVER)))));
	else
	{
		for (int i = 0; i < lengthof(levels) && hint == NULL; i++)
		{
			option = find_option(spelled, levels[i]);
			if (option == NULL)
				continue;
			if (option->secret)
				hint =
					psprintf("It is a secret: put option \"%s\" in a user mapping.", option->name);
			else
				hint = psprintf("Option \"%s\" belongs to a %s.", option->name,
								kcf_option_level(levels[i]));
		}
	}
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					errmsg("invalid option \"%s\" of a %s", name, kcf_option_level(catalog)),
					errhint("%s", hint ? hint : hint_of_names(name, catalog))));
}

/* --- checks ---------------------------------------------------------------------------------- */

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
										"pg_read_server_files may "
										"name files of the database server.")
							: errdetail("Only a server owned by a superuser may have this option."),
						option->right == KCF_RIGHT_READ_FILES
							? errhint("Give certificates as text: ssl_ca_pem on the server, "
									  "ssl_certificate_pem and "
									  "ssl_key_pem in the user mapping.")
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

/* May the owner send out what the variables of an identity stand for? Before anything is said of
 * their values. */
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

static const char *
setting_of(List *settings, const char *name)
{
	ListCell *lc;

	foreach (lc, settings)
	{
		Setting *setting = lfirst(lc);

		if (strcmp(setting->option->name, name) == 0)
			return setting->value;
	}
	return NULL;
}

static void
require_setting(List *settings, const char *name, const char *because)
{
	if (setting_of(settings, name) == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
						errmsg("missing option \"%s\"", name), errdetail("%s", because)));
}

static void
check_server(List *settings)
{
	const char *protocol = setting_of(settings, "security_protocol");
	ListCell *lc;

	if (protocol == NULL)
	{
		/* Without it the connection is open: never by mistake. */
		foreach (lc, settings)
		{
			const KcfOption *option = ((Setting *) lfirst(lc))->option;

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
	if (setting_of(settings, "username"))
		require_setting(settings, "password", "A user mapping with a username needs a password.");
	if (setting_of(settings, "password"))
		require_setting(settings, "username", "A user mapping with a password needs a username.");
}

static void
check_table(List *settings)
{
	const char *atomic = setting_of(settings, "atomic");
	const char *delivery = setting_of(settings, "delivery");

	if (atomic && strcmp(atomic, "true") == 0 && delivery && strcmp(delivery, "immediate") == 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"atomic\" contradicts option \"delivery\""),
						errdetail("The records of an atomic transaction are sent at commit."),
						errhint("Set delivery to commit, or drop atomic.")));
}

static void
check_column(List *settings)
{
	const char *kind = NULL;

	for (int i = 0; i < lengthof(column_kinds); i++)
	{
		const char *value = setting_of(settings, column_kinds[i].option);

		if (value == NULL || strcmp(value, "true") != 0)
			continue;
		if (kind != NULL)
			ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
							errmsg("options \"%s\" and \"%s\" exclude each other", kind,
								   column_kinds[i].option),
							errhint("Give the column one of them.")));
		kind = column_kinds[i].option;
	}
	if (kind != NULL && strcmp(kind, "key") != 0 && setting_of(settings, "json"))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("options \"%s\" and \"json\" exclude each other", kind),
						errhint("Only a key column can also be a member of the document.")));
}

/* PostgreSQL takes care of a name given twice; two names of one option are ours to see. */
static void
refuse_repetition(List *settings, const Setting *setting)
{
	ListCell *lc;

	foreach (lc, settings)
	{
		Setting *other = lfirst(lc);

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
static List *
check_options(List *options, Oid catalog, Oid owner)
{
	List *settings = NIL;
	int noptions;
	const KcfOption *table = kcf_option_table(&noptions);
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *def = lfirst_node(DefElem, lc);
		const KcfOption *option = find_option(def->defname, catalog);
		const char *raw = def->arg ? defGetString(def) : "";
		Setting *setting;

		if (option == NULL)
			refuse_option(def->defname, catalog);
		refuse_mechanism(option, raw);
		if (OidIsValid(owner))
			check_variables(option, raw, owner);

		setting = palloc(sizeof(Setting));
		setting->value = kcf_option_check_value(option, raw);
		setting->option = option->alias_of ? find_option(option->alias_of, catalog) : option;
		if (OidIsValid(owner))
			check_right(option, setting->value, owner);
		setting->given = option;
		refuse_repetition(settings, setting);
		settings = lappend(settings, setting);
	}

	for (int i = 0; i < noptions; i++)
		if (table[i].required && table[i].catalog == catalog &&
			!setting_of(settings, table[i].name))
			ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
							errmsg("missing option \"%s\"", table[i].name),
							errhint("The value must be %s.", kcf_option_expected(&table[i]))));

	if (catalog == SERVER)
		check_server(settings);
	else if (catalog == MAPPING)
		check_mapping(settings);
	else if (catalog == TABLE)
		check_table(settings);
	else if (catalog == COLUMN)
		check_column(settings);
	return settings;
}

void
kcf_options_validate(List *options, Oid catalog)
{
	List *settings = check_options(options, catalog, GetUserId());
	ListCell *lc;

	foreach (lc, settings)
	{
		Setting *setting = lfirst(lc);
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

/* --- resolution ------------------------------------------------------------------------------ */

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
	List *settings = check_options(table->options, TABLE, InvalidOid);
	ListCell *lc;

	for (int i = 0; i < lengthof(own_options); i++)
	{
		const KcfOption *option = &own_options[i];

		if (option->catalog == TABLE && option->value != NULL)
			store_table_option(result, option, kcf_option_check_value(option, option->value));
	}
	foreach (lc, settings)
	{
		Setting *setting = lfirst(lc);

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
	List *settings = check_options(options, COLUMN, InvalidOid);
	const char *path = setting_of(settings, "json");

	for (int i = 0; i < lengthof(column_kinds); i++)
	{
		const char *value = setting_of(settings, column_kinds[i].option);

		if (value && strcmp(value, "true") == 0)
			result.kind = column_kinds[i].kind;
	}
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
		Setting *setting = lfirst(lc);
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
	ForeignServer *fs = GetForeignServer(serverid);
	KcfServerOptions *result = palloc0(sizeof(KcfServerOptions));
	List *server = check_options(fs->options, SERVER, fs->owner);
	List *mapping = check_options(mapping_options(serverid, userid), MAPPING, InvalidOid);
	const char *protocol = setting_of(server, "security_protocol");

	result->server_name = pstrdup(fs->servername);
	if (protocol == NULL && mapping != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
			 errmsg("missing option \"security_protocol\" of server \"%s\"", fs->servername),
			 errdetail("The user mapping has credentials, which an open connection would not use."),
			 errhint("Set it to ssl or sasl_ssl.")));
	if (protocol && strncmp(protocol, "sasl_", 5) == 0 && !setting_of(mapping, "username"))
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
