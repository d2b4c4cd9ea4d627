/* Dates of mail: RFC 5322 3.3 (with the obsolete forms of 4.3) and IMAP's date-time and date
 * (RFC 3501 9). The zone a date was written in is kept. Years are 1 to 9999. No function here reads
 * a clock or the machine's zone. */
#ifndef TEXT_DATE_H
#define TEXT_DATE_H

#include "base/buf.h"

struct date {
	int64_t seconds; /* since 1970-01-01 00:00:00 UTC */
	int16_t zone;	 /* minutes east of UTC; -00:00 reads as 0 */
};

/* The most minutes a zone may be off: +9959 is the most that the grammar can say. */
#define DATE_ZONE_MAX (99 * 60 + 59)

/* RFC 5322 date-time, lenient: comments, a missing or wrong day name, no seconds, years of two or
 * three digits, zone names, a missing zone (UTC). ERR_SYNTAX or ERR_RANGE. */
MUST_USE enum err date_parse_rfc5322(str s, struct date *out);

/* "Thu, 13 Feb 2025 10:00:00 +0100" */
void date_format_rfc5322(struct date d, struct buf *out);

/* IMAP date-time without its quotes, strict: "13-Feb-2025 10:00:00 +0100" (a leading space or
 * digit). Formatting is the same, with a leading space below 10. */
MUST_USE enum err date_parse_imap(str s, struct date *out);
void date_format_imap(struct date d, struct buf *out);

/* IMAP date without its quotes ("1-Feb-1994", "01-feb-1994") as days since 1970-01-01. */
MUST_USE enum err date_parse_imap_day(str s, int32_t *days);

/* The day in the date's own zone as days since 1970-01-01: SEARCH compares days
 * "disregarding time and timezone" (RFC 3501 6.4.4). */
int32_t date_local_day(struct date d);

#endif
