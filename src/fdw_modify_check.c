/*
 * fdw_modify_check.c
 *		What is checked of a row before its record is laid into the log, and the row that the statement goes on with.
 */
#include "postgres.h"

#include "fdw_modify.h"

#include "compat.h"

#include "commands/defrem.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Of a record, where the server says nothing else: librdkafka's message.max.bytes. */
#define DEFAULT_MAX_RECORD 1000000
/* What a record has besides its bytes, at most, with the batch that it may be alone in. */
#define RECORD_OVERHEAD 100

/* ---- once for a statement ---- */

int64
kcf_modify_max_record(const KcfTableDef *def)
{
	int64 limit = DEFAULT_MAX_RECORD;
	ListCell *lc;

	foreach (lc, GetForeignServer(def->serverid)->options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "message_max_bytes") == 0)
			limit = strtoll(defGetString(option), NULL, 10);
	}
	return Min(limit, def->options->max_record_bytes);
}

/*
 * The server's own check of constraints, but what the brokers are going to give may still be NULL in a column that
 * is NOT NULL. So it is shown a relation where these columns are not.
 */
ResultRelInfo *
kcf_modify_relaxed(ResultRelInfo *rinfo, const KcfTableDef *def)
{
	Relation rel = rinfo->ri_RelationDesc;
	ResultRelInfo *result = rinfo;

	for (int i = 0; i < def->desc->natts; i++)
	{
		if (!kcf_column_is_metadata(def->columns[i].kind) ||
			!TupleDescAttr(rel->rd_att, i)->attnotnull)
			continue;
		if (result == rinfo)
		{
			result = palloc(sizeof(ResultRelInfo));
			*result = *rinfo;
			kcf_check_exprs(result) = NULL;
			result->ri_RelationDesc = palloc(sizeof(RelationData));
			*result->ri_RelationDesc = *rel;
			result->ri_RelationDesc->rd_att = CreateTupleDescCopyConstr(rel->rd_att);
		}
		TupleDescAttr(result->ri_RelationDesc->rd_att, i)->attnotnull = false;
	}
	return result;
}

/* ---- what is not sent ---- */

void
kcf_modify_check_size(const KcfModify *st, const KcfRecord *rec)
{
	Size size = rec->key.len + rec->value.len + RECORD_OVERHEAD;

	for (int i = 0; i < rec->nheaders; i++)
		size += rec->headers[i].name.len + rec->headers[i].value.len;
	if (size > (Size) st->max_record)
		ereport(
			ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("record of %zu bytes for cached table \"%s\" is too large, the limit "
					"is " INT64_FORMAT,
					size, get_rel_name(st->def->relid), st->max_record),
			 errhint("The limit is the server's option \"message_max_bytes\" or the table's "
					 "\"max_record_bytes\", whichever is less. The topic has one of its own.")));
}

static int
sqlstate_of_reason(KcfReason reason)
{
	switch (reason)
	{
		case KCF_REASON_ENCODING:
			return ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
		case KCF_REASON_JSON:
		case KCF_REASON_CONVERT:
			return ERRCODE_INVALID_TEXT_REPRESENTATION;
		case KCF_REASON_RANGE:
			return ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
		case KCF_REASON_TOO_LARGE:
			return ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		default:
			return ERRCODE_INVALID_PARAMETER_VALUE;
	}
}

/* The record would come back as a bad one. */
pg_noreturn static void
report_fault(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot, EState *estate,
			 const KcfFault *fault)
{
	Relation rel = rinfo->ri_RelationDesc;
	const char *column = fault->column > 0
							 ? NameStr(TupleDescAttr(st->def->desc, fault->column - 1)->attname)
							 : NULL;

	if (fault->reason == KCF_REASON_NOT_NULL)
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
						errmsg("null value in column \"%s\" of relation \"%s\" violates not-null "
							   "constraint",
							   column, RelationGetRelationName(rel)),
						errdetail("Neither the column nor the document has a value for it."),
						errtablecol(rel, fault->column)));
	if (fault->reason == KCF_REASON_CHECK && fault->column == 0)
	{
		/* The row is complete: the server knows how to say it. */
		kcf_modify_store(st, rinfo, slot);
		ExecConstraints(st->checked, slot, estate);
	}
	if (fault->reason == KCF_REASON_CHECK)
		ereport(ERROR, (errcode(ERRCODE_CHECK_VIOLATION),
						errmsg("new row for relation \"%s\" %s", RelationGetRelationName(rel),
							   fault->message),
						errtable(rel)));
	ereport(ERROR, (errcode(sqlstate_of_reason(fault->reason)),
					errmsg("record for cached table \"%s\" could not be read back",
						   RelationGetRelationName(rel)),
					column ? errdetail("Column \"%s\": %s.", column, fault->message)
						   : errdetail("The record: %s.", fault->message)));
}

void
kcf_modify_check_partition(ResultRelInfo *rinfo, TupleTableSlot *slot, EState *estate, bool routed)
{
	if (!rinfo->ri_RelationDesc->rd_rel->relispartition)
		return;
	/* Who has routed the row here knows that it belongs here, but for what a trigger has made of it. */
	if (routed && !(rinfo->ri_TrigDesc && rinfo->ri_TrigDesc->trig_insert_before_row))
		return;
	ExecPartitionCheck(rinfo, slot, estate, true);
}

/* ---- the row that the statement goes on with ---- */

void
kcf_modify_store(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(slot->tts_mcxt);
	HeapTuple tuple = heap_form_tuple(slot->tts_tupleDescriptor, st->values, st->isnull);

	tuple->t_tableOid = RelationGetRelid(rinfo->ri_RelationDesc);
	ExecForceStoreHeapTuple(tuple, slot, true);
	MemoryContextSwitchTo(old);
	slot_getallattrs(slot);
}

static void
set_column(KcfModify *st, int column, bool known, Datum value)
{
	if (column < 0)
		return;
	st->values[column] = known ? value : (Datum) 0;
	st->isnull[column] = !known;
}

void
kcf_modify_show_metadata(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot, int32 partition,
						 int64 offset, int64 timestamp)
{
	int natts = st->def->desc->natts;
	Datum time = (Datum) 0;
	bool timed = kcf_rowmap_time(timestamp, &time);

	if (st->partition < 0 && st->offset < 0 && st->timestamp < 0)
		return;
	memcpy(st->values, slot->tts_values, sizeof(Datum) * natts);
	memcpy(st->isnull, slot->tts_isnull, sizeof(bool) * natts);
	set_column(st, st->partition, partition >= 0, Int32GetDatum(partition));
	set_column(st, st->offset, offset >= 0, Int64GetDatum(offset));
	set_column(st, st->timestamp, timed, time);
	kcf_modify_store(st, rinfo, slot);
}

/*
 * With a value column the document has more to say than the other columns: the row is what the record will be when
 * it comes back, as which it is judged.
 */
void
kcf_modify_read_back(KcfModify *st, ResultRelInfo *rinfo, TupleTableSlot *slot, EState *estate,
					 const KcfRecord *rec)
{
	KcfDecodedKey key;
	KcfFault fault;

	if (kcf_rowmap_key(st->map, rec, &key, &fault) != KCF_OK ||
		kcf_rowmap_row(st->map, rec, &key, st->values, st->isnull, &fault) != KCF_OK)
		report_fault(st, rinfo, slot, estate, &fault);
	kcf_modify_store(st, rinfo, slot);
}
