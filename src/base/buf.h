/* Growing byte buffers with a hard maximum.
 *
 * Bytes are added at the end and taken from the front. A buffer that would pass its maximum, or for
 * which there is no memory, takes nothing, remembers it (`buf_failed`) and refuses everything until
 * it is cleared: a writer may add a whole reply and check once at the end.
 *
 *	struct buf b;
 *	buf_init(&b, 64 * 1024);
 *	buf_printf(&b, "* %u EXISTS\r\n", n);
 *	if (buf_failed(&b)) ...
 *	buf_free(&b);
 *
 * `buf_str` borrows: it holds until the buffer is next changed.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/str.h"

struct buf {
	char *p;      /* memory, NULL until needed */
	size_t start; /* first byte not yet taken */
	size_t end;   /* one past the last byte */
	size_t size;  /* of the memory */
	size_t max;   /* most bytes held at once */
	bool failed;
};

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);  /* may be used again after buf_init alone */
void buf_clear(struct buf *b); /* forgets bytes and failure, keeps the memory */
/* Clears, and gives the memory back: for a connection that falls idle. */
void buf_release(struct buf *b);

static inline str buf_str(const struct buf *b)
{
	return (str){ b->p ? b->p + b->start : NULL, b->end - b->start };
}

static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

static inline bool buf_failed(const struct buf *b)
{
	return b->failed;
}

/* Makes room for n more bytes and returns where they go, NULL when that would pass the maximum;
 * buf_added says how many were written there. */
MUST_USE char *buf_reserve(struct buf *b, size_t n);
void buf_added(struct buf *b, size_t n);

void buf_add(struct buf *b, str s);
void buf_add_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A member of a JSON object behind others, escaped (RFC 8259 7): ,"name":"s" */
void buf_add_json(struct buf *b, const char *name, str s);
void buf_add_u64(struct buf *b, uint64_t v); /* decimal */

/* Takes n bytes (at most all) from the front. */
void buf_take(struct buf *b, size_t n);
/* Drops everything behind the first n bytes held. */
void buf_truncate(struct buf *b, size_t n);

/* Little-endian integers, for records and messages. */
void buf_add_le16(struct buf *b, uint16_t v);
void buf_add_le32(struct buf *b, uint32_t v);
void buf_add_le64(struct buf *b, uint64_t v);

static inline uint16_t get_le16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap16(v);
#endif
	return v;
}

static inline uint32_t get_le32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static inline uint64_t get_le64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

static inline void put_le16(void *p, uint16_t v)
{
	v = get_le16(&v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_le32(void *p, uint32_t v)
{
	v = get_le32(&v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_le64(void *p, uint64_t v)
{
	v = get_le64(&v);
	memcpy(p, &v, sizeof(v));
}

#endif
