/* What the simulated disk keeps at a power cut: all that was synced, always; anything else in any
 * part, and every part at some seed. */
#include "sim/sim_fs.h"

#include "base/tap.h"

#include <stdlib.h>

enum { DISK = 64 * 1024 * 1024, SEEDS = 400, BLOCKS = 8, SIZE = BLOCKS * SIM_BLOCK };

static struct sim_fs *disk_new(uint64_t seed)
{
	struct sim_fs *fs;

	if (sim_fs_new(DISK, seed, &fs))
		panic("no disk");
	return fs;
}

static struct sim_inode *make(struct sim_fs *fs, const char *path, bool is_directory)
{
	struct sim_inode *i = NULL;

	if (sim_fs_create(fs, NULL, path, 0600, is_directory, &i))
		panic("cannot make %s", path);
	return i;
}

static struct sim_inode *find(struct sim_fs *fs, const char *path)
{
	struct sim_inode *i = NULL;

	return sim_fs_find(fs, NULL, path, &i) ? NULL : i;
}

static void fill(struct sim_inode *i, char c, uint64_t at, size_t n)
{
	char bytes[SIZE];

	memset(bytes, c, sizeof(bytes));
	if (sim_inode_write(i, bytes, n, at))
		panic("cannot write");
}

static bool holds(const struct sim_inode *i, uint64_t block, char c)
{
	char bytes[SIM_BLOCK];

	if (sim_inode_read(i, bytes, sizeof(bytes), block * SIM_BLOCK) != SIM_BLOCK)
		return false;
	for (size_t n = 0; n < SIM_BLOCK; n++)
		if (bytes[n] != c)
			return false;
	return true;
}

/* A file of SIZE bytes 'a', synced with its name. */
static struct sim_inode *synced_file(struct sim_fs *fs, const char *path)
{
	struct sim_inode *i = make(fs, path, false);

	fill(i, 'a', 0, SIZE);
	sim_inode_sync(i);
	sim_inode_sync(sim_fs_root(fs));
	return i;
}

static void test_synced_stays(void)
{
	bool all = true;

	tap_group("what was synced stays");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = synced_file(fs, "/file");

		sim_fs_cut(fs);
		sim_fs_cut(fs);
		i = find(fs, "/file");
		all = all && i && sim_inode_facts(i).size == SIZE;
		for (uint64_t b = 0; b < BLOCKS && all; b++)
			all = holds(i, b, 'a');
		sim_fs_free(fs);
	}
	OK(all);
}

/* Which of the blocks that were overwritten got to the disk: as bits. */
static unsigned kept_blocks(uint64_t seed, unsigned flags, bool *is_torn)
{
	struct sim_fs *fs = disk_new(seed);
	struct sim_inode *i = synced_file(fs, "/file");
	unsigned kept = 0;

	sim_inode_flag(i, flags, true);
	fill(i, 'b', 0, SIZE);
	sim_fs_cut(fs);
	i = find(fs, "/file");
	*is_torn = false;
	for (uint64_t b = 0; b < BLOCKS; b++)
		if (holds(i, b, 'b'))
			kept |= 1u << b;
		else if (!holds(i, b, 'a'))
			*is_torn = true;
	sim_fs_free(fs);
	return kept;
}

static void test_unsynced_blocks(void)
{
	bool none = false, all = false, beginning = false, end = false, some = false;
	bool torn = false, whole = true, is_torn;

	tap_group("blocks that were not synced");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		unsigned kept = kept_blocks(seed, 0, &is_torn), gap = kept ^ (kept >> 1);

		whole = whole && !is_torn;
		none |= kept == 0;
		all |= kept == 0xff;
		beginning |= kept == 0x0f;
		end |= kept == 0xf0;
		some |= gap != 0 && (gap & (gap - 1)) != 0;
		kept_blocks(seed, SIM_INODE_TORN, &is_torn);
		torn |= is_torn;
	}
	OK(none);
	OK(all);
	OK(beginning);
	OK(end);
	OK(some);
	tap_group("torn blocks, where they are allowed alone");
	OK(whole);
	OK(torn);
}

static void test_size(void)
{
	bool old = false, new = false, between = false, zeros = false, sound = true;

	tap_group("a size that was not synced");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = synced_file(fs, "/file");
		uint64_t size;

		fill(i, 'b', SIZE, SIZE);
		sim_fs_cut(fs);
		i = find(fs, "/file");
		size = sim_inode_facts(i).size;
		old |= size == SIZE;
		new |= size == 2 * SIZE;
		between |= size > SIZE && size < 2 * SIZE;
		for (uint64_t b = BLOCKS; (b + 1) * SIM_BLOCK <= size; b++) {
			zeros |= holds(i, b, 0);
			sound = sound && (holds(i, b, 0) || holds(i, b, 'b'));
		}
		for (uint64_t b = 0; b < BLOCKS; b++)
			sound = sound && holds(i, b, 'a');
		sim_fs_free(fs);
	}
	OK(old);
	OK(new);
	OK(between);
	OK(zeros);
	OK(sound);
}

static void test_behind_the_end(void)
{
	bool sound = true;

	tap_group("nothing is behind the end");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = synced_file(fs, "/file");
		uint64_t size;

		if (sim_inode_truncate(i, 100) || sim_inode_truncate(i, SIZE))
			panic("truncate");
		sound = sound && !holds(i, 1, 'a');
		sim_fs_cut(fs);
		i = find(fs, "/file");
		size = sim_inode_facts(i).size;
		if (sim_inode_truncate(i, size + SIZE))
			panic("truncate");
		for (uint64_t b = (size + SIM_BLOCK - 1) / SIM_BLOCK;
		     (b + 1) * SIM_BLOCK <= size + SIZE; b++)
			sound = sound && holds(i, b, 0);
		sim_fs_free(fs);
	}
	OK(sound);
}

static void test_names(void)
{
	bool lost = false, kept = false, both = false, neither = false, renamed_apart = false;

	tap_group("names need a sync of their own");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = make(fs, "/new", false);

		fill(i, 'c', 0, SIZE);
		sim_inode_sync(i);
		sim_fs_cut(fs);
		i = find(fs, "/new");
		lost |= !i;
		kept |= i && holds(i, 0, 'c');
		sim_fs_free(fs);

		fs = disk_new(seed);
		synced_file(fs, "/old");
		if (sim_fs_rename(fs, NULL, "/old", "/renamed"))
			panic("rename");
		sim_fs_cut(fs);
		renamed_apart |= !find(fs, "/old") == !find(fs, "/renamed");
		both |= find(fs, "/renamed") != NULL;
		neither |= find(fs, "/old") != NULL;
		sim_fs_free(fs);
	}
	OK(lost);
	OK(kept);
	tap_group("a rename is one change");
	OK(both);
	OK(neither);
	OK(!renamed_apart);
}

/* Journals do better; who depends on that must say so. */
static void test_moved(void)
{
	bool back = false, there = false, both = false, neither = false;

	tap_group("a rename to another directory is two changes");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		bool is_old, is_new;

		(void)make(fs, "/other", true);
		synced_file(fs, "/file");
		sim_fs_sync_all(fs);
		if (sim_fs_rename(fs, NULL, "/file", "/other/file") || find(fs, "/file") ||
		    !find(fs, "/other/file"))
			panic("rename");
		sim_fs_cut(fs);
		is_old = find(fs, "/file") != NULL;
		is_new = find(fs, "/other/file") != NULL;
		back |= is_old && !is_new;
		there |= !is_old && is_new;
		both |= is_old && is_new;
		neither |= !is_old && !is_new;
		sim_fs_free(fs);
	}
	OK(back);
	OK(there);
	OK(both);
	OK(neither);
}

static void test_removed_comes_back(void)
{
	bool back = false, gone = false, after_sync = false;

	tap_group("what was removed may come back");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);

		synced_file(fs, "/file");
		if (sim_fs_unlink(fs, NULL, "/file"))
			panic("unlink");
		sim_fs_cut(fs);
		back |= find(fs, "/file") && holds(find(fs, "/file"), 0, 'a');
		gone |= !find(fs, "/file");
		sim_fs_free(fs);

		fs = disk_new(seed);
		synced_file(fs, "/file");
		if (sim_fs_unlink(fs, NULL, "/file"))
			panic("unlink");
		sim_inode_sync(sim_fs_root(fs));
		sim_fs_cut(fs);
		after_sync |= find(fs, "/file") != NULL;
		sim_fs_free(fs);
	}
	OK(back);
	OK(gone);
	OK(!after_sync);
}

static void test_failed_sync(void)
{
	bool lost = true, later = true;

	tap_group("a sync that failed");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = synced_file(fs, "/file");

		fill(i, 'b', 0, SIZE);
		sim_inode_sync_failed(i);
		lost = lost && holds(i, 3, 'b'); /* reads still see it */
		sim_inode_sync(i);		 /* says ERR_OK, and has nothing to write */
		fill(i, 'c', 0, SIM_BLOCK);
		sim_inode_sync(i);
		sim_fs_cut(fs);
		i = find(fs, "/file");
		later = later && holds(i, 0, 'c') && holds(i, 3, 'a');
		sim_fs_free(fs);
	}
	OK(lost);
	OK(later);
}

/* SQLite's shared memory: it is written through a mapping alone, and truncated by the first who
 * opens it after a cut, so that nobody believes what it said. */
static void test_mapped(void)
{
	bool kept = false, lost = false, is_empty = true;

	tap_group("what is written through a mapping");
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_fs *fs = disk_new(seed);
		struct sim_inode *i = synced_file(fs, "/file");
		char *p;

		if (sim_inode_map(i, SIZE, true, &p))
			panic("cannot map");
		memset(p, 'b', SIZE);
		sim_inode_unmap(i);
		sim_fs_cut(fs);
		i = find(fs, "/file");
		kept |= holds(i, 1, 'b');
		lost |= holds(i, 1, 'a');
		if (sim_inode_truncate(i, 3) || sim_inode_truncate(i, SIZE))
			panic("cannot truncate");
		is_empty = is_empty && holds(i, 1, 0);
		sim_fs_free(fs);
	}
	OK(kept);
	OK(lost);
	OK(is_empty);
}

static void test_full(void)
{
	struct sim_fs *fs = disk_new(1);
	struct sim_inode *i = make(fs, "/file", false);
	uint64_t used;

	tap_group("a full disk");
	sim_fs_limit(fs, 16 * 1024);
	EQ(sim_inode_truncate(i, 16 * 1024), ERR_OK);
	EQ(sim_inode_truncate(i, 16 * 1024 + 1), ERR_FULL);
	EQ(sim_inode_write(i, "x", 1, 16 * 1024), ERR_FULL);
	used = sim_fs_used(fs);
	EQ(sim_fs_unlink(fs, NULL, "/file"), ERR_OK);
	OK(sim_fs_used(fs) < used);
	sim_fs_free(fs);
}

static void test_copy(void)
{
	struct sim_fs *fs = disk_new(1), *copy;
	struct sim_inode *i;

	tap_group("a copy of the disk");
	make(fs, "/folder", true);
	sim_inode_sync(sim_fs_root(fs));
	i = make(fs, "/folder/file", false);
	fill(i, 'a', 0, SIZE);
	sim_fs_sync_all(fs);
	fill(i, 'b', 0, SIZE);
	copy = sim_fs_copy(fs);
	OK(find(copy, "/folder/file") && holds(find(copy, "/folder/file"), 2, 'a'));
	EQ(sim_fs_used(copy), sim_fs_used(fs));
	sim_fs_restore(fs, copy);
	OK(holds(find(fs, "/folder/file"), 2, 'a'));
	sim_fs_free(copy);
	sim_fs_free(fs);
}

int main(void)
{
	test_synced_stays();
	test_unsynced_blocks();
	test_size();
	test_behind_the_end();
	test_names();
	test_moved();
	test_removed_comes_back();
	test_failed_sync();
	test_mapped();
	test_full();
	test_copy();
	return tap_done();
}
