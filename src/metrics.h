/*
 * metrics.h
 *		What there is to be measured: one table of definitions, and the figures that it points into.
 *
 * Process:  backends.
 * Locks:    registry lock, shared, while the figures of a table are copied.
 * Memory:   CurrentMemoryContext.
 * Errors:   55000 in a server without cached tables.
 * Waits:    never.
 *
 * A metric is of a kind of subject (a table, a worker …) and says where its figure lies in what is
 * read of each. A new one is a field below, a row in metrics.c, and a line in metrics_read.c.
 */
#ifndef KCF_METRICS_H
#define KCF_METRICS_H

#include "kafka.h"
#include "registry.h"
#include "rowmap.h"

typedef enum KcfMetricKind
{
	KCF_METRIC_COUNTER,
	KCF_METRIC_GAUGE,
	KCF_METRIC_HISTOGRAM
} KcfMetricKind;

typedef enum KcfMetricSubject
{
	KCF_OF_LIBRARY,
	KCF_OF_SERVER,
	KCF_OF_WORKER,
	KCF_OF_DATABASE,
	KCF_OF_TABLE,
	KCF_OF_PRODUCT, /* a table whose rows are computed */
	KCF_OF_PARTITION,
	KCF_NSUBJECTS
} KcfMetricSubject;

typedef struct KcfMetric
{
	const char *name;
	KcfMetricKind kind;
	KcfMetricSubject of;
	Size at; /* of the figure: a double, or a KcfDurations */
	const char
		*label; /* one that tells several figures in a row apart; NULL: there is one figure */
	const char *(*value)(int i); /* of that label; NULL: no more of them */
	const char *help;
} KcfMetric;

extern const KcfMetric kcf_metrics[];
extern const int kcf_nmetrics;

/* ---- figures: not a number where something is not known, which is then left out ---- */

typedef struct KcfMetricLabel
{
	const char *name;
	const char *value;
} KcfMetricLabel;

#define KCF_METRIC_LABELS 4

typedef struct KcfDurations
{
	uint64 counts[KCF_HISTOGRAM_BOUNDS + 1];
	uint64 sum; /* microseconds */
} KcfDurations;

/* How every subject begins: the labels that name it, the unused ones NULL. */
typedef struct KcfFigures
{
	KcfMetricLabel labels[KCF_METRIC_LABELS];
} KcfFigures;

typedef struct KcfLibraryFigures
{
	KcfFigures head;
	double one;
} KcfLibraryFigures;

typedef struct KcfServerFigures
{
	KcfFigures head;
	double memory_used;
	double memory_limit;
	double tables;
	double tables_limit;
} KcfServerFigures;

typedef struct KcfWorkerFigures
{
	KcfFigures head;
	double up;
	double restarts;
	double started;
} KcfWorkerFigures;

/* What somebody hears when a write fails, by its reason; the last one: its session gave up. */
#define KCF_NPRODUCE_ERRORS (KCF_KAFKA_OTHER + 1)

typedef struct KcfDatabaseFigures
{
	KcfFigures head;
	double produced[3]; /* delivered, refused, unknown */
	double produce_errors[KCF_NPRODUCE_ERRORS];
	KcfDurations produce_latency;
	double pins;
	double oldest_pin;
	double refreshes[3]; /* done, failed, lapsed */
	double refreshes_dropped;
} KcfDatabaseFigures;

/* What can stand in the way of reading; whatever is not among them counts as the last one. */
#define KCF_NSTREAM_FAULTS 9
extern const KcfKafkaError kcf_stream_faults[KCF_NSTREAM_FAULTS];

typedef struct KcfTableFigures
{
	KcfFigures head;
	double state[KCF_TABLE_STOPPED + 1];
	double ready;
	double progress;
	double staleness;
	double loaded;
	double entries;
	double bytes;
	double bytes_limit;
	double dead_bytes;
	double index_bytes;
	double tombstones;
	double listed_errors;
	double cross_partition_keys;
	double key_spellings;
	double records[4]; /* upserts, tombstones, errors, ignored */
	double rejected[KCF_NREASONS - 1];
	double timestamps_out_of_range;
	double reloads;
	double faults[KCF_NSTREAM_FAULTS];
	double clients;
	double clients_given_up[2]; /* stuck, cut off */
	KcfDurations latency;
	double notifications;
	double notified_keys;
	double notifications_incomplete;
	double notification_failures;
	double notifications_suppressed[KCF_NSILENCES];
	double group_commits;
	double group_failures;
} KcfTableFigures;

typedef struct KcfProductFigures
{
	KcfFigures head;
	double reads[3]; /* fresh, stale, miss */
	double computed;
	double refreshes;
	double shared;
	double failures;
	double not_kept;
	double queued;
	double failing;
	double oldest;
} KcfProductFigures;

typedef struct KcfPartitionFigures
{
	KcfFigures head;
	double lag;
	double last_seen;
	double log_start;
	double log_end;
} KcfPartitionFigures;

/* All that the user may see, by subject. */
typedef struct KcfReading
{
	struct
	{
		char *figures;
		Size size; /* of those of one */
		int n;
		int room;
	} of[KCF_NSUBJECTS];
} KcfReading;

extern KcfReading *kcf_metrics_read(void);

#endif /* KCF_METRICS_H */
