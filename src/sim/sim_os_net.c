/* base/os.h over the simulator: sockets. The server's machine has one address, the outside another;
 * UNIX sockets are names in the server's file system beside which nobody can connect from outside.
 */
#include "sim/sim_priv.h"

enum { PORT_FIRST = 32768 };

static struct sim_object *socket_of(int fd, struct sim_process **p)
{
	struct sim_object *o;

	*p = process_here();
	o = process_object(*p, fd);
	return o && (o->kind == SIM_STREAM || o->kind == SIM_DATAGRAMS) ? o : NULL;
}

static struct addr address_of(enum sim_machine where)
{
	struct addr a;

	if (addr_parse_ip(where == SIM_SERVER ? S(SIM_SERVER_IP) : S(SIM_REMOTE_IP), &a))
		panic("the machines have no addresses");
	return a;
}

/* The name of a UNIX socket in the file system. */
static enum err name_make(struct sim_process *p, const char *path)
{
	struct sim_inode *i;
	enum err err = sim_fs_unlink(p->sim->fs, NULL, path);

	if (err && err != ERR_NOT_FOUND)
		return err;
	err = sim_fs_create(p->sim->fs, NULL, path, 0700, false, &i);
	if (!err)
		sim_inode_set_socket(i);
	return err;
}

static enum err listener_make(const struct addr *at, bool is_datagrams, int *fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o;
	enum err err = ERR_OK;

	*fd = -1;
	if (at->family == ADDR_UNIX && (err = name_make(p, at->path)))
		return err;
	if (at->family != ADDR_UNIX && listener_find(p->sim, at, is_datagrams))
		return ERR_BUSY;
	o = object_new(p->sim, SIM_LISTENER);
	o->listener.address = *at;
	o->listener.where = p->where;
	o->listener.is_datagrams = is_datagrams;
	o->listener.next = p->sim->listeners;
	p->sim->listeners = o;
	err = process_fd(p, o, 3, fd);
	object_drop(o);
	return err;
}

enum err os_listen(const struct addr *at, unsigned flags UNUSED, int *fd)
{
	return listener_make(at, false, fd);
}

enum err os_listen_datagrams(const char *path, int *fd)
{
	struct addr at = { .family = ADDR_UNIX };

	if (strlen(path) >= sizeof(at.path))
		return ERR_TOO_LONG;
	memcpy(at.path, path, strlen(path));
	return listener_make(&at, true, fd);
}

enum err os_connect_datagrams(const char *path, int *fd)
{
	struct sim_process *p = process_here();
	struct addr to = { .family = ADDR_UNIX };
	struct sim_object *ends[2], *l;
	enum err err;

	*fd = -1;
	if (strlen(path) >= sizeof(to.path))
		return ERR_TOO_LONG;
	memcpy(to.path, path, strlen(path));
	l = p->where == SIM_SERVER ? listener_find(p->sim, &to, true) : NULL;
	if (!l || l->listener.backlog_n == ARRAY_LEN(l->listener.backlog))
		return ERR_NOT_FOUND;
	if ((err = net_pair(p->sim, SIM_DATAGRAMS, p->where, ends)))
		return err;
	if ((err = process_fd(p, ends[0], 3, fd))) {
		object_drop(ends[1]);
	} else {
		l->listener.backlog[l->listener.backlog_n++] = ends[1];
		object_changed(l, OS_READY_READ);
	}
	object_drop(ends[0]);
	return err;
}

enum err os_accept(int listener, struct addr *peer, int *fd)
{
	struct sim_process *p = process_here();
	struct sim_object *o = process_object(p, listener), *end;
	enum err err;

	*fd = -1;
	if (!o || o->kind != SIM_LISTENER)
		return ERR_CLOSED;
	if (!o->listener.backlog_n)
		return ERR_AGAIN;
	end = o->listener.backlog[0];
	if ((err = process_fd(p, end, 3, fd)))
		return err;
	memmove(o->listener.backlog, o->listener.backlog + 1,
		--o->listener.backlog_n * sizeof(*o->listener.backlog));
	*peer = end->socket.remote;
	if (peer->family == ADDR_NONE)
		peer->family = ADDR_UNIX;
	object_drop(end);
	return ERR_OK;
}

enum err os_connect(const struct addr *to, const struct addr *from, int *fd)
{
	struct sim_process *p = process_here();
	struct addr server = address_of(SIM_SERVER), remote = address_of(SIM_OUTSIDE);
	bool is_server = addr_ip_eq(to, &server) || addr_is_loopback(to);
	struct sim_object *o = object_new(p->sim, SIM_STREAM);
	enum err err = process_fd(p, o, 3, fd);

	object_drop(o);
	if (err)
		return err;
	o->socket.where = p->where;
	o->socket.peer_pid = p->number;
	o->socket.remote = *to;
	if (to->family == ADDR_UNIX) {
		connect_arrives(p->sim, o);
		return ERR_OK;
	}
	o->socket.local = from ? *from : p->where == SIM_SERVER ? server : remote;
	o->socket.local.port = (uint16_t)(PORT_FIRST + p->sim->next_port++ % PORT_FIRST);
	o->socket.is_remote = (p->where == SIM_SERVER) != is_server;
	connect_begin(o);
	return ERR_OK;
}

enum err os_connect_result(int fd)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(fd, &p);

	if (!o)
		return ERR_CLOSED;
	return o->socket.is_refused ? ERR_TEMPORARY : o->socket.is_reset ? ERR_CLOSED : ERR_OK;
}

enum err os_local_addr(int fd, struct addr *out)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(fd, &p), *any = process_object(p, fd);

	if (any && any->kind == SIM_LISTENER) {
		*out = any->listener.address;
		return ERR_OK;
	}
	if (!o)
		return ERR_CLOSED;
	*out = o->socket.local;
	return ERR_OK;
}

enum err os_peer_addr(int fd, struct addr *out)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(fd, &p);

	if (!o)
		return ERR_CLOSED;
	*out = o->socket.remote;
	return ERR_OK;
}

enum err os_peer_user(int fd, uint32_t *uid, uint32_t *gid, int *pid)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(fd, &p);

	if (!o)
		return ERR_CLOSED;
	*uid = os_uid();
	*gid = 0;
	*pid = o->socket.peer_pid;
	return ERR_OK;
}

enum err os_recv(int fd, void *p, size_t n, size_t *done)
{
	struct sim_object *objects[OS_FDS_MAX];
	struct sim_process *here;
	struct sim_object *o = socket_of(fd, &here);
	unsigned count;
	enum err err;

	*done = 0;
	if (!o)
		return ERR_CLOSED;
	if (o->kind == SIM_STREAM)
		return stream_recv(o, p, n, done);
	err = datagram_recv(o, p, n, done, objects, &count);
	while (count)
		object_drop(objects[--count]);
	return err;
}

enum err os_send(int fd, const void *p, size_t n, size_t *done)
{
	struct sim_process *here;
	struct sim_object *o = socket_of(fd, &here);
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
	enum err err;

	*done = 0;
	if (!o)
		return ERR_CLOSED;
	if (o->kind == SIM_STREAM)
		return stream_send(o, p, n, done);
	if (!(err = datagram_send(o, &iov, 1, NULL, 0)))
		*done = n;
	return err;
}

void os_shutdown_write(int fd)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(fd, &p);

	if (o)
		socket_shut(o);
}

void os_no_delay(int fd UNUSED)
{
}

enum err os_socketpair(bool seqpacket, int fd[2])
{
	struct sim_process *p = process_here();
	struct sim_object *ends[2];
	enum err err = net_pair(p->sim, seqpacket ? SIM_DATAGRAMS : SIM_STREAM, p->where, ends);

	fd[0] = fd[1] = -1;
	if (!err)
		err = process_fd(p, ends[0], 3, &fd[0]);
	if (!err)
		err = process_fd(p, ends[1], 3, &fd[1]);
	if (err)
		process_close(p, fd[0]);
	object_drop(ends[0]);
	object_drop(ends[1]);
	return err;
}

enum err os_send_fds(int sock, const struct iovec *iov, unsigned niov, const int *fds,
		     unsigned nfds)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(sock, &p), *objects[OS_FDS_MAX];

	if (nfds > OS_FDS_MAX)
		panic("os_send_fds: %u descriptors", nfds);
	if (!o)
		return ERR_CLOSED;
	if (o->kind != SIM_DATAGRAMS)
		panic("descriptors through a stream: not simulated");
	for (unsigned i = 0; i < nfds; i++)
		if (!(objects[i] = process_object(p, fds[i])))
			return ERR_CLOSED;
	return datagram_send(o, iov, niov, objects, nfds);
}

enum err os_recv_fds(int sock, void *to, size_t n, size_t *done, int fds[OS_FDS_MAX],
		     unsigned *nfds)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(sock, &p), *objects[OS_FDS_MAX];
	unsigned count;
	enum err err;

	*done = 0;
	*nfds = 0;
	if (!o || o->kind != SIM_DATAGRAMS)
		return ERR_CLOSED;
	err = datagram_recv(o, to, n, done, objects, &count);
	for (unsigned i = 0; i < count; i++) {
		/* As the kernel: what finds no room is closed, and the datagram said to be cut. */
		if (process_fd(p, objects[i], 3, &fds[*nfds]))
			err = ERR_TOO_LONG;
		else
			++*nfds;
		object_drop(objects[i]);
	}
	if (err == ERR_TOO_LONG) {
		while (*nfds)
			process_close(p, fds[--*nfds]);
		*done = 0;
	}
	return err;
}

enum err os_recv_datagrams(int sock, struct os_datagram *d, unsigned max, unsigned *got)
{
	struct sim_process *p;
	struct sim_object *o = socket_of(sock, &p);

	max = MIN(max, (unsigned)OS_DATAGRAMS_MAX);
	for (*got = 0; *got < max; ++*got) {
		struct os_datagram *x = &d[*got];
		size_t n = 0;

		x->err = os_recv_fds(sock, x->p, x->n, &n, x->fds, &x->nfds);
		if (x->err == ERR_AGAIN || x->err == ERR_CLOSED)
			break;
		x->n = n;
		if (x->err == ERR_EOF) {
			++*got;
			break;
		}
	}
	if (*got)
		return ERR_OK;
	return o ? ERR_AGAIN : ERR_CLOSED;
}
