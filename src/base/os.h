/* The operating system: every system call of Posthorn goes through this header.
 *
 * os_linux.c implements it over the kernel. The simulator is another implementation: a simulated
 * clock, network and file system, in which a power cut keeps an arbitrary part of what was not
 * synced. What libraries (LMDB, SQLite, OpenSSL's random numbers) do past it is listed in docs/.
 *
 * Descriptors are ints, -1 is none; they are always close-on-exec and, sockets, non-blocking. Times
 * are nanoseconds (monotonic) or microseconds (wall clock). Short reads and writes are visible
 * where `done` is returned, and retried inside the _all functions. EINTR is retried inside.
 */
#ifndef BASE_OS_H
#define BASE_OS_H

#include "base/addr.h"
#include "base/arena.h"

#include <sys/types.h>
#include <sys/uio.h>

/* Clock and chance. */
int64_t os_monotonic_ns(void);
int64_t os_wall_us(void); /* since 1970, UTC */
/* Minutes east of UTC of local time at that moment. */
int os_zone_minutes(int64_t wall_us);
void os_random(void *p, size_t n);
uint64_t os_random_u64(void);

/* Files. `dir` is a directory's descriptor, or -1 for the working directory; names are
 * NUL-terminated. */
enum os_open_flags {
	OS_READ = 1,
	OS_WRITE = 2,
	OS_CREATE = 4,	  /* mode 0600 unless OS_GROUP_READ */
	OS_EXCLUSIVE = 8, /* with OS_CREATE: ERR_EXISTS when it is there */
	OS_APPEND = 16,
	OS_DIRECTORY = 32,
	OS_TRUNCATE = 64,
	OS_GROUP_READ = 128,
};

MUST_USE enum err os_open(int dir, const char *name, unsigned flags, int *fd);
void os_close(int fd);						    /* -1 is allowed */
MUST_USE enum err os_read(int fd, void *p, size_t n, size_t *done); /* ERR_EOF at the end */
MUST_USE enum err os_pread(int fd, void *p, size_t n, uint64_t at, size_t *done);
MUST_USE enum err os_pread_all(int fd, void *p, size_t n,
			       uint64_t at); /* ERR_EOF when it ends before */
MUST_USE enum err os_write(int fd, const void *p, size_t n, size_t *done);
MUST_USE enum err os_write_all(int fd, str s);
MUST_USE enum err os_pwrite_all(int fd, str s, uint64_t at);
MUST_USE enum err os_pwritev_all(int fd, struct iovec *iov, unsigned n,
				 uint64_t at); /* changes iov */
MUST_USE enum err os_fdatasync(int fd);
MUST_USE enum err os_fsync(int fd); /* also for directories */
MUST_USE enum err os_truncate(int fd, uint64_t size);
/* Makes blocks for [at, at + n) so that writing there needs no new ones; the size grows. */
MUST_USE enum err os_allocate(int fd, uint64_t at, uint64_t n);
MUST_USE enum err os_rename(int dir, const char *from, const char *to);
MUST_USE enum err os_link(int dir, const char *from, const char *to);
MUST_USE enum err os_unlink(int dir, const char *name);
MUST_USE enum err os_mkdir(int dir, const char *name,
			   unsigned mode); /* ERR_EXISTS when it is there */
MUST_USE enum err os_lock_file(
	int fd); /* exclusive, for the life of the descriptor; ERR_BUSY when held */

struct os_stat {
	uint64_t size, inode;
	int64_t modified_us;
	bool is_directory, is_file, is_socket;
	uint32_t mode, uid, gid;
};
MUST_USE enum err os_stat(int dir, const char *name, struct os_stat *out);
MUST_USE enum err os_fstat(int fd, struct os_stat *out);

struct os_space {
	uint64_t total, free; /* bytes; free: for us */
};
MUST_USE enum err os_space(int fd, struct os_space *out);

/* The names in a directory, in no order, without "." and "..", NUL-terminated in the arena. */
MUST_USE enum err os_list(int dir, struct arena *a, str **names, size_t *count);

/* Memory as a descriptor. Sealed: neither size nor contents can change any more. */
MUST_USE enum err os_memfd(str contents, bool sealed, int *fd);
/* Seals one that was written piece by piece. */
MUST_USE enum err os_memfd_seal(int fd);
/* ERR_PROTOCOL unless it is a memfd with all seals; *size is its size. */
MUST_USE enum err os_memfd_check(int fd, uint64_t *size);
/* Standard error becomes a socket to the system's log (/dev/log): for this process and those it
 * starts. ERR_NOT_FOUND: no log daemon listens. */
MUST_USE enum err os_stderr_to_syslog(void);

struct buf;
/* What descriptors this process has, in words: "3 sockets unix, 2 listeners, 1 file". */
void os_describe_fds(struct buf *out);
int os_dup(int fd); /* -1 when it cannot */
/* A path to what a descriptor of this process is, for libraries that open by name. It leads there
 * past folders that this process may not enter. */
enum { OS_FD_PATH_SIZE = 32 };
void os_fd_path(int fd, char path[OS_FD_PATH_SIZE]);

/* A helper that waits in fdatasync so that its process does not: start one sync, and os_syncer_fd
 * becomes readable when it is done. One at a time. */
struct os_syncer;
MUST_USE enum err os_syncer_new(struct os_syncer **out);
void os_syncer_free(struct os_syncer *s); /* waits for the one under way */
int os_syncer_fd(const struct os_syncer *s);
void os_sync_start(struct os_syncer *s, int fd);
void os_sync_start_folder(struct os_syncer *s, int fd); /* the names in it: fsync */
/* ERR_AGAIN while it is under way; otherwise the result of the sync. */
MUST_USE enum err os_sync_result(struct os_syncer *s);

/* Sockets. */
enum os_listen_flags { OS_LISTEN_REUSEPORT = 1, OS_LISTEN_V6ONLY = 2 };
MUST_USE enum err os_listen(const struct addr *at, unsigned flags,
			    int *fd); /* ERR_BUSY: port in use */
/* SOCK_SEQPACKET below a path: the control socket. Connecting and sending wait for
 * OS_CONTROL_SECONDS (ERR_TIMEOUT, ERR_AGAIN); ERR_NOT_FOUND: nobody listens. */
enum { OS_CONTROL_SECONDS = 60 };
MUST_USE enum err os_listen_datagrams(const char *path, int *fd);
MUST_USE enum err os_connect_datagrams(const char *path, int *fd);
MUST_USE enum err os_accept(int listener, struct addr *peer, int *fd);
/* Starts; the socket becomes writable when it is done, then os_connect_result. */
MUST_USE enum err os_connect(const struct addr *to, const struct addr *from_or_null, int *fd);
MUST_USE enum err os_connect_result(int fd);
MUST_USE enum err os_local_addr(int fd, struct addr *out);
MUST_USE enum err os_peer_addr(int fd, struct addr *out);
MUST_USE enum err os_recv(int fd, void *p, size_t n, size_t *done); /* ERR_AGAIN, ERR_EOF */
MUST_USE enum err os_send(int fd, const void *p, size_t n, size_t *done);
void os_shutdown_write(int fd);
void os_no_delay(int fd); /* small writes go at once (TCP_NODELAY) */
MUST_USE enum err os_socketpair(bool seqpacket, int fd[2]);
/* The user at the other end of a UNIX socket. */
MUST_USE enum err os_peer_user(int fd, uint32_t *uid, uint32_t *gid, int *pid);

enum { OS_FDS_MAX = 4 };
/* Datagrams with descriptors, on SOCK_SEQPACKET and SOCK_STREAM pairs. Received descriptors are the
 * caller's; a datagram larger than n is ERR_TOO_LONG (and gone, its descriptors closed). */
MUST_USE enum err os_send_fds(int sock, const struct iovec *iov, unsigned niov, const int *fds,
			      unsigned nfds);
MUST_USE enum err os_recv_fds(int sock, void *p, size_t n, size_t *done, int fds[OS_FDS_MAX],
			      unsigned *nfds);
/* Several in one call. Fewer than `max`: there were no more, so the call that would only say
 * ERR_AGAIN is saved. */
struct os_datagram {
	void *p;
	size_t n;     /* room; then its size */
	enum err err; /* of this one: ERR_TOO_LONG, ERR_EOF */
	int fds[OS_FDS_MAX];
	unsigned nfds;
};
enum { OS_DATAGRAMS_MAX = 4 };
MUST_USE enum err os_recv_datagrams(int sock, struct os_datagram *d, unsigned max, unsigned *got);

/* Readiness. Edge-triggered: after an event, go on until ERR_AGAIN. */
enum os_ready { OS_READY_READ = 1, OS_READY_WRITE = 2, OS_READY_CLOSED = 4 };
struct os_event {
	void *tag;
	unsigned ready;
};
MUST_USE enum err os_poll_new(int *poll);
MUST_USE enum err os_poll_add(int poll, int fd, void *tag);
/* The same without OS_READY_WRITE, which is asked for while it is wanted: a UNIX socket would
 * report it each time that its peer has taken something. */
MUST_USE enum err os_poll_add_reader(int poll, int fd, void *tag);
MUST_USE enum err os_poll_want_write(int poll, int fd, void *tag, bool wanted);
/* Level-triggered and for reading alone: for listeners shared by processes (one is woken per
 * event). */
MUST_USE enum err os_poll_add_listener(int poll, int fd, void *tag);
void os_poll_remove(int poll, int fd);
/* Waits at most timeout_ns (-1: for ever, 0: not at all). *n may be 0. */
MUST_USE enum err os_poll_wait(int poll, struct os_event *events, unsigned max, int64_t timeout_ns,
			       unsigned *n);

/* Processes and signals. */
enum os_signal { OS_SIG_TERM = 1, OS_SIG_RELOAD = 2, OS_SIG_CHILD = 4, OS_SIG_USER = 8 };
/* Blocks these signals and returns a descriptor on which they arrive. INT counts as TERM. A pipe
 * without a reader is no signal but ERR_CLOSED from then on, here and in all children. */
MUST_USE enum err os_signals(int *fd);
MUST_USE enum err os_signals_read(int fd, unsigned *signals); /* a set of enum os_signal */
/* Our own executable again with these arguments (NULL-ended, without argv[0]); fds[i] becomes
 * descriptor 3 + i there, all others are closed; it may open as many as the hard limit allows.
 * `uid`, `gid`: who it shall be, 0: as we are. */
struct os_spawn {
	const char *const *args;
	const int *fds;
	unsigned nfds;
	uint32_t uid, gid;
	bool stdin_null;
};
MUST_USE enum err os_spawn(const struct os_spawn *how, int *pid);
/* A copy of this process, which runs child(arg) and ends. What `arg` points to may be the caller's
 * own stack: the child takes what it needs before it first waits. */
MUST_USE enum err os_fork(void (*child)(void *arg), void *arg, int *pid);
/* In a copy: wipes what it has of its origin's memory and does not need. (In the simulator both
 * share that memory, and nothing happens.) */
void os_wipe_copied(void *p, size_t n);
/* In a copy: closes every descriptor above 2 but these. */
void os_close_others(const int *keep, unsigned n);
/* One child that ended, ERR_AGAIN when none has. status: exit code, or 256 + signal. */
MUST_USE enum err os_reap(int *pid, int *status);
MUST_USE enum err os_kill(int pid, int signal);
_Noreturn void os_exit(int status);
int os_pid(void);
uint32_t os_uid(void);
unsigned os_cores(void);
/* The folder this process is in, NUL-terminated. ERR_TOO_LONG, or ERR_NOT_FOUND when it is gone. */
MUST_USE enum err os_folder(char *out, size_t size);
MUST_USE enum err os_user_find(const char *name, uint32_t *uid, uint32_t *gid); /* ERR_NOT_FOUND */
MUST_USE enum err os_chown(int dir, const char *name, uint32_t uid, uint32_t gid);
MUST_USE enum err os_chmod(int dir, const char *name, unsigned mode);

/* Terminals. Without echo, Ctrl-C is a byte (3) like others, so that the echo always comes back. */
bool os_is_terminal(int fd);
void os_terminal_echo(int fd, bool on);
/* Leaves the terminal: a session of its own, standard input and output closed. */
void os_detach(void);
/* Blocks, for commands alone: until there is something to read, or ERR_TIMEOUT (-1: no limit). */
MUST_USE enum err os_wait_readable(int fd, int timeout_ms);

#endif
