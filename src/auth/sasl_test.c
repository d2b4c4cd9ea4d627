/* SASL: each mechanism with a client of our own, and everything that must be refused. */
#include "auth/password.h"
#include "auth/sasl.h"
#include "auth/scram.h"

#include "base/tap.h"
#include "text/base64.h"

#include <openssl/evp.h>

static const struct sasl_secrets secrets = { .nonce = { 1, 2, 3 }, .fake = { 4, 5, 6 } };

struct exchange {
	struct sasl *s;
	struct buf reply;
	enum sasl_next next;
};

static void begin(struct exchange *x, enum sasl_mechanism m)
{
	*x = (struct exchange){ .s = sasl_new(m, &secrets), .next = SASL_DONE };
	buf_init(&x->reply, 4096);
}

static void end(struct exchange *x)
{
	sasl_free(x->s);
	buf_free(&x->reply);
}

static enum err start(struct exchange *x, enum sasl_mechanism m, str initial)
{
	begin(x, m);
	return sasl_start(x->s, initial, &x->reply, &x->next);
}

static enum err input(struct exchange *x, str message)
{
	return sasl_input(x->s, message, &x->reply, &x->next);
}

static void plain_gives(str message, str name, str password)
{
	struct exchange x;

	EQ(start(&x, SASL_PLAIN, message), ERR_OK);
	EQ(x.next, SASL_VERIFY);
	STR_EQ(sasl_name(x.s), name);
	STR_EQ(sasl_password(x.s), password);
	EQ(input(&x, message), ERR_SYNTAX); /* it is over */
	end(&x);
}

static void fails(enum sasl_mechanism m, str message, enum err err)
{
	struct exchange x;

	if (!EQ(start(&x, m, message), err))
		tap_str("for", message);
	EQ(x.next, SASL_DONE);
	EQ(buf_len(&x.reply), 0);
	EQ(input(&x, S("\0a\0b")), ERR_SYNTAX);
	end(&x);
}

static void plain(void)
{
	char big[1024] = { 0 };
	struct exchange x;

	tap_group("PLAIN");
	plain_gives(S("\0alice@example.test\0secret"), S("alice@example.test"), S("secret"));
	plain_gives(S("alice\0alice\0s"), S("alice"), S("s"));
	plain_gives(S("ALICE\0alice\0s"), S("alice"), S("s"));
	plain_gives(S("\0j\u00F6rg\0\xE9"), S("j\u00F6rg"), S("\xE9"));
	fails(SASL_PLAIN, S("bob\0alice\0s"), ERR_DENIED);
	fails(SASL_PLAIN, S(""), ERR_SYNTAX);
	fails(SASL_PLAIN, S("alice"), ERR_SYNTAX);
	fails(SASL_PLAIN, S("\0alice"), ERR_SYNTAX);
	fails(SASL_PLAIN, S("\0alice\0"), ERR_SYNTAX);
	fails(SASL_PLAIN, S("\0\0secret"), ERR_SYNTAX);
	fails(SASL_PLAIN, S("\0alice\0sec\0ret"), ERR_SYNTAX);
	fails(SASL_PLAIN, S("\0\xff\0s"), ERR_SYNTAX);

	/* Without an initial response: an empty challenge. */
	EQ(start(&x, SASL_PLAIN, STR_EMPTY), ERR_OK);
	EQ(x.next, SASL_CHALLENGE);
	EQ(buf_len(&x.reply), 0);
	EQ(input(&x, S("\0a\0b")), ERR_OK);
	EQ(x.next, SASL_VERIFY);
	end(&x);

	tap_group("sizes");
	memset(big, 'n', sizeof(big));
	big[0] = big[1 + SASL_NAME_MAX] = '\0';
	EQ(start(&x, SASL_PLAIN, str_of(big, 2 + SASL_NAME_MAX + PASSWORD_MAX)), ERR_OK);
	EQ(sasl_name(x.s).n, SASL_NAME_MAX);
	EQ(sasl_password(x.s).n, PASSWORD_MAX);
	end(&x);
	fails(SASL_PLAIN, str_of(big, 2 + SASL_NAME_MAX + PASSWORD_MAX + 1), ERR_TOO_LONG);
	big[1 + SASL_NAME_MAX] = 'n';
	big[2 + SASL_NAME_MAX] = '\0';
	fails(SASL_PLAIN, str_of(big, 300), ERR_TOO_LONG);
}

static void login(void)
{
	struct exchange x;

	tap_group("LOGIN");
	EQ(start(&x, SASL_LOGIN, STR_EMPTY), ERR_OK);
	STR_EQ(buf_str(&x.reply), S("Username:"));
	EQ(input(&x, S("alice")), ERR_OK);
	EQ(x.next, SASL_CHALLENGE);
	STR_EQ(buf_str(&x.reply), S("Password:"));
	EQ(input(&x, S("secret")), ERR_OK);
	EQ(x.next, SASL_VERIFY);
	STR_EQ(sasl_name(x.s), S("alice"));
	STR_EQ(sasl_password(x.s), S("secret"));
	end(&x);

	EQ(start(&x, SASL_LOGIN, S("alice")), ERR_OK);
	STR_EQ(buf_str(&x.reply), S("Password:"));
	EQ(input(&x, S("")), ERR_SYNTAX);
	EQ(input(&x, S("secret")), ERR_SYNTAX);
	end(&x);
	fails(SASL_LOGIN, S(""), ERR_SYNTAX);
	fails(SASL_LOGIN, S("a\0b"), ERR_SYNTAX);
}

static str b64(struct arena *a, const void *p, size_t n)
{
	struct buf b;
	str out;

	buf_init(&b, 4096);
	base64_encode(str_of(p, n), 0, &b);
	out = arena_str(a, buf_str(&b));
	buf_free(&b);
	return out;
}

/* ClientKey XOR ClientSignature, with nothing of scram.c but HMAC. */
static str proof_of(struct arena *a, str password, str salt, int iterations, str message)
{
	uint8_t salted[32], key[32], stored[32], signature[32];

	OK(PKCS5_PBKDF2_HMAC(password.p, (int)password.n, (const uint8_t *)salt.p, (int)salt.n,
			     iterations, EVP_sha256(), 32, salted));
	EQ(hmac_sha256(str_of(salted, 32), S("Client Key"), key), ERR_OK);
	OK(EVP_Digest(key, 32, stored, NULL, EVP_sha256(), NULL));
	EQ(hmac_sha256(str_of(stored, 32), message, signature), ERR_OK);
	for (int i = 0; i < 32; i++)
		key[i] ^= signature[i];
	return b64(a, key, 32);
}

struct client {
	str gs2, bare, name; /* name: as the engine gives it */
	str password, stored;
	enum err err; /* at the end */
};

/* A whole exchange as a client sees it; returns server-first in the arena. */
static str scram(struct arena *a, const struct client *c)
{
	str first = arena_printf(a, "%.*s%.*s", STR_ARGS(c->gs2), STR_ARGS(c->bare)), server, rest,
	    nonce, salt, without;
	struct exchange x;
	struct buf raw;
	uint64_t i = 0;

	buf_init(&raw, 256);
	EQ(start(&x, SASL_SCRAM_SHA_256, first), ERR_OK);
	EQ(x.next, SASL_LOOKUP);
	STR_EQ(sasl_name(x.s), c->name);
	EQ(sasl_stored(x.s, c->stored, &x.reply, &x.next), ERR_OK);
	EQ(x.next, SASL_CHALLENGE);
	server = arena_str(a, buf_str(&x.reply));
	rest = server;
	nonce = str_from(str_cut(&rest, ','), 2);
	salt = str_from(str_cut(&rest, ','), 2);
	EQ(base64_decode(salt, &raw), ERR_OK);
	EQ(str_to_u64(str_from(rest, 2), 1u << 30, &i), ERR_OK);
	without = arena_printf(a, "c=%.*s,r=%.*s", STR_ARGS(b64(a, c->gs2.p, c->gs2.n)),
			       STR_ARGS(nonce));
	rest = arena_printf(a, "%.*s,%.*s,%.*s", STR_ARGS(c->bare), STR_ARGS(server),
			    STR_ARGS(without));
	rest = arena_printf(a, "%.*s,p=%.*s", STR_ARGS(without),
			    STR_ARGS(proof_of(a, c->password, buf_str(&raw), (int)i, rest)));
	EQ(input(&x, rest), c->err);
	EQ(x.next, c->err ? SASL_DONE : SASL_CHALLENGE);
	OK(str_starts(buf_str(&x.reply), c->err ? S("") : S("v=")));
	if (!c->err) {
		EQ(input(&x, S("")), ERR_OK);
		EQ(x.next, SASL_DONE);
	}
	EQ(input(&x, S("")), ERR_SYNTAX);
	buf_free(&raw);
	end(&x);
	return server;
}

static str salt_of(str server)
{
	str_cut(&server, ',');
	return str_cut(&server, ',');
}

static void scram_right(struct arena *a, str stored)
{
	struct client c = { S("n,,"), S("n=user,r=abc"), S("user"), S("pencil"), stored, ERR_OK };
	str one;

	tap_group("SCRAM");
	one = scram(a, &c);
	OK(str_starts(one, S("r=abcAQID"))); /* both nonces */
	c.gs2 = S("y,,");
	scram(a, &c);
	c.gs2 = S("n,a=user,");
	scram(a, &c);
	c.gs2 = S("n,,");
	c.bare = S("n=a=2Cb=3D\u00ADc,r=abc,x=ignored");
	c.name = S("a,b=c");
	scram(a, &c);
	c.stored = S("{PLAIN}pencil");
	scram(a, &c);
	c.password = S("pencils");
	c.err = ERR_AUTH;
	scram(a, &c);
	c.stored = stored;
	scram(a, &c);
}

/* Unknown names, and accounts whose hash is of no use: messages of the same form, always the same
 * salt. */
static void scram_unknown(struct arena *a, str stored)
{
	struct client c = { S("n,,"),	 S("n=ghost,r=abc"), S("ghost"),
			    S("pencil"), STR_EMPTY,	     ERR_AUTH };
	static const str useless[] = {
		S("{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		S("{SCRAM-SHA-256}0,c2FsdA==,AAAA,AAAA"),
		S("{SCRAM-SHA-256}"),
		S("nonsense"),
		S("{PLAIN}\x07"),
	};
	str fake, real;

	tap_group("SCRAM, unknown");
	fake = scram(a, &c);
	for (size_t i = 0; i < ARRAY_LEN(useless); i++) {
		c.stored = useless[i];
		STR_EQ(scram(a, &c), fake);
	}
	c.stored = STR_EMPTY;
	c.bare = S("n=GHOST,r=abc");
	c.name = S("GHOST");
	STR_EQ(scram(a, &c), fake);
	c.bare = S("n=other,r=abc");
	c.name = S("other");
	OK(!str_eq(salt_of(scram(a, &c)), salt_of(fake)));
	c = (struct client){ S("n,,"), S("n=user,r=abc"), S("user"), S("wrong"), stored, ERR_AUTH };
	real = scram(a, &c);
	EQ(real.n, fake.n);
	STR_EQ(str_from(real, str_rfind_char(real, ',')),
	       str_from(fake, str_rfind_char(fake, ',')));
}

static void scram_first_refused(void)
{
	tap_group("SCRAM, client-first refused");
	fails(SASL_SCRAM_SHA_256, S(""), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("p=tls-unique,,n=user,r=abc"), ERR_UNSUPPORTED);
	fails(SASL_SCRAM_SHA_256, S("x,,n=user,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,n=user,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,a=,n=user,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,a=root,n=user,r=abc"), ERR_DENIED);
	fails(SASL_SCRAM_SHA_256, S("n,,m=x,n=user,r=abc"), ERR_UNSUPPORTED);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=abc,m=x"), ERR_UNSUPPORTED);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=abc,"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=abc,xy"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=abc,x=y,"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=\u00AD,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=us=er,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=us=2cer,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=us\0er,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=\xff,r=abc"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r="), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=a c"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,n=user,r=a\u00E9"), ERR_SYNTAX);
	fails(SASL_SCRAM_SHA_256, S("n,,r=abc,n=user"), ERR_SYNTAX);
}

static void final_refused(str stored, str final, enum err err)
{
	struct exchange x;

	EQ(start(&x, SASL_SCRAM_SHA_256, S("n,,n=user,r=abc")), ERR_OK);
	EQ(sasl_stored(x.s, stored, &x.reply, &x.next), ERR_OK);
	if (!EQ(input(&x, final), err))
		tap_str("for", final);
	EQ(x.next, SASL_DONE);
	end(&x);
}

#define NONCE "r=abcAQIDAAAAAAAAAAAAAAAAAAAA"
#define ZEROS "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void scram_final_refused(str stored)
{
	tap_group("SCRAM, client-final refused");
	final_refused(stored, S("c=biws," NONCE ",p=" ZEROS), ERR_AUTH); /* well-formed */
	final_refused(stored, S("c=biws," NONCE ",x=y,p=" ZEROS), ERR_AUTH);
	final_refused(stored, S("c=eSws," NONCE ",p=" ZEROS),
		      ERR_SYNTAX); /* "y,,": not what was said */
	final_refused(stored, S("c=biw=," NONCE ",p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S("c=biws,r=abc,p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S("c=biws," NONCE "A,p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S("c=biws," NONCE ",m=x,p=" ZEROS), ERR_UNSUPPORTED);
	final_refused(stored, S("c=biws," NONCE ",,p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S("c=biws," NONCE ",p=AAAA"), ERR_SYNTAX);
	final_refused(stored, S("c=biws," NONCE ",p="), ERR_SYNTAX);
	final_refused(stored, S("c=biws," NONCE), ERR_SYNTAX);
	final_refused(stored, S(NONCE ",c=biws,p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S(",p=" ZEROS), ERR_SYNTAX);
	final_refused(stored, S(""), ERR_SYNTAX);
}

static void test_text(void)
{
	struct arena *a = arena_new(64 * 1024);
	struct buf b;
	str out;

	tap_group("text");
	EQ(sasl_text_decode(S("AGEAYg=="), true, a, &out), ERR_OK);
	STR_EQ(out, S("\0a\0b"));
	EQ(sasl_text_decode(S("="), true, a, &out), ERR_OK);
	EQ(out.n, 0);
	EQ(sasl_text_decode(S("="), false, a, &out), ERR_SYNTAX);
	EQ(sasl_text_decode(S(""), false, a, &out), ERR_OK);
	EQ(out.n, 0);
	EQ(sasl_text_decode(S("a b"), true, a, &out), ERR_SYNTAX);
	buf_init(&b, 2 * SASL_WIRE_MAX);
	for (size_t i = 0; i < SASL_WIRE_MAX / 3; i++)
		buf_add(&b, S("AAAA"));
	EQ(sasl_text_decode(buf_str(&b), false, a, &out), ERR_OK);
	EQ(out.n, SASL_WIRE_MAX);
	buf_add(&b, S("AA=="));
	OK(sasl_text_decode(buf_str(&b), false, a, &out) != ERR_OK);
	buf_free(&b);
	arena_free(a);
}

int main(void)
{
	test_text();
	struct arena *a = arena_new(4 << 20);
	static const uint8_t random[PASSWORD_RANDOM_SIZE] = { 9 };
	struct password_record record;
	enum sasl_mechanism m;

	EQ(password_make(PASSWORD_ARGON2ID, S("pencil"), random, a, &record), ERR_OK);
	plain();
	login();
	scram_right(a, record.scram);
	scram_unknown(a, record.scram);
	scram_first_refused();
	scram_final_refused(record.scram);
	tap_group("names");
	EQ(sasl_mechanism_find(S("scram-sha-256"), &m), ERR_OK);
	EQ(m, SASL_SCRAM_SHA_256);
	EQ(sasl_mechanism_find(S("CRAM-MD5"), &m), ERR_UNSUPPORTED);
	STR_EQ(sasl_mechanism_name(SASL_PLAIN), S("PLAIN"));
	arena_free(a);
	return tap_done();
}
