/* Locks of files: flock's, which belongs to an open file, and POSIX ranges, which belong to a
 * process (LMDB and SQLite). */
#include "sim/sim_priv.h"

#include "sim/sim_locks.h"

struct range {
	struct range *next;
	int process;
	bool is_exclusive;
	int64_t from, to; /* to: behind the last byte */
};

struct locks {
	struct sim_object *file; /* has flock */
	struct range *ranges;
};

static struct locks *locks_of(struct sim_inode *i, bool make)
{
	void **at = sim_inode_locks(i);

	if (!*at && make)
		*at = sim_alloc(sizeof(struct locks));
	return *at;
}

static void locks_tidy(struct sim_inode *i)
{
	struct locks *l = locks_of(i, false);

	if (!l || l->file || l->ranges)
		return;
	sim_release(l);
	*sim_inode_locks(i) = NULL;
}

enum err lock_file(struct sim_object *o)
{
	struct locks *l = locks_of(o->file.inode, true);

	if (l->file && l->file != o)
		return ERR_BUSY;
	l->file = o;
	return ERR_OK;
}

void locks_drop_file(struct sim_object *o)
{
	struct locks *l = locks_of(o->file.inode, false);

	if (l && l->file == o)
		l->file = NULL;
	locks_tidy(o->file.inode);
}

static void range_add(struct locks *l, int process, bool is_exclusive, int64_t from, int64_t to)
{
	struct range *r;

	if (from >= to)
		return;
	r = sim_alloc(sizeof(*r));
	*r = (struct range){ l->ranges, process, is_exclusive, from, to };
	l->ranges = r;
}

/* Takes these bytes out of what the process holds; what is left of ranges stays. */
static void ranges_cut(struct locks *l, int process, int64_t from, int64_t to)
{
	for (struct range **at = &l->ranges, *r; (r = *at);) {
		struct range old = *r;

		if (old.process != process || old.to <= from || old.from >= to) {
			at = &r->next;
			continue;
		}
		*at = old.next;
		sim_release(r);
		range_add(l, process, old.is_exclusive, old.from, MIN(old.to, from));
		range_add(l, process, old.is_exclusive, MAX(old.from, to), old.to);
		at = &l->ranges;
	}
}

int lock_conflict(struct sim_inode *i, int process, bool is_exclusive, int64_t from, int64_t to)
{
	struct locks *l = locks_of(i, false);

	for (struct range *r = l ? l->ranges : NULL; r; r = r->next)
		if (r->process != process && r->from < to && r->to > from &&
		    (r->is_exclusive || is_exclusive))
			return r->process;
	return 0;
}

void lock_range(struct sim_inode *i, int process, enum lock_kind kind, int64_t from, int64_t to)
{
	struct locks *l = locks_of(i, true);

	ranges_cut(l, process, from, to);
	if (kind != LOCK_NONE)
		range_add(l, process, kind == LOCK_EXCLUSIVE, from, to);
	locks_tidy(i);
}

void locks_drop_process(struct sim_inode *i, int process)
{
	struct locks *l = locks_of(i, false);

	if (l)
		ranges_cut(l, process, 0, INT64_MAX);
	locks_tidy(i);
}
