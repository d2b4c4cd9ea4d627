/* The scheduler, the clock, the network and the ends of processes, without the server. */
#include "sim/sim.h"

#include "base/loop.h"
#include "base/os.h"
#include "base/tap.h"
#include "sim/sim_fs.h"

#include <stdlib.h>

enum { TURNS = 8, WORKERS = 3, PORT = 2525, BYTES = 20000 };

static struct sim *simulator(uint64_t seed)
{
	struct sim_options options = { .seed = seed, .network_cut = 500, .short_write = 300 };
	struct sim *s;

	if (sim_new(&options, &s))
		panic("no simulator");
	return s;
}

/* Who ran in which order, as letters. */
struct order {
	char text[TURNS * WORKERS + 1];
	size_t n;
};

struct worker {
	struct order *order;
	char letter;
};

static int work(void *arg)
{
	struct worker *w = arg;
	struct os_event event;
	unsigned n;
	int poll;

	if (os_poll_new(&poll))
		return 1;
	for (int i = 0; i < TURNS; i++) {
		w->order->text[w->order->n++] = w->letter;
		if (os_poll_wait(poll, &event, 1, 0, &n))
			return 1;
	}
	return 0;
}

static struct order order_of(uint64_t seed)
{
	struct sim *s = simulator(seed);
	struct order o = { .n = 0 };
	struct worker workers[WORKERS];

	for (int i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ &o, (char)('a' + i) };
		sim_spawn(s, SIM_OUTSIDE, "worker", work, &workers[i]);
	}
	EQ(sim_run(s, SIM_SECOND, NULL, NULL), SIM_IDLE);
	sim_free(s);
	return o;
}

static void test_order(void)
{
	struct order first = order_of(5), again = order_of(5), other = order_of(6);

	tap_group("who runs next comes from the seed");
	EQ(first.n, TURNS * WORKERS);
	STR_EQ(str_of(again.text, again.n), str_of(first.text, first.n));
	OK(!str_eq(str_of(other.text, other.n), str_of(first.text, first.n)));
}

static void ring(void *arg)
{
	int64_t *at = arg;

	*at = os_monotonic_ns();
}

static int wait_half_an_hour(void *arg)
{
	struct timer t = { 0 };
	struct loop *l;

	if (loop_new(&l))
		return 1;
	loop_timer_set(l, &t, loop_now(l) + SECONDS(1800), ring, arg);
	if (loop_run(l))
		return 1;
	loop_free(l);
	return 0;
}

static void test_clock(void)
{
	struct sim *s = simulator(1);
	int64_t at = 0;

	tap_group("the clock goes to what is due next");
	EQ(sim_do(s, SIM_OUTSIDE, "sleeper", wait_half_an_hour, &at), 0);
	OK(at >= SECONDS(1800) && at < SECONDS(1801));
	OK(sim_now(s) >= at);
	sim_free(s);
}

/* ---- the network ---- */

struct stream {
	size_t got;
	unsigned reads;
	bool is_wrong;
	enum err ended;
};

static void take_all(int fd, struct stream *out)
{
	char bytes[4096];
	size_t n;

	do {
		out->ended = os_recv(fd, bytes, sizeof(bytes), &n);
		for (size_t i = 0; i < n; i++)
			out->is_wrong |= bytes[i] != (char)((out->got + i) % 251);
		out->got += n;
		out->reads += n > 0;
		if (out->ended == ERR_AGAIN && os_wait_readable(fd, 60000) == ERR_OK)
			out->ended = ERR_OK;
	} while (out->ended == ERR_OK);
}

static int receive(void *arg)
{
	struct addr at, peer;
	int listener, fd = -1;

	if (addr_parse_ip(S(SIM_REMOTE_IP), &at))
		return 1;
	at.port = PORT;
	if (os_listen(&at, 0, &listener))
		return 1;
	while (os_accept(listener, &peer, &fd) == ERR_AGAIN)
		if (os_wait_readable(listener, 60000))
			return 1;
	take_all(fd, arg);
	return 0;
}

static int send_all(void *arg UNUSED)
{
	struct os_event event;
	char bytes[BYTES];
	size_t sent = 0, put;
	struct addr to;
	unsigned n;
	int fd, poll;

	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (char)(i % 251);
	if (addr_parse_ip(S(SIM_REMOTE_IP), &to))
		return 1;
	to.port = PORT;
	if (os_connect(&to, NULL, &fd) || os_poll_new(&poll) || os_poll_add(poll, fd, NULL))
		return 1;
	while (sent < BYTES) {
		enum err err = os_send(fd, bytes + sent, BYTES - sent, &put);

		sent += put;
		if (err && err != ERR_AGAIN)
			return 2;
		if (err && os_poll_wait(poll, &event, 1, SECONDS(60), &n))
			return 3;
	}
	return 0;
}

static void test_network(void)
{
	struct sim *s = simulator(3);
	struct stream in = { 0 };

	tap_group("the network cuts, but loses nothing");
	sim_spawn(s, SIM_OUTSIDE, "receiver", receive, &in);
	sim_run(s, SIM_MILLISECOND, NULL, NULL);
	EQ(sim_do(s, SIM_SERVER, "sender", send_all, NULL), 0);
	sim_run(s, SIM_SECOND, NULL, NULL);
	EQ(in.got, BYTES);
	EQ(in.ended, ERR_EOF);
	OK(!in.is_wrong);
	OK(in.reads > 2);
	sim_free(s);
}

static int send_and_wait(void *arg)
{
	struct os_event event;
	unsigned n;
	int poll, status = send_all(arg);

	if (status || os_poll_new(&poll))
		return 1;
	return os_poll_wait(poll, &event, 1, -1, &n) != ERR_OK;
}

static void test_power_and_network(void)
{
	bool lost = false, arrived = false, reset = true, wrong = false;

	tap_group("who loses power resets its connections");
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct sim *s = simulator(seed);
		struct stream in = { 0 };

		sim_spawn(s, SIM_OUTSIDE, "receiver", receive, &in);
		sim_run(s, SIM_MILLISECOND, NULL, NULL);
		sim_spawn(s, SIM_SERVER, "sender", send_and_wait, NULL);
		sim_run(s, (int64_t)(seed * 100) * SIM_MICROSECOND, NULL, NULL);
		sim_power_cut(s);
		sim_run(s, 5ll * SIM_SECOND, NULL, NULL);
		lost |= in.got < BYTES;
		arrived |= in.got == BYTES;
		wrong |= in.is_wrong;
		if (in.got)
			reset = reset && in.ended == ERR_CLOSED;
		sim_free(s);
	}
	OK(lost);
	OK(arrived);
	OK(reset);
	OK(!wrong);
}

/* ---- the ends of processes ---- */

static void copied(void *arg)
{
	int *fd = arg, mine = *fd;
	size_t n;

	/* From here the origin goes on. */
	if (os_write(mine, "c", 1, &n))
		os_exit(1);
	os_exit(7);
}

static int make_copy(void *arg)
{
	int *status = arg, fd[2], pid, reaped;
	char byte = 0;
	size_t n;

	if (os_socketpair(false, fd) || os_fork(copied, &fd[1], &pid))
		return 1;
	os_close(fd[1]);
	if (os_read(fd[0], &byte, 1, &n) || byte != 'c')
		return 2;
	if (os_read(fd[0], &byte, 1, &n) != ERR_EOF) /* it ended: its descriptor is closed */
		return 3;
	return os_reap(&reaped, status) || reaped != pid ? 4 : 0;
}

static void test_copies(void)
{
	struct sim *s = simulator(1);
	int status = 0;

	tap_group("copies");
	EQ(sim_do(s, SIM_SERVER, "origin", make_copy, &status), 0);
	EQ(status, 7);
	EQ(sim_usage(s, NULL, 0), 0);
	sim_free(s);
}

static int hold_much(void *arg)
{
	struct os_event event;
	char *p = malloc(100000);
	unsigned n;
	int poll;

	if (!p || os_poll_new(&poll))
		return 1;
	*(char **)arg = p;
	return os_poll_wait(poll, &event, 1, -1, &n) != ERR_OK;
}

static void test_usage(void)
{
	struct sim *s = simulator(1);
	struct sim_usage u;
	char *p = NULL;

	tap_group("what a process holds");
	sim_spawn(s, SIM_SERVER, "holder", hold_much, &p);
	sim_run(s, SIM_SECOND, NULL, NULL);
	EQ(sim_usage(s, &u, 1), 1);
	STR_EQ(str_from_c(u.name), S("holder"));
	EQ(u.bytes, 100000);
	EQ(u.blocks, 1);
	EQ(u.descriptors, 4); /* three that everybody has, and the poll */
	OK(sim_kill(s, "holder", 0));
	EQ(sim_usage(s, &u, 1), 0);
	OK(!sim_kill(s, "holder", 0));
	sim_free(s);
}

int main(void)
{
	test_order();
	test_clock();
	test_network();
	test_power_and_network();
	test_copies();
	test_usage();
	return tap_done();
}
