/*
 * guc.h
 *		The settings: kafka_cache.*
 *
 * Process:  all.
 * Locks:    none.
 * Memory:   the GUC machinery's.
 * Errors:   as GUCs do.
 * Waits:    never.
 */
#ifndef KCF_GUC_H
#define KCF_GUC_H

typedef enum KcfWhenNotReady
{
	KCF_NOT_READY_WAIT,
	KCF_NOT_READY_ERROR,
	KCF_NOT_READY_PARTIAL
} KcfWhenNotReady;

extern int kcf_guc_memory;                 /* kafka_cache.memory, MB; postmaster */
extern int kcf_guc_max_tables;             /* postmaster */
extern char *kcf_guc_databases;            /* sighup */
extern int kcf_guc_consumers_per_database; /* postmaster */
extern int kcf_guc_max_pin_age;            /* s; sighup */
extern int kcf_guc_max_errors;             /* rows of kafka_cache.errors a table; sighup */
extern int kcf_guc_load_queue;        /* MB a consumer may hold ahead of loading tables; sighup */
extern int kcf_guc_deletion_memory;   /* kB of remembered tombstones a table; sighup */
extern int kcf_guc_when_not_ready;    /* KcfWhenNotReady; user */
extern int kcf_guc_wait_timeout;      /* ms; user */
extern int kcf_guc_max_staleness;     /* ms, 0: off; user */
extern int kcf_guc_produce_timeout;   /* ms; user */
extern bool kcf_guc_read_your_writes; /* user */
extern int kcf_guc_notify_interval;   /* ms; sighup */
extern int kcf_guc_producer_idle_timeout; /* s; sighup */
extern int kcf_guc_refresh_workers;       /* of each database; sighup */
extern int kcf_guc_refresh_load;          /* percent of their time; sighup */

extern void kcf_guc_init(void);

/* Does kafka_cache.databases name this one? */
extern bool kcf_guc_database_listed(const char *name);

#endif /* KCF_GUC_H */
