/* Role admin: the control socket of the posthorn command, figures of all roles, and the history of
 * messages.
 *
 * Each command runs in a fiber. What another role knows is asked of that role: accounts of auth,
 * the queue of queue; admin passes the answer on. Who may connect is decided by the socket's mode
 * (0600, the server's user). */
#include "roles/admin_priv.h"

#include "base/trace.h"
#include "roles/probe.h"

#include <stdio.h>
#include <stdlib.h>

static int64_t command_deadline(const struct admin_command *c)
{
	return loop_now(c->admin->role->loop) + SECONDS(ADMIN_SECONDS);
}

/* Hands the command to the role that knows, and its answer back as it is. */
static bool forward(struct admin_command *c, enum role_kind kind)
{
	struct msg_command_output m;
	struct chan *peer = role_peer(c->admin->role, kind, 0);
	enum err err =
		!peer ? ERR_NOT_FOUND
		      : CALL(peer, command, command_output, &m, c->arena, command_deadline(c),
			     .args = c->raw_args, .input = c->input, .cursor = c->cursor);

	if (err) {
		buf_printf(&c->err, "the role %s did not answer: %s\n", role_name(kind),
			   err_text(err));
		c->exit = 1;
		return false;
	}
	if (c->tool->chan && chan_reply(c->tool->chan, c->id, MSG_command_output, &m))
		log_warn(&c->admin->role->log, "answer-unsent", "command=%.*s",
			 STR_ARGS(c->args[0]));
	return true;
}

static void ask_supervisor(struct admin_command *c, bool is_stop)
{
	struct role *r = c->admin->role;
	struct chan *sup = role_peer(r, ROLE_SUPERVISOR, 0);
	struct msg_done done;
	enum err err;

	if (is_stop)
		err = CALL(sup, sup_stop_ask, done, &done, c->arena, command_deadline(c));
	else
		err = CALL(sup, sup_reload_ask, done, &done, c->arena, command_deadline(c));
	if (err) {
		buf_printf(&c->err,
			   is_stop ? "the server does not stop: %s\n"
				   : "the configuration was not taken over (%s); see `posthorn "
				     "check`\n",
			   err_text(err));
		c->exit = 1;
	}
}

/* sandbox-probe ROLE.INDEX WHAT [NUMBER [TEXT]]: for tests/sandbox; the role answers only with test
 * hooks on. */
static void probe(struct admin_command *c)
{
	struct role *r = c->admin->role;
	struct msg_sandbox_probe_reply m;
	struct msg_sandbox_probe what = { 0 };
	str rest = c->n > 1 ? c->args[1] : STR_EMPTY;
	enum role_kind kind = role_from_name(str_cut(&rest, '.'));
	uint64_t index = 0, number = 0;
	struct chan *peer = NULL;
	enum err err = ERR_OK;

	if (c->n < 3 || str_to_u64(rest, ROLE_INDEX_MAX - 1, &index) ||
	    (c->n > 3 && str_to_u64(c->args[3], UINT32_MAX, &number)) ||
	    (!(peer = role_peer(r, kind, (unsigned)index)) && kind != ROLE_ADMIN)) {
		buf_add(&c->err, S("sandbox-probe ROLE.INDEX WHAT [NUMBER [TEXT]]\n"));
		c->exit = 2;
		return;
	}
	what = (struct msg_sandbox_probe){ .what = c->args[2],
					   .number = (uint32_t)number,
					   .text = c->n > 4 ? c->args[4] : STR_EMPTY };
	if (kind == ROLE_ADMIN) {
		m.succeeded = role_probe_run(r, &what, &c->err);
		m.text = arena_str(c->arena, buf_str(&c->err));
		buf_clear(&c->err);
	} else {
		err = chan_call(peer, MSG_sandbox_probe, &what, MSG_sandbox_probe_reply, &m,
				c->arena, command_deadline(c));
	}
	if (err)
		buf_printf(&c->out, "gone %s\n", err_name(err));
	else
		buf_printf(&c->out, "%s %.*s\n", m.succeeded ? "done" : "refused",
			   STR_ARGS(m.text));
}

/* True when the answer was sent already. */
static bool run_command(struct admin_command *c)
{
	str name = c->args[0];

	if (str_eq(name, S("domain")) || str_eq(name, S("user")) || str_eq(name, S("alias")))
		return forward(c, ROLE_AUTH);
	if (str_eq(name, S("queue")))
		return forward(c, ROLE_QUEUE);
	if (str_eq(name, S("compact")) || str_eq(name, S("undelete")))
		return forward(c, ROLE_STORE);
	if (str_eq(name, S("status"))) {
		admin_status(c);
	} else if (str_eq(name, S("roles"))) {
		admin_roles(c);
	} else if (str_eq(name, S("trace"))) {
		admin_trace(c);
	} else if (str_eq(name, S("reload")) || str_eq(name, S("stop"))) {
		ask_supervisor(c, str_eq(name, S("stop")));
	} else if (str_eq(name, S("sandbox-probe"))) {
		probe(c);
	} else {
		buf_printf(&c->err, "the server knows no command \"%.*s\"\n", STR_ARGS(name));
		c->exit = 2;
	}
	return false;
}

/* A long answer goes in pieces: the cursor is how much of it was sent. It is made once, so that the
 * pieces fit together whatever happens in between. */
static void send_piece(struct admin_tool *t, uint32_t id, str all, uint64_t cursor, str complaint)
{
	str piece = str_sub(all, cursor, ADMIN_PIECE);
	bool more = cursor + piece.n < all.n;

	if (!t->chan)
		return;
	if (REPLY(t->chan, id, command_output, .out = piece, .err = str_head(complaint, 4096),
		  .exit = t->exit, .more = more, .cursor = cursor + piece.n))
		log_warn(&t->admin->role->log, "answer-unsent", "at=%llu",
			 (unsigned long long)cursor);
	if (!more)
		buf_free(&t->kept);
}

static void answer(struct admin_command *c)
{
	struct admin_tool *t = c->tool;

	if (buf_failed(&c->out)) {
		buf_add(&c->err, S("the answer is too long\n"));
		c->exit = 1;
	}
	t->exit = c->exit;
	buf_free(&t->kept);
	t->kept = c->out;
	buf_init(&c->out, 0);
	send_piece(t, c->id, buf_str(&t->kept), 0, buf_str(&c->err));
}

static void tool_leave(struct admin_tool *t)
{
	if (t->chan || t->commands)
		return;
	buf_free(&t->kept);
	free(t);
}

static void command_free(struct admin_command *c)
{
	c->tool->commands--;
	tool_leave(c->tool);
	buf_free(&c->out);
	buf_free(&c->err);
	arena_free(c->arena);
	free(c);
}

static void command_fiber(void *arg)
{
	struct admin_command *c = arg;

	if (!run_command(c))
		answer(c);
	command_free(c);
}

static bool split_args(struct admin_command *c, str args)
{
	while (args.n && c->n < ADMIN_ARGS_MAX)
		c->args[c->n++] = str_cut(&args, '\0');
	return c->n > 0 && args.n == 0;
}

static void tool_message(void *arg, struct chan *chan, struct msg *m)
{
	struct admin_tool *tool = arg;
	struct admin *a = tool->admin;
	struct admin_command *c;
	enum err err = ERR_PROTOCOL;

	if (m->type != MSG_command)
		return;
	if (m->u.command.cursor && buf_len(&tool->kept)) {
		send_piece(tool, m->id, buf_str(&tool->kept), m->u.command.cursor, STR_EMPTY);
		return;
	}
	buf_free(&tool->kept);
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->admin = a;
	c->tool = tool;
	tool->commands++;
	c->id = m->id;
	c->cursor = m->u.command.cursor;
	c->arena = arena_new(ADMIN_ARENA);
	buf_init(&c->out, 8 * 1024 * 1024);
	buf_init(&c->err, 64 * 1024);
	if (c->arena) {
		c->raw_args = arena_str(c->arena, m->u.command.args);
		c->input = arena_str(c->arena, m->u.command.input);
	}
	if (c->arena && c->raw_args.p && c->input.p && split_args(c, c->raw_args))
		err = fiber_spawn(a->role->loop, command_fiber, c);
	if (!err)
		return;
	if (REPLY_FAILED(chan, m->id, err, S("the command was not understood")))
		log_warn(&a->role->log, "answer-unsent", "error=%s", err_name(err));
	command_free(c);
}

static void tool_down(void *arg, struct chan *chan, enum err why)
{
	struct admin_tool *tool = arg;

	(void)why;
	tool->admin->tools--;
	tool->chan = NULL;
	tool_leave(tool);
	chan_free(chan);
}

static enum err tool_new(struct admin *a, int fd)
{
	static const struct chan_ops ops = { .on_message = tool_message, .on_down = tool_down };
	struct admin_tool *tool = calloc(1, sizeof(*tool));
	enum err err = tool ? ERR_OK : ERR_NO_MEMORY;

	if (!err) {
		tool->admin = a;
		err = chan_new(a->role->loop, ROLE_ADMIN, ROLE_TOOL, 0, &ops, tool, &tool->chan);
	}
	if (!err && (err = chan_attach(tool->chan, fd)))
		chan_free(tool->chan);
	if (err)
		free(tool);
	else
		a->tools++;
	return err;
}

static void on_tool(void *arg, unsigned ready)
{
	struct admin *a = arg;
	struct addr peer;
	int fd;

	(void)ready;
	while (os_accept(a->listener_fd, &peer, &fd) == ERR_OK)
		if (a->tools >= ADMIN_TOOLS_MAX || tool_new(a, fd))
			os_close(fd);
}

static void flush_trace(void *arg)
{
	struct admin *a = arg;

	if (trace_log_flush(a->trace))
		log_debug(&a->role->log, "trace-flush", "failed=yes");
}

static void admin_message(struct role *r, struct chan *from, struct msg *m)
{
	struct admin *a = r->state;

	(void)from;
	if (m->type != MSG_trace_event) {
		log_error(&r->log, "unexpected-message", "type=%s", msg_name(m->type));
		return;
	}
	trace_log_add(a->trace, &m->u.trace_event);
	loop_post(r->loop, &a->flush, flush_trace, a);
}

static enum err admin_init(struct role *r)
{
	struct admin *a = calloc(1, sizeof(*a));

	if (!a)
		return ERR_NO_MEMORY;
	a->role = r;
	a->listener_fd = a->trace_fd = -1;
	a->started_us = os_wall_us();
	r->state = a;
	return ERR_OK;
}

static enum err admin_listener(struct role *r, str service, str address, int fd)
{
	struct admin *a = r->state;

	(void)service;
	(void)address;
	a->listener_fd = fd;
	return ERR_OK;
}

static enum err admin_file(struct role *r, str name, str path, int fd)
{
	struct admin *a = r->state;

	(void)path;
	if (!str_eq(name, S("trace")))
		return ERR_UNSUPPORTED;
	a->trace_fd = fd;
	return ERR_OK;
}

static enum err admin_prepare(struct role *r)
{
	struct admin *a = r->state;

	if (a->listener_fd < 0 || a->trace_fd < 0)
		return ERR_CONFIG;
	return trace_log_open(a->trace_fd, conf_time_ns(r->conf, CONF_trace_days) / 1000,
			      conf_size(r->conf, CONF_trace_size), &r->log, &a->trace);
}

/* What goes into the history is for later: it is taken in handfuls. */
static enum err admin_start(struct role *r)
{
	struct admin *a = r->state;

	for (unsigned kind = 0; kind < ROLE_COUNT; kind++)
		for (unsigned i = 0; i < role_peers(r, (enum role_kind)kind); i++)
			chan_set_pace(role_peer(r, (enum role_kind)kind, i),
				      MILLISECONDS(ADMIN_PACE_MS));
	return loop_watch_listener(r->loop, &a->listener, a->listener_fd, on_tool, a);
}

static void admin_reload(struct role *r)
{
	struct admin *a = r->state;

	trace_log_limits(a->trace, conf_time_ns(r->conf, CONF_trace_days) / 1000,
			 conf_size(r->conf, CONF_trace_size));
}

const struct role_ops role_admin_ops = {
	.kind = ROLE_ADMIN,
	.sandbox = SANDBOX_FILES | SANDBOX_ACCEPT,
	.init = admin_init,
	.listener = admin_listener,
	.file = admin_file,
	.prepare = admin_prepare,
	.start = admin_start,
	.message = admin_message,
	.reload = admin_reload,
};
