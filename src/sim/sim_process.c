/* Processes: coroutines, who runs next, how they end.
 *
 * Each has a stack of its own and is switched to and from on the scheduler's (the driver's) stack.
 * It gives up the processor where the real one may lose it: where it waits, in each turn of a poll,
 * and at calls that change files. The scheduler draws the next one from all that could run; when
 * none can, the clock goes on to the next thing that is due. The clock also goes on a little with
 * every step, so that nothing is simultaneous.
 *
 * A process that is killed is dropped where it is: nothing of it runs again. Its descriptors are
 * closed (whoever is at their other ends is told), its memory goes back as a whole.
 */
#include "sim/sim_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct sim *sim_here;

/* base/fiber_switch.S */
void fiber_switch(void **save_sp, void *load_sp);

/* ---- coroutines ---- */

__attribute__((naked, used)) static void coroutine_entry(void);
__attribute__((used)) _Noreturn static void coroutine_begin(struct sim_process *p);

#if defined(__x86_64__)
static void coroutine_entry(void)
{
	__asm__("movq %r12, %rdi\n\tcall coroutine_begin\n\tud2");
}

static void *stack_prepare(struct sim_process *p, char *top)
{
	void **sp = (void **)(void *)top;

	*--sp = NULL;
	*--sp = NULL;
	*--sp = (void *)(uintptr_t)coroutine_entry;
	*--sp = NULL; /* rbp */
	*--sp = NULL; /* rbx */
	*--sp = p;    /* r12 */
	*--sp = NULL; /* r13 */
	*--sp = NULL; /* r14 */
	*--sp = NULL; /* r15 */
	return sp;
}
#elif defined(__aarch64__)
static void coroutine_entry(void)
{
	__asm__("mov x0, x19\n\tbl coroutine_begin\n\tbrk #1");
}

static void *stack_prepare(struct sim_process *p, char *top)
{
	void **sp = (void **)(void *)(top - 160);

	memset(sp, 0, 160);
	sp[0] = p;				     /* x19 */
	sp[11] = (void *)(uintptr_t)coroutine_entry; /* x30 */
	return sp;
}
#else
#error "the simulator runs on x86-64 and aarch64"
#endif

static void to_scheduler(struct sim_process *p, bool is_last UNUSED)
{
	struct sim *s = p->sim;

#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(is_last ? NULL : &p->fake_stack, s->scheduler_stack,
				       s->scheduler_stack_size);
#endif
	fiber_switch(&p->sp, s->scheduler_sp);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(p->fake_stack, &s->scheduler_stack,
					&s->scheduler_stack_size);
#endif
}

_Noreturn static void coroutine_begin(struct sim_process *p)
{
#ifdef __SANITIZE_ADDRESS__
	struct sim *s = p->sim;

	__sanitizer_finish_switch_fiber(NULL, &s->scheduler_stack, &s->scheduler_stack_size);
#endif
	process_exit(p, p->main(p->arg));
}

static void run_process(struct sim *s, struct sim_process *p)
{
	struct sim_heap *heap = sim_heap_use(p->heap);

	p->state = PROCESS_READY;
	p->is_woken = false;
	p->waits_for = NULL;
	p->deadline = INT64_MAX;
	s->current = p;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&s->fake_stack, p->stack_now, p->stack_now_size);
#endif
	fiber_switch(&s->scheduler_sp, p->sp);
#ifdef __SANITIZE_ADDRESS__
	/* It may have stopped on the stack of one of its fibers. */
	__sanitizer_finish_switch_fiber(s->fake_stack, &p->stack_now, &p->stack_now_size);
#endif
	s->current = NULL;
	sim_heap_use(heap);
}

static char *stack_take(struct sim *s)
{
	return s->free_stacks_n ? s->free_stacks[--s->free_stacks_n] : sim_pages_new(SIM_STACK);
}

static void stack_give(struct sim *s, char *stack)
{
#ifdef __SANITIZE_ADDRESS__
	__asan_unpoison_memory_region(stack, SIM_STACK);
#endif
	if (s->free_stacks_n < ARRAY_LEN(s->free_stacks))
		s->free_stacks[s->free_stacks_n++] = stack;
	else
		sim_pages_free(stack, SIM_STACK);
}

/* ---- life ---- */

struct sim_process *process_here(void)
{
	if (!sim_here || !sim_here->current)
		panic("base/os.h was called outside a simulated process");
	return sim_here->current;
}

struct sim_process *process_find(const struct sim *s, int number)
{
	struct sim_process *p = s->processes;

	while (p && p->number != number)
		p = p->next;
	return p;
}

struct sim_process *process_new(struct sim *s, enum sim_machine where, const char *name, int parent,
				int (*main)(void *arg), void *arg)
{
	struct sim_process *p = sim_alloc(sizeof(*p));
	struct sim_object *log = object_new(s, SIM_LOG);
	int fd;

	p->sim = s;
	p->number = s->next_number++;
	p->parent = parent;
	p->where = where;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->main = main;
	p->arg = arg;
	p->deadline = INT64_MAX;
	p->stack = stack_take(s);
	p->stack_now = p->stack;
	p->stack_now_size = SIM_STACK;
	p->sp = stack_prepare(p, p->stack + SIM_STACK);
	p->heap = sim_heap_new(NULL);
	for (int i = 0; i < 3; i++)
		if (process_fd(p, log, 0, &fd))
			panic("a new process has no descriptors");
	object_drop(log);
	*s->processes_end = p;
	s->processes_end = &p->next;
	sim_trace(s, "%s: begins, process %d", p->name, p->number);
	return p;
}

void process_forget(struct sim_process *p)
{
	struct sim *s = p->sim;
	struct sim_process **at = &s->processes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	if (s->processes_end == &p->next)
		s->processes_end = at;
	sim_release(p);
}

static void children_end(struct sim_process *p)
{
	for (struct sim_process *c = p->sim->processes, *next; c; c = next) {
		next = c->next;
		if (c->parent != p->number)
			continue;
		c->parent = 0;
		if (c->state == PROCESS_ENDED)
			process_forget(c);
		else if (c->dies_with_parent)
			process_kill(c, 256 + 9);
		/* Ends may have freed others of the list. */
		next = p->sim->processes;
	}
}

/* Everything that it had goes. What remains is its status, until its parent asks. */
static void process_end(struct sim_process *p)
{
	struct sim *s = p->sim;
	struct sim_process *parent;

	sim_trace(s, "%s: ended, status %d", p->name, p->status);
	p->state = PROCESS_EXITING;
	posix_process_ends(p);
	for (int fd = 0; fd < p->fds_end; fd++)
		process_close(p, fd);
	sim_heap_end(p->heap);
	p->heap = NULL;
	stack_give(s, p->stack);
	p->state = PROCESS_ENDED;
	children_end(p);
	parent = p->parent ? process_find(s, p->parent) : NULL;
	if (!parent || parent->state == PROCESS_ENDED)
		process_forget(p);
	else
		process_signal(parent, OS_SIG_CHILD);
}

void process_kill(struct sim_process *p, int status)
{
	if (p->state == PROCESS_ENDED || p->state == PROCESS_EXITING)
		return;
	p->status = status;
	if (p->sim->current == p)
		process_exit(p, status);
	process_end(p);
}

_Noreturn void process_exit(struct sim_process *p, int status)
{
	p->status = status;
	p->state = PROCESS_EXITING;
	to_scheduler(p, true);
	panic("an ended process ran again");
}

void processes_kill(struct sim *s, enum sim_machine where)
{
	bool found;

	do {
		found = false;
		for (struct sim_process *p = s->processes; p && !found; p = p->next)
			if (p->where == where && p->state != PROCESS_ENDED) {
				p->parent = 0;
				p->dies_with_parent = false;
				process_kill(p, 256 + 9);
				found = true;
			}
	} while (found);
}

/* ---- waiting ---- */

void process_wait(struct sim_process *p, struct sim_object *o, int64_t deadline)
{
	p->state = PROCESS_WAITING;
	p->waits_for = o;
	p->deadline = deadline;
	to_scheduler(p, false);
}

void process_pause(struct sim_process *p, int64_t nanoseconds)
{
	if (nanoseconds > 0) {
		process_wait(p, NULL, p->sim->now + nanoseconds);
	} else {
		p->state = PROCESS_READY;
		to_scheduler(p, false);
	}
}

void process_signal(struct sim_process *p, unsigned signal)
{
	if (p->state == PROCESS_ENDED)
		return;
	p->signals |= signal;
	if (p->signals_object)
		object_changed(p->signals_object, OS_READY_READ);
	else if (signal == OS_SIG_TERM)
		process_kill(p, 256 + 15);
}

/* ---- descriptors ---- */

enum err process_fd(struct sim_process *p, struct sim_object *o, int from, int *fd)
{
	for (int i = from; i < SIM_FDS_MAX; i++) {
		if (p->fds[i])
			continue;
		object_hold(o);
		p->fds[i] = o;
		p->fds_end = MAX(p->fds_end, i + 1);
		*fd = i;
		return ERR_OK;
	}
	*fd = -1;
	return ERR_TOO_MANY;
}

struct sim_object *process_object(const struct sim_process *p, int fd)
{
	return fd >= 0 && fd < p->fds_end ? p->fds[fd] : NULL;
}

void process_close(struct sim_process *p, int fd)
{
	struct sim_object *o = process_object(p, fd);

	if (!o)
		return;
	p->fds[fd] = NULL;
	if (o->kind == SIM_FILE && o->file.inode && p->number)
		/* POSIX: closing any descriptor of a file ends all of the process's locks on it. */
		locks_drop_process(o->file.inode, p->number);
	object_drop(o);
}

/* ---- events ---- */

void event_at(struct sim *s, int64_t at, void (*fn)(struct sim *, struct sim_object *),
	      struct sim_object *o)
{
	size_t i;

	if (s->events_n == s->events_room) {
		s->events_room = s->events_room ? s->events_room * 2 : 64;
		s->events = sim_grow(s->events, s->events_room * sizeof(*s->events));
	}
	if (o)
		object_hold(o);
	/* In order, the next one last. */
	for (i = s->events_n++; i > 0 && s->events[i - 1].at <= at; i--)
		s->events[i] = s->events[i - 1];
	s->events[i] = (struct sim_event){ .at = at, .fn = fn, .object = o };
}

static void events_run(struct sim *s)
{
	while (s->events_n && s->events[s->events_n - 1].at <= s->now) {
		struct sim_event e = s->events[--s->events_n];

		e.fn(s, e.object);
		object_drop(e.object);
	}
}

/* ---- the scheduler ---- */

static bool can_run(const struct sim *s, const struct sim_process *p)
{
	return p->state == PROCESS_READY ||
	       (p->state == PROCESS_WAITING && (p->is_woken || p->deadline <= s->now));
}

static struct sim_process *choose(struct sim *s)
{
	struct sim_process *p = s->runs_next;
	uint64_t n = 0;

	s->runs_next = NULL;
	if (p)
		return p;
	for (p = s->processes; p; p = p->next)
		n += can_run(s, p);
	if (n == 0)
		return NULL;
	n = sim_random_below(&s->scheduling, n);
	for (p = s->processes;; p = p->next)
		if (can_run(s, p) && n-- == 0)
			return p;
}

/* The next moment at which something happens by itself. */
static int64_t next_moment(const struct sim *s)
{
	int64_t at = s->events_n ? s->events[s->events_n - 1].at : INT64_MAX;

	for (const struct sim_process *p = s->processes; p; p = p->next)
		if (p->state == PROCESS_WAITING)
			at = MIN(at, p->deadline);
	return at;
}

static void step(struct sim *s, struct sim_process *p)
{
	s->counts.steps++;
	s->hash = sim_random_mix(s->hash ^ (uint64_t)p->number ^ (uint64_t)s->now << 16);
	run_process(s, p);
	if (p->state == PROCESS_EXITING)
		process_end(p);
	s->now += SIM_STEP_NS;
}

enum sim_why sim_run(struct sim *s, int64_t nanoseconds, bool (*stop)(void *arg), void *arg)
{
	int64_t until = s->now + nanoseconds, moment;
	struct sim_process *p;

	s->is_at_file = false;
	for (;;) {
		events_run(s);
		if (s->now >= until)
			return SIM_TIME;
		p = choose(s);
		if (p) {
			step(s, p);
			if (s->is_at_file)
				return SIM_AT_FILE;
			if (stop && stop(arg))
				return SIM_STOPPED;
			continue;
		}
		moment = next_moment(s);
		s->now = MAX(s->now, MIN(moment, until));
		if (moment == INT64_MAX)
			return SIM_IDLE;
	}
}
