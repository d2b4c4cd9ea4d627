/* crypt(3) hashes, computed by libxcrypt (crypt_r).
 *
 * libxcrypt takes any cost that a setting string asks for: $6$rounds=999999999 runs for minutes,
 * yescrypt can ask for gigabytes. So the prefix is looked up in a table of what is known here, and
 * the cost is read and limited before crypt_r sees the text. Methods that are not in the table
 * (NTHASH, sunmd5, bsdi) are unsupported.
 *
 * crypt_r fails by returning an error token that begins with '*'; it can never equal a stored hash
 * here, because a text that begins with '*' is a locked account and was turned away before (see
 * password.c).
 */
#include "auth/password_priv.h"

#include <crypt.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

enum {
	DES_SIZE = 13,
	SHA_COST_MAX = PASSWORD_CRYPT_ROUNDS_MAX,
	MEMORY_LOG2_MAX = 28 /* 256 MiB */
};

struct crypt_method {
	str prefix;
	/* A set of 1 << scheme: the schemes under which the prefix is taken. */
	unsigned schemes;
	enum err (*check)(str rest);
};

static bool is_crypt_char(char c)
{
	return ascii_is_alnum(c) || c == '.' || c == '/';
}

/* The value of a digit in libcrypt's base 64 ("./0-9A-Za-z"), or -1. */
static int crypt64_value(char c)
{
	if (c == '.' || c == '/')
		return c - '.';
	if (ascii_is_digit(c))
		return c - '0' + 2;
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 12;
	return c >= 'a' && c <= 'z' ? c - 'a' + 38 : -1;
}

/* "rounds=5000$" may stand in front. */
static enum err check_sha(str rest)
{
	str rounds = str_cut(&rest, '$');
	uint64_t n;

	if (!str_starts(rounds, S("rounds=")))
		return ERR_OK;
	return str_to_u64(str_from(rounds, 7), SHA_COST_MAX, &n);
}

/* "12$": the logarithm of the rounds. */
static enum err check_bcrypt(str rest)
{
	uint64_t cost;
	str digits = str_head(rest, 2);

	if (rest.n < 3 || rest.p[2] != '$')
		return ERR_SYNTAX;
	return str_to_u64(digits, PASSWORD_BCRYPT_COST_MAX, &cost);
}

/* The variable-length numbers of yescrypt's setting: the first digit says by its range how many
 * follow. */
static bool yescrypt_number(str *rest, uint32_t min, uint32_t *out)
{
	uint32_t start = 0, end = 47, chars = 1, bits = 0, value = min, c;

	if (rest->n == 0 || crypt64_value(rest->p[0]) < 0)
		return false;
	c = (uint32_t)crypt64_value(rest->p[0]);
	*rest = str_from(*rest, 1);
	while (c > end) {
		value += (end + 1 - start) << bits;
		start = end + 1;
		end = start + (62 - end) / 2;
		chars++;
		bits += 6;
	}
	value += (c - start) << bits;
	while (--chars) {
		if (rest->n == 0 || crypt64_value(rest->p[0]) < 0)
			return false;
		bits -= 6;
		value += (uint32_t)crypt64_value(rest->p[0]) << bits;
		*rest = str_from(*rest, 1);
	}
	*out = value;
	return true;
}

/* Memory is 128 * r << N_log2 bytes. */
static enum err check_memory(uint64_t log2, uint64_t r)
{
	return log2 > 0 && log2 <= MEMORY_LOG2_MAX && r > 0 &&
			       r << log2 <= ((uint64_t)1 << MEMORY_LOG2_MAX) / 128
		       ? ERR_OK
		       : ERR_RANGE;
}

/* "j9T$": flavour, N_log2, r. Further parameters (lanes, time) exist and no password tool writes
 * them. */
static enum err check_yescrypt(str rest)
{
	uint32_t flavour, log2, r;

	if (!yescrypt_number(&rest, 0, &flavour) || !yescrypt_number(&rest, 1, &log2) ||
	    !yescrypt_number(&rest, 1, &r))
		return ERR_SYNTAX;
	if (rest.n == 0 || rest.p[0] != '$')
		return ERR_UNSUPPORTED;
	return check_memory(log2, r);
}

static enum err fixed_number(str digits, uint32_t *out)
{
	*out = 0;
	for (size_t i = digits.n; i > 0; i--) {
		int v = crypt64_value(digits.p[i - 1]);

		if (v < 0)
			return ERR_SYNTAX;
		*out = *out << 6 | (uint32_t)v;
	}
	return ERR_OK;
}

/* "C6..../....": N_log2 in one digit, r and p in five each, the lowest first. */
static enum err check_scrypt(str rest)
{
	uint32_t log2, r, p;
	enum err err;

	if (rest.n < 11)
		return ERR_SYNTAX;
	if ((err = fixed_number(str_head(rest, 1), &log2)) ||
	    (err = fixed_number(str_sub(rest, 1, 5), &r)) ||
	    (err = fixed_number(str_sub(rest, 6, 5), &p)))
		return err;
	return p == 1 ? check_memory(log2, r) : ERR_RANGE;
}

static enum err check_nothing(str rest UNUSED)
{
	return ERR_OK;
}

#define IN(scheme) (1u << PASSWORD_##scheme)

static const struct crypt_method methods[] = {
	{ S("$6$"), IN(SHA512_CRYPT) | IN(CRYPT), check_sha },
	{ S("$5$"), IN(SHA256_CRYPT) | IN(CRYPT), check_sha },
	{ S("$2a$"), IN(BLF_CRYPT) | IN(CRYPT), check_bcrypt },
	{ S("$2b$"), IN(BLF_CRYPT) | IN(CRYPT), check_bcrypt },
	{ S("$2y$"), IN(BLF_CRYPT) | IN(CRYPT), check_bcrypt },
	{ S("$y$"), IN(CRYPT), check_yescrypt },
	{ S("$gy$"), IN(CRYPT), check_yescrypt },
	{ S("$7$"), IN(CRYPT), check_scrypt },
	{ S("$1$"), IN(CRYPT), check_nothing },
};

static bool is_des(str text)
{
	for (size_t i = 0; i < text.n; i++)
		if (!is_crypt_char(text.p[i]))
			return false;
	return text.n == DES_SIZE;
}

enum err password_crypt_check(str text, enum password_scheme scheme)
{
	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] <= 0x20 || text.p[i] == 0x7f)
			return ERR_SYNTAX;
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (str_starts(text, methods[i].prefix))
			return methods[i].schemes & 1u << scheme
				       ? methods[i].check(str_from(text, methods[i].prefix.n))
				       : ERR_SYNTAX;
	if (scheme == PASSWORD_CRYPT && is_des(text))
		return ERR_OK;
	return scheme == PASSWORD_CRYPT ? ERR_UNSUPPORTED : ERR_SYNTAX;
}

static void wipe_and_free(void *p, size_t n)
{
	if (p)
		OPENSSL_cleanse(p, n);
	free(p);
}

/* Hashes with a setting that was checked; compares with `wanted` or, when that is empty, keeps the
 * text. */
static enum err hash(str setting, str password, str wanted, struct arena *a, str *text)
{
	struct crypt_data *data = calloc(1, sizeof(*data));
	char secret[PASSWORD_MAX + 1], setting_c[CRYPT_OUTPUT_SIZE];
	enum err err = ERR_TEMPORARY;
	const char *made;

	if (password.n > PASSWORD_MAX || setting.n >= sizeof(setting_c)) {
		free(data);
		return setting.n >= sizeof(setting_c) ? ERR_SYNTAX : ERR_AUTH;
	}
	memcpy(secret, password.n ? password.p : "", password.n);
	secret[password.n] = '\0';
	memcpy(setting_c, setting.p, setting.n);
	setting_c[setting.n] = '\0';
	errno = 0;
	made = data ? crypt_r(secret, setting_c, data) : NULL;
	if (made && made[0] != '*') {
		err = wanted.n && !str_secret_eq(str_from_c(made), wanted) ? ERR_AUTH : ERR_OK;
		if (!wanted.n) {
			*text = arena_str(a, str_from_c(made));
			err = text->p ? ERR_OK : ERR_NO_MEMORY;
		}
	} else if (data && errno == EINVAL) {
		err = ERR_SYNTAX; /* the salt or cost is not one of the method's */
	}
	OPENSSL_cleanse(secret, sizeof(secret));
	wipe_and_free(data, sizeof(*data));
	return err;
}

enum err password_crypt_verify(str text, enum password_scheme scheme, str password)
{
	enum err err = password_crypt_check(text, scheme);

	return err ? err : hash(text, password, text, NULL, NULL);
}

static const char *prefix_to_make(enum password_scheme scheme)
{
	switch (scheme) {
	case PASSWORD_SHA512_CRYPT:
		return "$6$";
	case PASSWORD_SHA256_CRYPT:
		return "$5$";
	case PASSWORD_BLF_CRYPT:
		return "$2b$";
	default:
		return "$y$";
	}
}

enum err password_crypt_make(enum password_scheme scheme, str password, const uint8_t random[16],
			     struct arena *a, str *text)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE], salt[16];

	memcpy(salt, random, sizeof(salt));
	/* Cost 0 is the method's own default. */
	if (!crypt_gensalt_rn(prefix_to_make(scheme), 0, salt, sizeof(salt), setting,
			      sizeof(setting)))
		return ERR_TEMPORARY;
	return hash(str_from_c(setting), password, STR_EMPTY, a, text);
}
