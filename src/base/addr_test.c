/* Addresses as text and back, networks, loopback. */
#include "base/addr.h"
#include "base/tap.h"

static void there_and_back(str text, str wanted)
{
	struct addr a;
	char out[ADDR_TEXT_MAX];

	EQ(addr_parse(text, &a), ERR_OK);
	STR_EQ(addr_text(&a, out), wanted);
}

static void test_parse(void)
{
	static const char *const bad[] = { "",
					   "127.0.0.1",
					   "127.0.0.1:",
					   "127.0.0.1:65536",
					   "127.0.0.1:+5",
					   "::1:25",
					   "[::1]",
					   "[::1]:",
					   "[::1:25",
					   "[]:25",
					   "host:25",
					   "127.0.0.1:25 ",
					   " 127.0.0.1:25",
					   "127.0.0.01:25",
					   "1.2.3:25",
					   "[::g]:25",
					   "1.2.3.4:5:6",
					   "[fe80::1%1]:25",
					   ":25" };
	struct addr a;

	tap_group("parse");
	there_and_back(S("192.0.2.1:25"), S("192.0.2.1:25"));
	there_and_back(S("192.0.2.1:0"), S("192.0.2.1:0"));
	there_and_back(S("0.0.0.0:65535"), S("0.0.0.0:65535"));
	there_and_back(S("[2001:DB8:0::1]:587"), S("[2001:db8::1]:587"));
	there_and_back(S("[::]:25"), S("[::]:25"));
	there_and_back(S("[::ffff:192.0.2.1]:25"),
		       S("192.0.2.1:25")); /* one client, one spelling */
	there_and_back(S("unix:/run/posthorn/lmtp"), S("unix:/run/posthorn/lmtp"));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (addr_parse(str_from_c(bad[i]), &a) == ERR_OK) {
			OK(!"refused");
			tap_str("taken", str_from_c(bad[i]));
		}
	EQ(addr_parse(S("127.0.0.1\0x:25"), &a), ERR_SYNTAX);
	EQ(addr_parse_ip(S("127.0.0.1\0"), &a), ERR_SYNTAX);
	EQ(addr_parse_ip(S("::1\0::"), &a), ERR_SYNTAX);
	EQ(addr_parse(S("unix:/a\0b"), &a), ERR_SYNTAX);
}

static void test_limits(void)
{
	enum { MOST = sizeof(((struct addr *)0)->path) - 1 };
	char path[5 + MOST + 2];
	char out[ADDR_TEXT_MAX], long_ip[80];
	struct addr a;

	tap_group("limits");
	memset(path, 'p', sizeof(path));
	memcpy(path, "unix:/", 6);
	EQ(addr_parse(str_of(path, 5 + MOST - 1), &a), ERR_OK);
	EQ(addr_parse(str_of(path, 5 + MOST), &a), ERR_OK);
	STR_EQ(addr_text(&a, out), str_of(path, 5 + MOST));
	EQ(a.path[MOST], 0);
	EQ(addr_parse(str_of(path, 5 + MOST + 1), &a), ERR_TOO_LONG);
	EQ(addr_parse(S("unix:"), &a), ERR_TOO_LONG);
	memset(long_ip, '1', sizeof(long_ip));
	EQ(addr_parse_ip(str_of(long_ip, sizeof(long_ip)), &a), ERR_SYNTAX);
	EQ(addr_parse_ip(S("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"), &a), ERR_OK);
	STR_EQ(addr_ip_text(&a, out), S("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
	a = (struct addr){ .family = ADDR_NONE };
	STR_EQ(addr_ip_text(&a, out), S(""));
	a.family = ADDR_UNIX;
	STR_EQ(addr_ip_text(&a, out), S("local"));
}

static bool in_net(str ip, str net, unsigned bits)
{
	struct addr a, n;

	EQ(addr_parse_ip(ip, &a), ERR_OK);
	EQ(addr_parse_ip(net, &n), ERR_OK);
	return addr_in_net(&a, &n, bits);
}

static void test_nets(void)
{
	tap_group("networks");
	OK(in_net(S("10.1.2.3"), S("10.0.0.0"), 8));
	OK(!in_net(S("11.1.2.3"), S("10.0.0.0"), 8));
	OK(in_net(S("192.0.2.127"), S("192.0.2.0"), 25));
	OK(!in_net(S("192.0.2.128"), S("192.0.2.0"), 25));
	OK(in_net(S("192.0.2.1"), S("192.0.2.1"), 32));
	OK(!in_net(S("192.0.2.2"), S("192.0.2.1"), 32));
	OK(in_net(S("203.0.113.9"), S("0.0.0.0"), 0));
	OK(!in_net(S("192.0.2.1"), S("192.0.2.1"), 33));
	OK(in_net(S("2001:db8:ffff::1"), S("2001:db8::"), 32));
	OK(!in_net(S("2001:db9::1"), S("2001:db8::"), 32));
	OK(in_net(S("2001:db8::1"), S("2001:db8::1"), 128));
	OK(!in_net(S("2001:db8::1"), S("2001:db8::1"), 129));
	OK(!in_net(S("10.0.0.1"), S("::"), 0)); /* never across families */
	OK(in_net(S("::ffff:10.0.0.1"), S("10.0.0.0"), 8));
}

static void test_same(void)
{
	struct addr a, b;

	tap_group("same and loopback");
	EQ(addr_parse(S("192.0.2.1:25"), &a), ERR_OK);
	EQ(addr_parse(S("192.0.2.1:26"), &b), ERR_OK);
	OK(addr_ip_eq(&a, &b));
	EQ(addr_parse_ip(S("192.0.2.2"), &b), ERR_OK);
	OK(!addr_ip_eq(&a, &b));
	OK(!addr_is_loopback(&a));
	EQ(addr_parse_ip(S("127.255.255.254"), &a), ERR_OK);
	OK(addr_is_loopback(&a));
	EQ(addr_parse_ip(S("::1"), &a), ERR_OK);
	OK(addr_is_loopback(&a));
	EQ(addr_parse_ip(S("::ffff:127.0.0.1"), &a), ERR_OK);
	OK(addr_is_loopback(&a));
	EQ(addr_parse_ip(S("::2"), &a), ERR_OK);
	OK(!addr_is_loopback(&a));
	a = (struct addr){ .family = ADDR_NONE };
	OK(!addr_is_loopback(&a));
}

int main(void)
{
	test_parse();
	test_limits();
	test_nets();
	test_same();
	return tap_done();
}
