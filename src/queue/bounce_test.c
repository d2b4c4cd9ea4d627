/* Notices, read back with mime/: the three parts, the fields of RFC 3464, and that nothing from
 * outside adds a field. */
#include "base/tap.h"
#include "mime/header.h"
#include "mime/part.h"
#include "queue/bounce.h"

static const char original[] =
	"Received: by mx\r\nFrom: <a@example.org>\r\nSubject: hello\r\n\r\nworld\r\n";

struct read_back {
	struct buf out;
	struct arena *arena;
	struct mime_part *root, *words, *fields, *message;
	str text;
};

static void compose(const struct bounce *b, struct read_back *r)
{
	buf_init(&r->out, BOUNCE_SIZE_MAX);
	bounce_compose(b, &r->out);
	OK(!buf_failed(&r->out));
	r->text = buf_str(&r->out);
	r->arena = arena_new(1024 * 1024);
	EQ(mime_parse(r->text, r->arena, &r->root), ERR_OK);
	r->words = r->root->children;
	r->fields = r->words ? r->words->next : NULL;
	r->message = r->fields ? r->fields->next : NULL;
	for (str rest = r->text; rest.n;) {
		size_t n = str_find(rest, S("\r\n"));

		if (n == STR_NONE || str_find_char(str_head(rest, n), '\n') != STR_NONE) {
			OK(!"a line does not end in CRLF");
			break;
		}
		rest = str_from(rest, n + 2);
	}
}

static void done(struct read_back *r)
{
	arena_free(r->arena);
	buf_free(&r->out);
}

/* The fields of a group: 0 of the message, then of each recipient. */
static str group(const struct read_back *r, unsigned n)
{
	str body = mime_part_body(r->fields, r->text);

	for (; n; n--)
		body = str_from(body, str_find(body, S("\r\n\r\n")) + 4);
	if (str_find(body, S("\r\n\r\n")) != STR_NONE)
		body = str_head(body, str_find(body, S("\r\n\r\n")) + 2);
	return body;
}

static void field_is(const struct read_back *r, unsigned n, str name, str want)
{
	struct header_field f = { 0 };

	if (!OK(header_find(group(r, n), name, &f)))
		tap_str("field", name);
	STR_EQ(str_trim(header_unfold(f.value, r->arena)), want);
}

static struct rec_queue_record record(str address)
{
	return (struct rec_queue_record){ .address = address,
					  .original = address,
					  .sender = S("a@example.org") };
}

static struct bounce usual(const struct bounce_rcpt *rcpts, size_t count)
{
	return (struct bounce){
		.notice = NOTICE_FAILED,
		.hostname = S("mx.example.org"),
		.origin = S("example.org"),
		.now_us = 1763780400ll * 1000000,
		.zone = 60,
		.random = { "0123456789abcde", "fedcba987654321" },
		.message = S("0CW3Z9K2M4XQA"),
		.sender = S("a@example.org"),
		.arrived_us = 1763776800ll * 1000000,
		.gives_up_us = 1764212400ll * 1000000,
		.rcpts = rcpts,
		.count = count,
		.original = str_from_c(original),
		.is_whole = true,
	};
}

static void test_failed(void)
{
	struct rec_queue_record one = record(S("bob@example.net")),
				two = record(S("c@example.com"));
	struct bounce_rcpt rcpts[] = {
		{ .record = &one,
		  .remote = S("mx.example.net[192.0.2.1]:25"),
		  .reply = S("550 5.1.1 No such user"),
		  .status = S("5.1.1") },
		{ .record = &two,
		  .reply = S("the domain example.com does not exist"),
		  .status = S("5.1.2") },
	};
	struct bounce b = usual(rcpts, 2);
	struct read_back r;
	struct header_field f;

	tap_group("failed");
	one.orcpt = S("rfc822;bob+2Bx@example.net");
	one.original = S("robert@example.org");
	b.envid = S("QQ+3D1");
	compose(&b, &r);
	OK(mime_type_is(r.root, S("multipart"), S("report")));
	STR_EQ(mime_param(&r.root->params, S("report-type"), r.arena), S("delivery-status"));
	EQ(r.root->child_count, 3);
	OK(mime_type_is(r.words, S("text"), S("plain")));
	OK(mime_type_is(r.fields, S("message"), S("delivery-status")));
	OK(mime_type_is(r.message, S("message"), S("rfc822")));
	/* All of it, its last line end too (RFC 2046 5.1.1). */
	STR_EQ(mime_part_body(r.message, r.text), str_from_c(original));
	OK(header_find(mime_part_header(r.root, r.text), S("to"), &f));
	STR_EQ(f.value, S("<a@example.org>"));
	OK(header_find(mime_part_header(r.root, r.text), S("from"), &f));
	STR_EQ(f.value, S("Mail Delivery System <MAILER-DAEMON@example.org>"));
	OK(header_find(mime_part_header(r.root, r.text), S("auto-submitted"), &f));
	OK(header_find(mime_part_header(r.root, r.text), S("date"), &f));
	OK(header_find(mime_part_header(r.root, r.text), S("message-id"), &f));
	field_is(&r, 0, S("Reporting-MTA"), S("dns; mx.example.org"));
	field_is(&r, 0, S("Original-Envelope-Id"), S("QQ=1"));
	field_is(&r, 0, S("Arrival-Date"), S("Sat, 22 Nov 2025 03:00:00 +0100"));
	field_is(&r, 1, S("Original-Recipient"), S("rfc822; bob+x@example.net"));
	field_is(&r, 1, S("Final-Recipient"), S("rfc822; bob@example.net"));
	field_is(&r, 1, S("Action"), S("failed"));
	field_is(&r, 1, S("Status"), S("5.1.1"));
	field_is(&r, 1, S("Remote-MTA"), S("dns; mx.example.net"));
	field_is(&r, 1, S("Diagnostic-Code"), S("smtp; 550 5.1.1 No such user"));
	field_is(&r, 1, S("Last-Attempt-Date"), S("Sat, 22 Nov 2025 04:00:00 +0100"));
	field_is(&r, 2, S("Final-Recipient"), S("rfc822; c@example.com"));
	field_is(&r, 2, S("Status"), S("5.1.2"));
	OK(!header_find(group(&r, 2), S("Remote-MTA"), &f));
	OK(!header_find(group(&r, 2), S("Original-Recipient"), &f));
	field_is(&r, 2, S("Diagnostic-Code"),
		 S("x-posthorn; the domain example.com does not exist"));
	OK(str_find(r.text, S("    The server mx.example.net[192.0.2.1]:25 said:\r\n    550 5.1.1 "
			      "No such user\r\n"
			      "    There is no such address there.")) != STR_NONE);
	OK(str_find(r.text, S("(you wrote to <robert@example.org>)")) != STR_NONE);
	OK(str_find(r.text, S("0CW3Z9K2M4XQA")) != STR_NONE);
	done(&r);
}

static void test_kinds(void)
{
	struct rec_queue_record one = record(S("bob@example.net"));
	struct bounce_rcpt rcpt = { .record = &one,
				    .remote = S("mx[192.0.2.1]:25"),
				    .reply = S("421 later") };
	struct bounce b = usual(&rcpt, 1);
	struct header_field f;
	struct read_back r;

	tap_group("delayed");
	b.notice = NOTICE_DELAYED;
	b.is_whole = false;
	b.original = S("Subject: hello\r\n\r\n");
	compose(&b, &r);
	OK(mime_type_is(r.message, S("text"), S("rfc822-headers")));
	field_is(&r, 1, S("Action"), S("delayed"));
	field_is(&r, 1, S("Status"), S("4.0.0"));
	field_is(&r, 1, S("Will-Retry-Until"), S("Thu, 27 Nov 2025 04:00:00 +0100"));
	OK(str_find(r.text, S("You need not send it again")) != STR_NONE);
	done(&r);

	tap_group("a server by its address alone, and a socket");
	rcpt.remote = S("2001:db8::25[2001:db8::25]:25");
	compose(&b, &r);
	field_is(&r, 1, S("Remote-MTA"), S("dns; [IPv6:2001:db8::25]"));
	done(&r);
	rcpt.remote = S("192.0.2.1[192.0.2.1]:2525");
	compose(&b, &r);
	field_is(&r, 1, S("Remote-MTA"), S("dns; [192.0.2.1]"));
	done(&r);
	rcpt.remote = S("/run/dovecot/lmtp");
	compose(&b, &r);
	OK(!header_find(group(&r, 1), S("Remote-MTA"), &f));
	done(&r);
	rcpt.remote = S("mx[192.0.2.1]:25");

	tap_group("relayed");
	b.notice = NOTICE_RELAYED;
	rcpt.reply = S("250 ok");
	b.original = STR_EMPTY;
	compose(&b, &r);
	EQ(r.root->child_count, 2);
	field_is(&r, 1, S("Action"), S("relayed"));
	field_is(&r, 1, S("Status"), S("2.0.0"));
	done(&r);

	tap_group("delivered and expanded");
	for (int i = 0; i < 2; i++) {
		b.notice = i ? NOTICE_EXPANDED : NOTICE_DELIVERED;
		rcpt.remote = rcpt.reply = STR_EMPTY;
		compose(&b, &r);
		field_is(&r, 1, S("Final-Recipient"), S("rfc822; bob@example.net"));
		field_is(&r, 1, S("Action"), i ? S("expanded") : S("delivered"));
		field_is(&r, 1, S("Status"), S("2.0.0"));
		field_is(&r, 1, S("Last-Attempt-Date"), S("Sat, 22 Nov 2025 03:00:00 +0100"));
		/* RFC 3464 2.3.5, 2.3.6: of other servers alone. */
		OK(!header_find(group(&r, 1), S("Remote-MTA"), &f));
		OK(!header_find(group(&r, 1), S("Diagnostic-Code"), &f));
		OK(str_find(r.text, S("could not")) == STR_NONE);
		done(&r);
	}

	tap_group("expired");
	rcpt.remote = S("mx[192.0.2.1]:25");
	b.notice = NOTICE_FAILED;
	rcpt.is_expired = true;
	rcpt.status = S("4.4.1");
	rcpt.reply = S("connect to mx[192.0.2.1]:25: connection refused");
	compose(&b, &r);
	field_is(&r, 1, S("Status"), S("4.4.1"));
	OK(str_find(r.text, S("has now given up")) != STR_NONE);
	OK(str_find(r.text, S("could not be reached")) != STR_NONE);
	done(&r);
}

static void test_utf8(void)
{
	struct rec_queue_record one = record(S("j\xc3\xbcrgen@example.net"));
	struct bounce_rcpt rcpt = { .record = &one, .reply = S("550 no"), .status = S("5.0.0") };
	struct bounce b = usual(&rcpt, 1);
	struct read_back r;

	tap_group("RFC 6533");
	b.original = S("Subject: gr\xc3\xbc\xc3\x9f"
		       "e\r\n\r\nx\r\n");
	compose(&b, &r);
	OK(mime_type_is(r.fields, S("message"), S("global-delivery-status")));
	OK(mime_type_is(r.message, S("message"), S("global")));
	STR_EQ(r.message->encoding, S("8bit"));
	field_is(&r, 1, S("Final-Recipient"), S("utf-8; j\xc3\xbcrgen@example.net"));
	done(&r);
}

static void test_hostile(void)
{
	struct rec_queue_record one = record(S("b@example.net\r\nX-Evil: 1"));
	struct bounce_rcpt rcpt = { .record = &one,
				    .remote = S("mx\r\nX-Evil: 2[1]:25"),
				    .reply = S("550 no\r\nX-Evil: 3\r\n\r\nbody"),
				    .status = S("5.0.0") };
	struct bounce b = usual(&rcpt, 1);
	struct read_back r;

	tap_group("hostile");
	b.sender = S("a@example.org>\r\nX-Evil: 4\r\n\r\n");
	b.envid = S("x+0D+0AX-Evil: 5");
	one.orcpt = S("rfc822;x+0D+0AX-Evil: 6");
	compose(&b, &r);
	OK(str_find(r.text, S("\nX-Evil")) == STR_NONE);
	EQ(r.root->child_count, 3);
	done(&r);
}

int main(void)
{
	test_failed();
	test_kinds();
	test_utf8();
	test_hostile();
	return tap_done();
}
