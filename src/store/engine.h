/* The store: all mail, and the queue's records, on one log and one index (docs/STORAGE.md).
 *
 * It does no waiting of its own, unless may_wait allows it. An operation that changes something
 * returns ERR_OK when it was accepted, and calls its `done` once: with ERR_OK when it is durable,
 * or with the error that undid it (ERR_TEMPORARY: a sync failed; ERR_FULL; ERR_CLOSED: the store
 * was closed). When it returns an error, nothing happened and `done` is not called. `done` may be
 * called before the operation returns, when there is nothing to wait for; it may begin further
 * operations.
 *
 * Whoever owns the store calls store_flush when it has handed in what it has (once per turn of its
 * loop; in the next turn too while store_wants_turn, as large bodies are sealed a piece at a time),
 * and store_sync_ready when store_sync_fd or store_body_sync_fd is readable, and store_flush after
 * it. store_settle does it all until nothing is pending: for tests and tools.
 *
 *	err = store_append(s, account, quota, &in, on_done, me);    // pending
 *	store_flush(s);                                             // written, being synced
 *	... store_sync_ready(s) ...                                 // durable: on_done(me, ERR_OK,
 * &reply)
 *
 * Requests and replies are the messages of base/messages.def. Replies to reads are encoded into the
 * caller's buffer; slices in a reply last until the next call. Readers see durable state alone.
 *
 * Not thread-safe. One store object per directory: ERR_BUSY for a second one.
 */
#ifndef STORE_ENGINE_H
#define STORE_ENGINE_H

#include "base/log.h"
#include "base/msg.h"
#include "store/types.h"

struct store;

struct store_hooks {
	void *arg;
	/* Something durable changed in this mailbox; 0: in the list of mailboxes. */
	void (*changed)(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq);
	/* There are new records in the queue. */
	void (*queued)(void *arg);
	/* The last descriptor of a file that was removed, to be closed: that frees its blocks, and
	 * takes the disk's time. NULL: it is closed at once. */
	void (*removed)(void *arg, int fd);
	/* For the history of a message (base/trace.h): what became of it, when that is durable or
	 * sure. */
	void (*traced)(void *arg, uint64_t message, unsigned event, str sender, str recipient,
		       str text);
};

/* What may be changed while it runs. */
struct store_limits {
	unsigned percent; /* a segment of which no more is wanted is emptied; 0: when nothing is */
	uint64_t rate;	  /* bytes a second that compaction moves; 0: as fast as it goes */
	int64_t compress_us; /* bodies of this age are compressed; 0: never */
	int64_t keep_us;     /* expunged messages can be recovered for so long; 0: not at all */
};

struct store_options {
	int dir;	       /* the store's directory, stays the caller's */
	const char *path;      /* the same; LMDB opens files by name */
	const struct log *log; /* or NULL */
	struct store_hooks hooks;
	/* 0 means the default. */
	uint32_t segment_size;	   /* 64 MB */
	uint64_t min_free;	   /* 256 MB: with less free space only what frees space is taken */
	uint64_t checkpoint_bytes; /* 128 MB of log */
	uint64_t checkpoint_memory;  /* 64 MB of changes held in memory */
	unsigned checkpoint_seconds; /* 30 */
	bool may_wait; /* store_flush may wait in a short sync itself; `done` is then called from it
			*/
	unsigned txn_seconds; /* 900: a transaction's parts are forgotten after this time */
	struct store_limits limits;
};

/* Creates the store where there is none, and brings its index near the log's end (all of it, where
 * the index is missing). Takes as long as there is log to read; the checkpoint role does it. */
MUST_USE enum err store_prepare(const struct store_options *options);
/* After store_prepare. ERR_BUSY: in use; ERR_NOT_FOUND: not prepared; ERR_UNSUPPORTED: a later
 * version made it; ERR_DAMAGED. */
MUST_USE enum err store_open(const struct store_options *options, struct store **out);
void store_close(struct store *s);

/* A read found the index damaged: nothing is served from it any more (ERR_DAMAGED). Condemn it, end
 * the process, and begin anew: store_prepare rebuilds it from the log. */
bool store_index_is_damaged(const struct store *s);
void store_index_condemn(struct store *s);
/* Once it ran for a while. A store that was prepared four times without it has its index rebuilt.
 */
void store_steady(struct store *s);

void store_flush(struct store *s);
bool store_wants_turn(const struct store *s);
int store_sync_fd(const struct store *s);
int store_body_sync_fd(const struct store *s);
void store_sync_ready(struct store *s);
bool store_is_idle(const struct store *s); /* nothing waits to be durable */
/* Until everything is durable or failed. */
MUST_USE enum err store_settle(struct store *s);

/* Checkpoints: true when one is due (`force`: when there is anything to do); then bring the index
 * up to *position (index helper, role checkpoint) and say how it went. */
bool store_checkpoint_due(struct store *s, bool force, uint64_t *position);
bool store_checkpoint_is_behind(const struct store *s); /* something is not in the index */
void store_checkpoint_done(struct store *s, uint64_t position);
void store_checkpoint_failed(struct store *s);
/* The helper's side, without a store object: keeps the index open between runs. It never makes an
 * index, as the store would go on with the one before: ERR_NOT_FOUND, ERR_DAMAGED are for the store
 * to condemn it. */
struct store_index;
MUST_USE enum err store_index_open(const struct store_options *options, struct store_index **out);
void store_index_close(struct store_index *x);
/* Reads all of it, as long as that takes. ERR_DAMAGED. */
MUST_USE enum err store_index_check(struct store_index *x);
/* `position` UINT64_MAX: as far as is certain. */
MUST_USE enum err store_index_run(struct store_index *x, uint64_t position, uint64_t *covered,
				  uint64_t *records);
/* All of it at once, in this process: for tests and tools. An error from reopening the index
 * (ERR_DAMAGED, ERR_NOT_FOUND) leaves the store good for closing alone. */
MUST_USE enum err store_checkpoint(struct store *s);

/* Compaction (compact.c), in the background: these say what to ask the helper for, and take its
 * answers. Whoever asked and gets none says that it failed. */
bool store_compact_due(struct store *s, bool force, struct msg_cp_plan *ask);
/* False: nothing to do. */
bool store_compact_begin(struct store *s, const struct msg_cp_planned *plan);
/* False with *when_ns (monotonic): not before that. */
bool store_compact_step_due(struct store *s, struct msg_cp_step *ask, int64_t *when_ns);
void store_compact_items(struct store *s, const struct msg_cp_items *in, str blobs);
void store_compact_failed(struct store *s);
/* Everything moved: after a checkpoint segments are given back. */
bool store_compact_wants_checkpoint(struct store *s);
bool store_compact_is_idle(const struct store *s);
bool store_compact_has_gained(const struct store *s); /* it left fewer segments than it found */
bool store_compact_has_failed(const struct store *s); /* the last pass */
uint64_t store_compact_freed(const struct store *s);  /* segments, since the start */
/* The helper's side. */
MUST_USE enum err store_index_plan(struct store_index *x, const struct msg_cp_plan *in,
				   struct buf *list, struct msg_cp_planned *out);
MUST_USE enum err store_index_step(struct store_index *x, uint32_t bytes, struct buf *items,
				   struct buf *blobs, bool *more);
/* All of it at once, in this process, until nothing more can be freed; or one pass, forced or not.
 * For tests and tools. */
MUST_USE enum err store_compact(struct store *s);
MUST_USE enum err store_compact_once(struct store *s, bool force);
void store_set_limits(struct store *s, const struct store_limits *limits);

/* Accounts. Creates it, with its mailboxes, when it is not there; remembers address and quota
 * (bytes, 0: none). */
typedef void store_done(void *arg, enum err err, const struct msg_st_commit_reply *reply);
MUST_USE enum err store_bind(struct store *s, uint64_t account, str address, uint64_t quota,
			     store_done *done, void *arg);

/* How much an account stores and may (bytes; quota 0: no limit), durable. ERR_NOT_FOUND. */
MUST_USE enum err store_usage(struct store *s, uint64_t account, uint64_t *used, uint64_t *quota);
/* The same for every account. */
MUST_USE enum err store_usage_each(struct store *s,
				   void (*each)(void *arg, uint64_t account, uint64_t used,
						uint64_t quota),
				   void *arg);
/* A quota that was changed. ERR_NOT_FOUND. Deliveries and binds bring the quota with them. */
MUST_USE enum err store_set_quota(struct store *s, uint64_t account, uint64_t quota,
				  store_done *done, void *arg);

/* Changes of one account; `quota`: 0 none. ERR_NOT_FOUND (mailbox, target), ERR_EXISTS,
 * ERR_CONFLICT (UIDVALIDITY is not `expected`), ERR_DENIED, ERR_SYNTAX (name), ERR_QUOTA,
 * ERR_TOO_MANY (more than fits into a commit or its reply: ask for fewer at once), ERR_PROTOCOL. */
MUST_USE enum err store_commit(struct store *s, uint64_t account, const struct msg_st_commit *in,
			       store_done *done, void *arg);
MUST_USE enum err store_append(struct store *s, uint64_t account, const struct msg_st_append *in,
			       store_done *done, void *arg);

/* Expunged messages that are still kept (kept.c). `from`: the least stamp, microseconds since 1970.
 */
struct store_kept {
	uint64_t stamp; /* when it went */
	str mailbox;	/* where it was, as that was called */
	uint32_t uid;
	uint64_t size;
	int64_t received_us;
};
struct store_recovered {
	unsigned count;
	uint64_t next; /* the stamp to go on from; 0: that was all */
};
/* By the address of the last login or delivery. ERR_NOT_FOUND. */
MUST_USE enum err store_account_find(struct store *s, str address, uint64_t *account);
/* Until `each` returns false. */
MUST_USE enum err store_kept_each(struct store *s, uint64_t account, uint64_t from,
				  bool (*each)(void *arg, const struct store_kept *k), void *arg);
/* A few hundred of them into that mailbox, which is created when it is not there; *out holds once
 * `done` says so. ERR_NOT_FOUND: there are none; ERR_SYNTAX (name), ERR_FULL. */
MUST_USE enum err store_undelete(struct store *s, uint64_t account, uint64_t from, str mailbox,
				 struct store_recovered *out, store_done *done, void *arg);
/* Those that were kept for long enough go, some at a time. Call now and then. */
MUST_USE enum err store_kept_expire(struct store *s);

/* Reads. */
struct store_reply {
	struct buf a, b; /* what the reply's slices point into; make with store_reply_init, reuse */
};
void store_reply_init(struct store_reply *r);
void store_reply_free(struct store_reply *r);
MUST_USE enum err store_mailboxes(struct store *s, uint64_t account,
				  const struct msg_st_mailboxes *in, struct store_reply *r,
				  struct msg_st_mailboxes_reply *out);
MUST_USE enum err store_rows(struct store *s, uint64_t account, const struct msg_st_rows *in,
			     struct store_reply *r, struct msg_st_rows_reply *out);
/* A read-only descriptor, the caller's. */
MUST_USE enum err store_segment(struct store *s, uint32_t segment, uint64_t body, int *fd);

/* Transactions (ARCHITECTURE 2): three parts from three roles, in any order. `done` gets the reply,
 * once; NULL when it was cancelled. */
typedef void store_txn_done(void *arg, const struct msg_txn_reply *reply);
MUST_USE enum err store_txn_envelope(struct store *s, const struct msg_txn_envelope *in);
MUST_USE enum err store_txn_rcpts(struct store *s, const struct msg_txn_rcpts *in);
MUST_USE enum err store_txn_verdict(struct store *s, const struct msg_txn_verdict *in);
MUST_USE enum err store_txn_body(struct store *s, const struct msg_txn_body *in,
				 store_txn_done *done, void *arg);
/* What is being committed stays so, and is told. */
void store_txn_cancel(struct store *s, uint64_t txn);
/* All whose id that instance made: it is gone. */
void store_txn_cancel_instance(struct store *s, unsigned instance);
/* A filter died (or auth, whose part is the envelope): who waits for such a part is told to try
 * again at once. That a part of another filter may be given up with it costs one more attempt. */
void store_txn_part_lost(struct store *s, bool is_verdict);
/* Forgets parts that are too old. Call now and then. */
void store_txn_expire(struct store *s);

/* The queue. */
/* The scheduler is a new one: what the one before had leased is free again. */
void store_q_begin(struct store *s);
MUST_USE enum err store_q_lease(struct store *s, const struct msg_q_lease *in,
				struct store_reply *r, struct msg_q_records *out);
MUST_USE enum err store_q_scan(struct store *s, const struct msg_q_scan *in, struct store_reply *r,
			       struct msg_q_records *out);
/* ERR_NOT_FOUND, ERR_STALE. */
MUST_USE enum err store_q_outcome(struct store *s, const struct msg_q_outcome *in, store_done *done,
				  void *arg);
/* out->file is the caller's. */
MUST_USE enum err store_q_body(struct store *s, const struct msg_q_body *in, struct store_reply *r,
			       struct msg_q_body_reply *out);

/* Figures as JSON members. */
void store_status(struct store *s, struct buf *out);
/* Every durable key and value in order, as text: what a test compares after a rebuild. */
MUST_USE enum err store_dump(struct store *s, struct buf *out);

#endif
