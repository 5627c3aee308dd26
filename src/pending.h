/*
 * pending.h
 *		Records written and not sent yet: the log of a transaction (delivery 'commit') or of a statement
 *		('immediate'), and its sending.
 *
 * Process:  backends.
 * Locks:    of keys of data products that are sent, until their tables show them.
 * Memory:   up to work_mem, then a temporary file; contexts of its own that end with the transaction.
 * Errors:   as kcf_sendq_*; 08006, 08007, 54000, 42501, 22023 by what the brokers say; 0A000 PREPARE TRANSACTION.
 * Waits:    kcf_pending_send, and the transaction's own log at its pre-commit: for every delivery report.
 */
#ifndef KCF_PENDING_H
#define KCF_PENDING_H

#include "catalog.h"
#include "frame.h"
#include "sendq.h"

typedef struct KcfPending KcfPending;

/*
 * The log of this transaction: sent when it commits. What a subtransaction has appended goes when that is rolled
 * back.
 */
extern KcfPending *kcf_pending_of_transaction(void);
/* The log of a statement, sent by kcf_pending_send; goes with the memory context. */
extern KcfPending *kcf_pending_create(MemoryContext mcxt);
/*
 * What this log of a statement sends is not the session's own doing: it is no more than this waited for, and reads of
 * the session do not wait until they can see it.
 */
extern void kcf_pending_hurry(KcfPending *log, int patience_ms);
/* This table's topic, written to as this user: its number for kcf_pending_append. */
extern uint16 kcf_pending_target(KcfPending *log, const KcfTableDef *def, Oid userid);
/* command: es_output_cid of the statement that writes. */
extern void kcf_pending_append(KcfPending *log, uint16 target, CommandId command, uint64 key_hash,
							   const KcfRecord *rec);
/*
 * Send all, and wait until all is acknowledged, else an error that says what is known; the log is empty then. Where
 * a log of one record landed goes to *last (NULL: nobody wants to know).
 */
extern void kcf_pending_send(KcfPending *log, KcfWritten *last);
/*
 * Was this key of the table written in this transaction, and not sent yet? *command: by which command, the last
 * time; less than es_output_cid: by an earlier statement, more: by one that the statement itself has called. Of the transaction's log only; finds out by reading it
 * once, and needs some 30 bytes for each key from then on, so for UPDATE and DELETE.
 */
extern bool kcf_pending_wrote(const KcfTableDef *def, uint64 key_hash, CommandId *command);
/* How many records of this table the transaction has not sent yet, for EXPLAIN. */
extern uint64 kcf_pending_count(Oid relid);

/* Transaction callbacks; from _PG_init. */
extern void kcf_pending_init(void);

#endif /* KCF_PENDING_H */
