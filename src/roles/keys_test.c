/* Role keys, its hooks called as the frame calls them: files, requests over a real channel,
 * reloads. */
#include "net/tls_test_util.h"
#include "roles/role.h"

enum { HELLO_MAX = 200 };

struct test {
	struct role role;
	struct chan *here, *there; /* keys' end, the front's */
	struct fiber *fiber;
	struct arena *arena;
	int changed;
	bool done;
};

/* The frame's part: one front and no out. */
unsigned role_peers(struct role *r, enum role_kind kind)
{
	return r->priv && kind == ROLE_FRONT ? 1 : 0;
}

struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index)
{
	struct test *t = CONTAINER_OF(r, struct test, role);

	return kind == ROLE_FRONT && index == 0 ? t->here : NULL;
}

static void keys_message(void *arg, struct chan *c, struct msg *m)
{
	struct test *t = arg;

	role_keys_ops.message(&t->role, c, m);
}

static void front_message(void *arg, struct chan *c, struct msg *m)
{
	struct test *t = arg;

	(void)c;
	EQ(m->type, MSG_keys_changed);
	t->changed++;
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	(void)why;
}

static void hand_over(struct test *t, str name, str contents)
{
	int fd = -1;

	EQ(os_memfd(contents, true, &fd), ERR_OK);
	EQ(role_keys_ops.file(&t->role, name, S("/etc/posthorn/tls.pem"), fd), ERR_OK);
}

static void hand_over_pem(struct test *t, const struct test_pem *p, str suffix)
{
	char name[64];

	snprintf(name, sizeof(name), "tls_cert%.*s", STR_ARGS(suffix));
	hand_over(t, str_from_c(name), buf_str(&p->certificate));
	snprintf(name, sizeof(name), "tls_key%.*s", STR_ARGS(suffix));
	hand_over(t, str_from_c(name), buf_str(&p->key));
}

static int64_t soon(struct test *t)
{
	return loop_now(t->role.loop) + SECONDS(10);
}

static size_t chains(struct test *t, uint32_t *version)
{
	struct msg_keys_chains_reply reply;
	struct rec_keys_chain chain;
	size_t n = 0;
	str rest;

	arena_reset(t->arena);
	EQ(CALL(t->there, keys_chains, keys_chains_reply, &reply, t->arena, soon(t)), ERR_OK);
	*version = reply.version;
	rest = reply.chains;
	while (!rec_keys_chain_get(&rest, &chain)) {
		EQ(chain.key, n);
		n++;
	}
	return n;
}

static str handshake_text(char room[HELLO_MAX])
{
	static const char context[] = "TLS 1.3, server CertificateVerify";

	memset(room, ' ', 64);
	memcpy(room + 64, context, sizeof(context));
	memset(room + 64 + sizeof(context), 'h', 32);
	return str_of(room, 64 + sizeof(context) + 32);
}

static enum err sign(struct test *t, uint32_t version, unsigned key, str text)
{
	struct msg_keys_signature reply;
	enum err err;

	err = CALL(t->there, keys_sign, keys_signature, &reply, t->arena, soon(t),
		   .version = version, .key = (uint16_t)key, .digest = S("SHA256"), .text = text);
	if (!err)
		OK(reply.signature.n > 60 && reply.signature.n <= 72);
	return err;
}

static void body(struct test *t)
{
	struct test_pem a = test_pem_new("P-256", "a.test", 90),
			b = test_pem_new("P-256", "b.test", 2);
	char room[HELLO_MAX];
	str text = handshake_text(room);
	uint32_t first, version;

	tap_group("requests");
	EQ(chains(t, &first), 1);
	EQ(sign(t, first, 0, text), ERR_OK);
	EQ(sign(t, first, 0, S("sign my evil certificate")), ERR_DENIED);
	EQ(sign(t, first, 0, str_head(text, text.n - 1)), ERR_DENIED);
	EQ(sign(t, first, 1, text), ERR_NOT_FOUND);
	EQ(sign(t, first + 1, 0, text), ERR_STALE);
	EQ(sign(t, first - 1, 0, text), ERR_STALE);

	tap_group("a reload that is wrong keeps the old key");
	hand_over(t, S("tls_cert"), buf_str(&b.certificate));
	hand_over(t, S("tls_key"), buf_str(&a.key));
	role_keys_ops.reload(&t->role);
	EQ(chains(t, &version), 1);
	EQ(version, first);
	hand_over(t, S("tls_cert"), buf_str(&b.certificate)); /* its key is missing */
	role_keys_ops.reload(&t->role);
	hand_over(t, S("tls_cert"), S(""));
	hand_over(t, S("tls_key"), buf_str(&b.key));
	role_keys_ops.reload(&t->role);
	hand_over_pem(t, &b, S("")); /* one good pair and one bad one: all or nothing */
	hand_over(t, S("tls_cert.2"), S("rubbish"));
	hand_over(t, S("tls_key.2"), S("rubbish"));
	role_keys_ops.reload(&t->role);
	EQ(chains(t, &version), 1);
	EQ(version, first);
	EQ(t->changed, 0);
	EQ(sign(t, first, 0, text), ERR_OK);

	tap_group("a good one");
	hand_over_pem(t, &b, S(""));
	hand_over_pem(t, &a, S(".2"));
	role_keys_ops.reload(&t->role);
	EQ(chains(t, &version), 2);
	EQ(version, first + 1);
	EQ(t->changed, 1);
	EQ(sign(t, version, 0, text), ERR_OK);
	EQ(sign(t, version, 1, text), ERR_OK);
	/* Handshakes under way may end; one change later they may not. */
	EQ(sign(t, first, 0, text), ERR_OK);
	hand_over_pem(t, &a, S(""));
	role_keys_ops.reload(&t->role);
	EQ(sign(t, first, 0, text), ERR_STALE);
	EQ(sign(t, version, 1, text), ERR_OK);

	tap_group("none");
	role_keys_ops.reload(&t->role); /* no files any more: TLS was switched off */
	EQ(chains(t, &version), 0);
	EQ(sign(t, version, 0, text), ERR_NOT_FOUND);
	test_pem_free(&a);
	test_pem_free(&b);
}

static void fiber_main(void *arg)
{
	struct test *t = arg;

	body(t);
	t->done = true;
	loop_stop(t->role.loop);
}

int main(void)
{
	static const struct chan_ops keys_ops = { .on_message = keys_message, .on_down = on_down };
	static const struct chan_ops front_ops = { .on_message = front_message,
						   .on_down = on_down };
	struct test_pem a = test_pem_new("P-256", "a.test", 90);
	struct test t = { .role = { .ops = &role_keys_ops, .kind = ROLE_KEYS } };
	struct buf status;
	int fd[2];

	tap_group("start");
	log_init(&t.role.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "keys.0");
	t.role.log.fd = -1;
	t.role.priv = (struct role_private *)&t;
	t.arena = arena_new(128 * 1024);
	EQ(loop_new(&t.role.loop), ERR_OK);
	EQ(role_keys_ops.init(&t.role), ERR_OK);
	/* A bad pair at the start is an error: nobody wants a server without the TLS he asked for.
	 */
	hand_over(&t, S("tls_cert"), buf_str(&a.certificate));
	hand_over(&t, S("tls_key"), S("rubbish"));
	EQ(role_keys_ops.prepare(&t.role), ERR_CONFIG);
	hand_over_pem(&t, &a, S(""));
	EQ(role_keys_ops.prepare(&t.role), ERR_OK);
	EQ(chan_new(t.role.loop, ROLE_KEYS, ROLE_FRONT, 0, &keys_ops, &t, &t.here), ERR_OK);
	EQ(chan_new(t.role.loop, ROLE_FRONT, ROLE_KEYS, 0, &front_ops, &t, &t.there), ERR_OK);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.here, fd[0]), ERR_OK);
	EQ(chan_attach(t.there, fd[1]), ERR_OK);
	EQ(fiber_spawn(t.role.loop, fiber_main, &t), ERR_OK);
	EQ(loop_run(t.role.loop), ERR_OK);
	OK(t.done);
	buf_init(&status, 1000);
	role_keys_ops.status(&t.role, &status);
	OK(str_starts(buf_str(&status), S("\"keys\":0,")));
	buf_free(&status);
	role_keys_ops.stop(&t.role, 0);
	chan_free(t.here);
	chan_free(t.there);
	loop_free(t.role.loop);
	arena_free(t.arena);
	test_pem_free(&a);
	return tap_done();
}
