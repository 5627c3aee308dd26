/*
 * codec_write.h
 *		From the Datum of one type to a record's bytes: the inverse of codec.h.
 *
 * Process:  backends, in a statement; consumers, to know what we would have written for a key.
 * Locks:    none.
 * Memory:   a printer lives in the context it is made in; what is palloced on the way in CurrentMemoryContext.
 * Errors:   ereport: 22023 what JSON cannot say, 54000 beyond a palloc, 22P02 json text that jsonb would not take, and
 *           what PostgreSQL's output functions raise.
 * Waits:    never.
 *
 * What is printed depends on the value alone, not on the session's settings, where the settings that a printer asks
 * for are fixed around it.
 */
#ifndef KCF_CODEC_WRITE_H
#define KCF_CODEC_WRITE_H

#include "codec.h"

#include "lib/stringinfo.h"

typedef struct KcfPrinter KcfPrinter;

extern KcfPrinter *kcf_printer_create(Oid typid);

/*
 * Appended in UTF-8: what kcf_convert_json takes for this value, compact. A json or jsonb null is refused: as a member
 * it would come back as NULL.
 */
extern void kcf_print_json(KcfPrinter *printer, Datum value, StringInfo buf);
/* Appended in UTF-8: what kcf_convert_text takes for it. */
extern void kcf_print_text(KcfPrinter *printer, Datum value, StringInfo buf);
/* A jsonb document, compact; null too. */
extern void kcf_print_document(Datum jsonb, StringInfo buf);

/* A document of others, in UTF-8; one that we would not read again is refused. *root (may be NULL): without white space. */
extern void kcf_json_judge(const char *utf8, size_t len, KcfJsonSlice *root);

/* Text in the server's encoding as a JSON string in UTF-8. */
extern void kcf_print_string(const char *text, size_t len, StringInfo buf);
/* The same of text in UTF-8, or of text in any encoding to the same. */
extern void kcf_print_utf8_string(const char *text, size_t len, StringInfo buf);

/* What a printer's output functions heed: a mask for kcf_settings_fix. */
extern int kcf_printer_settings(const KcfPrinter *printer, bool json);
/*
 * Gives those settings their fixed values where the session's differ, until kcf_settings_restore gets what this
 * returns; an error restores them too.
 */
extern int kcf_settings_fix(int mask);
extern void kcf_settings_restore(int level);

/* Room for n bytes more and a NUL behind them. */
static inline char *
kcf_reserve(StringInfo buf, int n)
{
	if (unlikely(buf->maxlen - buf->len <= n))
		enlargeStringInfo(buf, n);
	return buf->data + buf->len;
}

#endif /* KCF_CODEC_WRITE_H */
