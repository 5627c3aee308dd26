/*
 * notify_internal.h
 *		Notes of changed keys, for notify*.c alone.
 *
 * Process:  a consumer worker.
 * Locks:    none.
 * Memory:   see notify.h.
 * Errors:   none of its own.
 * Waits:    never.
 */
#ifndef KCF_NOTIFY_INTERNAL_H
#define KCF_NOTIFY_INTERNAL_H

#include "notify.h"
#include "rowmap_keytext.h"

#include "lib/stringinfo.h"

/* The longest payload that NOTIFY takes. */
#define KCF_PAYLOAD_MAX (BLCKSZ - NAMEDATALEN - 128 - 1)
/* Notes of one table; what does not fit is told as "more". */
#define KCF_NOTES_MAX ((Size) 16 * 1024 * 1024)

typedef struct KcfNote
{
	uint64 hash;   /* of the text */
	int64 offset;  /* of the first record that is not told of */
	int64 covered; /* payloads: with this note and all before, the partition is told up to here */
	uint32 text;   /* where it begins among the texts: a JSON string */
	uint32 len;    /* 0: too long for any payload */
	int32 partition;
	bool deleted;
} KcfNote;

/* Each key once, in the order in which they were first changed. */
typedef struct KcfNotes
{
	KcfNote *notes;
	uint32 n;
	uint32 capacity;
	uint32 *slots; /* number of a note + 1, 0: none; open addressing by hash */
	uint32 nslots; /* a power of two */
	StringInfoData texts;
} KcfNotes;

extern void kcf_notes_init(KcfNotes *notes, MemoryContext mcxt);
/* The key as a JSON string; true: noted, false: there is no room. */
extern bool kcf_notes_add(KcfNotes *notes, MemoryContext mcxt, const char *text, uint32 len,
						  int32 partition, int64 offset, bool deleted);
/* Forget them all, and give back what is more than the usual. */
extern void kcf_notes_clear(KcfNotes *notes, MemoryContext mcxt);

struct KcfNotify
{
	MemoryContext mcxt;
	MemoryContext writer_mcxt;
	KcfTable *table;
	KcfTableDef *def;
	KcfRowWriter *writer;

	KcfNotes notes;
	bool *touched; /* by partition: something of it is to be told */
	int ntouched;  /* the array's length */
	bool any;      /* one of them is */
	bool more;     /* of what, the notes do not know */
	bool behind;
	bool applying;         /* records, and not all of them have been noted */
	StringInfoData quoted; /* a key as a JSON string */
	KcfMoment last;        /* when listeners were told */

	/* of what was written last */
	uint64 payloads;
	uint64 keys;
	uint64 incomplete;
};

/* notify_payload.c */
extern void kcf_payloads_write(KcfNotify *notify);

#endif /* KCF_NOTIFY_INTERNAL_H */
