/* The event loop: posted tasks and ready fibers first, then timers, then what the kernel reports.
 *
 * Each turn runs everything that is ready before it asks the kernel again; it asks without waiting
 * while something is still ready, so neither fibers nor descriptors starve. Timers are a binary
 * heap; each timer knows its place, so that moving and cancelling are logarithmic and need no
 * search. */
#include "base/loop_priv.h"

#include <assert.h>
#include <stdlib.h>

enum err loop_new(struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));
	enum err err;

	if (!l)
		return ERR_NO_MEMORY;
	if ((err = os_poll_new(&l->poll))) {
		free(l);
		return err;
	}
	l->tasks_end = &l->tasks;
	l->ready_end = &l->ready;
	l->now = os_monotonic_ns();
	*out = l;
	return ERR_OK;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	fiber_pool_free(l);
	os_close(l->poll);
	free(l->heap);
	for (size_t i = 0; i < ARRAY_LEN(l->scratch); i++)
		free(l->scratch[i]);
	free(l);
}

void *loop_scratch(struct loop *l, unsigned which)
{
	if (!l->scratch[which])
		l->scratch[which] = malloc(LOOP_SCRATCH);
	return l->scratch[which];
}

int64_t loop_now(const struct loop *l)
{
	return l->now;
}

void loop_stop(struct loop *l)
{
	l->is_stopped = true;
}

static enum err watch_start(struct watch *w, int fd, void (*fn)(void *, unsigned), void *arg)
{
	*w = (struct watch){ .fn = fn, .arg = arg, .fd = fd };
	return ERR_OK;
}

enum err loop_watch(struct loop *l, struct watch *w, int fd, void (*fn)(void *, unsigned),
		    void *arg)
{
	enum err err = watch_start(w, fd, fn, arg);

	if (!err)
		err = os_poll_add(l->poll, fd, w);
	l->counts.watches += !err;
	return err;
}

enum err loop_watch_reader(struct loop *l, struct watch *w, int fd, void (*fn)(void *, unsigned),
			   void *arg)
{
	enum err err = watch_start(w, fd, fn, arg);

	if (!err)
		err = os_poll_add_reader(l->poll, fd, w);
	l->counts.watches += !err;
	return err;
}

enum err loop_want_write(struct loop *l, struct watch *w, bool wanted)
{
	return os_poll_want_write(l->poll, w->fd, w, wanted);
}

enum err loop_watch_listener(struct loop *l, struct watch *w, int fd, void (*fn)(void *, unsigned),
			     void *arg)
{
	enum err err = watch_start(w, fd, fn, arg);

	if (!err)
		err = os_poll_add_listener(l->poll, fd, w);
	l->counts.watches += !err;
	return err;
}

void loop_unwatch(struct loop *l, struct watch *w)
{
	if (!w->fn)
		return;
	os_poll_remove(l->poll, w->fd);
	for (unsigned i = 0; i < l->events_n; i++)
		if (l->events[i].tag == w)
			l->events[i].tag = NULL;
	w->fn = NULL;
	l->counts.watches--;
}

static void heap_put(struct loop *l, size_t at, struct timer *t)
{
	l->heap[at] = t;
	t->position = at + 1;
}

static void heap_up(struct loop *l, size_t at, struct timer *t)
{
	while (at > 0) {
		size_t parent = (at - 1) / 2;

		if (l->heap[parent]->at <= t->at)
			break;
		heap_put(l, at, l->heap[parent]);
		at = parent;
	}
	heap_put(l, at, t);
}

static void heap_down(struct loop *l, size_t at, struct timer *t)
{
	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= l->heap_n)
			break;
		if (child + 1 < l->heap_n && l->heap[child + 1]->at < l->heap[child]->at)
			child++;
		if (t->at <= l->heap[child]->at)
			break;
		heap_put(l, at, l->heap[child]);
		at = child;
	}
	heap_put(l, at, t);
}

void loop_timer_cancel(struct loop *l, struct timer *t)
{
	size_t at = t->position;
	struct timer *last;

	if (!at--)
		return;
	t->position = 0;
	last = l->heap[--l->heap_n];
	if (last == t)
		return;
	if (at > 0 && last->at < l->heap[(at - 1) / 2]->at)
		heap_up(l, at, last);
	else
		heap_down(l, at, last);
}

void loop_timer_set(struct loop *l, struct timer *t, int64_t at, void (*fn)(void *), void *arg)
{
	loop_timer_cancel(l, t);
	t->fn = fn;
	t->arg = arg;
	t->at = at;
	if (at == LOOP_NEVER)
		return;
	if (l->heap_n == l->heap_size) {
		size_t size = l->heap_size ? l->heap_size * 2 : 64;
		struct timer **heap = realloc(l->heap, size * sizeof(*heap));

		if (!heap)
			panic("no memory for timers");
		l->heap = heap;
		l->heap_size = size;
	}
	heap_up(l, l->heap_n++, t);
}

void loop_post(struct loop *l, struct task *t, void (*fn)(void *), void *arg)
{
	if (t->is_posted)
		return;
	*t = (struct task){ .fn = fn, .arg = arg, .is_posted = true };
	*l->tasks_end = t;
	l->tasks_end = &t->next;
}

void loop_unpost(struct loop *l, struct task *t)
{
	if (!t->is_posted)
		return;
	for (struct task **p = &l->tasks; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			if (l->tasks_end == &t->next)
				l->tasks_end = p;
			break;
		}
	t->is_posted = false;
}

/* Those posted meanwhile run in the next turn: behind a mark that none of them can take back. */
static void run_tasks(struct loop *l)
{
	struct task mark = { 0 }, *t;
	bool is_mark = !l->tasks;

	if (!is_mark)
		loop_post(l, &mark, NULL, NULL);
	while (!is_mark) {
		t = l->tasks;
		l->tasks = t->next;
		if (!l->tasks)
			l->tasks_end = &l->tasks;
		t->is_posted = false;
		is_mark = t == &mark;
		if (!is_mark)
			t->fn(t->arg);
	}
}

/* One that sets itself again, due at once, has its next turn like the others. */
static void run_timers(struct loop *l)
{
	for (size_t n = l->heap_n; n && l->heap_n && l->heap[0]->at <= l->now; n--) {
		struct timer *t = l->heap[0];

		loop_timer_cancel(l, t);
		t->fn(t->arg);
	}
}

static int64_t wait_time(struct loop *l)
{
	if (l->tasks || l->ready)
		return 0;
	if (!l->heap_n)
		return -1;
	return MAX(l->heap[0]->at - os_monotonic_ns(), (int64_t)0);
}

enum err loop_run(struct loop *l)
{
	enum err err;

	while (!l->is_stopped) {
		l->counts.turns++;
		run_tasks(l);
		fiber_run_ready(l);
		if (l->is_stopped)
			break;
		if (!l->tasks && !l->ready && !l->heap_n && !l->counts.watches)
			break;
		if ((err = os_poll_wait(l->poll, l->events, ARRAY_LEN(l->events), wait_time(l),
					&l->events_n)))
			return err;
		l->now = os_monotonic_ns();
		for (unsigned i = 0; i < l->events_n; i++) {
			struct watch *w = l->events[i].tag;

			if (w && w->fn)
				w->fn(w->arg, l->events[i].ready);
		}
		l->events_n = 0;
		run_timers(l);
	}
	l->is_stopped = false; /* what stopped it before it ran, counts */
	return ERR_OK;
}

struct loop_counts loop_counts(const struct loop *l)
{
	struct loop_counts c = l->counts;

	c.timers = (uint32_t)l->heap_n;
	return c;
}
