/*
 * kafka_producer.h
 *		The Kafka client that produces: idempotent, acks=all, Java's partitioner; with a transactional id also
 *		Kafka transactions.
 *
 * Process:  the producer worker only; never a backend, never the postmaster.
 * Locks:    none.
 * Memory:   TopMemoryContext and the library's own; records are copied by the library.
 * Errors:   returned as KcfKafkaFault; nothing throws while the library holds something for us.
 * Waits:    kcf_kafka_producer_destroy for the library's threads; nothing else.
 */
#ifndef KCF_KAFKA_PRODUCER_H
#define KCF_KAFKA_PRODUCER_H

#include "kafka.h"
#include "record.h"

typedef struct KcfKafkaProducer KcfKafkaProducer;
typedef struct KcfKafkaTopic KcfKafkaTopic; /* belongs to its producer */

/* What became of a record. */
typedef enum KcfFate
{
	KCF_FATE_DELIVERED,
	KCF_FATE_REFUSED, /* certainly not in the log */
	KCF_FATE_UNKNOWN
} KcfFate;

typedef struct KcfDeliveryReport
{
	void *opaque; /* as it was given to kcf_kafka_send */
	KcfFate fate;
	int32 partition;
	int64 offset;
	int64 timestamp;
	KcfKafkaFault fault; /* unless delivered; KCF_KAFKA_OK: it shares the fate of another one */
} KcfDeliveryReport;

/* Must not throw. */
typedef void (*KcfReportReceiver)(const KcfDeliveryReport *report);

typedef enum KcfSend
{
	KCF_SEND_TAKEN,
	KCF_SEND_FULL,   /* the library's queue: again when there have been reports */
	KCF_SEND_REFUSED /* never, and it has not left; fault says why, as in a report */
} KcfSend;

typedef enum KcfStep
{
	KCF_STEP_DONE,
	KCF_STEP_AGAIN, /* not yet; fault may say what holds it up */
	KCF_STEP_BROKEN /* the client is of no use any more: destroy it; what a commit has done is unknown */
} KcfStep;

/*
 * NULL: fault says why. bulk: large batches are better than early ones. transactional_id NULL: no transactions. Its
 * queues write to wakeup_fd.
 */
extern KcfKafkaProducer *kcf_kafka_producer_create(const KcfServerOptions *server, int timeout_ms,
												   bool bulk, const char *transactional_id,
												   int wakeup_fd, KcfKafkaFault *fault);
/* Records not reported yet are forgotten: purge and take the reports first. */
extern void kcf_kafka_producer_destroy(KcfKafkaProducer *producer);
/*
 * NULL: fault says why. compression NULL: the server's. A client compresses a topic in one way only: what it knows
 * already it returns as it is, see kcf_kafka_topic_fits.
 */
extern KcfKafkaTopic *kcf_kafka_topic(KcfKafkaProducer *producer, const char *topic,
									  const char *compression, KcfKafkaFault *fault);
extern bool kcf_kafka_topic_fits(const KcfKafkaProducer *producer, const char *topic,
								 const char *compression);
extern KcfSend kcf_kafka_send(KcfKafkaProducer *producer, KcfKafkaTopic *topic,
							  const KcfRecord *rec, void *opaque, KcfKafkaFault *fault);
/*
 * Errors and log lines that have come in (log lines go to the server's log), and delivery reports, at most about
 * max of them. Number of reports. *broken: the client has failed for good; purge and destroy it.
 */
extern int kcf_kafka_producer_serve(KcfKafkaProducer *producer, KcfReportReceiver receiver, int max,
									bool *broken, KcfKafkaFault *fault);
/* Is there anything to serve? Cheap. */
extern bool kcf_kafka_producer_pending(const KcfKafkaProducer *producer);
/* Records taken and not reported yet. */
extern int64 kcf_kafka_producer_outstanding(const KcfKafkaProducer *producer);
/*
 * What is outstanding gets its report soon: that of what has not been sent, which is refused; with in_flight also
 * the others, as unknown.
 */
extern void kcf_kafka_producer_purge(KcfKafkaProducer *producer, bool in_flight);

/* ---- kafka_transaction.c ---- */

/*
 * Transactions, one behind the other: init opens the first, and fences whoever used the id before; commit and abort
 * end the one that is open, and open the next. No broker hears of one before its first record is sent. Commit only
 * when nothing is outstanding and all was delivered; while aborting, go on serving.
 *
 * Each begins a step that goes on by itself; wakeup_fd is written to when it has ended, and kcf_kafka_step tells how.
 */
extern void kcf_kafka_init_transactions(KcfKafkaProducer *producer);
extern void kcf_kafka_commit_transaction(KcfKafkaProducer *producer);
extern void kcf_kafka_abort_transaction(KcfKafkaProducer *producer);
extern KcfStep kcf_kafka_step(KcfKafkaProducer *producer, KcfKafkaFault *fault);
/* Why a transaction has failed whose records were refused, if the library knows. */
extern bool kcf_kafka_transaction_fault(KcfKafkaProducer *producer, KcfKafkaFault *fault);
/* Is one under way? It cannot be stopped, and destroying its producer would wait for it. */
extern bool kcf_kafka_is_stepping(const KcfKafkaProducer *producer);

#endif /* KCF_KAFKA_PRODUCER_H */
