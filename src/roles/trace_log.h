/* The history of messages on disk: what `posthorn trace` answers from.
 *
 * Events are appended to files of TRACE_FILE_SIZE; a file that is full gets a sorted index of its
 * keys (message id, sender, recipient)
 * beside it. The newest file's index is in memory, and made again from the file at start, so kill
 * -9 loses nothing that was appended. Nothing is synced: a power cut may take the last seconds of
 * history, never mail.
 *
 * Files are NNNNNNNN.events and NNNNNNNN.keys in the folder; the oldest are removed by age and
 * size. A search reads each file's index about ten times: less than a millisecond among a million
 * messages.
 */
#ifndef ROLES_TRACE_LOG_H
#define ROLES_TRACE_LOG_H

#include "base/log.h"
#include "base/msg.h"
#include "base/os.h"

enum {
	TRACE_FILE_SIZE = 16 * 1024 * 1024,
	TRACE_FOUND_MAX = 2000, /* events of one search, the newest */
};

struct trace_log;

/* Takes the folder's descriptor. `days`, `size`: how much is kept. */
MUST_USE enum err trace_log_open(int folder, int64_t keep_us, uint64_t keep_bytes,
				 const struct log *log, struct trace_log **out);
void trace_log_close(struct trace_log *t);
void trace_log_limits(struct trace_log *t, int64_t keep_us, uint64_t keep_bytes);

/* Collected; trace_log_flush writes what was collected in one call. */
void trace_log_add(struct trace_log *t, const struct msg_trace_event *e);
MUST_USE enum err trace_log_flush(struct trace_log *t);

struct trace_found {
	uint64_t message;
	int64_t at_us;
	uint16_t event;
	str sender, recipient, text;
};

/* All events of a message id, in order of time, at most the newest TRACE_FOUND_MAX. They live in
 * the arena. */
MUST_USE enum err trace_log_find_message(struct trace_log *t, uint64_t message, struct arena *a,
					 struct trace_found **found, size_t *n);
/* The same with an address as sender or recipient (ASCII case does not matter): events of the
 * newest `limit` messages, where one of no message counts as a message. `older`: how many events of
 * the address there are besides. */
MUST_USE enum err trace_log_find_address(struct trace_log *t, str address, size_t limit,
					 struct arena *a, struct trace_found **found, size_t *n,
					 uint64_t *older);

struct trace_counts {
	uint64_t events, bytes, files;
	int64_t oldest_us;
};
struct trace_counts trace_log_counts(const struct trace_log *t);

#endif
