/* Verdicts and base subjects. */
#include "filter/filter.h"

#include "base/tap.h"

static void subject(const char *in, const char *want)
{
	struct buf b;

	tap_group(in);
	buf_init(&b, FILTER_SUBJECT_MAX);
	filter_subject_base(str_from_c(in), &b);
	STR_EQ(buf_str(&b), str_from_c(want));
	buf_free(&b);
}

static void test_subjects(void)
{
	subject("hello", "hello");
	subject("Re: hello", "hello");
	subject("RE: re:FWD: Fw : hello (fwd)  (FWD)", "hello");
	subject("Re [2]: hello", "hello");
	subject("[list] Re: [list] hello", "hello");
	subject("[list]", "[list]");
	subject("[a] [b]", "[b]");
	subject("[Fwd: [fwd: hello]]", "hello");
	subject("[fwd: Re: hello (fwd)]", "hello");
	subject("=?utf-8?Q?Re:_caf=C3=A9?=", "caf\xc3\xa9");
	subject("  a\r\n\tb  c ", "a b c");
	subject("Re:", "");
	subject("", "");
	subject("regarding: x", "regarding: x");
	subject("[unclosed", "[unclosed");
	subject("[fwd:]", "");
}

static void test_verdict(void)
{
	/* SHA-256 of "abc", FIPS 180-2 B.1 */
	static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
					 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
					 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
					 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	struct filter_verdict v;
	struct filter *f;

	tap_group("verdict");
	EQ(filter_new(&f), ERR_OK);
	filter_judge(f, S("abc"), &v);
	OK(memcmp(v.hash, abc, 32) == 0);
	EQ(v.code, 250);
	filter_judge(f, S("From: a@b\r\nSubject: Re: x\r\nMessage-ID: <1@b> junk\r\n\r\nhello\r\n"),
		     &v);
	OK(v.has_parse);
	STR_EQ(v.message_id, S("<1@b>"));
	STR_EQ(v.subject_base, S("x"));
	OK(str_starts(v.envelope, S("(NIL \"Re: x\" ")));
	OK(str_case_starts(v.structure, S("(\"text\" \"plain\" ")));
	filter_judge(f, S("Message-ID: <a b>\r\n\r\n"), &v);
	STR_EQ(v.message_id, S(""));
	filter_judge(f, S(""), &v);
	EQ(v.code, 250);
	filter_free(f);
}

static void test_too_large(void)
{
	struct filter_verdict v;
	struct filter *f;
	struct buf b;

	tap_group("too large");
	buf_init(&b, 1024 * 1024);
	buf_add(&b, S("Subject: s\r\nMessage-ID: <i@j>\r\nTo: "));
	for (int i = 0; i < 3000; i++)
		buf_printf(&b, "user%d@example.test,\r\n ", i);
	buf_add(&b, S("last@example.test\r\n\r\nx\r\n"));
	EQ(filter_new(&f), ERR_OK);
	filter_judge(f, buf_str(&b), &v);
	EQ(v.code, 250);
	OK(!v.has_parse);
	EQ(v.envelope.n, 0);
	STR_EQ(v.message_id, S("<i@j>"));
	/* The next one is not touched by it. */
	filter_judge(f, S("Subject: s\r\n\r\nx\r\n"), &v);
	OK(v.has_parse);
	STR_EQ(v.message_id, S(""));
	filter_free(f);
	buf_free(&b);
}

int main(void)
{
	test_subjects();
	test_verdict();
	test_too_large();
	return tap_done();
}
