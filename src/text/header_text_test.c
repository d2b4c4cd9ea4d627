/* Text of header fields: encoded words, parameters, dates. */
#include "base/tap.h"
#include "text/date.h"
#include "text/rfc2047.h"
#include "text/rfc2231.h"

static struct buf out;

static str decoded(str s)
{
	buf_clear(&out);
	rfc2047_decode(s, &out);
	return buf_str(&out);
}

static str encoded(str s, size_t column)
{
	buf_clear(&out);
	rfc2047_encode(s, column, &out);
	return buf_str(&out);
}

static void test_decode(void)
{
	tap_group("encoded words");
	/* RFC 2047 8 */
	STR_EQ(decoded(S("(=?ISO-8859-1?Q?a?= b)")), S("(a b)"));
	STR_EQ(decoded(S("=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=")), S("ab"));
	STR_EQ(decoded(S("=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b_c?=")), S("ab c"));
	STR_EQ(decoded(S("=?utf-8?b?4oI=?= =?utf-8?b?rA==?=")),
	       S("\xE2\x82\xAC")); /* split character */
	STR_EQ(decoded(S("=?utf-8*en?q?=c3=a9?=")), S("\xC3\xA9"));
	STR_EQ(decoded(S("=?x-no-such?q?a?= b")), S("=?x-no-such?q?a?= b"));
	STR_EQ(decoded(S("=?utf-8?x?a?= =? ==?")), S("=?utf-8?x?a?= =? ==?"));
	STR_EQ(decoded(S("=?utf-8?q?a")), S("=?utf-8?q?a"));
	STR_EQ(decoded(S("raw \xe9 b\r\n c")), S("raw \xEF\xBF\xBD b c"));
	STR_EQ(decoded(S("=?utf-8?q?"
			 "?=x")),
	       S("x"));
	STR_EQ(decoded(S("")), S(""));
}

static void test_encode(void)
{
	str long_text =
		S("\xC3\xA9 wort "
		  "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2"
		  "\x82\xAC und noch mehr davon, bis die Zeile voll ist und noch eine "
		  "\xC3\xA4\xC3\xB6\xC3\xBC");
	struct buf copy;
	str rest;

	tap_group("encoding words");
	STR_EQ(encoded(S("plain"), 9), S("plain"));
	STR_EQ(encoded(S("a =?b"), 9), S("=?UTF-8?Q?a_=3D=3Fb?="));
	STR_EQ(encoded(S("caf\xC3\xA9"), 9), S("=?UTF-8?Q?caf=C3=A9?="));
	STR_EQ(encoded(S("a\r\nBcc: x"), 9), S("a  Bcc: x"));
	buf_init(&copy, 10000);
	buf_add(&copy, encoded(long_text, 70));
	rest = buf_str(&copy);
	for (bool first = true; rest.n; first = false)
		OK(str_cut_line(&rest).n + (first ? 70 : 0) <= 76);
	STR_EQ(str_trim(decoded(buf_str(&copy))),
	       S("\xC3\xA9 wort \xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2"
		 "\x82\xAC\xE2\x82\xAC und noch mehr davon, bis die Zeile voll ist und noch "
		 "eine \xC3\xA4\xC3\xB6\xC3\xBC"));
	buf_free(&copy);
}

static void test_params(void)
{
	struct arena *a = arena_new(100000);
	struct param p[] = {
		{ S("title*1*"), S("%2a%2a") },
		{ S("x"), S("y") },
		{ S("title*2"), S("isn't 100%") },
		{ S("title*0*"), S("us-ascii'en'This%20is") },
		{ S("gap*1"), S("b") },
		{ S("name*"), S("utf-8''%e2%82%ac") },
	};
	size_t n = ARRAY_LEN(p);

	tap_group("parameters");
	EQ(rfc2231_join(p, &n, a), ERR_OK);
	EQ(n, 4);
	STR_EQ(p[0].name, S("x"));
	STR_EQ(p[1].name, S("gap*1"));
	STR_EQ(p[2].name, S("name*"));
	STR_EQ(p[3].name, S("title*"));
	STR_EQ(p[3].value, S("us-ascii'en'This%20is%2a%2aisn't 100%25"));
	buf_clear(&out);
	rfc2231_decode(p[3].value, &out);
	STR_EQ(buf_str(&out), S("This is**isn't 100%"));
	buf_clear(&out);
	rfc2231_decode(p[2].value, &out);
	STR_EQ(buf_str(&out), S("\xE2\x82\xAC"));
	buf_clear(&out);
	rfc2231_decode(S("no charset %41"), &out);
	STR_EQ(buf_str(&out), S("no charset A"));
	arena_free(a);
}

static str reformatted(str s)
{
	struct date d = { 0 };
	enum err err = date_parse_rfc5322(s, &d);

	buf_clear(&out);
	if (err)
		buf_printf(&out, "%s", err_name(err));
	else
		date_format_rfc5322(d, &out);
	return buf_str(&out);
}

static str imap(str s)
{
	struct date d = { 0 };
	enum err err = date_parse_imap(s, &d);

	buf_clear(&out);
	if (err)
		buf_printf(&out, "%s", err_name(err));
	else
		date_format_imap(d, &out);
	return buf_str(&out);
}

static void test_dates(void)
{
	struct date d;
	int32_t day = 0;

	tap_group("dates");
	STR_EQ(reformatted(S("Fri, 21 Nov 1997 09:55:06 -0600")),
	       S("Fri, 21 Nov 1997 09:55:06 -0600"));
	/* RFC 5322 A.5, A.6.2 */
	STR_EQ(reformatted(S("Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n"
			     "               -0330 (Newfoundland Time)")),
	       S("Thu, 13 Feb 1969 23:32:00 -0330"));
	STR_EQ(reformatted(S("21 Nov 97 09:55:06 GMT")), S("Fri, 21 Nov 1997 09:55:06 +0000"));
	STR_EQ(reformatted(S("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600")),
	       S("Fri, 21 Nov 1997 09:55:06 -0600"));
	STR_EQ(reformatted(S("1 Jan 103 0:00 PST")), S("Wed, 1 Jan 2003 00:00:00 -0800"));
	STR_EQ(reformatted(S("29 Feb 2023 00:00:00 +0000")), S("RANGE"));
	STR_EQ(reformatted(S("29 Feb 2024 00:00:00 +0000")), S("Thu, 29 Feb 2024 00:00:00 +0000"));
	STR_EQ(reformatted(S("1 Jan 2024 24:00:00 +0000")), S("RANGE"));
	STR_EQ(reformatted(S("30 Jun 2015 23:59:60 +0000")), S("Wed, 1 Jul 2015 00:00:00 +0000"));
	STR_EQ(reformatted(S("31 Dec 9999 23:59:59 -0100")), S("Fri, 31 Dec 9999 23:59:59 -0100"));
	STR_EQ(reformatted(S("31 Dec 9999 23:59:60 +0000")), S("RANGE"));
	STR_EQ(reformatted(S("1 Foo 2024 00:00:00 +0000")), S("SYNTAX"));
	STR_EQ(reformatted(S("")), S("SYNTAX"));
	EQ(date_parse_rfc5322(S("Thu, 1 Jan 1970 01:00:00 +0100"), &d), ERR_OK);
	EQ(d.seconds, 0);
	STR_EQ(imap(S("17-Jul-1996 02:44:25 -0700")), S("17-Jul-1996 02:44:25 -0700"));
	STR_EQ(imap(S(" 1-jul-1996 02:44:25 +0000")), S(" 1-Jul-1996 02:44:25 +0000"));
	STR_EQ(imap(S("1-Jul-1996 02:44:25 +0000x")), S("SYNTAX"));
	STR_EQ(imap(S("31-Jun-1996 02:44:25 +0000")), S("RANGE"));
	STR_EQ(imap(S("17-Jul-1996 02:44:25")), S("SYNTAX"));
	EQ(date_parse_imap_day(S("1-Feb-1994"), &day), ERR_OK);
	EQ(day, 8797);
	EQ(date_parse_imap_day(S("01-Jan-1970"), &day), ERR_OK);
	EQ(day, 0);
	EQ(date_parse_imap_day(S("1-Feb-94"), &day), ERR_SYNTAX);
	EQ(date_local_day((struct date){ .seconds = -1, .zone = 0 }), -1);
	EQ(date_local_day((struct date){ .seconds = 86400 - 60, .zone = 1 }), 1);
}

int main(void)
{
	buf_init(&out, 10000);
	test_decode();
	test_encode();
	test_params();
	test_dates();
	buf_free(&out);
	return tap_done();
}
