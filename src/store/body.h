/* Sealed bodies: each under a random key of its own (ARCHITECTURE 3), in chunks, so that a part can
 * be read without the rest. Used by store to seal, and by sessions and `out`, which have read-only
 * descriptors of segments and the location with its key from the row, to open.
 *
 * Layout: chunks of BODY_CHUNK bytes of the body, the last one shorter (an empty body has one empty
 * chunk), each AES-256-GCM with the chunk's number and whether it is the last in the nonce,
 * followed by its 16-byte tag. What is old is compressed chunk by chunk (BODY_ZSTD, body_zstd.c):
 * the reader's interface is the same.
 */
#ifndef STORE_BODY_H
#define STORE_BODY_H

#include "base/msg.h"

enum { BODY_CHUNK = 64 * 1024, BODY_TAG = 16, BODY_SALT = 7 };
enum body_codec { BODY_PLAIN = 0, BODY_ZSTD = 1 };

/* Bytes on disk for a body of `size` bytes. */
uint64_t body_stored_size(uint64_t size);

struct body_cipher; /* one per process: keeps the cipher context, so that a body costs no set-up */
struct body_cipher *body_cipher_new(void); /* NULL: no memory */
void body_cipher_free(struct body_cipher *c);

/* Seals one chunk (all but the last have BODY_CHUNK bytes) into `out` (n + BODY_TAG bytes). */
void body_seal_chunk(struct body_cipher *c, const uint8_t key[32], uint32_t number, bool is_last,
		     str plain, char *out);

/* Reads bytes [from, from + n) of the body into `out`. ERR_DAMAGED when the bytes are not what was
 * sealed (or the segment was recycled: ask for the location again), ERR_RANGE past the end. */
MUST_USE enum err body_read(struct body_cipher *c, int fd, const struct rec_body_location *at,
			    uint64_t from, size_t n, char *out);

/* The plain body at `at` again, compressed and sealed under the same key, into `out` (cleared; as
 * BODY_ZSTD). ERR_DAMAGED, ERR_IO; ERR_TOO_LONG: more than `out` holds. */
MUST_USE enum err body_compress(struct body_cipher *c, int fd, const struct rec_body_location *at,
				struct buf *out);

#endif
