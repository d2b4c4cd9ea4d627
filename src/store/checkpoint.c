/* Bringing the index up to a position of the log: checkpoints, recovery of an index that is far
 * behind, and rebuilding one that is missing are this same code.
 *
 * Frames are read, the newest version of each key is gathered in order, and then written in one
 * pass with the position that it covers, in one synced transaction. In order, because neighbours
 * share pages: a page is copied and written once for each transaction that touches it, so a large
 * checkpoint over 10,000 accounts costs a fraction of many small ones.
 *
 * The same pass keeps the accounts of segments: which hold the newest record of a key, which hold
 * something that a record refers to. The log carries no such accounts; they are a function of it.
 */
#include "store/index_priv.h"

#include "base/mutant.h"
#include "store/overlay.h"
#include "store/records_priv.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	PATH_SIZE = 4096,
	GATHER_MAX = 1024 * 1024 * 1024, /* memory while one transaction is gathered */
#ifdef POSTHORN_SIM
	INDEX_RESERVE_SIZE = 512 * 1024,
	INDEX_AHEAD = 256 * 1024,
#else
	INDEX_AHEAD = 1024 * 1024, /* the file is longer than what it holds, without blocks */
	INDEX_RESERVE_SIZE = 16 * 1024 * 1024,
#endif
	RECORD_OVERHEAD = 4, /* operation and lengths */
	READ_PIECE = 1024 * 1024,
};
#define INDEX_MAP_FIRST ((size_t)1 << 32)
#define INDEX_RESERVE	"index/reserve"
#define INDEX_FILE	"index/data.mdb"

struct index_writer {
	int dir, log_dir;
	MDB_env *env;
	MDB_dbi dbi;
	const struct identity *identity;
	const struct log *log;
	size_t map_size;
};

/* What one transaction changes in the accounts. */
struct usage_change {
	uint32_t segment;
	int64_t records, deletes, blobs, bytes, record_bytes, delete_bytes, plain_bytes;
};

struct apply {
	struct index_writer *x;
	MDB_txn *txn;
	struct usage_change *usage;
	size_t usage_count, usage_size;
	struct buf value;
};

static enum err err_from_mdb(int rc)
{
	if (rc == 0)
		return ERR_OK;
	return rc > 0 ? err_from_errno(rc) : rc == MDB_NOTFOUND ? ERR_NOT_FOUND : ERR_DAMAGED;
}

static MDB_val val_of(str s)
{
	return (MDB_val){ s.n, (void *)(uintptr_t)s.p };
}

enum err index_discard(int dir)
{
	enum err err = os_unlink(dir, INDEX_FILE);

	if (err && err != ERR_NOT_FOUND)
		return err;
	err = os_unlink(dir, "index/lock.mdb");
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static int put_own(MDB_txn *txn, MDB_dbi dbi, struct key *k, str content)
{
	char bytes[128] = { 0 };
	MDB_val key = val_of(key_str(k)), value = { content.n + INDEX_PREFIX, bytes };

	put_le32(bytes + 4, index_crc(key_str(k), 0, content));
	memcpy(bytes + INDEX_PREFIX, content.p, content.n);
	return mdb_put(txn, dbi, &key, &value, 0);
}

/* An index of its own store, covering nothing. */
static enum err index_start(struct index_writer *x)
{
	struct key id = key_make(KIND_INDEX), covered = key_make(KIND_INDEX);
	MDB_val key, value;
	char none[24] = { 0 }, own[INDEX_ID_SIZE] = { INDEX_LAYOUT };
	MDB_txn *txn;
	int rc;

	identity_put(own + 1, x->identity);

	id.p[id.n++] = 'i';
	covered.p[covered.n++] = 'c';
	if ((rc = mdb_txn_begin(x->env, NULL, 0, &txn)))
		return err_from_mdb(rc);
	rc = mdb_dbi_open(txn, NULL, 0, &x->dbi);
	key = val_of(key_str(&id));
	if (!rc)
		rc = mdb_get(txn, x->dbi, &key, &value);
	if (rc == 0) {
		bool is_ours = value.mv_size == INDEX_PREFIX + sizeof(own) &&
			       memcmp((char *)value.mv_data + INDEX_PREFIX, own, sizeof(own)) == 0;

		rc = mdb_txn_commit(txn);
		return rc ? err_from_mdb(rc) : is_ours ? ERR_OK : ERR_DAMAGED;
	}
	if (rc == MDB_NOTFOUND)
		rc = put_own(txn, x->dbi, &id, str_of(own, sizeof(own)));
	if (!rc)
		rc = put_own(txn, x->dbi, &covered, str_of(none, sizeof(none)));
	if (rc) {
		mdb_txn_abort(txn);
		return err_from_mdb(rc);
	}
	return err_from_mdb(mdb_txn_commit(txn));
}

static enum err env_open(struct index_writer *x, const char *path)
{
	char directory[PATH_SIZE];
	int rc = mdb_env_create(&x->env);
	MDB_envinfo info;

	if (rc)
		return ERR_NO_MEMORY;
	snprintf(directory, sizeof(directory), "%s/index", path);
	rc = mdb_env_set_mapsize(x->env, INDEX_MAP_FIRST);
	if (!rc)
		rc = mdb_env_open(x->env, directory, MDB_NOTLS, 0600);
	if (!rc)
		rc = mdb_env_info(x->env, &info);
	if (rc)
		return err_from_mdb(rc);
	x->map_size = info.me_mapsize;
	return index_start(x);
}

static void env_close(struct index_writer *x)
{
	if (x->env)
		mdb_env_close(x->env);
	x->env = NULL;
}

/* The room that is kept for the day when the disk is full. */
static void reserve_make(struct index_writer *x)
{
	struct os_stat st;
	int fd;

	if (os_stat(x->dir, INDEX_RESERVE, &st) == ERR_OK ||
	    os_open(x->dir, INDEX_RESERVE, OS_WRITE | OS_CREATE, &fd))
		return;
	if (os_allocate(fd, 0, INDEX_RESERVE_SIZE) && os_unlink(x->dir, INDEX_RESERVE) && x->log)
		log_warn(x->log, "store-reserve-missing", "file=%s", INDEX_RESERVE);
	os_close(fd);
}

/* The name of a new one must be as durable as what it covers: a power cut that brought back the one
 * before would bring back what was deleted, in segments that are gone meanwhile. And whoever made
 * it may have died before this. */
static enum err name_sync(const struct index_writer *x)
{
	int fd;
	enum err err = os_open(x->dir, "index", OS_READ | OS_DIRECTORY, &fd);

	if (err)
		return err;
	err = MUTANT(index_name_not_synced) ? ERR_OK : os_fsync(fd);
	os_close(fd);
	return err;
}

enum err index_writer_open(int dir, const char *path, const struct identity *id,
			   const struct log *log, bool may_create, struct index_writer **out)
{
	struct index_writer *x = calloc(1, sizeof(*x));
	struct index_reader *probe = NULL;
	enum err err;

	if (!x)
		return ERR_NO_MEMORY;
	*x = (struct index_writer){ .dir = dir, .log_dir = dir, .identity = id, .log = log };
	err = os_mkdir(dir, "index", 0700);
	if (!err || err == ERR_EXISTS)
		err = index_reader_open(path, id, &probe);
	index_reader_close(probe);
	if (err == ERR_DAMAGED && log)
		log_error(log, "store-index-damaged", "file=index/data.mdb action=rebuild");
	if (err == ERR_DAMAGED && may_create)
		err = index_discard(dir);
	if (!err || (err == ERR_NOT_FOUND && may_create))
		err = env_open(x, path);
	if (!err)
		err = name_sync(x);
	if (err) {
		index_writer_close(x);
		return err;
	}
	reserve_make(x);
	*out = x;
	return ERR_OK;
}

enum err index_writer_reader(struct index_writer *x, struct index_reader **out)
{
	return index_reader_borrow(x->env, out);
}

void index_writer_read_from(struct index_writer *x, int log_dir)
{
	x->log_dir = log_dir;
}

void index_writer_close(struct index_writer *x)
{
	if (!x)
		return;
	env_close(x);
	free(x);
}

/* From end to end, so that its pages are in memory: a page at a time, in the order of keys, a disk
 * takes several times as long, and until then the store waits for each page that it needs. Whatever
 * goes wrong here is met again when the pages are looked at. */
static void read_through(struct index_writer *x)
{
	char *piece = malloc(READ_PIECE);
	uint64_t at = 0;
	size_t n = 1;
	int fd = -1;

	if (piece && os_open(x->dir, INDEX_FILE, OS_READ, &fd) == ERR_OK)
		while (n && os_pread(fd, piece, READ_PIECE, at, &n) == ERR_OK)
			at += n;
	os_close(fd);
	free(piece);
}

enum err index_check(struct index_writer *x)
{
	MDB_cursor *cursor = NULL;
	MDB_val k, v, found;
	MDB_txn *txn;
	enum err err = ERR_OK;
	int rc;

	read_through(x);
	rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn);
	if (rc)
		return err_from_mdb(rc);
	rc = mdb_cursor_open(txn, x->dbi, &cursor);
	while (!rc && !err && !(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
		str key = str_of(k.mv_data, k.mv_size), stored = str_of(v.mv_data, v.mv_size);

		if (stored.n < INDEX_PREFIX || stored.n > INDEX_PREFIX + RECORD_VALUE_MAX ||
		    get_le32(stored.p + 4) !=
			    index_crc(key, get_le32(stored.p), str_from(stored, INDEX_PREFIX)))
			err = ERR_DAMAGED;
		/* It must be found as well: the pages on the way to it are looked at. */
		if (!err && (mdb_get(txn, x->dbi, &k, &found) || found.mv_data != v.mv_data))
			err = ERR_DAMAGED;
	}
	if (cursor)
		mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return err || rc == MDB_NOTFOUND ? err : err_from_mdb(rc);
}

static enum err usage_add(struct apply *a, uint32_t segment, struct usage_change by)
{
	struct usage_change *u = NULL;

	/* Few segments in one transaction, and the last one found is nearly always the one wanted.
	 */
	for (size_t i = a->usage_count; i-- > 0 && !u;)
		if (a->usage[i].segment == segment)
			u = &a->usage[i];
	if (!u) {
		if (a->usage_count == a->usage_size) {
			size_t size = a->usage_size ? a->usage_size * 2 : 64;
			struct usage_change *grown = realloc(a->usage, size * sizeof(*grown));

			if (!grown)
				return ERR_NO_MEMORY;
			a->usage = grown;
			a->usage_size = size;
		}
		u = &a->usage[a->usage_count++];
		*u = (struct usage_change){ .segment = segment };
	}
	u->records += by.records;
	u->deletes += by.deletes;
	u->blobs += by.blobs;
	u->bytes += by.bytes;
	u->record_bytes += by.record_bytes;
	u->delete_bytes += by.delete_bytes;
	u->plain_bytes += by.plain_bytes;
	return ERR_OK;
}

/* A version comes (sign 1) or goes (-1). `stored`: with its segment in front. */
static enum err account_for(struct apply *a, str key, str stored, int64_t sign)
{
	str value = str_from(stored, INDEX_PREFIX);
	uint32_t segment;
	uint64_t bytes;
	int64_t size = (int64_t)(key.n + value.n + RECORD_OVERHEAD), refers;
	enum err err =
		usage_add(a, get_le32(stored.p),
			  (struct usage_change){ .records = sign, .record_bytes = sign * size });

	if (err || !record_refers(key, value, &segment, &bytes))
		return err;
	refers = sign * (int64_t)bytes;
	return usage_add(a, segment,
			 (struct usage_change){ .blobs = sign,
						.bytes = refers,
						.plain_bytes =
							body_is_plain(key, value) ? refers : 0 });
}

static enum err apply_entry(struct apply *a, MDB_cursor *cursor, const struct entry *e)
{
	const struct version *v = e->newest;
	str key = entry_key(e), stored = str_of(v->value, v->size);
	MDB_val k = val_of(key), old, value = val_of(stored);
	int rc = mdb_cursor_get(cursor, &k, &old, MDB_SET);
	enum err err = ERR_OK;

	if (rc == 0 && old.mv_size >= INDEX_PREFIX)
		err = account_for(a, key, str_of(old.mv_data, old.mv_size), -1);
	if (err || (rc && rc != MDB_NOTFOUND))
		return err ? err : err_from_mdb(rc);
	if (v->is_deleted) {
		if (rc == 0)
			rc = mdb_cursor_del(cursor, 0);
		else
			rc = 0;
		return err_from_mdb(rc);
	}
	k = val_of(key);
	rc = mdb_cursor_put(cursor, &k, &value, 0);
	if (rc)
		return rc == MDB_MAP_FULL ? ERR_AGAIN : err_from_mdb(rc);
	return account_for(a, key, stored, 1);
}

static uint64_t changed(uint64_t value, int64_t by)
{
	return by < 0 && value < (uint64_t)-by ? 0 : value + (uint64_t)by;
}

static int usage_write(struct apply *a, const struct usage_change *u)
{
	struct key k = key_make(KIND_INDEX);
	struct unpack old = { .failed = false };
	MDB_val key, value;
	int rc;

	k.p[k.n++] = 'u';
	key_number(&k, u->segment);
	key = val_of(key_str(&k));
	rc = mdb_get(a->txn, a->x->dbi, &key, &value);
	if (rc == 0 && value.mv_size > INDEX_PREFIX)
		old.rest =
			str_of((char *)value.mv_data + INDEX_PREFIX, value.mv_size - INDEX_PREFIX);
	else if (rc && rc != MDB_NOTFOUND)
		return rc;
	buf_clear(&a->value);
	pack_varint(&a->value, changed(unpack_varint(&old), u->records));
	pack_varint(&a->value, changed(unpack_varint(&old), u->deletes));
	pack_varint(&a->value, changed(unpack_varint(&old), u->blobs));
	pack_varint(&a->value, changed(unpack_varint(&old), u->bytes));
	pack_varint(&a->value, changed(unpack_varint(&old), u->record_bytes));
	pack_varint(&a->value, changed(unpack_varint(&old), u->delete_bytes));
	pack_varint(&a->value, changed(unpack_varint(&old), u->plain_bytes));
	return buf_failed(&a->value) ? ENOMEM : put_own(a->txn, a->x->dbi, &k, buf_str(&a->value));
}

static int covered_write(struct apply *a, const struct log_place *place)
{
	struct key k = key_make(KIND_INDEX);

	k.p[k.n++] = 'c';
	buf_clear(&a->value);
	buf_add_le64(&a->value, place->position);
	buf_add_le64(&a->value, place->number);
	buf_add_le64(&a->value, place->chain);
	return buf_failed(&a->value) ? ENOMEM : put_own(a->txn, a->x->dbi, &k, buf_str(&a->value));
}

/* One attempt. ERR_AGAIN: the map is too small. */
static enum err apply_once(struct apply *a, const struct overlay *changes,
			   const struct usage_change *deletes, size_t delete_count,
			   const struct log_place *place)
{
	MDB_cursor *cursor = NULL;
	int rc = mdb_txn_begin(a->x->env, NULL, 0, &a->txn);
	enum err err;

	if (rc)
		return err_from_mdb(rc);
	a->usage_count = 0;
	err = err_from_mdb(mdb_cursor_open(a->txn, a->x->dbi, &cursor));
	for (struct entry *e = overlay_seek(changes, STR_EMPTY); e && !err; e = entry_next(e))
		err = apply_entry(a, cursor, e);
	if (cursor)
		mdb_cursor_close(cursor);
	for (size_t i = 0; i < delete_count && !err; i++)
		err = usage_add(a, deletes[i].segment, deletes[i]);
	rc = 0;
	for (size_t i = 0; i < a->usage_count && !err && !rc; i++)
		rc = usage_write(a, &a->usage[i]);
	if (!err && !rc)
		rc = covered_write(a, place);
	if (err || rc) {
		mdb_txn_abort(a->txn);
		return err ? err : rc == MDB_MAP_FULL ? ERR_AGAIN : err_from_mdb(rc);
	}
	rc = mdb_txn_commit(a->txn);
	return rc == MDB_MAP_FULL ? ERR_AGAIN : err_from_mdb(rc);
}

/* Pages at the end that a transaction took and gave back are never written, and the file may end
 * before them: then it cannot be told from one that was cut (index.c). So it is made long enough
 * before, and should that not have been enough, behind. */
static enum err length_keep(const struct index_writer *x, uint64_t ahead)
{
	MDB_envinfo info;
	MDB_stat stat;
	struct os_stat st;
	uint64_t wanted;
	int fd;
	enum err err;

	if (mdb_env_info(x->env, &info) || mdb_env_stat(x->env, &stat))
		return ERR_IO;
	wanted = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
	if ((err = os_open(x->dir, INDEX_FILE, OS_READ | OS_WRITE, &fd)))
		return err;
	err = os_fstat(fd, &st);
	if (!err && st.size < wanted + ahead / 2)
		err = os_truncate(fd, wanted + ahead);
	os_close(fd);
	return err;
}

static enum err apply(struct index_writer *x, const struct overlay *changes,
		      const struct usage_change *deletes, size_t delete_count,
		      const struct log_place *place)
{
	struct apply a = { .x = x };
	enum err err = length_keep(x, INDEX_AHEAD);

	if (err)
		return err;
	buf_init(&a.value, 1024);
	err = ERR_AGAIN;
	while (err == ERR_AGAIN) {
		err = apply_once(&a, changes, deletes, delete_count, place);
		if (err == ERR_AGAIN) {
			x->map_size *= 2;
			if (mdb_env_set_mapsize(x->env, x->map_size))
				err = ERR_NO_MEMORY;
		} else if (err == ERR_FULL && os_unlink(x->dir, INDEX_RESERVE) == ERR_OK) {
			if (x->log)
				log_warn(x->log, "store-reserve-used", "file=%s", INDEX_RESERVE);
			err = ERR_AGAIN;
		}
	}
	free(a.usage);
	buf_free(&a.value);
	return err ? err : length_keep(x, 0);
}

/* The changes of one transaction, as they are gathered. */
struct gather {
	struct overlay *changes;
	struct apply deletes; /* its usage table alone */
	struct buf value;
	uint64_t records;
	struct log_place place;
};

static enum err gather_frame(struct gather *g, const struct frame_header *h, str records)
{
	uint32_t segment = position_segment(h->position);
	struct entry *e;
	struct version *v;
	struct record r;
	enum err err;

	while (!(err = record_get(&records, &r))) {
		if (r.op != RECORD_PUT && r.op != RECORD_DELETE)
			continue;
		buf_clear(&g->value);
		buf_add_le32(&g->value, segment);
		buf_add_le32(&g->value, index_crc(r.key, segment, r.value));
		buf_add(&g->value, r.value);
		if (buf_failed(&g->value))
			return ERR_NO_MEMORY;
		err = overlay_push(g->changes, r.key, h->number, h->number, r.op == RECORD_DELETE,
				   buf_str(&g->value), &e, &v);
		if (!err && r.op == RECORD_DELETE)
			err = usage_add(&g->deletes, segment,
					(struct usage_change){ .deletes = 1,
							       .delete_bytes =
								       (int64_t)r.key.n + 2 });
		if (err)
			return err;
		g->records++;
	}
	g->place = (struct log_place){ h->position + frame_size(h), h->number, h->crc };
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err gather_flush(struct index_writer *x, struct gather *g, bool is_last)
{
	enum err err = ERR_OK;

	if (overlay_count(g->changes))
		err = apply(x, g->changes, g->deletes.usage, g->deletes.usage_count, &g->place);
	overlay_free(g->changes);
	g->changes = is_last ? NULL : overlay_new(GATHER_MAX);
	g->deletes.usage_count = 0;
	if (!err && !is_last && !g->changes)
		err = ERR_NO_MEMORY;
	return err;
}

static enum err covered_read(struct index_writer *x, struct log_place *place)
{
	struct key k = key_make(KIND_INDEX);
	MDB_val key, value;
	MDB_txn *txn;
	int rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn);

	if (rc)
		return err_from_mdb(rc);
	k.p[k.n++] = 'c';
	key = val_of(key_str(&k));
	rc = mdb_get(txn, x->dbi, &key, &value);
	if (!rc && value.mv_size == INDEX_PREFIX + 24) {
		const char *p = (const char *)value.mv_data + INDEX_PREFIX;

		*place = (struct log_place){ get_le64(p), get_le64(p + 8), get_le32(p + 16) };
	} else if (!rc) {
		rc = MDB_CORRUPTED;
	}
	mdb_txn_abort(txn);
	return err_from_mdb(rc);
}

/* Without a limit, a frame counts when the next one, written after it was durable, was read. */
static enum err gather_all(struct index_writer *x, struct log_reader *r, uint64_t limit,
			   struct gather *g)
{
	struct frame_header held_header = { 0 };
	struct log_frame f;
	struct buf held;
	bool has_held = false;
	enum err err = ERR_OK;

	buf_init(&held, UINT32_MAX);
	while (!err && !(err = log_reader_next(r, &f))) {
		if (limit != UINT64_MAX) {
			err = gather_frame(g, &f.header, f.records);
		} else {
			if (has_held)
				err = gather_frame(g, &held_header, buf_str(&held));
			buf_clear(&held);
			buf_add(&held, f.records);
			held_header = f.header;
			has_held = true;
			if (buf_failed(&held))
				err = ERR_NO_MEMORY;
		}
		if (!err && overlay_bytes(g->changes) > INDEX_STEP)
			err = gather_flush(x, g, false);
	}
	buf_free(&held);
	return err == ERR_EOF ? ERR_OK : err;
}

enum err index_bring_up(struct index_writer *x, uint64_t limit, struct log_place *covered,
			uint64_t *records)
{
	struct gather g = { .changes = NULL };
	struct log_reader *r = NULL;
	enum err err;
	int dead;

	/* A reader that was killed would keep pages from being used again. */
	if (mdb_reader_check(x->env, &dead) == 0 && dead && x->log)
		log_info(x->log, "store-index-readers", "dead=%d", dead);
	err = covered_read(x, &g.place);
	buf_init(&g.value, RECORD_VALUE_MAX + INDEX_PREFIX);
	g.changes = overlay_new(GATHER_MAX);
	if (!err && !g.changes)
		err = ERR_NO_MEMORY;
	if (!err)
		err = log_reader_new(x->log_dir, x->identity, x->log, &g.place, limit, &r);
	if (!err)
		err = gather_all(x, r, limit, &g);
	if (!err)
		err = gather_flush(x, &g, true);
	if (!err) {
		*covered = g.place;
		*records = g.records;
		reserve_make(x);
	}
	log_reader_free(r);
	overlay_free(g.changes);
	free(g.deletes.usage);
	buf_free(&g.value);
	return err;
}
