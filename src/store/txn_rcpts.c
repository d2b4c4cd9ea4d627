/* Who gets a message, each once, and who is told of it.
 *
 * auth resolved each RCPT to final recipients; two of them may end in one account. They are found
 * by a table, as lists of thousands are real. What the sender asked to hear of (RFC 3461) belongs
 * to the RCPT, not to the account behind it, and is owed even where the message was there already.
 */
#include "store/txn_priv.h"

#include <stdlib.h>

void rcpt_list_free(struct rcpt_list *l)
{
	free(l->items);
	free(l->slots);
	free(l->owed);
}

static bool same_rcpt(const struct rec_txn_rcpt *a, const struct rec_txn_rcpt *b)
{
	return a->account == b->account && (a->account || str_eq(a->address, b->address));
}

static void rcpt_list_add(struct rcpt_list *l, const struct rec_txn_rcpt *r)
{
	uint64_t hash =
		r->account ? r->account * 0x9e3779b97f4a7c15u >> 20 : str_hash(r->address, 0);

	for (size_t at = hash & l->slot_mask;; at = (at + 1) & l->slot_mask) {
		if (!l->slots[at]) {
			l->items[l->count] = *r;
			l->slots[at] = (uint32_t)++l->count;
			return;
		}
		if (same_rcpt(&l->items[l->slots[at] - 1], r))
			return;
	}
}

static enum err owed_add(const struct txn *t, struct rcpt_list *l, const struct rec_txn_rcpt *r,
			 enum queue_state state)
{
	if (!l->owed && !(l->owed = calloc(t->received, sizeof(*l->owed))))
		return ERR_NO_MEMORY;
	l->owed[l->owed_count++] = (struct owed){ *r, state };
	return ERR_OK;
}

/* What the sender is to hear of *r when it is delivered. `last` is the number of the RCPT before,
 * `rest` what follows: those behind one RCPT stand together. */
static enum err owed_find(const struct txn *t, struct rcpt_list *l, struct rec_txn_rcpt *r,
			  uint32_t last, str rest)
{
	struct rec_txn_rcpt next;
	enum err err = ERR_OK;

	/* RFC 3464 2: nobody is told of mail with the null sender. */
	if (!t->sender.n || (r->notify & (NOTIFY_SUCCESS | NOTIFY_NEVER)) != NOTIFY_SUCCESS)
		return ERR_OK;
	if (r->number != last && (rec_txn_rcpt_get(&rest, &next) || next.number != r->number))
		return r->account ? owed_add(t, l, r, QUEUE_DELIVERED) : ERR_OK;
	/* RFC 3461 5.2.7.3 (c): of an alias of several it is told that it was one; those behind it
	 * do not tell of success. */
	if (r->number != last)
		err = owed_add(t, l, r, QUEUE_EXPANDED);
	r->notify &= (uint8_t)~NOTIFY_SUCCESS;
	if (!r->notify)
		r->notify = NOTIFY_NEVER;
	return err;
}

enum err rcpt_list_make(const struct txn *t, struct rcpt_list *l)
{
	size_t slots = 16;
	struct rec_txn_rcpt r;
	str rest = buf_str(&t->rcpts);
	uint32_t last = UINT32_MAX;
	enum err err;

	while (slots < 2 * (size_t)t->received)
		slots *= 2;
	*l = (struct rcpt_list){ .items = calloc(t->received, sizeof(*l->items)),
				 .slots = calloc(slots, sizeof(*l->slots)),
				 .slot_mask = slots - 1 };
	if (!l->items || !l->slots)
		return ERR_NO_MEMORY;
	while (!(err = rec_txn_rcpt_get(&rest, &r))) {
		if (r.number >= t->rcpt_count)
			return ERR_PROTOCOL;
		if ((err = owed_find(t, l, &r, last, rest)))
			return err;
		last = r.number;
		rcpt_list_add(l, &r);
	}
	return err == ERR_EOF ? ERR_OK : err;
}
