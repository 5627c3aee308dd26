/*
 * bare_producer.c
 *		The yardstick of writing: librdkafka alone, set up as our producer sets it up.
 *
 *		bare_producer ADDRESS TOPIC latency RECORDS
 *			one record at a time, each acknowledged before the next: "P50 P99", microseconds
 *		bare_producer ADDRESS TOPIC together RECORDS SESSIONS
 *			so many under way at any time, as if each session waited for one: records a second
 *		bare_producer ADDRESS TOPIC bulk RECORDS
 *			as fast as the library takes them: "RECORDS MILLISECONDS", from the first record to the
 *			last acknowledgement
 *
 * All begin when the client knows the topic and its partitions' leaders. Keys and values are those
 * of bench/write.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bare.h"

#define KEY "00000000-0000-4000-8000-000000000000"
#define VALUE                                                                                      \
	"{\"name\":\"user number 0000000\",\"qty\":1234567,\"ts\":\"2026-05-06T07:08:09.123+00:00\","  \
	"\"tags\":[\"alpha\",\"beta\"],\"attrs\":{\"ok\":true,\"size\":17,\"color\":\"blue\"},"        \
	"\"note\":\"some text to fill the line up.\"}"

static rd_kafka_t *rk;
static rd_kafka_topic_t *topic;
static rd_kafka_queue_t *queue;
static int fd;
static long acknowledged = 0;

/* Take the reports that are there; wait for one if there is none. */
static void
take_reports(int timeout_ms)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 0);
	uint64_t count;

	if (event == NULL)
	{
		if (timeout_ms == 0 || poll(&wait, 1, timeout_ms) == 0 ||
			read(fd, &count, sizeof(count)) < 0)
			return;
		event = rd_kafka_queue_poll(queue, 0);
	}
	for (; event != NULL; event = rd_kafka_queue_poll(queue, 0))
	{
		const rd_kafka_message_t *message;

		while ((message = rd_kafka_event_message_next(event)) != NULL)
		{
			if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
				die(rd_kafka_err2str(message->err));
			acknowledged++;
		}
		rd_kafka_event_destroy(event);
	}
}

/* Seven decimal digits. */
static void
put_digits(char *at, long number)
{
	for (int i = 6; i >= 0; i--, number /= 10)
		at[i] = (char) ('0' + number % 10);
}

static void
produce(long number)
{
	static char key[] = KEY;
	static char value[] = VALUE;

	put_digits(key + sizeof(key) - 8, number);
	put_digits(value + strlen("{\"name\":\"user number "), number);
	while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, value,
							sizeof(value) - 1, key, sizeof(key) - 1, NULL) != 0)
	{
		if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die(rd_kafka_err2str(rd_kafka_last_error()));
		take_reports(1000);
	}
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
latency(long records)
{
	double *took = malloc(records * sizeof(double));

	for (long i = 0; i < records; i++)
	{
		double start = now_us();

		produce(i);
		while (acknowledged == i)
			take_reports(1000);
		took[i] = now_us() - start;
	}
	qsort(took, records, sizeof(double), by_size);
	printf("%.0f %.0f\n", took[records / 2], took[records * 99 / 100]);
}

static void
together(long records, long sessions)
{
	double start = now_us();

	for (long i = 0; i < records; i++)
	{
		while (i - acknowledged >= sessions)
			take_reports(1000);
		produce(i);
	}
	while (acknowledged < records)
		take_reports(1000);
	printf("%.0f\n", records / (now_us() - start) * 1e6);
}

static void
bulk(long records)
{
	double start = now_us();

	for (long i = 0; i < records; i++)
	{
		produce(i);
		if (i % 1000 == 0)
			take_reports(0);
	}
	while (acknowledged < records)
		take_reports(1000);
	printf("%ld %.0f\n", records, (now_us() - start) / 1e3);
}

int
main(int argc, char **argv)
{
	static const uint64_t one = 1;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char text[512];

	if (argc < 5)
		return 2;
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "enable.idempotence", "true");
	set(conf, "acks", "all");
	set(conf, "partitioner", "murmur2_random");
	set(conf, "linger.ms", "0");
	set(conf, "socket.nagle.disable", "true");
	set(conf, "queue.buffering.max.messages", "1000000");
	set(conf, "queue.buffering.max.kbytes", "1048576");
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (rk == NULL)
		die(text);
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	if (rd_kafka_metadata(rk, 0, topic, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("nobody answers");
	rd_kafka_metadata_destroy(metadata);
	fd = eventfd(0, EFD_NONBLOCK);
	queue = rd_kafka_queue_get_main(rk);
	rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));

	/* the connection, the producer's id and the first of everything */
	produce(0);
	while (acknowledged == 0)
		take_reports(1000);
	acknowledged = 0;

	if (strcmp(argv[3], "latency") == 0)
		latency(atol(argv[4]));
	else if (strcmp(argv[3], "together") == 0 && argc == 6)
		together(atol(argv[4]), atol(argv[5]));
	else
		bulk(atol(argv[4]));
	fflush(stdout);
	rd_kafka_queue_destroy(queue);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	return 0;
}
