/* The words of structured header fields (RFC 5322 3.2, RFC 2045 5.1), for the parsers of this
 * folder.
 *
 * Every function works at the cursor and writes what it read to a buffer, without quotes and
 * escapes. Comments and white space behind a word are skipped. Its answer says where it stopped. */
#ifndef MIME_LEXER_H
#define MIME_LEXER_H

#include "base/buf.h"

enum lex {
	LEX_BROKEN, /* not what was asked for, or cut short */
	LEX_END,    /* fine, and nothing follows */
	LEX_MORE,   /* fine, and there is more at the cursor */
};

struct lexer {
	const char *p, *end;
	struct buf *comment; /* the last comment read, where somebody wants it; or NULL */
};

static inline struct lexer lexer_of(str s)
{
	return (struct lexer){ .p = s.p, .end = s.p ? s.p + s.n : s.p };
}

static inline bool lexer_at(const struct lexer *x, char c)
{
	return x->p != x->end && *x->p == c;
}

bool lexer_is_atext(char c);

enum lex lexer_skip(struct lexer *x); /* white space and comments */
enum lex lexer_atom(struct lexer *x, struct buf *out);
enum lex lexer_dot_atom(struct lexer *x, struct buf *out); /* white space around dots is dropped */
enum lex lexer_token(struct lexer *x, struct buf *out);	   /* RFC 2045; may be empty */
enum lex lexer_quoted(struct lexer *x, struct buf *out);   /* the cursor is on the quote */
enum lex lexer_phrase(struct lexer *x, struct buf *out);   /* words joined by one space */
enum lex lexer_domain(struct lexer *x, struct buf *out);   /* the cursor is on the '@' */

#endif
