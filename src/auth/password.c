/* Stored passwords: the table of schemes, and what is the same for all of them.
 *
 * An answer is ERR_OK only from a comparison that a scheme made. All that a stored text could do to
 * this process (memory, time) is limited by its scheme before it computes. Compares take a time
 * that does not depend on what differs. Secrets are wiped where they were copied to.
 *
 * A new password is stored twice: as argon2id, against which PLAIN and LOGIN are checked, and as
 * SCRAM credentials, because a SCRAM server needs keys that no other hash gives (RFC 5802 3).
 * Whoever steals the directory will guess against the weaker of the two, PBKDF2; who holds that
 * against it asks for another scheme, or removes the second column, and SCRAM fails for that
 * account as for an unknown one.
 */
#include "auth/password_priv.h"
#include "auth/saslprep.h"
#include "auth/scram.h"

#include <openssl/crypto.h>

struct scheme {
	str name;
	enum err (*check)(str text, enum password_scheme scheme);
	enum err (*verify)(str text, enum password_scheme scheme, str password);
};

static enum err scram_check(str text, enum password_scheme scheme UNUSED)
{
	struct scram_credentials c;

	return scram_parse(text, &c);
}

static enum err scram_verify(str text, enum password_scheme scheme UNUSED, str password)
{
	struct scram_credentials stored, tried;
	enum err err;

	if ((err = scram_parse(text, &stored)))
		return err;
	err = scram_derive(password, str_of(stored.salt, stored.salt_size), stored.iterations,
			   &tried);
	if (err == ERR_SYNTAX || err == ERR_TOO_LONG)
		return ERR_AUTH; /* SASLprep refuses it, so it was never set */
	if (!err && CRYPTO_memcmp(stored.stored_key, tried.stored_key, SCRAM_KEY_SIZE))
		err = ERR_AUTH;
	OPENSSL_cleanse(&tried, sizeof(tried));
	return err == ERR_NO_MEMORY ? ERR_TEMPORARY : err;
}

static enum err plain_check(str text, enum password_scheme scheme UNUSED)
{
	if (text.n > PASSWORD_MAX)
		return ERR_TOO_LONG;
	return text.n && str_find_char(text, '\0') == STR_NONE ? ERR_OK : ERR_SYNTAX;
}

static enum err plain_verify(str text, enum password_scheme scheme, str password)
{
	enum err err = plain_check(text, scheme);

	if (err)
		return err;
	return str_secret_eq(text, password) ? ERR_OK : ERR_AUTH;
}

static const struct scheme schemes[PASSWORD_SCHEMES] = {
	[PASSWORD_ARGON2ID] = { S("ARGON2ID"), password_argon2_check, password_argon2_verify },
	[PASSWORD_ARGON2I] = { S("ARGON2I"), password_argon2_check, password_argon2_verify },
	[PASSWORD_SHA512_CRYPT] = { S("SHA512-CRYPT"), password_crypt_check,
				    password_crypt_verify },
	[PASSWORD_SHA256_CRYPT] = { S("SHA256-CRYPT"), password_crypt_check,
				    password_crypt_verify },
	[PASSWORD_BLF_CRYPT] = { S("BLF-CRYPT"), password_crypt_check, password_crypt_verify },
	[PASSWORD_CRYPT] = { S("CRYPT"), password_crypt_check, password_crypt_verify },
	[PASSWORD_SCRAM_SHA_256] = { S("SCRAM-SHA-256"), scram_check, scram_verify },
	[PASSWORD_PLAIN] = { S("PLAIN"), plain_check, plain_verify },
};

str password_scheme_name(enum password_scheme scheme)
{
	return schemes[scheme].name;
}

enum err password_scheme_find(str name, enum password_scheme *scheme)
{
	if (str_case_eq(name, S("CLEAR")) || str_case_eq(name, S("CLEARTEXT")))
		name = S("PLAIN");
	for (unsigned i = 0; i < PASSWORD_SCHEMES; i++) {
		if (str_case_eq(name, schemes[i].name)) {
			*scheme = (enum password_scheme)i;
			return ERR_OK;
		}
	}
	return ERR_UNSUPPORTED;
}

enum err password_scheme_of(str stored, enum password_scheme *scheme, str *rest)
{
	size_t close;

	if (stored.n == 0 || stored.p[0] != '{') {
		*scheme = PASSWORD_CRYPT;
		*rest = stored;
		return ERR_OK;
	}
	close = str_find_char(stored, '}');
	if (close == STR_NONE)
		return ERR_SYNTAX;
	*rest = str_from(stored, close + 1);
	return password_scheme_find(str_sub(stored, 1, close - 1), scheme);
}

static bool is_locked(enum password_scheme scheme, str text)
{
	return scheme != PASSWORD_PLAIN && text.n && (text.p[0] == '!' || text.p[0] == '*');
}

enum err password_check_stored(str stored)
{
	enum password_scheme scheme;
	enum err err;
	str text;

	if (stored.n > PASSWORD_STORED_MAX)
		return ERR_TOO_LONG;
	if ((err = password_scheme_of(stored, &scheme, &text)))
		return err;
	return is_locked(scheme, text) ? ERR_OK : schemes[scheme].check(text, scheme);
}

static bool is_password(str password)
{
	return password.n > 0 && password.n <= PASSWORD_MAX &&
	       str_find_char(password, '\0') == STR_NONE;
}

enum err password_verify(str stored, str password)
{
	char prepared[PASSWORD_MAX];
	enum password_scheme scheme;
	enum err err;
	str text;
	size_t n;

	if (stored.n > PASSWORD_STORED_MAX)
		return ERR_TOO_LONG;
	if ((err = password_scheme_of(stored, &scheme, &text)))
		return err;
	if (is_locked(scheme, text) || !is_password(password))
		return ERR_AUTH;
	err = saslprep(password, prepared, sizeof(prepared), &n);
	if (err == ERR_NO_MEMORY)
		return ERR_TEMPORARY;
	if (err || n == 0 || str_eq(str_of(prepared, n), password)) {
		err = schemes[scheme].verify(text, scheme, password);
	} else {
		err = schemes[scheme].verify(text, scheme, str_of(prepared, n));
		if (err == ERR_AUTH)
			err = schemes[scheme].verify(text, scheme, password);
	}
	OPENSSL_cleanse(prepared, sizeof(prepared));
	return err;
}

enum err password_verify_nobody(str password)
{
	/* Our own parameters; the hash is of nothing, and a match would be refused all the same. */
	static const char stored[] = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
				     "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
	enum err err = ERR_AUTH;

	if (is_password(password))
		err = password_argon2_verify(str_from_c(stored), PASSWORD_ARGON2ID, password);
	return err == ERR_TEMPORARY ? err : ERR_AUTH;
}

static enum err with_scheme(enum password_scheme scheme, str text, struct arena *a, str *out)
{
	*out = arena_printf(a, "{%.*s}%.*s", STR_ARGS(schemes[scheme].name), STR_ARGS(text));
	return out->p ? ERR_OK : ERR_NO_MEMORY;
}

static enum err scram_make(str password, const uint8_t salt[SCRAM_SALT_SIZE], struct arena *a,
			   str *out)
{
	struct scram_credentials c;
	struct buf text;
	enum err err;

	if ((err = scram_derive(password, str_of(salt, SCRAM_SALT_SIZE), SCRAM_ITERATIONS, &c)))
		return err;
	buf_init(&text, SCRAM_TEXT_MAX);
	if (!(err = scram_print(&c, &text)))
		err = with_scheme(PASSWORD_SCRAM_SHA_256, buf_str(&text), a, out);
	buf_free(&text);
	return err;
}

/* One scheme's text for a prepared password. */
static enum err make_one(enum password_scheme scheme, str password, const uint8_t random[16],
			 struct arena *a, str *out)
{
	enum err err;
	str text;

	switch (scheme) {
	case PASSWORD_ARGON2ID:
		err = password_argon2_make(password, random, a, &text);
		break;
	case PASSWORD_SCRAM_SHA_256:
		return scram_make(password, random, a, out);
	case PASSWORD_PLAIN:
		text = password;
		err = ERR_OK;
		break;
	case PASSWORD_SHA512_CRYPT:
	case PASSWORD_SHA256_CRYPT:
	case PASSWORD_BLF_CRYPT:
	case PASSWORD_CRYPT:
		err = password_crypt_make(scheme, password, random, a, &text);
		break;
	default:
		return ERR_UNSUPPORTED;
	}
	return err ? err : with_scheme(scheme, text, a, out);
}

enum err password_make(enum password_scheme scheme, str password,
		       const uint8_t random[PASSWORD_RANDOM_SIZE], struct arena *a,
		       struct password_record *out)
{
	char prepared[PASSWORD_MAX];
	enum err err;
	size_t n;

	*out = (struct password_record){ STR_EMPTY, STR_EMPTY };
	if (password.n > PASSWORD_MAX)
		return ERR_TOO_LONG;
	if (!is_password(password))
		return ERR_SYNTAX;
	err = saslprep(password, prepared, sizeof(prepared), &n);
	if (!err && n == 0)
		err = ERR_SYNTAX;
	if (!err)
		err = make_one(scheme, str_of(prepared, n), random, a, &out->hash);
	if (!err && scheme == PASSWORD_ARGON2ID)
		err = scram_make(str_of(prepared, n), random + 16, a, &out->scram);
	OPENSSL_cleanse(prepared, sizeof(prepared));
	return err;
}

void password_generate(const uint8_t random[PASSWORD_GENERATED_RANDOM],
		       char out[PASSWORD_GENERATED_SIZE])
{
	/* Digits and letters but i, l, o and u: 32, five bits each. */
	static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
	uint32_t bits = 0, count = 0;
	size_t at = 0, from = 0;

	while (at < PASSWORD_GENERATED_SIZE) {
		if (at % 5 == 4) {
			out[at++] = '-';
			continue;
		}
		if (count < 5) {
			bits = bits << 8 | random[from++];
			count += 8;
		}
		count -= 5;
		out[at++] = letters[bits >> count & 31];
	}
}
