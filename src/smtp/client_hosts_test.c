/* MX: order, implicit, null, ourselves, failures, literals, hostile names. */
#include "base/tap.h"
#include "smtp/client_hosts.h"
#include "store/types.h"

struct zone_record {
	const char *name;
	uint16_t type;
	const char *data; /* MX: "10 host"; A, AAAA: the address; "!": the look-up fails; "?": no
			     such name */
};

static void add(struct dns_answer *out, enum dns_type type, str text)
{
	uint64_t preference = 0;

	if (type != DNS_TYPE_MX) {
		if (addr_parse_ip(text, &out->address[out->count++]))
			OK(!"address");
		return;
	}
	if (str_to_u64(str_cut(&text, ' '), 65535, &preference))
		OK(!"preference");
	out->mx[out->count++] = (struct dns_mx){ .preference = (uint16_t)preference, .host = text };
}

static enum err ask(void *arg, enum dns_type type, str name, struct arena *a,
		    struct dns_answer *out)
{
	const struct zone_record *zone = arg;

	*out = (struct dns_answer){ .result = DNS_NO_DATA };
	out->mx = arena_array(a, 16, sizeof(*out->mx));
	out->address = arena_array(a, 16, sizeof(*out->address));
	if (!dns_name_is_askable(name))
		OK(!"a name that can be asked for");
	for (; zone->name; zone++) {
		if (!str_case_eq(str_from_c(zone->name), name) ||
		    (zone->type != type && zone->data[0] != '?'))
			continue;
		if (zone->data[0] == '!')
			return ERR_TEMPORARY;
		out->result = zone->data[0] == '?' ? DNS_NO_NAME : DNS_FOUND;
		if (out->result == DNS_FOUND)
			add(out, type, str_from_c(zone->data));
	}
	return ERR_OK;
}

#define MX   DNS_TYPE_MX
#define A    DNS_TYPE_A
#define AAAA DNS_TYPE_AAAA

static const struct zone_record zone[] = {
	{ "two.example", MX, "20 b.example" },
	{ "two.example", MX, "10 a.example" },
	{ "a.example", A, "192.0.2.1" },
	{ "a.example", A, "192.0.2.2" },
	{ "a.example", AAAA, "2001:db8::1" },
	{ "b.example", A, "192.0.2.3" },
	{ "implicit.example", A, "192.0.2.4" },
	{ "null.example", MX, "0 " },
	{ "half-null.example", MX, "0 " },
	{ "half-null.example", MX, "5 a.example" },
	{ "gone.example", 0, "?" },
	{ "broken.example", MX, "!" },
	{ "noaddress.example", MX, "10 nowhere.example" },
	{ "halfbroken.example", MX, "10 sick.example" },
	{ "halfbroken.example", MX, "20 b.example" },
	{ "sick.example", A, "!" },
	{ "allsick.example", MX, "10 sick.example" },
	{ "ours.example", MX, "10 me.example" },
	{ "ours.example", MX, "20 b.example" },
	{ "backup.example", MX, "10 a.example" },
	{ "backup.example", MX, "20 Me.Example" },
	{ "backup.example", MX, "20 b.example" },
	{ "backup.example", MX, "30 b.example" },
	{ "byaddress.example", MX, "10 alias.example" },
	{ "alias.example", A, "198.51.100.9" },
	{ "me.example", A, "198.51.100.9" },
	{ "xn--bcher-kva.example", A, "192.0.2.5" },
	{ NULL, 0, NULL },
};

static struct smtp_target targets[SMTP_ADDRESSES_MAX];
static size_t count;
static struct smtp_result why;
static struct arena *arena;

static enum err find(const char *host, bool asks_mx, uint64_t chance)
{
	static struct addr own;
	union {
		const void *in;
		void *out;
	} z = { .in = zone };
	struct smtp_hosts_question q = {
		.host = str_from_c(host),
		.asks_mx = asks_mx,
		.port = 25,
		.own_name = S("me.example"),
		.own = &own,
		.own_count = 1,
		.chance = chance,
		.ask = ask,
		.arg = z.out,
	};

	arena_reset(arena);
	if (addr_parse(S("198.51.100.9:25"), &own))
		OK(!"own address");
	return smtp_hosts_find(&q, arena, targets, &count, &why);
}

static void target_is(size_t i, str host, str address)
{
	char text[ADDR_TEXT_MAX];

	if (!OK(i < count))
		return;
	STR_EQ(targets[i].host, host);
	STR_EQ(addr_text(&targets[i].address, text), address);
}

static void test_order(void)
{
	tap_group("order");
	EQ(find("two.example", true, 1), ERR_OK);
	EQ(count, 4);
	target_is(0, S("a.example"), S("[2001:db8::1]:25"));
	target_is(1, S("a.example"), S("192.0.2.1:25"));
	target_is(2, S("a.example"), S("192.0.2.2:25"));
	target_is(3, S("b.example"), S("192.0.2.3:25"));
	EQ(find("implicit.example", true, 1), ERR_OK);
	EQ(count, 1);
	target_is(0, S("implicit.example"), S("192.0.2.4:25"));
	EQ(find("implicit.example.", true, 1), ERR_OK);
	EQ(find("b.example", false, 1), ERR_OK);
	target_is(0, S("b.example"), S("192.0.2.3:25"));
	EQ(find("192.0.2.77", false, 1), ERR_OK);
	target_is(0, S("192.0.2.77"), S("192.0.2.77:25"));
	EQ(find("2001:db8::7", false, 1), ERR_OK);
	target_is(0, S("2001:db8::7"), S("[2001:db8::7]:25"));
	EQ(find("b\xc3\xbc"
		"cher.example",
		true, 1),
	   ERR_OK);
	target_is(0, S("xn--bcher-kva.example"), S("192.0.2.5:25"));
	EQ(find("halfbroken.example", true, 1), ERR_OK);
	target_is(0, S("b.example"), S("192.0.2.3:25"));
	EQ(find("half-null.example", true, 1), ERR_OK);
	EQ(count, 3);
}

/* Each of two equal servers is first for about half of the chances. */
static void test_shuffle(void)
{
	static const struct zone_record equal[] = { { "e.example", MX, "10 a" },
						    { "e.example", MX, "10 b" },
						    { "a", A, "192.0.2.1" },
						    { "b", A, "192.0.2.2" },
						    { NULL, 0, NULL } };
	struct smtp_hosts_question q = {
		.host = S("e.example"), .asks_mx = true, .port = 25, .ask = ask
	};
	union {
		const void *in;
		void *out;
	} z = { .in = equal };
	unsigned first = 0;

	tap_group("equal preference");
	q.arg = z.out;
	for (uint64_t i = 0; i < 200; i++) {
		arena_reset(arena);
		q.chance = (i + 1) * 0x9e3779b97f4a7c15ull;
		if (smtp_hosts_find(&q, arena, targets, &count, &why) || count != 2)
			OK(!"not found");
		first += str_eq(targets[0].host, S("a"));
	}
	OK(first > 50);
	OK(first < 150);
}

static void why_is(enum err got, enum err want, uint8_t state, const char *status)
{
	EQ(got, want);
	EQ(why.state, state);
	STR_EQ(smtp_result_status(&why), str_from_c(status));
}

static void test_failures(void)
{
	tap_group("failures");
	why_is(find("null.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.1.10");
	EQ(why.code, 556);
	why_is(find("gone.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.1.2");
	why_is(find("broken.example", true, 1), ERR_TEMPORARY, QUEUE_DEFERRED, "4.4.3");
	why_is(find("noaddress.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.4.4");
	why_is(find("allsick.example", true, 1), ERR_TEMPORARY, QUEUE_DEFERRED, "4.4.3");
	why_is(find("no..name", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.1.2");
	why_is(find("a b.example", false, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.1.2");
	why_is(find("\xff\xff.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.1.2");
}

static void test_ourselves(void)
{
	tap_group("ourselves");
	why_is(find("ours.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.4.6");
	why_is(find("byaddress.example", true, 1), ERR_NOT_FOUND, QUEUE_FAILED, "5.4.6");
	for (uint64_t chance = 0; chance < 8; chance++) {
		EQ(find("backup.example", true, chance * 77), ERR_OK);
		EQ(count, 3);
		target_is(2, S("a.example"), S("192.0.2.2:25"));
	}
}

int main(void)
{
	arena = arena_new(4 * 1024 * 1024);
	test_order();
	test_shuffle();
	test_failures();
	test_ourselves();
	arena_free(arena);
	return tap_done();
}
