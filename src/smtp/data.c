/* The end-of-data decoder.
 *
 * SMTP smuggling (2023) showed what happens when two servers disagree on where a message ends: one
 * of them is made to relay a body that the other reads as two messages. So there is one rule here,
 * RFC 5321 2.3.8 and 4.1.1.4: CRLF.CRLF, where the first CRLF may be that of the DATA command.
 * LF.LF, LF.CRLF, CRLF.LF, CR.CR and all their kin are message text, and make the whole message
 * refused.
 *
 * Refused, not normalised: a message that needs repair has two readings by definition, and its DKIM
 * signature was made over one of them. And read to its true end first, rather than cutting the
 * connection, so that the client gets its 5xx and returns the mail to its sender instead of trying
 * again for days.
 *
 * The states are the bytes of "\r\n.\r\n" seen so far:
 *
 *	START   at the beginning of a line              TEXT    in a line
 *	DOT     "." at the beginning                    CR      "\r" in a line
 *	DOT_CR  ".\r" at the beginning
 *
 * Speed: a line costs two memchr (its CR; a LF before that) and everything between two removed dots
 * is one copy. A table of states walked byte by byte was turned down: it is ten times slower.
 */
#include "smtp/data.h"

enum data_state { STATE_START, STATE_TEXT, STATE_CR, STATE_DOT, STATE_DOT_CR };

void smtp_data_init(struct smtp_data *d, bool dots)
{
	*d = (struct smtp_data){ .dots = dots, .state = STATE_START };
}

/* The length of the piece of a line at the front of s, up to its CR; notes what it must not hold.
 */
static size_t text_piece(struct smtp_data *d, str s)
{
	const char *cr = memchr(s.p, '\r', s.n);
	size_t n = cr ? (size_t)(cr - s.p) : s.n;

	if (memchr(s.p, '\n', n))
		d->faults |= SMTP_DATA_BARE_LF;
	d->line += n;
	if (d->line > SMTP_TEXT_LINE_MAX)
		d->faults |= SMTP_DATA_LINE_TOO_LONG;
	return n;
}

static void line_ended(struct smtp_data *d)
{
	d->state = STATE_START;
	d->line = 0;
}

/* The state is not TEXT: what follows depends on the next byte alone. False: it is not taken, but
 * begins text. */
static bool step(struct smtp_data *d, char c)
{
	switch ((enum data_state)d->state) {
	case STATE_START:
		if (c != '.' || !d->dots)
			break;
		d->state = STATE_DOT;
		return true;
	case STATE_DOT:
		if (c != '\r')
			break;
		d->state = STATE_DOT_CR;
		return true;
	case STATE_DOT_CR:
		if (c == '\n') {
			d->is_done = true;
			return true;
		}
		d->faults |= SMTP_DATA_BARE_CR;
		break;
	case STATE_CR:
		if (c == '\n') {
			line_ended(d);
			return true;
		}
		d->faults |= SMTP_DATA_BARE_CR;
		break;
	case STATE_TEXT:
		break;
	}
	d->state = STATE_TEXT;
	return false;
}

static void put(struct smtp_data *d, str s, struct buf *out)
{
	if (!d->faults && s.n)
		buf_add(out, s);
}

size_t smtp_data_decode(struct smtp_data *d, str in, struct buf *out)
{
	size_t at = 0, from = 0; /* [from, at) is taken and not yet put out */

	while (at < in.n && !d->is_done) {
		if (d->state == STATE_TEXT) {
			at += text_piece(d, str_from(in, at));
			if (at < in.n) {
				at++;
				d->state = STATE_CR;
			}
			continue;
		}
		if (!step(d, in.p[at]))
			continue;
		if (d->state ==
		    STATE_DOT) { /* RFC 5321 4.5.2: a dot at the beginning of a line is removed */
			put(d, str_sub(in, from, at - from), out);
			from = at + 1;
		}
		at++;
	}
	if (at && memchr(in.p, 0, at))
		d->faults |= SMTP_DATA_NUL;
	/* ".\r" of a possible end is not text: it is either the end or a fault. */
	if (!d->is_done && d->state != STATE_DOT_CR)
		put(d, str_sub(in, from, at - from), out);
	return at;
}

void smtp_data_end(struct smtp_data *d, struct buf *out)
{
	if (d->state == STATE_CR)
		d->faults |= SMTP_DATA_BARE_CR;
	else if (d->state == STATE_TEXT)
		put(d, S("\r\n"), out);
	line_ended(d);
}

const char *smtp_data_fault_text(const struct smtp_data *d, uint16_t *code, const char **status)
{
	static const struct {
		unsigned fault;
		uint16_t code;
		const char *status, *text;
	} rows[] = {
		{ SMTP_DATA_BARE_LF, 550, "5.5.2", "Bare <LF> in the message (RFC 5321 2.3.8)" },
		{ SMTP_DATA_BARE_CR, 550, "5.5.2", "Bare <CR> in the message (RFC 5321 2.3.8)" },
		{ SMTP_DATA_NUL, 550, "5.6.0", "NUL byte in the message (RFC 5322 2.3)" },
		{ SMTP_DATA_LINE_TOO_LONG, 500, "5.5.2", "Line too long in the message" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (d->faults & rows[i].fault) {
			*code = rows[i].code;
			*status = rows[i].status;
			return rows[i].text;
		}
	return NULL;
}
