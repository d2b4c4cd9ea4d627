/* Role session from inside: session.c (the zygote), session_process.c (an account's process). */
#ifndef ROLES_SESSION_PRIV_H
#define ROLES_SESSION_PRIV_H

#include "roles/role.h"

enum {
	SESSION_PROCESSES_MAX = 1000, /* processes at a time; more accounts are told BYE [LIMIT] */
	SESSION_LINGER_SECONDS =
		30, /* a process without connections stays so long for the next login */
	SESSION_PARK_SECONDS =
		60, /* one whose connections are all parked so long offers them to the zygote */
	SESSION_PARK_SECONDS_TESTED = 1, /* where the server was started with test hooks */
};

/* The process of an account: in the copy made by os_fork, never returns. `zygote`, `store`: our
 * ends. */
_Noreturn void session_process_main(struct role *role, uint64_t account, int zygote, int store);

#endif
