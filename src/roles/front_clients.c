/* Limits per client address: a bounded table, oldest out. Rates are counted in fixed minutes, so
 * that an entry is a few words: a client may double its rate across the border of two minutes,
 * which no limit of this kind needs to prevent.
 *
 * In the shared file every process has a part of its own, a hash table of sets: a client has one
 * place for its set, the same in each part, and takes one of a few entries there. One that finds
 * its set full of others that are connected is counted by its process alone. */
#include "roles/front_clients.h"

#include "auth/lru.h"
#include "base/buf.h"
#include "base/loop.h"
#include "base/os.h"

#include <stdlib.h>

enum { LIST_IDLE, LIST_ACTIVE };

/* An entry of the shared file, little-endian: key[12], connections, the minute of connects,
 * connects, the minute of messages, messages. The first byte of a key is never 0. */
enum {
	KEY_SIZE = 12,
	ENTRY_SIZE = 32,
	SET_ENTRIES = 8,
	SET_SIZE = SET_ENTRIES * ENTRY_SIZE,
	SET_BITS = 9,
	PART_SIZE = SET_SIZE << SET_BITS,
};

struct window {
	int64_t minute;
	uint64_t count;
};

struct client {
	struct lru_node node;
	uint8_t key[KEY_SIZE]; /* the family and 4 or 8 bytes, then zeros */
	uint64_t connections;
	struct window connects, messages;
};

struct front_clients {
	struct lru table;
	int file; /* -1: not shared */
	unsigned index;
};

struct counts {
	uint64_t connections, connects, messages;
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
	c->file = -1;
	*out = c;
	return ERR_OK;
}

/* ---- the shared file ---- */

static void unshare(struct front_clients *c)
{
	if (c->file >= 0)
		os_close(c->file);
	c->file = -1;
}

enum err front_clients_share(struct front_clients *c, int file, unsigned index)
{
	static const char zeros[PART_SIZE];
	enum err err =
		os_pwrite_all(file, str_of(zeros, sizeof(zeros)), (uint64_t)index * PART_SIZE);

	if (err) {
		os_close(file);
		return err;
	}
	unshare(c);
	c->file = file;
	c->index = index;
	return ERR_OK;
}

static uint64_t set_place(const uint8_t key[KEY_SIZE], unsigned process)
{
	uint64_t h = get_le64((const char *)key + 1) * 0x9e3779b97f4a7c15u;

	return (uint64_t)process * PART_SIZE + (h >> (64 - SET_BITS)) * SET_SIZE;
}

/* False where the file ends: so many processes there are. */
static bool set_read(struct front_clients *c, uint64_t at, char set[SET_SIZE])
{
	size_t n = 0;
	enum err err = os_pread(c->file, set, SET_SIZE, at, &n);

	if (err && err != ERR_EOF)
		unshare(c);
	return n == SET_SIZE;
}

static uint32_t in_minute(const struct window *w, int64_t minute)
{
	return w->minute == minute ? (uint32_t)MIN(w->count, UINT32_MAX) : 0;
}

static bool is_in_use(const char *entry, uint32_t minute)
{
	return entry[0] && (get_le32(entry + 12) || get_le32(entry + 16) == minute ||
			    get_le32(entry + 24) == minute);
}

/* The client's entry in a set of ours, or one that nobody needs; NULL: there is none. */
static char *entry_find(char set[SET_SIZE], const struct client *k, uint32_t minute)
{
	char *unused = NULL;

	for (char *e = set; e < set + SET_SIZE; e += ENTRY_SIZE) {
		if (memcmp(e, k->key, KEY_SIZE) == 0)
			return e;
		if (!unused && !is_in_use(e, minute))
			unused = e;
	}
	return unused;
}

/* Says to the others what this process counts for a client. */
static void publish(struct front_clients *c, const struct client *k, int64_t now)
{
	uint64_t at = set_place(k->key, c->index);
	char set[SET_SIZE], *e;

	if (c->file < 0 || !set_read(c, at, set) ||
	    !(e = entry_find(set, k, (uint32_t)(now / SECONDS(60)))))
		return;
	memcpy(e, k->key, KEY_SIZE);
	put_le32(e + 12, (uint32_t)MIN(k->connections, UINT32_MAX));
	put_le32(e + 16, (uint32_t)k->connects.minute);
	put_le32(e + 20, in_minute(&k->connects, k->connects.minute));
	put_le32(e + 24, (uint32_t)k->messages.minute);
	put_le32(e + 28, in_minute(&k->messages, k->messages.minute));
	if (os_pwrite_all(c->file, str_of(e, ENTRY_SIZE), at + (uint64_t)(e - set)))
		unshare(c);
}

/* What all processes count for a client. */
static struct counts counts_of(struct front_clients *c, const struct client *k, int64_t now)
{
	int64_t minute = now / SECONDS(60);
	struct counts sum = { k->connections, in_minute(&k->connects, minute),
			      in_minute(&k->messages, minute) };
	char set[SET_SIZE];

	for (unsigned p = 0; c->file >= 0 && set_read(c, set_place(k->key, p), set); p++) {
		if (p == c->index)
			continue;
		for (const char *e = set; e < set + SET_SIZE; e += ENTRY_SIZE) {
			if (memcmp(e, k->key, KEY_SIZE) != 0)
				continue;
			sum.connections += get_le32(e + 12);
			sum.connects += get_le32(e + 16) == (uint32_t)minute ? get_le32(e + 20) : 0;
			sum.messages += get_le32(e + 24) == (uint32_t)minute ? get_le32(e + 28) : 0;
		}
	}
	return sum;
}

/* ---- clients ---- */

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
	unshare(c);
	free(c);
}

static str key_of(const struct addr *a, uint8_t key[KEY_SIZE])
{
	size_t n = a->family == ADDR_IP4 ? 4 : a->family == ADDR_IP6 ? 8 : 0;

	memset(key, 0, KEY_SIZE);
	key[0] = (uint8_t)a->family;
	memcpy(key + 1, a->ip, n);
	return str_of(key, n + 1);
}

static struct client *find(const struct front_clients *c, const struct addr *a)
{
	uint8_t key[KEY_SIZE];
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

static void count(struct window *w, int64_t now)
{
	int64_t minute = now / SECONDS(60);

	if (w->minute != minute)
		*w = (struct window){ .minute = minute };
	w->count++;
}

enum front_admission front_clients_begin(struct front_clients *c, const struct addr *a, int64_t now,
					 uint64_t at_once, uint64_t per_minute)
{
	struct client *k = find_or_make(c, a);
	enum front_admission result = FRONT_ADMITTED;
	struct counts all;

	if (!k)
		return FRONT_TOO_MANY;
	count(&k->connects, now);
	all = counts_of(c, k, now);
	if (per_minute && all.connects > per_minute)
		result = FRONT_TOO_OFTEN;
	else if (all.connections >= at_once)
		result = FRONT_TOO_MANY;
	if (!result) {
		k->connections++;
		lru_touch(&c->table, &k->node, LIST_ACTIVE);
	}
	publish(c, k, now);
	return result;
}

void front_clients_end(struct front_clients *c, const struct addr *a, int64_t now)
{
	struct client *k = find(c, a);

	if (!k || !k->connections)
		return;
	if (--k->connections == 0)
		lru_touch(&c->table, &k->node, LIST_IDLE);
	publish(c, k, now);
}

bool front_clients_message(struct front_clients *c, const struct addr *a, int64_t now,
			   uint64_t per_minute)
{
	struct client *k = per_minute ? find(c, a) : NULL;

	if (!k)
		return true;
	count(&k->messages, now);
	publish(c, k, now);
	return counts_of(c, k, now).messages <= per_minute;
}
