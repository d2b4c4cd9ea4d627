/* The client against a server that follows a script, over a socket pair: every phase answering
 * well, with 4yz, with 5yz, with rubbish; with and without PIPELINING; LMTP; and cut off after
 * every byte that the server sends. */
#include "base/log.h"
#include "base/tap.h"
#include "net/tls.h"
#include "smtp/client.h"
#include "store/types.h"

#include <stdlib.h>

/* What the server says: to the beginning of each command, in order; NULL: the standard answer. */
struct script {
	const char *greeting, *ehlo, *helo, *starttls, *mail, *rcpt[3], *data, *end, *rset;
	bool is_lmtp;
	long cut;	       /* closes after so many bytes less one; 0: never */
	unsigned transactions; /* 0: one */
};

struct fake {
	const struct script *s;
	struct conn *conn;
	struct buf heard, body;
	long sent;
	unsigned rcpts, accepted;
	bool is_cut;
};

struct run {
	struct loop *loop;
	struct fake fake;
	struct conn *client_end;
	struct smtp_client_config config;
	struct smtp_client_message message;
	struct smtp_client_rcpt rcpts[3];
	size_t count;
	str text; /* the message */
	size_t read;
	bool cannot_read;
	enum smtp_open open;
	struct smtp_result why;
	bool was_good, broke_early;
};

#define EHLO_ALL                                                  \
	"250-mx.example.net hello\r\n250-PIPELINING\r\n250-SIZE " \
	"1000\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"
#define EHLO_PLAIN "250 mx.example.net\r\n"

/* False: the connection is cut. */
static bool say(struct fake *f, const char *text)
{
	str s = str_from_c(text);

	if (f->s->cut && f->sent + (long)s.n >= f->s->cut) {
		s = str_head(s, (size_t)(f->s->cut - 1 - f->sent));
		f->is_cut = true;
	}
	f->sent += (long)s.n;
	conn_write(f->conn, s);
	return conn_flush(f->conn) == ERR_OK && !f->is_cut;
}

static bool say_or(struct fake *f, const char *text, const char *standard)
{
	return say(f, text ? text : standard);
}

/* Reads the message up to its dot and answers it; with LMTP for each recipient. */
static bool take_body(struct fake *f)
{
	str line;

	for (;;) {
		if (conn_read_line(f->conn, 4000, &line))
			return false;
		if (str_eq(line, S(".")))
			break;
		buf_add(&f->body, line);
		buf_add(&f->body, S("\r\n"));
	}
	for (unsigned i = 0; i < (f->s->is_lmtp ? f->accepted : 1); i++)
		if (!say_or(f, f->s->is_lmtp && i ? "450 4.2.0 not this one\r\n" : f->s->end,
			    "250 2.0.0 Ok: queued\r\n"))
			return false;
	return true;
}

static bool answer(struct fake *f, str line)
{
	const struct script *s = f->s;
	const char *text;

	if (str_starts(line, S("EHLO ")) || str_starts(line, S("LHLO ")))
		return say_or(f, s->ehlo, EHLO_ALL);
	if (str_starts(line, S("HELO ")))
		return say_or(f, s->helo, "250 mx.example.net\r\n");
	if (str_eq(line, S("STARTTLS")))
		return say_or(f, s->starttls, "454 4.7.0 not now\r\n");
	if (str_starts(line, S("MAIL "))) {
		f->rcpts = f->accepted = 0;
		return say_or(f, s->mail, "250 2.1.0 Ok\r\n");
	}
	if (str_starts(line, S("RCPT "))) {
		text = f->rcpts < 3 ? s->rcpt[f->rcpts] : NULL;
		f->rcpts++;
		f->accepted += !text || text[0] == '2';
		return say_or(f, text, "250 2.1.5 Ok\r\n");
	}
	if (str_eq(line, S("DATA")))
		return say_or(f, s->data, "354 go on\r\n") &&
		       ((s->data && s->data[0] != '3') || take_body(f));
	if (str_eq(line, S("RSET")))
		return say_or(f, s->rset, "250 2.0.0 Ok\r\n");
	if (str_eq(line, S("QUIT"))) {
		say(f, "221 2.0.0 Bye\r\n");
		return false;
	}
	return say(f, "500 5.5.2 what\r\n");
}

static void serve(void *arg)
{
	struct fake *f = arg;
	str line;

	if (say_or(f, f->s->greeting, "220 mx.example.net ESMTP\r\n")) {
		while (!conn_read_line(f->conn, 4000, &line)) {
			buf_add(&f->heard, line);
			buf_add(&f->heard, S("\n"));
			if (!answer(f, line))
				break;
		}
	}
	conn_free(f->conn);
}

static enum err read_message(void *arg, char *to, size_t max, size_t *n)
{
	struct run *r = arg;
	str rest = str_head(str_from(r->text, r->read), MIN(max, (size_t)7));

	if (r->cannot_read && r->read)
		return ERR_DAMAGED;
	memcpy(to, rest.n ? rest.p : "", rest.n);
	r->read += rest.n;
	*n = rest.n;
	return ERR_OK;
}

static void deliver(void *arg)
{
	struct run *r = arg;
	struct smtp_client *c = NULL;

	r->open = smtp_client_open(r->client_end, &r->config, &c, &r->why);
	if (r->open)
		return;
	for (unsigned i = 0; i < MAX(1u, r->fake.s->transactions); i++) {
		r->read = 0;
		smtp_client_send(c, &r->message, r->rcpts, r->count);
	}
	r->was_good = smtp_client_is_good(c);
	r->broke_early = smtp_client_broke_early(c);
	smtp_client_close(c);
}

static void begin(struct run *r, const struct script *s)
{
	*r = (struct run){ .count = 2, .text = S("Subject: x\r\n\r\n.dot\r\nend\r\n") };
	r->fake.s = s;
	r->message = (struct smtp_client_message){ .sender = S("a@example.org"),
						   .size = r->text.n,
						   .read = read_message };
	r->rcpts[0].address = S("b@example.net");
	r->rcpts[1].address = S("c@example.net");
	r->rcpts[2].address = S("d@example.net");
	r->config = (struct smtp_client_config){
		.hostname = S("me.example.org"),
		.server = S("mx.example.net[192.0.2.1]:25"),
		.is_lmtp = s->is_lmtp,
		.finds_loops = true,
		.times = smtp_client_times(SECONDS(20)),
	};
	buf_init(&r->fake.heard, 65536);
	buf_init(&r->fake.body, 65536);
}

static void go(struct run *r)
{
	const struct addr nobody = { 0 };
	int fd[2];

	r->message.arg = r;
	if (loop_new(&r->loop) || os_socketpair(false, fd) ||
	    conn_new(r->loop, fd[0], &nobody, &r->client_end) ||
	    conn_new(r->loop, fd[1], &nobody, &r->fake.conn) ||
	    fiber_spawn(r->loop, serve, &r->fake) || fiber_spawn(r->loop, deliver, r) ||
	    loop_run(r->loop))
		OK(!"the set-up failed");
	loop_free(r->loop);
}

static void done(struct run *r)
{
	buf_free(&r->fake.heard);
	buf_free(&r->fake.body);
}

static void result_is(const struct smtp_result *r, uint8_t state, const char *status,
		      const char *text)
{
	EQ(r->state, state);
	STR_EQ(smtp_result_status(r), str_from_c(status));
	if (!OK(str_starts(smtp_result_text(r), str_from_c(text))))
		tap_str("got", smtp_result_text(r));
}

static void test_plain_and_pipelined(void)
{
	static const struct script scripts[] = { { .cut = 0 },
						 { .ehlo = EHLO_PLAIN },
						 { .ehlo = "502 no\r\n" } };

	tap_group("delivered");
	for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
		struct run r;

		begin(&r, &scripts[i]);
		go(&r);
		EQ(r.open, SMTP_OPEN_OK);
		result_is(&r.rcpts[0].result, QUEUE_SENT, "2.0.0", "250 2.0.0 Ok: queued");
		result_is(&r.rcpts[1].result, QUEUE_SENT, "2.0.0", "250 2.0.0 Ok: queued");
		EQ(r.rcpts[0].result.dsn_passed, i == 0);
		OK(r.was_good);
		STR_EQ(buf_str(&r.fake.body), S("Subject: x\r\n\r\n..dot\r\nend\r\n"));
		OK(str_find(buf_str(&r.fake.heard),
			    i ? S("\nMAIL FROM:<a@example.org>\nRCPT TO:<b@example.net>\n"
				  "RCPT TO:<c@example.net>\nDATA\nQUIT\n")
			      : S("EHLO me.example.org\nMAIL FROM:<a@example.org> SIZE=25\n"
				  "RCPT TO:<b@example.net>\nRCPT "
				  "TO:<c@example.net>\nDATA\nQUIT\n")) != STR_NONE);
		done(&r);
	}
}

static void test_parameters(void)
{
	static const struct script s = { .cut = 0 };
	struct run r;

	tap_group("parameters");
	begin(&r, &s);
	r.message.sender = STR_EMPTY;
	r.message.body_type = 1;
	r.message.needs_utf8 = true;
	r.message.ret = 2;
	r.message.envid = S("QQ+3D1");
	r.rcpts[0].notify = 2 | 4;
	r.rcpts[0].orcpt = S("rfc822;b+2Bc@example.net");
	r.rcpts[1].notify = 1;
	go(&r);
	OK(str_find(buf_str(&r.fake.heard),
		    S("MAIL FROM:<> SIZE=25 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+3D1\n"
		      "RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE "
		      "ORCPT=rfc822;b+2Bc@example.net\n"
		      "RCPT TO:<c@example.net> NOTIFY=NEVER\n")) != STR_NONE);
	done(&r);
}

static void test_opening(void)
{
	static const struct {
		struct script s;
		enum smtp_open open;
		uint8_t state;
		const char *status, *text;
	} cases[] = {
		{ { .greeting = "421 4.3.2 busy\r\n" },
		  SMTP_OPEN_NEXT,
		  QUEUE_DEFERRED,
		  "4.3.2",
		  "421 4.3.2 busy" },
		{ { .greeting = "554 5.7.1 go away\r\n" },
		  SMTP_OPEN_NEXT,
		  QUEUE_DEFERRED,
		  "4.7.1",
		  "554 5.7.1 go" },
		{ { .greeting = "521 no mail\r\n" },
		  SMTP_OPEN_FAILED,
		  QUEUE_FAILED,
		  "5.0.0",
		  "521 no mail" },
		{ { .greeting = "hello\r\n" },
		  SMTP_OPEN_NEXT,
		  QUEUE_DEFERRED,
		  "4.5.0",
		  "what mx.example.net[192.0.2.1]:25 sent" },
		{ { .cut = 1 }, SMTP_OPEN_NEXT, QUEUE_DEFERRED, "4.4.2", "the connection with" },
		{ { .ehlo = "450 4.0.0 later\r\n" },
		  SMTP_OPEN_NEXT,
		  QUEUE_DEFERRED,
		  "4.0.0",
		  "450 4.0.0 later" },
		{ { .ehlo = "500 no\r\n", .helo = "550 5.7.1 bad name\r\n" },
		  SMTP_OPEN_NEXT,
		  QUEUE_DEFERRED,
		  "4.7.1",
		  "550" },
		{ { .ehlo = "250-ME.example.org\r\n250 DSN\r\n" },
		  SMTP_OPEN_FAILED,
		  QUEUE_FAILED,
		  "5.4.6",
		  "the mail loops" },
		{ { .ehlo = "354 go on\r\n" }, SMTP_OPEN_NEXT, QUEUE_DEFERRED, "4.5.0", "what" },
	};

	tap_group("opening");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct run r;

		begin(&r, &cases[i].s);
		go(&r);
		EQ(r.open, cases[i].open);
		if (cases[i].open == SMTP_OPEN_FAILED && cases[i].s.greeting)
			result_is(&r.why, cases[i].state, "5.1.10", cases[i].text);
		else
			result_is(&r.why, cases[i].state, cases[i].status, cases[i].text);
		done(&r);
	}
}

static void test_tls(void)
{
	static const struct script refuses = { .ehlo = "250-mx.example.net\r\n250 STARTTLS\r\n" };
	static const struct script breaks = {
		.ehlo = "250-mx.example.net\r\n250 STARTTLS\r\n",
		.starttls = "220 go\r\n250 this is no TLS, and long enough\r\n"
	};
	static const struct script lacks = { .cut = 0 };
	struct run r;
	struct log log;
	struct loop *loop;

	tap_group("TLS");
	log_init(&log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "test");
	begin(&r, &refuses);
	if (loop_new(&loop) || tls_client_new(loop, &log, STR_EMPTY, &r.config.tls_context))
		OK(!"no TLS");
	{
		struct tls_context *t = r.config.tls_context;

		r.config.tls = SMTP_TLS_MAY;
		go(&r);
		EQ(r.open, SMTP_OPEN_OK);
		EQ(r.rcpts[0].result.state, QUEUE_SENT);
		done(&r);
		begin(&r, &refuses);
		r.config.tls = SMTP_TLS_ENCRYPT;
		r.config.tls_context = t;
		go(&r);
		EQ(r.open, SMTP_OPEN_NEXT);
		result_is(&r.why, QUEUE_DEFERRED, "4.7.4", "TLS is required, and");
		done(&r);
		begin(&r, &lacks);
		r.config.tls = SMTP_TLS_ENCRYPT;
		r.config.tls_context = t;
		go(&r);
		EQ(r.open, SMTP_OPEN_NEXT);
		OK(str_find(buf_str(&r.fake.heard), S("MAIL")) == STR_NONE);
		done(&r);
		begin(&r, &breaks);
		r.config.tls = SMTP_TLS_MAY;
		r.config.tls_context = t;
		go(&r);
		EQ(r.open, SMTP_OPEN_NO_TLS);
		OK(str_find(buf_str(&r.fake.heard), S("MAIL")) == STR_NONE);
		done(&r);
		tls_free(t);
	}
	loop_free(loop);
}

/* Each phase, each class of answer, both ways of talking. */
static void test_refusals(void)
{
	static const struct {
		struct script s;
		uint8_t state0, state1;
		const char *status0, *text0;
	} cases[] = {
		{ { .mail = "450 4.7.1 wait\r\n" },
		  QUEUE_DEFERRED,
		  QUEUE_DEFERRED,
		  "4.7.1",
		  "450 4.7.1 wait" },
		{ { .mail = "550 5.7.1 no\r\n" },
		  QUEUE_FAILED,
		  QUEUE_FAILED,
		  "5.7.1",
		  "550 5.7.1 no" },
		{ { .mail = "421 4.3.2 bye\r\n" },
		  QUEUE_DEFERRED,
		  QUEUE_DEFERRED,
		  "4.3.2",
		  "421 4.3.2 bye" },
		{ { .mail = "354 what\r\n" }, QUEUE_DEFERRED, QUEUE_DEFERRED, "4.5.0", "what" },
		{ { .mail = "rubbish\r\n" }, QUEUE_DEFERRED, QUEUE_DEFERRED, "4.5.0", "what" },
		{ { .rcpt = { "550 5.1.1 who\r\n" } },
		  QUEUE_FAILED,
		  QUEUE_SENT,
		  "5.1.1",
		  "550 5.1.1 who" },
		{ { .rcpt = { "450-4.2.1 a\r\n450 4.2.1 b\r\n" } },
		  QUEUE_DEFERRED,
		  QUEUE_SENT,
		  "4.2.1",
		  "450 4.2.1 a b" },
		{ { .rcpt = { "552 5.5.3 too many\r\n" } },
		  QUEUE_DEFERRED,
		  QUEUE_SENT,
		  "4.5.3",
		  "552" },
		{ { .rcpt = { "550 no\r\n", "450 no\r\n" } },
		  QUEUE_FAILED,
		  QUEUE_DEFERRED,
		  "5.0.0",
		  "550 no" },
		{ { .rcpt = { "250 ok\r\n", "421 4.3.2 bye\r\n" } },
		  QUEUE_DEFERRED,
		  QUEUE_DEFERRED,
		  "4.4.2",
		  "the connection" },
		{ { .data = "451 4.3.0 later\r\n" },
		  QUEUE_DEFERRED,
		  QUEUE_DEFERRED,
		  "4.3.0",
		  "451" },
		{ { .data = "554 5.5.1 no\r\n" }, QUEUE_FAILED, QUEUE_FAILED, "5.5.1", "554" },
		{ { .data = "250 what\r\n" }, QUEUE_DEFERRED, QUEUE_DEFERRED, "4.5.0", "what" },
		{ { .end = "451 4.3.0 full\r\n" },
		  QUEUE_DEFERRED,
		  QUEUE_DEFERRED,
		  "4.3.0",
		  "451 4.3.0 full" },
		{ { .end = "550 5.7.1 spam\r\n" },
		  QUEUE_FAILED,
		  QUEUE_FAILED,
		  "5.7.1",
		  "550 5.7.1 spam" },
		{ { .end = "354 more\r\n" }, QUEUE_DEFERRED, QUEUE_DEFERRED, "4.5.0", "what" },
	};

	tap_group("refusals");
	for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
		struct script s = cases[i / 2].s;
		struct run r;

		s.ehlo = i % 2 ? EHLO_PLAIN : EHLO_ALL;
		begin(&r, &s);
		go(&r);
		result_is(&r.rcpts[0].result, cases[i / 2].state0, cases[i / 2].status0,
			  cases[i / 2].text0);
		EQ(r.rcpts[1].result.state, cases[i / 2].state1);
		/* Nothing but what was to be sent reached it. */
		if (r.rcpts[0].result.state == QUEUE_SENT || r.rcpts[1].result.state == QUEUE_SENT)
			OK(buf_len(&r.fake.body) > 0);
		if (cases[i / 2].s.rcpt[1] || cases[i / 2].s.mail)
			EQ(buf_len(&r.fake.body), 0);
		done(&r);
	}
}

static void test_not_sent(void)
{
	static const struct script all = { .cut = 0 }, plain = { .ehlo = EHLO_PLAIN };
	struct run r;

	tap_group("not tried");
	for (uint64_t size = 999; size <= 1001; size++) {
		begin(&r, &all);
		r.message.size = size;
		go(&r);
		EQ(r.rcpts[0].result.state, size > 1000 ? QUEUE_FAILED : QUEUE_SENT);
		if (size > 1000)
			result_is(&r.rcpts[0].result, QUEUE_FAILED, "5.3.4",
				  "the message has 1001 bytes");
		done(&r);
	}
	begin(&r, &plain);
	r.message.needs_utf8 = true;
	go(&r);
	result_is(&r.rcpts[0].result, QUEUE_FAILED, "5.6.7", "the message needs SMTPUTF8");
	done(&r);
	begin(&r, &plain);
	r.rcpts[1].address = S("x>\r\nRCPT TO:<evil@example.net");
	go(&r);
	result_is(&r.rcpts[0].result, QUEUE_FAILED, "5.1.3", "an address");
	OK(str_find(buf_str(&r.fake.heard), S("evil")) == STR_NONE);
	done(&r);
	/* A message that cannot be read is never ended. */
	begin(&r, &all);
	r.cannot_read = true;
	go(&r);
	result_is(&r.rcpts[0].result, QUEUE_DEFERRED, "4.3.0", "the stored message");
	OK(!r.was_good);
	done(&r);
}

static void test_reuse(void)
{
	static const struct script refuses = { .rcpt = { "550 no\r\n", "550 no\r\n" },
					       .transactions = 2 };
	static const struct script twice = { .transactions = 2 };
	static const struct script bye = { .mail = "421 4.4.2 idle\r\n" };
	struct run r;

	tap_group("several transactions");
	begin(&r, &twice);
	go(&r);
	EQ(r.rcpts[0].result.state, QUEUE_SENT);
	OK(str_find(buf_str(&r.fake.heard), S("RSET")) == STR_NONE);
	EQ(buf_len(&r.fake.body), 2 * 26);
	done(&r);
	begin(&r, &refuses);
	go(&r);
	OK(str_find(buf_str(&r.fake.heard), S("DATA\nRSET\nMAIL")) != STR_NONE);
	OK(r.was_good);
	done(&r);
	begin(&r, &bye);
	go(&r);
	OK(r.broke_early);
	OK(!r.was_good);
	done(&r);
}

static void test_lmtp(void)
{
	static const struct script s = { .is_lmtp = true,
					 .rcpt = { NULL, "550 5.1.1 no\r\n", NULL } };
	struct run r;

	tap_group("LMTP");
	begin(&r, &s);
	r.count = 3;
	go(&r);
	EQ(r.rcpts[0].result.state, QUEUE_SENT);
	EQ(r.rcpts[1].result.state, QUEUE_FAILED);
	result_is(&r.rcpts[2].result, QUEUE_DEFERRED, "4.2.0", "450 4.2.0 not this one");
	OK(str_starts(buf_str(&r.fake.heard), S("LHLO me.example.org\n")));
	OK(r.was_good);
	done(&r);
}

/* Cut after every byte: nobody is failed for it, and nobody is called sent before the last answer
 * was there whole. */
static void test_cut(void)
{
	static const char *const ehlos[] = { EHLO_ALL, EHLO_PLAIN };

	tap_group("cut off");
	for (size_t e = 0; e < ARRAY_LEN(ehlos); e++) {
		struct script s = { .ehlo = ehlos[e] };
		struct run r;
		unsigned maybe = 0, wrong = 0;
		long whole;

		begin(&r, &s);
		go(&r);
		whole = r.fake.sent - (long)strlen("221 2.0.0 Bye\r\n");
		done(&r);
		for (s.cut = 1; s.cut <= whole + 1; s.cut++) {
			const struct smtp_result *result;

			begin(&r, &s);
			go(&r);
			result = r.open ? &r.why : &r.rcpts[0].result;
			wrong += result->state != (s.cut <= whole ? QUEUE_DEFERRED : QUEUE_SENT);
			maybe += result->may_have_arrived;
			done(&r);
		}
		EQ(wrong, 0);
		/* Exactly while the last answer was being sent. */
		EQ(maybe, strlen("250 2.0.0 Ok: queued\r\n"));
	}
}

int main(void)
{
	test_plain_and_pipelined();
	test_parameters();
	test_opening();
	test_tls();
	test_refusals();
	test_not_sent();
	test_reuse();
	test_lmtp();
	test_cut();
	return tap_done();
}
