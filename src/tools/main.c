/* posthorn: the one command. Finds what is to be done by its first argument, in tools/commands.def.
 *
 *	posthorn [-c FILE | --dir DIR] COMMAND [ARGUMENT...]
 *
 * Options of our own stand before the command; what follows belongs to it.
 */
#include "tools/tool.h"

#include "base/os.h"

enum { PATH_MAX_BYTES = 4096 };

#ifndef POSTHORN_CONFIG
#define POSTHORN_CONFIG "/etc/posthorn/posthorn.conf"
#endif

/* What is named from where we are must be found from anywhere: the configuration says
 * $config_directory, and a server stays. */
static str absolute(struct tool *t, str path)
{
	char folder[PATH_MAX_BYTES];
	enum err err;

	if (!path.n || path.p[0] == '/')
		return path;
	if ((err = os_folder(folder, sizeof(folder)))) {
		tool_complain("the folder we are in: %s", err_text(err));
		return STR_EMPTY;
	}
	return arena_printf(t->arena, "%s/%.*s", folder, STR_ARGS(path));
}

/* Takes our options off the arguments. False when they are wrong, which was said. */
static bool take_options(struct tool *t)
{
	while (t->n > 0 && t->args[0].n > 1 && t->args[0].p[0] == '-') {
		str option = t->args[0];

		if (str_eq(option, S("--help")) || str_eq(option, S("--version")))
			return true;
		if (!str_eq(option, S("-c")) && !str_eq(option, S("--dir"))) {
			tool_complain("unknown option %.*s; see posthorn help", STR_ARGS(option));
			return false;
		}
		if (t->n < 2 || t->args[1].n == 0) {
			tool_complain("%.*s must be followed by a %s", STR_ARGS(option),
				      str_eq(option, S("-c")) ? "file" : "folder");
			return false;
		}
		t->config_path = t->args[1];
		if (str_eq(option, S("--dir")))
			t->config_path =
				arena_printf(t->arena, "%.*s/posthorn.conf", STR_ARGS(t->args[1]));
		t->config_path = absolute(t, t->config_path);
		if (!t->config_path.n)
			return false;
		t->args += 2;
		t->n -= 2;
	}
	return true;
}

static int run(struct tool *t)
{
	const struct tool_command *command;

	if (!take_options(t))
		return TOOL_USAGE;
	if (t->n == 0) {
		(void)command_help(t);
		return TOOL_USAGE;
	}
	if (str_eq(t->args[0], S("--version")))
		return command_version(t);
	if (str_eq(t->args[0], S("--help")) || str_eq(t->args[0], S("-h")))
		return command_help(t);
	command = tool_command_find(t->args[0]);
	if (!command) {
		tool_complain("there is no command \"%.*s\"; see posthorn help",
			      STR_ARGS(str_head(t->args[0], 60)));
		return TOOL_USAGE;
	}
	return command->run(t);
}

int main(int argc, char **argv)
{
	struct tool t = { .config_path = S(POSTHORN_CONFIG), .arena = arena_new(TOOL_ARENA) };
	str args[TOOL_ARGS_MAX];
	int status = TOOL_USAGE;

	if (argc - 1 > TOOL_ARGS_MAX || !t.arena) {
		tool_complain("more than %d arguments", TOOL_ARGS_MAX);
	} else {
		for (int i = 1; i < argc; i++)
			args[t.n++] = str_from_c(argv[i]);
		t.args = args;
		status = run(&t);
	}
	arena_free(t.arena);
	return status;
}
