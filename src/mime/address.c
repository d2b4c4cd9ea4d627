/* Addresses that mail is sent to (RFC 5321 4.1.2, RFC 6531 3.3).
 *
 * The grammar here is the strict one of SMTP: no comments, no white space, no obsolete forms. What
 * it accepts has one reading by every server behind us; lenient reading of RCPT is how mail ends up
 * with the wrong person. Underscores in domains are the one exception: hosts with them exist. */
#include "mime/address.h"

#include "mime/lexer.h"
#include "text/utf8.h"

#include <arpa/inet.h>

enum { LITERAL_MAX = 64 };

bool addr_domain_is_valid(str s)
{
	size_t label = 0;

	if (s.n == 0 || s.n > ADDR_DOMAIN_MAX || !utf8_is_valid(s))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '.') {
			if (label == 0 || s.p[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		/* RFC 5321 4.1.2: sub-domain = Let-dig [Ldh-str] */
		if (!ascii_is_alnum(c) && !(c & 0x80) && c != '_' && (c != '-' || label == 0))
			return false;
		if (++label > ADDR_LABEL_MAX)
			return false;
	}
	return label > 0 && s.p[s.n - 1] != '-';
}

/* RFC 5321 4.1.3: "[" IPv4 "]" or "[IPv6:" IPv6 "]". */
static bool literal_is_valid(str s)
{
	char text[LITERAL_MAX];
	unsigned char address[16];
	int family = AF_INET;

	if (s.n < 2 || s.p[0] != '[' || s.p[s.n - 1] != ']')
		return false;
	s = str_sub(s, 1, s.n - 2);
	if (str_case_starts(s, S("IPv6:"))) {
		s = str_from(s, 5);
		family = AF_INET6;
	}
	if (s.n >= LITERAL_MAX || (s.n && memchr(s.p, 0, s.n)))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	return inet_pton(family, text, address) == 1;
}

/* Reads a domain or a literal at the front of *s. */
static enum err take_domain(str *s, str *domain)
{
	size_t n = 0;

	if (s->n && s->p[0] == '[') {
		n = str_find_char(*s, ']');
		if (n == STR_NONE)
			return ERR_SYNTAX;
		*domain = str_head(*s, n + 1);
		if (!literal_is_valid(*domain))
			return ERR_SYNTAX;
	} else {
		while (n < s->n && !memchr(">,: @<()\"\\", s->p[n], 10) &&
		       (unsigned char)s->p[n] > ' ')
			n++;
		*domain = str_head(*s, n);
		if (n > ADDR_DOMAIN_MAX)
			return ERR_TOO_LONG;
		if (!addr_domain_is_valid(*domain))
			return ERR_SYNTAX;
	}
	*s = str_from(*s, domain->n);
	return ERR_OK;
}

/* RFC 5321 4.1.2: Quoted-string; the cursor is on the quote. */
static enum err take_quoted(str *s, struct arena *a, str *local)
{
	char *to = arena_alloc(a, MIN(s->n, (size_t)ADDR_LOCAL_MAX + 1));
	size_t n = 0, at = 1;

	if (!to)
		return ERR_NO_MEMORY;
	for (; at < s->n && s->p[at] != '"'; at++) {
		if (s->p[at] == '\\' && ++at == s->n)
			return ERR_SYNTAX;
		/* qtextSMTP and quoted-pairSMTP: printable ASCII (and UTF-8 by RFC 6531). */
		if ((unsigned char)s->p[at] < ' ' || s->p[at] == 0x7F)
			return ERR_SYNTAX;
		if (n == ADDR_LOCAL_MAX)
			return ERR_TOO_LONG;
		to[n++] = s->p[at];
	}
	/* The grammar has "" too; nobody has such an address, and others read it as no local part. */
	if (at == s->n || n == 0)
		return ERR_SYNTAX;
	*local = str_of(to, n);
	*s = str_from(*s, at + 1);
	return ERR_OK;
}

/* RFC 5321 4.1.2: Local-part = Dot-string / Quoted-string. */
static enum err take_local(str *s, struct arena *a, str *local)
{
	size_t n = 0;

	if (s->n && s->p[0] == '"')
		return take_quoted(s, a, local);
	while (n < s->n && (lexer_is_atext(s->p[n]) || (s->p[n] == '.' && n && s->p[n - 1] != '.')))
		n++;
	if (n == 0 || s->p[n - 1] == '.')
		return ERR_SYNTAX;
	if (n > ADDR_LOCAL_MAX)
		return ERR_TOO_LONG;
	*local = str_head(*s, n);
	*s = str_from(*s, n);
	return ERR_OK;
}

/* Checks what holds for the whole address. */
static enum err finish(struct addr_spec *out, unsigned flags)
{
	out->is_utf8 = !utf8_is_ascii(out->local) || !utf8_is_ascii(out->domain);
	if (out->is_utf8 && !(flags & ADDR_ALLOW_UTF8))
		return ERR_UNSUPPORTED;
	return utf8_is_valid(out->local) ? ERR_OK : ERR_SYNTAX;
}

static enum err take_mailbox(str *s, unsigned flags, struct arena *a, struct addr_spec *out)
{
	enum err err = take_local(s, a, &out->local);

	if (err)
		return err;
	if (s->n && s->p[0] == '@') {
		*s = str_from(*s, 1);
		if ((err = take_domain(s, &out->domain)))
			return err;
	} else if (!(flags & ADDR_ALLOW_NO_DOMAIN) || !str_case_eq(out->local, S("postmaster"))) {
		return ERR_SYNTAX;
	}
	return finish(out, flags);
}

/* RFC 5321 4.1.2: A-d-l ":" */
static enum err skip_route(str *s)
{
	for (;;) {
		str domain;
		enum err err;

		if (!s->n || s->p[0] != '@')
			return ERR_SYNTAX;
		*s = str_from(*s, 1);
		if ((err = take_domain(s, &domain)))
			return err;
		if (s->n && s->p[0] == ':') {
			*s = str_from(*s, 1);
			return ERR_OK;
		}
		if (!s->n || s->p[0] != ',')
			return ERR_SYNTAX;
		*s = str_from(*s, 1);
	}
}

enum err addr_parse_path(str *rest, unsigned flags, struct arena *a, struct addr_spec *out)
{
	str s = *rest;
	enum err err;

	*out = (struct addr_spec){ 0 };
	if (!s.n || s.p[0] != '<')
		return ERR_SYNTAX;
	s = str_from(s, 1);
	if ((flags & ADDR_ALLOW_NULL) && s.n && s.p[0] == '>') {
		*rest = str_from(s, 1);
		return ERR_OK;
	}
	if (s.n && s.p[0] == '@' && (err = skip_route(&s)))
		return err;
	if ((err = take_mailbox(&s, flags, a, out)))
		return err;
	if (!s.n || s.p[0] != '>')
		return ERR_SYNTAX;
	s = str_from(s, 1);
	/* RFC 5321 4.5.3.1.3: of what we keep; the route is gone. */
	if (out->local.n + out->domain.n + 3 > ADDR_PATH_MAX)
		return ERR_TOO_LONG;
	*rest = s;
	return ERR_OK;
}

enum err addr_spec_parse(str s, unsigned flags, struct arena *a, struct addr_spec *out)
{
	enum err err;

	*out = (struct addr_spec){ 0 };
	if ((err = take_mailbox(&s, flags, a, out)))
		return err;
	if (s.n)
		return ERR_SYNTAX;
	return out->local.n + out->domain.n + 3 > ADDR_PATH_MAX ? ERR_TOO_LONG : ERR_OK;
}

static bool needs_quotes(str local)
{
	if (local.n == 0 || local.p[0] == '.' || local.p[local.n - 1] == '.')
		return true;
	for (size_t i = 0; i < local.n; i++)
		if (!lexer_is_atext(local.p[i]) && (local.p[i] != '.' || local.p[i - 1] == '.'))
			return true;
	return false;
}

void addr_write(struct addr_spec s, struct buf *out)
{
	if (addr_is_null(s))
		return;
	if (needs_quotes(s.local)) {
		buf_add_char(out, '"');
		for (size_t i = 0; i < s.local.n; i++) {
			if (s.local.p[i] == '"' || s.local.p[i] == '\\')
				buf_add_char(out, '\\');
			buf_add_char(out, s.local.p[i]);
		}
		buf_add_char(out, '"');
	} else {
		buf_add(out, s.local);
	}
	if (s.domain.n) {
		buf_add_char(out, '@');
		buf_add(out, s.domain);
	}
}

enum err address_to_addr(const struct address *e, struct arena *a, struct addr_spec *out)
{
	struct buf text;
	str copy;
	enum err err = ERR_NO_MEMORY;

	if (!e->mailbox.p || !e->domain.p)
		return ERR_SYNTAX;
	buf_init(&text, 4 * ADDR_PATH_MAX);
	addr_write((struct addr_spec){ .local = e->mailbox, .domain = e->domain }, &text);
	copy = arena_str(a, buf_str(&text));
	if (buf_failed(&text))
		err = ERR_TOO_LONG;
	else if (copy.p)
		err = addr_spec_parse(copy, ADDR_ALLOW_UTF8, a, out);
	buf_free(&text);
	return err;
}
