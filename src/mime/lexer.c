/* Words of structured fields.
 *
 * It reads what is sent rather than what the grammar allows: bytes above 0x7F are letters (RFC
 * 6532, and older mail in any charset), obsolete white space is accepted, control characters in
 * comments and quoted strings are kept. A broken word says so, and the cursor stays where the fault
 * is, so that the caller decides how to go on. */
#include "mime/lexer.h"

/* RFC 2045 5.1: what atoms may hold and tokens may not. */
static bool is_atom_only(char c)
{
	return c == '/' || c == '=' || c == '?';
}

bool lexer_is_atext(char c)
{
	static const char marks[] = "!#$%&'*+-/=?^_`{|}~";

	return ascii_is_alnum(c) || (c & 0x80) || (c && memchr(marks, c, sizeof(marks) - 1));
}

static enum lex where(const struct lexer *x)
{
	return x->p == x->end ? LEX_END : LEX_MORE;
}

static void add_from(struct buf *out, const char *from, const char *to)
{
	if (out)
		buf_add(out, str_of(from, (size_t)(to - from)));
}

/* Where text ends that stops at p: before the CR of a CRLF. */
static const char *before_fold(const char *p, const char *from)
{
	return *p == '\n' && p > from && p[-1] == '\r' ? p - 1 : p;
}

/* The cursor is on the '('. RFC 5322 3.2.2: comments nest. */
static enum lex skip_comment(struct lexer *x)
{
	size_t level = 1;
	const char *from = ++x->p;

	if (x->comment)
		buf_clear(x->comment);
	for (; x->p != x->end; x->p++) {
		if (*x->p == '(') {
			level++;
		} else if (*x->p == ')' && --level == 0) {
			add_from(x->comment, from, x->p++);
			return where(x);
		} else if (*x->p == '\\' || *x->p == '\n') {
			/* The backslash of a pair and the line end of a fold are not part of it. */
			add_from(x->comment, from, before_fold(x->p, from));
			if (*x->p == '\\' && x->p + 1 == x->end)
				return x->p++, LEX_BROKEN;
			from = x->p + 1;
			if (*x->p == '\\')
				x->p++;
		}
	}
	return LEX_BROKEN;
}

enum lex lexer_skip(struct lexer *x)
{
	while (x->p != x->end) {
		if (ascii_is_space(*x->p))
			x->p++;
		else if (*x->p != '(')
			return LEX_MORE;
		else if (skip_comment(x) == LEX_BROKEN)
			return LEX_BROKEN;
	}
	return LEX_END;
}

enum lex lexer_atom(struct lexer *x, struct buf *out)
{
	const char *from = x->p;

	while (x->p != x->end && lexer_is_atext(*x->p))
		x->p++;
	if (x->p == from)
		return LEX_BROKEN;
	add_from(out, from, x->p);
	return lexer_skip(x);
}

enum lex lexer_dot_atom(struct lexer *x, struct buf *out)
{
	const char *from = x->p;
	enum lex r;

	if (x->p == x->end || !lexer_is_atext(*x->p))
		return LEX_BROKEN;
	for (;;) {
		while (x->p != x->end && lexer_is_atext(*x->p))
			x->p++;
		add_from(out, from, x->p);
		/* RFC 5322 4.4: white space around the dots of obs-local-part and obs-domain. */
		if ((r = lexer_skip(x)) != LEX_MORE)
			return r;
		if (*x->p != '.')
			return LEX_MORE;
		x->p++;
		buf_add_char(out, '.');
		if (lexer_skip(x) != LEX_MORE)
			return LEX_BROKEN;
		/* "a..b" and "a.@" are common enough to be read; other endings are not a dot-atom.
		 */
		if (!lexer_is_atext(*x->p) && *x->p != '.' && *x->p != '@')
			return LEX_BROKEN;
		from = x->p;
	}
}

enum lex lexer_token(struct lexer *x, struct buf *out)
{
	const char *from = x->p;

	while (x->p != x->end && (*x->p == '.' || (lexer_is_atext(*x->p) && !is_atom_only(*x->p))))
		x->p++;
	add_from(out, from, x->p);
	return x->p == x->end ? LEX_END : lexer_skip(x);
}

enum lex lexer_quoted(struct lexer *x, struct buf *out)
{
	const char *from = ++x->p;

	for (; x->p != x->end; x->p++) {
		if (*x->p == '"') {
			add_from(out, from, x->p++);
			return lexer_skip(x);
		}
		if (*x->p == '\n') {
			/* RFC 5322 3.2.4: the line end of a fold is not part of the string. */
			add_from(out, from, before_fold(x->p, from));
			from = x->p + 1;
		} else if (*x->p == '\\') {
			add_from(out, from, x->p);
			from = ++x->p;
			if (x->p == x->end)
				return LEX_BROKEN;
		}
	}
	return LEX_BROKEN;
}

/* A word of a phrase: RFC 5322 4.1 allows dots in them. */
static enum lex atom_or_dots(struct lexer *x, struct buf *out)
{
	const char *from = x->p;

	while (x->p != x->end && (*x->p == '.' || lexer_is_atext(*x->p)))
		x->p++;
	add_from(out, from, x->p);
	return x->p == x->end ? LEX_END : lexer_skip(x);
}

enum lex lexer_phrase(struct lexer *x, struct buf *out)
{
	enum lex r;

	if (x->p == x->end)
		return LEX_END;
	if (*x->p == '.')
		return LEX_BROKEN;
	for (;;) {
		r = *x->p == '"' ? lexer_quoted(x, out) : atom_or_dots(x, out);
		if (r != LEX_MORE)
			return r;
		if (!lexer_is_atext(*x->p) && *x->p != '"' && *x->p != '.')
			return LEX_MORE;
		buf_add_char(out, ' ');
	}
}

static enum lex domain_literal(struct lexer *x, struct buf *out)
{
	const char *from = x->p;

	for (; x->p != x->end; x->p++) {
		if (*x->p == '\\') {
			if (++x->p == x->end)
				break;
		} else if (*x->p == ']') {
			add_from(out, from, ++x->p);
			return lexer_skip(x);
		}
	}
	return LEX_BROKEN;
}

enum lex lexer_domain(struct lexer *x, struct buf *out)
{
	x->p++;
	if (lexer_skip(x) != LEX_MORE)
		return LEX_BROKEN;
	return *x->p == '[' ? domain_literal(x, out) : lexer_dot_atom(x, out);
}
