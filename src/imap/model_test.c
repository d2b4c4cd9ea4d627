/* IMAP against a model: three clients of one account send random commands, legal and illegal. The
 * model knows which state each client is in and what its mailbox looks like from what it was told
 * (EXISTS, EXPUNGE), as RFC 3501 wants a client to. Checked: the tagged answer of each command by
 * state; no EXPUNGE when 7.4.1 forbids it; no number beyond what the client knows; and that after a
 * NOOP clients with the same mailbox see the same UIDs, as many as they counted. */
#include "imap/session_fake.h"

enum { CLIENTS = 3, SEEDS = 6, STEPS = 800, UIDS_TEXT_MAX = 8192 };

enum picture { LOGGED_IN, SELECTED, READ_ONLY };

struct client {
	enum picture state;
	unsigned mailbox;
	uint32_t exists;
};

struct model {
	struct client clients[CLIENTS];
	uint64_t seed;
	const char *wrong;
};

static const char *const mailboxes[] = { "INBOX", "Sent", "Trash" };

static unsigned chance(struct model *m, unsigned n)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(m->seed >> 33) % n;
}

/* What the untagged lines tell the client. */
static void hear(struct model *m, struct client *c, str got, bool may_expunge)
{
	while (got.n) {
		str line = str_cut_line(&got), rest = line;
		uint64_t number;

		if (!str_starts(line, S("* ")))
			continue;
		rest = str_from(rest, 2);
		if (str_to_u64(str_cut(&rest, ' '), UINT32_MAX, &number))
			continue;
		if (str_eq(rest, S("EXISTS"))) {
			if (number < c->exists)
				m->wrong = "EXISTS went back";
			c->exists = (uint32_t)number;
		} else if (str_eq(rest, S("EXPUNGE"))) {
			if (!may_expunge)
				m->wrong = "EXPUNGE when it may not be sent";
			if (number < 1 || number > c->exists)
				m->wrong = "EXPUNGE of a number that is not there";
			c->exists--;
		} else if (str_starts(rest, S("FETCH")) && (number < 1 || number > c->exists)) {
			m->wrong = "FETCH of a number that is not there";
		}
	}
}

/* The word of the tagged answer. */
static str result(str got)
{
	str last = STR_EMPTY, line;

	while (got.n) {
		line = str_cut_line(&got);
		if (str_starts(line, S("t ")))
			last = str_from(line, 2);
	}
	return str_cut(&last, ' ');
}

static str command(struct world *w, struct model *m, unsigned n, bool may_expunge, const char *text)
{
	str got = talk(w, n, text);

	hear(m, &m->clients[n], got, may_expunge);
	if (m->wrong)
		printf("# client %u: %s\n# %.*s\n", n, text, STR_ARGS(got));
	return got;
}

static void expect(struct model *m, str got, const char *want, const char *text)
{
	if (str_eq(result(got), str_from_c(want)))
		return;
	printf("# %s: wanted %s\n# %.*s\n", text, want, STR_ARGS(got));
	m->wrong = "the answer";
}

static void do_select(struct world *w, struct model *m, unsigned n)
{
	struct client *c = &m->clients[n];
	bool read_only = chance(m, 4) == 0;
	unsigned which = chance(m, ARRAY_LEN(mailboxes) + 1);
	char text[64];

	c->exists = 0;
	snprintf(text, sizeof(text), "t %s %s", read_only ? "EXAMINE" : "SELECT",
		 which < ARRAY_LEN(mailboxes) ? mailboxes[which] : "nowhere");
	if (which == ARRAY_LEN(mailboxes)) {
		c->state = LOGGED_IN;
		expect(m, command(w, m, n, true, text), "NO", text);
		return;
	}
	c->state = read_only ? READ_ONLY : SELECTED;
	c->mailbox = which;
	expect(m, command(w, m, n, true, text), "OK", text);
}

static void do_append(struct world *w, struct model *m, unsigned n)
{
	char text[128];

	snprintf(text, sizeof(text), "t APPEND %s {21+}\r\nSubject: x\r\n\r\nbody\r\n\r",
		 mailboxes[chance(m, 3)]);
	text[strlen(text) - 1] = 0;
	expect(m, command(w, m, n, true, text), "OK", text);
}

/* Commands on messages: `verb` with a number that exists, or may not. */
static void do_message(struct world *w, struct model *m, unsigned n, const char *verb,
		       const char *rest, bool writes, bool may_expunge)
{
	struct client *c = &m->clients[n];
	uint32_t number = 1 + chance(m, c->exists + 2);
	const char *want = c->state == LOGGED_IN || number > c->exists ? "BAD"
			   : c->state == READ_ONLY && writes	       ? "NO"
								       : "OK";
	char text[128];
	str got;

	snprintf(text, sizeof(text), "t %s %u %s", verb, number, rest);
	/* RFC 3501 7.4.1 apart, a refused command tells no less. */
	got = command(w, m, n, may_expunge, text);
	/* A message that another client expunged is still numbered. */
	if (str_find(got, S("EXPUNGEISSUED")) != STR_NONE)
		return;
	/* Moving to where it is already is refused. */
	if (str_find(got, S("[CANNOT]")) != STR_NONE && !strcmp(rest, mailboxes[c->mailbox]) &&
	    verb[0] == 'M')
		return;
	if (c->state == READ_ONLY && writes && str_eq(result(got), S("BAD")))
		return;
	if (c->state == READ_ONLY && writes)
		want = "NO";
	expect(m, got, want, text);
}

static void do_plain(struct world *w, struct model *m, unsigned n, const char *verb,
		     bool needs_mailbox, bool may_expunge)
{
	struct client *c = &m->clients[n];
	char text[64];

	snprintf(text, sizeof(text), "t %s", verb);
	expect(m, command(w, m, n, may_expunge, text),
	       needs_mailbox && c->state == LOGGED_IN ? "BAD" : "OK", text);
}

static void do_leave(struct world *w, struct model *m, unsigned n, const char *verb)
{
	do_plain(w, m, n, verb, true, true);
	m->clients[n].state = LOGGED_IN;
	m->clients[n].exists = 0;
}

/* Everybody with this mailbox sees the same. */
static void compare(struct world *w, struct model *m, unsigned n)
{
	char first[UIDS_TEXT_MAX] = "";
	uint32_t exists = 0;

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &m->clients[i];
		str got, line;

		if (c->state == LOGGED_IN || c->mailbox != m->clients[n].mailbox)
			continue;
		command(w, m, i, true, "t NOOP");
		got = command(w, m, i, true, "t UID SEARCH ALL");
		line = str_cut_line(&got);
		if (first[0] && (!str_eq(line, str_from_c(first)) || exists != c->exists))
			m->wrong = "two clients see different mailboxes";
		snprintf(first, sizeof(first), "%.*s", STR_ARGS(line));
		exists = c->exists;
		for (size_t k = 8; k < line.n; k++)
			exists -= line.p[k] == ' ';
		if (exists != 0)
			m->wrong = "a client counts wrong";
		exists = c->exists;
	}
}

static void step(struct world *w, struct model *m)
{
	unsigned n = chance(m, CLIENTS);
	const struct client *c = &m->clients[n];

	switch (chance(m, 18)) {
	case 0:
		do_select(w, m, n);
		return;
	case 1:
	case 2:
	case 3:
		do_append(w, m, n);
		return;
	case 4:
		do_message(w, m, n, "FETCH", "(FLAGS UID)", false, false);
		return;
	case 5:
		do_message(w, m, n, "FETCH", "BODY[TEXT]", false, false);
		return;
	case 6:
	case 7:
		do_message(w, m, n, "STORE", "+FLAGS (\\Deleted)", true, false);
		return;
	case 8:
		do_message(w, m, n, "STORE", "-FLAGS.SILENT (\\Deleted work)", true, false);
		return;
	case 9:
		do_message(w, m, n, "COPY", mailboxes[chance(m, 3)], false, true);
		return;
	case 10:
		do_message(w, m, n, "MOVE", mailboxes[chance(m, 3)], true, true);
		return;
	case 11:
		if (c->state != READ_ONLY)
			do_plain(w, m, n, "EXPUNGE", true, true);
		return;
	case 12:
		do_plain(w, m, n, "SEARCH DELETED", true, false);
		return;
	case 13:
		do_leave(w, m, n, chance(m, 2) ? "CLOSE" : "UNSELECT");
		return;
	case 14:
		do_plain(w, m, n, "STATUS Sent (MESSAGES UNSEEN)", false, true);
		return;
	case 15:
		expect(m, command(w, m, n, true, "t LOGIN x y"), "BAD", "LOGIN");
		expect(m, command(w, m, n, true, "t NOOP"), "OK", "NOOP");
		return;
	default:
		if (c->state != LOGGED_IN)
			compare(w, m, n);
	}
}

static bool run_seed(struct world *w, uint64_t seed)
{
	struct model m = { .seed = seed };
	int i;

	for (i = 0; i < STEPS && !m.wrong; i++)
		step(w, &m);
	for (unsigned n = 0; n < CLIENTS && !m.wrong; n++)
		if (m.clients[n].state != LOGGED_IN)
			do_leave(w, &m, n, "UNSELECT");
	if (m.wrong)
		printf("# seed %llu, step %d: %s\n", (unsigned long long)seed, i, m.wrong);
	return !m.wrong;
}

static void story(struct world *w)
{
	for (unsigned n = 0; n < CLIENTS; n++)
		fake_connect(w, n);
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		OK(run_seed(w, seed));
}

int main(void)
{
	fake_run(story);
	return tap_done();
}
