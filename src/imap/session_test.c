/* IMAP sessions over the real store engine: the examples of RFC 3501 and what two connections see
 * of each other. */
#include "imap/session_fake.h"
#include "imap/session_priv.h"

static bool has(str s, const char *what)
{
	bool found = str_find(s, str_from_c(what)) != STR_NONE;

	if (!found)
		tap_str("got", s);
	return found;
}

static bool lacks(str s, const char *what)
{
	bool found = str_find(s, str_from_c(what)) != STR_NONE;

	if (found)
		tap_str("got", s);
	return !found;
}

#define HAS(s, what)   OK(has((s), (what)))
#define LACKS(s, what) OK(lacks((s), (what)))

static const char mail[] =
	"From: Alice <alice@example.org>\r\nTo: bob@example.test\r\n"
	"Subject: Hello =?utf-8?q?W=C3=B6rld?=\r\n"
	"Date: Mon, 7 Feb 1994 21:52:25 -0800\r\nMessage-ID: <1@example.org>\r\n\r\n"
	"First line\r\nzanzibar here\r\n";

static str append(struct world *w, unsigned n, const char *mailbox, const char *options,
		  const char *text)
{
	char command[4096];

	snprintf(command, sizeof(command), "ap APPEND %s %s{%zu+}\r\n%s", mailbox, options,
		 strlen(text), text);
	return talk(w, n, command);
}

static void basics(struct world *w)
{
	tap_group("basics");
	fake_connect(w, 0);
	HAS(talk(w, 0, "a CAPABILITY"), "* CAPABILITY IMAP4rev1 ");
	HAS(talk(w, 0, "b NOOP"), "b OK ");
	HAS(talk(w, 0, "c FETCH 1 FLAGS"), "c BAD No mailbox selected.");
	HAS(talk(w, 0, "d NAMESPACE"), "* NAMESPACE ((\"\" \"/\")) NIL NIL\n");
	HAS(talk(w, 0, "e BOGUS"), "e BAD ");
	HAS(talk(w, 0, "f LOGIN a b"), "f BAD ");
	HAS(talk(w, 0, "g LIST \"\" \"*\""), "* LIST (\\HasNoChildren) \"/\" INBOX\n");
	HAS(buf_str(&w->got), "\\Sent) \"/\" Sent\n");
	HAS(talk(w, 0, "h LIST \"\" \"\""), "* LIST (\\Noselect) \"/\" \"\"\n");
	HAS(talk(w, 0, "i SELECT inbox"), "* 0 EXISTS\n* 0 RECENT\n");
	HAS(buf_str(&w->got), "* OK [UIDNEXT 1] ");
	HAS(buf_str(&w->got), "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\n");
	HAS(buf_str(&w->got), "\\*)] ");
	HAS(buf_str(&w->got), "i OK [READ-WRITE] ");
	HAS(talk(w, 0, "j SELECT nowhere"), "j NO [NONEXISTENT] ");
	/* RFC 3501 6.3.1: a SELECT that fails leaves nothing selected. */
	HAS(talk(w, 0, "k CHECK"), "k BAD ");
	HAS(talk(w, 0, "l LOGOUT"), "* BYE ");
	OK(w->ended == 1);
}

static void mailboxes(struct world *w)
{
	tap_group("mailboxes");
	fake_connect(w, 0);
	HAS(talk(w, 0, "a CREATE owatagusiam/blurdybloop"), "a OK ");
	HAS(talk(w, 0, "b LIST \"\" owatagusiam/%"),
	    "* LIST (\\HasNoChildren) \"/\" owatagusiam/blurdybloop\n");
	HAS(talk(w, 0, "c LIST \"\" owatagusiam"), "* LIST (\\HasChildren) \"/\" owatagusiam\n");
	HAS(talk(w, 0, "d CREATE owatagusiam"), "d NO [ALREADYEXISTS] ");
	HAS(talk(w, 0, "e DELETE INBOX"), "e NO [CANNOT] ");
	HAS(talk(w, 0, "f DELETE none"), "f NO [NONEXISTENT] ");
	HAS(talk(w, 0, "g CREATE \"&AOQ-/x\""), "g OK ");
	HAS(talk(w, 0, "h LIST \"\" \"&AOQ-*\""), "\"/\" &AOQ-/x\n");
	HAS(talk(w, 0, "i CREATE \"&bad\""), "i NO [CANNOT] ");
	HAS(talk(w, 0, "j CREATE a//b"), "j NO [CANNOT] ");
	HAS(talk(w, 0, "k SUBSCRIBE owatagusiam/blurdybloop"), "k OK ");
	HAS(talk(w, 0, "l LSUB \"\" \"owa%\""),
	    "* LSUB (\\Noselect \\HasChildren) \"/\" owatagusiam\n");
	HAS(talk(w, 0, "m LSUB \"\" owatagusiam/*"),
	    "* LSUB (\\HasNoChildren) \"/\" owatagusiam/blurdybloop\n");
	HAS(talk(w, 0, "n UNSUBSCRIBE owatagusiam/blurdybloop"), "n OK ");
	LACKS(talk(w, 0, "o LSUB \"\" owatagusiam/*"), "blurdybloop\n");
	HAS(talk(w, 0, "p RENAME owatagusiam other"), "p OK ");
	HAS(talk(w, 0, "q LIST \"\" *"), "\"/\" other/blurdybloop\n");
	HAS(talk(w, 0, "r DELETE other"), "r OK ");
	HAS(talk(w, 0, "s LIST \"\" other"), "* LIST (\\Noselect \\HasChildren) \"/\" other\n");
	HAS(talk(w, 0, "t SELECT other"), "t NO ");
	HAS(talk(w, 0, "u STATUS Sent (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)"),
	    "* STATUS Sent (MESSAGES 0 RECENT 0 UIDNEXT 1 UIDVALIDITY ");
	HAS(talk(w, 0, "v CREATE Mine (USE (\\Archive))"), "v ");
	HAS(talk(w, 0, "x LIST \"\" % RETURN (STATUS (MESSAGES))"),
	    "* STATUS INBOX (MESSAGES 0)\n");
}

static void messages(struct world *w)
{
	str got;

	tap_group("append");
	fake_connect(w, 0);
	HAS(append(w, 0, "nowhere", "", mail), "ap NO [TRYCREATE] ");
	HAS(append(w, 0, "INBOX", "(\\Seen $Work) \" 7-Feb-1994 21:52:25 -0800\" ", mail),
	    "ap OK [APPENDUID ");
	HAS(talk(w, 0, "a SELECT INBOX"), "* 1 EXISTS\n* 1 RECENT\n");
	HAS(buf_str(&w->got), "$Work");
	HAS(append(w, 0, "INBOX", "", mail), "* 2 EXISTS\n");
	tap_group("fetch");
	got = talk(w, 0, "b FETCH 1:2 (UID FLAGS INTERNALDATE RFC822.SIZE)");
	HAS(got, "* 1 FETCH (UID 1 FLAGS (\\Seen $Work \\Recent) INTERNALDATE \" 7-Feb-1994 "
		 "21:52:25 -0800\" RFC822.SIZE ");
	HAS(talk(w, 0, "c FETCH 1 ENVELOPE"),
	    "ENVELOPE ("
	    "\"Mon, 7 Feb 1994 21:52:25 -0800\" \"Hello =?utf-8?q?W=C3=B6rld?=\" ((\"Alice\" NIL "
	    "\"alice\" \"example.org\"))");
	HAS(talk(w, 0, "d FETCH 1 BODYSTRUCTURE"), "BODYSTRUCTURE (\"text\" \"plain\" ");
	HAS(talk(w, 0, "e FETCH 1 BODY"), "BODY (\"text\" \"plain\" ");
	HAS(talk(w, 0, "f FETCH 1 BODY[]"), mail);
	HAS(talk(w, 0, "g FETCH 1 BODY.PEEK[TEXT]<0.5>"), "BODY[TEXT]<0> {5}\nFirst)");
	HAS(talk(w, 0, "h FETCH 1 BODY.PEEK[HEADER.FIELDS (subject)]"),
	    "BODY[HEADER.FIELDS (SUBJECT)] {41}\nSubject: Hello =?utf-8?q?W=C3=B6rld?=\r\n\r\n)");
	HAS(talk(w, 0, "i FETCH 1 RFC822.HEADER"), "RFC822.HEADER {");
	HAS(talk(w, 0, "j FETCH 1 BODY.PEEK[1]"), "BODY[1] {");
	HAS(talk(w, 0, "k FETCH 1 BODY.PEEK[2]"), "BODY[2] NIL");
	HAS(talk(w, 0, "l FETCH 3 FLAGS"), "l BAD ");
	HAS(talk(w, 0, "m UID FETCH 99 FLAGS"), "m OK ");
	LACKS(talk(w, 0, "n FETCH 2 BODY.PEEK[]"), "FLAGS");
	HAS(talk(w, 0, "o FETCH 2 BODY[]"), "FLAGS (\\Seen \\Recent)");
	LACKS(talk(w, 0, "p NOOP"), "FETCH");
	tap_group("store");
	HAS(talk(w, 0, "a STORE 1 +FLAGS (\\Deleted)"),
	    "* 1 FETCH (FLAGS (\\Deleted \\Seen $Work \\Recent))\n");
	LACKS(talk(w, 0, "b STORE 2 FLAGS.SILENT (\\Flagged new)"), "* 2 FETCH");
	HAS(talk(w, 0, "c UID FETCH 2 FLAGS"),
	    "* 2 FETCH (UID 2 FLAGS (\\Flagged new \\Recent))\n");
	HAS(talk(w, 0, "d STORE 2 -FLAGS.SILENT (\\Flagged)"), "d OK ");
	HAS(talk(w, 0, "e STORE 2 +FLAGS (\\Recent)"), "e BAD ");
	tap_group("search");
	HAS(talk(w, 0, "a SEARCH ALL"), "* SEARCH 1 2\n");
	HAS(talk(w, 0, "b SEARCH DELETED"), "* SEARCH 1\n");
	HAS(talk(w, 0, "c SEARCH NOT KEYWORD $work"), "* SEARCH 2\n");
	HAS(talk(w, 0, "d SEARCH SUBJECT \"w\303\266RLD\""), "* SEARCH 1 2\n");
	HAS(talk(w, 0, "e SEARCH CHARSET ISO-8859-1 SUBJECT \"W\326rld\""), "* SEARCH 1 2\n");
	HAS(talk(w, 0, "f SEARCH CHARSET bogus ALL"), "f NO [BADCHARSET ");
	HAS(talk(w, 0, "g SEARCH BODY ZANZIBAR SMALLER 100000"), "* SEARCH 1 2\n");
	HAS(talk(w, 0, "h SEARCH BODY alice"), "* SEARCH\n");
	HAS(talk(w, 0, "i SEARCH TEXT alice"), "* SEARCH 1 2\n");
	HAS(talk(w, 0, "j SEARCH OR (ON 7-Feb-1994) UID 77 SENTON 7-Feb-1994"), "* SEARCH 1\n");
	HAS(talk(w, 0, "k SEARCH 5"), "* SEARCH\n");
	tap_group("copy, move, expunge");
	HAS(talk(w, 0, "a COPY 1:2 nowhere"), "a NO [TRYCREATE] ");
	HAS(talk(w, 0, "b COPY 1:2 Trash"), "b OK [COPYUID ");
	HAS(buf_str(&w->got), " 1:2 1:2] ");
	HAS(talk(w, 0, "c STATUS Trash (MESSAGES UIDNEXT)"), "(MESSAGES 2 UIDNEXT 3)");
	HAS(talk(w, 0, "d EXPUNGE"), "* 1 EXPUNGE\n");
	HAS(talk(w, 0, "e FETCH 1 UID"), "* 1 FETCH (UID 2)\n");
	got = talk(w, 0, "f MOVE 1 Sent");
	HAS(got, "* OK [COPYUID ");
	HAS(got, "* 1 EXPUNGE\nf OK ");
	HAS(talk(w, 0, "g SELECT Trash"), "* 2 EXISTS\n");
	HAS(talk(w, 0, "h STORE 1 +FLAGS \\Deleted"), "h OK ");
	HAS(talk(w, 0, "i UID EXPUNGE 2"), "i OK ");
	LACKS(buf_str(&w->got), "EXPUNGE\n");
	LACKS(talk(w, 0, "j CLOSE"), "* 1 EXPUNGE");
	HAS(talk(w, 0, "k STATUS Trash (MESSAGES)"), "(MESSAGES 1)");
	HAS(talk(w, 0, "l EXAMINE Trash"), "l OK [READ-ONLY] ");
	HAS(talk(w, 0, "m STORE 1 +FLAGS (\\Seen)"), "m NO [READ-ONLY] ");
	HAS(talk(w, 0, "n UNSELECT"), "n OK ");
}

/* What is stored has CRLF and no NUL, however it came. */
static void raw_append(struct world *w)
{
	tap_group("raw append");
	fake_connect(w, 0);
	buf_clear(&w->got);
	fake_write(w, 0, S("a APPEND INBOX {14+}\r\n\nS: x\n\na\0b\r\nc\n\r\n"));
	OK(fake_read_until(w, 0, "a OK "));
	talk(w, 0, "b SELECT INBOX");
	HAS(talk(w, 0, "c FETCH 1 (RFC822.SIZE BODY.PEEK[])"),
	    "RFC822.SIZE 18 BODY[] {18}\n\r\nS: x\r\n\r\na\x80"
	    "b\r\nc\r\n)");
}

static void multiappend(struct world *w)
{
	static const char text[] = "Subject: x\r\n\r\nbody\r\n";
	char command[1024];

	tap_group("multiappend");
	fake_connect(w, 0);
	snprintf(command, sizeof(command), "a APPEND Sent () {%zu+}\r\n%s (\\Seen) {%zu+}\r\n%s",
		 strlen(text), text, strlen(text), text);
	HAS(talk(w, 0, command), "a OK [APPENDUID ");
	HAS(buf_str(&w->got), " 1:2] ");
	snprintf(command, sizeof(command), "b APPEND Sent () {%zu+}\r\n%s (\\Bogus) {%zu+}\r\n%s",
		 strlen(text), text, strlen(text), text);
	HAS(talk(w, 0, command), "b BAD ");
	HAS(talk(w, 0, "c STATUS Sent (MESSAGES)"), "(MESSAGES 2)");
	/* A literal that waits for "+" is refused without it. */
	HAS(talk(w, 0, "d APPEND Sent {400000}"), "d NO [LIMIT] ");
	HAS(talk(w, 0, "e APPEND nowhere {10}"), "e NO [TRYCREATE] ");
	HAS(talk(w, 0, "f APPEND Sent"), "f BAD ");
	HAS(talk(w, 0, "g NOOP"), "g OK ");
}

static void large_message(struct world *w)
{
	enum { SIZE = 200000 };
	char *text = malloc(SIZE + 1);
	char begin[100];
	str got;
	size_t n = 0;

	tap_group("large message");
	n = (size_t)snprintf(text, SIZE, "Subject: large\r\n\r\n");
	for (; n + 12 <= SIZE; n += 12)
		snprintf(text + n, 13, "%010zu\r\n", n);
	fake_connect(w, 0);
	snprintf(begin, sizeof(begin), "a APPEND INBOX {%zu}\r\n", n);
	buf_clear(&w->got);
	fake_write(w, 0, str_from_c(begin));
	OK(fake_read_until(w, 0, "+ OK"));
	fake_write(w, 0, str_of(text, n));
	fake_write(w, 0, S("\r\n"));
	OK(fake_read_until(w, 0, "a OK "));
	talk(w, 0, "b SELECT INBOX");
	got = talk(w, 0, "c FETCH 1 BODY.PEEK[]");
	OK(str_find(got, str_of(text, n)) != STR_NONE);
	HAS(talk(w, 0, "d FETCH 1 BODY.PEEK[]<131070.14>"), "{14}");
	OK(str_find(buf_str(&w->got), str_of(text + 131070, 14)) != STR_NONE);
	free(text);
}

/* As many as segments are needed for, and away again. */
static void rubbish_add(struct world *w)
{
	enum { MESSAGES = 45, SIZE = 200000 };
	char *text = malloc(SIZE);

	memset(text, 'x', SIZE);
	for (unsigned i = 0; i < MESSAGES; i++) {
		buf_clear(&w->got);
		fake_write(w, 0, S("r APPEND Trash (\\Deleted) {200000+}\r\n"));
		fake_write(w, 0, str_of(text, SIZE));
		fake_write(w, 0, S("\r\n"));
		OK(fake_read_until(w, 0, "r OK "));
	}
	free(text);
	HAS(talk(w, 0, "s SELECT Trash"), "s OK ");
	HAS(talk(w, 0, "t CLOSE"), "t OK ");
}

/* The store moves what a session has read already, and gives back the segments. */
static void compacted(struct world *w)
{
	struct store_limits limits = { .percent = 90 };

	tap_group("compacted");
	fake_connect(w, 0);
	append(w, 0, "INBOX", "", mail);
	append(w, 0, "INBOX", "", mail);
	HAS(talk(w, 0, "a SELECT INBOX"), "* 2 EXISTS");
	HAS(talk(w, 0, "b FETCH 1:2 BODY.PEEK[TEXT]"), "* 2 FETCH (BODY[TEXT] {27}\n");
	HAS(talk(w, 0, "c UNSELECT"), "c OK ");
	rubbish_add(w);
	store_set_limits(w->store, &limits);
	EQ(store_checkpoint(w->store), ERR_OK);
	EQ(store_compact(w->store), ERR_OK);
	OK(store_compact_freed(w->store) > 0);
	/* As if other segments had been read since. */
	for (size_t i = 0; i < IMAP_SEGMENTS_MAX; i++) {
		os_close(w->account->segments[i].fd);
		w->account->segments[i].fd = -1;
	}
	HAS(talk(w, 0, "d SELECT INBOX"), "* 2 EXISTS");
	HAS(talk(w, 0, "e FETCH 1:2 BODY.PEEK[TEXT]"), "e OK ");
	HAS(buf_str(&w->got), "* 1 FETCH (BODY[TEXT] {27}\n");
	HAS(buf_str(&w->got), "* 2 FETCH (BODY[TEXT] {27}\n");
}

static void two_connections(struct world *w)
{
	str got;

	tap_group("two connections");
	fake_connect(w, 0);
	fake_connect(w, 1);
	append(w, 0, "INBOX", "", mail);
	append(w, 0, "INBOX", "", mail);
	append(w, 0, "INBOX", "", mail);
	HAS(talk(w, 0, "a SELECT INBOX"), "* 3 EXISTS\n* 3 RECENT\n");
	/* RFC 3501 2.3.2: recent to the first that selected it. */
	HAS(talk(w, 1, "a SELECT INBOX"), "* 3 EXISTS\n* 0 RECENT\n");
	HAS(talk(w, 0, "b STORE 2 +FLAGS (\\Answered)"), "b OK ");
	HAS(talk(w, 1, "b NOOP"), "* 2 FETCH (FLAGS (\\Answered))\n");
	LACKS(talk(w, 1, "c NOOP"), "* 2 FETCH");
	HAS(talk(w, 0, "c STORE 1,3 +FLAGS.SILENT (\\Deleted)"), "c OK ");
	HAS(talk(w, 0, "d EXPUNGE"), "* 3 EXPUNGE\n* 1 EXPUNGE\n");
	/* RFC 3501 7.4.1: not during FETCH; the numbers mean what they did. */
	got = talk(w, 1, "d FETCH 2 UID");
	HAS(got, "* 2 FETCH (UID 2)\n");
	LACKS(got, "EXPUNGE");
	HAS(talk(w, 1, "e FETCH 1:3 FLAGS"), "e NO [EXPUNGEISSUED] ");
	HAS(talk(w, 1, "f NOOP"), "* 3 EXPUNGE\n* 1 EXPUNGE\n");
	HAS(talk(w, 1, "g FETCH 1 UID"), "* 1 FETCH (UID 2)\n");
	tap_group("idle");
	buf_clear(&w->got);
	fake_write(w, 1, S("i IDLE\r\n"));
	OK(fake_read_until(w, 1, "+ "));
	append(w, 0, "INBOX", "", mail);
	OK(fake_read_until(w, 1, "* 2 EXISTS"));
	HAS(talk(w, 0, "j STORE 1 +FLAGS (\\Flagged)"), "j OK ");
	buf_clear(&w->got);
	OK(fake_read_until(w, 1, "* 1 FETCH (FLAGS (\\Answered \\Flagged))"));
	HAS(talk(w, 0, "k MOVE 1 Trash"), "k OK ");
	buf_clear(&w->got);
	OK(fake_read_until(w, 1, "* 1 EXPUNGE"));
	fake_write(w, 1, S("DONE\r\n"));
	OK(fake_read_until(w, 1, "i OK "));
	tap_group("deleted under us");
	HAS(talk(w, 0, "l CREATE Gone"), "l OK ");
	HAS(talk(w, 1, "l SELECT Gone"), "l OK ");
	HAS(talk(w, 0, "m DELETE Gone"), "m OK ");
	buf_clear(&w->got);
	fake_write(w, 1, S("n NOOP\r\n"));
	OK(fake_read_until(w, 1, "* BYE "));
}

/* RFC 3501 6.3.4 says nothing of it; no mailbox is selected afterwards, and the connection lives.
 */
static void deleted_by_us(struct world *w)
{
	tap_group("deleted by us");
	fake_connect(w, 0);
	HAS(talk(w, 0, "a CREATE Gone"), "a OK ");
	HAS(talk(w, 0, "b SELECT Gone"), "b OK ");
	LACKS(talk(w, 0, "c DELETE Gone"), "BYE");
	HAS(buf_str(&w->got), "c OK ");
	HAS(talk(w, 0, "d FETCH 1 FLAGS"), "d BAD No mailbox selected.");
}

/* What the account remembers of a mailbox goes with it. */
static void deleted_often(struct world *w)
{
	unsigned views = 0;

	tap_group("deleted often");
	fake_connect(w, 0);
	for (unsigned i = 0; i < 5; i++) {
		HAS(talk(w, 0, "a CREATE Gone"), "a OK ");
		HAS(talk(w, 0, "b SELECT Gone"), "b OK ");
		HAS(talk(w, 0, "c UNSELECT"), "c OK ");
		HAS(talk(w, 0, "d DELETE Gone"), "d OK ");
		HAS(talk(w, 0, "e LIST \"\" *"), "e OK ");
	}
	for (const struct imap_view *v = w->account->views; v; v = v->next)
		views++;
	EQ(views, 0);
}

static void stored(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	(void)reply;
	*(enum err *)arg = err;
}

static struct rec_mailbox mailbox_named(struct world *w, str name)
{
	struct imap_mailbox *m;

	if (imap_account_mailbox(w->account, name, &m))
		panic("no such mailbox");
	return m->record;
}

/* Nobody here saw the message, but its UID is used up (RFC 3501 2.3.1.1). */
static void came_and_went(struct world *w)
{
	struct rec_mailbox sent;
	enum err appended = ERR_IO, expunged = ERR_IO;
	struct buf uids;

	tap_group("came and went");
	fake_connect(w, 0);
	HAS(talk(w, 0, "a SELECT Sent"), "[UIDNEXT 1]");
	talk(w, 0, "b UNSELECT");
	sent = mailbox_named(w, S("Sent"));
	buf_init(&uids, 100);
	rec_uid_range_put(&uids, &(struct rec_uid_range){ .first = 1, .last = 1 });
	EQ(store_append(w->store, 1,
			&(struct msg_st_append){ .mailbox = sent.id,
						 .expected = sent.uidvalidity,
						 .size = 4,
						 .inline_body = S("\r\nx\n"),
						 .body = -1 },
			stored, &appended),
	   ERR_OK);
	EQ(store_settle(w->store), ERR_OK);
	EQ(store_commit(w->store, 1,
			&(struct msg_st_commit){ .op = STORE_OP_EXPUNGE,
						 .mailbox = sent.id,
						 .uids = buf_str(&uids) },
			stored, &expunged),
	   ERR_OK);
	EQ(store_settle(w->store), ERR_OK);
	EQ(appended, ERR_OK);
	EQ(expunged, ERR_OK);
	buf_free(&uids);
	HAS(talk(w, 0, "c SELECT Sent"), "* 0 EXISTS");
	HAS(buf_str(&w->got), "[UIDNEXT 2]");
}

/* RFC 3501 6.4.7: a COPY that fails leaves the target as it was, also when it took the store
 * several commits and the last one failed. */
static void copy_undone(struct world *w)
{
	enum { COPIED = IMAP_RANGES_MAX + 1, MESSAGES = 2 * COPIED };
	enum err limited = ERR_IO;
	uint64_t used, quota;
	struct buf command;

	tap_group("copy undone");
	fake_connect(w, 0);
	buf_init(&command, 1 << 20);
	buf_add(&command, S("a APPEND INBOX"));
	for (int i = 0; i < MESSAGES; i++)
		buf_add(&command, S(" {8+}\r\nS: x\r\n\r\n"));
	buf_add_char(&command, 0);
	HAS(talk(w, 0, buf_str(&command).p), "a OK ");
	HAS(talk(w, 0, "b SELECT INBOX"), "b OK ");
	EQ(store_usage(w->store, 1, &used, &quota), ERR_OK);
	EQ(store_set_quota(w->store, 1, used + used / MESSAGES * IMAP_RANGES_MAX, stored, &limited),
	   ERR_OK);
	EQ(store_settle(w->store), ERR_OK);
	EQ(limited, ERR_OK);
	buf_clear(&command);
	buf_add(&command, S("c COPY 1"));
	for (int i = 1; i < COPIED; i++)
		buf_printf(&command, ",%d", 2 * i + 1);
	buf_add(&command, S(" Sent"));
	buf_add_char(&command, 0);
	HAS(talk(w, 0, buf_str(&command).p), "c NO [OVERQUOTA] ");
	HAS(talk(w, 0, "d STATUS Sent (MESSAGES UIDNEXT)"), "(MESSAGES 0 UIDNEXT 2001)");
	buf_free(&command);
}

/* What a hint announces that came behind the counters is asked for with the next STATUS. */
static void late_hint(struct world *w)
{
	struct imap_mailbox *m;

	tap_group("late hint");
	fake_connect(w, 0);
	append(w, 0, "Sent", "", mail);
	w->hints_late = true;
	HAS(talk(w, 0, "a STATUS Sent (MESSAGES)"), "(MESSAGES 1)");
	w->hints_late = false;
	m = imap_account_mailbox_by_id(w->account, mailbox_named(w, S("Sent")).id);
	OK(m && m->hint > m->as_of);
}

/* RFC 7888: who sends without asking is told as well what is wrong, and stays in step. */
static void refused_literals(struct world *w)
{
	enum { SIZE = 400000 };
	char *text = malloc(SIZE);

	tap_group("refused literals");
	memset(text, 'x', SIZE);
	memcpy(text + SIZE - 8, "\r\nb NOOP", 8);
	fake_connect(w, 0);
	for (int i = 0; i < 4; i++) {
		buf_clear(&w->got);
		fake_write(w, 0, S("a APPEND nowhere {400000+}\r\n"));
		fake_write(w, 0, str_of(text, SIZE));
		fake_write(w, 0, S("\r\n"));
		OK(fake_read_until(w, 0, "a NO [TRYCREATE]"));
	}
	LACKS(talk(w, 0, "c NOOP"), "b OK");
	/* More than a number can say: neither read as commands nor for ever. */
	buf_clear(&w->got);
	fake_write(w, 0, S("d SELECT {4294967296+}\r\n"));
	for (int i = 0; i < 3; i++)
		fake_write(w, 0, str_of(text, SIZE));
	fake_write(w, 0, str_of(text, 150000)); /* a little more than is thrown away */
	OK(fake_read_until(w, 0, "* BYE "));
	LACKS(buf_str(&w->got), "b OK");
	free(text);
}

static void rubbish(struct world *w)
{
	enum { SIZE = 70000 };
	char *line = malloc(SIZE);

	tap_group("rubbish");
	fake_connect(w, 0);
	memset(line, 'x', SIZE);
	memcpy(line, "a ", 2);
	line[SIZE - 1] = 0;
	HAS(talk(w, 0, line), "a BAD Command line too long.");
	free(line);
	HAS(talk(w, 0, "b NOOP"), "b OK ");
	buf_clear(&w->got);
	fake_write(w, 0, S("\001\002\377\376\r\n"));
	OK(fake_read_until(w, 0, "* BAD "));
	HAS(talk(w, 0, "c SELECT \"unfinished"), "c BAD ");
	HAS(talk(w, 0, "d SELECT {5+}\r\nINBOX"), "d OK ");
	/* Pipelined commands are answered in their order. */
	HAS(talk(w, 0, "e NOOP\r\nf CHECK\r\ng NOOP"), "e OK ");
	OK(fake_read_until(w, 0, "g OK "));
	buf_clear(&w->got);
	for (int i = 0; i < 20; i++)
		fake_write(w, 0, S("x y z\r\n"));
	OK(fake_read_until(w, 0, "* BYE "));
}

/* A parked connection goes to another process: here, to another account object over the same store.
 */
static void parked_connection(struct world *w)
{
	struct buf record, input;
	struct addr peer = { 0 };
	struct conn *conn, *client;
	enum err err;
	int fd;

	tap_group("parked");
	fake_connect(w, 0);
	for (int i = 0; i < 4; i++)
		append(w, 0, "INBOX", "", mail);
	talk(w, 0, "a SELECT INBOX");
	fake_write(w, 0, S("i IDLE\r\n"));
	OK(fake_read_until(w, 0, "+ "));
	while (!imap_session_is_parked(w->sessions[0]))
		fiber_yield(w->loop);
	buf_init(&record, 16384);
	buf_init(&input, 32768);
	err = imap_session_export(w->sessions[0], &record, &fd, &input);
	EQ(err, ERR_OK);
	w->sessions[0] = NULL;
	client = w->clients[0];
	w->clients[0] = NULL;

	/* While it sleeps: one goes, one changes, one comes. */
	fake_connect(w, 1);
	talk(w, 1, "a SELECT INBOX");
	talk(w, 1, "b STORE 2 +FLAGS (\\Deleted)");
	talk(w, 1, "c EXPUNGE");
	talk(w, 1, "d STORE 3 +FLAGS (\\Flagged)");
	append(w, 1, "INBOX", "", mail);
	fake_account_free(w);
	fake_account_new(w);

	w->clients[0] = client;
	EQ(conn_new(w->loop, fd, &peer, &conn), ERR_OK);
	EQ(imap_session_new(w->account, conn, fake_ended, w, &w->sessions[0]), ERR_OK);
	imap_session_resume(w->sessions[0], buf_str(&record), STR_EMPTY);
	buf_clear(&w->got);
	OK(fake_read_until(w, 0, "* 3 FETCH (FLAGS (\\Flagged"));
	HAS(buf_str(&w->got), "* 2 EXPUNGE\n* 4 EXISTS\n");
	fake_write(w, 0, S("DONE\r\n"));
	OK(fake_read_until(w, 0, "i OK "));
	HAS(talk(w, 0, "j UID FETCH 1:* UID"),
	    "* 2 FETCH (UID 3)\n* 3 FETCH (UID 4)\n* 4 FETCH (UID 5)\n");
	buf_free(&record);
	buf_free(&input);
}

int main(void)
{
	fake_run(basics);
	fake_run(mailboxes);
	fake_run(messages);
	fake_run(raw_append);
	fake_run(multiappend);
	fake_run(large_message);
	fake_run(compacted);
	fake_run(two_connections);
	fake_run(deleted_by_us);
	fake_run(deleted_often);
	fake_run(came_and_went);
	fake_run(copy_undone);
	fake_run(late_hint);
	fake_run(refused_literals);
	fake_run(rubbish);
	fake_run(parked_connection);
	return tap_done();
}
