/*
 * produce.h
 *		Producing records by command, for the mock broker and for real ones.
 *
 *		produce TOPIC PARTITION KEY VALUE [at MS] [header NAME VALUE]...
 *			one record, acknowledged: "ok PARTITION OFFSET"
 *		load TOPIC PARTITION FIRST COUNT KEY VALUE [at MS]
 *			COUNT records; %d in KEY and VALUE is the number of the record, from FIRST on; %x is
 *			its 12-digit hexadecimal form (the tail of a uuid). %% is a percent sign.
 *			"ok COUNT"
 *
 *		position TOPIC
 *			where its partitions end now, as the extension's functions take it: "ok {"0": 41, "1": -1}"
 *
 * PARTITION * leaves the choice to the partitioner, which is the one of Java's client.
 */
#ifndef KCF_TEST_PRODUCE_H
#define KCF_TEST_PRODUCE_H

#include <librdkafka/rdkafka.h>

#include "line.h"

/*
 * A producer for these brokers. More settings as NAME=VALUE, NULL at the end. Exits on failure.
 */
extern rd_kafka_t *producer_new(const char *brokers, const char *const *settings);

/* Carry out one of these commands; answers on out. False when the command is none of them. */
extern bool producer_command(rd_kafka_t *rk, const Word *words, int count, FILE *out);

#endif /* KCF_TEST_PRODUCE_H */
