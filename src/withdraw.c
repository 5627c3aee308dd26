/*
 * withdraw.c
 *		Getting our workers out of the way of commands that want a database for themselves.
 *
 * DROP DATABASE, ALTER DATABASE … RENAME and SET TABLESPACE, and CREATE DATABASE … TEMPLATE fail
 * after five seconds when anybody is connected to the database. Our consumers are sent away before
 * the command runs, and are given back when its transaction ends, however it ends. Only who may run
 * the command can do that, or anybody could disturb anybody's cache by a command that is refused.
 */
#include "postgres.h"

#include "withdraw.h"

#include "compat.h"
#include "registry.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define PATIENCE_MS 5000

/* What this transaction holds off; a database may be renamed twice in one, so it is counted. */
#define MAX_HELD 8
typedef struct Held
{
	int database;
	Oid dboid;
} Held;

static Held held[MAX_HELD];
static int nheld = 0;

static ProcessUtility_hook_type prev_process_utility;

static void
give_back(void)
{
	while (nheld > 0)
	{
		nheld--;
		kcf_database_restore(held[nheld].database, held[nheld].dboid);
	}
}

static void
give_back_after_transaction(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (nheld > 0 && isTopLevel && phase == RESOURCE_RELEASE_AFTER_LOCKS)
		give_back();
}

static void
give_back_at_exit(int code, Datum arg)
{
	give_back();
}

/* The option of this name in a list of DefElem, as a string; NULL: not there. */
static const char *
option_string(List *options, const char *name)
{
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0 && def->arg)
			return defGetString(def);
	}
	return NULL;
}

static bool
is_template(Oid dboid)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The server has a function for this, but exports it in the newest minor releases only. */
static bool
may_create_databases(void)
{
	bool result = superuser();
	HeapTuple tuple = result ? NULL : SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The database that this command wants for itself and that the user may have; InvalidOid: none. */
static Oid
wanted_database(Node *parsetree, const char **name)
{
	Oid dboid;

	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			*name = castNode(DropdbStmt, parsetree)->dbname;
			dboid = get_database_oid(*name, true);
			break;

		case T_RenameStmt:
			if (castNode(RenameStmt, parsetree)->renameType != OBJECT_DATABASE ||
				!may_create_databases())
				return InvalidOid;
			*name = castNode(RenameStmt, parsetree)->subname;
			dboid = get_database_oid(*name, true);
			break;

		case T_AlterDatabaseStmt:
			if (!option_string(castNode(AlterDatabaseStmt, parsetree)->options, "tablespace"))
				return InvalidOid;
			*name = castNode(AlterDatabaseStmt, parsetree)->dbname;
			dboid = get_database_oid(*name, true);
			break;

		case T_CreatedbStmt:
			if (!may_create_databases())
				return InvalidOid;
			*name = option_string(castNode(CreatedbStmt, parsetree)->options, "template");
			if (*name == NULL)
				*name = "template1";
			dboid = get_database_oid(*name, true);
			if (OidIsValid(dboid) && is_template(dboid))
				return dboid;
			break;

		default:
			return InvalidOid;
	}
	return OidIsValid(dboid) && kcf_owns_database(dboid, GetUserId()) ? dboid : InvalidOid;
}

/* Send our workers away and wait until they are gone. */
static void
withdraw(Oid dboid, const char *name)
{
	static bool at_exit = false;
	int database;
	TimestampTz deadline;

	if (nheld == MAX_HELD)
		return;
	if (!at_exit)
	{
		before_shmem_exit(give_back_at_exit, (Datum) 0);
		at_exit = true;
	}
	database = kcf_database_withdraw(dboid, name);
	if (database < 0)
		return;
	held[nheld].database = database;
	held[nheld].dboid = dboid;
	nheld++;

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE_MS);
	ConditionVariablePrepareToSleep(&kcf_database(database)->exited);
	while (!kcf_database_left(database))
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left <= 0)
		{
			ereport(WARNING,
					(errmsg("kafka_cache workers have not left database \"%s\" in time", name)));
			break;
		}
		ConditionVariableTimedSleep(&kcf_database(database)->exited, left, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
				DestReceiver *dest, QueryCompletion *qc)
{
	const char *name;
	Oid dboid = InvalidOid;

	/*
	 * Our own database cannot be had while we are in it. Most of these commands refuse to run in a
	 * transaction block; then nobody needs to leave.
	 */
	if (!RecoveryInProgress() && (IsA(pstmt->utilityStmt, RenameStmt) ||
								  (context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock())))
		dboid = wanted_database(pstmt->utilityStmt, &name);
	if (OidIsValid(dboid) && dboid != MyDatabaseId)
		withdraw(dboid, name);

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

void
kcf_withdraw_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterResourceReleaseCallback(give_back_after_transaction, NULL);
}
