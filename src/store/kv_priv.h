/* The engine below the mailboxes: keyed records, committed in groups.
 *
 * A commit is kv_begin, any number of kv_put, kv_delete, kv_blob, and kv_end; one at a time,
 * without waiting in between. What fails in between is remembered, and kv_end takes everything back
 * and says so. When kv_end returns ERR_OK, `done` will be called once: ERR_OK when the commit is
 * durable, or an error when it did not happen.
 *
 * Reads say which state they mean: KV_DURABLE, for everybody who is told something; KV_PENDING, to
 * compute the next change. Slices live until kv_release, or the next kv_begin or kv_end.
 */
#ifndef STORE_KV_PRIV_H
#define STORE_KV_PRIV_H

#include "store/index_priv.h"
#include "store/overlay.h"
#include "store/pack.h"

enum {
	KV_BLOBS_MAX = 480, /* in a frame: what one pwritev takes */
	KV_MORE_MAX = 8,
	KV_PENDING_MAX = 256 * 1024 * 1024, /* bytes in frames that are not durable */
	KV_QUICK_SYNC_NS = 1000 * 1000,
	KV_QUICK_WAITERS = 8,
	KV_LATENCIES = 32,		     /* powers of two, microseconds */
	KV_OVERLAY_MAX = 1024 * 1024 * 1024, /* a hard end; checkpoints begin long before */
};

enum kv_state { KV_DURABLE, KV_PENDING };

typedef void kv_done(void *arg, enum err err);

struct kv_options {
	int dir;
	const char *path; /* of the same directory; LMDB opens by path */
	const struct log *log;
	uint32_t segment_size;
	uint64_t min_free; /* bytes of the file system below which only what frees space is taken */
	uint64_t checkpoint_bytes;  /* of log */
	uint64_t checkpoint_memory; /* of overlay */
	int64_t checkpoint_ns;
	bool may_wait; /* see store_options */
};

struct kv_waiter {
	kv_done *done;
	void *arg;
	int64_t since;
};

struct kv_blob {
	char *p;
	uint32_t size;
};

/* A place to be filled in: the first 8 bytes of a value, and what of it changes with the place. */
struct kv_patch {
	size_t at; /* in the frame's records */
	struct version *version;
	unsigned blob;
	uint8_t more_n;
	char more[KV_MORE_MAX]; /* the bytes behind the place */
};

struct kv_frame {
	struct kv_frame *next;
	struct buf records;
	uint32_t record_count;
	uint64_t blobs_size;
	struct kv_blob *blobs;
	struct kv_patch *patches;
	struct entry **touched;
	struct kv_waiter *waiters;
	size_t blob_count, blob_room, patch_count, patch_room, touched_count, touched_room,
		waiter_count, waiter_room;
	uint64_t serial;	/* of the last commit in it */
	bool is_closed;		/* takes no more commits */
	bool has_ordinary;	/* commits that must not use the reserve */
	struct log_place begin; /* where the log ended before it was written */
};

struct kv_counts {
	uint64_t commits, failed, frames, syncs, bytes, segments, checkpoints;
	uint64_t latency[KV_LATENCIES];
};

struct kv {
	struct kv_options options;
	struct identity identity;
	int lock_fd;
	struct log_cipher *cipher;
	struct log_writer writer;
	struct index_reader *index;
	struct overlay *young, *old; /* old: what a checkpoint is being made of */
	uint64_t serial, durable_serial, frozen_serial;
	struct kv_frame *first, *last; /* the first is the one being synced, if is_syncing */
	bool is_syncing, is_full, knows_space;
	struct os_syncer *syncer;
	int64_t sync_begun, sync_average; /* nanoseconds; 0: no sync yet */
	uint64_t pending_bytes;
	uint64_t covered;			 /* position */
	uint64_t checked_space_at, frozen_bytes; /* counts.bytes at that time */
	int64_t changed_since; /* of the oldest change that no checkpoint covers; 0: none */
	bool is_checkpointing;
	struct kv_counts counts;
	/* The commit in progress. */
	bool is_open;
	enum err failed;
	size_t mark_records, mark_touched, mark_patches, mark_blobs;
	uint32_t mark_count;
	uint64_t mark_blobs_size;
	struct buf scratch;
};

/* Opens a store whose index exists (kv_index_prepare), recovering what the index does not cover.
 * ERR_BUSY: in use. */
MUST_USE enum err kv_open(const struct kv_options *options, struct kv **out);
/* Without waiting for what is pending: like a crash, whoever waits is told ERR_CLOSED. */
void kv_close(struct kv *kv);

/* What a store would serve, for reading alone, and without writing anything: that index, which is
 * the view's then, and what the log says behind it, up to `limit`. */
MUST_USE enum err kv_view_open(int dir, const struct identity *id, struct index_reader *index,
			       uint64_t limit, struct kv **out);

/* Makes the store's files where there are none, and brings the index near the end of the log. */
MUST_USE enum err kv_prepare(const struct kv_options *options);
/* The next kv_prepare rebuilds the index. */
void kv_condemn_index(int dir, const struct log *log);
/* The index was read and is right: what spoke against it is forgotten. */
MUST_USE enum err kv_trust_index(int dir);
/* It runs: starting it was no mistake. Without this, the index is rebuilt at the fourth start. */
void kv_steady(struct kv *kv);
/* The store's identity; a copy that is missing or damaged is made again, all copies where there is
 * no segment (identity.c). ERR_DAMAGED: none is left. */
MUST_USE enum err kv_identity_prepare(int dir, const char *path, const struct log *log,
				      struct identity *out);
MUST_USE enum err kv_identity(int dir, struct identity *out);
/* The state of each copy (identity, log/identity, and the one in the index, which the caller hands
 * in), and which is right. ERR_CONFLICT: good, but another store's. ERR_NOT_FOUND: there is no
 * store; ERR_DAMAGED: none is left. Changes nothing. */
enum { IDENTITY_COPIES = 3 };
MUST_USE enum err kv_identity_survey(int dir, str from_index, enum err states[IDENTITY_COPIES],
				     struct identity *out);
/* Both files, from that one. */
MUST_USE enum err kv_identity_restore(int dir, const struct identity *id);

/* `frees_space`: may use the reserve. ERR_FULL, ERR_BUSY, ERR_IO. */
MUST_USE enum err kv_begin(struct kv *kv, bool frees_space);
void kv_put(struct kv *kv, const struct key *key, str value);
/* The value's first 8 bytes become the place of that blob. */
void kv_put_placed(struct kv *kv, const struct key *key, str value, unsigned blob);
/* The same for what is there and moves: until the frame is laid out, the value says where it lies
 * now, and a later change in between goes on from that. `more`: what then stands behind the place.
 */
void kv_put_moved(struct kv *kv, const struct key *key, str value, unsigned blob, str more);
/* The durable version of this key is newer than the index. */
bool kv_is_changed(struct kv *kv, const struct key *key);
void kv_delete(struct kv *kv, const struct key *key);
/* Takes over memory from malloc. The number of the blob in this commit. */
unsigned kv_blob(struct kv *kv, char *p, uint32_t size);
void kv_fail(struct kv *kv, enum err err);
MUST_USE enum err kv_end(struct kv *kv, kv_done *done, void *arg);
/* Instead of kv_end: nothing happened. */
void kv_cancel(struct kv *kv);
/* The commit in progress has written something, or failed. */
bool kv_has_changes(const struct kv *kv);
/* `done` when everything committed so far is durable. False: it is already. */
MUST_USE bool kv_wait(struct kv *kv, kv_done *done, void *arg);

MUST_USE enum err kv_get(struct kv *kv, enum kv_state state, const struct key *key, str *value);
/* What is pending for a key, if anything that is not durable is. */
bool kv_newer(struct kv *kv, const struct key *key, str *value, bool *is_deleted);
void kv_release(struct kv *kv);

struct kv_cursor {
	struct kv *kv;
	struct entry *young, *old;
	struct index_cursor *index;
	uint64_t limit;
	str prefix;
	bool overlay_only;
	char prefix_bytes[KEY_MAX];
};
/* Keys that begin with `prefix`, from `from` on. */
MUST_USE enum err kv_cursor_open(struct kv *kv, enum kv_state state, str prefix, str from,
				 bool overlay_only, struct kv_cursor *c);
/* ERR_EOF at the end. With overlay_only, a deleted key comes with an empty value. */
MUST_USE enum err kv_cursor_next(struct kv_cursor *c, str *key, str *value);
void kv_cursor_close(struct kv_cursor *c);

/* Writes the next frame if none is being synced. */
void kv_flush(struct kv *kv);
/* For kv_close. */
void kv_pending_drop(struct kv *kv);
/* Something is gathered, and nothing is on its way to the disk. */
bool kv_wants_flush(const struct kv *kv);
int kv_sync_fd(const struct kv *kv);
/* When kv_sync_fd is readable. What gathered meanwhile is for the next kv_flush. */
void kv_sync_ready(struct kv *kv);
bool kv_is_idle(const struct kv *kv); /* nothing is pending */

/* A checkpoint is due and may begin: *position is what to bring the index up to. */
bool kv_checkpoint_due(struct kv *kv, int64_t now, bool force, uint64_t *position);
void kv_checkpoint_done(struct kv *kv, uint64_t position);
void kv_checkpoint_failed(struct kv *kv);

#endif
