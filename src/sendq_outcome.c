/*
 * sendq_outcome.c
 *		What becomes of the records that sessions write, counted where it is told.
 */
#include "postgres.h"

#include "sendq_internal.h"

#include "utils/timestamp.h"

/* NULL: this database has no place in the registry. */
static KcfProduced *
produced(void)
{
	int database = kcf_my_database();

	return database < 0 ? NULL : &kcf_database(database)->produced;
}

static void
add(pg_atomic_uint64 *counter, uint64 n)
{
	if (n > 0)
		pg_atomic_fetch_add_u64(counter, n);
}

void
kcf_sendq_count_reply(const KcfReply *reply, TimestampTz ended_at)
{
	KcfProduced *to = produced();

	if (to == NULL)
		return;
	add(&to->delivered, reply->delivered);
	add(&to->refused, reply->refused);
	add(&to->unknown, reply->unknown);
	if (reply->fault.error != KCF_KAFKA_OK)
		add(&to->faults[reply->fault.error], 1);
	kcf_histogram_add(&to->wait, GetCurrentTimestamp() - ended_at, 1);
}

void
kcf_sendq_count_given_up(uint64 taken, uint64 records)
{
	KcfProduced *to = produced();

	if (to == NULL)
		return;
	taken = Min(taken, records);
	add(&to->unknown, taken);
	add(&to->refused, records - taken);
	add(&to->given_up, 1);
}
