/* Collecting and parsing commands: the grammar of RFC 3501 9, one row an example. */
#include "imap/command.h"

#include "base/tap.h"
#include "imap/input.h"
#include "store/types.h"

/* ---- the collector ---- */

static enum imap_input_step feed(struct imap_input *in, const char *bytes)
{
	size_t used;

	return imap_input_feed(in, str_from_c(bytes), &used);
}

static void test_input(void)
{
	struct imap_input in;
	size_t used;

	tap_group("input");
	imap_input_init(&in);
	OK(imap_input_is_idle(&in));
	EQ(feed(&in, "a NO"), IMAP_INPUT_MORE);
	OK(!imap_input_is_idle(&in));
	EQ(feed(&in, "OP\r\n"), IMAP_INPUT_COMMAND);
	STR_EQ(in.text, S("a NOOP"));
	imap_input_next(&in);
	EQ(feed(&in, "a LOGIN {5}\r\n"), IMAP_INPUT_CONTINUE);
	EQ(feed(&in, "alice {6+}\r\nse\r\net\r\n"), IMAP_INPUT_COMMAND);
	STR_EQ(in.text, S("a LOGIN {5}\r\nalice {6+}\r\nse\r\net"));
	imap_input_next(&in);
	/* A command behind another is left. */
	EQ(imap_input_feed(&in, S("a NOOP\nb NOOP\r\n"), &used), IMAP_INPUT_COMMAND);
	EQ(used, 7);
	imap_input_next(&in);
	/* In quotes it is no literal. */
	EQ(feed(&in, "a SELECT \"x {5}\r\n"), IMAP_INPUT_COMMAND);
	imap_input_next(&in);
	in.is_raw = true;
	EQ(feed(&in, "DONE {3}\r\n"), IMAP_INPUT_COMMAND);
	STR_EQ(in.text, S("DONE {3}"));
	imap_input_free(&in);
}

static void test_append_input(void)
{
	struct imap_input in;

	tap_group("append input");
	imap_input_init(&in);
	EQ(feed(&in, "a append {5}\r\n"), IMAP_INPUT_CONTINUE);
	EQ(feed(&in, "INBOX (\\Seen) {310}\r\n"), IMAP_INPUT_MESSAGE);
	EQ(in.message_size, 310);
	OK(in.is_sync);
	imap_input_message_done(&in);
	EQ(feed(&in, " () {7+}\r\n"), IMAP_INPUT_MESSAGE);
	STR_EQ(in.text, S(" () {7+}"));
	OK(!in.is_sync);
	OK(!imap_input_refuse(&in));
	EQ(feed(&in, "xx\r\nxxx {5}\r\n"), IMAP_INPUT_COMMAND);
	imap_input_next(&in);
	EQ(feed(&in, "a APPEND INBOX {999}\r\n"), IMAP_INPUT_MESSAGE);
	OK(imap_input_refuse(&in));
	imap_input_free(&in);
}

static void test_limits(void)
{
	static char line[IMAP_LINE_MAX + 100];
	struct imap_input in;
	size_t used;

	tap_group("limits");
	memset(line, 'x', sizeof(line));
	imap_input_init(&in);
	memcpy(line + IMAP_LINE_MAX, "\r\n", 2);
	EQ(imap_input_feed(&in, str_of(line, IMAP_LINE_MAX + 2), &used), IMAP_INPUT_COMMAND);
	EQ(in.text.n, IMAP_LINE_MAX);
	imap_input_next(&in);
	memcpy(line + IMAP_LINE_MAX, "x\r\n", 3);
	EQ(imap_input_feed(&in, str_of(line, IMAP_LINE_MAX + 3), &used), IMAP_INPUT_TOO_LONG);
	imap_input_next(&in);
	EQ(feed(&in, "b NOOP\r\n"), IMAP_INPUT_COMMAND);
	imap_input_next(&in);
	/* The literal of an overlong line is not read as commands, wherever the pieces end. */
	memset(line, 'x', sizeof(line));
	EQ(imap_input_feed(&in, str_of(line, sizeof(line)), &used), IMAP_INPUT_MORE);
	EQ(feed(&in, " {1"), IMAP_INPUT_MORE);
	EQ(feed(&in, "0+}\r\n"), IMAP_INPUT_MORE);
	EQ(feed(&in, "a LOGOUT\r\n\r\n"), IMAP_INPUT_TOO_LONG);
	imap_input_next(&in);
	EQ(feed(&in, "a LOGIN {70000}\r\n"), IMAP_INPUT_TOO_LONG);
	imap_input_next(&in);
	EQ(feed(&in, "a LOGIN {70000+}\r\n"), IMAP_INPUT_MORE);
	EQ(imap_input_feed(&in, str_of(line, 60000), &used), IMAP_INPUT_MORE);
	EQ(imap_input_feed(&in, str_of(line, 10000), &used), IMAP_INPUT_MORE);
	EQ(feed(&in, " x\r\n"), IMAP_INPUT_TOO_LONG);
	imap_input_next(&in);
	/* What a command threw away is not held against the next one. */
	for (int i = 0; i < 20; i++) {
		EQ(feed(&in, "a LOGIN {100000+}\r\n"), IMAP_INPUT_MORE);
		EQ(imap_input_feed(&in, str_of(line, 60000), &used), IMAP_INPUT_MORE);
		EQ(imap_input_feed(&in, str_of(line, 40000), &used), IMAP_INPUT_MORE);
		EQ(feed(&in, "\r\n"), IMAP_INPUT_TOO_LONG);
		imap_input_next(&in);
	}
	EQ(feed(&in, "a LOGIN {4294967296}\r\n"), IMAP_INPUT_TOO_LONG);
	imap_input_next(&in);
	EQ(feed(&in, "a APPEND x {99999999999999999999+}\r\n"), IMAP_INPUT_MESSAGE);
	OK(!imap_input_refuse(&in));
	imap_input_next(&in);
	EQ(feed(&in, "a LOGIN {2000000+}\r\n"), IMAP_INPUT_MORE);
	for (used = 1; used && imap_input_feed(&in, str_of(line, 60000), &used) == IMAP_INPUT_MORE;)
		;
	EQ(imap_input_feed(&in, str_of(line, 60000), &used), IMAP_INPUT_FLOOD);
	imap_input_free(&in);
}

/* ---- the parser ---- */

static struct arena *arena;
static struct imap_command command;

static enum err parse(const char *text)
{
	const char *wrong;

	arena_reset(arena);
	return imap_command_parse(str_from_c(text), arena, &command, &wrong);
}

static const char *const good[] = {
	"a001 LOGIN SMITH SESAME",
	"a CAPABILITY ",
	"a noop",
	"a ID NIL",
	"a ID (\"name\" \"sodr\" \"version\" NIL)",
	"a ID ()",
	"A01 AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=",
	"A01 AUTHENTICATE PLAIN =",
	"a ENABLE CONDSTORE X-GOOD-IDEA",
	"A142 SELECT INBOX",
	"A003 CREATE owatagusiam/",
	"a CREATE x (USE (\\Drafts))",
	"A683 RENAME blurdybloop sarasoop",
	"A101 LIST \"\" \"\"",
	"A682 LIST ~/Mail/ %",
	"a LIST \"\" * RETURN (SPECIAL-USE STATUS (MESSAGES UNSEEN))",
	"A002 LSUB \"#news.\" \"comp.mail.*\"",
	"A042 STATUS blurdybloop (UIDNEXT MESSAGES)",
	"A202 EXPUNGE",
	"A202 UID EXPUNGE 3000:3002",
	"A282 SEARCH FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
	"A284 SEARCH CHARSET UTF-8 TEXT {6}\r\nXXXXXX",
	"a SEARCH (OR (1:3 UNSEEN) NOT (DELETED)) HEADER X-Spam \"\"",
	"a UID SEARCH UID 1:* KEYWORD $Junk LARGER 100",
	"A654 FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])",
	"a FETCH 1 FULL",
	"a FETCH 1,3,5:* (UID BODY.PEEK[1.2.MIME]<0.10> RFC822.SIZE BODY)",
	"A003 STORE 2:4 +FLAGS (\\Deleted)",
	"a STORE 1 -FLAGS.SILENT \\Seen work",
	"a STORE 1 FLAGS ()",
	"A003 COPY 2:4 MEETING",
	"a UID MOVE 42:69 foo",
	"a APPEND saved {310}",
	/* More spaces than the grammar has. */
	"a FETCH  1  (UID  FLAGS )",
	"a STORE 1 +FLAGS  (\\Seen  work )",
	"a UID SEARCH  UNSEEN  (SEEN  1 ) ",
	"a FETCH 1 BODY[HEADER.FIELDS (a  b )]",
	"a STATUS  x (MESSAGES  UNSEEN )",
	"a LIST  \"\"  *  ",
};

static const char *const bad[] = {
	"",
	" ",
	"a",
	"a ",
	"+ NOOP",
	"a BOGUS",
	"a UID NOOP",
	"a UID",
	"a NOOP x",
	"a LOGIN x",
	"a LOGIN (x y",
	"a SELECT",
	"a SELECT \"x",
	"a SELECT {5}\r\nINB",
	"a SELECT a b",
	"a STATUS x ()",
	"a STATUS x (BOGUS)",
	"a STATUS x MESSAGES",
	"a FETCH",
	"a FETCH 0 FLAGS",
	"a FETCH 1: FLAGS",
	"a FETCH 1,,2 FLAGS",
	"a FETCH 01 FLAGS",
	"a FETCH 4294967296 FLAGS",
	"a FETCH 1 ()",
	"a FETCH 1 (ALL)",
	"a FETCH 1 BODY[",
	"a FETCH 1 BODY[0]",
	"a FETCH 1 BODY[MIME]",
	"a FETCH 1 BODY[HEADER.FIELDS ()]",
	"a FETCH 1 BODY[]<1>",
	"a FETCH 1 BODY[]<1.0>",
	"a FETCH 1 BODY.PEEK",
	"a FETCH 1 (FLAGS",
	"a FETCH 1 FLAGS)",
	"a STORE 1 FLAGS",
	"a STORE 1 BOGUS (x)",
	"a STORE 1 FLAGS (\\Bogus)",
	"a STORE 1 FLAGS (\\Recent)",
	"a STORE 1 FLAGS (a",
	"a SEARCH",
	"a SEARCH BOGUS",
	"a SEARCH OR ALL",
	"a SEARCH (ALL",
	"a SEARCH ON 31-Foo-1994",
	"a SEARCH LARGER x",
	"a SEARCH NOT",
	"a EXPUNGE 1",
	"a UID EXPUNGE",
	"a COPY 1",
	"a ID",
	"a ID (\"x\")",
	"a ENABLE",
	"a LIST \"\"",
	"a LIST \"\" * RETURN (BOGUS)",
	"a APPEND x",
	"a CREATE x (BOGUS)",
};

static void test_grammar(void)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		tap_group(good[i]);
		EQ(parse(good[i]), ERR_OK);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		tap_group(bad[i]);
		EQ(parse(bad[i]), ERR_SYNTAX);
	}
}

/* RFC 3501 9: no NUL, CR or LF in a quoted string, behind a backslash neither. */
static void test_quoted(void)
{
	static const char bytes[] = { 0, '\r', '\n' };
	char plain[] = "a LOGIN \"x_\" y", escaped[] = "a LOGIN \"x\\_\" y";
	const char *wrong;

	tap_group("quoted");
	for (size_t i = 0; i < sizeof(bytes); i++) {
		plain[10] = escaped[11] = bytes[i];
		EQ(imap_command_parse(str_of(plain, sizeof(plain) - 1), arena, &command, &wrong),
		   ERR_SYNTAX);
		EQ(imap_command_parse(str_of(escaped, sizeof(escaped) - 1), arena, &command,
				      &wrong),
		   ERR_SYNTAX);
	}
}

static void test_values(void)
{
	tap_group("values");
	EQ(parse("A1 LOGIN \"a\\\"b\" {3+}\r\nx y"), ERR_OK);
	STR_EQ(command.tag, S("A1"));
	STR_EQ(command.user, S("a\"b"));
	STR_EQ(command.password, S("x y"));
	EQ(parse("a SELECT inBox/Foo"), ERR_OK);
	STR_EQ(command.mailbox, S("INBOX/Foo"));
	EQ(parse("a SELECT &AOQ-"), ERR_OK);
	STR_EQ(command.mailbox, S("\303\244"));
	OK(command.mailbox_is_valid);
	EQ(parse("a SELECT &AOQ"), ERR_OK);
	OK(!command.mailbox_is_valid);
	EQ(parse("a CREATE foo/"), ERR_OK);
	STR_EQ(command.mailbox, S("foo"));
	EQ(parse("a CREATE foo (USE (\\Sent))"), ERR_OK);
	EQ(command.special, MAILBOX_SENT);
	EQ(parse("a CREATE foo (USE (\\Flagged))"), ERR_OK);
	OK(command.special_is_unknown);
	EQ(parse("a UID STORE 5 -FLAGS.SILENT (\\Seen foo FOO)"), ERR_OK);
	OK(command.is_uid && command.is_silent);
	EQ(command.mode, IMAP_FLAGS_REMOVE);
	EQ(command.set_flags.system, MSG_FLAG_SEEN);
	EQ(command.set_flags.count, 1);
	EQ(parse("a FETCH 1 BODY.PEEK[1.HEADER.FIELDS (From \"a b\")]<5.7>"), ERR_OK);
	STR_EQ(command.fetch.sections->label, S("BODY[1.HEADER.FIELDS (FROM {3}\r\nA B)]<5>"));
	OK(command.fetch.sections->is_peek);
	EQ(command.fetch.sections->count, 7);
	EQ(parse("a FETCH 1 RFC822.TEXT"), ERR_OK);
	STR_EQ(command.fetch.sections->label, S("RFC822.TEXT"));
	OK(!command.fetch.sections->is_peek);
}

static void test_sets(void)
{
	static const struct {
		const char *text;
		uint32_t max;
		const char *resolved;
	} rows[] = {
		{ "1", 9, "1" },	   { "3:1", 9, "1:3" },
		{ "*", 9, "9" },	   { "5:*,1", 9, "1,5:9" },
		{ "2:4,3:6,7", 9, "2:7" }, { "*:4", 2, "2:4" },
		{ "1:*", 0, "" },	   { "4294967295", 9, "4294967295" },
		{ "1,1,1", 9, "1" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct imap_set set;
		struct buf b;

		tap_group(rows[i].text);
		buf_init(&b, 1000);
		EQ(imap_set_parse(str_from_c(rows[i].text), arena, &set), ERR_OK);
		imap_set_resolve(&set, rows[i].max);
		imap_set_write(&set, &b);
		STR_EQ(buf_str(&b), str_from_c(rows[i].resolved));
		buf_free(&b);
	}
}

static void test_append_part(void)
{
	struct imap_append_part part;
	const char *wrong;

	tap_group("append part");
	EQ(imap_parse_append_part(S("a APPEND x (\\Seen) \"25-Jan-1994 20:00:00 +0100\" {3}"), true,
				  arena, &part, &wrong),
	   ERR_OK);
	EQ(part.flags.system, MSG_FLAG_SEEN);
	EQ(part.zone, 60);
	EQ(part.seconds, 759524400);
	EQ(imap_parse_append_part(S(" {3+}"), false, arena, &part, &wrong), ERR_OK);
	EQ(imap_parse_append_part(S("{3+}"), false, arena, &part, &wrong), ERR_SYNTAX);
	EQ(imap_parse_append_part(S("a APPEND x {1}{3+}"), true, arena, &part, &wrong), ERR_SYNTAX);
	EQ(imap_parse_append_part(S("a APPEND x \"nonsense\" {3}"), true, arena, &part, &wrong),
	   ERR_SYNTAX);
	EQ(imap_parse_append_part(S("a APPEND x (\\Seen){3}"), true, arena, &part, &wrong),
	   ERR_SYNTAX);
}

static void test_depth(void)
{
	char text[1000] = "a SEARCH ";
	size_t n = strlen(text);

	tap_group("depth");
	for (int i = 0; i < IMAP_SEARCH_DEPTH_MAX; i++)
		text[n++] = '(';
	text[n] = 0;
	EQ(parse(text), ERR_SYNTAX);
	EQ(parse("a SEARCH ((((((((((ALL))))))))))"), ERR_OK);
}

int main(void)
{
	arena = arena_new(IMAP_COMMAND_BUDGET);
	test_input();
	test_append_input();
	test_limits();
	test_grammar();
	test_quoted();
	test_values();
	test_sets();
	test_append_part();
	test_depth();
	arena_free(arena);
	return tap_done();
}
