/* Reading the index.
 *
 * Main reads LMDB itself: a read is a look into memory that is mapped, 1 to 2 microseconds when the
 * pages are there. One snapshot is kept for the length of one operation: longer, and the checkpoint
 * could not use the pages again that it frees; shorter, and slices would not last.
 *
 * A file that is shorter than its own description would kill us with SIGBUS at a later read, so
 * that is checked when it is opened.
 */
#include "store/index_priv.h"

#include "store/crc32c.h"
#include "store/records_priv.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct index_reader {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	bool is_active, has_dbi, is_damaged, is_borrowed;
};

struct index_cursor {
	struct index_reader *reader;
	MDB_cursor *cursor;
	MDB_val key, value;
	int state;
};

enum { INDEX_PATH_MAX = 4096 };
#define INDEX_FILE "index/data.mdb"

static enum err err_from_mdb(int rc)
{
	switch (rc) {
	case 0:
		return ERR_OK;
	case MDB_NOTFOUND:
		return ERR_NOT_FOUND;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
	case MDB_PANIC:
		return ERR_DAMAGED;
	case MDB_READERS_FULL:
		return ERR_BUSY;
	default:
		return rc > 0 ? err_from_errno(rc) : ERR_IO;
	}
}

/* Damage is remembered: who asks something else next must not be served from the same file. */
static enum err noted(struct index_reader *x, enum err err)
{
	if (err == ERR_DAMAGED)
		x->is_damaged = true;
	return err;
}

static enum err snapshot(struct index_reader *x)
{
	int rc;

	if (x->is_damaged)
		return ERR_DAMAGED;
	if (x->is_active)
		return ERR_OK;
	for (int tries = 0; tries < 2; tries++) {
		rc = x->txn ? mdb_txn_renew(x->txn)
			    : mdb_txn_begin(x->env, NULL, MDB_RDONLY, &x->txn);
		if (rc != MDB_MAP_RESIZED)
			break;
		/* The checkpoint made the map larger: take its size over. */
		rc = mdb_env_set_mapsize(x->env, 0);
		if (rc)
			break;
	}
	if (!rc && !x->has_dbi) {
		rc = mdb_dbi_open(x->txn, NULL, 0, &x->dbi);
		x->has_dbi = rc == 0;
	}
	x->is_active = rc == 0;
	return noted(x, err_from_mdb(rc));
}

uint64_t index_size(const struct index_reader *x)
{
	MDB_envinfo info;
	MDB_stat stat;

	return mdb_env_info(x->env, &info) || mdb_env_stat(x->env, &stat)
		       ? 0
		       : ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

/* Ours, and as long as it says. */
static enum err verify(struct index_reader *x, const char *path, const struct identity *id)
{
	char file[INDEX_PATH_MAX];
	char want[IDENTITY_SIZE];
	struct key k = key_make(KIND_INDEX);
	MDB_envinfo info;
	MDB_stat stat_;
	struct stat st;
	str value;
	enum err err;

	snprintf(file, sizeof(file), "%s/" INDEX_FILE, path);
	if (mdb_env_info(x->env, &info) || mdb_env_stat(x->env, &stat_) || stat(file, &st))
		return ERR_DAMAGED;
	if ((uint64_t)st.st_size < ((uint64_t)info.me_last_pgno + 1) * stat_.ms_psize)
		return ERR_DAMAGED;
	k.p[k.n++] = 'i';
	if ((err = index_get(x, key_str(&k), &value)))
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	identity_put(want, id);
	return value.n == INDEX_ID_SIZE && value.p[0] == INDEX_LAYOUT &&
			       str_eq(str_from(value, 1), str_of(want, sizeof(want)))
		       ? ERR_OK
		       : ERR_DAMAGED;
}

static enum err environment_open(const char *path, struct index_reader *x)
{
	char directory[INDEX_PATH_MAX], file[INDEX_PATH_MAX];
	struct stat st;
	enum err err;

	snprintf(directory, sizeof(directory), "%s/index", path);
	snprintf(file, sizeof(file), "%s/" INDEX_FILE, path);
	if (stat(file, &st) || st.st_size == 0)
		return ERR_NOT_FOUND;
	err = err_from_mdb(mdb_env_create(&x->env));
	return err ? err
		   : err_from_mdb(mdb_env_open(x->env, directory, MDB_RDONLY | MDB_NOTLS, 0600));
}

enum err index_identity(const char *path, struct identity *out)
{
	struct index_reader x = { .env = NULL };
	struct key k = key_make(KIND_INDEX);
	str value;
	enum err err = environment_open(path, &x);

	k.p[k.n++] = 'i';
	if (!err)
		err = index_get(&x, key_str(&k), &value);
	if (!err)
		err = value.n == INDEX_ID_SIZE ? identity_get(str_from(value, 1), out)
					       : ERR_DAMAGED;
	if (x.txn)
		mdb_txn_abort(x.txn);
	if (x.env)
		mdb_env_close(x.env);
	return err;
}

bool index_is_damaged(const struct index_reader *x)
{
	return x && x->is_damaged;
}

enum err index_reader_open(const char *path, const struct identity *id, struct index_reader **out)
{
	struct index_reader *x = calloc(1, sizeof(*x));
	enum err err;

	if (!x)
		return ERR_NO_MEMORY;
	err = environment_open(path, x);
	if (!err)
		err = verify(x, path, id);
	if (err) {
		index_reader_close(x);
		return err;
	}
	index_release(x);
	*out = x;
	return ERR_OK;
}

enum err index_reader_borrow(struct MDB_env *env, struct index_reader **out)
{
	struct index_reader *x = calloc(1, sizeof(*x));

	if (!x)
		return ERR_NO_MEMORY;
	x->env = env;
	x->is_borrowed = true;
	*out = x;
	return ERR_OK;
}

void index_reader_close(struct index_reader *x)
{
	if (!x)
		return;
	if (x->txn)
		mdb_txn_abort(x->txn);
	if (x->env && !x->is_borrowed)
		mdb_env_close(x->env);
	free(x);
}

void index_release(struct index_reader *x)
{
	if (!x)
		return;
	if (x->is_active)
		mdb_txn_reset(x->txn);
	x->is_active = false;
}

/* LMDB takes keys as pointers to what it does not change. */
static MDB_val val_of(str s)
{
	return (MDB_val){ s.n, (void *)(uintptr_t)s.p };
}

uint32_t index_crc(str key, uint32_t segment, str value)
{
	char bytes[4];

	put_le32(bytes, segment);
	return crc32c(crc32c(crc32c(0, key), str_of(bytes, sizeof(bytes))), value);
}

static enum err value_take(struct index_reader *x, str key, const MDB_val *v, str *value)
{
	const char *p = v->mv_data;

	if (v->mv_size < INDEX_PREFIX || v->mv_size > INDEX_PREFIX + RECORD_VALUE_MAX)
		return noted(x, ERR_DAMAGED);
	*value = str_of(p + INDEX_PREFIX, v->mv_size - INDEX_PREFIX);
	return noted(x,
		     get_le32(p + 4) == index_crc(key, get_le32(p), *value) ? ERR_OK : ERR_DAMAGED);
}

/* A key that was spoilt on the disk is not found. The search for it ends beside it, so both
 * neighbours are looked at before 'not found' is said: an account that only seems not to be there
 * must not be made anew. */
static enum err absence_check(struct index_reader *x, str key)
{
	MDB_val k = val_of(key), v;
	MDB_cursor *cursor;
	str value;
	int rc = mdb_cursor_open(x->txn, x->dbi, &cursor);
	enum err err = ERR_OK;

	if (rc)
		return noted(x, err_from_mdb(rc));
	rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
	if (!rc)
		err = value_take(x, str_of(k.mv_data, k.mv_size), &v, &value);
	if (!err && (!rc || rc == MDB_NOTFOUND))
		rc = mdb_cursor_get(cursor, &k, &v, rc ? MDB_LAST : MDB_PREV);
	if (!err && !rc)
		err = value_take(x, str_of(k.mv_data, k.mv_size), &v, &value);
	mdb_cursor_close(cursor);
	if (err || !rc || rc == MDB_NOTFOUND)
		return err;
	return noted(x, err_from_mdb(rc));
}

enum err index_get(struct index_reader *x, str key, str *value)
{
	MDB_val k = val_of(key), v;
	enum err err = snapshot(x), neighbours;

	if (!err)
		err = noted(x, err_from_mdb(mdb_get(x->txn, x->dbi, &k, &v)));
	if (err == ERR_NOT_FOUND && (neighbours = absence_check(x, key)))
		return neighbours;
	return err ? err : value_take(x, key, &v, value);
}

enum err index_get_segment(struct index_reader *x, str key, str *value, uint32_t *segment)
{
	enum err err = index_get(x, key, value);

	if (!err)
		*segment = get_le32(value->p - INDEX_PREFIX);
	return err;
}

enum err index_covered(struct index_reader *x, struct log_place *out)
{
	struct key k = key_make(KIND_INDEX);
	struct unpack u;
	enum err err;

	k.p[k.n++] = 'c';
	if ((err = index_get(x, key_str(&k), &u.rest)))
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	u.failed = false;
	out->position = unpack_le64(&u);
	out->number = unpack_le64(&u);
	out->chain = (uint32_t)unpack_le64(&u);
	return u.failed ? ERR_DAMAGED : ERR_OK;
}

enum err index_usage(struct index_reader *x, uint32_t segment, struct segment_usage *out)
{
	struct key k = key_make(KIND_INDEX);
	struct unpack u = { .failed = false };
	enum err err;

	*out = (struct segment_usage){ 0 };
	k.p[k.n++] = 'u';
	key_number(&k, segment);
	err = index_get(x, key_str(&k), &u.rest);
	if (err)
		return err == ERR_NOT_FOUND ? ERR_OK : err;
	out->records = unpack_varint(&u);
	out->deletes = unpack_varint(&u);
	out->blobs = unpack_varint(&u);
	out->bytes = unpack_varint(&u);
	out->record_bytes = unpack_varint(&u);
	out->delete_bytes = unpack_varint(&u);
	out->plain_bytes = unpack_varint(&u);
	return u.failed ? ERR_DAMAGED : ERR_OK;
}

enum err index_cursor_open(struct index_reader *x, str from, struct index_cursor **out)
{
	struct index_cursor *c;
	enum err err = snapshot(x);

	if (err)
		return err;
	c = calloc(1, sizeof(*c));
	if (!c)
		return ERR_NO_MEMORY;
	if ((err = noted(x, err_from_mdb(mdb_cursor_open(x->txn, x->dbi, &c->cursor))))) {
		free(c);
		return err;
	}
	c->reader = x;
	c->key = val_of(from);
	c->state =
		mdb_cursor_get(c->cursor, &c->key, &c->value, from.n ? MDB_SET_RANGE : MDB_FIRST);
	*out = c;
	return ERR_OK;
}

void index_cursor_close(struct index_cursor *c)
{
	if (!c)
		return;
	mdb_cursor_close(c->cursor);
	free(c);
}

enum err index_cursor_get(struct index_cursor *c, str *key, str *value)
{
	if (c->state == MDB_NOTFOUND)
		return ERR_EOF;
	if (c->state)
		return noted(c->reader, err_from_mdb(c->state));
	*key = str_of(c->key.mv_data, c->key.mv_size);
	return value_take(c->reader, *key, &c->value, value);
}

uint32_t index_cursor_segment(const struct index_cursor *c)
{
	return get_le32(c->value.mv_data);
}

enum err index_cursor_next(struct index_cursor *c)
{
	if (c->state)
		return c->state == MDB_NOTFOUND ? ERR_EOF : err_from_mdb(c->state);
	c->state = mdb_cursor_get(c->cursor, &c->key, &c->value, MDB_NEXT);
	return c->state && c->state != MDB_NOTFOUND ? noted(c->reader, err_from_mdb(c->state))
						    : ERR_OK;
}
