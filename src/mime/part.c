/* The MIME tree (RFC 2046).
 *
 * One cursor goes through the message once. Lines are found with memchr, and only a line that
 * begins with "--" is looked at: it is compared with the boundaries that are open, at most
 * MIME_DEPTH_MAX of them, which are a stack. A match closes every part inside of the boundary's
 * multipart (also those that forgot their own end) and opens the next part, or the epilogue.
 *
 * A boundary matches when the line begins with it, as RFC 2046 5.1.1 says; where several match, the
 * longest wins, so that an outer "abc" does not end an inner "abcd". It is also recognised inside
 * of a header, where a part ended before its blank line.
 *
 * Line ends are counted as the cursor passes them, so a part's lines are a subtraction. Sizes are
 * offsets. Recursion is used nowhere here. */
#include "mime/part_priv.h"

struct boundary {
	struct mime_part *part;
	str text;
};

struct parser {
	str message;
	struct arena *a;
	size_t at;    /* the cursor: always at the beginning of a line */
	size_t lines; /* line ends before the cursor */
	struct mime_part *root, *part;
	struct boundary open[MIME_DEPTH_MAX + 1];
	size_t open_count;
	size_t parts;
	struct part_fields fields;
};

static struct mime_part *part_new(struct parser *s)
{
	struct mime_part *p = ARENA_NEW(s->a, struct mime_part), *parent = s->part;

	if (!p)
		return NULL;
	p->parent = parent;
	p->header_at = s->at;
	if (parent) {
		p->depth = parent->depth + 1;
		parent->child_count++;
		if (parent->last_child)
			parent->last_child->next = p;
		else
			parent->children = p;
		parent->last_child = p;
	}
	if (!s->root)
		s->root = p;
	s->part = p;
	s->parts++;
	return p;
}

/* The line at the cursor without its end; *next is where the line after it begins. */
static str line_at(const struct parser *s, size_t at, size_t *next)
{
	const char *from = s->message.p + at, *end = memchr(from, '\n', s->message.n - at);
	str line = str_of(from, end ? (size_t)(end - from) : s->message.n - at);

	*next = at + line.n + (end != NULL);
	if (end && line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

/* Which open boundary the line begins with, the longest one. */
static struct boundary *boundary_of(struct parser *s, str line, bool *is_last)
{
	struct boundary *best = NULL;
	str text = str_from(line, 2), bare = text;

	if (bare.n > 2 && str_ends(bare, S("--")))
		bare.n -= 2;
	for (size_t i = s->open_count; i-- > 0;) {
		struct boundary *b = &s->open[i];

		if ((best && best->text.n >= b->text.n) || !str_starts(text, b->text))
			continue;
		best = b;
		/* Exactly this one: "foo--" ends "foo", even if "foo--" is open further out. */
		if (b->text.n == bare.n || b->text.n == text.n)
			break;
	}
	if (best)
		*is_last = str_starts(str_from(text, best->text.n), S("--"));
	return best;
}

static bool may_be_boundary(const struct parser *s, size_t at)
{
	return s->open_count && s->message.n - at >= 2 && s->message.p[at] == '-' &&
	       s->message.p[at + 1] == '-';
}

/* Ends the body of the current part and goes up to its parent. */
static void close_part(struct parser *s, size_t end, size_t lines)
{
	struct mime_part *p = s->part;

	p->body_len = end > p->body_at ? end - p->body_at : 0;
	/* Until now it held the count at the body's start. */
	p->lines = lines > p->lines ? lines - p->lines : 0;
	s->part = p->parent;
}

/* RFC 2046 5.1.1: the line end before a boundary belongs to the boundary. */
static size_t before_boundary(const struct parser *s, size_t at, size_t from)
{
	if (at > from && s->message.p[at - 1] == '\n')
		at--;
	else
		return at;
	if (at > from && s->message.p[at - 1] == '\r')
		at--;
	return at;
}

static void begin_body(struct parser *s)
{
	s->part->header_len = s->at - s->part->header_at;
	s->part->body_at = s->at;
	s->part->lines = s->lines;
}

/* The cursor is on a boundary line. Closes what it ends; true when a new part begins behind it.
 * What lies before `from` was a header or another boundary, and keeps its line end. */
static bool take_boundary(struct parser *s, struct boundary *b, bool is_last, size_t from)
{
	bool complete;
	size_t next;

	while (s->part != b->part) {
		size_t end = before_boundary(s, s->at, MAX(from, s->part->body_at));

		if (s->part->is_cut)
			end = s->part->body_at;
		close_part(s, end, end < s->at ? s->lines - 1 : s->lines);
	}
	s->open_count = (size_t)(b - s->open) + (is_last ? 0 : 1);
	(void)line_at(s, s->at, &next);
	complete = next > s->at && s->message.p[next - 1] == '\n';
	s->at = next;
	s->lines += complete;
	return !is_last && complete && s->parts < MIME_PARTS_MAX;
}

static struct boundary *boundary_here(struct parser *s)
{
	bool is_last;
	size_t next;

	return may_be_boundary(s, s->at) ? boundary_of(s, line_at(s, s->at, &next), &is_last)
					 : NULL;
}

/* Reads fields up to the blank line, a boundary or the end. */
static enum err read_header(struct parser *s)
{
	struct mime_part *p = s->part;
	str rest = str_from(s->message, s->at);
	struct header_field f;
	enum err err;

	for (;;) {
		if (boundary_here(s))
			return ERR_OK;
		if (!header_next(&rest, &f))
			break;
		if ((err = part_field(&s->fields, p, &f)))
			return err;
		s->at += f.raw.n;
		for (str l = f.raw; l.n && memchr(l.p, '\n', l.n); s->lines++)
			(void)str_cut(&l, '\n');
	}
	if (rest.n) {
		s->at += rest.p[0] == '\r' ? 2 : 1;
		s->lines++;
	}
	return ERR_OK;
}

/* A header with a boundary directly behind it: its last line end, be it the blank line's, belongs
 * to the boundary, and there is no body. */
static void cut_header(struct parser *s)
{
	struct mime_part *p = s->part;
	struct boundary *b = boundary_here(s);
	size_t end;

	if (!b || b->part == p)
		return;
	end = before_boundary(s, s->at, p->header_at);
	p->header_len = end - p->header_at;
	p->body_at = end;
	p->lines -= end < s->at;
	p->is_cut = true;
}

/* What the fields say, once they are all known. */
static void settle_kind(struct parser *s)
{
	struct mime_part *p = s->part;
	bool deep = p->depth + 1 >= MIME_DEPTH_MAX || s->parts >= MIME_PARTS_MAX;

	if (!p->is_mime) {
		/* RFC 2045 4: without MIME-Version it is plain text; Content-Type alone counts as
		 * MIME too. */
		struct mime_part plain = {
			.header_at = p->header_at,
			.header_len = p->header_len,
			.body_at = p->body_at,
			.lines = p->lines,
			.envelope = p->envelope,
			.parent = p->parent,
			.depth = p->depth,
		};

		*p = plain;
	}
	/* RFC 2046 5.1.5 */
	if ((!s->fields.has_type || !p->is_mime) && p->parent && p->parent->is_digest)
		p->kind = MIME_MESSAGE;
	if (p->kind == MIME_MULTIPART) {
		/* RFC 2046 5.1.1 requires a boundary; without one there is a multipart without
		 * parts. */
		if (deep)
			p->kind = MIME_OTHER;
		else if (s->fields.boundary.p)
			s->open[s->open_count++] = (struct boundary){ p, s->fields.boundary };
	} else if (p->kind == MIME_MESSAGE && deep) {
		p->kind = MIME_OTHER;
	}
}

static enum err read_part_header(struct parser *s, bool is_message)
{
	enum err err;

	if (is_message) {
		s->fields.envelope = ARENA_NEW(s->a, struct mime_envelope);
		if (!s->fields.envelope)
			return ERR_NO_MEMORY;
		s->part->envelope = s->fields.envelope;
	} else {
		s->fields.envelope = NULL;
	}
	s->fields.has_type = false;
	s->fields.boundary = STR_EMPTY;
	if ((err = read_header(s)))
		return err;
	begin_body(s);
	settle_kind(s);
	cut_header(s);
	return ERR_OK;
}

/* Goes to the next boundary line; false at the end of the message. */
static bool find_boundary(struct parser *s, struct boundary **b, bool *is_last)
{
	while (s->at < s->message.n) {
		size_t next;

		if (may_be_boundary(s, s->at) &&
		    (*b = boundary_of(s, line_at(s, s->at, &next), is_last)))
			return true;
		(void)line_at(s, s->at, &next);
		s->lines += s->message.p[next - 1] == '\n';
		s->at = next;
	}
	return false;
}

static enum err parse(struct parser *s)
{
	bool is_last;
	struct boundary *b;
	size_t from;
	enum err err;

	if (!part_new(s))
		return ERR_NO_MEMORY;
	if ((err = read_part_header(s, true)))
		return err;
	for (;;) {
		if (s->part->kind == MIME_MESSAGE && !s->part->children) {
			if (!part_new(s))
				return ERR_NO_MEMORY;
			if ((err = read_part_header(s, true)))
				return err;
			continue;
		}
		from = s->at;
		if (!find_boundary(s, &b, &is_last))
			break;
		if (!take_boundary(s, b, is_last, from))
			continue;
		if (!part_new(s))
			return ERR_NO_MEMORY;
		s->part->is_mime = true;
		if ((err = read_part_header(s, false)))
			return err;
	}
	while (s->part)
		close_part(s, s->message.n, s->lines);
	return ERR_OK;
}

enum err mime_parse(str message, struct arena *a, struct mime_part **root)
{
	struct parser s = { .message = message, .a = a };
	enum err err;

	s.fields.a = a;
	buf_init(&s.fields.scratch, message.n + 16);
	if (message.n == 0)
		s.message = S("");
	err = parse(&s);
	buf_free(&s.fields.scratch);
	*root = err ? NULL : s.root;
	return err;
}

bool mime_type_is(const struct mime_part *p, str type, str subtype)
{
	str t = p->type.p ? p->type : S("text");
	str sub = p->subtype.p ? p->subtype : p->type.p ? S("") : S("plain");

	return str_case_eq(t, type) && (subtype.n == 0 || str_case_eq(sub, subtype));
}

str mime_param(const struct mime_params *params, str name, struct arena *a)
{
	for (size_t i = 0; i < params->count; i++) {
		const struct param *p = &params->items[i];

		if (str_case_eq(p->name, name))
			return p->value;
		if (p->name.n == name.n + 1 && p->name.p[name.n] == '*' &&
		    str_case_eq(str_head(p->name, name.n), name)) {
			struct buf b;
			str s;

			buf_init(&b, p->value.n * 4 + 16);
			rfc2231_decode(p->value, &b);
			s = arena_str(a, buf_str(&b));
			buf_free(&b);
			return s;
		}
	}
	return STR_EMPTY;
}
