/*
 * probe.c
 *		How long a record takes from being produced to being seen.
 *
 *		probe ADDRESS TOPIC bare COUNT INTERVAL_US
 *			by librdkafka alone, set up as our consumer sets it up, reading the whole topic
 *		probe ADDRESS TOPIC table COUNT INTERVAL_US CONNINFO
 *			by a client of PostgreSQL: the cached table named as the topic has it, and an answer of
 *			kafka_cache.wait_for() has arrived that says so
 *		probe ADDRESS TOPIC listener COUNT INTERVAL_US CONNINFO
 *			by a client of PostgreSQL that listens on a channel named as the topic
 *		probe ADDRESS TOPIC load RATE
 *			no probes, but so many updates a second to the other partitions, until it is killed; says
 *			"going" when it has begun
 *
 * Probes are records of partition 0, where nobody else writes, so their offsets are known beforehand
 * and who waits is there before the record is. The first three print "P50 P99 MAX ACK50 ACK99":
 * microseconds from the producing call, to having seen the record and to its acknowledgement.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "bare.h"

#define BATCH 1000
#define TIMEOUT_MS 20000
/* Before the first one that counts. */
#define WARM_UP 50
#define KEYS 100000

static const char *address;
static const char *topic_name;

/* A queue that writes to a descriptor of its own when it becomes non-empty. */
static int
descriptor_of(rd_kafka_queue_t *queue)
{
	static const uint64_t one = 1;
	int fd = eventfd(0, EFD_NONBLOCK);

	rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
	return fd;
}

static void
drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

/* ---- producing ----------------------------------------------------------------------------- */

static rd_kafka_t *producer;
static rd_kafka_topic_t *topic;
static rd_kafka_queue_t *reports;
static int reports_fd;

static void
start_producer(const char *linger)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	const struct rd_kafka_metadata *metadata;
	char text[512];

	set(conf, "bootstrap.servers", address);
	set(conf, "enable.idempotence", "true");
	set(conf, "acks", "all");
	set(conf, "linger.ms", linger);
	set(conf, "socket.nagle.disable", "true");
	set(conf, "queue.buffering.max.messages", "1000000");
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (producer == NULL)
		die(text);
	reports = rd_kafka_queue_get_main(producer);
	reports_fd = descriptor_of(reports);
	topic = rd_kafka_topic_new(producer, topic_name, NULL);
	if (rd_kafka_metadata(producer, 0, topic, &metadata, TIMEOUT_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("nobody answers");
	rd_kafka_metadata_destroy(metadata);
}

/* The number of records that were acknowledged. */
static int
take_reports(void)
{
	rd_kafka_event_t *event;
	int n = 0;

	while ((event = rd_kafka_queue_poll(reports, 0)) != NULL)
	{
		const rd_kafka_message_t *message;

		while ((message = rd_kafka_event_message_next(event)) != NULL)
		{
			if (message->err)
				die(rd_kafka_err2str(message->err));
			n++;
		}
		rd_kafka_event_destroy(event);
	}
	return n;
}

static void
produce(int partition, long key, long number)
{
	char id[64];
	char value[256];
	int id_len = snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012ld", key);
	int len = snprintf(value, sizeof(value),
					   "{\"name\":\"user number %07ld\",\"qty\":%ld,\"ts\":\"2026-05-06T07:08:09."
					   "123Z\",\"tags\":[\"alpha\",\"beta\"],\"attrs\":{\"color\":\"blue\","
					   "\"size\":17,\"ok\":true},\"note\":\"some text to fill the line up.\"}",
					   key, number % 1000000000);

	while (rd_kafka_produce(topic, partition, RD_KAFKA_MSG_F_COPY, value, len, id, id_len, NULL) !=
		   0)
	{
		if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die(rd_kafka_err2str(rd_kafka_last_error()));
		take_reports();
		usleep(1000);
	}
}

/* ---- seeing -------------------------------------------------------------------------------- */

static rd_kafka_queue_t *records;
static int seen_fd;
static PGconn *connection;
static bool listening;

static void
start_consumer(int partitions)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_t *consumed;
	rd_kafka_t *consumer;
	char text[512];

	set(conf, "bootstrap.servers", address);
	set(conf, "enable.partition.eof", "true");
	set(conf, "check.crcs", "true");
	set(conf, "isolation.level", "read_committed");
	set(conf, "socket.nagle.disable", "true");
	set(conf, "fetch.message.max.bytes", "524288");
	set(conf, "queued.min.messages", "10000000");
	set(conf, "queued.max.messages.kbytes", "65536");
	consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
	if (consumer == NULL)
		die(text);
	records = rd_kafka_queue_new(consumer);
	seen_fd = descriptor_of(records);
	consumed = rd_kafka_topic_new(consumer, topic_name, NULL);
	for (int i = 0; i < partitions; i++)
		rd_kafka_consume_start_queue(consumed, i, RD_KAFKA_OFFSET_END, records);
}

/* How many probes have come. All records are taken, and those of the load dropped. */
static int
take_records(int64_t *end)
{
	static rd_kafka_message_t *messages[BATCH];
	int probes = 0;
	ssize_t n;

	while ((n = rd_kafka_consume_batch_queue(records, 0, messages, BATCH)) > 0)
	{
		for (ssize_t i = 0; i < n; i++)
		{
			if (messages[i]->partition == 0 && messages[i]->err == 0)
			{
				probes++;
				*end = messages[i]->offset + 1;
			}
			else if (messages[i]->partition == 0)
				*end = messages[i]->offset;
			rd_kafka_message_destroy(messages[i]);
		}
	}
	return probes;
}

static void
connect_to(const char *conninfo)
{
	connection = PQconnectdb(conninfo);
	if (PQstatus(connection) != CONNECTION_OK)
		die(PQerrorMessage(connection));
	seen_fd = PQsocket(connection);
}

static void
start_session(const char *conninfo)
{
	PGresult *result;
	char text[256];

	connect_to(conninfo);
	snprintf(text, sizeof(text), "SELECT kafka_cache.wait_for('%s', $1::jsonb, '20 s')",
			 topic_name);
	result = PQprepare(connection, "wait", text, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(PQerrorMessage(connection));
	PQclear(result);
}

static void
start_listener(const char *conninfo)
{
	PGresult *result;
	char text[256];

	connect_to(conninfo);
	snprintf(text, sizeof(text), "LISTEN %s", topic_name);
	result = PQexec(connection, text);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(PQerrorMessage(connection));
	PQclear(result);
	listening = true;
}

/* Has it been told of this offset of partition 0? */
static bool
take_notifications(int64_t offset)
{
	PGnotify *notify;
	bool here = false;

	if (!PQconsumeInput(connection))
		die(PQerrorMessage(connection));
	while ((notify = PQnotifies(connection)) != NULL)
	{
		const char *told = strstr(notify->extra, "\"0\":");
		const char *updates = strstr(notify->extra, "\"updates\"");

		here |= told && told < updates && atoll(told + 4) >= offset;
		PQfreemem(notify);
	}
	return here;
}

static void
ask_session(int64_t offset)
{
	char position[64];
	const char *values[] = { position };

	snprintf(position, sizeof(position), "{\"0\": %lld}", (long long) offset);
	if (!PQsendQueryPrepared(connection, "wait", 1, values, NULL, NULL, 0))
		die(PQerrorMessage(connection));
	while (PQflush(connection) > 0)
		usleep(100);
}

static bool
take_answer(void)
{
	PGresult *result;

	if (!PQconsumeInput(connection))
		die(PQerrorMessage(connection));
	if (PQisBusy(connection))
		return false;
	result = PQgetResult(connection);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || strcmp(PQgetvalue(result, 0, 0), "t") != 0)
		die("a probe was not seen within 20 s");
	PQclear(result);
	while ((result = PQgetResult(connection)) != NULL)
		PQclear(result);
	return true;
}

/* ---- measuring ----------------------------------------------------------------------------- */

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* One record, until it was both acknowledged and seen. */
static void
probe(int number, int64_t offset, double *ack, double *seen)
{
	struct pollfd fds[] = { { .fd = reports_fd, .events = POLLIN },
							{ .fd = seen_fd, .events = POLLIN } };
	double start;
	int64_t end;

	if (connection && !listening)
	{
		ask_session(offset);
		usleep(500); /* it waits, and all is quiet again */
	}
	*ack = *seen = 0;
	start = now_us();
	/* a value that was not there before: of others listeners are not told */
	produce(0, KEYS + number % 1000, (long) start);
	while (*ack == 0 || *seen == 0)
	{
		if (poll(fds, 2, TIMEOUT_MS) == 0)
			die("a probe was not seen within 20 s");
		/* what is measured comes first */
		if (fds[1].revents)
		{
			bool here;

			if (!connection)
				drain(seen_fd);
			if (listening)
				here = take_notifications(offset);
			else
				here = connection ? take_answer() : take_records(&end) > 0;
			if (here)
				*seen = now_us() - start;
			/* an answer is read once; a connection that has nothing more to say is not asked */
			if (here && connection)
				fds[1].fd = -1;
		}
		if (fds[0].revents)
		{
			drain(reports_fd);
			if (take_reports() > 0)
				*ack = now_us() - start;
		}
	}
}

static void
pause_until(double until)
{
	struct pollfd wait = { .fd = seen_fd, .events = POLLIN };
	int64_t end;
	double left;

	while ((left = until - now_us()) > 0)
	{
		/* the bare consumer goes on consuming the load */
		if (connection)
			usleep((useconds_t) left);
		else if (poll(&wait, 1, (int) (left / 1000) + 1) > 0)
		{
			drain(seen_fd);
			take_records(&end);
		}
	}
}

static void
measure(int count, int interval)
{
	double *seen = calloc(count, sizeof(double));
	double *acks = calloc(count, sizeof(double));
	double next;
	int64_t low;
	int64_t high;

	if (rd_kafka_query_watermark_offsets(producer, topic_name, 0, &low, &high, TIMEOUT_MS) != 0)
		die("the end of partition 0 is not known");
	if (!connection)
	{
		/* until the end of the partition has been reported, nothing new is fetched */
		struct pollfd wait = { .fd = seen_fd, .events = POLLIN };
		int64_t end = -1;

		while (end < high)
		{
			if (poll(&wait, 1, TIMEOUT_MS) == 0)
				die("the bare consumer does not come to the end");
			drain(seen_fd);
			take_records(&end);
		}
	}
	next = now_us();
	for (int i = -WARM_UP; i < count; i++)
	{
		double ack;
		double see;

		probe(i + WARM_UP, high++, &ack, &see);
		if (i >= 0)
		{
			seen[i] = see;
			acks[i] = ack;
		}
		/* not in step with anything that is done every so many milliseconds */
		next += interval * (0.5 + (double) random() / RAND_MAX);
		pause_until(next);
		next = next < now_us() ? now_us() : next;
	}
	qsort(seen, count, sizeof(double), by_size);
	qsort(acks, count, sizeof(double), by_size);
	printf("%.0f %.0f %.0f %.0f %.0f\n", seen[count / 2], seen[count * 99 / 100], seen[count - 1],
		   acks[count / 2], acks[count * 99 / 100]);
}

static void
load(long rate, int partitions)
{
	double start = now_us();
	long done = 0;
	long told = 0;

	for (;;)
	{
		long due = (long) ((now_us() - start) * rate / 1e6);

		for (; done < due; done++)
			produce(1 + (int) (done % (partitions - 1)), (done * 7919) % KEYS, done);
		take_reports();
		if (!told && done > rate / 4)
			told = printf("going\n") + fflush(stdout);
		usleep(1000);
	}
}

int
main(int argc, char **argv)
{
	const struct rd_kafka_metadata *metadata;
	const char *what = argc > 3 ? argv[3] : "";
	int partitions;

	if (argc < 5)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	address = argv[1];
	topic_name = argv[2];
	start_producer(strcmp(what, "load") == 0 ? "5" : "0");
	rd_kafka_metadata(producer, 0, topic, &metadata, TIMEOUT_MS);
	partitions = metadata->topics[0].partition_cnt;
	rd_kafka_metadata_destroy(metadata);
	if (strcmp(what, "load") == 0)
		load(atol(argv[4]), partitions);
	else if (strcmp(what, "bare") == 0 && argc == 6)
		start_consumer(partitions);
	else if (strcmp(what, "table") == 0 && argc == 7)
		start_session(argv[6]);
	else if (strcmp(what, "listener") == 0 && argc == 7)
		start_listener(argv[6]);
	else
		return 2;
	measure(atoi(argv[4]), atoi(argv[5]));
	return 0;
}
