/*
 * codec_write_settings.c
 *		The settings that output functions heed, fixed while a record is written.
 *
 * A record is read by others, and by ourselves under other settings: what is written must not depend on who writes
 * it. The session's own settings are looked at for each row, which costs nothing, since a function that runs between
 * two rows may change them.
 */
#include "postgres.h"

#include "codec_write_internal.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/pg_locale.h"

static void
fix(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

int
kcf_settings_fix(int mask)
{
	int wrong = 0;
	int level;

	if (likely(mask == 0))
		return 0;
	if (DateStyle != USE_ISO_DATES)
		wrong |= KCF_SETTING_DATESTYLE;
	if (IntervalStyle != INTSTYLE_POSTGRES)
		wrong |= KCF_SETTING_INTERVALSTYLE;
	if (extra_float_digits < 1)
		wrong |= KCF_SETTING_FLOATS;
	if (strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
		wrong |= KCF_SETTING_TIMEZONE;
	if (bytea_output != BYTEA_OUTPUT_HEX)
		wrong |= KCF_SETTING_BYTEA;
	if (strcmp(locale_monetary, "C") != 0)
		wrong |= KCF_SETTING_MONETARY;
	if (strcmp(namespace_search_path, "pg_catalog") != 0)
		wrong |= KCF_SETTING_SEARCH_PATH;
	wrong &= mask;
	if (wrong == 0)
		return 0;

	level = NewGUCNestLevel();
	if (wrong & KCF_SETTING_DATESTYLE)
		fix("datestyle", "ISO");
	if (wrong & KCF_SETTING_INTERVALSTYLE)
		fix("intervalstyle", "postgres");
	if (wrong & KCF_SETTING_FLOATS)
		fix("extra_float_digits", "1");
	if (wrong & KCF_SETTING_TIMEZONE)
		fix("timezone", "UTC");
	if (wrong & KCF_SETTING_BYTEA)
		fix("bytea_output", "hex");
	if (wrong & KCF_SETTING_MONETARY)
		fix("lc_monetary", "C");
	if (wrong & KCF_SETTING_SEARCH_PATH)
		fix("search_path", "pg_catalog");
	return level;
}

void
kcf_settings_restore(int level)
{
	if (unlikely(level > 0))
		AtEOXact_GUC(true, level);
}
