/* ENVELOPE, and the strings of IMAP answers.
 *
 * A string is written after one look at its bytes: quoted when it is plain ASCII with few quotes,
 * else as a literal. The limit on quotes is where the literal becomes the shorter form. */
#include "mime/envelope.h"

/* More '"' and '\' than this in a string make it a literal. */
enum { ESCAPES_MAX = 4 };

static void write_literal(str s, struct buf *out)
{
	buf_add_char(out, '{');
	buf_add_u64(out, s.n);
	buf_add(out, S("}\r\n"));
	buf_add(out, s);
}

/* What a string needs. */
struct needs {
	size_t escapes;
	bool cleaning; /* holds CR, LF or NUL */
	bool literal;
};

static struct needs needs_of(str s)
{
	struct needs n = { 0 };

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '"' || c == '\\')
			n.escapes++;
		else if (c & 0x80)
			n.literal = true;
		else if (c == '\r' || c == '\n')
			n.cleaning = true;
		else if (c == 0)
			n.cleaning = n.literal = true;
	}
	n.literal = n.literal || n.escapes > ESCAPES_MAX;
	return n;
}

static void write_quoted(str s, bool escapes, struct buf *out)
{
	buf_add_char(out, '"');
	for (size_t i = 0; escapes && i < s.n; i++) {
		if (s.p[i] == '"' || s.p[i] == '\\')
			buf_add_char(out, '\\');
		buf_add_char(out, s.p[i]);
	}
	if (!escapes)
		buf_add(out, s);
	buf_add_char(out, '"');
}

/* Without CR and LF, and with 0x80 for NUL: RFC 3501 9 forbids NUL everywhere. */
static void clean(str s, struct buf *to)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '\r' && s.p[i] != '\n')
			buf_add_char(to, s.p[i] ? s.p[i] : (char)0x80);
}

void imap_write_nstring(str s, struct buf *out)
{
	struct needs n = needs_of(s);
	struct buf cleaned;

	if (!s.p) {
		buf_add(out, S("NIL"));
		return;
	}
	buf_init(&cleaned, s.n + 1);
	if (n.cleaning) {
		clean(s, &cleaned);
		s = buf_str(&cleaned);
	}
	if (n.literal)
		write_literal(s, out);
	else
		write_quoted(s, n.escapes > 0, out);
	if (buf_failed(&cleaned))
		out->failed = true;
	buf_free(&cleaned);
}

static bool text_is_simple(str s)
{
	bool space = true;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '\t' || c == '"' || c == '\\' || c == '\r' || c == '\n' || c == 0 ||
		    (c & 0x80) || (c == ' ' && space))
			return false;
		space = c == ' ';
	}
	return s.n == 0 || !space;
}

void imap_write_text(str s, struct buf *out)
{
	struct buf b;
	bool space = true;

	if (text_is_simple(s)) {
		write_quoted(s, false, out);
		return;
	}
	buf_init(&b, s.n + 1);
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '\r' || c == '\n')
			continue;
		if (c != ' ' && c != '\t')
			buf_add_char(&b, c ? c : (char)0x80);
		else if (!space)
			buf_add_char(&b, ' ');
		space = c == ' ' || c == '\t';
	}
	if (space && buf_len(&b))
		buf_truncate(&b, buf_len(&b) - 1);
	if (buf_len(&b))
		write_literal(buf_str(&b), out);
	else
		buf_add(out, S("\"\""));
	if (buf_failed(&b))
		out->failed = true;
	buf_free(&b);
}

static void write_addresses(const struct address_list *list, struct buf *out)
{
	if (!list->first) {
		buf_add(out, S("NIL"));
		return;
	}
	buf_add_char(out, '(');
	for (const struct address *e = list->first; e; e = e->next) {
		buf_add_char(out, '(');
		if (e->name.p)
			imap_write_text(e->name, out);
		else
			buf_add(out, S("NIL"));
		buf_add_char(out, ' ');
		imap_write_nstring(e->route, out);
		buf_add_char(out, ' ');
		imap_write_nstring(e->mailbox, out);
		buf_add_char(out, ' ');
		imap_write_nstring(e->domain, out);
		buf_add_char(out, ')');
	}
	buf_add_char(out, ')');
}

void mime_write_envelope(const struct mime_envelope *e, struct buf *out)
{
	/* RFC 3501 7.4.2: an absent Sender or Reply-To is From. */
	const struct address_list *lists[] = {
		&e->from,
		e->sender.first ? &e->sender : &e->from,
		e->reply_to.first ? &e->reply_to : &e->from,
		&e->to,
		&e->cc,
		&e->bcc,
	};

	buf_add_char(out, '(');
	imap_write_nstring(e->date, out);
	buf_add_char(out, ' ');
	if (e->subject.p)
		imap_write_text(e->subject, out);
	else
		buf_add(out, S("NIL"));
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		buf_add_char(out, ' ');
		write_addresses(lists[i], out);
	}
	buf_add_char(out, ' ');
	imap_write_nstring(e->in_reply_to, out);
	buf_add_char(out, ' ');
	imap_write_nstring(e->message_id, out);
	buf_add_char(out, ')');
}
