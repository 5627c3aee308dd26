/*
 * stubs.c
 *		Stand-ins for what is being built: weak, so that the real ones take over as they come. To be
 * deleted.
 */
#include "postgres.h"

#include "catalog.h"
#include "proc.h"
#include "registry.h"
#include "rowmap.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/inval.h"

#define WEAK __attribute__((weak))

WEAK const char *
kcf_reason_name(KcfReason reason)
{
	return "?";
}

/* Comes, looks for the extension, stays while it is there. */
WEAK void
kcf_consumer_main(Datum arg)
{
	int database = DatumGetInt32(arg) >> 8;
	uint32 ddl = 0;

	kcf_proc_start("consumer");
	kcf_proc_connect(database);
	for (;;)
	{
		bool present;
		ListCell *lc;

		ddl = pg_atomic_read_u32(&kcf_database(database)->ddl);
		StartTransactionCommand();
		present = kcf_catalog_has_extension();
		if (present)
		{
			foreach (lc, kcf_catalog_tables())
			{
				KcfTable *table = kcf_table_create(MyDatabaseId, lfirst_oid(lc), database, 0);

				if (table)
					kcf_table_set_state(table, KCF_TABLE_CONNECTING, "nothing is built yet");
			}
		}
		CommitTransactionCommand();
		kcf_database_report(database, present);
		if (!present)
			proc_exit(0);
		while (pg_atomic_read_u32(&kcf_database(database)->ddl) == ddl)
			kcf_proc_wait(-1);
	}
}
