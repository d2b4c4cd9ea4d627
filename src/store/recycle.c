/* Giving segments back that became empty by themselves.
 *
 * A segment may go when nothing in it is alive: no body or cold row that a record refers to, and no
 * record that is the newest of its key. It must also end nothing any more: a deletion in it has to
 * stay as long as an older segment could hold what it deleted, or a rebuild would bring that back.
 * Going from the oldest on, and stopping at the first that has to stay, keeps this rule without
 * further accounts. Here go, too, the headers of segments that compaction emptied (compact.c), once
 * nothing older needs them.
 */
#include "store/store_priv.h"

#include "base/mutant.h"

void segment_fd_forget(struct store *s, uint32_t segment)
{
	for (size_t i = 0; i < SEGMENT_FDS; i++) {
		if (s->fds[i].segment == segment && s->fds[i].fd >= 0) {
			os_close(s->fds[i].fd);
			s->fds[i] = (struct segment_fd){ .fd = -1 };
		}
	}
}

void segments_recycle(struct store *s)
{
	struct arena *a = arena_new(64 * 1024 * 1024);
	struct segment_usage u;
	char name[SEGMENT_NAME_SIZE];
	uint32_t *numbers;
	size_t count;
	int fd;
	enum err err;

	if (!a || segment_list(s->options.dir, a, &numbers, &count))
		count = 0;
	for (size_t i = 0; i < count && numbers[i] < position_segment(s->kv->covered); i++) {
		if (index_usage(s->kv->index, numbers[i], &u) ||
		    ((u.blobs || u.records) && !MUTANT(living_segment_recycled)))
			break;
		segment_fd_forget(s, numbers[i]);
		segment_name(name, numbers[i]);
		fd = removal_begin(s, name);
		/* On a full disk it is given to whoever needs it. */
		err = log_writer_recycle(&s->kv->writer, numbers[i], !s->kv->is_full);
		removal_end(s, fd);
		if (err)
			break;
		s->freed_segments++;
	}
	if (log_writer_settle(&s->kv->writer) && s->options.log)
		log_warn(s->options.log, "store-directory-unsynced", "file=log");
	kv_release(s->kv);
	arena_free(a);
}
