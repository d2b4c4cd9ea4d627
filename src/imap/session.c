/* A connection's life: read a command, do it, tell the news, answer, park (RFC 3501 3, 5.2 to 5.5).
 *
 * One fiber at a time runs a session, and only while the client has sent something or somebody
 * changed the mailbox that it watches. The fiber handles all commands that are there, then the
 * session is parked; pipelined commands thus share one flush. While it is parked in IDLE, a hint
 * from the store starts a fiber that tells the news.
 *
 * The invariant: `selected` is changed by this session's fiber alone, and messages are named by UID
 * across every wait, since other sessions of the account go on meanwhile.
 */
#include "imap/session_priv.h"

#include "imap/message.h"

#include <stdlib.h>

static const struct {
	void (*handle)(struct imap_session *s, const struct imap_command *c);
} handlers[IMAP_VERB_COUNT] = {
#define COMMAND(name, word, grammar, states, flags) [IMAP_VERB_##word] = { imap_do_##word },
#include "imap/imap.def"
#undef COMMAND
};

static void session_run(void *arg);

enum err imap_session_new(struct imap_account *a, struct conn *c, imap_session_end_fn on_end,
			  void *arg, struct imap_session **out)
{
	struct imap_session *s = calloc(1, sizeof(*s));

	if (!s)
		return ERR_NO_MEMORY;
	s->account = a;
	s->conn = c;
	s->on_end = on_end;
	s->arg = arg;
	s->state = IMAP_LOGGED_IN;
	imap_input_init(&s->input);
	s->input.discard_max += a->config.message_size_limit;
	buf_init(&s->first, 64 * 1024);
	buf_init(&s->out, 64 * 1024 * 1024);
	buf_init(&s->resume, 64 * 1024);
	*out = s;
	return ERR_OK;
}

void imap_session_free(struct imap_session *s)
{
	if (!s)
		return;
	imap_append_end(s);
	imap_session_close_mailbox(s);
	imap_input_free(&s->input);
	buf_free(&s->first);
	buf_free(&s->out);
	buf_free(&s->resume);
	arena_free(s->arena);
	conn_free(s->conn);
	free(s);
}

void imap_session_close_mailbox(struct imap_session *s)
{
	struct imap_view *v = s->selected.view;

	imap_selected_end(&s->selected);
	s->state = IMAP_LOGGED_IN;
	if (v)
		imap_view_compact(v);
}

/* ---- reading ---- */

enum err imap_read(struct imap_session *s, size_t max, str *bytes)
{
	enum err err;

	if (buf_len(&s->first)) {
		*bytes = str_head(buf_str(&s->first), max);
		buf_take(&s->first, bytes->n);
		return ERR_OK;
	}
	if (s->chunk.n == 0 && (err = conn_read_some(s->conn, CONN_IN_MAX, &s->chunk)))
		return err;
	*bytes = str_head(s->chunk, max);
	s->chunk = str_from(s->chunk, bytes->n);
	return ERR_OK;
}

static bool has_input(struct imap_session *s)
{
	return buf_len(&s->first) || s->chunk.n || conn_pending(s->conn).n;
}

/* The next step of the input. ERR_AGAIN: nothing is there, and nothing was begun. */
static enum err next_step(struct imap_session *s, enum imap_input_step *step)
{
	enum err err;
	size_t used;
	str bytes;

	for (;;) {
		if (imap_input_is_idle(&s->input) && !has_input(s)) {
			if ((err = conn_flush(s->conn)))
				return err;
			if ((err = conn_fill(s->conn)))
				return err;
		}
		if (buf_len(&s->first)) {
			bytes = buf_str(&s->first);
			*step = imap_input_feed(&s->input, bytes, &used);
			buf_take(&s->first, used);
		} else {
			if (s->chunk.n == 0 &&
			    (err = conn_read_some(s->conn, CONN_IN_MAX, &s->chunk)))
				return err;
			*step = imap_input_feed(&s->input, s->chunk, &used);
			s->chunk = str_from(s->chunk, used);
		}
		if (*step != IMAP_INPUT_MORE)
			return ERR_OK;
	}
}

/* ---- commands ---- */

/* It may be long (COPYUID), and follow many that the client has not read yet. */
static enum err send_result(struct imap_session *s, str tag)
{
	enum err err;

	if (!s->result)
		return ERR_OK;
	conn_write(s->conn, tag.n ? tag : S("*"));
	conn_write(s->conn, S(" "));
	conn_write(s->conn, str_from_c(s->result));
	conn_write(s->conn, S(" "));
	err = imap_write_wait(s, s->text);
	return err ? err : imap_write_wait(s, S("\r\n"));
}

static void bye(struct imap_session *s, const char *why)
{
	conn_printf(s->conn, "* BYE %s\r\n", why);
	s->is_ending = true;
}

static void count_bad(struct imap_session *s)
{
	s->bad = s->result && !strcmp(s->result, "BAD") ? s->bad + 1 : 0;
	if (s->bad >= IMAP_BAD_MAX)
		bye(s, "Too many invalid IMAP commands.");
}

/* The mailbox that is selected was deleted by somebody: nothing that the client knows of it is true
 * any more. */
static void leave_deleted_mailbox(struct imap_session *s)
{
	if (!s->selected.view || !s->selected.view->is_deleted)
		return;
	imap_session_close_mailbox(s);
	bye(s, "The selected mailbox was deleted.");
}

static void dispatch(struct imap_session *s, const struct imap_command *c)
{
	struct imap_view *v = s->selected.view;

	if (!(c->states & s->state)) {
		imap_bad(s,
			 c->states & IMAP_SELECTED ? "No mailbox selected." : "Already logged in.");
		return;
	}
	/* While it runs, row indexes must hold. */
	if (v)
		v->busy++;
	handlers[c->verb].handle(s, c);
	if (v)
		v->busy--;
}

/* After the handler: what changed, then how it ended. */
enum err imap_session_conclude(struct imap_session *s, str tag, bool may_expunge)
{
	enum err err;

	imap_message_trim(s->account);
	if (conn_failed(s->conn))
		return ERR_CLOSED;
	if (!s->is_ending && (err = imap_send_news(s, may_expunge)))
		log_warn(s->account->log, "imap-news-failed", "account=%llu error=%s",
			 (unsigned long long)s->account->id, err_name(err));
	leave_deleted_mailbox(s);
	err = send_result(s, tag);
	count_bad(s);
	return err;
}

static enum err handle_command(struct imap_session *s)
{
	struct imap_command *c = ARENA_NEW(s->arena, struct imap_command);
	const char *wrong;
	enum err err;

	if (!c)
		return ERR_NO_MEMORY;
	err = imap_command_parse(s->input.text, s->arena, c, &wrong);
	if (err == ERR_NO_MEMORY)
		imap_no(s, "[LIMIT] The command needs too much memory.");
	else if (err)
		imap_bad(s, "Error in IMAP command: %s.", wrong);
	else
		dispatch(s, c);
	return imap_session_conclude(s, c->tag, !(c->flags & IMAP_KEEPS_NUMBERS) || c->is_uid);
}

/* RFC 2177 3: the line that ends IDLE. */
static enum err handle_idle_line(struct imap_session *s)
{
	str tag = arena_str(s->arena, str_of(s->idle_tag, s->idle_tag_size));

	s->is_idle = false;
	if (str_case_eq(s->input.text, S("DONE")))
		imap_ok(s, "Idle completed.");
	else
		imap_bad(s, "Expected DONE.");
	return imap_session_conclude(s, tag, true);
}

static enum err handle_too_long(struct imap_session *s)
{
	str rest = s->input.text, tag = str_cut(&rest, ' ');

	imap_bad(s, "Command line too long.");
	return imap_session_conclude(
		s, imap_atom_is_valid(tag) && tag.n < IMAP_TAG_MAX ? tag : STR_EMPTY, false);
}

static enum err handle_step(struct imap_session *s, enum imap_input_step step)
{
	enum err err = ERR_OK;

	switch (step) {
	case IMAP_INPUT_MORE:
		return ERR_OK;
	case IMAP_INPUT_CONTINUE:
		conn_write(s->conn, S("+ OK\r\n"));
		return ERR_OK;
	case IMAP_INPUT_MESSAGE:
		return imap_append_message(s);
	case IMAP_INPUT_FLOOD:
		bye(s, "Too much unwanted data.");
		return ERR_OK;
	case IMAP_INPUT_TOO_LONG:
		if (s->append)
			imap_append_wrong(s, "Command line too long");
		err = s->append ? imap_append_finish(s) : handle_too_long(s);
		break;
	case IMAP_INPUT_COMMAND:
		if (s->append)
			err = imap_append_finish(s);
		else if (s->is_idle)
			err = handle_idle_line(s);
		else
			err = handle_command(s);
		break;
	}
	imap_input_next(&s->input);
	s->input.is_raw = s->is_idle;
	return err;
}

/* ---- the fiber ---- */

static void parked_input(void *arg, enum err why);

static void park(struct imap_session *s)
{
	s->is_parked = true;
	s->parked_at = loop_now(s->account->loop);
	arena_free(s->arena);
	s->arena = NULL;
	buf_release(&s->out);
	buf_release(&s->first);
	conn_set_deadline(s->conn, s->parked_at + s->account->config.idle_ns);
	conn_park(s->conn, parked_input, s);
}

static void session_end(struct imap_session *s)
{
	s->on_end(s->arg, s);
}

/* RFC 3501 5.4 */
static void timed_out(struct imap_session *s)
{
	conn_printf(s->conn, "* BYE Disconnected for inactivity.\r\n");
}

static enum err restore(struct imap_session *s);

/* Everything that can be done now. ERR_AGAIN: park. */
static enum err run_commands(struct imap_session *s)
{
	enum imap_input_step step;
	enum err err = ERR_OK;

	if (s->needs_resume && !s->stop_why && (err = restore(s)))
		return err;
	while (!err && !s->is_ending) {
		if (s->stop_why) {
			bye(s, s->stop_why);
			break;
		}
		conn_set_deadline(s->conn, loop_now(s->account->loop) + s->account->config.idle_ns);
		if (s->is_idle && s->was_woken) {
			s->was_woken = false;
			arena_reset(s->arena);
			err = imap_send_news(s, true);
			leave_deleted_mailbox(s);
			continue;
		}
		if ((err = next_step(s, &step)) == ERR_AGAIN && s->is_idle && s->was_woken)
			err = ERR_OK;
		else if (!err)
			err = handle_step(s, step);
		if (imap_input_is_idle(&s->input)) {
			arena_reset(s->arena);
			s->result = NULL;
			s->own = 0;
		}
	}
	return err;
}

static void session_run(void *arg)
{
	struct imap_session *s = arg;
	enum err err = ERR_NO_MEMORY;

	if (!s->arena)
		s->arena = arena_new(IMAP_COMMAND_BUDGET);
	if (s->arena)
		err = run_commands(s);
	s->is_running = false;
	if (err == ERR_AGAIN && !s->is_ending) {
		park(s);
		return;
	}
	imap_append_abort(s);
	if (err == ERR_TIMEOUT)
		timed_out(s);
	else if (err == ERR_NO_MEMORY)
		conn_printf(s->conn, "* BYE [UNAVAILABLE] Out of memory.\r\n");
	if (!conn_failed(s->conn) && (err = conn_flush(s->conn)))
		log_debug(s->account->log, "imap-flush-failed", "error=%s", err_name(err));
	session_end(s);
}

static void wake(struct imap_session *s)
{
	if (s->is_running)
		return;
	s->is_running = true;
	s->is_parked = false;
	if (fiber_spawn(s->account->loop, session_run, s)) {
		conn_printf(s->conn, "* BYE [UNAVAILABLE] Too busy.\r\n");
		session_end(s);
	}
}

static void parked_input(void *arg, enum err why)
{
	struct imap_session *s = arg;

	s->is_parked = false;
	if (!why) {
		wake(s);
		return;
	}
	if (why == ERR_TIMEOUT)
		timed_out(s);
	session_end(s);
}

void imap_session_start(struct imap_session *s, str input)
{
	buf_add(&s->first, input);
	wake(s);
}

static void unpark_and_wake(struct imap_session *s)
{
	if (s->is_parked)
		conn_unpark(s->conn);
	wake(s);
}

void imap_session_view_changed(struct imap_view *v)
{
	for (struct imap_selected *sel = v->first_selected, *next; sel; sel = next) {
		struct imap_session *s = CONTAINER_OF(sel, struct imap_session, selected);

		next = sel->next;
		if (!s->is_idle)
			continue;
		s->was_woken = true;
		if (s->is_parked)
			unpark_and_wake(s);
	}
}

void imap_session_stop(struct imap_session *s, const char *why)
{
	s->stop_why = why;
	if (s->is_parked)
		unpark_and_wake(s);
}

/* ---- the parked record ---- */

bool imap_session_is_parked(const struct imap_session *s)
{
	return s->is_parked;
}

int64_t imap_session_parked_since(const struct imap_session *s)
{
	return s->parked_at;
}

enum err imap_session_export(struct imap_session *s, struct buf *record, int *fd, struct buf *input)
{
	struct imap_parked p = {
		.account = s->account->id,
		.keywords = s->keywords_told == s->account->keyword_changes
				    ? s->account->keyword_count
				    : UINT32_MAX,
		.bad = s->bad,
		.is_idle = s->is_idle,
		.idle_tag = str_of(s->idle_tag, s->idle_tag_size),
	};
	const struct imap_selected *sel = &s->selected;
	enum err err;

	/* An expunge that could not be told yet is not in the record's MODSEQ. */
	if (!s->is_parked || s->first.end != s->first.start ||
	    (sel->view && imap_selected_has_news(sel)))
		return ERR_BUSY;
	if (sel->view) {
		p.mailbox = sel->view->mailbox;
		p.uidvalidity = sel->view->uidvalidity;
		p.uidnext = imap_selected_max_uid(sel) + 1;
		p.modseq = sel->modseq;
		p.exists = sel->exists;
		p.is_read_only = sel->is_read_only;
		p.recent_count = sel->recent_count;
		memcpy(p.recent, sel->recent, sizeof(sel->recent));
	}
	imap_parked_write(&p, record);
	if (buf_failed(record))
		return ERR_NO_MEMORY;
	conn_unpark(s->conn);
	if ((err = conn_detach(s->conn, fd, input))) {
		park(s);
		return err;
	}
	s->conn = NULL;
	imap_session_free(s);
	return ERR_OK;
}

void imap_session_resume(struct imap_session *s, str record, str input)
{
	s->needs_resume = true;
	buf_add(&s->resume, record);
	imap_session_start(s, input);
}

static enum err restore_selected(struct imap_session *s, const struct imap_parked *p)
{
	struct imap_set gone = { 0 };
	struct imap_view *v;
	enum err err;

	if ((err = imap_account_view(s->account, p->mailbox, &v)))
		return err;
	if (v->uidvalidity != p->uidvalidity)
		return ERR_STALE;
	v->busy++;
	if (v->modseq > p->modseq)
		err = imap_account_gone(s->account, v, p->modseq, p->uidnext, s->arena, &gone);
	v->busy--;
	if (err)
		return err;
	if (v->is_deleted)
		return ERR_NOT_FOUND;
	if ((err = imap_view_restore_gone(v, gone.ranges, gone.count, p->uidnext)))
		return err;
	err = imap_selected_resume(&s->selected, v, p->is_read_only, p->uidnext, p->modseq,
				   p->exists, &gone);
	if (err)
		return err;
	memcpy(s->selected.recent, p->recent, sizeof(p->recent));
	s->selected.recent_count = p->recent_count;
	s->state = IMAP_SELECTED;
	return ERR_OK;
}

static enum err restore(struct imap_session *s)
{
	struct imap_parked p;
	enum err err;

	s->needs_resume = false;
	if (!(err = imap_parked_read(buf_str(&s->resume), &p)) && p.account != s->account->id)
		err = ERR_PROTOCOL;
	if (!err)
		err = imap_account_list(s->account);
	if (!err && p.mailbox)
		err = restore_selected(s, &p);
	if (err == ERR_STALE || err == ERR_NOT_FOUND) {
		bye(s, "The mailbox changed too much while the connection was idle.");
		return ERR_OK;
	}
	if (err) {
		bye(s, s->stop_why
			       ? s->stop_why
			       : "[UNAVAILABLE] The connection cannot go on now; log in again.");
		return ERR_OK;
	}
	s->bad = p.bad;
	/* Else FLAGS is sent again before flags are. */
	s->keywords_told =
		p.keywords == s->account->keyword_count ? s->account->keyword_changes : UINT32_MAX;
	s->is_idle = s->was_woken = p.is_idle;
	s->input.is_raw = p.is_idle;
	memcpy(s->idle_tag, p.idle_tag.p, p.idle_tag.n);
	s->idle_tag_size = p.idle_tag.n;
	buf_release(&s->resume);
	return ERR_OK;
}
