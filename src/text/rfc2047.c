/* Encoded words (RFC 2047).
 *
 * Decoding runs over the value once. It remembers the charset of the word before and keeps its
 * converter open while words in the same charset follow directly, so that a character that a sender
 * split over two words (RFC 2047 5 forbids it; many do it) is put together. White space between two
 * encoded words is dropped (6.2), so it is held until the next thing is known.
 *
 * Encoding writes UTF-8 in B or Q, in words that hold whole characters. */
#include "text/rfc2047.h"

#include "text/base64.h"
#include "text/charset.h"
#include "text/utf8.h"

struct word {
	str charset, text;
	char encoding; /* 'b' or 'q' */
	size_t length; /* of the whole word */
};

/* Recognises an encoded word at the front of s. */
static bool word_at(str s, struct word *w)
{
	str rest = str_from(s, 2);
	size_t mark = str_find_char(str_head(rest, CHARSET_NAME_MAX + 32), '?'), end;

	if (mark == STR_NONE || mark == 0 || rest.n < mark + 3 || rest.p[mark + 2] != '?')
		return false;
	w->charset = str_head(rest, mark);
	w->encoding = ascii_lower(rest.p[mark + 1]);
	if (w->encoding != 'b' && w->encoding != 'q')
		return false;
	w->text = str_head(str_from(rest, mark + 3), RFC2047_READ_MAX);
	end = str_find(w->text, S("?="));
	if (end == STR_NONE)
		return false;
	w->text = str_head(w->text, end);
	w->length = 2 + mark + 3 + end + 2;
	/* RFC 2231 5: a language may follow the charset. */
	if (str_find_char(w->charset, '*') != STR_NONE)
		w->charset = str_head(w->charset, str_find_char(w->charset, '*'));
	return true;
}

/* RFC 2047 4.2: the Q encoding. */
static void q_decode(str s, struct buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '=' && i + 2 < s.n && ascii_hex_value(s.p[i + 1]) >= 0 &&
		    ascii_hex_value(s.p[i + 2]) >= 0) {
			c = (char)(ascii_hex_value(s.p[i + 1]) << 4 | ascii_hex_value(s.p[i + 2]));
			i += 2;
		} else if (c == '_') {
			c = ' ';
		}
		buf_add_char(out, c);
	}
}

struct reader {
	struct charset *charset; /* of the word just read, NULL behind other text */
	str charset_name;
	struct buf bytes;
	struct buf *out;
};

static void close_charset(struct reader *r)
{
	if (r->charset)
		charset_end(r->charset, r->out);
	charset_free(r->charset);
	r->charset = NULL;
}

/* Writes a word's text; false when its charset is unknown. */
static bool read_word(struct reader *r, const struct word *w)
{
	if (!r->charset || !str_case_eq(r->charset_name, w->charset)) {
		close_charset(r);
		r->charset = charset_new(w->charset);
		r->charset_name = w->charset;
	}
	if (!r->charset)
		return false;
	buf_clear(&r->bytes);
	if (w->encoding == 'b') {
		struct base64_decoder d = { 0 };

		base64_decode_piece(&d, w->text, &r->bytes);
		base64_decode_end(&d, &r->bytes);
	} else {
		q_decode(w->text, &r->bytes);
	}
	charset_feed(r->charset, buf_str(&r->bytes), r->out);
	return true;
}

/* Text outside of encoded words: line breaks go, bad UTF-8 is replaced. */
static void read_plain(struct reader *r, str s)
{
	close_charset(r);
	buf_clear(&r->bytes);
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '\r' && s.p[i] != '\n')
			buf_add_char(&r->bytes, s.p[i]);
	if (charset_to_utf8(S("utf-8"), buf_str(&r->bytes), r->out))
		r->out->failed = true;
}

static size_t space_length(str s)
{
	size_t n = 0;

	while (n < s.n && ascii_is_space(s.p[n]))
		n++;
	return n;
}

void rfc2047_decode(str value, struct buf *out)
{
	struct reader r = { .out = out };
	size_t plain = 0, at = 0; /* [plain, at) is not written yet */

	buf_init(&r.bytes, value.n + RFC2047_READ_MAX + UTF8_MAX);
	while (at < value.n) {
		const char *mark = memmem(value.p + at, value.n - at, "=?", 2);
		struct word w;
		str between;

		if (!mark)
			break;
		at = (size_t)(mark - value.p);
		if (!word_at(str_from(value, at), &w)) {
			at += 2;
			continue;
		}
		between = str_sub(value, plain, at - plain);
		/* RFC 2047 6.2: white space between adjacent encoded words is ignored. */
		if (!r.charset || space_length(between) != between.n)
			read_plain(&r, between);
		if (!read_word(&r, &w))
			read_plain(&r, str_sub(value, at, w.length));
		at += w.length;
		plain = at;
	}
	read_plain(&r, str_from(value, plain));
	close_charset(&r);
	buf_free(&r.bytes);
}

/* Folds plain text at spaces; `column` is where it starts. */
static void fold_plain(str text, size_t column, struct buf *out)
{
	while (text.n) {
		size_t end = 1;

		/* A word with the white space before it. */
		while (end < text.n && (text.p[end] != ' ' || text.p[end - 1] == ' '))
			end++;
		if (column + end > 76 && text.p[0] == ' ') {
			buf_add(out, S("\r\n"));
			column = 0;
		}
		buf_add(out, str_head(text, end));
		column += end;
		text = str_from(text, end);
	}
}

static bool q_is_plain(char c)
{
	return ascii_is_alnum(c) || c == '-' || c == '.' || c == '/' || c == '!' || c == '*' ||
	       c == '+';
}

static size_t q_length(str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += q_is_plain(s.p[i]) || s.p[i] == ' ' ? 1 : 3;
	return n;
}

static void q_encode(str s, struct buf *out)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.n; i++) {
		unsigned char u = (unsigned char)s.p[i];
		char e[3] = { '=', hex[u >> 4], hex[u & 15] };

		if (s.p[i] == ' ')
			buf_add_char(out, '_');
		else if (q_is_plain(s.p[i]))
			buf_add_char(out, s.p[i]);
		else
			buf_add(out, str_of(e, 3));
	}
}

/* As many whole characters of s as one word takes in `room` characters of encoded text. */
static size_t fit(str s, bool q, size_t room)
{
	size_t at = 0;

	while (at < s.n) {
		uint32_t code;
		size_t n = utf8_decode(str_from(s, at), &code), size;

		n = n ? n : 1;
		size = q ? q_length(str_head(s, at + n)) : (at + n + 2) / 3 * 4;
		if (size > room)
			break;
		at += n;
	}
	return at;
}

static void encode_words(str text, size_t column, struct buf *out)
{
	/* Q as long as it is not much longer: people read it. */
	bool q = q_length(text) <= (text.n + 2) / 3 * 4 + text.n / 2;
	size_t frame = sizeof("=?UTF-8?Q?") - 1 + 2;

	while (text.n) {
		/* RFC 2047 2: a word of 75 characters, a line of 76. */
		size_t room =
			column + frame + 12 > 76 ? 0 : MIN((size_t)75 - frame, 76 - column - frame);
		size_t n = fit(text, q, room);

		if (n == 0) {
			buf_add(out, S("\r\n "));
			column = 1;
			continue;
		}
		buf_add(out, q ? S("=?UTF-8?Q?") : S("=?UTF-8?B?"));
		if (q)
			q_encode(str_head(text, n), out);
		else
			base64_encode(str_head(text, n), 0, out);
		buf_add(out, S("?="));
		text = str_from(text, n);
		column = 76;
	}
}

void rfc2047_encode(str text, size_t column, struct buf *out)
{
	struct buf clean;
	bool plain;

	buf_init(&clean, text.n + 1);
	for (size_t i = 0; i < text.n; i++)
		buf_add_char(&clean, text.p[i] == '\r' || text.p[i] == '\n' ? ' ' : text.p[i]);
	plain = utf8_is_ascii(text) && str_find(text, S("=?")) == STR_NONE;
	for (size_t i = 0; i < text.n; i++)
		plain = plain && text.p[i] != 0x7F &&
			(text.p[i] >= ' ' || text.p[i] == '\t' || text.p[i] == '\r' ||
			 text.p[i] == '\n');
	if (buf_failed(&clean))
		out->failed = true;
	else if (plain)
		fold_plain(buf_str(&clean), column, out);
	else
		encode_words(buf_str(&clean), column, out);
	buf_free(&clean);
}
