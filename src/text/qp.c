/* Quoted-printable (RFC 2045 6.7).
 *
 * The decoder holds back what it cannot judge yet: an escape cut by the end of a piece, and white
 * space, which is dropped when a line ends behind it (rule 3). Everything between is copied in runs
 * found by memchr-like scanning, not byte by byte.
 *
 * Rule for broken escapes: they stay as they are, as RFC 2045 6.7 note (1) suggests. */
#include "text/qp.h"

static void flush_held(struct qp_decoder *d, struct buf *out)
{
	buf_add(out, str_of(d->held, d->count));
	d->count = 0;
}

static void hold(struct qp_decoder *d, char c, struct buf *out)
{
	if (d->count == QP_HELD_MAX)
		flush_held(d, out);
	d->held[d->count++] = c;
}

/* One byte behind a held '='. */
static void after_equals(struct qp_decoder *d, char c, struct buf *out)
{
	char last = d->held[d->count - 1];

	if (c == '\n') {
		d->count = 0; /* RFC 2045 6.7 (5): a soft line break */
	} else if (d->count == 2 && ascii_hex_value(last) >= 0 && ascii_hex_value(c) >= 0) {
		d->count = 0;
		buf_add_char(out, (char)(ascii_hex_value(last) << 4 | ascii_hex_value(c)));
	} else if (d->count == 1 && ascii_hex_value(c) >= 0) {
		hold(d, c, out);
	} else if ((last == '=' || ascii_is_space(last)) && (c == ' ' || c == '\t' || c == '\r') &&
		   d->count < QP_HELD_MAX) {
		hold(d, c, out); /* white space that was added behind a soft break */
	} else {
		flush_held(d, out);
		qp_decode_piece(d, str_of(&c, 1), out);
	}
}

static bool is_plain(char c)
{
	return c != '=' && c != ' ' && c != '\t' && c != '\r' && c != '\n';
}

void qp_decode_piece(struct qp_decoder *d, str piece, struct buf *out)
{
	size_t i = 0;

	while (i < piece.n) {
		char c = piece.p[i];
		size_t from = i;

		if (d->count && d->held[0] == '=') {
			after_equals(d, c, out);
			i++;
			continue;
		}
		if (is_plain(c)) {
			flush_held(d, out);
			while (i < piece.n && is_plain(piece.p[i]))
				i++;
			buf_add(out, str_of(piece.p + from, i - from));
			continue;
		}
		i++;
		if (c == '\n') {
			bool crlf = d->count && d->held[d->count - 1] == '\r';

			d->count = 0; /* RFC 2045 6.7 (3): white space at the line's end goes */
			buf_add(out, crlf ? S("\r\n") : S("\n"));
		} else {
			if (c == '=')
				flush_held(d, out);
			hold(d, c, out);
		}
	}
}

void qp_decode_end(struct qp_decoder *d, struct buf *out)
{
	/* "=" at the very end is a soft break before nothing; white space there ends a line. */
	if (d->count > 1 && d->held[0] == '=' && !ascii_is_space(d->held[1]))
		flush_held(d, out);
	d->count = 0;
}

static void escape(char c, struct buf *out)
{
	static const char hex[] = "0123456789ABCDEF";
	unsigned char u = (unsigned char)c;
	char e[3] = { '=', hex[u >> 4], hex[u & 15] };

	buf_add(out, str_of(e, 3));
}

/* How many characters a byte takes. */
static size_t width_of(char c, size_t column, bool last)
{
	/* RFC 2045 6.7 (3): no white space at a line's end. */
	if (c == ' ' || c == '\t')
		return last ? 3 : 1;
	/* A dot that begins a line is escaped, for transports that treat it badly. */
	if (c == '.' && column == 0)
		return 3;
	return c > ' ' && c < 0x7F && c != '=' ? 1 : 3;
}

/* One line without its end. */
static void encode_line(str line, struct buf *out)
{
	size_t column = 0;

	for (size_t i = 0; i < line.n; i++) {
		bool last = i + 1 == line.n;

		/* RFC 2045 6.7 (5): 76 characters, the "=" of a soft break among them. */
		if (column + width_of(line.p[i], column, last) >
		    (size_t)(last ? QP_LINE : QP_LINE - 1)) {
			buf_add(out, S("=\r\n"));
			column = 0;
		}
		if (width_of(line.p[i], column, last) == 1) {
			buf_add_char(out, line.p[i]);
			column += 1;
		} else {
			escape(line.p[i], out);
			column += 3;
		}
	}
}

void qp_encode(str s, struct buf *out)
{
	while (s.n) {
		bool ended = memchr(s.p, '\n', s.n) != NULL;

		/* Behind the last line end every byte is text, a CR too. */
		encode_line(ended ? str_cut_line(&s) : s, out);
		if (!ended)
			return;
		buf_add(out, S("\r\n"));
	}
}
