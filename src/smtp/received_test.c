/* The Received field. */
#include "smtp/received.h"

#include "base/tap.h"

static void check(const struct smtp_received *r, str want)
{
	struct buf b;

	buf_init(&b, SMTP_RECEIVED_MAX);
	smtp_received_write(r, &b);
	OK(!buf_failed(&b));
	STR_EQ(buf_str(&b), want);
	buf_free(&b);
}

int main(void)
{
	struct addr a = { .family = ADDR_IP4, .ip = { 192, 0, 2, 1 }, .port = 4711 };
	struct smtp_received r = { .helo = S("mail.example.org"),
				   .client = &a,
				   .myhostname = S("mx.example.test"),
				   .is_extended = true,
				   .id = S("0CW3Z9K2M4XQA"),
				   .recipient = S("bob@example.test"),
				   .date = { .seconds = 1795317015, .zone = 60 } };

	check(&r, S("Received: from mail.example.org ([192.0.2.1])\r\n\tby mx.example.test with "
		    "ESMTP\r\n"
		    "\tid 0CW3Z9K2M4XQA for <bob@example.test>;\r\n\tSun, 22 Nov 2026 04:10:15 "
		    "+0100\r\n"));
	r.is_tls = r.is_authenticated = true;
	r.tls = S("TLSv1.3 X");
	r.recipient = STR_EMPTY;
	r.helo = S("a(b)\r\nX: y by evil");
	check(&r, S("Received: from a?b???X:?y?by?evil ([192.0.2.1])\r\n\tby mx.example.test with "
		    "ESMTPSA (TLSv1.3 X)\r\n"
		    "\tid 0CW3Z9K2M4XQA;\r\n\tSun, 22 Nov 2026 04:10:15 +0100\r\n"));
	r = (struct smtp_received){
		.helo = S("x"), .client = &a, .myhostname = S("h"), .is_lmtp = true, .id = S("I")
	};
	a = (struct addr){ .family = ADDR_UNIX };
	check(&r, S("Received: from x\r\n\tby h with LMTP\r\n\tid I;\r\n\tThu, 1 Jan 1970 00:00:00 "
		    "+0000\r\n"));
	r.is_lmtp = false;
	a = (struct addr){ .family = ADDR_IP6, .ip = { 0x20, 1, 0xd, 0xb8, [15] = 1 } };
	check(&r, S("Received: from x ([IPv6:2001:db8::1])\r\n\tby h with SMTP\r\n\tid I;\r\n"
		    "\tThu, 1 Jan 1970 00:00:00 +0000\r\n"));
	r.recipient = S("\xc3\xa9@example.test");
	r.is_extended = true;
	check(&r, S("Received: from x ([IPv6:2001:db8::1])\r\n\tby h with ESMTP\r\n\tid I;\r\n"
		    "\tThu, 1 Jan 1970 00:00:00 +0000\r\n"));
	r.is_utf8 = true;
	check(&r, S("Received: from x ([IPv6:2001:db8::1])\r\n\tby h with UTF8SMTP\r\n\tid I for "
		    "<\xc3\xa9@example.test>;\r\n"
		    "\tThu, 1 Jan 1970 00:00:00 +0000\r\n"));
	return tap_done();
}
