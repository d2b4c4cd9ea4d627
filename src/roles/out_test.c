/* Role out with its neighbours played by this test: store with one sealed body, dns with a few
 * names, the queue that asks, and over real connections to loopback a server that follows a script.
 * Asserted is what the queue is told, and what the server got. */
#include "base/os.h"
#include "base/tap.h"
#include "conf/conf.h"
#include "net/conn.h"
#include "net/dns.h"
#include "net/dns_test_util.h"
#include "roles/out_priv.h"
#include "store/types.h"

#include <stdlib.h>

enum { STORE, DNS, QUEUE, PEERS, ANSWERS = 8, BODY_MAX = 4096 };

#define PREFIX "Received: by me\r\n"
#define BODY   "Subject: x\r\n\r\n.dot\r\nend\r\n"

struct answer {
	struct rec_out_answer a;
	char status[16], remote[256], reply[512];
	bool is_late;
};

struct world {
	struct role role;
	struct conf *conf;
	struct arena *conf_arena;
	struct chan *ours[PEERS], *theirs[PEERS];
	int body;
	struct rec_body_location location;
	bool store_refuses;
	/* The server. */
	int listener;
	struct watch watch;
	uint16_t port;
	unsigned rcpts_max; /* of a transaction; 0: no limit */
	bool closes_idle;   /* after a message, without a word */
	bool defers_all;    /* 450 to each RCPT */
	bool holds_dot;	    /* its answer waits */
	struct fiber *holding;
	unsigned connections, messages;
	struct buf text; /* the last message */
	/* What the queue hears. */
	struct answer answers[ANSWERS];
	unsigned count, goal;
	uint64_t ids[ANSWERS];
	unsigned id_count;
	struct timer guard;
};

/* Roles are reached through these; the frame of a real process is not part of this test. */
static struct world *the_world;

struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index)
{
	(void)r;
	if (index)
		return NULL;
	return kind == ROLE_STORE   ? the_world->ours[STORE]
	       : kind == ROLE_DNS   ? the_world->ours[DNS]
	       : kind == ROLE_QUEUE ? the_world->ours[QUEUE]
				    : NULL;
}

static void must(enum err err)
{
	if (err)
		panic("%s", err_text(err));
}

/* ---- store and dns ---- */

static void store_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;
	struct buf location;

	EQ(m->type, MSG_q_body);
	if (w->store_refuses) {
		must(REPLY_FAILED(c, m->id, ERR_STALE, STR_EMPTY));
		return;
	}
	buf_init(&location, 256);
	rec_body_location_put(&location, &w->location);
	must(REPLY(c, m->id, q_body_reply, .location = buf_str(&location), .file = w->body,
		   .prefix = S(PREFIX)));
	buf_free(&location);
}

static const struct {
	const char *name;
	uint16_t type, preference;
	const char *data; /* of MX: a host; of A: the last byte of 127.0.0.x; "!": it fails */
} zone[] = {
	{ "one.test", DNS_TYPE_MX, 10, "mx.one.test" },
	{ "mx.one.test", DNS_TYPE_A, 0, "\1" },
	{ "dead.test", DNS_TYPE_MX, 10, "gone.dead.test" },
	{ "dead.test", DNS_TYPE_MX, 20, "mx.one.test" },
	{ "gone.dead.test", DNS_TYPE_A, 0, "\11" },
	{ "far.test", DNS_TYPE_MX, 10, "gone.dead.test" },
	{ "null.test", DNS_TYPE_MX, 0, "" },
	{ "sick.test", DNS_TYPE_MX, 0, "!" },
	{ "own.test", DNS_TYPE_MX, 10, "me.example.org" },
};

static void dns_message(void *arg, struct chan *c, struct msg *m)
{
	const struct msg_dns_query *q = &m->u.dns_query;
	struct buf records, data;
	bool exists = false, fails = false;

	(void)arg;
	buf_init(&records, 49152);
	buf_init(&data, 512);
	for (size_t i = 0; i < ARRAY_LEN(zone); i++) {
		struct rec_dns_rdata r;

		if (!str_eq(q->name, str_from_c(zone[i].name)))
			continue;
		exists = true;
		fails = fails || str_eq(str_from_c(zone[i].data), S("!"));
		if (zone[i].type != q->type)
			continue;
		buf_clear(&data);
		if (q->type == DNS_TYPE_MX) {
			put_be16(&data, zone[i].preference);
			put_name(&data, str_from_c(zone[i].data));
		} else {
			buf_add(&data, str_of("\177\0\0", 3));
			buf_add_char(&data, zone[i].data[0]);
		}
		r.data = buf_str(&data);
		rec_dns_rdata_put(&records, &r);
	}
	if (fails)
		must(REPLY_FAILED(c, m->id, ERR_TEMPORARY, STR_EMPTY));
	else
		must(REPLY(c, m->id, dns_reply, .rcode = exists ? 0 : 3, .canonical = q->name,
			   .records = buf_str(&records)));
	buf_free(&records);
	buf_free(&data);
}

/* ---- the server ---- */

struct session {
	struct world *w;
	struct conn *conn;
	unsigned rcpts;
};

static bool take_body(struct session *s)
{
	struct world *w = s->w;
	str line;

	buf_clear(&w->text);
	for (;;) {
		if (conn_read_line(s->conn, 4000, &line))
			return false;
		if (str_eq(line, S(".")))
			break;
		buf_add(&w->text, line);
		buf_add(&w->text, S("\r\n"));
	}
	w->messages++;
	if (w->holds_dot) {
		w->holding = fiber_current(w->role.loop);
		loop_stop(w->role.loop);
		if (fiber_suspend(w->role.loop, LOOP_NEVER))
			return false;
	}
	conn_write(s->conn, S("250 2.0.0 Ok: queued\r\n"));
	return conn_flush(s->conn) == ERR_OK && !w->closes_idle;
}

static bool answer(struct session *s, str line)
{
	const char *text = "250 2.0.0 Ok\r\n";

	if (str_starts(line, S("EHLO ")))
		text = "250-mx.one.test\r\n250 PIPELINING\r\n";
	if (str_starts(line, S("MAIL ")))
		s->rcpts = 0;
	if (str_starts(line, S("RCPT "))) {
		s->rcpts++;
		if (s->w->defers_all)
			text = "450 4.2.0 later\r\n";
		else if (str_find(line, S("<bad@")) != STR_NONE)
			text = "550 5.1.1 No such user\r\n";
		else if (s->w->rcpts_max && s->rcpts > s->w->rcpts_max)
			text = "452 4.5.3 Too many recipients\r\n";
	}
	if (str_eq(line, S("DATA")) && s->w->defers_all)
		text = "503 5.5.1 No recipients\r\n";
	else if (str_eq(line, S("DATA"))) {
		conn_write(s->conn, S("354 go on\r\n"));
		return take_body(s);
	}
	conn_write(s->conn, str_from_c(text));
	return !str_eq(line, S("QUIT"));
}

static void serve(void *arg)
{
	struct session *s = arg;
	str line;

	conn_write(s->conn, S("220 mx.one.test ESMTP\r\n"));
	while (!conn_read_line(s->conn, 4000, &line))
		if (!answer(s, line))
			break;
	conn_free(s->conn);
	free(s);
}

static void on_accept(void *arg, unsigned ready)
{
	struct world *w = arg;
	struct addr peer;
	int fd;

	(void)ready;
	while (!os_accept(w->listener, &peer, &fd)) {
		struct session *s = calloc(1, sizeof(*s));

		s->w = w;
		w->connections++;
		must(conn_new(w->role.loop, fd, &peer, &s->conn));
		must(fiber_spawn(w->role.loop, serve, s));
	}
}

/* ---- the queue ---- */

static str keep(char *to, str s)
{
	if (s.n)
		memcpy(to, s.p, s.n);
	return str_of(to, s.n);
}

static void hear(struct world *w, str results, bool is_late)
{
	struct rec_out_answer a;

	while (!rec_out_answer_get(&results, &a) && w->count < ANSWERS) {
		struct answer *x = &w->answers[w->count++];

		x->a = a;
		x->a.status = keep(x->status, a.status);
		x->a.remote = keep(x->remote, a.remote);
		x->a.reply = keep(x->reply, a.reply);
		x->is_late = is_late;
	}
	if (w->count >= w->goal)
		loop_stop(w->role.loop);
}

static void queue_message(void *arg, struct chan *c, struct msg *m)
{
	(void)c;
	EQ(m->type, MSG_out_late);
	hear(arg, m->u.out_late.results, true);
}

static void answered(void *arg, enum err err, struct msg *reply)
{
	if (!err && OK(reply->type == MSG_out_result))
		hear(arg, reply->u.out_result.results, false);
}

static void jobs_told(void *arg, enum err err, struct msg *reply)
{
	struct world *w = arg;

	w->id_count = 0;
	if (!OK(!err && reply->type == MSG_out_jobs_reply))
		return;
	for (str ids = reply->u.out_jobs_reply.ids; ids.n >= 8 && w->id_count < ANSWERS;
	     ids = str_from(ids, 8))
		w->ids[w->id_count++] = get_le64(ids.p);
	if (w->count >= w->goal)
		loop_stop(w->role.loop);
}

static void ours_message(void *arg, struct chan *c, struct msg *m)
{
	role_out_ops.message(&((struct world *)arg)->role, c, m);
}

static void ours_down(void *arg, struct chan *c, enum err why)
{
	struct world *w = arg;

	if (why == ERR_PROTOCOL)
		OK(!"a channel was cut off");
	if (w->role.state)
		role_out_ops.peer_down(&w->role, c);
}

static void down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c, (void)why;
}

/* ---- the world ---- */

static void too_long(void *arg)
{
	OK(!"nothing more happens");
	loop_stop(((struct world *)arg)->role.loop);
}

static void run(struct world *w, unsigned goal)
{
	w->goal = goal;
	loop_timer_set(w->role.loop, &w->guard, os_monotonic_ns() + SECONDS(60), too_long, w);
	must(loop_run(w->role.loop));
	loop_timer_cancel(w->role.loop, &w->guard);
}

static void body_make(struct world *w)
{
	struct body_cipher *c = body_cipher_new();
	char sealed[sizeof(BODY) + BODY_TAG];
	size_t n = sizeof(BODY) - 1;

	w->location = (struct rec_body_location){ .stored = body_stored_size(n), .size = n };
	body_seal_chunk(c, w->location.key, 0, true, S(BODY), sealed);
	must(os_memfd(str_of(sealed, (size_t)w->location.stored), true, &w->body));
	body_cipher_free(c);
}

static void connect_peers(struct world *w, unsigned i)
{
	int fd[2];

	must(os_socketpair(true, fd));
	must(chan_attach(w->ours[i], fd[0]));
	must(chan_attach(w->theirs[i], fd[1]));
}

static void begin(struct world *w)
{
	static const enum role_kind kinds[PEERS] = { ROLE_STORE, ROLE_DNS, ROLE_QUEUE };
	static const struct chan_ops our_ops = { ours_message, ours_down };
	static const struct chan_ops their_ops[PEERS] = { { store_message, down },
							  { dns_message, down },
							  { queue_message, down } };
	struct addr at;
	char conf[200];
	int n;

	*w = (struct world){ .role = { .ops = &role_out_ops, .kind = ROLE_OUT } };
	the_world = w;
	buf_init(&w->text, BODY_MAX);
	log_init(&w->role.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "out.0");
	must(loop_new(&w->role.loop));
	must(addr_parse(S("127.0.0.1:0"), &at));
	must(os_listen(&at, 0, &w->listener));
	must(os_local_addr(w->listener, &at));
	must(loop_watch(w->role.loop, &w->watch, w->listener, on_accept, w));
	n = snprintf(
		conf, sizeof(conf),
		"myhostname = me.example.org\nsmtp_client_port = %u\nsmtp_connect_timeout = 5s\n",
		at.port);
	w->conf_arena = arena_new(CONF_ARENA_SIZE);
	must(conf_parse(str_of(conf, (size_t)n), S("posthorn.conf"), w->conf_arena, NULL,
			&w->role.conf));
	body_make(w);
	for (unsigned i = 0; i < PEERS; i++) {
		must(chan_new(w->role.loop, ROLE_OUT, kinds[i], 0, &our_ops, w, &w->ours[i]));
		must(chan_new(w->role.loop, kinds[i], ROLE_OUT, 0, &their_ops[i], w,
			      &w->theirs[i]));
		connect_peers(w, i);
	}
	must(role_out_ops.init(&w->role));
}

static void finish(struct world *w)
{
	role_out_ops.stop(&w->role, 5);
	must(loop_run(w->role.loop));
	/* Sessions of the server see the end of theirs. */
	loop_unwatch(w->role.loop, &w->watch);
	os_close(w->listener);
	for (unsigned i = 0; i < PEERS; i++) {
		chan_free(w->theirs[i]);
		chan_free(w->ours[i]);
	}
	out_free(w->role.state);
	must(loop_run(w->role.loop));
	os_close(w->body);
	buf_free(&w->text);
	arena_free(w->conf_arena);
	loop_free(w->role.loop);
}

/* Recipients: addresses with a space between; ids from `first` on. */
static void give(struct world *w, uint64_t first, const char *addresses, const char *hop)
{
	str rest = str_from_c(addresses), address = STR_EMPTY;
	struct msg_out_deliver m = {
		.message = 7, .sender = S("a@example.org"), .nexthop = str_from_c(hop), .size = 10
	};
	struct buf rcpts;

	buf_init(&rcpts, 4096);
	while (rest.n) {
		struct rec_out_rcpt r = { .id = first, .token = 1 };

		r.address = address = str_cut(&rest, ' ');
		first++;
		rec_out_rcpt_put(&rcpts, &r);
	}
	m.domain = route_domain(address);
	m.rcpts = buf_str(&rcpts);
	must(chan_call_async(w->theirs[QUEUE], MSG_out_deliver, &m,
			     loop_now(w->role.loop) + SECONDS(100), answered, w));
	buf_free(&rcpts);
}

static void deliver(struct world *w, const char *addresses, const char *hop)
{
	unsigned n = 1;

	for (const char *p = addresses; *p; p++)
		n += *p == ' ';
	w->count = 0;
	give(w, 1, addresses, hop);
	run(w, n);
}

static void told(struct world *w, unsigned i, uint64_t id, uint8_t state, const char *status,
		 const char *reply)
{
	if (!OK(i < w->count))
		return;
	EQ(w->answers[i].a.id, id);
	EQ(w->answers[i].a.state, state);
	STR_EQ(w->answers[i].a.status, str_from_c(status));
	if (!OK(str_starts(w->answers[i].a.reply, str_from_c(reply))))
		tap_str("got", w->answers[i].a.reply);
}

/* ---- stories ---- */

static void test_delivered(void)
{
	struct world w;

	tap_group("delivered");
	begin(&w);
	deliver(&w, "b@one.test bad@one.test", "");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250 2.0.0 Ok: queued");
	told(&w, 1, 2, QUEUE_FAILED, "5.1.1", "550 5.1.1 No such user");
	OK(str_starts(w.answers[0].a.remote, S("mx.one.test[127.0.0.1]:")));
	STR_EQ(buf_str(&w.text), S(PREFIX "Subject: x\r\n\r\n..dot\r\nend\r\n"));
	/* The connection waits for the next one, for the same next hop. */
	deliver(&w, "c@one.test", "");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250");
	EQ(w.connections, 1);
	deliver(&w, "c@other.test", "smtp:[127.0.0.1]");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250");
	EQ(w.connections, 2);
	finish(&w);
}

/* A server that closed the connection that we kept: another one, and nobody hears of it. */
static void test_idle_closed(void)
{
	struct world w;

	tap_group("an idle connection is closed");
	begin(&w);
	w.closes_idle = true;
	deliver(&w, "b@one.test", "");
	deliver(&w, "c@one.test", "");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250");
	EQ(w.messages, 2);
	EQ(w.connections, 2);
	finish(&w);
}

static void test_servers(void)
{
	struct world w;

	tap_group("servers");
	begin(&w);
	deliver(&w, "b@dead.test", "");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250");
	OK(str_starts(w.answers[0].a.remote, S("mx.one.test[127.0.0.1]:")));
	deliver(&w, "b@far.test", "");
	told(&w, 0, 1, QUEUE_DEFERRED, "4.4.1", "connecting to gone.dead.test[127.0.0.9]:");
	deliver(&w, "b@null.test", "");
	told(&w, 0, 1, QUEUE_FAILED, "5.1.10", "the domain null.test does not take mail");
	deliver(&w, "b@nowhere.test", "");
	told(&w, 0, 1, QUEUE_FAILED, "5.1.2", "the domain nowhere.test does not exist");
	deliver(&w, "b@sick.test", "");
	told(&w, 0, 1, QUEUE_DEFERRED, "4.4.3", "looking up the MX of sick.test failed");
	deliver(&w, "b@own.test", "");
	told(&w, 0, 1, QUEUE_FAILED, "5.4.6", "mail for own.test loops back to ourselves");
	deliver(&w, "b@[127.0.0.1]", "");
	told(&w, 0, 1, QUEUE_SENT, "2.0.0", "250");
	deliver(&w, "b@one.test", "uucp:one");
	told(&w, 0, 1, QUEUE_DEFERRED, "4.3.5", "the transport");
	w.defers_all = true;
	deliver(&w, "b@one.test", "");
	told(&w, 0, 1, QUEUE_DEFERRED, "4.2.0", "450 4.2.0 later");
	w.store_refuses = true;
	deliver(&w, "b@one.test", "");
	told(&w, 0, 1, QUEUE_DEFERRED, "4.3.0", "the stored message could not be read");
	finish(&w);
}

/* RFC 5321 4.5.3.1.10: the rest goes in another transaction. */
static void test_limited(void)
{
	struct world w;

	tap_group("too many recipients at once");
	begin(&w);
	w.rcpts_max = 1;
	deliver(&w, "b@one.test c@one.test d@one.test", "");
	for (unsigned i = 0; i < 3; i++)
		told(&w, i, i + 1, QUEUE_SENT, "2.0.0", "250");
	EQ(w.messages, 3);
	EQ(w.connections, 1);
	finish(&w);
}

static void ask_jobs(struct world *w, unsigned goal)
{
	const struct msg_out_jobs m = {};

	w->count = 0;
	connect_peers(w, QUEUE);
	must(chan_call_async(w->theirs[QUEUE], MSG_out_jobs, &m,
			     loop_now(w->role.loop) + SECONDS(100), jobs_told, w));
	run(w, goal);
}

/* The queue dies while the server has the message: the next one is told, once it is known; and the
 * one after that again. */
static void test_queue_dies(void)
{
	struct world w;

	tap_group("the queue dies");
	begin(&w);
	w.holds_dot = true;
	give(&w, 41, "b@one.test", "");
	run(&w, 1); /* until the server holds it */
	ask_jobs(&w, 0);
	EQ(w.id_count, 1);
	EQ(w.ids[0], 41);
	fiber_wake(w.role.loop, w.holding);
	run(&w, 1);
	told(&w, 0, 41, QUEUE_SENT, "2.0.0", "250 2.0.0 Ok: queued");
	OK(w.answers[0].is_late);
	EQ(w.answers[0].a.code, 250);
	w.holds_dot = false;
	deliver(&w, "c@one.test bad@one.test", "");
	ask_jobs(&w, 2);
	EQ(w.id_count, 2);
	told(&w, 0, 41, QUEUE_SENT, "2.0.0", "delivered shortly before");
	EQ(w.answers[0].a.code, 0);
	told(&w, 1, 1, QUEUE_SENT, "2.0.0", "delivered shortly before");
	EQ(w.messages, 2);
	finish(&w);
}

int main(void)
{
	test_delivered();
	test_idle_closed();
	test_servers();
	test_limited();
	test_queue_dies();
	return tap_done();
}
