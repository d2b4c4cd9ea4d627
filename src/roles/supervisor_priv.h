/* Inside the supervisor: supervisor.c (life of the server), supervisor_roles.c (plan, hand-over,
 * channels between roles), supervisor_files.c (folders, lock, listeners). */
#ifndef ROLES_SUPERVISOR_PRIV_H
#define ROLES_SUPERVISOR_PRIV_H

#include "base/chan.h"
#include "base/log.h"
#include "roles/role.h"
#include "roles/supervisor.h"

enum {
	CHILDREN_MAX = 127, /* instances fit into message ids: MSGID_INSTANCE_MAX */
	LISTENERS_MAX = CONF_LISTEN_MAX * 2,
	START_TRIES = 3, /* a role that never worked ends the start after so many */
};

enum child_state { CHILD_DOWN, CHILD_STARTING, CHILD_READY, CHILD_STOPPING };

struct child {
	struct supervisor *sup;
	enum role_kind kind;
	unsigned index, instance;
	enum child_state state;
	int pid;
	uint32_t uid, gid;
	struct chan *control;
	uint32_t restarts, failures; /* failures: ended since it last worked for a while */
	bool was_ready;
	int64_t since_us;
	int64_t back_off; /* ns until it is started again */
	struct timer restart;
	char sandbox[SANDBOX_TEXT_MAX];
};

struct listener {
	str service;
	struct addr address;
	int fd;
};

struct supervisor {
	const struct supervisor_options *options;
	struct loop *loop;
	struct log log;
	struct arena *arena;	  /* for the life of the server */
	struct arena *conf_arena; /* of a reloaded configuration; NULL: the first one is in force */
	struct conf *conf;
	str conf_text;
	int conf_fd; /* sealed memfd for the roles */
	str data_dir;
	int lock_fd;
	int clients_fd; /* a memfd in which the fronts count together */
	bool is_root, test_hooks;
	struct child children[CHILDREN_MAX];
	unsigned n, last_instance; /* given to a process that was started again */
	struct listener listeners[LISTENERS_MAX];
	unsigned listeners_n;
	struct watch signals;
	int signals_fd;
	bool is_stopping, is_ready, is_refused;
	unsigned stop_phase;
	struct timer stop_timer;
};

/* supervisor_files.c: complain on standard error and return an error. */
MUST_USE enum err supervisor_prepare_files(struct supervisor *s);
MUST_USE enum err supervisor_listen(struct supervisor *s);
/* The role's files and folders, as sup_file messages. */
MUST_USE enum err supervisor_send_files(struct supervisor *s, struct child *c);
MUST_USE enum err supervisor_user(struct supervisor *s, enum role_kind kind, uint32_t *uid,
				  uint32_t *gid);

/* supervisor_roles.c */
MUST_USE enum err supervisor_plan(struct supervisor *s);
MUST_USE enum err supervisor_spawn(struct supervisor *s, struct child *c);
/* Everything it needs, and sup_start. */
MUST_USE enum err supervisor_hand_over(struct supervisor *s, struct child *c);
/* New channels between this role and all that live. */
MUST_USE enum err supervisor_link(struct supervisor *s, struct child *c, bool only_later_ones);

/* supervisor.c */
void supervisor_message(void *arg, struct chan *chan, struct msg *m);
/* sup_start, whose answer makes the child ready. */
MUST_USE enum err supervisor_send_start(struct supervisor *s, struct child *c);
void supervisor_complain(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
