/* Speaking with the running server: one message to role admin on DATA/control, answers until there
 * are no more.
 *
 * The socket is a UNIX one of whole datagrams; its file's permissions and the user that the kernel
 * names to admin say who may command. What comes back is decoded as from any role: by length and
 * permission, not by trust. An acknowledgement of what was received travels in the next request
 * (base/chan.h); one answer is at most one message, so the window is never used up.
 *
 * An admin that is killed takes the commands with it that it had accepted; those that wait in the
 * socket's queue, which is the supervisor's, are the next one's. So a question whose connection
 * ends, or is silent for long, is asked again on a new one, and what changes something is not: it
 * may have been done. Nobody waits for ever, and who waits long is told.
 */
#include "tools/tool.h"

#include "base/msg.h"
#include "base/os.h"

#include <stdlib.h>

enum {
	CALL_ID = 1,
	INPUT_PIECE = 24 * 1024,
	ASKED_MAX = 3, /* times, without an answer */
	TELL_MS = 5000,
	/* A command may take a minute between two answers (roles/admin_priv.h), and an admin that
	 * ended often comes back after half a minute. */
	PATIENCE_MS = 120000,
};

struct client {
	int fd;
	uint32_t received; /* since the last request */
	char *datagram;	   /* MSG_MAX bytes */
	int patience_ms;
	bool has_told; /* that it takes long */
	bool has_printed;
};

static enum err client_open(struct tool *t, struct client *c)
{
	str path =
		arena_printf(t->arena, "%.*s/control", STR_ARGS(conf_str(t->conf, CONF_data_dir)));

	c->received = 0;
	c->datagram = path.p ? arena_alloc(t->arena, MSG_MAX) : NULL;
	return c->datagram ? os_connect_datagrams(path.p, &c->fd) : ERR_NO_MEMORY;
}

static enum err client_send(struct client *c, const struct msg_command *m)
{
	struct buf b;
	struct iovec iov;
	int fds[MSG_FDS_MAX];
	unsigned nfds = 0;
	enum err err;

	buf_init(&b, MSG_MAX);
	err = msg_encode(&b, MSG_command, CALL_ID, false, c->received, m, fds, &nfds);
	if (!err) {
		iov = (struct iovec){ b.p, buf_len(&b) };
		err = os_send_fds(c->fd, &iov, 1, NULL, 0);
	}
	c->received = 0;
	explicit_bzero(b.p, b.p ? b.size : 0); /* it may hold a password */
	buf_free(&b);
	return err;
}

static enum err client_wait(struct client *c)
{
	enum err err = os_wait_readable(c->fd, TELL_MS);

	if (err != ERR_TIMEOUT)
		return err;
	if (!c->has_told)
		tool_complain("no answer yet from role admin; waiting for %d s more",
			      (PATIENCE_MS - TELL_MS) / 1000);
	c->has_told = true;
	return os_wait_readable(c->fd, c->patience_ms - TELL_MS);
}

/* The next answer to our request; acknowledgements alone are passed over. */
static enum err client_receive(struct client *c, struct msg *m)
{
	int fds[OS_FDS_MAX];
	unsigned nfds = 0;
	size_t n;
	enum err err;

	do {
		if ((err = client_wait(c)) ||
		    (err = os_recv_fds(c->fd, c->datagram, MSG_MAX, &n, fds, &nfds)))
			return err;
		for (unsigned i = 0; i < nfds; i++)
			os_close(fds[i]);
		if ((err = msg_decode(str_of(c->datagram, n), ROLE_ADMIN, ROLE_TOOL, NULL, 0, m)))
			return err;
		c->received += m->type != MSG_credit;
	} while (m->type == MSG_credit);
	return ERR_OK;
}

/* One command with one piece of input, to the end of its output. */
static enum err client_run(struct client *c, str args, str input, int *status)
{
	uint64_t cursor = 0;
	struct msg m;
	enum err err;

	for (;;) {
		err = client_send(
			c, &(struct msg_command){ .args = args, .input = input, .cursor = cursor });
		if (err || (err = client_receive(c, &m)))
			return err;
		if (m.type == MSG_failed) {
			tool_complain("%.*s",
				      STR_ARGS(m.u.failed.text.n > 0
						       ? m.u.failed.text
						       : str_from_c(err_text(
								 m.u.failed.err < ERR_COUNT
									 ? (enum err)m.u.failed.err
									 : ERR_PROTOCOL))));
			*status = TOOL_FAILED;
			return ERR_OK;
		}
		if (m.type != MSG_command_output)
			return ERR_PROTOCOL;
		tool_print(m.u.command_output.out);
		c->has_printed = true;
		if (m.u.command_output.err.n > 0)
			tool_complain("%.*s", STR_ARGS(str_trim(m.u.command_output.err)));
		*status = m.u.command_output.exit;
		if (!m.u.command_output.more)
			return ERR_OK;
		cursor = m.u.command_output.cursor;
	}
}

/* Input that is too long for a message goes in pieces of whole lines, each as a command of its own.
 */
static str next_piece(str *rest)
{
	str piece = str_head(*rest, INPUT_PIECE);
	size_t end = str_rfind_char(piece, '\n');

	if (piece.n < rest->n && end != STR_NONE)
		piece.n = end + 1;
	*rest = str_from(*rest, piece.n);
	return piece;
}

/* What only asks may be asked twice. */
static bool is_question(const str *args, size_t n)
{
	return str_eq(args[0], S("status")) || str_eq(args[0], S("roles")) ||
	       str_eq(args[0], S("trace")) ||
	       (n > 1 && (str_eq(args[1], S("list")) || str_eq(args[1], S("show"))));
}

/* Once, and again while there is no answer and `again` allows it. */
static enum err client_ask(struct tool *t, struct client *c, str args, str input, bool again,
			   int *status)
{
	enum err err;

	c->patience_ms = again ? PATIENCE_MS / ASKED_MAX : PATIENCE_MS;
	err = client_run(c, args, input, status);
	for (unsigned asked = 1; again && !c->has_printed && asked < ASKED_MAX &&
				 (err == ERR_CLOSED || err == ERR_EOF || err == ERR_TIMEOUT);
	     asked++) {
		os_close(c->fd);
		c->fd = -1;
		if (!(err = client_open(t, c)))
			err = client_run(c, args, input, status);
	}
	return err;
}

enum err tool_send(struct tool *t, const str *args, size_t n, str input, int *status)
{
	struct client c = { .fd = -1 };
	struct buf joined;
	enum err err;
	int worst = TOOL_DONE;

	if ((err = client_open(t, &c)))
		return err;
	buf_init(&joined, 32768);
	for (size_t i = 0; i < n; i++) {
		buf_add(&joined, args[i]);
		buf_add_char(&joined, '\0');
	}
	if (buf_failed(&joined))
		err = ERR_TOO_LONG;
	do {
		if (!err)
			err = client_ask(t, &c, buf_str(&joined), next_piece(&input),
					 is_question(args, n), status);
		worst = MAX(worst, *status);
	} while (!err && input.n > 0);
	*status = worst;
	buf_free(&joined);
	os_close(c.fd);
	if (err) {
		tool_complain("the server did not answer: %s", err_text(err));
		*status = TOOL_FAILED;
	}
	return ERR_OK;
}

int forward_to_server(struct tool *t)
{
	int status = tool_load_config(t);
	enum err err;

	if (status)
		return status;
	err = tool_send(t, t->args, t->n, STR_EMPTY, &status);
	if (!err)
		return status;
	if (err == ERR_NOT_FOUND)
		tool_complain("the server does not run (nobody listens on %.*s/control)",
			      STR_ARGS(conf_str(t->conf, CONF_data_dir)));
	else
		tool_complain("%.*s/control: %s", STR_ARGS(conf_str(t->conf, CONF_data_dir)),
			      err_text(err));
	return err == ERR_NOT_FOUND ? TOOL_NO_SERVER : TOOL_FAILED;
}
