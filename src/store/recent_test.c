/* 'What changed since' with the latest changes known by UID (recent.c): the same answers as the
 * walk over all rows. */
#include "store/engine_fake.h"
#include "store/store_priv.h"

static char asked[4096], walked[4096];

/* Both ways; the first question about a mailbox begins the notes. */
static bool agree(struct bench *b, uint64_t since)
{
	struct recent *notes[RECENT_SLOTS];

	rows_text(b, 1, 1, since, asked, sizeof(asked));
	memcpy(notes, b->store->recent, sizeof(notes));
	memset(b->store->recent, 0, sizeof(b->store->recent));
	rows_text(b, 1, 1, since, walked, sizeof(walked));
	recent_free(b->store);
	memcpy(b->store->recent, notes, sizeof(notes));
	return strcmp(asked, walked) == 0;
}

static uint64_t fill(struct bench *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (append(b, 1, 1, S("body"), 0))
			panic("append");
	return b->commit.modseq;
}

static void begin(struct bench *b)
{
	rows_text(b, 1, 1, 1, asked, sizeof(asked));
}

static void test_changes(struct bench *b, struct buf *uids)
{
	uint64_t since;

	tap_group("changes");
	since = fill(b, 10);
	begin(b);
	rows_text(b, 1, 1, since, asked, sizeof(asked));
	STR_EQ(str_from_c(asked), S(""));
	OK(COMMIT(b, 1, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(uids, 3, 4), .mode = 1,
		  .flags0 = MSG_FLAG_SEEN) == ERR_OK);
	OK(b->commit.changed);
	fill(b, 2);
	OK(COMMIT(b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(uids, 4, 5)) ==
	   ERR_OK);
	OK(agree(b, since));
	OK(strlen(asked) > 0);
}

/* A commit that does nothing says so: its MODSEQ is somebody else's. */
static void test_nothing_changed(struct bench *b, struct buf *uids)
{
	tap_group("nothing changed");
	OK(COMMIT(b, 1, .op = STORE_OP_FLAGS, .mailbox = 1, .uids = RANGES(uids, 3, 3), .mode = 1,
		  .flags0 = MSG_FLAG_SEEN) == ERR_OK);
	OK(!b->commit.changed);
}

/* One change less than the ring holds, as many, and one more. */
static void test_overflow(struct bench *b)
{
	tap_group("overflow");
	for (unsigned n = RECENT_UIDS_MAX - 1; n <= RECENT_UIDS_MAX + 1; n++) {
		uint64_t since = fill(b, 1);

		begin(b);
		fill(b, n);
		OK(agree(b, since));
		OK(agree(b, since + n - 1));
	}
}

/* What is pending when the notes begin is not in them, and must be told all the same. */
static void test_pending(struct bench *b)
{
	struct msg_st_append in = { .mailbox = 1, .size = 4, .inline_body = S("late") };
	uint64_t since = fill(b, 1);

	tap_group("pending at the beginning");
	OK(store_append(b->store, 1, &in, on_done, b) == ERR_OK);
	begin(b);
	OK(store_settle(b->store) == ERR_OK);
	OK(agree(b, since));
	OK(strlen(asked) > 0);
}

int main(void)
{
	struct bench b;
	struct buf uids;

	buf_init(&uids, 4096);
	bench_make(&b);
	if (bind_account(&b, 1))
		panic("bind");
	test_changes(&b, &uids);
	test_nothing_changed(&b, &uids);
	test_overflow(&b);
	test_pending(&b);
	bench_end(&b);
	buf_free(&uids);
	return tap_done();
}
