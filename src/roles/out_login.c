/* Role out: the names and passwords that relays ask for.
 *
 * The supervisor opens their file, and that of the roots, and hands both over: at the start and
 * before each reload. They take effect together, and only when both are good; a file that somebody
 * is still writing must not stop the mail. No other role ever sees a password of a relay, and the
 * configuration, which all of them have, holds none.
 */
#include "conf/conf.h"
#include "net/tls.h"
#include "queue/relay_login.h"
#include "roles/out_priv.h"

#include <stdlib.h>

enum { ROOTS_MAX = 4 * 1024 * 1024 };

void out_logins_drop(struct out_logins *l)
{
	if (!l || --l->holders)
		return;
	relay_logins_free(l->table);
	tls_free(l->tls);
	free(l);
}

static enum err read_all(int fd, size_t max, char **text, size_t *n)
{
	struct os_stat st;
	enum err err = os_fstat(fd, &st);

	if (err)
		return err;
	if (!st.is_file || st.size > max)
		return ERR_CONFIG;
	*n = (size_t)st.size;
	*text = malloc(*n + 1);
	return *text ? os_pread_all(fd, *text, *n, 0) : ERR_NO_MEMORY;
}

static enum err take_table(struct out_role *o, str path, str text)
{
	struct relay_logins *table;
	unsigned line;
	enum err err = relay_logins_parse(text, &table, &line);

	if (err) {
		log_error(&o->role->log, "relay-logins-refused", "path=%.*s line=%u error=%s",
			  STR_ARGS(path), line, err_name(err));
		return ERR_CONFIG;
	}
	relay_logins_free(o->next->table);
	o->next->table = table;
	return ERR_OK;
}

static enum err take_roots(struct out_role *o, str path, str text)
{
	struct tls_context *tls;
	/* Without a text it would take any certificate. */
	enum err err =
		text.n ? tls_client_new(o->role->loop, &o->role->log, text, &tls) : ERR_CONFIG;

	if (err) {
		log_error(&o->role->log, "relay-roots-refused", "path=%.*s error=%s",
			  STR_ARGS(path), err_name(err));
		return ERR_CONFIG;
	}
	tls_free(o->next->tls);
	o->next->tls = tls;
	return ERR_OK;
}

enum err out_login_file(struct role *r, str name, str path, int fd)
{
	bool is_table = str_eq(name, S("relay_logins"));
	struct out_role *o = r->state;
	char *text = NULL;
	size_t n = 0;
	enum err err = ERR_UNSUPPORTED;

	if (is_table || str_eq(name, S("relay_roots")))
		err = read_all(fd, is_table ? RELAY_LOGIN_FILE_MAX : ROOTS_MAX, &text, &n);
	if (!err && !o->next && !(o->next = calloc(1, sizeof(*o->next))))
		err = ERR_NO_MEMORY;
	if (!err) {
		o->next->holders = 1;
		err = is_table ? take_table(o, path, str_of(text, n))
			       : take_roots(o, path, str_of(text, n));
	}
	if (text)
		explicit_bzero(text, n);
	free(text);
	os_close(fd);
	return err;
}

enum err out_logins_take(struct out_role *o)
{
	bool are_wanted = conf_str(o->role->conf, CONF_smtp_sasl_password_maps).n > 0;
	struct out_logins *next = o->next;

	o->next = NULL;
	if (are_wanted && !(next && next->table && next->tls)) {
		out_logins_drop(next);
		log_error(&o->role->log, "relay-logins-missing", "kept=%zu",
			  o->logins ? relay_logins_count(o->logins->table) : 0);
		return ERR_CONFIG;
	}
	out_logins_drop(o->logins);
	o->logins = next;
	return ERR_OK;
}
