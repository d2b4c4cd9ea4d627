/* The rows of a mailbox and the numbering of each connection (RFC 3501 2.3.1, 7.4.1).
 *
 * One array of rows is shared by all connections of an account, so that selecting a mailbox of
 * 100,000 messages again costs nothing, and a connection is a few words. What differs between
 * connections is which expunges each was told of. As long as nothing was expunged, a sequence
 * number is an index plus one and no connection has a table; the first expunge that is told to a
 * connection gives it one of 4 bytes a message.
 *
 * Changes are logged as row indexes; a connection remembers up to which number it has looked. Only
 * the last change of a row counts, so one that changed ten times is told once. The log is bounded:
 * a connection that fell behind (is_behind) compares every row's MODSEQ with the last one it was
 * told.
 *
 * Invariant: for each connection, map[0..exists) is strictly rising, every index is below `known`,
 * and a row that it maps is dropped from the map only by imap_selected_news with may_expunge. An
 * immutable copy of the array per change (as some servers keep) was turned down: an expunge would
 * copy megabytes.
 */
#include "imap/view.h"

#include "store/types.h"

#include <assert.h>
#include <stdlib.h>

struct imap_view *imap_view_new(uint32_t mailbox)
{
	struct imap_view *v = calloc(1, sizeof(*v));

	if (v)
		v->mailbox = mailbox;
	return v;
}

static void located_free(struct imap_view *v, struct imap_located *l)
{
	v->located_bytes -= l->prefix_size + l->subject_size;
	free(l->prefix);
	free(l->subject);
	*l = (struct imap_located){ 0 };
}

void imap_view_forget_located(struct imap_view *v)
{
	for (size_t i = 0; v->located && i < v->count; i++)
		located_free(v, &v->located[i]);
	free(v->located);
	v->located = NULL;
}

void imap_view_free(struct imap_view *v)
{
	if (!v)
		return;
	assert(!v->first_selected);
	imap_view_forget_located(v);
	free(v->rows);
	free(v->changes);
	free(v);
}

enum err imap_view_locate(struct imap_view *v)
{
	if (!v->located)
		v->located = calloc(MAX(v->size, (size_t)1), sizeof(*v->located));
	return v->located ? ERR_OK : ERR_NO_MEMORY;
}

size_t imap_view_find(const struct imap_view *v, uint32_t uid)
{
	size_t low = 0, high = v->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (v->rows[mid].uid < uid)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static uint64_t last_change(const struct imap_view *v)
{
	return v->first_change + v->change_count;
}

static void log_change(struct imap_view *v, size_t index)
{
	if (!v->changes)
		v->changes = calloc(IMAP_CHANGES_MAX, sizeof(*v->changes));
	if (v->change_count == IMAP_CHANGES_MAX || !v->changes) {
		v->first_change += v->change_count;
		v->change_count = 0;
	}
	if (v->changes)
		v->changes[v->change_count++] = (uint32_t)index;
	else
		v->first_change++;
	v->rows[index].change = last_change(v);
}

static enum err grow(struct imap_view *v, size_t need)
{
	size_t size = v->size ? v->size : 64;
	struct imap_row *rows;
	struct imap_located *located;

	if (need <= v->size)
		return ERR_OK;
	while (size < need)
		size *= 2;
	if (!(rows = realloc(v->rows, size * sizeof(*rows))))
		return ERR_NO_MEMORY;
	v->rows = rows;
	if (v->located) {
		if (!(located = realloc(v->located, size * sizeof(*located))))
			return ERR_NO_MEMORY;
		memset(located + v->size, 0, (size - v->size) * sizeof(*located));
		v->located = located;
	}
	v->size = size;
	return ERR_OK;
}

void imap_view_set_flags(struct imap_view *v, size_t index, const uint64_t flags[2],
			 uint64_t modseq)
{
	struct imap_row *row = &v->rows[index];

	if (modseq < row->modseq || row->is_gone)
		return;
	row->modseq = modseq;
	if (row->flags[0] == flags[0] && row->flags[1] == flags[1])
		return;
	row->flags[0] = flags[0];
	row->flags[1] = flags[1];
	if (!(flags[0] & MSG_FLAG_SEEN))
		v->seen_below = MIN(v->seen_below, index);
	if (v->first_selected)
		log_change(v, index);
}

enum err imap_view_put(struct imap_view *v, const struct imap_row *row)
{
	size_t at = v->count && row->uid <= v->rows[v->count - 1].uid ? imap_view_find(v, row->uid)
								      : v->count;
	enum err err;

	if (at < v->count) {
		/* A UID below the last that we do not have was expunged and forgotten: it cannot
		 * come back. */
		if (v->rows[at].uid == row->uid)
			imap_view_set_flags(v, at, row->flags, row->modseq);
		return ERR_OK;
	}
	if ((err = grow(v, v->count + 1)))
		return err;
	v->rows[v->count] = *row;
	v->rows[v->count].is_gone = false;
	v->rows[v->count].change = 0;
	v->count++;
	v->uidnext = MAX(v->uidnext, row->uid + 1);
	return ERR_OK;
}

void imap_view_expunge(struct imap_view *v, uint32_t first, uint32_t last)
{
	for (size_t i = imap_view_find(v, first); i < v->count && v->rows[i].uid <= last; i++) {
		if (v->rows[i].is_gone)
			continue;
		v->rows[i].is_gone = true;
		v->gone++;
		log_change(v, i);
	}
}

/* ---- rows that come and go in the middle ---- */

static bool everybody_was_told(const struct imap_view *v)
{
	for (const struct imap_selected *s = v->first_selected; s; s = s->next)
		if (s->change != last_change(v) || s->is_behind || s->untold_count ||
		    s->known != v->count)
			return false;
	return true;
}

void imap_view_compact(struct imap_view *v)
{
	size_t kept = 0;

	/* An expunge of one message among many is not worth moving the others. */
	if (v->gone == 0 || v->busy ||
	    (v->first_selected && v->gone < 64 && v->gone < v->count / 8) || !everybody_was_told(v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		if (v->rows[i].is_gone) {
			if (v->located)
				located_free(v, &v->located[i]);
			continue;
		}
		if (kept != i) {
			v->rows[kept] = v->rows[i];
			if (v->located) {
				v->located[kept] = v->located[i];
				v->located[i] = (struct imap_located){ 0 };
			}
		}
		v->rows[kept++].change = 0;
	}
	v->count = kept;
	v->gone = 0;
	v->seen_below = 0;
	v->first_change += v->change_count;
	v->change_count = 0;
	for (struct imap_selected *s = v->first_selected; s; s = s->next) {
		free(s->map);
		s->map = NULL;
		s->known = v->count;
		s->change = last_change(v);
		assert(s->exists == v->count);
	}
}

static enum err make_map(struct imap_selected *s)
{
	if (s->map)
		return ERR_OK;
	s->map = malloc(MAX(s->exists, 1u) * sizeof(*s->map));
	if (!s->map)
		return ERR_NO_MEMORY;
	for (uint32_t i = 0; i < s->exists; i++)
		s->map[i] = i;
	return ERR_OK;
}

/* Moves what each connection holds to the rows' new places: moved[i] is where old row i went. */
static void remap(struct imap_view *v, const uint32_t *moved)
{
	v->first_change += v->change_count;
	v->change_count = 0;
	for (struct imap_selected *s = v->first_selected; s; s = s->next) {
		for (uint32_t i = 0; i < s->exists; i++)
			s->map[i] = moved[s->map[i]];
		for (size_t i = 0; i < s->untold_count; i++)
			s->untold[i] = moved[s->untold[i]];
		s->known = s->known ? moved[s->known - 1] + 1 : 0;
		s->is_behind = true;
	}
}

static size_t count_missing(const struct imap_view *v, const struct imap_range *gone, size_t count,
			    uint32_t below)
{
	size_t missing = 0;

	for (size_t i = 0; i < count; i++)
		for (uint64_t uid = gone[i].first; uid <= gone[i].last && uid < below; uid++) {
			size_t at = imap_view_find(v, (uint32_t)uid);

			missing += at == v->count || v->rows[at].uid != uid;
		}
	return missing;
}

/* The merge itself; `rows` has room for all. */
static size_t merge_gone(const struct imap_view *v, const struct imap_range *gone, size_t count,
			 uint32_t below, struct imap_row *rows, uint32_t *moved)
{
	size_t n = 0, old = 0;

	for (size_t i = 0; i < count; i++) {
		for (uint64_t uid = gone[i].first; uid <= gone[i].last && uid < below; uid++) {
			for (; old < v->count && v->rows[old].uid < uid; old++) {
				moved[old] = (uint32_t)n;
				rows[n++] = v->rows[old];
			}
			if (old == v->count || v->rows[old].uid != uid)
				rows[n++] =
					(struct imap_row){ .uid = (uint32_t)uid, .is_gone = true };
		}
	}
	for (; old < v->count; old++) {
		moved[old] = (uint32_t)n;
		rows[n++] = v->rows[old];
	}
	return n;
}

enum err imap_view_restore_gone(struct imap_view *v, const struct imap_range *gone, size_t count,
				uint32_t below)
{
	size_t missing = count_missing(v, gone, count, below), total = v->count + missing;
	struct imap_row *rows;
	uint32_t *moved;

	if (missing == 0)
		return ERR_OK;
	for (struct imap_selected *s = v->first_selected; s; s = s->next)
		if (make_map(s))
			return ERR_NO_MEMORY;
	rows = malloc(total * sizeof(*rows));
	moved = malloc(MAX(v->count, (size_t)1) * sizeof(*moved));
	if (!rows || !moved) {
		free(rows);
		free(moved);
		return ERR_NO_MEMORY;
	}
	imap_view_forget_located(v);
	merge_gone(v, gone, count, below, rows, moved);
	remap(v, moved);
	free(moved);
	free(v->rows);
	v->rows = rows;
	v->count = v->size = total;
	v->gone += missing;
	v->seen_below = 0;
	return ERR_OK;
}
