/* fsck --repair: what is damaged is put aside, and the rest is made a store without a flaw.
 *
 * Nothing is destroyed. Before a file is changed, a copy of it lies in salvage-N/, synced; files
 * that go are moved there. So is what can still be read of messages that cannot be kept.
 *
 * A segment stays where it is, because bodies in it are referred to by their place. A place where
 * frames cannot be read any more gets a frame without records, whose blobs are all the bytes up to
 * the next good frame: bodies among them that are still good can be read as before. The next frame
 * names the CRC of the frame that was there; as a CRC is linear, four bytes of the header (which no
 * reader looks at) are chosen so that the new frame has just that one. The chain is whole again,
 * and a flag in the header says how. The same makes a frame whole whose blobs are not as written. A
 * segment that is missing becomes one that is empty.
 *
 * The records that the looks asked for (what only the index still knew, corrected counters,
 * expunges) are committed by the store itself, opened as the server opens it. They are on the disk
 * before the places are bridged that made the index be believed, and before that index is put aside
 * and made anew.
 *
 * Whoever is killed in the middle begins again: each step leaves something that the next run of
 * fsck understands, and copies are made anew.
 */
#include "store/check_priv.h"

#include "store/crc32c.h"

#include <stdio.h>

enum { NAME_SIZE = 128, COPY_STEP = 1024 * 1024, BATCH_RECORDS = 1000, BATCH_BYTES = 1024 * 1024 };

enum err check_aside(struct check *c)
{
	uint64_t second = (uint64_t)(os_wall_us() / 1000000);
	enum err err = ERR_EXISTS;

	if (c->aside >= 0)
		return ERR_OK;
	for (unsigned i = 0; i < 100 && err == ERR_EXISTS; i++) {
		snprintf(c->result->aside, sizeof(c->result->aside), "salvage-%llu",
			 (unsigned long long)second + i);
		err = os_mkdir(c->dir, c->result->aside, 0700);
	}
	if (!err)
		err = os_open(c->dir, c->result->aside, OS_READ | OS_DIRECTORY, &c->aside);
	if (!err)
		err = os_fsync(c->dir);
	return err;
}

/* ---- putting aside ---- */

/* Blocks that the disk does not give back stay holes in the copy. */
static enum err bytes_copy(struct check *c, int from, int to, uint64_t size)
{
	enum err err = os_truncate(to, size);
	size_t step;

	for (uint64_t at = 0; at < size && !err; at += step) {
		size_t n = (size_t)MIN((uint64_t)COPY_STEP, size - at);
		char *p;

		buf_clear(&c->window);
		if (!(p = buf_reserve(&c->window, n)))
			return ERR_NO_MEMORY;
		step = n;
		err = os_pread_all(from, p, n, at);
		if (err == ERR_IO) {
			step = MIN(n, (size_t)LOG_BLOCK);
			err = os_pread_all(from, p, step, at) == ERR_OK
				      ? os_pwrite_all(to, str_of(p, step), at)
				      : ERR_OK;
		} else if (!err) {
			err = os_pwrite_all(to, str_of(p, n), at);
		}
	}
	return err;
}

/* The first copy is the original. */
static enum err copy_aside(struct check *c, const char *name, const char *as)
{
	struct os_stat st;
	int from = -1, to = -1;
	enum err err = os_open(c->dir, name, OS_READ, &from);

	if (err)
		return err == ERR_NOT_FOUND ? ERR_OK : err;
	err = os_fstat(from, &st);
	if (!err)
		err = os_open(c->aside, as, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &to);
	if (!err)
		err = bytes_copy(c, from, to, st.size);
	if (!err)
		err = os_fsync(to);
	os_close(from);
	os_close(to);
	return err == ERR_EXISTS ? ERR_OK : err;
}

static enum err move_aside(struct check *c, const char *name, const char *as)
{
	char to[NAME_SIZE];
	enum err err;

	snprintf(to, sizeof(to), "%s/%s", c->result->aside, as);
	err = os_rename(c->dir, name, to);
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err segments_copy(struct check *c)
{
	uint32_t last = 0;
	enum err err = ERR_OK;

	for (size_t i = 0; i < c->range_count && !err; i++) {
		char name[SEGMENT_NAME_SIZE];

		if (c->ranges[i].kind == RANGE_MISSING || c->ranges[i].segment == last)
			continue;
		last = c->ranges[i].segment;
		segment_name(name, last);
		err = copy_aside(c, name, name + sizeof("log/") - 1);
	}
	return err;
}

/* ---- frames with a given CRC ---- */

static uint32_t frame_crc(const char bytes[FRAME_HEADER_SIZE], str records)
{
	return crc32c(crc32c(0, str_of(bytes + 8, FRAME_HEADER_SIZE - 8)), records);
}

/* A change of the four bytes changes the CRC by a sum of 32 fixed amounts, one for each bit that is
 * set: so the bits are found by elimination. */
static void crc_forge(char bytes[FRAME_HEADER_SIZE], str records, uint32_t wanted)
{
	uint32_t amount[32], bits[32], missing, chosen = 0;

	put_le32(bytes + FRAME_FORGED_AT, 0);
	missing = frame_crc(bytes, records);
	for (unsigned i = 0; i < 32; i++) {
		put_le32(bytes + FRAME_FORGED_AT, (uint32_t)1 << i);
		amount[i] = frame_crc(bytes, records) ^ missing;
		bits[i] = (uint32_t)1 << i;
	}
	missing ^= wanted;
	for (unsigned row = 0; row < 32; row++) {
		uint32_t mask = (uint32_t)1 << row, swap;
		unsigned pivot = row;

		while (pivot < 32 && !(amount[pivot] & mask))
			pivot++;
		if (pivot == 32)
			panic("crc_forge: a CRC of 32 bits is not one");
		swap = amount[pivot], amount[pivot] = amount[row], amount[row] = swap;
		swap = bits[pivot], bits[pivot] = bits[row], bits[row] = swap;
		for (unsigned i = 0; i < 32; i++) {
			if (i != row && amount[i] & mask) {
				amount[i] ^= amount[row];
				bits[i] ^= bits[row];
			}
		}
	}
	for (unsigned row = 0; row < 32; row++)
		if (missing & (uint32_t)1 << row)
			chosen ^= bits[row];
	put_le32(bytes + FRAME_FORGED_AT, chosen);
	put_le32(bytes + 4, wanted);
	if (frame_crc(bytes, records) != wanted)
		panic("crc_forge: the CRC is %x", frame_crc(bytes, records));
}

/* ---- bridges ---- */

static enum err blobs_crc(struct check *c, int fd, uint64_t at, uint64_t n, uint32_t *crc)
{
	*crc = 0;
	while (n) {
		size_t step = (size_t)MIN(n, (uint64_t)COPY_STEP);
		char *p;
		enum err err;

		buf_clear(&c->window);
		if (!(p = buf_reserve(&c->window, step)))
			return ERR_NO_MEMORY;
		if ((err = os_pread_all(fd, p, step, at)))
			return err;
		*crc = crc32c(*crc, str_of(p, step));
		at += step;
		n -= step;
	}
	return ERR_OK;
}

/* A block that the disk does not give back is written anew: that is what makes a disk replace it.
 */
static enum err blocks_readable(struct check *c, int fd, uint32_t from, uint32_t to)
{
	static const char zeros[LOG_BLOCK];
	struct os_stat st;
	enum err err = os_fstat(fd, &st);

	if (!err && st.size < to)
		err = os_truncate(fd, to);
	for (uint64_t at = from; at < to && !err; at += LOG_BLOCK) {
		char *p;

		buf_clear(&c->window);
		if (!(p = buf_reserve(&c->window, LOG_BLOCK)))
			return ERR_NO_MEMORY;
		err = os_pread_all(fd, p, LOG_BLOCK, at);
		if (err == ERR_IO)
			err = os_pwrite_all(fd, str_of(zeros, sizeof(zeros)), at);
	}
	return err;
}

static enum err frames_bridge(struct check *c, const struct check_range *r, int fd)
{
	struct frame_header h = { .chain = r->before,
				  .flags = FRAME_REPAIRED,
				  .position = position_of(r->segment, r->from),
				  .number = r->number,
				  .durable = position_of(r->segment, r->from),
				  .blobs_size = r->to - r->from - FRAME_HEADER_SIZE,
				  .time_us = os_wall_us(),
				  .store = get_le64(c->id.store) };
	char bytes[FRAME_HEADER_SIZE];
	enum err err = blocks_readable(c, fd, r->from, r->to);

	if (!err)
		err = blobs_crc(c, fd, r->from + FRAME_HEADER_SIZE, h.blobs_size, &h.blobs_crc);
	if (err)
		return err;
	frame_header_put(bytes, &h);
	crc_forge(bytes, STR_EMPTY, r->chain);
	return os_pwrite_all(fd, str_of(bytes, sizeof(bytes)), r->from);
}

/* The frame keeps its CRC, which the next one names. */
static enum err frame_patch(struct check *c, const struct check_range *r, int fd)
{
	uint64_t position = position_of(r->segment, r->from);
	char bytes[FRAME_HEADER_SIZE];
	struct frame_header h;
	enum err err = frame_load(fd, get_le64(c->id.store), position, UINT32_MAX, &c->records, &h);
	uint64_t blobs = r->from + (uint64_t)FRAME_HEADER_SIZE + (err ? 0 : h.records_size);

	if (!err && r->kind == RANGE_BLOBS)
		err = blocks_readable(c, fd, r->from, r->to);
	if (!err && r->kind == RANGE_BLOBS)
		err = blobs_crc(c, fd, blobs, h.blobs_size, &h.blobs_crc);
	if (err)
		return err;
	if (r->kind == RANGE_CHAIN)
		h.chain = r->chain;
	h.flags |= FRAME_REPAIRED;
	frame_header_put(bytes, &h);
	crc_forge(bytes, buf_str(&c->records), h.crc);
	return os_pwrite_all(fd, str_of(bytes, sizeof(bytes)), r->from);
}

static enum err header_write(struct check *c, int fd, struct segment_header *h)
{
	char bytes[SEGMENT_HEADER_SIZE];

	memcpy(h->store, c->id.store, sizeof(h->store));
	h->epoch = 1;
	h->created_us = os_wall_us();
	segment_header_put(bytes, h);
	return os_pwrite_all(fd, str_of(bytes, sizeof(bytes)), 0);
}

static enum err header_make(struct check *c, const struct check_range *r, int fd)
{
	struct segment_header h = { .segment = r->segment };
	size_t i = 0;

	while (c->segments[i].number != r->segment)
		i++;
	h.size = u32_of(MAX(c->segments[i].size, (uint64_t)SEGMENT_HEADER_SIZE));
	h.number = c->segments[i].first_number;
	if (i > 0) {
		const struct check_segment *before = &c->segments[i - 1];

		h.predecessor = before->number + 1 == r->segment ? before->number : r->segment - 1;
		h.predecessor_end =
			before->number + 1 == r->segment ? before->walked_to : SEGMENT_HEADER_SIZE;
		h.chain =
			c->segments[i].has_first ? c->segments[i].first_chain : before->last_chain;
	}
	return header_write(c, fd, &h);
}

static uint32_t segment_size(const struct check *c)
{
	for (size_t i = c->segment_count; i-- > 0;)
		if (c->segments[i].state == ERR_OK)
			return c->segments[i].header.size;
	return SEGMENT_SIZE;
}

/* `size`: SEGMENT_HEADER_SIZE for one that holds nothing. */
static enum err segment_make(struct check *c, uint32_t number, uint32_t predecessor_end,
			     uint32_t chain, uint32_t size)
{
	struct segment_header h = { .segment = number,
				    .size = size,
				    .predecessor = number > 1 ? number - 1 : 0,
				    .predecessor_end = predecessor_end,
				    .chain = chain };
	char name[SEGMENT_NAME_SIZE];
	int fd;
	enum err err;

	segment_name(name, number);
	if ((err = os_open(c->dir, name, OS_READ | OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &fd)))
		return err == ERR_EXISTS ? ERR_OK : err;
	err = header_write(c, fd, &h);
	if (!err && size > SEGMENT_HEADER_SIZE)
		err = os_allocate(fd, 0, size);
	if (!err)
		err = os_fsync(fd);
	os_close(fd);
	return err;
}

/* Positions of the one in which the index ended are never given again: another one follows it. */
static enum err missing_make(struct check *c, const struct check_range *r)
{
	const struct check_segment *before = NULL;
	bool is_last = !c->segment_count || r->segment > c->segments[c->segment_count - 1].number;
	enum err err;

	for (size_t i = 0; i < c->segment_count; i++)
		if (c->segments[i].number + 1 == r->segment)
			before = &c->segments[i];
	err = segment_make(c, r->segment, before ? before->walked_to : SEGMENT_HEADER_SIZE,
			   before ? before->last_chain : 0, SEGMENT_HEADER_SIZE);
	if (!err && is_last && r->segment == position_segment(c->covered.position))
		err = segment_make(c, r->segment + 1, SEGMENT_HEADER_SIZE, r->chain,
				   segment_size(c));
	return err;
}

enum err check_segment_lengthen(struct check *c, const struct check_range *r)
{
	char name[SEGMENT_NAME_SIZE];
	int fd = -1;
	enum err err = check_aside(c);

	segment_name(name, r->segment);
	if (!err)
		err = copy_aside(c, name, name + sizeof("log/") - 1);
	if (!err)
		err = os_open(c->dir, name, OS_READ | OS_WRITE, &fd);
	if (!err)
		err = os_allocate(fd, r->from, r->to - r->from);
	if (!err)
		err = os_fsync(fd);
	os_close(fd);
	return err;
}

static enum err range_repair(struct check *c, const struct check_range *r)
{
	char name[SEGMENT_NAME_SIZE];
	int fd;
	enum err err;

	if (r->kind == RANGE_MISSING)
		return missing_make(c, r);
	segment_name(name, r->segment);
	if ((err = os_open(c->dir, name, OS_READ | OS_WRITE, &fd)))
		return err;
	switch (r->kind) {
	case RANGE_FRAMES:
		err = frames_bridge(c, r, fd);
		break;
	case RANGE_HEADER:
		err = header_make(c, r, fd);
		break;
	case RANGE_SHORT:
		break; /* it was lengthened before it was read */
	default:
		err = frame_patch(c, r, fd);
		break;
	}
	if (!err)
		err = os_fsync(fd);
	os_close(fd);
	return err;
}

/* ---- records ---- */

static void committed(void *arg, enum err err)
{
	enum err *worst = arg;

	if (err)
		*worst = err;
}

static enum err settle(struct kv *kv)
{
	enum err err = ERR_OK;

	while (!err && !kv_is_idle(kv)) {
		kv_flush(kv);
		if (kv->is_syncing)
			err = os_wait_readable(kv_sync_fd(kv), -1);
		if (!err)
			kv_sync_ready(kv);
	}
	return err;
}

static enum err batch_commit(struct kv *kv, str *rest)
{
	enum err told = ERR_OK, err = kv_begin(kv, true);
	size_t before = rest->n;
	struct record r;

	for (unsigned n = 0; !err && n < BATCH_RECORDS && before - rest->n < BATCH_BYTES; n++) {
		struct key k;

		if ((err = record_get(rest, &r)))
			break;
		k.n = (uint8_t)MIN(r.key.n, (size_t)KEY_MAX);
		memcpy(k.p, r.key.p, k.n);
		if (r.op == RECORD_PUT)
			kv_put(kv, &k, r.value);
		else
			kv_delete(kv, &k);
	}
	if (err && err != ERR_EOF)
		return err;
	err = kv_end(kv, committed, &told);
	if (!err)
		err = settle(kv);
	return err ? err : told;
}

static enum err records_write(struct check *c, const struct kv_options *o)
{
	str rest = buf_str(&c->fixes);
	struct kv *kv = NULL;
	enum err err = kv_prepare(o);

	if (!err)
		err = kv_open(o, &kv);
	while (!err && rest.n)
		err = batch_commit(kv, &rest);
	if (!err) {
		c->result->rewritten = c->fix_count;
		kv_steady(kv);
	}
	kv_close(kv);
	return err;
}

static enum err index_aside(struct check *c)
{
	enum err err = move_aside(c, "index/data.mdb", "index-data.mdb");

	return err ? err : index_discard(c->dir);
}

/* Copies of what is about to be changed, and a key to read it with. */
static enum err originals_keep(struct check *c)
{
	enum err err = check_aside(c);

	if (!err)
		err = segments_copy(c);
	if (!err && c->identity_is_damaged) {
		if (!(err = copy_aside(c, "identity", "identity")) &&
		    !(err = copy_aside(c, "log/identity", "log-identity")))
			err = kv_identity_restore(c->dir, &c->id);
	}
	if (!err && c->result->has_index && !c->has_index)
		err = index_aside(c);
	return err ? err : os_fsync(c->aside);
}

/* What is lost for good shows in the ranges alone. Who is killed when they are bridged, and the
 * accounts do not say so yet, must know it the next time. */
static enum err unfinished_mark(struct check *c)
{
	int fd;
	enum err err = os_open(c->dir, CHECK_UNFINISHED, OS_WRITE | OS_CREATE, &fd);

	if (err)
		return err;
	os_close(fd);
	return os_fsync(c->dir);
}

static enum err unfinished_unmark(struct check *c)
{
	enum err err = os_unlink(c->dir, CHECK_UNFINISHED);

	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err ranges_repair(struct check *c)
{
	enum err err = ERR_OK;

	for (size_t i = 0; i < c->range_count && !err; i++)
		err = range_repair(c, &c->ranges[i]);
	return err || !c->segment_count ? err : segment_sync_directory(c->dir);
}

/* With an index, the records first: it is the ranges that say that the index is to be believed. */
enum err check_repair(struct check *c, int *lock)
{
	struct kv_options o = { .dir = c->dir,
				.path = c->options->path,
				.segment_size = segment_size(c),
				.checkpoint_bytes = UINT64_MAX,
				.checkpoint_memory = UINT64_MAX,
				.checkpoint_ns = INT64_MAX };
	enum err err = originals_keep(c);

	if (!err && check_lost_records(c))
		err = unfinished_mark(c);
	if (!err && !c->has_index)
		err = ranges_repair(c);
	kv_close(c->view);
	c->view = NULL;
	check_scratch_remove(c);
	os_close(*lock);
	*lock = -1;
	/* It may be all that still has the records of damaged frames, until they are written. */
	if (!err && c->has_index)
		err = kv_trust_index(c->dir);
	if (!err)
		err = records_write(c, &o);
	if (!err && c->has_index)
		err = ranges_repair(c);
	/* Its accounts of segments are of a log without gaps. */
	if (!err && c->has_index && c->range_count) {
		if (!(err = index_aside(c)))
			err = kv_prepare(&o);
	}
	return err ? err : unfinished_unmark(c);
}
