/*
 * rules.h
 *		What makes products anew when something else has changed: kafka_cache.refresh_on, intervals, domains.
 *
 * Process:  backends define; of the refreshers the one with number 0, the coordinator, works the rules off.
 * Locks:    those of the tables of rules; of the catalogs in a transaction.
 * Memory:   the coordinator's in a context of its own.
 * Errors:   definitions ereport; a turn reports what goes wrong with a rule to the log and goes on.
 * Waits:    a turn as long as the functions and queries of its rules take; never for a cached table.
 */
#ifndef KCF_RULES_H
#define KCF_RULES_H

/*
 * The coordinator's turn, outside of a transaction: looks for what has changed, and puts requests into the queue. To be
 * called whenever it is woken, at the latest after as many milliseconds as it returns (-1: not before it is woken).
 * stay: there are rules to watch over, so that the process must not leave.
 */
extern long kcf_rules_turn(bool *stay);

/* Hooks; from _PG_init. */
extern void kcf_rules_init(void);

#endif /* KCF_RULES_H */
