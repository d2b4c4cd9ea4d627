/* Tries what the sandbox must refuse, with the real calls, and reports what the kernel said.
 *
 * This file alone makes system calls outside base/os.h: it tests what a broken-in role could do,
 * which would not go through our functions either. */
#include "roles/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct probe {
	const char *what;
	long (*attempt)(const struct msg_sandbox_probe *m, const char *path);
};

static long try_open(const struct msg_sandbox_probe *m, const char *path)
{
	(void)m;
	return open(path, O_RDONLY | O_CLOEXEC);
}

static long try_create(const struct msg_sandbox_probe *m, const char *path)
{
	(void)m;
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long try_internet(bool is_bind, uint32_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		return -1;
	return is_bind ? bind(fd, (struct sockaddr *)(void *)&a, sizeof(a))
		       : connect(fd, (struct sockaddr *)(void *)&a, sizeof(a));
}

static long try_connect(const struct msg_sandbox_probe *m, const char *path)
{
	(void)path;
	return try_internet(false, m->number);
}

static long try_bind(const struct msg_sandbox_probe *m, const char *path)
{
	(void)path;
	return try_internet(true, m->number);
}

static long try_exec(const struct msg_sandbox_probe *m, const char *path)
{
	char *const args[] = { (char *)(uintptr_t)path, NULL };

	(void)m;
	return execve(path, args, NULL);
}

static long try_fork(const struct msg_sandbox_probe *m, const char *path)
{
	pid_t pid = fork();

	(void)m;
	(void)path;
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return pid;
}

static long try_ptrace(const struct msg_sandbox_probe *m, const char *path)
{
	(void)path;
	return ptrace(PTRACE_ATTACH, (pid_t)m->number, NULL, NULL);
}

static long try_signal(const struct msg_sandbox_probe *m, const char *path)
{
	(void)path;
	return kill((pid_t)m->number, 0);
}

static long try_read_memory(const struct msg_sandbox_probe *m, const char *path)
{
	char byte;
	struct iovec here = { .iov_base = &byte, .iov_len = 1 };
	struct iovec there = { .iov_base = (void *)(uintptr_t)path, .iov_len = 1 };

	return process_vm_readv((pid_t)m->number, &here, 1, &there, 1, 0);
}

static long try_unix_socket(const struct msg_sandbox_probe *m, const char *path)
{
	(void)m;
	(void)path;
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long try_executable_memory(const struct msg_sandbox_probe *m, const char *path)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	(void)m;
	(void)path;
	return p == MAP_FAILED ? -1 : 0;
}

static const struct probe probes[] = {
	{ "open", try_open },
	{ "create", try_create },
	{ "connect", try_connect },
	{ "bind", try_bind },
	{ "exec", try_exec },
	{ "fork", try_fork },
	{ "ptrace", try_ptrace },
	{ "signal", try_signal },
	{ "read-memory", try_read_memory },
	{ "socket", try_unix_socket },
	{ "mmap-exec", try_executable_memory },
};

/* "send": the message `number` of messages.def, to the peer named by text ("store.0"). */
static void probe_send(struct role *r, const struct msg_sandbox_probe *m, struct buf *out)
{
	str rest = m->text;
	enum role_kind kind = role_from_name(str_cut(&rest, '.'));
	uint64_t index;
	struct chan *peer = NULL;
	struct msg empty = { 0 };
	enum err err = str_to_u64(rest, ROLE_INDEX_MAX - 1, &index);

	if (!err)
		peer = role_peer(r, kind, (unsigned)index);
	err = peer ? chan_send(peer, (enum msg_type)m->number, 1, &empty.u) : ERR_NOT_FOUND;
	buf_printf(out, "%s", err_name(err));
}

bool role_probe_run(struct role *r, const struct msg_sandbox_probe *m, struct buf *out)
{
	const struct probe *p = NULL;
	char path[256];
	long got;

	snprintf(path, sizeof(path), "%.*s", STR_ARGS(m->text));
	if (!role_has_test_hooks(r)) {
		buf_printf(out, "test hooks are off");
		return false;
	}
	if (str_eq(m->what, S("send"))) {
		probe_send(r, m, out);
		return false;
	}
	for (unsigned i = 0; i < ARRAY_LEN(probes); i++)
		if (str_eq(m->what, str_from_c(probes[i].what)))
			p = &probes[i];
	errno = ENOSYS;
	got = p ? p->attempt(m, path) : -1;
	buf_printf(out, "%s", got < 0 ? strerrorname_np(errno) : "done");
	return got >= 0;
}

void role_probe(struct role *r, struct chan *from, const struct msg *in)
{
	struct buf out;
	bool succeeded;

	buf_init(&out, 256);
	succeeded = role_probe_run(r, &in->u.sandbox_probe, &out);
	if (REPLY(from, in->id, sandbox_probe_reply, .succeeded = succeeded, .text = buf_str(&out)))
		log_warn(&r->log, "probe-unanswered", "peer=admin");
	buf_free(&out);
}
