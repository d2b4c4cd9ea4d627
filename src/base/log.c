/* The log's lines, and message ids. One write per line, so that lines of different processes do not
 * mix. */
#include "base/log.h"

#include "base/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { LOG_LINE_MAX = 1900 };

void log_init(struct log *l, enum log_target target, enum log_level level, const char *who)
{
	*l = (struct log){ .fd = 2, .target = target, .level = level };
	snprintf(l->who, sizeof(l->who), "%s", who);
}

static size_t put_time(char *p, size_t n)
{
	int64_t now = os_wall_us();
	time_t t = (time_t)(now / 1000000);
	struct tm tm;
	int len;

	gmtime_r(&t, &tm);
	len = snprintf(p, n, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ ", tm.tm_year + 1900,
		       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		       (int)(now % 1000000));
	return len > 0 ? (size_t)len : 0;
}

/* Copies what a terminal or a log reader takes as plain text; the rest as \xNN. */
static size_t put_clean(char *p, size_t n, const char *s)
{
	size_t at = 0;

	for (; *s && at + 5 < n; s++) {
		unsigned char c = (unsigned char)*s;

		if (c >= 0x20 && c != 0x7f && c < 0x80)
			p[at++] = (char)c;
		else
			at += (size_t)snprintf(p + at, n - at, "\\x%02x", c);
	}
	return at;
}

void log_write(const struct log *l, enum log_level level, const char *event, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	static const char priorities[] = "3467"; /* syslog(3), sd-daemon(3) */
	char line[LOG_LINE_MAX], text[LOG_LINE_MAX];
	size_t n = 0;
	va_list ap;

	if (level > l->level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (l->target == LOG_TO_STDERR)
		n = put_time(line, sizeof(line));
	else if (l->target == LOG_TO_JOURNAL)
		n = (size_t)snprintf(line, sizeof(line), "<%c>", priorities[level]);
	else
		n = (size_t)snprintf(line, sizeof(line),
				     "<%d>posthorn: ", 2 * 8 + priorities[level] - '0');
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%s %s %s ", l->who, names[level], event);
	n += put_clean(line + n, sizeof(line) - n - 1, text);
	if (l->target == LOG_TO_SYSLOG) {
		size_t done;

		(void)!os_send(l->fd, line, n, &done);
		return;
	}
	line[n++] = '\n';
	(void)!os_write_all(l->fd, str_of(line, n));
}

enum { SINCE = 1577836800 /* 2020-01-01 */ };

uint64_t msgid_next(struct msgid_source *s, int64_t wall_us)
{
	int64_t second = wall_us / 1000000;

	/* The clock may go back; ids do not. */
	if (second > s->second) {
		s->second = second;
		s->count = (uint32_t)os_random_u64() & 0x3fffff;
	} else if (++s->count > 0xffffff) {
		s->second++;
		s->count = 0;
	}
	return (uint64_t)(s->second - SINCE) << 31 | (uint64_t)(s->instance & 0x7f) << 24 |
	       s->count;
}

unsigned msgid_instance(uint64_t id)
{
	return (unsigned)(id >> 24) & 0x7f;
}

int64_t msgid_second(uint64_t id)
{
	return (int64_t)(id >> 31) + SINCE;
}

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

str msgid_text(uint64_t id, char text[MSGID_TEXT + 1])
{
	for (int i = MSGID_TEXT - 1; i >= 0; i--, id >>= 5)
		text[i] = digits[id & 31];
	text[MSGID_TEXT] = 0;
	return str_of(text, MSGID_TEXT);
}

enum err msgid_parse(str s, uint64_t *id)
{
	uint64_t v = 0;

	if (s.n != MSGID_TEXT)
		return ERR_SYNTAX;
	for (size_t i = 0; i < s.n; i++) {
		const char *at = memchr(digits, ascii_upper(s.p[i]), 32);

		if (!at || v >> 59)
			return ERR_SYNTAX;
		v = v << 5 | (uint64_t)(at - digits);
	}
	*id = v;
	return ERR_OK;
}
