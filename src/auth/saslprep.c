/* SASLprep, RFC 4013, a profile of stringprep (RFC 3454): map, normalise to NFKC, refuse, check
 * directions.
 *
 * Two departures, both of them on purpose:
 *
 * - Unassigned code points. RFC 4013 2.5 fixes Unicode 3.2, so a character that came later (every
 *   emoji) would be refused in a stored password. We let them pass in both places, which is what
 *   RFC 3454 7 asks for in queries, and what clients do. Normalisation of a character never changes
 *   once it is assigned (Unicode's stability policy), so a stored password keeps working when
 *   libunistring grows.
 * - The directional classes R, AL and L come from libunistring and not from tables D.1 and D.2 of
 *   Unicode 3.2; they agree for all characters of that time.
 *
 * PRECIS (RFC 8265), which replaces SASLprep elsewhere, was turned down: SCRAM (RFC 5802 2.2)
 * names SASLprep, and both ends must compute the same bytes.
 */
#include "auth/saslprep.h"

#include "text/utf8.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <unictype.h>
#include <uninorm.h>

/* U+FDFA, the worst, becomes 18 characters; nothing near that happens to a whole name. */
enum { CODES_MAX = SASLPREP_INPUT_MAX * 2 };

struct range {
	uint32_t first, last;
};

/* RFC 3454 B.1: commonly mapped to nothing. */
static const struct range to_nothing[] = {
	{ 0x00AD, 0x00AD }, { 0x034F, 0x034F }, { 0x1806, 0x1806 }, { 0x180B, 0x180D },
	{ 0x200B, 0x200D }, { 0x2060, 0x2060 }, { 0xFE00, 0xFE0F }, { 0xFEFF, 0xFEFF },
};

/* RFC 3454 C.1.2: spaces other than ASCII's. U+200B is in B.1 too, which is looked at first. */
static const struct range to_space[] = {
	{ 0x00A0, 0x00A0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200B },
	{ 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 },
};

/* RFC 4013 2.3: tables C.1.2, C.2.1, C.2.2, C.3, C.4, C.5, C.6, C.7, C.8, C.9 of RFC 3454, merged
 * and in order. The last two code points of every plane are C.4 and are tested apart. */
static const struct range prohibited[] = {
	{ 0x0000, 0x001F },    { 0x007F, 0x00A0 },   { 0x0340, 0x0341 },   { 0x06DD, 0x06DD },
	{ 0x070F, 0x070F },    { 0x1680, 0x1680 },   { 0x180E, 0x180E },   { 0x2000, 0x200F },
	{ 0x2028, 0x202F },    { 0x205F, 0x2063 },   { 0x206A, 0x206F },   { 0x2FF0, 0x2FFB },
	{ 0x3000, 0x3000 },    { 0xD800, 0xF8FF },   { 0xFDD0, 0xFDEF },   { 0xFEFF, 0xFEFF },
	{ 0xFFF9, 0xFFFF },    { 0x1D173, 0x1D17A }, { 0xE0001, 0xE0001 }, { 0xE0020, 0xE007F },
	{ 0xF0000, 0x10FFFF },
};

static bool in_ranges(const struct range *r, size_t n, uint32_t c)
{
	for (size_t i = 0; i < n; i++)
		if (c >= r[i].first && c <= r[i].last)
			return true;
	return false;
}

static bool is_prohibited(uint32_t c)
{
	return (c & 0xFFFE) == 0xFFFE || in_ranges(prohibited, ARRAY_LEN(prohibited), c);
}

/* RFC 4013 2.1 */
static enum err map(str text, uint32_t *codes, size_t *count)
{
	uint32_t c;

	*count = 0;
	while (text.n) {
		size_t n = utf8_decode(text, &c);

		if (n == 0)
			return ERR_SYNTAX;
		text = str_from(text, n);
		if (in_ranges(to_nothing, ARRAY_LEN(to_nothing), c))
			continue;
		codes[(*count)++] = in_ranges(to_space, ARRAY_LEN(to_space), c) ? ' ' : c;
	}
	return ERR_OK;
}

static bool is_right_to_left(uint32_t c)
{
	int class = uc_bidi_class(c);

	return class == UC_BIDI_R || class == UC_BIDI_AL;
}

/* RFC 3454 6: with any R or AL character, no L one, and the first and the last are R or AL. */
static bool directions_are_good(const uint32_t *codes, size_t n)
{
	bool right = false, left = false;

	for (size_t i = 0; i < n; i++) {
		right |= is_right_to_left(codes[i]);
		left |= uc_bidi_class(codes[i]) == UC_BIDI_L;
	}
	return !right || (!left && is_right_to_left(codes[0]) && is_right_to_left(codes[n - 1]));
}

static enum err encode(const uint32_t *codes, size_t count, char *out, size_t size, size_t *n)
{
	*n = 0;
	for (size_t i = 0; i < count; i++) {
		char one[UTF8_MAX];
		size_t len = utf8_encode(codes[i], one);

		if (is_prohibited(codes[i]) || len == 0)
			return ERR_SYNTAX;
		if (len > size - *n)
			return ERR_TOO_LONG;
		memcpy(out + *n, one, len);
		*n += len;
	}
	return ERR_OK;
}

static bool is_plain_ascii(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x20 || s.p[i] > 0x7E)
			return false;
	return true;
}

struct work {
	uint32_t mapped[SASLPREP_INPUT_MAX], normal[CODES_MAX];
};

static enum err prepare(struct work *w, str text, char *out, size_t size, size_t *n)
{
	size_t count, normal_count = CODES_MAX;
	uint32_t *normal;
	enum err err = map(text, w->mapped, &count);

	if (err)
		return err;
	/* RFC 4013 2.2 */
	normal = u32_normalize(UNINORM_NFKC, w->mapped, count, w->normal, &normal_count);
	if (!normal)
		return ERR_NO_MEMORY;
	if (normal != w->normal) {
		OPENSSL_cleanse(normal, normal_count * sizeof(*normal));
		free(normal);
		return ERR_TOO_LONG;
	}
	if ((err = encode(w->normal, normal_count, out, size, n)))
		return err;
	/* RFC 4013 2.4 */
	return directions_are_good(w->normal, normal_count) ? ERR_OK : ERR_SYNTAX;
}

enum err saslprep(str text, char *out, size_t size, size_t *n)
{
	struct work *w;
	enum err err;

	*n = 0;
	if (text.n > SASLPREP_INPUT_MAX)
		return ERR_TOO_LONG;
	if (is_plain_ascii(text)) {
		if (text.n > size)
			return ERR_TOO_LONG;
		if (text.n)
			memcpy(out, text.p, text.n);
		*n = text.n;
		return ERR_OK;
	}
	w = malloc(sizeof(*w));
	if (!w)
		return ERR_NO_MEMORY;
	err = prepare(w, text, out, size, n);
	OPENSSL_cleanse(w, sizeof(*w));
	free(w);
	return err;
}
