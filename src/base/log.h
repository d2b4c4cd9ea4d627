/* The log: one structured event per line.
 *
 *	2026-11-22T03:10:15.123456Z front.0 info smtp-accepted msg=0CW3Z9K2M4XQA
 * from=<a@example.org> size=1234
 *
 * To stderr (which is the journal's when systemd starts us; then without time and with a priority
 * prefix, sd-daemon(3)) or to syslog's socket, as `log_to` says. Addresses are logged; subjects,
 * contents and passwords never. Values come from the network: whatever is not printable ASCII or
 * would end the value (a space; a quotation mark where the format has put the value between two) is
 * written as \xNN by the log itself, so that nobody outside writes keys of his own.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/str.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TO_STDERR, LOG_TO_JOURNAL, LOG_TO_SYSLOG };

struct log {
	int fd;
	enum log_target target;
	enum log_level level; /* the most detailed that is written */
	char who[32];	      /* "front.0" */
};

void log_init(struct log *l, enum log_target target, enum log_level level, const char *who);

/* `event`: a word of docs/LOG.md, stable. `fmt` makes the key=value pairs; it knows %s, %.*s, %c
 * and whole numbers. A value of several words stands between quotation marks in it. */
void log_write(const struct log *l, enum log_level level, const char *event, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

#define log_error(l, event, ...) log_write((l), LOG_LEVEL_ERROR, (event), __VA_ARGS__)
#define log_warn(l, event, ...)	 log_write((l), LOG_LEVEL_WARN, (event), __VA_ARGS__)
#define log_info(l, event, ...)	 log_write((l), LOG_LEVEL_INFO, (event), __VA_ARGS__)
#define log_debug(l, event, ...)                                               \
	do {                                                                   \
		if ((l)->level >= LOG_LEVEL_DEBUG)                             \
			log_write((l), LOG_LEVEL_DEBUG, (event), __VA_ARGS__); \
	} while (0)

/* Message ids: 64 bits that follow a message from connection to mailbox or relay, and are unique in
 * the life of the server: 33 bits of seconds since 2020, 7 of the instance that made it, 24 that
 * count. As text: 13 characters of Crockford's base 32, which sort as the numbers do. */
enum { MSGID_TEXT = 13, MSGID_INSTANCE_MAX = 127 };

struct msgid_source {
	unsigned instance;
	int64_t second;
	uint32_t count; /* starts at random in each second */
};
uint64_t msgid_next(struct msgid_source *s, int64_t wall_us);
unsigned msgid_instance(uint64_t id);
int64_t msgid_second(uint64_t id); /* wall clock, seconds since 1970 */
str msgid_text(uint64_t id, char text[MSGID_TEXT + 1]);
MUST_USE enum err msgid_parse(str s, uint64_t *id);

#endif
