/* fsck on the server's disk, while no server runs (store/check.h).
 *
 * After a power cut it has nothing to say but notes: damage that a cut leaves would be damage that
 * every administrator is told of for nothing, or a fault in the store. And where something was
 * spoilt on the disk of which nothing is lost by it (the records of a frame that the index covers,
 * a copy of the identity, an index that is gone), its repair loses nothing, wherever a power cut
 * falls into it. These run as processes of the server's machine. */
#include "sim/check_disk.h"

#include "base/os.h"
#include "store/check.h"
#include "store/index_priv.h"

#include <stdio.h>

enum { WINDOW_MAX = 1024 * 1024, NAME_SIZE = 64, SPOILT_BYTES = 8 };

struct look {
	struct fsck *fsck;
	bool may_find; /* damage is what is looked for */
};

static void on_found(void *arg, const struct check_finding *f)
{
	struct look *x = arg;

	world_note(x->fsck->world, "fsck", "%d %s %.*s: %.*s", (int)f->level, f->what,
		   STR_ARGS(f->file), STR_ARGS(f->detail));
	/* The removal of a file is not synced: a cut may bring back a body that nobody wants. */
	if (f->level == CHECK_LOSS ||
	    (f->level == CHECK_DAMAGE && !x->may_find && strcmp(f->what, "file-unused") != 0))
		world_violation(x->fsck->world, "fsck: %s %s %.*s: %.*s",
				f->level == CHECK_LOSS ? "lost" : "damaged", f->what,
				STR_ARGS(f->file), STR_ARGS(f->detail));
}

static enum err look(struct fsck *k, int dir, bool repair, struct check_result *r)
{
	struct look x = { k, repair };
	struct check_options o = {
		.dir = dir, .path = CHECK_STORE, .repair = repair, .found = on_found, .arg = &x
	};

	return store_check(&o, r);
}

int fsck_look_main(void *arg)
{
	struct fsck *k = arg;
	struct check_result r;
	int dir = -1;
	enum err err = os_open(-1, CHECK_STORE, OS_READ | OS_DIRECTORY, &dir);

	if (!err)
		err = look(k, dir, false, &r);
	os_close(dir);
	/* Before its first start a store may not be there at all. */
	if (err && err != ERR_NOT_FOUND)
		world_violation(k->world, "fsck: %s", err_name(err));
	return 0;
}

int fsck_repair_main(void *arg)
{
	struct fsck *k = arg;
	struct check_result first, second;
	int dir = -1;
	enum err err = os_open(-1, CHECK_STORE, OS_READ | OS_DIRECTORY, &dir);

	if (!err)
		err = look(k, dir, true, &first);
	if (!err)
		err = look(k, dir, false, &second);
	os_close(dir);
	if (err)
		world_violation(k->world, "fsck --repair: %s", err_name(err));
	k->is_done = true;
	return 0;
}

/* ---- spoiling ---- */

static enum err spoil(struct fsck *k, int dir, const char *name, uint64_t from, uint64_t to)
{
	char bytes[SPOILT_BYTES];
	uint64_t at = from + chance_next(&k->chance) % (to - from);
	size_t n = (size_t)MIN((uint64_t)SPOILT_BYTES, to - at);
	int fd;
	enum err err = os_open(dir, name, OS_READ | OS_WRITE, &fd);

	if (err)
		return err;
	err = os_pread_all(fd, bytes, n, at);
	for (size_t i = 0; i < n; i++)
		bytes[i] ^= (char)(1 + chance_below(&k->chance, 255));
	if (!err)
		err = os_pwrite_all(fd, str_of(bytes, n), at);
	if (!err)
		err = os_fdatasync(fd);
	os_close(fd);
	world_note(k->world, "fsck", "%s is spoilt at %llu", name, (unsigned long long)at);
	return err;
}

/* Of all frames that the index covers and are in segments that are there, one by chance. */
static enum err frame_draw(struct fsck *k, int dir, const struct identity *id, uint64_t covered,
			   struct frame_header *out)
{
	static const struct log_place begin = { 0 };
	struct log_reader *r = NULL;
	struct log_frame f;
	unsigned n = 0;
	enum err err = log_reader_new(dir, id, NULL, &begin, covered, &r);

	while (!err && !(err = log_reader_next(r, &f)))
		if (f.end <= covered && chance_below(&k->chance, ++n) == 0)
			*out = f.header;
	log_reader_free(r);
	return err && err != ERR_EOF ? err : n ? ERR_OK : ERR_NOT_FOUND;
}

static enum err frame_spoil(struct fsck *k, int dir)
{
	struct index_reader *x = NULL;
	struct log_place covered = { 0 };
	struct frame_header h = { 0 };
	struct identity id;
	char name[SEGMENT_NAME_SIZE];
	uint32_t at;
	enum err err = index_identity(CHECK_STORE, &id);

	if (!err)
		err = index_reader_open(CHECK_STORE, &id, &x);
	if (!err)
		err = index_covered(x, &covered);
	index_reader_close(x);
	if (!err)
		err = frame_draw(k, dir, &id, covered.position, &h);
	if (err)
		return err;
	segment_name(name, position_segment(h.position));
	at = position_offset(h.position);
	return spoil(k, dir, name, at, at + FRAME_HEADER_SIZE + h.records_size);
}

static enum err whole_spoil(struct fsck *k, int dir, const char *name)
{
	struct os_stat st;
	enum err err = os_stat(dir, name, &st);

	return err ? err : !st.size ? ERR_NOT_FOUND : spoil(k, dir, name, 0, st.size);
}

/* What cannot be spoilt, because it is not there yet, is left alone. Pages of the index are not
 * spoilt: LMDB may die of that, and all of the simulator with it. */
int fsck_spoil_main(void *arg)
{
	struct fsck *k = arg;
	int dir = -1;
	enum err err = os_open(-1, CHECK_STORE, OS_READ | OS_DIRECTORY, &dir);

	switch (chance_below(&k->chance, 8)) {
	case 0:
		err = err ? err : whole_spoil(k, dir, "identity");
		break;
	case 1:
		err = err ? err : whole_spoil(k, dir, "log/identity");
		break;
	case 2:
		err = err ? err : os_unlink(dir, "index/data.mdb");
		break;
	default:
		err = err ? err : frame_spoil(k, dir);
		k->needs_index = err == ERR_OK;
	}
	os_close(dir);
	k->is_done = err == ERR_OK;
	return 0;
}
