/* BODY and BODYSTRUCTURE (RFC 3501 and RFC 9051 7.4.2).
 *
 * The recursion is as deep as the tree, which part.c bounds. Where a message says nothing, the
 * defaults of RFC 2045 5.2 are written out, since clients expect them. */
#include "mime/envelope.h"

static void write_params(const struct mime_params *params, bool default_charset, struct buf *out)
{
	bool charset = !default_charset;

	if (params->count == 0 && charset) {
		buf_add(out, S("NIL"));
		return;
	}
	buf_add_char(out, '(');
	for (size_t i = 0; i < params->count; i++) {
		if (i)
			buf_add_char(out, ' ');
		imap_write_nstring(params->items[i].name, out);
		buf_add_char(out, ' ');
		imap_write_nstring(params->items[i].value, out);
		charset = charset || str_case_eq(params->items[i].name, S("charset"));
	}
	/* RFC 2045 5.2 */
	if (!charset) {
		if (params->count)
			buf_add_char(out, ' ');
		buf_add(out, S("\"charset\" \"us-ascii\""));
	}
	buf_add_char(out, ')');
}

static void write_disposition(const struct mime_part *p, struct buf *out)
{
	if (!p->disposition.p) {
		buf_add(out, S(" NIL"));
		return;
	}
	buf_add(out, S(" ("));
	imap_write_nstring(p->disposition, out);
	buf_add_char(out, ' ');
	write_params(&p->disposition_params, false, out);
	buf_add_char(out, ')');
}

/* What BODYSTRUCTURE has behind the rest, for parts of every kind. */
static void write_extension(const struct mime_part *p, struct buf *out)
{
	write_disposition(p, out);
	if (p->language_count == 0)
		buf_add(out, S(" NIL"));
	for (size_t i = 0; i < p->language_count; i++) {
		buf_add(out, i ? S(" ") : S(" ("));
		imap_write_nstring(p->languages[i], out);
		if (i + 1 == p->language_count)
			buf_add_char(out, ')');
	}
	buf_add_char(out, ' ');
	imap_write_nstring(p->location, out);
}

static void write_multipart(const struct mime_part *p, bool extended, struct buf *out)
{
	for (const struct mime_part *child = p->children; child; child = child->next)
		mime_write_structure(child, extended, out);
	/* RFC 3501 9: body-type-mpart has at least one part, so an empty text stands for none. */
	if (!p->children)
		mime_write_structure(&(const struct mime_part){ 0 }, extended, out);
	buf_add_char(out, ' ');
	imap_write_nstring(p->subtype.p ? p->subtype : S("x-unknown"), out);
	if (!extended)
		return;
	buf_add_char(out, ' ');
	write_params(&p->params, false, out);
	write_extension(p, out);
}

static void write_type(const struct mime_part *p, bool text, struct buf *out)
{
	if (p->kind == MIME_MESSAGE) {
		buf_add(out, S("\"message\" \"rfc822\""));
		return;
	}
	imap_write_nstring(p->type.p ? p->type : S("text"), out);
	buf_add_char(out, ' ');
	imap_write_nstring(p->subtype.p ? p->subtype : text ? S("plain") : S("unknown"), out);
}

/* A whole message that is what RFC 2045 5.2 takes for granted, however it is spelled. */
static bool is_plain(const struct mime_part *p)
{
	const struct param *first = p->params.items;

	return !p->parent && p->kind == MIME_TEXT && mime_type_is(p, S("text"), S("plain")) &&
	       (p->params.count == 0 ||
		(p->params.count == 1 && str_case_eq(first->name, S("charset")) &&
		 str_case_eq(first->value, S("us-ascii")))) &&
	       !p->id.p && !p->description.p &&
	       (!p->encoding.p || str_case_eq(p->encoding, S("7bit"))) && !p->md5.p &&
	       !p->disposition.p && !p->language_count && !p->location.p;
}

static void write_single(const struct mime_part *p, bool extended, struct buf *out)
{
	bool text = p->kind != MIME_MESSAGE && mime_type_is(p, S("text"), S(""));

	write_type(p, text, out);
	buf_add_char(out, ' ');
	write_params(&p->params, text, out);
	buf_add_char(out, ' ');
	imap_write_nstring(p->id, out);
	buf_add_char(out, ' ');
	imap_write_nstring(p->description, out);
	buf_add_char(out, ' ');
	imap_write_nstring(p->encoding.p ? p->encoding : S("7bit"), out);
	buf_add_char(out, ' ');
	buf_add_u64(out, p->body_len);
	if (p->kind == MIME_MESSAGE) {
		buf_add_char(out, ' ');
		mime_write_envelope(p->children->envelope, out);
		buf_add_char(out, ' ');
		mime_write_structure(p->children, extended, out);
	}
	if (text || p->kind == MIME_MESSAGE) {
		buf_add_char(out, ' ');
		buf_add_u64(out, p->lines);
	}
	if (!extended)
		return;
	buf_add_char(out, ' ');
	imap_write_nstring(p->md5, out);
	write_extension(p, out);
}

void mime_write_structure(const struct mime_part *p, bool extended, struct buf *out)
{
	buf_add_char(out, '(');
	if (p->kind == MIME_MULTIPART) {
		write_multipart(p, extended, out);
	} else if (is_plain(p)) {
		/* In one spelling, the shortest in the store and the one that Dovecot sends. */
		struct mime_part plain = { .body_len = p->body_len, .lines = p->lines };

		write_single(&plain, extended, out);
	} else {
		write_single(p, extended, out);
	}
	buf_add_char(out, ')');
}
