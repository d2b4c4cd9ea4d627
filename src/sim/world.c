/* The ledger.
 *
 * It is kept by those who speak with the server and asked by those who look at it. Each entry's
 * state says what may be found: what was acknowledged must be there, what was never sent whole or
 * was refused must not, and what had no answer may, once. The windows that the protocols leave open
 * are decided here and nowhere else, each with its bound, and counted:
 *
 *  - sent again after an answer that never came (RFC 1047): each of the two at most once;
 *  - a 4yz although it was stored: only when a role died between the command and its answer;
 *  - the remote host took it twice: only when it had not told us, or when the machine or role `out`
 *    died before the outcome can have been recorded (docs/QUEUE.md, windows 1, 2 and 6).
 */
#include "sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	/* How long an outcome takes from the remote host's answer to our disk. Generous: network
	 * and disk of the simulator are slow now and then. */
	RECORD_SECONDS = 3,
	/* The same after something that holds up commits: the store was restarted, or a sync failed
	 * and the outcome is tried again. */
	RECORD_LATE_SECONDS = 40,
	/* What was sent before may arrive so late. */
	ON_ITS_WAY_SECONDS = 8,
	/* After a disturbance, roles are started again with back-off. */
	CALM_SECONDS = 120,
};

static void *grown(void *p, size_t n, size_t *room, size_t size)
{
	if (n < *room)
		return p;
	*room = *room ? *room * 2 : 64;
	p = realloc(p, *room * size);
	if (!p)
		panic("sim: no memory");
	return p;
}

void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){ .seed = seed };
	text_pool_fill(w->pool, sizeof(w->pool));
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++) {
		struct account_model *a = &w->accounts[i];

		a->number = i;
		snprintf(a->address, sizeof(a->address), "user%u@example.test", i);
	}
}

void world_free(struct world *w)
{
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++) {
		model_free(&w->accounts[i]);
		free(w->accounts[i].owed);
	}
	for (size_t i = 0; i < w->send_count; i++)
		free(w->sends[i]);
	free(w->sends);
	free(w->notices);
	free(w->uidvalidities);
}

static void line_out(struct world *w, const char *line)
{
	if (w->trace)
		w->trace(w->trace_arg, line);
}

void world_violation(struct world *w, const char *fmt, ...)
{
	char text[900], line[960];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "VIOLATION %s", text);
	line_out(w, line);
	if (w->violations++ == 0)
		snprintf(w->first_violation, sizeof(w->first_violation), "%.*s",
			 (int)sizeof(w->first_violation) - 1, text);
}

void world_note(struct world *w, const char *who, const char *fmt, ...)
{
	char text[600], line[660];
	va_list ap;

	if (!w->trace)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "%s: %s", who, text);
	line_out(w, line);
}

void world_disturb(struct world *w, enum disturbance_kind kind, int64_t now)
{
	if (w->disturbance_count == WORLD_DISTURBANCES)
		panic("sim: too many disturbances in one run");
	w->disturbances[w->disturbance_count++] = (struct disturbance){ kind, now };
	w->boots += kind == DISTURB_CUT;
	w->kills += kind == DISTURB_KILL_OUT || kind == DISTURB_KILL_OTHER;
}

bool world_is_calm(const struct world *w, int64_t now)
{
	const struct disturbance *last =
		w->disturbance_count ? &w->disturbances[w->disturbance_count - 1] : NULL;

	return !w->is_full && (!last || last->at < now - SECONDS(CALM_SECONDS));
}

struct send *world_send_new(struct world *w)
{
	struct send *s = calloc(1, sizeof(*s));

	if (!s)
		panic("sim: no memory");
	w->sends = grown(w->sends, w->send_count, &w->send_room, sizeof(struct send *));
	w->sends[w->send_count++] = s;
	s->id = w->send_count;
	s->kills = w->kills;
	return s;
}

struct send *world_send(struct world *w, uint64_t id)
{
	return id && id <= w->send_count ? w->sends[id - 1] : NULL;
}

struct send_rcpt *world_rcpt(struct send *s, str address)
{
	for (unsigned i = 0; i < s->n; i++)
		if (str_case_eq(str_from_c(s->rcpts[i].address), address))
			return &s->rcpts[i];
	return NULL;
}

/* Why nothing of this must have happened, or NULL. */
static const char *must_not(const struct send *s, const struct send_rcpt *r)
{
	if (r->state == SEND_PLANNED)
		return "its last byte was never sent";
	if (r->state == SEND_REFUSED)
		return "it was refused";
	if (r->state == SEND_DEFERRED && s->is_definite)
		return "it was answered with 4yz, and no role had died";
	return NULL;
}

void world_answered(struct world *w, struct send *s, unsigned rcpt, enum send_state state,
		    int64_t now)
{
	struct send_rcpt *r = &s->rcpts[rcpt];
	const char *reason;

	r->state = state;
	s->answered_at = now;
	s->is_definite = s->kills == w->kills;
	reason = must_not(s, r);
	if (reason && (r->delivered || r->accepted || r->bounced))
		world_violation(w, "s%llu to %s: %s, and it had arrived", (unsigned long long)s->id,
				r->address, reason);
	if (state == SEND_ACKED && r->is_local && !r->delivered) {
		struct account_model *a = &w->accounts[r->account];

		a->owed = grown(a->owed, a->owed_n, &a->owed_room, sizeof(*a->owed));
		a->owed[a->owed_n++] = s->id;
	}
}

static void owed_remove(struct account_model *a, uint64_t id)
{
	for (size_t i = 0; i < a->owed_n; i++)
		if (a->owed[i] == id) {
			a->owed[i] = a->owed[--a->owed_n];
			return;
		}
}

static const char *sent_delivery(struct world *w, struct account_model *a, struct send *s,
				 bool adopt)
{
	struct send_rcpt *r = world_rcpt(s, str_from_c(w->accounts[a->number].address));
	const struct send *before = world_send(w, s->again);
	const char *reason = !r ? "it was not sent to this account" : must_not(s, r);

	if (!reason && r->delivered)
		reason = "it was delivered twice";
	if (reason || !adopt)
		return reason;
	r->delivered++;
	w->counts.deliveries++;
	w->counts.deferred_yet += r->state == SEND_DEFERRED;
	for (unsigned i = 0; before && i < before->n; i++)
		w->counts.resent += before->rcpts[i].is_local &&
				    before->rcpts[i].account == a->number &&
				    before->rcpts[i].delivered;
	owed_remove(&w->accounts[a->number], s->id);
	return NULL;
}

const char *world_delivery(struct world *w, struct account_model *a, uint64_t token, bool adopt)
{
	struct send *s = world_send(w, TOKEN_ID(token));

	if (TOKEN_KIND(token) == 's')
		return s ? sent_delivery(w, a, s, adopt) : "it was never sent";
	if (TOKEN_KIND(token) == 'n')
		return world_notice_arrived(w, token, w->accounts[a->number].address, adopt);
	return "nobody put it there";
}

static struct notice *notice_find(struct world *w, uint64_t token)
{
	for (size_t i = 0; i < w->notice_count; i++)
		if (w->notices[i].token == token)
			return &w->notices[i];
	return NULL;
}

uint64_t world_notice(struct world *w, str message, uint64_t send, enum queue_notice kind,
		      const str *addresses, unsigned n)
{
	uint64_t token = TOKEN('n', str_hash(message, 0) >> 8);
	struct notice *x = notice_find(w, token);

	if (x)
		return token;
	w->notices = grown(w->notices, w->notice_count, &w->notice_room, sizeof(*w->notices));
	x = &w->notices[w->notice_count++];
	*x = (struct notice){ .token = token, .send = send, .kind = kind, .n = n };
	for (unsigned i = 0; i < n; i++)
		snprintf(x->addresses[i], sizeof(x->addresses[i]), "%.*s", STR_ARGS(addresses[i]));
	return token;
}

static bool breaks_connections(const struct disturbance *d)
{
	return d->kind == DISTURB_CUT || d->kind == DISTURB_KILL_OUT || d->kind == DISTURB_NETWORK;
}

/* Could the outcome of what was accepted have been lost? */
static bool outcome_may_be_lost(const struct world *w, const struct send_rcpt *r)
{
	int64_t until = r->accepted_at + SECONDS(RECORD_SECONDS);

	for (size_t i = 0; i < w->disturbance_count; i++) {
		const struct disturbance *d = &w->disturbances[i];

		if (d->at < r->accepted_from - SECONDS(1) || d->at > until)
			continue;
		if (breaks_connections(d))
			return true;
		until = MAX(until, d->at + SECONDS(RECORD_LATE_SECONDS));
	}
	return !r->is_answered;
}

/* Did anything at all go wrong then, or for as long as an outcome may take afterwards? */
static bool is_disturbed(const struct world *w, int64_t from, int64_t to)
{
	for (size_t i = 0; i < w->disturbance_count; i++)
		if (w->disturbances[i].at >= from - SECONDS(RECORD_LATE_SECONDS) &&
		    w->disturbances[i].at <= to + SECONDS(RECORD_LATE_SECONDS))
			return true;
	return false;
}

/* Is this a message whose sender has gone since its dot, and which was sent again meanwhile? */
static bool is_left_over(const struct world *w, int64_t dot)
{
	for (size_t i = w->disturbance_count;
	     i > 0 && w->disturbances[i - 1].at >= dot - SECONDS(1); i--)
		if (breaks_connections(&w->disturbances[i - 1]))
			return true;
	return false;
}

static const char *failure_told(const struct world *w, const struct send_rcpt *r)
{
	if (r->is_local)
		return "a notice of failure about a mailbox here";
	if (!r->refused)
		return "a notice of failure, and nobody had refused it";
	if (r->bounced)
		return "a second notice about one recipient";
	if (r->accepted && !outcome_may_be_lost(w, r))
		return "a notice of failure after it was taken";
	return NULL;
}

static const char *success_told(const struct send_rcpt *r, enum queue_notice kind)
{
	if (!r->asks)
		return "a notice of success that nobody asked for";
	if (r->told)
		return "a second notice of success about one recipient";
	if (r->is_local != (kind == NOTICE_DELIVERED))
		return "a notice of another kind of success";
	if (!r->is_local && !r->accepted)
		return "a notice of success, and nobody had taken it";
	return NULL;
}

static const char *notice_objection(const struct world *w, struct send *s, const struct notice *x,
				    unsigned i)
{
	struct send_rcpt *r = world_rcpt(s, str_from_c(x->addresses[i]));
	const char *why;

	if (x->kind == NOTICE_EXPANDED)
		return strcasecmp(x->addresses[i], WORLD_ALIAS) != 0 || !s->alias_asks
			       ? "a notice about an alias that nobody asked for"
		       : s->alias_told ? "a second notice about an alias"
				       : must_not(s, &s->rcpts[0]);
	if (!r)
		return "a notice about somebody it was not sent to";
	if (x->kind == NOTICE_NONE)
		return "a notice of a kind that there is not";
	why = x->kind == NOTICE_FAILED ? failure_told(w, r) : success_told(r, x->kind);
	return why ? why : must_not(s, r);
}

static void notice_count(struct world *w, struct send *s, const struct notice *x, unsigned i)
{
	struct send_rcpt *r = world_rcpt(s, str_from_c(x->addresses[i]));

	if (x->kind == NOTICE_EXPANDED) {
		s->alias_told++;
		w->counts.expanded++;
	} else if (x->kind == NOTICE_FAILED) {
		r->bounced++;
		w->counts.notices++;
	} else {
		r->told++;
		w->counts.told++;
	}
}

const char *world_notice_arrived(struct world *w, uint64_t token, const char *at, bool adopt)
{
	struct notice *x = notice_find(w, token);
	struct send *s = x ? world_send(w, x->send) : NULL;

	if (!s)
		return "a notice about nothing that was sent";
	if (strcasecmp(s->sender, at) != 0)
		return "a notice that somebody else should have";
	if (x->is_counted)
		return "the same notice again";
	for (unsigned i = 0; i < x->n; i++) {
		const char *why = notice_objection(w, s, x, i);

		if (why)
			return why;
	}
	for (unsigned i = 0; adopt && i < x->n; i++) {
		notice_count(w, s, x, i);
		x->is_counted = true;
	}
	return NULL;
}

void world_relayed(struct world *w, struct send *s, str address, int64_t dot, int64_t now)
{
	struct send_rcpt *r = world_rcpt(s, address);
	const char *reason;

	if (!r || r->is_local) {
		world_violation(w, "s%llu was relayed to %.*s, to whom it was not sent",
				(unsigned long long)s->id, STR_ARGS(address));
		return;
	}
	reason = must_not(s, r);
	if (reason)
		world_violation(w, "s%llu was relayed to %s: %s", (unsigned long long)s->id,
				r->address, reason);
	if (r->bounced && !is_left_over(w, dot))
		world_violation(w,
				"s%llu was relayed to %s after the sender was told that it "
				"failed",
				(unsigned long long)s->id, r->address);
	if (r->accepted && !outcome_may_be_lost(w, r) && !is_left_over(w, dot))
		world_violation(w,
				"s%llu was relayed to %s twice, and nothing had gone wrong "
				"between (first at %lld ms)",
				(unsigned long long)s->id, r->address,
				(long long)(r->accepted_at / 1000000));
	if (r->deleted_at && dot > r->deleted_at + SECONDS(ON_ITS_WAY_SECONDS))
		world_violation(w, "s%llu was relayed to %s after it was deleted from the queue",
				(unsigned long long)s->id, r->address);
	w->counts.relayed_twice += r->accepted > 0;
	w->counts.relayed++;
	w->counts.deferred_yet += r->state == SEND_DEFERRED && !r->accepted;
	r->accepted++;
	r->accepted_from = dot;
	r->accepted_at = now;
	r->is_answered = false;
}

struct send *world_send_of(struct world *w, str address)
{
	str rest = address;
	uint64_t id = 0;

	if (!str_eq(str_cut(&rest, '-'), S("r")) ||
	    str_to_u64(str_cut(&rest, '-'), UINT32_MAX, &id))
		return NULL;
	return world_send(w, id);
}

void world_queue_begin(struct world *w)
{
	for (size_t i = 0; i < w->send_count; i++)
		for (unsigned k = 0; k < w->sends[i]->n; k++)
			w->sends[i]->rcpts[k].is_queued = false;
}

void world_queue_record(struct world *w, str address)
{
	struct send *s = world_send_of(w, address);
	struct send_rcpt *r = s ? world_rcpt(s, address) : NULL;
	const char *why = r ? must_not(s, r) : NULL;

	if (!r)
		return;
	if (r->is_queued)
		why = "it is there twice";
	else if (r->deleted_at)
		why = "it was deleted";
	if (why)
		world_violation(w, "s%llu to %s is in the queue: %s", (unsigned long long)s->id,
				r->address, why);
	r->is_queued = true;
}

/* On its way, as far as anybody was told. What WORLD_LIST stands for is not seen in an address. */
static bool must_be_queued(const struct send_rcpt *r)
{
	return r->state == SEND_ACKED && !r->is_local && !r->accepted && !r->refused &&
	       !r->bounced && !r->is_deleted && strcmp(r->address, WORLD_LIST) != 0;
}

void world_queue_end(struct world *w)
{
	for (size_t i = 0; i < w->send_count; i++)
		for (unsigned k = 0; k < w->sends[i]->n; k++) {
			const struct send_rcpt *r = &w->sends[i]->rcpts[k];

			if (must_be_queued(r) && !r->is_queued)
				world_violation(w,
						"s%llu to %s was acknowledged, and is not in the "
						"queue on the disk",
						(unsigned long long)w->sends[i]->id, r->address);
			w->counts.queued += r->is_queued;
		}
}

void world_check_owed(struct world *w, struct account_model *a, int64_t before)
{
	for (size_t i = 0; i < a->owed_n;) {
		const struct send *s = world_send(w, a->owed[i]);

		if (s->answered_at >= before) {
			i++;
			continue;
		}
		world_violation(w, "s%llu was acknowledged and is not in %s",
				(unsigned long long)s->id, a->address);
		a->owed[i] = a->owed[--a->owed_n];
	}
}

/* The notice of a delivery here is owed by the commit that delivers. One of the remote host's
 * success may be lost with role queue (docs/QUEUE.md, window 3). */
static void told_check_end(struct world *w, const struct send *s)
{
	if (s->is_deleted)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		const struct send_rcpt *r = &s->rcpts[i];

		if (!r->asks || r->told || r->bounced || r->state != SEND_ACKED)
			continue;
		if (r->is_local || !is_disturbed(w, r->accepted_from, r->accepted_at))
			world_violation(w, "s%llu to %s: nobody was told of its success",
					(unsigned long long)s->id, r->address);
		else
			w->counts.untold++;
	}
	if (s->alias_asks && !s->alias_told && s->rcpts[0].state == SEND_ACKED)
		world_violation(w, "s%llu: nobody was told that its alias was expanded",
				(unsigned long long)s->id);
}

static void send_check_end(struct world *w, const struct send *s)
{
	unsigned there = 0, wanted = 0;

	for (unsigned i = 0; i < s->n; i++) {
		const struct send_rcpt *r = &s->rcpts[i];
		bool is_there = r->delivered || r->accepted || r->bounced;

		if (r->state == SEND_REFUSED || r->is_deleted)
			continue;
		wanted++;
		there += is_there;
		if ((r->state == SEND_ACKED || s->is_seen) && !is_there)
			world_violation(w, "s%llu to %s was %s and is nowhere",
					(unsigned long long)s->id, r->address,
					s->is_seen ? "seen in the queue" : "acknowledged");
	}
	told_check_end(w, s);
	/* One transaction is one commit, whatever its client heard. */
	if (there && there != wanted)
		world_violation(w, "s%llu arrived at %u of its %u recipients",
				(unsigned long long)s->id, there, wanted);
}

void world_check_end(struct world *w)
{
	for (size_t i = 0; i < w->send_count; i++)
		send_check_end(w, w->sends[i]);
}

bool world_uidvalidity_is_new(const struct world *w, uint32_t uidvalidity)
{
	for (size_t i = 0; i < w->uidvalidity_count; i++)
		if (w->uidvalidities[i] == uidvalidity)
			return false;
	return true;
}

void world_uidvalidity_note(struct world *w, uint32_t uidvalidity)
{
	if (!world_uidvalidity_is_new(w, uidvalidity))
		return;
	w->uidvalidities = grown(w->uidvalidities, w->uidvalidity_count, &w->uidvalidity_room,
				 sizeof(*w->uidvalidities));
	w->uidvalidities[w->uidvalidity_count++] = uidvalidity;
}
