/*
 * pins.h
 *		Published sequences (clocks) of the consumers and the pins of those who read.
 *
 * Process:  a consumer owns one clock; every backend owns one pin slot (its PGPROC's number).
 * Locks:    none; atomics.
 * Memory:   fixed, main shared memory.
 * Errors:   kcf_pin_of_leader ereports 72000 when the leader's pin was revoked; nothing else throws.
 * Waits:    never.
 *
 * A pin is a vector: for each clock of the backend's database the oldest sequence that the backend may still
 * read. A writer frees only what died at or before the least pinned sequence of its clock.
 *
 * Revocation: a pin older than kafka_cache.max_pin_age that stands in the way of memory. While its backend is
 * outside the executor (idle) the writer takes it away at once; while it runs the pin is only doomed, and the
 * backend gives up what it can itself, at its next row.
 */
#ifndef KCF_PINS_H
#define KCF_PINS_H

#include "store.h"
#include "datatype/timestamp.h"

#define KCF_MAX_CLOCKS 8     /* consumers per database */
#define KCF_MAX_DATABASES 64 /* databases with the extension in one server */

typedef struct KcfClocks /* of one database */
{
	pg_atomic_uint64 published[KCF_MAX_CLOCKS];
} KcfClocks;

extern Size kcf_pins_shmem_size(void);
extern void kcf_pins_shmem_init(void);
/* The clocks of a database slot (registry.h numbers them); sequences never go back while the server lives. */
extern KcfClocks *kcf_clocks(int database);

/* ---- writer ---- */
extern KcfSeq kcf_clock_published(int database, int clock);
/* published + 1 becomes visible */
extern KcfSeq kcf_clock_publish(int database, int clock);
/* Least pinned sequence; the published one when nobody pins. Contains the full barrier that the protocol needs. */
extern KcfSeq kcf_pins_min(int database, int clock);
/*
 * Does anybody of this database hold a pin? Who pins from now on sees what was changed before the call. For what
 * is not found by a sequence.
 */
extern bool kcf_pins_any(int database);
/* How many pins there are of this database; 0, or since when the oldest is held. For views. */
extern int kcf_pins_count(int database, TimestampTz *oldest);
/* Revoke or doom pins that hold a sequence below seq and are older than max age; number of those found. */
extern int kcf_pins_revoke_older(int database, int clock, KcfSeq seq, TimestampTz older_than);

/* ---- reader (snapshot.c) ---- */
/* Pin the present state of all clocks; seqs gets it. The slot must be free or hold an older or equal vector. */
extern void kcf_pin_set(int database, KcfSeq *seqs, TimestampTz now);
/* Narrow the pin to what is still needed (vector minimum of live snapshots), or release it. */
extern void kcf_pin_move(const KcfSeq *seqs, TimestampTz since);
extern void kcf_pin_release(void);
/* A transaction failed: out of the executor, however an error left it; and released, unless it is to be kept. */
extern void kcf_pin_reset(bool keep);
/*
 * Parallel query. The leader shows the vector of the statement whose workers it may start (NULL:
 * no more); it is not its pin, which may be older. A worker pins that vector in its own slot: set
 * it, full barrier, then see that the leader still shows the same and has a pin that is neither
 * revoked nor doomed (else 72000). false: it shows none. A vector of zeros says that the statement's
 * state is lost: 72000 too.
 */
extern void kcf_pin_show(const KcfSeq *seqs);
extern bool kcf_pin_of_leader(KcfSeq *seqs, TimestampTz now);
/* Executor enters and leaves (outermost). false: the pin was revoked meanwhile and is gone. */
extern bool kcf_pin_enter(void);
extern void kcf_pin_leave(void);
/*
 * Test for each row: is this backend's pin doomed? Then it is to be moved or released soon (which
 * clears the mark); snapshot.c turns that into the error of those who read the oldest states.
 * Points to a zero when there is no slot.
 */
extern pg_atomic_uint32 *kcf_pin_doom;
#define kcf_pin_doomed() unlikely(pg_atomic_read_u32(kcf_pin_doom) != 0)

#endif /* KCF_PINS_H */
