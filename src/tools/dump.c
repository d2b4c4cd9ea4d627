/* `posthorn dump`: the store's log in readable form.
 *
 *	posthorn dump                        every frame and record
 *	posthorn dump --frames               frames alone
 *	posthorn dump --segment 1f           one segment, by its number in hexadecimal, as in its
 * name posthorn dump --account ID|ADDRESS   what is one account's posthorn dump --type MRT kinds of
 * records, by their letters (docs/STORAGE.md)
 */
#include "base/os.h"
#include "store/log_dump.h"
#include "tools/tool.h"

static void on_line(void *arg UNUSED, str text)
{
	tool_print(text);
}

static bool parse_segment(str s, uint32_t *out)
{
	*out = 0;
	if (s.n == 0 || s.n > 8)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		int digit = ascii_hex_value(s.p[i]);

		if (digit < 0)
			return false;
		*out = *out << 4 | (uint32_t)digit;
	}
	return *out != 0;
}

static bool parse_option(struct log_dump_options *o, str name, str value)
{
	if (str_eq(name, S("--segment")))
		return parse_segment(value, &o->segment);
	if (str_eq(name, S("--type"))) {
		o->kinds = value;
		return value.n > 0;
	}
	if (!str_eq(name, S("--account")))
		return false;
	if (str_find_char(value, '@') != STR_NONE)
		o->address = value;
	else
		return str_to_u64(value, UINT64_MAX, &o->account) == ERR_OK && o->account;
	return true;
}

int command_dump(struct tool *t)
{
	struct log_dump_options o = { .dir = -1, .out = on_line };
	int status = tool_load_config(t);
	enum err err;
	str path;

	if (status)
		return status;
	for (size_t i = 1; i < t->n; i++) {
		if (str_eq(t->args[i], S("--frames"))) {
			o.frames_only = true;
		} else {
			if (i + 1 == t->n || !parse_option(&o, t->args[i], t->args[i + 1]))
				return tool_usage(t);
			i++;
		}
	}
	path = arena_printf(t->arena, "%.*s/store", STR_ARGS(conf_str(t->conf, CONF_data_dir)));
	err = path.p ? os_open(-1, path.p, OS_READ | OS_DIRECTORY, &o.dir) : ERR_NO_MEMORY;
	if (!err)
		err = store_log_dump(&o);
	os_close(o.dir);
	if (err == ERR_NOT_FOUND)
		tool_complain("%.*s: there is no store%s", STR_ARGS(path),
			      o.address.n ? ", or no such account in it" : "");
	else if (err)
		tool_complain("%.*s: %s", STR_ARGS(path), err_text(err));
	return err ? TOOL_FAILED : TOOL_DONE;
}
