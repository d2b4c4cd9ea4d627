/* Wildcards of LIST (RFC 3501 6.3.8): '*' crosses levels, '%' does not.
 *
 * Matching keeps the set of pattern positions that are reachable after each byte of the name, so it
 * takes pattern times name steps whatever the pattern is; backtracking, the usual way, takes
 * exponential time for
 * "*a*a*a*a*b". The positions reached at the end of each level also tell which parents match, which
 * LSUB with '%' needs (RFC 3501 6.3.9).
 */
#include "imap/list_match.h"

/* Longer patterns cannot match any name we keep in a way that matters; they match nothing. */
enum { PATTERN_MAX = 1024 };

/* Positions behind wildcards at `i` are reachable without a byte. */
static void reach(bool *states, str pattern, size_t i)
{
	for (;; i++) {
		states[i] = true;
		if (i == pattern.n || (pattern.p[i] != '*' && pattern.p[i] != '%'))
			return;
	}
}

static bool byte_matches(char p, char c, bool fold)
{
	return fold ? ascii_lower(p) == ascii_lower(c) : p == c;
}

static void step(const bool *from, bool *to, str pattern, char c, bool fold)
{
	memset(to, 0, pattern.n + 1);
	for (size_t i = 0; i < pattern.n; i++) {
		if (!from[i])
			continue;
		if (pattern.p[i] == '*' || (pattern.p[i] == '%' && c != '/'))
			reach(to, pattern, i);
		else if (pattern.p[i] != '%' && byte_matches(pattern.p[i], c, fold))
			reach(to, pattern, i + 1);
	}
}

enum imap_list_match imap_list_match(str pattern, str name, size_t *prefix)
{
	bool a[PATTERN_MAX + 1] = { false }, b[PATTERN_MAX + 1], *now = a, *next = b, *swap;
	/* RFC 3501 5.1: INBOX is case-insensitive. */
	size_t inbox = str_starts(name, S("INBOX")) && (name.n == 5 || name.p[5] == '/') ? 5 : 0;

	*prefix = 0;
	if (pattern.n > PATTERN_MAX)
		return IMAP_LIST_NO;
	reach(now, pattern, 0);
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '/' && now[pattern.n])
			*prefix = i;
		step(now, next, pattern, name.p[i], i < inbox);
		swap = now;
		now = next;
		next = swap;
	}
	if (now[pattern.n])
		return IMAP_LIST_YES;
	return *prefix ? IMAP_LIST_PARENT : IMAP_LIST_NO;
}
