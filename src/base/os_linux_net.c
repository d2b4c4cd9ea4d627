/* os.h over Linux: sockets and readiness. Sockets are non-blocking from birth; readiness is epoll,
 * edge- triggered, one registration for the life of a descriptor. */
#include "base/os.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

union sock_addr {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
	struct sockaddr_storage room;
};

static socklen_t to_kernel(const struct addr *a, union sock_addr *out)
{
	memset(out, 0, sizeof(*out));
	switch ((enum addr_family)a->family) {
	case ADDR_IP4:
		out->in4.sin_family = AF_INET;
		out->in4.sin_port = htons(a->port);
		memcpy(&out->in4.sin_addr, a->ip, 4);
		return sizeof(out->in4);
	case ADDR_IP6:
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons(a->port);
		memcpy(&out->in6.sin6_addr, a->ip, 16);
		return sizeof(out->in6);
	case ADDR_UNIX:
		out->un.sun_family = AF_UNIX;
		memcpy(out->un.sun_path, a->path, strnlen(a->path, sizeof(a->path) - 1));
		return sizeof(out->un);
	case ADDR_NONE:
		break;
	}
	return 0;
}

static void from_kernel(const union sock_addr *s, struct addr *out)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	*out = (struct addr){ .family = ADDR_UNIX };
	if (s->any.sa_family == AF_INET) {
		out->family = ADDR_IP4;
		out->port = ntohs(s->in4.sin_port);
		memcpy(out->ip, &s->in4.sin_addr, 4);
	} else if (s->any.sa_family == AF_INET6) {
		const uint8_t *ip = s->in6.sin6_addr.s6_addr;

		out->port = ntohs(s->in6.sin6_port);
		if (memcmp(ip, mapped, 12) == 0) {
			out->family = ADDR_IP4;
			memcpy(out->ip, ip + 12, 4);
		} else {
			out->family = ADDR_IP6;
			memcpy(out->ip, ip, 16);
		}
	} else {
		memcpy(out->path, s->un.sun_path, sizeof(out->path) - 1);
	}
}

static int family_of(const struct addr *a)
{
	return a->family == ADDR_IP4 ? AF_INET : a->family == ADDR_IP6 ? AF_INET6 : AF_UNIX;
}

enum err os_listen(const struct addr *at, unsigned flags, int *fd)
{
	union sock_addr sa;
	socklen_t len = to_kernel(at, &sa);
	int one = 1;
	enum err err;

	*fd = socket(family_of(at), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return err_from_errno(errno);
	if (at->family == ADDR_UNIX) {
		struct stat st;

		if (stat(at->path, &st) == 0 && S_ISSOCK(st.st_mode))
			unlink(at->path); /* left by one that was killed: our lock on the data says
					     so */
	} else {
		setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (flags & OS_LISTEN_REUSEPORT)
			setsockopt(*fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		if (at->family == ADDR_IP6)
			setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	}
	if (bind(*fd, &sa.any, len) == 0 && listen(*fd, 4096) == 0)
		return ERR_OK;
	err = err_from_errno(errno);
	os_close(*fd);
	*fd = -1;
	return err;
}

enum err os_listen_datagrams(const char *path, int *fd)
{
	union sock_addr sa = { .un = { .sun_family = AF_UNIX } };
	enum err err;

	if (strlen(path) >= sizeof(sa.un.sun_path))
		return ERR_TOO_LONG;
	memcpy(sa.un.sun_path, path, strlen(path));
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return err_from_errno(errno);
	unlink(path);
	if (bind(*fd, &sa.any, sizeof(sa.un)) == 0 && listen(*fd, 64) == 0)
		return ERR_OK;
	err = err_from_errno(errno);
	os_close(*fd);
	*fd = -1;
	return err;
}

enum err os_connect_datagrams(const char *path, int *fd)
{
	union sock_addr sa = { .un = { .sun_family = AF_UNIX } };
	struct timeval patience = { .tv_sec = OS_CONTROL_SECONDS };
	enum err err;

	if (strlen(path) >= sizeof(sa.un.sun_path))
		return ERR_TOO_LONG;
	memcpy(sa.un.sun_path, path, strlen(path));
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return err_from_errno(errno);
	setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(*fd, &sa.any, sizeof(sa.un)) == 0)
		return ERR_OK;
	err = errno == ECONNREFUSED ? ERR_NOT_FOUND
	      : errno == EAGAIN	    ? ERR_TIMEOUT
				    : err_from_errno(errno);
	os_close(*fd);
	*fd = -1;
	return err;
}

enum err os_stderr_to_syslog(void)
{
	union sock_addr sa = { .un = { .sun_family = AF_UNIX, .sun_path = "/dev/log" } };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	enum err err = ERR_OK;

	if (fd < 0)
		return err_from_errno(errno);
	if (connect(fd, &sa.any, sizeof(sa.un)) || dup2(fd, 2) < 0)
		err = errno == ECONNREFUSED ? ERR_NOT_FOUND : err_from_errno(errno);
	os_close(fd);
	return err;
}

enum err os_accept(int listener, struct addr *peer, int *fd)
{
	union sock_addr sa;
	socklen_t len = sizeof(sa);

	memset(&sa, 0, sizeof(sa));
	do
		*fd = accept4(listener, &sa.any, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (*fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	if (*fd < 0)
		return err_from_errno(errno);
	from_kernel(&sa, peer);
	return ERR_OK;
}

enum err os_connect(const struct addr *to, const struct addr *from, int *fd)
{
	union sock_addr sa;
	socklen_t len = to_kernel(to, &sa);
	enum err err;

	*fd = socket(family_of(to), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return err_from_errno(errno);
	if (from) {
		union sock_addr local;
		socklen_t local_len = to_kernel(from, &local);

		if (bind(*fd, &local.any, local_len))
			goto failed;
	}
	if (connect(*fd, &sa.any, len) == 0 || errno == EINPROGRESS || errno == EINTR)
		return ERR_OK;
failed:
	err = err_from_errno(errno);
	os_close(*fd);
	*fd = -1;
	return err;
}

enum err os_connect_result(int fd)
{
	int failure = 0;
	socklen_t len = sizeof(failure);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &len))
		failure = errno;
	return err_from_errno(failure);
}

void os_no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

enum err os_local_addr(int fd, struct addr *out)
{
	union sock_addr sa;
	socklen_t len = sizeof(sa);

	memset(&sa, 0, sizeof(sa));
	if (getsockname(fd, &sa.any, &len))
		return err_from_errno(errno);
	from_kernel(&sa, out);
	return ERR_OK;
}

enum err os_peer_addr(int fd, struct addr *out)
{
	union sock_addr sa;
	socklen_t len = sizeof(sa);

	memset(&sa, 0, sizeof(sa));
	if (getpeername(fd, &sa.any, &len))
		return err_from_errno(errno);
	from_kernel(&sa, out);
	return ERR_OK;
}

enum err os_recv(int fd, void *p, size_t n, size_t *done)
{
	ssize_t got;

	do
		got = recv(fd, p, n, 0);
	while (got < 0 && errno == EINTR);
	*done = got > 0 ? (size_t)got : 0;
	if (got < 0)
		return err_from_errno(errno);
	return got == 0 && n > 0 ? ERR_EOF : ERR_OK;
}

enum err os_send(int fd, const void *p, size_t n, size_t *done)
{
	ssize_t put;

	do
		put = send(fd, p, n, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	*done = put > 0 ? (size_t)put : 0;
	return put < 0 ? err_from_errno(errno) : ERR_OK;
}

void os_shutdown_write(int fd)
{
	shutdown(fd, SHUT_WR);
}

enum err os_socketpair(bool seqpacket, int fd[2])
{
	int size = 1024 * 1024;

	if (socketpair(AF_UNIX,
		       (seqpacket ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       fd))
		return err_from_errno(errno);
	for (int i = 0; seqpacket && i < 2; i++)
		if (setsockopt(fd[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
			setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return ERR_OK;
}

enum err os_peer_user(int fd, uint32_t *uid, uint32_t *gid, int *pid)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return err_from_errno(errno);
	*uid = who.uid;
	*gid = who.gid;
	*pid = who.pid;
	return ERR_OK;
}

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(sizeof(int) * OS_FDS_MAX)];
};

enum err os_send_fds(int sock, const struct iovec *iov, unsigned niov, const int *fds,
		     unsigned nfds)
{
	union control control;
	struct iovec copy[8];
	struct msghdr m = { .msg_iov = copy, .msg_iovlen = niov };
	ssize_t put;

	if (niov > ARRAY_LEN(copy) || nfds > OS_FDS_MAX)
		panic("os_send_fds: %u parts, %u descriptors", niov, nfds);
	memcpy(copy, iov, niov * sizeof(*iov));
	if (nfds) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		m.msg_control = control.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		put = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	return put < 0 ? err_from_errno(errno) : ERR_OK;
}

static void take_fds(struct msghdr *m, int fds[OS_FDS_MAX], unsigned *nfds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*nfds < OS_FDS_MAX)
				fds[(*nfds)++] = fd;
			else
				close(fd);
		}
	}
}

/* What recvmsg or recvmmsg put into `m`. */
static enum err taken(struct msghdr *m, size_t size, int fds[OS_FDS_MAX], unsigned *nfds)
{
	*nfds = 0;
	take_fds(m, fds, nfds);
	if (m->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		for (unsigned i = 0; i < *nfds; i++)
			close(fds[i]);
		*nfds = 0;
		return ERR_TOO_LONG;
	}
	return size == 0 ? ERR_EOF : ERR_OK;
}

enum err os_recv_fds(int sock, void *p, size_t n, size_t *done, int fds[OS_FDS_MAX], unsigned *nfds)
{
	union control control;
	struct iovec iov = { .iov_base = p, .iov_len = n };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.room,
			    .msg_controllen = sizeof(control.room) };
	ssize_t got;
	enum err err;

	*nfds = 0;
	*done = 0;
	do
		got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return err_from_errno(errno);
	err = taken(&m, (size_t)got, fds, nfds);
	*done = err == ERR_TOO_LONG ? 0 : (size_t)got;
	return err;
}

enum err os_recv_datagrams(int sock, struct os_datagram *d, unsigned max, unsigned *got)
{
	union control control[OS_DATAGRAMS_MAX];
	struct iovec iov[OS_DATAGRAMS_MAX];
	struct mmsghdr m[OS_DATAGRAMS_MAX];
	int n;

	max = MIN(max, (unsigned)OS_DATAGRAMS_MAX);
	for (unsigned i = 0; i < max; i++) {
		iov[i] = (struct iovec){ .iov_base = d[i].p, .iov_len = d[i].n };
		m[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i],
						      .msg_iovlen = 1,
						      .msg_control = control[i].room,
						      .msg_controllen = sizeof(control[i].room) } };
	}
	*got = 0;
	do
		n = recvmmsg(sock, m, max, MSG_CMSG_CLOEXEC | MSG_DONTWAIT, NULL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_from_errno(errno);
	for (; *got < (unsigned)n; ++*got) {
		d[*got].n = m[*got].msg_len;
		d[*got].err = taken(&m[*got].msg_hdr, d[*got].n, d[*got].fds, &d[*got].nfds);
	}
	return ERR_OK;
}

enum err os_poll_new(int *poll)
{
	*poll = epoll_create1(EPOLL_CLOEXEC);
	return *poll < 0 ? err_from_errno(errno) : ERR_OK;
}

static enum err poll_add(int poll, int fd, uint32_t events, void *tag)
{
	struct epoll_event e = { .events = events, .data.ptr = tag };

	return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e) ? err_from_errno(errno) : ERR_OK;
}

enum err os_poll_add(int poll, int fd, void *tag)
{
	return poll_add(poll, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, tag);
}

enum err os_poll_add_reader(int poll, int fd, void *tag)
{
	return poll_add(poll, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, tag);
}

enum err os_poll_want_write(int poll, int fd, void *tag, bool wanted)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = tag };

	if (wanted)
		e.events |= EPOLLOUT;
	return epoll_ctl(poll, EPOLL_CTL_MOD, fd, &e) ? err_from_errno(errno) : ERR_OK;
}

enum err os_poll_add_listener(int poll, int fd, void *tag)
{
	return poll_add(poll, fd, EPOLLIN | EPOLLEXCLUSIVE, tag);
}

void os_poll_remove(int poll, int fd)
{
	epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL);
}

enum err os_poll_wait(int poll, struct os_event *events, unsigned max, int64_t timeout_ns,
		      unsigned *n)
{
	struct epoll_event e[64];
	int ms = timeout_ns < 0 ? -1
				: (int)MIN(timeout_ns / 1000000 + (timeout_ns % 1000000 != 0),
					   (int64_t)INT32_MAX);
	int got = epoll_wait(poll, e, (int)MIN(max, ARRAY_LEN(e)), ms);

	*n = 0;
	if (got < 0)
		return errno == EINTR ? ERR_OK : err_from_errno(errno);
	for (int i = 0; i < got; i++) {
		unsigned ready = 0;

		if (e[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			ready |= OS_READY_READ;
		if (e[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			ready |= OS_READY_WRITE;
		if (e[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			ready |= OS_READY_CLOSED;
		events[i] = (struct os_event){ .tag = e[i].data.ptr, .ready = ready };
	}
	*n = (unsigned)got;
	return ERR_OK;
}

static const char *describe(int fd, const struct stat *st)
{
	union sock_addr sa;
	socklen_t len = sizeof(sa);
	int is_listening = 0;
	socklen_t size = sizeof(is_listening);

	if (S_ISREG(st->st_mode))
		return st->st_nlink ? "file" : "memory";
	if (S_ISDIR(st->st_mode))
		return "folder";
	if (S_ISCHR(st->st_mode))
		return "device";
	if (S_ISFIFO(st->st_mode))
		return "pipe";
	if (!S_ISSOCK(st->st_mode))
		return "event";
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) == 0 && is_listening)
		return "listener";
	memset(&sa, 0, sizeof(sa));
	if (getsockname(fd, &sa.any, &len) == 0 && sa.any.sa_family != AF_UNIX)
		return "connection";
	return "channel";
}

void os_describe_fds(struct buf *out)
{
	enum { FD_LIMIT = 4096, KINDS = 16 };
	const char *kinds[KINDS] = { NULL };
	unsigned counts[KINDS] = { 0 }, k;
	struct stat st;

	for (int fd = 0; fd < FD_LIMIT; fd++) {
		if (fstat(fd, &st))
			continue;
		for (k = 0; k < KINDS - 1 && kinds[k] && strcmp(kinds[k], describe(fd, &st)) != 0;
		     k++)
			;
		kinds[k] = describe(fd, &st);
		counts[k]++;
	}
	for (k = 0; k < KINDS && kinds[k]; k++)
		buf_printf(out, "%s%u %s%s", k ? ", " : "", counts[k], kinds[k],
			   counts[k] == 1 ? "" : "s");
}
