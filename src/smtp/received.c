/* The trace field of RFC 5321 4.4:
 *
 *	Received: from mail.example.org ([192.0.2.1])
 *		by mx.example.test with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)
 *		id 0CW3Z9K2M4XQA for <bob@example.test>;
 *		Sun, 22 Nov 2026 03:10:15 +0000
 *
 * The name that the client gave itself comes from the network and is put into a header: what could
 * end the field, open a comment or look like another clause is replaced. The address is the one the
 * connection came from, and is the part that can be believed. A single recipient is named; with
 * several, naming one would tell it to the others.
 */
#include "smtp/received.h"

#include "text/utf8.h"

static bool is_plain(char c)
{
	return ascii_is_alnum(c) || c == '.' || c == '-' || c == '_' || c == ':' || c == '[' ||
	       c == ']';
}

static void write_name(str s, struct buf *out)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_char(out, is_plain(s.p[i]) ? s.p[i] : '?');
}

/* RFC 5321 4.4: TCP-info = address-literal. */
static void write_client(const struct addr *a, struct buf *out)
{
	char text[ADDR_TEXT_MAX];

	if (a->family != ADDR_IP4 && a->family != ADDR_IP6)
		return;
	buf_add(out, a->family == ADDR_IP6 ? S(" ([IPv6:") : S(" (["));
	buf_add(out, addr_ip_text(a, text));
	buf_add(out, S("])"));
}

/* RFC 3848; RFC 6531 4.3 adds UTF8SMTP, UTF8SMTPSA and their LMTP kin. */
static void write_protocol(const struct smtp_received *r, struct buf *out)
{
	if (r->is_utf8)
		buf_add(out, r->is_lmtp ? S("UTF8LMTP") : S("UTF8SMTP"));
	else
		buf_add(out, r->is_lmtp ? S("LMTP") : r->is_extended ? S("ESMTP") : S("SMTP"));
	if (r->is_tls)
		buf_add_char(out, 'S');
	if (r->is_authenticated)
		buf_add_char(out, 'A');
}

void smtp_received_write(const struct smtp_received *r, struct buf *out)
{
	buf_add(out, S("Received: from "));
	write_name(r->helo, out);
	write_client(r->client, out);
	buf_add(out, S("\r\n\tby "));
	buf_add(out, r->myhostname);
	buf_add(out, S(" with "));
	write_protocol(r, out);
	if (r->is_tls && r->tls.n)
		buf_printf(out, " (%.*s)", STR_ARGS(r->tls));
	buf_printf(out, "\r\n\tid %.*s", STR_ARGS(r->id));
	/* RFC 6531 3.7.3: an address beyond ASCII in a trace field is for SMTPUTF8 messages alone.
	 */
	if (r->recipient.n && (r->is_utf8 || utf8_is_ascii(r->recipient)))
		buf_printf(out, " for <%.*s>", STR_ARGS(r->recipient));
	buf_add(out, S(";\r\n\t"));
	date_format_rfc5322(r->date, out);
	buf_add(out, S("\r\n"));
}
