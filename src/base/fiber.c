/* Fibers: stacks, switching, waiting.
 *
 * A fiber's stack is mapped with a guard page below it and its struct at the top; ended fibers keep
 * their stack in a pool. Switching goes always through the loop's own stack, so that what runs next
 * is the loop's decision alone. A fiber waits in one place (fiber_suspend) and is woken in one
 * (fiber_wake); a wake that comes before the wait is remembered. AddressSanitizer is told of every
 * switch, valgrind of every stack. */
#include "base/loop_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(lo, hi) ((void)(lo), (void)(hi), 0u)
#define VALGRIND_STACK_DEREGISTER(id)	((void)(id))
#endif

enum { POOL_MAX = 64 };

static void fiber_main(struct fiber *f);

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(FIBER_UCONTEXT)
void fiber_switch(void **save_sp, void *load_sp);
void fiber_entry(void);
void fiber_begin(struct fiber *f);

/* From fiber_entry. */
void fiber_begin(struct fiber *f)
{
	fiber_main(f);
}

#if defined(__x86_64__)
static void *stack_prepare(struct fiber *f, char *top)
{
	void **sp = (void **)(void *)top;

	*--sp = NULL; /* the end of every backtrace, */
	*--sp = NULL; /* and the alignment that a call wants */
	*--sp = (void *)(uintptr_t)fiber_entry;
	*--sp = NULL; /* rbp */
	*--sp = NULL; /* rbx */
	*--sp = f;    /* r12 */
	*--sp = NULL; /* r13 */
	*--sp = NULL; /* r14 */
	*--sp = NULL; /* r15 */
	return sp;
}
#else
static void *stack_prepare(struct fiber *f, char *top)
{
	void **sp = (void **)(void *)(top - 160);

	memset(sp, 0, 160);
	sp[0] = f;				 /* x19 */
	sp[11] = (void *)(uintptr_t)fiber_entry; /* x30 */
	return sp;
}
#endif

#else /* other machines: ucontext, slower (it changes the signal mask) */
#include <ucontext.h>

static void uc_begin(unsigned lo, unsigned hi)
{
	fiber_main((struct fiber *)(((uintptr_t)hi << 32) | lo));
}

static void *stack_prepare(struct fiber *f, char *top)
{
	ucontext_t *u = (ucontext_t *)(void *)f->stack;

	getcontext(u);
	u->uc_stack.ss_sp = f->stack + sizeof(*u);
	u->uc_stack.ss_size = (size_t)(top - f->stack) - sizeof(*u);
	u->uc_link = NULL;
	makecontext(u, (void (*)(void))uc_begin, 2, (unsigned)(uintptr_t)f,
		    (unsigned)((uintptr_t)f >> 32));
	return u;
}

static void fiber_switch(void **save_sp, void *load_sp)
{
	ucontext_t here;

	*save_sp = &here;
	swapcontext(&here, load_sp);
}
#endif

/* From the running stack to `to`'s; returns when somebody switches back. */
static void switch_to(struct fiber *from, struct fiber *to)
{
	struct loop *l = to->loop;

	l->current = to == &l->main ? NULL : to;
	l->counts.switches++;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(from->is_done ? NULL : &from->fake_stack, to->stack,
				       to->stack_size);
#endif
	fiber_switch(&from->sp, to->sp);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

static void fiber_main(struct fiber *f)
{
	struct loop *l = f->loop;

#ifdef __SANITIZE_ADDRESS__
	const void *bottom;
	size_t size;

	__sanitizer_finish_switch_fiber(NULL, &bottom, &size);
	l->main.stack = (char *)(uintptr_t)bottom;
	l->main.stack_size = size;
#endif
	f->fn(f->arg);
	f->is_done = true;
	switch_to(f, &l->main);
	panic("an ended fiber ran again");
}

static struct fiber *fiber_map(struct loop *l)
{
	size_t page = 4096, size = LOOP_STACK_SIZE + page;
	char *m = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	struct fiber *f;

	if (m == MAP_FAILED)
		return NULL;
	if (mprotect(m, page, PROT_NONE)) {
		munmap(m, size);
		return NULL;
	}
	f = (struct fiber *)(void *)(m + size - ((sizeof(*f) + 63) & ~(size_t)63));
	f->stack = m + page;
	f->stack_size = (size_t)((char *)f - f->stack);
	f->loop = l;
	f->valgrind_id = VALGRIND_STACK_REGISTER(f->stack, (char *)f);
	return f;
}

static void fiber_unmap(struct fiber *f)
{
	VALGRIND_STACK_DEREGISTER(f->valgrind_id);
	munmap(f->stack - 4096, LOOP_STACK_SIZE + 4096);
}

void fiber_pool_free(struct loop *l)
{
	while (l->pool) {
		struct fiber *f = l->pool;

		l->pool = f->next;
		fiber_unmap(f);
	}
	l->pool_n = 0;
}

static void make_ready(struct loop *l, struct fiber *f)
{
	f->is_ready = true;
	f->next = NULL;
	*l->ready_end = f;
	l->ready_end = &f->next;
}

enum err fiber_spawn(struct loop *l, void (*fn)(void *), void *arg)
{
	struct fiber *f = l->pool;
	char *stack;
	size_t stack_size;
	unsigned valgrind_id;

	if (l->counts.fibers >= LOOP_FIBERS_MAX)
		return ERR_BUSY;
	if (f) {
		l->pool = f->next;
		l->pool_n--;
	} else if (!(f = fiber_map(l))) {
		return ERR_NO_MEMORY;
	}
	stack = f->stack;
	stack_size = f->stack_size;
	valgrind_id = f->valgrind_id;
	*f = (struct fiber){ .fn = fn,
			     .arg = arg,
			     .loop = l,
			     .stack = stack,
			     .stack_size = stack_size,
			     .valgrind_id = valgrind_id };
	f->sp = stack_prepare(f, stack + stack_size);
	l->counts.fibers++;
	l->counts.fibers_peak = MAX(l->counts.fibers_peak, l->counts.fibers);
	make_ready(l, f);
	return ERR_OK;
}

static void fiber_end(struct loop *l, struct fiber *f)
{
	loop_timer_cancel(l, &f->deadline);
	l->counts.fibers--;
	if (l->pool_n >= POOL_MAX) {
		fiber_unmap(f);
		return;
	}
	f->next = l->pool;
	l->pool = f;
	l->pool_n++;
}

/* Those that become ready meanwhile run in the next turn. */
void fiber_run_ready(struct loop *l)
{
	struct fiber *f, **end = l->ready_end;
	bool is_last = !l->ready;

	while (!is_last && (f = l->ready)) {
		is_last = end == &f->next;
		l->ready = f->next;
		if (!l->ready)
			l->ready_end = &l->ready;
		f->is_ready = false;
		l->main.loop = l;
		switch_to(&l->main, f);
		if (f->is_done)
			fiber_end(l, f);
	}
}

struct fiber *fiber_current(const struct loop *l)
{
	return l->current;
}

static void on_deadline(void *arg)
{
	struct fiber *f = arg;

	if (f->is_suspended) {
		f->is_suspended = false;
		f->wake_reason = ERR_TIMEOUT;
		make_ready(f->loop, f);
	}
}

enum err fiber_suspend(struct loop *l, int64_t deadline)
{
	struct fiber *f = l->current;

	assert(f && !l->no_yield);
	if (f->is_cancelled)
		return ERR_CANCELLED;
	if (f->is_woken) {
		f->is_woken = false;
		return ERR_OK;
	}
	if (deadline <= l->now)
		return ERR_TIMEOUT;
	loop_timer_set(l, &f->deadline, deadline, on_deadline, f);
	f->is_suspended = true;
	f->wake_reason = ERR_OK;
	switch_to(f, &l->main);
	loop_timer_cancel(l, &f->deadline);
	return f->is_cancelled ? ERR_CANCELLED : f->wake_reason;
}

void fiber_wake(struct loop *l, struct fiber *f)
{
	if (f->is_suspended) {
		f->is_suspended = false;
		make_ready(l, f);
	} else {
		f->is_woken = true;
	}
}

void fiber_cancel(struct loop *l, struct fiber *f)
{
	f->is_cancelled = true;
	if (f->is_suspended) {
		f->is_suspended = false;
		make_ready(l, f);
	}
}

void fiber_yield(struct loop *l)
{
	struct fiber *f = l->current;

	assert(f && !l->no_yield);
	make_ready(l, f);
	switch_to(f, &l->main);
}

enum err fiber_sleep(struct loop *l, int64_t nanoseconds)
{
	int64_t until = l->now + nanoseconds;
	enum err err;

	/* A wake that was meant for another wait does not end a sleep. */
	while ((err = fiber_suspend(l, until)) == ERR_OK)
		;
	return err == ERR_TIMEOUT ? ERR_OK : err;
}

void loop_no_yield_begin(struct loop *l)
{
	l->no_yield++;
}

void loop_no_yield_end(struct loop *l)
{
	assert(l->no_yield);
	l->no_yield--;
}

struct waiter {
	struct waiter *next, **back;
	struct fiber *fiber;
	bool is_woken;
};

static void waiter_remove(struct waiter *w)
{
	if (w->back) {
		*w->back = w->next;
		if (w->next)
			w->next->back = w->back;
		w->back = NULL;
	}
}

enum err waiters_wait(struct loop *l, struct waiters *ws, int64_t deadline)
{
	struct waiter w = { .fiber = l->current };
	struct waiter **end = &ws->first;
	enum err err = ERR_OK;

	while (*end)
		end = &(*end)->next;
	*end = &w;
	w.back = end;
	while (!w.is_woken && !err)
		err = fiber_suspend(l, deadline);
	waiter_remove(&w);
	return w.is_woken ? ERR_OK : err;
}

void waiters_wake_one(struct loop *l, struct waiters *ws)
{
	struct waiter *w = ws->first;

	if (!w)
		return;
	waiter_remove(w);
	w->is_woken = true;
	fiber_wake(l, w->fiber);
}

void waiters_wake_all(struct loop *l, struct waiters *ws)
{
	while (ws->first)
		waiters_wake_one(l, ws);
}
