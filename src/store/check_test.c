/* fsck on stores of several small segments: what is damaged is found, what only seems lost comes
 * back, and after a repair the store is whole and serves what it should. */
#include "store/check.h"
#include "store/engine_fake.h"
#include "store/log_dump.h"
#include "store/log_priv.h"

#include <stdarg.h>

enum { ACCOUNTS = 3, MESSAGES = 160, TEXT_SIZE = 60000, RANDOM_ROUNDS = 25 };

static int PRINTF_LIKE(3, 4) say(bool good, int line, const char *fmt, ...)
{
	char what[200];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	return tap_check(good, what, "check_test.c", line);
}
#define SAY(good, ...) say((good), __LINE__, __VA_ARGS__)

struct seen {
	struct check_result result;
	char words[8192];
};

static void on_found(void *arg, const struct check_finding *f)
{
	struct seen *s = arg;
	size_t n = strlen(s->words);

	snprintf(s->words + n, sizeof(s->words) - n, "%s %.*s %u\n", f->what, STR_ARGS(f->file),
		 f->uid);
}

/* LMDB can die of a bad page, and then a child does: as in the command. */
struct judge {
	struct bench *bench;
	int fd;
};

static void judge(void *arg)
{
	struct judge *j = arg;
	struct buf identity;
	enum err err;

	os_close(2);
	buf_init(&identity, 256);
	err = store_check_index(j->bench->dir, j->bench->path, &identity);
	if (os_write_all(j->fd, err ? S("b") : S("g")) || os_write_all(j->fd, buf_str(&identity)))
		os_exit(1);
	os_exit(0);
}

static size_t judged(struct bench *b, char *answer, size_t room)
{
	int fd[2], pid, status;
	size_t n = 0, got;
	enum err err = os_socketpair(false, fd);

	if (err || os_fork(judge, &(struct judge){ b, fd[1] }, &pid))
		panic("fork");
	os_close(fd[1]);
	while (!os_wait_readable(fd[0], -1) && !os_read(fd[0], answer + n, room - n, &got) && got)
		n += got;
	os_close(fd[0]);
	while (os_reap(&pid, &status) == ERR_AGAIN)
		;
	return n;
}

static enum err look(struct bench *b, bool repair, struct seen *s)
{
	char answer[256];
	size_t n = judged(b, answer, sizeof(answer));
	struct check_options o = { .dir = b->dir,
				   .path = b->path,
				   .repair = repair,
				   .has_index_verdict = true,
				   .index_is_sound = n && answer[0] == 'g',
				   .index_identity = n ? str_of(answer + 1, n - 1) : STR_EMPTY,
				   .found = on_found,
				   .arg = s };

	memset(s, 0, sizeof(*s));
	return store_check(&o, &s->result);
}

static bool said(const struct seen *s, const char *what)
{
	return strstr(s->words, what) != NULL;
}

static bool is_clean(struct bench *b, struct seen *s)
{
	bool clean = look(b, false, s) == ERR_OK && !s->result.damages && !s->result.losses;

	if (!clean)
		printf("# %s\n", s->words);
	return clean;
}

/* A text that says whose it is, so that any mix-up shows. */
static str text_of(char *room, uint64_t account, uint32_t uid)
{
	size_t n = 200 + (account * 7919 + uid * 104729) % (TEXT_SIZE - 200);

	if (uid % 29 == 0)
		n = TEXT_SIZE * 3; /* in a file of its own */
	for (size_t i = 0; i < n; i++)
		room[i] = (char)('a' + (i * 31 + account * 17 + uid * 13) % 26);
	return str_of(room, n);
}

static void fill(struct bench *b, char *room)
{
	uint32_t uids[ACCOUNTS + 1] = { 0 };
	struct buf r;

	buf_init(&r, 1024);
	bench_make(b);
	for (uint64_t a = 1; a <= ACCOUNTS; a++)
		if (bind_account(b, a))
			panic("bind");
	for (uint32_t i = 0; i < MESSAGES; i++) {
		uint64_t a = 1 + i % ACCOUNTS;

		if (append(b, a, 1, text_of(room, a, ++uids[a]), 0))
			panic("append");
		if (i == MESSAGES / 2 && store_checkpoint(b->store))
			panic("checkpoint");
	}
	if (COMMIT(b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&r, 2, 4)) ||
	    COMMIT(b, 2, .op = STORE_OP_FLAGS, .mailbox = 1, .mode = 1, .flags0 = MSG_FLAG_SEEN,
		   .uids = RANGES(&r, 5, 9)) ||
	    COMMIT(b, 3, .op = STORE_OP_COPY, .mailbox = 1, .target = 3,
		   .uids = RANGES(&r, 1, 3)) ||
	    store_checkpoint(b->store))
		panic("changes");
	buf_free(&r);
}

/* Most messages go, some of them to be recovered for a while; what is left is moved together and
 * compressed. */
static void compact(struct bench *b)
{
	struct store_limits limits = { .percent = 90, .compress_us = 1, .keep_us = 3600000000 };
	struct buf r;

	buf_init(&r, 1024);
	for (uint64_t a = 1; a <= ACCOUNTS; a++) {
		store_set_limits(b->store, &limits);
		if (COMMIT(b, a, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&r, 12, 30)))
			panic("expunge");
		limits.keep_us = 0;
	}
	if (store_checkpoint(b->store) || store_compact(b->store))
		panic("compact");
	buf_free(&r);
}

static void closed(struct bench *b)
{
	store_close(b->store);
	b->store = NULL;
}

/* The text alone: what was kept of the headers may be gone. */
static bool text_is(struct bench *b, uint64_t account, uint32_t uid, str want)
{
	struct msg_st_rows in = {
		.mailbox = 1, .uid_from = uid, .uid_to = uid, .columns = ROW_LOCATION
	};
	struct body_cipher *c = body_cipher_new();
	struct msg_st_rows_reply out;
	struct rec_body_location at;
	struct rec_row row;
	char *got = malloc(want.n);
	bool same = store_rows(b->store, account, &in, &b->reply, &out) == ERR_OK &&
		    rec_row_get(&out.rows, &row) == ERR_OK &&
		    rec_body_location_get(&row.location, &at) == ERR_OK;
	int fd = -1;

	same = same && at.size == want.n &&
	       store_segment(b->store, at.segment, row.body, &fd) == ERR_OK &&
	       body_read(c, fd, &at, 0, want.n, got) == ERR_OK && str_eq(str_of(got, want.n), want);
	os_close(fd);
	free(got);
	body_cipher_free(c);
	return same;
}

/* How many messages of INBOX are there and right. *wrong: there, and not to be read. */
static unsigned served(struct bench *b, char *room, unsigned *wrong)
{
	struct msg_st_rows_reply out;
	unsigned count = 0;

	*wrong = 0;
	for (uint64_t a = 1; a <= ACCOUNTS; a++) {
		for (uint32_t uid = 1; uid <= MESSAGES; uid++) {
			struct msg_st_rows in = { .mailbox = 1, .uid_from = uid, .uid_to = uid };
			enum err err = store_rows(b->store, a, &in, &b->reply, &out);

			if (err || out.rows.n == 0)
				continue;
			if (text_is(b, a, uid, text_of(room, a, uid)))
				count++;
			else
				(*wrong)++;
		}
	}
	return count;
}

static void flip(struct bench *b, const char *name, uint64_t at)
{
	char byte;
	int fd;

	if (os_open(b->dir, name, OS_READ | OS_WRITE, &fd) || os_pread_all(fd, &byte, 1, at))
		panic("flip %s", name);
	byte = (char)(byte ^ 0x41);
	if (os_pwrite_all(fd, str_of(&byte, 1), at))
		panic("flip %s", name);
	os_close(fd);
}

static uint64_t size_of(struct bench *b, const char *name)
{
	struct os_stat st;

	return os_stat(b->dir, name, &st) ? 0 : st.size;
}

/* ---- one damage each ---- */

struct damage {
	const char *what, *word; /* that fsck must say */
	void (*act)(struct bench *b);
	bool keeps_all; /* nothing is lost, and the store is as it was, to the byte */
	bool loses;	/* some messages */
};

static void header(struct bench *b)
{
	flip(b, "log/00000002.seg", 50);
}

static void first_header(struct bench *b)
{
	flip(b, "log/00000001.seg", 3);
}

static void records(struct bench *b)
{
	flip(b, "log/00000002.seg", SEGMENT_HEADER_SIZE + FRAME_HEADER_SIZE + 20);
}

static void frame_header(struct bench *b)
{
	flip(b, "log/00000002.seg", SEGMENT_HEADER_SIZE + 17);
}

static void text(struct bench *b)
{
	flip(b, "log/00000002.seg", SEGMENT_HEADER_SIZE + 3000);
}

static void missing(struct bench *b)
{
	if (os_unlink(b->dir, "log/00000002.seg"))
		panic("unlink");
}

static void last_missing(struct bench *b)
{
	struct arena *a = arena_new(1024 * 1024);
	char name[SEGMENT_NAME_SIZE];
	uint32_t *numbers;
	size_t n;

	if (segment_list(b->dir, a, &numbers, &n))
		panic("list");
	segment_name(name, numbers[n - 1]);
	if (os_unlink(b->dir, name))
		panic("unlink");
	arena_free(a);
}

/* The last one that the index covers: what a later frame replaces must not come back from there. */
static void last_covered(struct bench *b)
{
	struct arena *a = arena_new(1024 * 1024);
	char name[SEGMENT_NAME_SIZE], magic[4];
	uint64_t last = 0, before = 0, size;
	uint32_t *numbers;
	size_t n;
	int fd;

	if (segment_list(b->dir, a, &numbers, &n))
		panic("list");
	segment_name(name, numbers[n - 1]);
	size = size_of(b, name);
	if (os_open(b->dir, name, OS_READ, &fd))
		panic("open");
	for (uint64_t at = SEGMENT_HEADER_SIZE; at < size; at += LOG_BLOCK) {
		if (os_pread_all(fd, magic, sizeof(magic), at) || memcmp(magic, "PHFR", 4) != 0)
			continue;
		before = last;
		last = at;
	}
	os_close(fd);
	arena_free(a);
	flip(b, name, before + FRAME_HEADER_SIZE + 5);
}

static void cut(struct bench *b)
{
	int fd;

	if (os_open(b->dir, "log/00000002.seg", OS_WRITE, &fd) || os_truncate(fd, 500000))
		panic("cut");
	os_close(fd);
}

static void identities(struct bench *b)
{
	if (os_unlink(b->dir, "identity") || os_unlink(b->dir, "log/identity"))
		panic("unlink");
}

static void index_cut(struct bench *b)
{
	int fd;

	if (os_open(b->dir, "index/data.mdb", OS_WRITE, &fd) || os_truncate(fd, 20000))
		panic("cut");
	os_close(fd);
}

static void index_gone(struct bench *b)
{
	if (os_unlink(b->dir, "index/data.mdb"))
		panic("unlink");
}

static void records_and_index(struct bench *b)
{
	records(b);
	index_gone(b);
}

static const struct damage damages[] = {
	{ "a segment's header", "segment-header", header, true, false },
	{ "the first segment's header", "segment-header", first_header, true, false },
	{ "records that the index has", "index-knows-more", records, true, false },
	{ "the last frame of the index", "index-knows-more", last_covered, true, false },
	{ "a frame's header, with its records in the index", "frames", frame_header, true, false },
	{ "a text", "message ", text, false, true },
	{ "a segment missing", "segment-missing", missing, false, true },
	{ "the last segment missing", "segment-missing", last_missing, false, true },
	{ "a segment cut", "segment-short", cut, false, true },
	{ "both identities missing", "identity", identities, true, false },
	{ "the index cut", "index ", index_cut, true, false },
	{ "records, without an index", "record-lost", records_and_index, false, true },
};

static void test_damage(const struct damage *d, char *room)
{
	struct bench b;
	struct seen s;
	unsigned before, after, wrong;
	char *was = NULL, *is = NULL;

	fill(&b, room);
	if (append(&b, 3, 1, text_of(room, 3, MESSAGES / 3 + 1), 0)) /* behind the index */
		panic("append");
	before = served(&b, room, &wrong);
	was = dump(&b);
	closed(&b);
	d->act(&b);
	SAY(look(&b, false, &s) == ERR_OK && (s.result.damages || s.result.losses) &&
		    said(&s, d->word),
	    "%s: found", d->what);
	if (!said(&s, d->word))
		printf("# %s\n", s.words);
	SAY(d->loses == (s.result.losses > 0), "%s: %u losses", d->what, s.result.losses);
	SAY(look(&b, true, &s) == ERR_OK && s.result.aside[0], "%s: repaired, with originals aside",
	    d->what);
	SAY(is_clean(&b, &s), "%s: clean", d->what);
	bench_open(&b);
	after = served(&b, room, &wrong);
	if (d->loses)
		SAY(after < before && after > 0 && !wrong, "%s: %u of %u messages are left",
		    d->what, after, before);
	else
		SAY(after == before && !wrong, "%s: all %u messages are there", d->what, before);
	is = dump(&b);
	SAY(!d->keeps_all || strcmp(was, is) == 0, "%s: %s", d->what,
	    d->keeps_all ? "all is as it was" : "changed");
	SAY(append(&b, 1, 1, S("new"), 0) == ERR_OK, "%s: mail goes in", d->what);
	closed(&b);
	SAY(is_clean(&b, &s), "%s: clean with new mail", d->what);
	free(was);
	free(is);
	bench_end(&b);
}

/* ---- many at once ---- */

static void spoil(struct bench *b, uint64_t *state)
{
	struct arena *a = arena_new(1024 * 1024);
	char name[SEGMENT_NAME_SIZE];
	uint32_t *numbers;
	size_t n;
	int fd;

	if (segment_list(b->dir, a, &numbers, &n))
		panic("list");
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	segment_name(name, numbers[(*state >> 33) % n]);
	switch ((*state >> 50) % 8) {
	case 0:
		if (size_of(b, "index/data.mdb"))
			flip(b, "index/data.mdb", (*state >> 20) % size_of(b, "index/data.mdb"));
		break;
	case 1:
		if (os_open(b->dir, name, OS_WRITE, &fd) ||
		    os_truncate(fd, SEGMENT_HEADER_SIZE + 1 + (*state >> 20) % 900000))
			panic("cut");
		os_close(fd);
		break;
	case 2:
		if (n > 2 && os_unlink(b->dir, name))
			panic("unlink");
		break;
	case 3:
		flip(b, name, (*state >> 20) % 104);
		break;
	default:
		flip(b, name, (*state >> 20) % size_of(b, name));
		break;
	}
	arena_free(a);
}

static void test_random(unsigned seed, char *room)
{
	uint64_t state = seed;
	struct bench b;
	struct seen s;
	unsigned wrong;

	fill(&b, room);
	if (seed % 2)
		compact(&b);
	closed(&b);
	if (!is_clean(&b, &s) || !s.result.index_matches)
		SAY(false, "seed %u: clean before", seed);
	for (unsigned i = 0; i <= seed % 4; i++)
		spoil(&b, &state);
	if (!SAY(look(&b, true, &s) == ERR_OK && is_clean(&b, &s), "seed %u: repaired", seed))
		return;
	bench_open(&b);
	(void)served(&b, room, &wrong);
	SAY(wrong == 0, "seed %u: what is there is right", seed);
	closed(&b);
	bench_end(&b);
}

static void on_line(void *arg, str text)
{
	struct buf *b = arg;

	buf_add(b, text);
}

static void test_dump(char *room)
{
	struct log_dump_options o = { .out = on_line };
	struct bench b;
	struct buf text;
	str s;

	buf_init(&text, 16 * 1024 * 1024);
	fill(&b, room);
	o.dir = b.dir;
	o.arg = &text;
	SAY(store_log_dump(&o) == ERR_OK, "the log is shown");
	s = buf_str(&text);
	SAY(str_find(s, S("segment log/00000002.seg\nframe 00000002:4096 ")) != STR_NONE &&
		    str_find(s, S(" put A 1 address=\"a@example.test\" ")) != STR_NONE &&
		    str_find(s, S(" delete R 1 1 3\n")) != STR_NONE &&
		    str_find(s, S("not understood")) == STR_NONE,
	    "segments, frames, records by name");
	buf_clear(&text);
	o.account = 2;
	o.kinds = S("R");
	SAY(store_log_dump(&o) == ERR_OK &&
		    str_find(buf_str(&text), S(" put R 2 1 1 ")) != STR_NONE &&
		    str_find(buf_str(&text), S(" R 1 ")) == STR_NONE &&
		    str_find(buf_str(&text), S(" put M ")) == STR_NONE,
	    "one account's rows alone");
	o.account = 0;
	o.address = S("nobody@example.test");
	SAY(store_log_dump(&o) == ERR_NOT_FOUND, "an address that nobody has");
	buf_free(&text);
	bench_end(&b);
}

int main(void)
{
	char *room = malloc((size_t)TEXT_SIZE * 3);
	struct bench b;
	struct seen s;

	fill(&b, room);
	SAY(look(&b, false, &s) == ERR_BUSY, "a store that is open is not looked at");
	closed(&b);
	SAY(is_clean(&b, &s) && s.result.index_matches && s.result.messages == MESSAGES - 3 + 3 &&
		    s.result.segments > 2,
	    "a sound store: nothing is found, and its index equals its rebuild");
	bench_end(&b);
	for (size_t i = 0; i < ARRAY_LEN(damages); i++)
		test_damage(&damages[i], room);
	for (unsigned seed = 1; seed <= RANDOM_ROUNDS; seed++)
		test_random(seed, room);
	test_dump(room);
	free(room);
	return tap_done();
}
