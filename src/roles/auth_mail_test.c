/* Role auth on mail: who may send as whom and to whom, what the store is told, limits, lying
 * fronts, peers that die. */
#include "roles/auth_fake.h"
#include "store/types.h"

#include <sqlite3.h>

static void setup_accounts(struct world *w)
{
	EQ(account(w, "alice@example.test", "{PLAIN}a"), 1);
	EQ(account(w, "bob@example.test", "{PLAIN}b"), 2);
	alias(w, "team@example.test", "alice@example.test");
	alias(w, "team@example.test", "x@far.test");
	alias(w, "@all.test", "bob@example.test");
}

static void transactions(struct world *w)
{
	uint64_t t = txn_of(w, FRONT0);

	setup_accounts(w);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 503);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 451); /* in use */
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	OK(!last_verdict.relays);
	EQ(rcpt(w, FRONT0, t, "Alice+news@example.test"), 250); /* once is enough */
	EQ(rcpt(w, FRONT0, t, "nobody@example.test"), 550);
	STR_EQ(last_verdict.status, S("5.1.1"));
	EQ(rcpt(w, FRONT0, t, "whoever@all.test"), 250);
	EQ(rcpt(w, FRONT0, t, "no address"), 501);
	EQ(rcpt(w, FRONT0, t, "x@far.test"), 554);
	EQ(rcpt(w, FRONT0, t, "postmaster"), 550); /* example.test has none here */
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
	       S("0:1:alice@example.test 2:2:bob@example.test"));
	EQ(w->submitter, 0);
	STR_EQ(str_from_c(w->sender), S("me@far.test"));
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)), S("")); /* it is over */

	tap_group("one account by several addresses, and success asked for");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	for (int twice = 0; twice < 2; twice++) {
		EQ(rcpt_notify(w, FRONT0, t, "alice@example.test", NOTIFY_SUCCESS), 250);
		EQ(rcpt_notify(w, FRONT0, t, "alice+news@example.test",
			       NOTIFY_SUCCESS | NOTIFY_FAILURE),
		   250);
		EQ(rcpt_notify(w, FRONT0, t, "alice+other@example.test", NOTIFY_FAILURE), 250);
	}
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
	       S("0:1:alice@example.test 1:1:alice@example.test 2:1:alice@example.test"));

	tap_group("an alias may lead out");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("")), 250);
	EQ(rcpt(w, FRONT0, t, "team@example.test"), 250);
	OK(last_verdict.relays);
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
	       S("0:1:alice@example.test 0:0:x@far.test"));

	tap_group("reset, nobody to send to, a bad sender");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	EQ(SEND(w->links[FRONT0].there, auth_reset, .txn = t), ERR_OK);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 503);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)), S(""));
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("not an address")), 501);
	EQ(MAIL(w, FRONT0, .txn = t, .service = S("submission"), .sender = S("me@far.test")), 530);

	tap_group("the first recipient comes with the sender");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("no address"), .rcpt = S("alice@example.test")),
	   501);
	OK(!last_verdict.begun);
	EQ(MAIL(w, FRONT0, .txn = t, .service = S("submission"), .sender = S("me@far.test"),
		.rcpt = S("alice@example.test")),
	   530);
	OK(!last_verdict.begun);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test"), .rcpt = S("x@far.test")), 554);
	OK(last_verdict.begun);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test"), .rcpt = S("bob@example.test")),
	   451); /* it is there already */
	OK(!last_verdict.begun);
	EQ(rcpt(w, FRONT0, t, "bob@example.test"), 250);
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)), S("0:2:bob@example.test"));
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test"), .rcpt = S("team@example.test"),
		.notify = NOTIFY_NEVER),
	   250);
	OK(last_verdict.begun && last_verdict.relays);
	STR_EQ(last_verdict.status, S("2.1.5"));
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
	       S("0:1:alice@example.test 0:0:x@far.test"));
}

#define MAIL_COMMIT(w, link, ...) \
	str_from_c(mail_commit((w), (link), (struct msg_auth_mail){ __VA_ARGS__ }))

/* One question with the end of data: the store hears the envelope, or why there is none. */
static void at_once(struct world *w)
{
	uint64_t t = txn_of(w, FRONT0);

	setup_accounts(w);
	STR_EQ(MAIL_COMMIT(w, FRONT0, .txn = t, .sender = S("me@far.test"),
			   .rcpt = S("team@example.test")),
	       S("0:1:alice@example.test 0:0:x@far.test"));
	STR_EQ(str_from_c(w->sender), S("me@far.test"));
	tap_group("refusals");
	STR_EQ(str_head(MAIL_COMMIT(w, FRONT0, .txn = t, .rcpt = S("no@example.test")), 10),
	       S("550 5.1.1 "));
	STR_EQ(str_head(MAIL_COMMIT(w, FRONT0, .txn = t, .rcpt = S("x@far.test")), 10),
	       S("554 5.7.1 "));
	STR_EQ(str_head(MAIL_COMMIT(w, FRONT0, .txn = t, .sender = S("no address"),
				    .rcpt = S("alice@example.test")),
			10),
	       S("501 5.1.7 "));
	STR_EQ(str_head(MAIL_COMMIT(w, FRONT0, .txn = t, .service = S("submission"),
				    .rcpt = S("alice@example.test")),
			10),
	       S("530 5.7.0 "));
	OK(mail_commit(w, FRONT0, (struct msg_auth_mail){ .txn = t })[0] == '5');
	tap_group("another's transaction");
	STR_EQ(MAIL_COMMIT(w, FRONT0, .txn = txn_of(w, FRONT1), .rcpt = S("alice@example.test")),
	       S(""));
	/* Nothing of them is left. */
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	tap_group("what holds, and until when");
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	OK(last_verdict.holds);
	EQ(rcpt(w, FRONT0, t, "team@example.test"), 250);
	OK(last_verdict.holds);
	w->grants_ended[FRONT0] = 0;
	EQ(run_command(w, S("user\0list"), ""), 0);
	EQ(w->grants_ended[FRONT0], 0);
	EQ(run_command(w, S("user\0remove\0bob@example.test"), ""), 0);
	(void)rcpt(w, FRONT0, 0, "x");
	EQ(w->grants_ended[FRONT0], 1);
	STR_EQ(str_head(MAIL_COMMIT(w, FRONT0, .txn = t + 1, .rcpt = S("bob@example.test")), 10),
	       S("550 5.1.1 "));
}

/* A front that was broken into. */
static void lies(struct world *w)
{
	uint64_t mine = txn_of(w, FRONT0), other = txn_of(w, FRONT1), queue = txn_of(w, QUEUE);
	struct buf ends;

	setup_accounts(w);
	buf_init(&ends, 64);
	rec_queue_end_put(&ends, &(struct rec_queue_end){ .id = 1, .token = 1 });
	tap_group("ids of others");
	EQ(MAIL(w, FRONT0, .txn = other, .sender = S("me@far.test")), 451);
	EQ(MAIL(w, FRONT0, .txn = queue, .sender = S("")), 451);
	EQ(MAIL(w, FRONT0, .txn = 0, .sender = S("")), 451);
	EQ(MAIL(w, FRONT1, .txn = other, .sender = S("me@far.test")), 250);
	EQ(rcpt(w, FRONT0, other, "alice@example.test"), 503);
	EQ(rcpt(w, FRONT1, other, "alice@example.test"), 250);
	STR_EQ(str_from_c(commit(w, FRONT0, other, STR_EMPTY)), S(""));
	EQ(SEND(w->links[FRONT0].there, auth_reset, .txn = other), ERR_OK);
	STR_EQ(str_from_c(commit(w, FRONT1, other, STR_EMPTY)), S("0:1:alice@example.test"));

	tap_group("logins of others");
	EQ(login(w, FRONT1, 9, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	EQ(MAIL(w, FRONT0, .txn = mine, .conn = 9, .sender = S("alice@example.test")), 250);
	EQ(rcpt(w, FRONT0, mine, "x@far.test"), 554);
	EQ(rcpt(w, FRONT0, mine, "bob@example.test"), 250);

	tap_group("queue records are the queue's to end");
	STR_EQ(str_from_c(commit(w, FRONT0, mine, buf_str(&ends))), S(""));
	EQ(MAIL(w, QUEUE, .txn = queue, .sender = S("me@far.test")), 553);
	EQ(MAIL(w, QUEUE, .txn = queue, .sender = S("")), 250);
	EQ(rcpt(w, QUEUE, queue, "x@far.test"), 250);
	STR_EQ(str_from_c(commit(w, QUEUE, queue, buf_str(&ends))), S("0:0:x@far.test"));
	buf_free(&ends);
}

/* The two ends of a TCP connection on loopback. */
static void tcp_pair(int fd[2], int *listener)
{
	struct addr at, peer;

	must(addr_parse(S("127.0.0.1:0"), &at));
	must(os_listen(&at, 0, listener));
	must(os_local_addr(*listener, &at));
	must(os_connect(&at, NULL, &fd[0]));
	must(os_wait_readable(*listener, 10000));
	must(os_accept(*listener, &peer, &fd[1]));
}

static unsigned relays(struct world *w, const char *client, str service, int socket)
{
	uint64_t t = txn_of(w, FRONT0);
	unsigned code = MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test"),
			     .client = str_from_c(client), .service = service, .socket = socket);

	return code == 250 ? rcpt(w, FRONT0, t, "x@far.test") : code;
}

static void relaying(struct world *w)
{
	int tcp[2], pair[2], listener;
	uint64_t t = txn_of(w, FRONT0);

	setup_accounts(w);
	tcp_pair(tcp, &listener);
	must(os_socketpair(false, pair));
	tap_group("strangers and liars");
	EQ(relays(w, "192.0.2.9:1", S("smtp"), -1), 554);
	EQ(relays(w, "127.0.0.1:1", S("smtp"), -1), 554); /* words alone */
	EQ(relays(w, "127.0.0.1:1", S("smtp"), pair[0]), 554);
	EQ(relays(w, "127.0.0.1:1", S("smtp"), listener), 554); /* of which nobody is the peer */
	tap_group("a client in mynetworks, by its socket");
	EQ(relays(w, "192.0.2.9:1", S("smtp"), tcp[1]), 250);
	EQ(relays(w, "127.0.0.1:1", S("lmtp"), tcp[1]), 554);
	EQ(relays(w, "127.0.0.1:1", S("submission"), tcp[1]), 530);
	tap_group("no networks");
	conf_set(w, "mynetworks = 192.0.2.0/24\n");
	role_auth_ops.reload(&w->role);
	EQ(relays(w, "192.0.2.9:1", S("smtp"), tcp[1]), 554);
	tap_group("this machine alone");
	conf_set(w, "mynetworks_style = host\n");
	role_auth_ops.reload(&w->role);
	EQ(relays(w, "192.0.2.9:1", S("smtp"), tcp[1]), 250);
	EQ(relays(w, "192.0.2.9:1", S("smtp"), -1), 554);
	tap_group("who logged in");
	EQ(login(w, FRONT0, 3, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	EQ(MAIL(w, FRONT0, .txn = t, .conn = 3, .service = S("submission"),
		.sender = S("alice@example.test")),
	   250);
	EQ(rcpt(w, FRONT0, t, "x@far.test"), 250);
	OK(last_verdict.relays);
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)), S("0:0:x@far.test"));
	EQ(w->submitter, 1);
	EQ(SEND(w->links[FRONT0].there, auth_conn_end, .conn = 3), ERR_OK);
	EQ(MAIL(w, FRONT0, .txn = t, .conn = 3, .service = S("submission"),
		.sender = S("alice@example.test")),
	   530);
	os_close(tcp[0]);
	os_close(tcp[1]);
	os_close(pair[0]);
	os_close(pair[1]);
	os_close(listener);
}

static unsigned sends_as(struct world *w, const char *sender)
{
	uint64_t t = txn_of(w, FRONT0);

	return MAIL(w, FRONT0, .txn = t, .conn = 3, .service = S("submission"),
		    .sender = str_from_c(sender));
}

static void senders(struct world *w)
{
	setup_accounts(w);
	EQ(login(w, FRONT0, 3, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	EQ(sends_as(w, "alice@example.test"), 250);
	EQ(sends_as(w, "Alice+shop@example.test"), 250);
	EQ(sends_as(w, "team@example.test"), 250);
	EQ(sends_as(w, ""), 250);
	EQ(sends_as(w, "bob@example.test"), 553);
	EQ(sends_as(w, "anything@all.test"), 553);
	EQ(sends_as(w, "alice@far.test"), 553);
	EQ(sends_as(w, "@"), 501);
	tap_group("a login before the account was disabled");
	EQ(directory_set_enabled(w->auth->directory, S("alice@example.test"), false), ERR_OK);
	EQ(sends_as(w, "alice@example.test"), 553);
}

static void limits(struct world *w)
{
	uint64_t t = txn_of(w, FRONT0), spare = txn_of(w, FRONT0);
	char address[64];
	int fd[2], listener;

	setup_accounts(w);
	tcp_pair(fd, &listener);
	tap_group("recipients that RCPT names");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("")), 250);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	EQ(rcpt(w, FRONT0, t, "nobody@example.test"), 550); /* does not count */
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	EQ(rcpt(w, FRONT0, t, "bob@example.test"), 250);
	EQ(rcpt(w, FRONT0, t, "bob@example.test"), 452);
	STR_EQ(last_verdict.status, S("4.5.3"));
	STR_EQ(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
	       S("0:1:alice@example.test 2:2:bob@example.test"));

	tap_group("recipients in the end");
	conf_set(w, "smtpd_recipient_limit = 10000\nmynetworks = 127.0.0.1\n");
	role_auth_ops.reload(&w->role);
	alias(w, "two@example.test", "y1@far.test");
	alias(w, "two@example.test", "y2@far.test");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S(""), .socket = fd[1]), 250);
	for (int i = 0; i < AUTH_TXN_RCPTS_MAX - 1 && last_verdict.code == 250; i++) {
		snprintf(address, sizeof(address), "r%d@far.test", i);
		(void)rcpt(w, FRONT0, t, address);
		if (i % 1000 == 0)
			arena_reset(w->arena);
	}
	EQ(last_verdict.code, 250);
	EQ(rcpt(w, FRONT0, t, "two@example.test"), 452); /* both, or neither */
	EQ(rcpt(w, FRONT0, t, "last@far.test"), 250);
	EQ(rcpt(w, FRONT0, t, "more@far.test"), 452);
	OK(str_starts(str_from_c(commit(w, FRONT0, t, STR_EMPTY)),
		      S("0:0:r0@far.test 1:0:r1@far.test ")));
	EQ(w->rcpts, AUTH_TXN_RCPTS_MAX);
	EQ(w->auth->rcpt_bytes, 0);

	tap_group("transactions");
	for (int i = 0; i < AUTH_TXNS_MAX; i++) {
		t = txn_of(w, i % 2 ? FRONT0 : FRONT1);
		if (MAIL(w, i % 2 ? FRONT0 : FRONT1, .txn = t, .sender = S("")) != 250)
			break;
		if (i % 1000 == 0)
			arena_reset(w->arena);
	}
	EQ(last_verdict.code, 250);
	EQ(w->auth->txns.count, AUTH_TXNS_MAX);
	EQ(MAIL(w, FRONT0, .txn = spare, .sender = S("")), 451);
	EQ(SEND(w->links[FRONT0].there, auth_reset, .txn = t), ERR_OK);
	EQ(MAIL(w, FRONT0, .txn = spare, .sender = S("")), 250);

	tap_group("a front that dies takes its own along");
	link_kill(&w->links[FRONT0]);
	EQ(w->auth->txns.count, AUTH_TXNS_MAX / 2);
	link_revive(&w->links[FRONT0]);
	EQ(rcpt(w, FRONT0, spare, "alice@example.test"), 503);
	os_close(fd[0]);
	os_close(fd[1]);
	os_close(listener);
}

static void full(struct world *w)
{
	uint64_t t = txn_of(w, FRONT0), queue = txn_of(w, QUEUE);
	struct chan *store = w->links[STORE].there;

	setup_accounts(w);
	EQ(run_command(w,
		       S("user\0quota\0alice@example.test\0"
			 "5"),
		       ""),
	   0);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("")), 250);
	tap_group("below, at and above the quota");
	for (unsigned used = 4; used <= 6; used++) {
		EQ(SEND(store, account_full, .account = 1, .used = used, .over = true), ERR_OK);
		while (!w->auth->full.count)
			fiber_yield(w->role.loop);
		fiber_yield(w->role.loop);
		EQ(rcpt(w, FRONT0, t, "alice@example.test"), used < 5 ? 250 : 452);
	}
	STR_EQ(last_verdict.status, S("4.2.2"));
	EQ(rcpt(w, FRONT0, t, "alice+x@example.test"), 452);
	EQ(rcpt(w, FRONT0, t, "bob@example.test"), 250);
	EQ(rcpt(w, FRONT0, t, "team@example.test"), 250); /* the others must not miss it */
	(void)commit(w, FRONT0, t, STR_EMPTY);

	tap_group("the store hears of the quota with each delivery");
	EQ(MAIL(w, QUEUE, .txn = queue, .sender = S("")), 250);
	EQ(rcpt(w, QUEUE, queue, "alice@example.test"), 250); /* a report goes in */
	STR_EQ(str_from_c(commit(w, QUEUE, queue, STR_EMPTY)), S("0:1:alice@example.test"));
	EQ(w->quota, 5);

	tap_group("no longer");
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("")), 250);
	EQ(run_command(w,
		       S("user\0quota\0alice@example.test\0"
			 "7"),
		       ""),
	   0);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	EQ(run_command(w,
		       S("user\0quota\0alice@example.test\0"
			 "6"),
		       ""),
	   0);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 452);
	EQ(SEND(store, account_full, .account = 1, .over = false), ERR_OK);
	while (w->auth->full.count)
		fiber_yield(w->role.loop);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);

	tap_group("a store that died said nothing");
	EQ(SEND(store, account_full, .account = 1, .used = 9, .over = true), ERR_OK);
	while (!w->auth->full.count)
		fiber_yield(w->role.loop);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 452);
	link_kill(&w->links[STORE]);
	EQ(rcpt(w, FRONT0, t, "alice@example.test"), 250);
	link_revive(&w->links[STORE]);
}

/* A lookup that fails is temporary, never "no such user". */
static void failing(struct world *w)
{
	uint64_t t = txn_of(w, FRONT0);
	sqlite3 *db = NULL;
	char path[64];

	setup_accounts(w);
	EQ(login(w, FRONT0, 3, "submission", "192.0.2.1:5", "alice@example.test", "a"),
	   AUTH_SASL_OK);
	snprintf(path, sizeof(path), "%s/directory.db", w->folder);
	OK(sqlite3_open(path, &db) == SQLITE_OK &&
	   sqlite3_exec(db, "DROP TABLE aliases", NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
	EQ(MAIL(w, FRONT0, .txn = t, .sender = S("me@far.test")), 250);
	EQ(rcpt(w, FRONT0, t, "nobody@example.test"), 451);
	EQ(rcpt(w, FRONT0, t, "team@example.test"), 451);
	EQ(sends_as(w, "team@example.test"), 451);
}

int main(void)
{
	world_run("transactions", "postmaster =\n", transactions);
	world_run("at once", "", at_once);
	world_run("lies", "", lies);
	world_run("relaying", "mynetworks = 127.0.0.0/8\n", relaying);
	world_run("senders", "", senders);
	world_run("limits", "smtpd_recipient_limit = 3\n", limits);
	world_run("full accounts", "", full);
	world_run("failing lookups", "", failing);
	return tap_done();
}
