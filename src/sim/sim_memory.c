/* Memory by process: each block that a simulated process allocates has a header that links it into
 * the process's heap, so that a process that is killed in the middle gives back everything, and one
 * that lives can be asked how much it holds.
 *
 * A block that is freed here may come from a library that allocated past the wrappers (getline,
 * strdup inside libc, OpenSSL): the header's mark tells. In front of such a block lies the size
 * field of the allocator, which is never the mark.
 *
 * A copy of a process (os_fork) shares the memory of its origin, which is therefore kept until the
 * copy is gone too.
 */
#include "sim/sim_memory.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#define LOOKS_IN_FRONT __attribute__((no_sanitize_address))
#else
#define LOOKS_IN_FRONT
#endif

#define BLOCK_MARK 0x70686f726e53494du

struct block {
	struct block *next, **link;
	struct sim_heap *heap;
	size_t size;
	size_t offset; /* of the header in what the allocator gave */
	uint64_t mark;
	_Alignas(16) char data[];
};

struct sim_heap {
	struct block *first;
	struct sim_heap *origin;
	size_t bytes, blocks;
	unsigned users; /* its process, and the heaps that originate in it */
};

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t n);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t count, size_t n);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_posix_memalign(void **out, size_t alignment, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

/* Whose memory it is that is allocated now: malloc has no parameter for it. */
struct sim_heap *sim_heap_current;

void *sim_alloc(size_t n)
{
	void *p = __real_calloc(1, n ? n : 1);

	if (!p)
		panic("the simulator has no memory for %zu bytes", n);
	return p;
}

void *sim_grow(void *p, size_t n)
{
	void *q = __real_realloc(p, n ? n : 1);

	if (!q)
		panic("the simulator has no memory for %zu bytes", n);
	return q;
}

void sim_release(void *p)
{
	__real_free(p);
}

char *sim_pages_new(uint64_t n)
{
	void *p = __real_mmap(NULL, n, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		panic("the simulator has no room for %llu bytes", (unsigned long long)n);
	return p;
}

char *sim_pages_grow(char *p, uint64_t from, uint64_t to)
{
	void *q = mremap(p, from, to, MREMAP_MAYMOVE);

	if (q == MAP_FAILED)
		panic("the simulator has no room for %llu bytes", (unsigned long long)to);
	return q;
}

void sim_pages_free(char *p, uint64_t n)
{
	if (p)
		__real_munmap(p, n);
}

struct sim_heap *sim_heap_new(struct sim_heap *origin)
{
	struct sim_heap *h = sim_alloc(sizeof(*h));

	h->origin = origin;
	h->users = 1;
	if (origin)
		origin->users++;
	return h;
}

void sim_heap_end(struct sim_heap *h)
{
	while (h && --h->users == 0) {
		struct sim_heap *origin = h->origin;

		for (struct block *b = h->first, *next; b; b = next) {
			next = b->next;
			b->mark = 0;
			__real_free((char *)b - b->offset);
		}
		sim_release(h);
		h = origin;
	}
}

size_t sim_heap_bytes(const struct sim_heap *h)
{
	return h->bytes;
}

size_t sim_heap_blocks(const struct sim_heap *h)
{
	return h->blocks;
}

struct sim_heap *sim_heap_use(struct sim_heap *h)
{
	struct sim_heap *before = sim_heap_current;

	sim_heap_current = h;
	return before;
}

static void block_link(struct block *b, struct sim_heap *h)
{
	b->heap = h;
	b->next = h->first;
	b->link = &h->first;
	if (b->next)
		b->next->link = &b->next;
	h->first = b;
	h->bytes += b->size;
	h->blocks++;
}

static void block_unlink(struct block *b)
{
	*b->link = b->next;
	if (b->next)
		b->next->link = b->link;
	b->heap->bytes -= b->size;
	b->heap->blocks--;
}

static void *block_begin(struct block *b, size_t offset, size_t n)
{
	b->offset = offset;
	b->size = n;
	b->mark = BLOCK_MARK;
	block_link(b, sim_heap_current);
	return b->data;
}

/* The header in front of a block of a heap; NULL: it is none of ours. */
LOOKS_IN_FRONT static struct block *block_of(void *p)
{
	struct block *b = (struct block *)(void *)((char *)p - sizeof(struct block));

	return b->mark == BLOCK_MARK ? b : NULL;
}

void *__wrap_malloc(size_t n)
{
	struct block *b;

	if (!sim_heap_current)
		return __real_malloc(n);
	b = n > SIZE_MAX - sizeof(*b) ? NULL : __real_malloc(sizeof(*b) + n);
	return b ? block_begin(b, 0, n) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
	struct block *b;
	size_t n;

	if (!sim_heap_current)
		return __real_calloc(count, size);
	if (!size_mul(count, size, &n) || n > SIZE_MAX - sizeof(*b))
		return NULL;
	b = __real_calloc(1, sizeof(*b) + n);
	return b ? block_begin(b, 0, n) : NULL;
}

void __wrap_free(void *p)
{
	struct block *b = p ? block_of(p) : NULL;

	if (!b) {
		__real_free(p);
		return;
	}
	block_unlink(b);
	b->mark = 0;
	__real_free((char *)b - b->offset);
}

void *__wrap_realloc(void *p, size_t n)
{
	struct block *b = p ? block_of(p) : NULL, *grown;

	if (!p)
		return __wrap_malloc(n);
	if (!b)
		return __real_realloc(p, n);
	if (n > SIZE_MAX - sizeof(*b))
		return NULL;
	if (b->offset)
		panic("realloc of aligned memory");
	block_unlink(b);
	grown = __real_realloc(b, sizeof(*b) + n);
	if (grown)
		grown->size = n;
	else
		grown = b;
	block_link(grown, grown->heap);
	return grown == b && grown->size != n ? NULL : grown->data;
}

void *__wrap_reallocarray(void *p, size_t count, size_t size)
{
	size_t n;

	return size_mul(count, size, &n) ? __wrap_realloc(p, n) : NULL;
}

char *__wrap_strdup(const char *s)
{
	return __wrap_strndup(s, SIZE_MAX - 1);
}

char *__wrap_strndup(const char *s, size_t most)
{
	size_t n = strnlen(s, most);
	char *p = __wrap_malloc(n + 1);

	if (p) {
		memcpy(p, s, n);
		p[n] = 0;
	}
	return p;
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t n)
{
	size_t room = sizeof(struct block) + alignment;
	char *p, *data;

	if (n > SIZE_MAX - room || !(p = __real_malloc(room + n)))
		return ENOMEM;
	data = p + sizeof(struct block);
	data += (alignment - (uintptr_t)data % alignment) % alignment;
	if (sim_heap_current) {
		struct block *b = (struct block *)(void *)(data - sizeof(*b));

		*out = block_begin(b, (size_t)((char *)b - p), n);
		return 0;
	}
	panic("aligned memory outside a process");
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
	void *p = NULL;
	int failed = __wrap_posix_memalign(&p, alignment, n);

	if (failed)
		errno = failed;
	return p;
}
