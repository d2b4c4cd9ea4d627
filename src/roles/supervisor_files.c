/* The supervisor's files: the data folder and its lock, one folder for each role that keeps
 * something, listeners, TLS files. As root each folder is given to its role's user; what a role may
 * see of the file system is what it is handed here. */
#include "roles/supervisor_priv.h"

#include "base/mutant.h"
#include <stdio.h>

enum { FOLDER_PATH_MAX = 4096 };

/* Folders below data_dir: DIR(name, role). */
static const struct {
	const char *name;
	enum role_kind role;
} folders[] = {
	{ "store", ROLE_STORE },
	{ "directory", ROLE_AUTH },
	{ "trace", ROLE_ADMIN },
};

static str data_path(struct supervisor *s, const char *name)
{
	return arena_printf(s->arena, "%.*s/%s", STR_ARGS(s->data_dir), name);
}

enum err supervisor_user(struct supervisor *s, enum role_kind kind, uint32_t *uid, uint32_t *gid)
{
	/* Helpers work on the files of the role they help. */
	enum role_kind as = kind == ROLE_CHECKPOINT ? ROLE_STORE
			    : kind == ROLE_LOOKUP   ? ROLE_AUTH
						    : kind;
	str name = arena_printf(s->arena, "%.*s%s", STR_ARGS(conf_str(s->conf, CONF_user_prefix)),
				role_name(as));
	enum err err;

	*uid = *gid = 0;
	if (!s->is_root)
		return ERR_OK;
	err = name.p ? os_user_find(name.p, uid, gid) : ERR_NO_MEMORY;
	if (err)
		supervisor_complain("the system user %.*s does not exist: make the users of "
				    "sysusers.d/posthorn.conf "
				    "(systemd-sysusers), or start without root",
				    STR_ARGS(name));
	return err;
}

static enum err make_folder(struct supervisor *s, const char *name, enum role_kind role)
{
	str path = data_path(s, name);
	uint32_t uid, gid;
	enum err err;

	if (!path.p)
		return ERR_NO_MEMORY;
	if ((err = supervisor_user(s, role, &uid, &gid)))
		return err;
	err = os_mkdir(-1, path.p, 0700);
	if (err == ERR_EXISTS)
		err = ERR_OK;
	if (!err && s->is_root)
		err = os_chown(-1, path.p, uid, gid);
	if (err)
		supervisor_complain("the folder %.*s cannot be used: %s", STR_ARGS(path),
				    err_text(err));
	return err;
}

enum err supervisor_folder_sync(str path)
{
	char name[FOLDER_PATH_MAX];
	int fd;
	enum err err;

	if (path.n >= sizeof(name))
		return ERR_TOO_LONG;
	snprintf(name, sizeof(name), "%.*s", STR_ARGS(path.n ? path : S("/")));
	if ((err = os_open(-1, name, OS_READ | OS_DIRECTORY, &fd)))
		return err;
	err = MUTANT(folders_not_synced) ? ERR_OK : os_fsync(fd);
	os_close(fd);
	return err;
}

/* The names of new folders must survive a power cut, as what is in them does. */
static enum err folders_sync(struct supervisor *s, bool is_new)
{
	size_t end = str_rfind_char(s->data_dir, '/');
	enum err err = supervisor_folder_sync(s->data_dir);

	if (!err && is_new && end != STR_NONE)
		err = supervisor_folder_sync(str_head(s->data_dir, end));
	if (err)
		supervisor_complain("%.*s cannot be synced: %s", STR_ARGS(s->data_dir),
				    err_text(err));
	return err;
}

static enum err take_lock(struct supervisor *s)
{
	str path = data_path(s, "lock");
	enum err err = path.p ? os_open(-1, path.p, OS_READ | OS_WRITE | OS_CREATE, &s->lock_fd)
			      : ERR_NO_MEMORY;

	if (!err)
		err = os_lock_file(s->lock_fd);
	if (err == ERR_BUSY)
		supervisor_complain("a server runs already in %.*s", STR_ARGS(s->data_dir));
	else if (err)
		supervisor_complain("%.*s cannot be used: %s", STR_ARGS(path), err_text(err));
	return err;
}

enum err supervisor_prepare_files(struct supervisor *s)
{
	bool is_new;
	enum err err;

	s->data_dir = conf_str(s->conf, CONF_data_dir);
	err = os_mkdir(-1, s->data_dir.p, 0711);
	is_new = !err;
	if (err && err != ERR_EXISTS) {
		supervisor_complain("the folder %.*s cannot be made: %s", STR_ARGS(s->data_dir),
				    err_text(err));
		return err;
	}
	if ((err = take_lock(s)))
		return err;
	for (unsigned i = 0; i < ARRAY_LEN(folders); i++)
		if ((err = make_folder(s, folders[i].name, folders[i].role)))
			return err;
	return folders_sync(s, is_new);
}

static enum err listen_one(struct supervisor *s, const struct conf_listen *l)
{
	struct listener *out = &s->listeners[s->listeners_n];
	char text[ADDR_TEXT_MAX];
	enum err err;

	*out = (struct listener){ .service = l->service, .address = l->address };
	if ((err = os_listen(&l->address, 0, &out->fd))) {
		supervisor_complain("cannot listen for %.*s on %s: %s", STR_ARGS(l->service),
				    addr_text(&l->address, text).p,
				    err == ERR_BUSY ? "the port is in use" : err_text(err));
		return err;
	}
	s->listeners_n++;
	if (l->address.family == ADDR_UNIX && (err = os_chmod(-1, l->address.path, l->mode)))
		supervisor_complain("%s: %s", l->address.path, err_text(err));
	return err;
}

enum err supervisor_listen(struct supervisor *s)
{
	size_t n;
	const struct conf_listen *l = conf_listens(s->conf, &n);
	struct listener *control;
	str path = data_path(s, "control");
	enum err err;

	for (size_t i = 0; i < n && s->listeners_n < LISTENERS_MAX - 1; i++)
		if ((err = listen_one(s, &l[i])))
			return err;
	control = &s->listeners[s->listeners_n];
	*control = (struct listener){ .service = S("control"), .address = { .family = ADDR_UNIX } };
	if (!path.p)
		return ERR_NO_MEMORY;
	if ((err = os_listen_datagrams(path.p, &control->fd))) {
		supervisor_complain("cannot make the socket %.*s: %s", STR_ARGS(path),
				    err_text(err));
		return err;
	}
	s->listeners_n++;
	return os_chmod(-1, path.p, 0600);
}

static enum err send_path(struct supervisor *s, struct child *c, const char *name, str path,
			  unsigned flags)
{
	enum err err;
	int fd;

	if (!path.p)
		return ERR_NO_MEMORY;
	if ((err = os_open(-1, path.p, flags, &fd))) {
		log_error(&s->log, "file-unreadable", "name=%s path=%.*s error=%s", name,
			  STR_ARGS(path), err_name(err));
		return err;
	}
	err = SEND(c->control, sup_file, .name = str_from_c(name), .path = path, .file = fd);
	os_close(fd);
	return err;
}

enum err supervisor_send_files(struct supervisor *s, struct child *c)
{
	str cert = conf_str(s->conf, CONF_tls_cert_file),
	    key = conf_str(s->conf, CONF_tls_key_file),
	    passwords = conf_str(s->conf, CONF_smtp_sasl_password_maps);
	enum err err = ERR_OK;

	switch ((unsigned)c->kind) {
	case ROLE_STORE:
	case ROLE_CHECKPOINT:
		return send_path(s, c, "store", data_path(s, "store"), OS_READ | OS_DIRECTORY);
	case ROLE_AUTH:
		return send_path(s, c, "directory", data_path(s, "directory"),
				 OS_READ | OS_DIRECTORY);
	case ROLE_ADMIN:
		return send_path(s, c, "trace", data_path(s, "trace"), OS_READ | OS_DIRECTORY);
	case ROLE_KEYS:
		if (!cert.n)
			return ERR_OK;
		err = send_path(s, c, "tls_cert", cert, OS_READ);
		return err ? err : send_path(s, c, "tls_key", key, OS_READ);
	case ROLE_FRONT:
		return SEND(c->control, sup_file, .name = S("clients"), .file = s->clients_fd);
	case ROLE_OUT:
		if (!passwords.n)
			return ERR_OK;
		err = send_path(s, c, "relay_logins", passwords, OS_READ);
		return err ? err
			   : send_path(s, c, "relay_roots", conf_str(s->conf, CONF_smtp_tls_CAfile),
				       OS_READ);
	default:
		return ERR_OK;
	}
}
