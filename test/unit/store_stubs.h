/*
 * store_stubs.h
 *		What the store needs of the server and of the arena, for programs without a server.
 *
 * Include it in one file. The table is (key text, value bigint, filler text); tuples are formed
 * as the server forms them. Where memory comes from is up to the program: it defines
 * kcf_arena_alloc and kcf_arena_free.
 */
#include "postgres.h"

#include "store_internal.h"

#undef printf
#undef fprintf
#undef snprintf
#undef sprintf
#undef qsort
#undef vprintf
#include <stdio.h>
#include <stdlib.h>

#define NATTS 3

MemoryContext CurrentMemoryContext = NULL;

void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return calloc(1, size);
}

void
pfree(void *pointer)
{
	free(pointer);
}

void
ExceptionalCondition(const char *condition,
#if PG_VERSION_NUM < 160000
					 const char *type,
#endif
					 const char *file, int line)
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}

/* ---- tuples: attribute 2 is 8 bytes by value, the others varlena ---- */

static Size
stub_varlena(Size offset, Datum value, char *to)
{
	const char *v = DatumGetPointer(value);
	Size len = VARSIZE_ANY_EXHDR(v);

	if (len + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		if (to)
		{
			SET_VARSIZE_SHORT(to + offset, len + VARHDRSZ_SHORT);
			memcpy(to + offset + VARHDRSZ_SHORT, VARDATA_ANY(v), len);
		}
		return offset + VARHDRSZ_SHORT + len;
	}
	offset = INTALIGN(offset);
	if (to)
	{
		SET_VARSIZE(to + offset, len + VARHDRSZ);
		memcpy(to + offset + VARHDRSZ, VARDATA_ANY(v), len);
	}
	return offset + VARHDRSZ + len;
}

static Size
stub_form(Datum *values, bool *isnull, char *to)
{
	Size offset = 0;

	for (int i = 0; i < NATTS; i++)
	{
		if (isnull[i])
			continue;
		if (i == 1)
		{
			offset = MAXALIGN(offset);
			if (to)
				*(int64 *) (to + offset) = (int64) values[i];
			offset += 8;
		}
		else
			offset = stub_varlena(offset, values[i], to);
	}
	return offset;
}

Size
heap_compute_data_size(TupleDesc desc, Datum *values, bool *isnull)
{
	return stub_form(values, isnull, NULL);
}

void
heap_fill_tuple(TupleDesc desc, Datum *values, bool *isnull, char *data, Size size,
				uint16 *infomask, bits8 *bits)
{
	*infomask |= HEAP_HASVARWIDTH;
	if (bits != NULL)
	{
		*infomask |= HEAP_HASNULL;
		*bits = 0;
		for (int i = 0; i < NATTS; i++)
			*bits |= isnull[i] ? 0 : 1 << i;
	}
	if (stub_form(values, isnull, data) != size)
		abort();
}

/* The columns of a stored tuple. */
typedef struct StubRow
{
	const char *key;
	Size key_len;
	bool has_value;
	int64 value;
	const char *filler;
	Size filler_len;
} StubRow;

static void
stub_deform(HeapTupleHeader tuple, StubRow *row)
{
	const char *data = (const char *) tuple + tuple->t_hoff;
	const char *p = data;
	bool nulls = (tuple->t_infomask & HEAP_HASNULL) != 0;

	memset(row, 0, sizeof(StubRow));
	if (HeapTupleHeaderGetNatts(tuple) != NATTS)
		abort();
	row->key = VARDATA_ANY(p);
	row->key_len = VARSIZE_ANY_EXHDR(p);
	p += VARSIZE_ANY(p);
	if (!nulls || (tuple->t_bits[0] & 2))
	{
		p = data + MAXALIGN(p - data);
		row->has_value = true;
		row->value = *(const int64 *) p;
		p += 8;
	}
	if (!nulls || (tuple->t_bits[0] & 4))
	{
		/* a byte of padding is zero, a header is not */
		if (*p == 0)
			p = data + INTALIGN(p - data);
		row->filler = VARDATA_ANY(p);
		row->filler_len = VARSIZE_ANY_EXHDR(p);
	}
}

/* ---- keys ---- */

/* Set by the program: called by every comparison of a generic key. */
static void (*stub_compare_hook)(void) = NULL;

bool
kcf_key_equals_slow(const KcfKeyType *key, const Datum *values, HeapTupleHeader tuple)
{
	const char *v = DatumGetPointer(values[0]);
	StubRow row;

	if (stub_compare_hook)
		stub_compare_hook();
	stub_deform(tuple, &row);
	return row.key_len == VARSIZE_ANY_EXHDR(v) && memcmp(row.key, VARDATA_ANY(v), row.key_len) == 0;
}

static inline uint64
stub_hash(const char *p, Size len)
{
	uint64 h = UINT64CONST(0x9e3779b97f4a7c15) ^ len;

	for (Size i = 0; i < len; i++)
	{
		h = (h ^ (unsigned char) p[i]) * UINT64CONST(0xff51afd7ed558ccd);
		h ^= h >> 32;
	}
	h *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return h ^ (h >> 29);
}

static void
stub_key_type(KcfKeyType *key, TupleDesc desc, KcfKeyKind kind)
{
	memset(key, 0, sizeof(KcfKeyType));
	memset(desc, 0, sizeof(*desc));
	desc->natts = NATTS;
	key->nkeys = 1;
	key->desc = desc;
	key->keys[0].attnum = 1;
	key->keys[0].kind = kind;
	key->keys[0].typlen = -1;
	key->keys[0].offset = 0;
}

/* ---- random numbers ---- */

static uint64 stub_random_state = 1;

static uint64
stub_random(void)
{
	uint64 z = (stub_random_state += UINT64CONST(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline uint32
stub_below(uint32 n)
{
	return stub_random() % n;
}
