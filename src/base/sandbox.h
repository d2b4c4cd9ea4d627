/* The sandbox of a role: no new privileges, not dumpable, seccomp, Landlock.
 *
 * Common to all: read, write, send, receive on descriptors they have, memory (never executable),
 * clocks, futex, epoll, exit. Everything else is given by need; base/sandbox.def is the list, call
 * by call. What is not allowed fails with EPERM. Landlock takes away the file system but for the
 * paths given, and TCP where the kernel's version can; where the kernel has no Landlock, the text
 * of sandbox_lock says so, and seccomp stands alone.
 */
#ifndef BASE_SANDBOX_H
#define BASE_SANDBOX_H

#include "base/err.h"
#include "base/str.h"

enum sandbox_allow {
	SANDBOX_FILES = 1,	  /* open, create, rename, unlink below the write paths */
	SANDBOX_SYNC = 2,	  /* fdatasync, fallocate, ftruncate on descriptors */
	SANDBOX_ACCEPT = 4,	  /* accept on listeners it was given */
	SANDBOX_CONNECT = 8,	  /* TCP to IPv4 and IPv6 */
	SANDBOX_FORK = 16,	  /* fork, wait, and sandbox_narrow in the copy: the zygote */
	SANDBOX_MEMFD = 32,	  /* memfd_create, for large bodies */
	SANDBOX_BIND_UDP = 64,	  /* UDP and TCP as a resolver needs them: dns */
	SANDBOX_PEERS = 128,	  /* socketpair, but not of datagrams */
	SANDBOX_READ_FILES = 256, /* open for reading below the read paths */
};

struct sandbox {
	unsigned allow;			/* enum sandbox_allow */
	const char *const *write_paths; /* NULL-ended or NULL, for SANDBOX_FILES */
	const char *const *read_paths;	/* NULL-ended or NULL, for SANDBOX_READ_FILES */
};

enum { SANDBOX_TEXT_MAX = 256 };

/* Locks this process and all its threads, for ever. `text` becomes what is in force, in words.
 * ERR_UNSUPPORTED: the kernel has no seccomp. Other errors: it has Landlock, but a path could not
 * be given: less than was asked for is a failure. */
MUST_USE enum err sandbox_lock(const struct sandbox *s, char text[SANDBOX_TEXT_MAX]);

/* In a copy of a locked process (SANDBOX_FORK): takes away, for ever, what only those sets allow
 * that are in `had` and not in `kept`. A call that stays, stays with the arguments that `had`
 * allows; Landlock's rules stay too. ERR_UNSUPPORTED: it was not locked with SANDBOX_FORK. */
MUST_USE enum err sandbox_narrow(unsigned had, unsigned kept);

#endif
