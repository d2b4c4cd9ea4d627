/* The language of FETCH: items, macros, sections, partial ranges (RFC 3501 6.4.5 and 9: fetch-att).
 *
 * A section is kept together with the label that the answer repeats. The label is made here, once
 * for the command, because every message's answer begins with it; header names in it are in
 * capitals, as Dovecot sends them, since clients compare them with what they asked in whatever case
 * they chose to ask it.
 */
#include "imap/fetch_items.h"

static const struct {
	const char *name;
	unsigned items;
	bool is_macro; /* RFC 3501 6.4.5: alone, not inside of a list */
} simple_items[] = {
	{ "UID", IMAP_FETCH_UID, false },
	{ "FLAGS", IMAP_FETCH_FLAGS, false },
	{ "INTERNALDATE", IMAP_FETCH_INTERNALDATE, false },
	{ "RFC822.SIZE", IMAP_FETCH_SIZE, false },
	{ "ENVELOPE", IMAP_FETCH_ENVELOPE, false },
	{ "BODYSTRUCTURE", IMAP_FETCH_BODYSTRUCTURE, false },
	{ "FAST", IMAP_FETCH_FLAGS | IMAP_FETCH_INTERNALDATE | IMAP_FETCH_SIZE, true },
	{ "ALL", IMAP_FETCH_FLAGS | IMAP_FETCH_INTERNALDATE | IMAP_FETCH_SIZE | IMAP_FETCH_ENVELOPE,
	  true },
	{ "FULL",
	  IMAP_FETCH_FLAGS | IMAP_FETCH_INTERNALDATE | IMAP_FETCH_SIZE | IMAP_FETCH_ENVELOPE |
		  IMAP_FETCH_BODY,
	  true },
};

/* The items that are sections under an old name. */
static const struct {
	const char *name;
	enum section_what what;
	bool is_peek;
} old_items[] = {
	{ "RFC822", SECTION_ALL, false },
	{ "RFC822.HEADER", SECTION_HEADER, true },
	{ "RFC822.TEXT", SECTION_TEXT, false },
};

static enum err section_new(struct imap_parser *p, struct imap_fetch *f, struct imap_section **out)
{
	struct imap_section *s, **tail = &f->sections;

	if (f->section_count == IMAP_SECTIONS_MAX)
		return imap_parse_wrong(p, "Too many sections");
	if (!(s = ARENA_NEW(p->arena, struct imap_section)))
		return ERR_NO_MEMORY;
	while (*tail)
		tail = &(*tail)->next;
	*tail = s;
	f->section_count++;
	*out = s;
	return ERR_OK;
}

/* " (From \"Subject\")" behind HEADER.FIELDS */
static enum err parse_header_names(struct imap_parser *p, struct section *s)
{
	str *names = arena_array(p->arena, IMAP_HEADER_NAMES_MAX, sizeof(*names));
	enum err err;

	if (!names)
		return ERR_NO_MEMORY;
	if ((err = imap_parse_space(p)))
		return err;
	if (!imap_parse_take(p, '('))
		return imap_parse_wrong(p, "Expected a list of header names");
	do {
		if (s->field_count == IMAP_HEADER_NAMES_MAX)
			return imap_parse_wrong(p, "Too many header names");
		if ((err = imap_parse_astring(p, &names[s->field_count++])))
			return err;
	} while (imap_parse_more(p));
	if (!imap_parse_take(p, ')'))
		return imap_parse_wrong(p, "Missing ')'");
	s->fields = names;
	return ERR_OK;
}

static const char *const what_names[] = {
	[SECTION_ALL] = "",
	[SECTION_HEADER] = "HEADER",
	[SECTION_FIELDS] = "HEADER.FIELDS",
	[SECTION_FIELDS_NOT] = "HEADER.FIELDS.NOT",
	[SECTION_TEXT] = "TEXT",
	[SECTION_MIME] = "MIME",
};

static void write_upper(struct buf *b, str s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_char(b, ascii_upper(s.p[i]));
}

static void write_label_names(struct buf *b, const struct section *s)
{
	buf_add(b, S(" ("));
	for (size_t i = 0; i < s->field_count; i++) {
		str name = s->fields[i];
		bool is_atom = imap_atom_is_valid(name);

		if (i)
			buf_add_char(b, ' ');
		if (!is_atom)
			buf_printf(b, "{%zu}\r\n", name.n);
		write_upper(b, name);
	}
	buf_add_char(b, ')');
}

static enum err make_label(struct imap_parser *p, struct imap_section *s)
{
	struct buf b;
	enum err err = ERR_OK;

	buf_init(&b, (size_t)IMAP_LINE_MAX * 2);
	buf_add(&b, S("BODY["));
	for (size_t i = 0; i < s->section.depth; i++) {
		if (i)
			buf_add_char(&b, '.');
		buf_add_u64(&b, s->section.path[i]);
	}
	if (s->section.depth && s->section.what != SECTION_ALL)
		buf_add_char(&b, '.');
	buf_add(&b, str_from_c(what_names[s->section.what]));
	if (s->section.field_count)
		write_label_names(&b, &s->section);
	buf_add_char(&b, ']');
	/* RFC 3501 7.4.2: BODY[<section>]<<origin octet>> */
	if (s->is_partial)
		buf_printf(&b, "<%u>", s->from);
	s->label = buf_failed(&b) ? STR_EMPTY : arena_str(p->arena, buf_str(&b));
	if (!s->label.p)
		err = ERR_NO_MEMORY;
	buf_free(&b);
	return err;
}

/* "<0.2048>" */
static enum err parse_partial(struct imap_parser *p, struct imap_section *s)
{
	uint64_t from, count;
	enum err err;

	if (!imap_parse_take(p, '<'))
		return ERR_OK;
	if ((err = imap_parse_number(p, UINT32_MAX, &from)))
		return err;
	if (!imap_parse_take(p, '.'))
		return imap_parse_wrong(p, "Invalid partial range");
	if ((err = imap_parse_number(p, UINT32_MAX, &count)))
		return err;
	if (count == 0 || !imap_parse_take(p, '>'))
		return imap_parse_wrong(p, "Invalid partial range");
	s->is_partial = true;
	s->from = u32_of(from);
	s->count = u32_of(count);
	return ERR_OK;
}

/* The cursor is behind "BODY[" or "BODY.PEEK[". */
static enum err parse_section(struct imap_parser *p, struct imap_fetch *f, bool is_peek)
{
	struct imap_section *s;
	enum err err;

	if ((err = section_new(p, f, &s)))
		return err;
	s->is_peek = is_peek;
	if (section_parse(&p->rest, &s->section))
		return imap_parse_wrong(p, "Invalid section");
	if (s->section.what == SECTION_FIELDS || s->section.what == SECTION_FIELDS_NOT)
		if ((err = parse_header_names(p, &s->section)))
			return err;
	if (!imap_parse_take(p, ']'))
		return imap_parse_wrong(p, "Missing ']'");
	if ((err = parse_partial(p, s)))
		return err;
	return make_label(p, s);
}

static enum err parse_body(struct imap_parser *p, struct imap_fetch *f, bool is_peek)
{
	if (imap_parse_take(p, '['))
		return parse_section(p, f, is_peek);
	if (is_peek)
		return imap_parse_wrong(p, "Missing '[' after BODY.PEEK");
	f->items |= IMAP_FETCH_BODY;
	return ERR_OK;
}

static enum err parse_item(struct imap_parser *p, struct imap_fetch *f, bool in_list)
{
	str word = imap_parse_word(p);
	struct imap_section *s;
	enum err err;

	if (str_case_eq(word, S("BODY")) || str_case_eq(word, S("BODY.PEEK")))
		return parse_body(p, f, word.n > 4);
	for (size_t i = 0; i < ARRAY_LEN(simple_items); i++) {
		if (str_case_eq(word, str_from_c(simple_items[i].name)) &&
		    !(in_list && simple_items[i].is_macro)) {
			f->items |= simple_items[i].items;
			return ERR_OK;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(old_items); i++) {
		if (!str_case_eq(word, str_from_c(old_items[i].name)))
			continue;
		if ((err = section_new(p, f, &s)))
			return err;
		s->section.what = old_items[i].what;
		s->is_peek = old_items[i].is_peek;
		s->label = str_from_c(old_items[i].name);
		return ERR_OK;
	}
	return imap_parse_wrong(p, "Unknown FETCH item");
}

enum err imap_parse_fetch(struct imap_parser *p, struct imap_fetch *out)
{
	enum err err;

	*out = (struct imap_fetch){ 0 };
	if (!imap_parse_take(p, '('))
		return parse_item(p, out, false);
	do {
		if ((err = parse_item(p, out, true)))
			return err;
	} while (imap_parse_more(p));
	return imap_parse_take(p, ')') ? ERR_OK : imap_parse_wrong(p, "Missing ')'");
}
