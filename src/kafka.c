/*
 * kafka.c
 *		Life of a client: how it is configured, what it reports, how it ends.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "kafka_internal.h"
#include "compat.h"
#include "libpq/pqsignal.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long the clients may take to end together with their process. */
#define EXIT_DEADLINE_S 5

/* Log lines of all clients: so many at once, then one each so many milliseconds. */
#define LOG_BURST 10
#define LOG_INTERVAL_MS 10000

/* syslog's number for debugging, which the library uses */
#define LIBRARY_DEBUG 7

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/*
 * Where the user says nothing, properties.c has our values. This one not every library knows: the newer
 * ones' cure for a full queue that stops fetching for a second.
 */
#if KCF_HAVE_FETCH_QUEUE_BACKOFF
static const Setting newer_defaults[] = {
	{ "fetch.queue.backoff.ms", "20" },
};
#endif

/* Not to be had otherwise: the code relies on them. */
static const Setting fixed[] = {
	{ "enable.partition.eof", "true" },
	{ "isolation.level", "read_committed" },
	{ "check.crcs", "true" },
	{ "allow.auto.create.topics", "false" },
	{ "enable.auto.commit", "false" },
	{ "enable.auto.offset.store", "false" },
	/* never a silent rewind: it would bring deleted keys back to life */
	{ "auto.offset.reset", "error" },
	{ "statistics.interval.ms", "1000" },
	{ "log.queue", "true" },
	{ "client.software.name", "kafka_cache_fdw" },
};

static dlist_head alive = DLIST_STATIC_INIT(alive);

/* ---- texts --------------------------------------------------------------------------------- */

KcfKafkaError
kcf_kafka_error(rd_kafka_resp_err_t err)
{
	switch (err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return KCF_KAFKA_OK;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
			return KCF_KAFKA_UNREACHABLE;
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
		case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
			return KCF_KAFKA_AUTH;
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			return KCF_KAFKA_NO_TOPIC;
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			return KCF_KAFKA_NO_PARTITION;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR__NO_OFFSET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			return KCF_KAFKA_OUT_OF_RANGE;
		case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
			return KCF_KAFKA_UNREADABLE;
		case RD_KAFKA_RESP_ERR__BAD_MSG:
		case RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
			return KCF_KAFKA_BAD_DATA;
		case RD_KAFKA_RESP_ERR__INVALID_ARG:
			return KCF_KAFKA_CONFIG;
		default:
			return KCF_KAFKA_OTHER;
	}
}

/*
 * Copy what the library says: on one line, without control characters, cut at a character, and with
 * the secrets of this client blotted out should they ever occur.
 */
void
kcf_kafka_clean(const KcfKafka *kafka, char *out, Size size, const char *text, Size len)
{
	Size used = 0;
	Size i = 0;

	while (i < len && text[i] != '\0' && used + 1 < size)
	{
		bool secret = false;

		for (int s = 0; kafka && s < kafka->nsecrets; s++)
		{
			Size n = strlen(kafka->secrets[s]);

			if (len - i >= n && memcmp(text + i, kafka->secrets[s], n) == 0)
			{
				out[used++] = '*';
				i += n;
				secret = true;
				break;
			}
		}
		if (secret)
			continue;
		/* the rest of a line of the library may be bytes of a broker, in any encoding */
		if ((unsigned char) text[i] < 0x20 || (unsigned char) text[i] >= 0x7f)
			out[used++] = (text[i] == '\n' || text[i] == '\t') ? ' ' : '?';
		else
			out[used++] = text[i];
		i++;
	}
	out[used] = '\0';
}

void
kcf_kafka_fault(const KcfKafka *kafka, KcfKafkaFault *fault, rd_kafka_resp_err_t err,
				const char *text)
{
	if (text == NULL || text[0] == '\0')
		text = rd_kafka_err2str(err);
	fault->error = kcf_kafka_error(err);
	kcf_kafka_clean(kafka, fault->text, sizeof(fault->text), text, strlen(text));

	/* The library has one code for all that ends a connection; a handshake that fails is in the
	 * text. */
	if (fault->error == KCF_KAFKA_UNREACHABLE &&
		(strstr(fault->text, "SSL handshake failed") || strstr(fault->text, "SASL authentication")))
		fault->error = KCF_KAFKA_AUTH;
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool
set_property(KcfKafka *kafka, rd_kafka_conf_t *conf, const char *name, const char *value,
			 bool secret, KcfKafkaFault *fault)
{
	char text[256];

	if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
		return true;
	fault->error = KCF_KAFKA_CONFIG;
	if (secret)
		snprintf(fault->text, sizeof(fault->text), "invalid value for \"%s\"", name);
	else
		kcf_kafka_clean(kafka, fault->text, sizeof(fault->text), text, strlen(text));
	return false;
}

static bool
set_all(KcfKafka *kafka, rd_kafka_conf_t *conf, const Setting *settings, int n,
		KcfKafkaFault *fault)
{
	for (int i = 0; i < n; i++)
		if (!set_property(kafka, conf, settings[i].name, settings[i].value, false, fault))
			return false;
	return true;
}

/* The one place where a client's configuration is made: first and every later time alike. */
static rd_kafka_conf_t *
configure(KcfKafka *kafka, const KcfServerOptions *server, KcfKafkaFault *fault)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool ok = true;
	ListCell *lc;

#if KCF_HAVE_FETCH_QUEUE_BACKOFF
	ok = set_all(kafka, conf, newer_defaults, lengthof(newer_defaults), fault);
#endif
	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);

		/*
		 * The group serves to show positions, by a client of its own: with it this one would look
		 * for a coordinator, which needs rights and makes brokers create their offsets topic.
		 */
		if (strcmp(property->name, "group.id") == 0)
			continue;
		/* a consumer would only log that it ignores a producer's */
		if (kcf_property_find(property->name)->scope == 'P')
			continue;
		ok = ok &&
			 set_property(kafka, conf, property->name, property->value, property->secret, fault);
	}
	ok = ok && set_all(kafka, conf, fixed, lengthof(fixed), fault) &&
		 set_property(kafka, conf, "client.software.version", KCF_VERSION, false, fault);
	if (!ok)
	{
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	rd_kafka_conf_set_events(conf,
							 RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS);
	return conf;
}

static void
remember_secrets(KcfKafka *kafka, const KcfServerOptions *server)
{
	ListCell *lc;

	kafka->secrets = palloc0(sizeof(char *) * (list_length(server->properties) + 1));
	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);

		/* very short ones would only riddle the texts, and give themselves away by it */
		if (property->secret && strlen(property->value) >= 4)
			kafka->secrets[kafka->nsecrets++] = pstrdup(property->value);
	}
}

KcfKafka *
kcf_kafka_create(const char *topic, const KcfServerOptions *server, int wakeup_fd,
				 KcfKafkaFault *fault)
{
	static const uint64 one = 1;
	MemoryContext mcxt =
		AllocSetContextCreate(TopMemoryContext, "kafka_cache client", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	KcfKafka *kafka = palloc0(sizeof(KcfKafka));
	rd_kafka_conf_t *conf;
	char text[512];

	kafka->mcxt = mcxt;
	kafka->topic = pstrdup(topic);
	kafka->stats.mcxt = mcxt;
	kafka->max_record_bytes = PG_INT64_MAX;
	remember_secrets(kafka, server);
	MemoryContextSwitchTo(old);

	conf = configure(kafka, server, fault);
	if (conf)
	{
		kafka->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
		if (kafka->rk == NULL)
		{
			rd_kafka_conf_destroy(conf);
			fault->error = KCF_KAFKA_CONFIG;
			kcf_kafka_clean(kafka, fault->text, sizeof(fault->text), text, strlen(text));
		}
	}
	if (kafka->rk == NULL)
	{
		MemoryContextDelete(mcxt);
		return NULL;
	}

	/* Log lines come by the queue of the other events, those of the start included. */
	rd_kafka_set_log_queue(kafka->rk, NULL);
	kafka->events = rd_kafka_queue_get_main(kafka->rk);
	kafka->records = rd_kafka_queue_new(kafka->rk);
	rd_kafka_queue_io_event_enable(kafka->events, wakeup_fd, &one, sizeof(one));
	rd_kafka_queue_io_event_enable(kafka->records, wakeup_fd, &one, sizeof(one));
	kafka->rkt = rd_kafka_topic_new(kafka->rk, topic, NULL);
	dlist_push_tail(&alive, &kafka->link);
	if (kafka->rkt == NULL)
	{
		kcf_kafka_fault(kafka, fault, rd_kafka_last_error(), NULL);
		fault->error = KCF_KAFKA_CONFIG;
		kcf_kafka_destroy(kafka);
		return NULL;
	}
	return kafka;
}

void
kcf_kafka_destroy(KcfKafka *kafka)
{
	dlist_delete(&kafka->link);
	rd_kafka_queue_io_event_enable(kafka->events, -1, NULL, 0);
	rd_kafka_queue_io_event_enable(kafka->records, -1, NULL, 0);
	/* The queue of ours goes first: what lies in it refers to the client, which waits for that. */
	rd_kafka_queue_destroy(kafka->records);
	rd_kafka_queue_destroy(kafka->events);
	if (kafka->rkt)
		rd_kafka_topic_destroy(kafka->rkt);
	rd_kafka_destroy(kafka->rk);
	MemoryContextDelete(kafka->mcxt);
}

void
kcf_kafka_set_limits(KcfKafka *kafka, bool headers, int64 max_record_bytes)
{
	kafka->headers = headers;
	kafka->max_record_bytes = max_record_bytes;
}

const char *
kcf_kafka_version(void)
{
	return rd_kafka_version_str();
}

/* ---- the end of the process ---------------------------------------------------------------- */

static void
give_up(SIGNAL_ARGS)
{
	_exit(1);
}

/*
 * Exit handlers of the C library run under a client's live threads crash now and then, which would
 * restart the whole server: so the clients end first. At this stage the process has left shared
 * memory, so that a client that does not end can be abandoned without harm to anybody.
 */
static void
end_clients(int code, Datum arg)
{
	struct itimerval deadline = { .it_value = { .tv_sec = EXIT_DEADLINE_S } };
	struct itimerval never = { 0 };
	sigset_t mask;

	if (dlist_is_empty(&alive))
		return;
	pqsignal(SIGALRM, give_up);
	sigemptyset(&mask);
	sigaddset(&mask, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
	setitimer(ITIMER_REAL, &deadline, NULL);
	while (!dlist_is_empty(&alive))
		kcf_kafka_destroy(dlist_head_element(KcfKafka, link, &alive));
	setitimer(ITIMER_REAL, &never, NULL);
}

void
kcf_kafka_init_exit(void)
{
	static bool done = false;

	if (!done)
		on_proc_exit(end_clients, 0);
	done = true;
}

/* ---- events -------------------------------------------------------------------------------- */

/* May this line go to the log, and how many were held back before it? */
static bool
log_allowed(int *suppressed)
{
	static int tokens = LOG_BURST;
	static TimestampTz last = 0;
	static int held = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64 earned = (now - last) / (LOG_INTERVAL_MS * INT64CONST(1000));

	if (last == 0 || earned < 0)
		last = now;
	else if (earned > 0)
	{
		tokens = Min(LOG_BURST, tokens + earned);
		last += earned * LOG_INTERVAL_MS * INT64CONST(1000);
	}
	if (tokens == 0)
	{
		held++;
		return false;
	}
	tokens--;
	*suppressed = held;
	held = 0;
	return true;
}

/* A line of the library, taken over before its event is given back: only then may we do what can
 * throw. */
typedef struct LogLine
{
	int level;
	char source[40];
	char text[500];
} LogLine;

static void
take_log(KcfKafka *kafka, rd_kafka_event_t *event, LogLine *line)
{
	const char *facility;
	const char *text;

	line->level = -1;
	if (rd_kafka_event_log(event, &facility, &text, &line->level) != 0)
		return;
	kcf_kafka_clean(kafka, line->text, sizeof(line->text), text, strlen(text));
	kcf_kafka_clean(NULL, line->source, sizeof(line->source), facility, strlen(facility));
}

static void
report_log(KcfKafka *kafka, const LogLine *line)
{
	int suppressed = 0;

	if (line->level < 0)
		return;
	if (line->level >= LIBRARY_DEBUG)
		ereport(DEBUG1, (errmsg_internal("kafka client of topic \"%s\": %s: %s", kafka->topic,
										 line->source, line->text)));
	else if (log_allowed(&suppressed))
		ereport(LOG, (errmsg("kafka client of topic \"%s\": %s: %s", kafka->topic, line->source,
							 line->text),
					  suppressed > 0 ? errdetail_plural("%d line before it was held back.",
														"%d lines before it were held back.",
														suppressed, suppressed)
									 : 0));
}

bool
kcf_kafka_serve(KcfKafka *kafka, KcfKafkaFault *fault)
{
	bool news = false;
	rd_kafka_event_t *event;

	fault->error = KCF_KAFKA_OK;
	while ((event = rd_kafka_queue_poll(kafka->events, 0)) != NULL)
	{
		LogLine line = { .level = -1 };

		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_STATS:
			{
				const char *json = rd_kafka_event_stats(event);

				if (kcf_kafka_stats_read(&kafka->stats, json, strlen(json), kafka->topic))
				{
					kafka->stats.at = GetCurrentTimestamp();
					news = true;
				}
				break;
			}
			case RD_KAFKA_EVENT_ERROR:
				/* refusals outrank the disconnections that follow them */
				if (fault->error != KCF_KAFKA_AUTH)
					kcf_kafka_fault(kafka, fault, rd_kafka_event_error(event),
									rd_kafka_event_error_string(event));
				break;
			case RD_KAFKA_EVENT_LOG:
				take_log(kafka, event, &line);
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
		report_log(kafka, &line);
	}
	return news;
}

const KcfKafkaStats *
kcf_kafka_stats(const KcfKafka *kafka)
{
	return &kafka->stats;
}
