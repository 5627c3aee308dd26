/*
 * kafka_cache_fdw.c
 *		Composition root: what this library consists of, in the order in which it is set up.
 *
 * Compacted Kafka topics as tables: a consumer process for each database reads the topics into
 * shared memory, and foreign tables show what lies there. Nothing is decided in this file. Where to
 * read on:
 *
 *		src/proc_launcher.c		which processes run
 *		src/proc_consumer.c		what a consumer does all day
 *		src/store.h				how the rows lie in memory
 *		src/snapshot.h			what a statement sees
 *		docs/architecture.md	how all of it fits together
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "src/arena.h"
#include "src/ddl.h"
#include "src/errlog.h"
#include "src/fdw.h"
#include "src/flights.h"
#include "src/guc.h"
#include "src/keytype.h"
#include "src/pending.h"
#include "src/pins.h"
#include "src/proc_launcher.h"
#include "src/refreshq.h"
#include "src/registry.h"
#include "src/rules.h"
#include "src/sendq.h"
#include "src/shmem.h"
#include "src/snapshot.h"
#include "src/withdraw.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(kafka_cache_fdw_handler);

void
_PG_init(void)
{
	/*
	 * Shared memory and the launcher exist only when the postmaster has loaded us. Without them
	 * nothing works, and since this is where every function of ours begins its life, every one of
	 * them says so. But pg_upgrade's servers may be without: it needs the validator, no more, and
	 * settings that only the postmaster may define would end its session.
	 */
	if (!process_shared_preload_libraries_in_progress)
	{
		if (IsBinaryUpgrade)
			return;
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("kafka_cache_fdw must be loaded via shared_preload_libraries"),
						errhint("Add this line to postgresql.conf and restart the server: "
								"shared_preload_libraries = 'kafka_cache_fdw'")));
	}

	kcf_guc_init();
	kcf_keytype_seed();

	/* pg_upgrade moves definitions only: no memory, no processes, no opinion on DDL. */
	if (IsBinaryUpgrade)
		return;

	kcf_shmem_add(kcf_registry_shmem_size, kcf_registry_shmem_init);
	kcf_shmem_add(kcf_tables_shmem_size, kcf_tables_shmem_init);
	kcf_shmem_add(kcf_errlog_shmem_size, kcf_errlog_shmem_init);
	kcf_shmem_add(kcf_pins_shmem_size, kcf_pins_shmem_init);
	kcf_shmem_add(kcf_sendq_shmem_size, kcf_sendq_shmem_init);
	kcf_shmem_add(kcf_refreshq_shmem_size, kcf_refreshq_shmem_init);
	kcf_shmem_add(kcf_flights_shmem_size, kcf_flights_shmem_init);
	kcf_shmem_add(kcf_arena_shmem_size, kcf_arena_shmem_init);
	kcf_shmem_init();

	kcf_launcher_register();

	/* Hooks: the last one installed runs first. */
	kcf_ddl_init();
	kcf_withdraw_init();
	/* The pins go first at the end of a transaction, then what it has written. */
	kcf_pending_init();
	kcf_snapshot_init();
	kcf_fdw_plan_init();
	kcf_fdw_product_init();
	kcf_fdw_modify_init();
	kcf_rules_init();
}

/* CREATE FOREIGN DATA WRAPPER … HANDLER: callbacks in the order of the server's documentation. */
Datum
kafka_cache_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	/* scanning */
	routine->GetForeignRelSize = kafkaCacheGetForeignRelSize;
	routine->GetForeignPaths = kafkaCacheGetForeignPaths;
	routine->GetForeignPlan = kafkaCacheGetForeignPlan;
	routine->BeginForeignScan = kafkaCacheBeginForeignScan;
	routine->IterateForeignScan = kafkaCacheIterateForeignScan;
	routine->ReScanForeignScan = kafkaCacheReScanForeignScan;
	routine->EndForeignScan = kafkaCacheEndForeignScan;

	/* joins and upper relations: the executor's own are fast enough on rows that lie in memory */

	/* updating; TRUNCATE would have to know every key, and batches of rows would save nothing */
	routine->AddForeignUpdateTargets = kafkaCacheAddForeignUpdateTargets;
	routine->PlanForeignModify = kafkaCachePlanForeignModify;
	routine->BeginForeignModify = kafkaCacheBeginForeignModify;
	routine->ExecForeignInsert = kafkaCacheExecForeignInsert;
	routine->ExecForeignUpdate = kafkaCacheExecForeignUpdate;
	routine->ExecForeignDelete = kafkaCacheExecForeignDelete;
	routine->EndForeignModify = kafkaCacheEndForeignModify;
	routine->BeginForeignInsert = kafkaCacheBeginForeignInsert;
	routine->EndForeignInsert = kafkaCacheEndForeignInsert;
	routine->IsForeignRelUpdatable = kafkaCacheIsForeignRelUpdatable;

	/* EXPLAIN and ANALYZE */
	routine->ExplainForeignScan = kafkaCacheExplainForeignScan;
	routine->ExplainForeignModify = kafkaCacheExplainForeignModify;
	routine->AnalyzeForeignTable = kafkaCacheAnalyzeForeignTable;

	/* IMPORT FOREIGN SCHEMA: a topic does not tell what its records look like */

	/* parallel execution */
	routine->IsForeignScanParallelSafe = kafkaCacheIsForeignScanParallelSafe;
	routine->EstimateDSMForeignScan = kafkaCacheEstimateDSMForeignScan;
	routine->InitializeDSMForeignScan = kafkaCacheInitializeDSMForeignScan;
	routine->ReInitializeDSMForeignScan = kafkaCacheReInitializeDSMForeignScan;
	routine->InitializeWorkerForeignScan = kafkaCacheInitializeWorkerForeignScan;

	/* asynchronous execution: there is nothing to wait for */

	PG_RETURN_POINTER(routine);
}
