/* Inside the role store: the engine, and who may ask it for what. */
#ifndef ROLES_STORE_PRIV_H
#define ROLES_STORE_PRIV_H

#include "roles/role.h"
#include "store/engine.h"

enum {
	BINDS_MAX = 4096,	/* tickets not yet used */
	BIND_SECONDS = 120,	/* and for how long */
	HINTS_PER_SESSION = 64, /* mailboxes; beyond, the client is told to look at all */
	ACCOUNT_SLOTS = 4096,
};

struct bind {
	uint8_t ticket[16];
	uint64_t account;
	int64_t until; /* loop time */
	struct bind *next;
};

/* A channel that belongs to one account; or a peer role, for which account is 0. What waits for a
 * commit holds it. */
struct client {
	struct store_role *role;
	struct chan *chan; /* NULL: gone */
	uint64_t account;
	unsigned waiting;    /* commits whose answer it expects */
	struct client *next; /* of the account */
	struct client *next_dirty, *next_late;
	bool is_dirty, is_late; /* has something to be told now; at the next tick */
	unsigned hint_count;
	struct {
		uint32_t mailbox;
		bool is_own; /* the session's own change: its reply said so already */
		uint64_t modseq;
	} hints[HINTS_PER_SESSION];
};

struct full_account;

struct watched_account {
	uint64_t id, modseq;
	struct client *clients;
	bool wakes; /* the zygote wants to know */
	bool is_dirty;
	struct watched_account *next, *next_dirty;
};

struct store_role {
	struct role *role;
	struct store *store;
	int dir;
	char path[OS_FD_PATH_SIZE]; /* the same */
	struct task flush, tell;
	struct watch sync, body_sync;
	struct timer tick;
	struct store_reply reply;
	struct bind *binds;
	unsigned bind_count;
	struct watched_account *accounts[ACCOUNT_SLOTS];
	struct client *dirty, *late;
	struct watched_account *dirty_accounts;
	struct full_account *full[ACCOUNT_SLOTS]; /* at or over their quota */
	bool full_untold;			  /* auth was busy */
	bool queue_is_dirty, checkpoint_runs, is_steady;
	int64_t started, checkpoint_after; /* loop time; a checkpoint that failed is not tried again
					      before */
	unsigned sessions;
	bool is_stopping, is_condemned; /* condemned: the index is damaged */
	/* Compaction (store_compact.c). */
	struct timer compact_timer;
	bool compact_asks;			    /* the helper */
	bool compact_forced;			    /* by the administrator: */
	bool compact_checkpointed, compact_planned; /* the index is up to date; a pass was begun */
	struct compact_command *compact_commands;
	struct buf blobs;
};

/* posthorn compact, waiting for its answer. */
struct compact_command {
	struct compact_command *next;
	struct waiting *waiting;
	uint64_t freed; /* before it */
	int64_t until;
};

/* A commit under way, and who asked. */
struct waiting {
	struct client *client;
	struct chan *chan; /* the client's when it asked */
	uint32_t id;
	bool says_done;	    /* answered by `done`, not st_commit_reply */
	bool is_own_change; /* of messages: the session takes it from the reply */
};

struct waiting *waiting_new(struct client *c, uint32_t id, bool says_done);
void waiting_free(struct waiting *w);
/* store_done */
void waiting_done(void *arg, enum err err, const struct msg_st_commit_reply *reply);
/* After something was handed in: it is written at the end of this turn. */
void store_role_flush(struct store_role *s);
/* After anything was read: a damaged index ends the process, whose successor rebuilds it. */
void store_role_index_look(struct store_role *s);
void store_role_refuse(struct store_role *s, struct chan *c, uint32_t id, enum err err);

/* Compaction: whatever is to be done next; at each tick, and after a sync. */
void store_role_compact(struct store_role *s);
bool store_role_forces_checkpoint(struct store_role *s);
void store_role_checkpointed(struct store_role *s);
void store_role_compact_command(struct store_role *s, struct client *from, const struct msg *m);
void store_role_compact_tell(struct store_role *s);
void store_role_compact_free(struct store_role *s);
void store_role_undelete(struct store_role *s, struct client *from, const struct msg *m);

/* Quota. */
MUST_USE enum err store_role_quota_start(struct store_role *s);
void store_role_quota_tell_all(struct store_role *s);
/* Something durable changed in this account. */
void store_role_quota_changed(struct store_role *s, uint64_t account);
void store_role_quota_usage(struct store_role *s, struct chan *from, const struct msg *m);
void store_role_quota_set(struct store_role *s, struct client *auth, const struct msg *m);
void store_role_quota_free(struct store_role *s);

/* Sessions. */
void store_role_bind(struct store_role *s, struct client *auth, struct msg *m);
void store_role_attach(struct store_role *s, struct chan *from, struct msg *m);
void store_role_wake(struct store_role *s, const struct msg_session_wake *m);
void store_role_changed(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq);
void store_role_queued(void *arg);
void store_role_tell(void *arg);
/* At each tick: everything that was kept back. */
void store_role_tell_all(struct store_role *s);
/* What this commit changed, the client learns from its reply. */
void store_role_own_change(struct client *c, uint64_t modseq);
void store_role_binds_expire(struct store_role *s);
void store_role_sessions_free(struct store_role *s);

#endif
