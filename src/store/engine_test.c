/* The engine over the real operating system: every kind of change, reopened after each; rebuild; torn tails; a model. */
#include "store/engine.h"

#include "base/os.h"
#include "base/tap.h"
#include "store/body.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct bench {
	char path[64];
	int dir;
	struct store_options options;
	struct store *store;
	struct store_reply reply;
	enum err last; /* what the last `done` said */
	struct msg_st_commit_reply commit;
	char from[512], to[512];
	unsigned done, hints, wakes;
	uint16_t code;
	char text[128];
};

static void on_changed(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq)
{
	struct bench *b = arg;

	(void)account;
	(void)mailbox;
	(void)modseq;
	b->hints++;
}

static void on_queued(void *arg)
{
	((struct bench *)arg)->wakes++;
}

static void on_done(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	struct bench *b = arg;

	b->done++;
	b->last = err;
	b->commit = *reply;
	memcpy(b->from, reply->from.p ? reply->from.p : "", MIN(reply->from.n, sizeof(b->from)));
	memcpy(b->to, reply->to.p ? reply->to.p : "", MIN(reply->to.n, sizeof(b->to)));
	b->commit.from.p = b->from;
	b->commit.to.p = b->to;
}

static void on_txn(void *arg, const struct msg_txn_reply *reply)
{
	struct bench *b = arg;

	if (!reply)
		return;
	b->done++;
	b->code = reply->code;
	snprintf(b->text, sizeof(b->text), "%.*s", STR_ARGS(reply->text));
}

static void remove_tree(int dir, const char *name)
{
	struct arena *a = arena_new(16 * 1024 * 1024);
	str *names;
	size_t count;
	int fd;

	if (os_open(dir, name, OS_READ | OS_DIRECTORY, &fd) == ERR_OK) {
		if (os_list(fd, a, &names, &count) == ERR_OK)
			for (size_t i = 0; i < count; i++)
				if (os_unlink(fd, names[i].p) != ERR_OK)
					remove_tree(fd, names[i].p);
		os_close(fd);
	}
	remove(name);
	arena_free(a);
}

static void bench_open(struct bench *b)
{
	if (store_prepare(&b->options) || store_open(&b->options, &b->store))
		panic("bench_open");
}

static void bench_reopen(struct bench *b)
{
	store_close(b->store);
	bench_open(b);
}

static void bench_make(struct bench *b)
{
	char shell[128];

	memset(b, 0, sizeof(*b));
	snprintf(b->path, sizeof(b->path), "store-test.%d.%llx", os_pid(), (unsigned long long)os_random_u64());
	if (os_mkdir(-1, b->path, 0700) || os_open(-1, b->path, OS_READ | OS_DIRECTORY, &b->dir))
		panic("bench_make");
	(void)shell;
	b->options = (struct store_options){ .dir = b->dir,
					     .path = b->path,
					     .hooks = { b, on_changed, on_queued },
					     .segment_size = 1024 * 1024,
					     .min_free = 1,
					     .txn_seconds = 1 };
	store_reply_init(&b->reply);
	bench_open(b);
}

static void bench_end(struct bench *b)
{
	store_close(b->store);
	store_reply_free(&b->reply);
	os_close(b->dir);
	remove_tree(-1, b->path);
	{
		char name[128];

		snprintf(name, sizeof(name), "rm -rf %s", b->path);
		if (system(name))
			printf("# left: %s\n", b->path);
	}
}

static enum err settled(struct bench *b, enum err err)
{
	b->last = ERR_COUNT;
	if (err)
		return err;
	if (store_settle(b->store))
		panic("settle");
	return b->last;
}

#define COMMIT(b, account, ...) \
	settled((b), store_commit((b)->store, (account), &(struct msg_st_commit){ __VA_ARGS__ }, on_done, (b)))

static enum err append(struct bench *b, uint64_t account, uint32_t mailbox, str body, uint64_t flags)
{
	struct msg_st_append in = { .mailbox = mailbox,
				    .flags0 = flags,
				    .received_us = 1000000,
				    .zone = 60,
				    .size = body.n,
				    .inline_body = body,
				    .has_parse = true,
				    .envelope = S("ENVELOPE"),
				    .structure = S("STRUCTURE") };

	return settled(b, store_append(b->store, account, &in, on_done, b));
}

static enum err bind_account(struct bench *b, uint64_t account)
{
	return settled(b, store_bind(b->store, account, S("a@example.test"), 0, on_done, b));
}

static str ranges(struct buf *out, const uint32_t *pairs, size_t n)
{
	buf_clear(out);
	for (size_t i = 0; i < n; i += 2)
		rec_uid_range_put(out, &(struct rec_uid_range){ pairs[i], pairs[i + 1] });
	return buf_str(out);
}
#define RANGES(out, ...) \
	ranges((out), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

/* "1:f=8 2:f=1": the rows of a mailbox, from durable state. */
static void rows_text(struct bench *b, uint64_t account, uint32_t mailbox, uint64_t since, char *text, size_t size)
{
	struct msg_st_rows in = { .mailbox = mailbox, .uid_from = 1, .uid_to = UINT32_MAX, .since = since };
	struct msg_st_rows_reply out;
	struct rec_uid_range gone;
	struct rec_row row;
	size_t n = 0;

	text[0] = 0;
	do {
		if (store_rows(b->store, account, &in, &b->reply, &out))
			panic("rows");
		while (rec_row_get(&out.rows, &row) == ERR_OK)
			n += (size_t)snprintf(text + n, size - n, "%s%u:%llx", n ? " " : "", row.uid,
					      (unsigned long long)row.flags0);
		while (rec_uid_range_get(&out.gone, &gone) == ERR_OK)
			n += (size_t)snprintf(text + n, size - n, "%s-%u:%u", n ? " " : "", gone.first, gone.last);
		in.uid_from = out.next_uid;
	} while (out.next_uid);
}

static bool rows_are(struct bench *b, uint64_t account, uint32_t mailbox, uint64_t since, const char *want)
{
	char text[4096];

	rows_text(b, account, mailbox, since, text, sizeof(text));
	if (strcmp(text, want) != 0)
		printf("# got '%s', wanted '%s'\n", text, want);
	return strcmp(text, want) == 0;
}

/* "INBOX Drafts*": names by id, gone ones with a star, subscribed ones with a plus. */
static bool names_are(struct bench *b, uint64_t account, const char *want)
{
	struct msg_st_mailboxes_reply out;
	struct rec_mailbox m;
	char text[4096] = "";
	size_t n = 0;

	if (store_mailboxes(b->store, account, 0, &b->reply, &out))
		panic("mailboxes");
	while (rec_mailbox_get(&out.mailboxes, &m) == ERR_OK)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s%s%s", n ? " " : "", STR_ARGS(m.name),
				      m.is_gone ? "*" : "", m.subscribed ? "+" : "");
	if (strcmp(text, want) != 0)
		printf("# got '%s', wanted '%s'\n", text, want);
	return strcmp(text, want) == 0;
}

static bool mailbox_of(struct bench *b, uint64_t account, str name, struct rec_mailbox *m)
{
	struct msg_st_mailboxes_reply out;

	if (store_mailboxes(b->store, account, 0, &b->reply, &out))
		return false;
	while (rec_mailbox_get(&out.mailboxes, m) == ERR_OK)
		if (str_eq(m->name, name))
			return true;
	return false;
}

static bool body_is(struct bench *b, uint64_t account, uint32_t mailbox, uint32_t uid, str want, str want_prefix)
{
	struct msg_st_rows in = { .mailbox = mailbox, .uid_from = uid, .uid_to = uid, .columns = ROW_COLD | ROW_LOCATION };
	struct body_cipher *c = body_cipher_new();
	struct msg_st_rows_reply out;
	struct rec_body_location at;
	struct rec_row_cold cold;
	struct rec_row row;
	char *got = malloc(want.n + 1);
	bool same = false;
	int fd = -1;

	if (store_rows(b->store, account, &in, &b->reply, &out) == ERR_OK && rec_row_get(&out.rows, &row) == ERR_OK &&
	    rec_body_location_get(&row.location, &at) == ERR_OK && rec_row_cold_get(&row.cold, &cold) == ERR_OK &&
	    store_segment(b->store, at.segment, row.body, &fd) == ERR_OK && at.size == want.n &&
	    body_read(c, fd, &at, 0, want.n, got) == ERR_OK)
		same = str_eq(str_of(got, want.n), want) && str_eq(cold.prefix, want_prefix) &&
		       str_eq(cold.envelope, S("ENVELOPE")) && row.size == want.n + want_prefix.n;
	os_close(fd);
	free(got);
	body_cipher_free(c);
	return same;
}

static char *dump(struct bench *b)
{
	struct buf out;
	char *text;

	buf_init(&out, 64 * 1024 * 1024);
	if (store_dump(b->store, &out))
		panic("dump");
	buf_add_char(&out, 0);
	text = strdup(buf_str(&out).p);
	buf_free(&out);
	return text;
}

static void index_delete(struct bench *b)
{
	char name[128];

	snprintf(name, sizeof(name), "%s/index/data.mdb", b->path);
	remove(name);
	snprintf(name, sizeof(name), "%s/index/lock.mdb", b->path);
	remove(name);
}

/* The state is the same after a checkpoint, after reopening, and after a rebuild of the index. */
static bool survives(struct bench *b)
{
	char *before = dump(b), *after;
	bool same = true;

	for (int step = 0; step < 4; step++) {
		if (step == 1 && store_checkpoint(b->store))
			return false;
		if (step == 3) {
			store_close(b->store);
			index_delete(b);
			bench_open(b);
		} else if (step != 1) {
			bench_reopen(b);
		}
		after = dump(b);
		if (strcmp(before, after) != 0) {
			printf("# step %d differs\n# before:\n%s\n# after:\n%s\n", step, before, after);
			same = false;
		}
		free(after);
	}
	free(before);
	return same;
}

static void test_messages(void)
{
	struct bench b;
	struct buf u;

	tap_group("messages");
	bench_make(&b);
	buf_init(&u, 4096);
	EQ(append(&b, 7, 1, S("x"), 0), ERR_NOT_FOUND);
	EQ(bind_account(&b, 7), ERR_OK);
	OK(names_are(&b, 7, "INBOX+ Drafts+ Sent+ Junk+ Trash+ Archive+"));
	EQ(append(&b, 7, 1, S("Subject: one\r\n\r\n"), 0), ERR_OK);
	EQ(append(&b, 7, 1, S("two"), MSG_FLAG_SEEN), ERR_OK);
	EQ(append(&b, 7, 1, S(""), 0), ERR_OK);
	OK(rows_are(&b, 7, 1, 0, "1:0 2:1 3:0"));
	OK(body_is(&b, 7, 1, 1, S("Subject: one\r\n\r\n"), S("")));
	OK(body_is(&b, 7, 1, 3, S(""), S("")));
	OK(survives(&b));
	OK(body_is(&b, 7, 1, 1, S("Subject: one\r\n\r\n"), S("")));
	EQ(append(&b, 7, 99, S("x"), 0), ERR_NOT_FOUND);

	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 2), .mode = 1, .flags0 = MSG_FLAG_FLAGGED), 0);
	OK(rows_are(&b, 7, 1, 0, "1:4 2:5 3:0"));
	uint64_t since = b.commit.modseq;
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 1), .mode = 1, .flags0 = MSG_FLAG_FLAGGED), 0);
	EQ(b.commit.modseq, since);
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 2, 3), .mode = 0, .flags0 = MSG_FLAG_DELETED), 0);
	OK(rows_are(&b, 7, 1, since, "2:8 3:8"));
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 3), .mode = 2, .flags0 = 31,
		  .unchanged_since = since),
	   0);
	OK(rows_are(&b, 7, 1, 0, "1:0 2:8 3:8"));
	STR_EQ(b.commit.from, RANGES(&u, 2, 3));
	OK(survives(&b));

	EQ(COMMIT(&b, 7, .op = STORE_OP_COPY, .mailbox = 1, .target = 3, .uids = RANGES(&u, 1, 2)), 0);
	STR_EQ(b.commit.from, RANGES(&u, 1, 2));
	STR_EQ(b.commit.to, RANGES(&u, 1, 2));
	EQ(COMMIT(&b, 7, .op = STORE_OP_COPY, .mailbox = 1, .target = 77, .uids = RANGES(&u, 1, 2)), ERR_NOT_FOUND);
	since = b.commit.modseq;
	EQ(COMMIT(&b, 7, .op = STORE_OP_MOVE, .mailbox = 1, .target = 3, .uids = RANGES(&u, 3, 9)), 0);
	STR_EQ(b.commit.from, RANGES(&u, 3, 3));
	STR_EQ(b.commit.to, RANGES(&u, 3, 3));
	OK(rows_are(&b, 7, 1, since, "-3:3"));
	OK(rows_are(&b, 7, 3, 0, "1:0 2:8 3:8"));
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 9)), 0);
	STR_EQ(b.commit.from, RANGES(&u, 1, 2));
	OK(rows_are(&b, 7, 1, since, "-1:3"));
	OK(body_is(&b, 7, 3, 2, S("two"), S("")));
	OK(survives(&b));
	OK(body_is(&b, 7, 3, 2, S("two"), S("")));
	EQ(append(&b, 7, 1, S("four"), 0), ERR_OK);
	OK(rows_are(&b, 7, 1, 0, "4:0"));
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = S("\1\2")), ERR_PROTOCOL);
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 9, 3)), ERR_PROTOCOL);
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .expected = 1, .uids = RANGES(&u, 1, 9)), ERR_CONFLICT);
	struct rec_mailbox m;
	OK(mailbox_of(&b, 7, S("Sent"), &m));
	EQ(m.messages, 3);
	EQ(m.unseen, 3);
	EQ(m.deleted, 2);
	EQ(m.uidnext, 4);
	buf_free(&u);
	bench_end(&b);
}

static void test_mailboxes(void)
{
	struct bench b;
	struct buf u;
	struct rec_mailbox m;

	tap_group("mailboxes");
	bench_make(&b);
	buf_init(&u, 4096);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("a/b/c")), 0);
	OK(names_are(&b, 1, "INBOX+ Drafts+ Sent+ Junk+ Trash+ Archive+ a a/b a/b/c"));
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("a/b")), ERR_EXISTS);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("inbox")), ERR_EXISTS);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("a//b")), ERR_SYNTAX);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("x/")), ERR_SYNTAX);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("e\xcc\x81")), ERR_SYNTAX);
	EQ(COMMIT(&b, 1, .op = STORE_OP_DELETE, .mailbox = 1), ERR_DENIED);
	OK(mailbox_of(&b, 1, S("a/b"), &m));
	uint32_t old = m.uidvalidity;
	EQ(append(&b, 1, m.id, S("hello"), 0), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_DELETE, .mailbox = m.id), 0);
	OK(names_are(&b, 1, "INBOX+ Drafts+ Sent+ Junk+ Trash+ Archive+ a a/b* a/b/c"));
	OK(survives(&b));
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("a/b")), 0);
	OK(mailbox_of(&b, 1, S("a/b"), &m));
	OK(m.uidvalidity > old);
	EQ(m.messages, 0);
	EQ(COMMIT(&b, 1, .op = STORE_OP_RENAME, .mailbox = m.id, .name = S("x/y")), 0);
	OK(names_are(&b, 1, "INBOX+ Drafts+ Sent+ Junk+ Trash+ Archive+ a x/y/c x/y x"));
	EQ(COMMIT(&b, 1, .op = STORE_OP_RENAME, .mailbox = m.id, .name = S("x/y/z")), ERR_DENIED);
	EQ(COMMIT(&b, 1, .op = STORE_OP_SUBSCRIBE, .name = S("nowhere"), .subscribed = true), 0);
	EQ(COMMIT(&b, 1, .op = STORE_OP_SUBSCRIBE, .name = S("x"), .subscribed = true), 0);
	OK(mailbox_of(&b, 1, S("nowhere"), &m));
	OK(m.is_gone && m.subscribed);
	EQ(COMMIT(&b, 1, .op = STORE_OP_SUBSCRIBE, .name = S("nowhere"), .subscribed = false), 0);
	OK(!mailbox_of(&b, 1, S("nowhere"), &m));
	EQ(append(&b, 1, 1, S("hello"), 0), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_RENAME, .mailbox = 1, .name = S("old-inbox")), 0);
	OK(rows_are(&b, 1, 1, 0, ""));
	OK(mailbox_of(&b, 1, S("old-inbox"), &m));
	OK(rows_are(&b, 1, m.id, 0, "1:0"));
	OK(body_is(&b, 1, m.id, 1, S("hello"), S("")));
	EQ(COMMIT(&b, 1, .op = STORE_OP_KEYWORD, .name = S("$Label1")), 0);
	EQ(b.commit.mailbox, 16);
	EQ(COMMIT(&b, 1, .op = STORE_OP_KEYWORD, .name = S("Other")), 0);
	EQ(b.commit.mailbox, 17);
	EQ(COMMIT(&b, 1, .op = STORE_OP_KEYWORD, .name = S("$LABEL1")), 0);
	EQ(b.commit.mailbox, 16);
	OK(survives(&b));
	buf_free(&u);
	bench_end(&b);
}


/* A transaction's parts, as the three roles would send them. */
static void sha256(str body, uint8_t out[32])
{
	EVP_Digest(body.p, body.n, out, NULL, EVP_sha256(), NULL);
}

static str rcpts_make(struct buf *out, const uint64_t *accounts, size_t n)
{
	char address[64];

	buf_clear(out);
	for (size_t i = 0; i < n; i++) {
		int len = snprintf(address, sizeof(address), "%s%llu@example.test", accounts[i] ? "user" : "remote",
				   (unsigned long long)(accounts[i] ? accounts[i] : i));

		rec_txn_rcpt_put(out, &(struct rec_txn_rcpt){ .number = (uint32_t)i,
							      .account = accounts[i],
							      .address = str_of(address, (size_t)len),
							      .original = str_of(address, (size_t)len) });
	}
	return buf_str(out);
}

static void part(struct bench *b, char which, uint64_t txn, str body, const uint64_t *accounts, size_t n)
{
	struct msg_txn_verdict verdict = { .txn = txn, .code = 250, .headers = S("X-Spam: no\r\n"), .has_parse = true,
					   .envelope = S("ENVELOPE"), .structure = S("STRUCTURE") };
	struct buf out;
	enum err err = ERR_OK;

	buf_init(&out, 65536);
	sha256(body, verdict.hash);
	if (which == 'e')
		err = store_txn_envelope(b->store, &(struct msg_txn_envelope){ .txn = txn, .sender = S("s@example.org"),
				.rcpts = rcpts_make(&out, accounts, n), .count = (uint32_t)n });
	else if (which == 'v')
		err = store_txn_verdict(b->store, &verdict);
	else
		err = store_txn_body(b->store, &(struct msg_txn_body){ .txn = txn, .size = body.n, .inline_body = body,
				.rcpts = (uint32_t)n }, on_txn, b);
	OK(err == ERR_OK);
	buf_free(&out);
}

static uint16_t deliver(struct bench *b, const char *order, uint64_t txn, str body, const uint64_t *accounts, size_t n)
{
	b->code = 0;
	for (; *order; order++)
		part(b, *order, txn, body, accounts, n);
	if (store_settle(b->store))
		panic("settle");
	return b->code;
}

static void test_transactions(void)
{
	static const char *const orders[] = { "evb", "ebv", "veb", "vbe", "bev", "bve" };
	struct msg_txn_verdict refusal = { .txn = 50, .code = 550, .status = S("5.7.1"), .text = S("spam") };
	struct bench b;

	tap_group("transactions");
	bench_make(&b);
	for (size_t i = 0; i < ARRAY_LEN(orders); i++)
		EQ(deliver(&b, orders[i], i + 1, S("Subject: x\r\n\r\nbody"), (uint64_t[]){ 5, 6, 5 }, 3), 250);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	OK(rows_are(&b, 6, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	OK(body_is(&b, 6, 1, 3, S("Subject: x\r\n\r\nbody"),
		   S("Return-Path: <s@example.org>\r\nDelivered-To: user6@example.test\r\nX-Spam: no\r\n")));
	OK(b.hints > 0);
	OK(survives(&b));
	OK(body_is(&b, 5, 1, 6, S("Subject: x\r\n\r\nbody"),
		   S("Return-Path: <s@example.org>\r\nDelivered-To: user5@example.test\r\nX-Spam: no\r\n")));
	/* Other bytes than those judged. */
	part(&b, 'v', 20, S("good"), NULL, 0);
	part(&b, 'e', 20, S("good"), (uint64_t[]){ 5 }, 1);
	EQ(deliver(&b, "b", 20, S("evil"), NULL, 1), 451);
	/* A recipient number that no RCPT had. */
	part(&b, 'v', 21, S("good"), NULL, 0);
	part(&b, 'e', 21, S("good"), (uint64_t[]){ 5, 6 }, 2);
	EQ(deliver(&b, "b", 21, S("good"), NULL, 1), 451);
	/* The filter's refusal is the reply. */
	EQ(store_txn_verdict(b.store, &refusal), ERR_OK);
	EQ(deliver(&b, "eb", 50, S("x"), (uint64_t[]){ 5 }, 1), 550);
	EQ(strcmp(b.text, "spam"), 0);
	/* Nobody to deliver to. */
	EQ(store_txn_envelope(b.store, &(struct msg_txn_envelope){ .txn = 51 }), ERR_PROTOCOL);
	EQ(deliver(&b, "vb", 51, S("x"), NULL, 0), 451);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	/* Cancelled: nothing comes of it, and nobody is told. */
	EQ(deliver(&b, "eb", 60, S("x"), (uint64_t[]){ 5 }, 1), 0);
	store_txn_cancel(b.store, 60);
	EQ(deliver(&b, "v", 60, S("x"), NULL, 0), 0);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	bench_end(&b);
}

static bool lease_one(struct bench *b, int64_t now, struct rec_queue_record *r, struct msg_q_records *out)
{
	if (store_q_lease(b->store, &(struct msg_q_lease){ .now_us = now, .until_us = now + 100, .max = 1 }, &b->reply, out))
		panic("lease");
	return rec_queue_record_get(&out->records, r) == ERR_OK;
}

#define OUTCOME(b, ...) \
	settled((b), store_q_outcome((b)->store, &(struct msg_q_outcome){ __VA_ARGS__ }, on_done, (b)))

static void test_queue(void)
{
	struct rec_queue_record r, again;
	struct rec_body_location at;
	struct msg_q_body_reply body;
	struct msg_q_records out;
	struct body_cipher *c = body_cipher_new();
	struct buf ends;
	struct bench b;
	char text[8];
	int64_t now;

	tap_group("queue");
	bench_make(&b);
	buf_init(&ends, 1024);
	EQ(deliver(&b, "evb", 1, S("message"), (uint64_t[]){ 0, 9, 0 }, 3), 250);
	EQ(b.wakes, 1);
	now = os_wall_us() + 1000;
	OK(lease_one(&b, now, &r, &out));
	STR_EQ(r.address, S("remote0@example.test"));
	STR_EQ(r.sender, S("s@example.org"));
	uint64_t id = r.id, token = r.token;
	EQ(store_q_body(b.store, &(struct msg_q_body){ .id = id, .token = token + 1 }, &b.reply, &body), ERR_STALE);
	EQ(store_q_body(b.store, &(struct msg_q_body){ .id = id, .token = token }, &b.reply, &body), ERR_OK);
	EQ(rec_body_location_get(&body.location, &at), ERR_OK);
	EQ(body_read(c, body.file, &at, 0, 7, text), ERR_OK);
	STR_EQ(str_of(text, 7), S("message"));
	EQ(body_read(c, body.file, &at, 1, 7, text), ERR_RANGE);
	os_close(body.file);
	OK(lease_one(&b, now, &again, &out));
	OK(again.id != id);
	OK(!lease_one(&b, now, &again, &out));
	EQ(OUTCOME(&b, .id = id, .token = token + 1, .state = QUEUE_SENT), ERR_STALE);
	EQ(OUTCOME(&b, .id = id, .token = token, .state = QUEUE_DEFERRED, .due_us = now + 5000, .attempted = true,
		   .reply = S("421 later"), .status = S("4.0.0")),
	   ERR_OK);
	OK(survives(&b));
	OK(lease_one(&b, now, &r, &out) && r.id != id);
	EQ(OUTCOME(&b, .id = r.id, .token = r.token, .state = QUEUE_SENT), ERR_OK);
	OK(!lease_one(&b, now, &r, &out));
	EQ(out.next_due_us, now + 5000);
	OK(lease_one(&b, now + 5000, &r, &out) && r.id == id);
	EQ(r.attempts, 1);
	STR_EQ(r.reply, S("421 later"));
	token = r.token;
	OK(lease_one(&b, now + 6000, &again, &out) && again.id == id);
	EQ(OUTCOME(&b, .id = id, .token = token, .state = QUEUE_SENT), ERR_STALE);
	EQ(OUTCOME(&b, .id = id, .token = again.token, .state = QUEUE_FAILED, .due_us = now), ERR_OK);
	/* The bounce ends the record in its own commit. */
	OK(lease_one(&b, now + 7000, &r, &out) && r.state == QUEUE_FAILED);
	rec_queue_end_put(&ends, &(struct rec_queue_end){ r.id, r.token });
	part(&b, 'v', 2, S("bounce"), NULL, 0);
	struct buf rcpts;
	buf_init(&rcpts, 1024);
	EQ(store_txn_envelope(b.store, &(struct msg_txn_envelope){ .txn = 2, .rcpts = rcpts_make(&rcpts, (uint64_t[]){ 9 }, 1),
				.count = 1, .ends = buf_str(&ends) }), ERR_OK);
	EQ(deliver(&b, "b", 2, S("bounce"), NULL, 1), 250);
	EQ(store_q_scan(b.store, &(struct msg_q_scan){ .max = 10 }, &b.reply, &out), ERR_OK);
	EQ(out.records.n, 0);
	OK(rows_are(&b, 9, 1, 0, "1:0 2:0"));
	EQ(OUTCOME(&b, .id = id, .token = 0, .state = QUEUE_DELETED), ERR_NOT_FOUND);
	OK(survives(&b));
	buf_free(&rcpts);
	buf_free(&ends);
	body_cipher_free(c);
	bench_end(&b);
}

static void test_large_bodies(void)
{
	struct bench b;
	struct buf u;
	struct os_stat st;
	size_t size = 300 * 1024;
	char *big = malloc(size), name[64];
	struct msg_st_append in = { .mailbox = 1, .size = size, .has_parse = true, .envelope = S("ENVELOPE") };

	tap_group("large bodies");
	bench_make(&b);
	buf_init(&u, 256);
	for (size_t i = 0; i < size; i++)
		big[i] = (char)(i * 7 + i / 1000);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(os_memfd(str_of(big, size), true, &in.body), ERR_OK);
	EQ(settled(&b, store_append(b.store, 1, &in, on_done, &b)), ERR_OK);
	OK(body_is(&b, 1, 1, 1, str_of(big, size), S("")));
	OK(survives(&b));
	OK(body_is(&b, 1, 1, 1, str_of(big, size), S("")));
	in.size--;
	EQ(settled(&b, store_append(b.store, 1, &in, on_done, &b)), ERR_PROTOCOL);
	os_close(in.body);
	/* In the log, but in several chunks: a segment takes an eighth of itself. */
	EQ(append(&b, 1, 1, str_of(big, 100 * 1024), 0), ERR_OK);
	OK(body_is(&b, 1, 1, 2, str_of(big, 100 * 1024), S("")));
	snprintf(name, sizeof(name), "body/%016x", 1);
	EQ(os_stat(b.dir, name, &st), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 1)), 0);
	EQ(os_stat(b.dir, name, &st), ERR_NOT_FOUND);
	free(big);
	buf_free(&u);
	bench_end(&b);
}

/* The file of the segment in use, read whole. */
static char *segment_read(struct bench *b, const char *name, size_t *size)
{
	struct os_stat st;
	char *p;
	int fd;

	if (os_stat(b->dir, name, &st) || os_open(b->dir, name, OS_READ, &fd))
		panic("segment_read");
	*size = (size_t)st.size;
	p = malloc(*size);
	if (os_pread_all(fd, p, *size, 0))
		panic("segment_read");
	os_close(fd);
	return p;
}

static void segment_write(struct bench *b, const char *name, const char *p, size_t size)
{
	int fd;

	if (os_open(b->dir, name, OS_WRITE | OS_CREATE, &fd) || os_pwrite_all(fd, str_of(p, size), 0))
		panic("segment_write");
	os_close(fd);
}

/* The last commit, cut or damaged at every byte (of what matters; every 17th of the padding): what was acknowledged before
 * is there, and what is left of the last one is all of it or nothing. */
static void test_torn_tail(void)
{
	static const char name[] = "log/00000001.seg";
	struct bench b;
	size_t size, tail, end, bad = 0, whole = 0;
	char *before, *bytes, *with_last, *without_last, *now;

	tap_group("torn tail");
	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("first"), 0), ERR_OK);
	without_last = dump(&b);
	free(segment_read(&b, name, &size));
	before = segment_read(&b, name, &size);
	EQ(append(&b, 1, 1, S("second"), 0), ERR_OK);
	with_last = dump(&b);
	store_close(b.store);
	bytes = segment_read(&b, name, &size);
	for (tail = 0; tail < size && before[tail] == bytes[tail]; tail++)
		;
	for (end = size; end > tail && bytes[end - 1] == 0; end--)
		;
	OK(tail < end);
	for (size_t at = tail / 4096 * 4096; at < end; at++) {
		for (int kind = 0; kind < 2; kind++) {
			char *copy = malloc(size);

			memcpy(copy, bytes, size);
			if (kind == 0)
				memcpy(copy + at, before + at, size - at); /* the rest was not written */
			else
				copy[at] = (char)(copy[at] ^ 0x55);
			segment_write(&b, name, copy, size);
			free(copy);
			if (store_prepare(&b.options) || store_open(&b.options, &b.store)) {
				bad++;
				continue;
			}
			now = dump(&b);
			if (strcmp(now, with_last) == 0)
				whole++;
			else if (strcmp(now, without_last) != 0)
				bad++;
			free(now);
			store_close(b.store);
		}
	}
	EQ(bad, 0);
	/* Nothing but zeros that were there before may be 'not written' unnoticed. */
	OK(whole < end - tail / 4096 * 4096);
	/* And it goes on from there. */
	segment_write(&b, name, before, size);
	bench_open(&b);
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:0"));
	OK(survives(&b));
	free(before);
	free(bytes);
	free(with_last);
	free(without_last);
	bench_end(&b);
}

static bool log_says(int fd, const char *what)
{
	char text[16384];
	size_t n = 0;

	if (os_pread(fd, text, sizeof(text) - 1, 0, &n) && n == 0)
		return false;
	text[n] = 0;
	return strstr(text, what) != NULL;
}

/* A frame that was acknowledged is spoilt: said by name, and everything behind it is there. */
static void test_damage(void)
{
	static const char name[] = "log/00000001.seg";
	struct bench b;
	struct log log;
	size_t size, at;
	char *before, *bytes;
	int fd;

	tap_group("damage");
	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("first"), 0), ERR_OK);
	before = segment_read(&b, name, &size);
	EQ(append(&b, 1, 1, S("second"), 0), ERR_OK);
	bytes = segment_read(&b, name, &size);
	for (at = 0; before[at] == bytes[at]; at++)
		;
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	EQ(append(&b, 1, 1, S("fourth"), 0), ERR_OK);
	free(bytes);
	bytes = segment_read(&b, name, &size);
	store_close(b.store);
	bytes[at + 200] = (char)(bytes[at + 200] ^ 1);
	segment_write(&b, name, bytes, size);
	index_delete(&b);
	EQ(os_open(b.dir, "test.log", OS_READ | OS_WRITE | OS_CREATE, &fd), ERR_OK);
	log_init(&log, LOG_TO_STDERR, LOG_LEVEL_INFO, "test");
	log.fd = fd;
	b.options.log = &log;
	bench_open(&b);
	OK(log_says(fd, "store-damaged"));
	OK(log_says(fd, "00000001.seg"));
	OK(rows_are(&b, 1, 1, 0, "1:0 3:0 4:0"));
	OK(body_is(&b, 1, 1, 4, S("fourth"), S("")));
	b.options.log = NULL;
	free(before);
	free(bytes);
	store_close(b.store);
	os_close(fd);
	bench_open(&b);
	bench_end(&b);
}

/* Many segments, recycled when nothing in them is alive. */
static void test_segments(void)
{
	struct buf u, status;
	struct bench b;
	char *body = malloc(60000), *text;
	int cycles = 0;

	tap_group("segments");
	bench_make(&b);
	buf_init(&u, 256);
	buf_init(&status, 4096);
	memset(body, 'x', 60000);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t i = 1; i <= 60; i++) {
		if (append(&b, 1, 1, str_of(body, 60000), 0))
			cycles = -1000;
		if (i > 5 && COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, i - 5, i - 5)))
			cycles = -1000;
		if (i % 10 == 0 && store_checkpoint(b.store) == ERR_OK)
			cycles++;
	}
	EQ(cycles, 6);
	OK(body_is(&b, 1, 1, 60, str_of(body, 60000), S("")));
	OK(survives(&b));
	OK(rows_are(&b, 1, 1, 0, "56:0 57:0 58:0 59:0 60:0"));
	store_status(b.store, &status);
	buf_add_char(&status, 0);
	text = buf_str(&status).p ? strdup(buf_str(&status).p) : NULL;
	OK(text && strstr(text, "\"commits\":") != NULL);
	/* Eleven segments were filled; those whose mail is gone are gone, and what the rest of them held was kept. */
	for (uint32_t segment = 1; segment < 6; segment++) {
		char name[32];
		struct os_stat st;

		snprintf(name, sizeof(name), "log/%08x.seg", segment);
		EQ(os_stat(b.dir, name, &st), segment < 3 ? ERR_NOT_FOUND : ERR_OK);
	}
	free(text);
	free(body);
	buf_free(&u);
	buf_free(&status);
	bench_end(&b);
}

static void test_full_disk(void)
{
	struct buf u;
	struct bench b;

	tap_group("full disk");
	bench_make(&b);
	buf_init(&u, 256);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("one"), 0), ERR_OK);
	store_close(b.store);
	b.options.min_free = UINT64_MAX;
	bench_open(&b);
	EQ(append(&b, 1, 1, S("two"), 0), ERR_FULL);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("x")), ERR_FULL);
	EQ(deliver(&b, "evb", 1, S("x"), (uint64_t[]){ 1 }, 1), 452);
	EQ(COMMIT(&b, 1, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 1), .mode = 1, .flags0 = MSG_FLAG_DELETED), 0);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 1)), 0);
	OK(rows_are(&b, 1, 1, 0, ""));
	EQ(bind_account(&b, 1), ERR_OK);
	store_close(b.store);
	b.options.min_free = 1;
	bench_open(&b);
	EQ(append(&b, 1, 1, S("two"), 0), ERR_OK);
	bench_end(&b);
	buf_free(&u);
}

int main(void)
{
	test_messages();
	test_mailboxes();
	test_transactions();
	test_queue();
	test_large_bodies();
	test_torn_tail();
	test_damage();
	test_segments();
	test_full_disk();
	return tap_done();
}
