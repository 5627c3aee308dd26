/*
 * mock_kafka.c
 *		A Kafka of the test's own: librdkafka's mock cluster as a program.
 *
 *		mock_kafka [--brokers N] [--socket PATH] [--owner PID] [COMMAND...]
 *			starts the cluster, carries out each COMMAND (one argument, one line), prints
 *			"ready ADDRESS" and then takes commands on standard input, and on a Unix socket
 *			if asked to (several clients, each line answered by a line). Ends with "quit",
 *			at the end of standard input, and with its owner (by default the process that
 *			started it), whatever kills that. Where standard input is /dev/null or closed,
 *			only "quit" and the owner end it.
 *		mock_kafka --client PATH COMMAND WORD...
 *			sends one command, prints the answer; false when the answer is an error.
 *
 * Commands (words as in line.h):
 *		address						"ok HOST:PORT,..."
 *		topic NAME PARTITIONS		create a topic
 *		produce ..., load ...		produce.h; one key and value, or many
 *		down BROKER, up BROKER		cut off a broker (ids from 1; * for all) or give it back
 *		rtt BROKER MS				delay every answer
 *		error API CODE...			the next requests of this kind fail
 *		no-error API				forget what is left of them
 *		topic-error TOPIC CODE		metadata says this of the topic; 0 to end it
 *		leader TOPIC PARTITION BROKER	-1: without a leader
 *		quit
 * API is a number or one of produce, fetch, offsets, metadata, coordinator, commit, committed,
 * txn-init, txn-end; CODE a number or a name as "TOPIC_AUTHORIZATION_FAILED"; "_TRANSPORT"
 * disconnects.
 *
 * Worth knowing: a partition keeps its newest 5 MB only; a topic cannot be deleted; compaction and
 * transaction markers do not exist here. Tests that need them start Apache Kafka.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "produce.h"

#define MAX_CLIENTS 64
#define MAX_LINE (64 * 1024 * 1024)

/* One who sends commands: standard input, or a connection. */
typedef struct Client
{
	int in;
	FILE *out;
	char *buffer;
	size_t used;
	size_t size;
} Client;

static rd_kafka_mock_cluster_t *cluster;
static rd_kafka_t *producer;
static bool quitting = false;

static const struct
{
	const char *name;
	int16_t key;
} apis[] = {
	{ "produce", 0 },      { "fetch", 1 },     { "offsets", 2 },
	{ "metadata", 3 },     { "commit", 8 },    { "committed", 9 },
	{ "coordinator", 10 }, { "txn-init", 22 }, { "txn-end", 26 },
};

static bool
parse_api(const Word *word, int16_t *key)
{
	long long number;

	for (size_t i = 0; i < sizeof(apis) / sizeof(apis[0]); i++)
	{
		if (word_is(word, apis[i].name))
		{
			*key = apis[i].key;
			return true;
		}
	}
	if (!word_number(word, &number))
		return false;
	*key = (int16_t) number;
	return true;
}

static bool
parse_error_code(const Word *word, rd_kafka_resp_err_t *code)
{
	const struct rd_kafka_err_desc *descs;
	size_t count;
	long long number;

	if (word_number(word, &number))
	{
		*code = (rd_kafka_resp_err_t) number;
		return true;
	}
	rd_kafka_get_err_descs(&descs, &count);
	for (size_t i = 0; i < count; i++)
	{
		if (descs[i].name != NULL && word->data != NULL &&
			strcasecmp(descs[i].name, word->data) == 0)
		{
			*code = descs[i].code;
			return true;
		}
	}
	return false;
}

static bool
parse_broker(const Word *word, int32_t *broker)
{
	long long number;

	if (word_is(word, "*"))
		*broker = -1;
	else if (word_number(word, &number))
		*broker = (int32_t) number;
	else
		return false;
	return true;
}

static void
answer(FILE *out, rd_kafka_resp_err_t err)
{
	if (err)
		fprintf(out, "error %s\n", rd_kafka_err2str(err));
	else
		fprintf(out, "ok\n");
}

static void
obey(const Word *words, int count, FILE *out)
{
	const Word *verb = &words[0];
	rd_kafka_resp_err_t codes[LINE_MAX_WORDS];
	int32_t broker;
	int16_t api;
	long long number;

	if (producer_command(producer, words, count, out))
		return;
	if (word_is(verb, "address") && count == 1)
		fprintf(out, "ok %s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	else if (word_is(verb, "topic") && count == 3 && word_number(&words[2], &number))
		answer(out, rd_kafka_mock_topic_create(cluster, words[1].data, (int) number, 1));
	else if (word_is(verb, "down") && count == 2 && parse_broker(&words[1], &broker))
		answer(out, rd_kafka_mock_broker_set_down(cluster, broker));
	else if (word_is(verb, "up") && count == 2 && parse_broker(&words[1], &broker))
		answer(out, rd_kafka_mock_broker_set_up(cluster, broker));
	else if (word_is(verb, "rtt") && count == 3 && parse_broker(&words[1], &broker) &&
			 word_number(&words[2], &number))
		answer(out, rd_kafka_mock_broker_set_rtt(cluster, broker, (int) number));
	else if (word_is(verb, "error") && count >= 3 && parse_api(&words[1], &api))
	{
		for (int i = 2; i < count; i++)
		{
			if (!parse_error_code(&words[i], &codes[i - 2]))
			{
				fprintf(out, "error no such error code\n");
				return;
			}
		}
		rd_kafka_mock_push_request_errors_array(cluster, api, count - 2, codes);
		fprintf(out, "ok\n");
	}
	else if (word_is(verb, "no-error") && count == 2 && parse_api(&words[1], &api))
	{
		rd_kafka_mock_clear_request_errors(cluster, api);
		fprintf(out, "ok\n");
	}
	else if (word_is(verb, "topic-error") && count == 3 && words[1].data != NULL &&
			 parse_error_code(&words[2], &codes[0]))
	{
		rd_kafka_mock_topic_set_error(cluster, words[1].data, codes[0]);
		fprintf(out, "ok\n");
	}
	else if (word_is(verb, "leader") && count == 4 && words[1].data != NULL &&
			 word_number(&words[2], &number) && parse_broker(&words[3], &broker))
		answer(out, rd_kafka_mock_partition_set_leader(cluster, words[1].data, (int32_t) number,
													   broker));
	else if (word_is(verb, "quit"))
	{
		quitting = true;
		fprintf(out, "ok\n");
	}
	else
		fprintf(out, "error unknown command or wrong words: see the top of test/mock_kafka.c\n");
}

static void
obey_line(char *line, FILE *out)
{
	Word words[LINE_MAX_WORDS];
	const char *error = NULL;
	int count = line_split(line, words, &error);

	if (count < 0)
		fprintf(out, "error %s\n", error);
	else if (count > 0)
		obey(words, count, out);
	fflush(out);
}

/* Read what is there and obey each whole line; false at the end of input. */
static bool
serve(Client *client)
{
	char *newline;
	ssize_t got;

	if (client->size - client->used < 65536)
	{
		if (client->size > MAX_LINE)
			return false;
		client->size = client->size * 2 + 65536;
		client->buffer = realloc(client->buffer, client->size);
	}
	got = read(client->in, client->buffer + client->used, client->size - client->used - 1);
	if (got <= 0)
		return got < 0 && (errno == EINTR || errno == EAGAIN);
	client->used += got;
	client->buffer[client->used] = '\0';
	while (!quitting && (newline = memchr(client->buffer, '\n', client->used)) != NULL)
	{
		size_t length = newline - client->buffer + 1;

		*newline = '\0';
		obey_line(client->buffer, client->out);
		client->used -= length;
		memmove(client->buffer, client->buffer + length, client->used);
	}
	return true;
}

static int
listen_on(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *) &addr, sizeof(addr)) < 0 || chmod(path, 0777) < 0 ||
		listen(fd, 8) < 0)
	{
		perror(path);
		exit(1);
	}
	return fd;
}

static int
be_client(const char *path, char **words, int count)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char line[65536];
	FILE *stream;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *) &addr, sizeof(addr)) < 0)
	{
		perror(path);
		return 1;
	}
	stream = fdopen(fd, "r+");
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			fputc(' ', stream);
		line_put_word(stream, words[i]);
	}
	fputc('\n', stream);
	fflush(stream);
	if (fgets(line, sizeof(line), stream) == NULL)
	{
		fprintf(stderr, "no answer from %s\n", path);
		return 1;
	}
	fputs(line, stdout);
	return strncmp(line, "ok", 2) == 0 ? 0 : 1;
}

static void
run(int owner, int listener, bool use_stdin)
{
	Client clients[MAX_CLIENTS] = { { 0 } };
	int count = 0;

	if (use_stdin)
		clients[count++] = (Client){ .in = STDIN_FILENO, .out = stdout };
	while (!quitting)
	{
		struct pollfd fds[MAX_CLIENTS + 2];
		int ready;

		fds[0] = (struct pollfd){ .fd = owner, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = count < MAX_CLIENTS ? listener : -1, .events = POLLIN };
		for (int i = 0; i < count; i++)
			fds[i + 2] = (struct pollfd){ .fd = clients[i].in, .events = POLLIN };
		/* Serve the producer's own events too; a second late is early enough. */
		ready = poll(fds, count + 2, 1000);
		rd_kafka_poll(producer, 0);
		if (ready <= 0)
			continue;
		if (fds[0].revents)
			return;
		for (int i = count - 1; i >= 0; i--)
		{
			if (!fds[i + 2].revents || serve(&clients[i]))
				continue;
			if (clients[i].in == STDIN_FILENO)
				return;
			fclose(clients[i].out);
			free(clients[i].buffer);
			clients[i] = clients[--count];
		}
		if (fds[1].revents)
		{
			int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			if (fd >= 0)
				clients[count++] = (Client){ .in = fd, .out = fdopen(dup(fd), "w") };
		}
	}
}

static bool
stdin_gives_commands(void)
{
	struct stat st;
	struct stat null;

	if (fstat(STDIN_FILENO, &st) < 0)
		return false;
	return stat("/dev/null", &null) < 0 || st.st_rdev != null.st_rdev;
}

int
main(int argc, char **argv)
{
	static const char *const settings[] = { "message.timeout.ms=5000", "reconnect.backoff.ms=10",
											"reconnect.backoff.max.ms=100", NULL };
	const char *socket_path = NULL;
	pid_t owner = getppid();
	int brokers = 1;
	int listener = -1;
	int owner_fd;
	int arg = 1;
	char errstr[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *keeper;

	signal(SIGPIPE, SIG_IGN);
	for (; arg + 1 < argc && strncmp(argv[arg], "--", 2) == 0; arg += 2)
	{
		if (strcmp(argv[arg], "--client") == 0)
			return be_client(argv[arg + 1], argv + arg + 2, argc - arg - 2);
		else if (strcmp(argv[arg], "--brokers") == 0)
			brokers = atoi(argv[arg + 1]);
		else if (strcmp(argv[arg], "--socket") == 0)
			socket_path = argv[arg + 1];
		else if (strcmp(argv[arg], "--owner") == 0)
			owner = atoi(argv[arg + 1]);
		else
			break;
	}
	if (brokers < 1 || (arg < argc && strncmp(argv[arg], "--", 2) == 0))
	{
		fprintf(stderr, "usage: see the top of test/mock_kafka.c\n");
		return 2;
	}

	owner_fd = (int) syscall(SYS_pidfd_open, owner, 0);
	if (owner_fd < 0)
	{
		fprintf(stderr, "the owning process %d is gone\n", (int) owner);
		return 1;
	}
	if (owner == getppid())
		prctl(PR_SET_PDEATHSIG, SIGKILL);

	/* A client that connects to nothing; the mock cluster lives in it. */
	rd_kafka_conf_set(conf, "log_level", "2", NULL, 0);
	keeper = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (keeper == NULL || (cluster = rd_kafka_mock_cluster_new(keeper, brokers)) == NULL)
	{
		fprintf(stderr, "could not create the mock cluster\n");
		return 1;
	}
	producer = producer_new(rd_kafka_mock_cluster_bootstraps(cluster), settings);
	if (socket_path != NULL)
		listener = listen_on(socket_path);
	for (; arg < argc; arg++)
		obey_line(argv[arg], stderr);
	printf("ready %s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);

	run(owner_fd, listener, stdin_gives_commands());

	if (socket_path != NULL)
		unlink(socket_path);
	/* The cluster dies with the process; taking it apart in order has no reader. */
	_exit(0);
}
