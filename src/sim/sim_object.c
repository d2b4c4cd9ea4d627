/* What descriptors point to, and readiness.
 *
 * Readiness is epoll's: a watch is queued when its object changes in a direction that it asks for,
 * also when nobody took what was there before; it is reported once, with what the object is ready
 * for at that moment. Listeners are reported for as long as somebody waits at them, and of several
 * processes that watch one, one is woken. In which order a poll finds its watches is drawn.
 */
#include "sim/sim_priv.h"

enum { READY_HANGUP = 8 };

struct sim_object *object_new(struct sim *s, enum sim_kind kind)
{
	struct sim_object *o = sim_alloc(sizeof(*o));

	o->sim = s;
	o->kind = kind;
	o->refs = 1;
	return o;
}

void object_hold(struct sim_object *o)
{
	o->refs++;
}

static void watch_free(struct sim_watch *w)
{
	struct sim_watch **at = &w->object->watches;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	for (at = &w->poll->poll.all; *at != w;)
		at = &(*at)->next_queued;
	*at = w->next_queued;
	sim_release(w);
}

static void file_close(struct sim_object *o)
{
	if (!o->file.inode)
		return;
	locks_drop_file(o);
	sim_inode_drop(o->file.inode);
}

void object_drop(struct sim_object *o)
{
	if (!o || --o->refs)
		return;
	o->refs = 1; /* what is told below may hold it for a moment */
	while (o->watches)
		watch_free(o->watches);
	switch (o->kind) {
	case SIM_FILE:
		file_close(o);
		break;
	case SIM_STREAM:
	case SIM_DATAGRAMS:
		socket_close(o);
		break;
	case SIM_LISTENER:
		listener_close(o);
		break;
	case SIM_POLL:
		while (o->poll.all)
			watch_free(o->poll.all);
		break;
	case SIM_SIGNALS:
		if (o->process)
			o->process->signals_object = NULL;
		break;
	case SIM_SYNCER:
		object_drop(o->syncer.file);
		break;
	case SIM_LOG:
		break;
	}
	sim_release(o);
}

unsigned object_ready(const struct sim_object *o)
{
	switch (o->kind) {
	case SIM_FILE:
	case SIM_LOG:
		return OS_READY_READ | OS_READY_WRITE;
	case SIM_STREAM:
	case SIM_DATAGRAMS:
		return socket_ready(o);
	case SIM_LISTENER:
		return o->listener.backlog_n ? OS_READY_READ : 0;
	case SIM_SIGNALS:
		return o->process && o->process->signals ? OS_READY_READ : 0;
	case SIM_SYNCER:
		return o->syncer.is_done ? OS_READY_READ : 0;
	case SIM_POLL:
		break;
	}
	return 0;
}

static void wake(struct sim *s, const struct sim_object *o)
{
	for (struct sim_process *p = s->processes; p; p = p->next)
		if (p->state == PROCESS_WAITING && p->waits_for == o)
			p->is_woken = true;
}

static void watch_queue(struct sim_watch *w)
{
	w->is_queued = true;
	wake(w->object->sim, w->poll);
}

void object_changed(struct sim_object *o, unsigned ready)
{
	wake(o->sim, o);
	if (o->kind == SIM_LISTENER) {
		size_t n = 0, chosen;

		for (struct sim_watch *w = o->watches; w; w = w->next)
			n++;
		chosen = (size_t)sim_random_below(&o->sim->scheduling, n);
		for (struct sim_watch *w = o->watches; w; w = w->next)
			if (chosen-- == 0)
				watch_queue(w);
		return;
	}
	for (struct sim_watch *w = o->watches; w; w = w->next)
		if (ready & (w->interest | OS_READY_CLOSED | READY_HANGUP))
			watch_queue(w);
}

/* ---- base/os.h ---- */

static struct sim_watch *watch_find(struct sim_object *poll, const struct sim_object *o, int fd)
{
	for (struct sim_watch *w = poll->poll.all; w; w = w->next_queued)
		if (w->object == o && w->fd == fd)
			return w;
	return NULL;
}

enum err os_poll_new(int *fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o = object_new(p->sim, SIM_POLL);
	enum err err = process_fd(p, o, 3, fd);

	object_drop(o);
	return err;
}

static enum err watch_add(int poll, int fd, void *tag, unsigned interest, bool is_level)
{
	struct sim_process *p = process_here();
	struct sim_object *at = process_object(p, poll), *o = process_object(p, fd);
	struct sim_watch *w;

	if (!at || at->kind != SIM_POLL || !o)
		return ERR_CLOSED;
	if (o->kind == SIM_FILE || o->kind == SIM_LOG)
		return ERR_DENIED; /* EPERM: files are always ready */
	if (watch_find(at, o, fd))
		return ERR_EXISTS;
	w = sim_alloc(sizeof(*w));
	*w = (struct sim_watch){ .next = o->watches,
				 .next_queued = at->poll.all,
				 .poll = at,
				 .object = o,
				 .fd = fd,
				 .tag = tag,
				 .interest = interest,
				 .is_level = is_level };
	o->watches = at->poll.all = w;
	w->is_queued = true; /* looked at in the next wait */
	return ERR_OK;
}

enum err os_poll_add(int poll, int fd, void *tag)
{
	return watch_add(poll, fd, tag, OS_READY_READ | OS_READY_WRITE, false);
}

enum err os_poll_add_reader(int poll, int fd, void *tag)
{
	return watch_add(poll, fd, tag, OS_READY_READ, false);
}

enum err os_poll_add_listener(int poll, int fd, void *tag)
{
	return watch_add(poll, fd, tag, OS_READY_READ, true);
}

enum err os_poll_want_write(int poll, int fd, void *tag, bool wanted)
{
	struct sim_process *p = process_here();
	struct sim_object *at = process_object(p, poll), *o = process_object(p, fd);
	struct sim_watch *w = at && o ? watch_find(at, o, fd) : NULL;

	if (!w)
		return ERR_NOT_FOUND;
	w->tag = tag;
	w->interest = OS_READY_READ | (wanted ? OS_READY_WRITE : 0u);
	w->is_queued = true;
	return ERR_OK;
}

void os_poll_remove(int poll, int fd)
{
	struct sim_process *p = process_here();
	struct sim_object *at = process_object(p, poll), *o = process_object(p, fd);
	struct sim_watch *w = at && o ? watch_find(at, o, fd) : NULL;

	if (w)
		watch_free(w);
}

/* True when this watch has something to say. */
static bool take(struct sim_watch *w, struct os_event *out)
{
	unsigned ready, told;

	if (!w->is_queued && !w->is_level)
		return false;
	ready = object_ready(w->object);
	told = ready & (w->interest | OS_READY_CLOSED);
	if (ready & READY_HANGUP)
		told |= OS_READY_READ | OS_READY_WRITE | OS_READY_CLOSED;
	w->is_queued = false;
	*out = (struct os_event){ .tag = w->tag, .ready = told };
	return told != 0;
}

static unsigned collect(struct sim_object *poll, struct os_event *events, unsigned max)
{
	unsigned n = 0, watches = 0, skipped, i = 0;
	struct sim_watch *w;

	for (w = poll->poll.all; w; w = w->next_queued)
		watches++;
	skipped = (unsigned)sim_random_below(&poll->sim->scheduling, watches);
	/* Twice through the list: from there to its end, then up to there. */
	for (int round = 0; round < 2; round++)
		for (i = 0, w = poll->poll.all; w && n < max; w = w->next_queued, i++)
			if ((i >= skipped) == (round == 0) && take(w, &events[n]))
				n++;
	return n;
}

enum err os_poll_wait(int poll, struct os_event *events, unsigned max, int64_t timeout_ns,
		      unsigned *n)
{
	struct sim_process *p = process_here();
	struct sim_object *o = process_object(p, poll);
	int64_t deadline = timeout_ns < 0 ? INT64_MAX : p->sim->now + timeout_ns;

	*n = 0;
	if (!o || o->kind != SIM_POLL)
		return ERR_CLOSED;
	process_pause(p, 0);
	while (!(*n = collect(o, events, max)) && p->sim->now < deadline)
		process_wait(p, o, deadline);
	return ERR_OK;
}

enum err os_wait_readable(int fd, int timeout_ms)
{
	struct sim_process *p = process_here();
	struct sim_object *o = process_object(p, fd);
	int64_t deadline =
		timeout_ms < 0 ? INT64_MAX : p->sim->now + (int64_t)timeout_ms * SIM_MILLISECOND;

	if (!o)
		return ERR_CLOSED;
	while (!(object_ready(o) & (OS_READY_READ | OS_READY_CLOSED | READY_HANGUP))) {
		if (p->sim->now >= deadline)
			return ERR_TIMEOUT;
		process_wait(p, o, deadline);
	}
	return ERR_OK;
}
