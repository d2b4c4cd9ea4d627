/* The store's life, and what all changes have in common: the commit that waits to be durable, and
 * whom it tells.
 *
 * A change is computed from the pending state, so that two deliveries in one frame get two UIDs; it
 * is told to anybody only when it is durable. Hints, replies and the queue's wake-up therefore hang
 * on the commit (struct pending) and go out from there.
 */
#include "store/compact_priv.h"
#include "base/mutant.h"
#include "store/store_priv.h"

#include <stdio.h>
#include <stdlib.h>

/* The simulator's are small, so that segments turn over, checkpoints come often and disks fill. */
#ifdef POSTHORN_SIM
enum {
	DEFAULT_SEGMENT_SIZE = 512 * 1024,
	DEFAULT_MIN_FREE = 2 * 1024 * 1024,
	DEFAULT_CHECKPOINT_BYTES = 1024 * 1024,
	DEFAULT_CHECKPOINT_MEMORY = 1024 * 1024,
	DEFAULT_CHECKPOINT_SECONDS = 2,
};
#else
enum {
	DEFAULT_SEGMENT_SIZE = SEGMENT_SIZE,
	DEFAULT_MIN_FREE = 256 * 1024 * 1024,
	DEFAULT_CHECKPOINT_BYTES = 128 * 1024 * 1024,
	DEFAULT_CHECKPOINT_MEMORY = 64 * 1024 * 1024,
	DEFAULT_CHECKPOINT_SECONDS = 30,
};
#endif

static struct kv_options kv_options_of(const struct store_options *o)
{
	return (struct kv_options){
		.dir = o->dir,
		.path = o->path,
		.log = o->log,
		.segment_size = o->segment_size ? o->segment_size : DEFAULT_SEGMENT_SIZE,
		.min_free = o->min_free ? o->min_free : DEFAULT_MIN_FREE,
		.checkpoint_bytes =
			o->checkpoint_bytes ? o->checkpoint_bytes : DEFAULT_CHECKPOINT_BYTES,
		.checkpoint_memory =
			o->checkpoint_memory ? o->checkpoint_memory : DEFAULT_CHECKPOINT_MEMORY,
		.may_wait = o->may_wait,
		.checkpoint_ns = (int64_t)(o->checkpoint_seconds ? o->checkpoint_seconds
								 : DEFAULT_CHECKPOINT_SECONDS) *
				 1000000000,
	};
}

enum err store_prepare(const struct store_options *options)
{
	struct kv_options o = kv_options_of(options);

	return kv_prepare(&o);
}

enum err store_open(const struct store_options *options, struct store **out)
{
	struct kv_options o = kv_options_of(options);
	struct store *s = calloc(1, sizeof(*s));
	enum err err = ERR_NO_MEMORY;

	if (!s)
		return err;
	s->options = *options;
	if (!s->options.txn_seconds)
		s->options.txn_seconds = 900;
	buf_init(&s->value, RECORD_VALUE_MAX);
	buf_init(&s->cold, 128 * 1024);
	buf_init(&s->scratch, MSG_MAX);
	buf_init(&s->compact.value, RECORD_VALUE_MAX);
	for (size_t i = 0; i < SEGMENT_FDS; i++)
		s->fds[i].fd = -1;
	s->bodies = body_cipher_new();
	s->hasher = hasher_new();
	if (s->bodies && s->hasher)
		err = body_jobs_new(&s->jobs);
	if (!err)
		err = kv_open(&o, &s->kv);
	if (err) {
		store_close(s);
	} else {
		body_files_sweep(s);
		*out = s;
	}
	return err;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	kv_close(s->kv);
	txns_free(s);
	body_jobs_free(s, s->jobs);
	leases_free(s);
	recent_free(s);
	compact_free(s);
	segment_fds_close(s);
	body_cipher_free(s->bodies);
	hasher_free(s->hasher);
	buf_free(&s->value);
	buf_free(&s->cold);
	buf_free(&s->scratch);
	free(s);
}

bool store_index_is_damaged(const struct store *s)
{
	return index_is_damaged(s->kv->index);
}

void store_index_condemn(struct store *s)
{
	kv_condemn_index(s->options.dir, s->options.log);
}

void store_steady(struct store *s)
{
	kv_steady(s->kv);
}

void store_flush(struct store *s)
{
	body_jobs_step(s);
	kv_flush(s->kv);
}

bool store_wants_turn(const struct store *s)
{
	return body_jobs_want_turn(s->jobs) || kv_wants_flush(s->kv);
}

int store_sync_fd(const struct store *s)
{
	return kv_sync_fd(s->kv);
}

int store_body_sync_fd(const struct store *s)
{
	return body_jobs_fd(s->jobs);
}

void store_sync_ready(struct store *s)
{
	body_jobs_sync_ready(s);
	kv_sync_ready(s->kv);
}

bool store_is_idle(const struct store *s)
{
	return kv_is_idle(s->kv) && body_jobs_are_idle(s->jobs);
}

enum err store_settle(struct store *s)
{
	struct os_event event;
	unsigned n;
	int poll;
	enum err err = os_poll_new(&poll);

	if (err)
		return err;
	err = os_poll_add(poll, store_sync_fd(s), s);
	if (!err)
		err = os_poll_add(poll, store_body_sync_fd(s), s);
	while (!err && !store_is_idle(s)) {
		store_flush(s);
		if (!store_is_idle(s) && !store_wants_turn(s))
			err = os_poll_wait(poll, &event, 1, 10 * 1000 * 1000, &n);
		store_sync_ready(s);
	}
	os_close(poll);
	return err;
}

/* Checkpoints. */

struct store_index {
	struct identity identity;
	struct index_writer *writer;
	struct index_reader *reader; /* of what the writer wrote, for compaction */
	struct compact_sources sources;
	struct compactor *compactor; /* the pass under way, or NULL */
};

enum err store_index_open(const struct store_options *options, struct store_index **out)
{
	struct store_index *x = calloc(1, sizeof(*x));
	enum err err;

	if (!x)
		return ERR_NO_MEMORY;
	err = kv_identity(options->dir, &x->identity);
	if (!err)
		err = index_writer_open(options->dir, options->path, &x->identity, options->log,
					false, &x->writer);
	if (!err)
		err = index_writer_reader(x->writer, &x->reader);
	if (err) {
		store_index_close(x);
		return err;
	}
	x->sources = (struct compact_sources){ .dir = options->dir,
					       .identity = &x->identity,
					       .log = options->log,
					       .index = x->reader };
	*out = x;
	return ERR_OK;
}

void store_index_close(struct store_index *x)
{
	if (!x)
		return;
	compactor_free(x->compactor);
	index_reader_close(x->reader);
	index_writer_close(x->writer);
	free(x);
}

enum err store_index_check(struct store_index *x)
{
	return index_check(x->writer);
}

enum err store_index_run(struct store_index *x, uint64_t position, uint64_t *covered,
			 uint64_t *records)
{
	struct log_place place;
	enum err err = index_bring_up(x->writer, position, &place, records);

	if (!err)
		*covered = place.position;
	return err;
}

enum err store_index_plan(struct store_index *x, const struct msg_cp_plan *in, struct buf *list,
			  struct msg_cp_planned *out)
{
	struct compact_plan plan;
	enum err err = compact_plan_make(&x->sources, in, &plan);

	compactor_free(x->compactor);
	x->compactor = NULL;
	if (!err)
		compact_plan_encode(&plan, list, out);
	if (!err && plan.count)
		err = compactor_new(&x->sources, &plan, &x->compactor);
	compact_plan_free(&plan);
	return err;
}

enum err store_index_step(struct store_index *x, uint32_t bytes, struct buf *items,
			  struct buf *blobs, bool *more)
{
	enum err err =
		x->compactor ? compactor_step(x->compactor, bytes, items, blobs, more) : ERR_STALE;

	if (err || !*more) {
		compactor_free(x->compactor);
		x->compactor = NULL;
	}
	return err;
}

void store_set_limits(struct store *s, const struct store_limits *limits)
{
	s->options.limits = *limits;
	s->compact.next_plan = s->kept_next = 0;
}

bool store_checkpoint_due(struct store *s, bool force, uint64_t *position)
{
	return kv_checkpoint_due(s->kv, os_monotonic_ns(), force, position);
}

bool store_checkpoint_is_behind(const struct store *s)
{
	return s->kv->changed_since || s->kv->old;
}

void store_checkpoint_done(struct store *s, uint64_t position)
{
	kv_checkpoint_done(s->kv, position);
	/* What compaction emptied goes first: it may be read for a while. */
	if (!store_compact_wants_checkpoint(s))
		segments_recycle(s);
}

void store_checkpoint_failed(struct store *s)
{
	kv_checkpoint_failed(s->kv);
}

/* LMDB allows one environment per file and process, so the reader is closed meanwhile. */
enum err store_checkpoint(struct store *s)
{
	uint64_t position, covered = 0, records;
	struct store_index *x = NULL;
	enum err err = store_settle(s), reopened;

	if (err || !store_checkpoint_due(s, true, &position))
		return err;
	index_reader_close(s->kv->index);
	s->kv->index = NULL;
	err = store_index_open(&s->options, &x);
	if (!err)
		err = store_index_run(x, position, &covered, &records);
	store_index_close(x);
	reopened = index_reader_open(s->options.path, &s->kv->identity, &s->kv->index);
	if (reopened)
		return reopened;
	if (err)
		store_checkpoint_failed(s);
	else
		store_checkpoint_done(s, covered);
	return err;
}

/* Pending commits. */

int removal_begin(struct store *s, const char *name)
{
	int fd;

	return s->options.hooks.removed && !os_open(s->options.dir, name, OS_READ, &fd) ? fd : -1;
}

void removal_end(struct store *s, int fd)
{
	if (fd >= 0)
		s->options.hooks.removed(s->options.hooks.arg, fd);
}

static void file_drop(struct store *s, uint64_t body)
{
	char name[40];
	int fd;

	body_file_name(name, body);
	fd = removal_begin(s, name);
	if (os_unlink(s->options.dir, name) && s->options.log)
		log_warn(s->options.log, "store-file-left", "file=%s", name);
	removal_end(s, fd);
}

/* One that stays is looked at when the store is opened next. */
static void marker_drop(struct store *s, uint64_t body)
{
	char name[40];
	enum err err;

	body_file_marker(name, body);
	err = os_unlink(s->options.dir, name);
	if (err && err != ERR_NOT_FOUND && s->options.log)
		log_warn(s->options.log, "store-file-left", "file=%s", name);
}

struct pending *pending_new(struct store *s, store_done *done, void *arg)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->store = s;
	p->done = done;
	p->arg = arg;
	buf_init(&p->from, 16384);
	buf_init(&p->to, 16384);
	return p;
}

void pending_free(struct pending *p)
{
	if (!p)
		return;
	if (p->made) {
		file_drop(p->store, p->made);
		marker_drop(p->store, p->made);
	}
	buf_free(&p->from);
	buf_free(&p->to);
	free(p->hints);
	free(p->dropped);
	free(p);
}

void pending_hint(struct pending *p, uint64_t account, uint32_t mailbox, uint64_t modseq)
{
	struct hint *last = p->hint_count ? &p->hints[p->hint_count - 1] : NULL;

	if (last && last->account == account && last->mailbox == mailbox)
		return;
	if (p->hint_count == p->hint_room) {
		size_t room = p->hint_room ? p->hint_room * 2 : 4;
		struct hint *hints = realloc(p->hints, room * sizeof(*hints));

		if (!hints) {
			kv_fail(p->store->kv, ERR_NO_MEMORY);
			return;
		}
		p->hints = hints;
		p->hint_room = room;
	}
	p->hints[p->hint_count++] = (struct hint){ account, modseq, mailbox };
}

void pending_drop_body(struct pending *p, uint64_t body)
{
	if (p->dropped_count == p->dropped_room) {
		size_t room = p->dropped_room ? p->dropped_room * 2 : 4;
		uint64_t *dropped = realloc(p->dropped, room * sizeof(*dropped));

		if (!dropped) {
			kv_fail(p->store->kv, ERR_NO_MEMORY);
			return;
		}
		p->dropped = dropped;
		p->dropped_room = room;
	}
	p->dropped[p->dropped_count++] = body;
}

static void pending_done(void *arg, enum err err)
{
	struct pending *p = arg;
	const struct store_hooks *hooks = &p->store->options.hooks;

	/* Even one that failed may have reached the disk, and be found there after a crash: with
	 * its body. */
	if (!err && p->made)
		marker_drop(p->store, p->made);
	p->made = 0;
	if (!err) {
		for (size_t i = 0; i < p->dropped_count; i++)
			file_drop(p->store, p->dropped[i]);
		for (size_t i = 0; i < p->hint_count && hooks->changed; i++)
			hooks->changed(hooks->arg, p->hints[i].account, p->hints[i].mailbox,
				       p->hints[i].modseq);
		if (p->wakes_queue && hooks->queued)
			hooks->queued(hooks->arg);
	}
	if (p->finish)
		p->finish(p, err);
	if (p->done) {
		p->reply.from = buf_str(&p->from);
		p->reply.to = buf_str(&p->to);
		p->done(p->arg, err, &p->reply);
	}
	pending_free(p);
}

enum err pending_end(struct pending *p)
{
	struct kv *kv = p->store->kv;
	enum err err;

	if (buf_failed(&p->from) || buf_failed(&p->to))
		kv_fail(kv, ERR_TOO_MANY);
	if (!kv_has_changes(kv)) {
		/* What it asked for is so already, as far as is pending: true when that is durable.
		 */
		kv_cancel(kv);
		if (!kv_wait(kv, pending_done, p))
			pending_done(p, ERR_OK);
		return ERR_OK;
	}
	err = kv_end(kv, pending_done, p);
	if (err)
		pending_free(p);
	return err;
}

static void uid_list_put(struct uid_list *l)
{
	struct rec_uid_range r = { .first = l->first, .last = l->last };

	if (l->first)
		rec_uid_range_put(l->out, &r);
}

void uid_list_add(struct uid_list *l, uint32_t uid)
{
	if (l->first && uid == l->last + 1) {
		l->last = uid;
		return;
	}
	uid_list_put(l);
	l->count++;
	l->first = l->last = uid;
}

enum err uid_list_end(struct uid_list *l)
{
	uid_list_put(l);
	return buf_failed(l->out) || l->count > RANGES_MAX ? ERR_TOO_MANY : ERR_OK;
}

/* Counters of the store. */

static void counters_load(struct store *s, struct counters *c)
{
	struct key k = key_make(KIND_COUNTERS);
	str value;
	enum err err = kv_get(s->kv, KV_PENDING, &k, &value);

	*c = (struct counters){ .body = 1, .queue = 1 };
	if (!err)
		err = counters_get(value, c);
	if (err && err != ERR_NOT_FOUND)
		kv_fail(s->kv, err);
}

static void counters_save(struct store *s, const struct counters *c)
{
	struct key k = key_make(KIND_COUNTERS);

	buf_clear(&s->value);
	counters_put(&s->value, c);
	kv_put(s->kv, &k, buf_str(&s->value));
}

/* Never twice, not even after a commit that failed: its file may be about to be removed. */
uint64_t next_body(struct store *s)
{
	struct counters c;

	counters_load(s, &c);
	c.body = MAX(c.body, s->body_floor) + 1;
	s->body_floor = c.body;
	counters_save(s, &c);
	return c.body - 1;
}

uint64_t body_reserve(struct store *s)
{
	struct counters c;

	counters_load(s, &c);
	s->body_floor = MAX(c.body, s->body_floor) + 1;
	return s->body_floor - 1;
}

void body_reserved_given(struct store *s, uint64_t id)
{
	struct counters c;

	counters_load(s, &c);
	if (c.body > id)
		return;
	c.body = id + 1;
	counters_save(s, &c);
}

uint64_t body_ids_end(struct store *s)
{
	struct key k = key_make(KIND_COUNTERS);
	struct counters c;
	str value;
	enum err err = kv_get(s->kv, KV_DURABLE, &k, &value);

	if (err == ERR_NOT_FOUND)
		return 1;
	return err || counters_get(value, &c) ? 0 : c.body;
}

uint64_t next_queue(struct store *s)
{
	struct counters c;

	counters_load(s, &c);
	c.queue++;
	counters_save(s, &c);
	return c.queue - 1;
}

/* RFC 9051 2.3.1.1: UIDVALIDITY grows; by time, so that it does even if a store is begun anew. */
uint32_t next_uidvalidity(struct store *s)
{
	struct counters c;
	uint32_t now = (uint32_t)(os_wall_us() / 1000000);

	counters_load(s, &c);
	c.uidvalidity = MUTANT(uidvalidity_from_clock) ? now : MAX(c.uidvalidity + 1, now);
	counters_save(s, &c);
	return c.uidvalidity;
}
