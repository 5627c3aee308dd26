/*
 * bare_consumer.c
 *		The yardstick of loading: librdkafka alone, set up as our consumer sets it up, counting records.
 *
 *		bare_consumer ADDRESS TOPIC
 *
 * Reads every partition from its beginning to the end it has when reading begins, and prints
 * "RECORDS MILLISECONDS", from before the client is made to the last end of a partition.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bare.h"

#define BATCH 1000

int
main(int argc, char **argv)
{
	static rd_kafka_message_t *messages[BATCH];
	static const uint64_t one = 1;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	double start = now_us();
	long records = 0;
	int open;
	int fd = eventfd(0, EFD_NONBLOCK);
	char text[512];

	if (argc != 3)
		return 2;
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "enable.partition.eof", "true");
	set(conf, "check.crcs", "true");
	set(conf, "isolation.level", "read_committed");
	set(conf, "fetch.message.max.bytes", "524288");
	set(conf, "queued.min.messages", "10000000");
	set(conf, "queued.max.messages.kbytes", "65536");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
	if (rk == NULL)
	{
		fprintf(stderr, "bare_consumer: %s\n", text);
		return 1;
	}
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	if (rd_kafka_metadata(rk, 0, topic, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		fprintf(stderr, "bare_consumer: nobody answers\n");
		return 1;
	}
	open = metadata->topics[0].partition_cnt;
	queue = rd_kafka_queue_new(rk);
	rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
	for (int i = 0; i < open; i++)
		rd_kafka_consume_start_queue(topic, i, 0, queue);
	rd_kafka_metadata_destroy(metadata);

	while (open > 0)
	{
		ssize_t n = rd_kafka_consume_batch_queue(queue, 0, messages, BATCH);

		if (n <= 0)
		{
			struct pollfd wait = { .fd = fd, .events = POLLIN };
			uint64_t count;

			poll(&wait, 1, 1000);
			if (read(fd, &count, sizeof(count)) < 0)
				continue;
		}
		for (ssize_t i = 0; i < n; i++)
		{
			if (messages[i]->err == RD_KAFKA_RESP_ERR_NO_ERROR)
				records++;
			else if (messages[i]->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
				open--;
			rd_kafka_message_destroy(messages[i]);
		}
	}
	printf("%ld %.0f\n", records, (now_us() - start) / 1e3);
	fflush(stdout);
	rd_kafka_queue_destroy(queue);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	return 0;
}
