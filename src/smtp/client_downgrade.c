/* From 8 bits to 7: RFC 6152 3 lets a client convert a message for a server without 8BITMIME, and
 * RFC 2045 says how.
 *
 * One pass, line by line, with the memory of one part's header and the boundaries around it. Each
 * header is collected and parsed; a part that says `8bit` or `binary` becomes quoted-printable, and
 * a multipart or message that says so, whose encoding may not change (RFC 2045 6.4), says `7bit`
 * instead while what is inside it is converted on its own. All other bytes pass as they are: a
 * message that is 7-bit comes out unchanged, so signatures over it hold. Raw 8-bit bytes in headers
 * or in parts that declare none cannot be converted to anything true and pass too, as with Postfix.
 *
 * What is deeper than DEPTH_MAX or has a header of more than SMTP_WIRE_HEADER_MAX passes
 * unconverted: wrong at worst as the sender's message was. The alternative, converting from a
 * parsed tree, would need the whole message in memory.
 */
#include "mime/header.h"
#include "mime/part.h"
#include "smtp/client_wire_priv.h"

#include <stdlib.h>

enum { DEPTH_MAX = 20, HEADER_BUDGET = 4 * SMTP_WIRE_HEADER_MAX };

enum state { IN_HEADER, IN_TEXT, IN_QUOTED };

struct boundary {
	char text[MIME_BOUNDARY_MAX + 2]; /* with its "--" */
	size_t n;
};

struct smtp_downgrade {
	enum state state;
	struct buf header; /* of the part whose header is being read, with CRLF */
	struct arena *arena;
	struct boundary around[DEPTH_MAX];
	unsigned depth;
	/* Quoted-printable: */
	unsigned column;
	char blank; /* white space not yet written: what it becomes depends on what follows */
	bool gave_up;
};

struct smtp_downgrade *smtp_downgrade_new(void)
{
	struct smtp_downgrade *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	buf_init(&d->header, SMTP_WIRE_HEADER_MAX);
	d->arena = arena_new(HEADER_BUDGET);
	if (!d->arena) {
		free(d);
		return NULL;
	}
	return d;
}

void smtp_downgrade_free(struct smtp_downgrade *d)
{
	if (!d)
		return;
	buf_free(&d->header);
	arena_free(d->arena);
	free(d);
}

/* The header as it is: its lines were folded when they came, so they go out whole. */
static void write_lines(str block, struct buf *out)
{
	while (block.n) {
		str line = str_cut_line(&block);

		segment_write((struct segment){ .text = line, .begins = true, .ends = true }, out);
	}
}

static void write_header(str block, const char *encoding, struct buf *out)
{
	struct header_field f;

	while (header_next(&block, &f)) {
		if (encoding && str_case_eq(f.name, S("content-transfer-encoding")))
			buf_printf(out, "Content-Transfer-Encoding: %s\r\n", encoding);
		else
			write_lines(f.raw, out);
	}
	write_lines(block, out);
}

static bool is_8bit(const struct mime_part *p)
{
	str encoding = str_trim(p->encoding);

	return str_case_eq(encoding, S("8bit")) || str_case_eq(encoding, S("binary"));
}

static bool is_encoded(const struct mime_part *p)
{
	str encoding = str_trim(p->encoding);

	return str_case_eq(encoding, S("quoted-printable")) || str_case_eq(encoding, S("base64"));
}

/* Goes inside: the new innermost boundary. */
static void enter(struct smtp_downgrade *d, str boundary)
{
	struct boundary *b = &d->around[d->depth];

	if (d->depth == DEPTH_MAX || !boundary.n || boundary.n > MIME_BOUNDARY_MAX)
		return;
	memcpy(b->text, "--", 2);
	memcpy(b->text + 2, boundary.p, boundary.n);
	b->n = boundary.n + 2;
	d->depth++;
}

/* The header is complete, with its empty line: writes it, and decides what becomes of the body. */
static void header_done(struct smtp_downgrade *d, struct buf *out)
{
	struct mime_part *p = NULL;
	str block = buf_str(&d->header);
	const char *encoding = NULL;

	d->state = IN_TEXT;
	if (mime_parse(block, d->arena, &p) != ERR_OK) {
		write_lines(block, out);
	} else {
		bool is_message = str_case_eq(p->type, S("message")) &&
				  (str_case_eq(p->subtype, S("rfc822")) ||
				   str_case_eq(p->subtype, S("global")));
		bool is_leaf = p->kind != MIME_MULTIPART && !is_message;

		if (is_8bit(p))
			encoding = is_leaf ? "quoted-printable" : "7bit";
		if (p->kind == MIME_MULTIPART)
			enter(d, mime_param(&p->params, S("boundary"), d->arena));
		else if (is_message && !is_encoded(p))
			d->state = IN_HEADER;
		else if (encoding)
			d->state = IN_QUOTED;
		write_header(block, encoding, out);
	}
	d->column = 0;
	d->blank = 0;
	arena_reset(d->arena);
	buf_clear(&d->header);
}

/* A header too long to hold: it and all that follows goes out as it is. */
static void give_up(struct smtp_downgrade *d, struct segment s, struct buf *out)
{
	write_lines(buf_str(&d->header), out);
	if (!s.begins)
		buf_truncate(out, buf_len(out) >= 2 ? buf_len(out) - 2 : 0);
	segment_write(s, out);
	buf_clear(&d->header);
	d->gave_up = true;
}

static void header_add(struct smtp_downgrade *d, struct segment s, struct buf *out)
{
	if (buf_len(&d->header) + s.text.n + 5 > SMTP_WIRE_HEADER_MAX) {
		give_up(d, s, out);
		return;
	}
	if (!s.begins)
		buf_add(&d->header, S("\r\n "));
	buf_add(&d->header, s.text);
	if (s.ends)
		buf_add(&d->header, S("\r\n"));
	if (s.begins && s.ends && !s.text.n)
		header_done(d, out);
}

/* Writes a character or an escape of n bytes, with a soft break before it where the line is full.
 */
static void quoted_put(struct smtp_downgrade *d, const char *text, unsigned n, struct buf *out)
{
	/* RFC 2045 6.7 (5): at most 76 characters, the "=" of a soft break among them. */
	if (d->column + n > 75) {
		buf_add(out, S("=\r\n"));
		d->column = 0;
	}
	/* A soft break can bring a dot to the front of a line. */
	if (!d->column && text[0] == '.')
		buf_add_char(out, '.');
	buf_add(out, str_of(text, n));
	d->column += n;
}

static void quoted_escape(struct smtp_downgrade *d, char c, struct buf *out)
{
	static const char hex[] = "0123456789ABCDEF";
	char text[3] = { '=', hex[(unsigned char)c >> 4], hex[(unsigned char)c & 15] };

	quoted_put(d, text, 3, out);
}

static void quoted_add(struct smtp_downgrade *d, struct segment s, struct buf *out)
{
	for (size_t i = 0; i < s.text.n; i++) {
		char c = s.text.p[i];

		if (d->blank)
			quoted_put(d, &d->blank, 1, out);
		d->blank = 0;
		if (c == ' ' || c == '\t')
			d->blank = c;
		else if (c < ' ' || c > '~' || c == '=')
			quoted_escape(d, c, out);
		else
			quoted_put(d, &c, 1, out);
	}
	if (!s.ends)
		return;
	/* RFC 2045 6.7 (3): white space must not stand at a line's end. */
	if (d->blank)
		quoted_escape(d, d->blank, out);
	d->blank = 0;
	d->column = 0;
	buf_add(out, S("\r\n"));
}

/* Is this line a boundary around us (RFC 2046 5.1.1)? Then we are out of everything inside of it,
 * and its next part, or what follows its last, begins. */
static bool boundary_crossed(struct smtp_downgrade *d, str line)
{
	if (line.n < 2 || line.p[0] != '-' || line.p[1] != '-')
		return false;
	for (unsigned i = d->depth; i-- > 0;) {
		str b = str_of(d->around[i].text, d->around[i].n), rest;

		if (!str_starts(line, b))
			continue;
		rest = str_from(line, b.n);
		if (str_starts(rest, S("--"))) {
			d->depth = i;
			d->state = IN_TEXT;
			return true;
		}
		if (str_trim(rest).n)
			continue;
		d->depth = i + 1;
		d->state = IN_HEADER;
		return true;
	}
	return false;
}

void smtp_downgrade_add(struct smtp_downgrade *d, struct segment s, struct buf *out)
{
	if (!d->gave_up && s.begins && s.ends && boundary_crossed(d, s.text)) {
		/* A part that ended within its header. */
		write_lines(buf_str(&d->header), out);
		buf_clear(&d->header);
		segment_write(s, out);
	} else if (d->gave_up || d->state == IN_TEXT) {
		segment_write(s, out);
	} else if (d->state == IN_HEADER) {
		header_add(d, s, out);
	} else {
		quoted_add(d, s, out);
	}
}

void smtp_downgrade_end(struct smtp_downgrade *d, struct buf *out)
{
	write_lines(buf_str(&d->header), out);
	buf_clear(&d->header);
}
