/* A file system in memory that knows what a power cut would leave.
 *
 * Each file has two contents: what reads see (the page cache), and what the disk has for certain.
 * They differ by what was written since the last sync, in blocks of 512 bytes, and by the size. A
 * directory has its entries, and the list of changes (made, removed, renamed) since it was last
 * synced; a file's sync does not cover its name.
 *
 * sim_fs_cut makes the present be what a power cut leaves: of each file an arbitrary subset of the
 * blocks that were not synced, some of them torn, and a size between the old and the new one; of
 * each directory an arbitrary subset of the changes, in their order. A rename is one change: both
 * names move or neither does. What was synced stays, always.
 *
 * Inodes are counted: whoever keeps a pointer holds it (sim_inode_hold) and drops it.
 */
#ifndef SIM_SIM_FS_H
#define SIM_SIM_FS_H

#include "base/err.h"
#include "sim/sim_random.h"

enum { SIM_BLOCK = 512, SIM_NAME_MAX = 255 };

struct sim_fs;
struct sim_inode;

struct sim_fs_counts {
	uint64_t dirty_blocks, kept_blocks, torn_blocks, names_lost;
};

MUST_USE enum err sim_fs_new(uint64_t size, uint64_t seed, struct sim_fs **out);
void sim_fs_free(struct sim_fs *fs);
void sim_fs_limit(struct sim_fs *fs, uint64_t size);
uint64_t sim_fs_size(const struct sim_fs *fs);
uint64_t sim_fs_used(const struct sim_fs *fs);
struct sim_inode *sim_fs_root(struct sim_fs *fs);
struct sim_fs_counts sim_fs_counts(const struct sim_fs *fs);

/* The power is gone. Nobody may have a file open. */
void sim_fs_cut(struct sim_fs *fs);
/* Everything is synced. */
void sim_fs_sync_all(struct sim_fs *fs);
/* A copy of what the disk has for certain; and the disk made so again. */
struct sim_fs *sim_fs_copy(const struct sim_fs *fs);
void sim_fs_restore(struct sim_fs *fs, const struct sim_fs *from);

/* Names: `path` relative to `dir` (NULL: the root), or absolute. */
MUST_USE enum err sim_fs_find(struct sim_fs *fs, struct sim_inode *dir, const char *path,
			      struct sim_inode **out);
/* An empty file; ERR_EXISTS. ERR_FULL: no room for another name. */
MUST_USE enum err sim_fs_create(struct sim_fs *fs, struct sim_inode *dir, const char *path,
				unsigned mode, bool is_directory, struct sim_inode **out);
MUST_USE enum err sim_fs_unlink(struct sim_fs *fs, struct sim_inode *dir, const char *path);
MUST_USE enum err sim_fs_link(struct sim_fs *fs, struct sim_inode *dir, const char *from,
			      const char *to);
/* Within one directory it is one change. */
MUST_USE enum err sim_fs_rename(struct sim_fs *fs, struct sim_inode *dir, const char *from,
				const char *to);
/* The names of a directory, one after the other. NULL: there are no more. */
const char *sim_inode_name(const struct sim_inode *dir, size_t at);

/* A file without a name: a memfd. It takes no room on the disk. */
struct sim_inode *sim_inode_anonymous(struct sim_fs *fs);
void sim_inode_hold(struct sim_inode *i);
void sim_inode_drop(struct sim_inode *i); /* NULL is allowed */

size_t sim_inode_read(const struct sim_inode *i, void *p, size_t n, uint64_t at);
MUST_USE enum err sim_inode_write(struct sim_inode *i, const void *p, size_t n, uint64_t at);
MUST_USE enum err sim_inode_truncate(struct sim_inode *i, uint64_t size);
MUST_USE enum err sim_inode_allocate(struct sim_inode *i, uint64_t at, uint64_t n);
/* Of a file: contents and size. Of a directory: its names. */
void sim_inode_sync(struct sim_inode *i);
/* These bytes alone, and the size (O_DSYNC). */
void sim_inode_sync_range(struct sim_inode *i, uint64_t at, uint64_t n);
/* A sync that failed: the disk got nothing, and nothing is dirty any more. */
void sim_inode_sync_failed(struct sim_inode *i);
/* Its contents as memory that stays in place for as long as it is mapped. Once it is writable, all
 * of it counts as not synced until the next sync: nobody here syncs what is written so (the shared
 * memory of SQLite, LMDB's locks). */
MUST_USE enum err sim_inode_map(struct sim_inode *i, uint64_t size, bool is_writable, char **out);
void sim_inode_unmap(struct sim_inode *i);

enum {
	SIM_INODE_TORN = 1, /* a power cut may tear its blocks within their 512 bytes too */
	SIM_INODE_SEALED = 2,
	SIM_INODE_LIBRARY = 4, /* opened past os.h: never torn */
};

struct sim_inode_facts {
	uint64_t number, size;
	int64_t modified; /* what sim_inode_touch said */
	unsigned mode, links, flags;
	bool is_directory, is_anonymous, is_socket;
	uint32_t mapped;
};
struct sim_inode_facts sim_inode_facts(const struct sim_inode *i);
void sim_inode_touch(struct sim_inode *i, int64_t now);
void sim_inode_chmod(struct sim_inode *i, unsigned mode);
void sim_inode_flag(struct sim_inode *i, unsigned flag, bool is_on);
void sim_inode_set_socket(struct sim_inode *i);

/* For the layers above: locks (sim_locks.c) hang here. */
void **sim_inode_locks(struct sim_inode *i);

#endif
