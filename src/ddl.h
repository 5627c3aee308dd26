/*
 * ddl.h
 *		Telling the workers of DDL, at its commit, and refusing definitions of ours that cannot
 * work.
 *
 * Process:  backends.
 * Locks:    registry lock, briefly, after commit.
 * Memory:   none.
 * Errors:   those of kcf_catalog_check_table, in the statement that defines the table.
 * Waits:    never.
 */
#ifndef KCF_DDL_H
#define KCF_DDL_H

/* From _PG_init. */
extern void kcf_ddl_init(void);

#endif /* KCF_DDL_H */
