/* Logins at relays. The text is kept as it was read, in one block that is wiped at the end; the
 * rows borrow from it. It is a file of some lines, so it is searched from its first.
 *
 * A line that cannot be read is an error, and not skipped: mail would be refused by the relay for
 * want of a login, and nobody would know why.
 */
#include "queue/relay_login.h"

#include <stdlib.h>

struct relay_logins {
	size_t count, text_n;
	struct relay_login *rows;
	char text[];
};

static bool is_good_part(str s)
{
	return s.n > 0 && s.n <= RELAY_LOGIN_MAX && str_find_char(s, '\0') == STR_NONE;
}

static bool row_parse(str line, struct relay_login *row)
{
	size_t n = 0;
	str rest;

	while (n < line.n && !ascii_is_space(line.p[n]))
		n++;
	row->key = str_head(line, n);
	rest = str_trim(str_from(line, n));
	row->user = str_cut(&rest, ':');
	row->password = rest;
	return is_good_part(row->user) && is_good_part(row->password);
}

static enum err rows_parse(struct relay_logins *l, unsigned *number)
{
	str rest = str_of(l->text, l->text_n);

	for (*number = 1; rest.n; ++*number) {
		str line = str_trim(str_cut_line(&rest));

		if (!line.n || line.p[0] == '#')
			continue;
		if (!row_parse(line, &l->rows[l->count++]))
			return ERR_SYNTAX;
	}
	return ERR_OK;
}

enum err relay_logins_parse(str text, struct relay_logins **out, unsigned *line)
{
	struct relay_logins *l;
	size_t lines = 1;
	enum err err;

	*line = 0;
	if (text.n > RELAY_LOGIN_FILE_MAX)
		return ERR_TOO_LONG;
	for (size_t i = 0; i < text.n; i++)
		lines += text.p[i] == '\n';
	if (!(l = calloc(1, sizeof(*l) + text.n)))
		return ERR_NO_MEMORY;
	l->rows = calloc(lines, sizeof(*l->rows));
	l->text_n = text.n;
	if (text.n)
		memcpy(l->text, text.p, text.n);
	err = l->rows ? rows_parse(l, line) : ERR_NO_MEMORY;
	if (err)
		relay_logins_free(l);
	else
		*out = l;
	return err;
}

void relay_logins_free(struct relay_logins *l)
{
	if (!l)
		return;
	explicit_bzero(l->text, l->text_n);
	free(l->rows);
	free(l);
}

size_t relay_logins_count(const struct relay_logins *l)
{
	return l ? l->count : 0;
}

static const struct relay_login *find(const struct relay_logins *l, str key)
{
	for (size_t i = 0; key.n && i < l->count; i++)
		if (str_case_eq(l->rows[i].key, key))
			return &l->rows[i];
	return NULL;
}

const struct relay_login *relay_logins_find(const struct relay_logins *l, str hop, str server)
{
	const struct relay_login *row = l ? find(l, hop) : NULL;

	return row || !l ? row : find(l, server);
}
