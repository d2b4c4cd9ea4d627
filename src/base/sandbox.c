/* seccomp and Landlock.
 *
 * The seccomp program is built from sandbox.def: the architecture first, then one comparison for
 * each call that this role may make, with a look at the arguments where only some are harmless. The
 * kernel caches the calls that are allowed whatever their arguments, so the length of the list
 * costs nothing on the hot ones. The default is EPERM rather than a kill: a library that asks for
 * something it can do without goes on, and a probe (tests/sandbox) can tell what it met. */
#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define AUDIT_ARCH_OURS AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define AUDIT_ARCH_OURS AUDIT_ARCH_AARCH64
#else
#error "sandbox.c: name this machine's AUDIT_ARCH"
#endif

enum check {
	ANY,
	EMPTY_PATH,
	NO_EXEC,
	INTERNET,
	NO_NAMESPACE,
	DEATH_SIGNAL,
	SENDTO_PLAIN,
	SENDMSG_PLAIN,
	NO_OWNER,
	CONNECTED_PAIR,
	OPENAT_READ,
	OPEN_READ,
	ADD_FILTER,
};

struct call {
	int number;
	unsigned sets;
	enum check check;
};

/* Calls that this architecture does not have get number -1. */
static const struct call calls[] = {
#ifndef __NR_epoll_wait
#define __NR_epoll_wait -1
#endif
#ifndef __NR_poll
#define __NR_poll -1
#endif
#ifndef __NR_open
#define __NR_open     -1
#define __NR_stat     -1
#define __NR_lstat    -1
#define __NR_access   -1
#define __NR_readlink -1
#define __NR_unlink   -1
#define __NR_rename   -1
#define __NR_mkdir    -1
#define __NR_rmdir    -1
#endif
#define CALL(name, sets, check) { __NR_##name, (sets), (check) },
#include "base/sandbox.def"
#undef CALL
};

#define ARG(n)                                   \
	((unsigned)offsetof(struct seccomp_data, \
			    args[n])) /* its low half: little-endian machines */
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))
#define ALLOW	 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define REFUSE	 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

enum {
	PROGRAM_MAX = 480,
	BLOCK_MAX = 10,
	MAY_CHANGE = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY)
};

/* Refused when one of these bits is set in the argument. */
static unsigned refuse_bits(unsigned argument, unsigned bits, struct sock_filter block[BLOCK_MAX])
{
	block[0] = (struct sock_filter)LOAD(ARG(argument));
	block[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
	block[2] = (struct sock_filter)REFUSE;
	return 3;
}

/* What follows the comparison with the call's number; always ends in a return. */
#define PUT(instruction)     block[n++] = (struct sock_filter)instruction
#define IF_EQUAL(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), (yes), (no))
static unsigned argument_check(enum check check, struct sock_filter block[BLOCK_MAX])
{
	unsigned n = 0;

	switch (check) {
	case ANY:
		break;
	case EMPTY_PATH: /* newfstatat(fd, "", st, AT_EMPTY_PATH) */
		PUT(LOAD(ARG(3)));
		PUT(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, AT_EMPTY_PATH, 1, 0));
		PUT(REFUSE);
		break;
	case NO_EXEC:
		n = refuse_bits(2, PROT_EXEC, block);
		break;
	case OPENAT_READ:
		n = refuse_bits(2, MAY_CHANGE, block);
		break;
	case OPEN_READ:
		n = refuse_bits(1, MAY_CHANGE, block);
		break;
	case SENDTO_PLAIN: /* MSG_FASTOPEN connects a listener that was shut down */
		n = refuse_bits(3, MSG_FASTOPEN, block);
		break;
	case SENDMSG_PLAIN:
		n = refuse_bits(2, MSG_FASTOPEN, block);
		break;
	case NO_OWNER: /* who gets a descriptor's signals, and which: a way to kill others of the
			  same user */
		PUT(LOAD(ARG(1)));
		PUT(IF_EQUAL(F_SETOWN, 2, 0));
		PUT(IF_EQUAL(F_SETOWN_EX, 1, 0));
		PUT(IF_EQUAL(F_SETSIG, 0, 1));
		PUT(REFUSE);
		break;
	case CONNECTED_PAIR: /* a datagram socket could send to any other that has a name */
		PUT(LOAD(ARG(0)));
		PUT(IF_EQUAL(AF_UNIX, 0, 4));
		PUT(LOAD(ARG(1)));
		PUT(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf));
		PUT(IF_EQUAL(SOCK_STREAM, 2, 0));
		PUT(IF_EQUAL(SOCK_SEQPACKET, 1, 0));
		PUT(REFUSE);
		break;
	case INTERNET:
		PUT(LOAD(ARG(0)));
		PUT(IF_EQUAL(AF_INET, 2, 0));
		PUT(IF_EQUAL(AF_INET6, 1, 0));
		PUT(REFUSE);
		break;
	case NO_NAMESPACE:
		n = refuse_bits(0,
				CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID |
					CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
				block);
		break;
	case ADD_FILTER: /* filters stack and only ever take away; without flags: none that hands
			    calls to somebody else */
		PUT(LOAD(ARG(0)));
		PUT(IF_EQUAL(SECCOMP_SET_MODE_FILTER, 0, 2));
		PUT(LOAD(ARG(1)));
		PUT(IF_EQUAL(0, 1, 0));
		PUT(REFUSE);
		break;
	case DEATH_SIGNAL:
		PUT(LOAD(ARG(0)));
		PUT(IF_EQUAL(PR_SET_PDEATHSIG, 1, 0));
		PUT(REFUSE);
		break;
	}
	PUT(ALLOW);
	return n;
}

static bool is_listed_freely(unsigned i, unsigned allow)
{
	for (unsigned k = 0; k < ARRAY_LEN(calls); k++)
		if (k != i && calls[k].number == calls[i].number && calls[k].check == ANY &&
		    (calls[k].sets & allow))
			return true;
	return false;
}

static unsigned build(unsigned allow, struct sock_filter *program)
{
	unsigned n = 0;

	program[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, arch));
	program[n++] =
		(struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_OURS, 1, 0);
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	program[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr));
	/* glibc falls back to clone, whose flags can be looked at, when there is no clone3. */
	program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1);
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
		const struct call *c = &calls[i];
		struct sock_filter block[BLOCK_MAX];
		unsigned size;

		if (c->number < 0 || (c->sets && !(c->sets & allow)))
			continue;
		if (c->check != ANY && is_listed_freely(i, allow))
			continue;
		size = argument_check(c->check, block);
		if (n + 1 + size + 1 > PROGRAM_MAX)
			panic("sandbox: the program is too long");
		program[n++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned)c->number, 0, (unsigned char)size);
		memcpy(program + n, block, size * sizeof(*block));
		n += size;
	}
	program[n++] = (struct sock_filter)REFUSE;
	return n;
}

static enum err seccomp_lock(unsigned allow)
{
	struct sock_filter program[PROGRAM_MAX]; /* 3.8 KB; not in a fiber */
	struct sock_fprog fprog = { .filter = program };

	fprog.len = (unsigned short)build(allow, program);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &fprog))
		return ERR_UNSUPPORTED;
	return ERR_OK;
}

/* Newer than Debian 12's headers: the kernel says by its ABI version how much of it it knows. */
struct ruleset_attr {
	uint64_t fs, net, scoped;
};

static const struct {
	int abi;
	uint64_t fs, net, scoped;
	size_t size;
} landlock_versions[] = {
	{ 1, (1u << 13) - 1, 0, 0, 8 },	 { 2, (1u << 14) - 1, 0, 0, 8 },
	{ 3, (1u << 15) - 1, 0, 0, 8 },	 { 4, (1u << 15) - 1, 3, 0, 16 },
	{ 5, (1u << 16) - 1, 3, 0, 16 }, { 6, (1u << 16) - 1, 3, 3, 24 },
};

enum { LANDLOCK_READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR };

static bool landlock_paths(int ruleset, const char *const *paths, uint64_t rights)
{
	for (; paths && *paths; paths++) {
		struct landlock_path_beneath_attr rule = { .allowed_access = rights };
		int failed;

		rule.parent_fd = open(*paths, O_PATH | O_CLOEXEC);
		if (rule.parent_fd < 0)
			return false;
		failed = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
				      &rule, 0);
		close(rule.parent_fd);
		if (failed)
			return false;
	}
	return true;
}

/* *used: the version in force, 0 where the kernel has none. Where it has, less than what was asked
 * for is an error. */
static enum err landlock_lock(const struct sandbox *s, int *used)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct ruleset_attr attr = { 0 };
	size_t size = 0;
	int ruleset;
	bool good;

	*used = 0;

	for (unsigned i = 0; i < ARRAY_LEN(landlock_versions) && landlock_versions[i].abi <= abi;
	     i++) {
		attr.fs = landlock_versions[i].fs;
		attr.net = landlock_versions[i].net;
		attr.scoped = landlock_versions[i].scoped;
		size = landlock_versions[i].size;
		*used = landlock_versions[i].abi;
	}
	if (!*used)
		return ERR_OK;
	if (s->allow & SANDBOX_BIND_UDP)
		attr.net = 0;
	else if (s->allow & SANDBOX_CONNECT)
		attr.net &= 1; /* binding alone is taken away */
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (ruleset < 0)
		return err_from_errno(errno);
	good = landlock_paths(ruleset, s->write_paths,
			      attr.fs & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE) &&
	       landlock_paths(ruleset, s->read_paths, LANDLOCK_READ) &&
	       syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
	close(ruleset);
	return good ? ERR_OK : ERR_DENIED;
}

enum err sandbox_lock(const struct sandbox *s, char text[SANDBOX_TEXT_MAX])
{
	int landlock;
	enum err err;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return ERR_UNSUPPORTED;
	if ((err = landlock_lock(s, &landlock)) || (err = seccomp_lock(s->allow)))
		return err;
	if (landlock)
		snprintf(text, SANDBOX_TEXT_MAX, "seccomp, Landlock %d", landlock);
	else
		snprintf(text, SANDBOX_TEXT_MAX, "seccomp, no Landlock (this kernel has none)");
	return ERR_OK;
}

/* A filter of its own on top of the first, which still decides about everything else: it needs no
 * more than the numbers that go. */
enum err sandbox_narrow(unsigned had, unsigned kept)
{
	struct sock_filter program[ARRAY_LEN(calls) * 2 + 2];
	struct sock_fprog fprog = { .filter = program };
	unsigned n = 0;

	program[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
		const struct call *c = &calls[i];
		bool stays = !c->sets || (c->sets & kept) || !(c->sets & had);

		for (unsigned k = 0; k < ARRAY_LEN(calls) && !stays; k++)
			stays = calls[k].number == c->number &&
				(!calls[k].sets || (calls[k].sets & kept));
		if (stays || c->number < 0)
			continue;
		program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							    (unsigned)c->number, 0, 1);
		program[n++] = (struct sock_filter)REFUSE;
	}
	program[n++] = (struct sock_filter)ALLOW;
	fprog.len = (unsigned short)n;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog) ? ERR_UNSUPPORTED : ERR_OK;
}
