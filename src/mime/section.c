/* Sections of a message (RFC 3501 6.4.5).
 *
 * Numbers walk the tree: a multipart's number n is its child n; anything else has the number 1
 * alone, which is itself. Inside of a message/rfc822 the numbers go on in the message that it
 * holds: 2.1 is the first part of the message in part 2. HEADER and TEXT of a part exist only where
 * the part is a message, and then mean the inner one's. */
#include "mime/section.h"

#include "mime/header.h"

const struct mime_part *section_part(const struct mime_part *root, const uint32_t *path,
				     size_t depth)
{
	const struct mime_part *p = root;

	for (size_t i = 0; i < depth && p; i++) {
		uint32_t n = path[i];

		if (i > 0) {
			if (p->kind == MIME_MESSAGE)
				p = p->children;
			else if (p->kind != MIME_MULTIPART)
				return NULL; /* numbers go no deeper into a single part */
		}
		if (n == 0)
			return NULL;
		if (p->kind != MIME_MULTIPART) {
			/* RFC 3501 6.4.5: every message has at least one part number. */
			if (n != 1)
				return NULL;
			continue;
		}
		for (p = p->children; n > 1 && p; n--)
			p = p->next;
	}
	return p;
}

/* The header to choose fields from. Where a boundary ended it, the line end that went to the
 * boundary is needed to end the last field. */
static str fields_of(const struct mime_part *p, str message)
{
	str header = mime_part_header(p, message),
	    rest = str_from(message, p->header_at + header.n);

	if (p->is_cut && str_starts(rest, S("\r\n")))
		header.n += 2;
	else if (p->is_cut && str_starts(rest, S("\n")))
		header.n += 1;
	return header;
}

enum err section_find(const struct mime_part *root, str message, const struct section *s,
		      struct buf *built, str *out)
{
	const struct mime_part *p = section_part(root, s->path, s->depth);
	size_t before;

	if (!p)
		return ERR_NOT_FOUND;
	if (s->what == SECTION_ALL) {
		*out = s->depth ? mime_part_body(p, message) : message;
		return ERR_OK;
	}
	if (s->what == SECTION_MIME) {
		if (s->depth == 0)
			return ERR_NOT_FOUND;
		*out = mime_part_header(p, message);
		return ERR_OK;
	}
	if (s->depth) {
		/* RFC 3501 6.4.5: HEADER and TEXT of a part are those of the message that it is. */
		if (p->kind != MIME_MESSAGE)
			return ERR_NOT_FOUND;
		p = p->children;
	}
	if (s->what == SECTION_TEXT) {
		*out = mime_part_body(p, message);
		return ERR_OK;
	}
	if (s->what == SECTION_HEADER) {
		*out = mime_part_header(p, message);
		return ERR_OK;
	}
	before = buf_len(built);
	section_select(fields_of(p, message), s, built);
	*out = str_from(buf_str(built), before);
	return buf_failed(built) ? ERR_NO_MEMORY : ERR_OK;
}

void section_select(str block, const struct section *s, struct buf *out)
{
	header_select(block, s->fields, s->field_count, s->what == SECTION_FIELDS, out);
	/* RFC 3501 6.4.5: the blank line is included "except in the case of a message which has no
	 * body and no blank line"; a list of a whole message's fields has one even then, as clients
	 * know it. */
	if (s->depth == 0 && s->what == SECTION_FIELDS && !header_has_end(block))
		buf_add(out, S("\r\n"));
}

/* RFC 3501 9: section-part = nz-number *("." nz-number) */
static enum err read_numbers(str *rest, struct section *out)
{
	while (rest->n && ascii_is_digit(rest->p[0])) {
		size_t n = 0;
		uint64_t number;
		enum err err;

		while (n < rest->n && ascii_is_digit(rest->p[n]))
			n++;
		if ((err = str_to_u64(str_head(*rest, n), UINT32_MAX, &number)) || number == 0)
			return ERR_SYNTAX;
		if (out->depth == MIME_DEPTH_MAX)
			return ERR_SYNTAX;
		out->path[out->depth++] = (uint32_t)number;
		*rest = str_from(*rest, n);
		if (!rest->n || rest->p[0] != '.')
			return ERR_OK;
		if (rest->n == 1)
			return ERR_SYNTAX;
		*rest = str_from(*rest, 1);
	}
	return ERR_OK;
}

enum err section_parse(str *rest, struct section *out)
{
	static const struct {
		const char *name;
		enum section_what what;
	} names[] = {
		{ "HEADER.FIELDS.NOT", SECTION_FIELDS_NOT },
		{ "HEADER.FIELDS", SECTION_FIELDS },
		{ "HEADER", SECTION_HEADER },
		{ "TEXT", SECTION_TEXT },
		{ "MIME", SECTION_MIME },
	};
	size_t n = 0;
	bool dotted;
	str name;
	enum err err;

	*out = (struct section){ 0 };
	if ((err = read_numbers(rest, out)))
		return err;
	/* The numbers ended with a dot exactly when a name must follow. */
	dotted = out->depth && rest->p[-1] == '.';
	while (n < rest->n && (ascii_is_alpha(rest->p[n]) || rest->p[n] == '.'))
		n++;
	name = str_head(*rest, n);
	if (n == 0)
		return dotted ? ERR_SYNTAX : ERR_OK;
	if (out->depth && !dotted)
		return ERR_SYNTAX;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!str_case_eq(name, str_from_c(names[i].name)))
			continue;
		out->what = names[i].what;
		*rest = str_from(*rest, n);
		return out->what == SECTION_MIME && out->depth == 0 ? ERR_SYNTAX : ERR_OK;
	}
	return ERR_SYNTAX;
}
