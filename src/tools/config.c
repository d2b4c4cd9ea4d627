/* `posthorn config` and `posthorn check`: the settings in force, what each means, and what is wrong
 * with them.
 *
 *	posthorn config              every setting, as the server understands it
 *	posthorn config NAME...      these alone
 *	posthorn config --changed    those that the file sets
 *	posthorn config --explain NAME
 *	posthorn config --mdoc       the settings for posthorn.conf(5), when it is built
 */
#include "base/os.h"
#include "tools/tool.h"

enum { OUTPUT_MAX = 1024 * 1024 };

/* "name = value" as it may stand in a file; repeated settings on a line each. */
static void add_setting(struct buf *b, const struct conf *c, enum conf_id id)
{
	str text = conf_text(c, id);

	if (conf_info(id)->type == CONF_TYPE_LISTEN) {
		char address[ADDR_TEXT_MAX];
		const struct conf_listen *listens;
		size_t n;

		listens = conf_listens(c, &n);
		for (size_t i = 0; i < n; i++)
			buf_printf(b, "listen = %.*s %.*s\n", STR_ARGS(listens[i].service),
				   STR_ARGS(addr_text(&listens[i].address, address)));
	} else if (conf_info(id)->type != CONF_TYPE_POLICY) {
		buf_printf(b, "%s =%s%.*s\n", conf_info(id)->name, text.n > 0 ? " " : "",
			   STR_ARGS(text));
	}
}

static enum conf_id find_or_complain(str name)
{
	enum conf_id id = conf_find(name);
	const char *nearest = conf_nearest(name);

	if (id == CONF_COUNT)
		tool_complain("there is no setting \"%.*s\"%s%s%s", STR_ARGS(str_head(name, 80)),
			      nearest ? "; did you mean \"" : "", nearest ? nearest : "",
			      nearest ? "\"?" : "");
	return id;
}

static const char *type_words(enum conf_type type)
{
	static const char *const words[] = {
		[CONF_TYPE_TEXT] = "text",
		[CONF_TYPE_HOST] = "host name",
		[CONF_TYPE_PATH] = "absolute path",
		[CONF_TYPE_BOOL] = "yes or no",
		[CONF_TYPE_NUMBER] = "number",
		[CONF_TYPE_SIZE] = "bytes",
		[CONF_TYPE_TIME] = "time",
		[CONF_TYPE_CHOICE] = "one of",
		[CONF_TYPE_LIST] = "list",
		[CONF_TYPE_NETS] = "networks",
		[CONF_TYPE_ADDRS] = "addresses",
		[CONF_TYPE_TABLE] = "table",
		[CONF_TYPE_LISTEN] = "service and address",
		[CONF_TYPE_POLICY] = "condition and action",
	};

	return words[type];
}

static void add_explanation(struct buf *b, const struct conf *c, enum conf_id id)
{
	const struct conf_info *info = conf_info(id);

	add_setting(b, c, id);
	buf_printf(b, "\n%s\n\nType: %s%s%s. Default: %s. Taken over by posthorn %s.\n", info->help,
		   type_words(info->type), info->limits[0] ? " " : "", info->limits,
		   info->standard[0] ? info->standard : "empty",
		   info->is_reloadable ? "reload" : "restart");
	if (conf_line(c, id) > 0)
		buf_printf(b, "Set in %.*s, line %u: %.*s\n", STR_ARGS(conf_path(c)),
			   conf_line(c, id), STR_ARGS(str_trim(conf_raw(c, id))));
}

/* mdoc has a meaning for a backslash, and for a dot or quote at the start of a line. */
static void add_mdoc_text(struct buf *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\')
			buf_add(b, S("\\e"));
		else if (*text == '-')
			buf_add(b, S("\\-"));
		else if (text[0] == '.' && text[1] == ' ')
			buf_add(b, S(".\n\\&")), text++; /* mdoc wants a line for each sentence */
		else
			buf_add_char(b, *text);
	}
}

static void add_mdoc(struct buf *b)
{
	for (enum conf_id id = 0; id < CONF_COUNT; id++) {
		const struct conf_info *info = conf_info(id);

		buf_printf(b, ".It Ic %s Pq %s", info->name, type_words(info->type));
		if (info->limits[0])
			buf_printf(b, " : %s", info->limits);
		buf_add(b, S("\n\\&"));
		add_mdoc_text(b, info->help);
		if (info->standard[0]) {
			buf_add(b, S("\nDefault:\n.Ql "));
			add_mdoc_text(b, info->standard);
			buf_add(b, S(" ."));
		}
		if (!info->is_reloadable)
			buf_add(b, S("\nA change needs a restart."));
		buf_add_char(b, '\n');
	}
}

static int show_named(struct tool *t, struct buf *b, size_t from, bool explain)
{
	int status = TOOL_DONE;

	for (size_t i = from; i < t->n; i++) {
		enum conf_id id = find_or_complain(t->args[i]);

		if (id == CONF_COUNT)
			status = TOOL_FAILED;
		else if (explain)
			add_explanation(b, t->conf, id);
		else
			add_setting(b, t->conf, id);
	}
	return status;
}

int command_config(struct tool *t)
{
	str option = t->n > 1 ? t->args[1] : STR_EMPTY;
	bool changed = str_eq(option, S("--changed")), explain = str_eq(option, S("--explain"));
	bool mdoc = str_eq(option, S("--mdoc"));
	int status = mdoc ? TOOL_DONE : tool_load_config(t);
	struct buf b;

	if (status)
		return status;
	if ((changed || mdoc) ? t->n > 2 : (explain && t->n < 3))
		return tool_usage(t);
	if (str_starts(option, S("-")) && !changed && !explain && !mdoc)
		return tool_usage(t);
	buf_init(&b, OUTPUT_MAX);
	if (mdoc)
		add_mdoc(&b);
	else if (t->n > 1 && !changed)
		status = show_named(t, &b, explain ? 2 : 1, explain);
	else
		for (enum conf_id id = 0; id < CONF_COUNT; id++)
			if (!changed || conf_line(t->conf, id) > 0)
				add_setting(&b, t->conf, id);
	tool_print(buf_str(&b));
	buf_free(&b);
	return status;
}

/* Files that the settings name must be there and readable by whoever starts the server. */
static bool check_file(const struct tool *t, enum conf_id id)
{
	str path = conf_str(t->conf, id);
	enum err err;
	int fd;

	if (path.n == 0)
		return true;
	err = os_open(-1, path.p, OS_READ, &fd);
	if (err) {
		tool_complain("%s: %.*s cannot be read: %s", conf_info(id)->name, STR_ARGS(path),
			      err == ERR_NOT_FOUND ? "there is no such file" : err_text(err));
		return false;
	}
	os_close(fd);
	return true;
}

/* Tries each port as the server will. Somebody may take one in between; this is for the message
 * before anything is begun. */
static bool check_ports(const struct tool *t)
{
	const struct conf_listen *listens;
	bool is_good = true;
	size_t n;

	listens = conf_listens(t->conf, &n);
	for (size_t i = 0; i < n; i++) {
		char text[ADDR_TEXT_MAX];
		enum err err;
		int fd;

		if (listens[i].address.family == ADDR_UNIX)
			continue;
		err = os_listen(&listens[i].address, OS_LISTEN_V6ONLY, &fd);
		if (!err) {
			os_close(fd);
			continue;
		}
		is_good = false;
		tool_complain("%.*s for %.*s: %s", STR_ARGS(addr_text(&listens[i].address, text)),
			      STR_ARGS(listens[i].service),
			      err == ERR_BUSY	  ? "the port is in use"
			      : err == ERR_DENIED ? "only root may listen there"
						  : err_text(err));
	}
	return is_good;
}

int command_check(struct tool *t)
{
	bool ports = t->n == 2 && str_eq(t->args[1], S("--ports"));
	int status = tool_load_config(t);
	struct buf problems;
	bool is_good;

	if (status)
		return status;
	if (t->n > 1 && !ports)
		return tool_usage(t);
	buf_init(&problems, CONF_PROBLEMS_MAX);
	is_good = !conf_check(t->conf, &problems);
	if (!is_good)
		tool_complain("%.*s", STR_ARGS(str_trim(buf_str(&problems))));
	buf_free(&problems);
	is_good &= check_file(t, CONF_tls_cert_file);
	is_good &= check_file(t, CONF_tls_key_file);
	if (!is_good)
		return TOOL_CONFIG;
	if (ports && !check_ports(t))
		return TOOL_FAILED;
	tool_print(arena_printf(t->arena, "%.*s: good\n", STR_ARGS(t->config_path)));
	return TOOL_DONE;
}
