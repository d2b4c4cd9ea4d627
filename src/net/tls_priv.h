/* Shared by tls.c (contexts), tls_provider.c (signing elsewhere) and conn_tls.c (connections). */
#ifndef NET_TLS_PRIV_H
#define NET_TLS_PRIV_H

#include "net/tls.h"

#include <openssl/ssl.h>

/* One set of chains. Counted: a handshake under way keeps the one that it began with. */
struct tls_certs {
	unsigned references;
	uint32_t version;
	size_t count;
	SSL_CTX *ctx[TLS_CHAINS_MAX];
	X509 *leaf[TLS_CHAINS_MAX]; /* borrowed from ctx */
};

struct tls_context {
	struct loop *loop;
	const struct log *log;
	struct chan *keys;
	OSSL_LIB_CTX
		*lib; /* our own: the provider is known in it alone, and no openssl.cnf rules it */
	OSSL_PROVIDER *providers[2];
	BIO_METHOD *bio;	 /* reads and writes a struct conn */
	struct tls_certs *certs; /* a server's */
	SSL_CTX *client;
	bool verifies;
	bool is_loading, load_again, is_freed;
};

/* An SSL that is not yet connected to anything. *certs: to be given back with tls_certs_unref. */
MUST_USE enum err tls_ssl_new(struct tls_context *t, SSL **ssl, struct tls_certs **certs);
void tls_certs_unref(struct tls_certs *c);

/* conn_tls.c: the methods of the BIO between OpenSSL and a connection. */
BIO_METHOD *conn_tls_bio_method(void);

/* ---- tls_provider.c ---- */

enum { TLS_SIGNATURE_MAX = 512 }; /* RSA of 4096 bits */

/* Asks keys to sign; suspends the fiber. *n: room, then length. In tls.c. */
MUST_USE enum err tls_sign(struct tls_context *t, uint32_t version, uint16_t key, str digest,
			   bool pss, str text, unsigned char *signature, size_t *n);

/* The provider, to be registered under the name "posthorn". */
int tls_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
		      const OSSL_DISPATCH **out, void **context);
/* A private key that exists elsewhere, for this public one. */
MUST_USE enum err tls_provider_key(struct tls_context *t, uint32_t version, uint16_t number,
				   EVP_PKEY *public, EVP_PKEY **out);

#endif
