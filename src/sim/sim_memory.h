/* Two kinds of memory: the simulator's own, and the heaps of its processes.
 *
 * malloc and its family are wrapped at link time: what a simulated process allocates belongs to its
 * heap, which is given back as a whole when the process is gone, and counted meanwhile. What the
 * simulator needs for itself it takes with sim_alloc, past the wrappers.
 */
#ifndef SIM_SIM_MEMORY_H
#define SIM_SIM_MEMORY_H

#include "base/str.h"

/* Zeroed; never NULL. */
void *sim_alloc(size_t n);
void *sim_grow(void *p, size_t n); /* realloc; what is new is not zeroed */
void sim_release(void *p);

/* Pages that are zero until they are written. */
char *sim_pages_new(uint64_t n);
char *sim_pages_grow(char *p, uint64_t from, uint64_t to); /* may move */
void sim_pages_free(char *p, uint64_t n);

struct sim_heap;
struct sim_heap *sim_heap_new(struct sim_heap *origin_or_null);
/* Its process is gone. The memory goes when no heap that originates in it is left. */
void sim_heap_end(struct sim_heap *h);
size_t sim_heap_bytes(const struct sim_heap *h);
size_t sim_heap_blocks(const struct sim_heap *h);
/* What is allocated from now on belongs to this heap; NULL: to nobody. Returns the one before. */
struct sim_heap *sim_heap_use(struct sim_heap *h);

#endif
