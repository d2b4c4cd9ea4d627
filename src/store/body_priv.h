/* Between body.c and body_zstd.c. */
#ifndef STORE_BODY_PRIV_H
#define STORE_BODY_PRIV_H

#include "store/body.h"

struct body_zstd; /* contexts, made when first needed */
void body_zstd_free(struct body_zstd *z);

struct body_cipher {
	struct evp_cipher_st *algorithm;
	struct evp_cipher_ctx_st *context;
	char *chunk; /* BODY_CHUNK + BODY_TAG bytes: what is read */
	char *plain; /* BODY_CHUNK bytes, for parts of a chunk */
	struct body_zstd *zstd;
};

/* What tells apart the seals of one key: which chunk, and of which form of the body. Plain bodies
 * have a salt of zeros; others never. */
struct body_nonce {
	uint32_t number;
	bool is_last;
	uint8_t salt[BODY_SALT];
};

void body_chunk_seal(struct body_cipher *c, const uint8_t key[32], const struct body_nonce *nonce,
		     str plain, char *out);
/* The first n + BODY_TAG bytes of c->chunk. ERR_DAMAGED. */
MUST_USE enum err body_chunk_open(struct body_cipher *c, const uint8_t key[32],
				  const struct body_nonce *nonce, size_t n, char *out);
/* body_read of a BODY_ZSTD body; what both forms have in common was checked. */
MUST_USE enum err body_zstd_read(struct body_cipher *c, int fd, const struct rec_body_location *at,
				 uint64_t from, size_t n, char *out);

#endif
