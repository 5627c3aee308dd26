/*
 * options_internal.h
 *		What the files of the options share.
 *
 * Process:  as options.h.
 * Locks:    none.
 * Memory:   results in CurrentMemoryContext.
 * Errors:   as options.h.
 * Waits:    never.
 */
#ifndef KCF_OPTIONS_INTERNAL_H
#define KCF_OPTIONS_INTERNAL_H

#include "options.h"

/* An option given, and what it means. */
typedef struct KcfSetting
{
	const KcfOption *option; /* never an alias */
	const KcfOption *given;  /* perhaps an alias */
	char *value;             /* canonical */
} KcfSetting;

/* options.c */
extern const KcfOption *kcf_option_find(const char *name, Oid catalog);
/* This name is no option here: say why, and what to do. Does not return. */
extern void kcf_option_refuse(const char *name, Oid catalog);

/* options_value.c: does it name a variable that only a superuser may send out? */
extern bool kcf_option_is_foreign_variable(const char *value, const char **name);

/* options_check.c: all checks of one object's options, with the owner's rights if there is one. KcfSettings. */
extern List *kcf_options_check(List *options, Oid catalog, Oid owner);
extern const char *kcf_setting_of(List *settings, const char *name);
extern KcfColumnKind kcf_settings_column_kind(List *settings);

#endif /* KCF_OPTIONS_INTERNAL_H */
