/* Commits: gathering records into the frame that will be written next.
 *
 * A commit changes the overlay at once, under a serial number of its own; the serial of the last
 * durable commit is the line between the two states. Nothing else has to be told when a frame
 * becomes durable: the line moves. When a frame is lost, every version above the line is taken
 * back, and what was computed from it goes with it.
 */
#include "store/kv_priv.h"

#include "base/mutant.h"
#include "store/records_priv.h"

#include <assert.h>
#include <stdlib.h>

static bool array_room(void *array, size_t *room, size_t count, size_t size)
{
	size_t grown = *room ? *room * 2 : 16;
	void *old, *p;

	if (count < *room)
		return true;
	memcpy(&old, array, sizeof(old));
	p = realloc(old, grown * size);
	if (!p)
		return false;
	memcpy(array, &p, sizeof(p));
	*room = grown;
	return true;
}

static uint64_t frame_bytes(const struct kv_frame *f)
{
	return FRAME_HEADER_SIZE + buf_len(&f->records) + f->blobs_size;
}

/* A frame takes commits up to a quarter of a segment, and one commit may be half of one: it always
 * fits. */
static uint64_t capacity(const struct kv *kv)
{
	return kv->options.segment_size - SEGMENT_HEADER_SIZE;
}

static struct kv_frame *frame_new(struct kv *kv)
{
	struct kv_frame *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	buf_init(&f->records, UINT32_MAX);
	if (kv->last)
		kv->last->next = f;
	else
		kv->first = f;
	kv->last = f;
	return f;
}

static bool frame_has_room(const struct kv *kv, const struct kv_frame *f)
{
	return !f->is_closed && f->blob_count < KV_BLOBS_MAX / 2 &&
	       frame_bytes(f) < MIN(capacity(kv) / 4, (uint64_t)8 * 1024 * 1024);
}

/* Looks at the disk now and then; what is full is refused before the reserve is needed. */
static void space_check(struct kv *kv)
{
	struct os_space space;

	if (!kv->is_full && kv->knows_space &&
	    kv->counts.bytes - kv->checked_space_at < 16 * 1024 * 1024)
		return;
	kv->knows_space = true;
	kv->checked_space_at = kv->counts.bytes;
	if (os_space(kv->options.dir, &space))
		return;
	if ((space.free < kv->options.min_free) != kv->is_full && kv->options.log)
		log_warn(kv->options.log, kv->is_full ? "store-space-again" : "store-full",
			 "free=%llu", (unsigned long long)space.free);
	kv->is_full = space.free < kv->options.min_free;
	if (!kv->is_full && !kv->writer.has_reserve && log_writer_make_reserve(&kv->writer))
		kv->is_full = true;
}

enum err kv_begin(struct kv *kv, bool frees_space)
{
	struct kv_frame *f;

	assert(!kv->is_open);
	kv_release(kv);
	if (kv->pending_bytes > KV_PENDING_MAX || overlay_bytes(kv->young) > KV_OVERLAY_MAX / 2)
		return ERR_BUSY;
	space_check(kv);
	if (kv->is_full && !frees_space)
		return ERR_FULL;
	f = kv->last;
	if (!f || !frame_has_room(kv, f))
		f = frame_new(kv);
	if (!f)
		return ERR_NO_MEMORY;
	if (!frees_space)
		f->has_ordinary = true;
	kv->is_open = true;
	kv->failed = ERR_OK;
	kv->serial++;
	kv->mark_records = buf_len(&f->records);
	kv->mark_count = f->record_count;
	kv->mark_touched = f->touched_count;
	kv->mark_patches = f->patch_count;
	kv->mark_blobs = f->blob_count;
	kv->mark_blobs_size = f->blobs_size;
	return ERR_OK;
}

void kv_fail(struct kv *kv, enum err err)
{
	if (!kv->failed)
		kv->failed = err;
}

static struct version *write_record(struct kv *kv, const struct key *key, bool is_deleted,
				    str value)
{
	struct kv_frame *f = kv->last;
	struct entry *e;
	struct version *v;
	enum err err;

	assert(kv->is_open);
	if (kv->failed)
		return NULL;
	if (value.n > RECORD_VALUE_MAX) {
		kv_fail(kv, ERR_TOO_LONG);
		return NULL;
	}
	record_put(&f->records, is_deleted ? RECORD_DELETE : RECORD_PUT, key_str(key), value);
	f->record_count++;
	if (buf_failed(&f->records) ||
	    !array_room(&f->touched, &f->touched_room, f->touched_count, sizeof(e)))
		err = ERR_NO_MEMORY;
	else
		err = overlay_push(kv->young, key_str(key), kv->serial, kv->durable_serial,
				   is_deleted, value, &e, &v);
	if (err) {
		kv_fail(kv, err);
		return NULL;
	}
	f->touched[f->touched_count++] = e;
	return v;
}

void kv_put(struct kv *kv, const struct key *key, str value)
{
	size_t before = buf_len(&kv->last->records);

	if (write_record(kv, key, false, value) && MUTANT(record_dropped) && kv->serial % 16 == 0) {
		buf_truncate(&kv->last->records, before);
		kv->last->record_count--;
	}
}

void kv_delete(struct kv *kv, const struct key *key)
{
	(void)write_record(kv, key, true, STR_EMPTY);
}

void kv_put_placed(struct kv *kv, const struct key *key, str value, unsigned blob)
{
	kv_put_moved(kv, key, value, blob, STR_EMPTY);
}

void kv_put_moved(struct kv *kv, const struct key *key, str value, unsigned blob, str more)
{
	struct kv_frame *f = kv->last;
	struct version *v = write_record(kv, key, false, value);

	if (!v)
		return;
	assert(more.n <= KV_MORE_MAX && value.n >= BLOB_PLACE_SIZE + more.n);
	if (!array_room(&f->patches, &f->patch_room, f->patch_count, sizeof(*f->patches))) {
		kv_fail(kv, ERR_NO_MEMORY);
		return;
	}
	assert(kv->mark_blobs + blob < f->blob_count);
	f->patches[f->patch_count] = (struct kv_patch){ .at = buf_len(&f->records) - value.n,
							.version = v,
							.blob = (unsigned)kv->mark_blobs + blob,
							.more_n = (uint8_t)more.n };
	if (more.n)
		memcpy(f->patches[f->patch_count].more, more.p, more.n);
	f->patch_count++;
}

unsigned kv_blob(struct kv *kv, char *p, uint32_t size)
{
	struct kv_frame *f = kv->last;

	assert(kv->is_open);
	if (kv->failed || f->blob_count >= KV_BLOBS_MAX ||
	    !array_room(&f->blobs, &f->blob_room, f->blob_count, sizeof(*f->blobs))) {
		free(p);
		kv_fail(kv, f->blob_count >= KV_BLOBS_MAX ? ERR_TOO_MANY : ERR_NO_MEMORY);
		return 0;
	}
	f->blobs[f->blob_count++] = (struct kv_blob){ p, size };
	f->blobs_size += size;
	return (unsigned)(f->blob_count - 1 - kv->mark_blobs);
}

static void commit_undo(struct kv *kv, struct kv_frame *f)
{
	while (f->touched_count > kv->mark_touched)
		overlay_pop(f->touched[--f->touched_count], kv->serial - 1);
	while (f->blob_count > kv->mark_blobs)
		free(f->blobs[--f->blob_count].p);
	f->blobs_size = kv->mark_blobs_size;
	f->patch_count = kv->mark_patches;
	f->record_count = kv->mark_count;
	f->records.failed = false;
	buf_truncate(&f->records, kv->mark_records);
}

static bool waiter_add(struct kv_frame *f, kv_done *done, void *arg)
{
	if (!array_room(&f->waiters, &f->waiter_room, f->waiter_count, sizeof(*f->waiters)))
		return false;
	f->waiters[f->waiter_count++] = (struct kv_waiter){ done, arg, os_monotonic_ns() };
	return true;
}

enum err kv_end(struct kv *kv, kv_done *done, void *arg)
{
	struct kv_frame *f = kv->last;
	uint64_t size =
		buf_len(&f->records) - kv->mark_records + (f->blobs_size - kv->mark_blobs_size);

	assert(kv->is_open);
	kv->is_open = false;
	kv_release(kv);
	if (!kv->failed && size > capacity(kv) / 2)
		kv->failed = ERR_TOO_MANY;
	if (!kv->failed && !waiter_add(f, done, arg))
		kv->failed = ERR_NO_MEMORY;
	if (kv->failed) {
		commit_undo(kv, f);
		kv->serial--;
		return kv->failed;
	}
	f->serial = kv->serial;
	kv->pending_bytes += size;
	kv->counts.commits++;
	if (!kv->changed_since)
		kv->changed_since = os_monotonic_ns();
	return ERR_OK;
}

bool kv_wait(struct kv *kv, kv_done *done, void *arg)
{
	struct kv_frame *f = kv->last;

	/* The last frame may be empty, or hold only waiters; it is then done with the one before.
	 */
	return f && waiter_add(f, done, arg);
}

void kv_cancel(struct kv *kv)
{
	kv->failed = kv->failed ? kv->failed : ERR_CANCELLED;
	if (kv_end(kv, NULL, NULL) == ERR_OK)
		panic("kv_cancel: not cancelled");
}

bool kv_has_changes(const struct kv *kv)
{
	return kv->failed || kv->last->record_count != kv->mark_count;
}

bool kv_newer(struct kv *kv, const struct key *key, str *value, bool *is_deleted)
{
	const struct entry *e = overlay_find(kv->young, key_str(key));

	if (!e || !e->newest || e->newest->serial <= kv->durable_serial)
		e = kv->old ? overlay_find(kv->old, key_str(key)) : NULL;
	if (!e || !e->newest || e->newest->serial <= kv->durable_serial)
		return false;
	*value = str_of(e->newest->value, e->newest->size);
	*is_deleted = e->newest->is_deleted;
	return true;
}

bool kv_is_changed(struct kv *kv, const struct key *key)
{
	const struct entry *e = overlay_find(kv->young, key_str(key));

	if (e && entry_version(e, kv->durable_serial))
		return true;
	e = kv->old ? overlay_find(kv->old, key_str(key)) : NULL;
	return e && entry_version(e, kv->durable_serial);
}

enum err kv_get(struct kv *kv, enum kv_state state, const struct key *key, str *value)
{
	uint64_t limit =
		state == KV_DURABLE && !MUTANT(pending_read) ? kv->durable_serial : UINT64_MAX;
	const struct overlay *const overlays[] = { kv->young, kv->old };

	for (size_t i = 0; i < ARRAY_LEN(overlays); i++) {
		const struct entry *e =
			overlays[i] ? overlay_find(overlays[i], key_str(key)) : NULL;
		const struct version *v = e ? entry_version(e, limit) : NULL;

		if (!v)
			continue;
		if (v->is_deleted)
			return ERR_NOT_FOUND;
		*value = str_of(v->value, v->size);
		return ERR_OK;
	}
	return index_get(kv->index, key_str(key), value);
}

void kv_release(struct kv *kv)
{
	index_release(kv->index);
}

bool kv_is_idle(const struct kv *kv)
{
	return !kv->first;
}

bool kv_checkpoint_due(struct kv *kv, int64_t now, bool force, uint64_t *position)
{
	bool is_due = kv->changed_since &&
		      (force || now - kv->changed_since >= kv->options.checkpoint_ns ||
		       kv->counts.bytes - kv->frozen_bytes >= kv->options.checkpoint_bytes ||
		       overlay_bytes(kv->young) >= kv->options.checkpoint_memory);

	if (kv->is_checkpointing)
		return false;
	if (!kv->old && is_due) {
		struct overlay *fresh = overlay_new(KV_OVERLAY_MAX);

		if (!fresh)
			return false;
		kv->old = kv->young;
		kv->young = fresh;
		kv->frozen_serial = kv->serial;
		kv->frozen_bytes = kv->counts.bytes;
		kv->changed_since = 0;
	}
	/* Everything that is in the old overlay must be durable before the index may hold it. */
	if (!kv->old || (kv->durable_serial < kv->frozen_serial && !MUTANT(checkpoint_past_sync)))
		return false;
	kv->is_checkpointing = true;
	*position = MUTANT(checkpoint_past_sync) ? kv->writer.place.position : kv->writer.durable;
	return true;
}

void kv_checkpoint_done(struct kv *kv, uint64_t position)
{
	kv->is_checkpointing = false;
	kv->covered = position;
	kv->counts.checkpoints++;
	kv_release(kv);
	overlay_free(kv->old);
	kv->old = NULL;
}

void kv_checkpoint_failed(struct kv *kv)
{
	kv->is_checkpointing = false;
	if (MUTANT(checkpoint_forgets)) {
		overlay_free(kv->old);
		kv->old = NULL;
	}
}
