/*
 * codec.h
 *		From a record's bytes to the Datum of one type: text and JSON, exactly as PostgreSQL would.
 *
 * Process:  consumer, in a transaction, as the table's owner.
 * Locks:    none.
 * Memory:   a converter lives in the context it is made in; Datums in CurrentMemoryContext.
 * Errors:   what our code finds is returned as a reason; what PostgreSQL's functions raise propagates.
 * Waits:    never.
 */
#ifndef KCF_CODEC_H
#define KCF_CODEC_H

#include "json_scan.h"

#include "access/attnum.h"

/* Deeper documents are judged by the server's parser, whose limit is that of the stack. */
#define KCF_JSON_SURELY_SHALLOW 1000

/* The reasons of kafka_cache.errors, in the order of their names there. */
typedef enum KcfReason
{
	KCF_OK = 0,
	KCF_REASON_ENCODING,
	KCF_REASON_JSON,
	KCF_REASON_JSON_SHAPE,
	KCF_REASON_CONVERT,
	KCF_REASON_RANGE,
	KCF_REASON_NOT_NULL,
	KCF_REASON_CHECK,
	KCF_REASON_KEY,
	KCF_REASON_KEY_MISMATCH,
	KCF_REASON_NULL_KEY,
	KCF_REASON_TOO_LARGE,
	KCF_REASON_HEADERS,
	KCF_NREASONS
} KcfReason;

/* What went wrong: column 0 when it is not about one. message never contains data of the record. */
typedef struct KcfFault
{
	KcfReason reason;
	AttrNumber column;
	char message[160];
} KcfFault;

extern const char *kcf_reason_name(KcfReason reason);
/* Of an error that a type's function raised. */
extern KcfReason kcf_reason_of_sqlstate(int sqlstate);

/* How to make values of one type. Holds caches, none of which an error can leave half done. */
typedef struct KcfConverter KcfConverter;

extern KcfConverter *kcf_converter_create(Oid typid, int32 typmod);
/* Its type, for messages. */
extern const char *kcf_converter_type(const KcfConverter *conv);

/* The type's input function on text in the server's encoding, which need not be NUL-terminated. */
extern KcfReason kcf_convert_text(KcfConverter *conv, const char *text, size_t len, Datum *value);
/* Constraints of a domain on NULL; may ereport. */
extern void kcf_convert_null(KcfConverter *conv);

/*
 * A value of a document that kcf_json_scan has accepted, as (document ->> 'member')::type takes it,
 * arrays and composites as jsonb_populate_record takes them. With a tail (see KcfJsonPath) the
 * value is an array of which it is taken from each element.
 */
extern KcfReason kcf_convert_json(KcfConverter *conv, const KcfJsonSlice *slice, const char *tail,
								  Datum *value, bool *isnull);

/* Record bytes, which are UTF-8, in the server's encoding. May ereport when a character has no
 * equivalent. */
extern const char *kcf_server_text(const char *utf8, size_t len, size_t *server_len);

#endif /* KCF_CODEC_H */
