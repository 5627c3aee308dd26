/*
 * json_scan_test.c
 *		Vectors for the JSON scanner: what it accepts, what it finds, and that it stays inside the
 * document.
 *
 * Every document is put right before an unreadable page, so that a read beyond its end ends the
 * test.
 */
#include "cases.h"
#include "json_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int passed = 0;
static int failed = 0;

#define OK(cond, ...)                                                                              \
	do                                                                                             \
	{                                                                                              \
		if (cond)                                                                                  \
			passed++;                                                                              \
		else                                                                                       \
		{                                                                                          \
			failed++;                                                                              \
			printf("not ok, line %d: ", __LINE__);                                                 \
			printf(__VA_ARGS__);                                                                   \
			printf("\n");                                                                          \
		}                                                                                          \
	} while (0)

#define ROOM (4 << 20)
static char *room;

static const char *
guarded(const char *doc, size_t len)
{
	memcpy(room + ROOM - len, doc, len);
	return room + ROOM - len;
}

#define MAXPATHS 16

typedef struct Schema
{
	KcfJsonPath paths[MAXPATHS];
	int npaths;
	KcfJsonPaths *compiled;
	KcfJsonSlice slots[MAXPATHS];
	KcfJsonResult result;
} Schema;

/* Paths separated by blanks; one that begins with = is a plain name. */
static Schema *
schema(const char *paths)
{
	Schema *s = calloc(1, sizeof(Schema));
	char *copy = strdup(paths);

	for (char *p = strtok(copy, " "); p != NULL; p = strtok(NULL, " "))
	{
		s->paths[s->npaths].plain = *p == '=';
		s->paths[s->npaths++].text = p + (*p == '=');
	}
	s->compiled =
		kcf_json_paths_init(malloc(kcf_json_paths_size(s->paths, s->npaths)), s->paths, s->npaths);
	return s;
}

static KcfJsonStatus
scan(Schema *s, const char *doc, size_t len)
{
	return kcf_json_scan(s->compiled, guarded(doc, len), len, s->slots, &s->result);
}

/* What was found, as a string: "-" missing, else kind letter and text. */
static const char *
found(Schema *s, int path)
{
	static char buf[8][1024];
	static int turn = 0;
	KcfJsonSlice *slice = &s->slots[s->paths[path].slot];

	turn = (turn + 1) % 8;
	if (slice->kind == KCF_JSON_MISSING)
		return "-";
	snprintf(buf[turn], sizeof(buf[turn]), "%c%.*s", "-nft0s[{"[slice->kind], (int) slice -> len,
			 slice -> start);
	return buf[turn];
}

static void
verdict(KcfJsonStatus expected, const char *doc, size_t len)
{
	static Schema *none;
	static Schema *some;

	if (none == NULL)
	{
		none = schema("");
		some = schema("a b.c b.d.e a_name_longer_than_sixteen_bytes k1 k2 k3 k4 k5");
	}
	for (int i = 0; i < 2; i++)
	{
		KcfJsonStatus status = scan(i ? some : none, doc, len);

		OK(status == expected, "%.*s: %d instead of %d", (int) (len > 200 ? 200 : len), doc, status,
		   expected);
	}
}

/* The value alone, as a member, deep inside, followed and preceded by others, and with white space.
 */
static void
verdict_value(KcfJsonStatus expected, const char *value, size_t len)
{
	static const char *const frames[][2] = {
		{ "", "" },
		{ " \t\r\n", "\n " },
		{ "[", "]" },
		{ "[ 1,", " ]" },
		{ "{\"a\":", "}" },
		{ "{\"a\" : ", " }" },
		{ "{\"zz\":", "}" },
		{ "{\"b\":{\"c\":", "}}" },
		{ "{\"b\":{\"d\":{\"e\":1,\"x\":", "}}}" },
		{ "{\"zz\":[{\"q\":[", "]}], \"a\":1}" },
		{ "{\"a_name_longer_than_sixteen_bytes\":",
		  ",\"a\":\"some text that is longer than 16\"}" },
	};
	char doc[4096];

	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++)
	{
		size_t n = strlen(frames[i][0]);
		size_t m = strlen(frames[i][1]);

		if (n + len + m > sizeof(doc))
			continue;
		memcpy(doc, frames[i][0], n);
		memcpy(doc + n, value, len);
		memcpy(doc + n + len, frames[i][1], m);
		verdict(expected, doc, n + len + m);
	}
}

static void
test_values(void)
{
	/* clang-format off */
	static const char *const good[] = {
		"0", "-0", "1", "-1", "10", "0.0", "1.5", "1e5", "1E+5", "1.25e-10",
		"123456789012345678901234567890", "0e0", "-0.0E-0", "true", "false", "null", "\"\"",
		"\"a\"", "\"0123456789abcdef\"", "\"0123456789abcde\"", "\"\\\"\"", "\"\\\\\"",
		"\"\\/\\b\\f\\n\\r\\t\"", "\"\\u0041\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"",
		"\"\\uD83D\\uDE00x\"", "\"\xc3\xa9\"", "\"\xe2\x82\xac and more than sixteen bytes\"",
		"\"\xf0\x9f\x98\x80\"", "\"\x7f\"", "\"\xef\xbf\xbf\"", "\"\xf4\x8f\xbf\xbf\"",
		"\"\xed\x9f\xbf\"", "\"\xee\x80\x80\"", "\"\xc2\x80\"", "\"\xe0\xa0\x80\"",
		"\"\xf0\x90\x80\x80\"", "[]", "{}", "[ ]", "{ }", "[[],[]]", "{\"\":0}", "{\"a\":{}}",
		"[1,2,3]", "{\"x\":[{\"y\":[[],{}]}],\"x\":1}", "[\"}\",\"]\",\"{[\"]",
		"{\"a\":{\"a\":{\"a\":[]}}}", "\"\\\\\\\"\"", "\"\\u00e9\\uABCD\"", "1e400", "1e99999",
	};
	static const char *const bad[] = {
		"", " ", "-", "+1", "01", "-01", "1.", ".5", "1.e5", "1e", "1e+", "0x1", "1a", "1_", "NaN",
		"Infinity", "-Infinity", "tru", "truee", "True", "nul", "nullnull", "fals", "falsey",
		"TRUE", "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u\"", "\"\\u12\"", "\"\\u12g4\"",
		"\"\\ud800\"", "\"\\udc00\"", "\"\\ud800x\"", "\"\\ud800\\n\"", "\"\\ud800\\u0041\"",
		"\"\\ud800\\ud800\"", "\"\\udc00\\ud800\"", "\"\t\"", "\"\n\"", "\"\x1f\"", "\"\x01\"",
		"'a'", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[,]", "[1}", "{1}",
		"{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{\"a\":1,}", "{,}", "{\"a\":1 \"b\":2}", "{\"a\":1]",
		"{a:1}", "{'a':1}", "{\"a\"::1}", "{\"a\":1}}", "[]]", "[[]", "{}{}", "1 2", "\"a\"\"b\"",
		"[1]//c", "/* c */1", "#", "{true:1}", "{\"a\":tru}", "{\"a\":nul}", "{\"a\":f}", "[t]",
		"[-]", "{\"a\":-}", "[1e]", "[1.]", "{[}]", "[{]}", "{\"b\":{\"c\":1}",
		"{\"b\":{\"c\":1]}", "\f1", "\v", "1\f", "{\"a\":\"x\"y}", "\"\\\n\"", "undefined",
		"[0,\"\\\"]", "{\"a\":1;\"b\":2}", "{null:1}", "{\"a\":1,\"b\"}", "{\"a\":1,2}",
	};
	static const char *const not_utf8[] = {
		"\"\x80\"", "\"\xbf\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xc3\"", "\"\xc3(\"",
		"\"\xe2\x82\"", "\"\xe2(\x82\"", "\"\xe0\x80\x80\"", "\"\xe0\x9f\xbf\"",
		"\"\xed\xa0\x80\"", "\"\xed\xbf\xbf\"", "\"\xf0\x80\x80\x80\"", "\"\xf0\x8f\xbf\xbf\"",
		"\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xff\"", "\"\xfe\"", "\"\xf0\x9f\x98\"",
		"\"0123456789abcdef\xff\"", "\"\xc3\xa9\xff\"", "\xff", "1\xff", "{\"\xff\":1}", "\"\xff",
		"[\xff", "{\"a\":1,\"\xc3\":1}", "truX\xff",
	};
	/* clang-format on */

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		verdict_value(KCF_JSON_VALID, good[i], strlen(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		/* two of them would be good inside an array or object, so only alone */
		verdict(KCF_JSON_SYNTAX, bad[i], strlen(bad[i]));
		if (strcmp(bad[i], "]") != 0 && strcmp(bad[i], "") != 0 && strcmp(bad[i], " ") != 0 &&
			strcmp(bad[i], "1 2") != 0 && strcmp(bad[i], "}") != 0 && strcmp(bad[i], "[]]") != 0)
			verdict_value(KCF_JSON_SYNTAX, bad[i], strlen(bad[i]));
	}
	for (size_t i = 0; i < sizeof(not_utf8) / sizeof(not_utf8[0]); i++)
		verdict_value(KCF_JSON_ENCODING, not_utf8[i], strlen(not_utf8[i]));
	verdict_value(KCF_JSON_ENCODING, "\"a\0b\"", 5);
	verdict_value(KCF_JSON_ENCODING, "\0", 1);
	verdict_value(KCF_JSON_ENCODING, "1\0", 2);
	verdict(KCF_JSON_SYNTAX, "\xef\xbb\xbf{}", 5);
	verdict(KCF_JSON_SYNTAX, "\xef\xbb\xbf", 3);
}

/* A special byte at every place of strings of every length around the width of a vector. */
static void
test_positions(void)
{
	static const struct
	{
		const char *bytes;
		KcfJsonStatus status;
	} cases[] = {
		{ "\\n", KCF_JSON_VALID },   { "\\", KCF_JSON_SYNTAX },      { "\n", KCF_JSON_SYNTAX },
		{ "\x1f", KCF_JSON_SYNTAX }, { "\xc3\xa9", KCF_JSON_VALID }, { "\xe9", KCF_JSON_ENCODING },
		{ "\"", KCF_JSON_SYNTAX },   { " ", KCF_JSON_VALID },        { "\x7f", KCF_JSON_VALID },
	};

	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
		for (int len = 0; len < 40; len++)
			for (int at = 0; at <= len; at++)
			{
				char value[64] = "\"";
				size_t n = strlen(cases[c].bytes);
				KcfJsonStatus status = cases[c].status;

				/* a backslash escapes what follows: the closing quote, or an x */
				memset(value + 1, 'x', len);
				memcpy(value + 1 + at, cases[c].bytes, n);
				memset(value + 1 + at + n, 'x', len - at);
				value[1 + len + n] = '"';
				verdict_value(status, value, len + n + 2);
			}
}

static void
test_found(void)
{
	Schema *s = schema("a b.c b.d.e b tags groups[].id groups =x.y");
	const char *doc;

#define SCAN(text)                                                                                 \
	do                                                                                             \
	{                                                                                              \
		doc = (text);                                                                              \
		OK(scan(s, doc, strlen(doc)) == KCF_JSON_VALID, "%s", doc);                                \
	} while (0)
#define FOUND(path, text)                                                                          \
	OK(strcmp(found(s, path), text) == 0, "%s: %s instead of %s", doc, found(s, path), text)

	SCAN("{\"a\":1}");
	FOUND(0, "01");
	FOUND(1, "-");
	FOUND(3, "-");
	SCAN(" {  \"a\" : \"x\" , \"b\" : { \"c\" : true } } ");
	FOUND(0, "sx");
	FOUND(1, "ttrue");
	FOUND(2, "-");
	FOUND(3, "{{ \"c\" : true }");
	SCAN("{\"b\":{\"d\":{\"e\":[1, 2],\"f\":0},\"c\":null},\"tags\":[\"u\",\"v\"],\"a\":false}");
	FOUND(0, "ffalse");
	FOUND(1, "nnull");
	FOUND(2, "[[1, 2]");
	FOUND(3, "{{\"d\":{\"e\":[1, 2],\"f\":0},\"c\":null}");
	FOUND(4, "[[\"u\",\"v\"]");
	SCAN("{\"groups\":[{\"id\":1},{\"id\":2}]}");
	FOUND(5, "[[{\"id\":1},{\"id\":2}]");
	FOUND(6, "[[{\"id\":1},{\"id\":2}]");
	OK(s->paths[5].slot == s->paths[6].slot, "equal paths share a slot");
	OK(strcmp(s->paths[5].tail, "id") == 0 && s->paths[6].tail == NULL, "tail");
	SCAN("{\"x.y\":7,\"x\":{\"y\":8}}");
	FOUND(7, "07");

	/* duplicates: the last, with all its members */
	SCAN("{\"a\":1,\"a\":2}");
	FOUND(0, "02");
	SCAN("{\"b\":{\"c\":1,\"d\":{\"e\":2}},\"b\":{\"d\":{}}}");
	FOUND(1, "-");
	FOUND(2, "-");
	FOUND(3, "{{\"d\":{}}");
	SCAN("{\"b\":{\"c\":1},\"b\":5}");
	FOUND(1, "-");
	FOUND(3, "05");
	SCAN("{\"b\":5,\"b\":{\"c\":1}}");
	FOUND(1, "01");
	SCAN("{\"b\":{\"d\":{\"e\":2},\"d\":[]}}");
	FOUND(2, "-");

	/* names: escaped, prefixes, nested ones of the same name */
	SCAN("{\"\\u0061\":1,\"\\u0062\":{\"\\u0063\":2}}");
	FOUND(0, "01");
	FOUND(1, "02");
	SCAN("{\"aa\":1,\"\":2,\"A\":3,\"a "
		 "\":4,\"a\\u0000\":5,\"\\u0000\":6,\"zz\":{\"a\":7},\"t\":[{\"a\":8}]}");
	FOUND(0, "-");
	SCAN("{\"c\":1,\"b\":{\"a\":2,\"b\":{\"c\":3}}}");
	FOUND(0, "-");
	FOUND(1, "-");

	/* scalars and arrays where an object was expected */
	SCAN("[{\"a\":1}]");
	FOUND(0, "-");
	OK(s->result.root.kind == KCF_JSON_ARRAY, "root");
	SCAN(" \"abc\" ");
	OK(s->result.root.kind == KCF_JSON_STRING && s->result.root.len == 3, "root string");
	SCAN(" -12.5 ");
	OK(s->result.root.kind == KCF_JSON_NUMBER && s->result.root.len == 5 &&
		   s->result.root.flags == KCF_JSON_FRACTION,
	   "root number");
	SCAN("{\"b\":[{\"c\":1}]}");
	FOUND(1, "-");
	FOUND(3, "[[{\"c\":1}]");

	/* flags */
#define FLAGS(path) (s->slots[s->paths[path].slot].flags)
	SCAN("{\"zz\":\"\\n\",\"a\":\"x\",\"b\":{\"c\":\"\\u0000\"},\"tags\":[\"\xc3\xa9\",\"\\u00e9\"]"
		 "}");
	OK(FLAGS(0) == 0, "flags of a plain string: %d", FLAGS(0));
	OK(FLAGS(1) == (KCF_JSON_ESCAPED | KCF_JSON_NUL), "flags of NUL: %d", FLAGS(1));
	OK(FLAGS(3) == (KCF_JSON_ESCAPED | KCF_JSON_NUL), "flags of an object around it: %d", FLAGS(3));
	OK(FLAGS(4) == (KCF_JSON_ESCAPED | KCF_JSON_UNICODE | KCF_JSON_NONASCII),
	   "flags of an array: %d", FLAGS(4));
	OK(s->result.root.flags ==
		   (KCF_JSON_ESCAPED | KCF_JSON_UNICODE | KCF_JSON_NONASCII | KCF_JSON_NUL),
	   "flags of the document: %d", s->result.root.flags);
	SCAN("{\"a\":1.5e3,\"b\":{\"\\u0063\":12}}");
	OK(FLAGS(0) == (KCF_JSON_FRACTION | KCF_JSON_EXPONENT), "flags of a number");
	OK(FLAGS(1) == 0 && FLAGS(3) == KCF_JSON_ESCAPED, "flags of an escaped name");
}

/* The learned order must never matter: all orders of members, each after each. */
static void
test_order(void)
{
	Schema *s = schema("k0 k1 k2 k3 k4 a_name_of_fourteen a_name_of_14ch");
	static const char *const names[] = {
		"k0", "k1", "k2", "k3", "k4", "a_name_of_fourteen", "a_name_of_14ch", "u1", "u2"
	};
	unsigned int seed = 7;

	for (int round = 0; round < 5000; round++)
	{
		char text[1024] = "{";
		int last[9];
		int n = rand_r(&seed) % 12;

		for (int i = 0; i < 9; i++)
			last[i] = -1;
		for (int i = 0; i < n; i++)
		{
			int k = rand_r(&seed) % 9;

			sprintf(text + strlen(text), "%s\"%s\":%d", i ? "," : "", names[k], i);
			last[k] = i;
		}
		strcat(text, "}");
		OK(scan(s, text, strlen(text)) == KCF_JSON_VALID, "%s", text);
		for (int k = 0; k < 7; k++)
		{
			char expected[16] = "-";

			if (last[k] >= 0)
				sprintf(expected, "0%d", last[k]);
			OK(strcmp(found(s, k), expected) == 0, "%s: %s is %s", text, names[k], found(s, k));
		}
	}
}

static void
test_many_names(void)
{
	static char text[3000][12];
	static KcfJsonPath paths[3000];
	static KcfJsonSlice slots[3000];
	KcfJsonPaths *compiled;
	KcfJsonResult result;
	char *doc = malloc(100000);
	size_t n = 0;

	for (int i = 0; i < 3000; i++)
	{
		sprintf(text[i], "col%d", i);
		paths[i].text = text[i];
	}
	compiled = kcf_json_paths_init(malloc(kcf_json_paths_size(paths, 3000)), paths, 3000);
	doc[n++] = '{';
	for (int i = 2999; i >= 0; i--)
		n += sprintf(doc + n, "\"col%d\":%d%s", i, i, i ? "," : "}");
	OK(kcf_json_scan(compiled, guarded(doc, n), n, slots, &result) == KCF_JSON_VALID,
	   "3000 members");
	for (int i = 0; i < 3000; i++)
	{
		KcfJsonSlice *slice = &slots[paths[i].slot];

		OK(slice->kind == KCF_JSON_NUMBER && atoi(slice->start) == i, "member %d", i);
	}
	free(doc);
}

static void
test_paths(void)
{
	static const char *const bad[] = { "",   ".",    "a.",   ".a",   "a..b",  "a[",   "a]",
									   "[]", "[].a", "a[]b", "a[0]", "a[][]", "a.[]", "a[]." };
	static const char *const good[] = { "a",         "a.b",       "a[]", "a[].b",
										"a.b[].c.d", "a[].b[].c", "a b", "\xc3\xa9" };
	KcfJsonPath path = { 0 };
	char deep[128];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		path.text = bad[i];
		OK(kcf_json_paths_size(&path, 1) == 0, "malformed path %s", bad[i]);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
	{
		path.text = good[i];
		OK(kcf_json_paths_size(&path, 1) > 0, "path %s", good[i]);
	}
	for (int names = 1; names <= 40; names++)
	{
		for (int i = 0; i < names; i++)
			memcpy(deep + 2 * i, "a.", 2);
		deep[2 * names - 1] = '\0';
		path.text = deep;
		OK((kcf_json_paths_size(&path, 1) > 0) == (names <= KCF_JSON_MAX_NAMES), "%d names", names);
	}
}

static void
test_depth(void)
{
	char *doc = malloc(ROOM);
	Schema *s = schema("a b.c");
	static const int depths[] = { 1, 2, 63, 64, 65, 127, 128, 129, 1000, 4096, 65000 };

	for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++)
	{
		int d = depths[i];
		size_t n = 0;

		memset(doc, '[', d);
		memset(doc + d, ']', d);
		OK(scan(s, doc, 2 * d) == KCF_JSON_VALID, "depth %d", d);
		OK(s->result.max_depth == (uint32_t) d, "depth %d: %u", d, s->result.max_depth);
		OK(scan(s, doc, 2 * d - 1) == KCF_JSON_SYNTAX, "unclosed at depth %d", d);
		doc[2 * d] = ']';
		OK(scan(s, doc, 2 * d + 1) == KCF_JSON_SYNTAX, "closed twice at depth %d", d);

		/* alternating, so that the right bracket is asked for at every level */
		for (int k = 0; k < d; k++)
			n += sprintf(doc + n, k % 3 == 1 ? "[" : "{\"a\":");
		doc[n++] = '1';
		for (int k = d - 1; k >= 0; k--)
			doc[n++] = k % 3 == 1 ? ']' : '}';
		OK(scan(s, doc, n) == KCF_JSON_VALID, "mixed depth %d", d);
		for (int k = 0; k < d && k < 200; k++)
		{
			char *close = doc + n - 1 - k;

			*close ^= ']' ^ '}';
			OK(scan(s, doc, n) == KCF_JSON_SYNTAX, "wrong bracket at level %d of %d", k, d);
			*close ^= ']' ^ '}';
		}
	}
	memset(doc, '[', 200000);
	memset(doc + 200000, ']', 200000);
	OK(scan(s, doc, 400000) == KCF_JSON_DEEP, "too deep");
	free(doc);
}

/* Every prefix of a good document is bad, and is read no further than it goes. */
static void
test_prefixes(void)
{
	const char *doc = "{\"a\":\"x\\u00e9\\ud83d\\ude00\",\"b\":{\"c\":[true,false,null,-1.5e+10],"
					  "\"d\":{\"e\":\"\xf0\x9f\x98\x80\"}},"
					  "\"zz\":[{\"y\":\"a text of more than sixteen bytes\"}],\"k1\":\"\"}";

	verdict(KCF_JSON_VALID, doc, strlen(doc));
	for (size_t n = 0; n < strlen(doc); n++)
	{
		Schema *s = schema("a b.c b.d.e zz k1");

		OK(scan(s, doc, n) != KCF_JSON_VALID, "prefix of %zu", n);
	}
}

static void
test_walk(void)
{
	Schema *s = schema("a");
	const char *doc = "{\"a\":[ 1, \"x\\\"\" ,{\"k\":[2]}, [ ] ,null,true,false,-1.5e3],\"z\":0}";
	static const char *const expected[] = { "1",    "x\\\"", "{\"k\":[2]}", "[ ]",
											"null", "true",  "false",       "-1.5e3" };
	KcfJsonSlice t;
	KcfJsonSlice v;
	const char *p;
	const char *end;
	char buf[64];
	size_t n;

	OK(scan(s, doc, strlen(doc)) == KCF_JSON_VALID, "%s", doc);
	p = s->slots[0].start + 1;
	end = s->slots[0].start + s->slots[0].len;
	for (int i = 0; i < 8; i++)
	{
		kcf_json_next(&p, end, &t);
		if (t.kind == KCF_JSON_OBJECT || t.kind == KCF_JSON_ARRAY)
			kcf_json_skip(&p, end, &t);
		OK(t.len == strlen(expected[i]) && memcmp(t.start, expected[i], t.len) == 0,
		   "element %d: %.*s", i, (int) t.len, t.start);
	}
	kcf_json_next(&p, end, &t);
	OK(t.kind == KCF_JSON_END_ARRAY && p == end, "end of array");

	doc = "{\"a\":{\"b\":1,\"c\":{\"b\":2},\"b\":3,\"\\u00e9\\ud83d\\ude00\\n\":4}}";
	OK(scan(s, doc, strlen(doc)) == KCF_JSON_VALID, "%s", doc);
	OK(kcf_json_member(&s->slots[0], "b", 1, &v) && v.start[0] == '3', "last member");
	OK(kcf_json_member(&s->slots[0], "c", 1, &v) && v.kind == KCF_JSON_OBJECT && v.len == 7,
	   "object member");
	OK(!kcf_json_member(&s->slots[0], "d", 1, &v), "no member");
	OK(kcf_json_member(&s->slots[0], "\xc3\xa9\xf0\x9f\x98\x80\n", 7, &v) && v.start[0] == '4',
	   "escaped member");
	OK(!kcf_json_member(&s->slots[0], "\xc3\xa9\xf0\x9f\x98\x80", 6, &v),
	   "prefix of an escaped member");

	n = kcf_json_unescape("\\\"\\\\\\/\\b\\f\\n\\r\\tx\\u0041\\u00e9\\u20ac\\ud83d\\ude00", 47,
						  buf);
	OK(n == 19 && memcmp(buf, "\"\\/\b\f\n\r\txA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", n) == 0,
	   "unescape: %zu", n);
	OK(kcf_json_unescape("a\\u0000", 7, buf) == SIZE_MAX, "unescape NUL");
	OK(kcf_utf8_valid("", 0) && kcf_utf8_valid("abc\xc3\xa9", 5) && !kcf_utf8_valid("a\0b", 3) &&
		   !kcf_utf8_valid("0123456789abcdef\xc3", 17) &&
		   kcf_utf8_valid("0123456789abcdef\xc3\xa9", 18),
	   "utf8");
}

int
main(void)
{
	size_t page = 4096;

	room = mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (room == MAP_FAILED || mprotect(room + ROOM, page, PROT_NONE) != 0)
	{
		perror("mmap");
		return 1;
	}
	CASE(test_values(), failed);
	CASE(test_positions(), failed);
	CASE(test_found(), failed);
	CASE(test_order(), failed);
	CASE(test_many_names(), failed);
	CASE(test_paths(), failed);
	CASE(test_depth(), failed);
	CASE(test_prefixes(), failed);
	CASE(test_walk(), failed);
	return cases_report("json_scan", passed + failed);
}
