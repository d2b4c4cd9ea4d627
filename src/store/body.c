/* Sealing and opening bodies, chunk by chunk (layout: body.h).
 *
 * AES-256-GCM, because it is what processors have instructions for: 10 KB in about 3 microseconds.
 * The key is random for each body and never used for another text, so the nonce need not be random:
 * it is the chunk's number and whether it is the last, which makes a chunk that was moved, repeated
 * or cut off fail to open. The same key seals the same bytes under the same nonce alone, which is
 * the same ciphertext. The compressed form of a body is other bytes: it has a salt of its own in
 * its nonces.
 *
 * One context for each process: setting a key and a nonce is much cheaper than making one.
 */
#include "store/body_priv.h"

#include "base/os.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum { NONCE_SIZE = 12 };

uint64_t body_stored_size(uint64_t size)
{
	uint64_t chunks = size ? (size + BODY_CHUNK - 1) / BODY_CHUNK : 1;

	return size + chunks * BODY_TAG;
}

struct body_cipher *body_cipher_new(void)
{
	struct body_cipher *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->algorithm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	c->context = EVP_CIPHER_CTX_new();
	c->chunk = malloc(BODY_CHUNK + BODY_TAG);
	c->plain = malloc(BODY_CHUNK);
	if (c->algorithm && c->context && c->chunk && c->plain)
		return c;
	body_cipher_free(c);
	return NULL;
}

void body_cipher_free(struct body_cipher *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->context);
	EVP_CIPHER_free(c->algorithm);
	free(c->chunk);
	free(c->plain);
	body_zstd_free(c->zstd);
	free(c);
}

static void nonce_make(uint8_t bytes[NONCE_SIZE], const struct body_nonce *nonce)
{
	put_le32(bytes, nonce->number);
	bytes[4] = nonce->is_last;
	memcpy(bytes + 5, nonce->salt, sizeof(nonce->salt));
}

void body_chunk_seal(struct body_cipher *c, const uint8_t key[32], const struct body_nonce *nonce,
		     str plain, char *out)
{
	uint8_t bytes[NONCE_SIZE];
	int n = 0, tail = 0;

	assert(plain.n <= BODY_CHUNK);
	nonce_make(bytes, nonce);
	if (EVP_EncryptInit_ex2(c->context, c->algorithm, key, bytes, NULL) != 1 ||
	    (plain.n && EVP_EncryptUpdate(c->context, (unsigned char *)out, &n,
					  (const unsigned char *)plain.p, (int)plain.n) != 1) ||
	    EVP_EncryptFinal_ex(c->context, (unsigned char *)out + n, &tail) != 1 ||
	    EVP_CIPHER_CTX_ctrl(c->context, EVP_CTRL_AEAD_GET_TAG, BODY_TAG, out + plain.n) != 1)
		panic("body_chunk_seal: AES-256-GCM failed");
}

void body_seal_chunk(struct body_cipher *c, const uint8_t key[32], uint32_t number, bool is_last,
		     str plain, char *out)
{
	body_chunk_seal(c, key, &(struct body_nonce){ .number = number, .is_last = is_last }, plain,
			out);
}

enum err body_chunk_open(struct body_cipher *c, const uint8_t key[32],
			 const struct body_nonce *nonce, size_t n, char *out)
{
	uint8_t bytes[NONCE_SIZE];
	int done = 0, tail = 0;

	nonce_make(bytes, nonce);
	if (EVP_DecryptInit_ex2(c->context, c->algorithm, key, bytes, NULL) != 1 ||
	    (n && EVP_DecryptUpdate(c->context, (unsigned char *)out, &done,
				    (unsigned char *)c->chunk, (int)n) != 1) ||
	    EVP_CIPHER_CTX_ctrl(c->context, EVP_CTRL_AEAD_SET_TAG, BODY_TAG, c->chunk + n) != 1 ||
	    EVP_DecryptFinal_ex(c->context, (unsigned char *)out + done, &tail) != 1)
		return ERR_DAMAGED;
	return ERR_OK;
}

enum err body_read(struct body_cipher *c, int fd, const struct rec_body_location *at, uint64_t from,
		   size_t n, char *out)
{
	uint64_t last = at->size ? (at->size - 1) / BODY_CHUNK : 0;
	enum err err;

	if (at->codec > BODY_ZSTD)
		return ERR_UNSUPPORTED;
	if (last > UINT32_MAX)
		return ERR_DAMAGED;
	if (from > at->size || n > at->size - from)
		return ERR_RANGE;
	if (at->codec == BODY_ZSTD)
		return body_zstd_read(c, fd, at, from, n, out);
	if (at->stored != body_stored_size(at->size))
		return ERR_DAMAGED;
	while (n) {
		uint64_t number = from / BODY_CHUNK;
		size_t skip = (size_t)(from % BODY_CHUNK);
		size_t size = (size_t)MIN((uint64_t)BODY_CHUNK, at->size - number * BODY_CHUNK);
		size_t take = MIN(n, size - skip);
		bool whole = take == size;

		err = os_pread_all(fd, c->chunk, size + BODY_TAG,
				   at->offset + number * (BODY_CHUNK + BODY_TAG));
		if (err)
			return err == ERR_EOF ? ERR_DAMAGED : err;
		err = body_chunk_open(c, at->key,
				      &(struct body_nonce){ .number = (uint32_t)number,
							    .is_last = number == last },
				      size, whole ? out : c->plain);
		if (err)
			return err;
		if (!whole)
			memcpy(out, c->plain + skip, take);
		out += take;
		from += take;
		n -= take;
	}
	return ERR_OK;
}
