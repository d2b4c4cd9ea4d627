/* Quota at the store: what counts, where the quota comes from, and what is refused. */
#include "store/engine_fake.h"

static bool uses(struct bench *b, uint64_t account, uint64_t used, uint64_t quota)
{
	uint64_t got_used = 1, got_quota = 1;

	return EQ(store_usage(b->store, account, &got_used, &got_quota), ERR_OK) &&
	       EQ(got_used, used) && EQ(got_quota, quota);
}

/* The quota comes with a delivery, as the directory has it. */
static enum err deliver_with_quota(struct bench *b, uint64_t txn, uint64_t account, uint64_t quota)
{
	struct buf rcpts;
	enum err err;

	buf_init(&rcpts, 1024);
	rec_txn_rcpt_put(&rcpts, &(struct rec_txn_rcpt){ .account = account,
							 .address = S("a@example.test"),
							 .quota = quota });
	part(b, 'v', txn, S("mail"), NULL, 0);
	err = store_txn_envelope(b->store, &(struct msg_txn_envelope){ .txn = txn,
								       .rcpts = buf_str(&rcpts),
								       .count = 1 });
	EQ(deliver(b, "b", txn, S("mail"), NULL, 1), 250);
	buf_free(&rcpts);
	return err;
}

static void count(void *arg, uint64_t account, uint64_t used, uint64_t quota)
{
	uint64_t *sums = arg;

	sums[0] += account;
	sums[1] += used;
	sums[2] += quota;
}

int main(void)
{
	uint64_t used, quota, sums[3] = { 0 };
	struct msg_st_append in = { .mailbox = 1, .size = 5, .inline_body = S("hello") };
	struct buf u;
	struct bench b;

	bench_make(&b);
	buf_init(&u, 64);
	tap_group("who does not exist");
	EQ(store_usage(b.store, 7, &used, &quota), ERR_NOT_FOUND);
	EQ(store_set_quota(b.store, 7, 10, on_done, &b), ERR_NOT_FOUND);

	tap_group("the quota's ways");
	EQ(settled(&b, store_bind(b.store, 1, S("a@example.test"), 10, on_done, &b)), ERR_OK);
	uses(&b, 1, 0, 10);
	EQ(deliver_with_quota(&b, 1, 2, 30), ERR_OK);
	EQ(store_usage(b.store, 2, &used, &quota), ERR_OK);
	OK(used > 4); /* with its prefix */
	uses(&b, 2, used, 30);
	b.hints = 0;
	EQ(settled(&b, store_set_quota(b.store, 2, 20, on_done, &b)), ERR_OK);
	EQ(b.hints, 1);
	uses(&b, 2, used, 20);
	EQ(settled(&b, store_set_quota(b.store, 2, 20, on_done, &b)), ERR_OK);
	EQ(b.hints, 1); /* nothing changed */

	tap_group("full");
	EQ(settled(&b, store_append(b.store, 1, &in, on_done, &b)), ERR_OK);
	EQ(settled(&b, store_append(b.store, 1, &in, on_done, &b)), ERR_OK); /* 10: at the limit */
	EQ(settled(&b, store_append(b.store, 1, &in, on_done, &b)), ERR_QUOTA);
	EQ(COMMIT(&b, 1, .op = STORE_OP_COPY, .mailbox = 1, .target = 2, .uids = RANGES(&u, 1, 1)),
	   ERR_QUOTA);
	uses(&b, 1, 10, 10);
	EQ(COMMIT(&b, 1, .op = STORE_OP_MOVE, .mailbox = 1, .target = 2, .uids = RANGES(&u, 1, 1)),
	   ERR_OK);
	uses(&b, 1, 10, 10);
	/* It was checked at RCPT; what is delivered is not refused any more. */
	EQ(deliver_with_quota(&b, 2, 1, 10), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, "2:0 3:0"));
	EQ(store_usage(b.store, 1, &used, &quota), ERR_OK);
	OK(used > 10);

	tap_group("all of them, and after a restart");
	EQ(store_usage_each(b.store, count, sums), ERR_OK);
	EQ(sums[0], 3);
	EQ(sums[2], 30);
	OK(survives(&b));
	uses(&b, 1, used, 10);
	buf_free(&u);
	bench_end(&b);
	return tap_done();
}
