/* The loop: timers, tasks, watches, fibers, waiting, cancelling. */
#include "base/loop.h"
#include "base/tap.h"

#include <unistd.h>

struct test {
	struct loop *loop;
	char trail[256];
	struct timer t[8];
	struct task task, tasks[3];
	struct waiters waiters;
	struct fiber *fiber;
	enum err err;
	int n;
};

static void mark(struct test *t, char c)
{
	size_t n = strlen(t->trail);

	t->trail[n] = c;
	t->trail[n + 1] = 0;
}

static void on_a(void *arg)
{
	mark(arg, 'a');
}

static void on_b(void *arg)
{
	mark(arg, 'b');
}

static void on_c(void *arg)
{
	mark(arg, 'c');
}

static void test_timers(void)
{
	struct test t = { 0 };

	tap_group("timers");
	EQ(loop_new(&t.loop), ERR_OK);
	loop_timer_set(t.loop, &t.t[0], loop_now(t.loop) + MILLISECONDS(20), on_a, &t);
	loop_timer_set(t.loop, &t.t[1], loop_now(t.loop) + MILLISECONDS(10), on_b, &t);
	loop_timer_set(t.loop, &t.t[2], loop_now(t.loop) + MILLISECONDS(5), on_c, &t);
	loop_timer_cancel(t.loop, &t.t[2]);
	loop_timer_set(t.loop, &t.t[3], loop_now(t.loop) + MILLISECONDS(50), on_c, &t);
	loop_timer_set(t.loop, &t.t[3], loop_now(t.loop) + MILLISECONDS(1), on_c, &t);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("cba"));
	loop_free(t.loop);
}

static void test_many_timers(void)
{
	enum { N = 1000 };
	static struct timer timers[N];
	struct test t = { 0 };
	int64_t last = 0, now;
	unsigned seed = 12345;

	tap_group("many timers");
	EQ(loop_new(&t.loop), ERR_OK);
	now = loop_now(t.loop);
	for (int i = 0; i < N; i++) {
		seed = seed * 1103515245 + 12345;
		loop_timer_set(t.loop, &timers[i], now + SECONDS(10) + (seed >> 8) % 100000, on_a,
			       &t);
	}
	for (int i = 0; i < N; i += 3)
		loop_timer_cancel(t.loop, &timers[i]);
	for (int i = 1; i < N; i += 3)
		loop_timer_set(t.loop, &timers[i], timers[i].at / 2, on_a, &t);
	EQ(loop_counts(t.loop).timers, N - (N + 2) / 3);
	/* The heap hands them out in order: take the earliest again and again. */
	for (int left = N - (N + 2) / 3; left > 0; left--) {
		struct timer *first = NULL;

		for (int i = 0; i < N; i++)
			if (timers[i].position && (!first || timers[i].at < first->at))
				first = &timers[i];
		if (first->at < last)
			OK(!"in order");
		last = first->at;
		loop_timer_cancel(t.loop, first);
	}
	EQ(loop_counts(t.loop).timers, 0);
	loop_free(t.loop);
}

static void fiber_one(void *arg)
{
	struct test *t = arg;

	mark(t, '1');
	fiber_yield(t->loop);
	mark(t, '2');
	EQ(fiber_sleep(t->loop, MILLISECONDS(3)), ERR_OK);
	mark(t, '3');
	if (t->fiber)
		fiber_cancel(t->loop, t->fiber);
}

static void fiber_two(void *arg)
{
	struct test *t = arg;

	mark(t, 'x');
	t->fiber = fiber_current(t->loop);
	t->err = fiber_suspend(t->loop, LOOP_NEVER);
	mark(t, 'y');
}

static void cancel_two(void *arg)
{
	struct test *t = arg;

	fiber_cancel(t->loop, t->fiber);
}

static void fiber_wait(void *arg)
{
	struct test *t = arg;

	EQ(waiters_wait(t->loop, &t->waiters, LOOP_NEVER), ERR_OK);
	t->n++;
}

static void fiber_wait_short(void *arg)
{
	struct test *t = arg;

	EQ(waiters_wait(t->loop, &t->waiters, loop_now(t->loop) + MILLISECONDS(1)), ERR_TIMEOUT);
	waiters_wake_all(t->loop, &t->waiters);
}

static void fiber_self_wake(void *arg)
{
	struct test *t = arg;

	fiber_wake(t->loop, fiber_current(t->loop));
	EQ(fiber_suspend(t->loop, LOOP_NEVER), ERR_OK);
	EQ(fiber_suspend(t->loop, loop_now(t->loop)), ERR_TIMEOUT);
}

static void test_fibers(void)
{
	struct test t = { 0 };

	tap_group("fibers");
	EQ(loop_new(&t.loop), ERR_OK);
	EQ(fiber_spawn(t.loop, fiber_one, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, fiber_two, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("1x23y"));
	EQ(t.err, ERR_CANCELLED);
	for (int i = 0; i < 200; i++)
		EQ(fiber_spawn(t.loop, fiber_wait, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, fiber_wait_short, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, fiber_self_wake, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.n, 200);
	EQ(loop_counts(t.loop).fibers, 0);
	for (int i = 0; i < LOOP_FIBERS_MAX; i++)
		if (fiber_spawn(t.loop, fiber_wait, &t))
			OK(!"below the limit");
	EQ(fiber_spawn(t.loop, fiber_wait, &t), ERR_BUSY);
	loop_post(t.loop, &t.task, cancel_two, &t);
	loop_unpost(t.loop, &t.task);
	EQ(fiber_spawn(t.loop, fiber_wait, &t), ERR_BUSY);
	loop_timer_set(t.loop, &t.t[0], loop_now(t.loop), (void (*)(void *))on_a, &t);
	EQ(loop_run(t.loop), ERR_OK); /* they wait for something nobody will do: the loop says so */
	waiters_wake_all(t.loop, &t.waiters);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(loop_counts(t.loop).fibers, 0);
	loop_free(t.loop);
}

struct echo {
	struct test *t;
	struct watch w;
	int fd;
};

static void on_readable(void *arg, unsigned ready)
{
	struct echo *e = arg;
	char c;
	size_t n;

	if (!(ready & OS_READY_READ))
		return;
	while (os_recv(e->fd, &c, 1, &n) == ERR_OK)
		mark(e->t, c);
	loop_unwatch(e->t->loop, &e->w);
}

static void test_watch(void)
{
	struct test t = { 0 };
	struct echo e = { .t = &t };
	int fd[2];
	size_t n;

	tap_group("watch");
	EQ(loop_new(&t.loop), ERR_OK);
	EQ(os_socketpair(false, fd), ERR_OK);
	e.fd = fd[1];
	EQ(loop_watch(t.loop, &e.w, fd[1], on_readable, &e), ERR_OK);
	EQ(os_send(fd[0], "hey", 3, &n), ERR_OK);
	loop_post(t.loop, &t.task, on_a, &t);
	loop_post(t.loop, &t.task, on_b, &t);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("ahey"));
	os_close(fd[0]);
	os_close(fd[1]);
	loop_free(t.loop);
}

static void on_stop(void *arg)
{
	struct test *t = arg;

	mark(t, 's');
	loop_stop(t->loop);
}

/* Sets itself again at once, but gives up where the loop would never end. */
static void on_again(void *arg)
{
	struct test *t = arg;

	if (++t->n < 1000)
		loop_timer_set(t->loop, &t->t[0], loop_now(t->loop), on_again, t);
}

static void on_repost(void *arg)
{
	struct test *t = arg;

	if (t->n == 0)
		loop_unpost(t->loop, &t->tasks[1]);
	if (++t->n < 1000)
		loop_post(t->loop, &t->tasks[0], on_repost, t);
}

static void test_fairness(void)
{
	struct test t = { 0 };

	tap_group("a timer that is always due");
	EQ(loop_new(&t.loop), ERR_OK);
	loop_timer_set(t.loop, &t.t[0], loop_now(t.loop), on_again, &t);
	loop_timer_set(t.loop, &t.t[1], loop_now(t.loop), on_stop, &t);
	EQ(loop_run(t.loop), ERR_OK);
	OK(t.n < 5);
	loop_timer_cancel(t.loop, &t.t[0]);
	tap_group("a task that posts itself, when the last one is taken back");
	t.n = 0;
	loop_post(t.loop, &t.tasks[0], on_repost, &t);
	loop_post(t.loop, &t.tasks[1], on_a, &t);
	loop_timer_set(t.loop, &t.t[1], loop_now(t.loop), on_stop, &t);
	EQ(loop_run(t.loop), ERR_OK);
	OK(t.n < 5);
	STR_EQ(str_from_c(t.trail), S("ss"));
	loop_unpost(t.loop, &t.tasks[0]);
	tap_group("stopped before it runs");
	loop_timer_set(t.loop, &t.t[0], loop_now(t.loop) + MILLISECONDS(1), on_a, &t);
	loop_stop(t.loop);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("ss"));
	EQ(loop_run(t.loop), ERR_OK); /* once */
	STR_EQ(str_from_c(t.trail), S("ssa"));
	loop_free(t.loop);
}

static void test_unpost(void)
{
	struct test t = { 0 };

	tap_group("tasks taken back");
	EQ(loop_new(&t.loop), ERR_OK);
	loop_post(t.loop, &t.tasks[0], on_a, &t);
	loop_post(t.loop, &t.tasks[1], on_b, &t);
	loop_post(t.loop, &t.tasks[2], on_c, &t);
	loop_unpost(t.loop, &t.tasks[2]);
	loop_unpost(t.loop, &t.tasks[0]);
	loop_unpost(t.loop, &t.tasks[0]);
	loop_post(t.loop, &t.tasks[2], on_c, &t);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("bc"));
	loop_timer_set(t.loop, &t.t[0], LOOP_NEVER, on_a, &t);
	EQ(loop_counts(t.loop).timers, 0);
	EQ(loop_run(t.loop), ERR_OK); /* nothing to wait for */
	loop_free(t.loop);
}

struct pair {
	struct test *t;
	struct watch w[2];
	int calls;
};

/* Whichever comes first takes the other away, whose event was reported in the same turn. */
static void on_pair(void *arg, unsigned ready)
{
	struct pair *p = arg;

	(void)ready;
	p->calls++;
	loop_unwatch(p->t->loop, &p->w[0]);
	loop_unwatch(p->t->loop, &p->w[1]);
}

static void on_accept(void *arg, unsigned ready)
{
	struct echo *e = arg;
	struct addr peer;
	int fd;

	EQ(ready, OS_READY_READ);
	EQ(os_accept(e->fd, &peer, &fd), ERR_OK);
	EQ(os_accept(e->fd, &peer, &fd), ERR_AGAIN);
	mark(e->t, 'l');
	loop_unwatch(e->t->loop, &e->w);
}

static void on_closed(void *arg, unsigned ready)
{
	struct echo *e = arg;

	if (ready & OS_READY_CLOSED) {
		mark(e->t, 'x');
		loop_unwatch(e->t->loop, &e->w);
	}
}

static void test_events(void)
{
	struct test t = { 0 };
	struct pair p = { .t = &t };
	struct echo e = { .t = &t };
	struct addr at;
	int fd[2], client;

	tap_group("unwatched in the same turn");
	EQ(loop_new(&t.loop), ERR_OK);
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(loop_watch(t.loop, &p.w[0], fd[0], on_pair, &p), ERR_OK);
	EQ(loop_watch(t.loop, &p.w[1], fd[1], on_pair, &p), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(p.calls, 1);
	EQ(loop_counts(t.loop).watches, 0);
	tap_group("the other side closes");
	e.fd = fd[0];
	EQ(loop_watch(t.loop, &e.w, fd[0], on_closed, &e), ERR_OK);
	os_close(fd[1]);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("x"));
	os_close(fd[0]);
	EQ(loop_watch(t.loop, &e.w, fd[0], on_closed, &e), ERR_CLOSED);
	tap_group("a listener");
	EQ(addr_parse(S("127.0.0.1:0"), &at), ERR_OK);
	EQ(os_listen(&at, 0, &e.fd), ERR_OK);
	EQ(os_local_addr(e.fd, &at), ERR_OK);
	EQ(loop_watch_listener(t.loop, &e.w, e.fd, on_accept, &e), ERR_OK);
	EQ(os_connect(&at, NULL, &client), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("xl"));
	os_close(client);
	os_close(e.fd);
	loop_free(t.loop);
}

static void wait_wake_one(void *arg)
{
	struct test *t = arg;

	EQ(waiters_wait(t->loop, &t->waiters, LOOP_NEVER), ERR_OK);
	mark(t, t->n++ ? 'S' : 'F');
}

static void wait_cancelled(void *arg)
{
	struct test *t = arg;

	t->fiber = fiber_current(t->loop);
	EQ(waiters_wait(t->loop, &t->waiters, LOOP_NEVER), ERR_CANCELLED);
	EQ(fiber_suspend(t->loop, LOOP_NEVER), ERR_CANCELLED); /* and every later wait */
	EQ(fiber_sleep(t->loop, SECONDS(100)), ERR_CANCELLED);
	mark(t, 'k');
}

static void sleep_through_wakes(void *arg)
{
	struct test *t = arg;
	int64_t begin = loop_now(t->loop);

	t->fiber = fiber_current(t->loop);
	EQ(fiber_sleep(t->loop, MILLISECONDS(10)), ERR_OK);
	OK(loop_now(t->loop) - begin >= MILLISECONDS(10));
}

static void wake_sleeper(void *arg)
{
	struct test *t = arg;

	fiber_wake(t->loop, t->fiber);
}

static void test_waiting(void)
{
	struct test t = { 0 };

	tap_group("one after the other");
	EQ(loop_new(&t.loop), ERR_OK);
	EQ(fiber_spawn(t.loop, wait_cancelled, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, wait_wake_one, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, wait_wake_one, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(loop_counts(t.loop).fibers, 3);
	fiber_cancel(t.loop, t.fiber); /* leaves the middle of the queue whole */
	EQ(loop_run(t.loop), ERR_OK);
	waiters_wake_one(t.loop, &t.waiters);
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("kF"));
	waiters_wake_one(t.loop, &t.waiters);
	waiters_wake_one(t.loop, &t.waiters); /* nobody */
	EQ(loop_run(t.loop), ERR_OK);
	STR_EQ(str_from_c(t.trail), S("kFS"));
	tap_group("a wake does not end a sleep");
	EQ(fiber_spawn(t.loop, sleep_through_wakes, &t), ERR_OK);
	loop_timer_set(t.loop, &t.t[0], loop_now(t.loop) + MILLISECONDS(2), wake_sleeper, &t);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(loop_counts(t.loop).fibers, 0);
	loop_free(t.loop);
}

int main(void)
{
	test_fairness();
	test_unpost();
	test_events();
	test_waiting();
	test_timers();
	test_many_timers();
	test_fibers();
	test_watch();
	return tap_done();
}
