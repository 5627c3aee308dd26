/*
 * kafka_producer.c
 *		The client that produces: records, and what became of them.
 */
#include "postgres.h"

#include "kafka_producer.h"

#include <time.h>

#include "kafka_internal.h"

#include "utils/memutils.h"

/* The longest transaction a broker keeps open; consumers of its partitions wait that long at most. */
#define TRANSACTION_TIMEOUT_MS 15000
/* The library looks so often for records whose time is over. */
#define TIMEOUT_SCAN_MS 1000
/* A topic or partition that is not known is asked for again at once, and the answer not waited for. */
#define NUDGE_MS 1
/*
 * Older ones can fail for good when a partition's leader changes while two requests are under way: they take a
 * record that may have been written for written, and the next one arrives before it. The brokers work off the
 * requests of a connection one by one in any case.
 */
#define ONE_AFTER_THE_OTHER_BEFORE 0x02030000

/* Where neither the user nor properties.c says anything. */
static const KcfKafkaSetting defaults[] = {
	/* a topic that is missing is told within that, instead of half a minute */
	{ "topic.metadata.propagation.max.ms", "2000" },
	{ "queue.buffering.max.ms", "0" },
	{ NULL },
};

/*
 * The same where many records come at once: sent as they come, they would go out in batches so small that brokers
 * and consumers have more work with these than with the records.
 */
static const KcfKafkaSetting bulk_defaults[] = {
	{ "topic.metadata.propagation.max.ms", "2000" },
	{ "queue.buffering.max.ms", "20" },
	{ NULL },
};

/* Not to be had otherwise: what is promised of writing depends on them. */
static const KcfKafkaSetting fixed[] = {
	{ "enable.idempotence", "true" },
	{ "acks", "all" },
	/* as Java's clients: otherwise the history of a key would be split */
	{ "partitioner", "murmur2_random" },
	{ NULL },
};

/* A request with records, in Kafka's protocol. */
#define PRODUCE_REQUEST 0

/* ---- what has left ------------------------------------------------------------------------- */

static uint64
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* In a thread of the library's, behind the last byte of a request. */
static rd_kafka_resp_err_t
note_request(rd_kafka_t *rk, int socket, const char *broker_name, int32_t broker, int16_t api,
			 int16_t version, int32_t correlation, size_t size, void *opaque)
{
	KcfKafkaProducer *producer = opaque;

	if (api == PRODUCE_REQUEST)
		pg_atomic_write_u64(&producer->left_at, now_us());
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t
note_requests(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *opaque, char *text, size_t size)
{
	return rd_kafka_interceptor_add_on_request_sent(rk, "records that left", note_request, opaque);
}

/*
 * Has none of the client's records left since this one came? The library's own word is not enough: it takes a
 * record for unwritten that was answered with "not the leader", which is also what a broker says that has written
 * it and lost its place before it could answer.
 */
static bool
has_stayed(const KcfKafkaProducer *producer, const rd_kafka_message_t *message)
{
	uint64 now = now_us();
	int64 age = rd_kafka_message_latency(message);

	return age >= 0 &&
		   pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &producer->left_at)) + age < now;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void
end_producer(KcfKafkaClient *client)
{
	KcfKafkaProducer *producer = (KcfKafkaProducer *) client;

	if (client->rk)
	{
		kcf_kafka_step_end(producer);
		kcf_kafka_wake_by(client->events, -1);
		for (KcfKafkaTopic *topic = producer->topics; topic; topic = topic->next)
			rd_kafka_topic_destroy(topic->rkt);
	}
	kcf_kafka_client_end(client);
}

KcfKafkaProducer *
kcf_kafka_producer_create(const KcfServerOptions *server, int timeout_ms, bool bulk,
						  const char *transactional_id, int wakeup_fd, KcfKafkaFault *fault)
{
	KcfKafkaClient *client =
		kcf_kafka_client_create(sizeof(KcfKafkaProducer), "server", server->server_name, server);
	KcfKafkaProducer *producer = (KcfKafkaProducer *) client;
	KcfKafkaSetting all[lengthof(fixed) + 4];
	int n = lengthof(fixed) - 1;
	char timeout[12];
	char transaction_timeout[12];
	rd_kafka_conf_t *conf;

	client->end = end_producer;
	producer->wakeup_fd = wakeup_fd;
	memcpy(all, fixed, sizeof(fixed));
	if (rd_kafka_version() < ONE_AFTER_THE_OTHER_BEFORE)
		all[n++] = (KcfKafkaSetting){ "max.in.flight.requests.per.connection", "1" };
	timeout_ms = Max(timeout_ms - TIMEOUT_SCAN_MS, timeout_ms / 2);
	timeout_ms = Min(timeout_ms, kcf_kafka_setting(server, "message.timeout.ms", timeout_ms));
	if (transactional_id)
	{
		int ms = kcf_kafka_setting(server, "transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);

		timeout_ms = Min(timeout_ms, ms);
		snprintf(transaction_timeout, sizeof(transaction_timeout), "%d", ms);
		all[n++] = (KcfKafkaSetting){ "transactional.id", transactional_id };
		all[n++] = (KcfKafkaSetting){ "transaction.timeout.ms", transaction_timeout };
	}
	snprintf(timeout, sizeof(timeout), "%d", timeout_ms);
	all[n++] = (KcfKafkaSetting){ "message.timeout.ms", timeout };
	all[n] = (KcfKafkaSetting){ NULL };

	pg_atomic_init_u64(&producer->left_at, 0);
	conf = kcf_kafka_configure(client, server, RD_KAFKA_PRODUCER, bulk ? bulk_defaults : defaults,
							   all, fault);
	if (conf)
	{
		rd_kafka_conf_set_events(conf,
								 RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
		rd_kafka_conf_interceptor_add_on_new(conf, "records that left", note_requests, producer);
	}
	if (conf == NULL || !kcf_kafka_client_start(client, RD_KAFKA_PRODUCER, conf, wakeup_fd, fault))
	{
		end_producer(client);
		return NULL;
	}
	return producer;
}

void
kcf_kafka_producer_destroy(KcfKafkaProducer *producer)
{
	end_producer(&producer->client);
}

/* ---- topics -------------------------------------------------------------------------------- */

static KcfKafkaTopic *
find_topic(const KcfKafkaProducer *producer, const char *name)
{
	for (KcfKafkaTopic *topic = producer->topics; topic; topic = topic->next)
		if (strcmp(topic->name, name) == 0)
			return topic;
	return NULL;
}

bool
kcf_kafka_topic_fits(const KcfKafkaProducer *producer, const char *topic, const char *compression)
{
	const KcfKafkaTopic *known = find_topic(producer, topic);

	if (known == NULL)
		return true;
	if (known->compression == NULL || compression == NULL)
		return known->compression == compression;
	return strcmp(known->compression, compression) == 0;
}

KcfKafkaTopic *
kcf_kafka_topic(KcfKafkaProducer *producer, const char *name, const char *compression,
				KcfKafkaFault *fault)
{
	KcfKafkaTopic *topic = find_topic(producer, name);
	rd_kafka_topic_conf_t *conf;
	rd_kafka_topic_t *rkt;
	char text[256];

	if (topic)
		return topic;
	conf = rd_kafka_default_topic_conf_dup(producer->client.rk);
	if (compression && rd_kafka_topic_conf_set(conf, "compression.codec", compression, text,
											   sizeof(text)) != RD_KAFKA_CONF_OK)
	{
		rd_kafka_topic_conf_destroy(conf);
		fault->error = KCF_KAFKA_CONFIG;
		kcf_kafka_clean(&producer->client, fault->text, sizeof(fault->text), text, strlen(text));
		return NULL;
	}
	/* Takes the configuration, also where it fails. */
	rkt = rd_kafka_topic_new(producer->client.rk, name, conf);
	if (rkt == NULL)
	{
		kcf_kafka_fault(&producer->client, fault, rd_kafka_last_error(), NULL);
		fault->error = KCF_KAFKA_CONFIG;
		return NULL;
	}
	topic = MemoryContextAllocZero(producer->client.mcxt, sizeof(KcfKafkaTopic));
	topic->name = MemoryContextStrdup(producer->client.mcxt, name);
	if (compression)
		topic->compression = MemoryContextStrdup(producer->client.mcxt, compression);
	topic->rkt = rkt;
	topic->next = producer->topics;
	producer->topics = topic;
	return topic;
}

/* ---- records ------------------------------------------------------------------------------- */

/* One error is another thing to who produces. */
void
kcf_kafka_producer_fault(const KcfKafkaProducer *producer, KcfKafkaFault *fault,
						 rd_kafka_resp_err_t err)
{
	/* why nothing got through is better known than that it did not */
	if (err == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT && producer->trouble.error != KCF_KAFKA_OK)
	{
		*fault = producer->trouble;
		return;
	}
	if (err == RD_KAFKA_RESP_ERR__FATAL)
	{
		char text[512];

		err = rd_kafka_fatal_error(producer->client.rk, text, sizeof(text));
		kcf_kafka_fault(&producer->client, fault, err, text);
		return;
	}
	if (err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT ||
		err == RD_KAFKA_RESP_ERR__STATE)
	{
		/* a consequence of what is known, or will be */
		*fault = producer->trouble;
		if (!producer->broken)
			fault->error = KCF_KAFKA_OK;
		return;
	}
	kcf_kafka_fault(&producer->client, fault, err, NULL);
	if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
		fault->error = KCF_KAFKA_TOO_LARGE;
}

/* NULL: no memory, or not acceptable to the library */
static rd_kafka_headers_t *
make_headers(const KcfRecord *rec)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(rec->nheaders);

	for (int i = 0; i < rec->nheaders; i++)
	{
		const KcfHeader *header = &rec->headers[i];

		if (rd_kafka_header_add(headers, header->name.data, header->name.len, header->value.data,
								header->value.len) != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			rd_kafka_headers_destroy(headers);
			return NULL;
		}
	}
	return headers;
}

/* Ask for the topic's metadata, without waiting for what comes: the next try may know better. */
static void
nudge(KcfKafkaProducer *producer, KcfKafkaTopic *topic)
{
	const struct rd_kafka_metadata *metadata;

	if (rd_kafka_metadata(producer->client.rk, 0, topic->rkt, &metadata, NUDGE_MS) ==
		RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_metadata_destroy(metadata);
}

KcfSend
kcf_kafka_send(KcfKafkaProducer *producer, KcfKafkaTopic *topic, const KcfRecord *rec, void *opaque,
			   KcfKafkaFault *fault)
{
	int32 partition = rec->partition < 0 ? RD_KAFKA_PARTITION_UA : rec->partition;
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (rec->nheaders == 0 && rec->timestamp == KCF_NO_TIMESTAMP)
	{
		if (rd_kafka_produce(topic->rkt, partition, RD_KAFKA_MSG_F_COPY,
							 unconstify(char *, rec->value.data), rec->value.len, rec->key.data,
							 rec->key.len, opaque) != 0)
			err = rd_kafka_last_error();
	}
	else
	{
		rd_kafka_headers_t *headers = rec->nheaders > 0 ? make_headers(rec) : NULL;

		if (rec->nheaders > 0 && headers == NULL)
			err = RD_KAFKA_RESP_ERR__INVALID_ARG;
		else
			err = rd_kafka_producev(
				producer->client.rk, RD_KAFKA_V_RKT(topic->rkt), RD_KAFKA_V_PARTITION(partition),
				RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
				RD_KAFKA_V_VALUE(unconstify(char *, rec->value.data), rec->value.len),
				RD_KAFKA_V_KEY(rec->key.data, rec->key.len),
				/* 0 is now to the library */
				RD_KAFKA_V_TIMESTAMP(rec->timestamp == KCF_NO_TIMESTAMP ? 0 : rec->timestamp),
				RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
		/* ours still where it failed */
		if (err && headers)
			rd_kafka_headers_destroy(headers);
	}

	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		producer->outstanding++;
		return KCF_SEND_TAKEN;
	}
	if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && producer->outstanding > 0)
		return KCF_SEND_FULL;
	kcf_kafka_producer_fault(producer, fault, err);
	if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL) /* it would not fit into an empty one */
		fault->error = KCF_KAFKA_TOO_LARGE;
	if (fault->error == KCF_KAFKA_NO_TOPIC || fault->error == KCF_KAFKA_NO_PARTITION)
		nudge(producer, topic);
	return KCF_SEND_REFUSED;
}

/* By the library's own word, which the code of an event or a report does not always show. */
static bool
has_failed_for_good(KcfKafkaProducer *producer)
{
	char text[512];
	rd_kafka_resp_err_t err;

	if (producer->fatal)
		return true;
	err = rd_kafka_fatal_error(producer->client.rk, text, sizeof(text));
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	if (!producer->broken)
		kcf_kafka_fault(&producer->client, &producer->trouble, err, text);
	producer->broken = producer->fatal = true;
	return true;
}

/*
 * An error of the client as a whole. Refused credentials end it, so that nobody is locked out by its trying, and
 * who waits hears of it at once; brokers that are away it goes on looking for.
 */
static void
take_error(KcfKafkaProducer *producer, const rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(unconstify(rd_kafka_event_t *, event));
	KcfKafkaFault fault;

	if (has_failed_for_good(producer) || producer->broken)
		return;
	kcf_kafka_fault(&producer->client, &fault, err,
					rd_kafka_event_error_string(unconstify(rd_kafka_event_t *, event)));
	/* that all are down says less than why the last of them is */
	if (err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || producer->trouble.error == KCF_KAFKA_OK)
		producer->trouble = fault;
	/* (a handshake also fails where a broker goes away in the middle of it) */
	producer->broken = fault.error == KCF_KAFKA_AUTH &&
					   err != RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED &&
					   (!producer->worked || err == RD_KAFKA_RESP_ERR__AUTHENTICATION);
}

/*
 * Is it certain that the record is not in the log? If a broker refused it, yes, unless the library has failed for
 * good and may have lost count; errors of the library's own, of which a time-out is one, say nothing of what
 * happened to the record before: there it must never have left.
 */
static bool
is_refused(KcfKafkaProducer *producer, const rd_kafka_message_t *message)
{
	if (rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
		return false;
	if (message->err > RD_KAFKA_RESP_ERR_NO_ERROR)
		return !has_failed_for_good(producer);
	return has_stayed(producer, message);
}

/*
 * (The text of a failed record's error is not asked for: where there is a payload, it would be that.)
 */
static void
make_report(KcfKafkaProducer *producer, const rd_kafka_message_t *message,
			KcfDeliveryReport *report)
{
	report->opaque = message->_private;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_timestamp_type_t type;

		report->fate = KCF_FATE_DELIVERED;
		report->partition = message->partition;
		report->offset = message->offset;
		report->timestamp = rd_kafka_message_timestamp(message, &type);
		if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
			report->timestamp = KCF_NO_TIMESTAMP;
		report->fault.error = KCF_KAFKA_OK;
		producer->trouble.error = KCF_KAFKA_OK;
		producer->worked = true;
		return;
	}
	report->fate = is_refused(producer, message) ? KCF_FATE_REFUSED : KCF_FATE_UNKNOWN;
	kcf_kafka_producer_fault(producer, &report->fault, message->err);
}

int
kcf_kafka_producer_serve(KcfKafkaProducer *producer, KcfReportReceiver receiver, int max,
						 bool *broken, KcfKafkaFault *fault)
{
	int n = 0;
	rd_kafka_event_t *event;
	KcfDeliveryReport report;
	const rd_kafka_message_t *message;

	while (n < max && (event = rd_kafka_queue_poll(producer->client.events, 0)) != NULL)
	{
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_DR:
				while ((message = rd_kafka_event_message_next(event)) != NULL)
				{
					make_report(producer, message, &report);
					receiver(&report);
					n++;
					producer->outstanding--;
				}
				break;
			case RD_KAFKA_EVENT_ERROR:
				take_error(producer, event);
				break;
			case RD_KAFKA_EVENT_LOG:
				kcf_kafka_client_log(&producer->client, event);
				continue;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
	*broken = producer->broken;
	if (producer->broken)
		*fault = producer->trouble;
	return n;
}

bool
kcf_kafka_producer_pending(const KcfKafkaProducer *producer)
{
	return rd_kafka_queue_length(producer->client.events) > 0;
}

int64
kcf_kafka_producer_outstanding(const KcfKafkaProducer *producer)
{
	return producer->outstanding;
}

void
kcf_kafka_producer_purge(KcfKafkaProducer *producer, bool in_flight)
{
	rd_kafka_purge(producer->client.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING |
											(in_flight ? RD_KAFKA_PURGE_F_INFLIGHT : 0));
}
