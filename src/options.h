/*
 * options.h
 *		The option table (server, user mapping, table, column) and what it resolves to.
 *
 * Process:  backends (validation) and consumers (resolution).
 * Locks:    none.
 * Memory:   results in CurrentMemoryContext.
 * Errors:   ereport with the HV00* codes of SQL/MED.
 * Waits:    never.
 */
#ifndef KCF_OPTIONS_H
#define KCF_OPTIONS_H

#include "nodes/pg_list.h"
#include "properties.h"

typedef enum KcfFormat
{
	KCF_FORMAT_JSON,
	KCF_FORMAT_TEXT,
	KCF_FORMAT_BYTEA
} KcfFormat;

typedef enum KcfOnError
{
	KCF_ON_ERROR_KEEP,   /* the key keeps its previous value */
	KCF_ON_ERROR_REMOVE, /* the row goes */
	KCF_ON_ERROR_FAIL    /* a scan that meets the key fails */
} KcfOnError;

typedef enum KcfDelivery
{
	KCF_DELIVERY_COMMIT,
	KCF_DELIVERY_IMMEDIATE
} KcfDelivery;

typedef enum KcfNotifyPayload
{
	KCF_NOTIFY_KEYS,
	KCF_NOTIFY_NONE
} KcfNotifyPayload;

typedef struct KcfTableOptions
{
	char *topic; /* never NULL: defaults to the table's name */
	KcfFormat format;
	KcfFormat key_format;
	bool readonly; /* default true */
	char *notify;  /* channel or NULL */
	KcfNotifyPayload notify_payload;
	KcfOnError on_error;
	KcfDelivery delivery;
	bool atomic;
	bool keep_value;
	int64 max_bytes;        /* 0: no limit of its own */
	int64 max_record_bytes; /* default 16 MB */
	char *compression;      /* of what we produce, or NULL */
	/* Of data products; intervals in milliseconds. */
	char *compute; /* the function, as the option names it; NULL: the table is none */
	bool prime_on_miss;
	int64 soft_ttl; /* 0: rows never become stale */
	int64 hard_ttl; /* 0: rows are good for ever */
	int64 negative_ttl;
	int64 refresh_every; /* 0: never by itself */
	char *domain;        /* a query that yields keys, or NULL */
	char *augment;       /* a function, or NULL */
} KcfTableOptions;

typedef enum KcfColumnKind
{
	KCF_COLUMN_JSON, /* a field of the document, at json_path */
	KCF_COLUMN_KEY,  /* (part of) the record's key; with json_path also repeated in the document */
	KCF_COLUMN_VALUE,
	KCF_COLUMN_PARTITION,
	KCF_COLUMN_OFFSET,
	KCF_COLUMN_TIMESTAMP,
	KCF_COLUMN_HEADERS,
	KCF_COLUMN_DROPPED /* attisdropped, or generated when read: always NULL */
} KcfColumnKind;

/* Columns that are not NULL in a record of the topic, whatever was given when it was written. */
#define kcf_column_is_metadata(kind)                                                               \
	((kind) == KCF_COLUMN_PARTITION || (kind) == KCF_COLUMN_OFFSET ||                              \
	 (kind) == KCF_COLUMN_TIMESTAMP || (kind) == KCF_COLUMN_HEADERS)

typedef struct KcfColumnOptions
{
	KcfColumnKind kind;
	char *
		json_path; /* KCF_COLUMN_JSON: never NULL (column name by default); KCF_COLUMN_KEY: NULL unless given */
} KcfColumnOptions;

/* One librdkafka property in the library's own spelling. */
typedef struct KcfProperty
{
	const char *name;
	const char *value;
	bool secret; /* never shown, never logged */
} KcfProperty;

/* What a client is built from: server options and user mapping, merged and re-checked. */
typedef struct KcfServerOptions
{
	char *server_name;
	List *
		properties; /* of KcfProperty *, bootstrap.servers among them, client.id and group.id expanded */
} KcfServerOptions;

/*
 * The option table: options of our own, then the librdkafka properties that may be set, named with underscores
 * for dots. Validator, resolver, hints and the check of the documentation all walk it.
 */
typedef struct KcfOption
{
	const char *name;
	Oid catalog; /* of the object that carries it: pg_foreign_server, pg_attribute, ... */
	KcfValueType type;
	bool required;
	bool secret;
	KcfPropertyRight right;
	const char *values; /* KCF_VALUE_ENUM: comma-separated, in the order of the C enum */
	int64 min;
	int64 max;
	const char *value;    /* where the user gives none, NULL: see doc */
	const char *alias_of; /* another spelling of this option */
	const char *property; /* librdkafka's name, NULL: none */
	bool newer;           /* the property is not in librdkafka 2.0.2 */
	int offset;           /* in KcfTableOptions, -1: not there */
	const char *doc;
} KcfOption;

extern const KcfOption *kcf_option_table(int *noptions);
extern const char *kcf_option_level(Oid catalog); /* "table", "server", ... */
/* What a value must be, for hints and documentation: "an integer between 1 and 7". */
extern char *kcf_option_expected(const KcfOption *option);
/* The value as we use it; ereports HV024 when it is not what the option expects. */
extern char *kcf_option_check_value(const KcfOption *option, const char *value);
extern bool kcf_option_topic_is_legal(const char *topic);
/* %{NAME} replaced; NULL with the name in *unset when one has no value. */
extern char *kcf_option_expand(const char *value, const char **unset);

/* Validate one object's options as the FDW's validator must: catalog is the OID of the catalog. */
extern void kcf_options_validate(List *options, Oid catalog);

/* Resolve; the catalogs' contents are checked again (ALTER OWNER, pg_restore). A property is passed on once. */
extern KcfTableOptions *kcf_options_table(Oid relid);
extern KcfColumnOptions *kcf_options_columns(Oid relid, int natts);
extern KcfServerOptions *kcf_options_server(Oid serverid, Oid userid);

#endif /* KCF_OPTIONS_H */
