/* The whole server in the simulator: it boots, takes a mail, loses power, and has it afterwards;
 * and one seed is one run. */
#include "sim/sim.h"

#include "base/os.h"
#include "base/tap.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 16 * 1024, PATIENCE_MS = 60 * 1000 };

/* A client that says a line and waits for what the answer must have. */
struct talk {
	int fd;
	struct buf got;
	bool is_bad;
};

static bool talk_open(struct talk *t, uint16_t port)
{
	struct addr to;

	*t = (struct talk){ .fd = -1 };
	buf_init(&t->got, TEXT_MAX);
	if (addr_parse_ip(S(SIM_SERVER_IP), &to))
		return false;
	to.port = port;
	t->is_bad = os_connect(&to, NULL, &t->fd) != ERR_OK;
	return !t->is_bad;
}

static void talk_close(struct talk *t)
{
	buf_free(&t->got);
	os_close(t->fd);
}

static void expect(struct talk *t, str wanted)
{
	while (!t->is_bad && str_find(buf_str(&t->got), wanted) == STR_NONE) {
		char *room = buf_reserve(&t->got, 4096);
		size_t n = 0;
		enum err err = room ? os_recv(t->fd, room, 4096, &n) : ERR_NO_MEMORY;

		buf_added(&t->got, n);
		if (err == ERR_AGAIN)
			err = os_wait_readable(t->fd, PATIENCE_MS);
		t->is_bad = err != ERR_OK;
	}
	if (t->is_bad)
		printf("# wanted %.*s, got: %.*s\n", STR_ARGS(wanted), STR_ARGS(buf_str(&t->got)));
}

/* Until the connection takes something, or a second has gone. */
static enum err wait_writable(int fd)
{
	struct os_event event;
	unsigned n;
	int poll;
	enum err err = os_poll_new(&poll);

	if (!err)
		err = os_poll_add(poll, fd, NULL);
	if (!err)
		err = os_poll_wait(poll, &event, 1, SIM_SECOND, &n);
	os_close(poll);
	return err;
}

static void say(struct talk *t, str line, str wanted)
{
	size_t n;

	buf_clear(&t->got);
	while (!t->is_bad && line.n) {
		enum err err = os_send(t->fd, line.p, line.n, &n);

		line = str_from(line, n);
		if (err == ERR_AGAIN)
			err = wait_writable(t->fd);
		t->is_bad = err != ERR_OK;
	}
	expect(t, wanted);
}

static int deliver(void *arg)
{
	const char *text = arg;
	char message[512];
	struct talk t;

	if (!talk_open(&t, SIM_PORT_LMTP))
		return 1;
	expect(&t, S("\r\n"));
	say(&t, S("LHLO client.example\r\n"), S("250 "));
	say(&t, S("MAIL FROM:<ann@client.example>\r\n"), S("250 "));
	say(&t, S("RCPT TO:<alice@example.test>\r\n"), S("250 "));
	say(&t, S("DATA\r\n"), S("354 "));
	snprintf(message, sizeof(message),
		 "From: ann@client.example\r\nSubject: %s\r\n\r\n%s\r\n.\r\n", text, text);
	say(&t, str_from_c(message), S("\r\n"));
	if (!str_starts(buf_str(&t.got), S("250 ")))
		t.is_bad = true;
	say(&t, S("QUIT\r\n"), S("221 "));
	talk_close(&t);
	return t.is_bad;
}

struct reader {
	const char *text;
	bool found;
};

static int read_mail(void *arg)
{
	struct reader *r = arg;
	struct talk t;

	if (!talk_open(&t, SIM_PORT_IMAP))
		return 1;
	expect(&t, S("* OK"));
	say(&t, S("a LOGIN alice@example.test secret\r\n"), S("a OK"));
	say(&t, S("b SELECT INBOX\r\n"), S("b OK"));
	say(&t, S("c FETCH 1:* BODY.PEEK[]\r\n"), S("c OK"));
	r->found = str_find(buf_str(&t.got), str_from_c(r->text)) != STR_NONE;
	say(&t, S("d LOGOUT\r\n"), S("d OK"));
	talk_close(&t);
	return t.is_bad;
}

static bool is_ready(void *arg)
{
	return sim_is_ready(arg);
}

static bool boot(struct sim *s)
{
	sim_boot(s);
	return sim_run(s, 60ll * SIM_SECOND, is_ready, s) == SIM_STOPPED;
}

static const char *const accounts[] = { "alice@example.test", "bob@example.test", NULL };

static struct sim_options options_of(uint64_t seed)
{
	return (struct sim_options){ .seed = seed,
				     .accounts = accounts,
				     .password = "secret",
				     .trace = getenv("SIM_TRACE") != NULL };
}

/* Delivers, cuts, reads; the hash of all that happened. */
static uint64_t life(uint64_t seed)
{
	struct sim_options options = options_of(seed);
	struct reader r = { .text = "the first mail" };
	struct sim *s;
	uint64_t hash;

	if (sim_new(&options, &s))
		panic("no simulator");
	OK(boot(s));
	EQ(sim_do(s, SIM_OUTSIDE, "client", deliver, (void *)(uintptr_t)r.text), 0);
	EQ(sim_do(s, SIM_OUTSIDE, "reader", read_mail, &r), 0);
	OK(r.found);
	sim_power_cut(s);
	r.found = false;
	OK(boot(s));
	EQ(sim_do(s, SIM_OUTSIDE, "reader", read_mail, &r), 0);
	OK(r.found);
	OK(sim_stop(s));
	hash = sim_trace_hash(s);
	sim_free(s);
	return hash;
}

static int delivered(struct sim *s, const char *text)
{
	return sim_do(s, SIM_OUTSIDE, "client", deliver, (void *)(uintptr_t)text);
}

/* Until the role that was killed has a successor. */
static bool delivered_soon(struct sim *s, const char *text)
{
	for (int tries = 0; tries < 10; tries++) {
		if (delivered(s, text) == 0)
			return true;
		sim_run(s, SIM_SECOND, NULL, NULL);
	}
	return false;
}

static bool is_there(struct sim *s, const char *text)
{
	struct reader r = { .text = text };

	return sim_do(s, SIM_OUTSIDE, "reader", read_mail, &r) == 0 && r.found;
}

static void test_faults(void)
{
	enum { FULL_MOST = 1000 };
	struct sim_options options = options_of(7);
	unsigned full = 0;
	struct sim *s;

	if (sim_new(&options, &s))
		panic("no simulator");
	OK(boot(s));
	OK(delivered_soon(s, "before all faults"));
	tap_group("a sync fails");
	sim_fail_sync(s, "log");
	OK(delivered(s, "not acknowledged") != 0);
	OK(delivered_soon(s, "after the failed sync"));
	tap_group("the disk is full");
	sim_disk_limit(s, sim_disk_used(s) + 1024 * 1024);
	/* What room the log's segment has is used up first. */
	while (full < FULL_MOST && delivered(s, "while there is room") == 0)
		full++;
	OK(full < FULL_MOST);
	OK(is_there(s, "after the failed sync"));
	sim_disk_limit(s, 1024 * 1024 * 1024);
	OK(delivered_soon(s, "with room again"));
	tap_group("roles die");
	OK(sim_kill(s, "store", 0));
	OK(delivered_soon(s, "after the store died"));
	OK(sim_kill(s, "auth", 0));
	OK(sim_kill(s, "front", 0));
	OK(delivered_soon(s, "after auth and front died"));
	tap_group("the network");
	sim_partition(s, 2ll * SIM_SECOND);
	OK(delivered_soon(s, "after the partition"));
	sim_power_cut(s);
	OK(boot(s));
	OK(is_there(s, "before all faults"));
	OK(is_there(s, "with room again"));
	OK(is_there(s, "after the store died"));
	OK(is_there(s, "after the partition"));
	sim_free(s);
}

int main(void)
{
	uint64_t first;

	tap_group("deliver, cut, read");
	first = life(1);
	tap_group("the same seed is the same run");
	EQ(life(1), first);
	tap_group("another seed is another run");
	OK(life(2) != first);
	test_faults();
	return tap_done();
}
