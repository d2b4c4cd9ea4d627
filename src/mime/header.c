/* Header fields (RFC 5322 2.2).
 *
 * Lines are found with memchr; a field ends at the first line end that is not followed by white
 * space. The invariant is in the header: what is read here adds up to what came in. */
#include "mime/header.h"

/* The length of the field at the front of s, with its last line end: RFC 5322 2.2.3. */
static size_t field_length(str s)
{
	size_t at = 0;

	for (;;) {
		const char *end = memchr(s.p + at, '\n', s.n - at);

		if (!end)
			return s.n;
		at = (size_t)(end - s.p) + 1;
		if (at == s.n || (s.p[at] != ' ' && s.p[at] != '\t'))
			return at;
	}
}

static str without_line_end(str s)
{
	if (s.n && s.p[s.n - 1] == '\n')
		s.n--;
	if (s.n && s.p[s.n - 1] == '\r')
		s.n--;
	return s;
}

static bool is_blank_line(str s)
{
	return s.n == 0 || s.p[0] == '\n' || (s.p[0] == '\r' && s.n > 1 && s.p[1] == '\n');
}

bool header_next(str *rest, struct header_field *f)
{
	str line, first;
	size_t colon, from;

	if (is_blank_line(*rest))
		return false;
	f->raw = str_head(*rest, field_length(*rest));
	*rest = str_from(*rest, f->raw.n);
	line = without_line_end(f->raw);
	first = line;
	first = str_head(line, str_cut(&first, '\n').n);
	colon = str_find_char(first, ':');
	f->has_colon = colon != STR_NONE;
	if (!f->has_colon) {
		f->name = first.n < line.n ? without_line_end(str_head(line, first.n + 1)) : line;
		f->value = str_from(line, line.n);
		return true;
	}
	from = colon + 1;
	while (from < line.n && (line.p[from] == ' ' || line.p[from] == '\t'))
		from++;
	f->value = str_from(line, from);
	/* RFC 5322 4.5: obsolete fields have white space before the colon. */
	while (colon && (line.p[colon - 1] == ' ' || line.p[colon - 1] == '\t'))
		colon--;
	f->name = str_head(line, colon);
	return true;
}

size_t header_block_length(str message)
{
	str rest = message;
	struct header_field f;

	while (header_next(&rest, &f))
		;
	if (rest.n)
		return message.n - rest.n + (rest.p[0] == '\r' ? 2 : 1);
	return message.n;
}

bool header_has_end(str block)
{
	struct header_field f;

	while (header_next(&block, &f))
		;
	return block.n > 0;
}

bool header_find(str block, str name, struct header_field *f)
{
	while (header_next(&block, f))
		if (f->has_colon && str_case_eq(f->name, name))
			return true;
	return false;
}

str header_unfold(str value, struct arena *a)
{
	char *to;
	size_t n = 0;

	if (!value.n || !memchr(value.p, '\n', value.n))
		return value;
	to = arena_alloc(a, value.n);
	if (!to)
		return STR_EMPTY;
	for (size_t i = 0; i < value.n; i++)
		if (value.p[i] != '\r' && value.p[i] != '\n')
			to[n++] = value.p[i];
	return str_of(to, n);
}

void header_select(str block, const str *names, size_t count, bool keep, struct buf *out)
{
	struct header_field f;

	while (header_next(&block, &f)) {
		bool named = false;

		for (size_t i = 0; i < count && f.has_colon && !named; i++)
			named = str_case_eq(f.name, names[i]);
		if (named == keep)
			buf_add(out, f.raw);
	}
	buf_add(out, block);
}
