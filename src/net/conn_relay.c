/* Relaying between a connection and a local socket: how a TLS session of IMAP reaches the process
 * of its account.
 *
 * No fiber: thousands of idle sessions are relayed, and each would hold a stack. The two
 * directions are pumped from the events of both descriptors. What came from the client waits in
 * conn.in until the local socket takes it, what came from the session in conn.out; when RELAY_HIGH
 * bytes wait in one, its source is not read, which is the back-pressure. When both are empty their
 * memory goes back.
 *
 * Half-closes pass: an end of one direction is told to the other side when everything before it
 * has been delivered. The relay ends when both directions have; one that stays half open has
 * RELAY_LINGER seconds, since its other half may have nobody left who would ever close it.
 */
#include "net/conn_priv.h"

#include <assert.h>
#include <stdlib.h>

enum {
	RELAY_HIGH = 64 * 1024,
	RELAY_LINGER = 60,
	RELAY_TURNS = 16, /* reads of one direction before others have their turn */
};

struct relay {
	struct conn *conn;
	int fd;
	struct watch watch;
	bool can_read, can_write, is_hung_up; /* as in struct conn, of fd */
	bool in_ended, in_told;	  /* the client's direction: its end was seen; was told to fd */
	bool out_ended, out_told; /* the session's */
	struct task task;	  /* go on in the next turn of the loop */
	struct timer linger;
	void (*done)(void *arg);
	void *arg;
};

static void relay_pump(struct relay *r);

static void relay_end(struct relay *r)
{
	struct loop *l = r->conn->loop;
	void (*done)(void *) = r->done;
	void *arg = r->arg;

	loop_unpost(l, &r->task);
	loop_timer_cancel(l, &r->linger);
	loop_unwatch(l, &r->watch);
	os_close(r->fd);
	r->conn->relay = NULL;
	conn_free(r->conn);
	free(r);
	if (done)
		done(arg);
}

static void on_task(void *arg)
{
	relay_pump(arg);
}

static void on_linger(void *arg)
{
	relay_end(arg);
}

static void on_fd(void *arg, unsigned ready)
{
	struct relay *r = arg;

	if (ready & (OS_READY_READ | OS_READY_CLOSED))
		r->can_read = true;
	if (ready & OS_READY_CLOSED)
		r->is_hung_up = true;
	if (ready & OS_READY_WRITE)
		r->can_write = true;
	relay_pump(r);
}

void relay_on_conn(struct relay *r)
{
	relay_pump(r);
}

void relay_wake(struct relay *r)
{
	loop_post(r->conn->loop, &r->task, on_task, r);
}

/* conn.in to fd. ERR_AGAIN when the socket is full. */
static enum err push_in(struct relay *r)
{
	struct buf *in = &r->conn->in;

	while (buf_len(in)) {
		size_t done;
		enum err err;

		if (!r->can_write)
			return ERR_AGAIN;
		err = os_send(r->fd, buf_str(in).p, buf_len(in), &done);
		if (err == ERR_AGAIN)
			r->can_write = false;
		if (err)
			return err;
		buf_take(in, done);
	}
	return ERR_OK;
}

/* The client's direction. ERR_OK: it may go on at once; ERR_AGAIN: it waits for an event. */
static enum err pump_in(struct relay *r)
{
	enum err err = push_in(r), read;

	if (err && err != ERR_AGAIN)
		return err;
	if (r->in_ended) {
		if (!err && !r->in_told) {
			os_shutdown_write(r->fd);
			r->in_told = true;
		}
		return ERR_AGAIN;
	}
	if (buf_len(&r->conn->in) >= RELAY_HIGH)
		return ERR_AGAIN;
	read = conn_receive(r->conn);
	if (read == ERR_EOF) {
		r->in_ended = true;
		return ERR_OK;
	}
	return read;
}

static enum err read_fd(struct relay *r)
{
	struct buf *out = &r->conn->out;
	size_t done = 0, want = out->size >= CONN_READ_FIRST ? RELAY_HIGH : CONN_READ_FIRST;
	char *p;
	enum err err;

	if (!r->can_read)
		return ERR_AGAIN;
	p = buf_reserve(out, want);
	if (!p)
		return ERR_NO_MEMORY;
	err = os_recv(r->fd, p, want, &done);
	if (err == ERR_AGAIN || (!err && done < want && !r->is_hung_up))
		r->can_read = false;
	buf_added(out, done);
	return err;
}

/* The session's direction, likewise. */
static enum err pump_out(struct relay *r)
{
	struct conn *c = r->conn;
	enum err err = conn_send(c), read;

	if (err && err != ERR_AGAIN)
		return err;
	if (r->out_ended) {
		if (!err && !r->out_told) {
			r->out_told = true;
			if (!c->tls) {
				os_shutdown_write(c->fd);
				return ERR_AGAIN;
			}
			conn_tls_goodbye(c);
			return conn_send(c) == ERR_CLOSED ? ERR_CLOSED : ERR_AGAIN;
		}
		return ERR_AGAIN;
	}
	if (buf_len(&c->out) >= RELAY_HIGH)
		return ERR_AGAIN;
	read = read_fd(r);
	if (read == ERR_EOF) {
		r->out_ended = true;
		return ERR_OK;
	}
	return read;
}

static void relay_pump(struct relay *r)
{
	struct conn *c = r->conn;
	enum err in = ERR_OK, out = ERR_OK;

	for (unsigned i = 0; i < RELAY_TURNS && (!in || !out); i++) {
		in = pump_in(r);
		out = pump_out(r);
		if ((in && in != ERR_AGAIN) || (out && out != ERR_AGAIN) || c->is_cancelled) {
			relay_end(r);
			return;
		}
	}
	if (!in || !out)
		relay_wake(r);
	if (r->in_told && r->out_told && !conn_has_output(c)) {
		relay_end(r);
		return;
	}
	if ((r->in_ended || r->out_ended) && !r->linger.position)
		loop_timer_set(c->loop, &r->linger, loop_now(c->loop) + SECONDS(RELAY_LINGER),
			       on_linger, r);
	conn_release_empty(c);
}

/* Input that was read already goes before what the connection still holds. */
static bool put_first(struct conn *c, str first)
{
	struct buf in;

	if (!first.n)
		return true;
	buf_init(&in, CONN_IN_MAX * 2);
	buf_add(&in, first);
	buf_add(&in, buf_str(&c->in));
	if (buf_failed(&in)) {
		buf_free(&in);
		return false;
	}
	in.max = CONN_IN_MAX;
	buf_free(&c->in);
	c->in = in;
	return true;
}

void conn_relay_start(struct conn *c, int fd, str first, void (*done)(void *arg), void *arg)
{
	struct relay *r = calloc(1, sizeof(*r));

	assert(!c->is_parked && !c->reader && !c->writer && !c->relay);
	if (!r)
		panic("no memory for a relay");
	*r = (struct relay){
		.conn = c, .fd = fd, .can_read = true, .can_write = true, .done = done, .arg = arg
	};
	c->relay = r;
	if (!put_first(c, first) || loop_watch(c->loop, &r->watch, fd, on_fd, r)) {
		conn_kill(c, ERR_NO_MEMORY);
		r->watch.fn = NULL;
	}
	/* From the loop, so that `done` never comes before this returns. */
	relay_wake(r);
}

struct relay_wait {
	struct loop *loop;
	struct fiber *fiber;
	bool is_done;
};

static void on_relayed(void *arg)
{
	struct relay_wait *w = arg;

	w->is_done = true;
	fiber_wake(w->loop, w->fiber);
}

void conn_relay(struct conn *c, int fd, str first)
{
	struct relay_wait w = { .loop = c->loop, .fiber = fiber_current(c->loop) };

	conn_relay_start(c, fd, first, on_relayed, &w);
	while (!w.is_done)
		/* A cancelled fiber cannot wait any more: the relay ends with it. */
		if (fiber_suspend(w.loop, LOOP_NEVER) == ERR_CANCELLED && !w.is_done) {
			relay_end(c->relay);
			return;
		}
}
