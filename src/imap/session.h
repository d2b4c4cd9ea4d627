/* An IMAP connection after login, in its account's process.
 *
 * A session owns its connection. Between two commands it is parked: no fiber, no arena, no buffers.
 * It ends by itself (LOGOUT, the client's end, an error) and then calls on_end, which must call
 * imap_session_free.
 *
 *	imap_session_new(account, conn, on_end, arg, &s);
 *	imap_session_start(s, input_read_already);
 *
 * A session that is parked can be taken out as a flat record and put back in another process:
 * imap_session_export and imap_session_resume (parked.h).
 */
#ifndef IMAP_SESSION_H
#define IMAP_SESSION_H

#include "imap/account.h"
#include "net/conn.h"

struct imap_session;
typedef void (*imap_session_end_fn)(void *arg, struct imap_session *s);

MUST_USE enum err imap_session_new(struct imap_account *a, struct conn *c,
				   imap_session_end_fn on_end, void *arg,
				   struct imap_session **out);
void imap_session_free(struct imap_session *s);
/* `input` was read from the client already. */
void imap_session_start(struct imap_session *s, str input);
/* The same for a connection that was parked. Where its record cannot be restored the client reads
 * BYE. */
void imap_session_resume(struct imap_session *s, str record, str input);
bool imap_session_is_parked(const struct imap_session *s);
/* Loop time since which it is parked. */
int64_t imap_session_parked_since(const struct imap_session *s);
/* Of a parked session: its record and the client's socket, which is the caller's. The session is
 * over; it is freed without on_end. */
MUST_USE enum err imap_session_export(struct imap_session *s, struct buf *record, int *fd,
				      struct buf *input);
/* Says BYE and ends, now or when the command in progress is done. */
void imap_session_stop(struct imap_session *s, const char *why);
/* For account->on_change: somebody watches this view. */
void imap_session_view_changed(struct imap_view *v);

#endif
