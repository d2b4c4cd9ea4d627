/* os.h over Linux: processes, signals, users. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGUSR1);
}

enum err os_signals(int *fd)
{
	sigset_t set;

	/* The log's reader may go; children inherit this. */
	signal(SIGPIPE, SIG_IGN);
	signal_set(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	*fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return *fd < 0 ? err_from_errno(errno) : ERR_OK;
}

enum err os_signals_read(int fd, unsigned *signals)
{
	struct signalfd_siginfo info;

	*signals = 0;
	while (read(fd, &info, sizeof(info)) == sizeof(info))
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			*signals |= OS_SIG_TERM;
			break;
		case SIGHUP:
			*signals |= OS_SIG_RELOAD;
			break;
		case SIGCHLD:
			*signals |= OS_SIG_CHILD;
			break;
		default:
			*signals |= OS_SIG_USER;
		}
	return *signals ? ERR_OK : ERR_AGAIN;
}

/* As many descriptors as we may have: the usual 1024 are a limit for programs that use select. */
static void raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/* In the child, between fork and exec: async-signal-safe calls alone. */
static void become(const struct os_spawn *how, int exe)
{
	enum { ARGS_MAX = 16 };
	const char *argv[ARGS_MAX + 2] = { "posthorn" };
	int fds[32];
	sigset_t none;
	unsigned n = 0;

	while (how->args[n] && n < ARGS_MAX) {
		argv[n + 1] = how->args[n];
		n++;
	}
	/* All out of the way first, so that no dup2 overwrites one that is still to be moved. */
	for (unsigned i = 0; i < how->nfds && i < ARRAY_LEN(fds); i++)
		fds[i] = fcntl(how->fds[i], F_DUPFD, 100);
	exe = fcntl(exe, F_DUPFD_CLOEXEC, 100 + (int)how->nfds);
	for (unsigned i = 0; i < how->nfds; i++)
		dup2(fds[i], 3 + (int)i);
	if (how->stdin_null) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		if (fcntl(1, F_GETFD) < 0)
			dup2(null, 1);
		if (fcntl(2, F_GETFD) < 0)
			dup2(null, 2);
	}
	fcntl(exe, F_SETFD, 0);
	syscall(SYS_close_range, 3 + how->nfds, (unsigned)exe - 1, 0);
	syscall(SYS_close_range, (unsigned)exe + 1, ~0u, 0);
	fcntl(exe, F_SETFD, FD_CLOEXEC);
	raise_files();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (how->gid && (setgroups(0, NULL) || setresgid(how->gid, how->gid, how->gid)))
		_exit(126);
	if (how->uid && setresuid(how->uid, how->uid, how->uid))
		_exit(126);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_execveat, exe, "", argv, environ, AT_EMPTY_PATH);
	_exit(127);
}

enum err os_spawn(const struct os_spawn *how, int *pid)
{
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	if (exe < 0)
		return err_from_errno(errno);
	*pid = fork();
	if (*pid == 0)
		become(how, exe);
	os_close(exe);
	return *pid < 0 ? err_from_errno(errno) : ERR_OK;
}

enum err os_fork(void (*child)(void *arg), void *arg, int *pid)
{
	*pid = fork();
	if (*pid == 0) {
		child(arg);
		_exit(0);
	}
	return *pid < 0 ? err_from_errno(errno) : ERR_OK;
}

void os_wipe_copied(void *p, size_t n)
{
	explicit_bzero(p, n);
}

void os_close_others(const int *keep, unsigned n)
{
	unsigned from = 3;

	for (;;) {
		unsigned next = ~0u;

		for (unsigned i = 0; i < n; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from)
			syscall(SYS_close_range, from, next - 1, 0);
		if (next == ~0u)
			return;
		from = next + 1;
	}
}

enum err os_reap(int *pid, int *status)
{
	int st;
	pid_t p;

	do
		p = waitpid(-1, &st, WNOHANG);
	while (p < 0 && errno == EINTR);
	if (p <= 0)
		return ERR_AGAIN;
	*pid = p;
	*status = WIFSIGNALED(st) ? 256 + WTERMSIG(st) : WEXITSTATUS(st);
	return ERR_OK;
}

enum err os_kill(int pid, int signal)
{
	return kill(pid, signal) ? err_from_errno(errno) : ERR_OK;
}

void os_exit(int status)
{
	_exit(status);
}

int os_pid(void)
{
	return getpid();
}

uint32_t os_uid(void)
{
	return getuid();
}

enum err os_folder(char *out, size_t size)
{
	return getcwd(out, size) ? ERR_OK : errno == ERANGE ? ERR_TOO_LONG : err_from_errno(errno);
}

unsigned os_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

enum err os_user_find(const char *name, uint32_t *uid, uint32_t *gid)
{
	struct passwd pw, *found = NULL;
	char room[2048];
	int failed = getpwnam_r(name, &pw, room, sizeof(room), &found);

	if (failed)
		return err_from_errno(failed);
	if (!found)
		return ERR_NOT_FOUND;
	*uid = pw.pw_uid;
	*gid = pw.pw_gid;
	return ERR_OK;
}

enum err os_chown(int dir, const char *name, uint32_t uid, uint32_t gid)
{
	return fchownat(dir < 0 ? AT_FDCWD : dir, name, uid, gid, 0) ? err_from_errno(errno)
								     : ERR_OK;
}

enum err os_chmod(int dir, const char *name, unsigned mode)
{
	return fchmodat(dir < 0 ? AT_FDCWD : dir, name, mode, 0) ? err_from_errno(errno) : ERR_OK;
}
