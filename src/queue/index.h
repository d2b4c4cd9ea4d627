/* Hash tables whose nodes live in what they find.
 *
 *	struct index_node *n;
 *	for (n = index_first(&t, hash); n; n = index_next(n))
 *		if (is_the_one(CONTAINER_OF(n, struct thing, node))) ...
 *
 * The caller hashes and compares; seed the hash where the keys come from outside.
 */
#ifndef QUEUE_INDEX_H
#define QUEUE_INDEX_H

#include "base/str.h"

struct index_node {
	struct index_node *next;
	uint64_t hash;
};

/* Zeroed is empty. */
struct index {
	struct index_node **buckets;
	size_t size, count; /* size is a power of 2 */
};

void index_free(struct index *t); /* the table alone */
MUST_USE enum err index_add(struct index *t, struct index_node *n,
			    uint64_t hash);		  /* ERR_NO_MEMORY */
void index_remove(struct index *t, struct index_node *n); /* it must be in it */
/* Those of this hash, the newest first. */
struct index_node *index_first(const struct index *t, uint64_t hash);
struct index_node *index_next(const struct index_node *n);

/* Spreads a number over all bits. */
static inline uint64_t index_mix(uint64_t v)
{
	v ^= v >> 33;
	v *= 0xff51afd7ed558ccdull;
	v ^= v >> 33;
	v *= 0xc4ceb9fe1a85ec53ull;
	return v ^ v >> 33;
}

#endif
