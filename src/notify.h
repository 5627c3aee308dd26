/*
 * notify.h
 *		What those who listen to a table are to be told, and in which words.
 *
 * Process:  the table's consumer.
 * Locks:    kcf_notify_catch_up: the registry's, briefly.
 * Memory:   a context of its own below the one given; changed keys up to a bound, then only that there are more.
 * Errors:   create, redefine, changed and catch_up throw what catalogs and output functions of key types raise; after
 *           an error in the last two call kcf_notify_lose.
 * Waits:    never.
 *
 * Records are noted when they are applied and told of when what they did is visible and the table's positions say so.
 * Notes are this process's own. How far listeners were told is in shared memory (KcfPartition.announced), so whoever
 * comes after us finds in the store what we have not told.
 */
#ifndef KCF_NOTIFY_H
#define KCF_NOTIFY_H

#include "catalog.h"
#include "moment.h"
#include "registry.h"

typedef struct KcfNotify KcfNotify;

/* The definition names a channel, and must live as long, or until redefined. In a transaction. */
extern KcfNotify *kcf_notify_create(KcfTable *table, KcfTableDef *def, MemoryContext parent);
extern void kcf_notify_redefine(KcfNotify *notify, KcfTableDef *def);
extern void kcf_notify_destroy(KcfNotify *notify);
extern Oid kcf_notify_owner(const KcfNotify *notify); /* of the table */

/* ---- noting ---- */

/*
 * Records are being applied, some of which may not have been noted yet. Whoever ends this process between the two finds
 * listeners told of nothing that they were not.
 */
extern void kcf_notify_begin(KcfNotify *notify);
extern void kcf_notify_end(KcfNotify *notify);
/* A record was applied that is not told of. */
extern void kcf_notify_silent(KcfNotify *notify, KcfSilence silence, int64 n);
/* One that changed what a reader sees of its key. As the table's owner, in a transaction. */
extern void kcf_notify_changed(KcfNotify *notify, const Datum *key, int32 partition, int64 offset,
							   bool deleted);
/* Something changed, and it is not known what. */
extern void kcf_notify_lose(KcfNotify *notify);
/* All contents were exchanged for others, or will be. */
extern void kcf_notify_afresh(KcfTable *table);

/* ---- after a restart ---- */

/* See whether what is served is ahead of what listeners were told. */
extern void kcf_notify_look_behind(KcfNotify *notify);
extern bool kcf_notify_behind(const KcfNotify *notify);
/* Note what the store knows of that, when positions are those of the published state. As the table's owner, in a transaction. */
extern void kcf_notify_catch_up(KcfNotify *notify, const KcfStore *store, KcfSeq published);

/* ---- telling ---- */

/* Is there anything to be told? While it is so, announced positions stay where they are. */
extern bool kcf_notify_owes(const KcfNotify *notify);
/* ... and from when on? */
extern KcfMoment kcf_notify_due(const KcfNotify *notify);
/* In a transaction: notify of all that was noted, up to the positions in the registry. */
extern void kcf_notify_write(KcfNotify *notify);
/* That transaction was committed, or it was not. */
extern void kcf_notify_told(KcfNotify *notify, KcfMoment now);
extern void kcf_notify_failed(KcfNotify *notify);

#endif /* KCF_NOTIFY_H */
