/* Accounts: their record, their first mailboxes, and the frame around every change.
 *
 * MODSEQ is one counter per account, and takes one value per commit (RFC 7162 3.1: everything that
 * one command changes may share it). The account's record is therefore part of every change, and
 * carries the other counters of the account too.
 */
#include "store/store_priv.h"

#include "base/mutant.h"
#include <stdio.h>

static enum err account_load(struct store *s, enum kv_state state, uint64_t id, struct account *a)
{
	struct key k = key_make1(KIND_ACCOUNT, id);
	str value;
	enum err err = kv_get(s->kv, state, &k, &value);

	return err ? err : account_get(value, a);
}

enum err change_begin(struct store *s, struct pending *p, uint64_t account, bool create,
		      struct change *c)
{
	enum err err;

	*c = (struct change){ .store = s, .pending = p, .id = account };
	err = account_load(s, KV_PENDING, account, &c->account);
	if (err == ERR_NOT_FOUND && create && account) {
		c->is_new = true;
		c->account = (struct account){ .next_email = 1, .next_mailbox = 1 };
		err = ERR_OK;
	}
	if (err)
		return err;
	c->modseq = c->account.modseq + !MUTANT(modseq_stands);
	if (c->is_new)
		account_mailboxes_create(c);
	return ERR_OK;
}

static void account_save(struct change *c, uint64_t modseq)
{
	struct key k = key_make1(KIND_ACCOUNT, c->id);

	c->account.modseq = modseq;
	buf_clear(&c->store->value);
	account_put(&c->store->value, &c->account);
	kv_put(c->store->kv, &k, buf_str(&c->store->value));
}

void change_end(struct change *c)
{
	if (kv_has_changes(c->store->kv))
		account_save(c, c->modseq);
}

/* RFC 6154; subscribed, so that every client shows them. */
void account_mailboxes_create(struct change *c)
{
	static const struct {
		str name;
		enum mailbox_special special;
	} first[] = {
		{ { "INBOX", 5 }, MAILBOX_INBOX }, { { "Drafts", 6 }, MAILBOX_DRAFTS },
		{ { "Sent", 4 }, MAILBOX_SENT },   { { "Junk", 4 }, MAILBOX_JUNK },
		{ { "Trash", 5 }, MAILBOX_TRASH }, { { "Archive", 7 }, MAILBOX_ARCHIVE },
	};
	struct mailbox m;

	for (size_t i = 0; i < ARRAY_LEN(first); i++)
		mailbox_new(c, first[i].name, first[i].special, true, &m);
}

enum err store_bind(struct store *s, uint64_t account, str address, uint64_t quota,
		    store_done *done, void *arg)
{
	struct account known;
	struct change c;
	struct pending *p = pending_new(s, done, arg);
	enum err err;

	if (!p)
		return ERR_NO_MEMORY;
	/* Most binds change nothing: an account that can log in must be able to when the disk is
	 * full. */
	err = account_load(s, KV_PENDING, account, &known);
	err = kv_begin(s->kv, err == ERR_OK);
	if (!err && (err = change_begin(s, p, account, true, &c)))
		kv_cancel(s->kv);
	if (err) {
		pending_free(p);
		return err;
	}
	if (c.is_new || !str_eq(c.account.address, address) || c.account.quota != quota) {
		if (c.account.quota != quota)
			pending_hint(p, account, 0, c.account.modseq);
		c.account.address = address;
		c.account.quota = quota;
		account_save(&c, c.is_new ? c.modseq : c.account.modseq);
	}
	p->reply.modseq = c.account.modseq;
	return pending_end(p);
}

enum err store_usage(struct store *s, uint64_t account, uint64_t *used, uint64_t *quota)
{
	struct account a;
	enum err err = account_load(s, KV_DURABLE, account, &a);

	*used = err ? 0 : a.used;
	*quota = err ? 0 : a.quota;
	kv_release(s->kv);
	return err;
}

enum err store_usage_each(struct store *s,
			  void (*each)(void *arg, uint64_t account, uint64_t used, uint64_t quota),
			  void *arg)
{
	struct key prefix = key_make(KIND_ACCOUNT);
	struct kv_cursor cursor;
	struct account a;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&prefix), false,
				      &cursor);

	if (err)
		return err;
	while (!(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_ACCOUNT, 1, numbers))
			err = ERR_DAMAGED;
		if (err || (err = account_get(value, &a)))
			break;
		each(arg, numbers[0], a.used, a.quota);
	}
	kv_cursor_close(&cursor);
	kv_release(s->kv);
	return err == ERR_EOF ? ERR_OK : err;
}

enum err store_set_quota(struct store *s, uint64_t account, uint64_t quota, store_done *done,
			 void *arg)
{
	struct account known;
	char address[512]; /* the slice would end with the next change */
	enum err err = account_load(s, KV_PENDING, account, &known);
	size_t n = err ? 0 : MIN(known.address.n, sizeof(address));

	if (n)
		memcpy(address, known.address.p, n);
	return err ? err : store_bind(s, account, str_of(address, n), quota, done, arg);
}

static bool is_mailbox_operation(uint8_t op)
{
	return op == STORE_OP_CREATE || op == STORE_OP_DELETE || op == STORE_OP_RENAME ||
	       op == STORE_OP_SUBSCRIBE || op == STORE_OP_KEYWORD;
}

/* What makes room, or takes next to none of it, is done even when the disk is full. */
static bool frees_space(const struct msg_st_commit *in)
{
	return in->op == STORE_OP_EXPUNGE || in->op == STORE_OP_DELETE ||
	       in->op == STORE_OP_FLAGS || in->op == STORE_OP_RECENT;
}

enum err store_commit(struct store *s, uint64_t account, const struct msg_st_commit *in,
		      store_done *done, void *arg)
{
	struct pending *p = pending_new(s, done, arg);
	struct change c;
	enum err err;

	if (!p)
		return ERR_NO_MEMORY;
	if ((err = kv_begin(s->kv, frees_space(in)))) {
		pending_free(p);
		return err;
	}
	err = change_begin(s, p, account, false, &c);
	if (!err)
		err = is_mailbox_operation(in->op) ? mailbox_operation(&c, in)
						   : message_operation(&c, in, c.account.quota);
	if (err) {
		kv_cancel(s->kv);
		pending_free(p);
		return err;
	}
	/* What was recent is no change of a message: it has no MODSEQ (RFC 7162 3.1.1). */
	p->reply.changed = in->op != STORE_OP_RECENT && kv_has_changes(s->kv);
	p->reply.modseq = p->reply.changed ? c.modseq : c.account.modseq;
	if (in->op == STORE_OP_RECENT) {
		/* Nobody is promised \\Recent (RFC 9051 2.3.2): not worth waiting for. */
		struct msg_st_commit_reply reply = p->reply;
		struct account durable;

		/* A MODSEQ that a crash takes back must not be told: it is given again to another
		 * change. */
		if ((err = account_load(s, KV_DURABLE, account, &durable))) {
			kv_cancel(s->kv);
			pending_free(p);
			return err;
		}
		reply.modseq = durable.modseq;
		p->done = NULL;
		if (!(err = pending_end(p)))
			done(arg, ERR_OK, &reply);
		return err;
	}
	change_end(&c);
	return pending_end(p);
}
