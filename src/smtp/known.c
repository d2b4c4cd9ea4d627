/* A set of addresses over auth/lru.h: each entry is its node and the bytes of its key. */
#include "smtp/known.h"

#include "auth/lru.h"
#include "base/os.h"

#include <stdlib.h>

struct entry {
	struct lru_node node;
	char address[];
};

struct smtp_known {
	struct lru table;
	uint64_t clears;
};

enum err smtp_known_new(size_t max, struct smtp_known **out)
{
	struct smtp_known *k = calloc(1, sizeof(*k));
	uint8_t seed[LRU_SEED_SIZE];
	enum err err;

	if (!k)
		return ERR_NO_MEMORY;
	os_random(seed, sizeof(seed));
	if ((err = lru_init(&k->table, max, seed))) {
		free(k);
		return err;
	}
	*out = k;
	return ERR_OK;
}

static void drop(struct smtp_known *k, struct lru_node *n)
{
	free(CONTAINER_OF(lru_remove(&k->table, n), struct entry, node));
}

void smtp_known_clear(struct smtp_known *k)
{
	k->clears++;
	for (struct lru_node *n; (n = lru_oldest(&k->table, 0));)
		drop(k, n);
}

void smtp_known_free(struct smtp_known *k)
{
	if (!k)
		return;
	smtp_known_clear(k);
	lru_free(&k->table);
	free(k);
}

uint64_t smtp_known_clears(const struct smtp_known *k)
{
	return k->clears;
}

void smtp_known_add(struct smtp_known *k, str address, uint64_t clears)
{
	struct entry *e;

	if (clears != k->clears || smtp_known_has(k, address) || !(e = malloc(sizeof(*e) + address.n)))
		return;
	if (lru_is_full(&k->table))
		drop(k, lru_oldest(&k->table, 0));
	memcpy(e->address, address.p, address.n);
	lru_insert(&k->table, &e->node, str_of(e->address, address.n), 0);
}

bool smtp_known_has(struct smtp_known *k, str address)
{
	struct lru_node *n = lru_find(&k->table, address);

	if (n)
		lru_touch(&k->table, n, 0);
	return n;
}
