/*
 * record.h
 *		One Kafka record, as every module below the Kafka client sees it.
 *
 * Process:  any.
 * Locks:    none.
 * Memory:   borrowed: bytes belong to whoever produced the record and live until the batch is released.
 * Errors:   none.
 * Waits:    never.
 */
#ifndef KCF_RECORD_H
#define KCF_RECORD_H

/* Bytes with a length. data == NULL is Kafka's null (not the same as len == 0). Never NUL-terminated. */
typedef struct KcfSlice
{
	const char *data;
	size_t len;
} KcfSlice;

typedef struct KcfHeader
{
	KcfSlice name;
	KcfSlice value; /* data == NULL: null */
} KcfHeader;

typedef struct KcfRecord
{
	KcfSlice key;
	KcfSlice value; /* data == NULL: tombstone */
	int64 offset;
	int64 timestamp; /* milliseconds since 1970, -1: none */
	int32 partition;
	int32 nheaders; /* 0 unless the client was asked for headers */
	const KcfHeader *headers;
} KcfRecord;

/* Kafka's "no timestamp" */
#define KCF_NO_TIMESTAMP (-1)

#endif /* KCF_RECORD_H */
