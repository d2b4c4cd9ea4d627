/* base/os.h over the simulator: files.
 *
 * Before each call that changes files of the server, others may run (file_point): that is where a
 * power cut between two calls comes from. A sync takes as long as disks take, and covers what was
 * written until its end. */
#include "sim/sim_posix.h"

#include <stdio.h>

enum {
	SYNC_LEAST = 50 * SIM_MICROSECOND,
	SYNC_USUAL = 1000 * SIM_MICROSECOND,
	SYNC_SLOW = 30 * SIM_MILLISECOND,
	SLOW_IN_1000 = 20,
	SYNC_BUSY = 500 * SIM_MILLISECOND, /* while the disk is slow */
	INTERRUPT_MOST = 100 * SIM_MICROSECOND,
};

/* ---- what happens around a call ---- */

void file_point(struct sim_process *p, const char *what, const char *path)
{
	struct sim *s = p->sim;

	if (p->where != SIM_SERVER || p->is_dying)
		return;
	s->counts.file_operations++;
	sim_trace(s, "%s: %s %s", p->name, what, path);
	if (s->stop_at_file && strstr(path, s->stop_name) && --s->stop_at_file == 0) {
		s->is_at_file = true;
		process_pause(p, 0);
	} else if (sim_random_chance(&s->scheduling, s->options.interrupt)) {
		process_pause(p, (int64_t)sim_random_below(&s->scheduling, INTERRUPT_MOST));
	}
}

int64_t file_sync_time(struct sim *s)
{
	struct sim_random *r = &s->scheduling;
	uint64_t most = sim_random_chance(r, SLOW_IN_1000) ? SYNC_SLOW : SYNC_USUAL;

	if (s->now < s->slow_until)
		most = SYNC_BUSY;
	return SYNC_LEAST + (int64_t)sim_random_below(r, most);
}

enum err file_sync_now(struct sim *s, struct sim_file *f)
{
	bool is_directory = sim_inode_facts(f->inode).is_directory;

	s->counts.syncs++;
	if (s->fails_sync && !is_directory && strstr(f->path, s->fail_name)) {
		s->fails_sync = false;
		sim_inode_sync_failed(f->inode);
		sim_trace(s, "the sync of %s fails", f->path);
		return ERR_IO;
	}
	sim_inode_sync(f->inode);
	return ERR_OK;
}

enum err file_sync_range(struct sim *s, struct sim_file *f, uint64_t at, size_t n)
{
	s->counts.syncs++;
	if (s->fails_sync && strstr(f->path, s->fail_name)) {
		s->fails_sync = false;
		sim_inode_sync_failed(f->inode);
		sim_trace(s, "the synced write to %s fails", f->path);
		return ERR_IO;
	}
	sim_inode_sync_range(f->inode, at, n);
	return ERR_OK;
}

enum err file_sync(struct sim_process *p, struct sim_file *f, bool may_wait)
{
	struct sim_inode *i = f->inode;
	enum err err;

	sim_inode_hold(i);
	if (may_wait) {
		file_point(p, "sync", f->path);
		process_pause(p, file_sync_time(p->sim));
	}
	err = file_sync_now(p->sim, f);
	sim_inode_drop(i);
	return err;
}

/* ---- paths ---- */

enum err file_base(struct sim_process *p, int dir, const char **path, struct sim_inode **base)
{
	struct sim_object *o = NULL;

	*base = NULL;
	if (p->where != SIM_SERVER)
		return ERR_NOT_FOUND;
	if (strncmp(*path, SIM_FD_PATH, strlen(SIM_FD_PATH)) == 0) {
		str rest = str_from_c(*path + strlen(SIM_FD_PATH)), number = str_cut(&rest, '/');
		uint64_t fd;

		if (str_to_u64(number, SIM_FDS_MAX, &fd))
			return ERR_NOT_FOUND;
		dir = (int)fd;
		*path += strlen(SIM_FD_PATH) + number.n;
		while (**path == '/')
			++*path;
	} else if (**path == '/' || dir < 0) {
		return ERR_OK;
	}
	o = process_object(p, dir);
	if (!o || o->kind != SIM_FILE)
		return ERR_CLOSED;
	*base = o->file.inode;
	return ERR_OK;
}

enum err file_find(struct sim_process *p, int dir, const char *path, struct sim_inode **out)
{
	struct sim_inode *base;
	enum err err = file_base(p, dir, &path, &base);

	return err ? err : sim_fs_find(p->sim->fs, base, path, out);
}

struct sim_object *file_new(struct sim *s, struct sim_inode *i, const char *path, unsigned flags)
{
	struct sim_object *o = object_new(s, SIM_FILE);

	sim_inode_hold(i);
	o->file.inode = i;
	o->file.flags = flags;
	snprintf(o->file.path, sizeof(o->file.path), "%s", path);
	return o;
}

static enum err open_existing(struct sim_process *p, struct sim_inode *i, const char *path,
			      unsigned flags, struct sim_object **out)
{
	struct sim_inode_facts f = sim_inode_facts(i);
	enum err err;

	if ((flags & OS_CREATE) && (flags & OS_EXCLUSIVE))
		return ERR_EXISTS;
	if ((flags & OS_DIRECTORY) && !f.is_directory)
		return ERR_NOT_FOUND;
	if ((flags & OS_WRITE) && f.is_directory)
		return ERR_IO;
	if (f.is_socket)
		return ERR_IO;
	*out = file_new(p->sim, i, path, flags);
	if (flags & OS_TRUNCATE && f.size) {
		if (!(flags & FILE_AT_ONCE))
			file_point(p, "truncate", path);
		if ((err = sim_inode_truncate(i, 0))) {
			object_drop(*out);
			return err;
		}
	}
	return ERR_OK;
}

enum err file_open(struct sim_process *p, int dir, const char *path, unsigned flags, unsigned mode,
		   struct sim_object **out)
{
	struct sim_fs *fs = p->sim->fs;
	struct sim_inode *base, *i;
	enum err err = file_base(p, dir, &path, &base);

	if (err)
		return err;
	err = sim_fs_find(fs, base, path, &i);
	if (!err)
		return open_existing(p, i, path, flags, out);
	if (err != ERR_NOT_FOUND || !(flags & OS_CREATE))
		return err;
	if (!(flags & FILE_AT_ONCE))
		file_point(p, "create", path);
	/* Somebody else may have made it meanwhile. */
	if (sim_fs_find(fs, base, path, &i) == ERR_OK)
		return open_existing(p, i, path, flags, out);
	if ((err = sim_fs_create(fs, base, path, mode, false, &i)))
		return err;
	sim_inode_touch(i, os_wall_us());
	*out = file_new(p->sim, i, path, flags);
	return ERR_OK;
}

/* ---- base/os.h: files ---- */

enum err os_open(int dir, const char *name, unsigned flags, int *fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o;
	enum err err;

	*fd = -1;
	if ((err = file_open(p, dir, name, flags, flags & OS_GROUP_READ ? 0640 : 0600, &o)))
		return err;
	if (flags & OS_WRITE)
		sim_inode_flag(o->file.inode, SIM_INODE_TORN, true);
	err = process_fd(p, o, 3, fd);
	object_drop(o);
	return err;
}

void os_close(int fd)
{
	process_close(process_here(), fd);
}

struct sim_file *file_of(int fd, struct sim_process **p)
{
	struct sim_object *o;

	*p = process_here();
	o = process_object(*p, fd);
	return o && o->kind == SIM_FILE ? &o->file : NULL;
}

enum err os_read(int fd, void *p, size_t n, size_t *done)
{
	struct sim_process *here;
	struct sim_file *f = file_of(fd, &here);
	struct sim_object *o = process_object(here, fd);
	enum err err;

	*done = 0;
	if (!f && o && o->kind == SIM_STREAM) {
		/* Commands read from a pair as from a file. */
		while ((err = stream_recv(o, p, n, done)) == ERR_AGAIN)
			process_wait(here, o, INT64_MAX);
		return err;
	}
	if (!f)
		return ERR_CLOSED;
	err = os_pread(fd, p, n, f->offset, done);
	f->offset += *done;
	return err;
}

enum err os_pread(int fd, void *p, size_t n, uint64_t at, size_t *done)
{
	struct sim_process *here;
	struct sim_file *f = file_of(fd, &here);

	*done = 0;
	if (!f)
		return ERR_CLOSED;
	if (sim_inode_facts(f->inode).is_directory)
		return ERR_IO;
	*done = sim_inode_read(f->inode, p, n, at);
	return *done == 0 && n ? ERR_EOF : ERR_OK;
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

static enum err file_write(struct sim_process *p, int fd, struct sim_file *f, str s, uint64_t at)
{
	bool is_file = !sim_inode_facts(f->inode).is_anonymous;

	if (!(f->flags & OS_WRITE))
		return ERR_CLOSED;
	if (is_file) {
		file_point(p, "write", f->path);
		/* It may have been closed meanwhile only by a process that is gone. */
		if (process_object(p, fd) == NULL)
			return ERR_CLOSED;
	}
	sim_inode_touch(f->inode, os_wall_us());
	return sim_inode_write(f->inode, s.p, s.n, at);
}

/* What a role says on standard error. */
static void log_line(struct sim_process *p, str s)
{
	s = str_trim(s);
	sim_trace(p->sim, "%s says: %.*s", p->name, STR_ARGS(s));
}

enum err os_write(int fd, const void *p, size_t n, size_t *done)
{
	struct sim_process *here;
	struct sim_file *f = file_of(fd, &here);
	struct sim_object *o = process_object(here, fd);
	enum err err;

	*done = 0;
	if (o && o->kind == SIM_LOG) {
		log_line(here, str_of(p, n));
		*done = n;
		return ERR_OK;
	}
	if (o && o->kind == SIM_STREAM)
		return stream_send(o, p, n, done);
	if (!f)
		return ERR_CLOSED;
	if (f->flags & OS_APPEND)
		f->offset = sim_inode_facts(f->inode).size;
	err = file_write(here, fd, f, str_of(p, n), f->offset);
	if (!err) {
		f->offset += n;
		*done = n;
	}
	return err;
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
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	return f ? file_write(p, fd, f, s, at) : ERR_CLOSED;
}

enum err os_pwritev_all(int fd, struct iovec *iov, unsigned n, uint64_t at)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);
	enum err err = ERR_OK;

	if (!f || !n)
		return f ? ERR_OK : ERR_CLOSED;
	err = file_write(p, fd, f, str_of(iov[0].iov_base, iov[0].iov_len), at);
	for (unsigned i = 1; i < n && !err; i++) {
		at += iov[i - 1].iov_len;
		err = sim_inode_write(f->inode, iov[i].iov_base, iov[i].iov_len, at);
	}
	return err;
}

enum err os_fdatasync(int fd)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	return f ? file_sync(p, f, true) : ERR_CLOSED;
}

enum err os_fsync(int fd)
{
	return os_fdatasync(fd);
}

enum err os_truncate(int fd, uint64_t size)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	if (!f)
		return ERR_CLOSED;
	file_point(p, "truncate", f->path);
	return sim_inode_truncate(f->inode, size);
}

enum err os_allocate(int fd, uint64_t at, uint64_t n)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	if (!f)
		return ERR_CLOSED;
	file_point(p, "allocate", f->path);
	return sim_inode_allocate(f->inode, at, n);
}

enum err os_rename(int dir, const char *from, const char *to)
{
	struct sim_process *p = process_here();
	struct sim_inode *base;
	enum err err = file_base(p, dir, &from, &base);

	if (err)
		return err;
	file_point(p, "rename", from);
	return sim_fs_rename(p->sim->fs, base, from, to);
}

enum err os_link(int dir, const char *from, const char *to)
{
	struct sim_process *p = process_here();
	struct sim_inode *base;
	enum err err = file_base(p, dir, &from, &base);

	if (err)
		return err;
	file_point(p, "link", from);
	return sim_fs_link(p->sim->fs, base, from, to);
}

enum err os_unlink(int dir, const char *name)
{
	struct sim_process *p = process_here();
	struct sim_inode *base;
	enum err err = file_base(p, dir, &name, &base);

	if (err)
		return err;
	file_point(p, "unlink", name);
	return sim_fs_unlink(p->sim->fs, base, name);
}

enum err os_mkdir(int dir, const char *name, unsigned mode)
{
	struct sim_process *p = process_here();
	struct sim_inode *base, *i;
	enum err err = file_base(p, dir, &name, &base);

	if (err)
		return err;
	if (sim_fs_find(p->sim->fs, base, name, &i) == ERR_OK)
		return ERR_EXISTS;
	file_point(p, "mkdir", name);
	return sim_fs_create(p->sim->fs, base, name, mode, true, &i);
}

enum err os_lock_file(int fd)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	return f ? lock_file(process_object(p, fd)) : ERR_CLOSED;
}

static void stat_out(const struct sim_inode *i, struct os_stat *out)
{
	struct sim_inode_facts f = sim_inode_facts(i);

	*out = (struct os_stat){
		.size = f.size,
		.inode = f.number,
		.modified_us = f.modified,
		.is_directory = f.is_directory,
		.is_file = !f.is_directory && !f.is_socket,
		.is_socket = f.is_socket,
		.mode = f.mode,
		.uid = os_uid(),
	};
}

enum err os_stat(int dir, const char *name, struct os_stat *out)
{
	struct sim_inode *i;
	enum err err = file_find(process_here(), dir, name, &i);

	if (!err)
		stat_out(i, out);
	return err;
}

enum err os_fstat(int fd, struct os_stat *out)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	if (!f)
		return ERR_CLOSED;
	stat_out(f->inode, out);
	return ERR_OK;
}

enum err os_space(int fd, struct os_space *out)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);
	uint64_t used = sim_fs_used(p->sim->fs);

	if (!f)
		return ERR_CLOSED;
	out->total = sim_fs_size(p->sim->fs);
	out->free = out->total > used ? out->total - used : 0;
	return ERR_OK;
}

enum err os_list(int dir, struct arena *a, str **names, size_t *count)
{
	struct sim_process *p = process_here();
	struct sim_inode *i;
	const char *name;
	enum err err = file_find(p, dir, ".", &i);

	*count = 0;
	if (err)
		return err;
	while (sim_inode_name(i, *count))
		++*count;
	*names = arena_array(a, MAX(*count, (size_t)1), sizeof(**names));
	for (size_t n = 0; *names && (name = sim_inode_name(i, n)); n++)
		if (!((*names)[n] = arena_str(a, str_from_c(name))).p)
			return ERR_NO_MEMORY;
	return *names ? ERR_OK : ERR_NO_MEMORY;
}
