/* Addresses: grammar, canonical forms, limits. */
#include "auth/address.h"

#include "base/tap.h"

struct expected {
	const char *text, *whole, *key;
};

static void accepts(struct arena *a)
{
	static const struct expected rows[] = {
		{ "Alice@Example.TEST", "Alice@example.test", "alice@example.test" },
		{ "a.b+c@x", "a.b+c@x", "a.b+c@x" },
		{ "\"Bob\"@example.test", "Bob@example.test", "bob@example.test" },
		{ "\"B\\ob\"@example.test", "Bob@example.test", "bob@example.test" },
		{ "\"A B\"@example.test", "\"A B\"@example.test", "\"a b\"@example.test" },
		{ "\"a\\\"b\\\\\"@x.test", "\"a\\\"b\\\\\"@x.test", "\"a\\\"b\\\\\"@x.test" },
		{ "\"a@b\"@x.test", "\"a@b\"@x.test", "\"a@b\"@x.test" },
		{ "a@b\u00FCcher.example", "a@xn--bcher-kva.example", "a@xn--bcher-kva.example" },
		{ "a@B\u00DCCHER.example", "a@xn--bcher-kva.example", "a@xn--bcher-kva.example" },
		{ "J\u00D6RG@x.test", "J\u00D6RG@x.test", "j\u00F6rg@x.test" },
		{ "jo\u0308rg@x.test", "jo\u0308rg@x.test", "j\u00F6rg@x.test" },
		{ "a@Some_Host.test", "a@some_host.test", "a@some_host.test" },
		{ "a@[192.0.2.1]", "a@[192.0.2.1]", "a@[192.0.2.1]" },
		{ "a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]", "a@[ipv6:2001:db8::1]" },
	};
	struct auth_address got;

	tap_group("accepted");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		EQ(auth_address_parse(str_from_c(rows[i].text), a, &got), ERR_OK);
		STR_EQ(got.whole, str_from_c(rows[i].whole));
		STR_EQ(got.key, str_from_c(rows[i].key));
	}
	EQ(auth_address_parse(S("\"A B\"@X.test"), a, &got), ERR_OK);
	STR_EQ(got.local, S("\"A B\""));
	STR_EQ(got.key_local, S("\"a b\""));
	STR_EQ(got.domain, S("x.test"));
}

static void refuses(struct arena *a)
{
	static const str rows[] = {
		S(""),	       S("a"),		S("@"),		 S("a@"),	 S("@x"),
		S(".a@x"),     S("a.@x"),	S("a..b@x"),	 S("a b@x"),	 S("a@b@x"),
		S("\"a@x"),    S("\"\"@x"),	S("\"a\"b@x"),	 S("\"a\\\"@x"), S("\"a\"b\"@x"),
		S("a\0b@x"),   S("\"a\0b\"@x"), S("\"a\nb\"@x"), S("a\xff@x"),	 S("a@-x"),
		S("a@x-"),     S("a@x..y"),	S("a@x."),	 S("a@.x"),	 S("a@x y"),
		S("a@x\xff"),  S("a@[]"),	S("a@[1 2]"),	 S("a,b@x"),	 S("<a@x>"),
		S("a@\u00AD"),
	};
	struct auth_address got;

	tap_group("refused");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!EQ(auth_address_parse(rows[i], a, &got), ERR_SYNTAX))
			tap_str("for", rows[i]);
}

static enum err of_sizes(struct arena *a, size_t local, size_t labels)
{
	char text[400];
	size_t n = local;
	struct auth_address got;

	memset(text, 'a', local);
	text[n++] = '@';
	for (size_t i = 0; i < labels; i++)
		text[n++] = i % 2 ? '.' : 'd';
	return auth_address_parse(str_of(text, n), a, &got);
}

static void limits(struct arena *a)
{
	char label[AUTH_ADDRESS_LABEL_MAX + 1];
	str domain;

	tap_group("limits");
	EQ(of_sizes(a, AUTH_ADDRESS_LOCAL_MAX - 1, 1), ERR_OK);
	EQ(of_sizes(a, AUTH_ADDRESS_LOCAL_MAX, 1), ERR_OK);
	EQ(of_sizes(a, AUTH_ADDRESS_LOCAL_MAX + 1, 1), ERR_TOO_LONG);
	EQ(of_sizes(a, 2, 251), ERR_OK);       /* 254 in all */
	EQ(of_sizes(a, 3, 251), ERR_TOO_LONG); /* 255 */
	memset(label, 'x', sizeof(label));
	EQ(auth_domain_parse(str_of(label, AUTH_ADDRESS_LABEL_MAX), a, &domain), ERR_OK);
	EQ(auth_domain_parse(str_of(label, AUTH_ADDRESS_LABEL_MAX + 1), a, &domain), ERR_SYNTAX);
	EQ(auth_domain_parse(S("[192.0.2.1]"), a, &domain), ERR_SYNTAX);
	EQ(auth_domain_parse(S(""), a, &domain), ERR_SYNTAX);
}

static void joins(struct arena *a)
{
	str key;

	tap_group("join");
	EQ(auth_address_join(S("bob"), S("x.test"), a, &key), ERR_OK);
	STR_EQ(key, S("bob@x.test"));
	EQ(auth_address_join(S("a b"), S("x.test"), a, &key), ERR_OK);
	STR_EQ(key, S("\"a b\"@x.test"));
	EQ(auth_address_join(S(""), S("x.test"), a, &key), ERR_SYNTAX);
}

int main(void)
{
	struct arena *a = arena_new(1 << 20), *small = arena_new(8);
	struct auth_address got;

	accepts(a);
	refuses(a);
	limits(a);
	joins(a);
	tap_group("no memory");
	EQ(auth_address_parse(S("alice@example.test"), small, &got), ERR_NO_MEMORY);
	arena_free(small);
	arena_free(a);
	return tap_done();
}
