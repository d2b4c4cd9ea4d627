/* Arenas: a list of blocks, the newest first; each next block is twice as large, up to a limit, or
 * as large as the one allocation that does not fit. Reset keeps the first (smallest) block only, so
 * a session that once needed much does not hold it for ever. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ARENA_ALIGN = 16, ARENA_BLOCK_FIRST = 2048, ARENA_BLOCK_MAX = 256 * 1024 };

struct block {
	struct block *next;
	size_t size; /* of data */
	size_t used;
	_Alignas(16) char data[];
};

struct arena {
	size_t budget;
	size_t held; /* bytes of data in all blocks */
	size_t used;
	struct block *newest;
};

struct arena *arena_new(size_t budget)
{
	struct arena *a = calloc(1, sizeof(*a));

	if (a)
		a->budget = budget;
	return a;
}

static void block_free(struct block *b)
{
	UNPOISON(b->data, b->size);
	free(b);
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	for (struct block *b = a->newest, *next; b; b = next) {
		next = b->next;
		block_free(b);
	}
	free(a);
}

void arena_reset(struct arena *a)
{
	while (a->newest && a->newest->next) {
		struct block *b = a->newest;

		a->newest = b->next;
		a->held -= b->size;
		block_free(b);
	}
	if (a->newest && a->newest->size > ARENA_BLOCK_MAX) {
		a->held -= a->newest->size;
		block_free(a->newest);
		a->newest = NULL;
	}
	if (a->newest) {
		POISON(a->newest->data, a->newest->size);
		a->newest->used = 0;
	}
	a->used = 0;
}

static struct block *block_add(struct arena *a, size_t need)
{
	size_t size =
		a->newest ? MIN(a->newest->size * 2, (size_t)ARENA_BLOCK_MAX) : ARENA_BLOCK_FIRST;
	struct block *b;

	size = MAX(size, need);
	if (a->budget - a->held < size)
		size = need; /* the rest of the budget, exactly as far as it goes */
	if (a->budget - a->held < size)
		return NULL;
	b = malloc(sizeof(*b) + size);
	if (!b)
		return NULL;
	b->size = size;
	b->used = 0;
	b->next = a->newest;
	a->newest = b;
	a->held += size;
	POISON(b->data, size);
	return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
	struct block *b = a->newest;
	size_t need;
	void *p;

	if (!size_add(n, ARENA_ALIGN - 1, &need))
		return NULL;
	need &= ~(size_t)(ARENA_ALIGN - 1);
	if (need == 0)
		need = ARENA_ALIGN;
	if (!b || b->size - b->used < need)
		b = block_add(a, need);
	if (!b)
		return NULL;
	p = b->data + b->used;
	b->used += need;
	a->used += need;
	UNPOISON(p, n ? n : 1);
	memset(p, 0, n ? n : 1);
	return p;
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
	size_t n;

	return size_mul(count, size, &n) ? arena_alloc(a, n) : NULL;
}

str arena_str(struct arena *a, str s)
{
	size_t n;
	char *p;

	if (!size_add(s.n, 1, &n) || !(p = arena_alloc(a, n)))
		return STR_EMPTY;
	if (s.n)
		memcpy(p, s.p, s.n);
	return str_of(p, s.n);
}

str arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	int n;
	char *p;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !(p = arena_alloc(a, (size_t)n + 1)))
		return STR_EMPTY;
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return str_of(p, (size_t)n);
}

size_t arena_used(const struct arena *a)
{
	return a->used;
}
