/*
 * proc_launcher.h
 *		The one static worker: which databases there are, and their consumers and producers.
 *
 * Process:  launcher.
 * Locks:    registry lock, briefly; AccessShareLock on pg_database.
 * Memory:   its own small tables in TopMemoryContext.
 * Errors:   leaves with 1 and is started again by the postmaster.
 * Waits:    for its latch, and the time of the next thing to do.
 */
#ifndef KCF_PROC_LAUNCHER_H
#define KCF_PROC_LAUNCHER_H

/* From _PG_init. */
extern void kcf_launcher_register(void);

#endif /* KCF_PROC_LAUNCHER_H */
