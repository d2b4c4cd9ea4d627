/* For tests: certificates made on the spot, and a role `keys` at the other end of a channel pair.
 */
#ifndef NET_TLS_TEST_UTIL_H
#define NET_TLS_TEST_UTIL_H

#include "base/tap.h"
#include "net/keyring.h"
#include "net/tls_priv.h"

#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

struct test_pem {
	struct buf certificate, key;
};

static inline void test_pem_free(struct test_pem *p)
{
	buf_free(&p->certificate);
	buf_free(&p->key);
}

static inline void bio_to_buf(BIO *bio, struct buf *b)
{
	char *p = NULL;
	long n = BIO_get_mem_data(bio, &p);

	buf_init(b, 1 << 20);
	buf_add(b, str_of(p, (size_t)n));
	BIO_free(bio);
}

static inline EVP_PKEY *test_key(const char *type)
{
	return strcmp(type, "RSA") == 0	       ? EVP_RSA_gen(2048)
	       : strcmp(type, "RSA-1024") == 0 ? EVP_RSA_gen(1024)
	       : strcmp(type, "ED25519") == 0  ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
					       : EVP_EC_gen(type);
}

/* Self-signed, for this DNS name, days from now until its end. */
static inline struct test_pem test_pem_new(const char *type, const char *name, int days)
{
	EVP_PKEY *key = test_key(type);
	X509 *x = X509_new();
	struct test_pem p;
	char san[300];
	X509_EXTENSION *extension;
	BIO *bio;

	snprintf(san, sizeof(san), "DNS:%s", name);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_set_version(x, 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -86400 * 30);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400L * days + 3600);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
	X509_add_ext(x, extension, -1);
	X509_EXTENSION_free(extension);
	if (X509_sign(x, key, strcmp(type, "ED25519") == 0 ? NULL : EVP_sha256()) <= 0)
		panic("cannot make a certificate");
	bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(bio, x);
	bio_to_buf(bio, &p.certificate);
	bio = BIO_new(BIO_s_mem());
	PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
	bio_to_buf(bio, &p.key);
	X509_free(x);
	EVP_PKEY_free(key);
	return p;
}

#endif
