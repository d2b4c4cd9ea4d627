/* The private keys of TLS, and what they will sign.
 *
 * A front that was broken into can ask for signatures. It shall get none but those of handshakes
 * of this server's own: so the text is looked at here, whole, before it is hashed. Two shapes
 * exist:
 *
 *	TLS 1.3 (RFC 8446 4.4.3)  64 spaces, "TLS 1.3, server CertificateVerify", a zero byte, and
 * the hash of the transcript: 32 or 48 bytes TLS 1.2 (RFC 8422 5.4)    client random and server
 * random, 32 bytes each, then ServerECDHParams: named_curve (3), the group (2 bytes), the length of
 * the point, the point
 *
 * The second is the weaker fence (the randoms may be anything), but no certificate, no mail and no
 * client's CertificateVerify has it: DER begins with 0x30 and a length that would have to
 * contradict the total, and the 65th byte must be 3. RSA with PKCS #1 v1.5 exists in TLS 1.2
 * alone.
 *
 * Keys live in OpenSSL's secure heap (locked, not dumped, wiped when freed), as far as OpenSSL
 * goes: the numbers of private keys do, short-lived values on the stack of a signature do not.
 */
#include "net/keyring.h"

#include "base/msg.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

enum {
	SECURE_HEAP = 1024 * 1024,
	SECURE_SMALLEST = 32,
	CHAIN_CERTIFICATES_MAX = 10,
	NAME_MAX_BYTES = 256,
};

enum key_kind { KIND_EC, KIND_RSA, KIND_ED25519 };

struct pair {
	enum key_kind kind;
	EVP_PKEY *key;
	X509 *leaf;
	struct buf chain; /* DER */
	char name[NAME_MAX_BYTES];
};

struct keyring {
	OSSL_LIB_CTX *lib; /* our own: no openssl.cnf is read */
	OSSL_PROVIDER *provider;
	size_t count;
	struct pair pairs[KEYRING_KEYS_MAX];
};

enum err keyring_secure_memory(void)
{
	if (CRYPTO_secure_malloc_initialized())
		return ERR_OK;
	switch (CRYPTO_secure_malloc_init(SECURE_HEAP, SECURE_SMALLEST)) {
	case 1:
		return ERR_OK;
	case 2:
		return ERR_UNSUPPORTED;
	default:
		return ERR_NO_MEMORY;
	}
}

char *keyring_secure_alloc(size_t n)
{
	return OPENSSL_secure_malloc(n);
}

void keyring_secure_free(char *p, size_t n)
{
	OPENSSL_secure_clear_free(p, n);
}

enum err keyring_new(struct keyring **out)
{
	struct keyring *k = calloc(1, sizeof(*k));

	if (!k)
		return ERR_NO_MEMORY;
	k->lib = OSSL_LIB_CTX_new();
	if (!k->lib || !(k->provider = OSSL_PROVIDER_load(k->lib, "default"))) {
		keyring_free(k);
		return ERR_NO_MEMORY;
	}
	*out = k;
	return ERR_OK;
}

static void pair_clear(struct pair *p)
{
	EVP_PKEY_free(p->key);
	X509_free(p->leaf);
	buf_free(&p->chain);
	memset(p, 0, sizeof(*p));
}

void keyring_free(struct keyring *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->count; i++)
		pair_clear(&k->pairs[i]);
	if (k->provider)
		OSSL_PROVIDER_unload(k->provider);
	OSSL_LIB_CTX_free(k->lib);
	free(k);
}

/* ---- reading ---- */

static bool add_der(struct buf *chain, X509 *x)
{
	unsigned char *der = NULL;
	int n = i2d_X509(x, &der);

	if (n > 0)
		buf_add(chain, str_of(der, (size_t)n));
	OPENSSL_free(der);
	return n > 0 && !buf_failed(chain);
}

static X509 *read_certificate(struct keyring *k, BIO *bio)
{
	X509 *x = X509_new_ex(k->lib, NULL);

	if (x && PEM_read_bio_X509(bio, &x, NULL, NULL))
		return x;
	X509_free(x);
	return NULL;
}

static const char *read_chain(struct keyring *k, str pem, struct pair *p)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	const char *why = NULL;
	X509 *x;

	buf_init(&p->chain, KEYRING_CHAIN_MAX);
	for (int i = 0; bio && !why && (x = read_certificate(k, bio)); i++) {
		if (i >= CHAIN_CERTIFICATES_MAX || !add_der(&p->chain, x))
			why = "the certificate chain is too long";
		if (i == 0)
			p->leaf = x;
		else
			X509_free(x);
	}
	if (!why && (!p->leaf || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		why = "the certificate file is not PEM, or damaged";
	BIO_free(bio);
	return why;
}

/* A key that wants a password is no key that a server can use by itself. */
static int no_password(char *room, int size, int writing, void *arg)
{
	(void)room;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static const char *check_kind(struct pair *p)
{
	char group[32] = "";
	int bits = EVP_PKEY_get_bits(p->key);

	if (EVP_PKEY_is_a(p->key, "ED25519")) {
		p->kind = KIND_ED25519;
	} else if (EVP_PKEY_is_a(p->key, "RSA")) {
		p->kind = KIND_RSA;
		if (bits < 2048 || bits > 4096)
			return "the RSA key has not 2048 to 4096 bits";
	} else if (EVP_PKEY_is_a(p->key, "EC")) {
		p->kind = KIND_EC;
		if (EVP_PKEY_get_group_name(p->key, group, sizeof(group), NULL) != 1 ||
		    (strcmp(group, "prime256v1") != 0 && strcmp(group, "secp384r1") != 0))
			return "the EC key is on a curve other than P-256 and P-384";
	} else {
		return "the key is not EC, RSA or Ed25519";
	}
	return NULL;
}

static const char *read_key(struct keyring *k, str pem, struct pair *p)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);

	if (bio)
		p->key = PEM_read_bio_PrivateKey_ex(bio, NULL, no_password, NULL, k->lib, NULL);
	BIO_free(bio);
	return p->key ? check_kind(p) : "the key file is not PEM, is encrypted, or damaged";
}

/* The first DNS name, or else the common name; what is not printable is left out. */
static void note_name(struct pair *p)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(p->leaf, NID_subject_alt_name, NULL, NULL);
	str found = STR_EMPTY;
	size_t n = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found.n; i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_DNS)
			found = str_of(ASN1_STRING_get0_data(g->d.dNSName),
				       (size_t)ASN1_STRING_length(g->d.dNSName));
	}
	for (size_t i = 0; i < found.n && n < sizeof(p->name) - 1; i++)
		if (found.p[i] > ' ' && found.p[i] <= '~')
			p->name[n++] = found.p[i];
	if (!n)
		X509_NAME_get_text_by_NID(X509_get_subject_name(p->leaf), NID_commonName, p->name,
					  sizeof(p->name));
	GENERAL_NAMES_free(names);
}

enum err keyring_add(struct keyring *k, str certificates, str key, const char **why)
{
	struct pair p = { 0 };

	*why = "too many keys";
	if (k->count == KEYRING_KEYS_MAX)
		return ERR_TOO_MANY;
	*why = "the file is too large";
	if (certificates.n > KEYRING_FILE_MAX || key.n > KEYRING_FILE_MAX)
		return ERR_TOO_LONG;
	ERR_clear_error();
	*why = read_chain(k, certificates, &p);
	if (!*why)
		*why = read_key(k, key, &p);
	if (!*why && X509_check_private_key(p.leaf, p.key) != 1)
		*why = "the key is not that of the first certificate";
	ERR_clear_error();
	if (*why) {
		pair_clear(&p);
		return ERR_CONFIG;
	}
	note_name(&p);
	k->pairs[k->count++] = p;
	return ERR_OK;
}

size_t keyring_count(const struct keyring *k)
{
	return k->count;
}

void keyring_chains(const struct keyring *k, struct buf *out)
{
	for (size_t i = 0; i < k->count; i++)
		rec_keys_chain_put(out,
				   &(struct rec_keys_chain){ .key = u16_of(i),
							     .der = buf_str(&k->pairs[i].chain) });
}

str keyring_name(const struct keyring *k, size_t i)
{
	return i < k->count ? str_from_c(k->pairs[i].name) : STR_EMPTY;
}

int keyring_days_left(const struct keyring *k, size_t i, int64_t wall_us)
{
	ASN1_TIME *now = ASN1_TIME_set(NULL, (time_t)(wall_us / 1000000));
	int days = 0, seconds = 0;

	if (now && i < k->count)
		ASN1_TIME_diff(&days, &seconds, now, X509_get0_notAfter(k->pairs[i].leaf));
	ASN1_TIME_free(now);
	return days < 0 || seconds < 0 ? MIN(days, -1) : days;
}

/* ---- what may be signed ---- */

static bool is_tls13(str text)
{
	static const char context[] = "TLS 1.3, server CertificateVerify"; /* and its NUL */
	size_t head = 64 + sizeof(context);

	/* RFC 8446 4.4.3; the hash is that of the cipher suite: SHA-256 or SHA-384. */
	if (text.n != head + 32 && text.n != head + 48)
		return false;
	for (size_t i = 0; i < 64; i++)
		if (text.p[i] != ' ')
			return false;
	return memcmp(text.p + 64, context, sizeof(context)) == 0;
}

static bool is_tls12(str text)
{
	static const struct {
		uint16_t group; /* RFC 8422 5.1.1 */
		uint8_t point;
	} groups[] = { { 23, 65 }, { 24, 97 }, { 25, 133 }, { 29, 32 }, { 30, 56 } };
	const unsigned char *p = (const unsigned char *)text.p + 64;

	/* RFC 8422 5.4: curve_type named_curve, NamedCurve, ECPoint. */
	if (text.n < 64 + 4 || p[0] != 3)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(groups); i++)
		if (p[1] == groups[i].group >> 8 && p[2] == (groups[i].group & 0xff))
			return p[3] == groups[i].point && text.n == 64u + 4 + groups[i].point &&
			       (groups[i].group > 25 || p[4] == 4); /* uncompressed */
	return false;
}

enum keyring_text keyring_text(str text)
{
	return is_tls13(text)	? KEYRING_TEXT_TLS13
	       : is_tls12(text) ? KEYRING_TEXT_TLS12
				: KEYRING_TEXT_OTHER;
}

static const char *digest_name(str digest)
{
	static const char *const names[] = { "SHA256", "SHA384", "SHA512" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_case_eq(digest, str_from_c(names[i])))
			return names[i];
	/* OpenSSL's other spelling of the same. */
	return str_case_eq(digest, S("SHA2-256"))   ? names[0]
	       : str_case_eq(digest, S("SHA2-384")) ? names[1]
	       : str_case_eq(digest, S("SHA2-512")) ? names[2]
						    : NULL;
}

static bool is_allowed(const struct pair *p, const char *digest, str digest_given, bool pss,
		       str text)
{
	enum keyring_text kind = keyring_text(text);

	if (kind == KEYRING_TEXT_OTHER || (pss && p->kind != KIND_RSA))
		return false;
	if (p->kind == KIND_ED25519)
		return digest_given.n == 0;
	/* RFC 8446 4.2.3: PKCS #1 v1.5 signs no handshake of TLS 1.3. */
	return digest && (p->kind != KIND_RSA || pss || kind == KEYRING_TEXT_TLS12);
}

enum err keyring_sign(const struct keyring *k, unsigned number, str digest, bool pss, str text,
		      unsigned char *signature, size_t *n)
{
	const struct pair *p = &k->pairs[number < k->count ? number : 0];
	const char *name = digest_name(digest);
	EVP_PKEY_CTX *ctx = NULL;
	EVP_MD_CTX *md;
	bool good;

	if (number >= k->count)
		return ERR_NOT_FOUND;
	if (!is_allowed(p, name, digest, pss, text))
		return ERR_DENIED;
	md = EVP_MD_CTX_new();
	*n = KEYRING_SIGNATURE_MAX;
	good = md && EVP_DigestSignInit_ex(md, &ctx, name, k->lib, NULL, p->key, NULL) == 1 &&
	       (!pss || (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
			 EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1)) &&
	       EVP_DigestSign(md, signature, n, (const unsigned char *)text.p, text.n) == 1;
	EVP_MD_CTX_free(md);
	ERR_clear_error();
	return good ? ERR_OK : ERR_IO;
}
