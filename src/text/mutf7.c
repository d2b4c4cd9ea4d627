/* Modified UTF-7 (RFC 3501 5.1.3): UTF-16 in base64 with ',' for '/', between '&' and '-'.
 *
 * The decoder accepts only what the encoder writes. A mailbox name would otherwise have several
 * spellings, and a check on one of them would not hold for the others. So decoding ends by nothing
 * more than careful rules: shifts hold no printable ASCII, are not empty (but "&-"), do not follow
 * each other directly, and spare bits are zero. */
#include "text/mutf7.h"

#include "text/utf8.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

static bool is_direct(uint32_t c)
{
	return c >= 0x20 && c <= 0x7E;
}

static int digit_of(char c)
{
	const char *p = c ? strchr(alphabet, c) : NULL;

	return p ? (int)(p - alphabet) : -1;
}

struct utf16 {
	uint32_t high; /* the first half of a pair, 0 when none waits */
};

/* One unit of UTF-16: writes a character when it is complete. */
static enum err add_unit(struct utf16 *state, uint32_t unit, struct buf *out)
{
	char bytes[UTF8_MAX];
	uint32_t code = unit;

	if (state->high) {
		if (unit < 0xDC00 || unit > 0xDFFF)
			return ERR_SYNTAX;
		code = 0x10000 + ((state->high - 0xD800) << 10) + (unit - 0xDC00);
		state->high = 0;
	} else if (unit >= 0xD800 && unit <= 0xDBFF) {
		state->high = unit;
		return ERR_OK;
	} else if (unit >= 0xDC00 && unit <= 0xDFFF) {
		return ERR_SYNTAX;
	}
	/* RFC 3501 5.1.3: base64 must not represent printing characters that can represent
	 * themselves. */
	if (is_direct(code) || code == 0)
		return ERR_SYNTAX;
	buf_add(out, str_of(bytes, utf8_encode(code, bytes)));
	return ERR_OK;
}

/* What stands between '&' and '-'. */
static enum err decode_shift(str s, struct buf *out)
{
	struct utf16 state = { 0 };
	uint32_t bits = 0;
	unsigned count = 0;

	for (size_t i = 0; i < s.n; i++) {
		int digit = digit_of(s.p[i]);

		if (digit < 0)
			return ERR_SYNTAX;
		bits = (bits << 6 | (uint32_t)digit) & 0x3FFFFF;
		count += 6;
		if (count >= 16) {
			enum err err;

			count -= 16;
			if ((err = add_unit(&state, bits >> count & 0xFFFF, out)))
				return err;
		}
	}
	if (state.high || count >= 6 || (bits & ((1u << count) - 1)))
		return ERR_SYNTAX;
	return ERR_OK;
}

enum err mutf7_decode(str s, struct buf *out)
{
	bool after_shift = false;

	while (s.n) {
		size_t end;
		enum err err;

		if (s.p[0] != '&') {
			if (!is_direct((unsigned char)s.p[0]))
				return ERR_SYNTAX;
			buf_add_char(out, s.p[0]);
			s = str_from(s, 1);
			after_shift = false;
			continue;
		}
		end = str_find_char(s, '-');
		if (end == STR_NONE)
			return ERR_SYNTAX;
		if (end == 1) {
			buf_add_char(out, '&');
			after_shift = false;
		} else {
			/* RFC 3501 5.1.3: superfluous shifts are not permitted. */
			if (after_shift)
				return ERR_SYNTAX;
			if ((err = decode_shift(str_sub(s, 1, end - 1), out)))
				return err;
			after_shift = true;
		}
		s = str_from(s, end + 1);
	}
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}

struct bit_writer {
	uint32_t bits;
	unsigned count;
};

static void put_unit(struct bit_writer *w, uint32_t unit, struct buf *out)
{
	w->bits = w->bits << 16 | unit;
	w->count += 16;
	while (w->count >= 6) {
		w->count -= 6;
		buf_add_char(out, alphabet[w->bits >> w->count & 0x3F]);
	}
	w->bits &= (1u << w->count) - 1;
}

/* Writes characters until one that represents itself; returns the bytes read. */
static size_t encode_shift(str s, struct buf *out)
{
	struct bit_writer w = { 0 };
	size_t at = 0;

	buf_add_char(out, '&');
	while (at < s.n) {
		uint32_t code;
		size_t n = utf8_decode(str_from(s, at), &code);

		if (n == 0 || is_direct(code))
			break;
		if (code >= 0x10000) {
			put_unit(&w, 0xD800 + ((code - 0x10000) >> 10), out);
			put_unit(&w, 0xDC00 + ((code - 0x10000) & 0x3FF), out);
		} else {
			put_unit(&w, code, out);
		}
		at += n;
	}
	if (w.count)
		buf_add_char(out, alphabet[w.bits << (6 - w.count) & 0x3F]);
	buf_add_char(out, '-');
	return at;
}

enum err mutf7_encode(str s, struct buf *out)
{
	/* NUL is valid UTF-8, but no name can hold it. */
	if (!utf8_is_valid(s) || (s.n && memchr(s.p, 0, s.n)))
		return ERR_SYNTAX;
	while (s.n) {
		if (s.p[0] == '&') {
			buf_add(out, S("&-"));
			s = str_from(s, 1);
		} else if (is_direct((unsigned char)s.p[0])) {
			buf_add_char(out, s.p[0]);
			s = str_from(s, 1);
		} else {
			s = str_from(s, encode_shift(s, out));
		}
	}
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}
