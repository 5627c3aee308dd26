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

#include "compat.h"

#include "access/tupdesc.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* Of types that contain others, those of what they contain; in doubt all that types usually heed. */
int
kcf_output_settings(Oid typid)
{
	int mask = 0;

	check_stack_depth();
	typid = getBaseType(typid);
	switch (typid)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case CHAROID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case JSONPATHOID:
		case XMLOID:
		case OIDOID:
		case XIDOID:
		case XID8OID:
		case CIDOID:
		case TIDOID:
		case PG_LSNOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case BITOID:
		case VARBITOID:
		case TSVECTOROID:
		case TSQUERYOID:
		case INT2VECTOROID:
		case OIDVECTOROID:
			return 0;
		case FLOAT4OID:
		case FLOAT8OID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return KCF_SETTING_FLOATS;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
			return KCF_SETTING_DATESTYLE;
		case TIMESTAMPTZOID:
			return KCF_SETTING_DATESTYLE | KCF_SETTING_TIMEZONE;
		case INTERVALOID:
			return KCF_SETTING_INTERVALSTYLE;
		case BYTEAOID:
			return KCF_SETTING_BYTEA;
		case MONEYOID:
			return KCF_SETTING_MONETARY;
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return KCF_SETTING_SEARCH_PATH;
		default:
			break;
	}
	if (OidIsValid(get_element_type(typid)))
		return kcf_output_settings(get_element_type(typid));
	switch (get_typtype(typid))
	{
		case TYPTYPE_ENUM:
			return 0;
		case TYPTYPE_RANGE:
			return kcf_output_settings(get_range_subtype(typid));
		case TYPTYPE_MULTIRANGE:
			return kcf_output_settings(get_multirange_range(typid));
		case TYPTYPE_COMPOSITE:
		{
			TupleDesc desc = lookup_rowtype_tupdesc_copy(typid, -1);

			for (int i = 0; i < desc->natts; i++)
			{
				if (!TupleDescAttr(desc, i)->attisdropped)
					mask |= kcf_output_settings(TupleDescAttr(desc, i)->atttypid);
			}
			return mask;
		}
		default:
			return KCF_SETTING_USUAL;
	}
}

/* Zones that print +00 whenever it is. */
static bool
is_utc(const char *zone)
{
	return strcmp(zone, "UTC") == 0 || strcmp(zone, "Etc/UTC") == 0 || strcmp(zone, "GMT") == 0;
}

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
	if (!is_utc(pg_get_timezone_name(session_timezone)))
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
