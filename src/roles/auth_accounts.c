/* What auth knows of all accounts together: whether each has SCRAM's keys, and which are full.
 *
 * SCRAM can be offered to clients only when every account could use it: an account whose hash came
 * from another server has no SCRAM keys, and a client that sees SCRAM chooses it, fails, and tries
 * nothing else. A front offers before it knows who will log in, so the answer is one for all. The
 * directory is asked when it changed, and the fronts are told when the answer did.
 *
 * Who is full is the store's to know, and whether a recipient is taken is decided here, at RCPT.
 * The store says which accounts have reached their quota and how much they use; what the quota is,
 * the directory says at that moment, so that a raised one counts at once. What the store process
 * before said is forgotten when it goes away; the next one tells all again. The alternative, asking
 * the store at each RCPT, would cost every recipient a round trip for the few that are full.
 */
#include "roles/auth_priv.h"

#include <stdlib.h>

struct full_account {
	struct lru_node node;
	uint8_t key[8];
	uint64_t used;
};

/* ---- what fronts remember ---- */

void auth_grants_end(struct auth_role *a)
{
	a->grants_untold = false;
	for (unsigned i = 0; i < role_peers(a->role, ROLE_FRONT); i++) {
		struct chan *front = role_peer(a->role, ROLE_FRONT, i);
		enum err err = front ? SEND(front, auth_changed) : ERR_OK;

		/* One that is away remembers nothing when it is back; one that is behind is told at
		 * the next tick, and until then learns of a refusal with the end of the data. */
		a->grants_untold |= err && err != ERR_CLOSED;
	}
}

void auth_grants_check(struct auth_role *a)
{
	if (directory_refresh(a->directory) == ERR_OK &&
	    directory_changes(a->directory) == a->grants_changes && !a->grants_untold)
		return;
	a->grants_changes = directory_changes(a->directory);
	auth_grants_end(a);
}

/* ---- SCRAM ---- */

static void mechanisms_tell(struct auth_role *a, struct chan *front)
{
	enum err err = SEND(front, auth_mechanisms, .scram = a->all_have_scram);

	/* One that is away is told when it is back; one that is behind, at the next tick. */
	if (err && err != ERR_CLOSED)
		a->mechanisms_known = false;
}

void auth_mechanisms_check(struct auth_role *a)
{
	bool all;
	enum err err = directory_refresh(a->directory);

	if (!err && a->mechanisms_known && directory_changes(a->directory) == a->mechanisms_changes)
		return;
	if (!err)
		err = directory_all_have_scram(a->directory, &all);
	if (err) {
		log_warn(&a->role->log, "directory-failed", "reason=\"%.*s\"",
			 STR_ARGS(directory_failure(a->directory)));
		return;
	}
	a->mechanisms_changes = directory_changes(a->directory);
	if (a->mechanisms_known && all == a->all_have_scram)
		return;
	a->all_have_scram = all;
	a->mechanisms_known = true;
	for (unsigned i = 0; i < role_peers(a->role, ROLE_FRONT); i++)
		if (role_peer(a->role, ROLE_FRONT, i))
			mechanisms_tell(a, role_peer(a->role, ROLE_FRONT, i));
}

void auth_front_up(struct auth_role *a, struct chan *front)
{
	if (a->mechanisms_known)
		mechanisms_tell(a, front);
}

/* ---- quota ---- */

static struct full_account *full_find(const struct auth_role *a, uint64_t account)
{
	uint8_t key[8];
	struct lru_node *n;

	put_le64(key, account);
	n = lru_find(&a->full, str_of(key, sizeof(key)));
	return n ? CONTAINER_OF(n, struct full_account, node) : NULL;
}

static void full_free(struct auth_role *a, struct full_account *f)
{
	(void)lru_remove(&a->full, &f->node);
	free(f);
}

void auth_full_clear(struct auth_role *a)
{
	struct lru_node *n;

	while ((n = lru_oldest(&a->full, 0)) != NULL)
		full_free(a, CONTAINER_OF(n, struct full_account, node));
}

void auth_account_full(struct auth_role *a, const struct msg_account_full *m)
{
	struct full_account *f = full_find(a, m->account);

	if (!m->over) {
		if (f)
			full_free(a, f);
		return;
	}
	if (!f) {
		/* Without room one is forgotten, and gets mail: its quota is soft, mail for others
		 * must not wait for it. */
		if (lru_is_full(&a->full))
			full_free(a,
				  CONTAINER_OF(lru_oldest(&a->full, 0), struct full_account, node));
		if (!(f = calloc(1, sizeof(*f))))
			return;
		auth_grants_end(a);
		put_le64(f->key, m->account);
		lru_insert(&a->full, &f->node, str_of(f->key, sizeof(f->key)), 0);
	}
	f->used = m->used;
}

bool auth_account_is_full(const struct auth_role *a, uint64_t account, uint64_t quota)
{
	const struct full_account *f = account > 0 && quota > 0 ? full_find(a, account) : NULL;

	return f && f->used >= quota;
}
