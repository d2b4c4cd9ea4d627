/* $name, ${name} and $(name) in values, as in Postfix's main.cf (postconf(5)); $$ is a dollar.
 *
 * $config_directory is the folder of the file itself, so that a demo's configuration can name its
 * own files. A name that is no setting is an error here (Postfix takes it for empty, which hides
 * mistakes). What a list or a table expands to is text that goes on being parsed.
 */
#include "conf/conf_priv.h"

static bool is_name_char(char c)
{
	return ascii_is_alnum(c) || c == '_';
}

/* The name behind a '$' at the start of *rest, which becomes what follows. STR_EMPTY when the bytes
 * are wrong. */
static str take_name(str *rest)
{
	str s = str_from(*rest, 1);
	char close = 0;
	size_t n = 0;
	str name;

	if (s.n > 0 && (s.p[0] == '{' || s.p[0] == '(')) {
		close = s.p[0] == '{' ? '}' : ')';
		s = str_from(s, 1);
	}
	while (n < s.n && is_name_char(s.p[n]))
		n++;
	name = str_head(s, n);
	s = str_from(s, n);
	if (close) {
		if (s.n == 0 || s.p[0] != close)
			return STR_EMPTY;
		s = str_from(s, 1);
	}
	*rest = s;
	return name;
}

static enum err add_named(struct conf_parser *p, str name, unsigned line, struct buf *out)
{
	enum conf_id id = conf_find(name);
	const char *nearest;

	if (str_eq(name, S("config_directory"))) {
		buf_add(out, p->conf->folder);
		return ERR_OK;
	}
	if (id == CONF_COUNT || conf_info(id)->type == CONF_TYPE_LISTEN ||
	    conf_info(id)->type == CONF_TYPE_POLICY) {
		nearest = conf_nearest(name);
		conf_problem(p, line, "$%.*s is no setting%s%s%s", STR_ARGS(str_head(name, 80)),
			     nearest ? "; did you mean $" : "", nearest ? nearest : "",
			     nearest ? "?" : "");
		return ERR_CONFIG;
	}
	if (conf_expand(p, id))
		return ERR_CONFIG;
	buf_add(out, p->conf->values[id].text);
	return ERR_OK;
}

enum err conf_expand_text(struct conf_parser *p, str raw, unsigned line, str *out)
{
	enum err err = ERR_OK;
	struct buf b;

	buf_init(&b, CONF_VALUE_MAX);
	while (raw.n > 0) {
		size_t dollar = str_find_char(raw, '$');
		str name;

		buf_add(&b, str_head(raw, dollar));
		raw = str_from(raw, dollar);
		if (raw.n == 0)
			break;
		if (raw.n > 1 && raw.p[1] == '$') {
			buf_add_char(&b, '$');
			raw = str_from(raw, 2);
			continue;
		}
		name = take_name(&raw);
		if (name.n == 0) {
			conf_problem(
				p, line,
				"a $ must be followed by a setting's name (write $$ for a dollar)");
			err = ERR_CONFIG;
			break;
		}
		if (add_named(p, name, line, &b))
			err = ERR_CONFIG;
	}
	if (!err && buf_failed(&b)) {
		conf_problem(p, line, "the value is longer than %d bytes", CONF_VALUE_MAX);
		err = ERR_CONFIG;
	}
	if (!err) {
		*out = arena_str(p->arena, buf_str(&b));
		p->no_memory |= !out->p;
	}
	buf_free(&b);
	return err;
}
