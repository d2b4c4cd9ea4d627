/* A role auth with fake peers, in one process: its hooks are called as the frame calls them, over
 * real channels; fronts, queue, store, zygote, admin and a lookup worker are played by the test.
 * Stories run on a fiber. */
#ifndef ROLES_AUTH_FAKE_H
#define ROLES_AUTH_FAKE_H

#include "base/loop_priv.h"
#include "base/os.h"
#include "base/tap.h"
#include "roles/auth_priv.h"

#include <stdlib.h>
#include <unistd.h>

enum { FRONT0, FRONT1, QUEUE, STORE, SESSION, LOOKUP, ADMIN, LINKS };
enum { WORLDS_MAX = 16, PATIENCE_SECONDS = 30 };

/* A channel between auth (here) and a peer (there). */
struct link {
	struct world *world;
	enum role_kind kind;
	unsigned index, instance;
	struct chan *here, *there;
};

struct world {
	struct role role;
	struct auth_role *auth;
	struct link links[LINKS];
	struct arena *arena, *confs[8];
	unsigned confs_n;
	char folder[32];
	bool is_done;
	unsigned count; /* of message ids */
	/* What the peers heard. */
	int mechanisms[2]; /* per front: -1 nothing, else the flag */
	unsigned grants_ended[8];
	unsigned envelopes, rcpts, opened, binds, usages;
	struct msg_store_bind bind;
	struct msg_session_open open;
	char sender[64], recipients[4096];
	uint64_t submitter, quota;
	/* How they behave. */
	bool lookup_waits; /* the worker does not answer */
	uint32_t waiting_id;
	unsigned jobs;
	enum err store_says;
};

static struct world
	*worlds[WORLDS_MAX]; /* the role has no end but its process's: they stay reachable */
static unsigned worlds_n;

static struct world *world_of(struct role *r)
{
	return CONTAINER_OF(r, struct world, role);
}

/* ---- the frame's part ---- */

struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (world_of(r)->links[i].kind == kind && world_of(r)->links[i].index == index)
			return world_of(r)->links[i].here;
	return NULL;
}

unsigned role_peers(struct role *r, enum role_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LINKS; i++)
		n += world_of(r)->links[i].kind == kind;
	return n;
}

unsigned role_peer_instance(struct role *r, const struct chan *peer)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (world_of(r)->links[i].here == peer)
			return world_of(r)->links[i].instance;
	return 0;
}

static void here_message(void *arg, struct chan *c, struct msg *m)
{
	struct link *l = arg;

	role_auth_ops.message(&l->world->role, c, m);
}

static void here_down(void *arg, struct chan *c, enum err why)
{
	struct link *l = arg;

	EQ(why, ERR_CLOSED);
	role_auth_ops.peer_down(&l->world->role, c);
}

/* ---- the peers ---- */

static void store_hears_envelope(struct world *w, const struct msg_txn_envelope *m)
{
	w->envelopes++;
	w->submitter = m->submitter;
	snprintf(w->sender, sizeof(w->sender), "%.*s", STR_ARGS(m->sender));
	w->recipients[0] = 0;
	if (m->code)
		snprintf(w->recipients, sizeof(w->recipients), "%u %.*s %.*s", m->code,
			 STR_ARGS(m->status), STR_ARGS(m->text));
}

static void store_hears_rcpts(struct world *w, str rcpts)
{
	struct rec_txn_rcpt r;
	size_t n;

	while (!rec_txn_rcpt_get(&rcpts, &r)) {
		n = strlen(w->recipients);
		w->rcpts++;
		w->quota = r.quota;
		if (n < sizeof(w->recipients) - 600)
			snprintf(w->recipients + n, sizeof(w->recipients) - n, "%s%u:%llu:%.*s",
				 n ? " " : "", r.number, (unsigned long long)r.account,
				 STR_ARGS(r.address));
	}
}

static void there_message(void *arg, struct chan *c, struct msg *m)
{
	struct link *l = arg;
	struct world *w = l->world;

	switch ((unsigned)m->type) {
	case MSG_auth_mechanisms:
		w->mechanisms[l->index] = m->u.auth_mechanisms.scram;
		break;
	case MSG_auth_changed:
		w->grants_ended[l->index]++;
		break;
	case MSG_txn_envelope:
		store_hears_envelope(w, &m->u.txn_envelope);
		store_hears_rcpts(w, m->u.txn_envelope.rcpts);
		break;
	case MSG_txn_rcpts:
		store_hears_rcpts(w, m->u.txn_rcpts.rcpts);
		break;
	case MSG_store_bind:
		w->binds++;
		w->bind = m->u.store_bind;
		EQ(w->store_says ? REPLY_FAILED(c, m->id, w->store_says, STR_EMPTY)
				 : REPLY(c, m->id, done),
		   ERR_OK);
		break;
	case MSG_account_usage:
		w->usages++;
		EQ(REPLY(c, m->id, account_usage_reply, .used = 17), ERR_OK);
		break;
	case MSG_account_quota:
		EQ(REPLY(c, m->id, done), ERR_OK);
		break;
	case MSG_session_open:
		w->opened++;
		w->open = m->u.session_open;
		break;
	case MSG_lookup_password:
	case MSG_lookup_hash:
		w->jobs++;
		w->waiting_id = m->id;
		if (!w->lookup_waits)
			role_lookup_ops.message(&w->role, c, m);
		break;
	default:
		printf("# unexpected: %s\n", msg_name(m->type));
		OK(!"a message that this peer expects");
	}
}

static void there_down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c, (void)why;
}

static void must(enum err err)
{
	if (err)
		panic("cannot set up: %s", err_name(err));
}

static void link_attach(struct link *l)
{
	static const struct chan_ops here = { here_message, here_down },
				     there = { there_message, there_down };
	struct loop *loop = l->world->role.loop;
	int fd[2];

	must(os_socketpair(true, fd));
	if (!l->here)
		must(chan_new(loop, ROLE_AUTH, l->kind, l->index, &here, l, &l->here));
	must(chan_new(loop, l->kind, ROLE_AUTH, 0, &there, l, &l->there));
	must(chan_attach(l->here, fd[0]));
	must(chan_attach(l->there, fd[1]));
}

/* The process at the other end dies; auth has seen it when this returns. */
static void link_kill(struct link *l)
{
	chan_free(l->there);
	l->there = NULL;
	while (chan_is_up(l->here))
		fiber_yield(l->world->role.loop);
}

static void link_revive(struct link *l)
{
	link_attach(l);
	role_auth_ops.peer_up(&l->world->role, l->here);
}

/* ---- the world ---- */

static void conf_set(struct world *w, const char *more)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "myhostname = mail.example.test\nmyorigin = example.test\npassword_scheme = "
		 "SHA512-CRYPT\n%s",
		 more);
	w->confs[w->confs_n] = arena_new(CONF_ARENA_SIZE);
	must(conf_parse(str_from_c(text), S("posthorn.conf"), w->confs[w->confs_n++], NULL,
			&w->role.conf));
}

static void role_begin(struct world *w)
{
	int folder;

	snprintf(w->folder, sizeof(w->folder), "/tmp/auth-test-XXXXXX");
	if (!mkdtemp(w->folder))
		panic("mkdtemp");
	must(os_open(-1, w->folder, OS_READ | OS_DIRECTORY, &folder));
	must(role_auth_ops.init(&w->role));
	must(role_auth_ops.file(&w->role, S("directory"), str_from_c(w->folder), folder));
	EQ(role_auth_ops.file(&w->role, S("another"), S("/"), os_dup(folder)), ERR_UNSUPPORTED);
	must(role_auth_ops.prepare(&w->role));
	w->auth = w->role.state;
	must(directory_domain_add(w->auth->directory, S("example.test")));
	must(directory_domain_add(w->auth->directory, S("all.test")));
	must(role_auth_ops.start(&w->role));
}

static void world_end(struct world *w)
{
	static const char *const names[] = { "directory.db", "directory.db-wal",
					     "directory.db-shm" };
	char path[64];

	directory_close(w->auth->directory);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", w->folder, names[i]);
		unlink(path);
	}
	rmdir(w->folder);
	arena_free(w->arena);
	while (w->confs_n)
		arena_free(w->confs[--w->confs_n]);
}

struct story {
	struct world *world;
	void (*tell)(struct world *w);
};

static void story_fiber(void *arg)
{
	struct story *s = arg;

	s->tell(s->world);
	s->world->is_done = true;
	loop_stop(s->world->role.loop);
}

static void world_run(const char *name, const char *conf, void (*tell)(struct world *w))
{
	static const struct link links[LINKS] = {
		[FRONT0] = { .kind = ROLE_FRONT, .instance = 5 },
		[FRONT1] = { .kind = ROLE_FRONT, .index = 1, .instance = 6 },
		[QUEUE] = { .kind = ROLE_QUEUE, .instance = 7 },
		[STORE] = { .kind = ROLE_STORE, .instance = 2 },
		[SESSION] = { .kind = ROLE_SESSION, .instance = 4 },
		[LOOKUP] = { .kind = ROLE_LOOKUP, .instance = 3 },
		[ADMIN] = { .kind = ROLE_ADMIN, .instance = 1 },
	};
	struct world *w = worlds[worlds_n++] = calloc(1, sizeof(*w));
	struct story story = { w, tell };

	tap_group(name);
	w->role = (struct role){ .ops = &role_auth_ops, .kind = ROLE_AUTH };
	w->mechanisms[0] = w->mechanisms[1] = -1;
	w->arena = arena_new(8 << 20);
	log_init(&w->role.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "auth.0");
	conf_set(w, conf);
	must(loop_new(&w->role.loop));
	memcpy(w->links, links, sizeof(links));
	for (unsigned i = 0; i < LINKS; i++) {
		w->links[i].world = w;
		link_attach(&w->links[i]);
	}
	role_begin(w);
	must(fiber_spawn(w->role.loop, story_fiber, &story));
	must(loop_run(w->role.loop));
	OK(w->is_done);
	world_end(w);
}

/* ---- words for the stories ---- */

static int64_t patience(struct world *w)
{
	return loop_now(w->role.loop) + SECONDS(PATIENCE_SECONDS);
}

static uint64_t account(struct world *w, const char *address, const char *hash)
{
	struct password_record record = { .hash = str_from_c(hash) };
	uint64_t id;

	must(directory_account_add(w->auth->directory, str_from_c(address), &record, 0, 1, &id));
	return id;
}

static UNUSED void alias(struct world *w, const char *address, const char *target)
{
	must(directory_alias_add(w->auth->directory, str_from_c(address), str_from_c(target)));
}

/* A message id as this peer makes them. */
static UNUSED uint64_t txn_of(struct world *w, unsigned link)
{
	struct msgid_source source = { .instance = w->links[link].instance };

	return msgid_next(&source, (int64_t)++w->count * 1000000);
}

static struct msg_auth_verdict last_verdict;

static UNUSED unsigned mail_begin(struct world *w, unsigned link, struct msg_auth_mail m)
{
	m.service = m.service.n ? m.service : S("smtp");
	m.client = m.client.n ? m.client : S("192.0.2.9:1000");
	must(chan_call(w->links[link].there, MSG_auth_mail, &m, MSG_auth_verdict, &last_verdict,
		       w->arena, patience(w)));
	return last_verdict.code;
}
#define MAIL(w, link, ...) mail_begin((w), (link), (struct msg_auth_mail){ __VA_ARGS__ })

static UNUSED unsigned rcpt_notify(struct world *w, unsigned link, uint64_t txn,
				   const char *address, uint8_t notify)
{
	must(CALL(w->links[link].there, auth_rcpt, auth_verdict, &last_verdict, w->arena,
		  patience(w), .txn = txn, .address = str_from_c(address), .notify = notify));
	return last_verdict.code;
}

static UNUSED unsigned rcpt(struct world *w, unsigned link, uint64_t txn, const char *address)
{
	return rcpt_notify(w, link, txn, address, 0);
}

/* "0:1:alice@example.test" or "550 5.1.1 no": what the store was told after `before` others; ""
 * when it was told nothing. */
static const char *told(struct world *w, unsigned link, unsigned before)
{
	unsigned usages = w->usages;
	struct msg_command_output out;

	/* A question of this peer is behind it; and one that auth passes on to the store behind
	 * what it sent there. */
	(void)rcpt(w, link, 0, "x");
	EQ(CALL(w->links[ADMIN].there, command, command_output, &out, w->arena, patience(w),
		.args = S("user\0quota\0alice@example.test")),
	   ERR_OK);
	EQ(w->usages, usages + 1);
	return w->envelopes > before ? w->recipients : "";
}

static UNUSED const char *commit(struct world *w, unsigned link, uint64_t txn, str ends)
{
	unsigned before = w->envelopes;

	w->rcpts = 0;
	EQ(SEND(w->links[link].there, auth_commit, .txn = txn, .ends = ends), ERR_OK);
	return told(w, link, before);
}

/* Sender, recipient and the end of data in one. */
static UNUSED const char *mail_commit(struct world *w, unsigned link, struct msg_auth_mail m)
{
	unsigned before = w->envelopes;

	w->rcpts = 0;
	m.commit = true;
	EQ(chan_send(w->links[link].there, MSG_auth_mail, 0, &m), ERR_OK);
	return told(w, link, before);
}

static UNUSED unsigned run_command(struct world *w, str args, const char *input)
{
	struct msg_command_output out;

	EQ(CALL(w->links[ADMIN].there, command, command_output, &out, w->arena, patience(w),
		.args = args, .input = str_from_c(input)),
	   ERR_OK);
	return out.exit;
}

static struct msg_auth_sasl_reply last_login;

/* AUTH PLAIN; the state that comes of it. */
static UNUSED unsigned login(struct world *w, unsigned link, uint64_t conn, const char *service,
			     const char *client, const char *name, const char *password)
{
	char initial[256];
	int n = snprintf(initial, sizeof(initial), "%c%s%c%s", 0, name, 0, password);

	EQ(CALL(w->links[link].there, auth_sasl, auth_sasl_reply, &last_login, w->arena,
		patience(w), .conn = conn, .service = str_from_c(service),
		.client = str_from_c(client), .mechanism = S("PLAIN"), .has_initial = true,
		.initial = str_of(initial, (size_t)n)),
	   ERR_OK);
	return last_login.state;
}

static UNUSED enum err bind_session(struct world *w, const uint8_t ticket[16], uint64_t id,
				    bool again)
{
	struct msg_session_bind m = { .account = id, .again = again };
	struct msg_done done;

	memcpy(m.ticket, ticket, sizeof(m.ticket));
	return chan_call(w->links[SESSION].there, MSG_session_bind, &m, MSG_done, &done, w->arena,
			 patience(w));
}

#endif
