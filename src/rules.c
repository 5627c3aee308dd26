/*
 * rules.c
 *		The coordinator's turn.
 */
#include "postgres.h"

#include "rules.h"

long
kcf_rules_turn(bool *stay)
{
	*stay = false;
	return -1;
}
