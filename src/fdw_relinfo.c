/*
 * fdw_relinfo.c
 *		What the planner is told of a cached table: that its key is unique, how many rows it has, how wide they are.
 *
 * The key is unique because the store has one row per key. The planner learns such things from indexes only, so
 * it is shown one that does not exist: no path is ever built on it, but joins know that they find one row at
 * most, joins that decide nothing are removed, and estimates of distinct values are exact.
 */
#include "postgres.h"

#include "fdw.h"

#include "catalog.h"
#include "fdw_product.h"
#include "registry.h"
#include "store.h"

#include "catalog/pg_am_d.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "optimizer/cost.h"
#include "utils/lsyscache.h"

/* For a table of which nothing is known yet. */
#define DEFAULT_ROWS 1000
#define DEFAULT_PAGES 10

static get_relation_info_hook_type prev_relation_info = NULL;

/* ---- the made-up index ---- */

static IndexOptInfo *
make_index(RelOptInfo *rel, const KcfKeyType *key)
{
	IndexOptInfo *index = makeNode(IndexOptInfo);
	int n = key->nkeys;

	index->indexoid = InvalidOid;
	index->hypothetical = true;
	index->rel = rel;
	index->ncolumns = index->nkeycolumns = n;
	index->indexkeys = palloc(n * sizeof(int));
	index->indexcollations = palloc(n * sizeof(Oid));
	index->opfamily = palloc(n * sizeof(Oid));
	index->opcintype = palloc(n * sizeof(Oid));
	index->canreturn = palloc0(n * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		const KcfKeyColumn *column = &key->keys[i];
		Form_pg_attribute att = TupleDescAttr(key->desc, column->attnum - 1);
		Var *var = makeVar(rel->relid, column->attnum, att->atttypid, att->atttypmod,
						   att->attcollation, 0);

		index->indexkeys[i] = column->attnum;
		index->indexcollations[i] = column->collation;
		index->opfamily[i] = column->opfamily;
		index->opcintype[i] = column->opcintype;
		index->indextlist =
			lappend(index->indextlist, makeTargetEntry((Expr *) var, i + 1, NULL, false));
	}
	/* Not a B-tree: nobody may think that it could be asked for its ends. */
	index->relam = HASH_AM_OID;
	index->tree_height = -1;
	index->unique = true;
	index->immediate = true;
	return index;
}

static void
relation_info(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	if (prev_relation_info)
		prev_relation_info(root, relid, inhparent, rel);
	/* A parent's children may have its keys too. */
	if (rel->fdwroutine && rel->fdwroutine->GetForeignRelSize == kafkaCacheGetForeignRelSize &&
		!inhparent)
		rel->indexlist = lappend(rel->indexlist, make_index(rel, &kcf_catalog_cached(relid)->key));
}

void
kcf_fdw_plan_init(void)
{
	prev_relation_info = get_relation_info_hook;
	get_relation_info_hook = relation_info;
}

/* ---- size ---- */

/*
 * The figures of the present store. No pin: the store may be freed under our eyes, but then it is no longer
 * served afterwards, and what was read is dropped.
 */
static bool
served_stats(KcfTable *table, uint64 fingerprint, KcfStoreStats *stats)
{
	KcfStore *store;
	KcfStore *again;

	store = kcf_table_store(table, fingerprint, kcf_clock_published(table->database, table->clock));
	while (store)
	{
		kcf_store_stats(store, stats);
		pg_read_barrier();
		again =
			kcf_table_store(table, fingerprint, kcf_clock_published(table->database, table->clock));
		if (again == store)
			return true;
		store = again;
	}
	return false;
}

/* Of a load in progress; whoever holds the lock may look at it. */
static bool
loading_stats(KcfTable *table, uint64 fingerprint, KcfStoreStats *stats)
{
	bool found = false;

	LWLockAcquire(kcf_registry_lock, LW_SHARED);
	if (table->loading && table->loading_fingerprint == fingerprint)
	{
		kcf_store_stats(table->loading, stats);
		found = true;
	}
	LWLockRelease(kcf_registry_lock);
	return found;
}

/*
 * The planner guesses 32 bytes for each column of variable length, where ANALYZE has not told it more. We know
 * the length of the whole row: scale the guesses to it.
 */
static void
set_widths(RelOptInfo *rel, Oid relid, TupleDesc desc, double tuple_len)
{
	double fixed = MAXALIGN(SizeofHeapTupleHeader);
	double guessed = 0;
	double scale;
	ListCell *lc;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		if (att->attlen > 0)
			fixed += att->attlen;
		else
			guessed += get_typavgwidth(att->atttypid, att->atttypmod);
	}
	if (guessed <= 0 || tuple_len <= 0)
		return;
	scale = Max(tuple_len - fixed, 1) / guessed;

	foreach (lc, rel->reltarget->exprs)
	{
		Var *var = lfirst(lc);
		Form_pg_attribute att;

		if (!IsA(var, Var) || (Index) var->varno != rel->relid || var->varattno <= 0)
			continue;
		att = TupleDescAttr(desc, var->varattno - 1);
		if (att->attlen < 0 && get_attavgwidth(relid, var->varattno) <= 0)
		{
			double width = scale * get_typavgwidth(att->atttypid, att->atttypmod);

			rel->attr_widths[var->varattno - rel->min_attr] = (int32) Max(1, Min(width, 1 << 24));
		}
	}
}

/* A product is as large as what it is asked for: whichever keys others bring, it has a row for them. */
static void
set_product_tuples(PlannerInfo *root, RelOptInfo *rel, KcfTableDef *def)
{
	const KcfProductPlan *product = kcf_product_plan(root, rel, def);
	int relid = -1;

	if (product == NULL)
		return;
	if (product->mode == KCF_PRODUCT_BOUND)
		rel->tuples = Max(rel->tuples, 1);
	while ((relid = bms_next_member(product->sources, relid)) >= 0)
	{
		RelOptInfo *source = root->simple_rel_array[relid];

		rel->tuples = Max(rel->tuples, Max(source->tuples, source->rows));
	}
}

void
kcf_fdw_set_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	KcfTableDef *def = kcf_catalog_cached(relid);
	KcfTable *table = kcf_registry_lock ? kcf_table_find(MyDatabaseId, relid) : NULL;
	KcfStoreStats stats;

	if (table && (served_stats(table, def->fingerprint, &stats) ||
				  loading_stats(table, def->fingerprint, &stats)))
	{
		baserel->tuples = Max(stats.entries, 0);
		baserel->pages = Min(stats.slab_bytes / BLCKSZ, MaxBlockNumber);
		set_widths(baserel, relid, def->desc, stats.avg_tuple_len);
	}
	else if (baserel->tuples <= 0)
	{
		baserel->tuples = DEFAULT_ROWS;
		baserel->pages = DEFAULT_PAGES;
	}
	set_product_tuples(root, baserel, def);
	set_baserel_size_estimates(root, baserel);
}
