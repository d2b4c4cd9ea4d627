/* The wire of our IMAP client: responses with their literals, and the few fields of them that the
 * workload asks for. It trusts nobody: what does not parse is a violation. */
#include "sim/imap_wire.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINE_MAX_ = 64 * 1024, RESPONSE_MAX = 8 * 1024 * 1024, PIECE = 16 * 1024 };

static bool literal_read(struct wire *i, uint64_t n)
{
	size_t begin = buf_len(&i->response);
	str piece;

	while (n) {
		if (conn_read_some(i->conn, (size_t)MIN(n, (uint64_t)PIECE), &piece))
			return false;
		buf_add(&i->response, piece);
		n -= piece.n;
	}
	i->literal = str_from(buf_str(&i->response), begin);
	return true;
}

/* "{17}" at a line's end. */
static bool literal_size(str line, uint64_t *n)
{
	size_t open = str_rfind_char(line, '{');

	if (open == STR_NONE || !line.n || line.p[line.n - 1] != '}')
		return false;
	return str_to_u64(str_sub(line, open + 1, line.n - open - 2), RESPONSE_MAX, n) == ERR_OK;
}

bool wire_read(struct wire *i)
{
	size_t literal_at = STR_NONE, literal_n = 0;
	uint64_t n;
	str line;

	buf_clear(&i->response);
	i->literal = STR_EMPTY;
	for (;;) {
		if (conn_read_line(i->conn, LINE_MAX_, &line))
			return false;
		buf_add(&i->response, line);
		if (!literal_size(line, &n))
			break;
		buf_add(&i->response, S("\r\n"));
		literal_at = buf_len(&i->response);
		literal_n = (size_t)n;
		if (!literal_read(i, n))
			return false;
	}
	/* The buffer may have moved since. */
	if (literal_at != STR_NONE)
		i->literal = str_sub(buf_str(&i->response), literal_at, literal_n);
	return !buf_failed(&i->response);
}

static void send_args(struct wire *i, const char *fmt, va_list ap)
{
	char text[1000];

	vsnprintf(text, sizeof(text), fmt, ap);
	snprintf(i->sent, sizeof(i->sent), "%.*s", (int)sizeof(i->sent) - 1, text);
	conn_printf(i->conn, "t%u %s\r\n", ++i->tag, text);
}

void wire_send(struct wire *i, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	send_args(i, fmt, ap);
	va_end(ap);
}

static enum wire_result tagged(struct wire *i, str r)
{
	str tag = str_cut(&r, ' ');
	char want[16];

	snprintf(want, sizeof(want), "t%u", i->tag);
	if (str_eq(tag, str_from_c(want)) && str_starts(r, S("OK")))
		return WIRE_OK;
	if (str_eq(tag, str_from_c(want)) && str_starts(r, S("NO")))
		return WIRE_NO;
	world_violation(i->client->world, "%s: answered %.*s to %s", i->client->name,
			STR_ARGS(buf_str(&i->response)), i->sent);
	return WIRE_LOST;
}

enum wire_result wire_finish(struct wire *i)
{
	while (wire_read(i)) {
		str r = buf_str(&i->response);

		if (str_starts(r, S("* BYE")))
			return WIRE_LOST;
		if (!str_starts(r, S("* ")))
			return tagged(i, r);
		if (i->untagged)
			i->untagged(i->arg, i, str_from(r, 2));
	}
	return WIRE_LOST;
}

enum wire_result wire_command(struct wire *i, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	send_args(i, fmt, ap);
	va_end(ap);
	return wire_finish(i);
}

bool wire_open(struct wire *i, struct client *c, struct account_model *a)
{
	*i = (struct wire){ .client = c, .account = a };
	buf_init(&i->response, RESPONSE_MAX);
	i->conn = client_connect(c, &c->world->at.imap);
	if (!i->conn)
		return false;
	if (wire_read(i) && str_starts(buf_str(&i->response), S("* OK"))) {
		switch (wire_command(i, "LOGIN %s %s", a->address, a->password)) {
		case WIRE_OK:
			c->world->counts.logins++;
			return true;
		case WIRE_NO:
			if (world_is_calm(c->world, loop_now(c->loop)))
				world_violation(c->world, "%s: the login of %s was refused: %.*s",
						c->name, a->address,
						STR_ARGS(buf_str(&i->response)));
			break;
		case WIRE_LOST:
			break;
		}
	}
	wire_close(i);
	(void)client_sleep(c, 100 + chance_below(&c->chance, 400));
	return false;
}

void wire_close(struct wire *i)
{
	conn_free(i->conn);
	i->conn = NULL;
	buf_free(&i->response);
}

uint32_t wire_number(str response, const char *what)
{
	size_t at = str_case_find(response, str_from_c(what));
	uint32_t n = 0;

	for (at = at == STR_NONE ? response.n : at + strlen(what);
	     at < response.n && ascii_is_digit(response.p[at]); at++)
		n = n * 10 + (uint32_t)(response.p[at] - '0');
	return n;
}

static uint8_t flags_of(str list)
{
	static const struct {
		const char *name;
		uint8_t flag;
	} names[] = { { "\\Seen", FLAG_SEEN },
		      { "\\Answered", FLAG_ANSWERED },
		      { "\\Flagged", FLAG_FLAGGED },
		      { "\\Deleted", FLAG_DELETED },
		      { "\\Draft", FLAG_DRAFT } };
	uint8_t flags = 0;

	for (size_t k = 0; k < ARRAY_LEN(names); k++)
		if (str_case_find(list, str_from_c(names[k].name)) != STR_NONE)
			flags |= names[k].flag;
	return flags;
}

bool wire_row(struct wire *i, str response, struct wire_row *out)
{
	size_t flags = str_find(response, S("FLAGS (")), uid = str_find(response, S("UID "));
	str rest;

	*out = (struct wire_row){ .sequence = wire_number(response, "") };
	if (str_find(str_head(response, 20), S(" FETCH (")) == STR_NONE)
		return false;
	/* What stands in the message is not ours to read. */
	if (i->literal.n) {
		out->has_body = true;
		out->body = i->literal;
		rest = str_head(response, (size_t)(i->literal.p - response.p));
		if (uid != STR_NONE && uid >= rest.n)
			uid = STR_NONE;
		if (flags != STR_NONE && flags >= rest.n)
			flags = STR_NONE;
	}
	if (flags != STR_NONE) {
		rest = str_from(response, flags + 7);
		out->has_flags = true;
		out->flags = flags_of(str_cut(&rest, ')'));
	}
	if (uid != STR_NONE)
		out->uid = wire_number(str_from(response, uid), "UID ");
	return out->uid != 0;
}

unsigned wire_made(str response, uint32_t *uids, unsigned max)
{
	size_t copy = str_find(response, S("[COPYUID ")),
	       append = str_find(response, S("[APPENDUID "));
	str rest = str_from(response, copy != STR_NONE ? copy + 9 : append + 11), set;
	unsigned n = 0;

	if (copy == STR_NONE && append == STR_NONE)
		return 0;
	(void)str_cut(&rest, ' ');
	if (copy != STR_NONE)
		(void)str_cut(&rest, ' ');
	set = str_cut(&rest, ']');
	while (set.n) {
		str range = str_cut(&set, ','), last;
		uint32_t from, to;

		last = range;
		from = wire_number(str_cut(&last, ':'), "");
		to = last.n ? wire_number(last, "") : from;
		for (; from && from <= to && n < max; from++)
			uids[n++] = from;
	}
	return n;
}
