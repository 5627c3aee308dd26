/*
 * properties_test.c
 *		The table of librdkafka properties against the installed library.
 *
 * Every property that the library knows must have a class: a new library with a new property fails
 *here, not in production. Where a value may be set, the library must take it.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "cases.h"
#include "properties.h"

static int failures = 0;
static int checks = 0;

static void
fail(const char *name, const char *format, ...)
{
	va_list args;

	failures++;
	fprintf(stderr, "properties_test: %s: ", name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* The next |-separated cell of a line, trimmed, in place. */
static char *
cell(char **rest)
{
	char *start = *rest;
	char *end = strchr(start, '|');

	if (end == NULL)
		end = start + strlen(start);
	*rest = *end ? end + 1 : end;
	*end = '\0';
	while (*start == ' ')
		start++;
	end = start + strlen(start);
	while (end > start && isspace((unsigned char) end[-1]))
		*--end = '\0';
	return start;
}

static bool
in_list(const char *list, const char *value, size_t len)
{
	for (;;)
	{
		size_t n = strcspn(list, ",");

		if (n == len && strncmp(list, value, n) == 0)
			return true;
		if (list[n] == '\0')
			return false;
		list += n + 1;
		while (*list == ' ')
			list++;
	}
}

static void
check_range(const KcfPropertyRule *rule, const char *range)
{
	long long min;
	long long max;

	if (rule->type == KCF_VALUE_INT)
	{
		if (sscanf(range, "%lld .. %lld", &min, &max) != 2)
			fail(rule->name, "is no integer in the library: %s", range);
		else if (rule->min < min || rule->max > max)
			fail(rule->name, "our range %lld .. %lld exceeds the library's %s", rule->min,
				 rule->max, range);
	}
	else if (rule->type == KCF_VALUE_BOOL && strcmp(range, "true, false") != 0)
		fail(rule->name, "is no boolean in the library: %s", range);
	else if (rule->type == KCF_VALUE_ENUM && *range)
	{
		for (const char *value = rule->values;;)
		{
			size_t n = strcspn(value, ",");

			if (!in_list(range, value, n))
				fail(rule->name, "the library does not know the value %.*s", (int) n, value);
			if (value[n] == '\0')
				break;
			value += n + 1;
		}
	}
}

/* A row of the library's own table: | name | C/P | range | default | importance | description */
static void
check_row(char *line)
{
	char *name = cell(&line);
	char *scope = cell(&line);
	char *range = cell(&line);
	const KcfPropertyRule *rule;
	const char *alias;

	if (strcmp(name, "Property") == 0 || strspn(name, "-") == strlen(name))
		return;
	checks++;
	rule = kcf_property_find(name);
	if (rule == NULL)
	{
		fail(name, "has no class");
		return;
	}

	alias = strstr(line, "Alias for `");
	if (alias != NULL)
	{
		/* which of the two names is the alias is for us to say, but one of them must be */
		const char *other = alias + strlen("Alias for `");
		size_t n = strcspn(other, "`");
		char canonical[128];
		const KcfPropertyRule *target;

		snprintf(canonical, sizeof(canonical), "%.*s", (int) n, other);
		target = kcf_property_find(canonical);
		if (target == NULL)
			fail(name, "is an alias of %s, which has no class", canonical);
		else if (target->class != rule->class)
			fail(name, "has another class than %s, which it is an alias of", canonical);
		else if (rule->class != KCF_PROPERTY_NEVER &&
				 !(rule->alias_of && strcmp(rule->alias_of, canonical) == 0) &&
				 !(target->alias_of && strcmp(target->alias_of, name) == 0))
			fail(name, "is an alias of %s, which the table does not say", canonical);
	}
	if (rule->class == KCF_PROPERTY_NEVER || rule->why != NULL)
		return;
	if (rule->scope != '*' && rule->scope != *scope)
		fail(name, "belongs to %s in the library", scope);
	check_range(rule, range);
}

static void
check_listed(void)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	char *rest;
	int before = checks;

	rd_kafka_conf_properties_show(out);
	fclose(out);
	rest = text;
	for (char *line; (line = strsep(&rest, "\n")) != NULL;)
		if (strchr(line, '|') != NULL)
			check_row(line);
	free(text);
	if (checks - before < 150)
		fail("list", "only %d properties found: has the format changed?", checks - before);
}

/* What the list leaves out but a configuration object contains. */
static void
check_dumped(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_conf_t *topic_conf = rd_kafka_topic_conf_new();
	size_t n[2];
	const char **dump[2];

	dump[0] = rd_kafka_conf_dump(conf, &n[0]);
	dump[1] = rd_kafka_topic_conf_dump(topic_conf, &n[1]);
	for (int d = 0; d < 2; d++)
	{
		for (size_t i = 0; i < n[d]; i += 2)
		{
			checks++;
			if (kcf_property_find(dump[d][i]) == NULL)
				fail(dump[d][i], "has no class");
		}
		rd_kafka_conf_dump_free(dump[d], n[d]);
	}
	rd_kafka_topic_conf_destroy(topic_conf);
	rd_kafka_conf_destroy(conf);
}

static void
check_set(const KcfPropertyRule *rule, const char *value)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char reason[512];
	rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, rule->name, value, reason, sizeof(reason));

	checks++;
	if (result != RD_KAFKA_CONF_OK && !(result == RD_KAFKA_CONF_UNKNOWN && rule->newer))
		fail(rule->name, "the library refuses \"%s\": %s", value, reason);
	rd_kafka_conf_destroy(conf);
}

/* What a server's owner may set, the library takes. None of this loads, runs or opens anything. */
static void
check_values(const KcfPropertyRule *rule)
{
	char number[32];

	if (rule->value)
		check_set(rule, rule->value);
	switch (rule->type)
	{
		case KCF_VALUE_INT:
			snprintf(number, sizeof(number), "%lld", rule->min);
			check_set(rule, number);
			snprintf(number, sizeof(number), "%lld", rule->max);
			check_set(rule, number);
			break;
		case KCF_VALUE_BOOL:
			check_set(rule, "true");
			check_set(rule, "false");
			break;
		case KCF_VALUE_ENUM:
			for (const char *p = rule->values;;)
			{
				size_t n = strcspn(p, ",");
				char value[64];

				snprintf(value, sizeof(value), "%.*s", (int) n, p);
				check_set(rule, value);
				if (p[n] == '\0')
					break;
				p += n + 1;
			}
			break;
		case KCF_VALUE_BROKERS:
			check_set(rule, "localhost:9092,[::1]:9093");
			break;
		case KCF_VALUE_NONE:
			fail(rule->name, "may be set, but takes no value");
			break;
		default:
			break;
	}
}

/* The table itself: sorted, found, and of the size that was decided on. */
static void
check_table(void)
{
	/* Names that no list of the library shows. */
	static const char *const hidden[] = { "test.mock.num.brokers", "test.mock.broker.rtt",
										  "ut_handle_ProduceResponse", "enable_sasl_queue" };
	static const char classes[] = "NFUO";
	static const int expected[] = { 94, 35, 15, 57 };
	int counts[4] = { 0 };

	for (const KcfPropertyRule *rule = kcf_properties; rule->name; rule++)
	{
		const char *class = strchr(classes, rule->class);

		checks++;
		if (class == NULL)
			fail(rule->name, "has no class");
		else
			counts[class - classes]++;
		if (rule > kcf_properties && strcmp(rule[-1].name, rule->name) >= 0)
			fail(rule->name, "is out of order");
		if (kcf_property_find(rule->name) != rule)
			fail(rule->name, "is not found");
		if (rule->class == KCF_PROPERTY_NEVER &&
			(rule->why == NULL || rule->type != KCF_VALUE_NONE))
			fail(rule->name, "must say why nobody may set it");
		if ((rule->class == KCF_PROPERTY_FILE && rule->why == NULL) !=
			(rule->right != KCF_RIGHT_NONE))
			fail(rule->name, "must say who may set it");
		if (rule->alias_of && kcf_property_find(rule->alias_of) == NULL)
			fail(rule->name, "is an alias of what is not there");
		if (rule->class != KCF_PROPERTY_NEVER && rule->why == NULL)
			check_values(rule);
	}
	for (int i = 0; i < 4; i++)
		if (counts[i] != expected[i])
			fail("table", "%d names of class %c, decided were %d", counts[i], classes[i],
				 expected[i]);
	for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
	{
		const KcfPropertyRule *rule = kcf_property_find(hidden[i]);

		if (rule == NULL || rule->class != KCF_PROPERTY_NEVER)
			fail(hidden[i], "must be class N");
	}
	if (kcf_property_find("no.such.property") != NULL)
		fail("no.such.property", "is found");
}

int
main(void)
{
	CASE(check_table(), failures);
	CASE(check_listed(), failures);
	CASE(check_dumped(), failures);
	return cases_report("properties", checks);
}
