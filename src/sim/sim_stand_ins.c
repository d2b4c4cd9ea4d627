/* What takes the place of code that cannot run in the simulator: the sandbox (there is nothing to
 * lock), the resolver (libunbound makes its own sockets), and the mutants of the real build.
 *
 * The resolver answers as a name server would, in packets (RFC 1035), after a while: for MX of
 * every domain that ends in remote.example, and the address of their host. Now and then it fails.
 */
#include "sim/sim_priv.h"

#include "base/mutant.h"
#include "base/sandbox.h"
#include "net/dns.h"
#include "roles/dns_resolver.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the sandbox ---- */

enum err sandbox_lock(const struct sandbox *s UNUSED, char text[SANDBOX_TEXT_MAX])
{
	snprintf(text, SANDBOX_TEXT_MAX, "simulated");
	return ERR_OK;
}

enum err sandbox_narrow(unsigned had UNUSED, unsigned kept UNUSED)
{
	return ERR_OK;
}

/* ---- mutants ---- */

bool sim_mutant(const char *name)
{
	return sim_here && sim_here->options.mutant && strcmp(sim_here->options.mutant, name) == 0;
}

/* ---- the resolver ---- */

enum {
	ANSWER_LEAST = 100 * SIM_MICROSECOND,
	ANSWER_MOST = 30 * SIM_MILLISECOND,
	FAILS_IN_1000 = 20,
	PACKET_MAX = 512,
	TTL = 300,
	RCODE_NO_NAME = 3,
};
#define MAIL_DOMAIN "remote.example"
#define MAIL_HOST   "mx.remote.example"

struct question {
	struct question *next, **link;
	struct dns_resolver *resolver;
	struct timer timer;
	dns_resolver_fn *fn;
	void *arg;
	uint16_t type;
	char name[DNS_NAME_MAX + 1];
};

struct dns_resolver {
	struct loop *loop;
	struct question *first;
};

enum err dns_resolver_new(struct loop *l, const struct addr *servers UNUSED, size_t n UNUSED,
			  str anchor UNUSED, struct dns_resolver **out)
{
	struct dns_resolver *r = calloc(1, sizeof(*r));

	if (!r)
		return ERR_NO_MEMORY;
	r->loop = l;
	*out = r;
	return ERR_OK;
}

static void question_free(struct question *q)
{
	*q->link = q->next;
	if (q->next)
		q->next->link = q->link;
	loop_timer_cancel(q->resolver->loop, &q->timer);
	free(q);
}

void dns_resolver_free(struct dns_resolver *r)
{
	if (!r)
		return;
	while (r->first)
		question_free(r->first);
	free(r);
}

/* RFC 1035 3.1 */
static void name_put(struct buf *b, str name)
{
	while (name.n) {
		str label = str_cut(&name, '.');

		buf_add_char(b, (char)label.n);
		buf_add(b, label);
	}
	buf_add_char(b, 0);
}

static void u16_put(struct buf *b, unsigned v)
{
	buf_add_char(b, (char)(v >> 8));
	buf_add_char(b, (char)v);
}

static void record_put(struct buf *b, unsigned type, str data)
{
	u16_put(b, 0xc00c); /* RFC 1035 4.1.4: the name of the question */
	u16_put(b, type);
	u16_put(b, 1);
	u16_put(b, 0);
	u16_put(b, TTL);
	u16_put(b, (unsigned)data.n);
	buf_add(b, data);
}

static void data_put(struct buf *b, unsigned type)
{
	struct addr host;

	if (type == DNS_TYPE_MX) {
		u16_put(b, 10);
		name_put(b, S(MAIL_HOST));
	} else if (addr_parse_ip(S(SIM_REMOTE_IP), &host) == ERR_OK) {
		buf_add(b, str_of((const char *)host.ip, 4));
	}
}

static void answer_put(struct buf *b, const struct question *q)
{
	str name = str_from_c(q->name);
	bool is_host = str_case_eq(name, S(MAIL_HOST));
	bool is_ours = str_case_eq(name, S(MAIL_DOMAIN)) || str_ends(name, S("." MAIL_DOMAIN));
	bool has_data = (is_host && q->type == DNS_TYPE_A) ||
			(is_ours && !is_host && q->type == DNS_TYPE_MX);
	struct buf data;

	buf_init(&data, PACKET_MAX);
	u16_put(b, 0);
	u16_put(b, 0x8180u | (is_ours ? 0u : RCODE_NO_NAME));
	u16_put(b, 1);
	u16_put(b, has_data);
	u16_put(b, 0);
	u16_put(b, 0);
	name_put(b, name);
	u16_put(b, q->type);
	u16_put(b, 1);
	if (has_data) {
		data_put(&data, q->type);
		record_put(b, q->type, buf_str(&data));
	}
	buf_free(&data);
}

static void answer(void *arg)
{
	struct question *q = arg;
	struct dns_resolver_answer a = { .err = ERR_OK };
	dns_resolver_fn *fn = q->fn;
	void *fn_arg = q->arg;
	struct buf b;

	buf_init(&b, PACKET_MAX);
	answer_put(&b, q);
	question_free(q);
	if (sim_random_chance(&sim_here->network, FAILS_IN_1000)) {
		a.err = ERR_TEMPORARY;
		a.text = S("simulated");
	} else {
		a.packet = buf_str(&b);
	}
	fn(fn_arg, &a);
	buf_free(&b);
}

enum err dns_resolver_ask(struct dns_resolver *r, str name, uint16_t type, dns_resolver_fn *fn,
			  void *arg)
{
	struct question *q = name.n > DNS_NAME_MAX ? NULL : calloc(1, sizeof(*q));
	int64_t in = ANSWER_LEAST + (int64_t)sim_random_below(&sim_here->network, ANSWER_MOST);

	if (!q)
		return ERR_SYNTAX;
	*q = (struct question){ .resolver = r,
				.next = r->first,
				.link = &r->first,
				.fn = fn,
				.arg = arg,
				.type = type };
	if (q->next)
		q->next->link = &q->next;
	r->first = q;
	name = str_ends(name, S(".")) ? str_head(name, name.n - 1) : name;
	snprintf(q->name, sizeof(q->name), "%.*s", STR_ARGS(name));
	loop_timer_set(r->loop, &q->timer, loop_now(r->loop) + in, answer, q);
	return ERR_OK;
}
