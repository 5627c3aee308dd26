/*
 * fdw_modify.h
 *		A relation that is being written to by a statement.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   the executor's query context; what is about one row, CurrentMemoryContext.
 * Errors:   ereport: see docs/writing.md.
 * Waits:    never.
 */
#ifndef KCF_FDW_MODIFY_H
#define KCF_FDW_MODIFY_H

#include "catalog.h"
#include "nodes/execnodes.h"
#include "pending.h"
#include "rowmap.h"
#include "rowmap_write.h"
#include "snapshot.h"

/* A relation that is being written to; in the query's context. */
typedef struct KcfModify
{
	KcfTableDef *def;
	Oid userid; /* who writes */
	int64 max_record;
	int value; /* these columns' indexes, or -1 */
	int partition;
	int offset;
	int timestamp;
	KcfRowWriter *writer;
	KcfRowmap *map;         /* with a value column, to read records back */
	ResultRelInfo *checked; /* for constraints: kcf_modify_relaxed() */

	bool immediate;
	KcfPending *log; /* NULL: nothing yet */
	uint16 target;

	MemoryContext row_cxt; /* reset for each row */
	Datum *values;         /* a row that is built */
	bool *isnull;

	/* UPDATE and DELETE */
	KcfSnapshot *snapshot;
	const volatile bool *lost;
	AttrNumber ctid; /* of the plan's rows */
	Bitmapset *set;  /* columns that UPDATE sets, once known */
	bool set_known;
	struct places_hash *places; /* NULL: no row can come twice, or the log knows */
	Datum *old_values;
	bool *old_isnull;
} KcfModify;

/* Of one record of this table, all in all. */
extern int64 kcf_modify_max_record(const KcfTableDef *def);
/* The relation as its constraints are checked before the record is in the topic. */
extern ResultRelInfo *kcf_modify_relaxed(ResultRelInfo *rinfo, const KcfTableDef *def);

/* Would the record be refused by the brokers, or come back as a bad one? The row in the slot becomes what comes back. */
extern void kcf_modify_check_size(const KcfModify *st, const KcfRecord *rec);
extern void kcf_modify_read_back(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot,
								 EState *estate, const KcfRecord *rec);
extern void kcf_modify_check_partition(ResultRelInfo *rinfo, TupleTableSlot *slot, EState *estate,
									   bool routed);

/* The row in st->values takes the place of the slot's. */
extern void kcf_modify_store(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot);
/* Where and when the record is, as far as that is known, in the row in the slot. */
extern void kcf_modify_show_metadata(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot,
									 int32 partition, int64 offset, int64 timestamp);

#endif /* KCF_FDW_MODIFY_H */
