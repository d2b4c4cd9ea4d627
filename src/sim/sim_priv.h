/* Inside the simulator.
 *
 *	sim.c             life: boot, stop, power cut, what the driver asks
 *	sim_process.c     coroutines, who runs next, how processes end
 *	sim_object.c      what descriptors point to, readiness
 *	sim_net.c         bytes and datagrams on their way
 *	sim_locks.c       locks of files
 *	sim_trace.c       the trace and its hash
 *	sim_os_*.c        base/os.h
 *	sim_posix*.c      the calls of LMDB and SQLite, wrapped at link time
 *	sim_stand_ins.c   the sandbox, the resolver, mutants
 */
#ifndef SIM_SIM_PRIV_H
#define SIM_SIM_PRIV_H

#include "base/os.h"
#include "sim/sim.h"
#include "sim/sim_fs.h"
#include "sim/sim_memory.h"

enum {
	SIM_STACK = 1024 * 1024,
	SIM_FDS_MAX = 1024,
	SIM_PROCESS_NAME = 40,
	SIM_PATH_MAX = 256,
	SIM_STREAM_WINDOW = 64 * 1024,	   /* bytes on their way in one direction */
	SIM_DATAGRAM_WINDOW = 1024 * 1024, /* bytes queued at one end of a pair */
	SIM_BACKLOG_MAX = 4096,
	SIM_STEP_NS = 2000, /* what a step of a process takes */
};
#define SIM_FD_PATH  "/proc/self/fd/"
#define SIM_EPOCH_US ((int64_t)1767225600 * 1000000) /* the wall clock at the beginning: 2026 */

struct sim_process;
struct sim_handle;

/* ---- objects: what descriptors point to ---- */

enum sim_kind {
	SIM_FILE, /* also directories and memfds */
	SIM_LOG,  /* standard error */
	SIM_STREAM,
	SIM_DATAGRAMS,
	SIM_LISTENER,
	SIM_POLL,
	SIM_SIGNALS,
	SIM_SYNCER,
};

/* An object that a poll watches. */
struct sim_watch {
	struct sim_watch *next, *next_queued;
	struct sim_object *poll, *object;
	int fd;
	void *tag;
	unsigned interest; /* enum os_ready */
	bool is_level, is_queued;
};

/* Bytes or a datagram on their way to a socket. */
struct sim_parcel {
	struct sim_parcel *next;
	int64_t at; /* when it arrives */
	bool is_end, is_reset;
	struct sim_object *objects[OS_FDS_MAX];
	unsigned objects_n;
	size_t n, from;
	char data[];
};

struct sim_socket {
	struct sim_object *peer; /* NULL: it is gone, or not there yet */
	struct sim_parcel *first, **end;
	size_t queued;
	enum sim_machine where;
	bool is_remote; /* its peer is on the other machine */
	bool is_connecting, is_refused, is_reset, is_shut;
	bool has_ended;	    /* read to the end */
	int64_t full_until; /* the network takes nothing until then */
	int64_t last_at;    /* of what was sent to it */
	struct addr local, remote;
	int peer_pid;
};

struct sim_listener {
	struct addr address;
	enum sim_machine where;
	bool is_datagrams;
	struct sim_object *backlog[64];
	unsigned backlog_n;
	struct sim_object *next; /* all listeners */
};

struct sim_file {
	struct sim_inode *inode;
	unsigned flags; /* enum os_open_flags */
	uint64_t offset;
	char path[SIM_PATH_MAX];
	bool is_synced; /* every write is (O_DSYNC) */
};

struct sim_object {
	struct sim *sim;
	enum sim_kind kind;
	unsigned refs;
	struct sim_watch *watches; /* who watches it */
	union {
		struct sim_file file;
		struct sim_socket socket;
		struct sim_listener listener;
		struct {
			struct sim_watch *all; /* by next_queued; all that it watches */
		} poll;
		struct sim_process *process; /* SIM_SIGNALS */
		struct {
			struct sim_object *file; /* being synced */
			bool is_done;
			enum err result;
		} syncer;
	};
};

struct sim_object *object_new(struct sim *s, enum sim_kind kind);
void object_hold(struct sim_object *o);
void object_drop(struct sim_object *o);
unsigned object_ready(const struct sim_object *o);
/* Its readiness has changed in this direction: who watches it is told. */
void object_changed(struct sim_object *o, unsigned ready);

/* ---- processes ---- */

enum sim_state { PROCESS_READY, PROCESS_WAITING, PROCESS_EXITING, PROCESS_ENDED };

struct sim_mapping {
	struct sim_mapping *next;
	char *at;
	size_t n;
	struct sim_inode *inode; /* NULL: memory */
};

struct sim_process {
	struct sim *sim;
	struct sim_process *next;
	int number, parent;
	enum sim_machine where;
	char name[SIM_PROCESS_NAME];
	enum sim_state state;
	int (*main)(void *arg);
	void *arg;
	void (*copied)(void *arg); /* of a copy: what it runs */
	void *copied_arg;
	bool dies_with_parent, is_dying;
	char *stack;
	void *sp, *fake_stack;
	const void *stack_now;
	size_t stack_now_size;
	struct sim_heap *heap;
	struct sim_object *fds[SIM_FDS_MAX];
	int fds_end;
	/* while it waits */
	struct sim_object *waits_for; /* for a change of this; NULL: for the deadline alone */
	int64_t deadline;	      /* INT64_MAX: none */
	bool is_woken;
	unsigned signals;
	struct sim_object *signals_object;
	int status;
	struct sim_mapping *mappings;
	struct sim_handle *handles;
};

struct sim_event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct sim *s, struct sim_object *o);
	struct sim_object *object; /* held */
};

struct sim {
	struct sim_options options;
	struct sim_random random, scheduling, entropy, network;
	int64_t now, until;
	struct sim_process *processes, **processes_end, *current;
	struct sim_process *runs_next; /* a copy, which looks at its origin's stack */
	int next_number, supervisor;
	void *scheduler_sp, *fake_stack;
	const void *scheduler_stack;
	size_t scheduler_stack_size;
	struct sim_event *events;
	size_t events_n, events_room;
	uint64_t next_order;
	struct sim_fs *fs;
	struct sim_object *listeners;
	struct charset_preload *charsets;
	uint16_t next_port;
	int bio_index; /* OpenSSL's number for our kind of BIO */
	bool is_prepared;
	struct sim_object *ready; /* our end of the socket on which the server says so */
	uint64_t stop_at_file;
	char stop_name[32]; /* a part of the path that is meant */
	bool is_at_file, fails_sync, is_power_lost;
	char fail_name[SIM_PATH_MAX];
	int64_t partition_until, slow_until;
	char *free_stacks[64];
	unsigned free_stacks_n;
	uint64_t hash;
	struct sim_counts counts;
};

/* The one mutable global of the project: base/os.h has no parameter for the machine it runs on. */
extern struct sim *sim_here;

/* The process that runs; panics when the driver does. */
struct sim_process *process_here(void);
struct sim_process *process_new(struct sim *s, enum sim_machine where, const char *name, int parent,
				int (*main)(void *arg), void *arg);
struct sim_process *process_find(const struct sim *s, int number);
/* Kills it, or (the running one) says that it shall end; then process_wait does not return. */
void process_kill(struct sim_process *p, int status);
/* Lets the others run until `o` changes (NULL: nothing), or the deadline. */
void process_wait(struct sim_process *p, struct sim_object *o, int64_t deadline);
/* Lets others run, and goes on some time later. */
void process_pause(struct sim_process *p, int64_t nanoseconds);
_Noreturn void process_exit(struct sim_process *p, int status);
void process_signal(struct sim_process *p, unsigned signal);
/* The lowest free descriptor from `from` on becomes this object (which is held). */
MUST_USE enum err process_fd(struct sim_process *p, struct sim_object *o, int from, int *fd);
/* NULL: there is none. */
struct sim_object *process_object(const struct sim_process *p, int fd);
void process_close(struct sim_process *p, int fd);
/* One that has ended, and whose parent has its status. */
void process_forget(struct sim_process *p);
/* Kills all on that machine. */
void processes_kill(struct sim *s, enum sim_machine where);
/* What is left of a process past its descriptors: sim_posix.c. */
void posix_process_ends(struct sim_process *p);

void event_at(struct sim *s, int64_t at, void (*fn)(struct sim *, struct sim_object *),
	      struct sim_object *o);

/* A call that changes files is about to be made: others may run first. */
void file_point(struct sim_process *p, const char *what, const char *path);
/* Waits as long as a disk takes to sync, and syncs. */
MUST_USE enum err file_sync(struct sim_process *p, struct sim_file *f, bool may_wait);
MUST_USE enum err file_open(struct sim_process *p, int dir, const char *path, unsigned flags,
			    unsigned mode, struct sim_object **out);
/* A new open file. */
struct sim_object *file_new(struct sim *s, struct sim_inode *i, const char *path, unsigned flags);
/* NULL: it is none. */
struct sim_file *file_of(int fd, struct sim_process **p);
/* How long the next sync takes, and what it does at its end. */
int64_t file_sync_time(struct sim *s);
MUST_USE enum err file_sync_now(struct sim *s, struct sim_file *f);
/* A path, as seen from a directory's descriptor and through /proc/self/fd. */
MUST_USE enum err file_find(struct sim_process *p, int dir, const char *path,
			    struct sim_inode **out);
MUST_USE enum err file_base(struct sim_process *p, int dir, const char **path,
			    struct sim_inode **base);

/* sim_locks.c: `exclusive` for the life of an open file; ranges for a process. */
MUST_USE enum err lock_file(struct sim_object *o);
void locks_drop_file(struct sim_object *o);
void locks_drop_process(struct sim_inode *i, int process);

/* sim_net.c */
MUST_USE enum err net_pair(struct sim *s, enum sim_kind kind, enum sim_machine where,
			   struct sim_object *ends[2]);
void socket_close(struct sim_object *o);
void socket_shut(struct sim_object *o);
void socket_reset(struct sim_object *o, int64_t at);
unsigned socket_ready(const struct sim_object *o);
MUST_USE enum err stream_send(struct sim_object *o, const char *p, size_t n, size_t *done);
MUST_USE enum err stream_recv(struct sim_object *o, char *p, size_t n, size_t *done);
MUST_USE enum err datagram_send(struct sim_object *o, const struct iovec *iov, unsigned niov,
				struct sim_object *const *objects, unsigned count);
/* The objects are held. */
MUST_USE enum err datagram_recv(struct sim_object *o, void *p, size_t n, size_t *done,
				struct sim_object *objects[OS_FDS_MAX], unsigned *count);
struct sim_object *listener_find(struct sim *s, const struct addr *to, bool is_datagrams);
void listener_close(struct sim_object *o);
void connect_begin(struct sim_object *o);
void connect_arrives(struct sim *s, struct sim_object *o);
void net_forget_server(struct sim *s);
void net_reset_all(struct sim *s);

#endif
