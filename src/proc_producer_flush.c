/*
 * proc_producer_flush.c
 *		A flush: its records on their way to the library, what became of them, and the reply.
 *
 * The library gives the address of a flush's target back with each report, so a flush lives until all its reports
 * have come, also where the backend has left.
 */
#include "postgres.h"

#include "proc_producer.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

dlist_head kcf_flushes = DLIST_STATIC_INIT(kcf_flushes);

/* Of the record being sent */
static KcfHeader *headers = NULL;
static int headers_room = 0;

KcfFlush *
kcf_flush_begin(int lane, const KcfRoute *route, const KcfTarget *targets, int ntargets)
{
	MemoryContext mcxt =
		AllocSetContextCreate(TopMemoryContext, "kafka_cache flush", ALLOCSET_SMALL_SIZES);
	KcfFlush *flush = MemoryContextAllocZero(mcxt, offsetof(KcfFlush, targets) +
													   ntargets * sizeof(KcfFlushTarget));
	KcfTarget *wanted = MemoryContextAlloc(mcxt, ntargets * sizeof(KcfTarget));

	flush->mcxt = mcxt;
	flush->lane = lane;
	flush->route = *route;
	flush->ntargets = ntargets;
	flush->give_up_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), route->timeout_ms);
	memcpy(wanted, targets, ntargets * sizeof(KcfTarget));
	for (int i = 0; i < ntargets; i++)
	{
		flush->targets[i].flush = flush;
		flush->targets[i].number = i;
		flush->targets[i].wanted = &wanted[i];
	}
	dlist_push_tail(&kcf_flushes, &flush->link);
	return flush;
}

void
kcf_flush_fail(KcfFlush *flush, const KcfKafkaFault *fault)
{
	if (fault == &flush->fault ||
		(flush->fault.error != KCF_KAFKA_OK && (!flush->vague || fault->error == KCF_KAFKA_OK)))
		return;
	flush->fault = *fault;
	flush->vague = fault->error == KCF_KAFKA_OK;
	if (flush->vague)
	{
		flush->fault.error = KCF_KAFKA_OTHER;
		strlcpy(flush->fault.text, "it was not sent because another record has failed",
				sizeof(flush->fault.text));
	}
}

/* ---- records ------------------------------------------------------------------------------- */

void
kcf_flush_frames(KcfFlush *flush, const char *frames, Size len)
{
	Assert(flush->left == 0);
	flush->frames = frames;
	flush->left = len;
}

static KcfSend
send_frame(KcfFlush *flush, const KcfFrame *frame, KcfKafkaFault *fault)
{
	KcfFlushTarget *target = &flush->targets[frame->target];
	KcfRecord rec;

	Assert(frame->target < flush->ntargets);
	if (target->topic == NULL)
	{
		const char *compression = target->wanted->compression;

		target->topic = kcf_kafka_topic(flush->sender->kafka, target->wanted->topic,
										compression[0] ? compression : NULL, fault);
		if (target->topic == NULL)
			return KCF_SEND_REFUSED;
	}
	if (frame->nheaders > headers_room)
	{
		int room = Max(frame->nheaders, 64);

		headers = headers ? repalloc(headers, room * sizeof(KcfHeader))
						  : MemoryContextAlloc(TopMemoryContext, room * sizeof(KcfHeader));
		headers_room = room;
	}
	kcf_frame_read(frame, &rec, headers);
	return kcf_kafka_send(flush->sender->kafka, target->topic, &rec, target, fault);
}

/* After a first failure nothing more of the flush is sent: it has failed as a whole then. */
bool
kcf_flush_send(KcfFlush *flush)
{
	while (flush->left > 0)
	{
		const KcfFrame *frame = (const KcfFrame *) flush->frames;
		KcfKafkaFault fault = { KCF_KAFKA_OTHER };

		if (flush->fault.error != KCF_KAFKA_OK)
			flush->refused++;
		else
		{
			switch (send_frame(flush, frame, &fault))
			{
				case KCF_SEND_TAKEN:
					flush->sent++;
					flush->outstanding++;
					break;
				case KCF_SEND_FULL:
					flush->sender->full = true;
					return false;
				case KCF_SEND_REFUSED:
					flush->refused++;
					kcf_flush_fail(flush, &fault);
					break;
			}
		}
		flush->frames += frame->size;
		flush->left -= frame->size;
	}
	return true;
}

/* ---- reports ------------------------------------------------------------------------------- */

/* NULL: no memory */
static KcfFlushPartition *
find_partition(KcfFlushTarget *target, int32 partition)
{
	KcfFlushPartition *p;

	if (target->npartitions > 0 && target->partitions[target->last].partition == partition)
		return &target->partitions[target->last];
	for (int i = 0; i < target->npartitions; i++)
	{
		if (target->partitions[i].partition == partition)
		{
			target->last = i;
			return &target->partitions[i];
		}
	}
	if (target->npartitions == target->room)
	{
		int room = Max(target->room * 2, 4);
		KcfFlushPartition *larger =
			MemoryContextAllocExtended(target->flush->mcxt, room * sizeof(KcfFlushPartition),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);

		if (larger == NULL)
			return NULL;
		if (target->npartitions > 0)
			memcpy(larger, target->partitions, target->npartitions * sizeof(KcfFlushPartition));
		target->partitions = larger;
		target->room = room;
	}
	target->last = target->npartitions++;
	p = &target->partitions[target->last];
	memset(p, 0, sizeof(*p));
	p->partition = partition;
	p->offset = -1;
	return p;
}

/* Where this record landed, if it is the last of its partition. */
static void
note_position(KcfFlushTarget *target, const KcfDeliveryReport *report)
{
	KcfFlushPartition *p = find_partition(target, report->partition);

	if (p == NULL)
	{
		/* Written, but nobody could wait for it to be read: not what was promised. */
		KcfKafkaFault fault = { KCF_KAFKA_OTHER, "the producer process is out of memory" };

		target->flush->delivered--;
		target->flush->unknown++;
		kcf_flush_fail(target->flush, &fault);
		return;
	}
	/* The library does not always know: an acknowledgement that was lost, and made up for by a later one. */
	if (report->offset < 0)
	{
		p->lost++;
		return;
	}
	/* Whoever has read this one has read those before it. */
	p->lost = 0;
	if (report->offset > p->offset)
	{
		p->offset = report->offset;
		p->timestamp = report->timestamp;
	}
}

void
kcf_flush_report(const KcfDeliveryReport *report)
{
	KcfFlushTarget *target = report->opaque;
	KcfFlush *flush = target->flush;

	flush->outstanding--;
	switch (report->fate)
	{
		case KCF_FATE_DELIVERED:
			flush->delivered++;
			note_position(target, report);
			return;
		case KCF_FATE_REFUSED:
			flush->refused++;
			break;
		case KCF_FATE_UNKNOWN:
			flush->unknown++;
			break;
	}
	kcf_flush_fail(flush, &report->fault);
}

bool
kcf_flush_is_settled(const KcfFlush *flush)
{
	return flush->ended && flush->left == 0 && flush->outstanding == 0;
}

void
kcf_flush_forget_sender(KcfFlush *flush)
{
	if (flush->outstanding > 0)
	{
		KcfKafkaFault fault = { KCF_KAFKA_OTHER, "there was no report of its delivery" };

		flush->unknown += flush->outstanding;
		flush->outstanding = 0;
		kcf_flush_fail(flush, &fault);
	}
	flush->sender = NULL;
}

/* ---- the reply ----------------------------------------------------------------------------- */

/*
 * Records that are written, and cannot be waited for by who wants to read them: that is not what success promises,
 * so they are told as unknown.
 */
static void
give_up_lost(KcfFlush *flush, const KcfFlushTarget *target)
{
	KcfKafkaFault fault = { KCF_KAFKA_OTHER,
							"the acknowledgement that said where it was written was lost" };

	for (int i = 0; i < target->npartitions; i++)
	{
		if (target->partitions[i].lost == 0)
			continue;
		flush->delivered -= target->partitions[i].lost;
		flush->unknown += target->partitions[i].lost;
		target->partitions[i].lost = 0;
		kcf_flush_fail(flush, &fault);
	}
}

/* What is outstanding is unknown, what has come and was not sent is refused. */
void
kcf_flush_reply_counts(KcfFlush *flush)
{
	KcfReply *reply;
	int n = 0;

	for (int i = 0; i < flush->ntargets; i++)
	{
		give_up_lost(flush, &flush->targets[i]);
		n += flush->targets[i].npartitions;
	}
	reply =
		MemoryContextAllocZero(flush->mcxt, offsetof(KcfReply, written) + n * sizeof(KcfWritten));
	reply->delivered = flush->delivered;
	reply->refused = flush->refused;
	reply->unknown = flush->unknown + flush->outstanding;
	reply->fault = flush->fault;
	/* what seemed to fail came through in the end */
	if (kcf_flush_is_settled(flush) && reply->refused == 0 && reply->unknown == 0)
		reply->fault.error = KCF_KAFKA_OK;
	for (int i = 0; i < flush->ntargets; i++)
	{
		const KcfFlushTarget *target = &flush->targets[i];

		for (int k = 0; k < target->npartitions; k++)
		{
			KcfWritten *written;

			if (target->partitions[k].offset < 0)
				continue;
			written = &reply->written[reply->nwritten++];
			written->target = target->number;
			written->partition = target->partitions[k].partition;
			written->offset = target->partitions[k].offset;
			written->timestamp = target->partitions[k].timestamp;
		}
	}
	flush->reply = reply;
}

void
kcf_flush_reply_all(KcfFlush *flush, bool unknown, const KcfKafkaFault *fault)
{
	uint64 records = flush->delivered + flush->refused + flush->unknown + flush->outstanding;

	kcf_flush_fail(flush, fault);
	flush->reply = MemoryContextAllocZero(flush->mcxt, offsetof(KcfReply, written));
	flush->reply->refused = unknown ? 0 : records;
	flush->reply->unknown = unknown ? records : 0;
	flush->reply->fault = flush->fault;
}

/* ---- the end ------------------------------------------------------------------------------- */

void
kcf_flush_leave(KcfFlush *flush)
{
	flush->lane = -1;
	flush->left = 0;
	flush->waiting = false;
}

void
kcf_flushes_sweep(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &kcf_flushes)
	{
		KcfFlush *flush = dlist_container(KcfFlush, link, iter.cur);

		if (flush->lane >= 0 || flush->outstanding > 0 ||
			(flush->sender && flush->sender->flush == flush))
			continue;
		if (flush->sender)
		{
			flush->sender->nflushes--;
			flush->sender->used_at = GetCurrentTimestamp();
		}
		dlist_delete(&flush->link);
		MemoryContextDelete(flush->mcxt);
	}
}
