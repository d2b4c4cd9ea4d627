/* Which segments compaction empties.
 *
 * The index knows of each segment how much in it is wanted. One of which no more than so many
 * percent are wanted is worth its while: moving these frees the rest. So is one that was closed
 * long ago and holds bodies that were never compressed: they are, on their way.
 *
 * Deletions are wanted as long as an older segment could hold what they end, and nobody knows for a
 * single one whether it does: that would take an account of every key that was ever written. So a
 * deletion stays while any older segment is there that is not empty. Where mail is kept for years
 * and millions of queue records come and go, that adds up; when deletions are a sixteenth of all
 * that is wanted, the oldest segment is emptied as well, however full it is, and so on, until the
 * deletions have outlived what they were for.
 */
#include "store/compact_priv.h"

#include <stdlib.h>

enum { DELETES_SHARE = 16, OLD_SHARE = 16 };

struct candidate {
	uint32_t number;
	struct segment_usage usage;
	uint64_t size, wanted;
	bool is_emptied, is_old, is_chosen, has_older;
};

struct candidates {
	struct candidate *items;
	size_t count;
	uint64_t deletes;
};

static enum err candidate_load(const struct compact_sources *from, struct candidates *all,
			       uint32_t number)
{
	struct candidate *c = &all->items[all->count];
	char name[SEGMENT_NAME_SIZE];
	struct os_stat st;
	enum err err;

	segment_name(name, number);
	if ((err = os_stat(from->dir, name, &st)))
		return err;
	*c = (struct candidate){ .number = number,
				 .size = st.size,
				 .is_emptied = segment_is_emptied(st.size) };
	if ((err = index_usage(from->index, number, &c->usage)))
		return err;
	for (size_t i = 0; i < all->count && !c->has_older; i++)
		c->has_older = !all->items[i].is_emptied;
	c->wanted =
		c->usage.bytes + c->usage.record_bytes + (c->has_older ? c->usage.delete_bytes : 0);
	all->deletes += c->has_older ? c->usage.delete_bytes : 0;
	all->count++;
	return ERR_OK;
}

/* All but those that are still written, or that the index does not cover. */
static enum err candidates_load(const struct compact_sources *from, struct arena *a,
				struct candidates *out)
{
	struct log_place covered;
	uint32_t *numbers;
	size_t count;
	enum err err = index_covered(from->index, &covered);

	if (!err)
		err = segment_list(from->dir, a, &numbers, &count);
	if (err)
		return err;
	*out = (struct candidates){ .items = arena_array(a, count + 1, sizeof(*out->items)) };
	if (!out->items)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < count && !err; i++)
		if (numbers[i] < position_segment(covered.position))
			err = candidate_load(from, out, numbers[i]);
	return err;
}

/* A segment was closed when the next one was made. */
static bool was_closed_before(const struct compact_sources *from, uint32_t segment, int64_t when_us)
{
	char name[SEGMENT_NAME_SIZE], bytes[SEGMENT_HEADER_SIZE];
	struct segment_header h = { .created_us = INT64_MAX };
	int fd;

	segment_name(name, segment + 1);
	if (os_open(from->dir, name, OS_READ, &fd))
		return false;
	if (os_pread_all(fd, bytes, sizeof(bytes), 0) ||
	    segment_header_get(str_of(bytes, sizeof(bytes)), &h))
		h.created_us = INT64_MAX;
	os_close(fd);
	return h.created_us < when_us;
}

static bool is_worth_it(const struct compact_sources *from, struct candidate *c,
			const struct msg_cp_plan *in)
{
	if (c->is_emptied)
		return false;
	if (in->old_before_us && c->usage.plain_bytes)
		c->is_old = was_closed_before(from, c->number, in->old_before_us);
	return c->wanted * 100 <= c->size * in->percent ||
	       (c->is_old && c->usage.plain_bytes * OLD_SHARE >= c->size);
}

static int compare_wanted(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->wanted != y->wanted ? (x->wanted < y->wanted ? -1 : 1)
				      : (x->number > y->number) - (x->number < y->number);
}

static int compare_numbers(const void *a, const void *b)
{
	const struct compact_segment *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

static size_t choose(const struct compact_sources *from, const struct msg_cp_plan *in,
		     struct candidates *all)
{
	uint64_t wanted = 0, oldest = 0;
	size_t chosen = 0;

	for (size_t i = 0; i < all->count && !oldest; i++)
		if (!all->items[i].is_emptied)
			oldest = all->items[i].number;
	for (size_t i = 0; i < all->count; i++)
		wanted += all->items[i].wanted;
	if (all->deletes <= wanted / DELETES_SHARE || !all->count ||
	    all->deletes < all->items[all->count - 1].size / 2)
		oldest = 0;
	if (all->count)
		qsort(all->items, all->count, sizeof(*all->items), compare_wanted);
	wanted = 0;
	for (size_t i = 0; i < all->count && chosen < COMPACT_SEGMENTS_MAX; i++) {
		struct candidate *c = &all->items[i];

		if (c->number != oldest &&
		    (!is_worth_it(from, c, in) || (chosen && wanted + c->wanted > in->budget)))
			continue;
		c->is_chosen = true;
		wanted += c->wanted;
		chosen++;
	}
	return chosen;
}

/* Its deletions must be carried over if something older stays. What is older and goes too goes
 * first. */
static bool has_older_staying(const struct candidates *all, const struct candidate *c)
{
	for (size_t i = 0; i < all->count; i++) {
		const struct candidate *o = &all->items[i];

		if (o->number < c->number && !o->is_emptied && !o->is_chosen)
			return true;
	}
	return false;
}

enum err compact_plan_make(const struct compact_sources *from, const struct msg_cp_plan *in,
			   struct compact_plan *out)
{
	struct arena *a = arena_new(256 * 1024 * 1024);
	struct candidates all = { .count = 0 };
	size_t chosen;
	enum err err = a ? candidates_load(from, a, &all) : ERR_NO_MEMORY;

	*out = (struct compact_plan){ .count = 0 };
	chosen = err ? 0 : choose(from, in, &all);
	if (!err && !(out->segments = calloc(chosen + 1, sizeof(*out->segments))))
		err = ERR_NO_MEMORY;
	for (size_t i = 0; i < all.count && !err; i++) {
		const struct candidate *c = &all.items[i];

		out->wanted += c->wanted;
		out->wasted += c->is_emptied || c->size < c->wanted ? 0 : c->size - c->wanted;
		if (c->is_chosen)
			out->segments[out->count++] = (struct compact_segment){
				.number = c->number,
				.ends_older = c->usage.deletes && has_older_staying(&all, c),
				.is_old = c->is_old,
			};
	}
	if (!err && out->count)
		qsort(out->segments, out->count, sizeof(*out->segments), compare_numbers);
	index_release(from->index);
	arena_free(a);
	return err;
}

void compact_plan_encode(const struct compact_plan *p, struct buf *list, struct msg_cp_planned *out)
{
	for (size_t i = 0; i < p->count; i++)
		rec_cp_segment_put(
			list, &(struct rec_cp_segment){ .number = p->segments[i].number,
							.ends_older = p->segments[i].ends_older });
	*out = (struct msg_cp_planned){ .segments = buf_str(list),
					.wanted = p->wanted,
					.wasted = p->wasted };
}

void compact_plan_free(struct compact_plan *p)
{
	free(p->segments);
	*p = (struct compact_plan){ .count = 0 };
}

const struct compact_segment *compact_plan_find(const struct compact_plan *p, uint32_t segment)
{
	struct compact_segment wanted = { .number = segment };

	return p->count ? bsearch(&wanted, p->segments, p->count, sizeof(wanted), compare_numbers)
			: NULL;
}
