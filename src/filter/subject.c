/* The base subject (RFC 5256 2.1): what is left of a subject without "Re:", "Fwd:", "[list]" and
 * "(fwd)". Threads are put together by it.
 *
 * The steps are the RFC's, one function each; each works on a slice of the decoded text and only
 * ever makes it shorter, so they end.
 */
#include "filter/filter.h"

#include "text/rfc2047.h"
#include "text/utf8.h"

enum { SUBJECT_DECODED_MAX = 16 * 1024 };

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The length of subj-blob at the front: "[" *BLOBCHAR "]" *WSP; 0: none. */
static size_t blob_length(str s)
{
	size_t n = 1;

	if (!s.n || s.p[0] != '[')
		return 0;
	while (n < s.n && s.p[n] != '[' && s.p[n] != ']')
		n++;
	if (n == s.n || s.p[n] == '[')
		return 0;
	for (n++; n < s.n && s.p[n] == ' ';)
		n++;
	return n;
}

/* subj-refwd: ("re" / ("fw" ["d"])) *WSP [subj-blob] ":" */
static size_t refwd_length(str s)
{
	size_t n;

	if (str_case_starts(s, S("fwd")))
		n = 3;
	else if (str_case_starts(s, S("re")) || str_case_starts(s, S("fw")))
		n = 2;
	else
		return 0;
	while (n < s.n && s.p[n] == ' ')
		n++;
	n += blob_length(str_from(s, n));
	return n < s.n && s.p[n] == ':' ? n + 1 : 0;
}

/* subj-leader: (*subj-blob subj-refwd) / WSP */
static size_t leader_length(str s)
{
	size_t n = 0, blob, refwd;

	if (s.n && s.p[0] == ' ')
		return 1;
	while ((blob = blob_length(str_from(s, n))))
		n += blob;
	refwd = refwd_length(str_from(s, n));
	return refwd ? n + refwd : 0;
}

/* Step 2: "(fwd)" / WSP at the end. */
static str without_trailers(str s)
{
	for (;;) {
		if (s.n && s.p[s.n - 1] == ' ')
			s.n--;
		else if (s.n >= 5 && str_case_eq(str_from(s, s.n - 5), S("(fwd)")))
			s.n -= 5;
		else
			return s;
	}
}

/* Steps 3 to 5. */
static str without_leaders(str s)
{
	for (;;) {
		size_t n = leader_length(s);

		if (!n) {
			n = blob_length(s);
			if (!n || n == s.n)
				return s;
		}
		s = str_from(s, n);
	}
}

/* Step 1, the white space of it. In place. */
static str with_single_spaces(char *p, size_t n)
{
	size_t to = 0;

	for (size_t i = 0; i < n; i++) {
		if (!is_blank(p[i]))
			p[to++] = p[i];
		else if (to == 0 || p[to - 1] != ' ')
			p[to++] = ' ';
	}
	return str_of(p, to);
}

void filter_subject_base(str subject, struct buf *out)
{
	struct buf b;
	str s;

	buf_init(&b, SUBJECT_DECODED_MAX);
	rfc2047_decode(str_head(subject, SUBJECT_DECODED_MAX / 4), &b);
	s = with_single_spaces(b.p ? b.p + b.start : NULL, buf_len(&b));
	for (;;) {
		s = without_leaders(without_trailers(s));
		/* Step 6 */
		if (s.n < 6 || !str_case_starts(s, S("[fwd:")) || s.p[s.n - 1] != ']')
			break;
		s = str_sub(s, 5, s.n - 6);
	}
	s = str_head(s, FILTER_SUBJECT_MAX);
	s.n = utf8_valid_prefix(s);
	buf_add(out, s);
	buf_free(&b);
}
