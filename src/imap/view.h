/* The rows of a mailbox, and what each connection knows of them.
 *
 * `struct imap_view`: one per mailbox in the account's process, shared by its connections: rows in
 * order of UID, as the store last told them. `struct imap_selected`: one connection's numbering of
 * it. Sequence number n is a row index; the two agree until something is expunged that this client
 * was not told about.
 *
 * An expunged row stays in the array, marked, until every connection has been told: RFC 3501 7.4.1
 * decides when that may be. imap_selected_news computes what a client must be told and moves its
 * numbering on.
 *
 * Indexes hold until imap_view_compact; pointers to rows until a row is put. Nothing here does
 * input or output.
 */
#ifndef IMAP_VIEW_H
#define IMAP_VIEW_H

#include "base/loop.h"
#include "base/msg.h"
#include "imap/sequence.h"

/* Changes remembered for connections that were not told yet; one that is further behind looks at
 * all rows. */
enum { IMAP_CHANGES_MAX = 4096, IMAP_RECENT_RANGES_MAX = 64 };

struct imap_row {
	uint64_t modseq, flags[2], body, size;
	int64_t received_us;
	uint32_t uid;
	int16_t zone;
	bool is_gone;
	uint64_t change; /* number of its last change in the log, 0: none */
};

/* Where a message's bytes are; filled when first needed. */
struct imap_located {
	struct rec_body_location at;
	bool is_known, has_prefix;
	char *prefix; /* malloc; NULL when it is empty */
	size_t prefix_size;
	char *subject; /* malloc: folded for SEARCH; NULL when not known */
	size_t subject_size;
};

struct imap_view {
	uint32_t mailbox, uidvalidity, uidnext;
	uint64_t modseq; /* rows are as of this */
	uint64_t hint;	 /* the store has something newer if this is larger than modseq */
	bool is_loaded;
	bool is_deleted;	/* the mailbox is gone */
	bool recent_is_unsaved; /* the store does not know recent_from yet */
	size_t seen_below;	/* no row below this index is unseen */
	uint32_t recent_from; /* messages from this UID on were not told to any connection as recent
			       */

	struct imap_row *rows;
	struct imap_located *located; /* NULL, or as many as `size` */
	size_t count, size, gone;
	size_t located_bytes; /* of prefixes and subjects */

	uint32_t *changes; /* row indexes; number of the first: first_change + 1 */
	size_t change_count;
	uint64_t first_change;

	struct imap_selected *first_selected;
	unsigned busy; /* who holds indexes, or the view, while it waits */
	bool is_refreshing;
	struct waiters refreshed;
	struct imap_view *next;
};

struct imap_selected {
	struct imap_view *view;
	struct imap_selected *next;
	uint32_t *map;	 /* sequence number - 1 -> row index; NULL: the same */
	uint32_t exists; /* messages the client knows of */
	size_t known;	 /* rows [0, known) were considered */
	uint64_t change; /* changes up to this one were considered */
	bool is_behind;	 /* the log does not reach back: look at all rows */
	uint64_t modseq; /* flags up to this one were told */
	bool is_read_only;
	struct imap_range recent[IMAP_RECENT_RANGES_MAX];
	size_t recent_count;
	uint32_t *untold; /* row indexes, expunged, not told yet */
	size_t untold_count, untold_size;
};

struct imap_view *imap_view_new(uint32_t mailbox);
void imap_view_free(struct imap_view *v); /* nobody may have it selected */

/* A row as the store tells it. ERR_NO_MEMORY. */
MUST_USE enum err imap_view_put(struct imap_view *v, const struct imap_row *row);
void imap_view_expunge(struct imap_view *v, uint32_t first, uint32_t last);
/* New flags for a row that is there. */
void imap_view_set_flags(struct imap_view *v, size_t index, const uint64_t flags[2],
			 uint64_t modseq);
/* Puts rows that are gone already back in place, for a connection that was parked before they went.
 * ERR_NO_MEMORY. */
MUST_USE enum err imap_view_restore_gone(struct imap_view *v, const struct imap_range *gone,
					 size_t count, uint32_t below_uid);
/* Drops expunged rows that everybody was told of, when nobody holds indexes. */
void imap_view_compact(struct imap_view *v);
/* The first row with a UID of at least `uid`; v->count when none. */
size_t imap_view_find(const struct imap_view *v, uint32_t uid);
/* Room for v->located. ERR_NO_MEMORY. */
MUST_USE enum err imap_view_locate(struct imap_view *v);
void imap_view_forget_located(struct imap_view *v);

/* The client now sees the mailbox as it is. ERR_NO_MEMORY. */
MUST_USE enum err imap_selected_begin(struct imap_selected *s, struct imap_view *v, bool read_only);
/* As it was when the connection was parked; `gone`: what was expunged since (resolved, restored
 * with imap_view_restore_gone). ERR_STALE when that does not give what the client knew. */
MUST_USE enum err imap_selected_resume(struct imap_selected *s, struct imap_view *v, bool read_only,
				       uint32_t uidnext, uint64_t modseq, uint32_t exists,
				       const struct imap_set *gone);
void imap_selected_end(struct imap_selected *s);

/* seq: 1..exists */
size_t imap_selected_index(const struct imap_selected *s, uint32_t seq);
static inline struct imap_row *imap_selected_row(const struct imap_selected *s, uint32_t seq)
{
	return &s->view->rows[imap_selected_index(s, seq)];
}
/* The first sequence number whose UID is at least `uid`; exists + 1 when none. */
uint32_t imap_selected_find(const struct imap_selected *s, uint32_t uid);
uint32_t imap_selected_max_uid(const struct imap_selected *s);
bool imap_selected_is_recent(const struct imap_selected *s, uint32_t uid);
uint32_t imap_selected_recent(const struct imap_selected *s);
/* A set of the command becomes sequence numbers: resolved, in the arena. ERR_RANGE for a sequence
 * number that does not exist; UIDs that do not exist are ignored (RFC 3501 6.4.8). */
MUST_USE enum err imap_selected_set(const struct imap_selected *s, const struct imap_set *set,
				    bool is_uid, struct arena *a, struct imap_set *out);

struct imap_news {
	uint32_t *expunged; /* sequence numbers from the highest to the lowest */
	size_t expunged_count;
	bool has_exists; /* exists or recent changed */
	uint32_t *flags; /* sequence numbers after the expunges */
	size_t flags_count;
};
/* What happened since the last news, and the numbering after it. `own`: the MODSEQ of the client's
 * own change, which it knows, 0: none. ERR_NO_MEMORY. */
MUST_USE enum err imap_selected_news(struct imap_selected *s, bool may_expunge, uint64_t own,
				     struct arena *a, struct imap_news *out);
/* Is there anything that imap_selected_news would tell? */
bool imap_selected_has_news(const struct imap_selected *s);

#endif
