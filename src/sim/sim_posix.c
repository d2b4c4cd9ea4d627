/* The calls that LMDB, SQLite and a few of our own lines make past base/os.h, wrapped at link time
 * (both libraries are linked statically here), so that they too run on the simulated disk: their
 * files are torn by power cuts, their syncs fail, their locks are seen by other processes.
 *
 * LMDB may be interrupted at each of its calls, and killed there. SQLite keeps state in variables
 * of the whole real process, so it is never interrupted within a call: a power cut falls between
 * two calls of sqlite3_step, and finds what was not synced until then. When a process dies, its
 * databases are closed with every write refused, which gives back that state and changes nothing.
 *
 * Memory that is mapped from a file is the file's own contents, so a read of a page that was
 * written is what a shared mapping would show.
 */
#include "sim/sim_priv.h"

#include "sim/sim_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct sim_process *posix_here(void)
{
	return sim_here ? sim_here->current : NULL;
}

int posix_result(enum err err)
{
	switch ((unsigned)err) {
	case ERR_OK:
		return 0;
	case ERR_NOT_FOUND:
		errno = ENOENT;
		break;
	case ERR_EXISTS:
		errno = EEXIST;
		break;
	case ERR_FULL:
		errno = ENOSPC;
		break;
	case ERR_TOO_MANY:
		errno = EMFILE;
		break;
	case ERR_CLOSED:
		errno = EBADF;
		break;
	case ERR_DENIED:
		errno = EACCES;
		break;
	default:
		errno = EIO;
	}
	return -1;
}

/* All but LMDB's files are SQLite's, and folders that it syncs. */
static bool is_database(const char *path)
{
	return strstr(path, ".mdb") == NULL;
}

/* False: a process that ends changes nothing any more. */
static bool may_change(struct sim_process *p, const char *what, const char *path)
{
	if (p->is_dying)
		return false;
	if (is_database(path))
		sim_trace(p->sim, "%s: %s %s", p->name, what, path);
	else
		file_point(p, what, path);
	return true;
}

static struct sim_file *file_at(int fd)
{
	struct sim_object *o = process_object(posix_here(), fd);

	return o && o->kind == SIM_FILE ? &o->file : NULL;
}

/* ---- open files ---- */

static int library_open(struct sim_process *p, const char *path, int how, unsigned mode)
{
	unsigned flags = how & O_CREAT ? OS_CREATE : 0;
	struct sim_object *o;
	enum err err;
	int fd;

	flags |= (how & O_ACCMODE) == O_RDONLY ? OS_READ : 0u;
	flags |= (how & O_ACCMODE) == O_RDWR ? OS_READ | OS_WRITE : 0u;
	flags |= (how & O_ACCMODE) == O_WRONLY ? OS_WRITE : 0u;
	flags |= how & O_EXCL ? OS_EXCLUSIVE : 0u;
	flags |= how & O_TRUNC ? OS_TRUNCATE : 0u;
	flags |= how & O_DIRECTORY ? OS_DIRECTORY : 0u;
	flags |= is_database(path) ? FILE_AT_ONCE : 0u;
	if (p->is_dying && how & O_CREAT)
		return posix_result(ERR_IO);
	if ((err = file_open(p, -1, path, flags, mode, &o)))
		return posix_result(err);
	sim_inode_flag(o->file.inode, SIM_INODE_LIBRARY, true);
	o->file.is_synced = how & O_DSYNC;
	err = process_fd(p, o, 3, &fd);
	object_drop(o);
	return err ? posix_result(err) : fd;
}

static mode_t mode_of(int how, va_list args)
{
	return how & O_CREAT ? va_arg(args, mode_t) : 0;
}

int __wrap_open(const char *path, int how, ...)
{
	struct sim_process *p = posix_here();
	va_list args;
	mode_t mode;

	va_start(args, how);
	mode = mode_of(how, args);
	va_end(args);
	return p ? library_open(p, path, how, mode) : __real_open(path, how, mode);
}

int __wrap_open64(const char *path, int how, ...)
{
	struct sim_process *p = posix_here();
	va_list args;
	mode_t mode;

	va_start(args, how);
	mode = mode_of(how, args);
	va_end(args);
	return p ? library_open(p, path, how, mode) : __real_open(path, how, mode);
}

int __wrap_close(int fd)
{
	struct sim_process *p = posix_here();

	if (!p)
		return __real_close(fd);
	process_close(p, fd);
	return 0;
}

ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at)
{
	struct sim_file *f;

	if (!posix_here())
		return __real_pread(fd, p, n, at);
	f = file_at(fd);
	return f ? (ssize_t)sim_inode_read(f->inode, p, n, (uint64_t)at) : posix_result(ERR_CLOSED);
}

ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at)
{
	return __wrap_pread(fd, p, n, at);
}

ssize_t __wrap_read(int fd, void *p, size_t n)
{
	struct sim_file *f;
	ssize_t got;

	if (!posix_here())
		return __real_read(fd, p, n);
	f = file_at(fd);
	got = f ? __wrap_pread(fd, p, n, (off_t)f->offset) : posix_result(ERR_CLOSED);
	if (got > 0)
		f->offset += (size_t)got;
	return got;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	struct sim_process *p = posix_here();
	struct sim_file *f;
	enum err err;

	if (!p)
		return __real_pwrite(fd, bytes, n, at);
	if (!(f = file_at(fd)))
		return posix_result(ERR_CLOSED);
	if (!may_change(p, "write", f->path))
		return posix_result(ERR_IO);
	sim_inode_touch(f->inode, os_wall_us());
	err = sim_inode_write(f->inode, bytes, n, (uint64_t)at);
	if (!err && f->is_synced)
		err = file_sync_range(p->sim, f, (uint64_t)at, n);
	return err ? posix_result(err) : (ssize_t)n;
}

ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t n, off_t at)
{
	return __wrap_pwrite(fd, bytes, n, at);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t n)
{
	struct sim_file *f;
	ssize_t put;

	if (!posix_here())
		return __real_write(fd, bytes, n);
	f = file_at(fd);
	put = f ? __wrap_pwrite(fd, bytes, n, (off_t)f->offset) : posix_result(ERR_CLOSED);
	if (put > 0)
		f->offset += (size_t)put;
	return put;
}

ssize_t __wrap_writev(int fd, const struct iovec *iov, int count)
{
	ssize_t all = 0, put;

	for (int i = 0; i < count; i++) {
		if ((put = __wrap_write(fd, iov[i].iov_base, iov[i].iov_len)) < 0)
			return put;
		all += put;
	}
	return all;
}

off_t __wrap_lseek(int fd, off_t at, int from)
{
	struct sim_file *f;

	if (!posix_here())
		return __real_lseek(fd, at, from);
	if (!(f = file_at(fd)))
		return posix_result(ERR_CLOSED);
	if (from == SEEK_END)
		at += (off_t)sim_inode_facts(f->inode).size;
	else if (from == SEEK_CUR)
		at += (off_t)f->offset;
	f->offset = (uint64_t)at;
	return at;
}

int __wrap_ftruncate(int fd, off_t size)
{
	struct sim_process *p = posix_here();
	struct sim_file *f;

	if (!p)
		return __real_ftruncate(fd, size);
	if (!(f = file_at(fd)))
		return posix_result(ERR_CLOSED);
	return may_change(p, "truncate", f->path)
		       ? posix_result(sim_inode_truncate(f->inode, (uint64_t)size))
		       : posix_result(ERR_IO);
}

int __wrap_ftruncate64(int fd, off_t size)
{
	return __wrap_ftruncate(fd, size);
}

int __wrap_fdatasync(int fd)
{
	struct sim_process *p = posix_here();
	struct sim_file *f;

	if (!p)
		return __real_fdatasync(fd);
	if (!(f = file_at(fd)))
		return posix_result(ERR_CLOSED);
	if (p->is_dying)
		return posix_result(ERR_IO);
	if (!is_database(f->path))
		return posix_result(file_sync(p, f, true));
	sim_trace(p->sim, "%s: sync %s", p->name, f->path);
	return posix_result(file_sync(p, f, false));
}

int __wrap_fsync(int fd)
{
	return __wrap_fdatasync(fd);
}

/* ---- names ---- */

int __wrap_unlink(const char *path)
{
	struct sim_process *p = posix_here();

	if (!p)
		return __real_unlink(path);
	if (!may_change(p, "unlink", path))
		return posix_result(ERR_IO);
	return posix_result(is_database(path) ? sim_fs_unlink(p->sim->fs, NULL, path)
					      : os_unlink(-1, path));
}

int __wrap_access(const char *path, int how)
{
	struct sim_process *p = posix_here();
	struct sim_inode *i;

	return p ? posix_result(file_find(p, -1, path, &i)) : __real_access(path, how);
}

static void stat_out(struct sim_process *p, const struct sim_inode *i, struct stat *out)
{
	struct sim_inode_facts f = sim_inode_facts(i);

	memset(out, 0, sizeof(*out));
	out->st_dev = 1;
	/* SQLite keeps a list of files for the whole real process: to it, those of another
	 * simulated process are other files. */
	out->st_ino = (ino_t)(f.number | (uint64_t)p->number << 32);
	out->st_mode = (f.is_directory ? S_IFDIR : S_IFREG) | f.mode;
	out->st_nlink = f.links;
	out->st_uid = os_uid();
	out->st_size = (off_t)f.size;
	out->st_blksize = 4096;
	out->st_mtim.tv_sec = f.modified / 1000000;
}

int __wrap_stat(const char *path, struct stat *out)
{
	struct sim_process *p = posix_here();
	struct sim_inode *i;
	enum err err;

	if (!p)
		return __real_stat(path, out);
	if (!(err = file_find(p, -1, path, &i)))
		stat_out(p, i, out);
	return posix_result(err);
}

int __wrap_stat64(const char *path, struct stat *out)
{
	return __wrap_stat(path, out);
}

int __wrap_lstat64(const char *path, struct stat *out)
{
	return __wrap_stat(path, out);
}

int __wrap_fstat64(int fd, struct stat *out)
{
	struct sim_process *p = posix_here();
	struct sim_file *f;

	if (!p)
		return __real_fstat64(fd, out);
	if (!(f = file_at(fd)))
		return posix_result(ERR_CLOSED);
	stat_out(p, f->inode, out);
	return 0;
}

int __wrap___fxstat(int version UNUSED, int fd, struct stat *out)
{
	return __wrap_fstat64(fd, out);
}

/* ---- memory ---- */

static void mapping_add(struct sim_process *p, char *at, size_t n, struct sim_inode *i)
{
	struct sim_mapping *m = sim_alloc(sizeof(*m));

	*m = (struct sim_mapping){ .next = p->mappings, .at = at, .n = n, .inode = i };
	if (i)
		sim_inode_hold(i);
	p->mappings = m;
}

static void mapping_free(struct sim_mapping *m)
{
	if (m->inode) {
		sim_inode_unmap(m->inode);
		sim_inode_drop(m->inode);
	} else {
#ifdef __SANITIZE_ADDRESS__
		/* A fiber's stack: what comes to lie there next has nothing to do with it. */
		__asan_unpoison_memory_region(m->at, m->n);
#endif
		__real_munmap(m->at, m->n);
	}
	sim_release(m);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	struct sim_process *p = posix_here();
	struct sim_file *f;
	char *m;
	enum err err;

	if (!p)
		return __real_mmap(at, n, protection, flags, fd, offset);
	if (fd < 0) {
		m = __real_mmap(at, n, protection, flags, fd, offset);
		if (m != MAP_FAILED)
			mapping_add(p, m, n, NULL);
		return m;
	}
	f = file_at(fd);
	err = f ? sim_inode_map(f->inode, (uint64_t)offset + n, protection & PROT_WRITE, &m)
		: ERR_CLOSED;
	if (posix_result(err))
		return MAP_FAILED;
	mapping_add(p, m + offset, n, f->inode);
	return m + offset;
}

void *__wrap_mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	return __wrap_mmap(at, n, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t n)
{
	struct sim_process *p = posix_here();

	for (struct sim_mapping **m = p ? &p->mappings : NULL, *found; m && (found = *m);
	     m = &found->next)
		if (found->at == at) {
			*m = found->next;
			mapping_free(found);
			return 0;
		}
	return __real_munmap(at, n);
}

int __wrap_msync(void *at, size_t n, int flags)
{
	return posix_here() ? 0 : __real_msync(at, n, flags);
}

int __wrap_madvise(void *at, size_t n, int advice)
{
	return posix_here() ? 0 : __real_madvise(at, n, advice);
}

void posix_process_ends(struct sim_process *p)
{
	struct sim_process *before = p->sim->current;
	struct sim_heap *heap = sim_heap_use(p->heap);

	p->sim->current = p;
	p->is_dying = true;
	handles_end(p);
	while (p->mappings) {
		struct sim_mapping *m = p->mappings;

		p->mappings = m->next;
		mapping_free(m);
	}
	sim_heap_use(heap);
	p->sim->current = before;
}
