/*
 * withdraw.h
 *		Getting our workers out of the way of commands that want a database for themselves.
 *
 * Process:  backends.
 * Locks:    registry lock, briefly; none while waiting.
 * Memory:   none.
 * Errors:   none of its own: where workers do not leave in time the command itself fails.
 * Waits:    until the database's workers have left, at most five seconds, interruptible.
 */
#ifndef KCF_WITHDRAW_H
#define KCF_WITHDRAW_H

/* From _PG_init. */
extern void kcf_withdraw_init(void);

#endif /* KCF_WITHDRAW_H */
