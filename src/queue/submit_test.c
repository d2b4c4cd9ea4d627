/* A submission with auth, filter and store played by this test: who is asked what, whose "no" ends
 * it and how, and who is told to forget it. */
#include "queue/submit.h"

#include "base/os.h"
#include "base/tap.h"

#include <stdlib.h>

enum { AUTH, FILTER, STORE, PEERS };

/* What the peers answer: codes; or one dies instead. */
struct script {
	uint16_t mail, rcpt, body, body_rcpt;
	bool filter_is_down, auth_dies, store_dies;
};

struct world {
	struct loop *loop;
	const struct script *script;
	struct chan *ours[PEERS], *theirs[PEERS];
	struct submit submit;
	struct submit_result result;
	struct arena *arena;
	enum err err;
	char text[128];
	/* What they heard. */
	struct buf heard, body, ends;
	uint16_t notify;
	uint32_t rcpts;
	unsigned left; /* peers that are to be told to forget it */
};

static void must(enum err err)
{
	if (err)
		panic("%s", err_text(err));
}

static void word(struct world *w, const char *s)
{
	buf_add(&w->heard, str_from_c(s));
}

/* Inline or in a sealed memfd, as it is sent. */
static void body_take(struct world *w, str inline_body, int fd)
{
	uint64_t size;
	char *p;

	buf_clear(&w->body);
	buf_add(&w->body, inline_body);
	if (fd < 0)
		return;
	must(os_memfd_check(fd, &size));
	p = malloc(size);
	must(os_pread_all(fd, p, size, 0));
	buf_add(&w->body, str_of(p, size));
	free(p);
}

static void forgotten(struct world *w)
{
	if (!--w->left)
		loop_stop(w->loop);
}

static void peer_dies(struct world *w, unsigned peer)
{
	chan_free(w->theirs[peer]);
	w->theirs[peer] = NULL;
}

static void auth_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	if (m->type == MSG_auth_mail) {
		word(w, "mail ");
		EQ(m->u.auth_mail.sender.n, 0);
		STR_EQ(m->u.auth_mail.service, S("queue"));
		EQ(m->u.auth_mail.txn, 77);
		if (w->script->auth_dies)
			peer_dies(w, AUTH);
		else
			must(REPLY(c, m->id, auth_verdict, .code = w->script->mail,
				   .text = S("mail says")));
	} else if (m->type == MSG_auth_rcpt) {
		word(w, "rcpt ");
		EQ(m->u.auth_rcpt.txn, 77);
		w->notify = m->u.auth_rcpt.notify;
		must(REPLY(c, m->id, auth_verdict, .code = w->script->rcpt,
			   .text = S("rcpt says")));
	} else if (m->type == MSG_auth_commit) {
		word(w, "commit ");
		EQ(m->u.auth_commit.txn, 77);
		buf_add(&w->ends, m->u.auth_commit.ends);
	} else if (m->type == MSG_auth_reset) {
		word(w, "reset ");
		EQ(m->u.auth_reset.txn, 77);
		forgotten(w);
	}
}

static void filter_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	(void)c;
	EQ(m->type, MSG_filter_check);
	body_take(w, m->u.filter_check.inline_body, m->u.filter_check.body);
	STR_EQ(buf_str(&w->body), w->submit.message);
}

static void store_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;
	struct buf rcpts;

	if (m->type == MSG_txn_cancel) {
		forgotten(w);
		return;
	}
	EQ(m->type, MSG_txn_body);
	EQ(m->u.txn_body.txn, 77);
	body_take(w, m->u.txn_body.inline_body, m->u.txn_body.body);
	STR_EQ(buf_str(&w->body), w->submit.message);
	w->rcpts = m->u.txn_body.rcpts;
	buf_init(&rcpts, 1024);
	if (w->script->body_rcpt) {
		const struct rec_txn_result r = { .code = w->script->body_rcpt,
						  .text = S("its recipient says") };

		rec_txn_result_put(&rcpts, &r);
	}
	if (w->script->store_dies)
		peer_dies(w, STORE);
	else
		must(REPLY(c, m->id, txn_reply, .txn = 77, .code = w->script->body,
			   .text = S("store says"), .rcpts = buf_str(&rcpts)));
	buf_free(&rcpts);
}

static void no_message(void *arg, struct chan *c, struct msg *m)
{
	(void)arg, (void)c, (void)m;
	OK(!"nobody asks the queue");
}

static void down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c;
	if (why == ERR_PROTOCOL)
		OK(!"a channel was cut off");
}

static void submit_fiber(void *arg)
{
	struct world *w = arg;

	w->err = submit_message(&w->submit, w->arena, &w->result);
	/* Whoever can still be told is told to forget it otherwise. */
	if (!w->err)
		loop_stop(w->loop);
}

static void begin(struct world *w, const struct script *script, str message)
{
	static const enum role_kind kinds[PEERS] = { ROLE_AUTH, ROLE_FILTER, ROLE_STORE };
	static const struct chan_ops our_ops = { no_message, down };
	static const struct chan_ops their_ops[PEERS] = { { auth_message, down },
							  { filter_message, down },
							  { store_message, down } };

	*w = (struct world){ .script = script,
			     .left = script->auth_dies || script->store_dies ? 1 : 2 };
	must(loop_new(&w->loop));
	w->arena = arena_new(4 * 1024 * 1024);
	buf_init(&w->heard, 1024);
	buf_init(&w->body, 1024 * 1024);
	buf_init(&w->ends, 1024);
	for (unsigned i = 0; i < PEERS; i++) {
		int fd[2];

		must(chan_new(w->loop, ROLE_QUEUE, kinds[i], 0, &our_ops, w, &w->ours[i]));
		must(chan_new(w->loop, kinds[i], ROLE_QUEUE, 0, &their_ops[i], w, &w->theirs[i]));
		if (i == FILTER && script->filter_is_down)
			continue;
		must(os_socketpair(true, fd));
		must(chan_attach(w->ours[i], fd[0]));
		must(chan_attach(w->theirs[i], fd[1]));
	}
	w->submit = (struct submit){
		.loop = w->loop,
		.auth = w->ours[AUTH],
		.filter = w->ours[FILTER],
		.store = w->ours[STORE],
		.txn = 77,
		.hostname = S("mx.example.org"),
		.rcpt = S("a@example.org"),
		.message = message,
		.ends = S("ends"),
	};
}

static void go(struct world *w, const struct script *script, str message)
{
	begin(w, script, message);
	must(fiber_spawn(w->loop, submit_fiber, w));
	must(loop_run(w->loop));
	snprintf(w->text, sizeof(w->text), "%u %.*s", w->result.code, STR_ARGS(w->result.text));
	for (unsigned i = 0; i < PEERS; i++) {
		if (w->theirs[i])
			chan_free(w->theirs[i]);
		chan_free(w->ours[i]);
	}
	arena_free(w->arena);
	loop_free(w->loop);
}

static void done(struct world *w)
{
	buf_free(&w->heard);
	buf_free(&w->body);
	buf_free(&w->ends);
}

static void test_committed(void)
{
	static const struct script good = { .mail = 250, .rcpt = 250, .body = 250 };
	size_t size = MSG_INLINE_MAX + 1;
	char *large = malloc(size);
	struct world w;

	memset(large, 'x', size);
	for (size_t n = size - 2; n <= size; n++) {
		tap_group(n > MSG_INLINE_MAX ? "committed, in a memfd" : "committed, inline");
		go(&w, &good, str_of(large, n));
		EQ(w.err, ERR_OK);
		EQ(w.result.code, 250);
		STR_EQ(buf_str(&w.heard), S("mail rcpt commit "));
		STR_EQ(buf_str(&w.ends), S("ends"));
		/* RFC 3464 2: NEVER. */
		EQ(w.notify, 1);
		EQ(w.rcpts, 1);
		EQ(w.left, 2);
		done(&w);
	}
	free(large);
}

static void test_refused(void)
{
	static const struct {
		struct script s;
		enum err err;
		const char *text, *heard;
	} cases[] = {
		{ { .mail = 550 }, ERR_DENIED, "550 mail says", "mail reset " },
		{ { .mail = 451 }, ERR_TEMPORARY, "451 mail says", "mail reset " },
		{ { .mail = 250, .rcpt = 550 }, ERR_DENIED, "550 rcpt says", "mail rcpt reset " },
		{ { .mail = 250, .rcpt = 450 },
		  ERR_TEMPORARY,
		  "450 rcpt says",
		  "mail rcpt reset " },
		{ { .mail = 250, .rcpt = 250, .body = 554 },
		  ERR_DENIED,
		  "554 store says",
		  "mail rcpt commit reset " },
		{ { .mail = 250, .rcpt = 250, .body = 250, .body_rcpt = 452 },
		  ERR_TEMPORARY,
		  "452 its recipient says",
		  "mail rcpt commit reset " },
		{ { .auth_dies = true }, ERR_TEMPORARY, "451 auth does not answer", "mail " },
		{ { .mail = 250, .rcpt = 250, .store_dies = true },
		  ERR_TEMPORARY,
		  "451 store does not answer",
		  "mail rcpt commit reset " },
		{ { .mail = 250, .rcpt = 250, .filter_is_down = true },
		  ERR_TEMPORARY,
		  "451 filter or auth is not there",
		  "mail rcpt reset " },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct world w;

		tap_group(cases[i].text);
		go(&w, &cases[i].s, S("Subject: x\r\n\r\n"));
		EQ(w.err, cases[i].err);
		STR_EQ(str_from_c(w.text), str_from_c(cases[i].text));
		STR_EQ(buf_str(&w.heard), str_from_c(cases[i].heard));
		EQ(w.left, 0);
		done(&w);
	}
}

int main(void)
{
	test_committed();
	test_refused();
	return tap_done();
}
