/*
 * properties.h
 *		Every librdkafka property that is known to exist, and who may set it: an allow-list, as data.
 *
 * Process:  all; a test program links it without PostgreSQL.
 * Locks:    none.
 * Memory:   constants only.
 * Errors:   none.
 * Waits:    never.
 *
 * A librdkafka property is code: some load a library, run a command or write a file as soon as they are set.
 * So nothing is passed on that this table does not name, and what it names is checked here, never by asking
 * the library. A test compares the table with the installed library's own list.
 */
#ifndef KCF_PROPERTIES_H
#define KCF_PROPERTIES_H

#include <stdbool.h>

typedef enum KcfPropertyClass
{
	KCF_PROPERTY_NEVER = 'N', /* by nobody through SQL */
	KCF_PROPERTY_FILE =
		'F', /* on a server whose owner is a superuser or has a role, see KcfPropertyRight */
	KCF_PROPERTY_USER = 'U', /* in a user mapping, a secret */
	KCF_PROPERTY_OWNER = 'O' /* by the server's owner, within a range */
} KcfPropertyClass;

typedef enum KcfPropertyRight
{
	KCF_RIGHT_NONE,
	KCF_RIGHT_SUPERUSER,
	KCF_RIGHT_READ_FILES /* or a member of pg_read_server_files */
} KcfPropertyRight;

/* What a value must look like; options of our own use the same types. */
typedef enum KcfValueType
{
	KCF_VALUE_NONE, /* no value is acceptable */
	KCF_VALUE_BOOL,
	KCF_VALUE_INT,
	KCF_VALUE_SIZE, /* bytes, with a unit */
	KCF_VALUE_ENUM,
	KCF_VALUE_TEXT,     /* not empty, no control characters */
	KCF_VALUE_NAME,     /* letters, digits, dot, underscore, hyphen */
	KCF_VALUE_IDENTITY, /* a name with %{VARIABLE} in it */
	KCF_VALUE_PEM,
	KCF_VALUE_PATH, /* absolute */
	KCF_VALUE_BROKERS,
	KCF_VALUE_TOPIC,
	KCF_VALUE_CHANNEL,
	KCF_VALUE_JSON_PATH,
	KCF_VALUE_INTERVAL, /* milliseconds, with units as an interval has them */
	KCF_VALUE_FUNCTION, /* a function's name, perhaps with argument types */
	KCF_VALUE_QUERY     /* text that may have line breaks */
} KcfValueType;

typedef struct KcfPropertyRule
{
	const char *name;
	KcfPropertyClass class;
	/* N: why not. Otherwise NULL, or why we do not take it. */
	const char *why;
	const char *alias_of; /* the name that is passed on, NULL: this one */
	char scope;           /* 'C' consumers, 'P' producers, '*' both */
	bool newer;           /* not in librdkafka 2.0.2 */
	KcfPropertyRight right;
	KcfValueType type;
	long long min;
	long long max;
	const char *values; /* KCF_VALUE_ENUM: comma-separated */
	const char *value;  /* what we set where the user does not, NULL: the library's default */
} KcfPropertyRule;

/* Sorted by name; the last row's name is NULL. */
extern const KcfPropertyRule kcf_properties[];

extern const KcfPropertyRule *kcf_property_find(const char *name);

#endif /* KCF_PROPERTIES_H */
