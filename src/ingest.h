/*
 * ingest.h
 *		From spooled records to rows: one store being filled, by one definition.
 *
 * Process:  a consumer worker; decoding runs as the table's owner in a security-restricted operation.
 * Locks:    the error log's, briefly.
 * Memory:   a context of its own below the one given; each batch's is reset after it.
 * Errors:   what a record does wrong becomes an entry of the error log. Anything else is thrown, with
 *           everything applied so far accounted for.
 * Waits:    never.
 */
#ifndef KCF_INGEST_H
#define KCF_INGEST_H

#include "arrivals.h"
#include "errlog.h"
#include "kafka_spool.h"
#include "notify.h"
#include "rowmap.h"

/* Records that are taken through the stages of decoding and applying together. */
#define KCF_INGEST_BATCH 128
/* ... unless they are large. */
#define KCF_INGEST_BATCH_BYTES ((Size) 512 * 1024)

typedef struct KcfIngest KcfIngest;

/*
 * Where the store stands. Exact after every single record, whatever interrupts us: positions and
 * counters are what a restarted worker goes on from.
 */
typedef struct KcfProgress
{
	KcfCounters counters;
	int64 *next; /* by partition: the offset after the last one passed */
	int npartitions;
	KcfArrivals *arrivals; /* NULL: a load, whose records are old anyway */
} KcfProgress;

/*
 * The store and the definition must live as long. progress is updated in place; its array may be
 * exchanged between calls. errors NULL: there was no memory for it, bad records are only counted.
 */
extern KcfIngest *kcf_ingest_create(KcfTableDef *def, KcfStore *store, KcfAccount *account,
									KcfErrorLog *errors, KcfProgress *progress,
									MemoryContext parent);
extern void kcf_ingest_destroy(KcfIngest *ingest);
extern KcfStoreWriter *kcf_ingest_writer(KcfIngest *ingest);
extern bool kcf_ingest_wants_headers(const KcfIngest *ingest);
/* Where changes are noted; NULL: nowhere. */
extern void kcf_ingest_set_notify(KcfIngest *ingest, KcfNotify *notify);

/* A transaction around the batches of a turn. */
extern void kcf_ingest_begin(KcfIngest *ingest);
extern void kcf_ingest_end(KcfIngest *ingest);
/*
 * Apply these in their order (at most KCF_INGEST_BATCH). Number of those done: fewer than n when there is
 * no memory for the next one, which may be tried again. Those of kinds other than records, and those
 * at offsets already passed, are passed over.
 */
extern int kcf_ingest_apply(KcfIngest *ingest, KcfSeq seq, KcfSpooled **spooled, int n);

/* These offsets of a partition, before end, can never be read: bad records all; it goes on from end. */
extern void kcf_ingest_skip(KcfIngest *ingest, int32 partition, int64 begin, int64 end,
							const char *why);

#endif /* KCF_INGEST_H */
