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

/* A line being made. What comes from outside goes through text_add; the format's own letters do
 * not. */
struct line {
	char text[LOG_LINE_MAX];
	size_t n;
	bool in_quotes; /* a value that the format put between quotation marks */
};

/* As plain text what a terminal and a log reader take so; the rest as \xNN. A space ends a value
 * that is not quoted, and a quotation mark one that is: either from outside would let a client
 * write keys of its own ("client=") into our line. */
static void text_add(struct line *l, str s)
{
	for (size_t i = 0; i < s.n && l->n + 5 < sizeof(l->text); i++) {
		unsigned char c = (unsigned char)s.p[i];
		bool is_plain = c > ' ' && c < 0x7f && c != '"' && c != '\\';

		if (is_plain || (c == ' ' && l->in_quotes))
			l->text[l->n++] = (char)c;
		else
			l->n += (size_t)snprintf(l->text + l->n, 5, "\\x%02x", c);
	}
}

static void format_add(struct line *l, char c)
{
	if (c == '"')
		l->in_quotes = !l->in_quotes;
	if (l->n + 5 < sizeof(l->text))
		l->text[l->n++] = c;
}

struct conversion {
	char letter;
	unsigned longs; /* "l", "ll", "z": how wide the argument is */
	unsigned width; /* of a number, with zeros in front */
	int precision;	/* of a text; -1: to its NUL */
};

static void number_add(struct line *l, const struct conversion *c, va_list *ap)
{
	bool is_signed = c->letter == 'd' || c->letter == 'i';
	unsigned base = c->letter == 'x' ? 16 : 10;
	int64_t v = c->longs == 2   ? va_arg(*ap, long long)
		    : c->longs == 1 ? va_arg(*ap, long)
		    : is_signed	    ? va_arg(*ap, int)
				    : (int64_t)va_arg(*ap, unsigned);
	uint64_t rest = is_signed && v < 0 ? -(uint64_t)v : (uint64_t)v;
	char text[32];
	size_t at = sizeof(text);

	do
		text[--at] = "0123456789abcdef"[rest % base];
	while (rest /= base);
	while (sizeof(text) - at < c->width && at > 1)
		text[--at] = '0';
	if (is_signed && v < 0)
		text[--at] = '-';
	text_add(l, str_of(text + at, sizeof(text) - at));
}

/* The conversion at *fmt, which goes past it. */
static void conversion_add(struct line *l, const char **fmt, va_list *ap)
{
	struct conversion c = { .precision = -1 };

	for (++*fmt; **fmt && strchr("0123456789.*lz", **fmt); ++*fmt) {
		if (**fmt == '*')
			c.precision = va_arg(*ap, int);
		c.longs += **fmt == 'l' || **fmt == 'z';
		if (ascii_is_digit(**fmt))
			c.width = c.width * 10 + (unsigned)(**fmt - '0');
	}
	if (!**fmt)
		return;
	c.letter = *(*fmt)++;
	if (c.letter == 's') {
		const char *s = va_arg(*ap, const char *);

		text_add(l, c.precision < 0 ? str_from_c(s)
					    : str_of(s, strnlen(s, (size_t)c.precision)));
	} else if (c.letter == 'c') {
		char one = (char)va_arg(*ap, int);

		text_add(l, str_of(&one, 1));
	} else if (c.letter == '%') {
		format_add(l, '%');
	} else {
		number_add(l, &c, ap);
	}
}

void log_write(const struct log *l, enum log_level level, const char *event, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	static const char priorities[] = "3467"; /* syslog(3), sd-daemon(3) */
	struct line line = { .n = 0 };
	va_list ap;

	if (level > l->level)
		return;
	if (l->target == LOG_TO_STDERR)
		line.n = put_time(line.text, sizeof(line.text));
	else if (l->target == LOG_TO_JOURNAL)
		line.n = (size_t)snprintf(line.text, sizeof(line.text), "<%c>", priorities[level]);
	else
		line.n = (size_t)snprintf(line.text, sizeof(line.text),
					  "<%d>posthorn: ", 2 * 8 + priorities[level] - '0');
	line.n += (size_t)snprintf(line.text + line.n, sizeof(line.text) - line.n, "%s %s %s ",
				   l->who, names[level], event);
	va_start(ap, fmt);
	while (*fmt)
		if (*fmt == '%')
			conversion_add(&line, &fmt, &ap);
		else
			format_add(&line, *fmt++);
	va_end(ap);
	if (l->target == LOG_TO_SYSLOG) {
		size_t done;

		(void)!os_send(l->fd, line.text, line.n, &done);
		return;
	}
	line.text[line.n++] = '\n';
	(void)!os_write_all(l->fd, str_of(line.text, line.n));
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
