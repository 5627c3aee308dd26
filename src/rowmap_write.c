/*
 * rowmap_write.c
 *		Row to record: what rowmap.c would take for this row, written.
 *
 * The document has a member for each mapped column that is not NULL. Where the value column is given it is the
 * document, and the other columns override its members. What is not in the document goes where it belongs: key,
 * partition, time and headers.
 */
#include "postgres.h"

#include "rowmap_write_internal.h"

#include "compat.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A buffer that one large row has made larger than this does not stay so. */
#define KEPT_BYTES (1024 * 1024)

/* ---- creation ---- */

static void
add_member(KcfRowWriter *writer, int column, const char *path)
{
	Form_pg_attribute attr = TupleDescAttr(writer->def->desc, column);
	KcfMemberColumn *member = &writer->columns[writer->ncolumns++];

	member->column = column;
	member->printer = kcf_printer_create(attr->atttypid);
	/* a column without options is the field of its name, whatever that name is */
	kcf_member_add(&writer->root, member, path, strcmp(path, NameStr(attr->attname)) == 0);
	if (member->split != NULL)
		initStringInfo(&member->text);
	writer->value_settings |= kcf_printer_settings(member->printer, true);
}

static void
create_columns(KcfRowWriter *writer)
{
	KcfTableDef *def = writer->def;
	KcfMetaColumns *meta = &writer->meta;

	meta->value = meta->partition = meta->offset = meta->timestamp = meta->headers = -1;
	writer->columns = palloc0(sizeof(KcfMemberColumn) * def->desc->natts);
	writer->changes = palloc(sizeof(bool) * def->desc->natts);
	for (int i = 0; i < def->desc->natts; i++)
	{
		KcfColumnKind kind = def->columns[i].kind;

		if (TupleDescAttr(def->desc, i)->attisdropped)
			kind = KCF_COLUMN_DROPPED;
		switch (kind)
		{
			case KCF_COLUMN_JSON:
			case KCF_COLUMN_KEY:
				if (def->columns[i].json_path != NULL)
					add_member(writer, i, def->columns[i].json_path);
				break;
			case KCF_COLUMN_VALUE:
				meta->value = i;
				writer->value_printer = kcf_printer_create(TupleDescAttr(def->desc, i)->atttypid);
				break;
			case KCF_COLUMN_PARTITION:
				meta->partition = i;
				break;
			case KCF_COLUMN_OFFSET:
				meta->offset = i;
				break;
			case KCF_COLUMN_TIMESTAMP:
				meta->timestamp = i;
				break;
			case KCF_COLUMN_HEADERS:
				meta->headers = i;
				break;
			case KCF_COLUMN_DROPPED:
				break;
		}
	}
	kcf_member_sort(&writer->root);
	writer->flat = true;
	for (int i = 0; i < writer->root.nchildren; i++)
	{
		KcfMember *child = writer->root.children[i];

		writer->flat &= child->ncolumns == 1 && child->nchildren == 0 && child->element == NULL &&
						!child->columns[0]->is_array;
	}
}

KcfRowWriter *
kcf_row_writer_create(KcfTableDef *def, MemoryContext mcxt)
{
	MemoryContext own =
		AllocSetContextCreate(mcxt, "kafka_cache row writer", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	KcfRowWriter *writer = palloc0(sizeof(KcfRowWriter));

	writer->mcxt = own;
	writer->def = def;
	writer->column = -1;
	create_columns(writer);
	writer->keys = kcf_key_writers_create(def);
	for (int i = 0; i < def->key.nkeys; i++)
		writer->key_settings |= kcf_printer_settings(writer->keys[i].printer,
													 def->options->key_format == KCF_FORMAT_JSON);
	initStringInfo(&writer->key);
	initStringInfo(&writer->value);
	MemoryContextSwitchTo(old);
	return writer;
}

/* ---- which column it is about ---- */

static const char *
column_name(const KcfRowWriter *writer, int column)
{
	return NameStr(TupleDescAttr(writer->def->desc, column)->attname);
}

static void
tell_column(void *arg)
{
	const KcfRowWriter *writer = arg;

	if (writer->column >= 0)
		errcontext("column \"%s\" of foreign table %s", column_name(writer, writer->column),
				   writer->def->name);
}

/* The state of a call: a row, and how to undo what was set for it. */
typedef struct Call
{
	ErrorContextCallback context;
	int level;
} Call;

static inline void
begin(KcfRowWriter *writer, Call *call, const Datum *values, const bool *isnull, int settings)
{
	writer->values = values;
	writer->isnull = isnull;
	writer->changed = NULL;
	writer->new_document = false;
	writer->column = -1;
	call->context.callback = tell_column;
	call->context.arg = writer;
	call->context.previous = error_context_stack;
	error_context_stack = &call->context;
	call->level = kcf_settings_fix(settings);
}

static inline void
end(Call *call)
{
	kcf_settings_restore(call->level);
	error_context_stack = call->context.previous;
}

static inline StringInfo
emptied(KcfRowWriter *writer, StringInfo buf)
{
	if (unlikely(buf->maxlen > KEPT_BYTES))
	{
		MemoryContext old = MemoryContextSwitchTo(writer->mcxt);

		pfree(buf->data);
		initStringInfo(buf);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(buf);
	return buf;
}

static inline KcfSlice
slice_of(StringInfo buf)
{
	return (KcfSlice){ buf->data, buf->len };
}

/* ---- the key ---- */

#define WITHOUT_VALUE "It is the record's value, and a record without a value is a deletion."

pg_noreturn static void
refuse_null(const KcfRowWriter *writer, int column, const char *detail)
{
	Oid relid = writer->def->relid;
	char *relation = get_rel_name(relid);

	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null "
					"constraint",
					column_name(writer, column), relation),
			 errdetail_internal("%s", detail),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(relid))),
			 err_generic_string(PG_DIAG_TABLE_NAME, relation),
			 err_generic_string(PG_DIAG_COLUMN_NAME, column_name(writer, column))));
}

static void
write_key(KcfRowWriter *writer, KcfSlice *key)
{
	const KcfKeyType *type = &writer->def->key;
	StringInfo buf = emptied(writer, &writer->key);
	Datum keys[KCF_MAX_KEYS];

	for (int i = 0; i < type->nkeys; i++)
	{
		int column = type->keys[i].attnum - 1;

		if (unlikely(writer->isnull[column]))
			refuse_null(writer, column, "It is the record's key, or a part of it.");
		keys[i] = writer->values[column];
	}
	writer->column = type->keys[0].attnum - 1;
	kcf_key_print(writer->def, writer->keys, keys, buf);
	writer->column = -1;
	*key = slice_of(buf);
}

void
kcf_row_write_key(KcfRowWriter *writer, const Datum *values, const bool *isnull, KcfSlice *key)
{
	Call call;

	begin(writer, &call, values, isnull, writer->key_settings);
	write_key(writer, key);
	end(&call);
}

uint64
kcf_row_key_hash(KcfRowWriter *writer, const Datum *values)
{
	return kcf_key_hash(&writer->def->key, values);
}

/* ---- what comes with the value ---- */

/* Milliseconds since 1970. Kafka knows none before, and 0 would stand for now. */
static int64
record_time(KcfRowWriter *writer, TimestampTz t)
{
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;
	int64 millis = t / 1000;

	if (TIMESTAMP_NOT_FINITE(t))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("infinity cannot be a record's time"),
						errhint("Leave column \"%s\" NULL for the time of writing.",
								column_name(writer, writer->meta.timestamp))));
	if (t % 1000 < 0)
		millis--;
	millis += epoch;
	if (millis <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a record's time cannot be before 1970"),
						errhint("Leave column \"%s\" NULL for the time of writing.",
								column_name(writer, writer->meta.timestamp))));
	return millis;
}

/* A column that is given, and (in an update) changed. */
static inline bool
is_given(const KcfRowWriter *writer, int column)
{
	return column >= 0 && !writer->isnull[column] &&
		   (writer->changed == NULL || writer->changed[column]);
}

static void
write_metadata(KcfRowWriter *writer, KcfRecord *rec)
{
	const KcfMetaColumns *meta = &writer->meta;

	rec->offset = -1;
	rec->timestamp = KCF_NO_TIMESTAMP;
	rec->partition = -1;
	rec->nheaders = 0;
	rec->headers = NULL;
	if (is_given(writer, meta->offset))
		ereport(ERROR, (errcode(ERRCODE_GENERATED_ALWAYS),
						errmsg("cannot write to column \"%s\"", column_name(writer, meta->offset)),
						errdetail("A record's offset is given by the broker."),
						errhint("Leave the column out.")));
	if (is_given(writer, meta->timestamp))
		rec->timestamp = record_time(writer, DatumGetTimestampTz(writer->values[meta->timestamp]));
	if (is_given(writer, meta->partition))
	{
		rec->partition = DatumGetInt32(writer->values[meta->partition]);
		if (rec->partition < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a record's partition cannot be negative"),
					 errhint("Leave column \"%s\" NULL for the one that the key's hash says.",
							 column_name(writer, meta->partition))));
	}
	/* an update carries them over */
	if (meta->headers >= 0 && !writer->isnull[meta->headers])
	{
		writer->column = meta->headers;
		kcf_headers_write(writer->values[meta->headers], rec);
		writer->column = -1;
	}
}

/* ---- the value ---- */

/* The value column's bytes, in CurrentMemoryContext or where the value is. */
static KcfSlice
value_bytes(KcfRowWriter *writer)
{
	Datum value = writer->values[writer->meta.value];
	Oid typid = TupleDescAttr(writer->def->desc, writer->meta.value)->atttypid;
	StringInfoData buf;
	KcfSlice result;
	struct varlena *bytes;

	if (writer->def->options->format == KCF_FORMAT_JSON && typid == JSONBOID)
	{
		initStringInfo(&buf);
		kcf_print_document(value, &buf);
		return slice_of(&buf);
	}
	if (typid == JSONBOID)
	{
		initStringInfo(&buf);
		kcf_print_text(writer->value_printer, value, &buf);
		return slice_of(&buf);
	}
	bytes = PG_DETOAST_DATUM_PACKED(value);
	result.data = VARDATA_ANY(bytes);
	result.len = VARSIZE_ANY_EXHDR(bytes);
	if (typid != BYTEAOID && GetDatabaseEncoding() != PG_UTF8 && result.len > 0)
	{
		char *utf8 = pg_server_to_any(result.data, (int) result.len, PG_UTF8);

		if (utf8 != result.data)
		{
			result.data = utf8;
			result.len = strlen(utf8);
		}
	}
	return result;
}

/* Is it a document that our table takes? */
static void
judge_document(KcfRowWriter *writer, const KcfSlice *document, KcfJsonSlice *root)
{
	writer->column = writer->meta.value;
	kcf_json_judge(document->data, document->len, root);
	if (writer->ncolumns > 0 && root->kind != KCF_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the document is not a JSON object"),
				 errdetail("Columns of foreign table %s are members of it.", writer->def->name)));
	writer->column = -1;
}

/* The members of a table where each column is one: nothing to look up. */
static void
write_flat(KcfRowWriter *writer, StringInfo out)
{
	const KcfMember *root = &writer->root;
	int comma = 1;

	appendStringInfoCharMacro(out, '{');
	for (int i = 0; i < root->nchildren; i++)
	{
		const KcfMember *child = root->children[i];
		int column = child->columns[0]->column;
		int len;

		if (writer->isnull[column])
			continue;
		len = child->quoted_len - comma;
		memcpy(kcf_reserve(out, len), child->quoted + comma, len);
		out->len += len;
		comma = 0;
		writer->column = column;
		kcf_print_json(child->columns[0]->printer, writer->values[column], out);
	}
	writer->column = -1;
	appendStringInfoCharMacro(out, '}');
	out->data[out->len] = '\0';
}

static void
write_value(KcfRowWriter *writer, KcfSlice *value)
{
	bool given = writer->meta.value >= 0 && !writer->isnull[writer->meta.value];
	StringInfo out = emptied(writer, &writer->value);
	KcfJsonSlice root;
	bool first = true;

	if (writer->meta.value >= 0 && !given &&
		(writer->def->options->format != KCF_FORMAT_JSON || writer->ncolumns == 0))
		refuse_null(writer, writer->meta.value, WITHOUT_VALUE);
	if (given)
	{
		*value = value_bytes(writer);
		if (writer->def->options->format != KCF_FORMAT_JSON)
			return;
		judge_document(writer, value, &root);
		if (writer->ncolumns == 0)
			return;
		kcf_member_mark(writer);
		if (!kcf_children_change(writer, &writer->root))
			return;
		kcf_splice(writer, &writer->root, &root, out);
	}
	else if (writer->flat)
		write_flat(writer, out);
	else
	{
		kcf_member_mark(writer);
		appendStringInfoChar(out, '{');
		kcf_member_write_children(writer, &writer->root, &first, out);
		appendStringInfoChar(out, '}');
	}
	*value = slice_of(out);
}

void
kcf_row_write(KcfRowWriter *writer, const Datum *values, const bool *isnull, KcfRecord *rec)
{
	Call call;

	begin(writer, &call, values, isnull, writer->key_settings | writer->value_settings);
	write_key(writer, &rec->key);
	write_metadata(writer, rec);
	write_value(writer, &rec->value);
	end(&call);
}

/* ---- a row that replaces another ---- */

bool
kcf_row_document(KcfRowWriter *writer, const Datum *values, const bool *isnull, KcfSlice *document)
{
	Call call;

	if (writer->meta.value < 0 || isnull[writer->meta.value])
		return false;
	begin(writer, &call, values, isnull, 0);
	writer->column = writer->meta.value;
	*document = value_bytes(writer);
	writer->column = -1;
	end(&call);
	return true;
}

void
kcf_row_rewrite(KcfRowWriter *writer, const KcfSlice *document, const Datum *values,
				const bool *isnull, const Bitmapset *changed, KcfRecord *rec)
{
	Call call;
	KcfJsonSlice root;
	int natts = writer->def->desc->natts;

	begin(writer, &call, values, isnull, writer->value_settings);
	for (int i = 0; i < natts; i++)
		writer->changes[i] = bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, changed);
	writer->changed = writer->changes;
	write_metadata(writer, rec);
	if (writer->meta.value >= 0 && writer->changes[writer->meta.value])
	{
		writer->new_document = true;
		/* which may have another key in it, or none */
		for (int i = 0; i < writer->def->key.nkeys; i++)
			writer->changes[writer->def->key.keys[i].attnum - 1] = true;
	}
	if (document->data == NULL)
		refuse_null(writer, writer->meta.value, WITHOUT_VALUE);
	rec->value = *document;
	if (writer->def->options->format == KCF_FORMAT_JSON)
	{
		StringInfo out = emptied(writer, &writer->value);

		judge_document(writer, document, &root);
		kcf_member_mark(writer);
		if (kcf_children_change(writer, &writer->root))
		{
			kcf_splice(writer, &writer->root, &root, out);
			rec->value = slice_of(out);
		}
	}
	end(&call);
}
