/*
 * produce.c
 *		Producing records by command, for the mock broker and for real ones.
 */
#include "produce.h"

#include <stdlib.h>
#include <string.h>

/* What a delivery report says; the report comes while we poll, in our own thread. */
typedef struct Delivery
{
	int awaited;
	int32_t partition;
	int64_t offset;
	rd_kafka_resp_err_t error;
} Delivery;

typedef struct Record
{
	Word key;
	Word value;
	int32_t partition;
	int64_t timestamp; /* 0: now */
	rd_kafka_headers_t *headers;
} Record;

static void
on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
	Delivery *delivery = msg->_private;

	(void) rk;
	(void) opaque;
	delivery->awaited--;
	delivery->partition = msg->partition;
	delivery->offset = msg->offset;
	if (msg->err)
		delivery->error = msg->err;
}

rd_kafka_t *
producer_new(const char *brokers, const char *const *settings)
{
	static const char *const common[] = { "partitioner=murmur2_random",
										  "linger.ms=0",
										  "acks=all",
										  "isolation.level=read_uncommitted",
										  "enable.idempotence=false",
										  "message.max.bytes=100000000",
										  "log_level=2",
										  "topic.metadata.refresh.fast.interval.ms=20",
										  NULL };
	char errstr[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
	for (int pass = 0; pass < 2; pass++)
	{
		for (const char *const *s = pass == 0 ? common : settings; s != NULL && *s != NULL; s++)
		{
			char *name = strdup(*s);
			char *value = strchr(name, '=');

			*value++ = '\0';
			if (rd_kafka_conf_set(conf, name, value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			{
				fprintf(stderr, "%s\n", errstr);
				exit(1);
			}
			free(name);
		}
	}
	rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (rk == NULL)
	{
		fprintf(stderr, "%s\n", errstr);
		exit(1);
	}
	return rk;
}

static void
refresh_topic(rd_kafka_t *rk, const char *name)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);

	if (rd_kafka_metadata(rk, 0, topic, &md, 1000) == RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_metadata_destroy(md);
	rd_kafka_topic_destroy(topic);
}

static rd_kafka_resp_err_t
send_record(rd_kafka_t *rk, const char *topic, const Record *rec, Delivery *delivery)
{
	rd_kafka_resp_err_t err;
	int refreshes = 50;

	for (;;)
	{
		rd_kafka_headers_t *headers = rec->headers ? rd_kafka_headers_copy(rec->headers) : NULL;

		err = rd_kafka_producev(
			rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(rec->partition),
			RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(rec->key.data, rec->key.len),
			RD_KAFKA_V_VALUE(rec->value.data, rec->value.len), RD_KAFKA_V_TIMESTAMP(rec->timestamp),
			RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(delivery), RD_KAFKA_V_END);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			delivery->awaited++;
			return err;
		}
		if (headers)
			rd_kafka_headers_destroy(headers);
		/* A topic may have grown, or be a new one of its name, since this client last asked. */
		if (err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION && refreshes-- > 0)
			refresh_topic(rk, topic);
		else if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			return err;
		rd_kafka_poll(rk, 100);
	}
}

/* message.timeout.ms bounds this: every record gets its report. */
static void
await_deliveries(rd_kafka_t *rk, Delivery *delivery)
{
	while (delivery->awaited > 0)
		rd_kafka_poll(rk, 1000);
}

static bool
parse_partition(const Word *word, int32_t *partition)
{
	long long number;

	if (word_is(word, "*"))
		*partition = RD_KAFKA_PARTITION_UA;
	else if (word_number(word, &number))
		*partition = (int32_t) number;
	else
		return false;
	return true;
}

/* "at MS" and "header NAME VALUE" behind the fixed words. */
static bool
parse_tail(const Word *words, int count, Record *rec)
{
	for (int i = 0; i < count;)
	{
		long long ms;

		if (word_is(&words[i], "at") && i + 1 < count && word_number(&words[i + 1], &ms))
		{
			rec->timestamp = ms;
			i += 2;
		}
		else if (word_is(&words[i], "header") && i + 2 < count && words[i + 1].data != NULL)
		{
			if (rec->headers == NULL)
				rec->headers = rd_kafka_headers_new(4);
			rd_kafka_header_add(rec->headers, words[i + 1].data, (ssize_t) words[i + 1].len,
								words[i + 2].data, (ssize_t) words[i + 2].len);
			i += 3;
		}
		else
			return false;
	}
	return true;
}

static void
produce_one(rd_kafka_t *rk, const Word *words, int count, FILE *out)
{
	Delivery delivery = { 0 };
	Record rec = { .key = words[3], .value = words[4] };
	rd_kafka_resp_err_t err;

	if (!parse_partition(&words[2], &rec.partition) || !parse_tail(words + 5, count - 5, &rec))
	{
		fprintf(out, "error produce TOPIC PARTITION KEY VALUE [at MS] [header NAME VALUE]...\n");
		return;
	}
	err = send_record(rk, words[1].data, &rec, &delivery);
	if (rec.headers)
		rd_kafka_headers_destroy(rec.headers);
	await_deliveries(rk, &delivery);
	if (err || delivery.error)
		fprintf(out, "error %s\n", rd_kafka_err2str(err ? err : delivery.error));
	else
		fprintf(out, "ok %d %lld\n", delivery.partition, (long long) delivery.offset);
}

/* The pattern with its %d and %x replaced, in a buffer that is used again and again. */
static Word
fill_in(const Word *pattern, long long number, char **buffer, size_t *size)
{
	Word result = { 0 };

	if (pattern->data == NULL)
		return result;
	if (*size < pattern->len * 13 + 1)
	{
		*size = pattern->len * 13 + 1;
		*buffer = realloc(*buffer, *size);
	}
	result.data = *buffer;
	for (size_t i = 0; i < pattern->len; i++)
	{
		char next = i + 1 < pattern->len ? pattern->data[i + 1] : '\0';

		if (pattern->data[i] == '%' && next == 'd')
			result.len += sprintf(result.data + result.len, "%lld", number);
		else if (pattern->data[i] == '%' && next == 'x')
			result.len += sprintf(result.data + result.len, "%012llx", number);
		else
		{
			result.data[result.len++] = pattern->data[i];
			if (pattern->data[i] != '%' || next != '%')
				continue;
		}
		i++;
	}
	result.data[result.len] = '\0';
	return result;
}

static void
produce_many(rd_kafka_t *rk, const Word *words, int count, FILE *out)
{
	Delivery delivery = { 0 };
	Record rec = { 0 };
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
	char *buffers[2] = { NULL, NULL };
	size_t sizes[2] = { 0, 0 };
	long long first;
	long long total;

	if (!parse_partition(&words[2], &rec.partition) || !word_number(&words[3], &first) ||
		!word_number(&words[4], &total) || !parse_tail(words + 7, count - 7, &rec))
	{
		fprintf(out, "error load TOPIC PARTITION FIRST COUNT KEY VALUE [at MS]\n");
		return;
	}
	for (long long i = first; i < first + total && !err && !delivery.error; i++)
	{
		rec.key = fill_in(&words[5], i, &buffers[0], &sizes[0]);
		rec.value = fill_in(&words[6], i, &buffers[1], &sizes[1]);
		err = send_record(rk, words[1].data, &rec, &delivery);
	}
	await_deliveries(rk, &delivery);
	free(buffers[0]);
	free(buffers[1]);
	if (rec.headers)
		rd_kafka_headers_destroy(rec.headers);
	if (err || delivery.error)
		fprintf(out, "error %s\n", rd_kafka_err2str(err ? err : delivery.error));
	else
		fprintf(out, "ok %lld\n", total);
}

/* The last offset of every partition: one before its high watermark. */
static void
tell_position(rd_kafka_t *rk, const char *name, FILE *out)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
	rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, topic, &md, 10000);
	int64_t ends[LINE_MAX_WORDS];
	int count = 0;

	rd_kafka_topic_destroy(topic);
	if (!err)
	{
		err = md->topics[0].err;
		count = md->topics[0].partition_cnt;
		if (count > LINE_MAX_WORDS)
			err = RD_KAFKA_RESP_ERR__INVALID_ARG;
		rd_kafka_metadata_destroy(md);
	}
	for (int i = 0; i < count && !err; i++)
	{
		int64_t low;

		err = rd_kafka_query_watermark_offsets(rk, name, i, &low, &ends[i], 10000);
	}
	if (err)
	{
		fprintf(out, "error %s\n", rd_kafka_err2str(err));
		return;
	}
	fprintf(out, "ok {");
	for (int i = 0; i < count; i++)
		fprintf(out, "%s\"%d\": %lld", i > 0 ? ", " : "", i, (long long) ends[i] - 1);
	fprintf(out, "}\n");
}

bool
producer_command(rd_kafka_t *rk, const Word *words, int count, FILE *out)
{
	if (word_is(&words[0], "produce"))
	{
		if (count < 5 || words[1].data == NULL)
			fprintf(out,
					"error produce TOPIC PARTITION KEY VALUE [at MS] [header NAME VALUE]...\n");
		else
			produce_one(rk, words, count, out);
		return true;
	}
	if (word_is(&words[0], "load"))
	{
		if (count < 7 || words[1].data == NULL)
			fprintf(out, "error load TOPIC PARTITION FIRST COUNT KEY VALUE [at MS]\n");
		else
			produce_many(rk, words, count, out);
		return true;
	}
	if (word_is(&words[0], "position"))
	{
		if (count != 2 || words[1].data == NULL)
			fprintf(out, "error position TOPIC\n");
		else
			tell_position(rk, words[1].data, out);
		return true;
	}
	return false;
}
