/*
 * codec_write_time.c
 *		Dates and times: of four digits of year at once, the others by the server's own functions.
 *
 * In JSON as to_json has them, in text as DateStyle ISO has them; timestamps with time
 * zone in UTC.
 */
#include "postgres.h"

#include "codec_write_internal.h"

#include "miscadmin.h"
#include "utils/datetime.h"

static inline char *
two_digits(char *out, int n)
{
	*out++ = (char) ('0' + n / 10);
	*out++ = (char) ('0' + n % 10);
	return out;
}

/* YYYY-MM-DD; NULL where the year has not four digits. */
static inline char *
print_day(char *out, int64 days)
{
	int64 julian = days + POSTGRES_EPOCH_JDATE;
	int year;
	int month;
	int day;

	/* the years 1 to 9999 */
	if (julian < 1721426 || julian > 5373484)
		return NULL;
	j2date((int) julian, &year, &month, &day);
	out = two_digits(out, year / 100);
	out = two_digits(out, year % 100);
	*out++ = '-';
	out = two_digits(out, month);
	*out++ = '-';
	return two_digits(out, day);
}

/* HH:MM:SS, and the fraction without zeros at its end. */
static inline char *
print_clock(char *out, int64 micros)
{
	int seconds = (int) (micros / USECS_PER_SEC);
	int fraction = (int) (micros % USECS_PER_SEC);

	out = two_digits(out, seconds / SECS_PER_HOUR);
	*out++ = ':';
	out = two_digits(out, seconds % SECS_PER_HOUR / SECS_PER_MINUTE);
	*out++ = ':';
	out = two_digits(out, seconds % SECS_PER_MINUTE);
	if (fraction != 0)
	{
		*out++ = '.';
		for (int unit = 100000; fraction != 0; unit /= 10)
		{
			*out++ = (char) ('0' + fraction / unit);
			fraction %= unit;
		}
	}
	return out;
}

void
kcf_print_timestamp(Timestamp t, bool with_zone, bool json, StringInfo buf)
{
	char *out = kcf_reserve(buf, MAXDATELEN);
	int64 days = t / USECS_PER_DAY;
	int64 micros = t % USECS_PER_DAY;
	char *p = NULL;

	if (micros < 0)
	{
		micros += USECS_PER_DAY;
		days--;
	}
	if (likely(!TIMESTAMP_NOT_FINITE(t)))
		p = print_day(out, days);
	if (likely(p != NULL))
	{
		*p++ = json ? 'T' : ' ';
		p = print_clock(p, micros);
		if (with_zone)
		{
			memcpy(p, "+00:00", 6);
			p += json ? 6 : 3;
		}
		buf->len = (int) (p - buf->data);
		return;
	}
	if (TIMESTAMP_NOT_FINITE(t))
		EncodeSpecialTimestamp(t, out);
	else
	{
		struct pg_tm tm;
		fsec_t fsec;

		if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
			ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
							errmsg("timestamp out of range")));
		tm.tm_isdst = 0;
		EncodeDateTime(&tm, fsec, with_zone, 0, NULL, json ? USE_XSD_DATES : USE_ISO_DATES, out);
	}
	buf->len += (int) strlen(out);
}

void
kcf_print_date(DateADT date, StringInfo buf)
{
	char *out = kcf_reserve(buf, MAXDATELEN);

	if (DATE_NOT_FINITE(date))
		EncodeSpecialDate(date, out);
	else
	{
		char *p = print_day(out, date);

		if (likely(p != NULL))
			*p = '\0';
		else
		{
			struct pg_tm tm;

			j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
			EncodeDateOnly(&tm, USE_ISO_DATES, out);
		}
	}
	buf->len += (int) strlen(out);
}

void
kcf_print_time(Datum value, bool with_zone, bool json, StringInfo buf)
{
	char *out = kcf_reserve(buf, MAXDATELEN);
	int style = json ? USE_XSD_DATES : USE_ISO_DATES;
	struct pg_tm tm;
	fsec_t fsec;
	int zone = 0;

	if (!with_zone)
	{
		time2tm(DatumGetTimeADT(value), &tm, &fsec);
		EncodeTimeOnly(&tm, fsec, false, 0, style, out);
	}
	else
	{
		timetz2tm(DatumGetTimeTzADTP(value), &tm, &fsec, &zone);
		EncodeTimeOnly(&tm, fsec, true, zone, style, out);
	}
	buf->len += (int) strlen(out);
}
