/* Penalties. Three tables: by address, by name, and by the pair of them. The pair knows how many of
 * the address's failures were with this name (to forgive them), which wrong password came last, and
 * until when the address is at home there.
 *
 * Entries lie in lists by weight: 0 for those that are over, then one for each doubling of the
 * failures. A full table gives up the oldest entry of the lowest list that has any, in O(1). So a
 * flood of fresh entries, one failure each, turns over among itself and never reaches an address
 * that has earned a refusal. A single list by age was turned down for that reason: `max` requests
 * from a rented /32 of IPv6 would wash it clean.
 *
 * Entries that are over count as nothing when they are next looked at, and go before all others
 * when they have become the oldest of their list, so that the heavy ones of last week do not fill
 * the table for ever.
 *
 * A wrong password is remembered as 64 bits of SipHash under the table's seed: beside the HMACs of
 * the login cache the lesser secret, and it is wrong besides.
 */
#include "auth/penalty.h"

#include "auth/lru.h"
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	KEY_MAX = 17 + PENALTY_NAME_MAX,
	WEIGHT_HOME = 2,
	WEIGHT_MAX = LRU_LISTS_MAX - 1,
	TABLES = 3
};
enum table { BY_ADDRESS, BY_NAME, BY_PAIR };

struct entry {
	struct lru_node node; /* first */
	uint32_t failures;
	int64_t window_ends, refused_until, home_until;
	uint64_t last_wrong; /* of a pair: siphash of the password; 0: none */
	char key[];
};

struct penalty {
	struct lru tables[TABLES];
};

/* The keys of a client and a name, one behind the other: address | name is the pair's. */
struct keys {
	char bytes[KEY_MAX];
	str of[TABLES];
};

/* The address, IPv6 cut to its /64: one customer has as many addresses in it as he likes. */
static size_t address_key(const struct addr *client, char *out)
{
	size_t n = client->family == ADDR_IP4 ? 4 : client->family == ADDR_IP6 ? 8 : 0;

	out[0] = (char)client->family;
	memcpy(out + 1, client->ip, n);
	return 1 + n;
}

static void make_keys(struct keys *k, const struct addr *client, str name)
{
	size_t n = address_key(client, k->bytes);

	name = str_head(name, PENALTY_NAME_MAX);
	for (size_t i = 0; i < name.n; i++)
		k->bytes[n + i] = ascii_lower(name.p[i]);
	k->of[BY_ADDRESS] = str_of(k->bytes, n);
	k->of[BY_NAME] = str_of(k->bytes + n, name.n);
	k->of[BY_PAIR] = str_of(k->bytes, n + name.n);
}

struct penalty *penalty_new(size_t max, const uint8_t seed[PENALTY_SEED_SIZE])
{
	struct penalty *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	for (int i = 0; i < TABLES; i++) {
		if (lru_init(&p->tables[i], max, seed)) {
			penalty_free(p);
			return NULL;
		}
	}
	return p;
}

static struct entry *entry_of(struct lru_node *n)
{
	return n ? CONTAINER_OF(n, struct entry, node) : NULL;
}

static bool is_over(const struct entry *e, int64_t now)
{
	return e->window_ends <= now && e->refused_until <= now && e->home_until <= now;
}

/* One that is over, if it is the oldest of its list; else the lightest. The table is not empty. */
static void drop_one(struct lru *t, int64_t now)
{
	struct lru_node *victim = NULL;

	for (unsigned list = 0; list < LRU_LISTS_MAX; list++) {
		struct lru_node *n = lru_oldest(t, list);

		if (n && is_over(entry_of(n), now)) {
			victim = n;
			break;
		}
		if (!victim)
			victim = n;
	}
	free(entry_of(lru_remove(t, victim)));
}

void penalty_free(struct penalty *p)
{
	if (!p)
		return;
	for (int i = 0; i < TABLES; i++) {
		while (p->tables[i].count)
			drop_one(&p->tables[i], INT64_MAX);
		lru_free(&p->tables[i]);
	}
	free(p);
}

static unsigned weight(const struct entry *e, int64_t now)
{
	unsigned w = e->failures ? 32 - (unsigned)__builtin_clz(e->failures) : 0;

	if (e->home_until > now)
		w = MAX(w, (unsigned)WEIGHT_HOME);
	return MIN(w, (unsigned)WEIGHT_MAX);
}

static struct entry *find(struct penalty *p, enum table table, const struct keys *k, int64_t now)
{
	struct entry *e = entry_of(lru_find(&p->tables[table], k->of[table]));

	if (e && e->window_ends <= now) {
		e->failures = 0;
		e->last_wrong = 0;
	}
	return e;
}

/* Finds or makes one; NULL when there is no memory. */
static struct entry *obtain(struct penalty *p, enum table table, const struct keys *k, int64_t now)
{
	struct entry *e = find(p, table, k, now);
	str key = k->of[table];

	if (e)
		return e;
	if (lru_is_full(&p->tables[table]))
		drop_one(&p->tables[table], now);
	e = calloc(1, sizeof(*e) + key.n);
	if (!e)
		return NULL;
	if (key.n)
		memcpy(e->key, key.p, key.n);
	lru_insert(&p->tables[table], &e->node, str_of(e->key, key.n), 0);
	return e;
}

static void count(struct penalty *p, enum table table, struct entry *e, int64_t now)
{
	if (!e)
		return;
	if (e->failures == 0)
		e->window_ends = now + PENALTY_WINDOW_NS;
	if (e->failures < UINT32_MAX)
		e->failures++;
	lru_touch(&p->tables[table], &e->node, weight(e, now));
}

static int64_t delay_of(uint32_t failures)
{
	if (failures == 0)
		return 0;
	return failures > 4 ? PENALTY_DELAY_MAX_NS
			    : (INT64_C(1) << (failures - 1)) * PENALTY_SECOND;
}

/* Many people come from there, not one. */
static bool is_shared(const struct addr *client)
{
	return addr_is_loopback(client);
}

struct penalty_verdict penalty_check(struct penalty *p, int64_t now, const struct addr *client,
				     str name)
{
	struct penalty_verdict v = { 0 };
	const struct entry *address, *named, *pair;
	struct keys k;

	make_keys(&k, client, name);
	address = find(p, BY_ADDRESS, &k, now);
	named = find(p, BY_NAME, &k, now);
	pair = find(p, BY_PAIR, &k, now);
	if (is_shared(client)) {
		v.delay_ns = pair ? delay_of(pair->failures) : 0;
	} else if (address) {
		v.delay_ns = delay_of(address->failures);
		if (address->refused_until > now)
			v.refused_ns = address->refused_until - now;
	}
	if (named && named->failures > PENALTY_NAME_FREE && !(pair && pair->home_until > now))
		v.delay_ns = MAX(v.delay_ns, delay_of(named->failures - PENALTY_NAME_FREE));
	return v;
}

/* Is it the wrong password that came last? Notes this one. */
static bool is_repeated(struct penalty *p, struct entry *pair, str password)
{
	uint64_t tag = password.n ? siphash(p->tables[BY_PAIR].seed, password) : 0;
	bool repeated = pair && tag && pair->last_wrong == tag;

	if (pair)
		pair->last_wrong = tag;
	return repeated;
}

void penalty_failure(struct penalty *p, int64_t now, const struct addr *client, str name,
		     str password)
{
	struct entry *address, *pair;
	struct keys k;

	make_keys(&k, client, name);
	pair = obtain(p, BY_PAIR, &k, now);
	if (is_repeated(p, pair, password))
		return;
	count(p, BY_PAIR, pair, now);
	count(p, BY_NAME, obtain(p, BY_NAME, &k, now), now);
	if (is_shared(client))
		return;
	address = obtain(p, BY_ADDRESS, &k, now);
	count(p, BY_ADDRESS, address, now);
	if (address && address->failures >= PENALTY_REFUSE_AFTER) {
		address->refused_until = now + PENALTY_REFUSE_NS;
		/* When it is over the address has a fresh start, but for its place among the heavy
		 * ones. */
		address->window_ends = address->refused_until;
	}
}

/* Takes `n` failures from an entry. */
static void forgive(struct penalty *p, enum table table, struct entry *e, uint32_t n, int64_t now)
{
	if (!e)
		return;
	e->failures -= MIN(n, e->failures);
	lru_touch(&p->tables[table], &e->node, weight(e, now));
}

void penalty_success(struct penalty *p, int64_t now, const struct addr *client, str name)
{
	struct entry *pair;
	struct keys k;

	make_keys(&k, client, name);
	pair = obtain(p, BY_PAIR, &k, now);
	if (!pair)
		return;
	forgive(p, BY_ADDRESS, find(p, BY_ADDRESS, &k, now), pair->failures, now);
	forgive(p, BY_NAME, find(p, BY_NAME, &k, now), pair->failures, now);
	pair->failures = 0;
	pair->last_wrong = 0;
	pair->home_until = now + PENALTY_HOME_NS;
	lru_touch(&p->tables[BY_PAIR], &pair->node, weight(pair, now));
}

str penalty_text(const struct penalty_verdict *v, char out[PENALTY_TEXT_SIZE])
{
	int64_t minutes = (v->refused_ns + 60 * PENALTY_SECOND - 1) / (60 * PENALTY_SECOND);

	snprintf(out, PENALTY_TEXT_SIZE,
		 "too many wrong passwords from your address; try again in %lld minute%s",
		 (long long)minutes, minutes == 1 ? "" : "s");
	return str_from_c(out);
}

size_t penalty_addresses(const struct penalty *p)
{
	return p->tables[BY_ADDRESS].count;
}
