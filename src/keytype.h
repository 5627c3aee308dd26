/*
 * keytype.h
 *		Identity of a key: hashing and equality of the key columns, by their types' own rules.
 *
 * Process:  consumers and backends.
 * Locks:    none.
 * Memory:   a KcfKeyType lives in the context given to kcf_keytype_init.
 * Errors:   init ereports when a type has no hash operator class; hashing and comparing a type other
 *           than the inlined ones may ereport as that type's functions do.
 * Waits:    never.
 */
#ifndef KCF_KEYTYPE_H
#define KCF_KEYTYPE_H

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "fmgr.h"

#define KCF_MAX_KEYS 8

typedef enum KcfKeyKind
{
	KCF_KEY_BYVAL, /* bool, int2/4/8, date, enum, oid …: the Datum itself, sign-extended to 8 bytes */
	KCF_KEY_FIXED,   /* fixed length by reference compared bytewise: uuid, macaddr … */
	KCF_KEY_VARLENA, /* bytewise: bytea, text and varchar with a deterministic collation */
	KCF_KEY_GENERIC  /* through the default hash operator class */
} KcfKeyKind;

typedef struct KcfKeyColumn
{
	AttrNumber attnum;
	KcfKeyKind kind;
	Oid typid; /* of a domain: its base type */
	Oid collation;
	int16 typlen;
	bool typbyval;
	int offset; /* from the tuple's data start when fixed for every row without nulls, else -1 */
	FmgrInfo
		hash_ext; /* KCF_KEY_GENERIC; of one argument where the type has no seeded hash function */
	FmgrInfo equal; /* KCF_KEY_GENERIC */
	Oid opfamily; /* of the default btree operator class, or hash where there is none: for the planner */
	Oid opcintype;
	Oid eq_opr; /* the type's "=" */
} KcfKeyColumn;

typedef struct KcfKeyType
{
	int nkeys;
	TupleDesc desc; /* of the table */
	KcfKeyColumn keys[KCF_MAX_KEYS];
} KcfKeyType;

/* desc must live at least as long as key */
extern void kcf_keytype_init(KcfKeyType *key, TupleDesc desc, const AttrNumber *attnums, int nkeys,
							 MemoryContext mcxt);
/*
 * The same answer for all keys that are equal by their types' "=", in every process of this
 * server run; not to be kept beyond it.
 */
extern uint64 kcf_key_hash(const KcfKeyType *key, const Datum *values);
/* Are the key columns of this tuple equal to these? Key columns are never null. */
extern bool kcf_key_equals_slow(const KcfKeyType *key, const Datum *values, HeapTupleHeader tuple);
/* A number that no outsider knows, so that nobody can prepare colliding keys. Postmaster only. */
extern void kcf_keytype_seed(void);
extern uint64 kcf_keytype_secret(void);
/* Another one, for what is shown to others. */
extern uint64 kcf_keytype_veil(void);

/* Most tables have one key column, not null, at a fixed place: some loads and a comparison. */
static inline bool
kcf_key_equals(const KcfKeyType *key, const Datum *values, HeapTupleHeader tuple)
{
	const KcfKeyColumn *col = &key->keys[0];

	/* a tombstone has nulls, but none before attribute 1 */
	if (likely(key->nkeys == 1 && col->offset >= 0 &&
			   (col->offset == 0 || !(tuple->t_infomask & HEAP_HASNULL))))
	{
		const char *p = (const char *) tuple + tuple->t_hoff + col->offset;

		switch (col->kind)
		{
			case KCF_KEY_BYVAL:
				switch (col->typlen)
				{
					case 8:
						return *(const int64 *) p == (int64) values[0];
					case 4:
						return *(const int32 *) p == (int32) values[0];
					case 2:
						return *(const int16 *) p == (int16) values[0];
					default:
						return *(const int8 *) p == (int8) values[0];
				}
			case KCF_KEY_FIXED:
				return memcmp(p, DatumGetPointer(values[0]), col->typlen) == 0;
			case KCF_KEY_VARLENA:
			{
				const char *v = DatumGetPointer(values[0]);

				if (unlikely(VARATT_IS_EXTENDED(v) && !VARATT_IS_SHORT(v)))
					break;
				return VARSIZE_ANY_EXHDR(v) == VARSIZE_ANY_EXHDR(p) &&
					   memcmp(VARDATA_ANY(v), VARDATA_ANY(p), VARSIZE_ANY_EXHDR(p)) == 0;
			}
			case KCF_KEY_GENERIC:
				break;
		}
	}
	return kcf_key_equals_slow(key, values, tuple);
}

#endif /* KCF_KEYTYPE_H */
