/*
 * line.h
 *		Lines of commands and answers, as the test programs speak them.
 *
 * A command is a line of words. A word is
 *
 *		bare			up to the next blank
 *		'quoted'		anything but a line's end; a quote inside is doubled
 *		NULL			no value at all (a tombstone's value, a record without key)
 *		hex:0aff		these bytes
 *		text:NULL		the text behind the colon, for words that would mean something else
 *
 * Every command gets one line for an answer: "ok", with results behind it, or "error" and a reason.
 */
#ifndef KCF_TEST_LINE_H
#define KCF_TEST_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define LINE_MAX_WORDS 256

typedef struct Word
{
	char *data; /* NULL for NULL; always followed by a zero byte */
	size_t len;
} Word;

/* Number of words, or -1 with *error set. Words point into line, which is changed. */
extern int line_split(char *line, Word *words, const char **error);

/* Write a word so that line_split() gives it back; without special meaning unless it has one. */
extern void line_put_word(FILE *out, const char *word);

/* The number a word is; false when it is none. */
extern bool word_number(const Word *word, long long *number);

extern bool word_is(const Word *word, const char *text);

#endif /* KCF_TEST_LINE_H */
