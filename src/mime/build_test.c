/* Decoding parts, and building messages that our own parser reads back. */
#include "base/tap.h"
#include "mime/build.h"
#include "mime/decode.h"
#include "mime/envelope.h"

static struct arena *a;
static struct buf out;

/* The decoded text of a message's only part, fed in pieces. */
static str text(str message, size_t piece, size_t budget, enum err *err)
{
	struct mime_part *root;
	struct mime_decoder *d;
	str body;

	buf_clear(&out);
	arena_reset(a);
	if ((*err = mime_parse(message, a, &root)))
		return STR_EMPTY;
	d = mime_decoder_new(root, budget);
	body = mime_part_body(root, message);
	for (size_t i = 0; i < body.n && !*err; i += piece)
		*err = mime_decoder_feed(d, str_sub(body, i, piece), &out);
	if (!*err)
		*err = mime_decoder_end(d, &out);
	mime_decoder_free(d);
	return buf_str(&out);
}

static void test_decode(void)
{
	enum err err;

	tap_group("decode");
	for (size_t piece = 1; piece < 9; piece++) {
		STR_EQ(text(S("Content-Type: text/plain; "
			      "charset=iso-8859-15\r\nContent-Transfer-Encoding: "
			      "QUOTED-PRINTABLE\r\n\r\n=A4 10=\r\n0\r\n"),
			    piece, 1000, &err),
		       S("\xE2\x82\xAC 100\r\n"));
		STR_EQ(text(S("Content-Type: text/plain; "
			      "charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
			      "4oKs\r\n4oKsYQ=="),
			    piece, 1000, &err),
		       S("\xE2\x82\xAC\xE2\x82\xAC"
			 "a"));
	}
	STR_EQ(text(S("Content-Type: text/plain; charset=x-no-such\r\n\r\n\xFF"
		      "a"),
		    9, 1000, &err),
	       S("\xEF\xBF\xBD"
		 "a"));
	STR_EQ(text(S("\r\n0123456789"), 3, 7, &err), S("0123456"));
	EQ(err, ERR_TOO_LONG);
	STR_EQ(text(S("\r\n0123456"), 3, 7, &err), S("0123456"));
	EQ(err, ERR_OK);
	STR_EQ(text(S("Content-Type: application/x\r\nContent-Transfer-Encoding: "
		      "base64\r\n\r\n/w=="),
		    2, 9, &err),
	       S("\xFF"));
}

static void test_fields(void)
{
	struct date when = { .seconds = 1739437200, .zone = 60 };
	unsigned char random[BUILD_RANDOM] = { 0xab, 1, 2 };
	struct addr_spec address;

	tap_group("fields");
	buf_clear(&out);
	build_field(&out, S("Subject"), S("x\r\nBcc: evil@example.org\0"));
	STR_EQ(buf_str(&out), S("Subject: x  Bcc: evil@example.org\r\n"));
	buf_clear(&out);
	EQ(addr_spec_parse(S("a@b.example"), 0, a, &address), ERR_OK);
	build_address(&out, S("From"), S("Mail \"Daemon\""), address);
	build_address(&out, S("To"), S(""), address);
	build_address(&out, S("Cc"), S("J\xC3\xB6rg"), address);
	STR_EQ(buf_str(&out),
	       S("From: \"Mail \\\"Daemon\\\"\" <a@b.example>\r\nTo: <a@b.example>\r\n"
		 "Cc: =?UTF-8?Q?J=C3=B6rg?= <a@b.example>\r\n"));
	buf_clear(&out);
	build_date(&out, when);
	build_message_id(&out, when, random, S("host.example"));
	STR_EQ(buf_str(&out),
	       S("Date: Thu, 13 Feb 2025 10:00:00 +0100\r\n"
		 "Message-ID: <1739437200.ab010200000000000000000000000000@host.example>\r\n"));
	buf_clear(&out);
	build_structured(&out, S("References"),
			 S("<1111111111111111111111111111111@example> "
			   "<222222222222222222222@example> <3@x>"));
	STR_EQ(buf_str(&out), S("References: <1111111111111111111111111111111@example>\r\n "
				"<222222222222222222222@example> <3@x>\r\n"));
}

static void test_report(void)
{
	char memory[BUILD_BOUNDARY_MAX];
	unsigned char random[BUILD_RANDOM] = { 1 };
	str boundary = build_boundary(memory, random);
	struct mime_part *root;
	struct buf message;

	tap_group("report");
	buf_init(&message, 100000);
	build_field(&message, S("Subject"), S("Undelivered mail"));
	build_multipart(&message, S("report"), S("; report-type=delivery-status"), boundary);
	build_part(&message, boundary, S("text/plain; charset=utf-8"), S("8bit"));
	buf_add(&message, S("It failed.\r\n"));
	build_part(&message, boundary, S("message/delivery-status"), S(""));
	buf_add(&message, S("Reporting-MTA: dns; mx.example\r\n\r\n"));
	build_part(&message, boundary, S("message/rfc822"), S(""));
	buf_add(&message, S("Subject: lost\r\n\r\nbody\r\n"));
	build_end(&message, boundary);
	arena_reset(a);
	EQ(mime_parse(buf_str(&message), a, &root), ERR_OK);
	EQ(root->child_count, 3);
	STR_EQ(mime_part_body(root->children, buf_str(&message)), S("It failed.\r\n"));
	EQ(root->children->next->next->kind, MIME_MESSAGE);
	STR_EQ(mime_param(&root->params, S("report-type"), a), S("delivery-status"));
	buf_free(&message);
}

int main(void)
{
	a = arena_new(1 << 20);
	buf_init(&out, 1 << 20);
	test_decode();
	test_fields();
	test_report();
	buf_free(&out);
	arena_free(a);
	return tap_done();
}
