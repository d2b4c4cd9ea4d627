/* The remote host: where mail for *.remote.example goes.
 *
 * It answers as other people's servers do: 250, 4yz and 5yz at any command, slowly, or it goes away
 * after any number of bytes, received or sent. What it took is entered in the ledger before it says
 * so. Recipients are called r-17-0: the send, and which of its recipients. */
#include "net/conn.h"
#include "sim/world.h"

#include <stdlib.h>

enum { LINE = 2000, MESSAGE_MAX = 8 * 1024 * 1024, RCPTS = 100, IN_TIME = 600, WHOLE = 0x7fffffff };

struct visit {
	struct client *client;
	struct conn *conn;
	struct buf data;
	char rcpts[RCPTS][64];
	unsigned n;
	bool has_mail;
	unsigned trouble; /* 1 in so many answers is 4yz or 5yz; 0: none */
	int64_t out_left; /* bytes that we still send */
	int64_t in_left;  /* bytes that we still take */
};

struct host {
	struct client *client;
	struct watch watch;
	int fd;
};

/* False: the connection is over, perhaps in the middle of the answer. */
static bool say(struct visit *v, str line)
{
	str part = str_head(line, (size_t)MAX(0, MIN(v->out_left, (int64_t)line.n)));

	v->out_left -= (int64_t)line.n;
	conn_write(v->conn, part);
	return conn_flush(v->conn) == ERR_OK && v->out_left >= 0;
}

static bool take(struct visit *v, str *line)
{
	if (conn_read_line(v->conn, MESSAGE_MAX > CONN_IN_MAX - 2 ? CONN_IN_MAX - 2 : MESSAGE_MAX,
			   line))
		return false;
	v->in_left -= (int64_t)line->n + 2;
	return v->in_left >= 0;
}

enum mood { MOOD_GOOD, MOOD_LATER, MOOD_NEVER };

static enum mood mood(struct visit *v)
{
	struct chance *c = &v->client->chance;

	if (!v->trouble || v->client->world->is_kind || !chance_in(c, v->trouble))
		return MOOD_GOOD;
	return chance_in(c, 3) ? MOOD_NEVER : MOOD_LATER;
}

static struct send *send_of(struct visit *v, str address)
{
	return world_send_of(v->client->world, address);
}

/* What the address of an alias belongs to, its message says alone. */
static bool is_list(str address)
{
	return str_case_eq(address, S(WORLD_LIST));
}

static struct send *send_in(struct visit *v, str address, uint64_t token)
{
	return is_list(address) && TOKEN_KIND(token) == 's'
		       ? world_send(v->client->world, TOKEN_ID(token))
		       : send_of(v, address);
}

static void refuse(struct visit *v, str address, uint64_t token)
{
	struct send *s = send_in(v, address, token);
	struct send_rcpt *r = s ? world_rcpt(s, address) : NULL;

	if (r)
		r->refused++;
}

static bool on_rcpt(struct visit *v, str line)
{
	str address = line;
	enum mood m;

	(void)str_cut(&address, '<');
	address = str_cut(&address, '>');
	if (!is_list(address) &&
	    (!send_of(v, address) || !world_rcpt(send_of(v, address), address))) {
		world_violation(v->client->world, "remote: mail for %.*s, to whom nobody wrote",
				STR_ARGS(address));
		return say(v, S("550 5.1.1 who\r\n"));
	}
	m = mood(v);
	switch (m == MOOD_NEVER && is_list(address) ? MOOD_LATER : m) {
	case MOOD_NEVER:
		refuse(v, address, 0);
		return say(v, S("550 5.1.1 no\r\n"));
	case MOOD_LATER:
		return say(v, S("450 4.2.0 later\r\n"));
	default:
		break;
	}
	if (v->n == RCPTS || address.n >= sizeof(v->rcpts[0]))
		return say(v, S("452 4.5.3 too many\r\n"));
	memcpy(v->rcpts[v->n], address.p, address.n);
	v->rcpts[v->n++][address.n] = '\0';
	return say(v, S("250 2.1.5 ok\r\n"));
}

/* The message's lines up to the dot, without the stuffing. */
static bool data_read(struct visit *v)
{
	str line;

	buf_clear(&v->data);
	while (take(v, &line)) {
		if (line.n == 1 && line.p[0] == '.')
			return true;
		buf_add(&v->data, line.n && line.p[0] == '.' ? str_from(line, 1) : line);
		buf_add(&v->data, S("\r\n"));
	}
	return false;
}

/* Taken: the ledger knows it before the other side does. */
static bool deliver(struct visit *v, uint64_t token, const char *why, int64_t dot)
{
	struct world *w = v->client->world;
	int64_t now = loop_now(v->client->loop);
	bool told;

	if (TOKEN_KIND(token) != 's')
		world_violation(w, "remote: a message for %s: %s: %zu bytes, %.*s", v->rcpts[0],
				why, buf_len(&v->data), STR_ARGS(str_head(buf_str(&v->data), 200)));
	for (unsigned i = 0; i < v->n && TOKEN_KIND(token) == 's'; i++) {
		str address = str_from_c(v->rcpts[i]);
		struct send *s = send_in(v, address, token);

		if (s->id != TOKEN_ID(token))
			world_violation(w, "remote: %s got s%llu", v->rcpts[i],
					(unsigned long long)TOKEN_ID(token));
		world_relayed(w, s, address, dot, now);
		world_note(w, v->client->name, "took %s", v->rcpts[i]);
	}
	told = say(v, S("250 2.0.0 taken\r\n"));
	for (unsigned i = 0; told && i < v->n && TOKEN_KIND(token) == 's'; i++) {
		str address = str_from_c(v->rcpts[i]);
		struct send_rcpt *r = world_rcpt(send_in(v, address, token), address);

		if (r)
			r->is_answered = true;
	}
	return told;
}

static void refuse_all(struct visit *v, uint64_t token)
{
	for (unsigned i = 0; i < v->n; i++)
		refuse(v, str_from_c(v->rcpts[i]), token);
}

static bool has_list(const struct visit *v)
{
	for (unsigned i = 0; i < v->n; i++)
		if (is_list(str_from_c(v->rcpts[i])))
			return true;
	return false;
}

static bool on_data(struct visit *v)
{
	enum mood m = mood(v);
	const char *why = "a notice to the outside";
	uint64_t token;
	int64_t dot;
	bool good;

	if (m == MOOD_NEVER && has_list(v))
		m = MOOD_LATER;
	if (m == MOOD_NEVER)
		refuse_all(v, 0);
	if (m != MOOD_GOOD || !v->n)
		return say(v, m == MOOD_NEVER ? S("554 5.6.0 no\r\n") : S("451 4.3.0 later\r\n"));
	if (!say(v, S("354 go\r\n")) || !data_read(v))
		return false;
	dot = loop_now(v->client->loop);
	if (!v->client->world->is_kind && chance_in(&v->client->chance, 4))
		client_wait(v->client, chance_below(&v->client->chance, 3000));
	token = text_token(v->client->world, buf_str(&v->data), &why);
	m = mood(v);
	if (m == MOOD_NEVER)
		refuse_all(v, token);
	good = m == MOOD_GOOD	 ? deliver(v, token, why, dot)
	       : m == MOOD_LATER ? say(v, S("451 4.3.0 not now\r\n"))
				 : say(v, S("554 5.6.0 not this\r\n"));
	v->n = 0;
	v->has_mail = false;
	return good;
}

static bool on_line(struct visit *v, str line)
{
	if (str_case_starts(line, S("EHLO")))
		return say(v,
			   chance_in(&v->client->chance, 2)
				   ? S("250-remote.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
				   : S("250 remote.example\r\n"));
	if (str_case_starts(line, S("HELO")))
		return say(v, S("250 remote.example\r\n"));
	if (str_case_starts(line, S("MAIL"))) {
		v->n = 0;
		v->has_mail = mood(v) == MOOD_GOOD;
		return v->has_mail ? say(v, S("250 2.1.0 ok\r\n"))
				   : say(v, S("451 4.3.0 not you\r\n"));
	}
	if (str_case_starts(line, S("RCPT")) && v->has_mail)
		return on_rcpt(v, line);
	if (str_case_starts(line, S("DATA")) && v->has_mail)
		return on_data(v);
	if (str_case_starts(line, S("RSET"))) {
		v->n = 0;
		v->has_mail = false;
		return say(v, S("250 2.0.0 ok\r\n"));
	}
	if (str_case_starts(line, S("QUIT"))) {
		(void)say(v, S("221 2.0.0 bye\r\n"));
		return false;
	}
	return say(v, S("503 5.5.1 not now\r\n"));
}

static void visit_fiber(void *arg)
{
	struct visit *v = arg;
	str line;
	bool good = mood(v) == MOOD_GOOD ? say(v, S("220 remote.example ESMTP\r\n"))
					 : (say(v, S("421 4.3.2 busy\r\n")), false);

	while (good && take(v, &line))
		good = on_line(v, line);
	conn_free(v->conn);
	buf_free(&v->data);
	free(v);
}

static void visit_begin(struct host *h, int fd, const struct addr *peer)
{
	struct chance *c = &h->client->chance;
	bool is_kind = h->client->world->is_kind;
	struct visit *v = calloc(1, sizeof(*v));

	if (!v || conn_new(h->client->loop, fd, peer, &v->conn))
		panic("sim: no memory");
	v->client = h->client;
	v->trouble = chance_in(c, 2) ? 0 : 4 + chance_below(c, 12);
	v->out_left = !is_kind && chance_in(c, 6) ? chance_below(c, 400) : WHOLE;
	v->in_left = !is_kind && chance_in(c, 6) ? chance_below(c, 3000) : WHOLE;
	buf_init(&v->data, MESSAGE_MAX);
	conn_set_deadline(v->conn, loop_now(h->client->loop) + SECONDS(IN_TIME));
	if (fiber_spawn(h->client->loop, visit_fiber, v))
		panic("sim: no memory");
}

static void on_listener(void *arg, unsigned ready)
{
	struct host *h = arg;
	struct addr peer;
	int fd;

	(void)ready;
	while (os_accept(h->fd, &peer, &fd) == ERR_OK)
		visit_begin(h, fd, &peer);
}

void client_remote_run(struct client *c)
{
	struct host h = { .client = c };
	enum err err = os_listen(&c->world->at.remote, 0, &h.fd);

	if (!err)
		err = loop_watch_listener(c->loop, &h.watch, h.fd, on_listener, &h);
	if (err)
		panic("sim: the remote host cannot listen: %s", err_text(err));
	while (client_sleep(c, 500))
		;
	loop_unwatch(c->loop, &h.watch);
	os_close(h.fd);
}
