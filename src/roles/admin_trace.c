/* `posthorn trace ID|ADDRESS [--limit N] [--json]`: the history in plain words.
 *
 * Of an address, the newest messages are told, each of them whole; how much more there is goes to
 * standard error, so that the answer itself is the same for programs. The sentences are
 * base/trace.def's; %s, %r and %t in them are the event's sender, recipient and text. */
#include "roles/admin_priv.h"

#include "base/trace.h"

#include <stdio.h>
#include <time.h>

enum { LIMIT = 50 }; /* messages of an address, unless --limit says otherwise */

struct question {
	str what;
	uint64_t limit;
	bool json;
};

static const char *sentence_of(uint16_t event)
{
	static const char *const sentences[] = {
#define TRACE(name, number, sentence) [number] = (sentence),
#include "base/trace.def"
#undef TRACE
	};
	const char *s = event < ARRAY_LEN(sentences) ? sentences[event] : NULL;

	return s ? s : "%t (an event that this version does not know)";
}

static const char *name_of(uint16_t event)
{
	static const char *const names[] = {
#define TRACE(name, number, sentence) [number] = #name,
#include "base/trace.def"
#undef TRACE
	};
	const char *s = event < ARRAY_LEN(names) ? names[event] : NULL;

	return s ? s : "UNKNOWN";
}

static void put_time(struct buf *b, int64_t us)
{
	time_t t = (time_t)(us / 1000000);
	struct tm tm;

	localtime_r(&t, &tm);
	buf_printf(b, "%04d-%02d-%02d %02d:%02d:%02d.%03d", tm.tm_year + 1900, tm.tm_mon + 1,
		   tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(us % 1000000 / 1000));
}

/* Text of the network for a terminal: no control characters. */
static void put_clean(struct buf *b, str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\x%02x", c);
		else
			buf_add_char(b, (char)c);
	}
}

static void put_sentence(struct buf *b, const struct trace_found *e)
{
	for (const char *p = sentence_of(e->event); *p; p++) {
		if (*p != '%' || !p[1]) {
			buf_add_char(b, *p);
			continue;
		}
		p++;
		if (*p == 's')
			put_clean(b, e->sender);
		else if (*p == 'r')
			put_clean(b, e->recipient);
		else if (*p == 't')
			put_clean(b, e->text);
		else
			buf_add_char(b, *p);
	}
}

static void print_events(struct admin_command *c, const struct trace_found *e, size_t n, bool json)
{
	char id[MSGID_TEXT + 1];
	uint64_t message = 0;

	for (size_t i = 0; i < n; i++, e++) {
		if (json) {
			buf_printf(&c->out, "{\"at\":%lld.%06lld,\"event\":\"%s\"",
				   (long long)(e->at_us / 1000000), (long long)(e->at_us % 1000000),
				   name_of(e->event));
			if (e->message)
				buf_add_json(&c->out, "message", msgid_text(e->message, id));
			buf_add_json(&c->out, "sender", e->sender);
			buf_add_json(&c->out, "recipient", e->recipient);
			buf_add_json(&c->out, "text", e->text);
			buf_add(&c->out, S("}\n"));
			continue;
		}
		if (e->message && e->message != message)
			buf_printf(&c->out, "message %s\n", msgid_text(e->message, id).p);
		message = e->message;
		buf_add(&c->out, message ? S("  ") : STR_EMPTY);
		put_time(&c->out, e->at_us);
		buf_add(&c->out, S("  "));
		put_sentence(&c->out, e);
		buf_add_char(&c->out, '\n');
	}
}

static bool has_message(const struct trace_found *e, size_t from, size_t to, uint64_t message)
{
	for (; from < to; from++)
		if (e[from].message == message)
			return true;
	return false;
}

/* All of each message that concerns the address, the oldest message first; what has no message
 * stands where it happened. */
static enum err print_address(struct admin_command *c, const struct question *q, size_t *count)
{
	struct trace_found *e, *of_message;
	struct arena *one =
		arena_new(ADMIN_ARENA); /* of one message: all of them together would not fit */
	size_t n = 0, m;
	uint64_t older = 0;
	enum err err = one ? trace_log_find_address(c->admin->trace, q->what, q->limit, c->arena,
						    &e, &n, &older)
			   : ERR_NO_MEMORY;

	*count = n;
	for (size_t i = 0; !err && i < n; i++) {
		if (!e[i].message) {
			print_events(c, &e[i], 1, q->json);
			continue;
		}
		if (has_message(e, 0, i, e[i].message))
			continue;
		arena_reset(one);
		if (!(err = trace_log_find_message(c->admin->trace, e[i].message, one, &of_message,
						   &m)))
			print_events(c, of_message, m, q->json);
	}
	if (!err && older)
		buf_printf(&c->err,
			   "this is the newest of it: there are about %llu older events of %.*s "
			   "(--limit N tells of more than %llu messages)\n",
			   (unsigned long long)older, STR_ARGS(q->what),
			   (unsigned long long)q->limit);
	arena_free(one);
	return err;
}

static bool question_parse(const struct admin_command *c, struct question *q)
{
	*q = (struct question){ .limit = LIMIT };
	for (size_t i = 1; i < c->n; i++) {
		if (str_eq(c->args[i], S("--json"))) {
			q->json = true;
		} else if (str_eq(c->args[i], S("--limit"))) {
			if (++i == c->n || str_to_u64(c->args[i], TRACE_FOUND_MAX, &q->limit) ||
			    q->limit == 0)
				return false;
		} else if (q->what.n || str_starts(c->args[i], S("--"))) {
			return false;
		} else {
			q->what = c->args[i];
		}
	}
	return q->what.n > 0;
}

void admin_trace(struct admin_command *c)
{
	struct question q;
	struct trace_found *e;
	uint64_t message;
	size_t n = 0;
	enum err err;

	if (!question_parse(c, &q)) {
		buf_printf(&c->err, "posthorn trace ID|ADDRESS [--limit 1..%d] [--json]\n",
			   TRACE_FOUND_MAX);
		c->exit = 2;
		return;
	}
	/* What was said before the question may not have been looked at yet. */
	if (fiber_sleep(c->admin->role->loop, MILLISECONDS(ADMIN_PACE_MS + 1)))
		return;
	if (msgid_parse(q.what, &message) == ERR_OK) {
		err = trace_log_find_message(c->admin->trace, message, c->arena, &e, &n);
		if (!err)
			print_events(c, e, n, q.json);
	} else {
		err = print_address(c, &q, &n);
	}
	if (err) {
		buf_printf(&c->err, "the history cannot be read: %s\n", err_text(err));
		c->exit = 1;
	} else if (n == 0) {
		buf_printf(&c->err, "nothing is known of %.*s\n", STR_ARGS(q.what));
		c->exit = 1;
	}
}
