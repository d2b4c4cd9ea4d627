/* The messages of SCRAM-SHA-256: RFC 5802 5 and 7, RFC 7677 3.
 *
 *	C: n,,n=user,r=NONCE
 *	S: r=NONCE+OURS,s=SALT,i=60000
 *	C: c=biws,r=NONCE+OURS,p=PROOF
 *	S: v=SIGNATURE
 *	C:
 *
 * Channel binding is not offered, so "p=" in the header is refused; "y" (the client could, and saw
 * no -PLUS) is as good as "n". The header comes back in "c=" and must be the same bytes.
 *
 * A name without credentials is not told apart: it gets a salt that a keyed hash makes from the
 * name, of the size and with the iterations of those we store, goes through the same messages and
 * fails at the proof. The salt is of the prepared and folded name, as a real account's is one for
 * all spellings.
 */
#include "auth/sasl_priv.h"
#include "auth/saslprep.h"

#include "text/base64.h"

#include <openssl/crypto.h>

enum { CLIENT_NONCE_MAX = 256, NAME_WIRE_MAX = SASL_NAME_MAX * 3 };

/* "x=value" from the front of *rest, up to a comma, which is dropped. */
static bool attribute(str *rest, char name, str *value)
{
	if (rest->n < 2 || rest->p[0] != name || rest->p[1] != '=')
		return false;
	*value = str_from(str_cut(rest, ','), 2);
	return true;
}

/* RFC 5802 5.1: saslname, "=2C" for a comma and "=3D" for an equal sign, no other "=". */
static enum err unescape(str wire, char *out, size_t *n)
{
	*n = 0;
	if (wire.n > NAME_WIRE_MAX)
		return ERR_TOO_LONG;
	while (wire.n) {
		size_t taken = 1;
		char c = wire.p[0];

		if (c == '=') {
			if (!str_starts(wire, S("=2C")) && !str_starts(wire, S("=3D")))
				return ERR_SYNTAX;
			c = wire.p[2] == 'C' ? ',' : '=';
			taken = 3;
		}
		if (*n == SASL_NAME_MAX)
			return ERR_TOO_LONG;
		out[(*n)++] = c;
		wire = str_from(wire, taken);
	}
	return ERR_OK;
}

static enum err read_name(struct sasl *s, str wire)
{
	char plain[SASL_NAME_MAX], prepared[SASL_NAME_MAX];
	enum err err;
	size_t n;

	if ((err = unescape(wire, plain, &n)))
		return err;
	/* RFC 5802 5.1: the server prepares it with SASLprep, and fails when that fails or leaves
	 * nothing */
	if ((err = saslprep(str_of(plain, n), prepared, sizeof(prepared), &n)))
		return err;
	return sasl_set_name(s, str_of(prepared, n));
}

/* gs2-header = gs2-cbind-flag "," [authzid] ","; *rest becomes client-first-message-bare. */
static enum err read_gs2(struct sasl *s, str *rest, str *authzid)
{
	str whole = *rest, flag = str_cut(rest, ',');

	/* RFC 5802 6: a client that wants channel binding must have chosen a -PLUS mechanism */
	if (str_starts(flag, S("p=")))
		return ERR_UNSUPPORTED;
	if (!str_eq(flag, S("n")) && !str_eq(flag, S("y")))
		return ERR_SYNTAX;
	*authzid = STR_EMPTY;
	if (rest->n && rest->p[0] == ',')
		*rest = str_from(*rest, 1);
	else if (!attribute(rest, 'a', authzid) || authzid->n == 0)
		return ERR_SYNTAX;
	s->gs2_size = whole.n - rest->n;
	if (s->gs2_size > sizeof(s->gs2))
		return ERR_TOO_LONG;
	memcpy(s->gs2, whole.p, s->gs2_size);
	return ERR_OK;
}

/* RFC 5802 7: printable = %x21-2B / %x2D-7E */
static bool is_nonce(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] == 0x7f || s.p[i] == ',')
			return false;
	return s.n > 0 && s.n <= CLIENT_NONCE_MAX;
}

/* RFC 5802 7: attr-val = ALPHA "=" value, for what we do not know; "m" is for what we would have
 * to. */
static enum err read_extensions(str rest, bool ends_open)
{
	if (ends_open)
		return ERR_SYNTAX; /* a comma with nothing behind it */
	while (rest.n) {
		bool comma = str_find_char(rest, ',') != STR_NONE;
		str one = str_cut(&rest, ',');

		if (one.n < 3 || !ascii_is_alpha(one.p[0]) || one.p[1] != '=' ||
		    (comma && rest.n == 0) || str_find_char(one, '\0') != STR_NONE)
			return ERR_SYNTAX;
		if (one.p[0] == 'm')
			return ERR_UNSUPPORTED;
	}
	return ERR_OK;
}

enum err sasl_scram_first(struct sasl *s, str message, enum sasl_next *next)
{
	char asked[SASL_NAME_MAX];
	str rest = message, bare, authzid, name, nonce;
	enum err err;
	size_t n;

	if ((err = read_gs2(s, &rest, &authzid)))
		return err;
	bare = rest;
	if (str_starts(rest, S("m=")))
		return ERR_UNSUPPORTED;
	if (!attribute(&rest, 'n', &name) || !attribute(&rest, 'r', &nonce) || !is_nonce(nonce))
		return ERR_SYNTAX;
	if ((err = read_extensions(rest, rest.n == 0 && bare.p[bare.n - 1] == ',')) ||
	    (err = read_name(s, name)))
		return err;
	if (authzid.n && (err = unescape(authzid, asked, &n)))
		return err;
	if (authzid.n && !str_case_eq(str_of(asked, n), sasl_name(s)))
		return ERR_DENIED;
	buf_add(&s->auth_message, bare);
	buf_add_char(&s->auth_message, ',');
	/* Kept for server-first, which begins with it. */
	s->nonce_at = buf_len(&s->auth_message) + 2;
	buf_add(&s->auth_message, S("r="));
	buf_add(&s->auth_message, nonce);
	base64_encode(str_of(s->secrets.nonce, SASL_NONCE_SIZE), 0, &s->auth_message);
	s->nonce_size = buf_len(&s->auth_message) - s->nonce_at;
	s->state = SASL_STATE_LOOKUP;
	*next = SASL_LOOKUP;
	return buf_failed(&s->auth_message) ? ERR_NO_MEMORY : ERR_OK;
}

/* What a keyed hash makes of the name, ASCII folded: a salt, and keys that no proof fits. */
static enum err fake_credentials(struct sasl *s)
{
	struct scram_credentials *c = &s->credentials;
	str key = str_of(s->secrets.fake, SASL_SECRET_SIZE);
	char folded[SASL_NAME_MAX];
	uint8_t salt[SCRAM_KEY_SIZE];
	enum err err;

	for (size_t i = 0; i < s->name_size; i++)
		folded[i] = ascii_lower(s->name[i]);
	*c = (struct scram_credentials){
		.iterations = SCRAM_ITERATIONS,
		.salt_size = SCRAM_SALT_SIZE,
	};
	if ((err = hmac_sha256(key, str_of(folded, s->name_size), salt)) ||
	    (err = hmac_sha256(key, str_of(salt, sizeof(salt)), c->stored_key)))
		return err;
	memcpy(c->salt, salt, SCRAM_SALT_SIZE);
	return ERR_OK;
}

static enum err real_credentials(struct sasl *s, str stored)
{
	struct scram_credentials *c = &s->credentials;
	enum password_scheme scheme;
	enum err err;
	str text;

	if (stored.n == 0 || password_check_stored(stored) ||
	    password_scheme_of(stored, &scheme, &text))
		return ERR_OK;
	if (scheme == PASSWORD_SCRAM_SHA_256 && !scram_parse(text, c)) {
		s->known = true;
	} else if (scheme == PASSWORD_PLAIN) {
		/* The salt of a stranger: it tells nothing, and is the same at each try. */
		uint8_t salt[SCRAM_SALT_SIZE];

		memcpy(salt, c->salt, sizeof(salt));
		err = scram_derive(text, str_of(salt, sizeof(salt)), SCRAM_ITERATIONS, c);
		if (err == ERR_SYNTAX || err == ERR_TOO_LONG)
			return fake_credentials(s); /* no client could prove such a password */
		s->known = err == ERR_OK;
		return err;
	}
	return s->known ? ERR_OK : fake_credentials(s);
}

enum err sasl_scram_stored(struct sasl *s, str stored, struct buf *reply, enum sasl_next *next)
{
	size_t server_first = s->nonce_at - 2;
	enum err err;

	if ((err = fake_credentials(s)) || (err = real_credentials(s, stored)))
		return err;
	/* RFC 5802 7: server-first-message = nonce "," salt "," iteration-count */
	buf_add(&s->auth_message, S(",s="));
	base64_encode(str_of(s->credentials.salt, s->credentials.salt_size), 0, &s->auth_message);
	buf_printf(&s->auth_message, ",i=%u", s->credentials.iterations);
	buf_add(reply, str_from(buf_str(&s->auth_message), server_first));
	buf_add_char(&s->auth_message, ',');
	s->state = SASL_STATE_PROOF;
	*next = SASL_CHALLENGE;
	return buf_failed(&s->auth_message) ? ERR_NO_MEMORY : ERR_OK;
}

/* Strict base64 of exactly or at most `max` bytes. */
static enum err decode(str text, uint8_t *out, size_t max, size_t *n)
{
	struct buf bytes;
	enum err err;

	buf_init(&bytes, SASL_MESSAGE_MAX);
	err = base64_decode(text, &bytes);
	*n = buf_len(&bytes);
	if (!err && *n > max)
		err = ERR_SYNTAX;
	if (!err && *n)
		memcpy(out, buf_str(&bytes).p, *n);
	buf_free(&bytes);
	return err;
}

/* client-final-message = channel-binding "," nonce ["," extensions] "," proof */
static enum err read_final(struct sasl *s, str message, uint8_t proof[SCRAM_KEY_SIZE])
{
	size_t at = str_rfind_char(message, ','), n;
	str rest = str_head(message, at), tail, binding, nonce, proof_text;
	uint8_t gs2[sizeof(s->gs2)];
	enum err err;

	if (at == STR_NONE)
		return ERR_SYNTAX;
	tail = str_from(message, at + 1);
	buf_add(&s->auth_message, rest);
	if (!attribute(&rest, 'c', &binding) || !attribute(&rest, 'r', &nonce) ||
	    !attribute(&tail, 'p', &proof_text))
		return ERR_SYNTAX;
	if ((err = read_extensions(rest, message.p[at - 1] == ',')))
		return err;
	if ((err = decode(binding, gs2, sizeof(gs2), &n)))
		return err;
	/* RFC 5802 5.1: "c" is the header that began the exchange, and the nonce is the one that we
	 * sent */
	if (!str_eq(str_of(gs2, n), str_of(s->gs2, s->gs2_size)) ||
	    !str_eq(nonce, str_sub(buf_str(&s->auth_message), s->nonce_at, s->nonce_size)))
		return ERR_SYNTAX;
	if ((err = decode(proof_text, proof, SCRAM_KEY_SIZE, &n)))
		return err;
	return n == SCRAM_KEY_SIZE ? ERR_OK : ERR_SYNTAX;
}

enum err sasl_scram_final(struct sasl *s, str message, struct buf *reply, enum sasl_next *next)
{
	uint8_t proof[SCRAM_KEY_SIZE], signature[SCRAM_KEY_SIZE];
	enum err err = read_final(s, message, proof);
	bool right;

	if (err)
		return err;
	if (buf_failed(&s->auth_message))
		return ERR_NO_MEMORY;
	right = scram_proof_is_right(&s->credentials, buf_str(&s->auth_message), proof);
	if (!right || !s->known)
		return ERR_AUTH;
	if ((err = scram_server_signature(&s->credentials, buf_str(&s->auth_message), signature)))
		return err;
	buf_add(reply, S("v="));
	base64_encode(str_of(signature, sizeof(signature)), 0, reply);
	s->state = SASL_STATE_SIGNATURE;
	*next = SASL_CHALLENGE;
	return ERR_OK;
}
