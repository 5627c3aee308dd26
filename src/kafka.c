/*
 * kafka.c
 *		What every client has, whatever it is for: how it is configured, what it logs, how it ends.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "kafka_internal.h"
#include "compat.h"
#include "moment.h"
#include "libpq/pqsignal.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* How long the clients may take to end together with their process: a server should stop within five seconds. */
#define EXIT_DEADLINE_S 4

/* Log lines of all clients: so many at once, then one a minute. */
#define LOG_BURST 10
#define LOG_INTERVAL INT64CONST(60000000)

static dlist_head alive = DLIST_STATIC_INIT(alive);
/* ... and those whose threads have not ended yet. */
static dlist_head leaving = DLIST_STATIC_INIT(leaving);

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
		case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
			return KCF_KAFKA_UNREACHABLE;
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
		case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
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
		case RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT:
			return KCF_KAFKA_CONFIG;
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
			return KCF_KAFKA_TOO_LARGE;
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
			return KCF_KAFKA_REFUSED;
		case RD_KAFKA_RESP_ERR__FENCED:
		case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
		case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
		case RD_KAFKA_RESP_ERR_TRANSACTION_COORDINATOR_FENCED:
			return KCF_KAFKA_FENCED;
		default:
			return KCF_KAFKA_OTHER;
	}
}

/*
 * Copy what the library says: on one line, without control characters, cut at a character, and with
 * the secrets of this client blotted out should they ever occur.
 */
void
kcf_kafka_clean(const KcfKafkaClient *client, char *out, Size size, const char *text, Size len)
{
	Size used = 0;
	Size i = 0;

	while (i < len && text[i] != '\0' && used + 1 < size)
	{
		bool secret = false;

		for (int s = 0; client && s < client->nsecrets; s++)
		{
			Size n = strlen(client->secrets[s]);

			if (len - i >= n && memcmp(text + i, client->secrets[s], n) == 0)
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

/* A broker that does not take our certificate says so when the handshake is over for us. */
static bool
is_alert(const char *text)
{
	const char *alert = strstr(text, " alert ");

	return alert && strstr(text, "SSL routines") &&
		   (strstr(alert, "certificate") || strstr(alert, "unknown ca") ||
			strstr(alert, "access denied"));
}

void
kcf_kafka_fault(const KcfKafkaClient *client, KcfKafkaFault *fault, rd_kafka_resp_err_t err,
				const char *text)
{
	bool vague = err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || text == NULL || text[0] == '\0';

	if (text == NULL || text[0] == '\0')
		text = rd_kafka_err2str(err);
	fault->error = kcf_kafka_error(err);
	fault->vague = vague;
	kcf_kafka_clean(client, fault->text, sizeof(fault->text), text, strlen(text));

	/* The library has one code for all that ends a connection; a handshake that fails is in the
	 * text. */
	if (fault->error == KCF_KAFKA_UNREACHABLE &&
		(strstr(fault->text, "SSL handshake failed") ||
		 strstr(fault->text, "SASL authentication") || is_alert(fault->text)))
		fault->error = KCF_KAFKA_AUTH;
}

/* ---- life ---------------------------------------------------------------------------------- */

int
kcf_kafka_setting(const KcfServerOptions *server, const char *name, int otherwise)
{
	ListCell *lc;

	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);

		if (strcmp(property->name, name) == 0)
			return atoi(property->value); /* it was checked against its range */
	}
	return otherwise;
}

static bool
set_property(KcfKafkaClient *client, rd_kafka_conf_t *conf, const char *name, const char *value,
			 bool secret, KcfKafkaFault *fault)
{
	char text[256];

	if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
		return true;
	fault->error = KCF_KAFKA_CONFIG;
	if (secret)
		snprintf(fault->text, sizeof(fault->text), "invalid value for \"%s\"", name);
	else
		kcf_kafka_clean(client, fault->text, sizeof(fault->text), text, strlen(text));
	return false;
}

static bool
set_all(KcfKafkaClient *client, rd_kafka_conf_t *conf, const KcfKafkaSetting *settings,
		KcfKafkaFault *fault)
{
	for (const KcfKafkaSetting *s = settings; s->name; s++)
		if (!set_property(client, conf, s->name, s->value, false, fault))
			return false;
	return true;
}

/* Not to be had otherwise, of either kind: the code relies on them. */
static const KcfKafkaSetting fixed_for_all[] = {
	{ "allow.auto.create.topics", "false" },
	{ "log.queue", "true" },
	{ "client.software.name", "kafka_cache_fdw" },
	{ "client.software.version", KCF_VERSION },
	{ NULL },
};

/* The one place where a client's configuration is made: first and every later time alike. */
rd_kafka_conf_t *
kcf_kafka_configure(KcfKafkaClient *client, const KcfServerOptions *server, rd_kafka_type_t type,
					const KcfKafkaSetting *defaults, const KcfKafkaSetting *fixed,
					KcfKafkaFault *fault)
{
	char other = type == RD_KAFKA_CONSUMER ? 'P' : 'C';
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool ok = set_all(client, conf, defaults, fault);
	ListCell *lc;

	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);

		/*
		 * The group serves to show positions, by a client of its own: with it this one would look
		 * for a coordinator, which needs rights and makes brokers create their offsets topic.
		 */
		if (strcmp(property->name, "group.id") == 0)
			continue;
		/* a client would only log that it ignores what is for the other kind */
		if (kcf_property_find(property->name)->scope == other)
			continue;
		ok = ok &&
			 set_property(client, conf, property->name, property->value, property->secret, fault);
	}
	ok = ok && set_all(client, conf, fixed_for_all, fault) && set_all(client, conf, fixed, fault);
	if (ok)
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

static void
remember_secrets(KcfKafkaClient *client, const KcfServerOptions *server)
{
	ListCell *lc;

	client->secrets = palloc0(sizeof(char *) * (list_length(server->properties) + 1));
	foreach (lc, server->properties)
	{
		KcfProperty *property = lfirst(lc);

		/* very short ones would only riddle the texts, and give themselves away by it */
		if (property->secret && strlen(property->value) >= 4)
			client->secrets[client->nsecrets++] = pstrdup(property->value);
	}
}

KcfKafkaClient *
kcf_kafka_client_create(Size size, const char *of, const char *name, const KcfServerOptions *server)
{
	MemoryContext mcxt =
		AllocSetContextCreate(TopMemoryContext, "kafka_cache client", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	KcfKafkaClient *client = palloc0(size);

	client->mcxt = mcxt;
	client->name = psprintf("kafka client of %s \"%s\"", of, name);
	remember_secrets(client, server);
	MemoryContextSwitchTo(old);
	return client;
}

bool
kcf_kafka_client_start(KcfKafkaClient *client, rd_kafka_type_t type, rd_kafka_conf_t *conf,
					   int wakeup_fd, KcfKafkaFault *fault)
{
	char text[512];

	client->rk = rd_kafka_new(type, conf, text, sizeof(text));
	if (client->rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		fault->error = KCF_KAFKA_CONFIG;
		kcf_kafka_clean(client, fault->text, sizeof(fault->text), text, strlen(text));
		return false;
	}
	/* Log lines come by the queue of the other events, those of the start included. */
	rd_kafka_set_log_queue(client->rk, NULL);
	client->events = rd_kafka_queue_get_main(client->rk);
	kcf_kafka_wake_by(client->events, wakeup_fd);
	dlist_push_tail(&alive, &client->link);
	return true;
}

void
kcf_kafka_wake_by(rd_kafka_queue_t *queue, int fd)
{
	static const uint64 one = 1;

	if (fd < 0)
		rd_kafka_queue_io_event_enable(queue, -1, NULL, 0);
	else
		rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
}

void
kcf_kafka_client_end(KcfKafkaClient *client)
{
	if (client->rk)
	{
		dlist_delete(&client->link);
		rd_kafka_queue_destroy(client->events);
		rd_kafka_destroy(client->rk);
	}
	MemoryContextDelete(client->mcxt);
}

/* ---- an end that is not waited for --------------------------------------------------------- */

/*
 * The library's threads end when what they are in does, and they may be waiting for the answer of a name server.
 * So the end of a client that has nothing left to say has a thread of its own, which does nothing else.
 */
static void *
run_end(void *arg)
{
	KcfKafkaClient *client = arg;

	rd_kafka_queue_destroy(client->events);
	rd_kafka_destroy(client->rk);
	pg_atomic_write_u32(&client->ended, 1);
	return NULL;
}

static bool
begin_end(KcfKafkaClient *client)
{
	sigset_t all;
	sigset_t before;
	int error;

	pg_atomic_init_u32(&client->ended, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&client->ending, NULL, run_end, client);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error == 0;
}

void
kcf_kafka_client_leave(KcfKafkaClient *client)
{
	if (client->rk == NULL || proc_exit_inprogress || !begin_end(client))
	{
		kcf_kafka_client_end(client);
		return;
	}
	dlist_delete(&client->link);
	dlist_push_tail(&leaving, &client->link);
}

/* Who has ended is freed; wait: everybody is waited for. */
static void
reap(bool wait)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &leaving)
	{
		KcfKafkaClient *client = dlist_container(KcfKafkaClient, link, iter.cur);

		if (!wait && pg_atomic_read_u32(&client->ended) == 0)
			continue;
		pthread_join(client->ending, NULL);
		dlist_delete(&client->link);
		MemoryContextDelete(client->mcxt);
	}
}

const char *
kcf_kafka_error_name(KcfKafkaError error)
{
	static const char *const names[KCF_KAFKA_OTHER + 1] = {
		[KCF_KAFKA_OK] = "ok",
		[KCF_KAFKA_UNREACHABLE] = "unreachable",
		[KCF_KAFKA_AUTH] = "auth",
		[KCF_KAFKA_NO_TOPIC] = "no_topic",
		[KCF_KAFKA_NO_PARTITION] = "no_partition",
		[KCF_KAFKA_OUT_OF_RANGE] = "out_of_range",
		[KCF_KAFKA_UNREADABLE] = "unreadable",
		[KCF_KAFKA_BAD_DATA] = "bad_data",
		[KCF_KAFKA_CONFIG] = "config",
		[KCF_KAFKA_TOO_LARGE] = "too_large",
		[KCF_KAFKA_REFUSED] = "refused",
		[KCF_KAFKA_FENCED] = "fenced",
		[KCF_KAFKA_OTHER] = "other",
	};

	return names[error];
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

	if (dlist_is_empty(&alive) && dlist_is_empty(&leaving))
		return;
	pqsignal(SIGALRM, give_up);
	sigemptyset(&mask);
	sigaddset(&mask, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
	setitimer(ITIMER_REAL, &deadline, NULL);
	while (!dlist_is_empty(&alive))
	{
		KcfKafkaClient *client = dlist_head_element(KcfKafkaClient, link, &alive);

		client->end(client);
	}
	reap(true);
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

/* ---- log lines ----------------------------------------------------------------------------- */

static int log_tokens = LOG_BURST;
static int log_held = 0;

static bool
take_log_token(void)
{
	static KcfMoment last = 0;
	KcfMoment now = kcf_moment_now();
	int64 earned = (now - last) / LOG_INTERVAL;

	if (log_tokens + earned >= LOG_BURST)
	{
		log_tokens = LOG_BURST;
		last = now;
	}
	else
	{
		log_tokens += earned;
		last += earned * LOG_INTERVAL;
	}
	if (log_tokens == 0)
		return false;
	log_tokens--;
	return true;
}

static void
log_summary(void)
{
	int held = log_held;

	log_held = 0;
	if (held > 0)
		ereport(LOG,
				(errmsg_plural("%d more line about Kafka clients was left out",
							   "%d more lines about Kafka clients were left out", held, held)));
}

void
kcf_kafka_tick(void)
{
	reap(false);
	if (log_held > 0 && take_log_token())
		log_summary();
}

bool
kcf_kafka_may_log(void)
{
	if (take_log_token())
	{
		log_summary();
		return true;
	}
	log_held++;
	return false;
}

/* The library's levels are those of syslog. What somebody may have to see to is LOG, as from any process of the
 * server that nobody is connected to. */
static int
server_level(int level)
{
	static const int levels[] = { LOG, LOG, LOG, LOG, WARNING, NOTICE, DEBUG1, DEBUG2 };

	return levels[Min(Max(level, 0), (int) lengthof(levels) - 1)];
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
take_log(KcfKafkaClient *client, rd_kafka_event_t *event, LogLine *line)
{
	const char *facility;
	const char *text;

	line->level = -1;
	if (rd_kafka_event_log(event, &facility, &text, &line->level) != 0)
		return;
	kcf_kafka_clean(client, line->text, sizeof(line->text), text, strlen(text));
	kcf_kafka_clean(NULL, line->source, sizeof(line->source), facility, strlen(facility));
}

static void
report_log(KcfKafkaClient *client, const LogLine *line)
{
	int level;

	if (line->level < 0)
		return;
	level = server_level(line->level);
	if (!message_level_is_interesting(level))
		return;
	/* who asks for what is below that wants all of it */
	if (level > DEBUG1 && !kcf_kafka_may_log())
		return;
	ereport(level, (errmsg_internal("%s: %s: %s", client->name, line->source, line->text)));
}

void
kcf_kafka_client_log(KcfKafkaClient *client, rd_kafka_event_t *event)
{
	LogLine line;

	take_log(client, event, &line);
	rd_kafka_event_destroy(event);
	report_log(client, &line);
}
