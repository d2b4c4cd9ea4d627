/* What the connections of one account share in its process: the list of mailboxes, the keywords,
 * the views, the way to the store.
 *
 * Everything here is a copy of what the store said last. Hints (st_changed) make copies stale;
 * whoever needs one asks again then, in a fiber. So a NOOP, a STATUS or a SELECT of something
 * unchanged costs no message at all. Pointers into the account (mailboxes, keywords) hold until the
 * next call that waits.
 */
#ifndef IMAP_ACCOUNT_H
#define IMAP_ACCOUNT_H

#include "base/chan.h"
#include "base/log.h"
#include "imap/view.h"
#include "store/body.h"
#include "store/types.h"

enum {
	IMAP_STORE_SECONDS = 60,	       /* an answer of the store takes no longer */
	IMAP_SEGMENTS_MAX = 64,		       /* descriptors of segments kept open */
	IMAP_LOCATED_BYTES = 32 * 1024 * 1024, /* prefixes and subjects kept for one mailbox */
	IMAP_RECENT_SECONDS = 1,      /* until it is stored that messages are not recent any more */
	IMAP_BODY_KEPT = 1024 * 1024, /* a larger message is not kept between commands */
};

struct imap_config {
	uint64_t message_size_limit; /* bytes */
	int64_t idle_ns;
};

struct imap_mailbox {
	struct rec_mailbox record; /* its name lives in the account */
	uint64_t as_of;		   /* counters are of this MODSEQ of the account */
	uint64_t hint;		   /* something newer is known to exist */
};

struct imap_segment {
	uint32_t number;
	uint64_t body; /* with number 0: whose file it is */
	int fd;
	uint64_t used; /* a counter: the least is closed first */
};

struct imap_account {
	struct loop *loop;
	struct chan *store;
	bool store_is_gone; /* for good: nothing waits for an answer any more */
	const struct log *log;
	struct imap_config config;
	uint64_t id;
	void (*on_change)(void *arg,
			  struct imap_view *v); /* a hint for a view that somebody watches */
	void *arg;

	struct imap_mailbox *mailboxes; /* by id */
	size_t mailbox_count;
	char *names; /* their names, in one piece */
	bool list_is_known, list_is_loading;
	uint64_t list_changes,
		list_as_of; /* hints that the list changed, and how many it has seen */
	struct waiters list_loaded;

	str keywords[KEYWORD_LIMIT]; /* by number; empty: not used. Each malloc'd. */
	uint32_t keyword_count;
	uint32_t keyword_changes;

	struct imap_view *views;
	struct timer recent_timer;
	struct body_cipher *cipher;
	struct imap_segment segments[IMAP_SEGMENTS_MAX];
	uint64_t segment_uses;
	struct imap_message *last; /* the last message that was read whole */
};

MUST_USE enum err imap_account_new(struct loop *l, struct chan *store, const struct log *log,
				   uint64_t id, const struct imap_config *config,
				   struct imap_account **out);
void imap_account_free(struct imap_account *a);

/* A message on the store's channel that is no reply: st_changed. */
void imap_account_message(struct imap_account *a, struct msg *m);

/* The list of mailboxes, as the store has it now. */
MUST_USE enum err imap_account_list(struct imap_account *a);
void imap_account_list_changed(struct imap_account *a);
/* ERR_NOT_FOUND; after imap_account_list. Mailboxes that are gone are not found. */
MUST_USE enum err imap_account_mailbox(struct imap_account *a, str name, struct imap_mailbox **out);
struct imap_mailbox *imap_account_mailbox_by_id(struct imap_account *a, uint32_t id);
/* The counters of one mailbox, brought up to date. */
MUST_USE enum err imap_account_counters(struct imap_account *a, uint32_t id);

/* The view of a mailbox, brought up to date. */
MUST_USE enum err imap_account_view(struct imap_account *a, uint32_t mailbox,
				    struct imap_view **out);
MUST_USE enum err imap_account_refresh(struct imap_account *a, struct imap_view *v);
/* What was expunged after `since` with a UID below `below`, for connections that were parked;
 * resolved, in the arena. */
MUST_USE enum err imap_account_gone(struct imap_account *a, const struct imap_view *v,
				    uint64_t since, uint32_t below, struct arena *kept,
				    struct imap_set *out);
/* No message of this mailbox is recent any more. Nobody waits for it: it is not worth a sync, nor a
 * message to the store for each mail, so it is stored a little later. */
void imap_account_seen_recent(struct imap_account *a, struct imap_view *v);
/* We changed this mailbox ourselves: copies of it are stale from `modseq` on. */
void imap_account_touched(struct imap_account *a, uint32_t mailbox, uint64_t modseq);
/* The same, when the caller knows what this commit changed: true when there is a view exactly one
 * change behind, which counts as up to date from here on; the caller applies the change. */
bool imap_account_follows(struct imap_account *a, uint32_t mailbox,
			  const struct msg_st_commit_reply *reply, struct imap_view **out);

/* A keyword's number in the account's table; with `create`, it gets one. ERR_NOT_FOUND,
 * ERR_TOO_MANY. */
MUST_USE enum err imap_account_keyword(struct imap_account *a, str name, bool create,
				       unsigned *number);
/* "\Seen \Answered work": everything that is set, space between. */
void imap_account_write_flags(const struct imap_account *a, const uint64_t flags[2], bool is_recent,
			      struct buf *out);

int64_t imap_account_deadline(const struct imap_account *a);

#endif
