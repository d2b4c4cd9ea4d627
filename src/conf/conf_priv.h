/* Inside src/conf: how a configuration is held, and the steps of parsing it. */
#ifndef CONF_CONF_PRIV_H
#define CONF_CONF_PRIV_H

#include "conf/conf.h"

enum conf_state { CONF_STATE_RAW, CONF_STATE_EXPANDING, CONF_STATE_READY, CONF_STATE_BAD };

struct conf_value {
	str raw, text;
	unsigned line;
	uint8_t state; /* enum conf_state */
	bool truth;
	uint64_t number; /* NUMBER, SIZE, CHOICE; TIME in nanoseconds */
	const void *items;
	size_t count;
};

struct conf {
	str path, folder;
	struct conf_value values[CONF_COUNT];
	struct conf_listen *listens;
	size_t listen_count;
};

/* A `listen` as written; expanded when all settings are known. */
struct conf_listen_line {
	str raw;
	unsigned line;
};

/* Parsing in progress. */
struct conf_parser {
	struct conf *conf;
	struct arena *arena;
	struct buf *problems;
	bool is_bad, no_memory;
	struct conf_listen_line *listen_lines; /* CONF_LISTEN_MAX of them */
	size_t listen_line_count;
};

/* Reports a problem. line 0: the file as a whole. */
void conf_problem(struct conf_parser *p, unsigned line, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Expands $ in a setting, and in those it stands on: ERR_CONFIG when that was reported. */
MUST_USE enum err conf_expand(struct conf_parser *p, enum conf_id id);
/* The text with $ expanded, NUL-terminated. */
MUST_USE enum err conf_expand_text(struct conf_parser *p, str raw, unsigned line, str *out);
/* Makes the typed value from the expanded text, or reports why not. */
void conf_convert(struct conf_parser *p, enum conf_id id);
/* Adds one `listen` line. */
void conf_add_listen(struct conf_parser *p, str text, unsigned line);
void conf_add_default_listens(struct conf_parser *p);

/* The pieces of a list: between white space and commas; braces keep what they hold together and
 * stay. STR_EMPTY with p == NULL at the end. */
str conf_next_item(str *rest);
/* "1", "64k"; "5m". ERR_SYNTAX, ERR_RANGE. */
MUST_USE enum err conf_parse_size(str s, uint64_t *out);
MUST_USE enum err conf_parse_time(str s, uint64_t *ns);

#endif
