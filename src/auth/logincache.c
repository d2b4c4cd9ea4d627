/* The cache of logins. An entry's key is
 *
 *	HMAC-SHA-256(key, account (8 bytes) | length of the hash (8 bytes) | hash | password)
 *
 * The length makes the text unambiguous. The stored hash is in it so that a new password is a new
 * key even before the change counter is seen. Whoever reads this process's memory could guess
 * passwords against an entry quickly, as the key is there too; for that the entries are few,
 * short-lived, and wiped when they go.
 *
 * Comparing keys in the table is not constant-time and need not be: nobody outside can compute
 * one, so how far two of them agree tells nothing.
 */
#include "auth/logincache.h"

#include "auth/lru.h"
#include "auth/password.h"
#include "auth/scram.h"
#include "base/buf.h"

#include <openssl/crypto.h>
#include <stdlib.h>

struct entry {
	struct lru_node node; /* first */
	uint8_t key[SCRAM_KEY_SIZE];
	int64_t until;
};

struct logincache {
	struct lru table;
	uint64_t changes;
	uint8_t key[LOGINCACHE_KEY_SIZE];
};

struct logincache *logincache_new(size_t max, const uint8_t key[LOGINCACHE_KEY_SIZE])
{
	struct logincache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	memcpy(c->key, key, sizeof(c->key));
	/* The table's seed may be public: its keys are as good as random. */
	if (lru_init(&c->table, max, (const uint8_t[LRU_SEED_SIZE]){ 0 })) {
		free(c);
		return NULL;
	}
	return c;
}

static void drop(struct logincache *c, struct lru_node *n)
{
	struct entry *e = CONTAINER_OF(lru_remove(&c->table, n), struct entry, node);

	OPENSSL_cleanse(e, sizeof(*e));
	free(e);
}

static void drop_all(struct logincache *c)
{
	struct lru_node *n;

	while ((n = lru_oldest(&c->table, 0)))
		drop(c, n);
}

void logincache_free(struct logincache *c)
{
	if (!c)
		return;
	drop_all(c);
	lru_free(&c->table);
	OPENSSL_cleanse(c, sizeof(*c));
	free(c);
}

size_t logincache_count(const struct logincache *c)
{
	return c->table.count;
}

static enum err key_of(const struct logincache *c, uint64_t account, str hash, str password,
		       uint8_t key[SCRAM_KEY_SIZE])
{
	char text[16 + PASSWORD_STORED_MAX + PASSWORD_MAX];
	size_t n = 16;
	enum err err;

	if (hash.n > PASSWORD_STORED_MAX || password.n > PASSWORD_MAX || hash.n == 0 ||
	    password.n == 0)
		return ERR_RANGE;
	put_le64(text, account);
	put_le64(text + 8, hash.n);
	memcpy(text + n, hash.p, hash.n);
	n += hash.n;
	memcpy(text + n, password.p, password.n);
	n += password.n;
	err = hmac_sha256(str_of(c->key, sizeof(c->key)), str_of(text, n), key);
	OPENSSL_cleanse(text, sizeof(text));
	return err;
}

static void drop_what_is_old(struct logincache *c, uint64_t changes)
{
	if (c->changes != changes)
		drop_all(c);
	c->changes = changes;
}

bool logincache_has(struct logincache *c, int64_t now, uint64_t changes, uint64_t account, str hash,
		    str password)
{
	uint8_t key[SCRAM_KEY_SIZE];
	struct lru_node *n;

	drop_what_is_old(c, changes);
	if (key_of(c, account, hash, password, key))
		return false;
	n = lru_find(&c->table, str_of(key, sizeof(key)));
	if (n && CONTAINER_OF(n, struct entry, node)->until <= now) {
		drop(c, n);
		n = NULL;
	}
	if (n)
		lru_touch(&c->table, n, 0);
	return n != NULL;
}

void logincache_add(struct logincache *c, int64_t now, uint64_t changes, uint64_t account, str hash,
		    str password)
{
	uint8_t key[SCRAM_KEY_SIZE];
	struct lru_node *n;
	struct entry *e;

	drop_what_is_old(c, changes);
	if (key_of(c, account, hash, password, key))
		return;
	n = lru_find(&c->table, str_of(key, sizeof(key)));
	if (n) {
		CONTAINER_OF(n, struct entry, node)->until = now + LOGINCACHE_NS;
		lru_touch(&c->table, n, 0);
		return;
	}
	if (lru_is_full(&c->table))
		drop(c, lru_oldest(&c->table, 0));
	e = calloc(1, sizeof(*e));
	if (!e)
		return; /* remembering is a favour, not a duty */
	memcpy(e->key, key, sizeof(e->key));
	e->until = now + LOGINCACHE_NS;
	lru_insert(&c->table, &e->node, str_of(e->key, sizeof(e->key)), 0);
}
