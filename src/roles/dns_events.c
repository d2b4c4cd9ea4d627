/* libunbound's event interface (unbound-event.h, "ub_event_base") over base/loop.h, so that the
 * resolver runs on our loop: no thread, no process and no pipe of its own.
 *
 * The interface is libevent's, which reports levels: a descriptor that is still readable is
 * reported again. Our loop reports edges. A registration that is made anew reports what is ready
 * at that moment, so after each callback of an event that persists, the descriptor is registered
 * again. That is two system calls per event more, for a resolver's few packets.
 *
 * A callback may free its own event, or add it again; `running` tells afterwards whether it is
 * still there.
 */
#include "roles/dns_events.h"

#include <stdlib.h>
#include <sys/time.h>
#include <unbound.h>

#include <unbound-event.h>

struct dns_events {
	struct ub_event_base base; /* first: libunbound's handle for all of this */
	struct ub_event_base_vmt base_functions;
	struct ub_event_vmt event_functions;
	struct loop *loop;
	struct event *running;
};

struct event {
	struct ub_event event; /* first, as above */
	struct dns_events *events;
	int fd; /* -1: time alone */
	short bits;
	void (*fn)(int fd, short bits, void *arg);
	void *arg;
	struct watch watch;
	struct timer timer;
	int64_t wait; /* nanoseconds; LOOP_NEVER: no limit */
	bool is_added;
};

static struct event *event_of(struct ub_event *e)
{
	return CONTAINER_OF(e, struct event, event);
}

static int64_t nanoseconds(const struct timeval *tv)
{
	return tv ? SECONDS(tv->tv_sec) + (int64_t)tv->tv_usec * 1000 : LOOP_NEVER;
}

static void on_time(void *arg);
static void on_ready(void *arg, unsigned ready);

static void event_stop(struct event *e)
{
	e->is_added = false;
	loop_unwatch(e->events->loop, &e->watch);
	loop_timer_cancel(e->events->loop, &e->timer);
}

static void start_time(struct event *e)
{
	struct loop *l = e->events->loop;

	if (e->wait != LOOP_NEVER)
		loop_timer_set(l, &e->timer, loop_now(l) + e->wait, on_time, e);
}

static int watch_again(struct event *e)
{
	struct loop *l = e->events->loop;

	loop_unwatch(l, &e->watch);
	return e->fd >= 0 && loop_watch(l, &e->watch, e->fd, on_ready, e) ? -1 : 0;
}

static int event_start(struct event *e, const struct timeval *tv)
{
	event_stop(e);
	e->wait = nanoseconds(tv);
	if (watch_again(e))
		return -1;
	e->is_added = true;
	start_time(e);
	return 0;
}

static void event_fire(struct event *e, short what)
{
	struct dns_events *events = e->events;
	struct event *outer = events->running;

	if (!(e->bits & UB_EV_PERSIST))
		event_stop(e);
	else
		start_time(e);
	events->running = e;
	e->fn(e->fd, what, e->arg);
	if (events->running == e && e->is_added && e->fd >= 0 && watch_again(e))
		event_stop(e);
	events->running = outer;
}

static void on_time(void *arg)
{
	event_fire(arg, UB_EV_TIMEOUT);
}

static void on_ready(void *arg, unsigned ready)
{
	struct event *e = arg;
	short what = 0;

	if (ready & (OS_READY_READ | OS_READY_CLOSED))
		what |= UB_EV_READ;
	if (ready & (OS_READY_WRITE | OS_READY_CLOSED))
		what |= UB_EV_WRITE;
	what = (short)(what & e->bits);
	if (what && e->is_added)
		event_fire(e, what);
}

/* ---- what libunbound calls ---- */

static void ub_add_bits(struct ub_event *event, short bits)
{
	struct event *e = event_of(event);

	e->bits = (short)(e->bits | bits);
}

static void ub_del_bits(struct ub_event *event, short bits)
{
	struct event *e = event_of(event);

	e->bits = (short)(e->bits & ~bits);
}

static void ub_set_fd(struct ub_event *event, int fd)
{
	event_of(event)->fd = fd;
}

static void ub_free(struct ub_event *event)
{
	struct event *e = event_of(event);

	event_stop(e);
	if (e->events->running == e)
		e->events->running = NULL;
	free(e);
}

static int ub_add(struct ub_event *event, struct timeval *tv)
{
	return event_start(event_of(event), tv);
}

static int ub_del(struct ub_event *event)
{
	event_stop(event_of(event));
	return 0;
}

static int ub_add_timer(struct ub_event *event, struct ub_event_base *base,
			void (*fn)(int, short, void *), void *arg, struct timeval *tv)
{
	struct event *e = event_of(event);

	(void)base;
	e->fn = fn;
	e->arg = arg;
	return event_start(e, tv);
}

static struct ub_event *ub_new(struct ub_event_base *base, int fd, short bits,
			       void (*fn)(int, short, void *), void *arg)
{
	struct dns_events *events = CONTAINER_OF(base, struct dns_events, base);
	struct event *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	*e = (struct event){ .event = { .magic = UB_EVENT_MAGIC, .vmt = &events->event_functions },
			     .events = events,
			     .fd = fd,
			     .bits = bits,
			     .fn = fn,
			     .arg = arg,
			     .wait = LOOP_NEVER };
	return &e->event;
}

/* libunbound says that it never calls these; all must be there. */
static int no_signal_add(struct ub_event *event, struct timeval *tv)
{
	(void)event;
	(void)tv;
	return -1;
}

static int no_signal_del(struct ub_event *event)
{
	(void)event;
	return -1;
}

static struct ub_event *no_signal_new(struct ub_event_base *base, int fd,
				      void (*fn)(int, short, void *), void *arg)
{
	(void)base;
	(void)fd;
	(void)fn;
	(void)arg;
	return NULL;
}

static struct ub_event *no_windows_new(struct ub_event_base *base, void *event,
				       void (*fn)(int, short, void *), void *arg)
{
	(void)base;
	(void)event;
	(void)fn;
	(void)arg;
	return NULL;
}

static void no_windows_free(struct ub_event *event)
{
	(void)event;
}

static void no_windows_block(struct ub_event *event, int bits)
{
	(void)event;
	(void)bits;
}

static void no_free(struct ub_event_base *base)
{
	(void)base;
}

static int no_dispatch(struct ub_event_base *base)
{
	(void)base;
	return -1;
}

static int no_exit(struct ub_event_base *base, struct timeval *tv)
{
	(void)base;
	(void)tv;
	return 0;
}

enum err dns_events_new(struct loop *l, struct dns_events **out)
{
	struct dns_events *e = calloc(1, sizeof(*e));

	if (!e)
		return ERR_NO_MEMORY;
	e->loop = l;
	e->base = (struct ub_event_base){ .magic = UB_EVENT_MAGIC, .vmt = &e->base_functions };
	e->base_functions =
		(struct ub_event_base_vmt){ .free = no_free,
					    .dispatch = no_dispatch,
					    .loopexit = no_exit,
					    .new_event = ub_new,
					    .new_signal = no_signal_new,
					    .winsock_register_wsaevent = no_windows_new };
	e->event_functions = (struct ub_event_vmt){ .add_bits = ub_add_bits,
						    .del_bits = ub_del_bits,
						    .set_fd = ub_set_fd,
						    .free = ub_free,
						    .add = ub_add,
						    .del = ub_del,
						    .add_timer = ub_add_timer,
						    .del_timer = ub_del,
						    .add_signal = no_signal_add,
						    .del_signal = no_signal_del,
						    .winsock_unregister_wsaevent = no_windows_free,
						    .winsock_tcp_wouldblock = no_windows_block };
	*out = e;
	return ERR_OK;
}

void dns_events_free(struct dns_events *e)
{
	free(e);
}

struct ub_event_base *dns_events_base(struct dns_events *e)
{
	return &e->base;
}
