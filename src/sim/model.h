/* What an account must look like: a model of its mailboxes, fed by what its one writing client did
 * and by what anybody saw.
 *
 * A command that was answered is applied to the model. One whose answer never came is kept as
 * `pending`: it happened whole or not at all, and the next look at the account (an audit) says
 * which; after that it stays so. What any client has seen happened: `must`.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "base/str.h"

struct world;

enum { MODEL_NAME_MAX = 40, MODEL_BOXES_MAX = 16, OP_UIDS_MAX = 16 };

/* A message's name: a letter (s: sent, a: appended, n: a notice) above a number. */
#define TOKEN(kind, id) ((uint64_t)(kind) << 56 | (id))
#define TOKEN_KIND(t)	((char)((t) >> 56))
#define TOKEN_ID(t)	((t)&0xffffffffffffffu)

enum {
	FLAG_SEEN = 1,
	FLAG_ANSWERED = 2,
	FLAG_FLAGGED = 4,
	FLAG_DELETED = 8,
	FLAG_DRAFT = 16,
};

struct row_model {
	uint32_t uid; /* 0: made by the pending command, not seen yet */
	uint8_t flags;
	uint32_t had; /* bit n: it had the flags n once */
	uint64_t token;
	int64_t since; /* when we learnt of it */
};

struct box_model {
	char name[MODEL_NAME_MAX];
	uint32_t uidvalidity; /* 0: not seen yet */
	uint32_t uidnext;     /* everything below it is known */
	int64_t looked_at;    /* of an observation: when it was begun */
	struct row_model *rows;
	size_t n, room;
	uint32_t *gone; /* UIDs from uidnext on that were expunged */
	size_t gone_n, gone_room;
};

enum op_kind {
	OP_NONE,
	OP_APPEND,
	OP_FLAGS,
	OP_EXPUNGE,
	OP_COPY,
	OP_MOVE,
	OP_CREATE,
	OP_DELETE,
	OP_RENAME,
};

struct op {
	enum op_kind kind;
	char box[MODEL_NAME_MAX], target[MODEL_NAME_MAX];
	uint32_t uids[OP_UIDS_MAX];
	uint32_t made[OP_UIDS_MAX]; /* UIDs of the new rows, 0: not known */
	uint64_t tokens[OP_UIDS_MAX];
	unsigned n;
	char sign; /* FLAGS: '+', '-', '=' */
	uint8_t flags;
	bool must;	/* somebody has seen that it happened */
	unsigned kills; /* world's, when it began */
};

struct account_model {
	unsigned number;
	char address[48], password[32];
	bool is_known; /* was looked through once */
	struct box_model boxes[MODEL_BOXES_MAX];
	unsigned n;
	struct op pending;
	uint64_t acked; /* changes that were acknowledged: MODSEQ must have grown by that */
	uint64_t modseq, modseq_acked; /* at the last look at the disk */
	uint64_t *owed; /* sends that were acknowledged and have not been seen here */
	size_t owed_n, owed_room;
};

struct box_model *model_box(struct account_model *a, const char *name);
struct row_model *model_row(struct box_model *b, uint32_t uid);
/* Ascending by UID; unknown ones last. NULL: there is no memory. */
struct row_model *model_row_add(struct box_model *b, uint32_t uid, uint64_t token, uint8_t flags);
struct box_model *model_box_add(struct account_model *a, const char *name);
void model_copy(struct account_model *to, const struct account_model *from); /* boxes alone */
void model_free(struct account_model *a);				     /* boxes alone */
uint8_t model_flags(const struct op *op, uint8_t before);
void model_apply(struct account_model *a, const struct op *op);

/* `seen` is the whole account as it was just read. True when the model, with or without the pending
 * command, explains it; the model then becomes what was seen. Otherwise a violation. */
bool model_reconcile(struct world *w, struct account_model *a, struct account_model *seen);

/* Another client of the account saw this row. */
void model_seen_row(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid,
		    uint64_t token, uint8_t flags);
/* ... these flags of it; ... that it went. */
void model_seen_flags(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid,
		      uint8_t flags);
void model_seen_gone(struct world *w, struct account_model *a, uint32_t uidvalidity, uint32_t uid);

#endif
