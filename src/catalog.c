/*
 * catalog.c
 *		Which foreign tables are ours, what each of them is, and noticing when that changes.
 *
 * A definition that is in use is never freed under its user: an invalidation only marks it, the
 * next access builds another, and the old one goes at the end of the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_proc.h"
#include "catalog_internal.h"
#include "commands/extension.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

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

Oid
kcf_catalog_server(Oid relid)
{
	HeapTuple tup = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	Oid serverid;

	if (!HeapTupleIsValid(tup))
		return InvalidOid;
	serverid = ((Form_pg_foreign_table) GETSTRUCT(tup))->ftserver;
	ReleaseSysCache(tup);
	return serverid;
}

/*
 * Entries stay where they are and are never removed, so the last one found may be asked first: a statement asks
 * for the same relation again and again.
 */
static WatchedRelation *
find_watched(Oid relid)
{
	static WatchedRelation *recent = NULL;

	if (recent == NULL || recent->relid != relid)
	{
		WatchedRelation *found = hash_search(watched_relations, &relid, HASH_FIND, NULL);

		if (found == NULL)
			return NULL;
		recent = found;
	}
	return recent;
}

bool
kcf_catalog_is_ours(Oid relid)
{
	WatchedRelation *watched;
	Oid serverid;

	watch();
	watched = find_watched(relid);
	if (watched != NULL && watched->valid)
		return true;
	serverid = kcf_catalog_server(relid);
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
	CacheRegisterSyscacheCallback(PROCOID, row_changed, (Datum) 0);
	RegisterXactCallback(free_retired, NULL);
}

uint64
kcf_catalog_changes(void)
{
	watch();
	return changes;
}

void
kcf_catalog_watch_relation(Oid relid, bool is_table)
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

void
kcf_catalog_watch_row(int cacheid, Oid oid)
{
	WatchedRow row = { cacheid, GetSysCacheHashValue1(cacheid, ObjectIdGetDatum(oid)) };

	hash_search(watched_rows, &row, HASH_ENTER, NULL);
}

/* --- the cache -------------------------------------------------------------------------------- */

KcfTableDef *
kcf_catalog_cached(Oid relid)
{
	WatchedRelation *watched = NULL;
	KcfTableDef *def;
	uint64 before;

	watch();
	watched = find_watched(relid);
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
		kcf_catalog_watch_relation(table->ftrelid, true);
		result = lappend_oid(result, table->ftrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_free(ours);
	list_free(others);
	return result;
}
