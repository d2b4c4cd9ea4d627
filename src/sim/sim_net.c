/* Bytes and datagrams on their way.
 *
 * What is sent becomes parcels in the other end's queue, each with the moment at which it arrives:
 * at once within a machine, later between machines, never overtaking what was sent before. The
 * network may cut what was sent into parcels that arrive apart (short reads), and take only a part
 * of it (short writes, after which it is full for a moment, as the real one is). An end that closes
 * leaves a parcel that says so; one that closes without having read everything, or that loses its
 * machine's power, leaves a reset. What was on its way then still arrives: all of it when a process
 * ended, a beginning of it when the power went.
 */
#include "sim/sim_priv.h"

enum {
	DELAY_LEAST = 20 * SIM_MICROSECOND,
	DELAY_USUAL = 300 * SIM_MICROSECOND,
	DELAY_SLOW = 20 * SIM_MILLISECOND,
	SLOW_IN_1000 = 30,
	FULL_MOST = 2 * SIM_MILLISECOND,
	RESET_MOST = 200 * SIM_MILLISECOND,
	READY_HANGUP = 8,
};

static int64_t delay(struct sim *s)
{
	struct sim_random *r = &s->network;
	uint64_t most = sim_random_chance(r, SLOW_IN_1000) ? DELAY_SLOW : DELAY_USUAL;

	return DELAY_LEAST + (int64_t)sim_random_below(r, most);
}

static int64_t arrival(struct sim_object *to)
{
	struct sim *s = to->sim;
	struct sim_socket *k = &to->socket;
	int64_t at = s->now;

	if (k->is_remote)
		at = MAX(at + delay(s), s->partition_until);
	k->last_at = MAX(k->last_at, at);
	return k->last_at;
}

static void readable(struct sim *s UNUSED, struct sim_object *o)
{
	const struct sim_parcel *first = o->socket.first;
	bool ends = false;

	for (const struct sim_parcel *p = first; p && p->at <= o->sim->now; p = p->next)
		ends |= p->is_end || p->is_reset;
	object_changed(o, OS_READY_READ | (ends ? OS_READY_CLOSED : 0u));
}

static struct sim_parcel *parcel_new(size_t n)
{
	struct sim_parcel *x = sim_alloc(sizeof(*x) + n);

	x->n = n;
	return x;
}

static void parcel_put(struct sim_object *to, struct sim_parcel *x, int64_t at)
{
	x->at = at;
	if (!to->socket.end)
		to->socket.end = &to->socket.first;
	*to->socket.end = x;
	to->socket.end = &x->next;
	to->socket.queued += x->n;
}

static struct sim_parcel *parcel_push(struct sim_object *to, int64_t at, const void *p, size_t n)
{
	struct sim_parcel *x = parcel_new(n);

	if (n)
		memcpy(x->data, p, n);
	parcel_put(to, x, at);
	return x;
}

static void parcel_told(struct sim_object *to, int64_t at)
{
	if (at > to->sim->now)
		event_at(to->sim, at, readable, to);
	else
		readable(to->sim, to);
}

static struct sim_parcel *parcel_pop(struct sim_object *o)
{
	struct sim_parcel *x = o->socket.first;

	o->socket.first = x->next;
	if (!x->next)
		o->socket.end = &o->socket.first;
	o->socket.queued -= x->n - x->from;
	return x;
}

static void parcel_free(struct sim_parcel *x)
{
	for (unsigned i = 0; i < x->objects_n; i++)
		object_drop(x->objects[i]);
	sim_release(x);
}

static bool has_arrived(const struct sim_object *o)
{
	return o->socket.first && o->socket.first->at <= o->sim->now;
}

enum err net_pair(struct sim *s, enum sim_kind kind, enum sim_machine where,
		  struct sim_object *ends[2])
{
	for (int i = 0; i < 2; i++) {
		ends[i] = object_new(s, kind);
		ends[i]->socket.where = where;
		ends[i]->socket.peer_pid = s->current ? s->current->number : 0;
	}
	ends[0]->socket.peer = ends[1];
	ends[1]->socket.peer = ends[0];
	return ERR_OK;
}

unsigned socket_ready(const struct sim_object *o)
{
	const struct sim_socket *k = &o->socket;
	unsigned ready = 0;

	if (k->is_connecting)
		return 0;
	if (k->is_reset || k->is_refused)
		return OS_READY_READ | OS_READY_WRITE | OS_READY_CLOSED | READY_HANGUP;
	for (const struct sim_parcel *p = k->first; p && p->at <= o->sim->now; p = p->next) {
		ready |= OS_READY_READ;
		if (p->is_end || p->is_reset)
			ready |= OS_READY_CLOSED;
		if (p->is_reset)
			ready |= READY_HANGUP;
	}
	if (k->has_ended)
		ready |= OS_READY_READ | OS_READY_CLOSED;
	if (!k->peer && !k->is_remote)
		ready |= OS_READY_READ | OS_READY_CLOSED | READY_HANGUP;
	if (k->peer ? k->peer->socket.queued < (o->kind == SIM_STREAM ? SIM_STREAM_WINDOW
								      : SIM_DATAGRAM_WINDOW) &&
			      k->full_until <= o->sim->now
		    : k->is_remote)
		ready |= OS_READY_WRITE;
	return ready;
}

void socket_reset(struct sim_object *o, int64_t at)
{
	struct sim_parcel *x;

	at = MAX(at, o->socket.last_at);
	o->socket.last_at = at;
	x = parcel_push(o, at, NULL, 0);
	x->is_reset = true;
	parcel_told(o, at);
}

/* The power went: of what was still on its way only a beginning had left the machine. */
static void lose_what_follows(struct sim_object *o)
{
	struct sim *s = o->sim;
	struct sim_parcel **at = &o->socket.first;

	while (*at && ((*at)->at <= s->now || sim_random_chance(&s->network, 700)))
		at = &(*at)->next;
	while (*at) {
		struct sim_parcel *x = *at;

		*at = x->next;
		o->socket.queued -= x->n - x->from;
		parcel_free(x);
	}
	o->socket.end = at;
}

void socket_close(struct sim_object *o)
{
	struct sim *s = o->sim;
	struct sim_object *peer = o->socket.peer;
	bool was_unread = has_arrived(o) && !o->socket.first->is_end;

	while (o->socket.first)
		parcel_free(parcel_pop(o));
	if (!peer)
		return;
	o->socket.peer = NULL;
	peer->socket.peer = NULL;
	if (o->kind == SIM_DATAGRAMS) {
		object_changed(peer, OS_READY_READ | OS_READY_CLOSED | READY_HANGUP);
	} else if (s->is_power_lost && o->socket.is_remote && o->socket.where == SIM_SERVER) {
		lose_what_follows(peer);
		socket_reset(peer, s->now + (int64_t)sim_random_below(&s->network, RESET_MOST));
	} else if (was_unread && o->socket.is_remote) {
		socket_reset(peer, arrival(peer));
	} else if (!o->socket.is_shut) {
		int64_t at = arrival(peer);

		parcel_push(peer, at, NULL, 0)->is_end = true;
		parcel_told(peer, at);
	} else {
		object_changed(peer, OS_READY_WRITE | OS_READY_CLOSED | READY_HANGUP);
	}
}

/* ---- streams ---- */

static void has_room(struct sim *s UNUSED, struct sim_object *o)
{
	object_changed(o, OS_READY_WRITE);
}

/* How much the network takes. */
static size_t stream_room(struct sim_object *o, size_t n)
{
	struct sim *s = o->sim;
	struct sim_socket *k = &o->socket, *peer = &k->peer->socket;

	if (peer->queued >= SIM_STREAM_WINDOW || s->now < k->full_until)
		return 0;
	n = MIN(n, SIM_STREAM_WINDOW - peer->queued);
	if (n > 1 && k->is_remote && sim_random_chance(&s->network, s->options.short_write)) {
		n = 1 + (size_t)sim_random_below(&s->network, n - 1);
		k->full_until = s->now + 1 + (int64_t)sim_random_below(&s->network, FULL_MOST);
		event_at(s, k->full_until, has_room, o);
	}
	return n;
}

enum err stream_send(struct sim_object *o, const char *p, size_t n, size_t *done)
{
	struct sim *s = o->sim;
	struct sim_socket *k = &o->socket;

	if (k->is_reset || k->is_refused || k->is_shut)
		return ERR_CLOSED;
	if (k->is_connecting)
		return ERR_AGAIN;
	if (!k->peer && k->is_remote) {
		/* Nobody is there any more: the answer to this will be a reset. */
		*done = n;
		socket_reset(o, arrival(o));
		k->is_shut = true;
		return ERR_OK;
	}
	if (!k->peer)
		return ERR_CLOSED;
	if (!(n = stream_room(o, n)))
		return ERR_AGAIN;
	*done = n;
	while (n) {
		bool is_cut =
			k->is_remote && sim_random_chance(&s->network, s->options.network_cut);
		size_t part = is_cut ? 1 + (size_t)sim_random_below(&s->network, n) : n;
		int64_t at = arrival(k->peer);

		parcel_push(k->peer, at, p, part);
		parcel_told(k->peer, at);
		p += part;
		n -= part;
	}
	return ERR_OK;
}

enum err stream_recv(struct sim_object *o, char *p, size_t n, size_t *done)
{
	struct sim_socket *k = &o->socket;
	bool was_full = k->queued >= SIM_STREAM_WINDOW;

	if (k->is_reset || k->is_refused)
		return ERR_CLOSED;
	while (*done < n && has_arrived(o)) {
		struct sim_parcel *x = k->first;
		size_t part = MIN(n - *done, x->n - x->from);

		if (x->is_reset && *done == 0) {
			k->is_reset = true;
			return ERR_CLOSED;
		}
		if (x->is_end && *done == 0) {
			k->has_ended = true;
			return ERR_EOF;
		}
		if (x->is_reset || x->is_end)
			break;
		memcpy(p + *done, x->data + x->from, part);
		*done += part;
		x->from += part;
		k->queued -= part;
		if (x->from == x->n)
			parcel_free(parcel_pop(o));
	}
	if (*done && k->peer && (was_full || !k->is_remote))
		object_changed(k->peer, OS_READY_WRITE);
	if (*done || n == 0)
		return ERR_OK;
	return !k->peer && !k->is_remote ? ERR_EOF : ERR_AGAIN;
}

/* ---- datagrams ---- */

enum err datagram_send(struct sim_object *o, const struct iovec *iov, unsigned niov,
		       struct sim_object *const *objects, unsigned count)
{
	struct sim_object *peer = o->socket.peer;
	struct sim_parcel *x;
	size_t n = 0, at = 0;

	if (!peer || o->socket.is_shut)
		return ERR_CLOSED;
	for (unsigned i = 0; i < niov; i++)
		n += iov[i].iov_len;
	if (peer->socket.queued && peer->socket.queued + n > SIM_DATAGRAM_WINDOW)
		return ERR_AGAIN;
	x = parcel_new(n);
	for (unsigned i = 0; i < niov; i++) {
		if (iov[i].iov_len)
			memcpy(x->data + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	for (unsigned i = 0; i < count; i++) {
		object_hold(objects[i]);
		x->objects[x->objects_n++] = objects[i];
	}
	parcel_put(peer, x, o->sim->now);
	object_changed(peer, OS_READY_READ);
	return ERR_OK;
}

enum err datagram_recv(struct sim_object *o, void *p, size_t n, size_t *done,
		       struct sim_object *objects[OS_FDS_MAX], unsigned *count)
{
	struct sim_parcel *x;
	enum err err = ERR_OK;

	*count = 0;
	*done = 0;
	if (!o->socket.first)
		return o->socket.peer ? ERR_AGAIN : ERR_EOF;
	x = parcel_pop(o);
	if (x->n > n) {
		err = ERR_TOO_LONG;
	} else {
		if (x->n)
			memcpy(p, x->data, x->n);
		*done = x->n;
		for (; *count < x->objects_n; ++*count) {
			objects[*count] = x->objects[*count];
			object_hold(objects[*count]);
		}
	}
	parcel_free(x);
	if (o->socket.peer)
		object_changed(o->socket.peer, OS_READY_WRITE);
	return err;
}

void socket_shut(struct sim_object *o)
{
	struct sim_object *peer = o->socket.peer;
	int64_t at;

	if (o->socket.is_shut)
		return;
	o->socket.is_shut = true;
	if (!peer)
		return;
	at = arrival(peer);
	parcel_push(peer, at, NULL, 0)->is_end = true;
	parcel_told(peer, at);
}

/* ---- connections ---- */

struct sim_object *listener_find(struct sim *s, const struct addr *to, bool is_datagrams)
{
	for (struct sim_object *o = s->listeners; o; o = o->listener.next) {
		const struct addr *at = &o->listener.address;

		if (o->listener.is_datagrams != is_datagrams || at->family != to->family)
			continue;
		if (at->family == ADDR_UNIX ? strcmp(at->path, to->path) == 0
					    : at->port == to->port && addr_ip_eq(at, to))
			return o;
	}
	return NULL;
}

void listener_close(struct sim_object *o)
{
	struct sim_object **at = &o->sim->listeners;

	while (*at != o)
		at = &(*at)->listener.next;
	*at = o->listener.next;
	for (unsigned i = 0; i < o->listener.backlog_n; i++)
		object_drop(o->listener.backlog[i]);
}

static void refuse(struct sim_object *o)
{
	o->socket.is_connecting = false;
	o->socket.is_refused = true;
	object_changed(o, OS_READY_READ | OS_READY_WRITE | READY_HANGUP);
}

/* The first packet reaches the other machine. */
void connect_arrives(struct sim *s, struct sim_object *o)
{
	struct sim_object *l = listener_find(s, &o->socket.remote, false), *end;

	if (o->refs == 1)
		return; /* the event alone still holds it */
	if (!l || l->listener.backlog_n == ARRAY_LEN(l->listener.backlog)) {
		refuse(o);
		return;
	}
	end = object_new(s, SIM_STREAM);
	end->socket.where = l->listener.where;
	end->socket.is_remote = o->socket.is_remote;
	end->socket.local = o->socket.remote;
	end->socket.remote = o->socket.local;
	end->socket.peer_pid = o->socket.peer_pid;
	end->socket.peer = o;
	o->socket.peer = end;
	o->socket.is_connecting = false;
	l->listener.backlog[l->listener.backlog_n++] = end;
	s->counts.connections++;
	object_changed(l, OS_READY_READ);
	object_changed(o, OS_READY_WRITE);
}

void connect_begin(struct sim_object *o)
{
	struct sim *s = o->sim;

	o->socket.is_connecting = true;
	event_at(s, arrival(o), connect_arrives, o);
}

static bool is_of_server(const struct sim_object *o)
{
	if (o && (o->kind == SIM_STREAM || o->kind == SIM_DATAGRAMS))
		return o->socket.where == SIM_SERVER;
	return o && o->kind == SIM_SYNCER;
}

/* What waits for an event of a machine that is off. Objects that go may make new events: so first
 * all are taken out. */
void net_forget_server(struct sim *s)
{
	struct sim_object **gone = sim_alloc(s->events_n * sizeof(*gone));
	size_t kept = 0, n = 0;

	for (size_t i = 0; i < s->events_n; i++)
		if (is_of_server(s->events[i].object))
			gone[n++] = s->events[i].object;
		else
			s->events[kept++] = s->events[i];
	s->events_n = kept;
	while (n)
		object_drop(gone[--n]);
	sim_release(gone);
}

void net_reset_all(struct sim *s)
{
	for (struct sim_process *p = s->processes; p; p = p->next)
		for (int fd = 0; fd < p->fds_end; fd++) {
			struct sim_object *o = p->fds[fd];

			if (o && o->kind == SIM_STREAM && o->socket.is_remote && o->socket.peer)
				socket_reset(o, s->now + (int64_t)sim_random_below(&s->network,
										   RESET_MOST));
		}
}
