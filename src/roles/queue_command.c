/* Role queue: `posthorn queue list|show|flush|delete|hold|release`.
 *
 * Each message asks for one page of the store's records, from the cursor on, and is answered with
 * what that page has to say, so that a queue of millions is listed with the memory of a page. The
 * cursor is the next record's number; its highest bit says that some record matched on an earlier
 * page. Changes are recorded before they are told.
 *
 * What is in the middle of a delivery is left alone: its outcome comes by itself, and is the truth.
 */
#include "base/trace.h"
#include "queue/route.h"
#include "roles/queue_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ARGS_MAX = 8, PAGE = 100, OUT_MAX = 49152, COMMAND_BUDGET = 1024 * 1024 };

#define CURSOR_MATCHED (1ull << 63)

struct page {
	struct queue_role *q;
	struct chan *from;
	uint32_t call;
	struct arena *arena;
	struct buf out;
	struct buf err;
	const struct verb *verb;
	bool json;
	bool all;	  /* no ID, no domain */
	uint64_t message; /* or 0 */
	str domain;	  /* or empty */
	uint64_t cursor;
	unsigned exit;
	unsigned pending; /* outcomes on their way */
	unsigned changed, matched;
	struct fiber *fiber;
};

struct verb {
	const char *name;
	void (*act)(struct page *p, const struct rec_queue_record *r);
	bool needs_id;	  /* a message id or ALL */
	bool may_name;	  /* none, a message id, or a domain */
	const char *done; /* "%u recipients ..." */
};

/* ---- words ---- */

static const char *state_name(const struct rec_queue_record *r)
{
	static const char *const names[] = { [QUEUE_DUE] = "due",
					     [QUEUE_SENT] = "sent",
					     [QUEUE_DEFERRED] = "deferred",
					     [QUEUE_FAILED] = "failed",
					     [QUEUE_DELETED] = "deleted",
					     [QUEUE_HELD] = "held",
					     [QUEUE_DELIVERED] = "delivered, notice owed",
					     [QUEUE_EXPANDED] = "expanded, notice owed" };

	if (r->state == QUEUE_FAILED && str_starts(r->status, S("2.")))
		return "sent, notice owed";
	return r->state < ARRAY_LEN(names) ? names[r->state] : "unknown";
}

static void time_put(struct buf *out, int64_t us)
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;
	char text[32];

	if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf_add(out, str_from_c(text));
}

/* For a terminal: nothing that moves its cursor. */
static void text_put(struct buf *out, str s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_char(out, (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? '?' : s.p[i]);
}

static void json_put(struct buf *out, const char *name, str s)
{
	buf_printf(out, ",\"%s\":\"", name);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_printf(out, "\\%c", c);
		else if (c < ' ')
			buf_printf(out, "\\u%04x", c);
		else
			buf_add_char(out, (char)c);
	}
	buf_add_char(out, '"');
}

static void record_json(struct page *p, const struct rec_queue_record *r)
{
	char id[MSGID_TEXT + 1];

	buf_printf(&p->out, "{\"record\":%llu", (unsigned long long)r->id);
	json_put(&p->out, "message", msgid_text(r->message, id));
	json_put(&p->out, "sender", r->sender);
	json_put(&p->out, "recipient", r->address);
	json_put(&p->out, "original", r->original);
	json_put(&p->out, "state",
		 str_from_c(sched_find(p->q->sched, r->id) && sched_find(p->q->sched, r->id)->job
				    ? "active"
				    : state_name(r)));
	buf_printf(&p->out, ",\"size\":%llu,\"created\":%lld,\"due\":%lld,\"attempts\":%u",
		   (unsigned long long)r->size, (long long)(r->created_us / 1000000),
		   (long long)(r->due_us / 1000000), r->attempts);
	json_put(&p->out, "remote", r->remote);
	json_put(&p->out, "status", r->status);
	json_put(&p->out, "reply", r->reply);
	buf_add(&p->out, S("}\n"));
}

static void record_list(struct page *p, const struct rec_queue_record *r)
{
	const struct sched_rcpt *x = sched_find(p->q->sched, r->id);
	char id[MSGID_TEXT + 1];

	if (p->json) {
		record_json(p, r);
		return;
	}
	buf_add(&p->out, msgid_text(r->message, id));
	buf_printf(&p->out, " %10llu  ", (unsigned long long)r->size);
	time_put(&p->out, r->created_us);
	buf_add(&p->out, S("  <"));
	text_put(&p->out, r->sender);
	buf_add(&p->out, S("> to <"));
	text_put(&p->out, r->address);
	buf_printf(&p->out, ">\n    %s", x && x->job ? "being delivered" : state_name(r));
	if (r->attempts)
		buf_printf(&p->out, ", attempts: %u", r->attempts);
	if (!(x && x->job) && r->state != QUEUE_HELD) {
		buf_add(&p->out, S(", next at "));
		time_put(&p->out, r->due_us);
	}
	if (r->reply.n) {
		buf_add(&p->out, S("\n    "));
		text_put(&p->out, r->remote);
		buf_add(&p->out, r->remote.n ? S(": ") : STR_EMPTY);
		text_put(&p->out, r->reply);
	}
	buf_add(&p->out, S("\n"));
}

static void show_line(struct page *p, const char *name, str value)
{
	if (!value.n)
		return;
	buf_printf(&p->out, "    %-20s", name);
	text_put(&p->out, value);
	buf_add_char(&p->out, '\n');
}

static void record_show(struct page *p, const struct rec_queue_record *r)
{
	record_list(p, r);
	if (p->json)
		return;
	show_line(p, "written to", str_eq(r->original, r->address) ? STR_EMPTY : r->original);
	show_line(p, "ORCPT", r->orcpt);
	show_line(p, "ENVID", r->envid);
	show_line(p, "status", r->status);
	show_line(p, "SMTPUTF8", r->smtputf8 ? S("yes") : STR_EMPTY);
	show_line(p, "delay told", r->warned_us ? S("yes") : STR_EMPTY);
}

/* ---- changes ---- */

static void change_recorded(void *arg)
{
	struct page *p = arg;

	if (!--p->pending)
		fiber_wake(p->q->role->loop, p->fiber);
}

static void change(struct page *p, const struct rec_queue_record *r, uint8_t state)
{
	struct msg_q_outcome m = { .id = r->id, .state = state, .due_us = queue_now() };

	p->pending++;
	p->changed++;
	if (outcome_send(p->q, &m, change_recorded, p)) {
		p->pending--;
		p->changed--;
	}
}

static void told(struct page *p, const struct rec_queue_record *r, const char *what)
{
	role_trace(p->q->role, r->message, TRACE_QUEUE_COMMAND, r->sender, r->address, "%s", what);
}

static void record_flush(struct page *p, const struct rec_queue_record *r)
{
	/* In memory it is about to be tried anyway. */
	if (r->state == QUEUE_HELD || sched_find(p->q->sched, r->id))
		return;
	told(p, r, "flushed it");
	change(p, r, r->state);
}

static bool is_free(struct page *p, const struct rec_queue_record *r)
{
	return sched_forget(p->q->sched, r->id) || !sched_find(p->q->sched, r->id);
}

static void record_delete(struct page *p, const struct rec_queue_record *r)
{
	if (!is_free(p, r))
		return;
	log_info(&p->q->role->log, "out-deleted", "record=%llu to=<%.*s>",
		 (unsigned long long)r->id, STR_ARGS(r->address));
	told(p, r, "deleted it");
	change(p, r, QUEUE_DELETED);
}

static void record_hold(struct page *p, const struct rec_queue_record *r)
{
	if (r->state != QUEUE_DUE && r->state != QUEUE_DEFERRED)
		return;
	if (!is_free(p, r))
		return;
	told(p, r, "held it");
	change(p, r, QUEUE_HELD);
}

static void record_release(struct page *p, const struct rec_queue_record *r)
{
	if (r->state != QUEUE_HELD)
		return;
	told(p, r, "released it");
	change(p, r, QUEUE_DUE);
}

static const struct verb verbs[] = {
	{ "list", record_list, false, false, NULL },
	{ "show", record_show, true, false, NULL },
	{ "flush", record_flush, false, true, "recipients to be tried now" },
	{ "delete", record_delete, true, false, "recipients deleted" },
	{ "hold", record_hold, true, false, "recipients held" },
	{ "release", record_release, true, false, "recipients released" },
};

/* ---- a page ---- */

static void usage(struct page *p)
{
	buf_add(&p->err, S("usage: posthorn queue list [--json] | show ID | flush [ID|DOMAIN] | "
			   "delete ID|ALL | hold ID|ALL | "
			   "release ID|ALL\n"));
	p->exit = 2;
}

static bool parse_target(struct page *p, str target)
{
	if (!msgid_parse(target, &p->message))
		return true;
	p->message = 0;
	if (p->verb->needs_id && str_eq(target, S("ALL"))) {
		p->all = true;
		return true;
	}
	p->domain = target;
	return p->verb->may_name;
}

static bool parse(struct page *p, str args)
{
	str words[ARGS_MAX], target = STR_EMPTY;
	size_t n = 0;

	while (args.n && n < ARGS_MAX)
		words[n++] = str_cut(&args, '\0');
	for (size_t i = n && str_eq(words[0], S("queue")) ? 1 : 0; i < n; i++) {
		if (str_eq(words[i], S("--json")))
			p->json = true;
		else if (!p->verb) {
			for (size_t k = 0; k < ARRAY_LEN(verbs); k++)
				if (str_eq(words[i], str_from_c(verbs[k].name)))
					p->verb = &verbs[k];
			if (!p->verb)
				return false;
		} else if (!target.n && words[i].n)
			target = words[i];
		else
			return false;
	}
	if (!p->verb || args.n)
		return false;
	p->all = !target.n && !p->verb->needs_id;
	return target.n ? parse_target(p, target) : p->all;
}

static bool is_meant(const struct page *p, const struct rec_queue_record *r)
{
	return p->all || (p->message && r->message == p->message) ||
	       (p->domain.n && str_case_eq(route_domain(r->address), p->domain));
}

static enum err scan(struct page *p, uint64_t *next)
{
	struct role *role = p->q->role;
	struct chan *store = role_peer(role, ROLE_STORE, 0);
	int64_t deadline = loop_now(role->loop) + SECONDS(QUEUE_CALL_SECONDS);
	struct msg_q_records reply;
	struct rec_queue_record r;
	uint64_t from = p->cursor & ~CURSOR_MATCHED;
	enum err err = store ? CALL(store, q_scan, q_records, &reply, p->arena, deadline,
				    .from = from, .max = PAGE)
			     : ERR_CLOSED;

	if (err)
		return err;
	*next = reply.next;
	for (str rest = reply.records; !rec_queue_record_get(&rest, &r);) {
		/* Room for one more of the largest: escapes and names. */
		if (buf_len(&p->out) > OUT_MAX - 12000) {
			*next = r.id;
			break;
		}
		if (!is_meant(p, &r))
			continue;
		p->matched++;
		p->verb->act(p, &r);
	}
	/* The outcomes know this page: nothing may end the wait before them. */
	while (p->pending)
		if (fiber_suspend(role->loop, LOOP_NEVER))
			panic("a command's fiber was cancelled");
	return ERR_OK;
}

static void conclude(struct page *p, uint64_t next)
{
	bool any = p->matched || (p->cursor & CURSOR_MATCHED);

	if (p->changed && p->verb->done)
		buf_printf(&p->out, "%u %s\n", p->changed, p->verb->done);
	if (next || any || p->json)
		return;
	if (p->all && !p->verb->needs_id) {
		buf_add(&p->out, S("The queue is empty.\n"));
		return;
	}
	buf_add(&p->err, S("There is no such message in the queue.\n"));
	p->exit = 1;
}

static void page_run(void *arg)
{
	struct page *p = arg;
	uint64_t next = 0, cursor;
	enum err err = ERR_OK;

	p->fiber = fiber_current(p->q->role->loop);
	if (p->exit == 0) {
		if (str_eq(str_from_c(p->verb->name), S("flush")) && !p->cursor)
			sched_revive(p->q->sched, p->domain);
		err = scan(p, &next);
	}
	if (err) {
		buf_printf(&p->err, "The store does not answer: %s.\n", err_text(err));
		p->exit = 1;
	} else if (p->exit == 0) {
		conclude(p, next);
	}
	cursor = next | (next && (p->matched || (p->cursor & CURSOR_MATCHED)) ? CURSOR_MATCHED : 0);
	if (REPLY(p->from, p->call, command_output, .out = buf_str(&p->out),
		  .err = buf_str(&p->err), .exit = (uint8_t)p->exit, .more = next != 0,
		  .cursor = cursor))
		log_warn(&p->q->role->log, "answer-unsent", "command=queue");
	buf_free(&p->out);
	buf_free(&p->err);
	arena_free(p->arena);
	free(p);
}

void queue_command(struct queue_role *q, struct chan *from, uint32_t call,
		   const struct msg_command *m)
{
	struct page *p = calloc(1, sizeof(*p));
	str args;

	if (!p || !(p->arena = arena_new(COMMAND_BUDGET)))
		goto no_memory;
	p->q = q;
	p->from = from;
	p->call = call;
	p->cursor = m->cursor;
	buf_init(&p->out, OUT_MAX);
	buf_init(&p->err, 4096);
	args = arena_str(p->arena, m->args);
	if (!args.p || !parse(p, args))
		usage(p);
	if (fiber_spawn(q->role->loop, page_run, p) == ERR_OK)
		return;
	buf_free(&p->out);
	buf_free(&p->err);
	arena_free(p->arena);
no_memory:
	free(p);
	if (REPLY_FAILED(from, call, ERR_BUSY, S("too busy")))
		log_warn(&q->role->log, "answer-unsent", "command=queue");
}
