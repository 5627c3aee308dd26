/*
 * frame.c
 *		A record as bytes: how it waits in a transaction's log and travels through the send queue.
 */
#include "postgres.h"

#include "frame.h"

#include "utils/memutils.h"

/* Of each header, before all bytes. */
typedef struct HeaderLengths
{
	uint32 name;
	uint32 value; /* KCF_FRAME_NULL: null */
} HeaderLengths;

static char *
put(char *at, const KcfSlice *bytes)
{
	if (bytes->len > 0)
		memcpy(at, bytes->data, bytes->len);
	return at + bytes->len;
}

static const char *
get(const char *at, uint32 len, KcfSlice *bytes)
{
	bytes->data = len == KCF_FRAME_NULL ? NULL : at;
	bytes->len = len == KCF_FRAME_NULL ? 0 : len;
	return at + bytes->len;
}

static uint32
length(const KcfSlice *bytes)
{
	return bytes->data ? (uint32) bytes->len : KCF_FRAME_NULL;
}

void
kcf_frame_append(StringInfo buf, uint16 target, uint64 key_hash, const KcfRecord *rec)
{
	Size bytes = rec->key.len + rec->value.len;
	Size size = sizeof(KcfFrame) + rec->nheaders * sizeof(HeaderLengths);
	KcfFrame *frame;
	HeaderLengths *lengths;
	char *at;

	for (int i = 0; i < rec->nheaders; i++)
		bytes += rec->headers[i].name.len + rec->headers[i].value.len;
	if (rec->nheaders > PG_UINT16_MAX || MAXALIGN(size + bytes) >= MaxAllocSize)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a record of %zu bytes and %d headers is too large", bytes,
							   rec->nheaders)));
	size = MAXALIGN(size + bytes);

	enlargeStringInfo(buf, (int) size);
	frame = (KcfFrame *) (buf->data + buf->len);
	frame->size = (uint32) size;
	frame->target = target;
	frame->nheaders = (uint16) rec->nheaders;
	frame->partition = rec->partition;
	frame->key_len = (uint32) rec->key.len;
	frame->value_len = length(&rec->value);
	frame->timestamp = rec->timestamp;
	frame->key_hash = key_hash;
	lengths = (HeaderLengths *) (frame + 1);
	at = (char *) (lengths + rec->nheaders);
	at = put(at, &rec->key);
	at = put(at, &rec->value);
	for (int i = 0; i < rec->nheaders; i++)
	{
		lengths[i].name = (uint32) rec->headers[i].name.len;
		lengths[i].value = length(&rec->headers[i].value);
		at = put(at, &rec->headers[i].name);
		at = put(at, &rec->headers[i].value);
	}
	memset(at, 0, buf->data + buf->len + size - at);
	buf->len += (int) size;
}

void
kcf_frame_read(const KcfFrame *frame, KcfRecord *rec, KcfHeader *headers)
{
	const HeaderLengths *lengths = (const HeaderLengths *) (frame + 1);
	const char *at = (const char *) (lengths + frame->nheaders);

	at = get(at, frame->key_len, &rec->key);
	at = get(at, frame->value_len, &rec->value);
	for (int i = 0; i < frame->nheaders; i++)
	{
		at = get(at, lengths[i].name, &headers[i].name);
		at = get(at, lengths[i].value, &headers[i].value);
	}
	rec->offset = -1;
	rec->timestamp = frame->timestamp;
	rec->partition = frame->partition;
	rec->nheaders = frame->nheaders;
	rec->headers = headers;
}
