/* The administrator, at the control socket: accounts are added and must stay, the queue is listed,
 * flushed, and messages in it are deleted.
 *
 * `queue list` is also how the end of a run knows that nothing is under way any more. */
#include "base/msg.h"
#include "sim/world.h"

#include <stdio.h>

enum { ANSWER_MS = 130 * 1000, OUTPUT_MAX = 4 * 1024 * 1024, USERS_MAX = 200 };

struct admin {
	struct client *client;
	int fd;
	uint32_t received;
	struct buf out;
	int exit;
	unsigned users; /* added, and acknowledged: extra0 ... */
	bool is_unsure; /* the last one had no answer */
};

static bool datagram_send(struct admin *a, const struct msg_command *m)
{
	struct buf b;
	struct iovec iov;
	int fds[MSG_FDS_MAX];
	unsigned nfds = 0;
	enum err err;

	buf_init(&b, MSG_MAX);
	err = msg_encode(&b, MSG_command, 1, false, a->received, m, fds, &nfds);
	iov = (struct iovec){ b.p, buf_len(&b) };
	if (!err)
		err = os_send_fds(a->fd, &iov, 1, NULL, 0);
	a->received = 0;
	buf_free(&b);
	return !err;
}

/* The next piece of output. *more: there is another. */
static bool datagram_receive(struct admin *a, char *space, uint64_t *cursor, bool *more)
{
	int fds[OS_FDS_MAX];
	unsigned nfds = 0;
	struct msg m = { .type = MSG_credit };
	size_t n;

	while (m.type == MSG_credit) {
		if (os_wait_readable(a->fd, ANSWER_MS) ||
		    os_recv_fds(a->fd, space, MSG_MAX, &n, fds, &nfds) ||
		    msg_decode(str_of(space, n), ROLE_ADMIN, ROLE_TOOL, NULL, 0, &m))
			return false;
		a->received += m.type != MSG_credit;
	}
	*more = false;
	a->exit = 1;
	if (m.type != MSG_command_output)
		return m.type == MSG_failed;
	buf_add(&a->out, m.u.command_output.out);
	buf_add(&a->out, m.u.command_output.err);
	a->exit = m.u.command_output.exit;
	*more = m.u.command_output.more;
	*cursor = m.u.command_output.cursor;
	return true;
}

/* False: no answer. Words of `args` are NUL-ended. */
static bool command(struct admin *a, str args, str input)
{
	char *space;
	struct buf memory;
	uint64_t cursor = 0;
	bool more = true, good = true;

	buf_clear(&a->out);
	a->received = 0;
	if (os_connect_datagrams(a->client->world->at.control, &a->fd))
		return false;
	buf_init(&memory, MSG_MAX);
	space = buf_reserve(&memory, MSG_MAX);
	while (good && more)
		good = space &&
		       datagram_send(a, &(struct msg_command){
						.args = args, .input = input, .cursor = cursor }) &&
		       datagram_receive(a, space, &cursor, &more);
	os_close(a->fd);
	buf_free(&memory);
	a->client->world->counts.commands += good;
	return good;
}

/* Every account that was ever acknowledged is there. */
static void users_check(struct admin *a)
{
	struct world *w = a->client->world;
	char name[64];

	if (!command(a, S("user\0list\0"), STR_EMPTY) || a->exit)
		return;
	for (unsigned i = 0; i < a->users; i++) {
		snprintf(name, sizeof(name), "extra%u@example.test", i);
		if (str_find(buf_str(&a->out), str_from_c(name)) == STR_NONE)
			world_violation(w, "account %s was added and is gone", name);
	}
	snprintf(name, sizeof(name), "extra%u@example.test", a->users);
	if (a->is_unsure && str_find(buf_str(&a->out), str_from_c(name)) != STR_NONE)
		a->users++; /* it happened; from now on it stays */
	a->is_unsure = false;
}

static void user_add(struct admin *a)
{
	char args[100];
	int n;

	users_check(a);
	if (a->users == USERS_MAX || a->is_unsure)
		return;
	n = snprintf(args, sizeof(args), "user%cadd%cextra%u@example.test%c", 0, 0, a->users, 0);
	a->is_unsure = true;
	if (!command(a, str_of(args, (size_t)n), S("a-password")))
		return;
	world_note(a->client->world, a->client->name, "user add extra%u: %d %.*s", a->users, a->exit,
		   STR_ARGS(str_head(buf_str(&a->out), 200)));
	if (a->exit == 0) {
		a->is_unsure = false;
		a->users++;
	}
}

static void queue_look(struct admin *a)
{
	struct world *w = a->client->world;

	w->queue_is_empty = command(a, S("queue\0list\0"), STR_EMPTY) && !a->exit &&
			    str_find(buf_str(&a->out), S("The queue is empty")) != STR_NONE;
}

void client_admin_run(struct client *c)
{
	struct admin a = { .client = c };

	buf_init(&a.out, OUTPUT_MAX);
	while (client_sleep(c, 300 + chance_below(&c->chance, 2000))) {
		if (c->world->is_kind) {
			(void)command(&a, S("queue\0flush\0"), STR_EMPTY);
			users_check(&a);
			queue_look(&a);
			continue;
		}
		switch (chance_below(&c->chance, 4)) {
		case 0:
			user_add(&a);
			break;
		case 1:
			(void)command(&a, S("queue\0flush\0"), STR_EMPTY);
			break;
		case 2:
			(void)command(&a, S("status\0"), STR_EMPTY);
			break;
		default:
			queue_look(&a);
		}
	}
	buf_free(&a.out);
}
