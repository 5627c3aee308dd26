/*
 * kafka_internal.h
 *		A client's insides, for kafka.c and kafka_consumer.c alone.
 *
 * Process:  as kafka.h says, here and below.
 * Locks:    none.
 * Memory:   TopMemoryContext.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_KAFKA_INTERNAL_H
#define KCF_KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>

#include "kafka.h"
#include "lib/ilist.h"

/* Records taken from the library at once. */
#define KCF_PULL_BATCH 1000

struct KcfKafka
{
	dlist_node link; /* in the list of those alive */
	MemoryContext mcxt;
	char *topic;
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	rd_kafka_queue_t *records; /* what is fetched: records, ends and errors of partitions */
	rd_kafka_queue_t *events;  /* errors of the client, log lines, statistics */
	KcfKafkaStats stats;

	bool headers;
	int64 max_record_bytes;

	uint16 *epochs; /* of each partition's last start */
	int nepochs;

	/* For keeping secrets out of texts. */
	char **secrets;
	int nsecrets;

	rd_kafka_message_t *pulled[KCF_PULL_BATCH];
};

extern KcfKafkaError kcf_kafka_error(rd_kafka_resp_err_t err);
/* text is the library's, may be NULL; copied without secrets and control characters */
extern void kcf_kafka_fault(const KcfKafka *kafka, KcfKafkaFault *fault, rd_kafka_resp_err_t err,
							const char *text);
extern void kcf_kafka_clean(const KcfKafka *kafka, char *out, Size size, const char *text,
							Size len);

#endif /* KCF_KAFKA_INTERNAL_H */
