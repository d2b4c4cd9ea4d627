/* The index: an LMDB database that is a checkpoint of the log.
 *
 * One tree: key -> segment of the record (4 bytes, little-endian), CRC-32C of key, segment and
 * value (4), value. Besides the store's own keys: what it covers, and per segment what is alive in
 * it. Written by index_bring_up alone, in whole transactions, each with the position that it
 * covers; read with index_get and cursors.
 *
 * LMDB does not know when a page was spoilt on the disk; the CRC does. What was found damaged once
 * is not served any more: every read says ERR_DAMAGED, until the index was rebuilt from the log.
 */
#ifndef STORE_INDEX_PRIV_H
#define STORE_INDEX_PRIV_H

#include "store/log_priv.h"

enum {
	INDEX_STEP = 64 * 1024 * 1024, /* bytes of records in one transaction, roughly */
	INDEX_PREFIX = 8,	       /* segment and CRC, before each value */
	INDEX_LAYOUT = 3,	       /* of the file; another one is rebuilt */
	INDEX_ID_SIZE = 1 + IDENTITY_SIZE,
};

uint32_t index_crc(str key, uint32_t segment, str value);

/* What a segment still holds. It can go when nothing in it is alive, and nothing that it ended is
 * left in an older one. */
struct segment_usage {
	uint64_t records; /* that are the newest of their key */
	uint64_t deletes; /* that may still be needed to end older records */
	uint64_t blobs;	  /* references to bodies and cold rows */
	uint64_t bytes;	  /* of those */
	uint64_t record_bytes, delete_bytes;
	uint64_t plain_bytes; /* of bodies that are not compressed */
};

struct index_reader;
struct index_cursor;
struct MDB_env;

/* ERR_NOT_FOUND: there is none; ERR_DAMAGED: not ours, or not readable: build it anew. `path`: the
 * store's. */
MUST_USE enum err index_reader_open(const char *path, const struct identity *id,
				    struct index_reader **out);
void index_reader_close(struct index_reader *x);
/* LMDB takes a file once in a process: over an environment that stays its owner's. */
MUST_USE enum err index_reader_borrow(struct MDB_env *env, struct index_reader **out);
/* Some read found that it is not what was written. */
/* Bytes in use; the file is longer. */
uint64_t index_size(const struct index_reader *x);
bool index_is_damaged(const struct index_reader *x);
/* The store's identity as the index has it. */
MUST_USE enum err index_identity(const char *path, struct identity *out);
MUST_USE enum err index_covered(struct index_reader *x, struct log_place *out);
/* Slices live until index_release. */
MUST_USE enum err index_get(struct index_reader *x, str key, str *value);
/* The same, and in which segment its record lies. */
MUST_USE enum err index_get_segment(struct index_reader *x, str key, str *value, uint32_t *segment);
MUST_USE enum err index_usage(struct index_reader *x, uint32_t segment, struct segment_usage *out);
/* Ends the snapshot; the next read sees what was checkpointed meanwhile. Cursors must be closed. */
void index_release(struct index_reader *x);

MUST_USE enum err index_cursor_open(struct index_reader *x, str from, struct index_cursor **out);
void index_cursor_close(struct index_cursor *c);
/* ERR_EOF at the end. */
MUST_USE enum err index_cursor_get(struct index_cursor *c, str *key, str *value);
MUST_USE enum err index_cursor_next(struct index_cursor *c);
uint32_t index_cursor_segment(const struct index_cursor *c); /* of the current record */

struct index_writer;

/* `may_create`: makes the index where there is none, and in place of one that is damaged or
 * foreign. Not while a store is open, which would go on reading the file that was removed: then
 * ERR_NOT_FOUND, ERR_DAMAGED. */
MUST_USE enum err index_writer_open(int dir, const char *path, const struct identity *id,
				    const struct log *log, bool may_create,
				    struct index_writer **out);
/* To read what it wrote, in the same process. Ends with index_reader_close, before the writer. */
MUST_USE enum err index_writer_reader(struct index_writer *x, struct index_reader **out);
/* The log of another directory: fsck makes an index beside the one that is there. */
void index_writer_read_from(struct index_writer *x, int log_dir);
/* Reads all of it. ERR_DAMAGED. */
MUST_USE enum err index_check(struct index_writer *x);
/* Removes the index: it is rebuilt when it is opened next. */
MUST_USE enum err index_discard(int dir);
void index_writer_close(struct index_writer *x);
/* Applies the log up to `limit`, all of it durable; UINT64_MAX: up to the last frame that a later
 * one vouches for. *covered, *records (counted): what it covers then, durable. */
MUST_USE enum err index_bring_up(struct index_writer *x, uint64_t limit, struct log_place *covered,
				 uint64_t *records);

#endif
