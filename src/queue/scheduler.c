/* The scheduler.
 *
 * The structure: a destination has groups, one for each message that waits for it; a group has
 * recipients. A destination that could begin a job stands in the ring `ready`; sched_next takes the
 * first, gives it one job and puts it at the ring's end, and its group at the end of the
 * destination's. So a destination with a hundred thousand recipients delays the others by one job,
 * and a message with many recipients delays the others of its destination by one job: fairness
 * without weights or a clock.
 *
 * Concurrency is Postfix's in effect (its SCHEDULER_README): a success opens the window by one, a
 * failed connection closes it by one, and the destination is dead when the failures since the last
 * success add up to a window's worth, counted as 1/window each. Greeting or reply codes say nothing
 * here; a server that answers is alive.
 *
 * A dead destination keeps nothing in memory: its records are refused, and the caller records that
 * they are deferred. That is a write for each, but the memory (records_max) belongs to destinations
 * that can be reached. The same is done with what a busy destination has above its share.
 *
 * Invariants: a record is in the index by id while it is held; it is in a group (waiting), in
 * `refused`, or in a job; `held` counts all three; a destination is in `ready` if and only if it
 * has groups, a free place in its window, and is not dead.
 */
#include "queue/scheduler.h"

#include "queue/index.h"
#include "store/types.h"

#include <stdlib.h>

enum {
	COHORT = 1000, /* failures that kill, in thousandths of a window */
	REASON_MAX = 512,
	REMOTE_MAX = 256,
	STATUS_MAX = 16,
};

struct sched_rcpt_private {
	struct index_node by_id;
	struct sched_rcpt *owner;
	bool is_over_share;
};

struct sched_group {
	struct link in_destination;
	struct index_node by_key;
	struct sched_destination *destination;
	uint64_t message;
	struct link rcpts;
};

struct sched_destination {
	struct index_node by_name;
	struct link in_ready, in_idle;
	struct link groups;
	uint32_t held;	  /* records: waiting, refused or in jobs */
	uint32_t waiting; /* in groups */
	uint32_t active;  /* jobs */
	uint32_t window;
	uint32_t cohort; /* failures since the last success */
	uint32_t deaths; /* in a row */
	int64_t dead_until_us;
	struct {
		char reason[REASON_MAX], remote[REMOTE_MAX], status[STATUS_MAX];
		size_t reason_n, remote_n, status_n;
	} * last; /* of the death; NULL before one */
	size_t name_n;
	char name[];
};

struct sched {
	struct sched_limits limits;
	uint64_t seed;
	struct index records, groups, destinations;
	struct link ready, idle, refused, leases;
	uint32_t held, waiting, refused_n, jobs, idle_n;
};

enum err sched_new(const struct sched_limits *l, uint64_t seed, struct sched **out)
{
	struct sched *s = calloc(1, sizeof(*s));

	if (!s)
		return ERR_NO_MEMORY;
	s->seed = seed;
	list_init(&s->ready);
	list_init(&s->idle);
	list_init(&s->refused);
	list_init(&s->leases);
	sched_set_limits(s, l);
	*out = s;
	return ERR_OK;
}

void sched_set_limits(struct sched *s, const struct sched_limits *l)
{
	s->limits = *l;
	s->limits.rcpts_per_job = MAX(1u, MIN(l->rcpts_per_job, (uint32_t)SCHED_RCPTS_MAX));
	s->limits.concurrency_max = MAX(1u, l->concurrency_max);
	s->limits.concurrency_start = MAX(1u, MIN(l->concurrency_start, s->limits.concurrency_max));
	s->limits.dead_min_us = MAX(1, l->dead_min_us);
	s->limits.dead_max_us = MAX(s->limits.dead_min_us, l->dead_max_us);
}

uint32_t sched_room(const struct sched *s)
{
	return s->held >= s->limits.records_max ? 0 : s->limits.records_max - s->held;
}

/* ---- destinations ---- */

static str name_of(const struct sched_destination *d)
{
	return str_of(d->name, d->name_n);
}

static struct sched_destination *destination_find(struct sched *s, str name)
{
	for (struct index_node *n = index_first(&s->destinations, str_hash(name, s->seed)); n;
	     n = index_next(n)) {
		struct sched_destination *d = CONTAINER_OF(n, struct sched_destination, by_name);

		if (str_eq(name_of(d), name))
			return d;
	}
	return NULL;
}

static void destination_free(struct sched *s, struct sched_destination *d)
{
	link_remove(&d->in_ready);
	if (link_is_in(&d->in_idle)) {
		link_remove(&d->in_idle);
		s->idle_n--;
	}
	index_remove(&s->destinations, &d->by_name);
	free(d->last);
	free(d);
}

static struct sched_destination *destination_get(struct sched *s, str name)
{
	struct sched_destination *d = destination_find(s, name);

	if (d)
		return d;
	d = calloc(1, sizeof(*d) + name.n + 1);
	if (!d)
		return NULL;
	d->name_n = name.n;
	if (name.n)
		memcpy(d->name, name.p, name.n);
	d->window = s->limits.concurrency_start;
	list_init(&d->groups);
	if (index_add(&s->destinations, &d->by_name, str_hash(name, s->seed))) {
		free(d);
		return NULL;
	}
	return d;
}

/* After any change of it: puts it where it belongs. */
static void destination_settle(struct sched *s, struct sched_destination *d)
{
	bool is_ready = !list_is_empty(&d->groups) && d->active < d->window;

	if (link_is_in(&d->in_idle)) {
		link_remove(&d->in_idle);
		s->idle_n--;
	}
	if (!is_ready)
		link_remove(&d->in_ready);
	else if (!link_is_in(&d->in_ready))
		list_append(&s->ready, &d->in_ready);
	if (d->held || d->active)
		return;
	if (!d->cohort && !d->deaths && d->window == s->limits.concurrency_start) {
		destination_free(s, d);
		return;
	}
	/* What was learnt is kept for a while: the longest idle goes first. */
	list_append(&s->idle, &d->in_idle);
	s->idle_n++;
	if (s->idle_n > SCHED_IDLE_MAX)
		destination_free(s, LIST_FIRST(&s->idle, struct sched_destination, in_idle));
}

/* ---- records ---- */

static size_t record_strings(const struct rec_queue_record *r)
{
	return r->sender.n + r->address.n + r->original.n + r->orcpt.n + r->envid.n + r->remote.n +
	       r->reply.n + r->status.n;
}

static void keep(str *s, char **to)
{
	if (s->n)
		memcpy(*to, s->p, s->n);
	s->p = *to;
	*to += s->n;
}

/* One block: the recipient, what is private, and the strings. */
static struct sched_rcpt *rcpt_new(const struct rec_queue_record *r)
{
	struct sched_rcpt *x = calloc(1, sizeof(*x) + sizeof(*x->priv) + record_strings(r));
	char *at;

	if (!x)
		return NULL;
	x->r = *r;
	x->priv = (void *)(x + 1);
	x->priv->owner = x;
	at = (char *)(x->priv + 1);
	keep(&x->r.sender, &at);
	keep(&x->r.address, &at);
	keep(&x->r.original, &at);
	keep(&x->r.orcpt, &at);
	keep(&x->r.envid, &at);
	keep(&x->r.remote, &at);
	keep(&x->r.reply, &at);
	keep(&x->r.status, &at);
	return x;
}

struct sched_rcpt *sched_find(struct sched *s, uint64_t id)
{
	for (struct index_node *n = index_first(&s->records, id); n; n = index_next(n)) {
		struct sched_rcpt *x = CONTAINER_OF(n, struct sched_rcpt_private, by_id)->owner;

		if (x->r.id == id)
			return x;
	}
	return NULL;
}

/* Out of its group, which goes when it was the last. */
static void rcpt_leave(struct sched *s, struct sched_rcpt *x)
{
	struct sched_group *g = x->group;

	if (!g)
		return;
	link_remove(&x->in_group);
	link_remove(&x->in_leases);
	x->group = NULL;
	s->waiting--;
	g->destination->waiting--;
	if (!list_is_empty(&g->rcpts))
		return;
	link_remove(&g->in_destination);
	index_remove(&s->groups, &g->by_key);
	free(g);
}

void sched_free(struct sched *s, struct sched_rcpt *x)
{
	struct sched_destination *d = x->destination;

	rcpt_leave(s, x);
	if (link_is_in(&x->in_group)) {
		link_remove(&x->in_group);
		s->refused_n--;
	}
	index_remove(&s->records, &x->priv->by_id);
	s->held--;
	d->held--;
	free(x);
	destination_settle(s, d);
}

static uint64_t group_key(const struct sched_destination *d, uint64_t message)
{
	return message ^ index_mix((uintptr_t)d);
}

static struct sched_group *group_get(struct sched *s, struct sched_destination *d, uint64_t message)
{
	uint64_t key = group_key(d, message);
	struct sched_group *g;

	for (struct index_node *n = index_first(&s->groups, key); n; n = index_next(n)) {
		g = CONTAINER_OF(n, struct sched_group, by_key);
		if (g->destination == d && g->message == message)
			return g;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->destination = d;
	g->message = message;
	list_init(&g->rcpts);
	if (index_add(&s->groups, &g->by_key, key)) {
		free(g);
		return NULL;
	}
	list_append(&d->groups, &g->in_destination);
	return g;
}

static void refuse(struct sched *s, struct sched_rcpt *x, bool is_over_share)
{
	x->priv->is_over_share = is_over_share;
	list_append(&s->refused, &x->in_group);
	s->refused_n++;
}

static enum err place(struct sched *s, struct sched_destination *d, struct sched_rcpt *x,
		      int64_t now)
{
	struct sched_group *g;

	if (d->dead_until_us > now) {
		refuse(s, x, false);
		return ERR_OK;
	}
	if (d->waiting >= s->limits.share_max && d->active >= d->window) {
		refuse(s, x, true);
		return ERR_OK;
	}
	g = group_get(s, d, x->r.message);
	if (!g)
		return ERR_NO_MEMORY;
	x->group = g;
	list_append(&g->rcpts, &x->in_group);
	list_append(&s->leases, &x->in_leases);
	s->waiting++;
	d->waiting++;
	return ERR_OK;
}

static enum err hold(struct sched *s, const struct rec_queue_record *r, str where,
		     int64_t lease_until_us, struct sched_rcpt **out)
{
	struct sched_rcpt *x = sched_find(s, r->id);
	struct sched_destination *d;

	if (x) {
		x->r.token = r->token;
		x->lease_until_us = lease_until_us;
		if (link_is_in(&x->in_leases)) {
			link_remove(&x->in_leases);
			list_append(&s->leases, &x->in_leases);
		}
		return ERR_EXISTS;
	}
	if (!sched_room(s))
		return ERR_BUSY;
	d = destination_get(s, where);
	x = d ? rcpt_new(r) : NULL;
	if (!x || index_add(&s->records, &x->priv->by_id, r->id)) {
		free(x);
		if (d)
			destination_settle(s, d);
		return ERR_NO_MEMORY;
	}
	x->destination = d;
	x->lease_until_us = lease_until_us;
	s->held++;
	d->held++;
	*out = x;
	return ERR_OK;
}

enum err sched_add(struct sched *s, const struct rec_queue_record *r, str where,
		   int64_t lease_until_us, int64_t now)
{
	struct sched_rcpt *x;
	struct sched_destination *d;
	enum err err = hold(s, r, where, lease_until_us, &x);

	if (err)
		return err;
	d = x->destination;
	err = place(s, d, x, now);
	if (err)
		sched_free(s, x);
	else
		destination_settle(s, d);
	return err;
}

enum err sched_hold(struct sched *s, const struct rec_queue_record *r, int64_t lease_until_us,
		    struct sched_rcpt **out)
{
	enum err err = hold(s, r, STR_EMPTY, lease_until_us, out);

	if (!err)
		(*out)->is_kept = true;
	return err;
}

void sched_keep(struct sched_job *job, struct sched_rcpt *r)
{
	for (uint32_t i = 0; i < job->count; i++) {
		if (job->rcpts[i] != r)
			continue;
		job->rcpts[i] = job->rcpts[--job->count];
		break;
	}
	r->job = NULL;
	r->is_kept = true;
}

/* ---- jobs ---- */

/* What it takes in out_deliver, generously. */
static size_t rcpt_bytes(const struct sched_rcpt *x)
{
	return 64 + x->r.address.n + x->r.orcpt.n;
}

static void job_fill(struct sched *s, struct sched_job *job, struct sched_group *g, int64_t now)
{
	size_t bytes = 0;
	bool is_last;

	do {
		struct sched_rcpt *x = LIST_FIRST(&g->rcpts, struct sched_rcpt, in_group);

		is_last = x->in_group.next == &g->rcpts;
		bytes += rcpt_bytes(x);
		if (job->count &&
		    (job->count == s->limits.rcpts_per_job || bytes > SCHED_JOB_BYTES_MAX))
			return;
		/* Its lease is too short: sched_lapsed will take it. */
		if (x->lease_until_us - now < s->limits.lease_margin_us)
			return;
		rcpt_leave(s, x);
		x->job = job;
		job->rcpts[job->count++] = x;
	} while (!is_last);
}

static struct sched_job *job_from(struct sched *s, struct sched_destination *d, int64_t now)
{
	struct sched_group *g = LIST_FIRST(&d->groups, struct sched_group, in_destination);
	uint32_t waiting = d->waiting;
	struct sched_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	/* To the end of the turn first: taking its last recipient frees the group. */
	link_remove(&g->in_destination);
	list_append(&d->groups, &g->in_destination);
	job_fill(s, job, g, now);
	if (d->waiting == waiting) {
		free(job);
		return NULL;
	}
	job->destination = d;
	job->where = name_of(d);
	d->active++;
	s->jobs++;
	return job;
}

struct sched_job *sched_next(struct sched *s, int64_t now)
{
	struct link *end = s->ready.prev;

	if (s->jobs >= s->limits.jobs_max || list_is_empty(&s->ready))
		return NULL;
	/* One round at most: what stands in the ring may be waiting for sched_lapsed alone. */
	for (bool is_last = false; !is_last && !list_is_empty(&s->ready);) {
		struct sched_destination *d =
			LIST_FIRST(&s->ready, struct sched_destination, in_ready);
		struct sched_job *job;

		is_last = &d->in_ready == end;
		link_remove(&d->in_ready);
		job = job_from(s, d, now);
		destination_settle(s, d);
		if (job)
			return job;
	}
	return NULL;
}

static void remember(struct sched_destination *d, const struct rec_out_answer *last)
{
	if (!d->last)
		d->last = calloc(1, sizeof(*d->last));
	if (!d->last || !last)
		return;
	d->last->reason_n = MIN(last->reply.n, (size_t)REASON_MAX);
	d->last->remote_n = MIN(last->remote.n, (size_t)REMOTE_MAX);
	d->last->status_n = MIN(last->status.n, (size_t)STATUS_MAX);
	if (d->last->reason_n)
		memcpy(d->last->reason, last->reply.p, d->last->reason_n);
	if (d->last->remote_n)
		memcpy(d->last->remote, last->remote.p, d->last->remote_n);
	if (d->last->status_n)
		memcpy(d->last->status, last->status.p, d->last->status_n);
}

static void refuse_all(struct sched *s, struct sched_destination *d)
{
	while (!list_is_empty(&d->groups)) {
		struct sched_group *g = LIST_FIRST(&d->groups, struct sched_group, in_destination);
		struct sched_rcpt *x = LIST_FIRST(&g->rcpts, struct sched_rcpt, in_group);

		rcpt_leave(s, x);
		refuse(s, x, false);
	}
}

static void destination_failed(struct sched *s, struct sched_destination *d,
			       const struct rec_out_answer *last, int64_t now)
{
	int64_t rest = s->limits.dead_min_us;

	if (d->dead_until_us > now)
		return;
	d->cohort += COHORT / d->window;
	d->window = MAX(1u, d->window - 1);
	if (d->cohort < COHORT)
		return;
	for (uint32_t i = 0; i < d->deaths && rest < s->limits.dead_max_us; i++)
		rest = MIN(rest * 2, s->limits.dead_max_us);
	d->deaths++;
	d->dead_until_us = now + rest;
	/* The first job after the rest is a probe: alone, and enough to kill again. */
	d->window = 1;
	d->cohort = 0;
	remember(d, last);
	refuse_all(s, d);
}

static void destination_worked(struct sched *s, struct sched_destination *d)
{
	if (d->deaths)
		d->window = s->limits.concurrency_start;
	else if (d->active >= d->window)
		d->window = MIN(d->window + 1, s->limits.concurrency_max);
	d->cohort = 0;
	d->deaths = 0;
	d->dead_until_us = 0;
}

void sched_done(struct sched *s, struct sched_job *job, enum sched_feedback feedback,
		const struct rec_out_answer *last, int64_t now)
{
	struct sched_destination *d = job->destination;

	if (feedback == SCHED_DELIVERED)
		destination_worked(s, d);
	else if (feedback == SCHED_NO_CONNECTION)
		destination_failed(s, d, last, now);
	/* It stays active until its recipients are gone, so that the destination is not freed under
	 * us. */
	for (uint32_t i = 0; i < job->count; i++)
		sched_free(s, job->rcpts[i]);
	free(job);
	s->jobs--;
	d->active--;
	destination_settle(s, d);
}

/* ---- what is not tried ---- */

struct sched_rcpt *sched_refused(struct sched *s, struct sched_refusal *why)
{
	struct sched_rcpt *x;
	struct sched_destination *d;

	if (list_is_empty(&s->refused))
		return NULL;
	x = LIST_FIRST(&s->refused, struct sched_rcpt, in_group);
	link_remove(&x->in_group);
	s->refused_n--;
	x->is_kept = true;
	d = x->destination;
	*why = (struct sched_refusal){ .is_dead = !x->priv->is_over_share,
				       .due_us = d->dead_until_us };
	if (why->is_dead && d->last) {
		why->reason = str_of(d->last->reason, d->last->reason_n);
		why->remote = str_of(d->last->remote, d->last->remote_n);
		why->status = str_of(d->last->status, d->last->status_n);
	}
	return x;
}

struct sched_rcpt *sched_lapsed(struct sched *s, int64_t now)
{
	struct sched_rcpt *x;

	if (list_is_empty(&s->leases))
		return NULL;
	x = LIST_FIRST(&s->leases, struct sched_rcpt, in_leases);
	return x->lease_until_us - now < s->limits.lease_margin_us ? x : NULL;
}

bool sched_forget(struct sched *s, uint64_t id)
{
	struct sched_rcpt *x = sched_find(s, id);

	if (!x || x->job || x->is_kept)
		return false;
	sched_free(s, x);
	return true;
}

void sched_forget_waiting(struct sched *s)
{
	while (!list_is_empty(&s->leases))
		sched_free(s, LIST_FIRST(&s->leases, struct sched_rcpt, in_leases));
	while (!list_is_empty(&s->refused))
		sched_free(s, LIST_FIRST(&s->refused, struct sched_rcpt, in_group));
}

static void revive(struct sched *s, struct sched_destination *d)
{
	d->dead_until_us = 0;
	d->deaths = 0;
	d->cohort = 0;
	d->window = MAX(d->window, s->limits.concurrency_start);
	destination_settle(s, d);
}

void sched_revive(struct sched *s, str where)
{
	struct sched_destination *d = where.n ? destination_find(s, where) : NULL;

	if (d)
		revive(s, d);
	for (size_t i = 0; !where.n && i < s->destinations.size; i++) {
		struct index_node *next;

		for (struct index_node *n = s->destinations.buckets[i]; n; n = next) {
			next = n->next;
			revive(s, CONTAINER_OF(n, struct sched_destination, by_name));
		}
	}
}

struct sched_counts sched_counts(const struct sched *s, int64_t now)
{
	struct sched_counts c = {
		.records = s->held, .waiting = s->waiting, .refused = s->refused_n, .jobs = s->jobs
	};

	c.destinations = (uint32_t)s->destinations.count;
	for (size_t i = 0; i < s->destinations.size; i++)
		for (struct index_node *n = s->destinations.buckets[i]; n; n = n->next)
			c.dead +=
				CONTAINER_OF(n, struct sched_destination, by_name)->dead_until_us >
				now;
	return c;
}

void sched_free_all(struct sched *s)
{
	if (!s)
		return;
	sched_forget_waiting(s);
	while (!list_is_empty(&s->idle))
		destination_free(s, LIST_FIRST(&s->idle, struct sched_destination, in_idle));
	index_free(&s->records);
	index_free(&s->groups);
	index_free(&s->destinations);
	free(s);
}
