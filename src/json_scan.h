/*
 * json_scan.h
 *		A validating, single-pass JSON scanner that finds the members a table maps, and little else.
 *
 * Process:  any; knows nothing of the server, so that it is fuzzed and unit-tested alone.
 * Locks:    none.
 * Memory:   allocates nothing; slices point into the document.
 * Errors:   a status; never throws, never reads outside the document.
 * Waits:    never.
 */
#ifndef KCF_JSON_SCAN_H
#define KCF_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What is accepted is what PostgreSQL's json and jsonb accept: UTF-8 without NUL, JSON's grammar,
 * no lone surrogates. Two of jsonb's refusals concern a value and not the document, and are left to
 * whoever takes the value: \u0000 (flag KCF_JSON_NUL) and numbers beyond numeric's range.
 */
typedef enum KcfJsonStatus
{
	KCF_JSON_VALID = 0,
	KCF_JSON_SYNTAX,   /* not JSON */
	KCF_JSON_ENCODING, /* not UTF-8, or a NUL byte; judged before the syntax */
	KCF_JSON_DEEP      /* nested deeper than this scanner judges; not looked at further */
} KcfJsonStatus;

typedef enum KcfJsonKind
{
	KCF_JSON_MISSING = 0,
	KCF_JSON_NULL,
	KCF_JSON_FALSE,
	KCF_JSON_TRUE,
	KCF_JSON_NUMBER,
	KCF_JSON_STRING, /* the slice is what stands between the quotes */
	KCF_JSON_ARRAY,
	KCF_JSON_OBJECT,
	KCF_JSON_END_ARRAY, /* the last two only from kcf_json_next */
	KCF_JSON_END_OBJECT
} KcfJsonKind;

/* Of strings, and of containers for all strings in them, keys too. */
#define KCF_JSON_ESCAPED 0x01  /* has a backslash */
#define KCF_JSON_NUL 0x02      /* has a \u0000, which neither text nor jsonb can hold */
#define KCF_JSON_UNICODE 0x04  /* has a \u escape of a character beyond ASCII */
#define KCF_JSON_NONASCII 0x08 /* has bytes beyond ASCII */
/* Of numbers. */
#define KCF_JSON_FRACTION 0x10
#define KCF_JSON_EXPONENT 0x20

typedef struct KcfJsonSlice
{
	const char *start;
	uint32_t len;
	uint8_t kind; /* KcfJsonKind */
	uint8_t flags;
} KcfJsonSlice;

/* Deeper documents get KCF_JSON_DEEP. PostgreSQL's own parser gives up near 14,000 with its default
 * stack. */
#define KCF_JSON_MAX_DEPTH 65536
/* Members in members: how many names a path may have. */
#define KCF_JSON_MAX_NAMES 32

/* A path as the option json gives it (user.id, groups[].id), or one plain name where dots mean
 * nothing. */
typedef struct KcfJsonPath
{
	const char *text; /* UTF-8, NUL-terminated */
	bool plain;
	/* Output of kcf_json_paths_init. */
	int slot;         /* where a scan puts the value; equal paths share one */
	const char *tail; /* behind the first []: what to take of each element ("" for the element
						 itself), else NULL */
} KcfJsonPath;

typedef struct KcfJsonPaths KcfJsonPaths;

/* Bytes needed for the compiled paths, 0: a path is malformed (empty name, stray bracket, too
 * long). */
extern size_t kcf_json_paths_size(const KcfJsonPath *paths, int npaths);
/* Compiles into memory of that size, aligned as malloc does. */
extern KcfJsonPaths *kcf_json_paths_init(void *memory, KcfJsonPath *paths, int npaths);
extern int kcf_json_paths_nslots(const KcfJsonPaths *paths);

typedef struct KcfJsonResult
{
	KcfJsonSlice root; /* the document without the white space around it */
	size_t error_at;
	uint32_t max_depth; /* levels of containers, 0 for a scalar */
} KcfJsonResult;

/*
 * Judges the document and fills slots[kcf_json_paths_nslots()], KCF_JSON_MISSING where there is no
 * such member. Of duplicate members the last counts. paths is written to (it learns the order of
 * members), so it serves one thread.
 */
extern KcfJsonStatus kcf_json_scan(KcfJsonPaths *paths, const char *doc, size_t len,
								   KcfJsonSlice *slots, KcfJsonResult *result);

/*
 * Walking what was found: pos starts inside an array or object that kcf_json_scan has accepted, end
 * is its end.
 *
 * kcf_json_next reads one token (a scalar, a key, or the beginning or end of a container, of which
 * it takes only the bracket) and moves on, over white space, commas and colons too. kcf_json_skip,
 * after a token that began a container, moves behind it and completes the slice.
 */
extern void kcf_json_next(const char **pos, const char *end, KcfJsonSlice *token);
extern void kcf_json_skip(const char **pos, const char *end, KcfJsonSlice *token);
/* A member of an object, the last of that name; false when there is none. */
extern bool kcf_json_member(const KcfJsonSlice *object, const char *name, size_t len,
							KcfJsonSlice *value);

/* Resolves escapes into dst, which has room for len bytes. Returns the length, SIZE_MAX: there is a
 * \u0000. */
extern size_t kcf_json_unescape(const char *src, size_t len, char *dst);
/* Is it UTF-8 without NUL, as PostgreSQL judges it? */
extern bool kcf_utf8_valid(const char *s, size_t len);

#endif /* KCF_JSON_SCAN_H */
