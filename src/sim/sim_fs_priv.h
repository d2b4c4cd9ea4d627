/* Inside the simulated file system: sim_fs.c (inodes and names), sim_fs_data.c (contents),
 * sim_fs_cut.c (what a power cut leaves). */
#ifndef SIM_SIM_FS_PRIV_H
#define SIM_SIM_FS_PRIV_H

#include "sim/sim_fs.h"
#include "sim/sim_memory.h"

enum block_flags {
	BLOCK_DIRTY = 1,   /* the next sync writes it */
	BLOCK_DIFFERS = 2, /* the disk has something else */
	BLOCK_CACHE = 4,   /* the cache may have other bytes than zeros in it */
	BLOCK_DISK = 8,	   /* the disk may */
};

struct entry {
	char *name;
	struct sim_inode *inode;
};

struct entries {
	struct entry *at;
	size_t count, room;
};

/* A change of a directory that is not synced. */
struct change {
	struct change *next;
	struct sim_inode *inode;
	char *removed, *made; /* names, or NULL: made, removed; both: renamed */
};

struct sim_inode {
	struct sim_fs *fs;
	uint64_t number;
	unsigned refs, links, mode, flags;
	bool is_directory, is_anonymous, is_socket;
	int64_t modified;
	void *locks;
	/* a file */
	char *cache, *disk;
	uint64_t room; /* of both, in bytes, and of `blocks` */
	uint64_t size, disk_size;
	uint8_t *blocks;
	uint64_t first, end; /* blocks outside have no flag DIRTY or DIFFERS */
	uint32_t mapped;
	/* a directory */
	struct entries names, disk_names;
	struct change *changes, **changes_end;
};

struct sim_fs {
	uint64_t limit, used, next_number;
	struct sim_inode *root;
	struct sim_random random;
	struct sim_fs_counts counts;
};

struct sim_inode *fs_inode_new(struct sim_fs *fs, unsigned mode, bool is_directory);
/* Room for so many bytes, without changing the size. */
void fs_data_room(struct sim_inode *i, uint64_t size);
void fs_data_free(struct sim_inode *i);
/* The disk's room that a file of this size takes. */
uint64_t fs_charge(const struct sim_inode *i, uint64_t size);

struct entry *fs_entry(const struct entries *e, const char *name);
/* Sets or (inode NULL) removes. */
void fs_entries_put(struct entries *e, const char *name, struct sim_inode *inode);
void fs_entries_copy(struct entries *to, const struct entries *from);
void fs_entries_free(struct entries *e);
void fs_changes_free(struct sim_inode *dir);

#endif
