/*
 * line.c
 *		Lines of commands and answers, as the test programs speak them.
 */
#include "line.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool
decode_hex(Word *word, const char **error)
{
	char *out = word->data;
	char *in = word->data + 4;
	char *end = word->data + word->len;

	if ((end - in) % 2 != 0)
	{
		*error = "odd number of hexadecimal digits";
		return false;
	}
	for (; in < end; in += 2)
	{
		char pair[3] = { in[0], in[1], '\0' };
		char *stop;

		*out++ = (char) strtoul(pair, &stop, 16);
		if (stop != pair + 2)
		{
			*error = "bad hexadecimal digit";
			return false;
		}
	}
	*out = '\0';
	word->len = out - word->data;
	return true;
}

static bool
interpret_bare(Word *word, const char **error)
{
	if (strcmp(word->data, "NULL") == 0)
	{
		word->data = NULL;
		word->len = 0;
	}
	else if (strncmp(word->data, "hex:", 4) == 0)
		return decode_hex(word, error);
	else if (strncmp(word->data, "text:", 5) == 0)
	{
		word->data += 5;
		word->len -= 5;
	}
	return true;
}

int
line_split(char *line, Word *words, const char **error)
{
	int count = 0;
	char *in = line;

	for (;;)
	{
		Word *word = &words[count];
		char *out;

		while (*in == ' ' || *in == '\t' || *in == '\r' || *in == '\n')
			in++;
		if (*in == '\0')
			return count;
		if (count == LINE_MAX_WORDS)
		{
			*error = "too many words";
			return -1;
		}
		count++;

		if (*in == '\'')
		{
			word->data = out = ++in;
			while (*in != '\0' && (*in != '\'' || in[1] == '\''))
			{
				if (*in == '\'')
					in++;
				*out++ = *in++;
			}
			if (*in != '\'')
			{
				*error = "quote without end";
				return -1;
			}
			in++;
			*out = '\0';
			word->len = out - word->data;
		}
		else
		{
			word->data = in;
			while (*in != '\0' && !isspace((unsigned char) *in))
				in++;
			word->len = in - word->data;
			if (*in != '\0')
				*in++ = '\0';
			if (!interpret_bare(word, error))
				return -1;
		}
	}
}

void
line_put_word(FILE *out, const char *word)
{
	if (strpbrk(word, "\n\r") != NULL)
	{
		fputs("hex:", out);
		for (; *word != '\0'; word++)
			fprintf(out, "%02x", (unsigned char) *word);
	}
	else if (*word == '\0' || strpbrk(word, " \t'") != NULL)
	{
		fputc('\'', out);
		for (; *word != '\0'; word++)
		{
			if (*word == '\'')
				fputc('\'', out);
			fputc(*word, out);
		}
		fputc('\'', out);
	}
	else
		fputs(word, out);
}

bool
word_number(const Word *word, long long *number)
{
	char *end;

	if (word->data == NULL || word->len == 0)
		return false;
	errno = 0;
	*number = strtoll(word->data, &end, 10);
	return errno == 0 && *end == '\0';
}

bool
word_is(const Word *word, const char *text)
{
	return word->data != NULL && strcmp(word->data, text) == 0;
}
