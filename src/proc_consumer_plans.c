/*
 * proc_consumer_plans.c
 *		Plans that are kept (prepared statements, functions) are made anew when a table has become another one.
 *
 * They were made by the number of rows at that time: none, while it was being loaded. Ordinary tables have
 * autovacuum's ANALYZE for this; it passes over foreign ones.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "registry.h"
#include "store.h"

#include "miscadmin.h"
#include "storage/sinval.h"

/* Fewer rows more or less are no reason for another plan. */
#define FEW_ROWS 1000

void
kcf_consumer_tell_planners(KcfConsumerTable *table)
{
	SharedInvalidationMessage message;
	KcfStoreStats stats;

	if (table->follow == NULL)
	{
		table->rows_told = -1;
		return;
	}
	kcf_store_stats(kcf_feed_store(table->follow), &stats);
	if (table->rows_told >= 0 && stats.entries <= 2 * table->rows_told + FEW_ROWS &&
		table->rows_told <= 2 * stats.entries + FEW_ROWS)
		return;
	table->rows_told = stats.entries;

	memset(&message, 0, sizeof(message));
	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = table->relid;
	SendSharedInvalidMessages(&message, 1);
}
