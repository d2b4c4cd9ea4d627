/* Replies of an SMTP or LMTP server.
 *
 * RFC 5321 4.2: three digits, '-' for "more follows" or a space, text. 4.2.1 has every line of a
 * reply bear the same code, and a client that ignored it could be led to take a refusal for an
 * acceptance, so a change of code is an error, which the caller turns into a temporary failure. A
 * code without text is taken, since 4.2 asks clients to. A first digit of 0, 1 or above 5 means
 * nothing in SMTP and is an error as well.
 *
 * The text is cleaned where it comes in, once, instead of at each of the places where it goes out:
 * it lands in log lines, in queue records and in the header fields of bounces, and a byte that is
 * special in one of these must not come from a peer.
 */
#include "smtp/client_answer.h"

void smtp_answer_begin(struct smtp_answer *r)
{
	*r = (struct smtp_answer){ 0 };
}

str smtp_answer_text(const struct smtp_answer *r)
{
	return str_of(r->text, r->text_n);
}

str smtp_answer_status(const struct smtp_answer *r)
{
	return str_of(r->status, r->status_n);
}

size_t smtp_text_clean(str s, char *out, size_t max)
{
	size_t n = 0;

	for (; n < s.n && n < max; n++) {
		char c = s.p[n] == '\t' ? ' ' : s.p[n];

		out[n] = c >= ' ' && c <= '~' ? c : '?';
	}
	return n;
}

/* Digits at the front of *s, one to three: how many, and *s goes past them. */
static size_t take_digits(str *s)
{
	size_t n = 0;

	while (n < s->n && n < 3 && ascii_is_digit(s->p[n]))
		n++;
	*s = str_from(*s, n);
	return n;
}

str smtp_status_parse(str s, unsigned class)
{
	str rest = s;

	/* RFC 3463 2: class "." subject "." detail; RFC 2034 4: its class is the code's. */
	if (rest.n < 5 || rest.p[0] != (char)('0' + class) || rest.p[1] != '.')
		return STR_EMPTY;
	rest = str_from(rest, 2);
	if (!take_digits(&rest) || !rest.n || rest.p[0] != '.')
		return STR_EMPTY;
	rest = str_from(rest, 1);
	if (!take_digits(&rest) || (rest.n && rest.p[0] != ' '))
		return STR_EMPTY;
	return str_head(s, s.n - rest.n);
}

static void text_add(struct smtp_answer *r, str s)
{
	if (!s.n)
		return;
	if (r->text_n < SMTP_ANSWER_TEXT_MAX)
		r->text[r->text_n++] = ' ';
	r->text_n = (uint16_t)(r->text_n + smtp_text_clean(s, r->text + r->text_n,
							   SMTP_ANSWER_TEXT_MAX - r->text_n));
}

/* The code at the front of a line, 0 when there is none. */
static unsigned code_of(str line)
{
	if (line.n < 3 || line.p[0] < '2' || line.p[0] > '5' || !ascii_is_digit(line.p[1]) ||
	    !ascii_is_digit(line.p[2]))
		return 0;
	if (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-')
		return 0;
	return (unsigned)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0'));
}

enum err smtp_answer_add(struct smtp_answer *r, str line, str *text)
{
	unsigned code = code_of(line);
	str words = str_from(line, 4), status;

	*text = words;
	if (!code || (r->lines && code != r->code) || r->lines >= SMTP_ANSWER_LINES_MAX)
		return ERR_PROTOCOL;
	status = smtp_status_parse(words, code / 100);
	if (!r->lines) {
		r->code = (uint16_t)code;
		r->text_n =
			(uint16_t)smtp_text_clean(str_head(line, 3), r->text, SMTP_ANSWER_TEXT_MAX);
		if (status.n && status.n <= SMTP_ANSWER_STATUS_MAX) {
			r->status_n = (uint8_t)status.n;
			memcpy(r->status, status.p, status.n);
		}
	} else if (status.n && str_eq(status, smtp_answer_status(r))) {
		/* RFC 2034 4: it is repeated on each line; once is enough for people. */
		words = str_trim(str_from(words, status.n));
	}
	r->lines++;
	text_add(r, str_trim(words));
	return line.n > 3 && line.p[3] == '-' ? ERR_AGAIN : ERR_OK;
}
