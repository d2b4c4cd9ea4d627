/* The commands that are one line each: CAPABILITY, NOOP, CHECK, LOGOUT, ID, ENABLE, NAMESPACE,
 * IDLE, and those that belong before login. */
#include "imap/session_priv.h"

void imap_do_capability(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	conn_write(s->conn, S("* CAPABILITY " IMAP_CAPABILITY_SESSION "\r\n"));
	imap_ok(s, "Capability completed.");
}

void imap_do_noop(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	imap_ok(s, "NOOP completed.");
}

void imap_do_check(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	/* RFC 3501 6.4.1: everything is durable already. */
	imap_ok(s, "Check completed.");
}

void imap_do_logout(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	conn_write(s->conn, S("* BYE Logging out\r\n"));
	s->is_ending = true;
	imap_ok(s, "Logout completed.");
}

void imap_do_id(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	/* RFC 2971 3.3: no version: it would tell attackers more than clients. */
	conn_write(s->conn, S("* ID (\"name\" \"Posthorn\")\r\n"));
	imap_ok(s, "ID completed.");
}

/* RFC 5161 3.1: nothing of what we have needs to be enabled; unknown names are ignored. */
void imap_do_enable(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	conn_write(s->conn, S("* ENABLED\r\n"));
	imap_ok(s, "Enabled.");
}

void imap_do_namespace(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	conn_write(s->conn, S("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n"));
	imap_ok(s, "Namespace completed.");
}

/* RFC 2177 3: until the client says DONE, it is told what changes as it changes. */
void imap_do_idle(struct imap_session *s, const struct imap_command *c)
{
	if (c->tag.n > IMAP_TAG_MAX) {
		imap_bad(s, "Tag too long.");
		return;
	}
	conn_write(s->conn, S("+ idling\r\n"));
	memcpy(s->idle_tag, c->tag.p, c->tag.n);
	s->idle_tag_size = c->tag.n;
	s->is_idle = true;
}

void imap_do_starttls(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	imap_bad(s, "Already logged in.");
}

void imap_do_authenticate(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	imap_bad(s, "Already logged in.");
}

void imap_do_login(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	imap_bad(s, "Already logged in.");
}
