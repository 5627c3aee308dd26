/*
 * options.c
 *		The option table, and what is said of a name that is not in it.
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "lib/stringinfo.h"
#include "options_internal.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#define KB (INT64CONST(1) << 10)
#define MB (INT64CONST(1) << 20)
#define TB (INT64CONST(1) << 40)
#define LONGEST (INT64CONST(3650) * 86400 * 1000) /* of intervals, milliseconds */

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
	{ "compute", TABLE, KCF_VALUE_FUNCTION, TABLE_FIELD(compute),
	  .doc = "The function of the key columns that computes the rows: the table is a data product." },
	{ "soft_ttl", TABLE, KCF_VALUE_INTERVAL, .min = 1, .max = LONGEST, TABLE_FIELD(soft_ttl),
	  .doc = "An older row of a product is shown and computed anew in the background." },
	{ "hard_ttl", TABLE, KCF_VALUE_INTERVAL, .min = 1, .max = LONGEST, TABLE_FIELD(hard_ttl),
	  .doc = "An older row of a product is computed anew before it is shown; without it, never." },
	{ "negative_ttl", TABLE, KCF_VALUE_INTERVAL, .min = 1, .max = LONGEST, .value = "5s",
	  TABLE_FIELD(negative_ttl), .doc = "How long it is remembered that the function had nothing for a key." },
	{ "prime_on_miss", TABLE, KCF_VALUE_BOOL, .value = "true", TABLE_FIELD(prime_on_miss),
	  .doc = "Whether a row that is missing is computed by whoever asks for it." },
	{ "refresh_every", TABLE, KCF_VALUE_INTERVAL, .min = 1, .max = LONGEST, TABLE_FIELD(refresh_every),
	  .doc = "How often the rows are computed anew though nobody asks." },
	{ "domain", TABLE, KCF_VALUE_QUERY, TABLE_FIELD(domain),
	  .doc = "A query that yields the keys whose rows are to be there before anybody asks." },
	{ "augment", TABLE, KCF_VALUE_FUNCTION, TABLE_FIELD(augment),
	  .doc = "A function that makes the new value out of the old one and what has changed, before it is computed." },

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

static const Oid levels[] = { SERVER, MAPPING, TABLE, COLUMN };

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
	for (int i = 0; i < (int) lengthof(own_options); i++)
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

const KcfOption *
kcf_option_find(const char *name, Oid catalog)
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
void
kcf_option_refuse(const char *name, Oid catalog)
{
	const KcfPropertyRule *rule = find_property(name);
	char *spelled = underscored(name);
	const KcfOption *option;
	char *hint = NULL;

	for (char *p = spelled; *p; p++)
		*p = pg_tolower((unsigned char) *p);
	option = kcf_option_find(spelled, catalog);
	if (option != NULL)
		hint = psprintf("The option is spelled \"%s\".", option->name);
	else if (rule != NULL && rule->class == KCF_PROPERTY_NEVER &&
			 kcf_option_find(spelled, SERVER) == NULL)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("librdkafka property \"%s\" cannot be set", rule->name),
						errdetail("%s", rule->why)));
	else if (rule != NULL && rule->why != NULL && rule->class != KCF_PROPERTY_NEVER)
	{
		bool authentication =
			strncmp(rule->name, "sasl.", 5) == 0 || strstr(rule->name, "oauth") != NULL;

		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("librdkafka property \"%s\" cannot be set", rule->name),
				 errdetail("%s", rule->why),
				 authentication
					 ? errhint("Use sasl_mechanism %s, or a client certificate.",
							   kcf_option_expected(kcf_option_find("sasl_mechanism", SERVER)))
					 : 0));
	}
	else
	{
		for (int i = 0; i < (int) lengthof(levels) && hint == NULL; i++)
		{
			option = kcf_option_find(spelled, levels[i]);
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
