/* Arenas: memory that is freed all at once.
 *
 * A function that takes an `arena` returns results that live until that arena is reset or freed.
 * There is one for each command and one for each session, each with a budget: past it `arena_alloc`
 * returns NULL, the command fails with ERR_NO_MEMORY, and the process lives.
 *
 * Memory comes back aligned for any type and zeroed. Under AddressSanitizer what is not handed out
 * is poisoned, so a slice kept past a reset is found.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/str.h"

struct arena;

/* `budget`: the most bytes it will ever hold. NULL when there is no memory for the first block,
 * which is not allocated before it is needed. */
struct arena *arena_new(size_t budget);
void arena_free(struct arena *a); /* NULL is allowed */

/* Forgets everything; keeps one block for what comes next. */
void arena_reset(struct arena *a);

/* NULL when the budget or the memory is used up. n may be 0. */
MUST_USE void *arena_alloc(struct arena *a, size_t n);
MUST_USE void *arena_array(struct arena *a, size_t count, size_t size);

/* A copy of s; a NULL p (with n == 0) when there is no room. The copy is followed by a NUL that is
 * not counted, so that .p may go to libc where s has no NUL inside. */
str arena_str(struct arena *a, str s);
/* The same as printf; p is NULL when there is no room. */
str arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Bytes handed out since the last reset. */
size_t arena_used(const struct arena *a);

#define ARENA_NEW(a, type) ((type *)arena_alloc((a), sizeof(type)))

#endif
