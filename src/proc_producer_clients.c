/*
 * proc_producer_clients.c
 *		A producer's senders: clients of the library by server, user and timeout, as the catalogs have them.
 *
 * A sender is made of options that are committed. When they change it finishes what it has, and the next flush gets
 * another.
 */
#include "postgres.h"

#include "proc_producer.h"

#include "catalog.h"
#include "guc.h"
#include "proc.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Reports taken of one sender in one turn. */
#define REPORTS_AT_ONCE 10000
/* One that has failed is ended then, whether or not it has reported what was outstanding. */
#define BROKEN_PATIENCE_MS 2000

dlist_head kcf_senders = DLIST_STATIC_INIT(kcf_senders);

static uint64 changes_seen = 0;

/* ---- options ------------------------------------------------------------------------------- */

/* The catalogs as they are: what others have committed is heard of when a transaction begins. */
void
kcf_senders_hear(void)
{
	MemoryContext caller = CurrentMemoryContext;
	dlist_iter iter;

	StartTransactionCommand();
	CommitTransactionCommand();
	/* Before 17 that is the top context now, in which options would stay, passwords among them. */
	MemoryContextSwitchTo(caller);
	if (kcf_catalog_changes() == changes_seen)
		return;
	changes_seen = kcf_catalog_changes();
	dlist_foreach(iter, &kcf_senders) dlist_container(KcfSender, link, iter.cur)->checked = false;
}

/* In a transaction of its own, in the present memory context; NULL: fault says why. */
static KcfServerOptions *
resolve(Oid serverid, Oid userid, KcfKafkaFault *fault)
{
	MemoryContext caller = CurrentMemoryContext;
	KcfServerOptions *volatile server = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PG_TRY();
	{
		MemoryContextSwitchTo(caller);
		server = kcf_options_server(serverid, userid);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		/* An order to us, not a fault of the options. */
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(edata);
		fault->error = KCF_KAFKA_CONFIG;
		snprintf(fault->text, sizeof(fault->text), "%s%s%s", edata->message,
				 edata->detail ? ": " : "", edata->detail ? edata->detail : "");
		server = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return server;
}

static uint64
hash_of(const KcfServerOptions *server)
{
	StringInfoData text;
	ListCell *lc;
	uint64 hash;

	initStringInfo(&text);
	foreach (lc, server->properties)
	{
		const KcfProperty *property = lfirst(lc);

		appendStringInfo(&text, "%s=%s", property->name, property->value);
		appendStringInfoChar(&text, '\0');
	}
	hash = hash_bytes_extended((const unsigned char *) text.data, text.len, 0);
	explicit_bzero(text.data, text.len);
	return hash;
}

bool
kcf_sender_check(KcfSender *sender, KcfKafkaFault *fault)
{
	KcfServerOptions *server;

	if (sender->checked || sender->retired)
		return !sender->retired;
	server = resolve(sender->serverid, sender->userid, fault);
	if (server == NULL || hash_of(server) != sender->options)
		sender->retired = true;
	sender->checked = true;
	return !sender->retired;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void
say_how_many(void)
{
	dlist_iter iter;
	int n = 0;

	dlist_foreach(iter, &kcf_senders) n++;
	kcf_worker_say("running", "%d connected %s", n, n == 1 ? "client" : "clients");
}

KcfSender *
kcf_sender_create(Oid serverid, Oid userid, int timeout_ms, bool bulk, int slot,
				  KcfKafkaFault *fault)
{
	KcfServerOptions *server = resolve(serverid, userid, fault);
	KcfKafkaProducer *kafka;
	KcfSender *sender;
	char id[100];

	if (server == NULL)
		return NULL;
	/* Another server may consume the same topics as its own: what it writes is not fenced by us. */
	snprintf(id, sizeof(id), "kafka_cache_fdw." UINT64_FORMAT ".%u.%u.%u.%d", GetSystemIdentifier(),
			 MyDatabaseId, serverid, userid, slot);
	kafka = kcf_kafka_producer_create(server, timeout_ms, bulk, slot >= 0 ? id : NULL,
									  kcf_proc_eventfd(), fault);
	if (kafka == NULL)
		return NULL;

	sender = MemoryContextAllocZero(TopMemoryContext, sizeof(KcfSender));
	sender->serverid = serverid;
	sender->userid = userid;
	sender->timeout_ms = slot >= 0 ? 0 : timeout_ms;
	sender->bulk = bulk;
	sender->slot = slot;
	sender->kafka = kafka;
	sender->options = hash_of(server);
	sender->checked = true;
	sender->used_at = GetCurrentTimestamp();
	dlist_push_tail(&kcf_senders, &sender->link);
	say_how_many();
	return sender;
}

static void
destroy_sender(KcfSender *sender)
{
	dlist_iter iter;

	dlist_foreach(iter, &kcf_flushes)
	{
		KcfFlush *flush = dlist_container(KcfFlush, link, iter.cur);

		if (flush->sender == sender)
		{
			/* after a failure of its own nothing more of it is sent */
			kcf_flush_fail(flush, &sender->fault);
			kcf_flush_forget_sender(flush);
		}
	}
	kcf_kafka_producer_destroy(sender->kafka);
	dlist_delete(&sender->link);
	pfree(sender);
	say_how_many();
}

void
kcf_sender_break(KcfSender *sender, const KcfKafkaFault *fault)
{
	if (sender->broken)
		return;
	sender->broken = sender->retired = true;
	sender->fault = *fault;
	if (sender->fault.error == KCF_KAFKA_OK)
		sender->fault.error = KCF_KAFKA_OTHER;
	sender->gone_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BROKEN_PATIENCE_MS);
	kcf_kafka_producer_purge(sender->kafka, true);
}

/* ---- which one ----------------------------------------------------------------------------- */

bool
kcf_sender_fits(const KcfSender *sender, const KcfFlush *flush)
{
	for (int i = 0; i < flush->ntargets; i++)
	{
		const KcfTarget *target = flush->targets[i].wanted;

		if (!kcf_kafka_topic_fits(sender->kafka, target->topic,
								  target->compression[0] ? target->compression : NULL))
			return false;
	}
	return true;
}

/*
 * Every timeout has a client of its own, so there are not too many of them: eight for each doubling.
 */
static int
rounded_timeout(int ms)
{
	int step = 1;

	while (ms / step >= 16)
		step *= 2;
	return ms / step * step;
}

KcfSender *
kcf_sender_for(const KcfFlush *flush, KcfKafkaFault *fault)
{
	int timeout_ms = rounded_timeout(flush->route.timeout_ms);
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
	{
		KcfSender *sender = dlist_container(KcfSender, link, iter.cur);

		if (sender->serverid == flush->route.serverid && sender->userid == flush->route.userid &&
			sender->timeout_ms == timeout_ms && sender->bulk == flush->route.bulk &&
			sender->slot < 0 && !sender->retired && kcf_sender_fits(sender, flush) &&
			kcf_sender_check(sender, fault))
			return sender;
	}
	return kcf_sender_create(flush->route.serverid, flush->route.userid, timeout_ms,
							 flush->route.bulk, -1, fault);
}

/* ---- turns --------------------------------------------------------------------------------- */

/* Is there nothing more for it to do, or not for long enough? */
static bool
has_ended(const KcfSender *sender, TimestampTz now)
{
	if (sender->flush)
		return false; /* its transaction is to be judged first */
	if (kcf_kafka_is_stepping(sender->kafka))
		return false;
	if (sender->broken)
		return kcf_kafka_producer_outstanding(sender->kafka) == 0 || now >= sender->gone_at;
	if (sender->nflushes > 0 || kcf_kafka_producer_outstanding(sender->kafka) > 0 ||
		(sender->slot >= 0 && sender->state != KCF_SENDER_OPEN))
		return false;
	return sender->retired ||
		   TimestampDifferenceExceeds(sender->used_at, now, kcf_guc_producer_idle_timeout * 1000);
}

bool
kcf_senders_serve(void)
{
	bool busy = false;
	TimestampTz now = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	kcf_kafka_tick();
	dlist_foreach_modify(iter, &kcf_senders)
	{
		KcfSender *sender = dlist_container(KcfSender, link, iter.cur);

		if (kcf_kafka_producer_pending(sender->kafka))
		{
			KcfKafkaFault fault;
			bool broken;

			if (kcf_kafka_producer_serve(sender->kafka, kcf_flush_report, REPORTS_AT_ONCE, &broken,
										 &fault) > 0)
			{
				sender->full = false;
				busy = true;
			}
			if (broken)
				kcf_sender_break(sender, &fault);
			CHECK_FOR_INTERRUPTS();
		}
		/* At the end of the process it is done later, where it may take its time. */
		if (!proc_exit_inprogress && has_ended(sender, now))
			destroy_sender(sender);
	}
	return busy;
}

long
kcf_senders_wait(void)
{
	long wait = -1;
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
	{
		const KcfSender *sender = dlist_container(KcfSender, link, iter.cur);
		long ms;

		if (kcf_kafka_producer_pending(sender->kafka))
			return 0;
		if (sender->broken
				? kcf_kafka_producer_outstanding(sender->kafka) == 0 || now >= sender->gone_at
				: sender->nflushes > 0)
			continue; /* what comes wakes us */
		if (sender->broken)
			ms = 1 + TimestampDifferenceMilliseconds(now, sender->gone_at);
		else
			ms = 1 +
				 TimestampDifferenceMilliseconds(
					 now, TimestampTzPlusMilliseconds(
							  sender->used_at, kcf_guc_producer_idle_timeout * INT64CONST(1000)));
		wait = wait < 0 ? ms : Min(wait, ms);
	}
	return wait;
}

int64
kcf_senders_outstanding(void)
{
	int64 n = 0;
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders) n +=
		kcf_kafka_producer_outstanding(dlist_container(KcfSender, link, iter.cur)->kafka);
	return n;
}
