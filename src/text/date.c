/* Dates of mail.
 *
 * Days are counted with the civil-calendar arithmetic of the proleptic Gregorian calendar (years
 * that begin in March, so that the leap day comes last), which needs no table and no libc: mktime
 * and strptime depend on the machine's zone and locale.
 *
 * The RFC 5322 parser reads tokens and skips comments; what it does not need (the day's name) it
 * does not check, since wrong ones are common. */
#include "text/date.h"

static const char month_names[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
					 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
static const char day_names[7][4] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };

struct civil {
	int year, month, day; /* month and day from 1 */
};

static int64_t days_from_civil(struct civil c)
{
	int64_t y = c.month <= 2 ? c.year - 1 : c.year;
	int64_t era = y / 400, year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (c.month + (c.month > 2 ? -3 : 9)) + 2) / 5 + c.day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

static struct civil civil_from_days(int64_t days)
{
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;
	struct civil c = { .day = (int)(doy - (153 * m + 2) / 5 + 1),
			   .month = (int)(m < 10 ? m + 3 : m - 9) };

	c.year = (int)(yoe + era * 400 + (c.month <= 2));
	return c;
}

static bool civil_is_valid(struct civil c)
{
	static const int lengths[12] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = c.year % 4 == 0 && (c.year % 100 != 0 || c.year % 400 == 0);

	return c.year >= 1 && c.year <= 9999 && c.month >= 1 && c.month <= 12 && c.day >= 1 &&
	       c.day <= lengths[c.month - 1] - (c.month == 2 && !leap);
}

/* 1..12, or 0. */
static int month_of(str s)
{
	for (int i = 0; i < 12; i++)
		if (str_case_eq(str_head(s, 3), str_of(month_names[i], 3)) && s.n >= 3)
			return i + 1;
	return 0;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

struct clock {
	int hour, minute, second;
};

/* 9999-12-31 23:59:59 */
#define LOCAL_MAX 253402300799

static enum err assemble(struct civil day, struct clock t, int zone, struct date *out)
{
	int64_t local;

	if (!civil_is_valid(day) || t.hour > 23 || t.minute > 59 || t.second > 60 ||
	    zone > DATE_ZONE_MAX || zone < -DATE_ZONE_MAX)
		return ERR_RANGE;
	/* A leap second reads as the first second of the next minute, which may be in year 10000.
	 */
	local = days_from_civil(day) * 86400 + t.hour * 3600 + t.minute * 60 + t.second;
	if (local > LOCAL_MAX)
		return ERR_RANGE;
	out->zone = (int16_t)zone;
	out->seconds = local - zone * 60;
	return ERR_OK;
}

/* RFC 5322 3.2.2: white space and nested comments. */
static void skip_cfws(str *s)
{
	int depth = 0;

	while (s->n) {
		char c = s->p[0];

		if (c == '(')
			depth++;
		else if (c == ')' && depth)
			depth--;
		else if (c == '\\' && depth)
			*s = str_from(*s, 1);
		else if (!depth && !ascii_is_space(c))
			return;
		*s = str_from(*s, 1);
	}
}

/* The digits at the front as a number of at most 9999; how many there were, 0 for none or too many.
 */
static size_t take_number(str *s, int *out)
{
	size_t n = 0;
	int v = 0;

	while (n < s->n && n < 5 && ascii_is_digit(s->p[n]))
		v = v * 10 + (s->p[n++] - '0');
	if (n > 4)
		return 0;
	*s = str_from(*s, n);
	*out = v;
	return n;
}

static str take_word(str *s)
{
	size_t n = 0;
	str word;

	while (n < s->n && ascii_is_alpha(s->p[n]))
		n++;
	word = str_head(*s, n);
	*s = str_from(*s, n);
	return word;
}

/* RFC 5322 4.3: obs-zone; letters of the military say nothing that can be trusted and read as UTC.
 */
static int zone_of_name(str name)
{
	static const struct {
		const char *name;
		int hours;
	} zones[] = { { "EST", -5 }, { "EDT", -4 }, { "CST", -6 }, { "CDT", -5 },
		      { "MST", -7 }, { "MDT", -6 }, { "PST", -8 }, { "PDT", -7 } };

	for (size_t i = 0; i < ARRAY_LEN(zones); i++)
		if (str_case_eq(name, str_from_c(zones[i].name)))
			return zones[i].hours * 60;
	return 0;
}

/* "+hhmm" or "-hhmm" at the front. */
static enum err take_zone(str *s, int *out)
{
	bool west = s->n && s->p[0] == '-';
	int v;

	if (s->n < 5 || (s->p[0] != '+' && s->p[0] != '-'))
		return ERR_SYNTAX;
	*s = str_from(*s, 1);
	if (take_number(s, &v) != 4)
		return ERR_SYNTAX;
	if (v % 100 > 59)
		return ERR_RANGE;
	*out = (v / 100 * 60 + v % 100) * (west ? -1 : 1);
	return ERR_OK;
}

/* hour ":" minute [":" second], with white space where the obsolete syntax allows it. */
static enum err take_clock(str *s, struct clock *t)
{
	if (!take_number(s, &t->hour))
		return ERR_SYNTAX;
	skip_cfws(s);
	if (!s->n || s->p[0] != ':')
		return ERR_SYNTAX;
	*s = str_from(*s, 1);
	skip_cfws(s);
	if (!take_number(s, &t->minute))
		return ERR_SYNTAX;
	skip_cfws(s);
	if (!s->n || s->p[0] != ':')
		return ERR_OK;
	*s = str_from(*s, 1);
	skip_cfws(s);
	return take_number(s, &t->second) ? ERR_OK : ERR_SYNTAX;
}

enum err date_parse_rfc5322(str s, struct date *out)
{
	struct civil day = { 0 };
	struct clock t = { 0 };
	int zone = 0;
	size_t digits;
	enum err err;

	skip_cfws(&s);
	if (take_word(&s).n) {
		skip_cfws(&s);
		if (s.n && s.p[0] == ',')
			s = str_from(s, 1);
		skip_cfws(&s);
	}
	if (!take_number(&s, &day.day))
		return ERR_SYNTAX;
	skip_cfws(&s);
	day.month = month_of(take_word(&s));
	skip_cfws(&s);
	digits = take_number(&s, &day.year);
	if (!day.month || digits < 2)
		return ERR_SYNTAX;
	/* RFC 5322 4.3: obs-year. */
	if (digits == 2)
		day.year += day.year < 50 ? 2000 : 1900;
	else if (digits == 3)
		day.year += 1900;
	skip_cfws(&s);
	if ((err = take_clock(&s, &t)))
		return err;
	skip_cfws(&s);
	if (s.n && ascii_is_alpha(s.p[0]))
		zone = zone_of_name(take_word(&s));
	else if (s.n && (err = take_zone(&s, &zone)))
		return err;
	return assemble(day, t, zone, out);
}

/* The parts of a date in its own zone. */
static struct civil split(struct date d, struct clock *t, int64_t *days)
{
	int64_t local = d.seconds + (int64_t)d.zone * 60;
	int64_t second;

	*days = floor_div(local, 86400);
	second = local - *days * 86400;
	*t = (struct clock){ (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60) };
	return civil_from_days(*days);
}

static void add_zone(int zone, struct buf *out)
{
	int minutes = zone < 0 ? -zone : zone;

	buf_printf(out, "%c%02d%02d", zone < 0 ? '-' : '+', minutes / 60, minutes % 60);
}

void date_format_rfc5322(struct date d, struct buf *out)
{
	struct clock t;
	int64_t days;
	struct civil c = split(d, &t, &days);

	buf_printf(out, "%s, %d %s %04d %02d:%02d:%02d ", day_names[days - floor_div(days, 7) * 7],
		   c.day, month_names[c.month - 1], c.year, t.hour, t.minute, t.second);
	add_zone(d.zone, out);
}

void date_format_imap(struct date d, struct buf *out)
{
	struct clock t;
	int64_t days;
	struct civil c = split(d, &t, &days);

	buf_printf(out, "%2d-%s-%04d %02d:%02d:%02d ", c.day, month_names[c.month - 1], c.year,
		   t.hour, t.minute, t.second);
	add_zone(d.zone, out);
}

/* RFC 3501 9: date-day "-" date-month "-" date-year */
static enum err take_imap_day(str *s, struct civil *day)
{
	size_t digits = take_number(s, &day->day);

	if (digits < 1 || digits > 2 || s->n < 5 || s->p[0] != '-' || s->p[4] != '-')
		return ERR_SYNTAX;
	day->month = month_of(str_sub(*s, 1, 3));
	*s = str_from(*s, 5);
	if (!day->month || take_number(s, &day->year) != 4)
		return ERR_SYNTAX;
	return civil_is_valid(*day) ? ERR_OK : ERR_RANGE;
}

enum err date_parse_imap_day(str s, int32_t *days)
{
	struct civil day = { 0 };
	enum err err = take_imap_day(&s, &day);

	if (err)
		return err;
	if (s.n)
		return ERR_SYNTAX;
	*days = (int32_t)days_from_civil(day);
	return ERR_OK;
}

enum err date_parse_imap(str s, struct date *out)
{
	struct civil day = { 0 };
	struct clock t = { 0 };
	int zone = 0;
	enum err err;

	/* RFC 3501 9: date-day-fixed = (SP DIGIT) / 2DIGIT; one digit without the space is common.
	 */
	if (s.n && s.p[0] == ' ')
		s = str_from(s, 1);
	if ((err = take_imap_day(&s, &day)))
		return err;
	if (s.n != 15 || s.p[0] != ' ' || s.p[3] != ':' || s.p[6] != ':' || s.p[9] != ' ')
		return ERR_SYNTAX;
	s = str_from(s, 1);
	if (take_number(&s, &t.hour) != 2 ||
	    (s = str_from(s, 1), take_number(&s, &t.minute) != 2) ||
	    (s = str_from(s, 1), take_number(&s, &t.second) != 2))
		return ERR_SYNTAX;
	s = str_from(s, 1);
	if ((err = take_zone(&s, &zone)))
		return err;
	return assemble(day, t, zone, out);
}

int32_t date_local_day(struct date d)
{
	return (int32_t)floor_div(d.seconds + (int64_t)d.zone * 60, 86400);
}
