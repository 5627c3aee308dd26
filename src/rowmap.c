/*
 * rowmap.c
 *		Record to row: the columns of a table from a record's value and what comes with it.
 *
 * The document is judged once, as json judges it; each mapped member is then taken as jsonb would
 * take it. So \u0000 in a member that nobody maps is nobody's business. NOT NULL and CHECK are
 * enforced here: the planner believes them, and a row that breaks them would make queries wrong.
 *
 * Every step notes which column it is at, so that an error raised in the server's functions can be
 * told as a fault of that column without a word of its message, which may quote the value.
 */
#include "postgres.h"

#include "rowmap_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "compat.h"
#include "common/int.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* ---- creation ---- */

const char *
kcf_rowmap_utf8(const char *path)
{
	return (const char *) pg_do_encoding_conversion((unsigned char *) path, strlen(path),
													GetDatabaseEncoding(), PG_UTF8);
}

KcfJsonPaths *
kcf_rowmap_paths(KcfJsonPath *paths, int npaths, KcfJsonSlice **slots)
{
	KcfJsonPaths *compiled;
	size_t size;

	for (int i = 0; i < npaths; i++)
		paths[i].text = kcf_rowmap_utf8(paths[i].text);
	size = kcf_json_paths_size(paths, npaths);
	if (size == 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("invalid or too deep path in option \"%s\"", "json"),
						errhint("A path has at most %d names.", KCF_JSON_MAX_NAMES)));
	compiled = kcf_json_paths_init(palloc(size), paths, npaths);
	*slots = palloc0(sizeof(KcfJsonSlice) * Max(kcf_json_paths_nslots(compiled), 1));
	return compiled;
}

static void
create_columns(KcfRowmap *map)
{
	KcfTableDef *def = map->def;
	TupleDesc desc = def->desc;
	KcfJsonPath *paths = palloc0(sizeof(KcfJsonPath) * desc->natts);
	int npaths = 0;

	map->columns = palloc0(sizeof(KcfColumn) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		const char *path = def->columns[i].json_path;
		KcfColumn *col = &map->columns[i];

		col->kind = attr->attisdropped ? KCF_COLUMN_DROPPED : def->columns[i].kind;
		col->not_null = attr->attnotnull && !attr->attisdropped;
		col->slot = -1;
		if (col->kind == KCF_COLUMN_DROPPED)
			continue;
		col->conv = kcf_converter_create(attr->atttypid, attr->atttypmod);
		if (col->kind == KCF_COLUMN_HEADERS)
			map->wants_headers = true;
		if (path != NULL)
		{
			paths[npaths].text = path;
			/* a column without options is the field of its name, whatever that name is */
			paths[npaths].plain = strcmp(path, NameStr(attr->attname)) == 0;
			col->slot = npaths++;
		}
	}
	for (int i = 0; i < def->key.nkeys; i++)
		map->columns[def->key.keys[i].attnum - 1].key = i;

	map->paths = kcf_rowmap_paths(paths, npaths, &map->slots);
	for (int i = 0; i < desc->natts; i++)
	{
		KcfColumn *col = &map->columns[i];

		if (col->slot < 0)
			continue;
		map->wants_object = true;
		col->tail = paths[col->slot].tail;
		col->slot = paths[col->slot].slot;
	}
}

/*
 * As the table's owner, in a security-restricted operation: preparing an expression may already run
 * functions of it, when their arguments are constants.
 */
static void
create_checks(KcfRowmap *map)
{
	TupleConstr *constr = map->def->desc->constr;
	EState *estate;
	Oid userid;
	int sec_context;
	int nestlevel;
	bool snapshot = !ActiveSnapshotSet();

	if (constr == NULL || constr->num_check == 0)
		return;
	/* such a function may contain queries */
	if (snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(map->def->owner, sec_context | SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	estate = CreateExecutorState();
	map->econtext = CreateExprContext(estate);
	map->slot = MakeSingleTupleTableSlot(map->def->desc, &TTSOpsVirtual);
	map->slot->tts_tableOid = map->def->relid;
	map->econtext->ecxt_scantuple = map->slot;
	map->checks = palloc0(sizeof(KcfCheck) * constr->num_check);
	for (int i = 0; i < constr->num_check; i++)
	{
		ConstrCheck *check = &constr->check[i];

		if (!kcf_check_is_enforced(check))
			continue;
		map->checks[map->nchecks].name = check->ccname;
		map->checks[map->nchecks].state =
			ExecPrepareExpr((Expr *) stringToNode(check->ccbin), estate);
		map->nchecks++;
	}
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	if (snapshot)
		PopActiveSnapshot();
}

KcfRowmap *
kcf_rowmap_create(KcfTableDef *def, MemoryContext mcxt)
{
	/* it goes where it belongs when it is complete, so that an error leaves nothing behind */
	MemoryContext own =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache rowmap", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	KcfRowmap *map = palloc0(sizeof(KcfRowmap));

	map->mcxt = own;
	map->def = def;
	create_columns(map);
	create_checks(map);
	kcf_rowmap_create_key(map);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(own, mcxt);
	return map;
}

bool
kcf_rowmap_wants_headers(const KcfRowmap *map)
{
	return map->wants_headers;
}

void
kcf_rowmap_free(KcfRowmap *map)
{
	MemoryContextDelete(map->mcxt);
}

/* ---- faults ---- */

KcfReason
kcf_rowmap_fault(KcfFault *fault, KcfReason reason, AttrNumber column, const char *format, ...)
{
	va_list args;

	fault->reason = reason;
	fault->column = column;
	va_start(args, format);
	vsnprintf(fault->message, sizeof(fault->message), format, args);
	va_end(args);
	return reason;
}

/* What the converters of a column's type found. */
KcfReason
kcf_rowmap_convert_fault(KcfFault *fault, KcfReason reason, AttrNumber column,
						 const KcfConverter *conv)
{
	switch (reason)
	{
		case KCF_REASON_ENCODING:
			return kcf_rowmap_fault(fault, reason, column,
									"a character cannot be stored in type %s",
									kcf_converter_type(conv));
		case KCF_REASON_RANGE:
			return kcf_rowmap_fault(fault, reason, column, "out of range for type %s",
									kcf_converter_type(conv));
		default:
			return kcf_rowmap_fault(fault, reason, column, "not valid as type %s",
									kcf_converter_type(conv));
	}
}

KcfReason
kcf_rowmap_json_fault(KcfFault *fault, KcfJsonStatus status, const KcfSlice *bytes, size_t at)
{
	const unsigned char *p = (const unsigned char *) bytes->data;

	if (bytes->len == 0)
		return kcf_rowmap_fault(fault, KCF_REASON_JSON, 0, "not valid JSON: nothing at all");
	if (p[0] == 0)
		return kcf_rowmap_fault(
			fault, KCF_REASON_JSON, 0,
			"not valid JSON: begins like a record framed for a schema registry");
	if (bytes->len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		return kcf_rowmap_fault(fault, KCF_REASON_JSON, 0,
								"not valid JSON: begins with a byte order mark");
	if (status == KCF_JSON_ENCODING)
		return kcf_rowmap_fault(fault, KCF_REASON_ENCODING, 0, "not valid UTF-8");
	if (status == KCF_JSON_DEEP)
		return kcf_rowmap_fault(fault, KCF_REASON_JSON, 0, "not valid JSON: nested too deeply");
	return kcf_rowmap_fault(fault, KCF_REASON_JSON, 0, "not valid JSON at byte %zu of %zu", at,
							bytes->len);
}

/* ---- what comes with a record ---- */

/* NULL where there is none, or where PostgreSQL has no such time: metadata must not spoil the row.
 */
bool
kcf_rowmap_time(int64 millis, Datum *value)
{
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	Timestamp t;

	if (millis == KCF_NO_TIMESTAMP || pg_mul_s64_overflow(millis, 1000, &t) ||
		pg_sub_s64_overflow(t, epoch, &t) || !IS_VALID_TIMESTAMP(t))
		return false;
	*value = TimestampTzGetDatum(t);
	return true;
}

/* Text where it is text, else \x and hexadecimal digits. */
static void
push_header_text(JsonbParseState **state, const KcfSlice *bytes)
{
	static const char hex[] = "0123456789abcdef";
	JsonbValue v;

	if (bytes->data == NULL)
	{
		v.type = jbvNull;
		pushJsonbValue(state, WJB_ELEM, &v);
		return;
	}
	v.type = jbvString;
	if (kcf_utf8_valid(bytes->data, bytes->len))
	{
		size_t len;

		v.val.string.val = (char *) kcf_server_text(bytes->data, bytes->len, &len);
		v.val.string.len = (int) len;
	}
	else
	{
		char *p = palloc(2 + 2 * bytes->len);

		v.val.string.val = p;
		v.val.string.len = (int) (2 + 2 * bytes->len);
		*p++ = '\\';
		*p++ = 'x';
		for (size_t i = 0; i < bytes->len; i++)
		{
			*p++ = hex[(unsigned char) bytes->data[i] >> 4];
			*p++ = hex[(unsigned char) bytes->data[i] & 15];
		}
	}
	pushJsonbValue(state, WJB_ELEM, &v);
}

static KcfReason
convert_headers(const KcfRecord *rec, AttrNumber column, Datum *value, KcfFault *fault)
{
	JsonbParseState *state = NULL;
	JsonbValue *result;
	size_t bytes = 0;

	for (int i = 0; i < rec->nheaders; i++)
		bytes += rec->headers[i].name.len + rec->headers[i].value.len;
	if (rec->nheaders > KCF_MAX_HEADERS || bytes > KCF_MAX_HEADER_BYTES)
		return kcf_rowmap_fault(fault, KCF_REASON_HEADERS, column,
								"%d headers of %zu bytes, %d and %d are the limits", rec->nheaders,
								bytes, KCF_MAX_HEADERS, KCF_MAX_HEADER_BYTES);

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < rec->nheaders; i++)
	{
		pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		push_header_text(&state, &rec->headers[i].name);
		push_header_text(&state, &rec->headers[i].value);
		pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	}
	result = pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	*value = PointerGetDatum(JsonbValueToJsonb(result));
	return KCF_OK;
}

/* ---- the value ---- */

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool
kcf_document_is_null(const KcfSlice *document)
{
	const char *p = document->data;
	const char *end = p + document->len;

	if (p == NULL)
		return false;
	while (p < end && is_space(*p))
		p++;
	while (p < end && is_space(end[-1]))
		end--;
	return end - p == 4 && memcmp(p, "null", 4) == 0;
}

/* The document, or whatever the format says the value is. */
static KcfReason
judge_value(KcfRowmap *map, const KcfRecord *rec, KcfJsonSlice *root, KcfFault *fault)
{
	KcfTableOptions *options = map->def->options;
	KcfJsonResult result;
	KcfJsonStatus status;

	if (options->max_record_bytes > 0 &&
		rec->key.len + rec->value.len > (uint64) options->max_record_bytes)
		return kcf_rowmap_fault(fault, KCF_REASON_TOO_LARGE, 0,
								"%zu bytes, the limit is " INT64_FORMAT,
								rec->key.len + rec->value.len, options->max_record_bytes);
	if (options->format != KCF_FORMAT_JSON)
	{
		if (options->format == KCF_FORMAT_TEXT && !kcf_utf8_valid(rec->value.data, rec->value.len))
			return kcf_rowmap_fault(fault, KCF_REASON_ENCODING, 0, "not valid UTF-8");
		return KCF_OK;
	}

	status = kcf_json_scan(map->paths, rec->value.data, rec->value.len, map->slots, &result);
	if (status != KCF_JSON_VALID)
		return kcf_rowmap_json_fault(fault, status, &rec->value, result.error_at);
	*root = result.root;
	if (unlikely(result.max_depth > KCF_JSON_SURELY_SHALLOW))
		DirectFunctionCall1(json_in, CStringGetDatum(pnstrdup(rec->value.data, rec->value.len)));
	if (map->wants_object && root->kind != KCF_JSON_OBJECT)
		return kcf_rowmap_fault(fault, KCF_REASON_JSON_SHAPE, 0, "the document is not an object");
	return KCF_OK;
}

/* The column that takes the whole of it. */
static KcfReason
convert_value(KcfRowmap *map, const KcfColumn *col, const KcfRecord *rec, const KcfJsonSlice *root,
			  Oid typid, Datum *value)
{
	const char *text;
	size_t len;

	if (typid == BYTEAOID)
	{
		*value = PointerGetDatum(cstring_to_text_with_len(rec->value.data, (int) rec->value.len));
		return KCF_OK;
	}
	if (map->def->options->format == KCF_FORMAT_JSON && typid == JSONBOID)
	{
		bool isnull;
		KcfJsonSlice whole = *root;

		/* the document null is a value, only a member null is NULL */
		if (whole.kind == KCF_JSON_NULL)
		{
			*value = DirectFunctionCall1(jsonb_in, CStringGetDatum("null"));
			return KCF_OK;
		}
		return kcf_convert_json(col->conv, &whole, NULL, value, &isnull);
	}
	text = kcf_server_text(rec->value.data, rec->value.len, &len);
	if (map->def->options->format == KCF_FORMAT_JSON)
	{
		/* text and json alike: as it is, for it has been judged */
		*value = PointerGetDatum(cstring_to_text_with_len(text, (int) len));
		return KCF_OK;
	}
	return kcf_convert_text(col->conv, text, len, value);
}

/* Is the key, repeated in the document, another one? */
static bool
key_differs(const KcfKeyColumn *key, Datum a, Datum b)
{
	switch (key->kind)
	{
		case KCF_KEY_BYVAL:
			return !datumIsEqual(a, b, true, key->typlen);
		case KCF_KEY_FIXED:
			return memcmp(DatumGetPointer(a), DatumGetPointer(b), key->typlen) != 0;
		case KCF_KEY_VARLENA:
			return VARSIZE_ANY_EXHDR(DatumGetPointer(a)) != VARSIZE_ANY_EXHDR(DatumGetPointer(b)) ||
				   memcmp(VARDATA_ANY(DatumGetPointer(a)), VARDATA_ANY(DatumGetPointer(b)),
						  VARSIZE_ANY_EXHDR(DatumGetPointer(a))) != 0;
		default:
			return !DatumGetBool(FunctionCall2Coll((FmgrInfo *) &key->equal, key->collation, a, b));
	}
}

/* The key column's value; where the document repeats it, the two must be the same. */
static KcfReason
convert_key_column(KcfRowmap *map, const KcfColumn *col, AttrNumber attnum,
				   const KcfDecodedKey *key, Datum *value, KcfFault *fault)
{
	Datum repeated;
	bool isnull;
	KcfReason reason;

	*value = key->values[col->key];
	/* a document without it, or with null, says nothing else */
	if (col->slot < 0 || map->slots[col->slot].kind <= KCF_JSON_NULL)
		return KCF_OK;
	reason = kcf_convert_json(col->conv, &map->slots[col->slot], col->tail, &repeated, &isnull);
	if (reason != KCF_OK)
		return kcf_rowmap_convert_fault(fault, reason, attnum, col->conv);
	if (key_differs(&map->def->key.keys[col->key], *value, repeated))
		return kcf_rowmap_fault(fault, KCF_REASON_KEY_MISMATCH, attnum,
								"the document has another key than the record");
	return KCF_OK;
}

static KcfReason
check_row(KcfRowmap *map, Datum *values, bool *isnull, KcfFault *fault)
{
	TupleTableSlot *slot = map->slot;

	ResetExprContext(map->econtext);
	ExecClearTuple(slot);
	slot->tts_values = values;
	slot->tts_isnull = isnull;
	ExecStoreVirtualTuple(slot);
	for (int i = 0; i < map->nchecks; i++)
	{
		map->check = map->checks[i].name;
		if (!ExecCheck(map->checks[i].state, map->econtext))
			return kcf_rowmap_fault(fault, KCF_REASON_CHECK, 0, "violates check constraint \"%s\"",
									map->check);
	}
	map->check = NULL;
	return KCF_OK;
}

KcfReason
kcf_rowmap_row(KcfRowmap *map, const KcfRecord *rec, const KcfDecodedKey *key, Datum *values,
			   bool *isnull, KcfFault *fault)
{
	TupleDesc desc = map->def->desc;
	KcfJsonSlice root;
	KcfReason reason;

	map->in_key = false;
	map->column = 0;
	map->check = NULL;
	reason = judge_value(map, rec, &root, fault);
	if (reason != KCF_OK)
		return reason;

	for (int i = 0; i < desc->natts; i++)
	{
		KcfColumn *col = &map->columns[i];

		map->column = i + 1;
		isnull[i] = false;
		switch (col->kind)
		{
			case KCF_COLUMN_JSON:
				reason = kcf_convert_json(col->conv, &map->slots[col->slot], col->tail, &values[i],
										  &isnull[i]);
				if (unlikely(reason != KCF_OK))
					return kcf_rowmap_convert_fault(fault, reason, i + 1, col->conv);
				break;
			case KCF_COLUMN_KEY:
				reason = convert_key_column(map, col, i + 1, key, &values[i], fault);
				if (unlikely(reason != KCF_OK))
					return reason;
				break;
			case KCF_COLUMN_VALUE:
				reason = convert_value(map, col, rec, &root, TupleDescAttr(desc, i)->atttypid,
									   &values[i]);
				if (unlikely(reason != KCF_OK))
					return kcf_rowmap_convert_fault(fault, reason, i + 1, col->conv);
				break;
			case KCF_COLUMN_PARTITION:
				isnull[i] = rec->partition < 0;
				values[i] = Int32GetDatum(rec->partition);
				break;
			case KCF_COLUMN_OFFSET:
				isnull[i] = rec->offset < 0;
				values[i] = Int64GetDatum(rec->offset);
				break;
			case KCF_COLUMN_TIMESTAMP:
				isnull[i] = !kcf_rowmap_time(rec->timestamp, &values[i]);
				break;
			case KCF_COLUMN_HEADERS:
				reason = convert_headers(rec, i + 1, &values[i], fault);
				if (unlikely(reason != KCF_OK))
					return reason;
				break;
			case KCF_COLUMN_DROPPED:
				isnull[i] = true;
				break;
		}
		if (isnull[i])
		{
			values[i] = (Datum) 0;
			/* a record that is not in the log yet lacks what the log gives it */
			if (unlikely(col->not_null) && !(rec->offset < 0 && kcf_column_is_metadata(col->kind)))
				return kcf_rowmap_fault(fault, KCF_REASON_NOT_NULL, i + 1,
										"null in a column that is NOT NULL");
		}
	}
	/* what is raised from now on is no column's fault */
	map->column = 0;
	return map->nchecks > 0 ? check_row(map, values, isnull, fault) : KCF_OK;
}

/* ---- what the server's functions raised ---- */

bool
kcf_rowmap_classify(KcfRowmap *map, const ErrorData *edata, KcfFault *fault)
{
	AttrNumber column = map->column;
	const char *sqlstate = unpack_sql_state(edata->sqlerrcode);
	KcfReason reason;
	const char *type = "";

	if (edata->elevel > ERROR)
		return false;
	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return false;
		default:
			break;
	}
	switch (edata->sqlerrcode)
	{
		case ERRCODE_DATA_CORRUPTED:
		case ERRCODE_INDEX_CORRUPTED:
			return false;
		case ERRCODE_STATEMENT_TOO_COMPLEX:
			/* of the stack: the document is nested too deeply; judged before any column */
			reason = column == 0 ? KCF_REASON_JSON : KCF_REASON_CONVERT;
			break;
		default:
			reason = kcf_reason_of_sqlstate(edata->sqlerrcode);
			break;
	}
	if (map->check != NULL)
		reason = KCF_REASON_CHECK;
	if (map->in_key && reason != KCF_REASON_ENCODING)
		reason = KCF_REASON_KEY;

	if (column > 0 && map->columns[column - 1].conv != NULL)
		type = kcf_converter_type(map->columns[column - 1].conv);
	if (map->check != NULL)
		kcf_rowmap_fault(fault, reason, 0,
						 "check constraint \"%s\" could not be evaluated (SQLSTATE %s)", map->check,
						 sqlstate);
	else if (reason == KCF_REASON_CHECK && edata->constraint_name != NULL &&
			 edata->datatype_name != NULL)
		kcf_rowmap_fault(fault, reason, column, "violates check constraint \"%s\" of domain %s",
						 edata->constraint_name, edata->datatype_name);
	else if (column == 0)
		kcf_rowmap_fault(fault, reason, 0, "could not be decoded (SQLSTATE %s)", sqlstate);
	else
		kcf_rowmap_fault(fault, reason, column, "not valid as type %s (SQLSTATE %s)", type,
						 sqlstate);
	return true;
}
