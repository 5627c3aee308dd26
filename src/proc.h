/*
 * proc.h
 *		What every worker process has in common: signals, latch and file descriptor wait, reload, orderly exit.
 *
 * Process:  launcher, consumer (later producer, refresher).
 * Locks:    none held while waiting.
 * Memory:   a wait event set in TopMemoryContext.
 * Errors:   FATAL on SIGTERM through CHECK_FOR_INTERRUPTS.
 * Waits:    kcf_proc_wait: latch, postmaster death, one eventfd, timeout.
 */
#ifndef KCF_PROC_H
#define KCF_PROC_H

#include "postmaster/bgworker.h"

/* Signals, title, and where the worker is registered; unblocks signals. */
extern void kcf_proc_start(const char *kind);
/* The eventfd that librdkafka's queues write to; made on first call. */
extern int	kcf_proc_eventfd(void);
/* Sleep until latch, eventfd, reload or timeout (ms, -1: none); handles interrupts and configuration reload. */
extern void kcf_proc_wait(long timeout_ms);

/* Entry points of the background workers. */
extern PGDLLEXPORT void kcf_launcher_main(Datum arg);
extern PGDLLEXPORT void kcf_consumer_main(Datum arg); /* arg: database slot << 8 | clock */

#endif /* KCF_PROC_H */
