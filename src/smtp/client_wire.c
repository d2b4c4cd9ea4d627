/* The encoder of message data.
 *
 * Three stages: bytes become lines here; with `to_7bit` lines go through the MIME converter
 * (client_downgrade.c); and
 * segment_write makes the wire's form. Stored mail has CRLF alone, since the way in refuses
 * anything else, but this is the last place before the network and the receiver may be one that
 * takes LF.LF for the end of data (SMTP smuggling, CVE-2023-51764 and others), so nothing is
 * trusted: a bare LF becomes CRLF; a bare CR, which no reader agrees upon, becomes a space, as
 * Postfix does, because making a line end of it could make a header field out of text that a filter
 * had read as a value.
 *
 * A line longer than the limit is folded with CRLF and a space, as Postfix does: servers that
 * enforce RFC 5321 4.5.3.1.6 would refuse the message otherwise. Inside a header this is a fold
 * that changes nothing.
 */
#include "smtp/client_wire_priv.h"

void segment_write(struct segment s, struct buf *out)
{
	if (!s.begins)
		buf_add(out, S("\r\n "));
	/* RFC 5321 4.5.2: a period at the front of a line is doubled. */
	else if (s.text.n && s.text.p[0] == '.')
		buf_add_char(out, '.');
	buf_add(out, s.text);
	if (s.ends)
		buf_add(out, S("\r\n"));
}

static void emit(struct smtp_wire *d, str text, bool ends, struct buf *out)
{
	struct segment s = { .text = text, .begins = !d->line_began, .ends = ends };

	d->line_began = !ends;
	d->line_n = 0;
	if (d->downgrade)
		smtp_downgrade_add(d->downgrade, s, out);
	else
		segment_write(s, out);
}

static void line_add(struct smtp_wire *d, str s, struct buf *out)
{
	while (s.n) {
		/* A fold's space counts in the line that it begins. */
		size_t room = (d->line_began ? SMTP_WIRE_LINE_MAX - 1 : SMTP_WIRE_LINE_MAX) -
			      d->line_n,
		       n;

		if (!room) {
			emit(d, str_of(d->line, d->line_n), false, out);
			continue;
		}
		n = MIN(room, s.n);
		memcpy(d->line + d->line_n, s.p, n);
		d->line_n += n;
		s = str_from(s, n);
	}
}

enum err smtp_wire_begin(struct smtp_wire *d, bool to_7bit)
{
	d->line_n = 0;
	d->line_began = d->has_cr = false;
	d->downgrade = to_7bit ? smtp_downgrade_new() : NULL;
	return to_7bit && !d->downgrade ? ERR_NO_MEMORY : ERR_OK;
}

void smtp_wire_free(struct smtp_wire *d)
{
	smtp_downgrade_free(d->downgrade);
	d->downgrade = NULL;
}

/* A stretch without LF; a CR at its end waits for what comes next. */
static void text_add(struct smtp_wire *d, str s, struct buf *out)
{
	while (s.n) {
		size_t n = str_find_char(s, '\r');

		if (d->has_cr)
			line_add(d, S(" "), out);
		d->has_cr = n != STR_NONE;
		line_add(d, str_head(s, d->has_cr ? n : s.n), out);
		s = d->has_cr ? str_from(s, n + 1) : STR_EMPTY;
	}
}

/* A whole short CRLF line inside of the piece, which is nearly all of them, is not copied. */
static bool is_plain_line(const struct smtp_wire *d, str line)
{
	return !d->line_n && !d->line_began && !d->has_cr && line.n &&
	       line.n <= SMTP_WIRE_LINE_MAX + 1 && str_find_char(line, '\r') == line.n - 1;
}

void smtp_wire_add(struct smtp_wire *d, str piece, struct buf *out)
{
	while (piece.n) {
		size_t n = str_find_char(piece, '\n');

		if (n == STR_NONE) {
			text_add(d, piece, out);
			return;
		}
		if (is_plain_line(d, str_head(piece, n))) {
			emit(d, str_head(piece, n - 1), true, out);
		} else {
			text_add(d, str_head(piece, n), out);
			d->has_cr = false;
			emit(d, str_of(d->line, d->line_n), true, out);
		}
		piece = str_from(piece, n + 1);
	}
}

void smtp_wire_end(struct smtp_wire *d, struct buf *out)
{
	if (d->has_cr)
		line_add(d, S(" "), out);
	d->has_cr = false;
	if (d->line_n || d->line_began)
		emit(d, str_of(d->line, d->line_n), true, out);
	if (d->downgrade)
		smtp_downgrade_end(d->downgrade, out);
	buf_add(out, S(".\r\n"));
}
