/*
 * pending_send.c
 *		Sending a log of records, and saying truthfully what has become of them.
 *
 * A flush is what goes one way, to one server as one user. A log that has several ways is read once for each. What
 * the brokers have acknowledged is not taken back, so from the first flush that succeeded on, every failure of a
 * later one leaves the outcome mixed.
 */
#include "postgres.h"

#include "pending_internal.h"

#include "compat.h"
#include "guc.h"
#include "written.h"

#include "foreign/foreign.h"
#include "utils/memutils.h"

/* So many take longer than the last of them waits for its batch to be sent. */
#define BULK_RECORDS 10000

typedef struct Route
{
	KcfRoute wire;
	KcfTarget *targets;
	KcfWrittenTables **tables; /* of each target */
	int ntargets;
	uint64 records;
} Route;

/* How a log is sent. */
typedef struct Sending
{
	KcfPending *log;
	Route *routes;
	int nroutes;
	int *route_of;     /* by target of the log */
	uint16 *number_of; /* ... its number on its route */
	bool as_it_is;     /* one route, and the numbers are the same */

	/* what is known so far */
	uint64 records;
	uint64 delivered;
	uint64 unknown;
} Sending;

/* ---- ways ---- */

/* The library looks for records that are out of time once a second. */
#define LIBRARY_LAG_MS 1500

/* The library is to give up before we do: it can tell what never left. */
static int
record_timeout(const KcfPending *log)
{
	int timeout = log->patience_ms > 0 ? log->patience_ms : kcf_guc_produce_timeout;

	return Max(timeout - Max(LIBRARY_LAG_MS, timeout / 10), timeout / 2);
}

static Route *
find_route(Sending *sending, const KcfPendingTarget *target)
{
	Route *route;

	for (int i = 0; i < sending->nroutes; i++)
	{
		route = &sending->routes[i];
		if (route->wire.serverid == target->serverid && route->wire.userid == target->userid)
			return route;
	}
	route = &sending->routes[sending->nroutes++];
	memset(route, 0, sizeof(*route));
	route->wire.serverid = target->serverid;
	route->wire.userid = target->userid;
	route->wire.timeout_ms = record_timeout(sending->log);
	route->wire.patience_ms = sending->log->patience_ms;
	route->targets = palloc(sending->log->ntargets * sizeof(KcfTarget));
	route->tables = palloc(sending->log->ntargets * sizeof(KcfWrittenTables *));
	return route;
}

static void
plan_routes(Sending *sending, KcfPending *log)
{
	int n = log->ntargets;

	memset(sending, 0, sizeof(*sending));
	sending->log = log;
	sending->routes = palloc(n * sizeof(Route));
	sending->route_of = palloc(n * sizeof(int));
	sending->number_of = palloc(n * sizeof(uint16));
	sending->as_it_is = true;
	kcf_pending_recount(log);
	for (int i = 0; i < n; i++)
	{
		const KcfPendingTarget *target = &log->targets[i];
		Route *route;

		/* Rolled back, or never used */
		if (target->records == 0)
			continue;
		route = find_route(sending, target);
		route->wire.atomic |= target->atomic;
		route->records += target->records;
		sending->records += target->records;
		sending->route_of[i] = (int) (route - sending->routes);
		sending->number_of[i] = (uint16) route->ntargets;
		sending->as_it_is &= route->ntargets == i;
		if (log->patience_ms == 0)
			route->tables[route->ntargets] =
				kcf_written_reserve(target->relid, target->serverid, target->wire.topic);
		route->targets[route->ntargets++] = target->wire;
	}
	for (int i = 0; i < sending->nroutes; i++)
		sending->routes[i].wire.bulk = sending->routes[i].records >= BULK_RECORDS;
	sending->as_it_is &= sending->nroutes == 1;
}

/* ---- the outcome ---- */

static const char *
server_name(const Route *route)
{
	ForeignServer *server = GetForeignServerExtended(route->wire.serverid, FSV_MISSING_OK);

	return server ? server->servername : "?";
}

static int
code_of(KcfKafkaError error)
{
	switch (error)
	{
		case KCF_KAFKA_AUTH:
			return ERRCODE_INSUFFICIENT_PRIVILEGE;
		case KCF_KAFKA_TOO_LARGE:
			return ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		case KCF_KAFKA_NO_PARTITION:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		default:
			return ERRCODE_CONNECTION_FAILURE;
	}
}

static const char *
hint_for(KcfKafkaError error)
{
	switch (error)
	{
		case KCF_KAFKA_UNREACHABLE:
			return "Check the server's option \"brokers\" and that the brokers can be reached. "
				   "Nothing was written, so it is safe to try again.";
		case KCF_KAFKA_AUTH:
			return "Check the user mapping of the user who writes, and that user's right to write "
				   "to the topics.";
		case KCF_KAFKA_NO_TOPIC:
			return "Create the topic, or correct the table's option \"topic\".";
		case KCF_KAFKA_NO_PARTITION:
			return "The topic has fewer partitions. Leave the partition NULL to have it chosen by "
				   "the key.";
		case KCF_KAFKA_CONFIG:
			return "Correct the options of the server or of the user mapping. They must have been "
				   "committed before they are used to write.";
		case KCF_KAFKA_TOO_LARGE:
			return "Raise the topic's \"max.message.bytes\" and the server's option "
				   "\"message_max_bytes\". The topic's limit is one for whole batches: where many "
				   "rows "
				   "exceed it and one does not, lower the server's option \"batch_size\".";
		case KCF_KAFKA_REFUSED:
			return "See what the brokers and the topic demand, such as replicas in sync "
				   "(\"min.insync.replicas\").";
		case KCF_KAFKA_FENCED:
			return "Another server has taken over the transactional id. Try again.";
		default:
			return "Nothing was written, so it is safe to try again.";
	}
}

#define HINT_MIXED                                                                                 \
	"Read the topic to see what is there. Writing the same rows again is safe: each replaces the " \
	"one of its key."

/* One record is told of in words, several in numbers. */
static int
detail_nothing(const Sending *sending, const char *why)
{
	if (sending->records == 1)
		return errdetail("The record was not written: %s", why);
	return errdetail("None of the %llu records was written: %s",
					 (unsigned long long) sending->records, why);
}

static int
detail_mixed(const Sending *sending, const char *why)
{
	if (sending->records == 1)
		return errdetail("The record may have been written: %s", why);
	return errdetail("%llu of %llu records were written, %llu may have been: %s",
					 (unsigned long long) sending->delivered, (unsigned long long) sending->records,
					 (unsigned long long) sending->unknown, why);
}

pg_noreturn static void
report_nothing(const Sending *sending, const Route *route, const KcfKafkaFault *fault)
{
	const char *name = server_name(route);
	const char *why = fault->text[0] ? fault->text : "no reason was given";

	ereport(ERROR, (errcode(code_of(fault->error)),
					errmsg("could not write to Kafka through server \"%s\"", name),
					detail_nothing(sending, why), errhint("%s", hint_for(fault->error))));
}

pg_noreturn static void
report_mixed(const Sending *sending, const Route *route, const char *why)
{
	const char *name = server_name(route);

	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 sending->unknown > 0
				 ? errmsg("outcome of writing to Kafka through server \"%s\" is unknown", name)
				 : errmsg("not all was written to Kafka through server \"%s\"", name),
			 detail_mixed(sending, why), errhint("%s", HINT_MIXED)));
}

/* What a reply says of its route. */
static void
judge(Sending *sending, const Route *route, const KcfReply *reply)
{
	for (int i = 0; i < reply->nwritten; i++)
	{
		const KcfWritten *written = &reply->written[i];

		Assert(written->target < route->ntargets);
		if (sending->log->patience_ms > 0)
			continue;
		kcf_written_note(route->tables[written->target], written->partition, written->offset);
	}
	sending->delivered += reply->delivered;
	sending->unknown += reply->unknown;
	if (reply->delivered == route->records && reply->unknown == 0 && reply->refused == 0)
		return;
	if (sending->delivered == 0 && sending->unknown == 0)
		report_nothing(sending, route, &reply->fault);
	report_mixed(sending, route, reply->fault.text[0] ? reply->fault.text : "no reason was given");
}

/*
 * An error on the way. The queue's own say what is known of this flush, the others (a temporary file cannot be
 * read) do not: some of it may have left by then.
 */
pg_noreturn static void
report_thrown(Sending *sending, const Route *route, bool begun, MemoryContext mcxt)
{
	int code = geterrcode();
	bool known = !begun || code == ERRCODE_CONNECTION_FAILURE || code == ERRCODE_QUERY_CANCELED ||
				 code == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	ErrorData *error;

	if (known && sending->delivered == 0)
		PG_RE_THROW();
	MemoryContextSwitchTo(mcxt);
	error = CopyErrorData();
	FlushErrorState();
	if (!known || code == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
		sending->unknown += route->records;
	report_mixed(sending, route, error->message);
}

/* ---- sending ---- */

/* Of a piece of the log, what goes this way. */
static void
send_own(const Sending *sending, int route, const char *piece, Size len, StringInfo out)
{
	resetStringInfo(out);
	for (Size at = 0; at < len;)
	{
		const KcfFrame *frame = (const KcfFrame *) (piece + at);

		at += frame->size;
		if (sending->route_of[frame->target] != route)
			continue;
		appendBinaryStringInfo(out, (const char *) frame, frame->size);
		((KcfFrame *) (out->data + out->len - frame->size))->target =
			sending->number_of[frame->target];
	}
	if (out->len > 0)
		kcf_sendq_send(out->data, out->len);
}

/* *begun: from now on something may have left. */
static KcfReply *
send_route(const Sending *sending, int number, volatile bool *begun)
{
	const Route *route = &sending->routes[number];
	KcfPendingReader reader;
	StringInfoData out;
	const char *piece;
	Size len;
	KcfReply *reply;

	if (!sending->as_it_is)
		initStringInfo(&out);
	kcf_pending_reader_begin(&reader, sending->log);
	kcf_sendq_begin(&route->wire, route->targets, route->ntargets);
	*begun = true;
	while ((piece = kcf_pending_reader_next(&reader, &len)) != NULL)
	{
		if (sending->as_it_is)
			kcf_sendq_send(piece, len);
		else
			send_own(sending, number, piece, len, &out);
	}
	reply = kcf_sendq_finish();
	kcf_pending_reader_end(&reader);
	if (!sending->as_it_is)
		pfree(out.data);
	return reply;
}

void
kcf_pending_flush(KcfPending *log, KcfWritten *last)
{
	MemoryContext mcxt =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache sending", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	Sending sending;
	KcfReply *volatile reply = NULL;
	int nkeys;
	KcfPendingKey *keys = kcf_pending_lead(log, &nkeys);

	if (last)
	{
		memset(last, 0, sizeof(*last));
		last->partition = -1;
		last->offset = -1;
		last->timestamp = KCF_NO_TIMESTAMP;
	}
	plan_routes(&sending, log);
	for (int i = 0; i < sending.nroutes; i++)
	{
		volatile bool begun = false;

		PG_TRY();
		{
			reply = send_route(&sending, i, &begun);
		}
		PG_CATCH();
		{
			kcf_sendq_abandon();
			report_thrown(&sending, &sending.routes[i], begun, mcxt);
		}
		PG_END_TRY();
		judge(&sending, &sending.routes[i], reply);
		if (last && reply->nwritten > 0)
			*last = reply->written[reply->nwritten - 1];
	}
	if (nkeys > 0)
	{
		kcf_pending_show(log);
		kcf_pending_land(keys, nkeys);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(mcxt);
}
