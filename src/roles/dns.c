/* Role dns: answers questions of out, front and filter with libunbound (dns_resolver.c).
 *
 * Whom it asks: the addresses of `dns_servers`; without any, those of /etc/resolv.conf; without
 * those, the internet itself, from the root. The machine's resolver comes before our own recursion
 * because it knows the site's own names, has a warm cache, and works where port 53 is open to it
 * alone; a mail server that wants its own recursion runs one beside it and says so in
 * `dns_servers`, which block lists want as well.
 *
 * DNSSEC is validated with the root's trust anchor of the package dns-root-data. Name servers that
 * strip signatures would turn every answer into a failure, and a mail server that delivers nothing
 * is no safer. So at the start, and every PROBE_SECONDS, the root's key is asked for. If it fails
 * to validate while the same servers answer without validation, answers come from a second, not
 * validating resolver, nothing is called secure, and the log says it. When nothing answers at all,
 * nothing changes.
 *
 * Each question is answered within QUESTION_SECONDS, by a failure if by nothing else. libunbound
 * goes on and fills its cache for the next try. A failure is ERR_TEMPORARY, whatever it was.
 */
#include "conf/conf.h"
#include "net/dns_wire.h"
#include "roles/dns_resolver.h"
#include "roles/role.h"

#include <stdlib.h>

#define ANCHOR_FILE "/usr/share/dns/root.key"
#define RESOLV_CONF "/etc/resolv.conf"

enum {
	QUESTIONS_MAX = 2048,  /* waiting for an answer */
	QUESTION_SECONDS = 20, /* less than anybody's patience with us */
	PROBE_SECONDS = 600,
	PROBE_SOON_SECONDS = 20, /* after one that nobody answered */
	ANCHOR_MAX = 16 * 1024,
	RESOLV_CONF_MAX = 4096,
	TYPE_NS = 2,
	TYPE_DNSKEY = 48,
};

struct dns;

/* A question of a peer. It waits for two things, the peer for an answer and libunbound's callback
 * for its argument, and is freed when both have come. */
struct question {
	struct dns *dns;
	struct question *next, **back;
	struct chan *from; /* NULL: answered, or the peer is gone */
	uint32_t id;
	uint16_t type;
	struct timer timer;
};

enum probe { PROBE_NONE, PROBE_VALIDATING, PROBE_PLAIN };

struct dns {
	struct role *role;
	struct dns_resolver *validating; /* NULL: no trust anchor */
	struct dns_resolver *plain;
	bool is_plain; /* the name servers do not pass DNSSEC on */
	enum probe probe;
	struct timer probe_timer;
	struct addr servers[RESOLVER_SERVERS_MAX];
	size_t servers_n;
	struct addr machine[RESOLVER_SERVERS_MAX]; /* of /etc/resolv.conf */
	size_t machine_n;
	char anchor[ANCHOR_MAX];
	size_t anchor_n;
	struct question *first;
	unsigned waiting;
	uint64_t asked, failed;
};

/* ---- questions ---- */

static void question_unlink(struct question *q)
{
	if (!q->back)
		return;
	*q->back = q->next;
	if (q->next)
		q->next->back = q->back;
	q->back = NULL;
	q->dns->waiting--;
}

static void question_fail(struct question *q, str text)
{
	struct chan *from = q->from;

	if (!from)
		return;
	q->from = NULL;
	q->dns->failed++;
	loop_timer_cancel(q->dns->role->loop, &q->timer);
	if (REPLY_FAILED(from, q->id, ERR_TEMPORARY, str_head(text, 1000)))
		log_warn(&q->dns->role->log, "dns-reply", "peer=%s", role_name(chan_peer(from)));
}

static void on_late(void *arg)
{
	question_fail(arg, S("no answer in time"));
}

static void question_reply(struct question *q, const struct dns_resolver_answer *a)
{
	struct dns_packet packet;
	struct buf records;
	enum err err;

	buf_init(&records, DNS_RECORDS_BYTES);
	err = dns_packet_parse(a->packet, q->type, &records, &packet);
	if (err || packet.is_truncated || buf_failed(&records)) {
		question_fail(q, S("an answer that cannot be read"));
	} else if (q->from) {
		loop_timer_cancel(q->dns->role->loop, &q->timer);
		err = REPLY(q->from, q->id, dns_reply, .rcode = (uint16_t)packet.rcode,
			    .secure = a->is_secure, .ttl = packet.ttl,
			    .canonical = str_of(packet.canonical.text, packet.canonical.n),
			    .records = buf_str(&records));
		if (err)
			log_warn(&q->dns->role->log, "dns-reply", "err=%s", err_name(err));
		q->from = NULL;
	}
	buf_free(&records);
}

static void on_answer(void *arg, const struct dns_resolver_answer *a)
{
	struct question *q = arg;

	if (a->err) {
		log_debug(&q->dns->role->log, "dns-failed", "reason=\"%.*s\"", STR_ARGS(a->text));
		question_fail(q, a->text);
	} else if (q->from) {
		question_reply(q, a);
	}
	question_unlink(q);
	free(q);
}

static void dns_message(struct role *r, struct chan *from, struct msg *m)
{
	struct dns *d = r->state;
	const struct msg_dns_query *ask = &m->u.dns_query;
	struct question *q;
	enum err err;

	if (!d || m->type != MSG_dns_query)
		return;
	d->asked++;
	q = d->waiting < QUESTIONS_MAX ? calloc(1, sizeof(*q)) : NULL;
	if (!q) {
		if (REPLY_FAILED(from, m->id, ERR_TEMPORARY, S("too many questions")))
			log_warn(&r->log, "dns-reply", "peer=%s", role_name(chan_peer(from)));
		return;
	}
	*q = (struct question){ .dns = d,
				.from = from,
				.id = m->id,
				.type = ask->type,
				.next = d->first,
				.back = &d->first };
	if (q->next)
		q->next->back = &q->next;
	d->first = q;
	d->waiting++;
	loop_timer_set(r->loop, &q->timer, loop_now(r->loop) + SECONDS(QUESTION_SECONDS), on_late,
		       q);
	/* The answer may come before this returns. */
	err = dns_resolver_ask(d->validating && !d->is_plain ? d->validating : d->plain, ask->name,
			       ask->type, on_answer, q);
	if (err) {
		question_fail(q, S("the question cannot be asked"));
		question_unlink(q);
		free(q);
	}
}

/* Its calls died with it, and its successor counts them anew: no old answer may meet a new number.
 */
static void dns_peer_down(struct role *r, struct chan *peer)
{
	struct dns *d = r->state;

	/* None: we have stopped, in this turn of the loop. */
	for (struct question *q = d ? d->first : NULL; q; q = q->next)
		if (q->from == peer) {
			q->from = NULL;
			loop_timer_cancel(r->loop, &q->timer);
		}
}

/* ---- does DNSSEC work with these servers? ---- */

static void probe_start(void *arg);

static void probe_again(struct dns *d, int seconds)
{
	d->probe = PROBE_NONE;
	loop_timer_set(d->role->loop, &d->probe_timer, loop_now(d->role->loop) + SECONDS(seconds),
		       probe_start, d);
}

static void set_plain(struct dns *d, bool is_plain)
{
	if (d->is_plain != is_plain && is_plain)
		log_warn(&d->role->log, "dnssec-off",
			 "reason=\"the name servers do not pass signatures on\"");
	else if (d->is_plain != is_plain)
		log_info(&d->role->log, "dnssec-on",
			 "reason=\"the name servers pass signatures on\"");
	d->is_plain = is_plain;
}

static void on_plain_probe(void *arg, const struct dns_resolver_answer *a)
{
	struct dns *d = arg;

	/* Nothing answers: nothing was learnt. */
	if (!a->err)
		set_plain(d, true);
	probe_again(d, a->err ? PROBE_SOON_SECONDS : PROBE_SECONDS);
}

static void on_validating_probe(void *arg, const struct dns_resolver_answer *a)
{
	struct dns *d = arg;

	if (!a->err && a->is_secure) {
		set_plain(d, false);
		probe_again(d, PROBE_SECONDS);
		return;
	}
	d->probe = PROBE_PLAIN;
	if (dns_resolver_ask(d->plain, S("."), TYPE_NS, on_plain_probe, d))
		probe_again(d, PROBE_SOON_SECONDS);
}

static void probe_start(void *arg)
{
	struct dns *d = arg;

	d->probe = PROBE_VALIDATING;
	if (dns_resolver_ask(d->validating, S("."), TYPE_DNSKEY, on_validating_probe, d))
		probe_again(d, PROBE_SOON_SECONDS);
}

/* ---- setting up ---- */

static size_t read_small(const char *path, char *room, size_t size)
{
	size_t n = 0, done;
	int fd;

	if (os_open(-1, path, OS_READ, &fd))
		return 0;
	while (n < size && !os_read(fd, room + n, size - n, &done) && done)
		n += done;
	os_close(fd);
	return n;
}

/* resolv.conf(5): "nameserver ADDRESS". */
static void read_resolv_conf(struct dns *d)
{
	char room[RESOLV_CONF_MAX];
	str text = str_of(room, read_small(RESOLV_CONF, room, sizeof(room)));

	while (text.n && d->machine_n < RESOLVER_SERVERS_MAX) {
		str rest = str_trim(str_cut_line(&text));

		if (!str_starts(rest, S("nameserver")) || rest.n < 11 ||
		    !ascii_is_space(rest.p[10]))
			continue;
		rest = str_trim(str_from(rest, 10));
		if (!addr_parse_ip(rest, &d->machine[d->machine_n]))
			d->machine_n++;
	}
}

/* Whom to ask, as the configuration is now. */
static const char *choose_servers(struct dns *d)
{
	size_t n = 0;
	const struct addr *set = conf_addrs(d->role->conf, CONF_dns_servers, &n);
	const struct addr *chosen = n ? set : d->machine;

	d->servers_n = MIN(n ? n : d->machine_n, (size_t)RESOLVER_SERVERS_MAX);
	if (d->servers_n)
		memcpy(d->servers, chosen, d->servers_n * sizeof(*chosen));
	return n ? "dns_servers" : d->servers_n ? RESOLV_CONF : "the root";
}

static enum err make_resolvers(struct dns *d, struct dns_resolver **validating,
			       struct dns_resolver **plain)
{
	enum err err = ERR_OK;

	*validating = *plain = NULL;
	if (d->anchor_n)
		err = dns_resolver_new(d->role->loop, d->servers, d->servers_n,
				       str_of(d->anchor, d->anchor_n), validating);
	if (!err)
		err = dns_resolver_new(d->role->loop, d->servers, d->servers_n, STR_EMPTY, plain);
	if (err) {
		dns_resolver_free(*validating);
		dns_resolver_free(*plain);
	}
	return err;
}

static void log_servers(struct dns *d, const char *source)
{
	char first[ADDR_TEXT_MAX];
	str text = d->servers_n ? addr_text(&d->servers[0], first) : STR_EMPTY;

	log_info(&d->role->log, "dns-servers", "from=%s count=%zu first=%.*s", source, d->servers_n,
		 STR_ARGS(text));
	if (!d->anchor_n)
		log_warn(&d->role->log, "dnssec-off",
			 "reason=\"no trust anchor: install dns-root-data\" file=%s", ANCHOR_FILE);
}

static enum err dns_init(struct role *r)
{
	struct dns *d = calloc(1, sizeof(*d));

	if (!d)
		return ERR_NO_MEMORY;
	d->role = r;
	r->state = d;
	return ERR_OK;
}

static enum err dns_prepare(struct role *r)
{
	struct dns *d = r->state;
	const char *source;

	read_resolv_conf(d);
	d->anchor_n = read_small(ANCHOR_FILE, d->anchor, sizeof(d->anchor));
	source = choose_servers(d);
	log_servers(d, source);
	return make_resolvers(d, &d->validating, &d->plain);
}

static enum err dns_start(struct role *r)
{
	struct dns *d = r->state;

	if (d->validating)
		probe_start(d);
	return ERR_OK;
}

/* Questions under way end with a failure that will be tried again. */
static void drop_all(struct dns *d)
{
	while (d->first) {
		struct question *q = d->first;

		question_fail(q, S("the name servers were changed"));
		loop_timer_cancel(d->role->loop, &q->timer);
		question_unlink(q);
		free(q);
	}
}

static void free_resolvers(struct dns *d)
{
	loop_timer_cancel(d->role->loop, &d->probe_timer);
	/* First: they hold the questions as arguments. */
	dns_resolver_free(d->validating);
	dns_resolver_free(d->plain);
	d->validating = d->plain = NULL;
	drop_all(d);
}

static void dns_reload(struct role *r)
{
	struct dns *d = r->state;
	struct dns_resolver *validating, *plain;
	struct addr before[RESOLVER_SERVERS_MAX];
	size_t before_n = d->servers_n;
	const char *source;
	enum err err;

	memcpy(before, d->servers, sizeof(before));
	source = choose_servers(d);
	if (d->servers_n == before_n && memcmp(before, d->servers, before_n * sizeof(*before)) == 0)
		return;
	log_servers(d, source);
	if ((err = make_resolvers(d, &validating, &plain))) {
		log_error(&r->log, "dns-reload-failed", "err=%s kept=old", err_name(err));
		memcpy(d->servers, before, sizeof(before));
		d->servers_n = before_n;
		return;
	}
	free_resolvers(d);
	d->validating = validating;
	d->plain = plain;
	d->is_plain = false;
	if (d->validating)
		probe_start(d);
}

static void dns_stop(struct role *r, unsigned seconds)
{
	struct dns *d = r->state;

	(void)seconds;
	free_resolvers(d);
	free(d);
	r->state = NULL;
	loop_stop(r->loop);
}

static void dns_status(struct role *r, struct buf *out)
{
	const struct dns *d = r->state;

	if (!d)
		return;
	buf_printf(out, "\"questions\":%llu,\"failed\":%llu,\"waiting\":%u,\"dnssec\":%s",
		   (unsigned long long)d->asked, (unsigned long long)d->failed, d->waiting,
		   d->validating && !d->is_plain ? "true" : "false");
}

const struct role_ops role_dns_ops = {
	.kind = ROLE_DNS,
	.sandbox = SANDBOX_CONNECT | SANDBOX_BIND_UDP,
	.init = dns_init,
	.prepare = dns_prepare,
	.start = dns_start,
	.message = dns_message,
	.peer_down = dns_peer_down,
	.reload = dns_reload,
	.stop = dns_stop,
	.status = dns_status,
};
