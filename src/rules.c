/*
 * rules.c
 *		The coordinator's turn.
 */
#include "postgres.h"

#include "rules.h"

#include "rules_internal.h"

long
kcf_rules_turn(bool *stay)
{
	*stay = false;
	return -1;
}

void
kcf_rules_init(void)
{
	kcf_rules_list_init();
	kcf_rules_trigger_init();
	kcf_rules_drop_init();
}
