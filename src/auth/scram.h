/* SCRAM-SHA-256 credentials: the arithmetic of RFC 5802 3 with SHA-256 (RFC 7677), without
 * messages.
 *
 * `struct scram_credentials` is what a server keeps: whoever has it can check a proof and try
 * passwords against it, but cannot log in with it elsewhere. Its text is Dovecot's (doveadm pw -s
 * SCRAM-SHA-256): "iterations,salt,StoredKey,ServerKey" in base64, without the {SCHEME}.
 *
 * Passwords given here are raw; SASLprep (RFC 5802 2.2) is done inside. Everything is pure but for
 * the time it takes: scram_derive is PBKDF2 with about 0.4 microseconds for each iteration (40 ms
 * with the default); the rest takes microseconds.
 */
#ifndef AUTH_SCRAM_H
#define AUTH_SCRAM_H

#include "base/arena.h"
#include "base/buf.h"

enum {
	SCRAM_KEY_SIZE = 32,
	SCRAM_SALT_SIZE = 16, /* of the salts made here */
	SCRAM_SALT_MAX = 64,
	/* RFC 7677 4 asks for 4096 and, on the machines of 2015, for about 15,000: a tenth of a
	 * second of the client's time. A client of today does 100,000 in that time, but Cyrus SASL,
	 * which mbsync, KMail and others use, computes at most 65,536 and then refuses to log in.
	 * More would make the stored keys harder to guess from; they lie beside an argon2id hash
	 * that stays the better guarded of the two. */
	SCRAM_ITERATIONS = 60000,
	SCRAM_ITERATIONS_MIN = 4096, /* RFC 7677 4; stored ones with less are read all the same */
	SCRAM_ITERATIONS_MAX = 2000000, /* 0.8 seconds: a bound on what a hostile entry costs */
	SCRAM_TEXT_MAX = 256,
};

struct scram_credentials {
	uint32_t iterations;
	uint8_t salt[SCRAM_SALT_MAX];
	size_t salt_size;
	uint8_t stored_key[SCRAM_KEY_SIZE], server_key[SCRAM_KEY_SIZE];
};

/* Reads the stored text. ERR_SYNTAX, or ERR_RANGE for iterations that are 0 or above the
 * maximum. */
MUST_USE enum err scram_parse(str text, struct scram_credentials *out);
/* Writes it. ERR_NO_MEMORY when `out` has no room. */
MUST_USE enum err scram_print(const struct scram_credentials *c, struct buf *out);

/* SCRAM: SaltedPassword, StoredKey and ServerKey from a password. ERR_SYNTAX where SASLprep refuses
 * the password, ERR_TOO_LONG, ERR_RANGE for the salt or iterations, ERR_TEMPORARY when OpenSSL
 * fails. */
MUST_USE enum err scram_derive(str password, str salt, uint32_t iterations,
			       struct scram_credentials *out);

/* ClientSignature XOR proof hashes to StoredKey? The time does not depend on the answer. */
bool scram_proof_is_right(const struct scram_credentials *c, str auth_message,
			  const uint8_t proof[SCRAM_KEY_SIZE]);
/* ERR_TEMPORARY when OpenSSL fails. */
MUST_USE enum err scram_server_signature(const struct scram_credentials *c, str auth_message,
					 uint8_t out[SCRAM_KEY_SIZE]);

/* HMAC-SHA-256. ERR_TEMPORARY when OpenSSL fails. */
MUST_USE enum err hmac_sha256(str key, str text, uint8_t out[SCRAM_KEY_SIZE]);

#endif
