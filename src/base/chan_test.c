/* Channels and messages: calls, replies, credits, descriptors, permissions, damage, re-attachment.
 */
#include "base/chan.h"
#include "base/log.h"
#include "base/tap.h"

#include <unistd.h>

struct end {
	struct loop *loop;
	struct chan *c;
	int messages, downs;
	enum err why;
	bool mute; /* takes calls and does not answer */
	uint64_t last;
};

struct test {
	struct loop *loop;
	struct end a, b; /* a: front, b: auth */
	struct arena *arena;
	int done;
};

static void on_message(void *arg, struct chan *c, struct msg *m)
{
	struct end *e = arg;

	e->messages++;
	if (m->type == MSG_auth_rcpt && !e->mute) {
		if (m->u.auth_rcpt.address.n == 0)
			EQ(REPLY_FAILED(c, m->id, ERR_QUOTA, S("full")), ERR_OK);
		else
			EQ(REPLY(c, m->id, auth_verdict, .code = 250, .status = S("2.1.5"),
				 .text = m->u.auth_rcpt.address, .relays = m->u.auth_rcpt.txn == 7),
			   ERR_OK);
	}
	if (m->type == MSG_auth_reset)
		e->last = m->u.auth_reset.txn;
	if (m->type == MSG_auth_mail && m->u.auth_mail.socket > 0) {
		size_t n;

		EQ(os_send(m->u.auth_mail.socket, "via fd", 6, &n), ERR_OK);
	}
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	struct end *e = arg;

	(void)c;
	e->downs++;
	e->why = why;
}

static const struct chan_ops ops = { .on_message = on_message, .on_down = on_down };

static void connect_ends(struct test *t)
{
	int fd[2];

	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t->a.c, fd[0]), ERR_OK);
	EQ(chan_attach(t->b.c, fd[1]), ERR_OK);
}

static void set_up(struct test *t)
{
	*t = (struct test){ 0 };
	EQ(loop_new(&t->loop), ERR_OK);
	t->arena = arena_new(1 << 20);
	EQ(chan_new(t->loop, ROLE_FRONT, ROLE_AUTH, 0, &ops, &t->a, &t->a.c), ERR_OK);
	EQ(chan_new(t->loop, ROLE_AUTH, ROLE_FRONT, 0, &ops, &t->b, &t->b.c), ERR_OK);
}

static void tear_down(struct test *t)
{
	chan_free(t->a.c);
	chan_free(t->b.c);
	EQ(loop_run(t->loop), ERR_OK);
	loop_free(t->loop);
	arena_free(t->arena);
}

static void stop_both(struct test *t)
{
	loop_stop(t->loop);
}

static void calls(void *arg)
{
	struct test *t = arg;
	struct msg_auth_verdict v;
	int64_t soon = loop_now(t->loop) + SECONDS(5);

	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, soon, .txn = 7, .address = S("a@b")),
	   ERR_OK);
	EQ(v.code, 250);
	STR_EQ(v.text, S("a@b"));
	OK(v.relays);
	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, soon, .txn = 8), ERR_QUOTA);
	t->b.mute = true;
	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, loop_now(t->loop) + MILLISECONDS(2),
		.txn = 8),
	   ERR_TIMEOUT);
	t->b.mute = false;
	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, soon, .txn = 9, .address = S("x")),
	   ERR_OK);
	OK(!v.relays);
	if (++t->done == 2)
		stop_both(t);
}

static void many_calls(void *arg)
{
	struct test *t = arg;

	/* Ten times the window: credits must flow back. */
	for (uint64_t i = 1; i <= CHAN_WINDOW * 10; i++) {
		enum err err;

		while ((err = SEND(t->a.c, auth_reset, .txn = i)) == ERR_BUSY)
			fiber_yield(t->loop);
		if (err)
			EQ(err, ERR_OK);
		if (i % 1000 == 0)
			fiber_yield(t->loop);
	}
	while (t->b.last < CHAN_WINDOW * 10)
		fiber_yield(t->loop);
	EQ(chan_counts(t->a.c).queued_bytes, 0);
	if (++t->done == 2)
		stop_both(t);
}

static void test_calls(void)
{
	struct test t;

	tap_group("calls");
	set_up(&t);
	connect_ends(&t);
	EQ(fiber_spawn(t.loop, calls, &t), ERR_OK);
	EQ(fiber_spawn(t.loop, many_calls, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.done, 2);
	tear_down(&t);
}

static void call_when_down(void *arg)
{
	struct test *t = arg;
	struct msg_auth_verdict v;

	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, loop_now(t->loop) + SECONDS(5),
		.txn = 1, .address = S("later")),
	   ERR_OK);
	STR_EQ(v.text, S("later"));
	t->b.mute = true;
	EQ(CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, loop_now(t->loop) + SECONDS(5),
		.txn = 1, .address = S("cut")),
	   ERR_CLOSED);
	t->done++;
	stop_both(t);
}

static struct timer later;

static void cut(void *arg)
{
	struct test *t = arg;

	chan_free(t->b.c);
	t->b.c = NULL;
}

static void reconnect(void *arg)
{
	struct test *t = arg;

	connect_ends(t);
	loop_timer_set(t->loop, &later, loop_now(t->loop) + MILLISECONDS(20), cut, t);
}

static void test_down(void)
{
	struct test t;

	tap_group("down and up again");
	set_up(&t);
	EQ(SEND(t.a.c, auth_reset, .txn = 1), ERR_CLOSED);
	EQ(fiber_spawn(t.loop, call_when_down, &t), ERR_OK);
	loop_timer_set(t.loop, &later, loop_now(t.loop) + MILLISECONDS(5), reconnect, &t);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.done, 1);
	EQ(t.a.downs, 1);
	EQ(t.a.why, ERR_CLOSED);
	tear_down(&t);
}

/* What a peer may not send, or what does not decode, cuts it off. */
static void one_bad(str bytes, const char *what)
{
	struct test t;
	int fd[2];
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n };

	tap_group(what);
	set_up(&t);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.b.c, fd[0]), ERR_OK);
	EQ(os_send_fds(fd[1], &iov, 1, NULL, 0), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.b.downs, 1);
	EQ(t.b.why, ERR_PROTOCOL);
	EQ(t.b.messages, 0);
	os_close(fd[1]);
	tear_down(&t);
}

static void test_bad(void)
{
	struct buf b;
	unsigned nfds;

	buf_init(&b, MSG_MAX);
	one_bad(S("x"), "a short datagram");
	one_bad(S("\xff\xff\0\0\0\0\0\0"), "an unknown message");
	one_bad(S("\x09\0\0\0\0\0\0\0"), "a number that is no message");
	EQ(msg_encode(&b, MSG_auth_reset, 0, false, 0, &(struct msg_auth_reset){ .txn = 1 }, NULL,
		      &nfds),
	   ERR_OK);
	one_bad(str_head(buf_str(&b), buf_len(&b) - 1), "one byte missing");
	buf_add_char(&b, 'x');
	one_bad(buf_str(&b), "one byte left over");
	buf_clear(&b);
	EQ(msg_encode(&b, MSG_txn_reply, 0, false, 0, &(struct msg_txn_reply){ .txn = 1 }, NULL,
		      &nfds),
	   ERR_OK);
	one_bad(buf_str(&b), "a message that a front may not send");
	buf_clear(&b);
	EQ(msg_encode(&b, MSG_auth_rcpt, 0, false, 0,
		      &(struct msg_auth_rcpt){ .address = { (char[600]){ 0 }, 513 } }, NULL, &nfds),
	   ERR_TOO_LONG);
	buf_free(&b);
}

static void until_message(void *arg)
{
	struct test *t = arg;

	while (t->b.messages == 0)
		fiber_yield(t->loop);
	stop_both(t);
}

static void test_fds(void)
{
	struct test t;
	int fd[2];
	char got[16];
	size_t n;

	tap_group("descriptors");
	set_up(&t);
	connect_ends(&t);
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(SEND(t.a.c, auth_mail, .txn = 1, .socket = fd[1]), ERR_OK);
	os_close(fd[1]);
	EQ(fiber_spawn(t.loop, until_message, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_OK);
	STR_EQ(str_of(got, n), S("via fd"));
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_EOF); /* the receiver's copy was closed */
	os_close(fd[0]);
	tear_down(&t);
}

static void test_records(void)
{
	struct buf b;
	struct rec_uid_range r;
	str rest;

	tap_group("records");
	buf_init(&b, 100);
	rec_uid_range_put(&b, &(struct rec_uid_range){ 1, 5 });
	rec_uid_range_put(&b, &(struct rec_uid_range){ 7, 7 });
	rest = buf_str(&b);
	EQ(rec_uid_range_get(&rest, &r), ERR_OK);
	EQ(r.last, 5);
	EQ(rec_uid_range_get(&rest, &r), ERR_OK);
	EQ(r.first, 7);
	EQ(rec_uid_range_get(&rest, &r), ERR_EOF);
	rest = str_head(buf_str(&b), 3);
	EQ(rec_uid_range_get(&rest, &r), ERR_PROTOCOL);
	buf_free(&b);
}

static void test_msgid(void)
{
	struct msgid_source s = { .instance = 5 };
	char text[MSGID_TEXT + 1];
	uint64_t a = msgid_next(&s, 1800000000000000), b = msgid_next(&s, 1799999999000000), c;

	tap_group("message ids");
	OK(b > a);
	EQ(msgid_instance(a), 5);
	EQ(msgid_second(a), 1800000000);
	EQ(msgid_parse(msgid_text(a, text), &c), ERR_OK);
	OK(a == c);
	EQ(msgid_parse(S("ILOU000000000"), &c), ERR_SYNTAX);
	EQ(msgid_parse(S("ZZZZZZZZZZZZZ"), &c), ERR_SYNTAX);
	EQ(msgid_parse(S("0"), &c), ERR_SYNTAX);
}

int main(void)
{
	test_calls();
	test_down();
	test_bad();
	test_fds();
	test_records();
	test_msgid();
	return tap_done();
}
