/* Reading the log back: for recovery, for checkpoints, for rebuilding the index.
 *
 * What is at the end of the last segment is one of two things, and the difference is the promise
 * that Posthorn makes:
 *
 *  - A torn tail: the last frame, written and never acknowledged. It is dropped without a word to
 * anybody, because nobody was told that it happened.
 *  - Damage: a frame that was acknowledged and cannot be read. Every frame says up to where the log
 * was known to be durable when it was written, so a bad frame with a later good one that calls its
 * place durable is damage: it is reported by position, and reading goes on behind it. It is never
 * taken for a tail.
 *
 * Frames lie on multiples of LOG_BLOCK, so what follows damage is found by looking at each block's
 * beginning. What looks like a frame must have the store's id, its own position and the right CRC:
 * the rest of a recycled segment fails by its position, and nobody can smuggle a frame in by mail,
 * because bodies lie there sealed.
 *
 * Records alone are read; blobs only of the frame that nothing later vouches for.
 */
#include "store/log_priv.h"

#include "base/mutant.h"
#include "store/crc32c.h"

#include <stdlib.h>

enum { READ_WINDOW = 1024 * 1024, ARENA_MAX = 256 * 1024 * 1024 };

struct reader_segment {
	uint32_t number;
	uint32_t size;		     /* of the file */
	uint32_t end;		     /* where frames end for certain; 0: unknown */
	bool is_emptied;	     /* by compaction: its header alone is left */
	uint32_t predecessor, chain; /* as its header says */
};

struct log_reader {
	int dir, fd;
	uint64_t store;
	uint64_t limit;
	struct log_cipher *cipher;
	const struct log *log;
	struct arena *arena;
	struct reader_segment *segments;
	size_t count, at;
	uint32_t offset;
	struct log_place place;
	bool was_torn;
	bool is_chained; /* the next frame must name the last one's CRC */
	unsigned damages;
	uint64_t bytes;
	struct buf records, block;
};

static enum err segment_load(struct log_reader *r, const struct identity *id, uint32_t number,
			     struct reader_segment *s, struct reader_segment *before)
{
	char name[SEGMENT_NAME_SIZE], bytes[SEGMENT_HEADER_SIZE];
	struct segment_header h;
	struct os_stat st;
	int fd;
	enum err err;

	segment_name(name, number);
	if ((err = os_open(r->dir, name, OS_READ, &fd)))
		return err;
	if (!(err = os_fstat(fd, &st)))
		err = os_pread_all(fd, bytes, sizeof(bytes), 0);
	os_close(fd);
	if (err && err != ERR_EOF)
		return err;
	*s = (struct reader_segment){ .number = number,
				      .size = u32_of(MIN(st.size, (uint64_t)UINT32_MAX)) };
	r->bytes += s->size;
	if (!err)
		err = segment_header_get(str_of(bytes, sizeof(bytes)), &h);
	if (err == ERR_UNSUPPORTED)
		return err;
	if (err || h.segment != number) {
		r->damages++;
		if (r->log)
			log_error(r->log, "store-damaged", "file=%s what=segment-header", name);
		return ERR_OK;
	}
	if (memcmp(h.store, id->store, sizeof(h.store)) != 0) {
		if (r->log)
			log_error(r->log, "store-foreign", "file=%s what=another-store", name);
		return ERR_DAMAGED;
	}
	s->is_emptied = segment_is_emptied(st.size);
	s->predecessor = h.predecessor;
	s->chain = h.chain;
	if (before && h.predecessor == before->number)
		before->end = h.predecessor_end;
	return ERR_OK;
}

/* Segments are given back from the oldest on, so what is not there between two of them was taken
 * away. Said when the store is opened, not at each checkpoint. */
static void segment_missing(struct log_reader *r, uint32_t first, uint32_t last)
{
	r->damages++;
	if (r->log && r->limit == UINT64_MAX)
		log_error(r->log, "store-damaged", "file=log/%08x.seg to=log/%08x.seg what=missing",
			  first, last);
}

static enum err segments_load(struct log_reader *r, const struct identity *id)
{
	uint32_t *numbers;
	enum err err = segment_list(r->dir, r->arena, &numbers, &r->count);

	if (err == ERR_NOT_FOUND) {
		r->count = 0;
		return ERR_OK;
	}
	if (err)
		return err;
	r->segments = arena_array(r->arena, r->count + 1, sizeof(*r->segments));
	if (!r->segments)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < r->count && !err; i++) {
		if (i && numbers[i] != numbers[i - 1] + 1)
			segment_missing(r, numbers[i - 1] + 1, numbers[i] - 1);
		err = segment_load(r, id, numbers[i], &r->segments[i],
				   i ? &r->segments[i - 1] : NULL);
	}
	return err;
}

static enum err segment_enter(struct log_reader *r)
{
	char name[SEGMENT_NAME_SIZE];

	os_close(r->fd);
	r->fd = -1;
	if (r->at == 0 || r->segments[r->at - 1].is_emptied ||
	    r->segments[r->at].predecessor != r->segments[r->at - 1].number)
		r->is_chained = false;
	segment_name(name, r->segments[r->at].number);
	return os_open(r->dir, name, OS_READ, &r->fd);
}

/* The segment in which the index ends is not there. */
static enum err reader_start_behind(struct log_reader *r, uint32_t missing)
{
	bool is_last = r->at == r->count;

	segment_missing(r, missing, is_last ? missing : r->segments[r->at].number - 1);
	if (is_last) {
		r->count = r->at = 0;
		return ERR_OK;
	}
	r->place.position = position_of(r->segments[r->at].number, SEGMENT_HEADER_SIZE);
	return segment_enter(r);
}

static enum err reader_start(struct log_reader *r, const struct log_place *from)
{
	enum err err;

	r->place = *from;
	r->offset = SEGMENT_HEADER_SIZE;
	if (r->count == 0) {
		if (from->position)
			segment_missing(r, 1, position_segment(from->position));
		return ERR_OK;
	}
	if (from->position) {
		while (r->at < r->count &&
		       r->segments[r->at].number < position_segment(from->position))
			r->at++;
		while (r->at < r->count && r->segments[r->at].is_emptied)
			r->at++;
		/* The index knows what stood there, but for the bodies: it is kept, and numbers go
		 * on behind it, so that no UID is given again. */
		if (r->at == r->count ||
		    r->segments[r->at].number != position_segment(from->position))
			return reader_start_behind(r, position_segment(from->position));
		r->offset = position_offset(from->position);
		err = segment_enter(r);
		r->is_chained = r->place.number != 0;
		return err;
	} else {
		r->place.position = position_of(r->segments[0].number, SEGMENT_HEADER_SIZE);
	}
	return segment_enter(r);
}

enum err log_reader_new(int dir, const struct identity *id, const struct log *log,
			const struct log_place *from, uint64_t limit, struct log_reader **out)
{
	struct log_reader *r = calloc(1, sizeof(*r));
	enum err err;

	if (!r)
		return ERR_NO_MEMORY;
	r->dir = dir;
	r->fd = -1;
	r->log = log;
	r->limit = limit;
	r->store = get_le64(id->store);
	r->arena = arena_new(ARENA_MAX);
	r->cipher = log_cipher_new(id->key);
	buf_init(&r->records, UINT32_MAX);
	buf_init(&r->block, READ_WINDOW);
	err = r->arena && r->cipher ? segments_load(r, id) : ERR_NO_MEMORY;
	if (!err)
		err = reader_start(r, from);
	if (err)
		log_reader_free(r);
	else
		*out = r;
	return err;
}

void log_reader_free(struct log_reader *r)
{
	if (!r)
		return;
	os_close(r->fd);
	arena_free(r->arena);
	log_cipher_free(r->cipher);
	buf_free(&r->records);
	buf_free(&r->block);
	free(r);
}

/* Where frames can be in the current segment. */
static uint32_t segment_bound(const struct log_reader *r)
{
	const struct reader_segment *s = &r->segments[r->at];

	return s->end ? MIN(s->end, s->size) : s->size;
}

/* Blocks that the disk does not give back are damage as well; what lies behind them is still
 * wanted. */
static enum err unreadable(enum err err)
{
	return err == ERR_EOF || err == ERR_IO ? ERR_DAMAGED : err;
}

enum err frame_load(int fd, uint64_t store, uint64_t position, uint32_t bound, struct buf *records,
		    struct frame_header *h)
{
	uint32_t offset = position_offset(position), crc;
	char bytes[FRAME_HEADER_SIZE], *p;
	enum err err;

	if (offset > bound || bound - offset < LOG_BLOCK)
		return ERR_DAMAGED;
	if ((err = os_pread_all(fd, bytes, sizeof(bytes), offset)))
		return unreadable(err);
	if ((err = frame_header_get(str_of(bytes, sizeof(bytes)), h)))
		return err;
	if (h->store != store || h->position != position || frame_size(h) > bound - offset)
		return ERR_DAMAGED;
	buf_clear(records);
	p = buf_reserve(records, h->records_size);
	if (!p)
		return ERR_NO_MEMORY;
	if ((err = os_pread_all(fd, p, h->records_size, offset + FRAME_HEADER_SIZE)))
		return unreadable(err);
	buf_added(records, h->records_size);
	crc = crc32c(0, str_of(bytes + 8, FRAME_HEADER_SIZE - 8));
	if (crc32c(crc, buf_str(records)) != h->crc && !MUTANT(frame_crc_not_checked))
		return ERR_DAMAGED;
	return h->flags & FRAME_FLAGS_MUST ? ERR_UNSUPPORTED : ERR_OK;
}

/* The frame at `offset` of the current segment, its header and records checked (and left sealed in
 * r->records). ERR_DAMAGED: there is none. */
static enum err frame_check(struct log_reader *r, uint32_t offset, struct frame_header *h)
{
	return frame_load(r->fd, r->store, position_of(r->segments[r->at].number, offset),
			  segment_bound(r), &r->records, h);
}

enum err frame_blobs_check(int fd, const struct frame_header *h, struct buf *window)
{
	uint64_t at = position_offset(h->position) + (uint64_t)FRAME_HEADER_SIZE + h->records_size;
	uint32_t left = h->blobs_size, crc = 0;

	while (left) {
		uint32_t n = MIN(left, (uint32_t)READ_WINDOW);
		char *p;
		enum err err;

		buf_clear(window);
		if (!(p = buf_reserve(window, n)))
			return ERR_NO_MEMORY;
		if ((err = os_pread_all(fd, p, n, at)))
			return unreadable(err);
		crc = crc32c(crc, str_of(p, n));
		at += n;
		left -= n;
	}
	return crc == h->blobs_crc ? ERR_OK : ERR_DAMAGED;
}

/* The first good frame of the current segment from `from` on whose number is above the last one's.
 * ERR_NOT_FOUND: there is none. */
static enum err frame_search(struct log_reader *r, uint32_t from, uint32_t *found,
			     struct frame_header *h)
{
	uint32_t bound = segment_bound(r);

	for (uint64_t at = from; at + LOG_BLOCK <= bound;) {
		size_t n = (size_t)MIN((uint64_t)READ_WINDOW, bound - at) / LOG_BLOCK * LOG_BLOCK;
		char *p;
		enum err err;

		buf_clear(&r->block);
		if (!(p = buf_reserve(&r->block, n)))
			return ERR_NO_MEMORY;
		err = os_pread_all(r->fd, p, n, at);
		if (err && unreadable(err) != ERR_DAMAGED)
			return err;
		for (size_t i = 0; i < n && !err; i += LOG_BLOCK) {
			if (frame_header_get(str_of(p + i, FRAME_HEADER_SIZE), h) ||
			    h->number <= r->place.number)
				continue;
			err = frame_check(r, (uint32_t)(at + i), h);
			if (err == ERR_OK) {
				*found = (uint32_t)(at + i);
				return ERR_OK;
			}
			if (err != ERR_DAMAGED)
				return err;
			err = ERR_OK;
		}
		at += n;
	}
	return ERR_NOT_FOUND;
}

static void damage_report(struct log_reader *r, uint32_t from, uint32_t to)
{
	r->damages++;
	if (r->log)
		log_error(r->log, "store-damaged", "file=log/%08x.seg from=%u to=%u what=frames",
			  r->segments[r->at].number, from, to);
}

/* Something acknowledged must follow: the segment's end is known and not reached, or the limit is
 * beyond. */
static bool is_certain(const struct log_reader *r, uint32_t offset)
{
	const struct reader_segment *s = &r->segments[r->at];

	return (s->end && offset < s->end) ||
	       (r->limit != UINT64_MAX && position_of(s->number, offset) < r->limit);
}

/* What is at the current offset is no frame: the tail, or damage with something good behind it.
 * ERR_NOT_FOUND: nothing more in this segment. */
static enum err pass_damage(struct log_reader *r, struct frame_header *h)
{
	uint32_t found;
	enum err err = frame_search(r, r->offset + LOG_BLOCK, &found, h);

	if (err == ERR_OK && (is_certain(r, r->offset) ||
			      h->durable > position_of(r->segments[r->at].number, r->offset))) {
		damage_report(r, r->offset, found);
		r->is_chained = false;
		r->offset = found;
		return frame_check(r, found, h);
	}
	if (err && err != ERR_NOT_FOUND)
		return err;
	if (is_certain(r, r->offset))
		damage_report(r, r->offset, segment_bound(r));
	return ERR_NOT_FOUND;
}

/* Anything but zeros: a frame was begun here. */
static bool block_is_used(struct log_reader *r)
{
	char magic[4] = { 0 };

	return os_pread_all(r->fd, magic, sizeof(magic), r->offset) == ERR_OK &&
	       get_le32(magic) != 0;
}

/* Is there a good frame behind this one, that was written after this one was durable? */
static bool is_vouched_for(struct log_reader *r, const struct frame_header *h, uint64_t end)
{
	struct frame_header next;
	uint32_t found;
	bool vouched;

	if (end <= r->limit && r->limit != UINT64_MAX)
		return true;
	if (r->at + 1 < r->count)
		return true; /* a segment is opened when everything before it is durable */
	vouched = frame_check(r, position_offset(end), &next) == ERR_OK && next.durable >= end;
	if (!vouched)
		vouched = frame_search(r, position_offset(end), &found, &next) == ERR_OK &&
			  next.number > h->number && next.durable >= end;
	return vouched;
}

static enum err frame_take(struct log_reader *r, const struct frame_header *h, struct log_frame *f)
{
	char *p;

	/* Looking ahead used the buffer. */
	buf_clear(&r->records);
	if (!(p = buf_reserve(&r->records, h->records_size)))
		return ERR_NO_MEMORY;
	if (os_pread_all(r->fd, p, h->records_size, r->offset + FRAME_HEADER_SIZE))
		return ERR_IO;
	buf_added(&r->records, h->records_size);
	log_cipher_run(r->cipher, h->iv, buf_str(&r->records), p);
	if (r->is_chained && h->chain != r->place.chain)
		damage_report(r, r->offset, r->offset);
	r->is_chained = true;
	r->offset += (uint32_t)frame_size(h);
	r->place = (struct log_place){ position_of(r->segments[r->at].number, r->offset), h->number,
				       h->crc };
	*f = (struct log_frame){ .header = *h,
				 .end = r->place.position,
				 .records = buf_str(&r->records) };
	return ERR_OK;
}

/* Into the next segment; ERR_EOF when there is none. */
static enum err segment_leave(struct log_reader *r)
{
	if (r->at + 1 >= r->count)
		return ERR_EOF;
	r->at++;
	r->offset = SEGMENT_HEADER_SIZE;
	r->place.position = position_of(r->segments[r->at].number, SEGMENT_HEADER_SIZE);
	return segment_enter(r);
}

enum err log_reader_next(struct log_reader *r, struct log_frame *f)
{
	struct frame_header h;
	enum err err = ERR_OK;

	while (!err && r->count) {
		const struct reader_segment *s = &r->segments[r->at];

		if (position_of(s->number, r->offset) >= r->limit)
			return ERR_EOF;
		if (s->is_emptied || (s->end && r->offset >= s->end)) {
			err = segment_leave(r);
			continue;
		}
		err = frame_check(r, r->offset, &h);
		if (err == ERR_DAMAGED)
			err = pass_damage(r, &h);
		if (err == ERR_NOT_FOUND) {
			if (r->at + 1 == r->count)
				r->was_torn = block_is_used(r);
			err = segment_leave(r);
			continue;
		}
		if (err)
			return err;
		if (is_vouched_for(r, &h, position_of(s->number, r->offset) + frame_size(&h)))
			return frame_take(r, &h, f);
		err = frame_blobs_check(r->fd, &h, &r->block);
		if (err == ERR_OK)
			return frame_take(r, &h, f);
		if (err == ERR_DAMAGED) {
			r->was_torn = true;
			return ERR_EOF;
		}
	}
	return err ? err : ERR_EOF;
}

struct log_place log_reader_place(const struct log_reader *r)
{
	return r->place;
}

bool log_reader_was_torn(const struct log_reader *r)
{
	return r->was_torn;
}

unsigned log_reader_damages(const struct log_reader *r)
{
	return r->damages;
}

uint64_t log_reader_bytes(const struct log_reader *r)
{
	return r->bytes;
}
