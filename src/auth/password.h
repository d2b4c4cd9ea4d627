/* Stored passwords: {SCHEME} texts as Dovecot writes them, checking and making them.
 *
 *	err = password_verify(stored, password);	// ERR_OK, ERR_AUTH ...
 *
 *	struct password_record made;			// what `posthorn user add` stores
 *	os_random(random, sizeof(random));
 *	err = password_make(PASSWORD_ARGON2ID, password, random, arena, &made);
 *	directory_set_password(d, address, made);
 *
 *	SCHEME         TEXT AFTER {SCHEME}            LIMITS ON WHAT IS READ
 *	ARGON2ID       $argon2id$v=19$m=,t=,p=$..$..  256 MiB, passes * memory 1 GiB, 16 lanes
 *	ARGON2I        $argon2i$v=19$...              the same
 *	SHA512-CRYPT   $6$[rounds=N$]salt$hash        1,000,000 rounds
 *	SHA256-CRYPT   $5$[rounds=N$]salt$hash        the same
 *	BLF-CRYPT      $2a$, $2b$, $2y$               cost 15
 *	CRYPT          any of these three, yescrypt   256 MiB
 *	               ($y$, $gy$), scrypt ($7$), $1$, DES
 *	SCRAM-SHA-256  iterations,salt,stored,server  2,000,000 iterations
 *	PLAIN          the password                   (also named CLEAR, CLEARTEXT)
 *
 * Without a prefix it is CRYPT, as in Dovecot. Scheme names are matched without case. A text that
 * begins with '!' or '*' behind its scheme is a locked account: nothing matches it.
 *
 * BLOCKING: password_verify, password_verify_nobody and password_make compute: 35 ms and 19 MiB for
 * our argon2id, plus 40 ms in password_make for SCRAM's keys; up to about two seconds and 256 MiB
 * for a stored text at its limits. They belong in a `lookup` worker. The others take microseconds.
 *
 * Passwords are bytes without NUL, 1 to PASSWORD_MAX of them. Those set here are prepared with
 * SASLprep (RFC 4013), so that PLAIN and SCRAM take the same ones from any keyboard; one that is
 * verified is tried prepared and, where that differs, as it came, for hashes that other software
 * made.
 */
#ifndef AUTH_PASSWORD_H
#define AUTH_PASSWORD_H

#include "base/arena.h"

enum {
	PASSWORD_MAX =
		511, /* the longest that libcrypt takes, so that every scheme takes the same */
	PASSWORD_STORED_MAX = 1024,
	PASSWORD_RANDOM_SIZE = 32,	 /* random bytes for one password_make */
	PASSWORD_ARGON2_KIB = 19 * 1024, /* 19 MiB, 2 passes, 1 lane: OWASP's advice for a login */
	PASSWORD_ARGON2_PASSES = 2,
	PASSWORD_ARGON2_KIB_MAX =
		256 * 1024, /* libsodium's "moderate", which Dovecot users may have */
	PASSWORD_ARGON2_WORK_MAX = 1024 * 1024, /* KiB times passes */
	PASSWORD_CRYPT_ROUNDS_MAX = 1000000,
	PASSWORD_BCRYPT_COST_MAX = 15,
};

/* In the order of schemes[] in password.c. */
enum password_scheme {
	PASSWORD_ARGON2ID,
	PASSWORD_ARGON2I,
	PASSWORD_SHA512_CRYPT,
	PASSWORD_SHA256_CRYPT,
	PASSWORD_BLF_CRYPT,
	PASSWORD_CRYPT,
	PASSWORD_SCRAM_SHA_256,
	PASSWORD_PLAIN,
	PASSWORD_SCHEMES
};

/* What an account stores. `scram`: {SCRAM-SHA-256}..., or empty when the hash alone was asked
 * for. */
struct password_record {
	str hash, scram;
};

/* Static text: "ARGON2ID". */
str password_scheme_name(enum password_scheme scheme);
/* ERR_UNSUPPORTED for a name that is not in the table (or has an encoding, "PLAIN.HEX"). */
MUST_USE enum err password_scheme_find(str name, enum password_scheme *scheme);
/* Splits a stored text; *rest is borrowed from it. ERR_SYNTAX for an unclosed brace. */
MUST_USE enum err password_scheme_of(str stored, enum password_scheme *scheme, str *rest);

/* Could this stored text be verified? For `user add --hash`: the form and the limits, without
 * computing. ERR_OK; ERR_UNSUPPORTED, ERR_SYNTAX, ERR_RANGE (parameters beyond the limits),
 * ERR_TOO_LONG. */
MUST_USE enum err password_check_stored(str stored);

/* ERR_OK: it is the password. ERR_AUTH: it is not. ERR_UNSUPPORTED, ERR_SYNTAX, ERR_RANGE,
 * ERR_TOO_LONG: the stored text is one that we cannot or will not compute. ERR_TEMPORARY: no
 * memory, or a library failed. */
MUST_USE enum err password_verify(str stored, str password);
/* For a name that does not exist: takes as long as verifying our own argon2id, and answers ERR_AUTH
 * (or ERR_TEMPORARY), so that time does not tell who has an account. */
MUST_USE enum err password_verify_nobody(str password);

/* The record for a new password. PASSWORD_ARGON2ID also makes SCRAM credentials; other schemes
 * stand alone. CRYPT makes yescrypt. ARGON2I is not made (ERR_UNSUPPORTED). ERR_SYNTAX: empty, a
 * NUL, or a character that SASLprep refuses; ERR_TOO_LONG; ERR_NO_MEMORY; ERR_TEMPORARY. */
MUST_USE enum err password_make(enum password_scheme scheme, str password,
				const uint8_t random[PASSWORD_RANDOM_SIZE], struct arena *a,
				struct password_record *out);

enum { PASSWORD_GENERATED_RANDOM = 10, PASSWORD_GENERATED_SIZE = 19 };
/* A password to read out: "k3n8-xw0q-7jtz-m5pa", 80 bits, without letters that look like others.
 * Not NUL-terminated. */
void password_generate(const uint8_t random[PASSWORD_GENERATED_RANDOM],
		       char out[PASSWORD_GENERATED_SIZE]);

#endif
