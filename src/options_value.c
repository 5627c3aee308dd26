/*
 * options_value.c
 *		What the value of an option must look like, by its type.
 *
 * The values come from users and go to librdkafka, to the log and to other machines, so each type
 *says what is allowed, not what is forbidden.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xlog.h"
#include "common/int.h"
#include "options_internal.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"

#define MAX_BROKERS_LENGTH 4096
#define MAX_TEXT_LENGTH 4096
#define MAX_PEM_LENGTH (256 * 1024)
#define MAX_NAME_LENGTH 100
#define MAX_TOPIC_LENGTH 249
#define MAX_JSON_PATH_LENGTH 1000
#define MAX_QUERY_LENGTH (64 * 1024)

typedef struct Unit
{
	const char *name;
	int64 factor;
} Unit;

static const Unit size_units[] = {
	{ "B", 1 },
	{ "kB", INT64CONST(1) << 10 },
	{ "MB", INT64CONST(1) << 20 },
	{ "GB", INT64CONST(1) << 30 },
	{ "TB", INT64CONST(1) << 40 },
};

static const Unit time_units[] = {
	{ "ms", 1 },
	{ "s", 1000 },
	{ "min", 60 * 1000 },
	{ "h", 60 * 60 * 1000 },
	{ " days", 24 * 60 * 60 * 1000 },
};

static bool
has_control_characters(const char *value)
{
	for (const char *p = value; *p; p++)
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			return true;
	return false;
}

static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
		   c == '_' || c == '-';
}

static bool
is_name(const char *value, int maxlen)
{
	size_t len = strlen(value);

	if (len < 1 || len > (size_t) maxlen)
		return false;
	return strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		   len;
}

bool
kcf_option_topic_is_legal(const char *topic)
{
	return is_name(topic, MAX_TOPIC_LENGTH) && strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;
}

static bool
parse_integer(const char *value, const char **end, int64 *result)
{
	char *endptr;
	long long n;

	errno = 0;
	n = strtoll(value, &endptr, 10);
	if (endptr == value || errno == ERANGE)
		return false;
	while (*endptr == ' ')
		endptr++;
	*end = endptr;
	*result = n;
	return true;
}

static bool
parse_size(const char *value, int64 *result)
{
	const char *unit;
	int64 n;

	if (!parse_integer(value, &unit, &n) || n < 0)
		return false;
	if (*unit == '\0')
	{
		*result = n;
		return true;
	}
	for (int i = 0; i < (int) lengthof(size_units); i++)
	{
		if (pg_strcasecmp(unit, size_units[i].name) != 0)
			continue;
		if (n > PG_INT64_MAX / size_units[i].factor)
			return false;
		*result = n * size_units[i].factor;
		return true;
	}
	return false;
}

/* Milliseconds of what interval's input takes, without months and years, which have no length. */
static bool
parse_interval(const char *value, int64 *result)
{
	char buffer[256];
	char *fields[MAXDATEFIELDS];
	int kinds[MAXDATEFIELDS];
	int nfields;
	int kind;
	struct pg_itm_in itm = { 0 };
	int error;
	int64 micros;

	error = ParseDateTime(value, buffer, sizeof(buffer), fields, kinds, MAXDATEFIELDS, &nfields);
	if (error == 0)
		error = DecodeInterval(fields, kinds, nfields, INTERVAL_FULL_RANGE, &kind, &itm);
	if (error == DTERR_BAD_FORMAT && strlen(value) < sizeof(buffer))
	{
		strlcpy(buffer, value, sizeof(buffer));
		error = DecodeISO8601Interval(buffer, &kind, &itm);
	}
	if (error != 0 || kind != DTK_DELTA || itm.tm_year != 0 || itm.tm_mon != 0)
		return false;
	if (pg_mul_s64_overflow(itm.tm_mday, USECS_PER_DAY, &micros) ||
		pg_add_s64_overflow(micros, itm.tm_usec, &micros))
		return false;
	*result = micros / 1000;
	return micros % 1000 == 0;
}

/* In the largest unit that says it without a fraction. */
static char *
print_interval(int64 millis)
{
	int i = lengthof(time_units) - 1;

	while (i > 0 && millis % time_units[i].factor != 0)
		i--;
	return psprintf(INT64_FORMAT "%s", millis / time_units[i].factor, time_units[i].name);
}

static char *
print_size(int64 bytes)
{
	int i = lengthof(size_units) - 1;

	while (i > 0 && (bytes == 0 || bytes % size_units[i].factor != 0))
		i--;
	return psprintf(INT64_FORMAT "%s", bytes / size_units[i].factor, size_units[i].name);
}

/* The member of a comma-separated list that equals value, in whatever case, or NULL. */
static char *
find_in_list(const char *list, const char *value)
{
	size_t len = strlen(value);

	while (len > 0)
	{
		size_t n = strcspn(list, ",");

		if (n == len && pg_strncasecmp(list, value, n) == 0)
			return pnstrdup(list, n);
		if (list[n] == '\0')
			break;
		list += n + 1;
	}
	return NULL;
}

/* host, host:port or [IPv6 address]:port */
static bool
is_broker(const char *broker, size_t len)
{
	const char *end = broker + len;
	const char *p = broker;
	const char *host = p;

	if (*p == '[')
	{
		p++;
		while (p < end && (isxdigit((unsigned char) *p) || *p == ':' || *p == '.'))
			p++;
		if (p >= end || *p != ']' || p == host + 1)
			return false;
		p++;
	}
	else
	{
		while (p < end && is_name_char(*p))
			p++;
		if (p == host || p - host > 255)
			return false;
	}
	if (p < end)
	{
		const char *port = p + 1;

		if (*p++ != ':')
			return false;
		while (p < end && *p >= '0' && *p <= '9')
			p++;
		if (p < end || p == port || p - port > 5)
			return false;
		if (atoi(port) < 1 || atoi(port) > 65535)
			return false;
	}
	return true;
}

static bool
is_broker_list(const char *value)
{
	if (strlen(value) > MAX_BROKERS_LENGTH)
		return false;
	for (;;)
	{
		size_t len = strcspn(value, ",");

		if (!is_broker(value, len))
			return false;
		if (value[len] == '\0')
			return true;
		value += len + 1;
	}
}

/* Member names separated by dots; one of them may end in [], "each element of". */
static bool
is_json_path(const char *value)
{
	int eaches = 0;

	if (strlen(value) > MAX_JSON_PATH_LENGTH || has_control_characters(value))
		return false;
	for (;;)
	{
		size_t len = strcspn(value, ".");
		size_t name = strcspn(value, ".[]");

		if (name == 0)
			return false;
		if (name < len)
		{
			if (len - name != 2 || strncmp(value + name, "[]", 2) != 0)
				return false;
			eaches++;
		}
		if (value[len] == '\0')
			return eaches <= 1;
		value += len + 1;
	}
}

static bool
is_pem(const char *value)
{
	if (strlen(value) > MAX_PEM_LENGTH)
		return false;
	for (const char *p = value; *p; p++)
		if (((unsigned char) *p < 0x20 && *p != '\n' && *p != '\r' && *p != '\t') ||
			(unsigned char) *p >= 0x7f)
			return false;
	return strstr(value, "-----BEGIN ") != NULL && strstr(value, "-----END ") != NULL;
}

static const char *
variable_value(const char *name)
{
	const char *value;

	if (strcmp(name, "cluster_name") == 0)
		value = GetConfigOption("cluster_name", true, false);
	else if (strcmp(name, "system_identifier") == 0)
		return psprintf(UINT64_FORMAT, GetSystemIdentifier());
	else
		value = getenv(name);
	return (value != NULL && value[0] != '\0') ? value : NULL;
}

/* Calls for each %{name} of an identity; false where it is not one. */
static bool
scan_identity(const char *value, StringInfo expanded, const char **unset)
{
	while (*value)
	{
		const char *end;
		const char *variable;
		char *name;

		if (is_name_char(*value))
		{
			if (expanded)
				appendStringInfoChar(expanded, *value);
			value++;
			continue;
		}
		if (strncmp(value, "%{", 2) != 0)
			return false;
		value += 2;
		end = strchr(value, '}');
		if (end == NULL || end == value)
			return false;
		name = pnstrdup(value, end - value);
		if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") !=
			strlen(name))
			return false;
		value = end + 1;
		if (expanded == NULL)
			continue;
		variable = variable_value(name);
		if (variable == NULL)
		{
			*unset = name;
			return true;
		}
		appendStringInfoString(expanded, variable);
	}
	return true;
}

char *
kcf_option_expand(const char *value, const char **unset)
{
	StringInfoData expanded;

	*unset = NULL;
	initStringInfo(&expanded);
	if (!scan_identity(value, &expanded, unset) || *unset != NULL)
		return NULL;
	return is_name(expanded.data, MAX_NAME_LENGTH) ? expanded.data : NULL;
}

/*
 * An identity is sent to brokers and shown in their logs, so it must not become a way to read any
 * variable of the server's environment: beyond those by which orchestrators tell a process who it
 * is, a superuser has to agree.
 */
bool
kcf_option_is_foreign_variable(const char *value, const char **name)
{
	static const char *const prefixes[] = { "POD_", "NODE_", "KAFKA_CACHE_" };
	static const char *const names[] = { "cluster_name", "system_identifier", "HOSTNAME" };

	while ((value = strstr(value, "%{")) != NULL)
	{
		const char *end = strchr(value, '}');
		bool known = false;

		value += 2;
		if (end == NULL)
			break;
		*name = pnstrdup(value, end - value);
		for (int i = 0; i < (int) lengthof(prefixes) && !known; i++)
			known = strncmp(*name, prefixes[i], strlen(prefixes[i])) == 0;
		for (int i = 0; i < (int) lengthof(names) && !known; i++)
			known = strcmp(*name, names[i]) == 0;
		if (!known)
			return true;
	}
	return false;
}

char *
kcf_option_expected(const KcfOption *option)
{
	switch (option->type)
	{
		case KCF_VALUE_BOOL:
			return pstrdup("true or false");
		case KCF_VALUE_INT:
			return psprintf("an integer from " INT64_FORMAT " to " INT64_FORMAT, option->min,
							option->max);
		case KCF_VALUE_SIZE:
			return psprintf("a size from %s to %s", print_size(option->min),
							print_size(option->max));
		case KCF_VALUE_ENUM:
		{
			StringInfoData buf;

			initStringInfo(&buf);
			for (const char *p = option->values; *p; p++)
			{
				if (*p == ',')
					appendStringInfoString(&buf, strchr(p + 1, ',') ? ", " : " or ");
				else
					appendStringInfoChar(&buf, *p);
			}
			return buf.data;
		}
		case KCF_VALUE_TEXT:
			return psprintf("text of 1 to %d bytes without control characters", MAX_TEXT_LENGTH);
		case KCF_VALUE_NAME:
			return psprintf("1 to %d letters, digits, dots, underscores or hyphens",
							MAX_NAME_LENGTH);
		case KCF_VALUE_IDENTITY:
			return psprintf(
				"1 to %d letters, digits, dots, underscores or hyphens, after variables such as "
				"%%{POD_NAME} are replaced",
				MAX_NAME_LENGTH);
		case KCF_VALUE_PEM:
			return pstrdup("text in PEM format, from BEGIN to END line");
		case KCF_VALUE_PATH:
			return pstrdup("an absolute path");
		case KCF_VALUE_BROKERS:
			return pstrdup("host:port pairs separated by commas, without blanks");
		case KCF_VALUE_TOPIC:
			return psprintf("a topic's name: 1 to %d letters, digits, dots, underscores or hyphens",
							MAX_TOPIC_LENGTH);
		case KCF_VALUE_CHANNEL:
			return psprintf("a channel's name of 1 to %d bytes", NAMEDATALEN - 1);
		case KCF_VALUE_JSON_PATH:
			return pstrdup(
				"member names separated by dots, one of them with [] for each element: a.b[].c");
		case KCF_VALUE_INTERVAL:
			return psprintf("an interval from %s to %s, without months",
							print_interval(option->min), print_interval(option->max));
		case KCF_VALUE_FUNCTION:
			return pstrdup("a function's name with its schema, and with argument types where there "
						   "are several of that name");
		case KCF_VALUE_QUERY:
			return psprintf("a query of at most %d bytes", MAX_QUERY_LENGTH);
		case KCF_VALUE_NONE:
			break;
	}
	return pstrdup("nothing");
}

static char *
canonical_value(const KcfOption *option, const char *value)
{
	const char *unset;
	const char *end;
	int64 n;
	bool b;

	switch (option->type)
	{
		case KCF_VALUE_BOOL:
			return parse_bool(value, &b) ? pstrdup(b ? "true" : "false") : NULL;
		case KCF_VALUE_INT:
			if (!parse_integer(value, &end, &n) || *end != '\0' || n < option->min ||
				n > option->max)
				return NULL;
			return psprintf(INT64_FORMAT, n);
		case KCF_VALUE_SIZE:
			if (!parse_size(value, &n) || n < option->min || n > option->max)
				return NULL;
			return psprintf(INT64_FORMAT, n);
		case KCF_VALUE_INTERVAL:
			if (!parse_interval(value, &n) || n < option->min || n > option->max)
				return NULL;
			return psprintf(INT64_FORMAT, n);
		case KCF_VALUE_ENUM:
			return find_in_list(option->values, value);
		case KCF_VALUE_QUERY:
			if (value[strspn(value, " \t\r\n")] == '\0' || strlen(value) > MAX_QUERY_LENGTH)
				return NULL;
			break;
		case KCF_VALUE_FUNCTION:
		case KCF_VALUE_TEXT:
			if (value[0] == '\0' || strlen(value) > MAX_TEXT_LENGTH ||
				has_control_characters(value))
				return NULL;
			break;
		case KCF_VALUE_NAME:
			if (!is_name(value, MAX_NAME_LENGTH))
				return NULL;
			break;
		case KCF_VALUE_IDENTITY:
			if (value[0] == '\0' || strlen(value) > MAX_TEXT_LENGTH ||
				!scan_identity(value, NULL, NULL))
				return NULL;
			if (kcf_option_expand(value, &unset) == NULL && unset == NULL)
				return NULL;
			break;
		case KCF_VALUE_PEM:
			if (!is_pem(value))
				return NULL;
			break;
		case KCF_VALUE_PATH:
			if (value[0] != '/' || strlen(value) >= MAXPGPATH || has_control_characters(value))
				return NULL;
			break;
		case KCF_VALUE_BROKERS:
			if (!is_broker_list(value))
				return NULL;
			break;
		case KCF_VALUE_TOPIC:
			if (!kcf_option_topic_is_legal(value))
				return NULL;
			break;
		case KCF_VALUE_CHANNEL:
			if (value[0] == '\0' || strlen(value) >= NAMEDATALEN || has_control_characters(value))
				return NULL;
			break;
		case KCF_VALUE_JSON_PATH:
			if (!is_json_path(value))
				return NULL;
			break;
		case KCF_VALUE_NONE:
			return NULL;
	}
	return pstrdup(value);
}

char *
kcf_option_check_value(const KcfOption *option, const char *value)
{
	char *canonical = canonical_value(option, value);

	if (canonical == NULL)
	{
		/* What is long or does not print is no help to the reader; a secret is nobody's business.
		 */
		bool show = !option->secret && strlen(value) <= 100 && !has_control_characters(value);

		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 show ? errmsg("invalid value for option \"%s\": \"%s\"", option->name, value)
					  : errmsg("invalid value for option \"%s\"", option->name),
				 errhint("The value must be %s.", kcf_option_expected(option))));
	}
	return canonical;
}
