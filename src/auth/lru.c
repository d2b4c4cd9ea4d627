/* The bounded table: chained hash slots (at least as many as entries, so that chains are short and
 * the table never grows or moves) and doubly linked lists by age. Every operation is O(1).
 *
 * SipHash-2-4 (Aumasson and Bernstein, 2012) and not the plain str_hash: the keys are names and
 * addresses that strangers send, who could otherwise fill one chain and make every look-up walk it.
 */
#include "auth/lru.h"

#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>

static inline uint64_t rotate(uint64_t v, unsigned by)
{
	return v << by | v >> (64 - by);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

uint64_t siphash(const uint64_t seed[2], str s)
{
	uint64_t v[4] = { seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
			  seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u };
	uint64_t last = (uint64_t)s.n << 56;
	size_t i = 0;

	for (; i + 8 <= s.n; i += 8) {
		uint64_t m = get_le64(s.p + i);

		v[3] ^= m;
		sip_round(v);
		sip_round(v);
		v[0] ^= m;
	}
	for (unsigned at = 0; i < s.n; i++, at += 8)
		last |= (uint64_t)(unsigned char)s.p[i] << at;
	v[3] ^= last;
	sip_round(v);
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int round = 0; round < 4; round++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

enum err lru_init(struct lru *t, size_t max, const uint8_t seed[LRU_SEED_SIZE])
{
	size_t slots = 16;

	assert(max > 0);
	*t = (struct lru){ .max = max, .seed = { get_le64(seed), get_le64(seed + 8) } };
	while (slots < max)
		slots *= 2;
	t->slots = calloc(slots, sizeof(*t->slots));
	t->slot_mask = slots - 1;
	return t->slots ? ERR_OK : ERR_NO_MEMORY;
}

void lru_free(struct lru *t)
{
	free(t->slots);
	*t = (struct lru){ 0 };
}

struct lru_node *lru_find(const struct lru *t, str key)
{
	uint64_t hash = siphash(t->seed, key);

	for (struct lru_node *n = t->slots[hash & t->slot_mask]; n; n = n->chain)
		if (n->hash == hash && str_eq(n->key, key))
			return n;
	return NULL;
}

static void unlink_age(struct lru *t, struct lru_node *n)
{
	struct lru_ends *ends = &t->lists[n->list];

	*(n->newer ? &n->newer->older : &ends->newest) = n->older;
	*(n->older ? &n->older->newer : &ends->oldest) = n->newer;
}

static void link_newest(struct lru *t, struct lru_node *n, unsigned list)
{
	struct lru_ends *ends = &t->lists[list];

	assert(list < LRU_LISTS_MAX);
	n->list = list;
	n->newer = NULL;
	n->older = ends->newest;
	*(ends->newest ? &ends->newest->newer : &ends->oldest) = n;
	ends->newest = n;
}

void lru_insert(struct lru *t, struct lru_node *n, str key, unsigned list)
{
	struct lru_node **slot;

	assert(!lru_is_full(t));
	n->key = key;
	n->hash = siphash(t->seed, key);
	slot = &t->slots[n->hash & t->slot_mask];
	n->chain = *slot;
	*slot = n;
	link_newest(t, n, list);
	t->count++;
}

struct lru_node *lru_remove(struct lru *t, struct lru_node *n)
{
	struct lru_node **at = &t->slots[n->hash & t->slot_mask];

	while (*at != n)
		at = &(*at)->chain;
	*at = n->chain;
	unlink_age(t, n);
	t->count--;
	return n;
}

void lru_touch(struct lru *t, struct lru_node *n, unsigned list)
{
	unlink_age(t, n);
	link_newest(t, n, list);
}
