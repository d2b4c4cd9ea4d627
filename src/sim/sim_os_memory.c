/* base/os.h over the simulator: clocks, chance, memory as descriptors, the syncer.
 *
 * The syncer is a thread in the real process; here its fdatasync is an event that comes when the
 * disk is done. A process that dies meanwhile may have left the sync undone. */
#include "sim/sim_priv.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

enum { ZONE_MINUTES = 60 };

int64_t os_monotonic_ns(void)
{
	return process_here()->sim->now;
}

int64_t os_wall_us(void)
{
	return SIM_EPOCH_US + process_here()->sim->now / SIM_MICROSECOND;
}

int os_zone_minutes(int64_t wall_us UNUSED)
{
	return ZONE_MINUTES;
}

void os_random(void *p, size_t n)
{
	struct sim *s = process_here()->sim;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = sim_random_next(&s->entropy);

		memcpy((char *)p + i, &v, MIN(n - i, (size_t)8));
	}
}

uint64_t os_random_u64(void)
{
	return sim_random_next(&process_here()->sim->entropy);
}

/* ---- memory ---- */

enum err os_memfd(str contents, bool sealed, int *fd)
{
	struct sim_process *p = process_here();
	struct sim_inode *i = sim_inode_anonymous(p->sim->fs);
	struct sim_object *o = file_new(p->sim, i, "memory", OS_READ | OS_WRITE);
	enum err err = process_fd(p, o, 3, fd);

	sim_inode_drop(i);
	if (!err)
		err = os_write_all(*fd, contents);
	if (!err && sealed)
		err = os_memfd_seal(*fd);
	if (err) {
		process_close(p, *fd);
		*fd = -1;
	}
	object_drop(o);
	return err;
}

enum err os_memfd_seal(int fd)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);

	if (!f || !sim_inode_facts(f->inode).is_anonymous)
		return ERR_DENIED;
	sim_inode_flag(f->inode, SIM_INODE_SEALED, true);
	return ERR_OK;
}

enum err os_memfd_check(int fd, uint64_t *size)
{
	struct sim_process *p;
	struct sim_file *f = file_of(fd, &p);
	struct sim_inode_facts facts;

	if (!f)
		return ERR_PROTOCOL;
	facts = sim_inode_facts(f->inode);
	*size = facts.size;
	return facts.flags & SIM_INODE_SEALED ? ERR_OK : ERR_PROTOCOL;
}

int os_dup(int fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o = process_object(p, fd);
	int copy;

	return o && !process_fd(p, o, 3, &copy) ? copy : -1;
}

void os_fd_path(int fd, char path[OS_FD_PATH_SIZE])
{
	snprintf(path, OS_FD_PATH_SIZE, SIM_FD_PATH "%d", fd);
}

void os_describe_fds(struct buf *out)
{
	const struct sim_process *p = process_here();
	unsigned n = 0;

	for (int fd = 0; fd < p->fds_end; fd++)
		n += p->fds[fd] != NULL;
	buf_printf(out, "%u simulated", n);
}

/* ---- the syncer ---- */

struct os_syncer {
	int fd; /* becomes readable */
	struct sim_object *object;
};

enum err os_syncer_new(struct os_syncer **out)
{
	struct sim_process *p = process_here();
	struct os_syncer *x = calloc(1, sizeof(*x));
	enum err err;

	if (!x)
		return ERR_NO_MEMORY;
	x->object = object_new(p->sim, SIM_SYNCER);
	err = process_fd(p, x->object, 3, &x->fd);
	object_drop(x->object);
	if (err)
		free(x);
	else
		*out = x;
	return err;
}

void os_syncer_free(struct os_syncer *x)
{
	struct sim_process *p = process_here();

	if (!x)
		return;
	while (x->object->syncer.file && !x->object->syncer.is_done)
		process_wait(p, x->object, INT64_MAX);
	process_close(p, x->fd);
	free(x);
}

int os_syncer_fd(const struct os_syncer *x)
{
	return x->fd;
}

static void sync_done(struct sim *s, struct sim_object *o)
{
	if (o->refs == 1)
		return; /* its process is gone */
	o->syncer.result = file_sync_now(s, &o->syncer.file->file);
	o->syncer.is_done = true;
	object_changed(o, OS_READY_READ);
}

void os_sync_start(struct os_syncer *x, int fd)
{
	struct sim_process *p = process_here();
	struct sim_object *file = process_object(p, fd), *o = x->object;

	if (!file || file->kind != SIM_FILE || o->syncer.file)
		panic("a sync of nothing, or two at a time");
	object_hold(file);
	o->syncer.file = file;
	file_point(p, "sync", file->file.path);
	event_at(p->sim, p->sim->now + file_sync_time(p->sim), sync_done, o);
}

void os_sync_start_folder(struct os_syncer *x, int fd)
{
	os_sync_start(x, fd);
}

enum err os_sync_result(struct os_syncer *x)
{
	struct sim_object *o = x->object;

	if (!o->syncer.is_done)
		return ERR_AGAIN;
	o->syncer.is_done = false;
	object_drop(o->syncer.file);
	o->syncer.file = NULL;
	return o->syncer.result;
}
