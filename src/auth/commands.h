/* The commands on the directory: `posthorn domain|user|alias ...`, with or without a running
 * server.
 *
 * Arguments in, text out. The posthorn command runs them on the directory's file when no server
 * runs; otherwise role auth runs them, so that what it remembers is dropped at once. Both come here.
 *
 *	struct directory_command c = { .directory = d, .make_password = make, .scheme =
 * PASSWORD_ARGON2ID }; directory_command_run(&c, args, n, input, cursor, arena, &result);
 *
 * Passwords are in `input`, never in the arguments. Long lists come in pieces: when `result.more`
 * is set, run it again with `result.cursor`. BLOCKING as auth/directory.h says for writes;
 * make_password may wait (a role asks its worker from a fiber).
 */
#ifndef AUTH_COMMANDS_H
#define AUTH_COMMANDS_H

#include "auth/directory.h"
#include "base/buf.h"

enum {
	DIRECTORY_COMMAND_OUT = 48 * 1024, /* text of one piece */
	DIRECTORY_COMMAND_ERR = 4 * 1024,
	DIRECTORY_COMMAND_ARENA = 4 * 1024 * 1024,
	DIRECTORY_COMMAND_INPUT = 24 * 1024,
};

struct directory_command {
	struct directory *directory;
	enum password_scheme scheme; /* of new passwords */
	/* As password_make. */
	enum err (*make_password)(void *arg, enum password_scheme scheme, str password,
				  struct arena *a, struct password_record *out);
	/* With a running server; NULL without one. `usage`: bytes stored, ERR_TEMPORARY and the
	 * like. */
	enum err (*usage)(void *arg, uint64_t account, uint64_t *used);
	enum err (*tell_quota)(void *arg, uint64_t account, uint64_t quota);
	void *arg;
};

struct directory_result {
	struct buf out, err; /* initialised by the caller, with the maxima above */
	int exit;	     /* 0 done, 1 refused or failed, 2 wrong arguments */
	bool more;
	uint64_t cursor;
};

/* Is it one of ours: "domain", "user", "alias"? */
bool directory_command_knows(str first);
/* Does this command read passwords or records from its input? */
bool directory_command_wants_input(const str *args, size_t n);
/* How the arguments of a command look; static text with a line for each form. */
const char *directory_command_usage(str first);

void directory_command_run(const struct directory_command *c, const str *args, size_t n, str input,
			   uint64_t cursor, struct arena *a, struct directory_result *result);

/* For make_password where waiting does no harm: computes here. */
MUST_USE enum err directory_make_password(void *arg, enum password_scheme scheme, str password,
					  struct arena *a, struct password_record *out);

#endif
