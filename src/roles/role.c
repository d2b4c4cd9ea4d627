/* The frame of every role: takes what the supervisor hands over, locks the sandbox, runs the hooks.
 *
 * The order on the control channel is: sup_config, then listeners, files and channels in any order,
 * then sup_start. After that channels may be replaced (a peer was restarted), the configuration
 * reloaded, the role stopped. When the control channel ends, the supervisor is gone and so are we.
 *
 * A peer that works has its end of a channel before we are told to start, and may speak at once.
 * What it says waits in the socket until then: a role hears of nobody before it is whole. */
#include "roles/role.h"

#include "base/trace.h"
#include "conf/conf.h"
#include "roles/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATHS_MAX = 8 };

struct peer {
	struct chan *chan;
	unsigned instance;
	bool has_early; /* a socket that waits for the start */
	int early;
};

struct role_private {
	struct role *role;
	struct chan *control;
	struct arena *conf_arena;
	struct peer peers[ROLE_COUNT][ROLE_INDEX_MAX];
	unsigned peer_counts[ROLE_COUNT];
	char write_paths[PATHS_MAX][OS_FD_PATH_SIZE];
	unsigned paths;
	bool is_started, test_hooks;
	int status;
};

#ifdef __SANITIZE_ADDRESS__
/* The leak check at exit traces the process, which the sandbox forbids; unit tests look for leaks.
 */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

static void role_fail(struct role_private *p, const char *what, enum err err)
{
	log_error(&p->role->log, "role-failed", "what=%s error=%s", what, err_name(err));
	p->status = err == ERR_CONFIG ? ROLE_EXIT_CONFIG : 1;
	loop_stop(p->role->loop);
}

static void run_hook(struct role_private *p, enum err (*hook)(struct role *), const char *what)
{
	enum err err = hook ? hook(p->role) : ERR_OK;

	if (err)
		role_fail(p, what, err);
}

static enum err parse_conf(struct role_private *p, int fd, str path, struct arena **arena,
			   struct conf **conf)
{
	uint64_t size;
	char *text;
	enum err err;

	*arena = NULL;
	if ((err = os_memfd_check(fd, &size)))
		return err;
	if (size > CONF_FILE_MAX || !(*arena = arena_new(CONF_ARENA_SIZE)))
		return ERR_NO_MEMORY;
	text = arena_alloc(*arena, size);
	path = arena_str(*arena, path);
	if (!text || !path.p)
		err = ERR_NO_MEMORY;
	if (!err)
		err = os_pread_all(fd, text, size, 0);
	if (!err)
		err = conf_parse(str_of(text, size), path, *arena, NULL, conf);
	if (err) {
		arena_free(*arena);
		*arena = NULL;
	}
	(void)p;
	return err;
}

static void log_from_conf(struct role *r)
{
	static const enum log_target targets[] = { LOG_TO_STDERR, LOG_TO_JOURNAL, LOG_TO_SYSLOG };
	static const enum log_level levels[] = { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO,
						 LOG_LEVEL_DEBUG };
	char who[32];

	snprintf(who, sizeof(who), "%s.%u", role_name(r->kind), r->index);
	log_init(&r->log, targets[conf_choice(r->conf, CONF_log_to)],
		 levels[conf_choice(r->conf, CONF_log_level)], who);
}

static void on_config(struct role_private *p, const struct msg_sup_config *m)
{
	struct role *r = p->role;
	enum err err;

	r->index = m->index;
	r->instance = m->instance;
	r->msgids.instance = m->instance;
	if ((err = parse_conf(p, m->text, m->path, &p->conf_arena, &r->conf))) {
		role_fail(p, "configuration", err);
		return;
	}
	log_from_conf(r);
	run_hook(p, r->ops->init, "init");
}

static void on_listener(struct role_private *p, struct msg_sup_listener *m)
{
	enum err err = ERR_UNSUPPORTED;

	if (p->role->ops->listener) {
		err = p->role->ops->listener(p->role, m->service, m->address, m->socket);
		m->socket = -1;
	}
	if (err)
		role_fail(p, "listener", err);
}

static void on_file(struct role_private *p, struct msg_sup_file *m)
{
	struct role *r = p->role;
	struct os_stat st;
	enum err err = ERR_UNSUPPORTED;

	if (m->file > 0 && !p->is_started && os_fstat(m->file, &st) == ERR_OK && st.is_directory &&
	    p->paths < PATHS_MAX)
		/* By its descriptor, for its name may lead through folders that our user may not
		 * enter (/root). */
		os_fd_path(m->file, p->write_paths[p->paths++]);
	if (r->ops->file) {
		err = r->ops->file(r, m->name, m->path, m->file);
		m->file = -1;
	}
	if (err && !p->is_started)
		role_fail(p, "file", err);
	else if (err)
		log_error(&r->log, "file-refused", "name=%.*s error=%s", STR_ARGS(m->name),
			  err_name(err));
}

/* Its figures, or what descriptors it has; true when that was the question. */
static bool answer_admin(struct role *r, struct chan *c, const struct msg *m)
{
	bool is_status = str_eq(m->u.command.args, S("role-status\0"));
	struct buf b;

	if (!is_status && !str_eq(m->u.command.args, S("role-descriptors\0")))
		return false;
	buf_init(&b, 32 * 1024);
	if (!is_status)
		os_describe_fds(&b);
	else if (r->ops->status)
		r->ops->status(r, &b);
	if (REPLY(c, m->id, command_output, .out = buf_failed(&b) ? STR_EMPTY : buf_str(&b)))
		log_warn(&r->log, "status-unsent", "peer=admin");
	buf_free(&b);
	return true;
}

static void peer_message(void *arg, struct chan *c, struct msg *m)
{
	struct role_private *p = arg;
	struct role *r = p->role;

	if (m->type == MSG_command && chan_peer(c) == ROLE_ADMIN && answer_admin(r, c, m))
		return;
	if (m->type == MSG_sandbox_probe) {
		role_probe(r, c, m);
		return;
	}
	if (r->ops->message)
		r->ops->message(r, c, m);
}

static void peer_is_down(void *arg, struct chan *c, enum err why)
{
	struct role_private *p = arg;

	if (why == ERR_CLOSED)
		log_info(&p->role->log, "peer-gone", "peer=%s.%u", role_name(chan_peer(c)),
			 chan_peer_index(c));
	else
		log_error(&p->role->log, "peer-cut-off", "peer=%s.%u why=%s",
			  role_name(chan_peer(c)), chan_peer_index(c), err_name(why));
	/* It broke the rules, or the channel itself failed. Both live, but without a channel: the
	 * supervisor ends one of them, and its successor gets a new one. */
	if (why != ERR_CLOSED && SEND(p->control, sup_cut_off, .role = (uint8_t)chan_peer(c),
				      .index = (uint16_t)chan_peer_index(c)))
		log_error(&p->role->log, "cut-off-untold", "peer=%s.%u", role_name(chan_peer(c)),
			  chan_peer_index(c));
	if (p->is_started && p->role->ops->peer_down)
		p->role->ops->peer_down(p->role, c);
}

static const struct chan_ops peer_ops = { .on_message = peer_message, .on_down = peer_is_down };

static void on_channel(struct role_private *p, struct msg_sup_channel *m)
{
	struct role *r = p->role;
	enum role_kind kind = (enum role_kind)m->role;
	struct peer *peer;
	enum err err;

	if (kind >= ROLE_COUNT || m->index >= ROLE_INDEX_MAX) {
		role_fail(p, "channel", ERR_RANGE);
		return;
	}
	peer = &p->peers[kind][m->index];
	if (!peer->chan) {
		if ((err = chan_new(r->loop, r->kind, kind, m->index, &peer_ops, p, &peer->chan))) {
			role_fail(p, "channel", err);
			return;
		}
		p->peer_counts[kind] = MAX(p->peer_counts[kind], m->index + 1u);
	}
	peer->instance = m->instance;
	if (!p->is_started) {
		if (peer->has_early)
			os_close(peer->early);
		peer->has_early = true;
		peer->early = m->socket;
		m->socket = -1;
		return;
	}
	if ((err = chan_attach(peer->chan, m->socket))) {
		role_fail(p, "channel", err);
		return;
	}
	m->socket = -1;
	if (r->ops->peer_up)
		r->ops->peer_up(r, peer->chan);
}

/* The channels that came before the start. */
static enum err attach_early(struct role_private *p)
{
	for (unsigned kind = 0; kind < ROLE_COUNT; kind++)
		for (unsigned i = 0; i < p->peer_counts[kind]; i++) {
			struct peer *peer = &p->peers[kind][i];
			enum err err =
				peer->has_early ? chan_attach(peer->chan, peer->early) : ERR_OK;

			if (err)
				return err;
			peer->has_early = false;
		}
	return ERR_OK;
}

static void on_start(struct role_private *p, uint32_t id, const struct msg_sup_start *m)
{
	struct role *r = p->role;
	const char *paths[PATHS_MAX + 1] = { NULL };
	struct sandbox box = { .allow = r->ops->sandbox, .write_paths = paths };
	char text[SANDBOX_TEXT_MAX];
	enum err err;

	for (unsigned i = 0; i < p->paths; i++)
		paths[i] = p->write_paths[i];
	p->test_hooks = m->test_hooks;
	/* Now: the hooks may send. Nothing arrives before they are done. */
	if ((err = attach_early(p))) {
		role_fail(p, "channel", err);
		return;
	}
	run_hook(p, r->ops->prepare, "prepare");
	if (p->status)
		return;
	os_zone_minutes(os_wall_us()); /* libc reads the zone's file once, now */
	if ((err = sandbox_lock(&box, text))) {
		role_fail(p, "sandbox", err);
		return;
	}
	p->is_started = true;
	run_hook(p, r->ops->start, "start");
	if (p->status)
		return;
	if ((err = REPLY(p->control, id, role_ready, .sandbox = str_from_c(text))))
		role_fail(p, "ready", err);
}

static void on_reload(struct role_private *p, const struct msg_sup_reload *m)
{
	struct role *r = p->role;
	struct arena *arena, *old = p->conf_arena;
	struct conf *conf;
	enum err err = parse_conf(p, m->text, conf_path(r->conf), &arena, &conf);

	if (err) { /* the supervisor has parsed the same text: memory */
		log_error(&r->log, "reload-failed", "error=%s", err_name(err));
		return;
	}
	p->conf_arena = arena;
	r->conf = conf;
	log_from_conf(r);
	if (r->ops->reload)
		r->ops->reload(r);
	arena_free(old);
}

static void control_message(void *arg, struct chan *c, struct msg *m)
{
	struct role_private *p = arg;
	struct role *r = p->role;

	(void)c;
	if (p->status)
		return; /* it failed, and what the supervisor had sent by then finds only half of it
			 */
	switch ((unsigned)m->type) {
	case MSG_sup_config:
		on_config(p, &m->u.sup_config);
		break;
	case MSG_sup_listener:
		on_listener(p, &m->u.sup_listener);
		break;
	case MSG_sup_file:
		on_file(p, &m->u.sup_file);
		break;
	case MSG_sup_channel:
		on_channel(p, &m->u.sup_channel);
		break;
	case MSG_sup_start:
		on_start(p, m->id, &m->u.sup_start);
		break;
	case MSG_sup_reload:
		on_reload(p, &m->u.sup_reload);
		break;
	case MSG_sup_stop:
		if (p->is_started && r->ops->stop)
			r->ops->stop(r, m->u.sup_stop.seconds);
		else
			loop_stop(r->loop);
		break;
	default:
		if (r->ops->message)
			r->ops->message(r, c, m);
	}
}

static void control_down(void *arg, struct chan *c, enum err why)
{
	struct role_private *p = arg;

	(void)c;
	(void)why;
	loop_stop(p->role->loop);
}

struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index)
{
	if (kind == ROLE_SUPERVISOR)
		return r->priv->control;
	return index < ROLE_INDEX_MAX ? r->priv->peers[kind][index].chan : NULL;
}

bool role_has_test_hooks(const struct role *r)
{
	return r->priv->test_hooks;
}

unsigned role_peers(struct role *r, enum role_kind kind)
{
	return r->priv->peer_counts[kind];
}

unsigned role_peer_instance(struct role *r, const struct chan *peer)
{
	return r->priv->peers[chan_peer(peer)][chan_peer_index(peer)].instance;
}

void role_trace(struct role *r, uint64_t message, unsigned event, str sender, str recipient,
		const char *fmt, ...)
{
	struct chan *admin = role_peer(r, ROLE_ADMIN, 0);
	char text[1024];
	va_list ap;
	int n;

	if (!admin || !chan_is_up(admin))
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = MAX(MIN(n, (int)sizeof(text) - 1), 0);
	/* A history that cannot be written must not hold up mail: what does not fit the channel is
	 * dropped, and counted. */
	if (SEND(admin, trace_event, .message = message, .at_us = os_wall_us(),
		 .event = (uint16_t)event, .sender = str_head(sender, 512),
		 .recipient = str_head(recipient, 512), .text = str_of(text, (size_t)n)))
		log_debug(&r->log, "trace-dropped", "event=%u", event);
}

const struct role_ops *role_ops_of(enum role_kind kind)
{
	static const struct role_ops *const all[ROLE_COUNT] = {
		[ROLE_FRONT] = &role_front_ops,	    [ROLE_KEYS] = &role_keys_ops,
		[ROLE_AUTH] = &role_auth_ops,	    [ROLE_LOOKUP] = &role_lookup_ops,
		[ROLE_STORE] = &role_store_ops,	    [ROLE_CHECKPOINT] = &role_checkpoint_ops,
		[ROLE_SESSION] = &role_session_ops, [ROLE_FILTER] = &role_filter_ops,
		[ROLE_QUEUE] = &role_queue_ops,	    [ROLE_OUT] = &role_out_ops,
		[ROLE_DNS] = &role_dns_ops,	    [ROLE_ADMIN] = &role_admin_ops,
	};

	return (unsigned)kind < ROLE_COUNT ? all[kind] : NULL;
}

int role_main(const struct role_ops *ops, int control_fd)
{
	static const struct chan_ops control_ops = { .on_message = control_message,
						     .on_down = control_down };
	struct role role = { .ops = ops, .kind = ops->kind };
	struct role_private *p = calloc(1, sizeof(*p));
	enum err err;

	if (!p || loop_new(&role.loop))
		return 1;
	p->role = &role;
	role.priv = p;
	log_init(&role.log, LOG_TO_STDERR, LOG_LEVEL_INFO, role_name(ops->kind));
	err = chan_new(role.loop, role.kind, ROLE_SUPERVISOR, 0, &control_ops, p, &p->control);
	if (!err)
		err = chan_attach(p->control, control_fd);
	if (!err)
		err = loop_run(role.loop);
	if (err)
		log_error(&role.log, "role-failed", "what=loop error=%s", err_name(err));
	/* The kernel takes back memory and descriptors; what must be on disk was synced before it
	 * was acknowledged. */
	return err ? 1 : p->status;
}
