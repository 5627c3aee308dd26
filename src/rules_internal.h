/*
 * rules_internal.h
 *		Between those who define rules, the triggers of ordinary tables, and the coordinator. For rules*.c.
 *
 * Process:  backends and the coordinator, in a transaction.
 * Locks:    AccessShareLock on the extension's tables, more where said.
 * Memory:   CurrentMemoryContext but where said.
 * Errors:   ereport.
 * Waits:    on locks of relations.
 */
#ifndef KCF_RULES_INTERNAL_H
#define KCF_RULES_INTERNAL_H

#include "catalog_product.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* ---- rules_list.c ---- */

typedef struct KcfRule
{
	Oid product;
	Oid source;
	char *keys; /* the function's name, with its schema */
} KcfRule;

/* A table of the extension's, InvalidOid: it is not there. */
extern Oid kcf_rules_table(const char *name);
/* All of them as they are now. */
extern List *kcf_rules_read(void);
/* Kept in this process and thrown away when they change; as the last statement has left them. */
extern List *kcf_rules_cached(void);
extern KcfRule *kcf_rule_copy(const KcfRule *rule);
/* Counts up whenever they may have changed. */
extern uint64 kcf_rules_changes(void);
extern void kcf_rules_list_init(void);

/* Somebody else for a while, with the settings that products have. */
typedef struct KcfRulesUser
{
	Oid userid;
	int sec_context;
	int nestlevel;
} KcfRulesUser;

/* As a product's owner, whose code is run. */
extern void kcf_rules_as_owner(Oid owner, KcfRulesUser *before);
/* As the owner of the extension's tables. */
extern void kcf_rules_as_extension(KcfRulesUser *before);
extern void kcf_rules_as_before(const KcfRulesUser *before);

/* ---- rules_keys.c ---- */

/* The function of this name that tells keys from rows of the source; InvalidOid: there is none (any more). */
extern Oid kcf_rule_function(const KcfRule *rule);
/* Does its result make keys of the product? Else an error. */
extern void kcf_rule_check_function(KcfTableDef *product, Oid function);

/* From where the rows come: relations that are made known to SPI. */
typedef enum KcfRuleRows
{
	KCF_RULE_CHANGES, /* kafka_cache_changes (old, new) */
	KCF_RULE_NEW,     /* kafka_cache_new, a transition table */
	KCF_RULE_OLD,     /* kafka_cache_old */
	KCF_RULE_BOTH
} KcfRuleRows;

#define KCF_RULE_CHANGES_NAME "kafka_cache_changes"
#define KCF_RULE_NEW_NAME "kafka_cache_new"
#define KCF_RULE_OLD_NAME "kafka_cache_old"

/*
 * The query whose rows are the product's keys, each once, and where it has an augment function the hints for it. It is
 * run as the product's owner.
 */
extern char *kcf_rule_query(const KcfRule *rule, KcfTableDef *product, Oid function,
							KcfRuleRows rows);
/* Run it within an SPI connection. hints: NULL where the product has no use for them. Keys with a NULL are left out. */
typedef void (*KcfRuleKey)(void *arg, const Datum *key, Jsonb *hints);
extern void kcf_rule_keys(SPIPlanPtr plan, KcfTableDef *product, KcfRuleKey receiver, void *arg);

/* ---- rules_trigger.c ---- */

/* At commit the coordinator learns that there is something for it. */
extern void kcf_rules_tell_at_commit(void);
extern void kcf_rules_trigger_init(void);

/* The triggers on an ordinary table that is a source; false: they were there. */
extern bool kcf_rules_make_triggers(Oid source);
/* Where it is none any more. */
extern void kcf_rules_drop_triggers(Oid source);

/* ---- rules_drop.c ---- */

extern void kcf_rules_drop_init(void);

#endif /* KCF_RULES_INTERNAL_H */
