/* The store's records: which keys there are, and how their values look (docs/STORAGE.md).
 *
 * Decoded slices point into the value.
 */
#ifndef STORE_RECORDS_PRIV_H
#define STORE_RECORDS_PRIV_H

#include "store/pack.h"
#include "store/types.h"

enum record_kind {
	KIND_INDEX = 0, /* the index's own */
	KIND_COUNTERS = 'C',
	KIND_ACCOUNT = 'A',   /* account */
	KIND_KEYWORD = 'K',   /* account, number */
	KIND_MAILBOX = 'M',   /* account, mailbox */
	KIND_ROW = 'R',	      /* account, mailbox, uid */
	KIND_TOMBSTONE = 'T', /* account, mailbox, modseq */
	KIND_BODY = 'B',      /* body */
	KIND_QUEUE = 'Q',     /* queue id */
	KIND_DUE = 'D',	      /* time, queue id */
	KIND_KEPT = 'X',      /* account, stamp: expunged, and can be recovered */
	KIND_KEPT_DAY = 'Y',  /* day, account: there are such of that day */
};

static inline struct key key_make(enum record_kind kind)
{
	return (struct key){ .n = 1, .p = { (char)kind } };
}

static inline struct key key_make1(enum record_kind kind, uint64_t a)
{
	struct key k = key_make(kind);

	key_number(&k, a);
	return k;
}

static inline struct key key_make2(enum record_kind kind, uint64_t a, uint64_t b)
{
	struct key k = key_make1(kind, a);

	key_number(&k, b);
	return k;
}

static inline struct key key_make3(enum record_kind kind, uint64_t a, uint64_t b, uint64_t c)
{
	struct key k = key_make2(kind, a, b);

	key_number(&k, c);
	return k;
}

/* Takes the numbers of a key apart; false when it is not of this shape. */
bool key_parse(str key, enum record_kind kind, unsigned count, uint64_t numbers[3]);

/* Where something lies in the log; the first 8 bytes of a value, because they are known only when
 * its frame is laid out. */
struct blob_place {
	uint32_t segment, offset;
};
enum { BLOB_PLACE_SIZE = 8 };
/* In memory alone, until the frame is laid out. Segment 0 and offset 0: a file of its own (a body),
 * or nothing (a cold row). */
#define PLACE_UNKNOWN ((struct blob_place){ 0, UINT32_MAX })

static inline bool place_is_unknown(struct blob_place p)
{
	return p.segment == 0 && p.offset == UINT32_MAX;
}

static inline bool place_is_file(struct blob_place p)
{
	return p.segment == 0 && p.offset == 0;
}

struct counters {
	uint64_t body, queue; /* the next ids */
	uint32_t uidvalidity; /* the last one given */
};

struct account {
	uint64_t modseq;
	uint64_t next_email;
	uint32_t next_mailbox;
	uint64_t quota, used; /* bytes */
	str address;
};

struct mailbox {
	uint32_t id;
	str name;
	uint32_t uidvalidity, uidnext, recent_uid;
	uint64_t modseq, bytes;
	uint32_t messages, unseen, deleted;
	uint16_t special;
	bool is_subscribed, is_gone;
	uint64_t floor;	     /* MODSEQ up to which tombstones were dropped */
	uint32_t tombstones; /* records of them */
};

enum { BODY_KEY_SIZE = 32, BODY_MORE = 4 };

struct row {
	uint32_t uid;
	uint64_t modseq;
	struct msg_flags flags;
	uint64_t body, email, thread, size;
	int64_t received_us;
	int32_t zone; /* minutes east */
	struct blob_place cold;
	uint32_t cold_size; /* 0: there is none */
	uint8_t key[BODY_KEY_SIZE];
};

struct body {
	struct blob_place place; /* segment 0: a file of its own */
	uint64_t stored, size;
	uint64_t references;
	uint8_t codec;
};

struct queue_item {
	uint64_t id, message, body;
	uint8_t key[BODY_KEY_SIZE];
	str sender, address, original, orcpt, envid, remote, reply, status;
	uint8_t notify, ret, body_type, state;
	bool is_smtputf8, requires_tls;
	uint64_t size;
	int64_t created_us, due_us, warned_us;
	uint32_t attempts;
};

void counters_put(struct buf *b, const struct counters *c);
MUST_USE enum err counters_get(str value, struct counters *c);
void account_put(struct buf *b, const struct account *a);
MUST_USE enum err account_get(str value, struct account *a);
void mailbox_put(struct buf *b, const struct mailbox *m);
MUST_USE enum err mailbox_get(str value, uint32_t id, struct mailbox *m);
void row_put(struct buf *b, const struct row *r);
MUST_USE enum err row_get(str value, uint32_t uid, struct row *r);
void body_put(struct buf *b, const struct body *d);
MUST_USE enum err body_get(str value, struct body *d);
/* Codec and stored size as they stand behind the place, always BODY_MORE bytes, so that they can be
 * replaced together with it. Of bodies in segments: `stored` is below 2 MB. */
void body_more_put(char out[BODY_MORE], const struct body *d);
/* The value with its `stored` written that way. */
void body_put_wide(struct buf *b, const struct body *d);
/* A kept row: the row, and the name of the mailbox it was in. */
void kept_put(struct buf *b, const struct row *r, str mailbox);
MUST_USE enum err kept_get(str value, struct row *r, str *mailbox);
void queue_item_put(struct buf *b, const struct queue_item *q);
MUST_USE enum err queue_item_get(str value, uint64_t id, struct queue_item *q);

/* Which segment a value refers to, and with how many bytes: for the accounts of what is alive.
 * False: none. */
bool record_refers(str key, str value, uint32_t *segment, uint64_t *bytes);
/* A body's record, and nobody tried to compress it. */
bool body_is_plain(str key, str value);

#endif
