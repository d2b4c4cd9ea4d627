/* The sandbox: for each thing that a role may be given, a child of ours is locked with it alone and
 * tries everything. What it was given must work, the rest must be refused; in all of them what
 * every role needs must work. */
#include "base/sandbox.h"
#include "base/os.h"
#include "base/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVERYBODY (~0u)
#define ANY_FILES (SANDBOX_FILES | SANDBOX_READ_FILES)
#define NOBODY	  0u

/* What a child has before it is locked. */
struct box {
	char folder[64], write[80], read[80];
	int file, memory, listener, refused_listener, other_listener;
	struct addr listens_at;
	struct sockaddr_in other; /* a listener's address, in the kernel's words */
};

static void *map(int protection)
{
	return mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int try_memory(struct box *b)
{
	char *p = map(PROT_READ | PROT_WRITE);

	(void)b;
	if (p == MAP_FAILED)
		return -1;
	p[0] = 1;
	return mprotect(p, 4096, PROT_READ) || munmap(p, 4096) ? -1 : 0;
}

static int try_map_exec(struct box *b)
{
	(void)b;
	return map(PROT_READ | PROT_EXEC) == MAP_FAILED ? -1 : 0;
}

static int try_protect_exec(struct box *b)
{
	void *p = map(PROT_READ | PROT_WRITE);

	(void)b;
	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int try_file_fd(struct box *b)
{
	char c;
	struct stat st;

	return pwrite(b->file, "x", 1, 0) == 1 && pread(b->file, &c, 1, 0) == 1 &&
			       fstat(b->file, &st) == 0
		       ? 0
		       : -1;
}

static int try_poll(struct box *b)
{
	struct os_event e;
	unsigned n;
	int poll;

	(void)b;
	return os_poll_new(&poll) || os_poll_wait(poll, &e, 1, 1000, &n) ? -1 : close(poll);
}

static int open_below(const char *folder, const char *name, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return openat(AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static int try_open_read(struct box *b)
{
	return open_below(b->read, "there", O_RDONLY);
}

static int try_open_elsewhere(struct box *b)
{
	(void)b;
	return openat(AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static int try_write_read_path(struct box *b)
{
	return open_below(b->read, "there", O_RDWR);
}

static int try_create_read_path(struct box *b)
{
	return open_below(b->read, "new", O_WRONLY | O_CREAT);
}

static int try_write(struct box *b)
{
	return open_below(b->write, "there", O_RDWR);
}

static int try_create(struct box *b)
{
	return open_below(b->write, "new", O_WRONLY | O_CREAT);
}

static int try_rename(struct box *b)
{
	char from[128], to[128];

	snprintf(from, sizeof(from), "%s/there", b->write);
	snprintf(to, sizeof(to), "%s/moved", b->write);
	return renameat(AT_FDCWD, from, AT_FDCWD, to) ? -1 : renameat(AT_FDCWD, to, AT_FDCWD, from);
}

static int try_mkdir(struct box *b)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/sub", b->write);
	return mkdirat(AT_FDCWD, path, 0700) ? -1 : unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

static int try_list(struct box *b)
{
	DIR *d = opendir(b->read);

	return d && readdir(d) ? closedir(d) : -1;
}

static int try_stat(struct box *b)
{
	struct stat st;

	return stat(b->read, &st);
}

static int try_sync(struct box *b)
{
	return fdatasync(b->file) || fallocate(b->file, 0, 0, 4096) ? -1 : 0;
}

static int try_truncate(struct box *b)
{
	return ftruncate(b->file, 4096);
}

static int try_memfd(struct box *b)
{
	int fd;

	(void)b;
	return os_memfd(S("x"), true, &fd) ? -1 : close(fd);
}

static int try_accept(struct box *b)
{
	return accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
}

static int try_connect(struct box *b)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : connect(fd, (struct sockaddr *)(void *)&b->other, sizeof(b->other));
}

static int bind_one(int type)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : bind(fd, (struct sockaddr *)(void *)&any, sizeof(any));
}

static int try_bind_tcp(struct box *b)
{
	(void)b;
	return bind_one(SOCK_STREAM);
}

static int try_bind_udp(struct box *b)
{
	(void)b;
	return bind_one(SOCK_DGRAM);
}

/* A listener that is shut down is a socket like any other, and this connects it without connect(2).
 */
static int try_fast_open(struct box *b)
{
	ssize_t n;

	shutdown(b->refused_listener, SHUT_RDWR);
	n = sendto(b->refused_listener, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL,
		   (struct sockaddr *)(void *)&b->other, sizeof(b->other));
	return n < 0 && errno == EINPROGRESS ? 0 : (int)n;
}

static int try_fast_open_message(struct box *b)
{
	struct iovec iov = { "x", 1 };
	struct msghdr m = { .msg_name = &b->other,
			    .msg_namelen = sizeof(b->other),
			    .msg_iov = &iov,
			    .msg_iovlen = 1 };

	return (int)sendmsg(b->refused_listener, &m, MSG_FASTOPEN | MSG_NOSIGNAL);
}

static int try_unix_socket(struct box *b)
{
	(void)b;
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int try_netlink(struct box *b)
{
	(void)b;
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static int try_pair(struct box *b)
{
	int fd[2];

	(void)b;
	return os_socketpair(true, fd) || os_socketpair(false, fd) ? -1 : 0;
}

/* One of its ends could be sent from to any datagram socket that has a path: the journal's, another
 * server's. */
static int try_datagram_pair(struct box *b)
{
	int fd[2];

	(void)b;
	return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fd);
}

static int try_fork(struct box *b)
{
	pid_t pid = fork();
	int status;

	(void)b;
	if (pid == 0)
		_exit(0);
	return pid < 0 || waitpid(pid, &status, 0) != pid ? -1 : status;
}

static int try_namespace(struct box *b)
{
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);

	(void)b;
	if (pid == 0)
		_exit(0);
	return (int)pid;
}

static int try_unshare(struct box *b)
{
	(void)b;
	return unshare(CLONE_NEWUSER);
}

static int try_death_signal(struct box *b)
{
	(void)b;
	return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int try_dumpable(struct box *b)
{
	(void)b;
	return prctl(PR_SET_DUMPABLE, 1);
}

static int try_exec(struct box *b)
{
	char *const args[] = { (char *)(uintptr_t) "/bin/true", NULL };

	(void)b;
	return execve(args[0], args, args + 1);
}

static int try_exec_fd(struct box *b)
{
	char *const args[] = { NULL };

	return (int)syscall(SYS_execveat, b->memory, "", args, args, AT_EMPTY_PATH);
}

static int try_ptrace(struct box *b)
{
	(void)b;
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int try_signal(struct box *b)
{
	(void)b;
	return kill(getpid(), 0);
}

/* A signal by way of a descriptor's owner. */
static int try_owner(struct box *b)
{
	return fcntl(b->listener, F_SETOWN, getpid());
}

static int try_owner_signal(struct box *b)
{
	return fcntl(b->listener, F_SETSIG, SIGKILL);
}

static int try_fcntl(struct box *b)
{
	int flags = fcntl(b->file, F_GETFL), copy = fcntl(b->file, F_DUPFD_CLOEXEC, 3);
	struct flock lock = { .l_type = F_WRLCK };

	return flags < 0 || copy < 0 || fcntl(b->file, F_SETFL, flags | O_NONBLOCK) ||
			       fcntl(b->file, F_SETLK, &lock) || close(copy)
		       ? -1
		       : 0;
}

static int try_read_memory(struct box *b)
{
	struct iovec iov = { b, 1 };

	return (int)process_vm_readv(getpid(), &iov, 1, &iov, 1, 0);
}

static int try_ioctl(struct box *b)
{
	int n;

	return ioctl(b->listener, FIONREAD, &n);
}

static int try_personality(struct box *b)
{
	(void)b;
	return personality(READ_IMPLIES_EXEC);
}

static int try_user(struct box *b)
{
	(void)b;
	return (int)syscall(SYS_setresuid, -1, -1, -1);
}

static int try_io_uring(struct box *b)
{
	struct io_uring_params p = { 0 };

	(void)b;
	return (int)syscall(SYS_io_uring_setup, 1, &p);
}

static int try_mount(struct box *b)
{
	return mount("none", b->folder, "tmpfs", 0, NULL);
}

static int try_symlink(struct box *b)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/link", b->write);
	return symlinkat("/etc/passwd", AT_FDCWD, path);
}

static int add_filter(unsigned flags)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = 1, .filter = &allow };

	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int try_filter(struct box *b)
{
	(void)b;
	return add_filter(0);
}

static int try_filter_listener(struct box *b)
{
	(void)b;
	return add_filter(SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

static int try_strict(struct box *b)
{
	(void)b;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL);
}

static const struct attempt {
	const char *what;
	unsigned allow; /* who may: those who have one of these */
	int (*run)(struct box *b);
} attempts[] = {
	{ "memory", EVERYBODY, try_memory },
	{ "a descriptor it has", EVERYBODY, try_file_fd },
	{ "waiting", EVERYBODY, try_poll },
	{ "fcntl", EVERYBODY, try_fcntl },
	{ "executable memory", NOBODY, try_map_exec },
	{ "memory made executable", NOBODY, try_protect_exec },
	{ "open below a read path", ANY_FILES, try_open_read },
	{ "list a read path", ANY_FILES, try_list },
	{ "stat", ANY_FILES, try_stat },
	{ "open elsewhere", NOBODY, try_open_elsewhere },
	{ "write below a read path", NOBODY, try_write_read_path },
	{ "create below a read path", NOBODY, try_create_read_path },
	{ "write below a write path", SANDBOX_FILES, try_write },
	{ "create below a write path", SANDBOX_FILES, try_create },
	{ "rename", SANDBOX_FILES, try_rename },
	{ "make and remove a folder", SANDBOX_FILES, try_mkdir },
	{ "sync and allocate", SANDBOX_FILES | SANDBOX_SYNC, try_sync },
	{ "truncate", SANDBOX_FILES | SANDBOX_SYNC | SANDBOX_MEMFD, try_truncate },
	{ "memfd", SANDBOX_MEMFD, try_memfd },
	{ "accept", SANDBOX_ACCEPT, try_accept },
	{ "connect", SANDBOX_CONNECT | SANDBOX_BIND_UDP, try_connect },
	{ "bind TCP", SANDBOX_BIND_UDP, try_bind_tcp },
	{ "bind UDP", SANDBOX_BIND_UDP, try_bind_udp },
	{ "connect a listener", NOBODY, try_fast_open },
	{ "connect a listener with sendmsg", NOBODY, try_fast_open_message },
	{ "a UNIX socket", NOBODY, try_unix_socket },
	{ "a netlink socket", NOBODY, try_netlink },
	{ "socketpair", SANDBOX_PEERS, try_pair },
	{ "socketpair of datagrams", NOBODY, try_datagram_pair },
	{ "fork", SANDBOX_FORK, try_fork },
	{ "a user namespace", NOBODY, try_namespace },
	{ "unshare", NOBODY, try_unshare },
	{ "death signal", SANDBOX_FORK, try_death_signal },
	{ "one more filter", SANDBOX_FORK, try_filter },
	{ "a filter that asks somebody else", NOBODY, try_filter_listener },
	{ "strict mode", NOBODY, try_strict },
	{ "dumpable", NOBODY, try_dumpable },
	{ "exec", NOBODY, try_exec },
	{ "exec of a descriptor", NOBODY, try_exec_fd },
	{ "ptrace", NOBODY, try_ptrace },
	{ "signal", NOBODY, try_signal },
	{ "a descriptor's owner", NOBODY, try_owner },
	{ "a descriptor's signal", NOBODY, try_owner_signal },
	{ "read another's memory", NOBODY, try_read_memory },
	{ "ioctl", NOBODY, try_ioctl },
	{ "personality", NOBODY, try_personality },
	{ "another user", NOBODY, try_user },
	{ "io_uring", NOBODY, try_io_uring },
	{ "mount", NOBODY, try_mount },
	{ "symlink", NOBODY, try_symlink },
};

struct outcome {
	enum err locked;
	char text[SANDBOX_TEXT_MAX];
	int error[ARRAY_LEN(attempts)]; /* errno, 0: it worked */
	int thread_error;
};

static void make_listener(int *fd, struct sockaddr_in *at)
{
	struct addr a, local;

	EQ(addr_parse(S("127.0.0.1:0"), &a), ERR_OK);
	EQ(os_listen(&a, 0, fd), ERR_OK);
	EQ(os_local_addr(*fd, &local), ERR_OK);
	*at = (struct sockaddr_in){ .sin_family = AF_INET,
				    .sin_port = htons(local.port),
				    .sin_addr = { htonl(INADDR_LOOPBACK) } };
}

static void make_box(struct box *b)
{
	struct sockaddr_in at;
	int client, fd;

	snprintf(b->folder, sizeof(b->folder), "/tmp/posthorn-sandbox-XXXXXX");
	OK(mkdtemp(b->folder) != NULL);
	snprintf(b->write, sizeof(b->write), "%s/write", b->folder);
	snprintf(b->read, sizeof(b->read), "%s/read", b->folder);
	EQ(os_mkdir(-1, b->write, 0700), ERR_OK);
	EQ(os_mkdir(-1, b->read, 0700), ERR_OK);
	fd = open_below(b->read, "there", O_RDWR | O_CREAT);
	os_close(fd);
	b->file = open_below(b->write, "there", O_RDWR | O_CREAT);
	OK(fd >= 0 && b->file >= 0);
	EQ(os_memfd(S("#!/bin/true\n"), true, &b->memory), ERR_OK);
	make_listener(&b->listener, &at);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	EQ(connect(client, (struct sockaddr *)(void *)&at, sizeof(at)), 0);
	make_listener(&b->refused_listener, &at);
	make_listener(&b->other_listener, &b->other);
	os_close(client);
}

static void remove_box(struct box *b)
{
	char path[128];
	const char *const names[] = { "read/there", "read/new", "write/there", "write/new",
				      "write/link" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", b->folder, names[i]);
		unlink(path);
	}
	EQ(rmdir(b->write), 0);
	EQ(rmdir(b->read), 0);
	EQ(rmdir(b->folder), 0);
	os_close(b->file);
	os_close(b->memory);
	os_close(b->listener);
	os_close(b->refused_listener);
	os_close(b->other_listener);
}

struct helper {
	pthread_t thread;
	int go[2], error;
};

/* A thread that was there before the lock. */
static void *helper_thread(void *arg)
{
	struct helper *h = arg;
	char c;

	if (read(h->go[0], &c, 1) != 1)
		return NULL;
	errno = 0;
	h->error = socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? errno : 0;
	return NULL;
}

static _Noreturn void child(struct box *b, unsigned first, unsigned allow, struct outcome *out)
{
	const char *const write_paths[] = { b->write, NULL }, *const read_paths[] = { b->read,
										      NULL };
	struct sandbox s = { .allow = first, .write_paths = write_paths, .read_paths = read_paths };
	struct helper h;

	if (pipe(h.go) || pthread_create(&h.thread, NULL, helper_thread, &h))
		_exit(1);
	out->locked = sandbox_lock(&s, out->text);
	if (first != allow && !out->locked)
		out->locked = sandbox_narrow(first, allow);
	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		errno = 0;
		out->error[i] = attempts[i].run(b) < 0 ? (errno ? errno : EIO) : 0;
	}
	if (write(h.go[1], "g", 1) != 1 || pthread_join(h.thread, NULL))
		_exit(2);
	out->thread_error = h.error;
	_exit(0);
}

/* What it did where it should not, or the other way round. */
static void compare(const struct outcome *out, unsigned allow)
{
	bool has_landlock = str_find(str_from_c(out->text), S("Landlock ")) != STR_NONE &&
			    str_find(str_from_c(out->text), S("no Landlock")) == STR_NONE;

	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		bool may = attempts[i].allow == EVERYBODY || (attempts[i].allow & allow);

		/* Paths are Landlock's: without it, whoever may open files opens all that its user
		 * may. */
		if (!has_landlock && (allow & SANDBOX_FILES) &&
		    strstr(attempts[i].what, "read path"))
			continue;
		if (!has_landlock && (allow & ANY_FILES) && strstr(attempts[i].what, "elsewhere"))
			continue;
		if (!tap_check(may == (out->error[i] == 0), attempts[i].what, __FILE__, __LINE__))
			printf("#   %s\n",
			       out->error[i] ? strerrorname_np(out->error[i]) : "it worked");
	}
}

/* `first` is what it was locked with; if that is not `allow`, it was narrowed to that afterwards.
 */
static void test_narrowed(unsigned first, unsigned allow, const char *name)
{
	struct outcome *out =
		mmap(NULL, sizeof(*out), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct box b;
	int status;
	pid_t pid;

	tap_group(name);
	make_box(&b);
	out->locked = ERR_COUNT;
	pid = fork();
	if (pid == 0)
		child(&b, first, allow, out);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	EQ(out->locked, ERR_OK);
	compare(out, allow);
	EQ(out->thread_error, EPERM);
	remove_box(&b);
	munmap(out, sizeof(*out));
}

static void test_one(unsigned allow, const char *name)
{
	test_narrowed(allow, allow, name);
}

static void test_paths(void)
{
	const char *const missing[] = { "/nonexistent/folder", NULL };
	struct sandbox s = { .allow = SANDBOX_FILES, .write_paths = missing };
	char text[SANDBOX_TEXT_MAX];
	int status;
	pid_t pid;

	tap_group("a path that is not there");
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
		OK(true);
		return;
	}
	pid = fork();
	if (pid == 0)
		_exit(sandbox_lock(&s, text) == ERR_OK);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0); /* less protection than was asked for is a failure */
}

#ifdef __x86_64__
static void test_other_abi(void)
{
	struct sandbox s = { 0 };
	char text[SANDBOX_TEXT_MAX];
	int status;
	pid_t pid;

	tap_group("calls of another architecture");
	pid = fork();
	if (pid == 0) {
		long n = 20; /* getpid of i386 */

		signal(SIGSYS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		if (sandbox_lock(&s, text))
			_exit(1);
		__asm__ volatile("int $0x80" : "+a"(n) : : "memory", "r8", "r9", "r10", "r11");
		_exit(2);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status));
}
#else
static void test_other_abi(void)
{
}
#endif

int main(void)
{
	test_one(0, "nothing");
	test_one(SANDBOX_FILES, "files");
	test_one(SANDBOX_SYNC, "sync");
	test_one(SANDBOX_ACCEPT, "accept");
	test_one(SANDBOX_CONNECT, "connect");
	test_one(SANDBOX_FORK, "fork");
	test_one(SANDBOX_MEMFD, "memfd");
	test_one(SANDBOX_BIND_UDP, "bind");
	test_one(SANDBOX_PEERS, "peers");
	test_one(SANDBOX_READ_FILES, "read files");
	test_one((1u << 9) - 1, "everything");
	test_narrowed((1u << 9) - 1 - ANY_FILES, 0, "narrowed to nothing");
	test_narrowed((1u << 9) - 1 - ANY_FILES, SANDBOX_MEMFD | SANDBOX_SYNC,
		      "narrowed to memfd and sync");
	test_narrowed(SANDBOX_FORK | SANDBOX_PEERS | SANDBOX_MEMFD, SANDBOX_MEMFD,
		      "narrowed as a session is");
	test_paths();
	test_other_abi();
	return tap_done();
}
