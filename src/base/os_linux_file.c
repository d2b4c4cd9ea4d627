/* os.h over Linux: clocks, chance, files, memory as descriptors, the syncer.
 *
 * Thin: one call each, EINTR retried, errno turned into enum err. The syncer is the one thread that
 * a role may have: it waits in fdatasync, so that the event loop does not, and tells by an eventfd.
 */
#include "base/os.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* Retries what a signal interrupted; the value of the call. */
#define RETRY(call)                                     \
	({                                              \
		__typeof__(call) retry_;                \
		do                                      \
			retry_ = (call);                \
		while (retry_ == -1 && errno == EINTR); \
		retry_;                                 \
	})

int64_t os_monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t os_wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int os_zone_minutes(int64_t wall_us)
{
	time_t t = (time_t)(wall_us / 1000000);
	struct tm tm;

	return localtime_r(&t, &tm) ? (int)(tm.tm_gmtoff / 60) : 0;
}

void os_random(void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = getrandom((char *)p + done, MIN(n - done, (size_t)256), 0);

		if (got < 0 && errno != EINTR)
			panic("getrandom: %d", errno);
		done += got > 0 ? (size_t)got : 0;
	}
}

uint64_t os_random_u64(void)
{
	uint64_t v;

	os_random(&v, sizeof(v));
	return v;
}

static int at_dir(int dir)
{
	return dir < 0 ? AT_FDCWD : dir;
}

enum err os_open(int dir, const char *name, unsigned flags, int *fd)
{
	int how = O_CLOEXEC | O_NOCTTY;
	mode_t mode = flags & OS_GROUP_READ ? 0640 : 0600;

	if ((flags & OS_READ) && (flags & OS_WRITE))
		how |= O_RDWR;
	else
		how |= flags & OS_WRITE ? O_WRONLY : O_RDONLY;
	how |= flags & OS_CREATE ? O_CREAT : 0;
	how |= flags & OS_EXCLUSIVE ? O_EXCL : 0;
	how |= flags & OS_APPEND ? O_APPEND : 0;
	how |= flags & OS_DIRECTORY ? O_DIRECTORY : 0;
	how |= flags & OS_TRUNCATE ? O_TRUNC : 0;
	*fd = RETRY(openat(at_dir(dir), name, how, mode));
	return *fd < 0 ? err_from_errno(errno) : ERR_OK;
}

void os_close(int fd)
{
	if (fd >= 0)
		close(fd); /* Linux: the descriptor is gone even after EINTR */
}

static enum err transfer_result(ssize_t n, size_t wanted, size_t *done)
{
	if (n < 0) {
		*done = 0;
		return err_from_errno(errno);
	}
	*done = (size_t)n;
	return n == 0 && wanted > 0 ? ERR_EOF : ERR_OK;
}

enum err os_read(int fd, void *p, size_t n, size_t *done)
{
	return transfer_result(RETRY(read(fd, p, n)), n, done);
}

enum err os_pread(int fd, void *p, size_t n, uint64_t at, size_t *done)
{
	return transfer_result(RETRY(pread(fd, p, n, (off_t)at)), n, done);
}

enum err os_pread_all(int fd, void *p, size_t n, uint64_t at)
{
	enum err err;
	size_t got;

	for (size_t done = 0; done < n; done += got)
		if ((err = os_pread(fd, (char *)p + done, n - done, at + done, &got)))
			return err;
	return ERR_OK;
}

enum err os_write(int fd, const void *p, size_t n, size_t *done)
{
	ssize_t put = RETRY(write(fd, p, n));

	*done = put > 0 ? (size_t)put : 0;
	return put < 0 ? err_from_errno(errno) : ERR_OK;
}

enum err os_write_all(int fd, str s)
{
	enum err err;
	size_t put;

	for (; s.n; s = str_from(s, put)) {
		if ((err = os_write(fd, s.p, s.n, &put)))
			return err;
		if (put == 0)
			return ERR_IO;
	}
	return ERR_OK;
}

enum err os_pwrite_all(int fd, str s, uint64_t at)
{
	while (s.n) {
		ssize_t put = RETRY(pwrite(fd, s.p, s.n, (off_t)at));

		if (put < 0)
			return err_from_errno(errno);
		if (put == 0)
			return ERR_IO;
		s = str_from(s, (size_t)put);
		at += (uint64_t)put;
	}
	return ERR_OK;
}

enum err os_pwritev_all(int fd, struct iovec *iov, unsigned n, uint64_t at)
{
	while (n) {
		ssize_t put = RETRY(pwritev(fd, iov, (int)MIN(n, (unsigned)IOV_MAX), (off_t)at));
		size_t left;

		if (put < 0)
			return err_from_errno(errno);
		at += (uint64_t)put;
		for (left = (size_t)put; n && left >= iov->iov_len; iov++, n--)
			left -= iov->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + left;
			iov->iov_len -= left;
			if (put == 0)
				return ERR_IO;
		}
	}
	return ERR_OK;
}

static enum err result(int r)
{
	return r == -1 ? err_from_errno(errno) : ERR_OK;
}

enum err os_fdatasync(int fd)
{
	return result(RETRY(fdatasync(fd)));
}

enum err os_fsync(int fd)
{
	return result(RETRY(fsync(fd)));
}

enum err os_truncate(int fd, uint64_t size)
{
	return result(RETRY(ftruncate(fd, (off_t)size)));
}

enum err os_allocate(int fd, uint64_t at, uint64_t n)
{
	struct stat st;

	if (RETRY(fallocate(fd, 0, (off_t)at, (off_t)n)) == 0)
		return ERR_OK;
	if (errno != EOPNOTSUPP || fstat(fd, &st))
		return err_from_errno(errno);
	/* A file system without fallocate: the size alone; a full disk then shows at the write. */
	return (uint64_t)st.st_size < at + n ? result(RETRY(ftruncate(fd, (off_t)(at + n))))
					     : ERR_OK;
}

enum err os_rename(int dir, const char *from, const char *to)
{
	return result(renameat(at_dir(dir), from, at_dir(dir), to));
}

enum err os_link(int dir, const char *from, const char *to)
{
	return result(linkat(at_dir(dir), from, at_dir(dir), to, 0));
}

enum err os_unlink(int dir, const char *name)
{
	return result(unlinkat(at_dir(dir), name, 0));
}

enum err os_mkdir(int dir, const char *name, unsigned mode)
{
	return result(mkdirat(at_dir(dir), name, mode));
}

enum err os_lock_file(int fd)
{
	if (RETRY(flock(fd, LOCK_EX | LOCK_NB)) == 0)
		return ERR_OK;
	return errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
}

static void stat_out(const struct stat *st, struct os_stat *out)
{
	*out = (struct os_stat){
		.size = (uint64_t)st->st_size,
		.inode = st->st_ino,
		.modified_us = (int64_t)st->st_mtim.tv_sec * 1000000 + st->st_mtim.tv_nsec / 1000,
		.is_directory = S_ISDIR(st->st_mode),
		.is_file = S_ISREG(st->st_mode),
		.is_socket = S_ISSOCK(st->st_mode),
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
	};
}

enum err os_stat(int dir, const char *name, struct os_stat *out)
{
	struct stat st;

	if (fstatat(at_dir(dir), name, &st, 0))
		return err_from_errno(errno);
	stat_out(&st, out);
	return ERR_OK;
}

enum err os_fstat(int fd, struct os_stat *out)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_from_errno(errno);
	stat_out(&st, out);
	return ERR_OK;
}

enum err os_space(int fd, struct os_space *out)
{
	struct statvfs v;

	if (fstatvfs(fd, &v))
		return err_from_errno(errno);
	out->total = (uint64_t)v.f_blocks * v.f_frsize;
	out->free = (uint64_t)v.f_bavail * v.f_frsize;
	return ERR_OK;
}

static enum err list_entries(DIR *d, struct arena *a, str **names, size_t *count)
{
	size_t room = 0;
	struct dirent *e;

	for (*count = 0, *names = NULL; errno = 0, (e = readdir(d));) {
		str name = str_from_c(e->d_name);

		if (str_eq(name, S(".")) || str_eq(name, S("..")))
			continue;
		if (*count == room) {
			str *more = arena_array(a, room = room ? room * 2 : 64, sizeof(str));

			if (!more)
				return ERR_NO_MEMORY;
			if (*count)
				memcpy(more, *names, *count * sizeof(str));
			*names = more;
		}
		name = arena_str(a, name);
		if (!name.p)
			return ERR_NO_MEMORY;
		(*names)[(*count)++] = name;
	}
	return errno ? err_from_errno(errno) : ERR_OK;
}

enum err os_list(int dir, struct arena *a, str **names, size_t *count)
{
	int fd = openat(at_dir(dir), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	enum err err;

	if (!d) {
		err = err_from_errno(errno);
		os_close(fd);
		return err;
	}
	err = list_entries(d, a, names, count);
	closedir(d);
	return err;
}

enum { MEMFD_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

enum err os_memfd(str contents, bool sealed, int *fd)
{
	enum err err;

	*fd = memfd_create("posthorn", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return err_from_errno(errno);
	if ((err = os_write_all(*fd, contents)) == ERR_OK && sealed)
		err = os_memfd_seal(*fd);
	if (err) {
		os_close(*fd);
		*fd = -1;
	}
	return err;
}

enum err os_memfd_seal(int fd)
{
	return result(fcntl(fd, F_ADD_SEALS, MEMFD_SEALS));
}

enum err os_memfd_check(int fd, uint64_t *size)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & MEMFD_SEALS) != MEMFD_SEALS || fstat(fd, &st))
		return ERR_PROTOCOL;
	*size = (uint64_t)st.st_size;
	return ERR_OK;
}

int os_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

void os_fd_path(int fd, char path[OS_FD_PATH_SIZE])
{
	snprintf(path, OS_FD_PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* The syncer: one job at a time, handed over through an atomic state and two eventfds. */
enum { SYNC_IDLE, SYNC_ASKED, SYNC_DONE, SYNC_QUIT };

struct os_syncer {
	pthread_t thread;
	int ask, tell;
	int fd;
	bool is_folder;
	enum err result;
	atomic_int state;
};

static void eventfd_signal(int fd)
{
	uint64_t one = 1;

	if (RETRY(write(fd, &one, sizeof(one))) != sizeof(one))
		panic("eventfd: %d", errno);
}

static void *syncer_thread(void *arg)
{
	struct os_syncer *s = arg;
	uint64_t n;

	for (;;) {
		if (RETRY(read(s->ask, &n, sizeof(n))) != sizeof(n))
			panic("syncer: %d", errno);
		if (atomic_load(&s->state) == SYNC_QUIT)
			return NULL;
		s->result = s->is_folder ? os_fsync(s->fd) : os_fdatasync(s->fd);
		atomic_store(&s->state, SYNC_DONE);
		eventfd_signal(s->tell);
	}
}

enum err os_syncer_new(struct os_syncer **out)
{
	struct os_syncer *s = calloc(1, sizeof(*s));
	pthread_attr_t attr;
	int failed;

	if (!s)
		return ERR_NO_MEMORY;
	s->ask = eventfd(0, EFD_CLOEXEC);
	s->tell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	failed = s->ask < 0 || s->tell < 0 || pthread_create(&s->thread, &attr, syncer_thread, s);
	pthread_attr_destroy(&attr);
	if (failed) {
		os_close(s->ask);
		os_close(s->tell);
		free(s);
		return ERR_NO_MEMORY;
	}
	*out = s;
	return ERR_OK;
}

void os_syncer_free(struct os_syncer *s)
{
	if (!s)
		return;
	while (atomic_load(&s->state) == SYNC_ASKED)
		usleep(100);
	atomic_store(&s->state, SYNC_QUIT);
	eventfd_signal(s->ask);
	pthread_join(s->thread, NULL);
	os_close(s->ask);
	os_close(s->tell);
	free(s);
}

int os_syncer_fd(const struct os_syncer *s)
{
	return s->tell;
}

static void sync_start(struct os_syncer *s, int fd, bool is_folder)
{
	assert(atomic_load(&s->state) == SYNC_IDLE);
	s->fd = fd;
	s->is_folder = is_folder;
	atomic_store(&s->state, SYNC_ASKED);
	eventfd_signal(s->ask);
}

void os_sync_start(struct os_syncer *s, int fd)
{
	sync_start(s, fd, false);
}

void os_sync_start_folder(struct os_syncer *s, int fd)
{
	sync_start(s, fd, true);
}

enum err os_sync_result(struct os_syncer *s)
{
	uint64_t n;

	if (atomic_load(&s->state) != SYNC_DONE)
		return ERR_AGAIN;
	(void)!read(s->tell, &n, sizeof(n));
	atomic_store(&s->state, SYNC_IDLE);
	return s->result;
}
