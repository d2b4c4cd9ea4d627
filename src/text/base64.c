/* Base64 (RFC 4648 4).
 *
 * One table maps a byte to its six bits, to "foreign" or to "padding". The strict decoder refuses
 * what a canonical encoder would not have written, so that a string has one reading (RFC 4648 3.5:
 * spare bits must be zero); the lenient one follows RFC 2045 6.8 and ignores foreign bytes. */
#include "text/base64.h"

enum { FOREIGN = 64, PADDING = 65 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static unsigned value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (unsigned)(c - 'A');
	if (c >= 'a' && c <= 'z')
		return (unsigned)(c - 'a') + 26;
	if (ascii_is_digit(c))
		return (unsigned)(c - '0') + 52;
	return c == '+' ? 62 : c == '/' ? 63 : c == '=' ? PADDING : FOREIGN;
}

enum err base64_decode(str s, struct buf *out)
{
	size_t groups = s.n / 4;

	if (s.n % 4 != 0)
		return ERR_SYNTAX;
	for (size_t g = 0; g < groups; g++) {
		const char *p = s.p + g * 4;
		unsigned v[4];
		size_t have = 4;
		uint32_t bits = 0;
		char bytes[3];

		for (size_t i = 0; i < 4; i++)
			v[i] = value_of(p[i]);
		/* RFC 4648 4: padding ends the last group and no other. */
		while (g == groups - 1 && have > 2 && v[have - 1] == PADDING)
			v[--have] = 0;
		for (size_t i = 0; i < 4; i++) {
			if (v[i] >= FOREIGN)
				return ERR_SYNTAX;
			bits = bits << 6 | v[i];
		}
		/* RFC 4648 3.5: spare bits are zero. */
		if ((have == 2 && (bits & 0xFFFF)) || (have == 3 && (bits & 0xFF)))
			return ERR_SYNTAX;
		bytes[0] = (char)(bits >> 16);
		bytes[1] = (char)(bits >> 8);
		bytes[2] = (char)bits;
		buf_add(out, str_of(bytes, have - 1));
	}
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}

/* Writes what a group of `count` characters holds. */
static size_t group_bytes(uint32_t bits, unsigned count, char *to)
{
	bits <<= 6 * (4 - count);
	to[0] = (char)(bits >> 16);
	to[1] = (char)(bits >> 8);
	to[2] = (char)bits;
	return count > 1 ? count - 1 : 0;
}

void base64_decode_piece(struct base64_decoder *d, str piece, struct buf *out)
{
	char *to = buf_reserve(out, piece.n / 4 * 3 + 6);
	size_t n = 0;

	if (!to)
		return;
	for (size_t i = 0; i < piece.n; i++) {
		unsigned v = value_of(piece.p[i]);

		if (v < FOREIGN) {
			d->bits = d->bits << 6 | v;
			if (++d->count < 4)
				continue;
		} else if (v != PADDING || d->count == 0) {
			continue;
		}
		n += group_bytes(d->bits, d->count, to + n);
		d->bits = 0;
		d->count = 0;
	}
	buf_added(out, n);
}

void base64_decode_end(struct base64_decoder *d, struct buf *out)
{
	char bytes[3];

	buf_add(out, str_of(bytes, group_bytes(d->bits, d->count, bytes)));
	*d = (struct base64_decoder){ 0 };
}

void base64_encode(str s, size_t line, struct buf *out)
{
	size_t column = 0;

	for (size_t i = 0; i < s.n; i += 3) {
		size_t have = MIN(s.n - i, (size_t)3);
		uint32_t bits = 0;
		char c[4];

		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (k < have ? (unsigned char)s.p[i + k] : 0u);
		for (size_t k = 0; k < 4; k++)
			c[k] = k <= have ? alphabet[bits >> (18 - 6 * k) & 0x3F] : '=';
		buf_add(out, str_of(c, 4));
		column += 4;
		if (line && column >= line) {
			buf_add(out, S("\r\n"));
			column = 0;
		}
	}
	if (line && column)
		buf_add(out, S("\r\n"));
}
