/* `posthorn start|stop|restart` and `posthorn role`: the life of the server.
 *
 *	posthorn start                   in the foreground: what systemd and ./start use
 *	posthorn start --ready-fd N      the same; a byte on descriptor N when all roles work
 *	posthorn start --background      returns when all roles work, or with what went wrong
 *
 * In the background the server is a child that told us over a socket pair that it is ready; its
 * complaints still went to our standard error, so that they are seen.
 */
#include "base/msg.h"
#include "base/os.h"
#include "roles/role.h"
#include "roles/supervisor.h"
#include "tools/tool.h"

enum { STOP_SECONDS = 60, STOP_STEP_NS = 20 * 1000 * 1000 };

/* The configuration, checked, and its text for the roles. */
static int prepare(struct tool *t, struct supervisor_options *o)
{
	struct buf problems;
	int status = tool_load_config(t);

	if (status)
		return status;
	buf_init(&problems, CONF_PROBLEMS_MAX);
	if (conf_check(t->conf, &problems)) {
		tool_complain("%.*s", STR_ARGS(str_trim(buf_str(&problems))));
		status = TOOL_CONFIG;
	}
	buf_free(&problems);
	o->config_path = t->config_path;
	o->conf = t->conf;
	if (!status && conf_read_file(t->config_path, t->arena, &o->config_text)) {
		tool_complain("%.*s cannot be read", STR_ARGS(t->config_path));
		status = TOOL_CONFIG;
	}
	if (!status)
		tool_give_directory(t);
	return status;
}

static void server_main(void *arg)
{
	const struct supervisor_options *o = arg;

	os_close_others(&o->ready_fd, 1);
	os_detach();
	os_exit(supervisor_main(o));
}

static int start_in_background(struct supervisor_options *o)
{
	int fd[2], pid;
	char byte;
	size_t n = 0;
	enum err err = os_socketpair(false, fd);

	o->ready_fd = err ? -1 : fd[1];
	if (!err)
		err = os_fork(server_main, o, &pid);
	if (err) {
		tool_complain("the server cannot be started: %s", err_text(err));
		return TOOL_FAILED;
	}
	os_close(fd[1]);
	err = os_wait_readable(fd[0], -1);
	if (!err)
		err = os_read(fd[0], &byte, 1, &n);
	os_close(fd[0]);
	return err || n == 0 ? TOOL_FAILED : TOOL_DONE; /* it said why */
}

int command_start(struct tool *t)
{
	struct supervisor_options o = { .ready_fd = -1 };
	bool background = t->n == 2 && str_eq(t->args[1], S("--background"));
	bool ready_fd = t->n == 3 && str_eq(t->args[1], S("--ready-fd"));
	uint64_t fd = 0;
	int status;

	if (!background && !ready_fd && t->n > 1)
		return tool_usage(t);
	if (ready_fd && (str_to_u64(t->args[2], 1023, &fd) || fd < 3))
		return tool_usage(t);
	if ((status = prepare(t, &o)))
		return status;
	if (background)
		return start_in_background(&o);
	if (ready_fd)
		o.ready_fd = (int)fd;
	return supervisor_main(&o);
}

/* Waits until the server's lock on its data is free: then all roles have ended. */
static int wait_until_gone(struct tool *t)
{
	str path = arena_printf(t->arena, "%.*s/lock", STR_ARGS(conf_str(t->conf, CONF_data_dir)));
	int64_t until = os_monotonic_ns() + (int64_t)STOP_SECONDS * 1000000000;
	struct os_event none;
	enum err err;
	unsigned n;
	int fd, poll;

	if (!path.p || os_open(-1, path.p, OS_READ | OS_WRITE, &fd))
		return TOOL_DONE; /* there is nothing to wait for */
	err = os_poll_new(&poll);
	while (!err && (err = os_lock_file(fd)) == ERR_BUSY && os_monotonic_ns() < until)
		err = os_poll_wait(poll, &none, 1, STOP_STEP_NS, &n);
	os_close(poll);
	os_close(fd);
	if (!err)
		return TOOL_DONE;
	tool_complain("the server did not end: %s",
		      err == ERR_BUSY ? "it still runs" : err_text(err));
	return TOOL_FAILED;
}

int command_stop(struct tool *t)
{
	int status;

	if (t->n > 1)
		return tool_usage(t);
	status = forward_to_server(t);
	return status ? status : wait_until_gone(t);
}

int command_restart(struct tool *t)
{
	struct supervisor_options o = { .ready_fd = -1 };
	str stop[] = { S("stop") };
	int status;

	if (t->n > 1)
		return tool_usage(t);
	/* A configuration that would not start again must not stop what runs. */
	if ((status = prepare(t, &o)))
		return status;
	if (!tool_send(t, stop, 1, STR_EMPTY, &status) && (status || (status = wait_until_gone(t))))
		return status;
	return start_in_background(&o);
}

int command_role(struct tool *t)
{
	const struct role_ops *ops = t->n == 2 ? role_ops_of(role_from_name(t->args[1])) : NULL;

	if (!ops) {
		tool_complain("this is what the supervisor runs, not people");
		return TOOL_USAGE;
	}
	arena_free(t->arena); /* a role needs none of it */
	t->arena = NULL;
	return role_main(ops, ROLE_CONTROL_FD);
}
