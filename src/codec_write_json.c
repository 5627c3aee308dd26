/*
 * codec_write_json.c
 *		Arrays, composite values, json and jsonb to JSON.
 *
 * Arrays and composites are written as jsonb_populate_record takes them. Some arrays it would not give back as they
 * were: those that do not begin at 1, and those of json whose first element is an array, which it would read as one
 * more dimension. These are refused.
 */
#include "postgres.h"

#include "codec_write_internal.h"

#include "compat.h"

#include "access/htup_details.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

/* ---- arrays ---- */

void
kcf_printer_create_array(KcfPrinter *printer)
{
	printer->element_type = get_element_type(printer->typid);
	printer->element = kcf_printer_create(printer->element_type);
	printer->element->nested = true;
	printer->json_settings = printer->element->json_settings;
	get_typlenbyvalalign(printer->element_type, &printer->typlen, &printer->typbyval,
						 &printer->typalign);
}

static void
print_dimension(KcfPrinter *printer, const ArrayType *array, int dim, Datum **elem, bool **isnull,
				StringInfo buf)
{
	int n = ARR_DIMS(array)[dim];

	appendStringInfoChar(buf, '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(buf, ',');
		if (dim + 1 < ARR_NDIM(array))
		{
			print_dimension(printer, array, dim + 1, elem, isnull, buf);
			continue;
		}
		if (**isnull)
			appendBinaryStringInfo(buf, "null", 4);
		else
			kcf_print_raw_json(printer->element, **elem, buf);
		(*elem)++;
		(*isnull)++;
	}
	appendStringInfoChar(buf, ']');
}

void
kcf_print_raw_array(KcfPrinter *printer, Datum value, StringInfo buf)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	int start = buf->len;
	int ndim = ARR_NDIM(array);
	Datum *elems;
	bool *nulls;
	int n;

	check_stack_depth();
	for (int i = 0; i < ndim; i++)
	{
		if (ARR_LBOUND(array)[i] != 1)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("an array that does not begin at 1 cannot be written as JSON"),
							errdetail("Dimension %d begins at %d.", i + 1, ARR_LBOUND(array)[i]),
							errhint("Take a slice of it: a[:] begins at 1.")));
	}
	if (ndim == 0)
	{
		appendBinaryStringInfo(buf, "[]", 2);
		return;
	}
	deconstruct_array(array, printer->element_type, printer->typlen, printer->typbyval,
					  printer->typalign, &elems, &nulls, &n);
	print_dimension(printer, array, 0, &elems, &nulls, buf);
	/* one bracket more than there are dimensions */
	if (buf->data[start + ndim] == '[')
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("an array whose first element is itself an array cannot be written as JSON"),
			 errdetail("It would be read as an array of %d dimensions.", ndim + 1),
			 errhint("Give the column type jsonb.")));
}

/* ---- composites ---- */

void
kcf_printer_create_composite(KcfPrinter *printer)
{
	TupleDesc desc = lookup_rowtype_tupdesc_copy(printer->typid, -1);
	StringInfoData name;

	printer->desc = desc;
	printer->members = palloc0(sizeof(KcfPrintMember) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		KcfPrintMember *member = &printer->members[i];

		if (attr->attisdropped)
			continue;
		initStringInfo(&name);
		kcf_print_utf8_string(NameStr(attr->attname), strlen(NameStr(attr->attname)), &name);
		appendStringInfoChar(&name, ':');
		member->name = name.data;
		member->name_len = name.len;
		member->printer = kcf_printer_create(attr->atttypid);
		member->printer->nested = true;
		printer->json_settings |= member->printer->json_settings;
	}
}

/* NULL attributes are left out, as NULL columns are. */
void
kcf_print_raw_composite(KcfPrinter *printer, Datum value, StringInfo buf)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(value);
	TupleDesc desc = printer->desc;
	HeapTupleData tuple;
	Datum *values = palloc(sizeof(Datum) * desc->natts + sizeof(bool) * desc->natts);
	bool *isnull = (bool *) (values + desc->natts);
	bool first = true;

	check_stack_depth();
	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, desc, values, isnull);
	appendStringInfoChar(buf, '{');
	for (int i = 0; i < desc->natts; i++)
	{
		KcfPrintMember *member = &printer->members[i];

		if (isnull[i] || member->printer == NULL)
			continue;
		if (!first)
			appendStringInfoCharMacro(buf, ',');
		first = false;
		appendBinaryStringInfo(buf, member->name, member->name_len);
		kcf_print_raw_json(member->printer, values[i], buf);
	}
	appendStringInfoChar(buf, '}');
	pfree(values);
}

/* ---- json and jsonb ---- */

pg_noreturn static void
refuse_null(void)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("JSON null cannot be told from NULL when it is read again"),
					errhint("Write NULL instead.")));
}

static void
print_jsonb_scalar(const JsonbValue *v, StringInfo buf)
{
	switch (v->type)
	{
		case jbvNull:
			appendBinaryStringInfo(buf, "null", 4);
			break;
		case jbvString:
			kcf_print_utf8_string(v->val.string.val, v->val.string.len, buf);
			break;
		case jbvNumeric:
			appendStringInfoString(buf, DatumGetCString(DirectFunctionCall1(
											numeric_out, NumericGetDatum(v->val.numeric))));
			break;
		case jbvBool:
			if (v->val.boolean)
				appendBinaryStringInfo(buf, "true", 4);
			else
				appendBinaryStringInfo(buf, "false", 5);
			break;
		default:
			elog(ERROR, "unrecognized jsonb value type: %d", (int) v->type);
	}
}

/* As jsonb_out, without the spaces. */
void
kcf_print_raw_jsonb(Datum value, bool member, StringInfo buf)
{
	Jsonb *jb = DatumGetJsonbP(value);
	bool scalar = JB_ROOT_IS_SCALAR(jb);
	JsonbIterator *it = JsonbIteratorInit(&jb->root);
	JsonbIteratorToken token;
	JsonbValue v;
	bool first = true;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
			case WJB_BEGIN_OBJECT:
				if (!first)
					appendStringInfoCharMacro(buf, ',');
				first = true;
				if (!scalar)
					appendStringInfoChar(buf, token == WJB_BEGIN_ARRAY ? '[' : '{');
				break;
			case WJB_END_ARRAY:
			case WJB_END_OBJECT:
				first = false;
				if (!scalar)
					appendStringInfoChar(buf, token == WJB_END_ARRAY ? ']' : '}');
				break;
			case WJB_KEY:
				if (!first)
					appendStringInfoCharMacro(buf, ',');
				print_jsonb_scalar(&v, buf);
				appendStringInfoCharMacro(buf, ':');
				/* its value follows without a comma */
				first = true;
				break;
			case WJB_ELEM:
			case WJB_VALUE:
				if (!first)
					appendStringInfoCharMacro(buf, ',');
				first = false;
				if (scalar && member && v.type == jbvNull)
					refuse_null();
				print_jsonb_scalar(&v, buf);
				break;
			default:
				elog(ERROR, "unrecognized jsonb iterator token: %d", (int) token);
		}
	}
}

/*
 * A json value is text that json_in has accepted; what reads it again wants more of it (surrogates in pairs), so it is
 * scanned.
 */
void
kcf_print_raw_source(Datum value, bool nested, StringInfo buf)
{
	text *t = DatumGetTextPP(value);
	const char *p = VARDATA_ANY(t);
	int len = VARSIZE_ANY_EXHDR(t);
	const char *utf8;

	while (len > 0 && strchr(" \t\r\n", p[0]) != NULL)
		p++, len--;
	while (len > 0 && strchr(" \t\r\n", p[len - 1]) != NULL)
		len--;
	utf8 = pg_server_to_any(p, len, PG_UTF8);
	kcf_json_judge(utf8, utf8 == p ? (size_t) len : strlen(utf8), NULL);
	if (len == 4 && memcmp(p, "null", 4) == 0)
		refuse_null();
	/* jsonb does not take all of json's escapes and numbers */
	if (nested)
		DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(p, len)));
	appendBinaryStringInfo(buf, p, len);
}

void
kcf_json_judge(const char *utf8, size_t len, KcfJsonSlice *root)
{
	static char memory[1024];
	static KcfJsonPaths *none = NULL;
	KcfJsonSlice slot;
	KcfJsonResult result;
	KcfJsonStatus status;

	if (none == NULL)
	{
		if (kcf_json_paths_size(NULL, 0) > sizeof(memory))
			elog(ERROR, "no room for empty paths");
		none = kcf_json_paths_init(memory, NULL, 0);
	}
	status = kcf_json_scan(none, utf8, len, &slot, &result);
	if (status == KCF_JSON_ENCODING)
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
						errmsg("a document is not valid UTF-8")));
	if (status == KCF_JSON_DEEP)
		ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
						errmsg("a document is nested too deeply")));
	if (status != KCF_JSON_VALID)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
						errmsg("a document is not valid JSON"),
						errdetail("The fault is at byte %zu of %zu.", result.error_at, len)));
	/* only for its opinion of the depth */
	if (unlikely(result.max_depth > KCF_JSON_SURELY_SHALLOW))
	{
		char *text = pg_any_to_server(pnstrdup(utf8, len), (int) len, PG_UTF8);

		DirectFunctionCall1(json_in, CStringGetDatum(text));
	}
	if (root != NULL)
		*root = result.root;
}
