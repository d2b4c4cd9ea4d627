/* Opening a store: its files, its identity, recovery.
 *
 *	identity   the store's id and the key that seals its records (identity.c)
 *	lock       held as long as it is open or prepared
 *	log/       the segments
 *	body/      large bodies
 *	index/     LMDB
 *
 * Recovery reads the frames that the index does not cover into the overlay, which is then as it
 * was. How much that can be is bounded by when checkpoints are made; whatever is further behind
 * (the index was deleted) is brought up first by kv_prepare, in the checkpoint helper.
 */
#include "store/kv_priv.h"

#include "base/mutant.h"
#include <stdlib.h>

#define INDEX_CONDEMNED "index/rebuild"
#define INDEX_ATTEMPTS	"index/attempts"

enum { ATTEMPTS_MAX = 3 };

static enum err directory_make(int dir, const char *name)
{
	enum err err = os_mkdir(dir, name, 0700);

	return err == ERR_EXISTS ? ERR_OK : err;
}

static enum err lock_take(int dir, int *fd)
{
	enum err err = os_open(dir, "lock", OS_READ | OS_WRITE | OS_CREATE, fd);

	return err ? err : os_lock_file(*fd);
}

/* A store that ends again and again before it was steady may do so because of a page of the index
 * (it is mapped: a bad one can be a signal). Then it is made anew; so it is when somebody found it
 * damaged. */
static bool index_is_suspect(const struct kv_options *o)
{
	struct os_stat st;
	char count = 0;
	bool is_condemned = os_stat(o->dir, INDEX_CONDEMNED, &st) == ERR_OK, is_suspect;
	int fd;

	if (os_open(o->dir, INDEX_ATTEMPTS, OS_READ | OS_WRITE | OS_CREATE, &fd))
		return is_condemned;
	if (os_pread_all(fd, &count, 1, 0))
		count = 0;
	is_suspect = count >= ATTEMPTS_MAX;
	count = is_suspect || is_condemned ? 1 : (char)(count + 1);
	if (os_pwrite_all(fd, str_of(&count, 1), 0) && o->log)
		log_warn(o->log, "store-attempts", "file=%s", INDEX_ATTEMPTS);
	os_close(fd);
	if ((is_suspect || is_condemned) && o->log)
		log_error(o->log, "store-index-damaged",
			  "file=index/data.mdb reason=%s action=rebuild",
			  is_condemned ? "found-while-running" : "died-again-and-again");
	return is_suspect || is_condemned;
}

static enum err bring_up(const struct kv_options *o, const struct identity *id)
{
	struct index_writer *writer;
	struct log_place covered;
	uint64_t records;
	enum err err = index_writer_open(o->dir, o->path, id, o->log, true, &writer);

	if (err)
		return err;
	err = index_bring_up(writer, UINT64_MAX, &covered, &records);
	index_writer_close(writer);
	return err;
}

static enum err prepare(const struct kv_options *o)
{
	struct identity id;
	enum err err = kv_identity_prepare(o->dir, o->path, o->log, &id);

	if (err)
		return err;
	if (index_is_suspect(o))
		err = index_discard(o->dir);
	if (!err)
		err = bring_up(o, &id);
	if (err == ERR_DAMAGED) {
		if (o->log)
			log_error(o->log, "store-index-damaged",
				  "file=index/data.mdb reason=found-at-start action=rebuild");
		if (!(err = index_discard(o->dir)))
			err = bring_up(o, &id);
	}
	if (err)
		return err;
	err = os_unlink(o->dir, INDEX_CONDEMNED);
	return err && err != ERR_NOT_FOUND ? err : os_fsync(o->dir);
}

enum err kv_prepare(const struct kv_options *options)
{
	int lock = -1;
	enum err err;

	if ((err = directory_make(options->dir, "log")) ||
	    (err = directory_make(options->dir, "body")) ||
	    (err = directory_make(options->dir, "index")))
		return err;
	err = lock_take(options->dir, &lock);
	if (!err)
		err = prepare(options);
	os_close(lock);
	return err;
}

void kv_condemn_index(int dir, const struct log *log)
{
	int fd;
	enum err err = os_open(dir, INDEX_CONDEMNED, OS_WRITE | OS_CREATE, &fd);

	if (!err)
		os_close(fd);
	if (log)
		log_error(log, "store-index-damaged", "file=index/data.mdb action=%s",
			  err ? err_name(err) : "rebuild-at-start");
}

enum err kv_trust_index(int dir)
{
	enum err err = os_unlink(dir, INDEX_ATTEMPTS);

	if (!err || err == ERR_NOT_FOUND)
		err = os_unlink(dir, INDEX_CONDEMNED);
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

void kv_steady(struct kv *kv)
{
	enum err err = os_unlink(kv->options.dir, INDEX_ATTEMPTS);

	if (err && err != ERR_NOT_FOUND && kv->options.log)
		log_warn(kv->options.log, "store-attempts", "file=%s", INDEX_ATTEMPTS);
}

static enum err replay(struct kv *kv, struct log_reader *r)
{
	struct log_frame f;
	struct entry *e;
	struct version *v;
	struct record record;
	enum err err;

	while (!(err = log_reader_next(r, &f))) {
		if (MUTANT(last_frame_not_replayed) && f.header.number % 8 == 0)
			continue;
		kv->serial++;
		while (!(err = record_get(&f.records, &record))) {
			if (record.op != RECORD_PUT &&
			    (record.op != RECORD_DELETE || MUTANT(deletes_not_replayed)))
				continue;
			err = overlay_push(kv->young, record.key, kv->serial, kv->serial,
					   record.op == RECORD_DELETE, record.value, &e, &v);
			if (err)
				return err;
		}
		if (err != ERR_EOF)
			return err;
		kv->changed_since = 1;
	}
	kv->durable_serial = kv->serial;
	return err == ERR_EOF ? ERR_OK : err;
}

enum err kv_view_open(int dir, const struct identity *id, struct index_reader *index,
		      uint64_t limit, struct kv **out)
{
	struct kv *kv = calloc(1, sizeof(*kv));
	struct log_reader *r = NULL;
	struct log_place covered;
	enum err err;

	if (!kv) {
		index_reader_close(index);
		return ERR_NO_MEMORY;
	}
	kv->options.dir = dir;
	kv->identity = *id;
	kv->index = index;
	kv->lock_fd = kv->writer.fd = -1;
	buf_init(&kv->scratch, RECORD_VALUE_MAX);
	kv->young = overlay_new(KV_OVERLAY_MAX);
	kv->cipher = log_cipher_new(id->key);
	err = kv->young && kv->cipher ? index_covered(index, &covered) : ERR_NO_MEMORY;
	if (!err)
		err = log_reader_new(dir, id, NULL, &covered, limit, &r);
	if (!err)
		err = replay(kv, r);
	log_reader_free(r);
	if (err)
		kv_close(kv);
	else
		*out = kv;
	return err;
}

static enum err recover(struct kv *kv)
{
	struct log_reader *r = NULL;
	struct log_place covered = { 0 }, place;
	int64_t began = os_monotonic_ns();
	enum err err = index_covered(kv->index, &covered);

	if (!err)
		err = log_reader_new(kv->options.dir, &kv->identity, kv->options.log, &covered,
				     UINT64_MAX, &r);
	if (!err)
		err = replay(kv, r);
	if (!err) {
		place = log_reader_place(r);
		kv->covered = covered.position;
		if (kv->options.log)
			log_info(kv->options.log, "store-recovered",
				 "position=%llx frames=%llu torn=%d damages=%u ms=%lld",
				 (unsigned long long)place.position, (unsigned long long)kv->serial,
				 log_reader_was_torn(r), log_reader_damages(r),
				 (long long)((os_monotonic_ns() - began) / 1000000));
		err = log_writer_open(&kv->writer, &place);
	}
	log_reader_free(r);
	return err;
}

enum err kv_open(const struct kv_options *options, struct kv **out)
{
	struct kv *kv = calloc(1, sizeof(*kv));
	enum err err;

	if (!kv)
		return ERR_NO_MEMORY;
	kv->options = *options;
	kv->lock_fd = -1;
	kv->writer = (struct log_writer){ .dir = options->dir,
					  .fd = -1,
					  .segment_size = options->segment_size,
					  .identity = &kv->identity,
					  .log = options->log };
	buf_init(&kv->scratch, RECORD_VALUE_MAX);
	kv->young = overlay_new(KV_OVERLAY_MAX);
	err = kv->young ? lock_take(options->dir, &kv->lock_fd) : ERR_NO_MEMORY;
	if (!err)
		err = kv_identity(options->dir, &kv->identity);
	if (!err && !(kv->cipher = log_cipher_new(kv->identity.key)))
		err = ERR_NO_MEMORY;
	if (!err)
		err = index_reader_open(options->path, &kv->identity, &kv->index);
	if (!err)
		err = recover(kv);
	if (!err)
		err = os_syncer_new(&kv->syncer);
	if (!err && log_writer_make_reserve(&kv->writer))
		kv->is_full = true;
	if (err) {
		if (index_is_damaged(kv->index))
			kv_condemn_index(options->dir, options->log);
		kv_close(kv);
		return err;
	}
	kv_release(kv);
	*out = kv;
	return ERR_OK;
}

void kv_close(struct kv *kv)
{
	if (!kv)
		return;
	kv_pending_drop(kv);
	log_writer_close(&kv->writer);
	index_reader_close(kv->index);
	overlay_free(kv->young);
	overlay_free(kv->old);
	log_cipher_free(kv->cipher);
	os_close(kv->lock_fd);
	buf_free(&kv->scratch);
	free(kv);
}
