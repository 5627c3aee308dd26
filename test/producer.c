/*
 * producer.c
 *		Produces to a broker by command, in transactions if asked to.
 *
 *		producer ADDRESS [--transactional-id ID] [--set NAME=VALUE]... [COMMAND...]
 *			carries out each COMMAND (one argument, one line), or, without any, the lines of
 *standard input, answering each with a line. False when a command given as an argument failed.
 *
 * Commands (words as in line.h):
 *		produce ..., load ...		produce.h; one key and value, or many
 *		begin, commit, abort		a transaction (with --transactional-id)
 *		quit						leave as one who is killed: an open transaction stays open until
 *the broker's time-out, or until its id is used again
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "produce.h"

#define MAX_SETTINGS 32

static rd_kafka_t *producer;

static bool
answer(rd_kafka_error_t *error, FILE *out)
{
	if (error == NULL)
	{
		fprintf(out, "ok\n");
		return true;
	}
	fprintf(out, "error %s\n", rd_kafka_error_string(error));
	rd_kafka_error_destroy(error);
	return false;
}

static void
obey_line(char *line, FILE *out)
{
	Word words[LINE_MAX_WORDS];
	const char *error = NULL;
	int count = line_split(line, words, &error);

	if (count < 0)
		fprintf(out, "error %s\n", error);
	else if (count == 0 || producer_command(producer, words, count, out))
		;
	else if (word_is(&words[0], "begin"))
		answer(rd_kafka_begin_transaction(producer), out);
	else if (word_is(&words[0], "commit"))
		answer(rd_kafka_commit_transaction(producer, 30000), out);
	else if (word_is(&words[0], "abort"))
		answer(rd_kafka_abort_transaction(producer, 30000), out);
	else if (word_is(&words[0], "quit"))
	{
		fprintf(out, "ok\n");
		fflush(out);
		_exit(0);
	}
	else
		fprintf(out, "error unknown command: see the top of test/producer.c\n");
	fflush(out);
}

/* Obey an argument; true when it was answered with ok. */
static bool
obey_argument(char *line)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	bool ok;

	obey_line(line, out);
	fclose(out);
	ok = strncmp(text, "ok", 2) == 0;
	fputs(text, ok ? stdout : stderr);
	free(text);
	return ok;
}

int
main(int argc, char **argv)
{
	const char *settings[MAX_SETTINGS + 4] = { "message.timeout.ms=30000", NULL };
	char transactional[512];
	bool in_transactions = false;
	int count = 1;
	int arg = 2;
	int status = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc < 2)
	{
		fprintf(stderr, "usage: see the top of test/producer.c\n");
		return 2;
	}
	for (; arg + 1 < argc && count < MAX_SETTINGS; arg += 2)
	{
		if (strcmp(argv[arg], "--transactional-id") == 0)
		{
			snprintf(transactional, sizeof(transactional), "transactional.id=%s", argv[arg + 1]);
			settings[0] = transactional;
			settings[count++] = "enable.idempotence=true";
			in_transactions = true;
		}
		else if (strcmp(argv[arg], "--set") == 0 && strchr(argv[arg + 1], '=') != NULL)
			settings[count++] = argv[arg + 1];
		else
			break;
	}
	settings[count] = NULL;

	producer = producer_new(argv[1], settings);
	if (in_transactions)
	{
		rd_kafka_error_t *error = rd_kafka_init_transactions(producer, 30000);

		if (error != NULL)
		{
			answer(error, stderr);
			return 1;
		}
	}

	if (arg < argc)
	{
		for (; arg < argc && status == 0; arg++)
			status = obey_argument(argv[arg]) ? 0 : 1;
	}
	else
	{
		char *line = NULL;
		size_t size = 0;

		while (getline(&line, &size, stdin) > 0)
			obey_line(line, stdout);
	}
	/* Every record was acknowledged; destroying the client would say goodbye to open transactions.
	 */
	fflush(stdout);
	_exit(status);
}
