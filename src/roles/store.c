/* The role store: the only one that knows the engine. Here messages become calls of store/engine.h,
 * and what became durable becomes replies; nothing else.
 *
 * Everything that arrives in one turn of the loop is handed to the engine first; then one flush
 * writes it as one frame. While that is synced (in a helper thread), the next turns gather the next
 * frame.
 *
 * Who may ask what is a table (messages.def: which role may send it at all; below: on which kind of
 * channel). Stored mail is asked for on a channel that auth bound to an account, and on nothing
 * else.
 *
 * Sandbox: files below the store's directory. Recovery runs before it is locked, because the syncer
 * is a thread.
 */
#include "conf/conf.h"
#include "roles/store_priv.h"

#include <stdlib.h>

enum { TICK_MS = 500, CHECKPOINT_SECONDS = 600, CHECKPOINT_AGAIN_SECONDS = 5, STEADY_SECONDS = 10 };

static enum err store_init(struct role *r)
{
	struct store_role *s = calloc(1, sizeof(*s));

	if (!s)
		return ERR_NO_MEMORY;
	s->role = r;
	s->dir = -1;
	store_reply_init(&s->reply);
	buf_init(&s->blobs, 32 * 1024 * 1024);
	r->state = s;
	return ERR_OK;
}

static enum err store_file(struct role *r, str name, str path UNUSED, int fd)
{
	struct store_role *s = r->state;

	if (!str_eq(name, S("store")) || s->dir >= 0) {
		os_close(fd);
		return ERR_UNSUPPORTED;
	}
	s->dir = fd;
	os_fd_path(fd, s->path);
	return ERR_OK;
}

static void traced(void *arg, uint64_t message, unsigned event, str sender, str recipient, str text)
{
	struct store_role *s = arg;

	role_trace(s->role, message, event, sender, recipient, "%.*s", STR_ARGS(text));
}

static void removed(void *arg, int fd)
{
	struct store_role *s = arg;
	struct chan *helper = role_peer(s->role, ROLE_CHECKPOINT, 0);

	/* Not behind others: descriptors are few. */
	if (helper && chan_counts(helper).queued_bytes == 0 && SEND(helper, cp_removed, .file = fd))
		log_debug(&s->role->log, "store-removed-here", "reason=helper-is-down");
	os_close(fd);
}

static struct store_limits limits_of(const struct conf *conf)
{
	return (struct store_limits){
		.percent = (unsigned)conf_u64(conf, CONF_compaction_percent),
		.rate = conf_size(conf, CONF_compaction_rate),
		.compress_us = conf_time_ns(conf, CONF_compress_after) / 1000,
		.keep_us = conf_time_ns(conf, CONF_keep_expunged) / 1000,
	};
}

static void store_reload(struct role *r)
{
	struct store_role *s = r->state;
	struct store_limits limits = limits_of(r->conf);

	store_set_limits(s->store, &limits);
}

static enum err store_prepare_role(struct role *r)
{
	struct store_role *s = r->state;
	struct store_options options = { .dir = s->dir,
					 .path = s->path,
					 .log = &r->log,
					 .may_wait = true,
					 .limits = limits_of(r->conf),
					 .hooks = { s, store_role_changed, store_role_queued,
						    removed, traced } };
	enum err err = s->dir < 0 ? ERR_CONFIG : store_prepare(&options);

	return err ? err : store_open(&options, &s->store);
}

/* ---- flushing ---- */

static void stop_if_idle(struct store_role *s);

static void flush_task(void *arg)
{
	struct store_role *s = arg;

	store_flush(s->store);
	if (store_wants_turn(s->store))
		store_role_flush(s);
	stop_if_idle(s);
}

void store_role_flush(struct store_role *s)
{
	loop_post(s->role->loop, &s->flush, flush_task, s);
}

/* What is pending is finished first: it needs no reads. Nothing more is served meanwhile
 * (ERR_DAMAGED). */
static void index_condemn(struct store_role *s)
{
	if (s->is_condemned || s->is_stopping)
		return;
	store_index_condemn(s->store);
	s->is_condemned = s->is_stopping = true;
	store_flush(s->store);
	stop_if_idle(s);
}

void store_role_index_look(struct store_role *s)
{
	if (store_index_is_damaged(s->store))
		index_condemn(s);
}

static void on_sync(void *arg, unsigned ready)
{
	struct store_role *s = arg;

	(void)ready;
	store_sync_ready(s->store);
	/* Sessions hear of what others were just told is durable, before the next frame is written:
	 * that may take its time, when it begins a segment. */
	store_role_tell(s);
	store_role_flush(s);
	store_role_compact(s);
	stop_if_idle(s);
}

/* ---- checkpoints ---- */

static void on_checkpoint(void *arg, enum err err, struct msg *reply)
{
	struct store_role *s = arg;

	s->checkpoint_runs = false;
	if (!err && reply->type == MSG_failed)
		err = (enum err)reply->u.failed.err;
	if (!err && reply->type == MSG_cp_done) {
		store_checkpoint_done(s->store, reply->u.cp_done.position);
		log_debug(&s->role->log, "store-checkpoint", "position=%llx records=%llu",
			  (unsigned long long)reply->u.cp_done.position,
			  (unsigned long long)reply->u.cp_done.records);
		store_role_checkpointed(s);
	} else {
		store_checkpoint_failed(s->store);
		log_error(&s->role->log, "store-checkpoint-failed", "error=%s", err_name(err));
		s->checkpoint_after = loop_now(s->role->loop) + SECONDS(CHECKPOINT_AGAIN_SECONDS);
		/* The helper read all of it, or did not find it. */
		if (err == ERR_DAMAGED || err == ERR_NOT_FOUND)
			index_condemn(s);
	}
}

static void checkpoint_try(struct store_role *s)
{
	struct chan *helper = role_peer(s->role, ROLE_CHECKPOINT, 0);
	bool forced = store_role_forces_checkpoint(s);
	struct msg_cp_run run;
	enum err err;

	if (s->checkpoint_runs || !helper || !chan_is_up(helper) ||
	    loop_now(s->role->loop) < s->checkpoint_after)
		return;
	if (!store_checkpoint_due(s->store, forced, &run.position)) {
		if (forced && !store_checkpoint_is_behind(s->store))
			store_role_checkpointed(s);
		return;
	}
	s->checkpoint_runs = true;
	err = chan_call_async(helper, MSG_cp_run, &run,
			      loop_now(s->role->loop) + SECONDS(CHECKPOINT_SECONDS), on_checkpoint,
			      s);
	if (err) {
		s->checkpoint_runs = false;
		store_checkpoint_failed(s->store);
	}
}

static void kept_expire(struct store_role *s)
{
	enum err err = s->is_stopping ? ERR_OK : store_kept_expire(s->store);

	if (err)
		log_warn(&s->role->log, "store-expire-failed", "error=%s", err_name(err));
	store_role_flush(s);
}

static void on_tick(void *arg)
{
	struct store_role *s = arg;

	store_txn_expire(s->store);
	store_role_binds_expire(s);
	kept_expire(s);
	checkpoint_try(s);
	store_role_compact(s);
	store_role_compact_tell(s);
	if (!s->is_steady && loop_now(s->role->loop) > s->started + SECONDS(STEADY_SECONDS)) {
		s->is_steady = true;
		store_steady(s->store);
	}
	if (s->full_untold)
		store_role_quota_tell_all(s);
	store_role_tell_all(s);
	loop_timer_set(s->role->loop, &s->tick, loop_now(s->role->loop) + MILLISECONDS(TICK_MS),
		       on_tick, s);
	store_role_index_look(s);
}

/* ---- answers ---- */

void store_role_refuse(struct store_role *s, struct chan *c, uint32_t id, enum err err)
{
	enum err sent = id ? REPLY_FAILED(c, id, err, str_from_c(err_text(err))) : ERR_OK;

	if (sent)
		log_warn(&s->role->log, "store-reply-lost", "peer=%s error=%s",
			 role_name(chan_peer(c)), err_name(sent));
}

static void answered(struct store_role *s, struct chan *c, uint32_t id, enum err err)
{
	if (err)
		store_role_refuse(s, c, id, err);
}

struct waiting *waiting_new(struct client *c, uint32_t id, bool says_done)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	*w = (struct waiting){ .client = c, .chan = c->chan, .id = id, .says_done = says_done };
	c->waiting++;
	return w;
}

void waiting_free(struct waiting *w)
{
	if (--w->client->waiting == 0 && !w->client->chan)
		free(w->client);
	free(w);
}

void waiting_done(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	struct waiting *w = arg;
	struct client *c = w->client;

	/* A peer that was replaced meanwhile did not ask this. */
	if (c->chan && c->chan == w->chan) {
		if (!err && w->is_own_change && reply->changed)
			store_role_own_change(c, reply->modseq);
		if (!err)
			err = w->says_done ? REPLY(c->chan, w->id, done, )
					   : chan_reply(c->chan, w->id, MSG_st_commit_reply, reply);
		answered(c->role, c->chan, w->id, err);
	}
	waiting_free(w);
}

static void txn_done(void *arg, const struct msg_txn_reply *reply)
{
	struct waiting *w = arg;
	struct client *c = w->client;

	if (reply && c->chan && c->chan == w->chan &&
	    chan_reply(c->chan, w->id, MSG_txn_reply, reply))
		log_warn(&c->role->role->log, "store-reply-lost", "peer=%s",
			 role_name(chan_peer(c->chan)));
	waiting_free(w);
}

/* ---- requests of peers ---- */

/* What a peer's commits wait on; replaced when the peer is, so that a reply never goes to its
 * successor. */
static struct client *peer_client(struct store_role *s, struct chan *peer)
{
	struct client *c = chan_user(peer);

	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (c) {
		*c = (struct client){ .role = s, .chan = peer };
		chan_set_user(peer, c);
	}
	return c;
}

static bool is_own_id(struct store_role *s, struct chan *from, uint64_t txn)
{
	if (msgid_instance(txn) == role_peer_instance(s->role, from))
		return true;
	log_error(&s->role->log, "store-forged-transaction", "peer=%s.%u",
		  role_name(chan_peer(from)), chan_peer_index(from));
	return false;
}

static void on_txn_body(struct store_role *s, struct client *c, const struct msg *m)
{
	struct waiting *w;
	enum err err;

	if (!is_own_id(s, c->chan, m->u.txn_body.txn)) {
		store_role_refuse(s, c->chan, m->id, ERR_DENIED);
		return;
	}
	w = waiting_new(c, m->id, false);
	err = w ? store_txn_body(s->store, &m->u.txn_body, txn_done, w) : ERR_NO_MEMORY;
	if (err) {
		store_role_refuse(s, c->chan, m->id, err);
		if (w)
			waiting_free(w);
	}
}

static void part_taken(struct store_role *s, uint64_t txn, enum err err)
{
	if (err)
		log_warn(&s->role->log, "store-transaction-part", "txn=%016llx error=%s",
			 (unsigned long long)txn, err_name(err));
}

static void on_q_lease(struct store_role *s, struct chan *from, const struct msg *m)
{
	struct msg_q_records out;
	enum err err = m->type == MSG_q_lease
			       ? store_q_lease(s->store, &m->u.q_lease, &s->reply, &out)
			       : store_q_scan(s->store, &m->u.q_scan, &s->reply, &out);

	answered(s, from, m->id, err ? err : chan_reply(from, m->id, MSG_q_records, &out));
}

static void on_q_outcome(struct store_role *s, struct client *c, const struct msg *m)
{
	struct waiting *w = waiting_new(c, m->id, true);
	enum err err =
		w ? store_q_outcome(s->store, &m->u.q_outcome, waiting_done, w) : ERR_NO_MEMORY;

	if (err) {
		store_role_refuse(s, c->chan, m->id, err);
		if (w)
			waiting_free(w);
	}
}

static void on_q_body(struct store_role *s, struct chan *from, const struct msg *m)
{
	struct msg_q_body_reply out;
	enum err err = store_q_body(s->store, &m->u.q_body, &s->reply, &out);

	answered(s, from, m->id, err ? err : chan_reply(from, m->id, MSG_q_body_reply, &out));
	if (!err)
		os_close(out.file);
}

/* `out` reads the bodies of what it was given to deliver from a segment it was given with q_body;
 * it may ask again. */
static void on_segment(struct store_role *s, struct chan *from, const struct msg *m)
{
	int fd = -1;
	enum err err = chan_peer(from) == ROLE_OUT
			       ? store_segment(s->store, m->u.st_segment.segment,
					       m->u.st_segment.body, &fd)
			       : ERR_DENIED;

	answered(s, from, m->id, err ? err : REPLY(from, m->id, st_segment_reply, .file = fd));
	os_close(fd);
}

static void on_command(struct store_role *s, struct client *c, const struct msg *m)
{
	str args = m->u.command.args, name = str_cut(&args, '\0');

	if (str_eq(name, S("compact")))
		store_role_compact_command(s, c, m);
	else if (str_eq(name, S("undelete")))
		store_role_undelete(s, c, m);
	else
		store_role_refuse(s, c->chan, m->id, ERR_DENIED);
}

static void store_message(struct role *r, struct chan *from, struct msg *m)
{
	struct store_role *s = r->state;
	struct client *c = peer_client(s, from);

	if (!c) {
		store_role_refuse(s, from, m->id, ERR_NO_MEMORY);
		return;
	}
	switch ((unsigned)m->type) {
	case MSG_txn_envelope:
		part_taken(s, m->u.txn_envelope.txn,
			   store_txn_envelope(s->store, &m->u.txn_envelope));
		break;
	case MSG_txn_rcpts:
		part_taken(s, m->u.txn_rcpts.txn, store_txn_rcpts(s->store, &m->u.txn_rcpts));
		break;
	case MSG_txn_verdict:
		part_taken(s, m->u.txn_verdict.txn, store_txn_verdict(s->store, &m->u.txn_verdict));
		break;
	case MSG_txn_body:
		on_txn_body(s, c, m);
		break;
	case MSG_txn_cancel:
		if (is_own_id(s, from, m->u.txn_cancel.txn))
			store_txn_cancel(s->store, m->u.txn_cancel.txn);
		break;
	case MSG_store_bind:
		store_role_bind(s, c, m);
		break;
	case MSG_store_attach:
		store_role_attach(s, from, m);
		break;
	case MSG_account_usage:
		store_role_quota_usage(s, from, m);
		break;
	case MSG_account_quota:
		store_role_quota_set(s, c, m);
		break;
	case MSG_session_wake:
		store_role_wake(s, &m->u.session_wake);
		break;
	case MSG_q_begin:
		store_q_begin(s->store);
		answered(s, from, m->id, REPLY(from, m->id, done, ));
		break;
	case MSG_q_lease:
	case MSG_q_scan:
		on_q_lease(s, from, m);
		break;
	case MSG_q_outcome:
		on_q_outcome(s, c, m);
		break;
	case MSG_q_body:
		on_q_body(s, from, m);
		break;
	case MSG_st_segment:
		on_segment(s, from, m);
		break;
	case MSG_command:
		on_command(s, c, m);
		break;
	default:
		/* Stored mail is asked for on an account's channel alone. */
		store_role_refuse(s, from, m->id, ERR_DENIED);
	}
	store_role_flush(s);
	store_role_index_look(s);
}

static void store_peer_up(struct role *r, struct chan *peer)
{
	if (chan_peer(peer) == ROLE_AUTH)
		store_role_quota_tell_all(r->state);
}

static void store_peer_down(struct role *r, struct chan *peer)
{
	struct store_role *s = r->state;
	struct client *c = chan_user(peer);

	/* We have stopped, in this turn of the loop. */
	if (!s)
		return;
	if (chan_peer(peer) == ROLE_FRONT || chan_peer(peer) == ROLE_QUEUE)
		store_txn_cancel_instance(s->store, role_peer_instance(r, peer));
	if (chan_peer(peer) == ROLE_FILTER || chan_peer(peer) == ROLE_AUTH)
		store_txn_part_lost(s->store, chan_peer(peer) == ROLE_FILTER);
	if (!c)
		return;
	chan_set_user(peer, NULL);
	c->chan = NULL;
	if (!c->waiting)
		free(c);
}

static enum err store_start(struct role *r)
{
	struct store_role *s = r->state;
	enum err err = loop_watch_reader(r->loop, &s->sync, store_sync_fd(s->store), on_sync, s);

	if (!err)
		err = loop_watch_reader(r->loop, &s->body_sync, store_body_sync_fd(s->store),
					on_sync, s);
	s->started = loop_now(r->loop);
	if (!err)
		err = store_role_quota_start(s);
	if (!err)
		on_tick(s);
	else if (store_index_is_damaged(s->store))
		store_index_condemn(s->store);
	return err;
}

/* What was handed in is made durable and answered first. */
static void stop_if_idle(struct store_role *s)
{
	struct role *r = s->role;

	if (!s->is_stopping || !store_is_idle(s->store))
		return;
	if (s->is_condemned)
		os_exit(1);
	store_steady(s->store);
	loop_unwatch(r->loop, &s->sync);
	loop_unwatch(r->loop, &s->body_sync);
	loop_timer_cancel(r->loop, &s->tick);
	loop_unpost(r->loop, &s->flush);
	loop_unpost(r->loop, &s->tell);
	store_role_compact_free(s);
	store_role_sessions_free(s);
	store_role_quota_free(s);
	store_close(s->store);
	store_reply_free(&s->reply);
	os_close(s->dir);
	free(s);
	r->state = NULL;
	loop_stop(r->loop);
}

static void store_stop(struct role *r, unsigned seconds)
{
	struct store_role *s = r->state;

	(void)seconds;
	s->is_stopping = true;
	store_flush(s->store);
	stop_if_idle(s);
}

static void store_role_status(struct role *r, struct buf *out)
{
	struct store_role *s = r->state;

	store_status(s->store, out);
	buf_printf(out, ",\"sessions\":%u", s->sessions);
}

const struct role_ops role_store_ops = {
	.kind = ROLE_STORE,
	.sandbox = SANDBOX_FILES | SANDBOX_SYNC,
	.init = store_init,
	.file = store_file,
	.prepare = store_prepare_role,
	.start = store_start,
	.message = store_message,
	.peer_up = store_peer_up,
	.peer_down = store_peer_down,
	.reload = store_reload,
	.stop = store_stop,
	.status = store_role_status,
};
