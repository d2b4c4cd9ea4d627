/* Bodies that are old, compressed (docs/STORAGE.md gives the layout).
 *
 * Each chunk of 64 KB is compressed alone, so that a part can still be read without the rest: a
 * client that looks at the beginning of a message opens one chunk. That costs a few percent against
 * one stream. A chunk that does not become smaller stays as it is, and a body of such chunks counts
 * as compressed all the same: nobody tries again.
 *
 * The key is the plain body's, which sealed other bytes under the same chunk numbers: the salt,
 * random and never zero, keeps the nonces apart, also from those of an attempt that a crash took
 * back.
 *
 *	salt (7 bytes), per chunk its stored bytes without the tag (4 bytes each), the chunks
 *
 * The table of sizes need not be sealed: a wrong one makes the chunk fail to open.
 */
#include "store/body_priv.h"

#include "base/os.h"

#include <stdlib.h>
#include <zstd.h>

enum { LEVEL = 6, CHUNKS_MAX = 64 * 1024 }; /* of bodies up to 4 GB */

struct body_zstd {
	ZSTD_CCtx *compress;
	ZSTD_DCtx *open;
	char *piece; /* BODY_CHUNK bytes, compressed */
};

void body_zstd_free(struct body_zstd *z)
{
	if (!z)
		return;
	ZSTD_freeCCtx(z->compress);
	ZSTD_freeDCtx(z->open);
	free(z->piece);
	free(z);
}

static struct body_zstd *contexts(struct body_cipher *c)
{
	struct body_zstd *z = c->zstd;

	if (z || !(z = calloc(1, sizeof(*z))))
		return z;
	z->compress = ZSTD_createCCtx();
	z->open = ZSTD_createDCtx();
	z->piece = malloc(BODY_CHUNK);
	if (z->compress && z->open && z->piece)
		return c->zstd = z;
	body_zstd_free(z);
	return NULL;
}

static uint64_t chunk_count(uint64_t size)
{
	return size ? (size + BODY_CHUNK - 1) / BODY_CHUNK : 1;
}

static size_t chunk_size(uint64_t size, uint64_t number)
{
	return (size_t)MIN((uint64_t)BODY_CHUNK, size - number * BODY_CHUNK);
}

/* Smaller, or as it is. */
static str squeeze(struct body_zstd *z, str plain)
{
	size_t n = plain.n ? ZSTD_compressCCtx(z->compress, z->piece, plain.n - 1, plain.p, plain.n,
					       LEVEL)
			   : 0;

	return plain.n == 0 || ZSTD_isError(n) ? plain : str_of(z->piece, n);
}

static enum err chunk_squeeze(struct body_cipher *c, const struct rec_body_location *at,
			      struct body_nonce *nonce, str plain, struct buf *out)
{
	str piece = squeeze(c->zstd, plain);
	char *p = buf_failed(out) ? NULL : buf_reserve(out, piece.n + BODY_TAG);

	if (!p)
		return ERR_TOO_LONG;
	body_chunk_seal(c, at->key, nonce, piece, p);
	buf_added(out, piece.n + BODY_TAG);
	put_le32(out->p + out->start + BODY_SALT + 4 * (size_t)nonce->number, u32_of(piece.n));
	return ERR_OK;
}

enum err body_compress(struct body_cipher *c, int fd, const struct rec_body_location *at,
		       struct buf *out)
{
	uint64_t count = chunk_count(at->size);
	struct body_nonce nonce = { .number = 0 };
	char *plain = malloc(BODY_CHUNK);
	enum err err = plain && contexts(c) ? ERR_OK : ERR_NO_MEMORY;

	buf_clear(out);
	if (!err && count > CHUNKS_MAX)
		err = ERR_TOO_LONG;
	os_random(nonce.salt, sizeof(nonce.salt));
	nonce.salt[0] |= 1;
	buf_add(out, str_of((const char *)nonce.salt, BODY_SALT));
	for (uint64_t i = 0; i < count && !err; i++)
		buf_add_le32(out, 0);
	for (uint64_t i = 0; i < count && !err; i++) {
		size_t size = chunk_size(at->size, i);

		nonce.number = (uint32_t)i;
		nonce.is_last = i + 1 == count;
		err = body_read(c, fd, at, i * BODY_CHUNK, size, plain);
		if (!err)
			err = chunk_squeeze(c, at, &nonce, str_of(plain, size), out);
	}
	free(plain);
	return err;
}

/* The salt, and where chunk `number` lies; the table is read up to it. */
static enum err chunk_find(int fd, const struct rec_body_location *at, uint64_t number,
			   struct body_nonce *nonce, uint64_t *offset, size_t *size)
{
	uint64_t head = BODY_SALT + 4 * chunk_count(at->size), place = at->offset + head;
	size_t n = BODY_SALT + 4 * ((size_t)number + 1);
	char *table = malloc(n);
	enum err err = table ? os_pread_all(fd, table, n, at->offset) : ERR_NO_MEMORY;

	for (uint64_t i = 0; i <= number && !err; i++) {
		uint32_t stored = get_le32(table + BODY_SALT + 4 * i);

		if (stored > chunk_size(at->size, i) ||
		    place + stored + BODY_TAG > at->offset + at->stored)
			err = ERR_DAMAGED;
		*offset = place;
		*size = stored;
		place += (uint64_t)stored + BODY_TAG;
	}
	if (!err)
		memcpy(nonce->salt, table, BODY_SALT);
	free(table);
	return err == ERR_EOF ? ERR_DAMAGED : err;
}

/* One chunk, whole, into c->plain. */
static enum err chunk_read(struct body_cipher *c, int fd, const struct rec_body_location *at,
			   struct body_nonce *nonce, uint64_t offset, size_t stored)
{
	size_t size = chunk_size(at->size, nonce->number), n;
	enum err err = os_pread_all(fd, c->chunk, stored + BODY_TAG, offset);

	if (err)
		return err == ERR_EOF ? ERR_DAMAGED : err;
	nonce->is_last = nonce->number + 1 == chunk_count(at->size);
	err = body_chunk_open(c, at->key, nonce, stored,
			      stored == size ? c->plain : c->zstd->piece);
	if (err || stored == size)
		return err;
	n = ZSTD_decompressDCtx(c->zstd->open, c->plain, BODY_CHUNK, c->zstd->piece, stored);
	return ZSTD_isError(n) || n != size ? ERR_DAMAGED : ERR_OK;
}

enum err body_zstd_read(struct body_cipher *c, int fd, const struct rec_body_location *at,
			uint64_t from, size_t n, char *out)
{
	struct body_nonce nonce;
	uint64_t offset;
	size_t stored;
	enum err err;

	if (chunk_count(at->size) > CHUNKS_MAX)
		return ERR_DAMAGED;
	if (!contexts(c))
		return ERR_NO_MEMORY;
	while (n) {
		uint64_t number = from / BODY_CHUNK;
		size_t skip = (size_t)(from % BODY_CHUNK);
		size_t take = MIN(n, chunk_size(at->size, number) - skip);

		nonce.number = (uint32_t)number;
		err = chunk_find(fd, at, number, &nonce, &offset, &stored);
		if (!err)
			err = chunk_read(c, fd, at, &nonce, offset, stored);
		if (err)
			return err;
		memcpy(out, c->plain + skip, take);
		out += take;
		from += take;
		n -= take;
	}
	return ERR_OK;
}
