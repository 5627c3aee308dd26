/*
 * catalog_fingerprint.c
 *		What a table's rows depend on, and its client, as a number each.
 *
 * Whatever is read here that can change is watched from here on.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "catalog_internal.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static void
put_string(StringInfo buf, const char *s)
{
	appendBinaryStringInfo(buf, s ? s : "", s ? strlen(s) + 1 : 1);
}

static void
put_int(StringInfo buf, int64 n)
{
	appendBinaryStringInfo(buf, (char *) &n, sizeof(n));
}

static uint64
finish(StringInfo buf)
{
	/*
	 * Who could choose two definitions of one fingerprint would read a table's tuples by the other
	 * one's columns, so nobody is to know how it is made.
	 */
	uint64 hash = DatumGetUInt64(
		hash_any_extended((unsigned char *) buf->data, buf->len, kcf_keytype_secret()));

	explicit_bzero(buf->data, buf->len); /* there may be passwords in it */
	return hash;
}

static void
put_domain_checks(StringInfo buf, Oid typid)
{
	Relation rel = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tup;

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(typid));
	scan = systable_beginscan(rel, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		bool isnull;
		Datum bin = heap_getattr(tup, Anum_pg_constraint_conbin, RelationGetDescr(rel), &isnull);

		kcf_catalog_watch_row(CONSTROID, ((Form_pg_constraint) GETSTRUCT(tup))->oid);
		if (!isnull)
			put_string(buf, TextDatumGetCString(bin));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* A type, down to whatever it is made of. */
static void
put_type(StringInfo buf, Oid typid, int32 typmod)
{
	HeapTuple tup;
	Form_pg_type type;
	Oid element;

	check_stack_depth();
	put_int(buf, typid);
	put_int(buf, typmod);
	if (typid < FirstNormalObjectId)
		return; /* nobody alters those */
	kcf_catalog_watch_row(TYPEOID, typid);

	tup = SearchSysCache1(TYPEOID, ObjectIdGetDatum(typid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for type %u", typid);
	type = (Form_pg_type) GETSTRUCT(tup);
	put_int(buf, type->typtype);

	element = get_element_type(typid);
	if (OidIsValid(element))
		put_type(buf, element, -1);
	else if (type->typtype == TYPTYPE_DOMAIN)
	{
		put_int(buf, type->typnotnull);
		put_domain_checks(buf, typid);
		put_type(buf, type->typbasetype, type->typtypmod);
	}
	else if (type->typtype == TYPTYPE_RANGE)
		put_type(buf, get_range_subtype(typid), -1);
	else if (type->typtype == TYPTYPE_MULTIRANGE)
		put_type(buf, get_multirange_range(typid), -1);
	else if (type->typtype == TYPTYPE_COMPOSITE)
	{
		TupleDesc desc = lookup_rowtype_tupdesc(typid, -1);

		kcf_catalog_watch_relation(type->typrelid, false);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute attr = TupleDescAttr(desc, i);

			put_int(buf, attr->attisdropped);
			if (attr->attisdropped)
				continue;
			put_string(buf, NameStr(attr->attname));
			put_int(buf, attr->attcollation);
			put_type(buf, attr->atttypid, attr->atttypmod);
		}
		ReleaseTupleDesc(desc);
	}
	ReleaseSysCache(tup);
}

static void
put_options(StringInfo buf, List *options)
{
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *def = lfirst_node(DefElem, lc);

		put_string(buf, def->defname);
		put_string(buf, def->arg ? strVal(def->arg) : NULL);
	}
}

/* What decides the rows. */
uint64
kcf_catalog_row_fingerprint(KcfTableDef *def, ForeignServer *server)
{
	StringInfoData buf;
	TupleDesc desc = def->desc;
	TupleConstr *constr = desc->constr;
	ListCell *lc;

	initStringInfo(&buf);
	put_int(&buf, def->serverid);
	put_string(&buf, def->options->topic);
	put_int(&buf, def->options->format);
	put_int(&buf, def->options->key_format);
	put_int(&buf, def->options->on_error);
	put_int(&buf, def->options->keep_value);
	put_int(&buf, def->options->max_record_bytes);
	put_int(&buf, def->options->compute != NULL); /* null is nothing then */
	foreach (lc, server->options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "brokers") == 0 ||
			strcmp(option->defname, "bootstrap_servers") == 0 ||
			strcmp(option->defname, "metadata_broker_list") == 0)
			put_string(&buf, strVal(option->arg));
	}

	put_int(&buf, desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		put_int(&buf, def->columns[i].kind);
		if (attr->attisdropped)
			continue;
		put_string(&buf, def->columns[i].json_path);
		put_int(&buf, attr->attnotnull);
		put_int(&buf, attr->attgenerated);
		put_int(&buf, attr->attcollation);
		put_type(&buf, attr->atttypid, attr->atttypmod);
	}
	for (int i = 0; constr && i < constr->num_check; i++)
	{
		put_string(&buf, constr->check[i].ccbin);
		put_int(&buf, constr->check[i].ccvalid);
	}
	return finish(&buf);
}

/*
 * What decides how the client is built. Tables of several owners share a client only when they have
 * the same mapping, PUBLIC's or none, not when their mappings happen to say the same.
 */
uint64
kcf_catalog_client_fingerprint(KcfTableDef *def, ForeignServer *server)
{
	StringInfoData buf;
	HeapTuple tup;
	Oid user = def->owner;

	initStringInfo(&buf);
	put_int(&buf, server->serverid);
	put_int(&buf, server->owner);
	put_options(&buf, server->options);

	tup = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
						  ObjectIdGetDatum(server->serverid));
	if (!HeapTupleIsValid(tup))
	{
		user = InvalidOid;
		tup = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
							  ObjectIdGetDatum(server->serverid));
	}
	put_int(&buf, HeapTupleIsValid(tup));
	if (HeapTupleIsValid(tup))
	{
		bool isnull;
		Datum options =
			SysCacheGetAttr(USERMAPPINGUSERSERVER, tup, Anum_pg_user_mapping_umoptions, &isnull);

		put_int(&buf, user);
		if (!isnull)
			put_options(&buf, untransformRelOptions(options));
		ReleaseSysCache(tup);
	}
	return finish(&buf);
}
