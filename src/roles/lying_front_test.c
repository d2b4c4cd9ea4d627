/* A front that was broken into, against the real role store: the process that production runs, its
 * sandbox locked, spoken to over the channels that production gives it. This program is supervisor,
 * auth, filter, session and two fronts at once; what the lying front tries must commit nothing, and
 * an honest delivery afterwards must go through. */
#include "base/tap.h"
#include "conf/conf.h"
#include "roles/role.h"

#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ACCOUNT = 7, FRONT0 = 5, FRONT1 = 6, PATIENCE_MS = 60000 };

struct peer {
	int fd;
	enum role_kind kind;
	char room[MSG_MAX];
	struct msg in;
};

struct test {
	char folder[64];
	int pid;
	struct peer control, front0, front1, auth, filter, session, mail;
	unsigned count; /* of message ids */
};

/* What the child would print of a check, would be counted twice. */
static void fork_quietly(int *pid)
{
	*pid = fork();
	if (*pid)
		OK(*pid > 0);
}

static void send_msg(struct peer *p, enum msg_type type, uint32_t id, const void *m)
{
	static char room[MSG_MAX];
	struct buf b = { .p = room, .size = sizeof(room), .max = sizeof(room) };
	int fds[MSG_FDS_MAX];
	struct iovec iov;
	unsigned n;

	if (msg_encode(&b, type, id, false, 0, m, fds, &n))
		panic("encode");
	iov = (struct iovec){ room, buf_len(&b) };
	if (os_send_fds(p->fd, &iov, 1, fds, n))
		printf("# %s could not be sent\n", msg_name(type));
}

#define TELL(peer, name, ...) send_msg((peer), MSG_##name, 0, &(struct msg_##name){ __VA_ARGS__ })
#define ASK(peer, name, ...)  send_msg((peer), MSG_##name, 77, &(struct msg_##name){ __VA_ARGS__ })

/* The next message that says something; ERR_EOF when the store closed this channel. */
static enum err receive(struct peer *p)
{
	int fds[OS_FDS_MAX];
	unsigned nfds;
	size_t n;
	enum err err;

	do {
		if ((err = os_wait_readable(p->fd, PATIENCE_MS)) ||
		    (err = os_recv_fds(p->fd, p->room, sizeof(p->room), &n, fds, &nfds)))
			return err;
		err = msg_decode(str_of(p->room, n), ROLE_STORE, p->kind, fds, nfds, &p->in);
	} while (!err && (p->in.type == MSG_credit || p->in.type == MSG_trace_event));
	return err;
}

/* A new channel to the store, as the supervisor makes it when the role at our end is started
 * (again). */
static void link_peer(struct test *t, struct peer *p, enum role_kind kind, unsigned index,
		      unsigned instance)
{
	int fd[2];

	EQ(os_socketpair(true, fd), ERR_OK);
	TELL(&t->control, sup_channel, .role = (uint8_t)kind, .index = (uint16_t)index,
	     .instance = (uint16_t)instance, .socket = fd[0]);
	os_close(fd[0]);
	os_close(p->fd);
	p->fd = fd[1];
	p->kind = kind;
}

static void start_store(struct test *t)
{
	char text[256], path[96];
	int fd[2], conf, dir;

	EQ(os_socketpair(true, fd), ERR_OK);
	fork_quietly(&t->pid);
	if (t->pid == 0) {
		os_close(fd[0]);
		os_exit(role_main(&role_store_ops, fd[1]));
	}
	os_close(fd[1]);
	t->control = (struct peer){ .fd = fd[0], .kind = ROLE_SUPERVISOR };
	snprintf(path, sizeof(path), "%s/store", t->folder);
	snprintf(text, sizeof(text), "myhostname = mail.example.test\ndata_dir = %s\n", t->folder);
	EQ(os_mkdir(-1, path, 0700), ERR_OK);
	EQ(os_open(-1, path, OS_READ | OS_DIRECTORY, &dir), ERR_OK);
	EQ(os_memfd(str_from_c(text), true, &conf), ERR_OK);
	TELL(&t->control, sup_config, .role = ROLE_STORE, .instance = 1, .text = conf,
	     .path = S("posthorn.conf"));
	TELL(&t->control, sup_file, .name = S("store"), .path = str_from_c(path), .file = dir);
	os_close(dir);
	os_close(conf);
	link_peer(t, &t->front0, ROLE_FRONT, 0, FRONT0);
	link_peer(t, &t->front1, ROLE_FRONT, 1, FRONT1);
	link_peer(t, &t->auth, ROLE_AUTH, 0, 2);
	link_peer(t, &t->filter, ROLE_FILTER, 0, 3);
	link_peer(t, &t->session, ROLE_SESSION, 0, 4);
	ASK(&t->control, sup_start, .test_hooks = false);
	EQ(receive(&t->control), ERR_OK);
	EQ(t->control.in.type, MSG_role_ready);
}

/* A channel to the account's mail: what a user would see. */
static void open_mail(struct test *t)
{
	int fd[2];

	ASK(&t->auth, store_bind, .ticket = { 1 }, .account = ACCOUNT,
	    .address = S("alice@example.test"));
	EQ(receive(&t->auth), ERR_OK);
	EQ(t->auth.in.type, MSG_done);
	EQ(os_socketpair(true, fd), ERR_OK);
	ASK(&t->session, store_attach, .ticket = { 1 }, .socket = fd[0]);
	os_close(fd[0]);
	EQ(receive(&t->session), ERR_OK);
	EQ(t->session.in.type, MSG_done);
	t->mail = (struct peer){ .fd = fd[1], .kind = ROLE_SESSION };
}

static uint32_t messages(struct test *t)
{
	struct rec_mailbox m = { 0 };
	str all;

	ASK(&t->mail, st_mailboxes, .from = 0);
	do {
		if (receive(&t->mail)) {
			OK(!"the mailboxes are told");
			return UINT32_MAX;
		}
	} while (t->mail.in.type != MSG_st_mailboxes_reply); /* hints of changes come between */
	all = t->mail.in.u.st_mailboxes_reply.mailboxes;
	EQ(rec_mailbox_get(&all, &m), ERR_OK);
	STR_EQ(m.name, S("INBOX"));
	return m.messages;
}

static uint64_t new_id(struct test *t, unsigned instance)
{
	return (uint64_t)200000000 << 31 | (uint64_t)instance << 24 | ++t->count;
}

static void say_envelope(struct peer *who, uint64_t txn)
{
	struct buf b;

	buf_init(&b, 4096);
	rec_txn_rcpt_put(&b, &(struct rec_txn_rcpt){ .account = ACCOUNT,
						     .address = S("alice@example.test") });
	TELL(who, txn_envelope, .txn = txn, .sender = S("x@example.org"), .rcpts = buf_str(&b),
	     .count = 1);
	buf_free(&b);
}

static void say_verdict(struct peer *who, uint64_t txn, str body)
{
	struct msg_txn_verdict v = { .txn = txn, .code = 250, .status = S("2.0.0") };

	if (EVP_Digest(body.p, body.n, v.hash, NULL, EVP_sha256(), NULL) != 1)
		panic("digest");
	send_msg(who, MSG_txn_verdict, 0, &v);
}

static void say_body(struct peer *who, uint64_t txn, str body)
{
	ASK(who, txn_body, .txn = txn, .size = body.n, .inline_body = body, .rcpts = 1);
}

/* The reply to the transaction, and to no other. */
static unsigned reply_code(struct peer *front, uint64_t txn)
{
	EQ(receive(front), ERR_OK);
	if (front->in.type != MSG_txn_reply)
		return 0;
	OK(front->in.u.txn_reply.txn == txn);
	return front->in.u.txn_reply.code;
}

static void deliver_honestly(struct test *t, struct peer *front, unsigned instance)
{
	const str body = S("Subject: honest\r\n\r\nIt is what it is.\r\n");
	uint64_t txn = new_id(t, instance);
	uint32_t before = messages(t);

	say_body(front, txn, body);
	say_verdict(&t->filter, txn, body);
	say_envelope(&t->auth, txn);
	EQ(reply_code(front, txn), 250);
	EQ(messages(t), before + 1);
}

/* The store closed front 0's channel and told the supervisor; the supervisor links its successor.
 */
static void expect_cut_off(struct test *t)
{
	enum err err = ERR_OK;

	while (!err)
		err = receive(&t->front0);
	OK(err == ERR_EOF || err == ERR_CLOSED);
	EQ(receive(&t->control), ERR_OK);
	EQ(t->control.in.type, MSG_sup_cut_off);
	EQ(t->control.in.u.sup_cut_off.role, ROLE_FRONT);
	EQ(t->control.in.u.sup_cut_off.index, 0);
	link_peer(t, &t->front0, ROLE_FRONT, 0, FRONT0);
	deliver_honestly(t, &t->front0, FRONT0);
}

static const str spam = { "Subject: spam\r\n\r\nBuy.\r\n", 23 };

static void test_forged_recipient(struct test *t)
{
	uint64_t txn = new_id(t, FRONT0);
	uint32_t before = messages(t);

	tap_group("a recipient that auth did not name");
	say_verdict(&t->filter, txn, spam);
	EQ(messages(t),
	   before); /* the verdict was taken: the store has answered what came behind it */
	say_body(&t->front0, txn, spam);
	say_envelope(&t->front0, txn);
	expect_cut_off(t);
	EQ(messages(t), before + 1); /* the honest one */
	/* The envelope that auth sends afterwards finds no body: it was the old front's. */
	say_envelope(&t->auth, txn);
	deliver_honestly(t, &t->front0, FRONT0);
	EQ(messages(t), before + 2);
}

static void test_no_verdict(struct test *t)
{
	uint64_t txn = new_id(t, FRONT0);
	uint32_t before = messages(t);

	tap_group("the filter was not asked");
	say_body(&t->front0, txn, spam);
	say_envelope(&t->auth, txn);
	deliver_honestly(t, &t->front0,
			 FRONT0); /* the first reply that comes is the honest one's */
	EQ(messages(t), before + 1);
	tap_group("a verdict of its own");
	say_verdict(&t->front0, txn, spam);
	expect_cut_off(t);
	EQ(messages(t), before + 2);
}

static void test_changed_body(struct test *t)
{
	const str judged = S("Subject: ham!\r\n\r\nBuy.\r\n");
	uint32_t before = messages(t);
	uint64_t txn;

	tap_group("another body than what was judged");
	for (int order = 0; order < 3; order++) {
		txn = new_id(t, FRONT0);
		if (order == 0)
			say_body(&t->front0, txn, spam);
		say_verdict(&t->filter, txn, judged);
		if (order == 1)
			say_body(&t->front0, txn, spam);
		say_envelope(&t->auth, txn);
		if (order == 2)
			say_body(&t->front0, txn, spam);
		EQ(reply_code(&t->front0, txn), 451);
		EQ(messages(t), before);
	}
	deliver_honestly(t, &t->front0, FRONT0);
}

static void test_other_front(struct test *t)
{
	const str honest = S("Subject: of front 1\r\n\r\nHello.\r\n");
	uint64_t txn = new_id(t, FRONT1);
	uint32_t before = messages(t);

	tap_group("another front's transaction");
	say_verdict(&t->filter, txn, honest);
	say_envelope(&t->auth, txn);
	EQ(messages(t), before);
	say_body(&t->front0, txn, honest);
	EQ(receive(&t->front0), ERR_OK);
	EQ(t->front0.in.type, MSG_failed);
	EQ(messages(t), before);
	TELL(&t->front0, txn_cancel, .txn = txn);
	deliver_honestly(t, &t->front0, FRONT0);
	say_body(&t->front1, txn, honest);
	EQ(reply_code(&t->front1, txn), 250);
	EQ(messages(t), before + 2);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
	(void)st;
	(void)kind;
	(void)f;
	return remove(path);
}

int main(void)
{
	static struct test t;
	int status = -1;

	t.front0.fd = t.front1.fd = t.auth.fd = t.filter.fd = t.session.fd = -1;
	snprintf(t.folder, sizeof(t.folder), "/tmp/posthorn-lying-XXXXXX");
	OK(mkdtemp(t.folder) != NULL);
	start_store(&t);
	open_mail(&t);
	tap_group("honest");
	deliver_honestly(&t, &t.front0, FRONT0);
	deliver_honestly(&t, &t.front1, FRONT1);
	test_forged_recipient(&t);
	test_no_verdict(&t);
	test_changed_body(&t);
	test_other_front(&t);
	tap_group("the end");
	TELL(&t.control, sup_stop, .seconds = 5);
	EQ(receive(&t.control), ERR_EOF);
	while (os_reap(&t.pid, &status) == ERR_AGAIN)
		if (os_wait_readable(t.front1.fd, 20) == ERR_OK)
			continue;
	EQ(status, 0);
	EQ(nftw(t.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	return tap_done();
}
