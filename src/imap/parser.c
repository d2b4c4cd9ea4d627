/* The words of the grammar (RFC 3501 9).
 *
 * Strict where being lenient would change the meaning (numbers, sets, parentheses), lenient where
 * clients differ: more spaces than one separate words and end lists, and 8-bit characters are let
 * through in atoms and quoted strings (RFC 3501 allows them in literals alone), because every
 * server does. Mailbox names become what the store keeps: UTF-8 in NFC. A name that cannot exist is
 * no syntax error, so the parser goes on to the end of the command before that is told.
 */
#include "imap/parser.h"

#include "store/types.h"
#include "text/mutf7.h"
#include "text/nfc.h"
#include "text/utf8.h"

bool imap_parse_take(struct imap_parser *p, char c)
{
	if (p->rest.n == 0 || p->rest.p[0] != c)
		return false;
	p->rest = str_from(p->rest, 1);
	return true;
}

bool imap_parse_at_end(const struct imap_parser *p)
{
	return p->rest.n == 0;
}

enum err imap_parse_wrong(struct imap_parser *p, const char *what)
{
	if (!p->wrong)
		p->wrong = what;
	return ERR_SYNTAX;
}

enum err imap_parse_space(struct imap_parser *p)
{
	if (!imap_parse_take(p, ' '))
		return imap_parse_wrong(p, "Missing argument");
	while (imap_parse_take(p, ' '))
		;
	return ERR_OK;
}

bool imap_parse_more(struct imap_parser *p)
{
	bool is_spaced = false;

	while (imap_parse_take(p, ' '))
		is_spaced = true;
	return is_spaced && p->rest.n && p->rest.p[0] != ')';
}

enum err imap_parse_end(struct imap_parser *p)
{
	/* Trailing spaces are common and mean nothing. */
	while (imap_parse_take(p, ' '))
		;
	return imap_parse_at_end(p) ? ERR_OK : imap_parse_wrong(p, "Too many arguments");
}

/* ATOM-CHAR: anything but ( ) { SP CTL % * " \ ] */
static bool is_atom_char(char c)
{
	unsigned char u = (unsigned char)c;

	return u > ' ' && u != 0x7f && !strchr("(){%*\"\\]", c);
}

bool imap_atom_is_valid(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_atom_char(s.p[i]) || (unsigned char)s.p[i] >= 0x80)
			return false;
	return s.n > 0;
}

static str take_while(struct imap_parser *p, bool (*is_part)(char))
{
	size_t n = 0;
	str out;

	while (n < p->rest.n && is_part(p->rest.p[n]))
		n++;
	out = str_head(p->rest, n);
	p->rest = str_from(p->rest, n);
	return out;
}

/* tag: any ASTRING-CHAR (which is ATOM-CHAR and "]") except "+" */
static bool is_tag_char(char c)
{
	return (is_atom_char(c) || c == ']') && c != '+' && (unsigned char)c < 0x80;
}

enum err imap_parse_tag(struct imap_parser *p, str *out)
{
	*out = take_while(p, is_tag_char);
	return out->n ? ERR_OK : imap_parse_wrong(p, "Missing or invalid tag");
}

enum err imap_parse_atom(struct imap_parser *p, str *out)
{
	*out = take_while(p, is_atom_char);
	return out->n ? ERR_OK : imap_parse_wrong(p, "Expected an atom");
}

/* The cursor is behind the opening quote. */
static enum err parse_quoted(struct imap_parser *p, str *out)
{
	str all = p->rest;
	size_t i = 0, n = 0;
	bool escaped = false;
	char *copy;

	for (; i < all.n && all.p[i] != '"'; i++) {
		if (all.p[i] == '\\') {
			escaped = true;
			/* RFC 3501 9: only quoted-specials are escaped; others are taken as they
			 * are. */
			if (++i == all.n)
				break;
		}
		if (all.p[i] == '\r' || all.p[i] == '\n' || all.p[i] == '\0')
			return imap_parse_wrong(p, "Invalid character in a quoted string");
	}
	if (i >= all.n)
		return imap_parse_wrong(p, "Missing '\"'");
	p->rest = str_from(all, i + 1);
	*out = str_of(all.p, i);
	if (!escaped)
		return ERR_OK;
	if (!(copy = arena_alloc(p->arena, i)))
		return ERR_NO_MEMORY;
	for (size_t k = 0; k < i; k++) {
		if (all.p[k] == '\\')
			k++;
		copy[n++] = all.p[k];
	}
	*out = str_of(copy, n);
	return ERR_OK;
}

/* The cursor is behind the '{'. The collector saw to it that the bytes are there. */
static enum err parse_literal(struct imap_parser *p, str *out)
{
	size_t close = str_find_char(p->rest, '}');
	str digits = close == STR_NONE ? STR_EMPTY : str_head(p->rest, close);
	uint64_t size;

	if (str_ends(digits, S("+")))
		digits.n--;
	if (str_to_u64(digits, UINT32_MAX, &size))
		return imap_parse_wrong(p, "Invalid literal");
	p->rest = str_from(p->rest, close + 1);
	imap_parse_take(p, '\r');
	if (!imap_parse_take(p, '\n') || p->rest.n < size)
		return imap_parse_wrong(p, "Invalid literal");
	*out = str_head(p->rest, size);
	p->rest = str_from(p->rest, size);
	/* RFC 3501 9: CHAR8 excludes NUL. */
	if (str_find_char(*out, '\0') != STR_NONE)
		return imap_parse_wrong(p, "NUL in a literal");
	return ERR_OK;
}

enum err imap_parse_string(struct imap_parser *p, str *out)
{
	if (imap_parse_take(p, '"'))
		return parse_quoted(p, out);
	if (imap_parse_take(p, '{'))
		return parse_literal(p, out);
	return imap_parse_wrong(p, "Expected a string");
}

static bool is_astring_char(char c)
{
	return is_atom_char(c) || c == ']';
}

enum err imap_parse_astring(struct imap_parser *p, str *out)
{
	if (p->rest.n && (p->rest.p[0] == '"' || p->rest.p[0] == '{'))
		return imap_parse_string(p, out);
	*out = take_while(p, is_astring_char);
	return out->n ? ERR_OK : imap_parse_wrong(p, "Missing argument");
}

enum err imap_parse_nstring(struct imap_parser *p, str *out)
{
	if (str_case_starts(p->rest, S("NIL")) &&
	    (p->rest.n == 3 || !is_astring_char(p->rest.p[3]))) {
		p->rest = str_from(p->rest, 3);
		*out = STR_EMPTY;
		return ERR_OK;
	}
	return imap_parse_string(p, out);
}

static bool is_digit_char(char c)
{
	return ascii_is_digit(c);
}

enum err imap_parse_number(struct imap_parser *p, uint64_t max, uint64_t *out)
{
	return str_to_u64(take_while(p, is_digit_char), max, out)
		       ? imap_parse_wrong(p, "Expected a number")
		       : ERR_OK;
}

static bool is_set_char(char c)
{
	return ascii_is_digit(c) || c == ',' || c == ':' || c == '*';
}

enum err imap_parse_set(struct imap_parser *p, struct imap_set *out)
{
	enum err err = imap_set_parse(take_while(p, is_set_char), p->arena, out);

	return err == ERR_SYNTAX ? imap_parse_wrong(p, "Invalid message set") : err;
}

static bool is_word_char(char c)
{
	return ascii_is_alnum(c) || c == '.' || c == '-';
}

str imap_parse_word(struct imap_parser *p)
{
	return take_while(p, is_word_char);
}

/* ---- mailbox names ---- */

static bool levels_are_valid(str name)
{
	size_t depth = 0;

	if (name.n == 0 || name.n > MAILBOX_NAME_MAX || !utf8_is_valid(name))
		return false;
	for (size_t i = 0; i < name.n; i++)
		if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f)
			return false;
	for (str rest = name, level;; depth++) {
		bool more = str_find_char(rest, '/') != STR_NONE;

		level = str_cut(&rest, '/');
		if (level.n == 0)
			return false;
		if (!more)
			return depth + 1 <= MAILBOX_DEPTH_MAX;
	}
}

static enum err to_utf8(str s, struct arena *a, str *out, bool *is_valid)
{
	struct buf decoded, normal;
	enum err err = ERR_OK;

	buf_init(&decoded, IMAP_LINE_MAX * 3);
	buf_init(&normal, IMAP_LINE_MAX * 4);
	*is_valid = !mutf7_decode(s, &decoded);
	if (*is_valid && utf8_is_ascii(buf_str(&decoded)))
		buf_add(&normal, buf_str(&decoded));
	else if (*is_valid)
		*is_valid = !nfc_normalise(buf_str(&decoded), &normal);
	*out = arena_str(a, *is_valid ? buf_str(&normal) : s);
	if (!out->p)
		err = ERR_NO_MEMORY;
	buf_free(&decoded);
	buf_free(&normal);
	return err;
}

/* RFC 3501 5.1: INBOX is the same in any case, alone and (RFC 9051 5.1) as the first level. */
static void capitalise_inbox(str name)
{
	if (str_case_starts(name, S("INBOX")) && (name.n == 5 || name.p[5] == '/'))
		memcpy((char *)(uintptr_t)name.p, "INBOX", 5);
}

enum err imap_mailbox_name(str s, struct arena *a, str *out, bool *is_valid)
{
	enum err err = to_utf8(s, a, out, is_valid);

	if (err)
		return err;
	capitalise_inbox(*out);
	*is_valid = *is_valid && levels_are_valid(*out);
	return ERR_OK;
}

enum err imap_parse_mailbox(struct imap_parser *p, str *out, bool *is_valid)
{
	enum err err;
	str name;

	if ((err = imap_parse_astring(p, &name)))
		return err;
	return imap_mailbox_name(name, p->arena, out, is_valid);
}

static bool is_list_char(char c)
{
	return is_astring_char(c) || c == '%' || c == '*';
}

enum err imap_parse_list_mailbox(struct imap_parser *p, str *out)
{
	enum err err;
	str pattern;
	bool is_valid;

	if (p->rest.n && (p->rest.p[0] == '"' || p->rest.p[0] == '{')) {
		if ((err = imap_parse_string(p, &pattern)))
			return err;
	} else {
		pattern = take_while(p, is_list_char);
		if (pattern.n == 0)
			return imap_parse_wrong(p, "Missing argument");
	}
	return to_utf8(pattern, p->arena, out, &is_valid);
}

/* ---- flags ---- */

static const struct {
	const char *name;
	uint32_t flag;
} system_flags[] = {
	{ "\\Seen", MSG_FLAG_SEEN },	   { "\\Answered", MSG_FLAG_ANSWERED },
	{ "\\Flagged", MSG_FLAG_FLAGGED }, { "\\Deleted", MSG_FLAG_DELETED },
	{ "\\Draft", MSG_FLAG_DRAFT },
};

static enum err add_system_flag(struct imap_parser *p, struct imap_flags *out)
{
	str name = p->rest;

	imap_parse_take(p, '\\');
	name = str_head(name, take_while(p, is_atom_char).n + 1);
	for (size_t i = 0; i < ARRAY_LEN(system_flags); i++) {
		if (str_case_eq(name, str_from_c(system_flags[i].name))) {
			out->system |= system_flags[i].flag;
			return ERR_OK;
		}
	}
	/* RFC 3501 2.3.2: \Recent is not the client's to set. */
	return imap_parse_wrong(p, "Invalid system flag");
}

static enum err add_keyword(struct imap_parser *p, struct imap_flags *out)
{
	enum err err;
	str name;

	if ((err = imap_parse_atom(p, &name)))
		return err;
	if (!imap_atom_is_valid(name) || name.n > KEYWORD_NAME_MAX)
		return imap_parse_wrong(p, "Invalid keyword");
	for (size_t i = 0; i < out->count; i++)
		if (str_case_eq(out->keywords[i], name))
			return ERR_OK;
	if (out->count == IMAP_KEYWORDS_PER_COMMAND)
		return imap_parse_wrong(p, "Too many keywords");
	if (!out->keywords &&
	    !(out->keywords = arena_array(p->arena, IMAP_KEYWORDS_PER_COMMAND, sizeof(str))))
		return ERR_NO_MEMORY;
	out->keywords[out->count++] = name;
	return ERR_OK;
}

static enum err add_flag(struct imap_parser *p, struct imap_flags *out)
{
	return p->rest.n && p->rest.p[0] == '\\' ? add_system_flag(p, out) : add_keyword(p, out);
}

enum err imap_parse_flags(struct imap_parser *p, bool bare, struct imap_flags *out)
{
	bool in_list = imap_parse_take(p, '(');
	enum err err;

	*out = (struct imap_flags){ 0 };
	if (!in_list && !bare)
		return imap_parse_wrong(p, "Expected a list of flags");
	if (in_list && imap_parse_take(p, ')'))
		return ERR_OK;
	do {
		if ((err = add_flag(p, out)))
			return err;
	} while (imap_parse_more(p));
	if (in_list && !imap_parse_take(p, ')'))
		return imap_parse_wrong(p, "Missing ')'");
	return ERR_OK;
}
