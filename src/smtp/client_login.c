/* AUTH as a client (RFC 4954): at a relay that wants to know who we are.
 *
 * PLAIN, or LOGIN where a server offers no more than that: both tell it the password, so they are
 * used under TLS alone, and the caller sees to it that the certificate was checked. SCRAM would
 * hide the password from a server that knows it already; what it protects from is what the
 * certificate does.
 *
 * A login that fails is a deferral: a password that somebody has to set right must not return a
 * day's mail to its senders.
 */
#include "smtp/client_priv.h"

#include "store/types.h"
#include "text/base64.h"

enum { LOGIN_BYTES_MAX = 1024, LOGIN_TEXT_MAX = 2048 };

static enum smtp_open no_login(struct smtp_client *c, struct smtp_result *why, const char *words)
{
	smtp_result_set(why, QUEUE_DEFERRED, "4.7.0", "a login is needed, and %.*s %s",
			STR_ARGS(c->config.server), words);
	return SMTP_OPEN_NEXT;
}

/* `before` and the bytes in base64, as a line; wiped afterwards. */
static void write_secret(struct smtp_client *c, const char *before, str bytes)
{
	struct buf b;

	buf_init(&b, LOGIN_TEXT_MAX);
	base64_encode(bytes, 0, &b);
	conn_printf(c->conn, "%s%.*s\r\n", before, STR_ARGS(buf_str(&b)));
	if (b.p)
		explicit_bzero(b.p, b.size);
	buf_free(&b);
}

/* RFC 4616 2: no authorization identity, NUL, name, NUL, password. */
static enum err plain(struct smtp_client *c, struct smtp_answer *a)
{
	struct buf b;

	buf_init(&b, LOGIN_BYTES_MAX);
	buf_add_char(&b, 0);
	buf_add(&b, c->config.user);
	buf_add_char(&b, 0);
	buf_add(&b, c->config.password);
	write_secret(c, "AUTH PLAIN ", buf_str(&b));
	if (b.p)
		explicit_bzero(b.p, b.size);
	buf_free(&b);
	return client_answer(c, PHASE_AUTH, a, NULL);
}

/* Two questions, whose words mean nothing. */
static enum err login(struct smtp_client *c, struct smtp_answer *a)
{
	enum err err;

	conn_write(c->conn, S("AUTH LOGIN\r\n"));
	err = client_answer(c, PHASE_AUTH, a, NULL);
	if (!err && a->code == 334) {
		write_secret(c, "", c->config.user);
		err = client_answer(c, PHASE_AUTH, a, NULL);
	}
	if (!err && a->code == 334) {
		write_secret(c, "", c->config.password);
		err = client_answer(c, PHASE_AUTH, a, NULL);
	}
	return err;
}

enum smtp_open client_login(struct smtp_client *c, struct smtp_result *why)
{
	struct smtp_answer a;
	enum err err;

	if (!c->config.user.n)
		return SMTP_OPEN_OK;
	if (!conn_is_tls(c->conn))
		return no_login(c, why, "has no TLS");
	if (!(c->can & (CAN_AUTH_PLAIN | CAN_AUTH_LOGIN)))
		return no_login(c, why, "offers neither AUTH PLAIN nor LOGIN");
	err = c->can & CAN_AUTH_PLAIN ? plain(c, &a) : login(c, &a);
	/* RFC 4954 4: a further question is none that these mechanisms have. */
	if (!err && smtp_answer_class(&a) == 3)
		err = ERR_PROTOCOL;
	if (err) {
		client_lost(c, PHASE_AUTH, err, why);
		c->is_broken = true;
		return SMTP_OPEN_NEXT;
	}
	if (smtp_answer_class(&a) == 2)
		return SMTP_OPEN_OK;
	client_result(&a, why);
	client_defer(why);
	return SMTP_OPEN_NEXT;
}
