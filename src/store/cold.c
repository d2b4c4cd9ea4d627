/* Cold parts of rows, and where bodies lie.
 *
 * Prefix, envelope and structure of a message are written once, next to its body, and the row says
 * where: a kilobyte per message that no checkpoint copies again. In the index, each delivery to one
 * of 10,000 accounts would have cost another page of it. They are sealed with the store's own key
 * (a session reads the same file), each under a random counter, with a CRC of what is stored:
 * layout in docs/STORAGE.md.
 */
#include "store/store_priv.h"

#include "store/crc32c.h"

#include <stdlib.h>

enum err cold_seal(struct store *s, str plain, char **blob, uint32_t *size)
{
	uint8_t iv[FRAME_IV_SIZE];
	char *p = malloc(plain.n + COLD_HEADER_SIZE);

	if (!p)
		return ERR_NO_MEMORY;
	os_random(iv, sizeof(iv));
	memcpy(p, iv, sizeof(iv));
	log_cipher_run(s->kv->cipher, iv, plain, p + COLD_HEADER_SIZE);
	put_le32(p + FRAME_IV_SIZE, crc32c(0, str_of(p + COLD_HEADER_SIZE, plain.n)));
	*blob = p;
	*size = u32_of(plain.n + COLD_HEADER_SIZE);
	return ERR_OK;
}

static enum err segment_open(struct store *s, uint32_t segment, int *fd)
{
	char name[SEGMENT_NAME_SIZE];
	struct segment_fd *slot;
	enum err err;

	for (size_t i = 0; i < SEGMENT_FDS; i++) {
		if (s->fds[i].segment == segment && s->fds[i].fd >= 0) {
			*fd = s->fds[i].fd;
			return ERR_OK;
		}
	}
	segment_name(name, segment);
	if ((err = os_open(s->options.dir, name, OS_READ, fd)))
		return err;
	slot = &s->fds[s->fd_next++ % SEGMENT_FDS];
	os_close(slot->fd);
	*slot = (struct segment_fd){ segment, *fd };
	return ERR_OK;
}

void segment_fds_close(struct store *s)
{
	for (size_t i = 0; i < SEGMENT_FDS; i++)
		os_close(s->fds[i].fd);
}

enum err cold_read(struct store *s, const struct row *r, char *out)
{
	char header[COLD_HEADER_SIZE];
	uint8_t iv[FRAME_IV_SIZE];
	size_t n = r->cold_size - COLD_HEADER_SIZE;
	char *p;
	int fd;
	enum err err;

	if (r->cold_size <= COLD_HEADER_SIZE)
		return ERR_DAMAGED;
	if ((err = segment_open(s, r->cold.segment, &fd)))
		return err;
	buf_clear(&s->cold);
	if (!(p = buf_reserve(&s->cold, r->cold_size)))
		return ERR_NO_MEMORY;
	if ((err = os_pread_all(fd, p, r->cold_size, r->cold.offset)))
		return err == ERR_EOF ? ERR_DAMAGED : err;
	memcpy(header, p, sizeof(header));
	if (crc32c(0, str_of(p + COLD_HEADER_SIZE, n)) != get_le32(header + FRAME_IV_SIZE))
		return ERR_DAMAGED;
	memcpy(iv, header, sizeof(iv));
	log_cipher_run(s->kv->cipher, iv, str_of(p + COLD_HEADER_SIZE, n), out);
	return ERR_OK;
}

enum err location_put(struct store *s, struct buf *out, uint64_t body,
		      const uint8_t key[BODY_KEY_SIZE])
{
	struct key k = key_make1(KIND_BODY, body);
	struct rec_body_location at = { .segment = 0 };
	struct body d;
	str value;
	enum err err = kv_get(s->kv, KV_DURABLE, &k, &value);

	if (!err)
		err = body_get(value, &d);
	if (err)
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	at.segment = d.place.segment;
	at.offset = d.place.offset;
	at.stored = d.stored;
	at.size = d.size;
	at.codec = d.codec;
	memcpy(at.key, key, sizeof(at.key));
	rec_body_location_put(out, &at);
	return ERR_OK;
}

enum err store_segment(struct store *s, uint32_t segment, uint64_t body, int *fd)
{
	char name[SEGMENT_NAME_SIZE + 16];

	if (segment)
		segment_name(name, segment);
	else
		body_file_name(name, body);
	return os_open(s->options.dir, name, OS_READ, fd);
}
