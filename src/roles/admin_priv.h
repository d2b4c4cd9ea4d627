/* Inside role admin: admin.c (connections of the tool, forwarding), admin_status.c (status, roles),
 * admin_trace.c (trace). */
#ifndef ROLES_ADMIN_PRIV_H
#define ROLES_ADMIN_PRIV_H

#include "conf/conf.h"
#include "roles/role.h"
#include "roles/trace_log.h"

enum {
	ADMIN_ARENA = 16 * 1024 * 1024,
	ADMIN_TOOLS_MAX = 64,
	ADMIN_ARGS_MAX = 64,
	ADMIN_SECONDS = 60,	 /* the longest that a command may take between two answers */
	ADMIN_PACE_MS = 5,	 /* between two looks at what other roles say for the history */
	ADMIN_PIECE = 40 * 1024, /* of an answer */
};

struct admin {
	struct role *role;
	struct watch listener;
	int listener_fd, trace_fd;
	unsigned tools;
	struct trace_log *trace;
	struct task flush;
	int64_t started_us;
};

/* A connection of the tool; it lives as long as a command of its own. */
struct admin_tool {
	struct admin *admin;
	struct chan *chan; /* NULL: it left */
	unsigned commands;
	struct buf kept; /* the answer that goes in pieces, until the last one was sent */
	uint8_t exit;	 /* its exit status */
};

/* One command of the tool, in its fiber. What it prints is collected in `out` and sent when it
 * ends; what is more than one piece is kept, and the tool asks for the next. */
struct admin_command {
	struct admin *admin;
	struct admin_tool *tool;
	uint32_t id;
	struct arena *arena;
	str args[ADMIN_ARGS_MAX];
	size_t n;
	str raw_args, input;
	uint64_t cursor;
	struct buf out, err;
	uint8_t exit;
};

void admin_status(struct admin_command *c);
void admin_roles(struct admin_command *c);
void admin_trace(struct admin_command *c);

#endif
