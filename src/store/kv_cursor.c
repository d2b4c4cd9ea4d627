/* Reading keys in order: the overlays laid over the index.
 *
 * Three ordered streams are merged; for a key that is in several, the younger one is right, unless
 * all it has is newer than the reader may see. With overlay_only the index is left out: for who
 * knows that nothing it asks for is there (a session that asks what changed since a moment ago).
 */
#include "store/kv_priv.h"

#include "base/mutant.h"
#include <assert.h>

enum err kv_cursor_open(struct kv *kv, enum kv_state state, str prefix, str from, bool overlay_only,
			struct kv_cursor *c)
{
	assert(prefix.n <= KEY_MAX);
	*c = (struct kv_cursor){ .kv = kv,
				 .limit = state == KV_DURABLE && !MUTANT(pending_read)
						  ? kv->durable_serial
						  : UINT64_MAX,
				 .overlay_only = overlay_only };
	if (prefix.n)
		memcpy(c->prefix_bytes, prefix.p, prefix.n);
	c->prefix = str_of(NULL, prefix.n);
	c->young = overlay_seek(kv->young, from);
	c->old = kv->old ? overlay_seek(kv->old, from) : NULL;
	return overlay_only ? ERR_OK : index_cursor_open(kv->index, from, &c->index);
}

static bool in_prefix(const struct kv_cursor *c, str key)
{
	return key.n >= c->prefix.n && memcmp(key.p, c->prefix_bytes, c->prefix.n) == 0;
}

static struct entry *within(const struct kv_cursor *c, struct entry *e)
{
	return e && in_prefix(c, entry_key(e)) ? e : NULL;
}

/* The index's current pair; ERR_EOF past the prefix. */
static enum err index_current(struct kv_cursor *c, str *key, str *value)
{
	enum err err = c->index ? index_cursor_get(c->index, key, value) : ERR_EOF;

	return !err && !in_prefix(c, *key) ? ERR_EOF : err;
}

/* Of the overlays, the smaller key; which of the streams have it. */
static enum err step(struct kv_cursor *c, str *key, str *value, bool *is_deleted)
{
	str index_key = STR_EMPTY, index_value = STR_EMPTY;
	const struct version *v = NULL;
	bool has_index;
	enum err err = index_current(c, &index_key, &index_value);

	if (err && err != ERR_EOF)
		return err;
	has_index = !err;
	c->young = within(c, c->young);
	c->old = within(c, c->old);
	if (!has_index && !c->young && !c->old)
		return ERR_EOF;
	*key = has_index ? index_key : entry_key(c->young ? c->young : c->old);
	if (c->young && str_cmp(entry_key(c->young), *key) < 0)
		*key = entry_key(c->young);
	if (c->old && str_cmp(entry_key(c->old), *key) < 0)
		*key = entry_key(c->old);
	if (c->young && str_eq(entry_key(c->young), *key)) {
		v = entry_version(c->young, c->limit);
		c->young = entry_next(c->young);
	}
	if (c->old && str_eq(entry_key(c->old), *key)) {
		if (!v)
			v = entry_version(c->old, c->limit);
		c->old = entry_next(c->old);
	}
	has_index = has_index && str_eq(index_key, *key);
	*value = v ? str_of(v->value, v->size) : index_value;
	*is_deleted = v ? v->is_deleted : !has_index;
	/* The slices of LMDB last as long as the snapshot, not the position. */
	return has_index ? index_cursor_next(c->index) : ERR_OK;
}

enum err kv_cursor_next(struct kv_cursor *c, str *key, str *value)
{
	bool is_deleted = false;
	enum err err;

	do
		err = step(c, key, value, &is_deleted);
	while (!err && is_deleted);
	return err;
}

void kv_cursor_close(struct kv_cursor *c)
{
	index_cursor_close(c->index);
	c->index = NULL;
}
