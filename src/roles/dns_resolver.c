/* libunbound, set up: one context, on our loop (dns_events.c), with a bounded cache.
 *
 * Files: libunbound reads none here. The trust anchor is given to it as text, the root's addresses
 * are compiled in. A context is completed by its first question, with everything that a sandbox
 * would forbid later, so the first one is asked while it is made: `localhost`, which it answers by
 * itself.
 *
 * Names that it would refuse to ask about are let through, since whoever names his own name
 * servers wants their answers: private addresses' reverse zones, `test` (RFC 6761 6.2) and
 * home.arpa. They are not signed, and are said to be insecure, or the proof that the root knows no
 * `test` would make each of them bogus.
 *
 * Questions are not cancelled: ub_cancel is not made for the event interface (it frees what the
 * resolver still points to). Whoever asked waits as long as he likes and forgets; libunbound comes
 * to an end by its own limits.
 */
#include "roles/dns_resolver.h"

#include "net/dns.h"
#include "roles/dns_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unbound.h>

#include <unbound-event.h>

enum { CLASS_IN = 1, RCODE_NO_NAME = 3, PACKET_HEADER = 12, ANCHOR_LINE_MAX = 1024 };

struct question {
	struct dns_resolver *resolver;
	struct question *next, **back;
	dns_resolver_fn *fn;
	void *arg;
};

struct dns_resolver {
	struct ub_ctx *ctx;
	struct dns_events *events;
	struct question *first; /* all that are under way */
};

static struct question *question_new(struct dns_resolver *r, dns_resolver_fn *fn, void *arg)
{
	struct question *q = malloc(sizeof(*q));

	if (!q)
		return NULL;
	*q = (struct question){
		.resolver = r, .next = r->first, .back = &r->first, .fn = fn, .arg = arg
	};
	if (q->next)
		q->next->back = &q->next;
	r->first = q;
	return q;
}

static void question_free(struct question *q)
{
	*q->back = q->next;
	if (q->next)
		q->next->back = q->back;
	free(q);
}

static bool set_options(struct ub_ctx *ctx, bool validates)
{
	static const char *const options[][2] = {
		{ "do-not-query-localhost:", "no" },
		{ "unblock-lan-zones:", "yes" },
		{ "insecure-lan-zones:", "yes" },
		{ "domain-insecure:", "test." },
		{ "domain-insecure:", "home.arpa." },
		{ "msg-cache-size:", "4m" },
		{ "msg-cache-slabs:", "1" },
		{ "rrset-cache-size:", "8m" },
		{ "rrset-cache-slabs:", "1" },
		{ "key-cache-size:", "1m" },
		{ "key-cache-slabs:", "1" },
		{ "infra-cache-numhosts:", "2000" },
		{ "infra-cache-slabs:", "1" },
		{ "infra-host-ttl:", "60" }, /* a server that came back is used again soon */
		{ "infra-keep-probing:", "yes" },
		{ "cache-max-ttl:", "86400" },
		{ "cache-max-negative-ttl:", "300" },
		{ "outgoing-range:", "128" },
		{ "outgoing-num-tcp:", "16" },
		{ "num-queries-per-thread:", "1024" },
		{ "edns-buffer-size:", "1232" },  /* no fragments */
		{ "qname-minimisation:", "yes" }, /* RFC 9156 */
		{ "harden-glue:", "yes" },
		{ "harden-dnssec-stripped:", "yes" },
		{ "harden-below-nxdomain:", "yes" },
		{ "verbosity:", "0" },
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		if (ub_ctx_set_option(ctx, options[i][0], options[i][1]))
			return false;
	/* Without an anchor the module would only cost time. */
	return validates || !ub_ctx_set_option(ctx, "module-config:", "iterator");
}

/* Zones that it answers by itself with "no such name". The option `nodefault` is without effect in
 * the library, and this completes the context: no option may follow. */
static bool unblock(struct ub_ctx *ctx)
{
	return !ub_ctx_zone_remove(ctx, "test.") && !ub_ctx_zone_remove(ctx, "home.arpa.");
}

static bool add_servers(struct ub_ctx *ctx, const struct addr *servers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char ip[ADDR_TEXT_MAX], text[ADDR_TEXT_MAX + 8];

		snprintf(text, sizeof(text), "%.*s@%u", STR_ARGS(addr_ip_text(&servers[i], ip)),
			 servers[i].port ? servers[i].port : 53u);
		if (ub_ctx_set_fwd(ctx, text))
			return false;
	}
	return true;
}

static bool add_anchor(struct ub_ctx *ctx, str anchor)
{
	char text[ANCHOR_LINE_MAX];
	unsigned count = 0;

	while (anchor.n) {
		str line = str_trim(str_cut_line(&anchor));

		if (!line.n || line.p[0] == ';')
			continue;
		if (line.n >= sizeof(text))
			return false;
		memcpy(text, line.p, line.n);
		text[line.n] = '\0';
		if (ub_ctx_add_ta(ctx, text))
			return false;
		count++;
	}
	return count > 0;
}

static void on_first(void *arg, const struct dns_resolver_answer *answer)
{
	*(enum err *)arg = answer->err;
}

enum err dns_resolver_new(struct loop *l, const struct addr *servers, size_t servers_n, str anchor,
			  struct dns_resolver **out)
{
	struct dns_resolver *r = calloc(1, sizeof(*r));
	enum err err, first = ERR_AGAIN;

	if (!r)
		return ERR_NO_MEMORY;
	if ((err = dns_events_new(l, &r->events))) {
		free(r);
		return err;
	}
	r->ctx = ub_ctx_create_ub_event(dns_events_base(r->events));
	err = ERR_CONFIG;
	if (!r->ctx)
		err = ERR_NO_MEMORY;
	else if (set_options(r->ctx, anchor.n > 0) && add_servers(r->ctx, servers, servers_n) &&
		 (!anchor.n || add_anchor(r->ctx, anchor)) && !ub_ctx_debugout(r->ctx, NULL) &&
		 unblock(r->ctx))
		err = dns_resolver_ask(r, S("localhost"), DNS_TYPE_A, on_first, &first);
	if (!err)
		err = first == ERR_OK ? ERR_OK : ERR_UNSUPPORTED;
	if (err) {
		dns_resolver_free(r);
		return err;
	}
	*out = r;
	return ERR_OK;
}

void dns_resolver_free(struct dns_resolver *r)
{
	if (!r)
		return;
	ub_ctx_delete(r->ctx);
	dns_events_free(r->events);
	while (r->first)
		question_free(r->first);
	free(r);
}

/* libunbound's callback: rcode is not 0 when there is no packet. */
static void on_answer(void *arg, int rcode, void *packet, int packet_n, int secure, char *why_bogus,
		      int is_limited)
{
	struct question *q = arg;
	struct dns_resolver_answer a = { .err = ERR_TEMPORARY, .text = S("no answer") };

	a.is_secure = secure == 2;
	a.is_bogus = secure == 1;
	if (is_limited)
		a.text = S("too many questions");
	if (why_bogus)
		a.text = str_from_c(why_bogus);
	if (rcode == 0 && packet && packet_n >= PACKET_HEADER) {
		unsigned code = ((const uint8_t *)packet)[3] & 15u;

		a.packet = str_of(packet, (size_t)packet_n);
		a.err = !a.is_bogus && (code == 0 || code == RCODE_NO_NAME) ? ERR_OK
									    : ERR_TEMPORARY;
	}
	q->fn(q->arg, &a);
	question_free(q);
}

enum err dns_resolver_ask(struct dns_resolver *r, str name, uint16_t type, dns_resolver_fn *fn,
			  void *arg)
{
	struct question *q;
	char text[DNS_NAME_MAX + 2];
	int id = 0;

	/* "." alone is for our own probes. */
	if (!str_eq(name, S(".")) && !dns_name_is_askable(name))
		return ERR_SYNTAX;
	q = question_new(r, fn, arg);
	if (!q)
		return ERR_NO_MEMORY;
	memcpy(text, name.p, name.n);
	text[name.n] = '\0';
	if (ub_resolve_event(r->ctx, text, type, CLASS_IN, q, on_answer, &id)) {
		question_free(q);
		return ERR_TEMPORARY;
	}
	return ERR_OK;
}
