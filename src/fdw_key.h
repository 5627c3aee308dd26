/*
 * fdw_key.h
 *		Clauses that bind a table's key: recognizing them when planning, converting their values when running.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   the caller's context.
 * Errors:   none of its own.
 * Waits:    never.
 */
#ifndef KCF_FDW_KEY_H
#define KCF_FDW_KEY_H

#include "keytype.h"
#include "catalog/pg_type_d.h"
#include "nodes/pathnodes.h"

/* key column = value, or key column = ANY (value) */
typedef struct KcfKeyMatch
{
	int column;  /* number among the key columns */
	Expr *value; /* free of the table's own columns and of volatile functions */
	bool array;
	bool commuted; /* the column is on the right */
	Oid type;      /* of the value or the array's elements, as the operator takes it */
} KcfKeyMatch;

/* Does the clause say exactly that? Arrays only for keys of one column. */
extern bool kcf_key_match(PlannerInfo *root, const KcfKeyType *key, RelOptInfo *rel,
						  RestrictInfo *rinfo, KcfKeyMatch *match);

/*
 * A value as the key's own type has it; false: no key can be equal to it. Types are those of a match.
 */
static inline bool
kcf_key_convert(Oid from, Oid to, Datum *value)
{
	int64 number;

	if (likely(from == to))
		return true;
	/* Only integers of different width are ever matched. */
	number = from == INT2OID   ? DatumGetInt16(*value)
			 : from == INT4OID ? DatumGetInt32(*value)
							   : DatumGetInt64(*value);
	switch (to)
	{
		case INT2OID:
			*value = Int16GetDatum((int16) number);
			return number >= PG_INT16_MIN && number <= PG_INT16_MAX;
		case INT4OID:
			*value = Int32GetDatum((int32) number);
			return number >= PG_INT32_MIN && number <= PG_INT32_MAX;
		default:
			*value = Int64GetDatum(number);
			return true;
	}
}

#endif /* KCF_FDW_KEY_H */
