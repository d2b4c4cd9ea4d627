/* What was expunged: recovered, kept for its time, and told to whoever asks what went. */
#include "store/engine_fake.h"
#include "store/store_priv.h"

static bool count_kept(void *arg, const struct store_kept *k)
{
	struct buf *out = arg;

	buf_printf(out, "%s%.*s:%u", buf_len(out) ? " " : "", STR_ARGS(k->mailbox), k->uid);
	return true;
}

static bool kept_are(struct bench *b, const char *wanted)
{
	struct buf out;
	bool same;

	buf_init(&out, 65536);
	if (store_kept_each(b->store, 1, 0, count_kept, &out))
		panic("kept");
	same = str_eq(buf_str(&out), str_from_c(wanted));
	if (!same)
		printf("# got '%.*s'\n", STR_ARGS(buf_str(&out)));
	buf_free(&out);
	return same;
}

static enum err undelete(struct bench *b, uint64_t from, const char *mailbox,
			 struct store_recovered *out)
{
	return settled(b, store_undelete(b->store, 1, from, str_from_c(mailbox), out, on_done, b));
}

static void test_undelete(void)
{
	const struct store_limits limits = { .keep_us = INT64_C(86400) * 1000000 };
	struct store_recovered r;
	uint64_t used, quota, account = 0;
	struct rec_mailbox m;
	struct bench b;
	struct buf u;

	tap_group("undelete");
	bench_make(&b);
	buf_init(&u, 256);
	b.options.limits = limits;
	store_set_limits(b.store, &limits);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("first"), MSG_FLAG_SEEN), ERR_OK);
	EQ(append(&b, 1, 1, S("second"), MSG_FLAG_DELETED), ERR_OK);
	EQ(append(&b, 1, 2, S("third"), 0), ERR_OK);
	EQ(undelete(&b, 0, "Recovered", &r), ERR_NOT_FOUND);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 2)), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, ""));
	EQ(store_usage(b.store, 1, &used, &quota), ERR_OK);
	EQ(used, 5);
	EQ(COMMIT(&b, 1, .op = STORE_OP_CREATE, .name = S("Old")), ERR_OK);
	OK(mailbox_of(&b, 1, S("Old"), &m));
	EQ(COMMIT(&b, 1, .op = STORE_OP_MOVE, .mailbox = 2, .target = m.id,
		  .uids = RANGES(&u, 1, 1)),
	   ERR_OK);
	OK(kept_are(&b, "INBOX:1 INBOX:2"));
	EQ(COMMIT(&b, 1, .op = STORE_OP_DELETE, .mailbox = m.id), ERR_OK);
	OK(kept_are(&b, "INBOX:1 INBOX:2 Old:1"));
	OK(survives(&b));
	EQ(store_compact(b.store), ERR_OK);
	EQ(store_account_find(b.store, S("A@Example.TEST"), &account), ERR_OK);
	EQ(account, 1);
	EQ(store_account_find(b.store, S("b@example.test"), &account), ERR_NOT_FOUND);
	EQ(undelete(&b, 0, "bad//name", &r), ERR_SYNTAX);
	OK(kept_are(&b, "INBOX:1 INBOX:2 Old:1"));
	EQ(undelete(&b, 0, "Back/Recovered", &r), ERR_OK);
	EQ(r.count, 3);
	EQ(r.next, 0);
	OK(kept_are(&b, ""));
	OK(mailbox_of(&b, 1, S("Back/Recovered"), &m));
	OK(rows_are(&b, 1, m.id, 0, "1:1 2:0 3:0"));
	OK(body_is(&b, 1, m.id, 1, S("first"), S("")));
	OK(body_is(&b, 1, m.id, 2, S("second"), S("")));
	OK(body_is(&b, 1, m.id, 3, S("third"), S("")));
	EQ(store_usage(b.store, 1, &used, &quota), ERR_OK);
	EQ(used, 16);
	OK(survives(&b));
	/* Again, into the same one: new UIDs. */
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = m.id, .uids = RANGES(&u, 2, 2)),
	   ERR_OK);
	EQ(undelete(&b, (uint64_t)os_wall_us() + 1000000, "Back/Recovered", &r), ERR_NOT_FOUND);
	EQ(undelete(&b, (uint64_t)os_wall_us() - 60000000, "Back/Recovered", &r), ERR_OK);
	OK(rows_are(&b, 1, m.id, 0, "1:1 3:0 4:0"));
	EQ(undelete(&b, 0, "INBOX", &r), ERR_NOT_FOUND);
	OK(survives(&b));
	buf_free(&u);
	bench_end(&b);
}

/* After the time, or when the disk is full, they go: with their bodies. */
static void test_expiry(void)
{
	struct store_limits limits = { .keep_us = INT64_C(86400) * 1000000 };
	struct bench b;
	struct buf u;
	char *text = malloc(300000);

	tap_group("expiry");
	bench_make(&b);
	buf_init(&u, 256);
	memset(text, 'e', 300000);
	store_set_limits(b.store, &limits);
	EQ(bind_account(&b, 1), ERR_OK);
	for (unsigned i = 0; i < 700; i++)
		EQ(append(&b, 1, 1, S("small"), 0), ERR_OK);
	EQ(append(&b, 1, 1, str_of(text, 300000), 0), ERR_OK); /* a file of its own */
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 2, 701)), ERR_OK);
	EQ(store_kept_expire(b.store), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	EQ(b.store->expired, 0);
	limits.keep_us = 0;
	store_set_limits(b.store, &limits);
	EQ(store_kept_expire(b.store), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	EQ(b.store->expired, 500);
	EQ(store_kept_expire(b.store), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	EQ(b.store->expired, 700);
	OK(kept_are(&b, ""));
	EQ(store_kept_expire(b.store), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, "1:0"));
	{
		char *all = dump(&b);

		/* Nothing of them is left: no row (X), and of all bodies (B) the first. */
		OK(strstr(all, "\n58") == NULL);
		OK(strstr(strstr(all, "\n42") + 1, "\n42") == NULL);
		free(all);
	}
	OK(survives(&b));
	/* A disk that is full keeps nothing. */
	limits.keep_us = INT64_C(86400) * 1000000;
	store_set_limits(b.store, &limits);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 1, 1)), ERR_OK);
	OK(kept_are(&b, "INBOX:1"));
	b.store->kv->options.min_free = UINT64_MAX;
	b.store->kv->knows_space = false;
	EQ(append(&b, 1, 1, S("refused"), 0), ERR_FULL);
	EQ(store_kept_expire(b.store), ERR_OK);
	EQ(store_settle(b.store), ERR_OK);
	OK(kept_are(&b, ""));
	free(text);
	buf_free(&u);
	bench_end(&b);
}

/* More expunges than are remembered: whoever asks about the time before is told all that is gone.
 */
static void test_tombstones(void)
{
	char text[4096];
	uint64_t early = 0;
	struct bench b;
	struct buf u;
	unsigned tombstones = 0;
	char *all;

	tap_group("tombstones");
	bench_make(&b);
	buf_init(&u, 256);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t i = 1; i <= 2100; i++) {
		if (append(&b, 1, 1, S("x"), 0))
			panic("append");
		if (i % 100 == 50)
			continue; /* stays */
		if (COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, i, i)))
			panic("expunge");
		if (i == 10)
			early = b.commit.modseq;
	}
	all = dump(&b);
	for (const char *at = all; (at = strstr(at, "\n54")); at++)
		tombstones++;
	free(all);
	OK(tombstones >= 1000 && tombstones < 2000);
	/* From before what is remembered: every gap. */
	rows_text(&b, 1, 1, early, text, sizeof(text));
	OK(strstr(text, "-1:49") != NULL && strstr(text, "-51:149") != NULL &&
	   strstr(text, "-2051:2100") != NULL);
	OK(strstr(text, "50:0") != NULL);
	/* From a moment ago: that alone. */
	rows_text(&b, 1, 1, b.commit.modseq - 1, text, sizeof(text));
	OK(strcmp(text, "-2100:2100") == 0);
	OK(survives(&b));
	buf_free(&u);
	bench_end(&b);
}

int main(void)
{
	test_undelete();
	test_expiry();
	test_tombstones();
	return tap_done();
}
