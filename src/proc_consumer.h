/*
 * proc_consumer.h
 *		A consumer's tables, for proc_consumer*.c alone.
 *
 * Process:  a consumer worker.
 * Locks:    the registry's, briefly.
 * Memory:   TopMemoryContext; definitions own contexts of their own.
 * Errors:   what is wrong with one table becomes its problem; anything else is thrown.
 * Waits:    never.
 */
#ifndef KCF_PROC_CONSUMER_H
#define KCF_PROC_CONSUMER_H

#include "feed.h"

#define SECONDS(n) (INT64CONST(1000000) * (n))

typedef struct KcfConsumerTable
{
	Oid relid;
	bool seen; /* in the present reading of the catalogs */
	KcfTable *shared;
	KcfTableDef *def;         /* NULL: broken, problem says why */
	KcfServerOptions *server; /* in the definition's context; NULL: they are broken */
	char problem[200];
	KcfFeed *follow; /* of what is served */
	KcfFeed *load;   /* of what is not served yet */
	bool finishing;  /* the load is complete, its store is being made ready for readers */
	KcfMoment finishing_since;
	bool finished; /* ... and it is ready */
	KcfMoment
		held_since; /* what is served stands still until the load has passed as much; 0: it does not */
	bool crowded;          /* ... but has no place: several older contents are still being read */
	bool show;             /* its state may have changed */
	KcfMoment load_at;     /* without a load: not to be begun before */
	int64 reload_delay;    /* back-off of loads beside what is served */
	const char *load_note; /* what happened to the last of them */
	int64 rows_told;       /* that kept plans may go by; -1: none */
} KcfConsumerTable;

/* This process: its database's slot, its clock, its tables (KcfConsumerTable). */
typedef struct KcfConsumer
{
	int database;
	int clock;
	List *tables;
	bool publish_wanted; /* something is to become visible though no row was applied */
	bool define_again;   /* a definition was locked by somebody */
	bool leftovers;      /* tables that are no more ours are still being read */
} KcfConsumer;

extern KcfConsumer kcf_consumer;

/* What kafka_cache.workers shows of us. */
extern void kcf_consumer_say(void);
/* The sequence that the next publish makes visible. */
extern KcfSeq kcf_consumer_next_seq(void);
/* Who has kept old contents for longer than kafka_cache.max_pin_age gives way. */
extern void kcf_consumer_revoke_old_pins(void);

/* ---- proc_consumer_catalog.c ---- */

/* Bring the tables in line with the catalogs; does not return when the extension is gone. */
/* Where there are products: the first refresher is to look at their rules. Once, after each reading. */
extern void kcf_consumer_call_coordinator(void);
extern void kcf_consumer_read_catalogs(void);
/* Free what is in shared memory of tables that are not ours any more and that nobody reads. */
extern void kcf_consumer_drop_leftovers(void);
/* Run this in a transaction of its own; NULL, or the error that ended it. */
extern ErrorData *kcf_consumer_attempt(void (*what)(KcfConsumerTable *table),
									   KcfConsumerTable *table);
extern void kcf_consumer_set_problem(KcfConsumerTable *table, ErrorData *edata);

/* ---- proc_consumer_load.c ---- */

/* See whether a load is to begin, to be given up, or to be finished. */
extern void kcf_consumer_tend_load(KcfConsumerTable *table, KcfMoment now);
/* A finished load becomes what readers see, with this sequence. */
extern void kcf_consumer_serve_load(KcfConsumerTable *table, KcfSeq seq);
/* The served contents go, a load begins; readers wait as for a new table. */
extern void kcf_consumer_start_over(KcfConsumerTable *table);
/*
 * Contents that replace others must have all that those had: has the load? And is what is served to stand still until
 * it has?
 */
extern bool kcf_consumer_load_is_behind(const KcfConsumerTable *table);
extern bool kcf_consumer_holds(KcfConsumerTable *table, KcfMoment now);
/* Take over what an earlier process of ours has left of this table. */
extern void kcf_consumer_take_over(KcfConsumerTable *table);
/* End a load, and what it has brought. */
extern void kcf_consumer_drop_load(KcfConsumerTable *table);
extern void kcf_consumer_close_feed(KcfFeed **feed);

/* ---- proc_consumer_group.c ---- */

/* After the definitions were read: which groups positions are shown under, and by which clients. */
extern void kcf_consumer_define_groups(void);
/* Show positions whose time has come, take in what became of those before. Each turn; cheap. */
extern void kcf_consumer_tend_groups(KcfMoment now);
/* Why positions are not shown; NULL: they are, or no server names a group. */
extern const char *kcf_consumer_group_trouble(void);

/* ---- proc_consumer_notify.c ---- */

/* Tell listeners what is due, after a publish. */
extern void kcf_consumer_notify(void);
/* Microseconds until something is; -1: nothing will be. */
extern int64 kcf_consumer_notify_in(void);

/* ---- proc_consumer_plans.c ---- */

/* When a table has many more or fewer rows than kept plans go by, have them made again. */
extern void kcf_consumer_tell_planners(KcfConsumerTable *table);

#endif /* KCF_PROC_CONSUMER_H */
