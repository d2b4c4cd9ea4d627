/* Command lines: a table of what is taken, what is refused and why. */
#include "smtp/command.h"

#include "base/tap.h"

static struct smtp_command parsed;

static enum smtp_fault parse_as(str line, enum smtp_dialect dialect, bool utf8, struct arena *a)
{
	return smtp_command_parse(line, dialect, utf8, a, &parsed);
}

static const struct {
	const char *line;
	enum smtp_verb verb;
	enum smtp_fault fault;
} rows[] = {
	{ "EHLO mail.example.org", SMTP_EHLO, SMTP_FAULT_NONE },
	{ "ehlo [192.0.2.1]", SMTP_EHLO, SMTP_FAULT_NONE },
	{ "HELO my printer", SMTP_HELO, SMTP_FAULT_NONE },
	{ "EHLO", SMTP_EHLO, SMTP_FAULT_ARGUMENT },
	{ "EHLO b\xc3\xbc.example", SMTP_EHLO, SMTP_FAULT_ARGUMENT },
	{ "LHLO x", SMTP_LHLO, SMTP_FAULT_UNKNOWN },
	{ "MAIL FROM:<a@example.org>", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "mail from:<a@example.org>   ", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM: <a@example.org>", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<>", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<@x.example,@y.example:a@example.org>", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:a@example.org", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL FROM:<a@example.org", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL FROM:<a b@example.org>", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL FROM:<a@example.org>x", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL FROM:<a@b@c>", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL <a@example.org>", SMTP_MAIL, SMTP_FAULT_ARGUMENT },
	{ "MAIL TO:<a@example.org>", SMTP_MAIL, SMTP_FAULT_ARGUMENT },
	{ "MAIL", SMTP_MAIL, SMTP_FAULT_ARGUMENT },
	{ "MAIL FROM:<a@example.org> SIZE=1000 BODY=8BITMIME", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org>  SIZE=1000", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> SIZE=", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> SIZE", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> SIZE=-1", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> SIZE=99999999999999999999", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> SIZE=100000000000000000000", SMTP_MAIL,
	  SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> SIZE=1 SIZE=2", SMTP_MAIL, SMTP_FAULT_PARAMETER_TWICE },
	{ "MAIL FROM:<a@example.org> BODY=BINARYMIME", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> X=1", SMTP_MAIL, SMTP_FAULT_PARAMETER_UNKNOWN },
	{ "MAIL FROM:<a@example.org> SMTPUTF8", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> SMTPUTF8=1", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<\xc3\xa9@example.org> SMTPUTF8", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<\xc3\xa9@example.org>", SMTP_MAIL, SMTP_FAULT_NEEDS_UTF8 },
	{ "MAIL FROM:<\xff@example.org> SMTPUTF8", SMTP_MAIL, SMTP_FAULT_SENDER },
	{ "MAIL FROM:<a@example.org> RET=FULL ENVID=QQ314159", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> RET=NONE", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> ENVID=a+2Bb", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> ENVID=a+2", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> ENVID=a+2b", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> ENVID=a=b", SMTP_MAIL, SMTP_FAULT_PARAMETER_VALUE },
	{ "MAIL FROM:<a@example.org> AUTH=<>", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> AUTH=e+3Dmc2@example.com", SMTP_MAIL, SMTP_FAULT_NONE },
	{ "MAIL FROM:<a@example.org> NOTIFY=NEVER", SMTP_MAIL, SMTP_FAULT_PARAMETER_UNKNOWN },
	{ "RCPT TO:<b@example.org>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO: <b@example.org>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<Postmaster>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<root>", SMTP_RCPT, SMTP_FAULT_RECIPIENT },
	{ "RCPT TO:<>", SMTP_RCPT, SMTP_FAULT_RECIPIENT },
	{ "RCPT TO:<\"a b\"@example.org>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<b@[192.0.2.7]>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<b@[IPv6:2001:db8::1]>", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<b@[300.0.2.7]>", SMTP_RCPT, SMTP_FAULT_RECIPIENT },
	{ "RCPT TO:<\xc3\xa9@example.org>", SMTP_RCPT, SMTP_FAULT_NEEDS_UTF8 },
	{ "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.org", SMTP_RCPT,
	  SMTP_FAULT_NONE },
	{ "RCPT TO:<b@example.org> NOTIFY=NEVER", SMTP_RCPT, SMTP_FAULT_NONE },
	{ "RCPT TO:<b@example.org> NOTIFY=NEVER,DELAY", SMTP_RCPT, SMTP_FAULT_PARAMETER_VALUE },
	{ "RCPT TO:<b@example.org> NOTIFY=DELAY,", SMTP_RCPT, SMTP_FAULT_PARAMETER_VALUE },
	{ "RCPT TO:<b@example.org> NOTIFY=DELAY,DELAY", SMTP_RCPT, SMTP_FAULT_PARAMETER_VALUE },
	{ "RCPT TO:<b@example.org> ORCPT=b@example.org", SMTP_RCPT, SMTP_FAULT_PARAMETER_VALUE },
	{ "RCPT TO:<b@example.org> ORCPT=;b", SMTP_RCPT, SMTP_FAULT_PARAMETER_VALUE },
	{ "RCPT TO:<b@example.org> SIZE=1", SMTP_RCPT, SMTP_FAULT_PARAMETER_UNKNOWN },
	{ "DATA", SMTP_DATA, SMTP_FAULT_NONE },
	{ "DATA ", SMTP_DATA, SMTP_FAULT_NONE },
	{ "DATA now", SMTP_DATA, SMTP_FAULT_NO_ARGUMENT },
	{ "BDAT 86 LAST", SMTP_BDAT, SMTP_FAULT_NONE },
	{ "BDAT 0", SMTP_BDAT, SMTP_FAULT_NONE },
	{ "BDAT", SMTP_BDAT, SMTP_FAULT_ARGUMENT },
	{ "BDAT x", SMTP_BDAT, SMTP_FAULT_ARGUMENT },
	{ "BDAT 1 FIRST", SMTP_BDAT, SMTP_FAULT_ARGUMENT },
	{ "BDAT 99999999999999999999", SMTP_BDAT, SMTP_FAULT_ARGUMENT },
	{ "RSET", SMTP_RSET, SMTP_FAULT_NONE },
	{ "RSET x", SMTP_RSET, SMTP_FAULT_NO_ARGUMENT },
	{ "NOOP x", SMTP_NOOP, SMTP_FAULT_NONE },
	{ "VRFY alice", SMTP_VRFY, SMTP_FAULT_NONE },
	{ "VRFY", SMTP_VRFY, SMTP_FAULT_ARGUMENT },
	{ "HELP MAIL", SMTP_HELP, SMTP_FAULT_NONE },
	{ "AUTH PLAIN AGEAYg==", SMTP_AUTH, SMTP_FAULT_NONE },
	{ "AUTH PLAIN", SMTP_AUTH, SMTP_FAULT_NONE },
	{ "AUTH", SMTP_AUTH, SMTP_FAULT_ARGUMENT },
	{ "AUTH PLAIN a b", SMTP_AUTH, SMTP_FAULT_ARGUMENT },
	{ "STARTTLS", SMTP_STARTTLS, SMTP_FAULT_NONE },
	{ "STARTTLS x", SMTP_STARTTLS, SMTP_FAULT_NO_ARGUMENT },
	{ "QUIT", SMTP_QUIT, SMTP_FAULT_NONE },
	{ "ETRN example.org", SMTP_ETRN, SMTP_FAULT_NOT_IMPLEMENTED },
	{ "", SMTP_NO_VERB, SMTP_FAULT_UNKNOWN },
	{ "HELLO there", SMTP_NO_VERB, SMTP_FAULT_UNKNOWN },
	{ "GET / HTTP/1.1", SMTP_NO_VERB, SMTP_FAULT_NOT_SMTP },
	{ "Subject: hello", SMTP_NO_VERB, SMTP_FAULT_NOT_SMTP },
	{ "\x16\x03\x01\x02", SMTP_NO_VERB, SMTP_FAULT_NOT_SMTP },
	{ "NOOP\tx", SMTP_NO_VERB, SMTP_FAULT_BYTES },
	{ "NOOP x\ry", SMTP_NOOP, SMTP_FAULT_BYTES },
	{ "RCPT TO:<a\x01@example.org>", SMTP_RCPT, SMTP_FAULT_BYTES },
};

static void test_rows(struct arena *a)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		tap_group(rows[i].line);
		EQ(parse_as(str_from_c(rows[i].line), SMTP_DIALECT_SMTP, false, a), rows[i].fault);
		EQ(parsed.verb, rows[i].verb);
		arena_reset(a);
	}
}

static void test_values(struct arena *a)
{
	tap_group("values");
	EQ(parse_as(S("MAIL FROM:<\"a b\"@Example.ORG> SIZE=77 RET=HDRS ENVID=x+2By BODY=8bitmime "
		      "SMTPUTF8"),
		    SMTP_DIALECT_SMTP, false, a),
	   SMTP_FAULT_NONE);
	STR_EQ(parsed.mail.sender.local, S("a b"));
	STR_EQ(parsed.mail.sender.domain, S("Example.ORG"));
	EQ(parsed.mail.size, 77);
	EQ(parsed.mail.ret, SMTP_RET_HDRS);
	STR_EQ(parsed.mail.envid, S("x+2By"));
	EQ(parsed.mail.body, SMTP_BODY_8BITMIME);
	OK(parsed.mail.smtputf8);
	EQ(parse_as(S("RCPT TO:<\xc3\xa9@example.org> NOTIFY=SUCCESS,failure "
		      "ORCPT=utf-8;\xc3\xa9@example.org"),
		    SMTP_DIALECT_SMTP, true, a),
	   SMTP_FAULT_NONE);
	OK(parsed.rcpt.recipient.is_utf8);
	EQ(parsed.rcpt.notify, SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE);
	EQ(parse_as(S("BDAT 1234 last"), SMTP_DIALECT_SMTP, false, a), SMTP_FAULT_NONE);
	EQ(parsed.chunk, 1234);
	OK(parsed.is_last);
	EQ(parse_as(S("AUTH plain ="), SMTP_DIALECT_SMTP, false, a), SMTP_FAULT_NONE);
	OK(parsed.has_initial);
	STR_EQ(parsed.initial, S("="));
	EQ(parse_as(S("LHLO x"), SMTP_DIALECT_LMTP, false, a), SMTP_FAULT_NONE);
	EQ(parse_as(S("EHLO x"), SMTP_DIALECT_LMTP, false, a), SMTP_FAULT_UNKNOWN);
}

static void test_limits(struct arena *a)
{
	struct buf b;

	tap_group("limits");
	buf_init(&b, 64 * 1024);
	for (int over = -1; over <= 1; over++) {
		buf_clear(&b);
		buf_add(&b, S("NOOP "));
		while ((int)buf_len(&b) < SMTP_LINE_MAX + 1 + over)
			buf_add_char(&b, 'x');
		EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a),
		   over == 1 ? SMTP_FAULT_LINE_TOO_LONG : SMTP_FAULT_NONE);
		buf_clear(&b);
		buf_add(&b, S("HELO "));
		for (int i = 0; i < SMTP_HELO_MAX + over; i++)
			buf_add_char(&b, 'x');
		EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a),
		   over == 1 ? SMTP_FAULT_ARGUMENT : SMTP_FAULT_NONE);
		buf_clear(&b);
		buf_add(&b, S("MAIL FROM:<> ENVID="));
		for (int i = 0; i < SMTP_ENVID_MAX + over; i++)
			buf_add_char(&b, 'x');
		EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a),
		   over == 1 ? SMTP_FAULT_PARAMETER_VALUE : SMTP_FAULT_NONE);
		buf_clear(&b);
		buf_add(&b, S("RCPT TO:<a@b> ORCPT=rfc822;"));
		for (int i = 0; i < SMTP_ORCPT_MAX - 7 + over; i++)
			buf_add_char(&b, 'x');
		EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a),
		   over == 1 ? SMTP_FAULT_PARAMETER_VALUE : SMTP_FAULT_NONE);
	}
	buf_clear(&b);
	buf_add(&b, S("AUTH PLAIN "));
	for (int i = 0; i < 5000; i++)
		buf_add_char(&b, 'x');
	EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a), SMTP_FAULT_NONE);
	buf_clear(&b);
	buf_add(&b, S("RCPT TO:<"));
	for (int i = 0; i < 300; i++)
		buf_add_char(&b, 'x');
	buf_add(&b, S("@example.org>"));
	EQ(parse_as(buf_str(&b), SMTP_DIALECT_SMTP, false, a), SMTP_FAULT_PATH_TOO_LONG);
	buf_free(&b);
}

static void test_sequence(void)
{
	tap_group("sequence");
	OK(!smtp_is_allowed(SMTP_MAIL, SMTP_STATE_NEW));
	OK(smtp_is_allowed(SMTP_MAIL, SMTP_STATE_IDLE));
	OK(!smtp_is_allowed(SMTP_MAIL, SMTP_STATE_MAIL));
	OK(!smtp_is_allowed(SMTP_DATA, SMTP_STATE_MAIL));
	OK(!smtp_is_allowed(SMTP_DATA, SMTP_STATE_BDAT));
	OK(smtp_is_allowed(SMTP_BDAT, SMTP_STATE_BDAT));
	OK(!smtp_is_allowed(SMTP_STARTTLS, SMTP_STATE_RCPT));
	OK(smtp_is_allowed(SMTP_QUIT, SMTP_STATE_NEW));
	STR_EQ(str_from_c(smtp_sequence_text(SMTP_DATA, SMTP_STATE_MAIL)),
	       S("No valid recipients"));
	EQ(smtp_fault_info(SMTP_FAULT_UNKNOWN)->code, 500);
	STR_EQ(str_from_c(smtp_verb_name(SMTP_STARTTLS)), S("STARTTLS"));
}

int main(void)
{
	struct arena *a = arena_new(1024 * 1024);

	test_rows(a);
	test_values(a);
	test_limits(a);
	test_sequence();
	arena_free(a);
	return tap_done();
}
