/* What tests/sandbox asks of a role: to try what it may not do. Off unless the server was started with POSTHORN_TEST_HOOKS=1. */
#ifndef ROLES_PROBE_H
#define ROLES_PROBE_H

#include "roles/role.h"

/* Answers a sandbox_probe message: open, create, connect, bind, exec, fork, ptrace, signal, read-memory, socket, mmap-exec,
 * send (a message its peer does not allow it to send: then the peer cuts it off). */
void role_probe(struct role *r, bool is_allowed, struct chan *from, const struct msg *m);

#endif
