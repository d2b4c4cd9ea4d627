/* What the engine's tests share: a store in a directory of its own, and words for what they do with
 * it. */
#ifndef STORE_ENGINE_FAKE_H
#define STORE_ENGINE_FAKE_H

#include "store/engine.h"

#include "base/os.h"
#include "base/tap.h"
#include "store/tree_fake.h"
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
	unsigned done, hints, wakes, removed;
	uint16_t code;
	char text[128];
	char traced[1024]; /* events of messages, a line each */
};

static inline void on_changed(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq)
{
	struct bench *b = arg;

	(void)account;
	(void)mailbox;
	(void)modseq;
	b->hints++;
}

static inline void on_queued(void *arg)
{
	((struct bench *)arg)->wakes++;
}

static inline void on_removed(void *arg, int fd)
{
	((struct bench *)arg)->removed++;
	os_close(fd);
}

static inline void on_traced(void *arg, uint64_t message, unsigned event, str sender, str recipient,
			     str text)
{
	struct bench *b = arg;
	size_t n = strlen(b->traced);

	snprintf(b->traced + n, sizeof(b->traced) - n, "%llu %u <%.*s> <%.*s> %.*s\n",
		 (unsigned long long)message, event, STR_ARGS(sender), STR_ARGS(recipient),
		 STR_ARGS(text));
}

static inline void on_done(void *arg, enum err err, const struct msg_st_commit_reply *reply)
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

static inline void on_txn(void *arg, const struct msg_txn_reply *reply)
{
	struct bench *b = arg;

	if (!reply)
		return;
	b->done++;
	b->code = reply->code;
	snprintf(b->text, sizeof(b->text), "%.*s", STR_ARGS(reply->text));
}

static inline void bench_open(struct bench *b)
{
	if (store_prepare(&b->options) || store_open(&b->options, &b->store))
		panic("bench_open");
}

static inline void bench_reopen(struct bench *b)
{
	store_close(b->store);
	bench_open(b);
}

static inline void bench_make(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	snprintf(b->path, sizeof(b->path), "/tmp/posthorn-store-test.%d.%llx", os_pid(),
		 (unsigned long long)os_random_u64());
	if (os_mkdir(-1, b->path, 0700) || os_open(-1, b->path, OS_READ | OS_DIRECTORY, &b->dir))
		panic("bench_make");
	b->options = (struct store_options){ .dir = b->dir,
					     .path = b->path,
					     .hooks = { b, on_changed, on_queued, on_removed,
							on_traced },
					     .segment_size = 1024 * 1024,
					     .min_free = 1,
					     .txn_seconds = 1 };
	store_reply_init(&b->reply);
	bench_open(b);
}

static inline void bench_end(struct bench *b)
{
	store_close(b->store);
	store_reply_free(&b->reply);
	os_close(b->dir);
	remove_tree(b->path);
}

static inline enum err settled(struct bench *b, enum err err)
{
	b->last = ERR_COUNT;
	if (err)
		return err;
	if (store_settle(b->store))
		panic("settle");
	return b->last;
}

#define COMMIT(b, account, ...)                                                                  \
	settled((b), store_commit((b)->store, (account), &(struct msg_st_commit){ __VA_ARGS__ }, \
				  on_done, (b)))

static inline enum err append(struct bench *b, uint64_t account, uint32_t mailbox, str body,
			      uint64_t flags)
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

static inline enum err bind_account(struct bench *b, uint64_t account)
{
	return settled(b, store_bind(b->store, account, S("a@example.test"), 0, on_done, b));
}

static inline str ranges(struct buf *out, const uint32_t *pairs, size_t n)
{
	buf_clear(out);
	for (size_t i = 0; i < n; i += 2)
		rec_uid_range_put(out, &(struct rec_uid_range){ pairs[i], pairs[i + 1] });
	return buf_str(out);
}
#define RANGES(out, ...)                                 \
	ranges((out), (const uint32_t[]){ __VA_ARGS__ }, \
	       sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

/* "1:f=8 2:f=1": the rows of a mailbox, from durable state. */
static inline void rows_text(struct bench *b, uint64_t account, uint32_t mailbox, uint64_t since,
			     char *text, size_t size)
{
	struct msg_st_rows in = {
		.mailbox = mailbox, .uid_from = 1, .uid_to = UINT32_MAX, .since = since
	};
	struct msg_st_rows_reply out;
	struct rec_uid_range gone;
	struct rec_row row;
	size_t n = 0;

	text[0] = 0;
	do {
		if (store_rows(b->store, account, &in, &b->reply, &out))
			panic("rows");
		while (rec_row_get(&out.rows, &row) == ERR_OK)
			n += (size_t)snprintf(text + n, size - n, "%s%u:%llx", n ? " " : "",
					      row.uid, (unsigned long long)row.flags0);
		while (rec_uid_range_get(&out.gone, &gone) == ERR_OK)
			n += (size_t)snprintf(text + n, size - n, "%s-%u:%u", n ? " " : "",
					      gone.first, gone.last);
		in.uid_from = out.next_uid;
	} while (out.next_uid);
}

static inline bool rows_are(struct bench *b, uint64_t account, uint32_t mailbox, uint64_t since,
			    const char *want)
{
	char text[4096];

	rows_text(b, account, mailbox, since, text, sizeof(text));
	if (strcmp(text, want) != 0)
		printf("# got '%s', wanted '%s'\n", text, want);
	return strcmp(text, want) == 0;
}

/* "INBOX Drafts*": names by id, gone ones with a star, subscribed ones with a plus. */
static inline bool names_are(struct bench *b, uint64_t account, const char *want)
{
	struct msg_st_mailboxes_reply out;
	struct rec_mailbox m;
	char text[4096] = "";
	size_t n = 0;

	if (store_mailboxes(b->store, account, &(struct msg_st_mailboxes){ 0 }, &b->reply, &out))
		panic("mailboxes");
	while (rec_mailbox_get(&out.mailboxes, &m) == ERR_OK)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s%s%s", n ? " " : "",
				      STR_ARGS(m.name), m.is_gone ? "*" : "",
				      m.subscribed ? "+" : "");
	if (strcmp(text, want) != 0)
		printf("# got '%s', wanted '%s'\n", text, want);
	return strcmp(text, want) == 0;
}

static inline bool mailbox_of(struct bench *b, uint64_t account, str name, struct rec_mailbox *m)
{
	struct msg_st_mailboxes_reply out;

	if (store_mailboxes(b->store, account, &(struct msg_st_mailboxes){ 0 }, &b->reply, &out))
		return false;
	while (rec_mailbox_get(&out.mailboxes, m) == ERR_OK)
		if (str_eq(m->name, name))
			return true;
	return false;
}

static inline bool body_is(struct bench *b, uint64_t account, uint32_t mailbox, uint32_t uid,
			   str want, str want_prefix)
{
	struct msg_st_rows in = { .mailbox = mailbox,
				  .uid_from = uid,
				  .uid_to = uid,
				  .columns = ROW_COLD | ROW_LOCATION };
	struct body_cipher *c = body_cipher_new();
	struct msg_st_rows_reply out;
	struct rec_body_location at;
	struct rec_row_cold cold;
	struct rec_row row;
	char *got = malloc(want.n + 1);
	bool same = false;
	int fd = -1;

	if (store_rows(b->store, account, &in, &b->reply, &out) == ERR_OK &&
	    rec_row_get(&out.rows, &row) == ERR_OK &&
	    rec_body_location_get(&row.location, &at) == ERR_OK &&
	    rec_row_cold_get(&row.cold, &cold) == ERR_OK &&
	    store_segment(b->store, at.segment, row.body, &fd) == ERR_OK && at.size == want.n &&
	    body_read(c, fd, &at, 0, want.n, got) == ERR_OK)
		same = str_eq(str_of(got, want.n), want) && str_eq(cold.prefix, want_prefix) &&
		       str_eq(cold.envelope, S("ENVELOPE")) && row.size == want.n + want_prefix.n;
	os_close(fd);
	free(got);
	body_cipher_free(c);
	return same;
}

static inline char *dump(struct bench *b)
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

static inline void index_delete(struct bench *b)
{
	char name[128];

	snprintf(name, sizeof(name), "%s/index/data.mdb", b->path);
	remove(name);
	snprintf(name, sizeof(name), "%s/index/lock.mdb", b->path);
	remove(name);
}

/* The state is the same after a checkpoint, after reopening, and after a rebuild of the index. */
static inline bool survives(struct bench *b)
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
			printf("# step %d differs\n# before:\n%s\n# after:\n%s\n", step, before,
			       after);
			same = false;
		}
		free(after);
	}
	free(before);
	return same;
}

/* A transaction's parts, as the three roles would send them. */
static inline void sha256(str body, uint8_t out[32])
{
	EVP_Digest(body.p, body.n, out, NULL, EVP_sha256(), NULL);
}

static inline str rcpts_make(struct buf *out, const uint64_t *accounts, size_t n)
{
	char address[64];

	buf_clear(out);
	for (size_t i = 0; i < n; i++) {
		int len = snprintf(address, sizeof(address), "%s%llu@example.test",
				   accounts[i] ? "user" : "remote",
				   (unsigned long long)(accounts[i] ? accounts[i] : i));

		rec_txn_rcpt_put(
			out, &(struct rec_txn_rcpt){ .number = (uint32_t)i,
						     .account = accounts[i],
						     .address = str_of(address, (size_t)len),
						     .original = str_of(address, (size_t)len) });
	}
	return buf_str(out);
}

static inline void part(struct bench *b, char which, uint64_t txn, str body,
			const uint64_t *accounts, size_t n)
{
	struct msg_txn_verdict verdict = { .txn = txn,
					   .code = 250,
					   .headers = S("X-Spam: no\r\n"),
					   .has_parse = true,
					   .envelope = S("ENVELOPE"),
					   .structure = S("STRUCTURE") };
	struct buf out;
	enum err err = ERR_OK;

	buf_init(&out, 65536);
	sha256(body, verdict.hash);
	if (which == 'e')
		err = store_txn_envelope(b->store, &(struct msg_txn_envelope){
							   .txn = txn,
							   .sender = S("s@example.org"),
							   .rcpts = rcpts_make(&out, accounts, n),
							   .count = (uint32_t)n });
	else if (which == 'v')
		err = store_txn_verdict(b->store, &verdict);
	else
		err = store_txn_body(b->store,
				     &(struct msg_txn_body){ .txn = txn,
							     .size = body.n,
							     .inline_body = body,
							     .rcpts = (uint32_t)n },
				     on_txn, b);
	OK(err == ERR_OK);
	buf_free(&out);
}

static inline uint16_t deliver(struct bench *b, const char *order, uint64_t txn, str body,
			       const uint64_t *accounts, size_t n)
{
	b->code = 0;
	for (; *order; order++)
		part(b, *order, txn, body, accounts, n);
	if (store_settle(b->store))
		panic("settle");
	return b->code;
}

#endif
