/*
 * json_scan_fuzz.c
 *		libFuzzer target: the JSON scanner on arbitrary bytes, and the walk through what it accepts.
 *
 * The verdict must not depend on what is mapped, and what is accepted must be walked to its end
 * exactly.
 */
#include "json_scan.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(cond)                                                                              \
	do                                                                                             \
	{                                                                                              \
		if (!(cond))                                                                               \
			abort();                                                                               \
	} while (0)

static const char *const schemas[][8] = {
	{ NULL },
	{ "a", "b.c", "b.d.e", "b", "groups[].id", "tags", "id", NULL },
	{ "name", "a.a.a", "a.a", "a.b", "ts", "attrs", "qty", NULL },
};

static void
walk(const KcfJsonSlice *slice, const char *doc, size_t size)
{
	const char *p = slice->start + 1;
	const char *end = slice->start + slice->len;
	KcfJsonSlice token;
	long depth = 1;

	REQUIRE(slice->start >= doc && end <= doc + size);
	while (depth > 0)
	{
		REQUIRE(p < end);
		kcf_json_next(&p, end, &token);
		REQUIRE(token.start >= slice->start && token.start + token.len <= end && p <= end);
		if (token.kind == KCF_JSON_ARRAY || token.kind == KCF_JSON_OBJECT)
			depth++;
		else if (token.kind == KCF_JSON_END_ARRAY || token.kind == KCF_JSON_END_OBJECT)
			depth--;
		else if (token.kind == KCF_JSON_STRING)
		{
			/* as large as needed and no larger, for the sanitizer's sake */
			char *text = malloc(token.len + 1);
			size_t n = kcf_json_unescape(token.start, token.len, text);

			REQUIRE((n == SIZE_MAX) == ((token.flags & KCF_JSON_NUL) != 0));
			REQUIRE(n == SIZE_MAX || kcf_utf8_valid(text, n));
			free(text);
		}
	}
	REQUIRE(p == end);
	if (slice->kind == KCF_JSON_OBJECT)
	{
		kcf_json_member(slice, "id", 2, &token);
		kcf_json_member(slice, "\xc3\xa9\n", 3, &token);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static KcfJsonPaths *compiled[3];
	static KcfJsonPath paths[3][8];
	KcfJsonStatus verdict = KCF_JSON_VALID;

	for (int i = 0; i < 3; i++)
	{
		KcfJsonSlice slots[8];
		KcfJsonResult result;
		KcfJsonStatus status;

		if (compiled[i] == NULL)
		{
			int n = 0;

			for (; schemas[i][n] != NULL; n++)
				paths[i][n].text = schemas[i][n];
			compiled[i] =
				kcf_json_paths_init(malloc(kcf_json_paths_size(paths[i], n)), paths[i], n);
		}
		status = kcf_json_scan(compiled[i], (const char *) data, size, slots, &result);
		REQUIRE(i == 0 || status == verdict);
		verdict = status;
		REQUIRE(result.error_at <= size);
		if (status == KCF_JSON_ENCODING)
			REQUIRE(!kcf_utf8_valid((const char *) data, size));
		if (status != KCF_JSON_VALID)
			continue;
		REQUIRE(kcf_utf8_valid((const char *) data, size));
		if (result.root.kind == KCF_JSON_ARRAY || result.root.kind == KCF_JSON_OBJECT)
			walk(&result.root, (const char *) data, size);
		for (int k = 0; k < kcf_json_paths_nslots(compiled[i]); k++)
		{
			if (slots[k].kind == KCF_JSON_ARRAY || slots[k].kind == KCF_JSON_OBJECT)
				walk(&slots[k], (const char *) data, size);
		}
	}
	return 0;
}
