/* Compaction: what its halves share. The store decides and writes (compact.c); its helper looks for
 * what is wanted, reads and compresses it (compact_plan.c, compactor.c). */
#ifndef STORE_COMPACT_PRIV_H
#define STORE_COMPACT_PRIV_H

#include "base/msg.h"
#include "store/index_priv.h"

/* cp_item.what */
enum compact_what {
	COMPACT_RECORD = 1, /* the record alone */
	COMPACT_COLD = 2,   /* a row, and its cold part */
	COMPACT_BODY = 3,
	COMPACT_DELETE = 4, /* a deletion */
};

enum {
	COMPACT_SEGMENTS_MAX = 1000, /* in one pass */
	COMPACT_ITEMS_ROOM = 40 * 1024,
	COMPACT_BLOBS_MAX = 128, /* in one step */
};

struct compact_sources {
	int dir;
	const struct identity *identity;
	const struct log *log;
	struct index_reader *index;
};

struct compact_segment {
	uint32_t number;
	bool ends_older, is_old;
};

struct compact_plan {
	struct compact_segment *segments; /* ascending */
	size_t count;
	uint64_t wanted, wasted;
};

/* The segments that are worth emptying now. */
MUST_USE enum err compact_plan_make(const struct compact_sources *from,
				    const struct msg_cp_plan *in, struct compact_plan *out);
/* As the store takes it; *out borrows from `list`. */
void compact_plan_encode(const struct compact_plan *p, struct buf *list,
			 struct msg_cp_planned *out);
void compact_plan_free(struct compact_plan *p);
const struct compact_segment *compact_plan_find(const struct compact_plan *p, uint32_t segment);

struct compactor;

/* Takes over the plan. `from` is copied. */
MUST_USE enum err compactor_new(const struct compact_sources *from, struct compact_plan *plan,
				struct compactor **out);
void compactor_free(struct compactor *c);
/* The next items (RECORD cp_item) and their blobs; both are cleared first. Looks at a bounded part
 * of the index and of the log, so there may be none although there is more. */
MUST_USE enum err compactor_step(struct compactor *c, uint32_t bytes, struct buf *items,
				 struct buf *blobs, bool *more);

#endif
