/* A bounded table that forgets what was used longest ago; private to auth/.
 *
 * Entries are the caller's, with a `struct lru_node` in front; the table neither allocates nor
 * frees them. Keys are bytes and may be chosen by an enemy: the hash is SipHash-2-4 under a random
 * seed.
 *
 *	struct lru_node *n = lru_find(&t, key);
 *	if (!n && lru_is_full(&t))
 *		drop(lru_remove(&t, lru_oldest(&t, 0)));
 *
 * The nodes form rings by age in `lists` of them (one for most users), so that a user may keep
 * entries that are worth more apart from those that go first.
 */
#ifndef AUTH_LRU_H
#define AUTH_LRU_H

#include "base/str.h"

struct lru_node {
	struct lru_node *chain;		/* next with the same slot */
	struct lru_node *newer, *older; /* in its list */
	uint64_t hash;
	str key; /* borrowed from the entry */
	unsigned list;
};

struct lru_ends {
	struct lru_node *newest, *oldest;
};

enum { LRU_LISTS_MAX = 8, LRU_SEED_SIZE = 16 };

struct lru {
	struct lru_node **slots;
	size_t slot_mask;
	size_t count, max;
	uint64_t seed[2];
	struct lru_ends lists[LRU_LISTS_MAX];
};

/* ERR_NO_MEMORY. `max` is at least 1; the table of slots is allocated at once (8 bytes each). */
MUST_USE enum err lru_init(struct lru *t, size_t max, const uint8_t seed[LRU_SEED_SIZE]);
/* Frees the slots; the caller has removed the entries. */
void lru_free(struct lru *t);

/* NULL when it is not there. Does not change its age. */
struct lru_node *lru_find(const struct lru *t, str key);
/* Puts a node with a key that is not there. There must be room. */
void lru_insert(struct lru *t, struct lru_node *n, str key, unsigned list);
/* Takes it out and returns it. */
struct lru_node *lru_remove(struct lru *t, struct lru_node *n);
/* Makes it the newest of a list. */
void lru_touch(struct lru *t, struct lru_node *n, unsigned list);

static inline bool lru_is_full(const struct lru *t)
{
	return t->count >= t->max;
}

/* NULL when the list is empty. */
static inline struct lru_node *lru_oldest(const struct lru *t, unsigned list)
{
	return t->lists[list].oldest;
}

/* SipHash-2-4 under a 16-byte seed. */
uint64_t siphash(const uint64_t seed[2], str s);

#endif
