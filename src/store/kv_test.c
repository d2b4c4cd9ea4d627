/* Commits and their two states, failed writes, and what is written over what. */
#include "store/kv_priv.h"

#include "base/tap.h"
#include "store/tree_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct bench {
	char path[64];
	struct kv_options options;
	struct kv *kv;
	unsigned done;
	enum err last;
};

static void on_done(void *arg, enum err err)
{
	struct bench *b = arg;

	b->done++;
	b->last = err;
}

static void bench_open(struct bench *b)
{
	if (kv_prepare(&b->options) || kv_open(&b->options, &b->kv))
		panic("bench_open");
}

static void bench_make(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	snprintf(b->path, sizeof(b->path), "/tmp/posthorn-kv-test.%d.%llx", os_pid(),
		 (unsigned long long)os_random_u64());
	b->options = (struct kv_options){ .path = b->path,
					  .segment_size = SEGMENT_SIZE_MIN,
					  .min_free = 1,
					  .checkpoint_bytes = UINT64_MAX,
					  .checkpoint_memory = UINT64_MAX,
					  .checkpoint_ns = INT64_MAX };
	if (os_mkdir(-1, b->path, 0700) ||
	    os_open(-1, b->path, OS_READ | OS_DIRECTORY, &b->options.dir))
		panic("bench_make");
	bench_open(b);
}

static void bench_end(struct bench *b)
{
	kv_close(b->kv);
	os_close(b->options.dir);
	remove_tree(b->path);
}

static void settle(struct bench *b)
{
	struct os_event e;
	unsigned n;
	int poll;

	if (os_poll_new(&poll) || os_poll_add(poll, kv_sync_fd(b->kv), b))
		panic("settle");
	while (!kv_is_idle(b->kv)) {
		kv_flush(b->kv);
		kv_sync_ready(b->kv);
		if (b->kv->is_syncing && os_poll_wait(poll, &e, 1, 10000000, &n))
			panic("settle");
	}
	os_close(poll);
}

static enum err put(struct bench *b, uint64_t number, str value)
{
	struct key k = { .n = 1, .p = { 'x' } };
	enum err err = kv_begin(b->kv, false);

	key_number(&k, number);
	if (err)
		return err;
	kv_put(b->kv, &k, value);
	return kv_end(b->kv, on_done, b);
}

static str get(struct bench *b, enum kv_state state, uint64_t number)
{
	struct key k = { .n = 1, .p = { 'x' } };
	str value;

	key_number(&k, number);
	return kv_get(b->kv, state, &k, &value) ? S("(none)") : value;
}

static void test_states(void)
{
	struct bench b;
	struct key k = { .n = 1, .p = { 'x' } };

	tap_group("states");
	bench_make(&b);
	EQ(put(&b, 1, S("one")), ERR_OK);
	STR_EQ(get(&b, KV_PENDING, 1), S("one"));
	STR_EQ(get(&b, KV_DURABLE, 1), S("(none)"));
	EQ(b.done, 0);
	kv_flush(b.kv);
	/* While it is synced, the next frame gathers. */
	EQ(put(&b, 1, S("two")), ERR_OK);
	EQ(put(&b, 2, S("other")), ERR_OK);
	STR_EQ(get(&b, KV_DURABLE, 1), S("(none)"));
	settle(&b);
	EQ(b.done, 3);
	EQ(b.kv->counts.frames, 2);
	STR_EQ(get(&b, KV_DURABLE, 1), S("two"));
	key_number(&k, 2);
	EQ(kv_begin(b.kv, true), ERR_OK);
	kv_delete(b.kv, &k);
	EQ(kv_end(b.kv, on_done, &b), ERR_OK);
	STR_EQ(get(&b, KV_PENDING, 2), S("(none)"));
	STR_EQ(get(&b, KV_DURABLE, 2), S("other"));
	settle(&b);
	STR_EQ(get(&b, KV_DURABLE, 2), S("(none)"));
	bench_end(&b);
}

static void test_undo(void)
{
	struct key k = { .n = 1, .p = { 'x' } };
	struct bench b;
	char *blob = malloc(100);

	tap_group("undo");
	bench_make(&b);
	key_number(&k, 1);
	EQ(put(&b, 1, S("kept")), ERR_OK);
	EQ(kv_begin(b.kv, false), ERR_OK);
	kv_put(b.kv, &k, S("lost"));
	memset(blob, 'b', 100);
	EQ(kv_blob(b.kv, blob, 100), 0);
	STR_EQ(get(&b, KV_PENDING, 1), S("lost"));
	kv_cancel(b.kv);
	STR_EQ(get(&b, KV_PENDING, 1), S("kept"));
	settle(&b);
	EQ(b.done, 1);
	kv_close(b.kv);
	bench_open(&b);
	STR_EQ(get(&b, KV_DURABLE, 1), S("kept"));
	bench_end(&b);
}

/* A frame that cannot be written: its clients are told, what was computed from it is gone too, and
 * the store goes on in the next segment, whose header says where this one ends. */
static void test_failed_write(void)
{
	struct bench b;
	int pipe[2];

	tap_group("failed write");
	bench_make(&b);
	EQ(put(&b, 1, S("good")), ERR_OK);
	settle(&b);
	EQ(b.last, ERR_OK);
	EQ(os_socketpair(false, pipe), ERR_OK);
	os_close(b.kv->writer.fd);
	b.kv->writer.fd = pipe[0];
	EQ(put(&b, 1, S("bad")), ERR_OK);
	EQ(put(&b, 2, S("bad as well")), ERR_OK);
	settle(&b);
	EQ(b.done, 3);
	EQ(b.last, ERR_TEMPORARY);
	STR_EQ(get(&b, KV_PENDING, 1), S("good"));
	STR_EQ(get(&b, KV_PENDING, 2), S("(none)"));
	EQ(put(&b, 3, S("after")), ERR_OK);
	settle(&b);
	EQ(b.last, ERR_OK);
	EQ(position_segment(b.kv->writer.durable), 2);
	kv_close(b.kv);
	bench_open(&b);
	STR_EQ(get(&b, KV_DURABLE, 1), S("good"));
	STR_EQ(get(&b, KV_DURABLE, 2), S("(none)"));
	STR_EQ(get(&b, KV_DURABLE, 3), S("after"));
	os_close(pipe[1]);
	bench_end(&b);
}

/* What was written in a segment behind the end that its successor names never happened, however
 * good it looks. */
static void test_abandoned(void)
{
	struct log_place end;
	struct bench b;

	tap_group("abandoned segment");
	bench_make(&b);
	EQ(put(&b, 1, S("good")), ERR_OK);
	settle(&b);
	end = b.kv->writer.place;
	EQ(put(&b, 1, S("not synced")), ERR_OK);
	kv_flush(b.kv);
	/* As after a failed sync. */
	settle(&b);
	log_writer_abandon(&b.kv->writer, &end);
	EQ(put(&b, 2, S("after")), ERR_OK);
	settle(&b);
	kv_close(b.kv);
	bench_open(&b);
	STR_EQ(get(&b, KV_DURABLE, 1), S("good"));
	STR_EQ(get(&b, KV_DURABLE, 2), S("after"));
	bench_end(&b);
}

/* Nobody's who is not root may open the folder then, but its files. */
static void folder_close(struct bench *b, bool closed)
{
	enum { NOBODY = 65534 };
	static const char *const files[] = { "log/free-0", "log/reserve", "log/00000002.seg",
					     "log" };
	bool is_root = getuid() == 0;

	if (!closed && is_root && seteuid(0))
		panic("seteuid");
	for (size_t i = 0; i < ARRAY_LEN(files) && is_root; i++)
		if (fchownat(b->options.dir, files[i], closed ? NOBODY : 0, (gid_t)-1, 0))
			panic("fchownat");
	if (fchmodat(b->options.dir, "log", closed ? 0300 : 0700, 0) ||
	    (is_root && fchmod(b->options.dir, 0711)) || (closed && is_root && seteuid(NOBODY)))
		panic("folder");
}

static uint32_t header_segment(struct bench *b, const char *name)
{
	char header[SEGMENT_HEADER_SIZE];
	struct segment_header h;
	int fd;

	if (os_open(b->options.dir, name, OS_READ, &fd))
		return 0;
	if (os_pread_all(fd, header, sizeof(header), 0) ||
	    segment_header_get(str_of(header, sizeof(header)), &h))
		h.segment = 0;
	os_close(fd);
	return h.segment;
}

/* The folder of the log cannot be synced: what is free under a name that a power cut may take back
 * is not written to. */
static void test_unsynced_names(void)
{
	const uint32_t all = SEGMENT_SIZE_MIN - SEGMENT_HEADER_SIZE;
	struct log_writer *w;
	struct bench b;

	tap_group("names that may not be on the disk");
	bench_make(&b);
	w = &b.kv->writer;
	EQ(put(&b, 1, S("in the first segment")), ERR_OK);
	settle(&b);
	EQ(log_writer_room(w, all, false), ERR_OK);
	EQ(position_segment(w->place.position), 2);
	log_writer_wrote(w, all, 0);
	EQ(log_writer_recycle(w, 1, true), ERR_OK);
	folder_close(&b, true);
	EQ(log_writer_settle(w), ERR_DENIED);
	EQ(log_writer_room(w, all, false), ERR_DENIED);
	w->has_reserve = false;
	EQ(log_writer_make_reserve(w), ERR_DENIED);
	folder_close(&b, false);
	EQ(header_segment(&b, "log/free-0"), 1);
	EQ(log_writer_room(w, all, false), ERR_OK);
	EQ(header_segment(&b, "log/free-0"), 0);
	EQ(header_segment(&b, "log/00000003.seg"), 3);
	bench_end(&b);
}

static void test_second_store(void)
{
	struct kv *other;
	struct bench b;

	tap_group("one at a time");
	bench_make(&b);
	EQ(kv_open(&b.options, &other), ERR_BUSY);
	bench_end(&b);
}

/* Ordered reading over index and both overlays. */
static void test_cursor(void)
{
	struct kv_cursor c;
	struct bench b;
	struct buf got;
	uint64_t position;
	str key, value;

	tap_group("cursor");
	bench_make(&b);
	buf_init(&got, 1024);
	for (uint64_t i = 1; i <= 9; i += 2)
		EQ(put(&b, i, S("a")), ERR_OK);
	settle(&b);
	kv_close(b.kv);
	bench_open(&b); /* all but the last frame are in the index now */
	EQ(put(&b, 3, S("b")), ERR_OK);
	EQ(put(&b, 4, S("b")), ERR_OK);
	settle(&b);
	OK(kv_checkpoint_due(b.kv, os_monotonic_ns(), true, &position));
	EQ(put(&b, 4, S("c")), ERR_OK);
	EQ(put(&b, 2, S("c")), ERR_OK);
	settle(&b);
	EQ(put(&b, 9, S("pending")), ERR_OK);
	EQ(kv_cursor_open(b.kv, KV_DURABLE, S("x"), S("x\1\2"), false, &c), ERR_OK);
	while (kv_cursor_next(&c, &key, &value) == ERR_OK)
		buf_printf(&got, "%d%.*s ", key.p[2], STR_ARGS(value));
	kv_cursor_close(&c);
	STR_EQ(buf_str(&got), S("2c 3b 4c 5a 7a 9a "));
	settle(&b);
	buf_free(&got);
	bench_end(&b);
}

int main(void)
{
	test_states();
	test_undo();
	test_failed_write();
	test_abandoned();
	test_unsynced_names();
	test_second_store();
	test_cursor();
	return tap_done();
}
