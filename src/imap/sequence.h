/* Sets of numbers: "1,3:5,*" (RFC 3501 9: sequence-set). */
#ifndef IMAP_SEQUENCE_H
#define IMAP_SEQUENCE_H

#include "imap/imap.h"

/* '*' in a parsed set that is not resolved yet; no message has this number. */
#define IMAP_STAR 0

struct imap_range {
	uint32_t first, last; /* inclusive; in a resolved set first <= last */
};

struct imap_set {
	struct imap_range *ranges;
	size_t count;
};

/* All of `s`. ERR_SYNTAX, ERR_NO_MEMORY. */
MUST_USE enum err imap_set_parse(str s, struct arena *a, struct imap_set *out);

/* '*' becomes `max`, ranges are put the right way round, in order and joined where they touch. In
 * place. With max == 0 (an empty mailbox) ranges with '*' are dropped. */
void imap_set_resolve(struct imap_set *set, uint32_t max);

/* Of a resolved set. */
bool imap_set_has(const struct imap_set *set, uint32_t number);

/* A resolved set that grows; joins what touches. Numbers must be added in rising order. */
struct imap_set_builder {
	struct arena *arena;
	struct imap_set set;
	size_t room;
	bool failed;
};
void imap_set_add(struct imap_set_builder *b, uint32_t first, uint32_t last);

void imap_set_write(const struct imap_set *set, struct buf *out);

#endif
