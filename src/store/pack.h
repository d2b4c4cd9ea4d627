/* Values of records: fixed little-endian numbers, varints and strings, one after the other.
 *
 * Writing appends to a struct buf, which remembers failure. Reading takes from a `str`: the first
 * read past the end, or a varint that is not one, sets `failed`, and everything after it is 0 or
 * empty, so that a decoder reads all its fields and checks once. Varints are LEB128, at most 10
 * bytes.
 *
 * Keys are made of parts that sort as their values do: a key number is its count of bytes and then
 * the bytes, the most significant first.
 */
#ifndef STORE_PACK_H
#define STORE_PACK_H

#include "base/buf.h"

static inline void pack_varint(struct buf *b, uint64_t v)
{
	char bytes[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		bytes[n++] = (char)(v | 0x80);
	bytes[n++] = (char)v;
	buf_add(b, str_of(bytes, n));
}

/* Small numbers of either sign. */
static inline void pack_signed(struct buf *b, int64_t v)
{
	pack_varint(b, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0));
}

static inline void pack_str(struct buf *b, str s)
{
	pack_varint(b, s.n);
	buf_add(b, s);
}

struct unpack {
	str rest;
	bool failed;
};

static inline str unpack_bytes(struct unpack *u, size_t n)
{
	str s = str_head(u->rest, n);

	if (n > u->rest.n) {
		u->failed = true;
		u->rest = STR_EMPTY;
		return STR_EMPTY;
	}
	u->rest = str_from(u->rest, n);
	return s;
}

static inline uint64_t unpack_varint(struct unpack *u)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 10 && i < u->rest.n; i++) {
		unsigned char c = (unsigned char)u->rest.p[i];

		if (i == 9 && c > 1)
			break;
		v |= (uint64_t)(c & 0x7f) << (7 * i);
		if (!(c & 0x80)) {
			u->rest.p += i + 1;
			u->rest.n -= i + 1;
			return v;
		}
	}
	u->failed = true;
	u->rest = STR_EMPTY;
	return 0;
}

static inline int64_t unpack_signed(struct unpack *u)
{
	uint64_t v = unpack_varint(u);

	return (int64_t)(v >> 1 ^ (v & 1 ? UINT64_MAX : 0));
}

static inline uint32_t unpack_u32(struct unpack *u)
{
	uint64_t v = unpack_varint(u);

	if (v > UINT32_MAX) {
		u->failed = true;
		return 0;
	}
	return (uint32_t)v;
}

static inline uint8_t unpack_u8(struct unpack *u)
{
	str s = unpack_bytes(u, 1);

	return s.n ? (uint8_t)s.p[0] : 0;
}

static inline uint64_t unpack_le64(struct unpack *u)
{
	str s = unpack_bytes(u, 8);

	return s.n ? get_le64(s.p) : 0;
}

static inline str unpack_str(struct unpack *u)
{
	uint64_t n = unpack_varint(u);

	return unpack_bytes(u, n > u->rest.n ? u->rest.n + 1 : (size_t)n);
}

/* A key under construction: a kind, then numbers. */
enum { KEY_MAX = 64 };

struct key {
	uint8_t n;
	char p[KEY_MAX];
};

static inline void key_number(struct key *k, uint64_t v)
{
	unsigned bytes = v ? (unsigned)(71 - __builtin_clzll(v)) / 8 : 0;

	k->p[k->n++] = (char)bytes;
	while (bytes--)
		k->p[k->n++] = (char)(v >> (8 * bytes));
}

static inline str key_str(const struct key *k)
{
	return str_of(k->p, k->n);
}

static inline uint64_t unpack_key_number(struct unpack *u)
{
	unsigned bytes = unpack_u8(u);
	uint64_t v = 0;
	str s;

	if (bytes > 8) {
		u->failed = true;
		return 0;
	}
	s = unpack_bytes(u, bytes);
	for (size_t i = 0; i < s.n; i++)
		v = v << 8 | (unsigned char)s.p[i];
	return v;
}

#endif
