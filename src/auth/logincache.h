/* Logins that succeeded a short while ago, so that a client that comes back each minute does not
 * cost an argon2 each time.
 *
 *	if (logincache_has(c, now, directory_changes(d), account.id, account.hash, password))
 *		...					// as good as password_verify
 *	else if (!(err = password_verify(account.hash, password)))
 *		logincache_add(c, now, directory_changes(d), account.id, account.hash, password);
 *
 * No password is kept: an entry is the HMAC-SHA-256 of account, stored hash and password under a
 * random key that only this process holds, and a time. It ends LOGINCACHE_NS after the password was
 * last verified in full (a hit does not prolong it), and with any change of the directory. Failures
 * are not remembered.
 *
 * Bounded: `max` entries of about 120 bytes, what was used longest ago goes first. A look-up takes
 * about two microseconds and blocks on nothing. `now` is os_monotonic_ns(). The caller looks the
 * account up first, so a disabled or removed one gets nowhere near.
 */
#ifndef AUTH_LOGINCACHE_H
#define AUTH_LOGINCACHE_H

#include "base/str.h"

enum { LOGINCACHE_KEY_SIZE = 32, LOGINCACHE_MAX = 50000 /* a good max: 6 MB */ };
#define LOGINCACHE_NS (5 * 60 * INT64_C(1000000000))

struct logincache;

/* `key`: fresh random bytes at each start. NULL when there is no memory. */
struct logincache *logincache_new(size_t max, const uint8_t key[LOGINCACHE_KEY_SIZE]);
void logincache_free(struct logincache *c); /* wipes; NULL is allowed */

bool logincache_has(struct logincache *c, int64_t now, uint64_t changes, uint64_t account, str hash,
		    str password);
void logincache_add(struct logincache *c, int64_t now, uint64_t changes, uint64_t account, str hash,
		    str password);

/* Entries held now, for `posthorn status`. */
size_t logincache_count(const struct logincache *c);

#endif
