/* Inside the store: what its files share. */
#ifndef STORE_STORE_PRIV_H
#define STORE_STORE_PRIV_H

#include "store/body.h"
#include "store/engine.h"
#include "store/kv_priv.h"
#include "store/records_priv.h"

enum {
	LARGE_BODY_MIN = 1024 * 1024,  /* bodies from here on lie in files of their own */
	BODY_AT_ONCE_MAX = 256 * 1024, /* larger ones are sealed a chunk at a time */
	BODY_SIZE_MAX = 1024 * 1024 * 1024,
	SEGMENT_FDS = 32,
	INBOX_ID = 1,
	RANGES_MAX = 2000, /* uid ranges in a reply: 16 KB */
	LEASES_MAX = 65536,
	TXNS_MAX = 4096,
	REPLY_ROWS_MAX = 56 * 1024,
	RECENT_SLOTS = 4096, /* mailboxes whose latest changes are known by UID; 1 KB each, while
				asked for */
	RECENT_UIDS_MAX = 64,
};

struct segment_fd {
	uint32_t segment;
	int fd;
};

struct lease {
	struct lease *next; /* in its slot */
	uint64_t id, token;
	int64_t until_us;
	bool is_settling; /* its outcome is pending */
};
enum { LEASE_SLOTS = 4096 };

struct txn;

struct compact_victim {
	uint32_t number;
	bool ends_older; /* its deletions are carried over */
};

struct compaction {
	enum {
		COMPACT_IDLE,
		COMPACT_ASKED, /* for a plan */
		COMPACT_STEPPING,
		COMPACT_STEP_ASKED,
		COMPACT_STEP_PENDING,
		COMPACT_CHECKPOINT, /* all is durable up to `position` */
	} state;
	struct compact_victim *segments;
	size_t count;
	uint64_t position, failures, step_bytes;
	int64_t next_plan, next_step; /* monotonic, nanoseconds */
	bool is_forced, has_more, is_failed, has_gained;
	size_t filled; /* segments, when the pass began */
	struct buf value;
	uint64_t wanted, wasted, moved, saved, freed;
};

struct store {
	struct store_options options;
	struct kv *kv;
	struct body_cipher *bodies;
	struct hasher *hasher;
	struct body_jobs *jobs;
	struct segment_fd fds[SEGMENT_FDS];
	unsigned fd_next;
	struct buf value; /* a value under construction */
	struct buf cold, scratch;
	struct lease *leases[LEASE_SLOTS];
	size_t lease_count;
	struct txn **txns; /* slots */
	size_t txn_count;
	uint64_t txn_bytes;
	int64_t parts_lost[2]; /* auth [0], a filter [1] died: until then some may have begun whose
				  part went with it; 0: no */
	uint64_t body_floor;   /* ids below were given, if only to commits that failed: their files
				  may be there */
	uint64_t freed_segments;
	struct compaction compact;
	uint64_t kept_stamp; /* the last one given */
	int64_t kept_next;   /* when to look for what is too old; monotonic, nanoseconds */
	uint64_t expired;    /* kept messages that went, since the start */
	struct recent *recent[RECENT_SLOTS];
};

/* What a change tells when it is durable. */
struct hint {
	uint64_t account, modseq;
	uint32_t mailbox;
};

struct pending {
	struct store *store;
	store_done *done;
	void *arg;
	struct msg_st_commit_reply reply;
	struct buf from, to;
	struct hint *hints;
	size_t hint_count, hint_room;
	uint64_t *dropped; /* bodies whose files go when this is durable */
	size_t dropped_count, dropped_room;
	uint64_t made; /* a body in a file: that goes when this is given up; 0: none */
	bool wakes_queue;
	/* For what is not a commit of an account. */
	void (*finish)(struct pending *p, enum err err);
	void *finish_arg;
	uint64_t finish_id;
};

MUST_USE struct pending *pending_new(struct store *s, store_done *done, void *arg);
void pending_free(struct pending *p);
void pending_hint(struct pending *p, uint64_t account, uint32_t mailbox, uint64_t modseq);
void pending_drop_body(struct pending *p, uint64_t body);
/* Ends the commit in progress. Frees p on error. */
MUST_USE enum err pending_end(struct pending *p);
/* Appends one uid to a list of rec_uid_range that is being built: see uid_list. */
struct uid_list {
	struct buf *out;
	uint32_t first, last;
	unsigned count;
};
void uid_list_add(struct uid_list *l, uint32_t uid);
MUST_USE enum err uid_list_end(struct uid_list *l);

/* A change of one account: its record is read at the beginning and written at the end. */
struct change {
	struct store *store;
	struct pending *pending;
	uint64_t id;
	struct account account;
	uint64_t modseq; /* of this commit */
	uint32_t kept;	 /* expunged messages in it that are kept */
	bool is_new;
	char address[512];
};
/* Inside kv_begin. ERR_NOT_FOUND: no such account (unless `create`). */
MUST_USE enum err change_begin(struct store *s, struct pending *p, uint64_t account, bool create,
			       struct change *c);
void change_end(struct change *c);

/* counters */
uint64_t next_body(struct store *s);
/* The same in two steps: an id before the commit that gives it away, and in that commit. */
uint64_t body_reserve(struct store *s);
void body_reserved_given(struct store *s, uint64_t id);
uint64_t body_ids_end(struct store *s); /* above all that were given durably; 0: unknown */
uint64_t next_queue(struct store *s);
uint32_t next_uidvalidity(struct store *s);

/* mailboxes */
MUST_USE enum err mailbox_load(struct store *s, enum kv_state state, uint64_t account, uint32_t id,
			       struct mailbox *m);
void mailbox_save(struct change *c, const struct mailbox *m);
void mailbox_new(struct change *c, str name, enum mailbox_special special, bool is_subscribed,
		 struct mailbox *m);
void account_mailboxes_create(struct change *c);
/* The mailbox of that name; made when there is none. */
MUST_USE enum err mailbox_obtain(struct change *c, str name, struct mailbox *m);
MUST_USE enum err mailbox_operation(struct change *c, const struct msg_st_commit *in);

/* messages */
MUST_USE enum err message_operation(struct change *c, const struct msg_st_commit *in,
				    uint64_t quota);
/* All rows of a mailbox, into another (0: away). */
MUST_USE enum err messages_move_all(struct change *c, uint32_t from, struct mailbox *to);
void row_save(struct change *c, uint32_t mailbox, const struct row *r);
/* Adds a row for a body: the UID, ids and counters. */
struct new_row {
	uint64_t body, size; /* size: of the body */
	const uint8_t *key;
	struct msg_flags flags;
	int64_t received_us;
	int32_t zone;
	str cold; /* the encoded rec_row_cold, empty for none */
	uint64_t prefix_size;
};
MUST_USE enum err message_add(struct change *c, struct mailbox *m, const struct new_row *n,
			      struct row *out);
/* A row again, in another mailbox: with a new UID there. */
void row_copy(struct change *c, struct mailbox *to, struct row *r);
/* Whether what is expunged now can be recovered; and keeps one message, whose reference to the body
 * goes with it. */
bool messages_are_kept(const struct change *c);
MUST_USE enum err message_keep(struct change *c, const struct mailbox *m, const struct row *r);
MUST_USE enum err body_refer(struct store *s, struct pending *p, uint64_t body, int64_t by);
void flags_count(struct mailbox *m, struct msg_flags flags, int by);

/* the latest changes */
void recent_note(struct store *s, uint64_t account, uint32_t mailbox, uint64_t modseq,
		 uint32_t uid);
/* The UIDs, ascending, among which are all rows that changed after `since`. False: not known, look
 * at all of them. */
bool recent_uids(struct store *s, uint64_t account, uint32_t mailbox, uint64_t since,
		 uint32_t uids[RECENT_UIDS_MAX], unsigned *count);
void recent_free(struct store *s);

/* bodies on the way in */
struct sealed {
	char *blob;		     /* NULL: in a file */
	uint64_t size, stored, file; /* file: the body's id */
	uint8_t key[BODY_KEY_SIZE];
	uint8_t hash[32];
};
struct hasher *hasher_new(void);
void hasher_free(struct hasher *h);
struct body_source {
	str inline_body; /* or: */
	int fd;
	uint64_t size;
};
/* At once, for those that are not large. */
bool body_is_large(const struct store *s, uint64_t size);
MUST_USE enum err body_take(struct store *s, const struct body_source *from, bool hash,
			    struct sealed *out);
void sealed_drop(struct store *s, struct sealed *b);
/* A chunk at a time: ERR_AGAIN while there are more. `from` and `hasher` (NULL: not hashed) must
 * last; the file, where it becomes one, is not synced. */
struct sealing {
	struct body_source from;
	struct hasher *hasher;
	char *plain, *sealed; /* a chunk */
	uint64_t next;	      /* number of a chunk */
	int to;		      /* the file, or -1 */
};
MUST_USE enum err sealing_begin(struct store *s, const struct body_source *from,
				struct hasher *hasher, struct sealed *b, struct sealing *x);
MUST_USE enum err sealing_step(struct store *s, struct sealing *x, struct sealed *b);
void sealing_end(struct sealing *x);
/* The same for large ones, between other work; synced, and under its name. `done` is called once,
 * from body_jobs_step, body_jobs_sync_ready or (ERR_CLOSED) body_jobs_free; it may take over what
 * is in *b by clearing it. */
struct body_job;
typedef void body_taken(void *arg, enum err err, struct sealed *b);
MUST_USE enum err body_job_start(struct store *s, const struct body_source *from, bool hash,
				 body_taken *done, void *arg, struct body_job **out);
void body_job_cancel(struct body_job *job); /* `done` is not called any more */
struct body_jobs;
MUST_USE enum err body_jobs_new(struct body_jobs **out);
void body_jobs_free(struct store *s, struct body_jobs *j);
bool body_jobs_are_idle(const struct body_jobs *j);
bool body_jobs_want_turn(const struct body_jobs *j); /* body_jobs_step has something to do */
void body_jobs_step(struct store *s);
int body_jobs_fd(const struct body_jobs *j);
void body_jobs_sync_ready(struct store *s);
/* In a commit: gives it an id and writes its record. What `b` held is the commit's afterwards. */
void body_commit(struct store *s, struct pending *p, struct sealed *b, uint64_t references,
		 uint64_t *id);
void body_file_name(char name[40], uint64_t body);
/* Until its commit is durable the file has a second name: it is removed at the next start, unless a
 * record refers to it. */
void body_file_marker(char name[40], uint64_t body);
/* What a crash left in body/: files that no commit ever referred to. */
void body_files_sweep(struct store *s);

/* cold rows and segments */
MUST_USE enum err cold_seal(struct store *s, str plain, char **blob, uint32_t *size);
MUST_USE enum err cold_read(struct store *s, const struct row *r,
			    char *out); /* cold_size - COLD_HEADER_SIZE bytes */
void segment_fds_close(struct store *s);
MUST_USE enum err location_put(struct store *s, struct buf *out, uint64_t body,
			       const uint8_t key[BODY_KEY_SIZE]);

/* Segments in which nothing is alive, from the oldest on; after a checkpoint. */
void segments_recycle(struct store *s);
void segment_fd_forget(struct store *s, uint32_t segment);
/* Around the removal of a file, so that its blocks are freed by whoever has the time. */
int removal_begin(struct store *s, const char *name);
void removal_end(struct store *s, int fd);
void compact_free(struct store *s);

/* queue and transactions */
/* With the state that it has. */
MUST_USE enum err queue_add(struct store *s, struct queue_item *q);
/* Ends a record in the commit in progress. ERR_STALE, ERR_NOT_FOUND. */
MUST_USE enum err queue_end(struct store *s, struct pending *p, uint64_t id, uint64_t token);
void leases_free(struct store *s);
void lease_drop(struct store *s, uint64_t id);
void txns_free(struct store *s);

#endif
