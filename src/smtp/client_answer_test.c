/* Replies: single and multi-line, status codes, limits at -1, 0 and +1, and what is not a reply. */
#include "base/tap.h"
#include "smtp/client_answer.h"

static enum err one(struct smtp_answer *r, str line)
{
	str text;

	smtp_answer_begin(r);
	return smtp_answer_add(r, line, &text);
}

static void test_single(void)
{
	struct smtp_answer r;

	tap_group("single");
	EQ(one(&r, S("250 2.0.0 Ok: queued as 12")), ERR_OK);
	EQ(r.code, 250);
	EQ(smtp_answer_class(&r), 2);
	STR_EQ(smtp_answer_status(&r), S("2.0.0"));
	STR_EQ(smtp_answer_text(&r), S("250 2.0.0 Ok: queued as 12"));
	EQ(one(&r, S("354")), ERR_OK);
	STR_EQ(smtp_answer_text(&r), S("354"));
	EQ(one(&r, S("220 ")), ERR_OK);
	STR_EQ(smtp_answer_text(&r), S("220"));
	EQ(one(&r, S("550 2.0.0 a status of another class")), ERR_OK);
	STR_EQ(smtp_answer_status(&r), S(""));
	EQ(one(&r, S("550 5.1.1")), ERR_OK);
	STR_EQ(smtp_answer_status(&r), S("5.1.1"));
	EQ(one(&r, S("550 5.1.1x no")), ERR_OK);
	STR_EQ(smtp_answer_status(&r), S(""));
	EQ(one(&r, S("451 4.123.456 deep")), ERR_OK);
	STR_EQ(smtp_answer_status(&r), S("4.123.456"));
	EQ(one(&r, S("451 4.1234.5 too deep")), ERR_OK);
	STR_EQ(smtp_answer_status(&r), S(""));
	EQ(one(&r, S("250 a\x01\x80\r\tb")), ERR_OK);
	STR_EQ(smtp_answer_text(&r), S("250 a??? b"));
}

static void test_multi(void)
{
	struct smtp_answer r;
	str text;

	tap_group("several lines");
	smtp_answer_begin(&r);
	EQ(smtp_answer_add(&r, S("550-5.1.1 No such"), &text), ERR_AGAIN);
	STR_EQ(text, S("5.1.1 No such"));
	EQ(smtp_answer_add(&r, S("550-5.1.1 user here"), &text), ERR_AGAIN);
	EQ(smtp_answer_add(&r, S("550 5.1.1 see https://example.org/"), &text), ERR_OK);
	STR_EQ(smtp_answer_text(&r), S("550 5.1.1 No such user here see https://example.org/"));
	smtp_answer_begin(&r);
	EQ(smtp_answer_add(&r, S("250-mx.example.org"), &text), ERR_AGAIN);
	EQ(smtp_answer_add(&r, S("550 no"), &text), ERR_PROTOCOL);
	smtp_answer_begin(&r);
	for (unsigned i = 0; i < SMTP_ANSWER_LINES_MAX - 1; i++)
		if (smtp_answer_add(&r, S("250-x"), &text) != ERR_AGAIN)
			OK(!"a line below the limit was refused");
	EQ(smtp_answer_add(&r, S("250-x"), &text), ERR_AGAIN);
	EQ(smtp_answer_add(&r, S("250 x"), &text), ERR_PROTOCOL);
}

static void test_bad(void)
{
	static const char *const bad[] = { "",	    "2",      "25",	     "250x",
					   "250_x", "150 x",  "050 x",	     "650 x",
					   "2a0 x", " 250 x", "HTTP/1.1 400" };
	struct smtp_answer r;

	tap_group("not a reply");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		EQ(one(&r, str_from_c(bad[i])), ERR_PROTOCOL);
}

static void test_length(void)
{
	char line[600];
	struct smtp_answer r;

	tap_group("length");
	memset(line, 'y', sizeof(line));
	memcpy(line, "250 ", 4);
	for (size_t n = SMTP_ANSWER_TEXT_MAX - 1; n <= SMTP_ANSWER_TEXT_MAX + 1; n++) {
		EQ(one(&r, str_of(line, n)), ERR_OK);
		EQ(smtp_answer_text(&r).n, MIN(n, (size_t)SMTP_ANSWER_TEXT_MAX));
	}
}

int main(void)
{
	test_single();
	test_multi();
	test_bad();
	test_length();
	return tap_done();
}
