/* The configuration: posthorn.conf as typed, immutable values.
 *
 *	err = conf_parse(text, path, arena, &problems, &conf);
 *	limit = conf_size(conf, CONF_message_size_limit);
 *
 * The settings are rows of conf/conf.def; each has an id CONF_name. The file is Postfix's main.cf
 * in form: `name = value`; a line that begins with white space goes on with the one before; lines
 * whose first character that is not white space is '#' are comments; $name, ${name} and $(name)
 * stand for another setting's value, $config_directory for the file's folder, $$ for a dollar.
 *
 * conf_parse makes no system call, so that each role parses the text that the supervisor hands it.
 * It reports every problem, one line each, "PATH:LINE: what is wrong", and then returns ERR_CONFIG.
 * Everything lives in the arena; text values are followed by a NUL. Reading a setting as another
 * type than its row says is our bug and panics.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/addr.h"
#include "base/arena.h"
#include "base/buf.h"

enum conf_id {
#define SETTING(name, type, standard, limits, when, help) CONF_##name,
#include "conf/conf.def"
#undef SETTING
	CONF_COUNT
};

enum conf_type {
	CONF_TYPE_TEXT,
	CONF_TYPE_HOST,
	CONF_TYPE_PATH,
	CONF_TYPE_BOOL,
	CONF_TYPE_NUMBER,
	CONF_TYPE_SIZE,
	CONF_TYPE_TIME,
	CONF_TYPE_CHOICE,
	CONF_TYPE_LIST,
	CONF_TYPE_NETS,
	CONF_TYPE_ADDRS,
	CONF_TYPE_TABLE,
	CONF_TYPE_LISTEN,
	CONF_TYPE_POLICY,
};

enum {
	CONF_FILE_MAX = 1024 * 1024,
	CONF_VALUE_MAX = 64 * 1024,	   /* of one setting, expanded */
	CONF_LISTEN_MAX = 64,		   /* listening sockets */
	CONF_PROBLEMS_MAX = 64 * 1024,	   /* a good maximum for the buffer of problems */
	CONF_ARENA_SIZE = 4 * 1024 * 1024, /* a good budget for the arena */
};

struct conf;

struct conf_net {
	struct addr address;
	unsigned bits;
};

struct conf_pair {
	str key, value;
};

/* A line `listen = ...`; '*' is two of them. */
struct conf_listen {
	str service;
	struct addr address;
	unsigned mode; /* of a UNIX socket */
	unsigned line; /* 0: a default */
};

/* What the table says of a setting. */
struct conf_info {
	const char *name;
	enum conf_type type;
	const char *standard; /* the default, before $ is expanded */
	const char *limits;
	bool is_reloadable;
	const char *help;
};

/* Problems may be NULL. ERR_CONFIG, ERR_NO_MEMORY. */
MUST_USE enum err conf_parse(str text, str path, struct arena *a, struct buf *problems,
			     struct conf **out);
/* Reads the file's text. ERR_NOT_FOUND, ERR_DENIED, ERR_TOO_LONG, ERR_IO. */
MUST_USE enum err conf_read_file(str path, struct arena *a, str *text);
/* What no setting alone can be wrong in, before a server is started with it: ERR_CONFIG. */
MUST_USE enum err conf_check(const struct conf *c, struct buf *problems);
/* The settings that differ and are not reloadable, a line each: true when there are any. */
bool conf_needs_restart(const struct conf *old, const struct conf *new, struct buf *names);

str conf_str(const struct conf *c, enum conf_id id); /* TEXT, HOST, PATH, CHOICE */
bool conf_bool(const struct conf *c, enum conf_id id);
uint64_t conf_u64(const struct conf *c, enum conf_id id);
uint64_t conf_size(const struct conf *c, enum conf_id id);
int64_t conf_time_ns(const struct conf *c, enum conf_id id);
/* The position of its value among the words of a CHOICE, from 0. */
unsigned conf_choice(const struct conf *c, enum conf_id id);
const str *conf_list(const struct conf *c, enum conf_id id, size_t *n);
const struct conf_net *conf_nets(const struct conf *c, enum conf_id id, size_t *n);
/* Port 0 where none is given. */
const struct addr *conf_addrs(const struct conf *c, enum conf_id id, size_t *n);
const struct conf_pair *conf_table(const struct conf *c, enum conf_id id, size_t *n);
/* ERR_NOT_FOUND; keys match without regard to case. */
MUST_USE enum err conf_table_find(const struct conf *c, enum conf_id id, str key, str *value);
const struct conf_listen *conf_listens(const struct conf *c, size_t *n);

/* Is the address in one of the networks? */
bool conf_nets_contain(const struct conf *c, enum conf_id id, const struct addr *a);

/* For `posthorn config` and the manual. */
const struct conf_info *conf_info(enum conf_id id);
/* CONF_COUNT when there is no such setting. */
enum conf_id conf_find(str name);
/* The setting with the most similar name; NULL when none is. */
const char *conf_nearest(str name);
str conf_path(const struct conf *c);
/* Where it was set; 0: it has its default. */
unsigned conf_line(const struct conf *c, enum conf_id id);
/* As written, and with $ expanded. Repeated settings: the lines, each ended by LF. */
str conf_raw(const struct conf *c, enum conf_id id);
str conf_text(const struct conf *c, enum conf_id id);
/* Are the services of this name under TLS from the first byte? */
bool conf_service_is_tls(str service);

#endif
