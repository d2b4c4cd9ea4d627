/* SASL engines: PLAIN and LOGIN, and what all share.
 *
 * Each mechanism is a few states; a message that comes in a state that awaits none is a fault of
 * ours or of the caller and ends the exchange. An engine that has said no says no to everything
 * after.
 *
 *	PLAIN    FIRST -> verify
 *	LOGIN    FIRST (name) -> PASSWORD -> verify
 *	SCRAM    FIRST -> LOOKUP -> PROOF -> SIGNATURE -> done
 *
 * PLAIN, RFC 4616 2: message = [authzid] NUL authcid NUL passwd. Who logs in may only be who he
 * says he is: an authzid must be absent or the name itself. LOGIN has no RFC; what is done here is
 * what draft-murchison-sasl-login-00 says and clients do: two prompts, whose texts some clients
 * look at.
 *
 * The engine holds passwords in memory of its own, so that it can wipe it.
 */
#include "auth/sasl_priv.h"

#include "text/base64.h"
#include "text/utf8.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>

static const str names[SASL_MECHANISMS] = {
	[SASL_PLAIN] = S("PLAIN"),
	[SASL_LOGIN] = S("LOGIN"),
	[SASL_SCRAM_SHA_256] = S("SCRAM-SHA-256"),
};

str sasl_mechanism_name(enum sasl_mechanism m)
{
	return names[m];
}

enum err sasl_mechanism_find(str name, enum sasl_mechanism *out)
{
	for (unsigned i = 0; i < SASL_MECHANISMS; i++) {
		if (str_case_eq(name, names[i])) {
			*out = (enum sasl_mechanism)i;
			return ERR_OK;
		}
	}
	return ERR_UNSUPPORTED;
}

enum err sasl_text_decode(str text, bool is_initial, struct arena *a, str *out)
{
	struct buf b;
	enum err err;

	*out = STR_EMPTY;
	if (is_initial && str_eq(text, S("=")))
		return ERR_OK;
	buf_init(&b, SASL_WIRE_MAX);
	err = base64_decode(text, &b);
	if (!err && buf_len(&b)) {
		*out = arena_str(a, buf_str(&b));
		err = out->p ? ERR_OK : ERR_NO_MEMORY;
	}
	if (b.p)
		OPENSSL_cleanse(b.p, b.size);
	buf_free(&b);
	return err;
}

struct sasl *sasl_new(enum sasl_mechanism m, const struct sasl_secrets *secrets)
{
	struct sasl *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->mechanism = m;
	s->secrets = *secrets;
	buf_init(&s->auth_message, 3 * SASL_MESSAGE_MAX);
	return s;
}

void sasl_free(struct sasl *s)
{
	if (!s)
		return;
	buf_free(&s->auth_message);
	OPENSSL_cleanse(s, sizeof(*s));
	free(s);
}

str sasl_name(const struct sasl *s)
{
	return str_of(s->name, s->name_size);
}

str sasl_password(const struct sasl *s)
{
	return str_of(s->password, s->password_size);
}

enum err sasl_set_name(struct sasl *s, str name)
{
	if (name.n > sizeof(s->name))
		return ERR_TOO_LONG;
	if (name.n == 0 || str_find_char(name, '\0') != STR_NONE || !utf8_is_valid(name))
		return ERR_SYNTAX;
	memcpy(s->name, name.p, name.n);
	s->name_size = name.n;
	return ERR_OK;
}

/* Not checked for UTF-8: old clients send passwords in other charsets, and a stored hash may be of
 * those. */
enum err sasl_set_password(struct sasl *s, str password)
{
	if (password.n > sizeof(s->password))
		return ERR_TOO_LONG;
	if (password.n == 0 || str_find_char(password, '\0') != STR_NONE)
		return ERR_SYNTAX;
	memcpy(s->password, password.p, password.n);
	s->password_size = password.n;
	return ERR_OK;
}

/* RFC 4616 2 */
static enum err plain(struct sasl *s, str message, enum sasl_next *next)
{
	size_t first = str_find_char(message, '\0'), second;
	str rest = first == STR_NONE ? STR_EMPTY : str_from(message, first + 1);
	enum err err;

	second = str_find_char(rest, '\0');
	if (second == STR_NONE)
		return ERR_SYNTAX;
	if ((err = sasl_set_name(s, str_head(rest, second))) ||
	    (err = sasl_set_password(s, str_from(rest, second + 1))))
		return err;
	if (first > 0 && !str_case_eq(str_head(message, first), sasl_name(s)))
		return ERR_DENIED;
	s->state = SASL_STATE_OVER;
	*next = SASL_VERIFY;
	return ERR_OK;
}

static enum err login(struct sasl *s, str message, struct buf *reply, enum sasl_next *next)
{
	enum err err;

	if (s->state == SASL_STATE_FIRST) {
		if ((err = sasl_set_name(s, message)))
			return err;
		s->state = SASL_STATE_PASSWORD;
		buf_add(reply, S("Password:"));
		*next = SASL_CHALLENGE;
		return ERR_OK;
	}
	if ((err = sasl_set_password(s, message)))
		return err;
	s->state = SASL_STATE_OVER;
	*next = SASL_VERIFY;
	return ERR_OK;
}

static enum err scram(struct sasl *s, str message, struct buf *reply, enum sasl_next *next)
{
	switch (s->state) {
	case SASL_STATE_FIRST:
		return sasl_scram_first(s, message, next);
	case SASL_STATE_PROOF:
		return sasl_scram_final(s, message, reply, next);
	case SASL_STATE_SIGNATURE:
		/* RFC 4422 5.1: our last word goes as a challenge, which the client answers with
		 * nothing */
		s->state = SASL_STATE_OVER;
		*next = SASL_DONE;
		return message.n ? ERR_SYNTAX : ERR_OK;
	default:
		return ERR_SYNTAX;
	}
}

static enum err dispatch(struct sasl *s, str message, struct buf *reply, enum sasl_next *next)
{
	if (message.n > SASL_MESSAGE_MAX)
		return ERR_TOO_LONG;
	switch (s->mechanism) {
	case SASL_PLAIN:
		return plain(s, message, next);
	case SASL_LOGIN:
		return login(s, message, reply, next);
	default:
		return scram(s, message, reply, next);
	}
}

/* An error ends it; a reply that did not fit is one. */
static enum err conclude(struct sasl *s, enum err err, struct buf *reply, enum sasl_next *next)
{
	if (!err && buf_failed(reply))
		err = ERR_NO_MEMORY;
	if (err) {
		s->state = SASL_STATE_OVER;
		*next = SASL_DONE;
		buf_clear(reply);
	}
	return err;
}

enum err sasl_start(struct sasl *s, str initial, struct buf *reply, enum sasl_next *next)
{
	assert(s->state == SASL_STATE_NEW);
	buf_clear(reply);
	s->state = SASL_STATE_FIRST;
	if (initial.p)
		return conclude(s, dispatch(s, initial, reply, next), reply, next);
	if (s->mechanism == SASL_LOGIN)
		buf_add(reply, S("Username:"));
	*next = SASL_CHALLENGE;
	return conclude(s, ERR_OK, reply, next);
}

enum err sasl_input(struct sasl *s, str message, struct buf *reply, enum sasl_next *next)
{
	bool awaited = s->state == SASL_STATE_FIRST || s->state == SASL_STATE_PASSWORD ||
		       s->state == SASL_STATE_PROOF || s->state == SASL_STATE_SIGNATURE;

	buf_clear(reply);
	return conclude(s, awaited ? dispatch(s, message, reply, next) : ERR_SYNTAX, reply, next);
}

enum err sasl_stored(struct sasl *s, str stored, struct buf *reply, enum sasl_next *next)
{
	assert(s->state == SASL_STATE_LOOKUP);
	buf_clear(reply);
	return conclude(s, sasl_scram_stored(s, stored, reply, next), reply, next);
}
