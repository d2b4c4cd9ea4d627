/* The bytes on disk: segments, frames, records (docs/STORAGE.md). Pure: no files, no clock.
 *
 * A position is (segment << 32 | offset in it). Positions grow with time and are never used twice
 * for two frames that were acknowledged.
 */
#ifndef STORE_FORMAT_PRIV_H
#define STORE_FORMAT_PRIV_H

#include "base/buf.h"

enum {
	STORE_VERSION = 1,
	LOG_BLOCK =
		4096, /* frames begin and end on its multiples: a torn write spoils no neighbour */
	SEGMENT_HEADER_SIZE = LOG_BLOCK,
	FRAME_HEADER_SIZE = 96,
	FRAME_IV_SIZE = 16,
	STORE_ID_SIZE = 16,
	STORE_KEY_SIZE = 32,
	IDENTITY_SIZE = 64,
	RECORD_KEY_MAX = 255,
	RECORD_VALUE_MAX = 64 * 1024,
	COLD_HEADER_SIZE = 20, /* initial counter, CRC-32C */
};

/* Features that a reader of version 1 does not know. One of `must` it must not read past, one of
 * `may` it can ignore. */
enum { FEATURES_MUST_KNOWN = 0, FRAME_FLAGS_MUST = 0xff };
/* A frame that fsck made whole again: its bytes 88 to 91 are what makes its CRC the one that the
 * next frame names. May be ignored. */
enum { FRAME_REPAIRED = 0x100, FRAME_FORGED_AT = 88 };

static inline uint64_t position_of(uint32_t segment, uint32_t offset)
{
	return (uint64_t)segment << 32 | offset;
}

static inline uint32_t position_segment(uint64_t position)
{
	return (uint32_t)(position >> 32);
}

static inline uint32_t position_offset(uint64_t position)
{
	return (uint32_t)position;
}

struct segment_header {
	uint8_t store[STORE_ID_SIZE];
	uint32_t node;
	uint64_t epoch; /* of the writer */
	uint32_t segment, size;
	uint32_t predecessor, predecessor_end; /* 0: there is none. Whatever lies behind that end
						  never happened */
	uint32_t chain;			       /* CRC of the last frame before */
	uint64_t number;		       /* of the first frame here */
	int64_t created_us;
	uint32_t features_must, features_may;
};

void segment_header_put(char out[SEGMENT_HEADER_SIZE], const struct segment_header *h);
/* ERR_DAMAGED; ERR_UNSUPPORTED: a later version, or a feature that must be understood. */
MUST_USE enum err segment_header_get(str bytes, struct segment_header *h);

struct frame_header {
	uint32_t crc; /* of the header from byte 8 on, and the (sealed) records */
	uint32_t chain;
	uint16_t flags; /* the low 8 must be understood: FRAME_FLAGS_MUST */
	uint64_t position, number;
	uint64_t durable; /* the log was known to be durable up to here */
	uint32_t records_size, record_count, blobs_size, blobs_crc;
	int64_t time_us;
	uint8_t iv[FRAME_IV_SIZE];
	uint64_t store; /* the first 8 bytes of the store's id */
};

void frame_header_put(char out[FRAME_HEADER_SIZE], const struct frame_header *h);
/* Only the shape; the CRC is the caller's, and after it the flags. ERR_DAMAGED. */
MUST_USE enum err frame_header_get(str bytes, struct frame_header *h);
uint64_t frame_size(const struct frame_header *h); /* with padding */

enum record_op { RECORD_PUT = 1, RECORD_DELETE = 2, RECORD_MAY_IGNORE = 0x80 };

struct record {
	uint8_t op;
	str key, value;
};

void record_put(struct buf *out, uint8_t op, str key, str value);
/* Takes the first off *rest. ERR_EOF at the end; ERR_DAMAGED; ERR_UNSUPPORTED: an operation of a
 * later version that must be understood. One that may be ignored is returned as it is. */
MUST_USE enum err record_get(str *rest, struct record *r);

struct identity {
	uint8_t store[STORE_ID_SIZE];
	uint8_t key[STORE_KEY_SIZE];
};
void identity_put(char out[IDENTITY_SIZE], const struct identity *id);
MUST_USE enum err identity_get(str bytes, struct identity *id);

/* Sealing of records and cold rows (AES-256-CTR; sessions can read segments, and must make nothing
 * of them). */
struct log_cipher;
struct log_cipher *log_cipher_new(const uint8_t key[STORE_KEY_SIZE]);
void log_cipher_free(struct log_cipher *c);
/* In place is allowed; sealing and opening are the same. */
void log_cipher_run(struct log_cipher *c, const uint8_t iv[FRAME_IV_SIZE], str in, char *out);

#endif
