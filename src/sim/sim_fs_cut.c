/* What a power cut leaves.
 *
 * A disk and its file system promise only what was synced. Of all else anything may have got there:
 * the kernel writes back when it likes, in what order it likes. So each file draws a way of losing:
 * nothing of what is new got there, all of it, a beginning, an end, or block by block by chance;
 * and one more chance for each block that it stopped in the middle (SIM_INODE_TORN: other files are
 * those of LMDB and SQLite, which count on sectors being whole, as disks make them). The size is
 * metadata, and arrives on its own. Directories draw the same of their changes; these keep their
 * order, as the journals of file systems do.
 */
#include "sim/sim_fs_priv.h"

enum keep { KEEP_NONE, KEEP_ALL, KEEP_BEGINNING, KEEP_END, KEEP_SOME, KEEPS };

struct way {
	enum keep keep;
	uint64_t split;
	unsigned chance; /* in 1000 */
};

static struct way way_draw(struct sim_random *r, uint64_t first, uint64_t end)
{
	return (struct way){
		.keep = (enum keep)sim_random_below(r, KEEPS),
		.split = first + sim_random_below(r, end - first + 1),
		.chance = (unsigned)sim_random_below(r, 1001),
	};
}

static bool is_kept(const struct way *w, struct sim_random *r, uint64_t at)
{
	switch (w->keep) {
	case KEEP_NONE:
		return false;
	case KEEP_ALL:
		return true;
	case KEEP_BEGINNING:
		return at < w->split;
	case KEEP_END:
		return at >= w->split;
	case KEEP_SOME:
	case KEEPS:
		break;
	}
	return sim_random_chance(r, w->chance);
}

/* ---- files ---- */

static void block_arrives(struct sim_inode *i, uint64_t b)
{
	enum { TORN_IN_1000 = 50 };
	struct sim_fs *fs = i->fs;
	struct sim_random *r = &fs->random;
	size_t from = 0, to = SIM_BLOCK;

	if (i->flags & SIM_INODE_TORN && !(i->flags & SIM_INODE_LIBRARY) &&
	    sim_random_chance(r, TORN_IN_1000)) {
		size_t split = 1 + (size_t)sim_random_below(r, SIM_BLOCK - 1);

		if (sim_random_chance(r, 500))
			from = split;
		else
			to = split;
		fs->counts.torn_blocks++;
	}
	memcpy(i->disk + b * SIM_BLOCK + from, i->cache + b * SIM_BLOCK + from, to - from);
	i->blocks[b] |= BLOCK_DISK;
	fs->counts.kept_blocks++;
}

static uint64_t size_draw(const struct sim_inode *i, const struct way *w, struct sim_random *r)
{
	uint64_t least = MIN(i->size, i->disk_size), most = MAX(i->size, i->disk_size);

	if (least == most || w->keep == KEEP_ALL)
		return i->size;
	if (w->keep == KEEP_NONE)
		return i->disk_size;
	switch (sim_random_below(r, 3)) {
	case 0:
		return i->size;
	case 1:
		return i->disk_size;
	default:
		return least + sim_random_below(r, most - least + 1);
	}
}

/* Nothing is behind the end of a file. */
static void disk_end(struct sim_inode *i, uint64_t old_end)
{
	uint64_t end = MIN((old_end + SIM_BLOCK - 1) / SIM_BLOCK, i->room / SIM_BLOCK);

	for (uint64_t b = i->disk_size / SIM_BLOCK; b < end; b++) {
		uint64_t from = MAX(b * SIM_BLOCK, i->disk_size);

		if (i->blocks[b] & BLOCK_DISK)
			memset(i->disk + from, 0, (size_t)((b + 1) * SIM_BLOCK - from));
		if (i->blocks[b] & (BLOCK_DISK | BLOCK_CACHE))
			memcpy(i->cache + from, i->disk + from,
			       (size_t)((b + 1) * SIM_BLOCK - from));
	}
}

static void cut_file(struct sim_inode *i)
{
	struct sim_fs *fs = i->fs;
	struct way w = way_draw(&fs->random, i->first, i->end);
	uint64_t end = MAX(i->size, i->disk_size);

	if (i->mapped)
		panic("a power cut with a file still mapped");
	for (uint64_t b = i->first; b < i->end; b++) {
		if (!(i->blocks[b] & BLOCK_DIRTY))
			continue;
		fs->counts.dirty_blocks++;
		if (is_kept(&w, &fs->random, b))
			block_arrives(i, b);
	}
	i->disk_size = size_draw(i, &w, &fs->random);
	for (uint64_t b = i->first; b < i->end; b++) {
		if (i->blocks[b] & BLOCK_DIFFERS)
			memcpy(i->cache + b * SIM_BLOCK, i->disk + b * SIM_BLOCK, SIM_BLOCK);
		i->blocks[b] = i->blocks[b] & BLOCK_DISK ? BLOCK_DISK | BLOCK_CACHE : 0;
	}
	i->first = i->end = 0;
	i->size = i->disk_size;
	disk_end(i, end);
}

/* ---- directories ---- */

static void change_arrives(struct sim_inode *dir, const struct change *c)
{
	struct entry *e = c->removed ? fs_entry(&dir->disk_names, c->removed) : NULL;

	if (e && e->inode == c->inode)
		fs_entries_put(&dir->disk_names, c->removed, NULL);
	if (c->made)
		fs_entries_put(&dir->disk_names, c->made, c->inode);
}

static void cut_names(struct sim_inode *dir)
{
	struct sim_fs *fs = dir->fs;
	uint64_t n = 0;
	struct way w;

	for (const struct change *c = dir->changes; c; c = c->next)
		n++;
	if (n) {
		w = way_draw(&fs->random, 0, n);
		/* A journal has a beginning, never an end without what was before. */
		if (w.keep == KEEP_END)
			w.keep = KEEP_BEGINNING;
		n = 0;
		for (const struct change *c = dir->changes; c; c = c->next)
			if (is_kept(&w, &fs->random, n++))
				change_arrives(dir, c);
			else
				fs->counts.names_lost++;
	}
	fs_entries_copy(&dir->names, &dir->disk_names);
	fs_changes_free(dir);
}

static void cut(struct sim_inode *i)
{
	i->links = 0; /* counted again below, with what the disk's room is then */
	if (!i->is_directory) {
		cut_file(i);
		return;
	}
	cut_names(i);
	for (size_t n = 0; n < i->names.count; n++)
		cut(i->names.at[n].inode);
}

static void count_again(struct sim_inode *i)
{
	if (i->links++)
		return;
	i->fs->used += fs_charge(i, i->size);
	for (size_t n = 0; i->is_directory && n < i->names.count; n++)
		count_again(i->names.at[n].inode);
}

void sim_fs_cut(struct sim_fs *fs)
{
	fs->used = 0;
	cut(fs->root);
	fs->used = 0;
	count_again(fs->root);
}

static void sync_all(struct sim_inode *i)
{
	sim_inode_sync(i);
	for (size_t n = 0; n < i->names.count; n++)
		sync_all(i->names.at[n].inode);
}

void sim_fs_sync_all(struct sim_fs *fs)
{
	sync_all(fs->root);
}

/* ---- copies ---- */

static struct sim_inode *copy(struct sim_fs *fs, const struct sim_inode *from)
{
	struct sim_inode *i = fs_inode_new(fs, from->mode, from->is_directory);

	i->modified = from->modified;
	i->flags = from->flags;
	i->is_socket = from->is_socket;
	i->number = from->number;
	fs_data_room(i, from->disk_size);
	i->size = i->disk_size = from->disk_size;
	for (uint64_t b = 0; b * SIM_BLOCK < from->disk_size; b++) {
		if (!(from->blocks[b] & BLOCK_DISK))
			continue;
		memcpy(i->disk + b * SIM_BLOCK, from->disk + b * SIM_BLOCK, SIM_BLOCK);
		memcpy(i->cache + b * SIM_BLOCK, from->disk + b * SIM_BLOCK, SIM_BLOCK);
		i->blocks[b] = BLOCK_DISK | BLOCK_CACHE;
	}
	for (size_t n = 0; n < from->disk_names.count; n++) {
		const struct entry *e = &from->disk_names.at[n];
		struct sim_inode *child = copy(fs, e->inode);

		fs_entries_put(&i->names, e->name, child);
		sim_inode_drop(child);
	}
	fs_entries_copy(&i->disk_names, &i->names);
	return i;
}

/* Links are not kept: a file with two names becomes two files. */
struct sim_fs *sim_fs_copy(const struct sim_fs *from)
{
	struct sim_fs *fs = sim_alloc(sizeof(*fs));

	*fs = *from;
	fs->root = NULL;
	sim_fs_restore(fs, from);
	return fs;
}

void sim_fs_restore(struct sim_fs *fs, const struct sim_fs *from)
{
	uint64_t number = MAX(fs->next_number, from->next_number);

	sim_inode_drop(fs->root);
	fs->root = copy(fs, from->root);
	fs->next_number = number;
	fs->used = 0;
	count_again(fs->root);
}
