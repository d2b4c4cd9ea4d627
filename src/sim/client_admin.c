/* The administrator, at the control socket: accounts are added and must stay, the queue is listed,
 * flushed, and messages in it are deleted.
 *
 * It is a process of the server's machine and dies with it; what it was told is in the ledger.
 * `queue list` is also how the end of a run knows that nothing is under way any more. */
#include "base/chan.h"
#include "sim/world.h"

#include <stdio.h>

enum {
	ANSWER_SECONDS = 130,
	OUTPUT_MAX = 4 * 1024 * 1024,
	USERS_MAX = 200,
	REPLY_MEMORY = 256 * 1024,
	ID_SIZE = 40,
};

struct admin {
	struct client *client;
	struct buf out;
	int exit;
};

static void on_message(void *arg, struct chan *c, struct msg *in)
{
	(void)arg;
	(void)c;
	(void)in;
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	(void)why;
}

static const struct chan_ops chan_ops = { on_message, on_down };

/* The next piece of output. */
static enum err piece(struct admin *a, struct chan *c, str args, str input, uint64_t *cursor,
		      bool *more)
{
	struct arena *arena = arena_new(REPLY_MEMORY);
	struct msg_command_output m;
	enum err err = !arena ? ERR_NO_MEMORY
			      : CALL(c, command, command_output, &m, arena,
				     loop_now(a->client->loop) + SECONDS(ANSWER_SECONDS),
				     .args = args, .input = input, .cursor = *cursor);

	if (!err) {
		buf_add(&a->out, m.out);
		buf_add(&a->out, m.err);
		a->exit = m.exit;
		*more = m.more;
		*cursor = m.cursor;
	}
	arena_free(arena);
	return err;
}

/* False: no answer. Words of `args` are NUL-ended. */
static bool command(struct admin *a, str args, str input)
{
	struct chan *c = NULL;
	uint64_t cursor = 0;
	bool more = true;
	int fd;
	enum err err;

	buf_clear(&a->out);
	a->exit = 1;
	if (os_connect_datagrams(a->client->world->at.control, &fd))
		return false;
	err = chan_new(a->client->loop, ROLE_TOOL, ROLE_ADMIN, 0, &chan_ops, a, &c);
	if (!err)
		err = chan_attach(c, fd);
	if (err)
		os_close(fd);
	while (!err && more)
		err = piece(a, c, args, input, &cursor, &more);
	chan_free(c);
	a->client->world->counts.commands += !err;
	return !err;
}

/* Every account that was ever acknowledged is there. */
static void users_check(struct admin *a)
{
	struct world *w = a->client->world;
	char name[64];

	if (!command(a, S("user\0list\0"), STR_EMPTY) || a->exit)
		return;
	for (unsigned i = 0; i < w->users; i++) {
		snprintf(name, sizeof(name), "extra%u@example.test", i);
		if (str_find(buf_str(&a->out), str_from_c(name)) == STR_NONE)
			world_violation(w, "account %s was added and is gone: %.*s", name,
					STR_ARGS(buf_str(&a->out)));
	}
	snprintf(name, sizeof(name), "extra%u@example.test", w->users);
	if (w->user_is_unsure && str_find(buf_str(&a->out), str_from_c(name)) != STR_NONE)
		w->users++; /* it happened; from now on it stays */
	w->user_is_unsure = false;
}

static void user_add(struct admin *a)
{
	struct world *w = a->client->world;
	char args[100];
	int n;

	users_check(a);
	if (w->users == USERS_MAX || w->user_is_unsure)
		return;
	n = snprintf(args, sizeof(args), "user%cadd%cextra%u@example.test%c", 0, 0, w->users, 0);
	w->user_is_unsure = true;
	if (!command(a, str_of(args, (size_t)n), S("a-password")))
		return;
	world_note(w, a->client->name, "user add extra%u: %d %.*s", w->users, a->exit,
		   STR_ARGS(str_head(buf_str(&a->out), 200)));
	if (a->exit == 0) {
		w->user_is_unsure = false;
		w->users++;
	}
}

static void queue_look(struct admin *a)
{
	struct world *w = a->client->world;

	w->queue_is_empty = command(a, S("queue\0list\0"), STR_EMPTY) && !a->exit &&
			    str_find(buf_str(&a->out), S("The queue is empty")) != STR_NONE;
}

/* Some message on its way out; its id as the queue is called by, and the send. */
static struct send *queue_pick(struct admin *a, char id[ID_SIZE])
{
	struct world *w = a->client->world;
	str rest, line, address, name;
	struct send *found = NULL, *s;
	unsigned n = 0;

	if (!command(a, S("queue\0list\0"), STR_EMPTY) || a->exit)
		return NULL;
	for (rest = buf_str(&a->out); rest.n;) {
		size_t at;

		line = str_cut(&rest, '\n');
		at = str_find(line, S("> to <r-"));
		if (at == STR_NONE || line.p[0] == ' ')
			continue;
		address = str_from(line, at + 6);
		s = world_send_of(w, str_cut(&address, '>'));
		if (!s)
			continue;
		s->is_seen = true;
		if (chance_below(&a->client->chance, ++n))
			continue;
		found = s;
		name = str_cut(&line, ' ');
		snprintf(id, ID_SIZE, "%.*s", STR_ARGS(name));
	}
	return found;
}

static bool queue_command(struct admin *a, const char *verb, const char *id)
{
	char args[100];
	int n = snprintf(args, sizeof(args), "queue%c%s%c%s%c", 0, verb, 0, id, 0);

	bool is_told = command(a, str_of(args, (size_t)n), STR_EMPTY);

	world_note(a->client->world, a->client->name, "queue %s %s: %d %d %.*s", verb, id, is_told,
		   a->exit, STR_ARGS(str_head(buf_str(&a->out), 100)));
	return is_told && a->exit == 0;
}

/* What is deleted may be gone from now on, and is gone when we are told so of all that was left. */
static void queue_delete(struct admin *a)
{
	struct world *w = a->client->world;
	char id[ID_SIZE], told[40];
	struct send *s = queue_pick(a, id);
	unsigned left = 0;
	bool is_unclear = false;

	if (!s)
		return;
	s->is_deleted = true;
	for (unsigned i = 0; i < s->n; i++)
		s->rcpts[i].is_deleted |= !s->rcpts[i].is_local;
	if (!queue_command(a, "delete", id))
		return;
	for (unsigned i = 0; i < s->n; i++) {
		left += !s->rcpts[i].is_local && !s->rcpts[i].accepted && !s->rcpts[i].refused;
		is_unclear |= s->rcpts[i].refused > 0;
	}
	world_note(w, a->client->name, "deleted s%llu, %u left: %.*s", (unsigned long long)s->id,
		   left, STR_ARGS(buf_str(&a->out)));
	snprintf(told, sizeof(told), "%u recipients deleted", left);
	/* One that was refused may be what was deleted, while another was under way. */
	if (!left || is_unclear || !str_starts(buf_str(&a->out), str_from_c(told)))
		return;
	for (unsigned i = 0; i < s->n; i++)
		if (!s->rcpts[i].is_local && !s->rcpts[i].accepted) {
			s->rcpts[i].deleted_at = loop_now(a->client->loop);
			w->counts.deleted++;
		}
}

static void queue_hold(struct admin *a)
{
	char id[ID_SIZE];

	if (queue_pick(a, id))
		(void)queue_command(a, "hold", id);
}

static void task(struct admin *a, unsigned which)
{
	switch (which) {
	case 0:
		user_add(a);
		break;
	case 1:
		(void)command(a, S("queue\0flush\0"), STR_EMPTY);
		break;
	case 2:
		(void)command(a, S("status\0"), STR_EMPTY);
		break;
	case 3:
		(void)command(a, S("compact\0"), STR_EMPTY);
		break;
	case 4:
		queue_hold(a);
		break;
	case 5:
		(void)queue_command(a, "release", "ALL");
		break;
	case 6:
	case 7:
		queue_delete(a);
		break;
	default:
		queue_look(a);
	}
}

void client_admin_run(struct client *c)
{
	struct admin a = { .client = c };

	buf_init(&a.out, OUTPUT_MAX);
	while (client_sleep(c, 50 + chance_below(&c->chance, 900))) {
		if (c->world->is_kind) {
			(void)queue_command(&a, "release", "ALL");
			(void)command(&a, S("queue\0flush\0"), STR_EMPTY);
			users_check(&a);
			queue_look(&a);
			continue;
		}
		task(&a, chance_below(&c->chance, 9));
	}
	buf_free(&a.out);
}
