/* What the commands share: the table, messages, the configuration, standard input. */
#include "tools/tool.h"

#include "base/os.h"

#include <stdarg.h>
#include <stdio.h>

static const struct tool_command commands[] = {
#define forward						forward_to_server
#define COMMAND(name, where, function, arguments, help) { #name, where, function, arguments, help },
#include "tools/commands.def"
#undef COMMAND
#undef forward
};

const struct tool_command *tool_commands(size_t *n)
{
	*n = ARRAY_LEN(commands);
	return commands;
}

const struct tool_command *tool_command_find(str name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (str_eq(name, str_from_c(commands[i].name)))
			return &commands[i];
	return NULL;
}

/* Nobody is left to tell when standard output or error cannot be written. */
static void write_to(int fd, str text)
{
	enum err err = os_write_all(fd, text);

	if (err)
		os_exit(TOOL_FAILED);
}

void tool_print(str text)
{
	write_to(1, text);
}

void tool_complain(const char *fmt, ...)
{
	char text[2000];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	write_to(2, S("posthorn: "));
	write_to(2, str_of(text, (size_t)MIN(n, (int)sizeof(text) - 1)));
	write_to(2, S("\n"));
}

int tool_usage(const struct tool *t)
{
	const struct tool_command *c = tool_command_find(t->args[0]);

	tool_complain("usage: posthorn %s%s%s", c->name, c->arguments[0] ? " " : "", c->arguments);
	return TOOL_USAGE;
}

int tool_load_config(struct tool *t)
{
	struct buf problems;
	enum err err;
	str text;

	if (t->conf)
		return TOOL_DONE;
	err = conf_read_file(t->config_path, t->arena, &text);
	if (err) {
		tool_complain("%.*s cannot be read: %s", STR_ARGS(t->config_path),
			      err == ERR_NOT_FOUND ? "there is no such file" : err_text(err));
		return TOOL_CONFIG;
	}
	buf_init(&problems, CONF_PROBLEMS_MAX);
	err = conf_parse(text, t->config_path, t->arena, &problems, &t->conf);
	write_to(2, buf_str(&problems));
	if (err && buf_len(&problems) == 0)
		tool_complain("%.*s: %s", STR_ARGS(t->config_path), err_text(err));
	buf_free(&problems);
	return err ? TOOL_CONFIG : TOOL_DONE;
}

enum err tool_read_input(struct tool *t, const char *prompt, str *input)
{
	enum { CONTROL_C = 3 };
	bool is_terminal = os_is_terminal(0);
	enum err err = ERR_OK;
	struct buf b;

	buf_init(&b, TOOL_INPUT_MAX);
	if (is_terminal) {
		write_to(2, str_from_c(prompt));
		os_terminal_echo(0, false);
	}
	while (!err) {
		char *room = buf_reserve(&b, 65536);
		size_t n = 0;

		err = room ? os_read(0, room, 65536, &n) : ERR_TOO_LONG;
		buf_added(&b, n);
		if (is_terminal && str_find_char(buf_str(&b), '\n') != STR_NONE)
			break;
	}
	if (is_terminal) {
		os_terminal_echo(0, true);
		write_to(2, S("\n"));
		if (str_find_char(buf_str(&b), CONTROL_C) != STR_NONE)
			err = ERR_CANCELLED;
	}
	if (err == ERR_EOF)
		err = ERR_OK;
	*input = arena_str(t->arena, buf_str(&b));
	if (!err && !input->p)
		err = ERR_NO_MEMORY;
	explicit_bzero(b.p, b.p ? b.size : 0);
	buf_free(&b);
	return err;
}

int command_version(struct tool *t UNUSED)
{
	tool_print(S("Posthorn " POSTHORN_VERSION "\n"));
	return TOOL_DONE;
}

int command_help(struct tool *t)
{
	const struct tool_command *one = t->n > 1 ? tool_command_find(t->args[1]) : NULL;
	struct buf b;

	buf_init(&b, 64 * 1024);
	if (!one)
		buf_add(&b, S("posthorn [-c FILE | --dir DIR] COMMAND [ARGUMENT...]\n\n"));
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		char call[100];

		if (commands[i].where == HIDDEN || (one && one != &commands[i]))
			continue;
		(void)snprintf(call, sizeof(call), "%s %s", commands[i].name,
			       commands[i].arguments);
		buf_printf(&b, "  %-52s %s\n", call, commands[i].help);
	}
	tool_print(buf_str(&b));
	buf_free(&b);
	return TOOL_DONE;
}
