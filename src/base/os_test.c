/* The operating system as os.h promises it: files, locks, lists, memory as descriptors, the syncer,
 * sockets, descriptors in datagrams, readiness, processes. */
#include "base/os.h"
#include "base/buf.h"
#include "base/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child would print of a check, would be counted twice. */
static void fork_quietly(int *pid)
{
	*pid = fork();
	if (*pid)
		OK(*pid > 0);
}

static int make_folder(char name[64])
{
	int fd = -1;

	snprintf(name, 64, "/tmp/posthorn-os-XXXXXX");
	OK(mkdtemp(name) != NULL);
	EQ(os_open(-1, name, OS_READ | OS_DIRECTORY, &fd), ERR_OK);
	return fd;
}

static void test_open(int dir)
{
	struct os_stat st;
	char got[16];
	size_t n;
	int fd;

	tap_group("open");
	EQ(os_open(dir, "none", OS_READ, &fd), ERR_NOT_FOUND);
	EQ(fd, -1);
	EQ(os_open(dir, "file", OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &fd), ERR_OK);
	EQ(os_write_all(fd, S("0123456789")), ERR_OK);
	EQ(os_read(fd, got, 1, &n), ERR_CLOSED); /* for writing alone */
	EQ(os_fstat(fd, &st), ERR_OK);
	EQ(st.mode, 0600);
	EQ(st.size, 10);
	OK(st.is_file && !st.is_directory && !st.is_socket);
	os_close(fd);
	EQ(os_open(dir, "file", OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &fd), ERR_EXISTS);
	EQ(os_open(dir, "file", OS_READ | OS_DIRECTORY, &fd), ERR_NOT_FOUND);
	EQ(os_open(dir, "file", OS_WRITE | OS_APPEND, &fd), ERR_OK);
	EQ(os_write_all(fd, S("ab")), ERR_OK);
	os_close(fd);
	EQ(os_open(dir, "file", OS_READ, &fd), ERR_OK);
	EQ(os_read(fd, got, sizeof(got), &n), ERR_OK);
	STR_EQ(str_of(got, n), S("0123456789ab"));
	EQ(os_read(fd, got, sizeof(got), &n), ERR_EOF);
	EQ(n, 0);
	EQ(os_read(fd, got, 0, &n), ERR_OK);
	EQ(os_write(fd, "x", 1, &n), ERR_CLOSED);
	os_close(fd);
	EQ(os_open(dir, "file", OS_WRITE | OS_TRUNCATE, &fd), ERR_OK);
	EQ(os_fstat(fd, &st), ERR_OK);
	EQ(st.size, 0);
	os_close(fd);
	os_close(-1);
}

static void test_at(int dir)
{
	enum { PARTS = 1500 }; /* more than the kernel takes at once */
	static struct iovec iov[PARTS];
	static char byte[PARTS], got[PARTS];
	struct os_stat st;
	size_t n;
	int fd;

	tap_group("at a place");
	EQ(os_open(dir, "at", OS_READ | OS_WRITE | OS_CREATE, &fd), ERR_OK);
	EQ(os_pwrite_all(fd, S("tail"), 6), ERR_OK);
	EQ(os_pread_all(fd, got, 10, 0), ERR_OK);
	STR_EQ(str_of(got, 10), S("\0\0\0\0\0\0tail"));
	EQ(os_pread_all(fd, got, 11, 0), ERR_EOF);
	EQ(os_pread(fd, got, 11, 6, &n), ERR_OK);
	EQ(n, 4);
	EQ(os_pread(fd, got, 11, 10, &n), ERR_EOF);
	for (int i = 0; i < PARTS; i++) {
		byte[i] = (char)('a' + i % 26);
		iov[i] = (struct iovec){ &byte[i], i % 10 == 9 ? 0 : 1 };
	}
	EQ(os_pwritev_all(fd, iov, PARTS, 3), ERR_OK);
	EQ(os_fstat(fd, &st), ERR_OK);
	EQ(st.size, 3 + PARTS * 9 / 10);
	EQ(os_pread_all(fd, got, PARTS * 9 / 10, 3), ERR_OK);
	EQ(got[PARTS * 9 / 10 - 1], byte[PARTS - 2]);
	EQ(os_pwritev_all(fd, iov, 0, 0), ERR_OK);
	EQ(os_truncate(fd, 2), ERR_OK);
	EQ(os_allocate(fd, 0, 8192), ERR_OK);
	EQ(os_fstat(fd, &st), ERR_OK);
	EQ(st.size, 8192);
	EQ(os_allocate(fd, 0, 100), ERR_OK); /* the size never shrinks */
	EQ(os_fstat(fd, &st), ERR_OK);
	EQ(st.size, 8192);
	EQ(os_fdatasync(fd), ERR_OK);
	EQ(os_fsync(dir), ERR_OK);
	os_close(fd);
}

/* As on a file system that has no fallocate. */
static void refuse_allocate(void)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_fallocate, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog all = { .len = ARRAY_LEN(program), .filter = program };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all))
		os_exit(100);
}

static void test_no_allocate(int dir)
{
	struct os_stat st;
	int fd, pid, status;

	tap_group("a file system that cannot allocate");
	EQ(os_open(dir, "at", OS_READ | OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd), ERR_OK);
	fork_quietly(&pid);
	if (pid == 0) {
		refuse_allocate();
		if (os_allocate(fd, 100, 900) || os_fstat(fd, &st) || st.size != 1000)
			os_exit(1);
		if (os_allocate(fd, 0, 100) || os_fstat(fd, &st) || st.size != 1000)
			os_exit(2); /* what is there must stay */
		os_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	os_close(fd);
}

static void test_names(int dir)
{
	struct os_stat st;
	struct os_space space;
	int fd, again;

	tap_group("names");
	EQ(os_rename(dir, "at", "renamed"), ERR_OK);
	EQ(os_stat(dir, "at", &st), ERR_NOT_FOUND);
	EQ(os_link(dir, "renamed", "linked"), ERR_OK);
	EQ(os_link(dir, "renamed", "linked"), ERR_EXISTS);
	EQ(os_unlink(dir, "linked"), ERR_OK);
	EQ(os_unlink(dir, "linked"), ERR_NOT_FOUND);
	EQ(os_mkdir(dir, "sub", 0700), ERR_OK);
	EQ(os_mkdir(dir, "sub", 0700), ERR_EXISTS);
	EQ(os_chmod(dir, "sub", 0750), ERR_OK);
	EQ(os_stat(dir, "sub", &st), ERR_OK);
	OK(st.is_directory);
	EQ(st.mode, 0750);
	EQ(os_space(dir, &space), ERR_OK);
	OK(space.free > 0 && space.free <= space.total);
	tap_group("locks");
	EQ(os_open(dir, "lock", OS_WRITE | OS_CREATE, &fd), ERR_OK);
	EQ(os_open(dir, "lock", OS_WRITE, &again), ERR_OK);
	EQ(os_lock_file(fd), ERR_OK);
	EQ(os_lock_file(again), ERR_BUSY);
	os_close(fd);
	EQ(os_lock_file(again), ERR_OK);
	os_close(again);
}

static bool is_listed(const str *names, size_t n, str name)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(names[i], name) && names[i].p[name.n] == 0)
			return true;
	return false;
}

static void test_list(int dir)
{
	struct arena *a = arena_new(1 << 20), *small = arena_new(64);
	str *names;
	size_t n;
	char name[32];
	int sub, fd;

	tap_group("list");
	EQ(os_open(dir, "sub", OS_READ | OS_DIRECTORY, &sub), ERR_OK);
	EQ(os_list(sub, a, &names, &n), ERR_OK);
	EQ(n, 0);
	for (int i = 0; i < 200; i++) { /* more than fits at first */
		snprintf(name, sizeof(name), "n%d", i);
		if (os_open(sub, name, OS_WRITE | OS_CREATE, &fd))
			OK(!"made");
		os_close(fd);
	}
	EQ(os_list(sub, a, &names, &n), ERR_OK);
	EQ(n, 200);
	OK(is_listed(names, n, S("n0")) && is_listed(names, n, S("n199")) &&
	   !is_listed(names, n, S(".")));
	EQ(os_list(sub, a, &names, &n), ERR_OK); /* again, from the start */
	EQ(n, 200);
	EQ(os_list(sub, small, &names, &n), ERR_NO_MEMORY);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		if (os_unlink(sub, name))
			OK(!"removed");
	}
	os_close(sub);
	EQ(unlinkat(dir, "sub", AT_REMOVEDIR), 0);
	arena_free(a);
	arena_free(small);
}

static void test_memfd(int dir)
{
	uint64_t size = 0;
	char got[8];
	int fd;

	tap_group("memory as a descriptor");
	EQ(os_memfd(S("contents"), true, &fd), ERR_OK);
	EQ(os_memfd_check(fd, &size), ERR_OK);
	EQ(size, 8);
	EQ(os_pread_all(fd, got, 8, 0), ERR_OK);
	STR_EQ(str_of(got, 8), S("contents"));
	EQ(os_pwrite_all(fd, S("x"), 0), ERR_DENIED);
	EQ(os_pwrite_all(fd, S("x"), 8), ERR_DENIED);
	EQ(os_truncate(fd, 0), ERR_DENIED);
	EQ(os_truncate(fd, 100), ERR_DENIED);
	OK(mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	os_close(fd);
	EQ(os_memfd(S("first"), false, &fd), ERR_OK);
	EQ(os_memfd_check(fd, &size), ERR_PROTOCOL);
	EQ(os_write_all(fd, S(", second")), ERR_OK);
	EQ(os_memfd_seal(fd), ERR_OK);
	EQ(os_memfd_check(fd, &size), ERR_OK);
	EQ(size, 13);
	os_close(fd);
	/* All seals but the one that keeps them: whoever has it could still write. */
	EQ(os_memfd(S("x"), false, &fd), ERR_OK);
	EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	EQ(os_memfd_check(fd, &size), ERR_PROTOCOL);
	EQ(os_memfd_seal(fd), ERR_DENIED);
	os_close(fd);
	EQ(os_open(dir, "file", OS_READ, &fd), ERR_OK);
	EQ(os_memfd_check(fd, &size), ERR_PROTOCOL);
	os_close(fd);
	EQ(os_memfd_check(-1, &size), ERR_PROTOCOL);
}

static void test_syncer(int dir)
{
	struct os_syncer *s;
	int fd, no_file[2];

	tap_group("syncer");
	EQ(os_syncer_new(&s), ERR_OK);
	EQ(os_sync_result(s), ERR_AGAIN);
	EQ(os_wait_readable(os_syncer_fd(s), 0), ERR_TIMEOUT);
	EQ(os_open(dir, "file", OS_WRITE, &fd), ERR_OK);
	for (int i = 0; i < 3; i++) {
		EQ(os_write_all(fd, S("more")), ERR_OK);
		os_sync_start(s, fd);
		EQ(os_wait_readable(os_syncer_fd(s), 60000), ERR_OK);
		EQ(os_sync_result(s), ERR_OK);
		EQ(os_sync_result(s), ERR_AGAIN);
		EQ(os_wait_readable(os_syncer_fd(s), 0), ERR_TIMEOUT);
	}
	os_close(fd);
	os_sync_start_folder(s, dir);
	EQ(os_wait_readable(os_syncer_fd(s), 60000), ERR_OK);
	EQ(os_sync_result(s), ERR_OK);
	EQ(os_socketpair(false, no_file), ERR_OK);
	os_sync_start(s, no_file[0]); /* what cannot be synced is an error, not a success */
	EQ(os_wait_readable(os_syncer_fd(s), 60000), ERR_OK);
	EQ(os_sync_result(s), ERR_IO);
	EQ(os_open(dir, "file", OS_WRITE, &fd), ERR_OK);
	os_sync_start(s, fd);
	os_syncer_free(s); /* with one under way */
	os_syncer_free(NULL);
	os_close(fd);
	os_close(no_file[0]);
	os_close(no_file[1]);
}

static void connect_to(str where, struct addr *local)
{
	struct addr at, peer, seen;
	char text[ADDR_TEXT_MAX], got[8];
	int listener, client, server = -1, second;
	size_t n;

	EQ(addr_parse(where, &at), ERR_OK);
	EQ(os_listen(&at, 0, &listener), ERR_OK);
	EQ(os_local_addr(listener, local), ERR_OK);
	EQ(os_listen(local, 0, &second), ERR_BUSY);
	EQ(second, -1);
	EQ(os_accept(listener, &peer, &server), ERR_AGAIN);
	EQ(os_connect(local, NULL, &client), ERR_OK);
	EQ(os_wait_readable(listener, 10000), ERR_OK);
	EQ(os_connect_result(client), ERR_OK);
	EQ(os_accept(listener, &peer, &server), ERR_OK);
	EQ(os_local_addr(client, &seen), ERR_OK);
	STR_EQ(addr_text(&peer, text), addr_text(&seen, (char[ADDR_TEXT_MAX]){ 0 }));
	EQ(os_peer_addr(client, &seen), ERR_OK);
	EQ(seen.port, local->port);
	os_no_delay(client);
	EQ(os_recv(server, got, sizeof(got), &n), ERR_AGAIN);
	EQ(os_send(client, "hello", 5, &n), ERR_OK);
	EQ(os_wait_readable(server, 10000), ERR_OK);
	EQ(os_recv(server, got, sizeof(got), &n), ERR_OK);
	STR_EQ(str_of(got, n), S("hello"));
	os_shutdown_write(client);
	EQ(os_wait_readable(server, 10000), ERR_OK);
	EQ(os_recv(server, got, sizeof(got), &n), ERR_EOF);
	EQ(os_send(server, "bye", 3, &n), ERR_OK); /* the other direction lives */
	os_close(client);
	os_close(server);
	os_close(listener);
}

static void test_internet(void)
{
	struct addr at, from;
	int fd;

	tap_group("IPv4");
	connect_to(S("127.0.0.1:0"), &at);
	tap_group("IPv6");
	connect_to(S("[::1]:0"), &at);
	tap_group("nobody listens");
	EQ(addr_parse_ip(S("127.0.0.1"), &from), ERR_OK);
	EQ(addr_parse(S("127.0.0.1:1"), &at), ERR_OK);
	EQ(os_connect(&at, &from, &fd), ERR_OK);
	EQ(os_wait_readable(fd, 10000), ERR_OK);
	EQ(os_connect_result(fd), ERR_TEMPORARY);
	EQ(os_peer_addr(fd, &at), ERR_CLOSED);
	os_close(fd);
}

static void test_unix(const char *folder)
{
	struct addr at = { .family = ADDR_UNIX }, peer;
	char path[128];
	uint32_t uid, gid;
	int listener, again, client, server, pid;

	tap_group("UNIX sockets");
	snprintf(at.path, sizeof(at.path), "%s/socket", folder);
	EQ(os_listen(&at, 0, &listener), ERR_OK);
	os_close(listener);
	EQ(os_listen(&at, 0, &listener), ERR_OK); /* what a killed one left is replaced */
	EQ(os_connect(&at, NULL, &client), ERR_OK);
	EQ(os_accept(listener, &peer, &server), ERR_OK);
	EQ(peer.family, ADDR_UNIX);
	EQ(os_peer_user(server, &uid, &gid, &pid), ERR_OK);
	EQ(uid, os_uid());
	EQ(pid, os_pid());
	os_close(client);
	os_close(server);
	os_close(listener);
	EQ(os_unlink(-1, at.path), ERR_OK);
	EQ(os_open(-1, at.path, OS_WRITE | OS_CREATE, &client), ERR_OK);
	os_close(client);
	EQ(os_listen(&at, 0, &listener), ERR_BUSY); /* a file is nobody's leftover */
	EQ(os_unlink(-1, at.path), ERR_OK);
	tap_group("the control socket");
	snprintf(path, sizeof(path), "%s/control", folder);
	EQ(os_connect_datagrams(path, &client), ERR_NOT_FOUND);
	EQ(os_listen_datagrams(path, &listener), ERR_OK);
	EQ(os_connect_datagrams(path, &client), ERR_OK);
	EQ(os_accept(listener, &peer, &server), ERR_OK);
	os_close(listener);
	EQ(os_connect_datagrams(path, &again),
	   ERR_NOT_FOUND); /* the socket is there, the server is not */
	os_close(client);
	os_close(server);
	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	EQ(os_listen_datagrams(path, &listener), ERR_TOO_LONG);
	EQ(os_connect_datagrams(path, &client), ERR_TOO_LONG);
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static enum err pass(int sock, size_t n, unsigned nfds, const int *fds)
{
	char bytes[64] = "bytes";
	struct iovec iov[2] = { { bytes, 1 }, { bytes + 1, n - 1 } };

	return os_send_fds(sock, iov, 2, fds, nfds);
}

static void test_passing(void)
{
	int pair[2], fds[OS_FDS_MAX], five[5];
	struct {
		struct cmsghdr c;
		int fd[5];
	} control = { .c = { .cmsg_len = CMSG_LEN(sizeof(five)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS } };
	char got[16];
	size_t n;
	unsigned nfds, before;

	tap_group("descriptors in datagrams");
	EQ(os_socketpair(true, pair), ERR_OK);
	before = count_fds();
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_AGAIN);
	EQ(pass(pair[0], 5, 2, (int[]){ pair[0], 1 }), ERR_OK);
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_OK);
	STR_EQ(str_of(got, n), S("bytes"));
	EQ(nfds, 2);
	OK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	os_close(fds[0]);
	os_close(fds[1]);
	EQ(pass(pair[0], 16, 0, NULL), ERR_OK);
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_OK);
	EQ(n, 16);
	EQ(nfds, 0);
	EQ(pass(pair[0], 17, 1, (int[]){ 1 }), ERR_OK);
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_TOO_LONG);
	EQ(nfds, 0);
	EQ(count_fds(), before); /* and its descriptor is closed */
	tap_group("more descriptors than we take");
	for (int i = 0; i < 5; i++)
		control.fd[i] = 1;
	EQ(sendmsg(pair[0],
		   &(struct msghdr){ .msg_iov = &(struct iovec){ got, 1 },
				     .msg_iovlen = 1,
				     .msg_control = &control,
				     .msg_controllen = sizeof(control) },
		   0),
	   1);
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_TOO_LONG);
	EQ(count_fds(), before);
	EQ(pass(pair[0], 1, 1, (int[]){ 999 }), ERR_CLOSED); /* no such descriptor */
	os_close(pair[0]);
	EQ(os_recv_fds(pair[1], got, sizeof(got), &n, fds, &nfds), ERR_EOF);
	EQ(pass(pair[1], 1, 0, NULL), ERR_CLOSED);
	os_close(pair[1]);
}

static void test_describe(void)
{
	int before[2], memory;
	struct buf b;

	tap_group("what descriptors there are");
	EQ(os_socketpair(true, before), ERR_OK);
	EQ(os_memfd(S("x"), true, &memory), ERR_OK);
	buf_init(&b, 4096);
	os_describe_fds(&b);
	OK(str_find(buf_str(&b), S("1 memory")) != STR_NONE);
	OK(str_find(buf_str(&b), S("2 channels")) != STR_NONE);
	buf_free(&b);
	os_close(before[0]);
	os_close(before[1]);
	os_close(memory);
}

static void test_processes(void)
{
	uint32_t uid, gid;
	int pid, status, fd[2], signals;
	unsigned got = 0;
	size_t n;

	tap_group("processes");
	EQ(os_user_find("root", &uid, &gid), ERR_OK);
	EQ(uid, 0);
	EQ(os_user_find("nobody-has-this-name", &uid, &gid), ERR_NOT_FOUND);
	EQ(os_reap(&pid, &status), ERR_AGAIN);
	EQ(os_signals(&signals), ERR_OK);
	EQ(os_signals_read(signals, &got), ERR_AGAIN);
	fork_quietly(&pid);
	if (pid == 0)
		os_exit(7);
	EQ(os_wait_readable(signals, 60000), ERR_OK);
	EQ(os_signals_read(signals, &got), ERR_OK);
	EQ(got, OS_SIG_CHILD);
	EQ(os_reap(&pid, &status), ERR_OK);
	EQ(status, 7);
	fork_quietly(&pid);
	if (pid == 0)
		for (;;)
			pause();
	EQ(os_kill(pid, 9), ERR_OK);
	EQ(os_wait_readable(signals, 60000), ERR_OK);
	EQ(os_signals_read(signals, &got), ERR_OK);
	EQ(os_reap(&pid, &status), ERR_OK);
	EQ(status, 256 + 9);
	EQ(os_kill(os_pid(), 15), ERR_OK);
	EQ(os_kill(os_pid(), 1), ERR_OK);
	EQ(os_signals_read(signals, &got), ERR_OK);
	EQ(got, OS_SIG_TERM | OS_SIG_RELOAD);
	tap_group("a reader of ours that is gone is no reason to die");
	EQ(pipe(fd), 0);
	os_close(fd[0]);
	EQ(os_write(fd[1], "x", 1, &n), ERR_CLOSED);
	os_close(fd[1]);
	os_close(signals);
}

/* This program again, as os_spawn starts it; its exit status says in bits what was not as promised.
 */
static int spawned(void)
{
	struct rlimit files;
	struct stat st;
	sigset_t blocked;
	int wrong = 0;

	wrong |= fcntl(3, F_GETFD) < 0 || fcntl(4, F_GETFD) < 0 || write(4, "here", 4) != 4;
	for (int fd = 5; fd < 1024; fd++)
		wrong |= fcntl(fd, F_GETFD) >= 0 ? 2 : 0;
	wrong |= fstat(0, &st) || !S_ISCHR(st.st_mode) ? 4 : 0;
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	wrong |= sigismember(&blocked, SIGTERM) ? 8 : 0;
	wrong |= getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur != files.rlim_max ? 16 : 0;
	return wrong;
}

static void test_spawn(void)
{
	const char *const args[] = { "spawned", NULL };
	struct rlimit files;
	int one[2], two[2], pid, status;
	int fds[2];
	char got[8];
	size_t n;

	tap_group("spawn");
	EQ(os_socketpair(false, one), ERR_OK);
	EQ(os_socketpair(false, two), ERR_OK);
	EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = 200; /* a shell's limit is not the server's */
	EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
	fds[0] = one[1]; /* in the other order than they will have */
	fds[1] = one[0];
	EQ(os_spawn(&(struct os_spawn){ .args = args, .fds = fds, .nfds = 2, .stdin_null = true },
		    &pid),
	   ERR_OK);
	EQ(os_wait_readable(one[1], 60000), ERR_OK);
	EQ(os_recv(one[1], got, sizeof(got), &n), ERR_OK);
	STR_EQ(str_of(got, n), S("here"));
	while (os_reap(&pid, &status) == ERR_AGAIN)
		EQ(os_wait_readable(two[0], 10), ERR_TIMEOUT);
	EQ(status, 0);
	for (int i = 0; i < 2; i++) {
		os_close(one[i]);
		os_close(two[i]);
	}
}

static void count_up(void *arg)
{
	int *n = arg;

	os_exit(++*n);
}

static void test_fork(void)
{
	int n = 41, pid, status;

	tap_group("a copy");
	EQ(os_fork(count_up, &n, &pid), ERR_OK);
	while (os_reap(&pid, &status) == ERR_AGAIN)
		sched_yield();
	EQ(status, 42);
	EQ(n, 41);
	os_wipe_copied(&n, sizeof(n));
	EQ(n, 0);
}

static void test_close_others(void)
{
	int fd[4], pid, status;

	tap_group("closing the others");
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(os_socketpair(false, fd + 2), ERR_OK);
	fork_quietly(&pid);
	if (pid == 0) {
		os_close_others((int[]){ fd[3], -1, fd[1] }, 3);
		os_exit((fcntl(fd[0], F_GETFD) >= 0) + (fcntl(fd[1], F_GETFD) < 0) * 2 +
			(fcntl(fd[2], F_GETFD) >= 0) * 4 + (fcntl(fd[3], F_GETFD) < 0) * 8 +
			(fcntl(2, F_GETFD) < 0) * 16);
	}
	while (os_reap(&pid, &status) == ERR_AGAIN)
		EQ(os_wait_readable(fd[0], 10), ERR_TIMEOUT);
	EQ(status, 0);
	for (int i = 0; i < 4; i++)
		os_close(fd[i]);
}

static void test_clock(void)
{
	int64_t a = os_monotonic_ns(), b = os_monotonic_ns();
	char x[300] = { 0 }, y[300] = { 0 };

	tap_group("clock and chance");
	OK(b >= a);
	OK(os_wall_us() > 1700000000000000);
	os_random(x, sizeof(x));
	os_random(y, sizeof(y));
	OK(memcmp(x, y, sizeof(x)) != 0);
	OK(memcmp(x + 256, y + 256, 44) != 0); /* past what one call gives */
	OK(os_random_u64() != os_random_u64());
	OK(os_cores() >= 1);
}

static void remove_all(int dir, const char *folder)
{
	struct arena *a = arena_new(1 << 20);
	str *names;
	size_t n;

	EQ(os_list(dir, a, &names, &n), ERR_OK);
	for (size_t i = 0; i < n; i++)
		EQ(os_unlink(dir, names[i].p), ERR_OK);
	os_close(dir);
	EQ(rmdir(folder), 0);
	arena_free(a);
}

int main(int argc, char **argv)
{
	char folder[64];
	int dir;

	if (argc > 1 && strcmp(argv[1], "spawned") == 0)
		return spawned();
	dir = make_folder(folder);

	test_clock();
	test_open(dir);
	test_at(dir);
	test_no_allocate(dir);
	test_names(dir);
	test_list(dir);
	test_memfd(dir);
	test_syncer(dir);
	test_internet();
	test_unix(folder);
	test_passing();
	test_describe();
	test_fork();
	test_close_others();
	test_spawn();
	test_processes();
	remove_all(dir, folder);
	return tap_done();
}
