/* Log lines: their form, what of the network's bytes is escaped, where they are cut; message ids at
 * their edges. */
#include "base/log.h"
#include "base/os.h"
#include "base/tap.h"

enum { LINE_MAX_ = 1900 };

struct test {
	struct log log;
	int fd[2];
	char line[8192];
};

static void set_up(struct test *t, enum log_target target, enum log_level level)
{
	log_init(&t->log, target, level, "front.0");
	EQ(os_socketpair(target == LOG_TO_SYSLOG, t->fd), ERR_OK);
	t->log.fd = t->fd[1];
}

static str take(struct test *t)
{
	size_t n;

	if (os_recv(t->fd[0], t->line, sizeof(t->line), &n))
		n = 0;
	return str_of(t->line, n);
}

static void tear_down(struct test *t)
{
	os_close(t->fd[0]);
	os_close(t->fd[1]);
}

/* 2026-11-22T03:10:15.123456Z */
static bool is_time(str s)
{
	const str shape = S("dddd-dd-ddTdd:dd:dd.ddddddZ ");

	if (s.n != shape.n)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (shape.p[i] == 'd' ? !ascii_is_digit(s.p[i]) : s.p[i] != shape.p[i])
			return false;
	return true;
}

static void test_targets(void)
{
	struct test t;
	str line;

	tap_group("standard error");
	set_up(&t, LOG_TO_STDERR, LOG_LEVEL_INFO);
	log_info(&t.log, "smtp-accepted", "from=<%s> size=%d", "a@example.org", 1234);
	line = take(&t);
	OK(is_time(str_head(line, 28)));
	STR_EQ(str_from(line, 28),
	       S("front.0 info smtp-accepted from=<a@example.org> size=1234\n"));
	tap_group("levels");
	log_debug(&t.log, "too-detailed", "n=%d", 1);
	log_write(&t.log, LOG_LEVEL_DEBUG, "too-detailed", "n=%d", 1);
	STR_EQ(take(&t), S(""));
	log_warn(&t.log, "w", "x=%d", 1);
	STR_EQ(str_from(take(&t), 28), S("front.0 warn w x=1\n"));
	log_error(&t.log, "e", "x=%d", 1);
	STR_EQ(str_from(take(&t), 28), S("front.0 error e x=1\n"));
	tear_down(&t);
	tap_group("journal");
	set_up(&t, LOG_TO_JOURNAL, LOG_LEVEL_DEBUG);
	log_error(&t.log, "e", "x=%d", 1);
	STR_EQ(take(&t), S("<3>front.0 error e x=1\n"));
	log_warn(&t.log, "e", "x=%d", 1);
	STR_EQ(take(&t), S("<4>front.0 warn e x=1\n"));
	log_info(&t.log, "e", "x=%d", 1);
	STR_EQ(take(&t), S("<6>front.0 info e x=1\n"));
	log_debug(&t.log, "e", "x=%d", 1);
	STR_EQ(take(&t), S("<7>front.0 debug e x=1\n"));
	tear_down(&t);
	tap_group("syslog");
	set_up(&t, LOG_TO_SYSLOG, LOG_LEVEL_DEBUG);
	log_error(&t.log, "e", "x=%d", 1); /* facility mail: 2 * 8 */
	STR_EQ(take(&t), S("<19>posthorn: front.0 error e x=1"));
	log_debug(&t.log, "e", "x=%d", 1);
	STR_EQ(take(&t), S("<23>posthorn: front.0 debug e x=1"));
	tear_down(&t);
}

static void test_escaping(void)
{
	struct test t;

	tap_group("escaping");
	set_up(&t, LOG_TO_JOURNAL, LOG_LEVEL_INFO);
	log_info(&t.log, "e", "helo=%s", "a\r\n<3>front.0 error forged\tx\x7f\x1b[31m\xc3\xa9~ ");
	STR_EQ(take(&t), S("<6>front.0 info e helo=a\\x0d\\x0a<3>front.0\\x20error\\x20"
			   "forged\\x09x\\x7f\\x1b[31m\\xc3\\xa9~\\x20\n"));
	log_info(&t.log, "e", "%s", "");
	STR_EQ(take(&t), S("<6>front.0 info e \n"));
	/* A client's words are one value, whatever stands in them. */
	log_info(&t.log, "e", "name=%.*s client=%s why=\"%s\" n=%d", 21, "x client=192.0.2.1 z!!",
		 "198.51.100.1", "no such\\ \" code=250", 7);
	STR_EQ(take(&t), S("<6>front.0 info e name=x\\x20client=192.0.2.1\\x20z! "
			   "client=198.51.100.1 why=\"no such\\x5c \\x22 code=250\" n=7\n"));
	tear_down(&t);
}

static void test_conversions(void)
{
	struct test t;

	tap_group("conversions");
	set_up(&t, LOG_TO_JOURNAL, LOG_LEVEL_INFO);
	log_info(&t.log, "e", "%d %u %zu %llu %lld %08x %016llx %02d 100%% %.*s<%c>", -1,
		 4000000000u, (size_t)1 << 40, 1ull << 63, -(1ll << 62), 0xabcu, 0x1234ull, 7, 3,
		 "abcd", 'c');
	STR_EQ(take(&t), S("<6>front.0 info e -1 4000000000 1099511627776 9223372036854775808 "
			   "-4611686018427387904 00000abc 0000000000001234 07 100% abc<c>\n"));
	tear_down(&t);
}

/* A value of n bytes 'v' (or n bytes that are escaped) makes one line, of LINE_MAX_ bytes at most,
 * that ends in a newline. */
static size_t line_of(struct test *t, size_t n, char c)
{
	static char value[4000];
	str line;

	memset(value, c, sizeof(value));
	log_info(&t->log, "e", "%.*s", (int)n, value);
	line = take(t);
	EQ(str_find_char(line, '\n'), line.n - 1);
	STR_EQ(take(t), S(""));
	return line.n;
}

static void test_limits(void)
{
	const size_t head = sizeof("<6>front.0 info e ") - 1;
	struct test t;
	size_t most;

	tap_group("limits");
	set_up(&t, LOG_TO_JOURNAL, LOG_LEVEL_INFO);
	EQ(line_of(&t, 1000, 'v'), head + 1000 + 1);
	most = line_of(&t, 3999, 'v');
	OK(most <= LINE_MAX_ && most > LINE_MAX_ - 20);
	EQ(line_of(&t, most - head - 2, 'v'), most - 1);
	EQ(line_of(&t, most - head - 1, 'v'), most);
	EQ(line_of(&t, most - head, 'v'), most);
	most = line_of(&t, 3999, '\n');
	OK(most <= LINE_MAX_ && most > LINE_MAX_ - 20);
	EQ((most - head - 1) % 4, 0); /* no half of an escape */
	log_init(&t.log, LOG_TO_JOURNAL, LOG_LEVEL_INFO,
		 "a-name-that-is-longer-than-what-is-kept-of-it");
	EQ(strlen(t.log.who), sizeof(t.log.who) - 1);
	tear_down(&t);
}

static void test_msgid(void)
{
	const int64_t second = 1800000000;
	struct msgid_source s = { .instance = MSGID_INSTANCE_MAX };
	char a[MSGID_TEXT + 1], b[MSGID_TEXT + 1];
	uint64_t last = 0, id, back;
	bool rises = true, same = true, sorts = true;

	tap_group("message ids");
	/* More in one second than its counter holds: they go on in the next. */
	for (int i = 0; i < 0x1000000 + 10; i++) {
		id = msgid_next(&s, second * 1000000);
		rises = rises && id > last;
		same = same && msgid_instance(id) == MSGID_INSTANCE_MAX;
		if (i % 100003 == 1)
			sorts = sorts && str_cmp(msgid_text(last, a), msgid_text(id, b)) < 0;
		last = id;
	}
	OK(rises);
	OK(same);
	OK(sorts);
	EQ(msgid_second(last), second + 1);
	EQ(msgid_parse(msgid_text(UINT64_MAX, a), &back), ERR_OK);
	OK(back == UINT64_MAX);
	EQ(msgid_parse(msgid_text(0, a), &back), ERR_OK);
	OK(back == 0);
	STR_EQ(msgid_text(0, a), S("0000000000000"));
	EQ(msgid_parse(S("0cw3z9k2m4xqa"), &back), ERR_OK);
	STR_EQ(msgid_text(back, a), S("0CW3Z9K2M4XQA"));
	EQ(msgid_parse(S("G000000000000"), &back), ERR_SYNTAX); /* 65 bits */
	EQ(msgid_parse(S("F000000000000"), &back), ERR_OK);
	EQ(msgid_parse(S("00000000000000"), &back), ERR_SYNTAX);
	EQ(msgid_parse(S("000000000000\0"), &back), ERR_SYNTAX);
}

int main(void)
{
	test_targets();
	test_escaping();
	test_conversions();
	test_limits();
	test_msgid();
	return tap_done();
}
