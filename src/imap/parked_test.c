/* The parked record: there and back, at its limits, and cut anywhere. */
#include "imap/parked.h"

#include "base/tap.h"

static void round_trip(const struct imap_parked *p)
{
	struct imap_parked q;
	struct buf b, again;

	buf_init(&b, 16384);
	buf_init(&again, 16384);
	imap_parked_write(p, &b);
	EQ(imap_parked_read(buf_str(&b), &q), ERR_OK);
	imap_parked_write(&q, &again);
	STR_EQ(buf_str(&again), buf_str(&b));
	EQ(q.account, p->account);
	EQ(q.modseq, p->modseq);
	EQ(q.exists, p->exists);
	STR_EQ(q.idle_tag, p->idle_tag);
	EQ(q.recent_count, p->recent_count);
	for (size_t n = 0; n < buf_len(&b); n++)
		if (!imap_parked_read(str_head(buf_str(&b), n), &q))
			EQ(n, buf_len(&b));
	buf_add_char(&b, 0);
	EQ(imap_parked_read(buf_str(&b), &q), ERR_PROTOCOL);
	buf_free(&b);
	buf_free(&again);
}

int main(void)
{
	static char tag[IMAP_TAG_MAX];
	struct imap_parked p = { .account = 7 }, q;

	tap_group("nothing selected");
	round_trip(&p);
	tap_group("everything");
	memset(tag, 't', sizeof(tag));
	p = (struct imap_parked){ .account = UINT64_MAX,
				  .mailbox = 3,
				  .uidvalidity = UINT32_MAX,
				  .uidnext = 100,
				  .modseq = 1234567890123,
				  .exists = 42,
				  .keywords = 5,
				  .bad = 19,
				  .is_read_only = true,
				  .is_idle = true,
				  .idle_tag = str_of(tag, sizeof(tag)),
				  .recent_count = IMAP_PARKED_RANGES_MAX };
	for (uint32_t i = 0; i < IMAP_PARKED_RANGES_MAX; i++)
		p.recent[i] = (struct imap_range){ i * 10 + 1, i * 10 + 5 };
	round_trip(&p);
	tap_group("another version");
	EQ(imap_parked_read(S("\x02xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
			    &q),
	   ERR_UNSUPPORTED);
	return tap_done();
}
