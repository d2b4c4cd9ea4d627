/* The tree, what IMAP says of it, and its sections. */
#include "base/tap.h"
#include "mime/envelope.h"
#include "mime/header.h"
#include "mime/section.h"

static struct arena *a;
static struct buf out;

static const char tree[] = "From: A <a@b>\r\n"
			   "Subject: outer\r\n"
			   "MIME-Version: 1.0\r\n"
			   "Content-Type: multipart/mixed; boundary=\"x\"\r\n"
			   "\r\n"
			   "preamble\r\n"
			   "--x\r\n"
			   "Content-Type: text/plain; charset=utf-8\r\n"
			   "\r\n"
			   "one\r\n"
			   "two\r\n"
			   "--x\r\n"
			   "Content-Type: message/rfc822\r\n"
			   "Content-Disposition: attachment; filename=m.eml\r\n"
			   "\r\n"
			   "Subject: inner\r\n"
			   "From: C <c@d>\r\n"
			   "\r\n"
			   "text\r\n"
			   "--x--\r\n"
			   "epilogue\r\n";

static str structure(str message, bool extended)
{
	struct mime_part *root;

	arena_reset(a);
	buf_clear(&out);
	if (mime_parse(message, a, &root))
		return S("error");
	mime_write_structure(root, extended, &out);
	return buf_str(&out);
}

static str envelope(str message)
{
	struct mime_part *root;

	arena_reset(a);
	buf_clear(&out);
	if (mime_parse(message, a, &root))
		return S("error");
	mime_write_envelope(root->envelope, &out);
	return buf_str(&out);
}

static str section(str message, str spec)
{
	struct mime_part *root;
	struct section s;
	str name = S("subject"), found;
	enum err err;

	arena_reset(a);
	buf_clear(&out);
	if (mime_parse(message, a, &root) || section_parse(&spec, &s))
		return S("error");
	s.fields = &name;
	s.field_count = 1;
	err = section_find(root, message, &s, &out, &found);
	return err == ERR_NOT_FOUND ? S("NIL") : err ? S("error") : found;
}

static void test_structure(void)
{
	tap_group("structure");
	STR_EQ(structure(str_from_c(tree), false),
	       S("((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 8 1)(\"message\" "
		 "\"rfc822\" NIL NIL NIL "
		 "\"7bit\" 37 (NIL \"inner\" ((\"C\" NIL \"c\" \"d\")) ((\"C\" NIL \"c\" \"d\")) "
		 "((\"C\" NIL \"c\" \"d\")) "
		 "NIL NIL NIL NIL NIL) (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL "
		 "\"7bit\" 4 0) 3) \"mixed\")"));
	STR_EQ(structure(S("Content-Type: IMAGE/gif; name=a\r\nContent-ID: "
			   "<i>\r\nContent-Language: en, de\r\n"
			   "Content-Location: l\r\nContent-MD5: m\r\nContent-Disposition: inline; "
			   "x=y\r\n"
			   "Content-Transfer-Encoding: Base64\r\nContent-Description: "
			   "d\r\n\r\nbody\r\n"),
			 true),
	       S("(\"IMAGE\" \"gif\" (\"name\" \"a\") \"<i>\" \"d\" \"Base64\" 6 \"m\" (\"inline\" "
		 "(\"x\" \"y\")) "
		 "(\"en\" \"de\") \"l\")"));
	STR_EQ(structure(S("Content-Type: TEXT/Plain; charset=US-ASCII\r\n\r\n"), false),
	       S("(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)"));
	STR_EQ(structure(S(""), false),
	       S("(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)"));
	STR_EQ(structure(S("Content-Type: multipart/mixed; boundary=x\r\n\r\nno parts"), false),
	       S("((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) "
		 "\"mixed\")"));
	/* No Content-Type and no MIME-Version: the other fields do not count. */
	STR_EQ(structure(S("Content-ID: <x>\r\n\r\n"), false),
	       S("(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)"));
	STR_EQ(structure(S("Content-Type: garbage garbage\r\n\r\n"), false),
	       S("(\"\" \"\" NIL NIL NIL \"7bit\" 0)"));
	STR_EQ(structure(S("Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\nSubject: "
			   "s\r\n\r\n--x--"),
			 false),
	       S("((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 14 (NIL \"s\" NIL NIL NIL NIL NIL "
		 "NIL NIL NIL) (\"text\" "
		 "\"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) 2) \"digest\")"));
}

static void test_boundaries(void)
{
	tap_group("boundaries");
	/* An inner multipart without its end; an inner boundary that begins like the outer one; LF
	 * alone. */
	STR_EQ(structure(S("Content-Type: multipart/a; boundary=b\n\n--b\nContent-Type: "
			   "multipart/c; boundary=bb\n\n--bb\n\nx\n"
			   "--b\nContent-Type: text/html\n\ny\n--b--\n"),
			 false),
	       S("(((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 1 0) "
		 "\"c\")(\"text\" \"html\" (\"charset\" "
		 "\"us-ascii\") NIL NIL \"7bit\" 1 0) \"a\")"));
	/* A part that ends inside of its header; the line end belongs to the boundary. */
	STR_EQ(section(S("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Type: "
			 "text/html\r\n--b--\r\n"),
		       S("1.MIME")),
	       S("Content-Type: text/html"));
	/* RFC 2046 5.1.1: white space behind a boundary is allowed. */
	STR_EQ(section(S("Content-Type: multipart/a; boundary=b\r\n\r\n--b  \r\n\r\nx\r\n--b-- "
			 "\r\n"),
		       S("1")),
	       S("x"));
	/* A boundary that ends in dashes. */
	STR_EQ(section(S("Content-Type: multipart/a; "
			 "boundary=b--\r\n\r\n--b--\r\n\r\nx\r\n--b----\r\n"),
		       S("1")),
	       S("x"));
}

static void test_envelope(void)
{
	tap_group("envelope");
	STR_EQ(envelope(S("Date: d\r\nSubject:  a  b\r\n c\r\nFrom: x@y\r\nSender: s@y\r\nFrom: "
			  "z@y\r\nMessage-ID: <i>\r\n"
			  "In-Reply-To: <\"r\">\r\n\r\n")),
	       S("(\"d\" {5}\r\na b c ((NIL NIL \"x\" \"y\")(NIL NIL \"z\" \"y\")) ((NIL NIL \"s\" "
		 "\"y\")) ((NIL NIL \"x\" "
		 "\"y\")(NIL NIL \"z\" \"y\")) NIL NIL NIL \"<\\\"r\\\">\" \"<i>\")"));
	STR_EQ(envelope(S("Subject: gr\xFC\xDF\r\nDate: a\"\"\"\"\"b\r\n\r\n")),
	       S("({7}\r\na\"\"\"\"\"b {4}\r\ngr\xFC\xDF NIL NIL NIL NIL NIL NIL NIL NIL)"));
	/* What would break the protocol never gets out. */
	STR_EQ(envelope(S("Date: a\r\n b\0c\r\nSubject: \0\r\n\r\n")),
	       S("({5}\r\na b\x80"
		 "c {1}\r\n\x80 NIL NIL NIL NIL NIL NIL NIL NIL)"));
	STR_EQ(envelope(S("")), S("(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"));
}

static void test_sections(void)
{
	str m = str_from_c(tree);

	tap_group("sections");
	STR_EQ(section(m, S("")), m);
	STR_EQ(section(m, S("1")), S("one\r\ntwo"));
	STR_EQ(section(m, S("1.MIME")), S("Content-Type: text/plain; charset=utf-8\r\n\r\n"));
	STR_EQ(section(m, S("1.HEADER")), S("NIL"));
	STR_EQ(section(m, S("2")), S("Subject: inner\r\nFrom: C <c@d>\r\n\r\ntext"));
	STR_EQ(section(m, S("2.HEADER")), S("Subject: inner\r\nFrom: C <c@d>\r\n\r\n"));
	STR_EQ(section(m, S("2.header.fields")), S("Subject: inner\r\n\r\n"));
	STR_EQ(section(m, S("2.HEADER.FIELDS.NOT")), S("From: C <c@d>\r\n\r\n"));
	STR_EQ(section(m, S("2.TEXT")), S("text"));
	STR_EQ(section(m, S("2.1")), S("text"));
	STR_EQ(section(m, S("2.1.1")), S("NIL"));
	STR_EQ(section(m, S("2.2")), S("NIL"));
	STR_EQ(section(m, S("3")), S("NIL"));
	STR_EQ(section(m, S("HEADER.FIELDS")), S("Subject: outer\r\n\r\n"));
	STR_EQ(section(S("Subject: s\r\n\r\nbody"), S("1")), S("body"));
	STR_EQ(section(S("Subject: s\r\n\r\nbody"), S("1.MIME")), S("Subject: s\r\n\r\n"));
	STR_EQ(section(S("Subject: s\r\n\r\nbody"), S("2")), S("NIL"));
	STR_EQ(section(S("Subject: s\r\n\r\nbody"), S("TEXT")), S("body"));
	STR_EQ(section(m, S("MIME")), S("error"));
	STR_EQ(section(m, S("1.")), S("error"));
	STR_EQ(section(m, S("0")), S("error"));
	STR_EQ(section(m, S("1.FOO")), S("error"));
	STR_EQ(section(m, S("1HEADER")), S("error"));
}

/* Nested multiparts: `depth` of them, each with a boundary of its own. */
static void nested(struct buf *b, int depth)
{
	buf_clear(b);
	for (int i = 0; i < depth; i++)
		buf_printf(b, "Content-Type: multipart/mixed; boundary=b%d-\r\n\r\n--b%d-\r\n", i,
			   i);
	buf_add(b, S("\r\ntext\r\n"));
}

static void test_limits(void)
{
	struct mime_part *root;
	struct arena *small;
	struct buf b;

	tap_group("limits");
	buf_init(&b, 64 << 20);
	for (int n = MIME_DEPTH_MAX - 2; n <= MIME_DEPTH_MAX + 1; n++) {
		uint32_t depth = 0;

		nested(&b, n);
		arena_reset(a);
		EQ(mime_parse(buf_str(&b), a, &root), ERR_OK);
		for (const struct mime_part *p = root; p; p = p->children)
			depth = p->depth;
		EQ(depth, MIN(n, MIME_DEPTH_MAX - 1));
	}
	for (int n = MIME_PARTS_MAX - 2; n <= MIME_PARTS_MAX; n++) {
		buf_clear(&b);
		buf_add(&b, S("Content-Type: multipart/mixed; boundary=b\r\n\r\n"));
		for (int i = 0; i < n; i++)
			buf_add(&b, S("--b\r\n\r\n"));
		arena_reset(a);
		EQ(mime_parse(buf_str(&b), a, &root), ERR_OK);
		EQ(root->child_count, MIN(n, MIME_PARTS_MAX - 1));
	}
	buf_free(&b);
	arena_reset(a);
	small = arena_new(256);
	EQ(mime_parse(str_from_c(tree), small, &root), ERR_NO_MEMORY);
	OK(root == NULL);
	arena_free(small);
}

static bool fits(const struct buf *b)
{
	struct arena *budget = arena_new(MIME_BUDGET(buf_len(b)));
	struct mime_part *root;
	enum err err = mime_parse(buf_str(b), budget, &root);

	arena_free(budget);
	return !err;
}

static void add_times(struct buf *b, str s, size_t times)
{
	while (times--)
		buf_add(b, s);
}

/* Messages made of what takes the most memory fit into the budget that is promised: many parts, */
static void test_budget_of_parts(void)
{
	const str hostile[] = {
		S("--b\r\nContent-Type: "
		  "text/plain;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b;a=b\r\n"),
		S("--b\r\nContent-Type: message/rfc822\r\n\r\nTo: "
		  "a@b,a@b,a@b,a@b,a@b,a@b,a@b,a@b,a@b,a@b\r\n"),
		S("--b\r\nContent-Type: x/y\r\nContent-Language: a,b\r\nContent-ID: a\r\n b\r\n"),
		S("--b\r\nContent-Type: message/rfc822\r\nContent-Language: "
		  "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,"
		  "a,a,"
		  "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,"
		  "a,a\r\n"
		  "\r\n"),
	};

	tap_group("budget of parts");
	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		struct mime_part *root;
		struct buf b;

		buf_init(&b, 64 << 20);
		buf_add(&b, S("Content-Type: multipart/mixed; boundary=b\r\n\r\n"));
		add_times(&b, hostile[i], MIME_PARTS_MAX);
		arena_reset(a);
		EQ(mime_parse(buf_str(&b), a, &root), ERR_OK);
		OK(root->child_count > MIME_PARTS_MAX / 3);
		OK(fits(&b));
		buf_free(&b);
	}
}

/* and long fields. */
static void test_budget_of_fields(void)
{
	enum { MANY = 2000000 };
	const struct {
		str begin, middle, end;
		size_t times, fields;
	} hostile[] = {
		{ S("To: g: "), S("a,"), S("a;\r\n"), MANY, 1 },
		{ S("Content-Type: a/b; x*0*=\""), S("y"), S("\"\r\n"), 10 * MANY, 1 },
		{ S("Content-Type: a/b; x*0*=a; x*1=\""), S("%"), S("\"\r\n"), 10 * MANY, 1 },
		{ S("To: \""), S("y"), S("\" <x@y>\r\n"), 132000, 150 },
		{ S("Content-ID: a\r\n "), S("y"), S("\r\n"), 10 * MANY, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		struct buf b;

		tap_group("budget of fields");
		buf_init(&b, 64 << 20);
		for (size_t k = 0; k < hostile[i].fields; k++) {
			buf_add(&b, hostile[i].begin);
			add_times(&b, hostile[i].middle, hostile[i].times);
			buf_add(&b, hostile[i].end);
		}
		buf_add(&b, S("\r\n"));
		OK(fits(&b));
		buf_free(&b);
	}
}

static void test_header(void)
{
	str block = S("A: 1\r\n b\r\nno colon\r\nB : 2\nC:\r\n\r\nbody"), rest = block;
	struct header_field f;
	str names[] = { S("b"), S("NO COLON") };

	tap_group("header");
	OK(header_next(&rest, &f));
	STR_EQ(f.raw, S("A: 1\r\n b\r\n"));
	STR_EQ(f.value, S("1\r\n b"));
	STR_EQ(header_unfold(f.value, a), S("1 b"));
	OK(header_next(&rest, &f));
	OK(!f.has_colon);
	STR_EQ(f.name, S("no colon"));
	OK(header_next(&rest, &f));
	STR_EQ(f.name, S("B"));
	STR_EQ(f.value, S("2"));
	OK(header_next(&rest, &f));
	STR_EQ(f.value, S(""));
	OK(!header_next(&rest, &f));
	STR_EQ(rest, S("\r\nbody"));
	EQ(header_block_length(block), block.n - 4);
	buf_clear(&out);
	header_select(str_head(block, block.n - 4), names, 2, true, &out);
	STR_EQ(buf_str(&out), S("B : 2\n\r\n"));
	buf_clear(&out);
	header_select(str_head(block, block.n - 4), names, 2, false, &out);
	STR_EQ(buf_str(&out), S("A: 1\r\n b\r\nno colon\r\nC:\r\n\r\n"));
	OK(header_find(block, S("c"), &f));
	OK(!header_find(block, S("body"), &f));
}

int main(void)
{
	a = arena_new(64 << 20);
	buf_init(&out, 64 << 20);
	test_structure();
	test_boundaries();
	test_envelope();
	test_sections();
	test_limits();
	test_budget_of_parts();
	test_budget_of_fields();
	test_header();
	buf_free(&out);
	arena_free(a);
	return tap_done();
}
