/* Large bodies are taken in beside everything else: small deliveries pass them, and whoever gives
 * up leaves nothing behind. */
#include "store/engine_fake.h"

enum { LARGE = 900 * 1024, TURNS = LARGE / BODY_CHUNK };

struct answer {
	unsigned count;
	enum err err;
};

static void on_answer(void *arg, enum err err, const struct msg_st_commit_reply *reply UNUSED)
{
	struct answer *a = arg;

	a->count++;
	a->err = err;
}

static int large_body(char **text)
{
	int fd;

	*text = malloc(LARGE);
	for (size_t i = 0; i < LARGE; i++)
		(*text)[i] = (char)(i * 7 + i / 1000);
	EQ(os_memfd(str_of(*text, LARGE), true, &fd), ERR_OK);
	return fd;
}

static enum err append_begin(struct bench *b, int fd, str text, struct answer *a)
{
	struct msg_st_append in = { .mailbox = 1,
				    .size = fd < 0 ? text.n : LARGE,
				    .body = fd < 0 ? 0 : fd,
				    .inline_body = text,
				    .has_parse = true,
				    .envelope = S("ENVELOPE") };

	*a = (struct answer){ 0 };
	return store_append(b->store, 1, &in, on_answer, a);
}

static size_t body_files(struct bench *b)
{
	struct arena *a = arena_new(1 << 20);
	size_t count = 0;
	str *names;
	int fd;

	EQ(os_open(b->dir, "body", OS_READ | OS_DIRECTORY, &fd), ERR_OK);
	EQ(os_list(fd, a, &names, &count), ERR_OK);
	os_close(fd);
	arena_free(a);
	return count;
}

static void test_passing(struct bench *b, int fd, char *text)
{
	struct answer large[2], small;

	tap_group("a small delivery passes a large one");
	EQ(append_begin(b, fd, STR_EMPTY, &large[0]), ERR_OK);
	EQ(append_begin(b, fd, STR_EMPTY, &large[1]), ERR_OK);
	store_flush(b->store);
	EQ(append_begin(b, -1, S("small"), &small), ERR_OK);
	store_flush(b->store);
	/* Its own sync is all that it waits for: the large ones have had two turns of thirty. */
	while (!small.count)
		store_sync_ready(b->store);
	EQ(large[0].count + large[1].count, 0);
	EQ(small.err, ERR_OK);
	OK(store_wants_turn(b->store));
	OK(body_is(b, 1, 1, 1, S("small"), S("")));
	EQ(store_settle(b->store), ERR_OK);
	EQ(large[0].count + large[1].count, 2);
	EQ(large[0].err, ERR_OK);
	EQ(large[1].err, ERR_OK);
	OK(body_is(b, 1, 1, 2, str_of(text, LARGE), S("")));
	OK(body_is(b, 1, 1, 3, str_of(text, LARGE), S("")));
	EQ(body_files(b), 2);
	OK(survives(b));
}

static void test_refused(struct bench *b, int fd)
{
	struct answer a;

	tap_group("a refusal comes when the body is there");
	EQ(append_begin(b, fd, STR_EMPTY, &a), ERR_OK);
	EQ(settled(b, store_set_quota(b->store, 1, 3 * LARGE - 1, on_done, b)), ERR_OK);
	EQ(a.count, 1);
	EQ(a.err, ERR_QUOTA);
	EQ(body_files(b), 2);
	EQ(settled(b, store_set_quota(b->store, 1, 0, on_done, b)), ERR_OK);
}

static void body_part(struct bench *b, int fd, uint64_t txn)
{
	const struct msg_txn_body in = { .txn = txn, .size = LARGE, .body = fd, .rcpts = 1 };

	EQ(store_txn_body(b->store, &in, on_txn, b), ERR_OK);
	EQ(store_txn_body(b->store, &in, on_txn, b), ERR_PROTOCOL); /* one is enough */
}

static void test_transactions(struct bench *b, int fd, char *text)
{
	const uint64_t to[] = { 1 };

	tap_group("transactions");
	b->code = 0;
	b->done = 0;
	part(b, 'e', 7, str_of(text, LARGE), to, 1);
	body_part(b, fd, 7);
	part(b, 'v', 7, str_of(text, LARGE), to, 1);
	EQ(b->done, 0);
	EQ(store_settle(b->store), ERR_OK);
	EQ(b->code, 250);
	EQ(body_files(b), 3);
	tap_group("not what was judged");
	body_part(b, fd, 8);
	part(b, 'v', 8, S("something else"), to, 1);
	part(b, 'e', 8, S(""), to, 1);
	EQ(store_settle(b->store), ERR_OK);
	EQ(b->code, 451);
	tap_group("cancelled at any moment");
	b->done = 0;
	for (unsigned turns = 0; turns < 3 * TURNS; turns++) {
		body_part(b, fd, 100 + turns);
		for (unsigned i = 0; i < turns; i++) {
			store_flush(b->store);
			store_sync_ready(b->store);
		}
		store_txn_cancel(b->store, 100 + turns);
	}
	EQ(store_settle(b->store), ERR_OK);
	EQ(b->done, 0);
	EQ(body_files(b), 3);
}

/* The store is closed, or killed, while one is on its way. */
static void test_closed(struct bench *b, int fd)
{
	struct answer a, other;

	tap_group("closed meanwhile");
	EQ(append_begin(b, fd, STR_EMPTY, &a), ERR_OK);
	EQ(append_begin(b, fd, STR_EMPTY, &other), ERR_OK);
	body_part(b, fd, 9);
	for (unsigned i = 0; i < TURNS + 3; i++)
		store_flush(b->store);
	EQ(body_files(b), 3 + 3);
	bench_reopen(b);
	EQ(a.count, 1);
	EQ(a.err, ERR_CLOSED);
	EQ(other.count, 1);
	EQ(other.err, ERR_CLOSED);
	EQ(body_files(b), 3);
}

int main(void)
{
	struct bench b;
	char *text;
	int fd = large_body(&text);

	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	test_passing(&b, fd, text);
	test_refused(&b, fd);
	test_transactions(&b, fd, text);
	test_closed(&b, fd);
	bench_end(&b);
	os_close(fd);
	free(text);
	return tap_done();
}
