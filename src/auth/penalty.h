/* Penalties for wrong passwords.
 *
 *	verdict = penalty_check(p, now, &client, name);
 *	if (verdict.refused_ns) ...	// leave the password alone; say why (penalty_text)
 *	wait verdict.delay_ns, then verify;
 *	penalty_failure(p, now, &client, name, password)  or  penalty_success(p, now, &client, name)
 *
 * Two things are counted, each over a window that begins with its first failure:
 *
 * - failures of a client's address (IPv4: the address; IPv6: its /64), whatever the names. Each
 *   makes the next try wait longer: 1, 2, 4, 8, then 15 seconds. After PENALTY_REFUSE_AFTER of them
 *   the address is refused for PENALTY_REFUSE_NS.
 * - failures for a name, whatever the address. Past PENALTY_NAME_FREE of them, tries from addresses
 *   that have not logged in to that account lately wait, with the same delays. Nobody is ever
 *   refused for his name's sake: a stranger can neither lock an account nor slow down the places
 *   where its owner is at home.
 *
 * This machine's own addresses count for nobody: a webmail or a proxy here speaks for all its
 * users, and twenty of them who mistype must not shut out the others. From there a name's own
 * failures make its next try wait, with the same delays.
 *
 * A success forgives what that address did wrong with that name, and nothing else: who has an
 * account of his own cannot buy tries at others with it. The same wrong password again, from the
 * same address for the same name, counts once: a phone with an old password is no attack, and it
 * learns nothing.
 *
 * BOUNDED: each of the three tables has `max` entries of about 150 bytes. When one is full the
 * entry with the fewest failures goes, the oldest of those first. Whoever wants his entry gone must
 * fail `max` times as often as he has, from that many addresses (or /64s), while each of them runs
 * into its own delays.
 *
 * Nothing blocks; `now` is os_monotonic_ns(). The name is the one that was claimed, existing or
 * not, so that penalties do not tell which names exist. It is folded (ASCII) here.
 */
#ifndef AUTH_PENALTY_H
#define AUTH_PENALTY_H

#include "base/addr.h"
#include "base/str.h"

#define PENALTY_SECOND	     INT64_C(1000000000)
#define PENALTY_WINDOW_NS    (15 * 60 * PENALTY_SECOND)
#define PENALTY_REFUSE_NS    (10 * 60 * PENALTY_SECOND)
#define PENALTY_DELAY_MAX_NS (15 * PENALTY_SECOND)
/* How long an address is at home with a name after it logged in there. */
#define PENALTY_HOME_NS (30 * 24 * 3600 * PENALTY_SECOND)
enum {
	/* Failures of an address in a window. An office behind one address mistypes less than this;
	 * a guesser gets 20 tries a quarter of an hour. */
	PENALTY_REFUSE_AFTER = 20,
	/* Failures of a name that cost nothing: what one stranger's address can do before it is
	 * refused. */
	PENALTY_NAME_FREE = 20,
	PENALTY_MAX = 50000,
	PENALTY_SEED_SIZE = 16,
	PENALTY_NAME_MAX = 255,
};

struct penalty_verdict {
	int64_t delay_ns;   /* wait so long before the password is looked at */
	int64_t refused_ns; /* not 0: refused, for so long from now */
};

struct penalty;

/* `max`: entries of each table, at least 1. NULL when there is no memory. */
struct penalty *penalty_new(size_t max, const uint8_t seed[PENALTY_SEED_SIZE]);
void penalty_free(struct penalty *p); /* NULL is allowed */

struct penalty_verdict penalty_check(struct penalty *p, int64_t now, const struct addr *client,
				     str name);
/* A wrong password, or an unknown name. `password` is empty where it is not known (SCRAM). */
void penalty_failure(struct penalty *p, int64_t now, const struct addr *client, str name,
		     str password);
void penalty_success(struct penalty *p, int64_t now, const struct addr *client, str name);

/* "too many wrong passwords from your address; try again in 9 minutes", into `out`. */
enum { PENALTY_TEXT_SIZE = 96 };
str penalty_text(const struct penalty_verdict *v, char out[PENALTY_TEXT_SIZE]);

/* Addresses that are refused or delayed now, at most; for `posthorn status`. */
size_t penalty_addresses(const struct penalty *p);

#endif
