/* Any bytes as a message: the tree must account for them, and what is written must be legal on the
 * wire. */
#include "mime/decode.h"
#include "mime/envelope.h"
#include "mime/header.h"
#include "mime/section.h"
#include "text/utf8.h"

enum { BUDGET = 64 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds, const char *what)
{
	if (!holds)
		panic("mime_fuzz: %s", what);
}

static size_t line_ends(str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += s.p[i] == '\n';
	return n;
}

static void check_part(const struct mime_part *p, str message)
{
	size_t end = p->body_at + p->body_len, n = 0;

	check(p->depth <= MIME_DEPTH_MAX, "depth");
	check(p->header_at <= message.n && p->header_at + p->header_len <= message.n &&
		      end <= message.n,
	      "bounds");
	check(p->header_at + p->header_len == p->body_at, "the body follows the header");
	check(p->lines == line_ends(mime_part_body(p, message)), "lines");
	check(p->kind != MIME_MESSAGE ||
		      (p->children && !p->children->next && p->children->envelope),
	      "message");
	for (const struct mime_part *c = p->children; c; c = c->next, n++) {
		check(c->parent == p && c->header_at >= p->body_at, "child begins inside");
		check_part(c, message);
	}
	check(n == p->child_count, "count");
}

/* RFC 3501 9: every byte outside of literals is printable ASCII or TAB, and parentheses match. */
static void check_wire(str s)
{
	size_t depth = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '(') {
			depth++;
		} else if (s.p[i] == ')') {
			check(depth-- > 0, "parentheses");
		} else if (s.p[i] == '"') {
			for (i++; i < s.n && s.p[i] != '"'; i++) {
				check(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] &&
					      !(s.p[i] & 0x80),
				      "quoted");
				i += s.p[i] == '\\';
			}
			check(i < s.n, "quote ends");
		} else if (s.p[i] == '{') {
			str rest = str_from(s, i + 1);
			uint64_t n;

			check(str_to_u64(str_cut(&rest, '}'), s.n, &n) == ERR_OK &&
				      str_starts(rest, S("\r\n")),
			      "literal");
			check(n + 2 <= rest.n, "literal length");
			check(!memchr(rest.p + 2, 0, n), "no NUL");
			i = s.n - rest.n + 2 + n - 1;
		} else {
			check((s.p[i] >= ' ' && s.p[i] < 0x7f), "byte");
		}
	}
	check(depth == 0, "parentheses end");
}

static void check_header(str block)
{
	str rest = block;
	struct header_field f;
	size_t n = 0;

	while (header_next(&rest, &f)) {
		check(f.raw.p == block.p + n && f.raw.n > 0, "fields are adjacent");
		n += f.raw.n;
	}
	check(n + rest.n == block.n, "no byte is lost");
}

static void sections(const struct mime_part *root, str message, str text)
{
	struct section s;
	str field = S("subject"), out;
	struct buf built;

	buf_init(&built, BUDGET);
	if (section_parse(&text, &s) == ERR_OK) {
		s.fields = &field;
		s.field_count = 1;
		(void)!section_find(root, message, &s, &built, &out);
	}
	buf_free(&built);
}

static void addresses(str s, struct arena *a)
{
	struct addr_spec spec, again;
	str rest = s, copy;
	struct buf b;

	buf_init(&b, 4096);
	if (addr_parse_path(&rest, ADDR_ALLOW_NULL | ADDR_ALLOW_UTF8, a, &spec) == ERR_OK &&
	    !addr_is_null(spec)) {
		addr_write(spec, &b);
		copy = buf_str(&b);
		check(addr_spec_parse(copy, ADDR_ALLOW_UTF8, a, &again) == ERR_OK,
		      "a written address parses");
		check(str_eq(spec.local, again.local) && str_eq(spec.domain, again.domain),
		      "and is the same");
	}
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	str message = str_of(data, size);
	struct arena *a = arena_new(BUDGET);
	struct mime_part *root;
	struct buf out;

	buf_init(&out, BUDGET);
	check(mime_parse(message, a, &root) == ERR_OK, "parse");
	check_part(root, message);
	check_header(str_head(message, header_block_length(message)));
	mime_write_envelope(root->envelope, &out);
	check_wire(buf_str(&out));
	buf_clear(&out);
	mime_write_structure(root, true, &out);
	check_wire(buf_str(&out));
	for (const struct mime_part *p = root; p; p = p->children) {
		buf_clear(&out);
		check(mime_decode(p, message, BUDGET / 2, &out) == ERR_OK, "decode");
		check(p->kind != MIME_TEXT || utf8_is_valid(buf_str(&out)), "text is UTF-8");
	}
	sections(root, message, str_head(message, 40));
	sections(root, message, S("2.1.HEADER"));
	addresses(message, a);
	buf_free(&out);
	arena_free(a);
	return 0;
}
