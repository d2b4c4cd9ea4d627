/* Role auth on logins: passwords, remembered ones, penalties, workers and fronts that die, tickets,
 * commands, what is offered. */
#include "roles/auth_fake.h"

static const char *const wrong = "Authentication credentials invalid";

static void setup_accounts(struct world *w)
{
	EQ(account(w, "alice@example.test", "{PLAIN}a"), 1);
	EQ(account(w, "bob@example.test", "{PLAIN}b"), 2);
}

static void logins(struct world *w)
{
	setup_accounts(w);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:5", "alice@example.test", "a"), AUTH_SASL_OK);
	EQ(last_login.account, 1);
	STR_EQ(last_login.address, S("alice@example.test"));
	EQ(w->jobs, 1);
	tap_group("a remembered login costs no hash");
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:6", "Alice@Example.Test", "a"), AUTH_SASL_OK);
	EQ(w->jobs, 1);
	tap_group("one text for all that is wrong");
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.2:5", "alice@example.test", "x"), AUTH_SASL_FAILED);
	STR_EQ(last_login.text, str_from_c(wrong));
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.3:5", "nobody@example.test", "x"),
	   AUTH_SASL_FAILED);
	STR_EQ(last_login.text, str_from_c(wrong));
	EQ(w->jobs, 3); /* a name that does not exist takes as long */
	EQ(run_command(w, S("user\0disable\0bob@example.test"), ""), 0);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.4:5", "bob@example.test", "b"), AUTH_SASL_FAILED);
	STR_EQ(last_login.text, str_from_c(wrong));
	tap_group("a changed password ends the remembered one at once");
	EQ(run_command(w, S("user\0passwd\0alice@example.test"), "new\n"), 0);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.5:5", "alice@example.test", "a"), AUTH_SASL_FAILED);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.6:5", "alice@example.test", "new"), AUTH_SASL_OK);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.6:5", "alice@example.test", "new"), AUTH_SASL_OK);
	EQ(run_command(w, S("user\0disable\0alice@example.test"), ""), 0);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.7:5", "alice@example.test", "new"),
	   AUTH_SASL_FAILED);
	tap_group("what is stored cannot be read");
	EQ(account(w, "carol@example.test", "{NOBODYKNOWS}x"), 3);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.8:5", "carol@example.test", "x"),
	   AUTH_SASL_TEMPORARY);
}

static void exchanges(struct world *w)
{
	struct chan *front = w->links[FRONT0].there;
	struct msg_auth_sasl_reply r;

	setup_accounts(w);
	tap_group("no such mechanism");
	EQ(CALL(front, auth_sasl, auth_sasl_reply, &r, w->arena, patience(w), .conn = 1,
		.service = S("imap"), .mechanism = S("CRAM-MD5")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_FAILED);
	tap_group("a step without an exchange, and one of another front");
	EQ(CALL(front, auth_sasl_step, auth_sasl_reply, &r, w->arena, patience(w), .conn = 1),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_TEMPORARY);
	EQ(CALL(front, auth_sasl, auth_sasl_reply, &r, w->arena, patience(w), .conn = 1,
		.service = S("imap"), .client = S("192.0.2.1:5"), .mechanism = S("PLAIN")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_CONTINUE);
	EQ(CALL(w->links[FRONT1].there, auth_sasl_step, auth_sasl_reply, &r, w->arena, patience(w),
		.conn = 1, .response = S("\0alice@example.test\0a")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_TEMPORARY);
	EQ(CALL(front, auth_sasl_step, auth_sasl_reply, &r, w->arena, patience(w), .conn = 1,
		.response = S("\0alice@example.test\0a")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_OK);
	tap_group("twice on one connection");
	EQ(login(w, FRONT0, 2, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	EQ(login(w, FRONT0, 2, "submission", "192.0.2.1:5", "bob@example.test", "b"),
	   AUTH_SASL_FAILED);
	tap_group("the connection ends before the exchange");
	EQ(CALL(front, auth_sasl, auth_sasl_reply, &r, w->arena, patience(w), .conn = 3,
		.service = S("imap"), .client = S("192.0.2.1:5"), .mechanism = S("LOGIN")),
	   ERR_OK);
	EQ(SEND(front, auth_conn_end, .conn = 3), ERR_OK);
	EQ(CALL(front, auth_sasl_step, auth_sasl_reply, &r, w->arena, patience(w), .conn = 3,
		.response = S("x")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_TEMPORARY);
	EQ(w->auth->conns.count, 1);
}

/* Exchanges that nobody ends, of a front whose words were lost, refuse nobody. */
static void abandoned(struct world *w)
{
	struct chan *front = w->links[FRONT0].there;
	struct msg_auth_sasl_reply r;

	setup_accounts(w);
	EQ(login(w, FRONT0, 1, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	for (uint64_t i = 0; i < AUTH_CONNS_MAX; i++) {
		while (SEND(front, auth_sasl, .conn = 10 + i, .service = S("imap"),
			    .client = S("192.0.2.1:5"), .mechanism = S("LOGIN")))
			fiber_yield(w->role.loop);
		if (i % 256 == 0)
			fiber_yield(w->role.loop);
	}
	EQ(CALL(front, auth_sasl, auth_sasl_reply, &r, w->arena, patience(w), .conn = 2,
		.service = S("imap"), .client = S("192.0.2.1:5"), .mechanism = S("LOGIN")),
	   ERR_OK);
	EQ(r.state, AUTH_SASL_CONTINUE);
	EQ(w->auth->conns.count, AUTH_CONNS_MAX);
	tap_group("who is logged in stays");
	EQ(auth_conn_account(w->auth, w->links[FRONT0].here, 1), 1);
}

static void penalties(struct world *w)
{
	struct addr client;
	char password[24];
	int64_t begun;

	setup_accounts(w);
	tap_group("the second guess waits");
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:5", "alice@example.test", "x"), AUTH_SASL_FAILED);
	begun = loop_now(w->role.loop);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:6", "alice@example.test", "y"), AUTH_SASL_FAILED);
	OK(loop_now(w->role.loop) - begun >= SECONDS(1));
	tap_group("too many are refused, without a hash");
	must(addr_parse(S("192.0.2.2:5"), &client));
	for (int i = 0; i < PENALTY_REFUSE_AFTER; i++) {
		snprintf(password, sizeof(password), "guess%d", i);
		penalty_failure(w->auth->penalty, os_monotonic_ns(), &client, S("bob@example.test"),
				str_from_c(password));
	}
	w->jobs = 0;
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.2:7", "alice@example.test", "a"), AUTH_SASL_FAILED);
	OK(str_find(last_login.text, S("too many wrong passwords from your address")) != STR_NONE);
	EQ(w->jobs, 0);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.3:7", "alice@example.test", "a"), AUTH_SASL_OK);
}

struct late {
	struct world *world;
	unsigned link;
	int state; /* -1: still waiting; -2: the call failed */
};

static void late_login(void *arg)
{
	struct late *l = arg;
	struct arena *arena = arena_new(65536);
	struct msg_auth_sasl_reply r;
	enum err err = CALL(l->world->links[l->link].there, auth_sasl, auth_sasl_reply, &r, arena,
			    patience(l->world), .conn = 8, .service = S("imap"),
			    .client = S("192.0.2.20:5"), .mechanism = S("PLAIN"),
			    .has_initial = true, .initial = S("\0bob@example.test\0b"));

	l->state = err ? -2 : r.state;
	arena_free(arena);
}

static void begin_late(struct world *w, struct late *l, unsigned link)
{
	unsigned jobs = w->jobs;

	*l = (struct late){ .world = w, .link = link, .state = -1 };
	w->lookup_waits = true;
	must(fiber_spawn(w->role.loop, late_login, l));
	while (w->jobs == jobs)
		fiber_yield(w->role.loop);
}

static void await(struct world *w, const struct late *l)
{
	while (l->state == -1)
		fiber_yield(w->role.loop);
}

static void deaths(struct world *w)
{
	struct late l;

	setup_accounts(w);
	tap_group("a worker that dies has not said wrong");
	begin_late(w, &l, FRONT0);
	link_kill(&w->links[LOOKUP]);
	await(w, &l);
	EQ(l.state, AUTH_SASL_TEMPORARY);
	w->lookup_waits = false;
	link_revive(&w->links[LOOKUP]);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.20:6", "bob@example.test", "b"),
	   AUTH_SASL_OK); /* and no penalty */

	tap_group("no worker comes in time");
	EQ(run_command(w, S("user\0passwd\0bob@example.test\0--hash"), "{PLAIN}b\n"),
	   0); /* forgets the login */
	begin_late(w, &l, FRONT0);
	link_kill(&w->links[LOOKUP]);
	await(w, &l);
	EQ(l.state, AUTH_SASL_TEMPORARY);
	l = (struct late){ .world = w, .link = FRONT0, .state = -1 };
	must(fiber_spawn(w->role.loop, late_login, &l));
	while (!w->auth->jobs.first)
		fiber_yield(w->role.loop);
	w->auth->jobs.first->deadline = loop_now(w->role.loop);
	auth_jobs_run(w->auth);
	await(w, &l);
	EQ(l.state, AUTH_SASL_TEMPORARY);
	link_revive(&w->links[LOOKUP]);

	tap_group("a front dies while a worker computes: its successor hears nothing of it");
	begin_late(w, &l, FRONT0);
	link_kill(&w->links[FRONT0]);
	await(w, &l);
	EQ(l.state, -2);
	link_revive(&w->links[FRONT0]);
	w->lookup_waits = false;
	EQ(w->auth->logins, 1);
	EQ(REPLY(w->links[LOOKUP].there, w->waiting_id, lookup_password_reply, .err = ERR_OK),
	   ERR_OK);
	EQ(login(w, FRONT0, 8, "imap", "192.0.2.21:5", "alice@example.test", "a"), AUTH_SASL_OK);
	EQ(w->opened, 2); /* not for the one that is gone */
	EQ(w->auth->conns.count, 0);
}

/* What the zygote asks at this moment of the loop's clock. */
static void bind_at(struct world *w, int64_t later, const uint8_t ticket[16], uint64_t id)
{
	struct msg m = { .type = MSG_session_bind, .id = 1 };
	struct loop *l = w->role.loop;

	m.u.session_bind.account = id;
	memcpy(m.u.session_bind.ticket, ticket, 16);
	l->now += later;
	role_auth_ops.message(&w->role, w->links[SESSION].here, &m);
	l->now -= later;
}

static void tickets(struct world *w)
{
	uint8_t first[16], other[16] = { 0 };
	unsigned n = 0;

	setup_accounts(w);
	EQ(run_command(w,
		       S("user\0quota\0alice@example.test\0"
			 "9k"),
		       ""),
	   0);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:5", "alice@example.test", "a"), AUTH_SASL_OK);
	memcpy(first, last_login.ticket, 16);
	OK(memcmp(w->open.ticket, first, 16) == 0 && w->open.account == 1);
	tap_group("of another, and made up");
	EQ(bind_session(w, first, 2, false), ERR_DENIED);
	EQ(bind_session(w, other, 1, false), ERR_DENIED);
	EQ(w->binds, 0);
	tap_group("once");
	EQ(bind_session(w, first, 1, false), ERR_OK);
	OK(w->binds == 1 && w->bind.account == 1 && w->bind.quota == 9 * 1024);
	EQ(bind_session(w, first, 1, false), ERR_DENIED);
	tap_group("again, for those that slept");
	EQ(bind_session(w, other, 1, true), ERR_OK);
	EQ(bind_session(w, other, 2, true), ERR_DENIED);
	EQ(run_command(w, S("user\0disable\0alice@example.test"), ""), 0);
	EQ(bind_session(w, other, 1, true), ERR_DENIED);
	EQ(run_command(w, S("user\0enable\0alice@example.test"), ""), 0);
	tap_group("the store's error is passed on");
	w->store_says = ERR_FULL;
	EQ(bind_session(w, other, 1, true), ERR_FULL);
	w->store_says = ERR_OK;
	tap_group("for a minute");
	must(auth_ticket_issue(w->auth, 1, S("alice@example.test"), 0, first));
	must(auth_ticket_issue(w->auth, 1, S("alice@example.test"), 0, other));
	w->binds = 0;
	bind_at(w, SECONDS(AUTH_TICKET_SECONDS), first, 1);
	bind_at(w, SECONDS(AUTH_TICKET_SECONDS) - 1, other, 1);
	while (w->binds == 0)
		fiber_yield(w->role.loop);
	OK(memcmp(w->bind.ticket, other, 16) == 0);
	EQ(run_command(w, S("user\0quota\0alice@example.test"), ""),
	   0); /* behind whatever else would be sent */
	EQ(w->binds, 1);
	tap_group("no more than fit: the oldest go");
	must(auth_ticket_issue(w->auth, 1, S("alice@example.test"), 0, first));
	for (n = 0; n < AUTH_TICKETS_MAX; n++)
		must(auth_ticket_issue(w->auth, 2, S("bob@example.test"), 0, other));
	EQ(w->auth->tickets.count, AUTH_TICKETS_MAX);
	EQ(bind_session(w, first, 1, false), ERR_DENIED);
	EQ(bind_session(w, other, 2, false), ERR_OK);
	tap_group("a zygote that died takes them along");
	link_kill(&w->links[SESSION]);
	EQ(w->auth->tickets.count, 0);
	EQ(auth_ticket_issue(w->auth, 1, S("alice@example.test"), 0, other), ERR_CLOSED);
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_TEMPORARY);
	link_revive(&w->links[SESSION]);
	EQ(bind_session(w, other, 1, true), ERR_DENIED);
}

static void hears(struct world *w, int scram)
{
	while (w->mechanisms[0] == -1 || w->mechanisms[1] == -1)
		fiber_yield(w->role.loop);
	EQ(w->mechanisms[0], scram);
	EQ(w->mechanisms[1], scram);
	w->mechanisms[0] = w->mechanisms[1] = -1;
}

static void offers(struct world *w)
{
	hears(w, true); /* nobody is without */
	setup_accounts(w);
	auth_mechanisms_check(w->auth);
	hears(w, false);
	EQ(run_command(w, S("user\0remove\0alice@example.test"), ""), 0);
	EQ(run_command(w, S("user\0disable\0bob@example.test"), ""), 0);
	hears(w, true);
	EQ(run_command(w, S("user\0passwd\0bob@example.test\0--hash"),
		       "{SCRAM-SHA-256}4096,MDEyMzQ1Njc4OWFiY2RlZg==,"
		       "tSgetjYW5SQlNzIxJAKMryuDGH8Snw5oWcj1eOW0ZyI=,"
		       "bbZ1dJMgYYaKKR1fU1oGHkWJzi9OQY4yU8Fuksa1t70=\n"),
	   0);
	EQ(run_command(w, S("user\0enable\0bob@example.test"), ""), 0);
	EQ(run_command(w, S("user\0list"), ""), 0);
	EQ(w->mechanisms[0], -1); /* SCRAM's own keys are keys: nothing changed */
	tap_group("a new front is told");
	link_kill(&w->links[FRONT1]);
	link_revive(&w->links[FRONT1]);
	while (w->mechanisms[1] == -1)
		fiber_yield(w->role.loop);
	EQ(w->mechanisms[1], true);
	EQ(w->mechanisms[0], -1);
}

static void commands(struct world *w)
{
	struct msg_command_output out;

	setup_accounts(w);
	EQ(run_command(w, S("user\0add\0dave@example.test"), "secret\n"), 0);
	EQ(w->jobs, 1); /* hashed by the worker */
	EQ(login(w, FRONT0, 1, "imap", "192.0.2.1:5", "dave@example.test", "secret"), AUTH_SASL_OK);
	EQ(run_command(w, S("user\0add\0erin@example.test"), "\n"), 1);
	EQ(run_command(w, S("user\0fly"), ""), 2);
	EQ(CALL(w->links[ADMIN].there, command, command_output, &out, w->arena, patience(w),
		.args = S("user\0quota\0dave@example.test")),
	   ERR_OK);
	STR_EQ(out.out, S("dave@example.test quota=none used=17\n"));
}

int main(void)
{
	world_run("logins", "", logins);
	world_run("exchanges", "", exchanges);
	world_run("abandoned", "", abandoned);
	world_run("penalties", "login_cache = no\n", penalties);
	world_run("deaths", "", deaths);
	world_run("tickets", "", tickets);
	world_run("offers", "", offers);
	world_run("commands", "", commands);
	return tap_done();
}
