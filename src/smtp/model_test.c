/* SMTP, submission and LMTP against a model: random commands, legal and illegal, alone and
 * pipelined. The model is what RFC 5321 says of the state of a transaction in a few lines; the
 * session has to give the same replies, and auth and store have to see the same transactions. State
 * that an error path forgot to reset shows up as a wrong reply some commands later. */
#include "smtp/command.h"
#include "smtp/session_fake.h"

enum {
	CONNECTIONS = 400,
	GROUPS = 40,
	GROUP_MAX = 6,
	ERRORS_MAX = SMTP_SOFT_ERROR_LIMIT - 1,
	REPLIES_MAX = 256
};

struct model {
	enum smtp_service service;
	enum smtp_state state;
	bool is_authenticated, is_over;
	unsigned accepted; /* recipients */
	unsigned errors;
	unsigned mails, rcpts, bodies, resets; /* since the beginning of the world */
	bool is_open;			       /* auth has a transaction */
	bool is_bad_sender;		       /* auth would say, and was not asked yet */
	/* Replies that are owed. */
	unsigned codes[REPLIES_MAX], count;
	uint64_t seed;
};

static unsigned chance(struct model *m, unsigned n)
{
	/* xorshift64: the same run for the same seed, everywhere. */
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return (unsigned)(m->seed >> 33) % n;
}

static void expect(struct model *m, unsigned code)
{
	m->codes[m->count++] = code;
	m->errors += code >= 400;
}

static void closed(struct model *m, bool by_commit)
{
	if (m->is_open && !by_commit)
		m->resets++;
	m->is_open = false;
	m->accepted = 0;
	if (m->state != SMTP_STATE_NEW)
		m->state = SMTP_STATE_IDLE;
}

/* The final replies; LMTP has one for each recipient (RFC 2033 4.2). */
static void message_ends(struct model *m, bool good)
{
	unsigned n = m->service == SMTP_SERVICE_LMTP ? m->accepted : 1, errors = m->errors;

	for (unsigned i = 0; i < n; i++)
		expect(m, good ? 250 : 550);
	m->errors = errors + !good;
	m->bodies += good;
	closed(m, good);
}

static bool is_in(const struct model *m, unsigned states)
{
	return m->state & states;
}

static void hello(struct model *m, struct world *w)
{
	static const char *const words[] = { "EHLO", "HELO", "LHLO" };
	unsigned which = chance(m, 3);
	bool known = (which == 2) == (m->service == SMTP_SERVICE_LMTP), good = chance(m, 8) != 0;

	conn_printf(w->client, "%s%s\r\n", words[which], good ? " client.example" : "");
	if (!known || !good) {
		expect(m, known ? 501 : 500);
		return;
	}
	closed(m, false);
	m->state = SMTP_STATE_IDLE;
	expect(m, 250);
}

static void mail(struct model *m, struct world *w)
{
	static const char *const senders[] = { "<a@b.example>", "<>", "<a@b.example> SIZE=10",
					       "<bad@b.example>", "broken" };
	unsigned which = chance(m, 3) ? chance(m, 3) : chance(m, 5);

	conn_printf(w->client, "MAIL FROM:%s\r\n", senders[which]);
	if (which == 4) {
		expect(m, 501);
	} else if (!is_in(m, SMTP_STATE_IDLE)) {
		expect(m, 503);
	} else if (m->service == SMTP_SERVICE_SUBMISSION && !m->is_authenticated) {
		expect(m, 530);
	} else if (which == 3 && m->is_authenticated) {
		expect(m, 553);
	} else {
		/* Without a login auth is asked with the first recipient. */
		m->is_open = m->is_authenticated;
		m->mails += m->is_open;
		m->is_bad_sender = which == 3;
		m->state = SMTP_STATE_MAIL;
		expect(m, 250);
	}
}

static void rcpt(struct model *m, struct world *w)
{
	static const char *const recipients[] = { "<x@y.example>", "<Postmaster>",
						  "<bad@y.example>", "<later@y.example>", "<>" };
	unsigned which = chance(m, 3) ? chance(m, 2) : chance(m, 5);

	conn_printf(w->client, "RCPT TO:%s\r\n", recipients[which]);
	if (which == 4 || !is_in(m, SMTP_STATE_MAIL | SMTP_STATE_RCPT)) {
		expect(m, which == 4 ? 501 : 503);
		return;
	}
	if (!m->is_open && m->is_bad_sender) {
		expect(m, 553);
		return;
	}
	m->mails += !m->is_open;
	m->is_open = true;
	if (which >= 2) {
		expect(m, which == 2 ? 550 : 451);
	} else {
		m->rcpts++;
		m->accepted++;
		m->state = SMTP_STATE_RCPT;
		expect(m, 250);
	}
}

static void data(struct model *m, struct world *w)
{
	bool good = chance(m, 3) != 0;

	conn_write(w->client, S("DATA\r\n"));
	if (!is_in(m, SMTP_STATE_RCPT)) {
		expect(m, is_in(m, SMTP_STATE_MAIL) && m->service != SMTP_SERVICE_LMTP ? 554 : 503);
		return;
	}
	expect(m, 354);
	world_say(w,
		  good ? "a: b\r\n\r\nRSET\r\n..\r\n.\r\n" : "a: b\r\n\r\nx\n.\r\nRSET\r\n.\r\n");
	message_ends(m, good);
}

static void bdat(struct model *m, struct world *w)
{
	bool good = chance(m, 4) != 0, last = chance(m, 2) != 0;

	conn_printf(w->client, "BDAT 6%s\r\n%s", last ? " LAST" : "",
		    good ? "RSET\r\n" : "ab\nc\r\n");
	if (!is_in(m, SMTP_STATE_RCPT | SMTP_STATE_BDAT)) {
		expect(m, 503);
	} else if (last) {
		message_ends(m, good);
	} else if (good) {
		m->state = SMTP_STATE_BDAT;
		expect(m, 250);
	} else {
		expect(m, 550);
		closed(m, false);
	}
}

static void auth(struct model *m, struct world *w)
{
	conn_write(w->client, S("AUTH PLAIN AGFsaWNlAHg=\r\n"));
	if (!is_in(m, SMTP_STATE_IDLE) || m->is_authenticated) {
		expect(m, 503);
	} else if (m->service != SMTP_SERVICE_SUBMISSION) {
		expect(m, 502);
	} else {
		m->is_authenticated = true;
		expect(m, 235);
	}
}

static void rset(struct model *m, struct world *w)
{
	bool good = chance(m, 6) != 0;

	world_say(w, good ? "RSET\r\n" : "RSET x\r\n");
	if (good)
		closed(m, false);
	expect(m, good ? 250 : 501);
}

static void other(struct model *m, struct world *w)
{
	static const struct {
		const char *line;
		unsigned code;
	} rows[] = { { "NOOP\r\n", 250 },      { "VRFY x\r\n", 252 }, { "EXPN x\r\n", 502 },
		     { "HELP\r\n", 214 },      { "XYZZY\r\n", 500 },  { "\r\n", 500 },
		     { "NOOP \x01\r\n", 500 }, { "ETRN x\r\n", 502 } };
	unsigned which = chance(m, ARRAY_LEN(rows) + 1);

	if (which == ARRAY_LEN(rows)) {
		world_say(w, "STARTTLS\r\n");
		expect(m, is_in(m, SMTP_STATE_IDLE) ? 502 : 503);
		return;
	}
	world_say(w, rows[which].line);
	expect(m, rows[which].code);
}

static void quit(struct model *m, struct world *w)
{
	world_say(w, "QUIT\r\n");
	expect(m, 221);
	closed(m, false);
	m->is_over = true;
}

/* What leads on from here. */
static void lead_on(struct model *m, struct world *w)
{
	switch (m->state) {
	case SMTP_STATE_NEW:
		hello(m, w);
		return;
	case SMTP_STATE_IDLE:
		if (m->service == SMTP_SERVICE_SUBMISSION && !m->is_authenticated)
			auth(m, w);
		else
			mail(m, w);
		return;
	case SMTP_STATE_MAIL:
		rcpt(m, w);
		return;
	case SMTP_STATE_RCPT:
		(chance(m, 3) == 0 ? rcpt : chance(m, 2) ? data : bdat)(m, w);
		return;
	case SMTP_STATE_BDAT:
		bdat(m, w);
		return;
	}
}

static void command(struct model *m, struct world *w)
{
	static void (*const commands[])(
		struct model *, struct world *) = { mail, mail, rcpt, rcpt, rcpt,  data,  data,
						    bdat, bdat, auth, rset, other, other, hello };

	/* Legal most of the time, so that the deep states are reached before there are too many
	 * errors. */
	if (chance(m, 4))
		lead_on(m, w);
	else if (chance(m, 60) == 0)
		quit(m, w);
	else
		commands[chance(m, ARRAY_LEN(commands))](m, w);
}

static bool group(struct model *m, struct world *w)
{
	unsigned n = 1 + chance(m, GROUP_MAX);

	m->count = 0;
	while (n-- && !m->is_over && m->errors < ERRORS_MAX)
		command(m, w);
	for (unsigned i = 0; i < m->count; i++) {
		unsigned code = world_reply(w);

		if (code != m->codes[i]) {
			printf("# reply %u of %u was %u, wanted %u\n", i, m->count, code,
			       m->codes[i]);
			return false;
		}
	}
	return true;
}

static bool connection(struct model *m, struct world *w)
{
	static const enum smtp_service services[] = { SMTP_SERVICE_SMTP, SMTP_SERVICE_SUBMISSION,
						      SMTP_SERVICE_LMTP };

	m->service = services[chance(m, 3)];
	m->state = SMTP_STATE_NEW;
	m->is_authenticated = m->is_over = false;
	m->errors = 0;
	world_connect(w, m->service);
	if (world_reply(w) != 220)
		return false;
	for (int i = 0; i < GROUPS && !m->is_over && m->errors < ERRORS_MAX; i++)
		if (!group(m, w))
			return false;
	m->count = 0;
	if (!m->is_over)
		quit(m, w);
	if (m->count && world_reply(w) != 221)
		return false;
	if (!world_is_closed(w))
		return false;
	/* The reset at the end is told to auth after the reply. */
	while (w->resets < m->resets)
		fiber_yield(w->loop);
	return w->mails == m->mails && w->rcpts == m->rcpts && w->bodies == m->bodies &&
	       w->commits == m->bodies && w->checks == m->bodies && w->resets == m->resets;
}

static void story(struct world *w)
{
	struct model m = { .seed = 1 };

	for (uint64_t i = 1; i <= CONNECTIONS; i++) {
		m.seed = i * 0x9e3779b97f4a7c15u;
		if (!connection(&m, w)) {
			printf("# connection %llu: service %d; mails %u/%u rcpts %u/%u bodies "
			       "%u/%u commits %u resets %u/%u\n",
			       (unsigned long long)i, (int)m.service, w->mails, m.mails, w->rcpts,
			       m.rcpts, w->bodies, m.bodies, w->commits, w->resets, m.resets);
			OK(!"the session is not the model");
			return;
		}
	}
	/* The walk went where it should. */
	OK(m.bodies > CONNECTIONS);
	OK(m.resets > CONNECTIONS / 2);
}

int main(void)
{
	world_run("model", CONF "disable_plaintext_auth = no\nsmtpd_hard_error_limit = 1000\n",
		  story);
	return tap_done();
}
