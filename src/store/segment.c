/* The files of the log, and the writer's place among them.
 *
 * log/00000001.seg, log/00000002.seg ... The number of a segment is never used again. A new one is
 * made under another name (log/new, or a recycled file), gets its header, is synced, renamed, and
 * the directory is synced: a file with a segment's name always has a header, and no frame is
 * written into a file that a power cut could make disappear.
 *
 * A file is written to only when the name that it has here is the one it has on the disk: after a
 * power cut, the header of a new segment must not be found in an old one, whose own may still say
 * where the segment before it ends. So names are synced before anything that was recycled, emptied
 * or kept in reserve is used, and if they cannot be, nothing is.
 *
 * The header says where the predecessor validly ends. That is how a segment whose sync failed is
 * closed: Linux forgets which pages could not be written, so nothing that was written there after
 * the last good sync can be believed, whatever a later read says; and nothing may be written there
 * to make it better.
 *
 * log/reserve is a segment kept for the day when the disk is full: it is used for changes that free
 * space, alone.
 *
 * The first write to a preallocated block changes the file's extents, and syncing it takes the file
 * system's journal: half as long again, and another wake-up. So a small frame (flags, expunges,
 * logins: many, and each waited for) comes with zeros for those behind it. Frames with bodies do
 * not: that would write all mail twice. Segments that are used again were written before.
 */
#include "store/log_priv.h"

#include "base/mutant.h"

#include <stdio.h>
#include <stdlib.h>

#define LOG_DIRECTORY  "log"
#define SEGMENT_NEW    LOG_DIRECTORY "/new"
#define SEGMENT_SPARE  LOG_DIRECTORY "/reserve"
#define SEGMENT_HEADER LOG_DIRECTORY "/header"

void segment_name(char name[SEGMENT_NAME_SIZE], uint32_t segment)
{
	snprintf(name, SEGMENT_NAME_SIZE, LOG_DIRECTORY "/%08x.seg", segment);
}

static void recycled_name(char name[SEGMENT_NAME_SIZE], uint32_t number)
{
	snprintf(name, SEGMENT_NAME_SIZE, LOG_DIRECTORY "/free-%u", number);
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return x < y ? -1 : x > y;
}

static bool parse_name(str name, uint32_t *number)
{
	*number = 0;
	if (name.n != 12 || !str_ends(name, S(".seg")))
		return false;
	for (size_t i = 0; i < 8; i++) {
		int digit = ascii_hex_value(name.p[i]);

		if (digit < 0)
			return false;
		*number = *number << 4 | (uint32_t)digit;
	}
	return *number != 0;
}

enum err segment_list(int dir, struct arena *a, uint32_t **numbers, size_t *count)
{
	size_t name_count, n = 0;
	str *names;
	int fd;
	enum err err = os_open(dir, LOG_DIRECTORY, OS_READ | OS_DIRECTORY, &fd);

	if (err)
		return err;
	err = os_list(fd, a, &names, &name_count);
	os_close(fd);
	if (err)
		return err;
	*numbers = arena_array(a, name_count + 1, sizeof(**numbers));
	if (!*numbers)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < name_count; i++)
		if (parse_name(names[i], &(*numbers)[n]))
			n++;
	qsort(*numbers, n, sizeof(**numbers), compare_numbers);
	*count = n;
	return ERR_OK;
}

enum err segment_sync_directory(int dir)
{
	int fd;
	enum err err = os_open(dir, LOG_DIRECTORY, OS_READ | OS_DIRECTORY, &fd);

	if (err)
		return err;
	err = os_fsync(fd);
	os_close(fd);
	return err;
}

enum err log_writer_settle(struct log_writer *w)
{
	enum err err = w->names_unsynced ? segment_sync_directory(w->dir) : ERR_OK;

	w->names_unsynced = err != ERR_OK;
	return err;
}

enum err log_writer_open(struct log_writer *w, const struct log_place *place)
{
	char name[SEGMENT_NAME_SIZE];
	struct os_stat st;
	enum err err;

	w->fd = -1;
	w->names_unsynced = true;
	w->place = *place;
	w->durable = place->position;
	w->written = position_offset(place->position);
	w->has_reserve = os_stat(w->dir, SEGMENT_SPARE, &st) == ERR_OK;
	for (w->recycled = 0; w->recycled < SEGMENTS_FREE_MAX; w->recycled++) {
		recycled_name(name, w->recycled);
		if (os_stat(w->dir, name, &st) != ERR_OK)
			break;
	}
	if (place->position == 0)
		return ERR_OK;
	segment_name(name, position_segment(place->position));
	err = os_open(w->dir, name, OS_READ | OS_WRITE, &w->fd);
	/* Somebody took it away, and the reader said so: the next frame opens another one. */
	if (err == ERR_NOT_FOUND)
		return ERR_OK;
	if (err)
		return err;
	/* What was read back may have been in the page cache alone. */
	err = os_fdatasync(w->fd);
	return err ? err : log_writer_settle(w);
}

void log_writer_close(struct log_writer *w)
{
	os_close(w->fd);
	w->fd = -1;
}

/* A file of full size, not yet a segment. */
static enum err file_make(struct log_writer *w, const char *name, int *fd)
{
	enum err err = os_open(w->dir, name, OS_READ | OS_WRITE | OS_CREATE | OS_TRUNCATE, fd);

	if (err)
		return err;
	err = os_allocate(*fd, 0, w->segment_size);
	if (!err)
		return ERR_OK;
	os_close(*fd);
	*fd = -1;
	if (os_unlink(w->dir, name) && w->log)
		log_warn(w->log, "store-segment-left", "file=%s", name);
	return err;
}

/* Where the next segment comes from: a recycled file, new space, or the reserve. */
static enum err file_take(struct log_writer *w, bool may_use_reserve, char name[SEGMENT_NAME_SIZE],
			  int *fd, uint32_t *written)
{
	enum err err;

	*written = SEGMENT_HEADER_SIZE;
	if (w->recycled) {
		recycled_name(name, w->recycled - 1);
		err = os_open(w->dir, name, OS_READ | OS_WRITE, fd);
		w->recycled--;
		if (!err) {
			*written = w->segment_size;
			return ERR_OK;
		}
	}
	snprintf(name, SEGMENT_NAME_SIZE, SEGMENT_NEW);
	err = file_make(w, name, fd);
	if (err != ERR_FULL || !may_use_reserve || !w->has_reserve)
		return err;
	snprintf(name, SEGMENT_NAME_SIZE, SEGMENT_SPARE);
	w->has_reserve = false;
	return os_open(w->dir, name, OS_READ | OS_WRITE, fd);
}

/* *is_named: a power cut may leave it under its final name from now on, whatever else fails. */
static enum err segment_begin(struct log_writer *w, int fd, const char *name, uint32_t segment,
			      bool *is_named)
{
	char header[SEGMENT_HEADER_SIZE], final[SEGMENT_NAME_SIZE];
	struct segment_header h = { .epoch = 1,
				    .segment = segment,
				    .size = w->segment_size,
				    .predecessor = position_segment(w->place.position),
				    .predecessor_end = MUTANT(segment_end_forgotten)
							       ? w->segment_size
							       : position_offset(w->place.position),
				    .chain = w->place.chain,
				    .number = w->place.number + 1,
				    .created_us = os_wall_us() };
	enum err err;

	memcpy(h.store, w->identity->store, sizeof(h.store));
	segment_header_put(header, &h);
	segment_name(final, segment);
	if ((err = os_pwrite_all(fd, str_of(header, sizeof(header)), 0)) ||
	    (err = os_fdatasync(fd)))
		return err;
	*is_named = true;
	err = os_rename(w->dir, name, final);
	return err || MUTANT(segment_name_not_synced) ? err : segment_sync_directory(w->dir);
}

static enum err segment_next(struct log_writer *w, bool may_use_reserve)
{
	char name[SEGMENT_NAME_SIZE];
	uint32_t segment = position_segment(w->place.position) + 1, written;
	bool is_named = false;
	int fd = -1;
	enum err err = log_writer_settle(w);

	if (!err)
		err = file_take(w, may_use_reserve, name, &fd, &written);
	if (!err)
		err = segment_begin(w, fd, name, segment, &is_named);
	if (err) {
		os_close(fd);
		/* Its header may be found one day, and says that this segment ends here: so it
		 * must. */
		if (is_named) {
			os_close(w->fd);
			w->fd = -1;
		}
		if (w->log)
			log_error(w->log, "store-segment-failed", "segment=%08x error=%s", segment,
				  err_name(err));
		return err;
	}
	os_close(w->fd);
	w->fd = fd;
	w->written = written;
	w->place.position = w->durable = position_of(segment, SEGMENT_HEADER_SIZE);
	return ERR_OK;
}

enum err log_writer_room(struct log_writer *w, uint64_t size, bool may_use_reserve)
{
	if (size > w->segment_size - SEGMENT_HEADER_SIZE)
		return ERR_TOO_LONG;
	if (w->fd >= 0 && position_offset(w->place.position) + size <= w->segment_size)
		return ERR_OK;
	return segment_next(w, may_use_reserve);
}

uint32_t log_writer_ahead(const struct log_writer *w, uint64_t size)
{
	uint64_t end = position_offset(w->place.position) + size;

	if (size > LOG_SMALL || end <= w->written)
		return 0;
	return (uint32_t)MIN((uint64_t)LOG_AHEAD, w->segment_size - end);
}

void log_writer_wrote(struct log_writer *w, uint64_t size, uint32_t ahead)
{
	w->place.position += size;
	w->written = MAX(w->written, position_offset(w->place.position) + ahead);
}

void log_writer_abandon(struct log_writer *w, const struct log_place *end)
{
	if (w->log)
		log_error(w->log, "store-segment-abandoned", "segment=%08x valid_end=%u",
			  position_segment(end->position), position_offset(end->position));
	os_close(w->fd);
	w->fd = -1;
	w->place.position = end->position;
	w->place.chain = end->chain;
	w->durable = end->position;
}

enum err log_writer_make_reserve(struct log_writer *w)
{
	enum err err;
	int fd;

	if (w->has_reserve)
		return ERR_OK;
	err = log_writer_settle(w);
	if (!err)
		err = file_make(w, SEGMENT_SPARE, &fd);
	if (err)
		return err;
	err = os_fsync(fd);
	os_close(fd);
	if (!err)
		err = segment_sync_directory(w->dir);
	w->has_reserve = !err;
	return err;
}

enum err log_writer_recycle(struct log_writer *w, uint32_t segment, bool may_keep)
{
	char name[SEGMENT_NAME_SIZE], free_name[SEGMENT_NAME_SIZE];
	struct os_stat st;
	enum err err;

	segment_name(name, segment);
	if ((err = os_stat(w->dir, name, &st)))
		return err;
	w->names_unsynced = true;
	if (st.size < w->segment_size)
		return os_unlink(w->dir, name);
	if (!w->has_reserve) {
		err = os_rename(w->dir, name, SEGMENT_SPARE);
		w->has_reserve = !err;
		return err;
	}
	if (!may_keep || w->recycled == SEGMENTS_FREE_MAX)
		return os_unlink(w->dir, name);
	recycled_name(free_name, w->recycled);
	err = os_rename(w->dir, name, free_name);
	w->recycled += !err;
	return err;
}

/* Beside it, under another name, so that it is one or the other at any time, and so that whoever
 * has it open reads on. */
static enum err header_copy(struct log_writer *w, const char *name)
{
	char header[SEGMENT_HEADER_SIZE];
	struct segment_header h;
	int fd;
	enum err err = os_open(w->dir, name, OS_READ, &fd);

	if (err)
		return err;
	err = os_pread_all(fd, header, sizeof(header), 0);
	os_close(fd);
	if (!err)
		err = segment_header_get(str_of(header, sizeof(header)), &h);
	if (!err)
		err = os_open(w->dir, SEGMENT_HEADER, OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd);
	if (err)
		return err;
	err = os_pwrite_all(fd, str_of(header, sizeof(header)), 0);
	if (!err)
		err = os_fdatasync(fd);
	os_close(fd);
	return err;
}

enum err log_writer_empty(struct log_writer *w, uint32_t segment)
{
	char name[SEGMENT_NAME_SIZE];
	int fd;
	enum err err;

	segment_name(name, segment);
	err = header_copy(w, name);
	w->names_unsynced = true;
	if (!err) {
		if (!w->has_reserve)
			w->has_reserve = os_link(w->dir, name, SEGMENT_SPARE) == ERR_OK;
		return os_rename(w->dir, SEGMENT_HEADER, name);
	}
	/* Not even a block is left on the disk: cutting the file takes none. */
	if (err != ERR_FULL || (err = os_open(w->dir, name, OS_WRITE, &fd)))
		return err;
	err = os_truncate(fd, SEGMENT_HEADER_SIZE);
	os_close(fd);
	return err;
}
