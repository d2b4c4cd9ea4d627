/* The helper's half of compaction: finds what is wanted in the segments of a plan, in steps.
 *
 * One pass over the index, in the order of its keys: whatever record lies in such a segment, and
 * whatever refers to a blob there. So nothing has to be known about who refers to what, cold rows
 * end up beside those of the same mailbox, and one pass serves many segments. Then the deletions in
 * these segments that are still the newest of their key are read from the log. What was changed
 * meanwhile is not seen, or seen as it was: the store looks at each key again before it writes, and
 * a segment goes only when the index says that nothing in it is wanted.
 *
 * A body that is to be compressed needs its key, which only rows and queue records have. They come
 * later in the order than bodies (B, then Q, R and X), so such bodies are remembered until then.
 *
 * Between two steps only a key is kept of the index, so that its pages can be used again.
 */
#include "store/compact_priv.h"

#include "store/body.h"
#include "store/records_priv.h"

#include <stdlib.h>

enum {
	LOOKS_MAX = 20000, /* keys in a step */
	FRAMES_MAX = 2000, /* read for deletions in a step */
	BLOB_MAX = 2 * 1024 * 1024,
	BLOBS_ROOM = 16 * 1024 * 1024,
	OLD_MAX = 4 * 1024 * 1024, /* bodies to be compressed in a pass; others stay as they are */
};

enum phase { PHASE_INDEX, PHASE_BODIES, PHASE_DELETES, PHASE_DONE };

struct old_body {
	uint64_t id, stored, size;
	struct blob_place place;
	bool is_done;
};

struct compactor {
	struct compact_sources from;
	struct compact_plan plan;
	enum phase phase;
	char at[RECORD_KEY_MAX]; /* the key to go on with */
	size_t at_n;
	struct old_body *old; /* by id */
	size_t old_count, old_room, old_next;
	size_t segment_at; /* whose deletions are read */
	struct log_reader *reader;
	str records; /* left of the frame in hand */
	int fd;
	uint32_t fd_segment;
	struct body_cipher *cipher;
	struct buf packed;
};

/* A step under way. */
struct step {
	struct compactor *c;
	struct buf *items, *blobs;
	uint32_t bytes;
	unsigned blob_count, looks;
};

enum err compactor_new(const struct compact_sources *from, struct compact_plan *plan,
		       struct compactor **out)
{
	struct compactor *c = calloc(1, sizeof(*c));

	if (!c)
		return ERR_NO_MEMORY;
	c->from = *from;
	c->fd = -1;
	buf_init(&c->packed, BLOB_MAX);
	if (!(c->cipher = body_cipher_new())) {
		compactor_free(c);
		return ERR_NO_MEMORY;
	}
	c->plan = *plan;
	*plan = (struct compact_plan){ .count = 0 };
	*out = c;
	return ERR_OK;
}

void compactor_free(struct compactor *c)
{
	if (!c)
		return;
	compact_plan_free(&c->plan);
	log_reader_free(c->reader);
	body_cipher_free(c->cipher);
	buf_free(&c->packed);
	free(c->old);
	os_close(c->fd);
	free(c);
}

static bool is_full(const struct step *s)
{
	return buf_len(s->items) > COMPACT_ITEMS_ROOM || buf_len(s->blobs) >= s->bytes ||
	       s->blob_count >= COMPACT_BLOBS_MAX;
}

static void item_put(struct step *s, enum compact_what what, str key)
{
	rec_cp_item_put(s->items, &(struct rec_cp_item){ .what = (uint8_t)what, .key = key });
}

static void blob_put(struct step *s, enum compact_what what, str key, struct blob_place place,
		     str blob, enum body_codec codec)
{
	rec_cp_item_put(s->items, &(struct rec_cp_item){ .what = (uint8_t)what,
							 .key = key,
							 .segment = place.segment,
							 .offset = place.offset,
							 .at = u32_of(buf_len(s->blobs)),
							 .size = u32_of(blob.n),
							 .codec = (uint8_t)codec });
	buf_add(s->blobs, blob);
	s->blob_count++;
}

static enum err segment_open(struct compactor *c, uint32_t segment)
{
	char name[SEGMENT_NAME_SIZE];

	if (c->fd >= 0 && c->fd_segment == segment)
		return ERR_OK;
	os_close(c->fd);
	c->fd = -1;
	c->fd_segment = segment;
	segment_name(name, segment);
	return os_open(c->from.dir, name, OS_READ, &c->fd);
}

/* What the disk does not give back stays where it is, and its segment with it. */
static void unreadable(struct compactor *c, struct blob_place place, enum err err)
{
	if (c->from.log)
		log_warn(c->from.log, "store-compact-unreadable",
			 "file=log/%08x.seg offset=%u error=%s", place.segment, place.offset,
			 err_name(err));
}

static void blob_copy(struct step *s, enum compact_what what, str key, struct blob_place place,
		      uint64_t size, enum body_codec codec)
{
	struct compactor *c = s->c;
	char *p;
	enum err err = segment_open(c, place.segment);

	buf_clear(&c->packed);
	if (!err && (size > BLOB_MAX || !(p = buf_reserve(&c->packed, (size_t)size))))
		err = ERR_TOO_LONG;
	if (!err)
		err = os_pread_all(c->fd, p, (size_t)size, place.offset);
	if (err) {
		unreadable(c, place, err);
		return;
	}
	buf_added(&c->packed, (size_t)size);
	blob_put(s, what, key, place, buf_str(&c->packed), codec);
}

/* ---- bodies that are compressed ---- */

static bool old_remember(struct compactor *c, uint64_t id, const struct body *d)
{
	if (c->old_count == c->old_room) {
		size_t room = c->old_room ? c->old_room * 2 : 256;
		struct old_body *old = room > OLD_MAX ? NULL : realloc(c->old, room * sizeof(*old));

		if (!old)
			return false;
		c->old = old;
		c->old_room = room;
	}
	c->old[c->old_count++] = (struct old_body){
		.id = id, .stored = d->stored, .size = d->size, .place = d->place
	};
	return true;
}

/* Keys of bodies come in the order of their ids. */
static struct old_body *old_find(struct compactor *c, uint64_t id)
{
	size_t low = 0, high = c->old_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (c->old[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < c->old_count && c->old[low].id == id ? &c->old[low] : NULL;
}

static void old_copy(struct step *s, struct old_body *o)
{
	struct key k = key_make1(KIND_BODY, o->id);

	o->is_done = true;
	blob_copy(s, COMPACT_BODY, key_str(&k), o->place, o->stored, BODY_PLAIN);
}

static void body_squeeze(struct step *s, uint64_t id, const uint8_t key[BODY_KEY_SIZE])
{
	struct compactor *c = s->c;
	struct old_body *o = c->old_count ? old_find(c, id) : NULL;
	struct rec_body_location at;
	struct key k = key_make1(KIND_BODY, id);

	if (!o || o->is_done)
		return;
	at = (struct rec_body_location){ .segment = o->place.segment,
					 .offset = o->place.offset,
					 .stored = o->stored,
					 .size = o->size };
	memcpy(at.key, key, sizeof(at.key));
	/* A body that does not open is damaged: it is kept as it is, for whoever can do something
	 * with it. */
	if (segment_open(c, o->place.segment) || body_compress(c->cipher, c->fd, &at, &c->packed)) {
		old_copy(s, o);
		return;
	}
	o->is_done = true;
	blob_put(s, COMPACT_BODY, key_str(&k), o->place, buf_str(&c->packed), BODY_ZSTD);
}

/* ---- the index ---- */

static bool is_in_plan(const struct compactor *c, uint32_t segment)
{
	return segment && compact_plan_find(&c->plan, segment);
}

static enum err look_at_body(struct step *s, str key, str value, bool is_record)
{
	struct compactor *c = s->c;
	const struct compact_segment *in;
	uint64_t numbers[3];
	struct body d;
	enum err err = body_get(value, &d);

	if (err || !key_parse(key, KIND_BODY, 1, numbers))
		return err ? err : ERR_DAMAGED;
	in = d.place.segment ? compact_plan_find(&c->plan, d.place.segment) : NULL;
	if (in && in->is_old && d.codec == BODY_PLAIN && old_remember(c, numbers[0], &d))
		return ERR_OK;
	if (in)
		blob_copy(s, COMPACT_BODY, key, d.place, d.stored, (enum body_codec)d.codec);
	else if (is_record)
		item_put(s, COMPACT_RECORD, key);
	return ERR_OK;
}

static enum err look_at_row(struct step *s, str key, str value, bool is_record)
{
	struct row r;
	enum err err = row_get(value, 0, &r);

	if (err)
		return err;
	body_squeeze(s, r.body, r.key);
	if (r.cold_size && is_in_plan(s->c, r.cold.segment))
		blob_copy(s, COMPACT_COLD, key, r.cold, r.cold_size, BODY_PLAIN);
	else if (is_record)
		item_put(s, COMPACT_RECORD, key);
	return ERR_OK;
}

static enum err look_at(struct step *s, str key, str value, uint32_t segment)
{
	bool is_record = is_in_plan(s->c, segment);
	struct queue_item q;

	switch ((enum record_kind)(unsigned char)key.p[0]) {
	case KIND_INDEX:
		return ERR_OK;
	case KIND_BODY:
		return look_at_body(s, key, value, is_record);
	case KIND_ROW:
	case KIND_KEPT:
		return look_at_row(s, key, value, is_record);
	case KIND_QUEUE:
		if (s->c->old_count && queue_item_get(value, 0, &q) == ERR_OK)
			body_squeeze(s, q.body, q.key);
		break;
	default:
		break;
	}
	if (is_record)
		item_put(s, COMPACT_RECORD, key);
	return ERR_OK;
}

static enum err step_index(struct step *s)
{
	struct compactor *c = s->c;
	struct index_cursor *cursor;
	str key, value;
	enum err err = index_cursor_open(c->from.index, str_of(c->at, c->at_n), &cursor);

	if (err)
		return err;
	while (!(err = index_cursor_get(cursor, &key, &value))) {
		if (s->looks++ >= LOOKS_MAX || is_full(s)) {
			c->at_n = key.n;
			memcpy(c->at, key.p, key.n);
			break;
		}
		if ((err = look_at(s, key, value, index_cursor_segment(cursor))) ||
		    (err = index_cursor_next(cursor)))
			break;
	}
	index_cursor_close(cursor);
	index_release(c->from.index);
	if (err != ERR_EOF)
		return err;
	c->phase = PHASE_BODIES;
	return ERR_OK;
}

/* Of those that are to be compressed, nobody had the key: they were let go meanwhile, or something
 * is wrong with what refers to them. */
static void step_bodies(struct step *s)
{
	struct compactor *c = s->c;

	for (; c->old_next < c->old_count && !is_full(s); c->old_next++)
		if (!c->old[c->old_next].is_done)
			old_copy(s, &c->old[c->old_next]);
	if (c->old_next == c->old_count)
		c->phase = PHASE_DELETES;
}

/* ---- deletions ---- */

/* The next frame of a segment whose deletions are wanted. ERR_EOF: there is none. */
static enum err frame_next(struct compactor *c)
{
	struct log_frame f;
	enum err err;

	for (;;) {
		if (c->reader) {
			err = log_reader_next(c->reader, &f);
			if (!err)
				c->records = f.records;
			if (err != ERR_EOF)
				return err;
			log_reader_free(c->reader);
			c->reader = NULL;
			c->segment_at++;
		}
		while (c->segment_at < c->plan.count && !c->plan.segments[c->segment_at].ends_older)
			c->segment_at++;
		if (c->segment_at == c->plan.count)
			return ERR_EOF;
		uint32_t segment = c->plan.segments[c->segment_at].number;
		struct log_place from = { .position = position_of(segment, SEGMENT_HEADER_SIZE) };

		if ((err = log_reader_new(c->from.dir, c->from.identity, c->from.log, &from,
					  position_of(segment + 1, 0), &c->reader)))
			return err;
	}
}

static enum err step_deletes(struct step *s)
{
	struct compactor *c = s->c;
	struct record r;
	str value;
	enum err err = ERR_OK;

	for (unsigned frames = 0; !err && frames < FRAMES_MAX && !is_full(s);) {
		err = record_get(&c->records, &r);
		if (err == ERR_EOF) {
			frames++;
			err = frame_next(c);
			continue;
		}
		if (err || r.op != RECORD_DELETE)
			continue;
		err = index_get(c->from.index, r.key, &value);
		if (err == ERR_NOT_FOUND) {
			item_put(s, COMPACT_DELETE, r.key);
			err = ERR_OK;
		}
	}
	index_release(c->from.index);
	if (err != ERR_EOF)
		return err;
	c->phase = PHASE_DONE;
	return ERR_OK;
}

enum err compactor_step(struct compactor *c, uint32_t bytes, struct buf *items, struct buf *blobs,
			bool *more)
{
	struct step s = { .c = c,
			  .items = items,
			  .blobs = blobs,
			  .bytes = MIN(bytes, (uint32_t)BLOBS_ROOM / 2) };
	enum err err = ERR_OK;

	buf_clear(items);
	buf_clear(blobs);
	if (c->phase == PHASE_INDEX)
		err = step_index(&s);
	else if (c->phase == PHASE_BODIES)
		step_bodies(&s);
	else if (c->phase == PHASE_DELETES)
		err = step_deletes(&s);
	if (!err && (buf_failed(items) || buf_failed(blobs)))
		err = ERR_NO_MEMORY;
	*more = c->phase != PHASE_DONE;
	return err;
}
