/*
 * pending_internal.h
 *		The log of records as its own files see it. For pending*.c.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   the log's context.
 * Errors:   53400 and I/O errors of temporary files.
 * Waits:    kcf_pending_flush only.
 */
#ifndef KCF_PENDING_INTERNAL_H
#define KCF_PENDING_INTERNAL_H

#include "pending.h"

#include "storage/buffile.h"
#include "utils/resowner.h"

/* A table's topic, as one user writes to it. */
typedef struct KcfPendingTarget
{
	Oid relid;
	Oid serverid;
	Oid userid;
	bool atomic;
	bool product; /* its keys may be being computed */
	KcfTarget wire;
	uint64 records; /* in the log; see counted */
} KcfPendingTarget;

/* Frames, one behind the other: first those in the file, then those in the buffer. */
struct KcfPending
{
	MemoryContext mcxt;
	ResourceOwner owner; /* of the file */
	Size limit;          /* of the buffer */
	StringInfoData buf;
	BufFile *file;  /* NULL: none */
	uint64 in_file; /* bytes of it that count: what is behind them was rolled back */
	KcfPendingTarget *targets;
	int ntargets;
	int capacity;
	bool counted;    /* the targets' numbers of records are right */
	int patience_ms; /* 0: the session's own writes; see kcf_pending_hurry */
};

static inline uint64
kcf_pending_size(const KcfPending *log)
{
	return log->in_file + log->buf.len;
}

/* Pieces of whole frames, of about this size or a single frame. */
#define KCF_PENDING_PIECE (64 * 1024)

typedef struct KcfPendingReader
{
	KcfPending *log;
	uint64 at;   /* of the log: what has been given out */
	char *buf;   /* of what is in the file */
	Size size;   /* of it */
	Size filled; /* from at on */
	Size given;
} KcfPendingReader;

/* The log must not be changed while it is read. */
extern void kcf_pending_reader_begin(KcfPendingReader *reader, KcfPending *log);
/* The next piece, valid until the next call; frames may be changed in place. NULL: that was all. */
extern char *kcf_pending_reader_next(KcfPendingReader *reader, Size *len);
extern void kcf_pending_reader_end(KcfPendingReader *reader);

/* Makes the targets' numbers of records right. */
extern void kcf_pending_recount(KcfPending *log);
/* Sends all of it, see kcf_pending_send; the log stays as it is. pending_send.c */
extern void kcf_pending_flush(KcfPending *log, KcfWritten *last);

/* ---- pending_product.c ---- */

typedef struct KcfPendingKey
{
	Oid relid;
	uint64 hash;
} KcfPendingKey;

/* Nobody else computes or puts the products' keys that are in this log, until kcf_pending_land. NULL: there are none. */
extern KcfPendingKey *kcf_pending_lead(KcfPending *log, int *nkeys);
extern void kcf_pending_land(const KcfPendingKey *keys, int nkeys);
/* The log was sent: until its products show it, a moment at most. */
extern void kcf_pending_show(const KcfPending *log);

#endif /* KCF_PENDING_INTERNAL_H */
