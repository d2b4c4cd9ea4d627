/* A role: what every process but the supervisor is.
 *
 * The supervisor executes `posthorn role NAME`, with descriptor 3 (ROLE_CONTROL_FD) as the channel
 * to itself. role_main takes from it the configuration, files, listeners and channels; then the
 * role's hooks are called in this order:
 *
 *	init      the configuration is there (role->conf); make the state (role->state)
 *	listener  for each listening socket;   file  for each file or directory handed over
 *	prepare   all is there; last chance to open files or start threads
 *	          -- the sandbox is locked here --
 *	start     work
 *
 * and later message, peer_up, peer_down (a channel's other end was replaced or died), reload, stop.
 * Hooks may be NULL. They run on the loop, outside fibers; what waits is done in a fiber that they
 * spawn.
 *
 * Everything that a role remembers hangs on role->state, so that one process can hold many roles.
 */
#ifndef ROLES_ROLE_H
#define ROLES_ROLE_H

#include "base/chan.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sandbox.h"

struct conf;
struct role;

struct role_ops {
	enum role_kind kind;
	/* What its sandbox allows beyond the common set. */
	unsigned sandbox; /* enum sandbox_allow */
	enum err (*init)(struct role *r);
	enum err (*listener)(struct role *r, str service, str address, int fd); /* fd is ours */
	/* fd is ours; a folder stays open, and what is in it is opened by os_fd_path: its path is
	 * for the log. */
	enum err (*file)(struct role *r, str name, str path, int fd);
	enum err (*prepare)(struct role *r);
	enum err (*start)(struct role *r);
	void (*message)(struct role *r, struct chan *from, struct msg *m);
	void (*peer_up)(struct role *r, struct chan *peer);
	void (*peer_down)(struct role *r, struct chan *peer);
	void (*reload)(struct role *r); /* role->conf is the new one */
	/* Finish; call loop_stop when done. Default: loop_stop at once. */
	void (*stop)(struct role *r, unsigned seconds);
	/* Key figures as JSON members ("\"connections\":3,...") for `posthorn status`. */
	void (*status)(struct role *r, struct buf *out);
};

struct role {
	const struct role_ops *ops;
	enum role_kind kind;
	unsigned index;	   /* which of its kind */
	unsigned instance; /* unique in the server */
	struct loop *loop;
	struct log log;
	struct conf *conf;
	struct msgid_source msgids;
	void *state;
	struct role_private *priv;
};

/* The channel to a peer role; the same pointer for the life of the role, up or down. NULL when this
 * server has no such peer. */
struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index);
unsigned role_peers(struct role *r, enum role_kind kind); /* how many of it */
/* The instance of that peer, as the supervisor told: ids it makes carry it (msgid_instance). */
unsigned role_peer_instance(struct role *r, const struct chan *peer);

/* The server was started for tests/sandbox (POSTHORN_TEST_HOOKS=1). */
bool role_has_test_hooks(const struct role *r);

/* An event of a message's history, for `posthorn trace`. Never fails, never blocks. */
void role_trace(struct role *r, uint64_t message, unsigned event, str sender, str recipient,
		const char *fmt, ...) PRINTF_LIKE(6, 7);

/* The whole life of the process; the exit status: 0 when told to stop, ROLE_EXIT_CONFIG when
 * starting again would not help. */
enum { ROLE_CONTROL_FD = 3, ROLE_EXIT_CONFIG = 78, ROLE_INDEX_MAX = 64 };
int role_main(const struct role_ops *ops, int control_fd);

/* The operations of a role that has a process, NULL for the supervisor and the tool. */
const struct role_ops *role_ops_of(enum role_kind kind);

extern const struct role_ops role_front_ops, role_keys_ops, role_auth_ops, role_lookup_ops,
	role_store_ops, role_checkpoint_ops, role_session_ops, role_filter_ops, role_queue_ops,
	role_out_ops, role_dns_ops, role_admin_ops;

#endif
