/*
 * ingest.c
 *		From spooled records to rows.
 *
 * A batch goes through in stages: all keys are decoded and their index slots prefetched, then the
 * rows behind them, then values are decoded and applied. One cold miss for each record would cost
 * more than everything the Kafka library does for it.
 *
 * There are no subtransactions: an error of a type's or check's function ends the transaction, the
 * record is noted, and the batch goes on with the next one in a new transaction. What has been
 * decoded before stays good, because it lies in memory of ours.
 */
#include "postgres.h"

#include "ingest.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Marks identities of raw bytes, so that none equals that of a decoded key. */
#define RAW_SEED UINT64CONST(0x9e3779b97f4a7c15)

/* The times that a timestamptz can be, in Kafka's milliseconds since 1970. */
#define EPOCH_MS ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (USECS_PER_DAY / 1000))
#define MIN_TIME_MS (MIN_TIMESTAMP / 1000 + EPOCH_MS)
#define MAX_TIME_MS (END_TIMESTAMP / 1000 + EPOCH_MS - 1)

typedef struct Work
{
	KcfSpooled *spooled;
	KcfReason reason; /* of the key */
	bool faulted;     /* the row was found bad by an error, fault says why */
	bool changed;     /* what readers see of the key is another row */
	bool deleted;     /* ... or none */
	KcfDecodedKey key;
	KcfFault fault;
} Work;

typedef enum Stage
{
	STAGE_KEYS,
	STAGE_ROWS,
	STAGE_NOTES
} Stage;

struct KcfIngest
{
	MemoryContext mcxt;
	MemoryContext batch; /* what the records of a batch decode to */
	KcfTableDef *def;
	KcfRowmap *map;
	KcfStore *store;
	KcfStoreWriter *writer;
	KcfNotify *notify;
	KcfErrorLog *errors;
	KcfProgress *progress;
	Datum *values;
	bool *isnull;
	bool *key_only; /* isnull of a row that shows its key alone */

	/* in a transaction: what to go back to */
	Oid save_userid;
	int save_sec_context;
	int save_nestlevel;

	/* the batch under way */
	Work work[KCF_INGEST_BATCH];
	int n;
	Stage stage;
	int at;   /* the record being worked on */
	int done; /* those that were applied */
	KcfSeq seq;
};

/* ---- life ---------------------------------------------------------------------------------- */

KcfIngest *
kcf_ingest_create(KcfTableDef *def, KcfStore *store, KcfAccount *account, KcfErrorLog *errors,
				  KcfProgress *progress, MemoryContext parent)
{
	MemoryContext mcxt =
		AllocSetContextCreate(parent, "kafka_cache ingest", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	KcfIngest *ingest = palloc0(sizeof(KcfIngest));
	int natts = def->desc->natts;

	ingest->mcxt = mcxt;
	ingest->batch =
		AllocSetContextCreate(mcxt, "kafka_cache batch", 0, 256 * 1024, 8 * 1024 * 1024);
	ingest->def = def;
	ingest->store = store;
	ingest->errors = errors;
	ingest->progress = progress;
	ingest->values = palloc0(sizeof(Datum) * natts);
	ingest->isnull = palloc0(sizeof(bool) * natts);
	ingest->key_only = palloc(sizeof(bool) * natts);
	memset(ingest->key_only, true, natts);
	for (int i = 0; i < def->key.nkeys; i++)
		ingest->key_only[def->key.keys[i].attnum - 1] = false;
	ingest->map = kcf_rowmap_create(def, mcxt);
	ingest->writer = kcf_store_attach(store, account, &def->key, mcxt);
	MemoryContextSwitchTo(old);
	return ingest;
}

void
kcf_ingest_destroy(KcfIngest *ingest)
{
	kcf_store_detach(ingest->writer);
	kcf_rowmap_free(ingest->map);
	MemoryContextDelete(ingest->mcxt);
}

KcfStoreWriter *
kcf_ingest_writer(KcfIngest *ingest)
{
	return ingest->writer;
}

bool
kcf_ingest_wants_headers(const KcfIngest *ingest)
{
	return kcf_rowmap_wants_headers(ingest->map);
}

void
kcf_ingest_set_notify(KcfIngest *ingest, KcfNotify *notify)
{
	ingest->notify = notify;
}

/*
 * Decoding runs code of the table's owner: input functions of types, domains, checks. It gets the
 * owner's rights and nothing of ours, and may leave nothing behind.
 */
void
kcf_ingest_begin(KcfIngest *ingest)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&ingest->save_userid, &ingest->save_sec_context);
	SetUserIdAndSecContext(ingest->def->owner,
						   ingest->save_sec_context | SECURITY_RESTRICTED_OPERATION);
	ingest->save_nestlevel = NewGUCNestLevel();
}

void
kcf_ingest_end(KcfIngest *ingest)
{
	AtEOXact_GUC(false, ingest->save_nestlevel);
	SetUserIdAndSecContext(ingest->save_userid, ingest->save_sec_context);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* ---- accounting ---------------------------------------------------------------------------- */

/* A record is done with: nothing may interrupt between the two. */
static inline void
passed(KcfIngest *ingest, const KcfRecord *record, int64 *counter)
{
	KcfProgress *progress = ingest->progress;

	(*counter)++;
	progress->counters.records++;
	if (unlikely(record->timestamp < MIN_TIME_MS || record->timestamp > MAX_TIME_MS))
		progress->counters.timestamps_out_of_range++;
	progress->next[record->partition] = record->offset + 1;
	if (progress->arrivals)
		kcf_arrivals_pass(progress->arrivals, record->timestamp);
}

/* A key that nobody can read; who it is, only its bytes tell. */
static inline bool
has_bad_key(const Work *work)
{
	return work->reason != KCF_OK && work->spooled->record.key.data != NULL;
}

/* Who this key is to the error log. */
static void
identify(const Work *work, uint64 identity[2])
{
	const KcfSlice *raw = &work->spooled->record.key;

	if (work->reason == KCF_OK)
	{
		identity[0] = work->key.hash;
		identity[1] = 1;
	}
	else if (has_bad_key(work))
	{
		identity[0] = hash_bytes_extended((const unsigned char *) raw->data, raw->len, 0);
		identity[1] =
			hash_bytes_extended((const unsigned char *) raw->data, raw->len, RAW_SEED) | 2;
	}
	else
		identity[0] = identity[1] = 0;
}

static void
heal(KcfIngest *ingest, const Work *work)
{
	uint64 identity[2];

	if (ingest->errors && kcf_errlog_count(ingest->errors) > 0)
	{
		identify(work, identity);
		kcf_errlog_heal(ingest->errors, identity);
	}
}

static void
list_fault(KcfIngest *ingest, const Work *work, const KcfFault *fault)
{
	const KcfRecord *record = &work->spooled->record;
	KcfErrorEntry entry = { 0 };

	if (ingest->errors)
	{
		identify(work, entry.identity);
		entry.offset = record->offset;
		entry.timestamp = record->timestamp;
		entry.noticed_at = GetCurrentTimestamp();
		entry.partition = record->partition;
		entry.column = fault->column;
		entry.reason = fault->reason;
		entry.bad_key = work->reason != KCF_OK;
		strlcpy(entry.text, fault->message, sizeof(entry.text));
		kcf_errlog_add(ingest->errors, &entry);
	}
}

/* What a record that was applied is to those who listen. */
static void
judge_change(KcfIngest *ingest, Work *work, KcfPut put)
{
	if (ingest->notify == NULL)
		return;
	switch (put)
	{
		case KCF_PUT_INSERTED:
		case KCF_PUT_REPLACED:
			work->changed = true;
			break;
		case KCF_PUT_DELETED:
			work->changed = work->deleted = true;
			break;
		case KCF_PUT_REVEALED:
			/* another partition's record, or its tombstone */
			work->changed = true;
			work->deleted = kcf_store_find(ingest->store, &ingest->def->key, work->key.hash,
										   work->key.values, ingest->seq) == NULL;
			break;
		case KCF_PUT_SAME:
			kcf_notify_silent(ingest->notify, KCF_SILENT_SAME_VALUE, 1);
			break;
		case KCF_PUT_ABSENT:
			kcf_notify_silent(ingest->notify, KCF_SILENT_ABSENT_KEY, 1);
			break;
		case KCF_PUT_LOST:
			kcf_notify_silent(ingest->notify, KCF_SILENT_OLDER, 1);
			break;
		case KCF_PUT_STALE:
		case KCF_PUT_FULL:
			break;
	}
}

/* ---- applying ------------------------------------------------------------------------------ */

static void
describe(const Work *work, KcfRowMeta *meta)
{
	const KcfRecord *record = &work->spooled->record;

	memset(meta, 0, sizeof(KcfRowMeta));
	meta->partition = record->partition;
	meta->offset = record->offset;
	meta->timestamp = record->timestamp;
	meta->seen_key = record->key;
	if (!work->key.canonical)
		meta->raw_key = record->key;
}

/* A record without a value, or one that says that there is nothing. false: no memory */
static bool
apply_tombstone(KcfIngest *ingest, Work *work, uint64 flags)
{
	KcfCounters *counters = &ingest->progress->counters;
	int64 *counter = flags != 0 ? &counters->upserts : &counters->tombstones;
	KcfRowMeta meta;
	KcfPut put;

	describe(work, &meta);
	meta.flags = flags;
	put = kcf_store_delete(ingest->writer, ingest->seq, &meta, work->key.hash, work->key.values);
	if (put == KCF_PUT_FULL)
		return false;
	heal(ingest, work);
	judge_change(ingest, work, put);
	passed(ingest, &work->spooled->record, put == KCF_PUT_STALE ? &counters->ignored : counter);
	return true;
}

/*
 * A bad record whose key is known: the table says what it does to the key's row. false: no memory.
 */
static bool
apply_fault(KcfIngest *ingest, Work *work, const KcfFault *fault)
{
	KcfCounters *counters = &ingest->progress->counters;
	KcfPut put = KCF_PUT_ABSENT;
	KcfRowMeta meta;
	bool silent = true;

	if (work->reason == KCF_OK && ingest->def->options->on_error != KCF_ON_ERROR_KEEP)
	{
		silent = false;
		describe(work, &meta);
		if (ingest->def->options->on_error == KCF_ON_ERROR_REMOVE)
			put = kcf_store_delete(ingest->writer, ingest->seq, &meta, work->key.hash,
								   work->key.values);
		else
		{
			meta.flags = KCF_ROW_ERROR;
			for (int i = 0; i < ingest->def->key.nkeys; i++)
				ingest->values[ingest->def->key.keys[i].attnum - 1] = work->key.values[i];
			put = kcf_store_put(ingest->writer, ingest->seq, &meta, work->key.hash,
								work->key.values, ingest->values, ingest->key_only);
		}
	}
	if (put == KCF_PUT_FULL)
		return false;
	if (!silent)
		judge_change(ingest, work, put);
	else if (ingest->notify)
		kcf_notify_silent(
			ingest->notify,
			work->reason == KCF_REASON_NULL_KEY ? KCF_SILENT_NULL_KEY : KCF_SILENT_BAD_RECORD, 1);
	if (put == KCF_PUT_STALE)
		passed(ingest, &work->spooled->record, &counters->ignored);
	else
	{
		list_fault(ingest, work, fault);
		counters->errors_by_reason[fault->reason]++;
		passed(ingest, &work->spooled->record, &counters->errors);
	}
	return true;
}

/* Nobody is to know how to make two values of one hash: of the second one listeners would not hear. */
static uint64
hash_value(const KcfSlice *value)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) value->data, (int) value->len,
									  kcf_keytype_secret());

	return hash != 0 ? hash : 1;
}

/* false: no memory */
static bool
apply_row(KcfIngest *ingest, Work *work)
{
	KcfCounters *counters = &ingest->progress->counters;
	const KcfRecord *record = &work->spooled->record;
	KcfRowMeta meta;
	KcfReason reason;
	KcfPut put;

	reason = kcf_rowmap_row(ingest->map, record, &work->key, ingest->values, ingest->isnull,
							&work->fault);
	if (reason != KCF_OK)
		return apply_fault(ingest, work, &work->fault);

	describe(work, &meta);
	if (ingest->def->options->keep_value)
		meta.raw_value = record->value;
	else if (ingest->def->options->notify)
		meta.value_hash = hash_value(&record->value);
	meta.tell_same = ingest->notify != NULL;
	put = kcf_store_put(ingest->writer, ingest->seq, &meta, work->key.hash, work->key.values,
						ingest->values, ingest->isnull);
	if (put == KCF_PUT_FULL)
		return false;
	heal(ingest, work);
	judge_change(ingest, work, put);
	passed(ingest, record, put == KCF_PUT_STALE ? &counters->ignored : &counters->upserts);
	return true;
}

static bool
apply(KcfIngest *ingest, Work *work)
{
	const KcfSpooled *spooled = work->spooled;
	const KcfRecord *record = &spooled->record;

	if (work->faulted)
		return apply_fault(ingest, work, &work->fault);
	if (spooled->kind == KCF_SPOOL_TOO_LARGE)
	{
		KcfFault fault = { .reason = KCF_REASON_TOO_LARGE };

		snprintf(fault.message, sizeof(fault.message),
				 "record is larger than max_record_bytes: its value has %zu bytes",
				 record->value.len);
		return apply_fault(ingest, work, &fault);
	}
	if (has_bad_key(work) && record->value.data == NULL)
	{
		/* It ends what nobody could read; there was no row. */
		heal(ingest, work);
		passed(ingest, record, &ingest->progress->counters.tombstones);
		return true;
	}
	if (work->reason != KCF_OK)
		return apply_fault(ingest, work, &work->fault);
	if (record->value.data == NULL)
		return apply_tombstone(ingest, work, 0);
	if (ingest->def->options->compute != NULL && kcf_document_is_null(&record->value))
		return apply_tombstone(ingest, work, KCF_ROW_NOTHING);
	return apply_row(ingest, work);
}

/* ---- batches ------------------------------------------------------------------------------- */

/*
 * Take a batch through what is left of its stages; thrown out of by errors, and called again when
 * recover() has dealt with the culprit. false: stopped for want of memory.
 */
static bool
run(KcfIngest *ingest)
{
	if (ingest->stage == STAGE_KEYS)
	{
		for (; ingest->at < ingest->n; ingest->at++)
		{
			Work *work = &ingest->work[ingest->at];

			work->faulted = work->changed = work->deleted = false;
			work->reason =
				kcf_rowmap_key(ingest->map, &work->spooled->record, &work->key, &work->fault);
			if (work->reason == KCF_OK)
				kcf_store_prefetch_slot(ingest->writer, work->key.hash);
		}
		for (int i = 0; i < ingest->n; i++)
			if (ingest->work[i].reason == KCF_OK)
				kcf_store_prefetch_row(ingest->writer, ingest->work[i].key.hash);
		ingest->stage = STAGE_ROWS;
		ingest->at = 0;
		if (ingest->notify)
			kcf_notify_begin(ingest->notify);
	}
	if (ingest->stage == STAGE_ROWS)
	{
		for (; ingest->at < ingest->n; ingest->at++)
			if (!apply(ingest, &ingest->work[ingest->at]))
				break;
		ingest->done = ingest->at;
		ingest->stage = STAGE_NOTES;
		ingest->at = 0;
	}
	for (; ingest->at < ingest->done && ingest->notify; ingest->at++)
	{
		const Work *work = &ingest->work[ingest->at];

		if (work->changed)
			kcf_notify_changed(ingest->notify, work->key.values, work->spooled->record.partition,
							   work->spooled->record.offset, work->deleted);
	}
	if (ingest->notify)
		kcf_notify_end(ingest->notify);
	return ingest->done == ingest->n;
}

/*
 * Something was thrown out of run(). When it was the record's fault, note that, and make it possible
 * to go on, in a new transaction.
 */
static void
recover(KcfIngest *ingest)
{
	Work *work = &ingest->work[ingest->at];
	ErrorData *edata;
	KcfFault fault;

	MemoryContextSwitchTo(ingest->batch);
	edata = CopyErrorData();
	FlushErrorState();
	if (!kcf_rowmap_classify(ingest->map, edata, &fault))
		ReThrowError(edata);

	AbortCurrentTransaction();
	kcf_ingest_begin(ingest);
	MemoryContextSwitchTo(ingest->batch);
	if (ingest->stage == STAGE_KEYS)
	{
		work->reason = fault.reason;
		work->fault = fault;
		ingest->at++;
	}
	else if (ingest->stage == STAGE_NOTES)
	{
		/* its key cannot be printed */
		kcf_notify_lose(ingest->notify);
		ingest->at++;
	}
	else if (!work->faulted)
	{
		work->faulted = true;
		work->fault = fault;
	}
	else
	{
		/* Noting it was an error again: the key cannot even be compared. */
		work->reason = KCF_REASON_KEY;
	}
}

int
kcf_ingest_apply(KcfIngest *ingest, KcfSeq seq, KcfSpooled **spooled, int n)
{
	MemoryContext old = MemoryContextSwitchTo(ingest->batch);
	volatile bool done = false;
	volatile bool room = true;
	int last;

	Assert(n <= KCF_INGEST_BATCH);
	ingest->n = 0;
	for (int i = 0; i < n; i++)
	{
		const KcfRecord *record = &spooled[i]->record;

		if ((spooled[i]->kind == KCF_SPOOL_RECORD || spooled[i]->kind == KCF_SPOOL_TOO_LARGE) &&
			record->partition < ingest->progress->npartitions &&
			record->offset >= ingest->progress->next[record->partition])
			ingest->work[ingest->n++].spooled = spooled[i];
	}
	ingest->stage = STAGE_KEYS;
	ingest->at = 0;
	ingest->seq = seq;

	while (!done)
	{
		PG_TRY();
		{
			room = run(ingest);
			done = true;
		}
		PG_CATCH();
		{
			recover(ingest);
		}
		PG_END_TRY();
	}

	/* How far we came, among all that were given. */
	last = n;
	if (!room)
		for (last = 0; spooled[last] != ingest->work[ingest->done].spooled; last++)
			;
	MemoryContextSwitchTo(old);
	MemoryContextReset(ingest->batch);
	return last;
}

void
kcf_ingest_skip(KcfIngest *ingest, int32 partition, int64 begin, int64 end, const char *why)
{
	KcfProgress *progress = ingest->progress;
	KcfErrorEntry entry = { 0 };

	if (ingest->errors)
	{
		entry.offset = begin;
		entry.timestamp = KCF_NO_TIMESTAMP;
		entry.noticed_at = GetCurrentTimestamp();
		entry.partition = partition;
		entry.reason = KCF_REASON_TOO_LARGE;
		strlcpy(entry.text, why, sizeof(entry.text));
		kcf_errlog_add(ingest->errors, &entry);
	}
	progress->counters.errors += end - begin;
	progress->counters.errors_by_reason[KCF_REASON_TOO_LARGE] += end - begin;
	progress->counters.records += end - begin;
	if (ingest->notify)
		kcf_notify_silent(ingest->notify, KCF_SILENT_BAD_RECORD, end - begin);
	progress->next[partition] = end;
}
