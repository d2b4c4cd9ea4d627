/* Frames on their way to the disk: group commit.
 *
 * While one frame is synced, the next one gathers; when the sync returns, all who waited for it are
 * told, and the next one goes. There is no timer: one commit alone goes at once, and under load the
 * frames grow by themselves to what the disk's speed asks for.
 *
 * The helper thread waits in fdatasync, unless few wait and the disk has been quick: then this
 * thread does (where its owner allows that), which saves two switches of context for each frame.
 *
 * A frame that could not be written or synced takes down everything behind it, because that was
 * computed from it. Its segment is abandoned (segment.c says why).
 */
#include "store/kv_priv.h"

#include "base/mutant.h"
#include "store/crc32c.h"

#include <assert.h>
#include <stdlib.h>

static void frame_free(struct kv_frame *f)
{
	for (size_t i = 0; i < f->blob_count; i++)
		free(f->blobs[i].p);
	buf_free(&f->records);
	free(f->blobs);
	free(f->patches);
	free(f->touched);
	free(f->waiters);
	free(f);
}

static struct kv_frame *frame_take(struct kv *kv)
{
	struct kv_frame *f = kv->first;

	kv->first = f->next;
	if (!kv->first)
		kv->last = NULL;
	return f;
}

static void latency_count(struct kv *kv, int64_t ns)
{
	uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
	unsigned slot = us ? 64u - (unsigned)__builtin_clzll(us) : 0;

	kv->counts.latency[MIN(slot, KV_LATENCIES - 1u)]++;
}

static void waiters_tell(struct kv *kv, struct kv_frame *f, enum err err)
{
	int64_t now = os_monotonic_ns();

	for (size_t i = 0; i < f->waiter_count; i++) {
		if (!err)
			latency_count(kv, now - f->waiters[i].since);
		f->waiters[i].done(f->waiters[i].arg, err);
	}
}

/* Everything that is pending did not happen. */
static void pending_fail(struct kv *kv, enum err err)
{
	struct kv_frame *failed = kv->first;

	for (struct kv_frame *f = failed; f && !MUTANT(failed_stays_visible); f = f->next)
		for (size_t i = 0; i < f->touched_count; i++)
			overlay_pop(f->touched[i], kv->durable_serial);
	kv->first = kv->last = NULL;
	kv->pending_bytes = 0;
	/* Serials are not used again; what a checkpoint waits for, and was taken back, must not be
	 * waited for. */
	kv->serial++;
	kv->durable_serial = kv->serial;
	kv->counts.failed++;
	while (failed) {
		struct kv_frame *next = failed->next;

		waiters_tell(kv, failed, err);
		frame_free(failed);
		failed = next;
	}
}

/* Places are known now: into the records, and into the overlay's copy. */
static void frame_patch(struct kv_frame *f, struct log_place at)
{
	uint32_t segment = position_segment(at.position);
	uint64_t offset = position_offset(at.position) + FRAME_HEADER_SIZE + buf_len(&f->records);
	size_t next = 0;
	unsigned blob = 0;

	while (next < f->patch_count) {
		struct kv_patch *p = &f->patches[next];
		char *value = f->records.p + f->records.start + p->at;

		/* Patches come in the order of their blobs, but for several records of one blob. */
		if (p->blob < blob) {
			offset = position_offset(at.position) + FRAME_HEADER_SIZE +
				 buf_len(&f->records);
			blob = 0;
		}
		for (; blob < p->blob; blob++)
			offset += f->blobs[blob].size;
		put_le32(value, segment);
		put_le32(value + 4, u32_of(offset));
		memcpy(value + 8, p->more, p->more_n);
		memcpy(p->version->value, value, 8u + p->more_n);
		next++;
	}
}

static void frame_header_fill(struct kv *kv, struct kv_frame *f, char bytes[FRAME_HEADER_SIZE],
			      uint32_t *crc)
{
	str records = buf_str(&f->records);
	struct frame_header h = { .chain = kv->writer.place.chain,
				  .position = kv->writer.place.position,
				  .number = kv->writer.place.number + 1,
				  .durable = kv->writer.durable,
				  .records_size = u32_of(records.n),
				  .record_count = f->record_count,
				  .blobs_size = u32_of(f->blobs_size),
				  .time_us = os_wall_us(),
				  .store = get_le64(kv->identity.store) };

	os_random(h.iv, sizeof(h.iv));
	if (records.n)
		log_cipher_run(kv->cipher, h.iv, records, f->records.p + f->records.start);
	for (size_t i = 0; i < f->blob_count; i++)
		h.blobs_crc = crc32c(h.blobs_crc, str_of(f->blobs[i].p, f->blobs[i].size));
	frame_header_put(bytes, &h);
	*crc = crc32c(crc32c(0, str_of(bytes + 8, FRAME_HEADER_SIZE - 8)), records);
	put_le32(bytes + 4, *crc);
}

/* Another segment is opened at once: only its header says that what lies behind `end` never
 * happened, and after a restart of the process what the disk never got may still look good. */
static void segment_give_up(struct kv *kv, const struct log_place *end)
{
	if (MUTANT(segment_not_given_up))
		return;
	log_writer_abandon(&kv->writer, end);
	if (log_writer_room(&kv->writer, LOG_BLOCK, false) && kv->options.log)
		log_error(kv->options.log, "store-refuses-writes", "reason=no-segment");
}

static enum err frame_write(struct kv *kv, struct kv_frame *f)
{
	static const char zeros[LOG_BLOCK + LOG_AHEAD];
	char header[FRAME_HEADER_SIZE];
	struct iovec iov[KV_BLOBS_MAX + 3];
	uint64_t used = FRAME_HEADER_SIZE + buf_len(&f->records) + f->blobs_size;
	uint64_t size = (used + LOG_BLOCK - 1) / LOG_BLOCK * LOG_BLOCK;
	unsigned n = 0;
	uint32_t crc, ahead;
	enum err err = log_writer_room(&kv->writer, size, !f->has_ordinary);

	if (err)
		return err;
	f->begin = kv->writer.place;
	ahead = log_writer_ahead(&kv->writer, size);
	frame_patch(f, f->begin);
	frame_header_fill(kv, f, header, &crc);
	iov[n++] = (struct iovec){ header, sizeof(header) };
	iov[n++] = (struct iovec){ f->records.p + f->records.start, buf_len(&f->records) };
	for (size_t i = 0; i < f->blob_count; i++)
		iov[n++] = (struct iovec){ f->blobs[i].p, f->blobs[i].size };
	if (size + ahead > used)
		iov[n++] =
			(struct iovec){ (void *)(uintptr_t)zeros, (size_t)(size + ahead - used) };
	err = os_pwritev_all(kv->writer.fd, iov, n, position_offset(f->begin.position));
	if (err) {
		segment_give_up(kv, &f->begin);
		return err;
	}
	log_writer_wrote(&kv->writer, size, ahead);
	kv->writer.place.number++;
	kv->writer.place.chain = crc;
	kv->counts.frames++;
	kv->counts.bytes += size;
	return ERR_OK;
}

static void frame_done(struct kv *kv)
{
	struct kv_frame *f = frame_take(kv);

	kv->durable_serial = MAX(f->serial, kv->durable_serial);
	kv->writer.durable = kv->writer.place.position;
	kv->pending_bytes = kv->first
				    ? kv->pending_bytes - MIN(kv->pending_bytes,
							      buf_len(&f->records) + f->blobs_size)
				    : 0;
	waiters_tell(kv, f, ERR_OK);
	frame_free(f);
}

/* A disk's hiccup is felt for the next dozens of syncs. */
static void sync_count(struct kv *kv)
{
	int64_t ns = os_monotonic_ns() - kv->sync_begun;

	kv->sync_average += kv->sync_average ? (ns - kv->sync_average) / 8 : ns;
}

/* With a quick disk and few who wait, handing the sync to the helper and hearing from it costs more
 * than the sync holds up; what arrives meanwhile would wait for it in any case. Under load the
 * helper's sync overlaps with our work. */
static bool sync_is_quick(const struct kv *kv, const struct kv_frame *f)
{
	return kv->options.may_wait && kv->sync_average && kv->sync_average < KV_QUICK_SYNC_NS &&
	       f->waiter_count <= KV_QUICK_WAITERS;
}

/* What a sync says is told to all who waited for it. */
static void synced(struct kv *kv, enum err err)
{
	sync_count(kv);
	if (err && MUTANT(sync_error_gone))
		err = os_fdatasync(kv->writer.fd);
	if (!err || MUTANT(sync_error_ignored)) {
		frame_done(kv);
		return;
	}
	if (kv->options.log)
		log_error(kv->options.log, "store-sync-failed", "error=%s", err_name(err));
	segment_give_up(kv, &kv->first->begin);
	pending_fail(kv, ERR_TEMPORARY);
}

void kv_flush(struct kv *kv)
{
	enum err err;

	assert(!kv->is_open);
	kv_release(kv);
	while (!kv->is_syncing && kv->first) {
		struct kv_frame *f = kv->first;

		f->is_closed = true;
		if (f->record_count == 0) {
			/* Waiters alone, or a commit that was taken back. */
			frame_done(kv);
			continue;
		}
		err = frame_write(kv, f);
		if (err) {
			if (kv->options.log)
				log_error(kv->options.log, "store-write-failed", "error=%s",
					  err_name(err));
			if (err == ERR_FULL)
				kv->is_full = true;
			pending_fail(kv, err == ERR_FULL ? ERR_FULL : ERR_TEMPORARY);
			return;
		}
		kv->counts.syncs++;
		kv->sync_begun = os_monotonic_ns();
		if (sync_is_quick(kv, f)) {
			/* What was begun by those who were told is for the next turn: first others
			 * hear of what is durable now. */
			synced(kv, os_fdatasync(kv->writer.fd));
			return;
		}
		if (MUTANT(frame_not_synced)) {
			synced(kv, ERR_OK);
			continue;
		}
		if (MUTANT(answer_before_sync)) {
			waiters_tell(kv, f, ERR_OK);
			f->waiter_count = 0;
		}
		kv->is_syncing = true;
		os_sync_start(kv->syncer, kv->writer.fd);
	}
}

bool kv_wants_flush(const struct kv *kv)
{
	return kv->first && !kv->is_syncing;
}

int kv_sync_fd(const struct kv *kv)
{
	return os_syncer_fd(kv->syncer);
}

void kv_sync_ready(struct kv *kv)
{
	enum err err;

	if (!kv->is_syncing)
		return;
	err = os_sync_result(kv->syncer);
	if (err == ERR_AGAIN)
		return;
	kv->is_syncing = false;
	synced(kv, err);
}

void kv_pending_drop(struct kv *kv)
{
	if (kv->syncer)
		os_syncer_free(kv->syncer);
	kv->syncer = NULL;
	pending_fail(kv, ERR_CLOSED);
}
