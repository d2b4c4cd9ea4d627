/* The commands of a session but AUTH and DATA: RFC 5321 4.1.1, RFC 2033 4, RFC 3207.
 *
 * Who may send what to whom is not decided here: `auth` says so, in the words of the reply
 * (auth_verdict). What this process adds is what it knows itself: sizes, counts, whether there was
 * a login. For a client in $mynetworks the socket goes along, so that auth sees the address with
 * its own eyes and a front that was broken into cannot claim one.
 *
 * Without a login, nothing but the form of an address speaks against a sender; that is seen here as
 * auth sees it. MAIL is then answered at once, and auth hears of it with the first RCPT: one
 * question for both, which halves what a message costs there. Whatever else it says of the sender
 * (that it has no room, say) is the answer to RCPT. With a login, MAIL is the question of whose
 * address it is, and waits for the answer.
 *
 * A recipient that auth granted to everybody before, and has not taken back, is granted at once:
 * the question then goes with the end of the data (session_commit.c), and a refusal after all is
 * the answer to that. A second recipient is asked for, and the first before it.
 */
#include "smtp/session_priv.h"

#include "auth/address.h"

static struct smtp_transaction *transaction_new(void)
{
	struct arena *a = arena_new(SMTP_TRANSACTION_MEMORY);
	struct smtp_transaction *t = a ? arena_alloc(a, sizeof(*t)) : NULL;

	if (!t) {
		arena_free(a);
		return NULL;
	}
	t->arena = a;
	return t;
}

/* ---- hello ---- */

bool smtp_starttls_is_offered(const struct smtp_session *s)
{
	return s->server->tls && tls_server_is_ready(s->server->tls) && !conn_is_tls(s->conn);
}

/* RFC 1869, RFC 5321 4.1.1.1: one keyword a line. */
static void write_extensions(struct smtp_session *s)
{
	struct conn *c = s->conn;

	conn_write(c, S("250-PIPELINING\r\n"));
	conn_printf(c, "250-SIZE %llu\r\n",
		    (unsigned long long)conf_size(s->server->conf, CONF_message_size_limit));
	if (smtp_starttls_is_offered(s))
		conn_write(c, S("250-STARTTLS\r\n"));
	if (smtp_auth_is_offered(s))
		conn_printf(c, "250-AUTH PLAIN LOGIN%s\r\n",
			    s->server->offers_scram ? " SCRAM-SHA-256" : "");
	conn_write(c, S("250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n250 "
			"ENHANCEDSTATUSCODES\r\n"));
}

void smtp_do_hello(struct smtp_session *s, const struct smtp_command *c)
{
	str name = conf_str(s->server->conf, CONF_myhostname);

	s->junk++;
	smtp_transaction_end(s, true); /* RFC 5321 4.1.4: EHLO is a RSET as well */
	buf_clear(&s->helo);
	buf_add(&s->helo, c->argument);
	s->state = SMTP_STATE_IDLE;
	s->is_extended = c->verb != SMTP_HELO;
	if (s->is_extended) {
		conn_printf(s->conn, "250-%.*s\r\n", STR_ARGS(name));
		write_extensions(s);
	} else {
		conn_printf(s->conn, "250 %.*s\r\n", STR_ARGS(name));
	}
}

void smtp_do_starttls(struct smtp_session *s, const struct smtp_command *c)
{
	char client[ADDR_TEXT_MAX];
	size_t early = conn_pending(s->conn).n;
	enum err err;

	(void)c;
	if (conn_is_tls(s->conn)) {
		smtp_refuse(s, 503, "5.5.1", "TLS is active already");
		return;
	}
	if (!smtp_starttls_is_offered(s)) {
		smtp_refuse(s, 502, "5.5.1", "STARTTLS is not available");
		return;
	}
	smtp_reply(s, 220, "2.0.0", "Ready to start TLS");
	/* RFC 3207 6: what came in clear behind STARTTLS was put there by a man in the middle;
	 * conn_tls_accept drops it. */
	if (early)
		log_warn(s->server->log, "starttls-injection", "client=%.*s dropped=%zu",
			 STR_ARGS(smtp_client(s, client)), early);
	conn_set_deadline(s->conn, smtp_deadline(s, SMTP_TLS_SECONDS));
	if ((err = conn_tls_accept(s->conn, s->server->tls))) {
		log_info(s->server->log, "tls-failed", "client=%.*s service=%s why=%s",
			 STR_ARGS(smtp_client(s, client)), smtp_service_name(s->service),
			 err_name(err));
		s->is_closing = true;
		return;
	}
	/* RFC 3207 4.2: forget what was learnt before, the name in EHLO and a login as well: both
	 * may be a man in the middle's. */
	buf_clear(&s->helo);
	smtp_logout(s);
	s->is_extended = false;
	s->state = SMTP_STATE_NEW;
}

/* ---- a transaction ---- */

/* What auth said, as a reply; a code that is none means that auth is wrong, never that all is well.
 */
static bool is_granted(struct smtp_session *s, enum err err, const struct msg_auth_verdict *v,
		       struct smtp_answer *a)
{
	*a = (struct smtp_answer){ v->code, v->status, v->text };
	if (!err && v->code == 250)
		return true;
	if (err || v->code < 400 || v->code > 599) {
		log_warn(s->server->log, "auth-away", "why=%s code=%u", err_name(err),
			 err ? 0u : v->code);
		*a = (struct smtp_answer){ 451, S("4.3.0"),
					   S("Cannot check this now; try again later") };
	}
	return false;
}

static bool is_in_mynetworks(const struct smtp_session *s)
{
	const struct addr *peer = conn_peer(s->conn);

	if (conf_nets_contain(s->server->conf, CONF_mynetworks, peer))
		return true;
	return str_eq(conf_str(s->server->conf, CONF_mynetworks_style), S("host")) &&
	       (addr_is_loopback(peer) || addr_ip_eq(peer, conn_local(s->conn)));
}

/* The address as it goes to auth and into the log: no brackets, quoted only where it must be. */
static str address_text(struct addr_spec address, struct arena *a)
{
	struct buf b;
	str text = STR_EMPTY;

	buf_init(&b, 2 * ADDR_PATH_MAX);
	addr_write(address, &b);
	if (!buf_failed(&b))
		text = arena_str(a, buf_str(&b));
	buf_free(&b);
	return text;
}

/* What needs no question to auth: false when it has been answered. */
static bool may_begin(struct smtp_session *s, const struct smtp_command *c)
{
	const struct smtp_server *server = s->server;
	uint64_t limit = conf_size(server->conf, CONF_message_size_limit);

	if (s->is_authenticated && s->auth_life != server->auth_lives) {
		smtp_reply(s, 421, "4.3.2", "The login is no longer known; please connect again");
		s->is_closing = true;
		return false;
	}
	/* RFC 6409 4.3: submission asks for a login; RFC 4954 6: 530. */
	if (smtp_is_submission(s) && !s->is_authenticated) {
		smtp_refuse(s, 530, "5.7.0",
			    smtp_auth_is_offered(s) ? "Authentication required"
						    : "Must issue a STARTTLS command first");
		return false;
	}
	/* RFC 1870 6.1 */
	if (c->mail.size > limit) {
		smtp_refuse(s, 552, "5.3.4", "The message is larger than the limit of %llu bytes",
			    (unsigned long long)limit);
		return false;
	}
	if (server->hooks.may_send &&
	    !server->hooks.may_send(server->hooks.arg, conn_peer(s->conn))) {
		smtp_refuse(s, 450, "4.7.1", "Too many messages in a minute; try again later");
		return false;
	}
	return true;
}

/* The question to auth, kept until it is asked. */
static bool mail_prepare(struct smtp_session *s, const struct smtp_command *c,
			 struct smtp_transaction *t)
{
	bool claims =
		s->service == SMTP_SERVICE_SMTP && !s->is_authenticated && is_in_mynetworks(s);
	char client[ADDR_TEXT_MAX];

	t->mail = (struct msg_auth_mail){
		.txn = t->id,
		.conn = s->is_authenticated ? s->id : 0,
		.service = smtp_session_service(s),
		.client = arena_str(t->arena, smtp_client(s, client)),
		.helo = buf_str(&s->helo),
		.sender = t->sender,
		.smtputf8 = t->is_utf8,
		.body = (uint8_t)c->mail.body,
		.ret = (uint8_t)c->mail.ret,
		.envid = arena_str(t->arena, c->mail.envid),
		.size = c->mail.size,
		.socket = claims ? conn_fd(s->conn) : 0,
	};
	return t->mail.client.p && t->mail.envid.p && t->sender.p;
}

/* `mail`: the transaction's, with or without its first recipient. */
static enum err ask_mail(struct smtp_session *s, const struct msg_auth_mail *mail,
			 struct msg_auth_verdict *v)
{
	s->txn->is_begun = true;
	s->txn->auth_life = s->server->auth_lives;
	return chan_call(s->server->auth, MSG_auth_mail, mail, MSG_auth_verdict, v, s->work,
			 smtp_deadline(s, SMTP_AUTH_SECONDS));
}

/* What auth would say of a sender that nobody logged in for. */
static bool is_good_sender(struct smtp_session *s, str sender, struct smtp_answer *a)
{
	struct auth_address address;
	enum err err = sender.n ? auth_address_parse(sender, s->work, &address) : ERR_OK;

	*a = err == ERR_SYNTAX || err == ERR_TOO_LONG
		     ? (struct smtp_answer){ 501, S("5.1.7"), S("Bad sender address syntax") }
		     : (struct smtp_answer){ 451, S("4.3.0"), S("Temporary failure") };
	return !err;
}

static void sender_refused(struct smtp_session *s, str recipient, struct smtp_answer a)
{
	char client[ADDR_TEXT_MAX];

	smtp_trace(s, s->txn->id, TRACE_SENDER_REFUSED, s->txn->sender, recipient,
		   "%u %.*s %.*s (client %.*s)", a.code, STR_ARGS(a.status), STR_ARGS(a.text),
		   STR_ARGS(smtp_client(s, client)));
	s->is_closing |= a.code == 421;
	smtp_count_error(s);
	smtp_answer(s, a);
}

void smtp_do_mail(struct smtp_session *s, const struct smtp_command *c)
{
	struct msg_auth_verdict v = { 0 };
	struct smtp_answer a = { 250, S("2.1.0"), S("Ok") };
	struct smtp_transaction *t;
	bool is_granted_now;

	if (!may_begin(s, c))
		return;
	if (!(t = transaction_new())) {
		smtp_refuse(s, 451, "4.3.0", "Out of memory; try again later");
		return;
	}
	t->id = msgid_next(s->server->msgids, os_wall_us());
	t->is_utf8 = c->mail.smtputf8;
	t->sender = address_text(c->mail.sender, t->arena);
	s->txn = t; /* from here on its end is smtp_transaction_end */
	if (!mail_prepare(s, c, t))
		is_granted_now = is_granted(s, ERR_NO_MEMORY, &v, &a);
	else if (s->is_authenticated)
		is_granted_now = is_granted(s, ask_mail(s, &t->mail, &v), &v, &a);
	else if ((is_granted_now = is_good_sender(s, t->sender, &a)))
		a = (struct smtp_answer){ 250, S("2.1.0"), S("Ok") };
	if (is_granted_now) {
		s->state = SMTP_STATE_MAIL;
		smtp_answer(s, a);
		return;
	}
	sender_refused(s, STR_EMPTY, a);
	/* auth may have begun it and the answer been lost. */
	smtp_transaction_end(s, v.code == 0);
}

static void rcpt_refused(struct smtp_session *s, str address, struct smtp_answer a)
{
	struct smtp_transaction *t = s->txn;
	char client[ADDR_TEXT_MAX];

	t->refused++;
	s->is_closing |= a.code == 421;
	smtp_trace(s, t->id, TRACE_RCPT_REFUSED, t->sender, address, "%u %.*s %.*s (client %.*s)",
		   a.code, STR_ARGS(a.status), STR_ARGS(a.text), STR_ARGS(smtp_client(s, client)));
	log_info(s->server->log, "smtp-rcpt-refused",
		 "client=%.*s from=<%.*s> to=<%.*s> code=%u status=%.*s",
		 STR_ARGS(smtp_client(s, client)), STR_ARGS(t->sender), STR_ARGS(address), a.code,
		 STR_ARGS(a.status));
	smtp_count_error(s);
	smtp_answer(s, a);
}

/* The first recipient, if it is one that needs no question now. */
static bool postpone(struct smtp_session *s, const struct smtp_command *c, str address)
{
	struct smtp_transaction *t = s->txn;
	str orcpt;

	if (!s->server->known || s->is_authenticated || t->is_begun || t->count > 0 ||
	    !smtp_known_has(s->server->known, address))
		return false;
	orcpt = arena_str(t->arena, c->rcpt.orcpt);
	if (!orcpt.p)
		return false;
	t->mail.rcpt = address;
	t->mail.notify = (uint8_t)c->rcpt.notify;
	t->mail.orcpt = orcpt;
	return t->is_postponed = true;
}

/* Asks now after all. A refusal makes the transaction void: its client was told otherwise. */
static enum err ask_postponed(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;
	struct msg_auth_verdict v = { 0 };
	enum err err = ask_mail(s, &t->mail, &v);

	t->is_postponed = err == ERR_BUSY;
	t->is_begun = !t->is_postponed;
	return err || v.code == 250 ? err : ERR_STALE;
}

/* The first recipient goes with MAIL, if that was not asked yet. A refused sender leaves the
 * transaction as it was: the next recipient asks again. */
static enum err ask_rcpt(struct smtp_session *s, const struct smtp_command *c, str address,
			 struct msg_auth_verdict *v)
{
	struct smtp_transaction *t = s->txn;
	struct msg_auth_mail mail = t->mail;
	enum err err;

	if (t->is_postponed && (err = ask_postponed(s)))
		return err;
	if (t->is_begun) {
		v->begun = true;
		return CALL(s->server->auth, auth_rcpt, auth_verdict, v, s->work,
			    smtp_deadline(s, SMTP_AUTH_SECONDS), .txn = t->id, .address = address,
			    .notify = (uint8_t)c->rcpt.notify, .orcpt = c->rcpt.orcpt);
	}
	mail.rcpt = address;
	mail.notify = (uint8_t)c->rcpt.notify;
	mail.orcpt = c->rcpt.orcpt;
	err = ask_mail(s, &mail, v);
	t->is_begun = err ? err != ERR_BUSY : v->begun;
	return err;
}

void smtp_do_rcpt(struct smtp_session *s, const struct smtp_command *c)
{
	struct smtp_transaction *t = s->txn;
	struct msg_auth_verdict v = { 0 };
	struct smtp_known *known = s->is_authenticated ? NULL : s->server->known;
	uint64_t clears = known ? smtp_known_clears(known) : 0;
	struct smtp_accepted *r;
	struct smtp_answer a;
	enum err err = ERR_OK;

	/* RFC 5321 4.5.3.1.10: 452; the client sends the rest in another transaction. */
	if (t->count >= conf_u64(s->server->conf, CONF_smtpd_recipient_limit)) {
		smtp_refuse(s, 452, "4.5.3", "Too many recipients");
		return;
	}
	r = arena_alloc(t->arena, sizeof(*r));
	if (r)
		r->address = address_text(c->rcpt.recipient, t->arena);
	if (!r || !r->address.p) {
		smtp_refuse(s, 452, "4.3.1", "Too many recipients");
		return;
	}
	if (postpone(s, c, r->address))
		v = (struct msg_auth_verdict){ .code = 250, .status = S("2.1.5"), .text = S("Ok") };
	else
		err = ask_rcpt(s, c, r->address, &v);
	/* A new auth has never heard of the transaction, and says so; that is no fault of the
	 * recipient. */
	if (!err && !t->is_postponed && !smtp_is_known_to_auth(s))
		err = ERR_CLOSED;
	/* Nobody knows what auth made of it: were the recipient among its own, they would get the
	 * message though the client was told to try again, and LMTP's answers would be the wrong
	 * ones. The transaction is void. (ERR_BUSY: auth was never asked.) */
	if (err && err != ERR_BUSY)
		t->auth_life = s->server->auth_lives - 1;
	if (!is_granted(s, err, &v, &a)) {
		if (err || v.begun)
			rcpt_refused(s, r->address, a);
		else
			sender_refused(s, r->address, a);
		return;
	}
	if (v.holds && known)
		smtp_known_add(known, r->address, clears);
	if (t->last)
		t->last->next = r;
	else
		t->first = r;
	t->last = r;
	t->count++;
	s->state = SMTP_STATE_RCPT;
	smtp_answer(s, a);
}

/* ---- the small ones ---- */

void smtp_do_rset(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	s->junk++;
	smtp_transaction_end(s, true);
	smtp_reply(s, 250, "2.0.0", "Ok");
}

void smtp_do_noop(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	s->junk++;
	smtp_reply(s, 250, "2.0.0", "Ok");
}

/* RFC 5321 7.3: a server may decline to tell who exists, with 252. */
void smtp_do_vrfy(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	s->junk++;
	smtp_reply(s, 252, "2.0.0", "Cannot tell; send a message and it will be tried");
}

void smtp_do_expn(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	s->junk++;
	smtp_refuse(s, 502, "5.5.1", "EXPN is not available");
}

void smtp_do_help(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	s->junk++;
	for (enum smtp_verb v = SMTP_NO_VERB + 1; v < SMTP_VERB_COUNT; v++)
		if (smtp_verb_is_known(v, smtp_is_lmtp(s) ? SMTP_DIALECT_LMTP : SMTP_DIALECT_SMTP))
			conn_printf(s->conn, "214-2.0.0 %s\r\n", smtp_verb_help(v));
	smtp_reply(s, 214, "2.0.0", "RFC 5321");
}

void smtp_do_quit(struct smtp_session *s, const struct smtp_command *c)
{
	(void)c;
	smtp_transaction_end(s, true);
	smtp_reply(s, 221, "2.0.0", "Bye");
	s->is_closing = true;
}
