/*
 * listener.c
 *		A session that listens, for tests and measurements.
 *
 *		listener CONNINFO CHANNEL [QUERY]
 *			prints "listening", then a line for each notification: the time in microseconds since 1970, the channel,
 *			the payload, and, where there is a query, its answer to $1 = the payload, asked at once; separated by tabs.
 *			Lines of standard input are statements, answered by "done" and the SQLSTATE. Ends with standard input or
 *			with the server.
 */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

#include <libpq-fe.h>

static PGconn *conn;
static const char *query;

static long long
now(void)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	return tv.tv_sec * 1000000LL + tv.tv_usec;
}

static void
must(PGresult *result, ExecStatusType status)
{
	if (PQresultStatus(result) != status)
	{
		fprintf(stderr, "listener: %s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(result);
}

static void
tell_all(void)
{
	PGnotify *notify;

	while ((notify = PQnotifies(conn)) != NULL)
	{
		printf("%lld\t%s\t%s", now(), notify->relname, notify->extra);
		if (query != NULL)
		{
			const char *params[] = { notify->extra };
			PGresult *result = PQexecPrepared(conn, "query", 1, params, NULL, NULL, 0);

			printf("\t%s",
				   PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : PQresultErrorMessage(result));
			PQclear(result);
		}
		printf("\n");
		PQfreemem(notify);
	}
	fflush(stdout);
}

/* One line of standard input; false: there are no more. */
static bool
obey(void)
{
	static char line[65536];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, line + len, sizeof(line) - 1 - len);
	char *end;

	if (n <= 0)
		return false;
	len += n;
	while ((end = memchr(line, '\n', len)) != NULL)
	{
		PGresult *result;
		const char *state;

		*end = '\0';
		result = PQexec(conn, line);
		state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		printf("done\t%s\n", state ? state : "00000");
		PQclear(result);
		len -= end + 1 - line;
		memmove(line, end + 1, len);
	}
	tell_all();
	return true;
}

int
main(int argc, char **argv)
{
	char *channel;

	if (argc < 3)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "listener: %s", PQerrorMessage(conn));
		return 1;
	}
	if (argc > 3)
	{
		query = argv[3];
		must(PQprepare(conn, "query", query, 0, NULL), PGRES_COMMAND_OK);
	}
	channel = PQescapeIdentifier(conn, argv[2], strlen(argv[2]));
	{
		char listen[512];

		snprintf(listen, sizeof(listen), "LISTEN %s", channel);
		must(PQexec(conn, listen), PGRES_COMMAND_OK);
	}
	printf("listening\n");
	fflush(stdout);
	for (;;)
	{
		struct pollfd fds[] = { { .fd = PQsocket(conn), .events = POLLIN },
								{ .fd = STDIN_FILENO, .events = POLLIN } };

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents && !PQconsumeInput(conn))
			return 0;
		tell_all();
		if (fds[1].revents && !obey())
			return 0;
	}
}
