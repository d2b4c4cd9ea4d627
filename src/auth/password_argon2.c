/* Argon2 (RFC 9106) in its encoded form, "$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH", base64 without
 * padding.
 *
 * The text is parsed here and not by libargon2's argon2_verify: that one allocates whatever memory
 * a stored text asks for, and starts a thread for each lane. Here a limit comes first, and one
 * thread computes all lanes, since the worker that calls this is itself one of few.
 */
#include "auth/password_priv.h"

#include "text/base64.h"

#include <argon2.h>
#include <openssl/crypto.h>

enum { ARGON2_SALT_MAX = 64, ARGON2_HASH_MIN = 16, ARGON2_HASH_MAX = 64, ARGON2_LANES = 16 };

struct argon2_stored {
	uint32_t kib, passes, lanes;
	uint8_t salt[ARGON2_SALT_MAX], hash[ARGON2_HASH_MAX];
	size_t salt_size, hash_size;
};

/* "m=19456" from the front of *rest, which goes on behind `sep`. */
static enum err number(str *rest, str name, char sep, uint32_t max, uint32_t *out)
{
	str field = str_cut(rest, sep);
	uint64_t v;
	enum err err;

	if (!str_starts(field, name))
		return ERR_SYNTAX;
	if ((err = str_to_u64(str_from(field, name.n), max, &v)))
		return err;
	*out = u32_of(v);
	return v ? ERR_OK : ERR_RANGE;
}

static enum err unpadded(str text, uint8_t *out, size_t min, size_t max, size_t *n)
{
	struct buf padded, bytes;
	enum err err;

	if (str_find_char(text, '=') != STR_NONE)
		return ERR_SYNTAX;
	buf_init(&padded, PASSWORD_STORED_MAX);
	buf_init(&bytes, PASSWORD_STORED_MAX);
	buf_add(&padded, text);
	for (size_t i = text.n; i % 4; i++)
		buf_add_char(&padded, '=');
	err = buf_failed(&padded) ? ERR_SYNTAX : base64_decode(buf_str(&padded), &bytes);
	*n = buf_len(&bytes);
	if (!err && (*n < min || *n > max))
		err = ERR_SYNTAX;
	if (!err)
		memcpy(out, buf_str(&bytes).p, *n);
	buf_free(&padded);
	buf_free(&bytes);
	return err;
}

static enum err parse(str text, enum password_scheme scheme, struct argon2_stored *s)
{
	enum err err;

	if (!str_eq(str_cut(&text, '$'), STR_EMPTY) ||
	    !str_eq(str_cut(&text, '$'),
		    scheme == PASSWORD_ARGON2ID ? S("argon2id") : S("argon2i")))
		return ERR_SYNTAX;
	/* RFC 9106 3.1: version 0x13. Texts without one are of an older, weaker algorithm. */
	if (!str_eq(str_cut(&text, '$'), S("v=19")))
		return ERR_UNSUPPORTED;
	if ((err = number(&text, S("m="), ',', PASSWORD_ARGON2_KIB_MAX, &s->kib)) ||
	    (err = number(&text, S("t="), ',', PASSWORD_ARGON2_WORK_MAX, &s->passes)) ||
	    (err = number(&text, S("p="), '$', ARGON2_LANES, &s->lanes)) ||
	    (err = unpadded(str_cut(&text, '$'), s->salt, ARGON2_MIN_SALT_LENGTH, ARGON2_SALT_MAX,
			    &s->salt_size)) ||
	    (err = unpadded(text, s->hash, ARGON2_HASH_MIN, ARGON2_HASH_MAX, &s->hash_size)))
		return err;
	/* RFC 9106 3.1: memory of at least 8 KiB a lane */
	if ((uint64_t)s->kib * s->passes > PASSWORD_ARGON2_WORK_MAX || s->kib < 8 * s->lanes)
		return ERR_RANGE;
	return ERR_OK;
}

static enum err compute(const struct argon2_stored *s, enum password_scheme scheme, str password,
			uint8_t *hash, size_t size)
{
	uint8_t salt[ARGON2_SALT_MAX], secret[PASSWORD_MAX];
	argon2_context context = {
		.out = hash,
		.outlen = (uint32_t)size,
		.pwd = secret,
		.pwdlen = (uint32_t)password.n,
		.salt = salt,
		.saltlen = (uint32_t)s->salt_size,
		.t_cost = s->passes,
		.m_cost = s->kib,
		.lanes = s->lanes,
		.threads = 1,
		.version = ARGON2_VERSION_13,
	};
	int rc;

	if (password.n > sizeof(secret))
		return ERR_AUTH;
	/* The library wants writable memory, though it changes none without flags. */
	memcpy(salt, s->salt, s->salt_size);
	if (password.n)
		memcpy(secret, password.p, password.n);
	rc = argon2_ctx(&context, scheme == PASSWORD_ARGON2ID ? Argon2_id : Argon2_i);
	OPENSSL_cleanse(secret, sizeof(secret));
	return rc == ARGON2_OK ? ERR_OK : ERR_TEMPORARY;
}

enum err password_argon2_check(str text, enum password_scheme scheme)
{
	struct argon2_stored s;

	return parse(text, scheme, &s);
}

enum err password_argon2_verify(str text, enum password_scheme scheme, str password)
{
	uint8_t hash[ARGON2_HASH_MAX];
	struct argon2_stored s;
	enum err err;

	if ((err = parse(text, scheme, &s)) ||
	    (err = compute(&s, scheme, password, hash, s.hash_size)))
		return err;
	return CRYPTO_memcmp(hash, s.hash, s.hash_size) ? ERR_AUTH : ERR_OK;
}

static str without_padding(const struct buf *b)
{
	str s = buf_str(b);

	while (s.n && s.p[s.n - 1] == '=')
		s.n--;
	return s;
}

enum err password_argon2_make(str password, const uint8_t salt[16], struct arena *a, str *text)
{
	struct argon2_stored s = {
		.kib = PASSWORD_ARGON2_KIB,
		.passes = PASSWORD_ARGON2_PASSES,
		.lanes = 1,
		.salt_size = 16,
		.hash_size = 32,
	};
	struct buf salt_text, hash_text;
	enum err err;

	memcpy(s.salt, salt, s.salt_size);
	if ((err = compute(&s, PASSWORD_ARGON2ID, password, s.hash, s.hash_size)))
		return err;
	buf_init(&salt_text, PASSWORD_STORED_MAX);
	buf_init(&hash_text, PASSWORD_STORED_MAX);
	base64_encode(str_of(s.salt, s.salt_size), 0, &salt_text);
	base64_encode(str_of(s.hash, s.hash_size), 0, &hash_text);
	*text = arena_printf(a, "$argon2id$v=19$m=%u,t=%u,p=%u$%.*s$%.*s", s.kib, s.passes, s.lanes,
			     STR_ARGS(without_padding(&salt_text)),
			     STR_ARGS(without_padding(&hash_text)));
	if (!text->p || buf_failed(&salt_text) || buf_failed(&hash_text))
		err = ERR_NO_MEMORY;
	buf_free(&salt_text);
	buf_free(&hash_text);
	return err;
}
