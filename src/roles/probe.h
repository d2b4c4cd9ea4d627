/* What tests/sandbox asks of a role: to try what it may not do. Off unless the server was started
 * with POSTHORN_TEST_HOOKS=1. */
#ifndef ROLES_PROBE_H
#define ROLES_PROBE_H

#include "roles/role.h"

/* Answers a sandbox_probe message: open, create, connect, bind, exec, fork, ptrace, signal,
 * read-memory, socket, mmap-exec, send (a message its peer does not allow it to send: then the peer
 * cuts it off). */
void role_probe(struct role *r, struct chan *from, const struct msg *m);
/* The same for the role that is asked by nobody, admin: true when it worked; the kernel's word goes
 * to `out`. */
bool role_probe_run(struct role *r, const struct msg_sandbox_probe *m, struct buf *out);

#endif
