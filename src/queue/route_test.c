/* Routes: which row of the table wins, and how next hops are written. */
#include "base/addr.h"
#include "base/tap.h"
#include "queue/route.h"

static const struct route_pair pairs[] = {
	{ { "example.com", 11 }, { "smtp:[192.0.2.1]:2525", 21 } },
	{ { ".example.com", 12 }, { "smtp:sub.example", 16 } },
	{ { ".deep.example.com", 17 }, { "lmtp:[127.0.0.1]", 16 } },
	{ { "Boss@Example.org", 16 }, { "smtp:[boss]", 11 } },
	{ { "direct.example", 14 }, { "smtp:", 5 } },
	{ { "same.example", 12 }, { ":[there]:26", 11 } },
};

static void find(const struct route_table *t, str address, str want)
{
	struct arena *a = arena_new(4096);
	str hop;

	EQ(route_find(t, address, a, &hop), ERR_OK);
	STR_EQ(hop, want);
	arena_free(a);
}

static void test_find(void)
{
	static const struct route_pair all[] = { { { "*", 1 }, { "smtp:[out.example]", 18 } } };
	struct route_table t = { pairs, ARRAY_LEN(pairs), STR_EMPTY };
	struct route_table star = { all, 1, S("[relay.example]") };

	tap_group("table");
	find(&t, S("a@example.com"), S("smtp:[192.0.2.1]:2525"));
	find(&t, S("a@EXAMPLE.com"), S("smtp:[192.0.2.1]:2525"));
	find(&t, S("a@x.example.com"), S("smtp:sub.example"));
	find(&t, S("a@y.x.example.com"), S("smtp:sub.example"));
	find(&t, S("a@x.deep.example.com"), S("lmtp:[127.0.0.1]"));
	find(&t, S("a@deep.example.com"), S("smtp:sub.example"));
	find(&t, S("a@notexample.com"), S(""));
	find(&t, S("boss@example.org"), S("smtp:[boss]"));
	find(&t, S("other@example.org"), S(""));
	find(&t, S("a@same.example"), S("smtp:[there]:26"));
	t.relayhost = S("[relay.example]:587");
	find(&t, S("other@example.org"), S("smtp:[relay.example]:587"));
	find(&t, S("a@direct.example"), S("smtp:"));
	find(&star, S("a@b.example"), S("smtp:[out.example]"));
	find(&star, S("a@[192.0.2.7]"), S("smtp:[out.example]"));
}

static void test_parse(void)
{
	static const struct {
		const char *hop, *domain;
		enum err err;
		bool is_lmtp, asks_mx;
		const char *host;
		uint16_t port;
	} cases[] = {
		{ "", "example.org", ERR_OK, false, true, "example.org", 0 },
		{ "smtp:", "example.org", ERR_OK, false, true, "example.org", 0 },
		{ "smtp:relay.example", "example.org", ERR_OK, false, true, "relay.example", 0 },
		{ "relay:relay.example:587", "example.org", ERR_OK, false, true, "relay.example",
		  587 },
		{ "smtp:[relay.example]:587", "example.org", ERR_OK, false, false, "relay.example",
		  587 },
		{ "smtp:[2001:db8::1]:65535", "example.org", ERR_OK, false, false, "2001:db8::1",
		  65535 },
		{ "smtp:[IPv6:2001:db8::1]", "example.org", ERR_OK, false, false, "2001:db8::1",
		  0 },
		{ "", "[192.0.2.1]", ERR_OK, false, false, "192.0.2.1", 0 },
		{ "", "[IPv6:::1]", ERR_OK, false, false, "::1", 0 },
		{ "lmtp:[127.0.0.1]", "x", ERR_OK, true, false, "127.0.0.1", 24 },
		{ "lmtp:store.example:2424", "x", ERR_OK, true, false, "store.example", 2424 },
		{ "lmtp:unix:/run/x", "x", ERR_OK, true, false, "unix", 0 },
		{ "lmtp:unix", "x", ERR_OK, true, false, "unix", 24 },
		{ "lmtp:unix:", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "lmtp:unix:run/x", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "uucp:there", "x", ERR_UNSUPPORTED, false, false, NULL, 0 },
		{ "smtp:[a", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp:[]", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp::25", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp:a:0", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp:a:65536", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp:[a]25", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "smtp:a:b", "x", ERR_SYNTAX, false, false, NULL, 0 },
		{ "", "", ERR_SYNTAX, false, false, NULL, 0 },
	};

	tap_group("next hop");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct route_hop h;
		enum err err =
			route_parse(str_from_c(cases[i].hop), str_from_c(cases[i].domain), &h);

		if (!EQ(err, cases[i].err) || err)
			continue;
		EQ(h.is_lmtp, cases[i].is_lmtp);
		EQ(h.asks_mx, cases[i].asks_mx);
		STR_EQ(h.host, str_from_c(cases[i].host));
		EQ(h.port, cases[i].port);
	}
}

/* A socket's path as long as an address can be, and one more. */
static void test_path(void)
{
	char text[ROUTE_PATH_MAX + 20] = "lmtp:unix:/";
	struct route_hop h;
	size_t n = strlen(text);

	tap_group("path");
	EQ(ROUTE_PATH_MAX, sizeof((struct addr){ 0 }.path) - 1);
	while (n < 10 + ROUTE_PATH_MAX)
		text[n++] = 'x';
	EQ(route_parse(str_of(text, n), S("d"), &h), ERR_OK);
	STR_EQ(h.path, str_of(text + 10, ROUTE_PATH_MAX));
	text[n++] = 'x';
	EQ(route_parse(str_of(text, n), S("d"), &h), ERR_SYNTAX);
	EQ(route_parse(S("lmtp:[::1]"), S("d"), &h), ERR_OK);
	EQ(h.path.n, 0);
}

int main(void)
{
	test_find();
	test_parse();
	test_path();
	return tap_done();
}
