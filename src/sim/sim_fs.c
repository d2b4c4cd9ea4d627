/* Inodes and names. Directories are small (a few dozen names), so they are lists; what is asked of
 * them most is asked of their newest entries. Every change of a directory is made in the list that
 * is seen, and noted beside it until the directory is synced. */
#include "sim/sim_fs_priv.h"

#include <stdio.h>

enum { ROOT_MODE = 0755, BLOCKS_OF_CHARGE = 4096 };

struct sim_inode *fs_inode_new(struct sim_fs *fs, unsigned mode, bool is_directory)
{
	struct sim_inode *i = sim_alloc(sizeof(*i));

	i->fs = fs;
	i->number = fs->next_number++;
	i->refs = 1;
	i->mode = mode;
	i->is_directory = is_directory;
	i->changes_end = &i->changes;
	return i;
}

enum err sim_fs_new(uint64_t size, uint64_t seed, struct sim_fs **out)
{
	struct sim_fs *fs = sim_alloc(sizeof(*fs));

	fs->limit = size;
	fs->next_number = 2;
	fs->random.state = seed;
	fs->root = fs_inode_new(fs, ROOT_MODE, true);
	fs->root->links = 1;
	*out = fs;
	return ERR_OK;
}

void sim_fs_free(struct sim_fs *fs)
{
	if (!fs)
		return;
	sim_inode_drop(fs->root);
	sim_release(fs);
}

void sim_fs_limit(struct sim_fs *fs, uint64_t size)
{
	fs->limit = size;
}

uint64_t sim_fs_size(const struct sim_fs *fs)
{
	return fs->limit;
}

uint64_t sim_fs_used(const struct sim_fs *fs)
{
	return fs->used;
}

struct sim_inode *sim_fs_root(struct sim_fs *fs)
{
	return fs->root;
}

struct sim_fs_counts sim_fs_counts(const struct sim_fs *fs)
{
	return fs->counts;
}

struct sim_inode *sim_inode_anonymous(struct sim_fs *fs)
{
	struct sim_inode *i = fs_inode_new(fs, 0600, false);

	i->is_anonymous = true;
	return i;
}

void sim_inode_hold(struct sim_inode *i)
{
	i->refs++;
}

void sim_inode_drop(struct sim_inode *i)
{
	if (!i || --i->refs)
		return;
	if (i->locks)
		panic("a file that is locked was freed");
	fs_entries_free(&i->names);
	fs_entries_free(&i->disk_names);
	fs_changes_free(i);
	fs_data_free(i);
	sim_release(i);
}

uint64_t fs_charge(const struct sim_inode *i, uint64_t size)
{
	if (i->is_anonymous || !i->links)
		return 0;
	return (size + BLOCKS_OF_CHARGE - 1) / BLOCKS_OF_CHARGE * BLOCKS_OF_CHARGE;
}

static void link_count(struct sim_inode *i, int by)
{
	struct sim_fs *fs = i->fs;

	fs->used -= fs_charge(i, i->size);
	i->links += (unsigned)by;
	fs->used += fs_charge(i, i->size);
}

/* ---- lists of names ---- */

struct entry *fs_entry(const struct entries *e, const char *name)
{
	for (size_t n = e->count; n-- > 0;)
		if (strcmp(e->at[n].name, name) == 0)
			return &e->at[n];
	return NULL;
}

static char *copy_name(const char *name)
{
	size_t n = strlen(name) + 1;

	return memcpy(sim_alloc(n), name, n);
}

void fs_entries_put(struct entries *e, const char *name, struct sim_inode *inode)
{
	struct entry *old = fs_entry(e, name);

	if (inode)
		sim_inode_hold(inode);
	if (old) {
		sim_inode_drop(old->inode);
		old->inode = inode;
		if (!inode) {
			sim_release(old->name);
			*old = e->at[--e->count];
		}
	} else if (inode) {
		if (e->count == e->room) {
			e->room = e->room ? e->room * 2 : 8;
			e->at = sim_grow(e->at, e->room * sizeof(*e->at));
		}
		e->at[e->count++] = (struct entry){ copy_name(name), inode };
	}
}

void fs_entries_copy(struct entries *to, const struct entries *from)
{
	fs_entries_free(to);
	for (size_t n = 0; n < from->count; n++)
		fs_entries_put(to, from->at[n].name, from->at[n].inode);
}

void fs_entries_free(struct entries *e)
{
	for (size_t n = 0; n < e->count; n++) {
		sim_release(e->at[n].name);
		sim_inode_drop(e->at[n].inode);
	}
	sim_release(e->at);
	*e = (struct entries){ 0 };
}

void fs_changes_free(struct sim_inode *dir)
{
	for (struct change *c = dir->changes, *next; c; c = next) {
		next = c->next;
		sim_inode_drop(c->inode);
		sim_release(c->removed);
		sim_release(c->made);
		sim_release(c);
	}
	dir->changes = NULL;
	dir->changes_end = &dir->changes;
}

static void change_note(struct sim_inode *dir, struct sim_inode *inode, const char *removed,
			const char *made)
{
	struct change *c = sim_alloc(sizeof(*c));

	c->inode = inode;
	sim_inode_hold(inode);
	c->removed = removed ? copy_name(removed) : NULL;
	c->made = made ? copy_name(made) : NULL;
	*dir->changes_end = c;
	dir->changes_end = &c->next;
}

/* Takes a name away, gives one, or (a rename) both. */
static void change(struct sim_inode *dir, struct sim_inode *inode, const char *removed,
		   const char *made)
{
	struct entry *replaced = made ? fs_entry(&dir->names, made) : NULL;

	change_note(dir, inode, removed, made);
	sim_inode_hold(inode);
	if (replaced)
		link_count(replaced->inode, -1);
	if (removed) {
		link_count(inode, -1);
		fs_entries_put(&dir->names, removed, NULL);
	}
	if (made) {
		link_count(inode, 1);
		fs_entries_put(&dir->names, made, inode);
	}
	sim_inode_drop(inode);
}

/* ---- paths ---- */

/* The directory that a path's last part is in, and that part; an empty one: the directory itself.
 */
static enum err walk(struct sim_fs *fs, struct sim_inode *dir, const char *path,
		     struct sim_inode **parent, char last[SIM_NAME_MAX + 1])
{
	struct sim_inode *at = *path == '/' || !dir ? fs->root : dir;

	last[0] = 0;
	for (;;) {
		const char *end;
		struct entry *e;

		while (*path == '/')
			path++;
		if (!*path)
			break;
		if (last[0]) {
			e = fs_entry(&at->names, last);
			if (!e || !e->inode->is_directory)
				return ERR_NOT_FOUND;
			at = e->inode;
		}
		end = path + strcspn(path, "/");
		if (end - path > SIM_NAME_MAX)
			return ERR_TOO_LONG;
		snprintf(last, SIM_NAME_MAX + 1, "%.*s", (int)(end - path), path);
		if (strcmp(last, ".") == 0)
			last[0] = 0;
		path = end;
	}
	if (!at->is_directory)
		return ERR_NOT_FOUND;
	*parent = at;
	return ERR_OK;
}

enum err sim_fs_find(struct sim_fs *fs, struct sim_inode *dir, const char *path,
		     struct sim_inode **out)
{
	char name[SIM_NAME_MAX + 1];
	struct sim_inode *parent;
	struct entry *e;
	enum err err = walk(fs, dir, path, &parent, name);

	if (err)
		return err;
	e = name[0] ? fs_entry(&parent->names, name) : NULL;
	if (name[0] && !e)
		return ERR_NOT_FOUND;
	*out = e ? e->inode : parent;
	return ERR_OK;
}

enum err sim_fs_create(struct sim_fs *fs, struct sim_inode *dir, const char *path, unsigned mode,
		       bool is_directory, struct sim_inode **out)
{
	char name[SIM_NAME_MAX + 1];
	struct sim_inode *parent, *i;
	enum err err = walk(fs, dir, path, &parent, name);

	if (err)
		return err;
	if (!name[0] || fs_entry(&parent->names, name))
		return ERR_EXISTS;
	if (fs->used >= fs->limit)
		return ERR_FULL;
	i = fs_inode_new(fs, mode, is_directory);
	change(parent, i, NULL, name);
	sim_inode_drop(i);
	*out = i;
	return ERR_OK;
}

enum err sim_fs_unlink(struct sim_fs *fs, struct sim_inode *dir, const char *path)
{
	char name[SIM_NAME_MAX + 1];
	struct sim_inode *parent;
	struct entry *e;
	enum err err = walk(fs, dir, path, &parent, name);

	if (err)
		return err;
	e = name[0] ? fs_entry(&parent->names, name) : NULL;
	if (!e)
		return ERR_NOT_FOUND;
	if (e->inode->is_directory)
		return ERR_IO;
	change(parent, e->inode, name, NULL);
	return ERR_OK;
}

enum err sim_fs_link(struct sim_fs *fs, struct sim_inode *dir, const char *from, const char *to)
{
	char name[SIM_NAME_MAX + 1];
	struct sim_inode *parent, *i;
	enum err err = sim_fs_find(fs, dir, from, &i);

	if (!err)
		err = walk(fs, dir, to, &parent, name);
	if (err)
		return err;
	if (!name[0] || fs_entry(&parent->names, name))
		return ERR_EXISTS;
	change(parent, i, NULL, name);
	return ERR_OK;
}

enum err sim_fs_rename(struct sim_fs *fs, struct sim_inode *dir, const char *from, const char *to)
{
	char old[SIM_NAME_MAX + 1], new[SIM_NAME_MAX + 1];
	struct sim_inode *before, *after;
	struct entry *e, *there;
	enum err err = walk(fs, dir, from, &before, old);

	if (!err)
		err = walk(fs, dir, to, &after, new);
	if (err)
		return err;
	e = old[0] ? fs_entry(&before->names, old) : NULL;
	if (!e || !new[0])
		return ERR_NOT_FOUND;
	there = fs_entry(&after->names, new);
	if (there && there->inode == e->inode)
		return ERR_OK;
	if (before == after) {
		change(before, e->inode, old, new);
		return ERR_OK;
	}
	/* Two changes, of which a power cut may keep either: journals do better. */
	change(after, e->inode, NULL, new);
	change(before, e->inode, old, NULL);
	return ERR_OK;
}

const char *sim_inode_name(const struct sim_inode *dir, size_t at)
{
	return at < dir->names.count ? dir->names.at[at].name : NULL;
}

/* ---- facts ---- */

struct sim_inode_facts sim_inode_facts(const struct sim_inode *i)
{
	return (struct sim_inode_facts){
		.number = i->number,
		.size = i->size,
		.modified = i->modified,
		.mode = i->mode,
		.links = i->links,
		.flags = i->flags,
		.is_directory = i->is_directory,
		.is_anonymous = i->is_anonymous,
		.is_socket = i->is_socket,
		.mapped = i->mapped,
	};
}

void sim_inode_touch(struct sim_inode *i, int64_t now)
{
	i->modified = now;
}

void sim_inode_chmod(struct sim_inode *i, unsigned mode)
{
	i->mode = mode;
}

void sim_inode_flag(struct sim_inode *i, unsigned flag, bool is_on)
{
	i->flags = is_on ? i->flags | flag : i->flags & ~flag;
}

void sim_inode_set_socket(struct sim_inode *i)
{
	i->is_socket = true;
}

void **sim_inode_locks(struct sim_inode *i)
{
	return &i->locks;
}
