/* SASL, the server's side: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).
 *
 * An engine eats the client's messages and says what comes next; it does no input or output, looks
 * nothing up and checks no password. Messages are bytes; the protocol around it does base64
 * (sasl_text_decode helps) and "*".
 *
 *	s = sasl_new(SASL_SCRAM_SHA_256, &secrets);
 *	err = sasl_start(s, initial, &reply, &next);	// STR_EMPTY: there is none
 *	while (!err && next != SASL_DONE)
 *		switch (next) {
 *		case SASL_CHALLENGE:	// send reply, read a message
 *			err = sasl_input(s, message, &reply, &next);
 *			break;
 *		case SASL_LOOKUP:	// SCRAM: what is stored for sasl_name(s)? Empty: unknown
 *			err = sasl_stored(s, account.scram, &reply, &next);
 *			break;
 *		case SASL_VERIFY:	// PLAIN, LOGIN: sasl_name(s) with sasl_password(s)?
 *			err = password_verify(account.hash, sasl_password(s));
 *			next = SASL_DONE;
 *		}
 *	sasl_free(s);		// wipes what it held
 *
 * `reply` is cleared, and filled for SASL_CHALLENGE alone (it may be empty: "334 "). An error ends
 * the exchange; the caller says no and gives no reason but these:
 *	ERR_AUTH         a wrong password (SCRAM): count it (auth/penalty.h)
 *	ERR_SYNTAX       not a message of the mechanism's, or a name that is none
 *	ERR_DENIED       an authorization identity that is not the name itself
 *	ERR_UNSUPPORTED  channel binding was asked for, or a mandatory extension
 *	ERR_TOO_LONG     past SASL_MESSAGE_MAX, SASL_NAME_MAX or PASSWORD_MAX
 *	ERR_NO_MEMORY, ERR_TEMPORARY
 *
 * BLOCKING: nothing, but for sasl_stored with a {PLAIN} entry, which computes for about 40 ms.
 */
#ifndef AUTH_SASL_H
#define AUTH_SASL_H

#include "base/arena.h"
#include "base/buf.h"

enum {
	SASL_MESSAGE_MAX = 2048, /* bytes of one message, decoded */
	SASL_WIRE_MAX = 12288,	 /* of one as the fronts pass it on (RFC 4954 4; messages.def) */
	SASL_NAME_MAX = 255,	 /* RFC 4616 2 wants 255 at least; an address has 254 */
	SASL_NONCE_SIZE = 18,	 /* 24 characters in base64 */
	SASL_SECRET_SIZE = 32,
};

enum sasl_mechanism { SASL_PLAIN, SASL_LOGIN, SASL_SCRAM_SHA_256, SASL_MECHANISMS };
enum sasl_next { SASL_CHALLENGE, SASL_LOOKUP, SASL_VERIFY, SASL_DONE };

struct sasl_secrets {
	uint8_t nonce[SASL_NONCE_SIZE]; /* fresh random bytes for each exchange */
	/* The same always, and across restarts: directory_secret(). Salts for names without
	 * credentials come from it, so that they look like others and do not change from one try to
	 * the next. */
	uint8_t fake[SASL_SECRET_SIZE];
};

struct sasl;

/* The registered name ("SCRAM-SHA-256"); static. */
str sasl_mechanism_name(enum sasl_mechanism m);
/* By name, without case. ERR_UNSUPPORTED. */
MUST_USE enum err sasl_mechanism_find(str name, enum sasl_mechanism *out);

/* A message from its base64, in the arena; an initial response of "=" is an empty one (RFC 4954 4,
 * RFC 4959 3). ERR_SYNTAX, ERR_TOO_LONG above SASL_WIRE_MAX, ERR_NO_MEMORY. */
MUST_USE enum err sasl_text_decode(str text, bool is_initial, struct arena *a, str *out);

/* NULL when there is no memory. Copies the secrets. */
struct sasl *sasl_new(enum sasl_mechanism m, const struct sasl_secrets *secrets);
void sasl_free(struct sasl *s); /* NULL is allowed */

/* Begins, with the client's initial response; one with p == NULL is none (an empty one has n == 0
 * and a p). */
MUST_USE enum err sasl_start(struct sasl *s, str initial, struct buf *reply, enum sasl_next *next);
/* The client's next message. */
MUST_USE enum err sasl_input(struct sasl *s, str message, struct buf *reply, enum sasl_next *next);
/* After SASL_LOOKUP: the {SCRAM-SHA-256} or {PLAIN} text stored for the name. Anything else, an
 * empty text too, leads to an exchange that looks like any other and ends in ERR_AUTH. */
MUST_USE enum err sasl_stored(struct sasl *s, str stored, struct buf *reply, enum sasl_next *next);

/* Borrowed until sasl_free: the name the client gave (UTF-8, SASLprep for SCRAM, not empty), and
 * for SASL_VERIFY its password (bytes, not empty, no NUL). */
str sasl_name(const struct sasl *s);
str sasl_password(const struct sasl *s);

#endif
