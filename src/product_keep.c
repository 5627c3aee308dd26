/*
 * product_keep.c
 *		Records of a product's keys: what is there, what a document is as a row, and sending it.
 */
#include "postgres.h"

#include "product_internal.h"

#include "compat.h"
#include "guc.h"
#include "pending.h"
#include "product_compute.h"
#include "rowmap.h"
#include "rowmap_write.h"
#include "snapshot.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A computed row is waited for so long: where Kafka does not answer, a read goes on without it. */
#define PATIENCE_MS 5000
/* When it could not be kept, the next ones are not even tried for so long. */
#define DISCOURAGED_MS 5000
/* A failure that took longer is what others are to be spared. */
#define SLOW_MS 1000
/* The cache is given so long to show it. */
#define PASSING_MS 1000

/* Reads and writes rows of a product; lives with its definition. */
typedef struct KcfProductCodec
{
	KcfRowWriter *writer;
	KcfRowmap *map;
	int partition; /* columns, from 0; -1: none */
	int offset;
} Codec;

static Codec *
codec_of(KcfTableDef *def)
{
	Codec *codec = def->product_codec;
	MemoryContext old;

	if (codec)
		return codec;
	old = MemoryContextSwitchTo(def->mcxt);
	codec = palloc0(sizeof(Codec));
	codec->writer = kcf_row_writer_create(def, def->mcxt);
	codec->map = kcf_rowmap_create(def, def->mcxt);
	codec->partition = codec->offset = -1;
	for (int i = 0; i < def->desc->natts; i++)
	{
		if (TupleDescAttr(def->desc, i)->attisdropped)
			continue;
		if (def->columns[i].kind == KCF_COLUMN_PARTITION)
			codec->partition = i;
		if (def->columns[i].kind == KCF_COLUMN_OFFSET)
			codec->offset = i;
	}
	MemoryContextSwitchTo(old);
	def->product_codec = codec;
	return codec;
}

/* ---- keys ---- */

void
kcf_product_key(KcfTableDef *def, const Datum *values, KcfProductKey *key)
{
	Datum *row = palloc0(def->desc->natts * sizeof(Datum));
	bool *isnull = palloc(def->desc->natts * sizeof(bool));
	char *copy;

	memset(isnull, true, def->desc->natts * sizeof(bool));
	key->def = def;
	key->table = kcf_table_find(MyDatabaseId, def->relid);
	for (int i = 0; i < def->key.nkeys; i++)
	{
		const KcfKeyColumn *col = &def->key.keys[i];

		key->values[i] =
			col->typlen == -1 ? PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[i])) : values[i];
		row[col->attnum - 1] = key->values[i];
		isnull[col->attnum - 1] = false;
	}
	key->hash = kcf_key_hash(&def->key, key->values);
	/* The writer's own until its next call, which may come from a function that reads this product. */
	kcf_row_write_key(codec_of(def)->writer, row, isnull, &key->bytes);
	copy = palloc(key->bytes.len + 1);
	memcpy(copy, key->bytes.data, key->bytes.len);
	key->bytes.data = copy;
	pfree(row);
	pfree(isnull);
}

/* ---- what is there ---- */

static KcfPresence
presence_of(const KcfRow *row)
{
	if (row == NULL)
		return KCF_ABSENT;
	if (kcf_row_is_nothing(row))
		return KCF_NOTHING;
	return kcf_row_flags(row) & KCF_ROW_ERROR ? KCF_BAD : KCF_PRESENT;
}

/* The columns of a row, which may be gone when its snapshot is. */
static void
copy_row(const KcfTableDef *def, const KcfRow *row, KcfAnswer *answer)
{
	TupleDesc desc = def->desc;
	HeapTupleData tuple = { .t_len = row->tuple_len, .t_data = kcf_row_tuple(row) };

	answer->values = palloc(desc->natts * sizeof(Datum));
	answer->isnull = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(&tuple, desc, answer->values, answer->isnull);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (!answer->isnull[i])
			answer->values[i] = datumCopy(answer->values[i], attr->attbyval, attr->attlen);
	}
}

static void
read_newest(const KcfProductKey *key, const KcfView *view, KcfNewest *newest, KcfAnswer *answer)
{
	const KcfRow *row = NULL;

	if (view->store)
		row = kcf_store_find_any(view->store, &key->def->key, key->hash, key->values, view->seq);
	newest->presence = presence_of(row);
	if (row)
	{
		KcfSlice raw_key = kcf_row_raw_key(row);

		newest->partition = row->partition;
		newest->offset = row->offset;
		newest->timestamp = row->timestamp;
		if (raw_key.data)
		{
			char *copy = palloc(raw_key.len + 1);

			memcpy(copy, raw_key.data, raw_key.len);
			newest->raw_key = (KcfSlice){ copy, raw_key.len };
		}
	}
	if (answer == NULL)
		return;
	memset(answer, 0, sizeof(*answer));
	answer->found = newest->presence == KCF_PRESENT;
	answer->partition = newest->partition;
	answer->offset = newest->offset;
	answer->timestamp = newest->timestamp;
	answer->kept = true;
	if (answer->found)
		copy_row(key->def, row, answer);
}

void
kcf_product_newest(const KcfProductKey *key, KcfNewest *newest, KcfAnswer *answer)
{
	Oid relid = key->def->relid;

	memset(newest, 0, sizeof(*newest));
	newest->partition = -1;
	newest->offset = -1;
	newest->timestamp = KCF_NO_TIMESTAMP;
	kcf_snapshot_enter();
	PG_TRY();
	{
		KcfSnapshot *snapshot = kcf_snapshot_acquire_relation(relid);
		KcfView view;

		kcf_snapshot_view(snapshot, relid, &view);
		read_newest(key, &view, newest, answer);
		kcf_snapshot_release(snapshot);
	}
	PG_FINALLY();
	{
		kcf_snapshot_leave();
	}
	PG_END_TRY();
}

bool
kcf_product_is_good(const KcfProductKey *key, const KcfNewest *newest, TimestampTz since)
{
	if (newest->presence != KCF_PRESENT && newest->presence != KCF_NOTHING)
		return false;
	return kcf_product_age_at(key->def->options, newest->presence == KCF_NOTHING, newest->timestamp,
							  kcf_product_millis(since)) != KCF_AGE_EXPIRED;
}

/* ---- a document as a row ---- */

pg_noreturn static void
report_fault(const KcfTableDef *def, const KcfFault *fault)
{
	const char *column =
		fault->column > 0 ? NameStr(TupleDescAttr(def->desc, fault->column - 1)->attname) : NULL;

	ereport(ERROR,
			(errcode(fault->reason == KCF_REASON_NOT_NULL  ? ERRCODE_NOT_NULL_VIOLATION
					 : fault->reason == KCF_REASON_CHECK   ? ERRCODE_CHECK_VIOLATION
					 : fault->reason == KCF_REASON_CONVERT ? ERRCODE_INVALID_TEXT_REPRESENTATION
					 : fault->reason == KCF_REASON_RANGE   ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE
														   : ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("what was computed is no row of cached table \"%s\"", get_rel_name(def->relid)),
			 column ? errdetail("Column \"%s\": %s.", column, fault->message)
					: errdetail("The record: %s.", fault->message),
			 errhint("Correct the function of the table's option \"compute\", or the table.")));
}

/* Code of the table's owner runs as that one, whoever reads. */
void
kcf_product_decode(const KcfProductKey *key, const KcfSlice *document, int64 timestamp,
				   KcfAnswer *answer)
{
	KcfTableDef *def = key->def;
	KcfRecord rec = {
		.key = key->bytes, .value = *document, .offset = -1, .partition = -1, .timestamp = timestamp
	};
	KcfRowmap *map = codec_of(def)->map;
	KcfDecodedKey decoded;
	KcfFault fault;
	MemoryContext mcxt = CurrentMemoryContext;
	Oid userid;
	int sec_context;
	int level;
	bool good;

	memset(answer, 0, sizeof(*answer));
	answer->partition = -1;
	answer->offset = -1;
	answer->timestamp = timestamp;
	if (kcf_document_is_null(document))
		return;
	answer->found = true;
	answer->values = palloc0(def->desc->natts * sizeof(Datum));
	answer->isnull = palloc0(def->desc->natts * sizeof(bool));
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(def->owner, sec_context | SECURITY_RESTRICTED_OPERATION);
	level = kcf_product_settings_fix();
	PG_TRY();
	{
		good =
			kcf_rowmap_key(map, &rec, &decoded, &fault) == KCF_OK &&
			kcf_rowmap_row(map, &rec, &decoded, answer->values, answer->isnull, &fault) == KCF_OK;
	}
	PG_CATCH();
	{
		ErrorData *error;

		/* an error it is, but one that says what is to be done */
		MemoryContextSwitchTo(mcxt);
		error = CopyErrorData();
		if (!kcf_rowmap_classify(map, error, &fault))
			PG_RE_THROW();
		FlushErrorState();
		report_fault(def, &fault);
	}
	PG_END_TRY();
	kcf_product_settings_restore(level);
	SetUserIdAndSecContext(userid, sec_context);
	if (!good)
		report_fault(def, &fault);
}

void
kcf_product_place(const KcfProductKey *key, KcfAnswer *answer, int32 partition, int64 offset)
{
	const Codec *codec = codec_of(key->def);

	answer->kept = true;
	answer->partition = partition;
	answer->offset = offset;
	if (!answer->found)
		return;
	if (codec->partition >= 0)
	{
		answer->values[codec->partition] = Int32GetDatum(partition);
		answer->isnull[codec->partition] = false;
	}
	if (codec->offset >= 0)
	{
		answer->values[codec->offset] = Int64GetDatum(offset);
		answer->isnull[codec->offset] = false;
	}
}

/* ---- keeping ---- */

void
kcf_product_warn(const KcfProductKey *key, const char *why)
{
	static Oid warned_relid = InvalidOid;
	static TimestampTz warned_at = 0;
	TimestampTz now = GetCurrentStatementStartTimestamp();

	if (warned_relid == key->def->relid && warned_at == now)
		return;
	warned_relid = key->def->relid;
	warned_at = now;
	ereport(WARNING, (errmsg("computed row of \"%s\" was not kept", get_rel_name(key->def->relid)),
					  errdetail_internal("%s", why),
					  errhint("The answer is right; whoever asks next computes it again.")));
}

bool
kcf_product_keeps_nothing(const KcfProductKey *key)
{
	KcfMoment failed_at;

	if (key->table == NULL)
		return false;
	if (pg_atomic_read_u32(&key->table->state) == KCF_TABLE_STALLED)
		return true;
	failed_at = pg_atomic_read_u64(&key->table->put_failed_at);
	return failed_at != 0 && kcf_moment_now() - failed_at < DISCOURAGED_MS * INT64CONST(1000);
}

static void
send(const KcfProductKey *key, const KcfNewest *newest, Oid userid, const KcfSlice *document,
	 int64 timestamp, bool own, KcfWritten *written)
{
	KcfPending *log = kcf_pending_create(CurrentMemoryContext);
	KcfRecord rec = { .key = key->bytes,
					  .value = *document,
					  .offset = -1,
					  .partition = KCF_ANY_PARTITION,
					  .timestamp = timestamp };

	/* In the topic the key is the one that is there, spelled by whomever. */
	if (newest->raw_key.data)
		rec.key = newest->raw_key;
	if (newest->presence != KCF_ABSENT)
		rec.partition = newest->partition;
	if (!own)
		kcf_pending_hurry(log, Min(PATIENCE_MS, kcf_guc_produce_timeout));
	kcf_pending_append(log, kcf_pending_target(log, key->def, userid), FirstCommandId, key->hash,
					   &rec);
	kcf_pending_send(log, written);
}

/* What sending says of Kafka, and not of this backend. */
static bool
is_of_kafka(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_CONNECTION_EXCEPTION ||
		   sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		   sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		   sqlstate == ERRCODE_INVALID_PARAMETER_VALUE;
}

/*
 * Nothing but the sending is within: its errors leave no locks and no half-done work, so they can be caught without a
 * subtransaction. NULL: it is in the topic.
 */
static ErrorData *
try_send(const KcfProductKey *key, const KcfNewest *newest, Oid userid, const KcfSlice *document,
		 int64 timestamp, KcfWritten *written)
{
	MemoryContext mcxt = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		send(key, newest, userid, document, timestamp, false, written);
	}
	PG_CATCH();
	{
		if (!is_of_kafka(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(mcxt);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/* Details may name brokers: as in the views, they are for the owner and for monitors. */
static bool
tells_more(const KcfProductKey *key, const ErrorData *error)
{
	return error->detail && (kcf_owns_relation(key->def->relid, GetUserId()) ||
							 has_privs_of_role(GetUserId(), ROLE_PG_MONITOR));
}

/*
 * What fails at once is tried again: the producer has ended, and the next one may do better. What takes long will do so
 * for others, too: they need not try for a while. false: not kept, and a warning has said so.
 */
static bool
send_gladly(const KcfProductKey *key, const KcfNewest *newest, Oid userid, const KcfSlice *document,
			int64 timestamp, KcfWritten *written)
{
	KcfMoment began = kcf_moment_now();
	ErrorData *error = try_send(key, newest, userid, document, timestamp, written);
	bool slow = kcf_moment_now() - began > SLOW_MS * INT64CONST(1000);

	if (error && !slow && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION)
	{
		began = kcf_moment_now();
		error = try_send(key, newest, userid, document, timestamp, written);
		slow = kcf_moment_now() - began > SLOW_MS * INT64CONST(1000);
	}
	if (error == NULL)
		return true;
	if (key->table && slow)
		pg_atomic_write_u64(&key->table->put_failed_at, kcf_moment_now());
	kcf_product_warn(key, psprintf("Writing it has failed: %s.%s%s", error->message,
								   tells_more(key, error) ? " " : "",
								   tells_more(key, error) ? error->detail : ""));
	return false;
}

int64 kcf_product_kept_us = 0;
bool kcf_product_keeping = false;

bool
kcf_product_keep(const KcfProductKey *key, const KcfNewest *newest, Oid userid,
				 const KcfSlice *document, int64 timestamp, KcfKeeping keeping, KcfWritten *written,
				 bool *passed)
{
	unsigned long long size = key->bytes.len + document->len;
	TimestampTz start = GetCurrentTimestamp();

	*passed = false;
	/* The cache would not take it, and all who ask would put it again. */
	if (size > (uint64) key->def->options->max_record_bytes)
	{
		if (keeping != KCF_KEEP_GLADLY)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("record of %llu bytes for cached table \"%s\" is too large",
								   size, get_rel_name(key->def->relid)),
							errhint("The limit is the table's option \"max_record_bytes\".")));
		kcf_product_warn(key, "It is larger than the table's option \"max_record_bytes\" allows.");
		return false;
	}
	if (keeping != KCF_KEEP_GLADLY)
	{
		kcf_product_keeping = true;
		send(key, newest, userid, document, timestamp, keeping == KCF_KEEP_OWN, written);
		kcf_product_keeping = false;
	}
	else if (kcf_product_keeps_nothing(key))
	{
		kcf_product_warn(key, pg_atomic_read_u32(&key->table->state) == KCF_TABLE_STALLED
								  ? "The table is cut off from its brokers."
								  : "Kafka could not be written to a moment ago.");
		return false;
	}
	else if (!send_gladly(key, newest, userid, document, timestamp, written))
		return false;
	if (key->table && pg_atomic_read_u64(&key->table->put_failed_at) != 0)
		pg_atomic_write_u64(&key->table->put_failed_at, 0);
	*passed = kcf_table_wait_passed(key->table, key->def->relid, written->partition,
									written->offset, PASSING_MS);
	kcf_product_kept_us += Max(GetCurrentTimestamp() - start, 0);
	return true;
}
