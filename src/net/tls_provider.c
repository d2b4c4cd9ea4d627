/* A provider for OpenSSL 3 whose private keys live in role `keys`.
 *
 * OpenSSL asks a key's provider to sign, with the whole text, not a digest (digest_sign): the
 * concatenation of RFC 8446 4.4.3 for TLS 1.3, randoms and ECDHE parameters for TLS 1.2 (RFC 8422
 * 5.4). So `keys` sees what it signs and can refuse anything else; a front that was broken into
 * cannot use it to sign certificates, mail or a handshake of another server. The other ways,
 * replacing the methods of RSA and EC keys or SSL_MODE_ASYNC, show it a digest alone, or want a
 * second stack per connection.
 *
 * A "key" here is the public part, a number, a version and the context to ask. Key management can
 * import and compare those, and nothing else; it cannot export, so OpenSSL never tries to use
 * another provider's signature with such a key. Algorithms are named with the property
 * provider=posthorn, which the library context's default query avoids: ephemeral keys and peers'
 * certificates stay with the default provider.
 *
 * Signing suspends the fiber inside SSL_do_handshake. Other handshakes run meanwhile on the same
 * thread, and OpenSSL's error queue belongs to the thread: it is emptied when we come back, so
 * that nothing of another connection's is taken for ours by SSL_get_error.
 */
#include "net/tls_priv.h"

#include <assert.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#define PARAM_CONTEXT "posthorn-context"
#define PARAM_VERSION "posthorn-version"
#define PARAM_NUMBER  "posthorn-number"

enum key_type { KEY_EC, KEY_RSA, KEY_ED25519 };

enum { PUBLIC_MAX = 1024, GROUP_MAX = 32, DIGEST_MAX = 16 };

struct remote_key {
	enum key_type type;
	struct tls_context *context;
	unsigned version, number;
	char group[GROUP_MAX];		  /* EC */
	unsigned char public[PUBLIC_MAX]; /* the point; RSA: the modulus; as OpenSSL exports them */
	size_t public_size;
};

/* ---- key management ---- */

static void *key_new(enum key_type type)
{
	struct remote_key *k = calloc(1, sizeof(*k));

	if (k)
		k->type = type;
	return k;
}

static void *key_new_ec(void *provider)
{
	(void)provider;
	return key_new(KEY_EC);
}

static void *key_new_rsa(void *provider)
{
	(void)provider;
	return key_new(KEY_RSA);
}

static void *key_new_ed25519(void *provider)
{
	(void)provider;
	return key_new(KEY_ED25519);
}

static void key_free(void *key)
{
	free(key);
}

static int key_has(const void *key, int selection)
{
	(void)selection;
	return key != NULL;
}

static bool take_bytes(const OSSL_PARAM *params, const char *name, void *to, size_t max, size_t *n)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);

	if (!p || p->data_size > max || (!p->data && p->data_size))
		return false;
	if (p->data_size)
		memcpy(to, p->data, p->data_size);
	*n = p->data_size;
	return true;
}

static int key_import(void *key, int selection, const OSSL_PARAM params[])
{
	struct remote_key *k = key;
	const OSSL_PARAM *version = OSSL_PARAM_locate_const(params, PARAM_VERSION);
	const OSSL_PARAM *number = OSSL_PARAM_locate_const(params, PARAM_NUMBER);
	const char *public = k->type == KEY_RSA ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_PUB_KEY;
	size_t n;

	(void)selection;
	if (!take_bytes(params, public, k->public, sizeof(k->public), &k->public_size))
		return 0;
	if (k->type == KEY_EC &&
	    !take_bytes(params, OSSL_PKEY_PARAM_GROUP_NAME, k->group, GROUP_MAX - 1, &n))
		return 0;
	/* Without these it is a public key that was brought here to be compared. */
	if (!version || !number)
		return 1;
	return take_bytes(params, PARAM_CONTEXT, &k->context, sizeof(k->context), &n) &&
	       n == sizeof(k->context) && OSSL_PARAM_get_uint(version, &k->version) &&
	       OSSL_PARAM_get_uint(number, &k->number);
}

static const OSSL_PARAM *key_import_types(int selection)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
		OSSL_PARAM_octet_string(PARAM_CONTEXT, NULL, 0),
		OSSL_PARAM_uint(PARAM_VERSION, NULL),
		OSSL_PARAM_uint(PARAM_NUMBER, NULL),
		OSSL_PARAM_END,
	};

	(void)selection;
	return types;
}

static int key_match(const void *a, const void *b, int selection)
{
	const struct remote_key *x = a, *y = b;

	(void)selection;
	return x->type == y->type && x->public_size == y->public_size && x->public_size &&
	       memcmp(x->public, y->public, x->public_size) == 0 && strcmp(x->group, y->group) == 0;
}

struct key_sizes {
	int bits, security, signature;
};

static struct key_sizes key_sizes(const struct remote_key *k)
{
	int bits = (int)k->public_size * 8;

	if (k->type == KEY_RSA) /* NIST SP 800-57 part 1, table 2 */
		return (struct key_sizes){ bits,
					   bits >= 3072	  ? 128
					   : bits >= 2048 ? 112
							  : 80,
					   bits / 8 };
	if (k->type == KEY_ED25519)
		return (struct key_sizes){ 256, 128, 64 };
	if (strcmp(k->group, "secp384r1") == 0 || strcmp(k->group, "P-384") == 0)
		return (struct key_sizes){ 384, 192, 104 };
	return (struct key_sizes){ 256, 128, 72 };
}

static int set_int(OSSL_PARAM *params, const char *name, int value)
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, name);

	return !p || OSSL_PARAM_set_int(p, value);
}

static int set_text(OSSL_PARAM *params, const char *name, const char *value)
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, name);

	return !p || OSSL_PARAM_set_utf8_string(p, value);
}

static int key_get_params(void *key, OSSL_PARAM params[])
{
	const struct remote_key *k = key;
	struct key_sizes s = key_sizes(k);

	return set_int(params, OSSL_PKEY_PARAM_BITS, s.bits) &&
	       set_int(params, OSSL_PKEY_PARAM_SECURITY_BITS, s.security) &&
	       set_int(params, OSSL_PKEY_PARAM_MAX_SIZE, s.signature) &&
	       /* RFC 8032 5.1: Ed25519 hashes by itself. */
	       (k->type == KEY_ED25519
			? set_text(params, OSSL_PKEY_PARAM_MANDATORY_DIGEST, "")
			: set_text(params, OSSL_PKEY_PARAM_DEFAULT_DIGEST, "SHA256")) &&
	       (k->type != KEY_EC || set_text(params, OSSL_PKEY_PARAM_GROUP_NAME, k->group));
}

static const OSSL_PARAM *key_gettable_params(void *provider)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)provider;
	return types;
}

static const char *operation_ec(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

static const char *operation_rsa(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "RSA" : NULL;
}

static const char *operation_ed25519(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "ED25519" : NULL;
}

/* ---- signatures ---- */

struct signature {
	struct remote_key *key; /* held by the EVP_PKEY that OpenSSL holds meanwhile */
	char digest[DIGEST_MAX];
	bool pss;
};

static void *signature_new(void *provider, const char *query)
{
	(void)provider;
	(void)query;
	return calloc(1, sizeof(struct signature));
}

static void signature_free(void *signature)
{
	free(signature);
}

static int signature_set_params(void *signature, const OSSL_PARAM params[])
{
	struct signature *s = signature;
	const OSSL_PARAM *p =
		params ? OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE) : NULL;
	const char *text = NULL;
	int mode = 0;

	/* The salt is always as long as the digest (RFC 8446 4.2.3): keys knows no other. */
	if (!p)
		return 1;
	if (p->data_type == OSSL_PARAM_UTF8_STRING) {
		if (!OSSL_PARAM_get_utf8_string_ptr(p, &text))
			return 0;
		s->pss = strcmp(text, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0;
		return s->pss || strcmp(text, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0;
	}
	if (!OSSL_PARAM_get_int(p, &mode))
		return 0;
	s->pss = mode == RSA_PKCS1_PSS_PADDING;
	return s->pss || mode == RSA_PKCS1_PADDING;
}

static const OSSL_PARAM *signature_settable_params(void *signature, void *provider)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)signature;
	(void)provider;
	return types;
}

static int signature_init(void *signature, const char *digest, void *key, const OSSL_PARAM params[])
{
	struct signature *s = signature;
	str name = str_from_c(digest);

	if (!key || name.n >= sizeof(s->digest))
		return 0;
	s->key = key;
	memset(s->digest, 0, sizeof(s->digest));
	if (name.n)
		memcpy(s->digest, name.p, name.n);
	s->pss = false;
	return signature_set_params(signature, params);
}

static int signature_sign(void *signature, unsigned char *out, size_t *n, size_t room,
			  const unsigned char *text, size_t text_size)
{
	struct signature *s = signature;
	struct remote_key *k = s->key;
	enum err err;

	if (!out) {
		*n = (size_t)key_sizes(k).signature;
		return 1;
	}
	if (!k->context)
		return 0;
	*n = room;
	err = tls_sign(k->context, k->version, (uint16_t)k->number, str_from_c(s->digest), s->pss,
		       str_of(text, text_size), out, n);
	ERR_clear_error(); /* others' errors, see above */
	return !err;
}

/* ---- tables ---- */

#define FN(f) ((void (*)(void))(f))
#define KEYMGMT(kind)                                                             \
	static const OSSL_DISPATCH keymgmt_##kind[] = {                           \
		{ OSSL_FUNC_KEYMGMT_NEW, FN(key_new_##kind) },                    \
		{ OSSL_FUNC_KEYMGMT_FREE, FN(key_free) },                         \
		{ OSSL_FUNC_KEYMGMT_HAS, FN(key_has) },                           \
		{ OSSL_FUNC_KEYMGMT_IMPORT, FN(key_import) },                     \
		{ OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FN(key_import_types) },         \
		{ OSSL_FUNC_KEYMGMT_MATCH, FN(key_match) },                       \
		{ OSSL_FUNC_KEYMGMT_GET_PARAMS, FN(key_get_params) },             \
		{ OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FN(key_gettable_params) },   \
		{ OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FN(operation_##kind) }, \
		{ 0, NULL },                                                      \
	}

KEYMGMT(ec);
KEYMGMT(rsa);
KEYMGMT(ed25519);

static const OSSL_DISPATCH signature_functions[] = {
	{ OSSL_FUNC_SIGNATURE_NEWCTX, FN(signature_new) },
	{ OSSL_FUNC_SIGNATURE_FREECTX, FN(signature_free) },
	{ OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FN(signature_init) },
	{ OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FN(signature_sign) },
	{ OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, FN(signature_set_params) },
	{ OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, FN(signature_settable_params) },
	{ 0, NULL },
};

#define PROPERTIES "provider=posthorn"

static const OSSL_ALGORITHM keymgmts[] = {
	{ "EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, keymgmt_ec, NULL },
	{ "RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, keymgmt_rsa, NULL },
	{ "ED25519:1.3.101.112", PROPERTIES, keymgmt_ed25519, NULL },
	{ NULL, NULL, NULL, NULL },
};

static const OSSL_ALGORITHM signatures[] = {
	{ "ECDSA", PROPERTIES, signature_functions, NULL },
	{ "RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, signature_functions, NULL },
	{ "ED25519:1.3.101.112", PROPERTIES, signature_functions, NULL },
	{ NULL, NULL, NULL, NULL },
};

static const OSSL_ALGORITHM *provider_query(void *provider, int operation, int *no_cache)
{
	(void)provider;
	*no_cache = 0;
	return operation == OSSL_OP_KEYMGMT	? keymgmts
	       : operation == OSSL_OP_SIGNATURE ? signatures
						: NULL;
}

int tls_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
		      const OSSL_DISPATCH **out, void **context)
{
	static const OSSL_DISPATCH functions[] = {
		{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, FN(provider_query) },
		{ 0, NULL },
	};

	(void)in;
	*out = functions;
	*context = (void *)(uintptr_t)handle; /* it must not be NULL; nothing reads it */
	return 1;
}

/* ---- making a key ---- */

static const char *type_name(EVP_PKEY *public)
{
	return EVP_PKEY_is_a(public, "EC")	  ? "EC"
	       : EVP_PKEY_is_a(public, "RSA")	  ? "RSA"
	       : EVP_PKEY_is_a(public, "ED25519") ? "ED25519"
						  : NULL;
}

static bool key_from_params(struct tls_context *t, const char *type, OSSL_PARAM *params,
			    EVP_PKEY **out)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(t->lib, type, PROPERTIES);
	bool good = ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
		    EVP_PKEY_fromdata(ctx, out, EVP_PKEY_KEYPAIR, params) == 1;

	EVP_PKEY_CTX_free(ctx);
	return good;
}

enum err tls_provider_key(struct tls_context *t, uint32_t version, uint16_t number,
			  EVP_PKEY *public, EVP_PKEY **out)
{
	unsigned version_value = version, number_value = number;
	const char *type = type_name(public);
	OSSL_PARAM ours[] = {
		OSSL_PARAM_construct_octet_string(PARAM_CONTEXT, &t, sizeof(struct tls_context *)),
		OSSL_PARAM_construct_uint(PARAM_VERSION, &version_value),
		OSSL_PARAM_construct_uint(PARAM_NUMBER, &number_value),
		OSSL_PARAM_construct_end(),
	};
	OSSL_PARAM *theirs = NULL, *all = NULL;
	enum err err = ERR_UNSUPPORTED;

	*out = NULL;
	if (!type)
		return err;
	/* The same export that a comparison with the certificate's key will see. */
	if (EVP_PKEY_todata(public, EVP_PKEY_PUBLIC_KEY, &theirs) == 1 &&
	    (all = OSSL_PARAM_merge(theirs, ours)) && key_from_params(t, type, all, out))
		err = ERR_OK;
	OSSL_PARAM_free(all);
	OSSL_PARAM_free(theirs);
	ERR_clear_error();
	return err;
}
