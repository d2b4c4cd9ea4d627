/* The overlay: a hash table for look-ups and a skip list over the same entries for order.
 *
 * Both, because most work is 'the newest version of this key' (one or two cache misses in the
 * table, against a dozen in the list), while rows and due times are read in order. The list's
 * levels come from the key's hash: no random numbers, and the same input gives the same structure
 * in the simulator. Entries are never removed alone, so that whoever walks the list may change
 * values, and add keys, meanwhile.
 */
#include "store/overlay.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS_FIRST = 1024 };

struct overlay {
	struct arena *arena;
	struct entry **slots;
	size_t slot_count, count;
	uint64_t seed;
	struct entry *heads[OVERLAY_LEVELS];
};

struct overlay *overlay_new(size_t budget)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->arena = arena_new(budget);
	o->slots = calloc(SLOTS_FIRST, sizeof(*o->slots));
	o->slot_count = SLOTS_FIRST;
	if (o->arena && o->slots)
		return o;
	overlay_free(o);
	return NULL;
}

void overlay_free(struct overlay *o)
{
	if (!o)
		return;
	arena_free(o->arena);
	free(o->slots);
	free(o);
}

size_t overlay_bytes(const struct overlay *o)
{
	return arena_used(o->arena) + o->slot_count * sizeof(*o->slots);
}

size_t overlay_count(const struct overlay *o)
{
	return o->count;
}

str entry_key(const struct entry *e)
{
	return str_of(e->next + e->levels, e->key_size);
}

struct version *entry_version(const struct entry *e, uint64_t limit)
{
	struct version *v = e->newest;

	while (v && v->serial > limit)
		v = v->older;
	return v;
}

static uint64_t key_hash(str key)
{
	uint64_t h = str_hash(key, 0);

	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static struct entry *find_hashed(const struct overlay *o, str key, uint64_t hash)
{
	struct entry *e = o->slots[hash & (o->slot_count - 1)];

	while (e && !str_eq(entry_key(e), key))
		e = e->same_slot;
	return e;
}

struct entry *overlay_find(const struct overlay *o, str key)
{
	return o->count ? find_hashed(o, key, key_hash(key)) : NULL;
}

/* before[level]: the pointer that leads to the first entry that is not less. */
static struct entry *seek(const struct overlay *o, str key, struct entry **before[OVERLAY_LEVELS])
{
	/* The list is not changed here; the caller that asked for `before` may. */
	struct entry **at = (struct entry **)(uintptr_t)o->heads;

	for (unsigned level = OVERLAY_LEVELS; level-- > 0;) {
		while (at[level] && str_cmp(entry_key(at[level]), key) < 0)
			at = at[level]->next;
		if (before)
			before[level] = &at[level];
	}
	return at[0];
}

struct entry *overlay_seek(const struct overlay *o, str key)
{
	return seek(o, key, NULL);
}

/* A failure to grow costs time, not correctness. */
static void slots_grow(struct overlay *o)
{
	size_t count = o->slot_count * 2;
	struct entry **slots = calloc(count, sizeof(*slots));

	if (!slots)
		return;
	for (struct entry *e = o->heads[0]; e; e = e->next[0]) {
		struct entry **slot = &slots[key_hash(entry_key(e)) & (count - 1)];

		e->same_slot = *slot;
		*slot = e;
	}
	free(o->slots);
	o->slots = slots;
	o->slot_count = count;
}

static struct entry *entry_add(struct overlay *o, str key, uint64_t hash)
{
	struct entry **before[OVERLAY_LEVELS], **slot;
	unsigned levels = 1 + MIN((unsigned)__builtin_ctzll(hash >> 32 | 1ull << 31) / 2,
				  OVERLAY_LEVELS - 1u);
	struct entry *e;

	assert(key.n <= UINT8_MAX);
	e = arena_alloc(o->arena, sizeof(*e) + levels * sizeof(e->next[0]) + key.n);
	if (!e)
		return NULL;
	e->key_size = (uint8_t)key.n;
	e->levels = (uint8_t)levels;
	memcpy(e->next + levels, key.p, key.n);
	if (o->count >= o->slot_count)
		slots_grow(o);
	(void)seek(o, key, before);
	for (unsigned level = 0; level < levels; level++) {
		e->next[level] = *before[level];
		*before[level] = e;
	}
	slot = &o->slots[hash & (o->slot_count - 1)];
	e->same_slot = *slot;
	*slot = e;
	o->count++;
	return e;
}

/* Counters change with every commit: without this, each would leave a version behind until the next
 * checkpoint. */
static struct version *version_reuse(struct entry *e, uint64_t durable, size_t size)
{
	struct version *newest = entry_version(e, durable), *v = newest ? newest->older : NULL;

	if (!v || v->room < size)
		return NULL;
	newest->older = v->older;
	return v;
}

enum err overlay_push(struct overlay *o, str key, uint64_t serial, uint64_t durable,
		      bool is_deleted, str value, struct entry **entry, struct version **version)
{
	uint64_t hash = key_hash(key);
	struct entry *e = find_hashed(o, key, hash);
	struct version *v = e ? version_reuse(e, durable, value.n) : NULL;
	size_t room = (value.n + 15) / 16 * 16;

	if (!v && (v = arena_alloc(o->arena, sizeof(*v) + room)))
		v->room = u32_of(room);
	if (!v)
		return ERR_NO_MEMORY;
	if (!e)
		e = entry_add(o, key, hash);
	if (!e)
		return ERR_NO_MEMORY;
	v->older = e->newest;
	v->serial = serial;
	v->size = u32_of(value.n);
	v->is_deleted = is_deleted;
	if (value.n)
		memcpy(v->value, value.p, value.n);
	e->newest = v;
	*entry = e;
	*version = v;
	return ERR_OK;
}

void overlay_pop(struct entry *e, uint64_t serial)
{
	while (e->newest && e->newest->serial > serial)
		e->newest = e->newest->older;
}
