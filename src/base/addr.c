/* Internet addresses as text and back. inet_pton and inet_ntop are pure functions of libc. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>

enum err addr_parse_ip(str s, struct addr *out)
{
	char text[64];
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (s.n == 0 || s.n >= sizeof(text) || str_find_char(s, '\0') != STR_NONE)
		return ERR_SYNTAX;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	*out = (struct addr){ .family = ADDR_IP4 };
	if (inet_pton(AF_INET, text, out->ip) == 1)
		return ERR_OK;
	out->family = ADDR_IP6;
	if (inet_pton(AF_INET6, text, out->ip) != 1)
		return ERR_SYNTAX;
	if (memcmp(out->ip, mapped, 12) == 0) {
		out->family = ADDR_IP4;
		memmove(out->ip, out->ip + 12, 4);
		memset(out->ip + 4, 0, 12);
	}
	return ERR_OK;
}

enum err addr_parse(str s, struct addr *out)
{
	uint64_t port;
	str ip;
	size_t colon;

	if (str_starts(s, S("unix:"))) {
		s = str_from(s, 5);
		if (s.n == 0 || s.n >= sizeof(out->path))
			return ERR_TOO_LONG;
		if (str_find_char(s, '\0') != STR_NONE)
			return ERR_SYNTAX;
		*out = (struct addr){ .family = ADDR_UNIX };
		memcpy(out->path, s.p, s.n);
		return ERR_OK;
	}
	colon = str_rfind_char(s, ':');
	if (colon == STR_NONE || str_to_u64(str_from(s, colon + 1), 65535, &port))
		return ERR_SYNTAX;
	ip = str_head(s, colon);
	if (ip.n > 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']')
		ip = str_sub(ip, 1, ip.n - 2);
	else if (str_find_char(ip, ':') != STR_NONE)
		return ERR_SYNTAX; /* IPv6 without brackets: where does the port begin? */
	if (addr_parse_ip(ip, out))
		return ERR_SYNTAX;
	out->port = (uint16_t)port;
	return ERR_OK;
}

str addr_ip_text(const struct addr *a, char *text)
{
	text[0] = 0;
	if (a->family == ADDR_IP4)
		inet_ntop(AF_INET, a->ip, text, ADDR_TEXT_MAX);
	else if (a->family == ADDR_IP6)
		inet_ntop(AF_INET6, a->ip, text, ADDR_TEXT_MAX);
	else if (a->family == ADDR_UNIX)
		snprintf(text, ADDR_TEXT_MAX, "local");
	return str_from_c(text);
}

str addr_text(const struct addr *a, char *text)
{
	char ip[ADDR_TEXT_MAX];

	if (a->family == ADDR_UNIX) {
		snprintf(text, ADDR_TEXT_MAX, "unix:%.92s", a->path);
		return str_from_c(text);
	}
	addr_ip_text(a, ip);
	snprintf(text, ADDR_TEXT_MAX, a->family == ADDR_IP6 ? "[%.64s]:%u" : "%.64s:%u", ip,
		 a->port);
	return str_from_c(text);
}

static size_t ip_size(const struct addr *a)
{
	return a->family == ADDR_IP4 ? 4 : a->family == ADDR_IP6 ? 16 : 0;
}

bool addr_ip_eq(const struct addr *a, const struct addr *b)
{
	return a->family == b->family && memcmp(a->ip, b->ip, ip_size(a)) == 0;
}

bool addr_in_net(const struct addr *a, const struct addr *net, unsigned bits)
{
	size_t size = ip_size(a);

	if (a->family != net->family || size == 0 || bits > size * 8)
		return false;
	if (memcmp(a->ip, net->ip, bits / 8) != 0)
		return false;
	if (bits % 8 == 0)
		return true;
	return ((a->ip[bits / 8] ^ net->ip[bits / 8]) >> (8 - bits % 8)) == 0;
}

bool addr_is_loopback(const struct addr *a)
{
	static const uint8_t one[16] = { [15] = 1 };

	if (a->family == ADDR_UNIX)
		return true;
	return a->family == ADDR_IP4 ? a->ip[0] == 127
				     : a->family == ADDR_IP6 && memcmp(a->ip, one, 16) == 0;
}
