/*
 * product_key.c
 *		A key as functions of SQL are given it: its parts as text, in the order of the key columns.
 *
 * Each part is read by its column's type as a literal in the session would be, so domains and lengths are checked.
 */
#include "postgres.h"

#include "product_key.h"

#include "catalog_product.h"
#include "compat.h"
#include "rowmap.h"
#include "rowmap_keytext.h"
#include "rowmap_write.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

KcfTableDef *
kcf_product_def(Oid relid)
{
	KcfTableDef *def = kcf_catalog_cached(relid);

	if (!kcf_is_product(def))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("cached table \"%s\" is not a data product", get_rel_name(relid)),
						errdetail("It has no option \"compute\".")));
	return def;
}

static const char *
column_name(const KcfTableDef *def, int i)
{
	return NameStr(TupleDescAttr(def->desc, def->key.keys[i].attnum - 1)->attname);
}

static Datum
read_part(const KcfTableDef *def, int i, const char *part)
{
	Form_pg_attribute attr = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1);
	Oid input;
	Oid ioparam;
	Datum value;

	if (part == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key of cached table \"%s\" must not be null", get_rel_name(def->relid)),
				 errdetail("It is null for column \"%s\".", column_name(def, i))));
	getTypeInputInfo(attr->atttypid, &input, &ioparam);
	value = OidInputFunctionCall(input, unconstify(char *, part), ioparam, attr->atttypmod);
	if (attr->attlen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
	return value;
}

pg_noreturn static void
report_number(const KcfTableDef *def, int given)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < def->key.nkeys; i++)
		appendStringInfo(&names, "%s\"%s\"", i ? ", " : "", column_name(def, i));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key of cached table \"%s\" has %d %s, not %d", get_rel_name(def->relid),
					def->key.nkeys, def->key.nkeys == 1 ? "part" : "parts", given),
			 errhint("Give a value for each of the key columns, in their order: %s.", names.data)));
}

void
kcf_product_key_read(const KcfTableDef *def, ArrayType *parts, Datum *key)
{
	Datum *texts;
	bool *nulls;
	int n;

	deconstruct_array(parts, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &n);
	if (n != def->key.nkeys)
		report_number(def, n);
	for (int i = 0; i < n; i++)
		key[i] = read_part(def, i, nulls[i] ? NULL : TextDatumGetCString(texts[i]));
}

void
kcf_product_key_check_one(const KcfTableDef *def)
{
	if (def->key.nkeys != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("data product \"%s\" has %d key columns, not 1",
							   get_rel_name(def->relid), def->key.nkeys),
						errhint("Fetch each key by kafka_cache.fetch(), or join the product by key "
								"with a list of VALUES.")));
}

void
kcf_product_key_read_one(const KcfTableDef *def, const char *part, Datum *key)
{
	key[0] = read_part(def, 0, part);
}

/* ---- as records have it ---- */

KcfSlice
kcf_product_key_bytes(KcfTableDef *def, const Datum *key)
{
	KcfRowWriter *writer = kcf_row_writer_create(def, CurrentMemoryContext);
	Datum *values = palloc0(def->desc->natts * sizeof(Datum));
	bool *isnull = palloc(def->desc->natts * sizeof(bool));
	KcfSlice bytes;

	memset(isnull, true, def->desc->natts * sizeof(bool));
	for (int i = 0; i < def->key.nkeys; i++)
	{
		values[def->key.keys[i].attnum - 1] = key[i];
		isnull[def->key.keys[i].attnum - 1] = false;
	}
	/* the writer is not used again, so they stay */
	kcf_row_write_key(writer, values, isnull, &bytes);
	return bytes;
}

/* What is done as the table's owner, by functions of types that may be anybody's. */
typedef struct Owner
{
	Oid userid;
	int sec_context;
	int nestlevel;
} Owner;

static void
become_owner(const KcfTableDef *def, Owner *save)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	SetUserIdAndSecContext(def->owner, save->sec_context | SECURITY_RESTRICTED_OPERATION);
	save->nestlevel = NewGUCNestLevel();
}

static void
become_self(const Owner *save)
{
	AtEOXact_GUC(false, save->nestlevel);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}

bool
kcf_product_key_decode(KcfTableDef *def, KcfSlice bytes, Datum *key)
{
	KcfRowmap *map = kcf_rowmap_create(def, CurrentMemoryContext);
	KcfRecord record = { .key = bytes, .timestamp = KCF_NO_TIMESTAMP };
	KcfDecodedKey decoded;
	KcfFault fault;
	KcfReason reason;
	Owner self;

	become_owner(def, &self);
	reason = kcf_rowmap_key(map, &record, &decoded, &fault);
	become_self(&self);
	if (reason != KCF_OK)
		return false;
	memcpy(key, decoded.values, def->key.nkeys * sizeof(Datum));
	return true;
}

char *
kcf_product_key_show(KcfTableDef *def, KcfSlice bytes)
{
	Datum key[KCF_MAX_KEYS];
	char *text;
	Owner self;

	if (!kcf_product_key_decode(def, bytes, key))
		return NULL;
	become_owner(def, &self);
	text = kcf_key_text(kcf_row_writer_create(def, CurrentMemoryContext), key);
	become_self(&self);
	return text;
}
