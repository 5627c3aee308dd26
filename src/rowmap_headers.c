/*
 * rowmap_headers.c
 *		A record's headers from the headers column: [["name", "text"], ["other", null]].
 *
 * The inverse of how they are shown. Bytes that are not UTF-8 are shown as \x and hexadecimal digits; so a string of
 * that form stands for bytes, if they are such as would be shown so. Any other is the text that it is, \x41 for
 * example: only text that looks like bytes that are no text cannot be told from these.
 */
#include "postgres.h"

#include "rowmap_write_internal.h"

#include "compat.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

pg_noreturn static void
refuse(const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("headers are not an array of names and values"),
					errdetail_internal("%s", detail),
					errhint("Write them as [[\"name\", \"text\"], [\"other\", null]].")));
}

static int
small_hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static KcfSlice
header_bytes(const JsonbValue *v)
{
	const char *text = v->val.string.val;
	int len = v->val.string.len;
	KcfSlice result;

	if (len > 2 && len % 2 == 0 && text[0] == '\\' && text[1] == 'x')
	{
		char *bytes = palloc(len / 2);
		int n = 0;

		for (int i = 2; i < len; i += 2)
		{
			int high = small_hex(text[i]);
			int low = small_hex(text[i + 1]);

			if (high < 0 || low < 0)
				break;
			bytes[n++] = (char) (high << 4 | low);
		}
		if (n == len / 2 - 1 && !kcf_utf8_valid(bytes, n))
		{
			result.data = bytes;
			result.len = n;
			return result;
		}
		pfree(bytes);
	}
	/* a copy: what it points into may be a copy that goes, and an empty text is not null */
	text = pnstrdup(text, len);
	result.data = pg_server_to_any(text, len, PG_UTF8);
	result.len = result.data == text ? (size_t) len : strlen(result.data);
	return result;
}

void
kcf_headers_write(Datum headers, KcfRecord *rec)
{
	Jsonb *jb = DatumGetJsonbP(headers);
	int n = JB_ROOT_COUNT(jb);
	KcfHeader *result;
	size_t bytes = 0;

	if (!JB_ROOT_IS_ARRAY(jb) || JB_ROOT_IS_SCALAR(jb))
		refuse("They are not an array.");
	result = palloc0(sizeof(KcfHeader) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *pair = getIthJsonbValueFromContainer(&jb->root, i);
		JsonbValue *name;
		JsonbValue *value;

		if (pair->type != jbvBinary || !JsonContainerIsArray(pair->val.binary.data) ||
			JsonContainerSize(pair->val.binary.data) != 2)
			refuse("An element is not an array of two.");
		name = getIthJsonbValueFromContainer(pair->val.binary.data, 0);
		value = getIthJsonbValueFromContainer(pair->val.binary.data, 1);
		if (name->type != jbvString)
			refuse("A name is not a string.");
		if (value->type != jbvString && value->type != jbvNull)
			refuse("A value is neither a string nor null.");
		result[i].name = header_bytes(name);
		if (value->type == jbvString)
			result[i].value = header_bytes(value);
		bytes += result[i].name.len + result[i].value.len;
	}
	if (n > KCF_MAX_HEADERS || bytes > KCF_MAX_HEADER_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%d headers of %zu bytes are too many", n, bytes),
				 errdetail("%d and %d are the limits.", KCF_MAX_HEADERS, KCF_MAX_HEADER_BYTES)));
	rec->headers = result;
	rec->nheaders = n;
}
