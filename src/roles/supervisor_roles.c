/* Which roles there are, who speaks with whom, and what each is handed.
 *
 * The table of links is the architecture's: two roles that are not in it have no way to speak. Each
 * link is a socket pair of its own, made anew when either end is started again, so a new process
 * never sees what the old one left unread. */
#include "roles/supervisor_priv.h"

#include <stdio.h>

static const struct {
	enum role_kind a, b;
} links[] = {
	{ ROLE_FRONT, ROLE_KEYS },
	{ ROLE_FRONT, ROLE_AUTH },
	{ ROLE_FRONT, ROLE_STORE },
	{ ROLE_FRONT, ROLE_FILTER },
	{ ROLE_FRONT, ROLE_SESSION },
	{ ROLE_AUTH, ROLE_LOOKUP },
	{ ROLE_AUTH, ROLE_STORE },
	{ ROLE_AUTH, ROLE_SESSION },
	{ ROLE_AUTH, ROLE_QUEUE },
	{ ROLE_STORE, ROLE_FILTER },
	{ ROLE_STORE, ROLE_SESSION },
	{ ROLE_STORE, ROLE_QUEUE },
	{ ROLE_STORE, ROLE_OUT },
	{ ROLE_STORE, ROLE_CHECKPOINT },
	{ ROLE_QUEUE, ROLE_OUT },
	{ ROLE_QUEUE, ROLE_FILTER },
	{ ROLE_OUT, ROLE_DNS },
	{ ROLE_OUT, ROLE_KEYS },
	/* admin asks all for figures and takes their trace. */
	{ ROLE_ADMIN, ROLE_FRONT },
	{ ROLE_ADMIN, ROLE_KEYS },
	{ ROLE_ADMIN, ROLE_AUTH },
	{ ROLE_ADMIN, ROLE_STORE },
	{ ROLE_ADMIN, ROLE_SESSION },
	{ ROLE_ADMIN, ROLE_FILTER },
	{ ROLE_ADMIN, ROLE_QUEUE },
	{ ROLE_ADMIN, ROLE_OUT },
	{ ROLE_ADMIN, ROLE_DNS },
	{ ROLE_ADMIN, ROLE_LOOKUP },
	{ ROLE_ADMIN, ROLE_CHECKPOINT },
};

static bool are_linked(enum role_kind a, enum role_kind b)
{
	for (unsigned i = 0; i < ARRAY_LEN(links); i++)
		if ((links[i].a == a && links[i].b == b) || (links[i].a == b && links[i].b == a))
			return true;
	return false;
}

static enum err plan_role(struct supervisor *s, enum role_kind kind, uint64_t count)
{
	for (unsigned i = 0; i < count; i++) {
		struct child *c = &s->children[s->n];
		enum err err;

		if (s->n == CHILDREN_MAX || i == ROLE_INDEX_MAX) {
			supervisor_complain("more than %d processes", CHILDREN_MAX);
			return ERR_TOO_MANY;
		}
		*c = (struct child){ .sup = s, .kind = kind, .index = i, .instance = s->n + 1 };
		if ((err = supervisor_user(s, kind, &c->uid, &c->gid)))
			return err;
		s->n++;
	}
	return ERR_OK;
}

enum err supervisor_plan(struct supervisor *s)
{
	static const struct {
		enum role_kind kind;
		enum conf_id count; /* CONF_COUNT: one */
	} plan[] = {
		{ ROLE_ADMIN, CONF_COUNT },
		{ ROLE_STORE, CONF_COUNT },
		{ ROLE_CHECKPOINT, CONF_COUNT },
		{ ROLE_KEYS, CONF_COUNT },
		{ ROLE_AUTH, CONF_COUNT },
		{ ROLE_LOOKUP, CONF_lookup_processes },
		{ ROLE_FILTER, CONF_filter_processes },
		{ ROLE_DNS, CONF_COUNT },
		{ ROLE_QUEUE, CONF_COUNT },
		{ ROLE_OUT, CONF_out_processes },
		{ ROLE_SESSION, CONF_COUNT },
		{ ROLE_FRONT, CONF_front_processes },
	};
	enum err err = ERR_OK;

	for (unsigned i = 0; i < ARRAY_LEN(plan) && !err; i++) {
		uint64_t n = plan[i].count == CONF_COUNT ? 1 : conf_u64(s->conf, plan[i].count);

		err = plan_role(s, plan[i].kind, n ? n : os_cores());
	}
	return err;
}

static void control_down(void *arg, struct chan *c, enum err why)
{
	struct child *child = arg;

	(void)c;
	/* Its end is seen by SIGCHLD; one that breaks the protocol is ended here. */
	if (why == ERR_PROTOCOL && child->pid > 0) {
		log_error(&child->sup->log, "role-cut-off", "role=%s.%u", role_name(child->kind),
			  child->index);
		if (os_kill(child->pid, 9))
			log_warn(&child->sup->log, "kill-failed", "pid=%d", child->pid);
	}
}

enum err supervisor_spawn(struct supervisor *s, struct child *c)
{
	static const struct chan_ops ops = { .on_message = supervisor_message,
					     .on_down = control_down };
	const char *args[] = { "role", role_name(c->kind), NULL };
	int fd[2];
	struct os_spawn how = { .args = args, .fds = &fd[1], .nfds = 1, .stdin_null = true };
	enum err err;

	how.uid = c->uid;
	how.gid = c->gid;
	if (!c->control &&
	    (err = chan_new(s->loop, ROLE_SUPERVISOR, c->kind, c->index, &ops, c, &c->control)))
		return err;
	if ((err = os_socketpair(true, fd)))
		return err;
	err = os_spawn(&how, &c->pid);
	os_close(fd[1]);
	if (!err)
		err = chan_attach(c->control, fd[0]);
	else
		os_close(fd[0]);
	if (err)
		return err;
	c->state = CHILD_STARTING;
	c->since_us = os_wall_us();
	return SEND(c->control, sup_config, .role = (uint8_t)c->kind, .index = (uint16_t)c->index,
		    .instance = (uint16_t)c->instance, .text = s->conf_fd,
		    .path = s->options->config_path);
}

static bool takes_listener(const struct child *c, const struct listener *l)
{
	bool is_control = str_eq(l->service, S("control"));

	return c->kind == ROLE_FRONT ? !is_control : c->kind == ROLE_ADMIN && is_control;
}

enum err supervisor_hand_over(struct supervisor *s, struct child *c)
{
	char text[ADDR_TEXT_MAX];
	enum err err;

	for (unsigned i = 0; i < s->listeners_n; i++) {
		struct listener *l = &s->listeners[i];

		if (takes_listener(c, l) &&
		    (err = SEND(c->control, sup_listener, .service = l->service,
				.address = addr_text(&l->address, text), .socket = l->fd)))
			return err;
	}
	if ((err = supervisor_send_files(s, c)))
		return err;
	return supervisor_send_start(s, c);
}

/* An error when `a` has to do without: the other end may be dying, and is linked anew when it comes
 * back. */
static enum err link_two(struct supervisor *s, struct child *a, struct child *b)
{
	int fd[2];
	enum err err = os_socketpair(true, fd);

	if (!err) {
		err = SEND(a->control, sup_channel, .role = (uint8_t)b->kind,
			   .index = (uint16_t)b->index, .instance = (uint16_t)b->instance,
			   .socket = fd[0]);
		if (!err)
			err = SEND(b->control, sup_channel, .role = (uint8_t)a->kind,
				   .index = (uint16_t)a->index, .instance = (uint16_t)a->instance,
				   .socket = fd[1]);
		os_close(fd[0]);
		os_close(fd[1]);
	}
	if (err)
		log_error(&s->log, "link-failed", "a=%s.%u b=%s.%u error=%s", role_name(a->kind),
			  a->index, role_name(b->kind), b->index, err_name(err));
	return err == ERR_CLOSED ? ERR_OK : err;
}

enum err supervisor_link(struct supervisor *s, struct child *c, bool only_later_ones)
{
	enum err err = ERR_OK;

	for (unsigned i = 0; i < s->n && !err; i++) {
		struct child *other = &s->children[i];

		if (other == c || (only_later_ones && other->instance < c->instance))
			continue;
		if ((other->state == CHILD_STARTING || other->state == CHILD_READY) &&
		    are_linked(c->kind, other->kind))
			err = link_two(s, c, other);
	}
	return err;
}
