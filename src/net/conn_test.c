/* Connections over socket pairs and a real loop: lines at their limits, ends of lines, deadlines,
 * partial writes, parking, detaching, relaying, ends everywhere. The other end is the test's own
 * descriptor or another conn. */
#include "base/tap.h"
#include "net/conn_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct test {
	struct loop *loop;
	struct conn *c; /* what is tested */
	int fd;		/* the other end */
	void (*body)(struct test *t);
	enum err why; /* of the parked callback */
	int calls;
	bool done;
	struct timer timer;
	struct fiber *fiber;
};

static const struct addr peer = { .family = ADDR_UNIX };

static void open_pair(struct test *t)
{
	int fd[2];

	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(conn_new(t->loop, fd[0], &peer, &t->c), ERR_OK);
	t->fd = fd[1];
}

static void close_pair(struct test *t)
{
	conn_free(t->c);
	t->c = NULL;
	os_close(t->fd);
	t->fd = -1;
}

static void fiber_main(void *arg)
{
	struct test *t = arg;

	t->fiber = fiber_current(t->loop);
	t->body(t);
	t->done = true;
	loop_stop(t->loop);
}

static void run(const char *name, void (*body)(struct test *t))
{
	struct test t = { .body = body, .fd = -1 };

	tap_group(name);
	EQ(loop_new(&t.loop), ERR_OK);
	open_pair(&t);
	EQ(fiber_spawn(t.loop, fiber_main, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	OK(t.done);
	close_pair(&t);
	EQ(loop_counts(t.loop).watches, 0);
	EQ(loop_counts(t.loop).timers, 0);
	loop_free(t.loop);
}

static void put(struct test *t, str s)
{
	size_t n = 0;

	if (os_send(t->fd, s.p, s.n, &n) || n != s.n)
		panic("the test's own socket is full");
}

static void put_many(struct test *t, char c, size_t n, str end)
{
	struct buf b;

	buf_init(&b, n + end.n);
	memset(buf_reserve(&b, n + end.n), c, n);
	buf_added(&b, n);
	buf_add(&b, end);
	put(t, buf_str(&b));
	buf_free(&b);
}

static str got(struct test *t, char *room, size_t max)
{
	size_t n = 0;

	if (os_recv(t->fd, room, max, &n))
		n = 0;
	return str_of(room, n);
}

/* What another side does while the fiber waits. */
static void later(struct test *t, void (*fn)(void *))
{
	loop_timer_set(t->loop, &t->timer, loop_now(t->loop) + MILLISECONDS(1), fn, t);
}

static void lines(struct test *t)
{
	str line;

	put(t, S("HELO a\r\nbare\n\r\n\nlone\rcr\r\n\r\r\n"));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("HELO a"));
	OK(conn_line_had_crlf(t->c));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("bare"));
	OK(!conn_line_had_crlf(t->c));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	EQ(line.n, 0);
	OK(conn_line_had_crlf(t->c));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	EQ(line.n, 0);
	OK(!conn_line_had_crlf(t->c));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("lone\rcr"));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("\r"));
	EQ(conn_next_line(t->c, 100, &line), ERR_AGAIN);
}

static void limits(struct test *t)
{
	static const struct {
		size_t length;
		const char *end;
		enum err err;
	} rows[] = {
		{ 99, "\r\n", ERR_OK },
		{ 100, "\r\n", ERR_OK },
		{ 101, "\r\n", ERR_TOO_LONG },
		{ 99, "\n", ERR_OK },
		{ 100, "\n", ERR_OK },
		{ 101, "\n", ERR_TOO_LONG },
		{ 102, "\r\n", ERR_TOO_LONG },
		{ 0, "\r\n", ERR_OK },
		{ 100000, "\r\n", ERR_TOO_LONG },
	};
	str line;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		put_many(t, 'x', rows[i].length, str_from_c(rows[i].end));
		put(t, S("next\r\n"));
		EQ(conn_read_line(t->c, 100, &line), rows[i].err);
		EQ(line.n, rows[i].err ? 0 : rows[i].length);
		/* The connection is still good. */
		EQ(conn_read_line(t->c, 100, &line), ERR_OK);
		STR_EQ(line, S("next"));
	}
}

static void put_rest(void *arg)
{
	put(arg, S("c\r\nnext\r\n"));
}

static void line_in_pieces(struct test *t)
{
	str line;

	put(t, S("ab"));
	EQ(conn_fill(t->c), ERR_OK);
	EQ(conn_next_line(t->c, 10, &line), ERR_AGAIN);
	EQ(conn_fill(t->c), ERR_AGAIN);
	later(t, put_rest);
	EQ(conn_read_line(t->c, 10, &line), ERR_OK);
	STR_EQ(line, S("abc"));
	STR_EQ(conn_pending(t->c), S("next\r\n"));
	conn_take(t->c, 2);
	EQ(conn_read_line(t->c, 10, &line), ERR_OK);
	STR_EQ(line, S("xt"));
}

static void discard_budget(struct test *t)
{
	size_t lines_good = 0;
	enum err err;
	str line;

	do {
		put_many(t, 'y', 60000, S("\n"));
		err = conn_read_line(t->c, 10, &line);
		lines_good += err == ERR_TOO_LONG;
	} while (err == ERR_TOO_LONG);
	EQ(err, ERR_PROTOCOL);
	EQ(lines_good, CONN_DISCARD_MAX / 60001);
	put(t, S("QUIT\r\n"));
	EQ(conn_read_line(t->c, 10, &line), ERR_PROTOCOL);
	OK(conn_failed(t->c));
}

static void exact_and_some(struct test *t)
{
	str bytes;

	put(t, S("12345"));
	EQ(conn_read_exact(t->c, 3, &bytes), ERR_OK);
	STR_EQ(bytes, S("123"));
	EQ(conn_read_some(t->c, 1, &bytes), ERR_OK);
	STR_EQ(bytes, S("4"));
	EQ(conn_read_some(t->c, 100, &bytes), ERR_OK);
	STR_EQ(bytes, S("5"));
	put_many(t, 'z', CONN_IN_MAX, S(""));
	EQ(conn_read_exact(t->c, CONN_IN_MAX, &bytes), ERR_OK);
	EQ(bytes.n, CONN_IN_MAX);
	OK(bytes.p[0] == 'z' && bytes.p[bytes.n - 1] == 'z');
	put_many(t, 'z', CONN_IN_MAX + 1, S(""));
	while (conn_pending(t->c).n < CONN_IN_MAX && !conn_fill(t->c))
		;
	EQ(conn_pending(t->c).n, CONN_IN_MAX);
	EQ(conn_fill(t->c), ERR_FULL);
	conn_take(t->c, 1);
	EQ(conn_fill(t->c), ERR_OK);
	EQ(conn_pending(t->c).n, CONN_IN_MAX);
}

static void deadline(struct test *t)
{
	str line;

	conn_set_deadline(t->c, loop_now(t->loop) + MILLISECONDS(5));
	EQ(conn_read_line(t->c, 100, &line), ERR_TIMEOUT);
	OK(loop_now(t->loop) >= conn_deadline(t->c));
	/* It is the owner who ends it: with a later deadline it goes on. */
	conn_set_deadline(t->c, LOOP_NEVER);
	put(t, S("x\r\n"));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
}

static void end_of_input(struct test *t)
{
	char room[64];
	str line;

	put(t, S("whole\r\npart"));
	EQ(shutdown(t->fd, SHUT_WR), 0);
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("whole"));
	EQ(conn_read_line(t->c, 100, &line), ERR_EOF);
	EQ(conn_read_some(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("part"));
	EQ(conn_read_some(t->c, 100, &line), ERR_EOF);
	EQ(conn_read_exact(t->c, 1, &line), ERR_EOF);
	EQ(conn_fill(t->c), ERR_EOF);
	/* Half closed: it still gets our answer. */
	conn_write(t->c, S("bye"));
	EQ(conn_flush(t->c), ERR_OK);
	STR_EQ(got(t, room, sizeof(room)), S("bye"));
}

static void peer_gone(struct test *t)
{
	str line;

	os_close(t->fd);
	t->fd = -1;
	conn_write(t->c, S("x"));
	EQ(conn_flush(t->c), ERR_CLOSED);
	OK(conn_failed(t->c));
	conn_write(t->c, S("y"));
	conn_printf(t->c, "%d", 1);
	EQ(conn_flush(t->c), ERR_CLOSED);
	EQ(conn_write_wait(t->c, S("z")), ERR_CLOSED);
	EQ(conn_read_line(t->c, 100, &line), ERR_CLOSED);
}

static void gathered(struct test *t)
{
	char room[64];
	str line;

	put(t, S("a\r\nb\r\n"));
	for (int i = 0; i < 2; i++) {
		EQ(conn_read_line(t->c, 100, &line), ERR_OK);
		conn_printf(t->c, "250 %.*s\r\n", STR_ARGS(line));
		EQ(got(t, room, sizeof(room)).n, 0); /* nothing was sent between pipelined lines */
	}
	conn_set_deadline(t->c, loop_now(t->loop) + MILLISECONDS(1));
	EQ(conn_read_line(t->c, 100, &line), ERR_TIMEOUT);
	STR_EQ(got(t, room, sizeof(room)), S("250 a\r\n250 b\r\n"));
}

/* Lets the loop see what happened. */
static void turns(struct test *t, int n)
{
	while (n-- > 0)
		EQ(fiber_sleep(t->loop, 1000), ERR_OK);
}

struct reader {
	struct test *t;
	size_t total;
	bool is_good;
};

static void read_some(struct reader *r)
{
	char room[5000];
	size_t n;

	while (!os_recv(r->t->fd, room, sizeof(room), &n)) {
		for (size_t i = 0; i < n; i++)
			r->is_good &= room[i] == (char)((r->total + i) * 31 >> 4);
		r->total += n;
	}
}

/* More than the socket takes: every byte arrives, in order. */
static void partial_writes(struct test *t)
{
	enum { TOTAL = 3 * 1000 * 1000 };
	struct reader r = { .t = t, .is_good = true };
	char *all = malloc(TOTAL);
	int small = 8192, full = 0;

	setsockopt(conn_fd(t->c), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (size_t i = 0; i < TOTAL; i++)
		all[i] = (char)(i * 31 >> 4);
	for (size_t sent = 0; sent < TOTAL;) {
		size_t n = MIN((size_t)7000, TOTAL - sent);

		conn_write(t->c, str_of(all + sent, n));
		sent += n;
		while (conn_send(t->c) == ERR_AGAIN) {
			full++;
			read_some(&r);
			turns(t, 1);
		}
	}
	read_some(&r);
	OK(full > 10);
	EQ(r.total, TOTAL);
	OK(r.is_good);
	free(all);
}

static void drain_peer(void *arg)
{
	struct test *t = arg;
	char room[65536];
	size_t n;

	while (!os_recv(t->fd, room, sizeof(room), &n))
		t->calls += (int)n;
	loop_timer_set(t->loop, &t->timer, loop_now(t->loop) + MILLISECONDS(1), drain_peer, t);
}

/* The writer waits for the reader, and its buffer stays small. */
static void write_wait(struct test *t)
{
	enum { TOTAL = 2 * 1000 * 1000 };
	char *all = calloc(1, TOTAL);

	later(t, drain_peer);
	EQ(conn_write_wait(t->c, str_of(all, TOTAL)), ERR_OK);
	OK(t->c->out.size <= 2 * CONN_OUT_FLUSH);
	EQ(conn_flush(t->c), ERR_OK);
	loop_timer_cancel(t->loop, &t->timer);
	drain_peer(t);
	loop_timer_cancel(t->loop, &t->timer);
	EQ(t->calls, TOTAL);
	free(all);
}

static void output_maximum(struct test *t)
{
	char *all = calloc(1, CONN_OUT_MAX + 1);
	size_t kernel = 0;

	/* Fill the kernel's buffer first. */
	while (conn_send(t->c) != ERR_AGAIN) {
		conn_write(t->c, str_of(all, 10000));
		kernel += 10000;
		if (kernel > 100 * 1000 * 1000)
			break;
	}
	conn_write(t->c, str_of(all, CONN_OUT_MAX - buf_len(&t->c->out)));
	OK(!conn_failed(t->c));
	conn_write(t->c, S("!"));
	OK(conn_failed(t->c));
	EQ(conn_flush(t->c), ERR_TOO_LONG);
	free(all);
}

/* A peer that pipelines and does not read is not read from without end. */
static void back_pressure(struct test *t)
{
	char reply[1000] = { 0 };
	enum err err;
	str line;
	int turns = 0;

	conn_set_deadline(t->c, loop_now(t->loop) + MILLISECONDS(20));
	do {
		size_t n;

		(void)!os_send(t->fd, "NOOP\r\nNOOP\r\nNOOP\r\n", 18, &n);
		while (!(err = conn_next_line(t->c, 100, &line)))
			conn_write(t->c, str_of(reply, sizeof(reply)));
		err = conn_read_line(t->c, 100, &line);
		if (!err)
			conn_write(t->c, str_of(reply, sizeof(reply)));
	} while (!err && turns++ < 100000);
	EQ(err, ERR_TIMEOUT);
	OK(buf_len(&t->c->out) < CONN_OUT_MAX / 2);
}

static void cancel_it(void *arg)
{
	struct test *t = arg;

	conn_cancel(t->c);
}

static void cancelled(struct test *t)
{
	str line;

	later(t, cancel_it);
	EQ(conn_read_line(t->c, 100, &line), ERR_CANCELLED);
	EQ(conn_flush(t->c), ERR_CANCELLED);
	OK(conn_failed(t->c));
}

/* ---- parking ---- */

static void on_parked(void *arg, enum err why)
{
	struct test *t = arg;

	t->why = why;
	t->calls++;
	fiber_wake(t->loop, t->fiber);
}

static enum err park(struct test *t)
{
	int before = t->calls;

	t->why = ERR_BUSY;
	conn_park(t->c, on_parked, t);
	EQ(t->calls, before); /* never from inside */
	while (t->calls == before)
		if (fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(10)) == ERR_TIMEOUT)
			return ERR_TIMEOUT;
	EQ(t->calls, before + 1);
	return t->why;
}

static void put_noop(void *arg)
{
	put(arg, S("NOOP\r\n"));
}

static void half_close(void *arg)
{
	struct test *t = arg;

	shutdown(t->fd, SHUT_WR);
}

static void parking(struct test *t)
{
	char room[64];
	str line;

	conn_write(t->c, S("* OK\r\n"));
	later(t, put_noop);
	EQ(park(t), ERR_OK);
	STR_EQ(got(t, room, sizeof(room)), S("* OK\r\n"));
	EQ(conn_next_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("NOOP"));
	EQ(conn_next_line(t->c, 100, &line), ERR_AGAIN);

	/* Idle: no buffers. */
	conn_park(t->c, on_parked, t);
	OK(!t->c->in.p && !t->c->out.p);
	conn_unpark(t->c);

	/* Input that waits in the kernel, and input that was read and never looked at. */
	put(t, S("A\r\nB\r\n"));
	EQ(park(t), ERR_OK);
	EQ(conn_next_line(t->c, 100, &line), ERR_OK);
	EQ(park(t), ERR_OK);
	EQ(conn_next_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("B"));
	/* Half a line does not wake it again, its rest does. */
	put(t, S("ha"));
	EQ(park(t), ERR_OK);
	EQ(conn_next_line(t->c, 100, &line), ERR_AGAIN);
	later(t, put_noop);
	EQ(park(t), ERR_OK);
	EQ(conn_next_line(t->c, 100, &line), ERR_OK);
	STR_EQ(line, S("haNOOP"));

	conn_set_deadline(t->c, loop_now(t->loop) + MILLISECONDS(2));
	EQ(park(t), ERR_TIMEOUT);
	conn_set_deadline(t->c, LOOP_NEVER);
	later(t, half_close);
	EQ(park(t), ERR_EOF);
	EQ(park(t), ERR_EOF); /* and it stays so */
}

static void parked_cancelled(struct test *t)
{
	later(t, cancel_it);
	EQ(park(t), ERR_CANCELLED);
	EQ(park(t), ERR_CANCELLED);
}

static void park_and_free(void *arg, enum err why)
{
	struct test *t = arg;

	t->why = why;
	conn_free(t->c);
	t->c = NULL;
	fiber_wake(t->loop, t->fiber);
}

static void free_in_callback(struct test *t)
{
	conn_park(t->c, park_and_free, t);
	put(t, S("x"));
	while (t->c)
		EQ(fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(5)), ERR_OK);
	EQ(t->why, ERR_OK);
	/* And one that is freed while parked is never called. */
	os_close(t->fd);
	open_pair(t);
	conn_park(t->c, on_parked, t);
	conn_free(t->c);
	t->c = NULL;
	turns(t, 3);
	EQ(t->calls, 0);
}

/* Output that the kernel did not take goes out while parked. */
static void parked_output(struct test *t)
{
	char *all = calloc(1, CONN_OUT_MAX / 2);

	conn_write(t->c, str_of(all, CONN_OUT_MAX / 2));
	conn_park(t->c, on_parked, t);
	OK(conn_has_output(t->c));
	for (int i = 0; i < 1000 && t->calls < CONN_OUT_MAX / 2; i++) {
		drain_peer(t);
		loop_timer_cancel(t->loop, &t->timer);
		fiber_yield(t->loop);
	}
	EQ(t->calls, CONN_OUT_MAX / 2);
	OK(!conn_has_output(t->c) && !t->c->out.p);
	conn_unpark(t->c);
	free(all);
}

/* ---- giving it up ---- */

static void detach(struct test *t)
{
	struct buf input;
	char room[64];
	str line;
	int fd = -1;
	size_t n;

	put(t, S("LOGIN\r\nmore"));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	conn_write(t->c, S("OK\r\n"));
	buf_init(&input, 2);
	EQ(conn_detach(t->c, &fd, &input), ERR_TOO_LONG); /* it stays ours */
	buf_init(&input, 100);
	EQ(conn_detach(t->c, &fd, &input), ERR_OK);
	t->c = NULL;
	STR_EQ(buf_str(&input), S("more"));
	STR_EQ(got(t, room, sizeof(room)), S("OK\r\n"));
	EQ(os_send(fd, "direct", 6, &n), ERR_OK);
	STR_EQ(got(t, room, sizeof(room)), S("direct"));
	os_close(fd);
	buf_free(&input);
}

static void last_words(struct test *t)
{
	char room[64];

	put(t, S("unread input that must not turn the close into a reset"));
	conn_write(t->c, S("421 bye\r\n"));
	conn_free(t->c);
	t->c = NULL;
	STR_EQ(got(t, room, sizeof(room)), S("421 bye\r\n"));
	EQ(got(t, room, sizeof(room)).n, 0);
}

static void wake_fiber(void *arg)
{
	struct test *t = arg;

	t->why = ERR_OK;
	t->calls++;
	fiber_wake(t->loop, t->fiber);
}

static void relay(struct test *t)
{
	enum { LOTS = 600 * 1000 };
	struct test inner = { .loop = t->loop };
	char room[64], *all = calloc(1, LOTS);
	size_t sent = 0, most = 0, n;
	int fd[2];
	str line;

	put(t, S("login\r\nearly "));
	EQ(conn_read_line(t->c, 100, &line), ERR_OK);
	EQ(os_socketpair(false, fd), ERR_OK);
	inner.fd = fd[1];
	conn_relay_start(t->c, fd[0], S("first "), wake_fiber, t);
	put(t, S("late"));
	turns(t, 3);
	STR_EQ(got(&inner, room, sizeof(room)), S("first early late"));
	put(&inner, S("answer"));
	turns(t, 3);
	STR_EQ(got(t, room, sizeof(room)), S("answer"));
	OK(!t->c->in.p && !t->c->out.p);

	/* Much, with a slow reader: nothing is lost, and what waits is bounded. */
	for (int i = 0; i < 100000 && t->calls < LOTS; i++) {
		if (sent < LOTS && !os_send(inner.fd, all + sent, LOTS - sent, &n))
			sent += n;
		fiber_yield(t->loop);
		most = MAX(most, buf_len(&t->c->out));
		if (!os_recv(t->fd, room, sizeof(room), &n))
			t->calls += (int)n;
		if (i % 64 == 0) {
			drain_peer(t);
			loop_timer_cancel(t->loop, &t->timer);
		}
	}
	EQ(t->calls, LOTS);
	OK(most > 0 && most <= 2 * CONN_OUT_FLUSH);
	t->calls = 0;

	/* Half-close: the session sees the end, and its last words still arrive. */
	put(t, S("LOGOUT"));
	shutdown(t->fd, SHUT_WR);
	turns(t, 3);
	STR_EQ(got(&inner, room, sizeof(room)), S("LOGOUT"));
	EQ(os_recv(inner.fd, room, sizeof(room), &n), ERR_EOF);
	EQ(t->calls, 0);
	put(&inner, S("BYE"));
	os_close(inner.fd);
	while (!t->calls)
		EQ(fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(5)), ERR_OK);
	t->c = NULL;
	STR_EQ(got(t, room, sizeof(room)), S("BYE"));
	EQ(os_recv(t->fd, room, sizeof(room), &n), ERR_EOF);
	free(all);
}

static void close_peer(void *arg)
{
	struct test *t = arg;

	os_close(t->fd);
	t->fd = -1;
}

static void relay_waits(struct test *t)
{
	int fd[2];

	EQ(os_socketpair(false, fd), ERR_OK);
	os_shutdown_write(fd[1]);
	later(t, close_peer);
	conn_relay(t->c, fd[0], STR_EMPTY);
	t->c = NULL;
	os_close(fd[1]);
	OK(true);
}

static void connecting(struct test *t)
{
	struct addr at, from;
	struct conn *c = NULL;
	int listener, fd = -1;
	char room[16];
	str line;

	EQ(addr_parse(S("127.0.0.1:0"), &at), ERR_OK);
	EQ(os_listen(&at, 0, &listener), ERR_OK);
	EQ(os_local_addr(listener, &at), ERR_OK);
	EQ(conn_connect(t->loop, &at, NULL, loop_now(t->loop) + SECONDS(5), &c), ERR_OK);
	EQ(os_accept(listener, &from, &fd), ERR_OK);
	OK(addr_ip_eq(conn_peer(c), &at));
	EQ(conn_local(c)->port, from.port);
	conn_write(c, S("hi"));
	EQ(conn_flush(c), ERR_OK);
	STR_EQ(got(&(struct test){ .fd = fd }, room, sizeof(room)), S("hi"));
	os_close(fd);
	EQ(conn_read_line(c, 10, &line), ERR_EOF);
	conn_free(c);
	os_close(listener);
	c = NULL;
	OK(conn_connect(t->loop, &at, NULL, loop_now(t->loop) + SECONDS(5), &c) != ERR_OK);
	OK(c == NULL);
}

int main(void)
{
	run("lines", lines);
	run("limits", limits);
	run("a line in pieces", line_in_pieces);
	run("discard budget", discard_budget);
	run("exact and some", exact_and_some);
	run("deadline", deadline);
	run("end of input", end_of_input);
	run("peer gone", peer_gone);
	run("gathered output", gathered);
	run("partial writes", partial_writes);
	run("write_wait", write_wait);
	run("output maximum", output_maximum);
	run("back-pressure", back_pressure);
	run("cancelled", cancelled);
	run("parking", parking);
	run("parked and cancelled", parked_cancelled);
	run("freed in its callback", free_in_callback);
	run("output while parked", parked_output);
	run("detach", detach);
	run("last words", last_words);
	run("relay", relay);
	run("relay, waiting", relay_waits);
	run("connecting", connecting);
	return tap_done();
}
