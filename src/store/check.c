/* fsck: the order of its looks, and what they mean together (check.h).
 *
 *	identity	which copies are good; without one of them the log cannot be opened
 *	log		every frame and blob (check_log.c)
 *	index		against a rebuild (check_index.c)
 *	state		what the store would serve (check_state.c, check_queue.c, check_bodies.c)
 *	repair		if that is asked for (repair.c)
 *
 * What a damaged place in the log means is known only after the index was read: records that it
 * still has are not lost. So what is told comes in that order, and not in the order of the files.
 */
#include "store/check_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { DETAIL_SIZE = 600, PATH_SIZE = 4096, ONLINE_TRIES = 5 };

/* ---- telling ---- */

static void found_tell(struct check *c, const struct check_finding *f)
{
	c->result->notes += f->level == CHECK_NOTE;
	c->result->damages += f->level == CHECK_DAMAGE;
	c->result->losses += f->level == CHECK_LOSS;
	if (c->options->found)
		c->options->found(c->options->arg, f);
}

void check_found(struct check *c, const struct check_finding *f)
{
	struct held *h = c->options->is_online ? arena_alloc(c->arena, sizeof(*h)) : NULL;

	if (!h) {
		found_tell(c, f);
		return;
	}
	h->finding = *f;
	h->finding.file = arena_str(c->arena, f->file);
	h->finding.address = arena_str(c->arena, f->address);
	h->finding.mailbox = arena_str(c->arena, f->mailbox);
	h->finding.detail = arena_str(c->arena, f->detail);
	h->next = NULL;
	*c->held_last = h;
	c->held_last = &h->next;
}

void check_tell(struct check *c, struct check_finding f, const char *fmt, ...)
{
	char detail[DETAIL_SIZE];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	f.detail = str_of(detail, (size_t)MIN(n, (int)sizeof(detail) - 1));
	check_found(c, &f);
}

bool check_repairs(const struct check *c)
{
	return c->options->repair;
}

void check_fix(struct check *c, uint8_t op, str key, str value)
{
	if (!check_repairs(c))
		return;
	record_put(&c->fixes, op, key, value);
	c->fix_count++;
}

bool check_lost_records(const struct check *c)
{
	return c->all_is_suspect || c->suspect_count || c->store_is_suspect;
}

bool check_is_suspect(const struct check *c, uint64_t account)
{
	for (size_t i = 0; i < c->suspect_count; i++)
		if (c->suspects[i] == account)
			return true;
	return c->all_is_suspect;
}

static void suspect(struct check *c, uint64_t account)
{
	c->store_is_suspect = true;
	if (check_is_suspect(c, account))
		return;
	if (c->suspect_count == c->suspect_room) {
		size_t room = c->suspect_room ? c->suspect_room * 2 : 64;
		uint64_t *suspects = realloc(c->suspects, room * sizeof(*suspects));

		if (!suspects) {
			c->all_is_suspect = true;
			return;
		}
		c->suspects = suspects;
		c->suspect_room = room;
	}
	c->suspects[c->suspect_count++] = account;
}

/* ---- what is lost with damaged frames ---- */

/* The index saw it while it was good, and the index is right. */
static bool is_in_index(const struct check *c, uint64_t position)
{
	return c->has_index && position < c->covered.position;
}

static void address_find(struct check *c, struct check_finding *f, uint32_t mailbox)
{
	struct key a = key_make1(KIND_ACCOUNT, f->account);
	struct key m = key_make2(KIND_MAILBOX, f->account, mailbox);
	struct account account;
	struct mailbox box;
	str value;

	if (!kv_get(c->view, KV_DURABLE, &a, &value) && !account_get(value, &account))
		f->address = account.address;
	if (mailbox && !kv_get(c->view, KV_DURABLE, &m, &value) &&
	    !mailbox_get(value, mailbox, &box))
		f->mailbox = box.name;
}

static void lost_tell(struct check *c, str key, uint64_t position, uint8_t op)
{
	struct check_finding f = { .level = CHECK_LOSS, .what = "record-lost" };
	struct unpack u = { .rest = str_from(key, 1) };
	const char *verb = op == RECORD_DELETE ? "the deletion" : "the last state",
		   *of = "a record";
	uint64_t first = unpack_key_number(&u), second = unpack_key_number(&u);
	uint64_t third = unpack_key_number(&u);
	char name[SEGMENT_NAME_SIZE];

	segment_name(name, position_segment(position));
	f.file = str_from_c(name);
	f.from = position_offset(position);
	switch (key.p[0]) {
	case KIND_ACCOUNT:
		of = "an account";
		break;
	case KIND_KEYWORD:
		of = "a keyword";
		break;
	case KIND_MAILBOX:
		of = "a mailbox";
		break;
	case KIND_ROW:
		of = "a message";
		break;
	case KIND_TOMBSTONE:
		of = "what was expunged";
		break;
	case KIND_KEPT:
		of = "an expunged message";
		break;
	case KIND_BODY:
		of = "the place of a text";
		break;
	case KIND_QUEUE:
		of = "mail in the queue";
		break;
	default:
		break;
	}
	if (key.p[0] == KIND_BODY) {
		f.body = first;
	} else if (key.p[0] == KIND_QUEUE) {
		f.queue = first;
	} else if (key.p[0] != KIND_COUNTERS && key.p[0] != KIND_DUE && key.p[0] != KIND_KEPT_DAY) {
		f.account = first;
		f.uid = key.p[0] == KIND_ROW ? (uint32_t)third : 0;
		address_find(c, &f,
			     key.p[0] == KIND_ACCOUNT || key.p[0] == KIND_KEPT ? 0
									       : (uint32_t)second);
		suspect(c, first);
	}
	c->store_is_suspect = true;
	check_tell(c, f, "%s of %s", verb, of);
}

static void lost_records_tell(struct check *c)
{
	for (struct entry *e = overlay_seek(c->lost, STR_EMPTY); e; e = entry_next(e)) {
		const struct version *v = e->newest;

		if (v->is_deleted || is_in_index(c, get_le64(v->value)))
			continue;
		lost_tell(c, entry_key(e), get_le64(v->value), (uint8_t)v->value[8]);
	}
}

static void range_tell(struct check *c, const struct check_range *r)
{
	static const char *const what[] = { [RANGE_FRAMES] = "frames",
					    [RANGE_BLOBS] = "blobs",
					    [RANGE_CHAIN] = "chain",
					    [RANGE_HEADER] = "segment-header",
					    [RANGE_MISSING] = "segment-missing",
					    [RANGE_SHORT] = "segment-short" };
	char name[SEGMENT_NAME_SIZE];
	struct check_finding f = {
		.level = CHECK_DAMAGE, .what = what[r->kind], .from = r->from, .to = r->to
	};
	uint32_t last = c->segment_count ? c->segments[c->segment_count - 1].number : 0;

	segment_name(name, r->segment);
	f.file = str_from_c(name);
	if (r->kind == RANGE_HEADER) {
		check_tell(c, f, "the segment's header is damaged; it can be made again");
	} else if (r->kind == RANGE_BLOBS) {
		check_tell(c, f,
			   "texts in this frame are damaged; the messages are named below, "
			   "unless all are expunged");
	} else if (r->kind == RANGE_SHORT && r->segment != last) {
		check_tell(c, f, "the file was cut");
	} else if (r->kind == RANGE_SHORT) {
		f.level = CHECK_LOSS;
		check_tell(c, f, "the file was cut: what was written there last cannot be named");
		c->all_is_suspect = true;
	} else if (is_in_index(c, position_of(r->segment, r->from))) {
		check_tell(c, f, "the index still has the records that were here");
	} else if (r->is_attributed) {
		check_tell(c, f, "%u records were here; those that no later one replaces are named",
			   r->records);
	} else {
		f.level = CHECK_LOSS;
		check_tell(c, f, "records were here that cannot be named; %u can be guessed at",
			   r->records);
		c->all_is_suspect = true;
	}
}

void check_ranges_tell(struct check *c)
{
	for (size_t i = 0; i < c->range_count; i++)
		range_tell(c, &c->ranges[i]);
	lost_records_tell(c);
	if (c->is_torn) {
		char name[SEGMENT_NAME_SIZE];

		segment_name(name, c->torn_segment);
		check_tell(c,
			   (struct check_finding){ .level = CHECK_NOTE,
						   .what = "torn-tail",
						   .file = str_from_c(name),
						   .from = c->torn_from },
			   "a write was under way when the store ended; nobody was told that it "
			   "happened");
	}
}

/* ---- the looks ---- */

static enum err identity_check(struct check *c)
{
	static const char *const names[] = { "identity", "log/identity", "index/data.mdb" };
	enum err states[IDENTITY_COPIES];
	enum err err = kv_identity_survey(c->dir, c->options->index_identity, states, &c->id);

	if (err == ERR_NOT_FOUND || err == ERR_UNSUPPORTED)
		return err;
	for (size_t i = 0; i < 2; i++) {
		struct check_finding f = { .level = err ? CHECK_LOSS : CHECK_DAMAGE,
					   .what = "identity",
					   .file = str_from_c(names[i]) };

		if (!states[i])
			continue;
		c->identity_is_damaged = true;
		check_tell(c, f, "%s",
			   states[i] == ERR_NOT_FOUND  ? "is not there"
			   : states[i] == ERR_CONFLICT ? "is another store's"
						       : "is damaged");
	}
	if (err)
		check_tell(
			c,
			(struct check_finding){ .level = CHECK_LOSS,
						.what = "identity-lost",
						.file = S("identity") },
			"no copy of the store's key is left: without it nothing can be read. Put a "
			"backup of the file identity in its place");
	return err;
}

/* Of an index that does not kill whoever reads it. */
static enum err index_open(struct check *c)
{
	struct check_finding f = { .level = CHECK_DAMAGE,
				   .what = "index",
				   .file = S("index/data.mdb") };
	struct index_reader *x = NULL;
	struct os_stat st;
	enum err err;

	c->result->has_index = os_stat(c->dir, "index/data.mdb", &st) == ERR_OK && st.size;
	if (!c->result->has_index) {
		f.level = CHECK_NOTE;
		check_tell(c, f, "there is none; the next start makes it from the log");
		return ERR_OK;
	}
	err = c->options->has_index_verdict && !c->options->index_is_sound ? ERR_DAMAGED : ERR_OK;
	if (!err)
		err = index_reader_open(c->options->path, &c->id, &x);
	if (!err)
		err = index_covered(x, &c->covered);
	/* While a server runs, the next state of it may be another. */
	if (!err && c->options->is_online)
		c->index = x;
	else
		index_reader_close(x);
	c->has_index = !err;
	c->result->index_is_sound = !err;
	if (err == ERR_DAMAGED)
		check_tell(c, f, "is damaged; it can be made again from the log");
	return err == ERR_DAMAGED ? ERR_OK : err;
}

/* What the index knows of damaged frames, and what good ones behind the index have replaced. */
static void kept_filter(struct check *c)
{
	str rest = buf_str(&c->fixes);
	struct record r;
	struct buf kept;

	buf_init(&kept, CHECK_FIXES_MAX);
	c->fix_count = 0;
	while (!record_get(&rest, &r)) {
		if (overlay_find(c->view->young, r.key))
			continue;
		record_put(&kept, r.op, r.key, r.value);
		c->fix_count++;
	}
	buf_free(&c->fixes);
	c->fixes = kept;
}

static void unfinished_check(struct check *c)
{
	struct os_stat st;

	if (os_stat(c->dir, CHECK_UNFINISHED, &st))
		return;
	check_tell(c,
		   (struct check_finding){ .level = CHECK_LOSS,
					   .what = "repair-unfinished",
					   .file = S(CHECK_UNFINISHED) },
		   "a repair was cut off; what it had to give up cannot be told any more");
	c->all_is_suspect = true;
}

static enum err view_open(struct check *c, const char *path)
{
	struct index_reader *x = c->has_index ? c->index : NULL;
	enum err err = x ? ERR_OK : index_reader_open(path, &c->id, &x);

	if (x == c->index)
		c->index = NULL;
	return err ? err
		   : kv_view_open(c->dir, &c->id, x,
				  c->options->is_online ? c->covered.position : UINT64_MAX,
				  &c->view);
}

static enum err looks_from(struct check *c)
{
	char view_path[PATH_SIZE];
	enum err err = ERR_OK;

	if (!(c->cipher = log_cipher_new(c->id.key)))
		return ERR_NO_MEMORY;
	err = check_log(c);
	if (!err)
		err = check_index(c, view_path);
	if (!err)
		err = view_open(c, view_path);
	if (err)
		return err;
	kept_filter(c);
	unfinished_check(c);
	check_ranges_tell(c);
	return check_state(c);
}

static enum err looks(struct check *c)
{
	enum err err = identity_check(c);

	if (!err)
		err = index_open(c);
	return err ? err : looks_from(c);
}

static enum err lock_take(struct check *c, int *lock)
{
	enum err err;

	*lock = -1;
	err = os_open(c->dir, "lock", OS_READ | OS_WRITE, lock);
	if (err == ERR_NOT_FOUND)
		return ERR_OK;
	return err ? err : os_lock_file(*lock);
}

static enum err check_begin(struct check *c)
{
	buf_init(&c->records, UINT32_MAX);
	buf_init(&c->window, 4 * 1024 * 1024);
	buf_init(&c->fixes, CHECK_FIXES_MAX);
	buf_init(&c->plain, 4 * 1024 * 1024);
	c->aside = c->segment_fd = -1;
	c->arena = arena_new(CHECK_ARENA);
	c->bodies = body_cipher_new();
	c->lost = overlay_new(CHECK_LOST_MAX);
	return c->arena && c->bodies && c->lost ? ERR_OK : ERR_NO_MEMORY;
}

static void check_end(struct check *c)
{
	kv_close(c->view);
	check_bodies_end(c);
	index_reader_close(c->index);
	log_cipher_free(c->cipher);
	body_cipher_free(c->bodies);
	overlay_free(c->lost);
	arena_free(c->arena);
	os_close(c->aside);
	free(c->ranges);
	free(c->suspects);
	buf_free(&c->records);
	buf_free(&c->window);
	buf_free(&c->fixes);
	buf_free(&c->plain);
}

/* ---- while the server runs ---- */

struct mark {
	uint32_t number;
	uint64_t size, inode;
};

/* Which segments there are, and how long: compaction empties and removes what is old. */
static enum err marks_take(struct check *c, struct mark **marks, size_t *count)
{
	uint32_t *numbers;
	enum err err = segment_list(c->dir, c->arena, &numbers, count);

	*marks = err ? NULL : arena_array(c->arena, *count + 1, sizeof(**marks));
	if (!err && !*marks)
		err = ERR_NO_MEMORY;
	for (size_t i = 0; i < *count && !err; i++) {
		char name[SEGMENT_NAME_SIZE];
		struct os_stat st;

		segment_name(name, numbers[i]);
		if (!(err = os_stat(c->dir, name, &st)))
			(*marks)[i] = (struct mark){ numbers[i], st.size, st.inode };
	}
	return err == ERR_NOT_FOUND ? ERR_AGAIN : err;
}

/* Those that are looked at. */
static size_t marks_covered(const struct check *c, const struct mark *marks, size_t count)
{
	uint32_t last = c->covered.position ? position_segment(c->covered.position) : UINT32_MAX;

	while (count && marks[count - 1].number > last)
		count--;
	return count;
}

static bool marks_differ(const struct check *c, const struct mark *a, size_t a_count,
			 const struct mark *b, size_t b_count)
{
	size_t n = marks_covered(c, a, a_count);

	if (n != marks_covered(c, b, b_count))
		return true;
	for (size_t i = 0; i < n; i++)
		if (a[i].number != b[i].number || a[i].size != b[i].size ||
		    a[i].inode != b[i].inode)
			return true;
	return false;
}

/* What was found counts if no segment was taken away meanwhile, since before the state of the index
 * that is looked at. ERR_AGAIN: one was. */
static enum err look_online(const struct check_options *options, struct check_result *out)
{
	struct check c = { .options = options, .result = out, .dir = options->dir };
	struct mark *before = NULL, *after = NULL;
	size_t before_count = 0, after_count = 0;
	enum err err = check_begin(&c), looked = ERR_OK;

	*out = (struct check_result){ 0 };
	c.held_last = &c.held;
	if (!err)
		err = identity_check(&c);
	if (!err)
		err = marks_take(&c, &before, &before_count);
	if (!err)
		err = index_open(&c);
	if (!err)
		looked = looks_from(&c);
	if (!err)
		err = marks_take(&c, &after, &after_count);
	if (!err && (c.held || looked) &&
	    marks_differ(&c, before, before_count, after, after_count))
		err = ERR_AGAIN;
	for (const struct held *h = c.held; h && err != ERR_AGAIN; h = h->next)
		found_tell(&c, &h->finding);
	check_scratch_remove(&c);
	check_end(&c);
	return err ? err : looked;
}

static enum err check_online(const struct check_options *options, struct check_result *out)
{
	enum err err = ERR_AGAIN;

	for (unsigned i = 0; i < ONLINE_TRIES && err == ERR_AGAIN; i++)
		err = look_online(options, out);
	return err;
}

enum err store_check(const struct check_options *options, struct check_result *out)
{
	struct check c = { .options = options, .result = out, .dir = options->dir };
	int lock = -1;
	enum err err;

	if (options->is_online)
		return check_online(options, out);
	err = check_begin(&c);
	*out = (struct check_result){ 0 };
	if (!err)
		err = lock_take(&c, &lock);
	if (!err)
		err = looks(&c);
	if (!err && buf_failed(&c.fixes))
		err = ERR_NO_MEMORY;
	if (!err && options->repair && (out->damages || out->losses))
		err = check_repair(&c, &lock);
	if (err != ERR_BUSY)
		check_scratch_remove(&c);
	check_end(&c);
	os_close(lock);
	return err;
}
