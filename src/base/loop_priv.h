/* Shared by loop.c (turns, watches, timers) and fiber.c (stacks, switching). */
#ifndef BASE_LOOP_PRIV_H
#define BASE_LOOP_PRIV_H

#include "base/loop.h"

struct fiber {
	void *sp; /* while it does not run */
	void (*fn)(void *);
	void *arg;
	struct fiber *next; /* in the ready queue or the pool */
	struct loop *loop;
	char *stack; /* lowest usable byte */
	size_t stack_size;
	struct timer deadline;
	enum err wake_reason;
	bool is_suspended, is_ready, is_woken, is_cancelled, is_done;
	unsigned valgrind_id;
	void *fake_stack; /* AddressSanitizer's */
};

struct loop {
	int poll;
	int64_t now;
	bool is_stopped;
	unsigned no_yield;
	struct timer **heap;
	size_t heap_n, heap_size;
	struct task *tasks, **tasks_end;
	struct fiber *ready, **ready_end;
	struct fiber *current;
	struct fiber *pool; /* ended fibers, their stacks kept */
	unsigned pool_n;
	struct fiber main; /* the loop's own stack */
	/* Events of this turn: unwatch takes out what was not yet delivered. */
	struct os_event events[64];
	unsigned events_n;
	void *scratch[OS_DATAGRAMS_MAX + 1];
	struct loop_counts counts;
};

/* Memory of LOOP_SCRATCH bytes that lasts until the caller returns to the loop: one for what is to
 * be sent, the others for what was received. NULL: no memory. */
enum { LOOP_SCRATCH = 64 * 1024 + 1, LOOP_SCRATCH_OUT = OS_DATAGRAMS_MAX };
void *loop_scratch(struct loop *l, unsigned which);

void fiber_run_ready(struct loop *l);
void fiber_pool_free(struct loop *l);

#endif
