/* Sessions, from the client's side and from that of auth, filter and store. */
#include "smtp/session_fake.h"

static void hello(struct world *w, enum smtp_service service)
{
	world_connect(w, service);
	HEAR(w, "220 mx.example.test ");
	EQ(world_ask(w, service == SMTP_SERVICE_LMTP ? "LHLO client.example\r\n"
						     : "EHLO client.example\r\n"),
	   250);
}

/* One after the other, as in RFC 5321 D.1. */
static void story_mail(struct world *w)
{
	str body;

	hello(w, SMTP_SERVICE_SMTP);
	world_say(w, "MAIL FROM:<Smith@bar.example> ENVID=x+2By\r\n");
	HEAR(w, "250 2.1.0 Ok");
	world_say(w, "RCPT TO:<Jones@foo.example>\r\n");
	HEAR(w, "250 2.1.5 Ok");
	world_say(w, "RCPT TO:<bad@foo.example>\r\n");
	HEAR(w, "550 5.1.1 No such user");
	world_say(w, "DATA\r\n");
	HEAR(w, "354 ");
	world_say(w, "Subject: x\r\n\r\n..dot\r\n.\r\n");
	HEAR(w, "250 2.0.0 Ok: queued as ");
	STR_EQ(str_from_c(w->sender), S("Smith@bar.example"));
	STR_EQ(str_from_c(w->rcpt), S("Jones@foo.example"));
	STR_EQ(str_from_c(w->envid), S("x+2By"));
	EQ(w->checks, 1);
	EQ(w->commits, 1);
	EQ(w->bodies, 1);
	EQ(w->body_rcpts, 1);
	OK(!w->body_was_fd);
	body = buf_str(&w->body);
	OK(str_starts(body, S("Received: from client.example ([192.0.2.1])\r\n\tby mx.example.test "
			      "with ESMTP\r\n\tid ")));
	OK(str_find(body, S(" for <Jones@foo.example>;\r\n\t")) != STR_NONE);
	OK(str_ends(body, S("\r\nSubject: x\r\n\r\n.dot\r\n")));
	EQ(w->resets, 0);
	world_say(w, "QUIT\r\n");
	HEAR(w, "221 2.0.0 ");
	OK(world_is_closed(w));
	EQ(w->server.accepted, 1);
}

static void story_pipelined(struct world *w)
{
	world_connect(w, SMTP_SERVICE_SMTP);
	world_say(w, "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nRCPT "
		     "TO:<bad@y.example>\r\nDATA\r\n");
	EQ(world_reply(w), 220);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 550);
	EQ(world_reply(w), 354);
	world_say(w, "a: b\r\n\r\n.\r\nMAIL FROM:<>\r\nRCPT "
		     "TO:<x@y.example>\r\nRSET\r\nNOOP\r\nQUIT\r\n");
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 221);
	OK(world_is_closed(w));
	EQ(w->bodies, 1);
	EQ(w->resets, 1);
	STR_EQ(str_from_c(w->sender), S(""));
}

static void story_sequences(struct world *w)
{
	world_connect(w, SMTP_SERVICE_SMTP);
	EQ(world_reply(w), 220);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 503);
	EQ(world_ask(w, "EHLO c\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 503);
	EQ(world_ask(w, "DATA\r\n"), 503);
	/* What auth has against a sender without a login, the first recipient is told. */
	EQ(world_ask(w, "MAIL FROM:<bad@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 553);
	EQ(world_ask(w, "DATA\r\n"), 554);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 553);
	EQ(world_ask(w, "RSET\r\n"), 250);
	EQ(w->resets, 0);
	EQ(w->mails, 0);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 503);
	EQ(world_ask(w, "DATA\r\n"), 554);
	EQ(world_ask(w, "RCPT TO:<later@y.example>\r\n"), 451);
	EQ(world_ask(w, "DATA\r\n"), 554);
	EQ(world_ask(w, "EHLO again\r\n"), 250);
	EQ(w->resets, 1);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 503);
	EQ(world_ask(w, "STARTTLS\r\n"), 502);
	EQ(world_ask(w, "AUTH PLAIN =\r\n"), 502);
	EQ(world_ask(w, "VRFY alice\r\n"), 252);
	EQ(world_ask(w, "EXPN all\r\n"), 502);
	EQ(world_ask(w, "HELP\r\n"), 214);
	EQ(world_ask(w, "LHLO c\r\n"), 500);
	EQ(w->bodies, 0);
}

static const struct {
	const char *name, *text;
} smuggled[] = {
	{ "LF.LF", "a: b\r\n\r\n\n.\nMAIL FROM:<evil@x>\r\nRCPT TO:<x@y>\r\nDATA\r\nhi\r\n.\r\n" },
	{ "LF.CRLF", "a: b\r\n\r\nx\n.\r\nMAIL FROM:<evil@x>\r\n.\r\n" },
	{ "CRLF.LF", "a: b\r\n\r\nx\r\n.\nMAIL FROM:<evil@x>\r\n.\r\n" },
	{ "CR.CR", "a: b\r\n\r\nx\r.\rMAIL FROM:<evil@x>\r\n.\r\n" },
	{ "CR.CRLF", "a: b\r\n\r\nx\r.\r\nMAIL FROM:<evil@x>\r\n.\r\n" },
	{ "CRLF.CR", "a: b\r\n\r\nx\r\n.\rMAIL FROM:<evil@x>\r\n.\r\n" },
};

/* The message is refused as a whole, nothing in it was a command, and what follows is in step. */
static void story_smuggling(struct world *w)
{
	for (size_t i = 0; i < ARRAY_LEN(smuggled); i++) {
		tap_group(smuggled[i].name);
		hello(w, SMTP_SERVICE_SMTP);
		EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
		EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
		EQ(world_ask(w, "DATA\r\n"), 354);
		world_say(w, smuggled[i].text);
		HEAR(w, "550 5.5.2 Bare");
		EQ(world_ask(w, "NOOP\r\n"), 250);
		EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 503);
		EQ(w->mails, i + 1);
		EQ(w->bodies, 0);
		EQ(w->checks, 0);
	}
}

static void story_lmtp(struct world *w)
{
	struct buf results;

	buf_init(&results, 1024);
	rec_txn_result_put(&results, &(struct rec_txn_result){ .number = 1,
							       .code = 452,
							       .status = S("4.2.2"),
							       .text = S("Full") });
	hello(w, SMTP_SERVICE_LMTP);
	EQ(world_ask(w, "EHLO c\r\n"), 500);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "DATA\r\n"), 503);
	EQ(world_ask(w, "RCPT TO:<one@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<bad@y.example>\r\n"), 550);
	EQ(world_ask(w, "RCPT TO:<two@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<three@y.example>\r\n"), 250);
	EQ(world_ask(w, "DATA\r\n"), 354);
	w->reply.rcpts = buf_str(&results);
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "250 2.0.0 Ok");
	HEAR(w, "452 4.2.2 Full");
	HEAR(w, "250 2.0.0 Ok");
	OK(str_find(buf_str(&w->body), S(" for <")) == STR_NONE);
	OK(str_find(buf_str(&w->body), S(" with LMTP\r\n")) != STR_NONE);
	/* A refusal of the content is one for each as well. */
	world_say(w,
		  "MAIL FROM:<>\r\nRCPT TO:<one@y.example>\r\nRCPT TO:<two@y.example>\r\nDATA\r\n");
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 354);
	world_say(w, "a\nb\r\n.\r\n");
	HEAR(w, "550 5.5.2 ");
	HEAR(w, "550 5.5.2 ");
	EQ(world_ask(w, "NOOP\r\n"), 250);
	buf_free(&results);
}

static void story_bdat(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	world_say(w, "BDAT 6\r\nQUIT\r\nNOOP\r\n"); /* a refused chunk's bytes are no commands */
	EQ(world_reply(w), 503);
	EQ(world_reply(w), 250);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	world_say(w, "BDAT 5\r\na: b\r");
	HEAR(w, "250 2.0.0 5 octets received");
	EQ(world_ask(w, "DATA\r\n"), 503);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 503);
	world_say(w, "BDAT 8\r\n\n\r\n.\r\nx\r");
	EQ(world_reply(w), 250);
	world_say(w, "BDAT 2 LAST\r\n\ny");
	EQ(world_reply(w), 250);
	OK(str_ends(buf_str(&w->body), S("\r\na: b\r\n\r\n.\r\nx\r\ny\r\n")));
	world_say(w, "MAIL FROM:<>\r\nRCPT TO:<x@y.example>\r\nBDAT 3\r\na\nbBDAT 3 "
		     "LAST\r\nc\r\nNOOP\r\n");
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 250);
	EQ(world_reply(w), 550);
	EQ(world_reply(w), 503);
	EQ(world_reply(w), 250);
	EQ(w->bodies, 1);
	EQ(world_ask(w, "MAIL FROM:<>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(world_ask(w, "BDAT 0 LAST\r\n"), 250);
	EQ(w->bodies, 2);
}

static void story_auth(struct world *w)
{
	hello(w, SMTP_SERVICE_SUBMISSION);
	world_say(w, "MAIL FROM:<a@b.example>\r\n");
	HEAR(w, "530 5.7.0 Authentication required");
	world_say(w, "AUTH PLAIN AGFsaWNlAHg=\r\n");
	HEAR(w, "235 2.7.0 ");
	STR_EQ(str_from_c(w->mechanism), S("PLAIN"));
	EQ(world_ask(w, "AUTH PLAIN AGFsaWNlAHg=\r\n"), 503);
	EQ(world_ask(w, "MAIL FROM:<bad@b.example>\r\n"), 553);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 503);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(world_ask(w, "DATA\r\n"), 354);
	world_say(w, "Subject: s\r\n\r\n.\r\n");
	EQ(world_reply(w), 250);
	OK(str_find(buf_str(&w->body), S(" with ESMTPA\r\n")) != STR_NONE);
	OK(str_find(buf_str(&w->body), S("\r\nDate: ")) != STR_NONE);
	OK(str_find(buf_str(&w->body), S("\r\nMessage-ID: <")) != STR_NONE);
	OK(str_find(buf_str(&w->body), S("\r\nFrom: <a@b.example>\r\n")) != STR_NONE);
	/* auth died: what it knew of us is gone. */
	smtp_server_auth_lost(&w->server);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 421);
	OK(world_is_closed(w));
	EQ(w->conn_ends, 1);
}

/* What EHLO says of AUTH. */
static void offers(struct world *w, str wanted)
{
	str line = STR_EMPTY;

	world_say(w, "EHLO c\r\n");
	while (!str_starts(line, S("250-AUTH")) && !conn_read_line(w->client, 4096, &line) &&
	       !str_starts(line, S("250 ")))
		;
	STR_EQ(line, wanted);
	EQ(world_reply(w), 250);
}

static void story_auth_steps(struct world *w)
{
	hello(w, SMTP_SERVICE_SUBMISSION);
	EQ(world_ask(w, "AUTH CRAM-MD5\r\n"), 504);
	EQ(world_ask(w, "AUTH PLAIN !!!\r\n"), 501);
	w->sasl_rounds = 1;
	world_say(w, "AUTH LOGIN\r\n");
	HEAR(w, "334 d2hhdD8=");
	EQ(world_ask(w, "*\r\n"), 501);
	w->sasl_rounds = 1;
	EQ(world_ask(w, "AUTH LOGIN\r\n"), 334);
	EQ(world_ask(w, "***\r\n"), 501);
	w->sasl_rounds = 0;
	w->sasl_state = AUTH_SASL_FAILED;
	EQ(world_ask(w, "AUTH PLAIN =\r\n"), 535);
	STR_EQ(str_from_c(w->initial), S(""));
	w->sasl_state = AUTH_SASL_TEMPORARY;
	EQ(w->conn_ends, 3); /* an exchange that is over is over at auth too */
	EQ(world_ask(w, "AUTH PLAIN =\r\n"), 454);
	EQ(w->conn_ends, 4);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 530);
	w->sasl_state = AUTH_SASL_OK;
	w->sasl_rounds = 2;
	offers(w, S("250-AUTH PLAIN LOGIN"));
	w->server.offers_scram = true;
	offers(w, S("250-AUTH PLAIN LOGIN SCRAM-SHA-256"));
	EQ(world_ask(w, "AUTH scram-sha-256 eA==\r\n"), 334);
	EQ(world_ask(w, "=\r\n"), 501); /* "=" is an initial response alone */
	w->sasl_rounds = 2;
	EQ(world_ask(w, "AUTH scram-sha-256 eA==\r\n"), 334);
	EQ(world_ask(w, "eQ==\r\n"), 334);
	EQ(world_ask(w, "*\r\n"), 501); /* the client does not believe the server */
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 530);
	w->sasl_rounds = 1;
	EQ(world_ask(w, "AUTH SCRAM-SHA-256 eA==\r\n"), 334);
	EQ(world_ask(w, "\r\n"), 235);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
}

static void story_plaintext_disabled(struct world *w)
{
	world_connect(w, SMTP_SERVICE_SUBMISSION);
	EQ(world_reply(w), 220);
	world_say(w, "EHLO c\r\n");
	HEAR(w, "250-mx.example.test");
	HEAR(w, "250-PIPELINING");
	HEAR(w, "250-SIZE 52428800");
	HEAR(w, "250-8BITMIME");
	HEAR(w, "250-SMTPUTF8");
	HEAR(w, "250-CHUNKING");
	HEAR(w, "250-DSN");
	HEAR(w, "250 ENHANCEDSTATUSCODES");
	EQ(world_ask(w, "AUTH PLAIN =\r\n"), 538);
	world_say(w, "MAIL FROM:<a@b.example>\r\n");
	HEAR(w, "530 5.7.0 Must issue a STARTTLS");
	STR_EQ(str_from_c(w->mechanism), S(""));
}

static void open_data(struct world *w)
{
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(world_ask(w, "DATA\r\n"), 354);
}

static void say_lines(struct world *w, int count)
{
	world_say(w, "a: b\r\n\r\n");
	for (int i = 0; i < count; i++) { /* 100 bytes each */
		world_say(w, "0123456789012345678901234567890123456789012345678"
			     "0123456789012345678901234567890123456789012345678\r\n");
		if (i % 1000 == 999 && conn_flush(w->client))
			return; /* the server has had enough */
	}
	world_say(w, ".\r\n");
}

static void story_sizes(struct world *w)
{
	unsigned code;

	hello(w, SMTP_SERVICE_SMTP);
	EQ(world_ask(w, "MAIL FROM:<a@b.example> SIZE=100009\r\n"), 552);
	open_data(w);
	say_lines(w, 1000); /* 8 and 100,000: at the limit */
	HEAR(w, "250 ");
	OK(w->body_was_fd);
	OK(str_ends(buf_str(&w->body), S("678\r\n")));
	open_data(w);
	say_lines(w, 1001);
	HEAR(w, "552 5.3.4 ");
	EQ(world_ask(w, "NOOP\r\n"), 250);
	EQ(w->bodies, 1);
	open_data(w);
	say_lines(w, 3000);
	HEAR(w, "552 5.3.4 ");
	EQ(world_ask(w, "NOOP\r\n"), 250);
	open_data(w);
	say_lines(w, 20000); /* more than is thrown away: closed, whether the reply comes through or
				not */
	code = world_reply(w);
	OK(code == 552 || code == 0);
	OK(conn_failed(w->client) || world_is_closed(w));
	EQ(w->bodies, 1);
}

static void story_away(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	open_data(w);
	w->reply = (struct msg_txn_reply){ .code = 452,
					   .status = S("4.3.1"),
					   .text = S("Disk full\r\n250 no") };
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "452 4.3.1 Disk full??250 no");
	open_data(w);
	w->reply = (struct msg_txn_reply){ .code = 0 };
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "451 4.3.0 ");
	EQ(w->server.accepted, 0);
	w->store_dies = true;
	open_data(w);
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "451 4.3.0 ");
	EQ(world_ask(w, "NOOP\r\n"), 250);
	/* Without a filter nothing is handed to the store. */
	w->server.filter_count = 0;
	EQ(w->bodies, 3);
	open_data(w);
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "451 4.3.0 ");
	EQ(w->bodies, 3);
	EQ(w->server.accepted, 0);
}

static void story_errors(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	EQ(world_ask(w, "XYZZY\r\n"), 500);
	EQ(world_ask(w, "RSET x\r\n"), 501);
	EQ(world_ask(w, "NOOP\r\n"), 250);
	EQ(world_ask(w, "MAIL FROM:<a@b.example> FOO=1\r\n"), 555);
	world_say(w, "BAR\r\n");
	HEAR(w, "500 ");
	HEAR(w, "421 4.7.0 Too many errors");
	OK(world_is_closed(w));
	hello(w, SMTP_SERVICE_SMTP);
	world_say(w, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR(w, "421 4.7.0 ");
	OK(world_is_closed(w) || conn_failed(w->client));
}

static void story_lines(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	world_say(w, "NOOP ");
	for (int i = 0; i < 2000; i++)
		world_say(w, "0123456789");
	world_say(w, "\r\nNOOP\r\n");
	EQ(world_reply(w), 500);
	EQ(world_reply(w), 250);
	world_say(w, "NOOP ");
	for (int i = 0; i < 300; i++)
		world_say(w, "0123456789");
	world_say(w, "\r\nNOOP\r\n");
	EQ(world_reply(w), 500);
	EQ(world_reply(w), 250);
	/* In pieces, with pauses that the loop sees. */
	for (const char *p = "RSET\r\n"; *p; p++) {
		conn_write(w->client, str_of(p, 1));
		OK(!conn_flush(w->client));
		fiber_yield(w->loop);
	}
	EQ(world_reply(w), 250);
}

static void story_recipients(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<Postmaster>\r\n"), 250);
	STR_EQ(str_from_c(w->rcpt), S("Postmaster"));
	world_say(w, "RCPT TO:<z@y.example>\r\n");
	HEAR(w, "452 4.5.3 ");
	EQ(world_ask(w, "RSET\r\n"), 250);
	EQ(world_ask(w, "MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<\xc3\xa9@y.example>\r\n"), 250);
	OK(w->smtputf8);
	EQ(world_ask(w, "RSET\r\n"), 250);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<\xc3\xa9@y.example>\r\n"), 553);
}

/* A recipient that was granted to everybody is not asked for, but with the end of the data. */
static void story_known(struct world *w)
{
	EQ(smtp_known_new(10, &w->server.known), ERR_OK);
	hello(w, SMTP_SERVICE_SMTP);
	for (unsigned i = 1; i <= 3; i++) {
		EQ(world_ask(w, "MAIL FROM:<a@b.example> ENVID=e\r\n"), 250);
		EQ(world_ask(w, "RCPT TO:<known@y.example> NOTIFY=NEVER ORCPT=rfc822;o\r\n"), 250);
		EQ(w->mails, i == 1 ? 1 : i - 1);
		EQ(world_ask(w, "DATA\r\n"), 354);
		EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
		EQ(w->mails, i);
		EQ(w->commits, i);
		EQ(w->bodies, i);
		STR_EQ(str_from_c(w->rcpt), S("known@y.example"));
		STR_EQ(str_from_c(w->envid), S("e"));
	}
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	EQ(world_ask(w, "RSET\r\n"), 250);
	EQ(w->resets, 0);
	EQ(w->mails, 3);
	/* With a second recipient the first is asked for too. */
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(w->mails, 4);
	EQ(w->rcpts, 5);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	EQ(w->rcpts, 6);
	EQ(world_ask(w, "DATA\r\n"), 354);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
	EQ(w->commits, 4);
	/* auth may be replaced meanwhile: it has not heard of it. */
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	smtp_server_auth_lost(&w->server);
	EQ(world_ask(w, "DATA\r\n"), 354);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
	EQ(w->commits, 5);
	/* The new one is asked. */
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	EQ(w->mails, 6);
	EQ(world_ask(w, "RSET\r\n"), 250);
	smtp_known_free(w->server.known);
	w->server.known = NULL;
}

/* It is granted no more, and this process has not heard of that: nobody gets anything. */
static void story_known_is_gone(struct world *w)
{
	EQ(smtp_known_new(10, &w->server.known), ERR_OK);
	smtp_known_add(w->server.known, S("known@y.example"), 0);
	w->known_is_gone = true;
	hello(w, SMTP_SERVICE_LMTP);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<known@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 451);
	EQ(world_ask(w, "DATA\r\n"), 354);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 451);
	EQ(w->bodies, 0);
	EQ(w->commits, 0);
	smtp_known_free(w->server.known);
	w->server.known = NULL;
}

/* auth was replaced in the middle of a transaction: a temporary error for it, and the next one is
 * fine. */
static void story_auth_restarts(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	smtp_server_auth_lost(&w->server);
	EQ(world_ask(w, "RCPT TO:<bad@y.example>\r\n"), 451);
	EQ(world_ask(w, "DATA\r\n"), 354);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 451);
	EQ(w->bodies, 0);
	EQ(w->checks, 0);
	open_data(w);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
	EQ(w->bodies, 1);
}

/* What became of a recipient is not known: then nothing is sent to anybody. */
static void story_rcpt_unanswered(struct world *w)
{
	hello(w, SMTP_SERVICE_LMTP);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<lost@y.example>\r\n"), 451);
	EQ(world_ask(w, "RCPT TO:<z@y.example>\r\n"), 451);
	EQ(world_ask(w, "DATA\r\n"), 354);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 451);
	EQ(w->bodies, 0);
	EQ(w->commits, 0);
	EQ(w->resets, 1);
	EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
	EQ(world_ask(w, "RCPT TO:<lost@y.example>\r\n"), 451);
	EQ(world_ask(w, "RCPT TO:<z@y.example>\r\n"), 451);
	EQ(world_ask(w, "RSET\r\n"), 250);
	EQ(w->resets, 2);
	open_data(w);
	EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
}

/* Errors add up until a message is taken, not for the life of the connection. */
static void story_errors_forgiven(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	for (int i = 0; i < 3; i++) {
		EQ(world_ask(w, "MAIL FROM:<a@b.example>\r\n"), 250);
		EQ(world_ask(w, "RCPT TO:<bad@y.example>\r\n"), 550);
		EQ(world_ask(w, "RCPT TO:<x@y.example>\r\n"), 250);
		EQ(world_ask(w, "RCPT TO:<bad@y.example>\r\n"), 550);
		EQ(world_ask(w, "DATA\r\n"), 354);
		EQ(world_ask(w, "a: b\r\n\r\n.\r\n"), 250);
	}
}

static void story_hops(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	for (int over = 0; over < 2; over++) {
		open_data(w);
		for (int i = 0; i < SMTP_HOPS_MAX + over; i++)
			world_say(w, "Received: x\r\n");
		world_say(w, "\r\n.\r\n");
		HEAR(w, over ? "554 5.4.6 " : "250 ");
	}
}

static void story_stop(struct world *w)
{
	hello(w, SMTP_SERVICE_SMTP);
	open_data(w);
	smtp_server_stop(&w->server);
	world_say(w, "a: b\r\n\r\n.\r\n");
	HEAR(w, "250 "); /* what was begun is finished */
	HEAR(w, "421 4.3.2 ");
	OK(world_is_closed(w));
	w->server.is_stopping = false;
	hello(w, SMTP_SERVICE_SMTP);
	smtp_server_stop(&w->server);
	HEAR(w, "421 4.3.2 ");
	OK(world_is_closed(w));
}

/* Cut anywhere: the transaction is reset at auth, and nothing reaches the store. */
static void story_cut(struct world *w)
{
	static const char *const talks[] = {
		"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\n",
		"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\na: "
		"b\r\n\r\n.\r",
		"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nBDAT 10 "
		"LAST\r\n123456789",
	};

	for (size_t i = 0; i < ARRAY_LEN(talks); i++) {
		world_connect(w, SMTP_SERVICE_SMTP);
		world_say(w, talks[i]);
		OK(!conn_flush(w->client));
		conn_free(w->client);
		w->client = NULL;
		while (w->resets <= i)
			fiber_yield(w->loop);
		EQ(w->resets, i + 1);
		EQ(w->bodies, 0);
	}
}

int main(void)
{
	world_run("mail", CONF, story_mail);
	world_run("pipelined", CONF, story_pipelined);
	world_run("sequences", CONF "smtpd_hard_error_limit = 100\n", story_sequences);
	world_run("smuggling", CONF, story_smuggling);
	world_run("lmtp", CONF, story_lmtp);
	world_run("bdat", CONF, story_bdat);
	world_run("auth", CONF "disable_plaintext_auth = no\n", story_auth);
	world_run("auth steps", CONF "disable_plaintext_auth = no\n", story_auth_steps);
	world_run("plaintext auth is off", CONF, story_plaintext_disabled);
	world_run("sizes", CONF "message_size_limit = 100008\n", story_sizes);
	world_run("somebody is away", CONF, story_away);
	world_run("errors", CONF "smtpd_hard_error_limit = 4\n", story_errors);
	world_run("errors forgiven", CONF "smtpd_hard_error_limit = 4\n", story_errors_forgiven);
	world_run("lines", CONF, story_lines);
	world_run("recipients", CONF "smtpd_recipient_limit = 2\n", story_recipients);
	world_run("hops", CONF, story_hops);
	world_run("a recipient that is known", CONF, story_known);
	world_run("one that is known no more", CONF, story_known_is_gone);
	world_run("auth restarts", CONF, story_auth_restarts);
	world_run("a recipient without an answer", CONF, story_rcpt_unanswered);
	world_run("stop", CONF, story_stop);
	world_run("cut", CONF, story_cut);
	return tap_done();
}
