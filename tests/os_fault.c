/* Fails the Nth system call of a role: the layer behind tests/lib/faults.py.
 *
 * The asan build of posthorn, and no other, is linked with it: --wrap leads the system calls of
 * base/os_linux_*.c here (the Makefile's FAULT_CALLS), and what libraries call goes past it. A file
 * that $POSTHORN_FAULTS names is mapped by every process of the server, so that a test arms a fault
 * while the server runs, and reads how many calls there were and which one failed: struct
 * fault_page, which faults.py knows too. Without the variable every call goes through.
 *
 * Calls are counted by kind. Two errors are none of the kernel's: SHORT does half of a read or
 * write and says so; LOSE is a sync that fails with EIO, after which what was written since the
 * last one is gone (zeros), as Linux drops dirty pages that it could not write. EINTR happens
 * before anything is done, and only where a signal can interrupt. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
	NAMES = 1,  /* opens, renames, links, removes, makes folders */
	READS = 2,  /* of regular files */
	WRITES = 4, /* to regular files, their sizes included */
	SYNCS = 8,
	DESCRIPTORS = 16, /* whatever makes one */
	RECEIVES = 32,	  /* from sockets */
	SENDS = 64,
	WAITS = 128,
	LASTING = 1 << 29, /* no kind: no signal interrupts this call */
	WHOLE = 1 << 30,   /* no kind: a datagram, of which there is no half */
};

enum { SHORT = -1, LOSE = -2, DIRTY_MAX = 1024 };

struct fault_page {
	char role[16];	/* whose calls, "" for nobody's */
	uint32_t kinds; /* of enum kind */
	int32_t error;	/* errno, SHORT, LOSE */
	uint32_t first; /* the first call that fails, from 1 */
	uint32_t count; /* and how many in a row */
	_Atomic uint32_t calls, failed;
	char call[16]; /* the last that failed */
	_Atomic uint32_t dirty_n;
	struct {
		uint64_t inode, at, n;
	} dirty[DIRTY_MAX]; /* what was written since the last sync, for LOSE */
};

static struct fault_page *page;
static char own_role[16];

/* Who this process is, by its command line: `role NAME`, or one that starts all of them. */
static const char *name_of(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "role") == 0)
		return argv[2];
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "start") == 0)
			return "supervisor";
	return "command";
}

__attribute__((constructor)) static void begin(int argc, char **argv)
{
	const char *path = getenv("POSTHORN_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return;
	strncat(own_role, name_of(argc, argv), sizeof(own_role) - 1);
	page = p;
}

/* Whether this call fails: then the error of the page. */
static int fault(unsigned kinds, const char *name)
{
	uint32_t number;

	if (!page || !(page->kinds & kinds) || strncmp(page->role, own_role, sizeof(own_role)) != 0)
		return 0;
	if (page->error == EMFILE && !(kinds & DESCRIPTORS))
		return 0;
	if (page->error == EINTR && (kinds & LASTING))
		return 0;
	if (page->error == LOSE && !(kinds & SYNCS))
		return 0;
	if (page->error == SHORT &&
	    ((kinds & WHOLE) || !(kinds & (READS | WRITES | RECEIVES | SENDS))))
		return 0;
	number = atomic_fetch_add(&page->calls, 1) + 1;
	if (number < page->first || number - page->first >= page->count)
		return 0;
	memset(page->call, 0, sizeof(page->call));
	strncat(page->call, name, sizeof(page->call) - 1);
	atomic_fetch_add(&page->failed, 1);
	return page->error;
}

static unsigned kind_of(int fd, bool is_write)
{
	struct stat st;

	/* The log's lines are told to a person, who may miss one. */
	if (!page || !page->role[0] || fd == 2 || fstat(fd, &st))
		return 0;
	if (S_ISREG(st.st_mode))
		return is_write ? WRITES : READS;
	return S_ISSOCK(st.st_mode) ? (is_write ? SENDS : RECEIVES) : 0;
}

static void note_dirty(int fd, uint64_t at, uint64_t n)
{
	struct stat st;
	uint32_t i;

	if (!page || page->error != LOSE || strncmp(page->role, own_role, sizeof(own_role)) != 0 ||
	    fstat(fd, &st) || (i = atomic_load(&page->dirty_n)) == DIRTY_MAX)
		return;
	page->dirty[i].inode = st.st_ino;
	page->dirty[i].at = at;
	page->dirty[i].n = n;
	atomic_store(&page->dirty_n, i + 1);
}

ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);

/* What Linux does with pages that it could not write, seen from a later read. */
static void lose(int fd)
{
	static const char zeros[4096];
	struct stat st;

	if (fstat(fd, &st))
		return;
	for (uint32_t i = 0; i < atomic_load(&page->dirty_n); i++) {
		uint64_t at = page->dirty[i].at, end = at + page->dirty[i].n;

		while (page->dirty[i].inode == st.st_ino && at < end) {
			size_t n = end - at < sizeof(zeros) ? end - at : sizeof(zeros);

			if (__real_pwrite(fd, zeros, n, (off_t)at) != (ssize_t)n)
				abort();
			at += n;
		}
	}
}

/* What was written before a sync that succeeded is safe; only one thread writes while another one
 * syncs. */
static void clean(int fd, uint32_t before)
{
	struct stat st;

	if (!page || page->error != LOSE || fstat(fd, &st))
		return;
	for (uint32_t i = 0; i < before; i++)
		if (page->dirty[i].inode == st.st_ino)
			page->dirty[i].n = 0;
}

/* A call without more to it than its kinds: CALL(type, name, kinds, parameters, arguments). */
#define CALL(type, name, kinds, parameters, arguments)                  \
	type __real_##name parameters;                                  \
	type __wrap_##name parameters;                                  \
	type __wrap_##name parameters                                   \
	{                                                               \
		int error = page ? fault((unsigned)(kinds), #name) : 0; \
                                                                        \
		if (error) {                                            \
			errno = error;                                  \
			return -1;                                      \
		}                                                       \
		return __real_##name arguments;                         \
	}

CALL(int, renameat, NAMES | LASTING, (int a, const char *from, int b, const char *to),
     (a, from, b, to))
CALL(int, linkat, NAMES | LASTING, (int a, const char *from, int b, const char *to, int flags),
     (a, from, b, to, flags))
CALL(int, unlinkat, NAMES | LASTING, (int dir, const char *name, int flags), (dir, name, flags))
CALL(int, mkdirat, NAMES | LASTING, (int dir, const char *name, mode_t mode), (dir, name, mode))
CALL(int, ftruncate, kind_of(fd, true), (int fd, off_t size), (fd, size))
CALL(int, fallocate, kind_of(fd, true), (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
CALL(int, memfd_create, DESCRIPTORS | LASTING, (const char *name, unsigned flags), (name, flags))
CALL(int, eventfd, DESCRIPTORS | LASTING, (unsigned value, int flags), (value, flags))
CALL(int, epoll_create1, DESCRIPTORS | LASTING, (int flags), (flags))
CALL(int, socket, DESCRIPTORS | LASTING, (int domain, int type, int protocol),
     (domain, type, protocol))
CALL(int, socketpair, DESCRIPTORS | LASTING, (int domain, int type, int protocol, int fd[2]),
     (domain, type, protocol, fd))
CALL(int, accept4, DESCRIPTORS, (int fd, struct sockaddr *peer, socklen_t *n, int flags),
     (fd, peer, n, flags))
CALL(int, epoll_wait, WAITS, (int fd, struct epoll_event *e, int max, int ms), (fd, e, max, ms))
CALL(ssize_t, recvmsg, RECEIVES | WHOLE, (int fd, struct msghdr *m, int flags), (fd, m, flags))
CALL(ssize_t, sendmsg, SENDS | WHOLE, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
CALL(int, recvmmsg, RECEIVES | WHOLE,
     (int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t), (fd, m, n, flags, t))

int __real_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;
	int error = page ? fault(NAMES | DESCRIPTORS, "openat") : 0;

	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if (error) {
		errno = error;
		return -1;
	}
	return __real_openat(dir, name, flags, mode);
}

/* Half of a read or write, at least a byte; the whole of what has no half. */
static size_t half(int error, size_t n)
{
	return error == SHORT && n > 1 ? n / 2 : n;
}

/* Those that may do a part: PART(name, is_write, more parameters, more arguments). */
#define PART(name, data, is_write, more, arguments)                         \
	ssize_t __real_##name(int fd, data p, size_t n more);               \
	ssize_t __wrap_##name(int fd, data p, size_t n more);               \
	ssize_t __wrap_##name(int fd, data p, size_t n more)                \
	{                                                                   \
		int error = page ? fault(kind_of(fd, is_write), #name) : 0; \
                                                                            \
		if (error > 0) {                                            \
			errno = error;                                      \
			return -1;                                          \
		}                                                           \
		n = half(error, n);                                         \
		return __real_##name arguments;                             \
	}

#define AND ,
PART(read, void *, false, , (fd, p, n))
PART(pread, void *, false, AND off_t at, (fd, p, n, at))
PART(write, const void *, true, , (fd, p, n))
PART(recv, void *, false, AND int flags, (fd, p, n, flags))
PART(send, const void *, true, AND int flags, (fd, p, n, flags))

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
	int error = page ? fault(kind_of(fd, true), "pwrite") : 0;
	ssize_t put;

	if (error > 0) {
		errno = error;
		return -1;
	}
	put = __real_pwrite(fd, p, half(error, n), at);
	if (put > 0)
		note_dirty(fd, (uint64_t)at, (uint64_t)put);
	return put;
}

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	int error = page ? fault(kind_of(fd, true), "pwritev") : 0;
	ssize_t put;

	if (error > 0) {
		errno = error;
		return -1;
	}
	if (error == SHORT)
		put = __real_pwrite(fd, iov->iov_base, half(error, iov->iov_len), at);
	else
		put = __real_pwritev(fd, iov, n, at);
	if (put > 0)
		note_dirty(fd, (uint64_t)at, (uint64_t)put);
	return put;
}

#define SYNC(name)                                                        \
	int __real_##name(int fd);                                        \
	int __wrap_##name(int fd);                                        \
	int __wrap_##name(int fd)                                         \
	{                                                                 \
		int error = page ? fault(SYNCS, #name) : 0, result;       \
		uint32_t before = page ? atomic_load(&page->dirty_n) : 0; \
                                                                          \
		if (error) {                                              \
			if (error == LOSE)                                \
				lose(fd);                                 \
			errno = error == LOSE ? EIO : error;              \
			return -1;                                        \
		}                                                         \
		result = __real_##name(fd);                               \
		if (result == 0)                                          \
			clean(fd, before);                                \
		return result;                                            \
	}

SYNC(fsync)
SYNC(fdatasync)
