/*
 * kafka_stats.h
 *		What the Kafka library tells of itself each second.
 *
 * Process:  consumer workers.
 * Locks:    none.
 * Memory:   arrays in the context given at first use.
 * Errors:   false when the text cannot be read.
 * Waits:    never.
 */
#ifndef KCF_KAFKA_STATS_H
#define KCF_KAFKA_STATS_H

#include "moment.h"

typedef struct KcfPartitionStats
{
	int64 next;   /* offset to be fetched next; -1: none */
	int64 low;    /* log start; -1: unknown */
	int64 high;   /* high watermark; -1: unknown */
	int64 stable; /* last stable offset, or the high watermark where there is none; -1: unknown */
	int64 queued; /* records in the library's queue, of all partitions together */
	int64 leader_idle; /* ms since its broker last answered; -1: not connected */
	int64 leader;      /* its broker, -1: none known */
	int64 connection;  /* another number when that broker was connected anew */
	int64
		fetches; /* requests for records that it was sent, each when the one before was answered */
	bool known;  /* the cluster has this partition */
	bool active; /* being fetched */
} KcfPartitionStats;

typedef struct KcfKafkaStats
{
	MemoryContext mcxt;
	KcfMoment at;    /* when the library took them; 0: never */
	int known;       /* partitions that the topic has, as far as known; 0: unknown or none */
	int npartitions; /* length of the array */
	int capacity;
	KcfPartitionStats *partitions;
	int brokers_up; /* connections that are up */
} KcfKafkaStats;

/* Of this topic; everything else of the text is passed over. */
extern bool kcf_kafka_stats_read(KcfKafkaStats *stats, const char *json, Size len,
								 const char *topic);

/* Version of jansson that is loaded. */
extern const char *kcf_jansson_version(void);

#endif /* KCF_KAFKA_STATS_H */
