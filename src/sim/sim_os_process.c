/* base/os.h over the simulator: processes, signals, users, terminals.
 *
 * os_spawn of "role NAME" makes a process that runs role_main; a copy (os_fork) gets the
 * descriptors of its origin, and shares its memory, which stays until both are gone. */
#include "sim/sim_priv.h"

#include "roles/role.h"

#include <stdio.h>

enum { USER = 1000, SIGNAL_KILL = 9, SIGNAL_TERM = 15, SIGNAL_HUP = 1 };

enum err os_signals(int *fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o = object_new(p->sim, SIM_SIGNALS);
	enum err err = process_fd(p, o, 3, fd);

	if (!err) {
		o->process = p;
		p->signals_object = o;
	}
	object_drop(o);
	return err;
}

enum err os_signals_read(int fd, unsigned *signals)
{
	struct sim_process *p = process_here();
	struct sim_object *o = process_object(p, fd);

	*signals = 0;
	if (!o || o->kind != SIM_SIGNALS || !p->signals)
		return ERR_AGAIN;
	*signals = p->signals;
	p->signals = 0;
	return ERR_OK;
}

/* ---- roles ---- */

static int role_process(void *arg)
{
	const struct role_ops *ops = arg;

	return role_main(ops, ROLE_CONTROL_FD);
}

enum err os_spawn(const struct os_spawn *how, int *pid)
{
	struct sim_process *p = process_here(), *child;
	const struct role_ops *ops = NULL;
	int fd;

	if (how->args[0] && strcmp(how->args[0], "role") == 0 && how->args[1])
		ops = role_ops_of(role_from_name(str_from_c(how->args[1])));
	if (!ops)
		return ERR_NOT_FOUND;
	child = process_new(p->sim, p->where, how->args[1], p->number, role_process,
			    (void *)(uintptr_t)ops);
	child->dies_with_parent = true;
	for (unsigned i = 0; i < how->nfds; i++)
		if (process_fd(child, process_object(p, how->fds[i]), 3 + (int)i, &fd))
			panic("a new process has no room for descriptors");
	*pid = child->number;
	return ERR_OK;
}

static int copy_process(void *arg UNUSED)
{
	struct sim_process *p = process_here();

	p->copied(p->copied_arg);
	return 0;
}

enum err os_fork(void (*child)(void *arg), void *arg, int *pid)
{
	struct sim_process *p = process_here(), *copy;
	char name[SIM_PROCESS_NAME];

	snprintf(name, sizeof(name), "%.30s+", p->name);
	copy = process_new(p->sim, p->where, name, p->number, copy_process, NULL);
	copy->copied = child;
	copy->copied_arg = arg;
	sim_heap_end(copy->heap);
	copy->heap = sim_heap_new(p->heap);
	for (int fd = 0; fd < p->fds_end; fd++) {
		struct sim_object *o = p->fds[fd];

		if (!o || copy->fds[fd])
			continue;
		object_hold(o);
		copy->fds[fd] = o;
		copy->fds_end = MAX(copy->fds_end, fd + 1);
	}
	*pid = copy->number;
	p->sim->runs_next = copy;
	process_pause(p, 0);
	return ERR_OK;
}

void os_wipe_copied(void *p UNUSED, size_t n UNUSED)
{
}

void os_close_others(const int *keep, unsigned n)
{
	struct sim_process *p = process_here();

	for (int fd = 3; fd < p->fds_end; fd++) {
		bool is_kept = false;

		for (unsigned i = 0; i < n; i++)
			is_kept |= keep[i] == fd;
		if (!is_kept)
			process_close(p, fd);
	}
}

enum err os_reap(int *pid, int *status)
{
	struct sim_process *p = process_here();
	struct sim *s = p->sim;

	for (struct sim_process *c = s->processes; c; c = c->next) {
		if (c->parent != p->number || c->state != PROCESS_ENDED)
			continue;
		*pid = c->number;
		*status = c->status;
		process_forget(c);
		return ERR_OK;
	}
	return ERR_AGAIN;
}

enum err os_kill(int pid, int signal)
{
	struct sim_process *p = process_here(), *to = process_find(p->sim, pid);

	if (!to || to->where != p->where)
		return ERR_NOT_FOUND;
	if (signal == SIGNAL_KILL)
		process_kill(to, 256 + SIGNAL_KILL);
	else
		process_signal(to, signal == SIGNAL_TERM  ? OS_SIG_TERM
				   : signal == SIGNAL_HUP ? OS_SIG_RELOAD
							  : OS_SIG_USER);
	return ERR_OK;
}

void os_exit(int status)
{
	process_exit(process_here(), status);
}

int os_pid(void)
{
	return process_here()->number;
}

uint32_t os_uid(void)
{
	return USER;
}

enum err os_folder(char *out, size_t size)
{
	if (size < 2)
		return ERR_TOO_LONG;
	memcpy(out, "/", 2);
	return ERR_OK;
}

unsigned os_cores(void)
{
	return 1;
}

enum err os_user_find(const char *name UNUSED, uint32_t *uid UNUSED, uint32_t *gid UNUSED)
{
	return ERR_NOT_FOUND;
}

enum err os_chown(int dir UNUSED, const char *name UNUSED, uint32_t uid UNUSED, uint32_t gid UNUSED)
{
	return ERR_DENIED;
}

enum err os_chmod(int dir, const char *name, unsigned mode)
{
	struct sim_inode *i;
	enum err err = file_find(process_here(), dir, name, &i);

	if (!err)
		sim_inode_chmod(i, mode);
	return err;
}

enum err os_stderr_to_syslog(void)
{
	return ERR_NOT_FOUND;
}

bool os_is_terminal(int fd UNUSED)
{
	return false;
}

void os_terminal_echo(int fd UNUSED, bool on UNUSED)
{
}

void os_detach(void)
{
}
