/* `posthorn undelete ADDRESS [--since WHEN] [--mailbox NAME] [--list]`: what was expunged in the
 * last days, shown or brought back. A page of some hundred messages for each question of the tool;
 * the cursor is the stamp to go on from.
 */
#include "roles/store_priv.h"

#include "roles/when.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ARGS_MAX = 8, OUT_MAX = 40 * 1024, LINE_MAX_BYTES = 1400 };

struct undelete {
	struct store_role *role;
	struct waiting *waiting;
	struct store_recovered recovered;
	uint64_t account, from, next;
	str address, mailbox; /* in the question, but for: */
	char name[MAILBOX_NAME_MAX + 1];
	bool lists;
	unsigned count;
	struct buf out;
};

static bool parse(struct undelete *u, str args)
{
	str words[ARGS_MAX];
	size_t n = 0;

	while (args.n && n < ARGS_MAX)
		words[n++] = str_cut(&args, '\0');
	if (args.n)
		return false;
	for (size_t i = 1; i < n; i++) {
		if (str_eq(words[i], S("--list"))) {
			u->lists = true;
		} else if (str_eq(words[i], S("--since")) && i + 1 < n) {
			if (when_parse(words[++i], os_wall_us(), &u->from))
				return false;
		} else if (str_eq(words[i], S("--mailbox")) && i + 1 < n) {
			u->mailbox = words[++i];
		} else if (!u->address.n && words[i].n && words[i].p[0] != '-') {
			u->address = words[i];
		} else {
			return false;
		}
	}
	return u->address.n > 0;
}

static void time_put(struct buf *out, uint64_t us)
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;
	char text[32];

	if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf_add(out, str_from_c(text));
}

static bool list_one(void *arg, const struct store_kept *k)
{
	struct undelete *u = arg;

	if (buf_len(&u->out) + LINE_MAX_BYTES > OUT_MAX) {
		u->next = k->stamp;
		return false;
	}
	u->count++;
	time_put(&u->out, k->stamp);
	buf_printf(&u->out, "  %10llu bytes of ", (unsigned long long)k->size);
	time_put(&u->out, (uint64_t)MAX(k->received_us, (int64_t)0));
	buf_printf(&u->out, "  UID %u of %.*s\n", k->uid, STR_ARGS(k->mailbox));
	return true;
}

static void reply(struct undelete *u, str err, unsigned exit)
{
	struct client *c = u->waiting->client;

	if (c->chan && c->chan == u->waiting->chan &&
	    REPLY(c->chan, u->waiting->id, command_output, .out = buf_str(&u->out), .err = err,
		  .exit = (uint8_t)exit, .more = u->next != 0, .cursor = u->next))
		log_warn(&u->role->role->log, "answer-unsent", "command=undelete");
	waiting_free(u->waiting);
	buf_free(&u->out);
	free(u);
}

static void fail(struct undelete *u, enum err err)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "nothing was recovered: %s\n", err_text(err));

	u->next = 0;
	reply(u, str_of(text, (size_t)n), 1);
}

static void recovered(void *arg, enum err err, const struct msg_st_commit_reply *r UNUSED)
{
	struct undelete *u = arg;

	if (err) {
		fail(u, err);
		return;
	}
	u->next = u->recovered.next;
	buf_printf(&u->out, "%u messages are back, in the mailbox %.*s\n", u->recovered.count,
		   STR_ARGS(u->mailbox));
	reply(u, STR_EMPTY, 0);
}

static void list(struct undelete *u, bool is_first)
{
	enum err err = store_kept_each(u->role->store, u->account, u->from, list_one, u);

	if (err) {
		fail(u, err);
		return;
	}
	if (is_first && !u->count)
		buf_add(&u->out, S("There is nothing to recover.\n"));
	reply(u, STR_EMPTY, 0);
}

static void run(struct undelete *u, const struct msg_command *m)
{
	struct store *store = u->role->store;
	enum err err;

	u->mailbox = S("Recovered");
	if (!parse(u, m->args)) {
		reply(u,
		      S("usage: posthorn undelete ADDRESS [--since DATE|AGE] [--mailbox NAME] "
			"[--list]\n"),
		      2);
		return;
	}
	if ((err = store_account_find(store, u->address, &u->account))) {
		if (err == ERR_NOT_FOUND)
			reply(u, S("nobody of that address ever had mail here\n"), 1);
		else
			fail(u, err);
		return;
	}
	u->from = MAX(u->from, m->cursor);
	if (u->lists) {
		list(u, m->cursor == 0);
		return;
	}
	/* The answer names it, when the question is gone. */
	if (u->mailbox.n > MAILBOX_NAME_MAX) {
		fail(u, ERR_TOO_LONG);
		return;
	}
	memcpy(u->name, u->mailbox.p, u->mailbox.n);
	u->mailbox.p = u->name;
	err = store_undelete(store, u->account, u->from, u->mailbox, &u->recovered, recovered, u);
	if (err == ERR_NOT_FOUND) {
		buf_add(&u->out, S("There is nothing to recover.\n"));
		reply(u, STR_EMPTY, 0);
	} else if (err) {
		fail(u, err);
	}
}

void store_role_undelete(struct store_role *s, struct client *from, const struct msg *m)
{
	struct undelete *u = calloc(1, sizeof(*u));

	if (!u || !(u->waiting = waiting_new(from, m->id, false))) {
		free(u);
		store_role_refuse(s, from->chan, m->id, ERR_NO_MEMORY);
		return;
	}
	u->role = s;
	buf_init(&u->out, OUT_MAX);
	run(u, &m->u.command);
}
