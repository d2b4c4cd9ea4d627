/* A connection between two commands as a flat record (ARCHITECTURE 4).
 *
 * From it and the store alone the connection goes on in another process: the view is derived again
 * from the mailbox's rows and the expunges after `modseq`. `exists` proves that what was derived is
 * what the client knows.
 */
#ifndef IMAP_PARKED_H
#define IMAP_PARKED_H

#include "imap/imap.h"
#include "imap/sequence.h"

enum { IMAP_PARKED_VERSION = 1, IMAP_TAG_MAX = 256, IMAP_PARKED_RANGES_MAX = 64 };

struct imap_parked {
	uint64_t account;
	uint32_t mailbox; /* 0: none selected */
	uint32_t uidvalidity, uidnext;
	uint64_t modseq;
	uint32_t exists;
	uint32_t keywords; /* how many of the account's keywords the client was told of */
	uint32_t bad;	   /* commands in a row that were not understood */
	bool is_read_only, is_idle;
	str idle_tag;
	struct imap_range recent[IMAP_PARKED_RANGES_MAX];
	size_t recent_count;
};

void imap_parked_write(const struct imap_parked *p, struct buf *out);
/* The tag borrows from `record`. ERR_PROTOCOL, ERR_UNSUPPORTED (another version). */
MUST_USE enum err imap_parked_read(str record, struct imap_parked *out);

#endif
