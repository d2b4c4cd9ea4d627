/* Transactions: may this sender send, to whom, and who gets it in the end.
 *
 * A front says what its client says: MAIL, RCPT, end of data. What it cannot say is who the client
 * is (that is known here, from the login on that connection), nor who receives (that is resolved
 * here and told to store directly). So a front that lies gets no mail relayed, no foreign sender
 * accepted and no recipient invented:
 *
 *  - the message id carries the instance of the role that made it, and is taken from that role
 * alone, so that one front cannot mix into another's transactions;
 *  - relaying is for those who logged in on that connection, and for clients in mynetworks, whose
 * address the kernel tells us on the socket itself, not the front in words;
 *  - only queue may send without a client, with the null sender alone, and only it may end queue
 * records.
 *
 * A recipient that two RCPTs lead to gets the message once; that is told to store more than once
 * only when the sender wants to hear of each RCPT's success. Everything here is bounded and goes
 * away with the peer it came from.
 */
#include "auth/address.h"
#include "base/os.h"
#include "roles/auth_priv.h"
#include "store/types.h"

#include <stdlib.h>

enum { RCPT_RECORDS_MAX = 56 * 1024, ENDS_MAX = 4096, SET_MIN = 64 };

/* A final recipient that is there already: its hash and where its record begins in `rcpts`. */
struct rcpt_slot {
	uint64_t hash;
	uint32_t position_plus_one;
};

/* Who asks; `id` is the question's. */
struct auth_question {
	struct chan *from;
	uint32_t id;
	uint64_t txn;
	bool commits;
};

struct auth_txn {
	struct lru_node node;
	uint8_t key[8]; /* the message id */
	uint64_t id;
	struct chan *peer;
	uint64_t submitter;
	bool may_relay;
	bool smtputf8;
	uint8_t body, ret;
	uint32_t rcpts_accepted, rcpts_final;
	struct buf sender, envid;
	struct buf rcpts; /* RECORD txn_rcpt */
	struct rcpt_slot *set;
	size_t set_size; /* a power of two */
};

static struct auth_txn *txn_find(const struct auth_role *a, const struct chan *peer, uint64_t id)
{
	uint8_t key[8];
	struct lru_node *n;
	struct auth_txn *t;

	put_le64(key, id);
	n = lru_find(&a->txns, str_of(key, sizeof(key)));
	t = n ? CONTAINER_OF(n, struct auth_txn, node) : NULL;
	return t && t->peer == peer ? t : NULL;
}

static void txn_free(struct auth_role *a, struct auth_txn *t)
{
	(void)lru_remove(&a->txns, &t->node);
	a->rcpt_bytes -= buf_len(&t->rcpts);
	buf_free(&t->sender);
	buf_free(&t->envid);
	buf_free(&t->rcpts);
	free(t->set);
	free(t);
}

void auth_reset(struct auth_role *a, struct chan *from, uint64_t id)
{
	struct auth_txn *t = txn_find(a, from, id);

	if (t)
		txn_free(a, t);
}

void auth_txns_drop(struct auth_role *a, struct chan *peer)
{
	struct lru_node *n = lru_oldest(&a->txns, 0);

	while (n) {
		struct auth_txn *t = CONTAINER_OF(n, struct auth_txn, node);

		n = n->newer;
		if (!peer || t->peer == peer)
			txn_free(a, t);
	}
}

/* A question that also commits is not answered: who asked waits for the store, which is told what
 * speaks against it. */
static void verdict_send(struct auth_role *a, const struct auth_question *q,
			 const struct msg_auth_verdict *v)
{
	enum err err = ERR_OK;

	if (!q->commits)
		err = chan_reply(q->from, q->id, MSG_auth_verdict, v);
	else if (v->code != 250)
		err = SEND(role_peer(a->role, ROLE_STORE, 0), txn_envelope, .txn = q->txn,
			   .code = v->code, .status = v->status, .text = v->text);
	if (err)
		log_warn(&a->role->log, "verdict-lost", "error=%s", err_name(err));
}

static void verdict(struct auth_role *a, const struct auth_question *q, unsigned code, str status,
		    str text, bool begun)
{
	verdict_send(
		a, q,
		&(struct msg_auth_verdict){
			.code = (uint16_t)code, .status = status, .text = text, .begun = begun });
}

/* ---- MAIL ---- */

/* Is the client one of ours by its address? The socket is the client's; the kernel knows its ends.
 */
static bool client_is_trusted(struct auth_role *a, const struct msg_auth_mail *m)
{
	struct addr client, local;

	if (!str_eq(m->service, S("smtp")) || m->socket <= 0 || os_peer_addr(m->socket, &client) ||
	    (client.family != ADDR_IP4 && client.family != ADDR_IP6))
		return false;
	if (conf_nets_contain(a->role->conf, CONF_mynetworks, &client))
		return true;
	return str_eq(conf_str(a->role->conf, CONF_mynetworks_style), S("host")) &&
	       (addr_is_loopback(&client) ||
		(!os_local_addr(m->socket, &local) && addr_ip_eq(&client, &local)));
}

/* What stands against this sender; NULL text: nothing. */
struct objection {
	unsigned code;
	const char *status, *text;
};

static struct objection sender_objection(struct auth_role *a, const struct msg_auth_mail *m,
					 uint64_t account)
{
	struct auth_address address;
	enum send_as reason;
	enum err err;

	/* RFC 6409 4.3: a submission server takes no mail from those it does not know. */
	if (account == 0 && str_starts(m->service, S("submission")))
		return (struct objection){ 530, "5.7.0", "Authentication required" };
	if (m->sender.n == 0)
		return (struct objection){
			.text = NULL
		}; /* RFC 5321 4.5.5: notifications have no sender */
	err = auth_address_parse(m->sender, a->arena, &address);
	if (err == ERR_SYNTAX || err == ERR_TOO_LONG)
		return (struct objection){ 501, "5.1.7", "Bad sender address syntax" };
	if (!err && account == 0)
		return (struct objection){ .text = NULL };
	if (!err)
		err = directory_refresh(a->directory);
	if (!err)
		err = may_send_as(a->resolver, account, m->sender, &reason);
	if (err)
		return (struct objection){ 451, "4.3.0", "Temporary lookup failure" };
	if (!send_as_is_allowed(reason))
		return (struct objection){
			553, "5.7.1", "Sender address rejected: not owned by the authenticated user"
		};
	return (struct objection){ .text = NULL };
}

/* Is the id one that this peer may make, and not in use? */
static bool id_is_good(struct auth_role *a, struct chan *from, uint64_t id)
{
	uint8_t key[8];

	put_le64(key, id);
	return msgid_instance(id) == role_peer_instance(a->role, from) &&
	       !lru_find(&a->txns, str_of(key, sizeof(key)));
}

static bool keep(struct buf *b, str s)
{
	buf_init(b, 1024);
	buf_add(b, s);
	return !buf_failed(b);
}

static struct auth_txn *txn_make(struct auth_role *a, struct chan *from,
				 const struct msg_auth_mail *m)
{
	struct auth_txn *t = lru_is_full(&a->txns) ? NULL : calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->id = m->txn;
	t->peer = from;
	t->smtputf8 = m->smtputf8;
	t->body = m->body;
	t->ret = m->ret;
	put_le64(t->key, m->txn);
	buf_init(&t->rcpts, AUTH_RCPT_BYTES_MAX);
	lru_insert(&a->txns, &t->node, str_of(t->key, sizeof(t->key)), 0);
	if (keep(&t->sender, m->sender) && keep(&t->envid, m->envid))
		return t;
	txn_free(a, t);
	return NULL;
}

static void rcpt(struct auth_role *a, const struct auth_question *q, const struct msg_auth_rcpt *m);

/* It was asked for with the question: with its recipient, or not at all. */
static void commit_at_once(struct auth_role *a, struct chan *from, uint64_t id)
{
	struct auth_txn *t = txn_find(a, from, id);

	if (t && t->rcpts_accepted > 0)
		auth_commit(a, from, &(struct msg_auth_commit){ .txn = id });
	else if (t)
		txn_free(a, t);
}

void auth_mail(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_auth_mail *m)
{
	const struct auth_question asked = { from, id, m->txn, m->commit }, *q = &asked;
	uint64_t account = auth_conn_account(a, from, m->conn);
	struct objection o = { .text = NULL };
	struct auth_txn *t;

	if (!id_is_good(a, from, m->txn)) {
		log_error(&a->role->log, "bad-message-id", "peer=%s.%u", role_name(chan_peer(from)),
			  chan_peer_index(from));
		/* The store hears nothing: it may be another's. */
		if (!m->commit)
			verdict(a, q, 451, S("4.3.0"), S("Temporary internal failure"), false);
		return;
	}
	if (chan_peer(from) != ROLE_QUEUE)
		o = sender_objection(a, m, account);
	else if (m->sender.n > 0)
		o = (struct objection){ 553, "5.7.1", "Notifications have no sender" };
	if (o.text) {
		verdict(a, q, o.code, str_from_c(o.status), str_from_c(o.text), false);
		return;
	}
	t = txn_make(a, from, m);
	if (!t) {
		verdict(a, q, 451, S("4.3.2"), S("Too many transactions at the moment"), false);
		return;
	}
	t->submitter = account;
	t->may_relay = chan_peer(from) == ROLE_QUEUE || account > 0 || client_is_trusted(a, m);
	if (m->rcpt.n || m->commit)
		rcpt(a, q,
		     &(struct msg_auth_rcpt){ .txn = m->txn,
					      .address = m->rcpt,
					      .notify = m->notify,
					      .orcpt = m->orcpt });
	else
		verdict(a, q, 250, S("2.1.0"), S("Ok"), true);
	if (m->commit)
		commit_at_once(a, from, m->txn);
}

/* ---- RCPT ---- */

/* RFC 3461 4.1: success is told of the address that RCPT gave, so who asks for that is another
 * recipient. */
static str told_as(uint8_t notify, str original)
{
	return notify & NOTIFY_SUCCESS ? original : STR_EMPTY;
}

static uint64_t rcpt_hash(const struct auth_role *a, const struct msg_auth_rcpt *m,
			  const struct resolved_recipient *r)
{
	str told = told_as(m->notify, m->address);
	uint64_t hash =
		siphash(a->txns.seed,
			r->account > 0 ? str_of(&r->account, sizeof(r->account)) : r->address);

	return told.n ? hash ^ siphash(a->txns.seed, told) * 3 : hash;
}

static bool is_same_rcpt(const struct auth_txn *t, uint32_t position, const struct msg_auth_rcpt *m,
			 const struct resolved_recipient *r)
{
	str rest = str_from(buf_str(&t->rcpts), position);
	struct rec_txn_rcpt there;

	return !rec_txn_rcpt_get(&rest, &there) && there.account == r->account &&
	       (r->account > 0 || str_eq(there.address, r->address)) &&
	       str_eq(told_as(there.notify, there.original), told_as(m->notify, m->address));
}

/* The slot of a recipient: its own, or the free one where it belongs. */
static struct rcpt_slot *set_slot(const struct auth_txn *t, uint64_t hash,
				  const struct msg_auth_rcpt *m, const struct resolved_recipient *r)
{
	size_t i = hash & (t->set_size - 1);

	while (t->set[i].position_plus_one > 0 &&
	       !(r && t->set[i].hash == hash &&
		 is_same_rcpt(t, t->set[i].position_plus_one - 1, m, r)))
		i = (i + 1) & (t->set_size - 1);
	return &t->set[i];
}

/* Room for one more, at most half full. */
static enum err set_grow(struct auth_txn *t)
{
	struct rcpt_slot *old = t->set;
	size_t old_size = t->set_size;

	if (2 * ((size_t)t->rcpts_final + 1) <= t->set_size)
		return ERR_OK;
	t->set_size = MAX(2 * old_size, (size_t)SET_MIN);
	t->set = calloc(t->set_size, sizeof(*t->set));
	if (!t->set) {
		t->set = old;
		t->set_size = old_size;
		return ERR_NO_MEMORY;
	}
	for (size_t i = 0; i < old_size; i++)
		if (old[i].position_plus_one > 0)
			*set_slot(t, old[i].hash, NULL, NULL) = old[i];
	free(old);
	return ERR_OK;
}

static enum err add_final(struct auth_role *a, struct auth_txn *t, const struct msg_auth_rcpt *m,
			  const struct resolved_recipient *r)
{
	uint64_t hash = rcpt_hash(a, m, r);
	size_t before = buf_len(&t->rcpts);
	struct rcpt_slot *slot;
	enum err err;

	if ((err = set_grow(t)))
		return err;
	slot = set_slot(t, hash, m, r);
	if (slot->position_plus_one > 0)
		return ERR_OK;
	rec_txn_rcpt_put(&t->rcpts, &(struct rec_txn_rcpt){ .number = t->rcpts_accepted,
							    .account = r->account,
							    .address = r->address,
							    .original = m->address,
							    .notify = m->notify,
							    .orcpt = m->orcpt,
							    .quota = r->quota });
	if (buf_failed(&t->rcpts))
		return ERR_NO_MEMORY;
	*slot = (struct rcpt_slot){ hash, (uint32_t)before + 1 };
	a->rcpt_bytes += buf_len(&t->rcpts) - before;
	t->rcpts_final++;
	return ERR_OK;
}

static bool any_is_remote(const struct resolution *r)
{
	for (size_t i = 0; i < r->count; i++)
		if (r->recipients[i].account == 0)
			return true;
	return false;
}

/* Does nobody that this leads to have room? One full mailbox among several gets the message all the
 * same: there is one answer for all, and the others must not miss it. */
static bool all_are_full(const struct auth_role *a, const struct resolution *r)
{
	for (size_t i = 0; i < r->count; i++)
		if (!auth_account_is_full(a, r->recipients[i].account, r->recipients[i].quota))
			return false;
	return true;
}

static void refuse_rcpt(struct auth_role *a, const struct auth_question *q, str address,
			enum err why)
{
	static const struct refusal {
		enum err err;
		unsigned code;
		const char *status, *text;
	} refusals[] = {
#define REFUSAL(error, code, status, text) { ERR_##error, code, status, text },
#include "roles/auth_mail.def"
#undef REFUSAL
	};

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		const struct refusal *r = &refusals[i];

		if (r->err == why) {
			verdict(a, q, r->code, str_from_c(r->status), str_from_c(r->text), true);
			return;
		}
	}
	/* A lookup that failed is never "no such user". */
	log_warn(&a->role->log, "lookup-failed", "address=%.*s error=%s detail=\"%.*s\"",
		 STR_ARGS(address), err_name(why), STR_ARGS(directory_failure(a->directory)));
	verdict(a, q, 451, S("4.3.0"), S("Temporary lookup failure"), true);
}

static void accept_rcpt(struct auth_role *a, struct auth_txn *t, const struct auth_question *q,
			const struct msg_auth_rcpt *m, const struct resolution *found)
{
	enum err err = ERR_OK;

	/* All of them or none: who a refused RCPT leads to must not get the message. */
	if (t->rcpts_final + found->count > AUTH_TXN_RCPTS_MAX ||
	    a->rcpt_bytes >= AUTH_RCPT_BYTES_MAX) {
		verdict(a, q, 452, S("4.5.3"), S("Too many recipients"), true);
		return;
	}
	for (size_t i = 0; i < found->count && !err; i++)
		err = add_final(a, t, m, &found->recipients[i]);
	if (err) {
		txn_free(a, t);
		verdict(a, q, 451, S("4.3.0"), S("Temporary internal failure"), true);
		return;
	}
	t->rcpts_accepted++;
	/* Who asks makes no difference for an address of ours, whoever gets it in the end. */
	verdict_send(a, q,
		     &(struct msg_auth_verdict){ .code = 250,
						 .status = S("2.1.5"),
						 .text = S("Ok"),
						 .relays = any_is_remote(found),
						 .holds = found->by != RESOLVED_REMOTE,
						 .begun = true });
}

static void rcpt(struct auth_role *a, const struct auth_question *q, const struct msg_auth_rcpt *m)
{
	struct auth_txn *t = txn_find(a, q->from, m->txn);
	struct resolution found;
	enum err err;

	if (!t) {
		verdict(a, q, 503, S("5.5.1"), S("Need MAIL command first"), true);
		return;
	}
	/* RFC 5321 4.5.3.1.10 */
	if (t->rcpts_accepted >= conf_u64(a->role->conf, CONF_smtpd_recipient_limit)) {
		verdict(a, q, 452, S("4.5.3"), S("Too many recipients"), true);
		return;
	}
	err = directory_refresh(a->directory);
	if (!err)
		err = resolve(a->resolver, m->address, a->arena, &found);
	if (err)
		refuse_rcpt(a, q, m->address, err);
	else if (found.by == RESOLVED_REMOTE && !t->may_relay)
		verdict(a, q, 554, S("5.7.1"), S("Relay access denied"), true);
	else if (chan_peer(q->from) != ROLE_QUEUE && all_are_full(a, &found))
		/* RFC 5321 4.2.2, RFC 3463 3.3: temporary, since its owner can make room, and the
		 * sender's queue tries for days and then tells. A report from our own queue is
		 * small, and the last that is heard of a message: it goes in. */
		verdict(a, q, 452, S("4.2.2"), S("The recipient's mailbox is full"), true);
	else
		accept_rcpt(a, t, q, m, &found);
}

void auth_rcpt(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_auth_rcpt *m)
{
	rcpt(a, &(struct auth_question){ .from = from, .id = id, .txn = m->txn }, m);
}

/* ---- end of data ---- */

/* The whole records at the front of *rest that fit into one message. */
static str next_records(str *rest)
{
	str start = *rest, at = *rest;
	struct rec_txn_rcpt r;

	while (at.n > 0 && !rec_txn_rcpt_get(&at, &r) && start.n - at.n <= RCPT_RECORDS_MAX)
		*rest = at;
	return str_head(start, start.n - rest->n);
}

static enum err send_envelope(struct chan *store, struct auth_txn *t, str ends)
{
	str rest = buf_str(&t->rcpts);
	enum err err = SEND(store, txn_envelope, .txn = t->id, .sender = buf_str(&t->sender),
			    .submitter = t->submitter, .smtputf8 = t->smtputf8, .body = t->body,
			    .ret = t->ret, .envid = buf_str(&t->envid),
			    .rcpts = next_records(&rest), .count = t->rcpts_final, .ends = ends);

	while (!err && rest.n > 0)
		err = SEND(store, txn_rcpts, .txn = t->id, .rcpts = next_records(&rest));
	return err;
}

void auth_commit(struct auth_role *a, struct chan *from, const struct msg_auth_commit *m)
{
	struct auth_txn *t = txn_find(a, from, m->txn);
	struct chan *store = role_peer(a->role, ROLE_STORE, 0);
	char text[MSGID_TEXT + 1];
	enum err err = ERR_OK;

	if (!t || t->rcpts_accepted == 0)
		err = ERR_STALE;
	else if (m->ends.n > 0 && (chan_peer(from) != ROLE_QUEUE || m->ends.n > ENDS_MAX))
		err = ERR_DENIED;
	else
		err = send_envelope(store, t, m->ends);
	/* Store then never hears of it, and its sender gets a temporary error from the deadline. */
	if (err)
		log_error(&a->role->log, "envelope-not-sent", "msg=%.*s peer=%s.%u error=%s",
			  STR_ARGS(msgid_text(m->txn, text)), role_name(chan_peer(from)),
			  chan_peer_index(from), err_name(err));
	if (t)
		txn_free(a, t);
}
