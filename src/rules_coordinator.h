/*
 * rules_coordinator.h
 *		Between the parts of the coordinator's turn. For rules*.c.
 *
 * Process:  the coordinator.
 * Locks:    those of catalogs, in a transaction.
 * Memory:   what is kept in kcf_rules_cxt, all else in CurrentMemoryContext, which a turn resets.
 * Errors:   ereport in what runs within kcf_rules_attempt; nothing outside.
 * Waits:    never.
 */
#ifndef KCF_RULES_COORDINATOR_H
#define KCF_RULES_COORDINATOR_H

#include "refreshq.h"
#include "rules_internal.h"
#include "snapshot.h"

#define KCF_RULES_RETRY_MS 1000

extern MemoryContext kcf_rules_cxt;

/* ---- rules.c ---- */

/* In a transaction of its own. What went wrong (palloc'd), or NULL. */
extern ErrorData *kcf_rules_attempt(void (*what)(void *arg), void *arg);
/* A relation's name, palloc'd, for what is said to the log. */
extern char *kcf_rules_name(Oid relid);
/* To the server's log, each subject now and then. */
extern void kcf_rules_complain(TimestampTz *last, const ErrorData *edata, const char *fmt, ...)
	pg_attribute_printf(3, 4);

/* ---- rules_request.c: what is put into the queue ---- */

/* This key, of a rule; when there is no room for it, all that is cached. hints: of an augment function, or NULL. */
extern void kcf_rules_request(Oid product, KcfSlice key, int64 logged, Jsonb *hints);
/* All that is cached of a product and was computed until now. logged: why, or 0. */
extern void kcf_rules_request_all(Oid product, int64 logged);
/* Go on with these. When there is more to do: milliseconds until it should be tried, else -1. */
extern long kcf_rules_request_turn(void);
/* Is all that was to be requested of this product in the queue? */
extern bool kcf_rules_requested(Oid product);
/* Products that are gone. */
extern void kcf_rules_request_prune(void);

/* A row of a store with its key; nothing, too. */
typedef bool (*KcfRulesRow)(void *arg, KcfTableDef *def, const KcfRow *row, const Datum *key);
/* In a transaction: each row of a product in this state, until one is false. false: it cannot be read now. */
extern bool kcf_rules_each_row(KcfSnapshot *state, Oid product, KcfRulesRow receiver, void *arg);

/* ---- rules_source.c: cached tables and products as sources ---- */

/* The rules as they are now; those that were there stay as they are. */
extern void kcf_rules_sources_define(List *rules);
/* Compare what has changed. Milliseconds until the next look is due even if nobody publishes, -1: none is. */
extern long kcf_rules_sources_turn(void);
/* Of how many is it not known (yet) what changes? */
extern int kcf_rules_sources_unknown(void);

/* ---- rules_domain.c: refresh_every and domain ---- */

extern void kcf_rules_domains_define(List *tables, List *rules);
extern long kcf_rules_domains_turn(void);

static inline long
kcf_rules_sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

#endif /* KCF_RULES_COORDINATOR_H */
