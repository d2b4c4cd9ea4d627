/* Contents: what reads see, what the disk has, and for each block of 512 bytes how the two differ.
 *
 * Both contents are pages of zeros until something is written, so that room which is only reserved
 * costs nothing. They have the same size; the cache may be mapped by those who read a file as
 * memory (LMDB, SQLite's shared memory), and does not move then. */
#include "sim/sim_fs_priv.h"

enum { ROOM_FIRST = 256 * 1024 };
/* A file that is mapped gets so many times what was asked for, so that it can grow in place. */
enum { ROOM_MAPPED = 4 };

void fs_data_room(struct sim_inode *i, uint64_t size)
{
	uint64_t room = i->room ? i->room : ROOM_FIRST;

	if (size <= i->room)
		return;
	if (i->mapped)
		panic("a mapped file grows beyond its room");
	while (room < size)
		room *= 2;
	if (i->room) {
		i->cache = sim_pages_grow(i->cache, i->room, room);
		i->disk = sim_pages_grow(i->disk, i->room, room);
		i->blocks = (uint8_t *)sim_pages_grow((char *)i->blocks, i->room / SIM_BLOCK,
						      room / SIM_BLOCK);
	} else {
		i->cache = sim_pages_new(room);
		i->disk = sim_pages_new(room);
		i->blocks = (uint8_t *)sim_pages_new(room / SIM_BLOCK);
	}
	i->room = room;
}

void fs_data_free(struct sim_inode *i)
{
	i->fs->used -= fs_charge(i, i->size);
	sim_pages_free(i->cache, i->room);
	sim_pages_free(i->disk, i->room);
	sim_pages_free((char *)i->blocks, i->room / SIM_BLOCK);
}

static void mark(struct sim_inode *i, uint64_t at, uint64_t n, unsigned flags)
{
	uint64_t first = at / SIM_BLOCK, end = (at + n + SIM_BLOCK - 1) / SIM_BLOCK;

	for (uint64_t b = first; b < end; b++)
		i->blocks[b] |= (uint8_t)flags;
	if (i->first == i->end) {
		i->first = first;
		i->end = end;
	} else {
		i->first = MIN(i->first, first);
		i->end = MAX(i->end, end);
	}
}

static enum err resize(struct sim_inode *i, uint64_t size)
{
	struct sim_fs *fs = i->fs;
	uint64_t before = fs_charge(i, i->size), after = fs_charge(i, size);

	if (after > before && fs->used + (after - before) > fs->limit)
		return ERR_FULL;
	fs->used = fs->used - before + after;
	i->size = size;
	return ERR_OK;
}

size_t sim_inode_read(const struct sim_inode *i, void *p, size_t n, uint64_t at)
{
	if (at >= i->size)
		return 0;
	n = (size_t)MIN((uint64_t)n, i->size - at);
	memcpy(p, i->cache + at, n);
	return n;
}

enum err sim_inode_write(struct sim_inode *i, const void *p, size_t n, uint64_t at)
{
	enum err err = ERR_OK;

	if (i->is_directory || i->flags & SIM_INODE_SEALED)
		return ERR_DENIED;
	if (n == 0)
		return ERR_OK;
	if (at + n > i->size && (err = resize(i, at + n)))
		return err;
	fs_data_room(i, at + n);
	memcpy(i->cache + at, p, n);
	mark(i, at, n, BLOCK_DIRTY | BLOCK_DIFFERS | BLOCK_CACHE);
	return ERR_OK;
}

/* What lies behind the new end reads as zeros if the file grows again. */
static void forget_behind(struct sim_inode *i, uint64_t size)
{
	uint64_t end = MIN((i->size + SIM_BLOCK - 1) / SIM_BLOCK, i->room / SIM_BLOCK);

	for (uint64_t b = size / SIM_BLOCK; b < end; b++) {
		uint64_t from = MAX(b * SIM_BLOCK, size);

		if (!(i->blocks[b] & (BLOCK_CACHE | BLOCK_DISK)))
			continue;
		memset(i->cache + from, 0, (size_t)((b + 1) * SIM_BLOCK - from));
		mark(i, from, 1, BLOCK_DIRTY | BLOCK_DIFFERS);
	}
}

enum err sim_inode_truncate(struct sim_inode *i, uint64_t size)
{
	enum err err;

	if (i->is_directory || i->flags & SIM_INODE_SEALED)
		return ERR_DENIED;
	if (size < i->size)
		forget_behind(i, size);
	if ((err = resize(i, size)))
		return err;
	fs_data_room(i, size);
	return ERR_OK;
}

enum err sim_inode_allocate(struct sim_inode *i, uint64_t at, uint64_t n)
{
	return at + n > i->size ? sim_inode_truncate(i, at + n) : ERR_OK;
}

static void sync_names(struct sim_inode *i)
{
	fs_entries_copy(&i->disk_names, &i->names);
	fs_changes_free(i);
}

void sim_inode_sync(struct sim_inode *i)
{
	bool differs = false;

	if (i->is_directory) {
		sync_names(i);
		return;
	}
	for (uint64_t b = i->first; b < i->end; b++) {
		if (i->blocks[b] & BLOCK_DIRTY) {
			memcpy(i->disk + b * SIM_BLOCK, i->cache + b * SIM_BLOCK, SIM_BLOCK);
			i->blocks[b] = BLOCK_CACHE | BLOCK_DISK;
		}
		differs |= i->blocks[b] & BLOCK_DIFFERS;
	}
	if (!differs)
		i->first = i->end = 0;
	i->disk_size = i->size;
}

void sim_inode_sync_range(struct sim_inode *i, uint64_t at, uint64_t n)
{
	for (uint64_t b = at / SIM_BLOCK; b * SIM_BLOCK < at + n; b++) {
		if (!(i->blocks[b] & BLOCK_DIRTY))
			continue;
		memcpy(i->disk + b * SIM_BLOCK, i->cache + b * SIM_BLOCK, SIM_BLOCK);
		i->blocks[b] = BLOCK_CACHE | BLOCK_DISK;
	}
	i->disk_size = i->size;
}

void sim_inode_sync_failed(struct sim_inode *i)
{
	for (uint64_t b = i->first; b < i->end; b++)
		i->blocks[b] &= (uint8_t)~BLOCK_DIRTY;
}

enum err sim_inode_map(struct sim_inode *i, uint64_t size, bool is_writable, char **out)
{
	if (size > i->room && i->mapped)
		return ERR_NO_MEMORY;
	if (size > i->room)
		fs_data_room(i, size * ROOM_MAPPED);
	/* What is written through the mapping comes past us. */
	if (is_writable)
		mark(i, 0, size, BLOCK_DIRTY | BLOCK_DIFFERS | BLOCK_CACHE);
	i->mapped++;
	*out = i->cache;
	return ERR_OK;
}

void sim_inode_unmap(struct sim_inode *i)
{
	if (i->mapped == 0)
		panic("unmapped more often than mapped");
	i->mapped--;
}
