/* `listen = SERVICE ADDRESS [mode=0660]`: which sockets the server opens.
 *
 * A table says which services exist, on which port one listens when nothing is configured, and
 * whether TLS comes first (RFC 8314). "*:25" means both families, as two sockets, so that a log
 * line names one family and a machine without IPv6 fails with the right words.
 */
#include "conf/conf_priv.h"

struct service {
	const char *name;
	uint16_t standard_port; /* 0: not without being told */
	bool is_tls;
};

static const struct service services[] = {
	{ "smtp", 25, false }, { "submission", 587, false }, { "submissions", 465, true },
	{ "lmtp", 0, false },  { "imap", 0, false },	     { "imaps", 993, true },
};

static const struct service *service_find(str name)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		if (str_eq(name, str_from_c(services[i].name)))
			return &services[i];
	return NULL;
}

bool conf_service_is_tls(str service)
{
	const struct service *s = service_find(service);

	return s && s->is_tls;
}

static void add(struct conf_parser *p, const struct conf_listen *listen)
{
	struct conf *c = p->conf;
	struct conf_listen *to = &c->listens[c->listen_count];

	if (c->listen_count == CONF_LISTEN_MAX) {
		conf_problem(p, listen->line, "more than %d listening sockets", CONF_LISTEN_MAX);
		return;
	}
	*to = *listen;
	to->service = arena_str(p->arena, listen->service);
	p->no_memory |= !to->service.p;
	c->listen_count++;
}

/* Both families. */
static void add_any(struct conf_parser *p, struct conf_listen *listen, uint16_t port)
{
	listen->address = (struct addr){ .family = ADDR_IP4, .port = port };
	add(p, listen);
	listen->address = (struct addr){ .family = ADDR_IP6, .port = port };
	add(p, listen);
}

static bool parse_mode(str option, unsigned *mode)
{
	unsigned m = 0;

	if (!str_starts(option, S("mode=")) || option.n < 8 || option.n > 9)
		return false;
	for (size_t i = 5; i < option.n; i++) {
		if (option.p[i] < '0' || option.p[i] > '7')
			return false;
		m = m * 8 + (unsigned)(option.p[i] - '0');
	}
	*mode = m;
	return m <= 0777;
}

void conf_add_listen(struct conf_parser *p, str text, unsigned line)
{
	struct conf_listen listen = { .line = line, .mode = 0660 };
	str rest = text, address, option;
	uint64_t port;

	listen.service = conf_next_item(&rest);
	address = conf_next_item(&rest);
	if (!service_find(listen.service)) {
		conf_problem(p, line,
			     "listen: \"%.*s\" is none of smtp, submission, submissions, lmtp, "
			     "imap, imaps",
			     STR_ARGS(str_head(listen.service, 60)));
		return;
	}
	while ((option = conf_next_item(&rest)).n > 0) {
		if (!parse_mode(option, &listen.mode))
			conf_problem(p, line, "listen: unknown option \"%.*s\"",
				     STR_ARGS(str_head(option, 60)));
		else if (!str_starts(address, S("unix:")))
			conf_problem(p, line, "listen: mode= is for unix: sockets alone");
	}
	if (str_starts(address, S("*:")) && !str_to_u64(str_from(address, 2), UINT16_MAX, &port) &&
	    port > 0) {
		add_any(p, &listen, (uint16_t)port);
	} else if (addr_parse(address, &listen.address) ||
		   (listen.address.family != ADDR_UNIX && listen.address.port == 0)) {
		conf_problem(
			p, line,
			"listen: \"%.*s\" must be ADDRESS:PORT, [IPV6]:PORT, *:PORT or unix:/PATH",
			STR_ARGS(str_head(address, 100)));
	} else {
		add(p, &listen);
	}
}

void conf_add_default_listens(struct conf_parser *p)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		struct conf_listen listen = { .service = str_from_c(services[i].name) };

		if (services[i].standard_port > 0)
			add_any(p, &listen, services[i].standard_port);
	}
}
