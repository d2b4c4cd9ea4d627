/* TLS contexts: the set of certificate chains of a server, the rules of a client.
 *
 * Each chain is an SSL_CTX of its own; the first is the default, and the client's SNI (RFC 6066 3)
 * chooses another one when a name in its leaf certificate matches. A reload makes a whole new set
 * beside the old one, and the pointer changes when it is complete and good: a bad chain changes
 * nothing. The old set goes when the last connection that began with it does.
 *
 * Each context has an OpenSSL library context of its own, so that the provider of keys that live
 * elsewhere (tls_provider.c) is known to servers alone, nothing of ours is global, and no
 * openssl.cnf of the machine changes what we speak.
 */
#include "net/tls_priv.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

/* RFC 9325 4.2: forward secrecy and AEAD; nothing else is offered below TLS 1.3. */
#define SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=1"
/* A server that has no better one still gets more privacy than without TLS (RFC 7435). */
#define CLIENT_CIPHERS "DEFAULT:@SECLEVEL=1"
#define GROUPS	       "X25519:P-256:P-384"

static enum err context_new(struct loop *l, const struct log *log, struct tls_context **out)
{
	struct tls_context *t = calloc(1, sizeof(*t));

	if (!t)
		return ERR_NO_MEMORY;
	t->loop = l;
	t->log = log;
	t->lib = OSSL_LIB_CTX_new();
	t->bio = conn_tls_bio_method();
	if (!t->lib || !t->bio || !(t->providers[0] = OSSL_PROVIDER_load(t->lib, "default"))) {
		tls_free(t);
		return ERR_UNSUPPORTED;
	}
	*out = t;
	return ERR_OK;
}

static void context_delete(struct tls_context *t)
{
	tls_certs_unref(t->certs);
	SSL_CTX_free(t->client);
	for (size_t i = ARRAY_LEN(t->providers); i-- > 0;)
		if (t->providers[i])
			OSSL_PROVIDER_unload(t->providers[i]);
	BIO_meth_free(t->bio);
	OSSL_LIB_CTX_free(t->lib);
	free(t);
}

void tls_free(struct tls_context *t)
{
	if (!t)
		return;
	t->is_freed = true;
	/* The fiber that loads frees it then. */
	if (!t->is_loading)
		context_delete(t);
}

static bool common_settings(SSL_CTX *ctx, const char *ciphers)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					 SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* RFC 8996: TLS 1.0 and 1.1 are not to be used. */
	return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
	       SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_cipher_list(ctx, ciphers) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, GROUPS) == 1;
}

/* ---- a server's chains ---- */

static void certs_free(struct tls_certs *c)
{
	for (size_t i = 0; i < c->count; i++)
		SSL_CTX_free(c->ctx[i]);
	free(c);
}

void tls_certs_unref(struct tls_certs *c)
{
	if (c && --c->references == 0)
		certs_free(c);
}

/* RFC 6066 3: the chain for the name that the client asked for; the first when there is none. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
	struct tls_certs *c = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	for (size_t i = 0; name && i < c->count; i++)
		if (X509_check_host(c->leaf[i], name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
				    NULL) == 1) {
			SSL_set_SSL_CTX(ssl, c->ctx[i]);
			break;
		}
	ERR_clear_error();
	return SSL_TLSEXT_ERR_OK;
}

static X509 *next_certificate(struct tls_context *t, str *der)
{
	X509 *x = X509_new_ex(t->lib, NULL);
	const unsigned char *p = (const unsigned char *)der->p;

	if (!x || der->n > LONG_MAX || !d2i_X509(&x, &p, (long)der->n)) {
		X509_free(x);
		return NULL;
	}
	*der = str_from(*der, (size_t)((const char *)p - der->p));
	return x;
}

/* The leaf and its key first, then what leads to the root. */
static enum err use_chain(struct tls_context *t, SSL_CTX *ctx, uint32_t version,
			  const struct rec_keys_chain *chain)
{
	str der = chain->der;
	X509 *x = next_certificate(t, &der);
	EVP_PKEY *key = NULL;
	enum err err = ERR_UNSUPPORTED;

	if (x && SSL_CTX_use_certificate(ctx, x) == 1 && X509_get0_pubkey(x))
		err = tls_provider_key(t, version, chain->key, X509_get0_pubkey(x), &key);
	X509_free(x);
	if (!err && SSL_CTX_use_PrivateKey(ctx, key) != 1)
		err = ERR_UNSUPPORTED;
	EVP_PKEY_free(key);
	while (!err && der.n) {
		x = next_certificate(t, &der);
		if (!x || SSL_CTX_add0_chain_cert(ctx, x) != 1) {
			X509_free(x);
			err = ERR_UNSUPPORTED;
		}
	}
	return err;
}

static enum err add_chain(struct tls_context *t, struct tls_certs *c,
			  const struct rec_keys_chain *chain)
{
	SSL_CTX *ctx;
	enum err err;

	if (c->count == TLS_CHAINS_MAX)
		return ERR_TOO_MANY;
	ctx = SSL_CTX_new_ex(t->lib, NULL, TLS_server_method());
	if (!ctx)
		return ERR_NO_MEMORY;
	c->ctx[c->count++] = ctx;
	if (!common_settings(ctx, SERVER_CIPHERS))
		return ERR_UNSUPPORTED;
	SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
	SSL_CTX_set_tlsext_servername_arg(ctx, c);
	if ((err = use_chain(t, ctx, c->version, chain)))
		return err;
	c->leaf[c->count - 1] = SSL_CTX_get0_certificate(ctx);
	return ERR_OK;
}

static enum err certs_from(struct tls_context *t, const struct msg_keys_chains_reply *m,
			   struct tls_certs **out)
{
	struct tls_certs *c = calloc(1, sizeof(*c));
	struct rec_keys_chain chain;
	str rest = m->chains;
	enum err err;

	if (!c)
		return ERR_NO_MEMORY;
	c->references = 1;
	c->version = m->version;
	while (!(err = rec_keys_chain_get(&rest, &chain)))
		if ((err = add_chain(t, c, &chain))) {
			unsigned long e = ERR_peek_last_error();

			log_error(t->log, "tls-chain-refused", "chain=%zu err=%s openssl=\"%s\"",
				  c->count, err_name(err), e ? ERR_reason_error_string(e) : "");
			break;
		}
	ERR_clear_error();
	if (err != ERR_EOF) {
		certs_free(c);
		return err;
	}
	*out = c;
	return ERR_OK;
}

enum err tls_server_new(struct loop *l, const struct log *log, struct chan *keys,
			struct tls_context **out)
{
	struct tls_context *t;
	enum err err = context_new(l, log, &t);

	if (err)
		return err;
	t->keys = keys;
	if (OSSL_PROVIDER_add_builtin(t->lib, "posthorn", tls_provider_init) != 1 ||
	    !(t->providers[1] = OSSL_PROVIDER_load(t->lib, "posthorn")) ||
	    EVP_set_default_properties(t->lib, "?provider!=posthorn") != 1) {
		tls_free(t);
		return ERR_UNSUPPORTED;
	}
	*out = t;
	return ERR_OK;
}

enum err tls_server_load(struct tls_context *t, int64_t deadline)
{
	struct arena *a = arena_new(128 * 1024);
	struct msg_keys_chains_reply reply;
	struct tls_certs *certs = NULL;
	enum err err;

	if (!a)
		return ERR_NO_MEMORY;
	err = CALL(t->keys, keys_chains, keys_chains_reply, &reply, a, deadline);
	if (!err)
		err = certs_from(t, &reply, &certs);
	arena_free(a);
	if (err)
		return err;
	tls_certs_unref(t->certs);
	t->certs = certs->count ? certs : NULL;
	if (t->certs)
		return ERR_OK;
	tls_certs_unref(certs);
	return ERR_NOT_FOUND;
}

/* Whether it is to be tried again by itself: keys may only be starting. */
static bool log_load(struct tls_context *t, enum err err)
{
	if (!err)
		log_info(t->log, "tls-loaded", "chains=%zu version=%u", t->certs->count,
			 t->certs->version);
	else if (err == ERR_NOT_FOUND)
		log_info(t->log, "tls-off", "reason=\"no certificate is configured\"");
	else
		log_error(t->log, "tls-load-failed", "err=%s kept=%s", err_name(err),
			  t->certs ? "old" : "none");
	return err && err != ERR_NOT_FOUND;
}

static void reload_fiber(void *arg)
{
	struct tls_context *t = arg;
	enum err err;

	do {
		t->load_again = false;
		err = tls_server_load(t, loop_now(t->loop) + SECONDS(TLS_LOAD_SECONDS));
		if (t->is_freed)
			break;
		if (log_load(t, err) && !fiber_sleep(t->loop, SECONDS(TLS_RETRY_SECONDS)))
			t->load_again = true;
	} while (t->load_again && !t->is_freed);
	t->is_loading = false;
	if (t->is_freed)
		context_delete(t);
}

void tls_server_reload(struct tls_context *t)
{
	t->load_again = true;
	if (t->is_loading)
		return;
	if (fiber_spawn(t->loop, reload_fiber, t))
		log_error(t->log, "tls-load-failed", "err=BUSY kept=%s", t->certs ? "old" : "none");
	else
		t->is_loading = true;
}

bool tls_server_is_ready(const struct tls_context *t)
{
	return t->certs != NULL;
}

enum err tls_sign(struct tls_context *t, uint32_t version, uint16_t key, str digest, bool pss,
		  str text, unsigned char *signature, size_t *n)
{
	struct msg_keys_signature reply;
	struct arena *a;
	enum err err;

	if (!fiber_current(t->loop) || !(a = arena_new(4096)))
		return ERR_NO_MEMORY;
	err = CALL(t->keys, keys_sign, keys_signature, &reply, a,
		   loop_now(t->loop) + SECONDS(TLS_SIGN_SECONDS), .version = version, .key = key,
		   .digest = digest, .pss = pss, .text = text);
	if (!err && (reply.signature.n > *n || !reply.signature.n))
		err = ERR_PROTOCOL;
	if (!err) {
		memcpy(signature, reply.signature.p, reply.signature.n);
		*n = reply.signature.n;
	} else {
		log_error(t->log, "tls-sign-failed", "err=%s", err_name(err));
	}
	arena_free(a);
	if (err == ERR_STALE)
		tls_server_reload(t);
	return err;
}

/* ---- a client ---- */

static bool add_roots(SSL_CTX *ctx, str pem)
{
	BIO *bio = pem.n <= INT_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	size_t count = 0;
	X509 *x;

	while (bio && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		count += X509_STORE_add_cert(store, x) == 1;
		X509_free(x);
	}
	BIO_free(bio);
	ERR_clear_error();
	return count > 0;
}

enum err tls_client_new(struct loop *l, const struct log *log, str roots, struct tls_context **out)
{
	struct tls_context *t;
	enum err err = context_new(l, log, &t);

	if (err)
		return err;
	t->verifies = roots.n > 0;
	t->client = SSL_CTX_new_ex(t->lib, NULL, TLS_client_method());
	if (!t->client || !common_settings(t->client, CLIENT_CIPHERS)) {
		tls_free(t);
		return ERR_UNSUPPORTED;
	}
	SSL_CTX_set_verify(t->client, t->verifies ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (t->verifies && !add_roots(t->client, roots)) {
		tls_free(t);
		return ERR_CONFIG;
	}
	*out = t;
	return ERR_OK;
}

enum err tls_ssl_new(struct tls_context *t, SSL **ssl, struct tls_certs **certs)
{
	*certs = NULL;
	if (!t->client && !t->certs)
		return ERR_TEMPORARY;
	*ssl = SSL_new(t->client ? t->client : t->certs->ctx[0]);
	if (!*ssl)
		return ERR_NO_MEMORY;
	if (!t->client) {
		*certs = t->certs;
		t->certs->references++;
	}
	return ERR_OK;
}
