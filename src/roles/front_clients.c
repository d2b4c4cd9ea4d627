/* Limits per client address: a bounded table, oldest out. Rates are counted in fixed minutes, so
 * that an entry is a few words: a client may double its rate across the border of two minutes,
 * which no limit of this kind needs to prevent. */
#include "roles/front_clients.h"

#include "auth/lru.h"
#include "base/loop.h"

#include <stdlib.h>

enum { LIST_IDLE, LIST_ACTIVE };

struct window {
	int64_t minute;
	uint64_t count;
};

struct client {
	struct lru_node node;
	uint8_t key[9]; /* the family and 4 or 8 bytes */
	uint64_t connections;
	struct window connects, messages;
};

struct front_clients {
	struct lru table;
};

enum err front_clients_new(size_t max, struct front_clients **out)
{
	struct front_clients *c = calloc(1, sizeof(*c));
	uint8_t seed[LRU_SEED_SIZE];
	enum err err;

	if (!c)
		return ERR_NO_MEMORY;
	os_random(seed, sizeof(seed));
	if ((err = lru_init(&c->table, max, seed))) {
		free(c);
		return err;
	}
	*out = c;
	return ERR_OK;
}

static void drop(struct front_clients *c, struct lru_node *n)
{
	free(CONTAINER_OF(lru_remove(&c->table, n), struct client, node));
}

void front_clients_free(struct front_clients *c)
{
	struct lru_node *n;

	if (!c)
		return;
	while ((n = lru_oldest(&c->table, LIST_IDLE)) || (n = lru_oldest(&c->table, LIST_ACTIVE)))
		drop(c, n);
	lru_free(&c->table);
	free(c);
}

static str key_of(const struct addr *a, uint8_t key[9])
{
	size_t n = a->family == ADDR_IP4 ? 4 : a->family == ADDR_IP6 ? 8 : 0;

	key[0] = a->family;
	memcpy(key + 1, a->ip, n);
	return str_of(key, n + 1);
}

static struct client *find(const struct front_clients *c, const struct addr *a)
{
	uint8_t key[9];
	struct lru_node *n = lru_find(&c->table, key_of(a, key));

	return n ? CONTAINER_OF(n, struct client, node) : NULL;
}

/* NULL: no memory, or as many clients are connected as we can count. */
static struct client *find_or_make(struct front_clients *c, const struct addr *a)
{
	struct client *k = find(c, a);

	if (k)
		return k;
	if (lru_is_full(&c->table)) {
		struct lru_node *oldest = lru_oldest(&c->table, LIST_IDLE);

		if (!oldest)
			return NULL;
		drop(c, oldest);
	}
	if ((k = calloc(1, sizeof(*k))))
		lru_insert(&c->table, &k->node, key_of(a, k->key), LIST_IDLE);
	return k;
}

static bool count(struct window *w, int64_t now, uint64_t limit)
{
	int64_t minute = now / SECONDS(60);

	if (w->minute != minute)
		*w = (struct window){ .minute = minute };
	return ++w->count <= limit || limit == 0;
}

enum front_admission front_clients_begin(struct front_clients *c, const struct addr *a, int64_t now,
					 uint64_t at_once, uint64_t per_minute)
{
	struct client *k = find_or_make(c, a);

	if (!k)
		return FRONT_TOO_MANY;
	if (!count(&k->connects, now, per_minute))
		return FRONT_TOO_OFTEN;
	if (k->connections >= at_once)
		return FRONT_TOO_MANY;
	k->connections++;
	lru_touch(&c->table, &k->node, LIST_ACTIVE);
	return FRONT_ADMITTED;
}

void front_clients_end(struct front_clients *c, const struct addr *a)
{
	struct client *k = find(c, a);

	if (k && k->connections && --k->connections == 0)
		lru_touch(&c->table, &k->node, LIST_IDLE);
}

bool front_clients_message(struct front_clients *c, const struct addr *a, int64_t now,
			   uint64_t per_minute)
{
	struct client *k = per_minute ? find(c, a) : NULL;

	return !k || count(&k->messages, now, per_minute);
}
