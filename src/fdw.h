/*
 * fdw.h
 *		The callbacks of the foreign data wrapper and what its files share.
 *
 * Process:  backends.
 * Locks:    none of ours.
 * Memory:   planner and executor contexts.
 * Errors:   ereport.
 * Waits:    in BeginForeignScan, see snapshot.h.
 */
#ifndef KCF_FDW_H
#define KCF_FDW_H

#include "foreign/fdwapi.h"

/* fdw_plan.c */
extern void kafkaCacheGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid);
extern void kafkaCacheGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid);
extern ForeignScan *kafkaCacheGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid,
											 ForeignPath *best_path, List *tlist, List *scan_clauses,
											 Plan *outer_plan);
extern bool kafkaCacheIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);
extern void kcf_fdw_plan_init(void); /* the made-up unique index: get_relation_info_hook */

/* fdw_scan.c */
extern void kafkaCacheBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *kafkaCacheIterateForeignScan(ForeignScanState *node);
extern void kafkaCacheReScanForeignScan(ForeignScanState *node);
extern void kafkaCacheEndForeignScan(ForeignScanState *node);
extern Size kafkaCacheEstimateDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt);
extern void kafkaCacheInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt, void *coordinate);
extern void kafkaCacheReInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt, void *coordinate);
extern void kafkaCacheInitializeWorkerForeignScan(ForeignScanState *node, shm_toc *toc, void *coordinate);

/* fdw_explain.c */
extern void kafkaCacheExplainForeignScan(ForeignScanState *node, struct ExplainState *es);

/* fdw_analyze.c */
extern bool kafkaCacheAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func, BlockNumber *totalpages);

#endif /* KCF_FDW_H */
