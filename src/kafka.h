/*
 * kafka.h
 *		The Kafka client of one table's consumption: one topic, partitions started at positions of
 *		ours.
 *
 * Process:  consumer workers only; never a backend, never the postmaster.
 * Locks:    none.
 * Memory:   TopMemoryContext and the library's own; what is pulled is copied into a spool of the
 *           caller's.
 * Errors:   returned as KcfKafkaFault; nothing throws while the library holds something for us.
 * Waits:    kcf_kafka_partitions at most its timeout; nothing else.
 *
 * No consumer group is used: the library's simple consumer fetches the partitions it is told to,
 * looks up no coordinator, needs no right on a group, and adds partitions without disturbing the
 * others. No callbacks either: events are taken from queues, and the queues write to the file
 * descriptor given when they become non-empty.
 */
#ifndef KCF_KAFKA_H
#define KCF_KAFKA_H

#include "kafka_spool.h"
#include "kafka_stats.h"
#include "options.h"

/* What went wrong, as far as it matters what is done about it. */
typedef enum KcfKafkaError
{
	KCF_KAFKA_OK = 0,
	KCF_KAFKA_UNREACHABLE,  /* no broker answers; the library goes on trying */
	KCF_KAFKA_AUTH,         /* credentials, certificate or rights are refused */
	KCF_KAFKA_NO_TOPIC,     /* the topic does not exist */
	KCF_KAFKA_NO_PARTITION, /* ... or this partition of it no longer does */
	KCF_KAFKA_OUT_OF_RANGE, /* our position is not in the log (any more) */
	KCF_KAFKA_UNREADABLE,   /* a batch that cannot be decompressed, ever */
	KCF_KAFKA_BAD_DATA,     /* checksum, unknown format or codec, too large to be fetched */
	KCF_KAFKA_CONFIG,       /* a setting that the library refuses */
	KCF_KAFKA_TOO_LARGE, /* a record to be written exceeds a limit of ours, the topic's or the broker's */
	KCF_KAFKA_REFUSED, /* a broker does not take a record: too few replicas, a policy, a schema */
	KCF_KAFKA_FENCED,  /* somebody else uses our transactional id */
	KCF_KAFKA_OTHER    /* passing or unknown; the library goes on */
} KcfKafkaError;

typedef struct KcfKafkaFault
{
	KcfKafkaError error;
	char text[200]; /* no secrets, no control characters */
	bool vague;     /* UNREACHABLE: the text does not tell more than that */
} KcfKafkaFault;

typedef struct KcfKafka KcfKafka;

/* Special offsets for kcf_kafka_start. */
#define KCF_OFFSET_BEGINNING INT64CONST(-2)

/* ---- kafka.c: of all clients ---- */

/* Once in each process that may create clients: whatever is alive ends before the process does. */
extern void kcf_kafka_init_exit(void);
/* An error in a word, for metrics. */
extern const char *kcf_kafka_error_name(KcfKafkaError error);
/* Version of the library that is loaded. */
extern const char *kcf_kafka_version(void);

/* What a property of the library's is set to that is a number; otherwise: nobody has set it. */
extern int kcf_kafka_setting(const KcfServerOptions *server, const char *name, int otherwise);
/*
 * May a line about clients go to the server's log now? All of a process share what is let through; the rest
 * is counted and summed up later.
 */
extern bool kcf_kafka_may_log(void);
/* Now and then: that summary, and clients that have ended are freed. */
extern void kcf_kafka_tick(void);

/* ---- kafka_consumer.c ---- */

/* NULL: fault says why. Its queues write to wakeup_fd. */
extern KcfKafka *kcf_kafka_create(const char *topic, const KcfServerOptions *server, int wakeup_fd,
								  KcfKafkaFault *fault);
extern void kcf_kafka_destroy(KcfKafka *kafka);
/* Headers are copied only where a column wants them; larger records than this leave only their
 * size. */
extern void kcf_kafka_set_limits(KcfKafka *kafka, bool headers, int64 max_record_bytes);
/*
 * Be woken by records only: the rest, statistics every second above all, is looked at when the caller wakes
 * by itself. Many clients' statistics come at as many moments.
 */
extern void kcf_kafka_set_patient(KcfKafka *kafka, bool patient);
/*
 * Errors, log lines and statistics that have come in since. Log lines go to the server's log. The
 * first fault of the client as a whole (brokers away, refused) is left in fault when there is one.
 * true: new statistics.
 */
extern bool kcf_kafka_serve(KcfKafka *kafka, KcfKafkaFault *fault);
extern const KcfKafkaStats *kcf_kafka_stats(const KcfKafka *kafka);

/* Number of partitions; -1: fault says why. Asks a broker, and waits for it no longer than this. */
extern int kcf_kafka_partitions(KcfKafka *kafka, int timeout_ms, KcfKafkaFault *fault);
/*
 * Fetch this partition from this offset on, also when it was being fetched from elsewhere: what was
 * spooled before is marked as of an older epoch.
 */
extern void kcf_kafka_start(KcfKafka *kafka, int32 partition, int64 offset);
extern void kcf_kafka_stop(KcfKafka *kafka, int32 partition);
/* Does what the spool holds of this partition stem from its last start? */
extern bool kcf_kafka_current(const KcfKafka *kafka, const KcfSpooled *spooled);
/* Is there anything to serve or to pull? Cheap. */
extern bool kcf_kafka_pending(const KcfKafka *kafka);
/*
 * Move what has arrived to the spool, at most about max_records and while the spool holds less than
 * max_bytes. Number of records; -1: no memory, and something was lost: start again at the
 * positions.
 */
extern int kcf_kafka_pull(KcfKafka *kafka, KcfSpool *spool, int max_records, Size max_bytes);
/* Log start and high watermark as of the last fetch response; false: none yet. */
extern bool kcf_kafka_watermarks(KcfKafka *kafka, int32 partition, int64 *low, int64 *high);

#endif /* KCF_KAFKA_H */
