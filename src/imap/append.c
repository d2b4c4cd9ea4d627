/* APPEND and MULTIAPPEND (RFC 3501 6.3.11, RFC 3502, RFC 4315).
 *
 * Each message is parsed here (envelope, structure) and sent to the store as soon as it has come,
 * inside of the message to it or, above IMAP_INLINE_MAX bytes, as a sealed memfd, while the client
 * sends the next one. The tagged answer waits for all of them to be durable. RFC 3502 wants all or
 * none: if one fails, those that were stored are expunged again before the NO.
 *
 * What is wrong is told as early as the client can hear it: a literal that waits for "+" is refused
 * without it, the others are read to their end first.
 */
#include "imap/message.h"
#include "imap/session_priv.h"
#include "mime/envelope.h"
#include "mime/part.h"

#include <stdlib.h>

enum {
	APPEND_IN_FLIGHT = 64,	     /* messages sent to the store and not yet answered */
	APPEND_MESSAGES_MAX = 10000, /* of one command */
	ENVELOPE_MAX = 8192,	     /* messages.def: st_append */
	STRUCTURE_MAX = 16384,
};

struct append {
	struct imap_account *account;
	unsigned references; /* the session's, and one for each call under way */
	str tag;
	uint32_t mailbox, uidvalidity;
	enum err err;	   /* the first one */
	const char *wrong; /* BAD with this text */
	bool try_create;
	uint32_t pending, count;
	uint64_t modseq;
	struct arena *arena;
	struct imap_set_builder uids;
	struct waiters answered;
};

static void release(struct append *x)
{
	if (--x->references)
		return;
	arena_free(x->arena);
	free(x);
}

/* One message under way, and what of its row we know already. */
struct appended {
	struct append *append;
	struct imap_row row;
};

/* ---- the store's answers ---- */

/* The row is known but for what the store gave it: it need not be asked for. */
static void show(struct append *x, const struct appended *m,
		 const struct msg_st_commit_reply *reply)
{
	struct imap_row row = m->row;
	struct rec_uid_range range;
	struct imap_view *v;
	str to = reply->to;

	if (rec_uid_range_get(&to, &range) ||
	    !imap_account_follows(x->account, x->mailbox, reply, &v))
		return;
	row.uid = range.first;
	row.modseq = reply->modseq;
	row.body = reply->body;
	if (imap_view_put(v, &row))
		v->is_loaded = false; /* no memory: all is asked for again */
	else if (x->account->on_change)
		x->account->on_change(x->account->arg, v);
}

static void stored(void *arg, enum err err, struct msg *reply)
{
	struct appended *m = arg;
	struct append *x = m->append;
	struct rec_uid_range range;
	str to;

	x->pending--;
	if (!err) {
		to = reply->u.st_commit_reply.to;
		x->uidvalidity = reply->u.st_commit_reply.uidvalidity;
		x->modseq = MAX(x->modseq, reply->u.st_commit_reply.modseq);
		show(x, m, &reply->u.st_commit_reply);
		while (!rec_uid_range_get(&to, &range))
			imap_set_add(&x->uids, range.first, range.last);
	} else if (!x->err) {
		x->err = err;
	}
	waiters_wake_all(x->account->loop, &x->answered);
	free(m);
	release(x);
}

static enum err wait_until(struct append *x, uint32_t at_most)
{
	enum err err = ERR_OK;

	while (x->pending > at_most && !err)
		err = waiters_wait(x->account->loop, &x->answered,
				   imap_account_deadline(x->account));
	return err;
}

/* ---- one message ---- */

/* The text of ENVELOPE and BODYSTRUCTURE, when they fit the message to the store. */
static void parse_message(str message, struct arena *a, struct buf *envelope, struct buf *structure,
			  bool *has_parse)
{
	struct mime_part *root;

	*has_parse = false;
	if (mime_parse(message, a, &root))
		return;
	mime_write_envelope(root->envelope, envelope);
	mime_write_structure(root, true, structure);
	*has_parse = !buf_failed(envelope) && !buf_failed(structure);
}

static enum err flags_of(struct imap_session *s, const struct imap_append_part *part,
			 uint64_t flags[2])
{
	flags[0] = part->flags.system;
	flags[1] = 0;
	for (size_t i = 0; i < part->flags.count; i++) {
		unsigned number;
		enum err err =
			imap_account_keyword(s->account, part->flags.keywords[i], true, &number);

		if (err)
			return err;
		flags[number / 64] |= (uint64_t)1 << (number % 64);
	}
	return ERR_OK;
}

static enum err submit(struct imap_session *s, const struct msg_st_append *m)
{
	struct append *x = s->append;
	struct appended *one = malloc(sizeof(*one));
	enum err err;

	if (!one)
		return ERR_NO_MEMORY;
	*one = (struct appended){ .append = x,
				  .row = { .flags = { m->flags0, m->flags1 },
					   .size = m->size,
					   .received_us = m->received_us,
					   .zone = (int16_t)m->zone } };
	err = chan_call_async(s->account->store, MSG_st_append, m,
			      imap_account_deadline(s->account), stored, one);
	if (err) {
		free(one);
		return err;
	}
	x->references++;
	x->pending++;
	return ERR_OK;
}

static enum err send_message(struct imap_session *s, const struct imap_append_part *part,
			     str message, int fd)
{
	struct append *x = s->append;
	struct msg_st_append m = {
		.mailbox = x->mailbox, .expected = x->uidvalidity, .size = message.n, .body = fd
	};
	struct buf envelope, structure;
	struct arena *arena = arena_new(IMAP_COMMAND_BUDGET);
	uint64_t flags[2];
	enum err err = arena ? flags_of(s, part, flags) : ERR_NO_MEMORY;

	buf_init(&envelope, ENVELOPE_MAX);
	buf_init(&structure, STRUCTURE_MAX);
	if (!err)
		err = wait_until(x, APPEND_IN_FLIGHT);
	if (!err) {
		parse_message(message, arena, &envelope, &structure, &m.has_parse);
		m.flags0 = flags[0];
		m.flags1 = flags[1];
		m.received_us = part->has_date ? part->seconds * 1000000 : os_wall_us();
		m.zone = part->has_date ? part->zone : os_zone_minutes(m.received_us);
		if (fd < 0)
			m.inline_body = message;
		if (m.has_parse) {
			m.envelope = buf_str(&envelope);
			m.structure = buf_str(&structure);
		}
		err = submit(s, &m);
	}
	buf_free(&envelope);
	buf_free(&structure);
	arena_free(arena);
	return err;
}

static enum err read_message(struct imap_session *s, char *into, uint64_t size)
{
	enum err err;
	str bytes;

	for (uint64_t have = 0; have < size; have += bytes.n) {
		if ((err = imap_read(s, (size_t)(size - have), &bytes)))
			return err;
		memcpy(into + have, bytes.p, bytes.n);
	}
	return ERR_OK;
}

static size_t count_bare_line_ends(const char *p, size_t n)
{
	const char *from = p, *end = p + n, *at;
	size_t count = 0;

	for (; p < end && (at = memchr(p, '\n', (size_t)(end - p))); p = at + 1)
		count += at == from || at[-1] != '\r';
	return count;
}

/* What is stored has CRLF line ends and no NUL, as RFC 5322 2.3 and RFC 3501 9 (CHAR8) want it,
 * even where the client did not send it so: LF becomes CRLF, and NUL 0x80. */
static enum err normalise(char **message, size_t *size)
{
	size_t bare = count_bare_line_ends(*message, *size), n = 0;
	char *nul, *to;

	for (; (nul = memchr(*message, 0, *size)); *nul = (char)0x80)
		;
	if (!bare)
		return ERR_OK;
	if (!(to = malloc(*size + bare)))
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < *size; i++) {
		if ((*message)[i] == '\n' && (i == 0 || (*message)[i - 1] != '\r'))
			to[n++] = '\r';
		to[n++] = (*message)[i];
	}
	free(*message);
	*message = to;
	*size = n;
	return ERR_OK;
}

/* *err_read: the connection is at its end. */
static enum err take_message(struct imap_session *s, const struct imap_append_part *part,
			     enum err *err_read)
{
	size_t size = (size_t)s->input.message_size;
	char *p = malloc(MAX(size, (size_t)1));
	enum err err = ERR_OK;
	int fd = -1;

	*err_read = p ? read_message(s, p, size) : ERR_NO_MEMORY;
	if (!*err_read)
		err = normalise(&p, &size);
	if (!*err_read && !err && size > IMAP_INLINE_MAX)
		err = os_memfd(str_of(p, size), true, &fd);
	if (!*err_read && !err)
		err = send_message(s, part, str_of(p, size), fd);
	os_close(fd);
	free(p);
	return err;
}

/* ---- the command ---- */

static enum err append_begin(struct imap_session *s)
{
	struct imap_command *c = ARENA_NEW(s->arena, struct imap_command);
	struct append *x = calloc(1, sizeof(*x));
	struct imap_mailbox *m;
	enum err err;

	if (!c || !x || !(x->arena = arena_new(IMAP_COMMAND_BUDGET))) {
		free(x);
		return ERR_NO_MEMORY;
	}
	x->references = 1;
	x->account = s->account;
	x->uids.arena = x->arena;
	s->append = x;
	if ((err = imap_command_parse(s->input.text, s->arena, c, &x->wrong)) == ERR_NO_MEMORY)
		return err;
	x->tag = arena_str(x->arena, c->tag);
	if (x->wrong)
		return ERR_OK;
	x->err = c->mailbox_is_valid ? imap_account_list(s->account) : ERR_SYNTAX;
	if (!x->err)
		x->err = imap_account_mailbox(s->account, c->mailbox, &m);
	x->try_create = x->err == ERR_NOT_FOUND;
	if (!x->err) {
		x->mailbox = m->record.id;
		x->uidvalidity = m->record.uidvalidity;
	}
	return ERR_OK;
}

/* Is there anything against this message before it is read? */
static void check_message(struct imap_session *s, struct imap_append_part *part)
{
	struct append *x = s->append;
	enum err err;

	if (x->wrong || x->err)
		return;
	err = imap_parse_append_part(s->input.text, s->input.parts == 0, s->arena, part, &x->wrong);
	if (err == ERR_NO_MEMORY || x->count == APPEND_MESSAGES_MAX)
		x->err = ERR_NO_MEMORY;
	else if (!err && s->input.message_size > s->account->config.message_size_limit)
		x->err = ERR_TOO_LONG;
	else if (!err && s->input.message_size == 0)
		/* RFC 3502 3: a literal of no bytes cancels the command. */
		x->err = ERR_CANCELLED;
}

enum err imap_append_message(struct imap_session *s)
{
	struct imap_append_part part = { 0 };
	enum err err, err_read = ERR_OK;
	struct append *x;

	if (!s->append && (err = append_begin(s)))
		return err;
	x = s->append;
	check_message(s, &part);
	if (x->wrong || x->err) {
		if (!imap_input_refuse(&s->input))
			return ERR_OK;
		err = imap_append_finish(s);
		imap_input_next(&s->input);
		return err;
	}
	if (s->input.is_sync)
		conn_write(s->conn, S("+ OK\r\n"));
	err = take_message(s, &part, &err_read);
	if (err_read)
		return err_read;
	if (err && !x->err)
		x->err = err;
	x->count++;
	imap_input_message_done(&s->input);
	return ERR_OK;
}

/* RFC 3502 3: all or none. */
static void undo(struct imap_session *s)
{
	if (s->arena)
		imap_undo(s, s->append->mailbox, &s->append->uids.set);
}

void imap_append_end(struct imap_session *s)
{
	if (s->append)
		release(s->append);
	s->append = NULL;
}

void imap_append_abort(struct imap_session *s)
{
	if (s->append && !wait_until(s->append, 0))
		undo(s);
	imap_append_end(s);
}

void imap_append_wrong(struct imap_session *s, const char *what)
{
	s->append->wrong = what;
}

static void append_ok(struct imap_session *s)
{
	struct append *x = s->append;
	struct buf uids;

	/* A range takes at most two numbers of ten digits, ':' and ','. */
	buf_init(&uids, 22 * (APPEND_MESSAGES_MAX + APPEND_IN_FLIGHT));
	imap_set_write(&x->uids.set, &uids);
	s->result = "OK";
	/* RFC 4315 3 */
	s->text = arena_printf(s->arena, "[APPENDUID %u %.*s] Append completed.", x->uidvalidity,
			       STR_ARGS(buf_str(&uids)));
	buf_free(&uids);
}

enum err imap_append_finish(struct imap_session *s)
{
	struct append *x = s->append;
	str rest = s->input.text;
	enum err err = wait_until(x, 0);

	if (err)
		return err;
	if (!x->wrong && !x->err && (x->count == 0 || str_trim(rest).n))
		x->wrong = "Expected a message literal";
	if (x->uids.failed)
		x->err = ERR_NO_MEMORY;
	if (x->wrong || x->err)
		undo(s);
	if (x->wrong)
		imap_bad(s, "Error in IMAP command: %s.", x->wrong);
	else if (x->try_create)
		imap_no(s, "[TRYCREATE] Mailbox doesn't exist.");
	else if (x->err == ERR_TOO_LONG)
		imap_no(s, "[LIMIT] Message is larger than %llu bytes.",
			(unsigned long long)s->account->config.message_size_limit);
	else if (x->err == ERR_CANCELLED)
		imap_no(s, "Append was cancelled: no message was given.");
	else if (x->err)
		imap_failed(s, x->err);
	else
		append_ok(s);
	err = imap_session_conclude(s, x->tag, true);
	imap_append_end(s);
	return err;
}

void imap_do_append(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	/* With a message it would have come as IMAP_INPUT_MESSAGE. */
	imap_bad(s, "Error in IMAP command: Missing message.");
}
