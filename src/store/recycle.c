/* Giving segments back.
 *
 * A segment may go when nothing in it is alive: no body or cold row that a record refers to, and no
 * record that is the newest of its key. It must also end nothing any more: a deletion in it has to
 * stay as long as an older segment could hold what it deleted, or a rebuild would bring that back.
 * Going from the oldest on, and stopping at the first that has to stay, keeps this rule without
 * further accounts.
 *
 * What keeps an old segment is often a few records that never changed again (a mailbox that nobody
 * renamed). Where they are all that is left in the oldest one, they are written again, as they are,
 * in an ordinary commit; the next checkpoint finds the segment empty. Moving bodies as well is
 * compaction, which is not done here: a segment stays as long as a body in it is wanted.
 */
#include "store/store_priv.h"

enum { REWRITE_MAX = 20000, REWRITE_BYTES = 4 * 1024 * 1024 };

static void fds_forget(struct store *s, uint32_t segment)
{
	for (size_t i = 0; i < SEGMENT_FDS; i++) {
		if (s->fds[i].segment == segment && s->fds[i].fd >= 0) {
			os_close(s->fds[i].fd);
			s->fds[i] = (struct segment_fd){ .fd = -1 };
		}
	}
}

/* A record of the segment that is still the newest: again. */
static enum err record_rewrite(struct store *s, uint32_t segment, const struct record *r,
			       uint64_t *bytes)
{
	struct key k = { .n = (uint8_t)r->key.n };
	bool is_deleted;
	uint32_t where;
	str value;
	enum err err;

	if (r->op != RECORD_PUT || r->key.n > KEY_MAX)
		return ERR_OK;
	err = index_get_segment(s->kv->index, r->key, &value, &where);
	if (err || where != segment)
		return err == ERR_NOT_FOUND ? ERR_OK : err;
	memcpy(k.p, r->key.p, r->key.n);
	/* Changed since the checkpoint: a newer record is in a later segment already. */
	if (overlay_find(s->kv->young, key_str(&k)) ||
	    (s->kv->old && overlay_find(s->kv->old, key_str(&k))) ||
	    kv_newer(s->kv, &k, &value, &is_deleted))
		return ERR_OK;
	*bytes += value.n + r->key.n;
	kv_put(s->kv, &k, value);
	return ERR_OK;
}

static enum err segment_rewrite(struct store *s, uint32_t segment)
{
	struct log_place from = { .position = position_of(segment, SEGMENT_HEADER_SIZE) };
	struct log_reader *reader;
	struct log_frame f;
	struct record r;
	uint64_t bytes = 0;
	enum err err = log_reader_new(s->options.dir, &s->kv->identity, s->options.log, &from,
				      position_of(segment + 1, 0), &reader);

	if (err)
		return err;
	while (!err && bytes < REWRITE_BYTES && !(err = log_reader_next(reader, &f))) {
		while (!err && !(err = record_get(&f.records, &r)))
			err = record_rewrite(s, segment, &r, &bytes);
		if (err == ERR_EOF)
			err = ERR_OK;
	}
	log_reader_free(reader);
	return err == ERR_EOF ? ERR_OK : err;
}

static void oldest_rewrite(struct store *s, uint32_t segment)
{
	struct pending *p = pending_new(s, NULL, NULL);
	enum err err = p ? kv_begin(s->kv, true) : ERR_NO_MEMORY;

	if (!err && (err = segment_rewrite(s, segment)))
		kv_cancel(s->kv);
	if (err)
		pending_free(p);
	else
		err = pending_end(p);
	if (err && s->options.log)
		log_warn(s->options.log, "store-rewrite-failed", "segment=%08x error=%s", segment,
			 err_name(err));
}

void segments_recycle(struct store *s)
{
	struct arena *a = arena_new(64 * 1024 * 1024);
	struct segment_usage u;
	uint32_t *numbers;
	size_t count;

	if (!a || segment_list(s->options.dir, a, &numbers, &count))
		count = 0;
	for (size_t i = 0; i < count && numbers[i] < position_segment(s->kv->covered); i++) {
		if (index_usage(s->kv->index, numbers[i], &u) || u.blobs)
			break;
		if (u.records) {
			if (u.records <= REWRITE_MAX)
				oldest_rewrite(s, numbers[i]);
			break;
		}
		fds_forget(s, numbers[i]);
		if (log_writer_recycle(&s->kv->writer, numbers[i]))
			break;
		s->freed_segments++;
	}
	kv_release(s->kv);
	arena_free(a);
}
