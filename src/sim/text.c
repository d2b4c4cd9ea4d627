/* The bytes of every message, made from its name.
 *
 * A message begins with `X-Sim: s17` (sent) or `X-Sim: a17` (appended). Its lines are drawn from
 * that name alone: lines that begin with a dot, a dot alone, empty ones, long ones; all that a
 * transport could spoil. Whoever finds a message makes it again and compares; in front of a
 * delivered one only what a server adds may stand. A notice (RFC 3464) is named by the hash of its
 * bytes: it must stay what it was when it was first seen.
 */
#include "sim/world.h"

void text_pool_fill(char *pool, size_t n)
{
	struct chance c = { n };

	for (size_t i = 0; i < n; i++)
		pool[i] = (char)(' ' + 1 + chance_below(&c, 94));
}

static void line_add(const struct world *w, struct buf *out, struct chance *c)
{
	unsigned kind = chance_below(c, 24), n = chance_below(c, 76);

	if (kind == 0)
		n = 0;
	else if (kind == 1)
		n = 900;
	if (kind == 2)
		buf_add(out, S("."));
	else if (kind == 3)
		buf_add(out, S("..dot "));
	else if (kind == 4)
		buf_add(out, S("From x"));
	if (kind != 2)
		buf_add(out, str_of(w->pool + chance_below(c, sizeof(w->pool) - n), n));
	buf_add(out, S("\r\n"));
}

static void body_add(const struct world *w, struct buf *out, uint64_t seed, size_t size)
{
	struct chance c = { seed };

	buf_add(out, S("\r\n"));
	while (buf_len(out) < size && !buf_failed(out))
		line_add(w, out, &c);
}

void text_send(const struct world *w, struct buf *out, const struct send *s)
{
	buf_clear(out);
	buf_printf(out,
		   "X-Sim: s%llu\r\nFrom: <%s>\r\nSubject: sent %llu\r\n"
		   "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <s%llu@sim.example>\r\n",
		   (unsigned long long)s->id, s->sender[0] ? s->sender : "nobody@remote.example",
		   (unsigned long long)s->id, (unsigned long long)s->id);
	body_add(w, out, s->id, s->size);
}

/* The size is a function of the name too: whoever finds it knows no more. */
void text_append(const struct world *w, struct buf *out, uint64_t id)
{
	struct chance c = { ~id };
	unsigned size = chance_in(&c, 60) ? 70000 : 200 + chance_below(&c, 3000);

	buf_clear(out);
	buf_printf(out, "X-Sim: a%llu\r\nSubject: appended %llu\r\n", (unsigned long long)id,
		   (unsigned long long)id);
	body_add(w, out, id << 20, size);
}

/* What servers put before a message. */
static bool is_trace_header(str prefix)
{
	static const char *const names[] = { "Return-Path:", "Delivered-To:", "Received:",
					     "Authentication-Results:", "X-Spam" };

	while (prefix.n) {
		str line = str_cut_line(&prefix);
		bool good = line.n && (line.p[0] == ' ' || line.p[0] == '\t');

		for (size_t i = 0; !good && i < ARRAY_LEN(names); i++)
			good = str_starts(line, str_from_c(names[i]));
		if (!good)
			return false;
	}
	return true;
}

static bool number_after(str s, const char *what, char kind, uint64_t *id)
{
	size_t at = str_find(s, str_from_c(what));
	str rest = str_from(s, at == STR_NONE ? s.n : at + strlen(what));

	if (!rest.n || rest.p[0] != kind)
		return false;
	rest = str_from(rest, 1);
	return str_to_u64(str_cut_line(&rest), UINT32_MAX, id) == ERR_OK;
}

static uint64_t notice_token(struct world *w, str message, const char **why)
{
	static const char *const kinds[] = { [NOTICE_FAILED] = "Action: failed\r\n",
					     [NOTICE_DELIVERED] = "Action: delivered\r\n",
					     [NOTICE_RELAYED] = "Action: relayed\r\n",
					     [NOTICE_EXPANDED] = "Action: expanded\r\n" };
	str addresses[WORLD_RCPTS], rest = message, field = S("Final-Recipient: rfc822;");
	enum queue_notice kind = NOTICE_NONE;
	unsigned n = 0;
	uint64_t id;
	size_t at;

	if (!number_after(message, "X-Sim: ", 's', &id)) {
		*why = "a notice about nothing that was sent";
		return 0;
	}
	while (n < WORLD_RCPTS && (at = str_case_find(rest, field)) != STR_NONE) {
		rest = str_from(rest, at + field.n);
		addresses[n++] = str_trim(str_cut_line(&rest));
	}
	if (!n) {
		*why = "a notice about nobody";
		return 0;
	}
	/* All recipients of one notice have the same. */
	for (unsigned i = NOTICE_FAILED; i < ARRAY_LEN(kinds); i++)
		if (kinds[i] && str_case_find(message, str_from_c(kinds[i])) != STR_NONE)
			kind = (enum queue_notice)i;
	return world_notice(w, message, id, kind, addresses, n);
}

uint64_t text_token(struct world *w, str message, const char **why)
{
	size_t header_end = str_find(message, S("\r\n\r\n")), at;
	str header = str_head(message, header_end == STR_NONE ? message.n : header_end + 2);
	struct buf want;
	const struct send *s;
	uint64_t id = 0;
	bool is_sent;

	if (str_case_find(header, S("multipart/report")) != STR_NONE)
		return notice_token(w, message, why);
	*why = "it has no name";
	at = str_find(header, S("X-Sim: "));
	if (at == STR_NONE)
		return 0;
	is_sent = number_after(header, "X-Sim: ", 's', &id);
	if (!is_sent && !number_after(header, "X-Sim: ", 'a', &id))
		return 0;
	s = is_sent ? world_send(w, id) : NULL;
	*why = "it was never sent";
	if (is_sent ? !s : id > w->append_count)
		return 0;
	buf_init(&want, 16 * 1024 * 1024);
	if (is_sent)
		text_send(w, &want, s);
	else
		text_append(w, &want, id);
	*why = NULL;
	if (!str_eq(str_from(message, at), buf_str(&want)))
		*why = "its bytes are not those that were given";
	else if (is_sent ? !is_trace_header(str_head(message, at)) : at != 0)
		*why = "something stands before it";
	buf_free(&want);
	return *why ? 0 : TOKEN(is_sent ? 's' : 'a', id);
}
