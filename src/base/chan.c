/* Channels between roles. See chan.h for what they promise.
 *
 * Receiving: a few datagrams at a time into the loop's scratch memory, decoded in place; a handler
 * sees slices of that memory, and a call's reply is copied into the caller's arena first. Fewer
 * than were asked for means that there are no more, so most wake-ups cost one system call. At most
 * BATCH messages are taken per turn, so that one busy peer does not starve the others.
 *
 * Sending: straight to the socket while the window is open and nothing is queued; otherwise a copy
 * waits in the queue, with duplicates of its descriptors. An acknowledgement (how many messages
 * were taken since the last) goes in every header, as of the moment it is sent; the `credit`
 * message carries one alone when half a window was taken and nothing was sent, and passes what is
 * queued. */
#include "base/chan.h"
#include "base/loop_priv.h"

#include <assert.h>
#include <stdlib.h>

enum { BATCH = 64, CALL_BUCKETS = 256 };

struct queued {
	struct queued *next;
	unsigned nfds;
	int fds[MSG_FDS_MAX];
	size_t n;
	char data[];
};

struct call {
	struct call *next;
	uint32_t id;
	/* In a fiber: */
	struct fiber *fiber;
	struct arena *arena;
	struct msg *reply;
	enum err err;
	bool is_done;
	/* Or: */
	void (*done)(void *arg, enum err err, struct msg *reply);
	void *arg;
	struct timer deadline;
	struct chan *chan;
};

struct chan {
	struct loop *loop;
	enum role_kind self, peer;
	unsigned index;
	struct chan_ops ops;
	void *arg, *user;
	int fd;
	struct watch watch;
	struct task more; /* what BATCH left */
	unsigned busy;	  /* inside callbacks */
	unsigned sockets; /* it has had: a handler may end this one, or attach the next */
	bool is_freed;
	bool is_hung_up; /* the peer's end was reported: read on until it is seen */
	enum err broken; /* why it ends */
	int64_t pace;
	struct timer pause; /* its end */
	bool is_paused;	    /* not watched */
	uint32_t next_id;
	unsigned in_flight, unacked;
	struct queued *queue, **queue_end;
	bool wants_write; /* the socket was full: tell us when it is not */
	size_t queue_bytes;
	struct call *calls[CALL_BUCKETS];
	struct waiters room, attached;
	struct chan_counts counts;
};

enum err chan_new(struct loop *l, enum role_kind self, enum role_kind peer, unsigned peer_index,
		  const struct chan_ops *ops, void *arg, struct chan **out)
{
	struct chan *c = calloc(1, sizeof(*c));

	if (!c)
		return ERR_NO_MEMORY;
	c->loop = l;
	c->self = self;
	c->peer = peer;
	c->index = peer_index;
	c->ops = *ops;
	c->arg = arg;
	c->fd = -1;
	c->queue_end = &c->queue;
	*out = c;
	return ERR_OK;
}

bool chan_is_up(const struct chan *c)
{
	return c->fd >= 0;
}

enum role_kind chan_peer(const struct chan *c)
{
	return c->peer;
}

unsigned chan_peer_index(const struct chan *c)
{
	return c->index;
}

void chan_set_user(struct chan *c, void *user)
{
	c->user = user;
}

void *chan_user(const struct chan *c)
{
	return c->user;
}

struct chan_counts chan_counts(const struct chan *c)
{
	struct chan_counts n = c->counts;

	n.queued_bytes = c->queue_bytes;
	return n;
}

static void queue_pop(struct chan *c)
{
	struct queued *q = c->queue;

	c->queue = q->next;
	if (!c->queue)
		c->queue_end = &c->queue;
	c->queue_bytes -= q->n;
	for (unsigned i = 0; i < q->nfds; i++)
		os_close(q->fds[i]);
	free(q);
}

static void call_add(struct chan *c, struct call *k)
{
	struct call **bucket;

	if (++c->next_id == 0)
		c->next_id = 1;
	k->id = c->next_id;
	k->chan = c;
	bucket = &c->calls[k->id % CALL_BUCKETS];
	k->next = *bucket;
	*bucket = k;
	c->counts.calls++;
}

static struct call *call_take(struct chan *c, uint32_t id)
{
	for (struct call **p = &c->calls[id % CALL_BUCKETS]; *p; p = &(*p)->next)
		if ((*p)->id == id) {
			struct call *k = *p;

			*p = k->next;
			c->counts.calls--;
			return k;
		}
	return NULL;
}

/* `failed` is no reply but the error that it carries. */
static enum err error_of(const struct msg *reply)
{
	if (reply->type != MSG_failed)
		return ERR_OK;
	return reply->u.failed.err && reply->u.failed.err < ERR_COUNT
		       ? (enum err)reply->u.failed.err
		       : ERR_PROTOCOL;
}

static void call_end(struct chan *c, struct call *k, enum err err, struct msg *reply)
{
	if (k->fiber) {
		k->err = err;
		k->is_done = true;
		fiber_wake(c->loop, k->fiber);
		return;
	}
	loop_timer_cancel(c->loop, &k->deadline);
	if (!err && (err = error_of(reply)))
		reply = NULL;
	k->done(k->arg, err, reply);
	free(k);
}

static void calls_end_all(struct chan *c, enum err err)
{
	for (unsigned b = 0; b < CALL_BUCKETS; b++)
		while (c->calls[b])
			call_end(c, call_take(c, c->calls[b]->id), err, NULL);
}

/* Frees the channel if that was asked for while it was in use; true when it is gone. */
static bool chan_leave(struct chan *c)
{
	if (--c->busy || !c->is_freed)
		return false;
	free(c);
	return true;
}

static void chan_close_socket(struct chan *c)
{
	if (c->fd < 0)
		return;
	if (!c->is_paused)
		loop_unwatch(c->loop, &c->watch);
	c->is_paused = false;
	loop_timer_cancel(c->loop, &c->pause);
	loop_unpost(c->loop, &c->more);
	os_close(c->fd);
	c->fd = -1;
	c->sockets++;
	while (c->queue)
		queue_pop(c);
	c->in_flight = c->unacked = 0;
}

/* May free c. */
static void chan_down(struct chan *c, enum err why)
{
	if (c->fd < 0)
		return;
	c->busy++;
	chan_close_socket(c);
	calls_end_all(c, ERR_CLOSED);
	waiters_wake_all(c->loop, &c->room);
	if (c->ops.on_down && !c->is_freed)
		c->ops.on_down(c->arg, c, why);
	chan_leave(c);
}

void chan_free(struct chan *c)
{
	if (!c || c->is_freed)
		return;
	c->busy++;
	c->is_freed = true;
	chan_close_socket(c);
	calls_end_all(c, ERR_CLOSED);
	waiters_wake_all(c->loop, &c->room);
	waiters_wake_all(c->loop, &c->attached);
	chan_leave(c);
}

static void down_task(void *arg)
{
	struct chan *c = arg;

	chan_down(c, c->broken);
}

/* A send failed for good: the end is told from the loop, never from inside the sender. */
static void chan_broken(struct chan *c, enum err why)
{
	c->broken = why;
	loop_post(c->loop, &c->more, down_task, c);
}

/* Asked for only while something waits for room: the kernel would report it after each message that
 * the peer takes, and each report is a wake-up. */
static void want_write(struct chan *c, bool wanted)
{
	enum err err;

	/* After a pause it is tried again in any case. */
	if (c->is_paused || c->wants_write == wanted)
		return;
	c->wants_write = wanted;
	if ((err = loop_want_write(c->loop, &c->watch, wanted)))
		chan_broken(c, err);
}

static enum err queue_add(struct chan *c, str data, const int *fds, unsigned nfds)
{
	struct queued *q = malloc(sizeof(*q) + data.n);

	if (!q)
		return ERR_NO_MEMORY;
	q->next = NULL;
	q->n = data.n;
	q->nfds = 0;
	memcpy(q->data, data.p, data.n);
	for (; q->nfds < nfds; q->nfds++)
		if ((q->fds[q->nfds] = os_dup(fds[q->nfds])) < 0) {
			while (q->nfds)
				os_close(q->fds[--q->nfds]);
			free(q);
			return ERR_TOO_MANY;
		}
	*c->queue_end = q;
	c->queue_end = &q->next;
	c->queue_bytes += q->n;
	return ERR_OK;
}

static enum err transmit(struct chan *c, enum msg_type type, uint32_t id, bool is_reply,
			 const void *m)
{
	bool is_counted = type != MSG_credit;
	size_t limit = is_reply ? 4 * (size_t)CHAN_QUEUE_MAX : CHAN_QUEUE_MAX;
	struct buf b;
	int fds[MSG_FDS_MAX];
	unsigned nfds;
	enum err err;

	if (c->fd < 0)
		return ERR_CLOSED;
	b = (struct buf){ .p = loop_scratch(c->loop, LOOP_SCRATCH_OUT),
			  .size = LOOP_SCRATCH,
			  .max = LOOP_SCRATCH };
	if (!b.p)
		return ERR_NO_MEMORY;
	if ((err = msg_encode(&b, type, id, is_reply, MIN(c->unacked, 0x7fffu), m, fds, &nfds)))
		return err;
	/* An acknowledgement passes what waits: two sides that both wait for one would wait for
	 * ever. */
	if (!is_counted || (!c->queue && c->in_flight < CHAN_WINDOW)) {
		struct iovec iov = { .iov_base = b.p, .iov_len = buf_len(&b) };

		err = os_send_fds(c->fd, &iov, 1, fds, nfds);
		if (err == ERR_OK) {
			c->unacked = 0;
			c->in_flight += is_counted;
			c->counts.sent++;
			return ERR_OK;
		}
		if (err != ERR_AGAIN && err != ERR_NO_MEMORY) {
			chan_broken(c, err);
			return ERR_CLOSED;
		}
	}
	if (err == ERR_AGAIN || err == ERR_NO_MEMORY)
		want_write(c, true);
	if (!is_counted)
		return ERR_AGAIN; /* an acknowledgement is made anew when there is room */
	if (c->queue_bytes + buf_len(&b) > limit)
		return ERR_BUSY;
	return queue_add(c, buf_str(&b), fds, nfds);
}

static void flush_queue(struct chan *c)
{
	while (c->queue && c->in_flight < CHAN_WINDOW) {
		struct queued *q = c->queue;
		struct iovec iov = { .iov_base = q->data, .iov_len = q->n };
		enum err err;

		msg_set_acked(q->data, MIN(c->unacked,
					   0x7fffu)); /* what was true when it was queued is old */
		err = os_send_fds(c->fd, &iov, 1, q->fds, q->nfds);
		if (err == ERR_AGAIN || err == ERR_NO_MEMORY) {
			want_write(c, true);
			return;
		}
		if (err) {
			chan_broken(c, err);
			return;
		}
		c->unacked = 0;
		c->in_flight++;
		c->counts.sent++;
		queue_pop(c);
	}
	want_write(c, false);
	if (c->queue_bytes < CHAN_QUEUE_MAX / 4)
		waiters_wake_all(c->loop, &c->room);
}

enum err chan_send(struct chan *c, enum msg_type type, uint32_t id, const void *m)
{
	return transmit(c, type, id, false, m);
}

enum err chan_reply(struct chan *c, uint32_t id, enum msg_type type, const void *m)
{
	return transmit(c, type, id, true, m);
}

/* A reply: the fiber's goes into its arena, the callback's is used in place. */
static enum err reply_arrived(struct chan *c, str datagram, const int *fds, unsigned nfds,
			      struct msg *m)
{
	struct call *k = call_take(c, get_le32(datagram.p + 4));
	bool is_fiber;
	enum err err;

	if (!k) { /* its caller gave up */
		err = msg_decode(datagram, c->peer, c->self, fds, nfds, m);
		if (!err)
			msg_close_fds(m);
		return err;
	}
	if (k->fiber && k->arena) {
		str copy = arena_str(k->arena, datagram);

		if (!copy.p) {
			for (unsigned i = 0; i < nfds; i++)
				os_close(fds[i]);
			call_end(c, k, ERR_NO_MEMORY, NULL);
			return ERR_OK;
		}
		datagram = copy;
	}
	err = msg_decode(datagram, c->peer, c->self, fds, nfds, k->fiber ? k->reply : m);
	if (err) {
		call_end(c, k, ERR_PROTOCOL, NULL);
		return err;
	}
	is_fiber = k->fiber != NULL;
	call_end(c, k, ERR_OK, m);
	if (!is_fiber)
		msg_close_fds(m);
	return ERR_OK;
}

static void acknowledged(struct chan *c, unsigned n)
{
	c->in_flight -= MIN(n, c->in_flight);
}

static void datagram_drop(struct os_datagram *d)
{
	for (unsigned i = 0; i < d->nfds; i++)
		os_close(d->fds[i]);
	d->nfds = 0;
}

/* An error when the peer must be cut off. */
static enum err take(struct chan *c, struct os_datagram *d, struct msg *m)
{
	str datagram = str_of(d->p, d->n);
	unsigned flags;
	bool is_counted;
	enum err err;

	if (d->err)
		return d->err == ERR_EOF ? ERR_CLOSED : ERR_PROTOCOL;
	if (d->n < MSG_HEADER)
		return ERR_PROTOCOL;
	c->counts.received++;
	is_counted = get_le16(datagram.p) != MSG_credit;
	flags = get_le16(datagram.p + 2);
	acknowledged(c, flags & 0x7fff);
	c->unacked += is_counted;
	if (flags & 0x8000) {
		err = reply_arrived(c, datagram, d->fds, d->nfds, m);
	} else if ((err = msg_decode(datagram, c->peer, c->self, d->fds, d->nfds, m)) == ERR_OK) {
		if (is_counted)
			c->ops.on_message(c->arg, c, m);
		msg_close_fds(m);
	}
	if (err)
		return ERR_PROTOCOL;
	d->nfds = 0; /* they were the message's */
	return ERR_OK;
}

/* What is there, up to OS_DATAGRAMS_MAX. ERR_AGAIN when that was all, another error when the peer
 * must be cut off. */
static enum err receive_some(struct chan *c, struct msg *m)
{
	struct os_datagram d[OS_DATAGRAMS_MAX];
	unsigned got, socket = c->sockets;
	enum err err;

	for (unsigned i = 0; i < OS_DATAGRAMS_MAX; i++)
		if (!(d[i].p = loop_scratch(c->loop, i)))
			return ERR_NO_MEMORY;
		else
			d[i].n = LOOP_SCRATCH;
	if ((err = os_recv_datagrams(c->fd, d, OS_DATAGRAMS_MAX, &got)))
		return err;
	for (unsigned i = 0; i < got; i++) {
		/* Behind an error, and behind the socket's end, nothing counts. */
		if (!err && c->sockets == socket && !c->is_freed)
			err = take(c, &d[i], m);
		datagram_drop(&d[i]);
	}
	return err || got == OS_DATAGRAMS_MAX || c->is_hung_up ? err : ERR_AGAIN;
}

static void on_ready(void *arg, unsigned ready);

static void more_task(void *arg)
{
	on_ready(arg, OS_READY_READ);
}

void chan_set_pace(struct chan *c, int64_t pace)
{
	c->pace = pace;
}

static void pause_over(void *arg)
{
	on_ready(arg, OS_READY_READ);
}

/* With something taken, the next look is after the pause; with nothing, at the next message. */
static void pause_or_watch(struct chan *c, bool took)
{
	if (took) {
		if (!c->is_paused)
			loop_unwatch(c->loop, &c->watch);
		c->is_paused = true;
		c->wants_write = false;
		loop_timer_set(c->loop, &c->pause, loop_now(c->loop) + c->pace, pause_over, c);
	} else if (c->is_paused) {
		enum err err = loop_watch_reader(c->loop, &c->watch, c->fd, on_ready, c);

		c->is_paused = false;
		if (err)
			chan_broken(c, err);
	}
}

static void on_ready(void *arg, unsigned ready)
{
	struct chan *c = arg;
	uint64_t before = c->counts.received;
	struct msg m;
	enum err err = ERR_OK;
	unsigned n = 0, socket = c->sockets;

	c->busy++;
	c->is_hung_up |= (ready & OS_READY_CLOSED) != 0;
	if ((ready & OS_READY_READ) && c->fd >= 0)
		while (n++ < BATCH / OS_DATAGRAMS_MAX && c->sockets == socket && !c->is_freed &&
		       (err = receive_some(c, &m)) == ERR_OK)
			;
	if (c->is_freed || c->fd < 0 || c->sockets != socket) {
		chan_leave(c);
		return;
	}
	if (err && err != ERR_AGAIN) {
		chan_down(c, err);
		chan_leave(c);
		return;
	}
	if (err == ERR_OK && (ready & OS_READY_READ))
		loop_post(c->loop, &c->more, more_task, c);
	else if (c->pace)
		pause_or_watch(c, c->counts.received != before);
	if (c->queue)
		flush_queue(c);
	else
		want_write(c, false);
	if (c->unacked >= CHAN_WINDOW / 2 &&
	    transmit(c, MSG_credit, 0, false, &(struct msg_credit){}) == ERR_OK)
		c->unacked = 0;
	chan_leave(c);
}

enum err chan_attach(struct chan *c, int fd)
{
	enum err err;

	c->busy++; /* on_down may free it */
	chan_down(c, ERR_CLOSED);
	if (chan_leave(c))
		return ERR_CLOSED;
	if ((err = loop_watch_reader(c->loop, &c->watch, fd, on_ready, c)))
		return err;
	c->fd = fd;
	c->wants_write = c->is_hung_up = false;
	c->in_flight = c->unacked = 0;
	waiters_wake_all(c->loop, &c->attached);
	return ERR_OK;
}

static void call_timeout(void *arg)
{
	struct call *k = arg;

	if (call_take(k->chan, k->id))
		call_end(k->chan, k, ERR_TIMEOUT, NULL);
}

enum err chan_call_async(struct chan *c, enum msg_type type, const void *m, int64_t deadline,
			 void (*done)(void *, enum err, struct msg *), void *arg)
{
	struct call *k;
	enum err err;

	if (c->counts.calls >= CHAN_CALLS_MAX)
		return ERR_BUSY;
	k = calloc(1, sizeof(*k));
	if (!k)
		return ERR_NO_MEMORY;
	k->done = done;
	k->arg = arg;
	call_add(c, k);
	if ((err = transmit(c, type, k->id, false, m))) {
		call_take(c, k->id);
		free(k);
		return err;
	}
	loop_timer_set(c->loop, &k->deadline, deadline, call_timeout, k);
	return ERR_OK;
}

static enum err wait_attached(struct chan *c, int64_t deadline)
{
	enum err err = ERR_OK;

	c->busy++;
	while (c->fd < 0 && !c->is_freed && !err)
		err = waiters_wait(c->loop, &c->attached, deadline);
	if (c->is_freed)
		err = ERR_CLOSED;
	chan_leave(c);
	return err;
}

enum err chan_call(struct chan *c, enum msg_type type, const void *m, enum msg_type reply_type,
		   void *reply, struct arena *arena, int64_t deadline)
{
	struct msg in = { 0 };
	struct call k = { .fiber = fiber_current(c->loop), .arena = arena, .reply = &in };
	enum err err;

	assert(k.fiber);
	if (c->counts.calls >= CHAN_CALLS_MAX)
		return ERR_BUSY;
	if (c->fd < 0 && (err = wait_attached(c, deadline)))
		return err;
	call_add(c, &k);
	if ((err = transmit(c, type, k.id, false, m))) {
		call_take(c, k.id);
		return err;
	}
	while (!k.is_done)
		if ((err = fiber_suspend(c->loop, deadline)) && !k.is_done) {
			call_take(c, k.id);
			return err;
		}
	if (k.err)
		return k.err;
	if (in.type == reply_type) {
		memcpy(reply, &in.u, msg_size(reply_type));
		return ERR_OK;
	}
	msg_close_fds(&in);
	return in.type == MSG_failed ? error_of(&in) : ERR_PROTOCOL;
}

enum err chan_wait_room(struct chan *c, int64_t deadline)
{
	enum err err = ERR_OK;

	c->busy++;
	while (c->fd >= 0 && c->queue_bytes >= CHAN_QUEUE_MAX / 2 && !err)
		err = waiters_wait(c->loop, &c->room, deadline);
	if (!err && c->fd < 0)
		err = ERR_CLOSED;
	chan_leave(c);
	return err;
}
