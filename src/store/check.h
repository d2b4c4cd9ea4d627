/* fsck: is everything that the store holds as it was written, and is it of one piece?
 *
 * Reads all of the log, the body files, the copies of the identity and the index, and tells each
 * thing that is not right, by where it lies and by whose it is. What the store would serve is taken
 * from the same code that serves it (kv_view_open), every message is opened with its own key, and
 * every counter is counted again. With `repair`, what was damaged is put aside, and the rest is
 * made a store without a flaw (repair.c).
 *
 * Who calls it holds nothing of that store open. Unless is_online, the store's lock is taken:
 * ERR_BUSY when a server runs. is_online sees the state of the last checkpoint and repairs nothing.
 */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include "base/buf.h"
#include "base/err.h"

enum check_level {
	CHECK_NOTE,   /* nothing to be done */
	CHECK_DAMAGE, /* damaged, and nothing is lost by it: a repair makes it whole */
	CHECK_LOSS,   /* something that was acknowledged cannot be read any more */
};

/* Slices last for the call. Numbers that do not apply are 0. */
struct check_finding {
	enum check_level level;
	const char *what;  /* a word of docs/STORAGE.md, section Damage */
	str file;	   /* below the store's directory */
	uint64_t from, to; /* bytes of it */
	uint64_t account, body, queue;
	uint32_t uid;
	str address, mailbox; /* if known */
	str detail;	      /* a sentence */
};

struct check_options {
	int dir;
	const char *path; /* the same directory; LMDB opens by name */
	bool is_online, repair;
	/* What store_check_index said, in a process that may die of it. */
	bool has_index_verdict, index_is_sound;
	str index_identity; /* as it was in there; empty: none */
	void (*found)(void *arg, const struct check_finding *f);
	void *arg;
};

enum { CHECK_ASIDE_SIZE = 40 };

struct check_result {
	uint64_t segments, frames, records, log_bytes;
	uint64_t accounts, mailboxes, messages, bodies, queue;
	unsigned notes, damages, losses;
	bool has_index, index_is_sound, index_matches; /* matches: equals its rebuild */
	char aside[CHECK_ASIDE_SIZE]; /* where what was damaged lies now; empty: nothing does */
	uint64_t rewritten;	      /* records that the repair wrote */
};

/* LMDB maps its file, and a bad page can kill the process that reads it. So this is called in a
 * child: it reads all of the index, and the identity that it holds (64 bytes, or empty), which is
 * handed in above. ERR_NOT_FOUND: there is no index; ERR_DAMAGED. */
MUST_USE enum err store_check_index(int dir, const char *path, struct buf *identity);

/* ERR_NOT_FOUND: there is no store. ERR_BUSY: see above. ERR_DAMAGED: so much is lost that nothing
 * could be read (that was told). ERR_UNSUPPORTED: a later version made it. ERR_AGAIN: online, and
 * compaction took segments away each time. */
MUST_USE enum err store_check(const struct check_options *options, struct check_result *out);

#endif
