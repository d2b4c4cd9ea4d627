/* What is lost around the store: its identity, its index, a segment; and what must not come of it.
 */
#include "store/engine_fake.h"
#include "store/store_priv.h"

#include <sched.h>
#include <sys/resource.h>

struct witness {
	struct log log;
	int fd;
};

static void witness_make(struct bench *b, struct witness *w)
{
	if (os_open(b->dir, "test.log", OS_READ | OS_WRITE | OS_CREATE | OS_TRUNCATE, &w->fd))
		panic("witness_make");
	log_init(&w->log, LOG_TO_STDERR, LOG_LEVEL_INFO, "test");
	w->log.fd = w->fd;
	b->options.log = &w->log;
}

static void witness_end(struct bench *b, struct witness *w)
{
	b->options.log = NULL;
	os_close(w->fd);
}

static bool says(const struct witness *w, const char *what)
{
	char text[32768];
	size_t n = 0;

	if (os_pread(w->fd, text, sizeof(text) - 1, 0, &n) && n == 0)
		return false;
	text[n] = 0;
	return strstr(text, what) != NULL;
}

static void file_flip(struct bench *b, const char *name, uint64_t at)
{
	char c;
	int fd;

	if (os_open(b->dir, name, OS_READ | OS_WRITE, &fd) || os_pread_all(fd, &c, 1, at))
		panic("file_flip");
	c = (char)(c ^ 0x5a);
	if (os_pwrite_all(fd, str_of(&c, 1), at))
		panic("file_flip");
	os_close(fd);
}

static void file_remove(struct bench *b, const char *name)
{
	if (os_unlink(b->dir, name))
		panic("file_remove");
}

static bool file_is_there(struct bench *b, const char *name)
{
	struct os_stat st;

	return os_stat(b->dir, name, &st) == ERR_OK;
}

/* A bench with one account and two messages, closed. */
static void closed_bench(struct bench *b, bool checkpointed)
{
	bench_make(b);
	EQ(bind_account(b, 1), ERR_OK);
	EQ(append(b, 1, 1, S("first"), 0), ERR_OK);
	EQ(append(b, 1, 1, S("second"), MSG_FLAG_SEEN), ERR_OK);
	if (checkpointed)
		EQ(store_checkpoint(b->store), ERR_OK);
	store_close(b->store);
	b->store = NULL;
}

static bool mail_is_there(struct bench *b)
{
	return rows_are(b, 1, 1, 0, "1:0 2:1") && body_is(b, 1, 1, 1, S("first"), S("")) &&
	       body_is(b, 1, 1, 2, S("second"), S(""));
}

/* Each copy of the key lost or spoilt: the store finds another, says so by name, and makes the copy
 * again. */
static void test_identity(void)
{
	static const char *const files[] = { "identity", "log/identity" };
	struct witness w;
	struct bench b;

	tap_group("identity");
	closed_bench(&b, true);
	for (size_t i = 0; i < 2; i++) {
		witness_make(&b, &w);
		file_remove(&b, files[i]);
		bench_open(&b);
		OK(says(&w, "store-identity-damaged") && says(&w, files[i]));
		OK(mail_is_there(&b));
		OK(file_is_there(&b, files[i]));
		store_close(b.store);
		witness_end(&b, &w);
		witness_make(&b, &w);
		file_flip(&b, files[i], 30);
		bench_open(&b);
		OK(says(&w, "store-identity-damaged") && says(&w, files[i]));
		OK(mail_is_there(&b));
		store_close(b.store);
		witness_end(&b, &w);
	}
	/* Both files gone: the index has it. */
	file_remove(&b, "identity");
	file_flip(&b, "log/identity", 63);
	bench_open(&b);
	OK(mail_is_there(&b));
	OK(survives(&b));
	bench_end(&b);
}

/* Without any copy there is no new store beside the old one's segments, not even when the first was
 * given back. */
static void test_identity_lost(void)
{
	struct witness w;
	struct bench b;

	tap_group("identity lost");
	closed_bench(&b, true);
	file_remove(&b, "identity");
	file_remove(&b, "log/identity");
	index_delete(&b);
	if (os_rename(b.dir, "log/00000001.seg", "log/00000007.seg"))
		panic("rename");
	witness_make(&b, &w);
	EQ(store_prepare(&b.options), ERR_DAMAGED);
	OK(says(&w, "store-identity-lost"));
	OK(!file_is_there(&b, "identity"));
	witness_end(&b, &w);
	bench_end(&b);
}

/* Of two stores' identities, the one that wrote the segments is right. */
static void test_identity_foreign(void)
{
	struct bench b, other;
	char bytes[64];
	int fd;

	tap_group("identity of another store");
	closed_bench(&b, false);
	closed_bench(&other, false);
	if (os_open(other.dir, "identity", OS_READ, &fd) ||
	    os_pread_all(fd, bytes, sizeof(bytes), 0))
		panic("identity");
	os_close(fd);
	if (os_open(b.dir, "identity", OS_WRITE, &fd) ||
	    os_pwrite_all(fd, str_of(bytes, sizeof(bytes)), 0))
		panic("identity");
	os_close(fd);
	bench_open(&b);
	OK(mail_is_there(&b));
	bench_end(&b);
	bench_end(&other);
}

enum look { LOOK_GOOD, LOOK_DAMAGED, LOOK_WRONG };

/* In a process of its own, because LMDB may die of a bad page (store_steady is for that). */
static enum look look(struct bench *b)
{
	struct msg_st_rows in = { .mailbox = 1,
				  .uid_from = 1,
				  .uid_to = UINT32_MAX,
				  .columns = ROW_COLD | ROW_LOCATION };
	struct msg_st_rows_reply out;
	enum err err = store_prepare(&b->options);

	if (!err)
		err = store_open(&b->options, &b->store);
	if (err)
		return err == ERR_DAMAGED ? LOOK_DAMAGED : LOOK_WRONG;
	err = store_rows(b->store, 1, &in, &b->reply, &out);
	if (err == ERR_DAMAGED)
		return store_index_is_damaged(b->store) ? LOOK_DAMAGED : LOOK_WRONG;
	return !err && mail_is_there(b) ? LOOK_GOOD : LOOK_WRONG;
}

static void look_and_exit(void *b)
{
	os_close(2);
	os_exit(look(b));
}

static enum look look_apart(struct bench *b)
{
	int pid, status = 0;

	fflush(stdout);
	if (os_fork(look_and_exit, b, &pid))
		panic("fork");
	while (os_reap(&pid, &status) == ERR_AGAIN)
		sched_yield();
	return status > LOOK_WRONG ? LOOK_DAMAGED : (enum look)status;
}

/* How much of the index's file is in use: behind that it is a hole. */
static uint64_t index_used(struct bench *b)
{
	uint64_t used;

	bench_open(b);
	used = index_size(b->store->kv->index);
	store_close(b->store);
	return used;
}

/* Every byte of the index may go bad (each 97th is tried): nothing wrong is ever served. Either it
 * was not looked at, or the store says ERR_DAMAGED (or LMDB dies); and the next start has
 * everything again. */
static void test_index_flips(void)
{
	static const char name[] = "index/data.mdb";
	struct bench b;
	struct os_stat st;
	uint64_t used;
	unsigned wrong = 0, found = 0;

	tap_group("spoilt index");
	closed_bench(&b, true);
	used = index_used(&b);
	/* Longer than what it holds, so that one that was cut is known. */
	OK(os_stat(b.dir, name, &st) == ERR_OK && st.size > used);
	/* The first two pages are LMDB's description, of which the older is not looked at. */
	for (uint64_t at = 8192; at < used; at += 97) {
		enum look seen;

		file_flip(&b, name, at);
		seen = look_apart(&b);
		found += seen == LOOK_DAMAGED;
		wrong += seen == LOOK_WRONG;
		if (seen == LOOK_DAMAGED)
			kv_condemn_index(b.dir, NULL);
		else
			index_delete(&b); /* the same file for each */
		bench_open(&b);
		wrong += !mail_is_there(&b) || store_checkpoint(b.store) != ERR_OK;
		store_steady(b.store);
		used = index_size(b.store->kv->index);
		store_close(b.store);
	}
	EQ(wrong, 0);
	OK(found > 2);
	bench_open(&b);
	bench_end(&b);
}

/* The helper's full check finds what nobody has read yet. */
static void test_index_check(void)
{
	struct store_index *x;
	struct bench b;
	struct os_stat st;
	unsigned unfound = 0, tried = 0;

	tap_group("check of the index");
	closed_bench(&b, true);
	bench_open(&b);
	store_close(b.store);
	EQ(store_index_open(&b.options, &x), ERR_OK);
	EQ(store_index_check(x), ERR_OK);
	store_index_close(x);
	EQ(os_stat(b.dir, "index/data.mdb", &st), ERR_OK);
	for (uint64_t at = 8192; at < st.size; at += 4096) {
		char page[4096], *value;
		int fd;

		/* A byte of a value: every value of the account's mailboxes has a name in it. */
		if (os_open(b.dir, "index/data.mdb", OS_READ, &fd) ||
		    os_pread_all(fd, page, sizeof(page), at))
			panic("page");
		os_close(fd);
		value = memmem(page, sizeof(page), "Drafts", 6);
		if (!value)
			continue;
		file_flip(&b, "index/data.mdb", at + (uint64_t)(value - page));
		tried++;
		if (store_index_open(&b.options, &x) == ERR_OK) {
			unfound += store_index_check(x) != ERR_DAMAGED;
			store_index_close(x);
		}
		file_flip(&b, "index/data.mdb", at + (uint64_t)(value - page));
	}
	OK(tried > 0);
	/* LMDB keeps the page before as well, which nothing refers to any more. */
	OK(unfound < tried);
	bench_open(&b);
	bench_end(&b);
}

/* The helper must not make an index while a store reads the one that was there: that store would go
 * back to what it said, and give UIDs again. */
static void test_index_removed(void)
{
	struct store_index *x = NULL;
	struct bench b;

	tap_group("index removed while it runs");
	closed_bench(&b, true);
	bench_open(&b);
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	index_delete(&b);
	EQ(store_index_open(&b.options, &x), ERR_NOT_FOUND);
	OK(!file_is_there(&b, "index/data.mdb"));
	OK(rows_are(&b, 1, 1, 0, "1:0 2:1 3:0"));
	store_index_condemn(b.store);
	bench_reopen(&b);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:1 3:0"));
	OK(survives(&b));
	bench_end(&b);
}

/* A store that ends each time before it was steady gets another index. */
static void test_attempts(void)
{
	struct witness w;
	struct bench b;

	tap_group("died again and again");
	closed_bench(&b, true);
	bench_open(&b);
	store_steady(b.store);
	store_close(b.store);
	witness_make(&b, &w);
	for (int i = 0; i < 3; i++) {
		bench_open(&b);
		OK(!says(&w, "died-again-and-again"));
		store_close(b.store);
	}
	bench_open(&b);
	OK(says(&w, "died-again-and-again"));
	OK(mail_is_there(&b));
	witness_end(&b, &w);
	bench_end(&b);
}

/* The last segment is taken away. What the index knows stays, the loss is said by name, and no UID
 * is given again. */
static void test_segment_missing(void)
{
	struct witness w;
	struct bench b;

	tap_group("segment missing");
	closed_bench(&b, true);
	file_remove(&b, "log/00000001.seg");
	witness_make(&b, &w);
	bench_open(&b);
	OK(says(&w, "store-damaged") && says(&w, "00000001.seg"));
	OK(rows_are(&b, 1, 1, 0, "1:0 2:1"));
	OK(!body_is(&b, 1, 1, 1, S("first"), S("")));
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:1 3:0"));
	OK(body_is(&b, 1, 1, 3, S("third"), S("")));
	bench_reopen(&b);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:1 3:0"));
	witness_end(&b, &w);
	bench_end(&b);
}

/* One in the middle: named, and what is behind it is there. */
static void test_segment_gap(void)
{
	static char body[200 * 1024];
	struct witness w;
	struct bench b;

	tap_group("segment missing in the middle");
	memset(body, 'b', sizeof(body));
	bench_make(&b);
	b.options.segment_size = 256 * 1024;
	bench_reopen(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	for (int i = 0; i < 80; i++)
		EQ(append(&b, 1, 1, str_of(body, 30000), 0), ERR_OK);
	store_close(b.store);
	file_remove(&b, "log/00000003.seg");
	index_delete(&b);
	witness_make(&b, &w);
	bench_open(&b);
	OK(says(&w, "log/00000003.seg"));
	OK(body_is(&b, 1, 1, 80, str_of(body, 30000), S("")));
	OK(body_is(&b, 1, 1, 1, str_of(body, 30000), S("")));
	witness_end(&b, &w);
	bench_end(&b);
}

/* The next segment has its name, but its directory could not be synced: nothing may go into the one
 * before, because the new one's header says that it ended. */
static void test_half_made_segment(void)
{
	static char body[30000];
	struct rlimit old, few;
	struct bench b;
	int holes[40];

	tap_group("half-made segment");
	memset(body, 'b', sizeof(body));
	bench_make(&b);
	b.options.segment_size = 256 * 1024;
	bench_reopen(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	for (int i = 0; i < 7; i++)
		EQ(append(&b, 1, 1, str_of(body, sizeof(body)), 0), ERR_OK);
	/* One descriptor is left, which the new segment takes; none for the directory. (Poll takes
	 * one in settle.) */
	if (getrlimit(RLIMIT_NOFILE, &old))
		panic("rlimit");
	for (size_t i = 0; i < ARRAY_LEN(holes); i++)
		if (os_open(-1, "/dev/null", OS_READ, &holes[i]))
			panic("holes");
	few = old;
	few.rlim_cur = (rlim_t)holes[ARRAY_LEN(holes) - 1] + 1;
	os_close(holes[ARRAY_LEN(holes) - 1]);
	os_close(holes[ARRAY_LEN(holes) - 2]);
	EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	EQ(append(&b, 1, 1, str_of(body, sizeof(body)), 0), ERR_TEMPORARY);
	EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	for (size_t i = 0; i + 2 < ARRAY_LEN(holes); i++)
		os_close(holes[i]);
	OK(file_is_there(&b, "log/00000002.seg"));
	EQ(append(&b, 1, 1, S("small"), 0), ERR_OK);
	bench_reopen(&b);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0 7:0 8:0"));
	OK(body_is(&b, 1, 1, 8, S("small"), S("")));
	bench_end(&b);
}

/* Bodies in files of their own: nothing is left of a commit that was refused, or of one that a
 * crash cut off. */
static void test_body_files(void)
{
	static const char *const left[] = { "body/0000000000000003",
					    "body/0000000000000002",
					    "body/new-2",
					    "body/new-1",
					    "body/new-7",
					    "body/00000000000000ff" };
	static char body[300 * 1024];
	struct bench b;
	struct buf u;
	int fd;

	tap_group("body files");
	memset(body, 'b', sizeof(body));
	bench_make(&b);
	EQ(settled(&b, store_bind(b.store, 1, S("a@example.test"), 0, on_done, &b)), ERR_OK);
	EQ(append(&b, 1, 1, str_of(body, sizeof(body)), 0), ERR_OK);
	OK(file_is_there(&b, "body/0000000000000001"));
	/* Refused when the file has its name. */
	OK(settled(&b, store_append(b.store, 1,
				    &(struct msg_st_append){ .mailbox = 1,
							     .expected = 99,
							     .size = sizeof(body),
							     .inline_body =
								     str_of(body, sizeof(body)) },
				    on_done, &b)) != ERR_OK);
	OK(!file_is_there(&b, "body/0000000000000002"));
	OK(!file_is_there(&b, "body/new-1"));
	OK(!file_is_there(&b, "body/new-2"));
	EQ(append(&b, 1, 1, S("small, with a later number"), 0), ERR_OK);
	store_close(b.store);
	/* Cut off before the commit; behind it, when the name was not yet dropped; one that is
	 * nobody's and has no such name is left to fsck. */
	for (size_t i = 0; i < ARRAY_LEN(left); i++) {
		if (os_open(b.dir, left[i], OS_WRITE | OS_CREATE, &fd))
			panic("file");
		os_close(fd);
	}
	bench_open(&b);
	for (size_t i = 0; i < ARRAY_LEN(left); i++)
		OK(file_is_there(&b, left[i]) == (i == 0));
	OK(file_is_there(&b, "body/0000000000000001"));
	OK(body_is(&b, 1, 1, 1, str_of(body, sizeof(body)), S("")));
	buf_init(&u, 64);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 1)), ERR_OK);
	OK(!file_is_there(&b, "body/0000000000000001"));
	EQ(b.removed, 1);
	buf_free(&u);
	bench_end(&b);
}

/* MODSEQ of what is not durable is not told, even where the answer does not wait. */
static void test_recent(void)
{
	struct msg_st_mailboxes_reply out;
	struct bench b;
	struct buf u;

	tap_group("recent");
	closed_bench(&b, false);
	bench_open(&b);
	EQ(store_mailboxes(b.store, 1, &(struct msg_st_mailboxes){ 0 }, &b.reply, &out), ERR_OK);
	buf_init(&u, 64);
	EQ(store_commit(b.store, 1,
			&(struct msg_st_commit){ .op = STORE_OP_FLAGS,
						 .mailbox = 1,
						 .mode = 1,
						 .flags0 = MSG_FLAG_FLAGGED,
						 .uids = RANGES(&u, 1, 1) },
			on_done, &b),
	   ERR_OK);
	EQ(store_commit(b.store, 1, &(struct msg_st_commit){ .op = STORE_OP_RECENT, .mailbox = 1 },
			on_done, &b),
	   ERR_OK);
	EQ(b.commit.modseq, out.modseq);
	EQ(store_settle(b.store), ERR_OK);
	buf_free(&u);
	bench_end(&b);
}

/* Two stores in one directory, also while one only prepares. */
static void test_lock(void)
{
	struct store *second;
	struct bench b;

	tap_group("lock");
	bench_make(&b);
	EQ(store_prepare(&b.options), ERR_BUSY);
	EQ(store_open(&b.options, &second), ERR_BUSY);
	bench_end(&b);
}

static void on_kv_done(void *arg, enum err err)
{
	(void)arg;
	EQ(err, ERR_OK);
}

/* Mailboxes may come and go for ever. */
static void test_mailbox_numbers(void)
{
	struct key k = key_make1(KIND_ACCOUNT, 1);
	struct account a;
	struct bench b;
	struct buf value;
	str old;

	tap_group("mailbox numbers");
	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	/* As after so many that were created and deleted. */
	EQ(kv_get(b.store->kv, KV_DURABLE, &k, &old), ERR_OK);
	EQ(account_get(old, &a), ERR_OK);
	a.next_mailbox = MAILBOX_COUNT_MAX;
	buf_init(&value, 1024);
	account_put(&value, &a);
	EQ(kv_begin(b.store->kv, false), ERR_OK);
	kv_put(b.store->kv, &k, buf_str(&value));
	EQ(kv_end(b.store->kv, on_kv_done, NULL), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("one more")), ERR_OK);
	EQ(b.commit.mailbox, MAILBOX_COUNT_MAX);
	buf_free(&value);
	bench_end(&b);
}

/* The figures that an administrator looks at: a queue by state and age, sizes. */
static void test_status(void)
{
	static const uint64_t remote[] = { 0, 0 };
	struct bench b;
	struct buf out;

	tap_group("status");
	bench_make(&b);
	buf_init(&out, 65536);
	EQ(deliver(&b, "evb", 1, S("body"), remote, 2), 250);
	EQ(settled(&b,
		   store_q_outcome(b.store, &(struct msg_q_outcome){ .id = 1, .state = QUEUE_HELD },
				   on_done, &b)),
	   ERR_OK);
	store_status(b.store, &out);
	OK(str_find(
		   buf_str(&out),
		   S("\"queue_due\":1,\"queue_deferred\":0,\"queue_failed\":0,\"queue_held\":1")) !=
	   STR_NONE);
	OK(str_find(buf_str(&out), S("\"queue_oldest_s\":0,\"queue_has_more\":false")) != STR_NONE);
	OK(str_find(buf_str(&out), S("\"segments\":1,\"log_bytes\":1048576")) != STR_NONE);
	OK(str_find(buf_str(&out), S("\"commit_p50_us\":0")) == STR_NONE);
	buf_free(&out);
	bench_end(&b);
}

/* The history says what became of a message, for each recipient, when it is durable. */
static void test_traced(void)
{
	static const uint64_t many[] = { 1, 0, 2 };
	uint64_t lots[40];
	struct bench b;

	tap_group("traced");
	bench_make(&b);
	EQ(deliver(&b, "evb", 7, S("body"), many, 3), 250);
	STR_EQ(str_from_c(b.traced),
	       S("7 50 <s@example.org> <user1@example.test> INBOX, UID 1\n"
		 "7 51 <s@example.org> <remote1@example.test> record 1 of the queue\n"
		 "7 50 <s@example.org> <user2@example.test> INBOX, UID 1\n"));
	b.traced[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(lots); i++)
		lots[i] = 100 + i;
	EQ(deliver(&b, "evb", 8, S("body"), lots, ARRAY_LEN(lots)), 250);
	OK(strstr(b.traced, "8 52 <s@example.org> <> 24 more recipients\n") != NULL);
	/* The bytes are not those that were judged. */
	b.traced[0] = 0;
	part(&b, 'e', 9, S("body"), many, 3);
	part(&b, 'v', 9, S("other"), many, 3);
	part(&b, 'b', 9, S("body"), many, 3);
	OK(strstr(b.traced, "9 53 <s@example.org> <> 451 4.3.0") != NULL);
	bench_end(&b);
}

int main(void)
{
	test_traced();
	test_status();
	test_identity();
	test_identity_lost();
	test_identity_foreign();
	test_index_flips();
	test_index_check();
	test_index_removed();
	test_attempts();
	test_segment_missing();
	test_segment_gap();
	test_half_made_segment();
	test_body_files();
	test_recent();
	test_lock();
	test_mailbox_numbers();
	return tap_done();
}
