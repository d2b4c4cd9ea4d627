/* Routing.
 *
 * The table is searched from its first row for each pattern; it is a setting written by hand, of
 * some rows. The order of patterns is Postfix's transport(5), but for address extensions: the whole
 * address, the domain, the parents with their leading dot, and the asterisk. Domains match without
 * regard to case, local parts too (RFC 5321 2.4 would have them exact; nobody writes a route for
 * one case of a name).
 */
#include "queue/route.h"

str route_domain(str address)
{
	size_t at = str_rfind_char(address, '@');

	return at == STR_NONE ? STR_EMPTY : str_from(address, at + 1);
}

static const struct route_pair *pair_find(const struct route_table *t, str pattern)
{
	for (size_t i = 0; i < t->count; i++)
		if (str_case_eq(t->pairs[i].pattern, pattern))
			return &t->pairs[i];
	return NULL;
}

static const struct route_pair *pair_match(const struct route_table *t, str address)
{
	str domain = route_domain(address);
	const struct route_pair *p = pair_find(t, address);

	if (!p && domain.n)
		p = pair_find(t, domain);
	/* An address literal has no parents. */
	if (!str_starts(domain, S("["))) {
		for (size_t dot; !p && (dot = str_find_char(domain, '.')) != STR_NONE;
		     domain = str_from(domain, dot + 1))
			p = pair_find(t, str_from(domain, dot));
	}
	return p ? p : pair_find(t, S("*"));
}

enum err route_find(const struct route_table *t, str address, struct arena *a, str *hop)
{
	const struct route_pair *p = pair_match(t, address);

	*hop = STR_EMPTY;
	if (p) {
		str at = p->hop, transport = str_cut(&at, ':');

		/* ":nexthop" leaves the transport as it is; "smtp:" the next hop, relayhost's
		 * included. */
		*hop = transport.n ? p->hop : arena_printf(a, "smtp:%.*s", STR_ARGS(at));
		return hop->p ? ERR_OK : ERR_NO_MEMORY;
	}
	if (!t->relayhost.n)
		return ERR_OK;
	*hop = arena_printf(a, "smtp:%.*s", STR_ARGS(t->relayhost));
	return hop->p ? ERR_OK : ERR_NO_MEMORY;
}

static enum err parse_port(str s, uint16_t *port)
{
	uint64_t n = 0;

	if (!s.n)
		return ERR_OK;
	if (s.p[0] != ':' || str_to_u64(str_from(s, 1), 65535, &n) || !n)
		return ERR_SYNTAX;
	*port = (uint16_t)n;
	return ERR_OK;
}

/* "[host]" at the front: the host without brackets and what follows it. */
static enum err parse_bracket(str s, str *host, str *rest)
{
	size_t end = str_find_char(s, ']');

	if (end == STR_NONE)
		return ERR_SYNTAX;
	*host = str_sub(s, 1, end - 1);
	*rest = str_from(s, end + 1);
	/* RFC 5321 4.1.3: IPv6 literals bear a tag. */
	if (str_case_starts(*host, S("ipv6:")))
		*host = str_from(*host, 5);
	return host->n ? ERR_OK : ERR_SYNTAX;
}

static enum err parse_path(str s, str *path)
{
	*path = s;
	return s.n > 1 && s.n <= ROUTE_PATH_MAX && s.p[0] == '/' ? ERR_OK : ERR_SYNTAX;
}

enum err route_parse(str hop, str domain, struct route_hop *out)
{
	str at = hop, transport = str_cut(&at, ':'), rest = STR_EMPTY;

	*out = (struct route_hop){ .asks_mx = true };
	if (str_case_eq(transport, S("lmtp")))
		out->is_lmtp = true;
	else if (transport.n && !str_case_eq(transport, S("smtp")) &&
		 !str_case_eq(transport, S("relay")))
		return ERR_UNSUPPORTED;
	if (!at.n)
		at = domain;
	if (str_starts(at, S("["))) {
		out->asks_mx = false;
		if (parse_bracket(at, &out->host, &rest))
			return ERR_SYNTAX;
	} else {
		rest = at;
		out->host = str_cut(&rest, ':');
		rest = str_from(at, out->host.n);
		if (!out->host.n)
			return ERR_SYNTAX;
	}
	if (out->is_lmtp) {
		out->asks_mx = false;
		if (str_case_eq(out->host, S("unix")) && rest.n)
			return parse_path(str_from(rest, 1), &out->path);
		out->port = ROUTE_LMTP_PORT;
	}
	return parse_port(rest, &out->port);
}
