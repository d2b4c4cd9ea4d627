/* Address lists of header fields (RFC 5322 3.4, with the obsolete forms of 4.4).
 *
 * They are read for people: an ENVELOPE must show something for whatever a message holds. So
 * nothing fails. The rules for broken input are Dovecot's, since clients have been tested against
 * them: an entry is first tried as a group, then as a name with an address in brackets, then as a
 * bare address; what is missing gets a word that says so; reading stops at the first byte that fits
 * nowhere, and the addresses before it stay.
 *
 * The time is linear: an entry is read at most three times. */
#include "mime/address.h"
#include "mime/lexer.h"

struct reader {
	struct lexer x;
	struct buf text, comment;
	struct arena *a;
	struct address_list *list;
	struct address next;
	enum err err;
};

static str keep(struct reader *r, const struct buf *b)
{
	str s = arena_str(r->a, buf_str(b));

	if (!s.p || buf_failed(b))
		r->err = ERR_NO_MEMORY;
	return s;
}

static void add_entry(struct reader *r)
{
	struct address *e = ARENA_NEW(r->a, struct address);

	if (!e) {
		r->err = ERR_NO_MEMORY;
		return;
	}
	*e = r->next;
	r->next = (struct address){ 0 };
	if (r->list->last)
		r->list->last->next = e;
	else
		r->list->first = e;
	r->list->last = e;
	r->list->count++;
}

/* Fills what is missing: never NIL, which would read as a group. */
static void add_mailbox(struct reader *r)
{
	if (!r->next.mailbox.p)
		r->next.mailbox = S("MISSING_MAILBOX");
	if (!r->next.domain.p)
		r->next.domain = S("MISSING_DOMAIN");
	add_entry(r);
}

static enum lex read_local(struct reader *r)
{
	const char *start = r->x.p;
	enum lex l;

	buf_clear(&r->text);
	while (lexer_at(&r->x, '.')) {
		r->x.p++;
		buf_add_char(&r->text, '.');
	}
	if (lexer_at(&r->x, '@') && buf_len(&r->text)) {
		r->next.mailbox = keep(r, &r->text);
		return LEX_MORE;
	}
	l = lexer_at(&r->x, '"') ? lexer_quoted(&r->x, &r->text) : lexer_dot_atom(&r->x, &r->text);
	if (l != LEX_BROKEN || (r->x.p == r->x.end && *start == '.'))
		r->next.mailbox = keep(r, &r->text);
	return l;
}

static enum lex read_domain(struct reader *r)
{
	enum lex l;

	buf_clear(&r->text);
	l = lexer_domain(&r->x, &r->text);
	if (l == LEX_BROKEN)
		return l;
	r->next.domain = keep(r, &r->text);
	return l;
}

/* RFC 5322 4.4: obs-domain-list and its ':'. */
static void read_route(struct reader *r)
{
	buf_clear(&r->text);
	while (lexer_at(&r->x, '@')) {
		if (buf_len(&r->text))
			buf_add_char(&r->text, ',');
		buf_add_char(&r->text, '@');
		if (lexer_domain(&r->x, &r->text) != LEX_MORE)
			break;
		while (lexer_skip(&r->x) == LEX_MORE && *r->x.p == ',')
			r->x.p++;
	}
	if (lexer_at(&r->x, ':')) {
		r->next.route = keep(r, &r->text);
		r->x.p++;
	} else {
		r->next.route = S("INVALID_ROUTE");
	}
}

/* The cursor is on the '<'. */
static enum lex read_angle(struct reader *r)
{
	r->x.p++;
	if (lexer_skip(&r->x) != LEX_MORE)
		return LEX_BROKEN;
	if (*r->x.p == '@') {
		read_route(r);
		if (lexer_skip(&r->x) != LEX_MORE)
			return LEX_BROKEN;
	}
	if (*r->x.p != '>') {
		if (*r->x.p != '@' && read_local(r) != LEX_MORE)
			return LEX_BROKEN;
		if (*r->x.p == '@' && read_domain(r) != LEX_MORE)
			return LEX_BROKEN;
		if (*r->x.p != '>')
			return LEX_BROKEN;
	}
	r->x.p++;
	return lexer_skip(&r->x);
}

/* local@domain, with the name in a comment behind it. */
static enum lex read_bare(struct reader *r)
{
	enum lex l = LEX_MORE;

	buf_clear(&r->comment);
	if (!lexer_at(&r->x, '@'))
		l = read_local(r);
	if (l == LEX_MORE && *r->x.p == '@') {
		enum lex d = read_domain(r);

		if (d != LEX_MORE)
			l = d;
	}
	if (buf_len(&r->comment))
		r->next.name = keep(r, &r->comment);
	return l;
}

/* A mailbox that has no '<': a bare address, or words that are a name without an address. `phrase`
 * says where and how reading them ended. */
static enum lex read_unbracketed(struct reader *r, const char *start, str name, const char *after,
				 enum lex phrase)
{
	bool quoted;
	enum lex l;

	r->x.p = start;
	quoted = lexer_at(&r->x, '"');
	l = read_bare(r);
	if (phrase != LEX_BROKEN && !r->next.domain.p && !r->next.name.p && name.n &&
	    (quoted || r->x.p < after)) {
		r->next = (struct address){ .name = name };
		r->x.p = after;
		return phrase;
	}
	return l;
}

static enum lex read_mailbox(struct reader *r)
{
	const char *start = r->x.p;
	enum lex l;
	str name = STR_EMPTY;

	buf_clear(&r->text);
	l = lexer_phrase(&r->x, &r->text);
	if (buf_len(&r->text))
		name = keep(r, &r->text);
	if (l != LEX_MORE || *r->x.p != '<') {
		l = read_unbracketed(r, start, name, r->x.p, l);
	} else {
		r->next.name = name;
		l = read_angle(r);
		if (l == LEX_BROKEN) {
			r->next.domain = S("SYNTAX_ERROR");
			l = r->x.p == r->x.end ? LEX_END : LEX_MORE;
		}
	}
	add_mailbox(r);
	return l;
}

static bool is_full(const struct reader *r)
{
	return r->list->count >= ADDRESS_LIST_MAX || r->err;
}

/* What a group holds, up to its ';'. */
static enum lex read_members(struct reader *r)
{
	for (;;) {
		enum lex l = read_mailbox(r);

		if (l == LEX_END || r->x.p == r->x.end || is_full(r))
			return LEX_BROKEN;
		if (*r->x.p != ',')
			return l;
		r->x.p++;
		if (lexer_skip(&r->x) != LEX_MORE)
			return LEX_BROKEN;
	}
}

/* LEX_BROKEN when this is no group; from its ':' on it is one, whatever follows. */
static enum lex read_group(struct reader *r)
{
	enum lex l;

	buf_clear(&r->text);
	if (lexer_phrase(&r->x, &r->text) != LEX_MORE || *r->x.p != ':')
		return LEX_BROKEN;
	r->x.p++;
	r->next.mailbox = keep(r, &r->text);
	l = lexer_skip(&r->x);
	add_entry(r);
	if (l == LEX_MORE && *r->x.p != ';')
		l = read_members(r);
	if (l == LEX_MORE) {
		if (*r->x.p == ';') {
			r->x.p++;
			l = lexer_skip(&r->x);
		} else {
			l = LEX_BROKEN;
		}
	}
	r->next = (struct address){ 0 };
	add_entry(r);
	return l == LEX_END ? LEX_END : LEX_MORE;
}

static void read_list(struct reader *r)
{
	while (!is_full(r)) {
		const char *start = r->x.p;
		enum lex l = read_group(r);

		if (l == LEX_BROKEN) {
			r->x.p = start;
			l = read_mailbox(r);
		}
		if (l == LEX_END || r->x.p == r->x.end || *r->x.p != ',')
			return;
		r->x.p++;
		l = lexer_skip(&r->x);
		/* It ends with garbage, which somebody may have meant as an address. */
		if (l == LEX_BROKEN)
			add_mailbox(r);
		if (l != LEX_MORE)
			return;
	}
}

enum err address_list_parse(str value, struct arena *a, struct address_list *list)
{
	struct reader r = { .x = lexer_of(value), .a = a, .list = list };

	buf_init(&r.text, value.n + 16);
	buf_init(&r.comment, value.n + 16);
	r.x.comment = &r.comment;
	if (lexer_skip(&r.x) == LEX_MORE)
		read_list(&r);
	buf_free(&r.text);
	buf_free(&r.comment);
	return r.err;
}
