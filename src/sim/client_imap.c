/* The writing client of an account: everything IMAP can change, one command at a time.
 *
 * After each connection that was lost it looks the whole account through before it goes on, so that
 * the command without an answer is decided; after one that was not a power cut it waits first,
 * since the server may still be at it. */
#include "sim/imap_wire.h"

#include <stdio.h>

enum { SET_SIZE = OP_UIDS_MAX * 11 + 1, ROWS_WANTED = 14, BOXES_WANTED = 10, COMMANDS_MAX = 60 };

struct writer {
	struct wire imap;
	struct client *c;
	struct world *w;
	struct account_model *a;
	struct buf text;
	char selected[MODEL_NAME_MAX];
	uint32_t made[OP_UIDS_MAX];
	unsigned made_n;
	unsigned names; /* of mailboxes that were made */
};

static unsigned below(struct writer *x, unsigned n)
{
	return chance_below(&x->c->chance, n);
}

/* An answer to what changes something. False: the connection is no longer good for work. */
static bool answered(struct writer *x, enum wire_result result)
{
	struct op *op = &x->a->pending;
	char set[2 * SET_SIZE + 1] = "";
	size_t used = 0;

	for (unsigned i = 0; i < op->n; i++)
		used += (size_t)snprintf(set + used, sizeof(set) - used, " %u>%u", op->uids[i],
					 x->made_n == op->n ? x->made[i] : 0);
	world_note(x->w, x->c->name, "%s op %d %s%s%s%s: %.*s", x->a->address, (int)op->kind,
		   op->box, op->target[0] ? " -> " : "", op->target, set,
		   result == WIRE_LOST ? 4 : (int)MIN(buf_len(&x->imap.response), (size_t)200),
		   result == WIRE_LOST ? "lost" : buf_str(&x->imap.response).p);
	if (result == WIRE_OK) {
		if (x->made_n != op->n &&
		    (op->kind == OP_APPEND || op->kind == OP_COPY || op->kind == OP_MOVE))
			world_violation(x->w, "%s: OK, and %u UIDs of %u are told", x->a->address,
					x->made_n, op->n);
		for (unsigned i = 0; i < op->n; i++) {
			if (x->made_n == op->n && op->made[i] && op->made[i] != x->made[i])
				world_violation(x->w, "%s: told UID %u, and another client saw %u",
						x->a->address, x->made[i], op->made[i]);
			if (x->made_n == op->n)
				op->made[i] = x->made[i];
		}
		model_apply(x->a, op);
		/* Flags that were there already, or a new name, need not change it. */
		x->a->acked += op->kind == OP_APPEND || op->kind == OP_EXPUNGE ||
			       op->kind == OP_COPY || op->kind == OP_MOVE;
		*op = (struct op){ .kind = OP_NONE };
		return true;
	}
	if (result == WIRE_LOST || op->kills != x->w->kills)
		return false;
	/* NO, and nobody died: nothing happened. */
	if (op->must)
		world_violation(x->w, "%s: NO to what another client has seen done", x->a->address);
	if (world_is_calm(x->w, loop_now(x->c->loop)))
		world_violation(x->w, "%s: refused for no reason: %.*s", x->a->address,
				STR_ARGS(buf_str(&x->imap.response)));
	*op = (struct op){ .kind = OP_NONE };
	return true;
}

static struct op *op_begin(struct writer *x, enum op_kind kind, const char *box, const char *target)
{
	struct op *op = &x->a->pending;

	*op = (struct op){ .kind = kind, .kills = x->w->kills };
	snprintf(op->box, sizeof(op->box), "%s", box);
	snprintf(op->target, sizeof(op->target), "%s", target);
	x->made_n = 0;
	x->w->counts.operations++;
	return op;
}

static void on_made(void *arg, struct wire *i, str response)
{
	struct writer *x = arg;
	unsigned n = wire_made(response, x->made, OP_UIDS_MAX);

	(void)i;
	if (n)
		x->made_n = n;
}

static bool finish(struct writer *x)
{
	enum wire_result result;

	x->imap.untagged = on_made;
	x->imap.arg = x;
	result = wire_finish(&x->imap);
	x->imap.untagged = NULL;
	if (result == WIRE_OK)
		on_made(x, &x->imap, buf_str(&x->imap.response));
	return answered(x, result);
}

static const char *flag_names(uint8_t flags, char out[80])
{
	snprintf(out, 80, "%s%s%s%s%s", flags & FLAG_SEEN ? "\\Seen " : "",
		 flags & FLAG_ANSWERED ? "\\Answered " : "",
		 flags & FLAG_FLAGGED ? "\\Flagged " : "", flags & FLAG_DELETED ? "\\Deleted " : "",
		 flags & FLAG_DRAFT ? "\\Draft " : "");
	if (out[0])
		out[strlen(out) - 1] = '\0';
	return out;
}

static struct box_model *any_box(struct writer *x)
{
	return below(x, 2) ? &x->a->boxes[below(x, x->a->n)] : model_box(x->a, "INBOX");
}

/* Some UIDs of a mailbox, ascending, and what they are called on the wire. Only such as this
 * connection was told of: what the watcher alone has seen yet is not there for us. */
static unsigned pick(struct writer *x, const struct box_model *b, struct op *op, char set[SET_SIZE])
{
	size_t at = 0, used = 0;

	set[0] = '\0';
	op->n = 0;
	for (at = below(x, (unsigned)b->n);
	     at < b->n && b->rows[at].uid < b->uidnext && op->n < OP_UIDS_MAX &&
	     (!op->n || below(x, b->n > 2 * ROWS_WANTED ? 12 : 2));
	     at += 1 + below(x, 3)) {
		op->uids[op->n] = b->rows[at].uid;
		op->tokens[op->n] = b->rows[at].token;
		used += (size_t)snprintf(set + used, SET_SIZE - used, "%s%u", op->n ? "," : "",
					 b->rows[at].uid);
		op->n++;
	}
	return op->n;
}

static bool do_append(struct writer *x, struct box_model *b)
{
	struct op *op = op_begin(x, OP_APPEND, "", b->name);
	bool waits = below(x, 2);
	char names[80];

	op->flags = (uint8_t)(below(x, 2) ? below(x, 32) & (FLAG_SEEN | FLAG_ANSWERED |
							    FLAG_FLAGGED | FLAG_DRAFT)
					  : 0);
	op->tokens[0] = TOKEN('a', ++x->w->append_count);
	op->n = 1;
	x->w->counts.appends++;
	text_append(x->w, &x->text, TOKEN_ID(op->tokens[0]));
	wire_send(&x->imap, "APPEND %s (%s) {%zu%s}", b->name, flag_names(op->flags, names),
		  buf_len(&x->text), waits ? "" : "+");
	if (waits && (!wire_read(&x->imap) || !str_starts(buf_str(&x->imap.response), S("+")))) {
		/* No literal was asked for: nothing happened. */
		op->kind = OP_NONE;
		return false;
	}
	if (conn_write_wait(x->imap.conn, buf_str(&x->text)))
		return false;
	conn_write(x->imap.conn, S("\r\n"));
	return finish(x);
}

static bool do_flags(struct writer *x, struct box_model *b)
{
	static const char signs[] = { '+', '-', '=' };
	struct op *op = op_begin(x, OP_FLAGS, b->name, "");
	char set[SET_SIZE], names[80];

	if (!pick(x, b, op, set)) {
		op->kind = OP_NONE;
		return true;
	}
	op->sign = signs[below(x, 3)];
	op->flags = (uint8_t)(1u << below(x, 5) | (below(x, 2) ? 1u << below(x, 5) : 0));
	x->w->counts.flags++;
	wire_send(&x->imap, "UID STORE %s %sFLAGS%s (%s)", set,
		  op->sign == '+'   ? "+"
		  : op->sign == '-' ? "-"
				    : "",
		  below(x, 2) ? ".SILENT" : "", flag_names(op->flags, names));
	return finish(x);
}

/* Marks and expunges: two commands, each with an answer of its own. */
static bool do_expunge(struct writer *x, struct box_model *b)
{
	struct op *op = op_begin(x, OP_FLAGS, b->name, ""), gone;
	char set[SET_SIZE];

	if (!pick(x, b, op, set)) {
		op->kind = OP_NONE;
		return true;
	}
	gone = *op;
	op->sign = '+';
	op->flags = FLAG_DELETED;
	wire_send(&x->imap, "UID STORE %s +FLAGS.SILENT (\\Deleted)", set);
	if (!finish(x))
		return false;
	for (unsigned i = 0; i < gone.n; i++) {
		const struct row_model *r = model_row(b, gone.uids[i]);

		if (!r || !(r->flags & FLAG_DELETED))
			return true; /* it was refused */
	}
	op = op_begin(x, OP_EXPUNGE, b->name, "");
	memcpy(op->uids, gone.uids, sizeof(op->uids));
	op->n = gone.n;
	x->w->counts.expunges++;
	wire_send(&x->imap, "UID EXPUNGE %s", set); /* RFC 4315 2.1 */
	return finish(x);
}

static bool do_copy(struct writer *x, struct box_model *b, bool moves)
{
	struct box_model *to = any_box(x);
	struct op *op = op_begin(x, moves ? OP_MOVE : OP_COPY, b->name, to->name);
	char set[SET_SIZE];

	if ((moves && to == b) || !pick(x, b, op, set)) {
		op->kind = OP_NONE;
		return true;
	}
	*(moves ? &x->w->counts.moves : &x->w->counts.copies) += 1;
	wire_send(&x->imap, "UID %s %s %s", moves ? "MOVE" : "COPY", set, to->name);
	return finish(x);
}

static bool is_ours(const struct box_model *b)
{
	return b->name[0] == 'b';
}

static bool do_mailbox(struct writer *x)
{
	struct box_model *b = &x->a->boxes[below(x, x->a->n)];
	char name[MODEL_NAME_MAX];

	snprintf(name, sizeof(name), "box%u-%u", x->a->number, ++x->names);
	x->w->counts.mailboxes++;
	if (!is_ours(b) || below(x, 3) == 0) {
		if (x->a->n >= BOXES_WANTED)
			return true;
		(void)op_begin(x, OP_CREATE, name, "");
		wire_send(&x->imap, "CREATE %s", name);
		return finish(x);
	}
	if (strcmp(b->name, x->selected) == 0) {
		if (wire_command(&x->imap, "UNSELECT") != WIRE_OK)
			return false;
		x->selected[0] = '\0';
	}
	if (below(x, 2)) {
		(void)op_begin(x, OP_RENAME, b->name, name);
		wire_send(&x->imap, "RENAME %s %s", b->name, name);
	} else {
		(void)op_begin(x, OP_DELETE, b->name, "");
		wire_send(&x->imap, "DELETE %s", b->name);
	}
	return finish(x);
}

/* Flags as they are told now; what another session changed is not known here, so any that it had.
 */
static void on_flags(void *arg, struct wire *i, str response)
{
	struct writer *x = arg;
	struct box_model *b = model_box(x->a, x->selected);
	struct wire_row r;

	if (b && wire_row(i, response, &r) && r.has_flags)
		model_seen_flags(x->w, x->a, b->uidvalidity, r.uid, r.flags);
}

static bool do_fetch(struct writer *x, struct box_model *b)
{
	x->w->counts.fetches++;
	x->imap.untagged = on_flags;
	x->imap.arg = x;
	return wire_command(&x->imap, "UID FETCH 1:* (UID FLAGS)") == WIRE_OK &&
	       wire_poll(&x->imap, b);
}

static void on_select(void *arg, struct wire *i, str response)
{
	uint32_t *uidvalidity = arg;

	(void)i;
	if (str_starts(response, S("OK [UIDVALIDITY ")))
		*uidvalidity = wire_number(response, "UIDVALIDITY ");
}

/* A mailbox that was just made shows its UIDVALIDITY for the first time. */
static void uidvalidity_take(struct writer *x, struct box_model *b, uint32_t told)
{
	if (b->uidvalidity ? b->uidvalidity != told : !world_uidvalidity_is_new(x->w, told))
		world_violation(x->w, "%s %s: UIDVALIDITY %u, was %u", x->a->address, b->name, told,
				b->uidvalidity);
	world_uidvalidity_note(x->w, told);
	b->uidvalidity = told;
}

static bool selected(struct writer *x, struct box_model *b)
{
	uint32_t uidvalidity = 0;

	if (strcmp(x->selected, b->name) == 0)
		return true;
	x->imap.untagged = on_select;
	x->imap.arg = &uidvalidity;
	x->selected[0] = '\0';
	switch (wire_command(&x->imap, "SELECT %s", b->name)) {
	case WIRE_OK:
		uidvalidity_take(x, b, uidvalidity);
		snprintf(x->selected, sizeof(x->selected), "%s", b->name);
		return true;
	case WIRE_NO:
		if (world_is_calm(x->w, loop_now(x->c->loop)))
			world_violation(x->w, "%s: SELECT %s was refused: %.*s", x->a->address,
					b->name, STR_ARGS(buf_str(&x->imap.response)));
		return false;
	default:
		return false;
	}
}

static bool one_command(struct writer *x)
{
	struct box_model *b = any_box(x);
	bool is_rich = b->n > ROWS_WANTED;
	unsigned what = below(x, 100);

	if (what < 8)
		return do_mailbox(x);
	if (what < (is_rich ? 10u : 34u))
		return do_append(x, b);
	if (!selected(x, b) || !wire_poll(&x->imap, b))
		return false;
	x->w->counts.operations++;
	if (!b->n || what < 40)
		return do_fetch(x, b);
	if (what < 60)
		return do_flags(x, b);
	if (what < (is_rich ? 62u : 70u))
		return do_copy(x, b, false);
	if (what < 80)
		return do_copy(x, b, true);
	return do_expunge(x, b);
}

/* One connection, to its end. */
static void work(struct writer *x)
{
	unsigned commands = 1 + below(x, COMMANDS_MAX);

	x->selected[0] = '\0';
	while (commands-- && !x->w->is_kind) {
		if (!one_command(x))
			return;
		if (below(x, 3) == 0)
			(void)client_sleep(x->c, below(x, 200));
	}
	(void)wire_command(&x->imap, "LOGOUT");
}

/* While all are kind there is little to see for who has looked; a session's process lingers longer.
 */
static unsigned pause_ms(struct writer *x)
{
	if (!x->w->is_kind)
		return below(x, 300);
	return x->w->audited & 1u << x->a->number ? 15000 : 1000;
}

void client_imap_run(struct client *c)
{
	struct writer x = { .c = c, .w = c->world, .a = &c->world->accounts[c->number] };
	bool is_sure = false;
	unsigned boots = 0;

	buf_init(&x.text, 4 * 1024 * 1024);
	do {
		if (x.a->pending.kind != OP_NONE && boots == x.w->boots)
			client_wait(c, WORLD_SETTLE_SECONDS * 1000);
		if (!wire_open(&x.imap, c, x.a))
			continue;
		boots = x.w->boots;
		is_sure = is_sure && x.a->pending.kind == OP_NONE && !x.w->is_kind && below(&x, 2);
		if (!is_sure)
			is_sure = wire_audit(&x.imap) && boots == x.w->boots;
		if (is_sure && !x.w->is_kind)
			work(&x);
		is_sure = is_sure && boots == x.w->boots;
		wire_close(&x.imap);
	} while (client_sleep(c, pause_ms(&x)));
	buf_free(&x.text);
}
