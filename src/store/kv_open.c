/* Opening a store: its files, its identity, recovery.
 *
 *	identity   the store's id and the key that seals its records (identity.c)
 *	lock       held as long as it is open or prepared
 *	log/       the segments
 *	body/      large bodies
 *	index/     LMDB
 *
 * Recovery reads the frames that the index does not cover into the overlay, which is then as it was. How much that
 * can be is bounded by when checkpoints are made; whatever is further behind (the index was deleted) is brought
 * up first by kv_prepare, in the checkpoint helper.
 */
#include "store/kv_priv.h"

#include <stdlib.h>

static enum err directory_make(int dir, const char *name)
{
	enum err err = os_mkdir(dir, name, 0700);

	return err == ERR_EXISTS ? ERR_OK : err;
}

enum err kv_prepare(const struct kv_options *options)
{
	struct index_writer *writer;
	struct log_place covered;
	struct identity id;
	uint64_t records;
	enum err err;

	if ((err = directory_make(options->dir, "log")) || (err = directory_make(options->dir, "body")) ||
	    (err = directory_make(options->dir, "index")) || (err = kv_identity(options->dir, true, &id)) ||
	    (err = index_writer_open(options->dir, options->path, &id, options->log, &writer)))
		return err;
	err = index_bring_up(writer, UINT64_MAX, &covered, &records);
	index_writer_close(writer);
	return err ? err : os_fsync(options->dir);
}

static enum err replay(struct kv *kv, struct log_reader *r)
{
	struct log_frame f;
	struct entry *e;
	struct version *v;
	struct record record;
	enum err err;

	while (!(err = log_reader_next(r, &f))) {
		kv->serial++;
		while (!(err = record_get(&f.records, &record))) {
			if (record.op != RECORD_PUT && record.op != RECORD_DELETE)
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

static enum err recover(struct kv *kv)
{
	struct log_reader *r = NULL;
	struct log_place covered = { 0 }, place;
	int64_t began = os_monotonic_ns();
	enum err err = index_covered(kv->index, &covered);

	if (!err)
		err = log_reader_new(kv->options.dir, &kv->identity, kv->options.log, &covered, UINT64_MAX, &r);
	if (!err)
		err = replay(kv, r);
	if (!err) {
		place = log_reader_place(r);
		kv->covered = covered.position;
		if (kv->options.log)
			log_info(kv->options.log, "store-recovered", "position=%llx frames=%llu torn=%d damages=%u ms=%lld",
				 (unsigned long long)place.position, (unsigned long long)kv->serial,
				 log_reader_was_torn(r), log_reader_damages(r),
				 (long long)((os_monotonic_ns() - began) / 1000000));
		err = log_writer_open(&kv->writer, &place);
	}
	log_reader_free(r);
	return err;
}

static enum err lock(struct kv *kv)
{
	enum err err = os_open(kv->options.dir, "lock", OS_READ | OS_WRITE | OS_CREATE, &kv->lock_fd);

	return err ? err : os_lock_file(kv->lock_fd);
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
	err = kv->young ? lock(kv) : ERR_NO_MEMORY;
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
