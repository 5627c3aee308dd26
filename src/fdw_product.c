/*
 * fdw_product.c
 *		What a query computes of the data products that it reads: decided by what the query says, not by its costs.
 *
 * A product is computed for the keys that the query gives it, be it by conditions on the product itself or by rows of
 * other relations. Which rows those are depends on what they have been joined with before, and that would be the
 * planner's choice. So for each product it is decided beforehand after which relations, its sources, it is joined: all
 * that are connected with those that bring the key, and do not need the product itself for it. What other conditions
 * leave of them is what is asked for. Any other order costs more than all else.
 */
#include "postgres.h"

#include "fdw_product.h"

#include "compat.h"
#include "fdw.h"
#include "fdw_sources.h"

#include "miscadmin.h"
#include "parser/parsetree.h"

/* ---- the products of a query ---- */

/* Our foreign table of a base relation that is read; NULL: none of ours. */
KcfTableDef *
kcf_product_definition(PlannerInfo *root, const RelOptInfo *rel)
{
	if (rel == NULL || rel->fdwroutine == NULL ||
		rel->fdwroutine->GetForeignPaths != kafkaCacheGetForeignPaths)
		return NULL;
	return kcf_catalog_cached(planner_rt_fetch(rel->relid, root)->relid);
}

static bool
is_product_rel(PlannerInfo *root, int relid)
{
	RelOptInfo *rel = root->simple_rel_array[relid];
	KcfTableDef *def;

	if (rel == NULL || rel->reloptkind != RELOPT_BASEREL || planner_rt_fetch(relid, root)->inh)
		return false;
	def = kcf_product_definition(root, rel);
	return def && kcf_is_product(def) && !bms_is_member(relid, root->all_result_relids);
}

/* In the order of FROM. */
static List *
products_in_order(PlannerInfo *root, Node *node, List *relids)
{
	ListCell *lc;

	check_stack_depth();
	if (node == NULL)
		return relids;
	if (IsA(node, RangeTblRef))
	{
		int relid = ((RangeTblRef *) node)->rtindex;

		return is_product_rel(root, relid) ? lappend_int(relids, relid) : relids;
	}
	if (IsA(node, JoinExpr))
	{
		relids = products_in_order(root, ((JoinExpr *) node)->larg, relids);
		return products_in_order(root, ((JoinExpr *) node)->rarg, relids);
	}
	foreach (lc, castNode(FromExpr, node)->fromlist)
		relids = products_in_order(root, lfirst(lc), relids);
	return relids;
}

/* ---- after which relations a product is joined ---- */

typedef struct Growth
{
	PlannerInfo *root;
	int product;
	Relids keys;    /* relations that bring the key */
	Relids placed;  /* those that do not wait for the product themselves */
	Relids sources; /* so far */
	bool dividing;  /* which of them belong together? */
} Growth;

/* Outer joins have numbers of their own, since 16. */
Relids
kcf_base_relids(PlannerInfo *root, Relids relids)
{
	return bms_intersect(relids, root->all_baserels);
}

/*
 * May this relation be joined before the product is, as far as outer joins around the product are concerned? On the
 * inner side of one it gets its keys either from there or from outside.
 */
static bool
in_reach(const Growth *g, int relid)
{
	ListCell *lc;

	if (relid == g->product || !bms_is_member(relid, g->placed))
		return false;
	foreach (lc, g->root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);
		bool inside = bms_is_member(relid, join->syn_righthand);

		if (bms_is_member(g->product, join->syn_righthand) &&
			inside != (g->dividing ? bms_overlap(g->sources, join->syn_righthand)
								   : bms_is_subset(g->keys, join->syn_righthand)))
			return false;
		if (join->jointype == JOIN_FULL && bms_is_member(g->product, join->syn_lefthand) &&
			!bms_is_member(relid, join->syn_lefthand))
			return false;
	}
	return true;
}

static bool
all_in_reach(const Growth *g, Relids relids)
{
	int relid = -1;

	while ((relid = bms_next_member(relids, relid)) >= 0)
	{
		if (!in_reach(g, relid))
			return false;
	}
	return true;
}

static bool
can_be_made_unique(const SpecialJoinInfo *join)
{
	return join->jointype == JOIN_SEMI && (join->semi_can_btree || join->semi_can_hash);
}

/* Outer joins and semi-joins are taken with the whole of their inner side. */
static void
grow_by_joins(Growth *g)
{
	ListCell *lc;

	foreach (lc, g->root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);
		Relids inner = kcf_base_relids(g->root, join->syn_righthand);
		Relids outer = kcf_base_relids(g->root, join->min_lefthand);
		bool begun = bms_overlap(inner, g->sources);

		if (bms_is_member(g->product, inner))
		{
			/* the join that the key comes through has to be possible */
			if (!g->dividing && join->jointype != JOIN_FULL && !bms_is_subset(g->keys, inner) &&
				all_in_reach(g, outer))
				g->sources = bms_add_members(g->sources, outer);
			continue;
		}
		if (join->jointype == JOIN_FULL)
		{
			outer = kcf_base_relids(g->root, join->syn_lefthand);
			if (bms_is_member(g->product, outer) || !(begun || bms_overlap(outer, g->sources)))
				continue;
		}
		else if (bms_is_member(g->product, outer))
		{
			/* p.key IN (SELECT …): as if it were a join with the distinct rows of that */
			if (!begun || !can_be_made_unique(join))
				continue;
			outer = NULL;
		}
		else if (!begun && !bms_is_subset(outer, g->sources))
			continue;
		if (all_in_reach(g, bms_union(inner, outer)))
			g->sources = bms_add_members(bms_add_members(g->sources, inner), outer);
	}
}

/* Is it on the inner side of an outer join, or in a full one, and the product is not? */
static bool
in_another_join(const Growth *g, int relid)
{
	ListCell *lc;

	foreach (lc, g->root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);

		if (bms_is_member(relid, join->syn_righthand) &&
			!bms_is_member(g->product, join->syn_righthand))
			return true;
		if (join->jointype == JOIN_FULL && bms_is_member(relid, join->syn_lefthand) &&
			!bms_is_member(g->product, join->syn_lefthand))
			return true;
	}
	return false;
}

static bool
joined_by_clause(const Growth *g, const RelOptInfo *rel, Relids both)
{
	ListCell *lc;

	foreach (lc, rel->joininfo)
	{
		Relids used = kcf_base_relids(g->root, lfirst_node(RestrictInfo, lc)->clause_relids);

		if (bms_overlap(used, g->sources) && bms_is_subset(used, both))
			return true;
	}
	return false;
}

static bool
joined_by_equality(const Growth *g, int relid)
{
	ListCell *lc;

	foreach (lc, g->root->eq_classes)
	{
		EquivalenceClass *ec = lfirst_node(EquivalenceClass, lc);
		bool here = false;
		bool there = false;
		ListCell *lc2;

		if (ec->ec_has_const || ec->ec_has_volatile || !bms_is_member(relid, ec->ec_relids) ||
			!bms_overlap(g->sources, ec->ec_relids))
			continue;
		foreach (lc2, ec->ec_members)
		{
			EquivalenceMember *em = lfirst_node(EquivalenceMember, lc2);
			Relids used = kcf_base_relids(g->root, em->em_relids);

			if (bms_is_empty(used))
				continue;
			here |= bms_is_subset(used, g->sources);
			there |= bms_membership(used) == BMS_SINGLETON && bms_is_member(relid, used);
		}
		if (here && there)
			return true;
	}
	return false;
}

/* Relations that are joined with the sources by conditions that do not need the product. */
static void
grow_by_conditions(Growth *g)
{
	int relid = -1;

	while ((relid = bms_next_member(g->placed, relid)) >= 0)
	{
		RelOptInfo *rel = g->root->simple_rel_array[relid];
		Relids both;

		if (bms_is_member(relid, g->sources) || !in_reach(g, relid) || in_another_join(g, relid))
			continue;
		both = bms_add_member(bms_copy(g->sources), relid);
		if (bms_is_subset(rel->lateral_relids, g->sources) &&
			(!bms_is_empty(rel->lateral_relids) || joined_by_clause(g, rel, both) ||
			 joined_by_equality(g, relid)))
			g->sources = both;
	}
}

static void
grow_by_references(Growth *g)
{
	int relid = -1;

	while ((relid = bms_next_member(g->sources, relid)) >= 0)
		g->sources = bms_add_members(
			g->sources, kcf_base_relids(g->root, g->root->simple_rel_array[relid]->lateral_relids));
}

static void
grow(Growth *g)
{
	int before;

	do
	{
		before = bms_num_members(g->sources);
		grow_by_references(g);
		grow_by_joins(g);
		grow_by_conditions(g);
	} while (bms_num_members(g->sources) > before);
}

/* The sets of sources that have nothing to do with each other: all their combinations are asked for. */
static List *
divide(const Growth *whole)
{
	List *parts = NIL;
	int relid = -1;

	while ((relid = bms_next_member(whole->sources, relid)) >= 0)
	{
		Growth g = *whole;
		ListCell *lc;

		g.placed = whole->sources;
		g.dividing = true;
		g.sources = bms_make_singleton(relid);
		grow(&g);
		foreach (lc, parts)
		{
			if (!bms_overlap(lfirst(lc), g.sources))
				continue;
			g.sources = bms_add_members(g.sources, lfirst(lc));
			parts = foreach_delete_current(parts, lc);
		}
		parts = lappend(parts, g.sources);
	}
	return parts;
}

/* Has it the whole of each outer join and semi-join that it has a part of the inner side of? */
static bool
is_complete(const Growth *g)
{
	ListCell *lc;

	foreach (lc, g->root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);
		Relids inner = kcf_base_relids(g->root, join->syn_righthand);
		Relids outer = kcf_base_relids(g->root, join->min_lefthand);

		if (bms_is_member(g->product, inner))
		{
			if (join->jointype != JOIN_FULL && !bms_is_subset(g->keys, inner) &&
				!bms_is_subset(outer, g->sources))
				return false;
			continue;
		}
		if (join->jointype == JOIN_FULL)
		{
			Relids both = kcf_base_relids(g->root, bms_union(inner, join->syn_lefthand));

			if (!bms_is_member(g->product, both) && bms_overlap(both, g->sources) &&
				!bms_is_subset(both, g->sources))
				return false;
			continue;
		}
		if (!bms_overlap(inner, g->sources))
			continue;
		if (!bms_is_subset(inner, g->sources) ||
			(!bms_is_subset(outer, g->sources) &&
			 !(bms_is_member(g->product, outer) && can_be_made_unique(join))))
			return false;
	}
	return true;
}

/* Can these relations be joined, with what it takes, before the product is? */
static bool
is_usable(PlannerInfo *root, int product, Relids way, Relids placed)
{
	Growth g = { .root = root, .product = product, .placed = placed };

	g.keys = kcf_base_relids(root, way);
	if (!bms_is_subset(g.keys, placed))
		return false;
	g.sources = bms_copy(g.keys);
	grow(&g);
	return !bms_is_member(product, g.sources) && is_complete(&g);
}

/* A key from the inner side of a semi-join that the product is outside of, which cannot be turned round. */
static bool
is_one_way(PlannerInfo *root, int product, Relids way)
{
	ListCell *lc;

	foreach (lc, root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);

		if (join->jointype == JOIN_SEMI && bms_is_member(product, join->min_lefthand) &&
			bms_overlap(way, join->syn_righthand) && !can_be_made_unique(join))
			return true;
	}
	return false;
}

static void
decide_sources(PlannerInfo *root, int product, Relids placed, KcfProductPlan *plan)
{
	Growth g = { .root = root, .product = product, .placed = placed };
	Relids ways = NULL;
	ListCell *lc;

	foreach (lc, plan->ways)
		ways = bms_add_members(ways, lfirst(lc));
	g.keys = kcf_base_relids(root, ways);
	g.sources = bms_copy(g.keys);
	grow(&g);
	if (bms_is_member(product, g.sources) || !is_complete(&g))
		return;
	plan->sources = g.sources;
	plan->parts = divide(&g);
	plan->outer = bms_union(ways, g.sources);
}

/* ---- what is done with each product ---- */

/* On the inner side of an outer join or a semi-join a key comes from there where it can: then no order is in the way. */
static List *
nearest_ways(PlannerInfo *root, int product, List *ways)
{
	ListCell *lc;
	ListCell *lc2;

	foreach (lc, root->join_info_list)
	{
		SpecialJoinInfo *join = lfirst(lc);
		List *inside = NIL;

		if (!bms_is_member(product, join->syn_righthand))
			continue;
		foreach (lc2, ways)
		{
			if (bms_is_subset(kcf_base_relids(root, lfirst(lc2)), join->syn_righthand))
				inside = lappend(inside, lfirst(lc2));
		}
		if (inside != NIL)
			ways = inside;
	}
	return ways;
}

static bool
place(PlannerInfo *root, int relid, List *ways, Relids placed)
{
	KcfProductPlan *plan = root->simple_rel_array[relid]->fdw_private;
	ListCell *lc;

	foreach (lc, ways)
	{
		if (is_usable(root, relid, lfirst(lc), placed))
			plan->ways = lappend(plan->ways, lfirst(lc));
	}
	if (plan->ways == NIL)
		return false;
	if (linitial(plan->ways) == NULL)
		plan->mode = KCF_PRODUCT_BOUND;
	else
	{
		plan->mode = KCF_PRODUCT_JOINED;
		plan->ways = nearest_ways(root, relid, plan->ways);
		decide_sources(root, relid, placed, plan);
	}
	return true;
}

/*
 * In rounds: a product is computed when its key can be had from relations that are no products, or from products for
 * which it is decided what is done. Where only products are left that have each other for a key, the first in FROM is
 * scanned.
 */
static void
decide(PlannerInfo *root)
{
	List *products = products_in_order(root, (Node *) root->parse->jointree, NIL);
	List *waiting = NIL;
	List *ways = NIL; /* of each that waits */
	Relids placed = bms_copy(root->all_baserels);
	ListCell *lc;

	foreach (lc, products)
	{
		int relid = lfirst_int(lc);
		RelOptInfo *rel = root->simple_rel_array[relid];
		bool single;
		List *sets = kcf_key_sources(root, rel, &kcf_product_definition(root, rel)->key, &single);
		KcfProductPlan *plan = palloc0(sizeof(KcfProductPlan));
		List *open = NIL;
		ListCell *lc2;

		rel->fdw_private = plan;
		foreach (lc2, sets)
		{
			if (!is_one_way(root, relid, lfirst(lc2)))
				open = lappend(open, lfirst(lc2));
		}
		if (open == NIL && sets != NIL)
		{
			/* by key, but the rows that have the keys cannot come first */
			plan->mode = KCF_PRODUCT_JOINED;
			plan->ways = sets;
		}
		/* without any way to its keys it is a relation like others, and with conditions of its own */
		if (open == NIL || (linitial(open) == NULL && place(root, relid, open, NULL)))
			continue;
		waiting = lappend_int(waiting, relid);
		ways = lappend(ways, open);
		placed = bms_del_member(placed, relid);
	}
	while (waiting != NIL)
	{
		bool progress = false;

		for (int i = 0; i < list_length(waiting);)
		{
			if (!place(root, list_nth_int(waiting, i), list_nth(ways, i), placed))
			{
				i++;
				continue;
			}
			placed = bms_add_member(placed, list_nth_int(waiting, i));
			waiting = list_delete_nth_cell(waiting, i);
			ways = list_delete_nth_cell(ways, i);
			progress = true;
		}
		if (!progress)
		{
			placed = bms_add_member(placed, linitial_int(waiting));
			waiting = list_delete_first(waiting);
			ways = list_delete_first(ways);
		}
	}
}

/* One of the tables under a partitioned one or a UNION ALL: its keys come from what is no product. */
static KcfProductPlan *
decide_member(PlannerInfo *root, RelOptInfo *rel, const KcfTableDef *def)
{
	KcfProductPlan *plan = palloc0(sizeof(KcfProductPlan));
	Relids others = bms_copy(root->all_baserels);
	bool single;
	int relid = -1;
	ListCell *lc;

	while ((relid = bms_next_member(root->all_baserels, relid)) >= 0)
	{
		if (is_product_rel(root, relid))
			others = bms_del_member(others, relid);
	}
	foreach (lc, kcf_key_sources(root, rel, &def->key, &single))
	{
		if (bms_is_subset(kcf_base_relids(root, lfirst(lc)), others))
			plan->ways = lappend(plan->ways, lfirst(lc));
	}
	if (plan->ways != NIL)
		plan->mode = linitial(plan->ways) ? KCF_PRODUCT_JOINED : KCF_PRODUCT_BOUND;
	return plan;
}

const KcfProductPlan *
kcf_product_plan(PlannerInfo *root, RelOptInfo *rel, KcfTableDef *def)
{
	static const KcfProductPlan target = { .mode = KCF_PRODUCT_TARGET };

	if (!kcf_is_product(def))
		return NULL;
	if (bms_is_member(rel->relid, root->all_result_relids))
		return &target;
	if (rel->fdw_private == NULL)
	{
		if (is_product_rel(root, rel->relid))
			decide(root);
		if (rel->fdw_private == NULL)
			rel->fdw_private = decide_member(root, rel, def);
	}
	return rel->fdw_private;
}
