/* The language of SEARCH (RFC 3501 6.4.4 and 9: search-key).
 *
 * Strings are turned to UTF-8 and folded here, once for the command, so that an evaluation compares
 * bytes. The children of an AND are kept in order of cost: a message that the flags exclude is
 * never opened. Depth is bounded since the tree is walked recursively, on a fiber's stack.
 */
#include "imap/search_keys.h"

#include "store/types.h"
#include "text/charset.h"
#include "text/date.h"
#include "text/fold.h"
#include "text/utf8.h"

enum argument {
	ARGUMENT_none,
	ARGUMENT_text,
	ARGUMENT_date,
	ARGUMENT_size,
	ARGUMENT_keyword,
	ARGUMENT_set,
	ARGUMENT_header
};

static const struct {
	const char *name;
	enum imap_search_op op;
	enum argument argument;
	enum imap_search_cost cost;
} keys[] = {
#define SEARCH_KEY(name, op, argument, cost) \
	{ name, IMAP_SEARCH_##op, ARGUMENT_##argument, IMAP_COST_##cost },
#include "imap/search.def"
#undef SEARCH_KEY
};

struct reader {
	struct imap_parser *p;
	str charset; /* empty: US-ASCII, where 8-bit bytes are taken as UTF-8 */
	bool bad_charset;
	size_t count;
};

static enum err parse_key(struct reader *r, unsigned depth, struct imap_search_key **out);

static enum err fold_text(struct reader *r, str raw, str *out)
{
	struct buf utf8, folded;
	enum err err = ERR_OK;

	buf_init(&utf8, (size_t)IMAP_LINE_MAX * 4);
	buf_init(&folded, (size_t)IMAP_LINE_MAX * 12);
	if (r->charset.n == 0 || charset_to_utf8(r->charset, raw, &utf8))
		buf_add(&utf8, raw);
	fold_casemap(buf_str(&utf8), &folded);
	*out = arena_str(r->p->arena, buf_str(&folded));
	if (!out->p || buf_failed(&folded))
		err = ERR_NO_MEMORY;
	buf_free(&utf8);
	buf_free(&folded);
	return err;
}

static enum err parse_text(struct reader *r, str *out)
{
	enum err err;
	str raw;

	if ((err = imap_parse_space(r->p)))
		return err;
	if ((err = imap_parse_astring(r->p, &raw)))
		return err;
	return fold_text(r, raw, out);
}

static enum err parse_date(struct reader *r, int32_t *day)
{
	enum err err;
	str raw;

	if ((err = imap_parse_space(r->p)))
		return err;
	if ((err = imap_parse_astring(r->p, &raw)))
		return err;
	return date_parse_imap_day(raw, day) ? imap_parse_wrong(r->p, "Invalid date") : ERR_OK;
}

static enum err parse_keyword(struct reader *r, str *out)
{
	enum err err;

	if ((err = imap_parse_space(r->p)))
		return err;
	return imap_parse_atom(r->p, out);
}

static enum err parse_argument(struct reader *r, enum argument argument,
			       struct imap_search_key *key)
{
	enum err err;

	switch (argument) {
	case ARGUMENT_none:
		return ERR_OK;
	case ARGUMENT_text:
		return parse_text(r, &key->text);
	case ARGUMENT_date:
		return parse_date(r, &key->day);
	case ARGUMENT_size:
		if ((err = imap_parse_space(r->p)))
			return err;
		return imap_parse_number(r->p, UINT32_MAX, &key->size);
	case ARGUMENT_keyword:
		return parse_keyword(r, &key->name);
	case ARGUMENT_set:
		if ((err = imap_parse_space(r->p)))
			return err;
		return imap_parse_set(r->p, &key->set);
	case ARGUMENT_header:
		if ((err = imap_parse_space(r->p)))
			return err;
		if ((err = imap_parse_astring(r->p, &key->name)))
			return err;
		return parse_text(r, &key->text);
	}
	return ERR_OK;
}

/* Adds a child, cheaper ones first, otherwise in their order. */
static void add_child(struct imap_search_key *parent, struct imap_search_key *child)
{
	struct imap_search_key **at = &parent->children;

	while (*at && (*at)->cost <= child->cost)
		at = &(*at)->next;
	child->next = *at;
	*at = child;
	parent->cost = MAX(parent->cost, child->cost);
}

static enum err parse_children(struct reader *r, struct imap_search_key *parent, unsigned depth,
			       size_t count)
{
	struct imap_search_key *child;
	enum err err;

	for (size_t i = 0; i < count; i++) {
		if ((err = imap_parse_space(r->p)))
			return err;
		if ((err = parse_key(r, depth, &child)))
			return err;
		add_child(parent, child);
	}
	return ERR_OK;
}

static enum err parse_list(struct reader *r, struct imap_search_key *parent, unsigned depth)
{
	struct imap_search_key *child;
	enum err err;

	parent->op = IMAP_SEARCH_AND;
	do {
		if ((err = parse_key(r, depth, &child)))
			return err;
		add_child(parent, child);
	} while (imap_parse_more(r->p));
	return ERR_OK;
}

static enum err parse_named(struct reader *r, struct imap_search_key *key, unsigned depth)
{
	str word = imap_parse_word(r->p);

	if (str_case_eq(word, S("NOT"))) {
		key->op = IMAP_SEARCH_NOT;
		return parse_children(r, key, depth, 1);
	}
	if (str_case_eq(word, S("OR"))) {
		key->op = IMAP_SEARCH_OR;
		return parse_children(r, key, depth, 2);
	}
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (str_case_eq(word, str_from_c(keys[i].name))) {
			key->op = keys[i].op;
			key->cost = keys[i].cost;
			return parse_argument(r, keys[i].argument, key);
		}
	}
	return imap_parse_wrong(r->p, "Unknown SEARCH key");
}

static enum err parse_key(struct reader *r, unsigned depth, struct imap_search_key **out)
{
	struct imap_parser *p = r->p;
	struct imap_search_key *key;
	enum err err;

	if (depth == IMAP_SEARCH_DEPTH_MAX)
		return imap_parse_wrong(p, "SEARCH is nested too deeply");
	if (r->count++ == IMAP_SEARCH_KEYS_MAX)
		return imap_parse_wrong(p, "Too many SEARCH keys");
	if (!(*out = key = ARENA_NEW(p->arena, struct imap_search_key)))
		return ERR_NO_MEMORY;
	if (imap_parse_take(p, '(')) {
		if ((err = parse_list(r, key, depth + 1)))
			return err;
		return imap_parse_take(p, ')') ? ERR_OK : imap_parse_wrong(p, "Missing ')'");
	}
	if (p->rest.n && (ascii_is_digit(p->rest.p[0]) || p->rest.p[0] == '*')) {
		key->op = IMAP_SEARCH_SEQUENCE;
		return imap_parse_set(p, &key->set);
	}
	return parse_named(r, key, depth + 1);
}

/* RFC 3501 9: search = "SEARCH" [SP "CHARSET" SP astring] 1*(SP search-key) */
static enum err parse_charset(struct reader *r)
{
	enum err err;

	if (!str_case_starts(r->p->rest, S("CHARSET ")))
		return ERR_OK;
	r->p->rest = str_from(r->p->rest, 8);
	if ((err = imap_parse_astring(r->p, &r->charset)))
		return err;
	r->bad_charset = !charset_is_known(r->charset);
	return imap_parse_space(r->p);
}

enum err imap_parse_search(struct imap_parser *p, struct imap_search *out)
{
	struct reader r = { .p = p };
	enum err err;

	*out = (struct imap_search){ .root = ARENA_NEW(p->arena, struct imap_search_key) };
	if (!out->root)
		return ERR_NO_MEMORY;
	if ((err = parse_charset(&r)))
		return err;
	err = parse_list(&r, out->root, 0);
	out->bad_charset = r.bad_charset;
	return err;
}

void imap_search_resolve(struct imap_search_key *key, uint32_t exists, uint32_t max_uid)
{
	/* A number that no message has matches none: who searches need not know how many there are.
	 */
	if (key->op == IMAP_SEARCH_SEQUENCE)
		imap_set_resolve(&key->set, exists);
	if (key->op == IMAP_SEARCH_uid)
		imap_set_resolve(&key->set, max_uid);
	for (struct imap_search_key *child = key->children; child; child = child->next)
		imap_search_resolve(child, exists, max_uid);
}
