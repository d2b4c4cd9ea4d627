/* fsck's look at the index: does it hold what a rebuild from the log would hold?
 *
 * A second index is made from the log in index/check, up to the position that the first one covers,
 * and the two are compared key by key. Where nothing is damaged they are equal, and if they are
 * not, the log is right: it is what was synced before anybody was answered. Where frames were lost,
 * the index may know what they said (it was made while they were good): then it is right about what
 * can have been in them, and a repair writes that into the log again.
 *
 * The index is believed only as a whole: one whose pages are damaged may show an old page in place
 * of a new one, and nothing in it says which.
 */
#include "store/check_priv.h"

#include <stdio.h>

#define SCRATCH "index/check"

enum { PATH_SIZE = 4096 };

struct comparing {
	struct check *c;
	struct index_reader *old, *new;
	uint64_t unexplained, kept;
	size_t fixes_before;
	uint64_t fix_count_before;
};

enum err store_check_index(int dir, const char *path, struct buf *identity)
{
	struct index_reader *x = NULL;
	struct index_cursor *cursor = NULL;
	struct identity id;
	char bytes[IDENTITY_SIZE];
	str key, value, again;
	enum err err = index_identity(path, &id);

	(void)dir;
	if (err)
		return err;
	identity_put(bytes, &id);
	buf_add(identity, str_of(bytes, sizeof(bytes)));
	err = index_reader_open(path, &id, &x);
	if (!err)
		err = index_cursor_open(x, STR_EMPTY, &cursor);
	/* Each must be found as well: the pages on the way to it are looked at. */
	while (!err && !(err = index_cursor_get(cursor, &key, &value))) {
		err = index_get(x, key, &again);
		if (!err && again.p != value.p)
			err = ERR_DAMAGED;
		if (!err)
			err = index_cursor_next(cursor);
	}
	index_cursor_close(cursor);
	index_reader_close(x);
	return err == ERR_EOF ? ERR_OK : err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
}

/* ---- the rebuilt one ---- */

void check_scratch_remove(struct check *c)
{
	static const char *const names[] = { SCRATCH "/index/data.mdb", SCRATCH "/index/lock.mdb",
					     SCRATCH "/index/reserve" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		enum err err = os_unlink(c->dir, names[i]);

		if (err && err != ERR_NOT_FOUND)
			check_tell(c,
				   (struct check_finding){ .level = CHECK_NOTE,
							   .what = "file-left",
							   .file = str_from_c(names[i]) },
				   "cannot be removed: %s", err_text(err));
	}
}

/* Brings it up to that position. */
static enum err rebuild(struct check *c, uint64_t limit, const char *path)
{
	struct index_writer *x = NULL;
	struct log_place covered;
	uint64_t records;
	int dir = -1;
	enum err err = os_mkdir(c->dir, "index", 0700);

	if (!err || err == ERR_EXISTS)
		err = os_mkdir(c->dir, SCRATCH, 0700);
	if (!err || err == ERR_EXISTS)
		err = os_open(c->dir, SCRATCH, OS_READ | OS_DIRECTORY, &dir);
	if (!err)
		err = index_writer_open(dir, path, &c->id, NULL, true, &x);
	if (!err) {
		index_writer_read_from(x, c->dir);
		err = index_bring_up(x, limit, &covered, &records);
	}
	index_writer_close(x);
	os_close(dir);
	return err;
}

/* ---- comparing ---- */

static uint32_t segment_of(str value)
{
	return get_le32(value.p - INDEX_PREFIX);
}

/* Of the index's own records, the accounts of segments that are there are compared. Of those that
 * compaction emptied the log says nothing any more. */
static bool is_compared(const struct comparing *m, str key)
{
	struct unpack u = { .rest = str_from(key, 2) };
	uint64_t segment;

	if (key.p[0] != KIND_INDEX)
		return true;
	if (key.n < 2 || key.p[1] != 'u' || m->c->range_count)
		return false;
	segment = unpack_key_number(&u);
	for (size_t i = 0; i < m->c->segment_count; i++)
		if (m->c->segments[i].number == segment)
			return !segment_is_emptied(m->c->segments[i].size);
	return false;
}

/* A segment that nothing is alive in may have accounts of that, or none. */
static bool is_nothing(str key, str value)
{
	for (size_t i = 0; i < value.n; i++)
		if (value.p[i])
			return false;
	return key.p[0] == KIND_INDEX;
}

static void only_in_index(struct comparing *m, str key, str value)
{
	if (!is_compared(m, key))
		return;
	if (key.p[0] == KIND_INDEX || !check_was_damaged(m->c, segment_of(value), false)) {
		m->unexplained++;
		return;
	}
	m->kept++;
	check_fix(m->c, RECORD_PUT, key, value);
}

/* The log has it, and the index has seen it deleted. */
static void only_in_log(struct comparing *m, str key, str value)
{
	if (!is_compared(m, key))
		return;
	if (key.p[0] == KIND_INDEX || !check_was_damaged(m->c, segment_of(value), true)) {
		m->unexplained++;
		return;
	}
	m->kept++;
	check_fix(m->c, RECORD_DELETE, key, STR_EMPTY);
}

static void in_both(struct comparing *m, str key, str old, str new)
{
	if (is_compared(m, key) && (segment_of(old) != segment_of(new) || !str_eq(old, new)))
		only_in_index(m, key, old);
}

static enum err compare_all(struct comparing *m)
{
	struct index_cursor *a = NULL, *b = NULL;
	str key_a, key_b, value_a, value_b;
	enum err err = index_cursor_open(m->old, STR_EMPTY, &a);

	if (!err)
		err = index_cursor_open(m->new, STR_EMPTY, &b);
	while (!err) {
		enum err end_a = index_cursor_get(a, &key_a, &value_a);
		enum err end_b = index_cursor_get(b, &key_b, &value_b);
		int order = end_a ? 1 : end_b ? -1 : str_cmp(key_a, key_b);

		if ((end_a && end_a != ERR_EOF) || (end_b && end_b != ERR_EOF))
			err = ERR_DAMAGED;
		else if (end_a && end_b)
			break;
		else if (order < 0 && !is_nothing(key_a, value_a))
			only_in_index(m, key_a, value_a);
		else if (order > 0 && !is_nothing(key_b, value_b))
			only_in_log(m, key_b, value_b);
		else if (order == 0)
			in_both(m, key_a, value_a, value_b);
		if (!err && order <= 0)
			err = index_cursor_next(a);
		if (!err && order >= 0)
			err = index_cursor_next(b);
	}
	index_cursor_close(a);
	index_cursor_close(b);
	return err;
}

static void differences_tell(struct comparing *m)
{
	struct check *c = m->c;
	struct check_finding f = { .level = CHECK_DAMAGE,
				   .what = "index-differs",
				   .file = S("index/data.mdb") };

	c->result->index_matches = !m->unexplained && !m->kept;
	if (m->unexplained) {
		check_tell(c, f, "%llu keys are not what the log says; the log is right",
			   (unsigned long long)m->unexplained);
		c->has_index = false;
		buf_truncate(&c->fixes, m->fixes_before);
		c->fix_count = m->fix_count_before;
	} else if (m->kept) {
		f.what = "index-knows-more";
		check_tell(c, f, "%llu records of damaged frames are still in the index",
			   (unsigned long long)m->kept);
	}
}

static enum err compare(struct check *c, const char *scratch)
{
	struct comparing m = { .c = c,
			       .old = c->index,
			       .fixes_before = buf_len(&c->fixes),
			       .fix_count_before = c->fix_count };
	enum err err = m.old ? ERR_OK : index_reader_open(c->options->path, &c->id, &m.old);

	if (!err)
		err = index_reader_open(scratch, &c->id, &m.new);
	if (!err)
		err = compare_all(&m);
	if (m.old != c->index)
		index_reader_close(m.old);
	index_reader_close(m.new);
	if (err == ERR_DAMAGED)
		m.unexplained++;
	else if (err)
		return err;
	differences_tell(&m);
	return ERR_OK;
}

enum err check_index(struct check *c, char view_path[4096])
{
	char scratch[PATH_SIZE];
	enum err err = ERR_OK;

	snprintf(scratch, sizeof(scratch), "%s/" SCRATCH, c->options->path);
	snprintf(view_path, PATH_SIZE, "%s", c->options->path);
	check_scratch_remove(c);
	c->result->index_matches = c->has_index; /* one that covers nothing yet has nothing wrong */
	if (c->has_index && c->covered.position) {
		err = rebuild(c, c->covered.position, scratch);
		if (!err)
			err = compare(c, scratch);
	}
	if (err || c->has_index)
		return err;
	snprintf(view_path, PATH_SIZE, "%s", scratch);
	return rebuild(c, c->place.position, scratch);
}
