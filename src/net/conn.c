/* Connections: reading bytes and lines, gathering output, parking.
 *
 * A socket is registered with the loop once, edge-triggered, for its whole life. `can_read` and
 * `can_write` are what we know between edges: true from an event until the kernel said ERR_AGAIN.
 * A recv that brought less than was asked for has emptied a stream socket, so the recv that would
 * only say ERR_AGAIN is saved, unless the peer's end was announced (`is_hung_up`): that came with
 * an event which is spent, and must be read to be seen.
 *
 * Input is read into one buffer, and slices of it are handed out without a copy: they hold until
 * the next read. A line is searched with memchr, each byte once (`searched`). Output gathers in
 * another buffer, so a batch of pipelined replies is one send. When both are empty and the
 * connection is parked, their memory goes back; an idle connection is this struct and nothing
 * else.
 *
 * Back-pressure: a peer that pipelines commands and does not read the replies is not read from any
 * more once CONN_OUT_FLUSH bytes wait for it; otherwise its replies would be our memory.
 *
 * The first error that ends a connection is kept in `dead`, and every later call returns it:
 * handlers check once, at the end. What was received before that is still handed out.
 */
#include "net/conn_priv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void on_ready(void *arg, unsigned ready);

enum err conn_new(struct loop *l, int fd, const struct addr *peer, struct conn **out)
{
	struct conn *c = calloc(1, sizeof(*c));
	enum err err;

	if (!c)
		return ERR_NO_MEMORY;
	c->loop = l;
	c->fd = fd;
	c->peer = *peer;
	c->deadline = LOOP_NEVER;
	c->read_size = CONN_READ_FIRST;
	c->can_read = c->can_write = true;
	buf_init(&c->in, CONN_IN_MAX);
	buf_init(&c->out, CONN_OUT_MAX);
	if ((err = loop_watch(l, &c->watch, fd, on_ready, c))) {
		free(c);
		return err;
	}
	if (peer->family == ADDR_IP4 || peer->family == ADDR_IP6)
		os_no_delay(fd);
	if (os_local_addr(fd, &c->local))
		c->local = (struct addr){ .family = ADDR_NONE };
	*out = c;
	return ERR_OK;
}

/* A close with unread input sends a reset, which can destroy our last reply on its way (RFC 1122
 * 4.2.2.13): so a little of it is read first. */
static void drain(struct conn *c)
{
	char waste[2048];
	size_t done, total = 0;

	while (c->can_read && !c->is_eof && total < CONN_DRAIN_MAX) {
		if (conn_recv(c, waste, sizeof(waste), &done))
			break;
		total += done;
	}
}

static void close_socket(struct conn *c)
{
	if (c->fd < 0)
		return;
	if (!c->dead) {
		(void)!conn_send(c);
		if (c->tls)
			conn_tls_goodbye(c);
		(void)!conn_send(c);
		if (!c->is_eof && c->can_read) {
			os_shutdown_write(c->fd);
			drain(c);
		}
	}
	loop_unwatch(c->loop, &c->watch);
	os_close(c->fd);
	c->fd = -1;
}

void conn_free(struct conn *c)
{
	if (!c)
		return;
	assert(!c->reader && !c->writer);
	close_socket(c);
	conn_unpark(c);
	conn_tls_free(c);
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

const struct addr *conn_peer(const struct conn *c)
{
	return &c->peer;
}

const struct addr *conn_local(const struct conn *c)
{
	return &c->local;
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}

struct loop *conn_loop(const struct conn *c)
{
	return c->loop;
}

void conn_set_deadline(struct conn *c, int64_t at)
{
	c->deadline = at;
}

int64_t conn_deadline(const struct conn *c)
{
	return c->deadline;
}

enum err conn_kill(struct conn *c, enum err why)
{
	if (!c->dead)
		c->dead = why;
	return c->dead;
}

bool conn_failed(const struct conn *c)
{
	return c->dead || c->is_cancelled;
}

/* ---- events ---- */

static void park_fire(struct conn *c, enum err why)
{
	conn_unpark(c);
	c->park_fn(c->park_arg, why);
}

static void park_on_task(void *arg)
{
	struct conn *c = arg;

	park_fire(c, c->task_why);
}

static void park_on_timer(void *arg)
{
	park_fire(arg, ERR_TIMEOUT);
}

/* Reads what came; ERR_AGAIN: nothing that would wake the owner. A record of TLS may hold none of
 * its bytes, or be half here. */
static enum err park_look(struct conn *c)
{
	enum err err = conn_fill(c);

	if (err == ERR_AGAIN)
		conn_release_empty(c);
	return err == ERR_FULL ? ERR_OK : err;
}

static void park_on_ready(struct conn *c)
{
	enum err err;

	if (conn_has_output(c) && c->can_write && (err = conn_send(c)) && err != ERR_AGAIN) {
		park_fire(c, err);
		return;
	}
	if (!c->can_read) {
		conn_release_empty(c);
		return;
	}
	err = park_look(c);
	if (err != ERR_AGAIN)
		park_fire(c, err);
}

static void on_ready(void *arg, unsigned ready)
{
	struct conn *c = arg;

	if (ready & (OS_READY_READ | OS_READY_CLOSED))
		c->can_read = true;
	if (ready & OS_READY_CLOSED)
		c->is_hung_up = true;
	if (ready & OS_READY_WRITE)
		c->can_write = true;
	if (c->relay) {
		relay_on_conn(c->relay);
		return;
	}
	if (c->is_parked && !c->task.is_posted) {
		park_on_ready(c);
		return;
	}
	if (c->reader && (c->can_read || (c->can_write && conn_has_output(c))))
		fiber_wake(c->loop, c->reader);
	if (c->writer && c->can_write)
		fiber_wake(c->loop, c->writer);
}

/* One wait of the current fiber, which is noted in *who meanwhile. */
static enum err wait_ready(struct conn *c, struct fiber **who)
{
	enum err err;

	if (c->is_cancelled)
		return ERR_CANCELLED;
	assert(!*who && !c->is_parked);
	*who = fiber_current(c->loop);
	err = fiber_suspend(c->loop, c->deadline);
	*who = NULL;
	return c->is_cancelled ? ERR_CANCELLED : err;
}

enum err conn_wait_input(struct conn *c)
{
	return wait_ready(c, &c->reader);
}

void conn_cancel(struct conn *c)
{
	c->is_cancelled = true;
	if (c->is_parked) {
		loop_unpost(c->loop, &c->task);
		c->task_why = ERR_CANCELLED;
		loop_post(c->loop, &c->task, park_on_task, c);
	}
	if (c->relay)
		relay_wake(c->relay);
	if (c->reader)
		fiber_wake(c->loop, c->reader);
	if (c->writer)
		fiber_wake(c->loop, c->writer);
}

/* ---- input ---- */

enum err conn_recv(struct conn *c, void *p, size_t n, size_t *done)
{
	enum err err;

	*done = 0;
	if (!c->can_read)
		return ERR_AGAIN;
	err = os_recv(c->fd, p, n, done);
	if (err == ERR_AGAIN || (!err && *done < n && !c->is_hung_up))
		c->can_read = false;
	return err;
}

static enum err receive_plain(struct conn *c)
{
	size_t held = buf_len(&c->in), room, want, done;
	enum err err;
	char *p;

	if (!c->can_read)
		return ERR_AGAIN;
	/* The rest of the buffer serves when it is not too small (moving what is held down, where
	 * that is cheap); otherwise it grows. */
	room = c->in.start >= held ? c->in.size - held : c->in.size - c->in.end;
	want = room >= (held ? c->read_size / 4 : c->read_size) ? room : c->read_size;
	want = MIN(want, CONN_IN_MAX - held);
	p = buf_reserve(&c->in, want);
	if (!p)
		return conn_kill(c, ERR_NO_MEMORY);
	err = conn_recv(c, p, want, &done);
	buf_added(&c->in, done);
	if (done == want)
		c->read_size = CONN_READ_LARGE;
	return err;
}

enum err conn_receive(struct conn *c)
{
	enum err err;

	if (buf_len(&c->in) >= CONN_IN_MAX)
		return ERR_FULL;
	if (c->dead)
		return c->dead;
	if (c->is_eof)
		return ERR_EOF;
	err = c->tls ? conn_tls_receive(c) : receive_plain(c);
	if (err == ERR_EOF)
		c->is_eof = true;
	else if (err && err != ERR_AGAIN)
		conn_kill(c, err);
	return err;
}

enum err conn_fill(struct conn *c)
{
	return c->is_cancelled ? ERR_CANCELLED : conn_receive(c);
}

/* Waits until there is more input than there is now, sending what is to be sent meanwhile. */
static enum err more_input(struct conn *c)
{
	enum err err;

	if (buf_len(&c->out) >= CONN_OUT_FLUSH && (err = conn_flush(c)))
		return err;
	for (;;) {
		if (c->is_cancelled)
			return ERR_CANCELLED;
		if (!c->writer && conn_has_output(c) && (err = conn_send(c)) && err != ERR_AGAIN)
			return err;
		if ((err = conn_receive(c)) != ERR_AGAIN)
			return err;
		if ((err = conn_wait_input(c)))
			return err;
	}
}

static enum err discard(struct conn *c, size_t n)
{
	buf_take(&c->in, n);
	c->searched = 0;
	c->discarded += n;
	return c->discarded > CONN_DISCARD_MAX ? conn_kill(c, ERR_PROTOCOL) : ERR_OK;
}

/* A line whose LF is the byte at `n`. */
static enum err take_line(struct conn *c, size_t n, size_t max, str *line)
{
	str all = buf_str(&c->in);

	c->had_crlf = n > 0 && all.p[n - 1] == '\r';
	if (c->is_skipping || n - c->had_crlf > max) {
		enum err err = discard(c, n + 1);

		c->is_skipping = false;
		return err ? err : ERR_TOO_LONG;
	}
	*line = str_head(all, n - c->had_crlf);
	buf_take(&c->in, n + 1);
	c->searched = 0;
	return ERR_OK;
}

enum err conn_next_line(struct conn *c, size_t max, str *line)
{
	str all = buf_str(&c->in);
	const char *end = NULL;
	enum err err;

	*line = STR_EMPTY;
	if (c->discarded > CONN_DISCARD_MAX)
		return ERR_PROTOCOL;
	if (c->searched < all.n)
		end = memchr(all.p + c->searched, '\n', all.n - c->searched);
	if (end)
		return take_line(c, (size_t)(end - all.p), max, line);
	c->searched = all.n;
	/* max bytes and a CR may still be a good line. */
	if (c->is_skipping || all.n > max + 1) {
		c->is_skipping = true;
		if ((err = discard(c, all.n)))
			return err;
	}
	return ERR_AGAIN;
}

enum err conn_read_line(struct conn *c, size_t max, str *line)
{
	enum err err;

	assert(max < CONN_IN_MAX - 1);
	while ((err = conn_next_line(c, max, line)) == ERR_AGAIN)
		if ((err = more_input(c)))
			break;
	return err;
}

bool conn_line_had_crlf(const struct conn *c)
{
	return c->had_crlf;
}

enum err conn_read_some(struct conn *c, size_t max, str *bytes)
{
	enum err err;

	*bytes = STR_EMPTY;
	while (!buf_len(&c->in))
		if ((err = more_input(c)))
			return err;
	*bytes = str_head(buf_str(&c->in), max);
	conn_take(c, bytes->n);
	return ERR_OK;
}

enum err conn_read_exact(struct conn *c, size_t n, str *bytes)
{
	enum err err;

	assert(n <= CONN_IN_MAX);
	*bytes = STR_EMPTY;
	while (buf_len(&c->in) < n)
		if ((err = more_input(c)))
			return err;
	*bytes = str_head(buf_str(&c->in), n);
	conn_take(c, n);
	return ERR_OK;
}

str conn_pending(const struct conn *c)
{
	return buf_str(&c->in);
}

void conn_take(struct conn *c, size_t n)
{
	buf_take(&c->in, n);
	c->searched = 0;
}

void conn_discard_input(struct conn *c)
{
	buf_clear(&c->in);
	c->searched = 0;
	c->is_skipping = false;
	/* What the kernel holds already came before as well. */
	if (!c->tls)
		drain(c);
}

/* ---- output ---- */

bool conn_has_output(const struct conn *c)
{
	return buf_len(&c->out) || (c->tls && buf_len(&c->tls->wire));
}

enum err conn_send_buf(struct conn *c, struct buf *b)
{
	while (buf_len(b)) {
		str s = buf_str(b);
		size_t done;
		enum err err;

		if (!c->can_write)
			return ERR_AGAIN;
		err = os_send(c->fd, s.p, s.n, &done);
		if (err == ERR_AGAIN)
			c->can_write = false;
		if (err)
			return err == ERR_AGAIN ? err : conn_kill(c, ERR_CLOSED);
		buf_take(b, done);
	}
	return ERR_OK;
}

enum err conn_send(struct conn *c)
{
	enum err err;

	if (c->dead)
		return c->dead;
	/* During the handshake OpenSSL alone fills `wire`; what is written waits for its end. */
	if (!c->tls)
		return conn_send_buf(c, &c->out);
	do {
		if (c->tls->is_ready && (err = conn_tls_seal(c)))
			return err;
		if ((err = conn_send_buf(c, &c->tls->wire)))
			return err;
	} while (c->tls->is_ready && buf_len(&c->out));
	return ERR_OK;
}

static void after_write(struct conn *c)
{
	if (buf_failed(&c->out)) {
		conn_kill(c, ERR_TOO_LONG);
		return;
	}
	if (buf_len(&c->out) >= CONN_OUT_FLUSH && c->can_write)
		(void)!conn_send(c);
}

void conn_write(struct conn *c, str s)
{
	if (c->dead)
		return;
	buf_add(&c->out, s);
	after_write(c);
}

void conn_printf(struct conn *c, const char *fmt, ...)
{
	va_list ap, again;
	int n;
	char *p;

	if (c->dead)
		return;
	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	p = n < 0 ? NULL : buf_reserve(&c->out, (size_t)n + 1);
	if (p) {
		vsnprintf(p, (size_t)n + 1, fmt, ap);
		buf_added(&c->out, (size_t)n);
	}
	va_end(ap);
	after_write(c);
}

enum err conn_flush(struct conn *c)
{
	enum err err;

	for (;;) {
		if (c->is_cancelled)
			return ERR_CANCELLED;
		if ((err = conn_send(c)) != ERR_AGAIN)
			return err;
		if ((err = wait_ready(c, &c->writer)))
			return err;
	}
}

enum err conn_write_wait(struct conn *c, str s)
{
	enum err err;

	while (s.n) {
		size_t room =
			buf_len(&c->out) < CONN_OUT_FLUSH ? CONN_OUT_FLUSH - buf_len(&c->out) : 0;
		str part = str_head(s, room);

		if (c->dead)
			return c->dead;
		buf_add(&c->out, part);
		if (buf_failed(&c->out))
			return conn_kill(c, ERR_NO_MEMORY);
		s = str_from(s, part.n);
		if (buf_len(&c->out) >= CONN_OUT_FLUSH && (err = conn_flush(c)))
			return err;
	}
	return c->dead;
}

/* ---- parking ---- */

void conn_release_empty(struct conn *c)
{
	struct buf *all[] = { &c->in, &c->out, c->tls ? &c->tls->raw : NULL,
			      c->tls ? &c->tls->wire : NULL };

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i] && all[i]->p && !buf_len(all[i]) && !buf_failed(all[i]))
			buf_release(all[i]);
	c->read_size = CONN_READ_FIRST;
}

void conn_park(struct conn *c, void (*fn)(void *arg, enum err why), void *arg)
{
	enum err err = c->is_cancelled ? ERR_CANCELLED : ERR_AGAIN;

	assert(!c->is_parked && !c->reader && !c->writer && !c->relay);
	c->is_parked = true;
	c->park_fn = fn;
	c->park_arg = arg;
	if (err == ERR_AGAIN && conn_has_output(c))
		err = conn_send(c);
	/* What the owner has not even searched for a line is input as well. */
	if (!err || err == ERR_AGAIN)
		err = c->searched < buf_len(&c->in) ? ERR_OK : park_look(c);
	if (err == ERR_AGAIN) {
		loop_timer_set(c->loop, &c->timer, c->deadline, park_on_timer, c);
		return;
	}
	c->task_why = err;
	loop_post(c->loop, &c->task, park_on_task, c);
}

void conn_unpark(struct conn *c)
{
	c->is_parked = false;
	loop_timer_cancel(c->loop, &c->timer);
	loop_unpost(c->loop, &c->task);
}

/* ---- the socket itself ---- */

enum err conn_detach(struct conn *c, int *fd, struct buf *input)
{
	enum err err;

	assert(!c->tls && !c->is_parked);
	if ((err = conn_flush(c)))
		return err;
	buf_add(input, buf_str(&c->in));
	if (buf_failed(input))
		return ERR_TOO_LONG;
	loop_unwatch(c->loop, &c->watch);
	*fd = c->fd;
	c->fd = -1;
	conn_free(c);
	return ERR_OK;
}

/* Waits for the outcome of a connect that has begun: the socket becomes writable with it. */
static enum err connect_wait(struct conn *c)
{
	enum err err;

	c->can_write = false;
	while (!c->can_write)
		if ((err = wait_ready(c, &c->writer)))
			return err;
	return os_connect_result(c->fd);
}

enum err conn_connect(struct loop *l, const struct addr *to, const struct addr *from,
		      int64_t deadline, struct conn **out)
{
	struct conn *c;
	enum err err;
	int fd;

	if ((err = os_connect(to, from, &fd)))
		return err;
	if ((err = conn_new(l, fd, to, &c))) {
		os_close(fd);
		return err;
	}
	c->deadline = deadline;
	if ((err = connect_wait(c))) {
		conn_kill(c, err);
		conn_free(c);
		return err;
	}
	if (os_local_addr(fd, &c->local))
		c->local = (struct addr){ .family = ADDR_NONE };
	*out = c;
	return ERR_OK;
}
