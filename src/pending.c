/*
 * pending.c
 *		Records written and not sent yet: the log, its file, and what rolling back does to it.
 *
 * Subtransactions nest strictly. So what one of them has appended, with all that its children have, is the end of
 * the log when it is rolled back, and a length is all that has to be remembered of its start.
 */
#include "postgres.h"

#include "pending_internal.h"

#include "registry.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "utils/memutils.h"

/* Where the log of the transaction ended when a subtransaction first appended to it. */
typedef struct Mark
{
	int level; /* the subtransaction's */
	uint64 size;
} Mark;

/* A key that the transaction has written. */
typedef struct KeyId
{
	uint64 hash;
	Oid relid;
} KeyId;

typedef struct Key
{
	KeyId id;
	CommandId command; /* the last one that wrote it */
	char status;       /* of the hash table */
} Key;

#define SH_PREFIX keys
#define SH_ELEMENT_TYPE Key
#define SH_KEY_TYPE KeyId
#define SH_KEY id
#define SH_HASH_KEY(tb, key) hash_combine((uint32) ((key).hash ^ (key).hash >> 32), (key).relid)
#define SH_EQUAL(tb, a, b) ((a).hash == (b).hash && (a).relid == (b).relid)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The transaction's log and what belongs to it; all goes with TopTransactionContext. */
static struct
{
	KcfPending *log; /* NULL: nothing was written */
	bool closed;     /* sent, or about to be: nothing may be added any more */
	uint64 sent;     /* records: acknowledged, while the transaction may still fail */
	Mark *marks;
	int nmarks;
	int capacity;

	/* The command that appended last, and where it began: from there on nobody else has. */
	CommandId command;
	uint64 command_start;

	MemoryContext keys_cxt; /* NULL: nobody has asked since they were thrown away */
	keys_hash *keys;
} xact;

/* ---- the log ---- */

static KcfPending *
create_log(MemoryContext parent, ResourceOwner owner)
{
	MemoryContext mcxt =
		AllocSetContextCreate(parent, "kafka_cache pending records", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	KcfPending *log = palloc0(sizeof(KcfPending));

	log->mcxt = mcxt;
	log->owner = owner;
	/* A string knows its end by a zero, for which there is to be room. */
	log->limit = Min((Size) work_mem * 1024, MaxAllocSize / 2) - MAXIMUM_ALIGNOF;
	initStringInfo(&log->buf);
	log->counted = true;
	MemoryContextSwitchTo(old);
	return log;
}

KcfPending *
kcf_pending_create(MemoryContext mcxt)
{
	return create_log(mcxt, CurrentResourceOwner);
}

void
kcf_pending_hurry(KcfPending *log, int patience_ms)
{
	log->patience_ms = patience_ms;
}

static void
check_open(void)
{
	if (xact.closed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot write to cached tables while the transaction is being committed")));
}

KcfPending *
kcf_pending_of_transaction(void)
{
	check_open();
	if (xact.log == NULL)
	{
		xact.log = create_log(TopTransactionContext, TopTransactionResourceOwner);
		xact.command = InvalidCommandId;
		xact.command_start = 0;
	}
	return xact.log;
}

uint16
kcf_pending_target(KcfPending *log, const KcfTableDef *def, Oid userid)
{
	const KcfTableOptions *options = def->options;
	const char *compression = options->compression ? options->compression : "";
	KcfPendingTarget *target;

	kcf_registry_check();
	/* The newest first: most statements ask for the one they have just used. */
	for (int i = log->ntargets - 1; i >= 0; i--)
	{
		target = &log->targets[i];
		if (target->relid == def->relid && target->userid == userid &&
			target->serverid == def->serverid && target->atomic == options->atomic &&
			strcmp(target->wire.topic, options->topic) == 0 &&
			strcmp(target->wire.compression, compression) == 0)
			return (uint16) i;
	}
	if (log->ntargets > PG_UINT16_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a transaction cannot write to more than %d cached tables",
							   PG_UINT16_MAX + 1)));
	if (log->ntargets == log->capacity)
	{
		int capacity = log->capacity == 0 ? 4 : 2 * log->capacity;

		log->targets = log->targets
						   ? repalloc(log->targets, capacity * sizeof(KcfPendingTarget))
						   : MemoryContextAlloc(log->mcxt, capacity * sizeof(KcfPendingTarget));
		log->capacity = capacity;
	}
	target = &log->targets[log->ntargets];
	memset(target, 0, sizeof(*target));
	target->relid = def->relid;
	target->serverid = def->serverid;
	target->userid = userid;
	target->atomic = options->atomic;
	target->product = options->compute != NULL;
	strlcpy(target->wire.topic, options->topic, sizeof(target->wire.topic));
	strlcpy(target->wire.compression, compression, sizeof(target->wire.compression));
	return (uint16) log->ntargets++;
}

/* The buffer to the file. */
static void
spill(KcfPending *log)
{
	MemoryContext old = MemoryContextSwitchTo(log->mcxt);

	if (log->file == NULL)
	{
		ResourceOwner owner = CurrentResourceOwner;

		CurrentResourceOwner = log->owner;
		PG_TRY();
		{
			log->file = BufFileCreateTemp(false);
		}
		PG_FINALLY();
		{
			CurrentResourceOwner = owner;
		}
		PG_END_TRY();
	}
	/* Behind what counts: rolling back only forgets, and readers have moved the place. */
	if (BufFileSeek(log->file, 0, (off_t) log->in_file, SEEK_SET) != 0)
		elog(ERROR, "could not find the end of the pending records");
	BufFileWrite(log->file, log->buf.data, log->buf.len);
	log->in_file += log->buf.len;
	log->buf.len = 0;
	if ((Size) log->buf.maxlen > 2 * log->limit)
	{
		/* A single record has made it that large. */
		pfree(log->buf.data);
		initStringInfo(&log->buf);
	}
	MemoryContextSwitchTo(old);
}

/* All of a frame but its padding. */
static Size
frame_size(const KcfRecord *rec)
{
	Size size = sizeof(KcfFrame) + rec->key.len + rec->value.len;

	for (int i = 0; i < rec->nheaders; i++)
		size += 2 * sizeof(uint32) + rec->headers[i].name.len + rec->headers[i].value.len;
	return size;
}

static void
append(KcfPending *log, uint16 target, uint64 key_hash, const KcfRecord *rec)
{
	Assert(target < log->ntargets);
	if (log->buf.len > 0 && log->buf.len + MAXALIGN(frame_size(rec)) > log->limit)
		spill(log);
	kcf_frame_append(&log->buf, target, key_hash, rec);
	log->targets[target].records++;
}

/* Forget what is behind; throws nothing. */
static void
truncate_log(KcfPending *log, uint64 size)
{
	if (size >= kcf_pending_size(log))
		return;
	if (size >= log->in_file)
		log->buf.len = (int) (size - log->in_file);
	else
	{
		log->buf.len = 0;
		log->in_file = size;
	}
	log->counted = false;
}

/* Empty it, for good or to be used again. */
static void
reset_log(KcfPending *log)
{
	if (log->file)
		BufFileClose(log->file);
	log->file = NULL;
	log->in_file = 0;
	log->buf.len = 0;
	for (int i = 0; i < log->ntargets; i++)
		log->targets[i].records = 0;
	log->counted = true;
}

/* ---- reading it ---- */

void
kcf_pending_reader_begin(KcfPendingReader *reader, KcfPending *log)
{
	memset(reader, 0, sizeof(*reader));
	reader->log = log;
	if (log->in_file > 0)
	{
		reader->size = KCF_PENDING_PIECE;
		reader->buf = MemoryContextAlloc(log->mcxt, reader->size);
	}
}

/* How much of these bytes is whole frames, of about a piece; *frame: the size of one that is not whole. */
static Size
whole_frames(const char *bytes, Size len, Size *frame)
{
	Size whole = 0;

	*frame = 0;
	while (whole < KCF_PENDING_PIECE && len - whole >= sizeof(KcfFrame))
	{
		Size size = ((const KcfFrame *) (bytes + whole))->size;

		if (size > len - whole || (whole > 0 && whole + size > KCF_PENDING_PIECE))
		{
			*frame = size;
			break;
		}
		whole += size;
	}
	return whole;
}

/* Fill the buffer up from the file. */
static void
fill(KcfPendingReader *reader)
{
	KcfPending *log = reader->log;
	uint64 next = reader->at + reader->filled;
	Size wanted = (Size) Min(reader->size - reader->filled, log->in_file - next);

	if (BufFileSeek(log->file, 0, (off_t) next, SEEK_SET) != 0 ||
		BufFileRead(log->file, reader->buf + reader->filled, wanted) != wanted)
		elog(ERROR, "could not read " UINT64_FORMAT " bytes of pending records", (uint64) wanted);
	reader->filled += wanted;
}

char *
kcf_pending_reader_next(KcfPendingReader *reader, Size *len)
{
	KcfPending *log = reader->log;
	Size frame;

	if (reader->at < log->in_file)
	{
		/* What follows the piece given out last, which may be the start of a frame. */
		reader->filled -= reader->given;
		memmove(reader->buf, reader->buf + reader->given, reader->filled);
		reader->given = 0;
		fill(reader);
		*len = whole_frames(reader->buf, reader->filled, &frame);
		if (*len == 0)
		{
			Assert(frame > reader->size);
			reader->buf = repalloc(reader->buf, frame);
			reader->size = frame;
			fill(reader);
			*len = whole_frames(reader->buf, reader->filled, &frame);
		}
		Assert(*len > 0);
		reader->given = *len;
		reader->at += *len;
		return reader->buf;
	}
	if (reader->at < kcf_pending_size(log))
	{
		Size start = (Size) (reader->at - log->in_file);

		*len = whole_frames(log->buf.data + start, log->buf.len - start, &frame);
		Assert(*len > 0);
		reader->at += *len;
		return log->buf.data + start;
	}
	*len = 0;
	return NULL;
}

void
kcf_pending_reader_end(KcfPendingReader *reader)
{
	if (reader->buf)
		pfree(reader->buf);
}

void
kcf_pending_recount(KcfPending *log)
{
	KcfPendingReader reader;
	char *piece;
	Size len;

	if (log->counted)
		return;
	for (int i = 0; i < log->ntargets; i++)
		log->targets[i].records = 0;
	kcf_pending_reader_begin(&reader, log);
	while ((piece = kcf_pending_reader_next(&reader, &len)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		for (Size at = 0; at < len; at += ((KcfFrame *) (piece + at))->size)
			log->targets[((KcfFrame *) (piece + at))->target].records++;
	}
	kcf_pending_reader_end(&reader);
	log->counted = true;
}

/* ---- keys ---- */

static void
forget_keys(void)
{
	if (xact.keys_cxt)
		MemoryContextDelete(xact.keys_cxt);
	xact.keys_cxt = NULL;
	xact.keys = NULL;
}

static void
note_key(keys_hash *keys, Oid relid, uint64 hash, CommandId command)
{
	KeyId id = { .hash = hash, .relid = relid };
	bool found;

	keys_insert(keys, id, &found)->command = command;
}

/*
 * Of which command a record was is known of the last command only: all others are taken for earlier ones. Half of
 * the keys are worse than none: they count when they are all there, and what an error has left goes first.
 */
static void
collect_keys(void)
{
	KcfPending *log = xact.log;
	KcfPendingReader reader;
	keys_hash *keys;
	uint64 at = 0;
	char *piece;
	Size len;

	forget_keys();
	xact.keys_cxt =
		AllocSetContextCreate(log->mcxt, "kafka_cache pending keys", ALLOCSET_DEFAULT_SIZES);
	keys = keys_create(xact.keys_cxt, 256, NULL);
	kcf_pending_reader_begin(&reader, log);
	while ((piece = kcf_pending_reader_next(&reader, &len)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		for (Size done = 0; done < len;)
		{
			KcfFrame *frame = (KcfFrame *) (piece + done);

			note_key(keys, log->targets[frame->target].relid, frame->key_hash,
					 at >= xact.command_start ? xact.command : FirstCommandId);
			done += frame->size;
			at += frame->size;
		}
	}
	kcf_pending_reader_end(&reader);
	xact.keys = keys;
}

bool
kcf_pending_wrote(const KcfTableDef *def, uint64 key_hash, CommandId *command)
{
	KeyId id = { .hash = key_hash, .relid = def->relid };

	if (xact.log == NULL || (xact.keys == NULL && kcf_pending_size(xact.log) == 0))
		return false;
	if (xact.keys == NULL)
		collect_keys();

	Key *key = keys_lookup(xact.keys, id);

	if (key == NULL)
		return false;
	*command = key->command;
	return true;
}

/* ---- the transaction's log ---- */

static void
note_append(CommandId command)
{
	int level = GetCurrentTransactionNestLevel();
	uint64 size = kcf_pending_size(xact.log);

	if (level > 1 && (xact.nmarks == 0 || xact.marks[xact.nmarks - 1].level < level))
	{
		if (xact.nmarks == xact.capacity)
		{
			int capacity = xact.capacity == 0 ? 8 : 2 * xact.capacity;

			xact.marks = xact.marks ? repalloc(xact.marks, capacity * sizeof(Mark))
									: MemoryContextAlloc(xact.log->mcxt, capacity * sizeof(Mark));
			xact.capacity = capacity;
		}
		xact.marks[xact.nmarks].level = level;
		xact.marks[xact.nmarks].size = size;
		xact.nmarks++;
	}
	if (command != xact.command)
	{
		xact.command = command;
		xact.command_start = size;
	}
}

void
kcf_pending_append(KcfPending *log, uint16 target, CommandId command, uint64 key_hash,
				   const KcfRecord *rec)
{
	if (log != xact.log)
	{
		append(log, target, key_hash, rec);
		return;
	}
	check_open();
	note_append(command);
	append(log, target, key_hash, rec);
	if (xact.keys)
		note_key(xact.keys, log->targets[target].relid, key_hash, xact.command);
}

void
kcf_pending_send(KcfPending *log, KcfWritten *last)
{
	Assert(log != xact.log);
	kcf_pending_flush(log, last);
	reset_log(log);
}

uint64
kcf_pending_count(Oid relid)
{
	uint64 count = 0;

	if (xact.log == NULL)
		return 0;
	kcf_pending_recount(xact.log);
	for (int i = 0; i < xact.log->ntargets; i++)
		count += xact.log->targets[i].relid == relid ? xact.log->targets[i].records : 0;
	return count;
}

/* ---- ends of transactions and subtransactions ---- */

static void
forget_log(void)
{
	memset(&xact, 0, sizeof(xact));
}

static uint64
count_records(const KcfPending *log)
{
	uint64 count = 0;

	for (int i = 0; i < log->ntargets; i++)
		count += log->targets[i].records;
	return count;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	uint64 sent;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			xact.closed = true;
			if (xact.log == NULL)
				break;
			if (kcf_pending_size(xact.log) > 0)
			{
				/* The server asks for itself too, but when the records have left. */
				if (IsolationIsSerializable())
					PreCommit_CheckForSerializationFailure();
				kcf_pending_flush(xact.log, NULL);
				xact.sent = count_records(xact.log);
			}
			reset_log(xact.log);
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (xact.log && kcf_pending_size(xact.log) > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has written to cached tables"),
						 errhint("Use COMMIT, or set the tables' option \"delivery\" to "
								 "\"immediate\".")));
			xact.closed = true;
			if (xact.log)
				reset_log(xact.log);
			break;
		case XACT_EVENT_ABORT:
			sent = xact.sent;
			forget_log();
			if (sent > 0)
				ereport(WARNING,
						(errmsg("what the transaction wrote to Kafka stays, though it has failed"),
						 errdetail_plural("%llu record had been acknowledged before it failed.",
										  "%llu records had been acknowledged before it failed.",
										  sent, (unsigned long long) sent)));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			forget_log();
			break;
		default: /* a parallel worker writes nothing */
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int level;

	if (xact.nmarks == 0)
		return;
	level = GetCurrentTransactionNestLevel();
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		uint64 size = kcf_pending_size(xact.log);

		while (xact.nmarks > 0 && xact.marks[xact.nmarks - 1].level >= level)
			truncate_log(xact.log, xact.marks[--xact.nmarks].size);
		if (kcf_pending_size(xact.log) < size)
			forget_keys();
		xact.command_start = Min(xact.command_start, kcf_pending_size(xact.log));
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB && xact.marks[xact.nmarks - 1].level == level)
	{
		/* The parent's now, which may have one of its own, further in front. */
		if (level == 2 || (xact.nmarks > 1 && xact.marks[xact.nmarks - 2].level == level - 1))
			xact.nmarks--;
		else
			xact.marks[xact.nmarks - 1].level = level - 1;
	}
}

void
kcf_pending_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}
