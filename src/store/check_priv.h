/* Inside fsck: what check.c, check_log.c, check_index.c, check_state.c and repair.c share. */
#ifndef STORE_CHECK_PRIV_H
#define STORE_CHECK_PRIV_H

#include "store/body.h"
#include "store/check.h"
#include "store/kv_priv.h"
#include "store/records_priv.h"

enum {
	CHECK_ARENA = 1024 * 1024 * 1024,
	CHECK_FIXES_MAX = 1024 * 1024 * 1024,
	CHECK_LOST_MAX = 512 * 1024 * 1024,
	/* When records are lost for good, numbers go on so far behind what is known: more than one
	 * frame can have given. */
	CHECK_GAP = 1 << 20,
};

/* A repair was begun that could not bring everything back. */
#define CHECK_UNFINISHED "repair-unfinished"

struct check_segment {
	uint32_t number;
	uint64_t size;
	enum err state; /* of the header */
	struct segment_header header;
	uint32_t end;	     /* where its frames end for certain; 0: unknown */
	uint32_t end_chain;  /* the CRC of the frame before that end */
	uint64_t end_number; /* and its number */
	bool has_first;	     /* a good frame at its beginning: */
	uint32_t first_chain;
	uint64_t first_number;
	uint32_t walked_to, last_chain; /* where its frames ended, and the CRC of the last one */
};

enum check_range_kind {
	RANGE_FRAMES,  /* frames that were acknowledged and cannot be read */
	RANGE_BLOBS,   /* a frame whose records are good, and its blobs not as written */
	RANGE_CHAIN,   /* a frame that does not follow the one before */
	RANGE_HEADER,  /* a segment's header */
	RANGE_MISSING, /* a segment that is not there */
	RANGE_SHORT,   /* a segment's file is shorter than it was made */
};

struct check_range {
	enum check_range_kind kind;
	uint32_t segment, from, to;
	/* For the frame that bridges it: the CRC of the one before, its own (as the next frame's
	 * chain says), and its number. */
	uint32_t before, chain;
	uint64_t number;
	unsigned records;   /* that were seen in it, if only as a likeness */
	bool is_attributed; /* all of them, so that it is known what can be missing */
};

struct held {
	struct held *next;
	struct check_finding finding;
};

struct check {
	const struct check_options *options;
	struct check_result *result;
	int dir;
	struct arena *arena;
	struct identity id;
	struct log_cipher *cipher;
	struct body_cipher *bodies;

	struct check_segment *segments;
	size_t segment_count;
	struct check_range *ranges;
	size_t range_count, range_room;
	struct overlay *lost; /* keys of records in damaged frames -> position, operation */
	struct log_place place, covered; /* the log's end; what the index covers */
	bool is_chained, is_torn;
	uint32_t torn_segment, torn_from;
	struct buf records, window;

	bool has_index;		    /* it can be read, and is right */
	struct index_reader *index; /* online: one state of it, for all looks; or NULL */
	bool identity_is_damaged;
	bool all_is_suspect;   /* records are lost, and nobody can say whose */
	bool store_is_suspect; /* some are lost, whoever's */
	uint64_t *suspects;    /* accounts of lost records, ascending */
	size_t suspect_count, suspect_room;
	struct kv *view;
	struct body_seen *seen; /* a table of bodies, by id */
	size_t seen_count, seen_room;
	int segment_fd;
	uint32_t segment_open;
	struct buf plain; /* of a cold row */
	/* Online: findings wait until it is known that nothing changed meanwhile. */
	struct held *held, **held_last;

	/* What a repair writes: records, as in a frame. */
	struct buf fixes;
	uint64_t fix_count;
	int aside; /* directory, -1 until needed */
};

/* Tells and counts. */
void check_found(struct check *c, const struct check_finding *f);
/* The same with words of one's own: f->detail is made of them. */
void check_tell(struct check *c, struct check_finding f, const char *fmt, ...) PRINTF_LIKE(3, 4);
void check_fix(struct check *c, uint8_t op, str key, str value);
bool check_repairs(const struct check *c);

/* All segments: ranges, lost, place. */
MUST_USE enum err check_log(struct check *c);
/* A record of that key may have been in a damaged place at or behind `segment`. */
bool check_was_damaged(const struct check *c, uint32_t segment, bool or_behind);
/* Has the index what the log has? Chooses what the store's state is read from: *view_path. */
MUST_USE enum err check_index(struct check *c, char view_path[4096]);
void check_scratch_remove(struct check *c);
/* Tells what the ranges mean, once it is known what is left in the index. */
void check_ranges_tell(struct check *c);
bool check_is_suspect(const struct check *c, uint64_t account);
bool check_lost_records(const struct check *c); /* for good, whoever's */

/* Bodies: one look at each, however many refer to it. */
enum body_state { BODY_UNSEEN, BODY_GOOD, BODY_BAD, BODY_MISSING };
struct body_seen {
	uint64_t id;	     /* 0: free */
	uint32_t references; /* by which it could be opened */
	uint32_t key_crc;
	enum body_state state;
};
/* Opens all of it with that key, and counts a reference if that goes. *d: its record, if there is
 * one. */
MUST_USE enum err check_body(struct check *c, uint64_t id, const uint8_t key[BODY_KEY_SIZE],
			     struct body *d, enum body_state *state);
const struct body_seen *check_body_seen(const struct check *c, uint64_t id); /* or NULL */
/* A row's cold part; *prefix lasts until the next call. ERR_DAMAGED. */
MUST_USE enum err check_cold(struct check *c, const struct row *r, str *prefix);
/* Puts aside what of a message can still be read, and `note` beside it. */
MUST_USE enum err check_body_aside(struct check *c, const char *name, str prefix,
				   const struct body *d, uint64_t id,
				   const uint8_t key[BODY_KEY_SIZE], str note);
void check_bodies_end(struct check *c);
/* What a body's record says, against how often it was referred to; body files of nobody. */
MUST_USE enum err check_body_records(struct check *c, uint64_t *next_body);

/* Accounts, messages, bodies, queue, counters. */
MUST_USE enum err check_state(struct check *c);
/* The queue: *next becomes a number above all. */
MUST_USE enum err check_queue(struct check *c, uint64_t *next);
void check_fix_number(struct check *c, uint8_t op, const struct key *k, struct buf *value);

/* Makes the directory that what is damaged is put aside in. */
MUST_USE enum err check_aside(struct check *c);
/* A segment that was cut. A copy of it goes aside first. */
MUST_USE enum err check_segment_lengthen(struct check *c, const struct check_range *r);
/* `lock`: the store's, which is given up for the store itself. */
MUST_USE enum err check_repair(struct check *c, int *lock);

#endif
