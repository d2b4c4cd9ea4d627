/* Times on the command line. */
#include "roles/when.h"

static enum err age_parse(str text, int64_t now_us, uint64_t *us)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };
	uint64_t n, now = now_us > 0 ? (uint64_t)now_us : 0;

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (text.n < 2 || text.p[text.n - 1] != units[i].unit)
			continue;
		if (str_to_u64(str_head(text, text.n - 1), 1000000000, &n))
			return ERR_SYNTAX;
		n *= units[i].seconds * 1000000;
		*us = now - (n < now ? n : now);
		return ERR_OK;
	}
	return ERR_SYNTAX;
}

/* Of the Gregorian calendar, since 1970-01-01. */
static uint64_t days_before(uint64_t year, uint64_t month, uint64_t day)
{
	static const unsigned before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	uint64_t past = year - 1;
	bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return past * 365 + past / 4 - past / 100 + past / 400 - 719162 + before[month - 1] +
	       (is_leap && month > 2) + day - 1;
}

static bool number(str *rest, char end, uint64_t least, uint64_t most, uint64_t *n)
{
	str digits = str_cut(rest, end);

	return digits.n >= 2 && str_to_u64(digits, most, n) == ERR_OK && *n >= least;
}

enum err when_parse(str text, int64_t now_us, uint64_t *us)
{
	uint64_t year, month, day, hour = 0, minute = 0, second = 0;
	str date, clock = text;

	if (age_parse(text, now_us, us) == ERR_OK)
		return ERR_OK;
	date = str_cut(&clock, 'T');
	if (!number(&date, '-', 1970, 9999, &year) || !number(&date, '-', 1, 12, &month) ||
	    !number(&date, '-', 1, 31, &day) || date.n)
		return ERR_SYNTAX;
	if (!clock.n && text.p[text.n - 1] == 'T')
		return ERR_SYNTAX;
	if (str_ends(clock, S("Z")))
		clock = str_head(clock, clock.n - 1);
	if (clock.n &&
	    (!number(&clock, ':', 0, 23, &hour) || !number(&clock, ':', 0, 59, &minute) ||
	     (clock.n && !number(&clock, ':', 0, 59, &second)) || clock.n))
		return ERR_SYNTAX;
	*us = (((days_before(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000000;
	return ERR_OK;
}
