/* A stream of cold rows.
 *
 * An answer of the store holds some fifty rows. As soon as one has arrived the next is asked for,
 * so that the store's work and ours overlap; one that is under way when the reader is freed finds
 * nobody: the reader is counted, and the last of the two to let go of it frees it.
 */
#include "imap/cold.h"

#include <stdlib.h>

struct imap_cold {
	struct imap_account *account;
	unsigned references; /* ours, and that of the call under way */
	uint32_t mailbox, last;
	uint32_t next_uid;  /* to be asked for; 0: all were */
	struct buf rows[2]; /* the one in use, the one that arrives */
	unsigned current;
	str rest; /* of rows[current] */
	bool is_asking, has_next;
	enum err err;
	struct rec_row row; /* read from rest, not yet wanted */
	bool has_row;
	struct waiters arrived;
};

static void ask(struct imap_cold *c);

static void release(struct imap_cold *c)
{
	if (--c->references)
		return;
	buf_free(&c->rows[0]);
	buf_free(&c->rows[1]);
	free(c);
}

struct imap_cold *imap_cold_new(struct imap_account *a, uint32_t mailbox, uint32_t first,
				uint32_t last)
{
	struct imap_cold *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct imap_cold){
		.account = a, .references = 1, .mailbox = mailbox, .next_uid = first, .last = last
	};
	buf_init(&c->rows[0], MSG_MAX);
	buf_init(&c->rows[1], MSG_MAX);
	ask(c);
	return c;
}

void imap_cold_free(struct imap_cold *c)
{
	if (c)
		release(c);
}

static void arrived(void *arg, enum err err, struct msg *reply)
{
	struct imap_cold *c = arg;
	struct buf *into = &c->rows[!c->current];

	c->is_asking = false;
	c->err = err;
	if (!err) {
		buf_clear(into);
		buf_add(into, reply->u.st_rows_reply.rows);
		c->next_uid = reply->u.st_rows_reply.next_uid;
		if (c->next_uid > c->last)
			c->next_uid = 0;
		c->has_next = true;
	}
	waiters_wake_all(c->account->loop, &c->arrived);
	release(c);
}

static void ask(struct imap_cold *c)
{
	struct msg_st_rows m = {
		.mailbox = c->mailbox,
		.uid_from = c->next_uid,
		.uid_to = c->last,
		.columns = ROW_COLD,
	};

	if (c->next_uid == 0)
		return;
	c->references++;
	c->is_asking = true;
	c->err = chan_call_async(c->account->store, MSG_st_rows, &m,
				 imap_account_deadline(c->account), arrived, c);
	if (c->err) {
		c->is_asking = false;
		c->references--;
	}
}

/* The next answer becomes the current one. ERR_EOF: there is none. */
static enum err turn(struct imap_cold *c)
{
	enum err err;

	while (c->is_asking)
		if ((err = waiters_wait(c->account->loop, &c->arrived,
					imap_account_deadline(c->account))))
			return err;
	if (c->err)
		return c->err;
	if (!c->has_next)
		return ERR_EOF;
	c->has_next = false;
	c->current = !c->current;
	c->rest = buf_str(&c->rows[c->current]);
	ask(c);
	return ERR_OK;
}

enum err imap_cold_get(struct imap_cold *c, uint32_t uid, struct rec_row_cold *out)
{
	enum err err;
	str cold;

	while (!c->has_row || c->row.uid < uid) {
		err = rec_row_get(&c->rest, &c->row);
		c->has_row = !err;
		if (err && err != ERR_EOF)
			return err;
		if (err && (err = turn(c)))
			return err == ERR_EOF ? ERR_NOT_FOUND : err;
	}
	if (c->row.uid != uid)
		return ERR_NOT_FOUND;
	cold = c->row.cold;
	return rec_row_cold_get(&cold, out);
}
