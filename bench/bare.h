/*
 * bare.h
 *		What the programs share that use librdkafka alone, as yardsticks.
 */
#ifndef BARE_H
#define BARE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

static inline double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static inline void
die(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(1);
}

static inline void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char text[512];

	if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
		die(text);
}

#endif /* BARE_H */
