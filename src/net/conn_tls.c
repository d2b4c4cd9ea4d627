/* TLS on a connection: OpenSSL between the socket's bytes and conn.in / conn.out.
 *
 * OpenSSL never touches the socket. Its BIO takes from `raw`, which one recv fills with as many
 * records as there are (not with five bytes of header and then the rest), and puts into `wire`,
 * which one send empties. So writing a record never has to wait, only sending does, and after
 * every whole record OpenSSL itself holds nothing: that is what makes a hand-over of the record
 * keys to another process possible.
 *
 * RFC 3207 4.2 and CVE-2011-0411: bytes that came in clear before the handshake are dropped on
 * both sides, or a man in the middle could put commands or replies in front of the protected ones.
 *
 * OpenSSL's error queue belongs to the thread and there are many connections on it: it is emptied
 * before each call whose result is judged by SSL_get_error, and after each failure.
 */
#include "net/conn_priv.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *p, size_t n, size_t *done)
{
	struct conn *c = BIO_get_data(bio);
	struct buf *raw = &c->tls->raw;

	*done = 0;
	BIO_clear_retry_flags(bio);
	if (!buf_len(raw)) {
		size_t room = raw->size >= CONN_READ_FIRST ? raw->size : c->read_size, got;
		char *to = buf_reserve(raw, room);
		enum err err = to ? conn_recv(c, to, room, &got) : ERR_NO_MEMORY;

		if (err) {
			if (err == ERR_AGAIN)
				BIO_set_retry_read(bio);
			else if (err == ERR_EOF)
				c->is_eof = true;
			return 0;
		}
		buf_added(raw, got);
		if (got == room)
			c->read_size = CONN_READ_LARGE;
	}
	*done = MIN(n, buf_len(raw));
	memcpy(p, buf_str(raw).p, *done);
	buf_take(raw, *done);
	return 1;
}

static int bio_write(BIO *bio, const char *p, size_t n, size_t *done)
{
	struct conn *c = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_add(&c->tls->wire, str_of(p, n));
	*done = buf_failed(&c->tls->wire) ? 0 : n;
	return *done == n;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	const struct conn *c = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_EOF)
		return c && c->is_eof;
	return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *conn_tls_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");

	if (m && BIO_meth_set_read_ex(m, bio_read) == 1 &&
	    BIO_meth_set_write_ex(m, bio_write) == 1 && BIO_meth_set_ctrl(m, bio_control) == 1)
		return m;
	BIO_meth_free(m);
	return NULL;
}

/* ---- records ---- */

/* A call to OpenSSL failed: the error for the caller. Alerts that it wrote are sent if they can
 * be. */
static enum err judge(struct conn *c, int result)
{
	int why = SSL_get_error(c->tls->ssl, result);

	if (why == SSL_ERROR_WANT_READ)
		return ERR_AGAIN;
	if (why == SSL_ERROR_ZERO_RETURN)
		return ERR_EOF;
	c->tls->is_broken = true;
	(void)!conn_send_buf(c, &c->tls->wire);
	/* The socket ended without the close_notify of RFC 8446 6.1: truncated. */
	if (c->is_eof || why == SSL_ERROR_SYSCALL)
		return ERR_CLOSED;
	return ERR_PROTOCOL;
}

enum err conn_tls_receive(struct conn *c)
{
	struct conn_tls *t = c->tls;
	size_t room = MIN((size_t)CONN_TLS_RECORD, CONN_IN_MAX - buf_len(&c->in)), done = 0;
	enum err err;
	char *p;
	int result;

	if (!t->is_ready || t->is_broken)
		return ERR_CLOSED;
	/* Nothing to decrypt: no buffer for it. */
	if (!c->can_read && !buf_len(&t->raw) && !SSL_pending(t->ssl))
		return ERR_AGAIN;
	p = buf_reserve(&c->in, room);
	if (!p)
		return ERR_NO_MEMORY;
	ERR_clear_error();
	result = SSL_read_ex(t->ssl, p, room, &done);
	if (result == 1) {
		buf_added(&c->in, done);
		return ERR_OK;
	}
	err = judge(c, result);
	ERR_clear_error();
	/* An answer to a KeyUpdate (RFC 8446 4.6.3) may have been written. */
	if (err == ERR_AGAIN && buf_len(&t->wire))
		(void)!conn_send_buf(c, &t->wire);
	return err;
}

enum err conn_tls_seal(struct conn *c)
{
	struct conn_tls *t = c->tls;

	while (buf_len(&c->out) && buf_len(&t->wire) < CONN_OUT_FLUSH) {
		str s = str_head(buf_str(&c->out), CONN_TLS_RECORD);
		size_t done = 0;
		int result;

		if (t->is_broken)
			return conn_kill(c, ERR_CLOSED);
		ERR_clear_error();
		result = SSL_write_ex(t->ssl, s.p, s.n, &done);
		if (result != 1) {
			enum err err = judge(c, result);

			ERR_clear_error();
			return conn_kill(c, err == ERR_AGAIN ? ERR_PROTOCOL : err);
		}
		buf_take(&c->out, done);
	}
	return ERR_OK;
}

void conn_tls_goodbye(struct conn *c)
{
	if (!c->tls->is_ready || c->tls->is_broken)
		return;
	ERR_clear_error();
	SSL_shutdown(c->tls->ssl);
	ERR_clear_error();
}

void conn_tls_free(struct conn *c)
{
	if (!c->tls)
		return;
	SSL_free(c->tls->ssl);
	tls_certs_unref(c->tls->certs);
	buf_free(&c->tls->raw);
	buf_free(&c->tls->wire);
	free(c->tls);
	c->tls = NULL;
}

/* ---- the handshake ---- */

static enum err tls_attach(struct conn *c, struct tls_context *context)
{
	struct conn_tls *t = calloc(1, sizeof(*t));
	enum err err;
	BIO *bio;

	if (!t)
		return ERR_NO_MEMORY;
	buf_init(&t->raw, CONN_READ_LARGE);
	buf_init(&t->wire, CONN_OUT_MAX);
	if ((err = tls_ssl_new(context, &t->ssl, &t->certs))) {
		free(t);
		return err;
	}
	c->tls = t;
	bio = BIO_new(context->bio);
	if (!bio) {
		conn_tls_free(c);
		return ERR_NO_MEMORY;
	}
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	return ERR_OK;
}

static enum err handshake(struct conn *c)
{
	struct conn_tls *t = c->tls;
	enum err err;
	int result;

	for (;;) {
		if (c->is_cancelled)
			return ERR_CANCELLED;
		ERR_clear_error();
		result = SSL_do_handshake(t->ssl);
		err = result == 1 ? ERR_OK : judge(c, result);
		if (err && err != ERR_AGAIN)
			return err;
		if (buf_len(&t->wire) && conn_send_buf(c, &t->wire) == ERR_CLOSED)
			return ERR_CLOSED;
		if (!err)
			return ERR_OK;
		/* With an ERR_AGAIN of the send alone there is still something to read at some
		 * time. */
		if (!c->can_read && (err = conn_wait_input(c)))
			return err;
	}
}

static void note_text(struct conn *c)
{
	snprintf(c->tls->text, sizeof(c->tls->text), "%s %s", SSL_get_version(c->tls->ssl),
		 SSL_get_cipher_name(c->tls->ssl));
}

/* The first name of the peer's certificate, if it is a name at all. */
static void note_peer_name(struct conn *c)
{
	X509 *x = SSL_get0_peer_certificate(c->tls->ssl);
	GENERAL_NAMES *names = x ? X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL) : NULL;
	str found = STR_EMPTY;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found.n; i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_DNS)
			found = str_of(ASN1_STRING_get0_data(g->d.dNSName),
				       (size_t)ASN1_STRING_length(g->d.dNSName));
	}
	if (found.n >= sizeof(c->tls->name))
		found.n = 0;
	for (size_t i = 0; i < found.n; i++)
		if (found.p[i] <= ' ' || found.p[i] > '~')
			found.n = 0;
	if (found.n)
		memcpy(c->tls->name, found.p, found.n);
	GENERAL_NAMES_free(names);
}

static enum err run_handshake(struct conn *c, struct tls_context *context)
{
	enum err err = handshake(c);
	unsigned long e = err == ERR_PROTOCOL ? ERR_peek_error() : 0;
	char text[ADDR_TEXT_MAX];

	if (err) {
		log_info(context->log, "tls-failed", "peer=%.*s err=%s reason=\"%s\"",
			 STR_ARGS(addr_text(&c->peer, text)), err_name(err),
			 e ? ERR_reason_error_string(e) : "");
		ERR_clear_error();
		c->tls->is_broken = true;
		return conn_kill(c, err);
	}
	c->tls->is_ready = true;
	note_text(c);
	ERR_clear_error();
	return ERR_OK;
}

enum err conn_tls_accept(struct conn *c, struct tls_context *context)
{
	enum err err;

	assert(!c->tls && !c->is_parked && !context->client);
	if (c->dead)
		return c->dead;
	/* RFC 3207 4.2: nothing that came in clear counts. While our answer to STARTTLS is still
	 * here, all that the kernel has was sent before it. */
	if (conn_has_output(c))
		conn_discard_input(c);
	else
		conn_take(c, conn_pending(c).n);
	if ((err = conn_flush(c)) || (err = tls_attach(c, context)))
		return err;
	SSL_set_accept_state(c->tls->ssl);
	return run_handshake(c, context);
}

/* RFC 6066 3: names alone, no addresses, no final dot. */
static enum err set_server_name(struct conn *c, struct tls_context *context, str name)
{
	char text[256];
	struct addr ip;

	if (str_ends(name, S(".")))
		name.n--;
	if (!name.n || name.n >= sizeof(text) || str_find_char(name, '\0') != STR_NONE ||
	    !addr_parse_ip(name, &ip))
		return context->verifies ? ERR_DENIED : ERR_OK;
	memcpy(text, name.p, name.n);
	text[name.n] = '\0';
	if (SSL_set_tlsext_host_name(c->tls->ssl, text) != 1)
		return ERR_NO_MEMORY;
	if (!context->verifies)
		return ERR_OK;
	SSL_set_hostflags(c->tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(c->tls->ssl, text) == 1 ? ERR_OK : ERR_NO_MEMORY;
}

enum err conn_tls_connect(struct conn *c, struct tls_context *context, str server_name)
{
	enum err err;

	assert(!c->tls && !c->is_parked && context->client);
	if ((err = conn_flush(c)))
		return err;
	/* RFC 3207 4.2: the server speaks next after our ClientHello; what is here now is not from
	 * it. */
	conn_discard_input(c);
	if ((err = tls_attach(c, context)))
		return err;
	SSL_set_connect_state(c->tls->ssl);
	if ((err = set_server_name(c, context, server_name)) || (err = run_handshake(c, context)))
		return conn_kill(c, err);
	note_peer_name(c);
	c->tls->is_verified = context->verifies && SSL_get_verify_result(c->tls->ssl) == X509_V_OK;
	return ERR_OK;
}

bool conn_is_tls(const struct conn *c)
{
	return c->tls && c->tls->is_ready;
}

str conn_tls_text(const struct conn *c)
{
	return conn_is_tls(c) ? str_from_c(c->tls->text) : STR_EMPTY;
}

str conn_tls_peer_name(const struct conn *c)
{
	return conn_is_tls(c) ? str_from_c(c->tls->name) : STR_EMPTY;
}

bool conn_tls_is_verified(const struct conn *c)
{
	return conn_is_tls(c) && c->tls->is_verified;
}
