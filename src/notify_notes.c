/*
 * notify_notes.c
 *		The keys of which listeners are to be told, each once.
 *
 * A key is known by its text. Two that are equal and are printed differently are told as two: to whoever listens they
 * are.
 */
#include "postgres.h"

#include "notify_internal.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#define NOTES_USUAL 1024
#define TEXTS_USUAL (64 * 1024)

void
kcf_notes_init(KcfNotes *notes, MemoryContext mcxt)
{
	MemoryContext old = MemoryContextSwitchTo(mcxt);

	notes->n = 0;
	notes->capacity = NOTES_USUAL;
	notes->nslots = 2 * NOTES_USUAL;
	notes->notes = palloc(sizeof(KcfNote) * notes->capacity);
	notes->slots = palloc0(sizeof(uint32) * notes->nslots);
	initStringInfo(&notes->texts);
	MemoryContextSwitchTo(old);
}

void
kcf_notes_clear(KcfNotes *notes, MemoryContext mcxt)
{
	if (notes->capacity > NOTES_USUAL || notes->texts.maxlen > TEXTS_USUAL)
	{
		pfree(notes->notes);
		pfree(notes->slots);
		pfree(notes->texts.data);
		kcf_notes_init(notes, mcxt);
		return;
	}
	if (notes->n > 0)
		memset(notes->slots, 0, sizeof(uint32) * notes->nslots);
	notes->n = 0;
	resetStringInfo(&notes->texts);
}

static void
insert(KcfNotes *notes, uint32 i)
{
	uint32 at = (uint32) notes->notes[i].hash & (notes->nslots - 1);

	while (notes->slots[at] != 0)
		at = (at + 1) & (notes->nslots - 1);
	notes->slots[at] = i + 1;
}

static KcfNote *
find(const KcfNotes *notes, uint64 hash, const char *text, uint32 len)
{
	for (uint32 at = (uint32) hash & (notes->nslots - 1); notes->slots[at] != 0;
		 at = (at + 1) & (notes->nslots - 1))
	{
		KcfNote *note = &notes->notes[notes->slots[at] - 1];

		if (note->hash == hash && note->len == len &&
			memcmp(notes->texts.data + note->text, text, len) == 0)
			return note;
	}
	return NULL;
}

static void
grow(KcfNotes *notes, MemoryContext mcxt)
{
	uint32 *slots = MemoryContextAllocZero(mcxt, sizeof(uint32) * 2 * notes->nslots);

	notes->notes = repalloc(notes->notes, sizeof(KcfNote) * 2 * notes->capacity);
	notes->capacity *= 2;
	pfree(notes->slots);
	notes->slots = slots;
	notes->nslots *= 2;
	for (uint32 i = 0; i < notes->n; i++)
		insert(notes, i);
}

bool
kcf_notes_add(KcfNotes *notes, MemoryContext mcxt, const char *text, uint32 len, int32 partition,
			  int64 offset, bool deleted)
{
	/* a name that fits in no payload is not needed */
	uint32 kept = len < KCF_PAYLOAD_MAX ? len : 0;
	uint64 hash = hash_bytes_extended((const unsigned char *) text, (int) len, 0);
	KcfNote *note = kept > 0 ? find(notes, hash, text, kept) : NULL;

	if (note != NULL)
	{
		note->deleted = deleted;
		return true;
	}
	if (notes->n == notes->capacity)
	{
		if ((sizeof(KcfNote) + 2 * sizeof(uint32)) * 2 * notes->capacity > KCF_NOTES_MAX / 2)
			return false;
		grow(notes, mcxt);
	}
	if (notes->texts.len + kept > KCF_NOTES_MAX / 2)
		return false;
	note = &notes->notes[notes->n];
	note->hash = hash;
	note->offset = offset;
	note->text = notes->texts.len;
	note->len = kept;
	note->partition = partition;
	note->deleted = deleted;
	appendBinaryStringInfo(&notes->texts, text, kept);
	insert(notes, notes->n++);
	return true;
}
