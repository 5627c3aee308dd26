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

#include "catalog.h"
#include "compat.h"
#include "foreign/fdwapi.h"

/*
 * What a plan node carries. fdw_exprs has the values of the key columns, in their order, or the one array;
 * fdw_recheck_quals the clauses they come from.
 */
typedef enum KcfPlanItem
{
	KCF_PLAN_FLAGS, /* Integer, KCF_PLAN_* */
	KCF_PLAN_TYPES  /* OID list: of the values, or of the array's elements */
} KcfPlanItem;

#define KCF_PLAN_LOOKUP 0x01  /* by key; else all rows */
#define KCF_PLAN_ARRAY 0x02   /* by an array of keys */
#define KCF_PLAN_SYSTEM 0x04  /* system columns of the tuple's header are asked for */
#define KCF_PLAN_PLACE 0x08   /* ctid is to say where the row lies: for UPDATE and DELETE */
#define KCF_PLAN_COMPUTE 0x10 /* by key, and what is missing is computed */
#define KCF_PLAN_IMPOSSIBLE                                                                        \
	0x20 /* a product's keys cannot be known in this plan: it must not run */

/* fdw_plan.c */
extern void kafkaCacheGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid);
extern void kafkaCacheGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid);
extern ForeignScan *kafkaCacheGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel,
											 Oid foreigntableid, ForeignPath *best_path,
											 List *tlist, List *scan_clauses, Plan *outer_plan);
extern bool kafkaCacheIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel,
												RangeTblEntry *rte);

/* fdw_relinfo.c: the made-up unique index, by get_relation_info_hook; and what is known of a table's size */
extern void kcf_fdw_plan_init(void);
extern void kcf_fdw_set_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid);

/* fdw_product_join.c: hooks */
extern void kcf_fdw_product_init(void);

/* fdw_scan.c */
extern void kafkaCacheBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *kafkaCacheIterateForeignScan(ForeignScanState *node);
extern void kafkaCacheReScanForeignScan(ForeignScanState *node);
extern void kafkaCacheEndForeignScan(ForeignScanState *node);
extern Size kafkaCacheEstimateDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt);
extern void kafkaCacheInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt,
											   void *coordinate);
extern void kafkaCacheReInitializeDSMForeignScan(ForeignScanState *node, ParallelContext *pcxt,
												 void *coordinate);
extern void kafkaCacheInitializeWorkerForeignScan(ForeignScanState *node, shm_toc *toc,
												  void *coordinate);

/* fdw_modify_plan.c */
extern void kcf_fdw_modify_init(void);
extern void kcf_fdw_refuse_readonly(const KcfTableDef *def);
pg_noreturn extern void kcf_fdw_refuse_conflict(Oid relid);
extern int kafkaCacheIsForeignRelUpdatable(Relation rel);
extern void kafkaCacheAddForeignUpdateTargets(PlannerInfo *root, Index rtindex,
											  RangeTblEntry *target_rte, Relation target_relation);
extern List *kafkaCachePlanForeignModify(PlannerInfo *root, ModifyTable *plan, Index resultRelation,
										 int subplan_index);

/* fdw_modify.c */
extern void kafkaCacheBeginForeignModify(ModifyTableState *mtstate, ResultRelInfo *rinfo,
										 List *fdw_private, int subplan_index, int eflags);
extern void kafkaCacheEndForeignModify(EState *estate, ResultRelInfo *rinfo);
extern void kafkaCacheBeginForeignInsert(ModifyTableState *mtstate, ResultRelInfo *rinfo);
extern void kafkaCacheEndForeignInsert(EState *estate, ResultRelInfo *rinfo);
extern TupleTableSlot *kafkaCacheExecForeignInsert(EState *estate, ResultRelInfo *rinfo,
												   TupleTableSlot *slot, TupleTableSlot *planSlot);
extern TupleTableSlot *kafkaCacheExecForeignUpdate(EState *estate, ResultRelInfo *rinfo,
												   TupleTableSlot *slot, TupleTableSlot *planSlot);
extern TupleTableSlot *kafkaCacheExecForeignDelete(EState *estate, ResultRelInfo *rinfo,
												   TupleTableSlot *slot, TupleTableSlot *planSlot);

/* fdw_explain.c */
extern void kafkaCacheExplainForeignScan(ForeignScanState *node, struct ExplainState *es);
extern void kafkaCacheExplainForeignModify(ModifyTableState *mtstate, ResultRelInfo *rinfo,
										   List *fdw_private, int subplan_index,
										   struct ExplainState *es);

/* fdw_analyze.c */
extern bool kafkaCacheAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func,
										  BlockNumber *totalpages);

#endif /* KCF_FDW_H */
