/* Slices: comparing, finding, cutting, numbers. Pure functions, no allocation. */
#include "base/str.h"

bool str_case_eq(str a, str b)
{
	return a.n == b.n && str_case_cmp(a, b) == 0;
}

int str_cmp(str a, str b)
{
	size_t n = MIN(a.n, b.n);
	int c = n ? memcmp(a.p, b.p, n) : 0;

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

int str_case_cmp(str a, str b)
{
	size_t n = MIN(a.n, b.n);

	for (size_t i = 0; i < n; i++) {
		unsigned char x = (unsigned char)ascii_lower(a.p[i]);
		unsigned char y = (unsigned char)ascii_lower(b.p[i]);

		if (x != y)
			return x < y ? -1 : 1;
	}
	return (a.n > b.n) - (a.n < b.n);
}

bool str_starts(str s, str prefix)
{
	return s.n >= prefix.n && str_eq(str_head(s, prefix.n), prefix);
}

bool str_ends(str s, str suffix)
{
	return s.n >= suffix.n && str_eq(str_from(s, s.n - suffix.n), suffix);
}

bool str_case_starts(str s, str prefix)
{
	return s.n >= prefix.n && str_case_eq(str_head(s, prefix.n), prefix);
}

size_t str_find_char(str s, char c)
{
	const char *at = s.n ? memchr(s.p, c, s.n) : NULL;

	return at ? (size_t)(at - s.p) : STR_NONE;
}

size_t str_rfind_char(str s, char c)
{
	for (size_t i = s.n; i > 0; i--)
		if (s.p[i - 1] == c)
			return i - 1;
	return STR_NONE;
}

size_t str_find(str s, str needle)
{
	const char *at;

	if (needle.n == 0)
		return 0;
	at = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
	return at ? (size_t)(at - s.p) : STR_NONE;
}

size_t str_case_find(str s, str needle)
{
	for (size_t i = 0; i + needle.n <= s.n; i++)
		if (str_case_eq(str_sub(s, i, needle.n), needle))
			return i;
	return STR_NONE;
}

str str_cut(str *rest, char sep)
{
	size_t at = str_find_char(*rest, sep);
	str head = str_head(*rest, at);

	*rest = at == STR_NONE ? str_from(*rest, rest->n) : str_from(*rest, at + 1);
	return head;
}

str str_cut_line(str *rest)
{
	str line = str_cut(rest, '\n');

	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

str str_trim(str s)
{
	while (s.n && ascii_is_space(s.p[0]))
		s = str_from(s, 1);
	while (s.n && ascii_is_space(s.p[s.n - 1]))
		s.n--;
	return s;
}

enum err str_to_u64(str s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0)
		return ERR_SYNTAX;
	for (size_t i = 0; i < s.n; i++) {
		if (!ascii_is_digit(s.p[i]))
			return ERR_SYNTAX;
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
			return ERR_RANGE;
	}
	if (v > max)
		return ERR_RANGE;
	*out = v;
	return ERR_OK;
}

uint64_t str_hash(str s, uint64_t seed)
{
	uint64_t h = 0xcbf29ce484222325u ^ seed;

	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
	return h ^ (h >> 32);
}

bool str_secret_eq(str a, str b)
{
	unsigned char differ = a.n != b.n;
	size_t n = MIN(a.n, b.n);

	for (size_t i = 0; i < n; i++)
		differ |= (unsigned char)(a.p[i] ^ b.p[i]);
	return differ == 0;
}
