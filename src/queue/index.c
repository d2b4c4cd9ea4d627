/* Chained hash tables, grown to keep about one node per bucket.
 *
 * The nodes are inside of the things, so adding allocates nothing but, now and then, buckets. When
 * there is no memory to grow, the chains become longer and nothing else happens; only the first
 * buckets can fail.
 */
#include "queue/index.h"

#include <stdlib.h>

enum { INDEX_FIRST = 64 };

void index_free(struct index *t)
{
	free(t->buckets);
	*t = (struct index){ 0 };
}

static struct index_node **bucket_of(const struct index *t, uint64_t hash)
{
	return &t->buckets[index_mix(hash) & (t->size - 1)];
}

static void grow(struct index *t)
{
	struct index bigger = { .size = t->size ? t->size * 2 : INDEX_FIRST, .count = t->count };

	bigger.buckets = calloc(bigger.size, sizeof(*bigger.buckets));
	if (!bigger.buckets)
		return;
	for (size_t i = 0; i < t->size; i++) {
		struct index_node *next;

		for (struct index_node *n = t->buckets[i]; n; n = next) {
			struct index_node **b = bucket_of(&bigger, n->hash);

			next = n->next;
			n->next = *b;
			*b = n;
		}
	}
	free(t->buckets);
	*t = bigger;
}

enum err index_add(struct index *t, struct index_node *n, uint64_t hash)
{
	struct index_node **b;

	if (t->count >= t->size)
		grow(t);
	if (!t->size)
		return ERR_NO_MEMORY;
	n->hash = hash;
	b = bucket_of(t, hash);
	n->next = *b;
	*b = n;
	t->count++;
	return ERR_OK;
}

void index_remove(struct index *t, struct index_node *n)
{
	struct index_node **at = bucket_of(t, n->hash);

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	t->count--;
}

static struct index_node *same_hash(struct index_node *n, uint64_t hash)
{
	while (n && n->hash != hash)
		n = n->next;
	return n;
}

struct index_node *index_first(const struct index *t, uint64_t hash)
{
	return t->size ? same_hash(*bucket_of(t, hash), hash) : NULL;
}

struct index_node *index_next(const struct index_node *n)
{
	return same_hash(n->next, n->hash);
}
