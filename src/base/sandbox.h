/* The sandbox of a role: no new privileges, not dumpable, seccomp, Landlock.
 *
 * Common to all: read, write, send, receive on descriptors they have, memory (never executable), clocks,
 * futex, epoll, exit. Everything else is in the table below, by need. What is not allowed
 * fails with EPERM, but for ptrace, process_vm_*, kexec, module and mount calls, which kill.
 */
#ifndef BASE_SANDBOX_H
#define BASE_SANDBOX_H

#include "base/err.h"
#include "base/str.h"

enum sandbox_allow {
	SANDBOX_FILES = 1,	 /* open, create, rename, unlink below the given paths */
	SANDBOX_SYNC = 2,	 /* fdatasync, fallocate, ftruncate on descriptors */
	SANDBOX_ACCEPT = 4,	 /* accept on listeners it was given */
	SANDBOX_CONNECT = 8,	 /* socket, connect, getsockname for IPv4 and IPv6 */
	SANDBOX_FORK = 16,	 /* clone without new namespaces, wait: the zygote */
	SANDBOX_THREADS = 32,	 /* clone of threads (before the lock is enough for most) */
	SANDBOX_EXEC = 64,	 /* nobody but the supervisor, which has no sandbox */
	SANDBOX_MEMFD = 128,	 /* memfd_create with seals, for large bodies */
	SANDBOX_BIND_UDP = 256,	 /* bind and datagram sockets: dns */
	SANDBOX_PEERS = 512,	 /* socketpair */
	SANDBOX_READ_FILES = 1024, /* open for reading below the given paths */
};

struct sandbox {
	unsigned allow; /* enum sandbox_allow */
	const char *const *write_paths; /* NULL-ended, for SANDBOX_FILES */
	const char *const *read_paths;	/* NULL-ended, for SANDBOX_READ_FILES */
};

/* Locks this process and all its threads. `text` (at least 256 bytes) becomes what is in force in words, and says
 * so where the kernel has no Landlock. */
MUST_USE enum err sandbox_lock(const struct sandbox *s, char *text, size_t size);

#endif
