/* The event loop of a role, and its fibers.
 *
 * One loop per process (the simulator has many), one thread. Three things run on it: callbacks of
 * watched descriptors, timers, and fibers. A fiber is a function with a stack of its own; inside
 * it, `fiber_suspend` and everything built on it (conn_read, chan_call, dns_lookup) look blocking
 * and yield to the loop. A fiber exists only while there is something to do: a connection between
 * two commands has none.
 *
 *	static void serve(void *arg) { ... conn_read(...) ... }
 *	fiber_spawn(loop, serve, conn);
 *
 * Rules: nothing thread-local is kept across a yield; no yield between loop_no_yield_begin and
 * _end. Stacks are LOOP_STACK_SIZE with a guard page below; frames stay under 10 KB.
 *
 * All functions belong to the loop's own thread.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/os.h"

enum {
	LOOP_STACK_SIZE = 256 * 1024, /* mapped; memory is used only where it is touched */
	LOOP_FIBERS_MAX = 4096,	      /* commands in progress in one process; more wait */
};

#define LOOP_NEVER	INT64_MAX
#define SECONDS(n)	((int64_t)(n)*1000000000)
#define MILLISECONDS(n) ((int64_t)(n)*1000000)

struct loop;
struct fiber;

MUST_USE enum err loop_new(struct loop **out);
void loop_free(struct loop *l);
/* Until loop_stop (also one that came before), or until nothing is left to wait for. */
MUST_USE enum err loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Monotonic nanoseconds, read once per turn of the loop. */
int64_t loop_now(const struct loop *l);

/* A watched descriptor. Edge-triggered: `fn` is called with what became ready (enum os_ready) and
 * must go on until ERR_AGAIN, or remember. The watch lives in its owner; unwatch before closing the
 * descriptor or freeing the owner; unwatching inside any callback is safe. */
struct watch {
	void (*fn)(void *arg, unsigned ready);
	void *arg;
	int fd;
};
MUST_USE enum err loop_watch(struct loop *l, struct watch *w, int fd, void (*fn)(void *, unsigned),
			     void *arg);
/* Reports OS_READY_WRITE only between loop_want_write(true) and loop_want_write(false). */
MUST_USE enum err loop_watch_reader(struct loop *l, struct watch *w, int fd,
				    void (*fn)(void *, unsigned), void *arg);
MUST_USE enum err loop_want_write(struct loop *l, struct watch *w, bool wanted);
MUST_USE enum err loop_watch_listener(struct loop *l, struct watch *w, int fd,
				      void (*fn)(void *, unsigned), void *arg);
void loop_unwatch(struct loop *l, struct watch *w);

/* A timer, in its owner, zeroed at first. Setting it again moves it. */
struct timer {
	void (*fn)(void *arg);
	void *arg;
	int64_t at;	 /* loop_now() time */
	size_t position; /* in the heap, plus one; 0: not set */
};
void loop_timer_set(struct loop *l, struct timer *t, int64_t at, void (*fn)(void *), void *arg);
void loop_timer_cancel(struct loop *l, struct timer *t);

/* Calls fn once, soon, from the loop itself. The task lives in its owner, zeroed at first; posting
 * one that waits already changes nothing. */
struct task {
	void (*fn)(void *arg);
	void *arg;
	struct task *next;
	bool is_posted;
};
void loop_post(struct loop *l, struct task *t, void (*fn)(void *), void *arg);
void loop_unpost(struct loop *l, struct task *t);

/* Fibers. */
MUST_USE enum err fiber_spawn(struct loop *l, void (*fn)(void *),
			      void *arg);	   /* ERR_BUSY: too many */
struct fiber *fiber_current(const struct loop *l); /* NULL outside fibers */
/* Waits until fiber_wake (ERR_OK), the deadline (ERR_TIMEOUT) or fiber_cancel (ERR_CANCELLED). A
 * wake that came since the last suspend is not lost: it returns at once. */
MUST_USE enum err fiber_suspend(struct loop *l, int64_t deadline);
void fiber_wake(struct loop *l, struct fiber *f);
/* This and every later wait of it returns ERR_CANCELLED. */
void fiber_cancel(struct loop *l, struct fiber *f);
/* Lets the others run first. */
void fiber_yield(struct loop *l);
MUST_USE enum err fiber_sleep(struct loop *l, int64_t nanoseconds);

void loop_no_yield_begin(struct loop *l);
void loop_no_yield_end(struct loop *l);

/* A queue of fibers waiting for the same thing. Zeroed is empty. */
struct waiters {
	struct waiter *first;
};
MUST_USE enum err waiters_wait(struct loop *l, struct waiters *w, int64_t deadline);
void waiters_wake_all(struct loop *l, struct waiters *w);
void waiters_wake_one(struct loop *l, struct waiters *w);

struct loop_counts {
	uint32_t fibers, fibers_peak, watches, timers;
	uint64_t turns, switches;
};
struct loop_counts loop_counts(const struct loop *l);

#endif
