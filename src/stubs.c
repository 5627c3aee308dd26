/*
 * stubs.c
 *		Stand-ins for what is being built: weak, so that the real ones take over as they come. To be
 *deleted.
 */
#include "postgres.h"

#include "catalog.h"
#include "errlog.h"
#include "fdw.h"
#include "proc.h"
#include "registry.h"
#include "rowmap.h"
#include "snapshot.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/inval.h"

extern const char *kcf_kafka_version(void);

#define WEAK __attribute__((weak))

WEAK void
kcf_errlog_destroy(KcfErrorLog *log, KcfAccount *account)
{
}

WEAK KcfErrorEntry *
kcf_errlog_read(KcfErrorLog *log, int *n)
{
	*n = 0;
	return NULL;
}

WEAK int
kcf_errlog_count(const KcfErrorLog *log)
{
	return 0;
}

WEAK void
kcf_store_destroy(KcfStore *store, KcfAccount *account)
{
}

WEAK void
kcf_store_stats(const KcfStore *store, KcfStoreStats *stats)
{
	memset(stats, 0, sizeof(*stats));
}

WEAK const char *
kcf_reason_name(KcfReason reason)
{
	return "?";
}

WEAK const char *
kcf_kafka_version(void)
{
	return "?";
}

extern const char *kcf_jansson_version(void);

WEAK const char *
kcf_jansson_version(void)
{
	return "?";
}

WEAK void
kcf_snapshot_init(void)
{
}

WEAK void
kcf_fdw_plan_init(void)
{
}

#define NOT_YET ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("not built yet")))

WEAK void
kafkaCacheGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	NOT_YET;
}

WEAK void
kafkaCacheGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	NOT_YET;
}

WEAK ForeignScan *
kafkaCacheGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid,
						 ForeignPath *best_path, List *tlist, List *scan_clauses, Plan *outer_plan)
{
	NOT_YET;
	return NULL;
}

WEAK bool
kafkaCacheIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	return false;
}

WEAK void
kafkaCacheBeginForeignScan(ForeignScanState *node, int eflags)
{
	NOT_YET;
}

WEAK TupleTableSlot *
kafkaCacheIterateForeignScan(ForeignScanState *node)
{
	NOT_YET;
	return NULL;
}

WEAK void
kafkaCacheReScanForeignScan(ForeignScanState *node)
{
}

WEAK void
kafkaCacheEndForeignScan(ForeignScanState *node)
{
}

WEAK Size
kafkaCacheEstimateDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt)
{
	return 0;
}

WEAK void
kafkaCacheInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt, void *coordinate)
{
}

WEAK void
kafkaCacheReInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt,
									 void *coordinate)
{
}

WEAK void
kafkaCacheInitializeWorkerForeignScan(ForeignScanState *node, shm_toc *toc, void *coordinate)
{
}

WEAK void
kafkaCacheExplainForeignScan(ForeignScanState *node, struct ExplainState *es)
{
}

WEAK bool
kafkaCacheAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func,
							  BlockNumber *totalpages)
{
	return false;
}

/* Comes, looks for the extension, stays while it is there. */
WEAK void
kcf_consumer_main(Datum arg)
{
	int database = DatumGetInt32(arg) >> 8;
	uint32 ddl = 0;

	kcf_proc_start("consumer");
	kcf_proc_connect(database);
	for (;;)
	{
		bool present;
		ListCell *lc;

		ddl = pg_atomic_read_u32(&kcf_database(database)->ddl);
		StartTransactionCommand();
		present = kcf_catalog_has_extension();
		if (present)
		{
			foreach (lc, kcf_catalog_tables())
			{
				KcfTable *table = kcf_table_create(MyDatabaseId, lfirst_oid(lc), database, 0);

				if (table)
					kcf_table_set_state(table, KCF_TABLE_CONNECTING, "nothing is built yet");
			}
		}
		CommitTransactionCommand();
		kcf_database_report(database, present);
		if (!present)
			proc_exit(0);
		while (pg_atomic_read_u32(&kcf_database(database)->ddl) == ddl)
			kcf_proc_wait(-1);
	}
}
