/*
 * catalog_table.c
 *		The definition of one table, and what makes it one that cannot work.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog_internal.h"
#include "catalog_product.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/typcache.h"

static const char *
kind_name(KcfColumnKind kind)
{
	switch (kind)
	{
		case KCF_COLUMN_JSON:
			return "json";
		case KCF_COLUMN_KEY:
			return "key";
		case KCF_COLUMN_VALUE:
			return "value";
		case KCF_COLUMN_PARTITION:
			return "partition";
		case KCF_COLUMN_OFFSET:
			return "offset";
		case KCF_COLUMN_TIMESTAMP:
			return "timestamp";
		case KCF_COLUMN_HEADERS:
			return "headers";
		case KCF_COLUMN_DROPPED:
			break;
	}
	return "dropped";
}

static void
require_type(Form_pg_attribute attr, KcfColumnKind kind, bool fits, const char *hint)
{
	if (!fits)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
						errmsg("%s column \"%s\" cannot have type %s", kind_name(kind),
							   NameStr(attr->attname), format_type_be(attr->atttypid)),
						errhint("%s", hint)));
}

static void
check_value_column(Form_pg_attribute attr, KcfFormat format)
{
	Oid typid = attr->atttypid;
	bool json = (typid == JSONOID || typid == JSONBOID || typid == TEXTOID);

	if (format == KCF_FORMAT_JSON)
		require_type(attr, KCF_COLUMN_VALUE, json || typid == BYTEAOID,
					 "Give it type jsonb, json, text or bytea.");
	else if (format == KCF_FORMAT_TEXT)
		require_type(attr, KCF_COLUMN_VALUE, json,
					 "With format text, give it type text, json or jsonb.");
	else
		require_type(attr, KCF_COLUMN_VALUE, typid == BYTEAOID,
					 "With format bytea, give it type bytea.");
}

static void
check_key_column(Form_pg_attribute attr, KcfFormat key_format, const char *path)
{
	TypeCacheEntry *type =
		lookup_type_cache(attr->atttypid, TYPECACHE_EQ_OPR | TYPECACHE_HASH_EXTENDED_PROC);

	if (!OidIsValid(type->eq_opr) || !OidIsValid(type->hash_extended_proc))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("key column \"%s\" cannot have type %s", NameStr(attr->attname),
						format_type_be(attr->atttypid)),
				 errdetail(
					 "The type has no default hash operator class, so keys cannot be told apart."),
				 errhint("Use a type such as uuid, text, bigint or jsonb.")));
	if (key_format == KCF_FORMAT_BYTEA)
		require_type(attr, KCF_COLUMN_KEY, attr->atttypid == BYTEAOID,
					 "With key_format bytea, give it type bytea.");
	if (path != NULL && strstr(path, "[]") != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("path of key column \"%s\" names more than one member",
							   NameStr(attr->attname)),
						errhint("Give it a path without [].")));
}

static void
check_json_column(Form_pg_attribute attr, const char *path)
{
	Oid base = getBaseType(attr->atttypid);

	if (strstr(path, "[]") != NULL && !OidIsValid(get_base_element_type(attr->atttypid)) &&
		base != JSONOID && base != JSONBOID)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
						errmsg("column \"%s\" cannot have type %s", NameStr(attr->attname),
							   format_type_be(attr->atttypid)),
						errdetail("The path \"%s\" gives an array.", path),
						errhint("Give it an array type, json or jsonb.")));
}

/* Everything that one column's options cannot tell. Fills attnums with the key columns; returns
 * their number. */
static int
check_columns(const KcfTableDef *def, AttrNumber *attnums)
{
	const KcfTableOptions *options = def->options;
	AttrNumber of_kind[KCF_COLUMN_DROPPED + 1] = { 0 };
	int nkeys = 0;

	for (int i = 0; i < def->desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(def->desc, i);
		KcfColumnKind kind = def->columns[i].kind;

		if (kind == KCF_COLUMN_DROPPED)
			continue;
		if (kind != KCF_COLUMN_JSON && kind != KCF_COLUMN_KEY && of_kind[kind] != 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
							errmsg("columns \"%s\" and \"%s\" are both %s columns",
								   NameStr(TupleDescAttr(def->desc, of_kind[kind] - 1)->attname),
								   NameStr(attr->attname), kind_name(kind)),
							errhint("Keep one of them.")));
		of_kind[kind] = i + 1;
		if (attr->attgenerated && kind != KCF_COLUMN_JSON)
			ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
							errmsg("%s column \"%s\" cannot be generated", kind_name(kind),
								   NameStr(attr->attname)),
							errhint("It comes from the record.")));

		switch (kind)
		{
			case KCF_COLUMN_KEY:
				if (nkeys == KCF_MAX_KEYS)
					ereport(ERROR, (errcode(ERRCODE_TOO_MANY_COLUMNS),
									errmsg("foreign table %s has more than %d key columns",
										   def->name, KCF_MAX_KEYS)));
				check_key_column(attr, options->key_format, def->columns[i].json_path);
				attnums[nkeys++] = i + 1;
				break;
			case KCF_COLUMN_VALUE:
				check_value_column(attr, options->format);
				break;
			case KCF_COLUMN_PARTITION:
				require_type(attr, kind, attr->atttypid == INT4OID, "Give it type integer.");
				break;
			case KCF_COLUMN_OFFSET:
				require_type(attr, kind, attr->atttypid == INT8OID, "Give it type bigint.");
				break;
			case KCF_COLUMN_TIMESTAMP:
				require_type(attr, kind, attr->atttypid == TIMESTAMPTZOID,
							 "Give it type timestamp with time zone.");
				break;
			case KCF_COLUMN_HEADERS:
				require_type(attr, kind, attr->atttypid == JSONBOID, "Give it type jsonb.");
				break;
			case KCF_COLUMN_JSON:
				check_json_column(attr, def->columns[i].json_path);
				break;
			case KCF_COLUMN_DROPPED:
				break;
		}
		if (options->format != KCF_FORMAT_JSON && def->columns[i].json_path != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
							errmsg("column \"%s\" cannot be a member of a document",
								   NameStr(attr->attname)),
							errdetail("The records of foreign table %s are not JSON.", def->name),
							errhint("Set the table's format to json, or give the column one of the "
									"options key, value, "
									"partition, offset, timestamp or headers.")));
	}

	if (nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("foreign table %s has no key column", def->name),
				 errhint("Give the column that holds the record's key OPTIONS (key 'true').")));
	if (nkeys > 1 && options->key_format != KCF_FORMAT_JSON)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("foreign table %s has %d key columns, but its keys are not JSON",
							   def->name, nkeys),
						errhint("Set the table's key_format to json, or keep one key column.")));
	if (options->format != KCF_FORMAT_JSON && of_kind[KCF_COLUMN_VALUE] == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("foreign table %s has no value column", def->name),
				 errdetail("The records of the table are not JSON."),
				 errhint("Give the column that holds the record's value OPTIONS (value 'true').")));
	return nkeys;
}

/*
 * The table, locked. A worker does not wait behind somebody's open ALTER TABLE, with all other
 * tables waiting behind the worker: it gets an error and tries again later. A parallel worker is
 * no such worker, but a part of its leader's session.
 */
static Relation
open_table(Oid relid)
{
	Relation rel = NULL;

	if (ConditionalLockRelationOid(relid, AccessShareLock))
		rel = RelationIdGetRelation(relid);
	else if (MyBgworkerEntry != NULL && !IsParallelWorker())
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("could not lock foreign table with OID %u", relid),
						errdetail("Another session is altering it.")));
	else
	{
		LockRelationOid(relid, AccessShareLock);
		rel = RelationIdGetRelation(relid);
	}
	if (rel == NULL)
	{
		UnlockRelationOid(relid, AccessShareLock);
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("foreign table with OID %u does not exist", relid)));
	}
	return rel;
}

KcfTableDef *
kcf_catalog_table(Oid relid, MemoryContext parent)
{
	MemoryContext old;
	MemoryContext mcxt;
	Relation rel = open_table(relid);
	KcfTableDef *def;
	ForeignServer *server;
	AttrNumber attnums[KCF_MAX_KEYS];
	int nkeys;

	if (rel->rd_rel->relkind != RELKIND_FOREIGN_TABLE || !kcf_catalog_is_ours(relid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a foreign table of kafka_cache_fdw",
							   RelationGetRelationName(rel))));
	kcf_catalog_watch_relation(relid, true);

	/* An error must leave nothing behind, so it becomes a child of parent only when it is complete.
	 */
	mcxt = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache table", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(mcxt);
	def = palloc0(sizeof(KcfTableDef));
	def->mcxt = mcxt;
	def->relid = relid;
	def->serverid = kcf_catalog_server(relid);
	def->owner = rel->rd_rel->relowner;
	def->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
										   RelationGetRelationName(rel));
	def->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	def->options = kcf_options_table(relid);
	def->columns = kcf_options_columns(relid, def->desc->natts);
	nkeys = check_columns(def, attnums);
	kcf_keytype_init(&def->key, def->desc, attnums, nkeys, mcxt);
	MemoryContextSwitchTo(old);

	server = GetForeignServer(def->serverid);
	def->fingerprint = kcf_catalog_row_fingerprint(def, server);
	def->client_fingerprint = kcf_catalog_client_fingerprint(def, server);
	relation_close(rel, AccessShareLock);

	MemoryContextSetParent(mcxt, parent);
	return def;
}

void
kcf_catalog_free(KcfTableDef *def)
{
	MemoryContextDelete(def->mcxt);
}

void
kcf_catalog_check_table(Oid relid)
{
	KcfTableDef *def = kcf_catalog_table(relid, CurrentMemoryContext);

	if (kcf_is_product(def))
		kcf_catalog_check_product(def);
	kcf_catalog_free(def);
}
