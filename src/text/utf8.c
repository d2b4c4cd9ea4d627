/* UTF-8 (RFC 3629).
 *
 * ASCII is tested eight bytes at a time, since nearly all mail is ASCII. What is left is decoded
 * with the table of RFC 3629 section 4: the second byte's range depends on the first, which rules
 * out overlong forms, surrogates and values above U+10FFFF in one comparison. */
#include "text/utf8.h"

#define HIGH_BITS 0x8080808080808080u

/* Bytes at the front of s that are ASCII. */
static size_t ascii_prefix(str s)
{
	size_t i = 0;
	uint64_t word;

	while (s.n - i >= sizeof(word)) {
		memcpy(&word, s.p + i, sizeof(word));
		if (word & HIGH_BITS)
			break;
		i += sizeof(word);
	}
	while (i < s.n && !(s.p[i] & 0x80))
		i++;
	return i;
}

bool utf8_is_ascii(str s)
{
	return ascii_prefix(s) == s.n;
}

size_t utf8_decode(str s, uint32_t *code)
{
	const unsigned char *p = (const unsigned char *)s.p;
	unsigned char low = 0x80, high = 0xBF;
	size_t length;
	uint32_t c;

	if (s.n == 0)
		return 0;
	if (p[0] < 0x80) {
		*code = p[0];
		return 1;
	}
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
	/* RFC 3629 4: E0 A0-BF, ED 80-9F, F0 90-BF, F4 80-8F. */
	if (p[0] == 0xE0)
		low = 0xA0;
	else if (p[0] == 0xED)
		high = 0x9F;
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F;
	if (s.n < length || p[1] < low || p[1] > high)
		return 0;
	c = (uint32_t)(p[0] & (0x7F >> length)) << 6 | (p[1] & 0x3F);
	for (size_t i = 2; i < length; i++) {
		if ((p[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3F);
	}
	*code = c;
	return length;
}

size_t utf8_valid_prefix(str s)
{
	size_t at = 0;

	for (;;) {
		uint32_t code;
		size_t n;

		at += ascii_prefix(str_from(s, at));
		n = utf8_decode(str_from(s, at), &code);
		if (n == 0)
			return at;
		at += n;
	}
}

bool utf8_is_valid(str s)
{
	return utf8_valid_prefix(s) == s.n;
}

size_t utf8_encode(uint32_t code, char out[UTF8_MAX])
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xC0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code >= 0xD800 && code <= 0xDFFF)
		return 0;
	if (code < 0x10000) {
		out[0] = (char)(0xE0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3F));
		out[2] = (char)(0x80 | (code & 0x3F));
		return 3;
	}
	if (code > 0x10FFFF)
		return 0;
	out[0] = (char)(0xF0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3F));
	out[2] = (char)(0x80 | (code >> 6 & 0x3F));
	out[3] = (char)(0x80 | (code & 0x3F));
	return 4;
}
