/* The words of IMAP's grammar (RFC 3501 9), read from a whole command.
 *
 * Results borrow from the command's text, or live in the parser's arena where escapes or a charset
 * changed them. ERR_SYNTAX leaves in `wrong` what a human is told; ERR_NO_MEMORY when the arena is
 * full.
 */
#ifndef IMAP_PARSER_H
#define IMAP_PARSER_H

#include "imap/sequence.h"

struct imap_parser {
	str rest;
	struct arena *arena;
	const char *wrong;
};

struct imap_flags {
	uint32_t system; /* enum msg_flag */
	str *keywords;	 /* valid atoms, at most KEYWORD_NAME_MAX bytes */
	size_t count;
};

enum { IMAP_KEYWORDS_PER_COMMAND = 112 };

/* Takes c if it is next. */
bool imap_parse_take(struct imap_parser *p, char c);
bool imap_parse_at_end(const struct imap_parser *p);
/* Sets `wrong` (once) and returns ERR_SYNTAX. */
MUST_USE enum err imap_parse_wrong(struct imap_parser *p, const char *what);

/* Takes the space, or several, before an argument. */
MUST_USE enum err imap_parse_space(struct imap_parser *p);
/* Behind an element of a list: takes what separates it from the next one; false at the list's end.
 */
bool imap_parse_more(struct imap_parser *p);
MUST_USE enum err imap_parse_end(struct imap_parser *p);
MUST_USE enum err imap_parse_tag(struct imap_parser *p, str *out);
MUST_USE enum err imap_parse_atom(struct imap_parser *p, str *out);
/* quoted or literal */
MUST_USE enum err imap_parse_string(struct imap_parser *p, str *out);
MUST_USE enum err imap_parse_astring(struct imap_parser *p, str *out);
/* *out has p == NULL for NIL. */
MUST_USE enum err imap_parse_nstring(struct imap_parser *p, str *out);
MUST_USE enum err imap_parse_number(struct imap_parser *p, uint64_t max, uint64_t *out);
MUST_USE enum err imap_parse_set(struct imap_parser *p, struct imap_set *out);
/* Letters, digits, '.', '-': the name of a FETCH item or SEARCH key. May be empty. */
str imap_parse_word(struct imap_parser *p);

/* A mailbox name in UTF-8, NFC, INBOX in capitals where it is the first level. *is_valid is false
 * when it cannot be the name of a mailbox (no modified UTF-7, an empty level, control characters,
 * too long): a NO, not a BAD. */
MUST_USE enum err imap_parse_mailbox(struct imap_parser *p, str *out, bool *is_valid);
/* The pattern of LIST: wildcards too. A pattern that is no modified UTF-7 matches as it is. */
MUST_USE enum err imap_parse_list_mailbox(struct imap_parser *p, str *out);
/* The same for a name in `s` that was read already: used by configuration and tests. */
MUST_USE enum err imap_mailbox_name(str s, struct arena *a, str *out, bool *is_valid);

/* "(\Seen work)", and without parentheses too where `bare` (STORE). */
MUST_USE enum err imap_parse_flags(struct imap_parser *p, bool bare, struct imap_flags *out);
bool imap_atom_is_valid(str s);

#endif
