/* posthorn.conf: from text to logical lines, to raw settings, to expanded and typed ones.
 *
 * Three passes. The first cuts the text into logical lines as Postfix's main.cf has it
 * (postconf(5)) and stores the raw values. The second expands $name, depth first, which finds loops
 * by meeting a setting that is being expanded. The third makes typed values. Each pass reports
 * every problem and goes on, so that one run names them all; the configuration is used only when
 * there was none.
 *
 * Defaults are parsed like what is written: a default that does not convert is found by the unit
 * test.
 */
#include "conf/conf_priv.h"

#include "base/os.h"

#include <stdarg.h>
#include <stdio.h>

enum { PROBLEM_TEXT_MAX = 600 };

static const struct conf_info conf_infos[CONF_COUNT] = {
#define RELOAD	true
#define RESTART false
#define SETTING(name, type, standard, limits, when, help) \
	[CONF_##name] = { #name, CONF_TYPE_##type, standard, limits, when, help },
#include "conf/conf.def"
#undef SETTING
#undef RELOAD
#undef RESTART
};

const struct conf_info *conf_info(enum conf_id id)
{
	return &conf_infos[id];
}

enum conf_id conf_find(str name)
{
	for (enum conf_id id = 0; id < CONF_COUNT; id++)
		if (str_eq(name, str_from_c(conf_infos[id].name)))
			return id;
	return CONF_COUNT;
}

void conf_problem(struct conf_parser *p, unsigned line, const char *fmt, ...)
{
	char text[PROBLEM_TEXT_MAX];
	va_list args;

	p->is_bad = true;
	if (!p->problems)
		return;
	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	buf_add(p->problems, p->conf->path);
	if (line > 0)
		buf_printf(p->problems, ":%u", line);
	buf_printf(p->problems, ": %s\n", text);
}

static void take_listen(struct conf_parser *p, struct conf_value *v, str value, unsigned line)
{
	str all = arena_printf(p->arena, "%.*s%.*s\n", STR_ARGS(v->raw), STR_ARGS(value));

	p->no_memory |= !all.p;
	v->raw = all;
	v->line = v->line ? v->line : line;
	if (p->listen_line_count == CONF_LISTEN_MAX) {
		conf_problem(p, line, "more than %d lines \"listen\"", CONF_LISTEN_MAX);
		return;
	}
	value = arena_str(p->arena, value);
	p->no_memory |= !value.p;
	p->listen_lines[p->listen_line_count++] = (struct conf_listen_line){ value, line };
}

/* A logical line: `name = value`, its first line's number. */
static void take_setting(struct conf_parser *p, str text, unsigned line)
{
	size_t equals = str_find_char(text, '=');
	str name = str_trim(str_head(text, equals));
	str value = str_trim(str_from(text, equals == STR_NONE ? text.n : equals + 1));
	enum conf_id id;
	struct conf_value *v;
	const char *nearest;

	if (equals == STR_NONE || name.n == 0) {
		conf_problem(p, line, "a line must be \"name = value\": \"%.*s\"",
			     STR_ARGS(str_head(text, 60)));
		return;
	}
	id = conf_find(name);
	if (id == CONF_COUNT) {
		nearest = conf_nearest(name);
		if (nearest)
			conf_problem(p, line, "unknown setting \"%.*s\"; did you mean \"%s\"?",
				     STR_ARGS(str_head(name, 80)), nearest);
		else
			conf_problem(p, line, "unknown setting \"%.*s\"",
				     STR_ARGS(str_head(name, 80)));
		return;
	}
	v = &p->conf->values[id];
	if (conf_infos[id].type == CONF_TYPE_POLICY) {
		conf_problem(p, line, "policy lines do not exist in this version");
		return;
	}
	if (conf_infos[id].type == CONF_TYPE_LISTEN) {
		take_listen(p, v, value, line);
		return;
	}
	if (v->line > 0) {
		conf_problem(p, line, "%s is set already in line %u", conf_infos[id].name, v->line);
		return;
	}
	v->raw = arena_str(p->arena, value);
	p->no_memory |= !v->raw.p;
	v->line = line;
}

/* postconf(5): a line that begins with white space continues the one before; comments and empty
 * lines do not end it. */
static void take_lines(struct conf_parser *p, str text)
{
	struct buf logical;
	unsigned line = 0, first = 0;

	buf_init(&logical, CONF_VALUE_MAX);
	while (text.n > 0) {
		str l = str_cut_line(&text);
		str trimmed = str_trim(l);

		line++;
		if (trimmed.n == 0 || trimmed.p[0] == '#')
			continue;
		if (ascii_is_space(l.p[0]) && first == 0) {
			conf_problem(
				p, line,
				"this line begins with white space, but there is none to continue");
			continue;
		}
		if (!ascii_is_space(l.p[0])) {
			if (first > 0)
				take_setting(p, buf_str(&logical), first);
			buf_clear(&logical);
			first = line;
		} else {
			buf_add_char(&logical, ' ');
		}
		buf_add(&logical, trimmed);
		if (buf_failed(&logical)) {
			conf_problem(p, line, "this setting is longer than %d bytes",
				     CONF_VALUE_MAX);
			buf_clear(&logical);
			first = 0;
		}
	}
	if (first > 0)
		take_setting(p, buf_str(&logical), first);
	buf_free(&logical);
}

/* Postfix: without a mydomain, myhostname minus its first label. */
static str standard_value(const struct conf_parser *p, enum conf_id id)
{
	const struct conf_value *host = &p->conf->values[CONF_myhostname];
	size_t dot;

	if (id != CONF_mydomain || host->state != CONF_STATE_READY)
		return str_from_c(conf_infos[id].standard);
	dot = str_find_char(host->text, '.');
	return dot == STR_NONE || str_find_char(str_from(host->text, dot + 1), '.') == STR_NONE
		       ? host->text
		       : str_from(host->text, dot + 1);
}

enum err conf_expand(struct conf_parser *p, enum conf_id id)
{
	struct conf_value *v = &p->conf->values[id];
	enum err err;

	if (v->state == CONF_STATE_READY)
		return ERR_OK;
	if (v->state == CONF_STATE_BAD)
		return ERR_CONFIG;
	if (v->state == CONF_STATE_EXPANDING) {
		conf_problem(p, v->line, "%s stands for itself", conf_infos[id].name);
		return ERR_CONFIG;
	}
	v->state = CONF_STATE_EXPANDING;
	if (id == CONF_mydomain && v->line == 0 && (err = conf_expand(p, CONF_myhostname)))
		goto out;
	if (v->line == 0)
		v->raw = standard_value(p, id);
	if (conf_infos[id].type == CONF_TYPE_LISTEN)
		v->text = v->raw, err = ERR_OK;
	else
		err = conf_expand_text(p, v->raw, v->line, &v->text);
out:
	v->state = err ? CONF_STATE_BAD : CONF_STATE_READY;
	return err;
}

/* The folder of a path, "." when it names none. */
static str folder_of(str path)
{
	size_t slash = str_rfind_char(path, '/');

	if (slash == STR_NONE)
		return S(".");
	return slash == 0 ? S("/") : str_head(path, slash);
}

static void take_listens(struct conf_parser *p)
{
	for (size_t i = 0; i < p->listen_line_count; i++) {
		const struct conf_listen_line *l = &p->listen_lines[i];
		str text;

		if (!conf_expand_text(p, l->raw, l->line, &text) && !p->no_memory)
			conf_add_listen(p, text, l->line);
	}
	if (p->conf->values[CONF_listen].line == 0)
		conf_add_default_listens(p);
}

enum err conf_parse(str text, str path, struct arena *a, struct buf *problems, struct conf **out)
{
	struct conf_parser p = { .arena = a, .problems = problems };

	p.conf = ARENA_NEW(a, struct conf);
	if (!p.conf)
		return ERR_NO_MEMORY;
	p.conf->path = arena_str(a, path);
	p.conf->folder = arena_str(a, folder_of(path));
	p.conf->listens = arena_array(a, CONF_LISTEN_MAX, sizeof(*p.conf->listens));
	p.listen_lines = arena_array(a, CONF_LISTEN_MAX, sizeof(*p.listen_lines));
	if (!p.listen_lines || !p.conf->path.p || !p.conf->folder.p || !p.conf->listens)
		return ERR_NO_MEMORY;
	if (str_find_char(text, '\0') != STR_NONE)
		conf_problem(&p, 0, "the file has bytes that are no text");
	else
		take_lines(&p, text);
	for (enum conf_id id = 0; id < CONF_COUNT; id++)
		if (!conf_expand(&p, id))
			conf_convert(&p, id);
	take_listens(&p);
	if (p.no_memory)
		return ERR_NO_MEMORY;
	if (p.is_bad)
		return ERR_CONFIG;
	*out = p.conf;
	return ERR_OK;
}

enum err conf_read_file(str path, struct arena *a, str *text)
{
	char *bytes = NULL;
	struct os_stat st;
	enum err err;
	int fd = -1;
	str name = arena_str(a, path);

	if (!name.p)
		return ERR_NO_MEMORY;
	if ((err = os_open(-1, name.p, OS_READ, &fd)))
		return err;
	if ((err = os_fstat(fd, &st)))
		goto out;
	if (!st.is_file)
		err = ERR_UNSUPPORTED;
	else if (st.size > CONF_FILE_MAX)
		err = ERR_TOO_LONG;
	else if (!(bytes = arena_alloc(a, st.size + 1)))
		err = ERR_NO_MEMORY;
	else
		err = os_pread_all(fd, bytes, st.size, 0);
	if (!err)
		*text = str_of(bytes, st.size);
out:
	os_close(fd);
	return err;
}
