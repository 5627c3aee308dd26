/*
 * notify_payload.c
 *		The words in which listeners are told.
 *
 *		{"v":1,"topic":"users","offsets":{"0":28262},"updates":{"<key>":{},"<key>":{"deleted":true}}}
 *
 * "offsets" is a position: whoever goes on from it misses nothing. So where one payload is too short for all keys,
 * each but the last says only how far its partitions are told of by it and those before it.
 */
#include "postgres.h"

#include "notify_internal.h"

#include "commands/async.h"
#include "utils/json.h"

/* "12345": and 20 digits, a comma */
#define OFFSET_MAX_LEN 34

#define MIDDLE_KEYS "},\"updates\":{"
#define END_KEYS "}}"
#define END_NONE "},\"updates\":null}"
#define END_MORE "},\"updates\":null,\"more\":true}"
#define CHANGED ":{}"
#define DELETED ":{\"deleted\":true}"

typedef struct Payload
{
	KcfNotify *notify;
	StringInfoData begin; /* up to the offsets */
	StringInfoData text;
	StringInfoData updates;
	int32 *partitions; /* those with an offset in it */
	int npartitions;
	int64 *position; /* by partition */
	uint32 *seen_in; /* by partition: number of the payload that it was last put into */
	uint32 number;
	int size; /* at most, of what is there */
} Payload;

static void
begin(Payload *payload)
{
	payload->number++;
	payload->npartitions = 0;
	payload->size = payload->begin.len + (int) strlen(END_MORE);
	resetStringInfo(&payload->updates);
}

/* Bytes more with a position of this partition. */
static int
offset_size(const Payload *payload, int32 partition)
{
	return payload->seen_in[partition] == payload->number ? 0 : OFFSET_MAX_LEN;
}

static void
put_offset(Payload *payload, int32 partition, int64 position)
{
	if (payload->seen_in[partition] != payload->number)
	{
		payload->seen_in[partition] = payload->number;
		payload->partitions[payload->npartitions++] = partition;
		payload->size += OFFSET_MAX_LEN;
	}
	payload->position[partition] = position;
}

static void
send(Payload *payload, const char *end, bool keys)
{
	KcfNotify *notify = payload->notify;
	StringInfo text = &payload->text;

	resetStringInfo(text);
	appendBinaryStringInfo(text, payload->begin.data, payload->begin.len);
	for (int i = 0; i < payload->npartitions; i++)
		appendStringInfo(text, "%s\"%d\":" INT64_FORMAT, i > 0 ? "," : "", payload->partitions[i],
						 payload->position[payload->partitions[i]]);
	if (keys)
	{
		appendStringInfoString(text, MIDDLE_KEYS);
		appendBinaryStringInfo(text, payload->updates.data, payload->updates.len);
	}
	appendStringInfoString(text, end);
	Assert(text->len <= KCF_PAYLOAD_MAX);
	Async_Notify(notify->def->options->notify, text->data);
	notify->payloads++;
}

/* Positions alone, of those partitions for which it is asked. */
static void
write_positions(Payload *payload, const bool *wanted, const char *end)
{
	KcfPartitions *followed = &payload->notify->table->followed;

	begin(payload);
	for (int i = 0; i < followed->n; i++)
	{
		if (!wanted[i])
			continue;
		if (payload->size + OFFSET_MAX_LEN > KCF_PAYLOAD_MAX)
		{
			send(payload, end, false);
			begin(payload);
		}
		put_offset(payload, i, (int64) pg_atomic_read_u64(&followed->array[i].next) - 1);
	}
	send(payload, end, false);
}

/* The end of what is told when all notes up to each one are. */
static void
measure(KcfNotify *notify)
{
	KcfPartitions *followed = &notify->table->followed;
	int64 *least = palloc(sizeof(int64) * Max(followed->n, 1));

	for (int i = 0; i < followed->n; i++)
		least[i] = (int64) pg_atomic_read_u64(&followed->array[i].next);
	for (uint32 i = notify->notes.n; i-- > 0;)
	{
		KcfNote *note = &notify->notes.notes[i];

		note->covered = least[note->partition];
		least[note->partition] = Min(least[note->partition], note->offset);
	}
	pfree(least);
}

static bool
is_too_long(const Payload *payload, const KcfNote *note)
{
	return note->len == 0 || payload->begin.len + OFFSET_MAX_LEN + strlen(MIDDLE_KEYS) + note->len +
									 strlen(DELETED) + strlen(END_KEYS) >
								 KCF_PAYLOAD_MAX;
}

static void
write_keys(Payload *payload)
{
	KcfNotify *notify = payload->notify;
	const KcfNotes *notes = &notify->notes;
	uint32 i = 0;

	measure(notify);
	while (i < notes->n)
	{
		const KcfNote *note = &notes->notes[i];
		bool nameless = is_too_long(payload, note);

		begin(payload);
		for (; i < notes->n; i++)
		{
			const char *what;
			int size;

			note = &notes->notes[i];
			what = note->deleted ? DELETED : CHANGED;
			size = payload->size + offset_size(payload, note->partition);
			if (is_too_long(payload, note) != nameless)
				break;
			if (!nameless)
				size += note->len + strlen(what) + 1;
			if (size > KCF_PAYLOAD_MAX && payload->npartitions > 0)
				break;
			put_offset(payload, note->partition, note->covered - 1);
			if (nameless)
				continue;
			if (payload->updates.len > 0)
				appendStringInfoChar(&payload->updates, ',');
			appendBinaryStringInfo(&payload->updates, notes->texts.data + note->text, note->len);
			appendStringInfoString(&payload->updates, what);
			payload->size += note->len + strlen(what) + 1;
			notify->keys++;
		}
		send(payload, nameless ? END_MORE : END_KEYS, !nameless);
		notify->incomplete += nameless ? 1 : 0;
	}
}

void
kcf_payloads_write(KcfNotify *notify)
{
	KcfPartitions *followed = &notify->table->followed;
	bool afresh = pg_atomic_read_u32(&notify->table->told.afresh) != 0;
	int n = Max(followed->n, 1);
	Payload payload = { .notify = notify,
						.partitions = palloc(sizeof(int32) * n),
						.position = palloc(sizeof(int64) * n),
						.seen_in = palloc0(sizeof(uint32) * n) };

	notify->payloads = notify->keys = notify->incomplete = 0;
	initStringInfo(&payload.begin);
	initStringInfo(&payload.text);
	initStringInfo(&payload.updates);
	appendStringInfoString(&payload.begin, "{\"v\":1,\"topic\":");
	escape_json(&payload.begin, notify->def->options->topic);
	appendStringInfoString(&payload.begin, ",\"offsets\":{");

	if (afresh || notify->more)
	{
		bool *wanted = palloc(sizeof(bool) * n);

		for (int i = 0; i < followed->n; i++)
		{
			KcfPartition *p = &followed->array[i];

			wanted[i] = afresh || pg_atomic_read_u64(&p->announced) != pg_atomic_read_u64(&p->next);
		}
		write_positions(&payload, wanted, END_MORE);
		notify->incomplete = notify->payloads;
	}
	else if (notify->def->options->notify_payload == KCF_NOTIFY_NONE)
		write_positions(&payload, notify->touched, END_NONE);
	else
		write_keys(&payload);
}
