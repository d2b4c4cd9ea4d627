/* Finding the servers of a domain.
 *
 * MX records by preference, equal ones in random order (RFC 5321 5.1); none at all: the domain's
 * own address, its "implicit MX"; a single "." is a null MX: this domain takes no mail (RFC 7505).
 * When we are among the servers ourselves, only better ones are tried, since the others would send
 * the mail to us; when we are the best one, the mail loops, and saying so at once is better than 30
 * rounds later.
 *
 * A failed look-up is never "does not exist": it defers. Addresses of a server are tried with the
 * families in turn, IPv6 first, so that a host whose one family is unreachable costs a single
 * timeout before the other is tried.
 */
#include "smtp/client_hosts.h"

#include "store/types.h"

#include <idn2.h>
#include <stdlib.h>

enum { RANDOM_STEP = 0x9e3779b9 };

struct mx {
	uint16_t preference;
	uint64_t order; /* among equals */
	str host;
	struct addr *addresses; /* room for SMTP_ADDRESSES_MAX once it was looked up */
	size_t count;
	bool is_unknown; /* a look-up failed */
};

struct search {
	const struct smtp_hosts_question *q;
	struct arena *a;
	struct smtp_result *why;
	struct mx *mx;
	size_t count;
	str domain; /* in ASCII */
};

static enum err deferred(struct search *s, str name, const char *what)
{
	smtp_result_set(s->why, QUEUE_DEFERRED, "4.4.3", "looking up %s of %.*s failed", what,
			STR_ARGS(name));
	return ERR_TEMPORARY;
}

static enum err failed(struct search *s, const char *status, const char *before, const char *after)
{
	smtp_result_set(s->why, QUEUE_FAILED, status, "%s %.*s %s", before, STR_ARGS(s->q->host),
			after);
	return ERR_NOT_FOUND;
}

/* ---- names ---- */

static bool is_ascii(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & (char)0x80)
			return false;
	return true;
}

/* RFC 6531 3.2, RFC 5891: a domain of other letters is looked up as its A-labels. */
static enum err to_ascii(struct search *s, str name)
{
	char *ascii = NULL;
	str copy;

	s->domain = str_ends(name, S(".")) ? str_head(name, name.n - 1) : name;
	if (is_ascii(s->domain))
		return dns_name_is_askable(s->domain)
			       ? ERR_OK
			       : failed(s, "5.1.2", "the domain",
					"cannot exist: it is not a valid name");
	copy = arena_str(s->a, s->domain);
	if (!copy.p)
		return deferred(s, name, "the name");
	if (idn2_to_ascii_8z(copy.p, &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK)
		return failed(s, "5.1.2", "the domain",
			      "cannot exist: it is not a valid international name");
	s->domain = arena_str(s->a, str_from_c(ascii));
	idn2_free(ascii);
	return s->domain.p ? ERR_OK : deferred(s, name, "the name");
}

/* ---- MX ---- */

static bool mx_add(struct search *s, uint16_t preference, str host)
{
	uint64_t order = (s->q->chance ^ s->count * RANDOM_STEP) * 0xff51afd7ed558ccdull;

	if (s->count >= SMTP_MX_RECORDS_MAX)
		return false;
	s->mx[s->count++] =
		(struct mx){ .preference = preference, .order = order ^ order >> 33, .host = host };
	return true;
}

static int mx_order(const void *one, const void *other)
{
	const struct mx *a = one, *b = other;

	if (a->preference != b->preference)
		return a->preference < b->preference ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static enum err mx_read(struct search *s, const struct dns_answer *answer)
{
	for (size_t i = 0; i < answer->count; i++)
		if (answer->mx[i].host.n &&
		    !mx_add(s, answer->mx[i].preference, answer->mx[i].host))
			break;
	/* RFC 7505 3: "." alone. */
	if (!s->count && answer->count) {
		failed(s, "5.1.10", "the domain", "does not take mail (null MX)");
		s->why->code = 556;
		return ERR_NOT_FOUND;
	}
	/* RFC 5321 5.1: without MX records the domain itself is the server. */
	if (!s->count)
		(void)mx_add(s, 0, s->domain);
	qsort(s->mx, s->count, sizeof(*s->mx), mx_order);
	return ERR_OK;
}

static enum err mx_ask(struct search *s)
{
	struct dns_answer answer;

	if (!s->q->asks_mx) {
		(void)mx_add(s, 0, s->domain);
		return ERR_OK;
	}
	if (s->q->ask(s->q->arg, DNS_TYPE_MX, s->domain, s->a, &answer))
		return deferred(s, s->domain, "the MX");
	if (answer.result == DNS_NO_NAME)
		return failed(s, "5.1.2", "the domain", "does not exist");
	return mx_read(s, &answer);
}

/* ---- addresses ---- */

static size_t addresses_of(struct search *s, struct mx *mx, enum dns_type type, struct addr *out)
{
	struct dns_answer answer;
	size_t n;

	/* A name of a host that cannot be asked for has no address. */
	if (!dns_name_is_askable(mx->host))
		return 0;
	if (s->q->ask(s->q->arg, type, mx->host, s->a, &answer)) {
		mx->is_unknown = true;
		return 0;
	}
	for (n = 0; n < MIN(answer.count, (size_t)SMTP_ADDRESSES_MAX); n++) {
		out[n] = answer.address[n];
		out[n].port = s->q->port;
	}
	return n;
}

static void mx_resolve(struct search *s, struct mx *mx)
{
	struct addr six[SMTP_ADDRESSES_MAX], four[SMTP_ADDRESSES_MAX];
	size_t n6, n4;

	mx->addresses = arena_array(s->a, SMTP_ADDRESSES_MAX, sizeof(*mx->addresses));
	if (!mx->addresses) {
		mx->is_unknown = true;
		return;
	}
	n6 = addresses_of(s, mx, DNS_TYPE_AAAA, six);
	n4 = addresses_of(s, mx, DNS_TYPE_A, four);
	for (size_t i = 0; i < MAX(n6, n4); i++) {
		if (i < n6 && mx->count < SMTP_ADDRESSES_MAX)
			mx->addresses[mx->count++] = six[i];
		if (i < n4 && mx->count < SMTP_ADDRESSES_MAX)
			mx->addresses[mx->count++] = four[i];
	}
}

static bool is_ourselves(const struct search *s, const struct mx *mx)
{
	if (str_case_eq(mx->host, s->q->own_name))
		return true;
	for (size_t i = 0; i < mx->count; i++)
		for (size_t k = 0; k < s->q->own_count; k++)
			if (addr_ip_eq(&mx->addresses[i], &s->q->own[k]) &&
			    mx->addresses[i].port == s->q->own[k].port)
				return true;
	return false;
}

/* RFC 5321 5.1: of a list that has us in it, what is as good as we are or worse must be dropped. */
static enum err cut_at_ourselves(struct search *s)
{
	for (size_t i = 0; s->q->asks_mx && i < s->count; i++) {
		size_t keep = 0;

		if (!is_ourselves(s, &s->mx[i]))
			continue;
		while (s->mx[keep].preference < s->mx[i].preference)
			keep++;
		s->count = keep;
		if (!keep)
			return failed(s, "5.4.6", "mail for",
				      "loops back to ourselves: we are its best MX");
	}
	return ERR_OK;
}

static enum err collect(struct search *s, struct smtp_target *targets, size_t *count)
{
	bool is_unknown = false;

	*count = 0;
	for (size_t i = 0; i < s->count; i++) {
		is_unknown = is_unknown || s->mx[i].is_unknown;
		for (size_t k = 0; k < s->mx[i].count && *count < SMTP_ADDRESSES_MAX; k++)
			targets[(*count)++] =
				(struct smtp_target){ s->mx[i].addresses[k], s->mx[i].host };
	}
	if (*count)
		return ERR_OK;
	if (is_unknown)
		return deferred(s, s->count ? s->mx[0].host : s->domain, "the address");
	return failed(s, s->q->asks_mx ? "5.4.4" : "5.1.2", "no server of", "has an address");
}

enum err smtp_hosts_find(const struct smtp_hosts_question *q, struct arena *a,
			 struct smtp_target *targets, size_t *count, struct smtp_result *why)
{
	struct search s = { .q = q, .a = a, .why = why };
	struct addr literal;
	enum err err;

	*count = 0;
	if (!q->asks_mx && !addr_parse_ip(q->host, &literal)) {
		literal.port = q->port;
		targets[(*count)++] = (struct smtp_target){ literal, q->host };
		return ERR_OK;
	}
	s.mx = arena_array(a, SMTP_MX_RECORDS_MAX, sizeof(*s.mx));
	if (!s.mx)
		return deferred(&s, q->host, "the servers");
	if ((err = to_ascii(&s, q->host)) || (err = mx_ask(&s)))
		return err;
	/* Our own name must be seen even far down the list; addresses are worth a look-up for the
	 * best alone. */
	for (size_t i = SMTP_HOSTS_MAX; i < s.count; i++)
		if (is_ourselves(&s, &s.mx[i]))
			s.count = i;
	s.count = MIN(s.count, (size_t)SMTP_HOSTS_MAX);
	for (size_t i = 0; i < s.count; i++)
		mx_resolve(&s, &s.mx[i]);
	err = cut_at_ourselves(&s);
	return err ? err : collect(&s, targets, count);
}
