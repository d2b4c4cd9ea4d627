/* The store's half of compaction: writes the current state of what is still wanted in some segments
 * into the head of the log, and then gives them back.
 *
 *	plan        the helper names the segments
 *	step ...    it names keys, with the blobs that move; each step is one commit
 *	checkpoint  so that the index says what is left in the segments: nothing, mostly
 *	free        those of which it says so
 *
 * What the helper found is a hint: the key is looked up again here, and what is there now is
 * written, on top of what is pending for it. A row that lies elsewhere meanwhile is left alone. So
 * a commit of compaction changes nothing that anybody can see: no MODSEQ, no UID, no hint.
 *
 * A moved blob's place is known when its frame is laid out. Until then the record says the old
 * place, which is good for as long as the segment is there; a change in between (a flag, a copy)
 * goes on with the old place and so takes the move back, and the next pass moves it again.
 *
 * A crash at any point leaves the segments there, and some of what is in them a second time, newer:
 * the next pass begins anew. Deletions are the exception: nobody counts which of them are still
 * needed, so a segment with deletions goes only in the run of the process that saw all of them
 * written again, or when nothing older is left (compact_plan.c).
 *
 * One step is under way at a time, and the next one waits until it is durable, and by its size in
 * bytes for `rate`: deliveries share a frame with half a megabyte of it at most.
 */
#include "store/store_priv.h"

#include "store/compact_priv.h"

#include <stdlib.h>

enum {
	STEP_BYTES = 512 * 1024,
	BUDGET_MIN = 256 * 1024 * 1024, /* moved by one pass; with a large index more: a pass reads
					   all of it */
	FORCED_PERCENT = 95,
	PLAN_SECONDS = 60,
	FULL_SECONDS = 5,
	FAILED_SECONDS = 300,
};

static int64_t seconds(int64_t n)
{
	return n * 1000000000;
}

/* The segments that hold anything: how many, and the first; 0: none. */
static size_t filled(struct store *s, uint32_t *oldest)
{
	struct arena *a = arena_new(64 * 1024 * 1024);
	char name[SEGMENT_NAME_SIZE];
	struct os_stat st;
	uint32_t *numbers;
	size_t count, n = 0;

	*oldest = 0;
	if (!a || segment_list(s->options.dir, a, &numbers, &count))
		count = 0;
	for (size_t i = 0; i < count; i++) {
		segment_name(name, numbers[i]);
		if (!os_stat(s->options.dir, name, &st) && segment_is_emptied(st.size))
			continue;
		if (!n++)
			*oldest = numbers[i];
	}
	arena_free(a);
	return n;
}

static uint64_t budget(const struct store *s)
{
	struct os_stat st;

	/* Each pass needs room before it gives any. */
	if (s->kv->is_full)
		return s->kv->options.segment_size / 2;
	if (os_stat(s->options.dir, "index/data.mdb", &st))
		st.size = 0;
	return MAX((uint64_t)BUDGET_MIN, st.size / 2);
}

bool store_compact_due(struct store *s, bool force, struct msg_cp_plan *ask)
{
	struct compaction *c = &s->compact;
	const struct store_limits *l = &s->options.limits;

	if (c->state != COMPACT_IDLE || s->kv->is_checkpointing)
		return false;
	if (!force && os_monotonic_ns() < c->next_plan)
		return false;
	*ask = (struct msg_cp_plan){ .percent = force || s->kv->is_full ? FORCED_PERCENT
									: (uint16_t)l->percent,
				     .budget = budget(s) };
	if (l->compress_us && !s->kv->is_full)
		ask->old_before_us = os_wall_us() - l->compress_us;
	c->state = COMPACT_ASKED;
	c->is_forced = force;
	return true;
}

static void segments_forget(struct compaction *c)
{
	free(c->segments);
	c->segments = NULL;
	c->count = 0;
}

/* Until the next plan. */
static void rest(struct store *s, int64_t how_long)
{
	struct compaction *c = &s->compact;

	segments_forget(c);
	c->state = COMPACT_IDLE;
	c->is_forced = false;
	c->next_plan = os_monotonic_ns() +
		       seconds(s->kv->is_full ? MIN(how_long, (int64_t)FULL_SECONDS) : how_long);
}

void compact_free(struct store *s)
{
	segments_forget(&s->compact);
	buf_free(&s->compact.value);
}

void store_compact_failed(struct store *s)
{
	if (s->compact.state != COMPACT_IDLE)
		rest(s, FAILED_SECONDS);
	s->compact.is_failed = true;
}

bool store_compact_begin(struct store *s, const struct msg_cp_planned *plan)
{
	struct compaction *c = &s->compact;
	struct rec_cp_segment r;
	str list = plan->segments;
	uint32_t oldest;
	enum err err;

	c->wanted = plan->wanted;
	c->wasted = plan->wasted;
	c->is_failed = c->has_gained = false;
	c->filled = filled(s, &oldest);
	segments_forget(c);
	if (!(c->segments = calloc(COMPACT_SEGMENTS_MAX, sizeof(*c->segments)))) {
		store_compact_failed(s);
		return false;
	}
	while (c->count < COMPACT_SEGMENTS_MAX && !(err = rec_cp_segment_get(&list, &r)))
		c->segments[c->count++] =
			(struct compact_victim){ .number = r.number, .ends_older = r.ends_older };
	if (c->count == 0) {
		rest(s, PLAN_SECONDS);
		return false;
	}
	c->failures = s->kv->counts.failed;
	c->next_step = 0;
	c->state = COMPACT_STEPPING;
	return true;
}

bool store_compact_step_due(struct store *s, struct msg_cp_step *ask, int64_t *when_ns)
{
	struct compaction *c = &s->compact;

	*when_ns = 0;
	if (c->state != COMPACT_STEPPING)
		return false;
	if (os_monotonic_ns() < c->next_step) {
		*when_ns = c->next_step;
		return false;
	}
	/* A commit may be half a segment; a body is an eighth at most. */
	ask->bytes = u32_of(MIN((uint64_t)STEP_BYTES, s->kv->options.segment_size / 8));
	c->state = COMPACT_STEP_ASKED;
	return true;
}

/* ---- one step ---- */

static bool same_place(struct blob_place p, const struct rec_cp_item *i)
{
	return p.segment == i->segment && p.offset == i->offset;
}

static unsigned blob_take(struct store *s, const struct rec_cp_item *i, str blobs)
{
	str bytes = str_sub(blobs, i->at, i->size);
	char *p = malloc(bytes.n + 1);

	if (!p || bytes.n != i->size) {
		free(p);
		kv_fail(s->kv, p ? ERR_PROTOCOL : ERR_NO_MEMORY);
		return 0;
	}
	memcpy(p, bytes.p, bytes.n);
	s->compact.moved += bytes.n;
	return kv_blob(s->kv, p, i->size);
}

static void body_move(struct store *s, const struct key *k, str value, const struct rec_cp_item *i,
		      str blobs)
{
	struct compaction *c = &s->compact;
	char more[BODY_MORE];
	struct body d, moved;

	if (body_get(value, &d)) {
		kv_fail(s->kv, ERR_DAMAGED);
		return;
	}
	if (!same_place(d.place, i))
		return;
	moved = d;
	moved.codec = i->codec;
	moved.stored = i->size;
	c->saved += i->codec != d.codec && d.stored > i->size ? d.stored - i->size : 0;
	buf_clear(&c->value);
	body_put_wide(&c->value, &d);
	body_more_put(more, &moved);
	kv_put_moved(s->kv, k, buf_str(&c->value), blob_take(s, i, blobs),
		     str_of(more, sizeof(more)));
}

/* A value as it is: it may lie in the overlay or the index, and does not outlive the next record.
 */
static str copied(struct compaction *c, str value)
{
	buf_clear(&c->value);
	buf_add(&c->value, value);
	return buf_str(&c->value);
}

static void item_apply(struct store *s, const struct rec_cp_item *i, str blobs)
{
	struct key k = { .n = (uint8_t)i->key.n };
	struct row r;
	str value;
	enum err err;

	memcpy(k.p, i->key.p, i->key.n);
	err = kv_get(s->kv, KV_PENDING, &k, &value);
	if (err && err != ERR_NOT_FOUND) {
		kv_fail(s->kv, err);
		return;
	}
	/* A record that is newer than what the helper saw lies in a later segment already; one that
	 * is not durable may still be taken back, and with it what is written here. */
	if (i->what == COMPACT_DELETE) {
		if (err && !kv_is_changed(s->kv, &k))
			kv_delete(s->kv, &k);
	} else if (err) {
		return;
	} else if (i->what == COMPACT_BODY) {
		body_move(s, &k, value, i, blobs);
	} else if (i->what == COMPACT_COLD && !row_get(value, 0, &r) && same_place(r.cold, i)) {
		kv_put_moved(s->kv, &k, copied(&s->compact, value), blob_take(s, i, blobs),
			     STR_EMPTY);
	} else if (!kv_is_changed(s->kv, &k)) {
		kv_put(s->kv, &k, copied(&s->compact, value));
	}
}

static void step_done(void *arg, enum err err, const struct msg_st_commit_reply *reply UNUSED)
{
	struct store *s = arg;
	struct compaction *c = &s->compact;
	const uint64_t rate = s->options.limits.rate;

	if (c->state != COMPACT_STEP_PENDING)
		return;
	if (err || s->kv->counts.failed != c->failures) {
		store_compact_failed(s);
		return;
	}
	if (!c->has_more) {
		c->state = COMPACT_CHECKPOINT;
		c->position = s->kv->writer.durable;
		return;
	}
	c->state = COMPACT_STEPPING;
	c->next_step = os_monotonic_ns();
	if (rate && !c->is_forced && !s->kv->is_full)
		c->next_step += (int64_t)(c->step_bytes * 1000000000 / rate);
}

void store_compact_items(struct store *s, const struct msg_cp_items *in, str blobs)
{
	struct compaction *c = &s->compact;
	struct rec_cp_item item;
	struct pending *p;
	str items = in->items;
	enum err err;

	if (c->state != COMPACT_STEP_ASKED)
		return;
	c->state = COMPACT_STEP_PENDING;
	c->has_more = in->more;
	c->step_bytes = blobs.n + items.n;
	p = pending_new(s, step_done, s);
	err = p ? kv_begin(s->kv, true) : ERR_NO_MEMORY;
	if (err) {
		pending_free(p);
		store_compact_failed(s);
		return;
	}
	while (!(err = rec_cp_item_get(&items, &item)) && item.key.n && item.key.n <= KEY_MAX)
		item_apply(s, &item, blobs);
	if (err != ERR_EOF)
		kv_fail(s->kv, ERR_PROTOCOL);
	if (pending_end(p))
		store_compact_failed(s);
}

/* ---- giving back ---- */

static bool victim_free(struct store *s, const struct compact_victim *v, uint32_t oldest)
{
	char name[SEGMENT_NAME_SIZE];
	struct segment_usage u;
	enum err err = index_usage(s->kv->index, v->number, &u);
	int fd;

	if (err || u.records || u.blobs)
		return false;
	/* What should have gone before it did not: its deletions may still be needed. */
	if (u.deletes && !v->ends_older && v->number > oldest)
		return false;
	segment_fd_forget(s, v->number);
	segment_name(name, v->number);
	fd = removal_begin(s, name);
	err = log_writer_empty(&s->kv->writer, v->number);
	removal_end(s, fd);
	if (err && s->options.log)
		log_warn(s->options.log, "store-segment-kept", "segment=%08x error=%s", v->number,
			 err_name(err));
	return !err;
}

static void victims_free(struct store *s)
{
	struct compaction *c = &s->compact;
	uint32_t oldest;
	size_t freed = 0;

	/* The oldest go as they are; of the others the headers stay. */
	segments_recycle(s);
	(void)filled(s, &oldest);
	for (size_t i = 0; i < c->count && oldest; i++) {
		bool is_oldest = c->segments[i].number == oldest;

		if (c->segments[i].number >= oldest && !victim_free(s, &c->segments[i], oldest))
			continue;
		freed++;
		if (is_oldest)
			(void)filled(s, &oldest);
	}
	kv_release(s->kv);
	s->freed_segments += freed;
	if (s->options.log)
		log_info(s->options.log, "store-compacted", "segments=%zu freed=%zu", c->count,
			 freed);
	segments_recycle(s);
	c->freed += freed;
	c->has_gained = filled(s, &oldest) < c->filled;
	/* More of the same at once, if it went well. */
	rest(s, c->has_gained ? 0 : freed ? PLAN_SECONDS : FAILED_SECONDS);
}

bool store_compact_wants_checkpoint(struct store *s)
{
	struct compaction *c = &s->compact;

	if (c->state != COMPACT_CHECKPOINT || s->kv->is_checkpointing)
		return false;
	if (s->kv->covered < c->position)
		return true;
	victims_free(s);
	return false;
}

bool store_compact_is_idle(const struct store *s)
{
	return s->compact.state == COMPACT_IDLE;
}

bool store_compact_has_gained(const struct store *s)
{
	return s->compact.has_gained;
}

bool store_compact_has_failed(const struct store *s)
{
	return s->compact.is_failed;
}

uint64_t store_compact_freed(const struct store *s)
{
	return s->compact.freed;
}

/* ---- all of it in this process ---- */

static enum err steps_run(struct store *s, struct compactor *compactor, struct buf *items,
			  struct buf *blobs)
{
	struct msg_cp_items in = { .more = true };
	struct msg_cp_step ask;
	int64_t when;
	enum err err = ERR_OK;

	while (!err && in.more) {
		s->compact.next_step = 0;
		if (!store_compact_step_due(s, &ask, &when))
			return ERR_TEMPORARY;
		err = compactor_step(compactor, ask.bytes, items, blobs, &in.more);
		in.items = buf_str(items);
		if (!err)
			store_compact_items(s, &in, buf_str(blobs));
		if (!err)
			err = store_settle(s);
	}
	return err;
}

static enum err plan_run(struct store *s, const struct msg_cp_plan *ask,
			 const struct compact_sources *from, struct compactor **out)
{
	struct msg_cp_planned planned;
	struct compact_plan plan;
	struct buf list;
	enum err err;

	buf_init(&list, 16384);
	err = compact_plan_make(from, ask, &plan);
	if (!err) {
		compact_plan_encode(&plan, &list, &planned);
		if (store_compact_begin(s, &planned))
			err = compactor_new(from, &plan, out);
	}
	compact_plan_free(&plan);
	buf_free(&list);
	return err;
}

enum err store_compact_once(struct store *s, bool force)
{
	struct compact_sources from = { .dir = s->options.dir,
					.identity = &s->kv->identity,
					.log = s->options.log,
					.index = s->kv->index };
	struct compactor *compactor = NULL;
	struct msg_cp_plan ask;
	struct buf items, blobs;
	enum err err = ERR_OK;

	buf_init(&items, 49152);
	buf_init(&blobs, 32 * 1024 * 1024);
	if (store_compact_due(s, force, &ask))
		err = plan_run(s, &ask, &from, &compactor);
	if (!err && compactor)
		err = steps_run(s, compactor, &items, &blobs);
	compactor_free(compactor);
	buf_free(&items);
	buf_free(&blobs);
	if (!err && store_compact_wants_checkpoint(s)) {
		err = store_checkpoint(s);
		if (!err && store_compact_wants_checkpoint(s))
			err = ERR_TEMPORARY;
	}
	if (err)
		store_compact_failed(s);
	return err;
}

enum err store_compact(struct store *s)
{
	enum err err;

	do {
		s->compact.has_gained = false;
		err = store_checkpoint(s);
		if (!err)
			err = store_compact_once(s, true);
	} while (!err && s->compact.has_gained);
	return err;
}
