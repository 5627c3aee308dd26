/*
 * proc_producer_atomic.c
 *		Flushes that are Kafka transactions: a few senders with transactional ids for each server and user, and the
 *		line of those who wait for one.
 *
 * A record of such a flush counts as having left when its commit is begun: before that the transaction can only be
 * aborted, by us, by whoever uses the id next, or by the brokers' own timeout. So every failure before it is told as
 * "refused", at once. A commit that does not come to an end is "unknown": its sender goes, and the next one of that
 * id fences it, so that it cannot happen later in the midst of another transaction.
 */
#include "postgres.h"

#include "proc_producer.h"

#include "storage/ipc.h"
#include "utils/timestamp.h"

#define MAX_SLOTS 8
/* A step that no flush waits for is given up after that. */
#define PATIENCE_MS 15000
/* An abort that takes longer is left to the next sender of that id. */
#define ABORT_PATIENCE_MS 5000
/* What a process that ends gives to commits that are under way. */
#define FINISH_MS 250

static TimestampTz
in_ms(int ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

static bool
is_of(const KcfSender *sender, const KcfFlush *flush)
{
	return sender->slot >= 0 && sender->serverid == flush->route.serverid &&
		   sender->userid == flush->route.userid;
}

static KcfSender *
create_slot(Oid serverid, Oid userid, int slot, KcfKafkaFault *fault)
{
	KcfSender *sender = kcf_sender_create(serverid, userid, PATIENCE_MS, false, slot, fault);

	if (sender)
	{
		kcf_kafka_init_transactions(sender->kafka);
		sender->state = KCF_SENDER_INIT;
		sender->give_up_at = in_ms(PATIENCE_MS);
	}
	return sender;
}

/*
 * One that is free, or a new one; NULL: the flush waits, or has failed. Those that were given up may be stuck in the
 * library until the brokers are back: not any number of them.
 */
static KcfSender *
find_slot(KcfFlush *flush)
{
	bool taken[MAX_SLOTS] = { false };
	KcfSender *found = NULL;
	KcfSender *unfit = NULL;
	int ntaken = 0;
	int nstuck = 0;
	KcfKafkaFault fault = { KCF_KAFKA_OK };
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
	{
		KcfSender *sender = dlist_container(KcfSender, link, iter.cur);

		if (!is_of(sender, flush))
			continue;
		if (sender->broken)
		{
			if (kcf_kafka_is_stepping(sender->kafka) && ++nstuck >= MAX_SLOTS)
			{
				kcf_flush_fail(flush, &sender->fault);
				return NULL;
			}
			continue;
		}
		ntaken += taken[sender->slot] ? 0 : 1;
		taken[sender->slot] = true;
		if (sender->flush || sender->retired ||
			(sender->state != KCF_SENDER_OPEN && sender->state != KCF_SENDER_INIT) ||
			!kcf_sender_check(sender, &fault))
			continue;
		if (!kcf_sender_fits(sender, flush))
			unfit = sender;
		else if (found == NULL || found->state == KCF_SENDER_INIT)
			found = sender;
	}
	/* Somebody who compresses in another way makes room, and has gone before our next turn. */
	if (found == NULL && ntaken == MAX_SLOTS && unfit)
		unfit->retired = true;
	for (int slot = 0; found == NULL && slot < MAX_SLOTS; slot++)
	{
		if (taken[slot])
			continue;
		found = create_slot(flush->route.serverid, flush->route.userid, slot, &fault);
		if (found == NULL)
			kcf_flush_fail(flush, &fault);
		break;
	}
	return found;
}

static void
find_sender(KcfFlush *flush)
{
	KcfSender *sender = find_slot(flush);

	if (sender)
	{
		sender->flush = flush;
		sender->nflushes++;
		sender->used_at = GetCurrentTimestamp();
		flush->sender = sender;
	}
	flush->waiting = sender == NULL && flush->fault.error == KCF_KAFKA_OK;
}

void
kcf_atomic_begin(KcfFlush *flush)
{
	dlist_iter iter;

	/* Not before those who wait already. */
	dlist_foreach(iter, &kcf_flushes)
	{
		const KcfFlush *other = dlist_container(KcfFlush, link, iter.cur);

		if (other != flush && other->waiting && other->route.serverid == flush->route.serverid &&
			other->route.userid == flush->route.userid)
		{
			flush->waiting = true;
			return;
		}
	}
	find_sender(flush);
}

bool
kcf_atomic_is_open(const KcfFlush *flush)
{
	return flush->sender && flush->sender->flush == flush &&
		   flush->sender->state == KCF_SENDER_OPEN;
}

/* ---- steps --------------------------------------------------------------------------------- */

/*
 * It is of no use any more. What it may have left open at the brokers would keep readers of those partitions
 * waiting: the next sender of its id ends that. Who was fenced has left nothing open.
 */
static void
replace(KcfSender *sender, const KcfKafkaFault *fault, bool left_open)
{
	KcfKafkaFault ignored;

	kcf_sender_break(sender, fault);
	if (left_open && sender->fault.error != KCF_KAFKA_FENCED && !proc_exit_inprogress)
		(void) create_slot(sender->serverid, sender->userid, sender->slot, &ignored);
}

/* Its flush has failed, and nothing of it will be committed. */
static void
let_go(KcfSender *sender, const KcfKafkaFault *fault)
{
	KcfFlush *flush = sender->flush;

	sender->flush = NULL;
	kcf_flush_fail(flush, fault);
}

static void
turn_init(KcfSender *sender, TimestampTz now)
{
	KcfKafkaFault fault = { KCF_KAFKA_UNREACHABLE,
							"no answer from the brokers' transaction coordinator" };
	KcfStep step = KCF_STEP_BROKEN;

	if (!sender->broken)
		step = kcf_kafka_step(sender->kafka, &fault);
	if (step == KCF_STEP_DONE)
		sender->state = KCF_SENDER_OPEN;
	else if (step == KCF_STEP_BROKEN ||
			 now > (sender->flush ? sender->flush->give_up_at : sender->give_up_at))
	{
		kcf_sender_break(sender, &fault);
		if (sender->flush)
			let_go(sender, &sender->fault);
	}
}

static void
turn_open(KcfSender *sender, TimestampTz now)
{
	KcfFlush *flush = sender->flush;
	bool left = flush->lane < 0;
	KcfKafkaFault fault = { KCF_KAFKA_UNREACHABLE, "the transaction could not be sent in time" };
	KcfKafkaFault why;

	if (sender->broken)
	{
		let_go(sender, &sender->fault);
		replace(sender, &sender->fault, flush->sent > 0);
		return;
	}
	if (!left && kcf_flush_is_settled(flush) && flush->fault.error == KCF_KAFKA_OK)
	{
		/* The last moment for the backend to give up, and the first from which on nobody knows. */
		if (kcf_lane_take(flush->lane, flush->sent))
		{
			kcf_kafka_commit_transaction(sender->kafka);
			sender->state = KCF_SENDER_COMMIT;
			return;
		}
		left = true;
	}
	if (!left && flush->fault.error == KCF_KAFKA_OK && now <= flush->give_up_at)
		return;
	/* one record of it has failed and the others with it, or the transaction itself has */
	if (flush->vague && kcf_kafka_transaction_fault(sender->kafka, &why))
		kcf_flush_fail(flush, &why);
	let_go(sender, flush->fault.error == KCF_KAFKA_OK ? &fault : &flush->fault);
	if (flush->sent == 0)
		return;
	/* After records that failed librdkafka 2.0 may go on with wrong sequence numbers: another client then. */
	if (flush->delivered != flush->sent)
		replace(sender, &flush->fault, true);
	else
	{
		kcf_kafka_abort_transaction(sender->kafka);
		sender->state = KCF_SENDER_ABORT;
		sender->give_up_at = in_ms(ABORT_PATIENCE_MS);
	}
}

static void
turn_commit(KcfSender *sender, TimestampTz now)
{
	KcfFlush *flush = sender->flush;
	KcfKafkaFault fault = { KCF_KAFKA_UNREACHABLE,
							"the transaction's commit was not acknowledged in time" };
	KcfStep step = KCF_STEP_BROKEN;

	if (!sender->broken)
		step = kcf_kafka_step(sender->kafka, &fault);
	else
		fault = sender->fault;
	if (step == KCF_STEP_DONE)
	{
		kcf_flush_reply_counts(flush);
		sender->flush = NULL;
		sender->state = KCF_SENDER_OPEN;
	}
	else if (step == KCF_STEP_BROKEN || now > flush->give_up_at)
	{
		kcf_flush_reply_all(flush, true, &fault);
		sender->flush = NULL;
		sender->state = KCF_SENDER_OPEN;
		replace(sender, &fault, true);
	}
}

static void
turn_abort(KcfSender *sender, TimestampTz now)
{
	KcfKafkaFault fault = { KCF_KAFKA_UNREACHABLE, "a transaction could not be aborted" };
	KcfStep step = KCF_STEP_BROKEN;

	if (!sender->broken)
		step = kcf_kafka_step(sender->kafka, &fault);
	if (step == KCF_STEP_DONE)
		sender->state = KCF_SENDER_OPEN;
	else if (step == KCF_STEP_BROKEN || now > sender->give_up_at)
	{
		/* Not a second time: its successor begins by ending what is open. */
		sender->state = KCF_SENDER_OPEN;
		replace(sender, &fault, true);
	}
}

bool
kcf_atomic_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool busy = false;
	dlist_iter iter;

	/* New senders are put at the end of the list, which does no harm. */
	dlist_foreach(iter, &kcf_senders)
	{
		KcfSender *sender = dlist_container(KcfSender, link, iter.cur);
		KcfSenderState before = sender->state;

		if (sender->slot < 0)
			continue;
		switch (sender->state)
		{
			case KCF_SENDER_INIT:
				if (!sender->broken || sender->flush)
					turn_init(sender, now);
				break;
			case KCF_SENDER_OPEN:
				if (sender->flush)
					turn_open(sender, now);
				break;
			case KCF_SENDER_COMMIT:
				turn_commit(sender, now);
				break;
			case KCF_SENDER_ABORT:
				turn_abort(sender, now);
				break;
		}
		busy |= sender->state != before;
	}

	dlist_foreach(iter, &kcf_flushes)
	{
		KcfFlush *flush = dlist_container(KcfFlush, link, iter.cur);

		if (!flush->route.atomic || flush->lane < 0 || flush->reply)
			continue;
		if (flush->waiting && now > flush->give_up_at)
		{
			KcfKafkaFault fault = { KCF_KAFKA_UNREACHABLE,
									"other transactions of the same user were not done in time" };

			flush->waiting = false;
			kcf_flush_fail(flush, &fault);
		}
		else if (flush->waiting)
		{
			find_sender(flush);
			busy |= !flush->waiting;
		}
		/* Failed, and not committed: that is certain before the last report has come. */
		if (flush->fault.error != KCF_KAFKA_OK && flush->ended && flush->left == 0 &&
			(flush->sender == NULL || flush->sender->flush != flush))
		{
			kcf_flush_reply_all(flush, false, &flush->fault);
			busy = true;
		}
	}
	return busy;
}

long
kcf_atomic_wait(void)
{
	long wait = -1;
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
	{
		const KcfSender *sender = dlist_container(KcfSender, link, iter.cur);
		long ms;

		if (sender->slot < 0 || sender->broken || sender->flush || sender->state == KCF_SENDER_OPEN)
			continue;
		ms = 1 + TimestampDifferenceMilliseconds(now, sender->give_up_at);
		wait = wait < 0 ? ms : Min(wait, ms);
	}
	dlist_foreach(iter, &kcf_flushes)
	{
		const KcfFlush *flush = dlist_container(KcfFlush, link, iter.cur);
		long ms;

		if (!flush->route.atomic || flush->lane < 0 || flush->reply)
			continue;
		ms = 1 + TimestampDifferenceMilliseconds(now, flush->give_up_at);
		wait = wait < 0 ? ms : Min(wait, ms);
	}
	return wait;
}

void
kcf_atomic_finish(void)
{
	TimestampTz until = in_ms(FINISH_MS);
	KcfKafkaFault fault = { KCF_KAFKA_OTHER, "the producer process has ended" };
	dlist_iter iter;

	dlist_foreach(iter, &kcf_senders)
	{
		KcfSender *sender = dlist_container(KcfSender, link, iter.cur);

		while (sender->slot >= 0 && sender->state == KCF_SENDER_COMMIT)
		{
			turn_commit(sender, Min(GetCurrentTimestamp(), sender->flush->give_up_at));
			if (sender->state != KCF_SENDER_COMMIT || GetCurrentTimestamp() >= until)
				break;
			pg_usleep(1000);
		}
	}
	dlist_foreach(iter, &kcf_flushes)
	{
		KcfFlush *flush = dlist_container(KcfFlush, link, iter.cur);

		if (flush->route.atomic && flush->lane >= 0 && !flush->reply)
			kcf_flush_reply_all(flush,
								flush->sender && flush->sender->flush == flush &&
									flush->sender->state == KCF_SENDER_COMMIT,
								&fault);
	}
}
