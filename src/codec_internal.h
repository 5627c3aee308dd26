/*
 * codec_internal.h
 *		What the files of the codec share.
 *
 * Process:  consumer.
 * Locks:    none.
 * Memory:   see codec.h.
 * Errors:   see codec.h.
 * Waits:    never.
 */
#ifndef KCF_CODEC_INTERNAL_H
#define KCF_CODEC_INTERNAL_H

#include "codec.h"

#include "access/tupdesc.h"
#include "compat.h"
#include "fmgr.h"

typedef enum KcfConvertKind
{
	/* scalars that are converted here where their form is the usual one */
	KCF_CONVERT_BOOL,
	KCF_CONVERT_INT2,
	KCF_CONVERT_INT4,
	KCF_CONVERT_INT8,
	KCF_CONVERT_FLOAT8,
	KCF_CONVERT_NUMERIC,
	KCF_CONVERT_UUID,
	KCF_CONVERT_DATE,
	KCF_CONVERT_TIMESTAMP,
	KCF_CONVERT_TIMESTAMPTZ,
	/* up to here no value begins with a bracket, as the text of an array or object does */
	KCF_CONVERT_TEXT,
	KCF_CONVERT_VARCHAR, /* with a length */
	KCF_CONVERT_ENUM,
	KCF_CONVERT_JSON,
	KCF_CONVERT_JSONB,
	/* by the type's input function always */
	KCF_CONVERT_INPUT,
	/* not scalars */
	KCF_CONVERT_ARRAY,
	KCF_CONVERT_DOMAIN,
	KCF_CONVERT_POPULATE /* composites: by jsonb_populate_record's own code */
} KcfConvertKind;

typedef struct KcfEnumLabels KcfEnumLabels;

struct KcfConverter
{
	KcfConvertKind kind;
	Oid typid;
	int32 typmod;
	int16 typlen;
	bool typbyval;
	char typalign;
	const char *type_name;
	MemoryContext mcxt;

	FmgrInfo input;
	Oid ioparam;

	KcfConverter *base;    /* of a domain; of an array its element's */
	bool direct;           /* array: its elements are scalars for which base is exact */
	void *domain;          /* cache of domain_check */
	KcfEnumLabels *labels; /* enum */
	FmgrInfo populate;     /* set up when first needed */
	TupleDesc populate_desc;
};

#define KCF_IS_INTEGER(kind) ((kind) >= KCF_CONVERT_INT2 && (kind) <= KCF_CONVERT_INT8)

/* codec.c: an integer in the width of the kind */
extern KcfReason kcf_integer(KcfConvertKind kind, const char *p, size_t len, Datum *value,
							 bool *odd);

/* codec_time.c: false: not in the one usual form, let the input function see */
extern bool kcf_parse_date(const char *p, size_t len, Datum *value);
extern bool kcf_parse_timestamp(const char *p, size_t len, bool with_zone, Datum *value);

#ifdef KCF_NO_SOFT_ERRORS
/* Would the input function of date, timestamp or timestamptz raise an error? */
extern bool kcf_time_is_refused(const char *text, bool date);
#endif

/* codec_jsonb.c: jsonb of a value that kcf_json_scan has accepted */
extern KcfReason kcf_jsonb(const KcfJsonSlice *slice, Datum *value);

/* codec_json.c: a string's content, in the server's encoding */
extern KcfReason kcf_json_string(const KcfJsonSlice *slice, const char **text, size_t *len);
/* The value's own text, with the quotes of a string. */
extern const char *kcf_json_source(const KcfJsonSlice *slice, size_t *len);
extern Datum kcf_json_numeric(const KcfJsonSlice *slice);

#endif /* KCF_CODEC_INTERNAL_H */
