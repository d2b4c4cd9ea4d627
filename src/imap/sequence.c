/* Sequence sets (RFC 3501 9).
 *
 * Parsed once, then resolved against the mailbox into sorted ranges that do not touch, so that
 * whoever walks the mailbox walks the set beside it, and membership is a binary search. "5:3" means
 * 3:5, and "*:1" all messages: both are legal and used.
 */
#include "imap/sequence.h"

#include <stdlib.h>

static bool take_number(str *s, uint32_t *out)
{
	uint64_t v = 0;
	size_t i = 0;

	if (s->n && s->p[0] == '*') {
		*s = str_from(*s, 1);
		*out = IMAP_STAR;
		return true;
	}
	for (; i < s->n && ascii_is_digit(s->p[i]); i++) {
		v = v * 10 + (uint64_t)(s->p[i] - '0');
		if (v > UINT32_MAX)
			return false;
	}
	/* RFC 3501 9: nz-number begins with a digit that is not zero. */
	if (i == 0 || s->p[0] == '0')
		return false;
	*s = str_from(*s, i);
	*out = (uint32_t)v;
	return true;
}

static bool take_range(str *s, struct imap_range *out)
{
	if (!take_number(s, &out->first))
		return false;
	out->last = out->first;
	if (s->n && s->p[0] == ':') {
		*s = str_from(*s, 1);
		return take_number(s, &out->last);
	}
	return true;
}

enum err imap_set_parse(str s, struct arena *a, struct imap_set *out)
{
	size_t count = 1;

	for (size_t i = 0; i < s.n; i++)
		count += s.p[i] == ',';
	*out = (struct imap_set){ .ranges = arena_array(a, count, sizeof(struct imap_range)) };
	if (!out->ranges)
		return ERR_NO_MEMORY;
	for (;;) {
		if (!take_range(&s, &out->ranges[out->count++]))
			return ERR_SYNTAX;
		if (s.n == 0)
			return ERR_OK;
		if (s.p[0] != ',')
			return ERR_SYNTAX;
		s = str_from(s, 1);
	}
}

static int range_cmp(const void *a, const void *b)
{
	const struct imap_range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static bool range_resolve(struct imap_range *r, uint32_t max)
{
	bool has_star = r->first == IMAP_STAR || r->last == IMAP_STAR;
	uint32_t swap;

	if (has_star && max == 0)
		return false;
	r->first = r->first == IMAP_STAR ? max : r->first;
	r->last = r->last == IMAP_STAR ? max : r->last;
	if (r->first > r->last) {
		swap = r->first;
		r->first = r->last;
		r->last = swap;
	}
	return true;
}

void imap_set_resolve(struct imap_set *set, uint32_t max)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < set->count; i++)
		if (range_resolve(&set->ranges[i], max))
			set->ranges[n++] = set->ranges[i];
	if (n > 1)
		qsort(set->ranges, n, sizeof(*set->ranges), range_cmp);
	for (size_t i = 0; i < n; i++) {
		struct imap_range r = set->ranges[i], *last = kept ? &set->ranges[kept - 1] : NULL;

		if (last && (last->last == UINT32_MAX || r.first <= last->last + 1))
			last->last = MAX(last->last, r.last);
		else
			set->ranges[kept++] = r;
	}
	set->count = kept;
}

bool imap_set_has(const struct imap_set *set, uint32_t number)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set->ranges[mid].last < number)
			low = mid + 1;
		else
			high = mid;
	}
	return low < set->count && set->ranges[low].first <= number;
}

void imap_set_add(struct imap_set_builder *b, uint32_t first, uint32_t last)
{
	struct imap_range *tail = b->set.count ? &b->set.ranges[b->set.count - 1] : NULL, *more;

	if (tail && tail->last + 1 == first) {
		tail->last = last;
		return;
	}
	if (b->set.count == b->room) {
		size_t room = b->room ? b->room * 2 : 8;

		if (!(more = arena_array(b->arena, room, sizeof(*more)))) {
			b->failed = true;
			return;
		}
		if (b->set.count)
			memcpy(more, b->set.ranges, b->set.count * sizeof(*more));
		b->set.ranges = more;
		b->room = room;
	}
	b->set.ranges[b->set.count++] = (struct imap_range){ first, last };
}

void imap_set_write(const struct imap_set *set, struct buf *out)
{
	for (size_t i = 0; i < set->count; i++) {
		if (i)
			buf_add_char(out, ',');
		buf_add_u64(out, set->ranges[i].first);
		if (set->ranges[i].last != set->ranges[i].first) {
			buf_add_char(out, ':');
			buf_add_u64(out, set->ranges[i].last);
		}
	}
}
