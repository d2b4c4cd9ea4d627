/* The posthorn command: what its parts share.
 *
 * One command runs in one short-lived process. Text goes to standard output, complaints to standard
 * error as "posthorn: ...". Exit status: 0 done, 1 refused or failed, 2 wrong arguments, 3 the
 * server does not run (where it must), 4 the configuration is wrong.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include "base/arena.h"
#include "base/buf.h"
#include "conf/conf.h"

enum tool_exit {
	TOOL_DONE = 0,
	TOOL_FAILED = 1,
	TOOL_USAGE = 2,
	TOOL_NO_SERVER = 3,
	TOOL_CONFIG = 4
};

enum { TOOL_ARENA = 64 * 1024 * 1024, TOOL_INPUT_MAX = 32 * 1024 * 1024, TOOL_ARGS_MAX = 128 };

struct tool {
	struct arena *arena;
	str config_path;
	struct conf *conf; /* NULL until tool_load_config */
	const str *args;   /* the command's own, args[0] is its name */
	size_t n;
};

struct tool_command {
	const char *name;
	enum tool_where { HERE, SERVER, EITHER, HIDDEN } where;
	int (*run)(struct tool *t);
	const char *arguments, *help;
};

const struct tool_command *tool_commands(size_t *n);
const struct tool_command *tool_command_find(str name);

/* Complains: "posthorn: " and the text and LF. */
void tool_complain(const char *fmt, ...) PRINTF_LIKE(1, 2);
void tool_print(str text);
/* How a command is called. Returns TOOL_USAGE. */
int tool_usage(const struct tool *t);
/* Reads and parses the file; complains. TOOL_DONE or TOOL_CONFIG. */
MUST_USE int tool_load_config(struct tool *t);

/* All of standard input; from a terminal, a line without echo after a prompt. A password is wiped
 * by the end of the process. */
MUST_USE enum err tool_read_input(struct tool *t, const char *prompt, str *input);

/* Sends the command to the running server and prints its answer. ERR_NOT_FOUND: no server runs with
 * this configuration (nothing was complained of); otherwise *status is what to exit with. */
MUST_USE enum err tool_send(struct tool *t, const str *args, size_t n, str input, int *status);

/* As root: the directory's folder and file belong to role auth's user, whoever made them and when.
 */
void tool_give_directory(struct tool *t);

#define COMMAND(name, where, function, arguments, help) int function(struct tool *t);
#define forward						forward_to_server
#include "tools/commands.def"
#undef COMMAND
#undef forward

#endif
