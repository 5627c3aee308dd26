/*
 * codec_time.c
 *		Dates and times in the form that nearly all documents have them in.
 *
 * ISO 8601 with four digits of year means the same under every DateStyle, so it can be read without
 * the type's input function: 2026-01-31, 2026-01-31T23:59:59.999999Z, 2026-01-31 23:59:59+05:30.
 * Whatever is not exactly of this form, or not a valid date in it, is left to the input function: to
 * accept it in another form, or to refuse it.
 */
#include "postgres.h"

#include "codec_internal.h"

#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* Two digits, or a value too large for any use. */
static inline unsigned int
two(const char *p)
{
	unsigned int a = (unsigned char) p[0] - '0';
	unsigned int b = (unsigned char) p[1] - '0';

	return a <= 9 && b <= 9 ? a * 10 + b : 1000;
}

/* Days since 2000-01-01 from YYYY-MM-DD. */
static inline bool
parse_day(const char *p, int *days)
{
	static const unsigned char month_days[13] = {
		0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
	};
	unsigned int century = two(p);
	unsigned int year = two(p + 2);
	unsigned int month = two(p + 5);
	unsigned int day = two(p + 8);
	unsigned int last;
	unsigned int y;
	unsigned int m;

	if (century > 99 || year > 99 || p[4] != '-' || p[7] != '-' || month < 1 || month > 12 ||
		day < 1)
		return false;
	year += century * 100;
	if (year == 0)
		return false;
	last = month_days[month];
	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		last = 29;
	if (day > last)
		return false;

	/* years that begin in March, so that the leap day is the last */
	y = month > 2 ? year : year - 1;
	m = month > 2 ? month - 3 : month + 9;
	*days = (int) (y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1) - 730425;
	return true;
}

bool
kcf_parse_date(const char *p, size_t len, Datum *value)
{
	int days;

	if (len != 10 || !parse_day(p, &days))
		return false;
	*value = DateADTGetDatum(days);
	return true;
}

bool
kcf_parse_timestamp(const char *p, size_t len, bool with_zone, Datum *value)
{
	const char *end = p + len;
	int days;
	unsigned int hour;
	unsigned int minute;
	unsigned int second;
	int64 micros;
	bool zone = false;

	if (len < 19 || !parse_day(p, &days) || (p[10] != 'T' && p[10] != ' ') || p[13] != ':' ||
		p[16] != ':')
		return false;
	hour = two(p + 11);
	minute = two(p + 14);
	second = two(p + 17);
	if (hour > 23 || minute > 59 || second > 59)
		return false;
	micros =
		((int64) days * SECS_PER_DAY + hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second) *
		USECS_PER_SEC;
	p += 19;

	if (p < end && *p == '.')
	{
		int unit = 1000000;

		for (p++; p < end && (unsigned char) (*p - '0') <= 9; p++)
		{
			/* more digits than there is room for are rounded, not here */
			if (unit == 1)
				return false;
			unit /= 10;
			micros += (*p - '0') * unit;
		}
		if (unit == 1000000)
			return false;
	}

	if (p < end && *p == 'Z')
	{
		zone = true;
		p++;
	}
	else if (p < end && (*p == '+' || *p == '-'))
	{
		bool west = *p == '-';
		unsigned int offset;

		if (end - p != 3 && !(end - p == 6 && p[3] == ':'))
			return false;
		hour = two(p + 1);
		minute = end - p == 6 ? two(p + 4) : 0;
		/* 15:59 is the farthest that PostgreSQL takes */
		if (hour > 15 || minute > 59)
			return false;
		offset = hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE;
		/* without time zone the zone is read and disregarded */
		if (with_zone)
			micros += (west ? 1 : -1) * (int64) offset * USECS_PER_SEC;
		zone = true;
		p = end;
	}
	/* a timestamp with time zone that names none depends on the setting */
	if (p != end || (with_zone && !zone))
		return false;
	*value = TimestampTzGetDatum(micros);
	return true;
}

#ifdef KCF_NO_SOFT_ERRORS
/*
 * What is not of the one form is first shown to the server's parser, which gives a code: a topic full of
 * times that are none (milliseconds, for example) should not cost an error each.
 */
bool
kcf_time_is_refused(const char *text, bool date)
{
	char work[MAXDATELEN + MAXDATEFIELDS];
	char *field[MAXDATEFIELDS];
	int type[MAXDATEFIELDS];
	int nfields;
	int dtype;
	struct pg_tm tm;
	fsec_t fsec;
	int zone;

	if (ParseDateTime(text, work, date ? MAXDATELEN + 1 : sizeof(work), field, type, MAXDATEFIELDS,
					  &nfields) != 0)
		return true;
	return DecodeDateTime(field, type, nfields, &dtype, &tm, &fsec, &zone) != 0;
}
#endif
