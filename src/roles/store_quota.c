/* Quota, as the role store tells it: which accounts have reached theirs.
 *
 * auth decides at RCPT whether a full account's mail is taken, so it must know who is full; only
 * the store counts. It keeps the set of full accounts here, found by one walk at the start and then
 * kept at each durable change, and tells auth each change of it, and the whole set when auth is a
 * new process. An account that is full is told again whenever its use changes: auth compares with
 * the directory's quota, which may be a newer one than the store's.
 */
#include "roles/store_priv.h"

#include <stdlib.h>

struct full_account {
	struct full_account *next;
	uint64_t id, used;
};

static struct full_account **full_at(struct store_role *s, uint64_t id)
{
	struct full_account **at = &s->full[id * 0x9e3779b97f4a7c15u >> 52];

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

/* What auth could not be told is told at the next tick, all of it. */
static void tell(struct store_role *s, uint64_t account, uint64_t used, bool over)
{
	struct chan *auth = role_peer(s->role, ROLE_AUTH, 0);

	if (auth &&
	    SEND(auth, account_full, .account = account, .used = used, .over = over) == ERR_BUSY)
		s->full_untold = true;
}

static bool is_full(uint64_t used, uint64_t quota)
{
	return quota > 0 && used >= quota;
}

/* True when there is something to tell. */
static bool note(struct store_role *s, uint64_t account, uint64_t used, uint64_t quota)
{
	struct full_account **at = full_at(s, account), *f = *at;

	if (!is_full(used, quota)) {
		if (!f)
			return false;
		*at = f->next;
		free(f);
		return true;
	}
	if (f && f->used == used)
		return false;
	if (!f && (*at = f = calloc(1, sizeof(*f))))
		f->id = account;
	if (f)
		f->used = used;
	return true;
}

static void on_account(void *arg, uint64_t account, uint64_t used, uint64_t quota)
{
	(void)note(arg, account, used, quota);
}

enum err store_role_quota_start(struct store_role *s)
{
	enum err err = store_usage_each(s->store, on_account, s);

	if (!err)
		store_role_quota_tell_all(s);
	return err;
}

void store_role_quota_tell_all(struct store_role *s)
{
	s->full_untold = false;
	for (size_t i = 0; i < ACCOUNT_SLOTS; i++)
		for (const struct full_account *f = s->full[i]; f && !s->full_untold; f = f->next)
			tell(s, f->id, f->used, true);
}

void store_role_quota_changed(struct store_role *s, uint64_t account)
{
	uint64_t used, quota;
	enum err err = store_usage(s->store, account, &used, &quota);

	if (err)
		log_warn(&s->role->log, "store-usage-unknown", "account=%llu error=%s",
			 (unsigned long long)account, err_name(err));
	else if (note(s, account, used, quota))
		tell(s, account, used, is_full(used, quota));
}

void store_role_quota_usage(struct store_role *s, struct chan *from, const struct msg *m)
{
	uint64_t used, quota;
	enum err err = store_usage(s->store, m->u.account_usage.account, &used, &quota);

	if (!err)
		err = REPLY(from, m->id, account_usage_reply, .used = used, .quota = quota);
	if (err)
		store_role_refuse(s, from, m->id, err);
}

void store_role_quota_set(struct store_role *s, struct client *auth, const struct msg *m)
{
	const struct msg_account_quota *in = &m->u.account_quota;
	struct waiting *w = waiting_new(auth, m->id, true);
	enum err err = w ? store_set_quota(s->store, in->account, in->quota, waiting_done, w)
			 : ERR_NO_MEMORY;

	if (!err)
		return;
	if (w)
		waiting_free(w);
	store_role_refuse(s, auth->chan, m->id, err);
}

void store_role_quota_free(struct store_role *s)
{
	for (size_t i = 0; i < ACCOUNT_SLOTS; i++) {
		struct full_account *f;

		while ((f = s->full[i])) {
			s->full[i] = f->next;
			free(f);
		}
	}
}
