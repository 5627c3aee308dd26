/*
 * kafka_internal.h
 *		A client's insides, for kafka.c, kafka_consumer.c, kafka_producer.c and kafka_transaction.c alone.
 *
 * Process:  as kafka.h says, here and below.
 * Locks:    none.
 * Memory:   TopMemoryContext.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_KAFKA_INTERNAL_H
#define KCF_KAFKA_INTERNAL_H

#include <pthread.h>

#include <librdkafka/rdkafka.h>

#include "kafka_producer.h"
#include "lib/ilist.h"
#include "port/atomics.h"

/* Records taken from the library at once. */
#define KCF_PULL_BATCH 1000

/* What both kinds of clients begin with. */
typedef struct KcfKafkaClient
{
	dlist_node link;                            /* in the list of those alive */
	void (*end)(struct KcfKafkaClient *client); /* of the whole */
	MemoryContext mcxt;                         /* the whole lies in it */
	char *name;                                 /* for log lines */
	rd_kafka_t *rk;
	rd_kafka_queue_t *events; /* all but records that are consumed */

	/* For keeping secrets out of texts. */
	char **secrets;
	int nsecrets;

	/* while it leaves */
	pthread_t ending;
	pg_atomic_uint32 ended;
} KcfKafkaClient;

struct KcfKafka
{
	KcfKafkaClient client;
	char *topic;
	rd_kafka_topic_t *rkt;
	rd_kafka_queue_t *records; /* what is fetched: records, ends and errors of partitions */
	KcfKafkaStats stats;
	int wakeup_fd;
	bool patient;

	bool headers;
	int64 max_record_bytes;

	uint16 *epochs; /* of each partition's last start */
	int nepochs;

	rd_kafka_message_t *pulled[KCF_PULL_BATCH];
};

struct KcfKafkaTopic
{
	KcfKafkaTopic *next;
	char *name;
	char *compression; /* NULL: the server's */
	rd_kafka_topic_t *rkt;
};

struct KcfKafkaProducer
{
	KcfKafkaClient client;
	KcfKafkaTopic *topics;
	int64 outstanding;
	bool broken;
	bool fatal;               /* and so by the library's own word */
	bool worked;              /* something was delivered */
	KcfKafkaFault trouble;    /* of the client as a whole, since something was delivered last */
	pg_atomic_uint64 left_at; /* when a request with records went out last, by now_us(); 0: never */

	/* A step of a transaction: kafka_transaction.c */
	int wakeup_fd;
	pthread_t thread;
	bool stepping; /* there is a thread, and it was not joined yet */
	rd_kafka_error_t *(*step)(rd_kafka_t *rk, int timeout_ms);
	pg_atomic_uint32 returned; /* the thread has left the library, and written error */
	rd_kafka_error_t *error;
};

/* A property; a list of them ends with a name that is NULL. */
typedef struct KcfKafkaSetting
{
	const char *name;
	const char *value;
} KcfKafkaSetting;

/*
 * A client's life: create, configure (NULL: fault says why), start (takes the configuration; false: fault), and
 * end, at any of these stages. size is that of the whole struct, name that of a topic or a server.
 */
extern KcfKafkaClient *kcf_kafka_client_create(Size size, const char *of, const char *name,
											   const KcfServerOptions *server);
extern rd_kafka_conf_t *kcf_kafka_configure(KcfKafkaClient *client, const KcfServerOptions *server,
											rd_kafka_type_t type, const KcfKafkaSetting *defaults,
											const KcfKafkaSetting *fixed, KcfKafkaFault *fault);
extern bool kcf_kafka_client_start(KcfKafkaClient *client, rd_kafka_type_t type,
								   rd_kafka_conf_t *conf, int wakeup_fd, KcfKafkaFault *fault);
extern void kcf_kafka_client_end(KcfKafkaClient *client);
/*
 * The same for who is not waited for, and must not be used any more: a client that only reads. What it refers to
 * is freed when it has ended.
 */
extern void kcf_kafka_client_leave(KcfKafkaClient *client);
/* Have the queue write to this file descriptor when it becomes non-empty; -1: no more. */
extern void kcf_kafka_wake_by(rd_kafka_queue_t *queue, int fd);
/* Takes a log event, and gives it back to the library before it does anything that can throw. */
extern void kcf_kafka_client_log(KcfKafkaClient *client, rd_kafka_event_t *event);

/* Before the library's client goes: waits for the step that is under way. */
extern void kcf_kafka_step_end(KcfKafkaProducer *producer);

/* As kcf_kafka_fault, in the view of who produces. */
extern void kcf_kafka_producer_fault(const KcfKafkaProducer *producer, KcfKafkaFault *fault,
									 rd_kafka_resp_err_t err);
extern KcfKafkaError kcf_kafka_error(rd_kafka_resp_err_t err);
/* text is the library's, may be NULL; copied without secrets and control characters */
extern void kcf_kafka_fault(const KcfKafkaClient *client, KcfKafkaFault *fault,
							rd_kafka_resp_err_t err, const char *text);
extern void kcf_kafka_clean(const KcfKafkaClient *client, char *out, Size size, const char *text,
							Size len);

#endif /* KCF_KAFKA_INTERNAL_H */
