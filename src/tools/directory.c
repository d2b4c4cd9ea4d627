/* `posthorn domain|user|alias`: to the running server, or on the directory's file when none runs.
 *
 * The file is DATA/directory/directory.db. When root makes it, folder and file are given to role
 * auth's user, who will work on it.
 */
#include "auth/commands.h"
#include "base/os.h"
#include "roles/supervisor.h"
#include "tools/tool.h"

/* The file's path, with its folders made. */
static enum err prepare_folder(struct tool *t, str *path)
{
	str data = conf_str(t->conf, CONF_data_dir);
	str folder = arena_printf(t->arena, "%.*s/directory", STR_ARGS(data));
	enum err err;

	*path = arena_printf(t->arena, "%.*s/directory.db", STR_ARGS(folder));
	if (!path->p)
		return ERR_NO_MEMORY;
	err = os_mkdir(-1, data.p, 0711);
	if (!err)
		err = supervisor_folder_sync(str_head(data, str_rfind_char(data, '/')));
	if (err && err != ERR_EXISTS)
		return err;
	err = os_mkdir(-1, folder.p, 0700);
	if (err)
		return err == ERR_EXISTS ? ERR_OK : err;
	return supervisor_folder_sync(data);
}

/* Without such a user all roles run as whoever starts them. */
void tool_give_directory(struct tool *t)
{
	str data = conf_str(t->conf, CONF_data_dir);
	str user =
		arena_printf(t->arena, "%.*sauth", STR_ARGS(conf_str(t->conf, CONF_user_prefix)));
	str folder = arena_printf(t->arena, "%.*s/directory", STR_ARGS(data));
	str file = arena_printf(t->arena, "%.*s/directory.db", STR_ARGS(folder));
	uint32_t uid, gid;
	enum err err;

	if (!user.p || !folder.p || !file.p || os_uid() != 0 || os_user_find(user.p, &uid, &gid))
		return;
	err = os_chown(-1, folder.p, uid, gid);
	if (!err)
		err = os_chown(-1, file.p, uid, gid);
	if (err && err != ERR_NOT_FOUND)
		tool_complain("%.*s cannot be given to %.*s: %s", STR_ARGS(file), STR_ARGS(user),
			      err_text(err));
}

static int run_here(struct tool *t, str input)
{
	struct directory_command c = { .make_password = directory_make_password };
	struct directory_options options = { .create = true };
	struct directory_result result = { .exit = TOOL_FAILED };
	char why[DIRECTORY_WHY_SIZE];
	enum err err;
	str path;

	if ((err = prepare_folder(t, &path))) {
		tool_complain("%.*s: %s", STR_ARGS(conf_str(t->conf, CONF_data_dir)),
			      err_text(err));
		return TOOL_FAILED;
	}
	os_random(options.secret, sizeof(options.secret));
	if (directory_open(path.p, &options, &c.directory, why)) {
		tool_complain("%.*s: %s", STR_ARGS(path), why);
		return TOOL_FAILED;
	}
	tool_give_directory(t);
	if (password_scheme_find(conf_str(t->conf, CONF_password_scheme), &c.scheme))
		panic("a password_scheme of conf.def is unknown");
	do {
		struct arena *a = arena_new(DIRECTORY_COMMAND_ARENA);

		result.exit = TOOL_DONE;
		result.more = false;
		buf_init(&result.out, DIRECTORY_COMMAND_OUT);
		buf_init(&result.err, TOOL_INPUT_MAX);
		directory_command_run(&c, t->args, t->n, input, result.cursor, a, &result);
		tool_print(buf_str(&result.out));
		if (buf_len(&result.err) > 0)
			tool_complain("%.*s", STR_ARGS(str_trim(buf_str(&result.err))));
		buf_free(&result.out);
		buf_free(&result.err);
		arena_free(a);
	} while (result.more);
	directory_close(c.directory);
	return result.exit;
}

int command_directory(struct tool *t)
{
	int status = tool_load_config(t);
	str input = STR_EMPTY;
	enum err err;

	if (status)
		return status;
	if (directory_command_wants_input(t->args, t->n) &&
	    (err = tool_read_input(t, "Password: ", &input))) {
		tool_complain("nothing was changed: %s", err_text(err));
		return TOOL_FAILED;
	}
	err = tool_send(t, t->args, t->n, input, &status);
	if (err == ERR_NOT_FOUND)
		return run_here(t, input);
	if (err) {
		tool_complain("%.*s/control: %s", STR_ARGS(conf_str(t->conf, CONF_data_dir)),
			      err_text(err));
		return TOOL_FAILED;
	}
	return status;
}
