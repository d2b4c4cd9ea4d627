/* Parameter continuations and charsets (RFC 2231).
 *
 * Joining happens in two steps: the parameters with a '*' in their name are split into name, index
 * and whether they are extended, and sorted by name and index; then each run of one name with all
 * its indexes from 0 becomes one parameter. A run with a gap stays apart, so nothing is lost. A
 * joined value of which some pieces are extended is extended as a whole: in the others '%' is
 * escaped. */
#include "text/rfc2231.h"

#include "text/charset.h"

#include <stdio.h>
#include <stdlib.h>

struct piece {
	str name, value;
	uint32_t index;
	size_t order; /* as written: qsort is not stable */
	bool extended;
};

/* Splits name*[digits][*]; false for names that are not of this form. */
static bool piece_of(const struct param *p, struct piece *out)
{
	size_t star = str_find_char(p->name, '*');
	str rest;
	uint64_t index = 0;

	if (star == STR_NONE)
		return false;
	*out = (struct piece){ .name = str_head(p->name, star), .value = p->value };
	rest = str_from(p->name, star + 1);
	if (rest.n == 0) {
		out->extended = true;
		return true;
	}
	while (rest.n && ascii_is_digit(rest.p[0])) {
		index = MIN(index * 10 + (uint64_t)(rest.p[0] - '0'), (uint64_t)UINT32_MAX);
		rest = str_from(rest, 1);
	}
	out->index = (uint32_t)index;
	out->extended = str_eq(rest, S("*"));
	return rest.n == 0 || out->extended;
}

static int piece_cmp(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	int order = str_case_cmp(x->name, y->name);

	if (order)
		return order;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

static str join(const struct piece *run, size_t count, bool extended, struct arena *a)
{
	size_t room = 2, at = 0;
	char *to;

	for (size_t i = 0; i < count; i++) {
		room += run[i].value.n;
		for (size_t k = 0; extended && k < run[i].value.n; k++)
			room += run[i].value.p[k] == '%' ? 2 : 0;
	}
	to = arena_alloc(a, room);
	if (!to)
		return STR_EMPTY;
	if (extended && !run[0].extended) {
		memcpy(to, "''", 2);
		at = 2;
	}
	for (size_t i = 0; i < count; i++) {
		str v = run[i].value;

		for (size_t k = 0; k < v.n; k++) {
			to[at++] = v.p[k];
			if (extended && !run[i].extended && v.p[k] == '%') {
				to[at++] = '2';
				to[at++] = '5';
			}
		}
	}
	return str_of(to, at);
}

/* Turns one run of equal names into parameters at *to. */
static enum err add_run(const struct piece *run, size_t count, struct param **to, struct arena *a)
{
	bool whole = true, extended = false;

	for (size_t i = 0; i < count; i++) {
		whole = whole && run[i].index == i;
		extended = extended || run[i].extended;
	}
	if (!whole) {
		for (size_t i = 0; i < count; i++, (*to)++) {
			**to = (struct param){ arena_printf(a, "%.*s*%u%s", STR_ARGS(run[i].name),
							    run[i].index,
							    run[i].extended ? "*" : ""),
					       run[i].value };
			if (!(*to)->name.p)
				return ERR_NO_MEMORY;
		}
		return ERR_OK;
	}
	**to = (struct param){ run[0].name, join(run, count, extended, a) };
	if (!(*to)->value.p)
		return ERR_NO_MEMORY;
	if (extended) {
		(*to)->name = arena_printf(a, "%.*s*", STR_ARGS(run[0].name));
		if (!(*to)->name.p)
			return ERR_NO_MEMORY;
	}
	(*to)++;
	return ERR_OK;
}

enum err rfc2231_join(struct param *params, size_t *count, struct arena *a)
{
	struct piece *pieces = NULL;
	struct param *to = params;
	size_t n = 0;
	enum err err;

	for (size_t i = 0; i < *count; i++) {
		struct piece p;

		if (!piece_of(&params[i], &p)) {
			*to++ = params[i];
			continue;
		}
		if (!pieces && !(pieces = arena_array(a, *count - i, sizeof(*pieces))))
			return ERR_NO_MEMORY;
		p.order = n;
		pieces[n++] = p;
	}
	if (n)
		qsort(pieces, n, sizeof(*pieces), piece_cmp);
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && str_case_eq(pieces[i].name, pieces[end].name); end++)
			;
		if ((err = add_run(pieces + i, end - i, &to, a)))
			return err;
	}
	*count = (size_t)(to - params);
	return ERR_OK;
}

void rfc2231_decode(str value, struct buf *out)
{
	str text = value, charset = str_cut(&text, '\'');
	struct buf bytes;

	if (charset.n == value.n) /* no charset at all: take it as UTF-8 */
		text = value, charset = STR_EMPTY;
	else
		(void)str_cut(&text, '\'');
	buf_init(&bytes, text.n + 1);
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if (c == '%' && i + 2 < text.n && ascii_hex_value(text.p[i + 1]) >= 0 &&
		    ascii_hex_value(text.p[i + 2]) >= 0) {
			c = (char)(ascii_hex_value(text.p[i + 1]) << 4 |
				   ascii_hex_value(text.p[i + 2]));
			i += 2;
		}
		buf_add_char(&bytes, c);
	}
	if (charset.n == 0 || charset_to_utf8(charset, buf_str(&bytes), out) == ERR_UNSUPPORTED)
		if (charset_to_utf8(S("utf-8"), buf_str(&bytes), out))
			out->failed = true;
	buf_free(&bytes);
}
