/* A world for session tests: a real loop, a real store engine in a folder of its own behind a real
 * channel, the account's sessions on socket pairs. The test is a fiber that speaks as the clients.
 */
#ifndef IMAP_SESSION_FAKE_H
#define IMAP_SESSION_FAKE_H

#include "imap/session.h"
#include "store/engine.h"
#include "store/tree_fake.h"

#include "base/tap.h"

#include <stdio.h>
#include <stdlib.h>

enum { FAKE_CLIENTS_MAX = 4, FAKE_SECONDS = 20 };

struct world {
	struct loop *loop;
	struct log log;
	char path[64];
	int dir;
	struct store *store;
	struct store_reply reply;
	struct chan *server, *client; /* the store's end and the account's */
	struct imap_account *account;
	struct conn *clients[FAKE_CLIENTS_MAX];
	struct imap_session *sessions[FAKE_CLIENTS_MAX];
	unsigned ended;
	struct task flush;
	void (*story)(struct world *w);
	struct buf got; /* what `talk` read */
	bool is_bound;
	bool hints_late; /* a hint of something newer right behind each answer */
};

struct fake_call {
	struct world *w;
	uint32_t id;
};

static inline void fake_flush(void *arg)
{
	struct world *w = arg;

	if (store_settle(w->store))
		panic("settle");
}

static inline void fake_done(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	struct fake_call *call = arg;
	enum err sent = err ? REPLY_FAILED(call->w->server, call->id, err, STR_EMPTY)
			    : chan_reply(call->w->server, call->id, MSG_st_commit_reply, reply);

	if (sent)
		printf("# reply not sent: %s\n", err_name(sent));
	free(call);
}

static inline enum err fake_read(struct world *w, struct msg *in)
{
	struct msg_st_mailboxes_reply mailboxes;
	struct msg_st_rows_reply rows;
	enum err err;
	int fd;

	switch (in->type) {
	case MSG_st_mailboxes:
		err = store_mailboxes(w->store, 1, &in->u.st_mailboxes, &w->reply, &mailboxes);
		if (!err)
			err = chan_reply(w->server, in->id, MSG_st_mailboxes_reply, &mailboxes);
		if (!err && w->hints_late)
			err = SEND(w->server, st_changed, .mailbox = in->u.st_mailboxes.from,
				   .modseq = mailboxes.modseq + 1);
		return err;
	case MSG_st_rows:
		err = store_rows(w->store, 1, &in->u.st_rows, &w->reply, &rows);
		return err ? err : chan_reply(w->server, in->id, MSG_st_rows_reply, &rows);
	case MSG_st_segment:
		if ((err = store_segment(w->store, in->u.st_segment.segment, in->u.st_segment.body,
					 &fd)))
			return err;
		err = REPLY(w->server, in->id, st_segment_reply, .file = fd);
		os_close(fd);
		return err;
	default:
		return ERR_PROTOCOL;
	}
}

static inline void fake_message(void *arg, struct chan *c, struct msg *in)
{
	struct world *w = arg;
	struct fake_call *call = malloc(sizeof(*call));
	enum err err;

	(void)c;
	*call = (struct fake_call){ w, in->id };
	if (in->type == MSG_st_commit) {
		err = store_commit(w->store, 1, &in->u.st_commit, fake_done, call);
	} else if (in->type == MSG_st_append) {
		err = store_append(w->store, 1, &in->u.st_append, fake_done, call);
	} else {
		free(call);
		call = NULL;
		err = fake_read(w, in);
	}
	if (err) {
		free(call);
		err = REPLY_FAILED(w->server, in->id, err, STR_EMPTY);
	}
	loop_post(w->loop, &w->flush, fake_flush, w);
}

static inline void fake_down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c;
	printf("# channel down: %s\n", err_name(why));
}

static inline void fake_account_message(void *arg, struct chan *c, struct msg *in)
{
	(void)c;
	imap_account_message(((struct world *)arg)->account, in);
}

static inline void fake_hint(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq)
{
	struct world *w = arg;

	if (account == 1 && w->server &&
	    SEND(w->server, st_changed, .mailbox = mailbox, .modseq = modseq))
		printf("# hint not sent\n");
}

static inline void fake_queued(void *arg)
{
	(void)arg;
}

static inline void fake_view_changed(void *arg, struct imap_view *v)
{
	(void)arg;
	imap_session_view_changed(v);
}

static inline void fake_ended(void *arg, struct imap_session *s)
{
	struct world *w = arg;

	for (size_t i = 0; i < FAKE_CLIENTS_MAX; i++)
		if (w->sessions[i] == s)
			w->sessions[i] = NULL;
	imap_session_free(s);
	w->ended++;
}

static inline void fake_bound(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	(void)reply;
	((struct world *)arg)->is_bound = !err;
}

static inline void fake_store_open(struct world *w)
{
	struct store_options options = { .dir = w->dir,
					 .path = w->path,
					 .hooks = { w, fake_hint, fake_queued },
					 .segment_size = 4 * 1024 * 1024,
					 .min_free = 1 };

	if (store_prepare(&options) || store_open(&options, &w->store) ||
	    store_bind(w->store, 1, S("a@example.test"), 0, fake_bound, w) ||
	    store_settle(w->store) || !w->is_bound)
		panic("fake store");
}

static inline void fake_account_new(struct world *w)
{
	static const struct chan_ops server_ops = { fake_message, fake_down };
	static const struct chan_ops client_ops = { fake_account_message, fake_down };
	struct imap_config config = { .message_size_limit = 300000, .idle_ns = SECONDS(60) };
	int pair[2];

	if (os_socketpair(true, pair) ||
	    chan_new(w->loop, ROLE_STORE, ROLE_SESSION, 0, &server_ops, w, &w->server) ||
	    chan_new(w->loop, ROLE_SESSION, ROLE_STORE, 0, &client_ops, w, &w->client) ||
	    chan_attach(w->server, pair[0]) || chan_attach(w->client, pair[1]) ||
	    imap_account_new(w->loop, w->client, &w->log, 1, &config, &w->account))
		panic("fake account");
	w->account->on_change = fake_view_changed;
}

static inline void fake_account_free(struct world *w)
{
	for (size_t i = 0; i < FAKE_CLIENTS_MAX; i++) {
		conn_free(w->clients[i]);
		imap_session_free(w->sessions[i]);
		w->clients[i] = NULL;
		w->sessions[i] = NULL;
	}
	chan_free(w->client);
	chan_free(w->server);
	w->server = NULL;
	imap_account_free(w->account);
}

/* A logged-in client. */
static inline void fake_connect(struct world *w, unsigned n)
{
	struct addr peer = { 0 };
	struct conn *conn;
	int pair[2];

	if (os_socketpair(false, pair) || conn_new(w->loop, pair[0], &peer, &w->clients[n]) ||
	    conn_new(w->loop, pair[1], &peer, &conn) ||
	    imap_session_new(w->account, conn, fake_ended, w, &w->sessions[n]))
		panic("fake connect");
	imap_session_start(w->sessions[n], STR_EMPTY);
}

/* Reads until a line begins with `until`; literals are part of it. Everything is in w->got. False
 * at the end. */
static inline bool fake_read_until(struct world *w, unsigned n, const char *until)
{
	enum err err;
	str line, bytes;

	conn_set_deadline(w->clients[n], loop_now(w->loop) + SECONDS(FAKE_SECONDS));
	for (;;) {
		uint64_t size;
		size_t open;

		if ((err = conn_read_line(w->clients[n], 60000, &line))) {
			printf("# client %u: %s\n", n, err_name(err));
			return false;
		}
		buf_add(&w->got, line);
		buf_add(&w->got, S("\n"));
		if (str_starts(line, str_from_c(until)))
			return true;
		if (!str_ends(line, S("}")) || (open = str_rfind_char(line, '{')) == STR_NONE ||
		    str_to_u64(str_sub(line, open + 1, line.n - open - 2), 10000000, &size))
			continue;
		while (size) {
			if (conn_read_some(w->clients[n], (size_t)size, &bytes))
				return false;
			buf_add(&w->got, bytes);
			size -= bytes.n;
		}
	}
}

static inline void fake_write(struct world *w, unsigned n, str bytes)
{
	conn_write(w->clients[n], bytes);
	if (conn_flush(w->clients[n]))
		printf("# client %u cannot write\n", n);
}

/* Sends a command and reads to its tagged answer; what came is returned, lines ended by LF. */
static inline str talk(struct world *w, unsigned n, const char *command)
{
	char tag[32];
	size_t i = 0;

	buf_clear(&w->got);
	fake_write(w, n, str_from_c(command));
	fake_write(w, n, S("\r\n"));
	while (command[i] && command[i] != ' ' && i < sizeof(tag) - 2) {
		tag[i] = command[i];
		i++;
	}
	tag[i] = ' ';
	tag[i + 1] = 0;
	fake_read_until(w, n, tag);
	return buf_str(&w->got);
}

static inline void fake_story(void *arg)
{
	struct world *w = arg;

	w->story(w);
	loop_stop(w->loop);
}

static inline void fake_run(void (*story)(struct world *w))
{
	struct world *w = calloc(1, sizeof(*w));

	w->story = story;
	log_init(&w->log, LOG_TO_STDERR, LOG_LEVEL_WARN, "test");
	buf_init(&w->got, 64 * 1024 * 1024);
	store_reply_init(&w->reply);
	snprintf(w->path, sizeof(w->path), "/tmp/posthorn-imap-test.%d.%llx", os_pid(),
		 (unsigned long long)os_random_u64());
	if (os_mkdir(-1, w->path, 0700) || os_open(-1, w->path, OS_READ | OS_DIRECTORY, &w->dir) ||
	    loop_new(&w->loop))
		panic("fake_run");
	fake_store_open(w);
	fake_account_new(w);
	if (fiber_spawn(w->loop, fake_story, w) || loop_run(w->loop))
		panic("fake_run");
	fake_account_free(w);
	loop_unpost(w->loop, &w->flush);
	loop_free(w->loop);
	store_close(w->store);
	store_reply_free(&w->reply);
	os_close(w->dir);
	buf_free(&w->got);
	remove_tree(w->path);
	free(w);
}

#endif
