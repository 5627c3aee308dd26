/*
 * kafka_consumer.c
 *		The client that consumes: its partitions and records, and how they get into the spool.
 *
 * Between taking messages from the library and giving them back nothing is called that could throw:
 * a message that is never given back keeps its client from ending, for ever.
 */
#include "postgres.h"

#include "kafka_internal.h"

#include "compat.h"

/* A key of a record that is itself too large is still worth to be named, up to this size. */
#define KEY_OF_TOO_LARGE 65536

/*
 * Where the user says nothing, properties.c has our values. This one not every library knows: the newer
 * ones' cure for a full queue that stops fetching for a second.
 */
static const KcfKafkaSetting defaults[] = {
#if KCF_HAVE_FETCH_QUEUE_BACKOFF
	{ "fetch.queue.backoff.ms", "20" },
#endif
	{ NULL },
};

/* Not to be had otherwise: the code relies on them. */
static const KcfKafkaSetting fixed[] = {
	{ "enable.partition.eof", "true" },
	{ "isolation.level", "read_committed" },
	{ "check.crcs", "true" },
	{ "enable.auto.commit", "false" },
	{ "enable.auto.offset.store", "false" },
	/* never a silent rewind: it would bring deleted keys back to life */
	{ "auto.offset.reset", "error" },
	{ "statistics.interval.ms", "1000" },
	{ NULL },
};

/* ---- life ---------------------------------------------------------------------------------- */

static void
end_consumer(KcfKafkaClient *client)
{
	KcfKafka *kafka = (KcfKafka *) client;

	if (client->rk)
	{
		kcf_kafka_wake_by(client->events, -1);
		kcf_kafka_wake_by(kafka->records, -1);
		/* This queue goes first: what lies in it refers to the client, which waits for that. */
		rd_kafka_queue_destroy(kafka->records);
		if (kafka->rkt)
			rd_kafka_topic_destroy(kafka->rkt);
	}
	kcf_kafka_client_leave(client);
}

KcfKafka *
kcf_kafka_create(const char *topic, const KcfServerOptions *server, int wakeup_fd,
				 KcfKafkaFault *fault)
{
	KcfKafkaClient *client = kcf_kafka_client_create(sizeof(KcfKafka), "topic", topic, server);
	KcfKafka *kafka = (KcfKafka *) client;
	rd_kafka_conf_t *conf;

	client->end = end_consumer;
	kafka->topic = MemoryContextStrdup(client->mcxt, topic);
	kafka->stats.mcxt = client->mcxt;
	kafka->max_record_bytes = PG_INT64_MAX;
	kafka->wakeup_fd = wakeup_fd;

	conf = kcf_kafka_configure(client, server, RD_KAFKA_CONSUMER, defaults, fixed, fault);
	if (conf)
		rd_kafka_conf_set_events(conf,
								 RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS);
	if (conf == NULL || !kcf_kafka_client_start(client, RD_KAFKA_CONSUMER, conf, wakeup_fd, fault))
	{
		kcf_kafka_destroy(kafka);
		return NULL;
	}
	kafka->records = rd_kafka_queue_new(client->rk);
	kcf_kafka_wake_by(kafka->records, wakeup_fd);
	kafka->rkt = rd_kafka_topic_new(client->rk, topic, NULL);
	if (kafka->rkt == NULL)
	{
		kcf_kafka_fault(client, fault, rd_kafka_last_error(), NULL);
		fault->error = KCF_KAFKA_CONFIG;
		kcf_kafka_destroy(kafka);
		return NULL;
	}
	return kafka;
}

void
kcf_kafka_destroy(KcfKafka *kafka)
{
	end_consumer(&kafka->client);
}

void
kcf_kafka_set_limits(KcfKafka *kafka, bool headers, int64 max_record_bytes)
{
	kafka->headers = headers;
	kafka->max_record_bytes = max_record_bytes;
}

void
kcf_kafka_set_patient(KcfKafka *kafka, bool patient)
{
	if (kafka->patient != patient)
		kcf_kafka_wake_by(kafka->client.events, patient ? -1 : kafka->wakeup_fd);
	kafka->patient = patient;
}

bool
kcf_kafka_serve(KcfKafka *kafka, KcfKafkaFault *fault)
{
	bool news = false;
	rd_kafka_event_t *event;

	fault->error = KCF_KAFKA_OK;
	while ((event = rd_kafka_queue_poll(kafka->client.events, 0)) != NULL)
	{
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_STATS:
			{
				const char *json = rd_kafka_event_stats(event);

				news |= kcf_kafka_stats_read(&kafka->stats, json, strlen(json), kafka->topic);
				break;
			}
			case RD_KAFKA_EVENT_ERROR:
				/* refusals outrank the disconnections that follow them */
				if (fault->error == KCF_KAFKA_OK ||
					(fault->error != KCF_KAFKA_AUTH &&
					 rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN))
					kcf_kafka_fault(&kafka->client, fault, rd_kafka_event_error(event),
									rd_kafka_event_error_string(event));
				break;
			case RD_KAFKA_EVENT_LOG:
				kcf_kafka_client_log(&kafka->client, event);
				continue;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
	return news;
}

const KcfKafkaStats *
kcf_kafka_stats(const KcfKafka *kafka)
{
	return &kafka->stats;
}

/* ---- partitions ---------------------------------------------------------------------------- */

int
kcf_kafka_partitions(KcfKafka *kafka, int timeout_ms, KcfKafkaFault *fault)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err;
	int n = -1;

	err = rd_kafka_metadata(kafka->client.rk, 0, kafka->rkt, &metadata, timeout_ms);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kcf_kafka_fault(&kafka->client, fault, err, NULL);
		return -1;
	}
	if (metadata->topic_cnt == 1)
	{
		err = metadata->topics[0].err;
		/* a partition without a leader for now counts all the same */
		if (metadata->topics[0].partition_cnt > 0)
			n = metadata->topics[0].partition_cnt;
	}
	else
		err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	rd_kafka_metadata_destroy(metadata);
	if (n < 0)
		kcf_kafka_fault(&kafka->client, fault, err ? err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
						NULL);
	return n;
}

static void
make_epochs(KcfKafka *kafka, int n)
{
	int capacity = Max(n, kafka->nepochs * 2);

	if (n <= kafka->nepochs)
		return;
	if (kafka->epochs == NULL)
		kafka->epochs = MemoryContextAllocZero(kafka->client.mcxt, sizeof(uint16) * capacity);
	else
		kafka->epochs = repalloc(kafka->epochs, sizeof(uint16) * capacity);
	memset(kafka->epochs + kafka->nepochs, 0, sizeof(uint16) * (capacity - kafka->nepochs));
	kafka->nepochs = capacity;
}

void
kcf_kafka_start(KcfKafka *kafka, int32 partition, int64 offset)
{
	make_epochs(kafka, partition + 1);
	if (kafka->epochs[partition]++ > 0)
		rd_kafka_consume_stop(kafka->rkt, partition);
	rd_kafka_consume_start_queue(
		kafka->rkt, partition, offset == KCF_OFFSET_BEGINNING ? RD_KAFKA_OFFSET_BEGINNING : offset,
		kafka->records);
}

void
kcf_kafka_stop(KcfKafka *kafka, int32 partition)
{
	if (partition < kafka->nepochs && kafka->epochs[partition] > 0)
	{
		rd_kafka_consume_stop(kafka->rkt, partition);
		kafka->epochs[partition]++;
	}
}

bool
kcf_kafka_current(const KcfKafka *kafka, const KcfSpooled *spooled)
{
	int32 partition = spooled->record.partition;

	return partition >= 0 && partition < kafka->nepochs &&
		   spooled->epoch == kafka->epochs[partition];
}

bool
kcf_kafka_watermarks(KcfKafka *kafka, int32 partition, int64 *low, int64 *high)
{
	return rd_kafka_get_watermark_offsets(kafka->client.rk, kafka->topic, partition, low, high) ==
			   RD_KAFKA_RESP_ERR_NO_ERROR &&
		   *high >= 0;
}

bool
kcf_kafka_pending(const KcfKafka *kafka)
{
	return rd_kafka_queue_length(kafka->records) > 0 ||
		   rd_kafka_queue_length(kafka->client.events) > 0;
}

/* ---- into the spool ------------------------------------------------------------------------ */

static KcfSlice
copy_bytes(char **to, const void *data, size_t len)
{
	KcfSlice slice = { 0 };

	if (data)
	{
		memcpy(*to, data, len);
		slice.data = *to;
		slice.len = len;
		*to += len;
	}
	return slice;
}

static void
stamp(KcfKafka *kafka, KcfSpooled *spooled, int32 partition)
{
	spooled->record.partition = partition;
	if (partition >= 0 && partition < kafka->nepochs)
		spooled->epoch = kafka->epochs[partition];
}

/* An end or an error of a partition, in its place between the records. */
static bool
spool_event(KcfKafka *kafka, KcfSpool *spool, const rd_kafka_message_t *message)
{
	KcfSpooled *spooled;
	KcfKafkaFault fault;
	bool end = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;

	if (!end)
		kcf_kafka_fault(&kafka->client, &fault, message->err, rd_kafka_message_errstr(message));
	spooled = kcf_spool_add(spool, end ? 0 : sizeof(fault.text));
	if (spooled == NULL)
		return false;
	spooled->kind = end ? KCF_SPOOL_EOF : KCF_SPOOL_FAULT;
	stamp(kafka, spooled, message->partition);
	spooled->record.offset = message->offset;
	if (!end)
	{
		char *to = (char *) (spooled + 1);

		spooled->error = fault.error;
		spooled->record.value = copy_bytes(&to, fault.text, strlen(fault.text) + 1);
	}
	return true;
}

/* Bytes that the headers take, KcfHeader structs included. */
static Size
headers_size(const rd_kafka_headers_t *headers, Size n)
{
	Size size = n * sizeof(KcfHeader);
	const char *name;
	const void *value;
	size_t len;

	for (Size i = 0; i < n; i++)
		if (rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR)
			size += strlen(name) + (value ? len : 0);
	return size;
}

static char *
copy_headers(KcfRecord *record, char *to, const rd_kafka_headers_t *headers, Size n)
{
	KcfHeader *copies = (KcfHeader *) to;
	const char *name;
	const void *value;
	size_t len;

	to += n * sizeof(KcfHeader);
	record->headers = copies;
	for (Size i = 0; i < n; i++)
	{
		if (rd_kafka_header_get_all(headers, i, &name, &value, &len) != RD_KAFKA_RESP_ERR_NO_ERROR)
			break;
		copies[i].name = copy_bytes(&to, name, strlen(name));
		copies[i].value = copy_bytes(&to, value, len);
		record->nheaders++;
	}
	return to;
}

static bool
spool_record(KcfKafka *kafka, KcfSpool *spool, const rd_kafka_message_t *message)
{
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_timestamp_type_t type;
	Size nheaders = 0;
	Size key_len = message->key ? message->key_len : 0;
	Size value_len = message->payload ? message->len : 0;
	Size header_len = 0;
	bool too_large;
	bool with_key = true;
	KcfSpooled *spooled;
	KcfRecord *record;
	char *to;

	if (kafka->headers && rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		nheaders = rd_kafka_header_cnt(headers);
		header_len = headers_size(headers, nheaders);
	}
	too_large = (int64) (key_len + value_len + header_len) > kafka->max_record_bytes;
	if (too_large)
	{
		with_key = key_len <= KEY_OF_TOO_LARGE;
		nheaders = header_len = 0;
	}
	spooled =
		kcf_spool_add(spool, (with_key ? key_len : 0) + (too_large ? 0 : value_len) + header_len);
	if (spooled == NULL)
		return false;
	record = &spooled->record;
	to = (char *) (spooled + 1);

	spooled->kind = too_large ? KCF_SPOOL_TOO_LARGE : KCF_SPOOL_RECORD;
	stamp(kafka, spooled, message->partition);
	record->offset = message->offset;
	record->timestamp = rd_kafka_message_timestamp(message, &type);
	if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		record->timestamp = KCF_NO_TIMESTAMP;
	if (nheaders > 0)
		to = copy_headers(record, to, headers, nheaders);
	if (with_key)
		record->key = copy_bytes(&to, message->key, key_len);
	if (too_large)
		record->value.len = value_len;
	else
		record->value = copy_bytes(&to, message->payload, value_len);
	return true;
}

int
kcf_kafka_pull(KcfKafka *kafka, KcfSpool *spool, int max_records, Size max_bytes)
{
	int total = 0;

	while (total < max_records && kcf_spool_bytes(spool) < max_bytes)
	{
		bool ok = true;
		ssize_t n = rd_kafka_consume_batch_queue(kafka->records, 0, kafka->pulled, KCF_PULL_BATCH);

		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
		{
			rd_kafka_message_t *message = kafka->pulled[i];

			if (ok && message->err)
				ok = spool_event(kafka, spool, message);
			else if (ok)
				ok = spool_record(kafka, spool, message);
			rd_kafka_message_destroy(message);
		}
		if (!ok)
			return -1;
		total += n;
	}
	return total;
}
