/* Encoding and checking of what lies in the log (docs/STORAGE.md gives it byte for byte).
 *
 * Every structure carries its own magic, version or size, and a CRC-32C. Nothing here trusts a
 * length: a decoder returns a value only when everything it says fits into what it was given.
 */
#include "store/format_priv.h"

#include "store/crc32c.h"
#include "store/pack.h"

#include <openssl/evp.h>
#include <stdlib.h>

static const char segment_magic[8] = { 'P', 'H', 'S', 'E', 'G', 'M', 'T', '\n' };
static const char identity_magic[8] = { 'P', 'H', 'S', 'T', 'O', 'R', 'E', '\n' };
static const char frame_magic[4] = { 'P', 'H', 'F', 'R' };

enum { SEGMENT_CRC_AT = 100, SEGMENT_USED = 104, IDENTITY_CRC_AT = 60 };

void segment_header_put(char out[SEGMENT_HEADER_SIZE], const struct segment_header *h)
{
	memset(out, 0, SEGMENT_HEADER_SIZE);
	memcpy(out, segment_magic, sizeof(segment_magic));
	put_le16(out + 8, STORE_VERSION);
	put_le16(out + 10, SEGMENT_USED);
	put_le32(out + 12, h->node);
	put_le64(out + 16, h->epoch);
	memcpy(out + 24, h->store, STORE_ID_SIZE);
	put_le32(out + 40, h->segment);
	put_le32(out + 44, h->size);
	put_le32(out + 48, h->predecessor);
	put_le32(out + 52, h->predecessor_end);
	put_le32(out + 56, h->chain);
	put_le32(out + 60, h->features_must);
	put_le32(out + 64, h->features_may);
	put_le64(out + 72, h->number);
	put_le64(out + 80, (uint64_t)h->created_us);
	put_le32(out + SEGMENT_CRC_AT, crc32c(0, str_of(out, SEGMENT_CRC_AT)));
}

enum err segment_header_get(str bytes, struct segment_header *h)
{
	const char *p = bytes.p;

	if (bytes.n < SEGMENT_HEADER_SIZE || memcmp(p, segment_magic, sizeof(segment_magic)) != 0)
		return ERR_DAMAGED;
	/* The CRC lies there in every version, so that damage is not taken for a later one. */
	if (get_le32(p + SEGMENT_CRC_AT) != crc32c(0, str_head(bytes, SEGMENT_CRC_AT)))
		return ERR_DAMAGED;
	if (get_le16(p + 8) != STORE_VERSION)
		return ERR_UNSUPPORTED;
	*h = (struct segment_header){ .node = get_le32(p + 12),
				      .epoch = get_le64(p + 16),
				      .segment = get_le32(p + 40),
				      .size = get_le32(p + 44),
				      .predecessor = get_le32(p + 48),
				      .predecessor_end = get_le32(p + 52),
				      .chain = get_le32(p + 56),
				      .features_must = get_le32(p + 60),
				      .features_may = get_le32(p + 64),
				      .number = get_le64(p + 72),
				      .created_us = (int64_t)get_le64(p + 80) };
	memcpy(h->store, p + 24, STORE_ID_SIZE);
	return h->features_must & ~(uint32_t)FEATURES_MUST_KNOWN ? ERR_UNSUPPORTED : ERR_OK;
}

void frame_header_put(char out[FRAME_HEADER_SIZE], const struct frame_header *h)
{
	memcpy(out, frame_magic, sizeof(frame_magic));
	put_le32(out + 4, h->crc);
	put_le32(out + 8, h->chain);
	put_le16(out + 12, FRAME_HEADER_SIZE);
	put_le16(out + 14, h->flags);
	put_le64(out + 16, h->position);
	put_le64(out + 24, h->number);
	put_le64(out + 32, h->durable);
	put_le32(out + 40, h->records_size);
	put_le32(out + 44, h->record_count);
	put_le32(out + 48, h->blobs_size);
	put_le32(out + 52, h->blobs_crc);
	put_le64(out + 56, (uint64_t)h->time_us);
	memcpy(out + 64, h->iv, FRAME_IV_SIZE);
	put_le64(out + 80, h->store);
	put_le64(out + 88, 0);
}

enum err frame_header_get(str bytes, struct frame_header *h)
{
	const char *p = bytes.p;

	if (bytes.n < FRAME_HEADER_SIZE || memcmp(p, frame_magic, sizeof(frame_magic)) != 0)
		return ERR_DAMAGED;
	*h = (struct frame_header){ .crc = get_le32(p + 4),
				    .chain = get_le32(p + 8),
				    .flags = get_le16(p + 14),
				    .position = get_le64(p + 16),
				    .number = get_le64(p + 24),
				    .durable = get_le64(p + 32),
				    .records_size = get_le32(p + 40),
				    .record_count = get_le32(p + 44),
				    .blobs_size = get_le32(p + 48),
				    .blobs_crc = get_le32(p + 52),
				    .time_us = (int64_t)get_le64(p + 56),
				    .store = get_le64(p + 80) };
	memcpy(h->iv, p + 64, FRAME_IV_SIZE);
	if (get_le16(p + 12) != FRAME_HEADER_SIZE)
		return ERR_DAMAGED;
	return ERR_OK;
}

uint64_t frame_size(const struct frame_header *h)
{
	uint64_t n = (uint64_t)FRAME_HEADER_SIZE + h->records_size + h->blobs_size;

	return (n + LOG_BLOCK - 1) / LOG_BLOCK * LOG_BLOCK;
}

void record_put(struct buf *out, uint8_t op, str key, str value)
{
	buf_add_char(out, (char)op);
	pack_str(out, key);
	if (op == RECORD_PUT)
		pack_str(out, value);
}

enum err record_get(str *rest, struct record *r)
{
	struct unpack u = { .rest = *rest };

	if (rest->n == 0)
		return ERR_EOF;
	*r = (struct record){ 0 };
	r->op = unpack_u8(&u);
	r->key = unpack_str(&u);
	if (r->op != RECORD_DELETE)
		r->value = unpack_str(&u);
	if (u.failed || r->key.n == 0 || r->key.n > RECORD_KEY_MAX || r->value.n > RECORD_VALUE_MAX)
		return ERR_DAMAGED;
	if (r->op != RECORD_PUT && r->op != RECORD_DELETE && !(r->op & RECORD_MAY_IGNORE))
		return ERR_UNSUPPORTED;
	*rest = u.rest;
	return ERR_OK;
}

void identity_put(char out[IDENTITY_SIZE], const struct identity *id)
{
	memset(out, 0, IDENTITY_SIZE);
	memcpy(out, identity_magic, sizeof(identity_magic));
	put_le16(out + 8, STORE_VERSION);
	memcpy(out + 12, id->store, STORE_ID_SIZE);
	memcpy(out + 28, id->key, STORE_KEY_SIZE);
	put_le32(out + IDENTITY_CRC_AT, crc32c(0, str_of(out, IDENTITY_CRC_AT)));
}

enum err identity_get(str bytes, struct identity *id)
{
	if (bytes.n != IDENTITY_SIZE ||
	    memcmp(bytes.p, identity_magic, sizeof(identity_magic)) != 0 ||
	    get_le32(bytes.p + IDENTITY_CRC_AT) != crc32c(0, str_head(bytes, IDENTITY_CRC_AT)))
		return ERR_DAMAGED;
	if (get_le16(bytes.p + 8) != STORE_VERSION)
		return ERR_UNSUPPORTED;
	memcpy(id->store, bytes.p + 12, STORE_ID_SIZE);
	memcpy(id->key, bytes.p + 28, STORE_KEY_SIZE);
	return ERR_OK;
}

/* Records are sealed because a session reads the same files: its own bodies lie between the records
 * of everybody. CTR, so that no byte is added and the CRC finds damage; the initial counter is
 * random for each frame (128 bits: it never comes twice), so what is written again at a place after
 * a crash is under another stream. */
struct log_cipher {
	EVP_CIPHER *algorithm;
	EVP_CIPHER_CTX *context;
};

struct log_cipher *log_cipher_new(const uint8_t key[STORE_KEY_SIZE])
{
	struct log_cipher *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->algorithm = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
	c->context = EVP_CIPHER_CTX_new();
	if (c->algorithm && c->context &&
	    EVP_EncryptInit_ex2(c->context, c->algorithm, key, NULL, NULL) == 1)
		return c;
	log_cipher_free(c);
	return NULL;
}

void log_cipher_free(struct log_cipher *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->context);
	EVP_CIPHER_free(c->algorithm);
	free(c);
}

void log_cipher_run(struct log_cipher *c, const uint8_t iv[FRAME_IV_SIZE], str in, char *out)
{
	int n = 0;

	if (EVP_EncryptInit_ex2(c->context, NULL, NULL, iv, NULL) != 1)
		panic("log_cipher_run: AES-256-CTR failed");
	for (size_t done = 0; done < in.n; done += (size_t)n) {
		size_t take = MIN(in.n - done, (size_t)1 << 30);

		if (EVP_EncryptUpdate(c->context, (unsigned char *)out + done, &n,
				      (const unsigned char *)in.p + done, (int)take) != 1)
			panic("log_cipher_run: AES-256-CTR failed");
	}
}
