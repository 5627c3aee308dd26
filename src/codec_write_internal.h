/*
 * codec_write_internal.h
 *		What the files of writing values share.
 *
 * Process:  see codec_write.h.
 * Locks:    none.
 * Memory:   see codec_write.h.
 * Errors:   see codec_write.h.
 * Waits:    never.
 */
#ifndef KCF_CODEC_WRITE_INTERNAL_H
#define KCF_CODEC_WRITE_INTERNAL_H

#include "codec_write.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/timestamp.h"

typedef enum KcfPrintKind
{
	KCF_PRINT_BOOL,
	KCF_PRINT_INT2,
	KCF_PRINT_INT4,
	KCF_PRINT_INT8,
	KCF_PRINT_FLOAT4,
	KCF_PRINT_FLOAT8,
	KCF_PRINT_NUMERIC,
	KCF_PRINT_UUID,
	KCF_PRINT_DATE,
	KCF_PRINT_TIME,
	KCF_PRINT_TIMETZ,
	KCF_PRINT_TIMESTAMP,
	KCF_PRINT_TIMESTAMPTZ,
	KCF_PRINT_BYTEA,
	KCF_PRINT_TEXT,
	KCF_PRINT_JSON,
	KCF_PRINT_JSONB,
	/* from here on their text is what the output function prints */
	KCF_PRINT_ARRAY,
	KCF_PRINT_COMPOSITE,
	KCF_PRINT_OUTPUT /* by the type's output function */
} KcfPrintKind;

/* Settings that output functions heed. A money's text is as the monetary locale has it, names are as the search path
 * lets them be. */
#define KCF_SETTING_DATESTYLE 0x01
#define KCF_SETTING_INTERVALSTYLE 0x02
#define KCF_SETTING_FLOATS 0x04
#define KCF_SETTING_TIMEZONE 0x08
#define KCF_SETTING_BYTEA 0x10
#define KCF_SETTING_MONETARY 0x20
#define KCF_SETTING_SEARCH_PATH 0x40
/* ... of types that we know nothing of */
#define KCF_SETTING_USUAL                                                                          \
	(KCF_SETTING_DATESTYLE | KCF_SETTING_INTERVALSTYLE | KCF_SETTING_FLOATS |                      \
	 KCF_SETTING_TIMEZONE | KCF_SETTING_BYTEA)

/* An attribute of a composite type. */
typedef struct KcfPrintMember
{
	const char *name; /* "name": as JSON has it, in the server's encoding */
	int name_len;
	KcfPrinter *printer; /* NULL: dropped */
} KcfPrintMember;

struct KcfPrinter
{
	KcfPrintKind kind;
	Oid typid; /* of a domain: its base type */
	int json_settings;
	int text_settings;
	bool nested; /* of an array or a composite */
	FmgrInfo output;

	/* of arrays */
	KcfPrinter *element;
	Oid element_type;
	int16 typlen;
	bool typbyval;
	char typalign;

	/* of composites */
	TupleDesc desc;
	KcfPrintMember *members; /* [desc->natts] */
};

/*
 * The following append in the server's encoding, which kcf_print_json converts as a whole.
 */
extern void kcf_print_raw_json(KcfPrinter *printer, Datum value, StringInfo buf);

/* codec_write_json.c */
extern void kcf_printer_create_array(KcfPrinter *printer);
extern void kcf_printer_create_composite(KcfPrinter *printer);
extern void kcf_print_raw_array(KcfPrinter *printer, Datum value, StringInfo buf);
extern void kcf_print_raw_composite(KcfPrinter *printer, Datum value, StringInfo buf);
/* member: where null is not a value */
extern void kcf_print_raw_jsonb(Datum value, bool member, StringInfo buf);
/* A json value as it is written. nested: it will be read by way of jsonb. */
extern void kcf_print_raw_source(Datum value, bool nested, StringInfo buf);

/* codec_write_settings.c: those that a type's output function heeds */
extern int kcf_output_settings(Oid typid);

/* codec_write_time.c: without quotes */
extern void kcf_print_date(DateADT date, StringInfo buf);
extern void kcf_print_time(Datum value, bool with_zone, bool json, StringInfo buf);
extern void kcf_print_timestamp(Timestamp t, bool with_zone, bool json, StringInfo buf);

#endif /* KCF_CODEC_WRITE_INTERNAL_H */
