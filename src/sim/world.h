/* The workload's side of the simulator: who sends and reads mail, and the ledger of what was
 * acknowledged.
 *
 * Clients and the remote host are processes of other machines. They share one `struct world`: what
 * each of them tried, what the server answered, what was seen. The ledger is the truth that every
 * look at the server is compared with; it survives power cuts, as people's memories do.
 *
 * Every message carries its name in a field (`X-Sim: s17`), and its bytes are a function of that
 * name (text.c): whoever finds a message knows what it must be to the byte, and how often it may be
 * there.
 *
 * Chance comes from `struct chance`, one for each client, made from the run's seed; nothing here
 * asks the clock or the system for randomness.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "base/buf.h"
#include "base/loop.h"
#include "queue/outcome.h"
#include "sim/chance.h"
#include "sim/model.h"

enum {
	WORLD_ACCOUNTS = 4,
	WORLD_RCPTS = 6,
	WORLD_TEAM = 3, /* the alias leads to accounts 0 to 2, and to WORLD_LIST */
	WORLD_DISTURBANCES = 4096,
	/* How long after an answer its effect may still be on its way, in simulated time. */
	WORLD_SETTLE_SECONDS = 5,
};

/* What becomes of one transaction (SMTP) as its client saw it. */
enum send_state {
	SEND_PLANNED, /* its last byte was never sent: it must never appear */
	SEND_WAITING, /* sent whole, no answer yet */
	SEND_UNKNOWN, /* the connection went before the answer */
	SEND_ACKED,
	SEND_DEFERRED, /* 4yz: nothing happened, unless a role died then (docs/SMTP.md) */
	SEND_REFUSED,  /* 5yz: nothing happened */
};

#define WORLD_ALIAS "all@example.test"
#define WORLD_LIST  "list@a.remote.example"

struct send_rcpt {
	bool is_local;
	unsigned account;		    /* local: whose INBOX */
	char address[64];		    /* as given at RCPT */
	enum send_state state;		    /* LMTP answers each; SMTP all alike */
	unsigned delivered;		    /* local: times that it came to the INBOX */
	unsigned accepted;		    /* remote: times that it took it */
	unsigned refused;		    /* remote: times that it answered 5yz */
	unsigned bounced;		    /* notices that name it */
	bool is_answered;		    /* our last acceptance was told whole */
	bool is_deleted;		    /* by the administrator, perhaps */
	bool is_queued;			    /* at the last look at the disk */
	bool asks;			    /* to be told of success */
	unsigned told;			    /* notices of success that name it */
	unsigned command;		    /* the RCPT that led to it first */
	int64_t deleted_at;		    /* and the administrator was told so; 0: not */
	int64_t accepted_from, accepted_at; /* the last time: the dot was read, it was taken */
};

struct send {
	uint64_t id;
	uint64_t again; /* the send that this one repeats, 0: none (RFC 1047) */
	char sender[64];
	unsigned size;
	unsigned n, commands; /* recipients; RCPTs that were taken */
	struct send_rcpt rcpts[WORLD_RCPTS];
	bool alias_asks; /* one RCPT was WORLD_ALIAS, and asked to be told */
	unsigned alias_told;
	bool is_deleted; /* as of a recipient: notices that are owed go too */
	bool is_seen;	 /* in the queue, by the administrator: it happened */
	enum send_state state;
	bool is_lmtp;
	unsigned kills;	     /* world's, when it began */
	bool is_definite;    /* deferred, and no role died meanwhile: nothing may have happened */
	int64_t answered_at; /* when its client had the answer */
};

/* A notice that was seen somewhere. */
struct notice {
	uint64_t token, send;
	enum queue_notice kind;
	char addresses[WORLD_RCPTS][64];
	unsigned n;
	bool is_counted;
};

enum disturbance_kind {
	DISTURB_CUT,
	DISTURB_KILL_OUT,
	DISTURB_KILL_OTHER,
	DISTURB_NETWORK,
	DISTURB_DISK, /* a failed sync, a full disk */
};

struct disturbance {
	enum disturbance_kind kind;
	int64_t at;
};

struct endpoints {
	struct addr smtp, lmtp, submission, imap, remote;
	char control[128];
};

struct world_counts {
	uint64_t operations, deliveries, logins, appends, flags, copies, moves, expunges, mailboxes,
		fetches, audits, rows, commands, relayed, notices, offline;
	/* The protocols' own windows, counted. */
	uint64_t resent;	/* RFC 1047: no answer was read, sent again, and both arrived */
	uint64_t relayed_twice; /* the remote host took it twice, in a stated window */
	uint64_t deferred_yet;	/* 4yz or NO, a role had died, and it was done all the same */
	uint64_t unknown, unknown_done;
	uint64_t told, expanded, untold; /* notices of success; those that a window took */
	uint64_t deleted;		 /* recipients, by the administrator */
	uint64_t queued;		 /* records of the queue that were compared */
	uint64_t compact_cuts;		 /* between the calls that give segments back */
	uint64_t repairs, repair_cuts;	 /* of fsck, on what was spoilt */
};

struct world {
	uint64_t seed;
	struct endpoints at;
	struct account_model accounts[WORLD_ACCOUNTS];
	struct send **sends; /* sends[id - 1] */
	size_t send_count, send_room;
	uint64_t append_count;
	struct notice *notices;
	size_t notice_count, notice_room;
	uint32_t *uidvalidities; /* all that were seen */
	size_t uidvalidity_count, uidvalidity_room;
	struct disturbance disturbances[WORLD_DISTURBANCES];
	size_t disturbance_count;
	unsigned boots, kills; /* power cuts; roles killed */
	bool is_full;	       /* the disk is, or was a moment ago */
	bool is_kind;	       /* the remote host and the clients make no trouble any more */
	bool is_over;	       /* clients end when they are done with what they do */
	unsigned audited;      /* accounts that were looked through since is_kind */
	unsigned users;	       /* accounts extra0 ... that were added, and that was acknowledged */
	bool user_is_unsure;   /* the next one had no answer */
	bool queue_is_empty;   /* as the admin client saw last */
	unsigned violations;
	char first_violation[400];
	struct world_counts counts;
	char pool[8192]; /* what lines are cut from */
	void (*trace)(void *arg, const char *line);
	void *trace_arg;
};

void world_init(struct world *w, uint64_t seed);
void world_free(struct world *w);

/* A promise was broken. */
void world_violation(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Nothing was disturbed for a while, and the disk has room: nothing may be refused. */
bool world_is_calm(const struct world *w, int64_t now);
/* For the trace. */
void world_note(struct world *w, const char *who, const char *fmt, ...) PRINTF_LIKE(3, 4);
void world_disturb(struct world *w, enum disturbance_kind kind, int64_t now);

struct send *world_send_new(struct world *w);
struct send *world_send(struct world *w, uint64_t id); /* NULL: never sent */
/* A message in an INBOX: may it be there? With `adopt`, it is counted. The reason, or NULL. */
const char *world_delivery(struct world *w, struct account_model *a, uint64_t token, bool adopt);
/* A notice as it was read; the same one again changes nothing. */
uint64_t world_notice(struct world *w, str message, uint64_t send, enum queue_notice kind,
		      const str *addresses, unsigned n);
/* It arrived at the sender. The reason why it must not, or NULL. */
const char *world_notice_arrived(struct world *w, uint64_t token, const char *at, bool adopt);
/* What its client was told, of one recipient. */
void world_answered(struct world *w, struct send *s, unsigned rcpt, enum send_state state,
		    int64_t now);
/* The remote host, which read its dot then, took it, and is about to say so. */
void world_relayed(struct world *w, struct send *s, str address, int64_t dot, int64_t now);
struct send_rcpt *world_rcpt(struct send *s, str address);
/* Whose address of *.remote.example that is; NULL: nobody wrote there. */
struct send *world_send_of(struct world *w, str address);
/* The queue as it lies on the disk: its beginning, each of its records, its end. What must be there
 * is, and what must not is not. */
void world_queue_begin(struct world *w);
void world_queue_record(struct world *w, str address);
void world_queue_end(struct world *w);
/* What was acknowledged `before` and has not come to this account's INBOX is lost. */
void world_check_owed(struct world *w, struct account_model *a, int64_t before);
/* At the end, when nothing is under way any more. */
void world_check_end(struct world *w);

MUST_USE bool world_uidvalidity_is_new(const struct world *w, uint32_t uidvalidity);
void world_uidvalidity_note(struct world *w, uint32_t uidvalidity);

/* text.c: the bytes of a message. */
void text_send(const struct world *w, struct buf *out, const struct send *s);
void text_append(const struct world *w, struct buf *out, uint64_t id);
void text_pool_fill(char *pool, size_t n);
/* What a message is, from its bytes: its token, checked to the byte; 0 and the reason when it is
 * not what it says. */
uint64_t text_token(struct world *w, str message, const char **why);

/* The clients. Each is the main function of a process; arg: struct client. */
struct client {
	struct world *world;
	unsigned number;
	char name[24];
	struct chance chance;
	struct loop *loop;
	void (*run)(struct client *c);
};
int client_main(void *arg);
void client_wait(struct client *c, unsigned ms);
/* The same; false when the run is over. */
bool client_sleep(struct client *c, unsigned ms);
struct conn;
/* NULL: it could not, after a little while. */
struct conn *client_connect(struct client *c, const struct addr *to);

void client_smtp_run(struct client *c);
void client_imap_run(struct client *c);
void client_watch_run(struct client *c);
void client_admin_run(struct client *c);
void client_remote_run(struct client *c);

#endif
