/* The schemes behind password.h: each checks its stored form and limits, and compares. */
#ifndef AUTH_PASSWORD_PRIV_H
#define AUTH_PASSWORD_PRIV_H

#include "auth/password.h"

/* `text` is what follows {SCHEME}; checked again by each before it computes. */
MUST_USE enum err password_argon2_check(str text, enum password_scheme scheme);
MUST_USE enum err password_argon2_verify(str text, enum password_scheme scheme, str password);
/* "$argon2id$..." with a salt of 16 bytes, in the arena. */
MUST_USE enum err password_argon2_make(str password, const uint8_t salt[16], struct arena *a,
				       str *text);

/* libcrypt. CRYPT takes every method that is known, the others their own prefixes. */
MUST_USE enum err password_crypt_check(str text, enum password_scheme scheme);
MUST_USE enum err password_crypt_verify(str text, enum password_scheme scheme, str password);
MUST_USE enum err password_crypt_make(enum password_scheme scheme, str password,
				      const uint8_t random[16], struct arena *a, str *text);

#endif
