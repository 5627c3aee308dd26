/*
 * moment.h
 *		Time that only goes forward: for waits, for ages, for anything but telling the time of day.
 *
 * Process:  all; a moment of one process means the same to every other of the machine.
 * Locks:    none.
 * Memory:   none.
 * Errors:   none.
 * Waits:    never.
 *
 * The time of day jumps when somebody sets the clock. What is stale must not become fresh by that, nor
 * what is to be tried again in a minute be left for a day.
 */
#ifndef KCF_MOMENT_H
#define KCF_MOMENT_H

#include "portability/instr_time.h"

/* Microseconds since some moment of the machine's own; 0: never. */
typedef int64 KcfMoment;

static inline KcfMoment
kcf_moment_now(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (KcfMoment) INSTR_TIME_GET_MICROSEC(now);
}

#endif /* KCF_MOMENT_H */
