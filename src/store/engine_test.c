/* The engine over the real operating system: every kind of change, the same after a checkpoint,
 * after reopening, and after its index was deleted. */
#include "store/engine_fake.h"

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

	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 2), .mode = 1,
		  .flags0 = MSG_FLAG_FLAGGED),
	   0);
	OK(rows_are(&b, 7, 1, 0, "1:4 2:5 3:0"));
	uint64_t since = b.commit.modseq;
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 1), .mode = 1,
		  .flags0 = MSG_FLAG_FLAGGED),
	   0);
	EQ(b.commit.modseq, since);
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 2, 3), .mode = 0,
		  .flags0 = MSG_FLAG_DELETED),
	   0);
	OK(rows_are(&b, 7, 1, since, "2:8 3:8"));
	EQ(COMMIT(&b, 7, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 3), .mode = 2,
		  .flags0 = 31, .unchanged_since = since),
	   0);
	OK(rows_are(&b, 7, 1, 0, "1:0 2:8 3:8"));
	STR_EQ(b.commit.from, RANGES(&u, 2, 3));
	OK(survives(&b));

	EQ(COMMIT(&b, 7, .op = STORE_OP_COPY, .mailbox = 1, .target = 3, .uids = RANGES(&u, 1, 2)),
	   0);
	STR_EQ(b.commit.from, RANGES(&u, 1, 2));
	STR_EQ(b.commit.to, RANGES(&u, 1, 2));
	EQ(COMMIT(&b, 7, .op = STORE_OP_COPY, .mailbox = 1, .target = 77, .uids = RANGES(&u, 1, 2)),
	   ERR_NOT_FOUND);
	since = b.commit.modseq;
	EQ(COMMIT(&b, 7, .op = STORE_OP_MOVE, .mailbox = 1, .target = 3, .uids = RANGES(&u, 3, 9)),
	   0);
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
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 9, 3)),
	   ERR_PROTOCOL);
	EQ(COMMIT(&b, 7, .op = STORE_OP_EXPUNGE, .mailbox = 1, .expected = 1,
		  .uids = RANGES(&u, 1, 9)),
	   ERR_CONFLICT);
	struct rec_mailbox m;
	struct msg_st_mailboxes_reply one;
	EQ(store_mailboxes(b.store, 7, &(struct msg_st_mailboxes){ .from = 3, .max = 1 }, &b.reply,
			   &one),
	   ERR_OK);
	OK(rec_mailbox_get(&one.mailboxes, &m) == ERR_OK && m.id == 3 && one.mailboxes.n == 0);
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

static void test_transactions(void)
{
	static const char *const orders[] = { "evb", "ebv", "veb", "vbe", "bev", "bve" };
	struct msg_txn_verdict refusal = {
		.txn = 50, .code = 550, .status = S("5.7.1"), .text = S("spam")
	};
	struct bench b;

	tap_group("transactions");
	bench_make(&b);
	for (size_t i = 0; i < ARRAY_LEN(orders); i++)
		EQ(deliver(&b, orders[i], i + 1, S("Subject: x\r\n\r\nbody"),
			   (uint64_t[]){ 5, 6, 5 }, 3),
		   250);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	OK(rows_are(&b, 6, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0"));
	OK(body_is(&b, 6, 1, 3, S("Subject: x\r\n\r\nbody"),
		   S("Return-Path: <s@example.org>\r\nDelivered-To: user6@example.test\r\nX-Spam: "
		     "no\r\n")));
	OK(b.hints > 0);
	OK(survives(&b));
	OK(body_is(&b, 5, 1, 6, S("Subject: x\r\n\r\nbody"),
		   S("Return-Path: <s@example.org>\r\nDelivered-To: user5@example.test\r\nX-Spam: "
		     "no\r\n")));
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
	/* A filter died: who waits for a verdict is told, and so is who brings the body later; what
	 * has its verdict goes on. */
	EQ(deliver(&b, "e", 61, S("x"), (uint64_t[]){ 5 }, 1), 0);
	EQ(deliver(&b, "vb", 62, S("x"), NULL, 1), 0);
	EQ(deliver(&b, "eb", 63, S("x"), (uint64_t[]){ 5 }, 1), 0);
	store_txn_part_lost(b.store, true);
	EQ(b.code, 451);
	EQ(deliver(&b, "b", 61, S("x"), NULL, 1), 451);
	EQ(deliver(&b, "e", 62, S("x"), (uint64_t[]){ 5 }, 1), 250);
	/* auth died. */
	EQ(deliver(&b, "vb", 64, S("x"), NULL, 1), 0);
	store_txn_part_lost(b.store, false);
	EQ(b.code, 451);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0 3:0 4:0 5:0 6:0 7:0"));
	bench_end(&b);
}

static bool lease_one(struct bench *b, int64_t now, struct rec_queue_record *r,
		      struct msg_q_records *out)
{
	if (store_q_lease(b->store,
			  &(struct msg_q_lease){ .now_us = now, .until_us = now + 100, .max = 1 },
			  &b->reply, out))
		panic("lease");
	return rec_queue_record_get(&out->records, r) == ERR_OK;
}

static uint64_t leases(struct bench *b)
{
	struct buf status;
	uint64_t n = UINT64_MAX;
	size_t at;
	str rest;

	buf_init(&status, 65536);
	store_status(b->store, &status);
	rest = buf_str(&status);
	at = str_find(rest, S("\"leases\":"));
	if (at != STR_NONE) {
		rest = str_from(rest, at + 9);
		for (at = 0; at < rest.n && ascii_is_digit(rest.p[at]); at++)
			;
		if (str_to_u64(str_head(rest, at), UINT64_MAX, &n))
			n = UINT64_MAX;
	}
	buf_free(&status);
	return n;
}

#define OUTCOME(b, ...) \
	settled((b),    \
		store_q_outcome((b)->store, &(struct msg_q_outcome){ __VA_ARGS__ }, on_done, (b)))

static void queued_body(struct bench *b, uint64_t id, uint64_t token)
{
	struct body_cipher *c = body_cipher_new();
	struct rec_body_location at;
	struct msg_q_body_reply body;
	char text[8];

	EQ(store_q_body(b->store, &(struct msg_q_body){ .id = id, .token = token + 1 }, &b->reply,
			&body),
	   ERR_STALE);
	EQ(store_q_body(b->store, &(struct msg_q_body){ .id = id, .token = token }, &b->reply,
			&body),
	   ERR_OK);
	EQ(rec_body_location_get(&body.location, &at), ERR_OK);
	EQ(body_read(c, body.file, &at, 0, 7, text), ERR_OK);
	STR_EQ(str_of(text, 7), S("message"));
	EQ(body_read(c, body.file, &at, 1, 7, text), ERR_RANGE);
	os_close(body.file);
	body_cipher_free(c);
}

/* What RCPT had been promised holds no more: auth's words are the reply, whatever comes first. */
static void test_refused_by_auth(void)
{
	static const char *const before[] = { "", "v", "b", "vb" };
	static const char *const after[] = { "vb", "b", "v", "" };
	struct msg_txn_envelope refusal = { .code = 550, .status = S("5.1.1"), .text = S("gone") };
	struct bench b;

	tap_group("refused by auth");
	bench_make(&b);
	for (size_t i = 0; i < ARRAY_LEN(before); i++) {
		refusal.txn = i + 1;
		EQ(deliver(&b, before[i], i + 1, S("x"), NULL, 1), 0);
		EQ(store_txn_envelope(b.store, &refusal), ERR_OK);
		if (i < 2)
			EQ(deliver(&b, after[i], i + 1, S("x"), NULL, 1), 550);
		EQ(b.code, 550);
		EQ(strcmp(b.text, "gone"), 0);
	}
	refusal.code = 250;
	refusal.txn = 9;
	EQ(store_txn_envelope(b.store, &refusal), ERR_PROTOCOL);
	EQ(deliver(&b, "vb", 9, S("x"), NULL, 1), 451);
	EQ(deliver(&b, "evb", 30, S("x"), (uint64_t[]){ 5 }, 1), 250);
	OK(rows_are(&b, 5, 1, 0, "1:0"));
	bench_end(&b);
}

static void test_queue(void)
{
	struct rec_queue_record r, again;
	struct msg_q_records out;
	struct buf ends;
	struct bench b;
	int64_t now;
	enum err err;

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
	queued_body(&b, id, token);
	OK(lease_one(&b, now, &again, &out));
	OK(again.id != id);
	OK(!lease_one(&b, now, &again, &out));
	EQ(OUTCOME(&b, .id = id, .token = token + 1, .state = QUEUE_SENT), ERR_STALE);
	EQ(OUTCOME(&b, .id = id, .token = token, .state = QUEUE_DEFERRED, .due_us = now + 5000,
		   .attempted = true, .reply = S("421 later"), .status = S("4.0.0")),
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
	/* A new scheduler begins: the lease is free, the old token worth nothing. */
	store_q_begin(b.store);
	EQ(OUTCOME(&b, .id = id, .token = again.token, .state = QUEUE_SENT), ERR_STALE);
	/* What nobody leases is not leased either while its outcome is on its way: it would be the
	 * state before. */
	err = store_q_outcome(
		b.store,
		&(struct msg_q_outcome){ .id = id, .state = QUEUE_DEFERRED, .due_us = now + 5500 },
		on_done, &b);
	OK(!lease_one(&b, now + 6000, &again, &out));
	EQ(settled(&b, err), ERR_OK);
	OK(lease_one(&b, now + 6000, &again, &out) && again.id == id);
	EQ(OUTCOME(&b, .id = id, .token = again.token, .state = QUEUE_FAILED, .due_us = now),
	   ERR_OK);
	/* The bounce ends the record in its own commit. */
	OK(lease_one(&b, now + 7000, &r, &out) && r.state == QUEUE_FAILED);
	rec_queue_end_put(&ends, &(struct rec_queue_end){ r.id, r.token });
	part(&b, 'v', 2, S("bounce"), NULL, 0);
	struct buf rcpts;
	buf_init(&rcpts, 1024);
	EQ(store_txn_envelope(
		   b.store,
		   &(struct msg_txn_envelope){ .txn = 2,
					       .rcpts = rcpts_make(&rcpts, (uint64_t[]){ 9 }, 1),
					       .count = 1,
					       .ends = buf_str(&ends) }),
	   ERR_OK);
	EQ(deliver(&b, "b", 2, S("bounce"), NULL, 1), 250);
	EQ(store_q_scan(b.store, &(struct msg_q_scan){ .max = 10 }, &b.reply, &out), ERR_OK);
	EQ(out.records.n, 0);
	/* The leases went with their records: LEASES_MAX bounces must not end all leasing. */
	EQ(leases(&b), 0);
	OK(rows_are(&b, 9, 1, 0, "1:0 2:0"));
	EQ(OUTCOME(&b, .id = id, .token = 0, .state = QUEUE_DELETED), ERR_NOT_FOUND);
	OK(survives(&b));
	buf_free(&rcpts);
	buf_free(&ends);
	bench_end(&b);
}

/* A delivery of which the sender wants to hear; `sender` may be empty. */
static uint16_t deliver_told(struct bench *b, uint64_t txn, str sender,
			     const struct rec_txn_rcpt *rcpts, size_t n)
{
	struct buf out;

	buf_init(&out, 4096);
	for (size_t i = 0; i < n; i++)
		rec_txn_rcpt_put(&out, &rcpts[i]);
	part(b, 'v', txn, S("message"), NULL, 0);
	EQ(store_txn_envelope(b->store, &(struct msg_txn_envelope){ .txn = txn,
								    .sender = sender,
								    .envid = S("QQ"),
								    .ret = 2,
								    .rcpts = buf_str(&out),
								    .count = (uint32_t)n }),
	   ERR_OK);
	buf_free(&out);
	return deliver(b, "b", txn, S("message"), NULL, 5);
}

/* The queue as "state:address:notify ...", in order of the records. */
static bool queue_is(struct bench *b, const char *want)
{
	struct msg_q_records out;
	struct rec_queue_record r;
	char got[1024] = "";
	size_t n = 0;

	if (store_q_scan(b->store, &(struct msg_q_scan){ .max = 100 }, &b->reply, &out))
		panic("scan");
	while (!rec_queue_record_get(&out.records, &r))
		n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%u:%.*s:%u", n ? " " : "",
				      r.state, STR_ARGS(r.address), r.notify);
	if (strcmp(got, want) != 0)
		printf("# got '%s', wanted '%s'\n", got, want);
	return strcmp(got, want) == 0;
}

/* The mailbox lets go of the message; what the notice quotes is still there. */
static void lease_notice(struct bench *b, int64_t now, struct buf *rcpts,
			 struct rec_queue_record *r)
{
	struct msg_q_records out;

	EQ(COMMIT(b, 5, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(rcpts, 1, 2)), 0);
	OK(lease_one(b, now, r, &out) && r->state == QUEUE_DUE);
	EQ(OUTCOME(b, .id = r->id, .token = r->token, .state = QUEUE_SENT), ERR_OK);
	OK(lease_one(b, now, r, &out) && r->state == QUEUE_DELIVERED);
	STR_EQ(r->sender, S("s@z"));
	STR_EQ(r->orcpt, S("rfc822;o"));
	STR_EQ(r->envid, S("QQ"));
	EQ(r->ret, 2);
	EQ(r->message, 3);
	queued_body(b, r->id, r->token);
	/* Postponed, it is due again in the same state. */
	EQ(OUTCOME(b, .id = r->id, .token = r->token, .state = QUEUE_DELIVERED, .due_us = now + 50,
		   .attempted = true),
	   ERR_OK);
	OK(lease_one(b, now, r, &out));
	STR_EQ(r->address, S("b@x"));
	OK(lease_one(b, now + 50, r, &out) && r->state == QUEUE_DELIVERED);
	STR_EQ(r->address, S("a@x"));
	EQ(r->attempts, 1);
}

/* RFC 3461 5.2.6, 5.2.7: who is told of a delivery here. */
static void test_success_notices(void)
{
	const struct rec_txn_rcpt asked[] = {
		{ .number = 0,
		  .account = 5,
		  .address = S("five@x"),
		  .original = S("a@x"),
		  .notify = NOTIFY_SUCCESS,
		  .orcpt = S("rfc822;o") },
		{ .number = 1,
		  .account = 5,
		  .address = S("five@x"),
		  .original = S("b@x"),
		  .notify = NOTIFY_SUCCESS | NOTIFY_DELAY },
		{ .number = 2,
		  .account = 6,
		  .address = S("six@x"),
		  .original = S("six@x"),
		  .notify = NOTIFY_FAILURE },
		{ .number = 3,
		  .account = 7,
		  .address = S("seven@x"),
		  .original = S("seven@x"),
		  .notify = NOTIFY_SUCCESS | NOTIFY_NEVER },
		{ .number = 4,
		  .address = S("r@y"),
		  .original = S("r@y"),
		  .notify = NOTIFY_SUCCESS },
	};
	const struct rec_txn_rcpt alias[] = {
		{ .number = 0,
		  .account = 5,
		  .address = S("five@x"),
		  .original = S("all@x"),
		  .notify = NOTIFY_SUCCESS },
		{ .number = 0,
		  .account = 6,
		  .address = S("six@x"),
		  .original = S("all@x"),
		  .notify = NOTIFY_SUCCESS },
		{ .number = 0,
		  .address = S("r@y"),
		  .original = S("all@x"),
		  .notify = NOTIFY_SUCCESS },
		{ .number = 1,
		  .address = S("s@y"),
		  .original = S("s@y"),
		  .notify = NOTIFY_SUCCESS },
		{ .number = 2,
		  .account = 7,
		  .address = S("seven@x"),
		  .original = S("seven@x"),
		  .notify = NOTIFY_SUCCESS },
	};
	struct rec_queue_record r;
	struct bench b;
	struct buf ends, rcpts;

	tap_group("success notices");
	bench_make(&b);
	buf_init(&ends, 1024);
	buf_init(&rcpts, 1024);
	EQ(deliver_told(&b, 1, S(""), asked, 4), 250);
	OK(queue_is(&b, ""));
	EQ(b.wakes, 0);
	EQ(deliver_told(&b, 2, S("s@z"), asked + 2, 2), 250);
	OK(queue_is(&b, ""));
	EQ(deliver_told(&b, 3, S("s@z"), asked, 5), 250);
	OK(queue_is(&b, "0:r@y:2 6:a@x:2 6:b@x:10"));
	EQ(b.wakes, 1);
	OK(rows_are(&b, 5, 1, 0, "1:0 2:0"));
	OK(survives(&b));
	lease_notice(&b, os_wall_us() + 1000, &rcpts, &r);
	/* The notice ends it in its own commit. */
	rec_queue_end_put(&ends, &(struct rec_queue_end){ r.id, r.token });
	part(&b, 'v', 4, S("notice"), NULL, 0);
	EQ(store_txn_envelope(
		   b.store,
		   &(struct msg_txn_envelope){ .txn = 4,
					       .rcpts = rcpts_make(&rcpts, (uint64_t[]){ 9 }, 1),
					       .count = 1,
					       .ends = buf_str(&ends) }),
	   ERR_OK);
	EQ(deliver(&b, "b", 4, S("notice"), NULL, 1), 250);
	OK(queue_is(&b, "6:b@x:10"));
	/* An alias of several is told of once, and those behind it tell nothing more. */
	EQ(deliver_told(&b, 5, S("s@z"), alias, 5), 250);
	OK(queue_is(&b, "6:b@x:10 0:r@y:1 0:s@y:2 7:all@x:2 6:seven@x:2"));
	OK(survives(&b));
	buf_free(&ends);
	buf_free(&rcpts);
	bench_end(&b);
}

static void test_large_bodies(void)
{
	struct bench b;
	struct buf u;
	struct os_stat st;
	size_t size = 300 * 1024;
	char *big = malloc(size), name[64];
	struct msg_st_append in = {
		.mailbox = 1, .size = size, .has_parse = true, .envelope = S("ENVELOPE")
	};

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
	EQ(COMMIT(&b, 1, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(&u, 1, 1), .mode = 1,
		  .flags0 = MSG_FLAG_DELETED),
	   0);
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
	test_refused_by_auth();
	test_queue();
	test_success_notices();
	test_large_bodies();
	test_full_disk();
	return tap_done();
}
