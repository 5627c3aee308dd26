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

#include "keytype.h"
#include "nodes/pathnodes.h"

/*
 * Sets of relations, each of which has values for the whole key, together with the conditions on the relation itself;
 * the empty set (NULL), and no other, where these are enough. NIL: there is no way. single: they give one key, so that
 * a scan of all rows need not be considered.
 */
extern List *kcf_key_sources(PlannerInfo *root, RelOptInfo *rel, const KcfKeyType *key,
							 bool *single);

#endif /* KCF_FDW_SOURCES_H */
