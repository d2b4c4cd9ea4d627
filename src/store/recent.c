/* Which rows changed lately: so that 'what changed since a moment ago' costs what changed, not a
 * walk over the mailbox.
 *
 * A session asks that after each hint, with the MODSEQ it has seen. For mailboxes that somebody
 * asked about, the UIDs that commits touch are noted in a ring with the commit's MODSEQ. The ring
 * knows from which MODSEQ on it is complete (`floor`); whoever asks about an earlier one is
 * answered by the walk.
 *
 * A note is a pointer, not an answer: the row is read as it is, and told if its MODSEQ is newer
 * than what was asked for. So notes of commits that were taken back, or are not durable yet, do no
 * harm, and nothing is to be undone. An index by MODSEQ on the disk was turned down: every flag
 * change would write two more records.
 *
 * The table is a cache of one place per hash: two mailboxes that meet in it take turns, and cost
 * walks. */
#include "store/store_priv.h"

#include <stdlib.h>

enum { RECENT_CHANGES = RECENT_UIDS_MAX };

struct recent_change {
	uint64_t modseq;
	uint32_t uid;
};

struct recent {
	uint64_t account, floor;
	uint32_t mailbox;
	unsigned next, count;
	struct recent_change changes[RECENT_CHANGES];
};

static struct recent **recent_at(struct store *s, uint64_t account, uint32_t mailbox)
{
	return &s->recent[((account << 16 ^ mailbox) * 0x9e3779b97f4a7c15u) >> 32 &
			  (RECENT_SLOTS - 1)];
}

static struct recent *recent_find(struct store *s, uint64_t account, uint32_t mailbox)
{
	struct recent *r = *recent_at(s, account, mailbox);

	return r && r->account == account && r->mailbox == mailbox ? r : NULL;
}

void recent_free(struct store *s)
{
	for (size_t i = 0; i < RECENT_SLOTS; i++)
		free(s->recent[i]);
}

void recent_note(struct store *s, uint64_t account, uint32_t mailbox, uint64_t modseq, uint32_t uid)
{
	struct recent *r = recent_find(s, account, mailbox);
	struct recent_change *at;

	if (!r)
		return;
	at = &r->changes[r->next++ % RECENT_CHANGES];
	if (r->count == RECENT_CHANGES)
		r->floor = MAX(r->floor, at->modseq);
	else
		r->count++;
	*at = (struct recent_change){ .modseq = modseq, .uid = uid };
}

/* From the account's pending MODSEQ on: what is under way now was not noted. */
static void recent_begin(struct store *s, uint64_t account, uint32_t mailbox)
{
	struct recent **at = recent_at(s, account, mailbox);
	struct key k = key_make1(KIND_ACCOUNT, account);
	struct account a;
	str value;

	if (kv_get(s->kv, KV_PENDING, &k, &value) || account_get(value, &a))
		return;
	if (!*at && !(*at = malloc(sizeof(**at))))
		return;
	**at = (struct recent){ .account = account, .mailbox = mailbox, .floor = a.modseq };
}

static int uid_compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

bool recent_uids(struct store *s, uint64_t account, uint32_t mailbox, uint64_t since,
		 uint32_t uids[RECENT_UIDS_MAX], unsigned *count)
{
	struct recent *r = recent_find(s, account, mailbox);
	unsigned n = 0, kept = 0;

	*count = 0;
	if (!r) {
		recent_begin(s, account, mailbox);
		return false;
	}
	if (since < r->floor)
		return false;
	for (unsigned i = 0; i < r->count; i++)
		if (r->changes[i].modseq > since)
			uids[n++] = r->changes[i].uid;
	if (n)
		qsort(uids, n, sizeof(*uids), uid_compare);
	for (unsigned i = 0; i < n; i++)
		if (!kept || uids[kept - 1] != uids[i])
			uids[kept++] = uids[i];
	*count = kept;
	return true;
}
