/* Addresses: SMTP paths strictly, address lists as leniently as Dovecot. */
#include "base/tap.h"
#include "mime/address.h"
#include "mime/envelope.h"

static struct arena *a;
static struct buf out;

/* The canonical text of a path, or the error's name. */
static str path(str s, unsigned flags)
{
	struct addr_spec spec;
	enum err err = addr_parse_path(&s, flags, a, &spec);

	buf_clear(&out);
	if (err)
		buf_printf(&out, "!%s", err_name(err));
	else
		addr_write(spec, &out);
	if (!err) {
		buf_add_char(&out, '|');
		buf_add(&out, s);
	}
	return buf_str(&out);
}

static void test_paths(void)
{
	tap_group("paths");
	STR_EQ(path(S("<a@b.example> SIZE=1"), 0), S("a@b.example| SIZE=1"));
	STR_EQ(path(S("<>"), ADDR_ALLOW_NULL), S("|"));
	STR_EQ(path(S("<>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<@x.example,@y.example:a@b>"), 0), S("a@b|"));
	STR_EQ(path(S("<@x.example,y.example:a@b>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<Postmaster>"), ADDR_ALLOW_NO_DOMAIN), S("Postmaster|"));
	STR_EQ(path(S("<other>"), ADDR_ALLOW_NO_DOMAIN), S("!SYNTAX"));
	STR_EQ(path(S("<postmaster>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<\"a b\\\"c\"@d>"), 0), S("\"a b\\\"c\"@d|"));
	STR_EQ(path(S("<\"plain\"@d>"), 0), S("plain@d|"));
	STR_EQ(path(S("<\"\"@d>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@[192.0.2.1]>"), 0), S("a@[192.0.2.1]|"));
	STR_EQ(path(S("<a@[IPv6:2001:db8::1]>"), 0), S("a@[IPv6:2001:db8::1]|"));
	STR_EQ(path(S("<a@[192.0.2.256]>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a..b@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<.a@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a.@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@c.>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@-c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@c-.d>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@b@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a b@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<a@b"), 0), S("!SYNTAX"));
	STR_EQ(path(S("a@b"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<\"a\rb\"@c>"), 0), S("!SYNTAX"));
	STR_EQ(path(S("<gr\xC3\xBC@b>"), 0), S("!UNSUPPORTED"));
	STR_EQ(path(S("<gr\xC3\xBC@\xC3\xBC.example>"), ADDR_ALLOW_UTF8),
	       S("gr\xC3\xBC@\xC3\xBC.example|"));
	STR_EQ(path(S("<gr\xFC@b>"), ADDR_ALLOW_UTF8), S("!SYNTAX"));
}

/* The limits at -1, 0 and +1. */
static void test_limits(void)
{
	char text[600];
	struct addr_spec spec;

	tap_group("limits");
	memset(text, 'a', sizeof(text));
	for (size_t n = ADDR_LOCAL_MAX - 1; n <= ADDR_LOCAL_MAX + 1; n++) {
		memcpy(text + n, "@b.example", 10);
		EQ(addr_spec_parse(str_of(text, n + 10), 0, a, &spec),
		   n > ADDR_LOCAL_MAX ? ERR_TOO_LONG : ERR_OK);
		memset(text, 'a', sizeof(text));
	}
	for (size_t n = ADDR_LABEL_MAX - 1; n <= ADDR_LABEL_MAX + 1; n++)
		OK(addr_domain_is_valid(str_of(text, n)) == (n <= ADDR_LABEL_MAX));
	for (size_t i = 50; i < sizeof(text); i += 50)
		text[i] = '.';
	for (size_t n = ADDR_DOMAIN_MAX - 1; n <= ADDR_DOMAIN_MAX + 1; n++)
		OK(addr_domain_is_valid(str_of(text, n)) == (n <= ADDR_DOMAIN_MAX));
	text[1] = '@';
	for (size_t n = ADDR_PATH_MAX - 3; n <= ADDR_PATH_MAX - 1; n++)
		EQ(addr_spec_parse(str_of(text, n), 0, a, &spec),
		   n + 2 > ADDR_PATH_MAX ? ERR_TOO_LONG : ERR_OK);
}

/* A field as one ENVELOPE address list. */
static str list(str value)
{
	struct address_list l = { 0 };
	struct mime_envelope e = { 0 };
	str s;

	if (address_list_parse(value, a, &l))
		return S("error");
	e.cc = l;
	buf_clear(&out);
	mime_write_envelope(&e, &out);
	s = buf_str(&out);
	return str_sub(s, 25, s.n - 25 - 13);
}

/* Members of a group count as well. */
static void test_list_limit(void)
{
	static const str begins[] = { { "a,", 2 }, { "g:a,", 4 } };

	tap_group("list limit");
	for (size_t i = 0; i < ARRAY_LEN(begins); i++) {
		struct arena *own = arena_new(16 << 20);
		struct address_list l = { 0 };
		struct buf b;

		buf_init(&b, 1 << 20);
		buf_add(&b, begins[i]);
		for (int k = 0; k < 2 * ADDRESS_LIST_MAX; k++)
			buf_add(&b, S("a,"));
		EQ(address_list_parse(buf_str(&b), own, &l), ERR_OK);
		/* The end of the group is told, however many it has. */
		EQ(l.count, ADDRESS_LIST_MAX + i);
		buf_free(&b);
		arena_free(own);
	}
}

static void test_lists(void)
{
	struct addr_spec spec;
	struct address e = { .mailbox = S("a b"), .domain = S("c.example") };

	tap_group("lists");
	STR_EQ(list(S("a@b")), S("((NIL NIL \"a\" \"b\"))"));
	STR_EQ(list(S("\"A, B\" <a@b>, c@d (C)")),
	       S("((\"A, B\" NIL \"a\" \"b\")(\"C\" NIL \"c\" \"d\"))"));
	STR_EQ(list(S("g: a@b, c@d;, e@f")),
	       S("((NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")(NIL NIL NIL "
		 "NIL)(NIL NIL \"e\" \"f\"))"));
	STR_EQ(list(S("undisclosed-recipients:;")),
	       S("((NIL NIL \"undisclosed-recipients\" NIL)(NIL NIL NIL NIL))"));
	STR_EQ(list(S("<@a,@b:c@d>")), S("((NIL \"@a,@b\" \"c\" \"d\"))"));
	STR_EQ(list(S("a . b @ c . d")), S("((NIL NIL \"a.b\" \"c.d\"))"));
	STR_EQ(list(S("Big Bug")), S("((\"Big Bug\" NIL \"MISSING_MAILBOX\" \"MISSING_DOMAIN\"))"));
	STR_EQ(list(S("x <a b@c>")), S("((\"x\" NIL \"a\" \"SYNTAX_ERROR\"))"));
	STR_EQ(list(S("x <a@b")), S("((\"x\" NIL \"a\" \"SYNTAX_ERROR\"))"));
	STR_EQ(list(S("a@[192.0.2.1]")), S("((NIL NIL \"a\" \"[192.0.2.1]\"))"));
	STR_EQ(list(S("\xe9 <a@b>")), S("(({1}\r\n\xe9 NIL \"a\" \"b\"))"));
	STR_EQ(list(S("(only a comment)")), S("NIL"));
	STR_EQ(list(S("")), S("NIL"));
	EQ(address_to_addr(&e, a, &spec), ERR_OK);
	STR_EQ(spec.local, S("a b"));
	e.domain = S("SYNTAX ERROR");
	EQ(address_to_addr(&e, a, &spec), ERR_SYNTAX);
	e.domain = STR_EMPTY;
	EQ(address_to_addr(&e, a, &spec), ERR_SYNTAX);
}

int main(void)
{
	a = arena_new(1 << 20);
	buf_init(&out, 1 << 20);
	test_paths();
	test_limits();
	test_lists();
	test_list_limit();
	buf_free(&out);
	arena_free(a);
	return tap_done();
}
