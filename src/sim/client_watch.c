/* A second client of the account: it looks, and waits for changes (IDLE, RFC 2177).
 *
 * It changes nothing. What it is told happened: a message that it saw, flags, an expunge must not
 * be taken back by any cut, even when the one who asked for them was never answered. */
#include "sim/imap_wire.h"

enum { VIEW_MAX = 400, LOOKS_MAX = 12 };

struct watcher {
	struct wire imap;
	struct client *c;
	struct account_model *a;
	uint32_t uidvalidity, exists;
	uint32_t view[VIEW_MAX]; /* UIDs by sequence number, as far as they are known */
	unsigned n;
	bool has_news;
};

static void on_expunge(struct watcher *x, uint32_t sequence)
{
	if (!sequence || sequence > x->exists) {
		world_violation(x->c->world, "%s: EXPUNGE %u of %u messages", x->c->name, sequence,
				x->exists);
		return;
	}
	x->exists--;
	if (sequence > x->n)
		return;
	model_seen_gone(x->c->world, x->a, x->uidvalidity, x->view[sequence - 1]);
	memmove(&x->view[sequence - 1], &x->view[sequence], (x->n - sequence) * sizeof(x->view[0]));
	x->n--;
}

static void on_row(struct watcher *x, const struct wire_row *r)
{
	struct world *w = x->c->world;
	const char *why = NULL;
	uint64_t token;

	if (r->sequence && r->sequence <= x->n && x->view[r->sequence - 1] != r->uid)
		world_violation(w, "%s: number %u was UID %u, is UID %u", x->c->name, r->sequence,
				x->view[r->sequence - 1], r->uid);
	if (r->sequence == x->n + 1 && x->n < VIEW_MAX)
		x->view[x->n++] = r->uid;
	if (r->has_body) {
		token = text_token(w, r->body, &why);
		if (token)
			model_seen_row(w, x->a, x->uidvalidity, r->uid, token, r->flags);
		else
			world_violation(w, "%s UID %u: %s", x->c->name, r->uid, why);
	} else if (r->has_flags) {
		model_seen_flags(w, x->a, x->uidvalidity, r->uid, r->flags);
	}
}

static void on_untagged(void *arg, struct wire *i, str response)
{
	struct watcher *x = arg;
	struct wire_row r;
	uint32_t n = wire_number(response, "");

	if (str_starts(response, S("OK [UIDVALIDITY ")))
		x->uidvalidity = wire_number(response, "UIDVALIDITY ");
	if (!ascii_is_digit(response.n ? response.p[0] : ' '))
		return;
	if (wire_row(i, response, &r)) {
		on_row(x, &r);
	} else if (str_ends(response, S(" EXISTS"))) {
		if (n < x->exists)
			world_violation(x->c->world,
					"%s: %u messages, and %u before without an "
					"EXPUNGE",
					x->c->name, n, x->exists);
		x->exists = n;
		x->has_news = true;
	} else if (str_ends(response, S(" EXPUNGE"))) {
		on_expunge(x, n);
	} else if (!str_ends(response, S(" RECENT"))) {
		/* FETCH without UID: flags by number. */
		if (wire_number(response, "") <= x->n && wire_number(response, "") > 0 &&
		    r.has_flags)
			model_seen_flags(x->c->world, x->a, x->uidvalidity,
					 x->view[wire_number(response, "") - 1], r.flags);
	}
}

static bool news_fetch(struct watcher *x)
{
	x->has_news = false;
	if (x->exists <= x->n)
		return true;
	return wire_command(&x->imap, "FETCH %u:* (UID FLAGS BODY.PEEK[])", x->n + 1) == WIRE_OK;
}

/* Until there is news, or for a while. */
static bool idle(struct watcher *x)
{
	int64_t until =
		loop_now(x->c->loop) + MILLISECONDS(200 + chance_below(&x->c->chance, 4000));
	bool good;

	wire_send(&x->imap, "IDLE");
	good = wire_read(&x->imap) && str_starts(buf_str(&x->imap.response), S("+"));
	conn_set_deadline(x->imap.conn, until);
	while (good && !x->has_news && wire_read(&x->imap))
		if (str_starts(buf_str(&x->imap.response), S("* ")))
			on_untagged(x, &x->imap, str_from(buf_str(&x->imap.response), 2));
	conn_set_deadline(x->imap.conn, loop_now(x->c->loop) + SECONDS(120));
	if (!good || (!x->has_news && loop_now(x->c->loop) < until))
		return false;
	conn_write(x->imap.conn, S("DONE\r\n"));
	return wire_finish(&x->imap) == WIRE_OK;
}

/* As clients without IDLE do, only faster: what is there for a moment must not be seen either. */
static bool look_often(struct watcher *x)
{
	for (unsigned n = 1 + chance_below(&x->c->chance, 40); n && !x->has_news; n--) {
		client_wait(x->c, 1 + chance_below(&x->c->chance, 60));
		if (wire_command(&x->imap, "NOOP") != WIRE_OK)
			return false;
	}
	return true;
}

static void watch(struct watcher *x)
{
	unsigned looks = 1 + chance_below(&x->c->chance, LOOKS_MAX);
	unsigned which = chance_below(&x->c->chance, x->a->n ? 2 * x->a->n : 1);
	const char *name = which < x->a->n ? x->a->boxes[which].name : "INBOX";
	bool is_eager = chance_in(&x->c->chance, 2);

	x->n = x->exists = x->uidvalidity = 0;
	x->imap.untagged = on_untagged;
	x->imap.arg = x;
	if (wire_command(&x->imap, "SELECT %s", name) != WIRE_OK)
		return;
	while (looks-- && !x->c->world->is_kind) {
		if (!news_fetch(x) || !(is_eager ? look_often(x) : idle(x)))
			return;
		x->c->world->counts.operations++;
	}
	(void)wire_command(&x->imap, "LOGOUT");
}

void client_watch_run(struct client *c)
{
	struct watcher x = { .c = c, .a = &c->world->accounts[c->number] };

	while (client_sleep(c, 20 + chance_below(&c->chance, 500))) {
		if (c->world->is_kind || !wire_open(&x.imap, c, x.a))
			continue;
		watch(&x);
		wire_close(&x.imap);
	}
}
