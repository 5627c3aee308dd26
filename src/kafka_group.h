/*
 * kafka_group.h
 *		The Kafka client that shows positions to lag tools, under a consumer group's name.
 *
 * Process:  consumer workers only.
 * Locks:    none.
 * Memory:   a context of its own and the library's.
 * Errors:   returned as KcfKafkaFault; nothing throws while the library holds something for us.
 * Waits:    never.
 *
 * The group is never joined and never read back. Positions are written as an administrator's tool
 * writes them: to the group's coordinator, without being a member. So no partition is ever assigned
 * to us by anybody, and nobody else's is taken away.
 */
#ifndef KCF_KAFKA_GROUP_H
#define KCF_KAFKA_GROUP_H

#include "kafka.h"

typedef struct KcfKafkaGroup KcfKafkaGroup;

/* The group that the server's options name; NULL: none. */
extern const char *kcf_kafka_group_id(const KcfServerOptions *server);

/* NULL: fault says why. What it has to tell writes to wakeup_fd. */
extern KcfKafkaGroup *kcf_kafka_group_create(const KcfServerOptions *server, int wakeup_fd,
											 KcfKafkaFault *fault);
extern void kcf_kafka_group_end(KcfKafkaGroup *group);

/* One more position (the offset after the last record passed) for the next commit; each partition
 * once. */
extern void kcf_kafka_group_add(KcfKafkaGroup *group, const char *topic, int32 partition,
								int64 next);
/* Send what was added. Nothing may be under way; an answer comes within some ten seconds. */
extern void kcf_kafka_group_commit(KcfKafkaGroup *group);
/* Call often while a commit is under way: true: it was answered, see the functions below. */
extern bool kcf_kafka_group_serve(KcfKafkaGroup *group);
/* Of the last commit: what went wrong first (KCF_KAFKA_OK: nothing), how many positions were taken,
 * and whether this one failed. That a topic is gone is no failure: its table says so. */
extern const KcfKafkaFault *kcf_kafka_group_fault(const KcfKafkaGroup *group);
extern int kcf_kafka_group_taken(const KcfKafkaGroup *group);
extern bool kcf_kafka_group_failed(const KcfKafkaGroup *group, const char *topic, int32 partition);

#endif /* KCF_KAFKA_GROUP_H */
