/* Growing byte buffers. The bytes lie between start and end; taking from the front moves start, and
 * the bytes are moved down only when room is needed, so taking is cheap. */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_SIZE_FIRST = 256 };

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };
}

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){ .max = b->max };
}

void buf_clear(struct buf *b)
{
	b->start = b->end = 0;
	b->failed = false;
}

void buf_release(struct buf *b)
{
	buf_free(b);
}

static bool buf_fail(struct buf *b)
{
	b->failed = true;
	return false;
}

static bool buf_grow(struct buf *b, size_t n)
{
	size_t len = b->end - b->start, want, size;
	char *p;

	if (b->failed || !size_add(len, n, &want) || want > b->max)
		return buf_fail(b);
	if (b->size - b->end >= n)
		return true;
	if (b->start && want <= b->size && b->start >= len) {
		memmove(b->p, b->p + b->start, len);
		b->start = 0;
		b->end = len;
		return true;
	}
	size = b->size ? b->size : BUF_SIZE_FIRST;
	while (size < want)
		size *= 2;
	size = MIN(size, MAX(b->max, (size_t)1));
	p = malloc(size);
	if (!p)
		return buf_fail(b);
	if (len)
		memcpy(p, b->p + b->start, len);
	free(b->p);
	b->p = p;
	b->size = size;
	b->start = 0;
	b->end = len;
	return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
	return buf_grow(b, MAX(n, (size_t)1)) ? b->p + b->end : NULL;
}

void buf_added(struct buf *b, size_t n)
{
	assert(n <= b->size - b->end);
	b->end += n;
}

void buf_add(struct buf *b, str s)
{
	if (s.n && buf_grow(b, s.n)) {
		memcpy(b->p + b->end, s.p, s.n);
		b->end += s.n;
	}
}

void buf_add_char(struct buf *b, char c)
{
	buf_add(b, str_of(&c, 1));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !buf_grow(b, (size_t)n + 1)) {
		b->failed = true;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(b->p + b->end, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->end += (size_t)n;
}

void buf_add_u64(struct buf *b, uint64_t v)
{
	char d[20];
	size_t i = sizeof(d);

	do
		d[--i] = (char)('0' + v % 10);
	while (v /= 10);
	buf_add(b, str_of(d + i, sizeof(d) - i));
}

void buf_take(struct buf *b, size_t n)
{
	assert(n <= b->end - b->start);
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}

void buf_truncate(struct buf *b, size_t n)
{
	if (n < b->end - b->start)
		b->end = b->start + n;
}

void buf_add_le16(struct buf *b, uint16_t v)
{
	char c[2];

	put_le16(c, v);
	buf_add(b, str_of(c, sizeof(c)));
}

void buf_add_le32(struct buf *b, uint32_t v)
{
	char c[4];

	put_le32(c, v);
	buf_add(b, str_of(c, sizeof(c)));
}

void buf_add_le64(struct buf *b, uint64_t v)
{
	char c[8];

	put_le64(c, v);
	buf_add(b, str_of(c, sizeof(c)));
}

void buf_add_json(struct buf *b, const char *name, str s)
{
	buf_printf(b, ",\"%s\":\"", name);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\u%04x", c);
		else
			buf_add_char(b, (char)c);
	}
	buf_add_char(b, '"');
}
