/*
 * proc.h
 *		What every worker process has in common: signals, latch and file descriptor wait, reload,
 * orderly exit.
 *
 * Process:  launcher, consumer, producer, refresher.
 * Locks:    none held while waiting.
 * Memory:   a wait event set in TopMemoryContext.
 * Errors:   FATAL on SIGTERM through CHECK_FOR_INTERRUPTS.
 * Waits:    kcf_proc_wait: latch, postmaster death, one eventfd, timeout.
 */
#ifndef KCF_PROC_H
#define KCF_PROC_H

#include "postmaster/bgworker.h"

#define KCF_LAUNCHER "kafka_cache launcher"
#define KCF_CONSUMER "kafka_cache consumer"
#define KCF_PRODUCER "kafka_cache producer"
#define KCF_REFRESHER "kafka_cache refresher"

/*
 * First of all: signals, and the worker's place in the registry (kind is "launcher" or "consumer";
 * a consumer's is known from its argument). Exits with 0 when the worker must not run now. Unblocks
 * signals.
 */
extern void kcf_proc_start(const char *kind);
/* All but the launcher: connect to the database, as the bootstrap superuser, with a session's own settings of a
 * worker. */
extern void kcf_proc_connect(int database);
/* The eventfd that librdkafka's queues write to; made on first call. */
extern int kcf_proc_eventfd(void);
/* Sleep until latch, eventfd, reload or timeout (ms, -1: none); handles interrupts and
 * configuration reload. */
extern void kcf_proc_wait(long timeout_ms);

/* Entry points of the background workers. */
extern PGDLLEXPORT void kcf_launcher_main(Datum arg);
extern PGDLLEXPORT void kcf_consumer_main(Datum arg);  /* arg: database slot << 8 | clock */
extern PGDLLEXPORT void kcf_producer_main(Datum arg);  /* ... | KCF_WORKER_PRODUCER */
extern PGDLLEXPORT void kcf_refresher_main(Datum arg); /* ... | KCF_WORKER_REFRESHER + its number */

#endif /* KCF_PROC_H */
