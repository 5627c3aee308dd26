/*
 * fdw_modify.c
 *		Running INSERT, UPDATE, DELETE and COPY: each row becomes a record, checked and laid into a log.
 *
 * With delivery 'commit' that is the log of the transaction, which goes out at its commit. With 'immediate' it is
 * one of the statement, which goes out at its end; but where RETURNING wants to know a row's offset, the row's
 * record goes out alone and its acknowledgement is awaited.
 *
 * The server's own batches of rows (ExecForeignBatchInsert) are of no use here: a row is laid into the log without
 * a round trip, so there is nothing that a batch would save.
 */
#include "postgres.h"

#include "fdw.h"
#include "fdw_modify.h"

#include "compat.h"
#include "fdw_scan.h"

#include "access/sysattr.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A row that this statement has been at already. */
typedef struct Place
{
	uint64 row;
	char status; /* of the hash table */
} Place;

#define SH_PREFIX places
#define SH_ELEMENT_TYPE Place
#define SH_KEY_TYPE uint64
#define SH_KEY row
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) ((key) >> 3) ^ (uint32) ((key) >> 35))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE

#include "lib/simplehash.h"

/* ---- begin ---- */

static KcfModify *
begin(EState *estate, ResultRelInfo *rinfo)
{
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	KcfTableDef *def = kcf_catalog_cached(RelationGetRelid(rinfo->ri_RelationDesc));
	KcfModify *st = palloc0(sizeof(KcfModify));
	int natts = def->desc->natts;

	kcf_fdw_refuse_readonly(def);
	st->def = def;
	st->userid = kcf_result_user(rinfo, estate);
	st->max_record = kcf_modify_max_record(def);
	st->immediate = def->options->delivery == KCF_DELIVERY_IMMEDIATE;
	st->value = st->partition = st->offset = st->timestamp = -1;
	st->writer = kcf_row_writer_create(def, estate->es_query_cxt);
	st->checked = kcf_modify_relaxed(rinfo, def);
	for (int i = 0; i < natts; i++)
	{
		if (TupleDescAttr(def->desc, i)->attisdropped)
			continue;
		switch (def->columns[i].kind)
		{
			case KCF_COLUMN_PARTITION:
				st->partition = i;
				break;
			case KCF_COLUMN_OFFSET:
				st->offset = i;
				break;
			case KCF_COLUMN_TIMESTAMP:
				st->timestamp = i;
				break;
			case KCF_COLUMN_VALUE:
				st->value = i;
				st->map = kcf_rowmap_create(def, estate->es_query_cxt);
				break;
			default:
				break;
		}
	}
	st->values = palloc(sizeof(Datum) * natts);
	st->isnull = palloc(sizeof(bool) * natts);
	st->row_cxt = AllocSetContextCreate(estate->es_query_cxt, "kafka_cache written row",
										ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return st;
}

/* Can the plan yield a row of the table twice? Not without a join. */
static bool
may_repeat(Plan *plan)
{
	ListCell *lc;

	if (IsA(plan, ForeignScan))
		return false;
	if (!IsA(plan, Append))
		return true;
	foreach (lc, ((Append *) plan)->appendplans)
	{
		if (may_repeat(lfirst(lc)))
			return true;
	}
	return false;
}

/* Where old rows are found. */
static void
begin_old(KcfModify *st, ModifyTableState *mtstate, EState *estate)
{
	Plan *plan = outerPlanState(mtstate)->plan;
	int natts = st->def->desc->natts;

	st->ctid = ExecFindJunkAttributeInTlist(plan->targetlist, "ctid");
	if (!AttributeNumberIsValid(st->ctid))
		elog(ERROR, "could not find junk ctid column");
	st->old_values = palloc(sizeof(Datum) * natts);
	st->old_isnull = palloc(sizeof(bool) * natts);
	if (st->immediate && may_repeat(plan))
		st->places = places_create(estate->es_query_cxt, 256, NULL);
	st->snapshot = kcf_snapshot_acquire(estate);
	st->lost = kcf_snapshot_lost_flag(st->snapshot);
}

void
kafkaCacheBeginForeignModify(ModifyTableState *mtstate, ResultRelInfo *rinfo, List *fdw_private,
							 int subplan_index, int eflags)
{
	EState *estate = mtstate->ps.state;
	KcfModify *st;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	st = begin(estate, rinfo);
	if (mtstate->operation == CMD_UPDATE || mtstate->operation == CMD_DELETE)
		begin_old(st, mtstate, estate);
	rinfo->ri_FdwState = st;
}

/* COPY, and rows that are routed to a partition of ours; by UPDATE perhaps to one that it updates itself. */
void
kafkaCacheBeginForeignInsert(ModifyTableState *mtstate, ResultRelInfo *rinfo)
{
	ModifyTable *plan = (ModifyTable *) mtstate->ps.plan;

	if (plan && plan->onConflictAction != ONCONFLICT_NONE)
		kcf_fdw_refuse_conflict(RelationGetRelid(rinfo->ri_RelationDesc));
	if (rinfo->ri_FdwState == NULL)
		rinfo->ri_FdwState = begin(mtstate->ps.state, rinfo);
}

/* ---- end ---- */

static void
end(ResultRelInfo *rinfo)
{
	KcfModify *st = rinfo->ri_FdwState;

	if (st == NULL)
		return;
	rinfo->ri_FdwState = NULL;
	if (st->immediate && st->log)
		kcf_pending_send(st->log, NULL);
	if (st->snapshot)
		kcf_snapshot_release(st->snapshot);
}

void
kafkaCacheEndForeignModify(EState *estate, ResultRelInfo *rinfo)
{
	end(rinfo);
}

void
kafkaCacheEndForeignInsert(EState *estate, ResultRelInfo *rinfo)
{
	end(rinfo);
}

/* ---- into the log ---- */

static KcfSlice
copy_slice(KcfSlice slice)
{
	char *copy = palloc(slice.len + 1);

	memcpy(copy, slice.data, slice.len);
	return (KcfSlice){ copy, slice.len };
}

static uint64
key_hash(KcfModify *st, const Datum *values)
{
	const KcfKeyType *key = &st->def->key;
	Datum keys[KCF_MAX_KEYS];

	for (int i = 0; i < key->nkeys; i++)
	{
		const KcfKeyColumn *col = &key->keys[i];

		keys[i] = values[col->attnum - 1];
		if (col->typlen == -1)
			keys[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(keys[i]));
	}
	return kcf_row_key_hash(st->writer, keys);
}

static void
append(KcfModify *st, EState *estate, uint64 hash, const KcfRecord *rec)
{
	if (st->log == NULL)
	{
		KcfPending *log =
			st->immediate ? kcf_pending_create(estate->es_query_cxt) : kcf_pending_of_transaction();

		st->target = kcf_pending_target(log, st->def, st->userid);
		st->log = log;
	}
	kcf_pending_append(st->log, st->target, estate->es_output_cid, hash, rec);
}

/* Alone, for the sake of RETURNING. What would be found after us has to be found before. */
static void
send_row(KcfModify *st, EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot, uint64 hash,
		 const KcfRecord *rec)
{
	KcfWritten written = { .partition = -1, .offset = -1, .timestamp = KCF_NO_TIMESTAMP };

	if (rinfo->ri_WithCheckOptions != NIL)
		ExecWithCheckOptions(WCO_VIEW_CHECK, rinfo, slot, estate);
	append(st, estate, hash, rec);
	kcf_pending_send(st->log, &written);
	kcf_modify_show_metadata(st, rinfo, slot, written.partition, written.offset, written.timestamp);
}

/* Does anybody look at the row after us? */
static bool
is_row_used(const ResultRelInfo *rinfo)
{
	return rinfo->ri_projectReturning != NULL || rinfo->ri_TrigDesc != NULL ||
		   rinfo->ri_WithCheckOptions != NIL;
}

/* A record for the row in the slot, checked and sent, or to be sent. */
static void
put(KcfModify *st, EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot, uint64 hash,
	KcfRecord *rec, bool routed)
{
	kcf_modify_check_size(st, rec);
	if (st->map)
	{
		/* the slot, where the value may lie, gets another row */
		rec->value = copy_slice(rec->value);
		kcf_modify_read_back(st, rinfo, slot, estate, rec);
	}
	else if (is_row_used(rinfo))
		kcf_modify_show_metadata(st, rinfo, slot, rec->partition, -1, rec->timestamp);
	kcf_modify_check_partition(rinfo, slot, estate, routed);
	if (st->immediate && rinfo->ri_projectReturning)
		send_row(st, estate, rinfo, slot, hash, rec);
	else
		append(st, estate, hash, rec);
}

TupleTableSlot *
kafkaCacheExecForeignInsert(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
							TupleTableSlot *planSlot)
{
	KcfModify *st = rinfo->ri_FdwState;
	MemoryContext old;
	KcfRecord rec;

	MemoryContextReset(st->row_cxt);
	old = MemoryContextSwitchTo(st->row_cxt);
	slot_getallattrs(slot);
	if (st->map == NULL && rinfo->ri_RelationDesc->rd_att->constr)
		ExecConstraints(st->checked, slot, estate);
	kcf_row_write(st->writer, slot->tts_values, slot->tts_isnull, &rec);
	put(st, estate, rinfo, slot, key_hash(st, slot->tts_values), &rec,
		rinfo->ri_RootResultRelInfo != NULL);
	MemoryContextSwitchTo(old);
	return slot;
}

/* ---- old rows ---- */

/* Its columns are then in st->old_values. */
static KcfRow *
find_old(KcfModify *st, Relation rel, TupleTableSlot *planSlot)
{
	HeapTupleData tuple = { .t_tableOid = RelationGetRelid(rel) };
	bool isnull;
	Datum ctid = ExecGetJunkAttribute(planSlot, st->ctid, &isnull);
	KcfRow *row;

	if (isnull)
		elog(ERROR, "ctid is NULL");
	kcf_snapshot_check(st->snapshot, st->lost);
	row = kcf_row_of_tid((ItemPointer) DatumGetPointer(ctid));
	tuple.t_len = row->tuple_len;
	tuple.t_data = kcf_row_tuple(row);
	heap_deform_tuple(&tuple, RelationGetDescr(rel), st->old_values, st->old_isnull);
	return row;
}

/* The old record's key, as it was spelled. */
static KcfSlice
old_key(KcfModify *st, const KcfRow *row)
{
	KcfSlice key = kcf_row_raw_key(row);

	if (key.data)
		return key;
	kcf_row_write_key(st->writer, st->old_values, st->old_isnull, &key);
	return copy_slice(key);
}

/*
 * Has this statement written the key already? Then this row is passed over, as the server does with its own tables:
 * a join has brought it again. But what a function or a trigger of the statement has written meanwhile is not lost
 * silently, neither is the change of the statement.
 */
static bool
is_repeated(KcfModify *st, EState *estate, const KcfRow *row, uint64 hash, bool *earlier)
{
	CommandId command;
	bool found;

	*earlier = false;
	if (st->places)
	{
		(void) places_insert(st->places, (uint64) (uintptr_t) row, &found);
		return found;
	}
	if (st->immediate || !kcf_pending_wrote(st->def, hash, &command))
		return false;
	if (command > estate->es_output_cid)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("row of cached table \"%s\" was already written by an operation that "
						"the current command has called",
						get_rel_name(st->def->relid)),
				 errhint("Write it in one of the two only, or use an AFTER trigger.")));
	*earlier = command < estate->es_output_cid;
	return !*earlier;
}

/* ---- UPDATE ---- */

/* The columns that are another in the new row, or were to be set. */
static Bitmapset *
changed_columns(KcfModify *st, EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot)
{
	TupleDesc desc = RelationGetDescr(rinfo->ri_RelationDesc);
	Bitmapset *changed;

	if (!st->set_known)
	{
		MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);

		st->set = bms_copy(ExecGetAllUpdatedCols(rinfo, estate));
		st->set_known = true;
		MemoryContextSwitchTo(old);
	}
	if (rinfo->ri_TrigDesc == NULL || !rinfo->ri_TrigDesc->trig_update_before_row)
		return st->set;

	/* A trigger may have changed any. */
	changed = bms_copy(st->set);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (attr->attisdropped)
			continue;
		if (slot->tts_isnull[i] != st->old_isnull[i] ||
			(!slot->tts_isnull[i] &&
			 !datum_image_eq(slot->tts_values[i], st->old_values[i], attr->attbyval, attr->attlen)))
			changed = bms_add_member(changed, i + 1 - FirstLowInvalidHeapAttributeNumber);
	}
	return changed;
}

static void
check_key(KcfModify *st, Relation rel, const KcfRow *row, TupleTableSlot *slot)
{
	const KcfKeyType *key = &st->def->key;
	Datum keys[KCF_MAX_KEYS];
	bool same = true;

	for (int i = 0; i < key->nkeys && same; i++)
	{
		const KcfKeyColumn *col = &key->keys[i];

		same = !slot->tts_isnull[col->attnum - 1];
		keys[i] = slot->tts_values[col->attnum - 1];
		if (same && col->typlen == -1)
			keys[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(keys[i]));
	}
	if (!same || !kcf_key_equals(key, keys, kcf_row_tuple(row)))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot change the key of a row of cached table \"%s\"",
							   RelationGetRelationName(rel)),
						errhint("INSERT the row with the new key and DELETE the old one.")));
}

/* A record stays in its key's partition. */
static void
check_stays(KcfModify *st, Relation rel, const KcfRow *row, const KcfRecord *rec)
{
	if (rec->partition >= 0 && rec->partition != row->partition)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot move a row of cached table \"%s\" to another partition of "
							   "the topic",
							   RelationGetRelationName(rel)),
						errhint("DELETE the row, and INSERT it again afterwards.")));
}

pg_noreturn static void
report_unseen(Relation rel)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("cannot update a row of cached table \"%s\" that this transaction has already "
				"written",
				RelationGetRelationName(rel)),
		 errdetail("Its new value cannot be seen before the transaction commits."),
		 errhint("Write the row once in a transaction, or set the table's option \"delivery\" to "
				 "\"immediate\".")));
}

static void
old_document(KcfModify *st, const KcfRow *row, KcfSlice *document)
{
	*document = kcf_row_raw_value(row);
	if (document->data == NULL &&
		!kcf_row_document(st->writer, st->old_values, st->old_isnull, document))
		elog(ERROR, "the document of a row of relation %u is not known", st->def->relid);
}

TupleTableSlot *
kafkaCacheExecForeignUpdate(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
							TupleTableSlot *planSlot)
{
	KcfModify *st = rinfo->ri_FdwState;
	Relation rel = rinfo->ri_RelationDesc;
	MemoryContext old;
	KcfRow *row;
	KcfRecord rec;
	KcfSlice document = { NULL, 0 };
	Bitmapset *changed;
	uint64 hash;
	bool earlier;

	MemoryContextReset(st->row_cxt);
	old = MemoryContextSwitchTo(st->row_cxt);
	row = find_old(st, rel, planSlot);
	slot_getallattrs(slot);
	hash = key_hash(st, st->old_values);
	if (is_repeated(st, estate, row, hash, &earlier))
	{
		MemoryContextSwitchTo(old);
		return NULL;
	}
	check_key(st, rel, row, slot);
	if (earlier)
		report_unseen(rel);
	if (st->map == NULL && rel->rd_att->constr)
		ExecConstraints(st->checked, slot, estate);

	changed = changed_columns(st, estate, rinfo, slot);
	if (st->value >= 0 &&
		bms_is_member(st->value + 1 - FirstLowInvalidHeapAttributeNumber, changed))
		(void) kcf_row_document(st->writer, slot->tts_values, slot->tts_isnull, &document);
	else
		old_document(st, row, &document);
	kcf_row_rewrite(st->writer, &document, slot->tts_values, slot->tts_isnull, changed, &rec);
	check_stays(st, rel, row, &rec);
	rec.key = old_key(st, row);
	rec.partition = row->partition;
	put(st, estate, rinfo, slot, hash, &rec, false);
	MemoryContextSwitchTo(old);
	return slot;
}

/* ---- DELETE ---- */

/*
 * What RETURNING shows is the old row, of which everything is known: so its tombstone need not be awaited at once.
 */
TupleTableSlot *
kafkaCacheExecForeignDelete(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
							TupleTableSlot *planSlot)
{
	KcfModify *st = rinfo->ri_FdwState;
	MemoryContext old;
	KcfRow *row;
	KcfRecord rec = { .offset = -1, .timestamp = KCF_NO_TIMESTAMP };
	uint64 hash;
	bool earlier;

	MemoryContextReset(st->row_cxt);
	old = MemoryContextSwitchTo(st->row_cxt);
	row = find_old(st, rinfo->ri_RelationDesc, planSlot);
	hash = key_hash(st, st->old_values);
	if (is_repeated(st, estate, row, hash, &earlier))
	{
		MemoryContextSwitchTo(old);
		return NULL;
	}
	rec.key = old_key(st, row);
	rec.partition = row->partition;
	append(st, estate, hash, &rec);
	if (rinfo->ri_projectReturning)
	{
		memcpy(st->values, st->old_values, sizeof(Datum) * st->def->desc->natts);
		memcpy(st->isnull, st->old_isnull, sizeof(bool) * st->def->desc->natts);
		kcf_modify_store(st, rinfo, slot);
	}
	MemoryContextSwitchTo(old);
	return slot;
}
