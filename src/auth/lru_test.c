/* The bounded table against a plain model, and SipHash's published vectors. */
#include "auth/lru.h"

#include "base/tap.h"

enum { ENTRIES = 48, KEYS = 150 };

struct entry {
	struct lru_node node; /* first */
	uint32_t key;
	bool used;
};

static void vectors(void)
{
	/* The reference implementation's key 00..0f and inputs of 0, 1, 8 and 15 bytes 00, 01,
	 * ... */
	static const uint64_t seed[2] = { 0x0706050403020100u, 0x0f0e0d0c0b0a0908u };
	char in[15];

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (char)i;
	tap_group("SipHash-2-4");
	OK(siphash(seed, str_of(in, 0)) == 0x726fdb47dd0e0e31u);
	OK(siphash(seed, str_of(in, 1)) == 0x74f839c593dc67fdu);
	OK(siphash(seed, str_of(in, 8)) == 0x93f5f5799a932462u);
	OK(siphash(seed, str_of(in, 15)) == 0xa129ca6149be45e5u);
}

/* The model: keys in order of use, the newest last. */
struct model {
	uint32_t keys[ENTRIES];
	size_t n;
};

static void model_use(struct model *m, uint32_t key)
{
	size_t i = 0;

	while (i < m->n && m->keys[i] != key)
		i++;
	if (i == m->n && m->n < ENTRIES)
		m->n++;
	else if (i == m->n)
		i = 0;
	for (; i + 1 < m->n; i++)
		m->keys[i] = m->keys[i + 1];
	m->keys[m->n - 1] = key;
}

static bool model_has(const struct model *m, uint32_t key)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->keys[i] == key)
			return true;
	return false;
}

static void use(struct lru *t, struct entry *entries, uint32_t key)
{
	struct lru_node *n = lru_find(t, str_of(&key, sizeof(key)));
	struct entry *e = NULL;

	if (n) {
		lru_touch(t, n, 0);
		return;
	}
	if (lru_is_full(t)) {
		e = CONTAINER_OF(lru_remove(t, lru_oldest(t, 0)), struct entry, node);
	} else {
		for (e = entries; e->used;)
			e++;
		e->used = true;
	}
	e->key = key;
	lru_insert(t, &e->node, str_of(&e->key, sizeof(e->key)), 0);
}

int main(void)
{
	static const uint8_t seed[LRU_SEED_SIZE] = { 1, 2, 3 };
	struct entry entries[ENTRIES] = { 0 };
	struct model model = { 0 };
	struct lru t;
	uint32_t x = 1, differ = 0;

	vectors();
	tap_group("model");
	EQ(lru_init(&t, ENTRIES, seed), ERR_OK);
	for (int step = 0; step < 5000; step++) {
		uint32_t key;

		x = x * 1664525u + 1013904223u;
		key = (x >> 16) % KEYS;
		use(&t, entries, key);
		model_use(&model, key);
		for (uint32_t k = 0; k < KEYS; k++)
			differ += (lru_find(&t, str_of(&k, sizeof(k))) != NULL) !=
				  model_has(&model, k);
		differ += t.count != model.n;
	}
	EQ(differ, 0);
	EQ(t.count, ENTRIES);

	tap_group("lists");
	lru_touch(&t, lru_oldest(&t, 0), 3);
	OK(lru_oldest(&t, 3) != NULL && lru_oldest(&t, 3) != lru_oldest(&t, 0));
	lru_remove(&t, lru_oldest(&t, 3));
	OK(lru_oldest(&t, 3) == NULL);
	while (lru_oldest(&t, 0))
		lru_remove(&t, lru_oldest(&t, 0));
	EQ(t.count, 0);
	lru_free(&t);
	return tap_done();
}
