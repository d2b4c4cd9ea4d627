/* The keys' fence: what is read, and that nothing but a TLS server's handshake is ever signed. */
#include "net/tls_test_util.h"

enum { TEXT_MAX = 4096 };

struct text {
	char p[TEXT_MAX];
	size_t n;
};

static void add(struct text *t, const void *p, size_t n)
{
	memcpy(t->p + t->n, p, n);
	t->n += n;
}

static void fill(struct text *t, char c, size_t n)
{
	memset(t->p + t->n, c, n);
	t->n += n;
}

/* RFC 8446 4.4.3 */
static struct text tls13(const char *context, size_t hash)
{
	struct text t = { .n = 0 };

	fill(&t, ' ', 64);
	add(&t, context, strlen(context) + 1);
	fill(&t, 'h', hash);
	return t;
}

/* RFC 8422 5.4 */
static struct text tls12(unsigned group, size_t point)
{
	struct text t = { .n = 0 };
	const char head[] = { 3, (char)(group >> 8), (char)group, (char)point };

	fill(&t, 'r', 64);
	add(&t, head, sizeof(head));
	fill(&t, 4, point);
	return t;
}

static str text_str(const struct text *t)
{
	return str_of(t->p, t->n);
}

static void shapes(void)
{
	static const char server[] = "TLS 1.3, server CertificateVerify";
	struct text t;

	tap_group("shapes");
	for (size_t hash = 0; hash <= 64; hash++) {
		t = tls13(server, hash);
		EQ(keyring_text(text_str(&t)),
		   hash == 32 || hash == 48 ? KEYRING_TEXT_TLS13 : KEYRING_TEXT_OTHER);
	}
	t = tls13("TLS 1.3, client CertificateVerify", 32);
	EQ(keyring_text(text_str(&t)), KEYRING_TEXT_OTHER);
	t = tls13(server, 32);
	for (size_t i = 0; i < 64 + sizeof(server); i++) {
		t.p[i] ^= 1;
		OK(keyring_text(text_str(&t)) == KEYRING_TEXT_OTHER);
		t.p[i] ^= 1;
	}
	static const struct {
		unsigned group;
		size_t point;
		enum keyring_text kind;
	} rows[] = {
		{ 23, 65, KEYRING_TEXT_TLS12 },	 { 24, 97, KEYRING_TEXT_TLS12 },
		{ 25, 133, KEYRING_TEXT_TLS12 }, { 29, 32, KEYRING_TEXT_TLS12 },
		{ 30, 56, KEYRING_TEXT_TLS12 },	 { 23, 64, KEYRING_TEXT_OTHER },
		{ 23, 66, KEYRING_TEXT_OTHER },	 { 29, 31, KEYRING_TEXT_OTHER },
		{ 29, 33, KEYRING_TEXT_OTHER },	 { 22, 65, KEYRING_TEXT_OTHER },
		{ 0, 0, KEYRING_TEXT_OTHER },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		t = tls12(rows[i].group, rows[i].point);
		EQ(keyring_text(text_str(&t)), rows[i].kind);
	}
	t = tls12(23, 65);
	fill(&t, 'x', 1);
	EQ(keyring_text(text_str(&t)), KEYRING_TEXT_OTHER);
	t = tls12(23, 65);
	t.n--;
	EQ(keyring_text(text_str(&t)), KEYRING_TEXT_OTHER);
	t = tls12(23, 65);
	t.p[64] = 1; /* explicit_prime: no parameters of an attacker's own */
	EQ(keyring_text(text_str(&t)), KEYRING_TEXT_OTHER);
	t = tls12(23, 65);
	t.p[68] = 2; /* compressed */
	EQ(keyring_text(text_str(&t)), KEYRING_TEXT_OTHER);
	EQ(keyring_text(STR_EMPTY), KEYRING_TEXT_OTHER);
}

static bool verify(const struct test_pem *pem, const char *digest, bool pss, str text,
		   const unsigned char *sig, size_t n)
{
	BIO *bio = BIO_new_mem_buf(buf_str(&pem->certificate).p, (int)buf_len(&pem->certificate));
	X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	EVP_PKEY_CTX *ctx = NULL;
	bool good = EVP_DigestVerifyInit_ex(md, &ctx, digest, NULL, NULL, X509_get0_pubkey(x),
					    NULL) == 1;

	if (pss)
		good = good && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		       EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
	good = good && EVP_DigestVerify(md, sig, n, (const unsigned char *)text.p, text.n) == 1;
	EVP_MD_CTX_free(md);
	X509_free(x);
	BIO_free(bio);
	return good;
}

/* A broken-in front asks for anything but a handshake. */
static void arbitrary(const struct keyring *k, unsigned number, str digest, bool pss)
{
	unsigned char sig[KEYRING_SIGNATURE_MAX];
	static const char *const texts[] = {
		"", "sign my evil certificate", "\x30\x82\x01\x0a\x02\x82\x01\x01",
		"from:alice@example.org\r\ndkim-signature:v=1; a=rsa-sha256"
	};
	struct text t;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		EQ(keyring_sign(k, number, digest, pss, str_from_c(texts[i]), sig, &n), ERR_DENIED);
	t = tls13("TLS 1.3, client CertificateVerify", 32);
	EQ(keyring_sign(k, number, digest, pss, text_str(&t), sig, &n), ERR_DENIED);
	t = (struct text){ .n = 0 };
	fill(&t, 'd', 32); /* a bare digest */
	EQ(keyring_sign(k, number, digest, pss, text_str(&t), sig, &n), ERR_DENIED);
}

static void signing(void)
{
	static const struct {
		const char *type, *digest;
		bool pss;
		enum err err13, err12;
	} rows[] = {
		{ "P-256", "SHA256", false, ERR_OK, ERR_OK },
		{ "P-256", "SHA384", false, ERR_OK, ERR_OK },
		{ "P-256", "SHA1", false, ERR_DENIED, ERR_DENIED },
		{ "P-256", "", false, ERR_DENIED, ERR_DENIED },
		{ "P-256", "SHA256", true, ERR_DENIED, ERR_DENIED },
		{ "P-384", "SHA384", false, ERR_OK, ERR_OK },
		{ "RSA", "SHA256", true, ERR_OK, ERR_OK },
		{ "RSA", "SHA512", false, ERR_DENIED, ERR_OK },
		{ "RSA", "MD5", true, ERR_DENIED, ERR_DENIED },
		{ "ED25519", "", false, ERR_OK, ERR_OK },
		{ "ED25519", "SHA256", false, ERR_DENIED, ERR_DENIED },
	};
	unsigned char sig[KEYRING_SIGNATURE_MAX];
	struct text t13 = tls13("TLS 1.3, server CertificateVerify", 32), t12 = tls12(29, 32);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct test_pem pem = test_pem_new(rows[i].type, "mail.example.test", 90);
		str digest = str_from_c(rows[i].digest);
		const char *md = digest.n ? rows[i].digest : NULL, *why;
		struct keyring *k;
		size_t n = 0;

		tap_group(rows[i].type);
		EQ(keyring_new(&k), ERR_OK);
		EQ(keyring_add(k, buf_str(&pem.certificate), buf_str(&pem.key), &why), ERR_OK);
		EQ(keyring_sign(k, 0, digest, rows[i].pss, text_str(&t13), sig, &n), rows[i].err13);
		if (!rows[i].err13)
			OK(verify(&pem, md, rows[i].pss, text_str(&t13), sig, n));
		EQ(keyring_sign(k, 0, digest, rows[i].pss, text_str(&t12), sig, &n), rows[i].err12);
		if (!rows[i].err12)
			OK(verify(&pem, md, rows[i].pss, text_str(&t12), sig, n));
		arbitrary(k, 0, digest, rows[i].pss);
		EQ(keyring_sign(k, 1, digest, rows[i].pss, text_str(&t13), sig, &n), ERR_NOT_FOUND);
		EQ(keyring_sign(k, 65535, digest, rows[i].pss, text_str(&t13), sig, &n),
		   ERR_NOT_FOUND);
		keyring_free(k);
		test_pem_free(&pem);
	}
}

static void refused(struct keyring *k, str certificate, str key)
{
	const char *why = NULL;
	size_t before = keyring_count(k);

	EQ(keyring_add(k, certificate, key, &why), ERR_CONFIG);
	OK(why != NULL);
	EQ(keyring_count(k), before);
}

static void reading(void)
{
	struct test_pem a = test_pem_new("P-256", "a.example.test", 90),
			b = test_pem_new("P-256", "b.example.test", -1);
	struct test_pem small = test_pem_new("RSA-1024", "c.example.test", 9),
			odd = test_pem_new("P-521", "d.test", 9);
	struct keyring *k;
	struct rec_keys_chain chain;
	struct buf both, chains;
	const char *why;
	str rest;

	tap_group("reading");
	EQ(keyring_new(&k), ERR_OK);
	refused(k, STR_EMPTY, STR_EMPTY);
	refused(k, S("rubbish"), buf_str(&a.key));
	refused(k, buf_str(&a.certificate), S("rubbish"));
	refused(k, buf_str(&a.certificate), buf_str(&b.key)); /* another's key */
	refused(k, buf_str(&a.certificate), buf_str(&a.certificate));
	refused(k, buf_str(&small.certificate), buf_str(&small.key));
	refused(k, buf_str(&odd.certificate), buf_str(&odd.key));
	refused(k, str_head(buf_str(&a.certificate), 300), buf_str(&a.key));
	EQ(keyring_add(k, buf_str(&a.certificate), buf_str(&a.key), &why), ERR_OK);
	buf_init(&both, 1 << 20);
	buf_add(&both, buf_str(&b.certificate));
	buf_add(&both, S("some text between\n"));
	buf_add(&both, buf_str(&a.certificate));
	buf_add(&both, buf_str(&b.key)); /* one file for all, as `$tls_cert_file` means */
	EQ(keyring_add(k, buf_str(&both), buf_str(&both), &why), ERR_OK);
	/* A chain that breaks off is not a shorter chain. */
	refused(k, str_head(buf_str(&both), buf_len(&b.certificate) + 200), buf_str(&b.key));
	EQ(keyring_count(k), 2);
	STR_EQ(keyring_name(k, 0), S("a.example.test"));
	STR_EQ(keyring_name(k, 1), S("b.example.test"));
	EQ(keyring_days_left(k, 0, (int64_t)time(NULL) * 1000000), 90);
	OK(keyring_days_left(k, 1, (int64_t)time(NULL) * 1000000) < 0);

	buf_init(&chains, 1 << 20);
	keyring_chains(k, &chains);
	rest = buf_str(&chains);
	EQ(rec_keys_chain_get(&rest, &chain), ERR_OK);
	EQ(chain.key, 0);
	EQ(rec_keys_chain_get(&rest, &chain), ERR_OK);
	EQ(chain.key, 1);
	EQ(rec_keys_chain_get(&rest, &chain), ERR_EOF);
	/* The chains are public: no part of a key is in them. */
	OK(str_find(buf_str(&chains), S("PRIVATE")) == STR_NONE);
	buf_free(&chains);
	buf_free(&both);
	keyring_free(k);
	test_pem_free(&a);
	test_pem_free(&b);
	test_pem_free(&small);
	test_pem_free(&odd);
}

int main(void)
{
	enum err err = keyring_secure_memory();

	OK(err == ERR_OK || err == ERR_UNSUPPORTED);
	shapes();
	signing();
	reading();
	return tap_done();
}
