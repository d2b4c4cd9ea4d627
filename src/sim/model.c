/* The model of an account, and its comparison with what was seen.
 *
 * A look at the account must be explained by one of two states: the model, or the model after the
 * one command whose answer never came. Nothing in between: a command is one commit. What else may
 * appear are deliveries to the INBOX, and the ledger says which. So "happened whole", "not at all",
 * "stays so" and "nobody's UID is given twice" are one comparison, and there is no list of special
 * cases that could forgive a fault.
 */
#include "sim/model.h"

#include "sim/world.h"

#include <stdio.h>
#include <stdlib.h>

struct box_model *model_box(struct account_model *a, const char *name)
{
	for (unsigned i = 0; i < a->n; i++)
		if (strcmp(a->boxes[i].name, name) == 0)
			return &a->boxes[i];
	return NULL;
}

static struct box_model *box_of_uidvalidity(struct account_model *a, uint32_t uidvalidity)
{
	for (unsigned i = 0; i < a->n; i++)
		if (uidvalidity && a->boxes[i].uidvalidity == uidvalidity)
			return &a->boxes[i];
	return NULL;
}

struct row_model *model_row(struct box_model *b, uint32_t uid)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->rows[i].uid == uid)
			return &b->rows[i];
	return NULL;
}

/* A program of tests: without memory it ends. */
static void *grown(void *p, size_t n, size_t *room, size_t size)
{
	if (n < *room)
		return p;
	*room = *room ? *room * 2 : 16;
	p = realloc(p, *room * size);
	if (!p)
		panic("sim: no memory");
	return p;
}

struct row_model *model_row_add(struct box_model *b, uint32_t uid, uint64_t token, uint8_t flags)
{
	size_t at = b->n;

	b->rows = grown(b->rows, b->n, &b->room, sizeof(*b->rows));
	while (uid && at > 0 && (b->rows[at - 1].uid == 0 || b->rows[at - 1].uid > uid))
		at--;
	memmove(b->rows + at + 1, b->rows + at, (b->n - at) * sizeof(*b->rows));
	b->rows[at] = (struct row_model){
		.uid = uid, .flags = flags, .had = 1u << flags, .token = token
	};
	b->n++;
	return &b->rows[at];
}

static bool is_gone(const struct box_model *b, uint32_t uid)
{
	for (size_t i = 0; i < b->gone_n; i++)
		if (b->gone[i] == uid)
			return true;
	return false;
}

static void row_remove(struct box_model *b, uint32_t uid)
{
	struct row_model *r = model_row(b, uid);

	if (!r)
		return;
	if (uid) {
		b->gone = grown(b->gone, b->gone_n, &b->gone_room, sizeof(*b->gone));
		b->gone[b->gone_n++] = uid;
	}
	memmove(r, r + 1, (size_t)(b->rows + b->n - (r + 1)) * sizeof(*r));
	b->n--;
}

struct box_model *model_box_add(struct account_model *a, const char *name)
{
	struct box_model *b;

	if (a->n == MODEL_BOXES_MAX)
		panic("sim: too many mailboxes in the model");
	b = &a->boxes[a->n++];
	*b = (struct box_model){ .uidnext = 1 };
	snprintf(b->name, sizeof(b->name), "%s", name);
	return b;
}

static void box_free(struct box_model *b)
{
	free(b->rows);
	free(b->gone);
	*b = (struct box_model){ .n = 0 };
}

static void box_remove(struct account_model *a, struct box_model *b)
{
	box_free(b);
	memmove(b, b + 1, (size_t)(a->boxes + a->n - (b + 1)) * sizeof(*b));
	a->n--;
}

void model_free(struct account_model *a)
{
	for (unsigned i = 0; i < a->n; i++)
		box_free(&a->boxes[i]);
	a->n = 0;
}

void model_copy(struct account_model *to, const struct account_model *from)
{
	to->n = from->n;
	for (unsigned i = 0; i < from->n; i++) {
		const struct box_model *b = &from->boxes[i];
		struct box_model *copy = &to->boxes[i];

		*copy = *b;
		copy->rows = NULL;
		copy->gone = NULL;
		copy->n = copy->room = copy->gone_n = copy->gone_room = 0;
		for (size_t r = 0; r < b->n; r++)
			*model_row_add(copy, b->rows[r].uid, 0, 0) = b->rows[r];
		for (size_t g = 0; g < b->gone_n; g++) {
			copy->gone = grown(copy->gone, copy->gone_n, &copy->gone_room,
					   sizeof(*copy->gone));
			copy->gone[copy->gone_n++] = b->gone[g];
		}
	}
}

uint8_t model_flags(const struct op *op, uint8_t before)
{
	if (op->sign == '+')
		return before | op->flags;
	if (op->sign == '-')
		return (uint8_t)(before & ~op->flags);
	return op->flags;
}

static void rows_apply(struct account_model *a, const struct op *op)
{
	struct box_model *from = model_box(a, op->box), *to = model_box(a, op->target);

	for (unsigned i = 0; i < op->n; i++) {
		struct row_model *r = from ? model_row(from, op->uids[i]) : NULL;
		uint8_t flags = r ? r->flags : op->flags;

		if (op->kind == OP_FLAGS && r) {
			r->flags = model_flags(op, r->flags);
			r->had |= 1u << r->flags;
		}
		if (op->kind == OP_EXPUNGE || op->kind == OP_MOVE)
			row_remove(from, op->uids[i]);
		if (to && (op->kind == OP_APPEND || op->kind == OP_COPY || op->kind == OP_MOVE))
			model_row_add(to, op->made[i], op->tokens[i], flags);
	}
}

void model_apply(struct account_model *a, const struct op *op)
{
	struct box_model *b = model_box(a, op->box);

	switch (op->kind) {
	case OP_CREATE:
		model_box_add(a, op->box);
		break;
	case OP_DELETE:
		if (b)
			box_remove(a, b);
		break;
	case OP_RENAME:
		if (b)
			memcpy(b->name, op->target, sizeof(b->name));
		break;
	default:
		rows_apply(a, op);
	}
}

/* One mailbox. An unknown UID of the candidate takes the first new row of its name. */
static bool box_explains(struct world *w, struct account_model *cand, struct box_model *c,
			 const struct box_model *seen, char *why, size_t size)
{
	if (c->uidvalidity ? c->uidvalidity != seen->uidvalidity
			   : !world_uidvalidity_is_new(w, seen->uidvalidity)) {
		snprintf(why, size, "%s: UIDVALIDITY was %u, is %u", c->name, c->uidvalidity,
			 seen->uidvalidity);
		return false;
	}
	if (seen->uidnext < c->uidnext) {
		snprintf(why, size, "%s: UIDNEXT was %u, is %u", c->name, c->uidnext,
			 seen->uidnext);
		return false;
	}
	for (size_t i = 0; i < seen->n; i++) {
		const struct row_model *s = &seen->rows[i];
		struct row_model *r = model_row(c, s->uid);
		const char *reason = NULL;

		for (size_t k = 0; !r && k < c->n; k++)
			if (c->rows[k].uid == 0 && c->rows[k].token == s->token &&
			    c->rows[k].flags == s->flags && s->uid >= c->uidnext) {
				r = &c->rows[k];
				r->uid = s->uid;
			}
		if (r &&
		    (r->token != s->token || (r->flags != s->flags && r->since <= seen->looked_at)))
			reason = "it is another message, or has other flags";
		else if (!r && (s->uid < c->uidnext || is_gone(c, s->uid)))
			reason = "that UID was given before";
		else if (!r && strcmp(c->name, "INBOX") != 0)
			reason = "nobody put it there";
		else if (!r)
			reason = world_delivery(w, cand, s->token, false);
		if (reason) {
			snprintf(why, size, "%s: UID %u %c%llu flags %u (was %c%llu flags %u): %s",
				 c->name, s->uid, TOKEN_KIND(s->token),
				 (unsigned long long)TOKEN_ID(s->token), s->flags,
				 r ? TOKEN_KIND(r->token) : '-',
				 r ? (unsigned long long)TOKEN_ID(r->token) : 0, r ? r->flags : 0,
				 reason);
			return false;
		}
	}
	return true;
}

/* Everything of the candidate must have been seen, but for what came while we looked. */
static bool rows_present(const struct box_model *c, struct box_model *seen, char *why, size_t size)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct row_model *r = &c->rows[i];

		if ((r->uid && model_row(seen, r->uid)) || (r->uid && r->since > seen->looked_at))
			continue;
		snprintf(why, size, "%s: UID %u %c%llu is gone", c->name, r->uid,
			 TOKEN_KIND(r->token), (unsigned long long)TOKEN_ID(r->token));
		return false;
	}
	return true;
}

static bool explains(struct world *w, struct account_model *cand, struct account_model *seen,
		     char *why, size_t size)
{
	for (unsigned i = 0; i < cand->n; i++) {
		struct box_model *s = model_box(seen, cand->boxes[i].name);

		if (!s) {
			snprintf(why, size, "mailbox %s is gone", cand->boxes[i].name);
			return false;
		}
		if (!box_explains(w, cand, &cand->boxes[i], s, why, size) ||
		    !rows_present(&cand->boxes[i], s, why, size))
			return false;
	}
	for (unsigned i = 0; i < seen->n; i++)
		if (!model_box(cand, seen->boxes[i].name)) {
			snprintf(why, size, "nobody made mailbox %s", seen->boxes[i].name);
			return false;
		}
	return true;
}

/* What was seen is the model from now on; what only the model knows is kept: which flags a row had,
 * and what another client saw after we looked. */
static void adopt(struct world *w, struct account_model *a, struct account_model *cand,
		  struct account_model *seen)
{
	for (unsigned i = 0; i < seen->n; i++) {
		struct box_model *s = &seen->boxes[i], *c = model_box(cand, s->name);

		world_uidvalidity_note(w, s->uidvalidity);
		for (size_t k = 0; k < s->n; k++) {
			struct row_model *r = model_row(c, s->rows[k].uid);
			const char *reason;

			if (r) {
				s->rows[k].had |= r->had;
				s->rows[k].since = r->since;
				/* Its flags changed while we looked. */
				if (r->since > s->looked_at)
					s->rows[k].flags = r->flags;
				continue;
			}
			reason = world_delivery(w, a, s->rows[k].token, true);
			if (reason)
				world_violation(w, "%s %s UID %u: %s", a->address, s->name,
						s->rows[k].uid, reason);
		}
		for (size_t k = 0; k < c->n; k++)
			if (!model_row(s, c->rows[k].uid))
				*model_row_add(s, c->rows[k].uid, 0, 0) = c->rows[k];
		for (size_t k = 0; k < c->gone_n; k++)
			if (c->gone[k] >= s->uidnext) {
				s->gone =
					grown(s->gone, s->gone_n, &s->gone_room, sizeof(*s->gone));
				s->gone[s->gone_n++] = c->gone[k];
			}
	}
	model_free(a);
	memcpy(a->boxes, seen->boxes, sizeof(a->boxes));
	a->n = seen->n;
	seen->n = 0;
	a->is_known = true;
}

bool model_reconcile(struct world *w, struct account_model *a, struct account_model *seen)
{
	struct account_model *cand = calloc(1, sizeof(*cand));
	char without[240] = "somebody saw that it happened", with[240] = "there was none";
	bool done = false, good = false;

	if (!cand)
		panic("sim: no memory");
	for (unsigned i = 0; !a->is_known && i < seen->n; i++)
		if (!model_box(a, seen->boxes[i].name))
			model_box_add(a, seen->boxes[i].name);
	for (int happened = 0; happened < 2 && !good; happened++) {
		if (happened ? a->pending.kind == OP_NONE : a->pending.must)
			continue;
		model_free(cand);
		model_copy(cand, a);
		cand->number = a->number;
		if (happened)
			model_apply(cand, &a->pending);
		good = explains(w, cand, seen, happened ? with : without, sizeof(with));
		done = good && happened;
	}
	if (!good)
		world_violation(w,
				"%s: what is there is not what was acknowledged: %s; with the "
				"command that had no answer (%d): %s",
				a->address, without, (int)a->pending.kind, with);
	else
		adopt(w, a, cand, seen);
	w->counts.unknown += a->pending.kind != OP_NONE;
	w->counts.unknown_done += done;
	a->pending = (struct op){ .kind = OP_NONE };
	model_free(cand);
	free(cand);
	return good;
}

void model_seen_row(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid,
		    uint64_t token, uint8_t flags)
{
	struct box_model *b = box_of_uidvalidity(a, uidvalidity);
	struct row_model *r = b ? model_row(b, uid) : NULL;
	struct op *op = &a->pending;
	const char *reason;

	if (!b)
		return;
	if (r) {
		if (r->token != token)
			world_violation(w, "%s %s UID %u was %c%llu, is now %c%llu", a->address,
					b->name, uid, TOKEN_KIND(r->token),
					(unsigned long long)TOKEN_ID(r->token), TOKEN_KIND(token),
					(unsigned long long)TOKEN_ID(token));
		model_seen_flags(w, a, uidvalidity, uid, flags);
		return;
	}
	if (is_gone(b, uid) || uid < b->uidnext)
		return; /* expunged while the answer was on its way */
	if ((op->kind == OP_APPEND || op->kind == OP_COPY || op->kind == OP_MOVE) &&
	    strcmp(op->target, b->name) == 0) {
		for (unsigned i = 0; i < op->n; i++)
			if (op->tokens[i] == token && (!op->made[i] || op->made[i] == uid)) {
				op->made[i] = uid;
				op->must = true;
				return;
			}
	}
	reason = strcmp(b->name, "INBOX") == 0 ? world_delivery(w, a, token, true)
					       : "nobody put it there";
	if (reason)
		world_violation(w, "%s %s UID %u: %s", a->address, b->name, uid, reason);
	model_row_add(b, uid, token, flags)->since = os_monotonic_ns();
}

void model_seen_flags(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid,
		      uint8_t flags)
{
	struct box_model *b = box_of_uidvalidity(a, uidvalidity);
	struct row_model *r = b ? model_row(b, uid) : NULL;
	struct op *op = &a->pending;

	if (!r || (r->had & 1u << flags))
		return;
	for (unsigned i = 0; op->kind == OP_FLAGS && i < op->n; i++)
		if (strcmp(op->box, b->name) == 0 && op->uids[i] == uid &&
		    model_flags(op, r->flags) == flags) {
			op->must = true;
			return;
		}
	world_violation(w, "%s %s UID %u is seen with flags %u that nobody set (it has %u)",
			a->address, b->name, uid, flags, r->flags);
}

void model_seen_gone(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid)
{
	struct box_model *b = box_of_uidvalidity(a, uidvalidity);
	struct op *op = &a->pending;

	if (!b || !model_row(b, uid))
		return;
	if (strcmp(op->box, b->name) == 0 && op->kind == OP_DELETE) {
		op->must = true;
		return;
	}
	for (unsigned i = 0; (op->kind == OP_EXPUNGE || op->kind == OP_MOVE) && i < op->n; i++)
		if (strcmp(op->box, b->name) == 0 && op->uids[i] == uid) {
			op->must = true;
			return;
		}
	world_violation(w, "%s %s UID %u is seen to go, and nobody expunged it", a->address,
			b->name, uid);
}
