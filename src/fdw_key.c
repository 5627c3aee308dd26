/*
 * fdw_key.c
 *		Recognizing clauses that bind a table's key.
 *
 * A clause is taken only where the hash table's idea of equality is the operator's: the "=" of the key's type,
 * under a collation that compares like the key's. Of operators between types only those between integers are
 * taken, whose values can be brought to the key's type without changing them.
 */
#include "postgres.h"

#include "fdw_key.h"

#include "access/stratnum.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

static Node *
strip_relabel(Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* The number of the key column that this is, -1: none. */
static int
key_column(const KcfKeyType *key, RelOptInfo *rel, Node *node)
{
	Var *var = (Var *) strip_relabel(node);

	if (var == NULL || !IsA(var, Var) || (Index) var->varno != rel->relid || var->varlevelsup != 0)
		return -1;
	for (int i = 0; i < key->nkeys; i++)
	{
		if (key->keys[i].attnum == var->varattno)
			return i;
	}
	return -1;
}

/* Deterministic collations all agree on what is equal. */
static bool
same_equality(const KcfKeyColumn *column, Oid collation)
{
	if (collation == column->collation || !OidIsValid(collation))
		return true;
	return (!OidIsValid(column->collation) || get_collation_isdeterministic(column->collation)) &&
		   get_collation_isdeterministic(collation);
}

/* Is this operator, with the key on its left, the key's own equality? */
static bool
is_key_equality(const KcfKeyColumn *column, Oid opno, Oid collation, Oid *type)
{
	Oid left;
	Oid right;

	if (!OidIsValid(opno) || !same_equality(column, collation))
		return false;
	if (opno == column->eq_opr)
	{
		*type = column->typid;
		return true;
	}
	if (!is_integer(column->typid))
		return false;
	op_input_types(opno, &left, &right);
	*type = right;
	return left == column->typid && is_integer(right) &&
		   get_op_opfamily_strategy(opno, column->opfamily) == BTEqualStrategyNumber;
}

/* Rows may be compared across their types, column by column; their hashes may not. */
static bool
is_comparable(const KcfKeyColumn *column, Oid value_type)
{
	return column->opcintype != RECORDOID || getBaseType(value_type) == column->typid;
}

static bool
match_sides(PlannerInfo *root, const KcfKeyType *key, RelOptInfo *rel, Node *left, Node *right,
			Oid opno, Oid collation, KcfKeyMatch *match)
{
	const KcfKeyColumn *column;

	match->column = key_column(key, rel, left);
	if (match->column < 0)
		return false;
	column = &key->keys[match->column];
	match->value = (Expr *) right;
	return is_key_equality(column, opno, collation, &match->type) &&
		   (match->array || is_comparable(column, exprType(right))) &&
		   !bms_is_member(rel->relid, pull_varnos(root, right)) &&
		   !contain_volatile_functions(right);
}

bool
kcf_key_match(PlannerInfo *root, const KcfKeyType *key, RelOptInfo *rel, RestrictInfo *rinfo,
			  KcfKeyMatch *match)
{
	if (rinfo->pseudoconstant || !restriction_is_securely_promotable(rinfo, rel))
		return false;

	if (is_opclause(rinfo->clause))
	{
		OpExpr *op = (OpExpr *) rinfo->clause;
		Node *left;
		Node *right;

		if (list_length(op->args) != 2)
			return false;
		left = linitial(op->args);
		right = lsecond(op->args);
		match->array = false;
		match->commuted = false;
		if (match_sides(root, key, rel, left, right, op->opno, op->inputcollid, match))
			return true;
		match->commuted = true;
		return key_column(key, rel, right) >= 0 &&
			   match_sides(root, key, rel, right, left, get_commutator(op->opno), op->inputcollid,
						   match);
	}
	if (IsA(rinfo->clause, ScalarArrayOpExpr) && key->nkeys == 1)
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) rinfo->clause;

		match->array = true;
		match->commuted = false;
		return op->useOr && is_comparable(&key->keys[0], RECORDOID) &&
			   match_sides(root, key, rel, linitial(op->args), lsecond(op->args), op->opno,
						   op->inputcollid, match);
	}
	return false;
}
