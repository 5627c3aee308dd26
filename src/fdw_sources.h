/*
 * fdw_sources.h
 *		The ways to have the values of a table's whole key: from its own conditions, or from other relations.
 *
 * Process:  backends.
 * Locks:    none.
 * Memory:   the planner's context.
 * Errors:   none of its own.
 * Waits:    never.
 */
#ifndef KCF_FDW_SOURCES_H
#define KCF_FDW_SOURCES_H

#include "fdw_key.h"
#include "keytype.h"
#include "nodes/pathnodes.h"

/*
 * Sets of relations, each of which has values for the whole key, together with the conditions on the relation itself;
 * the empty set (NULL), and no other, where these are enough. NIL: there is no way. single: they give one key, so that
 * a scan of all rows need not be considered.
 */
extern List *kcf_key_sources(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key,
							 bool *single);

/*
 * A clause that binds this key column by a value from these relations, where none is among those that a path was given:
 * of all that is equal in a query, the planner compares no more than is necessary. NULL: there is none.
 */
extern RestrictInfo *kcf_key_implied(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key,
									 int column, Relids outer, KcfKeyMatch *match);

#endif /* KCF_FDW_SOURCES_H */
