/* One connection's numbering of a mailbox; see view.h and view.c for the invariant.
 *
 * The news of a connection is computed from the log of changes since it was last told. RFC
 * 3501 7.4.1 forbids EXPUNGE during FETCH, STORE and SEARCH: then the expunged rows are remembered
 * (untold), their numbers go on to mean what the client thinks, and the next command that allows it
 * tells them. Expunges are told from the highest number down, so that none changes the meaning of
 * the next.
 */
#include "imap/view.h"

#include <assert.h>
#include <stdlib.h>

static uint64_t last_change(const struct imap_view *v)
{
	return v->first_change + v->change_count;
}

size_t imap_selected_index(const struct imap_selected *s, uint32_t seq)
{
	assert(seq >= 1 && seq <= s->exists);
	return s->map ? s->map[seq - 1] : seq - 1;
}

uint32_t imap_selected_find(const struct imap_selected *s, uint32_t uid)
{
	uint32_t low = 1, high = s->exists + 1;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (imap_selected_row(s, mid)->uid < uid)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

uint32_t imap_selected_max_uid(const struct imap_selected *s)
{
	return s->exists ? imap_selected_row(s, s->exists)->uid : 0;
}

/* ---- \Recent (RFC 3501 2.3.2) ---- */

bool imap_selected_is_recent(const struct imap_selected *s, uint32_t uid)
{
	for (size_t i = 0; i < s->recent_count; i++)
		if (uid >= s->recent[i].first && uid <= s->recent[i].last)
			return true;
	return false;
}

uint32_t imap_selected_recent(const struct imap_selected *s)
{
	uint32_t n = 0;

	for (size_t i = 0; i < s->recent_count; i++) {
		uint32_t end = s->recent[i].last == UINT32_MAX
				       ? s->exists + 1
				       : imap_selected_find(s, s->recent[i].last + 1);

		n += end - imap_selected_find(s, s->recent[i].first);
	}
	return n;
}

/* Messages from view->recent_from on are new to everybody: this connection, if it may write, is the
 * one that sees them as recent. */
static void take_recent(struct imap_selected *s)
{
	struct imap_view *v = s->view;
	uint32_t last = imap_selected_max_uid(s), first = v->recent_from;
	struct imap_range *tail = s->recent_count ? &s->recent[s->recent_count - 1] : NULL;

	if (last < first || last == 0)
		return;
	if (tail && (tail->last + 1 >= first || s->recent_count == IMAP_RECENT_RANGES_MAX))
		tail->last = last;
	else
		s->recent[s->recent_count++] = (struct imap_range){ MAX(first, 1u), last };
	/* An EXAMINE takes nothing away from the others. */
	if (!s->is_read_only)
		v->recent_from = last + 1;
}

/* ---- begin, resume, end ---- */

static void attach(struct imap_selected *s, struct imap_view *v, bool read_only)
{
	*s = (struct imap_selected){ .view = v,
				     .next = v->first_selected,
				     .is_read_only = read_only };
	v->first_selected = s;
	s->change = last_change(v);
	s->modseq = v->modseq;
}

/* Maps rows [0, known) that are there, or of which `gone` says that the client does not know it
 * yet. */
static enum err map_rows(struct imap_selected *s, size_t known, const struct imap_set *gone)
{
	const struct imap_view *v = s->view;

	s->known = known;
	s->exists = (uint32_t)known;
	if (v->gone == 0)
		return ERR_OK;
	s->map = malloc(MAX(known, (size_t)1) * sizeof(*s->map));
	if (!s->map)
		return ERR_NO_MEMORY;
	s->exists = 0;
	for (size_t i = 0; i < known; i++)
		if (!v->rows[i].is_gone || imap_set_has(gone, v->rows[i].uid))
			s->map[s->exists++] = (uint32_t)i;
	return ERR_OK;
}

enum err imap_selected_begin(struct imap_selected *s, struct imap_view *v, bool read_only)
{
	static const struct imap_set none;
	enum err err;

	imap_view_compact(v);
	attach(s, v, read_only);
	if ((err = map_rows(s, v->count, &none))) {
		imap_selected_end(s);
		return err;
	}
	take_recent(s);
	return ERR_OK;
}

enum err imap_selected_resume(struct imap_selected *s, struct imap_view *v, bool read_only,
			      uint32_t uidnext, uint64_t modseq, uint32_t exists,
			      const struct imap_set *gone)
{
	enum err err;

	attach(s, v, read_only);
	s->modseq = modseq;
	s->is_behind = true;
	err = map_rows(s, imap_view_find(v, uidnext), gone);
	if (!err && s->exists != exists)
		err = ERR_STALE;
	if (err)
		imap_selected_end(s);
	return err;
}

void imap_selected_end(struct imap_selected *s)
{
	struct imap_selected **at;

	if (!s->view)
		return;
	for (at = &s->view->first_selected; *at != s; at = &(*at)->next)
		assert(*at);
	*at = s->next;
	free(s->map);
	free(s->untold);
	*s = (struct imap_selected){ 0 };
}

/* ---- sets ---- */

enum err imap_selected_set(const struct imap_selected *s, const struct imap_set *set, bool is_uid,
			   struct arena *a, struct imap_set *out)
{
	size_t kept = 0;

	*out = (struct imap_set){ .ranges = arena_array(a, set->count, sizeof(*out->ranges)),
				  .count = set->count };
	if (!out->ranges)
		return ERR_NO_MEMORY;
	if (set->count)
		memcpy(out->ranges, set->ranges, set->count * sizeof(*out->ranges));
	imap_set_resolve(out, is_uid ? imap_selected_max_uid(s) : s->exists);
	if (!is_uid)
		return out->count && out->ranges[out->count - 1].last > s->exists ? ERR_RANGE
										  : ERR_OK;
	for (size_t i = 0; i < out->count; i++) {
		uint32_t first = imap_selected_find(s, out->ranges[i].first);
		uint32_t end = out->ranges[i].last == UINT32_MAX
				       ? s->exists + 1
				       : imap_selected_find(s, out->ranges[i].last + 1);

		if (first < end)
			out->ranges[kept++] = (struct imap_range){ first, end - 1 };
	}
	out->count = kept;
	return ERR_OK;
}

/* ---- news ---- */

bool imap_selected_has_news(const struct imap_selected *s)
{
	return s->change != last_change(s->view) || s->is_behind || s->untold_count ||
	       s->known != s->view->count;
}

static bool untold_add(struct imap_selected *s, uint32_t index)
{
	uint32_t *more;

	if (s->untold_count == s->untold_size) {
		size_t size = s->untold_size ? s->untold_size * 2 : 16;

		if (!(more = realloc(s->untold, size * sizeof(*more))))
			return false;
		s->untold = more;
		s->untold_size = size;
	}
	s->untold[s->untold_count++] = index;
	return true;
}

/* The sequence number of a row, 0 when the client does not see it. */
static uint32_t number_of(const struct imap_selected *s, uint32_t index)
{
	uint32_t low = 0, high = s->exists;

	if (!s->map)
		return index < s->exists ? index + 1 : 0;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (s->map[mid] < index)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->exists && s->map[low] == index ? low + 1 : 0;
}

struct collector {
	struct imap_selected *s;
	uint32_t *flags; /* row indexes whose flags are to be told */
	size_t count, size;
	uint64_t own;
	struct arena *arena;
};

static enum err flags_add(struct collector *c, uint32_t index)
{
	uint32_t *more;

	if (c->count == c->size) {
		c->size = c->size ? c->size * 2 : 32;
		if (!(more = arena_array(c->arena, c->size, sizeof(*more))))
			return ERR_NO_MEMORY;
		if (c->count)
			memcpy(more, c->flags, c->count * sizeof(*more));
		c->flags = more;
	}
	c->flags[c->count++] = index;
	return ERR_OK;
}

static enum err consider(struct collector *c, uint32_t index)
{
	const struct imap_row *row = &c->s->view->rows[index];

	if (index >= c->s->known || !number_of(c->s, index))
		return ERR_OK;
	if (row->is_gone)
		return untold_add(c->s, index) ? ERR_OK : ERR_NO_MEMORY;
	if (c->own && row->modseq == c->own)
		return ERR_OK;
	return flags_add(c, index);
}

/* All rows, for a connection that the log does not reach. */
static enum err collect_all(struct collector *c)
{
	struct imap_selected *s = c->s;
	enum err err = ERR_OK;

	s->untold_count = 0;
	for (uint32_t i = 0; i < s->known && !err; i++)
		if (s->view->rows[i].is_gone || s->view->rows[i].modseq > s->modseq)
			err = consider(c, i);
	s->is_behind = err != ERR_OK;
	return err;
}

static enum err collect_log(struct collector *c)
{
	struct imap_view *v = c->s->view;
	enum err err = ERR_OK;

	for (uint64_t n = c->s->change + 1; n <= last_change(v) && !err; n++) {
		uint32_t index = v->changes[n - v->first_change - 1];

		if (v->rows[index].change == n)
			err = consider(c, index);
	}
	return err;
}

static int index_cmp_down(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x < y) - (x > y);
}

/* Tells the expunges and closes the gaps they leave in the numbering. */
static enum err tell_expunges(struct imap_selected *s, struct arena *a, struct imap_news *out)
{
	uint32_t kept, from;

	if (s->untold_count == 0)
		return ERR_OK;
	if (!(out->expunged = arena_array(a, s->untold_count, sizeof(uint32_t))))
		return ERR_NO_MEMORY;
	if (!s->map) {
		if (!(s->map = malloc(MAX(s->exists, 1u) * sizeof(*s->map))))
			return ERR_NO_MEMORY;
		for (uint32_t i = 0; i < s->exists; i++)
			s->map[i] = i;
	}
	qsort(s->untold, s->untold_count, sizeof(*s->untold), index_cmp_down);
	for (size_t i = 0; i < s->untold_count; i++) {
		uint32_t seq = number_of(s, s->untold[i]);

		if (seq && !(out->expunged_count && out->expunged[out->expunged_count - 1] == seq))
			out->expunged[out->expunged_count++] = seq;
	}
	if (out->expunged_count) {
		kept = from = out->expunged[out->expunged_count - 1] - 1;
		for (; from < s->exists; from++)
			if (!s->view->rows[s->map[from]].is_gone)
				s->map[kept++] = s->map[from];
		s->exists = kept;
	}
	s->untold_count = 0;
	return ERR_OK;
}

/* Rows behind `known`: those that are gone already were never seen. */
static enum err add_new_rows(struct imap_selected *s, struct imap_news *out)
{
	struct imap_view *v = s->view;
	uint32_t before = s->exists, *map;
	bool has_gone = false;

	if (s->known == v->count)
		return ERR_OK;
	for (size_t i = s->known; i < v->count; i++)
		has_gone |= v->rows[i].is_gone;
	if (s->map || has_gone) {
		map = realloc(s->map, (s->exists + (v->count - s->known)) * sizeof(*map));
		if (!map)
			return ERR_NO_MEMORY;
		for (uint32_t i = 0; !s->map && i < s->exists; i++)
			map[i] = i;
		s->map = map;
		for (size_t i = s->known; i < v->count; i++)
			if (!v->rows[i].is_gone)
				map[s->exists++] = (uint32_t)i;
	} else {
		s->exists = (uint32_t)v->count;
	}
	s->known = v->count;
	if (s->exists != before) {
		out->has_exists = true;
		take_recent(s);
	}
	return ERR_OK;
}

enum err imap_selected_news(struct imap_selected *s, bool may_expunge, uint64_t own,
			    struct arena *a, struct imap_news *out)
{
	struct collector c = { .s = s, .own = own, .arena = a };
	enum err err;

	*out = (struct imap_news){ 0 };
	if (!imap_selected_has_news(s))
		return ERR_OK;
	if (s->is_behind || s->change < s->view->first_change)
		err = collect_all(&c);
	else
		err = collect_log(&c);
	if (err) {
		s->is_behind = true;
		return err;
	}
	s->change = last_change(s->view);
	s->modseq = MAX(s->modseq, s->view->modseq);
	if (may_expunge && (err = tell_expunges(s, a, out)))
		return err;
	if ((err = add_new_rows(s, out)))
		return err;
	out->flags = c.flags;
	for (size_t i = 0; i < c.count; i++) {
		uint32_t seq = number_of(s, c.flags[i]);

		if (seq)
			out->flags[out->flags_count++] = seq;
	}
	imap_view_compact(s->view);
	return ERR_OK;
}
