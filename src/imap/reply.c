/* What a session says: tagged results, errors as response codes (RFC 5530), flags, names, news.
 *
 * One table turns an error into a NO. News (RFC 3501 7.3, 7.4) goes out before the tagged reply of
 * each command, so that after the OK of a NOOP the client knows all that was durable when it asked.
 */
#include "imap/session_priv.h"
#include "text/mutf7.h"

#include <stdarg.h>
#include <stdio.h>

static void set_result(struct imap_session *s, const char *result, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
static void set_result(struct imap_session *s, const char *result, const char *fmt, va_list ap)
{
	char text[1024];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	s->result = result;
	s->text = n < 0 || (size_t)n >= sizeof(text) ? STR_EMPTY
						     : arena_str(s->arena, str_of(text, (size_t)n));
	if (!s->text.n)
		s->text = S("Done.");
}

void imap_ok(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_result(s, "OK", fmt, ap);
	va_end(ap);
}

void imap_no(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_result(s, "NO", fmt, ap);
	va_end(ap);
}

void imap_bad(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_result(s, "BAD", fmt, ap);
	va_end(ap);
}

/* RFC 5530 3: what each error is called. */
static const struct {
	enum err err;
	const char *text;
} error_texts[] = {
	{ ERR_NOT_FOUND, "[NONEXISTENT] Mailbox doesn't exist." },
	{ ERR_EXISTS, "[ALREADYEXISTS] Mailbox already exists." },
	{ ERR_DENIED, "[CANNOT] Operation is not allowed." },
	{ ERR_QUOTA, "[OVERQUOTA] Quota exceeded (mailbox for user is full)." },
	{ ERR_FULL, "[UNAVAILABLE] The mail store is full; only expunging is possible." },
	{ ERR_TOO_MANY, "[LIMIT] Too many of them." },
	{ ERR_TOO_LONG, "[LIMIT] Too long." },
	{ ERR_NO_MEMORY, "[LIMIT] The command needs too much memory." },
	{ ERR_SYNTAX, "[CANNOT] Invalid mailbox name." },
	{ ERR_RANGE, "[CANNOT] Invalid mailbox name." },
	{ ERR_DAMAGED, "[SERVERBUG] A message is damaged; see the server's log." },
	{ ERR_IO, "[SERVERBUG] A message cannot be read; see the server's log." },
	{ ERR_STALE, "[UNAVAILABLE] The mailbox was replaced; select it again." },
	{ ERR_CONFLICT, "[UNAVAILABLE] The mailbox was replaced; select it again." },
};

void imap_failed(struct imap_session *s, enum err err)
{
	for (size_t i = 0; i < ARRAY_LEN(error_texts); i++) {
		if (error_texts[i].err == err) {
			imap_no(s, "%s", error_texts[i].text);
			return;
		}
	}
	imap_no(s, "[UNAVAILABLE] Temporary failure (%s); try again later.", err_text(err));
}

void imap_write_mailbox(struct buf *out, str name)
{
	struct buf wire;
	str text;
	bool is_atom = true;

	buf_init(&wire, 64 * 1024);
	text = mutf7_encode(name, &wire) ? name : buf_str(&wire);
	for (size_t i = 0; i < text.n; i++)
		is_atom &= ascii_is_alnum(text.p[i]) || strchr("-_./&,+", text.p[i]) != NULL;
	if (text.n == 0 || !is_atom || str_case_eq(text, S("NIL"))) {
		buf_add_char(out, '"');
		for (size_t i = 0; i < text.n; i++) {
			if (text.p[i] == '"' || text.p[i] == '\\')
				buf_add_char(out, '\\');
			buf_add_char(out, text.p[i]);
		}
		buf_add_char(out, '"');
	} else {
		buf_add(out, text);
	}
	buf_free(&wire);
}

enum err imap_write_wait(struct imap_session *s, str bytes)
{
	conn_set_deadline(s->conn, loop_now(s->account->loop) + s->account->config.idle_ns);
	return conn_write_wait(s->conn, bytes);
}

enum err imap_send(struct imap_session *s)
{
	enum err err;

	if (buf_failed(&s->out)) {
		buf_clear(&s->out);
		return ERR_NO_MEMORY;
	}
	err = imap_write_wait(s, buf_str(&s->out));
	buf_clear(&s->out);
	return err;
}

static void write_keywords(struct imap_session *s)
{
	const uint64_t all[2] = { MSG_FLAG_SYSTEM | ~(uint64_t)((1u << KEYWORD_FIRST) - 1),
				  UINT64_MAX };

	imap_account_write_flags(s->account, all, false, &s->out);
}

void imap_write_flag_list(struct imap_session *s)
{
	buf_add(&s->out, S("* FLAGS ("));
	write_keywords(s);
	buf_add(&s->out, S(")\r\n* OK [PERMANENTFLAGS ("));
	if (!s->selected.is_read_only) {
		write_keywords(s);
		/* RFC 3501 7.1: \* : new keywords can be made. */
		if (s->account->keyword_count < KEYWORD_LIMIT - KEYWORD_FIRST)
			buf_add(&s->out, S(" \\*"));
		buf_add(&s->out, S(")] Flags permitted.\r\n"));
	} else {
		buf_add(&s->out, S(")] Read-only mailbox.\r\n"));
	}
	s->keywords_told = s->account->keyword_changes;
}

void imap_write_fetch_flags(struct imap_session *s, uint32_t seq, bool with_uid, struct buf *out)
{
	const struct imap_row *row = imap_selected_row(&s->selected, seq);

	buf_add(out, S("* "));
	buf_add_u64(out, seq);
	buf_add(out, S(" FETCH ("));
	if (with_uid) {
		buf_add(out, S("UID "));
		buf_add_u64(out, row->uid);
		buf_add_char(out, ' ');
	}
	buf_add(out, S("FLAGS ("));
	imap_account_write_flags(s->account, row->flags,
				 imap_selected_is_recent(&s->selected, row->uid), out);
	buf_add(out, S("))\r\n"));
}

static void tell_recent(struct imap_session *s, uint32_t recent_from)
{
	struct imap_view *v = s->selected.view;

	buf_printf(&s->out, "* %u EXISTS\r\n* %u RECENT\r\n", s->selected.exists,
		   imap_selected_recent(&s->selected));
	if (v->recent_from != recent_from)
		imap_account_seen_recent(s->account, v);
}

enum err imap_send_news(struct imap_session *s, bool may_expunge)
{
	struct imap_view *v = s->selected.view;
	struct imap_news news;
	uint32_t recent_from;
	enum err err;

	if (!v)
		return ERR_OK;
	if ((err = imap_account_refresh(s->account, v)))
		return err;
	if (!imap_selected_has_news(&s->selected))
		return ERR_OK;
	recent_from = v->recent_from;
	if ((err = imap_selected_news(&s->selected, may_expunge, s->own, s->arena, &news)))
		return err;
	for (size_t i = 0; i < news.expunged_count; i++)
		buf_printf(&s->out, "* %u EXPUNGE\r\n", news.expunged[i]);
	if (news.has_exists)
		tell_recent(s, recent_from);
	if (news.flags_count && s->keywords_told != s->account->keyword_changes)
		imap_write_flag_list(s);
	for (size_t i = 0; i < news.flags_count; i++)
		imap_write_fetch_flags(s, news.flags[i], false, &s->out);
	return imap_send(s);
}
