/* Gathering a message: header fixes, hops, memory and memfd. */
#include "smtp/message.h"

#include "base/tap.h"

static struct smtp_budget budget;

static const struct smtp_fix fix = { .date = { .seconds = 0, .zone = 0 },
				     .message_id = S("id@example.test"),
				     .from = S("alice@example.test") };

/* Feeds `in` in pieces; the result is in *m. */
static enum err gather(struct smtp_message *m, str in, size_t piece, bool fixing)
{
	enum err err = ERR_OK;

	budget.max = 10 * 1024 * 1024;
	smtp_message_init(m, &budget);
	buf_add(&m->memory, S("Received: us\r\n"));
	smtp_message_begin(m, fixing ? &fix : NULL);
	for (size_t at = 0; at < in.n && !err; at += piece) {
		buf_add(&m->memory, str_sub(in, at, piece));
		err = smtp_message_settle(m);
	}
	return err ? err : smtp_message_finish(m);
}

static void check(const char *name, str in, bool fixing, str want)
{
	tap_group(name);
	for (size_t piece = 1; piece <= in.n + 1; piece += in.n > 8 ? 3 : 1) {
		struct smtp_message m;

		EQ(gather(&m, in, piece, fixing), ERR_OK);
		EQ(smtp_message_size(&m), want.n);
		STR_EQ(smtp_message_inline(&m), want);
		smtp_message_free(&m);
	}
}

#define DATE "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
#define FROM "From: <alice@example.test>\r\n"
#define ID   "Message-ID: <id@example.test>\r\n"

static void test_header(void)
{
	check("nothing to fix", S("From: a\r\n\r\nbody\r\n"), false,
	      S("Received: us\r\nFrom: a\r\n\r\nbody\r\n"));
	check("all missing", S("Subject: x\r\n\r\nbody\r\n"), true,
	      S("Received: us\r\nSubject: x\r\n" DATE FROM ID "\r\nbody\r\n"));
	check("nothing missing", S("date: d\r\nFROM: f\r\nMessage-Id: <i>\r\n\r\nDate: y\r\n"),
	      true, S("Received: us\r\ndate: d\r\nFROM: f\r\nMessage-Id: <i>\r\n\r\nDate: y\r\n"));
	check("a name in a fold is none", S("From: a\r\n Date: b\r\n\r\n"), true,
	      S("Received: us\r\nFrom: a\r\n Date: b\r\n" DATE ID "\r\n"));
	check("header without end", S("From: a\r\nDate: b\r\n"), true,
	      S("Received: us\r\nFrom: a\r\nDate: b\r\n" ID));
	check("body alone", S("\r\nbody\r\n"), true,
	      S("Received: us\r\n" DATE FROM ID "\r\nbody\r\n"));
	check("no header", S("hello there\r\nFrom: me\r\n\r\nx\r\n"), false,
	      S("Received: us\r\n\r\nhello there\r\nFrom: me\r\n\r\nx\r\n"));
	check("first line is a continuation", S(" x: y\r\n\r\n"), false,
	      S("Received: us\r\n\r\n x: y\r\n\r\n"));
	check("mbox line", S("From a@b Thu\r\nTo: x\r\n\r\n"), false,
	      S("Received: us\r\nX-Mailbox-Line: From a@b Thu\r\nTo: x\r\n\r\n"));
	check("empty", S(""), false, S("Received: us\r\n"));
	check("one empty line", S("\r\n"), false, S("Received: us\r\n\r\n"));
}

/* The last line's end comes after all has been settled, as with BDAT. */
static void test_late_end(void)
{
	struct smtp_message m;

	tap_group("late end");
	smtp_message_init(&m, &budget);
	smtp_message_begin(&m, NULL);
	buf_add(&m.memory, S("no field"));
	EQ(smtp_message_settle(&m), ERR_OK);
	buf_add(&m.memory, S("\r\n"));
	EQ(smtp_message_finish(&m), ERR_OK);
	STR_EQ(smtp_message_inline(&m), S("\r\nno field\r\n"));
	smtp_message_free(&m);
}

static void test_hops(void)
{
	struct smtp_message m;

	tap_group("hops");
	EQ(gather(&m, S("Received: a\r\nX: Received: b\r\nreceived: c\r\n\r\nReceived: d\r\n"), 7,
		  false),
	   ERR_OK);
	EQ(m.hops, 2);
	smtp_message_free(&m);
}

static void test_large(void)
{
	struct buf in;

	buf_init(&in, 1024 * 1024);
	for (int over = -1; over <= 1; over++) {
		struct smtp_message m;
		uint64_t size = 0;
		char byte = 0;

		tap_group("inline limit");
		buf_clear(&in);
		buf_add(&in, S("X: y\r\n\r\n"));
		while (buf_len(&in) < (size_t)(MSG_INLINE_MAX + over) - 14)
			buf_add_char(&in, (char)('a' + buf_len(&in) % 26));
		EQ(gather(&m, buf_str(&in), 5000, false), ERR_OK);
		EQ(m.fd >= 0, over == 1);
		EQ(smtp_message_size(&m), MSG_INLINE_MAX + over);
		if (m.fd >= 0) {
			EQ(os_memfd_check(m.fd, &size), ERR_OK);
			EQ(size, MSG_INLINE_MAX + over);
			EQ(os_pread_all(m.fd, &byte, 1, size - 1), ERR_OK);
			EQ(byte, in.p[in.end - 1]);
			EQ(budget.used, size);
		}
		smtp_message_free(&m);
		EQ(budget.used, 0);
	}
	buf_free(&in);
}

static void test_limits(void)
{
	struct smtp_message m;
	struct buf in;

	tap_group("limits");
	buf_init(&in, 1024 * 1024);
	while (buf_len(&in) < SMTP_HEADER_MAX - 8)
		buf_add(&in, S("X: yyy\r\n"));
	EQ(gather(&m, buf_str(&in), 4096, false), ERR_OK);
	smtp_message_free(&m);
	buf_add(&in, S("X: yyyyyyyyyyyyy\r\n"));
	EQ(gather(&m, buf_str(&in), 4096, false), ERR_TOO_LONG);
	smtp_message_free(&m);
	buf_add(&in, S("\r\n"));

	smtp_message_init(&m, &budget);
	budget.max = 100000;
	smtp_message_begin(&m, NULL);
	buf_add(&m.memory, S("\r\n"));
	EQ(smtp_message_settle(&m), ERR_OK);
	buf_add(&m.memory, str_head(buf_str(&in), 60000));
	EQ(smtp_message_settle(&m), ERR_OK);
	buf_add(&m.memory, str_head(buf_str(&in), 60000));
	EQ(smtp_message_settle(&m), ERR_FULL);
	smtp_message_free(&m);
	EQ(budget.used, 0);
	buf_free(&in);
}

int main(void)
{
	test_header();
	test_late_end();
	test_hops();
	test_large();
	test_limits();
	return tap_done();
}
