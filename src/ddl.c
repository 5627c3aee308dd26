/*
 * ddl.c
 *		Telling the workers of DDL, at its commit, and refusing definitions of ours that cannot
 * work.
 *
 * Any command that may change what a consumer knows raises a flag; when the transaction has
 * committed, its invalidations are sent and its locks released, the consumer is woken and finds out
 * by itself what changed, if anything did. So a false alarm costs a wake-up: the flag is not lowered
 * when only a subtransaction is rolled back, and no attempt is made to find out whether an object is
 * ours.
 *
 * Ordinary transaction callbacks come before the invalidations are sent, too early for this; those
 * of resource owners come last.
 */
#include "postgres.h"

#include "ddl.h"

#include "catalog.h"
#include "registry.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#define DDL_TABLES 0x01    /* the consumers should look at their catalogs */
#define DDL_DATABASES 0x02 /* the launcher should look at pg_database */
#define DDL_EXTENSION 0x04 /* ... and visit this database */

static int pending = 0;

static ProcessUtility_hook_type prev_process_utility;

/* What may this command change for us? */
static int
classify(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
			/* Frequent in some applications, and never of interest. */
		case T_CreateStmt:
		case T_CreateTableAsStmt:
		case T_CreateSeqStmt:
		case T_AlterSeqStmt:
		case T_IndexStmt:
		case T_ReindexStmt:
		case T_ViewStmt:
		case T_RefreshMatViewStmt:
		case T_TruncateStmt:
		case T_ClusterStmt:
		case T_CommentStmt:
		case T_RuleStmt:
		case T_CreateTrigStmt:
		case T_CreatePolicyStmt:
		case T_AlterPolicyStmt:
		case T_CreateStatsStmt:
		case T_AlterStatsStmt:
			return 0;

			/* Shared objects: the launcher's. */
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
			return DDL_DATABASES;

			/* A session's settings are not the workers', but those of a database are. */
		case T_AlterDatabaseSetStmt:
			return DDL_TABLES;

		case T_RenameStmt:
			return castNode(RenameStmt, parsetree)->renameType == OBJECT_DATABASE ? DDL_DATABASES
																				  : DDL_TABLES;

		case T_DropStmt:
			return castNode(DropStmt, parsetree)->removeType == OBJECT_INDEX ? 0 : DDL_TABLES;

			/* One extension may pull in another, or change what it is. */
		case T_CreateExtensionStmt:
			return DDL_TABLES | DDL_EXTENSION;

			/* Whatever it was that was prepared. */
		case T_TransactionStmt:
			return castNode(TransactionStmt, parsetree)->kind == TRANS_STMT_COMMIT_PREPARED
					   ? DDL_TABLES | DDL_EXTENSION
					   : 0;

		default:
			return GetCommandLogLevel(parsetree) == LOGSTMT_DDL ? DDL_TABLES : 0;
	}
}

/* A table that was just defined, unless it was there before, and those that got its columns by inheritance. */
static void
check_tables(RangeVar *name, Oid before)
{
	Oid relid = RangeVarGetRelid(name, NoLock, true);
	List *relids;
	ListCell *lc;

	if (!OidIsValid(relid) || relid == before)
		return;
	CommandCounterIncrement();
	relids = has_subclass(relid) ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	foreach (lc, relids)
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE &&
			kcf_catalog_is_ours(lfirst_oid(lc)))
			kcf_catalog_check_table(lfirst_oid(lc));
	}
	list_free(relids);
}

/* What a command would find there, and not make. */
static Oid
found_before(Node *parsetree)
{
	CreateStmt *stmt;

	if (!IsA(parsetree, CreateForeignTableStmt))
		return InvalidOid;
	stmt = &castNode(CreateForeignTableStmt, parsetree)->base;
	return stmt->if_not_exists ? RangeVarGetRelid(stmt->relation, NoLock, true) : InvalidOid;
}

static void
check_definition(Node *parsetree, Oid before)
{
	/*
	 * pg_dump gives the options of columns one by one after CREATE, so a table has no key for a
	 * while when it is restored. It turns this setting off to say that things may still be
	 * incomplete; the consumer says so when they stay that way.
	 */
	if (!check_function_bodies)
		return;

	switch (nodeTag(parsetree))
	{
		case T_CreateForeignTableStmt:
			check_tables(castNode(CreateForeignTableStmt, parsetree)->base.relation, before);
			break;
		case T_AlterTableStmt:
		{
			AlterTableStmt *stmt = castNode(AlterTableStmt, parsetree);

			if (stmt->objtype == OBJECT_FOREIGN_TABLE || stmt->objtype == OBJECT_TABLE)
				check_tables(stmt->relation, InvalidOid);
			break;
		}
		case T_RenameStmt:
		{
			RenameStmt *stmt = castNode(RenameStmt, parsetree);

			/* A column's name may be the name of its field. */
			if (stmt->relation &&
				(stmt->renameType == OBJECT_COLUMN || stmt->renameType == OBJECT_TABLE ||
				 stmt->renameType == OBJECT_FOREIGN_TABLE))
			{
				RangeVar *now = copyObject(stmt->relation);

				if (stmt->renameType != OBJECT_COLUMN)
					now->relname = stmt->newname;
				check_tables(now, InvalidOid);
			}
			break;
		}
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
				DestReceiver *dest, QueryCompletion *qc)
{
	int kind = classify(pstmt->utilityStmt);
	Node *parsetree = kind ? copyObject(pstmt->utilityStmt) : NULL;
	Oid before = kind & DDL_TABLES ? found_before(parsetree) : InvalidOid;

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);

	if (kind == 0)
		return;

	/* The options of columns come as commands of their own in CREATE: the whole is looked at in the end. */
	if ((kind & DDL_TABLES) && context != PROCESS_UTILITY_SUBCOMMAND)
		check_definition(parsetree, before);

	/* A visit is a process: only where there is something to be found, and nobody there who looks.
	 */
	if ((kind & DDL_EXTENSION) && (!IsTransactionState() || !kcf_catalog_has_extension()))
		kind &= ~DDL_EXTENSION;
	pending |= kind;
}

/* The transaction's end is over, invalidations sent and locks released. */
static void
after_transaction(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	int kind = pending;

	if (kind == 0 || !isTopLevel || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	pending = 0;
	if (!isCommit)
		return;
	if (kind & DDL_DATABASES)
		kcf_launcher_look();
	if (kind & DDL_TABLES)
		kcf_database_ddl(MyDatabaseId);
	if (kind & DDL_EXTENSION)
		kcf_launcher_visit(MyDatabaseId);
}

void
kcf_ddl_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterResourceReleaseCallback(after_transaction, NULL);
}
