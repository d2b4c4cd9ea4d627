/* The wrapped calls: -Wl,--wrap=NAME of the Makefile makes NAME mean __wrap_NAME in every object
 * that is linked here, and __real_NAME the one of libc. */
#ifndef SIM_SIM_POSIX_H
#define SIM_SIM_POSIX_H

#include "sim/sim_priv.h"

#include <stdarg.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <time.h>

/* Among the flags of file_open: nobody else runs meanwhile. */
enum { FILE_AT_ONCE = 0x10000 };

struct sim_process *posix_here(void); /* NULL: the driver runs */
/* 0, or -1 with errno set. */
int posix_result(enum err err);
/* Closes what a dying process has open in libraries. */
void handles_end(struct sim_process *p);
MUST_USE enum err file_sync_range(struct sim *s, struct sim_file *f, uint64_t at, size_t n);

int __real_open(const char *path, int how, ...);
int __real_close(int fd);
ssize_t __real_read(int fd, void *p, size_t n);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_pread(int fd, void *p, size_t n, off_t at);
ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
off_t __real_lseek(int fd, off_t at, int from);
int __real_ftruncate(int fd, off_t size);
int __real_fdatasync(int fd);
int __real_unlink(const char *path);
int __real_access(const char *path, int how);
int __real_stat(const char *path, struct stat *out);
int __real_fstat64(int fd, struct stat *out);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t n);
int __real_msync(void *at, size_t n, int flags);
int __real_madvise(void *at, size_t n, int advice);
pid_t __real_getpid(void);
int __real_fcntl(int fd, int command, ...);
int __real_gettimeofday(struct timeval *t, void *zone);
time_t __real_time(time_t *t);

int __wrap_open(const char *path, int how, ...);
int __wrap_open64(const char *path, int how, ...);
int __wrap_close(int fd);
ssize_t __wrap_read(int fd, void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int count);
ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
off_t __wrap_lseek(int fd, off_t at, int from);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_unlink(const char *path);
int __wrap_access(const char *path, int how);
int __wrap_stat(const char *path, struct stat *out);
int __wrap_stat64(const char *path, struct stat *out);
int __wrap_lstat64(const char *path, struct stat *out);
int __wrap_fstat64(int fd, struct stat *out);
int __wrap___fxstat(int version, int fd, struct stat *out);
int __wrap_fstatfs(int fd, struct statfs *out);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t n);
int __wrap_msync(void *at, size_t n, int flags);
int __wrap_madvise(void *at, size_t n, int advice);
pid_t __wrap_getpid(void);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_gettimeofday(struct timeval *t, void *zone);
time_t __wrap_time(time_t *t);
int __wrap_usleep(useconds_t microseconds);
unsigned __wrap_sleep(unsigned seconds);
char *__wrap_getcwd(char *p, size_t n);
ssize_t __wrap_readlink(const char *path, char *p, size_t n);
int __wrap_fchmod(int fd, mode_t mode);
int __wrap_fchown(int fd, uid_t uid, gid_t gid);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_consistent(pthread_mutex_t *m);

#endif
