/* The frame of a role, as a process of its own: this program is its supervisor and a peer. The peer
 * speaks as soon as it has its end of the channel, as peers do that work while the role is started
 * again: what it says must be heard, and not before the role is whole. */
#include "base/tap.h"
#include "conf/conf.h"
#include "roles/role.h"

#include <stdlib.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, EARLY = 3, SAID_MAX = 64 };

/* What the role says of itself on its standard output, in order: a letter for each hook. */
static void say(char what)
{
	if (write(1, &what, 1) != 1)
		os_exit(1);
}

static enum err on_init(struct role *r)
{
	(void)r;
	say('i');
	return ERR_OK;
}

static enum err on_prepare(struct role *r)
{
	(void)r;
	say('p');
	return ERR_OK;
}

static enum err on_start(struct role *r)
{
	(void)r;
	say('s');
	return ERR_OK;
}

static void on_reload(struct role *r)
{
	(void)r;
	say('r');
}

static void on_message(struct role *r, struct chan *from, struct msg *m)
{
	(void)r;
	(void)from;
	say(m->type == MSG_trace_event ? (char)('0' + m->u.trace_event.message) : '?');
}

static void on_peer_down(struct role *r, struct chan *peer)
{
	(void)peer;
	say('d');
	loop_stop(r->loop);
}

static const struct role_ops listener_ops = {
	.kind = ROLE_ADMIN,
	.init = on_init,
	.prepare = on_prepare,
	.start = on_start,
	.message = on_message,
	.peer_down = on_peer_down,
	.reload = on_reload,
};

static void tell(int fd, enum msg_type type, uint32_t id, const void *m)
{
	char *room = malloc(MSG_MAX);
	struct buf b = { .p = room, .size = MSG_MAX, .max = MSG_MAX };
	int fds[MSG_FDS_MAX];
	struct iovec iov;
	unsigned n = 0;

	EQ(msg_encode(&b, type, id, false, 0, m, fds, &n), ERR_OK);
	iov = (struct iovec){ room, buf_len(&b) };
	EQ(os_send_fds(fd, &iov, 1, fds, n), ERR_OK);
	free(room);
}

#define TELL(fd, id, name, ...) tell((fd), MSG_##name, (id), &(struct msg_##name){ __VA_ARGS__ })

/* Up to and with the byte `last`. */
static str heard(int fd, char last, char room[SAID_MAX])
{
	size_t n = 0, got = 0;

	while (n < SAID_MAX && (n == 0 || room[n - 1] != last)) {
		if (os_wait_readable(fd, PATIENCE_MS) || os_read(fd, room + n, 1, &got))
			break;
		n += got;
	}
	return str_of(room, n);
}

struct process {
	int pid, control, told, conf;
};

static void begin(struct process *p)
{
	int fd[2], pipe_fd[2];

	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(pipe(pipe_fd), 0);
	p->pid = fork();
	if (p->pid == 0) {
		dup2(pipe_fd[1], 1);
		os_close(pipe_fd[0]);
		os_close(pipe_fd[1]);
		os_close(fd[0]);
		os_exit(role_main(&listener_ops, fd[1]));
	}
	os_close(fd[1]);
	os_close(pipe_fd[1]);
	p->control = fd[0];
	p->told = pipe_fd[0];
	EQ(os_memfd(S("myhostname = mail.example.test\n"), true, &p->conf), ERR_OK);
	TELL(p->control, 0, sup_config, .role = ROLE_ADMIN, .instance = 1, .text = p->conf,
	     .path = S("posthorn.conf"));
}

static void end(struct process *p)
{
	int pid, status = -1;

	os_close(p->control);
	os_close(p->told);
	os_close(p->conf);
	while (os_reap(&pid, &status) == ERR_AGAIN)
		;
	EQ(pid, p->pid);
	EQ(status, 0);
}

/* It takes what is there in turns: after two of these it has seen what was sent before the first.
 */
static void let_it_look(struct process *p)
{
	char room[SAID_MAX];

	for (unsigned i = 0; i < 2; i++) {
		TELL(p->control, 0, sup_reload, .text = p->conf);
		STR_EQ(heard(p->told, 'r', room), S("r"));
	}
}

/* A channel to the role; ours is returned. */
static int link_to(int control, unsigned instance)
{
	int fd[2];

	EQ(os_socketpair(true, fd), ERR_OK);
	TELL(control, 0, sup_channel, .role = ROLE_FRONT, .index = 0,
	     .instance = (uint16_t)instance, .socket = fd[0]);
	os_close(fd[0]);
	return fd[1];
}

static void test_early(void)
{
	struct process p;
	char room[SAID_MAX];
	int ours, old;

	tap_group("a peer that speaks before the start");
	begin(&p);
	STR_EQ(heard(p.told, 'i', room), S("i"));
	old = link_to(p.control, 5);
	TELL(old, 0, trace_event, .message = 9);
	ours = link_to(p.control,
		       6); /* the peer was started again: what the old one said is gone */
	os_close(old);
	for (unsigned i = 0; i < EARLY; i++)
		TELL(ours, 0, trace_event, .message = i);
	let_it_look(&p);
	TELL(p.control, 7, sup_start, .test_hooks = false);
	STR_EQ(heard(p.told, '2', room), S("ps012"));
	TELL(ours, 0, trace_event, .message = 7);
	STR_EQ(heard(p.told, '7', room), S("7"));
	os_close(ours);
	STR_EQ(heard(p.told, 'd', room), S("d"));
	end(&p);
}

int main(void)
{
	test_early();
	return tap_done();
}
