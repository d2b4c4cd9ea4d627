/* The other calls of libraries: locks, mutexes in shared memory, the clock, and what they keep
 * open.
 *
 * LMDB's mutexes lie in its lock file, which processes share, and survive the process that holds
 * one: the next that locks is told so (EOWNERDEAD), as by a robust mutex. SQLite is told to make
 * none (sim_new).
 *
 * What a process has open in libraries that keep it outside the process's heap (SQLite, iconv,
 * OpenSSL) is
 * noted, and closed when the process ends.
 */
#include "sim/sim_posix.h"

#include "sim/sim_locks.h"

#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdio.h>

enum { LOCK_RETRY = SIM_MILLISECOND };

/* ---- locks of files ---- */

static int lock_set(struct sim_process *p, struct sim_inode *i, int command, struct flock *l)
{
	int64_t to = l->l_len ? l->l_start + l->l_len : INT64_MAX;
	bool is_exclusive = l->l_type == F_WRLCK;
	int other = 0;

	if (l->l_type != F_UNLCK)
		other = lock_conflict(i, p->number, is_exclusive, l->l_start, to);
	if (command == F_GETLK) {
		l->l_type = other ? F_WRLCK : F_UNLCK;
		l->l_pid = other;
		return 0;
	}
	while (other && command == F_SETLKW) {
		process_wait(p, NULL, p->sim->now + LOCK_RETRY);
		other = lock_conflict(i, p->number, is_exclusive, l->l_start, to);
	}
	if (other) {
		errno = EAGAIN;
		return -1;
	}
	lock_range(i, p->number,
		   l->l_type == F_UNLCK ? LOCK_NONE
		   : is_exclusive	? LOCK_EXCLUSIVE
					: LOCK_SHARED,
		   l->l_start, to);
	return 0;
}

static int file_control(int fd, int command, void *argument)
{
	struct sim_process *p = posix_here();
	struct sim_object *o;

	if (!p)
		return __real_fcntl(fd, command, argument);
	o = process_object(p, fd);
	if (!o || o->kind != SIM_FILE)
		return posix_result(ERR_CLOSED);
	if (command == F_SETLK || command == F_SETLKW || command == F_GETLK)
		return lock_set(p, o->file.inode, command, argument);
	return 0; /* flags of descriptors: nothing is executed here */
}

int __wrap_fcntl(int fd, int command, ...)
{
	va_list args;
	void *argument;

	va_start(args, command);
	argument = va_arg(args, void *);
	va_end(args);
	return file_control(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, ...)
{
	va_list args;
	void *argument;

	va_start(args, command);
	argument = va_arg(args, void *);
	va_end(args);
	return file_control(fd, command, argument);
}

/* ---- mutexes: the first bytes are the number of the process that has it ---- */

static void owner_set(pthread_mutex_t *m, int owner)
{
	memcpy(m, &owner, sizeof(owner));
}

static int owner_of(const pthread_mutex_t *m)
{
	int owner;

	memcpy(&owner, m, sizeof(owner));
	return owner;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a UNUSED)
{
	owner_set(m, 0);
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m UNUSED)
{
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	struct sim_process *p = posix_here();
	int owner;

	if (!p)
		return 0;
	while ((owner = owner_of(m)) && sim_is_alive(p->sim, owner))
		process_wait(p, NULL, p->sim->now + LOCK_RETRY);
	owner_set(m, p->number);
	return owner ? EOWNERDEAD : 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	if (posix_here())
		owner_set(m, 0);
	return 0;
}

int __wrap_pthread_mutex_consistent(pthread_mutex_t *m UNUSED)
{
	return 0;
}

/* ---- the machine ---- */

pid_t __wrap_getpid(void)
{
	struct sim_process *p = posix_here();

	return p ? p->number : __real_getpid();
}

int __wrap_fstatfs(int fd UNUSED, struct statfs *out)
{
	memset(out, 0, sizeof(*out));
	return 0;
}

int __wrap_gettimeofday(struct timeval *t, void *zone)
{
	int64_t now;

	if (!posix_here())
		return __real_gettimeofday(t, zone);
	now = os_wall_us();
	t->tv_sec = now / 1000000;
	t->tv_usec = now % 1000000;
	return 0;
}

time_t __wrap_time(time_t *t)
{
	time_t now;

	if (!posix_here())
		return __real_time(t);
	now = os_wall_us() / 1000000;
	if (t)
		*t = now;
	return now;
}

/* SQLite waits for a lock: nobody may run meanwhile, but time goes on. */
int __wrap_usleep(useconds_t microseconds)
{
	struct sim_process *p = posix_here();

	if (p)
		p->sim->now += (int64_t)microseconds * SIM_MICROSECOND;
	return 0;
}

unsigned __wrap_sleep(unsigned seconds)
{
	__wrap_usleep(seconds * 1000000);
	return 0;
}

char *__wrap_getcwd(char *p, size_t n)
{
	snprintf(p, n, "/");
	return p;
}

ssize_t __wrap_readlink(const char *path UNUSED, char *p UNUSED, size_t n UNUSED)
{
	errno = EINVAL; /* there are no links */
	return -1;
}

int __wrap_fchmod(int fd UNUSED, mode_t mode UNUSED)
{
	return 0;
}

int __wrap_fchown(int fd UNUSED, uid_t uid UNUSED, gid_t gid UNUSED)
{
	return 0;
}

/* ---- what libraries keep open ---- */

struct sim_handle {
	struct sim_handle *next;
	sqlite3 *db;
	sqlite3_vfs *layer;
	iconv_t charset; /* NULL: none */
	OSSL_LIB_CTX *crypto;
};

int __real_sqlite3_open_v2(const char *name, sqlite3 **db, int flags, const char *layer);
int __real_sqlite3_close(sqlite3 *db);
int __real_sqlite3_vfs_register(sqlite3_vfs *layer, int is_default);
int __real_sqlite3_vfs_unregister(sqlite3_vfs *layer);
int __wrap_sqlite3_open_v2(const char *name, sqlite3 **db, int flags, const char *layer);
int __wrap_sqlite3_close(sqlite3 *db);
int __wrap_sqlite3_vfs_register(sqlite3_vfs *layer, int is_default);
int __wrap_sqlite3_vfs_unregister(sqlite3_vfs *layer);
iconv_t __real_iconv_open(const char *to, const char *from);
int __real_iconv_close(iconv_t charset);
iconv_t __wrap_iconv_open(const char *to, const char *from);
int __wrap_iconv_close(iconv_t charset);
OSSL_LIB_CTX *__real_OSSL_LIB_CTX_new(void);
void __real_OSSL_LIB_CTX_free(OSSL_LIB_CTX *crypto);
OSSL_LIB_CTX *__wrap_OSSL_LIB_CTX_new(void);
void __wrap_OSSL_LIB_CTX_free(OSSL_LIB_CTX *crypto);
int __real_BIO_get_new_index(void);
int __wrap_BIO_get_new_index(void);

static void note(struct sim_handle h)
{
	struct sim_process *p = posix_here();
	struct sim_handle *noted;

	if (!p || (!h.db && !h.layer && !h.charset && !h.crypto))
		return;
	noted = sim_alloc(sizeof(*noted));
	*noted = h;
	noted->next = p->handles;
	p->handles = noted;
}

static void forget(struct sim_handle h)
{
	struct sim_process *p = posix_here();

	for (struct sim_handle **at = p ? &p->handles : NULL, *d; at && (d = *at); at = &d->next)
		if (d->db == h.db && d->layer == h.layer && d->charset == h.charset &&
		    d->crypto == h.crypto) {
			*at = d->next;
			sim_release(d);
			return;
		}
}

int __wrap_sqlite3_open_v2(const char *name, sqlite3 **db, int flags, const char *layer)
{
	int rc = __real_sqlite3_open_v2(name, db, flags, layer);

	note((struct sim_handle){ .db = *db });
	return rc;
}

int __wrap_sqlite3_close(sqlite3 *db)
{
	forget((struct sim_handle){ .db = db });
	return __real_sqlite3_close(db);
}

int __wrap_sqlite3_vfs_register(sqlite3_vfs *layer, int is_default)
{
	note((struct sim_handle){ .layer = layer });
	return __real_sqlite3_vfs_register(layer, is_default);
}

int __wrap_sqlite3_vfs_unregister(sqlite3_vfs *layer)
{
	forget((struct sim_handle){ .layer = layer });
	return __real_sqlite3_vfs_unregister(layer);
}

iconv_t __wrap_iconv_open(const char *to, const char *from)
{
	iconv_t charset = __real_iconv_open(to, from);

	if (charset != (iconv_t)-1)
		note((struct sim_handle){ .charset = charset });
	return charset;
}

int __wrap_iconv_close(iconv_t charset)
{
	forget((struct sim_handle){ .charset = charset });
	return __real_iconv_close(charset);
}

OSSL_LIB_CTX *__wrap_OSSL_LIB_CTX_new(void)
{
	OSSL_LIB_CTX *crypto = __real_OSSL_LIB_CTX_new();

	note((struct sim_handle){ .crypto = crypto });
	return crypto;
}

void __wrap_OSSL_LIB_CTX_free(OSSL_LIB_CTX *crypto)
{
	forget((struct sim_handle){ .crypto = crypto });
	__real_OSSL_LIB_CTX_free(crypto);
}

/* There are 128 of them for the life of a real process. */
int __wrap_BIO_get_new_index(void)
{
	if (!sim_here->bio_index)
		sim_here->bio_index = __real_BIO_get_new_index();
	return sim_here->bio_index;
}

void handles_end(struct sim_process *p)
{
	while (p->handles) {
		struct sim_handle *d = p->handles;
		sqlite3_stmt *s;

		p->handles = d->next;
		while (d->db && (s = sqlite3_next_stmt(d->db, NULL)))
			sqlite3_finalize(s);
		if (d->db && __real_sqlite3_close(d->db) != SQLITE_OK)
			panic("a database of %s does not close", p->name);
		if (d->charset)
			__real_iconv_close(d->charset);
		if (d->crypto)
			__real_OSSL_LIB_CTX_free(d->crypto);
		if (d->layer)
			__real_sqlite3_vfs_unregister(d->layer);
		sim_release(d);
	}
}
