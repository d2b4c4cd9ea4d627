/* The life of the server: start, restart, reload, stop.
 *
 * Start: everything that can be refused is refused before anything is made: configuration (parsed
 * by the caller), lock, folders, ports. Then all roles are executed, linked and handed what they
 * need; when all have said that they work, the server is ready. A role that ends is started again
 * at once, and with growing delays when it ends soon again; one that never worked ends the start.
 * Stop goes in phases, from the door inwards, so that what is in progress is finished: each phase
 * has its seconds, then SIGKILL. */
#include "roles/supervisor_priv.h"

#include "base/err.h"
#include "queue/route.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { STOP_SECONDS = 5, RESTART_FIRST_MS = 10, RESTART_MOST_MS = 30000, WORKED_SECONDS = 10 };

/* Who stops together, the outermost first. */
static const unsigned stop_phases[] = {
	R_FRONT | R_OUT, R_SESSION | R_QUEUE,	 R_FILTER | R_AUTH | R_LOOKUP | R_DNS | R_KEYS,
	R_STORE,	 R_CHECKPOINT | R_ADMIN,
};

void supervisor_complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("posthorn: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

static void stop_phase(struct supervisor *s);

static void begin_stop(struct supervisor *s)
{
	if (s->is_stopping)
		return;
	s->is_stopping = true;
	s->stop_phase = 0;
	log_info(&s->log, "stopping", "roles=%u", s->n);
	for (unsigned i = 0; i < s->n; i++)
		loop_timer_cancel(s->loop, &s->children[i].restart);
	stop_phase(s);
}

static void kill_phase(void *arg)
{
	struct supervisor *s = arg;

	for (unsigned i = 0; i < s->n; i++) {
		struct child *c = &s->children[i];

		if (c->pid <= 0 || !(stop_phases[s->stop_phase] & (1u << c->kind)))
			continue;
		log_warn(&s->log, "role-killed", "role=%s.%u pid=%d why=\"did not stop in time\"",
			 role_name(c->kind), c->index, c->pid);
		if (os_kill(c->pid, 9))
			log_warn(&s->log, "kill-failed", "pid=%d", c->pid);
	}
}

/* Tells the roles of this phase to stop; goes on to the next when none is left. */
static void stop_phase(struct supervisor *s)
{
	for (; s->stop_phase < ARRAY_LEN(stop_phases); s->stop_phase++) {
		unsigned waiting = 0;

		for (unsigned i = 0; i < s->n; i++) {
			struct child *c = &s->children[i];

			if (c->pid <= 0 || !(stop_phases[s->stop_phase] & (1u << c->kind)))
				continue;
			waiting++;
			if (c->state == CHILD_STOPPING)
				continue;
			c->state = CHILD_STOPPING;
			if (SEND(c->control, sup_stop, .seconds = STOP_SECONDS) &&
			    os_kill(c->pid, 9))
				log_warn(&s->log, "kill-failed", "pid=%d", c->pid);
		}
		if (waiting) {
			loop_timer_set(s->loop, &s->stop_timer,
				       loop_now(s->loop) + SECONDS(STOP_SECONDS + 2), kill_phase,
				       s);
			return;
		}
	}
	loop_timer_cancel(s->loop, &s->stop_timer);
	loop_stop(s->loop);
}

/* Another number than the process before it had: the ids that both make in one second begin
 * anywhere in the same range, and two messages with one id would be taken for one by the queue. */
static unsigned new_instance(struct supervisor *s, const struct child *c)
{
	for (unsigned tries = 0; tries < MSGID_INSTANCE_MAX; tries++) {
		bool is_taken = false;

		s->last_instance = s->last_instance % MSGID_INSTANCE_MAX + 1;
		for (unsigned i = 0; i < s->n; i++)
			is_taken = is_taken || s->children[i].instance == s->last_instance;
		if (!is_taken)
			return s->last_instance;
	}
	return c->instance;
}

static void restart_child(void *arg)
{
	struct child *c = arg;
	struct supervisor *s = c->sup;
	enum err err;

	if (s->is_stopping)
		return;
	c->instance = new_instance(s, c);
	err = supervisor_spawn(s, c);
	if (!err)
		err = supervisor_link(s, c, false);
	if (!err)
		err = supervisor_hand_over(s, c);
	if (err) {
		log_error(&s->log, "restart-failed", "role=%s.%u error=%s", role_name(c->kind),
			  c->index, err_name(err));
		if (c->pid > 0 && os_kill(c->pid, 9) == ERR_OK)
			return; /* its end starts it again */
		c->state = CHILD_DOWN;
		loop_timer_set(s->loop, &c->restart, loop_now(s->loop) + SECONDS(5), restart_child,
			       c);
	}
}

static void refuse_start(struct supervisor *s, const struct child *c, int status)
{
	supervisor_complain("the role %s could not be started (%s %d); see the log above",
			    role_name(c->kind), status >= 256 ? "signal" : "exit status",
			    status >= 256 ? status - 256 : status);
	s->is_refused = true;
	begin_stop(s);
}

static void child_ended(struct supervisor *s, struct child *c, int status)
{
	bool worked = c->state == CHILD_READY &&
		      os_wall_us() - c->since_us > (int64_t)WORKED_SECONDS * 1000000;

	log_write(&s->log, s->is_stopping ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, "role-ended",
		  "role=%s.%u pid=%d %s=%d", role_name(c->kind), c->index, c->pid,
		  status >= 256 ? "signal" : "status", status >= 256 ? status - 256 : status);
	c->pid = 0;
	c->state = CHILD_DOWN;
	if (s->is_stopping) {
		stop_phase(s);
		return;
	}
	c->failures = worked ? 0 : c->failures + 1;
	if (!s->is_ready && !c->was_ready &&
	    (status == ROLE_EXIT_CONFIG || c->failures >= START_TRIES)) {
		refuse_start(s, c, status);
		return;
	}
	c->restarts++;
	c->back_off = c->failures <= 1 ? MILLISECONDS(RESTART_FIRST_MS)
				       : MIN(c->back_off * 3, MILLISECONDS(RESTART_MOST_MS));
	loop_timer_set(s->loop, &c->restart, loop_now(s->loop) + c->back_off, restart_child, c);
}

static void reap_children(struct supervisor *s)
{
	int pid, status;

	while (os_reap(&pid, &status) == ERR_OK)
		for (unsigned i = 0; i < s->n; i++)
			if (s->children[i].pid == pid)
				child_ended(s, &s->children[i], status);
}

/* The new text is parsed here first; only what is right reaches the roles. */
static enum err reload(struct supervisor *s, struct buf *problems)
{
	struct arena *arena = arena_new(CONF_ARENA_SIZE);
	struct conf *conf;
	struct buf names;
	int fd = -1;
	str text;
	enum err err =
		arena ? conf_read_file(s->options->config_path, arena, &text) : ERR_NO_MEMORY;

	if (!err)
		err = conf_parse(text, s->options->config_path, arena, problems, &conf);
	if (!err)
		err = conf_check(conf, problems);
	if (!err)
		err = os_memfd(text, true, &fd);
	if (err) {
		log_error(&s->log, "reload-refused", "error=%s problems=\"%.*s\"", err_name(err),
			  STR_ARGS(buf_str(problems)));
		arena_free(arena);
		return err;
	}
	buf_init(&names, 4096);
	if (conf_needs_restart(s->conf, conf, &names))
		log_warn(&s->log, "reload-partly", "at_next_restart=\"%.*s\"",
			 STR_ARGS(buf_str(&names)));
	buf_add(problems, buf_str(&names));
	buf_free(&names);
	arena_free(s->conf_arena);
	s->conf_arena = arena;
	s->conf = conf;
	os_close(s->conf_fd);
	s->conf_fd = fd;
	for (unsigned i = 0; i < s->n; i++) {
		struct child *c = &s->children[i];

		if (c->state != CHILD_READY)
			continue;
		if ((c->kind == ROLE_KEYS || c->kind == ROLE_OUT) &&
		    (err = supervisor_send_files(s, c)))
			log_error(&s->log, "reload-files", "error=%s", err_name(err));
		if (SEND(c->control, sup_reload, .text = fd))
			log_error(&s->log, "reload-unsent", "role=%s.%u", role_name(c->kind),
				  c->index);
	}
	log_info(&s->log, "reloaded", "settings=%.*s", STR_ARGS(s->options->config_path));
	return ERR_OK;
}

static void all_ready(struct supervisor *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->children[i].state != CHILD_READY)
			return;
	if (s->is_ready)
		return;
	s->is_ready = true;
	log_info(&s->log, "ready", "roles=%u data=%.*s version=%s", s->n, STR_ARGS(s->data_dir),
		 POSTHORN_VERSION);
	if (s->options->ready_fd >= 0) {
		if (os_write_all(s->options->ready_fd, S("R")))
			log_warn(&s->log, "ready-untold", "fd=%d", s->options->ready_fd);
		os_close(s->options->ready_fd);
	}
}

static void answer_status(struct supervisor *s, struct chan *to, uint32_t id)
{
	struct buf b;

	buf_init(&b, 60000);
	for (unsigned i = 0; i < s->n; i++) {
		struct child *c = &s->children[i];

		rec_sup_role_put(&b, &(struct rec_sup_role){ .role = (uint8_t)c->kind,
							     .index = (uint16_t)c->index,
							     .pid = (uint32_t)c->pid,
							     .uid = c->uid ? c->uid : os_uid(),
							     .restarts = c->restarts,
							     .since_us = c->since_us,
							     .sandbox = str_from_c(c->sandbox) });
	}
	if (REPLY(to, id, sup_status_reply, .roles = buf_str(&b)))
		log_warn(&s->log, "status-unsent", "peer=admin");
	buf_free(&b);
}

static void answer_reload(struct supervisor *s, struct chan *to, uint32_t id)
{
	struct buf problems;
	enum err err;

	buf_init(&problems, 1024);
	err = reload(s, &problems);
	if (err)
		err = REPLY_FAILED(to, id, err, str_head(buf_str(&problems), 1024));
	else
		err = REPLY(to, id, done);
	if (err)
		log_warn(&s->log, "reload-unanswered", "error=%s", err_name(err));
	buf_free(&problems);
}

/* `out` may reach no file, so sockets of this machine are opened here: those that transport_maps
 * names, and no others. */
static bool is_next_hop(const struct conf *conf, str path)
{
	size_t n;
	const struct conf_pair *pairs = conf_table(conf, CONF_transport_maps, &n);
	struct route_hop hop;

	for (size_t i = 0; i < n; i++)
		if (!route_parse(pairs[i].value, STR_EMPTY, &hop) && str_eq(hop.path, path))
			return true;
	return false;
}

static void answer_connect(struct supervisor *s, struct chan *to, uint32_t id, str path)
{
	struct addr address = { .family = ADDR_UNIX };
	enum err err = ERR_DENIED;
	int fd = -1;

	if (path.n > 0 && path.n < sizeof(address.path) && is_next_hop(s->conf, path)) {
		memcpy(address.path, path.p, path.n);
		err = os_connect(&address, NULL, &fd);
	}
	if (err)
		err = REPLY_FAILED(to, id, err, STR_EMPTY);
	else
		err = REPLY(to, id, sup_connected, .socket = fd);
	os_close(fd);
	if (err)
		log_warn(&s->log, "connect-unanswered", "error=%s", err_name(err));
}

/* A role cut off a peer. What parses the network's bytes is not believed about others, lest a
 * broken-in front had auth and store ended: there the one that complains is started again, which
 * makes the channel anew as well. */
static void answer_cut_off(struct supervisor *s, struct child *from,
			   const struct msg_sup_cut_off *m)
{
	static const unsigned doubted = R_FRONT | R_SESSION | R_FILTER | R_OUT | R_DNS;
	struct child *guilty = doubted & (1u << from->kind) ? from : NULL;

	for (unsigned i = 0; i < s->n && !guilty; i++)
		if ((unsigned)s->children[i].kind == m->role && s->children[i].index == m->index)
			guilty = &s->children[i];
	log_error(&s->log, "role-cut-off", "role=%s.%u by=%s.%u ends=%s.%u",
		  role_name((enum role_kind)m->role), m->index, role_name(from->kind), from->index,
		  guilty ? role_name(guilty->kind) : "nobody", guilty ? guilty->index : 0);
	if (guilty && guilty->pid > 0 && os_kill(guilty->pid, 9))
		log_warn(&s->log, "kill-failed", "pid=%d", guilty->pid);
}

void supervisor_message(void *arg, struct chan *chan, struct msg *m)
{
	struct child *c = arg;
	struct supervisor *s = c->sup;

	switch ((unsigned)m->type) {
	case MSG_sup_status:
		answer_status(s, chan, m->id);
		break;
	case MSG_sup_reload_ask:
		answer_reload(s, chan, m->id);
		break;
	case MSG_sup_stop_ask:
		if (REPLY(chan, m->id, done))
			log_warn(&s->log, "stop-unanswered", "peer=admin");
		begin_stop(s);
		break;
	case MSG_sup_cut_off:
		answer_cut_off(s, c, &m->u.sup_cut_off);
		break;
	case MSG_sup_connect:
		answer_connect(s, chan, m->id, m->u.sup_connect.path);
		break;
	case MSG_role_ready:
		break;
	default:
		log_error(&s->log, "unexpected-message", "from=%s.%u type=%s", role_name(c->kind),
			  c->index, msg_name(m->type));
	}
}

/* role_ready is the reply to sup_start. */
static void child_ready(void *arg, enum err err, struct msg *reply)
{
	struct child *c = arg;

	if (err || reply->type != MSG_role_ready)
		return; /* it ended: SIGCHLD tells */
	snprintf(c->sandbox, sizeof(c->sandbox), "%.*s", STR_ARGS(reply->u.role_ready.sandbox));
	c->state = CHILD_READY;
	c->was_ready = true;
	log_info(&c->sup->log, "role-ready", "role=%s.%u pid=%d uid=%u sandbox=\"%s\"",
		 role_name(c->kind), c->index, c->pid, c->uid ? c->uid : os_uid(), c->sandbox);
	all_ready(c->sup);
}

enum err supervisor_send_start(struct supervisor *s, struct child *c)
{
	return chan_call_async(c->control, MSG_sup_start,
			       &(struct msg_sup_start){ .test_hooks = s->test_hooks }, LOOP_NEVER,
			       child_ready, c);
}

static void on_signal(void *arg, unsigned ready)
{
	struct supervisor *s = arg;
	struct buf problems;
	unsigned got;

	(void)ready;
	while (os_signals_read(s->signals_fd, &got) == ERR_OK) {
		if (got & OS_SIG_CHILD)
			reap_children(s);
		if (got & OS_SIG_TERM)
			begin_stop(s);
		if (got & OS_SIG_RELOAD) {
			buf_init(&problems, CONF_PROBLEMS_MAX);
			(void)!reload(s, &problems);
			buf_free(&problems);
		}
	}
}

static enum err start_all(struct supervisor *s)
{
	enum err err;

	for (unsigned i = 0; i < s->n; i++)
		if ((err = supervisor_spawn(s, &s->children[i])))
			return err;
	for (unsigned i = 0; i < s->n; i++)
		if ((err = supervisor_link(s, &s->children[i], true)))
			return err;
	for (unsigned i = 0; i < s->n; i++)
		if ((err = supervisor_hand_over(s, &s->children[i])))
			return err;
	return ERR_OK;
}

static enum err prepare(struct supervisor *s)
{
	static const enum log_target targets[] = { LOG_TO_STDERR, LOG_TO_JOURNAL, LOG_TO_SYSLOG };
	static const enum log_level levels[] = { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO,
						 LOG_LEVEL_DEBUG };
	const char *hooks = getenv("POSTHORN_TEST_HOOKS");
	enum err err;

	log_init(&s->log, targets[conf_choice(s->conf, CONF_log_to)],
		 levels[conf_choice(s->conf, CONF_log_level)], "supervisor");
	if (s->log.target == LOG_TO_SYSLOG && (err = os_stderr_to_syslog())) {
		supervisor_complain("log_to = syslog, but /dev/log cannot be used: %s",
				    err_text(err));
		return err;
	}
	s->is_root = os_uid() == 0;
	s->test_hooks = hooks && str_eq(str_from_c(hooks), S("1"));
	s->arena = arena_new(16 * 1024 * 1024);
	if (!s->arena)
		return ERR_NO_MEMORY;
	if ((err = supervisor_prepare_files(s)) || (err = supervisor_plan(s)) ||
	    (err = supervisor_listen(s)))
		return err;
	if ((err = os_memfd(s->options->config_text, true, &s->conf_fd)) ||
	    (err = os_memfd(STR_EMPTY, false, &s->clients_fd)) || (err = loop_new(&s->loop)) ||
	    (err = os_signals(&s->signals_fd)) ||
	    (err = loop_watch(s->loop, &s->signals, s->signals_fd, on_signal, s)))
		supervisor_complain("cannot start: %s", err_text(err));
	return err;
}

static void remove_sockets(struct supervisor *s)
{
	str control = arena_printf(s->arena, "%.*s/control", STR_ARGS(s->data_dir));

	if (control.p && os_unlink(-1, control.p))
		log_debug(&s->log, "control-left", "path=%s", control.p);
	for (unsigned i = 0; i < s->listeners_n; i++) {
		struct listener *l = &s->listeners[i];

		if (l->address.family == ADDR_UNIX && l->address.path[0] &&
		    os_unlink(-1, l->address.path))
			log_debug(&s->log, "socket-left", "path=%s", l->address.path);
	}
}

int supervisor_main(const struct supervisor_options *o)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	enum err err;

	if (!s)
		return 1;
	s->options = o;
	s->conf = o->conf;
	s->lock_fd = s->conf_fd = s->clients_fd = s->signals_fd = -1;
	if (prepare(s))
		return 1;
	log_info(&s->log, "starting", "version=%s conf=%.*s pid=%d", POSTHORN_VERSION,
		 STR_ARGS(o->config_path), os_pid());
	if ((err = start_all(s))) {
		supervisor_complain("the roles could not be started: %s", err_text(err));
		s->is_refused = true;
		begin_stop(s);
	}
	if ((err = loop_run(s->loop)))
		log_error(&s->log, "loop-failed", "error=%s", err_name(err));
	remove_sockets(s);
	log_info(&s->log, "stopped", "start=%s", s->is_refused ? "refused" : "done");
	return s->is_refused || err ? 1 : 0;
}
