/* i;unicode-casemap (RFC 5051 section 2): each character goes through its titlecase mapping, then
 * through its decomposition, recursively, compatibility decompositions included. The result is
 * written as UTF-8 and compared as bytes.
 *
 * ASCII needs no tables: its titlecase is its uppercase, and nothing decomposes. */
#include "text/fold.h"

#include "text/utf8.h"

#include <unicase.h>
#include <uninorm.h>

/* RFC 5051 2 (2)(b). Unicode's longest decomposition path is a few steps; 8 is beyond it. */
enum { DECOMPOSE_DEPTH = 8 };

static void add_decomposed(uint32_t code, int depth, struct buf *out)
{
	ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
	char bytes[UTF8_MAX];
	int tag, n = depth < DECOMPOSE_DEPTH ? uc_decomposition(code, &tag, parts) : -1;

	if (n < 0) {
		buf_add(out, str_of(bytes, utf8_encode(code, bytes)));
		return;
	}
	for (int i = 0; i < n; i++)
		add_decomposed(parts[i], depth + 1, out);
}

/* Eight bytes at once, in either byte order: the high bit of each byte says whether it is a small
 * letter, and that bit moved down by two is the difference between the cases. SEARCH BODY spends
 * most of its time here. */
static uint64_t upper_word(uint64_t w)
{
	const uint64_t ones = 0x0101010101010101u;
	uint64_t from_a = w + (0x80 - 'a') * ones, above_z = w + (0x7f - 'z') * ones;

	return w - ((from_a & ~above_z & 0x80 * ones) >> 2);
}

/* The ASCII that `s` begins with; how much that is. */
static size_t add_ascii(str s, struct buf *out)
{
	char *to = buf_reserve(out, s.n);
	size_t i = 0;
	uint64_t w;

	if (!to)
		return s.n;
	for (; s.n - i >= sizeof(w); i += sizeof(w)) {
		memcpy(&w, s.p + i, sizeof(w));
		if (w & 0x8080808080808080u)
			break;
		w = upper_word(w);
		memcpy(to + i, &w, sizeof(w));
	}
	for (; i < s.n && !(s.p[i] & 0x80); i++)
		to[i] = ascii_upper(s.p[i]);
	buf_added(out, i);
	return i;
}

size_t fold_casemap_piece(str s, struct buf *out)
{
	size_t at = 0;

	while (at < s.n) {
		uint32_t code;
		size_t n;
		str rest;

		at += add_ascii(str_from(s, at), out);
		rest = str_from(s, at);
		if (rest.n == 0)
			break;
		n = utf8_decode(rest, &code);
		if (n) {
			/* RFC 5051 2 (2)(a): titlecase. */
			add_decomposed(uc_totitle(code), 0, out);
			at += n;
		} else if (rest.n < UTF8_MAX && ((unsigned char)rest.p[0] & 0xC0) == 0xC0 &&
			   utf8_valid_prefix(rest) == 0) {
			break; /* perhaps a character that goes on in the next piece */
		} else {
			buf_add(out, str_head(rest, 1));
			at++;
		}
	}
	return at;
}

void fold_casemap(str s, struct buf *out)
{
	while (s.n) {
		size_t n = fold_casemap_piece(s, out);

		s = str_from(s, n);
		if (n == 0 || s.n) {
			buf_add(out, str_head(s, 1));
			s = str_from(s, 1);
		}
	}
}
