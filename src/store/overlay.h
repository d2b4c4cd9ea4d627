/* What changed since the last checkpoint, in memory: keys in order, each with its versions.
 *
 * A version belongs to a commit, by its serial number. A reader says up to which serial it may see:
 * the last durable one (everybody who answers somebody), or all (who computes the next change).
 * Memory is given back all at once, when the index covers everything in it (overlay_free); what
 * commits take back (overlay_pop) and what newer versions hide stays until then.
 */
#ifndef STORE_OVERLAY_H
#define STORE_OVERLAY_H

#include "base/arena.h"

struct version {
	struct version *older;
	uint64_t serial;
	uint32_t size, room; /* bytes of value; and what it could hold */
	bool is_deleted;
	char value[];
};

enum { OVERLAY_LEVELS = 12 };

struct entry {
	struct version *newest; /* NULL: all were taken back */
	struct entry *same_slot;
	uint8_t key_size, levels;
	struct entry *next[]; /* `levels` of them, then the key */
};

struct overlay;

/* `budget`: the most bytes it will hold. */
struct overlay *overlay_new(size_t budget);
void overlay_free(struct overlay *o);
size_t overlay_bytes(const struct overlay *o);
size_t overlay_count(const struct overlay *o); /* keys */

str entry_key(const struct entry *e);
/* NULL: there is none that old. */
struct version *entry_version(const struct entry *e, uint64_t limit);

struct entry *overlay_find(const struct overlay *o, str key); /* or NULL */
/* The first whose key is not less, in order; NULL at the end. */
struct entry *overlay_seek(const struct overlay *o, str key);
static inline struct entry *entry_next(const struct entry *e)
{
	return e->next[0];
}

/* A new newest version. `durable`: what is older than the newest version up to that serial nobody
 * reads any more, and its memory is used again. ERR_NO_MEMORY. */
MUST_USE enum err overlay_push(struct overlay *o, str key, uint64_t serial, uint64_t durable,
			       bool is_deleted, str value, struct entry **entry,
			       struct version **version);
/* Takes back all versions above this serial. */
void overlay_pop(struct entry *e, uint64_t serial);

#endif
