/*
 * fdw_product.h
 *		Reading data products: what a query computes, and running it.
 *
 * Process:  backends.
 * Locks:    see product.h.
 * Memory:   the planner's context; the executor's query context.
 * Errors:   0A000 where a plan cannot know a product's keys; when running, those of product.h.
 * Waits:    see product.h.
 */
#ifndef KCF_FDW_PRODUCT_H
#define KCF_FDW_PRODUCT_H

#include "catalog_product.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

struct ExplainState;

/* ---- planning ---- */

typedef enum KcfProductMode
{
	KCF_PRODUCT_CACHED, /* what is cached is scanned */
	KCF_PRODUCT_TARGET, /* what is cached, for a statement that changes it */
	KCF_PRODUCT_BOUND,  /* computed, for keys that its own conditions say */
	KCF_PRODUCT_JOINED  /* computed, for keys that other relations bring */
} KcfProductMode;

/* What a query does with a product: decided by the query alone, before any path is made. */
typedef struct KcfProductPlan
{
	KcfProductMode mode;
	Relids sources; /* JOINED: joined after these; NULL: not decided */
	List *parts;  /* ... which are these sets; nothing but the product connects one with another */
	Relids outer; /* what a path is parameterized by that is joined so */
	List *ways;   /* JOINED: sets that have the whole key */
} KcfProductPlan;

/*
 * Costs that keep a path from being taken where there is another one. Less than the second: joined another way than
 * was decided, so that other keys may be computed. More: a plan that cannot run.
 */
#define KCF_COST_DETOUR 1.0e16
#define KCF_COST_IMPOSSIBLE 1.0e22

/* Our foreign table that a relation of the query is; NULL: none of ours. */
extern KcfTableDef *kcf_product_definition(PlannerInfo *root, const RelOptInfo *rel);
/* Without outer joins, which have numbers of their own since 16. */
extern Relids kcf_base_relids(PlannerInfo *root, Relids relids);
/* NULL: the relation is no product. */
extern const KcfProductPlan *kcf_product_plan(PlannerInfo *root, RelOptInfo *rel, KcfTableDef *def);

/* ---- running ---- */

extern void kcf_product_begin_scan(ForeignScanState *node);
extern void kcf_product_end_scan(ForeignScanState *node);
/* What EXPLAIN ANALYZE says of it. */
extern void kcf_product_explain(ForeignScanState *node, struct ExplainState *es);

#endif /* KCF_FDW_PRODUCT_H */
