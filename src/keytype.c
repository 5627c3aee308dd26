/*
 * keytype.c
 *		Identity of a key.
 *
 * The kind of a column is decided by the function behind its type's "=", so a domain, a type that
 * borrows another one's operator class and an enum all get the right one. Where that function
 * compares bytes, so do we, inline; everything else (numeric, float with its zeros and NaNs,
 * char(n) with its blanks, text under a nondeterministic collation, jsonb, arrays …) goes through
 * the type's own functions.
 */
#include "postgres.h"

#include "keytype.h"

#include "access/tupmacs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* Inherited from the postmaster by every process. */
static uint64 seed = UINT64CONST(0x5851f42d4c957f2d);
static uint64 veil = UINT64CONST(0x9fb21c651e98df25);

void
kcf_keytype_seed(void)
{
	uint64 random;

	if (pg_strong_random(&random, sizeof(random)))
		seed = random;
	if (pg_strong_random(&random, sizeof(random)))
		veil = random;
}

uint64
kcf_keytype_secret(void)
{
	return seed;
}

uint64
kcf_keytype_veil(void)
{
	return veil;
}

/* ---- hashing ---- */

#define MIX_A UINT64CONST(0x9e3779b97f4a7c15)
#define MIX_B UINT64CONST(0xc2b2ae3d27d4eb4f)

/* One word into the state: a multiplication whose upper half comes back down. */
static inline uint64
mix(uint64 h, uint64 word)
{
#ifdef HAVE_INT128
	uint128 product = (uint128) (h ^ word) * MIX_A;

	return ((uint64) product ^ (uint64) (product >> 64)) + MIX_B;
#else
	h = (h ^ word) * MIX_A;
	h ^= h >> 32;
	h *= MIX_B;
	return h ^ (h >> 29);
#endif
}

/* Spread the state over all bits: the table uses the highest and the lowest of them. */
static inline uint64
finish(uint64 h)
{
	h ^= h >> 33;
	h *= UINT64CONST(0xd6e8feb86659fd93);
	h ^= h >> 29;
	h *= MIX_A;
	return h ^ (h >> 32);
}

static inline uint64
mix_bytes(uint64 h, const char *p, Size len)
{
	uint64 word;

	h = mix(h, (uint64) len);
	for (; len >= 8; p += 8, len -= 8)
	{
		memcpy(&word, p, 8);
		h = mix(h, word);
	}
	if (len > 0)
	{
		word = 0;
		memcpy(&word, p, len);
		h = mix(h, word);
	}
	return h;
}

/* By-value Datums come sign-extended or not, as their makers like: only the type's own bytes count.
 */
static inline uint64
byval_bits(Datum value, int16 typlen)
{
	switch (typlen)
	{
		case 8:
			return (uint64) value;
		case 4:
			return (uint64) (int64) (int32) value;
		case 2:
			return (uint64) (int64) (int16) value;
		default:
			return (uint64) (int64) (int8) value;
	}
}

static inline struct varlena *
plain_varlena(Datum value)
{
	struct varlena *v = (struct varlena *) DatumGetPointer(value);

	if (unlikely(VARATT_IS_EXTENDED(v) && !VARATT_IS_SHORT(v)))
		v = pg_detoast_datum_packed(v);
	return v;
}

uint64
kcf_key_hash(const KcfKeyType *key, const Datum *values)
{
	uint64 h = seed;

	for (int i = 0; i < key->nkeys; i++)
	{
		const KcfKeyColumn *col = &key->keys[i];
		FmgrInfo *hash = (FmgrInfo *) &col->hash_ext;

		switch (col->kind)
		{
			case KCF_KEY_BYVAL:
				h = mix(h, byval_bits(values[i], col->typlen));
				break;
			case KCF_KEY_FIXED:
				h = mix_bytes(h, DatumGetPointer(values[i]), col->typlen);
				break;
			case KCF_KEY_VARLENA:
			{
				struct varlena *v = plain_varlena(values[i]);

				h = mix_bytes(h, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
				if (v != (struct varlena *) DatumGetPointer(values[i]))
					pfree(v);
				break;
			}
			case KCF_KEY_GENERIC:
				if (hash->fn_nargs == 2)
					h = mix(h, DatumGetUInt64(FunctionCall2Coll(hash, col->collation, values[i],
																UInt64GetDatum(seed))));
				else
					h = mix(h, DatumGetUInt32(FunctionCall1Coll(hash, col->collation, values[i])));
				break;
		}
	}
	return finish(h);
}

/* ---- equality ---- */

bool
kcf_key_equals_slow(const KcfKeyType *key, const Datum *values, HeapTupleHeader tuple)
{
	HeapTupleData tup;

	tup.t_len = 0;
	ItemPointerSetInvalid(&tup.t_self);
	tup.t_tableOid = InvalidOid;
	tup.t_data = tuple;

	for (int i = 0; i < key->nkeys; i++)
	{
		const KcfKeyColumn *col = &key->keys[i];
		Datum stored;
		bool isnull;

		stored = heap_getattr(&tup, col->attnum, key->desc, &isnull);
		if (unlikely(isnull))
			return false;
		switch (col->kind)
		{
			case KCF_KEY_BYVAL:
				if (byval_bits(stored, col->typlen) != byval_bits(values[i], col->typlen))
					return false;
				break;
			case KCF_KEY_FIXED:
				if (memcmp(DatumGetPointer(stored), DatumGetPointer(values[i]), col->typlen) != 0)
					return false;
				break;
			case KCF_KEY_VARLENA:
			{
				struct varlena *s = (struct varlena *) DatumGetPointer(stored);
				struct varlena *v = plain_varlena(values[i]);
				bool equal;

				equal = VARSIZE_ANY_EXHDR(s) == VARSIZE_ANY_EXHDR(v) &&
						memcmp(VARDATA_ANY(s), VARDATA_ANY(v), VARSIZE_ANY_EXHDR(s)) == 0;
				if (v != (struct varlena *) DatumGetPointer(values[i]))
					pfree(v);
				if (!equal)
					return false;
				break;
			}
			case KCF_KEY_GENERIC:
				if (!DatumGetBool(FunctionCall2Coll((FmgrInfo *) &col->equal, col->collation,
													stored, values[i])))
					return false;
				break;
		}
	}
	return true;
}

/* ---- types ---- */

static KcfKeyKind
kind_of(Oid equal, Oid collation)
{
	switch (equal)
	{
		case F_BOOLEQ:
		case F_CHAREQ:
		case F_INT2EQ:
		case F_INT4EQ:
		case F_INT8EQ:
		case F_DATE_EQ:
		case F_TIME_EQ:
		case F_TIMESTAMP_EQ:
		case F_TIMESTAMPTZ_EQ:
		case F_OIDEQ:
		case F_XIDEQ:
		case F_XID8EQ:
		case F_CIDEQ:
		case F_PG_LSN_EQ:
		case F_ENUM_EQ:
			return KCF_KEY_BYVAL;
		case F_UUID_EQ:
		case F_MACADDR_EQ:
		case F_MACADDR8_EQ:
			return KCF_KEY_FIXED;
		case F_BYTEAEQ:
			return KCF_KEY_VARLENA;
		case F_TEXTEQ:
			return OidIsValid(collation) && get_collation_isdeterministic(collation)
					   ? KCF_KEY_VARLENA
					   : KCF_KEY_GENERIC;
		default:
			return KCF_KEY_GENERIC;
	}
}

/* The attribute's place in every tuple without nulls; -1 when it depends on the values before it.
 */
static int
fixed_offset(TupleDesc desc, AttrNumber attnum)
{
	int offset = 0;

	for (int i = 0; i < attnum; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int aligned = att_align_nominal(offset, att->attalign);

		/* a short varlena is not aligned, a long one is: the same only where there is nothing to
		 * align */
		if (att->attlen < 0 && aligned != offset)
			return -1;
		offset = aligned;
		if (i == attnum - 1)
			return offset;
		if (att->attlen < 0)
			return -1;
		offset += att->attlen;
	}
	return -1;
}

void
kcf_keytype_init(KcfKeyType *key, TupleDesc desc, const AttrNumber *attnums, int nkeys,
				 MemoryContext mcxt)
{
	Assert(nkeys > 0 && nkeys <= KCF_MAX_KEYS);
	memset(key, 0, sizeof(KcfKeyType));
	key->nkeys = nkeys;
	key->desc = desc;

	for (int i = 0; i < nkeys; i++)
	{
		KcfKeyColumn *col = &key->keys[i];
		Form_pg_attribute att = TupleDescAttr(desc, attnums[i] - 1);
		Oid typid = getBaseType(att->atttypid);
		TypeCacheEntry *type;

		type = lookup_type_cache(typid, TYPECACHE_EQ_OPR | TYPECACHE_EQ_OPR_FINFO |
											TYPECACHE_HASH_PROC | TYPECACHE_HASH_EXTENDED_PROC |
											TYPECACHE_BTREE_OPFAMILY | TYPECACHE_HASH_OPFAMILY);
		if (!OidIsValid(type->eq_opr) || !OidIsValid(type->hash_proc))
			ereport(
				ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("column \"%s\" cannot be a key: type %s has no default hash operator class",
						NameStr(att->attname), format_type_be(att->atttypid)),
				 errhint("Use a type that can be hashed, for example text.")));

		col->attnum = attnums[i];
		col->typid = typid;
		col->collation = att->attcollation;
		col->typlen = att->attlen;
		col->typbyval = att->attbyval;
		col->offset = fixed_offset(desc, attnums[i]);
		col->kind = kind_of(type->eq_opr_finfo.fn_oid, att->attcollation);
		/* the lists above name types as they are; anything else under those functions is compared
		 * by them */
		if ((col->kind == KCF_KEY_BYVAL && !att->attbyval) ||
			(col->kind == KCF_KEY_FIXED && att->attlen <= 0) ||
			(col->kind == KCF_KEY_VARLENA && att->attlen != -1))
			col->kind = KCF_KEY_GENERIC;
		col->eq_opr = type->eq_opr;
		if (OidIsValid(type->btree_opf))
		{
			col->opfamily = type->btree_opf;
			col->opcintype = type->btree_opintype;
		}
		else
		{
			col->opfamily = type->hash_opf;
			col->opcintype = type->hash_opintype;
		}
		if (col->kind == KCF_KEY_GENERIC)
		{
			fmgr_info_cxt(OidIsValid(type->hash_extended_proc) ? type->hash_extended_proc
															   : type->hash_proc,
						  &col->hash_ext, mcxt);
			fmgr_info_cxt(type->eq_opr_finfo.fn_oid, &col->equal, mcxt);
		}
	}
}
