/*
 * catalog.c
 *		Which foreign tables are ours, what each of them is, and noticing when that changes.
 *
 * A definition that is in use is never freed under its user: an invalidation only marks it, the
 *next access builds another, and the old one goes at the end of the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A relation whose invalidation concerns us: a table of ours, or a composite type of one of its
 * columns. */
typedef struct WatchedRelation
{
	Oid relid; /* hash key */
	bool is_table;
	bool is_type; /* may be both: a table's row type */
	bool valid;
	uint32 foreign_hash; /* of the table's row in pg_foreign_table */
	KcfTableDef *def;    /* NULL: none is cached */
} WatchedRelation;

/* A row of a catalog that concerns us: a type, or a constraint of a domain. */
typedef struct WatchedRow
{
	int cacheid;
	uint32 hashvalue;
} WatchedRow;

static HTAB *watched_relations = NULL;
static HTAB *watched_rows = NULL;
static uint64 changes = 0;
static Oid our_handler = InvalidOid; /* remembered, so that planning need not ask the catalog */
static Oid other_handler = InvalidOid;
static List *retired = NIL; /* definitions to free at the end of the transaction */

static void watch(void);

/* --- which are ours -------------------------------------------------------------------------- */

bool
kcf_catalog_has_extension(void)
{
	return OidIsValid(get_extension_oid("kafka_cache_fdw", true));
}

/* Is it our handler that serves this server? Names do not count: the handler belongs to our
 * extension or not. */
static bool
is_our_server(Oid serverid)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	ForeignDataWrapper *fdw =
		server ? GetForeignDataWrapperExtended(server->fdwid, FDW_MISSING_OK) : NULL;
	Oid extension;
	bool ours;

	if (fdw == NULL || !OidIsValid(fdw->fdwhandler))
		return false;
	if (fdw->fdwhandler == our_handler)
		return true;
	if (fdw->fdwhandler == other_handler)
		return false;
	extension = get_extension_oid("kafka_cache_fdw", true);
	ours = OidIsValid(extension) &&
		   getExtensionOfObject(ProcedureRelationId, fdw->fdwhandler) == extension;
	if (ours)
		our_handler = fdw->fdwhandler;
	else
		other_handler = fdw->fdwhandler;
	return ours;
}

static Oid
server_of_table(Oid relid)
{
	HeapTuple tup = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	Oid serverid;

	if (!HeapTupleIsValid(tup))
		return InvalidOid;
	serverid = ((Form_pg_foreign_table) GETSTRUCT(tup))->ftserver;
	ReleaseSysCache(tup);
	return serverid;
}

bool
kcf_catalog_is_ours(Oid relid)
{
	WatchedRelation *watched;
	Oid serverid;

	watch();
	watched = hash_search(watched_relations, &relid, HASH_FIND, NULL);
	if (watched != NULL && watched->valid)
		return true;
	serverid = server_of_table(relid);
	return OidIsValid(serverid) && is_our_server(serverid);
}

/* --- invalidation ---------------------------------------------------------------------------- */

static void
invalidate_all(void)
{
	HASH_SEQ_STATUS status;
	WatchedRelation *watched;

	changes++;
	hash_seq_init(&status, watched_relations);
	while ((watched = hash_seq_search(&status)) != NULL)
		watched->valid = false;
}

static void
relation_changed(Datum arg, Oid relid)
{
	WatchedRelation *watched;

	if (!OidIsValid(relid))
	{
		invalidate_all();
		return;
	}
	watched = hash_search(watched_relations, &relid, HASH_FIND, NULL);
	if (watched == NULL)
		return;
	if (watched->is_type)
	{
		invalidate_all();
		return;
	}
	watched->valid = false;
	changes++;
}

static void
foreign_table_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	WatchedRelation *watched;

	changes++; /* also for one that is not known yet */
	hash_seq_init(&status, watched_relations);
	while ((watched = hash_seq_search(&status)) != NULL)
		if (hashvalue == 0 || watched->foreign_hash == hashvalue)
			watched->valid = false;
}

/* Every CREATE TABLE makes types and often constraints: only those in use count. */
static void
row_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	WatchedRow row = { cacheid, hashvalue };

	if (hashvalue == 0 || hash_search(watched_rows, &row, HASH_FIND, NULL) != NULL)
		invalidate_all();
}

static void
wrapper_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	our_handler = other_handler = InvalidOid;
	invalidate_all();
}

static void
free_retired(XactEvent event, void *arg)
{
	ListCell *lc;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE &&
		event != XACT_EVENT_PARALLEL_COMMIT && event != XACT_EVENT_PARALLEL_ABORT)
		return;
	foreach (lc, retired)
		kcf_catalog_free(lfirst(lc));
	list_free(retired);
	retired = NIL;
}

static void
watch(void)
{
	HASHCTL ctl;

	if (watched_rows != NULL)
		return;
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(WatchedRelation);
	if (watched_relations == NULL)
		watched_relations = hash_create("kafka_cache relations", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	ctl.keysize = sizeof(WatchedRow);
	ctl.entrysize = sizeof(WatchedRow);
	watched_rows = hash_create("kafka_cache catalog rows", 64, &ctl, HASH_ELEM | HASH_BLOBS);

	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNTABLEREL, foreign_table_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, wrapper_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, wrapper_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, wrapper_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, row_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(CONSTROID, row_changed, (Datum) 0);
	RegisterXactCallback(free_retired, NULL);
}

uint64
kcf_catalog_changes(void)
{
	watch();
	return changes;
}

static void
watch_relation(Oid relid, bool is_table)
{
	WatchedRelation *watched;
	bool found;

	watch();
	watched = hash_search(watched_relations, &relid, HASH_ENTER, &found);
	if (!found)
	{
		watched->is_table = watched->is_type = watched->valid = false;
		watched->foreign_hash = GetSysCacheHashValue1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
		watched->def = NULL;
	}
	if (is_table)
		watched->is_table = true;
	else
		watched->is_type = true;
}

static void
watch_row(int cacheid, Oid oid)
{
	WatchedRow row = { cacheid, GetSysCacheHashValue1(cacheid, ObjectIdGetDatum(oid)) };

	hash_search(watched_rows, &row, HASH_ENTER, NULL);
}

/* --- fingerprints ---------------------------------------------------------------------------- */

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
	uint64 hash = DatumGetUInt64(hash_any_extended((unsigned char *) buf->data, buf->len, 0));

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

		watch_row(CONSTROID, ((Form_pg_constraint) GETSTRUCT(tup))->oid);
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
	watch_row(TYPEOID, typid);

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

		watch_relation(type->typrelid, false);
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
static uint64
row_fingerprint(KcfTableDef *def, ForeignServer *server)
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
static uint64
client_fingerprint(KcfTableDef *def, ForeignServer *server)
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

/* --- checks of a whole table ----------------------------------------------------------------- */

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

/* --- definitions ----------------------------------------------------------------------------- */

/*
 * The table, locked. A worker does not wait behind somebody's open ALTER TABLE, with all other
 * tables waiting behind the worker: it gets an error and tries again later.
 */
static Relation
open_table(Oid relid)
{
	Relation rel = NULL;

	if (ConditionalLockRelationOid(relid, AccessShareLock))
		rel = RelationIdGetRelation(relid);
	else if (MyBgworkerEntry != NULL)
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
	watch_relation(relid, true);

	/* An error must leave nothing behind, so it becomes a child of parent only when it is complete.
	 */
	mcxt = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache table", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(mcxt);
	def = palloc0(sizeof(KcfTableDef));
	def->mcxt = mcxt;
	def->relid = relid;
	def->serverid = server_of_table(relid);
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
	def->fingerprint = row_fingerprint(def, server);
	def->client_fingerprint = client_fingerprint(def, server);
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
	kcf_catalog_free(kcf_catalog_table(relid, CurrentMemoryContext));
}

KcfTableDef *
kcf_catalog_cached(Oid relid)
{
	WatchedRelation *watched = NULL;
	KcfTableDef *def;
	uint64 before;

	watch();
	watched = hash_search(watched_relations, &relid, HASH_FIND, NULL);
	if (watched != NULL && watched->valid)
		return watched->def;

	before = changes;
	def = kcf_catalog_table(relid, CacheMemoryContext);
	watched = hash_search(watched_relations, &relid, HASH_FIND, NULL);
	Assert(watched != NULL && watched->is_table);
	if (watched->def != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);

		retired = lappend(retired, watched->def);
		MemoryContextSwitchTo(old);
	}
	watched->def = def;
	/* What changed while we were reading may have been read before or after. */
	watched->valid = (changes == before);
	return def;
}

List *
kcf_catalog_tables(void)
{
	List *result = NIL;
	List *ours = NIL;
	List *others = NIL;
	Relation rel;
	SysScanDesc scan;
	HeapTuple tup;

	watch();
	if (!kcf_catalog_has_extension())
		return NIL;
	rel = table_open(ForeignTableRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_foreign_table table = (Form_pg_foreign_table) GETSTRUCT(tup);

		if (!list_member_oid(ours, table->ftserver) && !list_member_oid(others, table->ftserver))
		{
			if (is_our_server(table->ftserver))
				ours = lappend_oid(ours, table->ftserver);
			else
				others = lappend_oid(others, table->ftserver);
		}
		if (!list_member_oid(ours, table->ftserver))
			continue;
		watch_relation(table->ftrelid, true);
		result = lappend_oid(result, table->ftrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_free(ours);
	list_free(others);
	return result;
}
