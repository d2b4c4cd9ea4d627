/* fsck's look at the log: every segment, every frame, every blob.
 *
 * The reader of recovery (reader.c) goes on behind damage too, but it reads only what it needs and
 * says little. Here all is read, each bad place is remembered with what could bridge it (repair.c),
 * and what a damaged frame held is guessed at: where its header is whole, its records can still be
 * opened and taken apart, and their keys say whose they were. What they say is a name for what is
 * lost, never the thing itself: one byte among them is wrong, and the CRC cannot say which.
 *
 * A key of a damaged frame that comes again in a good one behind it has lost nothing, as the newest
 * record is right.
 *
 * Where a segment ends is what the next one's header says. If that header is damaged, the chain
 * says it: the next segment's first frame names the CRC of the frame before it.
 */
#include "store/check_priv.h"

#include <stdlib.h>

enum { SEARCH_WINDOW = 1024 * 1024 };

static enum err unreadable(enum err err)
{
	return err == ERR_EOF || err == ERR_IO ? ERR_DAMAGED : err;
}

static uint64_t store_mark(const struct check *c)
{
	return get_le64(c->id.store);
}

static struct check_range *range_add(struct check *c, struct check_range r)
{
	if (c->range_count == c->range_room) {
		size_t room = c->range_room ? c->range_room * 2 : 16;
		struct check_range *ranges = realloc(c->ranges, room * sizeof(*ranges));

		if (!ranges)
			panic("fsck: no memory for %zu damaged places", room);
		c->ranges = ranges;
		c->range_room = room;
	}
	c->ranges[c->range_count] = r;
	return &c->ranges[c->range_count++];
}

bool check_was_damaged(const struct check *c, uint32_t segment, bool or_behind)
{
	for (size_t i = 0; i < c->range_count; i++) {
		const struct check_range *r = &c->ranges[i];
		bool loses = r->kind == RANGE_FRAMES || r->kind == RANGE_MISSING ||
			     r->kind == RANGE_CHAIN;

		if (loses && (r->segment == segment || (or_behind && r->segment > segment)))
			return true;
	}
	/* One that compaction emptied holds nothing: whoever says so was right before it was cut.
	 */
	for (size_t i = 0; i < c->segment_count && !or_behind; i++)
		if (c->segments[i].number == segment)
			return segment_is_emptied(c->segments[i].size);
	return false;
}

/* ---- what a damaged place held ---- */

static enum err lost_note(struct check *c, const struct record *r, uint64_t position)
{
	char value[9];
	struct entry *e;
	struct version *v;

	put_le64(value, position);
	value[8] = (char)r->op;
	return overlay_push(c->lost, r->key, 1, 1, false, str_of(value, sizeof(value)), &e, &v);
}

static bool key_is_known(str key)
{
	static const struct {
		enum record_kind kind;
		unsigned numbers;
	} kinds[] = {
		{ KIND_COUNTERS, 0 }, { KIND_ACCOUNT, 1 },  { KIND_KEYWORD, 2 },
		{ KIND_MAILBOX, 2 },  { KIND_ROW, 3 },	    { KIND_TOMBSTONE, 4 },
		{ KIND_BODY, 1 },     { KIND_QUEUE, 1 },    { KIND_DUE, 2 },
		{ KIND_KEPT, 2 },     { KIND_KEPT_DAY, 2 },
	};
	struct unpack u = { .rest = str_from(key, 1) };

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (key.p[0] != (char)kinds[i].kind)
			continue;
		for (unsigned n = 0; n < kinds[i].numbers; n++)
			(void)unpack_key_number(&u);
		return !u.failed && u.rest.n == 0;
	}
	return false;
}

/* The records of a frame whose CRC is wrong. False: not all of them could be told. */
static bool likeness_read(struct check *c, int fd, const struct frame_header *h,
			  struct check_range *range)
{
	uint32_t found = 0;
	struct record r;
	str rest;
	char *p;

	buf_clear(&c->records);
	if (!(p = buf_reserve(&c->records, h->records_size)) ||
	    os_pread_all(fd, p, h->records_size, position_offset(h->position) + FRAME_HEADER_SIZE))
		return false;
	buf_added(&c->records, h->records_size);
	rest = buf_str(&c->records);
	log_cipher_run(c->cipher, h->iv, rest, p);
	while (!record_get(&rest, &r) && key_is_known(r.key)) {
		if (lost_note(c, &r, h->position))
			return false;
		found++;
	}
	range->records += found;
	return rest.n == 0 && found == h->record_count;
}

static void likeness_of(struct check *c, int fd, struct check_range *range)
{
	uint64_t at = range->from;

	range->is_attributed = true;
	while (at < range->to) {
		char bytes[FRAME_HEADER_SIZE];
		struct frame_header h;
		bool is_like = !os_pread_all(fd, bytes, sizeof(bytes), at) &&
			       !frame_header_get(str_of(bytes, sizeof(bytes)), &h) &&
			       h.store == store_mark(c) &&
			       h.position == position_of(range->segment, (uint32_t)at) &&
			       frame_size(&h) <= range->to - at;

		if (!is_like || !likeness_read(c, fd, &h, range))
			range->is_attributed = false;
		at += is_like ? frame_size(&h) : LOG_BLOCK;
	}
}

/* ---- good frames ---- */

/* What comes again behind the damage is not lost. */
static void lost_superseded(struct check *c, str key)
{
	struct entry *e = overlay_find(c->lost, key);
	struct version *v;

	if (e && overlay_push(c->lost, key, 2, 2, true, STR_EMPTY, &e, &v))
		panic("fsck: no memory for lost records");
}

static void records_read(struct check *c, const struct frame_header *h)
{
	str rest = buf_str(&c->records);
	uint32_t count = 0;
	struct record r;
	enum err err;

	log_cipher_run(c->cipher, h->iv, rest, c->records.p + c->records.start);
	while (!(err = record_get(&rest, &r))) {
		count++;
		if (overlay_count(c->lost))
			lost_superseded(c, r.key);
	}
	c->result->records += count;
	if (err != ERR_EOF || count != h->record_count) {
		char name[SEGMENT_NAME_SIZE];

		segment_name(name, position_segment(h->position));
		check_tell(c,
			   (struct check_finding){ .level = CHECK_LOSS,
						   .what = "records",
						   .file = str_from_c(name),
						   .from = position_offset(h->position),
						   .to = position_offset(h->position) +
							 frame_size(h) },
			   "the frame is as it was written, but %u of its %u records can be read",
			   count, h->record_count);
		c->all_is_suspect = true;
	}
}

static void frame_take(struct check *c, const struct frame_header *h, bool blobs_are_good)
{
	uint32_t segment = position_segment(h->position), offset = position_offset(h->position);

	c->result->frames++;
	if (c->is_chained && h->chain != c->place.chain)
		range_add(c, (struct check_range){ .kind = RANGE_CHAIN,
						   .segment = segment,
						   .from = offset,
						   .to = offset,
						   .chain = c->place.chain });
	if (!blobs_are_good)
		range_add(c, (struct check_range){ .kind = RANGE_BLOBS,
						   .segment = segment,
						   .from = offset,
						   .to = offset + (uint32_t)frame_size(h),
						   .is_attributed = true });
	records_read(c, h);
	c->is_chained = true;
	c->place = (struct log_place){ h->position + frame_size(h), h->number, h->crc };
}

/* The first good frame from `from` on. ERR_NOT_FOUND. */
static enum err frame_search(struct check *c, int fd, const struct check_segment *s, uint32_t bound,
			     uint32_t from, struct frame_header *h)
{
	for (uint64_t at = from; at + LOG_BLOCK <= bound;) {
		size_t n = (size_t)MIN((uint64_t)SEARCH_WINDOW, bound - at) / LOG_BLOCK * LOG_BLOCK;
		char *p;
		enum err err;

		buf_clear(&c->window);
		if (!(p = buf_reserve(&c->window, n)))
			return ERR_NO_MEMORY;
		err = os_pread_all(fd, p, n, at);
		if (err && unreadable(err) != ERR_DAMAGED)
			return err;
		for (size_t i = 0; i < n && !err; i += LOG_BLOCK) {
			if (frame_header_get(str_of(p + i, FRAME_HEADER_SIZE), h) ||
			    h->number <= c->place.number)
				continue;
			err = frame_load(fd, store_mark(c),
					 position_of(s->number, (uint32_t)(at + i)), bound,
					 &c->records, h);
			if (err != ERR_DAMAGED)
				return err;
			err = ERR_OK;
		}
		/* One block that the disk does not give back hides no more than itself. */
		at += err && n > LOG_BLOCK ? LOG_BLOCK : n;
	}
	return ERR_NOT_FOUND;
}

/* ---- one segment ---- */

struct walk {
	struct check_segment *s;
	int fd;
	uint32_t offset, bound;
	uint32_t certain; /* frames go up to here, if not further */
	uint32_t certain_chain;
	uint64_t certain_number;
	bool is_last;
};

static bool block_is_used(const struct walk *w)
{
	char magic[4] = { 0 };

	return w->offset < w->bound && !os_pread_all(w->fd, magic, sizeof(magic), w->offset) &&
	       get_le32(magic) != 0;
}

static void torn(struct check *c, const struct walk *w)
{
	c->is_torn = w->is_last && block_is_used(w);
	c->torn_segment = w->s->number;
	c->torn_from = w->offset;
}

static void frames_are_damaged(struct check *c, struct walk *w, uint32_t to, uint32_t chain,
			       uint64_t number)
{
	struct check_range *r = range_add(c, (struct check_range){ .kind = RANGE_FRAMES,
								   .segment = w->s->number,
								   .from = w->offset,
								   .to = to,
								   .before = c->place.chain,
								   .chain = chain,
								   .number = number });

	likeness_of(c, w->fd, r);
	c->place = (struct log_place){ position_of(w->s->number, to), number, chain };
	c->is_chained = true;
	w->offset = to;
}

/* No frame at the offset. ERR_EOF: nothing more in this segment. */
static enum err gap_pass(struct check *c, struct walk *w)
{
	struct frame_header h;
	enum err err = frame_search(c, w->fd, w->s, w->bound, w->offset + LOG_BLOCK, &h);

	if (!err && (w->offset < w->certain || h.durable > position_of(w->s->number, w->offset))) {
		frames_are_damaged(c, w, position_offset(h.position), h.chain, h.number - 1);
		return ERR_OK;
	}
	if (err && err != ERR_NOT_FOUND)
		return err;
	if (w->offset < w->certain)
		frames_are_damaged(c, w, w->certain, w->certain_chain, w->certain_number);
	else
		torn(c, w);
	return ERR_EOF;
}

/* The last frame, for which nobody vouches, must have good blobs: else it is a torn tail. */
static enum err blobs_judge(struct check *c, struct walk *w, const struct frame_header *h,
			    bool *are_good)
{
	uint64_t end = w->offset + frame_size(h);
	struct frame_header next;
	enum err err = frame_blobs_check(w->fd, h, &c->window);

	*are_good = err == ERR_OK;
	if (err != ERR_DAMAGED)
		return err;
	if (!w->is_last || end <= w->certain)
		return ERR_OK;
	err = frame_search(c, w->fd, w->s, w->bound, (uint32_t)end, &next);
	if (err == ERR_NOT_FOUND ||
	    (!err && next.durable < position_of(w->s->number, (uint32_t)end)))
		return ERR_EOF;
	if (err)
		return err;
	/* Looking ahead used the buffer. */
	return frame_load(w->fd, store_mark(c), h->position, w->bound, &c->records, &next);
}

static bool segment_ends_here(const struct check *c, const struct walk *w)
{
	const struct check_segment *next = w->s + 1;

	if (c->options->is_online && w->certain && w->offset >= w->certain)
		return true;
	if (w->s->end)
		return w->offset >= w->s->end;
	return !w->is_last && next->has_first && c->place.chain == next->first_chain &&
	       c->place.number + 1 == next->first_number;
}

static enum err segment_walk(struct check *c, struct walk *w)
{
	struct frame_header h;
	bool blobs_are_good;
	enum err err = ERR_OK;

	while (!err && !segment_ends_here(c, w)) {
		err = frame_load(w->fd, store_mark(c), position_of(w->s->number, w->offset),
				 w->bound, &c->records, &h);
		if (err == ERR_DAMAGED) {
			err = gap_pass(c, w);
			continue;
		}
		if (!err)
			err = blobs_judge(c, w, &h, &blobs_are_good);
		if (err == ERR_EOF)
			torn(c, w);
		if (err)
			break;
		frame_take(c, &h, blobs_are_good);
		w->offset += (uint32_t)frame_size(&h);
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err segment_check(struct check *c, size_t i)
{
	struct check_segment *s = &c->segments[i];
	struct walk w = { .s = s,
			  .offset = SEGMENT_HEADER_SIZE,
			  .is_last = i + 1 == c->segment_count };
	char name[SEGMENT_NAME_SIZE];
	enum err err;

	if (i == 0 || c->segments[i - 1].number + 1 != s->number || segment_is_emptied(s[-1].size))
		c->is_chained = false;
	if (c->place.position < position_of(s->number, SEGMENT_HEADER_SIZE))
		c->place.position = position_of(s->number, SEGMENT_HEADER_SIZE);
	s->walked_to = SEGMENT_HEADER_SIZE;
	s->last_chain = c->place.chain;
	if (segment_is_emptied(s->size))
		return ERR_OK;
	segment_name(name, s->number);
	if ((err = os_open(c->dir, name, OS_READ, &w.fd)))
		return err;
	w.certain = s->end;
	w.certain_chain = s->end_chain;
	w.certain_number = s->end_number;
	if (position_segment(c->covered.position) == s->number &&
	    position_offset(c->covered.position) > w.certain) {
		w.certain = position_offset(c->covered.position);
		w.certain_chain = c->covered.chain;
		w.certain_number = c->covered.number;
	}
	w.bound = u32_of(MIN(s->size, (uint64_t)(s->end ? s->end : UINT32_MAX)));
	err = segment_walk(c, &w);
	s->walked_to = w.offset;
	s->last_chain = c->place.chain;
	os_close(w.fd);
	return err;
}

/* ---- all of them ---- */

/* A repair makes it long before anything is read: the cut may have gone through nothing but the
 * padding of a frame, which is then good. */
static enum err segment_is_short(struct check *c, struct check_segment *s)
{
	const struct check_range *r = range_add(c, (struct check_range){ .kind = RANGE_SHORT,
									 .segment = s->number,
									 .from = u32_of(s->size),
									 .to = s->header.size });
	enum err err = check_repairs(c) ? check_segment_lengthen(c, r) : ERR_OK;

	if (!err && check_repairs(c))
		s->size = s->header.size;
	return err;
}

static enum err segment_load(struct check *c, uint32_t number, struct check_segment *s)
{
	char name[SEGMENT_NAME_SIZE], bytes[SEGMENT_HEADER_SIZE];
	struct frame_header h;
	struct os_stat st;
	int fd;
	enum err err;

	*s = (struct check_segment){ .number = number };
	segment_name(name, number);
	if ((err = os_open(c->dir, name, OS_READ, &fd)))
		return err;
	if (!(err = os_fstat(fd, &st))) {
		s->size = st.size;
		s->state = unreadable(os_pread_all(fd, bytes, sizeof(bytes), 0));
		if (!s->state)
			s->state = segment_header_get(str_of(bytes, sizeof(bytes)), &s->header);
		if (!s->state && s->header.segment != number)
			s->state = ERR_DAMAGED;
		if (s->state == ERR_UNSUPPORTED)
			err = s->state;
		if (!s->state && memcmp(s->header.store, c->id.store, STORE_ID_SIZE) != 0)
			err = ERR_CONFLICT;
	}
	if (!err && !frame_load(fd, store_mark(c), position_of(number, SEGMENT_HEADER_SIZE),
				u32_of(MIN(s->size, (uint64_t)UINT32_MAX)), &c->records, &h)) {
		s->has_first = true;
		s->first_chain = h.chain;
		s->first_number = h.number;
	}
	os_close(fd);
	if (err == ERR_CONFLICT) {
		check_tell(c,
			   (struct check_finding){ .level = CHECK_LOSS,
						   .what = "segment-foreign",
						   .file = str_from_c(name) },
			   "the segment belongs to another store, or the identity does");
		return ERR_DAMAGED;
	}
	if (!err && s->state)
		range_add(c, (struct check_range){ .kind = RANGE_HEADER,
						   .segment = number,
						   .to = SEGMENT_HEADER_SIZE,
						   .is_attributed = true });
	if (!err && !s->state && s->size < s->header.size && !segment_is_emptied(s->size))
		err = segment_is_short(c, s);
	c->result->log_bytes += s->size;
	return err;
}

/* Returns the last one: where that validly ends may be known. */
static struct check_range *segments_missing(struct check *c, uint32_t first, uint32_t last)
{
	struct check_range *r = NULL;

	for (uint64_t n = first; n <= last; n++)
		r = range_add(c, (struct check_range){ .kind = RANGE_MISSING,
						       .segment = (uint32_t)n,
						       .to = SEGMENT_HEADER_SIZE });
	return r;
}

/* What the next segment's header says about the end of this one. */
static void segment_end_take(struct check *c, struct check_segment *s, struct check_range *missing)
{
	const struct segment_header *h = &s->header;

	if (s->state)
		return;
	if (missing && h->predecessor == missing->segment) {
		missing->to = h->predecessor_end;
		missing->chain = h->chain;
		missing->number = h->number - 1;
	} else if (s > c->segments && h->predecessor == s[-1].number) {
		s[-1].end = h->predecessor_end;
		s[-1].end_chain = h->chain;
		s[-1].end_number = h->number - 1;
	}
}

static enum err segments_load(struct check *c, const uint32_t *numbers)
{
	enum err err = ERR_OK;

	for (size_t i = 0; i < c->segment_count && !err; i++) {
		struct check_segment *s = &c->segments[i];
		struct check_range *missing = NULL;

		err = segment_load(c, numbers[i], s);
		if (!err && i && s[-1].number + 1 != s->number)
			missing = segments_missing(c, s[-1].number + 1, s->number - 1);
		if (!err)
			segment_end_take(c, s, missing);
	}
	return err;
}

/* Segments in which the index ends, and which are not there. */
static void tail_missing(struct check *c)
{
	uint32_t covered = position_segment(c->covered.position), first = covered;
	struct check_range *r;

	if (c->segment_count)
		first = c->segments[c->segment_count - 1].number + 1;
	r = segments_missing(c, first, covered);
	r->to = position_offset(c->covered.position);
	r->chain = c->covered.chain;
	r->number = c->covered.number;
	c->place = c->covered;
}

enum err check_log(struct check *c)
{
	uint32_t *numbers, covered = position_segment(c->covered.position);
	enum err err = segment_list(c->dir, c->arena, &numbers, &c->segment_count);

	if (err == ERR_NOT_FOUND)
		c->segment_count = 0;
	else if (err)
		return err;
	/* What is written while we read is not looked at. */
	while (c->options->is_online && c->segment_count && numbers[c->segment_count - 1] > covered)
		c->segment_count--;
	c->result->segments = c->segment_count;
	c->segments = arena_array(c->arena, c->segment_count + 1, sizeof(*c->segments));
	if (!c->segments)
		return ERR_NO_MEMORY;
	err = segments_load(c, numbers);
	for (size_t i = 0; i < c->segment_count && !err; i++)
		err = segment_check(c, i);
	if (!err && covered &&
	    (!c->segment_count || c->segments[c->segment_count - 1].number < covered))
		tail_missing(c);
	return err;
}
