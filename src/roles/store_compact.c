/* Compaction, as the role store runs it: asks the helper for what the engine says, one question at
 * a time, and hands in the answers. `posthorn compact` has it run at once and without a pause,
 * until there is nothing more to give back.
 *
 * Blobs come as a memfd. It is read here, not mapped: a step is half a megabyte.
 */
#include "roles/store_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	HELPER_SECONDS = 120,
	BLOBS_MAX = 32 * 1024 * 1024,
	COMMAND_SECONDS = 20, /* the tool is told that it goes on */
};

static void compact_task(void *arg)
{
	store_role_compact(arg);
}

static void failed(struct store_role *s, enum err err)
{
	store_compact_failed(s->store);
	log_warn(&s->role->log, "store-compact-failed", "error=%s", err_name(err));
}

static enum err reply_error(enum err err, const struct msg *reply, enum msg_type wanted)
{
	if (err)
		return err;
	if (reply->type == MSG_failed)
		return reply->u.failed.err ? (enum err)reply->u.failed.err : ERR_PROTOCOL;
	return reply->type == wanted ? ERR_OK : ERR_PROTOCOL;
}

static void on_planned(void *arg, enum err err, struct msg *reply)
{
	struct store_role *s = arg;

	s->compact_asks = false;
	err = reply_error(err, reply, MSG_cp_planned);
	if (err)
		failed(s, err);
	else
		(void)store_compact_begin(s->store, &reply->u.cp_planned);
	store_role_compact(s);
}

static enum err blobs_read(struct store_role *s, int fd)
{
	uint64_t size = 0;
	char *p = NULL;
	enum err err = fd > 0 ? os_memfd_check(fd, &size) : ERR_OK;

	buf_clear(&s->blobs);
	if (!err && size &&
	    !(p = buf_reserve(&s->blobs, (size_t)MIN(size, (uint64_t)BLOBS_MAX + 1))))
		err = ERR_TOO_LONG;
	if (!err && size)
		err = os_pread_all(fd, p, (size_t)size, 0);
	if (!err)
		buf_added(&s->blobs, (size_t)size);
	return err;
}

static void on_items(void *arg, enum err err, struct msg *reply)
{
	struct store_role *s = arg;

	s->compact_asks = false;
	err = reply_error(err, reply, MSG_cp_items);
	if (!err)
		err = blobs_read(s, reply->u.cp_items.blobs);
	if (err)
		failed(s, err);
	else
		store_compact_items(s->store, &reply->u.cp_items, buf_str(&s->blobs));
	store_role_flush(s);
	store_role_compact(s);
}

static void ask(struct store_role *s, struct chan *helper, enum msg_type type, const void *m,
		void (*fn)(void *, enum err, struct msg *))
{
	enum err err;

	s->compact_asks = true;
	err = chan_call_async(helper, type, m, loop_now(s->role->loop) + SECONDS(HELPER_SECONDS),
			      fn, s);
	if (err) {
		s->compact_asks = false;
		failed(s, err);
	}
}

/* The forced run: a checkpoint, so that the index knows all that may go, and a pass, as long as
 * passes free something. */
static bool forced_plan_due(struct store_role *s)
{
	if (!s->compact_forced || !store_compact_is_idle(s->store))
		return false;
	if (s->compact_planned && !store_compact_has_gained(s->store)) {
		s->compact_forced = false;
		return false;
	}
	return s->compact_checkpointed;
}

void store_role_compact(struct store_role *s)
{
	struct chan *helper = role_peer(s->role, ROLE_CHECKPOINT, 0);
	bool forced = forced_plan_due(s);
	struct msg_cp_plan plan;
	struct msg_cp_step step;
	int64_t when = 0;

	if (s->compact_asks || s->is_stopping || !helper || !chan_is_up(helper))
		return;
	if ((forced || !s->compact_forced) && store_compact_due(s->store, forced, &plan)) {
		s->compact_planned = forced;
		s->compact_checkpointed = false;
		ask(s, helper, MSG_cp_plan, &plan, on_planned);
		return;
	}
	if (store_compact_step_due(s->store, &step, &when)) {
		ask(s, helper, MSG_cp_step, &step, on_items);
		return;
	}
	if (when)
		loop_timer_set(s->role->loop, &s->compact_timer, when, compact_task, s);
}

bool store_role_forces_checkpoint(struct store_role *s)
{
	bool ends_pass = store_compact_wants_checkpoint(s->store);

	return ends_pass ||
	       (s->compact_forced && !s->compact_checkpointed && store_compact_is_idle(s->store));
}

void store_role_checkpointed(struct store_role *s)
{
	s->compact_checkpointed = true;
	/* Gives back what the pass emptied. */
	(void)store_compact_wants_checkpoint(s->store);
	store_role_compact(s);
}

/* ---- posthorn compact ---- */

static void answer(struct store_role *s, struct compact_command *c)
{
	struct chan *chan = c->waiting->client->chan;
	char text[128];
	int n = 0;

	text[0] = 0;
	if (!s->compact_forced && store_compact_has_failed(s->store))
		n = snprintf(text, sizeof(text), "compaction failed; the log says why\n");
	else if (!s->compact_forced)
		n = snprintf(text, sizeof(text), "%llu segments were emptied and given back\n",
			     (unsigned long long)(store_compact_freed(s->store) - c->freed));
	if (chan && chan == c->waiting->chan &&
	    REPLY(chan, c->waiting->id, command_output, .out = str_of(text, (size_t)n),
		  .exit = !s->compact_forced && store_compact_has_failed(s->store),
		  .more = s->compact_forced, .cursor = c->freed + 1))
		log_warn(&s->role->log, "answer-unsent", "command=compact");
	waiting_free(c->waiting);
	free(c);
}

void store_role_compact_tell(struct store_role *s)
{
	int64_t now = loop_now(s->role->loop);

	for (struct compact_command **at = &s->compact_commands, *c; (c = *at);) {
		if (s->compact_forced && now < c->until) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		answer(s, c);
	}
}

void store_role_compact_command(struct store_role *s, struct client *from, const struct msg *m)
{
	struct compact_command *c = calloc(1, sizeof(*c));

	if (!c || !(c->waiting = waiting_new(from, m->id, false))) {
		free(c);
		store_role_refuse(s, from->chan, m->id, ERR_NO_MEMORY);
		return;
	}
	c->freed = m->u.command.cursor ? m->u.command.cursor - 1 : store_compact_freed(s->store);
	c->until = loop_now(s->role->loop) + SECONDS(COMMAND_SECONDS);
	c->next = s->compact_commands;
	s->compact_commands = c;
	if (!m->u.command.cursor && !s->compact_forced) {
		s->compact_forced = true;
		s->compact_planned = s->compact_checkpointed = false;
	}
}

void store_role_compact_free(struct store_role *s)
{
	loop_timer_cancel(s->role->loop, &s->compact_timer);
	s->compact_forced = false;
	store_role_compact_tell(s);
	buf_free(&s->blobs);
}
