/* Looking an account through, every byte of it, and at what came since.
 *
 * The audit is the checkers' eye: it uses the protocol as any client does, so that what it finds is
 * what a user would find. */
#include "sim/imap_wire.h"

#include <stdio.h>
#include <stdlib.h>

struct names {
	char names[MODEL_BOXES_MAX][MODEL_NAME_MAX];
	unsigned n;
};

static void on_list(void *arg, struct wire *i, str response)
{
	struct names *x = arg;
	size_t at = str_rfind_char(response, ' ');
	str name = str_from(response, at + 1);

	if (!str_starts(response, S("LIST ")) || at == STR_NONE)
		return;
	if (name.n > 1 && name.p[0] == '"')
		name = str_sub(name, 1, name.n - 2);
	if (x->n == MODEL_BOXES_MAX || name.n >= MODEL_NAME_MAX) {
		world_violation(i->client->world, "%s: nobody made so many mailboxes",
				i->account->address);
		return;
	}
	snprintf(x->names[x->n++], MODEL_NAME_MAX, "%.*s", STR_ARGS(name));
}

struct look {
	struct box_model *box;
	uint32_t exists, uidvalidity, uidnext, from;
};

static void on_select(void *arg, struct wire *i, str response)
{
	struct look *x = arg;

	(void)i;
	if (str_find(response, S(" EXISTS")) != STR_NONE && ascii_is_digit(response.p[0]))
		x->exists = wire_number(response, "");
	if (str_starts(response, S("OK [UIDVALIDITY ")))
		x->uidvalidity = wire_number(response, "UIDVALIDITY ");
	if (str_starts(response, S("OK [UIDNEXT ")))
		x->uidnext = wire_number(response, "UIDNEXT ");
}

static uint64_t token_of(struct wire *i, const struct look *x, const struct wire_row *r)
{
	const char *why = "the answer has no body";
	uint64_t token = r->has_body ? text_token(i->client->world, r->body, &why) : 0;

	if (!token)
		world_violation(i->client->world, "%s %s UID %u: %s", i->account->address,
				x->box->name, r->uid, why);
	return token;
}

static void on_fetch(void *arg, struct wire *i, str response)
{
	struct look *x = arg;
	struct wire_row r;

	if (!wire_row(i, response, &r) || !r.has_body || r.uid < x->from)
		return;
	if (model_row(x->box, r.uid))
		return; /* of another client's change: told twice */
	i->client->world->counts.rows++;
	model_row_add(x->box, r.uid, token_of(i, x, &r), r.flags);
}

static bool box_look(struct wire *i, struct account_model *seen, const char *name)
{
	struct look x = { .box = model_box_add(seen, name) };

	x.box->looked_at = os_monotonic_ns();
	i->untagged = on_select;
	i->arg = &x;
	if (wire_command(i, "EXAMINE %s", name) != WIRE_OK)
		return false;
	x.box->uidvalidity = x.uidvalidity;
	i->untagged = on_fetch;
	if (wire_command(i, "UID FETCH 1:* (UID FLAGS BODY.PEEK[])") != WIRE_OK)
		return false;
	if (x.box->n < x.exists)
		world_violation(i->client->world, "%s %s: %u messages, and only %zu are told",
				i->account->address, name, x.exists, x.box->n);
	x.box->uidnext = x.uidnext;
	if (x.box->n)
		x.box->uidnext = MAX(x.uidnext, x.box->rows[x.box->n - 1].uid + 1);
	if (!x.uidvalidity || !x.uidnext)
		world_violation(i->client->world, "%s %s: no UIDVALIDITY or UIDNEXT",
				i->account->address, name);
	return true;
}

bool wire_audit(struct wire *i)
{
	struct world *w = i->client->world;
	struct account_model *seen = calloc(1, sizeof(*seen));
	struct names names = { .n = 0 };
	int64_t before = os_monotonic_ns();
	bool good;

	if (!seen)
		panic("sim: no memory");
	i->untagged = on_list;
	i->arg = &names;
	good = wire_command(i, "LIST \"\" *") == WIRE_OK;
	for (unsigned k = 0; good && k < names.n; k++)
		good = box_look(i, seen, names.names[k]);
	i->untagged = NULL;
	if (!good)
		world_note(w, i->client->name, "the audit ends at %s: %.*s", i->sent,
			   STR_ARGS(str_head(buf_str(&i->response), 200)));
	if (good) {
		w->counts.audits++;
		if (model_reconcile(w, i->account, seen))
			world_check_owed(w, i->account, before);
		w->audited |= w->is_kind ? 1u << i->account->number : 0;
	}
	model_free(seen);
	free(seen);
	return good;
}

static void on_poll(void *arg, struct wire *i, str response)
{
	struct look *x = arg;
	struct wire_row r;

	if (!wire_row(i, response, &r) || !r.has_body)
		return;
	i->client->world->counts.rows++;
	model_seen_row(i->client->world, i->account, x->box->uidvalidity, r.uid, token_of(i, x, &r),
		       r.flags);
	x->uidnext = MAX(x->uidnext, r.uid + 1);
}

bool wire_poll(struct wire *i, struct box_model *b)
{
	struct look x = { .box = b, .from = b->uidnext, .uidnext = b->uidnext };
	enum wire_result result;

	i->untagged = on_poll;
	i->arg = &x;
	result = wire_command(i, "UID FETCH %u:* (UID FLAGS BODY.PEEK[])", b->uidnext);
	i->untagged = NULL;
	/* All below is known now. */
	b->uidnext = MAX(b->uidnext, x.uidnext);
	return result == WIRE_OK;
}
