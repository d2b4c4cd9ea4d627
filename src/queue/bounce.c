/* Composing delivery status notifications.
 *
 * Three parts (RFC 6522): words for people, fields for programs (RFC 3464), and the message or its
 * header. The words say for each recipient who said no and what they said, and, where the status
 * code tells, what that means and what can be done about it, because "550 5.7.1" is all that most
 * senders ever get.
 *
 * Everything that came from outside (replies, addresses, envelope ids) is one line of clean text
 * before it lands in a field: build_* drop CR, LF and NUL, and replies were cleaned when they were
 * read. The original is put in as it is, behind a boundary made of random bytes.
 *
 * Non-ASCII addresses make it a notification of RFC 6533: message/global-delivery-status with utf-8
 * addresses. RET and size
 * decide whether the message or its header comes back (RFC 3461 6.2); the caller did.
 */
#include "queue/bounce.h"

#include "base/addr.h"
#include "mime/build.h"

#include <stdio.h>

bool bounce_is_8bit(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & (char)0x80)
			return true;
	return false;
}

void bounce_xtext_decode(str s, struct buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		int high = i + 2 < s.n ? ascii_hex_value(s.p[i + 1]) : -1;
		int low = i + 2 < s.n ? ascii_hex_value(s.p[i + 2]) : -1;

		if (s.p[i] != '+' || high < 0 || low < 0) {
			buf_add_char(out, s.p[i]);
			continue;
		}
		buf_add_char(out, (char)(high << 4 | low));
		i += 2;
	}
}

static struct date date_of(const struct bounce *b, int64_t us)
{
	return (struct date){ .seconds = us / 1000000, .zone = b->zone };
}

static void date_field(struct buf *out, const char *name, struct date when)
{
	buf_printf(out, "%s: ", name);
	date_format_rfc5322(when, out);
	buf_add(out, S("\r\n"));
}

/* ---- words ---- */

/* What a status means to somebody who wrote a mail; the first that the status begins with. */
static const struct {
	const char *status, *words;
} meanings[] = {
	{ "5.1.10", "That domain does not take mail." },
	{ "5.1.1", "There is no such address there. Please check it for typing errors." },
	{ "5.1.2", "There is no such domain. Please check it for typing errors." },
	{ "5.1.3",
	  "The address is not written as addresses are. Please check it for typing errors." },
	{ "5.2.2", "The recipient's mailbox is full." },
	{ "5.2.3", "The message is larger than the recipient may get." },
	{ "5.3.4", "The message is larger than the recipient's server takes." },
	{ "5.4.6", "The mail would go round in circles; the recipient's domain or our next hop is "
		   "set up wrongly." },
	{ "5.6.7", "The recipient's server does not take addresses or headers with international "
		   "characters." },
	{ "5.7", "The recipient's server does not take this message as a matter of policy." },
	{ "4.4.1", "The recipient's server could not be reached." },
	{ "4.4.2", "The connection to the recipient's server broke." },
	{ "4.4.3", "The recipient's domain could not be looked up." },
};

static const char *meaning_of(str status)
{
	for (size_t i = 0; i < ARRAY_LEN(meanings); i++) {
		str prefix = str_from_c(meanings[i].status);

		if (str_eq(status, prefix) ||
		    (str_starts(status, prefix) && status.p[prefix.n] == '.'))
			return meanings[i].words;
	}
	return NULL;
}

/* Did a server say this, or are they our own words? */
static bool is_reply(str reply)
{
	return reply.n >= 3 && ascii_is_digit(reply.p[0]) && ascii_is_digit(reply.p[1]) &&
	       ascii_is_digit(reply.p[2]);
}

/* One line of text: what is not a character becomes a space. */
static void add_line(struct buf *out, str s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_char(out, (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? ' ' : s.p[i]);
}

static bool is_success(enum queue_notice notice)
{
	return notice == NOTICE_RELAYED || notice == NOTICE_DELIVERED || notice == NOTICE_EXPANDED;
}

static void words_rcpt(const struct bounce *b, const struct bounce_rcpt *r, struct buf *out)
{
	const char *meaning = is_success(b->notice) ? NULL : meaning_of(r->status);

	buf_add_char(out, '<');
	add_line(out, r->record->address);
	buf_add(out, S(">\r\n"));
	if (r->record->original.n && !str_case_eq(r->record->original, r->record->address)) {
		buf_add(out, S("    (you wrote to <"));
		add_line(out, r->record->original);
		buf_add(out, S(">)\r\n"));
	}
	if (r->reply.n && is_reply(r->reply)) {
		buf_add(out, S("    The server "));
		add_line(out, r->remote);
		buf_add(out, S(" said:\r\n    "));
	} else if (r->reply.n) {
		buf_add(out, S("    "));
	}
	add_line(out, r->reply);
	buf_add(out, r->reply.n ? S("\r\n") : STR_EMPTY);
	if (meaning)
		buf_printf(out, "    %s\r\n", meaning);
	buf_add(out, S("\r\n"));
}

static void words_begin(const struct bounce *b, struct buf *out)
{
	bool is_expired = b->count && b->rcpts[0].is_expired;

	buf_printf(out, "This is the mail server %.*s.\r\n\r\n", STR_ARGS(b->hostname));
	switch (b->notice) {
	case NOTICE_DELAYED:
		buf_add(out, S("Your message has NOT reached the recipients below yet. You need "
			       "not send it again:\r\n"
			       "the server goes on trying until "));
		date_format_rfc5322(date_of(b, b->gives_up_us), out);
		buf_add(out, S(".\r\n\r\n"));
		break;
	case NOTICE_RELAYED:
		buf_add(out, S("Your message was handed to the mail server of the recipients "
			       "below, as you asked to be told.\r\n"
			       "That server does not tell of deliveries, so this is the last you "
			       "will hear of it.\r\n\r\n"));
		break;
	case NOTICE_DELIVERED:
		buf_add(out, S("Your message was delivered to the mailboxes of the recipients "
			       "below, as you asked to be told.\r\n"
			       "Whether somebody read it is not known.\r\n\r\n"));
		break;
	case NOTICE_EXPANDED:
		buf_add(out, S("Your message was passed on to all those behind the addresses "
			       "below, as you asked to be told.\r\n"
			       "There are several behind each, and they do not tell of "
			       "deliveries.\r\n\r\n"));
		break;
	case NOTICE_FAILED:
	case NOTICE_NONE:
		buf_add(out, S("Your message could not be delivered to the recipients below"));
		buf_add(out, is_expired ? S(". The server tried again\r\nand again and has now "
					    "given up. What went wrong last:")
					: S(",\r\nand the server does not try again."));
		buf_add(out, S("\r\n\r\n"));
		break;
	}
}

static void part_words(const struct bounce *b, str boundary, struct buf *out)
{
	struct buf text;

	buf_init(&text, BOUNCE_SIZE_MAX);
	words_begin(b, &text);
	for (size_t i = 0; i < b->count; i++)
		words_rcpt(b, &b->rcpts[i], &text);
	if (b->original.p)
		buf_add(&text, b->is_whole ? S("Your message is attached.\r\n")
					   : S("The header of your message is attached.\r\n"));
	buf_printf(&text, "Our number of it is %.*s.\r\n", STR_ARGS(b->message));
	if (bounce_is_8bit(buf_str(&text)))
		build_part(out, boundary, S("text/plain; charset=utf-8"), S("8bit"));
	else
		build_part(out, boundary, S("text/plain; charset=us-ascii"), S("7bit"));
	buf_add(out, buf_str(&text));
	if (buf_failed(&text))
		out->failed = true;
	buf_free(&text);
}

/* ---- fields ---- */

static bool is_global(const struct bounce *b)
{
	for (size_t i = 0; i < b->count; i++)
		if (bounce_is_8bit(b->rcpts[i].record->address) ||
		    bounce_is_8bit(b->rcpts[i].record->original) ||
		    bounce_is_8bit(b->rcpts[i].record->orcpt))
			return true;
	return bounce_is_8bit(b->sender);
}

static void field(struct buf *out, const char *name, const char *type, str value)
{
	struct buf text;

	buf_init(&text, 8192);
	buf_add(&text, str_from_c(type));
	buf_add(&text, value);
	build_structured(out, str_from_c(name), buf_str(&text));
	if (buf_failed(&text))
		out->failed = true;
	buf_free(&text);
}

static const char *type_of(str address)
{
	/* RFC 6533 3: the utf-8 address type. */
	return bounce_is_8bit(address) ? "utf-8; " : "rfc822; ";
}

static void original_recipient(const struct rec_queue_record *r, struct buf *out)
{
	struct buf text;
	str address = r->orcpt, type = str_cut(&address, ';');

	if (!r->orcpt.n)
		return;
	buf_init(&text, 2048);
	buf_add(&text, type);
	buf_add(&text, S("; "));
	/* RFC 3464 2.3.1: the value of ORCPT, its xtext decoded. */
	bounce_xtext_decode(address, &text);
	build_structured(out, S("Original-Recipient"), buf_str(&text));
	buf_free(&text);
}

static const char *action_of(enum queue_notice notice)
{
	static const char *const actions[] = {
		[NOTICE_NONE] = "failed",	  [NOTICE_FAILED] = "failed",
		[NOTICE_DELAYED] = "delayed",	  [NOTICE_RELAYED] = "relayed",
		[NOTICE_DELIVERED] = "delivered", [NOTICE_EXPANDED] = "expanded"
	};

	return actions[notice];
}

/* RFC 3464 2.3.4: the status is not optional. */
static str status_of(const struct bounce *b, const struct bounce_rcpt *r)
{
	if (r->status.n)
		return r->status;
	return is_success(b->notice)	     ? S("2.0.0")
	       : b->notice == NOTICE_DELAYED ? S("4.0.0")
					     : S("5.0.0");
}

/* RFC 3464 2.1.2, 2.3.5: the domain of the server, or its address as RFC 5321 4.1.3 writes it. A
 * socket of this machine has neither. */
static void remote_mta(str remote, struct buf *out)
{
	size_t bracket = str_find_char(remote, '[');
	str host = str_head(remote, bracket == STR_NONE ? str_find_char(remote, ':') : bracket);
	char literal[ADDR_TEXT_MAX + 16];
	struct addr address;

	if (!host.n || host.p[0] == '/')
		return;
	if (!addr_parse_ip(host, &address)) {
		int n = snprintf(literal, sizeof(literal), "[%s%.*s]",
				 address.family == ADDR_IP6 ? "IPv6:" : "",
				 (int)MIN(host.n, (size_t)ADDR_TEXT_MAX), host.p);

		host = str_of(literal, n < 0 ? 0 : (size_t)n);
	}
	field(out, "Remote-MTA", "dns; ", host);
}

static void fields_rcpt(const struct bounce *b, const struct bounce_rcpt *r, struct buf *out)
{
	buf_add(out, S("\r\n"));
	original_recipient(r->record, out);
	field(out, "Final-Recipient", type_of(r->record->address), r->record->address);
	field(out, "Action", "", str_from_c(action_of(b->notice)));
	field(out, "Status", "", status_of(b, r));
	remote_mta(r->remote, out);
	/* RFC 3464 2.3.6: of another mail system alone; "smtp" is its reply as it came. */
	if (is_reply(r->reply))
		field(out, "Diagnostic-Code", "smtp; ", r->reply);
	else if (r->reply.n)
		field(out, "Diagnostic-Code", "x-posthorn; ", r->reply);
	/* RFC 3464 2.3.7: what is delivered here is so when it is taken. */
	date_field(out, "Last-Attempt-Date",
		   date_of(b, b->notice == NOTICE_DELIVERED || b->notice == NOTICE_EXPANDED
				      ? b->arrived_us
				      : b->now_us));
	if (b->notice == NOTICE_DELAYED)
		date_field(out, "Will-Retry-Until", date_of(b, b->gives_up_us));
}

static void part_fields(const struct bounce *b, str boundary, struct buf *out)
{
	if (is_global(b))
		build_part(out, boundary, S("message/global-delivery-status"), S("8bit"));
	else
		build_part(out, boundary, S("message/delivery-status"), STR_EMPTY);
	field(out, "Reporting-MTA", "dns; ", b->hostname);
	if (b->envid.n) {
		struct buf text;

		buf_init(&text, 1024);
		bounce_xtext_decode(b->envid, &text);
		field(out, "Original-Envelope-Id", "", buf_str(&text));
		buf_free(&text);
	}
	date_field(out, "Arrival-Date", date_of(b, b->arrived_us));
	field(out, "X-Posthorn-Message", "", b->message);
	for (size_t i = 0; i < b->count; i++)
		fields_rcpt(b, &b->rcpts[i], out);
}

/* ---- the message ---- */

static void part_original(const struct bounce *b, str boundary, struct buf *out)
{
	bool is_8bit = bounce_is_8bit(b->original), global = is_8bit && is_global(b);
	str type = b->is_whole ? (global ? S("message/global") : S("message/rfc822"))
			       : (global ? S("message/global-headers") : S("text/rfc822-headers"));

	if (!b->original.p)
		return;
	build_part(out, boundary, type, is_8bit ? S("8bit") : STR_EMPTY);
	/* RFC 2046 5.1.1: the line end before the boundary is the boundary's; the message keeps its
	 * own. */
	buf_add(out, b->original);
}

static str subject_of(enum queue_notice notice)
{
	return notice == NOTICE_DELAYED	  ? S("Your message is delayed (the server goes on trying)")
	       : notice == NOTICE_RELAYED ? S("Your message was handed on")
	       : notice == NOTICE_DELIVERED ? S("Your message was delivered")
	       : notice == NOTICE_EXPANDED  ? S("Your message was passed on")
					    : S("Your message could not be delivered");
}

void bounce_compose(const struct bounce *b, struct buf *out)
{
	char room[BUILD_BOUNDARY_MAX];
	str boundary = build_boundary(room, b->random[0]);
	struct date now = date_of(b, b->now_us);

	buf_printf(out, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\r\n", STR_ARGS(b->origin));
	buf_add(out, S("To: <"));
	add_line(out, b->sender);
	buf_add(out, S(">\r\n"));
	build_field(out, S("Subject"), subject_of(b->notice));
	build_date(out, now);
	build_message_id(out, now, b->random[1], b->hostname);
	/* RFC 3834 5: so that nothing answers it by itself. */
	buf_add(out, S("Auto-Submitted: auto-replied\r\n"));
	/* RFC 6522 3 */
	build_multipart(out, S("report"), S("; report-type=delivery-status"), boundary);
	part_words(b, boundary, out);
	part_fields(b, boundary, out);
	part_original(b, boundary, out);
	build_end(out, boundary);
}
