/*
 * frame.h
 *		A record as bytes: how it waits in a transaction's log and travels through the send queue.
 *
 * Process:  backends write frames, the producer reads them.
 * Locks:    none.
 * Memory:   kcf_frame_append: the buffer's; what kcf_frame_read fills points into the frame.
 * Errors:   54000 for a record beyond the limit of a palloc; reading checks nothing: frames come from us.
 * Waits:    never.
 */
#ifndef KCF_FRAME_H
#define KCF_FRAME_H

#include "lib/stringinfo.h"
#include "record.h"

/*
 * Frames lie one behind the other, each MAXALIGNed. A frame is this, the headers' lengths, then the bytes of
 * key, value and headers.
 */
typedef struct KcfFrame
{
	uint32 size;   /* of all, MAXALIGNed */
	uint16 target; /* which table's topic, see KcfTarget */
	uint16 nheaders;
	int32 partition; /* -1: as the key's hash says */
	uint32 key_len;
	uint32 value_len; /* KCF_FRAME_NULL: tombstone */
	int64 timestamp;  /* milliseconds; KCF_NO_TIMESTAMP: when it is sent */
	uint64 key_hash;  /* the key's, by kcf_key_hash */
} KcfFrame;

#define KCF_FRAME_NULL PG_UINT32_MAX
#define KCF_ANY_PARTITION (-1)

/* rec->offset is ignored. */
extern void kcf_frame_append(StringInfo buf, uint16 target, uint64 key_hash, const KcfRecord *rec);
/* headers: room for frame->nheaders */
extern void kcf_frame_read(const KcfFrame *frame, KcfRecord *rec, KcfHeader *headers);

#endif /* KCF_FRAME_H */
