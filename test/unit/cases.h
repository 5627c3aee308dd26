/*
 * cases.h
 *		What a unit program counts: cases, each with a name and any number of checks inside.
 *
 * A case passes when none of its checks has failed. A program may make millions of checks; their number says
 * nothing about how much is tested.
 */
#ifndef KCF_TEST_CASES_H
#define KCF_TEST_CASES_H

#include <stdio.h>

static int cases_passed = 0;
static int cases_failed = 0;

/* Carry out call; failed is an expression that counts the checks that failed so far. */
#define CASE(call, failed)                                                                         \
	do                                                                                             \
	{                                                                                              \
		long failed_before = (long) (failed);                                                      \
                                                                                                   \
		call;                                                                                      \
		case_done(#call, (long) (failed) == failed_before);                                        \
	} while (0)

static void
case_done(const char *name, int good)
{
	if (good)
		cases_passed++;
	else
	{
		cases_failed++;
		printf("not ok - %s\n", name);
	}
}

/* The line that test/run reads, and the program's exit status. */
static int
cases_report(const char *program, long checks)
{
	printf("# %s: %ld checks\n", program, checks);
	printf("%s: %d passed, %d failed\n", program, cases_passed, cases_failed);
	return cases_failed > 0;
}

#endif /* KCF_TEST_CASES_H */
